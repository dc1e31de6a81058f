/*
 * Buckets and their table; bucket.h has the model.
 *
 * The table is of sets of BUCKET_WAYS neighbours, and a bucket stands in the set that its id and
 * the seed choose; so its memory is fixed, and a look-up reads one set.
 */
#include "plugins/rate_limit/bucket.h"

#include <stdlib.h>
#include <string.h>

#define LOCKS     64
#define HELD_PART 10                    /* an instance holds at most this part of `burst` */

struct buckets {
    uint64_t seed[2];
    size_t   nsets;
    pthread_mutex_t locks[LOCKS];       /* set % LOCKS */
    struct bucket sets[][BUCKET_WAYS];  /* under its lock */
};

/* ---- one bucket ------------------------------------------------------------------------------ */

static uint32_t
held_most(const struct limit *l)
{
    return l->burst < 2 * HELD_PART ? 1 : l->burst / HELD_PART;
}

/* The moment, as it may be now: not past, and no further ahead than a limit that has become smaller
 * allows. */
static int64_t
tat_of(const struct bucket *b, const struct limit *l, int64_t now_us)
{
    int64_t most = now_us + l->each_us * l->burst;

    return b->tat_us < now_us ? now_us : b->tat_us > most ? most : b->tat_us;
}

struct verdict
bucket_take(struct bucket *b, const struct limit *l, int64_t now_us)
{
    int64_t tat = tat_of(b, l, now_us), room = now_us + l->each_us * l->burst - tat;
    struct verdict v = { .answer = LET_IN };

    b->tat_us = tat;
    if (room < l->each_us) {
        v.answer = REFUSED;
        v.wait_us = l->each_us - room;
        return v;
    }
    b->tat_us += l->each_us;
    room -= l->each_us;
    v.left = (uint32_t)(room / l->each_us);
    v.wait_us = l->each_us - room % l->each_us;
    return v;
}

/* Kept up to date while the shared one decides: it is what decides when Redis goes away. */
static void
spend_here(struct bucket *b, const struct limit *l, int64_t now_us)
{
    b->tat_us = tat_of(b, l, now_us) + l->each_us;
    b->tat_us = tat_of(b, l, now_us);
}

struct verdict
bucket_take_shared(struct bucket *b, const struct limit *l, int64_t now_us)
{
    struct verdict v = { .answer = LET_IN };

    if (b->held > 0 && now_us < b->full_us) {
        b->held--;
        spend_here(b, l, now_us);
        v.left = b->held + b->left;
        v.wait_us = l->each_us;
        v.ask_ahead = b->portion > 1 && b->held <= b->portion / 4 && now_us >= b->dry_us;
    } else if (now_us < b->dry_us) {
        v.answer = REFUSED;
        v.wait_us = b->dry_us - now_us;
    } else {
        v.answer = ASK_FIRST;
    }
    return v;
}

uint32_t
bucket_portion(struct bucket *b, const struct limit *l, int64_t now_us, uint32_t *back)
{
    uint32_t most = held_most(l), want;

    *back = 0;
    if (b->held > 0 && now_us >= b->full_us) {          /* lapsed: less would have done */
        *back = b->held;
        b->portion = b->portion > b->held ? b->portion - b->held : 1;
        b->held = 0;
    } else {
        b->portion = b->portion > 0 ? b->portion * 2 : 1;
    }
    if (b->portion > most)
        b->portion = most;
    want = b->portion > b->held ? b->portion - b->held : 1;
    if (want < b->need)
        want = b->need < l->burst ? b->need : l->burst;
    b->need = 0;
    return want;
}

void
bucket_fill(struct bucket *b, const struct portion *p, uint32_t waiting, int64_t now_us)
{
    b->held += p->n;
    b->left = p->left;
    b->full_us = now_us + p->full_in_us;
    b->dry_us = p->n == 0 ? now_us + p->wait_us : 0;
    b->need = p->n > 0 && waiting > b->held ? waiting - b->held : 0;
}

/* ---- the table ------------------------------------------------------------------------------- */

struct buckets *
buckets_new(size_t n, const uint64_t seed[2])
{
    size_t nsets = (n + BUCKET_WAYS - 1) / BUCKET_WAYS;
    struct buckets *t = calloc(1, sizeof *t + nsets * sizeof t->sets[0]);

    if (t == NULL)
        return NULL;
    t->seed[0] = seed[0];
    t->seed[1] = seed[1] | 1;
    t->nsets = nsets;
    for (size_t i = 0; i < LOCKS; i++)
        pthread_mutex_init(&t->locks[i], NULL);
    return t;
}

void
buckets_free(struct buckets **bp)
{
    struct buckets *t = *bp;

    *bp = NULL;
    if (t == NULL)
        return;
    for (size_t i = 0; i < LOCKS; i++)
        pthread_mutex_destroy(&t->locks[i]);
    free(t);
}

static size_t
set_of(const struct buckets *t, const unsigned char *id)
{
    uint64_t x;

    memcpy(&x, id, sizeof x);
    x = (x + t->seed[0]) * t->seed[1];
    return (size_t)((x >> 32) * t->nsets >> 32);
}

struct bucket *
buckets_lock_known(struct buckets *t, const unsigned char *id)
{
    size_t set = set_of(t, id);

    pthread_mutex_lock(&t->locks[set % LOCKS]);
    for (struct bucket *b = t->sets[set]; b < t->sets[set] + BUCKET_WAYS; b++)
        if (b->tat_us != 0 && memcmp(b->id, id, BUCKET_ID) == 0)
            return b;
    return NULL;
}

struct bucket *
buckets_lock(struct buckets *t, const unsigned char *id, int64_t now_us, int *evicted)
{
    struct bucket *b = buckets_lock_known(t, id), *first = t->sets[set_of(t, id)];

    *evicted = 0;
    if (b != NULL)
        return b;
    b = first;
    for (struct bucket *i = first; i < first + BUCKET_WAYS; i++)
        if (i->tat_us < b->tat_us)
            b = i;
    *evicted = b->tat_us > now_us;
    *b = (struct bucket){ .tat_us = now_us };
    memcpy(b->id, id, BUCKET_ID);
    return b;
}

void
buckets_unlock(struct buckets *t, const unsigned char *id)
{
    pthread_mutex_unlock(&t->locks[set_of(t, id) % LOCKS]);
}
