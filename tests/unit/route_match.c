/*
 * Which route takes a request: the most specific one, in whatever order the file has them.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "route/route.h"

#define MANY 16

/* A configuration of routes, as config/ would have made it. */
static struct conf *
conf_of(const struct conf_route *routes, size_t n)
{
    struct pool *p = pool_new();
    struct conf *c = pool_zalloc(p, sizeof *c);

    c->magic = CONF_MAGIC;
    atomic_init(&c->refs, 1);
    c->pool = p;
    c->cache_max_object = 12345;
    c->routes = pool_alloc(p, n * sizeof *routes);
    memcpy(c->routes, routes, n * sizeof *routes);
    c->nroutes = n;
    for (size_t i = 0; i < n; i++) {
        struct conf_route *r = &c->routes[i];

        r->index = (unsigned)i;
        if (r->name == NULL)
            r->name = r->path;
        r->ttl_ms = r->force_ttl_ms = r->swr_ms = r->sie_ms = r->max_object = CONF_UNSET;
        r->key_host = true;
    }
    return c;
}

static struct route_table *
table_of(const struct conf_route *routes, size_t n)
{
    struct conf *c = conf_of(routes, n);
    struct err e = { 0 };
    struct route_table *t = route_table_new(c, NULL, &e);

    assert_string_equal(e.text, "");
    assert_non_null(t);
    conf_unref(&c);
    return t;
}

struct ask { const char *method, *host, *path, *fields, *route; };

/* The name of the route that takes it, "-" for none. */
static const char *
answer(const struct route_table *t, const struct ask *a, struct route_match *m)
{
    struct http_field fields[8];
    struct http_head h = { .fields = fields, .cap = 8 };
    const struct route *r;

    if (a->fields != NULL)
        assert_int_equal(http_parse_fields(a->fields, strlen(a->fields), &h), 0);
    h.method_name = slice_of(a->method != NULL ? a->method : "GET");
    h.method = http_method(h.method_name);
    r = route_match(t, slice_of(a->host != NULL ? a->host : "h.example"), slice_of(a->path), &h, m);
    assert_ptr_equal(r, m->route);
    return r != NULL ? r->name : "-";
}

static void
check(const struct route_table *t, const struct ask *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct route_match m;
        const char *got = answer(t, &a[i], &m);

        if (strcmp(got, a[i].route) != 0)
            print_error("%s %s%s\n", a[i].method ? a[i].method : "GET", a[i].host ? a[i].host : "",
                a[i].path);
        assert_string_equal(got, a[i].route);
    }
}

/* The asks hold for the routes in every rotation and reversal. */
static void
check_orders(const struct conf_route *routes, size_t n, const struct ask *a, size_t na)
{
    struct conf_route turned[MANY];

    assert_true(n <= MANY);
    for (size_t turn = 0; turn < 2 * n; turn++) {
        struct route_table *t;

        for (size_t i = 0; i < n; i++)
            turned[turn < n ? i : n - 1 - i] = routes[(i + turn) % n];
        t = table_of(turned, n);
        check(t, a, na);
        route_table_unref(&t);
    }
}

#define LIST(...) { (const char *[]){ __VA_ARGS__ }, NELEM(((const char *[]){ __VA_ARGS__ })) }

