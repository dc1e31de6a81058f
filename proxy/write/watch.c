/*
 * Watching: changes of states and progress, to who follows them.
 *
 * Model    an event is a line of JSON in a watcher's own queue, which the write loop fills and the
 *          watcher's loop empties. A full queue loses its oldest, and tells how many.
 * Threads  the queue is under the watcher's mtx. The list of watchers is the write loop's; a
 *          watcher comes and goes by messages to it, and its memory goes on its own loop.
 */
#include "write/priv.h"

#include <stdio.h>
#include <stdlib.h>

#define EVENTS_MAX 1000

struct event { struct event *next; const char *kind; size_t n; char json[]; };

struct write_watch {
    struct writes   *w;
    struct loop     *l;
    void           (*on_event)(void *arg, const char *kind, struct slice json);
    void            *arg;
    struct write_watch *next;           /* the write loop's: among those that watch */
    struct write_watch *all;            /* under w->mtx: among all that are not freed */
    struct loop_msg  come, go;
    struct loop_msg  msg;               /* there are events */
    bool             gone;              /* its own loop's: unwatched */

    pthread_mutex_t  mtx;
    struct event    *first, **last;     /* under mtx */
    unsigned         n;
    uint64_t         lost;
    bool             posted;
};

static void
watch_free(struct write_watch *x)
{
    struct write_watch **at;
    struct event *e;

    pthread_mutex_lock(&x->w->mtx);
    for (at = &x->w->all_watches; *at != x; at = &(*at)->all)
        ;
    *at = x->all;
    pthread_mutex_unlock(&x->w->mtx);
    while ((e = x->first) != NULL) {
        x->first = e->next;
        free(e);
    }
    pthread_mutex_destroy(&x->mtx);
    free(x);
}

/* ---- on its own loop ------------------------------------------------------------------------- */

static void
run_events(struct loop_msg *m)
{
    struct write_watch *x = CONTAINER(m, struct write_watch, msg);
    struct event *e, *next;
    char text[64];
    uint64_t lost;

    pthread_mutex_lock(&x->mtx);
    e = x->first;
    lost = x->lost;
    x->first = NULL;
    x->last = &x->first;
    x->n = 0;
    x->lost = 0;
    x->posted = false;
    pthread_mutex_unlock(&x->mtx);
    if (lost > 0 && !x->gone) {
        int n = snprintf(text, sizeof text, "{\"events\":%llu}", (unsigned long long)lost);

        x->on_event(x->arg, "lost", (struct slice){ text, (size_t)n });
    }
    for (; e != NULL; e = next) {
        next = e->next;
        if (!x->gone)
            x->on_event(x->arg, e->kind, (struct slice){ e->json, e->n });
        free(e);
    }
}

static void
run_gone(struct loop_msg *m)            /* behind the last run_events */
{
    watch_free(CONTAINER(m, struct write_watch, go));
}

/* ---- on the write loop ----------------------------------------------------------------------- */

static void
run_come(struct loop_msg *m)
{
    struct write_watch *x = CONTAINER(m, struct write_watch, come);

    x->next = x->w->watches;
    x->w->watches = x;
}

static void
run_go(struct loop_msg *m)
{
    struct write_watch *x = CONTAINER(m, struct write_watch, go);

    for (struct write_watch **at = &x->w->watches; *at != NULL; at = &(*at)->next)
        if (*at == x) {
            *at = x->next;
            break;
        }
    x->go.run = run_gone;
    loop_post(x->l, &x->go);
}

static void
tell_one(struct write_watch *x, const char *kind, struct slice json)
{
    struct event *e = malloc(sizeof *e + json.n), *gone = NULL;
    bool post;

    pthread_mutex_lock(&x->mtx);
    if (e == NULL) {
        x->lost++;
    } else {
        *e = (struct event){ NULL, kind, json.n };
        memcpy(e->json, json.p, json.n);
        *x->last = e;
        x->last = &e->next;
        if (++x->n > EVENTS_MAX) {
            gone = x->first;
            x->first = gone->next;
            x->n--;
            x->lost++;
        }
    }
    post = !x->posted;
    x->posted = true;
    pthread_mutex_unlock(&x->mtx);
    free(gone);
    if (post)
        loop_post(x->l, &x->msg);
}

static void
tell_all(struct writes *w, const char *kind, struct buf *b)
{
    for (struct write_watch *x = w->watches; x != NULL && !b->failed; x = x->next)
        tell_one(x, kind, buf_slice(b));
    buf_free(b);
}

void
watch_row(struct writes *w, const struct write_row *r)
{
    const struct json_row j = { .row = r, .position = -1 };
    struct buf b = { 0 };

    if (w->watches == NULL)
        return;
    json_write(w, &b, &j);
    tell_all(w, "write", &b);
}

void
watch_tick(struct writes *w)
{
    struct journal_figures f;
    struct buf b = { 0 };

    if (w->watches == NULL)
        return;
    journal_figures(w->j, &f);
    buf_printf(&b, "{\"pending\":%llu,\"dead\":%llu,\"delivering\":%u,\"accepted\":%llu,"
        "\"delivered\":%llu,\"retried\":%llu,\"oldest_ms\":%lld}", (unsigned long long)f.pending,
        (unsigned long long)f.dead, atomic_load(&w->under_way),
        (unsigned long long)stats_counter(STATS_writes_accepted),
        (unsigned long long)stats_counter(STATS_writes_delivered),
        (unsigned long long)stats_counter(STATS_writes_retried),
        (long long)age_ms(&f));
    tell_all(w, "progress", &b);
}

/* At the end, when no loop runs that would free them. */
void
watches_free(struct writes *w)
{
    while (w->all_watches != NULL)
        watch_free(w->all_watches);
}

/* ---- the door -------------------------------------------------------------------------------- */

struct write_watch *
write_watch(struct writes *w, struct loop *l,
    void (*on_event)(void *arg, const char *kind, struct slice json), void *arg)
{
    struct write_watch *x = calloc(1, sizeof *x);

    CHECK(w, WRITES_MAGIC);
    if (x == NULL)
        return NULL;
    x->w = w;
    x->l = l;
    x->on_event = on_event;
    x->arg = arg;
    x->last = &x->first;
    x->msg.run = run_events;
    pthread_mutex_init(&x->mtx, NULL);
    pthread_mutex_lock(&w->mtx);
    x->all = w->all_watches;
    w->all_watches = x;
    pthread_mutex_unlock(&w->mtx);
    x->come.run = run_come;
    loop_post(w->loop, &x->come);
    return x;
}

void
write_unwatch(struct write_watch **wp)
{
    struct write_watch *x = *wp;

    *wp = NULL;
    if (x == NULL)
        return;
    x->gone = true;
    x->go.run = run_go;
    loop_post(x->w->loop, &x->go);
}
