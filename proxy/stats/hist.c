/*
 * Histograms: log-linear, 64 cells to a power of two, so that a value is known within 0.8 %.
 *
 * Model    below 64 us each value has its cell; above, a power of two ("octave") is cut into 64
 *          equal cells. An octave's cells are made when the first value falls in it, so that a
 *          histogram costs what its spread costs: half a KiB an octave.
 * Threads  one writer a hist, relaxed atomics; any reader.
 * Not here which thread has which hist (block.c), and windows (series.c).
 */
#include "stats/inside.h"

#include <stdlib.h>

static inline void
bump(_Atomic uint64_t *p, uint64_t n)       /* one writer: no locked instruction */
{
    atomic_store_explicit(p, atomic_load_explicit(p, memory_order_relaxed) + n,
        memory_order_relaxed);
}

static inline void
cell_of(uint64_t us, unsigned *octave, unsigned *cell)
{
    unsigned msb;

    if (us < HIST_SUB) {
        *octave = 0;
        *cell = (unsigned)us;
        return;
    }
    if (us > HIST_TOP)
        us = HIST_TOP;
    msb = 63 - (unsigned)__builtin_clzll(us);
    *octave = msb - HIST_SUB_BITS + 1;
    *cell = (unsigned)(us >> (msb - HIST_SUB_BITS)) & (HIST_SUB - 1);
}

/* The value in the middle of a cell. */
static uint64_t
cell_value(unsigned octave, unsigned cell)
{
    if (octave == 0)
        return cell;
    return ((uint64_t)(HIST_SUB + cell) << (octave - 1)) + ((UINT64_C(1) << (octave - 1)) - 1) / 2;
}

void
hist_add(struct hist *h, uint64_t us, uint64_t bytes)
{
    unsigned o, c;
    struct octave *at;

    cell_of(us, &o, &c);
    at = atomic_load_explicit(&h->octaves[o], memory_order_relaxed);
    if (UNLIKELY(at == NULL)) {
        at = calloc(1, sizeof *at);
        if (at == NULL)
            return;
        atomic_store_explicit(&h->octaves[o], at, memory_order_release);
    }
    bump(&at->cells[c], 1);
    bump(&h->sum, us);
    if (bytes > 0)
        bump(&h->bytes, bytes);
    if (us > atomic_load_explicit(&h->max, memory_order_relaxed))
        atomic_store_explicit(&h->max, us, memory_order_relaxed);
    atomic_store_explicit(&h->count, atomic_load_explicit(&h->count, memory_order_relaxed) + 1,
        memory_order_release);
}

void
hist_free(struct hist *h)
{
    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        free(atomic_load_explicit(&h->octaves[o], memory_order_relaxed));
    free(h);
}

void
cells_clear(struct cells *c)
{
    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        if (c->used >> o & 1)
            memset(c->at[o], 0, sizeof c->at[o]);
    c->used = 0;
}

uint64_t
cells_count(const struct cells *c)
{
    uint64_t n = 0;

    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        for (unsigned i = 0; i < HIST_SUB && (c->used >> o & 1); i++)
            n += c->at[o][i];
    return n;
}

void
cells_add_hist(struct cells *c, const struct hist *h)
{
    for (unsigned o = 0; o < HIST_OCTAVES; o++) {
        struct octave *at = atomic_load_explicit(&h->octaves[o], memory_order_acquire);

        if (at == NULL)
            continue;
        c->used |= 1u << o;
        for (unsigned i = 0; i < HIST_SUB; i++)
            c->at[o][i] += atomic_load_explicit(&at->cells[i], memory_order_relaxed);
    }
}

void
cells_since(struct cells *c, struct cells *before)
{
    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        for (unsigned i = 0; i < HIST_SUB && (c->used >> o & 1); i++) {
            uint64_t now = c->at[o][i];

            c->at[o][i] -= before->at[o][i];
            before->at[o][i] = now;
        }
    before->used |= c->used;
}

uint64_t
cells_quantile(const struct cells *c, uint64_t count, double q)
{
    uint64_t rank = (uint64_t)(q * (double)count);      /* nearest rank: the ceil(q n)-th of n */
    uint64_t passed = 0;

    if (count == 0)
        return 0;
    if ((double)rank < q * (double)count)
        rank++;
    if (rank == 0)
        rank = 1;
    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        for (unsigned i = 0; i < HIST_SUB && (c->used >> o & 1); i++) {
            passed += c->at[o][i];
            if (passed >= rank)
                return cell_value(o, i);
        }
    return cells_max(c);
}

uint64_t
cells_max(const struct cells *c)
{
    for (unsigned o = HIST_OCTAVES; o-- > 0;)
        for (unsigned i = HIST_SUB; i-- > 0 && (c->used >> o & 1);)
            if (c->at[o][i] > 0)
                return cell_value(o, i);
    return 0;
}

uint64_t
cells_upto(const struct cells *c, uint64_t us)
{
    uint64_t n = 0;

    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        for (unsigned i = 0; i < HIST_SUB && (c->used >> o & 1); i++) {
            if (cell_value(o, i) > us)
                return n;
            n += c->at[o][i];
        }
    return n;
}
