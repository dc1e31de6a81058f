/*
 * What the tests of the admin room share: the surface on a loop of its own thread, with a real
 * store and route table, and a raw socket to it.
 */
#ifndef WEIR_TEST_ADMIN_KIT_H
#define WEIR_TEST_ADMIN_KIT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <cmocka.h>

#include "admin/admin.h"
#include "stats/stats.h"

static struct {
    struct loop *loop;
    struct admin *admin;
    struct route_table *table;
    struct store *store;
    struct conf *conf;
    pthread_t thread;
    uint16_t port;
    int reloads;
    bool refuse_reload;
} kit;

static struct route_table *
kit_table(void *arg)
{
    (void)arg;
    return route_table_ref(kit.table);
}

static int
kit_reload(void *arg, struct buf *text)
{
    (void)arg;
    kit.reloads++;
    buf_addz(text, kit.refuse_reload ? "weir.yaml:3:1: ttl: \"x\" is no duration" : "1 route");
    return kit.refuse_reload ? -1 : 0;
}

static bool
kit_ready(void *arg, struct buf *why)
{
    (void)arg;
    buf_addz(why, "\"routes\": 1");
    return true;
}

static void *
kit_run(void *arg)
{
    loop_run(arg);
    return NULL;
}

static struct conf *
kit_conf(const char *token)
{
    struct pool *p = pool_new();
    struct conf *c = pool_zalloc(p, sizeof *c);
    struct sockaddr_in *at = (struct sockaddr_in *)&c->admin_listen.sa;
    static const char *hosts[] = { "ops.example" };

    c->magic = CONF_MAGIC;
    atomic_init(&c->refs, 1);
    c->pool = p;
    at->sin_family = AF_INET;
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->admin_listen.len = sizeof *at;
    c->admin_listen.text = "127.0.0.1:0";
    c->probe_listen.off = true;
    c->admin_token = token;
    c->admin_hosts.at = hosts;
    c->admin_hosts.n = 1;
    c->cache_max_object = 1 << 20;
    c->origins = pool_zalloc(p, sizeof *c->origins);
    c->origins->id = "api";
    c->norigins = 1;
    c->routes = pool_zalloc(p, sizeof *c->routes);
    c->nroutes = 1;
    c->routes->path = "/**";
    c->routes->name = "/**";
    c->routes->to = c->origins;
    c->routes->key_host = true;
    c->routes->heuristic = true;
    c->routes->ttl_ms = c->routes->force_ttl_ms = c->routes->swr_ms = c->routes->sie_ms =
        CONF_UNSET;
    c->routes->max_object = CONF_UNSET;
    return c;
}

static int
kit_start(const char *token)
{
    struct admin_process p = { .table = kit_table, .reload = kit_reload, .ready = kit_ready };
    struct err e;

    signal(SIGPIPE, SIG_IGN);
    memset(&kit, 0, sizeof kit);
    if (stats_init(&e) != 0)
        return -1;
    kit.conf = kit_conf(token);
    kit.loop = loop_new(0, &e);
    kit.store = p.store = store_new(8 << 20, 16, &e);
    kit.table = route_table_new(kit.conf, stats_route_slot, &e);
    kit.admin = kit.table != NULL ? admin_start(kit.loop, kit.conf, &p, &e) : NULL;
    if (kit.admin == NULL) {
        fprintf(stderr, "%s\n", e.text);
        return -1;
    }
    kit.port = (uint16_t)atoi(strrchr(admin_address(kit.admin), ':') + 1);
    return pthread_create(&kit.thread, NULL, kit_run, kit.loop);
}

static int
kit_stop(void **state)
{
    (void)state;
    loop_stop(kit.loop);
    pthread_join(kit.thread, NULL);
    admin_stop(&kit.admin);
    route_table_unref(&kit.table);
    rcu_drain();
    store_free(&kit.store);
    rcu_drain();
    loop_free(&kit.loop);
    conf_unref(&kit.conf);
    stats_fini();
    return 0;
}

static inline int
kit_open(void **state)
{
    (void)state;
    return kit_start(NULL);
}

static inline int
kit_dial(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(kit.port) };
    struct timeval wait = { .tv_sec = 20 };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static inline void
kit_send(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t did = send(fd, p, n, MSG_NOSIGNAL);

        if (did <= 0)
            return;
        p += did;
        n -= (size_t)did;
    }
}

/* Everything until the end of the connection, NUL behind it. Static. */
static inline char *
kit_receive(int fd)
{
    static char all[1 << 20];
    size_t n = 0;
    ssize_t got;

    while (n < sizeof all - 1 && (got = recv(fd, all + n, sizeof all - 1 - n, 0)) > 0)
        n += (size_t)got;
    all[n] = '\0';
    close(fd);
    return all;
}

/* Sends text on a new connection; all that comes back until it is closed by the other side. */
static inline char *
kit_talk(const char *text)
{
    int fd = kit_dial();

    kit_send(fd, text, strlen(text));
    return kit_receive(fd);
}

static inline int
kit_status(const char *answer)
{
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : -1;
}

#define HOST "Host: localhost\r\n"
#define LAST "Connection: close\r\n"
/* The last request of its connection. */
#define ASK(line, fields) line " HTTP/1.1\r\n" HOST LAST fields "\r\n"

/* Asks, and has what comes back; static. */
static inline char *
kit_expect(const char *text, int status)
{
    char *a = kit_talk(text);

    if (kit_status(a) != status)
        fail_msg("wanted %d for %s, got %s", status, text, a);
    return a;
}

#endif
