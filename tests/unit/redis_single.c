/*
 * redis/ against one real server: commands, the answers that are errors, and a server that hangs,
 * dies, loads or has no room.
 */
#include "redis_kit.h"

static struct rserver server;
static struct rig rig;

static int
start(void **state)
{
    (void)state;
    rserver_start(&server, "");
    rig_single(&rig, server.port);
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
commands_are_answered_with_every_type_of_reply(void **state)
{
    (void)state;
    assert_int_equal(ask(&rig, "SET a apple PX 60000"), REDIS_OK);
    assert_int_equal(one.type, REPLY_STATUS);
    assert_string_equal(one.answer, "OK");
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    assert_int_equal(one.type, REPLY_STRING);
    assert_string_equal(one.answer, "apple");
    assert_int_equal(ask(&rig, "GET none"), REDIS_OK);
    assert_int_equal(one.type, REPLY_NIL);
    assert_int_equal(ask(&rig, "INCR count"), REDIS_OK);
    assert_int_equal(one.type, REPLY_INTEGER);
    assert_int_equal(one.integer, 1);
    assert_int_equal(ask(&rig, "MGET a none count"), REDIS_OK);
    assert_int_equal(one.type, REPLY_ARRAY);
    assert_int_equal(one.n, 3);
}

static void
a_large_value_goes_and_comes_whole(void **state)
{
    size_t n = 3 << 20;
    char *text = malloc(n + 16);

    (void)state;
    memcpy(text, "SET big ", 8);
    memset(text + 8, 'x', n);
    text[8 + n] = '\0';
    assert_int_equal(ask(&rig, text), REDIS_OK);
    assert_int_equal(ask(&rig, "GET big"), REDIS_OK);
    assert_int_equal(one.n, n);
    free(text);
}

static void
many_commands_share_a_connection_and_are_answered_in_order(void **state)
{
    static struct shot shots[200];
    uint64_t connects = stats_counter(STATS_redis_connects);

    (void)state;
    assert_int_equal(ask(&rig, "SET n 0"), REDIS_OK);
    for (size_t i = 0; i < NELEM(shots); i++)
        shoot(&shots[i], &rig, LONG_MS, "INCR n");
    for (size_t i = 0; i < NELEM(shots); i++) {
        assert_int_equal(await_shot(&shots[i]), REDIS_OK);
        assert_int_equal(shots[i].integer, i + 1);
    }
    assert_int_equal(stats_counter(STATS_redis_connects), connects);
}

static void
error_replies_have_their_cause_and_their_text(void **state)
{
    uint64_t before = sum_of(&rig).failed[REDIS_TYPE];

    (void)state;
    assert_int_equal(ask(&rig, "LPUSH list x"), REDIS_OK);
    assert_int_equal(ask(&rig, "GET list"), REDIS_TYPE);
    assert_int_equal(one.type, REPLY_ERROR);
    assert_memory_equal(one.answer, "WRONGTYPE", 9);
    assert_int_equal(sum_of(&rig).failed[REDIS_TYPE], before + 1);
    assert_int_equal(ask(&rig, "NOSUCHCOMMAND"), REDIS_OTHER);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);     /* the connection is as good as before */
}

static void
a_server_without_room_refuses_writes_and_answers_reads(void **state)
{
    (void)state;
    assert_int_equal(ask(&rig, "SET kept 1"), REDIS_OK);
    assert_int_equal(ask(&rig, "CONFIG SET maxmemory 1"), REDIS_OK);
    assert_int_equal(ask(&rig, "SET more 1"), REDIS_OOM);
    assert_int_equal(ask(&rig, "GET kept"), REDIS_OK);
    assert_int_equal(ask(&rig, "CONFIG SET maxmemory 0"), REDIS_OK);
    assert_true(redis_usable(rig.r));
}

static void
a_replica_refuses_writes_as_read_only(void **state)
{
    char command[64];

    (void)state;
    snprintf(command, sizeof command, "REPLICAOF 127.0.0.1 %u", free_port());
    assert_int_equal(ask(&rig, command), REDIS_OK);
    assert_int_equal(ask(&rig, "SET a b"), REDIS_READONLY);
    assert_int_equal(ask(&rig, "REPLICAOF NO ONE"), REDIS_OK);
    assert_int_equal(ask(&rig, "SET a b"), REDIS_OK);
}

