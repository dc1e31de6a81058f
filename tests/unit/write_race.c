/*
 * Writes that race, and who reads meanwhile: every order of their steps, against a model of the
 * origin.
 *
 * The origin has one resource, whose version is the number of writes that it has taken. Actors take
 * their steps one at a time in an order that a schedule gives: all of them for small casts, many at
 * random for larger ones. The store, the tickets and the purge sequence are the real ones. After
 * every step holds:
 *   who looks after a writer had its answer never gets what was before that write;
 *   a fill is what the origin would answer at the moment when it is published;
 *   what the store has never goes back.
 */
#include "store_util.h"

#include <pthread.h>

#include "write/write.h"

#define STEPS_MAX 8
#define CAST_MAX  6

static struct store *store;
static unsigned long runs, filled, raced;

/* ---- the world -------------------------------------------------------------------------------- */

static struct world {
    char     url[32];
    unsigned version;               /* at the origin */
    unsigned answered;              /* the newest version that some writer knows to be done */
    unsigned shown;                 /* the newest that the store ever had */
    int64_t  now_ms;                /* a tick a step */
} world;

enum kind { READER, BY_ANSWER, BY_FETCH, LEFT, KINDS };

struct actor {
    enum kind kind;
    unsigned  step, made, saw, floor;
    uint64_t  sent, stamp;          /* purge sequences */
    int64_t   request_ms, response_ms;
    bool      clean, done;
    struct race race;
};

static int
stored(void)
{
    char body[64];
    bool soft;

    return get_at(store, world.url, NULL, world.now_ms, body, &soft) == STORE_HIT ? atoi(body) : -1;
}

static enum store_result
put_version(unsigned version, uint64_t stamp, int64_t request_ms, int64_t response_ms)
{
    char body[16];

    snprintf(body, sizeof body, "%u", version);
    return PUT(store, .key = world.url, .body = body, .stamp = stamp, .request_ms = request_ms,
        .response_ms = response_ms, .date_ms = response_ms);
}

/* ---- what actors do --------------------------------------------------------------------------- */

static bool
reader(struct actor *a)
{
    int hit;

    switch (a->step) {
    case 0:                             /* looks; asks the origin where nothing is stored */
        a->floor = world.answered;
        a->stamp = store_stamp(store);
        a->request_ms = world.now_ms;
        if ((hit = stored()) == -1)
            return false;
        assert_true((unsigned)hit >= a->floor);
        return true;
    case 1:                             /* the origin answers */
        a->saw = world.version;
        a->response_ms = world.now_ms;
        return false;
    default:
        assert_true(a->saw >= a->floor);
        (void)put_version(a->saw, a->stamp, a->request_ms, a->response_ms);
        return true;
    }
}

static void
purge_it(struct actor *a)
{
    struct test_key k;
    struct store_purged done;
    struct write_purge p;
    const struct store_purge url = { .kind = STORE_PURGE_URL, .text = slice_of(world.url) };

    write_purge_begin(store, key_fill(&k, world.url), 0, a->sent, &p);
    assert_int_equal(store_purge(store, &url, &done), 0);
    a->clean = write_purge_end(store, &p);
    a->stamp = p.stamp;
}

static void
begin(struct actor *a)
{
    a->request_ms = world.now_ms;
    a->sent = store_stamp(store);
    race_begin(&a->race, 1);
}

/* The fill, and then its answer leaves. */
static void
publish(struct actor *a, unsigned version)
{
    if (a->clean && race_hold(&a->race)) {
        assert_int_equal(version, world.version);
        (void)put_version(version, a->stamp, a->request_ms, a->response_ms);
        race_release(&a->race);
        assert_int_equal(stored(), (int)version);
        filled++;
    } else {
        raced++;
    }
    race_end(&a->race);
    if (world.answered < a->made)
        world.answered = a->made;
}

static bool
writer(struct actor *a)
{
    switch (a->step) {
    case 0:
        begin(a);
        return false;
    case 1:
        a->made = ++world.version;
        return false;
    case 2:
        a->response_ms = world.now_ms;
        purge_it(a);
        race_answered(&a->race);
        return false;
    case 3:
        if (a->kind == BY_FETCH) {      /* sent after the purge, with a stamp of its own */
            a->clean = true;
            a->request_ms = world.now_ms;
            a->stamp = store_stamp(store);
            return false;
        }
        publish(a, a->made);
        return true;
    case 4:
        a->saw = world.version;
        a->response_ms = world.now_ms;
        return false;
    default:
        publish(a, a->saw);
        return true;
    }
}

