/*
 * Values: dates, ranges, hosts, URIs.
 */
#include "http_util.h"

#include <time.h>

#define NOW 1700000000                  /* 14 November 2023 */

static void
dates_are_read_in_three_forms(void **state)
{
    static const struct { const char *text; int64_t want; } cases[] = {
        { "Sun, 06 Nov 1994 08:49:37 GMT", 784111777 }, { "Sunday, 06-Nov-94 08:49:37 GMT", 784111777 },
        { "Sun Nov  6 08:49:37 1994", 784111777 }, { "Sun Nov 16 08:49:37 1994", 784975777 },
        { "sun, 06 nov 1994 08:49:37 gmt", 784111777 }, { "SUNDAY, 06-NOV-94 08:49:37 GMT", 784111777 },
        { "Mon, 06 Nov 1994 08:49:37 GMT", 784111777 },        /* the wrong day of the week */
        { "Thu, 01 Jan 1970 00:00:00 GMT", 0 }, { "Wed, 31 Dec 1969 23:59:59 GMT", -1 },
        { "Tue, 19 Jan 2038 03:14:08 GMT", 2147483648 }, { "Fri, 31 Dec 9999 23:59:59 GMT", 253402300799 },
        { "Sat, 01 Jan 0000 00:00:00 GMT", -62167219200 }, { "Thu, 29 Feb 2024 00:00:00 GMT", 1709164800 },
        { "Tue, 29 Feb 2000 00:00:00 GMT", 951782400 }, { "Sat, 31 Dec 2016 23:59:60 GMT", 1483228800 },
        { "Wednesday, 01-Jan-70 00:00:00 GMT", 3155760000 },    /* 2070 is within fifty years */
        { "Tuesday, 14-Nov-73 22:13:20 GMT", 3277923200 }, { "Tuesday, 14-Nov-73 22:13:21 GMT", 122163201 },
        { "Saturday, 01-Jan-00 00:00:00 GMT", 946684800 },
    };
    static const char *const bad[] = {
        "", "0", "-1", "now", "784111777", "1994-11-06T08:49:37Z", "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 EST", "Sun, 06 Nov 1994 08:49:37 +0000", "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT", "Sun 06 Nov 1994 08:49:37 GMT", "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994  08:49:37 GMT", "Sun, 06 Nov 1994 08.49.37 GMT", "Sun, 06 Nov 1994 08:49:37 GMTx",
        " Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT ", "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT", "Wed, 29 Feb 2023 08:49:37 GMT", "Mon, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT", "Sun, 06 Nov 1994 08:49:61 GMT",
        "Foo, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov -994 08:49:37 GMT",
        "Sun, 06 Nov 19a4 08:49:37 GMT", "Sun, 06 Nov 1994 +8:49:37 GMT", "Sunday, 06-Nov-94 08:49:37",
        "Sun, 06-Nov-94 08:49:37 GMT", "Sunda, 06-Nov-94 08:49:37 GMT", "Sun Nov 6 08:49:37 1994", "Sun Nov   6 08:49:37 1994",
        "Sun Nov  6 08:49:37 94", "Sun Nov  6 08:49:37 1994 GMT", "Wednesday, 30-Feb-70 00:00:00 GMT",
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++)
        if (http_date(slice_of(cases[i].text), NOW) != cases[i].want)
            fail_msg("%s: %lld", cases[i].text, (long long)http_date(slice_of(cases[i].text), NOW));
    for (size_t i = 0; i < NELEM(bad); i++)
        if (http_date(slice_of(bad[i]), NOW) != HTTP_NO_DATE)
            fail_msg("%s", bad[i]);
}

static void
dates_are_written_as_the_c_library_writes_them_and_read_back(void **state)
{
    char out[HTTP_DATE_LEN], want[64];

    (void)state;
    for (int64_t s = -62167219200; s <= 253402300799; s += 86400 * 13 + 12345) {
        time_t t = (time_t)s;
        struct tm tm;

        http_date_put(out, s);
        assert_int_equal(http_date((struct slice){ out, sizeof out }, NOW), s);
        if (s < -59958144000)           /* strftime does not pad years before 70 alike everywhere */
            continue;
        gmtime_r(&t, &tm);
        strftime(want, sizeof want, "%a, %d %b ", &tm);
        sprintf(want + strlen(want), "%04d ", tm.tm_year + 1900);
        strftime(want + strlen(want), 32, "%H:%M:%S GMT", &tm);
        assert_memory_equal(out, want, sizeof out);
    }
    http_date_put(out, INT64_MAX);
    assert_memory_equal(out, "Fri, 31 Dec 9999 23:59:59 GMT", sizeof out);
    http_date_put(out, INT64_MIN);
    assert_memory_equal(out, "Sat, 01 Jan 0000 00:00:00 GMT", sizeof out);
}

