/*
 * Structured fields (RFC 9651 4.1): writing each type, and refusing what has no serialisation.
 */
#include "http_util.h"

static void
numbers_are_written_canonically_or_not_at_all(void **state)
{
    static const struct { enum sf_type type; int64_t v; const char *want; } cases[] = {
        { SF_INTEGER, 0, "0" }, { SF_INTEGER, 42, "42" }, { SF_INTEGER, -42, "-42" },
        { SF_INTEGER, 999999999999999, "999999999999999" }, { SF_INTEGER, -999999999999999, "-999999999999999" },
        { SF_INTEGER, 1000000000000000, NULL }, { SF_INTEGER, -1000000000000000, NULL },
        { SF_INTEGER, INT64_MIN, NULL }, { SF_INTEGER, INT64_MAX, NULL },
        { SF_DECIMAL, 0, "0.0" }, { SF_DECIMAL, 1000, "1.0" }, { SF_DECIMAL, 1500, "1.5" }, { SF_DECIMAL, 1050, "1.05" },
        { SF_DECIMAL, 1005, "1.005" }, { SF_DECIMAL, 1120, "1.12" }, { SF_DECIMAL, -1, "-0.001" }, { SF_DECIMAL, -999, "-0.999" },
        { SF_DECIMAL, -1000, "-1.0" }, { SF_DECIMAL, -1010, "-1.01" }, { SF_DECIMAL, 999999999999999, "999999999999.999" },
        { SF_DECIMAL, -999999999999999, "-999999999999.999" }, { SF_DECIMAL, 1000000000000000, NULL }, { SF_DECIMAL, INT64_MIN, NULL },
        { SF_DATE, 0, "@0" }, { SF_DATE, -1, "@-1" }, { SF_DATE, 253402300799, "@253402300799" }, { SF_DATE, 1000000000000000, NULL },
        { SF_BOOLEAN, 0, "?0" }, { SF_BOOLEAN, 1, "?1" }, { SF_INNER, 0, NULL },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct sf_item item = { .type = cases[i].type, .integer = cases[i].v };
        struct buf b = { 0 };

        assert_int_equal(sf_put_bare(&b, &item), cases[i].want != NULL);
        assert_buf(&b, cases[i].want != NULL ? cases[i].want : "");
    }
}

static void
texts_are_written_canonically_or_not_at_all(void **state)
{
    const struct { enum sf_type type; struct slice text; const char *want; } cases[] = {
        { SF_STRING, SLICE(""), "\"\"" }, { SF_STRING, SLICE("a\"b\\c d"), "\"a\\\"b\\\\c d\"" },
        { SF_TOKEN, SLICE("foo123/456"), "foo123/456" }, { SF_TOKEN, SLICE("*"), "*" }, { SF_TOKEN, SLICE(""), NULL },
        { SF_TOKEN, SLICE("1a"), NULL }, { SF_TOKEN, SLICE("a b"), NULL }, { SF_TOKEN, SLICE("a,b"), NULL },
        { SF_BYTES, SLICE(""), "::" }, { SF_BYTES, SLICE("hello"), ":aGVsbG8=:" }, { SF_BYTES, SLICE("\xff\xe0!"), ":/+Ah:" },
        { SF_BYTES, SLICE("\x89"), ":iQ==:" }, { SF_BYTES, { "\0\0\0", 3 }, ":AAAA:" },
        { SF_DISPLAY, SLICE(""), "%\"\"" }, { SF_DISPLAY, SLICE("F\xc3\xbc\xc3\xbc"), "%\"F%c3%bc%c3%bc\"" },
        { SF_DISPLAY, SLICE("\"%\\\n"), "%\"%22%25\\%0a\"" }, { SF_DISPLAY, SLICE("\x7f"), "%\"%7f\"" },
        { SF_DISPLAY, SLICE("\xf0\x9f\x98\x80"), "%\"%f0%9f%98%80\"" }, { SF_DISPLAY, SLICE("\xc3"), NULL },
        { SF_DISPLAY, SLICE("\xed\xa0\x80"), NULL }, { SF_DISPLAY, SLICE("\xc0\x80"), NULL }, { SF_DISPLAY, SLICE("a\xff"), NULL },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct sf_item item = { .type = cases[i].type, .text = cases[i].text };
        struct buf b = { 0 };

        assert_int_equal(sf_put_bare(&b, &item), cases[i].want != NULL);
        assert_buf(&b, cases[i].want != NULL ? cases[i].want : "");
    }
}

/* Whether the reader and the writer agree about each character. */
static void
what_cannot_be_read_is_not_written(void **state)
{
    struct sf_item yes = { .type = SF_BOOLEAN, .integer = 1 };

    (void)state;
    for (unsigned c = 0; c < 256; c++)
        for (int second = 0; second < 2; second++) {
            char text[2] = { second ? 'a' : (char)c, second ? (char)c : 'a' };
            struct slice s = { text, 2 };
            struct buf b = { 0 }, scratch = { 0 };
            struct sf_item item;
            struct slice key;

            assert_int_equal(sf_put_string(&b, s), c >= 0x20 && c <= 0x7e);
            if (b.n > 0) {
                assert_int_equal(sf_item(buf_slice(&b), &item, &scratch), 0);
                assert_true(slice_eq(item.text, s));
            }
            b.n = 0;
            if (sf_put_token(&b, s)) {
                assert_int_equal(sf_item(buf_slice(&b), &item, &scratch), 0);
                assert_true(item.type == SF_TOKEN && slice_eq(item.text, s));
            } else {
                assert_int_equal(b.n, 0);
                assert_true(sf_item(s, &item, &scratch) == -1 || item.type != SF_TOKEN || item.text.n != 2);
            }
            b.n = 0;
            buf_addc(&b, '1');
            if (sf_put_param(&b, s, &yes)) {
                assert_int_equal(sf_item(buf_slice(&b), &item, &scratch), 0);
                assert_int_equal(item.params.n, 3);
            } else {
                assert_int_equal(b.n, 1);
                assert_true(sf_dictionary(&s, &key, &item, NULL) == false || key.n != 2);
            }
            buf_free(&scratch);
            buf_free(&b);
        }
}

static void
parameters_are_written_whole_or_not_at_all(void **state)
{
    struct sf_item yes = { .type = SF_BOOLEAN, .integer = 1 }, no = { .type = SF_BOOLEAN },
        text = { .type = SF_STRING, .text = SLICE("x") }, bad = { .type = SF_STRING, .text = SLICE("\n") };
    struct buf b = { 0 };

    (void)state;
    buf_addz(&b, "w");
    assert_true(sf_put_param(&b, SLICE("a"), &yes));
    assert_true(sf_put_param(&b, SLICE("b"), &no));
    assert_true(sf_put_param(&b, SLICE("c"), &text));
    assert_false(sf_put_param(&b, SLICE("d"), &bad));
    assert_false(sf_put_param(&b, SLICE("E"), &yes));
    assert_false(sf_put_param(&b, SLICE(""), &yes));
    assert_true(sf_put_key(&b, SLICE("*k")));
    assert_false(sf_put_key(&b, SLICE("")));
    assert_true(sf_put_text(&b, SLICE("t")));
    assert_true(sf_put_text(&b, SLICE("a b")));
    assert_false(sf_put_text(&b, SLICE("\r")));
    assert_buf(&b, "w;a;b=?0;c=\"x\"*kt\"a b\"");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_written_canonically_or_not_at_all),
        cmocka_unit_test(texts_are_written_canonically_or_not_at_all),
        cmocka_unit_test(what_cannot_be_read_is_not_written),
        cmocka_unit_test(parameters_are_written_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
