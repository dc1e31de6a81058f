/* One exchange: what is sent, time limits, retries, back-pressure, giving up. */
#include "upstream_kit.h"

#define OK_TEXT "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
#define MIB (1024 * 1024)

static const struct slice nothing = { NULL, 0 };
static char seen[8192];                 /* the last request's head, as the origin read it */
static pthread_mutex_t seen_mtx = PTHREAD_MUTEX_INITIALIZER;

static bool
see_head(struct script *s, int fd)
{
    char head[sizeof seen] = "";
    bool ok = read_head(s, fd, head, sizeof head);

    pthread_mutex_lock(&seen_mtx);
    memcpy(seen, head, sizeof seen);
    pthread_mutex_unlock(&seen_mtx);
    return ok;
}

static void
assert_seen(const char *part)
{
    pthread_mutex_lock(&seen_mtx);
    assert_non_null(strstr(seen, part));
    pthread_mutex_unlock(&seen_mtx);
}

static void
serve_ok(struct script *s, int fd, unsigned nth)
{
    (void)nth;
    while (see_head(s, fd))
        say(fd, OK_TEXT);
}

/* ---- what is sent -------------------------------------------------------------------------- */

static void
serve_body(struct script *s, int fd, unsigned nth)
{
    char head[8192] = "", *cl;

    (void)nth;
    while (read_head(s, fd, head, sizeof head)) {
        pthread_mutex_lock(&seen_mtx);
        memcpy(seen, head, sizeof seen);
        pthread_mutex_unlock(&seen_mtx);
        cl = strstr(head, "Content-Length: ");
        if (!read_n(fd, cl != NULL ? strtoul(cl + 16, NULL, 10) : (size_t)atomic_load(&s->step)))
            return;
        say(fd, OK_TEXT);
    }
}

static void
send_hello(struct shot *s)
{
    exchange_send(s->x, SLICE("hel"));
    exchange_send(s->x, SLICE("lo"));
    exchange_send_end(s->x, SLICE("X-T: 1\r\n"));
}

static void
a_head_says_host_fields_and_framing(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_body);
    kit_open(&k);
    shot_init(&s, &k, 0, "PUT");
    s.r.body = HTTP_LENGTH;
    s.r.length = 5;
    s.started = send_hello;
    shot_fire(&s);
    shot_wait(&s);
    assert_body(&s, "hello");
    assert_seen("PUT /x HTTP/1.1\r\nHost: example.test\r\nX-Test: 1\r\nContent-Length: 5\r\n\r\n");
    shot_fini(&s);
    atomic_store(&sc.step, (int)strlen("3\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n"));
    shot_init(&s, &k, 0, "POST");
    s.r.body = HTTP_CHUNKED;
    s.started = send_hello;
    shot_fire(&s);
    shot_wait(&s);
    assert_body(&s, "hello");
    assert_true(s.times.reused);
    assert_seen("\r\nTransfer-Encoding: chunked\r\n\r\n");
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
the_origins_own_host_goes_before_the_clients(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_ok);
    k.conf.host = "internal:81";
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    assert_seen("GET /x HTTP/1.1\r\nHost: internal:81\r\nX-Test: 1\r\n\r\n");
    shot_fini(&s);
    kit_end(&k, &sc);
}

static char big[MIB];
static atomic_int sent_bytes;

static void
send_more(struct shot *s)
{
    while (s->x != NULL && !exchange_full(s->x) && atomic_load(&sent_bytes) < 32 * MIB) {
        exchange_send(s->x, (struct slice){ big,
            50000 < 32 * MIB - (size_t)atomic_load(&sent_bytes) ? 50000
            : 32 * MIB - (size_t)atomic_load(&sent_bytes) });
        atomic_fetch_add(&sent_bytes, 50000);
        if (atomic_load(&sent_bytes) >= 32 * MIB)
            exchange_send_end(s->x, nothing);
    }
}

static void
on_drain_send_more(struct shot *s, enum when w)
{
    if (w == ON_DRAIN)
        send_more(s);
}

static void
serve_slow_reader(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    (void)nth;
    if (!read_head(s, fd, head, sizeof head))
        return;
    nap_ms(200);
    atomic_store(&s->step, atomic_load(&sent_bytes));       /* how far did it run ahead? */
    if (read_n(fd, 32 * MIB))
        say(fd, OK_TEXT);
}

