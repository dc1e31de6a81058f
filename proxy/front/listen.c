/*
 * Listening and accepting.
 *
 * An address is what it says: [::] is IPv6 alone, whatever the system's default, so that 0.0.0.0
 * can stand beside it. A second server on our port is found by binding once without SO_REUSEPORT.
 * A socket that the service manager opened for an address is taken as it is, and shared by the
 * workers: only who opened it could open more beside it. Those of a process that is taken over from
 * are all taken, however many workers there are: who waits in one would be reset by its end.
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

#define BACKLOG         4096
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

static int
bind_failed(const struct conf_address *a, struct err *e)
{
    return err_set(e, errno, "listen on %s: %s%s", a->text, strerror(errno), remedy(errno));
}

/* Takes fd, -1 with errno too. */
static int
add(struct worker *w, size_t index, int fd, bool mute, struct err *e)
{
    struct front *f = w->front;
    struct listener *more;

    if (fd == -1 ||
        getsockname(fd, (struct sockaddr *)&f->bound[index], &f->bound_n[index]) == -1) {
        bind_failed(&f->conf->listeners[index].address, e);
        goto fail;
    }
    more = realloc(w->listeners, (w->nlisteners + 1) * sizeof *more);
    if (more == NULL) {
        err_set(e, ENOMEM, "out of memory");
        goto fail;
    }
    w->listeners = more;
    w->listeners[w->nlisteners++] = (struct listener){ .worker = w, .index = (unsigned)index,
        .fd = fd, .mute = mute };
    return 0;

fail:
    if (fd != -1)
        close(fd);
    return -1;
}

/* Another one where others listen already, by SO_REUSEPORT. -1 with errno. */
static int
another(struct front *f, size_t index, bool mute)
{
    int fd = new_socket(&f->conf->listeners[index].address, true);

    if (fd == -1 || (bind(fd, (struct sockaddr *)&f->bound[index], f->bound_n[index]) == 0 &&
        (mute || listen(fd, BACKLOG) == 0)))
        return fd;
    close(fd);
    return -1;
}

static bool
is_shared(int fd)
{
    int on = 0;
    socklen_t n = sizeof on;

    return getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, &n) == 0 && on != 0;
}

/* A worker takes every n-th of what was given; those that get none have another where its opener
 * lets us, or share one. Until it listens nothing is queued on it: that could be lost again. */
static int
open_given(struct front *f, size_t index, int fd, struct err *e)
{
    const struct sockaddr *sa = (const struct sockaddr *)&f->conf->listeners[index].address.sa;
    bool shared = is_shared(fd);
    int first = fd;
    size_t n = 0;

    for (; fd != -1; fd = service_socket(sa))
        if (add(&f->workers[n++ % f->nworkers], index, fd, false, e) == -1)
            return -1;
    for (; n < f->nworkers; n++)
        if (add(&f->workers[n], index, shared ? another(f, index, true) :
            fcntl(first, F_DUPFD_CLOEXEC, 0), shared, e) == -1)
            return -1;
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
        memcpy(&f->bound[i], &a->sa, sizeof a->sa);
        f->bound_n[i] = a->len;
        if (given != -1) {
            if (open_given(f, i, given, e) == -1)
                return -1;
            continue;
        }
        if (try_alone(a, e) == -1)
            return -1;
        for (size_t w = 0; w < f->nworkers; w++)
            if (add(&f->workers[w], i, another(f, i, false), false, e) == -1)
                return -1;
    }
    return 0;
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void
on_rested(void *arg)
{
    struct listener *l = arg;

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
listen_start(struct worker *w, struct err *e)
{
    w->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; i < w->nlisteners; i++) {
        struct listener *l = &w->listeners[i];

        if (l->mute && listen(l->fd, BACKLOG) == -1)
            return bind_failed(&w->front->conf->listeners[l->index].address, e);
        l->ev = event_new(loop_base(w->loop), l->fd, EV_READ | EV_PERSIST, on_acceptable, l);
        if (l->ev == NULL || timer_init(&l->rest, w->loop, on_rested, l) == -1 ||
            event_add(l->ev, NULL) == -1)
            return err_set(e, ENOMEM, "out of memory");
    }
    return 0;
}

void
listen_pause(struct worker *w, bool on)
{
    for (size_t i = 0; i < w->nlisteners; i++) {
        timer_clear(&w->listeners[i].rest);
        if (on)
            event_del(w->listeners[i].ev);
        else
            event_add(w->listeners[i].ev, NULL);
    }
}

void
listen_close(struct worker *w)
{
    for (size_t i = 0; i < w->nlisteners; i++) {
        struct listener *l = &w->listeners[i];

        if (l->ev != NULL)
            event_free(l->ev);
        timer_fini(&l->rest);
        close(l->fd);
    }
    w->nlisteners = 0;
    if (w->spare != -1)
        close(w->spare);
    w->spare = -1;
}