static void
a_missing_or_wrong_password_is_found_out_once_and_not_asked_again_by_every_command(void **state)
{
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf conf = { .servers = &at, .nservers = 1, .connect_ms = 2000 };
    struct rig other;

    (void)state;
    assert_int_equal(ask(&rig, "CONFIG SET requirepass right"), REDIS_OK);
    rig_start(&other, &conf);
    assert_int_equal(ask(&other, "GET a"), REDIS_AUTH);         /* NOAUTH */
    assert_int_equal(ask(&other, "GET a"), REDIS_OPEN);
    assert_false(redis_usable(other.r));
    assert_string_equal(sum_of(&other).state, "auth");
    rig_stop(&other);
    conf.password = "wrong";
    rig_start(&other, &conf);
    assert_int_equal(ask(&other, "GET a"), REDIS_AUTH);         /* WRONGPASS */
    assert_int_equal(ask(&rig, "CONFIG SET requirepass wrong"), REDIS_OK);
    ask_until(&other, "GET a", REDIS_OK);                       /* the probe found it well */
    assert_true(redis_usable(other.r));
    rig_stop(&other);
    assert_int_equal(ask(&rig, "AUTH wrong"), REDIS_OK);
    assert_int_equal(ask(&rig, "CONFIG SET requirepass "), REDIS_OK);
}

static void
an_acl_user_does_what_it_may_and_a_database_is_selected(void **state)
{
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf conf = { .servers = &at, .nservers = 1, .connect_ms = 2000, .db = 3,
        .username = "weir", .password = "secret" };
    struct rig other;

    (void)state;
    assert_int_equal(ask(&rig, "ACL SETUSER weir on >secret ~w:* +get +set +select"), REDIS_OK);
    rig_start(&other, &conf);
    assert_int_equal(ask(&other, "SET w:1 here"), REDIS_OK);
    assert_int_equal(ask(&other, "GET x:1"), REDIS_AUTH);       /* NOPERM: of the command alone */
    assert_int_equal(ask(&other, "GET w:1"), REDIS_OK);
    assert_string_equal(one.answer, "here");
    rig_stop(&other);
    assert_int_equal(ask(&rig, "GET w:1"), REDIS_OK);
    assert_int_equal(one.type, REPLY_NIL);
}

static void
a_hung_server_costs_one_deadline_and_is_used_again_when_it_answers(void **state)
{
    struct shot a, b;

    (void)state;
    assert_int_equal(ask(&rig, "SET a apple"), REDIS_OK);
    kill(server.pid, SIGSTOP);
    shoot(&a, &rig, 50, "GET a");
    shoot(&b, &rig, LONG_MS, "GET a");
    assert_int_equal(await_shot(&a), REDIS_TIMEOUT);
    assert_int_equal(await_shot(&b), REDIS_TIMEOUT);    /* it waited for nothing: told at once */
    assert_true(b.took_us < LONG_MS * 1000 / 2);
    assert_int_equal(ask_within(&rig, 50, "GET a"), REDIS_OPEN);
    assert_false(redis_usable(rig.r));
    assert_string_equal(sum_of(&rig).state, "timeout");
    kill(server.pid, SIGCONT);
    ask_until(&rig, "GET a", REDIS_OK);
    assert_string_equal(one.answer, "apple");
    assert_true(redis_usable(rig.r));
}

static void
a_server_that_pauses_is_a_hung_one_for_as_long(void **state)
{
    (void)state;
    assert_int_equal(ask(&rig, "CLIENT PAUSE 300 ALL"), REDIS_OK);
    assert_int_equal(ask_within(&rig, 50, "GET a"), REDIS_TIMEOUT);
    ask_until(&rig, "GET a", REDIS_OK);
}

static void
a_killed_server_is_refused_and_found_again_when_it_is_back(void **state)
{
    (void)state;
    assert_int_equal(ask(&rig, "SET a apple"), REDIS_OK);
    rserver_kill(&server);
    ask_until(&rig, "GET a", REDIS_REFUSED);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OPEN);
    assert_string_equal(sum_of(&rig).state, "refused");
    rserver_start(&server, "");
    ask_until(&rig, "GET a", REDIS_OK);
    assert_int_equal(one.type, REPLY_NIL);
}

static void
a_connection_killed_by_the_server_ends_its_commands_alone(void **state)
{
    struct shot blocked;

    (void)state;
    memset(&blocked, 0, sizeof blocked);
    shoot(&blocked, &rig, LONG_MS, "BLPOP nothing 0");
    while (strstr(tell_server(server.port, "INFO clients"), "blocked_clients:1") == NULL)
        ;
    tell_server(server.port, "CLIENT KILL TYPE normal SKIPME yes");
    assert_int_equal(await_shot(&blocked), REDIS_CLOSED);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);     /* once is no reason to open the breaker */
}