static void
a_single_range_is_told_before_the_size_is_known(void **state)
{
    static const struct { const char *text; bool one, suffix; uint64_t first, last; } cases[] = {
        { "bytes=0-9", true, false, 0, 9 }, { "bytes=5-", true, false, 5, UINT64_MAX },
        { "bytes=-5", true, true, 0, 5 }, { "Bytes=0-0", true, false, 0, 0 },
        { "bytes= 0-9 ", true, false, 0, 9 }, { "bytes=,0-9,", true, false, 0, 9 },
        { "bytes=-0", true, true, 0, 0 }, { "bytes=0-99999999999999999999", true, false, 0, UINT64_MAX },
        { "bytes=0-9,20-29", false, false, 0, 0 }, { "bytes=", false, false, 0, 0 },
        { "bytes=-", false, false, 0, 0 }, { "bytes=9-0", false, false, 0, 0 },
        { "bytes=a-b", false, false, 0, 0 }, { "bytes=1", false, false, 0, 0 },
        { "lines=0-9", false, false, 0, 0 }, { "bytes", false, false, 0, 0 },
        { "", false, false, 0, 0 }, { "bytes=0-9-", false, false, 0, 0 },
    };
    struct http_range_spec got;

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        bool one = http_range_single(slice_of(cases[i].text), &got);

        if (one != cases[i].one || (one && (got.suffix != cases[i].suffix ||
            got.first != cases[i].first || got.last != cases[i].last)))
            fail_msg("%s", cases[i].text);
    }
}

static void
a_content_range_names_one_part(void **state)
{
    static const struct { const char *text; bool valid; uint64_t first, last, size; } cases[] = {
        { "bytes 0-9/100", true, 0, 9, 100 }, { "BYTES 0-9/100", true, 0, 9, 100 },
        { "bytes 0-9/*", true, 0, 9, HTTP_SIZE_UNKNOWN }, { "bytes 99-99/100", true, 99, 99, 100 },
        { "bytes 99-100/100", false, 0, 0, 0 }, { "bytes 9-0/100", false, 0, 0, 0 },
        { "bytes */100", false, 0, 0, 0 }, { "bytes 0-9", false, 0, 0, 0 },
        { "bytes 0-9/", false, 0, 0, 0 }, { "bytes -9/100", false, 0, 0, 0 },
        { "bytes 0-/100", false, 0, 0, 0 }, { "bytes=0-9/100", false, 0, 0, 0 },
        { "bytes  0-9/100", false, 0, 0, 0 }, { "bytes 0 -9/100", false, 0, 0, 0 },
        { "lines 0-9/100", false, 0, 0, 0 }, { "", false, 0, 0, 0 }, { "bytes ", false, 0, 0, 0 },
        { "bytes 0-9/100, bytes 10-19/100", false, 0, 0, 0 },
        { "bytes 0-18446744073709551615/*", false, 0, 0, 0 },
        { "bytes 0-9/18446744073709551615", false, 0, 0, 0 },
        { "bytes 0-9/99999999999999999999", false, 0, 0, 0 },
    };
    struct http_content_range got;

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        bool valid = http_content_range(slice_of(cases[i].text), &got);

        if (valid != cases[i].valid || (valid && (got.first != cases[i].first ||
            got.last != cases[i].last || got.size != cases[i].size)))
            fail_msg("%s", cases[i].text);
    }
}

