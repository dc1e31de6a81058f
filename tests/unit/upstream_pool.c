/* The pool of a server: limits, who waits, idle connections, balance, ejection. */
#include "upstream_kit.h"

#define OK_TEXT "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

static void
serve_ok(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    (void)nth;
    while (read_head(s, fd, head, sizeof head)) {
        if (atomic_load(&s->step) > 0)
            nap_ms(atomic_load(&s->step));
        say(fd, OK_TEXT);
    }
}

/* Answers once `step` requests have come. */
static void
serve_together(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    (void)nth;
    while (read_head(s, fd, head, sizeof head)) {
        while (atomic_load(&s->requests) < (unsigned)atomic_load(&s->step) &&
            !atomic_load(&s->stopping))
            nap_ms(1);
        say(fd, OK_TEXT);
    }
}

static void
who_waits_longest_is_served_first_whatever_worker(void **state)
{
    enum { N = 12 };
    struct script sc;
    struct kit k;
    struct shot s[N];
    int first;

    (void)state;
    kit_one(&k, 2, &sc, serve_ok);
    atomic_store(&sc.step, 20);
    k.conf.pool_max = 1;
    kit_open(&k);
    for (unsigned i = 0; i < N; i++) {
        shot_init(&s[i], &k, i % 3 == 0 ? 0 : 1, "GET");
        shot_begin(&s[i]);
        nap_ms(3);
    }
    for (unsigned i = 0; i < N; i++)
        shot_wait(&s[i]);
    first = s[0].order;
    for (unsigned i = 0; i < N; i++) {
        assert_body(&s[i], "hello");
        assert_int_equal(s[i].order, first + (int)i);
        shot_fini(&s[i]);
    }
    assert_int_equal(atomic_load(&sc.accepted), 1);         /* the socket went from loop to loop */
    kit_end(&k, &sc);
}

static void
an_idle_connection_of_another_worker_is_no_reason_to_wait(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 2, &sc, serve_ok);
    k.conf.pool_max = 1;
    k.conf.pool_waiting = 0;
    kit_open(&k);
    for (unsigned i = 0; i < 6; i++) {
        shot_do(&s, &k, i % 2, "GET");
        assert_body(&s, "hello");
        shot_fini(&s);
    }
    assert_int_equal(atomic_load(&sc.accepted), 1);
    kit_end(&k, &sc);
}

static void
waiting_ends_with_503_in_time_and_in_number(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s[3];

    (void)state;
    kit_one(&k, 2, &sc, serve_together);
    atomic_store(&sc.step, 2);          /* the first is held until the others were refused */
    k.conf.pool_max = 1;
    k.conf.pool_wait_ms = 100;
    k.conf.pool_waiting = 1;
    kit_open(&k);
    for (unsigned i = 0; i < 3; i++) {
        shot_init(&s[i], &k, i % 2, "GET");
        shot_begin(&s[i]);
    }
    shot_wait(&s[2]);
    assert_fault(&s[2], 503, "connection_limit_reached");   /* at once: one waits already */
    assert_int_equal(s[2].fault.retry_after_s, 1);
    assert_false(s[2].fault.reached);
    shot_wait(&s[1]);
    assert_fault(&s[1], 503, "connection_limit_reached");
    atomic_store(&sc.step, 1);
    shot_wait(&s[0]);
    assert_body(&s[0], "hello");
    for (unsigned i = 0; i < 3; i++)
        shot_fini(&s[i]);
    kit_end(&k, &sc);
}

static void
one_who_waits_may_be_cancelled(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s[4];

    (void)state;
    kit_one(&k, 2, &sc, serve_ok);
    atomic_store(&sc.step, 100);
    k.conf.pool_max = 1;
    kit_open(&k);
    for (unsigned i = 0; i < 4; i++) {
        shot_init(&s[i], &k, i % 2, "GET");
        shot_begin(&s[i]);
        nap_ms(10);
    }
    shot_act(&s[1], shot_cancel);
    shot_act(&s[0], shot_cancel);       /* the busy one: its permit goes on */
    shot_wait(&s[2]);
    shot_wait(&s[3]);
    assert_body(&s[2], "hello");
    assert_body(&s[3], "hello");
    for (unsigned i = 0; i < 4; i++)
        shot_fini(&s[i]);
    kit_end(&k, &sc);
}

