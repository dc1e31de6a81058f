/*
 * The Redis tier: responses that several instances share.
 *
 * Model    what is under a key there is put into memory (redis_get.c); what is stored in memory is
 *          sent there, and nobody waits for that (redis_put.c). A value carries the position in the
 *          stream of purges that it is younger than. Who reads it turns that into a stamp of its
 *          own, so memory refuses it where any purge since has matched: it does not matter who put
 *          it, when, nor that the purge did not reach Redis. Without a position nothing is sent or
 *          used.
 *          Each loop has its own reads and puts, on its own connections.
 * Failure  of whatever kind it is a miss, at the latest at the deadline, counted by its cause, and
 *          logged by redis/ once a state. A Redis that is known not to answer is not asked.
 * Threads  rtier_open, rtier_close: one, while no loop runs. The rest as it says.
 */
#include "tier/redis.h"

#include <errno.h>
#include <stdlib.h>

struct rtier_side *
rtier_side_of(struct rtier *r, const struct loop *l)
{
    size_t i = 0;

    while (i < r->nsides && r->sides[i].loop != l)
        i++;
    return i < r->nsides ? &r->sides[i] : NULL;
}

struct redis_ask *
rtier_send(struct rtier *r, const struct slice *argv, size_t argc, struct slice key,
    int64_t within_us, void (*done)(void *arg, enum redis_cause, const struct redis_reply *),
    void *arg)
{
    const struct redis_command c = { .argv = argv, .argc = argc, .key = key,
        .within_us = within_us, .done = done, .arg = arg };

    return redis_send(r->redis, &c, NULL);
}

void
rtier_figures(struct rtier *r, struct tier_figures *f)
{
    struct store_position at;

    *f = (struct tier_figures){ .failing = !redis_usable(r->redis),
        .loading = !store_position(r->store, store_stamp(r->store), &at) };
    for (size_t i = 0; i < r->nsides; i++)
        f->queued_bytes += atomic_load(&r->sides[i].put_bytes);
}

/* ---- what is on its way out ----------------------------------------------------------------- */

struct rtier_cell *
rtier_tell(struct rtier *r, uint64_t key)
{
    struct rtier_cell *c = &r->cells[key % RTIER_CELLS];

    pthread_mutex_lock(&r->mtx);
    c->tier = r;
    c->told++;
    pthread_mutex_unlock(&r->mtx);
    return c;
}

void
rtier_told(struct rtier_cell *c, bool deleted)
{
    struct rtier *r = c->tier;

    pthread_mutex_lock(&r->mtx);
    c->done++;
    if (!deleted)
        c->until_us = now_us() + r->max_ms * 1000;
    pthread_mutex_unlock(&r->mtx);
}

bool
rtier_settled(struct rtier *r, uint64_t key, uint32_t *told)
{
    const struct rtier_cell *c = &r->cells[key % RTIER_CELLS];
    bool settled;

    pthread_mutex_lock(&r->mtx);
    *told = c->told;
    settled = c->told == c->done && (c->until_us == 0 || now_us() > c->until_us);
    pthread_mutex_unlock(&r->mtx);
    return settled;
}

/* ---- what the store tells ------------------------------------------------------------------- */

static struct drop *
drops_take(struct rtier_side *side)
{
    struct drop *d;

    pthread_mutex_lock(&side->mtx);
    d = side->drops;
    side->drops = NULL;
    side->drops_posted = false;
    pthread_mutex_unlock(&side->mtx);
    return d;
}

static void
on_drops(struct loop_msg *m)
{
    struct rtier_side *side = CONTAINER(m, struct rtier_side, drops_msg);

    for (struct drop *d = drops_take(side), *next; d != NULL; d = next) {
        next = d->next;
        rtier_delete(d);
    }
}

/* Behind what this loop has put, where it is one of ours. A newer value that goes with it is a miss
 * that costs a fetch. */
