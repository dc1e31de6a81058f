/*
 * The service manager: telling it how we are, and taking the sockets that it opened for us.
 *
 * Model    systemd's two protocols as sd_notify(3) and sd_listen_fds(3) state them, which are
 *          stable and meant to be written anew: a datagram of NAME=VALUE lines to the socket that
 *          NOTIFY_SOCKET names, and file descriptors from 3 on that LISTEN_FDS counts. libsystemd
 *          would bring four further libraries into a process that faces the network.
 *          The watchdog is told that we are well when every loop has answered since the last time:
 *          one that hangs is then found and not only a process that is gone.
 *          A process that takes over from one that runs has its sockets instead (service_inherit).
 * Threads  the main thread alone, but for the watchdog's messages, which run on their loops.
 * Not here what is told when (main.c), and which addresses are wanted (front/, admin/).
 */
#include "base/base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD 3                      /* SD_LISTEN_FDS_START */
#define FDS_MAX  4096

static bool muted;                      /* another process speaks for the service now */

/* ---- telling --------------------------------------------------------------------------------- */

void
service_notify(const char *fmt, ...)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    size_t n = path != NULL ? strlen(path) : 0;
    socklen_t size;
    va_list ap;
    char line[512];
    int fd;

    if (muted || n < 2 || n >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(to.sun_path, path, n);
    if (path[0] == '@')                 /* the abstract namespace */
        to.sun_path[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    if (fd == -1 || sendto(fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT,
        (const struct sockaddr *)&to, size) == -1)
        log_warn("service manager: %s: %s", path, strerror(errno));
    if (fd != -1)
        close(fd);
}

void
service_mute(void)
{
    muted = true;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static bool taken[FDS_MAX];
static int inherited[FDS_MAX], ninherited = -1;        /* -1: not from a process that runs */

/* How many there are for this process; not for a parent that left its environment to us. */
static int
sockets(void)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    uint64_t p, n;

    if (ninherited != -1)
        return ninherited;
    if (pid == NULL || fds == NULL || !slice_u64(slice_of(pid), &p) || p != (uint64_t)getpid() ||
        !slice_u64(slice_of(fds), &n))
        return 0;
    return n < FDS_MAX ? (int)n : FDS_MAX;
}

static int
socket_at(int i)
{
    return ninherited != -1 ? inherited[i] : FIRST_FD + i;
}

int
service_inherit(struct slice fds, struct err *e)
{
    struct slice word;
    char pid[24];
    uint64_t fd;

    ninherited = 0;
    memset(taken, 0, sizeof taken);
    while (slice_cut(&fds, ' ', &word)) {
        if (!slice_u64(word, &fd) || fd > INT32_MAX || ninherited == FDS_MAX)
            return err_set(e, 0, "no list of at most %d sockets", FDS_MAX);
        inherited[ninherited++] = (int)fd;
    }
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    if (getenv("WATCHDOG_PID") != NULL)
        setenv("WATCHDOG_PID", pid, 1);
    return 0;
}

static bool
same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
    const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;

    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return a4->sin_port == b4->sin_port && a4->sin_addr.s_addr == b4->sin_addr.s_addr;
    return a->sa_family == AF_INET6 && a6->sin6_port == b6->sin6_port &&
        a6->sin6_scope_id == b6->sin6_scope_id &&
        memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof a6->sin6_addr) == 0;
}

/* Not a listening socket: of no use, whatever its address. */
static bool
listens(int fd, struct sockaddr_storage *at)
{
    socklen_t n = sizeof *at, size = sizeof(int);
    int on = 0;

    memset(at, 0, sizeof *at);
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size) == 0 && on == 1 &&
        getsockname(fd, (struct sockaddr *)at, &n) == 0;
}

int
service_socket(const struct sockaddr *a)
{
    struct sockaddr_storage at;

    for (int i = 0, n = sockets(); i < n; i++) {
        int fd = socket_at(i);

        if (taken[i] || !listens(fd, &at) || !same_address(a, (struct sockaddr *)&at))
            continue;
        taken[i] = true;
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        return fd;
    }
    return -1;
}

int
service_sockets_taken(struct err *e)
{
    struct sockaddr_storage at;
    const struct sockaddr_in *v4 = (const void *)&at;
    const struct sockaddr_in6 *v6 = (const void *)&at;
    const char *by = ninherited != -1 ? "the process that runs" : "the service manager";
    char host[INET6_ADDRSTRLEN] = "";

    for (int i = 0, n = sockets(); i < n; i++) {
        if (taken[i])
            continue;
        if (!listens(socket_at(i), &at) ||
            (at.ss_family != AF_INET && at.ss_family != AF_INET6))
            return err_set(e, 0, "socket %d of %s does not listen on TCP", socket_at(i), by);
        inet_ntop(at.ss_family, at.ss_family == AF_INET ? (const void *)&v4->sin_addr :
            (const void *)&v6->sin6_addr, host, sizeof host);
        return err_set(e, 0, at.ss_family == AF_INET ?
            "%s listens on %s:%u, and no `listen` of the configuration is that" :
            "%s listens on [%s]:%u, and no `listen` of the configuration is that", by, host,
            ntohs(at.ss_family == AF_INET ? v4->sin_port : v6->sin6_port));
    }
    return 0;
}

/* ---- the watchdog ---------------------------------------------------------------------------- */

struct beat {
    struct loop_msg msg;
    atomic_bool     asked;              /* and not answered yet */
};

struct watchdog {
    struct loop *const *loops;          /* borrowed */
    size_t       n;
    int64_t      every_us, next_us;
    struct beat  at[];
};

struct watchdog *
watchdog_new(struct loop *const *loops, size_t n)
{
    const char *text = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    struct watchdog *w;
    uint64_t limit_us, p;

    if (text == NULL || !slice_u64(slice_of(text), &limit_us) || limit_us == 0)
        return NULL;
    if (pid != NULL && (!slice_u64(slice_of(pid), &p) || p != (uint64_t)getpid()))
        return NULL;
    w = calloc(1, sizeof *w + n * sizeof w->at[0]);
    if (w == NULL)
        log_fatal("out of memory");
    w->loops = loops;
    w->n = n;
    w->every_us = (int64_t)(limit_us / 4);
    return w;
}

static void
on_beat(struct loop_msg *m)
{
    atomic_store(&CONTAINER(m, struct beat, msg)->asked, false);
}

void
watchdog_tick(struct watchdog *w)
{
    int64_t now = now_us();

    if (w == NULL || now < w->next_us)
        return;
    for (size_t i = 0; i < w->n; i++)
        if (atomic_load(&w->at[i].asked))
            return;                     /* it has until the manager's patience ends */
    service_notify("WATCHDOG=1");
    w->next_us = now + w->every_us;
    for (size_t i = 0; i < w->n; i++) {
        w->at[i].msg.run = on_beat;
        atomic_store(&w->at[i].asked, true);
        loop_post(w->loops[i], &w->at[i].msg);
    }
}

void
watchdog_only(struct watchdog *w, size_t n)
{
    if (w != NULL && n < w->n)
        w->n = n;
}

void
watchdog_free(struct watchdog **wp)
{
    free(*wp);
    *wp = NULL;
}
