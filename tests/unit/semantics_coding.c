/*
 * Content codings: what Accept-Encoding says of each (RFC 9110 12.5.3), which form goes out, and the
 * entity tags of the forms (8.8.3.3).
 */
#include "semantics_util.h"

/* Weights of identity, gzip, br, zstd. */
static const struct { const char *lines; unsigned weight[SEM_CODINGS]; } weights[] = {
    { "X: y", { 1, 0, 0, 0 } },         /* no field: who decodes something says so */
    { "Accept-Encoding:", { 1, 0, 0, 0 } },
    { "Accept-Encoding: , ,", { 1, 0, 0, 0 } },
    { "Accept-Encoding: compress, gzip", { 1, 1000, 0, 0 } },       /* the clause's examples */
    { "Accept-Encoding: *", { 1000, 1000, 1000, 1000 } },
    { "Accept-Encoding: compress;q=0.5, gzip;q=1.0", { 1, 1000, 0, 0 } },
    { "Accept-Encoding: gzip;q=1.0, identity; q=0.5, *;q=0", { 500, 1000, 0, 0 } },
    { "Accept-Encoding: identity;q=0", { 0, 0, 0, 0 } },
    { "Accept-Encoding: *;q=0", { 0, 0, 0, 0 } },
    { "Accept-Encoding: *;q=0, identity", { 1000, 0, 0, 0 } },
    { "Accept-Encoding: *;q=0, identity;q=0.001", { 1, 0, 0, 0 } },
    { "Accept-Encoding: *;q=0.3, br", { 300, 300, 1000, 300 } },
    { "Accept-Encoding: gzip, deflate, br, zstd", { 1, 1000, 1000, 1000 } },
    { "Accept-Encoding: gzip\nAccept-Encoding: br;q=0.25", { 1, 1000, 250, 0 } },
    { "Accept-Encoding: GZip;Q=0.5, BR", { 1, 500, 1000, 0 } },
    { "Accept-Encoding: x-gzip", { 1, 1000, 0, 0 } },
    { "Accept-Encoding: gzip \t;\t q=0.75", { 1, 750, 0, 0 } },
    { "Accept-Encoding: gzip;q=0", { 1, 0, 0, 0 } },
    { "Accept-Encoding: gzip;q=0.000", { 1, 0, 0, 0 } },
    { "Accept-Encoding: gzip, gzip;q=0.5", { 1, 500, 0, 0 } },
    { "Accept-Encoding: gzip;q=0, x-gzip", { 1, 0, 0, 0 } },
    /* members that the grammar does not make */
    { "Accept-Encoding: gzip;q=1.5", { 1, 0, 0, 0 } },
    { "Accept-Encoding: gzip;q=0.0001", { 1, 0, 0, 0 } },
    { "Accept-Encoding: gzip;q=", { 1, 0, 0, 0 } },
    { "Accept-Encoding: gzip;level=9", { 1, 0, 0, 0 } },
    { "Accept-Encoding: gzip;q=1;x=y", { 1, 0, 0, 0 } },
    { "Accept-Encoding: gzip;", { 1, 0, 0, 0 } },
    { "Accept-Encoding: gzip br", { 1, 0, 0, 0 } },
    { "Accept-Encoding: \"gzip\"", { 1, 0, 0, 0 } },
    { "Accept-Encoding: gzip;q=x, br", { 1, 0, 1000, 0 } },
    { "Accept-Encoding: dcb, dcz", { 1, 0, 0, 0 } },
};

static void
each_coding_has_the_weight_that_the_request_gives_it(void **state)
{
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(weights); i++) {
        unsigned w[SEM_CODINGS];

        sem_codings(request_of(&h, "GET", weights[i].lines), w);
        for (unsigned c = 0; c < SEM_CODINGS; c++)
            if (w[c] != weights[i].weight[c])
                fail_msg("%s: %s has %u", weights[i].lines, sem_coding_name(c).p, w[c]);
    }
}

/* Made: z(std), b(r), g(zip), in the route's order; sent: the first that is there. */
static const struct { unsigned weight[SEM_CODINGS]; const char *made, *order; } orders[] = {
    { { 1, 1000, 1000, 1000 }, "zbg", "zbgi" },
    { { 1, 1000, 1000, 1000 }, "gbz", "gbzi" },
    { { 1, 1000, 500, 700 }, "bzg", "gzbi" },
    { { 1000, 1000, 1000, 1000 }, "bg", "bgi" },
    { { 600, 500, 700, 0 }, "zbg", "big" },
    { { 1, 0, 1, 0 }, "zbg", "bi" },
    { { 0, 300, 0, 0 }, "zbg", "g" },
    { { 0, 0, 0, 0 }, "zbg", "i" },     /* nothing is acceptable: "without any content coding" */
    { { 0, 1000, 0, 0 }, "b", "i" },
    { { 1, 1000, 1000, 1000 }, "", "i" },
};

static char
letter(uint8_t c)
{
    return sem_coding_name(c).p[0];
}