/* Many requests, cancels and few permits: nobody is forgotten, nothing is left. */
static void
a_crowd_on_two_workers_all_gets_through(void **state)
{
    enum { N = 200 };
    static struct shot s[N];
    struct script sc;
    struct kit k;

    (void)state;
    kit_one(&k, 2, &sc, serve_ok);
    k.conf.pool_max = 3;
    kit_open(&k);
    for (int round = 0; round < 5; round++) {
        for (unsigned i = 0; i < N; i++) {
            shot_init(&s[i], &k, i % 2, "GET");
            if (i % 7 == 3)
                s[i].started = shot_cancel;
            shot_fire(&s[i]);
        }
        for (unsigned i = 0; i < N; i++) {
            if (i % 7 != 3) {
                shot_wait(&s[i]);
                assert_body(&s[i], "hello");
            }
        }
        nap_ms(20);
        for (unsigned i = 0; i < N; i++)
            shot_fini(&s[i]);
    }
    assert_true(stats_gauge(GAUGE_origin_connections) <= 3);
    kit_end(&k, &sc);
}

static void
a_minimum_is_kept_warm_and_the_rest_goes_after_idle(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s[6];
    struct buf b = { 0 };

    (void)state;
    kit_one(&k, 2, &sc, serve_together);
    atomic_store(&sc.step, NELEM(s));
    k.conf.pool_min = 3;
    k.conf.pool_idle_ms = 150;
    kit_open(&k);
    await_connections(3);
    for (unsigned i = 0; i < NELEM(s); i++) {
        shot_init(&s[i], &k, 0, "GET");
        shot_fire(&s[i]);
    }
    for (unsigned i = 0; i < NELEM(s); i++) {
        shot_wait(&s[i]);
        assert_body(&s[i], "hello");
        shot_fini(&s[i]);
    }
    assert_true(atomic_load(&sc.accepted) >= NELEM(s));     /* each had one, at one time */
    await_connections(3);
    nap_ms(2 * 150);                    /* the rest stays, however long */
    assert_int_equal(stats_gauge(GAUGE_origin_connections), 3);
    upstream_json(k.u, &b);
    buf_addc(&b, '\0');
    assert_non_null(strstr(b.p,
        "\"connections\":3,\"busy\":0,\"idle\":3,\"waiting\":0,\"max\":100,\"ejected\":0"));
    buf_free(&b);
    kit_end(&k, &sc);
}

/* One that the origin may be about to close is left to what may be sent again. */
static void
what_must_not_be_sent_twice_goes_over_no_connection_that_has_stood_idle(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_ok);
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    shot_fini(&s);
    nap_ms(110);
    shot_init(&s, &k, 0, "POST");
    s.r.once = true;
    shot_fire(&s);
    shot_wait(&s);
    assert_body(&s, "hello");
    assert_false(s.times.reused);
    shot_fini(&s);
    assert_int_equal(atomic_load(&sc.accepted), 2);
    assert_int_equal(stats_gauge(GAUGE_origin_connections), 1);     /* in the place of the other */
    shot_do(&s, &k, 0, "POST");
    assert_true(s.times.reused);
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
where_no_more_connections_may_be_made_the_one_that_stood_idle_is_closed_for_it(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 2, &sc, serve_ok);
    k.conf.pool_max = 1;
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    shot_fini(&s);
    nap_ms(110);
    shot_init(&s, &k, 0, "POST");
    s.r.once = true;
    shot_fire(&s);
    shot_wait(&s);
    assert_body(&s, "hello");
    assert_false(s.times.reused);
    shot_fini(&s);
    assert_int_equal(stats_gauge(GAUGE_origin_connections), 1);
    nap_ms(110);
    shot_init(&s, &k, 1, "POST");       /* another worker is given it, and closes it */
    s.r.once = true;
    shot_fire(&s);
    shot_wait(&s);
    assert_body(&s, "hello");
    assert_false(s.times.reused);
    shot_fini(&s);
    assert_int_equal(stats_gauge(GAUGE_origin_connections), 1);
    kit_end(&k, &sc);
}

static void
a_reload_finds_the_same_connections(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;
    struct origin *old;

    (void)state;
    kit_one(&k, 1, &sc, serve_ok);
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    shot_fini(&s);
    old = k.o;
    kit_open(&k);
    origin_unref(&old);
    shot_do(&s, &k, 0, "GET");
    assert_true(s.times.reused);
    shot_fini(&s);
    origin_unref(&k.o);
    await_connections(0);               /* nobody's any more */
    kit_end(&k, &sc);
}

static void
serve_by_step(struct script *s, int fd, unsigned nth)
{
    char head[8192];

    (void)nth;
    while (read_head(s, fd, head, sizeof head) && atomic_load(&s->step) == 0)
        say(fd, OK_TEXT);
}

