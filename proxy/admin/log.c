/*
 * GET /log/stream: live requests, to who listens.
 *
 * Model    each listener has a tap of its own (stats/), whose filter is what the query says, and a
 *          timer that empties it: server-sent events "request", a line of JSON each. What the tap
 *          or the connection had no room for is told by an event "lost", behind what was there.
 *          "begin" comes first: what is done from then on is told.
 * Threads  the admin loop's.
 */
#include <stdlib.h>

#include "admin/inside.h"
#include "config/config.h"
#include "stats/stats.h"

#define TAKE_US    100000
#define ROUTES_MAX 32

struct listening {
    struct conn      *conn;             /* borrowed; it tells when it goes */
    struct stats_tap *tap;              /* owned */
    struct timer      timer;
    uint64_t          lost;             /* not told yet */
    bool              begun;
};

/* ---- the filter ------------------------------------------------------------------------------ */

/* What the query says. */
struct query {
    struct stats_filter f;
    struct slice routes[ROUTES_MAX];
    struct buf   text[ROUTES_MAX + 2];  /* owned: of f's slices */
    size_t       ntext;
};

/* "404", "4xx", "400-499". */
static bool
read_status(struct slice s, struct stats_filter *f)
{
    struct slice rest = s, low;
    uint64_t a, b;

    if (s.n == 3 && s.p[0] >= '1' && s.p[0] <= '5' && s.p[1] == 'x' && s.p[2] == 'x') {
        f->status_min = (unsigned)(s.p[0] - '0') * 100;
        f->status_max = f->status_min + 99;
        return true;
    }
    slice_cut(&rest, '-', &low);
    if (!slice_u64(low, &a) || !slice_u64(rest.p != NULL ? rest : low, &b) || a < 100 || b > 599 ||
        a > b)
        return false;
    f->status_min = (unsigned)a;
    f->status_max = (unsigned)b;
    return true;
}

static bool
read_outcome(struct slice s, struct stats_filter *f)
{
    for (unsigned o = 0; o < STATS_OUTCOMES; o++)
        if (slice_eq(s, slice_of(stats_outcome_names[o]))) {
            f->outcomes |= 1u << o;
            return true;
        }
    return false;
}

/* A route that is, or "(none)", for what no route took. */
static bool
read_route(struct admin_request *r, struct slice name, struct query *q)
{
    struct route_table *t = r->a->process.table(r->a->process.arg);
    struct err e;
    bool ok = slice_eq(name, SLICE("(none)")) || route_table_named(t, name, &e) != NULL;

    route_table_unref(&t);
    if (!ok)
        admin_problem(r, 400, "route: %s", e.text);
    else if (q->f.nroutes == ROUTES_MAX)
        admin_problem(r, 400, "route: at most %d", ROUTES_MAX);
    else
        q->routes[q->f.nroutes++] = name;
    return r->status == 200;
}

static bool
read_one(struct admin_request *r, struct slice name, struct slice value, struct query *q)
{
    const char *wanted = NULL;
    int64_t ms = 0;

    if (slice_eq(name, SLICE("route")))
        return read_route(r, value, q);
    if (slice_eq(name, SLICE("outcome")))
        wanted = read_outcome(value, &q->f) ? NULL :
            "hit, stale, miss, collapsed, revalidated, pass, write, accepted or error";
    else if (slice_eq(name, SLICE("status")))
        wanted = read_status(value, &q->f) ? NULL : "a status such as 404, 4xx or 400-499";
    else if (slice_eq(name, SLICE("slower")))
        wanted = config_duration(value, &ms) ? NULL : "a duration such as 50ms, 2s or 1m";
    else if (slice_eq(name, SLICE("method")))
        q->f.method = value;
    else if (slice_eq(name, SLICE("path")))
        q->f.path = value;
    else
        wanted = "not understood; route, outcome, status, method, path and slower are";
    if (ms > 0)
        q->f.slower_us = (uint64_t)ms * 1000;
    if (wanted != NULL)
        admin_problem(r, 400, "%.*s: \"%.*s\": %s", SLICE_ARG(name), SLICE_ARG(value), wanted);
    return wanted == NULL;
}

/* ?route=&outcome=&status=&method=&path=&slower=: routes and outcomes as often as wanted. */
static bool
read_query(struct admin_request *r, struct query *q)
{
    struct slice rest = r->head->query, part, name;

    q->f.routes = q->routes;
    while (slice_cut(&rest, '&', &part)) {
        struct slice value = part;
        struct buf *text = &q->text[q->ntext];

        slice_cut(&value, '=', &name);
        if (part.n == 0)
            continue;
        if (q->ntext == NELEM(q->text) || value.n == 0 || admin_query_value(value, text) == -1) {
            admin_problem(r, 400, "\"%.*s\" is not understood, or too much; route=, outcome=, "
                "status=, method=, path= and slower= are, percent-encoded", SLICE_ARG(part));
            return false;
        }
        q->ntext++;
        if (!read_one(r, name, buf_slice(text), q))
            return false;
    }
    return true;
}

/* ---- the stream ------------------------------------------------------------------------------ */

static void
on_gone(void *arg)
{
    struct listening *l = arg;

    stats_tap_close(&l->tap);
    timer_fini(&l->timer);
    free(l);
}

static void
tell_lost(struct listening *l)
{
    struct buf b = { 0 };

    buf_printf(&b, "{\"requests\":%llu}", (unsigned long long)l->lost);
    if (!b.failed && admin_event(l->conn, "lost", buf_slice(&b)))
        l->lost = 0;
    buf_free(&b);
}

static void
on_timer(void *arg)
{
    struct listening *l = arg;
    struct slice rest, line;
    struct buf lines;

    if (!l->begun)
        l->begun = admin_event(l->conn, "begin", SLICE("{\"version\":\"" WEIR_VERSION "\"}"));
    l->lost += stats_tap_take(l->tap, &lines);
    rest = buf_slice(&lines);
    while (slice_cut(&rest, '\n', &line))
        l->lost += line.n > 0 && !admin_event(l->conn, "request", line);
    buf_free(&lines);
    if (l->lost > 0)
        tell_lost(l);
    timer_set(&l->timer, TAKE_US);
}

void
handle_log_stream(struct admin_request *r)
{
    struct listening *l = calloc(1, sizeof *l);
    struct query q = { 0 };
    struct err e = { .text = "out of memory" };

    if (l != NULL && read_query(r, &q) &&
        timer_init(&l->timer, r->a->loop, on_timer, l) == 0 && timer_set(&l->timer, 0) == 0)
        l->tap = stats_tap_open(&q.f, &e);
    for (size_t i = 0; i < NELEM(q.text); i++)
        buf_free(&q.text[i]);
    if (l != NULL && l->tap != NULL) {
        l->conn = admin_stream(r, on_gone, l);
        return;
    }
    if (r->status == 200)
        admin_problem(r, 503, "%s", e.text);
    if (l != NULL)
        timer_fini(&l->timer);
    free(l);
}