/* Its client leaves while it is at the origin, which takes it later. */
static bool
leaver(struct actor *a)
{
    switch (a->step) {
    case 0:
        begin(a);
        return false;
    case 1:
        purge_it(a);
        return false;
    case 2:
        a->made = ++world.version;
        return false;
    default:
        purge_it(a);
        race_answered(&a->race);
        race_end(&a->race);
        if (world.answered < a->made)
            world.answered = a->made;
        return true;
    }
}

/* One step; nothing when it has none left. */
static void
act(struct actor *a)
{
    static bool (*const does[])(struct actor *) = { [READER] = reader, [BY_ANSWER] = writer,
        [BY_FETCH] = writer, [LEFT] = leaver };
    int hit;

    if (a->done)
        return;
    world.now_ms++;
    a->done = does[a->kind](a);
    a->step++;
    if ((hit = stored()) == -1)
        return;
    if ((unsigned)hit < world.shown)
        fail_msg("the store went back from %u to %d", world.shown, hit);
    world.shown = (unsigned)hit;
    assert_true((unsigned)hit >= world.answered);
}

/* ---- schedules -------------------------------------------------------------------------------- */

static const unsigned steps_of[KINDS] = { [READER] = 3, [BY_ANSWER] = 4, [BY_FETCH] = 6,
    [LEFT] = 4 };

static void
play(const enum kind *cast, size_t n, const uint8_t *order, size_t steps)
{
    struct actor actors[CAST_MAX] = { 0 };

    world = (struct world){ .now_ms = 1000000 };
    snprintf(world.url, sizeof world.url, "http://h/%lu", runs++);
    for (size_t i = 0; i < n; i++)
        actors[i].kind = cast[i];
    for (size_t i = 0; i < steps; i++)
        act(&actors[order[i]]);
    for (size_t i = 0; i < n; i++)
        assert_true(actors[i].done);
}

