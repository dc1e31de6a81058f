/*
 * The pool of a server: permits, idle connections by worker, and who waits.
 *
 * Model    every open connection holds one of `max` permits, counted for the process. A worker
 *          keeps its idle connections to itself, newest first. Who finds neither an idle connection
 *          nor a permit waits in the server's queue. A connection that becomes free goes to whoever
 *          waits longest: over plain http the socket itself moves to that worker; over TLS it is
 *          closed and its permit goes.
 *          Nobody starves: a giver counts its connection as idle and then looks for waiters, a
 *          waiter counts itself and then looks for idle ones, on any worker, both in sequentially
 *          consistent order, so one of them sees the other. "Looking" at another worker's idle
 *          ones is a message to it (pool_look).
 * Threads  take, give and look on the worker of the exchange, connection or slot; the queue under
 *          the server's mutex, which is taken only when somebody waits.
 */
#include "upstream/internal.h"

static void on_grant(struct loop_msg *m);

struct slot *
pool_slot(struct server *s, struct worker *w)
{
    CHECK(s, SERVER_MAGIC);
    return &s->slots[w->index];
}

/* ---- permits ----------------------------------------------------------------------------- */

static bool
permit_take(struct server *s)
{
    unsigned n = atomic_load(&s->conns);

    while (n < atomic_load(&s->max))
        if (atomic_compare_exchange_weak(&s->conns, &n, n + 1))
            return true;
    return false;
}

/* ---- the queue, under s->mtx ------------------------------------------------------------- */

static void
queue_add(struct server *s, struct exchange *x)
{
    x->queued = true;
    x->next = NULL;
    x->prev = s->last;
    if (s->last != NULL)
        s->last->next = x;
    else
        s->first = x;
    s->last = x;
    atomic_fetch_add(&s->waiting, 1);
    stats_gauge_add(GAUGE_pool_waiting, 1);
}

static void
queue_remove(struct server *s, struct exchange *x)
{
    if (x->prev != NULL)
        x->prev->next = x->next;
    else
        s->first = x->next;
    if (x->next != NULL)
        x->next->prev = x->prev;
    else
        s->last = x->prev;
    x->queued = false;
    atomic_fetch_sub(&s->waiting, 1);
    stats_gauge_add(GAUGE_pool_waiting, -1);
}

/* x has a connection (plain, of no worker now) or a permit; it hears of it on its own loop. */
static void
grant(struct server *s, struct exchange *x, struct wire *c)
{
    queue_remove(s, x);
    x->granted = true;
    x->grant_conn = c;
    x->prev = NULL;
    x->next = s->granted;
    if (x->next != NULL)
        x->next->prev = x;
    s->granted = x;
    x->grant.run = on_grant;
    loop_post(x->w->loop, &x->grant);
}

static void
on_grant(struct loop_msg *m)
{
    struct exchange *x = CONTAINER(m, struct exchange, grant);
    struct server *s = x->s;
    struct wire *c;

    CHECK(x, EXCHANGE_MAGIC);
    pthread_mutex_lock(&s->mtx);
    if (x->prev != NULL)
        x->prev->next = x->next;
    else
        s->granted = x->next;
    if (x->next != NULL)
        x->next->prev = x->prev;
    x->granted = false;
    c = x->grant_conn;
    x->grant_conn = NULL;
    pthread_mutex_unlock(&s->mtx);
    if (c != NULL)
        wire_arrive(c, x->w);
    exchange_on_grant(x, c);
}

/* Permits that are free go to those who wait. */
static void
wake_waiters(struct server *s)
{
    if (atomic_load(&s->waiting) == 0)
        return;
    pthread_mutex_lock(&s->mtx);
    while (s->first != NULL && permit_take(s))
        grant(s, s->first, NULL);
    pthread_mutex_unlock(&s->mtx);
}

void
pool_permit_back(struct server *s)
{
    atomic_fetch_sub(&s->conns, 1);
    wake_waiters(s);
}

bool
pool_leave(struct exchange *x)
{
    struct server *s = x->s;
    bool was;

    pthread_mutex_lock(&s->mtx);
    was = x->queued;
    if (was)
        queue_remove(s, x);
    pthread_mutex_unlock(&s->mtx);
    return was;
}

/* ---- idle connections -------------------------------------------------------------------- */

static void
idle_add(struct slot *sl, struct wire *c)
{
    c->idle_prev = NULL;
    c->idle_next = sl->idle;
    if (c->idle_next != NULL)
        c->idle_next->idle_prev = c;
    sl->idle = c;
    wire_idle(c);
    atomic_fetch_add(&sl->nidle, 1);
}

void
pool_idle_remove(struct wire *c)
{
    struct slot *sl = pool_slot(c->s, c->w);

    if (c->idle_prev != NULL)
        c->idle_prev->idle_next = c->idle_next;
    else
        sl->idle = c->idle_next;
    if (c->idle_next != NULL)
        c->idle_next->idle_prev = c->idle_prev;
    atomic_fetch_sub(&sl->nidle, 1);
}

/* This worker's part of pool.min. */
static unsigned
slot_minimum(const struct slot *sl)
{
    unsigned min = atomic_load(&sl->server->min), n = sl->server->nslots;

    return min / n + (sl->worker->index < min % n);
}

