/*
 * One connection: a pipeline of commands and their answers, in order.
 *
 * Model    made by connect.c, then READY, and OVER from anywhere. What redis_send gives is written
 *          once the loop has done what else there was: a batch is one system call. A connection
 *          that nobody used for `idle_ms` is asked by a PING whether it is there.
 * Lifetime one that is closed inside a callback of its own is freed when that returns (`hold`).
 * Not here what a failure means for the server (node.c, server.c), deadlines of commands (ask.c).
 */
#include "redis/inside.h"

#include <errno.h>
#include <event2/dns.h>
#include <stdlib.h>
#include <unistd.h>

#define ASKING     "*1\r\n$6\r\nASKING\r\n"
#define READ_BYTES (64 * 1024)
#define READS      16                   /* then others have their turn */
#define OUT_KEEP   (64 * 1024u)         /* a larger buffer is given back when it is empty */

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void on_soon(evutil_socket_t fd, short what, void *arg);
static void on_limit(evutil_socket_t fd, short what, void *arg);

/* ---- coming and going -------------------------------------------------------------------- */

void
link_limit(struct link *l, int64_t us)
{
    struct timeval tv = { 0, 1 };

    if (us > 0)
        tv = (struct timeval){ us / SECOND_US, us % SECOND_US };
    event_add(&l->limit, &tv);
}

void
link_assign(struct link *l, int fd)
{
    struct event_base *base = loop_base(l->node->side->loop);

    l->fd = fd;
    l->writing = false;
    event_assign(&l->rd, base, fd, EV_READ | EV_PERSIST, on_readable, l);
    event_assign(&l->wr, base, fd, EV_WRITE | EV_PERSIST, on_writable, l);
}

void
link_close_fd(struct link *l)
{
    event_del(&l->rd);
    event_del(&l->wr);
    if (l->fd != -1)
        close(l->fd);
    l->fd = -1;
    l->writing = false;
}

struct link *
link_new(struct node *n, bool alone)
{
    struct redis *r = n->side->r;
    struct link *l = calloc(1, sizeof *l);

    if (l == NULL || (l->resp = resp_new(r->conf.reply_max)) == NULL) {
        free(l);
        return NULL;
    }
    l->magic = LINK_MAGIC;
    l->number = ++n->side->connections;
    l->node = n;
    l->alone = alone;
    l->epoch = atomic_load(&n->server->epoch);
    TAILQ_INIT(&l->waiting);
    TAILQ_INIT(&l->sent);
    link_assign(l, -1);
    event_assign(&l->soon, loop_base(n->side->loop), -1, 0, on_soon, l);
    event_assign(&l->limit, loop_base(n->side->loop), -1, 0, on_limit, l);
    l->until_us = now_us() + r->conf.connect_ms * MS_US;
    link_limit(l, r->conf.connect_ms * MS_US);
    event_active(&l->soon, EV_TIMEOUT, 0);
    TAILQ_INSERT_TAIL(&n->links, l, at);
    *(alone ? &n->nalone : &n->nlinks) += 1;
    COUNT(redis_connects);
    return l;
}

void
link_enter(struct link *l)
{
    CHECK(l, LINK_MAGIC);
    l->hold++;
}

void
link_leave(struct link *l)
{
    CHECK(l, LINK_MAGIC);
    if (--l->hold > 0 || l->state != LINK_OVER)
        return;
    resp_free(&l->resp);                /* why it failed may be its text */
    l->magic = 0;
    free(l);
}

/* Out of everything; its asks are still in its lists. The caller holds it. */
static void
shut(struct link *l)
{
    struct node *n = l->node;

    l->state = LINK_OVER;
    TAILQ_REMOVE(&n->links, l, at);
    *(l->alone ? &n->nalone : &n->nlinks) -= 1;
    if (l->dns != NULL)
        evdns_getaddrinfo_cancel(l->dns);
    if (l->ssl != NULL)
        SSL_free(l->ssl);
    l->ssl = NULL;
    link_close_fd(l);
    event_del(&l->soon);
    event_del(&l->limit);
    buf_free(&l->out);
}

void
link_fail(struct link *l, enum redis_cause c, unsigned weight, const char *why)
{
    struct asks dying = TAILQ_HEAD_INITIALIZER(dying);
    bool made = l->state == LINK_READY;
    struct node *n = l->node;
    struct redis_ask *a;
    struct link *heir;

    if (l->state == LINK_OVER)
        return;
    link_enter(l);
    if (c == REDIS_CLOSED && !made)
        weight = BREAKER_FAILURES;
    shut(l);
    TAILQ_CONCAT(&dying, &l->sent, at);
    TAILQ_CONCAT(&dying, &l->waiting, at);
    TAILQ_FOREACH(a, &dying, at) {
        a->state = ASK_OVER;            /* redis_cancel leaves it to us */
        a->link = NULL;
    }
    heir = made ? NULL : node_heir(n, l, c);
    if (heir == NULL)
        node_link_failed(n, l, weight, c, why);
    if (l->sub != NULL)
        sub_lost(l->sub);
    while ((a = TAILQ_FIRST(&dying)) != NULL) {
        TAILQ_REMOVE(&dying, a, at);
        if (heir != NULL)
            link_send(heir, a);
        else
            redis_ask_finish(a, n->server, c, NULL);
    }
    link_leave(l);
}

