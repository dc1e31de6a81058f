/*
 * Who is asked: with Sentinel and Cluster, found out and kept right.
 *
 * Model    each side asks for itself. A round asks one server after the other (sentinels; nodes of
 *          the cluster) until one gives a useful answer; what is sent before the first one waits,
 *          within its deadline. What was known stays in force while a round is under way and when
 *          it fails. A round begins when something shows that what is known is wrong (a master that
 *          is lost or read-only, MOVED, CLUSTERDOWN, +switch-master), at most one each ROUND_US,
 *          and is repeated with backoff until all masters that are known may be asked.
 * Not here what is asked and what the answer means: sentinel.c, cluster.c.
 */
#include "redis/inside.h"

#define ROUND_US     (100 * MS_US)
#define REPEAT_US    SECOND_US          /* most between two rounds that found no health */

static void on_again(evutil_socket_t fd, short what, void *arg);
static void on_sweep(evutil_socket_t fd, short what, void *arg);
static void ask_next(struct side *side);

void
topology_init(struct side *side)
{
    struct topology *t = &side->topology;

    TAILQ_INIT(&t->waiting);
    event_assign(&t->again, loop_base(side->loop), -1, 0, on_again, side);
    event_assign(&t->sweep, loop_base(side->loop), -1, 0, on_sweep, side);
}

void
topology_fini(struct side *side)
{
    struct topology *t = &side->topology;
    struct redis_ask *a;

    while ((a = TAILQ_FIRST(&t->waiting)) != NULL) {
        ask_forget(a);
        redis_ask_free(a);
    }
    event_del(&t->again);
    event_del(&t->sweep);
    cluster_map_free(side);
}

/* ---- rounds ------------------------------------------------------------------------------ */

static void
schedule(struct topology *t, int64_t us)
{
    struct timeval tv = { us / SECOND_US, us % SECOND_US };

    t->scheduled = true;
    event_add(&t->again, &tv);
}

void
topology_stale(struct side *side)
{
    struct topology *t = &side->topology;
    int64_t wait = t->round_us + ROUND_US - now_us();

    if (side->r->conf.kind == REDIS_SINGLE || t->question != NULL || t->scheduled)
        return;
    schedule(t, wait > 0 && t->round_us > 0 ? wait : 0);
}

static void
repeat(struct topology *t)
{
    if (t->backoff_us > REPEAT_US)
        t->backoff_us = REPEAT_US;
    if (!t->scheduled)
        schedule(t, ROUND_US + backoff_next(&t->backoff_us));
}

static void
route_waiting(struct side *side)
{
    struct asks waiting = TAILQ_HEAD_INITIALIZER(waiting);
    struct topology *t = &side->topology;
    enum redis_cause c = t->why;
    struct redis_ask *a;
    struct node *n;

    TAILQ_FOREACH(a, &t->waiting, at)
        a->state = ASK_OVER;            /* redis_cancel leaves it to us */
    TAILQ_CONCAT(&waiting, &t->waiting, at);
    while ((a = TAILQ_FIRST(&waiting)) != NULL) {
        TAILQ_REMOVE(&waiting, a, at);
        n = t->known ? side_route(side, a->slot, &c) : NULL;
        if (n == NULL || !node_send(n, a))
            redis_ask_finish(a, NULL, n == NULL ? c : REDIS_FULL, NULL);
    }
}

static void
set_failing(struct side *side, bool failing)
{
    struct topology *t = &side->topology;

    if (t->failing == failing)
        return;
    t->failing = failing;
    atomic_fetch_add(&side->r->failing, failing ? 1 : -1);
}

static const char *
sought(const struct redis *r)
{
    return r->conf.kind == REDIS_SENTINEL ? r->conf.master : "the cluster's slots";
}

static void
round_failed(struct side *side)
{
    struct topology *t = &side->topology;

    if (!atomic_exchange(&side->r->said_failing, true))
        log_warn("redis: nobody says who serves %s (%s); asked again and again", sought(side->r),
            redis_cause_name(t->why));
    set_failing(side, true);
    repeat(t);
    route_waiting(side);
}

static bool
all_well(const struct side *side)
{
    const struct node *n;

    TAILQ_FOREACH(n, &side->nodes, at)
        if (n->used && server_shut(n->server))
            return false;
    return true;
}

static void
round_done(struct side *side)
{
    struct topology *t = &side->topology;

    t->known = true;
    if (atomic_exchange(&side->r->said_failing, false))
        log_info("redis: who serves %s is known again", sought(side->r));
    set_failing(side, false);
    event_active(&t->sweep, EV_TIMEOUT, 0);
    if (all_well(side))
        t->backoff_us = 0;
    else
        repeat(t);
    route_waiting(side);
}

