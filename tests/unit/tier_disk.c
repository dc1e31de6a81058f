/*
 * The disk tier: what is kept, what is found, what purges make of it.
 */
#include "tier_kit.h"

static void
what_was_stored_is_found_after_a_restart_whole(void **state)
{
    struct bench *b = *state;
    char body[64];

    KEEP(b, .key = "http://h/a", .body = "alpha", .tags = { "t" });
    KEEP(b, .key = "http://h/b|cookie", .body = "beta");
    forget_memory(b);
    assert_int_equal(get(b->s, "http://h/a"), STORE_MISS);
    assert_int_equal(ask(b, "http://h/a"), FOUND);
    assert_int_equal(get_at(b->s, "http://h/a", NULL, 0, body, NULL), STORE_HIT);
    assert_string_equal(body, "alpha");
    assert_int_equal(ask(b, "http://h/b|cookie"), FOUND);
    ASSERT_BODY(b->s, "http://h/b|cookie", NULL, "beta");
    purge(b->s, STORE_PURGE_TAG, "t", false);
    assert_int_equal(get(b->s, "http://h/a"), STORE_MISS);
}

static void
what_is_not_there_is_known_without_io_once_the_index_is_loaded(void **state)
{
    struct bench *b = *state;

    KEEP(b, .key = "http://h/a", .body = "a");
    forget_memory(b);
    settle(b);
    assert_int_equal(ask(b, "http://h/other"), AT_ONCE);
    assert_int_equal(ask(b, "http://h/a"), FOUND);
}

static void
all_variants_of_a_key_come_and_the_newest_replaces_its_like(void **state)
{
    struct bench *b = *state;
    int64_t now = wall_ms();

    KEEP(b, .key = "http://h/v", .body = "en", .language = "en", .response_ms = now - 4000);
    KEEP(b, .key = "http://h/v", .body = "de", .language = "de", .response_ms = now - 3000);
    KEEP(b, .key = "http://h/v", .body = "en2", .language = "en", .response_ms = now - 2000);
    forget_memory(b);
    settle(b);
    assert_int_equal(figures(b).objects, 2);
    assert_int_equal(ask(b, "http://h/v"), FOUND);
    ASSERT_BODY(b->s, "http://h/v", "en", "en2");
    ASSERT_BODY(b->s, "http://h/v", "de", "de");
    KEEP(b, .key = "http://h/v", .body = "all");
    forget_memory(b);
    settle(b);
    assert_int_equal(figures(b).objects, 1);
}

static void
what_memory_has_already_is_left_alone_there(void **state)
{
    struct bench *b = *state;
    uint64_t before;

    KEEP(b, .key = "http://h/a", .body = "a");
    settle(b);
    before = stats_counter(STATS_cache_stores);
    assert_int_equal(ask(b, "http://h/a"), FOUND);
    assert_int_equal(stats_counter(STATS_cache_stores), before);
}

static void
what_nobody_could_use_any_more_is_not_found_and_removed(void **state)
{
    struct bench *b = *state;

    KEEP(b, .key = "http://h/old", .body = "old", .lifetime_ms = 1000,
        .response_ms = wall_ms() - 5000);
    forget_memory(b);
    settle(b);
    assert_int_equal(figures(b).objects, 1);
    assert_int_equal(ask(b, "http://h/old"), NOTHING);
    settle(b);
    assert_int_equal(figures(b).objects, 0);
}

static void
what_came_before_the_clock_was_set_back_is_not_found(void **state)
{
    struct bench *b = *state;

    KEEP(b, .key = "http://h/a", .body = "a", .response_ms = wall_ms() + 3600000);
    forget_memory(b);
    assert_int_equal(ask(b, "http://h/a"), NOTHING);
    settle(b);
    assert_int_equal(figures(b).objects, 0);
}

/* ---- purges --------------------------------------------------------------------------------- */

static const struct purge_case {
    enum store_purge_kind kind;
    const char *text;
    size_t n;
    uint64_t id;
    bool a, b, c;                       /* what is left */
} cases[] = {
    { STORE_PURGE_URL, "http://h/x/a", 0, 0, false, true, true },
    { STORE_PURGE_URL, "http://h/x/b", 0, 0, true, false, true },
    { STORE_PURGE_PREFIX, "http://h/x/", 0, 0, false, false, true },
    { STORE_PURGE_PATTERN, "/x/?", 0, 0, false, false, true },
    { STORE_PURGE_TAG, "one", 0, 0, false, true, true },
    { STORE_PURGE_TAG, "two", 0, 0, false, false, true },
    { STORE_PURGE_GROUP, "http://h\0g", 10, 0, true, true, false },
    { STORE_PURGE_GROUP, "\0g", 2, 0, true, true, false },
    { STORE_PURGE_ROUTE, "", 0, 7, true, false, true },
    { STORE_PURGE_ALL, "", 0, 0, false, false, false },
    { STORE_PURGE_PATH, "/x/a", 0, 0, false, true, true },
    { STORE_PURGE_PATH_PREFIX, "/y", 0, 0, true, true, false },
};

