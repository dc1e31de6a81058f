/*
 * Cache-Control as it is read, and what of a request bears on caching.
 */
#include "semantics_util.h"

static const struct cc_case {
    const char *clause, *lines;
    uint32_t    flags;
    int64_t     max_age, s_maxage, swr, sie;
} cc_cases[] = {
#define NO4 -1, -1, -1, -1
#define AGE(n) n, -1, -1, -1
#define TOO_LARGE 2147483648LL
    { "5.2", "X: 1", 0, NO4 },
    { "5.2", "Cache-Control: ", 0, NO4 },
    { "5.2", "Cache-Control: ,,", 0, NO4 },
    { "5.2.2.1", "Cache-Control: max-age=3600", 0, AGE(3600) },
    { "5.2.2.1", "Cache-Control: max-age=0", 0, AGE(0) },
    { "5.2, names have no case", "Cache-Control: MaX-aGe=3600", 0, AGE(3600) },
    { "5.2, quoted form", "Cache-Control: max-age=\"3600\"", 0, AGE(3600) },
    { "1.2.2, leading zeros", "Cache-Control: max-age=003600", 0, AGE(3600) },
    { "1.2.2, 2^31 - 1", "Cache-Control: max-age=2147483647", 0, AGE(2147483647) },
    { "1.2.2, 2^31", "Cache-Control: max-age=2147483648", 0, AGE(TOO_LARGE) },
    { "1.2.2, 2^31 + 1", "Cache-Control: max-age=2147483649", 0, AGE(TOO_LARGE) },
    { "1.2.2, large", "Cache-Control: max-age=99999999999", 0, AGE(TOO_LARGE) },
    { "1.2.2, beyond 64 bits", "Cache-Control: max-age=99999999999999999999999", 0,
        AGE(TOO_LARGE) },
    { "4.2.1, negative", "Cache-Control: max-age=-3600", 0, AGE(0) },
    { "4.2.1, plus", "Cache-Control: max-age=+3600", 0, AGE(0) },
    { "4.2.1, decimal", "Cache-Control: max-age=3600.0", 0, AGE(0) },
    { "4.2.1, decimal", "Cache-Control: max-age=3600.5", 0, AGE(0) },
    { "4.2.1, letter before", "Cache-Control: max-age=a3600", 0, AGE(0) },
    { "4.2.1, letter behind", "Cache-Control: max-age=3600a", 0, AGE(0) },
    { "4.2.1, single quotes", "Cache-Control: max-age='3600'", 0, AGE(0) },
    { "4.2.1, empty", "Cache-Control: max-age=", 0, AGE(0) },
    { "4.2.1, empty quoted", "Cache-Control: max-age=\"\"", 0, AGE(0) },
    { "4.2.1, absent", "Cache-Control: max-age", 0, AGE(0) },
    { "4.2.1, parameter", "Cache-Control: max-age=3600;x=1", 0, AGE(0) },
    { "5.2, space before =", "Cache-Control: max-age =3600", 0, AGE(0) },
    { "5.2, space behind =", "Cache-Control: max-age= 3600", 0, AGE(0) },
    { "5.2, quote that does not end", "Cache-Control: max-age=\"3600", 0, AGE(0) },
    { "5.2, lone quote", "Cache-Control: max-age=\"", 0, AGE(0) },
    { "4.2.1, several, one line", "Cache-Control: max-age=1800, max-age=1", 0, AGE(1) },
    { "4.2.1, several, one line", "Cache-Control: max-age=1, max-age=1800", 0, AGE(1) },
    { "4.2.1, several lines", "Cache-Control: max-age=1800\nCache-Control: max-age=1", 0, AGE(1) },
    { "4.2.1, one invalid", "Cache-Control: max-age=1800, max-age=x", 0, AGE(0) },
    { "4.2.1, the same twice", "Cache-Control: max-age=60, max-age=60", 0, AGE(60) },
    { "5.2, inside a quoted string", "Cache-Control: extension=\"max-age=3600\", max-age=1", 0,
        AGE(1) },
    { "5.2, inside a quoted string", "Cache-Control: max-age=1, extension=\"max-age=3600\"", 0,
        AGE(1) },
    { "5.2, escaped quote", "Cache-Control: x=\"a\\\", no-store\", max-age=1", 0, AGE(1) },
    { "5.2.3, extension ignored", "Cache-Control: foobar, max-age=3600", 0, AGE(3600) },
    { "5.2.3, extension with value", "Cache-Control: foo=bar, max-age=3600", 0, AGE(3600) },
    { "5.2, a longer name", "Cache-Control: max-ages=3600", 0, NO4 },
    { "5.2, a prefix of a name", "Cache-Control: max-ag=3600", 0, NO4 },
    { "5.2.2.10", "Cache-Control: s-maxage=10", 0, -1, 10, -1, -1 },
    { "5.2.2.10", "Cache-Control: s-maxage=10, max-age=3600", 0, 3600, 10, -1, -1 },
    { "5.2.2.10", "Cache-Control: S-MaxAge=\"10\"", 0, -1, 10, -1, -1 },
    { "5.2.2.10, several", "Cache-Control: s-maxage=10, s-maxage=5", 0, -1, 5, -1, -1 },
    { "RFC 5861 3", "Cache-Control: max-age=1, stale-while-revalidate=60", 0, 1, -1, 60, -1 },
    { "RFC 5861 4", "Cache-Control: max-age=1, stale-if-error=60", 0, 1, -1, -1, 60 },
    { "RFC 5861, invalid", "Cache-Control: max-age=1, stale-if-error=x", 0, 1, -1, -1, 0 },
    { "RFC 5861, several", "Cache-Control: stale-if-error=9, stale-if-error=8", 0, -1, -1, -1, 8 },
    { "5.2.2.5", "Cache-Control: no-store", CC_NO_STORE, NO4 },
    { "5.2.2.5", "Cache-Control: No-StOrE", CC_NO_STORE, NO4 },
    { "5.2.2.5, argument", "Cache-Control: no-store=x", CC_NO_STORE, NO4 },
    { "5.2.2.5", "Cache-Control: max-age=10\nX: y\nCache-Control: no-store", CC_NO_STORE, AGE(10) },
    { "5.2.2.5, unquoted end", "Cache-Control: x=\"a, no-store", CC_NO_STORE, NO4 },
    { "5.2.2.5, behind a lone quote", "Cache-Control: x\", private", CC_PRIVATE, NO4 },
    { "5.2.2.9, not from there", "Cache-Control: x=\"a, public", 0, NO4 },
    { "5.2.2.4", "Cache-Control: no-cache", CC_NO_CACHE, NO4 },
    { "5.2.2.4, list", "Cache-Control: no-cache=\"a\"", CC_NO_CACHE_FIELDS, NO4 },
    { "5.2.2.4, list", "Cache-Control: no-cache=\"a, b\"", CC_NO_CACHE_FIELDS, NO4 },
    { "5.2.2.4, token form", "Cache-Control: no-cache=a", CC_NO_CACHE_FIELDS, NO4 },
    { "5.2.2.4, empty list", "Cache-Control: no-cache=\"\"", CC_NO_CACHE, NO4 },
    { "5.2.2.4, no end", "Cache-Control: no-cache=\"a", CC_NO_CACHE, NO4 },
    { "5.2.2.4, both", "Cache-Control: no-cache=\"a\", no-cache", CC_NO_CACHE | CC_NO_CACHE_FIELDS,
        NO4 },
    { "5.2.2.7", "Cache-Control: private", CC_PRIVATE, NO4 },
    { "5.2.2.7, list", "Cache-Control: private=\"a\"", CC_PRIVATE_FIELDS, NO4 },
    { "5.2.2.7, empty list", "Cache-Control: private=", CC_PRIVATE, NO4 },
    { "5.2.2.7, no name in it", "Cache-Control: private=\", ,\"", CC_PRIVATE, NO4 },
    { "5.2.2.7, no names", "Cache-Control: private=\"a, b c\"", CC_PRIVATE, NO4 },
    { "5.2.2.4, no names", "Cache-Control: no-cache=\"a b\"", CC_NO_CACHE, NO4 },
    { "5.2.2.4, empty members", "Cache-Control: no-cache=\",a,\"", CC_NO_CACHE_FIELDS, NO4 },
    { "3.5, behind a quote that does not end", "Cache-Control: x=\"a, must-revalidate",
      CC_PROXY_REVALIDATE, NO4 },
    { "3.5, the same beside another", "Cache-Control: proxy-revalidate, x=\"a, must-revalidate",
      CC_PROXY_REVALIDATE, NO4 },
    { "5.2.2.9", "Cache-Control: public", CC_PUBLIC, NO4 },
    { "5.2.2.9, argument", "Cache-Control: public=no", 0, NO4 },
    { "5.2.2.2", "Cache-Control: must-revalidate", CC_MUST_REVALIDATE, NO4 },
    { "5.2.2.8", "Cache-Control: proxy-revalidate", CC_PROXY_REVALIDATE, NO4 },
    { "5.2.2.3", "Cache-Control: must-understand, no-store", CC_MUST_UNDERSTAND | CC_NO_STORE,
        NO4 },
    { "5.2.2.6", "Cache-Control: no-transform", CC_NO_TRANSFORM, NO4 },
    { "RFC 8246 2", "Cache-Control: immutable", CC_IMMUTABLE, NO4 },
    { "5.2.1.7", "Cache-Control: only-if-cached", CC_ONLY_IF_CACHED, NO4 },
    { "5.2.1.2, any", "Cache-Control: max-stale", CC_MAX_STALE_ANY, NO4 },
};

