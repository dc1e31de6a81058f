/*
 * Keys: what they are made of, and that different requests never share one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "key/key.h"

/* ---- helpers ------------------------------------------------------------------------------- */

struct recipe {                         /* lists are NULL-terminated */
    const char *ignore[4], *keep[4], *fields[4], *cookies[4];
    bool sort, fold, no_host;
};

static struct pool *pool;

static int
make_pool(void **state)
{
    (void)state;
    pool = pool_new();
    return pool == NULL ? -1 : 0;
}

static int
free_pool(void **state)
{
    (void)state;
    pool_free(&pool);
    return 0;
}

static struct conf_strings
strings(const char *const *at)
{
    struct conf_strings s = { .at = at[0] != NULL ? pool_alloc(pool, 4 * sizeof *s.at) : NULL };

    for (; s.n < 4 && at[s.n] != NULL; s.n++)
        s.at[s.n] = at[s.n];
    return s;
}

static struct key_recipe *
recipe_of(const struct recipe *r)
{
    struct conf_route route = { .query_sort = r->sort, .query_ignore_case = r->fold,
        .key_host = !r->no_host };

    route.query_ignore = strings(r->ignore);
    route.query_keep = strings(r->keep);
    route.key_headers = strings(r->fields);
    route.key_cookies = strings(r->cookies);
    return key_recipe_new(&route, pool);
}

/* The key of a target "/path?query" as a request has it, normalised as a caller does. */
static void
make(const struct key_recipe *r, const char *lines, const char *host, const char *target,
    struct buf *b, struct key *k)
{
    struct http_field fields[32];
    struct http_head h = { .cap = 32, .fields = fields };
    struct buf text = { 0 }, t = { 0 }, hn = { 0 };
    struct slice path = slice_of(target), query = { NULL, 0 }, whole;
    const char *mark = strchr(target, '?');

    for (const char *p = lines; *p != '\0'; p++) {
        if (*p == '\n')
            buf_addc(&text, '\r');
        buf_addc(&text, *p);
    }
    if (text.n > 0)
        buf_addz(&text, "\r\n");
    assert_int_equal(http_parse_fields(text.p, text.n, &h), 0);
    if (mark != NULL) {
        path.n = (size_t)(mark - target);
        query = slice_of(mark + 1);
    }
    http_uri_normalise(&t, path, query);
    http_host_normalise(&hn, slice_of(host), false);
    whole = buf_slice(&t);
    mark = query.p != NULL ? memchr(whole.p, '?', whole.n) : NULL;
    path = mark != NULL ? (struct slice){ whole.p, (size_t)(mark - whole.p) } : whole;
    if (mark != NULL)
        query = (struct slice){ mark + 1, whole.n - path.n - 1 };
    assert_int_equal(key_make(r, &h, false, buf_slice(&hn), path, query, b, k), 0);
    buf_free(&text);
    buf_free(&t);
    buf_free(&hn);
}

/* ---- what a key is ------------------------------------------------------------------------- */

static void
a_plain_key_is_the_url_as_a_person_writes_it(void **state)
{
    struct buf b = { 0 };
    struct key k;

    (void)state;
    make(NULL, "", "Example.COM:80", "/a/%7eb/../c?x=1&y", &b, &k);
    assert_true(slice_eq(k.bytes, SLICE("http://example.com/a/c?x=1&y")));
    assert_int_equal(k.url_n, k.bytes.n);
    assert_int_equal(k.path_at, strlen("http://example.com"));
    assert_true(k.hash == k.url_hash);
    assert_true(k.hash == key_hash(k.bytes));
    buf_free(&b);
}

static void
a_key_allocates_nothing_once_its_buffer_has_room(void **state)
{
    struct buf b = { 0 };
    struct key k;
    char *was;

    (void)state;
    make(NULL, "", "h", "/a-rather-long-path-to-begin-with?q=1", &b, &k);
    was = b.p;
    for (int i = 0; i < 100; i++)
        make(NULL, "", "h", "/short", &b, &k);
    assert_ptr_equal(was, b.p);
    buf_free(&b);
}

