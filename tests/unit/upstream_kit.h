/*
 * What the tests of upstream/ share: workers' loops on threads, a scripted origin on a loopback
 * port, and "shots": exchanges started on a loop whose events are gathered for the test's thread.
 */
#ifndef UPSTREAM_KIT_H
#define UPSTREAM_KIT_H

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "stats/stats.h"
#include "upstream/upstream.h"

#define UNUSED __attribute__((unused))
#define CONNS 256

/* ---- a scripted origin --------------------------------------------------------------------- */

struct script {
    int            listener;
    uint16_t       port;
    void         (*serve)(struct script *, int fd, unsigned nth);   /* one connection, own thread */
    atomic_uint    accepted, requests;
    atomic_int     step;                /* for the script's own use */
    atomic_bool    stopping;
    pthread_t      acceptor, threads[CONNS];
    int            fds[CONNS];
};

struct script_conn { struct script *s; int fd; unsigned nth; };

static void *
script_conn(void *arg)
{
    struct script_conn c = *(struct script_conn *)arg;

    free(arg);
    c.s->serve(c.s, c.fd, c.nth);
    shutdown(c.fd, SHUT_RDWR);          /* closed by script_stop: the number must not be reused */
    return NULL;
}

static void *
script_accept(void *arg)
{
    struct script *s = arg;
    int fd;

    while ((fd = accept(s->listener, NULL, NULL)) != -1) {
        struct script_conn *c = malloc(sizeof *c);
        unsigned nth = atomic_load(&s->accepted);

        assert_true(nth < CONNS);
        *c = (struct script_conn){ s, fd, nth };
        s->fds[nth] = fd;
        atomic_fetch_add(&s->accepted, 1);
        assert_int_equal(pthread_create(&s->threads[nth], NULL, script_conn, c), 0);
    }
    return NULL;
}

static UNUSED void
script_start_at(struct script *s, uint32_t address, void (*serve)(struct script *, int, unsigned))
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(address) };
    socklen_t len = sizeof in;

    memset(s, 0, sizeof *s);
    s->serve = serve;
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->listener, (void *)&in, sizeof in), 0);
    assert_int_equal(listen(s->listener, 128), 0);
    assert_int_equal(getsockname(s->listener, (void *)&in, &len), 0);
    s->port = ntohs(in.sin_port);
    assert_int_equal(pthread_create(&s->acceptor, NULL, script_accept, s), 0);
}

static UNUSED void
script_start(struct script *s, void (*serve)(struct script *, int, unsigned))
{
    script_start_at(s, INADDR_LOOPBACK, serve);
}

static UNUSED void
script_stop(struct script *s)
{
    atomic_store(&s->stopping, true);
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->acceptor, NULL);
    for (unsigned i = 0; i < atomic_load(&s->accepted); i++)
        shutdown(s->fds[i], SHUT_RDWR);
    for (unsigned i = 0; i < atomic_load(&s->accepted); i++) {
        pthread_join(s->threads[i], NULL);
        close(s->fds[i]);
    }
    close(s->listener);
}

/* Reads up to the empty line: false at the end. */
static UNUSED bool
read_head(struct script *s, int fd, char *buf, size_t size)
{
    size_t n = 0;

    while (n < size - 1 && recv(fd, buf + n, 1, 0) == 1) {
        buf[++n] = '\0';
        if (n >= 4 && memcmp(buf + n - 4, "\r\n\r\n", 4) == 0) {
            atomic_fetch_add(&s->requests, 1);
            return true;
        }
    }
    return false;
}

static UNUSED bool
read_n(int fd, size_t n)
{
    char buf[65536];
    ssize_t r;

    for (; n > 0; n -= (size_t)r)
        if ((r = recv(fd, buf, n < sizeof buf ? n : sizeof buf, 0)) <= 0)
            return false;
    return true;
}

static UNUSED void
say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        return;                         /* the proxy left: the test sees what it sees */
}

static UNUSED void
nap_ms(int ms)
{
    poll(NULL, 0, ms);
}

static UNUSED void
await_connections(int64_t n)
{
    int64_t until = now_us() + 20 * 1000000;

    while (stats_gauge(GAUGE_origin_connections) != n && now_us() < until)
        nap_ms(1);
    assert_int_equal(stats_gauge(GAUGE_origin_connections), n);
}

/* ---- loops and an upstream ----------------------------------------------------------------- */

struct kit {
    struct upstream   *u;
    struct origin     *o;
    size_t             n;
    struct loop       *loops[4];
    pthread_t          threads[4];
    struct conf_origin conf;
    struct conf_url    urls[4];
    char               texts[4][64];
};

static void *
kit_thread(void *arg)
{
    loop_run(arg);
    return NULL;
}

static UNUSED void
kit_conf(struct kit *k)
{
    struct conf_origin *c = &k->conf;

    c->id = "test";
    c->servers.at = k->urls;
    c->pool_max = 100;
    c->pool_idle_ms = 45000;
    c->pool_wait_ms = 5000;
    c->pool_waiting = 1000;
    c->connect_ms = 2000;
    c->first_byte_ms = c->between_bytes_ms = 5000;
    c->retry_attempts = 2;
    c->retry_budget = 0.2;
    c->eject_errors = 5;
    c->eject_for_ms = 10000;
    c->tls_verify = true;
}