static void
play_all(const enum kind *cast, size_t n, unsigned *left, uint8_t *order, size_t at, size_t steps)
{
    if (at == steps) {
        play(cast, n, order, steps);
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (left[i] > 0) {
            left[i]--;
            order[at] = (uint8_t)i;
            play_all(cast, n, left, order, at + 1, steps);
            left[i]++;
        }
}

static size_t
fill_order(const enum kind *cast, size_t n, unsigned *left, uint8_t *order)
{
    size_t steps = 0;

    for (size_t i = 0; i < n; i++) {
        left[i] = steps_of[cast[i]];
        for (unsigned k = 0; k < left[i]; k++)
            order[steps++] = (uint8_t)i;
    }
    return steps;
}

static void
play_every_order(const enum kind *cast, size_t n)
{
    unsigned left[CAST_MAX];
    uint8_t order[CAST_MAX * STEPS_MAX];
    size_t steps = fill_order(cast, n, left, order);

    play_all(cast, n, left, order, 0, steps);
}

static void
play_some_orders(const enum kind *cast, size_t n, unsigned times)
{
    unsigned left[CAST_MAX];
    uint8_t order[CAST_MAX * STEPS_MAX];
    size_t steps = fill_order(cast, n, left, order);

    while (times-- > 0) {
        for (size_t i = steps; i > 1; i--) {
            size_t j = (size_t)rand() % i;
            uint8_t was = order[i - 1];

            order[i - 1] = order[j];
            order[j] = was;
        }
        play(cast, n, order, steps);
    }
}

#define EVERY(...) \
    play_every_order((const enum kind[]){ __VA_ARGS__ }, NELEM(((const enum kind[]){ __VA_ARGS__ })))
#define SOME(times, ...) \
    play_some_orders((const enum kind[]){ __VA_ARGS__ }, \
        NELEM(((const enum kind[]){ __VA_ARGS__ })), times)

/* ---- tests ------------------------------------------------------------------------------------ */

static int
open_store(void **state)
{
    struct err e;

    (void)state;
    srand(20250101);
    rcu_enter_thread();
    store = store_new(64 << 20, 8, &e);
    return store != NULL ? 0 : -1;
}

static int
close_store(void **state)
{
    (void)state;
    store_free(&store);
    rcu_leave_thread();
    return 0;
}

static void
in_every_order_of_two_writes_and_a_reader_nothing_goes_back(void **state)
{
    (void)state;
    filled = raced = 0;
    EVERY(BY_ANSWER, BY_ANSWER, READER);
    assert_int_equal(runs, 11550);
    assert_true(filled > 1000 && raced > 1000);
    EVERY(BY_ANSWER, READER, READER);
    EVERY(BY_FETCH, READER, READER);
    EVERY(BY_ANSWER, LEFT, READER);
}

static void
in_every_order_of_three_writes_nothing_goes_back(void **state)
{
    (void)state;
    EVERY(BY_ANSWER, BY_ANSWER, BY_ANSWER);
    EVERY(BY_ANSWER, BY_FETCH);
    EVERY(BY_FETCH, BY_FETCH);
}

static void
in_many_orders_of_many_writes_and_readers_nothing_goes_back(void **state)
{
    (void)state;
    SOME(20000, BY_ANSWER, BY_ANSWER, READER, READER);
    SOME(20000, BY_ANSWER, BY_FETCH, READER, READER);
    SOME(20000, BY_ANSWER, BY_ANSWER, BY_FETCH, READER, READER, READER);
    SOME(20000, BY_ANSWER, BY_FETCH, LEFT, READER, READER, READER);
}

static void
one_after_the_other_every_write_leaves_its_own(void **state)
{
    static const uint8_t order[] = { 0, 0, 0, 0, 1, 1, 1, 1, 2 };

    (void)state;
    filled = raced = 0;
    play((const enum kind[]){ BY_ANSWER, BY_ANSWER, READER }, 3, order, sizeof order);
    assert_int_equal(filled, 2);
    assert_int_equal(raced, 0);
}

static void
a_write_that_begins_during_a_fill_keeps_that_out_and_not_its_own(void **state)
{
    struct race first = { 0 }, second = { 0 }, elsewhere = { 0 };

    (void)state;
    race_begin(&first, 1);
    race_begin(&elsewhere, 1 + 256);    /* the same shard */
    race_answered(&first);
    race_begin(&second, 1);
    race_answered(&second);
    assert_false(race_hold(&first));
    assert_true(race_overlapped(&first));
    assert_true(race_hold(&second));
    race_release(&second);
    race_end(&first);
    race_end(&first);
    assert_true(race_hold(&second));
    race_release(&second);
    assert_false(race_overlapped(&elsewhere));
    assert_false(race_hold(&elsewhere));        /* not answered yet */
    race_end(&second);
    race_end(&elsewhere);
    assert_false(race_hold(&second));           /* out */
}

/* ---- threads: for ThreadSanitizer, and for the lock around publishing --------------------------- */

#define THREADS 4

static _Atomic unsigned latest;         /* what the origin has; a write takes it as its own */
static unsigned published;              /* under the hold alone */
static atomic_ulong holds;

static void *
hammer(void *arg)
{
    struct race t = { 0 };

    (void)arg;
    for (int i = 0; i < 20000; i++) {
        unsigned mine;

        race_begin(&t, 7);
        mine = atomic_fetch_add(&latest, 1) + 1;
        race_answered(&t);
        if (race_hold(&t)) {
            assert_true(mine == atomic_load(&latest));
            assert_true(mine > published);
            published = mine;
            race_release(&t);
            atomic_fetch_add(&holds, 1);
        }
        race_end(&t);
        if (i % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void
while_a_fill_is_published_no_other_write_begins(void **state)
{
    pthread_t t[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&t[i], NULL, hammer, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    assert_true(holds > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_every_order_of_two_writes_and_a_reader_nothing_goes_back),
        cmocka_unit_test(in_every_order_of_three_writes_nothing_goes_back),
        cmocka_unit_test(in_many_orders_of_many_writes_and_readers_nothing_goes_back),
        cmocka_unit_test(one_after_the_other_every_write_leaves_its_own),
        cmocka_unit_test(a_write_that_begins_during_a_fill_keeps_that_out_and_not_its_own),
        cmocka_unit_test(while_a_fill_is_published_no_other_write_begins),
    };

    return cmocka_run_group_tests(tests, open_store, close_store);
}
