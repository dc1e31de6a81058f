/*
 * Items as operators write them: what they become, what is not understood, and that then nothing is
 * purged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "purge/purge.h"
#include "stats/stats.h"

#define ITEM(is, what) { .kind = is, .text = what }

static struct store *s;
static struct route_table *t;

static const char *const purges[] =
    { "recruiter:{request.body.id}", "/list?c={id}", "http://evil/{id}" };
static const char *const ignored[] = { "utm_*" };
static const struct conf_route routes[] = {
    { .path = "/**" },
    { .path = "/api/recruiters/{id}", .name = "recruiters", .purge = { (const char **)purges, 1 } },
    { .path = "/api/cities/{id}", .name = "cities", .purge = { (const char **)purges + 1, 2 } },
    { .path = "/list", .name = "list", .query_ignore = { (const char **)ignored, 1 } },
};

static struct route_table *
table_of(const struct conf_route *from, size_t n)
{
    struct pool *p = pool_new();
    struct conf *c = pool_zalloc(p, sizeof *c);
    struct route_table *made;
    struct err e = { 0 };

    c->magic = CONF_MAGIC;
    atomic_init(&c->refs, 1);
    c->pool = p;
    c->routes = pool_alloc(p, n * sizeof *from);
    memcpy(c->routes, from, n * sizeof *from);
    c->nroutes = n;
    for (size_t i = 0; i < c->nroutes; i++) {
        struct conf_route *r = &c->routes[i];

        r->index = (unsigned)i;
        if (r->name == NULL)
            r->name = r->path;
        r->ttl_ms = r->force_ttl_ms = r->swr_ms = r->sie_ms = r->max_object = CONF_UNSET;
        r->key_host = true;
    }
    made = route_table_new(c, NULL, &e);
    conf_unref(&c);
    return made;
}

static int
start(void **state)
{
    struct err e = { 0 };

    (void)state;
    t = table_of(routes, NELEM(routes));
    s = store_new(16 << 20, 8, &e);
    return t != NULL && s != NULL ? 0 : -1;
}

static int
stop(void **state)
{
    (void)state;
    store_free(&s);
    route_table_unref(&t);
    return 0;
}

static void
put(const char *url, const char *tag)
{
    struct key k = { .bytes = slice_of(url), .url_n = (uint32_t)strlen(url),
        .hash = key_hash(slice_of(url)), .url_hash = key_hash(slice_of(url)) };
    struct slice tags[1] = { slice_of(tag) };
    struct store_parts p = { .key = &k, .head = SLICE("HTTP/1.1 200 OK\r\n"), .status_n = 17,
        .stamp = store_stamp(s), .tags = tags, .ntags = tag != NULL };
    const struct route *r = route_table_find(t, SLICE("cities"));

    if (strstr(url, "cities") != NULL)
        p.route_id = r->id;
    p.body = body_new(1);
    body_append(p.body, SLICE("b"));
    assert_int_equal(store_put(s, &p, NULL), STORE_STORED);
    body_unref(&p.body);
}

static bool
has(const char *url)
{
    struct key k = { .bytes = slice_of(url), .url_n = (uint32_t)strlen(url),
        .hash = key_hash(slice_of(url)), .url_hash = key_hash(slice_of(url)) };
    struct http_head h = { .method = HTTP_GET };
    struct object *o;
    enum store_answer a;
    bool soft;

    rcu_begin();
    a = store_get(s, &k, &h, 0, &o, &soft);
    rcu_end();
    return a == STORE_HIT && !soft;
}

static int
run(enum store_purge_kind kind, const char *text, bool dry, struct purge_result *r, struct err *e)
{
    struct purge_item item = { .kind = kind, .text = slice_of(text) };
    size_t bad;

    return purge_run(s, t, &item, 1, (struct purge_how){ .dry = dry }, r, &bad, e);
}

static void
each_item_purges_what_a_person_means(void **state)
{
    static const struct {
        enum store_purge_kind kind;
        const char           *text, *stored, *spared;
    } cases[] = {
        { STORE_PURGE_URL, "HTTP://H:80/a/../b%7e", "http://h/b~", "http://h/a" },
        { STORE_PURGE_URL, "https://h:8443/x", "https://h:8443/x", "https://h/x" },
        { STORE_PURGE_URL, "/b", "http://h/b", "http://h/b?x" },
        { STORE_PURGE_URL, "/b*?x", "http://h/b*?x", "http://h/bb?x" },
        { STORE_PURGE_URL, "http://h/list?utm_a=1&c=2", "http://h/list?c=2", "http://h/list" },
        { STORE_PURGE_URL, "/list?utm_a=1&c=2", "http://h/list?c=2", "http://h/list" },
        { STORE_PURGE_PREFIX, "http://H/a", "http://h/ab?c", "http://i/ab" },
        { STORE_PURGE_PREFIX, "http://h", "http://h/ab?c", "http://hh/" },
        { STORE_PURGE_PREFIX, "/a", "http://i/ab", "http://i/b/a" },
        { STORE_PURGE_PATTERN, "/*/c", "http://i/b/c", "http://i/b/d" },
        { STORE_PURGE_PATTERN, "/z%7Ey*%c3%a9", "http://h/z~y/%C3%A9", "http://h/z%7fy/%C3%A9" },
        { STORE_PURGE_PATTERN, "/a?b/%2e%2E/c", "http://h/a?b/../c", "http://h/c" },
        { STORE_PURGE_PATTERN, "/\\*\\?*", "http://h/*?a", "http://h/a?a" },
        { STORE_PURGE_PATTERN, "/a\\\\*", "http://h/a%5Cb", "http://h/a*" },
        { STORE_PURGE_PATTERN, "/a\\b\\", "http://h/a%5Cb%5C", "http://h/ab" },
        { STORE_PURGE_PATTERN, "/a|b\\{*", "http://h/a%7Cb%5C%7Bc", "http://h/a|b" },
        { STORE_PURGE_PREFIX, "/x|y", "http://h/x%7Cyz", "http://h/x" },
        { STORE_PURGE_PATTERN, "/*\\*\\*", "http://h/a**", "http://h/a*b" },
        { STORE_PURGE_ROUTE, "cities", "http://h/cities", "http://h/b" },
        { STORE_PURGE_TAG, "tag", "http://h/t", "http://h/u" },
    };
    struct purge_result r;
    struct err e;

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        put(cases[i].stored, cases[i].kind == STORE_PURGE_TAG ? "tag" : NULL);
        put(cases[i].spared, NULL);
        assert_int_equal(run(cases[i].kind, cases[i].text, true, &r, &e), 0);
        assert_true(r.exact);
        assert_int_equal(r.objects, 1);
        assert_true(has(cases[i].stored));
        assert_int_equal(run(cases[i].kind, cases[i].text, false, &r, &e), 0);
        if (has(cases[i].stored) || !has(cases[i].spared))
            fail_msg("%s", cases[i].text);
        assert_int_equal(run(STORE_PURGE_ALL, "", false, &r, &e), 0);
        assert_false(has(cases[i].spared));
    }
}

