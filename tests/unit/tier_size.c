/*
 * The disk tier's size, and what it evicts for it.
 */
#include "tier_kit.h"

static int
small(void **state)
{
    struct bench *b = malloc(sizeof *b);

    bench_make(b, 16 * MIB);
    bench_open(b);
    *state = b;
    return 0;
}

#define SMALL(f) cmocka_unit_test_setup_teardown(f, small, teardown)

static void
keep_slowly(struct bench *b, int i, const char *prefix, size_t n)
{
    char key[64], tag[16];

    while (figures(b).queued_bytes > (uint64_t)MIB / 2)
        usleep(200);
    snprintf(key, sizeof key, "http://h/%s/%d", prefix, i);
    snprintf(tag, sizeof tag, "t%d", i % 50);
    KEEP(b, .key = key, .body_n = n, .tags = { tag });
}

static void
within_its_size(struct bench *b)
{
    int64_t bytes = files_bytes(b);

    if (bytes > b->size + b->size / 20)
        fail_msg("%lld bytes of %lld", (long long)bytes, (long long)b->size);
}

static void
all_files_together_stay_within_the_size_and_use_it(void **state)
{
    struct bench *b = *state;
    uint64_t seed = 1, evicted = stats_counter(STATS_disk_evictions);

    for (int i = 0; i < 2500; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        keep_slowly(b, i, "churn", (size_t)(seed >> 33) % (i % 7 == 0 ? 190000 : 20000));
        if (i % 40 == 0)
            within_its_size(b);
        if (i % 300 == 299) {
            char tag[16];

            snprintf(tag, sizeof tag, "t%d", i % 50);
            purge(b->s, STORE_PURGE_TAG, tag, false);
        }
    }
    settle(b);
    within_its_size(b);
    assert_true(stats_counter(STATS_disk_evictions) > evicted);
    assert_true(files_bytes(b) > b->size * 9 / 10);
    bench_restart(b);
    settle(b);
    for (int i = 0; i < 300; i++)
        keep_slowly(b, i, "more", 30000);
    settle(b);
    within_its_size(b);
    assert_true(figures(b).bytes > (uint64_t)b->size * 85 / 100);
}

static void
small_ones_fit_by_the_thousand(void **state)
{
    struct bench *b = *state;

    for (int i = 0; i < 9000; i++) {
        keep_slowly(b, i, "small", 1500);
        if (i % 500 == 0)
            within_its_size(b);
    }
    settle(b);
    within_its_size(b);
    assert_true(figures(b).objects > 5000);
}

/* What was asked for stays while everything else comes once and goes. */
static void
one_scan_over_everything_does_not_evict_what_is_asked_for(void **state)
{
    struct bench *b = *state;
    int left = 0;

    for (int i = 0; i < 20; i++)
        keep_slowly(b, i, "hot", 50000);
    settle(b);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 20; i++) {
            char key[64];

            snprintf(key, sizeof key, "http://h/hot/%d", i);
            assert_int_equal(ask(b, key), FOUND);
        }
    for (int i = 0; i < 1000; i++)
        keep_slowly(b, i, "scan", 50000);
    forget_memory(b);
    for (int i = 0; i < 20; i++) {
        char key[64];

        snprintf(key, sizeof key, "http://h/hot/%d", i);
        left += ask(b, key) == FOUND;
    }
    assert_int_equal(left, 20);
}

static void
what_is_larger_than_a_part_of_it_is_not_kept(void **state)
{
    struct bench *b = *state;

    KEEP(b, .key = "http://h/large", .body_n = 16 * MIB / 80);
    KEEP(b, .key = "http://h/fits", .body_n = 16 * MIB / 80 - 2000);
    settle(b);
    assert_int_equal(figures(b).objects, 1);
}

static void
a_smaller_size_begins_anew_a_larger_one_goes_on(void **state)
{
    struct bench *b = *state;

    for (int i = 0; i < 400; i++)
        keep_slowly(b, i, "x", 50000);
    settle(b);
    bench_close(b);
    b->size = 64 * MIB;
    bench_open(b);
    settle(b);
    assert_true(figures(b).objects > 200);
    for (int i = 0; i < 400; i++)
        keep_slowly(b, i, "y", 50000);
    settle(b);
    assert_true(files_bytes(b) > 20 * MIB);
    bench_close(b);
    b->size = 16 * MIB;
    bench_open(b);
    settle(b);
    within_its_size(b);
    assert_int_equal(figures(b).objects, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SMALL(all_files_together_stay_within_the_size_and_use_it),
        SMALL(small_ones_fit_by_the_thousand),
        SMALL(one_scan_over_everything_does_not_evict_what_is_asked_for),
        SMALL(what_is_larger_than_a_part_of_it_is_not_kept),
        SMALL(a_smaller_size_begins_anew_a_larger_one_goes_on),
    };

    return RUN(tests);
}
