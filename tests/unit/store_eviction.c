/*
 * Room: what stays under pressure, and that no more is kept than was configured.
 */
#include "store_util.h"

static int
start_small(void **state)                /* one shard, so that the queues are the whole store's */
{
    struct err e;

    *state = store_new(1 << 20, 4, &e);
    return *state != NULL ? 0 : -1;
}

static void
put_n(struct store *s, const char *format, int from, int to, size_t bytes)
{
    char key[64];

    for (int i = from; i < to; i++) {
        snprintf(key, sizeof key, format, i);
        assert_int_equal(PUT(s, .key = key, .body_n = bytes), STORE_STORED);
        if (i % 16 == 0)
            rcu_drain();
    }
}

static int
count(struct store *s, const char *format, int from, int to)
{
    char key[64];
    int n = 0;

    for (int i = from; i < to; i++) {
        snprintf(key, sizeof key, format, i);
        n += get(s, key) == STORE_HIT;
    }
    return n;
}

static void
the_limit_holds_whatever_comes(void **state)
{
    static const size_t sizes[] = { 100, 100000, 1000, 30000, 1, 5000 };
    struct store_figures f;

    for (size_t i = 0; i < NELEM(sizes); i++) {
        put_n(*state, "http://h/%d", (int)i * 1000, (int)i * 1000 + 1000, sizes[i]);
        store_figures(*state, &f);
        assert_true(f.bytes <= f.limit);
        assert_true(f.objects > 0);
    }
    assert_true(stats_counter(STATS_cache_evictions) > 0);
}

static void
what_is_asked_for_survives_a_scan(void **state)
{
    put_n(*state, "http://h/hot/%d", 0, 100, 1000);
    for (int i = 0; i < 3; i++)
        assert_int_equal(count(*state, "http://h/hot/%d", 0, 100), 100);
    put_n(*state, "http://h/scan/%d", 0, 5000, 1000);
    assert_int_equal(count(*state, "http://h/hot/%d", 0, 100), 100);
}

static void
nothing_is_left_of_what_is_cleared(void **state)
{
    struct store_figures f;

    put_n(*state, "http://h/%d", 0, 100, 1000);
    assert_int_equal(count(*state, "http://h/%d", 0, 50), 50);      /* visited: not spared */
    assert_false(store_clear(*state, 60));
    store_figures(*state, &f);
    assert_int_equal(f.objects, 40);
    assert_true(store_clear(*state, 60));
    store_figures(*state, &f);
    assert_int_equal(f.objects, 0);
    assert_int_equal(count(*state, "http://h/%d", 0, 100), 0);
    put_n(*state, "http://h/%d", 0, 10, 1000);
    assert_int_equal(count(*state, "http://h/%d", 0, 10), 10);
}

static void
what_comes_back_soon_enters_the_main_queue(void **state)
{
    struct shard *sh = &((struct store *)*state)->shards[0];
    struct test_key k;
    int gone;

    put_n(*state, "http://h/%d", 0, 1000, 1000);
    for (gone = 999; gone >= 0; gone--) {
        char key[64];

        snprintf(key, sizeof key, "http://h/%d", gone);
        key_fill(&k, key);
        if (table_find(sh->table, k.k.hash, k.k.bytes) == NULL)
            break;
    }
    assert_true(gone > 0);
    put_n(*state, "http://h/%d", gone, gone + 1, 1000);
    assert_int_equal(table_find(sh->table, k.k.hash, k.k.bytes)->place, NODE_MAIN);
}

