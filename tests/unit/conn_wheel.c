/* The timer wheel, by a clock of the test's own: deadlines come once, in time, and cost nothing to move. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "conn/priv.h"

static int64_t clock_us;

static int64_t
test_now(void)
{
    return clock_us;
}

static int
test_timer_init(struct timer *t, struct loop *l, void (*run)(void *), void *arg)
{
    (void)l;
    t->run = run;
    t->arg = arg;
    return 0;
}

static int
test_timer_set(struct timer *t, int64_t after_us)
{
    (void)t;
    assert_int_equal(after_us, WHEEL_US);
    return 0;
}

static void
test_timer_fini(struct timer *t)
{
    (void)t;
}

#define now_us     test_now
#define timer_init test_timer_init
#define timer_set  test_timer_set
#define timer_fini test_timer_fini
#include "conn/wheel.c"

#define CONNS 3000

struct fired { int64_t at_us; unsigned times; struct conn *kill; int64_t again_us; };
static struct conn conns[CONNS];
static struct fired fired[CONNS];
static struct conn_worker *worker;

void
conn_expired(struct conn *c)
{
    struct fired *f = &fired[c - conns];

    f->at_us = clock_us;
    f->times++;
    if (f->kill != NULL)
        wheel_remove(f->kill);
    if (f->again_us > 0)
        wheel_set(c, clock_us, f->again_us);
}

static void
advance(int64_t us)
{
    clock_us += us;
    worker->tick.run(worker->tick.arg);
}

static int
setup(void **state)
{
    (void)state;
    clock_us = 1000000000;
    worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return -1;
    memset(conns, 0, sizeof conns);
    memset(fired, 0, sizeof fired);
    for (size_t i = 0; i < CONNS; i++)
        conns[i].worker = worker;
    return wheel_start(worker);
}

static int
teardown(void **state)
{
    (void)state;
    wheel_stop(worker);
    free(worker);
    return 0;
}

/* Fired once, not before `due`, and at most two ticks after it. */
static void
check(size_t i, int64_t due_us)
{
    assert_int_equal(fired[i].times, 1);
    assert_true(fired[i].at_us >= due_us);
    assert_true(fired[i].at_us <= due_us + 2 * WHEEL_US);
}

static void
every_deadline_comes_once_and_in_time(void **state)
{
    int64_t due[CONNS];

    (void)state;
    srand(7);
    for (size_t i = 0; i < CONNS; i++) {                /* up to three minutes: three times round */
        int64_t after = 1 + (int64_t)rand() % 180000000;

        due[i] = clock_us + after;
        wheel_set(&conns[i], clock_us, after);
    }
    for (int i = 0; i < 4000; i++)
        advance(WHEEL_US);
    for (size_t i = 0; i < CONNS; i++)
        check(i, due[i]);
}

static void
the_last_setting_counts(void **state)
{
    int64_t due[CONNS] = { 0 };

    (void)state;
    srand(8);
    for (int step = 0; step < 2000; step++) {
        for (int k = 0; k < 20; k++) {
            size_t i = (size_t)rand() % CONNS;
            int64_t after = rand() % 4 == 0 ? 0 : 1 + (int64_t)rand() % 90000000;

            if (fired[i].times > 0)
                continue;
            due[i] = after == 0 ? 0 : clock_us + after;
            wheel_set(&conns[i], clock_us, after);
        }
        advance(WHEEL_US);
    }
    for (int i = 0; i < 4000; i++)
        advance(WHEEL_US);
    for (size_t i = 0; i < CONNS; i++)
        if (due[i] != 0)
            check(i, due[i]);
        else
            assert_int_equal(fired[i].times, 0);
}

static void
a_later_deadline_does_not_move_the_connection(void **state)
{
    unsigned slot;

    (void)state;
    wheel_set(&conns[0], clock_us, 1000000);
    slot = conns[0].slot;
    for (int i = 0; i < 10; i++) {
        wheel_set(&conns[0], clock_us, 1000000 + i * 100000);
        assert_int_equal(conns[0].slot, slot);
    }
    wheel_set(&conns[0], clock_us, 200000);
    assert_int_not_equal(conns[0].slot, slot);
}

static void
a_deadline_may_take_others_with_it_and_set_itself_again(void **state)
{
    (void)state;
    for (size_t i = 0; i < 6; i++)                      /* all in one slot */
        wheel_set(&conns[i], clock_us, 500000);
    for (size_t i = 0; i < 6; i++) {
        fired[i].kill = &conns[i ^ 1];                  /* whichever of two comes first */
        fired[i].again_us = 300000;
    }
    for (int i = 0; i < 11; i++)
        advance(WHEEL_US);
    for (size_t i = 0; i < 6; i += 2)
        assert_int_equal(fired[i].times + fired[i + 1].times, 1);
    for (int i = 0; i < 8; i++)
        advance(WHEEL_US);
    for (size_t i = 0; i < 6; i += 2)
        assert_int_equal(fired[i].times + fired[i + 1].times, 2);
}

static void
a_machine_that_slept_fires_what_is_due_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < 100; i++)
        wheel_set(&conns[i], clock_us, 1000000 * (int64_t)(i + 1));
    advance(3600000000);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(fired[i].times, 1);
    wheel_set(&conns[200], clock_us, 100000);
    for (int i = 0; i < 5; i++)
        advance(WHEEL_US);
    assert_int_equal(fired[200].times, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_deadline_comes_once_and_in_time, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_setting_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(a_later_deadline_does_not_move_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(a_deadline_may_take_others_with_it_and_set_itself_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_machine_that_slept_fires_what_is_due_at_once, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