static void
on_drop(void *arg, const struct object *o)
{
    struct rtier *r = arg;
    struct rtier_side *side = rtier_side_of(r, loop_current());
    struct store_identity is = store_identity(o);
    struct rtier_cell *cell = rtier_tell(r, key_hash(is.key));
    struct drop *d = malloc(sizeof *d);
    struct rtier_id id;

    if (d == NULL) {
        rtier_told(cell, false);
        return;
    }
    side = side != NULL ? side : &r->sides[0];
    d->cell = cell;
    d->side = side;
    rtier_id_of(is.key, &d->id);
    if (is.vary.n > 0) {
        id = d->id;
        rtier_id_of_variant(&id, is.vary, is.variant, &d->id);
    }
    pthread_mutex_lock(&side->mtx);
    d->next = side->drops;
    side->drops = d;
    if (!side->drops_posted)
        loop_post(side->loop, &side->drops_msg);
    side->drops_posted = true;
    pthread_mutex_unlock(&side->mtx);
}

/* ---- coming and going ----------------------------------------------------------------------- */

static void
on_begin(struct loop_msg *m)
{
    rtier_listen(CONTAINER(m, struct rtier, begin));
}

static int
side_init(struct rtier *r, struct rtier_side *side, struct loop *l)
{
    side->tier = r;
    side->loop = l;
    side->laters_end = &side->laters;
    side->drops_msg.run = on_drops;
    pthread_mutex_init(&side->mtx, NULL);
    return timer_init(&side->later, l, rtier_on_later, side) == 0 &&
        timer_init(&side->again, l, rtier_on_again, side) == 0 ? 0 : -1;
}

struct rtier *
rtier_open(const struct tier_options *o, struct store *s, struct disk *disk, struct err *e)
{
    struct rtier *r = calloc(1, sizeof *r + o->nloops * sizeof *r->sides);
    bool whole = r != NULL;

    assert(o->nloops > 0 && strlen(o->redis_prefix) <= RTIER_PREFIX_MAX);
    if (r != NULL) {
        r->magic = RTIER_MAGIC;
        r->store = s;
        r->redis = o->redis;
        r->disk = disk;
        r->prefix = (struct slice){ r->prefix_text, strlen(o->redis_prefix) };
        memcpy(r->prefix_text, o->redis_prefix, r->prefix.n);
        r->min_ms = o->redis_min_ttl_ms;
        r->max_ms = o->redis_max_ttl_ms;
        r->max_object = o->redis_max_object;
        r->timeout_us = o->redis_timeout_ms * 1000;
        pthread_mutex_init(&r->mtx, NULL);
        for (; r->nsides < o->nloops && whole; r->nsides++)
            whole = side_init(r, &r->sides[r->nsides], o->loops[r->nsides]) == 0;
    }
    if (!whole) {
        err_set(e, ENOMEM, "cache.redis: memory is out");
        rtier_close(&r);
        return NULL;
    }
    store_on_drop(s, on_drop, r);
    r->begin.run = on_begin;
    loop_post(r->sides[0].loop, &r->begin);
    return r;
}

void
rtier_close(struct rtier **rp)
{
    struct rtier *r = *rp;

    *rp = NULL;
    if (r == NULL)
        return;
    CHECK(r, RTIER_MAGIC);
    redis_unsubscribe(&r->sub);
    for (size_t i = 0; i < r->nsides; i++) {
        struct rtier_side *side = &r->sides[i];

        rtier_side_end(side);
        rtier_puts_end(side);
        rtier_deletes_end(side);
        timer_fini(&side->later);
        timer_fini(&side->again);
        for (struct drop *d = drops_take(side), *next; d != NULL; d = next) {
            next = d->next;
            free(d);
        }
        pthread_mutex_destroy(&side->mtx);
    }
    rtier_erases_end(r);
    pthread_mutex_destroy(&r->mtx);
    r->magic = 0;
    free(r);
}
