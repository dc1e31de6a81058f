/*
 * One connection to a server: made address by address, read into the worker's buffer, written
 * straight to the socket.
 *
 * Model    RESOLVING -> CONNECTING -> (HANDSHAKE ->) BUSY or IDLE, and CLOSED from anywhere. The
 *          read event stays armed for as long as the connection is open, so a request costs one
 *          send and one recv; the write event is there only while the socket is full. What is read
 *          is given to the exchange where it lies; only what was not taken is kept (`rest`).
 *          Within the connect time-out each address gets its share of what is left.
 * Lifetime a connection closed inside a callback of its own is freed when that returns (`hold`).
 * Not here what the bytes mean (response.c), who gets it next (pool.c).
 */
#include "upstream/internal.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define ONCE_IDLE_US 100000             /* with a round trip less than the shortest time-out, 1 s */

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void on_soon(evutil_socket_t fd, short what, void *arg);
static void next_address(struct wire *c);

/* ---- coming and going -------------------------------------------------------------------- */

static void
link_to_worker(struct wire *c)
{
    c->prev = NULL;
    c->next = c->w->conns;
    if (c->next != NULL)
        c->next->prev = c;
    c->w->conns = c;
    pool_slot(c->s, c->w)->open++;
}

static void
unlink_from_worker(struct wire *c)
{
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        c->w->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    pool_slot(c->s, c->w)->open--;
}

