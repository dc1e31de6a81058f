/*
 * Validators, conditions, 304s, fields that are kept, and invalidation.
 */
#include "semantics_util.h"

static const struct { const char *a, *b; bool weak, strong; } etag_cases[] = {
    /* the table of RFC 9110 8.8.3.2 */
    { "W/\"1\"", "W/\"1\"", true, false }, { "W/\"1\"", "W/\"2\"", false, false },
    { "W/\"1\"", "\"1\"", true, false }, { "\"1\"", "\"1\"", true, true },
    /* what is no entity-tag equals nothing */
    { "1", "1", false, false }, { "\"1", "\"1", false, false },
    { "w/\"1\"", "w/\"1\"", false, false }, { "W\\\"1\"", "W\\\"1\"", false, false },
    { "", "", false, false }, { "\"", "\"", false, false }, { "\"a\"b", "\"a\"b", false, false },
    { "\"a b\"", "\"a b\"", false, false }, { "\"\"", "\"\"", true, true },
    { "\"a\\\"", "\"a\\\"", true, true }, { "\"A\"", "\"a\"", false, false },
    { "\"\xc3\xbc\"", "\"\xc3\xbc\"", true, true },
};

static void
entity_tags_compare_as_8_8_3_2_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(etag_cases); i++) {
        struct slice a = slice_of(etag_cases[i].a), b = slice_of(etag_cases[i].b);

        if (sem_etag_weak_equal(a, b) != etag_cases[i].weak ||
            sem_etag_weak_equal(b, a) != etag_cases[i].weak ||
            sem_etag_strong_equal(a, b) != etag_cases[i].strong ||
            sem_etag_strong_equal(b, a) != etag_cases[i].strong)
            fail_msg("%s and %s", etag_cases[i].a, etag_cases[i].b);
    }
}

#define NONE INT64_MAX

static const struct condition_case {
    const char *clause, *method, *request, *etag;
    int64_t     modified;               /* relative to NOW_S, NONE without; made at NOW_S */
    bool        want;
} condition_cases[] = {
#define SEND false
#define NOT_MODIFIED true
#define C(clause, request, etag, modified, want) \
    { clause, "GET", request, etag, modified, want }
    C("13.2.2", "", "\"a\"", -10, SEND),
    C("13.1.2", "If-None-Match: \"a\"", "\"a\"", NONE, NOT_MODIFIED),
    C("13.1.2", "If-None-Match: \"b\"", "\"a\"", NONE, SEND),
    C("13.1.2", "If-None-Match: \"a\", \"1\", \"2\"", "\"a\"", NONE, NOT_MODIFIED),
    C("13.1.2", "If-None-Match: \"1\",\"a\",\"2\"", "\"a\"", NONE, NOT_MODIFIED),
    C("13.1.2", "If-None-Match: \"1\", , \"2\" ,\"a\"", "\"a\"", NONE, NOT_MODIFIED),
    C("13.1.2", "If-None-Match: \"1\"\nIf-None-Match: \"a\"", "\"a\"", NONE, NOT_MODIFIED),
    C("13.1.2, weak", "If-None-Match: W/\"a\"", "\"a\"", NONE, NOT_MODIFIED),
    C("13.1.2, weak", "If-None-Match: \"a\"", "W/\"a\"", NONE, NOT_MODIFIED),
    C("13.1.2, comma in a tag", "If-None-Match: \"x,y\"", "\"x,y\"", NONE, NOT_MODIFIED),
    C("8.8.3, backslash in a tag", "If-None-Match: \"x\\\", \"a\"", "\"a\"", NONE, NOT_MODIFIED),
    C("13.1.2, not quoted", "If-None-Match: a", "\"a\"", NONE, SEND),
    C("13.1.2, not quoted", "If-None-Match: a", "a", NONE, SEND),
    C("13.1.2, part", "If-None-Match: \"ab\"", "\"a\"", NONE, SEND),
    C("13.1.2, any", "If-None-Match: *", "\"a\"", NONE, NOT_MODIFIED),
    C("13.1.2, any", "If-None-Match: *", NULL, NONE, NOT_MODIFIED),
    C("13.1.2, no tag stored", "If-None-Match: \"a\"", NULL, NONE, SEND),
    C("13.1.3, ignored beside", "If-None-Match: \"a\"\nIf-Modified-Since: @-100", "\"a\"", -50,
        NOT_MODIFIED),
    C("13.1.3, ignored beside", "If-None-Match: \"b\"\nIf-Modified-Since: @0", "\"a\"", -50, SEND),
    C("13.1.3", "If-Modified-Since: @-50", NULL, -50, NOT_MODIFIED),
    C("13.1.3", "If-Modified-Since: @-40", NULL, -50, NOT_MODIFIED),
    C("13.1.3", "If-Modified-Since: @-60", NULL, -50, SEND),
    C("13.1.3, RFC 850", "If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT", NULL, 0,
        NOT_MODIFIED),
    C("13.1.3, asctime", "If-Modified-Since: Tue Nov 14 22:13:20 2023", NULL, 0, NOT_MODIFIED),
    C("13.1.3, no date", "If-Modified-Since: yesterday", NULL, -50, SEND),
    C("13.1.3, several", "If-Modified-Since: @0\nIf-Modified-Since: @-90", NULL, -50, SEND),
    C("9111 4.3.2, Date stands in", "If-Modified-Since: @0", NULL, NONE, NOT_MODIFIED),
    C("9111 4.3.2, Date stands in", "If-Modified-Since: @-1", NULL, NONE, SEND),
    C("13.1.3, twice", "If-Modified-Since: @-50\nIf-Modified-Since: @-50", NULL, -50, SEND),
    { "13.1.2", "HEAD", "If-None-Match: \"a\"", "\"a\"", NONE, NOT_MODIFIED },
};

