/*
 * Positions and sequences, against a model that looks at every entry.
 */
#include "store_util.h"

/* Some purge. */
#define PURGE_ONE(s) purge(s, STORE_PURGE_TAG, "t", false)

struct entry { uint64_t first, last; struct store_position at; bool placed, foreign; };

static struct store *
make(void)
{
    struct err e;
    struct store *s = store_new(1 << 20, 4, &e);

    assert_non_null(s);
    return s;
}

/* The last position such that nothing up to it has a sequence above the stamp. */
static struct store_position
model_position(const struct entry *e, size_t n, uint64_t stamp, struct store_position base)
{
    struct store_position best = base, least = { UINT64_MAX, 0 };

    for (size_t i = 0; i < n; i++)
        if (e[i].placed && e[i].last > stamp && store_position_cmp(e[i].at, least) < 0)
            least = e[i].at;
    for (size_t i = 0; i < n; i++)
        if (e[i].placed && store_position_cmp(e[i].at, least) < 0 &&
            store_position_cmp(e[i].at, best) > 0)
            best = e[i].at;
    return best;
}

/* The largest stamp that no entry behind the position is within. */
static uint64_t
model_stamp(const struct entry *e, size_t n, struct store_position at, uint64_t now)
{
    uint64_t most = now;

    for (size_t i = 0; i < n; i++)
        if ((!e[i].placed || store_position_cmp(e[i].at, at) > 0) && e[i].first <= most)
            most = e[i].first - 1;
    return most;
}

static void
tell_waiting(struct store *s, const struct entry *e, size_t n)
{
    uint64_t least = UINT64_MAX;

    for (size_t i = 0; i < n; i++)
        if (!e[i].placed && e[i].first < least)
            least = e[i].first;
    store_position_wait(s, least);
}

#define ENTRIES 400

/* Some share their milliseconds. */
static struct store_position
next_place(uint64_t *ms)
{
    static uint64_t n;

    *ms += random_fast() % 2;
    return (struct store_position){ *ms, ++n };
}

/* One step: a foreign purge, an own one, the next of the own ones gets its place, or two that wait
 * become one. */
static void
step(struct store *s, struct entry *e, size_t *n, uint64_t *ms)
{
    uint64_t what = random_fast() % 8;
    size_t i = 0;

    while (i < *n && e[i].placed)
        i++;
    if (what < 3 || (what < 7 && i == *n)) {
        PURGE_ONE(s);
        e[*n] = (struct entry){ store_stamp(s), store_stamp(s), { 0, 0 }, what < 3, what < 3 };
        if (what < 3) {
            e[*n].at = next_place(ms);
            store_position_add(s, e[*n].first, e[*n].last, e[*n].at);
        }
        ++*n;
    } else if (what < 7) {
        e[i].placed = true;
        e[i].at = next_place(ms);
        store_position_add(s, e[i].first, e[i].last, e[i].at);
    } else if (i < *n) {
        PURGE_ONE(s);
        e[i].last = store_stamp(s);
    }
    tell_waiting(s, e, *n);
}

static void
positions_and_stamps_are_those_of_the_model_in_any_interleaving(void **state)
{
    static struct entry e[ENTRIES + 1];

    (void)state;
    for (int round = 0; round < 30; round++) {
        struct store *s = make();
        struct store_position base = { 3, 0 }, got;
        uint64_t ms = 3, stamp;
        size_t n = 0;

        store_position_begin(s, base);
        while (n < ENTRIES) {
            step(s, e, &n, &ms);
            stamp = 1 + random_fast() % store_stamp(s);
            assert_true(store_position(s, stamp, &got));
            assert_int_equal(store_position_cmp(got, model_position(e, n, stamp, base)), 0);
            got = (struct store_position){ 3 + random_fast() % (ms - 2), random_fast() % (ENTRIES * 30) };
            assert_true(store_stamp_of(s, got, &stamp));
            assert_int_equal(stamp, model_stamp(e, n, got, store_stamp(s)));
        }
        store_free(&s);
    }
}

static void
a_long_history_loses_grain_and_never_says_too_much(void **state)
{
    size_t cap = 3 * POSITIONS, n = 0;
    struct entry *e = calloc(cap + 1, sizeof *e);
    struct store *s = make();
    struct store_position base = { 3, 0 }, got;
    uint64_t ms = 3, stamp;
    unsigned exact = 0;

    (void)state;
    store_position_begin(s, base);
    while (n < cap)
        step(s, e, &n, &ms);
    for (int i = 0; i < 500; i++) {
        struct store_position is;

        stamp = 1 + random_fast() % store_stamp(s);
        is = model_position(e, n, stamp, base);
        assert_true(store_position(s, stamp, &got));
        assert_true(store_position_cmp(got, is) <= 0);
        exact += store_position_cmp(got, is) == 0;
        got = (struct store_position){ 3 + random_fast() % (ms - 2), 0 };
        assert_true(store_stamp_of(s, got, &stamp));
        assert_true(stamp <= model_stamp(e, n, got, store_stamp(s)));
    }
    assert_true(exact > 0);
    store_free(&s);
    free(e);
}

