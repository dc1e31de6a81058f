/*
 * Request heads: what is accepted, what is refused with which status, and that both are the same
 * however the bytes come.
 */
#include "http_util.h"

#define H "Host: a\r\n"
#define GET(fields) "GET / HTTP/1.1\r\n" H fields "\r\n"
#define LINE(line) line "\r\n" H "\r\n"
#define V(text) { text, sizeof(text) - 1, __LINE__ }

struct vector { const char *text; size_t n; int line; };

static const struct vector good[] = {
    V(GET("")), V(GET("A: b\r\n")), V(GET("a:b\r\n")), V(GET("A:\r\n")), V(GET("A: \r\n")),
    V(GET("A:\t \tb\t \r\n")), V(GET("A: b c\td\r\n")), V(GET("A: \x80\xff\r\n")),
    V(GET("!#$%&'*+-.^_`|~09azAZ: x\r\n")), V(GET("X: \"quoted, string\"\r\n")),
    V(GET("A: b\r\nA: c\r\n")), V(GET("Content-Length: 0\r\n")), V(GET("content-LENGTH:5\r\n")),
    V(GET("Content-Length: 9223372036854775807\r\n")), V(GET("Content-Length: 007\r\n")),
    V(GET("Transfer-Encoding: chunked\r\n")), V(GET("transfer-encoding: CHUNKED\r\n")),
    V(GET("Transfer-Encoding:\tchunked \r\n")), V(GET("Expect: 100-continue\r\n")),
    V(GET("Expect: 100-Continue\r\n")), V(GET("TE: trailers\r\n")),
    V(GET("Connection: close\r\n")), V(GET("Connection: ,,keep-alive, \r\n")),
    V(GET("Accept-Language: en\r\n")), V(GET("Access-Control-Request-Headers: a\r\n")),
    V(GET("X-Very-Long-Name-That-Is-Longer-Than-Any-Known-One: 1\r\n")),
    V(GET("A: 0123456789abcdef0123456789abcdef0123456789abcdef\r\n")),
    V("\r\n" GET("")), V(LINE("PURGE / HTTP/1.1")), V(LINE("QUERY /q HTTP/1.1")),
    V(LINE("get / HTTP/1.1")), V(LINE("M-SEARCH / HTTP/1.1")), V(LINE("!#$%&'*+-.^_`|~09az / HTTP/1.1")),
    V(LINE("GET /a/b?c=d&e HTTP/1.1")), V(LINE("GET /? HTTP/1.1")), V(LINE("GET /?a?b HTTP/1.1")),
    V(LINE("GET //a HTTP/1.1")), V(LINE("GET /%20%2f%7E%fF HTTP/1.1")), V(LINE("GET /?%41 HTTP/1.1")),
    V(LINE("GET /{a}|b\"c<d>[e]^`\\ HTTP/1.1")), V(LINE("GET /:@!$&'()*+,;= HTTP/1.1")),
    V(LINE("GET /../.. HTTP/1.1")), V(LINE("OPTIONS * HTTP/1.1")), V(LINE("OPTIONS / HTTP/1.1")),
    V(LINE("GET http://b HTTP/1.1")), V(LINE("GET http://b/ HTTP/1.1")),
    V(LINE("GET HTTP://b:80?q HTTP/1.1")), V(LINE("GET https://[::1]:8443/x?y HTTP/1.1")),
    V(LINE("OPTIONS http://b HTTP/1.1")), V(LINE("GET / HTTP/1.2")), V(LINE("GET / HTTP/1.9")),
    V("GET / HTTP/1.0\r\n\r\n"), V("GET / HTTP/1.0\r\nHost:\r\n\r\n"),
    V("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"),
    V("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"),
    V("GET / HTTP/1.1\r\nhost:a\r\n\r\n"), V("GET / HTTP/1.1\r\nHOST: a:80\r\n\r\n"),
    V("GET / HTTP/1.1\r\nHost: a:\r\n\r\n"), V("GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"),
    V("GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n"), V("GET / HTTP/1.1\r\nHost: a_b.c-d~e\r\n\r\n"),
    V("GET / HTTP/1.1\r\nHost: xn--bcher-kva.example.\r\n\r\n"),
    V("GET / HTTP/1.1\r\nHost: a%20b\r\n\r\n"), V("GET http://b/ HTTP/1.1\r\nHost:\r\n\r\n"),
    V("GET / HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n"),
};

