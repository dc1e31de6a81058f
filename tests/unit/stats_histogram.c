/*
 * Percentiles against exact ones, windows over explicit times, and what histograms cost.
 */
#include <math.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "stats/stats.h"

static int
setup(void **state)
{
    (void)state;
    return stats_init(NULL);
}

static int
teardown(void **state)
{
    (void)state;
    stats_fini();
    return 0;
}

static int
by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The number behind `member` at or behind `from` in text; -1 when it is not there. */
static double
number(const char *from, const char *member)
{
    const char *at = from != NULL ? strstr(from, member) : NULL;

    return at != NULL ? strtod(at + strlen(member), NULL) : -1;
}

static char *
json(void)
{
    struct buf b = { 0 };

    stats_json(&b, STATS_ALL_WINDOWS);
    buf_addc(&b, '\0');
    assert_false(b.failed);
    return b.p;
}

/* The figures of a window of an outcome of a route. */
static const char *
figures(const char *text, const char *route, const char *outcome, const char *window)
{
    char name[128];
    const char *at;

    snprintf(name, sizeof name, "{\"name\": \"%s\"", route);
    at = strstr(text, name);
    snprintf(name, sizeof name, "\"%s\": {\"bytes\"", outcome);
    at = at != NULL ? strstr(at, name) : NULL;
    snprintf(name, sizeof name, "\"%s\": {", window);
    return at != NULL ? strstr(at, name) : NULL;
}

static void
near(double got, double want, const char *what)
{
    if (fabs(got - want) > want * 0.01 + 0.5)
        fail_msg("%s: %f is not within 1 %% of %f", what, got, want);
}

static void
percentiles_are_within_one_percent_of_the_exact_ones(void **state)
{
    enum { N = 100000 };
    static const struct { const char *name; double q;
    } qs[] = { { "\"p50_us\": ", .5 }, { "\"p75_us\": ", .75 }, { "\"p90_us\": ", .9 },
        { "\"p95_us\": ", .95 }, { "\"p99_us\": ", .99 }, { "\"p999_us\": ", .999 } };
    uint64_t *v = malloc(N * sizeof *v);
    char *text;

    (void)state;
    for (int scale = 2; scale < 32; scale += 5) {
        char route[32];

        snprintf(route, sizeof route, "/scale/%d", scale);
        for (int i = 0; i < N; i++) {   /* log-uniform: every octave up to the scale */
            v[i] = (uint64_t)exp2((double)(random_fast() >> 11) / 9007199254740992.0 * scale);
            stats_request(stats_route_slot(route), OUTCOME_MISS, v[i], 7);
        }
        qsort(v, N, sizeof *v, by_value);
        stats_tick((scale * 1000 + 1) * INT64_C(1000000));
        text = json();
        for (size_t i = 0; i < NELEM(qs); i++) {
            double exact = (double)v[(size_t)ceil(qs[i].q * N) - 1];

            near(number(figures(text, route, "miss", "start"), qs[i].name), exact, qs[i].name);
            near(number(figures(text, route, "miss", "10s"), qs[i].name), exact, qs[i].name);
        }
        assert_int_equal(number(figures(text, route, "miss", "start"), "\"max_us\": "), v[N - 1]);
        assert_int_equal(number(figures(text, route, "miss", "start"), "\"count\": "), N);
        free(text);
    }
    free(v);
}

static void
counts(const char *window, double want)
{
    char *text = json();

    assert_int_equal(number(figures(text, "/w", "hit", window), "\"count\": "), want);
    free(text);
}

static void
windows_hold_what_their_time_covers_and_forget_the_rest(void **state)
{
    unsigned slot = stats_route_slot("/w");

    (void)state;
    for (int64_t s = 1000; s < 1400; s++) {         /* one request a second */
        stats_request(slot, OUTCOME_HIT, (uint64_t)(s < 1380 ? 1000 : 5), 1);
        stats_tick(s * 1000000);
    }
    counts("10s", 10);
    counts("1m", 70);                               /* 1399 ends a ten of seconds */
    counts("5m", 310);
    counts("start", 400);
    for (int64_t s = 1400; s < 1405; s++)
        stats_tick(s * 1000000);
    counts("10s", 5);
    counts("1m", 60);                               /* covers 1340..1404 */
    stats_tick(INT64_C(1500) * 1000000);            /* ticks that did not come do no harm */
    counts("10s", 0);
    counts("1m", 0);
    counts("5m", 200);                              /* 1200..1399 */
    stats_tick(INT64_C(99999) * 1000000);
    counts("5m", 0);
    counts("start", 400);
}

static void
a_window_covers_at_least_what_it_says_at_every_second(void **state)
{
    unsigned slot = stats_route_slot("/w");
    char *text;

    (void)state;
    for (int64_t s = 1000; s < 1700; s++) {
        stats_request(slot, OUTCOME_HIT, 1000, 1);
        stats_tick(s * 1000000);
        if (s < 1400)
            continue;
        text = json();
        assert_true(number(figures(text, "/w", "hit", "10s"), "\"count\": ") == 10);
        assert_true(number(figures(text, "/w", "hit", "1m"), "\"count\": ") >= 60);
        assert_true(number(figures(text, "/w", "hit", "5m"), "\"count\": ") >= 300);
        assert_float_equal(number(figures(text, "/w", "hit", "1m"), "\"rate\": "), 1, 0.001);
        assert_float_equal(number(figures(text, "/w", "hit", "5m"), "\"rate\": "), 1, 0.001);
        free(text);
    }
}