static void
conditions_are_weighed_in_order(void **state)
{
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(condition_cases); i++) {
        const struct condition_case *c = &condition_cases[i];
        int64_t modified = c->modified == NONE ? HTTP_NO_DATE : NOW_S + c->modified;

        if (sem_not_modified(request_of(&h, c->method, c->request), slice_of(c->etag), modified, NOW_S,
            NOW_S) != c->want)
            fail_msg("%s: %s %s", c->clause, c->method, c->request);
    }
}

static const struct { const char *lines, *etag; int64_t modified; bool may; } range_cases[] = {
    { "", "\"a\"", NONE, true }, { "", NULL, NONE, true },
    { "If-Range: \"a\"", "\"a\"", NONE, true }, { "If-Range: \"b\"", "\"a\"", NONE, false },
    { "If-Range: W/\"a\"", "W/\"a\"", NONE, false }, { "If-Range: \"a\"", "W/\"a\"", NONE, false },
    { "If-Range: \"a\"", NULL, NONE, false }, { "If-Range: a", "a", NONE, false },
    { "If-Range: \"a\", \"b\"", "\"a\"", NONE, false },
    { "If-Range: \"a\"\nIf-Range: \"a\"", "\"a\"", NONE, false },
    { "If-Range: @-50", NULL, -50, true }, { "If-Range: @-49", NULL, -50, false },
    { "If-Range: @-51", NULL, -50, false }, { "If-Range: @-50", NULL, NONE, false },
    { "If-Range: @0", NULL, 0, false },         /* 8.8.2.2: changed in the second it was made */
    { "If-Range: @-1", NULL, -1, true }, { "If-Range: x", NULL, -50, false },
    { "If-Range:", NULL, -50, false },
};

static void
a_range_is_joined_only_by_a_strong_validator(void **state)
{
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(range_cases); i++) {
        int64_t modified = range_cases[i].modified == NONE ? HTTP_NO_DATE :
            NOW_S + range_cases[i].modified;

        if (sem_if_range(request_of(&h, "GET", range_cases[i].lines), slice_of(range_cases[i].etag),
            modified, NOW_S, NOW_S) != range_cases[i].may)
            fail_msg("%s", range_cases[i].lines);
    }
}

static const struct { const char *stored, *r304; bool selects; } select_cases[] = {
    { "ETag: \"a\"", "ETag: \"a\"", true }, { "ETag: \"a\"", "ETag: \"b\"", false },
    { "ETag: \"a\"", "ETag: W/\"a\"", true }, { "ETag: W/\"a\"", "ETag: W/\"a\"", true },
    { "ETag: W/\"a\"", "ETag: \"a\"", false }, { "X: y", "ETag: \"a\"", false },
    { "ETag: \"a\"\nLast-Modified: @-9", "ETag: \"a\"\nLast-Modified: @-5", true },
    { "ETag: \"a\"\nLast-Modified: @-9", "ETag: \"b\"\nLast-Modified: @-9", false },
    { "Last-Modified: @-9", "Last-Modified: @-9", true },
    { "Last-Modified: @-9", "Last-Modified: @-5", false },
    { "ETag: \"a\"", "Last-Modified: @-9", false }, { "ETag: \"a\"", "", true }, { "", "", true },
    { "Last-Modified: @-9", "", true },
};