static void
paths_are_compared_segment_by_segment(void **state)
{
    const struct conf_route routes[] = {
        { .path = "/**" }, { .path = "/api/**" }, { .path = "/api/*" }, { .path = "/api/users" },
        { .path = "/api/users/" }, { .path = "/api/users/{id}" }, { .path = "/api/users/me" },
        { .path = "/api/users/{id}/posts/**" }, { .path = "/api/*/{x}/posts" }, { .path = "/" },
        { .path = "/z" }, { .path = "/z/**" },
    };
    static const struct ask asks[] = {
        { .path = "/", .route = "/" },
        { .path = "/x", .route = "/**" },
        { .path = "/api", .route = "/api/**" },
        { .path = "/api/", .route = "/api/**" },
        { .path = "/api/x", .route = "/api/*" },
        { .path = "/api/x/", .route = "/api/**" },
        { .path = "/apix", .route = "/**" },
        { .path = "/api/users", .route = "/api/users" },
        { .path = "/api/users/", .route = "/api/users/" },
        { .path = "/api/users/7", .route = "/api/users/{id}" },
        { .path = "/api/users/me", .route = "/api/users/me" },
        { .path = "/api/users/mee", .route = "/api/users/{id}" },
        { .path = "/api/users/7/", .route = "/api/**" },
        { .path = "/api/users/7/posts", .route = "/api/users/{id}/posts/**" },
        { .path = "/api/users/7/posts/1/2/3", .route = "/api/users/{id}/posts/**" },
        { .path = "/api/cities/7/posts", .route = "/api/*/{x}/posts" },
        { .path = "/api/cities//posts", .route = "/api/**" },
        { .path = "//", .route = "/**" },
        { .path = "/z", .route = "/z" },
        { .path = "/z/", .route = "/z/**" },
        { .method = "OPTIONS", .path = "*", .route = "/**" },
    };

    (void)state;
    check_orders(routes, NELEM(routes), asks, NELEM(asks));
}

static void
literals_compare_as_normalised_and_case_counts(void **state)
{
    const struct conf_route routes[] = { { .path = "/a%7eb/%c3%a9" }, { .path = "/X" } };
    static const struct ask asks[] = {
        { .path = "/a~b/%C3%A9", .route = "/a%7eb/%c3%a9" },
        { .path = "/x", .route = "-" },
        { .path = "/X", .route = "/X" },
        { .path = "*", .route = "-" },
        { .path = "", .route = "-" },
    };

    (void)state;
    check_orders(routes, NELEM(routes), asks, NELEM(asks));
}

static void
hosts_go_before_paths(void **state)
{
    const struct conf_route routes[] = {
        { .name = "any", .path = "/a/b/c" },
        { .name = "sub", .path = "/a/**", .hosts = LIST("*.Example.com") },
        { .name = "deep", .path = "/**", .hosts = LIST("*.eu.example.com", "other.example") },
        { .name = "exact", .path = "/a/*/c", .hosts = LIST("www.EU.example.com") },
    };
    static const struct ask asks[] = {
        { .host = "x", .path = "/a/b/c", .route = "any" },
        { .host = "example.com", .path = "/a/b/c", .route = "any" },
        { .host = "w.example.com", .path = "/a/b/c", .route = "sub" },
        { .host = "w.example.com", .path = "/x", .route = "-" },
        { .host = "w.eu.example.com", .path = "/a/b/c", .route = "deep" },
        { .host = "www.eu.example.com", .path = "/a/b/c", .route = "exact" },
        { .host = "www.eu.example.com", .path = "/a/b", .route = "deep" },
        { .host = "other.example", .path = "/", .route = "deep" },
        { .host = "a.b.c.example.com", .path = "/a", .route = "sub" },
        { .host = "[::1]", .path = "/a/b/c", .route = "any" },
        { .host = "", .path = "/a/b/c", .route = "any" },
    };

    (void)state;
    check_orders(routes, NELEM(routes), asks, NELEM(asks));
}

