/*
 * Two routes conflict when they are equally specific and would take the same request.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "route/route.h"

#define LIST(...) { (const char *[]){ __VA_ARGS__ }, NELEM(((const char *[]){ __VA_ARGS__ })) }

static void
equal_routes_conflict_and_others_do_not(void **state)
{
    const struct { struct conf_route a, b; bool conflict; } samples[] = {
        { { .path = "/a" }, { .path = "/a" }, true },
        { { .path = "/a" }, { .path = "/a/" }, false },
        { { .path = "/a/{x}" }, { .path = "/a/*" }, true },
        { { .path = "/a/{x}/b" }, { .path = "/a/b/{x}" }, false },
        { { .path = "/a/**" }, { .path = "/a/*" }, false },
        { { .path = "/a/%7e" }, { .path = "/a/~" }, true },
        { { .path = "/a", .hosts = LIST("x", "Y") }, { .path = "/a", .hosts = LIST("y", "z") },
        true },
        { { .path = "/a", .hosts = LIST("x") }, { .path = "/a", .hosts = LIST("*.x") }, false },
        { { .path = "/a", .hosts = LIST("x") }, { .path = "/a" }, false },
        { { .path = "/a", .methods = LIST("GET") }, { .path = "/a" }, false },
        { { .path = "/a", .methods = LIST("GET", "PUT") }, { .path = "/a", .methods = LIST("PUT") },
        true },
        { { .path = "/a", .methods = LIST("GET") }, { .path = "/a", .methods = LIST("PUT") },
        false },
        { { .path = "/a", .methods = LIST("GET") }, { .path = "/a", .methods = LIST("HEAD") },
        true },
        { { .path = "/a", .headers = LIST("A", "B") }, { .path = "/a", .headers = LIST("b", "a") },
        true },
        { { .path = "/a", .headers = LIST("A") }, { .path = "/a", .headers = LIST("B") }, false },
        { { .path = "/a", .headers = LIST("A") }, { .path = "/a" }, false },
        { { .path = "nonsense" }, { .path = "nonsense" }, false },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(samples); i++) {
        if (route_conf_conflict(&samples[i].a, &samples[i].b) != samples[i].conflict)
            fail_msg("sample %zu: %s and %s", i, samples[i].a.path, samples[i].b.path);
        assert_int_equal(route_conf_conflict(&samples[i].b, &samples[i].a), samples[i].conflict);
    }
}

static void
on_pair(void *arg, size_t i, size_t j)
{
    buf_printf(arg, "%zu-%zu ", i, j);
}

static void
each_pair_is_named_once_and_in_order(void **state)
{
    const struct conf_route routes[] = {
        { .path = "/b" }, { .path = "/a", .hosts = LIST("x", "y"), .methods = LIST("GET", "PUT") },
        { .path = "/b" }, { .path = "/c" }, { .path = "/b" },
        { .path = "/a", .hosts = LIST("y", "x"), .methods = LIST("PUT", "GET") },
    };
    struct buf b = { 0 };

    (void)state;
    route_conf_conflicts(routes, NELEM(routes), on_pair, &b);
    buf_addc(&b, '\0');
    assert_string_equal(b.p, "0-2 0-4 1-5 ");
    buf_free(&b);
    route_conf_conflicts(NULL, 0, on_pair, &b);
    assert_int_equal(b.n, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_routes_conflict_and_others_do_not),
        cmocka_unit_test(each_pair_is_named_once_and_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
