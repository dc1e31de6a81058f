/*
 * What is counted, for /stats and /metrics.
 *
 * Model    failures by cause are the process's; those of a server are in the server. The source
 *          that stats asks stands for all clients there are, since none can be taken away again.
 */
#include "redis/inside.h"

static struct {
    pthread_mutex_t mtx;
    struct redis   *all;
    bool            registered;
} clients = { .mtx = PTHREAD_MUTEX_INITIALIZER };

static _Atomic uint64_t failures[REDIS_CAUSES];

void
figures_count(struct server *s, enum redis_cause c)
{
    atomic_fetch_add_explicit(&failures[c], 1, memory_order_relaxed);
    if (s != NULL)
        atomic_fetch_add_explicit(&s->failed[c], 1, memory_order_relaxed);
}

void
redis_figures(struct redis *r, void (*each)(void *arg, const struct redis_server_figures *f),
    void *arg)
{
    static const char *const roles[] = { "server", "master", "sentinel" };
    struct server *s;

    CHECK(r, REDIS_MAGIC);
    pthread_mutex_lock(&r->mtx);
    TAILQ_FOREACH(s, &r->servers, at) {
        struct redis_server_figures f = {
            .address = s->address,
            .role = roles[s->role],
            .state = redis_cause_name(atomic_load(&s->shut)),
            .asked = atomic_load(&s->asked),
        };

        for (int c = 0; c < REDIS_CAUSES; c++)
            f.failed[c] = atomic_load(&s->failed[c]);
        each(arg, &f);
    }
    pthread_mutex_unlock(&r->mtx);
}

/* ---- as stats reads it ------------------------------------------------------------------- */

struct list { struct buf *b; bool more; };

static void
put_server(void *arg, const struct redis_server_figures *f)
{
    struct list *list = arg;
    struct buf *b = list->b;
    bool more = false;

    buf_printf(b, "%s{\"address\": \"", list->more ? ", " : "");
    buf_json(b, slice_of(f->address));
    buf_printf(b, "\", \"role\": \"%s\", \"state\": \"%s\", \"asked\": %llu, \"failed\": {",
        f->role, f->state, (unsigned long long)f->asked);
    for (int c = 0; c < REDIS_CAUSES; c++)
        if (f->failed[c] > 0) {
            buf_printf(b, "%s\"%s\": %llu", more ? ", " : "", redis_cause_name(c),
                (unsigned long long)f->failed[c]);
            more = true;
        }
    buf_addz(b, "}}");
    list->more = true;
}

static void
put_json(struct buf *b, void *arg)
{
    struct list list = { .b = b };

    (void)arg;
    pthread_mutex_lock(&clients.mtx);
    if (clients.all != NULL) {
        buf_addz(b, ",\"redis\": [");
        for (struct redis *r = clients.all; r != NULL; r = r->next)
            redis_figures(r, put_server, &list);
        buf_addc(b, ']');
    }
    pthread_mutex_unlock(&clients.mtx);
}

static void
count_down(void *arg, const struct redis_server_figures *f)
{
    *(unsigned *)arg += strcmp(f->state, redis_cause_name(REDIS_OK)) != 0;
}

static void
put_metrics(struct buf *b, void *arg)
{
    unsigned down = 0;

    (void)arg;
    pthread_mutex_lock(&clients.mtx);
    for (struct redis *r = clients.all; r != NULL; r = r->next)
        redis_figures(r, count_down, &down);
    pthread_mutex_unlock(&clients.mtx);
    buf_printf(b, "# HELP weir_redis_down Redis servers that failed and are only probed, counted "
        "once for each that asks them (tier, purge bus).\n# TYPE weir_redis_down gauge\n"
        "weir_redis_down %u\n", down);
    buf_addz(b, "# HELP weir_redis_failures_total Commands to Redis that failed, by cause.\n"
        "# TYPE weir_redis_failures_total counter\n");
    for (int c = REDIS_OK + 1; c < REDIS_CAUSES; c++)
        buf_printf(b, "weir_redis_failures_total{cause=\"%s\"} %llu\n", redis_cause_name(c),
            (unsigned long long)atomic_load(&failures[c]));
}

void
figures_add(struct redis *r)
{
    static struct stats_source source = { .json = put_json, .metrics = put_metrics };

    pthread_mutex_lock(&clients.mtx);
    r->next = clients.all;
    clients.all = r;
    if (!clients.registered)
        stats_source_add(&source);
    clients.registered = true;
    pthread_mutex_unlock(&clients.mtx);
}

void
figures_remove(struct redis *r)
{
    struct redis **at = &clients.all;

    pthread_mutex_lock(&clients.mtx);
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    pthread_mutex_unlock(&clients.mtx);
}
