/*
 * Worker threads: each runs a loop with its listeners and its connections.
 */
#include "front/priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "request/request.h"

struct front *
front_open(struct conf *c, struct loop *const *loops, size_t n, struct err *e)
{
    struct front *f = calloc(1, sizeof *f);

    if (f == NULL)
        goto oom;
    f->magic = FRONT_MAGIC;
    pthread_mutex_init(&f->mtx, NULL);
    atomic_store(&f->channel, -1);
    f->conf = conf_ref(c);
    f->nlisteners = c->nlisteners;
    f->counts = calloc(c->nlisteners + 1, sizeof *f->counts);
    f->bound = calloc(c->nlisteners + 1, sizeof *f->bound);
    f->bound_n = calloc(c->nlisteners + 1, sizeof *f->bound_n);
    f->workers = calloc(n, sizeof *f->workers);
    if (f->counts == NULL || f->bound == NULL || f->bound_n == NULL || f->workers == NULL)
        goto oom;
    f->nworkers = n;
    for (size_t i = 0; i < n; i++) {
        struct worker *w = &f->workers[i];

        w->front = f;
        w->loop = loops[i];
        w->spare = -1;
    }
    if (listen_open(f, e) == 0)
        return f;
    front_free(&f);
    return NULL;

oom:
    err_set(e, ENOMEM, "out of memory");
    front_free(&f);
    return NULL;
}

static void *
work(void *arg)
{
    struct worker *w = arg;

    if (request_worker_start(w->loop) == -1)
        log_fatal("out of memory");
    loop_run(w->loop);
    conn_worker_free(&w->conns);
    request_worker_stop();
    return NULL;
}

int
front_start(struct front *f, struct err *e)
{
    char name[32];

    for (size_t i = 0; i < f->nworkers; i++) {
        struct worker *w = &f->workers[i];
        int rc;

        w->conns = conn_worker_new(w->loop, &request_events);
        if (w->conns == NULL)
            return err_set(e, ENOMEM, "out of memory");
        if (listen_start(w, e) == -1)
            return -1;
        rc = pthread_create(&w->thread, NULL, work, w);
        if (rc != 0)
            return err_set(e, rc, "worker thread: %s", strerror(rc));
        w->started = true;
        snprintf(name, sizeof name, "weir-%zu", i);
        pthread_setname_np(w->thread, name);
    }
    return 0;
}

void
front_reconfigure(struct front *f, struct conf *c)
{
    struct conf *was;

    assert(c->nlisteners == f->nlisteners);
    pthread_mutex_lock(&f->mtx);
    was = f->conf;
    f->conf = conf_ref(c);
    pthread_mutex_unlock(&f->mtx);
    conf_unref(&was);
}

/* ---- holding --------------------------------------------------------------------------------- */

static void
run_hold(struct loop_msg *m)
{
    struct worker *w = CONTAINER(m, struct worker, hold);
    struct front *f = w->front;
    unsigned holds;
    int what;

    atomic_store(&w->hold_posted, false);
    holds = atomic_load(&f->holds);
    what = atomic_load(&f->holding);
    listen_pause(w, what == CONN_HOLDS);
    conn_worker_hold(w->conns, (enum conn_hold)what);
    atomic_store(&w->held, holds);
}

void
front_hold(struct front *f, enum conn_hold what)
{
    atomic_store(&f->holding, (int)what);
    atomic_fetch_add(&f->holds, 1);
    for (size_t i = 0; i < f->nworkers; i++) {
        struct worker *w = &f->workers[i];

        if (atomic_exchange(&w->hold_posted, true))
            continue;
        w->hold.run = run_hold;
        loop_post(w->loop, &w->hold);
    }
}

bool
front_held(struct front *f)
{
    for (size_t i = 0; i < f->nworkers; i++)
        if (atomic_load(&f->workers[i].held) != atomic_load(&f->holds))
            return false;
    return true;
}

/* ---- draining -------------------------------------------------------------------------------- */

static void
run_drain(struct loop_msg *m)
{
    struct worker *w = CONTAINER(m, struct worker, drain);

    listen_close(w);
    request_worker_drain();
    atomic_store(&w->drained, atomic_load(&w->front->channel) == -1 ?
        conn_worker_drain(w->conns) : handover_give(w));
    atomic_store(&w->drain_posted, false);
}

bool
front_drain(struct front *f)
{
    bool all = true;

    for (size_t i = 0; i < f->nworkers; i++) {
        struct worker *w = &f->workers[i];

        all = all && atomic_load(&w->drained);
        if (atomic_exchange(&w->drain_posted, true))
            continue;
        w->drain.run = run_drain;
        loop_post(w->loop, &w->drain);
    }
    return all;
}

static void
run_cut(struct loop_msg *m)
{
    struct worker *w = CONTAINER(m, struct worker, cut);

    listen_close(w);
    conn_worker_cut(w->conns);
}

void
front_cut(struct front *f)
{
    for (size_t i = 0; i < f->nworkers; i++) {
        struct worker *w = &f->workers[i];

        if (w->cut.run != NULL)
            continue;                   /* once is enough */
        w->cut.run = run_cut;
        loop_post(w->loop, &w->cut);
    }
}

void
front_stop(struct front *f)
{
    for (size_t i = 0; i < f->nworkers; i++)
        if (f->workers[i].started)
            loop_stop(f->workers[i].loop);
    for (size_t i = 0; i < f->nworkers; i++)
        if (f->workers[i].started) {
            pthread_join(f->workers[i].thread, NULL);
            f->workers[i].started = false;
        }
}

void
front_free(struct front **fp)
{
    struct front *f = *fp;

    *fp = NULL;
    if (f == NULL)
        return;
    for (size_t i = 0; i < f->nworkers; i++) {
        listen_close(&f->workers[i]);
        if (f->workers[i].conns != NULL)
            conn_worker_free(&f->workers[i].conns);
        free(f->workers[i].listeners);
    }
    free(f->workers);
    free(f->counts);
    free(f->bound);
    free(f->bound_n);
    pthread_mutex_destroy(&f->mtx);
    conf_unref(&f->conf);
    f->magic = 0;
    free(f);
}

void
front_addresses(const struct front *f, struct buf *b)
{
    for (size_t i = 0; i < f->nlisteners; i++) {
        const struct sockaddr_storage *sa = &f->bound[i];
        const struct sockaddr_in6 *in6 = (const void *)sa;
        const struct sockaddr_in *in = (const void *)sa;
        char text[INET6_ADDRSTRLEN] = "";

        if (sa->ss_family == AF_INET) {
            inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
            buf_printf(b, "%s%s:%u", b->n > 0 ? " " : "", text, ntohs(in->sin_port));
        } else if (sa->ss_family == AF_INET6) {
            inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
            buf_printf(b, "%s[%s]:%u", b->n > 0 ? " " : "", text, ntohs(in6->sin6_port));
        }
    }
}

void
front_sockets(const struct front *f, struct buf *b)
{
    for (size_t i = 0; i < f->nworkers; i++)
        for (size_t k = 0; k < f->workers[i].nlisteners; k++)
            buf_printf(b, "%s%d", b->n > 0 ? " " : "", f->workers[i].listeners[k].fd);
}
