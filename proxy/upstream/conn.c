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

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void next_address(struct conn *c);

/* ---- time limits ------------------------------------------------------------------------- */

static void
deadline_arm(struct deadline *d, int64_t now)
{
    int64_t after = d->at_us > now ? d->at_us - now : 0;
    struct timeval tv = { .tv_sec = after / SECOND_US, .tv_usec = after % SECOND_US };

    if (event_add(&d->ev, &tv) == 0)
        d->armed_us = d->at_us;
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct deadline *d = arg;
    int64_t now = now_us();

    (void)fd;
    (void)what;
    d->armed_us = INT64_MAX;
    if (d->at_us == INT64_MAX)
        return;
    if (d->at_us > now) {
        deadline_arm(d, now);
        return;
    }
    d->at_us = INT64_MAX;
    d->run(d->arg);
}

void
deadline_init(struct deadline *d, struct event_base *b, void (*run)(void *), void *arg)
{
    d->at_us = d->armed_us = INT64_MAX;
    d->run = run;
    d->arg = arg;
    event_assign(&d->ev, b, -1, 0, on_deadline, d);
}

void
deadline_set(struct deadline *d, int64_t at_us)
{
    d->at_us = at_us;
    if (at_us < d->armed_us)
        deadline_arm(d, now_us());
}

void
deadline_clear(struct deadline *d)
{
    d->at_us = INT64_MAX;
}

void
deadline_fini(struct deadline *d)
{
    event_del(&d->ev);
    d->at_us = d->armed_us = INT64_MAX;
}

/* ---- coming and going -------------------------------------------------------------------- */

static void
link_to_worker(struct conn *c)
{
    c->prev = NULL;
    c->next = c->w->conns;
    if (c->next != NULL)
        c->next->prev = c;
    c->w->conns = c;
    pool_slot(c->s, c->w)->open++;
}

