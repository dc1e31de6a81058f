/*
 * Vary in one form, and when two requests select the same variant.
 */
#include "semantics_util.h"

static const struct { const char *lines, *canonical; } vary_cases[] = {
    { "X: y", "" }, { "Vary:", "" }, { "Vary: , ,", "" },
    { "Vary: Foo", "foo" }, { "Vary: foo, FOO", "foo" }, { "Vary: b, a, B, a", "a,b" },
    { "Vary: Foo\nVary: Bar", "bar,foo" },
    { "Vary: Accept-Encoding,Accept", "accept,accept-encoding" },
    { "Vary: ,a,,b,", "a,b" },
    { "Vary: *", NULL }, { "Vary: *, *", NULL }, { "Vary: *\nVary: *", NULL },
    { "Vary: , *", NULL },
    { "Vary:\nVary: *", NULL }, { "Vary: *, Foo", NULL }, { "Vary: Foo, *", NULL },
    { "Vary: Foo\nVary: *", NULL }, { "Vary: \"*\"", NULL }, { "Vary: a b", NULL },
    { "Vary: a;q=1", NULL },
};

static void
vary_has_one_form_and_a_star_matches_nothing(void **state)
{
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(vary_cases); i++) {
        struct buf b = { 0 };
        bool ok = sem_vary(response_of(&h, 200, vary_cases[i].lines), &b);

        if (ok != (vary_cases[i].canonical != NULL) ||
            (ok && !slice_eq(buf_slice(&b), slice_of(vary_cases[i].canonical))))
            fail_msg("%s: %.*s", vary_cases[i].lines, (int)b.n, b.p);
        if (!ok)
            assert_int_equal(b.n, 0);
        buf_free(&b);
    }
}

static void
vary_on_more_fields_than_is_sane_is_refused(void **state)
{
    struct head h;
    struct buf lines = { 0 }, b = { 0 };

    (void)state;
    buf_addz(&lines, "Vary: a0");
    for (int i = 1; i < 64; i++)
        buf_printf(&lines, ",a%d", i);
    buf_addc(&lines, '\0');
    assert_true(sem_vary(response_of(&h, 200, lines.p), &b));
    lines.n--;
    buf_addz(&lines, ",one-more");
    buf_addc(&lines, '\0');
    b.n = 0;
    assert_false(sem_vary(response_of(&h, 200, lines.p), &b));
    buf_free(&lines);
    buf_free(&b);
}

