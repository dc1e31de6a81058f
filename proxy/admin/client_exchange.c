/*
 * One exchange with an admin port, for the shell's commands.
 *
 * Model    one socket that never blocks, one request with Connection: close, and one deadline for
 *          all of it. The answer ends where its framing says (RFC 9112 6.3), so a peer that keeps
 *          the connection holds nobody up, and one that is no HTTP server is found out at its first
 *          bytes, or at the deadline.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/inside.h"

#define CONNECT_US 5000000
#define ANSWER_MAX (256u << 20)         /* /stats of 10,000 busy routes stays far below */
#define HINT "Is weir running, and is this the address of its admin port (admin.listen)? Say " \
    "--admin URL for another."

/* ---- the socket ------------------------------------------------------------------------------ */

/* Where what went wrong is told. */
static FILE *
say(const struct client *c)
{
    return c->errors != NULL ? c->errors : stderr;
}

/* Waits until fd is ready. 0, or -1 with errno; ETIMEDOUT once `until_us` has come, ECANCELED when
 * a key said so. */
static int
await(const struct client *c, int fd, short events, int64_t until_us)
{
    for (;;) {
        struct pollfd p[] = { { .fd = fd, .events = events },
            { .fd = STDIN_FILENO, .events = POLLIN } };
        int64_t left = until_us - now_us();
        int n = left > 0 ? poll(p, c->on_key != NULL ? 2 : 1, (int)(left / 1000 + 1)) : 0;

        if (n == -1 && errno != EINTR)
            return -1;
        if (c->on_key != NULL && (n == -1 || p[1].revents != 0) && c->on_key(c->on_key_arg)) {
            errno = ECANCELED;
            return -1;
        }
        if (n > 0 && p[0].revents != 0)
            return 0;
        if (n == 0) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
}

bool
client_rest(const struct client *c, int64_t us)
{
    return await(c, -1, 0, now_us() + us) == -1 && errno == ETIMEDOUT;
}

/* A connected socket, or -1 with errno. */
static int
dial_one(const struct client *c, const struct addrinfo *a, int64_t until_us)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
    socklen_t n = sizeof error;

    if (fd == -1)
        return -1;
    if (connect(fd, a->ai_addr, a->ai_addrlen) == -1) {
        if (errno != EINPROGRESS || await(c, fd, POLLOUT, until_us) == -1)
            error = errno;
        else
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
    }
    if (error != 0) {
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int
dial(const struct client *c, const struct http_uri *u, int64_t until_us)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *at;
    char host[256], port[8] = "80";
    struct slice name = u->host;
    const char *colon = memrchr(name.p, ':', name.n), *bracket = memchr(name.p, ']', name.n);
    int64_t soon = now_us() + CONNECT_US;
    int fd = -1, rc;

    if (colon != NULL && (bracket == NULL || colon > bracket)) {
        snprintf(port, sizeof port, "%.*s", (int)(name.p + name.n - colon - 1), colon + 1);
        name.n = (size_t)(colon - name.p);
    }
    if (bracket != NULL)
        name = (struct slice){ name.p + 1, (size_t)(bracket - name.p) - 1 };
    snprintf(host, sizeof host, "%.*s", SLICE_ARG(name));
    rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0) {
        fprintf(say(c), "weir: %s: %s\n", c->base, gai_strerror(rc));
        return -1;
    }
    for (at = list; at != NULL && fd == -1; at = at->ai_next)
        fd = dial_one(c, at, soon < until_us ? soon : until_us);
    if (fd == -1)
        fprintf(say(c), "weir: %s: %s. " HINT "\n", c->base, strerror(errno));
    freeaddrinfo(list);
    return fd;
}

static int
send_all(const struct client *c, int fd, struct slice s, int64_t until_us)
{
    while (s.n > 0) {
        ssize_t n = send(fd, s.p, s.n, MSG_NOSIGNAL);

        if (n >= 0)
            s = (struct slice){ s.p + n, s.n - (size_t)n };
        else if (errno == EAGAIN ? await(c, fd, POLLOUT, until_us) == -1 : errno != EINTR)
            return -1;
    }
    return 0;
}