static void
ranges_are_cut_to_the_representation_and_joined(void **state)
{
    static const struct { const char *text; uint64_t size; const char *want; } cases[] = {
        { "bytes=0-0", 100, "0-0" }, { "bytes=0-99", 100, "0-99" }, { "bytes=0-", 100, "0-99" },
        { "bytes=10-20", 100, "10-20" }, { "bytes=90-200", 100, "90-99" }, { "bytes=-10", 100, "90-99" },
        { "bytes=-1000", 100, "0-99" }, { "BYTES=1-2", 100, "1-2" }, { "bytes=99-", 100, "99-99" },
        { "bytes=0-99999999999999999999999999", 100, "0-99" }, { "bytes=-99999999999999999999999999", 100, "0-99" },
        { "bytes=0-1, 5-6", 100, "0-1 5-6" }, { "bytes=5-6,0-1", 100, "5-6 0-1" }, { "bytes=,,0-1 ,\t", 100, "0-1" },
        { "bytes=0-5,3-9", 100, "0-9" }, { "bytes=0-5,6-9", 100, "0-9" }, { "bytes=0-5,7-9", 100, "0-5 7-9" },
        { "bytes=6-9,0-5", 100, "0-9" }, { "bytes=0-1,4-5,2-3", 100, "0-5" }, { "bytes=8-9,0-1,4-5,2-8", 100, "0-9" },
        { "bytes=50-60,0-1,-99", 100, "0-99" }, { "bytes=0-1,200-300", 100, "0-1" }, { "bytes=200-,0-1", 100, "0-1" },
        { "bytes=-0,1-1", 100, "1-1" }, { "bytes=18446744073709551613-", 18446744073709551615u, "18446744073709551613-18446744073709551614" },
        { "bytes=100-", 100, "none" }, { "bytes=100-200,300-", 100, "none" }, { "bytes=-0", 100, "none" },
        { "bytes=99999999999999999999999999-", 100, "none" }, { "bytes=0-0", 0, "none" }, { "bytes=-0", 0, "none" },
        { "bytes=-5", 0, "" }, { "", 100, "" }, { "bytes", 100, "" }, { "bytes=", 100, "" }, { "bytes=,", 100, "" },
        { "items=0-1", 100, "" }, { "bytes=1-0", 100, "" }, { "bytes=-", 100, "" }, { "bytes=a-b", 100, "" },
        { "bytes=0-1,x", 100, "" }, { "bytes=0-1,2", 100, "" }, { "bytes=0--1", 100, "" }, { "bytes=+0-1", 100, "" },
        { "bytes= 0 - 1", 100, "" }, { "bytes =0-1", 100, "" }, { "bytes:0-1", 100, "" }, { "0-1", 100, "" },
        { "bytes=0-1-2", 100, "" }, { "bytes=1-99999999999999999999x", 100, "" }, { "bytes=0x0-1", 100, "" },
        { "bytes=5-2,0-1", 100, "" }, { "bytes=300-200", 100, "" },
        { "bytes=0-0,2-2,4-4,6-6", 100, "0-0 2-2 4-4 6-6" }, { "bytes=0-0,2-2,4-4,6-6,8-8", 100, "" },
    };
    struct http_range out[4];
    char got[128];
    size_t n;

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        enum http_ranges r = http_range(slice_of(cases[i].text), cases[i].size, out, 4, &n);

        strcpy(got, r == HTTP_RANGE_UNSATISFIABLE ? "none" : "");
        assert_int_equal(r == HTTP_RANGE_OK, n > 0);
        for (size_t k = 0; k < n; k++)
            sprintf(got + strlen(got), "%s%llu-%llu", k > 0 ? " " : "",
                (unsigned long long)out[k].first, (unsigned long long)out[k].last);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("%s: %s", cases[i].text, got);
    }
}

static void
hosts_are_names_or_addresses_with_a_port(void **state)
{
    static const char *const good[] = {
        "a", "a.b", "A-b_c.~d", "a.", "127.0.0.1", "999.1.1.1", "[::1]", "[2001:DB8::ffff:1.2.3.4]", "a:80", "a:", "a:0",
        "a:65535", "a:00080", "[::1]:8080", "[::1]:", "a%20b", "a!$&'()*+,;=b", "xn--a",
    };
    static const char *const bad[] = {
        "", ":", ":80", "a b", "a/b", "a@b", "a:b", "a:80:80", "a:65536", "a:99999999999999999999", "a:+80", "a:-1", "a: 80",
        "[", "[]", "[::1", "::1", "[a]", "[::1]a", "[::1]:x", "[v1.a]", "[::1%25eth0]", "[::g]", "[1:2:3:4:5:6:7:8:9]",
        "a%", "a%2", "a%zz", "a\\b", "a#b", "a?b", "a\x80", "a\"b", "a<b", "a^b", "a|b", "a`b", "{a}",
    };

    (void)state;
    for (size_t i = 0; i < NELEM(good); i++)
        if (!http_is_host(slice_of(good[i])))
            fail_msg("%s", good[i]);
    for (size_t i = 0; i < NELEM(bad); i++)
        if (http_is_host(slice_of(bad[i])))
            fail_msg("%s", bad[i]);
    assert_false(http_is_host((struct slice){ "a\0b", 3 }) || http_is_host((struct slice){ "[::1\0]", 6 }));
}

