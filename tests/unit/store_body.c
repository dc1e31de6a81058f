/*
 * Bodies: what is appended is read, over segments and threads; what is trimmed and sealed is freed.
 */
#include "store_util.h"

#include <pthread.h>

static char
byte_at(uint64_t at)
{
    return (char)(at * 31 + at / 4093);
}

static void
append(struct body *b, size_t n)
{
    char *p = malloc(n);
    uint64_t at = body_size(b);

    for (size_t i = 0; i < n; i++)
        p[i] = byte_at(at + i);
    assert_int_equal(body_append(b, (struct slice){ p, n }), 0);
    free(p);
}

/* Reads from the cursor to what is there now; false when a byte is wrong. */
static bool
read_on(const struct body *b, struct body_cursor *c, size_t pieces)
{
    struct iovec v[4];
    uint64_t end = body_size(b);
    size_t n;

    while ((n = body_pieces(b, c, end, v, pieces)) > 0) {
        for (size_t i = 0; i < n; i++) {
            const char *p = v[i].iov_base;

            for (size_t k = 0; k < v[i].iov_len; k++)
                if (p[k] != byte_at(c->at + k))
                    return false;
            body_skip(b, c, v[i].iov_len);
        }
    }
    return c->at == end;
}

static void
what_is_appended_is_read_whatever_the_pieces(void **state)
{
    static const size_t expects[] = { 0, 1, 100, 1000, 5000, 300000, 3 << 20 };
    static const size_t sizes[] = { 1, 100, 4095, 4096, 4097, 70000, 1 << 20, 1100000 };

    (void)state;
    for (size_t e = 0; e < NELEM(expects); e++)
        for (size_t pieces = 1; pieces <= 4; pieces++) {
            struct body *b = body_new(expects[e]);
            struct body_cursor c = { 0 }, all = { 0 };

            for (size_t i = 0; i < NELEM(sizes); i++) {
                append(b, sizes[i]);
                if (i % 2 == 0)
                    assert_true(read_on(b, &c, pieces));
            }
            body_seal(b);
            assert_true(read_on(b, &c, pieces));
            assert_true(read_on(b, &all, pieces));
            body_unref(&b);
        }
}

static void
a_known_size_is_one_exact_segment(void **state)
{
    struct body *b = body_new(1024);

    (void)state;
    append(b, 1024);
    assert_ptr_equal(b->first, b->last);
    assert_int_equal(body_held(b), 1024);
    body_unref(&b);
    b = body_new(((uint64_t)5 << 20) / 2);
    append(b, (5 << 20) / 2);
    body_seal(b);
    assert_int_equal(body_held(b), (5 << 20) / 2);
    assert_int_equal(b->first->cap, 1 << 20);
    body_unref(&b);
}

static void
an_unknown_size_grows_from_4_to_256_kib_and_is_sealed(void **state)
{
    struct body *b = body_new(0);

    (void)state;
    append(b, 1);
    assert_int_equal(body_held(b), 4096);
    for (int i = 0; i < 1000; i++)
        append(b, 4000);
    assert_int_equal(b->last->cap, 256 << 10);
    body_seal(b);
    assert_int_equal(body_held(b), body_size(b));
    body_unref(&b);
}

static void
a_body_that_others_read_is_not_moved_by_sealing(void **state)
{
    struct body *b = body_new(0), *reader = body_ref(b);
    const char *p;

    (void)state;
    append(b, 10);
    p = b->first->p;
    body_seal(b);
    assert_ptr_equal(b->first->p, p);
    body_unref(&reader);
    body_unref(&b);
}

static void
trimming_frees_what_was_read_and_keeps_who_waits_at_the_end(void **state)
{
    struct body *b = body_new(0);
    struct body_cursor c = { 0 };

    (void)state;
    append(b, 4096);
    assert_true(read_on(b, &c, 4));
    append(b, 1 << 20);
    body_trim(b, c.at);
    assert_int_equal(b->trimmed, 0);
    assert_true(read_on(b, &c, 4));
    body_trim(b, c.at);
    assert_true(b->trimmed > 0);
    assert_true(body_held(b) <= 512 << 10);
    append(b, 1 << 20);
    assert_true(read_on(b, &c, 4));
    body_unref(&b);
}

static void
an_empty_body_has_no_pieces(void **state)
{
    struct body *b = body_new(0);
    struct body_cursor c = { 0 };
    struct iovec v;

    (void)state;
    assert_int_equal(body_append(b, (struct slice){ 0 }), 0);
    body_seal(b);
    assert_int_equal(body_pieces(b, &c, 0, &v, 1), 0);
    body_unref(&b);
}

#define TOTAL 3000000u

static void *
reader(void *arg)
{
    struct body *b = arg;
    struct body_cursor c = { 0 };
    bool right = true;

    while (c.at < TOTAL)
        right &= read_on(b, &c, 3);
    body_unref(&b);
    return right ? NULL : arg;
}

static void
readers_on_other_threads_see_every_byte(void **state)
{
    struct body *b = body_new(0);
    pthread_t t[2];

    (void)state;
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, reader, body_ref(b));
    while (body_size(b) < TOTAL)
        append(b, body_size(b) + 7777 <= TOTAL ? 7777 : TOTAL - body_size(b));
    body_seal(b);
    for (int i = 0; i < 2; i++) {
        void *wrong;

        pthread_join(t[i], &wrong);
        assert_null(wrong);
    }
    body_unref(&b);
}

int
main(void)
{
    const struct CMUnitTest body[] = {
        cmocka_unit_test(what_is_appended_is_read_whatever_the_pieces),
        cmocka_unit_test(a_known_size_is_one_exact_segment),
        cmocka_unit_test(an_unknown_size_grows_from_4_to_256_kib_and_is_sealed),
        cmocka_unit_test(a_body_that_others_read_is_not_moved_by_sealing),
        cmocka_unit_test(trimming_frees_what_was_read_and_keeps_who_waits_at_the_end),
        cmocka_unit_test(an_empty_body_has_no_pieces),
        cmocka_unit_test(readers_on_other_threads_see_every_byte),
    };

    return RUN(body);
}
