/*
 * redis/ with Sentinel: the master is found through any sentinel, and found again after a failover.
 */
#include "redis_kit.h"

static struct rserver servers[2], sentinels[2];
static unsigned master;                 /* of servers */
static struct rig rig;

/* It thinks nobody down until it is told what is: a busy machine lets servers wait. */
static void
sentinel_start(struct rserver *s, uint16_t watched, const char *more)
{
    char conf[128], *argv[] = { "redis-server", conf, "--sentinel", NULL };
    FILE *f;

    s->port = free_port();
    rserver_dir(s);
    snprintf(conf, sizeof conf, "%s/sentinel.conf", s->dir);
    f = fopen(conf, "w");
    assert_non_null(f);
    fprintf(f, "port %u\nbind 127.0.0.1\ndir %s\nsentinel monitor weir 127.0.0.1 %u 1\n"
        "sentinel down-after-milliseconds weir 60000\nsentinel failover-timeout weir 3000\n%s\n",
        s->port, s->dir, watched, more);
    fclose(f);
    rserver_exec(s, argv, "+monitor master");
}

static void
await_answer(uint16_t port, const char *command, const char *part)
{
    int64_t until = now_us() + 2 * LONG_MS * 1000;

    while (strstr(tell_server(port, command), part) == NULL) {
        if (now_us() > until)
            fail_msg("%s: %s", command, tell_server(port, command));
        poll(NULL, 0, 5);
    }
}

static int
start(void **state)
{
    char more[64];

    (void)state;
    rserver_start(&servers[0], "");
    snprintf(more, sizeof more, "--replicaof 127.0.0.1 %u", servers[0].port);
    rserver_start(&servers[1], more);
    await_answer(servers[1].port, "INFO replication", "master_link_status:up");
    sentinel_start(&sentinels[0], servers[0].port, "");
    return 0;
}

static int
stop(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        rserver_stop(&sentinels[i]);
        rserver_stop(&servers[i]);
    }
    return 0;
}

/* The first sentinel of the two is never there. */
static void
begin(struct redis_conf *conf, uint16_t port)
{
    struct redis_server at[2] = { { "127.0.0.1", free_port() }, { "127.0.0.1", port } };

    conf->kind = REDIS_SENTINEL;
    conf->servers = at;
    conf->nservers = 2;
    conf->connect_ms = 2000;
    conf->master = conf->master != NULL ? conf->master : "weir";
    rig_start(&rig, conf);
}

static void
the_master_is_found_through_any_sentinel(void **state)
{
    struct redis_conf conf = { .db = 2 };

    (void)state;
    begin(&conf, sentinels[0].port);
    assert_int_equal(ask(&rig, "SET a apple"), REDIS_OK);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    assert_string_equal(one.answer, "apple");
    assert_true(redis_usable(rig.r));
    rig_stop(&rig);
}

static void
sentinels_have_a_password_of_their_own(void **state)
{
    struct redis_conf conf = { .sentinel_password = "hush" };
    struct rserver other = { 0 };       /* two who watch the same learn of each other, and then one
                                           alone is no majority */

    (void)state;
    rserver_start(&other, "");
    sentinel_start(&sentinels[1], other.port, "requirepass hush");
    begin(&conf, sentinels[1].port);
    assert_int_equal(ask(&rig, "SET a apple"), REDIS_OK);
    rig_stop(&rig);
    rserver_stop(&sentinels[1]);
    rserver_stop(&other);
}

static void
a_name_that_no_sentinel_knows_is_told_at_once_and_not_waited_for(void **state)
{
    struct redis_conf conf = { .master = "nobody" };

    (void)state;
    begin(&conf, sentinels[0].port);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OTHER);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OPEN);
    assert_false(redis_usable(rig.r));
    rig_stop(&rig);
}

static void
a_failover_is_followed(void **state)
{
    struct redis_conf conf = { 0 };
    char command[64];
    uint64_t before;

    (void)state;
    begin(&conf, sentinels[0].port);
    ask_until(&rig, "SET before 1", REDIS_OK);
    before = one.connection;
    assert_int_equal(ask_on(&rig, before, "WAIT 1 10000"), REDIS_OK);
    await_answer(sentinels[0].port, "INFO sentinel", "slaves=1");
    await_answer(sentinels[0].port, "SENTINEL FAILOVER weir", "OK");
    await_answer(servers[1 - master].port, "INFO replication", "role:master");
    do                                  /* told by the sentinel: the old one does not yet know */
        ask_until(&rig, "SET after 1", REDIS_OK);
    while (strcmp(tell_server(servers[1 - master].port, "EXISTS after"), ":1\r\n") != 0);
    assert_non_null(strstr(tell_server(servers[master].port, "INFO replication"), "role:master"));
    assert_int_equal(ask_on(&rig, before, "WAIT 1 10000"), REDIS_CLOSED);
    rig_stop(&rig);
    snprintf(command, sizeof command, "REPLICAOF 127.0.0.1 %u", servers[1 - master].port);
    tell_server(servers[master].port, command);
    await_answer(servers[master].port, "INFO replication", "master_link_status:up");
    master = 1 - master;
}

static void
a_master_that_dies_is_replaced(void **state)
{
    struct redis_conf conf = { 0 };

    (void)state;
    begin(&conf, sentinels[0].port);
    ask_until(&rig, "SET before 2", REDIS_OK);
    await_answer(servers[1 - master].port, "INFO replication", "master_link_status:up");
    await_answer(sentinels[0].port, "SENTINEL SET weir down-after-milliseconds 500", "OK");
    rserver_kill(&servers[master]);
    ask_until(&rig, "SET after 2", REDIS_OPEN);
    assert_false(redis_usable(rig.r));
    ask_until(&rig, "SET after 2", REDIS_OK);
    assert_string_equal(tell_server(servers[1 - master].port, "GET after"), "$1\r\n2\r\n");
    assert_true(redis_usable(rig.r));
    rig_stop(&rig);
}

static void
without_any_sentinel_no_command_waits(void **state)
{
    struct redis_conf conf = { 0 };

    (void)state;
    rserver_kill(&sentinels[0]);
    begin(&conf, sentinels[0].port);
    assert_int_equal(ask(&rig, "GET a"), REDIS_REFUSED);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OPEN);
    assert_false(redis_usable(rig.r));
    rig_stop(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_master_is_found_through_any_sentinel),
        cmocka_unit_test(sentinels_have_a_password_of_their_own),
        cmocka_unit_test(a_name_that_no_sentinel_knows_is_told_at_once_and_not_waited_for),
        cmocka_unit_test(a_failover_is_followed),
        cmocka_unit_test(a_master_that_dies_is_replaced),
        cmocka_unit_test(without_any_sentinel_no_command_waits),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