static void
assign_events(struct wire *c, int fd)
{
    event_assign(&c->rd, c->w->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    event_assign(&c->wr, c->w->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
    c->reading = c->writing = false;
}

static void
soon(struct wire *c, bool read, bool write)
{
    c->soon_read = c->soon_read || read;
    c->soon_write = c->soon_write || write;
    event_active(&c->soon, EV_TIMEOUT, 0);
}

void
wire_enter(struct wire *c)
{
    CHECK(c, WIRE_MAGIC);
    c->hold++;
}

static void
wire_free(struct wire *c)
{
    assert(c->state == WIRE_CLOSED);
    buf_free(&c->rest);
    server_unref(&c->s);
    c->magic = 0;
    free(c);
}

void
wire_leave(struct wire *c)
{
    CHECK(c, WIRE_MAGIC);
    if (--c->hold > 0)
        return;
    if (c->state == WIRE_CLOSED) {
        wire_free(c);
    } else if (c->give) {
        c->give = false;
        pool_offer(c);
    }
}

static void
events_off(struct wire *c)
{
    event_del(&c->rd);
    event_del(&c->wr);
    c->reading = c->writing = false;
}

void
wire_close_keep(struct wire *c)
{
    CHECK(c, WIRE_MAGIC);
    if (c->state == WIRE_IDLE)
        pool_idle_remove(c);
    if (c->state == WIRE_RESOLVING && !c->failed && !dns_cancel(c->s->u->dns, &c->dns))
        c->hold++;                      /* until its answer came */
    c->state = WIRE_CLOSED;
    c->give = false;
    c->x = NULL;
    events_off(c);
    event_del(&c->soon);
    if (c->tls != NULL)
        tls_stop(c);
    else if (c->fd != -1)
        close(c->fd);
    c->fd = -1;
    deadline_fini(&c->limit);
    unlink_from_worker(c);
    stats_gauge_add(GAUGE_origin_connections, -1);
    if (c->hold == 0)
        wire_free(c);
}

void
wire_close(struct wire *c)
{
    struct server *s;

    if (c->state == WIRE_CLOSED)
        return;
    s = server_ref(c->s);
    wire_close_keep(c);
    pool_permit_back(s);
    server_unref(&s);
}

void
wire_abandon(struct wire *c)
{
    if (c->x != NULL)
        c->x->c = NULL;
    c->hold = 0;                        /* a name that was asked for comes no more */
    wire_close(c);
}

/* Tells the exchange, or nobody, that there will be no connection or no more of it. */
void
wire_trouble(struct wire *c, enum wire_trouble t)
{
    struct exchange *x = c->x;

    if (c->state == WIRE_CLOSED)
        return;
    if (x != NULL && c->state == WIRE_BUSY && t == WIRE_EOF) {
        exchange_on_eof(x);
        return;
    }
    wire_close(c);
    if (x != NULL) {
        x->c = NULL;
        exchange_on_trouble(x, t);
    }
}

/* ---- connecting -------------------------------------------------------------------------- */

static socklen_t
socket_address(const struct addr *a, uint16_t port, struct sockaddr_storage *ss)
{
    struct sockaddr_in *in = (void *)ss;
    struct sockaddr_in6 *in6 = (void *)ss;

    memset(ss, 0, sizeof *ss);
    ss->ss_family = a->family;
    if (a->family == AF_INET) {
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, a->bytes, sizeof in->sin_addr);
        return sizeof *in;
    }
    in6->sin6_port = htons(port);
    memcpy(&in6->sin6_addr, a->bytes, sizeof in6->sin6_addr);
    return sizeof *in6;
}

/* Told later: never from inside wire_open. */
static void
fail_soon(struct wire *c, enum wire_trouble t)
{
    c->state = WIRE_CONNECTING;
    c->failed = true;
    c->why = t;
    soon(c, false, true);
}

static enum wire_trouble
trouble_of(int error)
{
    switch (error) {
    case ECONNREFUSED:
        return WIRE_REFUSED;
    case ETIMEDOUT:
        return WIRE_TIMEOUT;
    case ECONNRESET:
    case EPIPE:
        return WIRE_RESET;
    case ENOMEM:
    case ENFILE:
    case EMFILE:
    case ENOBUFS:
        return WIRE_NO_MEMORY;
    default:
        return WIRE_UNREACHABLE;
    }
}

/* Of several addresses' troubles the time-out is told: it took the time. */
static void
note(struct wire *c, enum wire_trouble t)
{
    if (c->why != WIRE_TIMEOUT)
        c->why = t;
}

static int
connect_to(struct wire *c, const struct addr *a)
{
    struct sockaddr_storage ss;
    socklen_t len = socket_address(a, c->s->port, &ss);
    int on = 1, fd = socket(a->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd == -1)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    if (connect(fd, (void *)&ss, len) == -1 && errno != EINPROGRESS) {
        on = errno;
        close(fd);
        errno = on;
        return -1;
    }
    c->fd = fd;
    assign_events(c, fd);
    if (event_add(&c->wr, NULL) == -1) {
        close(fd);
        c->fd = -1;
        errno = ENOMEM;
        return -1;
    }
    c->writing = true;
    return 0;
}

static void
next_address(struct wire *c)
{
    while (c->try < c->tries) {
        const struct addrs *all = &c->dns.addrs;
        size_t left = c->tries - c->try++;
        int64_t now = now_us(), until = c->connect_until_us;

        if (now >= until) {
            c->why = WIRE_TIMEOUT;
            break;
        }
        c->addr = all->at[(atomic_load(&c->s->good) + c->try - 1) % all->n];
        if (connect_to(c, &c->addr) == 0) {
            wire_limit(c, now + (until - now) / (int64_t)left);
            return;
        }
        note(c, trouble_of(errno));
    }
    fail_soon(c, c->why);
}

static void
resolved(struct wire *c)
{
    c->state = WIRE_CONNECTING;
    c->try = 0;
    c->tries = c->dns.addrs.n;
    next_address(c);
}

static void
on_name(struct dns_wait *w)
{
    struct wire *c = CONTAINER(w, struct wire, dns);

    CHECK(c, WIRE_MAGIC);
    if (c->state == WIRE_CLOSED) {      /* close_keep left us a hold */
        wire_leave(c);
        return;
    }
    if (w->addrs.n == 0)
        fail_soon(c, WIRE_NO_NAME);
    else
        resolved(c);
}

static void
on_connected(struct wire *c)
{
    int error = 0;
    socklen_t len = sizeof error;

    if (c->failed) {
        wire_trouble(c, c->why);
        return;
    }
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1)
        error = errno;
    events_off(c);
    if (error != 0) {
        close(c->fd);
        c->fd = -1;
        note(c, trouble_of(error));
        next_address(c);
        return;
    }
    if (c->try > 1)                     /* later ones begin with what worked */
        atomic_store(&c->s->good,
            (atomic_load(&c->s->good) + (unsigned)c->try - 1) % (unsigned)c->dns.addrs.n);
    if (!c->s->https) {
        wire_up(c);
        return;
    }
    c->state = WIRE_HANDSHAKE;
    wire_limit(c, c->connect_until_us);
    assign_events(c, -1);               /* the bytes are the bufferevent's */
    if (tls_start(c) == -1)
        wire_trouble(c, WIRE_NO_MEMORY);
}

/* Connected, and the handshake is done. */
void
wire_up(struct wire *c)
{
    stats_origin(c->s->stats, ORIGIN_CONNECT, (uint64_t)(now_us() - c->opened_us));
    wire_read(c, true);
    c->state = WIRE_BUSY;
    c->uses++;
    if (c->x == NULL) {
        pool_give(c);
        return;
    }
    deadline_clear(&c->limit);
    exchange_on_ready(c->x);
}

static void
name_is_late(struct wire *c)
{
    if (c->old.n == 0 || now_us() >= c->connect_until_us)
        wire_trouble(c, WIRE_NAME_TIMEOUT);
    else if (dns_cancel(c->s->u->dns, &c->dns)) {
        c->dns.addrs = c->old;
        resolved(c);
    } else
        wire_limit(c, c->connect_until_us);     /* on its way */
}

