/*
 * What a write leaves for GETs: from where, and another's purge at each step between.
 *
 * write/through.c is compiled here once more, with a hook at each step around the purge; where a
 * case says, the other's purge runs on a thread of its own from beginning to end. Whatever the
 * order, when both are done no lookup finds the answer, for at the origin the other write may have
 * been the later one.
 */
#include "store_util.h"

#include <pthread.h>

static struct store *store;
static unsigned now, other_at;          /* the step; the one at which the other comes in */
static const struct store_purge *other; /* NULL: nobody */

static void *
other_runs(void *arg)
{
    struct store_purged done;

    rcu_enter_thread();
    assert_int_equal(store_purge(store, arg, &done), 0);
    rcu_leave_thread();
    return NULL;
}

static void
step(void)
{
    pthread_t thread;

    if (other == NULL || now++ != other_at)
        return;
    pthread_create(&thread, NULL, other_runs, (void *)(uintptr_t)other);
    pthread_join(thread, NULL);
}

/* ---- what through.c calls ------------------------------------------------------------------------ */

static uint64_t
stepped_stamp(const struct store *s)
{
    uint64_t stamp;

    step();
    stamp = store_stamp(s);
    step();
    return stamp;
}

static bool
stepped_outdated(struct store *s, uint64_t stamp, const struct key *k, uint64_t route_id)
{
    bool outdated = store_stamp_outdated(s, stamp, k, route_id);

    step();
    return outdated;
}

/* The target and, as with Location, one more. */
static void
purge_ours(void)
{
    static const struct slice urls[] = { { "http://h/a", 10 }, { "http://h/b", 10 } };
    struct store_purged done;

    for (size_t i = 0; i < NELEM(urls); i++) {
        struct store_purge p = { .kind = STORE_PURGE_URL, .text = urls[i] };

        assert_int_equal(store_purge(store, &p, &done), 0);
        step();
    }
}

#define store_stamp          stepped_stamp
#define store_stamp_outdated stepped_outdated
#include "write/through.c"
#undef store_stamp
#undef store_stamp_outdated

/* ---- the cases -------------------------------------------------------------------------------- */

#define STEPS 9                         /* that a write with nobody beside it goes through */

/* One POST of /a, the other's purge at that step; was the answer stored for good? */
static bool
write_beside(const struct store_purge *p, unsigned at)
{
    struct http_head get = { .method = HTTP_GET };
    struct object *o = NULL;
    struct write_purge ours;
    struct test_key k;
    bool soft = false, found;
    uint64_t sent;
    struct err e;

    store = store_new(1 << 20, 8, &e);
    assert_non_null(store);
    key_fill(&k, "http://h/a");
    sent = store_stamp(store);
    now = 0;
    other = p;
    other_at = at;
    write_purge_begin(store, &k.k, 7, sent, &ours);
    purge_ours();
    if (write_purge_end(store, &ours)) {
        step();
        put_out(store, (struct test_put){ .key = "http://h/a", .body = "x", .route_id = 7,
            .stamp = ours.stamp }, NULL);
    }
    step();
    rcu_begin();
    found = store_get(store, &k.k, &get, wall_ms(), &o, &soft) == STORE_HIT && !soft;
    rcu_end();
    store_free(&store);
    return found;
}

static const struct { struct store_purge purge; bool matches; } others[] = {
    { { .kind = STORE_PURGE_URL, .text = { "http://h/a", 10 } }, true },
    { { .kind = STORE_PURGE_URL, .text = { "http://h/a", 10 }, .soft = true }, true },
    { { .kind = STORE_PURGE_PREFIX, .text = { "http://h/", 9 } }, true },
    { { .kind = STORE_PURGE_PATTERN, .text = { "/?", 2 } }, true },
    { { .kind = STORE_PURGE_ROUTE, .id = 7 }, true },
    { { .kind = STORE_PURGE_ALL }, true },
    { { .kind = STORE_PURGE_URL, .text = { "http://h/c", 10 } }, false },
    { { .kind = STORE_PURGE_ROUTE, .id = 8 }, false },
};