static void
cache_control_is_read_as_the_clauses_say(void **state)
{
    struct head h;
    struct sem_cc cc;

    (void)state;
    for (size_t i = 0; i < NELEM(cc_cases); i++) {
        const struct cc_case *c = &cc_cases[i];

        head_fields(&h, c->lines);
        sem_cc_read(&h.h, &cc);
        if (cc.flags != c->flags || cc.max_age != c->max_age || cc.s_maxage != c->s_maxage ||
            cc.swr != c->swr || cc.sie != c->sie)
            fail_msg("%s: %s: flags %x max-age %lld s-maxage %lld swr %lld sie %lld", c->clause,
                c->lines, cc.flags, (long long)cc.max_age, (long long)cc.s_maxage,
                (long long)cc.swr, (long long)cc.sie);
    }
}

static const struct targeted_case {
    const char *clause, *lines;
    bool        targeted;
    uint32_t    flags;
    int64_t     max_age;
} targeted_cases[] = {
#define CDN "Cache-Control: max-age=7\nCDN-Cache-Control: "
    { "2.2", "Cache-Control: max-age=7", false, 0, 7 },
    { "2.2", CDN "max-age=60", true, 0, 60 },
    { "2.2, nothing of Cache-Control", "Cache-Control: no-store\nCDN-Cache-Control: max-age=60", true, 0, 60 },
    { "2.2, the first of the list", "CDN-Cache-Control: max-age=1\nWeir-Cache-Control: no-store", true,
        CC_NO_STORE, -1 },
    { "2.2, the first that is valid", "CDN-Cache-Control: max-age=1\nWeir-Cache-Control: max-age", true, 0, -1 },
    { "2.2, the next when it is not", "CDN-Cache-Control: max-age=1\nWeir-Cache-Control: max-age=", true, 0, 1 },
    { "2.1, empty", CDN, false, 0, 7 },
    { "2.1, no dictionary", CDN "max-age=60, &&&", false, 0, 7 },
    { "2.1, no dictionary", CDN "MaX-aGe=60", false, 0, 7 },
    { "2.1, no dictionary", CDN "max-age =60", false, 0, 7 },
    { "2.1, no dictionary", CDN "max-age=60,", false, 0, 7 },
    { "2.1, one line is none", CDN "max-age=60\nCDN-Cache-Control: ?", false, 0, 7 },
    { "2.1, lines are one", CDN "no-store\nCDN-Cache-Control: max-age=60", true, CC_NO_STORE, 60 },
    { "2.1, another type", CDN "max-age=\"60\"", true, 0, -1 },
    { "2.1, another type", CDN "max-age=60.0", true, 0, -1 },
    { "2.1, another type", CDN "max-age=60s", false, 0, 7 },
    { "2.1, another type", CDN "no-store=1, no-cache=?0, private=x", true, 0, -1 },
    { "2.1, parameters", CDN "max-age=60;x=1, no-cache;y", true, CC_NO_CACHE, 60 },
    { "2.2, extensions", CDN "foo, bar=(1 2), max-age=60", true, 0, 60 },
    { "RFC 9651 4.2.2, the last", CDN "max-age=60, no-store, max-age=5, no-store=?0", true, 0, 5 },
    { "1.2.2", CDN "max-age=99999999999", true, 0, (int64_t)1 << 31 },
    { "1.2.2", CDN "max-age=-1", true, 0, 0 },
    { "2.2", CDN "must-revalidate, private, no-cache", true, CC_MUST_REVALIDATE | CC_PRIVATE | CC_NO_CACHE, -1 },
    { "2.1, lists", CDN "private=\"a, B\", no-cache=\"c\"", true, CC_PRIVATE_FIELDS | CC_NO_CACHE_FIELDS, -1 },
    { "2.1, lists of none", CDN "private=\"\", no-cache=\" \"", true, CC_PRIVATE | CC_NO_CACHE, -1 },
    { "2.1, lists that cannot be read", CDN "private=\"a b\", no-cache=\"c;\"", true,
        CC_PRIVATE | CC_NO_CACHE, -1 },
    { "2.2, not on the list", "Cache-Control: max-age=7\nOther-Cache-Control: no-store", false, 0, 7 },
};

