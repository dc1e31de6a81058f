/*
 * Connections for another process, and from one.
 *
 * Model    whoever upgrades has a socket of whole messages (SOCK_SEQPACKET) to its successor. Each
 *          worker puts connections between two requests on it, with the descriptor beside
 *          (SCM_RIGHTS) and what was read of the next request; the successor deals them out to its
 *          workers. A listener is known by its address: the other's configuration may number them
 *          anew.
 * Peers    haproxy, nginx and Envoy hand listening sockets over and close idle connections, or have
 *          the next answer say so. A client that writes into one that is being closed then has an
 *          error, which a gateway in front makes a 502 (haproxy#1506, #3472), and which nobody may
 *          repeat by itself where the request was a POST. A socket that goes on has no such moment.
 * Threads  handover_give: the worker's; front_take: one.
 */
#include "front/priv.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* As both ends have it: what one says in takeover.h is its version. */
struct letter {
    uint64_t requests;
    struct sockaddr_storage bound, peer, asker;
    uint8_t  began;
};

union control {
    struct cmsghdr header;
    char           bytes[CMSG_SPACE(sizeof(int))];
};

struct arrival {
    struct loop_msg   msg;
    struct worker    *worker;
    struct conn_place place;
    char              rest[];
};

/* ---- giving ---------------------------------------------------------------------------------- */

/* The kernel holds back who has very many descriptors under way; and who reads slowly. */
static int
give(void *arg, const struct conn_place *p)
{
    struct front *f = arg;
    struct letter letter = { .requests = p->requests, .bound = f->bound[p->listener],
        .peer = p->peer, .asker = p->asker, .began = p->began };
    struct iovec iov[] = { { &letter, sizeof letter },
        { (char *)(uintptr_t)p->rest.p, p->rest.n } };
    union control control = { 0 };
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = p->rest.n > 0 ? 2 : 1,
        .msg_control = &control, .msg_controllen = sizeof control };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &p->fd, sizeof(int));
    if (sendmsg(atomic_load(&f->channel), &m, MSG_DONTWAIT | MSG_NOSIGNAL) != -1)
        return 0;
    return errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS || errno == EINTR ? 1 : -1;
}

bool
handover_give(struct worker *w)
{
    return conn_worker_give(w->conns, give, w->front);
}

void
front_give(struct front *f, int channel)
{
    atomic_store(&f->channel, channel);
}

/* ---- taking ---------------------------------------------------------------------------------- */

static bool
find_listener(struct front *f, const struct sockaddr_storage *bound, unsigned *index)
{
    for (size_t i = 0; i < f->nlisteners; i++)
        if (memcmp(&f->bound[i], bound, sizeof *bound) == 0) {
            *index = (unsigned)i;
            return true;
        }
    return false;
}

static void
run_arrival(struct loop_msg *m)
{
    struct arrival *a = CONTAINER(m, struct arrival, msg);
    struct worker *w = a->worker;
    struct front *f = w->front;
    atomic_uint *count = &f->counts[a->place.listener];
    struct conf *c;

    pthread_mutex_lock(&f->mtx);
    c = conf_ref(f->conf);
    pthread_mutex_unlock(&f->mtx);
    atomic_fetch_add(count, 1);
    conn_take(w->conns, &a->place, c, count);
    conf_unref(&c);
    free(a);
}

/* Takes fd. */
static void
arrive(struct front *f, int fd, const struct letter *l, struct slice rest)
{
    struct arrival *a = malloc(sizeof *a + rest.n);
    unsigned index;

    if (a == NULL || !find_listener(f, &l->bound, &index)) {
        free(a);
        close(fd);
        return;
    }
    *a = (struct arrival){ .msg.run = run_arrival, .worker = &f->workers[f->turn++ % f->nworkers],
        .place = { .fd = fd, .began = l->began, .listener = index, .requests = l->requests,
            .peer = l->peer, .asker = l->asker, .rest = { a->rest, rest.n } } };
    memcpy(a->rest, rest.p, rest.n);
    loop_post(a->worker->loop, &a->msg);
}

bool
front_take(struct front *f, int channel)
{
    static char rest[CONN_REST_MAX];
    struct letter letter;
    struct iovec iov[] = { { &letter, sizeof letter }, { rest, sizeof rest } };
    ssize_t n;
    int fd;

    for (;;) {
        union control control = { 0 };
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = &control,
            .msg_controllen = sizeof control };
        struct cmsghdr *c;

        n = recvmsg(channel, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n == -1 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == -1 && (errno == EAGAIN || errno == EMFILE || errno == ENFILE);
        c = CMSG_FIRSTHDR(&m);
        if (c == NULL || c->cmsg_type != SCM_RIGHTS)
            continue;
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
        if (n < (ssize_t)sizeof letter || (m.msg_flags & MSG_TRUNC) != 0)
            close(fd);
        else
            arrive(f, fd, &letter, (struct slice){ rest, (size_t)n - sizeof letter });
    }
}