static void
hosts_lose_case_and_default_port(void **state)
{
    static const char *const cases[][3] = {      /* host, as http, as https */
        { "Example.COM", "example.com", "example.com" }, { "a:80", "a", "a:80" }, { "a:443", "a:443", "a" },
        { "a:", "a", "a" }, { "A:8080", "a:8080", "a:8080" }, { "a:0080", "a", "a:80" }, { "[::FF]:80", "[::ff]", "[::ff]:80" },
        { "[::1]", "[::1]", "[::1]" }, { "1.2.3.4", "1.2.3.4", "1.2.3.4" }, { "8080", "8080", "8080" }, { "", "", "" },
        { "a.b.", "a.b", "a.b" }, { "a.:80", "a", "a:80" }, { "A..:8080", "a:8080", "a:8080" }, { ".", ".", "." },
        { "%41%2e%2Eb%2E", "a..b", "a..b" }, { "a%3a80", "a%3A80", "a%3A80" }, { "%2541", "%2541", "%2541" },
    };
    struct buf b = { 0 };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++)
        for (int https = 0; https < 2; https++) {
            buf_addz(&b, "");
            http_host_normalise(&b, slice_of(cases[i][0]), https);
            assert_buf(&b, cases[i][1 + https]);
        }
    http_host_normalise(&b, (struct slice){ NULL, 0 }, false);      /* HTTP/1.0 without Host */
    assert_buf(&b, "");
}

static void
paths_are_normalised_only_where_rfc_3986_calls_them_equivalent(void **state)
{
    static const char *const cases[][2] = {
        { "", "/" }, { "/", "/" }, { "/a", "/a" }, { "/a/", "/a/" }, { "//", "//" }, { "//a//b", "//a//b" },
        { "/%41%2d%2E%5f%7e%39", "/A-._~9" }, { "/%2f%3a%c3%A9%20%25", "/%2F%3A%C3%A9%20%25" }, { "/%2541", "/%2541" },
        { "/.", "/" }, { "/..", "/" }, { "/./", "/" }, { "/../", "/" }, { "/./a", "/a" }, { "/../a", "/a" }, { "/a/.", "/a/" },
        { "/a/..", "/" }, { "/a/../", "/" }, { "/a/b/..", "/a/" }, { "/a/b/../c", "/a/c" }, { "/a/./b", "/a/b" },
        { "/a/../../b", "/b" }, { "/a/b/c/./../../g", "/a/g" }, { "/a//../b", "/a/b" }, { "/a/..//b", "//b" },
        { "/...", "/..." }, { "/.a", "/.a" }, { "/a.", "/a." }, { "/..a", "/..a" }, { "/a/..;x", "/a/..;x" },
        { "/a/%2e%2E/b", "/b" }, { "/a/%2e/b", "/a/b" }, { "/a%2F..%2Fb", "/a%2F..%2Fb" }, { "*", "*" },
        { "/A+b!$&'()*,;=:@", "/A+b!$&'()*,;=:@" }, { "/%", "/%" }, { "/%4", "/%4" }, { "/%zz", "/%zz" },
        /* what stands in no URI and is sent all the same has one spelling; reserved stays */
        { "/\"<>\\^`{|}[]", "/%22%3C%3E%5C%5E%60%7B%7C%7D[]" }, { "/%7c|%7C", "/%7C%7C%7C" }, { "/%|", "/%%7C" },
        { "/a\\..\\b", "/a%5C..%5Cb" },
    };
    struct buf b = { 0 };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        http_uri_normalise(&b, slice_of(cases[i][0]), (struct slice){ NULL, 0 });
        assert_buf(&b, cases[i][1]);
    }
    http_uri_normalise(&b, SLICE("/a"), SLICE(""));
    assert_buf(&b, "/a?");
    http_uri_normalise(&b, SLICE("/a"), SLICE("b=/../%7e&a=%2f&&c=?"));
    assert_buf(&b, "/a?b=/../~&a=%2F&&c=?");
    http_uri_normalise(&b, SLICE("/"), SLICE("q={\"a\":\"b|c^\\d\"}&e[0]=1"));
    assert_buf(&b, "/?q=%7B%22a%22:%22b%7Cc%5E%5Cd%22%7D&e[0]=1");
    buf_addz(&b, "key:");
    http_uri_normalise(&b, SLICE("/../x"), SLICE("y"));
    assert_buf(&b, "key:/x?y");
}

