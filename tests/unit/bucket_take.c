/*
 * Token buckets of rate_limit against simple models, with a clock of the test's: one bucket against
 * tokens that are counted one by one, and instances that share one against what they were promised.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plugins/rate_limit/bucket.h"

#define START_US INT64_C(5000000000)

static uint64_t seeds = 88172645463325252u;

static uint64_t
any(uint64_t below)                     /* xorshift64: the same numbers in each run */
{
    seeds ^= seeds << 13;
    seeds ^= seeds >> 7;
    seeds ^= seeds << 17;
    return seeds % below;
}

/* ---- one instance -------------------------------------------------------------------------- */

static void
a_burst_passes_and_then_the_rate(void **state)
{
    const struct limit l = { 100000, 5 };
    struct bucket b = { .tat_us = 0 };
    struct verdict v;

    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        v = bucket_take(&b, &l, START_US);
        assert_int_equal(v.answer, LET_IN);
        assert_int_equal(v.left, 4 - i);
        assert_int_equal(v.wait_us, 100000);
    }
    v = bucket_take(&b, &l, START_US + 30000);
    assert_int_equal(v.answer, REFUSED);
    assert_int_equal(v.wait_us, 70000);
    assert_int_equal(bucket_take(&b, &l, START_US + 99999).answer, REFUSED);
    assert_int_equal(bucket_take(&b, &l, START_US + 100000).answer, LET_IN);
    assert_int_equal(bucket_take(&b, &l, START_US + 100000).answer, REFUSED);
    v = bucket_take(&b, &l, START_US + 10000000);
    assert_int_equal(v.left, 4);        /* full, and no fuller */
}

/* Counts whole tokens and the part of one that has come. */
struct model { int64_t tokens, part_us, at_us; };

static int64_t
model_at(struct model *m, const struct limit *l, int64_t now_us)
{
    m->part_us += now_us - m->at_us;
    m->at_us = now_us;
    m->tokens += m->part_us / l->each_us;
    m->part_us %= l->each_us;
    if (m->tokens >= l->burst) {
        m->tokens = l->burst;
        m->part_us = 0;
    }
    return m->tokens;
}

static bool
model_take(struct model *m, const struct limit *l, int64_t now_us)
{
    bool yes = model_at(m, l, now_us) > 0;

    m->tokens -= yes;
    return yes;
}

static void
decisions_are_those_of_counted_tokens(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        struct limit l = { 1 + (int64_t)any(round % 3 == 0 ? 3600000000 : 5000),
            1 + (uint32_t)any(round % 5 == 0 ? BURST_MAX : 20) };
        struct model m = { l.burst, 0, START_US };
        struct bucket b = { .tat_us = 0 };
        int64_t now = START_US;

        for (int i = 0; i < 500; i++) {
            bool yes = model_take(&m, &l, now);
            struct verdict v = bucket_take(&b, &l, now);

            assert_int_equal(v.answer, yes ? LET_IN : REFUSED);
            assert_int_equal(v.left, m.tokens);
            if (!yes || v.left == 0)
                assert_int_equal(v.wait_us, l.each_us - m.part_us);
            now += (int64_t)any((uint64_t)(2 * l.each_us));
            if (any(50) == 0)
                now += l.each_us * (int64_t)any(2 * l.burst);
        }
    }
}

static void
a_limit_that_becomes_smaller_keeps_nobody_out_for_longer_than_it_says(void **state)
{
    const struct limit before = { 3600000000, 100 }, after = { 1000000, 2 };
    struct bucket b = { .tat_us = 0 };
    struct verdict v;

    (void)state;
    for (int i = 0; i < 100; i++)
        bucket_take(&b, &before, START_US);
    v = bucket_take(&b, &after, START_US);
    assert_int_equal(v.answer, REFUSED);
    assert_int_equal(v.wait_us, 1000000);
    assert_int_equal(bucket_take(&b, &after, START_US + 1000000).answer, LET_IN);
}

/* ---- several that share one ------------------------------------------------------------------- */