static void
a_304_freshens_what_has_its_validator(void **state)
{
    struct head stored, r304;

    (void)state;
    for (size_t i = 0; i < NELEM(select_cases); i++)
        if (sem_304_selects(response_of(&stored, 200, select_cases[i].stored),
            response_of(&r304, 304, select_cases[i].r304)) != select_cases[i].selects)
            fail_msg("%s | %s", select_cases[i].stored, select_cases[i].r304);
}

static const struct { const char *line; bool kept, updates, in_304; } field_cases[] = {
    { "Test-Header: a", true, true, false }, { "X-Content-Foo: a", true, true, false },
    { "Content-Foo: a", true, true, false },
    { "Cache-Control: max-age=9", true, true, true }, { "Date: @0", true, true, true },
    { "ETag: \"a\"", true, true, true }, { "ETag: W/\"a\"", true, false, true },
    { "Expires: @9", true, true, true }, { "Vary: a", true, true, true },
    { "Last-Modified: @-9", true, true, true }, { "Content-Location: /a", true, true, true },
    { "Access-Control-Allow-Origin: *", true, true, true },
    { "Access-Control-: x", true, true, false }, { "Content-Type: a/b", true, true, false },
    { "Content-Encoding: gzip", true, false, false },
    { "Content-Range: bytes 0-1/2", true, false, false },
    { "Content-Length: 9", false, false, false }, { "Content-MD5: YQ==", true, false, false },
    { "Content-Digest: md5=:YQ==:", true, false, false },
    { "Content-Language: de", true, true, false }, { "Link: <a>", true, true, false },
    { "Set-Cookie: a=b", false, false, false }, { "Age: 9", false, false, false },
    { "Cache-Status: x; hit", true, true, false }, { "Trailer: a", false, false, false },
    { "Connection: close", false, false, false }, { "Keep-Alive: timeout=5", false, false, false },
    { "TE: trailers", false, false, false }, { "Transfer-Encoding: chunked", false, false, false },
    { "Upgrade: h2c", false, false, false }, { "Proxy-Authenticate: Basic", false, false, false },
    { "Proxy-Authentication-Info: a", false, false, false },
    { "Proxy-Authorization: a", false, false, false },
    { "Proxy-Connection: close", false, false, false }, { "X-Named: 1", false, false, false },
    { "X-Private: 1", false, false, false }, { "X-No-Cache: 1", false, false, false },
    /* of the one exchange that they came with */
    { "Server-Timing: db;dur=9", false, false, false },
    { "traceresponse: 00-a-b-01", false, false, false },
    { "RateLimit: \"a\";r=9", false, false, false },
    { "RateLimit-Policy: \"a\";q=9", false, false, false },
    { "ratelimit-remaining: 9", false, false, false },
    { "X-RateLimit-Limit: 9", false, false, false },
    { "X-Rate-Limit-Reset: 9", false, false, false },
    { "Clear-Site-Data: \"cache\"", false, false, false },
    { "Authentication-Info: a", false, false, false }, { "RateLimits: 9", true, true, false },
    { "Server-Timings: 9", true, true, false }, { "X-Also: 1", false, false, false },
    { "max-age: 1", true, true, false },
};

static void
fields_are_kept_and_replaced_as_3_1_and_3_2_say(void **state)
{
    static const char around[] = "\nConnection: x-named\n"
        "Cache-Control: max-age=1, private=\"x-private, x-also\"\n"
        "Cache-Control: no-cache=X-No-Cache";
    struct head h;
    struct sem_cc cc;
    char lines[512];

    (void)state;
    for (size_t i = 0; i < NELEM(field_cases); i++) {
        snprintf(lines, sizeof lines, "%s%s", field_cases[i].line, around);
        response_of(&h, 200, lines);
        sem_cc_read(&h.h, &cc);
        if (sem_keeps(&h.h, &cc, &h.h.fields[0]) != field_cases[i].kept)
            fail_msg("kept: %s", field_cases[i].line);
        if (sem_304_updates(&h.h, &cc, &h.h.fields[0]) != field_cases[i].updates)
            fail_msg("replaced: %s", field_cases[i].line);
        if (sem_in_304(&h.h.fields[0]) != field_cases[i].in_304)
            fail_msg("in a 304: %s", field_cases[i].line);
    }
}

