/*
 * What a client sends: read, cut into heads and bodies, and handed to whoever answers.
 *
 * Model    bytes are read into the thread's buffer and taken from there, by what the connection
 *          waits for; what cannot be taken yet is kept in the connection (in), up to REST_MAX.
 *          What is not HTTP, or too much of it, is refused once, and nothing behind it is read.
 * Threads  the connection's loop.
 * Not here parsing (http/), the PROXY header's form (proxy.c).
 */
#include "conn/priv.h"

#include "stats/stats.h"

#define REST_MAX   READ_BUFFER          /* bytes kept of a client that is ahead of us */
#define QUEUE_MAX  16384                /* with more unsent the next request is not looked at */

/* ---- refusals ---------------------------------------------------------------------------- */

void
conn_refuse(struct conn *c, unsigned status, const char *why)
{
    struct http_fault f = { status, why };
    bool busy = c->state == CONN_BUSY;

    COUNT(requests_bad);
    c->state = CONN_BUSY;
    c->body_done = false;               /* whatever follows is not to be read as a request */
    c->body_on = false;
    c->keep_asked = false;
    c->worker->ev->on_refused(c, &f, busy);
}

/* A peer that must speak the PROXY protocol does not: nobody could say who asks. */
void
conn_refuse_peer(struct conn *c, const char *what)
{
    static struct log_limit limit;

    COUNT(proxy_refused);
    log_limited(&limit, LOG_WARN, "%s is in `trust` of %s and sent %s: closed; let it send one "
        "(send-proxy), or set proxy_protocol: false", c->client,
        conn_listener(c)->address.text, what);
    conn_kill(c);
}

void
conn_refuse_head(struct conn *c, struct slice bytes, unsigned status, const char *why)
{
    c->worker->refused = bytes;
    conn_refuse(c, status, why);
    c->worker->refused = (struct slice){ NULL, 0 };
}

struct slice
conn_refused(const struct conn *c)
{
    return c->worker->refused;
}

/* ---- what comes -------------------------------------------------------------------------- */

static void
take_proxy_header(struct conn *c, struct slice *data)
{
    struct sockaddr_storage sa;
    socklen_t len = 0;
    ssize_t n = conn_proxy_header(data->p, data->n, &sa, &len);

    if (n == -1) {
        conn_refuse_peer(c, slice_starts(*data, SLICE("PROXY ")) ||
            slice_starts(*data, SLICE("\r\n\r\n")) ?
            "a malformed PROXY header" : "no PROXY header");
        return;
    }
    if (n == 0)
        return;
    data->p += n;
    data->n -= (size_t)n;
    c->state = CONN_HEAD;
    if (len > 0)
        peer_asks(c, &sa);
}

/* The head at the front of data, if it is whole. */
static void
take_head(struct conn *c, struct slice *data)
{
    const struct conf_listener *l = conn_listener(c);
    struct conn_worker *w = c->worker;
    struct http_limits limits = { .head = (size_t)l->limit_head, .uri = (size_t)l->limit_uri,
        .fields = (unsigned)l->limit_headers };
    struct http_head *h = &w->head;
    struct http_fault fault;
    struct slice bytes;
    ssize_t n;

    if (c->since_us == 0)
        c->since_us = c->worker->now_us;
    h->fields = w->fields;
    h->cap = (uint16_t)limits.fields;
    n = http_parse_request(data->p, data->n, &limits, h, &fault);
    if (n == 0 || (UNLIKELY(w->hold != CONN_TAKES) && n > 0 &&
        (w->hold == CONN_HOLDS || !http_method_safe(h->method))))
        return;
    COUNT(requests);
    c->requests++;
    conn_progress(c);
    if (n == -1) {
        bytes = *data;
        data->n = 0;
        conn_refuse_head(c, bytes, fault.status, fault.why);
        return;
    }
    bytes = (struct slice){ data->p, (size_t)n };
    data->p += n;
    data->n -= (size_t)n;
    c->state = CONN_BUSY;
    c->framing = h->framing;
    c->body_left = h->framing == HTTP_LENGTH ? h->length : 0;
    c->body_seen = 0;
    c->body_done = h->framing == HTTP_NO_BODY || (h->framing == HTTP_LENGTH && h->length == 0);
    c->body_on = false;
    c->expect = (h->flags & HTTP_EXPECT) != 0;
    c->keep_asked = !(h->flags & HTTP_CLOSE);
    if (h->framing == HTTP_LENGTH && h->length > (uint64_t)l->limit_body)
        conn_refuse_head(c, bytes, 413, "the request body is larger than this listener takes");
    else if (http_has(h, HF_CONNECTION) && !http_strip(h))
        conn_refuse_head(c, bytes, 400, "Connection names too many fields");
    else
        w->ev->on_head(c, h, bytes);
}

/* One piece of the request's body. */
static void
take_body(struct conn *c, struct slice *data)
{
    const struct conn_events *ev = c->worker->ev;
    struct slice piece = { NULL, 0 }, trailer = { NULL, 0 };
    enum http_chunk got;

    if (c->framing == HTTP_LENGTH) {
        piece = (struct slice){ data->p, data->n < c->body_left ? data->n : c->body_left };
        data->p += piece.n;
        data->n -= piece.n;
        c->body_left -= piece.n;
        c->body_done = c->body_left == 0;
    } else {
        got = http_chunked_next(&c->chunked, data, &piece);
        if (got == HTTP_CHUNK_BAD) {
            data->n = 0;
            conn_refuse(c, 400, "the chunked body is malformed");
            return;
        }
        if (got != HTTP_CHUNK_DATA)
            piece.n = 0;
        c->body_done = got == HTTP_CHUNK_END;
    }
    c->body_seen += piece.n;
    /* also by what a chunk announces: no byte of it is awaited */
    if (c->body_seen + c->chunked.left > (uint64_t)conn_listener(c)->limit_body) {
        data->n = 0;
        conn_refuse(c, 413, "the request body is larger than this listener takes");
        return;
    }
    if (piece.n > 0)
        ev->on_body(c, piece);
    if (c->dead || !c->body_done || c->state != CONN_BUSY)
        return;
    if (c->framing == HTTP_CHUNKED)
        trailer = buf_slice(&c->chunked.trailer);
    ev->on_body_end(c, trailer);
    if (!c->dead) {
        http_chunked_free(&c->chunked);
        c->chunked = (struct http_chunked){ 0 };
    }
}

