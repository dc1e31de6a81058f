/*
 * Sentinel: which server is the master.
 *
 * Model    as the Sentinel client specification has it: sentinels are asked in turn, beginning with
 *          the one that knew last; what they name is believed once ROLE says so too, in the
 *          greeting of each connection. A subscription to +switch-master at one of them tells of a
 *          failover that our own connections do not show; a gap in it is as good as a message.
 */
#include "redis/inside.h"

void
sentinel_round(struct side *side)
{
    const struct redis_conf *c = &side->r->conf;

    for (size_t i = 0; i < c->nservers; i++) {
        const struct redis_server *s = &c->servers[(side->topology.good + i) % c->nservers];
        struct node *n = node_get(side, s->host, s->port, ROLE_SENTINEL);

        if (n != NULL)
            n->seed = true;
        topology_candidate(side, n);
    }
}

struct node *
sentinel_any(struct side *side)
{
    struct topology *t = &side->topology;
    const struct redis_conf *c = &side->r->conf;
    const struct redis_server *s = &c->servers[t->good % c->nservers];
    struct node *n = node_get(side, s->host, s->port, ROLE_SENTINEL);

    if (n != NULL && server_shut(n->server)) {
        node_probe(n);
        t->good++;                      /* another one, next time */
        return NULL;
    }
    return n;
}

static void
on_switch(void *arg, struct slice payload)
{
    struct side *side = arg;
    struct slice name;

    slice_cut(&payload, ' ', &name);
    if (slice_eq(name, slice_of(side->r->conf.master)))
        topology_stale(side);
}

static void
on_gap(void *arg)
{
    topology_stale(arg);
}

/* Said once for all loops. */
static void
say_master(struct redis *r, struct server *s)
{
    bool news;

    pthread_mutex_lock(&r->mtx);
    news = strcmp(r->said_master, s->address) != 0;
    memcpy(r->said_master, s->address, sizeof s->address);
    pthread_mutex_unlock(&r->mtx);
    if (news)
        log_info("redis: the master %s is %s", r->conf.master, s->address);
}

enum redis_cause
sentinel_answer(struct side *side, const struct redis_reply *r)
{
    struct topology *t = &side->topology;
    const struct redis_conf *c = &side->r->conf;
    uint64_t port;
    struct node *n;

    if (r->type == REPLY_NIL)
        return REDIS_OTHER;             /* it does not know the name */
    if (r->type != REPLY_ARRAY || r->n != 2 || r->at[0]->type != REPLY_STRING ||
        !slice_u64(r->at[1]->text, &port) || port == 0 || port > UINT16_MAX)
        return REDIS_PROTOCOL;
    n = node_get(side, r->at[0]->text.p, (uint16_t)port, ROLE_MASTER);
    if (n == NULL)
        return REDIS_FULL;
    if (t->master != NULL)
        t->master->used = false;
    t->master = n;
    n->used = true;
    t->good = (t->good + t->next - 1) % (unsigned)c->nservers;
    say_master(side->r, n->server);
    if (t->switches == NULL)
        t->switches = sub_new(side, SLICE("+switch-master"), true, on_switch, on_gap, side);
    return REDIS_OK;
}