static const struct { unsigned status; struct vector v; } refused[] = {
    /* line ends and control characters */
    { 400, V("GET / HTTP/1.1\nHost: a\n\n") }, { 400, V("GET / HTTP/1.1\nHost: a\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: a\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: a\r\n\n") },
    { 400, V("GET / HTTP/1.1\rHost: a\r\r") }, { 400, V("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: a\r\n\rX") }, { 400, V(GET("A: b\rc\r\n")) },
    { 400, V(GET("A: b\nC: d\r\n")) }, { 400, V(GET("A: b\0c\r\n")) }, { 400, V(GET("A: \x01\r\n")) },
    { 400, V(GET("A: \x1f\r\n")) }, { 400, V(GET("A: \x7f\r\n")) }, { 400, V(GET("A: b\x0b\r\n")) },
    { 400, V(GET("A: 0123456789abcdef\x7f""0123456789abcdef\r\n")) },
    { 400, V(GET("A: 0123456789abcdef0123456789abcd\x00""f\r\n")) },
    { 400, V("\r\n\r\n" GET("")) }, { 400, V("\n" GET("")) }, { 400, V("\rGET / HTTP/1.1\r\n") },
    { 400, V(" " GET("")) }, { 400, V("\0" GET("")) }, { 400, V("\xef\xbb\xbf" GET("")) },
    /* field names */
    { 400, V(GET("A : b\r\n")) }, { 400, V(GET("A\t: b\r\n")) }, { 400, V(GET("Host : b\r\n")) },
    { 400, V(GET("Content-Length : 5\r\n")) }, { 400, V(GET("Transfer-Encoding : chunked\r\n")) },
    { 400, V(GET(" A: b\r\n")) }, { 400, V(GET("\tA: b\r\n")) }, { 400, V(GET("A: b\r\n c\r\n")) },
    { 400, V(GET("A: b\r\n\tc\r\n")) }, { 400, V("GET / HTTP/1.1\r\n Host: a\r\n\r\n") },
    { 400, V(GET(": b\r\n")) }, { 400, V(GET(":a: 0123456789012345678901234567890\r\n")) }, { 400, V(GET(":\r\n")) }, { 400, V(GET("A\r\n")) },
    { 400, V(GET("A b: c\r\n")) }, { 400, V(GET("A(b): c\r\n")) }, { 400, V(GET("A,b: c\r\n")) },
    { 400, V(GET("\"A\": c\r\n")) }, { 400, V(GET("A/b: c\r\n")) }, { 400, V(GET("A@b: c\r\n")) },
    { 400, V(GET("A[b: c\r\n")) }, { 400, V(GET("A{b: c\r\n")) }, { 400, V(GET("A;b: c\r\n")) },
    { 400, V(GET("A=b: c\r\n")) }, { 400, V(GET("A\\b: c\r\n")) }, { 400, V(GET("A\x80: c\r\n")) },
    { 400, V(GET("Caf\xc3\xa9: c\r\n")) }, { 400, V(GET("A\0b: c\r\n")) },
    { 400, V(GET("Content\rLength: 5 0123456789012345678901234567890\r\n")) },
    { 400, V(GET("\0content-length: 5 0123456789012345678901234567890\r\n")) },
    { 400, V(GET("Content\x0dLength: 1\r\n")) }, { 400, V(GET("X\x7f: 1 0123456789012345678901234\r\n")) },
    { 400, V(GET("X@: 1 01234567890123456789012345678901234567890\r\n")) },
    { 400, V(GET("X`[: 1 01234567890123456789012345678901234567890\r\n")) },
    { 400, V(GET("X/: 1 01234567890123456789012345678901234567890\r\n")) },
    { 400, V(GET("X\xc1: 1 01234567890123456789012345678901234567890\r\n")) },
    /* methods */
    { 400, V(LINE(" / HTTP/1.1")) }, { 400, V(LINE("G\tT / HTTP/1.1")) }, { 400, V(LINE("G(T / HTTP/1.1")) },
    { 400, V(LINE("GET\t/ HTTP/1.1")) }, { 400, V(LINE("G\x80T / HTTP/1.1")) },
    { 400, V(LINE("GET: / HTTP/1.1")) }, { 400, V(LINE("GET\r\n/ HTTP/1.1")) },
    { 501, V(LINE("CONNECT a:443 HTTP/1.1")) }, { 501, V(LINE("CONNECT / HTTP/1.1")) },
    /* versions */
    { 400, V("GET /\r\n") }, { 400, V("GET / \r\n") }, { 400, V(LINE("GET / HTTP/0.9")) },
    { 400, V(LINE("GET / HTTP/1.1 ")) }, { 400, V(LINE("GET /  HTTP/1.1")) }, { 400, V(LINE("GET  / HTTP/1.1")) },
    { 400, V(LINE("GET / http/1.1")) }, { 400, V(LINE("GET / HTTP/1")) }, { 400, V(LINE("GET / HTTP/1.")) },
    { 400, V(LINE("GET / HTTP/1.10")) }, { 400, V(LINE("GET / HTTP/1.x")) }, { 400, V(LINE("GET / HTTP/1,1")) },
    { 400, V(LINE("GET / HTTP/11.1")) }, { 400, V(LINE("GET / HTTP/x.1")) }, { 400, V(LINE("GET / HTTP 1.1")) },
    { 400, V(LINE("GET / HTTP/ 1.1")) }, { 400, V(LINE("GET / HTTP/-1.1")) }, { 400, V(LINE("GET / HTTPS/1.1")) },
    { 400, V(LINE("GET / ICY/1.1")) }, { 400, V(LINE("GET / HTTP/1.1\tx")) }, { 400, V(LINE("GET / /x HTTP/1.1")) },
    { 505, V(LINE("GET / HTTP/2.0")) }, { 505, V(LINE("GET / HTTP/9.9")) },
    { 505, V("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") },
    /* targets */
    { 400, V(LINE("GET x HTTP/1.1")) }, { 400, V(LINE("GET * HTTP/1.1")) }, { 400, V(LINE("OPTIONS ** HTTP/1.1")) },
    { 400, V(LINE("GET ?a HTTP/1.1")) }, { 400, V(LINE("GET a:80 HTTP/1.1")) }, { 400, V(LINE("GET ftp://a/ HTTP/1.1")) },
    { 400, V(LINE("GET http:/a HTTP/1.1")) }, { 400, V(LINE("GET http:///a HTTP/1.1")) },
    { 400, V(LINE("GET http:// HTTP/1.1")) }, { 400, V(LINE("GET http://u@b/ HTTP/1.1")) },
    { 400, V(LINE("GET http://u:p@b/ HTTP/1.1")) }, { 400, V(LINE("GET http://b:x/ HTTP/1.1")) },
    { 400, V(LINE("GET http://b:65536/ HTTP/1.1")) }, { 400, V(LINE("GET http://:80/ HTTP/1.1")) },
    { 400, V(LINE("GET http://[::1/ HTTP/1.1")) }, { 400, V(LINE("GET http://b\\@c/ HTTP/1.1")) },
    { 400, V(LINE("GET /#a HTTP/1.1")) }, { 400, V(LINE("GET /a?b#c HTTP/1.1")) },
    { 400, V(LINE("GET /% HTTP/1.1")) }, { 400, V(LINE("GET /%a HTTP/1.1")) }, { 400, V(LINE("GET /%g0 HTTP/1.1")) },
    { 400, V(LINE("GET /%0g HTTP/1.1")) }, { 400, V(LINE("GET /?%%20 HTTP/1.1")) }, { 400, V(LINE("GET /%u0041 HTTP/1.1")) },
    { 400, V(LINE("GET /\x80 HTTP/1.1")) }, { 400, V(LINE("GET /\xc3\xa9 HTTP/1.1")) },
    { 400, V(LINE("GET /\x01 HTTP/1.1")) }, { 400, V(LINE("GET /\t HTTP/1.1")) }, { 400, V(LINE("GET /\x7f HTTP/1.1")) },
    { 400, V(LINE("GET /\0 HTTP/1.1")) }, { 400, V(LINE("GET /a\rb HTTP/1.1")) },
    { 400, V(LINE("GET /0123456789abcdef0123456789abc\x80 HTTP/1.1")) },
    /* Host */
    { 400, V("GET / HTTP/1.1\r\n\r\n") }, { 400, V("GET http://a/ HTTP/1.1\r\n\r\n") },
    { 400, V(GET(H)) }, { 400, V(GET("Host: b\r\n")) }, { 400, V(GET("host:\r\n")) },
    { 400, V("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost:\r\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: \r\n\r\n") },
    { 400, V("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: a b\r\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: [a]\r\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: :80\r\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: a\x80\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: a#b\r\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: a?b\r\n\r\n") },
    { 400, V("GET / HTTP/1.1\r\nHost: a%2\r\n\r\n") }, { 400, V("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n") },
    { 400, V("GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n") },
    /* Content-Length and Transfer-Encoding */
    { 400, V(GET("Content-Length:\r\n")) }, { 400, V(GET("Content-Length: +5\r\n")) },
    { 400, V(GET("Content-Length: -5\r\n")) }, { 400, V(GET("Content-Length: 5 \t5\r\n")) },
    { 400, V(GET("Content-Length: 5, 5\r\n")) }, { 400, V(GET("Content-Length: 5,6\r\n")) },
    { 400, V(GET("Content-Length: 5,\r\n")) }, { 400, V(GET("Content-Length: 0x5\r\n")) },
    { 400, V(GET("Content-Length: 5a\r\n")) }, { 400, V(GET("Content-Length: 1e2\r\n")) },
    { 400, V(GET("Content-Length: 5.0\r\n")) }, { 400, V(GET("Content-Length: \"5\"\r\n")) },
    { 400, V(GET("Content-Length: 9223372036854775808\r\n")) },
    { 400, V(GET("Content-Length: 18446744073709551616\r\n")) },
    { 400, V(GET("Content-Length: 99999999999999999999999999\r\n")) },
    { 400, V(GET("Content-Length: 5\r\nContent-Length: 5\r\n")) },
    { 400, V(GET("Content-Length: 5\r\ncontent-length: 6\r\n")) },
    { 400, V(GET("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")) },
    { 400, V(GET("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")) },
    { 400, V(GET("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")) },
    { 400, V(GET("Transfer-Encoding: chunked, chunked\r\n")) }, { 400, V(GET("Transfer-Encoding: gzip, chunked\r\n")) },
    { 400, V(GET("Transfer-Encoding: gzip\r\n")) }, { 400, V(GET("Transfer-Encoding: identity\r\n")) },
    { 400, V(GET("Transfer-Encoding:\r\n")) }, { 400, V(GET("Transfer-Encoding: chunked,\r\n")) },
    { 400, V(GET("Transfer-Encoding: ,chunked\r\n")) }, { 400, V(GET("Transfer-Encoding: xchunked\r\n")) },
    { 400, V(GET("Transfer-Encoding: chunked;q=1\r\n")) }, { 400, V(GET("Transfer-Encoding: \"chunked\"\r\n")) },
    { 400, V(GET("Transfer-Encoding: \x0b""chunked\r\n")) }, { 400, V(GET("Transfer-Encoding: chunked\x80\r\n")) },
    { 400, V("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n") },
    /* Expect */
    { 417, V(GET("Expect: 200-ok\r\n")) }, { 417, V(GET("Expect: 100-continue, x\r\n")) },
    { 417, V(GET("Expect:\r\n")) }, { 417, V(GET("Expect: 100-continuee\r\n")) },
};

