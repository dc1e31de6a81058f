/*
 * The trie answers as the rule of specificity read literally: of all routes that take a request the
 * one that compares best. Random routes and requests, from fixed seeds.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "route/route.h"

#define ROUTES 40

static uint32_t seed;

static unsigned
dice(unsigned n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 16) % n;
}

static const char *
random_template(struct pool *p)
{
    static const char *const segments[] = { "a", "b", "*", "{x}", "" };
    struct buf b = { 0 };
    unsigned n = dice(4);
    bool named = false;
    char *out;

    for (unsigned i = 0; i < n; i++) {
        const char *s = segments[dice(i + 1 == n ? 5 : 4)];

        if (s[0] == '{' && named)
            s = "*";
        named |= s[0] == '{';
        buf_printf(&b, "/%s", s);
    }
    if (n == 0 || dice(4) == 0)
        buf_addz(&b, "/**");
    out = pool_dup(p, b.p, b.n);
    buf_free(&b);
    return out;
}

static void
random_route(struct conf_route *r, struct pool *p)
{
    static const char *hosts[] = { "x.h", "*.h", "*.x.h", "h" };
    static const char *methods[] = { "GET", "PUT", "BREW" };
    static const char *fields[] = { "A", "Accept" };

    *r = (struct conf_route){ .path = random_template(p), .ttl_ms = CONF_UNSET,
        .force_ttl_ms = CONF_UNSET, .swr_ms = CONF_UNSET, .sie_ms = CONF_UNSET,
        .max_object = CONF_UNSET, .key_host = true };
    r->name = r->path;
    if (dice(3) == 0)
        r->hosts = (struct conf_strings){ hosts + dice(4), 1 };
    if (dice(3) == 0)
        r->methods = (struct conf_strings){ methods + dice(3), 1 };
    if (dice(4) == 0)
        r->headers = (struct conf_strings){ fields + dice(2), 1 };
}

/* Up to ROUTES routes of which no two conflict. */
static struct conf *
random_conf(void)
{
    struct pool *p = pool_new();
    struct conf *c = pool_zalloc(p, sizeof *c);

    c->magic = CONF_MAGIC;
    atomic_init(&c->refs, 1);
    c->pool = p;
    c->routes = pool_alloc(p, ROUTES * sizeof *c->routes);
    for (int i = 0; i < ROUTES; i++) {
        struct conf_route *r = &c->routes[c->nroutes];
        bool conflict = false;

        random_route(r, p);
        for (size_t k = 0; k < c->nroutes; k++)
            conflict |= route_conf_conflict(r, &c->routes[k]);
        c->nroutes += !conflict;
    }
    return c;
}

/* ---- the rule, read literally ------------------------------------------------------------- */

struct request { const char *host, *path, *method; bool a, accept; };

static bool
host_taken(const struct conf_route *r, const char *host)
{
    const char *want = r->hosts.n > 0 ? r->hosts.at[0] : NULL;
    size_t n = strlen(host);

    if (want == NULL || strcmp(want, host) == 0)
        return true;
    return want[0] == '*' && n > strlen(want + 1) &&
        strcmp(host + n - strlen(want + 1), want + 1) == 0;
}

static bool
path_taken(const char *template, const char *path)
{
    struct slice t = slice_of(template + 1), p = slice_of(path + 1), ts, ps;

    while (slice_cut(&t, '/', &ts)) {
        if (slice_eq(ts, SLICE("**")))
            return true;
        if (!slice_cut(&p, '/', &ps))
            return false;
        if (ts.n > 0 && (ts.p[0] == '*' || ts.p[0] == '{') ? ps.n == 0 : !slice_eq(ts, ps))
            return false;
    }
    return p.p == NULL;
}

static bool
taken(const struct conf_route *r, const struct request *q)
{
    return host_taken(r, q->host) && path_taken(r->path, q->path) &&
        (r->methods.n == 0 || strcmp(r->methods.at[0], q->method) == 0 ||
            (strcmp(r->methods.at[0], "GET") == 0 && strcmp(q->method, "HEAD") == 0)) &&
        (r->headers.n == 0 || (strcmp(r->headers.at[0], "A") == 0 ? q->a : q->accept));
}