static void
a_window_s_percentiles_are_its_own(void **state)
{
    unsigned slot = stats_route_slot("/w");
    char *text;

    (void)state;
    for (int i = 0; i < 1000; i++)
        stats_request(slot, OUTCOME_HIT, 50000, 0);
    stats_tick(100 * 1000000);
    for (int i = 0; i < 10; i++)
        stats_request(slot, OUTCOME_HIT, 20, 0);
    stats_tick(120 * 1000000);
    text = json();
    assert_int_equal(number(figures(text, "/w", "hit", "10s"), "\"p99_us\": "), 20);
    assert_int_equal(number(figures(text, "/w", "hit", "10s"), "\"max_us\": "), 20);
    assert_float_equal(number(figures(text, "/w", "hit", "10s"), "\"rate\": "), 1.0, 0.001);
    near(number(figures(text, "/w", "hit", "1m"), "\"p50_us\": "), 50000, "1m");
    assert_int_equal(number(figures(text, "/w", "hit", "start"), "\"max_us\": "), 50000);
    free(text);
}

static void
the_hit_rate_is_that_of_reads(void **state)
{
    unsigned slot = stats_route_slot("/rate");
    char *text;

    (void)state;
    for (int i = 0; i < 6; i++)
        stats_request(slot, OUTCOME_HIT, 1, 0);
    stats_request(slot, OUTCOME_STALE, 1, 0);
    stats_request(slot, OUTCOME_MISS, 1, 0);
    stats_request(slot, OUTCOME_COLLAPSED, 1, 0);
    stats_request(slot, OUTCOME_REVALIDATED, 1, 0);
    for (int i = 0; i < 10; i++) {
        stats_request(slot, OUTCOME_WRITE, 1, 0);
        stats_request(slot, OUTCOME_PASS, 1, 0);
        stats_request(slot, OUTCOME_ERROR, 1, 0);
    }
    stats_tick(5000000);
    text = json();
    assert_float_equal(number(strstr(text, "\"hit_rate\""), "\"10s\": "), 0.7, 0.0001);
    assert_float_equal(number(strstr(text, "\"hit_rate\""), "\"start\": "), 0.7, 0.0001);
    free(text);
}

static void
ten_thousand_routes_cost_nothing_until_they_are_used(void **state)
{
    size_t before, named, used;
    char name[64];

    (void)state;
    stats_request(stats_route_slot("/first"), OUTCOME_HIT, 1, 1);
    before = mallinfo2().uordblks;
    for (int i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "/api/route/%d", i);
        assert_int_equal(stats_route_slot(name), i + 2);
    }
    assert_int_equal(stats_route_slot("/api/route/77"), 79);
    named = mallinfo2().uordblks;
    assert_true(named - before < 10000 * 200);      /* the names and what finds them */
    for (int i = 0; i < 10000; i += 100)
        stats_request((unsigned)i + 2, OUTCOME_HIT, 20000, 1);
    stats_tick(1000000);
    used = mallinfo2().uordblks;
    assert_true(used - named < 100 * 16 * 1024);
}

static void
a_slot_that_nobody_gave_counts_under_none(void **state)
{
    char *text;

    (void)state;
    stats_request(4000000000u, OUTCOME_ERROR, 3, 0);
    stats_request(0, OUTCOME_ERROR, UINT64_MAX, 0);
    stats_tick(1000000);
    text = json();
    assert_int_equal(number(figures(text, "(none)", "error", "start"), "\"count\": "), 2);
    free(text);
}

static void *
count_in_thread(void *arg)
{
    for (int i = 0; i < 100000; i++) {
        COUNT(requests);
        COUNT_N(client_bytes_in, 3);
        stats_request(*(unsigned *)arg, OUTCOME_HIT, (uint64_t)i, 2);
        stats_gauge_add(GAUGE_flights_now, i % 2 ? -1 : 1);
    }
    return NULL;
}

static void
threads_count_without_loss_while_others_read(void **state)
{
    unsigned slot = stats_route_slot("/threads");
    pthread_t t[4];
    char *text;

    (void)state;
    for (int round = 0; round < 3; round++) {       /* ended threads' blocks go on */
        for (size_t i = 0; i < NELEM(t); i++)
            assert_int_equal(pthread_create(&t[i], NULL, count_in_thread, &slot), 0);
        for (int i = 0; i < 20; i++) {
            stats_tick((round * 20 + i) * INT64_C(1000000));
            free(json());
        }
        for (size_t i = 0; i < NELEM(t); i++)
            pthread_join(t[i], NULL);
    }
    stats_tick(1000 * INT64_C(1000000));
    assert_int_equal(stats_counter(STATS_requests), 1200000);
    assert_int_equal(stats_counter(STATS_client_bytes_in), 3600000);
    assert_int_equal(stats_gauge(GAUGE_flights_now), 0);
    text = json();
    assert_int_equal(number(figures(text, "/threads", "hit", "start"), "\"count\": "), 1200000);
    assert_int_equal(number(strstr(text, "/threads"), "\"hit\": {\"bytes\": "), 2400000);
    free(text);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(percentiles_are_within_one_percent_of_the_exact_ones),
        T(windows_hold_what_their_time_covers_and_forget_the_rest),
        T(a_window_covers_at_least_what_it_says_at_every_second),
        T(a_window_s_percentiles_are_its_own),
        T(the_hit_rate_is_that_of_reads),
        T(ten_thousand_routes_cost_nothing_until_they_are_used),
        T(a_slot_that_nobody_gave_counts_under_none),
        T(threads_count_without_loss_while_others_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
