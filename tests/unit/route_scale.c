/*
 * Matching costs by the length of the path, not by the number of routes.
 *
 * The cost is the number of basic blocks that the room ran: it is compiled for this test so that
 * it tells of each (-fsanitize-coverage=trace-pc), which is the same on every machine.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "route/route.h"

static uint64_t blocks;

void __sanitizer_cov_trace_pc(void);

void
__sanitizer_cov_trace_pc(void)
{
    blocks++;
}

/* A table of n things with four routes each, and `**`. */
static struct route_table *
table_of(size_t n)
{
    static const char *const shapes[] = { "/api/v1/thing%zu", "/api/v1/thing%zu/{id}",
        "/api/v1/thing%zu/{id}/parts", "/other%zu/**" };
    struct pool *p = pool_new();
    struct conf *c = pool_zalloc(p, sizeof *c);
    struct route_table *t;
    char path[64];

    c->magic = CONF_MAGIC;
    atomic_init(&c->refs, 1);
    c->pool = p;
    c->routes = pool_zalloc(p, (n + 1) * sizeof *c->routes);
    for (size_t i = 0; i < n; i++) {
        struct conf_route *r = &c->routes[c->nroutes++];
        int len = snprintf(path, sizeof path, shapes[i % 4], i / 4);

        r->path = i == 0 ? "/**" : pool_dup(p, path, (size_t)len);
        r->name = r->path;
        r->ttl_ms = r->force_ttl_ms = r->swr_ms = r->sie_ms = r->max_object = CONF_UNSET;
    }
    t = route_table_new(c, NULL, NULL);
    assert_non_null(t);
    conf_unref(&c);
    return t;
}

static uint64_t
cost_of(const struct route_table *t, const char *path, const char *want)
{
    uint64_t from = blocks;
    struct route_match m;

    assert_non_null(route_match(t, SLICE("api.example"), slice_of(path), NULL, &m));
    assert_string_equal(m.route->name, want);
    return blocks - from;
}

static void
ten_thousand_routes_match_as_fast_as_ten(void **state)
{
    static const struct { const char *path, *route; } samples[] = {
        { "/api/v1/thing1/77", "/api/v1/thing1/{id}" },
        { "/api/v1/thing1/77/parts", "/api/v1/thing1/{id}/parts" },
        { "/other1/a/b/c", "/other1/**" },
        { "/api/v1/nothing/77", "/**" },
        { "/nowhere", "/**" },
    };
    struct route_table *few = table_of(10), *many = table_of(10000);

    (void)state;
    for (size_t i = 0; i < NELEM(samples); i++) {
        uint64_t a = cost_of(few, samples[i].path, samples[i].route);
        uint64_t b = cost_of(many, samples[i].path, samples[i].route);

        print_message("%s: %" PRIu64 " with 10 routes, %" PRIu64 " with 10,000\n",
            samples[i].path, a, b);
        /* a table of children costs one hash more than a comparison in turn */
        assert_true(a > 0 && b < a + 50);
    }
    route_table_unref(&few);
    route_table_unref(&many);
}

static void
a_single_route_of_all_paths_costs_nearly_nothing(void **state)
{
    struct route_table *one = table_of(1);
    uint64_t cost = cost_of(one, "/api/v1/thing1/77?x", "/**");

    (void)state;
    print_message("%" PRIu64 "\n", cost);
    assert_true(cost > 0 && cost < 100);
    route_table_unref(&one);
}

/* Templates that offer a choice at every segment, and a request that none of them takes. */
static void
backtracking_is_bounded_by_what_the_templates_offer(void **state)
{
    struct pool *p = pool_new();
    struct conf *c = pool_zalloc(p, sizeof *c);
    static const char *methods[] = { "PUT" };
    struct route_table *t;
    struct route_match m;
    struct buf path = { 0 };
    uint64_t from;

    (void)state;
    c->magic = CONF_MAGIC;
    atomic_init(&c->refs, 1);
    c->pool = p;
    c->nroutes = 60;
    c->routes = pool_zalloc(p, 60 * sizeof *c->routes);
    for (size_t i = 0; i < 60; i++) {
        struct conf_route *r = &c->routes[i];

        path.n = 0;
        for (size_t k = 0; k < 60; k++)
            buf_addz(&path, k == i ? "/*" : "/a");
        r->path = r->name = pool_dup(p, path.p, path.n);
        r->methods = (struct conf_strings){ methods, 1 };
        r->ttl_ms = r->force_ttl_ms = r->swr_ms = r->sie_ms = r->max_object = CONF_UNSET;
    }
    t = route_table_new(c, NULL, NULL);
    assert_non_null(t);
    conf_unref(&c);
    path.n = 0;
    for (size_t k = 0; k < 60; k++)
        buf_addz(&path, "/a");
    from = blocks;
    assert_null(route_match(t, SLICE("h"), buf_slice(&path), NULL, &m));
    /* 60 * 60 / 2 nodes; not 2^60 */
    print_message("%" PRIu64 "\n", blocks - from);
    assert_true(blocks - from < 60 * 60 / 2 * 50);
    route_table_unref(&t);
    buf_free(&path);
}

