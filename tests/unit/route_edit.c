/*
 * Which fields a route's edits take away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "route/route.h"

static const char *globs[] = { "X-Internal-*", "Server" };
static const struct conf_strings removed = { globs, NELEM(globs) };
static const struct route_edit edit = { .remove = &removed, .any = true };

static void
a_glob_takes_names_in_either_case(void **state)
{
    (void)state;
    assert_true(route_edit_takes(&edit, SLICE("x-INTERNAL-a")));
    assert_true(route_edit_takes(&edit, SLICE("SERVER")));
    assert_false(route_edit_takes(&edit, SLICE("X-Internal")));
    assert_false(route_edit_takes(&edit, SLICE("Server-Timing")));
}

static void
a_glob_takes_a_name_however_long(void **state)
{
    char name[5000];

    (void)state;
    memset(name, 'a', sizeof name);
    memcpy(name, "x-internal-", 11);
    assert_true(route_edit_takes(&edit, (struct slice){ name, sizeof name }));
    name[0] = 'y';
    assert_false(route_edit_takes(&edit, (struct slice){ name, sizeof name }));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_glob_takes_names_in_either_case),
        cmocka_unit_test(a_glob_takes_a_name_however_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