static void
a_big_upload_goes_at_the_origins_pace(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    atomic_store(&sent_bytes, 0);
    kit_one(&k, 1, &sc, serve_slow_reader);
    kit_open(&k);
    shot_init(&s, &k, 0, "POST");
    s.r.body = HTTP_LENGTH;
    s.r.length = 32 * MIB;
    s.started = send_more;
    s.hook = on_drain_send_more;
    shot_fire(&s);
    shot_wait(&s);
    assert_int_equal(s.faults, 0);
    assert_int_equal(s.status, 200);
    assert_true(s.drains > 0);
    assert_true(atomic_load(&sc.step) < 20 * MIB);          /* the kernel's buffers and 64 KiB */
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
serve_early(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    (void)nth;
    if (read_head(s, fd, head, sizeof head))
        say(fd, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
    read_n(fd, 1 << 30);
}

static void
send_a_little(struct shot *s)
{
    exchange_send(s->x, SLICE("hel"));
}

static void
a_response_before_the_request_ended_is_delivered_and_the_connection_closed(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_early);
    kit_open(&k);
    shot_init(&s, &k, 0, "POST");
    s.r.body = HTTP_LENGTH;
    s.r.length = 1000;
    s.started = send_a_little;
    shot_fire(&s);
    shot_wait(&s);
    assert_int_equal(s.status, 413);
    assert_body(&s, "big");
    shot_fini(&s);
    await_connections(0);
    kit_end(&k, &sc);
}

/* ---- Expect -------------------------------------------------------------------------------- */

static void
serve_continue(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    if (!read_head(s, fd, head, sizeof head))
        return;
    assert_non_null(strstr(head, "Expect: 100-continue\r\n"));
    if (nth < 3)
        say(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    if (read_n(fd, 5))
        say(fd, OK_TEXT);
}

static void
on_continue_send(struct shot *s, enum when w)
{
    if (w == ON_CONTINUE)
        send_hello(s);
}

static void
a_body_waits_for_100_or_a_second(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;
    int64_t least = INT64_MAX;          /* a machine may stand still, but not each time */

    (void)state;
    kit_one(&k, 1, &sc, serve_continue);
    kit_open(&k);
    for (int i = 0; i < 4; i++) {
        int64_t start = now_us();

        shot_init(&s, &k, 0, "POST");
        s.r.body = HTTP_LENGTH;
        s.r.length = 5;
        s.r.expect = true;
        s.hook = on_continue_send;
        shot_fire(&s);
        shot_wait(&s);
        assert_int_equal(s.continues, 1);
        assert_int_equal(s.status, 200);
        if (i < 3 && now_us() - start < least)
            least = now_us() - start;
        assert_true(i < 3 || now_us() - start > 900000);
        shot_fini(&s);
        nap_ms(50);
    }
    assert_true(least < 900000);
    kit_end(&k, &sc);
}

/* ---- time limits --------------------------------------------------------------------------- */

static void
serve_silence(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    (void)nth;
    if (!read_head(s, fd, head, sizeof head))
        return;
    if (atomic_load(&s->step) == 1)
        say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    read_n(fd, 1);
}

static void
an_origin_too_slow_is_a_504(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_silence);
    k.conf.first_byte_ms = 100;
    k.conf.between_bytes_ms = 150;
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    assert_fault(&s, 504, "connection_read_timeout");
    assert_false(s.fault.mid_body);
    assert_true(s.fault.reached);
    assert_int_equal(s.times.tries, 1);
    shot_fini(&s);
    atomic_store(&sc.step, 1);
    shot_do(&s, &k, 0, "GET");
    assert_fault(&s, 504, "connection_read_timeout");
    assert_true(s.fault.mid_body);
    shot_fini(&s);
    kit_end(&k, &sc);
}

/* A listener whose backlog is full lets connections hang. */
struct hang { int listener, fill[8]; uint16_t port; };

static void
hang_start(struct hang *h)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof in;

    h->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(h->listener, (void *)&in, sizeof in), 0);
    assert_int_equal(listen(h->listener, 0), 0);
    assert_int_equal(getsockname(h->listener, (void *)&in, &len), 0);
    h->port = ntohs(in.sin_port);
    for (size_t i = 0; i < NELEM(h->fill); i++) {
        h->fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(h->fill[i], (void *)&in, sizeof in) == -1)
            assert_int_equal(errno, EINPROGRESS);
    }
    nap_ms(20);
}

