/*
 * Racing writes: may what a write left be stored, or did another one to its target come between?
 *
 * Nobody but the origin knows in which order it took two requests that were with it at the same
 * time, and the order of their answers says nothing. So every unsafe request of every route stands
 * in this table from before it is sent until its answer's head came and its purge was made; and
 * what it left there (a fill: of its answer's content, of its own, or of a GET sent for it) is
 * published only if no other unsafe request to its target was on its way in all that time, and
 * under the lock that a next one would need to begin.
 *
 * Model    a ticket, in its owner's memory, is AT_ORIGIN, then ANSWERED, then out.
 *            begin     marks each other ticket of the target as overlapped, and itself if one of
 *                      them is AT_ORIGIN. One that is ANSWERED came before for certain: the origin
 *                      had taken it before this one was sent.
 *            hold      refuses what is overlapped. Else the shard stays locked until release, so
 *                      that no request to the target begins while the fill is published.
 *          Tickets are members of what they are about: there is no allocation that could fail. Two
 *          targets with one hash count as one, which refuses a fill now and then and no more.
 *
 * After the answer to a write W has left, no reader whose request comes later has what was before
 * W, if all writes come this way. W's purge took number q before that, and whatever is served
 * carries a stamp of q or more:
 *   what a GET brought    was asked for after the purge, hence after the origin had taken W;
 *   W's own fill          is as of q;
 *   the fill of another, V, as of its own purge q' > q:
 *     V began after W was ANSWERED: the origin took V after W;
 *     V began earlier, or W while V was AT_ORIGIN or ANSWERED: V is overlapped, nothing is stored;
 *     W began when V was out: V's purge came before W's, q' < q.
 *   Purges alone give this much (through.c), whatever order the origin took two writes in.
 *
 * What readers get from the store does not go backwards by a fill. While the fill of W is published
 * no other write to its target has begun since W did, so nothing has changed since the origin took
 * W: the fill is what the origin would answer at that moment, and nobody can have seen anything
 * newer. What a GET brings later was asked for after W's purge, or is refused: it is not older.
 * (Two GETs that are on their way at once, one with no-cache, have their order by Date: store.c.)
 *
 * A write without an answer (a time-out, a connection that broke) leaves the table once what it may
 * have changed is purged, and may still be done by the origin after that. No cache can know; it is
 * purged as if it were done, and what is stored of its target later may be from before it. A client
 * that leaves does not make a write one of these: once all of it is at the origin it goes on
 * without its client, and is purged when its answer comes (request/forward.c).
 * A request to another URL that changes this target too is known by its purge alone.
 *
 * Threads  any; a ticket by its owner. Locks: a shard's, one at a time; before those of the store.
 */
#include <pthread.h>

#include "write/write.h"

#define SHARDS 256

static struct shard {
    pthread_mutex_t mtx;
    struct race    *tickets;
} shards[SHARDS] = { [0 ... SHARDS - 1] = { PTHREAD_MUTEX_INITIALIZER, NULL } };

static struct shard *
lock(const struct race *t)
{
    struct shard *s = &shards[t->target % SHARDS];

    pthread_mutex_lock(&s->mtx);
    return s;
}

void
race_begin(struct race *t, uint64_t target)
{
    struct shard *s;

    assert(t->phase == RACE_OUT);
    *t = (struct race){ .target = target, .phase = RACE_AT_ORIGIN };
    s = lock(t);
    for (struct race *other = s->tickets; other != NULL; other = other->next) {
        if (other->target != target)
            continue;
        other->overlapped = true;
        t->overlapped = t->overlapped || other->phase == RACE_AT_ORIGIN;
    }
    t->next = s->tickets;
    s->tickets = t;
    pthread_mutex_unlock(&s->mtx);
}

void
race_answered(struct race *t)
{
    struct shard *s;

    if (t->phase == RACE_OUT)
        return;
    s = lock(t);
    t->phase = RACE_ANSWERED;
    pthread_mutex_unlock(&s->mtx);
}

bool
race_overlapped(const struct race *t)
{
    struct shard *s = lock(t);
    bool is = t->overlapped;

    pthread_mutex_unlock(&s->mtx);
    return is;
}

bool
race_hold(void *ticket)
{
    const struct race *t = ticket;
    struct shard *s = lock(t);

    if (t->phase == RACE_ANSWERED && !t->overlapped)
        return true;
    pthread_mutex_unlock(&s->mtx);
    return false;
}

void
race_release(void *ticket)
{
    const struct race *t = ticket;

    pthread_mutex_unlock(&shards[t->target % SHARDS].mtx);
}

void
race_end(struct race *t)
{
    struct race **at;
    struct shard *s;

    if (t->phase == RACE_OUT)
        return;
    s = lock(t);
    for (at = &s->tickets; *at != t; at = &(*at)->next)
        ;
    *at = t->next;
    t->phase = RACE_OUT;
    pthread_mutex_unlock(&s->mtx);
}
