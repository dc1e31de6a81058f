/*
 * Templates: what they accept, what they find, and how they write it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "key/key.h"

static const char *const params[] = { "id", "city" };

static struct pool *pool;
static struct buf given;                /* what each() was given, one a line */

static int
make_pool(void **state)
{
    (void)state;
    pool = pool_new();
    return pool == NULL ? -1 : 0;
}

static int
free_pool(void **state)
{
    (void)state;
    pool_free(&pool);
    buf_free(&given);
    return 0;
}

static void
take(void *arg, struct slice text)
{
    assert_ptr_equal(arg, &given);
    if (given.n > 0)
        buf_addc(&given, '|');
    buf_adds(&given, text);
}

static const struct template_case {
    const char *text, *want;            /* values joined by "|" */
    int         count;
    const char *request_body, *response_body;
} cases[] = {
    { "recruiters", "recruiters", 1, NULL, NULL },
    { "", "", 1, NULL, NULL },
    { "recruiter:{id}", "recruiter:a/b", 1, NULL, NULL },           /* decoded, whole */
    { "recruiter:{path.id}", "recruiter:a/b", 1, NULL, NULL },
    { "{id}{city}", "a/bS\xc3\xa3o", 1, NULL, NULL },
    { "at:{host}", "at:h", 1, NULL, NULL },
    { "{query.q}", "1|2&3", 2, NULL, NULL },                        /* each occurrence, decoded */
    { "{query.n=}", "x", 1, NULL, NULL },                           /* names are compared decoded */
    { "{query.none}", "", 0, NULL, NULL },
    { "{query.flag}", "", 0, NULL, NULL },                          /* no value */
    { "{query.empty}", "", 1, NULL, NULL },
    { "t:{header.x-tenant}", "t:acme, corp", 1, NULL, NULL },       /* lines joined */
    { "t:{request.header.x-tenant}", "t:acme, corp", 1, NULL, NULL },
    { "{header.x-none}", "", 0, NULL, NULL },
    { "t:{header.x-tenant[]}", "t:acme|t:corp", 2, NULL, NULL },    /* each word */
    { "{response.header.surrogate-key[]}", "a|b;c|d", 3, NULL, NULL },
    { "{response.header.surrogate-key}", "a  b;c,, d, ,", 1, NULL, NULL },
    { "/{response.header.surrogate-key[]}", "/a|/b;c|/d", 3, NULL, NULL },
    { "{response.header.x-empty[]}", "", 0, NULL, NULL },
    { "{header.x-none[]}", "", 0, NULL, NULL },
    { "{header.x-none}:{id}", "", 0, NULL, NULL },
    { "{response.header.location}", "/r/7", 1, NULL, NULL },
    { "{response.header.x}", "", 0, NULL, NULL },
    /* paths: nothing a value holds reaches beyond its place */
    { "/r/{id}", "/r/a%2Fb", 1, NULL, NULL },
    { "/c/{city}", "/c/S%C3%A3o", 1, NULL, NULL },
    { "/c?q={query.q}", "/c?q=1|/c?q=2%263", 2, NULL, NULL },
    { "/c/{header.x-path}", "/c/a%2Fb%3Fc=d&e", 1, NULL, NULL },
    { "/c?x={header.x-path}", "/c?x=a%2Fb%3Fc%3Dd%26e", 1, NULL, NULL },
    { "/c/{query.path}", "/c/x%2Fy%3Fz", 1, NULL, NULL },
    /* URLs: the same, and the host as it is */
    { "http://{host}/{id}?{query.q}", "http://h/a%2Fb?1|http://h/a%2Fb?2%263", 2, NULL, NULL },
    { "HTTPS://h/{header.x-path}", "HTTPS://h/a%2Fb%3Fc=d&e", 1, NULL, NULL },
    { "ftp://h/{id}", "ftp://h/a/b", 1, NULL, NULL },
    /* bodies */
    { "r:{request.body.id}", "r:7", 1, "{\"id\": 7}", NULL },
    { "r:{request.body.id}", "r:7.50e1", 1, "{\"id\": 7.50e1}", NULL },
    { "r:{request.body.id}", "r:a\"\xc3\xa9\xf0\x9f\x98\x80\n", 1,
        "{\"id\":\"a\\\"\\u00e9\\ud83d\\ude00\\n\"}", NULL },
    { "r:{request.body.ok}", "r:true", 1, "{\"ok\":true}", NULL },
    { "r:{request.body.id}", "", 0, "{\"id\":null}", NULL },
    { "r:{request.body.id}", "", 0, "{\"ID\":1}", NULL },
    { "r:{request.body.id}", "", 0, "{\"id\":{\"id\":1}}", NULL },
    { "r:{request.body.a.b}", "r:1", 1, "{\"b\":2,\"a\":{\"c\":{\"b\":3},\"b\":1}}", NULL },
    { "r:{request.body.a}", "r:1|r:2", 2, "{\"a\":1,\"a\":2}", NULL },      /* twice: both */
    { "r:{request.body.a}", "r:1|r:x", 2, "{\"a\":[1,\"x\",null,[3],{\"a\":4}]}", NULL },
    { "{request.body}", "x", 1, "\"x\"", NULL },
    { "{request.body[].id}", "1|2", 2, "[{\"id\":1},{\"id\":2}]", NULL },
    { "{request.body.[].id}", "1|2", 2, "[{\"id\":1},{\"id\":2}]", NULL },
    { "{request.body[][]}", "1|2|3", 3, "[[1,2],[3],4]", NULL },
    { "{request.body.a[]}", "", 0, "{\"a\":{\"b\":1}}", NULL },
    { "{request.body.a.b}", "", 0, "{\"a\":[{\"b\":1}]}", NULL },
    { "i:{response.body.items[].id}", "i:1|i:2", 2, NULL,
        "{\"items\":[{\"id\":1},{},{\"id\":2}]}" },
    { "i:{response.body.items[].id}", "", 0, NULL, "{\"items\":[]}" },
    { "{request.body.a}-{response.body.b}", "1-3|1-4|2-3|2-4", 4, "{\"a\":[1,2]}",
        "{\"b\":[3,4]}" },
    { "/r/{request.body.id}", "/r/..%2Fadmin%3Fx", 1, "{\"id\":\"../admin?x\"}", NULL },
    /* what is not to be had */
    { "{request.body.id}", "", -1, NULL, NULL },
    { "{response.body.id}", "", -1, "{}", NULL },
    { "{query.none}{request.body.id}", "", 0, NULL, NULL },
    { "{request.body.id}", "", -1, "", NULL }, { "{request.body.id}", "", -1, "id=7", NULL },
    { "{request.body.id}", "", -1, "{\"id\":7", NULL },
    { "{request.body.id}", "", -1, "{\"id\":7}x", NULL },
    { "{request.body.id}", "", -1, "{\"id\":07}", NULL },
    { "{request.body.id}", "", -1, "{\"id\":7,}", NULL },
    { "{request.body.id}", "", -1, "{\"id\":\"\\ud800\"}", NULL },
    { "{request.body.id}", "", -1, "{\"id\":\"\\x\"}", NULL },
    { "{request.body.id}", "", -1, "{'id':1}", NULL },
    { "{request.body.id}", "", -1, "{\"id\":1.}", NULL },
    { "{request.body.id}", "", -1, "{\"id\":-}", NULL },
    { "{request.body.id}", "", -1, "{\"id\":1e}", NULL },
    { "{request.body.id}", "", -1, "{\"id\":\"\n\"}", NULL },
    { "{request.body.id}", "", -1, "{\"id\":1}\xff", NULL },
    { "{request.body.id}", "", -1, "{\"id\" 1}", NULL },
};