void
link_quit(struct link *l)
{
    if (l->state == LINK_OVER)
        return;
    assert(l->nasks == 0);
    link_enter(l);
    shut(l);
    if (l->sub != NULL)
        sub_lost(l->sub);
    link_leave(l);
}

void
link_abandon(struct link *l)
{
    struct redis_ask *a;

    l->hold = 0;
    link_enter(l);
    while ((a = TAILQ_FIRST(&l->sent)) != NULL || (a = TAILQ_FIRST(&l->waiting)) != NULL) {
        link_forget(l, a);
        redis_ask_free(a);
    }
    shut(l);
    link_leave(l);
}

void
link_retire(struct link *l)
{
    l->retired = true;
    if (l->nasks == 0)
        link_quit(l);
}

static void
write_ask(struct link *l, struct redis_ask *a)
{
    a->state = ASK_SENT;
    a->sent_us = now_us();
    TAILQ_INSERT_TAIL(&l->sent, a, at);
    if (a->asking)
        link_write(l, ASKING, sizeof ASKING - 1);
    a->skip = a->asking;
    link_write(l, a->bytes, a->n);
    atomic_fetch_add_explicit(&l->node->server->asked, 1, memory_order_relaxed);
    COUNT(redis_commands);
}

void
link_ready(struct link *l)
{
    struct redis_ask *a;

    l->state = LINK_READY;
    link_limit(l, l->node->side->r->conf.idle_ms * MS_US);
    while ((a = TAILQ_FIRST(&l->waiting)) != NULL) {
        TAILQ_REMOVE(&l->waiting, a, at);
        write_ask(l, a);
    }
    node_link_ready(l);
    if (l->sub != NULL)
        sub_ready(l->sub);
}

/* ---- answers ----------------------------------------------------------------------------- */

static void
answered(struct link *l, const struct redis_reply *r)
{
    struct redis_ask *a = TAILQ_FIRST(&l->sent);
    struct server *s = l->node->server;
    enum redis_cause c = cause_of(r);

    if (a == NULL) {
        link_fail(l, REDIS_PROTOCOL, 1, "answered what nobody had asked");
        return;
    }
    if (a->skip) {                      /* the answer to its ASKING */
        a->skip = false;
        return;
    }
    link_forget(l, a);
    if (c == REDIS_CLUSTER && cluster_redirect(a, l->node, r))
        return;
    if (c == REDIS_READONLY && s->role == ROLE_MASTER) {
        topology_stale(l->node->side);  /* it was one */
        link_retire(l);
    }
    if (c == REDIS_LOADING) {
        if (server_failed(s, BREAKER_FAILURES, c, "is loading its data"))
            node_probe(l->node);
    } else if (!a->late) {
        server_well(s);
    }
    if (c != REDIS_OK && c != REDIS_OTHER && c != REDIS_LOADING)
        server_said(s, c, r->text);
    redis_ask_finish(a, s, c, r);
}

static void
take_replies(struct link *l)
{
    struct redis_reply *r = NULL;
    int rc = 0;

    while (l->state != LINK_OVER && (rc = resp_next(l->resp, &r)) == 1) {
        r->connection = l->number;
        if (l->state == LINK_GREETING)
            greet_answered(l, r);
        else if (l->sub != NULL)
            sub_reply(l->sub, r);
        else
            answered(l, r);
        reply_free(&r);
    }
    if (l->state != LINK_OVER && rc == -1)
        link_fail(l, REDIS_PROTOCOL, 1, resp_error(l->resp));
}

static void
ended(struct link *l, bool broken)
{
    char why[160] = "closed the connection";

    if (broken && l->ssl != NULL)
        wire_why(l, why, sizeof why);   /* TLS 1.3: what is wrong with our certificate comes late */
    if (l->nasks == 0 && l->state == LINK_READY)
        link_quit(l);                   /* the server may close what idles */
    else
        link_fail(l, REDIS_CLOSED, 1, why);
}

static void
read_some(struct link *l)
{
    static _Thread_local char bytes[READ_BYTES];

    for (int i = 0; i < READS && l->state >= LINK_GREETING && l->state != LINK_OVER; i++) {
        ssize_t n = redis_wire_read(l, bytes, sizeof bytes);

        if (n == WIRE_MORE)
            return;
        if (n < 0) {
            ended(l, n == WIRE_BROKEN);
            return;
        }
        l->alive_us = now_us();
        l->pinged = false;
        if (resp_feed(l->resp, bytes, (size_t)n) == -1)
            link_fail(l, REDIS_PROTOCOL, 1, resp_error(l->resp));
        else
            take_replies(l);
    }
    if (l->state == LINK_READY && l->ssl != NULL && SSL_pending(l->ssl) > 0)
        event_active(&l->rd, EV_READ, 0);       /* what OpenSSL has read shows in no socket */
}

