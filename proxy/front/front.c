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
        w->listeners = calloc(c->nlisteners + 1, sizeof *w->listeners);
        if (w->listeners == NULL)
            goto oom;
        for (size_t k = 0; k < c->nlisteners; k++)
            w->listeners[k].fd = -1;
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
        if (w->conns == NULL || listen_start(w) == -1)
            return err_set(e, ENOMEM, "out of memory");
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

static void
run_drain(struct loop_msg *m)
{
    struct worker *w = CONTAINER(m, struct worker, drain);

    listen_close(w);
    request_worker_drain();
    atomic_store(&w->drained, conn_worker_drain(w->conns));
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
        if (f->workers[i].listeners != NULL)
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
