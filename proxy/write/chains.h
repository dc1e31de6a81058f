/*
 * write/chains.h -- private to write/: the chains in memory, and lists of them.
 *
 * Model    a chain is 24 bytes: its hash, its first pending write, how many there are, one link for
 *          the one list in which it may stand, one for its bucket. With buckets of four bytes, one
 *          for each to two chains, that is 26 to 28 bytes a chain. Chains are known by a number;
 *          they live in slabs and do not move.
 * Threads  one.
 */
#ifndef WEIR_WRITE_CHAINS_H
#define WEIR_WRITE_CHAINS_H

#include "base/base.h"

#define CHAIN_NONE  0u
#define CHAINS_MAX  ((1u << 28) - 1)
#define CHAIN_MANY  ((1u << 24) - 1)        /* no longer counted exactly */

enum chain_state {
    CHAIN_READY,            /* stands in a list of its route */
    CHAIN_SENDING,          /* in no list: its first write is at the origin */
    CHAIN_WAITING,          /* stands in the wheel */
    CHAIN_BLOCKED,          /* in no list: another chain has an earlier write to the same target */
};
enum {                      /* flags */
    CHAIN_FROM_START = 1,   /* one before `head` is pending again */
    CHAIN_HURRIED = 2,      /* to leave the wheel */
    CHAIN_TIMED = 4,        /* its wait began in this process, so the wheel knows when it ends; */
    CHAIN_FAR = 8,          /* ... but for what is longer than the wheel */
};

struct chain {
    uint64_t hash;
    uint64_t head : 40, count : 24;
    uint32_t link : 28, state : 4;
    uint32_t next : 28, flags : 4;
};

struct chains {
    struct chain **slabs;               /* owned */
    size_t nslabs;
    uint32_t used, free;                /* numbers ever given; the first free one */
    uint32_t *buckets;                  /* owned */
    uint32_t nbuckets;                  /* a power of two */
    uint32_t n;
};
#define CHAINS_SLAB 4096u

static inline struct chain *
chain_at(const struct chains *c, uint32_t i)
{
    return &c->slabs[i / CHAINS_SLAB][i % CHAINS_SLAB];
}

uint32_t chains_find(const struct chains *c, uint64_t hash);        /* CHAIN_NONE: not there */
uint32_t chains_add(struct chains *c, uint64_t hash);               /* CHAIN_NONE: memory out */
void chains_remove(struct chains *c, uint32_t i);
void chains_free(struct chains *c);
size_t chains_bytes(const struct chains *c);

struct chain_list { uint32_t first, last; };

static inline void
chain_push(const struct chains *c, struct chain_list *l, uint32_t i)
{
    chain_at(c, i)->link = CHAIN_NONE;
    if (l->first == CHAIN_NONE)
        l->first = i;
    else
        chain_at(c, l->last)->link = i;
    l->last = i;
}

static inline uint32_t
chain_pop(const struct chains *c, struct chain_list *l)
{
    uint32_t i = l->first;

    if (i != CHAIN_NONE)
        l->first = chain_at(c, i)->link;
    return i;
}

/* ---- the wheel: chains that wait ------------------------------------------------------------- */

#define WHEEL_SLOTS   1024u
#define WHEEL_FINE_MS 8
#define WHEEL_TURN_MS (WHEEL_SLOTS * WHEEL_FINE_MS)

/* Slots of 8 ms for the next 8 s, and of 8 s for the next two hours and a quarter; what waits
 * longer stands in the last. A slot's chains come out together; those of a long slot may be
 * early. */
struct delays {
    struct chain_list fine[WHEEL_SLOTS], coarse[WHEEL_SLOTS];
    uint64_t set[WHEEL_SLOTS / 64];     /* which fine slots have some */
    uint32_t ncoarse, nfine;
    int64_t  tick;                      /* of 8 ms: all up to it have come out */
};

void delays_start(struct delays *w, int64_t now_ms);
/* True: it comes out in time, at most 8 s early; false: the wheel is too short. */
bool delays_put(struct delays *w, const struct chains *c, uint32_t i, int64_t delay_ms,
    int64_t now_ms);
/* All whose time has come are pushed on `out`. */
void delays_turn(struct delays *w, const struct chains *c, int64_t now_ms, struct chain_list *out);
/* Those that are hurried. */
void delays_sweep(struct delays *w, const struct chains *c, struct chain_list *out);
int64_t delays_wait_ms(const struct delays *w, int64_t now_ms);       /* -1: empty */

#endif