static void
on_limit(void *arg)
{
    struct wire *c = arg;

    wire_enter(c);
    switch (c->state) {
    case WIRE_RESOLVING:
        name_is_late(c);
        break;
    case WIRE_CONNECTING:
        events_off(c);
        if (c->fd != -1)
            close(c->fd);
        c->fd = -1;
        c->why = WIRE_TIMEOUT;
        next_address(c);
        break;
    case WIRE_HANDSHAKE:
        wire_trouble(c, WIRE_TIMEOUT);
        break;
    case WIRE_IDLE:
        wire_idle_over(c);
        break;
    case WIRE_BUSY:
        exchange_on_limit(c->x);
        break;
    case WIRE_CLOSED:
        break;
    }
    wire_leave(c);
}

struct wire *
wire_open(struct worker *w, struct server *s, struct exchange *x)
{
    struct wire *c = calloc(1, sizeof *c);

    if (c == NULL) {
        pool_permit_back(s);
        return NULL;
    }
    c->magic = WIRE_MAGIC;
    c->w = w;
    c->s = server_ref(s);
    c->x = x;
    c->fd = -1;
    c->opened_us = now_us();
    c->connect_until_us = c->opened_us + atomic_load(&s->connect_us);
    c->dns.loop = w->loop;
    c->dns.run = on_name;
    c->moves = atomic_load(&s->moves);  /* before the name is looked up */
    deadline_init(&c->limit, w->base, on_limit, c);
    assign_events(c, -1);
    event_assign(&c->soon, w->base, -1, 0, on_soon, c);
    link_to_worker(c);
    COUNT(origin_connects);
    stats_gauge_add(GAUGE_origin_connections, 1);
    switch (dns_lookup(s->u->dns, s->host, &c->dns, &c->old)) {
    case DNS_FOUND:
        resolved(c);
        break;
    case DNS_LATER:
        wire_limit(c, c->opened_us + atomic_load(&s->connect_us) / (c->old.n == 0 ? 1 : 4));
        break;
    case DNS_FAILED:
        fail_soon(c, WIRE_NO_NAME);
        break;
    }
    return c;
}

/* ---- bytes ------------------------------------------------------------------------------- */

size_t
wire_load(struct wire *c)
{
    size_t n = c->rest.n;

    if (n > 0)
        memcpy(c->w->bytes, c->rest.p, n);
    return n;
}

/* The worker's buffer holds `rest` and n more bytes. What the exchange leaves is the new rest. */
void
wire_bytes(struct wire *c, size_t n)
{
    struct slice in = { c->w->bytes, c->rest.n + n };
    unsigned uses = c->uses;
    size_t taken;

    COUNT_N(origin_bytes_in, n);
    if (c->state != WIRE_BUSY) {        /* nobody asked for anything */
        wire_trouble(c, WIRE_RESET);
        return;
    }
    taken = exchange_on_bytes(c->x, in);
    if (c->state != WIRE_BUSY || c->uses != uses)
        return;
    c->rest.n = 0;
    if (taken == in.n) {
        buf_free(&c->rest);
        return;
    }
    if (c->rest.p != NULL && in.n - taken <= c->rest.cap)
        buf_add(&c->rest, in.p + taken, in.n - taken);
    else {
        struct buf fresh = { 0 };

        buf_add(&fresh, in.p + taken, in.n - taken);
        buf_free(&c->rest);
        c->rest = fresh;
    }
    if (c->rest.failed)
        wire_trouble(c, WIRE_NO_MEMORY);
}

static void
read_plain(struct wire *c)
{
    size_t have = wire_load(c);
    ssize_t n = 0;

    if (have < sizeof c->w->bytes)
        n = recv(c->fd, c->w->bytes + have, sizeof c->w->bytes - have > READ_MAX ? READ_MAX
            : sizeof c->w->bytes - have, 0);
    else
        n = -1, errno = EAGAIN;
    if (n > 0)
        wire_bytes(c, (size_t)n);
    else if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
        if (c->state == WIRE_BUSY)      /* what was put aside, now that reading goes on */
            wire_bytes(c, 0);
    } else {
        bool end = n == 0;

        if (have > 0 && c->state == WIRE_BUSY) {        /* what was put aside comes first */
            unsigned uses = c->uses;

            wire_bytes(c, 0);
            if (c->state != WIRE_BUSY || c->uses != uses || !c->reading)
                return;
        }
        wire_trouble(c, end ? WIRE_EOF : WIRE_RESET);
    }
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct wire *c = arg;

    (void)fd;
    (void)what;
    wire_enter(c);
    if (c->state == WIRE_CLOSED || !c->reading)
        ;                               /* closed or paused since it was activated */
    else if (c->tls != NULL)
        tls_pump(c);
    else
        read_plain(c);
    wire_leave(c);
}

