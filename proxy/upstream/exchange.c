/*
 * One request: a server, a connection, the bytes on their way out, tries again.
 *
 * Model    NEW -> (WAIT for a permit) -> (CONNECT) -> HEAD -> BODY or TUNNEL -> DONE. A try that
 *          fails goes back to NEW while it may be repeated, else the fault is told. Head and body
 *          bytes that the caller gives in one round of the loop leave in one write. Up to 64 KiB of
 *          body stay in memory until a response begins, so that an idempotent request can be sent
 *          again as a whole (RFC 9110 9.2.2, RFC 9112 9.3.1); a longer one is not.
 * Threads  all on the exchange's worker.
 * Not here the response (response.c), who gets a connection (pool.c), which server (balance.c).
 */
#include "upstream/internal.h"

#include <errno.h>
#include <stdlib.h>

#define CONTINUE_US SECOND_US           /* how long a body waits for 100 (Continue) */

static void try_server(struct exchange *x, bool fresh);

/* ---- holds: callbacks may cancel --------------------------------------------------------- */

static void
exchange_free(struct exchange *x)
{
    deadline_fini(&x->limit);
    http_chunked_free(&x->chunked);
    buf_free(&x->out);
    origin_unref(&x->o);
    x->magic = 0;
    free(x);
}

void
exchange_enter(struct exchange *x)
{
    CHECK(x, EXCHANGE_MAGIC);
    x->hold++;
}

bool
exchange_leave(struct exchange *x)
{
    bool alive = !x->cancelled;

    if (--x->hold == 0 && !alive)
        exchange_free(x);
    return alive;
}

/* ---- the end of a try -------------------------------------------------------------------- */

static void
uncount(struct exchange *x, enum server_result r)
{
    if (!x->counted)
        return;
    x->counted = false;
    atomic_fetch_sub(&x->s->busy, 1);
    balance_result(x->o, x->s, r, x->probe);
    x->probe = false;
}

/* x and its connection part: what becomes of it is the caller's business. */
static struct wire *
detach(struct exchange *x)
{
    struct wire *c = x->c;

    x->c = NULL;
    if (c != NULL) {
        c->x = NULL;
        if (x->ready_us != 0)
            stats_gauge_add(GAUGE_origin_busy, -1);
    }
    return c;
}

static void
tell_fault(struct exchange *x)
{
    x->state = X_DONE;
    COUNT(origin_errors);
    x->fault.reached = x->reached;
    x->fault.mid_body = x->head_us != 0;
    exchange_enter(x);
    x->ev->on_fault(x->arg, &x->fault);
    exchange_leave(x);
}

static void
set_fault(struct exchange *x, unsigned status, const char *cause, const char *detail)
{
    x->fault = (struct exchange_fault){ .status = status, .cause = cause, .detail = detail,
        .retry_after_s = status == 503 ? 1 : 0 };
}

/* Told in the next round of the loop: never from inside the caller's own call. */
static void
fault_soon(struct exchange *x, unsigned status, const char *cause, const char *detail)
{
    set_fault(x, status, cause, detail);
    x->state = X_FAULT;
    deadline_set(&x->limit, 0);
}

void
exchange_broken(struct exchange *x, unsigned status, const char *cause, const char *detail)
{
    struct wire *c = detach(x);

    if (c != NULL)
        wire_close(c);
    uncount(x, SERVER_FAILED);
    deadline_clear(&x->limit);
    set_fault(x, status, cause, detail);
    tell_fault(x);
}

void
exchange_complete(struct exchange *x, bool reusable, struct slice trailer)
{
    struct wire *c = detach(x);

    reusable = reusable && !x->close && exchange_sent(x) && !x->cut;
    x->state = X_DONE;
    deadline_clear(&x->limit);
    stats_origin(x->s->stats, ORIGIN_TOTAL, (uint64_t)(now_us() - x->start_us));
    uncount(x, SERVER_WORKS);
    if (reusable)
        pool_give(c);
    else
        wire_close(c);
    exchange_enter(x);
    x->ev->on_end(x->arg, trailer);
    exchange_leave(x);
}

