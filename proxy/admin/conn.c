/*
 * A connection of the admin or probe port: reading, framing, order, limits, timers.
 *
 * Model    libevhtp accepted it and owns it, but reads nothing: its read events are off, and this
 *          file reads the descriptor, has http/ judge each head and body, and hands libevhtp one
 *          canonical request (method, a path of the table, length, body) by its own read callback;
 *          it runs the request callback (conn_on_request) and keeps the connection. Nothing more is
 *          read until the reply is flushed, so pipelined requests are answered in order and cost no
 *          memory. What is refused before it is complete is answered here without libevhtp.
 *          HEAD --head--> BODY --complete--> REPLY --flushed--> HEAD. A reply that comes later
 *          stands in WAIT until then; a stream stays in STREAM until the client leaves. In both the
 *          descriptor is read, to hear that. LINGER: the last reply is
 *          out and what the client still sends is thrown away for a while, because closing at once
 *          would reset the connection and take the reply with it (RFC 9112 9.6).
 * Time     idle 60 s; a head 10 s from its first byte; a body 10 s; a reply 60 s to be taken;
 *          lingering 5 s; a stream that is silent says so every 15 s, and ends when 60 s long none
 *          of it was taken.
 * Limit    ADMIN_CONNS_MAX on each of both ports. One more takes the place of the oldest that has
 *          asked for nothing yet, or on the probe port of the oldest: who only connects keeps
 *          neither operators nor a cluster's probes out. Where all are at work it gets 503.
 * Threads  the admin loop's alone.
 */
#include <errno.h>
#include <evhtp.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "admin/inside.h"
#include "stats/stats.h"

#define SECOND      INT64_C(1000000)
#define IDLE_US     (60 * SECOND)
#define HEAD_US     (10 * SECOND)
#define BODY_US     (10 * SECOND)
#define SEND_US     (60 * SECOND)
#define LINGER_US   (5 * SECOND)
#define BEAT_US     (15 * SECOND)
#define READ_SIZE   16384
#define FIRST_US    (SECOND / 2)        /* who has just connected is about to ask */
#define STREAM_MAX  (1u << 20)          /* of a stream that its reader has not taken */

static const struct http_limits limits = { .head = 16384, .uri = 8192, .fields = 64 };

enum phase { HEAD, BODY, WAIT, REPLY, STREAM, LINGER };

struct conn {
    uint32_t            magic;
#define CONN_MAGIC 0xad3c0221u
    struct admin       *a;              /* borrowed */
    struct conn        *next, **prev;
    evhtp_connection_t *ev;             /* borrowed; NULL once libevhtp freed it */
    bufferevent_data_cb saved_read, saved_write;
    bufferevent_event_cb saved_event;
    void               *saved_arg;
    struct event       *read;           /* owned */
    struct timer        timer;
    bool                probe, close;   /* close: after the present reply */
    bool                stream;         /* the present reply is one */
    bool                reading;        /* the read event is added */
    bool                waited;         /* the head's time is running */
    bool                asked;          /* a request was read, ever */
    int64_t             since_us;       /* when it was accepted */
    unsigned            busy;           /* callbacks of ours on the stack: free later */
    enum phase          phase;
    struct buf          in;             /* read, not yet taken */
    struct buf          head_bytes;     /* what `head` points into */
    struct http_field   fields[64];
    struct http_head    head;
    const struct endpoint *endpoint;
    struct http_chunked chunked;
    uint64_t            left;           /* of a body of known length */
    struct buf          body;
    evhtp_request_t    *later;          /* WAIT, STREAM: libevhtp's; borrowed */
    void              (*gone)(void *arg);
    void               *gone_arg;
    unsigned            silent;         /* STREAM: heartbeats since something was taken */
};

static void advance(struct conn *c);

/* ---- life ------------------------------------------------------------------------------------ */

static void
conn_free(struct conn *c)
{
    timer_fini(&c->timer);
    if (c->read != NULL)
        event_free(c->read);
    http_chunked_free(&c->chunked);
    buf_free(&c->in);
    buf_free(&c->head_bytes);
    buf_free(&c->body);
    c->magic = 0;
    free(c);
}