static void
with_nobody_beside_it_the_answer_is_stored(void **state)
{
    (void)state;
    assert_true(write_beside(NULL, 0));
    assert_true(write_beside(&others[0].purge, STEPS));     /* never comes */
    assert_int_equal(now, STEPS);
}

static void
a_purge_that_matches_keeps_it_out_at_whichever_step_it_comes(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(others); i++)
        for (unsigned at = 0; at < STEPS; at++)
            if (write_beside(&others[i].purge, at) && others[i].matches)
                fail_msg("purge %zu at step %u: the answer is found", i, at);
}

/* Between both readings of the sequence what came in cannot be told from one that matches. */
static void
a_purge_of_something_else_costs_it_only_within_the_window(void **state)
{
    unsigned stored = 0;

    (void)state;
    for (size_t i = 0; i < NELEM(others); i++)
        for (unsigned at = 0; at < STEPS; at++)
            if (!others[i].matches)
                stored += write_beside(&others[i].purge, at);
    assert_int_equal(stored, 2 * 4);    /* before the first reading; behind the second, thrice */
}

/* ---- from where ------------------------------------------------------------------------------- */

static struct http_head *
head_of(const char *lines, struct http_head *h, struct http_field *fields)
{
    *h = (struct http_head){ .fields = fields, .cap = 8 };
    assert_int_equal(http_parse_fields(lines, strlen(lines), h), 0);
    return h;
}

#define HERE      "Content-Location: /a\r\n"
#define ELSEWHERE "Content-Location: /b\r\n"

static void
what_a_write_leaves_comes_from_where_http_or_the_operator_says(void **state)
{
    static const struct {
        enum http_method method;
        enum conf_policy policy;
        enum conf_write_fill fill;
        unsigned status;
        const char *request, *response;
        enum write_source from;
    } t[] = {
#define THROUGH POLICY_WRITE_THROUGH
        { HTTP_PUT, THROUGH, WRITE_FILL_AUTO, 200, "", HERE, WRITE_SOURCE_ANSWER },
        { HTTP_PATCH, THROUGH, WRITE_FILL_AUTO, 201, "", HERE, WRITE_SOURCE_ANSWER },
        { HTTP_POST, THROUGH, WRITE_FILL_AUTO, 200, "", HERE, WRITE_SOURCE_ANSWER },
        { HTTP_PUT, POLICY_WRITE_BACK, WRITE_FILL_AUTO, 200, "", HERE, WRITE_SOURCE_ANSWER },
        { HTTP_PUT, THROUGH, WRITE_FILL_AUTO, 200, "", "", WRITE_SOURCE_FETCH },
        { HTTP_PUT, THROUGH, WRITE_FILL_AUTO, 200, "", ELSEWHERE, WRITE_SOURCE_FETCH },
        { HTTP_PUT, THROUGH, WRITE_FILL_AUTO, 200, "", HERE HERE, WRITE_SOURCE_FETCH },
        { HTTP_PUT, THROUGH, WRITE_FILL_AUTO, 204, "", HERE, WRITE_SOURCE_FETCH },
        { HTTP_PUT, THROUGH, WRITE_FILL_AUTO, 202, "", HERE, WRITE_SOURCE_NONE },
        { HTTP_PUT, THROUGH, WRITE_FILL_AUTO, 303, "", HERE, WRITE_SOURCE_NONE },
        { HTTP_PUT, THROUGH, WRITE_FILL_AUTO, 409, "", HERE, WRITE_SOURCE_NONE },
        { HTTP_DELETE, THROUGH, WRITE_FILL_AUTO, 200, "", HERE, WRITE_SOURCE_NONE },
        { HTTP_OTHER, THROUGH, WRITE_FILL_AUTO, 200, "", HERE, WRITE_SOURCE_FETCH },
        { HTTP_PUT, THROUGH, WRITE_FILL_RESPONSE, 200, "", "", WRITE_SOURCE_ANSWER },
        { HTTP_PUT, THROUGH, WRITE_FILL_RESPONSE, 200, "", ELSEWHERE, WRITE_SOURCE_FETCH },
        { HTTP_PUT, THROUGH, WRITE_FILL_RESPONSE, 204, "", "", WRITE_SOURCE_FETCH },
        { HTTP_POST, THROUGH, WRITE_FILL_RESPONSE, 200, "", "", WRITE_SOURCE_FETCH },
        { HTTP_POST, THROUGH, WRITE_FILL_RESPONSE, 200, "", HERE, WRITE_SOURCE_ANSWER },
        { HTTP_PUT, THROUGH, WRITE_FILL_REQUEST, 204, "", "", WRITE_SOURCE_CONTENT },
        { HTTP_PUT, THROUGH, WRITE_FILL_REQUEST, 200, "", HERE, WRITE_SOURCE_ANSWER },
        { HTTP_PUT, THROUGH, WRITE_FILL_REQUEST, 201, "", ELSEWHERE, WRITE_SOURCE_FETCH },
        { HTTP_PUT, THROUGH, WRITE_FILL_REQUEST, 203, "", "", WRITE_SOURCE_FETCH },
        { HTTP_PATCH, THROUGH, WRITE_FILL_REQUEST, 204, "", "", WRITE_SOURCE_FETCH },
        { HTTP_PUT, THROUGH, WRITE_FILL_REQUEST, 204, "Content-Range: bytes 0-0/9\r\n", "",
            WRITE_SOURCE_FETCH },
        { HTTP_PUT, THROUGH, WRITE_FILL_REFETCH, 200, "", HERE, WRITE_SOURCE_FETCH },
        { HTTP_POST, POLICY_CACHE_ASIDE, WRITE_FILL_AUTO, 200, "", HERE, WRITE_SOURCE_ANSWER },
        { HTTP_POST, POLICY_CACHE_ASIDE, WRITE_FILL_AUTO, 200, "", "", WRITE_SOURCE_NONE },
        { HTTP_PUT, POLICY_CACHE_ASIDE, WRITE_FILL_AUTO, 200, "", HERE, WRITE_SOURCE_NONE },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(t); i++) {
        struct conf_route c = { .policy = t[i].policy, .write_fill = t[i].fill };
        struct http_field fields[2][8];
        struct http_head request, response;
        struct write_effect e = { .route = &c, .target = SLICE("http://h/a"), .content = true,
            .request = head_of(t[i].request, &request, fields[0]),
            .response = head_of(t[i].response, &response, fields[1]) };

        request.method = t[i].method;
        response.status = t[i].status;
        if (write_source(&e) != t[i].from)
            fail_msg("case %zu: %d", i, write_source(&e));
        e.content = false;
        assert_true(write_source(&e) != WRITE_SOURCE_CONTENT);
    }
}