static UNUSED void
kit_start_dns(struct kit *k, size_t nloops, const struct conf_strings *dns)
{
    struct err e;

    memset(k, 0, sizeof *k);
    kit_conf(k);
    k->n = nloops;
    for (size_t i = 0; i < nloops; i++)
        assert_non_null(k->loops[i] = loop_new((unsigned)i, &e));
    k->u = upstream_new(k->loops, nloops, dns, &e);
    assert_non_null(k->u);
    for (size_t i = 0; i < nloops; i++)
        assert_int_equal(pthread_create(&k->threads[i], NULL, kit_thread, k->loops[i]), 0);
}

static UNUSED void
kit_start(struct kit *k, size_t nloops)
{
    kit_start_dns(k, nloops, NULL);
}

static UNUSED void
kit_url(struct kit *k, const char *scheme, const char *host, uint16_t port)
{
    struct conf_url *u = &k->urls[k->conf.servers.n];
    char *text = k->texts[k->conf.servers.n++];

    snprintf(text, 64, "%s://%s:%u", scheme, host, port);
    *u = (struct conf_url){ .text = text, .host = host, .port = port,
        .https = strcmp(scheme, "https") == 0 };
}

static UNUSED void
kit_open(struct kit *k)
{
    struct err e;

    k->o = origin_open(k->u, &k->conf, &e);
    assert_non_null(k->o);
}

/* One script, one server. */
static UNUSED void
kit_one(struct kit *k, size_t nloops, struct script *s,
    void (*serve)(struct script *, int, unsigned))
{
    script_start(s, serve);
    kit_start(k, nloops);
    kit_url(k, "http", "127.0.0.1", s->port);
}

static UNUSED void
kit_stop(struct kit *k)
{
    for (size_t i = 0; i < k->n; i++)
        loop_stop(k->loops[i]);
    for (size_t i = 0; i < k->n; i++)
        pthread_join(k->threads[i], NULL);
    origin_unref(&k->o);
    upstream_free(&k->u);
    for (size_t i = 0; i < k->n; i++)
        loop_free(&k->loops[i]);
    assert_int_equal(stats_gauge(GAUGE_origin_connections), 0);
    assert_int_equal(stats_gauge(GAUGE_origin_busy), 0);
    assert_int_equal(stats_gauge(GAUGE_pool_waiting), 0);
}

/* Both ends. */
static UNUSED void
kit_end(struct kit *k, struct script *s)
{
    kit_stop(k);
    script_stop(s);
}

/* As a reload does: the same again, and the one before let go. */
static UNUSED void
kit_reopen(struct kit *k)
{
    struct origin *was = k->o;

    kit_open(k);
    origin_unref(&was);
}

/* ---- shots --------------------------------------------------------------------------------- */

enum when { ON_INTERIM, ON_CONTINUE, ON_HEAD, ON_DATA, ON_DRAIN, ON_END, ON_FAULT };

struct shot {
    struct kit      *k;
    unsigned         loop;
    struct exchange_request r;
    void           (*hook)(struct shot *, enum when);   /* on the loop */
    void           (*started)(struct shot *);           /* on the loop, after exchange_start */
    bool             keep;              /* the test ends it */
    struct exchange *x;
    struct loop_msg  msg;
    void           (*act)(struct shot *);
    /* 1 for the first shot of the process to have a head, ... */
    int              order;

    pthread_mutex_t  mtx;
    pthread_cond_t   cond;
    bool             done, acted;
    unsigned         status, interims, continues, drains, heads, ends, faults;
    struct buf       body, trailer, interim_fields;
    struct exchange_fault fault;
    struct exchange_times times;
    char             server[64];
};

static atomic_int shot_order;

static void
shot_seen(struct shot *s, enum when w)
{
    if (s->hook != NULL)
        s->hook(s, w);
    if (s->x != NULL && w != ON_END && w != ON_FAULT)
        return;
    if (s->x != NULL) {
        exchange_times(s->x, &s->times);
        snprintf(s->server, sizeof s->server, "%s", exchange_server(s->x));
    }
    if (!s->keep)
        exchange_cancel(&s->x);
    pthread_mutex_lock(&s->mtx);
    s->done = true;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->mtx);
}

static void
shot_interim(void *arg, const struct http_head *h)
{
    struct shot *s = arg;

    s->interims++;
    for (unsigned i = 0; i < h->nfields; i++)
        http_put(&s->interim_fields, h->fields[i].name, h->fields[i].value);
    shot_seen(s, ON_INTERIM);
}

static void
shot_continue(void *arg)
{
    struct shot *s = arg;

    s->continues++;
    shot_seen(s, ON_CONTINUE);
}

static void
shot_head(void *arg, const struct http_head *h)
{
    struct shot *s = arg;

    s->heads++;
    s->status = h->status;
    s->order = atomic_fetch_add(&shot_order, 1) + 1;
    shot_seen(s, ON_HEAD);
}