static void
a_valid_targeted_field_replaces_cache_control(void **state)
{
    struct head h;
    struct sem_cc cc;

    (void)state;
    for (size_t i = 0; i < NELEM(targeted_cases); i++) {
        const struct targeted_case *c = &targeted_cases[i];

        head_fields(&h, c->lines);
        sem_cc_response(&h.h, &no_rules, &cc);
        if (cc.flags != c->flags || cc.max_age != c->max_age || cc.targeted != c->targeted)
            fail_msg("%s: %s: targeted %d flags %x max-age %lld", c->clause, c->lines, cc.targeted,
                cc.flags, (long long)cc.max_age);
    }
    head_fields(&h, "My-Cache-Control: no-store");
    sem_cc_response(&h.h, &no_rules, &cc);
    assert_true(cc.targeted && cc.flags == CC_NO_STORE);
}

static bool
kept(const struct head *h, const char *name)
{
    struct sem_cc cc;

    sem_cc_response(&h->h, &no_rules, &cc);
    for (unsigned i = 0; i < h->h.nfields; i++)
        if (slice_ieq(h->h.fields[i].name, slice_of(name)))
            return sem_keeps(&h->h, &cc, &h->h.fields[i]);
    fail();
    return false;
}

static void
fields_that_a_targeted_field_lists_are_not_kept(void **state)
{
    struct head h;

    (void)state;
    head_fields(&h, "A: 1\nB: 2\nC: 3\nCache-Control: private=\"c\"\n"
        "CDN-Cache-Control: max-age=60, private=\"a\", no-cache=\"x, B\"");
    assert_false(kept(&h, "A"));
    assert_false(kept(&h, "B"));
    assert_true(kept(&h, "C"));
    head_fields(&h, "A: 1\nCache-Control: max-age=60, private=\"A\"");
    assert_false(kept(&h, "A"));
}

