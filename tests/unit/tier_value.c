/*
 * The form of a response in a lower tier: what is read is what was written, or nothing.
 */
#include "tier_kit.h"

struct made { struct buf b; struct value v; };

static const struct slice tags[] = { SLICE("one"), SLICE(""), SLICE("recruiter:7") };
static const struct slice groups[] = { SLICE("http://h\0g") };

/* fault: what to get wrong. */
enum fault { NONE, LENGTH, STATUS, MARKS, VARIANT, GROUP, KEY, FIELDS, CODED, TIMES, FAULTS };

static void
make(struct buf *b, enum fault fault)
{
    static const char *const heads[FAULTS] = {
        [LENGTH] = "HTTP/1.1 200 OK\r\nETag: \"v\"\r\nContent-Length: 5\r\n",
        [STATUS] = "HTTP/1.1 404 OK\r\nETag: \"v\"\r\nContent-Length: 4\r\n",
        [FIELDS] = "HTTP/1.1 200 OK\r\nETag: \"v\"\r\nBroken\r\nContent-Length: 4\r\n",
        [CODED] = "HTTP/1.1 200 OK\r\nETag: \"v\"\r\nTransfer-Encoding: chunked\r\n"
            "Content-Length: 4\r\n",
    };
    struct test_key k;
    struct test_request rq;
    struct buf variant = { 0 };
    struct slice torn = SLICE("no wall");
    struct store_parts p = { .key = key_fill(&k, fault == KEY ? "nothing" : "http://h/a|c"),
        .vary = SLICE("accept-language"), .status_n = 17, .etag_at = 23, .etag_n = 3,
        .head = slice_of(heads[fault] != NULL ? heads[fault] :
            "HTTP/1.1 200 OK\r\nETag: \"v\"\r\nContent-Length: 4\r\n"),
        .meta = { .status = 200, .flags = META_EXPLICIT | META_SHARED_AUTH, .response_ms = 5000,
            .date_ms = 4000, .age_ms = 3, .lifetime_ms = 60000, .last_modified_s = HTTP_NO_DATE,
            .swr_s = -1, .sie_s = 30 },
        .route_id = 99, .tags = tags, .ntags = NELEM(tags), .groups = groups,
        .ngroups = NELEM(groups) };

    if (fault == MARKS)
        p.etag_n = 100;
    if (fault == TIMES)
        p.meta.age_ms = INT64_MAX;
    if (fault == GROUP)
        p.groups = &torn;
    sem_variant(p.vary, request_fill(&rq, "en"), &variant);
    p.variant = buf_slice(&variant);
    if (fault == VARIANT)
        p.variant.n--;
    p.body = body_from("body", 4);
    assert_true(value_begin(&p, b));
    buf_addz(b, "body");
    assert_int_equal(b->n, value_size(&p));
    value_seal(b);
    body_unref(&p.body);
    buf_free(&variant);
}