static void
hang_stop(struct hang *h)
{
    for (size_t i = 0; i < NELEM(h->fill); i++)
        close(h->fill[i]);
    close(h->listener);
}

static void
connecting_too_long_is_a_504_and_not_tried_again_on_the_only_server(void **state)
{
    struct hang h;
    struct kit k;
    struct shot s;

    (void)state;
    hang_start(&h);
    kit_start(&k, 1);
    kit_url(&k, "http", "127.0.0.1", h.port);
    k.conf.connect_ms = 1500;
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    assert_fault(&s, 504, "connection_timeout");
    assert_false(s.fault.reached);
    assert_int_equal(s.times.tries, 1);
    shot_fini(&s);
    kit_stop(&k);
    hang_stop(&h);
}

static void
connecting_too_long_leaves_the_request_to_another_server(void **state)
{
    struct script good;
    struct hang h;
    struct kit k;
    struct shot s;

    (void)state;
    hang_start(&h);
    kit_one(&k, 1, &good, serve_ok);
    kit_url(&k, "http", "127.0.0.1", h.port);
    k.conf.connect_ms = 100;
    kit_open(&k);
    for (int i = 0; i < 4; i++) {
        shot_do(&s, &k, 0, "GET");
        assert_body(&s, "hello");
        assert_string_equal(s.server, k.texts[0]);
        assert_int_equal(s.times.tries, 1 + i % 2);
        shot_fini(&s);
    }
    kit_end(&k, &good);
    hang_stop(&h);
}

static void
nobody_listening_is_a_502(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_ok);
    script_stop(&sc);
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    assert_fault(&s, 502, "connection_refused");
    assert_int_equal(s.times.tries, 3);
    assert_false(s.fault.reached);
    shot_fini(&s);
    shot_do(&s, &k, 0, "POST");
    assert_fault(&s, 502, "connection_refused");
    assert_int_equal(s.times.tries, 1);
    shot_fini(&s);
    kit_stop(&k);
}

/* ---- retries ------------------------------------------------------------------------------- */

/* The first connection answers once, then resets when the next request arrives. */
static void
serve_once_then_reset(struct script *s, int fd, unsigned nth)
{
    struct linger now = { 1, 0 };

    if (!see_head(s, fd))
        return;
    say(fd, OK_TEXT);
    if (nth == 0) {
        if (!see_head(s, fd))
            return;
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        return;
    }
    serve_ok(s, fd, nth);
}

static void
shot_put(struct shot *s, struct kit *k)
{
    shot_init(s, k, 0, "PUT");
    s->r.body = HTTP_LENGTH;
    s->r.length = 5;
    s->started = send_hello;
    shot_fire(s);
    shot_wait(s);
}

static void
serve_body_once_then_close(struct script *s, int fd, unsigned nth)
{
    if (nth > 0) {
        serve_body(s, fd, nth);
        return;
    }
    if (see_head(s, fd) && read_n(fd, 5))
        say(fd, OK_TEXT);
    see_head(s, fd);
}

static void
a_request_on_a_pooled_connection_that_closed_is_sent_once_more(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_once_then_reset);
    k.conf.retry_attempts = 0;
    kit_open(&k);
    for (int i = 0; i < 2; i++) {
        shot_do(&s, &k, 0, "GET");
        assert_body(&s, "hello");
        assert_int_equal(s.times.tries, 1 + i);
        assert_false(s.times.reused);
        shot_fini(&s);
    }
    kit_end(&k, &sc);
    kit_one(&k, 1, &sc, serve_body_once_then_close);
    k.conf.retry_attempts = 0;
    kit_open(&k);
    for (int i = 0; i < 2; i++) {       /* with a body too: it is kept until an answer begins */
        shot_put(&s, &k);
        assert_int_equal(s.ends, 1);
        assert_int_equal(s.times.tries, 1 + i);
        shot_fini(&s);
    }
    kit_end(&k, &sc);
}

static void
a_post_is_not_sent_twice(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_once_then_reset);
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    shot_fini(&s);
    shot_do(&s, &k, 0, "POST");
    assert_fault(&s, 502, "connection_terminated");
    assert_true(s.fault.reached);
    assert_int_equal(s.times.tries, 1);
    assert_int_equal(atomic_load(&sc.requests), 2);
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
serve_hang_up(struct script *s, int fd, unsigned nth)
{
    (void)nth;
    see_head(s, fd);
}

