/*
 * Purges: what each kind matches, hard and soft, what is in flight, what the sweeper frees.
 */
#include "store_util.h"

static void
sweep(struct store *s)
{
    sweep_wait(s);
    rcu_drain();
}

static void
a_url_goes_with_all_its_variants(void **state)
{
    PUT(*state, .key = "http://h/a", .language = "de");
    PUT(*state, .key = "http://h/a", .language = "en");
    PUT(*state, .key = "http://h/ab");
    assert_int_equal(purge(*state, STORE_PURGE_URL, "http://h/a", false).objects, 2);
    assert_int_equal(get_at(*state, "http://h/a", "de", 0, NULL, NULL), STORE_MISS);
    assert_int_equal(get(*state, "http://h/ab"), STORE_HIT);
}

static void
a_url_goes_with_thousands_of_keys_that_have_parts(void **state)
{
    struct store_figures f;
    struct store_purged r;
    char key[64];

    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "http://h/a|cookie %d", i);
        PUT(*state, .key = key);
    }
    PUT(*state, .key = "http://h/a");
    PUT(*state, .key = "http://h/b|cookie 1");
    assert_int_equal(store_purge_count(*state,
        &(struct store_purge){ STORE_PURGE_URL, SLICE("http://h/a"), 0, false, false,
        false }), 3001);
    r = purge(*state, STORE_PURGE_URL, "http://h/a", false);
    assert_true(r.exact);
    assert_int_equal(r.objects, 3001);
    assert_int_equal(get(*state, "http://h/a|cookie 77"), STORE_MISS);
    assert_int_equal(get(*state, "http://h/b|cookie 1"), STORE_HIT);
    sweep(*state);
    store_figures(*state, &f);
    assert_int_equal(f.objects, 1);
    assert_int_equal(f.tags, 1);
}

static void
a_tag_takes_what_carries_it(void **state)
{
    PUT(*state, .key = "http://h/a", .tags = { "x", "y" });
    PUT(*state, .key = "http://h/b", .tags = { "y", "y" });
    PUT(*state, .key = "http://h/c", .tags = { "z" });
    assert_int_equal(purge(*state, STORE_PURGE_TAG, "y", false).objects, 2);
    assert_int_equal(get(*state, "http://h/a"), STORE_MISS);
    assert_int_equal(get(*state, "http://h/b"), STORE_MISS);
    assert_int_equal(get(*state, "http://h/c"), STORE_HIT);
    assert_int_equal(purge(*state, STORE_PURGE_TAG, "y", false).objects, 0);
    PUT(*state, .key = "http://h/a", .tags = { "y" });
    assert_int_equal(get(*state, "http://h/a"), STORE_HIT);
    sweep(*state);
    assert_int_equal(get(*state, "http://h/a"), STORE_HIT);
    assert_int_equal(purge(*state, STORE_PURGE_TAG, "y", false).objects, 1);
}

/* Text with its NUL. */
static struct store_purged
purge_group(struct store *s, struct slice text, bool dry)
{
    struct store_purge p = { .kind = STORE_PURGE_GROUP, .text = text };
    struct store_purged r = { 0 };

    if (dry)
        r.objects = store_purge_count(s, &p);
    else
        assert_int_equal(store_purge(s, &p, &r), 0);
    return r;
}

static const struct slice a_x = SLICE("http://a\0x"), a_y = SLICE("http://a\0y"),
    b_x = SLICE("http://b\0x"), any_x = SLICE("\0x");

static void
a_group_takes_what_is_in_it_under_its_origin_or_under_all(void **state)
{
    for (int any = 0; any < 2; any++) {
        PUT(*state, .key = "http://a/1", .groups = { a_x, a_y });
        PUT(*state, .key = "http://a/2|part", .groups = { a_y }, .tags = { "x" });
        PUT(*state, .key = "http://b/1", .groups = { b_x, b_x });
        assert_int_equal(purge(*state, STORE_PURGE_TAG, "x", false).objects, 1);
        assert_int_equal(purge_group(*state, any ? any_x : a_x, true).objects, any ? 2 : 1);
        assert_int_equal(purge_group(*state, any ? any_x : a_x, false).objects, any ? 2 : 1);
        assert_int_equal(get(*state, "http://a/1"), STORE_MISS);
        assert_int_equal(get(*state, "http://b/1"), any ? STORE_MISS : STORE_HIT);
        sweep_wait(*state);
    }
}

