/*
 * What was weighed: the same decisions as without a trace, each with the clause that made it.
 */
#include "semantics_util.h"

static const char *const responses[] = {
    "", "Cache-Control: max-age=60", "Cache-Control: private", "Cache-Control: no-store",
    "Cache-Control: no-cache", "Cache-Control: no-cache\nETag: \"a\"", "Cache-Control: public",
    "Cache-Control: s-maxage=5, max-age=9", "Expires: @60", "Expires: 0", "Vary: *",
    "Last-Modified: @-1000", "Set-Cookie: a=b\nETag: \"a\"", "Clear-Site-Data: x\nETag: \"a\"",
    "Set-Cookie: a=b\nCache-Control: max-age=1", "Cache-Control: must-understand, max-age=5",
    "Cache-Control: max-age=60, must-revalidate", "Cache-Control: max-age=0",
    "Cache-Control: max-age=1, stale-while-revalidate=9, stale-if-error=9", "ETag: \"a\"",
    "Content-Range: bytes 0-1/2\nCache-Control: max-age=60",
    "Content-Range: x\nCache-Control: max-age=60", "CDN-Cache-Control: max-age=7",
};
static const unsigned statuses[] = { 200, 206, 302, 304, 404, 418, 500, 511, 599 };
static const char *const requests[] = {
    "", "Authorization: x", "Cache-Control: no-store", "Cache-Control: no-cache",
    "Cache-Control: max-age=5", "Cache-Control: min-fresh=50", "Cache-Control: max-stale",
    "Cache-Control: max-stale=5", "Cache-Control: max-stale, max-age=100", "Range: bytes=0-1",
    "If-Match: \"a\"", "Pragma: no-cache", "Cache-Control: stale-if-error=5",
};
static const enum http_method methods[] = { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_QUERY };

/* The word of the last clause that forbids; "" for none. */
static const char *
forbidden_by(const struct sem_trace *t)
{
    for (size_t i = t->n; i > 0; i--)
        if (t->at[i - 1].outcome == SEM_FORBIDS)
            return t->at[i - 1].word;
    return "";
}

/* Which word gave the lifetime. */
static const char *
given_by(const struct sem_trace *t)
{
    for (size_t i = t->n; i > 0; i--)
        if (t->at[i - 1].outcome == SEM_GIVES)
            return t->at[i - 1].word;
    return "";
}

static void
request_read(const char *lines, enum http_method m, struct sem_request *rq)
{
    static struct head h;

    head_fields(&h, lines);
    h.h.method = m;
    sem_request_read(&h.h, rq);
}

static void
store_agrees(const struct sem_request *rq, struct http_head *h, const struct sem_rules *rules)
{
    struct sem_meta a, b;
    struct sem_trace t = { 0 };
    const char *why = NULL, *traced = NULL;
    bool stored = sem_store(rq, h, rules, NOW_MS, NOW_MS, &a, &why);

    assert_int_equal(sem_store_weigh(rq, h, rules, NOW_MS, NOW_MS, &b, &traced, &t), stored);
    assert_true(t.n > 0 && t.n < SEM_STEPS_MAX);
    if (stored) {
        assert_memory_equal(&a, &b, sizeof a);
        assert_string_equal(forbidden_by(&t), "");
    } else {
        assert_string_equal(why, traced);
        assert_string_equal(forbidden_by(&t), why);
        assert_ptr_equal(t.at[t.n - 1].word, forbidden_by(&t));     /* nothing comes behind it */
    }
}

static void
storing_says_which_clause_forbade_it_and_decides_the_same(void **state)
{
    static const struct sem_status_ttl negative[] = { { 404, 1000 } };
    static const struct slice targets[] = { { "CDN-Cache-Control", 17 } };
    static const struct sem_rules rules[] = {
        { .ttl_ms = -1, .force_ttl_ms = -1, .swr_ms = -1, .sie_ms = -1 },
        { .ttl_ms = 5000, .force_ttl_ms = -1, .swr_ms = 1000, .sie_ms = -1, .heuristic = true,
            .negative = negative, .nnegative = 1, .targets = { targets, 1 } },
        { .ttl_ms = -1, .force_ttl_ms = 7000, .swr_ms = -1, .sie_ms = -1 },
        { .ttl_ms = -1, .force_ttl_ms = -1, .swr_ms = -1, .sie_ms = -1, .heuristic = true },
    };
    struct sem_request rq;
    struct head h;

    (void)state;
    for (size_t m = 0; m < NELEM(methods); m++)
        for (size_t q = 0; q < NELEM(requests); q++)
            for (size_t a = 0; a < NELEM(responses) * NELEM(statuses); a++) {
                request_read(requests[q], methods[m], &rq);
                response_of(&h, statuses[a % NELEM(statuses)], responses[a / NELEM(statuses)]);
                for (size_t k = 0; k < NELEM(rules) * 2; k++) {
                    rq.promised = rq.content && k >= NELEM(rules);
                    store_agrees(&rq, &h.h, &rules[k % NELEM(rules)]);
                }
            }
}

