/*
 * Series and windows: what was counted in the last 10 seconds, minute, 5 minutes, and ever.
 *
 * Model    each second stats_tick compares what each series has counted with what it had at the
 *          tick before, and keeps the difference: ten of one second each, and, once ten seconds
 *          are over, one for them together, thirty of those. A difference is a string of pairs
 *          (distance to the next cell, count) in variable-length numbers: two bytes for most cells
 *          that were hit, nothing for a series that rested.
 *          10 s: the ten. 1 min and 5 min: that many whole tens of seconds and those of the present
 *          ten, so that they cover at least what they say: between 61 and 70, and 301 and 310
 *          seconds. Rates divide by what is covered.
 * Threads  any, under the lock; the hot side never takes it.
 */
#include "stats/inside.h"

#include <pthread.h>
#include <stdlib.h>

#define FINE   10
#define COARSE 30

struct delta {
    int64_t  at;                        /* the second, or ten of seconds, it tells of */
    uint32_t n;
    uint8_t *pairs;                     /* owned; NULL: nothing happened */
};

struct series {
    uint32_t       id;
    struct series *next;                /* all of them */
    struct hist   *parts;               /* owned */
    uint64_t       seen;                /* count at the last tick */
    /* owned: cells at the last tick, modulo 2^32: a second has fewer */
    uint32_t      *last[HIST_OCTAVES];
    struct delta   fine[FINE], coarse[COARSE];
};

#define PAGE 512u
struct page { struct series *at[PAGE]; };

const char *const window_names[WINDOWS] = { "10s", "1m", "5m", "start" };
const double quantile_of[QUANTILES] = { 0.5, 0.75, 0.9, 0.95, 0.99, 0.999 };
const char *const quantile_names[QUANTILES] = { "p50", "p75", "p90", "p95", "p99", "p999" };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct page *pages[(ID_END + PAGE - 1) / PAGE];      /* owned */
static struct series *all;                                  /* owned */
static int64_t first_second = -1, last_second = -1;
static struct cells *scratch[3];                            /* owned */

void stats_lock(void)   { pthread_mutex_lock(&lock); }
void stats_unlock(void) { pthread_mutex_unlock(&lock); }

struct cells *
scratch_cells(unsigned which)
{
    if (scratch[which] == NULL)
        scratch[which] = calloc(1, sizeof *scratch[which]);
    else
        cells_clear(scratch[which]);
    return scratch[which];
}

struct series *
series_find(uint32_t id)
{
    struct page *p = pages[id / PAGE];

    return p != NULL ? p->at[id % PAGE] : NULL;
}

static struct series *
series_make(uint32_t id)
{
    struct page **p = &pages[id / PAGE];
    struct series *s;

    if (*p == NULL && (*p = calloc(1, sizeof **p)) == NULL)
        return NULL;
    s = (*p)->at[id % PAGE];
    if (s != NULL || (s = calloc(1, sizeof *s)) == NULL)
        return s;
    s->id = id;
    s->next = all;
    all = s;
    (*p)->at[id % PAGE] = s;
    return s;
}

void
series_gather(void)
{
    static struct hist *homeless;       /* parts for which memory was out; tried again */
    struct hist *h = hist_fresh(), *next;

    if (homeless != NULL) {
        struct hist **tail = &h;

        while (*tail != NULL)
            tail = &(*tail)->next;
        *tail = homeless;
        homeless = NULL;
    }
    for (; h != NULL; h = next) {
        struct series *s = series_make(h->id);
        struct hist **list = s != NULL ? &s->parts : &homeless;

        next = h->next;
        h->next = *list;
        *list = h;
    }
}

/* ---- differences ----------------------------------------------------------------------------- */