static void
methods_and_fields_decide_between_equal_paths(void **state)
{
    const struct conf_route routes[] = {
        { .name = "plain", .path = "/a" },
        { .name = "get", .path = "/a", .methods = LIST("GET", "BREW") },
        { .name = "post", .path = "/a", .methods = LIST("POST") },
        { .name = "x", .path = "/a", .headers = LIST("X-One") },
        { .name = "y", .path = "/a", .headers = LIST("X-Three") },
        { .name = "xy", .path = "/a", .headers = LIST("x-two", "X-One") },
        { .name = "getx", .path = "/a", .methods = LIST("GET"), .headers = LIST("Accept") },
    };
    static const struct ask asks[] = {
        { .path = "/a", .route = "get" },
        { .method = "HEAD", .path = "/a", .route = "get" },
        { .method = "BREW", .path = "/a", .route = "get" },
        { .method = "POST", .path = "/a", .route = "post" },
        { .method = "PUT", .path = "/a", .route = "plain" },
        { .method = "MILK", .path = "/a", .route = "plain" },
        { .method = "PUT", .path = "/a", .fields = "x-ONE: 1\r\n", .route = "x" },
        { .method = "PUT", .path = "/a", .fields = "x-ONE: 1\r\nX-Two:\r\n", .route = "xy" },
        { .path = "/a", .fields = "x-ONE: 1\r\n", .route = "get" },
        { .method = "PUT", .path = "/a", .fields = "X-Three: 1\r\n", .route = "y" },
        { .method = "PUT", .path = "/a", .fields = "X-Three: 1\r\nX-One: 1\r\n", .route = "x" },
        { .path = "/a", .fields = "accept: 1\r\n", .route = "getx" },
    };

    (void)state;
    check_orders(routes, NELEM(routes), asks, NELEM(asks));
}

static void
what_the_best_path_does_not_take_the_next_best_does(void **state)
{
    const struct conf_route routes[] = {
        { .name = "literal", .path = "/a/b/c", .methods = LIST("PUT") },
        { .name = "mixed", .path = "/a/{x}/c", .headers = LIST("X-One") },
        { .name = "late", .path = "/a/b/{x}", .methods = LIST("DELETE") },
        { .name = "rest", .path = "/a/**", .methods = LIST("GET", "PUT", "DELETE") },
        { .name = "host", .path = "/**", .hosts = LIST("h"), .methods = LIST("PUT") },
    };
    static const struct ask asks[] = {
        { .method = "PUT", .path = "/a/b/c", .route = "literal" },
        { .method = "DELETE", .path = "/a/b/c", .route = "late" },
        { .method = "GET", .path = "/a/b/c", .route = "rest" },
        { .method = "GET", .path = "/a/b/c", .fields = "X-One: 1\r\n", .route = "mixed" },
        { .method = "POST", .path = "/a/b/c", .route = "-" },
        { .host = "h", .method = "PUT", .path = "/a/b/c", .route = "host" },
        { .host = "h", .method = "DELETE", .path = "/a/b/c", .route = "late" },
    };

    (void)state;
    check_orders(routes, NELEM(routes), asks, NELEM(asks));
}

static void
placeholders_give_their_segments_as_received(void **state)
{
    const struct conf_route routes[] = {
        { .path = "/{a}/x/{b-2}/*/{_c}/**" }, { .path = "/{other}/x/{thing}/*/{_c}/last" },
    };
    struct route_table *t = table_of(routes, 2);
    struct route_match m;

    (void)state;
    assert_string_equal(answer(t, &(struct ask){ .path = "/1%2F/x/22/no/4/5/6" }, &m),
        "/{a}/x/{b-2}/*/{_c}/**");
    assert_int_equal(m.route->nparams, 3);
    assert_string_equal(m.route->params[1], "b-2");
    assert_true(slice_eq(m.values[0], SLICE("1%2F")));
    assert_true(slice_eq(m.values[1], SLICE("22")));
    assert_true(slice_eq(m.values[2], SLICE("4")));
    answer(t, &(struct ask){ .path = "/1/x/2/3/4/last" }, &m);
    assert_string_equal(m.route->params[0], "other");
    assert_true(slice_eq(m.values[1], SLICE("2")));
    assert_null(route_match(t, SLICE("h"), SLICE("/1/y/2/3/4"), NULL, &m));
    route_table_unref(&t);
}

static unsigned
slot_of(const char *name)
{
    return (unsigned)strlen(name);
}

