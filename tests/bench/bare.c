/*
 * The limit: the least that a server of one canned answer does, and a fast origin for the others.
 *
 *   bare PORT [FIELD-LINE ...]       such as  bare 9000 "Cache-Control: max-age=3600"
 *
 * Model    one thread, epoll, one recv and one send a wake-up; a request ends at its empty line, and
 *          nothing else of it is looked at. The answer is 200 with a body of 1 KiB; Date is that
 *          of the start, so a run that needs fresh answers lasts less than their max-age.
 * Not here HTTP: no bodies of requests, no errors, no limits.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BODY        1024
#define MAX_FDS     65536
#define MAX_BATCH   64                  /* pipelined requests answered by one send */

struct partial {
    char  *bytes;                       /* owned; a request that came in pieces */
    size_t n;
};

static char answers[MAX_BATCH * 4096];
static size_t answer_bytes;
static struct partial partials[MAX_FDS];

static void
make_answers(char **fields, int n)
{
    char head[2048], date[64];
    time_t now = time(NULL);
    size_t used;

    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now));
    used = (size_t)snprintf(head, sizeof head,
        "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        "ETag: \"0123456789abcdef\"\r\n",
        date, BODY);
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(head + used, sizeof head - used, "%s\r\n", fields[i]);
    used += (size_t)snprintf(head + used, sizeof head - used, "\r\n");
    answer_bytes = used + BODY;
    for (int i = 0; i < MAX_BATCH; i++) {
        char *at = answers + (size_t)i * answer_bytes;

        memcpy(at, head, used);
        for (int k = 0; k < BODY; k++)
            at[used + (size_t)k] = (char)('a' + k * 7 % 26);
    }
}

/* How many requests end in the n bytes; *rest is what is behind the last. */
static int
count_heads(const char *p, size_t n, size_t *rest)
{
    const char *end = p + n, *at = p, *line = p;
    int count = 0;

    while ((line = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        line++;
        if (end - line >= 2 && line[0] == '\r' && line[1] == '\n') {
            line += 2;
            at = line;
            count++;
        }
    }
    *rest = (size_t)(end - at);
    return count;
}

static void
drop(int fd)
{
    free(partials[fd].bytes);
    partials[fd] = (struct partial){ NULL, 0 };
    close(fd);
}

/* Answers come into a socket buffer that holds them, or the peer waits for us: poll until it took all. */
static int
send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

        if (sent < 0 && errno != EAGAIN)
            return -1;
        if (sent > 0) {
            p += sent;
            n -= (size_t)sent;
        }
    }
    return 0;
}

static void
serve(int fd)
{
    static char buf[65536];
    struct partial *kept = &partials[fd];
    size_t have = kept->n, rest;
    ssize_t got;
    int count;

    if (have > 0)
        memcpy(buf, kept->bytes, have);
    got = recv(fd, buf + have, sizeof buf - have, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(fd);
        return;
    }
    have += (size_t)got;
    count = count_heads(buf, have, &rest);
    if (kept->n > 0 || rest > 0) {
        free(kept->bytes);
        kept->bytes = rest > 0 ? malloc(rest) : NULL;
        kept->n = rest;
        if (rest > 0)
            memcpy(kept->bytes, buf + have - rest, rest);
    }
    while (count > 0) {
        int batch = count < MAX_BATCH ? count : MAX_BATCH;

        if (send_all(fd, answers, (size_t)batch * answer_bytes) == -1) {
            drop(fd);
            return;
        }
        count -= batch;
    }
}

static int
listen_on(int port)
{
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&sin, sizeof sin) == -1 || listen(fd, 1024) == -1) {
        perror("listen");
        exit(1);
    }
    return fd;
}

int
main(int argc, char **argv)
{
    struct epoll_event ev = { .events = EPOLLIN }, ready[256];
    int listener, ep = epoll_create1(0), one = 1;

    if (argc < 2)
        return 2;
    make_answers(argv + 2, argc - 2);
    listener = listen_on(atoi(argv[1]));
    ev.data.fd = listener;
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
    for (;;) {
        int n = epoll_wait(ep, ready, 256, -1);

        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;

            if (fd != listener) {
                serve(fd);
                continue;
            }
            fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0 || fd >= MAX_FDS)
                continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            ev.data.fd = fd;
            epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
        }
    }
}
