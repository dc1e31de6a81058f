/* Names: /etc/hosts, DNS with its TTL, what cannot be resolved. */
#include "upstream_kit.h"

#include <event2/dns.h>
#include <event2/dns_struct.h>
#include <event2/event.h>
#include <sys/mman.h>

#define OK_TEXT "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

/* ---- a name server --------------------------------------------------------------------------- */

struct names {
    struct event_base      *base;
    struct evdns_server_port *port;
    struct event           *tick;
    pthread_t               thread;
    int                     fd;
    char                    address[64];
    atomic_int              asked, mode;    /* 0: answers, 1: server failure, 2: silence, 3: many */
    atomic_uint             a;              /* the address of api.test, 127.0.0.1 */
    unsigned                turn;           /* of mode 3 */
    atomic_bool             stopping;
};

/* Twelve addresses, 127.0.0.1 to 127.0.0.12, each answer beginning four further on. */
static void
add_many(struct names *n, struct evdns_server_request *req, const char *name)
{
    struct in_addr many[12];

    for (unsigned i = 0; i < NELEM(many); i++)
        many[i].s_addr = htonl(INADDR_LOOPBACK + (i + n->turn * 4) % (unsigned)NELEM(many));
    n->turn++;
    evdns_server_request_add_a_reply(req, name, (int)NELEM(many), many, 1);
}

static void
on_question(struct evdns_server_request *req, void *arg)
{
    struct names *n = arg;
    struct in_addr a = { htonl(atomic_load(&n->a)) };

    atomic_fetch_add(&n->asked, 1);
    if (atomic_load(&n->mode) == 2) {
        evdns_server_request_drop(req);
        return;
    }
    for (int i = 0; i < req->nquestions && atomic_load(&n->mode) != 1; i++) {
        const char *name = req->questions[i]->name;

        if (req->questions[i]->type != EVDNS_TYPE_A || strcasecmp(name, "api.test") != 0)
            continue;
        if (atomic_load(&n->mode) == 3)
            add_many(n, req, name);
        else
            evdns_server_request_add_a_reply(req, name, 1, &a, 1);
    }
    evdns_server_request_respond(req, atomic_load(&n->mode) == 1 ? DNS_ERR_SERVERFAILED : 0);
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct names *n = arg;

    (void)fd;
    (void)what;
    if (atomic_load(&n->stopping))
        event_base_loopbreak(n->base);
}

static void *
names_thread(void *arg)
{
    event_base_dispatch(((struct names *)arg)->base);
    return NULL;
}

static void
names_start(struct names *n)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof in;

    memset(n, 0, sizeof *n);
    atomic_store(&n->a, INADDR_LOOPBACK);
    n->base = event_base_new();
    n->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(n->fd, (void *)&in, sizeof in), 0);
    assert_int_equal(getsockname(n->fd, (void *)&in, &len), 0);
    snprintf(n->address, sizeof n->address, "127.0.0.1:%u", ntohs(in.sin_port));
    n->port = evdns_add_server_port_with_base(n->base, n->fd, 0, on_question, n);
    n->tick = event_new(n->base, -1, EV_PERSIST, on_tick, n);
    event_add(n->tick, &(struct timeval){ 0, 20000 });
    assert_int_equal(pthread_create(&n->thread, NULL, names_thread, n), 0);
}

static void
names_stop(struct names *n)
{
    atomic_store(&n->stopping, true);
    pthread_join(n->thread, NULL);
    evdns_close_server_port(n->port);
    event_free(n->tick);
    event_base_free(n->base);
    close(n->fd);
}

