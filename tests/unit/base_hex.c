/* Hexadecimal digits: written as they are read, and nothing else is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"

static void
what_is_written_is_read_again(void **state)
{
    uint8_t bytes[16], back[16];
    uint64_t v, got;
    char text[33];

    (void)state;
    for (int i = 0; i < 1000; i++) {
        random_bytes(bytes, sizeof bytes);
        assert_ptr_equal(put_hex_bytes(text, bytes, 16), text + 32);
        assert_true(slice_hex_bytes((struct slice){ text, 32 }, back, 16));
        assert_memory_equal(bytes, back, 16);
        v = random_fast() >> i % 64;
        assert_ptr_equal(put_hex(text, v), text + 16);
        assert_true(slice_hex((struct slice){ text, 16 }, &got));
        assert_int_equal(got, v);
    }
    put_hex(text, 0x0123456789abcdef);
    assert_memory_equal(text, "0123456789abcdef", 16);
}

static void
anything_else_is_refused(void **state)
{
    static const char *const not[] = { "", "g", "A", "0x1", " 1", "-1", "1 ", "00000000000000000" };
    uint8_t bytes[2];
    uint64_t v;

    (void)state;
    for (size_t i = 0; i < NELEM(not); i++)
        assert_false(slice_hex(slice_of(not[i]), &v));
    assert_true(slice_hex(SLICE("ff"), &v) && v == 255);
    assert_true(slice_hex_bytes(SLICE("ff0a"), bytes, 2) && bytes[0] == 255 && bytes[1] == 10);
    assert_false(slice_hex_bytes(SLICE("ff0"), bytes, 2));
    assert_false(slice_hex_bytes(SLICE("ff0a1"), bytes, 2));
    assert_false(slice_hex_bytes(SLICE("fF0a"), bytes, 2));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(anything_else_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
