/*
 * Chunked coding: what it decodes to, what it refuses, in one piece, byte by byte and at every cut.
 */
#include "http_util.h"

struct decoded {
    struct buf      body, trailer;
    enum http_chunk end;
    size_t          left;               /* bytes behind the end */
};

/* Feeds text in pieces that end at `cut` and at every `step` bytes. */
static void
decode(struct decoded *out, const char *text, size_t n, size_t cut, size_t step)
{
    struct http_chunked d = { 0 };

    *out = (struct decoded){ .end = HTTP_CHUNK_MORE };
    for (size_t at = 0; at < n && out->end == HTTP_CHUNK_MORE;) {
        size_t to = at < cut ? cut : at + step;
        char *piece;
        struct slice in, data;

        to = to > n ? n : to;
        piece = malloc(to - at);
        assert_non_null(piece);
        memcpy(piece, text + at, to - at);
        in = (struct slice){ piece, to - at };
        while ((out->end = http_chunked_next(&d, &in, &data)) == HTTP_CHUNK_DATA) {
            assert_true(data.n > 0 && data.p >= piece && data.p + data.n <= piece + (to - at));
            buf_adds(&out->body, data);
        }
        if (out->end == HTTP_CHUNK_MORE)
            assert_int_equal(in.n, 0);
        at = to;
        out->left = n - at + in.n;
        free(piece);
    }
    buf_adds(&out->trailer, buf_slice(&d.trailer));
    http_chunked_free(&d);
}

static void
decoded_free(struct decoded *d)
{
    buf_free(&d->body);
    buf_free(&d->trailer);
}

static void
check(const char *text, size_t n, enum http_chunk end, const char *body, const char *trailer, size_t left)
{
    struct decoded d;

    for (size_t cut = 0; cut <= n; cut++)
        for (int whole = 0; whole < 2; whole++) {
            decode(&d, text, n, cut, whole ? n : 1);
            if (d.end != end)
                fail_msg("\"%s\" cut at %zu: %d", text, cut, (int)d.end);
            if (end == HTTP_CHUNK_END) {
                assert_slice(buf_slice(&d.body), body);
                assert_slice(buf_slice(&d.trailer), trailer);
                assert_int_equal(d.left, left);
            }
            decoded_free(&d);
        }
}

static void
good_chunks_are_decoded_however_they_come(void **state)
{
    static const struct { const char *text, *body, *trailer; size_t left; } cases[] = {
        { "0\r\n\r\n", "", "", 0 }, { "5\r\nhello\r\n0\r\n\r\n", "hello", "", 0 },
        { "1\r\na\r\n2\r\nbc\r\n0\r\n\r\nGET", "abc", "", 3 }, { "A\r\n0123456789\r\n00\r\n\r\n", "0123456789", "", 0 },
        { "a;x\r\n0123456789\r\n0\r\n\r\n", "0123456789", "", 0 }, { "005\r\nhello\r\n000\r\n\r\n", "hello", "", 0 },
        { "1;a=b;c=\"d e\"\r\nx\r\n0;z\r\n\r\n", "x", "", 0 }, { "1 ;a\r\nx\r\n0\t \t; q\r\n\r\n", "x", "", 0 },
        { "1;\r\nx\r\n0\r\n\r\n", "x", "", 0 }, { "3\r\n\r\n\r\r\n0\r\n\r\n", "\r\n\r", "", 0 },
        { "0000000000000001\r\nx\r\n0\r\n\r\n", "x", "", 0 },
        { "0\r\nA: b\r\n\r\n", "", "A: b\r\n", 0 }, { "1\r\nx\r\n0\r\nA: b\r\nC:d \r\n\r\nHT", "x", "A: b\r\nC:d \r\n", 2 },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++)
        check(cases[i].text, strlen(cases[i].text), HTTP_CHUNK_END, cases[i].body, cases[i].trailer,
            cases[i].left);
}