/* ---- trying again ------------------------------------------------------------------------ */

/* The pooled connection was closed while the request was on its way: once more on a new one. */
static bool
may_repeat_stale(struct exchange *x, enum wire_trouble t)
{
    if (!x->reused || x->stale_once || x->spilt || (t != WIRE_EOF && t != WIRE_RESET))
        return false;
    x->stale_once = true;
    return true;
}

/* Connecting took all the time that it may: another server may have its own, but the same one would
 * only make timeout.connect a multiple of what it says. A name that failed fails again. */
static bool
spent(enum wire_trouble t)
{
    return t == WIRE_TIMEOUT || t == WIRE_NO_NAME || t == WIRE_NAME_TIMEOUT;
}

/* What was sent of the body is still there, up to 64 KiB of it (forget_sent). */
static bool
may_retry(struct exchange *x, enum wire_trouble t)
{
    if (x->server < 64)
        x->tried |= UINT64_C(1) << x->server;
    x->elsewhere = x->elsewhere || spent(t);
    if (x->spilt || x->retries >= x->o->retry_attempts)
        return false;
    if (x->elsewhere && !balance_another(x->o, x->tried))
        return false;
    if (!budget_retry(&x->o->budget, x->o->retry_budget, now_us())) {
        COUNT(origin_retry_denied);
        return false;
    }
    x->retries++;
    return true;
}

static void
trouble_fault(struct exchange *x, enum wire_trouble t)
{
    switch (t) {
    case WIRE_REFUSED:
        set_fault(x, 502, "connection_refused", "the origin refused the connection");
        break;
    case WIRE_UNREACHABLE:
        set_fault(x, 502, "destination_ip_unroutable", "the origin cannot be reached");
        break;
    case WIRE_TIMEOUT:
        set_fault(x, 504, "connection_timeout", "connecting to the origin took too long");
        break;
    case WIRE_NO_NAME:
        set_fault(x, 502, "dns_error", "the origin's name has no address");
        break;
    case WIRE_NAME_TIMEOUT:
        set_fault(x, 504, "dns_timeout", "looking up the origin's name took too long");
        break;
    case WIRE_TLS:
        set_fault(x, 502, "tls_protocol_error", "the TLS handshake with the origin failed");
        break;
    case WIRE_CERTIFICATE:
        set_fault(x, 502, "tls_certificate_error", "the origin's certificate is not valid for it");
        break;
    case WIRE_NO_MEMORY:
        set_fault(x, 503, "proxy_internal_error", "out of memory or file descriptors");
        break;
    case WIRE_EOF:
    case WIRE_RESET:
        if (x->received || x->head_us != 0)
            set_fault(x, 502, "http_response_incomplete",
                "the origin closed before its response was complete");
        else
            set_fault(x, 502, "connection_terminated",
                "the origin closed the connection without a response");
        break;
    }
}

void
exchange_on_trouble(struct exchange *x, enum wire_trouble t)
{
    bool stale;

    if (x->ready_us != 0)
        stats_gauge_add(GAUGE_origin_busy, -1);
    stale = x->idempotent && !x->received && may_repeat_stale(x, t);
    uncount(x, stale || t == WIRE_NO_MEMORY ? SERVER_UNKNOWN : SERVER_FAILED);
    deadline_clear(&x->limit);
    if (stale || (x->idempotent && !x->received && may_retry(x, t))) {
        COUNT(origin_retries);
        x->head_off = x->out_off = 0;
        x->cut = false;
        try_server(x, stale);
        return;
    }
    trouble_fault(x, t);
    tell_fault(x);
}

/* ---- the way out ------------------------------------------------------------------------- */

static size_t
pending(const struct exchange *x)
{
    return x->out.n - x->out_off;
}

bool
exchange_sent(const struct exchange *x)
{
    return x->cut || (x->head_off == x->head_n && !x->await && x->ended && pending(x) == 0);
}

