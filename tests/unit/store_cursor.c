/*
 * Cursors of a body that is trimmed and sealed while it is read: what a flight and its readers do.
 */
#include "store_util.h"

static void
append_bytes(struct body *b, char byte, size_t n)
{
    char *p = malloc(n);

    memset(p, byte, n);
    assert_int_equal(body_append(b, (struct slice){ p, n }), 0);
    free(p);
}

/* Takes all that is there, several segments in one go, as one writev does. */
static void
take(const struct body *b, struct body_cursor *c, char byte)
{
    struct iovec v[16];
    uint64_t end = body_size(b), bytes = 0;
    size_t n = body_pieces(b, c, end, v, NELEM(v));

    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < v[i].iov_len; k++)
            assert_int_equal(((char *)v[i].iov_base)[k], byte);
        bytes += v[i].iov_len;
    }
    body_skip(b, c, bytes);
    assert_int_equal(c->at, end);
}

/* 12 KiB fill the first two segments (4 and 8 KiB) to the last byte. */
static void
a_cursor_at_the_end_of_several_full_segments_goes_on_after_a_trim(void **state)
{
    struct body *b = body_new(0);
    struct body_cursor c = { 0 };

    (void)state;
    append_bytes(b, 'a', 12 << 10);
    take(b, &c, 'a');
    append_bytes(b, 'b', 1000);
    body_trim(b, c.at - 1);             /* as fill/ paces */
    take(b, &c, 'b');
    body_unref(&b);
}

/* The cursor stands in the first segment when two more are taken to their ends. */
static void
a_cursor_that_passed_trimmed_segments_does_not_remember_them(void **state)
{
    struct body *b = body_new(0);
    struct body_cursor c = { 0 };

    (void)state;
    append_bytes(b, 'a', 5000);
    take(b, &c, 'a');
    append_bytes(b, 'b', (60 << 10) - 5000);
    take(b, &c, 'b');
    append_bytes(b, 'c', 1000);
    body_trim(b, c.at - 1);
    take(b, &c, 'c');
    body_unref(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cursor_at_the_end_of_several_full_segments_goes_on_after_a_trim),
        cmocka_unit_test(a_cursor_that_passed_trimmed_segments_does_not_remember_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