static const struct request_case {
    const char *clause, *method, *lines;
    uint32_t    flags;
    int64_t     max_age, max_stale, min_fresh;
    bool        authorization, range, conditional;
    const char *why;                    /* why not from the cache at all, NULL: it may */
} request_cases[] = {
    { "3", "GET", "", 0, -1, -1, -1, 0, 0, 0, NULL },
    { "3", "HEAD", "", 0, -1, -1, -1, 0, 0, 0, NULL },
    { "3", "POST", "", 0, -1, -1, -1, 0, 0, 0, "method" },
    { "3", "PUT", "", 0, -1, -1, -1, 0, 0, 0, "method" },
    { "3", "DELETE", "", 0, -1, -1, -1, 0, 0, 0, "method" },
    { "3", "OPTIONS", "", 0, -1, -1, -1, 0, 0, 0, "method" },
    { "RFC 10008 2.7", "QUERY", "", 0, -1, -1, -1, 0, 0, 0, NULL },
    { "RFC 10008 2.6", "QUERY", "If-None-Match: \"a\"", 0, -1, -1, -1, 0, 0, 1, NULL },
    { "RFC 10008 2.7", "QUERY", "Range: bytes=0-1", 0, -1, -1, -1, 0, 1, 0, "range" },
    { "3, unknown", "BREW", "", 0, -1, -1, -1, 0, 0, 0, "method" },
    { "RFC 9110 9.1, case", "get", "", 0, -1, -1, -1, 0, 0, 0, "method" },
    { "5.2.1.5", "GET", "Cache-Control: no-store", CC_NO_STORE, -1, -1, -1, 0, 0, 0,
        "request-no-store" },
    { "5.2.1.4", "GET", "Cache-Control: no-cache", CC_NO_CACHE, -1, -1, -1, 0, 0, 0, NULL },
    { "5.2.1.4, takes no list", "GET", "Cache-Control: no-cache=a",
        CC_NO_CACHE | CC_NO_CACHE_FIELDS, -1, -1, -1, 0, 0, 0, NULL },
    { "5.4", "GET", "Pragma: no-cache", CC_NO_CACHE, -1, -1, -1, 0, 0, 0, NULL },
    { "5.4, case", "GET", "Pragma: x, No-Cache", CC_NO_CACHE, -1, -1, -1, 0, 0, 0, NULL },
    { "5.4, extension", "GET", "Pragma: foo", 0, -1, -1, -1, 0, 0, 0, NULL },
    { "5.4, beside Cache-Control", "GET", "Pragma: no-cache\nCache-Control: max-age=9", 0, 9, -1,
        -1, 0, 0, 0, NULL },
    { "5.2.1.1", "GET", "Cache-Control: max-age=0", 0, 0, -1, -1, 0, 0, 0, NULL },
    { "5.2.1.2", "GET", "Cache-Control: max-stale=7", 0, -1, 7, -1, 0, 0, 0, NULL },
    { "5.2.1.2", "GET", "Cache-Control: max-stale, max-stale=7", CC_MAX_STALE_ANY, -1, 7, -1, 0, 0,
        0, NULL },
    { "5.2.1.2, invalid", "GET", "Cache-Control: max-stale=x", 0, -1, 0, -1, 0, 0, 0, NULL },
    { "5.2.1.3", "GET", "Cache-Control: min-fresh=7", 0, -1, -1, 7, 0, 0, 0, NULL },
    { "5.2.1.3, several", "GET", "Cache-Control: min-fresh=7, min-fresh=9", 0, -1, -1, 9, 0, 0, 0,
        NULL },
    { "3.5", "GET", "Authorization: Basic eA==", 0, -1, -1, -1, 1, 0, 0, NULL },
    { "3.3", "GET", "Range: bytes=0-1", 0, -1, -1, -1, 0, 1, 0, NULL },
    { "RFC 9110 13.1.2", "GET", "If-None-Match: \"a\"", 0, -1, -1, -1, 0, 0, 1, NULL },
    { "RFC 9110 13.1.3", "GET", "If-Modified-Since: @0", 0, -1, -1, -1, 0, 0, 1, NULL },
    { "RFC 9110 13.1.1", "GET", "If-Match: \"a\"", 0, -1, -1, -1, 0, 0, 0, "precondition" },
    { "RFC 9110 13.1.4", "GET", "If-Unmodified-Since: @0", 0, -1, -1, -1, 0, 0, 0, "precondition" },
    { "RFC 9110 13.1.5", "GET", "If-Range: \"a\"", 0, -1, -1, -1, 0, 0, 0, NULL },
};