/* What the connection may take its time for now. */
void
exchange_limit(struct exchange *x)
{
    int64_t now = now_us();
    bool stuck = pending(x) > 0 || x->head_off < x->head_n;

    if (x->c == NULL)
        return;
    if (x->state == X_TUNNEL || (x->paused && !stuck))
        wire_limit(x->c, INT64_MAX);
    else if (exchange_sent(x))
        wire_limit(x->c, now +
            (x->state == X_HEAD && !x->mid_head ? x->first_byte_us : x->between_us));
    else if (stuck && !x->await)
        wire_limit(x->c, now + x->between_us);
    else
        wire_limit(x->c, INT64_MAX);    /* the next byte is the client's */
}

void
exchange_on_limit(struct exchange *x)
{
    if (x->state == X_HEAD && !x->mid_head && exchange_sent(x))
        exchange_broken(x, 504, "connection_read_timeout",
            "the origin did not begin to answer in time");
    else if (pending(x) > 0 && !x->cut)
        exchange_broken(x, 504, "connection_write_timeout",
            "the origin did not take the request in time");
    else
        exchange_broken(x, 504, "connection_read_timeout",
            "the origin stopped in the middle of its response");
}

/* Bytes that were sent go, unless all of the body so far is little enough to be sent again. */
static void
forget_sent(struct exchange *x)
{
    if (x->out_off == 0 || (!x->spilt && x->out.n <= KIB64 && x->state == X_HEAD))
        return;
    x->spilt = true;
    if (x->out_off == x->out.n) {
        x->out.n = x->out_off = 0;
        if (x->out.cap > 4 * KIB64)
            buf_free(&x->out);
    } else if (x->out_off >= KIB64) {
        memmove(x->out.p, x->out.p + x->out_off, pending(x));
        x->out.n -= x->out_off;
        x->out_off = 0;
    }
}

static void
took(struct exchange *x, size_t n)
{
    size_t of_head = x->head_n - x->head_off;

    if (n > 0)
        x->reached = true;
    of_head = n < of_head ? n : of_head;
    x->head_off += of_head;
    x->out_off += n - of_head;
    if (of_head > 0 && x->head_off == x->head_n && x->await)
        deadline_set(&x->limit, now_us() + CONTINUE_US);
}

static void
flush(struct exchange *x)
{
    struct iovec iov[2];
    ssize_t r;
    size_t before;
    int n = 0;

    if (x->c == NULL || x->state < X_HEAD || x->state > X_TUNNEL || x->cut)
        return;
    before = x->head_n - x->head_off + (x->await ? 0 : pending(x));
    if (x->head_off < x->head_n)
        iov[n++] = (struct iovec){ x->head + x->head_off, x->head_n - x->head_off };
    if (!x->await && pending(x) > 0)
        iov[n++] = (struct iovec){ x->out.p + x->out_off, pending(x) };
    r = n > 0 ? wire_write(x->c, iov, n) : 0;
    if (r == -1) {
        /* Perhaps it answered before it closed: the read event tells. */
        x->cut = true;
    } else {
        took(x, (size_t)r);
    }
    forget_sent(x);
    if (x->state == X_TUNNEL && x->ended && pending(x) == 0 && !x->finished) {
        x->finished = true;
        wire_finish(x->c);
    }
    if (r != 0 || before == 0 || x->state == X_HEAD)
        exchange_limit(x);
}

/* Both ways of a tunnel have ended. Where the origin's has, no read event tells of a reset. */
static bool
both_ended(const struct exchange *x)
{
    return x->half_closed && (x->finished || x->cut) && x->state == X_TUNNEL;
}

static void
drained(struct exchange *x)
{
    if (!x->full || exchange_full(x))
        return;
    x->full = false;
    exchange_enter(x);
    if (x->ev->on_drain != NULL)
        x->ev->on_drain(x->arg);
    exchange_leave(x);
}

void
exchange_on_writable(struct exchange *x)
{
    flush(x);
    if (both_ended(x))
        exchange_complete(x, false, (struct slice){ NULL, 0 });
    else
        drained(x);
}