/* One path, n routes that ask for fields: F0, F0 and F1, F1, F1 and F2, ... and one for the rest. */
static struct route_table *
table_by_fields(size_t n)
{
    struct pool *p = pool_new();
    struct conf *c = pool_zalloc(p, sizeof *c);
    struct route_table *t;
    char text[32];

    c->magic = CONF_MAGIC;
    atomic_init(&c->refs, 1);
    c->pool = p;
    c->routes = pool_zalloc(p, (n + 1) * sizeof *c->routes);
    for (; c->nroutes <= n; c->nroutes++) {
        struct conf_route *r = &c->routes[c->nroutes];
        size_t k = c->nroutes / 2, want = c->nroutes == n ? 0 : 1 + c->nroutes % 2;
        int len = snprintf(text, sizeof text, "%zu,%zu", k, want);

        r->path = "/one";
        r->name = pool_dup(p, text, (size_t)len);
        r->headers = (struct conf_strings){ pool_alloc(p, 2 * sizeof(char *)), want };
        for (size_t i = 0; i < want; i++) {
            len = snprintf(text, sizeof text, "X-F%zu", k + i);
            r->headers.at[i] = pool_dup(p, text, (size_t)len);
        }
        r->ttl_ms = r->force_ttl_ms = r->swr_ms = r->sie_ms = r->max_object = CONF_UNSET;
    }
    t = route_table_new(c, NULL, NULL);
    assert_non_null(t);
    conf_unref(&c);
    return t;
}

static const char *
route_by_fields(const struct route_table *t, const char *lines, uint64_t *cost)
{
    struct http_field fields[16];
    struct http_head h = { .cap = 16, .fields = fields };
    struct route_match m;
    uint64_t from = blocks;

    assert_int_equal(http_parse_fields(lines, strlen(lines), &h), 0);
    h.method = HTTP_GET;
    (void)route_match(t, SLICE("h"), SLICE("/one"), &h, &m);
    *cost = blocks - from;
    return m.route != NULL ? m.route->name : "-";
}

static void
routes_that_fields_tell_apart_cost_by_the_fields_of_the_request(void **state)
{
    static const struct { const char *lines, *route; } samples[] = {
        { "Accept: a\r\nUser-Agent: b\r\n", "%zu,0" }, { "X-F3: 1\r\n", "3,1" },
        { "x-f4: 1\r\nA: 1\r\nX-F3: 1\r\n", "3,2" },
        { "X-F2: 1\r\nX-F4: 1\r\n", "2,1" },
        { "X-F4: 1\r\nX-F2: 1\r\nX-F1: 1\r\n", "1,2" },
    };
    struct route_table *few = table_by_fields(20), *many = table_by_fields(10000);

    (void)state;
    for (size_t i = 0; i < NELEM(samples); i++) {
        char name[32];
        uint64_t a, b;

        snprintf(name, sizeof name, samples[i].route, (size_t)10);
        assert_string_equal(route_by_fields(few, samples[i].lines, &a), name);
        snprintf(name, sizeof name, samples[i].route, (size_t)5000);
        assert_string_equal(route_by_fields(many, samples[i].lines, &b), name);
        print_message("%" PRIu64 " with 20 routes, %" PRIu64 " with 10,000\n", a, b);
        assert_true(a > 0 && b < a + 50);
    }
    route_table_unref(&few);
    route_table_unref(&many);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_routes_match_as_fast_as_ten),
        cmocka_unit_test(a_single_route_of_all_paths_costs_nearly_nothing),
        cmocka_unit_test(routes_that_fields_tell_apart_cost_by_the_fields_of_the_request),
        cmocka_unit_test(backtracking_is_bounded_by_what_the_templates_offer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
