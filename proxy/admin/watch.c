/*
 * GET /stats/stream: /stats each second, as server-sent events; GET /stats/history: what was.
 *
 * Model    ?windows=10s,1m says of which windows; without it, of all. An event `stats` is one line
 *          of what /stats has of them. It is made once a second for all who ask for the same, and
 *          not at all while nobody does. Who has not taken a megabyte of them misses some.
 * Threads  the admin loop's alone.
 */
#include <stdlib.h>

#include "admin/inside.h"
#include "stats/stats.h"

#define SECOND_US 1000000

struct watcher {
    struct watcher *next, **prev;
    struct watching *of;                /* borrowed */
    struct conn    *conn;               /* borrowed; it tells when it goes */
    unsigned        windows;
};

struct watching {
    struct watcher *all;                /* owned */
    struct timer    second;
};

static void
on_gone(void *arg)
{
    struct watcher *w = arg;

    *w->prev = w->next;
    if (w->next != NULL)
        w->next->prev = w->prev;
    if (w->of->all == NULL)
        timer_clear(&w->of->second);
    free(w);
}

/* Data of an event is one line; white space between tokens is all that can be a line's end. */
static void
make(struct buf *b, unsigned windows)
{
    stats_json(b, windows);
    for (size_t i = 0; i < b->n; i++)
        if (b->p[i] == '\n')
            b->p[i] = ' ';
}

static void
on_second(void *arg)
{
    struct watching *s = arg;
    struct buf made[STATS_ALL_WINDOWS + 1] = { 0 };

    for (struct watcher *w = s->all; w != NULL; w = w->next) {
        struct buf *b = &made[w->windows];

        if (b->n == 0)
            make(b, w->windows);
        if (!b->failed)
            (void)admin_event(w->conn, "stats", buf_slice(b));
    }
    for (size_t i = 0; i < NELEM(made); i++)
        buf_free(&made[i]);
    if (s->all != NULL)
        timer_set(&s->second, SECOND_US);
}

static struct watching *
watching_of(struct admin *a)
{
    struct watching *s = a->watching;

    if (s != NULL || (s = calloc(1, sizeof *s)) == NULL)
        return s;
    if (timer_init(&s->second, a->loop, on_second, s) == -1) {
        free(s);
        return NULL;
    }
    a->watching = s;
    return s;
}

void
watching_end(struct admin *a)
{
    if (a->watching == NULL)
        return;
    assert(a->watching->all == NULL);   /* the connections are closed */
    timer_fini(&a->watching->second);
    free(a->watching);
    a->watching = NULL;
}

/* The one parameter that a question may have, decoded; .p NULL without it. -1: a problem. */
static int
parameter(struct admin_request *r, struct slice want, struct buf *out, struct slice *value)
{
    struct slice rest = r->head->query, part, name;

    *value = (struct slice){ NULL, 0 };
    while (slice_cut(&rest, '&', &part)) {
        struct slice v = part;

        slice_cut(&v, '=', &name);
        if (part.n == 0)
            continue;
        if (!slice_eq(name, want) || v.p == NULL || out->n > 0 || admin_query_value(v, out) == -1) {
            admin_problem(r, 400, "\"%.*s\" is not understood; %.*s= is, percent-encoded",
                (int)(part.n < 200 ? part.n : 200), part.p, SLICE_ARG(want));
            return -1;
        }
        *value = buf_slice(out);
    }
    return 0;
}

void
handle_stats_stream(struct admin_request *r)
{
    struct watching *s = watching_of(r->a);
    struct watcher *w = calloc(1, sizeof *w);
    unsigned windows = STATS_ALL_WINDOWS;
    struct buf text = { 0 };
    struct slice names;

    if (parameter(r, SLICE("windows"), &text, &names) == -1)
        goto out;
    if (names.p != NULL && !stats_windows(names, &windows)) {
        admin_problem(r, 400, "windows: \"%.*s\": some of 10s, 1m, 5m and start are wanted",
            (int)(names.n < 200 ? names.n : 200), names.p);
        goto out;
    }
    if (s == NULL || w == NULL || timer_set(&s->second, 0) == -1) {
        admin_problem(r, 503, "out of memory");
        goto out;
    }
    *w = (struct watcher){ .next = s->all, .prev = &s->all, .of = s, .windows = windows };
    if (w->next != NULL)
        w->next->prev = &w->next;
    s->all = w;
    w->conn = admin_stream(r, on_gone, w);
    w = NULL;

out:
    free(w);
    buf_free(&text);
}

void
handle_stats_history(struct admin_request *r)
{
    struct buf text = { 0 };
    struct slice route;

    if (parameter(r, SLICE("route"), &text, &route) == 0 && !stats_history(&r->out, route))
        admin_problem(r, 404, "no request was on a route \"%.*s\"",
            (int)(route.n < 200 ? route.n : 200), route.p);
    buf_free(&text);
}