static void
put_grouped(const char *url, uint32_t path_at)
{
    struct key k = { .bytes = slice_of(url), .url_n = (uint32_t)strlen(url), .path_at = path_at,
        .hash = key_hash(slice_of(url)), .url_hash = key_hash(slice_of(url)) };
    char text[64];
    struct slice group = { text, path_at + 2 };
    struct store_parts p = { .key = &k, .head = SLICE("HTTP/1.1 200 OK\r\n"), .status_n = 17,
        .body = body_new(0), .stamp = store_stamp(s), .groups = &group, .ngroups = 1 };

    memcpy(text, url, path_at);
    memcpy(text + path_at, "\0g", 2);
    assert_int_equal(store_put(s, &p, NULL), STORE_STORED);
    body_unref(&p.body);
}

/* Stored for one host, for another port of it, for all hosts, by https. */
static void
a_group_is_of_an_origin_or_of_all(void **state)
{
    static const struct { struct slice origin; bool goes[4]; } grouped[] = {
        { SLICE("http://h"), { true, false, true, false } },
        { SLICE("HTTP://H:80/"), { true, false, true, false } },
        { SLICE("http://h:81"), { false, true, true, false } },
        { SLICE("https://h"), { false, false, false, true } },
        { SLICE("http://i"), { false, false, true, false } },
        { SLICE(""), { true, true, true, true } },
    };
    static const struct { const char *url; uint32_t path_at; } stored[] = {
        { "http://h/a", 8 }, { "http://h:81/a", 11 }, { "http:///a", 7 }, { "https://h/a", 9 },
    };
    struct purge_result r;
    struct err e;
    size_t bad;

    (void)state;
    for (size_t i = 0; i < NELEM(grouped); i++) {
        struct purge_item item = { STORE_PURGE_GROUP, SLICE("g"), grouped[i].origin };

        for (size_t k = 0; k < NELEM(stored); k++)
            put_grouped(stored[k].url, stored[k].path_at);
        assert_int_equal(purge_run(s, t, &item, 1, (struct purge_how){ 0 }, &r, &bad, &e), 0);
        for (size_t k = 0; k < NELEM(stored); k++)
            if (has(stored[k].url) == grouped[i].goes[k])
                fail_msg("%.*s: %s", SLICE_ARG(grouped[i].origin), stored[k].url);
    }
}

