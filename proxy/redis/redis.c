/*
 * The client: its configuration, a side for each loop, commands in.
 *
 * Model    a side has all that a loop needs; sides share the servers' breakers and nothing else.
 * Not here where a command goes (topology.c).
 */
#include "redis/inside.h"

#include <errno.h>
#include <event2/dns.h>
#include <stdlib.h>

#define CONNECT_MS 500
#define IDLE_MS    10000
#define QUEUE      (16u << 20)
#define REPLY_MOST (68u << 20)          /* of the largest cache.redis.max_object, with its head */

/* ---- configuration ----------------------------------------------------------------------- */

static bool
copy_string(const char **s)
{
    if (*s != NULL)
        *s = strdup(*s);
    return *s != NULL;
}

static const char **
strings_of(struct redis_conf *c, size_t i)
{
    const char **all[] = { &c->master, &c->username, &c->password, &c->sentinel_username,
        &c->sentinel_password, &c->ca_file, &c->cert_file, &c->key_file, &c->server_name };

    return i < NELEM(all) ? all[i] : NULL;
}

static void
free_conf(struct redis_conf *c)
{
    const char **s;

    for (size_t i = 0; (s = strings_of(c, i)) != NULL; i++)
        free((char *)*s);
    for (size_t i = 0; c->servers != NULL && i < c->nservers; i++)
        free((char *)c->servers[i].host);
    free((struct redis_server *)c->servers);
}

static bool
copy_conf(struct redis_conf *to, const struct redis_conf *from)
{
    struct redis_server *servers = calloc(from->nservers, sizeof *servers);
    const char **s, **given;
    bool whole = servers != NULL;

    *to = *from;
    to->servers = servers;
    for (size_t i = 0; (s = strings_of(to, i)) != NULL; i++) {
        given = strings_of((struct redis_conf *)from, i);
        whole = (copy_string(s) || *given == NULL) && whole;
    }
    for (size_t i = 0; servers != NULL && i < from->nservers; i++) {
        servers[i] = from->servers[i];
        whole = copy_string(&servers[i].host) && whole;
    }
    if (to->kind == REDIS_CLUSTERED)
        to->db = 0;                     /* there is no other */
    to->connect_ms = from->connect_ms > 0 ? from->connect_ms : CONNECT_MS;
    to->idle_ms = from->idle_ms > 0 ? from->idle_ms : IDLE_MS;
    to->pool = from->pool > 0 ? from->pool : 1;
    to->queue = from->queue > 0 ? from->queue : QUEUE;
    to->reply_max = from->reply_max > 0 ? from->reply_max : REPLY_MOST;
    return whole;
}

/* ---- coming and going -------------------------------------------------------------------- */

struct redis *
redis_new(const struct redis_conf *conf, struct loop **loops, size_t nloops, struct err *e)
{
    struct redis *r = calloc(1, sizeof *r + nloops * sizeof *r->sides);

    assert(conf->nservers > 0);
    if (r == NULL || !copy_conf(&r->conf, conf)) {
        err_set(e, ENOMEM, "redis: out of memory");
        goto fail;
    }
    if (r->conf.tls && (r->tls = redis_tls_context(&r->conf, e)) == NULL)
        goto fail;
    r->magic = REDIS_MAGIC;
    TAILQ_INIT(&r->servers);
    pthread_mutex_init(&r->mtx, NULL);
    r->nsides = nloops;
    for (size_t i = 0; i < nloops; i++) {
        struct side *side = &r->sides[i];

        side->r = r;
        side->loop = loops[i];
        TAILQ_INIT(&side->nodes);
        TAILQ_INIT(&side->subs);
        topology_init(side);
    }
    figures_add(r);
    return r;

fail:
    if (r != NULL)
        free_conf(&r->conf);
    free(r);
    return NULL;
}

