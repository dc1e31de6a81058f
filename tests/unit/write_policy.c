/* What an answer to a delivery means, and when it is tried again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "write/policy.h"

static enum write_state
answered(bool repeatable, unsigned status)
{
    return policy_judge(repeatable, &(struct policy_heard){ .answered = true, .status = status });
}

static void
put_and_delete_may_be_repeated_and_others_by_promise_alone(void **state)
{
    (void)state;
    assert_true(policy_repeatable(HTTP_PUT, false));
    assert_true(policy_repeatable(HTTP_DELETE, false));
    assert_false(policy_repeatable(HTTP_POST, false));
    assert_false(policy_repeatable(HTTP_PATCH, false));
    assert_false(policy_repeatable(HTTP_OTHER, false));
    assert_true(policy_repeatable(HTTP_POST, true));
}

static void
every_2xx_is_delivered(void **state)
{
    (void)state;
    for (unsigned s = 200; s <= 299; s++) {
        assert_int_equal(answered(true, s), WRITE_DELIVERED);
        assert_int_equal(answered(false, s), WRITE_DELIVERED);
    }
}

static void
what_may_be_repeated_is_tried_again_after_408_425_429_and_5xx(void **state)
{
    static const unsigned again[] = { 408, 425, 429, 500, 501, 502, 503, 504, 507, 599 };

    (void)state;
    for (size_t i = 0; i < NELEM(again); i++)
        assert_int_equal(answered(true, again[i]), WRITE_WAITING);
}

static void
what_may_not_is_tried_again_after_425_and_429_alone(void **state)
{
    (void)state;
    assert_int_equal(answered(false, 425), WRITE_WAITING);
    assert_int_equal(answered(false, 429), WRITE_WAITING);
    assert_int_equal(answered(false, 408), WRITE_REJECTED);
    assert_int_equal(answered(false, 500), WRITE_REJECTED);
    assert_int_equal(answered(false, 503), WRITE_REJECTED);
    assert_int_equal(answered(false, 502), WRITE_UNCERTAIN);
    assert_int_equal(answered(false, 504), WRITE_UNCERTAIN);
}

static void
other_3xx_and_4xx_are_final(void **state)
{
    static const unsigned final[] = { 300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 409, 410,
        412, 413, 415, 422, 428, 451, 499 };

    (void)state;
    for (size_t i = 0; i < NELEM(final); i++) {
        assert_int_equal(answered(true, final[i]), WRITE_REJECTED);
        assert_int_equal(answered(false, final[i]), WRITE_REJECTED);
    }
}

static void
silence_is_uncertain_only_where_the_origin_was_reached_and_it_may_not_be_repeated(void **state)
{
    const struct policy_heard reached = { .reached = true }, not = { .reached = false };

    (void)state;
    assert_int_equal(policy_judge(true, &reached), WRITE_WAITING);
    assert_int_equal(policy_judge(false, &reached), WRITE_UNCERTAIN);
    assert_int_equal(policy_judge(true, &not), WRITE_WAITING);
    assert_int_equal(policy_judge(false, &not), WRITE_WAITING);
}

static const struct policy_retry first = { .attempts = 1, .accepted_ms = 1000000,
    .now_ms = 1000000, .retry_for_ms = 86400000, .min_ms = 1000, .max_ms = 300000,
    .retry_after_ms = -1 };

static void
the_wait_is_a_random_part_of_what_doubles_up_to_a_limit(void **state)
{
    static const int64_t most[] = { 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000,
        300000, 300000 };
    struct policy_retry r = first;

    (void)state;
    for (size_t i = 0; i < NELEM(most); i++) {
        int64_t low = INT64_MAX, high = -1, wait;

        r.attempts = (unsigned)i + 1;
        for (int k = 0; k < 2000; k++) {
            r.random = random_fast();
            wait = policy_backoff(&r);
            low = wait < low ? wait : low;
            high = wait > high ? wait : high;
        }
        assert_true(low >= 0 && low < most[i] / 20);
        assert_true(high <= most[i] && high > most[i] - most[i] / 20);
    }
    r.attempts = 4000000000u;
    assert_true(policy_backoff(&r) <= 300000);
}

static void
retry_after_is_the_least_of_a_wait_and_a_day_the_most_of_it(void **state)
{
    struct policy_retry r = first;

    (void)state;
    r.retry_for_ms = INT64_C(31536000000);
    r.retry_after_ms = 60000;
    r.random = 999;
    assert_int_equal(policy_backoff(&r), 60000);
    r.retry_after_ms = 5;
    assert_int_equal(policy_backoff(&r), 999);
    r.retry_after_ms = INT64_C(400) * 86400000;
    assert_int_equal(policy_backoff(&r), 86400000);
}

static void
it_ends_with_its_attempts_or_its_time_and_a_last_one_when_that_is_over(void **state)
{
    struct policy_retry r = first;

    (void)state;
    r.attempts_max = 3;
    r.attempts = 2;
    assert_true(policy_backoff(&r) >= 0);
    r.attempts = 3;
    assert_int_equal(policy_backoff(&r), -1);
    r = first;
    r.now_ms = r.accepted_ms + r.retry_for_ms - 10;
    r.random = 999;
    assert_int_equal(policy_backoff(&r), 10);
    r.retry_after_ms = 10;
    assert_int_equal(policy_backoff(&r), 10);
    r.retry_after_ms = 5000;            /* the origin wants none within that time */
    assert_int_equal(policy_backoff(&r), -1);
    r.now_ms += 10;
    assert_int_equal(policy_backoff(&r), -1);
    r.now_ms = r.accepted_ms - INT64_C(86400000) * 400;     /* the clock was set back */
    assert_true(policy_backoff(&r) <= 5000);
}

