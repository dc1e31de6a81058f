/*
 * The only system calls on a client's socket.
 */
#include <errno.h>

#include "conn/priv.h"
#include "stats/stats.h"

ssize_t
io_read(struct conn *c, char *p, size_t n)
{
    ssize_t got;

    do
        got = recv(c->fd, p, n, 0);
    while (got == -1 && errno == EINTR);
    if (got > 0)
        COUNT_N(client_bytes_in, got);
    if (got == -1)
        return errno == EAGAIN || errno == EWOULDBLOCK ? -2 : -1;
    return got;
}

ssize_t
io_write(struct conn *c, const struct iovec *iov, size_t n)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n };
    ssize_t put;

    do
        put = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
    while (put == -1 && errno == EINTR);
    if (put == -1)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : -1;
    COUNT_N(client_bytes_out, put);
    return put;
}