/* libevhtp frees its connection: by our wish, or because the peer is gone. */
static evhtp_res
on_fini(evhtp_connection_t *ev, void *arg)
{
    struct conn *c = arg;

    (void)ev;
    CHECK(c, CONN_MAGIC);
    c->ev = NULL;
    event_del(c->read);                 /* before the descriptor is closed */
    timer_clear(&c->timer);
    *c->prev = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    c->a->nconns[c->probe]--;
    if (c->later != NULL)
        c->gone(c->gone_arg);
    if (c->busy == 0)
        conn_free(c);
    return EVHTP_RES_OK;
}

static void
enter(struct conn *c)
{
    CHECK(c, CONN_MAGIC);
    c->busy++;
}

static void
leave(struct conn *c)
{
    if (--c->busy == 0 && c->ev == NULL)
        conn_free(c);
}

static void
drop(struct conn *c)                    /* inside enter..leave */
{
    if (c->ev != NULL)
        evhtp_connection_free(c->ev);
}

static void
reading(struct conn *c, bool on)
{
    if (c->reading == on)
        return;
    c->reading = on;
    if ((on ? event_add(c->read, NULL) : event_del(c->read)) != 0)
        timer_set(&c->timer, 0);
}

static void
take(struct conn *c, size_t n)          /* n bytes off the front of what was read */
{
    memmove(c->in.p, c->in.p + n, c->in.n - n);
    c->in.n -= n;
}

/* ---- replying -------------------------------------------------------------------------------- */

static struct admin_request
new_request(struct conn *c)
{
    return (struct admin_request){ .a = c->a, .head = &c->head, .status = 200,
        .type = "application/json", .conn = c, .endpoint = c->endpoint };
}

static void
free_body(const void *p, size_t n, void *arg)
{
    (void)n;
    (void)arg;
    free((void *)(uintptr_t)p);
}

/* Puts head and content in the output; the content's memory goes with it (/metrics may have
 * megabytes). */
static int
put_reply(struct conn *c, struct admin_request *r)
{
    struct evbuffer *output = bufferevent_get_output(c->ev->bev);
    struct buf head = { 0 };
    int rc;

    admin_reply_head(r, c->close, &head);
    rc = head.failed ? -1 : evbuffer_add(output, head.p, head.n);
    buf_free(&head);
    if (rc != 0 || r->out.n == 0 || c->head.method == HTTP_HEAD)    /* RFC 9110 9.3.2: no content */
        return rc;
    rc = evbuffer_add_reference(output, r->out.p, r->out.n, free_body, NULL);
    if (rc == 0)
        r->out = (struct buf){ 0 };
    return rc;
}

static void
write_reply(struct conn *c, struct admin_request *r)
{
    if (r->out.failed) {
        r->out.failed = false;
        c->close = true;
        admin_problem(r, 503, "out of memory");
    }
    c->phase = REPLY;
    reading(c, false);
    timer_set(&c->timer, SEND_US);
    if (c->ev != NULL && put_reply(c, r) != 0)
        timer_set(&c->timer, 0);        /* libevhtp may be on the stack: not here */
    buf_free(&r->out);
}

/* Answered before it was complete or without its being understood: nothing behind it can be
 * trusted. */
static void
refuse(struct conn *c, unsigned status, const char *why)
{
    struct admin_request r = new_request(c);

    admin_problem(&r, status, "%s", why);
    c->close = true;
    write_reply(c, &r);
}

/* For a reply that comes later, or the events of a stream. */
static void
wait(struct conn *c)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n";

    c->phase = c->stream ? STREAM : WAIT;
    timer_clear(&c->timer);
    reading(c, true);
    if (c->stream &&
        (evbuffer_add(bufferevent_get_output(c->ev->bev), head, sizeof head - 1) != 0 ||
        timer_set(&c->timer, BEAT_US) != 0))
        timer_set(&c->timer, 0);
}