static void
side_free(struct side *side)
{
    struct redis_sub *sub;
    struct node *n;

    while ((sub = TAILQ_FIRST(&side->subs)) != NULL)
        redis_unsubscribe(&sub);
    while ((n = TAILQ_FIRST(&side->nodes)) != NULL)
        redis_node_free(n);
    topology_fini(side);
    if (side->dns != NULL)
        evdns_base_free(side->dns, 0);
}

void
redis_free(struct redis **rp)
{
    struct redis *r = *rp;

    *rp = NULL;
    if (r == NULL)
        return;
    CHECK(r, REDIS_MAGIC);
    figures_remove(r);
    for (size_t i = 0; i < r->nsides; i++)
        side_free(&r->sides[i]);
    SSL_CTX_free(r->tls);
    free_conf(&r->conf);
    pthread_mutex_destroy(&r->mtx);
    r->magic = 0;
    free(r);
}

/* ---- commands ---------------------------------------------------------------------------- */

struct side *
side_here(struct redis *r)
{
    struct loop *here = loop_current();
    size_t i = 0;

    CHECK(r, REDIS_MAGIC);
    while (i < r->nsides && r->sides[i].loop != here)
        i++;
    assert(i < r->nsides);
    return &r->sides[i];
}

/* The connection of that number, if it is to n; of a cluster, to any: a key may be on its way to
 * who has not its slot yet (ASK). */
static struct link *
link_of(const struct side *side, const struct node *n, uint64_t number)
{
    const struct node *other;
    struct link *l;

    TAILQ_FOREACH(other, &side->nodes, at) {
        if (other != n && side->r->conf.kind != REDIS_CLUSTERED)
            continue;
        TAILQ_FOREACH(l, &other->links, at)
            if (l->number == number)
                return l->retired || l->epoch != atomic_load(&other->server->epoch) ? NULL : l;
    }
    return NULL;
}

/* To n; NULL: to whom it is about to be known. */
static struct redis_ask *
send_to(struct side *side, struct node *n, const struct redis_command *c, enum redis_cause *why)
{
    struct link *only = c->connection != 0 ? link_of(side, n, c->connection) : NULL;
    struct redis_ask *a;

    *why = c->connection != 0 && only == NULL ? REDIS_CLOSED : REDIS_FULL;
    if (*why == REDIS_CLOSED || (a = redis_ask_new(side, c)) == NULL)
        return NULL;
    if (only != NULL) {
        link_send(only, a);
    } else if (n == NULL) {
        topology_wait(a);
    } else if (!node_send(n, a)) {
        redis_ask_free(a);
        return NULL;
    }
    return a;
}

struct redis_ask *
redis_send(struct redis *r, const struct redis_command *c, enum redis_cause *cause)
{
    struct side *side = side_here(r);
    enum redis_cause why = REDIS_FULL;
    struct redis_ask *a = NULL;
    struct node *n;
    size_t bytes = 0;

    for (size_t i = 0; i < c->argc; i++)
        bytes += c->argv[i].n;
    n = side->bytes + bytes <= r->conf.queue ? side_route(side, ask_slot(c), &why) : NULL;
    if (n != NULL || why == REDIS_OK)
        a = send_to(side, n, c, &why);
    if (a == NULL)
        figures_count(NULL, why);
    if (cause != NULL)
        *cause = a != NULL ? REDIS_OK : why;
    return a;
}

unsigned
redis_slots(const struct redis *r)
{
    CHECK(r, REDIS_MAGIC);
    return r->conf.kind == REDIS_CLUSTERED ? CLUSTER_SLOTS : 1;
}

bool
redis_usable(struct redis *r)
{
    bool usable = atomic_load(&r->failing) == 0;        /* while no server is known */
    struct server *s;

    CHECK(r, REDIS_MAGIC);
    pthread_mutex_lock(&r->mtx);
    TAILQ_FOREACH(s, &r->servers, at)
        if (s->role != ROLE_SENTINEL) {
            usable = !server_shut(s);
            if (usable)
                break;
        }
    pthread_mutex_unlock(&r->mtx);
    return usable;
}