static void
what_is_read_is_what_was_written(void **state)
{
    struct value_parts vp;
    struct buf b = { 0 };
    struct value v;

    (void)state;
    make(&b, NONE);
    assert_int_equal(value_decode(buf_slice(&b), &v), VALUE_GOOD);
    value_to_parts(&v, &vp);
    assert_true(slice_eq(vp.key.bytes, SLICE("http://h/a\0c")));
    assert_int_equal(vp.key.url_n, 10);
    assert_int_equal(vp.key.path_at, 8);
    assert_true(vp.key.url_hash == key_hash(SLICE("http://h/a")));
    assert_true(vp.key.hash == key_hash(vp.key.bytes));
    assert_true(slice_eq(vp.p.vary, SLICE("accept-language")));
    assert_int_equal(vp.p.ntags, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(slice_eq(vp.p.tags[i], tags[i]));
    assert_int_equal(vp.p.ngroups, 1);
    assert_true(slice_eq(vp.p.groups[0], groups[0]));
    assert_int_equal(vp.p.meta.response_ms, 5000);
    assert_int_equal(vp.p.meta.date_ms, 4000);
    assert_int_equal(vp.p.meta.age_ms, 3);
    assert_int_equal(vp.p.meta.lifetime_ms, 60000);
    assert_true(vp.p.meta.last_modified_s == HTTP_NO_DATE);
    assert_int_equal(vp.p.meta.swr_s, -1);
    assert_int_equal(vp.p.meta.sie_s, 30);
    assert_int_equal(vp.p.meta.status, 200);
    assert_int_equal(vp.p.meta.flags, META_EXPLICIT | META_SHARED_AUTH);
    assert_int_equal(vp.p.route_id, 99);
    assert_int_equal(vp.p.status_n, 17);
    assert_int_equal(vp.p.etag_at, 23);
    assert_int_equal(vp.p.etag_n, 3);
    assert_true(slice_eq(v.body, SLICE("body")));
    buf_free(&b);
}

/* The bytes of a value of today, so that tomorrow's program reads it or knows that it cannot. */
static void
the_format_is_what_it_was(void **state)
{
    struct buf b = { 0 };

    (void)state;
    make(&b, NONE);
    assert_int_equal(b.n, 260);
    assert_int_equal(key_hash(buf_slice(&b)), 0x52207ca7655b779f);
    buf_free(&b);
}

/* In memory of its own size, so that a sanitizer sees a read behind it. */
static enum value_verdict
read_exactly(const char *p, size_t n)
{
    char *copy = malloc(n > 0 ? n : 1);
    struct value v;
    enum value_verdict verdict;

    memcpy(copy, p, n);
    verdict = value_decode((struct slice){ copy, n }, &v);
    free(copy);
    return verdict;
}

static void
each_byte_that_is_changed_is_noticed(void **state)
{
    struct buf b = { 0 };

    (void)state;
    make(&b, NONE);
    for (size_t i = 0; i < b.n; i++)
        for (int bit = 0; bit < 8; bit++) {
            b.p[i] ^= (char)(1 << bit);
            assert_int_equal(read_exactly(b.p, b.n), i < 8 ? VALUE_UNKNOWN : VALUE_BAD);
            b.p[i] ^= (char)(1 << bit);
        }
    buf_free(&b);
}

static void
a_value_that_is_cut_off_or_goes_on_is_none(void **state)
{
    struct buf b = { 0 };

    (void)state;
    make(&b, NONE);
    for (size_t n = 0; n < b.n; n++)
        assert_int_not_equal(read_exactly(b.p, n), VALUE_GOOD);
    buf_addc(&b, 'x');
    assert_int_equal(read_exactly(b.p, b.n), VALUE_BAD);
    value_seal(&b);
    assert_int_equal(read_exactly(b.p, b.n), VALUE_BAD);
    buf_free(&b);
}

/* As a stranger would write it: the checksum is right, something within is not. */
static void
a_checksum_alone_makes_nothing_good(void **state)
{
    (void)state;
    for (int fault = NONE + 1; fault < FAULTS; fault++) {
        struct buf b = { 0 };

        make(&b, (enum fault)fault);
        if (read_exactly(b.p, b.n) != VALUE_BAD)
            fail_msg("fault %d is not noticed", fault);
        buf_free(&b);
    }
}

/* Each byte once more, with the checksum made right again: good or not, nothing goes astray. */
static void
no_byte_leads_out_of_bounds(void **state)
{
    static const unsigned char tries[] = { 0, 1, 0x7f, 0x80, 0xff };
    struct buf b = { 0 };

    (void)state;
    make(&b, NONE);
    for (size_t i = 16; i < b.n; i++)
        for (size_t t = 0; t < NELEM(tries); t++) {
            char was = b.p[i];
            struct value_parts vp;
            struct value v;
            char *copy = malloc(b.n);

            b.p[i] = (char)tries[t];
            value_seal(&b);
            memcpy(copy, b.p, b.n);
            if (value_decode((struct slice){ copy, b.n }, &v) == VALUE_GOOD) {
                value_to_parts(&v, &vp);
                (void)value_useful(&v, 1);
            }
            free(copy);
            b.p[i] = was;
        }
    buf_free(&b);
}

static void
of_use_is_what_is_fresh_or_may_be_stale_or_be_validated(void **state)
{
    struct value v = { .meta = { .response_ms = 1000, .lifetime_ms = 1000, .swr_s = -1,
        .sie_s = -1, .last_modified_s = HTTP_NO_DATE } };

    (void)state;
    assert_true(value_useful(&v, 1500));
    assert_false(value_useful(&v, 2500));
    v.meta.sie_s = 1;
    assert_true(value_useful(&v, 2500));
    assert_false(value_useful(&v, 3500));
    v.meta.flags = META_MUST_REVALIDATE;
    assert_false(value_useful(&v, 2500));
    v.meta.last_modified_s = 1;
    assert_true(value_useful(&v, 999999));
}

int
main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(what_is_read_is_what_was_written),
        cmocka_unit_test(the_format_is_what_it_was),
        cmocka_unit_test(each_byte_that_is_changed_is_noticed),
        cmocka_unit_test(a_value_that_is_cut_off_or_goes_on_is_none),
        cmocka_unit_test(a_checksum_alone_makes_nothing_good),
        cmocka_unit_test(no_byte_leads_out_of_bounds),
        cmocka_unit_test(of_use_is_what_is_fresh_or_may_be_stale_or_be_validated),
    };

    return RUN(all);
}