/* Appends what has come. The number of bytes, 0 at the end, -1 with errno. */
static ssize_t
receive(const struct client *c, int fd, struct buf *b, int64_t until_us)
{
    for (;;) {
        char *room = buf_reserve(b, 65536);
        ssize_t n = room != NULL ? recv(fd, room, 65536, 0) : -1;

        if (n >= 0) {
            b->n += (size_t)n;
            return n;
        }
        if (room == NULL)
            errno = ENOMEM;
        if (errno == EAGAIN ? await(c, fd, POLLIN, until_us) == -1 : errno != EINTR)
            return -1;
    }
}

/* ---- the answer ------------------------------------------------------------------------------ */

struct answer {
    struct buf          in;             /* received and not taken yet; owned */
    struct buf         *out;            /* the body; borrowed */
    struct http_chunked chunked;
    enum http_framing   framing;
    uint64_t            left;           /* HTTP_LENGTH: bytes that are still to come */
    int                 status;         /* 0: the head is not complete */
};
enum took { BAD = -1, MORE, DONE };

static void
drop_front(struct buf *b, size_t n)
{
    b->n -= n;
    memmove(b->p, b->p + n, b->n);
}

static enum took
take_head(struct answer *a)
{
    static const struct http_limits limits = { .head = 65536, .uri = 8192,
        .fields = HTTP_FIELDS_MAX };
    static struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h;
    struct http_fault fault;
    ssize_t n;

    do {                                /* behind interim responses */
        h = (struct http_head){ .cap = HTTP_FIELDS_MAX, .fields = fields };
        n = http_parse_response(a->in.p, a->in.n, &limits, &h, &fault);
        if (n <= 0)
            return n == 0 ? MORE : BAD;
        if (h.status >= 200 && http_response_framing(&h, HTTP_GET, &fault) != 0)
            return BAD;
        drop_front(&a->in, (size_t)n);  /* under the fields: they are not looked at again */
    } while (h.status < 200);
    a->status = (int)h.status;
    a->framing = h.framing;
    a->left = h.length;
    return DONE;
}

static enum took
take_chunks(struct answer *a)
{
    struct slice in = buf_slice(&a->in), data;
    enum http_chunk what;

    while ((what = http_chunked_next(&a->chunked, &in, &data)) == HTTP_CHUNK_DATA)
        buf_adds(a->out, data);
    a->in.n = 0;
    return what == HTTP_CHUNK_END ? DONE : what == HTTP_CHUNK_MORE ? MORE : BAD;
}

/* Takes what has come; `ended`: nothing more will. */
static enum took
take(struct answer *a, bool ended)
{
    enum took t = a->status == 0 && a->in.n > 0 ? take_head(a) : a->status == 0 ? MORE : DONE;
    size_t n;

    if (t != DONE)
        return ended ? BAD : t;
    if (a->framing == HTTP_CHUNKED) {
        t = take_chunks(a);
        return t == MORE && ended ? BAD : t;
    }
    n = a->framing == HTTP_LENGTH && a->in.n > a->left ? (size_t)a->left : a->in.n;
    if (a->framing != HTTP_NO_BODY)
        buf_add(a->out, a->in.p, n);
    a->in.n = 0;
    a->left -= a->framing == HTTP_LENGTH ? n : 0;
    if (a->framing == HTTP_NO_BODY || (a->framing == HTTP_LENGTH && a->left == 0))
        return DONE;
    return !ended ? MORE : a->framing == HTTP_LENGTH ? BAD : DONE;
}