static void
keep_three(struct bench *b)
{
    KEEP(b, .key = "http://h/x/a", .body = "a", .tags = { "one", "two" });
    KEEP(b, .key = "http://h/x/b|part", .body = "b", .tags = { "two" }, .route_id = 7);
    KEEP(b, .key = "http://h/y/c", .body = "c", .groups = { { "http://h\0g", 10 } });
}

static void
do_purge(struct bench *b, const struct purge_case *c, bool soft)
{
    const struct store_purge p = { .kind = c->kind, .id = c->id, .soft = soft,
        .text = { c->text, c->n > 0 ? c->n : strlen(c->text) } };
    struct store_purged r;

    assert_int_equal(store_purge(b->s, &p, &r), 0);
}

static void
expect(struct bench *b, const char *key, bool left)
{
    enum answer a = ask(b, key);

    if ((a == FOUND) != left)
        fail_msg("%s: %d", key, a);
}

/* It was put when memory was larger. */
static void
what_memory_can_never_take_is_removed_once_it_was_read(void **state)
{
    struct bench *b = *state;

    KEEP(b, .key = "http://h/large", .body_n = 300000);
    KEEP(b, .key = "http://h/small", .body_n = 3000);
    settle(b);
    b->memory = MIB / 4;
    bench_restart(b);
    assert_int_equal(ask(b, "http://h/large"), NOTHING);
    settle(b);
    assert_int_equal(figures(b).objects, 1);
    assert_int_equal(ask(b, "http://h/large"), AT_ONCE);
    assert_int_equal(ask(b, "http://h/small"), FOUND);
}

static void
each_kind_of_purge_removes_what_it_matches_and_nothing_else(void **state)
{
    struct bench *b = *state;

    for (size_t i = 0; i < NELEM(cases); i++) {
        keep_three(b);
        settle(b);
        do_purge(b, &cases[i], false);
        forget_memory(b);
        expect(b, "http://h/x/a", cases[i].a);
        expect(b, "http://h/x/b|part", cases[i].b);
        expect(b, "http://h/y/c", cases[i].c);
        purge(b->s, STORE_PURGE_ALL, "", false);
        settle(b);
        assert_int_equal(figures(b).objects, 0);
    }
}

static void
what_was_softly_purged_comes_back_stale(void **state)
{
    struct bench *b = *state;

    for (size_t i = 0; i < NELEM(cases); i++) {
        keep_three(b);
        settle(b);
        do_purge(b, &cases[i], true);
        forget_memory(b);
        assert_int_equal(ask(b, "http://h/x/a"), FOUND);
        assert_int_equal(ask(b, "http://h/x/b|part"), FOUND);
        assert_int_equal(ask(b, "http://h/y/c"), FOUND);
        assert_int_equal(is_soft(b->s, "http://h/x/a"), !cases[i].a);
        assert_int_equal(is_soft(b->s, "http://h/x/b|part"), !cases[i].b);
        assert_int_equal(is_soft(b->s, "http://h/y/c"), !cases[i].c);
        purge(b->s, STORE_PURGE_ALL, "", false);
    }
}

static void
note_doubt(void *arg, const struct object *o, struct slice vary, bool soft)
{
    struct bench *b = ((void **)arg)[0];
    bool *doubt = ((void **)arg)[1];

    (void)vary;
    *doubt = soft && store_doubts(b->s, o, wall_ms());
}

/* Nobody's leave to serve stale was given to that. */
static void
what_was_in_doubt_comes_back_in_doubt(void **state)
{
    const struct store_purge all = { .kind = STORE_PURGE_ALL, .soft = true, .doubt = true };
    struct bench *b = *state;
    struct store_purged r;
    struct test_key k;
    bool doubt = false;

    KEEP(b, .key = "http://h/a", .body = "a");
    settle(b);
    assert_int_equal(store_purge(b->s, &all, &r), 0);
    purge(b->s, STORE_PURGE_PREFIX, "http://h/", true);
    forget_memory(b);
    assert_int_equal(ask(b, "http://h/a"), FOUND);
    store_each(b->s, key_fill(&k, "http://h/a"), note_doubt, (void *[]){ b, &doubt });
    assert_true(doubt);
}