void
exchange_body_go(struct exchange *x)
{
    if (!x->await)
        return;
    x->await = x->expect = false;
    deadline_clear(&x->limit);
    exchange_enter(x);
    if (x->ev->on_continue != NULL)
        x->ev->on_continue(x->arg);
    if (!x->cancelled)
        exchange_on_writable(x);
    exchange_leave(x);
}

static void
add_body(struct exchange *x, struct slice data)
{
    if (x->out_off > 0 && x->out.n + data.n > KIB64) {
        x->spilt = true;
        forget_sent(x);
    }
    if (x->body == HTTP_CHUNKED && x->state != X_TUNNEL) {
        buf_printf(&x->out, "%zx\r\n", data.n);
        buf_adds(&x->out, data);
        buf_add(&x->out, "\r\n", 2);
    } else {
        buf_adds(&x->out, data);
    }
}

/* on_drain comes from the loop, not from inside a call of the caller's. */
static void
owe_drain(struct exchange *x)
{
    if (x->full && x->c != NULL && !exchange_full(x))
        wire_soon(x->c);
}

/* After the caller gave something. */
static void
out_changed(struct exchange *x)
{
    struct wire *c;

    if (x->out.failed) {
        c = detach(x);
        if (c != NULL)
            wire_close(c);
        if (x->state == X_WAIT && !pool_leave(x))
            return;                     /* on_grant sees it */
        uncount(x, SERVER_UNKNOWN);
        fault_soon(x, 503, "proxy_internal_error", "out of memory");
        return;
    }
    if (x->c != NULL && x->state >= X_HEAD && !x->await) {
        if (pending(x) > KIB64)
            flush(x);
        if (pending(x) <= KIB64 || both_ended(x))
            wire_soon(x->c);
    }
    x->full = x->full || exchange_full(x);
    owe_drain(x);
}

/* Nobody will ever take more of the body. */
static bool
dropping(const struct exchange *x)
{
    return x->state >= X_DONE || (x->cut && (x->spilt || x->state != X_HEAD));
}

void
exchange_send(struct exchange *x, struct slice data)
{
    CHECK(x, EXCHANGE_MAGIC);
    if (data.n == 0 || dropping(x))
        return;
    assert(!x->ended || x->state == X_TUNNEL);
    if (x->body == HTTP_LENGTH && x->state != X_TUNNEL) {
        assert(data.n <= x->left);
        x->left -= data.n;
    }
    add_body(x, data);
    out_changed(x);
}

void
exchange_send_end(struct exchange *x, struct slice trailer)
{
    CHECK(x, EXCHANGE_MAGIC);
    if (x->ended || dropping(x)) {
        x->ended = true;
        return;
    }
    assert(x->body != HTTP_LENGTH || x->left == 0 || x->state == X_TUNNEL);
    x->ended = true;
    if (x->body == HTTP_CHUNKED && x->state != X_TUNNEL) {
        buf_add(&x->out, "0\r\n", 3);
        buf_adds(&x->out, trailer);
        buf_add(&x->out, "\r\n", 2);
    }
    out_changed(x);
}

bool
exchange_full(const struct exchange *x)
{
    return pending(x) > KIB64 && !x->cut && x->state < X_DONE;
}

void
exchange_pause(struct exchange *x, bool on)
{
    CHECK(x, EXCHANGE_MAGIC);
    if (x->paused == on)
        return;
    x->paused = on;
    if (x->c == NULL || x->state < X_HEAD || x->state > X_TUNNEL)
        return;
    wire_read(x->c, !on && !x->half_closed);
    exchange_limit(x);
}

/* ---- getting a connection ---------------------------------------------------------------- */

static void
attach(struct exchange *x, struct wire *c)
{
    x->c = c;
    x->reused = true;
    exchange_on_ready(x);
}

static void
open_connection(struct exchange *x)
{
    x->reused = false;
    x->ready_us = 0;
    x->state = X_CONNECT;
    x->c = wire_open(x->w, x->s, x);
    if (x->c == NULL) {
        uncount(x, SERVER_UNKNOWN);
        fault_soon(x, 503, "proxy_internal_error", "out of memory");
    }
}

