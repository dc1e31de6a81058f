/*
 * A server as one loop sees it: its connections, and the probe.
 *
 * Model    connections are made when they are needed: a second one when each that there is has
 *          BUSY_ASKS under way, up to `pool`. A command that blocks gets one to itself, which the
 *          next such command takes over. One that a server refuses while it serves others says
 *          that there is no room for more: what waits for it goes over one that is there, and no
 *          other is tried for FULL_US. When the breaker opens, the node that met the failure
 *          probes; if that node goes away, the next one whose caller is refused takes over.
 */
#include "redis/inside.h"

#include <stdlib.h>

#define FULL_US SECOND_US

static void on_again(evutil_socket_t fd, short what, void *arg);

int64_t
backoff_next(int64_t *backoff_us)
{
    int64_t us = *backoff_us > 0 ? *backoff_us : BACKOFF_FIRST_US;

    *backoff_us = us * 2 < BACKOFF_MOST_US ? us * 2 : BACKOFF_MOST_US;
    return us / 2 + (int64_t)(random_fast() % (uint64_t)(us / 2 + 1));
}

struct node *
node_get(struct side *side, const char *host, uint16_t port, enum role role)
{
    struct node *n;

    TAILQ_FOREACH(n, &side->nodes, at)
        if (n->server->port == port && n->server->role == role &&
            strcmp(n->server->host, host) == 0)
            return n;
    n = calloc(1, sizeof *n);
    if (n == NULL || (n->server = server_take(side->r, host, port, role)) == NULL) {
        free(n);
        return NULL;
    }
    n->side = side;
    TAILQ_INIT(&n->links);
    event_assign(&n->again, loop_base(side->loop), -1, 0, on_again, n);
    TAILQ_INSERT_TAIL(&side->nodes, n, at);
    return n;
}

void
redis_node_free(struct node *n)
{
    while (!TAILQ_EMPTY(&n->links))
        link_abandon(TAILQ_FIRST(&n->links));
    event_del(&n->again);
    if (n->probing)
        atomic_store(&n->server->probed, false);
    TAILQ_REMOVE(&n->side->nodes, n, at);
    server_drop(n->side->r, &n->server);
    free(n);
}

/* ---- connections ------------------------------------------------------------------------- */

static struct link *
pick(struct node *n, bool alone)
{
    uint32_t epoch = atomic_load(&n->server->epoch);
    struct link *l, *next, *best = NULL;

    for (l = TAILQ_FIRST(&n->links); l != NULL; l = next) {
        next = TAILQ_NEXT(l, at);
        if (l->sub != NULL || l->retired || l->alone != alone)
            continue;
        if (l->epoch != epoch)
            link_retire(l);
        else if (best == NULL || l->nasks < best->nasks)
            best = l;
    }
    return best;
}

/* May the pool have one more? While one is being made what becomes of that is awaited: a server
 * that has no room is not to be asked for several at once. */
static bool
may_grow(const struct node *n)
{
    const struct link *l;

    if (n->nlinks >= n->side->r->conf.pool || now_us() < n->full_until_us)
        return false;
    TAILQ_FOREACH(l, &n->links, at)
        if (l->state < LINK_READY && !l->alone)
            return false;
    return true;
}

bool
node_send(struct node *n, struct redis_ask *a)
{
    struct link *l = pick(n, a->alone), *more = NULL;

    if (a->alone ? (l == NULL || l->nasks > 0) && n->nalone < ALONE_MAX :
        l == NULL || (l->nasks >= BUSY_ASKS && may_grow(n)))
        more = link_new(n, a->alone);
    if (more != NULL)
        l = more;
    if (l == NULL || (a->alone && l->nasks > 0))
        return false;
    link_send(l, a);
    return true;
}

/* ---- the breaker ------------------------------------------------------------------------- */

static void
wait_to_probe(struct node *n)
{
    int64_t us = backoff_next(&n->backoff_us);
    struct timeval tv = { us / SECOND_US, us % SECOND_US };

    event_add(&n->again, &tv);
}

void
node_probe(struct node *n)
{
    if (!server_shut(n->server))
        return;
    if (n->server->role != ROLE_SENTINEL)
        topology_stale(n->side);        /* there may be another master */
    if (n->probing || atomic_exchange(&n->server->probed, true))
        return;
    n->probing = true;
    if (atomic_exchange(&n->server->proven, false))
        n->backoff_us = 0;
    wait_to_probe(n);
}

static void
probe_no_more(struct node *n)
{
    if (!n->probing)
        return;
    n->probing = false;
    event_del(&n->again);
    atomic_store(&n->server->probed, false);
    node_probe(n);                      /* if it opened again meanwhile */
}

static void
on_again(evutil_socket_t fd, short what, void *arg)
{
    struct node *n = arg;
    struct link *l;

    (void)fd;
    (void)what;
    if (!server_shut(n->server)) {
        probe_no_more(n);
        return;
    }
    l = link_new(n, false);
    if (l != NULL)
        l->probe = true;
    else
        wait_to_probe(n);
}

void
node_link_ready(struct link *l)
{
    struct node *n = l->node;

    l->probe = false;
    if (l->epoch != atomic_load(&n->server->epoch))
        return;
    server_probed(n->server);
    probe_no_more(n);
}

struct link *
node_heir(struct node *n, const struct link *l, enum redis_cause c)
{
    uint32_t epoch = atomic_load(&n->server->epoch);
    struct link *other;

    if (l->alone || l->probe || server_shut(n->server) ||
        (c != REDIS_REFUSED && c != REDIS_CLOSED && c != REDIS_AUTH))
        return NULL;
    TAILQ_FOREACH(other, &n->links, at)
        if (other->state == LINK_READY && !other->alone && !other->retired && other->epoch == epoch)
            break;
    if (other != NULL)
        n->full_until_us = now_us() + FULL_US;
    return other;
}

void
node_link_failed(struct node *n, struct link *l, unsigned weight, enum redis_cause c,
    const char *why)
{
    struct link *other;

    if (l->probe) {
        server_still_shut(n->server, c, why);
        if (n->probing)
            wait_to_probe(n);
        return;
    }
    if (l->epoch != atomic_load(&n->server->epoch) || !server_failed(n->server, weight, c, why))
        return;
    node_probe(n);
    if (c != REDIS_TIMEOUT)
        return;
    while ((other = TAILQ_FIRST(&n->links)) != NULL)    /* they wait for nothing */
        link_fail(other, c, 0, why);
}