static size_t
put_number(uint8_t *p, uint64_t v)      /* LEB128; at most 10 bytes */
{
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

static uint64_t
get_number(const uint8_t **p)
{
    uint64_t v = 0;
    unsigned shift = 0;

    do
        v |= (uint64_t)(**p & 0x7f) << shift;
    while (shift += 7, *(*p)++ & 0x80);
    return v;
}

static void
delta_add(const struct delta *d, struct cells *c)
{
    const uint8_t *p = d->pairs, *end = p + d->n;
    unsigned at = 0;

    while (p < end) {
        at += (unsigned)get_number(&p);
        c->used |= 1u << at / HIST_SUB;
        c->at[at / HIST_SUB][at % HIST_SUB] += get_number(&p);
    }
}

static void
delta_set(struct delta *d, int64_t at, const struct cells *c)
{
    static uint8_t room[HIST_OCTAVES * HIST_SUB * 12];      /* under the lock */
    unsigned before = 0;
    size_t n = 0;

    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        for (unsigned i = 0; i < HIST_SUB && (c->used >> o & 1); i++) {
            if (c->at[o][i] == 0)
                continue;
            n += put_number(room + n, o * HIST_SUB + i - before);
            n += put_number(room + n, c->at[o][i]);
            before = o * HIST_SUB + i;
        }
    free(d->pairs);
    d->at = at;
    d->n = 0;
    d->pairs = n > 0 ? malloc(n) : NULL;
    if (d->pairs != NULL) {             /* without memory the windows miss this second */
        memcpy(d->pairs, room, n);
        d->n = (uint32_t)n;
    }
}

/* c: what this series counted since the tick before. False: nothing, or memory is out. */
static bool
series_difference(struct series *s, struct cells *c)
{
    uint64_t count = 0;

    for (struct hist *h = s->parts; h != NULL; h = h->next)
        count += atomic_load_explicit(&h->count, memory_order_acquire);
    if (count == s->seen)
        return false;
    for (struct hist *h = s->parts; h != NULL; h = h->next)
        cells_add_hist(c, h);
    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        if ((c->used >> o & 1) && s->last[o] == NULL) {
            s->last[o] = calloc(HIST_SUB, sizeof *s->last[o]);
            if (s->last[o] == NULL)
                return false;
        }
    s->seen = count;
    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        for (unsigned i = 0; i < HIST_SUB && (c->used >> o & 1); i++) {
            uint64_t now = c->at[o][i];

            c->at[o][i] = (uint32_t)((uint32_t)now - s->last[o][i]);
            s->last[o][i] = (uint32_t)now;
        }
    return true;
}

/* Ten seconds are over: one difference for all of them. */
static void
series_roll(struct series *s, int64_t ten, struct cells *c)
{
    cells_clear(c);
    for (unsigned i = 0; i < FINE; i++)
        if (s->fine[i].pairs != NULL && s->fine[i].at / 10 == ten)
            delta_add(&s->fine[i], c);
    delta_set(&s->coarse[ten % COARSE], ten, c);
}

static void
series_tick(struct series *s, int64_t second, struct cells *c)
{
    struct delta *d = &s->fine[second % FINE];

    if (last_second >= 0 && second / 10 != last_second / 10)
        series_roll(s, last_second / 10, c);
    cells_clear(c);
    if (!series_difference(s, c))
        cells_clear(c);
    if (d->pairs != NULL && d->at == second)
        delta_add(d, c);
    if (d->pairs != NULL || c->used != 0)
        delta_set(d, second, c);
}

void
stats_tick(int64_t at_us)
{
    int64_t second = at_us / 1000000;
    struct cells *c;

    slowest_forget(wall_ms());
    stats_lock();
    c = scratch_cells(2);
    if (c != NULL && second >= last_second) {
        series_gather();
        for (struct series *s = all; s != NULL; s = s->next)
            series_tick(s, second, c);
        if (first_second < 0)
            first_second = second;
        last_second = second;
    }
    stats_unlock();
}

/* ---- reading --------------------------------------------------------------------------------- */

void
series_cells(const struct series *s, enum window w, struct cells *c)
{
    int64_t ten = last_second / 10;
    int64_t tens = w == WINDOW_1M ? 6 : COARSE;     /* whole ones, before the present one */

    if (w == WINDOW_START) {
        for (struct hist *h = s->parts; h != NULL; h = h->next)
            cells_add_hist(c, h);
        return;
    }
    for (unsigned i = 0; i < FINE; i++) {
        const struct delta *d = &s->fine[i];
        bool in = w == WINDOW_10S ? d->at > last_second - 10 : d->at / 10 == ten;

        if (d->pairs != NULL && in)
            delta_add(d, c);
    }
    for (unsigned i = 0; i < COARSE && w != WINDOW_10S; i++)
        if (s->coarse[i].pairs != NULL && s->coarse[i].at >= ten - tens && s->coarse[i].at < ten)
            delta_add(&s->coarse[i], c);
}

void
series_tens(int64_t *first, int64_t *end)
{
    *end = last_second / 10;
    *first = *end - COARSE;
    if (*first < first_second / 10)
        *first = first_second / 10;
    if (last_second < 0)
        *first = *end = 0;
}

int64_t
series_ten_age(int64_t ten)
{
    return last_second - 10 * ten - 9;
}

void
series_ten(const struct series *s, int64_t ten, struct cells *c)
{
    const struct delta *d = &s->coarse[ten % COARSE];

    if (d->pairs != NULL && d->at == ten)
        delta_add(d, c);
}

double
window_seconds(enum window w)
{
    int64_t lived = last_second - first_second + 1;
    int64_t span = w == WINDOW_10S ? 10 :
        (w == WINDOW_1M ? 60 : 10 * COARSE) + last_second % 10 + 1;

    if (w == WINDOW_START) {
        lived = (wall_ms() - stats_start_wall_ms()) / 1000;
        span = lived;
    }
    if (span > lived)
        span = lived;
    return span > 0 ? (double)span : 1.0;
}

void
series_totals(const struct series *s, uint64_t *sum_us, uint64_t *max_us, uint64_t *bytes)
{
    *sum_us = *max_us = *bytes = 0;
    for (struct hist *h = s->parts; h != NULL; h = h->next) {
        uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);

        *sum_us += atomic_load_explicit(&h->sum, memory_order_relaxed);
        *bytes += atomic_load_explicit(&h->bytes, memory_order_relaxed);
        if (max > *max_us)
            *max_us = max;
    }
}