static void
a_failed_request_is_tried_on_another_server(void **state)
{
    struct script bad, good;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &bad, serve_hang_up);
    script_start(&good, serve_ok);
    kit_url(&k, "http", "127.0.0.1", good.port);
    k.conf.retry_budget = 1.0;
    k.conf.eject_errors = 0;
    kit_open(&k);
    for (int i = 0; i < 6; i++) {
        shot_do(&s, &k, 0, "GET");
        assert_body(&s, "hello");
        assert_true(s.times.tries <= 2);
        assert_string_equal(s.server, k.texts[1]);
        shot_fini(&s);
    }
    assert_int_equal(atomic_load(&bad.accepted), 3);
    kit_end(&k, &bad);
    script_stop(&good);
}

static void
the_budget_limits_retries(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;
    uint64_t denied = stats_counter(STATS_origin_retry_denied);
    int64_t start = now_us();

    (void)state;
    kit_one(&k, 1, &sc, serve_hang_up);
    k.conf.retry_budget = 0.1;
    kit_open(&k);
    for (int i = 0; i < 30; i++) {
        shot_do(&s, &k, 0, "GET");
        assert_fault(&s, 502, "connection_terminated");
        shot_fini(&s);
    }
    if (now_us() - start < 2000000)     /* 3 a second are free */
        assert_true(atomic_load(&sc.requests) <= 30 + 3 + 9);
    assert_true(stats_counter(STATS_origin_retry_denied) > denied + 10);
    kit_end(&k, &sc);
}

static void
serve_forty(struct script *s, int fd, unsigned nth)
{
    (void)nth;
    while (see_head(s, fd) && atomic_load(&s->requests) <= 40)
        say(fd, OK_TEXT);
}

/* A reload is no fresh allowance: what was spent stays spent, what was earned stays earned. */
static void
a_reload_keeps_the_budget_of_the_same_servers(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;
    uint64_t denied = stats_counter(STATS_origin_retry_denied);

    (void)state;
    kit_one(&k, 1, &sc, serve_forty);
    k.conf.retry_budget = 0.5;
    k.conf.eject_errors = 0;
    kit_open(&k);
    for (int i = 0; i < 40; i++)
        shot_hello(&k, 0);
    kit_reopen(&k);
    for (int i = 0; i < 6; i++) {
        shot_do(&s, &k, 0, "GET");      /* two further tries: more than are free */
        assert_fault(&s, 502, "connection_terminated");
        shot_fini(&s);
    }
    assert_int_equal(stats_counter(STATS_origin_retry_denied), denied);
    for (int i = 0; i < 30; i++) { /* and used up, no reload fills it again */
        kit_reopen(&k);
        shot_do(&s, &k, 0, "GET");
        shot_fini(&s);
    }
    assert_true(stats_counter(STATS_origin_retry_denied) > denied);
    kit_end(&k, &sc);
}

/* ---- back-pressure and giving up ----------------------------------------------------------- */

static void
serve_flood(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    (void)nth;
    if (!read_head(s, fd, head, sizeof head))
        return;
    say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n");
    for (int i = 0; i < 32; i++)
        for (size_t at = 0; at < MIB;) {
            ssize_t n = send(fd, big + at, MIB - at, MSG_NOSIGNAL);

            if (n <= 0)
                return;
            at += (size_t)n;
            atomic_fetch_add(&s->step, (int)n);
        }
}

static void
pause_at_first_data(struct shot *s, enum when w)
{
    if (w == ON_DATA && s->continues++ == 0)    /* a counter that is free here */
        exchange_pause(s->x, true);
}

static void
go_on(struct shot *s)
{
    exchange_pause(s->x, false);
}