static const struct { const char *vary, *a, *b; bool same; } variant_cases[] = {
    { "", "Foo: 1", "Foo: 2", true },
    { "foo", "Foo: 1", "foo: 1", true },
    { "foo", "Foo: 1", "Foo: 2", false },
    { "foo", "Foo: 1", "", false },
    { "foo", "", "", true },
    { "foo", "", "Foo:", false },                       /* absent is not empty */
    { "foo", "Foo: 1\nOther: 2", "Foo: 1\nOther: 3", true },
    { "foo", "Foo: 1, 2", "Foo: 1\nFoo: 2", true },     /* RFC 9110 5.3 */
    { "foo", "Foo: 1, 2", "Foo:  1, 2 ", true },
    { "foo", "Foo: 12", "Foo: 1 2", false },
    { "foo", "Foo: a", "Foo: A", false },
    /* What is not known to be a list means what its bytes mean. */
    { "foo", "Foo: 1,2", "Foo: 1,,2", false },
    { "foo", "Foo: a b,c", "Foo: ab,c", false },
    { "cookie", "Cookie: a=1,2", "Cookie: a=1, 2", false },
    { "user-agent", "User-Agent: x (a,b)", "User-Agent: x (a, b)", false },
    /* ... but that a comma may have come of two lines, and white space then of whoever put them
     * into one (RFC 9110 5.3). In quotes it is content (5.6.4). */
    { "foo", "Foo: 1,2", "Foo: 1, 2", true },
    { "foo", "Foo: 1,2", "Foo:  1 \t,\t 2 ", true },
    { "foo", "Foo: 1,2", "Foo: 1\nFoo: 2", true },
    { "foo", "Foo: 1, ,2", "Foo: 1,,2", true },
    { "foo", "Foo: \"a, b\", c", "Foo: \"a, b\",c", true },
    { "foo", "Foo: \"a, b\"", "Foo: \"a,b\"", false },
    { "foo", "Foo: \"\\\", b\"", "Foo: \"\\\",b\"", false },
    { "foo", "Foo: \"a, b", "Foo: \"a,b", false },
    { "foo", "Foo:", "Foo: ,", false },
    { "foo", "Foo: 1", "Foo: 1\nFoo:", false },
    { "foo", "Foo: 1\nFoo: 2", "Foo: 2\nFoo: 1", false },
    { "cookie", "Cookie: a=1,,2", "Cookie: a=1,2", false },
    { "cookie", "Cookie: a=,", "Cookie: a=", false },
    { "cookie", "Cookie: a=1; b=2", "Cookie: a=1; b=2", true },
    { "user-agent", "User-Agent: x (a,, b)", "User-Agent: x (a, b)", false },
    { "accept", "Accept:", "Accept: ,", true },
    { "accept", "Accept: a/b, c/d", "Accept: a/b\nAccept: c/d", true },
    { "accept", "Accept: a/b,c/d", "Accept:  a/b, c/d ", true },
    { "accept", "Accept: a/b,c/d", "Accept: a/b,,c/d", true },      /* RFC 9110 5.6.1 */
    { "prefer", "Prefer: a, b", "Prefer: b, a", false },
    { "prefer", "Prefer: a=\"1, 2\"", "Prefer: a=\"1,2\"", false },  /* in quotes it is content */
    { "bar,foo", "Foo: 1\nBar: 2", "Bar: 2\nFoo: 1", true },
    { "bar,foo", "Foo: 1\nBar: 2", "Bar: 1\nFoo: 2", false },
    { "bar,foo", "Foo: 1", "Bar: 1", false },
    { "bar,foo", "Foo: 1", "Foo: 1", true },
    { "bar,foo", "Bar: x\nFoo: y", "Bar: xy\nFoo:", false },
    { "accept", "Accept: a/b", "Accept: a/b\nAccept-Encoding: gzip", true },
    { "accept-encoding", "Accept-Encoding: gzip, br", "Accept-Encoding: gzip,br", true },
};