void
conn_on_request(evhtp_request_t *q, void *arg)
{
    struct conn *c;
    struct admin_request r;
    void *cb_arg;
    size_t n = evbuffer_get_length(q->buffer_in);

    (void)arg;
    bufferevent_getcb(q->conn->bev, NULL, NULL, NULL, &cb_arg);
    c = cb_arg;
    CHECK(c, CONN_MAGIC);
    r = new_request(c);
    r.body = (struct slice){ n > 0 ? (const char *)evbuffer_pullup(q->buffer_in, -1) : "", n };
    c->gone = NULL;
    c->stream = false;
    c->endpoint->handle(&r);
    if (c->gone != NULL && c->stream && c->head.method == HTTP_HEAD) {
        c->gone(c->gone_arg);           /* RFC 9110 9.3.2: no content, and so no event */
        c->gone = NULL;
        c->close = true;
        r.type = "text/event-stream";
    }
    if (c->gone != NULL) {
        c->later = q;
        wait(c);
        return;
    }
    evhtp_send_reply_end(q);            /* finished once what write_reply adds is flushed */
    write_reply(c, &r);
}

/* ---- later ----------------------------------------------------------------------------------- */

struct conn *
admin_wait(struct admin_request *r, void (*gone)(void *arg), void *arg)
{
    r->conn->gone = gone;
    r->conn->gone_arg = arg;
    return r->conn;
}

struct admin_request
admin_later(struct conn *c)
{
    CHECK(c, CONN_MAGIC);
    return new_request(c);
}

void
admin_reply(struct conn *c, struct admin_request *r)
{
    evhtp_request_t *q = c->later;

    CHECK(c, CONN_MAGIC);
    assert(c->phase == WAIT);
    enter(c);
    c->later = NULL;
    evhtp_send_reply_end(q);
    write_reply(c, r);
    leave(c);
}

struct conn *
admin_stream(struct admin_request *r, void (*gone)(void *arg), void *arg)
{
    r->conn->stream = true;
    return admin_wait(r, gone, arg);
}

bool
admin_event(struct conn *c, const char *kind, struct slice data)
{
    struct evbuffer *output = bufferevent_get_output(c->ev->bev);

    CHECK(c, CONN_MAGIC);
    assert(c->phase == STREAM);
    return evbuffer_get_length(output) < STREAM_MAX &&
        evbuffer_add_printf(output, "event: %s\ndata: %.*s\n\n", kind, SLICE_ARG(data)) > 0;
}

/* A line that says nothing: whoever has left does not acknowledge it. */
static void
beat(struct conn *c)
{
    struct evbuffer *output = bufferevent_get_output(c->ev->bev);

    c->silent = evbuffer_get_length(output) > 0 ? c->silent + 1 : 0;
    if (c->silent > SEND_US / BEAT_US || evbuffer_add(output, ":\n\n", 3) != 0 ||
        timer_set(&c->timer, BEAT_US) != 0)
        drop(c);
}

/* One canonical request for libevhtp: nothing in it comes from the network but the framed body. */
static void
hand_over(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->ev->bev);
    struct buf b = { 0 };
    int rc;

    buf_printf(&b, "%s %.*s HTTP/1.1\r\nHost: admin\r\n",
        c->endpoint->method == HTTP_POST ? "POST" : "GET", (int)strcspn(c->endpoint->path, "{"),
        c->endpoint->path);
    if (c->body.n > 0)
        buf_printf(&b, "Content-Length: %zu\r\n", c->body.n);
    buf_addz(&b, "\r\n");
    buf_adds(&b, buf_slice(&c->body));
    reading(c, false);
    evbuffer_unfreeze(in, 0);
    rc = b.failed || c->body.failed ? -1 : evbuffer_add(in, b.p, b.n);
    evbuffer_freeze(in, 0);
    buf_free(&b);
    buf_free(&c->body);
    if (rc != 0) {
        refuse(c, 503, "out of memory");
        return;
    }
    c->saved_read(c->ev->bev, c->saved_arg);
    if (c->ev != NULL && c->phase == BODY)
        drop(c);                        /* libevhtp did not call back: it is out of memory */
}

/* ---- reading --------------------------------------------------------------------------------- */