static void
what_a_route_replays_is_kept_unless_it_is_private(void **state)
{
    static const struct slice names[] = { SLICE("set-cookie"), SLICE("Clear-Site-Data") };
    struct sem_rules rules = no_rules;
    struct sem_cc cc;
    struct head h;

    (void)state;
    rules.replay = (struct sem_names){ names, 2 };
    response_of(&h, 200, "Set-Cookie: a=b\nClear-Site-Data: \"*\"\nServer-Timing: a\n"
        "Cache-Control: private=clear-site-data");
    sem_cc_response(&h.h, &rules, &cc);
    assert_true(sem_keeps(&h.h, &cc, &h.h.fields[0]));
    assert_true(sem_304_updates(&h.h, &cc, &h.h.fields[0]));
    assert_false(sem_keeps(&h.h, &cc, &h.h.fields[1]));
    assert_false(sem_keeps(&h.h, &cc, &h.h.fields[2]));
}

static void
an_entity_tag_that_is_private_does_not_come_in_by_a_304(void **state)
{
    struct sem_cc cc;
    struct head h;

    (void)state;
    response_of(&h, 304, "ETag: \"a\"\nCache-Control: private=\"etag\"");
    sem_cc_read(&h.h, &cc);
    assert_false(sem_304_updates(&h.h, &cc, &h.h.fields[0]));
}

static void
unsafe_methods_that_succeed_invalidate(void **state)
{
    static const enum http_method unsafe[] = { HTTP_POST, HTTP_PUT, HTTP_PATCH, HTTP_DELETE,
        HTTP_OTHER };
    static const enum http_method safe[] = { HTTP_GET, HTTP_HEAD, HTTP_OPTIONS, HTTP_TRACE,
        HTTP_QUERY };
    static const unsigned yes[] = { 200, 201, 202, 204, 299, 301, 303, 399 },
        no[] = { 100, 199, 400, 404, 500, 599 };

    (void)state;
    for (size_t i = 0; i < NELEM(yes); i++) {
        for (size_t m = 0; m < NELEM(unsafe); m++)
            assert_true(sem_invalidates(unsafe[m], yes[i]));
        for (size_t m = 0; m < NELEM(safe); m++)
            assert_false(sem_invalidates(safe[m], yes[i]));
    }
    for (size_t i = 0; i < NELEM(no); i++)
        for (size_t m = 0; m < NELEM(unsafe); m++)
            assert_false(sem_invalidates(unsafe[m], no[i]));
}

static void
only_the_same_origin_is_invalidated(void **state)
{
    (void)state;
    assert_true(sem_same_origin(SLICE("http://a/x"), SLICE("http://a/y?z")));
    assert_true(sem_same_origin(SLICE("http://a"), SLICE("http://a?z")));
    assert_true(sem_same_origin(SLICE("http://a:81/x"), SLICE("http://a:81/")));
    assert_false(sem_same_origin(SLICE("http://a/x"), SLICE("https://a/x")));
    assert_false(sem_same_origin(SLICE("http://a/x"), SLICE("http://b/x")));
    assert_false(sem_same_origin(SLICE("http://a/x"), SLICE("http://a:81/x")));
    assert_false(sem_same_origin(SLICE("http://a/x"), SLICE("http://a.b/x")));
    assert_false(sem_same_origin(SLICE("/x"), SLICE("/x")));
    assert_false(sem_same_origin(SLICE(""), SLICE("")));
}

static void
identity_is_no_coding(void **state)
{
    static const struct { const char *lines; bool coded; } cases[] = {
        { "", false }, { "Content-Encoding: identity", false },
        { "Content-Encoding: Identity, ", false }, { "Content-Encoding: gzip", true },
        { "Content-Encoding: identity\nContent-Encoding: br", true },
        { "Content-Encoding: identity, gzip", true }, { "Content-Encoding:", false },
    };
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        response_of(&h, 200, cases[i].lines);
        if (sem_coded(&h.h) != cases[i].coded)
            fail_msg("%s", cases[i].lines);
    }
}