/* Fields of content negotiation: what RFC 9110 calls equal, and nothing beside it. */
static const struct { enum http_id id; const char *a, *b; bool same; } weighed_cases[] = {
    /* 12.4.2: q ranks; three digits at most; 1 is its default. */
    { HF_ACCEPT_LANGUAGE, "en, de", "de, en", true },
    { HF_ACCEPT_LANGUAGE, "en, de", "de , ,en,", true },
    { HF_ACCEPT_LANGUAGE, "en;q=1, de;q=0.5", "de ; q=0.50,en", true },
    { HF_ACCEPT_LANGUAGE, "en;q=1.", "en;Q=1.000", true },
    { HF_ACCEPT_LANGUAGE, "en;q=0.", "en;q=0.000", true },
    { HF_ACCEPT_LANGUAGE, "en;q=0.05", "en;q=0.050", true },
    { HF_ACCEPT_LANGUAGE, "en;q=0.05", "en;q=0.5", false },
    { HF_ACCEPT_LANGUAGE, "en;q=0.5, de", "en, de;q=0.5", false },
    { HF_ACCEPT_LANGUAGE, "en, de;q=0.8", "en, de;q=0.9", false },
    { HF_ACCEPT_LANGUAGE, "en, de;q=0", "en", false },
    { HF_ACCEPT_LANGUAGE, "en;q=0.5", "en", false },
    { HF_ACCEPT_LANGUAGE, "en, en", "en", true },
    { HF_ACCEPT_LANGUAGE, "en, de, en;q=0.5", "de, en, en;q=0.5", false },
    /* RFC 4647 2: ranges have no case. */
    { HF_ACCEPT_LANGUAGE, "eN, De-aT", "en, de-AT", true },
    { HF_ACCEPT_LANGUAGE, "de", "de-AT", false },
    { HF_ACCEPT_LANGUAGE, "de, *;q=0.1", "*;q=0.10, DE", true },
    /* What the grammar does not make is a list, and no more. */
    { HF_ACCEPT_LANGUAGE, "en_US,, de", " en_US ,de", true },
    { HF_ACCEPT_LANGUAGE, "en;q=0.5000", "en;q=0.5", false },
    { HF_ACCEPT_LANGUAGE, "en;q=1.1, de", "de, en;q=1.1", false },
    { HF_ACCEPT_LANGUAGE, "en;q=2", "en", false },
    { HF_ACCEPT_LANGUAGE, "en;q= 1", "en", false },
    { HF_ACCEPT_LANGUAGE, "en;q=1;q=1", "en", false },
    { HF_ACCEPT_LANGUAGE, "en;level=1, de", "de, en;level=1", false },
    { HF_ACCEPT_LANGUAGE, "en_US, de", "de, en_US", false },
    { HF_ACCEPT_LANGUAGE, "abcdefghi, de", "de, abcdefghi", false },
    { HF_ACCEPT_LANGUAGE, "e1, de", "de, e1", false },
    { HF_ACCEPT_LANGUAGE, "en--us, de", "de, en--us", false },
    { HF_ACCEPT_LANGUAGE, "en_US", "en_us", false },
    { HF_ACCEPT_LANGUAGE, "en;", "en", false },
    { HF_ACCEPT_LANGUAGE, " en_US ", "en_US", true },
    { HF_ACCEPT_LANGUAGE, "", " , ", true },
    /* 12.5.3, 8.4.1 */
    { HF_ACCEPT_ENCODING, "gzip, deflate, br", "br,GZIP,deflate", true },
    { HF_ACCEPT_ENCODING, "x-gzip, X-Compress", "compress, gzip", true },
    { HF_ACCEPT_ENCODING, "gzip, x-gzip", "gzip", true },
    { HF_ACCEPT_ENCODING, "gzip", "gzip, identity", false },
    { HF_ACCEPT_ENCODING, "gzip", "gzip, identity;q=0", false },
    { HF_ACCEPT_ENCODING, "identity", "", false },
    { HF_ACCEPT_ENCODING, "gzip, *;q=0", "*;q=0.0, gzip", true },
    { HF_ACCEPT_ENCODING, "x-br", "br", false },
    { HF_ACCEPT_ENCODING, "gzip;x=1, br", "br, gzip;x=1", false },
    /* 12.5.1, 8.3.1: types, names of parameters and charsets have no case, other values may. */
    { HF_ACCEPT, "a/b,c/d", "c/d,a/b", true },
    { HF_ACCEPT, "Text/HTML, */*;q=0.8", "*/*;q=0.8,text/html", true },
    { HF_ACCEPT, "a/b;charset=utf-8", "a/b; Charset=\"UTF-8\"", true },
    { HF_ACCEPT, "a/b;v=B3", "a/b;v=b3", false },
    { HF_ACCEPT, "a/b;V=b3;q=0.7", "a/b ; v=\"b3\" ; q=0.70", true },
    { HF_ACCEPT, "a/b;v=\"x y\"", "a/b;v=\"x  y\"", false },
    { HF_ACCEPT, "a/b;v=\"x,;\\\"y\", c/d", "c/d,a/b; v=\"x,;\\\"y\"", true },
    { HF_ACCEPT, "a/b;x=1;y=2", "a/b;y=2;x=1", false },
    { HF_ACCEPT, "a/b;x=1", "a/b", false },
    { HF_ACCEPT, "a/b;q=0.5;x=1, c/d", "c/d, a/b;q=0.5;x=1", false },
    { HF_ACCEPT, "a/b;v=\"x, c/d", "c/d, a/b;v=\"x", false },
    { HF_ACCEPT, "text, a/b", "a/b, text", false },
    { HF_ACCEPT, "a/b/c, a/b", "a/b, a/b/c", false },
};

static void
negotiated(enum http_id id, const char *value, struct buf *b)
{
    static const char *const names[] = { "Accept", "Accept-Encoding", "Accept-Language" };
    static const char *const vary[] = { "accept", "accept-encoding", "accept-language" };
    size_t i = id == HF_ACCEPT ? 0 : id == HF_ACCEPT_ENCODING ? 1 : 2;
    struct head h;
    char line[4096];

    assert_true((size_t)snprintf(line, sizeof line, "%s: %s", names[i], value) < sizeof line);
    sem_variant(slice_of(vary[i]), request_of(&h, "GET", line), b);
}

