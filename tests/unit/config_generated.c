/*
 * The committed reference and schema are what the tables say today.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "config/config.h"

static char *
whole_file(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 1 << 20);

    assert_non_null(f);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

static void
compare(const char *path, void (*write)(FILE *), const char *command)
{
    char *is = NULL, *was = whole_file(path);
    size_t n = 0;
    FILE *f = open_memstream(&is, &n);

    write(f);
    fclose(f);
    if (strcmp(is, was) != 0)
        fail_msg("%s is stale; write it anew: %s", path, command);
    free(is);
    free(was);
}

static void
the_reference_is_current(void **state)
{
    (void)state;
    compare(SOURCE_DIR "/config/REFERENCE.md", config_reference, "weir reference > "
        "config/REFERENCE.md");
}

static void
the_schema_is_current(void **state)
{
    (void)state;
    compare(SOURCE_DIR "/config/weir.schema.json", config_schema, "weir schema > "
        "config/weir.schema.json");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_is_current),
        cmocka_unit_test(the_schema_is_current),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