static void
serve_and_close(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    (void)nth;
    if (read_head(s, fd, head, sizeof head))
        say(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
}

static void
kit_names_with(struct kit *k, struct script *sc, struct names *n, const char *host,
    void (*serve)(struct script *, int, unsigned))
{
    const char *servers[1];
    struct conf_strings dns = { servers, 1 };

    names_start(n);
    servers[0] = n->address;
    script_start_at(sc, INADDR_ANY, serve);
    kit_start_dns(k, 2, &dns);
    kit_url(k, "http", host, sc->port);
    k->conf.connect_ms = 1000;
    kit_open(k);
}

static void
kit_names(struct kit *k, struct script *sc, struct names *n, const char *host)
{
    kit_names_with(k, sc, n, host, serve_and_close);
}

static void
kit_names_stop(struct kit *k, struct script *sc, struct names *n)
{
    kit_stop(k);
    script_stop(sc);
    names_stop(n);
}

static void
localhost_needs_no_name_server(void **state)
{
    struct names n;
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_names(&k, &sc, &n, "localhost");
    for (unsigned i = 0; i < 4; i++) {
        shot_do(&s, &k, i % 2, "GET");
        assert_int_equal(s.faults, 0);
        assert_body(&s, "hello");
        shot_fini(&s);
    }
    assert_int_equal(atomic_load(&n.asked), 0);
    kit_names_stop(&k, &sc, &n);
}

static void
an_answer_is_kept_for_its_ttl_and_used_longer_when_no_other_is_to_be_had(void **state)
{
    struct names n;
    struct script sc;
    struct kit k;
    struct shot s;
    int asked;

    (void)state;
    kit_names(&k, &sc, &n, "api.test");
    for (unsigned i = 0; i < 4; i++) {
        shot_do(&s, &k, i % 2, "GET");
        assert_int_equal(s.faults, 0);
        assert_body(&s, "hello");
        shot_fini(&s);
    }
    asked = atomic_load(&n.asked);
    assert_int_equal(asked, 2);         /* A and AAAA */
    nap_ms(1100);
    shot_hello(&k, 0);
    assert_int_equal(atomic_load(&n.asked), 4);
    atomic_store(&n.mode, 1);
    nap_ms(1100);
    shot_do(&s, &k, 1, "GET");
    assert_int_equal(s.faults, 0);
    assert_body(&s, "hello");
    shot_fini(&s);
    atomic_store(&n.mode, 2);           /* nor does waiting for one cost the request */
    nap_ms(1100);
    shot_do(&s, &k, 0, "GET");
    assert_int_equal(s.faults, 0);
    assert_body(&s, "hello");
    shot_fini(&s);
    kit_names_stop(&k, &sc, &n);
}

static void
a_name_without_address_is_a_502_and_the_log_says_whose_it_is(void **state)
{
    int was = dup(2), fd = memfd_create("log", 0);
    struct names n;
    struct script sc;
    struct kit k;
    struct shot s;
    char log[4096], want[256];
    ssize_t len;

    (void)state;
    nap_ms(1100);                       /* the line is said once a second */
    kit_names(&k, &sc, &n, "nowhere.test");
    dup2(fd, 2);
    shot_do(&s, &k, 1, "GET");
    for (int i = 0; i < 2000 && lseek(fd, 0, SEEK_END) == 0; i++)
        nap_ms(1);                      /* told behind the answer */
    dup2(was, 2);
    assert_fault(&s, 502, "dns_error");
    assert_int_equal(s.times.tries, 1);
    assert_false(s.fault.reached);
    snprintf(want, sizeof want, "origin %s: http://nowhere.test:%u: the name nowhere.test could "
        "not be resolved; correct it, or its DNS; its requests are answered 502 until then\n",
        k.conf.id, sc.port);
    len = pread(fd, log, sizeof log - 1, 0);
    assert_true(len > 0);
    log[len] = '\0';
    assert_non_null(strstr(log, want));
    close(was);
    close(fd);
    shot_fini(&s);
    kit_names_stop(&k, &sc, &n);
}

static void
a_silent_name_server_is_a_504_within_the_connect_time(void **state)
{
    struct names n;
    struct script sc;
    struct kit k;
    struct shot s, left;

    (void)state;
    kit_names(&k, &sc, &n, "api.test");
    atomic_store(&n.mode, 2);
    shot_init(&left, &k, 1, "GET");     /* cancelled while it waits for the name */
    shot_begin(&left);
    shot_do(&s, &k, 1, "GET");
    assert_fault(&s, 504, "dns_timeout");
    assert_int_equal(s.times.tries, 1); /* not again at the only server */
    shot_fini(&s);
    shot_act(&left, shot_cancel);
    shot_fini(&left);
    kit_names_stop(&k, &sc, &n);        /* with the question still open */
}

/* Says at which address, and keeps the connection; with step 1 set, says so when it is 0 again. */
static void
serve_address(struct script *s, int fd, unsigned nth)
{
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    char head[8192], text[128];

    (void)nth;
    if (getsockname(fd, (void *)&in, &len) == -1)
        return;
    snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%u",
        ntohl(in.sin_addr.s_addr) & 0xff);
    while (read_head(s, fd, head, sizeof head)) {
        while (atomic_load(&s->step) == 1 && !atomic_load(&s->stopping))
            nap_ms(5);
        say(fd, text);
    }
}

static void
move(struct names *n, unsigned last)
{
    atomic_store(&n->a, (INADDR_LOOPBACK & ~0xffu) | last);
    nap_ms(1300);                       /* the TTL is a second */
}

