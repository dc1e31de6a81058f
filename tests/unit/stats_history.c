/*
 * What was: the steps of the last five minutes, figures of some windows alone, and the slowest.
 */
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

static char *
ended(struct buf *b)
{
    buf_addc(b, '\0');
    assert_false(b->failed);
    return b->p;
}

static char *
json(unsigned windows)
{
    struct buf b = { 0 };

    stats_json(&b, windows);
    return ended(&b);
}

static unsigned
occurrences(const char *text, const char *what)
{
    unsigned n = 0;

    while ((text = strstr(text, what)) != NULL) {
        n++;
        text++;
    }
    return n;
}

static void
the_steps_are_those_tens_of_seconds_that_are_over(void **state)
{
    unsigned a = stats_route_slot("/a"), b = stats_route_slot("/b");
    struct buf one = { 0 }, all = { 0 };
    char *text;

    (void)state;
    for (int64_t s = 1000; s < 1025; s++) {
        stats_request(a, OUTCOME_HIT, 100, 0);
        if (s < 1010)
            stats_request(b, OUTCOME_HIT, 300, 0);
        stats_tick(s * 1000000);
    }
    assert_true(stats_history(&one, slice_of("/b")));
    text = ended(&one);
    assert_int_equal(occurrences(text, "\"age_s\""), 2);
    assert_non_null(strstr(text, "{\"age_s\": 15, \"outcomes\": {\"hit\": {\"count\": 10, "));
    assert_non_null(strstr(text, "{\"age_s\": 5, \"outcomes\": {}}"));
    assert_true(stats_history(&all, (struct slice){ NULL, 0 }));
    text = ended(&all);
    assert_non_null(strstr(text, "{\"age_s\": 15, \"outcomes\": {\"hit\": {\"count\": 20, "));
    assert_non_null(strstr(text, "{\"age_s\": 5, \"outcomes\": {\"hit\": {\"count\": 10, "));
    for (int64_t s = 1025; s < 2000; s++)
        stats_tick(s * 1000000);
    all.n = 0;
    assert_true(stats_history(&all, (struct slice){ NULL, 0 }));
    text = ended(&all);
    assert_int_equal(occurrences(text, "\"age_s\""), 30);
    assert_int_equal(occurrences(text, "\"hit\""), 0);
    assert_false(stats_history(&all, slice_of("/c")));
    buf_free(&one);
    buf_free(&all);
}

static void
of_some_windows_only_what_was_used_in_them_is_told(void **state)
{
    unsigned a = stats_route_slot("/a"), b = stats_route_slot("/b"), set;
    char *text;

    (void)state;
    stats_request(a, OUTCOME_MISS, 100, 7);
    for (int64_t s = 1000; s < 1020; s++)
        stats_tick(s * 1000000);
    stats_request(b, OUTCOME_HIT, 200, 5);
    stats_tick(INT64_C(1020) * 1000000);
    assert_true(stats_windows(slice_of("10s"), &set));
    text = json(set);
    assert_null(strstr(text, "\"/a\""));
    assert_non_null(strstr(text, "{\"name\": \"/b\", \"outcomes\": {\"hit\": {\"bytes\": 5, \"10s\": "
        "{\"count\": 1, "));
    assert_null(strstr(text, "\"1m\": {"));
    assert_non_null(strstr(text, "\"total\": {\"outcomes\": {\"hit\": "));
    assert_null(strstr(text, "\"miss\": {\"bytes\""));
    free(text);
    assert_true(stats_windows(slice_of("1m,10s"), &set));
    text = json(set);
    assert_non_null(strstr(text, "\"hit_rate\": {\"10s\": 1.0000, \"1m\": 0.5000}"));
    assert_non_null(strstr(text, "{\"name\": \"/a\""));
    free(text);
    text = json(STATS_ALL_WINDOWS);
    assert_non_null(strstr(text, "\"total\": {\"outcomes\": {\"hit\": {\"bytes\": 5, "));
    free(text);
    assert_false(stats_windows(slice_of("10s,2m"), &set));
    assert_false(stats_windows(slice_of(""), &set));
}

static void
slow(uint64_t us, int64_t at_ms)
{
    struct stats_access a = { .wall_ms = at_ms, .us = us, .method = SLICE("GET"),
        .host = SLICE("api"), .target = SLICE("/x?\"y"), .route = SLICE("/x"),
        .outcome = OUTCOME_MISS, .status = 200 };

    if (stats_slowest_wants(us))
        stats_slowest(&a, SLICE("http://o"), SLICE("FETCH=1.000s"));
}

static void
the_slowest_are_kept_for_five_minutes_slowest_first(void **state)
{
    const char *at;
    char *text;

    (void)state;
    for (uint64_t i = 0; i < 1000; i++)
        slow(i * 7 % 1000 + 1, wall_ms());
    slow(5000, wall_ms() - 301000);                 /* when it ended, as a slow one tells it */
    text = json(STATS_ALL_WINDOWS);
    at = strstr(text, "\"slowest\": [");
    assert_int_equal(occurrences(at, "\"at_ms\""), 20);
    assert_non_null(at = strstr(at, "\"us\": 5000,"));
    for (unsigned us = 1000; us > 981; us--) {
        char want[32];

        snprintf(want, sizeof want, "\"us\": %u,", us);
        assert_non_null(at = strstr(at, want));
    }
    assert_non_null(strstr(text, "\"url\": \"api/x?\\\"y\", \"route\": \"/x\", \"outcome\": "
        "\"miss\", \"server\": \"http://o\", \"steps\": \"FETCH=1.000s\"}"));
    free(text);
    assert_false(stats_slowest_wants(982));
    stats_tick(1000000);                            /* one is too old, so there is room */
    assert_true(stats_slowest_wants(1));
    text = json(STATS_ALL_WINDOWS);
    assert_null(strstr(text, "\"us\": 5000,"));
    free(text);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_steps_are_those_tens_of_seconds_that_are_over),
        T(of_some_windows_only_what_was_used_in_them_is_told),
        T(the_slowest_are_kept_for_five_minutes_slowest_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