static void
parts_come_behind_the_url_and_change_the_hash(void **state)
{
    struct recipe r = { .fields = { "X-Tenant" }, .cookies = { "sid" } };
    struct buf b = { 0 };
    struct key k;
    static const char want[] = "http://h/a\0" "4:acme.2:42.";

    (void)state;
    make(recipe_of(&r), "X-Tenant: acme\nCookie: a=1; sid=42; b=2", "h", "/a", &b, &k);
    assert_true(slice_eq(k.bytes, (struct slice){ want, sizeof want - 1 }));
    assert_int_equal(k.url_n, strlen("http://h/a"));
    assert_true(k.url_hash == key_hash(SLICE("http://h/a")));
    assert_true(k.hash != k.url_hash);
    buf_free(&b);
}

static void
the_callers_parts_come_last_and_leave_the_url(void **state)
{
    struct recipe r = { .fields = { "X-Tenant" } };
    static const char plain[] = "http://h/a\0h3:b.c.p0:.";
    static const char behind[] = "http://h/a\0" "4:acme.h3:b.c.";
    struct buf b = { 0 };
    struct key k;

    (void)state;
    make(NULL, "", "h", "/a", &b, &k);
    assert_int_equal(key_add(&k, 'h', SLICE("b.c"), &b), 0);
    assert_int_equal(key_add(&k, 'p', SLICE(""), &b), 0);
    assert_true(slice_eq(k.bytes, (struct slice){ plain, sizeof plain - 1 }));
    assert_int_equal(k.url_n, strlen("http://h/a"));
    assert_true(k.url_hash == key_hash(SLICE("http://h/a")) && k.hash == key_hash(k.bytes));
    make(recipe_of(&r), "X-Tenant: acme", "h", "/a", &b, &k);
    assert_int_equal(key_add(&k, 'h', SLICE("b.c"), &b), 0);
    assert_true(slice_eq(k.bytes, (struct slice){ behind, sizeof behind - 1 }));
    buf_free(&b);
}

/* ---- the query's rules --------------------------------------------------------------------- */

static const struct { struct recipe r; const char *target, *want; } query_cases[] = {
#define NO_RULES { .sort = false }
    { NO_RULES, "/a", "/a" }, { NO_RULES, "/a?", "/a?" }, { NO_RULES, "/a?b&&a", "/a?b&&a" },
    { { .ignore = { "utm_*" } }, "/a?utm_source=x&b=1", "/a?b=1" },
    { { .ignore = { "utm_*" } }, "/a?utm_source=x", "/a" },
    { { .ignore = { "utm_*" } }, "/a?", "/a?" },
    { { .ignore = { "utm_*" } }, "/a?b=utm_source", "/a?b=utm_source" },
    { { .ignore = { "utm_*" } }, "/a?b=2&b=1", "/a?b=2&b=1" },
    { { .ignore = { "a[]" } }, "/a?a%5B%5D=1&b=2", "/a?b=2" },     /* names are compared decoded */
    { { .ignore = { "a=b" } }, "/a?a%3Db=1&c", "/a?c" },
    { { .ignore = { "a", "b" } }, "/a?a=1&b=2&c=3&d", "/a?c=3&d" },
    { { .ignore = { "*" } }, "/a?a=1&b=2", "/a" },
    { { .keep = { "q" } }, "/a?q=1&r=2&q=3", "/a?q=1&q=3" },
    { { .keep = { "q" } }, "/a?r=2", "/a" }, { { .keep = { "q" } }, "/a?q", "/a?q" },
    { { .keep = { "q*" }, .ignore = { "qq" } }, "/a?q=1&qq=2&qr=3", "/a?q=1&qr=3" },
    { { .sort = true }, "/a?c=1&a=2&b=3", "/a?a=2&b=3&c=1" },
    { { .sort = true }, "/a?b=2&a=1&b=1", "/a?a=1&b=2&b=1" },       /* stable */
    { { .sort = true }, "/a?a=1&A=2", "/a?A=2&a=1" },
    { { .sort = true }, "/a?ab=1&a=2", "/a?a=2&ab=1" },
    { { .fold = true }, "/a?B=X%2fY", "/a?b=x%2Fy" },
    { { .fold = true }, "/A?B", "/A?b" },
    { { .fold = true, .sort = true }, "/a?B=1&a=2", "/a?a=2&b=1" },
};