static void
a_304_may_change_the_groups_and_keeps_the_tags(void **state)
{
    struct store_parts p = { .head = SLICE(HEAD_TEXT), .status_n = 17, .stamp = store_stamp(*state),
        .groups = &a_y, .ngroups = 1 };
    struct object *o, *next;

    assert_int_equal(put_out(*state, (struct test_put){ .key = "http://a/1", .groups = { a_x },
        .tags = { "t" } }, &o), STORE_STORED);
    assert_int_equal(store_freshen(*state, o, &p, &next), STORE_STORED);    /* it named none */
    object_unref(&o);
    assert_int_equal(purge_group(*state, a_x, true).objects, 1);
    assert_int_equal(purge_group(*state, a_y, true).objects, 0);
    p.regroup = true;
    assert_int_equal(store_freshen(*state, next, &p, NULL), STORE_STORED);
    object_unref(&next);
    assert_int_equal(purge_group(*state, a_x, false).objects, 0);
    assert_int_equal(get(*state, "http://a/1"), STORE_HIT);
    assert_int_equal(purge(*state, STORE_PURGE_TAG, "t", false).objects, 1);
    assert_int_equal(get(*state, "http://a/1"), STORE_MISS);
}

/* kind, text, and which of the keys it matches */
static const struct { enum store_purge_kind kind; const char *text; bool match[5]; } texts[] = {
    { STORE_PURGE_PREFIX, "http://h/a/", { true, true, false, false, false } },
    { STORE_PURGE_PREFIX, "http://h/a/1", { true, false, false, false, false } },
    { STORE_PURGE_PREFIX, "http://h/n", { false, false, false, false, true } },
    { STORE_PURGE_PREFIX, "h/a", { false, false, false, false, false } },
    { STORE_PURGE_PATTERN, "/a/*", { true, true, false, true, false } },
    { STORE_PURGE_PATTERN, "*x=1*", { false, true, false, false, false } },
    { STORE_PURGE_PATTERN, "/a/?", { true, false, false, true, false } },
    { STORE_PURGE_PATH, "/a/1", { true, false, false, true, false } },
    { STORE_PURGE_PATH, "/a/2?x=1", { false, true, false, false, false } },
    { STORE_PURGE_PATH, "/a", { false, false, false, false, false } },
    { STORE_PURGE_PATH_PREFIX, "/a/", { true, true, false, true, false } },
    { STORE_PURGE_ALL, "", { true, true, true, true, true } },
};
/* The last is of a route that leaves the host out of its keys. */
static const char *const keys[] = { "http://h/a/1", "http://h/a/2?x=1|part", "http://h/b",
    "https://i/a/1", "http:///no/host" };

static void
each_text_matches_what_it_says(void **state)
{
    for (size_t i = 0; i < NELEM(texts); i++) {
        struct store_purge p = { texts[i].kind, slice_of(texts[i].text), 0, false, false, false };
        unsigned matches = 0;

        for (size_t k = 0; k < NELEM(keys); k++) {
            PUT(*state, .key = keys[k]);
            matches += texts[i].match[k];
        }
        assert_int_equal(store_purge_count(*state, &p), matches);
        assert_false(purge(*state, p.kind, texts[i].text, false).exact);
        for (size_t k = 0; k < NELEM(keys); k++)
            assert_int_equal(get(*state, keys[k]), texts[i].match[k] ? STORE_MISS : STORE_HIT);
    }
}

static void
a_route_takes_what_it_brought(void **state)
{
    struct store_purge p = { .kind = STORE_PURGE_ROUTE, .id = 7 + ROUTE_HEADS };
    struct store_purged r;

    PUT(*state, .key = "http://h/a", .route_id = 7);
    PUT(*state, .key = "http://h/b", .route_id = 7 + ROUTE_HEADS);
    store_purge(*state, &p, &r);
    assert_int_equal(get(*state, "http://h/a"), STORE_HIT);
    assert_int_equal(get(*state, "http://h/b"), STORE_MISS);
}

static void
a_soft_purge_leaves_it_stale_until_it_comes_anew(void **state)
{
    static const struct { enum store_purge_kind kind; const char *text; } soft[] = {
        { STORE_PURGE_URL, "http://h/a" }, { STORE_PURGE_TAG, "t" },
        { STORE_PURGE_PREFIX, "http://h/" }, { STORE_PURGE_ALL, "" },
    };

    for (size_t i = 0; i < NELEM(soft); i++) {
        PUT(*state, .key = "http://h/a", .tags = { "t" });
        assert_false(is_soft(*state, "http://h/a"));
        purge(*state, soft[i].kind, soft[i].text, true);
        assert_true(is_soft(*state, "http://h/a"));
        sweep(*state);
        assert_true(is_soft(*state, "http://h/a"));
    }
    PUT(*state, .key = "http://h/a", .tags = { "t" });
    assert_false(is_soft(*state, "http://h/a"));
    purge(*state, STORE_PURGE_ALL, "", false);
    assert_int_equal(get(*state, "http://h/a"), STORE_MISS);
}