static void
a_request_is_read_as_the_clauses_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(request_cases); i++) {
        const struct request_case *c = &request_cases[i];
        struct sem_request r = asked(c->method, c->lines);
        const char *why = "unset";
        bool may = sem_request_cacheable(&r, &why);

        if (r.cc.flags != c->flags || r.cc.max_age != c->max_age ||
            r.cc.max_stale != c->max_stale || r.cc.min_fresh != c->min_fresh ||
            r.authorization != c->authorization || r.range != c->range ||
            r.conditional != c->conditional || may != (c->why == NULL) ||
            strcmp(why != NULL ? why : "", c->why != NULL ? c->why : "") != 0)
            fail_msg("%s: %s %s: %s", c->clause, c->method, c->lines, why != NULL ? why : "may");
    }
}

static void
what_a_route_promises_to_be_safe_is_asked_as_a_query_but_for_conditions(void **state)
{
    static const struct { const char *lines, *why; } t[] = {
        { "", "" }, { "Cache-Control: no-store", "request-no-store" }, { "Range: bytes=0-1", "range" },
        { "If-None-Match: *", "condition" }, { "If-Match: *", "precondition" },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(t); i++) {
        struct sem_request r = asked("POST", t[i].lines);
        const char *why;

        r.content = r.promised = true;
        (void)sem_request_cacheable(&r, &why);
        assert_string_equal(why != NULL ? why : "", t[i].why);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cache_control_is_read_as_the_clauses_say),
        cmocka_unit_test(a_valid_targeted_field_replaces_cache_control),
        cmocka_unit_test(fields_that_a_targeted_field_lists_are_not_kept),
        cmocka_unit_test(a_request_is_read_as_the_clauses_say),
        cmocka_unit_test(what_a_route_promises_to_be_safe_is_asked_as_a_query_but_for_conditions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