static void
what_is_for_one_connection_is_sent_on_no_other(void **state)
{
    uint64_t first, second;

    (void)state;
    assert_int_equal(ask(&rig, "CLIENT ID"), REDIS_OK);
    first = one.connection;
    assert_true(first != 0);
    assert_int_equal(ask_on(&rig, first, "CLIENT ID"), REDIS_OK);
    assert_int_equal(one.connection, first);
    tell_server(server.port, "CLIENT KILL TYPE normal SKIPME yes");
    do                                  /* until its end is seen here */
        ask(&rig, "CLIENT ID");
    while (one.cause != REDIS_OK || one.connection == first);
    second = one.connection;
    assert_int_equal(ask_on(&rig, first, "CLIENT ID"), REDIS_CLOSED);
    assert_int_equal(ask_on(&rig, second, "CLIENT ID"), REDIS_OK);
}

static void
a_loading_server_is_not_asked_until_it_has_its_data(void **state)
{
    (void)state;
    assert_int_equal(ask(&rig, "DEBUG POPULATE 20000 key 100"), REDIS_OK);
    assert_int_equal(ask(&rig, "CONFIG SET key-load-delay 100 loading-process-events-interval-bytes 1024"),
        REDIS_OK);
    tell_server(server.port, "SAVE");
    assert_int_equal(kill(server.pid, SIGSTOP), 0);     /* so that the reload is under way for sure */
    {
        int fd = dial(server.port);
        struct shot s;

        assert_int_equal(send(fd, "DEBUG RELOAD NOSAVE\r\n", 21, 0), 21);
        assert_int_equal(kill(server.pid, SIGCONT), 0);
        while (ask_within(&rig, 5000, "GET a") == REDIS_OK)
            ;
        assert_int_equal(one.cause, REDIS_LOADING);
        shoot(&s, &rig, LONG_MS, "GET a");
        assert_int_equal(await_shot(&s), REDIS_OPEN);
        assert_string_equal(sum_of(&rig).state, "loading");
        close(fd);
    }
    rserver_kill(&server);                              /* rather than wait for it */
    rserver_start(&server, "--dbfilename none.rdb");
    ask_until(&rig, "GET a", REDIS_OK);
}

static void
a_command_that_blocks_has_a_connection_for_itself(void **state)
{
    struct shot blocked;

    (void)state;
    memset(&blocked, 0, sizeof blocked);
    blocked.rig = &rig;
    blocked.text = "BLPOP queue 0";
    blocked.alone = true;
    blocked.within_ms = LONG_MS;
    pthread_mutex_init(&blocked.mtx, NULL);
    pthread_cond_init(&blocked.cond, NULL);
    on_loop(&rig, shot_send, &blocked);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    assert_int_equal(ask(&rig, "LPUSH queue x"), REDIS_OK);
    assert_int_equal(await_shot(&blocked), REDIS_OK);
    assert_int_equal(blocked.n, 2);
}

static void
cancel_shot(void *arg)
{
    struct shot *s = arg;

    redis_cancel(&s->ask);
}

static void
a_cancelled_command_is_never_heard_of_and_its_answer_is_nobody_elses(void **state)
{
    struct shot a;

    (void)state;
    assert_int_equal(ask(&rig, "SET a apple"), REDIS_OK);
    assert_int_equal(ask(&rig, "SET b banana"), REDIS_OK);
    tell_server(server.port, "CLIENT PAUSE 100 ALL");
    shoot(&a, &rig, LONG_MS, "GET a");
    on_loop(&rig, cancel_shot, &a);
    assert_null(a.ask);
    assert_int_equal(ask(&rig, "GET b"), REDIS_OK);
    assert_string_equal(one.answer, "banana");
    assert_int_equal(a.ended, 0);
}

static void
a_state_is_logged_once_and_not_once_a_command(void **state)
{
    struct tap tap;

    (void)state;
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    tap_log(&tap);
    rserver_kill(&server);
    for (int i = 0; i < 200; i++)
        assert_int_not_equal(ask_within(&rig, 50, "GET a"), REDIS_OK);
    rserver_start(&server, "");
    ask_until(&rig, "GET a", REDIS_OK);
    for (int i = 0; i < 200; i++)
        ask(&rig, "LPUSH a x");
    for (int i = 0; i < 200; i++)
        ask(&rig, "GET a");
    assert_int_equal(untap_log(&tap, "redis 127.0.0.1"), 2);    /* WRONGTYPE was said before */
    assert_int_equal(ask(&rig, "DEL a"), REDIS_OK);
}