static void
the_get_of_a_write_has_its_fields_without_those_of_a_write(void **state)
{
    static const char lines[] = "Accept: a/b\r\nContent-Type: a/b\r\nX-Mine: 1\r\n"
        "If-Match: \"e\"\r\nx-http-method-override: DELETE\r\nCookie: c=d\r\n";
    struct pool *p = pool_new();
    struct http_field fields[8];
    struct http_head put, *get;

    (void)state;
    head_of(lines, &put, fields);
    put.method = HTTP_PUT;
    put.framing = HTTP_CHUNKED;
    get = write_get(p, &put);
    assert_int_equal(get->method, HTTP_GET);
    assert_int_equal(get->framing, HTTP_NO_BODY);
    assert_int_equal(get->nfields, 3);
    assert_true(http_has(get, HF_ACCEPT) && http_has(get, HF_COOKIE));
    assert_non_null(http_find_name(get, SLICE("X-Mine")));
    assert_false(http_has(get, HF_IF_MATCH) || http_has(get, HF_CONTENT_TYPE));
    assert_int_equal(put.nfields, 6);
    pool_free(&p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_nobody_beside_it_the_answer_is_stored),
        cmocka_unit_test(a_purge_that_matches_keeps_it_out_at_whichever_step_it_comes),
        cmocka_unit_test(a_purge_of_something_else_costs_it_only_within_the_window),
        cmocka_unit_test(what_a_write_leaves_comes_from_where_http_or_the_operator_says),
        cmocka_unit_test(the_get_of_a_write_has_its_fields_without_those_of_a_write),
    };
    int rc;

    rcu_enter_thread();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    rcu_leave_thread();
    return rc;
}