/* They are looked for together: what one means must not be taken for another's. */
static void
many_purges_at_once_are_each_what_they_are(void **state)
{
    struct bench *b = *state;
    char key[64];

    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "http://h/%03d", i);
        KEEP(b, .key = key, .body = "x");
    }
    settle(b);
    for (int i = 0; i < 200; i++) {     /* of four, one each: hard, soft, soft and hard, none */
        snprintf(key, sizeof key, "/%03d*", i);
        if (i % 4 == 1 || i % 4 == 2)
            purge(b->s, STORE_PURGE_PATTERN, key, true);
        if (i % 4 == 0 || i % 4 == 2)
            purge(b->s, STORE_PURGE_PATH_PREFIX, (key[4] = '\0', key), false);
    }
    forget_memory(b);
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "http://h/%03d", i);
        expect(b, key, i % 2 == 1);
        if (i % 2 == 1)
            assert_int_equal(is_soft(b->s, key), i % 4 == 1);
    }
}

static void
what_a_purge_has_forbidden_is_not_written(void **state)
{
    struct bench *b = *state;
    struct object *o = NULL;

    assert_int_equal(keep_in(b->s, (struct keep){ .key = "http://h/a", .body = "a",
        .tags = { "t" } }, &o), STORE_STORED);
    purge(b->s, STORE_PURGE_TAG, "t", false);
    tier_put(b->t, o);
    object_unref(&o);
    settle(b);
    assert_int_equal(figures(b).objects, 0);
}

static void
what_memory_drops_goes_from_the_disk_too(void **state)
{
    struct bench *b = *state;
    struct object *o = NULL;

    assert_int_equal(keep_in(b->s, (struct keep){ .key = "http://h/a", .body = "a" }, &o),
        STORE_STORED);
    tier_put(b->t, o);
    KEEP(b, .key = "http://h/b", .body = "b");
    settle(b);
    store_drop(b->s, o);
    object_unref(&o);
    settle(b);
    assert_int_equal(figures(b).objects, 1);
    assert_int_not_equal(ask(b, "http://h/a"), FOUND);
}

/* Memory has a response without Vary, which the disk does not keep: all variants made way. */
static void
what_is_not_kept_takes_along_what_it_replaced(void **state)
{
    struct bench *b = *state;

    KEEP(b, .key = "http://h/v", .body = "en", .language = "en", .response_ms = wall_ms() - 9000);
    KEEP(b, .key = "http://h/v", .body = "de", .language = "de", .response_ms = wall_ms() - 9000);
    settle(b);
    assert_int_equal(figures(b).objects, 2);
    KEEP(b, .key = "http://h/v", .body_n = MIB + 1);
    settle(b);
    assert_int_equal(figures(b).objects, 0);
}

/* Else it would be found in the place of what memory had last. */
static void
what_memory_lost_before_its_turn_takes_an_older_one_along(void **state)
{
    struct bench *b = *state;
    struct object *o = NULL;

    KEEP(b, .key = "http://h/a", .body = "old", .response_ms = wall_ms() - 9000);
    settle(b);
    assert_int_equal(keep_in(b->s, (struct keep){ .key = "http://h/a", .body = "new" }, &o),
        STORE_STORED);
    assert_int_equal(keep_in(b->s, (struct keep){ .key = "http://h/a", .body = "newest" }, NULL),
        STORE_STORED);
    tier_put(b->t, o);
    object_unref(&o);
    settle(b);
    assert_int_equal(figures(b).objects, 0);
}

static void
erased_means_that_no_file_holds_the_bytes(void **state)
{
    struct bench *b = *state;
    char body[40000];

    memset(body, 'q', sizeof body);
    body[sizeof body - 1] = '\0';
    memcpy(body + 30000, "sensitive-tail", 14);
    KEEP(b, .key = "http://h/secret-name", .body = "sensitive-short", .tags = { "secret-tag" });
    KEEP(b, .key = "http://h/long", .body = body, .tags = { "secret-tag" });
    KEEP(b, .key = "http://h/stays", .body = "stays-here");
    settle(b);
    assert_true(files_hold(b, "sensitive-short") && files_hold(b, "sensitive-tail"));
    purge(b->s, STORE_PURGE_TAG, "secret-tag", false);
    assert_true(erase(b));
    assert_false(files_hold(b, "sensitive"));
    assert_false(files_hold(b, "secret"));
    assert_true(files_hold(b, "stays-here"));
    purge(b->s, STORE_PURGE_ALL, "", false);
    assert_true(erase(b));
    assert_false(files_hold(b, "stays-here"));
}

