/*
 * What another instance erases goes from the tiers here before anybody is told that it was applied.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <event2/event.h>

#include "purge/bus.h"

/* In place of the tiers': it answers when the test says so. */
static struct { void (*done)(void *arg, unsigned left); void *arg; int calls; } tier;

int
tier_erase(struct tiers *t, struct loop *l, void (*done)(void *arg, unsigned left), void *arg)
{
    assert_non_null(t);
    assert_non_null(l);
    tier.done = done;
    tier.arg = arg;
    tier.calls++;
    return 0;
}

static struct bus b;
static struct timer poll;
static bool (*come)(void);

static void
on_poll(void *arg)
{
    (void)arg;
    if (come())
        event_base_loopbreak(loop_base(b.loop));
    else
        timer_set(&poll, 1000);
}

static void
run_until(bool (*what)(void))
{
    come = what;
    timer_set(&poll, 0);
    loop_run(b.loop);
}

static bool is_asked(void) { return b.erase.asked; }
static bool is_over(void) { return !b.erase.held; }
static bool is_second(void) { return tier.calls == 2 && b.erase.asked; }

static void
answer(unsigned left)
{
    tier.done(tier.arg, left);
}

/* An entry at that place is read, and the run that it needs begins. */
static void
read_entry(uint64_t ms)
{
    bus_erase_want(&b);
    b.at.ms = ms;
    b.count++;
}

static int
begin(void **state)
{
    struct err e;

    (void)state;
    bus_erase_us = 60 * SECOND_US;
    memset(&tier, 0, sizeof tier);
    b = (struct bus){ .saved_fd = -1, .tiers = (struct tiers *)(void *)&tier, .at = { 5, 0 },
        .count = 50 };
    b.store = store_new(1 << 20, 4, &e);
    b.loop = loop_new(0, &e);
    return b.store == NULL || b.loop == NULL || timer_init(&poll, b.loop, on_poll, NULL) == -1 ||
        bus_erase_init(&b) == -1;
}

static int
end(void **state)
{
    (void)state;
    bus_erase_fini(&b);
    timer_fini(&poll);
    loop_free(&b.loop);
    store_free(&b.store);
    return 0;
}

static void
a_place_is_told_once_bytes_are_gone_and_one_run_is_for_all_that_came(void **state)
{
    (void)state;
    assert_int_equal(bus_told(&b).at.ms, 5);
    read_entry(6);
    read_entry(7);
    run_until(is_asked);
    assert_int_equal(bus_told(&b).at.ms, 5);
    assert_int_equal(bus_told(&b).count, 50);
    read_entry(8);                      /* the run may have passed what it took */
    read_entry(9);
    answer(0);
    run_until(is_second);
    assert_int_equal(bus_told(&b).at.ms, 7);
    assert_int_equal(bus_told(&b).count, 52);
    answer(0);
    run_until(is_over);
    assert_int_equal(bus_told(&b).at.ms, 9);
    assert_int_equal(tier.calls, 2);
}

static void
a_run_that_failed_is_tried_again(void **state)
{
    (void)state;
    read_entry(6);
    run_until(is_asked);
    answer(1u << TIER_DISK);
    run_until(is_second);
    assert_int_equal(bus_told(&b).at.ms, 5);
    answer(0);
    run_until(is_over);
    assert_int_equal(bus_told(&b).at.ms, 6);
}

static void
tiers_that_do_not_answer_are_waited_for_no_longer_than_that_and_asked_again_behind_it(void **state)
{
    (void)state;
    bus_erase_us = 20 * MS_US;
    read_entry(6);
    run_until(is_over);
    assert_int_equal(bus_told(&b).at.ms, 6);
    bus_erase_us = 60 * SECOND_US;
    read_entry(7);
    assert_int_equal(tier.calls, 1);
    while (!b.erase.again)
        event_base_loop(loop_base(b.loop), EVLOOP_ONCE);
    answer(0);                          /* of the first run: it says nothing of this one */
    assert_int_equal(tier.calls, 2);
    assert_int_equal(bus_told(&b).at.ms, 6);
    answer(0);
    run_until(is_over);
    assert_int_equal(bus_told(&b).at.ms, 7);
}

static void
what_is_held_back_of_one_stream_is_of_no_account_in_another(void **state)
{
    (void)state;
    read_entry(6);
    run_until(is_asked);
    b.at.ms = 3;
    bus_erase_moved(&b);
    assert_int_equal(bus_told(&b).at.ms, 3);
    answer(0);
    run_until(is_over);
    assert_int_equal(bus_told(&b).at.ms, 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_place_is_told_once_bytes_are_gone_and_one_run_is_for_all_that_came, begin, end),
        cmocka_unit_test_setup_teardown(a_run_that_failed_is_tried_again, begin, end),
        cmocka_unit_test_setup_teardown(
            tiers_that_do_not_answer_are_waited_for_no_longer_than_that_and_asked_again_behind_it,
            begin, end),
        cmocka_unit_test_setup_teardown(
            what_is_held_back_of_one_stream_is_of_no_account_in_another, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