void
wire_idle_over(struct wire *c)
{
    struct slot *sl = pool_slot(c->s, c->w);

    if (sl->open > slot_minimum(sl))
        wire_close(c);
    else
        wire_limit(c, now_us() + atomic_load(&c->s->idle_us));
}

/* ---- take and give ----------------------------------------------------------------------- */

static enum pool_answer
wait_in_queue(struct exchange *x, struct slot *sl)
{
    struct server *s = sl->server;
    enum pool_answer a = POOL_WAIT;
    unsigned idle = 0;

    for (unsigned i = 0; i < s->nslots; i++)
        idle += atomic_load(&s->slots[i].nidle);
    pthread_mutex_lock(&s->mtx);
    if (s->first == NULL && permit_take(s))
        a = POOL_PERMIT;
    else if (atomic_load(&s->waiting) >= atomic_load(&s->waiting_max) + idle)
        a = POOL_FULL;
    else
        queue_add(s, x);
    pthread_mutex_unlock(&s->mtx);
    if (a != POOL_WAIT)
        return a;
    wake_waiters(s);
    for (unsigned i = 0; i < s->nslots; i++)
        if (atomic_load(&s->slots[i].nidle) > 0)
            server_look(&s->slots[i]);
    return POOL_WAIT;
}

enum pool_answer
pool_take(struct exchange *x, struct slot *sl, bool fresh, struct wire **cp)
{
    struct server *s = sl->server;
    struct wire *c;

    if (atomic_load(&s->waiting) == 0) {
        while (!fresh && (c = sl->idle) != NULL) {
            if (wire_rested(c, x)) {    /* the new one takes its place */
                wire_close_keep(c);
                return POOL_PERMIT;
            }
            pool_idle_remove(c);
            wire_use(c, x);
            if (!wire_moved(c) && (x->idempotent || !wire_stale(c))) {
                *cp = c;
                return POOL_CONN;
            }
            c->x = NULL;
            wire_close(c);
        }
        if (permit_take(s))
            return POOL_PERMIT;
        if ((c = sl->idle) != NULL) {   /* its permit, for a new one */
            wire_close_keep(c);
            return POOL_PERMIT;
        }
    }
    return wait_in_queue(x, sl);
}

/* An idle connection goes to the one who waits longest, if anybody does. */
void
pool_offer(struct wire *c)
{
    struct server *s = c->s;
    struct exchange *x;
    bool here;

    if (c->state != WIRE_IDLE || atomic_load(&s->waiting) == 0)
        return;
    pthread_mutex_lock(&s->mtx);
    x = s->first;
    here = x != NULL && x->w == c->w;
    if (here) {
        queue_remove(s, x);
        pool_idle_remove(c);
        wire_use(c, x);
    } else if (x != NULL && c->hold > 0) {
        c->give = true;                 /* it may not change threads inside its own callback */
    } else if (x != NULL && c->tls == NULL) {
        pool_idle_remove(c);
        wire_depart(c);
        grant(s, x, c);
    } else if (x != NULL) {
        grant(s, x, NULL);
        server_ref(s);
        wire_close_keep(c);
        pthread_mutex_unlock(&s->mtx);
        server_unref(&s);
        return;
    }
    pthread_mutex_unlock(&s->mtx);
    if (here)
        exchange_on_grant(x, c);
}

/* The response is complete, or it was never used. */
void
pool_give(struct wire *c)
{
    struct server *s = c->s;

    c->used = true;
    if (atomic_load(&s->closing) || atomic_load(&s->conns) > atomic_load(&s->max) || !c->reading ||
        wire_moved(c)) {
        wire_close(c);
        return;
    }
    idle_add(pool_slot(s, c->w), c);
    pool_offer(c);
}

/* ---- the worker looks after a slot ------------------------------------------------------- */

static void
warm_up(void *arg)
{
    struct slot *sl = arg;
    struct server *s = sl->server;

    while (!atomic_load(&s->closing) && sl->open < slot_minimum(sl) &&
        atomic_load(&s->waiting) == 0 && permit_take(s))
        if (wire_open(sl->worker, s, NULL) == NULL)
            break;
    if (!atomic_load(&s->closing) && slot_minimum(sl) > 0)
        deadline_set(&sl->warm, now_us() + SECOND_US);
}

static void
close_moved(struct slot *sl)
{
    for (struct wire *c = sl->idle, *next; c != NULL; c = next) {
        next = c->idle_next;
        if (wire_moved(c))
            wire_close(c);
    }
}

void
pool_look(struct slot *sl)
{
    struct server *s = sl->server;
    struct wire *c;

    if (!sl->warm_ready)
        deadline_init(&sl->warm, sl->worker->base, warm_up, sl);
    sl->warm_ready = true;
    if (atomic_load(&s->closing)) {
        deadline_fini(&sl->warm);
        sl->warm_ready = false;
        while ((c = sl->idle) != NULL)
            wire_close(c);
        return;
    }
    close_moved(sl);
    while (atomic_load(&s->waiting) > 0 && (c = sl->idle) != NULL)
        pool_offer(c);
    warm_up(sl);
}
