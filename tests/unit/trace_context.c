/*
 * Trace Context: which traceparents are read, and what is told of a trace.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "trace/inside.h"

#define GOOD "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static void
a_traceparent_gives_ids_and_whether_it_is_sampled(void **state)
{
    struct trace t;

    (void)state;
    assert_true(trace_read(SLICE(GOOD), &t));
    assert_true(t.hi == 0x4bf92f3577b34da6 && t.lo == 0xa3ce929d0e0e4736);
    assert_true(t.parent == 0x00f067aa0ba902b7 && t.sampled);
    assert_true(trace_read(SLICE("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02"), &t));
    assert_false(t.sampled);
    /* of a later version what is known of it */
    assert_true(trace_read(SLICE("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"),
        &t));
    assert_true(t.sampled);
}

static void
what_is_malformed_is_not_read(void **state)
{
    static const char *const bad[] = { "", "junk", GOOD "-x", GOOD "0",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
        "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01" };
    struct trace t;

    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++)
        if (trace_read(slice_of(bad[i]), &t))
            fail_msg("%s was read", bad[i]);
}

static void
what_is_told_can_be_read_again(void **state)
{
    struct trace t = { .hi = 1, .lo = UINT64_MAX, .parent = 5, .span = 6, .client = 7,
        .sampled = true }, u;
    struct buf b = { 0 };

    (void)state;
    trace_tell(&t, &b);
    assert_true(trace_read(buf_slice(&b), &u));
    assert_true(u.hi == 1 && u.lo == UINT64_MAX && u.parent == 7 && u.sampled);
    buf_free(&b);
}

static void
spans_are_json_whatever_a_client_sent(void **state)
{
    struct trace t = { .hi = 1, .lo = 2, .span = 3, .client = 4, .sampled = true };
    const struct stats_step steps[] = { { "ROUTE", 0, 1 }, { "FETCH", 1, 5 } };
    struct stats_access a = { .method = SLICE("GET"), .route = SLICE("a\"b"), .us = 10,
        .target = SLICE("/\x01\xff\"?secret"), .host = SLICE("h"), .origin = SLICE("http://o"),
        .status = 200, .pool_us = -1, .connect_us = -1, .first_byte_us = 4, .tries = 1,
        .steps = steps, .nsteps = 2 };
    struct buf b = { 0 };

    (void)state;
    assert_int_equal(otlp_spans(&b, &t, SLICE("x=\"y\""), &a, 1000000), 3);
    buf_addc(&b, '\0');
    assert_non_null(strstr(b.p, "\"name\":\"GET a\\\"b\",\"kind\":2,"
        "\"startTimeUnixNano\":\"990000\",\"endTimeUnixNano\":\"1000000\""));
    assert_non_null(strstr(b.p, "\"spanId\":\"0000000000000004\","
        "\"parentSpanId\":\"0000000000000003\",\"name\":\"fetch\",\"kind\":3"));
    assert_non_null(strstr(b.p, "{\"key\":\"weir.first_byte_us\",\"value\":{\"intValue\":\"4\"}}"));
    assert_null(strstr(b.p, "secret"));
    assert_null(strstr(b.p, "weir.pool_us"));
    buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_traceparent_gives_ids_and_whether_it_is_sampled),
        cmocka_unit_test(what_is_malformed_is_not_read),
        cmocka_unit_test(what_is_told_can_be_read_again),
        cmocka_unit_test(spans_are_json_whatever_a_client_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
