/*
 * rate_limit/bucket.h -- token buckets, and the table of them. No clock of its own, no I/O.
 *
 * Model    a bucket is one moment: when it will be full again (the "theoretical arrival time" of
 *          the generic cell rate algorithm, ITU-T I.371). Each request moves it on by `each_us`,
 *          and is refused where that would be more than `burst` of them ahead of now. Integers
 *          alone; a bucket whose moment has come is full, and need not be remembered.
 *          Of a bucket that instances share in Redis, this one takes portions and spends them here.
 *          A portion is what was spent of the one before, doubled while they are used up, and at
 *          most a tenth of `burst` (one at least), so that is how much an instance holds back from
 *          the others, or may let through beyond the limit after they have used it all. What was
 *          not spent by the time that the shared one is full again lapses, and is given back.
 * Threads  a bucket: who holds its lock.
 */
#ifndef RATE_LIMIT_BUCKET_H
#define RATE_LIMIT_BUCKET_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define BUCKET_ID   16
#define BUCKET_WAYS 16
#define BURST_MAX   1000000             /* times an hour of microseconds: exact in a double too */

struct limit {
    int64_t  each_us;                   /* a token comes in this time */
    uint32_t burst;                     /* so many fit in: 1 .. BURST_MAX */
};

struct bucket {
    unsigned char id[BUCKET_ID];        /* who: a part of a cryptographic hash */
    int64_t  tat_us;                    /* full again by what this instance let in; 0: unused */
    /* of the shared one, as Redis told it last */
    int64_t  full_us;                   /* it is full again */
    int64_t  dry_us;                    /* there is nothing in it until then */
    uint32_t held;                      /* taken from it, and not spent */
    uint32_t left;                      /* what it had left */
    uint32_t portion;                   /* what was asked for */
    uint32_t need;                      /* requests that the last portion was not enough for */
    struct ask *ask;                    /* under way; not of this file */
};

enum answer { LET_IN, REFUSED, ASK_FIRST };
struct verdict {
    enum answer answer;
    uint32_t left;                      /* that would be let in at once after this one */
    int64_t  wait_us;                   /* none left: until the next is */
    int      ask_ahead;                 /* it should be asked for more, for which nobody waits */
};

/* Decides by this instance's own bucket, and spends. */
struct verdict bucket_take(struct bucket *b, const struct limit *l, int64_t now_us);
/* The same by what is held of the shared one; ASK_FIRST: nothing is, and nothing was spent. */
struct verdict bucket_take_shared(struct bucket *b, const struct limit *l, int64_t now_us);
/* What to ask of the shared one, and *back, what it gets back. */
uint32_t bucket_portion(struct bucket *b, const struct limit *l, int64_t now_us, uint32_t *back);
/* What it gave: n; it has `left`, is full after full_in_us, and where n is 0 has one after wait_us.
 * waiting: requests that wait for them. */
struct portion { uint32_t n, left; int64_t full_in_us, wait_us; };
void bucket_fill(struct bucket *b, const struct portion *p, uint32_t waiting, int64_t now_us);

/* A table of a fixed size: where there is no room, what is nearest to being full makes room. */
struct buckets;
/* seed: two random numbers, so that nobody can choose who makes room for whom. NULL: memory is
 * out. */
struct buckets *buckets_new(size_t n, const uint64_t seed[2]);
void buckets_free(struct buckets **bp);
/* Any thread. The bucket of this id, a full one if it was not there, and locked until
 * buckets_unlock. *evicted: a bucket that was not full had to make room. */
struct bucket *buckets_lock(struct buckets *t, const unsigned char *id, int64_t now_us,
    int *evicted);
/* NULL: it has made room; locked all the same. */
struct bucket *buckets_lock_known(struct buckets *t, const unsigned char *id);
void buckets_unlock(struct buckets *t, const unsigned char *id);

#endif
