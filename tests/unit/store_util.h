/*
 * What the tests of the store share: keys, requests and responses in a line each.
 */
#ifndef WEIR_TEST_STORE_UTIL_H
#define WEIR_TEST_STORE_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "stats/stats.h"
#include "store/inside.h"

/* "http://h/a" alone, or with parts behind a '|': "http://h/a|cookie". */
struct test_key { struct key k; char bytes[256]; };

static inline struct key *
key_fill(struct test_key *t, const char *text)
{
    const char *bar = strchr(text, '|');
    size_t n = strlen(text);

    memcpy(t->bytes, text, n);
    if (bar != NULL)
        t->bytes[bar - text] = '\0';
    t->k.bytes = (struct slice){ t->bytes, n };
    t->k.url_n = (uint32_t)(bar != NULL ? (size_t)(bar - text) : n);
    t->k.hash = key_hash(t->k.bytes);
    t->k.url_hash = key_hash((struct slice){ t->bytes, t->k.url_n });
    return &t->k;
}

/* A request with at most one field that a response may vary by. */
struct test_request { struct http_head h; struct http_field f[2]; };

static inline const struct http_head *
request_fill(struct test_request *r, const char *language)
{
    char fields[128];
    static _Thread_local char kept[4][128];
    static _Thread_local unsigned turn;
    char *p = kept[turn++ % 4];

    r->h = (struct http_head){ .method = HTTP_GET, .fields = r->f, .cap = 2 };
    if (language == NULL)
        return &r->h;
    snprintf(fields, sizeof fields, "Accept-Language: %s\r\n", language);
    strcpy(p, fields);
    assert_int_equal(http_parse_fields(p, strlen(p), &r->h), 0);
    return &r->h;
}

#define HEAD_TEXT "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

struct test_put {
    const char *key, *language, *body, *tags[4];
    struct slice groups[4];
    uint64_t stamp, route_id;   /* stamp 0: now */
    size_t body_n;              /* instead of body: so many bytes */
    int64_t request_ms, response_ms, date_ms;
    const char *head;           /* instead of HEAD_TEXT */
};

static inline enum store_result
put_out(struct store *s, struct test_put a, struct object **out)
{
    struct test_key k;
    struct test_request rq;
    struct buf variant = { 0 };
    struct slice tags[4];
    struct store_parts p = { .key = key_fill(&k, a.key), .status_n = 17,
        .head = slice_of(a.head != NULL ? a.head : HEAD_TEXT),
        .stamp = a.stamp != 0 ? a.stamp : store_stamp(s), .route_id = a.route_id, .tags = tags,
        .request_ms = a.request_ms, .meta.response_ms = a.response_ms, .meta.date_ms = a.date_ms };
    enum store_result r;

    while (p.ntags < 4 && a.tags[p.ntags] != NULL) {
        tags[p.ntags] = slice_of(a.tags[p.ntags]);
        p.ntags++;
    }
    p.groups = a.groups;
    while (p.ngroups < 4 && a.groups[p.ngroups].p != NULL)
        p.ngroups++;
    if (a.language != NULL) {
        p.vary = SLICE("accept-language");
        sem_variant(p.vary, request_fill(&rq, a.language), &variant);
        p.variant = buf_slice(&variant);
    }
    if (a.body_n > 0) {
        char *bytes = calloc(1, a.body_n);

        p.body = body_new(a.body_n);
        assert_int_equal(body_append(p.body, (struct slice){ bytes, a.body_n }), 0);
        free(bytes);
    } else {
        p.body = body_new(0);
        assert_int_equal(body_append(p.body, a.body != NULL ? slice_of(a.body) : SLICE("b")), 0);
    }
    body_seal(p.body);
    r = store_put(s, &p, out);
    body_unref(&p.body);
    buf_free(&variant);
    return r;
}

#define PUT(s, ...) put_out((s), (struct test_put){ __VA_ARGS__ }, NULL)

static inline enum store_result
freshen_at(struct store *s, struct object *was, uint64_t stamp, const struct sem_meta *m)
{
    const struct store_parts p = { .head = SLICE(HEAD_TEXT), .status_n = 17, .meta = *m,
        .stamp = stamp };

    return store_freshen(s, was, &p, NULL);
}

static inline enum store_answer
get_at(struct store *s, const char *key, const char *language, int64_t now_ms, char *body,
    bool *soft)
{
    struct test_key k;
    struct test_request rq;
    struct object *o = NULL;
    enum store_answer a;
    bool was_soft = false;

    rcu_begin();
    a = store_get(s, key_fill(&k, key), request_fill(&rq, language), now_ms, &o, &was_soft);
    if (a == STORE_HIT && body != NULL) {
        struct body_cursor c = { 0 };
        struct iovec v = { 0 };

        body_pieces(o->body, &c, body_size(o->body), &v, 1);
        memcpy(body, v.iov_base, v.iov_len);
        body[v.iov_len] = '\0';
    }
    rcu_end();
    if (soft != NULL)
        *soft = was_soft;
    return a;
}

static inline enum store_answer
get(struct store *s, const char *key)
{
    return get_at(s, key, NULL, 0, NULL, NULL);
}

static inline bool
is_soft(struct store *s, const char *key)
{
    bool soft;

    assert_int_equal(get_at(s, key, NULL, 0, NULL, &soft), STORE_HIT);
    return soft;
}

#define ASSERT_BODY(s, key, language, text) \
    do { \
        char got_[4096]; \
        assert_int_equal(get_at((s), (key), (language), 0, got_, NULL), STORE_HIT); \
        assert_string_equal(got_, (text)); \
    } while (0)

static inline struct store_purged
purge(struct store *s, enum store_purge_kind kind, const char *text, bool soft)
{
    struct store_purge p = { .kind = kind, .text = slice_of(text), .soft = soft };
    struct store_purged r = { 0 };

    assert_int_equal(store_purge(s, &p, &r), 0);
    return r;
}

static inline int
start(void **state)
{
    struct err e;

    *state = store_new(64 << 20, 4, &e);
    return *state != NULL ? 0 : -1;
}

static inline int
stop(void **state)
{
    struct store *s = *state;

    store_free(&s);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

static inline int
run_group(const char *name, const struct CMUnitTest *tests, size_t n)
{
    int failed;

    if (stats_init(NULL) == -1)
        return 1;
    rcu_enter_thread();
    failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
    rcu_leave_thread();
    stats_fini();
    return failed;
}

#define RUN(tests) run_group(#tests, (tests), NELEM(tests))

#endif
