/*
 * The answer to a POST that is stored for GETs, and another's purge at each step between.
 *
 * request/also.c is compiled here once more, with a hook at each step of also_write_purge; where a
 * case says, the other's purge runs on a thread of its own from beginning to end. Whatever the
 * order, when both are done no lookup finds the answer, for at the origin the other write may have
 * been the later one.
 */
#include "request/priv.h"
#include "request/worker.h"
#include "store_util.h"

static struct store *store;
static unsigned now, other_at;          /* the step; the one at which the other comes in */
static const struct store_purge *other; /* NULL: nobody */
static bool kept;                       /* the answer was to be stored; */
static uint64_t kept_stamp;             /* ... as of this sequence */

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

/* ---- what also.c calls ------------------------------------------------------------------------ */

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
stepped_purge(struct request *r, const struct fill_view *v)
{
    static const struct slice urls[] = { { "http://h/a", 10 }, { "http://h/b", 10 } };
    struct store_purged done;

    (void)r;
    (void)v;
    for (size_t i = 0; i < NELEM(urls); i++) {
        struct store_purge p = { .kind = STORE_PURGE_URL, .text = urls[i] };

        assert_int_equal(store_purge(store, &p, &done), 0);
        step();
    }
}

static void
taken(struct fill *f, const struct key *key, uint64_t stamp)
{
    (void)f;
    assert_true(slice_eq(key->bytes, SLICE("http://h/a")));
    kept = true;
    kept_stamp = stamp;
    step();
}

#define req_store()          store
#define store_stamp          stepped_stamp
#define store_stamp_outdated stepped_outdated
#define purge_now            stepped_purge
#define fill_store_as        taken
#include "request/also.c"
#undef req_store
#undef store_stamp
#undef store_stamp_outdated
#undef purge_now
#undef fill_store_as

/* ---- the cases -------------------------------------------------------------------------------- */

#define STEPS 9                         /* that a write with nobody beside it goes through */

/* One POST of /a, the other's purge at that step; was the answer stored for good? */
static bool
write_beside(const struct store_purge *p, unsigned at)
{
    static const char location[] = "Content-Location: /a\r\n";
    struct http_field fields[2];
    struct http_head answer = { .fields = fields, .cap = 2, .status = 200 };
    struct fill_view v = { .response = &answer, .status = 200 };
    struct route route = { .id = 7 };
    struct request r = { .host = SLICE("h"), .path = SLICE("/a"), .match.route = &route };
    struct http_head get = { .method = HTTP_GET };
    struct object *o = NULL;
    struct test_key k;
    bool soft = false, found;
    struct err e;

    store = store_new(1 << 20, 8, &e);
    assert_non_null(store);
    assert_int_equal(http_parse_fields(location, sizeof location - 1, &answer), 0);
    r.key = *key_fill(&k, "http://h/a");
    r.stamp = store_stamp(store);       /* the write is sent */
    kept = false;
    now = 0;
    other = p;
    other_at = at;
    also_write_purge(&r, &v);
    if (kept)
        put_out(store, (struct test_put){ .key = "http://h/a", .body = "x", .route_id = 7,
            .stamp = kept_stamp }, NULL);
    step();
    rcu_begin();
    found = store_get(store, &r.key, &get, wall_ms(), &o, &soft) == STORE_HIT && !soft;
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_nobody_beside_it_the_answer_is_stored),
        cmocka_unit_test(a_purge_that_matches_keeps_it_out_at_whichever_step_it_comes),
        cmocka_unit_test(a_purge_of_something_else_costs_it_only_within_the_window),
    };
    int rc;

    rcu_enter_thread();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    rcu_leave_thread();
    return rc;
}