static void
a_good_head_is_accepted_whole_and_every_prefix_of_it_asks_for_more(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(good); i++)
        if (feed(http_parse_request, good[i].text, good[i].n, good[i].n, &roomy) != 0)
            fail_msg("line %d: refused", good[i].line);
}

static void
what_follows_a_head_is_not_looked_at(void **state)
{
    static const char two[] = GET("A: b\r\n") "\0garbage \r\n\n\r";

    (void)state;
    assert_int_equal(feed(http_parse_request, two, sizeof two - 1, sizeof(GET("A: b\r\n")) - 1,
        &roomy), 0);
}

static void
a_bad_head_is_refused_with_its_status_at_the_same_byte_however_it_comes(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(refused); i++) {
        const struct vector *v = &refused[i].v;
        unsigned status = feed(http_parse_request, v->text, v->n, v->n, &roomy);

        if (status != refused[i].status)
            fail_msg("line %d: %u, not %u", v->line, status, refused[i].status);
    }
}

/* Every byte at every place of a field line that goes the quick way and of one that does not. */
static void
each_byte_is_allowed_in_names_and_values_exactly_where_the_grammar_has_it(void **state)
{
    static const char *const lines[] = { "Accept-Encoding: 0123456789abcdef0123456789\r\n",
        "X-Name: 01234567890123456789\r\n", "X-Unknown-Name-Of-More-Than-32-Bytes: 1\r\n", "X: 1\r\n" };
    char text[256];
    struct parsed p;

    (void)state;
    for (size_t l = 0; l < NELEM(lines); l++)
        for (size_t at = 0; lines[l][at] != '\r'; at++)
            for (unsigned c = 0; c < 256; c++) {
                size_t n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", lines[l]);
                size_t colon = (size_t)(strchr(lines[l], ':') - lines[l]);
                bool ok;

                text[25 + at] = (char)c;
                if (at < colon)
                    ok = (c != 0 && c < 0x80 && (c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                        (c != 0 && strchr("0123456789!#$%&'*+-.^_`|~", (int)c) != NULL) ||
                        (c == ':' && at > 0);
                else if (at == colon)
                    ok = c == ':';
                else
                    ok = c == '\t' || (c >= 0x20 && c != 0x7f);
                parse_n(&p, http_parse_request, text, n, &roomy);
                if (p.result != (ok ? (ssize_t)n : -1))
                    fail_msg("%s: byte %u at %zu: %zd", lines[l], c, at, p.result);
                parsed_free(&p);
            }
}

static void
the_limits_hold_for_incomplete_heads_too(void **state)
{
    static const struct http_limits tight = { 64, 16, 2 };
    static const struct { const char *text; unsigned status; } targets[] = {
        { "GET /234567890123456 HTTP/1.0\r\n\r\n", 0 },
        { "GET /2345678901234567 HTTP/1.0\r\n\r\n", 414 },
        { "GET /2345678901234%20 HTTP/1.0\r\n\r\n", 414 },
        { "GET /23456789012345%20 HTTP/1.0\r\n\r\n", 414 },
        { "GET /234567890123456%20 HTTP/1.0\r\n\r\n", 414 },
        { "GET /23456789012?x%20 HTTP/1.0\r\n\r\n", 414 },
        { "GET /234567890?x%20 HTTP/1.0\r\n\r\n", 0 },
        { "GET /23456789012345% HTTP/1.0\r\n\r\n", 400 },
        { "GET /2345678901234%2 HTTP/1.0\r\n\r\n", 400 },
        { "GET /2345678901234567\x80", 414 },
    };
    char long_uri[128], long_value[128];

    (void)state;
    /* target: 16 bytes pass, 17 do not, whether or not the line is complete */
    for (size_t i = 0; i < NELEM(targets); i++)
        assert_int_equal(feed(http_parse_request, targets[i].text, strlen(targets[i].text),
            strlen(targets[i].text), &tight), targets[i].status);
    assert_int_equal(feed(http_parse_request, "GET /234567890123456", 20, 99, &tight), 0);
    assert_int_equal(feed(http_parse_request, "GET /2345678901234567", 21, 99, &tight), 414);
    memset(long_uri, 'a', sizeof long_uri);
    memcpy(long_uri, "GET /", 5);
    assert_int_equal(feed(http_parse_request, long_uri, sizeof long_uri, 999, &tight), 414);
    /* head: 64 bytes pass */
    memset(long_value, 'a', sizeof long_value);
    memcpy(long_value, "GET / HTTP/1.0\r\nX: ", 19);
    assert_int_equal(feed(http_parse_request, long_value, sizeof long_value, 999, &tight), 431);
    memcpy(long_value + 60, "\r\n\r\n", 4);
    assert_int_equal(feed(http_parse_request, long_value, 64, 64, &tight), 0);
    long_value[60] = 'a';
    memcpy(long_value + 61, "\r\n\r\n", 4);
    assert_int_equal(feed(http_parse_request, long_value, 65, 65, &tight), 431);
    memset(long_value, 'a', sizeof long_value);
    assert_int_equal(feed(http_parse_request, long_value, sizeof long_value, 999, &tight), 431);
    /* fields: two pass */
    assert_int_equal(feed(http_parse_request, "GET / HTTP/1.0\r\nA:\r\nB:\r\n\r\n", 26, 26, &tight), 0);
    assert_int_equal(feed(http_parse_request, "GET / HTTP/1.0\r\nA:\r\nB:\r\nC", 25, 99, &tight), 431);
}

static void
the_array_of_the_caller_bounds_the_fields(void **state)
{
    struct http_field fields[1];
    struct http_head h = { .fields = fields, .cap = 1 };
    struct http_fault f;

    (void)state;
    assert_int_equal(http_parse_request("GET / HTTP/1.0\r\nA:\r\n\r\n", 22, &roomy, &h, &f), 22);
    assert_int_equal(http_parse_request("GET / HTTP/1.0\r\nA:\r\nB:\r\n\r\n", 26, &roomy, &h, &f), -1);
    assert_int_equal(f.status, 431);
    assert_int_equal(h.cap, 1);
    assert_ptr_equal(h.fields, fields);
}

static void
parse(struct parsed *p, const char *text)
{
    parse_n(p, http_parse_request, text, strlen(text), &roomy);
    if (p->result != (ssize_t)strlen(text))
        fail_msg("%s: %zd %s", text, p->result, p->fault.why);
}

static void
a_head_is_taken_apart(void **state)
{
    struct parsed p;

    (void)state;
    parse(&p, "POST /a/b%20?c=d?e HTTP/1.1\r\nhost: Example.COM:8080\r\nX-Thing: \t one two\t \r\n"
        "content-length: 42\r\nAccept:\r\n\r\n");
    assert_int_equal(p.head.method, HTTP_POST);
    assert_slice(p.head.method_name, "POST");
    assert_slice(p.head.target, "/a/b%20?c=d?e");
    assert_slice(p.head.path, "/a/b%20");
    assert_slice(p.head.query, "c=d?e");
    assert_slice(p.head.host, "Example.COM:8080");
    assert_int_equal(p.head.minor, 1);
    assert_int_equal(p.head.flags, 0);
    assert_int_equal(p.head.framing, HTTP_LENGTH);
    assert_int_equal(p.head.length, 42);
    assert_int_equal(p.head.nfields, 4);
    assert_slice(p.fields[0].name, "host");
    assert_int_equal(p.fields[0].id, HF_HOST);
    assert_slice(p.fields[1].name, "X-Thing");
    assert_slice(p.fields[1].value, "one two");
    assert_int_equal(p.fields[1].id, HF_NONE);
    assert_slice(p.fields[3].value, "");
    assert_true(http_has(&p.head, HF_HOST) && http_has(&p.head, HF_ACCEPT) &&
        http_has(&p.head, HF_CONTENT_LENGTH));
    assert_false(http_has(&p.head, HF_CONNECTION) || http_has(&p.head, HF_NONE) ||
        http_has(&p.head, HF_X_REQUEST_ID));
    assert_slice(http_value(&p.head, HF_HOST), "Example.COM:8080");
    assert_null(http_value(&p.head, HF_AGE).p);
    assert_ptr_equal(http_find_name(&p.head, SLICE("x-thing")), &p.fields[1]);
    assert_ptr_equal(http_find_name(&p.head, SLICE("ACCEPT")), &p.fields[3]);
    assert_null(http_find_name(&p.head, SLICE("x-thin")));
    parsed_free(&p);
}

static void
the_absolute_form_replaces_host(void **state)
{
    struct parsed p;

    (void)state;
    parse(&p, "GET hTTps://B.example:8443/x?y=z HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_slice(p.head.host, "B.example:8443");
    assert_slice(p.head.path, "/x");
    assert_slice(p.head.query, "y=z");
    assert_int_equal(p.head.flags, HTTP_ABSOLUTE | HTTP_HTTPS);
    parsed_free(&p);
    parse(&p, "GET http://b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_slice(p.head.host, "b");
    assert_slice(p.head.path, "/");
    assert_null(p.head.query.p);
    assert_int_equal(p.head.flags, HTTP_ABSOLUTE);
    parsed_free(&p);
    parse(&p, "GET http://b? HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_slice(p.head.path, "/");
    assert_non_null(p.head.query.p);
    assert_int_equal(p.head.query.n, 0);
    parsed_free(&p);
    parse(&p, "OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_slice(p.head.path, "*");
    parsed_free(&p);
    parse(&p, "OPTIONS http://b/ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_slice(p.head.path, "/");
    parsed_free(&p);
}

static void
what_normalising_would_leave_as_it_is_is_known_to_be_normal(void **state)
{
    static const struct { const char *target, *host; bool normal; } cases[] = {
        { "/", "a", true }, { "/api/v1.2/x.json?q=1.5&r=~a;b,c", "api.example-1.com:8080", true },
        { "//a//b/?", "127.0.0.1:19200", true }, { "/...", "a_b", false }, { "/a..b/c.", "a", true },
        { "/!$&'()*+,;=:@[]~?/:@!$&'()*+,;=[]??", "a!$&'()*+,;=~", true }, { "/?.&..", "a", true },
        { "/.well-known/x", "a", false }, { "/.", "a", false }, { "/a/../b", "a", false },
        { "/0123456789abcde/..", "a", false }, { "/0123456789abcd/./x", "a", false },
        { "/%41", "a", false }, { "/?%41", "a", false }, { "/a|b", "a", false },
        { "/\"", "a", false }, { "/<", "a", false }, { "/>", "a", false }, { "/\\", "a", false },
        { "/^", "a", false }, { "/`", "a", false }, { "/?{", "a", false }, { "/?}", "a", false },
        { "/", "A", false }, { "/", "a.", false }, { "/", "a.b.:8080", false }, { "/", "%61", false },
        { "/", "a:", false }, { "/", "a:80", false }, { "/", "a:443", false }, { "/", "a:08080", false },
        { "/", "a:0", false }, { "/", "a:8", true }, { "/", "a:65535", true }, { "/", "[::1]", false },
        { "/", ".", false }, { "http://a/", "a", false },
    };
    struct parsed p;
    char text[256];

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct buf b = { 0 };

        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", cases[i].target,
            cases[i].host);
        parse(&p, text);
        if (p.head.normal != cases[i].normal)
            fail_msg("%s of %s: normal is %d", cases[i].target, cases[i].host, p.head.normal);
        http_uri_normalise(&b, p.head.path, p.head.query);
        if (p.head.normal)
            assert_slice(buf_slice(&b), cases[i].target);
        buf_free(&b);
        parsed_free(&p);
    }
}

static void
every_method_token_is_kept(void **state)
{
    struct parsed p;

    (void)state;
    parse(&p, "Brew / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(p.head.method, HTTP_OTHER);
    assert_slice(p.head.method_name, "Brew");
    parsed_free(&p);
    parse(&p, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_slice(p.head.path, "*");
    parsed_free(&p);
}

static void
the_flags_say_what_connection_expect_and_upgrade_mean(void **state)
{
    static const struct { const char *version, *fields; unsigned flags; } cases[] = {
        { "1.1", "", 0 }, { "1.0", "", HTTP_CLOSE }, { "1.7", "", 0 },
        { "1.0", "Connection: keep-alive\r\n", 0 }, { "1.0", "Connection: Keep-Alive\r\n", 0 },
        { "1.1", "Connection: close\r\n", HTTP_CLOSE }, { "1.1", "Connection: x, CLOSE\r\n", HTTP_CLOSE },
        { "1.1", "Connection: keep-alive, close\r\n", HTTP_CLOSE },
        { "1.0", "Connection: keep-alive\r\nConnection: close\r\n", HTTP_CLOSE },
        { "1.1", "Connection: closed\r\n", 0 }, { "1.1", "Connection: \"close\"\r\n", 0 },
        { "1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n", HTTP_UPGRADING },
        { "1.1", "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n", HTTP_UPGRADING },
        { "1.1", "Upgrade: websocket\r\n", 0 }, { "1.1", "Connection: upgrade\r\n", 0 },
        { "1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", HTTP_CLOSE },
        { "1.1", "Expect: 100-continue\r\n", HTTP_EXPECT }, { "1.0", "Expect: 100-continue\r\n", HTTP_CLOSE },
    };
    char text[256];
    struct parsed p;

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        sprintf(text, "GET / HTTP/%s\r\nHost: a\r\n%s\r\n", cases[i].version, cases[i].fields);
        parse(&p, text);
        if (p.head.flags != cases[i].flags)
            fail_msg("%s: %u", text, p.head.flags);
        parsed_free(&p);
    }
}

static void
known_names_are_found_in_any_case_and_position(void **state)
{
    char text[256];
    struct parsed p;

    (void)state;
    for (unsigned id = HF_NONE + 1; id < HF_COUNT; id++)
        for (int style = 0; style < 3; style++)
            for (int tail = 0; tail < 2; tail++) {
                struct slice name = http_name((enum http_id)id);
                static const char line[] = "GET / HTTP/1.0\r\n";
                size_t n = sizeof line - 1;

                memcpy(text, line, n);

                for (size_t i = 0; i < name.n; i++)
                    text[n + i] = (char)(style == 0 || name.p[i] == '-' ? name.p[i] :
                        style == 1 ? name.p[i] | 0x20 : name.p[i] & ~0x20);
                strcpy(text + n + name.n, ": ");
                if (id == HF_CONTENT_LENGTH)
                    strcat(text + n, "1");
                else if (id == HF_EXPECT)
                    strcat(text + n, "100-continue");
                else if (id == HF_TRANSFER_ENCODING)
                    text[13] = '1';     /* not in HTTP/1.0, and there Host is missing: 400 at the end */
                strcat(text + n, tail ? "\r\n\r\n" : "\r\nX: 0123456789012345678901234567\r\n\r\n");
                parse_n(&p, http_parse_request, text, strlen(text), &roomy);
                if (id != HF_TRANSFER_ENCODING) {
                    assert_int_equal(p.result, strlen(text));
                    assert_int_equal(p.fields[0].id, id);
                    assert_true(http_has(&p.head, (enum http_id)id));
                }
                parsed_free(&p);
            }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_head_is_accepted_whole_and_every_prefix_of_it_asks_for_more),
        cmocka_unit_test(what_follows_a_head_is_not_looked_at),
        cmocka_unit_test(a_bad_head_is_refused_with_its_status_at_the_same_byte_however_it_comes),
        cmocka_unit_test(each_byte_is_allowed_in_names_and_values_exactly_where_the_grammar_has_it),
        cmocka_unit_test(the_limits_hold_for_incomplete_heads_too),
        cmocka_unit_test(the_array_of_the_caller_bounds_the_fields),
        cmocka_unit_test(a_head_is_taken_apart),
        cmocka_unit_test(the_absolute_form_replaces_host),
        cmocka_unit_test(what_normalising_would_leave_as_it_is_is_known_to_be_normal),
        cmocka_unit_test(every_method_token_is_kept),
        cmocka_unit_test(the_flags_say_what_connection_expect_and_upgrade_mean),
        cmocka_unit_test(known_names_are_found_in_any_case_and_position),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