/* Takes from data what can be taken now. */
static void
process(struct conn *c, struct slice *data)
{
    size_t before;

    do {
        before = data->n + (size_t)c->state * READ_BUFFER * 4;
        switch ((enum conn_state)c->state) {
        case CONN_PROXY:
            take_proxy_header(c, data);
            break;
        case CONN_HEAD:
            if (data->n > 0 && conn_queued(c) <= QUEUE_MAX)
                take_head(c, data);
            break;
        case CONN_BUSY:
            if (!c->body_done && c->body_on && data->n > 0 && !c->broken)
                take_body(c, data);
            break;
        case CONN_TUNNEL:
            if (c->body_on && data->n > 0) {
                struct slice all = *data;

                data->n = 0;
                c->worker->ev->on_body(c, all);
            }
            break;
        case CONN_FLUSH:
        case CONN_LINGER:
            data->n = 0;
            break;
        }
    } while (!c->dead && data->n > 0 && data->n + (size_t)c->state * READ_BUFFER * 4 != before);
}

/* What it has asked waits, and not for more of it. */
static bool
held(const struct conn *c)
{
    return c->worker->hold != CONN_TAKES && conn_rest(c) > 0;
}

/* After bytes were taken: read on or not, and when is it too late. The client's end of stream,
 * once all it sent was taken. */
static void
settle(struct conn *c, int64_t now)
{
    bool waiting = c->state == CONN_HEAD || c->state == CONN_PROXY;

    if (c->dead)
        return;
    if (c->half_closed && c->state == CONN_PROXY && conn_rest(c) > 0) {
        conn_refuse_peer(c, "a part of a PROXY header");
        return;
    }
    if (c->half_closed && ((waiting && conn_queued(c) == 0 && !held(c)) ||
        c->state == CONN_LINGER || (c->state == CONN_BUSY && !c->body_done &&
        conn_rest(c) == 0 && c->body_on))) {
        conn_gone(c);
        return;
    }
    if (c->state == CONN_TUNNEL && c->half_closed && !c->body_done && conn_rest(c) == 0) {
        c->body_done = true;
        c->worker->ev->on_body_end(c, (struct slice){ NULL, 0 });
    }
    conn_set_reading(c, c->broken || (!c->half_closed && conn_rest(c) < REST_MAX));
    conn_rearm(c, now);
}

/* Goes on with the rest. */
void
conn_consume(struct conn *c)
{
    struct slice data = { c->in.p + c->in_at, conn_rest(c) };
    int64_t now = c->worker->now_us = now_us();

    process(c, &data);
    if (!c->dead) {
        c->in_at = c->in.n - (data.n < conn_rest(c) ? data.n : conn_rest(c));
        if (c->in_at == c->in.n) {
            if (c->in.cap > 4096)
                buf_free(&c->in);
            c->in.n = c->in_at = 0;
        }
    }
    settle(c, now);
}

/* Reads into the thread's buffer, or behind the rest. */
static ssize_t
fill_buffer(struct conn *c, struct slice *data)
{
    struct conn_worker *w = c->worker;
    char *room;
    ssize_t n;

    if (conn_rest(c) == 0) {
        n = io_read(c, w->buffer, sizeof w->buffer);
        *data = (struct slice){ w->buffer, n > 0 ? (size_t)n : 0 };
        return n;
    }
    if (c->in_at > 0) {
        memmove(c->in.p, c->in.p + c->in_at, conn_rest(c));
        c->in.n -= c->in_at;
        c->in_at = 0;
    }
    room = buf_reserve(&c->in, REST_MAX > c->in.n ? REST_MAX - c->in.n : 1);
    if (room == NULL)
        return -1;
    n = io_read(c, room, REST_MAX > c->in.n ? REST_MAX - c->in.n : 1);
    if (n > 0)
        c->in.n += (size_t)n;
    return n;
}

void
conn_on_readable(int fd, short what, void *arg)
{
    struct conn *c = arg;
    bool fresh = conn_rest(c) == 0;
    struct slice data;
    int64_t now;
    ssize_t n;

    (void)fd;
    (void)what;
    CHECK(c, CONN_MAGIC);
    n = c->broken ? -1 : fill_buffer(c, &data);
    if (n == -2)
        return;
    c->depth++;
    now = c->worker->now_us = now_us();
    if (c->wait == WAIT_BODY || c->wait == WAIT_TUNNEL)
        conn_progress(c);
    if (n == -1) {
        conn_gone(c);
    } else if (n == 0) {
        c->half_closed = true;
        conn_set_reading(c, false);
        settle(c, now);
    } else if (!fresh) {
        conn_consume(c);
    } else {
        process(c, &data);
        if (!c->dead && data.n > 0) {
            c->in.n = c->in_at = 0;
            buf_add(&c->in, data.p, data.n);
            if (c->in.failed)
                conn_gone(c);
        }
        settle(c, now);
    }
    c->depth--;
    conn_release(c);
}
