/*
 * The connections of one worker thread: taking new ones, turning them away, and ending all.
 *
 * Model    a connection belongs to its worker's loop from the start to the end. Drain ends those
 *          that have nothing under way; cut ends all. Instead of being ended, one between two
 *          requests may be given to another process, with what was read of the next: its client
 *          sees nothing of it.
 * Threads  the worker's own.
 */
#include "conn/priv.h"

#include <event2/event.h>
#include <stdlib.h>
#include <unistd.h>

#include "stats/stats.h"

static struct conn *
new_conn(struct conn_worker *w, int fd, const struct sockaddr *sa, socklen_t len, struct conf *conf,
    unsigned index, atomic_uint *count)
{
    struct conn *c = calloc(1, sizeof *c);

    if (c == NULL)
        goto fail;
    c->magic = CONN_MAGIC;
    c->fd = fd;
    c->worker = w;
    c->read_ev = event_new(loop_base(w->loop), fd, EV_READ | EV_PERSIST, conn_on_readable, c);
    c->write_ev = event_new(loop_base(w->loop), fd, EV_WRITE | EV_PERSIST, conn_on_writable, c);
    if (c->read_ev == NULL || c->write_ev == NULL)
        goto fail;
    memcpy(&c->peer, sa, len < sizeof c->peer ? len : sizeof c->peer);
    c->asker = c->peer;
    peer_name(c);
    c->conf = conf_ref(conf);
    c->listener = index;
    c->count = count;
    c->body_done = true;
    c->keep_asked = true;
    c->state = conn_listener(c)->proxy_protocol && conn_peer_in(c, &conn_listener(c)->trust) ?
        CONN_PROXY : CONN_HEAD;
    c->next = w->conns;
    c->prev = &w->conns;
    if (c->next != NULL)
        c->next->prev = &c->next;
    w->conns = c;
    w->count++;
    COUNT(connections);
    stats_gauge_add(GAUGE_client_connections, 1);
    conn_set_reading(c, true);
    conn_rearm(c, now_us());
    return c;

fail:
    COUNT(memory_failures);
    if (c != NULL && c->read_ev != NULL)
        event_free(c->read_ev);
    if (c != NULL && c->write_ev != NULL)
        event_free(c->write_ev);
    free(c);
    close(fd);
    atomic_fetch_sub(count, 1);
    return NULL;
}

int
conn_new(struct conn_worker *w, int fd, const struct sockaddr *sa, socklen_t len, struct conf *conf,
    unsigned index, atomic_uint *count)
{
    return new_conn(w, fd, sa, len, conf, index, count) != NULL ? 0 : -1;
}

static const char too_many[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    "Content-Type: application/problem+json\r\nContent-Length: 98\r\nConnection: close\r\n\r\n"
    "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,"
    "\"detail\":\"too many connections\"}\n";

void
conn_turn_away(struct conn_worker *w, int fd)
{
    /* what the client has sent already is read: closing over it would reset the answer away */
    if (send(fd, too_many, sizeof too_many - 1, MSG_DONTWAIT | MSG_NOSIGNAL) > 0 &&
        shutdown(fd, SHUT_WR) == 0)
        recv(fd, w->buffer, sizeof w->buffer, MSG_DONTWAIT);
    close(fd);
}

int
conn_reject(struct conn_worker *w, int fd, const struct sockaddr *sa, socklen_t len,
    struct conf *conf, unsigned index, atomic_uint *count)
{
    struct iovec iov = { (char *)(uintptr_t)too_many, sizeof too_many - 1 };
    struct conn *c = new_conn(w, fd, sa, len, conf, index, count);

    if (c == NULL)
        return -1;
    c->keep_asked = false;
    c->state = CONN_FLUSH;
    if (conn_write(c, &iov, 1) && conn_queued(c) == 0)
        conn_goodbye(c);
    return 0;
}

struct conn_worker *
conn_worker_new(struct loop *l, const struct conn_events *ev)
{
    struct conn_worker *w = calloc(1, sizeof *w);

    if (w == NULL)
        return NULL;
    w->magic = CONN_WORKER_MAGIC;
    w->loop = l;
    w->ev = ev;
    if (wheel_start(w) == -1) {
        wheel_stop(w);
        free(w);
        return NULL;
    }
    return w;
}

void
conn_worker_free(struct conn_worker **wp)
{
    struct conn_worker *w = *wp;

    *wp = NULL;
    if (w == NULL)
        return;
    conn_worker_cut(w);
    wheel_stop(w);
    w->magic = 0;
    free(w);
}

bool
conn_worker_drain(struct conn_worker *w)
{
    w->draining = true;
    for (struct conn *c = w->conns, *next; c != NULL; c = next) {
        next = c->next;
        if ((c->state == CONN_HEAD || c->state == CONN_PROXY) && conn_rest(c) == 0 &&
            conn_queued(c) == 0)
            conn_kill(c);
    }
    return w->count == 0;
}

static bool
between(const struct conn *c)
{
    return (c->state == CONN_HEAD || c->state == CONN_PROXY) && conn_queued(c) == 0;
}

void
conn_worker_hold(struct conn_worker *w, enum conn_hold what)
{
    bool less = what < w->hold;

    w->hold = (uint8_t)what;
    for (struct conn *c = w->conns; less && c != NULL; c = c->next)
        if (between(c) && conn_rest(c) > 0)
            conn_kick(c);
}

bool
conn_worker_give(struct conn_worker *w, int (*give)(void *arg, const struct conn_place *p),
    void *arg)
{
    for (struct conn *c = w->conns, *next; c != NULL; c = next) {
        const struct conn_place p = { .fd = c->fd, .began = c->state == CONN_HEAD,
            .listener = c->listener, .requests = c->requests, .peer = c->peer, .asker = c->asker,
            .rest = { c->in.p + c->in_at, conn_rest(c) } };

        next = c->next;
        if (between(c) && !c->broken && give(arg, &p) != 1)
            conn_kill(c);
    }
    return w->count == 0;
}

int
conn_take(struct conn_worker *w, const struct conn_place *p, struct conf *conf, atomic_uint *slot)
{
    struct conn *c = new_conn(w, p->fd, (const struct sockaddr *)&p->peer, sizeof p->peer, conf,
        p->listener, slot);

    if (c == NULL)
        return -1;
    c->requests = p->requests;
    if (p->began)
        c->state = CONN_HEAD;
    if (memcmp(&p->asker, &p->peer, sizeof p->peer) != 0)
        peer_asks(c, &p->asker);
    if (p->rest.n == 0)
        return 0;
    buf_adds(&c->in, p->rest);
    if (c->in.failed) {
        conn_kill(c);
        return -1;
    }
    conn_rearm(c, now_us());
    conn_kick(c);
    return 0;
}

void
conn_worker_cut(struct conn_worker *w)
{
    while (w->conns != NULL) {
        if (w->conns->state == CONN_BUSY)
            conn_reset_at_close(w->conns);
        conn_gone(w->conns);
    }
}

size_t
conn_worker_count(const struct conn_worker *w)
{
    return w->count;
}
