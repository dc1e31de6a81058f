/*
 * Vary in one form, and when two requests select the same variant.
 */
#include "semantics_util.h"

static const struct { const char *lines, *canonical; } vary_cases[] = {
    { "X: y", "" }, { "Vary:", "" }, { "Vary: , ,", "" },
    { "Vary: Foo", "foo" }, { "Vary: foo, FOO", "foo" }, { "Vary: b, a, B, a", "a,b" },
    { "Vary: Foo\nVary: Bar", "bar,foo" },
    { "Vary: Accept-Encoding,Accept", "accept,accept-encoding" },
    { "Vary: ,a,,b,", "a,b" },
    { "Vary: *", NULL }, { "Vary: *, *", NULL }, { "Vary: *\nVary: *", NULL },
    { "Vary: , *", NULL },
    { "Vary:\nVary: *", NULL }, { "Vary: *, Foo", NULL }, { "Vary: Foo, *", NULL },
    { "Vary: Foo\nVary: *", NULL }, { "Vary: \"*\"", NULL }, { "Vary: a b", NULL },
    { "Vary: a;q=1", NULL },
};

static void
vary_has_one_form_and_a_star_matches_nothing(void **state)
{
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(vary_cases); i++) {
        struct buf b = { 0 };
        bool ok = sem_vary(response_of(&h, 200, vary_cases[i].lines), &b);

        if (ok != (vary_cases[i].canonical != NULL) ||
            (ok && !slice_eq(buf_slice(&b), slice_of(vary_cases[i].canonical))))
            fail_msg("%s: %.*s", vary_cases[i].lines, (int)b.n, b.p);
        if (!ok)
            assert_int_equal(b.n, 0);
        buf_free(&b);
    }
}

static void
vary_on_more_fields_than_is_sane_is_refused(void **state)
{
    struct head h;
    struct buf lines = { 0 }, b = { 0 };

    (void)state;
    buf_addz(&lines, "Vary: a0");
    for (int i = 1; i < 64; i++)
        buf_printf(&lines, ",a%d", i);
    buf_addc(&lines, '\0');
    assert_true(sem_vary(response_of(&h, 200, lines.p), &b));
    lines.n--;
    buf_addz(&lines, ",one-more");
    buf_addc(&lines, '\0');
    b.n = 0;
    assert_false(sem_vary(response_of(&h, 200, lines.p), &b));
    buf_free(&lines);
    buf_free(&b);
}

static const struct { const char *vary, *a, *b; bool same; } variant_cases[] = {
    { "", "Foo: 1", "Foo: 2", true },
    { "foo", "Foo: 1", "foo: 1", true },
    { "foo", "Foo: 1", "Foo: 2", false },
    { "foo", "Foo: 1", "", false },
    { "foo", "", "", true },
    { "foo", "", "Foo:", false },                       /* absent is not empty */
    { "foo", "Foo: 1\nOther: 2", "Foo: 1\nOther: 3", true },
    { "foo", "Foo: 1, 2", "Foo: 1\nFoo: 2", true },     /* RFC 9110 5.3 */
    { "foo", "Foo: 1, 2", "Foo:  1, 2 ", true },
    { "foo", "Foo: 12", "Foo: 1 2", false },
    { "foo", "Foo: a", "Foo: A", false },
    /* What is not known to be a list means what its bytes mean. */
    { "foo", "Foo: 1,2", "Foo: 1, 2", false },
    { "foo", "Foo: 1,2", "Foo: 1,,2", false },
    { "foo", "Foo:", "Foo: ,", false },
    { "foo", "Foo: 1", "Foo: 1\nFoo:", false },
    { "foo", "Foo: 1\nFoo: 2", "Foo: 2\nFoo: 1", false },
    { "cookie", "Cookie: a=1,,2", "Cookie: a=1,2", false },
    { "cookie", "Cookie: a=,", "Cookie: a=", false },
    { "cookie", "Cookie: a=1; b=2", "Cookie: a=1; b=2", true },
    { "user-agent", "User-Agent: x (a,, b)", "User-Agent: x (a, b)", false },
    { "accept", "Accept:", "Accept: ,", true },
    { "accept", "Accept: a/b, c/d", "Accept: a/b\nAccept: c/d", true },
    { "accept", "Accept: a/b,c/d", "Accept:  a/b, c/d ", true },
    { "accept", "Accept: a/b,c/d", "Accept: a/b,,c/d", true },      /* RFC 9110 5.6.1 */
    { "accept", "Accept: a/b,c/d", "Accept: c/d,a/b", false },
    { "prefer", "Prefer: a=\"1, 2\"", "Prefer: a=\"1,2\"", false },  /* in quotes it is content */
    { "bar,foo", "Foo: 1\nBar: 2", "Bar: 2\nFoo: 1", true },
    { "bar,foo", "Foo: 1\nBar: 2", "Bar: 1\nFoo: 2", false },
    { "bar,foo", "Foo: 1", "Bar: 1", false },
    { "bar,foo", "Foo: 1", "Foo: 1", true },
    { "bar,foo", "Bar: x\nFoo: y", "Bar: xy\nFoo:", false },
    { "accept", "Accept: a/b", "Accept: a/b\nAccept-Encoding: gzip", true },
    { "accept-encoding", "Accept-Encoding: gzip, br", "Accept-Encoding: gzip,br", true },
};

static void
variants_match_when_the_named_fields_do(void **state)
{
    struct head ha, hb;

    (void)state;
    for (size_t i = 0; i < NELEM(variant_cases); i++) {
        struct buf a = { 0 }, b = { 0 };
        struct slice vary = slice_of(variant_cases[i].vary);

        sem_variant(vary, request_of(&ha, "GET", variant_cases[i].a), &a);
        sem_variant(vary, request_of(&hb, "GET", variant_cases[i].b), &b);
        if (slice_eq(buf_slice(&a), buf_slice(&b)) != variant_cases[i].same)
            fail_msg("%s: %s | %s", variant_cases[i].vary, variant_cases[i].a, variant_cases[i].b);
        buf_free(&a);
        buf_free(&b);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vary_has_one_form_and_a_star_matches_nothing),
        cmocka_unit_test(vary_on_more_fields_than_is_sane_is_refused),
        cmocka_unit_test(variants_match_when_the_named_fields_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