static void
the_querys_rules_are_what_they_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(query_cases); i++) {
        struct buf b = { 0 };
        struct key k;

        make(recipe_of(&query_cases[i].r), "", "h", query_cases[i].target, &b, &k);
        if (!slice_eq((struct slice){ b.p + k.path_at, b.n - k.path_at },
            slice_of(query_cases[i].want)))
            fail_msg("%s: %.*s", query_cases[i].target, (int)b.n, b.p);
        buf_free(&b);
    }
}

static void
more_parameters_than_are_sorted_are_left_in_order(void **state)
{
    struct recipe r = { .sort = true, .ignore = { "x" } };
    struct buf target = { 0 }, b = { 0 };
    struct key k;

    (void)state;
    buf_addz(&target, "/?x=1");
    for (int i = 300; i > 0; i--)
        buf_printf(&target, "&%03d", i);
    buf_addc(&target, '\0');
    make(recipe_of(&r), "", "h", target.p, &b, &k);
    assert_true(slice_starts(k.bytes, SLICE("http://h/?300&299&")));
    assert_int_equal(k.bytes.n, strlen("http://h/?") + 300 * 4 - 1);
    buf_free(&target);
    buf_free(&b);
}

static void
without_host_all_hosts_share_a_key(void **state)
{
    struct recipe r = { .no_host = true };
    struct buf b = { 0 };
    struct key k;
    uint64_t hash;

    (void)state;
    make(recipe_of(&r), "", "one", "/a", &b, &k);
    assert_true(slice_starts(k.bytes, SLICE("http:///a")));
    assert_int_equal(k.url_n, strlen("http:///a"));
    assert_int_equal(k.path_at, 7);
    hash = k.hash;
    make(recipe_of(&r), "", "two", "/a", &b, &k);
    assert_true(k.hash == hash);
    buf_free(&b);
}

/* ---- who shares a key ---------------------------------------------------------------------- */