static void
pausing_stops_reading_until_it_ends(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;
    int before;

    (void)state;
    kit_one(&k, 1, &sc, serve_flood);
    k.conf.between_bytes_ms = 300;      /* does not run while we pause */
    kit_open(&k);
    shot_init(&s, &k, 0, "GET");
    s.hook = pause_at_first_data;
    shot_begin(&s);
    do {
        before = atomic_load(&sc.step);
        nap_ms(250);
    } while (before == 0 || atomic_load(&sc.step) != before);
    nap_ms(250);
    assert_int_equal(atomic_load(&sc.step), before);
    assert_true(before < 20 * MIB);
    shot_act(&s, go_on);
    shot_wait(&s);
    assert_int_equal(s.ends, 1);
    assert_int_equal(s.body.n, 32 * MIB);
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
pause_at_head(struct shot *s, enum when w)
{
    if (w == ON_HEAD)
        exchange_pause(s->x, true);
}

static void
a_pause_at_the_head_of_an_empty_response_ends_too(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_ok);
    kit_open(&k);
    shot_init(&s, &k, 0, "GET");
    s.hook = pause_at_head;
    shot_begin(&s);
    nap_ms(50);
    shot_act(&s, go_on);
    shot_wait(&s);
    assert_body(&s, "hello");
    shot_fini(&s);
    kit_end(&k, &sc);
}

static enum when cancel_at;

static void
cancel_hook(struct shot *s, enum when w)
{
    if (w == cancel_at)
        exchange_cancel(&s->x);
}

static void
serve_everything(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    (void)nth;
    if (!read_head(s, fd, head, sizeof head))
        return;
    say(fd, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n");
    read_n(fd, 1);
}

static void
an_exchange_may_be_cancelled_inside_any_callback(void **state)
{
    static const enum when all[] = { ON_INTERIM, ON_HEAD, ON_DATA, ON_END };
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_everything);
    kit_open(&k);
    for (size_t i = 0; i < NELEM(all); i++) {
        cancel_at = all[i];
        shot_init(&s, &k, 0, "GET");
        s.hook = cancel_hook;
        shot_fire(&s);
        pthread_mutex_lock(&s.mtx);
        while (!s.done)
            pthread_cond_wait(&s.cond, &s.mtx);
        pthread_mutex_unlock(&s.mtx);
        nap_ms(20);
        assert_int_equal(s.heads, i >= 1);
        assert_int_equal(s.body.n, i < 2 ? 0 : i == 2 ? 5 : 8);
        assert_int_equal(s.ends, i == 3);
        shot_fini(&s);
    }
    kit_end(&k, &sc);
}

static void
an_exchange_may_be_cancelled_while_it_connects_or_waits_for_the_head(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_silence);
    kit_open(&k);
    shot_init(&s, &k, 0, "GET");
    s.started = shot_cancel;
    shot_begin(&s);
    nap_ms(30);
    shot_fini(&s);
    shot_init(&s, &k, 0, "GET");
    shot_begin(&s);
    nap_ms(50);
    shot_act(&s, shot_cancel);
    assert_int_equal(s.heads + s.ends + s.faults, 0);
    assert_int_equal(stats_gauge(GAUGE_origin_connections), 0);
    shot_fini(&s);
    kit_end(&k, &sc);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_says_host_fields_and_framing),
        cmocka_unit_test(the_origins_own_host_goes_before_the_clients),
        cmocka_unit_test(a_big_upload_goes_at_the_origins_pace),
        cmocka_unit_test(
            a_response_before_the_request_ended_is_delivered_and_the_connection_closed),
        cmocka_unit_test(a_body_waits_for_100_or_a_second),
        cmocka_unit_test(an_origin_too_slow_is_a_504),
        cmocka_unit_test(connecting_too_long_is_a_504_and_not_tried_again_on_the_only_server),
        cmocka_unit_test(connecting_too_long_leaves_the_request_to_another_server),
        cmocka_unit_test(nobody_listening_is_a_502),
        cmocka_unit_test(a_request_on_a_pooled_connection_that_closed_is_sent_once_more),
        cmocka_unit_test(a_post_is_not_sent_twice),
        cmocka_unit_test(a_failed_request_is_tried_on_another_server),
        cmocka_unit_test(the_budget_limits_retries),
        cmocka_unit_test(a_reload_keeps_the_budget_of_the_same_servers),
        cmocka_unit_test(pausing_stops_reading_until_it_ends),
        cmocka_unit_test(a_pause_at_the_head_of_an_empty_response_ends_too),
        cmocka_unit_test(an_exchange_may_be_cancelled_inside_any_callback),
        cmocka_unit_test(an_exchange_may_be_cancelled_while_it_connects_or_waits_for_the_head),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