static void
a_server_that_fails_is_taken_out_probed_and_taken_back(void **state)
{
    struct script a, b;
    struct kit k;
    struct shot s;
    unsigned before;

    (void)state;
    kit_one(&k, 1, &a, serve_by_step);
    script_start(&b, serve_by_step);
    kit_url(&k, "http", "127.0.0.1", b.port);
    k.conf.eject_errors = 3;
    k.conf.eject_for_ms = 2000;
    k.conf.retry_budget = 1.0;
    kit_open(&k);
    atomic_store(&a.step, 1);
    for (int i = 0; i < 10; i++)
        shot_hello(&k, 0);
    assert_int_equal(atomic_load(&a.requests), 3);
    assert_true(stats_counter(STATS_origin_ejections) > 0);
    nap_ms(2050);                       /* one probe, which fails: out for twice as long */
    for (int i = 0; i < 6; i++)
        shot_hello(&k, 0);
    assert_int_equal(atomic_load(&a.requests), 4);
    nap_ms(2050);
    shot_do(&s, &k, 0, "GET");
    shot_fini(&s);
    assert_int_equal(atomic_load(&a.requests), 4);
    atomic_store(&a.step, 0);
    nap_ms(2050);
    before = atomic_load(&a.requests);
    for (int i = 0; i < 10; i++)
        shot_hello(&k, 0);
    assert_true(atomic_load(&a.requests) >= before + 5);
    kit_end(&k, &a);
    script_stop(&b);
}

static void
the_last_server_is_never_taken_out(void **state)
{
    struct script a, b;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &a, serve_by_step);
    script_start(&b, serve_by_step);
    kit_url(&k, "http", "127.0.0.1", b.port);
    k.conf.eject_errors = 1;
    k.conf.retry_attempts = 0;
    kit_open(&k);
    atomic_store(&a.step, 1);
    atomic_store(&b.step, 1);
    for (int i = 0; i < 6; i++) {
        shot_do(&s, &k, 0, "GET");
        assert_fault(&s, 502, "connection_terminated");
        shot_fini(&s);
    }
    assert_int_equal(atomic_load(&a.requests), 1);
    assert_int_equal(atomic_load(&b.requests), 5);
    kit_end(&k, &a);
    script_stop(&b);
}

static void
requests_go_round_or_to_the_server_with_the_fewest(void **state)
{
    struct script a, b;
    struct kit k;
    struct shot s, slow;
    unsigned before;

    (void)state;
    kit_one(&k, 1, &a, serve_ok);
    script_start(&b, serve_ok);
    kit_url(&k, "http", "127.0.0.1", b.port);
    kit_open(&k);
    for (int i = 0; i < 10; i++) {
        shot_do(&s, &k, 0, "GET");
        shot_fini(&s);
    }
    assert_int_equal(atomic_load(&a.requests), 5);
    assert_int_equal(atomic_load(&b.requests), 5);
    origin_unref(&k.o);
    k.conf.balance = BALANCE_LEAST_CONNECTIONS;
    kit_open(&k);
    atomic_store(&a.step, 2000);
    shot_init(&slow, &k, 0, "GET");     /* the first turn is a's */
    shot_begin(&slow);
    nap_ms(50);
    before = atomic_load(&b.requests);
    for (int i = 0; i < 6; i++) {
        shot_do(&s, &k, 0, "GET");
        shot_fini(&s);
    }
    assert_int_equal(atomic_load(&b.requests), before + 6);
    shot_wait(&slow);
    shot_fini(&slow);
    kit_end(&k, &a);
    script_stop(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_waits_longest_is_served_first_whatever_worker),
        cmocka_unit_test(an_idle_connection_of_another_worker_is_no_reason_to_wait),
        cmocka_unit_test(waiting_ends_with_503_in_time_and_in_number),
        cmocka_unit_test(one_who_waits_may_be_cancelled),
        cmocka_unit_test(a_crowd_on_two_workers_all_gets_through),
        cmocka_unit_test(a_minimum_is_kept_warm_and_the_rest_goes_after_idle),
        cmocka_unit_test(what_must_not_be_sent_twice_goes_over_no_connection_that_has_stood_idle),
        cmocka_unit_test(
            where_no_more_connections_may_be_made_the_one_that_stood_idle_is_closed_for_it),
        cmocka_unit_test(a_reload_finds_the_same_connections),
        cmocka_unit_test(a_server_that_fails_is_taken_out_probed_and_taken_back),
        cmocka_unit_test(the_last_server_is_never_taken_out),
        cmocka_unit_test(requests_go_round_or_to_the_server_with_the_fewest),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