static int
host_rank(const struct conf_route *r)
{
    if (r->hosts.n == 0)
        return 1000;
    return r->hosts.at[0][0] == '*' ? 500 - (int)strlen(r->hosts.at[0]) : 0;
}

static int
segment_rank(struct slice s)
{
    return s.p == NULL ? 0 : slice_eq(s, SLICE("**")) ? 3 : s.n > 0 &&
        (s.p[0] == '*' || s.p[0] == '{') ? 2 : 1;
}

static int
path_compare(const char *a, const char *b)
{
    struct slice x = slice_of(a + 1), y = slice_of(b + 1), xs, ys;

    for (;;) {
        bool more = slice_cut(&x, '/', &xs), other = slice_cut(&y, '/', &ys);

        if (!more)
            xs.p = NULL;
        if (!other)
            ys.p = NULL;
        if (segment_rank(xs) != segment_rank(ys))
            return segment_rank(xs) - segment_rank(ys);
        if (!more || !other)
            return 0;
    }
}

static int
compare(const struct conf_route *a, const struct conf_route *b)
{
    int c = host_rank(a) - host_rank(b);

    if (c == 0)
        c = path_compare(a->path, b->path);
    if (c == 0)
        c = (a->methods.n == 0) - (b->methods.n == 0);
    if (c == 0)
        c = (a->headers.n == 0) - (b->headers.n == 0);
    return c != 0 || a->headers.n == 0 ? c : strcasecmp(a->headers.at[0], b->headers.at[0]);
}

static const struct conf_route *
expected(const struct conf *c, const struct request *q)
{
    const struct conf_route *best = NULL;

    for (size_t i = 0; i < c->nroutes; i++)
        if (taken(&c->routes[i], q) && (best == NULL || compare(&c->routes[i], best) < 0))
            best = &c->routes[i];
    return best;
}

static const struct conf_route *
actual(const struct route_table *t, const struct request *q, struct route_match *m)
{
    struct http_field fields[4];
    struct http_head h = { .fields = fields, .cap = 4 };
    const struct route *r;
    char lines[64];
    int n = snprintf(lines, sizeof lines, "%s%s", q->a ? "a: 1\r\n" : "",
        q->accept ? "Accept: x\r\n" : "");

    assert_int_equal(http_parse_fields(lines, (size_t)n, &h), 0);
    h.method_name = slice_of(q->method);
    h.method = http_method(h.method_name);
    r = route_match(t, slice_of(q->host), slice_of(q->path), &h, m);
    return r != NULL ? r->conf : NULL;
}

static void
the_trie_answers_as_the_rule_does(void **state)
{
    static const char *const hosts[] = { "h", "x.h", "y.h", "z.x.h", "other" };
    static const char *const methods[] = { "GET", "HEAD", "PUT", "BREW", "POST" };
    static const char *const segments[] = { "a", "b", "c", "" };
    unsigned found = 0;

    (void)state;
    for (seed = 1; seed < 200; seed++) {
        uint32_t own = seed;
        struct conf *c = random_conf();
        struct route_table *t = route_table_new(c, NULL, NULL);

        assert_non_null(t);
        for (int i = 0; i < 500; i++) {
            char path[16] = "/";
            struct request q = { hosts[dice(5)], path, methods[dice(5)], dice(2), dice(2) };
            struct route_match m;

            for (unsigned k = 0, n = dice(5); k < n; k++)
                snprintf(path + strlen(path), sizeof path - strlen(path), "%s%s", k > 0 ? "/" : "",
                    segments[dice(4)]);
            if (actual(t, &q, &m) != expected(c, &q))
                fail_msg("seed %u: %s %s%s", own, q.method, q.host, q.path);
            found += m.route != NULL;
        }
        route_table_unref(&t);
        conf_unref(&c);
        seed = own;
    }
    assert_true(found > 10000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_trie_answers_as_the_rule_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
