/*
 * The slowest requests of the last five minutes.
 *
 * Model    a list of twenty, each as the JSON text that /stats shows of it. The shortest time in a
 *          full list is the floor: a request below it costs one load. What is older than five
 *          minutes goes with the next tick. Hits that one write answers are not asked for here
 *          (request/hit.c): nothing may be added to them.
 * Threads  any; the list is under a mutex, the floor is a relaxed atomic.
 *
 *   "slowest": [{"at_ms": 1763..., "us": 1250000, "method": "GET", "url": "api.example/a?b=c",
 *                "route": "/a", "outcome": "miss", "status": 200, "bytes": n, "id": "...",
 *                "server": "http://127.0.0.1:8000", "steps": "FETCH=1.249s ..."}, ...]
 */
#include "stats/inside.h"

#include <pthread.h>
#include <stdlib.h>

#define SLOWEST_MAX 20
#define KEEP_MS     (5 * 60 * 1000)
#define TARGET_MAX  512                 /* bytes of a target that are shown */

struct slow {
    int64_t  at_ms;
    uint64_t us;
    char    *json;                      /* owned; NUL-terminated */
};

static pthread_mutex_t mtx = PTHREAD_MUTEX_INITIALIZER;
static struct slow list[SLOWEST_MAX];   /* under mtx; the slowest first */
static size_t n;
static _Atomic uint64_t floor_us;

static void
set_floor(void)
{
    atomic_store_explicit(&floor_us, n == SLOWEST_MAX ? list[n - 1].us : 0, memory_order_relaxed);
}

bool
stats_slowest_wants(uint64_t us)
{
    return us > atomic_load_explicit(&floor_us, memory_order_relaxed);
}

static void
put_text(struct buf *b, const char *name, struct slice s)
{
    if (s.n == 0)
        return;
    buf_printf(b, ", \"%s\": \"", name);
    buf_json(b, s);
    buf_addc(b, '"');
}

static void
put(struct buf *b, const struct stats_access *a, struct slice server, struct slice steps)
{
    struct slice target = a->target;

    if (target.n > TARGET_MAX)
        target.n = TARGET_MAX;
    buf_printf(b, "{\"at_ms\": %lld, \"us\": %llu, \"status\": %u, \"bytes\": %llu",
        (long long)a->wall_ms, (unsigned long long)a->us, a->status,
        (unsigned long long)a->bytes_out);
    put_text(b, "method", a->method);
    buf_addz(b, ", \"url\": \"");
    buf_json(b, a->host);
    buf_json(b, target);
    buf_addc(b, '"');
    put_text(b, "route", a->route);
    put_text(b, "outcome", slice_of(stats_outcome_names[a->outcome]));
    put_text(b, "id", a->request_id);
    put_text(b, "server", server);
    put_text(b, "steps", steps);
    buf_addz(b, "}");
    buf_addc(b, '\0');
}

/* Its place among the others; the last one makes room. Under mtx. */
static void
insert(const struct slow *new)
{
    size_t at = n;

    if (n == SLOWEST_MAX)
        free(list[--at].json);
    else
        n++;
    for (; at > 0 && list[at - 1].us < new->us; at--)
        list[at] = list[at - 1];
    list[at] = *new;
}

void
stats_slowest(const struct stats_access *a, struct slice server, struct slice steps)
{
    struct buf b = { 0 };
    struct slow new = { .at_ms = a->wall_ms, .us = a->us };

    put(&b, a, server, steps);
    if (b.failed) {                     /* without memory the list does without it */
        buf_free(&b);
        return;
    }
    new.json = b.p;
    pthread_mutex_lock(&mtx);
    if (n < SLOWEST_MAX || new.us > list[n - 1].us) {
        insert(&new);
        new.json = NULL;
        set_floor();
    }
    pthread_mutex_unlock(&mtx);
    free(new.json);
}

/* All that ended at or before then. */
static void
forget_until(int64_t at_ms)
{
    size_t kept = 0;

    pthread_mutex_lock(&mtx);
    for (size_t i = 0; i < n; i++)
        if (list[i].at_ms > at_ms)
            list[kept++] = list[i];
        else
            free(list[i].json);
    n = kept;
    set_floor();
    pthread_mutex_unlock(&mtx);
}

void
slowest_forget(int64_t wall_ms)
{
    forget_until(wall_ms - KEEP_MS);
}

void
slowest_free(void)
{
    forget_until(INT64_MAX);
}

void
slowest_json(struct buf *b)
{
    buf_addz(b, ",\n\"slowest\": [");
    pthread_mutex_lock(&mtx);
    for (size_t i = 0; i < n; i++)
        buf_printf(b, "%s\n  %s", i > 0 ? "," : "", list[i].json);
    pthread_mutex_unlock(&mtx);
    buf_addc(b, ']');
}