static void
start_body(struct conn *c)
{
    struct admin_request r = new_request(c);
    struct sockaddr_storage local = { 0 };
    socklen_t len = sizeof local;

    COUNT(admin_requests);
    getsockname(c->ev->sock, (struct sockaddr *)&local, &len);
    c->close = c->head.flags & HTTP_CLOSE;
    c->endpoint = admin_admit(&r, (struct sockaddr *)&local, c->probe);
    if (c->endpoint == NULL) {
        if (c->head.framing != HTTP_NO_BODY)
            c->close = true;            /* its body is not waited for */
        write_reply(c, &r);
        return;
    }
    c->phase = BODY;
    c->left = c->head.framing == HTTP_LENGTH ? c->head.length : 0;
    timer_set(&c->timer, BODY_US);
    if ((c->head.flags & HTTP_EXPECT) && c->in.n == 0 && c->head.framing != HTTP_NO_BODY)
        bufferevent_write(c->ev->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

/* True when the phase changed and there may be more to do. */
static bool
read_head(struct conn *c)
{
    struct http_fault fault = { 0 };
    ssize_t n;

    if (c->in.n == 0) {
        timer_set(&c->timer, IDLE_US);
        c->waited = false;
        return false;
    }
    if (!c->waited)
        timer_set(&c->timer, HEAD_US);
    c->waited = c->asked = true;
    c->head = (struct http_head){ .cap = NELEM(c->fields), .fields = c->fields };
    n = http_parse_request(c->in.p, c->in.n, &limits, &c->head, &fault);
    if (n == 0)
        return false;
    c->waited = false;
    if (n > 0) {                        /* the head must outlast the buffer that is read into */
        c->head_bytes.n = 0;
        buf_add(&c->head_bytes, c->in.p, (size_t)n);
        take(c, (size_t)n);
        if (c->head_bytes.failed)
            fault = (struct http_fault){ 503, "out of memory" };
        else
            n = http_parse_request(c->head_bytes.p, c->head_bytes.n, &limits, &c->head, &fault);
    }
    if (fault.status != 0) {
        c->head.method = HTTP_OTHER;
        refuse(c, fault.status, fault.why);
        return false;
    }
    start_body(c);
    return c->phase == BODY;
}

static bool
too_large(struct conn *c, size_t more)
{
    if (c->body.n + more <= ADMIN_BODY_MAX)
        return false;
    refuse(c, 413, "a body may have 1048576 bytes");
    return true;
}

static bool
read_chunks(struct conn *c)
{
    struct slice in = buf_slice(&c->in), data;
    enum http_chunk what;

    while ((what = http_chunked_next(&c->chunked, &in, &data)) == HTTP_CHUNK_DATA) {
        if (too_large(c, data.n))
            return false;
        buf_adds(&c->body, data);
    }
    take(c, c->in.n - in.n);
    if (what == HTTP_CHUNK_BAD)
        refuse(c, 400, "malformed chunked coding");
    if (what != HTTP_CHUNK_MORE) {
        http_chunked_free(&c->chunked);
        c->chunked = (struct http_chunked){ 0 };
    }
    return what == HTTP_CHUNK_END;
}

/* True when the body is complete. */
static bool
read_body(struct conn *c)
{
    size_t n = c->in.n < c->left ? c->in.n : (size_t)c->left;

    if (c->head.framing == HTTP_CHUNKED)
        return read_chunks(c);
    if (too_large(c, n))
        return false;
    buf_add(&c->body, c->in.p, n);
    take(c, n);
    c->left -= n;
    return c->left == 0;
}

static void
advance(struct conn *c)                 /* inside enter..leave */
{
    if (c->ev != NULL && c->phase == HEAD && !read_head(c)) {
        if (c->ev != NULL && c->phase == HEAD)
            reading(c, true);
        return;
    }
    if (c->ev == NULL || c->phase != BODY)
        return;
    if (read_body(c))
        hand_over(c);
    else if (c->ev != NULL && c->phase == BODY)
        reading(c, true);
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    char *room = c->phase == LINGER ? NULL : buf_reserve(&c->in, READ_SIZE);
    char waste[READ_SIZE];
    ssize_t n;

    (void)what;
    enter(c);
    n = recv(fd, room != NULL ? room : waste, READ_SIZE, 0);
    if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR)) {
        drop(c);
    } else if (n > 0 && c->phase != LINGER) {
        if (room == NULL) {
            drop(c);                    /* out of memory */
        } else {
            c->in.n += (size_t)n;
            if (c->phase == WAIT || c->phase == STREAM)
                reading(c, false);      /* the next request: not before this one has its reply */
            advance(c);
        }
    }
    leave(c);
}

