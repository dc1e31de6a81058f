/*
 * Response heads, framing of their bodies, field sections alone, what crosses the proxy, lists.
 */
#include "http_util.h"

#define OK200 "HTTP/1.1 200 OK\r\n"

static void
good_status_lines_are_accepted_in_any_pieces(void **state)
{
    static const char *const good[] = {
        OK200 "\r\n", "HTTP/1.1 200 \r\n\r\n", "HTTP/1.1 200\r\n\r\n", "HTTP/1.0 404 Not Found\r\n\r\n",
        "HTTP/1.1 999 x\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.9 204 N\r\n\r\n",
        "HTTP/1.1 200 caf\xc3\xa9\tx\r\n\r\n", OK200 "A: b\r\nSet-Cookie: c\r\nSet-Cookie: d\r\n\r\n",
        OK200 "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    };

    (void)state;
    for (size_t i = 0; i < NELEM(good); i++)
        if (feed(http_parse_response, good[i], strlen(good[i]), strlen(good[i]), &roomy) != 0)
            fail_msg("%s", good[i]);
}

static void
bad_response_heads_are_502(void **state)
{
    static const char *const bad[] = {
        "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 +20 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n", "HTTP/0.9 200 OK\r\n\r\n", "http/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n", "\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 O\x01K\r\n\r\n", "HTTP/1.1 200 O\x7fK\r\n\r\n", "HTTP/1.1 200 OK\rX\r\n\r\n",
        "HTTP/1.1\t200 OK\r\n\r\n", "HTTP/1.1 200\tOK\r\n\r\n", " HTTP/1.1 200 OK\r\n\r\n",
        OK200 "A : b\r\n\r\n", OK200 " A: b\r\n\r\n", OK200 "A: b\r\n c\r\n\r\n", OK200 ": b\r\n\r\n",
        OK200 "A: b\nC: d\r\n\r\n", OK200 "A: \x02\r\n\r\n", OK200 "A\r\n\r\n", "<html>",
    };

    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++)
        if (feed(http_parse_response, bad[i], strlen(bad[i]), strlen(bad[i]), &roomy) != 502)
            fail_msg("%s", bad[i]);
}

static void
limits_of_a_response_are_502_too(void **state)
{
    static const struct http_limits tight = { 32, 10, 1 };

    (void)state;
    assert_int_equal(feed(http_parse_response, OK200 "A:\r\nB:\r\n\r\n", 27, 27, &tight), 502);
    assert_int_equal(feed(http_parse_response, OK200 "A:0123456789abcdef0123\r\n", 41, 99, &tight), 502);
}

static void
a_response_is_taken_apart(void **state)
{
    static const char text[] = "HTTP/1.0 404 Not  Found\r\nETag: \"x\"\r\nConnection: keep-alive\r\n\r\n";
    struct parsed p;

    (void)state;
    parse_n(&p, http_parse_response, text, sizeof text - 1, &roomy);
    assert_int_equal(p.result, sizeof text - 1);
    assert_int_equal(p.head.status, 404);
    assert_int_equal(p.head.minor, 0);
    assert_int_equal(p.head.flags, 0);
    assert_slice(p.head.reason, "Not  Found");
    assert_slice(http_value(&p.head, HF_ETAG), "\"x\"");
    parsed_free(&p);
}

enum { BAD = -1, NONE = HTTP_NO_BODY, CHUNKED = HTTP_CHUNKED, CLOSE = HTTP_UNTIL_CLOSE, SIZED = HTTP_LENGTH };