static void
what_is_in_flight_during_a_purge_is_not_stored(void **state)
{
    static const struct { enum store_purge_kind kind; const char *text; } all[] = {
        { STORE_PURGE_URL, "http://h/a" }, { STORE_PURGE_TAG, "t" },
        { STORE_PURGE_PREFIX, "http://h/" }, { STORE_PURGE_PATTERN, "/?" },
        { STORE_PURGE_ALL, "" }, { STORE_PURGE_ROUTE, "" },
    };

    for (size_t i = 0; i < NELEM(all); i++)
        for (int soft = 0; soft < 2; soft++) {
            uint64_t stamp = store_stamp(*state);
            struct test_key k;

            key_fill(&k, "http://h/a");
            assert_false(store_stamp_outdated(*state, stamp, &k.k, 0));
            purge(*state, all[i].kind, all[i].text, soft);
            assert_true(store_stamp_outdated(*state, stamp, &k.k, 0));
            assert_int_equal(PUT(*state, .key = "http://h/a", .stamp = stamp, .tags = { "t" }),
                STORE_PURGED);
            if (all[i].kind == STORE_PURGE_URL)
                assert_int_equal(PUT(*state, .key = "http://h/a|part", .stamp = stamp),
                    STORE_PURGED);
            assert_int_equal(PUT(*state, .key = "http://h/a", .tags = { "t" }), STORE_STORED);
        }
}

static void
another_purge_does_not_touch_what_is_in_flight(void **state)
{
    uint64_t stamp = store_stamp(*state);

    purge(*state, STORE_PURGE_URL, "http://h/b", false);
    purge(*state, STORE_PURGE_TAG, "other", false);
    purge(*state, STORE_PURGE_PREFIX, "http://h/b", false);
    assert_int_equal(PUT(*state, .key = "http://h/a", .stamp = stamp, .tags = { "t" }),
        STORE_STORED);
    assert_int_equal(get(*state, "http://h/a"), STORE_HIT);
}

static void
a_purge_ends_a_mark(void **state)
{
    struct test_key k;

    store_pass(*state, key_fill(&k, "http://h/a"), 1000);
    purge(*state, STORE_PURGE_URL, "http://h/a", false);
    assert_int_equal(get(*state, "http://h/a"), STORE_MISS);
    store_pass(*state, &k.k, 1000);
    purge(*state, STORE_PURGE_PREFIX, "http://h/", false);
    assert_int_equal(get(*state, "http://h/a"), STORE_MISS);
}

static void
the_sweeper_frees_the_bytes(void **state)
{
    struct store_figures before, after;
    char key[64];

    store_figures(*state, &before);
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "http://h/%d", i);
        PUT(*state, .key = key, .tags = { "t" });
    }
    purge(*state, STORE_PURGE_PREFIX, "http://h/", false);
    sweep(*state);
    store_figures(*state, &after);
    assert_int_equal(after.objects, 0);
    assert_int_equal(after.tags, 0);
    assert_true(after.bytes < before.bytes + 64 * 1024);
}

static void
rules_are_forgotten_and_still_refuse_what_they_could_match(void **state)
{
    uint64_t stamp = store_stamp(*state);
    struct store_figures f;
    char prefix[64];

    for (int i = 0; i < 1500; i++) {
        snprintf(prefix, sizeof prefix, "http://h/%d/", i);
        purge(*state, STORE_PURGE_PREFIX, prefix, false);
    }
    sweep(*state);
    store_figures(*state, &f);
    assert_int_equal(f.rules, 1024);
    assert_int_equal(PUT(*state, .key = "http://h/0/a", .stamp = stamp), STORE_PURGED);
    assert_int_equal(PUT(*state, .key = "http://h/0/a"), STORE_STORED);
    for (int i = 0; i < 100; i++)
        purge(*state, STORE_PURGE_PREFIX, "http://h/7/", false);
    store_figures(*state, &f);
    assert_true(f.rules <= 1025);
    assert_int_equal(get(*state, "http://h/0/a"), STORE_HIT);
}

static void
more_rules_than_can_be_swept_purge_everything(void **state)
{
    struct store *s = *state;
    struct store_purge p = { .kind = STORE_PURGE_PREFIX, .text = SLICE("http://i/") };
    struct store_purged r;

    PUT(s, .key = "http://h/a");
    s->nrules = RULES_MAX;
    assert_int_equal(store_purge(s, &p, &r), -1);
    s->nrules = 0;
    assert_false(r.exact);
    assert_int_equal(get(s, "http://h/a"), STORE_MISS);
}