#define INSTANCES 4
#define MANY      40                      /* more than can hold a tenth each */

/* What the script in shared.c does. */
static struct portion
shared_take(int64_t *full_us, const struct limit *l, uint32_t want, uint32_t back, int64_t now_us)
{
    int64_t all = l->each_us * l->burst, full = *full_us - back * l->each_us, n, room;

    full = full < now_us ? now_us : full > now_us + all ? now_us + all : full;
    n = (now_us + all - full) / l->each_us;
    n = n < want ? n : want;
    full += n * l->each_us;
    room = now_us + all - full;
    *full_us = full;
    return (struct portion){ (uint32_t)n, (uint32_t)(room / l->each_us), full - now_us,
        n == 0 ? l->each_us - room : 0 };
}

struct fleet { struct bucket at[MANY]; int64_t full_us; unsigned asks, let_in, refused; };

static void
fleet_ask(struct fleet *f, struct bucket *b, const struct limit *l, uint32_t waiting, int64_t now)
{
    uint32_t back, want = bucket_portion(b, l, now, &back);
    struct portion p = shared_take(&f->full_us, l, want, back, now);

    bucket_fill(b, &p, waiting, now);
    f->asks++;
}

static bool
fleet_request(struct fleet *f, unsigned instance, const struct limit *l, int64_t now)
{
    struct bucket *b = &f->at[instance];
    struct verdict v = bucket_take_shared(b, l, now);

    if (v.answer == ASK_FIRST) {
        fleet_ask(f, b, l, 1, now);
        v = bucket_take_shared(b, l, now);
        assert_int_not_equal(v.answer, ASK_FIRST);
    } else if (v.ask_ahead) {
        fleet_ask(f, b, l, 0, now);
    }
    assert_true(b->held <= (l->burst < 20 ? 1 : l->burst / 10));
    f->let_in += v.answer == LET_IN;
    f->refused += v.answer == REFUSED;
    return v.answer == LET_IN;
}

/* Over whatever time: as a bucket with a tenth more for each instance allows; and none is refused
 * while one with so much less has any. */
static void
instances_let_in_together_what_one_would_within_a_tenth_for_each(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        const struct limit l = { 1000 * (1 + (int64_t)any(100)), 1 + (uint32_t)any(200) };
        uint32_t slack = INSTANCES * (l.burst < 20 ? 1 : l.burst / 10);
        const struct limit more = { l.each_us, l.burst + slack };
        const struct limit less = { l.each_us, l.burst > slack ? l.burst - slack : 0 };
        struct model upper = { more.burst, 0, START_US }, lower = { less.burst, 0, START_US };
        struct fleet f = { .full_us = 0 };
        int64_t now = START_US;

        for (int i = 0; i < 4000; i++) {
            bool yes = fleet_request(&f, (unsigned)any(INSTANCES), &l, now);
            bool should = model_at(&lower, &less, now) > 0;

            assert_true(yes ? model_take(&upper, &more, now) : !should);
            lower.tokens -= yes;        /* what is let in beyond it, it owes */
            now += (int64_t)any((uint64_t)l.each_us / (1 + any(4)));
            if (any(200) == 0)
                now += l.each_us * (int64_t)any(2 * l.burst);
        }
    }
}

static void
after_a_pause_one_instance_lets_in_no_more_than_a_burst(void **state)
{
    const struct limit l = { 10000, 100 };
    struct fleet f = { .full_us = 0 };
    int64_t now = START_US;

    (void)state;
    for (int pause = 0; pause < 3; pause++) {
        f.let_in = 0;
        for (int i = 0; i < 150; i++)
            fleet_request(&f, 0, &l, now);
        assert_int_equal(f.let_in, 100);
        now += 10000000;
        for (int i = 0; i < 18; i++)
            fleet_request(&f, 0, &l, now);
        assert_true(f.at[0].held > 0);  /* which lapses */
        now += 10000000;
    }
}