void
figures_in(const struct cells *c, double seconds, uint64_t max_us, struct figures *f)
{
    f->count = cells_count(c);
    f->rate = (double)f->count / seconds;
    f->max_us = cells_max(c);
    if (f->max_us > max_us)
        f->max_us = max_us;
    for (unsigned q = 0; q < QUANTILES; q++) {
        f->q_us[q] = cells_quantile(c, f->count, quantile_of[q]);
        if (f->q_us[q] > f->max_us)
            f->q_us[q] = f->max_us;
    }
}

void
figures_of(const struct cells *c, enum window w, uint64_t max_us, struct figures *f)
{
    figures_in(c, window_seconds(w), max_us, f);
    if (w == WINDOW_START)
        f->max_us = max_us;
}

void
route_reads(unsigned slot, enum window w, uint64_t *answered, uint64_t *reads)
{
    *answered = *reads = 0;
    for (unsigned o = 0; o < STATS_OUTCOMES; o++) {
        struct series *s = outcome_is_read(o) ? series_find(slot * STATS_OUTCOMES + o) : NULL;
        struct cells *c = s != NULL ? scratch_cells(1) : NULL;
        uint64_t n;

        if (c == NULL)
            continue;
        series_cells(s, w, c);
        n = cells_count(c);
        *reads += n;
        if (outcome_is_answered(o))
            *answered += n;
    }
}

static void
series_free(struct series *s)
{
    struct hist *next;

    for (struct hist *h = s->parts; h != NULL; h = next) {
        next = h->next;
        hist_free(h);
    }
    for (unsigned o = 0; o < HIST_OCTAVES; o++)
        free(s->last[o]);
    for (unsigned i = 0; i < FINE; i++)
        free(s->fine[i].pairs);
    for (unsigned i = 0; i < COARSE; i++)
        free(s->coarse[i].pairs);
    free(s);
}

void
series_free_all(void)
{
    series_gather();
    while (all != NULL) {
        struct series *s = all;

        all = s->next;
        series_free(s);
    }
    for (unsigned i = 0; i < NELEM(pages); i++) {
        free(pages[i]);
        pages[i] = NULL;
    }
    for (unsigned i = 0; i < NELEM(scratch); i++) {
        free(scratch[i]);
        scratch[i] = NULL;
    }
    first_second = last_second = -1;
}