static void
on_timer(void *arg)
{
    struct conn *c = arg;

    enter(c);
    if ((c->phase == HEAD && c->waited) || c->phase == BODY) {
        if (c->phase == HEAD)
            c->head = (struct http_head){ .minor = 1 };
        refuse(c, 408, c->phase == HEAD ? "the head came too slowly" : "the body came too slowly");
    } else if (c->phase == STREAM) {
        beat(c);
    } else {
        drop(c);
    }
    leave(c);
}

/* ---- libevhtp's callbacks, wrapped ----------------------------------------------------------- */

static void
on_flushed(struct conn *c)
{
    if (c->close) {
        buf_free(&c->in);
        c->phase = LINGER;
        shutdown(c->ev->sock, SHUT_WR);
        timer_set(&c->timer, LINGER_US);
        reading(c, true);
        return;
    }
    c->phase = HEAD;
    advance(c);
}

static void
on_written(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;

    enter(c);
    if (c->ev->request != NULL)         /* without one libevhtp would free the connection */
        c->saved_write(bev, c->saved_arg);
    if (c->ev != NULL && c->ev->request == NULL && c->phase == REPLY &&
        evbuffer_get_length(bufferevent_get_output(bev)) == 0)
        on_flushed(c);
    leave(c);
}

static void
on_event(struct bufferevent *bev, short what, void *arg)
{
    struct conn *c = arg;

    enter(c);
    c->saved_event(bev, what, c->saved_arg);
    if (c->ev != NULL && (what & (BEV_EVENT_ERROR | BEV_EVENT_EOF)))
        drop(c);
    leave(c);
}

static void
on_unused_read(struct bufferevent *bev, void *arg)
{
    (void)bev;                          /* never: its reading is off */
    (void)arg;
}

/* Room for one more of this port. */
static bool
make_room(struct admin *a, bool probe)
{
    struct conn *oldest = NULL;

    if (a->nconns[probe] < ADMIN_CONNS_MAX)
        return true;
    for (struct conn *c = a->conns; c != NULL; c = c->next)
        if (c->probe == probe && (probe || c->phase == HEAD || c->phase == LINGER))
            oldest = c;
    if (oldest == NULL)
        return false;
    enter(oldest);
    drop(oldest);
    leave(oldest);
    return true;
}

int
conn_open(struct admin *a, evhtp_connection_t *ev, bool probe)
{
    static const char full[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
        "Retry-After: 1\r\nConnection: close\r\n\r\n";
    struct conn *c = NULL;

    if (!make_room(a, probe) || (c = calloc(1, sizeof *c)) == NULL) {
        send(ev->sock, full, sizeof full - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        return -1;
    }
    *c = (struct conn){ .magic = CONN_MAGIC, .a = a, .ev = ev, .probe = probe, .next = a->conns,
        .since_us = now_us() };
    c->read = event_new(loop_base(a->loop), ev->sock, EV_READ | EV_PERSIST, on_readable, c);
    if (c->read == NULL || timer_init(&c->timer, a->loop, on_timer, c) != 0) {
        conn_free(c);
        return -1;
    }
    bufferevent_getcb(ev->bev, &c->saved_read, &c->saved_write, &c->saved_event, &c->saved_arg);
    bufferevent_disable(ev->bev, EV_READ);
    bufferevent_setcb(ev->bev, on_unused_read, on_written, on_event, c);
    c->prev = &a->conns;
    if (c->next != NULL)
        c->next->prev = &c->next;
    a->conns = c;
    a->nconns[probe]++;
    evhtp_connection_set_hook(ev, evhtp_hook_on_connection_fini, (evhtp_hook)(void *)on_fini, c);
    enter(c);
    advance(c);
    leave(c);
    return 0;
}

void
conn_close_all(struct admin *a)
{
    while (a->conns != NULL) {
        struct conn *c = a->conns;

        enter(c);
        drop(c);
        leave(c);
    }
}

bool
conn_any_busy(const struct admin *a)
{
    int64_t now = now_us();

    for (const struct conn *c = a->conns; c != NULL; c = c->next)
        if (c->phase == BODY || c->phase == WAIT || c->phase == REPLY || c->waited ||
            (!c->asked && now - c->since_us < FIRST_US))
            return true;
    return false;
}