static void
a_table_knows_its_routes(void **state)
{
    const struct conf_route routes[] = {
        { .path = "/b/{id}", .tags = LIST("t:{id}", "all"), .purge = LIST("p:{request.body.id}"),
            .response_remove = LIST("X-*") },
        { .path = "/a", .name = "first" }, { .path = "/c", .name = "b" },
    };
    struct conf *c = conf_of(routes, NELEM(routes));
    struct route_table *t = route_table_new(c, slot_of, NULL), *second;
    const struct route *r;

    (void)state;
    assert_ptr_equal(route_table_conf(t), c);
    conf_unref(&c);
    assert_int_equal(route_table_size(t), 3);
    r = route_table_at(t, 0);
    assert_string_equal(r->name, "/b/{id}");
    assert_int_equal(r->id, key_hash(SLICE("/b/{id}")));
    assert_int_equal(r->stats, 7);
    assert_int_equal(r->ntags, 2);
    assert_int_equal(r->npurge, 1);
    assert_int_equal(r->needs, KEY_NEEDS_REQUEST_BODY);
    assert_int_equal(r->max_object, 12345);
    assert_int_equal(r->rules.ttl_ms, -1);
    assert_false(r->request.any);
    assert_true(r->response.any);
    assert_ptr_equal(route_table_find(t, SLICE("first")), route_table_at(t, 1));
    assert_ptr_equal(route_table_find(t, SLICE("b")), route_table_at(t, 2));
    assert_null(route_table_find(t, SLICE("firs")));
    assert_null(route_table_find(t, SLICE("first2")));
    assert_null(route_table_find(t, SLICE("")));
    second = route_table_ref(t);
    route_table_unref(&t);
    assert_null(t);
    assert_int_equal(route_table_size(second), 3);
    route_table_unref(&second);
}

static void
a_bad_template_gives_no_table(void **state)
{
    const struct conf_route routes[] = { { .path = "/a", .tags = LIST("{nope}") } };
    struct conf *c = conf_of(routes, 1);
    struct err e = { 0 };

    (void)state;
    assert_null(route_table_new(c, NULL, &e));
    assert_string_not_equal(e.text, "");
    conf_unref(&c);
}

static void
malformed_templates_say_what_is_wrong(void **state)
{
    static const struct { const char *text, *want; } bad[] = {
        { "", "a path template starts with /" },
        { "a", "a path template starts with /" },
        { "/**/x", "** stands for the rest of the path and must be the last segment" },
        { "/a{b}", "\"a{b}\" mixes text and a placeholder; {name}, * and ** stand for whole "
        "segments" },
        { "/*.js", "\"*.js\" mixes text and a placeholder; {name}, * and ** stand for whole "
        "segments" },
        { "/{a}/{a}", "{a} stands twice; give the second another name" },
        { "/{}", "{} is no placeholder; a name is a letter or _, then letters, digits, _ and -" },
        { "/{1a}", "{1a} is no placeholder; a name is a letter or _, then letters, digits, _ and "
        "-" },
        { "/a?b", "a path has no ?; a query or fragment cannot be matched here" },
        { "/a b", "\"a b\" has a character that a path cannot have; write it percent-encoded, as "
        "%20 for a space" },
        { "/%zz", "\"%zz\" has a character that a path cannot have; write it percent-encoded, as "
        "%20 for a space" },
        { "/%4", "\"%4\" has a character that a path cannot have; write it percent-encoded, as %20 "
        "for a space" },
        { "/a/../b", "\"..\" is taken out of every path before it is matched; leave it out" },
        { "/%2e", "\"%2e\" is taken out of every path before it is matched; leave it out" },
    };
    static const char *const good[] = { "/", "/**", "/a//b/", "/{a}/*/**", "/a:b@c!$&'()+,;=~",
        "/...", "/%2F" };
    struct buf deep = { 0 };

    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++) {
        struct err e = { 0 };

        assert_int_equal(route_template_check(bad[i].text, &e), -1);
        assert_string_equal(e.text, bad[i].want);
    }
    for (size_t i = 0; i < NELEM(good); i++) {
        struct err e = { 0 };

        if (route_template_check(good[i], &e) == -1)
            fail_msg("%s: %s", good[i], e.text);
    }
    for (int i = 0; i < 65; i++)
        buf_addz(&deep, "/x");
    buf_addc(&deep, '\0');
    assert_int_equal(route_template_check(deep.p, NULL), -1);
    deep.p[deep.n - 3] = '\0';
    assert_int_equal(route_template_check(deep.p, NULL), 0);
    buf_free(&deep);
}