static void
one_item_that_is_not_understood_purges_nothing(void **state)
{
    static const struct purge_item bad[] = {
        ITEM(STORE_PURGE_URL, SLICE("ftp://h/")), ITEM(STORE_PURGE_URL, SLICE("")),
        ITEM(STORE_PURGE_URL, SLICE("h/a")), ITEM(STORE_PURGE_PREFIX, SLICE("http:///a b")),
        ITEM(STORE_PURGE_PATTERN, SLICE("http://h/*")), ITEM(STORE_PURGE_TAG, SLICE("")),
        ITEM(STORE_PURGE_ROUTE, SLICE("citys")), ITEM(STORE_PURGE_PATH, SLICE("/a")),
        { STORE_PURGE_GROUP, SLICE("g"), SLICE("h") },
        { STORE_PURGE_GROUP, SLICE("g"), SLICE("http://h/a") },
        { STORE_PURGE_GROUP, SLICE("g"), SLICE("http://h/?") },
    };
    struct purge_result r[2];
    struct err e;
    size_t at;

    (void)state;
    put("http://h/a", NULL);
    for (size_t i = 0; i < NELEM(bad); i++) {
        struct purge_item items[] = { ITEM(STORE_PURGE_ALL, { 0 }), bad[i] };

        assert_int_equal(purge_run(s, t, items, 2, (struct purge_how){ 0 }, r, &at, &e), -1);
        assert_int_equal(at, 1);
        assert_true(has("http://h/a"));
    }
    run(STORE_PURGE_ROUTE, "citys", false, r, &e);
    assert_string_equal(e.text, "there is no route \"citys\"; the nearest is \"cities\"");
    run(STORE_PURGE_ROUTE, "babies", false, r, &e);
    assert_string_equal(e.text, "there is no route \"babies\"");
}

static void
a_write_purges_its_target_and_where_its_response_points(void **state)
{
    struct http_field fields[4];
    struct http_head h = { .fields = fields, .cap = 4 };
    const char *text = "Location: /new\r\nContent-Location: http://h/canon\r\n"
        "Location: http://evil/x\r\n";

    (void)state;
    assert_int_equal(http_parse_fields(text, strlen(text), &h), 0);
    put("http://h/a", NULL);
    put("http://h/new", NULL);
    put("http://h/canon", NULL);
    put("http://evil/x", NULL);
    purge_target(s, t, SLICE("http://h/a"), NULL);
    assert_false(has("http://h/a"));
    assert_true(has("http://h/new"));
    purge_target(s, t, SLICE("http://h/a"), &h);
    assert_false(has("http://h/new"));
    assert_false(has("http://h/canon"));
    assert_true(has("http://evil/x"));
}

static void
templates_give_tags_and_paths_of_the_same_origin(void **state)
{
    const struct route *r = route_table_find(t, SLICE("cities"));
    struct slice value = SLICE("7");
    struct key_params params = { r->params, &value, 1 };
    struct key_facts f = { .path = &params };

    (void)state;
    put("http://h/list?c=7", NULL);
    put("http://evil/7", NULL);
    put("http://h/list?c=8", NULL);
    purge_templates(s, t, r, &f, SLICE("http://h/w"));
    assert_false(has("http://h/list?c=7"));
    assert_true(has("http://evil/7"));
    assert_true(has("http://h/list?c=8"));
}