static int
expand(const char *text, const char *request_body, const char *response_body)
{
    struct http_field fields[2][8];
    struct http_head request = { .cap = 8, .fields = fields[0] };
    struct http_head response = { .cap = 8, .fields = fields[1] };
    static const char rq[] = "X-Tenant: acme\r\nX-Path: a/b?c=d&e\r\nx-tenant: corp\r\n";
    static const char rs[] = "Location: /r/7\r\nSurrogate-Key: a  b;c,, d\r\nX-Empty: ,\r\n"
        "Surrogate-Key: ,\r\n";
    struct slice values[] = { SLICE("a%2Fb"), SLICE("S%C3%A3o") };
    struct key_params path = { params, values, 2 };
    struct key_facts f = { .request = &request, .response = &response, .path = &path,
        .host = SLICE("h"), .query = SLICE("q=1&flag&q=2%263&empty=&n%3D=x&path=x/y?z"),
        .request_body = slice_of(request_body), .response_body = slice_of(response_body) };
    struct err e = { 0 };
    struct key_template *t = key_template_new(text, params, NELEM(params), pool, &e);

    if (t == NULL)
        fail_msg("%s: %s", text, e.text);
    assert_int_equal(http_parse_fields(rq, sizeof rq - 1, &request), 0);
    assert_int_equal(http_parse_fields(rs, sizeof rs - 1, &response), 0);
    given.n = 0;
    return key_template_expand(t, &f, take, &given);
}

