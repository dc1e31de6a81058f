/*
 * A client's connection.
 *
 * Model    HEAD -> BUSY -> HEAD ...: bytes are parsed as they come; a head makes the connection
 *          busy until the answerer says conn_done. FLUSH sends what is queued of the last answer,
 *          LINGER then waits for the client to close (RFC 9112 9.6), so that a reset does not
 *          destroy the answer.
 * Memory   a connection may be given up in the middle of its own callbacks: conn_kill closes it at
 *          once, and the outermost call (depth) or the kick under way frees it.
 * Threads  the connection's loop.
 * Not here what comes in (read.c), what goes out (write.c), a worker's connections as a whole
 *          (worker.c).
 */
#include "conn/priv.h"

#include <event2/event.h>
#include <stdlib.h>
#include <unistd.h>

#include "stats/stats.h"

#define LINGER_US  2000000

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
void
conn_kill(struct conn *c)
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
    conn_kill(c);
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
void
conn_reset_at_close(struct conn *c)
{
    struct linger reset = { 1, 0 };

    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

void
conn_abort(struct conn *c)
{
    CHECK(c, CONN_MAGIC);
    conn_reset_at_close(c);
    c->user = NULL;
    conn_kill(c);
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

void
conn_kick(struct conn *c)
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
    const struct conf_listener *l = conn_listener(c);

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
end_idle_tunnel(struct conn *c)
{
    static struct log_limit limit;

    COUNT(tunnels_idle);
    log_limited(&limit, LOG_INFO, "a tunnel of %s was idle for %lld ms: closed", c->client,
        (long long)conn_listener(c)->timeout_tunnel_ms);
    drop(c);
}

void
conn_expired(struct conn *c)
{
    if (c->worker->hold != CONN_TAKES && (c->wait == WAIT_HEAD || c->wait == WAIT_IDLE)) {
        conn_progress(c);               /* it is not the client that is waited for */
        conn_rearm(c, now_us());
        return;
    }
    c->depth++;
    switch (c->broken ? WAIT_SEND : (enum conn_wait)c->wait) {
    case WAIT_SEND:
    case WAIT_LINGER:
    case WAIT_IDLE:
        conn_gone(c);
        break;
    case WAIT_HEAD:
        if (c->state == CONN_PROXY) {
            conn_refuse_peer(c, conn_rest(c) > 0 ? "a part of a PROXY header in time" :
                "no PROXY header in time");
            break;
        }
        COUNT(requests_timeout);
        conn_refuse_head(c, (struct slice){ c->in.p + c->in_at, conn_rest(c) }, 408,
            "the request head took too long");
        break;
    case WAIT_BODY:
        COUNT(requests_timeout);
        conn_refuse(c, 408, "the request body took too long");
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
        conn_kill(c);
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
            conn_kick(c);
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
    uint64_t max = conn_listener(c)->limit_requests;

    return c->keep_asked && !c->worker->draining && (max == 0 || c->requests < max);
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
    conn_kick(c);
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
    conn_kick(c);
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
    return &c->conf->listeners[c->listener];
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
