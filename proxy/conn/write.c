/*
 * Writing to a client: straight to the socket as far as it takes it, the rest from a queue.
 *
 * Model    conn_write copies what is left over, conn_write_some leaves it to the caller, who hears
 *          on_writable. A write that fails is told from the loop (broken), never from inside the
 *          writer's own call.
 */
#include "conn/priv.h"

#include <event2/event.h>

static size_t
total(const struct iovec *iov, size_t n)
{
    size_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += iov[i].iov_len;
    return sum;
}

size_t
conn_queued(const struct conn *c)
{
    return c->out.n - c->out_at;
}

/* A write failed: the reader of the news is told from the loop, not from inside its own call. */
static bool
broken(struct conn *c)
{
    c->broken = true;
    shutdown(c->fd, SHUT_RDWR);         /* so that on_readable comes */
    c->out.n = c->out_at = 0;
    c->want_writable = false;
    conn_set_writing(c, false);
    conn_set_reading(c, true);
    return false;
}

/* In a tunnel what is written counts as what is read does. */
static void
moved(struct conn *c, ssize_t put)
{
    if (put <= 0 || c->state != CONN_TUNNEL)
        return;
    conn_progress(c);
    conn_rearm(c, now_us());
}

bool
conn_write(struct conn *c, const struct iovec *iov, size_t n)
{
    ssize_t put = 0;

    CHECK(c, CONN_MAGIC);
    if (conn_queued(c) == 0) {
        put = io_write(c, iov, n);
        if (put == -1)
            return broken(c);
        moved(c, put);
        if ((size_t)put == total(iov, n))
            return true;
        c->out.n = c->out_at = 0;
    }
    for (size_t i = 0; i < n; i++) {
        size_t skip = (size_t)put < iov[i].iov_len ? (size_t)put : iov[i].iov_len;

        buf_add(&c->out, (char *)iov[i].iov_base + skip, iov[i].iov_len - skip);
        put -= (ssize_t)skip;
    }
    if (c->out.failed)
        return broken(c);
    conn_set_writing(c, true);
    conn_rearm(c, now_us());
    return true;
}

ssize_t
conn_write_some(struct conn *c, const struct iovec *iov, size_t n)
{
    ssize_t put = 0;

    CHECK(c, CONN_MAGIC);
    if (conn_queued(c) == 0)
        put = io_write(c, iov, n);
    if (put == -1) {
        broken(c);
        return -1;
    }
    moved(c, put);
    if ((size_t)put < total(iov, n))
        conn_want_write(c);
    return put;
}

void
conn_want_write(struct conn *c)
{
    c->want_writable = true;
    conn_set_writing(c, true);
    conn_rearm(c, now_us());
}

static void
finish(struct conn *c)
{
    if (!c->finishing || c->finished || conn_queued(c) > 0)
        return;
    c->finished = true;
    shutdown(c->fd, SHUT_WR);
}

void
conn_finish(struct conn *c)
{
    c->finishing = true;
    finish(c);
}

static void
flush(struct conn *c)
{
    struct iovec iov = { c->out.p + c->out_at, conn_queued(c) };
    ssize_t put = iov.iov_len > 0 ? io_write(c, &iov, 1) : 0;

    if (put == -1) {
        conn_gone(c);
        return;
    }
    c->out_at += (size_t)put;
    if (put > 0 || conn_queued(c) == 0)
        conn_progress(c);
    if (conn_queued(c) > 0) {
        conn_rearm(c, now_us());
        return;
    }
    c->out.n = c->out_at = 0;
    if (c->out.cap > 16384)
        buf_free(&c->out);
    finish(c);
    if (c->state == CONN_FLUSH) {
        conn_goodbye(c);
    } else if (c->want_writable) {
        c->want_writable = false;
        c->worker->ev->on_writable(c);
    }
    if (!c->dead && !c->want_writable && conn_queued(c) == 0) {
        conn_set_writing(c, false);
        conn_rearm(c, now_us());
    }
}

void
conn_on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;

    (void)fd;
    (void)what;
    CHECK(c, CONN_MAGIC);
    c->depth++;
    flush(c);
    if (!c->dead && c->state == CONN_HEAD && (conn_rest(c) > 0 || c->half_closed))
        conn_consume(c);                /* the last byte left, and more was asked already */
    c->depth--;
    conn_release(c);
}