static void
on_question(void *arg, enum redis_cause c, const struct redis_reply *r)
{
    struct side *side = arg;
    struct topology *t = &side->topology;

    t->question = NULL;
    if (c == REDIS_OK)
        c = side->r->conf.kind == REDIS_SENTINEL ? sentinel_answer(side, r)
            : cluster_answer(side, t->round[t->next - 1], r);
    if (c == REDIS_OK) {
        round_done(side);
        return;
    }
    t->why = c;
    ask_next(side);
}

static void
ask_next(struct side *side)
{
    static const struct slice slots[] = { SLICE("CLUSTER"), SLICE("SLOTS") };
    struct slice master[] = { SLICE("SENTINEL"), SLICE("get-master-addr-by-name"),
        slice_of(side->r->conf.master) };
    bool sentinel = side->r->conf.kind == REDIS_SENTINEL;
    struct redis_command c = {
        .argv = sentinel ? master : slots, .argc = sentinel ? NELEM(master) : NELEM(slots),
        .within_us = side->r->conf.connect_ms * MS_US, .done = on_question, .arg = side,
    };
    struct topology *t = &side->topology;

    while (t->question == NULL && t->next < t->nround) {
        struct node *n = t->round[t->next++];

        if (server_shut(n->server)) {
            node_probe(n);
            continue;
        }
        t->question = redis_ask_new(side, &c);
        if (t->question != NULL && !node_send(n, t->question)) {
            redis_ask_free(t->question);
            t->question = NULL;
        }
    }
    if (t->question == NULL)
        round_failed(side);
}

static void
on_again(evutil_socket_t fd, short what, void *arg)
{
    struct side *side = arg;
    struct topology *t = &side->topology;

    (void)fd;
    (void)what;
    t->scheduled = false;
    t->round_us = now_us();
    t->nround = t->next = 0;
    t->why = REDIS_OPEN;
    if (side->r->conf.kind == REDIS_SENTINEL)
        sentinel_round(side);
    else
        cluster_round(side);
    ask_next(side);
}

void
topology_candidate(struct side *side, struct node *n)
{
    struct topology *t = &side->topology;

    for (unsigned i = 0; i < t->nround; i++)
        if (t->round[i] == n)
            return;
    if (n != NULL && t->nround < NELEM(t->round))
        t->round[t->nround++] = n;
}

/* What is not used any more: its connections go as their commands end, then the node. Not from
 * inside a callback of one of its connections. */
static void
on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct side *side = arg;
    struct node *n, *next;
    struct link *l, *after;

    (void)fd;
    (void)what;
    if (side->topology.question != NULL)
        return;                         /* it may be one of the round's; the next answer sweeps */
    for (n = TAILQ_FIRST(&side->nodes); n != NULL; n = next) {
        next = TAILQ_NEXT(n, at);
        if (n->used || n->seed)
            continue;
        for (l = TAILQ_FIRST(&n->links); l != NULL; l = after) {
            after = TAILQ_NEXT(l, at);
            if (l->sub == NULL)
                link_retire(l);
        }
        if (TAILQ_EMPTY(&n->links))
            redis_node_free(n);
    }
}

/* ---- routes ------------------------------------------------------------------------------ */

static struct node *
node_for(struct side *side, int slot, enum redis_cause *c)
{
    const struct redis_server *s = &side->r->conf.servers[0];
    struct node *n;

    if (side->r->conf.kind == REDIS_SINGLE) {
        n = node_get(side, s->host, s->port, ROLE_SERVER);
        *c = REDIS_FULL;                /* when there is none */
        return n;
    }
    *c = side->topology.failing ? REDIS_OPEN : REDIS_OK;
    if (!side->topology.known) {
        topology_stale(side);
        return NULL;
    }
    if (side->r->conf.kind == REDIS_SENTINEL)
        return side->topology.master;
    *c = REDIS_CLUSTER;
    n = cluster_node(side, slot);
    if (n == NULL)
        topology_stale(side);
    return n;
}

struct node *
side_route(struct side *side, int slot, enum redis_cause *c)
{
    struct node *n = node_for(side, slot, c);

    if (n == NULL || !server_shut(n->server))
        return n;
    *c = REDIS_OPEN;
    node_probe(n);
    return NULL;
}

void
topology_wait(struct redis_ask *a)
{
    a->state = ASK_WAITING;
    a->link = NULL;
    TAILQ_INSERT_TAIL(&a->side->topology.waiting, a, at);
}