static void
absolute_uris_are_parsed(void **state)
{
    static const char *const bad[] = {
        "", "http", "http:", "http:/", "http://", "http:///", "http:a", "/a", "//a", "ftp://a", "httpx://a", "http://a b",
        "http://u@a", "http://a:x", "http://a/#f", "http://a/%", "http://a/\x80", "http://a/ ", "http://a#f", " http://a", "https:/a",
    };
    struct http_uri u;

    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++)
        if (http_uri_parse(slice_of(bad[i]), &u) != -1)
            fail_msg("%s", bad[i]);
    assert_int_equal(http_uri_parse(SLICE("HTTPS://A.b:1/c/d?e?f/"), &u), 0);
    assert_slice(u.scheme, "HTTPS");
    assert_slice(u.host, "A.b:1");
    assert_slice(u.path, "/c/d");
    assert_slice(u.query, "e?f/");
    assert_int_equal(http_uri_parse(SLICE("http://a"), &u), 0);
    assert_slice(u.path, "");
    assert_null(u.query.p);
    assert_int_equal(http_uri_parse(SLICE("http://a?"), &u), 0);
    assert_slice(u.host, "a");
    assert_non_null(u.query.p);
}

/* The examples of RFC 3986 5.4 as far as they stay with http, and others. */
static void
references_are_resolved(void **state)
{
    static const char *const cases[][2] = {
        { "g", "http://a/b/c/g" }, { "./g", "http://a/b/c/g" }, { "g/", "http://a/b/c/g/" }, { "/g", "http://a/g" },
        { "//g", "http://g/" }, { "?y", "http://a/b/c/d;p?y" }, { "g?y", "http://a/b/c/g?y" }, { "#s", "http://a/b/c/d;p?q" },
        { "g#s", "http://a/b/c/g" }, { "g?y#s", "http://a/b/c/g?y" }, { ";x", "http://a/b/c/;x" }, { "g;x", "http://a/b/c/g;x" },
        { "", "http://a/b/c/d;p?q" }, { ".", "http://a/b/c/" }, { "./", "http://a/b/c/" }, { "..", "http://a/b/" },
        { "../", "http://a/b/" }, { "../g", "http://a/b/g" }, { "../..", "http://a/" }, { "../../", "http://a/" },
        { "../../g", "http://a/g" }, { "../../../g", "http://a/g" }, { "../../../../g", "http://a/g" }, { "/./g", "http://a/g" },
        { "/../g", "http://a/g" }, { "g.", "http://a/b/c/g." }, { ".g", "http://a/b/c/.g" }, { "g..", "http://a/b/c/g.." },
        { "..g", "http://a/b/c/..g" }, { "./../g", "http://a/b/g" }, { "./g/.", "http://a/b/c/g/" }, { "g/./h", "http://a/b/c/g/h" },
        { "g/../h", "http://a/b/c/h" }, { "g;x=1/./y", "http://a/b/c/g;x=1/y" }, { "g;x=1/../y", "http://a/b/c/y" },
        { "g?y/./x", "http://a/b/c/g?y/./x" }, { "g?y/../x", "http://a/b/c/g?y/../x" }, { "g#s/../x", "http://a/b/c/g" },
        { "http://B:80/%7ex", "http://b/~x" }, { "HTTPS://b:443", "https://b/" }, { "//B:8080/x?y", "http://b:8080/x?y" },
        { "?", "http://a/b/c/d;p?" }, { "./g:h", "http://a/b/c/g:h" },
        { "g:h", NULL }, { "http:g", NULL }, { "mailto:a@b", NULL }, { "ftp://a/", NULL }, { "javascript:alert(1)", NULL },
        { "a b", NULL }, { "//", NULL }, { "///x", NULL }, { "//u@a/", NULL }, { "/%zz", NULL }, { "/\x80", NULL }, { "/\x01", NULL },
        { "http://", NULL }, { "g#a b", NULL }, { "g#a#b", NULL },
    };
    struct http_uri base, bare;
    struct buf b = { 0 };

    (void)state;
    assert_int_equal(http_uri_parse(SLICE("http://a/b/c/d;p?q"), &base), 0);
    assert_int_equal(http_uri_parse(SLICE("http://a"), &bare), 0);
    for (size_t i = 0; i < NELEM(cases); i++) {
        int r = http_uri_resolve(&b, &base, slice_of(cases[i][0]));

        if ((r == 0) != (cases[i][1] != NULL))
            fail_msg("%s: %d", cases[i][0], r);
        if (r == 0)
            assert_buf(&b, cases[i][1]);
        assert_int_equal(b.n, 0);
    }
    assert_int_equal(http_uri_resolve(&b, &bare, SLICE("g")), 0);
    assert_buf(&b, "http://a/g");
}

