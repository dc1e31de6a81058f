/*
 * No-Vary-Search: the rule of a field, and which queries it calls equal. The cases of the draft.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "http/http.h"

/* The rule of a response with this field; NULL: without. Lines parted by '\n'. */
static struct slice
rule_of(const char *field, struct buf *b)
{
    static char text[16384];
    struct http_field fields[8];
    struct http_head h = { .fields = fields, .cap = 8 };
    size_t n = 0;
    int found;

    b->n = 0;
    n += (size_t)sprintf(text, "No-Vary-Search: ");
    for (; *field != '\0'; field++)
        n += (size_t)sprintf(text + n, *field == '\n' ? "\r\nNo-Vary-Search: " : "%c", *field);
    n += (size_t)sprintf(text + n, "\r\n");
    assert_int_equal(http_parse_fields(text, n, &h), 0);
    found = http_search_rule(&h, b);
    assert_int_equal(found, b->n > 0);
    return buf_slice(b);
}

static const struct { const char *field, *rule; } rules[] = {
    { "params", ".a" }, { "params=?1", ".a" }, { "params=(\"a\")", ".l&a" },
    { "params, except=(\"x\")", ".a&x" }, { "key-order", "ol" }, { "key-order=?1", "ol" },
    { "params, key-order, except=(\"x\")", "oa&x" }, { "key-order, params", "oa" },
    { "params, except=()", ".a" }, { "params=(\"b\" \"a\" \"b\")", ".l&a&b" },
    { "params=(\"\")", ".l&" }, { "params=(\"a\";x=1);y", ".l&a" },
    { "key-order;x=1", "ol" },
    { "params=?0, params", ".a" },          /* RFC 9651 4.2.2: the last */
    { "params=(\"a\")\nkey-order", "ol&a" }, { "params, params=(\"a\")", ".l&a" },
    { "params=(\"%C3%A9+%E6%B0%97\")", ".l&%C3%A9+%E6%B0%97" },
    { "params=(\"%c3%a9 %e6%b0%97\")", ".l&%C3%A9+%E6%B0%97" },
    { "params=(\"%61\")", ".l&a" }, { "params=(\"a&b\" \"100%\")", ".l&100%25&a%26b" },
    { "params=(\"\\\"\\\\\")", ".l&%22%5C" },
    { "except=(\"x\")", ".a&x" }, { "except=()", ".a" }, { "except=(\"x\"), key-order", "oa&x" },
    /* members that are not known */
    { "unknown-key", "" }, { "key-order, unknown-key", "ol" },
    { "unknown-key=(\"x\" 1);a, params=(\"a\")", ".l&a" }, { "except=(\"x\"), b=?0", ".a&x" },
    /* what holds without it */
    { "params=?0", "" }, { "params=()", "" }, { "key-order=?0", "" }, { "", "" },
    /* not valid */
    { "key-order=\"not a boolean\"", "" },
    { "params=\"not a boolean or inner list\"", "" }, { "params=(not-a-string)", "" },
    { "params=(\"a\"), except=(\"x\")", "" }, { "params=(), except=()", "" },
    { "params=?0, except=(\"x\")", "" }, { "params, except=(not-a-string)", "" },
    { "params, except=\"not an inner list\"", "" }, { "params, except=?1", "" },
    { "except=(not-a-string)", "" }, { "except=?1", "" }, { "except=\"not an inner list\"", "" },
    { "params=1, except=(\"x\")", "" }, { "key-order=1", "" }, { "params=1", "" },
    { "params=(\"a\" 1)", "" }, { "params=(\"a\"", "" }, { "key-order\nparams=(", "" },
    { "Params", "" },
};

static void
a_field_is_a_rule_of_one_form_or_none(void **state)
{
    struct buf b = { 0 };

    (void)state;
    for (size_t i = 0; i < NELEM(rules); i++)
        if (!slice_eq(rule_of(rules[i].field, &b), slice_of(rules[i].rule)))
            fail_msg("%s: %.*s", rules[i].field, SLICE_ARG(buf_slice(&b)));
    buf_free(&b);
}

static void
a_rule_of_thousands_of_bytes_is_none(void **state)
{
    struct buf b = { 0 }, field = { 0 };

    (void)state;
    for (int names = 400; names <= 2000; names += 1600) {
        field.n = 0;
        buf_addz(&field, "params=(");
        for (int i = 0; i < names; i++)
            buf_printf(&field, "%s\"%04d\"", i > 0 ? " " : "", i);
        buf_addz(&field, ")");
        buf_addc(&field, '\0');
        assert_int_equal(rule_of(field.p, &b).n, names == 400 ? 2 + 400 * 5 : 0);
    }
    buf_free(&b);
    buf_free(&field);
}

