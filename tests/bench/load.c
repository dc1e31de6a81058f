/*
 * Loads N objects through a cache: GET /o/0 .. /o/N-1, pipelined over several connections.
 *
 *   load PORT N [CONNECTIONS [DEPTH]]
 *
 * Model    a thread a connection, each with its share of the numbers: DEPTH requests are sent, then
 *          their answers read. Every answer must be a 200 with a Content-Length; its bytes are
 *          added up. Prints "objects head_bytes body_bytes url_bytes".
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_DEPTH 256

struct share {
    pthread_t     thread;
    long          from, to;
    unsigned long head_bytes, body_bytes, url_bytes;
};

static int port, depth = 16;

static int
connect_to(int to)
{
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons((uint16_t)to) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&sin, sizeof sin) == -1) {
        perror("connect");
        exit(1);
    }
    return fd;
}

static void
give_up(const char *why, const char *at)
{
    fprintf(stderr, "load: %s: %.300s\n", why, at);
    exit(1);
}

/* Takes the answers of n requests; buf holds what was read beyond them, for the next call. */
static void
read_answers(int fd, struct share *s, char *buf, size_t size, size_t *have, long n)
{
    while (n > 0) {
        char *end = memmem(buf, *have, "\r\n\r\n", 4), *field;
        size_t head, body;
        ssize_t got;

        if (end != NULL) {
            head = (size_t)(end - buf) + 4;
            end[2] = '\0';
            field = strcasestr(buf, "\r\ncontent-length:");
            if (strncmp(buf, "HTTP/1.1 200", 12) != 0 || field == NULL)
                give_up("not a 200 with a length", buf);
            body = strtoul(field + 17, NULL, 10);
            end[2] = '\r';
            if (*have >= head + body) {
                s->head_bytes += head;
                s->body_bytes += body;
                *have -= head + body;
                memmove(buf, buf + head + body, *have);
                n--;
                continue;
            }
        }
        got = recv(fd, buf + *have, size - *have, 0);
        if (got <= 0)
            give_up("the connection ended", "");
        *have += (size_t)got;
    }
}

static void *
run(void *arg)
{
    static const size_t size = 1 << 20;
    struct share *s = arg;
    char *buf = malloc(size), requests[MAX_DEPTH * 96];
    size_t have = 0;
    int fd = connect_to(port);

    for (long i = s->from; i < s->to;) {
        size_t n = 0;
        long sent = 0;

        for (; sent < depth && i < s->to; sent++, i++) {
            n += (size_t)snprintf(requests + n, sizeof requests - n,
                "GET /o/%ld HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", i, port);
            s->url_bytes += (unsigned long)snprintf(NULL, 0, "http://127.0.0.1:%d/o/%ld", port, i);
        }
        if (send(fd, requests, n, MSG_NOSIGNAL) != (ssize_t)n)
            give_up("could not send", "");
        read_answers(fd, s, buf, size, &have, sent);
    }
    close(fd);
    free(buf);
    return NULL;
}

int
main(int argc, char **argv)
{
    long n = argc > 2 ? atol(argv[2]) : 0;
    int threads = argc > 3 ? atoi(argv[3]) : 32;
    struct share *shares, sum = { 0 };

    depth = argc > 4 ? atoi(argv[4]) : depth;
    if (n <= 0 || threads <= 0 || depth <= 0 || depth > MAX_DEPTH)
        return 2;
    port = atoi(argv[1]);
    shares = calloc((size_t)threads, sizeof *shares);
    for (int i = 0; i < threads; i++) {
        shares[i].from = n * i / threads;
        shares[i].to = n * (i + 1) / threads;
        pthread_create(&shares[i].thread, NULL, run, &shares[i]);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(shares[i].thread, NULL);
        sum.head_bytes += shares[i].head_bytes;
        sum.body_bytes += shares[i].body_bytes;
        sum.url_bytes += shares[i].url_bytes;
    }
    printf("%ld %lu %lu %lu\n", n, sum.head_bytes, sum.body_bytes, sum.url_bytes);
    free(shares);
    return 0;
}