static void
more_purges_than_can_be_noted_empty_the_tier(void **state)
{
    struct bench *b = *state;
    char *text = malloc(70000);

    KEEP(b, .key = "http://h/a", .body = "a");
    settle(b);
    memset(text, '*', 69999);
    text[69999] = '\0';
    purge(b->s, STORE_PURGE_PATTERN, text, false);
    free(text);
    settle(b);
    assert_int_equal(figures(b).objects, 0);
    KEEP(b, .key = "http://h/b", .body = "b");
    forget_memory(b);
    assert_int_equal(ask(b, "http://h/b"), FOUND);
}

/* On the loop, as all that asks. */
static void
ask_and_cancel(struct loop_msg *m)
{
    struct question *q = CONTAINER(m, struct question, msg);
    const struct tier_want w = { .key = &q->key.k, .done = NULL };
    enum tier_answer now;

    for (int i = 0; i < 50; i++) {
        q->ask = tier_get(q->b->t, q->b->loop, &w, &now);
        tier_cancel(&q->ask);
        assert_null(q->ask);
    }
    sem_post(&q->done);
}

static void
who_cancels_is_not_told(void **state)
{
    struct question q = { .msg.run = ask_and_cancel, .b = *state };

    KEEP(q.b, .key = "http://h/a", .body = "a");
    forget_memory(q.b);
    key_fill(&q.key, "http://h/a");
    sem_init(&q.done, 0, 0);
    loop_post(q.b->loop, &q.msg);
    while (sem_wait(&q.done) == -1)
        continue;
    sem_destroy(&q.done);
    assert_int_equal(ask(q.b, "http://h/a"), FOUND);
}

/* A reader that stands still, as on a disk that does not answer: under a lock of the store. */
struct hang { struct bench *b; sem_t stands, goes_on; };

static void
stand_still(void *arg, const struct object *o, struct slice vary, bool soft)
{
    struct hang *h = arg;

    (void)o, (void)vary, (void)soft;
    sem_post(&h->stands);
    while (sem_wait(&h->goes_on) == -1)
        continue;
}

static void *
hold_up(void *arg)
{
    struct hang *h = arg;
    struct test_key k;

    rcu_enter_thread();
    store_each(h->b->s, key_fill(&k, "http://h/a"), stand_still, h);
    rcu_leave_thread();
    return NULL;
}

static void
begin_hang(struct hang *h, pthread_t *thread)
{
    sem_init(&h->stands, 0, 0);
    sem_init(&h->goes_on, 0, 0);
    assert_int_equal(pthread_create(thread, NULL, hold_up, h), 0);
    while (sem_wait(&h->stands) == -1)
        continue;
}

static void
end_hang(struct hang *h, pthread_t thread)
{
    sem_post(&h->goes_on);
    pthread_join(thread, NULL);
    sem_destroy(&h->stands);
    sem_destroy(&h->goes_on);
}

/* The writer stands still at another response, so the drop is on its way. */
static void
what_memory_dropped_is_not_found_before_the_file_knows(void **state)
{
    struct hang h = { .b = *state };
    struct object *first = NULL, *o = NULL;
    enum answer meanwhile;
    pthread_t thread;

    assert_int_equal(keep_in(h.b->s, (struct keep){ .key = "http://h/a", .body = "a" }, &first),
        STORE_STORED);
    assert_int_equal(keep_in(h.b->s, (struct keep){ .key = "http://h/b", .body = "b" }, &o),
        STORE_STORED);
    tier_put(h.b->t, o);
    settle(h.b);
    begin_hang(&h, &thread);
    tier_put(h.b->t, first);
    usleep(20000);                      /* it took that; if not, this shows nothing */
    store_drop(h.b->s, o);
    meanwhile = ask(h.b, "http://h/b");
    end_hang(&h, thread);
    assert_int_not_equal(meanwhile, FOUND);
    settle(h.b);
    assert_int_not_equal(ask(h.b, "http://h/b"), FOUND);
    assert_int_equal(get(h.b->s, "http://h/b"), STORE_MISS);
    KEEP(h.b, .key = "http://h/b", .body = "b");
    settle(h.b);
    assert_int_equal(ask(h.b, "http://h/b"), FOUND);
    object_unref(&first);
    object_unref(&o);
}