static void
escapes_are_decoded_or_nothing_is(void **state)
{
    struct buf b = { 0 };

    (void)state;
    assert_int_equal(http_uri_decode(&b, SLICE("a%20%2Fb+%c3%A9")), 0);
    assert_buf(&b, "a /b+\xc3\xa9");
    buf_addz(&b, "x");
    assert_int_equal(http_uri_decode(&b, SLICE("ab%2")), -1);
    assert_int_equal(http_uri_decode(&b, SLICE("%zz")), -1);
    assert_int_equal(http_uri_decode(&b, SLICE("")), 0);
    assert_buf(&b, "x");
}

static void
a_preference_is_asked_for_by_its_first_instance(void **state)
{
    static const struct { const char *lines; bool asked; } cases[] = {
        { "Prefer: respond-async\r\n", true }, { "prefer: RESPOND-async\r\n", true },
        { "Prefer: return=minimal, respond-async\r\n", true },
        { "Prefer: return=minimal\r\nPrefer: respond-async\r\n", true },
        { "Prefer: respond-async; wait=10\r\n", true }, { "Prefer: respond-async ;;\r\n", true },
        { "Prefer: respond-async=\"\"\r\n", true }, { "Prefer: respond-async = \"\" ; a\r\n", true },
        { "Prefer: respond-async=\r\n", true }, { "Prefer: x=\"a, b\", respond-async\r\n", true },
        { "Prefer: respond-async, respond-async=1\r\n", true },
        { "Prefer: respond-async=1, respond-async\r\n", false },
        { "Prefer: respond-async=\"\"x\r\n", false }, { "Prefer: respond-asynchronously\r\n", false },
        { "Prefer: x=\"a, respond-async\"\r\n", false }, { "Prefer: x; respond-async\r\n", false },
        { "Prefer: \r\n", false }, { "Prefer: ;,=,\r\n", false }, { "X: respond-async\r\n", false },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct http_field fields[8];
        struct http_head h = { .fields = fields, .cap = NELEM(fields) };
        size_t n = strlen(cases[i].lines);
        char *bytes = malloc(n);

        assert_non_null(bytes);
        memcpy(bytes, cases[i].lines, n);
        assert_int_equal(http_parse_fields(bytes, n, &h), 0);
        if (http_prefers(&h, SLICE("respond-async")) != cases[i].asked)
            fail_msg("%s", cases[i].lines);
        free(bytes);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_preference_is_asked_for_by_its_first_instance),
        cmocka_unit_test(dates_are_read_in_three_forms),
        cmocka_unit_test(dates_are_written_as_the_c_library_writes_them_and_read_back),
        cmocka_unit_test(a_single_range_is_told_before_the_size_is_known),
        cmocka_unit_test(a_content_range_names_one_part),
        cmocka_unit_test(ranges_are_cut_to_the_representation_and_joined),
        cmocka_unit_test(hosts_are_names_or_addresses_with_a_port),
        cmocka_unit_test(hosts_lose_case_and_default_port),
        cmocka_unit_test(paths_are_normalised_only_where_rfc_3986_calls_them_equivalent),
        cmocka_unit_test(absolute_uris_are_parsed),
        cmocka_unit_test(references_are_resolved),
        cmocka_unit_test(escapes_are_decoded_or_nothing_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
