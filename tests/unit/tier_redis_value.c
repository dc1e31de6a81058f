/*
 * The Redis tier: names of keys, markers of variants, how long a value is kept.
 */
#include "tier_kit.h"

#include "tier/redis.h"

#define KEY SLICE("http://h/a")

static struct slice
text(const struct rtier_id *id)
{
    return (struct slice){ id->text, id->n };
}

static void
names_are_of_the_whole_key_and_stay_in_one_slot(void **state)
{
    struct rtier_id a, b, en, de, other;
    struct rtier_name name;
    struct slice value;

    (void)state;
    rtier_id_of(KEY, &a);
    rtier_id_of(SLICE("http://h/b"), &b);
    assert_int_equal(a.n, 34);
    assert_false(rtier_id_eq(&a, text(&b)));
    rtier_id_of_variant(&a, SLICE("accept-language"), SLICE("en"), &en);
    rtier_id_of_variant(&a, SLICE("accept-language"), SLICE("de"), &de);
    rtier_id_of_variant(&a, SLICE("x-language"), SLICE("en"), &other);
    assert_false(rtier_id_eq(&en, text(&de)));
    assert_false(rtier_id_eq(&en, text(&other)));
    assert_true(slice_starts(text(&en), text(&a)));
    value = rtier_name(SLICE("weir:"), RTIER_VALUE, &en, &name);
    assert_true(slice_starts(value, SLICE("weir:o:{")));
    assert_int_equal(value.n, 7 + 34 + 33);
}

static void
the_longest_name_has_room(void **state)
{
    char prefix[RTIER_PREFIX_MAX];
    struct rtier_name name;
    struct rtier_id a, v;

    (void)state;
    memset(prefix, 'p', sizeof prefix);
    rtier_id_of(KEY, &a);
    rtier_id_of_variant(&a, SLICE("x"), SLICE("y"), &v);
    assert_true(v.n <= RTIER_ID_MAX);
    assert_true(rtier_name((struct slice){ prefix, sizeof prefix }, RTIER_LEASE, &v, &name).n <=
        sizeof name.text);
}

static enum value_verdict
read_marker(struct slice in)
{
    struct slice key, vary;
    char *exact = malloc(in.n > 0 ? in.n : 1);          /* nothing is read outside of it */
    enum value_verdict r;

    memcpy(exact, in.p, in.n);
    r = rtier_marker_read((struct slice){ exact, in.n }, &key, &vary);
    free(exact);
    return r;
}

static void
a_marker_says_what_was_written_or_nothing(void **state)
{
    struct buf b = { 0 };
    struct slice key, vary;

    (void)state;
    assert_true(rtier_marker_put(KEY, SLICE("accept,x-tenant"), &b));
    assert_int_equal(rtier_marker_read(buf_slice(&b), &key, &vary), VALUE_GOOD);
    assert_true(slice_eq(key, KEY));
    assert_true(slice_eq(vary, SLICE("accept,x-tenant")));
    for (size_t n = 0; n < b.n; n++)
        assert_int_not_equal(read_marker((struct slice){ b.p, n }), VALUE_GOOD);
    for (size_t i = 0; i < b.n; i++) {
        b.p[i] ^= 1;
        assert_int_equal(read_marker(buf_slice(&b)), i < 8 ? VALUE_UNKNOWN : VALUE_BAD);
        b.p[i] ^= 1;
    }
    b.p[7] = 2;                         /* another version */
    assert_int_equal(read_marker(buf_slice(&b)), VALUE_UNKNOWN);
    buf_free(&b);
}

static void
a_marker_of_what_is_no_list_of_fields_is_bad(void **state)
{
    static const char *const lists[] = { "", "Accept", "accept,,x", "accept,", "*", "ac cept",
        "accept\n" };

    (void)state;
    for (size_t i = 0; i < NELEM(lists); i++) {
        struct buf b = { 0 };
        enum value_verdict want = strcmp(lists[i], "*") == 0 ? VALUE_GOOD : VALUE_BAD;

        assert_true(rtier_marker_put(KEY, slice_of(lists[i]), &b));
        assert_int_equal(read_marker(buf_slice(&b)), want);     /* "*" is a token, of no field */
        buf_free(&b);
    }
}

#define NOW 1000000
static struct sem_meta
meta(int64_t lifetime_s, int64_t age_s, int32_t swr_s, int32_t sie_s, unsigned flags)
{
    return (struct sem_meta){ .response_ms = NOW - age_s * 1000, .date_ms = NOW - age_s * 1000,
        .lifetime_ms = lifetime_s * 1000, .swr_s = swr_s, .sie_s = sie_s, .status = 200,
        .flags = (uint16_t)flags };
}

static void
a_value_is_kept_while_it_is_of_use_and_no_longer_than_max_ttl(void **state)
{
    static const struct { int64_t life, age; int32_t swr, sie; unsigned flags; int64_t keep; }
    cases[] = {
        { 60, 0, -1, -1, 0, 60000 },
        { 60, 20, -1, -1, 0, 40000 },
        { 60, 20, 30, -1, 0, 70000 },                       /* RFC 5861 3 */
        { 60, 20, 30, 90, 0, 130000 },                      /* ... 4 */
        { 60, 20, 30, 90, META_MUST_REVALIDATE, 40000 },    /* RFC 9111 4.2.4 */
        { 60, 20, 30, 90, META_NO_CACHE, 0 },
        { 3600, 0, -1, -1, 0, 300000 },                     /* max_ttl */
        { 60, 58, 600, -1, 0, 300000 },
        { 60, 59, 600, -1, 0, 0 },                          /* fresh for less than min_ttl */
        { 60, 60, 600, 600, 0, 0 },
        { 0, 0, 600, 600, 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct sem_meta m = meta(cases[i].life, cases[i].age, cases[i].swr, cases[i].sie,
            cases[i].flags);

        assert_int_equal(rtier_keep_ms(&m, NOW, 2000, 300000), cases[i].keep);
    }
}

static void
what_is_left_ends_with_the_last_stale_use(void **state)
{
    struct sem_meta m = meta(60, 80, 30, -1, 0);

    (void)state;
    assert_int_equal(rtier_left_ms(&m, NOW), 10000);
    m = meta(60, 90, 30, -1, 0);
    assert_int_equal(rtier_left_ms(&m, NOW), 0);
    m = meta(60, 61, -1, -1, 0);
    assert_true(rtier_left_ms(&m, NOW) < 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_of_the_whole_key_and_stay_in_one_slot),
        cmocka_unit_test(the_longest_name_has_room),
        cmocka_unit_test(a_marker_says_what_was_written_or_nothing),
        cmocka_unit_test(a_marker_of_what_is_no_list_of_fields_is_bad),
        cmocka_unit_test(a_value_is_kept_while_it_is_of_use_and_no_longer_than_max_ttl),
        cmocka_unit_test(what_is_left_ends_with_the_last_stale_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
