/*
 * Request content in the key: what is one question, and what must never be taken for another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "key/key.h"

#define TYPE "Content-Type: "
#define JSON TYPE "application/json\r\n"
#define FORM TYPE "application/x-www-form-urlencoded\r\n"

/* The key of a request for one URL, in out. */
static void
make(const char *method, const char *fields, const char *content, bool as_is, char out[512])
{
    struct http_field at[16];
    struct http_head h = { .fields = at, .cap = NELEM(at) };
    struct buf b = { 0 }, lines = { 0 };
    struct key k;

    buf_addz(&lines, fields);
    assert_int_equal(http_parse_fields(lines.p, lines.n, &h), 0);
    h.method_name = slice_of(method);
    assert_int_equal(key_make(NULL, &h, false, SLICE("h"), SLICE("/q"),
        (struct slice){ NULL, 0 }, &b, &k), 0);
    assert_int_equal(key_add_content(&k, &h, slice_of(content), as_is, &b), 0);
    assert_true(k.bytes.n < 512 && k.url_n == strlen("http://h/q"));
    assert_int_equal(k.hash, key_hash(k.bytes));
    memset(out, 0, 512);
    memcpy(out, k.bytes.p, k.bytes.n);
    buf_free(&b);
    buf_free(&lines);
}

static bool
same(const char *fields, const char *a, const char *b)
{
    char x[512], y[512];

    make("QUERY", fields, a, false, x);
    make("QUERY", fields, b, false, y);
    return memcmp(x, y, sizeof x) == 0;
}

struct pair { const char *a, *b; };

static void
json_has_one_key_whatever_its_white_space_and_order_of_members(void **state)
{
    static const struct pair t[] = {
        { "{\"a\":1,\"b\":2}", "{ \"b\" : 2 ,\r\n\t\"a\":1 }" },
        { "{\"x\":{\"b\":[1,{\"d\":1,\"c\":2}],\"a\":null}}",
          "{\"x\":{\"a\":null,\"b\":[1, {\"c\":2,\"d\":1}]}}" },
        { "[1,2]", " [ 1 , 2 ] " },
        { "\"a\"", " \"a\" " },
        { "{}", "{ }" },
        { "{\"a\":{\"\\u0061\":1,\"b\":2},\"b\":0}", "{\"b\":0,\"a\":{\"\\u0061\":1, \"b\":2}}" },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(t); i++) {
        assert_true(same(JSON, t[i].a, t[i].b));
        assert_true(same(TYPE "application/graphql+json\r\n", t[i].a, t[i].b));
        assert_true(same(TYPE "Application/JSON;charset=UTF-8\r\n", t[i].a, t[i].b));
        assert_false(same(TYPE "text/plain\r\n", t[i].a, t[i].b));
        assert_false(same(TYPE "application/json;charset=shift_jis\r\n", t[i].a, t[i].b));
        assert_false(same(JSON "Content-Encoding: br\r\n", t[i].a, t[i].b));
    }
}

static void
json_that_a_reader_could_tell_apart_has_two_keys(void **state)
{
    static const struct pair t[] = {
        { "[1,2]", "[2,1]" },
        { "1", "1.0" }, { "1e2", "100" }, { "\"a\"", "\"\\u0061\"" },
        { "{\"a\":1,\"a\":2}", "{\"a\":2,\"a\":1}" },               /* which of them counts? */
        { "{\"a\":1,\"b\":0,\"a\":2}", "{\"a\":1,\"a\":2,\"b\":0}" },
        { "{\"a\":1,\"A\":2}", "{\"A\":2,\"a\":1}" },               /* one name to some */
        { "{\"a\":1,\"\\u0061\":2}", "{\"\\u0061\":2,\"a\":1}" },
        { "{\"\xc3\xa4\":1,\"b\":2}", "{\"b\":2,\"\xc3\xa4\":1}" },
        { "{\"a\":\"b c\"}", "{\"a\":\"bc\"}" },
        { "{\"a\":1}", "{\"a\":1}}" }, { "{a:1}", "{ a:1}" }, { "", " " },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(t); i++)
        assert_false(same(JSON, t[i].a, t[i].b));
}

static void
json_that_is_too_deep_is_bytes(void **state)
{
    char a[256], b[sizeof a + 1];

    (void)state;
    memset(a, '[', 100);
    memset(a + 100, ']', 100);
    a[200] = '\0';
    snprintf(b, sizeof b, " %s", a);
    assert_false(same(JSON, a, b));
    assert_true(same(JSON, a, a));
}

static void
a_form_has_one_key_whatever_the_order_of_its_pairs(void **state)
{
    (void)state;
    assert_true(same(FORM, "a=1&b=2", "b=2&a=1"));
    assert_true(same(FORM, "b=1&a=2&b=2", "a=2&b=1&b=2"));
    assert_true(same(FORM, "q&a=%20", "a=%20&q"));
}

static void
forms_that_a_reader_could_tell_apart_have_two_keys(void **state)
{
    static const struct pair t[] = {
        { "a=1&a=2", "a=2&a=1" }, { "a=1&A=2", "A=2&a=1" }, { "a=1&%61=2", "%61=2&a=1" },
        { "a[]=1&a[3]=2", "a[3]=2&a[]=1" }, { "a.b=1&a_b=2", "a_b=2&a.b=1" },
        { "a=1;b=2&c=3", "c=3&a=1;b=2" }, { "a=1&b=2&", "b=2&a=1&" }, { "a=+", "a=%20" },
        { "a", "a=" },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(t); i++)
        assert_false(same(FORM, t[i].a, t[i].b));
}

static void
method_and_metadata_are_part_of_the_key(void **state)
{
    static const char *const fields[] = {
        JSON, TYPE "application/json;v=2\r\n", TYPE "text/plain\r\n", "X: y\r\n",
        JSON "Content-Encoding: gzip\r\n", JSON "Content-Language: gzip\r\n",
        JSON "Content-Location: gzip\r\n", JSON "Content-Range: gzip\r\n", JSON JSON,
    };
    char k[NELEM(fields)][512], post[512];

    (void)state;
    for (size_t i = 0; i < NELEM(fields); i++) {
        make("QUERY", fields[i], "{}", false, k[i]);
        for (size_t n = 0; n < i; n++)
            assert_memory_not_equal(k[n], k[i], 512);
    }
    make("POST", JSON, "{}", false, post);
    assert_memory_not_equal(post, k[0], 512);
}

static void
content_that_is_not_to_be_transformed_counts_as_bytes(void **state)
{
    char a[512], b[512], c[512];

    (void)state;
    make("QUERY", JSON, "{\"a\":1}", true, a);
    make("QUERY", JSON, "{ \"a\":1}", true, b);
    make("QUERY", JSON, "{\"a\":1}", false, c);
    assert_memory_not_equal(a, b, 512);
    assert_memory_not_equal(a, c, 512);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_one_key_whatever_its_white_space_and_order_of_members),
        cmocka_unit_test(json_that_a_reader_could_tell_apart_has_two_keys),
        cmocka_unit_test(json_that_is_too_deep_is_bytes),
        cmocka_unit_test(a_form_has_one_key_whatever_the_order_of_its_pairs),
        cmocka_unit_test(forms_that_a_reader_could_tell_apart_have_two_keys),
        cmocka_unit_test(method_and_metadata_are_part_of_the_key),
        cmocka_unit_test(content_that_is_not_to_be_transformed_counts_as_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