static void
what_somebody_still_reads_counts_against_the_limit(void **state)
{
    struct object *held[8];
    struct store_figures f;
    char key[64];

    for (int i = 0; i < 8; i++) {
        snprintf(key, sizeof key, "http://h/held/%d", i);
        put_out(*state, (struct test_put){ .key = key, .body_n = 60000 }, &held[i]);
        store_drop(*state, held[i]);
    }
    rcu_drain();
    assert_true(nodes_held() > 8 * 60000);
    put_n(*state, "http://h/%d", 0, 2000, 1000);
    store_figures(*state, &f);
    assert_true(f.bytes <= (1 << 20) - 8 * 60000);
    for (int i = 0; i < 8; i++)
        object_unref(&held[i]);
    assert_int_equal(nodes_held(), 0);
}

static void
marks_are_evicted_like_objects(void **state)
{
    struct store_figures f;
    struct test_key k;
    char key[64];

    for (int i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "http://h/%d", i);
        store_pass(*state, key_fill(&k, key), 1000);
        if (i % 16 == 0)
            rcu_drain();
    }
    store_figures(*state, &f);
    assert_true(f.bytes <= f.limit);
    assert_int_equal(f.objects, 0);
}

/* The test's store has 64 MiB. */
static void
what_is_under_way_makes_room_for_itself_up_to_half_of_the_limit(void **state)
{
    struct store *s = *state;
    uint64_t one = 0, other = 0;
    struct store_figures f;
    char key[32];

    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "http://h/%d", i);
        PUT(s, .key = key, .body_n = 1 << 20);
        rcu_drain();
    }
    assert_true(store_hold(s, &one, 4 << 20));
    rcu_drain();
    assert_true(store_hold(s, &one, 8 << 20));
    store_figures(s, &f);
    assert_int_equal(one, 8 << 20);
    assert_true(f.bytes <= f.limit && f.objects < 57);
    rcu_drain();
    assert_false(store_hold(s, &other, 25 << 20));
    assert_int_equal(other, 0);
    assert_true(store_hold(s, &one, 0));
    store_figures(s, &f);
    assert_true(f.bytes < 57 << 20);
}

static void
what_was_held_is_the_objects_once_it_is_stored(void **state)
{
    struct store *s = *state;
    struct body *body = body_new(100000);
    char *bytes = calloc(1, 100000);
    struct test_key k;
    struct store_parts p = { .key = key_fill(&k, "http://h/a"), .head = SLICE(HEAD_TEXT),
        .status_n = 17, .body = body, .stamp = store_stamp(s) };
    struct store_figures before, held, after;
    uint64_t hold = 0;

    assert_int_equal(body_append(body, (struct slice){ bytes, 100000 }), 0);
    store_figures(s, &before);
    assert_true(store_hold(s, &hold, body_held(body)));
    store_figures(s, &held);
    assert_int_equal(held.bytes, before.bytes + 100000);
    p.held = &hold;
    purge(s, STORE_PURGE_ALL, "", false);
    assert_int_equal(store_put(s, &p, NULL), STORE_PURGED);
    store_figures(s, &after);
    assert_int_equal(after.bytes, held.bytes);          /* refused, and held as before */
    assert_int_equal(hold, 100000);
    p.stamp = store_stamp(s);
    assert_int_equal(store_put(s, &p, NULL), STORE_STORED);
    store_figures(s, &after);
    assert_int_equal(hold, 0);
    assert_in_range(after.bytes, held.bytes, held.bytes + 20000);
    body_unref(&body);
    free(bytes);
}

#define SMALL(f) cmocka_unit_test_setup_teardown(f, start_small, stop)

int
main(void)
{
    const struct CMUnitTest eviction[] = {
        SMALL(the_limit_holds_whatever_comes),
        SMALL(what_is_asked_for_survives_a_scan),
        SMALL(nothing_is_left_of_what_is_cleared),
        SMALL(what_comes_back_soon_enters_the_main_queue),
        SMALL(what_somebody_still_reads_counts_against_the_limit),
        SMALL(marks_are_evicted_like_objects),
        TEST(what_is_under_way_makes_room_for_itself_up_to_half_of_the_limit),
        TEST(what_was_held_is_the_objects_once_it_is_stored),
    };

    return RUN(eviction);
}