static void
what_one_loop_found_out_the_others_need_not(void **state)
{
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf conf = { .servers = &at, .nservers = 1, .connect_ms = 2000 };
    struct loop *loops[2];
    struct rig first, second;
    struct err e;

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        loops[i] = loop_new(i, &e);
    first = (struct rig){ .loop = loops[0], .r = redis_new(&conf, loops, 2, &e) };
    second = (struct rig){ .loop = loops[1], .r = first.r };
    assert_non_null(first.r);
    pthread_create(&first.thread, NULL, rig_loop, loops[0]);
    pthread_create(&second.thread, NULL, rig_loop, loops[1]);
    assert_int_equal(ask(&first, "GET b"), REDIS_OK);
    assert_int_equal(ask(&second, "GET b"), REDIS_OK);
    kill(server.pid, SIGSTOP);
    assert_int_equal(ask_within(&first, 50, "GET b"), REDIS_TIMEOUT);
    assert_int_equal(ask(&second, "GET b"), REDIS_OPEN);
    kill(server.pid, SIGCONT);
    ask_until(&second, "GET b", REDIS_OK);
    ask_until(&first, "GET b", REDIS_OK);
    for (unsigned i = 0; i < 2; i++)
        loop_stop(loops[i]);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    redis_free(&first.r);
    for (unsigned i = 0; i < 2; i++)
        loop_free(&loops[i]);
}

static void
a_server_that_has_no_room_for_more_connections_serves_those_it_has(void **state)
{
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf conf = { .servers = &at, .nservers = 1, .connect_ms = 2000, .pool = 4 };
    static struct shot shots[40];
    struct rig other;
    uint64_t connects;

    (void)state;
    rig_start(&other, &conf);
    assert_int_equal(ask(&other, "GET b"), REDIS_OK);
    assert_int_equal(ask(&other, "CONFIG SET maxclients 1"), REDIS_OK);
    assert_int_equal(ask(&other, "CLIENT PAUSE 300 ALL"), REDIS_OK);
    connects = stats_counter(STATS_redis_connects);
    for (size_t i = 0; i < NELEM(shots); i++)
        shoot(&shots[i], &other, LONG_MS, "GET b");
    for (size_t i = 0; i < NELEM(shots); i++)
        assert_int_equal(await_shot(&shots[i]), REDIS_OK);
    assert_int_equal(stats_counter(STATS_redis_connects), connects + 1);    /* tried in vain */
    assert_int_equal(ask(&other, "GET b"), REDIS_OK);
    assert_int_equal(ask(&other, "CONFIG SET maxclients 1000"), REDIS_OK);
    rig_stop(&other);
}

static void
more_than_may_be_under_way_is_refused(void **state)
{
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf conf = { .servers = &at, .nservers = 1, .connect_ms = 2000, .queue = 100 };
    struct rig other;
    struct shot a;

    (void)state;
    rig_start(&other, &conf);
    tell_server(server.port, "CLIENT PAUSE 300 ALL");
    shoot(&a, &other, LONG_MS, "SET k 0123456789012345678901234567890123456789");
    assert_int_equal(ask(&other, "SET k 0123456789012345678901234567890123456789"), REDIS_FULL);
    assert_int_equal(await_shot(&a), REDIS_OK);
    assert_int_equal(ask(&other, "SET k 0123456789012345678901234567890123456789"), REDIS_OK);
    rig_stop(&other);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_answered_with_every_type_of_reply),
        cmocka_unit_test(a_large_value_goes_and_comes_whole),
        cmocka_unit_test(many_commands_share_a_connection_and_are_answered_in_order),
        cmocka_unit_test(error_replies_have_their_cause_and_their_text),
        cmocka_unit_test(a_server_without_room_refuses_writes_and_answers_reads),
        cmocka_unit_test(a_replica_refuses_writes_as_read_only),
        cmocka_unit_test(
            a_missing_or_wrong_password_is_found_out_once_and_not_asked_again_by_every_command),
        cmocka_unit_test(an_acl_user_does_what_it_may_and_a_database_is_selected),
        cmocka_unit_test(a_hung_server_costs_one_deadline_and_is_used_again_when_it_answers),
        cmocka_unit_test(a_server_that_pauses_is_a_hung_one_for_as_long),
        cmocka_unit_test(a_killed_server_is_refused_and_found_again_when_it_is_back),
        cmocka_unit_test(a_connection_killed_by_the_server_ends_its_commands_alone),
        cmocka_unit_test(what_is_for_one_connection_is_sent_on_no_other),
        cmocka_unit_test(a_loading_server_is_not_asked_until_it_has_its_data),
        cmocka_unit_test(a_command_that_blocks_has_a_connection_for_itself),
        cmocka_unit_test(a_cancelled_command_is_never_heard_of_and_its_answer_is_nobody_elses),
        cmocka_unit_test(more_than_may_be_under_way_is_refused),
        cmocka_unit_test(a_state_is_logged_once_and_not_once_a_command),
        cmocka_unit_test(what_one_loop_found_out_the_others_need_not),
        cmocka_unit_test(a_server_that_has_no_room_for_more_connections_serves_those_it_has),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