static void
who_stays_below_the_rate_is_never_refused_however_it_is_spread(void **state)
{
    const struct limit l = { 100000, 40 };
    struct fleet f = { .full_us = 0 };
    int64_t now = START_US;

    (void)state;
    for (int i = 0; i < 5000; i++)
        fleet_request(&f, (unsigned)any(INSTANCES), &l, now += 110000);
    assert_int_equal(f.refused, 0);
    for (int i = 0; i < 3000; i++) {    /* some here, then some there: what is left over is not lost */
        unsigned who = (unsigned)any(MANY / 2), n = 1 + (unsigned)any(12);

        for (unsigned k = 0; k < n; k++)
            fleet_request(&f, who, &l, now);
        now += n * 115000;
    }
    assert_true(f.refused < 10);
}

static void
who_comes_once_to_each_instance_takes_one_token_of_each(void **state)
{
    const struct limit l = { 1000000000, 400 };
    struct fleet f = { .full_us = 0 };

    (void)state;
    for (unsigned i = 0; i < MANY; i++)
        assert_true(fleet_request(&f, i, &l, START_US));
    assert_int_equal(f.at[MANY - 1].left, 400 - MANY);
}

static void
few_requests_of_a_busy_key_ask_and_few_that_are_refused(void **state)
{
    const struct limit l = { 1000, 1000 };
    struct fleet f = { .full_us = 0 };
    int64_t now = START_US;

    (void)state;
    for (int i = 0; i < 10000; i++)
        fleet_request(&f, (unsigned)any(INSTANCES), &l, now += 1000);
    assert_int_equal(f.refused, 0);
    assert_true(f.asks < 10000 / 30);
    f.asks = 0;
    for (int i = 0; i < 10000; i++)
        fleet_request(&f, 0, &l, now += 10);            /* a hundred times too fast */
    assert_true(f.asks < 10000 / 30 && f.refused > 9000);
}

static void
those_that_waited_in_vain_are_asked_for_at_once(void **state)
{
    const struct limit l = { 1000000, 10 };
    struct bucket b = { .tat_us = 0 };
    int64_t full = 0;
    uint32_t back, want = bucket_portion(&b, &l, START_US, &back);
    struct portion p = shared_take(&full, &l, want, back, START_US);

    (void)state;
    assert_int_equal(want, 1);
    bucket_fill(&b, &p, 8, START_US);
    assert_int_equal(bucket_take_shared(&b, &l, START_US).answer, LET_IN);
    assert_int_equal(bucket_take_shared(&b, &l, START_US).answer, ASK_FIRST);
    want = bucket_portion(&b, &l, START_US, &back);
    assert_int_equal(want, 7);
    p = shared_take(&full, &l, want, back, START_US);
    bucket_fill(&b, &p, 7, START_US);
    for (int i = 0; i < 7; i++)
        assert_int_equal(bucket_take_shared(&b, &l, START_US).answer, LET_IN);
    assert_int_equal(bucket_take(&b, &l, START_US).left, 1);    /* all are counted here too */
}

/* ---- the table -------------------------------------------------------------------------------- */

static const unsigned char *
id_of(uint64_t n)
{
    static unsigned char id[BUCKET_ID];

    memset(id, 0, sizeof id);
    memcpy(id, &n, sizeof n);
    memcpy(id + 8, &n, sizeof n);
    return id;
}

static enum answer
take(struct buckets *t, uint64_t who, const struct limit *l, int64_t now, int *evicted)
{
    struct bucket *b = buckets_lock(t, id_of(who), now, evicted);
    enum answer a = bucket_take(b, l, now).answer;

    buckets_unlock(t, id_of(who));
    return a;
}