/* Before the sweeper came by, too. */
static void
what_an_earlier_purge_took_is_not_counted_again(void **state)
{
    static const struct store_purge counts[] = {
        { STORE_PURGE_TAG, SLICE("x"), 0, false, false, false },
        { STORE_PURGE_URL, SLICE("http://h/p"), 0, false, false, false },
        { STORE_PURGE_URL, SLICE("http://h/1"), 0, false, false, false },
        { STORE_PURGE_ALL, SLICE(""), 0, false, false, false },
    };
    char key[64];

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2000; i++) {
            snprintf(key, sizeof key, "http://h/%s%d", i % 2 == 0 ? "p|" : "", i);
            PUT(*state, .key = key, .tags = { "x", "y" });
        }
        assert_int_equal(store_purge_count(*state, &counts[0]), 2000);
        assert_int_equal(store_purge_count(*state, &counts[1]), 1000);
        assert_int_equal(store_purge_count(*state, &counts[2]), 1);
        if (round == 0)
            purge(*state, STORE_PURGE_ALL, "", false);
        else if (round == 1)
            purge(*state, STORE_PURGE_TAG, "y", false);
        else
            purge(*state, STORE_PURGE_PREFIX, "http://h/", false);
        for (size_t i = 0; i < NELEM(counts); i++)
            assert_int_equal(store_purge_count(*state, &counts[i]), 0);
        assert_int_equal(purge(*state, STORE_PURGE_URL, "http://h/1", false).objects, 0);
        sweep(*state);
    }
}

static void
the_figure_of_memory_is_true_once_the_sweeper_has_freed(void **state)
{
    struct store *s = *state;
    int64_t empty = stats_gauge(GAUGE_cache_memory);
    struct store_figures f;

    PUT(s, .key = "http://h/a", .body_n = 100000);
    PUT(s, .key = "http://h/b", .body_n = 100000);
    assert_true(stats_gauge(GAUGE_cache_memory) >= empty + 200000);
    purge(s, STORE_PURGE_URL, "http://h/a", false);
    assert_in_range(stats_gauge(GAUGE_cache_memory), empty + 100000, empty + 150000);
    purge(s, STORE_PURGE_ALL, "", false);
    sweep_wait(s);
    store_figures(s, &f);
    assert_int_equal(stats_gauge(GAUGE_cache_memory), f.bytes);
    assert_in_range(f.bytes, 0, empty + 50000);
}

static void *
purge_elsewhere(void *arg)
{
    struct store_purged r;

    store_purge(arg, &(struct store_purge){ .kind = STORE_PURGE_ALL }, &r);
    return NULL;
}

/* Who purges tells by it whether anybody else did meanwhile. */
static void
a_thread_counts_its_own_purges(void **state)
{
    struct store *s = *state;
    uint64_t made = store_purges_made(), stamp = store_stamp(s);
    struct store_purged r;
    pthread_t t;

    for (int i = 0; i < 3; i++)
        store_purge(s, &(struct store_purge){ .kind = STORE_PURGE_URL, .text = SLICE("http://h/") },
            &r);
    assert_int_equal(store_purges_made() - made, 3);
    assert_int_equal(store_stamp(s) - stamp, 3);
    assert_int_equal(pthread_create(&t, NULL, purge_elsewhere, s), 0);
    pthread_join(t, NULL);
    assert_int_equal(store_purges_made() - made, 3);
    assert_int_equal(store_stamp(s) - stamp, 4);
}

int
main(void)
{
    const struct CMUnitTest purges[] = {
        TEST(a_url_goes_with_all_its_variants),
        TEST(a_url_goes_with_thousands_of_keys_that_have_parts),
        TEST(a_tag_takes_what_carries_it),
        TEST(a_group_takes_what_is_in_it_under_its_origin_or_under_all),
        TEST(a_304_may_change_the_groups_and_keeps_the_tags),
        TEST(each_text_matches_what_it_says),
        TEST(a_route_takes_what_it_brought),
        TEST(a_soft_purge_leaves_it_stale_until_it_comes_anew),
        TEST(what_is_in_flight_during_a_purge_is_not_stored),
        TEST(another_purge_does_not_touch_what_is_in_flight),
        TEST(a_purge_ends_a_mark),
        TEST(a_thread_counts_its_own_purges),
        TEST(the_sweeper_frees_the_bytes),
        TEST(rules_are_forgotten_and_still_refuse_what_they_could_match),
        TEST(more_rules_than_can_be_swept_purge_everything),
        TEST(what_an_earlier_purge_took_is_not_counted_again),
        TEST(the_figure_of_memory_is_true_once_the_sweeper_has_freed),
    };

    return RUN(purges);
}