static void
a_lifetime_names_what_gave_it(void **state)
{
    static const struct slice targets[] = { { "CDN-Cache-Control", 17 } };
    static const struct sem_status_ttl negative[] = { { 404, 1000 } };
    static const struct {
        const char *response, *word;
        unsigned status;
        int64_t ttl_ms, force_ms, ms;
    } cases[] = {
        { "Cache-Control: s-maxage=5, max-age=9", "s-maxage", 200, -1, -1, 5000 },
        { "Cache-Control: max-age=9\nExpires: @60", "max-age", 200, -1, -1, 9000 },
        { "CDN-Cache-Control: max-age=7\nCache-Control: max-age=9", "max-age", 200, -1, -1, 7000 },
        { "Expires: @60\nDate: @0", "expires", 200, -1, -1, 60000 },
        { "", "ttl", 200, 4000, -1, 4000 },
        { "", "negative_ttl", 404, 4000, -1, 1000 },
        { "Last-Modified: @-1000\nDate: @0", "heuristic", 200, -1, -1, 100000 },
        { "Cache-Control: no-store", "force_ttl", 200, -1, 3000, 3000 },
    };
    struct sem_request rq;
    struct head h;

    (void)state;
    request_read("", HTTP_GET, &rq);
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct sem_rules rules = { .ttl_ms = cases[i].ttl_ms, .force_ttl_ms = cases[i].force_ms,
            .swr_ms = -1, .sie_ms = -1, .heuristic = true, .targets = { targets, 1 },
            .negative = negative, .nnegative = 1 };
        struct sem_trace t = { 0 };
        struct sem_meta m;
        const char *why;

        response_of(&h, cases[i].status, cases[i].response);
        assert_true(sem_store_weigh(&rq, &h.h, &rules, NOW_MS, NOW_MS, &m, &why, &t));
        assert_string_equal(given_by(&t), cases[i].word);
        assert_int_equal(m.lifetime_ms, cases[i].ms);
    }
}

static void
use_agrees(const struct sem_request *rq, const struct sem_meta *m, int64_t now, bool soft)
{
    struct sem_trace t = { 0 }, e = { 0 };
    const char *why, *traced;
    enum sem_use use = sem_use(rq, m, now, soft, &why);
    bool on_error = sem_stale_on_error(rq, m, now);

    assert_int_equal(sem_use_weigh(rq, m, now, soft, &traced, &t), use);
    assert_true(why == traced || strcmp(why, traced) == 0);
    assert_int_equal(sem_stale_on_error_weigh(rq, m, now, &e), on_error);
    assert_int_equal(e.at[e.n - 1].outcome == SEM_GIVES, on_error);
    if (use == SEM_FRESH || use == SEM_PART)
        assert_string_equal(forbidden_by(&t), "");
    else if (use == SEM_STALE || use == SEM_STALE_REVALIDATE)
        assert_string_equal(given_by(&t), why);
    else
        assert_string_not_equal(forbidden_by(&t), "");
}

static void
reusing_says_what_was_weighed_and_decides_the_same(void **state)
{
    static const unsigned flags[] = { 0, META_NO_CACHE, META_MUST_REVALIDATE, META_SHARED_AUTH,
        META_PARTIAL };
    struct sem_request rq;

    (void)state;
    for (size_t q = 0; q < NELEM(requests); q++)
        for (size_t f = 0; f < NELEM(flags); f++)
            for (int64_t age = 0; age < 130; age += 3)
                for (int k = 0; k < 8; k++) {
                    struct sem_meta m = { .response_ms = NOW_MS, .lifetime_ms = 60000,
                        .flags = (uint16_t)flags[f], .swr_s = k & 1 ? 20 : -1,
                        .sie_s = k & 2 ? 40 : -1, .status = 200 };

                    request_read(requests[q], HTTP_GET, &rq);
                    use_agrees(&rq, &m, NOW_MS + age * 1000, k & 4);
                }
}

static void
a_request_says_what_was_weighed_and_decides_the_same(void **state)
{
    struct sem_request rq;

    (void)state;
    for (size_t m = 0; m < NELEM(methods); m++)
        for (size_t q = 0; q < NELEM(requests); q++) {
            struct sem_trace t = { 0 };
            const char *why, *traced;
            bool may;

            request_read(requests[q], methods[m], &rq);
            may = sem_request_cacheable(&rq, &why);
            assert_int_equal(sem_request_weigh(&rq, &traced, &t), may);
            assert_string_equal(forbidden_by(&t), may ? "" : why);
        }
}

static void
the_values_of_a_variant_are_read_one_by_one(void **state)
{
    struct slice vary = SLICE("accept,x-a,x-b"), variant, name, value;
    struct buf b = { 0 };
    struct head h;

    (void)state;
    head_fields(&h, "Accept: a/b\nX-B: ");
    sem_variant(vary, &h.h, &b);
    variant = buf_slice(&b);
    assert_true(slice_eq(variant, SLICE("\3\0\0\0a/b" "\xff\xff\xff\xff" "\0\0\0\0")));
    assert_true(sem_variant_next(&vary, &variant, &name, &value));
    assert_true(slice_eq(name, SLICE("accept")) && slice_eq(value, SLICE("a/b")));
    assert_true(sem_variant_next(&vary, &variant, &name, &value));
    assert_true(slice_eq(name, SLICE("x-a")) && value.p == NULL);
    assert_true(sem_variant_next(&vary, &variant, &name, &value));
    assert_true(slice_eq(name, SLICE("x-b")) && value.p != NULL && value.n == 0);
    assert_false(sem_variant_next(&vary, &variant, &name, &value));
    buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storing_says_which_clause_forbade_it_and_decides_the_same),
        cmocka_unit_test(a_lifetime_names_what_gave_it),
        cmocka_unit_test(reusing_says_what_was_weighed_and_decides_the_same),
        cmocka_unit_test(a_request_says_what_was_weighed_and_decides_the_same),
        cmocka_unit_test(the_values_of_a_variant_are_read_one_by_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
