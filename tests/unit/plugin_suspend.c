/*
 * A request waits until its ticket is resumed, or its time is up; and a ticket may be resumed at
 * any moment of the request's life or after it.
 */
#include "plugin_kit.h"

#include <event2/event.h>
#include <pthread.h>

static struct loop *loop;
static struct weir_ticket *ticket;
static unsigned woken, asked_n;
static enum { LATER, BEFORE, GIVE_UP } resumes;     /* when, as seen from the hook's return */

static void
wake(void *arg)
{
    (void)arg;
    woken++;
    event_base_loopbreak(loop_base(loop));
}

static int
waits(unsigned hook, size_t plugin, struct weir_request *r)
{
    (void)hook, (void)plugin;
    asked_n++;
    if (*host->slot(r) != NULL)
        return WEIR_NEXT;
    *host->slot(r) = host->alloc(r, 1);
    ticket = host->suspend(r);
    assert_non_null(ticket);
    assert_null(host->suspend(r));                  /* it has done so already */
    if (resumes == BEFORE)
        host->resume(ticket);
    return resumes == GIVE_UP ? WEIR_NEXT : WEIR_SUSPENDED;
}

static void
begin(struct asked *a, bool skip_errors, int64_t timeout_ms, int when)
{
    ask_begin(a, 1, skip_errors, timeout_ms);
    a->r->loop = loop;
    a->r->wake = wake;
    relay->hook = waits;
    resumes = when;
    woken = asked_n = 0;
}

static void
on_nothing(struct loop_msg *m)
{
    (void)m;
    event_base_loopbreak(loop_base(loop));
}

/* Runs what has been posted to the loop until now. */
static void
settle(void)
{
    struct loop_msg m = { .run = on_nothing };

    loop_post(loop, &m);
    loop_run(loop);
}

static void
one_that_is_resumed_before_its_hook_returns_is_woken_all_the_same(void **state)
{
    struct asked a;

    (void)state;
    begin(&a, false, 60000, BEFORE);
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_WAIT);
    assert_int_equal(woken, 0);                     /* never from inside */
    loop_run(loop);
    assert_int_equal(woken, 1);
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_NEXT);
    assert_int_equal(asked_n, 2);
    ask_end(&a);
}

static void
asking_again_meanwhile_asks_nobody(void **state)
{
    struct asked a;

    (void)state;
    begin(&a, false, 60000, LATER);
    for (int i = 0; i < 3; i++)
        assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_WAIT);
    assert_int_equal(asked_n, 1);
    host->resume(ticket);
    loop_run(loop);
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_NEXT);
    assert_int_equal(woken, 1);
    ask_end(&a);
}

static void *
resume(void *t)
{
    host->resume(t);
    return NULL;
}

static void
another_thread_may_resume(void **state)
{
    struct asked a;
    pthread_t thread;

    (void)state;
    begin(&a, false, 60000, LATER);
    assert_int_equal(plugin_run(a.r, HOOK_DELIVER), PLUGIN_WAIT);
    pthread_create(&thread, NULL, resume, ticket);
    loop_run(loop);
    assert_int_equal(woken, 1);
    assert_int_equal(plugin_run(a.r, HOOK_DELIVER), PLUGIN_NEXT);
    pthread_join(thread, NULL);
    ask_end(&a);
}

static void
a_request_that_has_gone_is_not_woken(void **state)
{
    struct asked a;

    (void)state;
    begin(&a, false, 60000, LATER);
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_WAIT);
    ask_end(&a);
    host->resume(ticket);
    settle();
    begin(&a, false, 60000, BEFORE);                /* and one that goes while the word is under way */
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_WAIT);
    ask_end(&a);
    settle();
    assert_int_equal(woken, 0);
}

static void
a_hook_that_did_not_wait_after_all_is_not_called_again(void **state)
{
    struct asked a;

    (void)state;
    begin(&a, false, 60000, GIVE_UP);
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_NEXT);
    host->resume(ticket);
    settle();
    assert_int_equal(woken, 0);
    assert_int_equal(asked_n, 1);
    ask_end(&a);
}

static void
one_whose_time_is_up_has_failed_and_may_still_be_resumed(void **state)
{
    (void)state;
    for (int skip = 0; skip < 2; skip++) {
        struct asked a;
        uint64_t before;

        begin(&a, skip != 0, 1, LATER);
        before = errors_at(&a, HOOK_REQUEST);
        assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_WAIT);
        loop_run(loop);
        assert_int_equal(woken, 1);
        assert_int_equal(plugin_run(a.r, HOOK_REQUEST), skip ? PLUGIN_NEXT : PLUGIN_FAILED);
        assert_int_equal(asked_n, 1);
        assert_int_equal(errors_at(&a, HOOK_REQUEST), before + 1);
        host->resume(ticket);
        settle();
        assert_int_equal(woken, 1);
        ask_end(&a);
    }
}

/* Its time is up, and before the request has heard of that it is resumed. */
static void
one_that_is_resumed_at_the_last_moment_goes_on(void **state)
{
    struct asked a;

    (void)state;
    begin(&a, false, 1, LATER);
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_WAIT);
    loop_run(loop);
    assert_int_equal(woken, 1);
    host->resume(ticket);
    settle();
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_NEXT);
    assert_int_equal(asked_n, 2);
    ask_end(&a);
}

static void
where_there_is_no_loop_nothing_waits(void **state)
{
    struct asked a;

    (void)state;
    begin(&a, false, 60000, LATER);
    a.r->loop = NULL;
    a.r->hook = HOOK_REQUEST;
    assert_null(host->suspend(a.r));
    ask_end(&a);
}

/* The one thread ends requests while the other resumes their tickets. */
static void
leaving_and_resuming_may_meet(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        struct asked a;
        pthread_t thread;

        begin(&a, false, 60000, LATER);
        assert_int_equal(plugin_run(a.r, HOOK_KEY), PLUGIN_WAIT);
        pthread_create(&thread, NULL, resume, ticket);
        if (i % 2 == 0)
            settle();
        plugin_end(a.r);
        woken = 0;
        pthread_join(thread, NULL);
        settle();
        assert_int_equal(woken, 0);
        ask_end(&a);
    }
}

static int
start(void **state)
{
    loop = loop_new(0, NULL);
    return loop != NULL ? load_relay(state) : -1;
}

static int
stop(void **state)
{
    (void)state;
    loop_free(&loop);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_is_resumed_before_its_hook_returns_is_woken_all_the_same),
        cmocka_unit_test(asking_again_meanwhile_asks_nobody),
        cmocka_unit_test(another_thread_may_resume),
        cmocka_unit_test(a_request_that_has_gone_is_not_woken),
        cmocka_unit_test(a_hook_that_did_not_wait_after_all_is_not_called_again),
        cmocka_unit_test(one_whose_time_is_up_has_failed_and_may_still_be_resumed),
        cmocka_unit_test(one_that_is_resumed_at_the_last_moment_goes_on),
        cmocka_unit_test(where_there_is_no_loop_nothing_waits),
        cmocka_unit_test(leaving_and_resuming_may_meet),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