static void
a_template_without_its_body_purges_the_route(void **state)
{
    const struct route *r = route_table_find(t, SLICE("recruiters"));
    struct key_facts f = { .request_body = SLICE("{\"id\": 5}") };

    (void)state;
    put("http://h/a", "recruiter:5");
    put("http://h/cities", NULL);
    purge_templates(s, t, r, &f, SLICE("http://h/api/cities/7"));
    assert_false(has("http://h/a"));
    assert_int_equal(stats_counter(STATS_purge_widened), 0);
    f.request_body.p = NULL;
    purge_templates(s, t, r, &f, SLICE("http://h/api/cities/7"));
    assert_false(has("http://h/cities"));    /* by the route that stores the target */
    assert_int_equal(stats_counter(STATS_purge_widened), 1);
    put("http://h/cities", NULL);
    f.request_body = SLICE("{\"Id\": 5}");
    purge_templates(s, t, r, &f, SLICE("http://h/api/cities/7"));
    assert_false(has("http://h/cities"));
    assert_int_equal(stats_counter(STATS_purge_widened), 2);
}

/* A table of n routes for one path that fields select, each with a parameter of its own to
 * ignore. */
static struct route_table *
routes_by_fields(unsigned n)
{
    static char names[40][16], params[40][16];
    static const char *lists[40][2];
    struct conf_route many[41] = { { .path = "/**" } };

    assert_true(n <= 40);
    for (unsigned i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "x-f%u", i);
        snprintf(params[i], sizeof params[i], "p%u", i);
        lists[i][0] = names[i];
        lists[i][1] = params[i];
        many[i + 1] = (struct conf_route){ .path = "/a", .name = names[i],
            .headers = { &lists[i][0], 1 }, .query_ignore = { &lists[i][1], 1 } };
    }
    return table_of(many, n + 1);
}

/* "http://h/a?p0=1&p1=1..." of n parameters without the one at `left_out`. */
static const char *
url_of(struct buf *b, unsigned n, unsigned left_out)
{
    b->n = 0;
    buf_addz(b, "http://h/a");
    for (unsigned i = 0; i < n; i++)
        if (i != left_out)
            buf_printf(b, "%cp%u=1", memchr(b->p, '?', b->n) == NULL ? '?' : '&', i);
    buf_addc(b, '\0');
    assert_false(b->failed);
    return b->p;
}

static void
a_url_goes_in_all_its_forms_and_too_many_forms_are_its_path(void **state)
{
    static const unsigned sizes[] = { 2, 31, 32, 40 };
    struct route_table *was = t;
    struct purge_result r;
    struct buf b = { 0 };
    struct err e;

    (void)state;
    for (size_t i = 0; i < 2 * NELEM(sizes); i++) {
        unsigned n = sizes[i / 2], over = n > 31;       /* with the URL itself 32, and no more */

        t = routes_by_fields(n);
        for (unsigned out = 0; out <= n; out++)
            put(url_of(&b, n, out), NULL);
        put("http://h/a?q=1", NULL);
        put("http://h/b?p1=1", NULL);
        url_of(&b, n, n);
        assert_int_equal(run(STORE_PURGE_URL, b.p + (i % 2) * strlen("http://h"), true, &r, &e), 0);
        assert_int_equal(r.objects, n + 1 + over);
        assert_int_equal(run(STORE_PURGE_URL, b.p + (i % 2) * strlen("http://h"), false, &r, &e),
            0);
        for (unsigned out = 0; out <= n; out++)
            assert_false(has(url_of(&b, n, out)));
        assert_true(has("http://h/b?p1=1"));
        assert_true(has("http://h/a?q=1") == !over);
        route_table_unref(&t);
    }
    buf_free(&b);
    t = was;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_item_purges_what_a_person_means),
        TEST(a_group_is_of_an_origin_or_of_all),
        TEST(one_item_that_is_not_understood_purges_nothing),
        TEST(a_write_purges_its_target_and_where_its_response_points),
        TEST(templates_give_tags_and_paths_of_the_same_origin),
        TEST(a_template_without_its_body_purges_the_route),
        TEST(a_url_goes_in_all_its_forms_and_too_many_forms_are_its_path),
    };
    int failed;

    if (stats_init(NULL) == -1)
        return 1;
    rcu_enter_thread();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rcu_leave_thread();
    stats_fini();
    return failed;
}
