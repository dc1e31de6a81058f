/*
 * Own purges on their way into the stream.
 *
 * Model    a purge is queued before the store publishes it. It waits, is sent, has a place when
 *          Redis has answered, and leaves the queue when it was read from there: then the store
 *          learns its place, in the order of the stream. A purge of the same words as one that
 *          waits is that one: it is sent after both were made, which is all that matters, since
 *          purges commute. When too many wait, or memory is out, all that wait become one purge of
 *          everything.
 *          What failed to be sent may be in the stream all the same, and is there twice then:
 *          others apply it twice, which purges more than need be and never less.
 * Threads  queue_add: any, under the store's purge_lock; all else: the bus's. `mtx` guards it.
 */
#include "purge/bus.h"

#include <stdlib.h>

#define UNREAD_MAX 4096u                /* that have a place, in front of those that wait */

void
queue_init(struct bus_queue *q, struct store *s, size_t most, size_t most_bytes)
{
    *q = (struct bus_queue){ .store = s, .most = most, .most_bytes = most_bytes };
    TAILQ_INIT(&q->list);
    pthread_mutex_init(&q->mtx, NULL);
}

void
queue_fini(struct bus_queue *q)
{
    struct own *o;

    while ((o = TAILQ_FIRST(&q->list)) != NULL) {
        TAILQ_REMOVE(&q->list, o, at);
        free(o);
    }
    pthread_mutex_destroy(&q->mtx);
}

static size_t
size_of(const struct own *o)
{
    return sizeof *o + o->purge.text.n;
}

/* The store is to know from where on purges have no place. */
static void
tell_waiting(struct bus_queue *q)
{
    const struct own *head = TAILQ_FIRST(&q->list);
    uint64_t first = head != NULL ? head->first : UINT64_MAX;

    if (q->owed_first != 0 && q->owed_first < first)
        first = q->owed_first;
    store_position_wait(q->store, first);
}

static struct own **
find(struct bus_queue *q, const struct store_purge *p, uint64_t hash)
{
    struct own **at = &q->buckets[hash % QUEUE_BUCKETS];

    for (; *at != NULL; at = &(*at)->same) {
        const struct store_purge *is = &(*at)->purge;

        if ((*at)->hash == hash && is->kind == p->kind && is->id == p->id && is->soft == p->soft &&
            is->doubt == p->doubt && slice_eq(is->text, p->text))
            break;
    }
    return at;
}

/* Those that wait can be found. */
static void
wait_in(struct bus_queue *q, struct own *o)
{
    o->state = OWN_WAITING;
    o->same = q->buckets[o->hash % QUEUE_BUCKETS];
    q->buckets[o->hash % QUEUE_BUCKETS] = o;
    q->waiting++;
    q->bytes += size_of(o);
}

static void
wait_out(struct bus_queue *q, struct own *o)
{
    struct own **at = &q->buckets[o->hash % QUEUE_BUCKETS];

    while (*at != o)
        at = &(*at)->same;
    *at = o->same;
    q->waiting--;
    q->bytes -= size_of(o);
}

static void
drop(struct bus_queue *q, struct own *o)
{
    TAILQ_REMOVE(&q->list, o, at);
    free(o);
}

static void
owe(struct bus_queue *q, uint64_t first, uint64_t last, const struct store_purge *p)
{
    q->owed_erase |= p->erase;
    q->owed_soft = p->soft && !p->doubt && (q->owed_first == 0 || q->owed_soft);
    if (q->owed_first == 0 || first < q->owed_first)
        q->owed_first = first;
    if (last > q->owed_last)
        q->owed_last = last;
    q->came++;
}

static void
fold(struct bus_queue *q)
{
    static struct log_limit limit;

    for (struct own *o = TAILQ_FIRST(&q->list), *next; o != NULL; o = next) {
        next = TAILQ_NEXT(o, at);
        if (o->state != OWN_WAITING)
            continue;
        owe(q, o->first, o->last, &o->purge);
        wait_out(q, o);
        drop(q, o);
    }
    COUNT(bus_folded);
    log_limited(&limit, LOG_WARN, "purge bus: more than %zu purges, or %zu MiB of them, wait for "
        "Redis: other instances purge everything in their place", q->most, q->most_bytes >> 20);
}

void
queue_add(struct bus_queue *q, const struct store_purge *p, uint64_t seq)
{
    uint64_t hash = key_hash(p->text) ^ p->id ^ (uint64_t)p->kind;
    struct own *o;

    pthread_mutex_lock(&q->mtx);
    if ((o = *find(q, p, hash)) != NULL) {
        o->last = seq;
        q->came += p->erase && !o->purge.erase;
        o->purge.erase |= p->erase;
    } else if (q->owed_first != 0 || (o = malloc(sizeof *o + p->text.n)) == NULL) {
        owe(q, seq, seq, p);
    } else {
        *o = (struct own){ .hash = hash, .first = seq, .last = seq, .purge = *p };
        if (p->text.n > 0)
            memcpy(o->text, p->text.p, p->text.n);
        o->purge.text.p = o->text;
        TAILQ_INSERT_TAIL(&q->list, o, at);
        wait_in(q, o);
        q->came++;
        if (q->waiting > q->most || q->bytes > q->most_bytes)
            fold(q);
    }
    tell_waiting(q);
    pthread_mutex_unlock(&q->mtx);
}