static void
try_server(struct exchange *x, bool fresh)
{
    struct wire *c = NULL;

    x->s = balance_choose(x->o, x->tried, &x->server, &x->probe);
    x->tries++;
    x->counted = true;
    x->ready_us = 0;
    x->state = X_NEW;
    atomic_fetch_add(&x->s->busy, 1);
    switch (pool_take(x, pool_slot(x->s, x->w), fresh, &c)) {
    case POOL_CONN:
        x->taken_us = now_us();
        attach(x, c);
        break;
    case POOL_PERMIT:
        x->taken_us = now_us();
        open_connection(x);
        break;
    case POOL_WAIT:
        COUNT(pool_waits);
        x->state = X_WAIT;
        deadline_set(&x->limit, now_us() + x->o->wait_us);
        break;
    default:
        uncount(x, SERVER_UNKNOWN);
        fault_soon(x, 503, "connection_limit_reached", "too many requests wait for the origin");
        break;
    }
}

void
exchange_on_grant(struct exchange *x, struct wire *c)
{
    if (x->cancelled || x->out.failed) {
        if (c != NULL)
            pool_give(c);
        else
            pool_permit_back(x->s);
        uncount(x, SERVER_UNKNOWN);
        if (x->cancelled)
            exchange_free(x);
        else
            fault_soon(x, 503, "proxy_internal_error", "out of memory");
        return;
    }
    deadline_clear(&x->limit);
    x->taken_us = now_us();
    if (c != NULL && (wire_rested(c, x) || (!x->idempotent && wire_stale(c)))) {
        wire_close_keep(c);             /* its permit, for a new one */
        c = NULL;
    }
    if (c == NULL) {
        open_connection(x);
        return;
    }
    c->x = x;
    attach(x, c);
}

void
exchange_lost(struct exchange *x)
{
    x->granted = false;
    uncount(x, SERVER_UNKNOWN);
    x->state = X_DONE;
    if (x->cancelled)
        exchange_free(x);
}

void
exchange_on_ready(struct exchange *x)
{
    x->ready_us = x->try_us = now_us();
    x->state = X_HEAD;
    x->received = x->mid_head = false;
    x->await = x->expect && x->out.n == 0;
    COUNT(origin_requests);
    if (x->reused)
        COUNT(origin_reused);
    stats_gauge_add(GAUGE_origin_busy, 1);
    if (x->paused)
        wire_read(x->c, false);
    if (x->body != HTTP_NO_BODY && !x->await && !x->ended && x->out.n == 0)
        wire_soon(x->c);                /* the body's first bytes may come in this round */
    else
        flush(x);
    owe_drain(x);
}

static void
on_limit(void *arg)
{
    struct exchange *x = arg;

    CHECK(x, EXCHANGE_MAGIC);
    if (x->state == X_FAULT) {
        tell_fault(x);
    } else if (x->state == X_WAIT) {
        if (!pool_leave(x))
            return;                     /* granted in this moment */
        COUNT(pool_timeouts);
        uncount(x, SERVER_UNKNOWN);
        set_fault(x, 503, "connection_limit_reached",
            "no connection to the origin became free in time");
        tell_fault(x);
    } else {
        exchange_body_go(x);
    }
}

/* ---- begin and end ----------------------------------------------------------------------- */