static void
the_body_of_a_response_ends_where_the_rfc_says(void **state)
{
    static const struct {
        const char *status, *fields;
        enum http_method method;
        int framing, length;
        bool closes;
    } cases[] = {
        { "1.1 200", "Content-Length: 5\r\n", HTTP_GET, SIZED, 5, false },
        { "1.1 200", "Content-Length: 0\r\n", HTTP_GET, SIZED, 0, false },
        { "1.1 200", "Content-Length: 5\r\nContent-Length: 5\r\n", HTTP_GET, SIZED, 5, false },
        { "1.1 200", "Content-Length: 5, 5\r\ncontent-length: 5\r\n", HTTP_GET, SIZED, 5, false },
        { "1.1 200", "Content-Length: 5, 05\r\n", HTTP_GET, SIZED, 5, false },
        { "1.1 200", "Content-Length: 5, 6\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Content-Length: 5\r\nContent-Length: 6\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Content-Length: 5,\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Content-Length:\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Content-Length: 5\r\nContent-Length:\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Content-Length: -5\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Content-Length: +5\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Content-Length: 5x\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Content-Length: 9223372036854775808\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Content-Length: 99999999999999999999\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Transfer-Encoding: chunked\r\n", HTTP_GET, CHUNKED, 0, false },
        { "1.1 200", "Transfer-Encoding: Chunked\r\n", HTTP_POST, CHUNKED, 0, false },
        { "1.1 200", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Transfer-Encoding: gzip, chunked\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Transfer-Encoding: chunked, chunked\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Transfer-Encoding: identity\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Transfer-Encoding:\r\n", HTTP_GET, BAD, 0, false },
        { "1.0 200", "Transfer-Encoding: chunked\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", HTTP_GET, BAD, 0, false },
        { "1.1 200", "", HTTP_GET, CLOSE, 0, true }, { "1.0 200", "", HTTP_GET, CLOSE, 0, true },
        { "1.1 200", "Content-Length: 5\r\n", HTTP_HEAD, NONE, 5, false },
        { "1.1 200", "Content-Length: 5, 5\r\n", HTTP_HEAD, NONE, 5, false },
        { "1.1 200", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", HTTP_HEAD, NONE, 0, false },
        { "1.1 200", "Transfer-Encoding: chunked\r\n", HTTP_HEAD, NONE, 0, false },
        { "1.1 200", "", HTTP_HEAD, NONE, 0, false },
        { "1.1 200", "Content-Length: x\r\n", HTTP_HEAD, BAD, 0, false },
        { "1.1 304", "Content-Length: 5\r\n", HTTP_GET, NONE, 5, false },
        { "1.1 204", "", HTTP_GET, NONE, 0, false }, { "1.1 204", "Content-Length: 0\r\n", HTTP_GET, NONE, 0, false },
        { "1.1 204", "Content-Length: 5\r\n", HTTP_GET, NONE, 5, true },
        { "1.1 204", "Transfer-Encoding: chunked\r\n", HTTP_GET, NONE, 0, true },
        { "1.1 100", "", HTTP_GET, NONE, 0, false }, { "1.1 103", "Link: </a>\r\n", HTTP_GET, NONE, 0, false },
        { "1.1 101", "Upgrade: x\r\n", HTTP_GET, NONE, 0, false },
        { "1.1 404", "Content-Length: 7\r\n", HTTP_DELETE, SIZED, 7, false },
        { "1.0 200", "Content-Length: 5\r\n", HTTP_GET, SIZED, 5, true },
    };
    char text[512];
    struct parsed p;

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        int got;

        sprintf(text, "HTTP/%s X\r\n%s\r\n", cases[i].status, cases[i].fields);
        parse_n(&p, http_parse_response, text, strlen(text), &roomy);
        assert_int_equal(p.result, strlen(text));
        got = http_response_framing(&p.head, cases[i].method, &p.fault);
        if (got == 0)
            got = (int)p.head.framing;
        else
            assert_int_equal(p.fault.status, 502);
        if (got != cases[i].framing || (got != BAD && (int)p.head.length != cases[i].length) ||
            (got != BAD && ((p.head.flags & HTTP_CLOSE) != 0) != cases[i].closes))
            fail_msg("%s: %d", text, got);
        parsed_free(&p);
    }
}

static int
fields_only(struct parsed *p, const char *text)
{
    size_t n = strlen(text);

    p->bytes = malloc(n > 0 ? n : 1);
    assert_non_null(p->bytes);
    memcpy(p->bytes, text, n);
    p->head = (struct http_head){ .fields = p->fields, .cap = 4, .status = 77 };
    return http_parse_fields(p->bytes, n, &p->head);
}

static void
a_field_section_is_parsed_to_its_very_end(void **state)
{
    static const char *const bad[] = {
        "A: b", "A: b\r", "A: b\n", "A: b\r\n\r\n", "\r\n", "A: b\r\nC", "A: b\r\n c\r\n", "A : b\r\n",
        ": b\r\n", "A: \x01\r\n", "A:\r\nB:\r\nC:\r\nD:\r\nE:\r\n", "X-Name: 0123456789abcdef0123456789\r",
    };
    struct parsed p;

    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++) {
        if (fields_only(&p, bad[i]) != -1)
            fail_msg("%s", bad[i]);
        parsed_free(&p);
    }
    assert_int_equal(fields_only(&p, ""), 0);
    assert_int_equal(p.head.nfields, 0);
    parsed_free(&p);
    assert_int_equal(fields_only(&p, "A: b\r\nage:\t7 \r\nC:\r\nX-D: 0123456789abcdef0123456789abcdef\r\n"), 0);
    assert_int_equal(p.head.nfields, 4);
    assert_int_equal(p.head.status, 77);
    assert_true(http_has(&p.head, HF_AGE));
    assert_slice(http_value(&p.head, HF_AGE), "7");
    parsed_free(&p);
}

