/*
 * The chains in memory: a hash table of 24-byte entries, and the wheel of those that wait.
 */
#include "write/chains.h"

#include <stdlib.h>

#define BUCKETS_MIN 1024u

static uint32_t
bucket_of(const struct chains *c, uint64_t hash)
{
    return (uint32_t)(hash >> 32) & (c->nbuckets - 1);
}

uint32_t
chains_find(const struct chains *c, uint64_t hash)
{
    uint32_t i = c->nbuckets > 0 ? c->buckets[bucket_of(c, hash)] : CHAIN_NONE;

    while (i != CHAIN_NONE && chain_at(c, i)->hash != hash)
        i = chain_at(c, i)->next;
    return i;
}

/* Two chains a bucket at most. Without memory for more buckets they only get longer. */
static void
grow_buckets(struct chains *c)
{
    uint32_t old = c->nbuckets, *was = c->buckets, next;
    uint32_t n = old > 0 ? old * 2 : BUCKETS_MIN;
    uint32_t *now = calloc(n, sizeof *now);

    if (now == NULL)
        return;
    c->buckets = now;
    c->nbuckets = n;
    for (uint32_t b = 0; b < old; b++)
        for (uint32_t i = was[b]; i != CHAIN_NONE; i = next) {
            struct chain *e = chain_at(c, i);
            uint32_t *to = &now[bucket_of(c, e->hash)];

            next = e->next;
            e->next = *to;
            *to = i;
        }
    free(was);
}

/* Number 0 is none, so the first slab begins with an entry that is never given. */
static uint32_t
fresh(struct chains *c)
{
    uint32_t i = c->free;

    if (i != CHAIN_NONE) {
        c->free = chain_at(c, i)->link;
        return i;
    }
    i = c->used == 0 ? 1 : c->used;
    if (i >= CHAINS_MAX)
        return CHAIN_NONE;
    if (i / CHAINS_SLAB >= c->nslabs) {
        struct chain **slabs = realloc(c->slabs, (c->nslabs + 1) * sizeof(struct chain *));

        if (slabs == NULL)
            return CHAIN_NONE;
        c->slabs = slabs;
        slabs[c->nslabs] = malloc(CHAINS_SLAB * sizeof(struct chain));
        if (slabs[c->nslabs] == NULL)
            return CHAIN_NONE;
        c->nslabs++;
    }
    c->used = i + 1;
    return i;
}

uint32_t
chains_add(struct chains *c, uint64_t hash)
{
    uint32_t i, *to;

    if (c->n >= 2 * (uint64_t)c->nbuckets)
        grow_buckets(c);
    i = c->nbuckets > 0 ? fresh(c) : CHAIN_NONE;
    if (i == CHAIN_NONE)
        return CHAIN_NONE;
    to = &c->buckets[bucket_of(c, hash)];
    *chain_at(c, i) = (struct chain){ .hash = hash, .next = *to };
    *to = i;
    c->n++;
    return i;
}

void
chains_remove(struct chains *c, uint32_t i)
{
    struct chain *e = chain_at(c, i);
    uint32_t *head = &c->buckets[bucket_of(c, e->hash)];

    if (*head == i) {
        *head = e->next;
    } else {
        uint32_t before = *head;

        while (chain_at(c, before)->next != i)
            before = chain_at(c, before)->next;
        chain_at(c, before)->next = e->next;
    }
    e->link = c->free;
    c->free = i;
    c->n--;
}

void
chains_free(struct chains *c)
{
    for (size_t i = 0; i < c->nslabs; i++)
        free(c->slabs[i]);
    free(c->slabs);
    free(c->buckets);
    *c = (struct chains){ 0 };
}

size_t
chains_bytes(const struct chains *c)
{
    return c->nslabs * CHAINS_SLAB * sizeof(struct chain) + c->nbuckets * sizeof *c->buckets;
}

/* ---- the wheel ------------------------------------------------------------------------------- */

void
delays_start(struct delays *w, int64_t now_ms)
{
    w->tick = now_ms / WHEEL_FINE_MS;
}

