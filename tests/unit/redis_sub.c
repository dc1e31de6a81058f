/*
 * redis/: subscriptions, and what is said of a gap in them.
 */
#include "redis_kit.h"

static struct rserver server;
static struct rig rig;

static struct heard {
    struct redis_sub *sub;
    atomic_uint       messages, gaps;
    char              last[64];
    bool              leave;            /* at the next message */
} heard;

static void
on_message(void *arg, struct slice payload)
{
    struct heard *h = arg;

    snprintf(h->last, sizeof h->last, "%.*s", SLICE_ARG(payload));
    if (h->leave)
        redis_unsubscribe(&h->sub);
    atomic_fetch_add(&h->messages, 1);
}

static void
on_lost(void *arg)
{
    struct heard *h = arg;

    atomic_fetch_add(&h->gaps, 1);
}

static void
subscribe(void *arg)
{
    struct heard *h = arg;

    h->sub = redis_subscribe(rig.r, SLICE("news"), on_message, on_lost, h);
    assert_non_null(h->sub);
}

static void
unsubscribe(void *arg)
{
    struct heard *h = arg;

    redis_unsubscribe(&h->sub);
}

/* Until somebody hears it. */
static void
publish(const char *text)
{
    char command[64];

    snprintf(command, sizeof command, "PUBLISH news %s", text);
    do
        ask_until(&rig, command, REDIS_OK);
    while (one.integer == 0);
}

static void
await(atomic_uint *count, unsigned n)
{
    int64_t until = now_us() + LONG_MS * 1000;

    while (atomic_load(count) < n) {
        assert_true(now_us() < until);
        poll(NULL, 0, 1);
    }
}

static int
start(void **state)
{
    (void)state;
    memset(&heard, 0, sizeof heard);
    memset(&server, 0, sizeof server);
    rserver_start(&server, "");
    rig_single(&rig, server.port);
    on_loop(&rig, subscribe, &heard);
    return 0;
}

static int
stop(void **state)
{
    (void)state;
    rig_stop(&rig);
    rserver_stop(&server);
    return 0;
}

static void
messages_come_and_the_first_subscription_is_no_gap(void **state)
{
    (void)state;
    publish("one");
    await(&heard.messages, 1);
    assert_string_equal(heard.last, "one");
    assert_int_equal(atomic_load(&heard.gaps), 0);
    on_loop(&rig, unsubscribe, &heard);
    assert_null(heard.sub);
    while (strstr(tell_server(server.port, "PUBSUB NUMSUB news"), ":0") == NULL)
        poll(NULL, 0, 1);
}

static void
a_lost_connection_is_made_again_and_the_gap_is_told(void **state)
{
    (void)state;
    publish("one");
    await(&heard.messages, 1);
    tell_server(server.port, "CLIENT KILL TYPE pubsub");
    await(&heard.gaps, 1);
    publish("two");
    await(&heard.messages, 2);
    assert_string_equal(heard.last, "two");
    rserver_kill(&server);
    ask_until(&rig, "GET a", REDIS_OPEN);
    rserver_start(&server, "");
    await(&heard.gaps, 2);
    publish("three");
    await(&heard.messages, 3);
}

static void
a_hung_server_is_a_gap_too(void **state)
{
    (void)state;
    publish("one");
    await(&heard.messages, 1);
    kill(server.pid, SIGSTOP);
    ask_until(&rig, "GET a", REDIS_TIMEOUT);
    kill(server.pid, SIGCONT);
    await(&heard.gaps, 1);
}

static void
listen_in(void *arg)
{
    struct rig *other = arg;

    heard.sub = redis_subscribe(other->r, SLICE("quiet"), on_message, on_lost, &heard);
}

static void
a_hung_server_is_a_gap_where_nothing_else_is_asked(void **state)
{
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf conf = { .servers = &at, .nservers = 1, .connect_ms = 200, .idle_ms = 100 };
    struct rig other;

    (void)state;
    on_loop(&rig, unsubscribe, &heard);
    rig_start(&other, &conf);
    on_loop(&other, listen_in, &other);
    while (strstr(tell_server(server.port, "PUBSUB NUMSUB quiet"), ":1") == NULL)
        poll(NULL, 0, 1);
    tell_server(server.port, "PUBLISH quiet x");
    await(&heard.messages, 1);
    kill(server.pid, SIGSTOP);
    while (redis_usable(other.r))
        poll(NULL, 0, 1);
    kill(server.pid, SIGCONT);
    await(&heard.gaps, 1);
    rig_stop(&other);
}

static void
it_may_be_ended_from_its_own_callback(void **state)
{
    (void)state;
    heard.leave = true;
    publish("one");
    await(&heard.messages, 1);
    assert_null(heard.sub);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(messages_come_and_the_first_subscription_is_no_gap, start,
            stop),
        cmocka_unit_test_setup_teardown(a_lost_connection_is_made_again_and_the_gap_is_told, start,
            stop),
        cmocka_unit_test_setup_teardown(a_hung_server_is_a_gap_too, start, stop),
        cmocka_unit_test_setup_teardown(a_hung_server_is_a_gap_where_nothing_else_is_asked, start,
            stop),
        cmocka_unit_test_setup_teardown(it_may_be_ended_from_its_own_callback, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