/* ---- commands ---------------------------------------------------------------------------- */

void
link_write(struct link *l, const void *bytes, size_t n)
{
    if (l->out_off > OUT_KEEP && l->out_off > l->out.n / 2) {
        memmove(l->out.p, l->out.p + l->out_off, l->out.n - l->out_off);
        l->out.n -= l->out_off;
        l->out_off = 0;
    }
    buf_add(&l->out, bytes, n);
    if (!l->writing && !l->flushing)
        event_active(&l->soon, EV_TIMEOUT, 0);
    l->flushing = true;
}

void
link_send(struct link *l, struct redis_ask *a)
{
    a->link = l;
    l->nasks++;
    if (l->state == LINK_READY) {
        write_ask(l, a);
    } else {
        a->state = ASK_WAITING;
        TAILQ_INSERT_TAIL(&l->waiting, a, at);
    }
}

void
link_forget(struct link *l, struct redis_ask *a)
{
    if (a->state == ASK_WAITING)
        TAILQ_REMOVE(&l->waiting, a, at);
    else
        TAILQ_REMOVE(&l->sent, a, at);
    a->state = ASK_OVER;
    a->link = NULL;
    l->nasks--;
}

static void
flush(struct link *l)
{
    l->flushing = false;
    while (!l->out.failed && l->out_off < l->out.n) {
        ssize_t n = redis_wire_write(l, l->out.p + l->out_off, l->out.n - l->out_off);

        if (n == WIRE_MORE)
            break;
        if (n < 0) {
            ended(l, n == WIRE_BROKEN);
            return;
        }
        l->out_off += (size_t)n;
    }
    if (l->out.failed) {
        link_fail(l, REDIS_FULL, 0, "memory is out");
        return;
    }
    if (l->out_off < l->out.n) {
        if (!l->writing && event_add(&l->wr, NULL) == 0)
            l->writing = true;
        return;
    }
    if (l->writing)
        event_del(&l->wr);
    l->writing = false;
    l->out.n = l->out_off = 0;
    if (l->out.cap > OUT_KEEP)
        buf_free(&l->out);
}

/* ---- events ------------------------------------------------------------------------------ */

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;

    (void)fd;
    (void)what;
    link_enter(l);
    if (l->state == LINK_SECURING)
        connect_secure(l);
    read_some(l);
    if (l->state >= LINK_GREETING && l->state != LINK_OVER && l->out_off < l->out.n)
        flush(l);                       /* OpenSSL may have had to read first */
    if (l->retired && l->nasks == 0)
        link_quit(l);
    link_leave(l);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;

    (void)fd;
    (void)what;
    link_enter(l);
    if (l->state == LINK_CONNECTING) {
        connect_made(l);
    } else if (l->state == LINK_SECURING) {
        connect_secure(l);
    } else if (l->state != LINK_OVER) {
        l->alive_us = now_us();         /* it takes what we send */
        flush(l);
    }
    link_leave(l);
}

static void
on_soon(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;

    (void)fd;
    (void)what;
    link_enter(l);
    if (l->state == LINK_RESOLVING && l->dns == NULL)
        connect_start(l);
    else if (l->state == LINK_GREETING || l->state == LINK_READY)
        flush(l);
    link_leave(l);
}

/* Nobody used it for a while: is it still there? */
static void
ask_idle(struct link *l)
{
    struct slice ping = SLICE("PING");
    struct redis_command c = { .argv = &ping, .argc = 1,
        .within_us = l->node->side->r->conf.connect_ms * MS_US };
    struct redis_ask *a;

    if (l->sub != NULL) {
        link_write(l, "PING\r\n", 6);
        l->pinged = true;
    } else if ((a = redis_ask_new(l->node->side, &c)) != NULL) {
        link_send(l, a);
    }
}

static void
on_limit(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    const struct redis_conf *c = &l->node->side->r->conf;
    int64_t quiet = now_us() - l->alive_us, idle = c->idle_ms * MS_US;

    (void)fd;
    (void)what;
    link_enter(l);
    if (l->state == LINK_CONNECTING) {
        link_close_fd(l);
        l->error = ETIMEDOUT;
        connect_next(l);
    } else if (l->state != LINK_READY) {
        link_fail(l, REDIS_TIMEOUT, BREAKER_FAILURES, l->state == LINK_RESOLVING ?
            "its name is not resolved in time" : "does not answer a new connection");
    } else if (l->pinged) {
        link_fail(l, REDIS_TIMEOUT, BREAKER_FAILURES, "did not answer in time");
    } else {
        if (l->nasks == 0 && quiet >= idle)
            ask_idle(l);
        link_limit(l, l->pinged ? c->connect_ms * MS_US : quiet < idle ? idle - quiet : idle);
    }
    link_leave(l);
}