static void
before_its_beginning_nothing_is_known(void **state)
{
    struct store *s = make();
    struct store_position at;
    uint64_t stamp;

    (void)state;
    assert_false(store_position(s, store_stamp(s), &at));
    assert_false(store_stamp_of(s, (struct store_position){ 9, 0 }, &stamp));
    PURGE_ONE(s);
    store_position_begin(s, (struct store_position){ 9, 0 });
    assert_true(store_position(s, store_stamp(s), &at));
    assert_int_equal(at.ms, 9);
    assert_false(store_position(s, store_stamp(s) - 1, &at));
    assert_false(store_stamp_of(s, (struct store_position){ 8, 7 }, &stamp));
    assert_true(store_stamp_of(s, (struct store_position){ 9, 0 }, &stamp));
    assert_int_equal(stamp, store_stamp(s));
    PURGE_ONE(s);
    store_position_begin(s, (struct store_position){ 1, 0 });   /* another stream */
    assert_false(store_position(s, store_stamp(s) - 1, &at));
    assert_true(store_position(s, store_stamp(s), &at));
    assert_int_equal(at.ms, 1);
    store_free(&s);
}

static void
own_purges_are_settled_when_they_have_a_place(void **state)
{
    struct store *s = make();

    (void)state;
    store_position_begin(s, (struct store_position){ 1, 0 });
    PURGE_ONE(s);
    store_position_wait(s, store_stamp(s));
    assert_false(store_position_settled(s, store_stamp(s)));
    assert_true(store_position_settled(s, store_stamp(s) - 1));
    store_position_add(s, store_stamp(s), store_stamp(s), (struct store_position){ 2, 0 });
    store_position_wait(s, UINT64_MAX);
    assert_true(store_position_settled(s, store_stamp(s)));
    store_free(&s);
}

static void
what_is_in_doubt_is_said_to_be_until_it_is_trusted_again(void **state)
{
    struct store *s = make();
    struct test_request r;
    struct test_key k;
    struct object *o;
    bool soft;

    (void)state;
    rcu_enter_thread();
    assert_int_equal(PUT(s, .key = "http://h/a"), STORE_STORED);
    rcu_begin();
    for (int64_t now = 999; now < 1001; now++) {
        store_trust(s, 1000);
        assert_int_equal(store_get(s, key_fill(&k, "http://h/a"), request_fill(&r, NULL), now, &o,
            &soft), STORE_HIT);
        assert_int_equal(soft, now >= 1000);
        assert_int_equal(store_doubts(s, o, now), now >= 1000);
        assert_int_equal(store_untrusted(s, now), now >= 1000);
        store_trust(s, 2000);
        assert_false(store_doubts(s, o, now));
    }
    rcu_end();
    rcu_leave_thread();
    store_free(&s);
}

static void
a_purge_that_leaves_doubt_leaves_it_behind_softer_ones(void **state)
{
    static const struct store_purge doubt = { .kind = STORE_PURGE_ALL, .soft = true,
        .doubt = true }, soft = { .kind = STORE_PURGE_ALL, .soft = true };
    struct store *s = make();
    struct test_request r;
    struct test_key k;
    struct store_purged done;
    struct object *o;
    bool is;

    (void)state;
    rcu_enter_thread();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(PUT(s, .key = "http://h/a"), STORE_STORED);
        if (i > 0)
            store_purge(s, &soft, &done);
        if (i < 2)
            store_purge(s, &doubt, &done);
        store_purge(s, &soft, &done);
        rcu_begin();
        assert_int_equal(store_get(s, key_fill(&k, "http://h/a"), request_fill(&r, NULL), 1, &o,
            &is), STORE_HIT);
        assert_true(is);
        assert_int_equal(store_doubts(s, o, 1), i < 2);
        rcu_end();
    }
    rcu_leave_thread();
    store_free(&s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions_and_stamps_are_those_of_the_model_in_any_interleaving),
        cmocka_unit_test(a_long_history_loses_grain_and_never_says_too_much),
        cmocka_unit_test(before_its_beginning_nothing_is_known),
        cmocka_unit_test(own_purges_are_settled_when_they_have_a_place),
        cmocka_unit_test(what_is_in_doubt_is_said_to_be_until_it_is_trusted_again),
        cmocka_unit_test(a_purge_that_leaves_doubt_leaves_it_behind_softer_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