static void
hop_by_hop_fields_and_those_that_connection_names_stay_here(void **state)
{
    static const char text[] = OK200
        "Connection: x-one, \"x,quoted\" ,Content-Length,authorization\r\n"    /* 0 */
        "X-One: 1\r\nX-Two: 1\r\nContent-Length: 5\r\nAuthorization: a\r\n"      /* 1 2 3 4 */
        "Keep-Alive: 1\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\n"    /* 5 - 8 */
        "Proxy-Connection: x\r\nProxy-Authorization: x\r\nAccept: b\r\nX-Three: c\r\n"        /* 9 - 12 */
        "Connection: X-THREE\r\nServer: z\r\n\r\n";
    static const bool forwards[] = { false, false, true, true, true, false, false, false, false,
        false, false, true, false, false, true };
    struct parsed p;

    (void)state;
    parse_n(&p, http_parse_response, text, sizeof text - 1, &roomy);
    assert_int_equal(p.head.nfields, NELEM(forwards));
    for (unsigned i = 0; i < p.head.nfields; i++)
        if (http_forwards(&p.head, &p.fields[i]) != forwards[i])
            fail_msg("%.*s", SLICE_ARG(p.fields[i].name));
    parsed_free(&p);
}

static void
joined(struct slice value, char *out)
{
    struct slice member;

    for (*out = '\0'; http_member(&value, &member);)
        sprintf(out + strlen(out), "[%.*s]", SLICE_ARG(member));
    assert_false(http_member(&value, &member));
}

static void
lists_are_cut_at_commas_outside_quoted_strings(void **state)
{
    static const char *const cases[][2] = {
        { "", "" }, { "a", "[a]" }, { "a,b", "[a][b]" }, { " a , b\t,", "[a][b]" }, { ",,a,,", "[a]" },
        { " , ,", "" }, { "a b;c=\"d,e\", f", "[a b;c=\"d,e\"][f]" }, { "\"a\\\",b\",c", "[\"a\\\",b\"][c]" },
        { "\"a,b", "[\"a,b]" }, { "\"a\\", "[\"a\\]" }, { "a\\,b", "[a\\][b]" }, { "W/\"x,y\",\"z\"", "[W/\"x,y\"][\"z\"]" },
    };
    char out[128];

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        joined(slice_of(cases[i][0]), out);
        assert_string_equal(out, cases[i][1]);
    }
    joined((struct slice){ NULL, 0 }, out);
    assert_string_equal(out, "");
}

static void
a_list_is_walked_over_all_its_lines(void **state)
{
    static const char text[] = OK200 "Vary: a, b\r\nAge: 1\r\nVary:\r\nvary: ,c\r\nVary: \"d,e\"\r\n\r\n";
    struct http_list it = { 0 };
    struct slice member;
    struct parsed p;
    char out[64] = "";

    (void)state;
    parse_n(&p, http_parse_response, text, sizeof text - 1, &roomy);
    while (http_list_next(&p.head, HF_VARY, &it, &member))
        sprintf(out + strlen(out), "[%.*s]", SLICE_ARG(member));
    assert_string_equal(out, "[a][b][c][\"d,e\"]");
    it = (struct http_list){ 0 };
    assert_false(http_list_next(&p.head, HF_LINK, &it, &member));
    assert_true(http_list_has(&p.head, HF_VARY, SLICE("C")));
    assert_false(http_list_has(&p.head, HF_VARY, SLICE("d")));
    parsed_free(&p);
}