static char *
put(char *p, struct slice s)
{
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

static void
write_head(struct exchange *x, const struct origin *o, const struct exchange_request *r)
{
    char *p = x->head;
    struct slice host = slice_of(o->host);

    if (host.n == 0)
        host = r->host;
    if (host.n == 0)                    /* what stands behind "://" */
        host = slice_of(strstr(o->servers[0]->text, "//") + 2);
    p = put(p, r->method_name);
    p = put(p, SLICE(" "));
    p = put(p, r->target);
    p = put(p, SLICE(" HTTP/1.1\r\nHost: "));
    p = put(p, host);
    p = put(p, SLICE("\r\n"));
    p = put(p, r->fields);
    if (r->upgrade.n > 0) {
        p = put(p, SLICE("Connection: upgrade\r\nUpgrade: "));
        x->upgrade = (struct slice){ p, r->upgrade.n };
        p = put(p, r->upgrade);
        p = put(p, SLICE("\r\n"));
    }
    if (r->body == HTTP_LENGTH) {
        p = put(p, SLICE("Content-Length: "));
        p += put_u64(p, r->length);
        p = put(p, SLICE("\r\n"));
    } else if (r->body == HTTP_CHUNKED) {
        p = put(p, SLICE("Transfer-Encoding: chunked\r\n"));
    }
    if (r->expect)
        p = put(p, SLICE("Expect: 100-continue\r\n"));
    p = put(p, SLICE("\r\n"));
    x->head_n = (size_t)(p - x->head);
}

static struct worker *
worker_of(struct upstream *u, struct loop *l)
{
    unsigned i = loop_index(l);

    if (i < u->n && u->workers[i]->loop == l)
        return u->workers[i];
    for (size_t k = 0; k < u->n; k++)
        if (u->workers[k]->loop == l)
            return u->workers[k];
    assert(!"a loop that upstream_new was not told of");
    return NULL;
}

struct exchange *
exchange_start(struct origin *o, struct loop *l, const struct exchange_request *r,
    const struct exchange_events *ev, void *arg)
{
    size_t room = 256 + r->method_name.n + r->target.n + r->host.n + r->fields.n + r->upgrade.n +
        (o->host != NULL ? strlen(o->host) : 0) + strlen(o->servers[0]->text);
    struct exchange *x = malloc(sizeof *x + room);

    if (x == NULL)
        return NULL;
    memset(x, 0, sizeof *x);
    x->magic = EXCHANGE_MAGIC;
    x->o = origin_ref(o);
    x->w = worker_of(o->u, l);
    x->ev = ev;
    x->arg = arg;
    x->method = r->method;
    x->body = r->body;
    x->left = r->body == HTTP_LENGTH ? r->length : 0;
    x->ended = r->body == HTTP_NO_BODY || (r->body == HTTP_LENGTH && r->length == 0);
    x->expect = r->expect && !x->ended;
    x->idempotent = http_method_idempotent(r->method);
    x->once = r->once;
    x->first_byte_us = r->first_byte_ms != CONF_UNSET ? r->first_byte_ms * 1000 : o->first_byte_us;
    x->between_us = r->between_bytes_ms != CONF_UNSET ? r->between_bytes_ms * 1000 : o->between_us;
    write_head(x, o, r);
    x->start_us = now_us();
    deadline_init(&x->limit, x->w->base, on_limit, x);
    budget_request(&o->budget, x->start_us);
    try_server(x, false);
    return x;
}

void
exchange_cancel(struct exchange **xp)
{
    struct exchange *x = *xp;
    struct wire *c;

    *xp = NULL;
    if (x == NULL)
        return;
    CHECK(x, EXCHANGE_MAGIC);
    assert(!x->cancelled);
    x->cancelled = true;
    deadline_clear(&x->limit);
    if (x->state == X_WAIT && !pool_leave(x))
        return;                         /* exchange_on_grant will free it */
    c = detach(x);
    if (c != NULL)
        wire_close(c);
    uncount(x, SERVER_UNKNOWN);
    x->state = X_DONE;
    if (x->hold == 0)
        exchange_free(x);
}

const char *
exchange_server(const struct exchange *x)
{
    CHECK(x, EXCHANGE_MAGIC);
    return x->s->text;
}

void
exchange_times(const struct exchange *x, struct exchange_times *t)
{
    t->wait_us = x->taken_us != 0 ? x->taken_us - x->start_us : -1;
    t->connect_us = x->ready_us != 0 ? x->ready_us - x->start_us : -1;
    t->first_byte_us = x->head_us != 0 ? x->head_us - x->start_us : -1;
    t->reused = x->reused;
    t->reached = x->reached;
    t->tries = x->tries;
}