static void
bad_chunks_are_refused_however_they_come(void **state)
{
#define B(text) { text, sizeof(text) - 1 }
    static const struct { const char *text; size_t n; } bad[] = {
        B("\r\n"), B("\n"), B(" 1\r\nx\r\n"), B("g\r\n"), B("-1\r\n"), B("+1\r\n"), B("0x1\r\n"), B("1\n"), B("1\rx"),
        B("1 \r\nx\r\n"), B("1 2\r\n"), B("1,\r\n"), B("1;a\n"), B("1;a\rb"), B("1;\x01\r\n"), B("1;\x7f\r\n"), B("1;a\0b\r\n"),
        B("1\r\nxy\r\n"), B("1\r\nx\n"), B("1\r\nx\r\r"), B("1\r\nx0\r\n"), B("2\r\nx\r\n0\r\n\r\n"), B("1\r\n\r\n0\r\n\r\nx"),
        B("8000000000000000\r\n"), B("ffffffffffffffff\r\n"), B("10000000000000000\r\n"), B("00000000000000001\r\n"),
        B("0\r\n\n"), B("0\r\n\rx"), B("0\n\n"), B("0\r\nA: b\n\r\n"), B("0\r\n A: b\r\n\r\n"), B("0\r\nA : b\r\n\r\n"),
        B("0\r\nA\r\n\r\n"), B("0\r\n: b\r\n\r\n"), B("0\r\nA: b\r\n c\r\n\r\n"), B("0\r\nA: \0\r\n\r\n"), B("0\r\nA: b\rc\r\n\r\n"),
        B(";a\r\n"), B("\0"), B("5\r\nhello0\r\n\r\n"),
    };

    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++)
        check(bad[i].text, bad[i].n, HTTP_CHUNK_BAD, NULL, NULL, 0);
}

static void
every_prefix_of_good_chunks_asks_for_more(void **state)
{
    static const char text[] = "5;x=y\r\nhello\r\n1\r\n!\r\n0;z\r\nA: b\r\n\r\n";
    struct decoded d;

    (void)state;
    for (size_t n = 1; n < sizeof text - 1; n++) {
        decode(&d, text, n, 0, n);
        assert_int_equal(d.end, HTTP_CHUNK_MORE);
        decoded_free(&d);
    }
}

/* `n` bytes of a line between `before` and `after`. */
static enum http_chunk
with_long_line(const char *before, size_t n, const char *after)
{
    struct buf b = { 0 };
    struct decoded d;

    buf_addz(&b, before);
    for (size_t i = 0; i < n; i++)
        buf_addc(&b, 'a');
    buf_addz(&b, after);
    assert_false(b.failed);
    decode(&d, b.p, b.n, 0, b.n);
    buf_free(&b);
    decoded_free(&d);
    return d.end;
}

static void
extensions_and_trailers_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(with_long_line("1;", 4000, "\r\nx\r\n0\r\n\r\n"), HTTP_CHUNK_END);
    assert_int_equal(with_long_line("1;", 4097, "\r\nx\r\n0\r\n\r\n"), HTTP_CHUNK_BAD);
    assert_int_equal(with_long_line("1;", 5000, ""), HTTP_CHUNK_BAD);
    assert_int_equal(with_long_line("0\r\nA:", 8188, "\r\n\r\n"), HTTP_CHUNK_END);
    assert_int_equal(with_long_line("0\r\nA:", 8189, "\r\n\r\n"), HTTP_CHUNK_BAD);
    assert_int_equal(with_long_line("0\r\nA:", 9000, ""), HTTP_CHUNK_BAD);
}

static void
after_the_end_and_after_an_error_nothing_more_is_taken(void **state)
{
    struct http_chunked d = { 0 };
    struct slice in = SLICE("0\r\n\r\nrest"), data;

    (void)state;
    assert_int_equal(http_chunked_next(&d, &in, &data), HTTP_CHUNK_END);
    assert_int_equal(http_chunked_next(&d, &in, &data), HTTP_CHUNK_END);
    assert_slice(in, "rest");
    http_chunked_free(&d);
    d = (struct http_chunked){ 0 };
    in = SLICE("x");
    assert_int_equal(http_chunked_next(&d, &in, &data), HTTP_CHUNK_BAD);
    in = SLICE("0\r\n\r\n");
    assert_int_equal(http_chunked_next(&d, &in, &data), HTTP_CHUNK_BAD);
    http_chunked_free(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_chunks_are_decoded_however_they_come),
        cmocka_unit_test(bad_chunks_are_refused_however_they_come),
        cmocka_unit_test(every_prefix_of_good_chunks_asks_for_more),
        cmocka_unit_test(extensions_and_trailers_are_bounded),
        cmocka_unit_test(after_the_end_and_after_an_error_nothing_more_is_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