static void
put_fine(struct delays *w, const struct chains *c, uint32_t i, int64_t tick)
{
    unsigned slot = (unsigned)(tick % WHEEL_SLOTS);

    chain_push(c, &w->fine[slot], i);
    w->set[slot / 64] |= UINT64_C(1) << (slot % 64);
    w->nfine++;
}

bool
delays_put(struct delays *w, const struct chains *c, uint32_t i, int64_t delay_ms, int64_t now_ms)
{
    int64_t due = (now_ms + (delay_ms > 0 ? delay_ms : 0)) / WHEEL_FINE_MS + 1;
    int64_t turns;
    bool far;

    if (due <= w->tick)
        due = w->tick + 1;
    turns = due / WHEEL_SLOTS - w->tick / WHEEL_SLOTS;
    if (turns == 0 || due - w->tick < WHEEL_SLOTS) {
        put_fine(w, c, i, due);
        return true;
    }
    far = turns >= (int64_t)WHEEL_SLOTS;
    if (far)
        turns = WHEEL_SLOTS - 1;
    chain_push(c, &w->coarse[(w->tick / WHEEL_SLOTS + turns) % WHEEL_SLOTS], i);
    w->ncoarse++;
    return !far;
}

static void
move(const struct chains *c, struct chain_list *from, struct chain_list *to, uint32_t *n)
{
    uint32_t i;

    while ((i = chain_pop(c, from)) != CHAIN_NONE) {
        chain_push(c, to, i);
        --*n;
    }
}

void
delays_turn(struct delays *w, const struct chains *c, int64_t now_ms, struct chain_list *out)
{
    int64_t to = now_ms / WHEEL_FINE_MS;

    if (w->nfine + w->ncoarse == 0)
        w->tick = to;
    while (w->tick < to) {
        unsigned slot = (unsigned)(++w->tick % WHEEL_SLOTS);

        if (slot == 0)
            move(c, &w->coarse[w->tick / WHEEL_SLOTS % WHEEL_SLOTS], out, &w->ncoarse);
        if (w->set[slot / 64] >> (slot % 64) & 1) {
            move(c, &w->fine[slot], out, &w->nfine);
            w->set[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
        }
    }
}

static void
sweep_list(const struct chains *c, struct chain_list *l, struct chain_list *out, uint32_t *n)
{
    struct chain_list all = *l;
    uint32_t i;

    l->first = CHAIN_NONE;
    while ((i = chain_pop(c, &all)) != CHAIN_NONE) {
        bool hurried = chain_at(c, i)->flags & CHAIN_HURRIED;

        chain_push(c, hurried ? out : l, i);
        if (hurried) {
            chain_at(c, i)->flags &= ~CHAIN_HURRIED & 15u;
            --*n;
        }
    }
}

void
delays_sweep(struct delays *w, const struct chains *c, struct chain_list *out)
{
    for (unsigned i = 0; i < WHEEL_SLOTS; i++) {
        sweep_list(c, &w->fine[i], out, &w->nfine);
        sweep_list(c, &w->coarse[i], out, &w->ncoarse);
        if (w->fine[i].first == CHAIN_NONE)
            w->set[i / 64] &= ~(UINT64_C(1) << (i % 64));
    }
}

int64_t
delays_wait_ms(const struct delays *w, int64_t now_ms)
{
    int64_t tick = 0;

    if (w->nfine > 0) {
        for (unsigned k = 1; k <= WHEEL_SLOTS && tick == 0; k++) {
            unsigned slot = (unsigned)((w->tick + k) % WHEEL_SLOTS);

            if (w->set[slot / 64] == 0 && slot % 64 == 0)
                k += 63;
            else if (w->set[slot / 64] >> (slot % 64) & 1)
                tick = w->tick + k;
        }
    }
    if (w->ncoarse > 0 && (tick == 0 || tick > (w->tick / WHEEL_SLOTS + 1) * WHEEL_SLOTS))
        tick = (w->tick / WHEEL_SLOTS + 1) * WHEEL_SLOTS;
    if (tick == 0)
        return -1;
    return tick * WHEEL_FINE_MS > now_ms ? tick * WHEEL_FINE_MS - now_ms : 0;
}