static void
shot_data(void *arg, struct slice data)
{
    struct shot *s = arg;

    buf_adds(&s->body, data);
    shot_seen(s, ON_DATA);
}

static void
shot_drain(void *arg)
{
    struct shot *s = arg;

    s->drains++;
    shot_seen(s, ON_DRAIN);
}

static void
shot_end(void *arg, struct slice trailer)
{
    struct shot *s = arg;

    s->ends++;
    buf_adds(&s->trailer, trailer);
    shot_seen(s, ON_END);
}

static void
shot_fault(void *arg, const struct exchange_fault *f)
{
    struct shot *s = arg;

    s->faults++;
    s->fault = *f;
    shot_seen(s, ON_FAULT);
}

static const struct exchange_events shot_events = { shot_interim, shot_continue, shot_head,
    shot_data, shot_drain, shot_end, shot_fault, NULL };

static UNUSED void
shot_init(struct shot *s, struct kit *k, unsigned loop, const char *method)
{
    memset(s, 0, sizeof *s);
    s->k = k;
    s->loop = loop;
    s->r.method_name = slice_of(method);
    s->r.method = http_method(s->r.method_name);
    s->r.target = SLICE("/x");
    s->r.host = SLICE("example.test");
    s->r.fields = SLICE("X-Test: 1\r\n");
    s->r.first_byte_ms = s->r.between_bytes_ms = CONF_UNSET;
    pthread_mutex_init(&s->mtx, NULL);
    pthread_cond_init(&s->cond, NULL);
}

static void
shot_acted(struct shot *s)
{
    pthread_mutex_lock(&s->mtx);
    s->acted = true;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->mtx);
}

static void
shot_await(struct shot *s)
{
    pthread_mutex_lock(&s->mtx);
    while (!s->acted)
        pthread_cond_wait(&s->cond, &s->mtx);
    pthread_mutex_unlock(&s->mtx);
}

static void
shot_go(struct loop_msg *m)
{
    struct shot *s = CONTAINER(m, struct shot, msg);

    s->x = exchange_start(s->k->o, s->k->loops[s->loop], &s->r, &shot_events, s);
    assert_non_null(s->x);
    assert_int_equal(s->heads + s->faults + s->ends, 0);
    if (s->started != NULL)
        s->started(s);
    shot_acted(s);
}

static UNUSED void
shot_fire(struct shot *s)
{
    s->msg.run = shot_go;
    loop_post(s->k->loops[s->loop], &s->msg);
}

/* As shot_fire, and it has been started when this returns. */
static UNUSED void
shot_begin(struct shot *s)
{
    shot_fire(s);
    shot_await(s);
}

static void
shot_acts(struct loop_msg *m)
{
    struct shot *s = CONTAINER(m, struct shot, msg);

    s->act(s);
    shot_acted(s);
}

/* Runs act on the shot's loop and waits for it. */
static UNUSED void
shot_act(struct shot *s, void (*act)(struct shot *))
{
    s->act = act;
    s->acted = false;
    s->msg.run = shot_acts;
    loop_post(s->k->loops[s->loop], &s->msg);
    shot_await(s);
}

static UNUSED void
shot_cancel(struct shot *s)
{
    exchange_cancel(&s->x);
}

static UNUSED void
shot_wait(struct shot *s)
{
    struct timespec t;
    int rc = 0;

    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += 20;
    pthread_mutex_lock(&s->mtx);
    while (!s->done && rc == 0)
        rc = pthread_cond_timedwait(&s->cond, &s->mtx, &t);
    pthread_mutex_unlock(&s->mtx);
    assert_int_equal(rc, 0);
    assert_int_equal(s->ends + s->faults, 1);
}

static UNUSED void
shot_fini(struct shot *s)
{
    buf_free(&s->body);
    buf_free(&s->trailer);
    buf_free(&s->interim_fields);
    pthread_mutex_destroy(&s->mtx);
    pthread_cond_destroy(&s->cond);
}

/* A whole GET (or other without a body): fired, waited for. */
static UNUSED void
shot_do(struct shot *s, struct kit *k, unsigned loop, const char *method)
{
    shot_init(s, k, loop, method);
    shot_fire(s);
    shot_wait(s);
}

static UNUSED void
assert_body(const struct shot *s, const char *text)
{
    assert_int_equal(s->body.n, strlen(text));
    assert_memory_equal(s->body.p != NULL ? s->body.p : "", text, s->body.n);
}

static UNUSED void
assert_fault(const struct shot *s, unsigned status, const char *cause)
{
    assert_int_equal(s->faults, 1);
    assert_string_equal(s->fault.cause, cause);
    assert_int_equal(s->fault.status, status);
}

/* A GET from that loop that has its answer. */
static UNUSED void
shot_hello(struct kit *k, unsigned loop)
{
    struct shot s;

    shot_do(&s, k, loop, "GET");
    assert_body(&s, "hello");
    shot_fini(&s);
}

static UNUSED int
group_setup(void **state)
{
    (void)state;
    return stats_init(NULL);
}

static UNUSED int
group_teardown(void **state)
{
    (void)state;
    stats_fini();
    return 0;
}

#endif
