/*
 * A client's connection.
 *
 * Model    HEAD -> BUSY -> HEAD ...: bytes are parsed as they come; a head makes the connection
 *          busy until the answerer says conn_done. FLUSH sends what is queued of the last answer,
 *          LINGER then waits for the client to close (RFC 9112 9.6), so that a reset does not
 *          destroy the answer.
 * Memory   a connection may be given up in the middle of its own callbacks: kill() closes it at
 *          once, and the outermost call (depth) or the kick under way frees it.
 */
#include "conn/priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <unistd.h>

#include "stats/stats.h"

#define LINGER_US  2000000
#define REST_MAX   READ_BUFFER          /* bytes kept of a client that is ahead of us */
#define QUEUE_MAX  16384                /* with more unsent the next request is not looked at */

static const struct conf_listener *
listener(const struct conn *c)
{
    return &c->conf->listeners[c->listener];
}

/* ---- life -------------------------------------------------------------------------------- */

void
conn_release(struct conn *c)
{
    if (!c->dead || c->depth > 0 || c->kicked)
        return;
    c->magic = 0;
    free(c);
}

/* Closes it; the memory goes when nothing on the stack or in the inbox needs it. */
static void
kill_conn(struct conn *c)
{
    struct conn_worker *w = c->worker;

    if (c->dead)
        return;
    c->dead = true;
    wheel_remove(c);
    if (c->read_ev != NULL)
        event_free(c->read_ev);
    if (c->write_ev != NULL)
        event_free(c->write_ev);
    close(c->fd);
    *c->prev = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    w->count--;
    atomic_fetch_sub(c->count, 1);
    stats_gauge_add(GAUGE_client_connections, -1);
    buf_free(&c->in);
    buf_free(&c->out);
    http_chunked_free(&c->chunked);
    conf_unref(&c->conf);
    conn_release(c);
}

/* Is there somebody who answers? */
static bool
answered(const struct conn *c)
{
    return !c->dead && (c->state == CONN_BUSY || c->state == CONN_TUNNEL) && c->user != NULL;
}

/* Ends it. Whoever answers hears of it once. */
static void
drop(struct conn *c)
{
    if (answered(c)) {
        c->state = CONN_FLUSH;
        c->worker->ev->on_gone(c);
    }
    kill_conn(c);
}

/* The client is gone. */
void
conn_gone(struct conn *c)
{
    if (answered(c))
        COUNT(client_aborts);
    drop(c);
}