void
wire_writable(struct wire *c)
{
    if (c->state == WIRE_CONNECTING)
        on_connected(c);
    else if (c->state == WIRE_BUSY && c->x != NULL)
        exchange_on_writable(c->x);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct wire *c = arg;

    (void)fd;
    (void)what;
    wire_enter(c);
    wire_writable(c);
    wire_leave(c);
}

static void
on_soon(evutil_socket_t fd, short what, void *arg)
{
    struct wire *c = arg;
    bool read = c->soon_read, write = c->soon_write;

    c->soon_read = c->soon_write = false;
    wire_enter(c);
    if (write)
        wire_writable(c);
    if (read)
        on_readable(fd, what, c);
    wire_leave(c);
}

ssize_t
wire_write(struct wire *c, const struct iovec *iov, int n)
{
    struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n };
    size_t total = 0;
    ssize_t sent;

    if (c->tls != NULL)
        return tls_write(c, iov, n);
    for (int i = 0; i < n; i++)
        total += iov[i].iov_len;
    sent = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    if (sent == -1 && errno != EAGAIN && errno != EINTR)
        return -1;
    sent = sent == -1 ? 0 : sent;
    COUNT_N(origin_bytes_out, sent);
    if ((size_t)sent < total && !c->writing)
        c->writing = event_add(&c->wr, NULL) == 0;
    else if ((size_t)sent == total && c->writing) {
        event_del(&c->wr);
        c->writing = false;
    }
    return sent;
}

void
wire_finish(struct wire *c)
{
    if (c->tls != NULL)
        tls_finish(c);
    else
        shutdown(c->fd, SHUT_WR);
}

void
wire_soon(struct wire *c)
{
    soon(c, false, true);
}

void
wire_read(struct wire *c, bool on)
{
    if (c->reading == on)
        return;
    if (c->tls != NULL) {
        (on ? bufferevent_enable : bufferevent_disable)(c->tls, EV_READ);
        c->reading = on;
        if (on)
            soon(c, true, false);
        return;
    }
    if (on)
        c->reading = event_add(&c->rd, NULL) == 0;
    else {
        event_del(&c->rd);
        c->reading = false;
    }
    if (c->reading && c->state == WIRE_BUSY)
        soon(c, true, false);
}

void
wire_limit(struct wire *c, int64_t at_us)
{
    if (at_us == INT64_MAX)
        deadline_clear(&c->limit);
    else
        deadline_set(&c->limit, at_us);
}

/* ---- between two exchanges --------------------------------------------------------------- */

void
wire_idle(struct wire *c)
{
    c->state = WIRE_IDLE;
    c->x = NULL;
    c->uses++;
    buf_free(&c->rest);
    c->idle_us = now_us();
    wire_limit(c, c->idle_us + atomic_load(&c->s->idle_us));
}

void
wire_use(struct wire *c, struct exchange *x)
{
    assert(c->state != WIRE_CLOSED);
    c->state = WIRE_BUSY;
    c->x = x;
    c->uses++;
}

bool
wire_moved(struct wire *c)
{
    unsigned moves = atomic_load(&c->s->moves);

    if (c->moves == moves || c->s->u->dns == NULL)
        return false;
    if (!dns_has(c->s->u->dns, c->s->host, &c->addr))
        return true;
    c->moves = moves;
    return false;
}

/* An idle connection that the peer closed is seen by its read event, but perhaps not yet. */
bool
wire_stale(struct wire *c)
{
    char byte;

    return c->tls == NULL && (recv(c->fd, &byte, 1, MSG_PEEK) >= 0 || errno != EAGAIN);
}

/* What is not idempotent is not sent again when the close of an idle connection crosses it on its
 * way (RFC 9112 9.3.1), and its fate is then unknown. Peers close what has been idle for seconds,
 * so one that was in use a moment ago is none of those. */
bool
wire_rested(const struct wire *c, const struct exchange *x)
{
    return x->once && now_us() - c->idle_us > ONCE_IDLE_US;
}

void
wire_depart(struct wire *c)
{
    assert(c->tls == NULL && c->hold == 0);
    events_off(c);
    event_del(&c->soon);
    c->soon_read = c->soon_write = false;
    deadline_fini(&c->limit);
    unlink_from_worker(c);
    c->w = NULL;
}

void
wire_arrive(struct wire *c, struct worker *w)
{
    c->w = w;
    c->dns.loop = w->loop;
    deadline_init(&c->limit, w->base, on_limit, c);
    assign_events(c, c->fd);
    event_assign(&c->soon, w->base, -1, 0, on_soon, c);
    link_to_worker(c);
    c->state = WIRE_BUSY;
    c->uses++;
    wire_read(c, true);
}