static void
negotiation_is_compared_by_its_grammar(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(weighed_cases); i++) {
        struct buf a = { 0 }, b = { 0 };

        negotiated(weighed_cases[i].id, weighed_cases[i].a, &a);
        negotiated(weighed_cases[i].id, weighed_cases[i].b, &b);
        if (slice_eq(buf_slice(&a), buf_slice(&b)) != weighed_cases[i].same)
            fail_msg("%s | %s: %.*s | %.*s", weighed_cases[i].a, weighed_cases[i].b,
                (int)a.n - 4, a.p + 4, (int)b.n - 4, b.p + 4);
        buf_free(&a);
        buf_free(&b);
    }
}

static void
a_negotiated_value_has_the_form_that_is_written_down(void **state)
{
    static const struct { enum http_id id; const char *value, *form; } cases[] = {
        { HF_ACCEPT_LANGUAGE, "fr;q=0.5, EN;q=0.125 , de;q=1.0,*;q=0", "de,fr;q=0.5,en;q=0.125,*;q=0" },
        { HF_ACCEPT_LANGUAGE, "de;q=0.01, b;q=0.9, a;q=0.90", "a;q=0.9,b;q=0.9,de;q=0.01" },
        { HF_ACCEPT_LANGUAGE, "en,  E_n", "en,E_n" },
        { HF_ACCEPT_ENCODING, "x-gzip, deflate, br;q=0.9", "deflate,gzip,br;q=0.9" },
        { HF_ACCEPT, "text/html, a/b;v=\"x y\";Q=0.30,*/*;q=0.3",
            "text/html,*/*;q=0.3,a/b;v=\"x y\";q=0.3" },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct buf b = { 0 };

        negotiated(cases[i].id, cases[i].value, &b);
        if (b.n < 4 || !slice_eq((struct slice){ b.p + 4, b.n - 4 }, slice_of(cases[i].form)))
            fail_msg("%s: %.*s", cases[i].value, (int)b.n - 4, b.p + 4);
        buf_free(&b);
    }
}

/* In one thread, whose memory of late values is small: these have the same length and ends. */
static void
a_value_has_its_own_form_whatever_was_asked_before(void **state)
{
    static const enum http_id ids[] = { HF_ACCEPT_ENCODING, HF_ACCEPT_LANGUAGE, HF_ACCEPT_ENCODING };
    char value[64], form[64];

    (void)state;
    for (int i = 0; i < 2000; i++)
        for (size_t k = 0; k < NELEM(ids); k++) {
            struct buf b = { 0 };

            snprintf(value, sizeof value, "x-gzip, de;q=0.5, ab-%02d;q=0.25, zzzzzzzz", i / 2 % 100);
            snprintf(form, sizeof form, "%s,de;q=0.5,ab-%02d;q=0.25",
                ids[k] == HF_ACCEPT_ENCODING ? "gzip,zzzzzzzz" : "x-gzip,zzzzzzzz", i / 2 % 100);
            negotiated(ids[k], value, &b);
            if (b.n < 4 || !slice_eq((struct slice){ b.p + 4, b.n - 4 }, slice_of(form)))
                fail_msg("%s: %.*s", value, (int)b.n - 4, b.p + 4);
            buf_free(&b);
        }
}

static void
what_has_more_members_than_anybody_sends_is_compared_in_their_order(void **state)
{
    struct buf up = { 0 }, down = { 0 }, a = { 0 }, b = { 0 };

    (void)state;
    for (int n = 64; n <= 65; n++) {
        up.n = down.n = a.n = b.n = 0;
        for (int i = 0; i < n; i++) {
            buf_printf(&up, "%sc%d", i > 0 ? "," : "", i);
            buf_printf(&down, "%sc%d", i > 0 ? "," : "", n - 1 - i);
        }
        buf_addc(&up, '\0');
        buf_addc(&down, '\0');
        negotiated(HF_ACCEPT_ENCODING, up.p, &a);
        negotiated(HF_ACCEPT_ENCODING, down.p, &b);
        assert_int_equal(slice_eq(buf_slice(&a), buf_slice(&b)), n <= 64);
    }
    buf_free(&up);
    buf_free(&down);
    buf_free(&a);
    buf_free(&b);
}