/* RFC 9111 4.3.5. The stored one has five bytes. */
static void
a_head_agrees_where_each_validator_it_has_and_its_length_do(void **state)
{
#define BOTH "ETag: \"a\"\nLast-Modified: @-9"
    static const struct { const char *stored, *head; int64_t length; bool agrees; } cases[] = {
        { BOTH, BOTH, 5, true }, { BOTH, BOTH, -1, true }, { BOTH, BOTH, 6, false },
        { BOTH, "", -1, true }, { BOTH, "", 5, true }, { BOTH, "", 0, false },
        { BOTH, "ETag: \"a\"", 5, true }, { BOTH, "ETag: \"b\"", 5, false },
        { BOTH, "ETag: W/\"a\"", 5, false }, { BOTH, "Last-Modified: @-9", 5, true },
        { BOTH, "Last-Modified: @-8", 5, false }, { "", "ETag: \"a\"", 5, false },
        { BOTH, "ETag: \"a\"\nLast-Modified: @-8", 5, false }, { "", "", 5, true },
    };
    struct head stored, head;

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++)
        if (sem_head_agrees(response_of(&stored, 200, cases[i].stored), 5,
                response_of(&head, 200, cases[i].head), cases[i].length) != cases[i].agrees)
            fail_msg("%s against %s, %d", cases[i].head, cases[i].stored, (int)cases[i].length);
}

static void
parts_are_combined_by_the_same_strong_validator(void **state)
{
    static const struct { const char *a, *b; int64_t a_lm, b_lm, date; bool same; } cases[] = {
        { "\"x\"", "\"x\"", 0, 0, 9, true }, { "\"x\"", "\"y\"", 0, 0, 9, false },
        { "W/\"x\"", "W/\"x\"", 0, 0, 9, false }, { "W/\"x\"", "\"x\"", 0, 0, 9, false },
        { "\"x\"", NULL, 5, 5, 9, false }, { NULL, "\"x\"", 5, 5, 9, false },
        { NULL, NULL, 5, 5, 9, true }, { NULL, NULL, 5, 6, 9, false },
        { NULL, NULL, 9, 9, 9, false },                 /* made in the second of the change */
        { NULL, NULL, HTTP_NO_DATE, HTTP_NO_DATE, 9, false }, { "x", "x", 0, 0, 9, false },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct sem_validator a = { cases[i].a != NULL ? slice_of(cases[i].a) : (struct slice){ 0 },
            cases[i].a_lm, cases[i].date };
        struct sem_validator b = { cases[i].b != NULL ? slice_of(cases[i].b) : (struct slice){ 0 },
            cases[i].b_lm, cases[i].date };

        if (sem_same_strong(&a, &b) != cases[i].same)
            fail_msg("case %zu", i);
    }
}

static void
an_unsafe_request_is_judged_by_what_there_is(void **state)
{
    static const struct { const char *fields, *etag; bool holds; } cases[] = {
        { "", "\"a\"", true }, { "", NULL, true },
        { "If-Match: *", "\"a\"", true }, { "If-Match: *", NULL, false },
        { "If-Match: \"b\", \"a\"", "\"a\"", true }, { "If-Match: \"b\"", "\"a\"", false },
        { "If-Match: \"b\"\nIf-Match: \"a\"", "\"a\"", true },
        { "If-Match: W/\"a\"", "\"a\"", false }, { "If-Match: \"a\"", "W/\"a\"", false },
        { "If-Match: \"a\"", NULL, false }, { "If-Match:", "\"a\"", false },
        { "If-None-Match: *", "\"a\"", false }, { "If-None-Match: *", NULL, true },
        { "If-None-Match: \"a\"", "\"a\"", false }, { "If-None-Match: W/\"a\"", "\"a\"", false },
        { "If-None-Match: \"b\"", "\"a\"", true }, { "If-None-Match: \"a\"", NULL, true },
        { "If-Match: \"a\"\nIf-None-Match: *", "\"a\"", false },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct head request;

        head_fields(&request, cases[i].fields);
        if (sem_matches(&request.h, slice_of(cases[i].etag)) != cases[i].holds)
            fail_msg("case %zu", i);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entity_tags_compare_as_8_8_3_2_says),
        cmocka_unit_test(conditions_are_weighed_in_order),
        cmocka_unit_test(an_unsafe_request_is_judged_by_what_there_is),
        cmocka_unit_test(a_range_is_joined_only_by_a_strong_validator),
        cmocka_unit_test(parts_are_combined_by_the_same_strong_validator),
        cmocka_unit_test(a_304_freshens_what_has_its_validator),
        cmocka_unit_test(fields_are_kept_and_replaced_as_3_1_and_3_2_say),
        cmocka_unit_test(what_a_route_replays_is_kept_unless_it_is_private),
        cmocka_unit_test(an_entity_tag_that_is_private_does_not_come_in_by_a_304),
        cmocka_unit_test(unsafe_methods_that_succeed_invalidate),
        cmocka_unit_test(only_the_same_origin_is_invalidated),
        cmocka_unit_test(identity_is_no_coding),
        cmocka_unit_test(a_head_agrees_where_each_validator_it_has_and_its_length_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