static void
a_table_forgets_full_buckets_first_and_never_grows(void **state)
{
    const struct limit l = { 1000000, 1 };
    const uint64_t seed[2] = { 0x9e3779b97f4a7c15u, 0xc2b2ae3d27d4eb4fu };
    struct buckets *t = buckets_new(1600, seed);
    int evicted, evictions = 0;

    (void)state;
    for (uint64_t i = 0; i < 800; i++) {
        assert_int_equal(take(t, i, &l, START_US, &evicted), LET_IN);
        evictions += evicted;
    }
    assert_true(evictions < 20);        /* half full, by a hash: few sets run over */
    evictions = 0;
    for (uint64_t i = 0; i < 100000; i++) {             /* each is full again when the next comes */
        assert_int_equal(take(t, 1000 + i, &l, START_US + 2000000 * (int64_t)(i + 1), &evicted), LET_IN);
        evictions += evicted;
    }
    assert_int_equal(evictions, 0);
    for (uint64_t i = 0; i < 5000; i++) {
        take(t, 200000 + i, &l, START_US, &evicted);
        evictions += evicted;
    }
    assert_true(evictions >= 5000 - 1600);
    buckets_free(&t);
}

static void
what_makes_room_is_nearest_to_being_full(void **state)
{
    const struct limit l = { 1000000, 10 };
    const uint64_t seed[2] = { 0x165667b19e3779f9u, 0xc2b2ae3d27d4eb4fu };
    struct buckets *t = buckets_new(BUCKET_WAYS, seed);
    int evicted;

    (void)state;
    for (uint64_t who = 0; who < BUCKET_WAYS; who++)
        for (uint64_t i = 0; i < (who == 5 ? 1 : 10); i++)
            take(t, who, &l, START_US, &evicted);
    assert_int_equal(take(t, 100, &l, START_US, &evicted), LET_IN);
    assert_int_equal(evicted, 1);
    for (uint64_t who = 0; who < BUCKET_WAYS; who++)
        if (who != 5)
            assert_int_equal(take(t, who, &l, START_US, &evicted), REFUSED);
    assert_null(buckets_lock_known(t, id_of(5)));
    buckets_unlock(t, id_of(5));
    buckets_free(&t);
}

/* ---- threads ---------------------------------------------------------------------------------- */

static struct buckets *table;

static void *
hammer(void *arg)
{
    const struct limit l = { 1000000000, 1000 };
    uintptr_t let_in = 0;
    int evicted;

    (void)arg;
    for (unsigned i = 0; i < 4000; i++) {
        unsigned char id[BUCKET_ID] = { (unsigned char)(i % 4) };
        struct bucket *b = buckets_lock(table, id, START_US, &evicted);

        let_in += bucket_take(b, &l, START_US).answer == LET_IN;
        buckets_unlock(table, id);
    }
    return (void *)let_in;
}

static void
threads_spend_no_token_twice(void **state)
{
    const uint64_t seed[2] = { 0x165667b19e3779f9u, 0x9e3779b97f4a7c15u };
    pthread_t threads[4];
    uintptr_t sum = 0;
    void *let_in;

    (void)state;
    table = buckets_new(1000, seed);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, NULL), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &let_in);
        sum += (uintptr_t)let_in;
    }
    assert_int_equal(sum, 4 * 1000);
    buckets_free(&table);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_passes_and_then_the_rate),
        cmocka_unit_test(decisions_are_those_of_counted_tokens),
        cmocka_unit_test(a_limit_that_becomes_smaller_keeps_nobody_out_for_longer_than_it_says),
        cmocka_unit_test(instances_let_in_together_what_one_would_within_a_tenth_for_each),
        cmocka_unit_test(after_a_pause_one_instance_lets_in_no_more_than_a_burst),
        cmocka_unit_test(who_stays_below_the_rate_is_never_refused_however_it_is_spread),
        cmocka_unit_test(who_comes_once_to_each_instance_takes_one_token_of_each),
        cmocka_unit_test(few_requests_of_a_busy_key_ask_and_few_that_are_refused),
        cmocka_unit_test(those_that_waited_in_vain_are_asked_for_at_once),
        cmocka_unit_test(a_table_forgets_full_buckets_first_and_never_grows),
        cmocka_unit_test(what_makes_room_is_nearest_to_being_full),
        cmocka_unit_test(threads_spend_no_token_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
