/*
 * Which groups a field names (RFC 9875), and when it names none.
 */
#include "semantics_util.h"

static const struct { const char *lines, *groups; } cases[] = {
    { "X: y", "" }, { "Cache-Groups:", "" }, { "Cache-Groups: \"a\"", "a;" },
    { "Cache-Groups: \"a\", \"B\"", "a;B;" }, { "Cache-Groups: \"a\"\nCache-Groups: \"b\"", "a;b;" },
    { "Cache-Groups: \"a\";x=1;y, \"b\";z=\"1,2\"", "a;b;" },
    { "Cache-Groups: \"a \\\"b\\\" \\\\\", \"c\"", "a \"b\" \\;c;" },
    { "Cache-Groups: \"\"", ";" }, { "cache-groups: \"a\"", "a;" },
    /* no lists of strings: ignored whole */
    { "Cache-Groups: a", "" }, { "Cache-Groups: \"a\", b", "" }, { "Cache-Groups: \"a\", 1", "" },
    { "Cache-Groups: \"a\", (\"b\")", "" }, { "Cache-Groups: \"a\", ?1", "" },
    { "Cache-Groups: \"a\", :YQ==:", "" }, { "Cache-Groups: \"a\",", "" },
    { "Cache-Groups: \"a\" \"b\"", "" }, { "Cache-Groups: \"a", "" },
    { "Cache-Groups: \"a\"\nCache-Groups: b", "" }, { "Cache-Groups: \"\xc3\xa9\"", "" },
    { "Cache-Group-Invalidation: \"a\"", "" },
};

static void
note(void *arg, struct slice group)
{
    buf_adds(arg, group);
    buf_addc(arg, ';');
}

static void
a_field_names_its_strings_or_nothing(void **state)
{
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct buf b = { 0 };

        assert_int_equal(sem_groups(response_of(&h, 200, cases[i].lines), HF_CACHE_GROUPS, note,
            &b), 0);
        if (!slice_eq(buf_slice(&b), slice_of(cases[i].groups)))
            fail_msg("%s: %.*s", cases[i].lines, SLICE_ARG(buf_slice(&b)));
        buf_free(&b);
    }
}

static void
a_group_that_is_too_long_is_ignored_alone(void **state)
{
    struct buf lines = { 0 }, b = { 0 };
    struct head h;

    (void)state;
    for (int over = 0; over < 2; over++) {
        lines.n = b.n = 0;
        buf_addz(&lines, "Cache-Groups: \"a\", \"");
        for (int i = 0; i < SEM_GROUP_MAX + over; i++)
            buf_addc(&lines, 'x');
        buf_addz(&lines, "\", \"b\"");
        buf_addc(&lines, '\0');
        assert_int_equal(sem_groups(response_of(&h, 200, lines.p), HF_CACHE_GROUPS, note, &b), 0);
        assert_int_equal(b.n, over ? 4 : 4 + SEM_GROUP_MAX + 1);
    }
    buf_free(&lines);
    buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_field_names_its_strings_or_nothing),
        cmocka_unit_test(a_group_that_is_too_long_is_ignored_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