/* The status; -1 after telling why there is none. */
static int
read_answer(const struct client *c, int fd, struct answer *a, int64_t until_us)
{
    enum took t = MORE;

    while (t == MORE) {
        ssize_t n = receive(c, fd, &a->in, c->on_body == NULL ? until_us : now_us() + c->wait_us);

        if (n == -1 && errno == ETIMEDOUT) {
            fprintf(say(c), "weir: %s: no %s answer within %lld s (--timeout). " HINT "\n", c->base,
                a->status == 0 ? "HTTP" : "complete", (long long)(c->wait_us / 1000000));
            return -1;
        }
        if (n == -1) {
            fprintf(say(c), "weir: %s: %s\n", c->base, strerror(errno));
            return -1;
        }
        t = take(a, n == 0);
        if (c->on_body != NULL && a->status == 200 && c->on_body(c->on_body_arg, a->out))
            return a->status;
        if (a->out->failed || a->out->n > ANSWER_MAX) {
            fprintf(say(c), "weir: %s: the answer is too large\n", c->base);
            return -1;
        }
    }
    if (t == DONE)
        return a->status;
    fprintf(say(c), "weir: %s: the answer is no complete HTTP response. " HINT "\n", c->base);
    return -1;
}

/* ---- the exchange ---------------------------------------------------------------------------- */

int
client_exchange(const struct client *c, const char *method, const char *target, struct slice body,
    struct buf *out)
{
    struct answer a = { .out = out };
    int64_t until_us = now_us() + c->wait_us;
    struct buf b = { 0 };
    struct http_uri u;
    int fd, status = -1;

    if (http_uri_parse(slice_of(c->base), &u) != 0 || !slice_ieq(u.scheme, SLICE("http"))) {
        fprintf(say(c), "weir: --admin %s: http://HOST:PORT is wanted\n", c->base);
        return -1;
    }
    if ((fd = dial(c, &u, until_us)) == -1)
        return -1;
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: %.*s\r\nConnection: close\r\nContent-Length: %zu\r\n",
        method, target, SLICE_ARG(u.host), body.n);
    if (body.n > 0)
        buf_addz(&b, "Content-Type: application/json\r\n");
    if (c->token != NULL)
        buf_printf(&b, "Authorization: Bearer %s\r\n", c->token);
    buf_addz(&b, "\r\n");
    buf_adds(&b, body);
    if (b.failed || send_all(c, fd, buf_slice(&b), until_us) != 0)
        fprintf(say(c), "weir: %s: %s\n", c->base, b.failed ? "out of memory" : strerror(errno));
    else
        status = read_answer(c, fd, &a, until_us);
    close(fd);
    http_chunked_free(&a.chunked);
    buf_free(&a.in);
    buf_free(&b);
    return status;
}

/* ---- server-sent events ---------------------------------------------------------------------- */

struct events {
    bool (*on_event)(void *arg, struct slice kind, struct slice data);
    void  *arg;
};

/* "event: KIND\ndata: DATA\n\n", or a comment. */
static bool
take_event(const struct events *f, struct slice event)
{
    struct slice line, kind = { "", 0 }, data = { NULL, 0 };

    while (slice_cut(&event, '\n', &line)) {
        if (slice_starts(line, SLICE("event: ")))
            kind = (struct slice){ line.p + 7, line.n - 7 };
        else if (slice_starts(line, SLICE("data: ")))
            data = (struct slice){ line.p + 6, line.n - 6 };
    }
    return data.p != NULL && f->on_event(f->arg, kind, data);
}

static bool
take_events(void *arg, struct buf *b)
{
    bool enough = false;
    size_t done = 0;
    const char *end;

    while (!enough && done < b->n && (end = memmem(b->p + done, b->n - done, "\n\n", 2)) != NULL) {
        enough = take_event(arg, (struct slice){ b->p + done, (size_t)(end - b->p) - done });
        done = (size_t)(end - b->p) + 2;
    }
    if (done > 0)
        drop_front(b, done);
    return enough;
}

int
client_follow(const struct client *k, const char *target,
    bool (*on_event)(void *arg, struct slice kind, struct slice data), void *arg, struct buf *out)
{
    struct events f = { on_event, arg };
    struct client c = *k;
    int status;

    c.on_body = take_events;
    c.on_body_arg = &f;
    status = client_exchange(&c, "GET", target, SLICE(""), out);
    if (status == 200)
        out->n = 0;
    return status;
}
