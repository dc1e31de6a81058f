/*
 * Taps: live requests, to who listens.
 *
 * Model    a tap has a filter and lines, a line of JSON for each request that the filter takes.
 *          Workers put them; the listener takes them when it likes. A tap that holds LINES_MAX
 *          takes no more until then and counts what it leaves out, before anything of it is
 *          written: a listener that is slow, or wants too much, costs requests a comparison.
 *          Nobody listens: stats_access_on has no ACCESS_TAPPED, and nothing here is called.
 * Threads  taps_put: any, under RCU. The lines are under the tap's mtx, which is held for a copy.
 *          The rest is one thread's.
 */
#include "stats/inside.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define TAPS_MAX  8
#define LINES_MAX (1u << 20)

struct stats_tap {
    struct stats_filter f;
    struct slice    *routes;            /* owned, and their text: f's */
    char            *text;              /* owned: f's */
    _Atomic uint64_t lost;
    atomic_bool      full;
    pthread_mutex_t  mtx;
    struct buf       lines;             /* under mtx */
};

static struct stats_tap *taps[TAPS_MAX];            /* published by RCU; owned */

/* ---- filters --------------------------------------------------------------------------------- */

static bool
takes_route(const struct stats_filter *f, struct slice route)
{
    for (size_t i = 0; i < f->nroutes; i++)
        if (slice_eq(f->routes[i], route))
            return true;
    return f->nroutes == 0;
}

static bool
takes(const struct stats_filter *f, const struct stats_access *a)
{
    struct slice rest = a->target, path;

    if (a->us < f->slower_us || (f->outcomes != 0 && (f->outcomes & 1u << a->outcome) == 0) ||
        (f->status_max != 0 && (a->status < f->status_min || a->status > f->status_max)) ||
        (f->method.n > 0 && !slice_eq(f->method, a->method)) || !takes_route(f, a->route))
        return false;
    return f->path.n == 0 || (slice_cut(&rest, '?', &path) && slice_glob(f->path, path));
}

static struct slice
keep(char **at, struct slice s)
{
    struct slice kept = { *at, s.n };

    memcpy(*at, s.p != NULL ? s.p : "", s.n);
    *at += s.n;
    return kept;
}

/* The tap's own copy. false: memory is out. */
static bool
filter_copy(struct stats_tap *t, const struct stats_filter *f)
{
    size_t n = f->method.n + f->path.n + 1;
    char *at;

    for (size_t i = 0; i < f->nroutes; i++)
        n += f->routes[i].n;
    t->f = *f;
    t->text = at = malloc(n);
    t->f.routes = t->routes = calloc(f->nroutes + 1, sizeof *t->routes);
    if (t->text == NULL || t->routes == NULL)
        return false;
    for (size_t i = 0; i < f->nroutes; i++)
        t->routes[i] = keep(&at, f->routes[i]);
    t->f.method = keep(&at, f->method);
    t->f.path = keep(&at, f->path);
    return true;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void
put_time(struct buf *b, const char *name, int64_t us)
{
    if (us >= 0)
        buf_printf(b, ",\"%s\":%lld", name, (long long)us);
}

static void
put_line(struct buf *b, const struct stats_access *a)
{
    access_json(b, a);
    access_text(b, "fwd", a->fwd);
    access_text(b, "detail", a->detail);
    if (a->origin.n > 0) {
        access_text(b, "origin", a->origin);
        buf_printf(b, ",\"tries\":%u", a->tries);
        put_time(b, "pool_us", a->pool_us);
        put_time(b, "connect_us", a->connect_us);
        put_time(b, "first_byte_us", a->first_byte_us);
    }
    buf_addz(b, ",\"steps\":[");
    for (size_t i = 0; i < a->nsteps; i++)
        buf_printf(b, "%s{\"state\":\"%s\",\"at_us\":%u,\"us\":%u}", i > 0 ? "," : "",
            a->steps[i].name, a->steps[i].at_us, a->steps[i].us);
    buf_addz(b, "]}\n");
}

static void
put(struct stats_tap *t, struct slice line)
{
    bool fits;

    pthread_mutex_lock(&t->mtx);
    fits = t->lines.n + line.n <= LINES_MAX;
    if (fits)
        buf_adds(&t->lines, line);
    if (!fits || t->lines.failed) {
        t->lines.failed = false;
        atomic_fetch_add(&t->lost, 1);
    }
    atomic_store_explicit(&t->full, !fits, memory_order_relaxed);
    pthread_mutex_unlock(&t->mtx);
}

void
taps_put(const struct stats_access *a)
{
    struct buf line = { 0 };

    rcu_begin();
    for (unsigned i = 0; i < TAPS_MAX; i++) {
        struct stats_tap *t = rcu_load(&taps[i]);

        if (t == NULL || !takes(&t->f, a))
            continue;
        if (atomic_load_explicit(&t->full, memory_order_relaxed)) {
            atomic_fetch_add(&t->lost, 1);
            continue;
        }
        if (line.n == 0)
            put_line(&line, a);
        if (line.failed)
            atomic_fetch_add(&t->lost, 1);
        else
            put(t, buf_slice(&line));
    }
    rcu_end();
    buf_free(&line);
}

/* ---- the listener's side --------------------------------------------------------------------- */

static void
tap_free(struct stats_tap *t)
{
    pthread_mutex_destroy(&t->mtx);
    buf_free(&t->lines);
    free(t->routes);
    free(t->text);
    free(t);
}

struct stats_tap *
stats_tap_open(const struct stats_filter *f, struct err *e)
{
    struct stats_tap *t = calloc(1, sizeof *t);

    if (t == NULL) {
        err_set(e, ENOMEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&t->mtx, NULL);
    err_set(e, ENOMEM, "out of memory");
    if (!filter_copy(t, f))
        goto fail;
    err_set(e, EBUSY, "%d listen to requests already; end one of them", TAPS_MAX);
    for (unsigned i = 0; i < TAPS_MAX; i++)
        if (taps[i] == NULL) {
            rcu_store(&taps[i], t);
            stats_access_want(ACCESS_TAPPED, true);
            return t;
        }

fail:
    tap_free(t);
    return NULL;
}

uint64_t
stats_tap_take(struct stats_tap *t, struct buf *lines)
{
    pthread_mutex_lock(&t->mtx);
    *lines = t->lines;
    t->lines = (struct buf){ 0 };
    atomic_store_explicit(&t->full, false, memory_order_relaxed);
    pthread_mutex_unlock(&t->mtx);
    return atomic_exchange(&t->lost, 0);
}

void
stats_tap_close(struct stats_tap **tp)
{
    struct stats_tap *t = *tp;
    bool more = false;

    *tp = NULL;
    if (t == NULL)
        return;
    for (unsigned i = 0; i < TAPS_MAX; i++) {
        if (taps[i] == t)
            rcu_store(&taps[i], NULL);
        more = more || taps[i] != NULL;
    }
    if (!more)
        stats_access_want(ACCESS_TAPPED, false);
    rcu_wait();
    tap_free(t);
}