static const struct { const char *field, *a, *b; bool equal; } pairs[] = {
    /* whatever the rule, as long as there is one */
    { "key-order", "", "", true }, { "key-order", "a=x", "%61=%78", true },
    { "key-order", "a=\xc3\xa9", "a=%C3%A9", true }, { "key-order", "a=%f6", "a=%ef%bf%bd", true },
    { "key-order", "a=x&&&&", "a=x", true }, { "key-order", "a=", "a", true },
    { "key-order", "a=%20", "a=+", true }, { "key-order", "a=%20", "a= &", true },
    { "key-order", "a=b", "a=c", false }, { "key-order", "a", "", false },
    { "key-order", "a=%2", "a=%252", true }, { "key-order", "a=%zz", "a=%25zz", true },
    { "key-order", "a=%2B", "a=+", false }, { "key-order", "a=b=c", "a=b%3Dc", true },
    { "key-order", "a%3Db=c", "a=b=c", false }, { "key-order", "a%26b=c", "a&b=c", false },
    { "key-order", "A=1", "a=1", false }, { "key-order", "=", "", false },
    { "key-order", "=", "=&", true },
    /* UTF-8 as the Encoding Standard has it: one U+FFFD for each maximal part */
    { "key-order", "a=%F0%9F%98", "a=%EF%BF%BD", true },
    { "key-order", "a=%F0%9Fx", "a=%EF%BF%BDx", true },
    { "key-order", "a=%C3%C3%A9", "a=%EF%BF%BD%C3%A9", true },
    { "key-order", "a=%ED%A0%80", "a=%EF%BF%BD%EF%BF%BD%EF%BF%BD", true },
    { "key-order", "a=%80%80", "a=%EF%BF%BD%EF%BF%BD", true },
    { "key-order", "a=%EF%BB%BFx", "a=x", false },
    { "key-order", "a=%F0%9F%98%80", "a=\xf0\x9f\x98\x80", true },
    /* order */
    { "key-order", "a=1&b=2&c=3", "c=3&b=2&a=1", true },
    { "key-order", "a=1&a=2", "a=2&a=1", false }, { "key-order", "a=1&b=2&a=3", "b=2&a=1&a=3", true },
    { "key-order", "b=1&ab=2", "ab=2&b=1", true }, { "params=(\"x\")", "a=1&b=2", "b=2&a=1", false },
    /* listed */
    { "params=(\"x\")", "x=1", "", true }, { "params=(\"x\")", "a=1&x=1&x", "a=1", true },
    { "params=(\"x\")", "xy=1", "", false }, { "params=(\"x\")", "a=1", "a=2", false },
    { "params=(\"x\" \"y\")", "y=1&a=1&x=2", "x=3&a=1", true },
    { "params=(\"a b\")", "a+b=1", "a%20b=2", true },
    { "params=(\"%C3%A9+%E6%B0%97\")", "\xc3\xa9+\xe6\xb0\x97=1", "%C3%A9%20%E6%B0%97=2", true },
    { "params=(\"\")", "=1", "", true },
    /* all, all but */
    { "params", "a=1&b=2", "", true }, { "params, except=(\"id\")", "id=1&a=1", "b=2&id=1", true },
    { "params, except=(\"id\")", "id=1", "id=2", false },
    { "params, except=(\"id\")", "id=1", "", false },
    { "params, except=(\"a\" \"b\")", "a=1&b=1", "b=1&a=1", false },
    { "params, except=(\"a\" \"b\"), key-order", "a=1&c&b=1", "b=1&a=1", true },
};

static void
every_name_of_a_long_rule_is_found_and_no_other(void **state)
{
    struct buf field = { 0 }, rule = { 0 }, out = { 0 };
    char query[16];

    (void)state;
    buf_addz(&field, "params=(");
    for (int i = 0; i < 300; i++)
        buf_printf(&field, "%s\"%.*s\"", i > 0 ? " " : "", 1 + i % 7, "abcdefg" + i % 3);
    for (int i = 0; i < 300; i += 2)
        buf_printf(&field, " \"n%d\"", i);
    buf_addz(&field, " \"\")");
    buf_addc(&field, '\0');
    for (int i = 0; i < 300; i++) {
        struct slice r = rule_of(field.p, &rule);

        assert_true(r.n > 2);
        out.n = 0;
        snprintf(query, sizeof query, "n%d=1", i);
        assert_int_equal(http_search_query(r, slice_of(query), &out), 0);
        assert_int_equal(out.n == 0, i % 2 == 0);
    }
    buf_free(&field);
    buf_free(&rule);
    buf_free(&out);
}

static void
queries_are_equal_where_the_rule_says_so(void **state)
{
    struct buf rule = { 0 }, a = { 0 }, b = { 0 }, again = { 0 };

    (void)state;
    for (size_t i = 0; i < NELEM(pairs); i++) {
        struct slice r = rule_of(pairs[i].field, &rule);

        a.n = b.n = again.n = 0;
        assert_int_equal(http_search_query(r, slice_of(pairs[i].a), &a), 0);
        assert_int_equal(http_search_query(r, slice_of(pairs[i].b), &b), 0);
        assert_int_equal(http_search_query(r, buf_slice(&a), &again), 0);
        if (slice_eq(buf_slice(&a), buf_slice(&b)) != pairs[i].equal ||
            !slice_eq(buf_slice(&a), buf_slice(&again)))
            fail_msg("%s: %s: %.*s, %s: %.*s", pairs[i].field, pairs[i].a,
                SLICE_ARG(buf_slice(&a)), pairs[i].b, SLICE_ARG(buf_slice(&b)));
    }
    buf_free(&rule);
    buf_free(&a);
    buf_free(&b);
    buf_free(&again);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_field_is_a_rule_of_one_form_or_none),
        cmocka_unit_test(a_rule_of_thousands_of_bytes_is_none),
        cmocka_unit_test(every_name_of_a_long_rule_is_found_and_no_other),
        cmocka_unit_test(queries_are_equal_where_the_rule_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