static int64_t
after(const char *text)
{
    const struct http_limits l = { 65536, 65536, HTTP_FIELDS_MAX };
    struct http_field fields[8];
    struct http_head h = { .fields = fields, .cap = 8 };
    struct http_fault f;

    assert_true(http_parse_response(text, strlen(text), &l, &h, &f) > 0);
    return http_retry_after(&h, INT64_C(784111777) * 1000);   /* 06 Nov 1994 08:49:37 */
}

static void
retry_after_is_seconds_or_a_date_by_the_origins_clock(void **state)
{
    (void)state;
    assert_int_equal(after("HTTP/1.1 503 x\r\nRetry-After: 120\r\n\r\n"), 120000);
    assert_int_equal(after("HTTP/1.1 503 x\r\nRetry-After: 0\r\n\r\n"), 0);
    assert_int_equal(after("HTTP/1.1 503 x\r\n\r\n"), -1);
    assert_int_equal(after("HTTP/1.1 503 x\r\nRetry-After: soon\r\n\r\n"), -1);
    assert_int_equal(after("HTTP/1.1 503 x\r\nRetry-After: -1\r\n\r\n"), -1);
    assert_int_equal(after("HTTP/1.1 503 x\r\n"
        "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n\r\n"), 30000);
    assert_int_equal(after("HTTP/1.1 503 x\r\nDate: Sun, 06 Nov 1994 08:40:07 GMT\r\n"
        "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n\r\n"), 600000);
    assert_int_equal(after("HTTP/1.1 503 x\r\n"
        "Retry-After: Sun, 06 Nov 1994 08:00:00 GMT\r\n\r\n"), 0);
}

static void
only_an_origin_that_cannot_be_reached_opens_the_breaker(void **state)
{
    (void)state;
    assert_true(policy_unreachable(&(struct exchange_fault){ .cause = "connection_refused" }));
    assert_true(policy_unreachable(&(struct exchange_fault){ .cause = "dns_error" }));
    assert_true(policy_unreachable(&(struct exchange_fault){ .cause = "connection_timeout" }));
    assert_false(policy_unreachable(&(struct exchange_fault){
        .cause = "connection_limit_reached" }));
    assert_false(policy_unreachable(&(struct exchange_fault){
        .cause = "connection_read_timeout", .reached = true }));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_and_delete_may_be_repeated_and_others_by_promise_alone),
        cmocka_unit_test(every_2xx_is_delivered),
        cmocka_unit_test(what_may_be_repeated_is_tried_again_after_408_425_429_and_5xx),
        cmocka_unit_test(what_may_not_is_tried_again_after_425_and_429_alone),
        cmocka_unit_test(other_3xx_and_4xx_are_final),
        cmocka_unit_test(
            silence_is_uncertain_only_where_the_origin_was_reached_and_it_may_not_be_repeated),
        cmocka_unit_test(the_wait_is_a_random_part_of_what_doubles_up_to_a_limit),
        cmocka_unit_test(retry_after_is_the_least_of_a_wait_and_a_day_the_most_of_it),
        cmocka_unit_test(it_ends_with_its_attempts_or_its_time_and_a_last_one_when_that_is_over),
        cmocka_unit_test(retry_after_is_seconds_or_a_date_by_the_origins_clock),
        cmocka_unit_test(only_an_origin_that_cannot_be_reached_opens_the_breaker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