static void
the_highest_weight_goes_first_then_the_routes_order_and_identity_last(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(orders); i++) {
        uint8_t made[SEM_CODINGS], order[SEM_CODINGS];
        char got[SEM_CODINGS + 1] = "";
        size_t n = strlen(orders[i].made);

        for (size_t k = 0; k < n && k < SEM_CODINGS; k++)
            made[k] = orders[i].made[k] == 'z' ? SEM_ZSTD : orders[i].made[k] == 'b' ? SEM_BR :
                SEM_GZIP;
        n = sem_coding_order(orders[i].weight, made, n, order);
        for (size_t k = 0; k < n && k < SEM_CODINGS; k++)
            got[k] = letter(order[k]);
        if (strcmp(got, orders[i].order) != 0)
            fail_msg("case %zu: %s", i, got);
    }
}

static void
names_are_known_in_any_case_and_gzip_by_its_old_one(void **state)
{
    (void)state;
    assert_int_equal(sem_coding(SLICE("gzip")), SEM_GZIP);
    assert_int_equal(sem_coding(SLICE("X-GZIP")), SEM_GZIP);
    assert_int_equal(sem_coding(SLICE("Br")), SEM_BR);
    assert_int_equal(sem_coding(SLICE("zstd")), SEM_ZSTD);
    assert_int_equal(sem_coding(SLICE("identity")), SEM_IDENTITY);
    assert_int_equal(sem_coding(SLICE("deflate")), SEM_CODINGS);
    assert_int_equal(sem_coding(SLICE("dcz")), SEM_CODINGS);
    assert_int_equal(sem_coding(SLICE("")), SEM_CODINGS);
}

static const struct { const char *etag; enum sem_coding c; const char *coded; } etags[] = {
    { "\"abc\"", SEM_BR, "\"abc-br\"" }, { "\"abc\"", SEM_GZIP, "\"abc-gzip\"" },
    { "\"abc\"", SEM_ZSTD, "\"abc-zstd\"" }, { "\"abc\"", SEM_IDENTITY, "\"abc\"" },
    { "\"\"", SEM_BR, "\"-br\"" }, { "\"a-br\"", SEM_BR, "\"a-br-br\"" },
    { "W/\"abc\"", SEM_BR, "W/\"abc\"" }, { "abc", SEM_BR, "" }, { "\"a b\"", SEM_BR, "" },
    { "\"abc", SEM_BR, "" }, { "w/\"abc\"", SEM_BR, "" }, { "", SEM_BR, "" },
};

static void
a_strong_tag_gets_a_suffix_and_a_weak_one_stays(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(etags); i++) {
        char out[64];
        struct slice got = { out, sem_etag_coded(slice_of(etags[i].etag), etags[i].c, out) };

        if (!slice_eq(got, slice_of(etags[i].coded)))
            fail_msg("%s: %.*s", etags[i].etag, SLICE_ARG(got));
        assert_true(got.n <= strlen(etags[i].etag) + SEM_CODED_MORE);
    }
}

static const struct { const char *etag, *bare; } bare[] = {
    { "\"abc-br\"", "\"abc" }, { "\"abc-gzip\"", "\"abc" }, { "\"abc-zstd\"", "\"abc" },
    { "\"a-br-br\"", "\"a-br" }, { "\"abc\"", NULL }, { "W/\"abc-br\"", NULL },
    { "\"br\"", NULL }, { "\"abc-identity\"", NULL }, { "\"-\"", NULL }, { "\"\"", NULL },
};

static void
a_suffix_is_taken_back_off(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(bare); i++) {
        struct slice got = sem_etag_uncoded(slice_of(bare[i].etag));

        if (!slice_eq(got, slice_of(bare[i].bare)) || (got.p == NULL) != (bare[i].bare == NULL))
            fail_msg("%s: %.*s", bare[i].etag, SLICE_ARG(got));
    }
}

static void
what_is_about_the_bytes_of_one_form_is_known(void **state)
{
    static const char *const yes[] = { "Content-Length: 1", "Content-Encoding: br",
        "content-digest: x", "Repr-Digest: x", "DIGEST: x", "Content-MD5: x",
        "Accept-Ranges: bytes" };
    static const char *const no[] = { "ETag: \"x\"", "Content-Type: a/b", "Vary: x",
        "Want-Repr-Digest: x", "Last-Modified: x" };
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(yes); i++)
        assert_true(sem_about_bytes(response_of(&h, 200, yes[i])->fields));
    for (size_t i = 0; i < NELEM(no); i++)
        assert_false(sem_about_bytes(response_of(&h, 200, no[i])->fields));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_coding_has_the_weight_that_the_request_gives_it),
        cmocka_unit_test(the_highest_weight_goes_first_then_the_routes_order_and_identity_last),
        cmocka_unit_test(names_are_known_in_any_case_and_gzip_by_its_old_one),
        cmocka_unit_test(a_strong_tag_gets_a_suffix_and_a_weak_one_stays),
        cmocka_unit_test(a_suffix_is_taken_back_off),
        cmocka_unit_test(what_is_about_the_bytes_of_one_form_is_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