static void
served_by(struct kit *k, unsigned loop, const char *last, bool reused)
{
    struct shot s;

    shot_do(&s, k, loop, "GET");
    assert_int_equal(s.faults, 0);
    assert_body(&s, last);
    assert_int_equal(s.times.reused, reused);
    shot_fini(&s);
}

static void
a_name_in_use_is_asked_again_and_connections_to_addresses_it_left_are_closed(void **state)
{
    struct names n;
    struct script sc;
    struct kit k;
    struct shot busy;

    (void)state;
    kit_names_with(&k, &sc, &n, "api.test", serve_address);
    for (int i = 0; i < 4; i++)
        served_by(&k, (unsigned)i % 2, "1", i > 1);
    move(&n, 2);
    assert_int_equal(stats_gauge(GAUGE_origin_connections), 0);
    for (int i = 0; i < 4; i++)
        served_by(&k, (unsigned)i % 2, "2", i > 1);
    move(&n, 2);                        /* nothing new: they stay */
    for (int i = 0; i < 4; i++)
        served_by(&k, (unsigned)i % 2, "2", true);
    atomic_store(&sc.step, 1);
    shot_init(&busy, &k, 0, "GET");
    shot_begin(&busy);
    move(&n, 3);
    atomic_store(&sc.step, 0);
    shot_wait(&busy);                   /* it ends where it began */
    assert_body(&busy, "2");
    shot_fini(&busy);
    for (int i = 0; i < 4; i++)
        served_by(&k, (unsigned)i % 2, "3", i > 1);
    kit_names_stop(&k, &sc, &n);
}

static void
a_name_of_more_addresses_than_are_kept_does_not_lose_its_connections_as_they_rotate(void **state)
{
    struct names n;
    struct script sc;
    struct kit k;
    int asked;

    (void)state;
    kit_names_with(&k, &sc, &n, "api.test", serve_address);
    atomic_store(&n.mode, 3);
    served_by(&k, 0, "1", false);
    asked = atomic_load(&n.asked);
    nap_ms(2500);                       /* the first address is in no part of an answer for long */
    for (int i = 0; i < 100 && atomic_load(&n.asked) < asked + 4; i++)
        nap_ms(100);
    assert_true(atomic_load(&n.asked) >= asked + 4);
    assert_int_equal(stats_gauge(GAUGE_origin_connections), 1);
    served_by(&k, 0, "1", true);        /* given back, it is looked at once more */
    served_by(&k, 0, "1", true);
    atomic_store(&n.mode, 0);           /* few again: what is not among them has left */
    move(&n, 2);
    assert_int_equal(stats_gauge(GAUGE_origin_connections), 0);
    served_by(&k, 0, "2", false);
    kit_names_stop(&k, &sc, &n);
}

static void
a_look_up_that_fails_keeps_addresses_and_connections(void **state)
{
    struct names n;
    struct script sc;
    struct kit k;
    uint64_t failures;

    (void)state;
    kit_names_with(&k, &sc, &n, "api.test", serve_address);
    served_by(&k, 0, "1", false);
    failures = stats_counter(STATS_dns_failures);
    atomic_store(&n.mode, 1);
    nap_ms(1300);
    assert_true(stats_counter(STATS_dns_failures) > failures);
    served_by(&k, 0, "1", true);
    served_by(&k, 1, "1", false);
    atomic_store(&n.mode, 0);
    move(&n, 2);
    nap_ms(1000);
    served_by(&k, 0, "2", false);
    kit_names_stop(&k, &sc, &n);
}

static void
a_name_that_nothing_is_connected_to_is_not_asked_again(void **state)
{
    struct names n;
    struct script sc;
    struct kit k;

    (void)state;
    kit_names(&k, &sc, &n, "api.test");
    shot_hello(&k, 0);
    nap_ms(2500);
    assert_int_equal(atomic_load(&n.asked), 2);
    kit_names_stop(&k, &sc, &n);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(localhost_needs_no_name_server),
        cmocka_unit_test(an_answer_is_kept_for_its_ttl_and_used_longer_when_no_other_is_to_be_had),
        cmocka_unit_test(
            a_name_in_use_is_asked_again_and_connections_to_addresses_it_left_are_closed),
        cmocka_unit_test(
            a_name_of_more_addresses_than_are_kept_does_not_lose_its_connections_as_they_rotate),
        cmocka_unit_test(a_look_up_that_fails_keeps_addresses_and_connections),
        cmocka_unit_test(a_name_that_nothing_is_connected_to_is_not_asked_again),
        cmocka_unit_test(a_name_without_address_is_a_502_and_the_log_says_whose_it_is),
        cmocka_unit_test(a_silent_name_server_is_a_504_within_the_connect_time),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