static void
a_disk_that_does_not_answer_is_waited_for_once_until_it_does(void **state)
{
    struct hang h = { .b = *state };
    uint64_t late = stats_counter(STATS_disk_late);
    pthread_t thread;

    KEEP(h.b, .key = "http://h/a", .body = "a");
    KEEP(h.b, .key = "http://h/b", .body = "b");
    settle(h.b);
    begin_hang(&h, &thread);
    assert_int_equal(ask(h.b, "http://h/a"), NOTHING);
    assert_int_equal(stats_counter(STATS_disk_late), late + 1);
    assert_int_equal(ask(h.b, "http://h/a"), AT_ONCE);
    assert_int_equal(ask(h.b, "http://h/b"), AT_ONCE);
    end_hang(&h, thread);
    while (ask(h.b, "http://h/a") != FOUND)
        usleep(500);
    assert_int_equal(ask(h.b, "http://h/b"), FOUND);
}

/* Likewise: the writer has not come to it. */
static void
who_erases_is_told_that_it_takes_too_long_and_may_ask_again(void **state)
{
    struct hang h = { .b = *state };
    struct object *o = NULL;
    int64_t was = disk_erase_us;
    pthread_t thread;
    bool meanwhile;

    assert_int_equal(keep_in(h.b->s, (struct keep){ .key = "http://h/a", .body = "a" }, &o),
        STORE_STORED);
    begin_hang(&h, &thread);
    tier_put(h.b->t, o);
    object_unref(&o);
    disk_erase_us = 20000;
    meanwhile = erase(h.b);
    disk_erase_us = was;
    end_hang(&h, thread);
    assert_false(meanwhile);
    assert_true(erase(h.b));
}

/* A sanitizer says what is left of it. */
static void
a_stop_leaves_nothing_of_an_erasure_that_is_under_way(void **state)
{
    struct hang h = { .b = *state };
    struct question q = { .msg.run = erase_on_loop, .b = h.b };
    struct object *o = NULL;
    pthread_t thread;

    assert_int_equal(keep_in(h.b->s, (struct keep){ .key = "http://h/a", .body = "a" }, &o),
        STORE_STORED);
    settle(h.b);
    sem_init(&q.done, 0, 0);
    begin_hang(&h, &thread);
    tier_put(h.b->t, o);
    object_unref(&o);
    loop_post(h.b->loop, &q.msg);
    assert_int_equal(ask(h.b, "http://h/b"), AT_ONCE);  /* behind it on the loop */
    loop_stop(h.b->loop);
    pthread_join(h.b->thread, NULL);
    end_hang(&h, thread);
    tiers_close(&h.b->t);
    assert_int_equal(sem_trywait(&q.done), -1);
    loop_free(&h.b->loop);
    store_free(&h.b->s);
    sem_destroy(&q.done);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BENCH(what_was_stored_is_found_after_a_restart_whole),
        BENCH(what_is_not_there_is_known_without_io_once_the_index_is_loaded),
        BENCH(all_variants_of_a_key_come_and_the_newest_replaces_its_like),
        BENCH(what_memory_has_already_is_left_alone_there),
        BENCH(what_nobody_could_use_any_more_is_not_found_and_removed),
        BENCH(what_memory_can_never_take_is_removed_once_it_was_read),
        BENCH(each_kind_of_purge_removes_what_it_matches_and_nothing_else),
        BENCH(what_was_softly_purged_comes_back_stale),
        BENCH(what_was_in_doubt_comes_back_in_doubt),
        BENCH(many_purges_at_once_are_each_what_they_are),
        BENCH(what_a_purge_has_forbidden_is_not_written),
        BENCH(what_came_before_the_clock_was_set_back_is_not_found),
        BENCH(what_memory_drops_goes_from_the_disk_too),
        BENCH(what_is_not_kept_takes_along_what_it_replaced),
        BENCH(what_memory_lost_before_its_turn_takes_an_older_one_along),
        BENCH(erased_means_that_no_file_holds_the_bytes),
        BENCH(more_purges_than_can_be_noted_empty_the_tier),
        BENCH(who_cancels_is_not_told),
        BENCH(what_memory_dropped_is_not_found_before_the_file_knows),
        BENCH(a_disk_that_does_not_answer_is_waited_for_once_until_it_does),
        BENCH(who_erases_is_told_that_it_takes_too_long_and_may_ask_again),
        BENCH(a_stop_leaves_nothing_of_an_erasure_that_is_under_way),
    };

    return RUN(tests);
}