static void
templates_find_what_they_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        int n = expand(cases[i].text, cases[i].request_body, cases[i].response_body);

        if (n != cases[i].count || !slice_eq(buf_slice(&given), slice_of(cases[i].want)))
            fail_msg("%s of %s %s: %d %.*s", cases[i].text,
                cases[i].request_body != NULL ? cases[i].request_body : "-",
                cases[i].response_body != NULL ? cases[i].response_body : "-", n, (int)given.n,
                given.p);
    }
}

static void
facts_that_are_not_there_give_nothing(void **state)
{
    static const char *const texts[] =
        { "{id}", "{host}", "{query.a}", "{header.a}", "{response.header.a}" };
    struct http_head head = { 0 };
    struct key_facts none = { .response = &head };
    struct key_template *t;

    (void)state;
    for (size_t i = 0; i < NELEM(texts); i++) {
        t = key_template_new(texts[i], params, NELEM(params), pool, NULL);
        assert_non_null(t);
        assert_int_equal(key_template_expand(t, &none, take, &given), 0);
        assert_int_equal(key_template_expand_whole(t, &none, take, &given), 0);
    }
    none.response = NULL;               /* not one without the field: none */
    assert_int_equal(key_template_expand(t, &none, take, &given), -1);
}

/* For a purge: what a body should have named and did not is not to be had. */
static void
a_body_that_lacks_a_value_is_no_whole_one(void **state)
{
    static const struct { const char *text, *body; int count; } bodies[] = {
        { "{request.body.a}", "{\"a\":1}", 1 }, { "{request.body.a}", "{\"a\":\"\"}", 1 },
        { "{request.body.a}", "{}", -1 }, { "{request.body.a}", "{\"b\":1}", -1 },
        { "{request.body.a}", "{\"a\":null}", -1 }, { "{request.body.a}", "{\"a\":{\"a\":1}}", -1 },
        { "{request.body.a}", "{\"b\":{},\"c\":[{}],\"a\":1}", 1 }, { "{request.body.a}", "7", -1 },
        { "{request.body.a}", "[{\"a\":1}]", -1 }, { "{request.body.a}", "{\"a\":[]}", 0 },
        { "{request.body.a}", "{\"a\":[1,2]}", 2 }, { "{request.body.a}", "{\"a\":[1,null]}", -1 },
        { "{request.body.a}", "{\"a\":[1,[2]]}", -1 }, { "{request.body.a}", "{\"a\":[1,{}]}", -1 },
        { "{request.body[].a}", "[]", 0 }, { "{request.body[].a}", "[{\"a\":1},{\"a\":2}]", 2 },
        { "{request.body[].a}", "[{\"a\":1},{}]", -1 }, { "{request.body[].a}", "[3]", -1 },
        { "{request.body[].a}", "{\"a\":1}", -1 }, { "{request.body}", "\"x\"", 1 },
        { "{request.body}", "{}", -1 },
        { "{query.none}{request.body.a}", "{}", 0 },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(bodies); i++) {
        struct key_facts f = { .request_body = slice_of(bodies[i].body) };
        struct key_template *t = key_template_new(bodies[i].text, NULL, 0, pool, NULL);
        int n = key_template_expand_whole(t, &f, take, &given);

        if (n != bodies[i].count)
            fail_msg("%s of %s: %d", bodies[i].text, bodies[i].body, n);
    }
}