static const struct pair_case {
    struct recipe r;
    const char *lines_a, *lines_b;
    const char *a, *b;                  /* host and target, "h/path" */
    bool        same;
} pair_cases[] = {
#define PLAIN NO_RULES, "", ""
    { PLAIN, "h/a", "h/a", true }, { PLAIN, "h/a", "H/a", true }, { PLAIN, "h/a", "h:80/a", true },
    { PLAIN, "h/a", "h:81/a", false }, { PLAIN, "h/%61", "h/a", true },
    { PLAIN, "h/%2f", "h/%2F", true },
    { PLAIN, "h/./a", "h/a", true }, { PLAIN, "h/b/../a", "h/a", true },
    { PLAIN, "h/a", "h/A", false }, { PLAIN, "h/a", "h/a/", false },
    { PLAIN, "h/a", "h//a", false },
    { PLAIN, "h/a%2Fb", "h/a/b", false }, { PLAIN, "h/a%3Fb", "h/a?b", false },
    { PLAIN, "h/a?b", "h/a%3fb", false }, { PLAIN, "h/a?", "h/a", false },
    { PLAIN, "h/a?b", "h/a?B", false },
    { PLAIN, "h/a?b=1&c=2", "h/a?c=2&b=1", false }, { PLAIN, "h/a?b", "h/a?b=", false },
    { PLAIN, "h/a?b%26c", "h/a?b&c", false }, { PLAIN, "h/a+b", "h/a%20b", false },
    { PLAIN, "h/a;x", "h/a", false }, { PLAIN, "h/%00", "h/", false },
    { PLAIN, "ha/b", "h/ab", false },
    { { .sort = true }, "", "", "h/a?b=1&c=2", "h/a?c=2&b=1", true },
    { { .sort = true }, "", "", "h/a?b=1&b=2", "h/a?b=2&b=1", false },
    { { .fold = true }, "", "", "h/a?b", "h/a?B", true },
    { { .fields = { "X" } }, "X: 1", "X: 1", "h/a", "h/a", true },
    { { .fields = { "X" } }, "X: 1", "X: 2", "h/a", "h/a", false },
    { { .fields = { "X" } }, "X: 1", "", "h/a", "h/a", false },
    { { .fields = { "X" } }, "X:", "", "h/a", "h/a", false },
    { { .fields = { "X" } }, "X: 1\nX: 2", "X: 1, 2", "h/a", "h/a", true },     /* RFC 9110 5.3 */
    { { .fields = { "X" } }, "X: 1\nY: 1", "X: 1\nY: 2", "h/a", "h/a", true },
    { { .fields = { "Accept" } }, "Accept: a", "Accept: b", "h/a", "h/a", false },
    { { .fields = { "X", "Y" } }, "X: 1\nY: 2", "X: 2\nY: 1", "h/a", "h/a", false },
    { { .fields = { "X", "Y" } }, "X: 1", "Y: 1", "h/a", "h/a", false },
    { { .fields = { "X", "Y" } }, "X: 1.1:2", "X: 1\nY: 2", "h/a", "h/a", false },
    { { .cookies = { "s" } }, "Cookie: s=1", "Cookie: a=2; s=1", "h/a", "h/a", true },
    { { .cookies = { "s" } }, "Cookie: s=1", "Cookie: s=2", "h/a", "h/a", false },
    { { .cookies = { "s" } }, "Cookie: s=1", "Cookie: S=1", "h/a", "h/a", false },
    { { .cookies = { "s" } }, "Cookie: s=1", "Cookie: ss=1", "h/a", "h/a", false },
    { { .cookies = { "s" } }, "Cookie: s=", "Cookie: t=1", "h/a", "h/a", false },
    { { .cookies = { "s" } }, "Cookie: s=a=b", "Cookie: s=a", "h/a", "h/a", false },
    { { .cookies = { "s" } }, "Cookie: s=1; s=2", "Cookie: s=2; s=1", "h/a", "h/a", false },
    { { .cookies = { "s" } }, "Cookie: s=1; s=2", "Cookie: s=1\nCookie: s=2", "h/a", "h/a", true },
    { { .cookies = { "s" } }, "Cookie: s=1", "Cookie:  s = 1 ;", "h/a", "h/a", true },
    { { .cookies = { "s", "t" } }, "Cookie: s=1", "Cookie: t=1", "h/a", "h/a", false },
    { { .fields = { "X" }, .cookies = { "s" } }, "X: 1", "Cookie: s=1", "h/a", "h/a", false },
};

static void
two_requests_share_a_key_only_where_they_may(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(pair_cases); i++) {
        const struct pair_case *c = &pair_cases[i];
        struct key_recipe *r = recipe_of(&c->r);
        struct buf a = { 0 }, b = { 0 };
        char host[16];
        struct key ka, kb;

        snprintf(host, sizeof host, "%.*s", (int)strcspn(c->a, "/"), c->a);
        make(r, c->lines_a, host, strchr(c->a, '/'), &a, &ka);
        snprintf(host, sizeof host, "%.*s", (int)strcspn(c->b, "/"), c->b);
        make(r, c->lines_b, host, strchr(c->b, '/'), &b, &kb);
        if (slice_eq(ka.bytes, kb.bytes) != c->same || (ka.hash == kb.hash) != c->same)
            fail_msg("%s %s | %s %s", c->a, c->lines_a, c->b, c->lines_b);
        buf_free(&a);
        buf_free(&b);
    }
}