/* Where the end of an answer is the end of the connection only a reset tells that it was cut. */
static void
reset_at_close(struct conn *c)
{
    struct linger reset = { 1, 0 };

    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

void
conn_abort(struct conn *c)
{
    CHECK(c, CONN_MAGIC);
    reset_at_close(c);
    c->user = NULL;
    kill_conn(c);
}

static void
run_kick(struct loop_msg *m)
{
    struct conn *c = CONTAINER(m, struct conn, kick);

    c->kicked = false;
    if (!c->dead) {
        c->depth++;
        conn_consume(c);
        c->depth--;
    }
    conn_release(c);
}

static void
kick(struct conn *c)
{
    if (c->kicked || c->depth > 0 || c->dead)
        return;                         /* the call on the stack goes on by itself */
    c->kicked = true;
    c->kick.run = run_kick;
    loop_post(c->worker->loop, &c->kick);
}

/* ---- timers and events ------------------------------------------------------------------- */

static enum conn_wait
awaited(const struct conn *c)
{
    if (c->state == CONN_TUNNEL)
        return WAIT_TUNNEL;             /* a byte either way will do */
    if (conn_queued(c) > 0 || c->want_writable)
        return WAIT_SEND;
    switch ((enum conn_state)c->state) {
    case CONN_PROXY:
        return WAIT_HEAD;
    case CONN_HEAD:
        return conn_rest(c) > 0 ? WAIT_HEAD : WAIT_IDLE;
    case CONN_BUSY:
        return !c->body_done && c->body_on ? WAIT_BODY : WAIT_NONE;
    case CONN_LINGER:
        return WAIT_LINGER;
    default:
        return WAIT_NONE;
    }
}

static int64_t
patience_us(const struct conn *c)
{
    const struct conf_listener *l = listener(c);

    switch ((enum conn_wait)c->wait) {
    case WAIT_SEND:
        return l->timeout_send_ms * 1000;
    case WAIT_HEAD:
        return l->timeout_head_ms * 1000;
    case WAIT_IDLE:
        return l->timeout_idle_ms * 1000;
    case WAIT_BODY:
        return l->timeout_body_ms * 1000;
    case WAIT_TUNNEL:
        return l->timeout_tunnel_ms * 1000;
    case WAIT_LINGER:
        return LINGER_US;
    case WAIT_NONE:
        break;
    }
    return 0;
}

/* The one deadline that counts now. It stands as long as the client is awaited for the same thing:
 * a byte now and then does not win it more time for a head, and bytes that it sends none for those
 * that it does not take. */
void
conn_rearm(struct conn *c, int64_t now)
{
    enum conn_wait wait = awaited(c);

    if (wait == c->wait)
        return;
    c->wait = (uint8_t)wait;
    wheel_set(c, now, patience_us(c));
}

/* What was awaited has come, or a part of it. */
void
conn_progress(struct conn *c)
{
    c->wait = WAIT_NONE;
}

static void
refuse(struct conn *c, unsigned status, const char *why)
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
static void
no_proxy_header(struct conn *c, const char *what)
{
    static struct log_limit limit;

    COUNT(proxy_refused);
    log_limited(&limit, LOG_WARN, "%s is in `trust` of %s and sent %s: closed; let it send one "
        "(send-proxy), or set proxy_protocol: false", c->client, listener(c)->address.text, what);
    kill_conn(c);
}

static void
refuse_head(struct conn *c, struct slice bytes, unsigned status, const char *why)
{
    c->worker->refused = bytes;
    refuse(c, status, why);
    c->worker->refused = (struct slice){ NULL, 0 };
}

struct slice
conn_refused(const struct conn *c)
{
    return c->worker->refused;
}

static void
end_idle_tunnel(struct conn *c)
{
    static struct log_limit limit;

    COUNT(tunnels_idle);
    log_limited(&limit, LOG_INFO, "a tunnel of %s was idle for %lld ms: closed", c->client,
        (long long)listener(c)->timeout_tunnel_ms);
    drop(c);
}

void
conn_expired(struct conn *c)
{
    c->depth++;
    switch (c->broken ? WAIT_SEND : (enum conn_wait)c->wait) {
    case WAIT_SEND:
    case WAIT_LINGER:
    case WAIT_IDLE:
        conn_gone(c);
        break;
    case WAIT_HEAD:
        if (c->state == CONN_PROXY) {
            no_proxy_header(c, conn_rest(c) > 0 ? "a part of a PROXY header in time" :
                "no PROXY header in time");
            break;
        }
        COUNT(requests_timeout);
        refuse_head(c, (struct slice){ c->in.p + c->in_at, conn_rest(c) }, 408,
            "the request head took too long");
        break;
    case WAIT_BODY:
        COUNT(requests_timeout);
        refuse(c, 408, "the request body took too long");
        break;
    case WAIT_TUNNEL:
        end_idle_tunnel(c);
        break;
    case WAIT_NONE:
        break;
    }
    c->depth--;
    conn_release(c);
}

void
conn_set_reading(struct conn *c, bool on)
{
    if (c->reading == on || c->dead)
        return;
    c->reading = on;
    if (on)
        event_add(c->read_ev, NULL);
    else
        event_del(c->read_ev);
}

void
conn_set_writing(struct conn *c, bool on)
{
    if (c->writing == on || c->dead)
        return;
    c->writing = on;
    if (on)
        event_add(c->write_ev, NULL);
    else
        event_del(c->write_ev);
}

/* ---- the end of an answer ---------------------------------------------------------------- */

/* Even when nothing is left to read: a request may be under way that nobody will answer, and the
 * reset that it would meet destroys what the client has not yet read (RFC 9112 9.6). */
void
conn_goodbye(struct conn *c)
{
    if (c->half_closed) {
        kill_conn(c);
        return;
    }
    c->state = CONN_LINGER;
    c->in.n = c->in_at = 0;
    shutdown(c->fd, SHUT_WR);
    conn_set_reading(c, true);
    conn_rearm(c, now_us());
}

void
conn_done(struct conn *c, bool keep)
{
    CHECK(c, CONN_MAGIC);
    c->user = NULL;
    c->want_writable = false;
    if (c->dead)
        return;
    if (keep && c->body_done && c->state == CONN_BUSY) {
        c->state = CONN_HEAD;
        c->since_us = 0;
        if (conn_queued(c) == 0)
            conn_set_writing(c, false);
        if (c->depth == 0) {
            conn_rearm(c, now_us());
            kick(c);
        }
        return;
    }
    c->state = CONN_FLUSH;
    if (conn_queued(c) == 0)
        conn_goodbye(c);
    else
        conn_rearm(c, now_us());
}

bool
conn_may_keep(const struct conn *c)
{
    uint64_t max = listener(c)->limit_requests;

    return c->keep_asked && !c->worker->draining && (max == 0 || c->requests < max);
}

/* ---- reading ----------------------------------------------------------------------------- */

static void
take_proxy_header(struct conn *c, struct slice *data)
{
    struct sockaddr_storage sa;
    socklen_t len = 0;
    ssize_t n = conn_proxy_header(data->p, data->n, &sa, &len);

    if (n == -1) {
        no_proxy_header(c, slice_starts(*data, SLICE("PROXY ")) ||
            slice_starts(*data, SLICE("\r\n\r\n")) ?
            "a malformed PROXY header" : "no PROXY header");
        return;
    }
    if (n == 0)
        return;
    data->p += n;
    data->n -= (size_t)n;
    c->state = CONN_HEAD;
    if (len == 0)
        return;
    c->asker = sa;
    if (sa.ss_family == AF_UNSPEC)
        return;                         /* the connection's own address is shown, but not trusted */
    inet_ntop(sa.ss_family, sa.ss_family == AF_INET ?
        (void *)&((struct sockaddr_in *)(void *)&sa)->sin_addr :
        (void *)&((struct sockaddr_in6 *)(void *)&sa)->sin6_addr, c->client, sizeof c->client);
    c->client_n = (uint8_t)strlen(c->client);
}

/* The head at the front of data, if it is whole. */
static void
take_head(struct conn *c, struct slice *data)
{
    const struct conf_listener *l = listener(c);
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
    if (n == 0)
        return;
    COUNT(requests);
    c->requests++;
    conn_progress(c);
    if (n == -1) {
        bytes = *data;
        data->n = 0;
        refuse_head(c, bytes, fault.status, fault.why);
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
        refuse_head(c, bytes, 413, "the request body is larger than this listener takes");
    else if (http_has(h, HF_CONNECTION) && !http_strip(h))
        refuse_head(c, bytes, 400, "Connection names too many fields");
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
            refuse(c, 400, "the chunked body is malformed");
            return;
        }
        if (got != HTTP_CHUNK_DATA)
            piece.n = 0;
        c->body_done = got == HTTP_CHUNK_END;
    }
    c->body_seen += piece.n;
    /* also by what a chunk announces: no byte of it is awaited */
    if (c->body_seen + c->chunked.left > (uint64_t)listener(c)->limit_body) {
        data->n = 0;
        refuse(c, 413, "the request body is larger than this listener takes");
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

/* After bytes were taken: read on or not, and when is it too late. The client's end of stream,
 * once all it sent was taken. */
static void
settle(struct conn *c, int64_t now)
{
    bool waiting = c->state == CONN_HEAD || c->state == CONN_PROXY;

    if (c->dead)
        return;
    if (c->half_closed && c->state == CONN_PROXY && conn_rest(c) > 0) {
        no_proxy_header(c, "a part of a PROXY header");
        return;
    }
    if (c->half_closed && ((waiting && conn_queued(c) == 0) || c->state == CONN_LINGER ||
        (c->state == CONN_BUSY && !c->body_done && conn_rest(c) == 0 && c->body_on))) {
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

static void
on_readable(evutil_socket_t fd, short what, void *arg)
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

/* ---- the request's body ------------------------------------------------------------------ */

bool
conn_has_body(const struct conn *c)
{
    return !c->body_done;
}

void
conn_body(struct conn *c, bool on)
{
    if (c->dead || c->body_on == on)
        return;
    c->body_on = on;
    if (!on)
        return;
    conn_rearm(c, now_us());
    kick(c);
}

void
conn_continue(struct conn *c)
{
    struct iovec iov = { (char *)(uintptr_t)"HTTP/1.1 100 Continue\r\n\r\n", 25 };

    if (c->expect && !c->body_done && c->body_seen == 0 && conn_rest(c) == 0)
        conn_write(c, &iov, 1);
    c->expect = false;
}

void
conn_tunnel(struct conn *c)
{
    c->state = CONN_TUNNEL;
    c->body_done = false;
    c->body_on = true;
    conn_rearm(c, now_us());
    kick(c);
}

/* ---- asking ------------------------------------------------------------------------------ */

struct loop *
conn_loop(const struct conn *c)
{
    return c->worker->loop;
}

const struct conf_listener *
conn_listener(const struct conn *c)
{
    return listener(c);
}

const char *
conn_purge_token(const struct conn *c)
{
    return c->conf->purge_tokens != NULL ? c->conf->purge_tokens[c->listener] : NULL;
}

bool
conn_https(const struct conn *c)
{
    (void)c;
    return false;                       /* io.c knows plain sockets only */
}

int64_t
conn_since_us(const struct conn *c)
{
    return c->since_us;
}

void **
conn_user(struct conn *c)
{
    return &c->user;
}

/* ---- workers ----------------------------------------------------------------------------- */

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
    c->read_ev = event_new(loop_base(w->loop), fd, EV_READ | EV_PERSIST, on_readable, c);
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
    c->state = listener(c)->proxy_protocol && conn_peer_in(c, &listener(c)->trust) ?
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
            kill_conn(c);
    }
    return w->count == 0;
}

void
conn_worker_cut(struct conn_worker *w)
{
    while (w->conns != NULL) {
        if (w->conns->state == CONN_BUSY)
            reset_at_close(w->conns);
        conn_gone(w->conns);
    }
}

size_t
conn_worker_count(const struct conn_worker *w)
{
    return w->count;
}