static void
every_known_name_has_an_id_and_others_have_none(void **state)
{
    static const char *const unknown[] = { "", "X", "Hos", "Hostt", "Accept_Encoding", "x-forwarded-fo",
        "Content\rLength", "a-name-that-is-longer-than-all-of-the-known-ones" };

    (void)state;
    for (unsigned id = HF_NONE + 1; id < HF_COUNT; id++) {
        char lower[64];
        struct slice name = http_name((enum http_id)id);

        for (size_t i = 0; i < name.n; i++)
            lower[i] = (char)(name.p[i] == '-' ? '-' : name.p[i] | 0x20);
        assert_int_equal(http_id(name), id);
        assert_int_equal(http_id((struct slice){ lower, name.n }), id);
    }
    for (size_t i = 0; i < NELEM(unknown); i++)
        assert_int_equal(http_id(slice_of(unknown[i])), HF_NONE);
    assert_int_equal(http_flags(HF_TE), HTTP_HOP);
    assert_int_equal(http_flags(HF_AUTHORIZATION), HTTP_KEEP | HTTP_ONE);
}

static void
methods_are_case_sensitive_and_have_their_properties(void **state)
{
    static const struct { const char *name; enum http_method m; bool safe, idempotent; } cases[] = {
        { "GET", HTTP_GET, 1, 1 }, { "HEAD", HTTP_HEAD, 1, 1 }, { "POST", HTTP_POST, 0, 0 },
        { "PUT", HTTP_PUT, 0, 1 }, { "PATCH", HTTP_PATCH, 0, 0 }, { "DELETE", HTTP_DELETE, 0, 1 },
        { "OPTIONS", HTTP_OPTIONS, 1, 1 }, { "TRACE", HTTP_TRACE, 1, 1 }, { "CONNECT", HTTP_CONNECT, 0, 0 },
        { "PURGE", HTTP_PURGE, 0, 0 }, { "QUERY", HTTP_QUERY, 1, 1 }, { "get", HTTP_OTHER, 0, 0 },
        { "GETT", HTTP_OTHER, 0, 0 }, { "", HTTP_OTHER, 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        assert_int_equal(http_method(slice_of(cases[i].name)), cases[i].m);
        assert_int_equal(http_method_safe(cases[i].m), cases[i].safe);
        assert_int_equal(http_method_idempotent(cases[i].m), cases[i].idempotent);
    }
}

static void
small_things_are_what_they_are_called(void **state)
{
    struct buf b = { 0 };

    (void)state;
    assert_true(http_is_token(SLICE("a!#~")));
    assert_false(http_is_token(SLICE("")) || http_is_token(SLICE("a b")) || http_is_token(SLICE("a:")));
    assert_true(http_is_field_value(SLICE("")) && http_is_field_value(SLICE("a\tb \xff")));
    assert_false(http_is_field_value(SLICE("a\r\n")) || http_is_field_value(SLICE("0123456789abcdef\x7f")));
    assert_string_equal(http_reason(200), "OK");
    assert_string_equal(http_reason(299), "");
    assert_string_equal(http_reason(99999), "");
    http_put(&b, SLICE("A"), SLICE("b"));
    http_put_id(&b, HF_ETAG, SLICE(""));
    assert_buf(&b, "A: b\r\nETag: \r\n");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_status_lines_are_accepted_in_any_pieces),
        cmocka_unit_test(bad_response_heads_are_502),
        cmocka_unit_test(limits_of_a_response_are_502_too),
        cmocka_unit_test(a_response_is_taken_apart),
        cmocka_unit_test(the_body_of_a_response_ends_where_the_rfc_says),
        cmocka_unit_test(a_field_section_is_parsed_to_its_very_end),
        cmocka_unit_test(hop_by_hop_fields_and_those_that_connection_names_stay_here),
        cmocka_unit_test(lists_are_cut_at_commas_outside_quoted_strings),
        cmocka_unit_test(a_list_is_walked_over_all_its_lines),
        cmocka_unit_test(every_known_name_has_an_id_and_others_have_none),
        cmocka_unit_test(methods_are_case_sensitive_and_have_their_properties),
        cmocka_unit_test(small_things_are_what_they_are_called),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