static void
unlink_from_worker(struct conn *c)
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
assign_events(struct conn *c, int fd)
{
    event_assign(&c->rd, c->w->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    event_assign(&c->wr, c->w->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
    c->reading = c->writing = false;
}

void
conn_enter(struct conn *c)
{
    CHECK(c, CONN_MAGIC);
    c->hold++;
}

static void
conn_free(struct conn *c)
{
    assert(c->state == CONN_CLOSED);
    buf_free(&c->rest);
    server_unref(&c->s);
    c->magic = 0;
    free(c);
}

void
conn_leave(struct conn *c)
{
    CHECK(c, CONN_MAGIC);
    if (--c->hold > 0)
        return;
    if (c->state == CONN_CLOSED) {
        conn_free(c);
    } else if (c->give) {
        c->give = false;
        pool_offer(c);
    }
}

static void
events_off(struct conn *c)
{
    event_del(&c->rd);
    event_del(&c->wr);
    c->reading = c->writing = false;
}

void
conn_close_keep(struct conn *c)
{
    CHECK(c, CONN_MAGIC);
    if (c->state == CONN_IDLE)
        pool_idle_remove(c);
    if (c->state == CONN_RESOLVING && !c->failed && !dns_cancel(c->s->u->dns, &c->dns))
        c->hold++;                      /* until its answer came */
    c->state = CONN_CLOSED;
    c->give = false;
    c->x = NULL;
    events_off(c);
    if (c->tls != NULL)
        tls_stop(c);
    else if (c->fd != -1)
        close(c->fd);
    c->fd = -1;
    deadline_fini(&c->limit);
    unlink_from_worker(c);
    stats_gauge_add(GAUGE_origin_connections, -1);
    if (c->hold == 0)
        conn_free(c);
}

void
conn_close(struct conn *c)
{
    struct server *s;

    if (c->state == CONN_CLOSED)
        return;
    s = server_ref(c->s);
    conn_close_keep(c);
    pool_permit_back(s);
    server_unref(&s);
}

void
conn_abandon(struct conn *c)
{
    if (c->x != NULL)
        c->x->c = NULL;
    c->hold = 0;                        /* a name that was asked for comes no more */
    conn_close(c);
}

/* Tells the exchange, or nobody, that there will be no connection or no more of it. */
void
conn_trouble(struct conn *c, enum conn_trouble t)
{
    struct exchange *x = c->x;

    if (c->state == CONN_CLOSED)
        return;
    if (x != NULL && c->state == CONN_BUSY && t == CONN_EOF) {
        exchange_on_eof(x);
        return;
    }
    conn_close(c);
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

/* Told later: never from inside conn_open. */
static void
fail_soon(struct conn *c, enum conn_trouble t)
{
    c->state = CONN_CONNECTING;
    c->failed = true;
    c->why = t;
    event_active(&c->wr, EV_WRITE, 0);
}

static enum conn_trouble
trouble_of(int error)
{
    switch (error) {
    case ECONNREFUSED:
        return CONN_REFUSED;
    case ETIMEDOUT:
        return CONN_TIMEOUT;
    case ECONNRESET:
    case EPIPE:
        return CONN_RESET;
    case ENOMEM:
    case ENFILE:
    case EMFILE:
    case ENOBUFS:
        return CONN_NO_MEMORY;
    default:
        return CONN_UNREACHABLE;
    }
}

static int
connect_to(struct conn *c, const struct addr *a)
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
next_address(struct conn *c)
{
    while (c->try < c->tries) {
        const struct addrs *all = &c->dns.addrs;
        size_t left = c->tries - c->try++;
        int64_t now = now_us(), until = c->connect_until_us;

        if (now >= until) {
            c->why = CONN_TIMEOUT;
            break;
        }
        if (connect_to(c, &all->at[(atomic_load(&c->s->good) + c->try - 1) % all->n]) == 0) {
            conn_limit(c, now + (until - now) / (int64_t)left);
            return;
        }
        c->why = trouble_of(errno);
    }
    fail_soon(c, c->why);
}

static void
resolved(struct conn *c)
{
    c->state = CONN_CONNECTING;
    c->try = 0;
    c->tries = c->dns.addrs.n;
    next_address(c);
}

static void
on_name(struct dns_wait *w)
{
    struct conn *c = CONTAINER(w, struct conn, dns);

    CHECK(c, CONN_MAGIC);
    if (c->state == CONN_CLOSED) {      /* close_keep left us a hold */
        conn_leave(c);
        return;
    }
    if (w->addrs.n == 0)
        fail_soon(c, CONN_NO_NAME);
    else
        resolved(c);
}

static void
on_connected(struct conn *c)
{
    int error = 0;
    socklen_t len = sizeof error;

    if (c->failed) {
        conn_trouble(c, c->why);
        return;
    }
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1)
        error = errno;
    events_off(c);
    if (error != 0) {
        close(c->fd);
        c->fd = -1;
        c->why = trouble_of(error);
        next_address(c);
        return;
    }
    if (c->try > 1)                     /* later ones begin with what worked */
        atomic_store(&c->s->good, (atomic_load(&c->s->good) + (unsigned)c->try - 1) % c->dns.addrs.n);
    if (!c->s->https) {
        conn_up(c);
        return;
    }
    c->state = CONN_HANDSHAKE;
    conn_limit(c, c->connect_until_us);
    assign_events(c, -1);               /* only ever activated by hand: the bytes are the bufferevent's */
    if (tls_start(c) == -1)
        conn_trouble(c, CONN_NO_MEMORY);
}

/* Connected, and the handshake is done. */
void
conn_up(struct conn *c)
{
    stats_origin(c->s->stats, ORIGIN_CONNECT, (uint64_t)(now_us() - c->opened_us));
    conn_read(c, true);
    c->state = CONN_BUSY;
    c->uses++;
    if (c->x == NULL) {
        pool_give(c);
        return;
    }
    deadline_clear(&c->limit);
    exchange_on_ready(c->x);
}

static void
on_limit(void *arg)
{
    struct conn *c = arg;

    conn_enter(c);
    switch (c->state) {
    case CONN_RESOLVING:
        conn_trouble(c, CONN_NAME_TIMEOUT);
        break;
    case CONN_CONNECTING:
        events_off(c);
        if (c->fd != -1)
            close(c->fd);
        c->fd = -1;
        c->why = CONN_TIMEOUT;
        next_address(c);
        break;
    case CONN_HANDSHAKE:
        conn_trouble(c, CONN_TIMEOUT);
        break;
    case CONN_IDLE:
        conn_idle_over(c);
        break;
    case CONN_BUSY:
        exchange_on_limit(c->x);
        break;
    case CONN_CLOSED:
        break;
    }
    conn_leave(c);
}

struct conn *
conn_open(struct worker *w, struct server *s, struct exchange *x)
{
    struct conn *c = calloc(1, sizeof *c);

    if (c == NULL) {
        pool_permit_back(s);
        return NULL;
    }
    c->magic = CONN_MAGIC;
    c->w = w;
    c->s = server_ref(s);
    c->x = x;
    c->fd = -1;
    c->opened_us = now_us();
    c->connect_until_us = c->opened_us + atomic_load(&s->connect_us);
    c->dns.loop = w->loop;
    c->dns.run = on_name;
    deadline_init(&c->limit, w->base, on_limit, c);
    assign_events(c, -1);
    link_to_worker(c);
    COUNT(origin_connects);
    stats_gauge_add(GAUGE_origin_connections, 1);
    switch (dns_lookup(s->u->dns, s->host, &c->dns)) {
    case DNS_FOUND:
        resolved(c);
        break;
    case DNS_LATER:
        conn_limit(c, c->connect_until_us);
        break;
    case DNS_FAILED:
        fail_soon(c, CONN_NO_NAME);
        break;
    }
    return c;
}

/* ---- bytes ------------------------------------------------------------------------------- */

size_t
conn_load(struct conn *c)
{
    size_t n = c->rest.n;

    if (n > 0)
        memcpy(c->w->bytes, c->rest.p, n);
    return n;
}

/* The worker's buffer holds `rest` and n more bytes. What the exchange leaves is the new rest. */
void
conn_bytes(struct conn *c, size_t n)
{
    struct slice in = { c->w->bytes, c->rest.n + n };
    unsigned uses = c->uses;
    size_t taken;

    COUNT_N(origin_bytes_in, n);
    if (c->state != CONN_BUSY) {        /* nobody asked for anything */
        conn_trouble(c, CONN_RESET);
        return;
    }
    taken = exchange_on_bytes(c->x, in);
    if (c->state != CONN_BUSY || c->uses != uses)
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
        conn_trouble(c, CONN_NO_MEMORY);
}

static void
read_plain(struct conn *c)
{
    size_t have = conn_load(c);
    ssize_t n = 0;

    if (have < sizeof c->w->bytes)
        n = recv(c->fd, c->w->bytes + have, sizeof c->w->bytes - have > READ_MAX ? READ_MAX
            : sizeof c->w->bytes - have, 0);
    else
        n = -1, errno = EAGAIN;
    if (n > 0)
        conn_bytes(c, (size_t)n);
    else if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
        if (c->state == CONN_BUSY)      /* what was put aside, now that reading goes on */
            conn_bytes(c, 0);
    } else {
        bool end = n == 0;

        if (have > 0 && c->state == CONN_BUSY) {        /* what was put aside comes first */
            unsigned uses = c->uses;

            conn_bytes(c, 0);
            if (c->state != CONN_BUSY || c->uses != uses || !c->reading)
                return;
        }
        conn_trouble(c, end ? CONN_EOF : CONN_RESET);
    }
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;

    (void)fd;
    (void)what;
    conn_enter(c);
    if (c->state == CONN_CLOSED || !c->reading)
        ;                               /* closed or paused since it was activated */
    else if (c->tls != NULL)
        tls_pump(c);
    else
        read_plain(c);
    conn_leave(c);
}

void
conn_writable(struct conn *c)
{
    if (c->state == CONN_CONNECTING)
        on_connected(c);
    else if (c->state == CONN_BUSY && c->x != NULL)
        exchange_on_writable(c->x);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;

    (void)fd;
    (void)what;
    conn_enter(c);
    conn_writable(c);
    conn_leave(c);
}

ssize_t
wire_write(struct conn *c, const struct iovec *iov, int n)
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
conn_finish(struct conn *c)
{
    if (c->tls != NULL)
        tls_finish(c);
    else
        shutdown(c->fd, SHUT_WR);
}

void
conn_soon(struct conn *c)
{
    event_active(&c->wr, EV_WRITE, 0);
}

void
conn_read(struct conn *c, bool on)
{
    if (c->reading == on)
        return;
    if (c->tls != NULL) {
        (on ? bufferevent_enable : bufferevent_disable)(c->tls, EV_READ);
        c->reading = on;
        if (on)
            event_active(&c->rd, EV_READ, 0);
        return;
    }
    if (on)
        c->reading = event_add(&c->rd, NULL) == 0;
    else {
        event_del(&c->rd);
        c->reading = false;
    }
    if (c->reading && c->state == CONN_BUSY)
        event_active(&c->rd, EV_READ, 0);
}

void
conn_limit(struct conn *c, int64_t at_us)
{
    if (at_us == INT64_MAX)
        deadline_clear(&c->limit);
    else
        deadline_set(&c->limit, at_us);
}

/* ---- between two exchanges --------------------------------------------------------------- */

void
conn_idle(struct conn *c)
{
    c->state = CONN_IDLE;
    c->x = NULL;
    c->uses++;
    buf_free(&c->rest);
    conn_limit(c, now_us() + atomic_load(&c->s->idle_us));
}

void
conn_use(struct conn *c, struct exchange *x)
{
    assert(c->state != CONN_CLOSED);
    c->state = CONN_BUSY;
    c->x = x;
    c->uses++;
}

/* An idle connection that the peer closed is seen by its read event, but perhaps not yet. */
bool
conn_stale(struct conn *c)
{
    char byte;

    return c->tls == NULL && (recv(c->fd, &byte, 1, MSG_PEEK) >= 0 || errno != EAGAIN);
}

void
conn_depart(struct conn *c)
{
    assert(c->tls == NULL && c->hold == 0);
    events_off(c);
    deadline_fini(&c->limit);
    unlink_from_worker(c);
    c->w = NULL;
}

void
conn_arrive(struct conn *c, struct worker *w)
{
    c->w = w;
    c->dns.loop = w->loop;
    deadline_init(&c->limit, w->base, on_limit, c);
    assign_events(c, c->fd);
    link_to_worker(c);
    c->state = CONN_BUSY;
    c->uses++;
    conn_read(c, true);
}