/* The property behind the table, over drawn values: parts differ exactly when keys do. */
static void
no_two_lists_of_parts_run_together(void **state)
{
    static const char *const values[] =
        { NULL, "", "1", "1:", "0:", ".", "1.1:", "1:1.", "11", "1:1" };
    struct recipe recipe = { .fields = { "X", "Y", "Z" } };
    struct key_recipe *r = recipe_of(&recipe);
    size_t n = NELEM(values), all = n * n * n;
    struct slice *keys = calloc(all, sizeof *keys);

    (void)state;
    assert_non_null(keys);
    for (size_t i = 0; i < all; i++) {
        const char *v[3] = { values[i % n], values[i / n % n], values[i / n / n] };
        struct buf lines = { 0 }, b = { 0 };
        struct key k;

        for (int j = 0; j < 3; j++)
            if (v[j] != NULL)
                buf_printf(&lines, "%s%c: %s", lines.n > 0 ? "\n" : "", 'X' + j, v[j]);
        buf_addc(&lines, '\0');
        make(r, lines.p, "h", "/a", &b, &k);
        keys[i] = pool_slice(pool, k.bytes);
        for (size_t j = 0; j < i; j++)
            assert_false(slice_eq(keys[i], keys[j]));
        buf_free(&lines);
        buf_free(&b);
    }
    free(keys);
}

/* ---- by URL -------------------------------------------------------------------------------- */

static void
a_url_has_the_key_of_its_get(void **state)
{
    static const char *const targets[] =
        { "/", "/a", "/a?", "/a?b=1&utm_x=2&a=3", "/%7Ea/./b", "/?x" };
    struct recipe r = { .ignore = { "utm_*" }, .sort = true };
    struct buf a = { 0 }, b = { 0 };
    struct key ka, kb;
    char url[64];

    (void)state;
    for (size_t i = 0; i < NELEM(targets); i++) {
        snprintf(url, sizeof url, "http://H:80%s", targets[i]);
        make(recipe_of(&r), "", "h", targets[i], &a, &ka);
        assert_int_equal(key_of_url(recipe_of(&r), slice_of(url), &b, &kb), 0);
        assert_true(slice_eq(ka.bytes, kb.bytes));
        assert_true(ka.hash == kb.hash && ka.path_at == kb.path_at && ka.url_n == kb.url_n);
    }
    assert_int_equal(key_of_url(NULL, SLICE("https://h/a"), &b, &kb), 0);
    assert_true(slice_eq(kb.bytes, SLICE("https://h/a")));
    assert_int_equal(key_of_url(NULL, SLICE("http://h"), &b, &kb), 0);
    assert_true(slice_eq(kb.bytes, SLICE("http://h/")));
    assert_int_equal(key_of_url(NULL, SLICE("/a"), &b, &kb), -1);
    assert_int_equal(key_of_url(NULL, SLICE("ftp://h/a"), &b, &kb), -1);
    assert_int_equal(key_of_url(NULL, SLICE(""), &b, &kb), -1);
    buf_free(&a);
    buf_free(&b);
}

static void
parts_do_not_change_the_urls_hash(void **state)
{
    struct recipe r = { .fields = { "X" } };
    struct buf a = { 0 }, b = { 0 };
    struct key ka, kb;

    (void)state;
    make(recipe_of(&r), "X: 1", "h", "/a?b", &a, &ka);
    assert_int_equal(key_of_url(recipe_of(&r), SLICE("http://h/a?b"), &b, &kb), 0);
    assert_true(ka.url_hash == kb.url_hash && kb.hash == kb.url_hash && ka.url_n == kb.url_n);
    buf_free(&a);
    buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_key_is_the_url_as_a_person_writes_it),
        cmocka_unit_test(a_key_allocates_nothing_once_its_buffer_has_room),
        cmocka_unit_test(parts_come_behind_the_url_and_change_the_hash),
        cmocka_unit_test(the_callers_parts_come_last_and_leave_the_url),
        cmocka_unit_test(the_querys_rules_are_what_they_say),
        cmocka_unit_test(more_parameters_than_are_sorted_are_left_in_order),
        cmocka_unit_test(without_host_all_hosts_share_a_key),
        cmocka_unit_test(two_requests_share_a_key_only_where_they_may),
        cmocka_unit_test(no_two_lists_of_parts_run_together),
        cmocka_unit_test(a_url_has_the_key_of_its_get),
        cmocka_unit_test(parts_do_not_change_the_urls_hash),
    };

    return cmocka_run_group_tests(tests, make_pool, free_pool);
}
