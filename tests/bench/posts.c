/*
 * Sends the same small write again and again, to an HTTP server or to Redis, over kept connections.
 *
 *   posts redis|PATH PORT SECONDS COUNT CONNECTIONS TARGETS BYTES
 *
 * Model    one thread, epoll; a connection has one request under way, and sends the next when its
 *          answer is here. Request i goes to target i % TARGETS: POST PATHN, or XADD w:N. It ends
 *          after SECONDS, or after COUNT answers (0: no such end), and prints
 *          "answers seconds p50_us p99_us max_us errors"; an error is an answer but 2xx, or "-".
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM        8192
#define FINE        20000               /* histogram: so many steps of STEP_US, then the rest */
#define STEP_US     5

struct connection {
    int     fd;
    double  sent;
    size_t  have;
    char    buf[ROOM];
};

static int port;
static size_t bytes;
static long targets, begun, answered, errors, steps[FINE + 1];
static double longest;
static char *content;
static const char *path;
static int redis;

static double
now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void
give_up(const char *why, const char *at)
{
    fprintf(stderr, "posts: %s: %.300s\n", why, at);
    exit(1);
}

static void
send_next(struct connection *c)
{
    static char *buf;
    char key[32];
    long target = begun++ % targets;
    int n;

    if (buf == NULL)
        buf = malloc(bytes + 512);
    if (redis)
        n = snprintf(buf, bytes + 512, "*5\r\n$4\r\nXADD\r\n$%d\r\n%s\r\n$1\r\n*\r\n$1\r\nd\r\n$%zu"
            "\r\n%s\r\n", snprintf(key, sizeof key, "w:%ld", target), key, bytes, content);
    else
        n = snprintf(buf, bytes + 512, "POST %s%ld HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", path, target, port,
            bytes, content);
    c->sent = now();
    if (send(c->fd, buf, (size_t)n, MSG_NOSIGNAL) != n)
        give_up("could not send", "");
}

/* Bytes of the whole answer at the start of buf, or 0. */
static size_t
answer_length(struct connection *c)
{
    char *end = memmem(c->buf, c->have, redis ? "\r\n" : "\r\n\r\n", redis ? 2 : 4), *field;
    size_t head;

    if (end == NULL)
        return 0;
    if (redis) {
        head = (size_t)(end - c->buf) + 2;
        return c->buf[0] == '$' ? head + strtoul(c->buf + 1, NULL, 10) + 2 : head;
    }
    head = (size_t)(end - c->buf) + 4;
    end[2] = '\0';
    field = strcasestr(c->buf, "\r\ncontent-length:");
    end[2] = '\r';
    if (field == NULL)
        give_up("no length", c->buf);
    head += strtoul(field + 17, NULL, 10);
    if (head > ROOM)
        give_up("a long answer", c->buf);
    return head;
}

static int
on_readable(struct connection *c)       /* 1: an answer was there */
{
    ssize_t got = recv(c->fd, c->buf + c->have, ROOM - c->have, 0);
    size_t length;
    double took;

    if (got <= 0)
        give_up("the connection ended", "");
    c->have += (size_t)got;
    length = answer_length(c);
    if (length == 0 || c->have < length)
        return 0;
    if (c->have > length)
        give_up("more than an answer", c->buf + length);
    errors += redis ? c->buf[0] == '-' : c->buf[9] != '2';
    took = (now() - c->sent) * 1e6;
    steps[took / STEP_US < FINE ? (long)(took / STEP_US) : FINE]++;
    longest = took > longest ? took : longest;
    c->have = 0;
    answered++;
    return 1;
}

static void
open_connection(struct connection *c, int ep)
{
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (struct sockaddr *)&sin, sizeof sin) == -1) {
        perror("connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
}

static double
percentile(double of)
{
    long sum = 0;

    for (long i = 0; i < FINE; i++)
        if ((sum += steps[i]) >= of * (double)answered)
            return (double)(i + 1) * STEP_US;
    return longest;
}

static void
run(struct connection *all, long n, double seconds, long count)
{
    struct epoll_event ready[256];
    int ep = epoll_create1(0);
    double until = now() + seconds;

    for (long i = 0; i < n; i++)
        open_connection(&all[i], ep);
    for (long i = 0; i < n && (count == 0 || begun < count); i++)
        send_next(&all[i]);
    while (answered < begun) {          /* what is under way at the end is awaited */
        int got = epoll_wait(ep, ready, 256, 60000);

        if (got <= 0)
            give_up("no answer within a minute", "");
        for (int i = 0; i < got; i++)
            if (on_readable(ready[i].data.ptr) && (count == 0 || begun < count) && now() < until)
                send_next(ready[i].data.ptr);
    }
}

int
main(int argc, char **argv)
{
    struct connection *all;
    double began;
    long n;

    if (argc != 8 || (n = atol(argv[5])) <= 0 || (targets = atol(argv[6])) <= 0)
        return 2;
    redis = strcmp(argv[1], "redis") == 0;
    path = argv[1];
    port = atoi(argv[2]);
    bytes = strtoul(argv[7], NULL, 10);
    content = malloc(bytes + 1);
    memset(content, 'x', bytes);
    content[bytes] = '\0';
    all = calloc((size_t)n, sizeof *all);
    began = now();
    run(all, n, atof(argv[3]), atol(argv[4]));
    printf("%ld %.6f %.0f %.0f %.0f %ld\n", answered, now() - began, percentile(0.5),
        percentile(0.99), longest, errors);
    return errors != 0;
}