/* 256 values and no more; beyond that nothing is called, so that no purge is cut short unseen. */
static void
too_many_values_are_none(void **state)
{
    struct buf body = { 0 };

    (void)state;
    buf_addz(&body, "{\"a\":[0");
    for (int i = 1; i < 256; i++)
        buf_printf(&body, ",%d", i);
    buf_addz(&body, "]}");
    buf_addc(&body, '\0');
    assert_int_equal(expand("{request.body.a}", body.p, NULL), 256);
    body.n -= 3;
    buf_addz(&body, ",256]}");
    buf_addc(&body, '\0');
    assert_int_equal(expand("{request.body.a}", body.p, NULL), -1);
    assert_int_equal(given.n, 0);
    assert_int_equal(expand("{request.body.a}-{request.body.b}",
        "{\"a\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16],"
        "\"b\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}", NULL), 256);
    assert_int_equal(expand("{request.body.a}-{request.body.b}",
        "{\"a\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16],"
        "\"b\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", NULL), -1);
    assert_int_equal(given.n, 0);
    buf_free(&body);
}

static void
a_document_may_be_64_deep(void **state)
{
    struct buf body = { 0 };

    (void)state;
    for (int deep = 63; deep <= 64; deep++) {
        body.n = 0;
        for (int i = 0; i < deep; i++)
            buf_addc(&body, '[');
        buf_addc(&body, '1');
        for (int i = 0; i < deep; i++)
            buf_addc(&body, ']');
        buf_addc(&body, '\0');
        assert_int_equal(expand("{request.body.a}", body.p, NULL), deep < 64 ? 0 : -1);
    }
    buf_free(&body);
}

static const struct { const char *text, *says; } bad[] = {
    { "{", "without '}'" }, { "a{id", "without '}'" }, { "a}", "'}'" }, { "{}", "unknown" },
    { "{ID}", "{id}" }, { "{idd}", "{id}" }, { "{path.idd}", "unknown" }, { "{hots}", "{host}" },
    { "{qeury.city}", "{query.NAME}" }, { "{headers.x}", "{header.NAME}" },
    { "{response.headers.x}", "{response.header.NAME}" },
    { "{response.bdy.x}", "{response.body.NAME}" }, { "{query.}", "unknown" },
    { "{header.}", "unknown" }, { "{di}", "did you mean {id}" }, { "{hxyt}", "known are {id}" },
    { "{header.a b}", "malformed" }, { "{response.header.a:b}", "malformed" },
    { "{header.[]}", "malformed" }, { "{header.a[].b}", "malformed" },
    { "{request.body.}", "unknown" }, { "{request.body.a..b}", "malformed" },
    { "{request.body.a[0]}", "malformed" },
    { "{request.body.a[}", "malformed" },
    { "{request.body.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q}", "malformed" },
};

static void
what_is_wrong_with_a_template_is_said(void **state)
{
    struct err e;

    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++) {
        e.text[0] = '\0';
        if (key_template_new(bad[i].text, params, NELEM(params), pool, &e) != NULL)
            fail_msg("%s was accepted", bad[i].text);
        if (strstr(e.text, bad[i].says) == NULL)
            fail_msg("%s: %s", bad[i].text, e.text);
    }
}

static void
what_a_template_needs_is_known_before(void **state)
{
    static const struct { const char *text; unsigned needs; } needs[] = {
        { "a{id}{query.a}{header.a}", 0 }, { "{request.body.a}", KEY_NEEDS_REQUEST_BODY },
        { "{response.header.a}", KEY_NEEDS_RESPONSE },
        { "{response.body.a}", KEY_NEEDS_RESPONSE | KEY_NEEDS_RESPONSE_BODY },
        { "{request.body.a}{response.body.a}",
            KEY_NEEDS_REQUEST_BODY | KEY_NEEDS_RESPONSE | KEY_NEEDS_RESPONSE_BODY },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(needs); i++)
        assert_int_equal(key_template_needs(key_template_new(needs[i].text, params, NELEM(params),
            pool, NULL)),
            needs[i].needs);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(templates_find_what_they_name),
        cmocka_unit_test(facts_that_are_not_there_give_nothing),
        cmocka_unit_test(a_body_that_lacks_a_value_is_no_whole_one),
        cmocka_unit_test(too_many_values_are_none),
        cmocka_unit_test(a_document_may_be_64_deep),
        cmocka_unit_test(what_is_wrong_with_a_template_is_said),
        cmocka_unit_test(what_a_template_needs_is_known_before),
    };

    return cmocka_run_group_tests(tests, make_pool, free_pool);
}