/* RFC 9110 12.5.4, RFC 4647 3.3.1: does what was stored under another value answer? */
static const struct { const char *asked, *language; bool selects; } language_cases[] = {
    { "fr;q=0.5, de;q=1.0", "de", true },
    { "de", "de", true },
    { "DE", "de", true },
    { "de", "dE-at", false },                           /* the server may have "de", or "de-DE" */
    { "dE-AT", "de-at", true },
    { "de-AT", "de", false },
    { "de", "den", false },
    { "de-A", "de-AT", false },
    { "de, fr", "de", false },                          /* among equals the server chooses */
    { "de;q=0.9, fr", "de", false },
    { "de-AT, de;q=0.5", "de-AT", true },
    { "de, de-AT;q=0.5", "de-AT", false },
    { "de, *;q=0.5", "de", true },
    { "*", "de", false },
    { "*, de;q=0.5", "de", false },
    { "de;q=0", "de", false },
    { "", "de", false },
    { "de, de;q=0.5", "de", true },
    { "de, e_n", "de", false },
    { "de;", "de", false },
    { "de;q=0.3", "de", true },
};

static bool
selects(const char *vary, const char *stored, const char *asked, const char *language)
{
    struct head h;
    struct buf a = { 0 }, b = { 0 };
    bool answer;

    sem_variant(slice_of(vary), request_of(&h, "GET", stored), &a);
    sem_variant(slice_of(vary), request_of(&h, "GET", asked), &b);
    answer = sem_language_selects(slice_of(vary), buf_slice(&a), buf_slice(&b), slice_of(language));
    buf_free(&a);
    buf_free(&b);
    return answer;
}

static void
a_stored_language_answers_who_prefers_it_to_all_others(void **state)
{
    char line[256];

    (void)state;
    for (size_t i = 0; i < NELEM(language_cases); i++) {
        snprintf(line, sizeof line, "Accept-Language: %s", language_cases[i].asked);
        if (selects("accept-language", "Accept-Language: x, y", line, language_cases[i].language) !=
            language_cases[i].selects)
            fail_msg("%s | %s", language_cases[i].asked, language_cases[i].language);
    }
    assert_false(selects("accept-language", "Accept-Language: de", "", "de"));
    assert_true(selects("accept-language", "", "Accept-Language: de", "de"));
}

static void
a_stored_language_answers_only_where_all_else_matches(void **state)
{
    static const char de_a[] = "Accept-Language: de\nX-A: 1";

    (void)state;
    assert_true(selects("accept-language,x-a", "X-A: 1", de_a, "de"));
    assert_false(selects("accept-language,x-a", "X-A: 2", de_a, "de"));
    assert_false(selects("accept-language,x-a", "", de_a, "de"));
    assert_false(selects("accept,accept-language", "Accept: a/b", de_a, "de"));
    assert_false(selects("x-a", "X-A: 2", de_a, "de"));
    assert_true(sem_by_language(SLICE("accept,accept-language,x-a")));
    assert_false(sem_by_language(SLICE("accept,accept-languages")));
    assert_false(sem_by_language(SLICE("")));
}

static void
variants_match_when_the_named_fields_do(void **state)
{
    struct head ha, hb;

    (void)state;
    for (size_t i = 0; i < NELEM(variant_cases); i++) {
        struct buf a = { 0 }, b = { 0 };
        struct slice vary = slice_of(variant_cases[i].vary);

        sem_variant(vary, request_of(&ha, "GET", variant_cases[i].a), &a);
        sem_variant(vary, request_of(&hb, "GET", variant_cases[i].b), &b);
        if (slice_eq(buf_slice(&a), buf_slice(&b)) != variant_cases[i].same)
            fail_msg("%s: %s | %s", variant_cases[i].vary, variant_cases[i].a, variant_cases[i].b);
        buf_free(&a);
        buf_free(&b);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vary_has_one_form_and_a_star_matches_nothing),
        cmocka_unit_test(vary_on_more_fields_than_is_sane_is_refused),
        cmocka_unit_test(variants_match_when_the_named_fields_do),
        cmocka_unit_test(negotiation_is_compared_by_its_grammar),
        cmocka_unit_test(a_negotiated_value_has_the_form_that_is_written_down),
        cmocka_unit_test(a_value_has_its_own_form_whatever_was_asked_before),
        cmocka_unit_test(what_has_more_members_than_anybody_sends_is_compared_in_their_order),
        cmocka_unit_test(a_stored_language_answers_who_prefers_it_to_all_others),
        cmocka_unit_test(a_stored_language_answers_only_where_all_else_matches),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