static void
add_name(void *arg, const struct route *r)
{
    struct buf *b = arg;

    buf_addz(b, b->n > 0 ? " " : "");
    buf_addz(b, r->name);
}

/* For a purge: what could have stored a GET, a QUERY or what is promised to be safe, whatever the
 * fields of the request were. */
static void
all_routes_that_could_have_stored_it_are_named(void **state)
{
    const struct conf_route routes[] = {
        { .path = "/**", .name = "any" }, { .path = "/a", .name = "post", .methods = LIST("POST") },
        { .path = "/a", .name = "x", .headers = LIST("X") },
        { .path = "/a", .name = "head", .methods = LIST("HEAD") },
        { .path = "/*", .name = "one", .methods = LIST("GET", "PUT") },
        { .path = "/a", .name = "h", .hosts = LIST("h") },
        { .path = "/a", .name = "hx", .hosts = LIST("h"), .headers = LIST("X") },
        { .path = "/{p}", .name = "wx", .hosts = LIST("*.w"), .headers = LIST("X") },
        { .path = "/s", .name = "both", .methods = LIST("GET", "QUERY") },
        { .path = "/s", .name = "search", .methods = LIST("POST"), .headers = LIST("Y"),
          .cache_methods = LIST("POST") },
        { .path = "/s/**", .name = "rest", .methods = LIST("GET", "QUERY", "PUT") },
    };
    static const struct { const char *host, *path, *names; } asks[] = {
        { "h", "/a", "hx h" }, { "i", "/a", "head x one any" },
        { "v.w", "/a", "wx head x one any" }, { "i", "/b", "one any" }, { "h", "/b/c", "any" },
        { NULL, "/a", "hx h wx head x one any" }, { NULL, "/b/c", "any" },
        { "i", "/s", "search both" },
    };
    struct route_table *t = table_of(routes, NELEM(routes));
    struct buf b = { 0 };

    (void)state;
    for (size_t i = 0; i < NELEM(asks); i++) {
        struct slice host = slice_of(asks[i].host);

        b.n = 0;
        route_each(t, asks[i].host != NULL ? &host : NULL, slice_of(asks[i].path), add_name, &b);
        if (!slice_eq(buf_slice(&b), slice_of(asks[i].names)))
            fail_msg("%s%s: %.*s", asks[i].host != NULL ? asks[i].host : "", asks[i].path,
                SLICE_ARG(buf_slice(&b)));
    }
    buf_free(&b);
    route_table_unref(&t);
}

static void
a_write_key_orders_the_writes_of_all_routes_of_its_origin(void **state)
{
    static const struct conf_origin one = { .id = "one" }, two = { .id = "two" };
    const struct conf_route routes[] = {
        { .path = "/a", .to = &one }, { .path = "/b", .to = &two },
        { .path = "/c", .to = &one, .write_key = "{header.x-device}" }, { .path = "/d", .to = &two },
        { .path = "/e", .to = &one },
    };
    struct route_table *t = table_of(routes, NELEM(routes));

    (void)state;
    for (size_t i = 0; i < NELEM(routes); i++)
        assert_int_equal(route_table_at(t, i)->write_spans, routes[i].to == &one);
    route_table_unref(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_compared_segment_by_segment),
        cmocka_unit_test(literals_compare_as_normalised_and_case_counts),
        cmocka_unit_test(hosts_go_before_paths),
        cmocka_unit_test(methods_and_fields_decide_between_equal_paths),
        cmocka_unit_test(what_the_best_path_does_not_take_the_next_best_does),
        cmocka_unit_test(placeholders_give_their_segments_as_received),
        cmocka_unit_test(a_table_knows_its_routes),
        cmocka_unit_test(a_bad_template_gives_no_table),
        cmocka_unit_test(malformed_templates_say_what_is_wrong),
        cmocka_unit_test(all_routes_that_could_have_stored_it_are_named),
        cmocka_unit_test(a_write_key_orders_the_writes_of_all_routes_of_its_origin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
