/*
 * Listening and accepting.
 *
 * An address is what it says: [::] is IPv6 alone, whatever the system's default, so that 0.0.0.0
 * can stand beside it. A second server on our port is found by binding once without SO_REUSEPORT.
 * A socket that the service manager opened for an address is taken as it is, and shared by the
 * workers: only who opened it could open more beside it.
 * At the connection limit a client is told 503 and when to come back. When file descriptors run
 * out, one that is kept in spare is given up to accept, to say the same and to close, so that
 * clients are not left hanging, and the listener rests a little.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "front/priv.h"
#include "stats/stats.h"

#define ACCEPTS_AT_ONCE 64              /* then other connections get their turn */
#define REST_US         100000
#define OVER_LIMIT      1024            /* connections beyond the limit that are told so */

static int
new_socket(const struct conf_address *a, bool shared)
{
    int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

    if (fd == -1)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a->sa.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (shared)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    return fd;
}

static const char *
remedy(int code)
{
    switch (code) {
    case EADDRINUSE:
        return "; another process has it: stop that one, or choose another port";
    case EACCES:
        return "; ports below 1024 need CAP_NET_BIND_SERVICE";
    case EADDRNOTAVAIL:
        return "; this machine has no such address";
    case EAFNOSUPPORT:
        return "; this machine has no IPv6: leave the address out";
    default:
        return "";
    }
}

/* Can it be ours alone? Finds a port in use, which SO_REUSEPORT would hide. */
static int
try_alone(const struct conf_address *a, struct err *e)
{
    int fd = new_socket(a, false), rc;

    rc = fd == -1 ? -1 : bind(fd, (const struct sockaddr *)&a->sa, a->len);
    if (rc == 0)
        rc = listen(fd, 1);
    if (rc == -1)
        err_set(e, errno, "listen on %s: %s%s", a->text, strerror(errno), remedy(errno));
    if (fd != -1)
        close(fd);
    return rc;
}

/* given: the manager's socket, or -1. */
static int
open_one(struct front *f, size_t worker, size_t index, int given, struct err *e)
{
    const struct conf_address *a = &f->conf->listeners[index].address;
    struct listener *l = &f->workers[worker].listeners[index];
    int fd = given == -1 ? new_socket(a, true) :
        worker == 0 ? given : fcntl(given, F_DUPFD_CLOEXEC, 0);

    if (worker == 0) {
        memcpy(&f->bound[index], &a->sa, sizeof a->sa);
        f->bound_n[index] = a->len;
    }
    if (fd == -1 || (given == -1 &&
        (bind(fd, (struct sockaddr *)&f->bound[index], f->bound_n[index]) == -1 ||
        listen(fd, 4096) == -1)) ||
        getsockname(fd, (struct sockaddr *)&f->bound[index], &f->bound_n[index]) == -1) {
        err_set(e, errno, "listen on %s: %s%s", a->text, strerror(errno), remedy(errno));
        if (fd != -1)
            close(fd);
        return -1;
    }
    l->worker = &f->workers[worker];
    l->index = (unsigned)index;
    l->fd = fd;
    return 0;
}

int
listen_open(struct front *f, struct err *e)
{
    for (size_t i = 0; i < f->nlisteners; i++) {
        const struct conf_address *a = &f->conf->listeners[i].address;
        int given = a->off ? -1 : service_socket((const struct sockaddr *)&a->sa);

        if (a->off)
            continue;
        if (given == -1 && try_alone(a, e) == -1)
            return -1;
        for (size_t w = 0; w < f->nworkers; w++)
            if (open_one(f, w, i, given, e) == -1)
                return -1;
    }
    return 0;
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void
on_rested(void *arg)
{
    struct listener *l = arg;

    if (l->fd != -1)
        event_add(l->ev, NULL);
}

/* No file descriptor left: whoever waits is told 503 with the spare one's help, and we rest. */
static void
exhausted(struct listener *l)
{
    static struct log_limit limit;
    int fd;

    COUNT(accept_errors);
    log_limited(&limit, LOG_ERROR,
        "accept: %s; raise the limit of open files (ulimit -n, LimitNOFILE) "
        "or lower limits.connections",
        strerror(errno));
    if (l->worker->spare != -1)
        close(l->worker->spare);
    fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd != -1)
        conn_turn_away(l->worker->conns, fd);
    l->worker->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    event_del(l->ev);
    timer_set(&l->rest, REST_US);
}

static void
welcome(struct listener *l, int fd, const struct sockaddr *sa, socklen_t len, struct conf *c)
{
    atomic_uint *count = &l->worker->front->counts[l->index];
    unsigned now = atomic_fetch_add(count, 1) + 1;
    uint64_t max = c->listeners[l->index].limit_connections;
    int one = 1, idle_s = 60;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* tunnels have no other time-out */
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    if (now <= max) {
        conn_new(l->worker->conns, fd, sa, len, c, l->index, count);
        return;
    }
    COUNT(connections_refused);
    if (now <= max + OVER_LIMIT) {
        conn_reject(l->worker->conns, fd, sa, len, c, l->index, count);
        return;
    }
    close(fd);
    atomic_fetch_sub(count, 1);
}

static void
on_acceptable(evutil_socket_t fd, short what, void *arg)
{
    struct listener *l = arg;
    struct front *f = l->worker->front;
    struct sockaddr_storage sa;
    struct conf *c;
    socklen_t len;
    int client;

    (void)what;
    pthread_mutex_lock(&f->mtx);
    c = conf_ref(f->conf);
    pthread_mutex_unlock(&f->mtx);
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        len = sizeof sa;
        client = accept4(fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client != -1) {
            welcome(l, client, (struct sockaddr *)&sa, len, c);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            exhausted(l);
        else if (errno == EINTR || errno == ECONNABORTED)
            continue;
        break;
    }
    conf_unref(&c);
}

int
listen_start(struct worker *w)
{
    w->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; i < w->front->nlisteners; i++) {
        struct listener *l = &w->listeners[i];

        if (l->fd == -1)
            continue;
        l->ev = event_new(loop_base(w->loop), l->fd, EV_READ | EV_PERSIST, on_acceptable, l);
        if (l->ev == NULL || timer_init(&l->rest, w->loop, on_rested, l) == -1 ||
            event_add(l->ev, NULL) == -1)
            return -1;
    }
    return 0;
}

void
listen_close(struct worker *w)
{
    for (size_t i = 0; i < w->front->nlisteners; i++) {
        struct listener *l = &w->listeners[i];

        if (l->ev != NULL)
            event_free(l->ev);
        l->ev = NULL;
        timer_fini(&l->rest);
        if (l->fd != -1)
            close(l->fd);
        l->fd = -1;
    }
    if (w->spare != -1)
        close(w->spare);
    w->spare = -1;
}