/* The purge of everything that is owed, in its place of the list. */
static struct own *
pay(struct bus_queue *q)
{
    struct own *o = calloc(1, sizeof *o), *after = TAILQ_FIRST(&q->list);

    if (o == NULL)
        return NULL;
    o->first = q->owed_first;
    o->last = q->owed_last;
    o->purge = (struct store_purge){ .kind = STORE_PURGE_ALL, .soft = q->owed_soft,
        .erase = q->owed_erase };
    q->owed_erase = false;
    o->hash = STORE_PURGE_ALL;
    q->owed_first = q->owed_last = 0;
    while (after != NULL && after->first < o->first)
        after = TAILQ_NEXT(after, at);
    if (after != NULL)
        TAILQ_INSERT_BEFORE(after, o, at);
    else
        TAILQ_INSERT_TAIL(&q->list, o, at);
    return o;
}

struct own *
queue_next(struct bus_queue *q)
{
    struct own *o = NULL;

    pthread_mutex_lock(&q->mtx);
    if (q->unread >= (q->most < UNREAD_MAX ? q->most : UNREAD_MAX)) {
        o = NULL;                       /* nobody reads the stream: then nobody writes it */
    } else if (q->owed_first != 0) {
        o = pay(q);
    } else if (q->waiting > 0) {
        for (o = TAILQ_FIRST(&q->list); o->state != OWN_WAITING;)
            o = TAILQ_NEXT(o, at);
        wait_out(q, o);
    }
    if (o != NULL) {
        o->state = OWN_SENT;
        q->sent++;
    }
    pthread_mutex_unlock(&q->mtx);
    return o;
}

void
queue_sent(struct bus_queue *q, struct own *o, const struct store_position *at,
    struct store_position read)
{
    pthread_mutex_lock(&q->mtx);
    q->sent--;
    if (at != NULL && store_position_cmp(*at, q->added) > 0)
        q->added = *at;
    if (o->echoed)
        drop(q, o);
    else if (at != NULL && store_position_cmp(*at, read) > 0)
        o->state = OWN_ADDED, q->unread++;
    else                        /* failed, or at a place that was passed over unread */
        wait_in(q, o);
    tell_waiting(q);
    pthread_mutex_unlock(&q->mtx);
}

void
queue_echo(struct bus_queue *q, uint64_t seq, struct store_position at)
{
    struct own *o;

    pthread_mutex_lock(&q->mtx);
    if (store_position_cmp(at, q->added) > 0)
        q->added = at;
    TAILQ_FOREACH(o, &q->list, at)
        if (o->last == seq && !o->echoed)
            break;
    if (o != NULL) {
        store_position_add(q->store, o->first, o->last, at);
        if (o->state == OWN_WAITING)
            wait_out(q, o);
        q->unread -= o->state == OWN_ADDED;
        o->echoed = true;
        if (o->state != OWN_SENT)
            drop(q, o);
    }
    tell_waiting(q);
    pthread_mutex_unlock(&q->mtx);
}

void
queue_again(struct bus_queue *q)
{
    struct own *o;

    pthread_mutex_lock(&q->mtx);
    q->added = (struct store_position){ 0 };
    TAILQ_FOREACH(o, &q->list, at)
        if (o->state == OWN_ADDED)
            wait_in(q, o);
    q->unread = 0;
    q->came++;
    pthread_mutex_unlock(&q->mtx);
}

bool
queue_is_added(struct bus_queue *q, uint64_t seq, struct store_position *at)
{
    bool added;
    struct own *o;

    pthread_mutex_lock(&q->mtx);
    added = q->owed_first == 0 || q->owed_first > seq;
    for (o = TAILQ_FIRST(&q->list); added && o != NULL && o->first <= seq; o = TAILQ_NEXT(o, at))
        added = o->state == OWN_ADDED || o->echoed;
    *at = q->added;
    pthread_mutex_unlock(&q->mtx);
    return added;
}

size_t
queue_waiting(struct bus_queue *q)
{
    size_t n;

    pthread_mutex_lock(&q->mtx);
    n = (q->owed_first != 0) + q->waiting + q->sent;
    pthread_mutex_unlock(&q->mtx);
    return n;
}

bool
queue_each(struct bus_queue *q, uint64_t *came,
    void (*each)(void *arg, const struct store_purge *p), void *arg)
{
    struct own *o;
    bool new;

    pthread_mutex_lock(&q->mtx);
    new = q->came != *came;
    *came = q->came;
    if (new && q->owed_first != 0)
        each(arg, &(struct store_purge){ .kind = STORE_PURGE_ALL, .soft = q->owed_soft,
            .erase = q->owed_erase });
    if (new)
        TAILQ_FOREACH(o, &q->list, at)
            if (o->state != OWN_ADDED)
                each(arg, &o->purge);
    pthread_mutex_unlock(&q->mtx);
    return new;
}
