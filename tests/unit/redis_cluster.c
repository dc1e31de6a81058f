/*
 * redis/ against a cluster of three masters and a replica: slots and hash tags, slots that move,
 * a master that is lost; and the pure part: what redirections and CLUSTER SLOTS say.
 */
#include "redis_kit.h"
#include "redis/inside.h"

#define NODES 4                         /* the last is a replica of the first */

static struct rserver nodes[NODES];
static struct rig rig;

#define tell(i, ...) cluster_tell(&nodes[i], __VA_ARGS__)
#define await_answer(i, command, part) cluster_await(&nodes[i], command, part)

static const char *
id_of(unsigned i)
{
    static char id[4][41];
    const char *answer = strchr(tell_server(nodes[i].port, "CLUSTER MYID"), '\n');

    assert_non_null(answer);
    snprintf(id[i], sizeof id[i], "%.40s", answer + 1);
    return id[i];
}

static int
start(void **state)
{
    (void)state;
    cluster_start(nodes, NODES);
    tell(3, "CLUSTER REPLICATE %s", id_of(0));
    await_answer(3, "INFO replication", "master_link_status:up");
    return 0;
}

static int
stop(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES; i++)
        rserver_stop(&nodes[i]);
    return 0;
}

static void
begin(unsigned first)
{
    struct redis_server at[2] = { { "127.0.0.1", nodes[first].port },
        { "127.0.0.1", nodes[2].port } };
    struct redis_conf conf = { .kind = REDIS_CLUSTERED, .servers = at, .nservers = 2,
        .connect_ms = 2000 };

    rig_start(&rig, &conf);
}

static enum redis_cause
ask_with(uint64_t connection, const char *text, const char *key)
{
    shot_init(&one, &rig, LONG_MS, text);
    one.key = key;
    one.only = connection;
    on_loop(&rig, shot_send, &one);
    return await_shot(&one);
}

/* A command whose second word is its key. */
static enum redis_cause
ask_key(const char *text)
{
    struct slice rest = slice_of(text), word;
    char key[64];

    slice_cut(&rest, ' ', &word);
    slice_cut(&rest, ' ', &word);
    snprintf(key, sizeof key, "%.*s", SLICE_ARG(word));
    return ask_with(0, text, key);
}

static void
ask_key_until(const char *text, enum redis_cause want)
{
    int64_t until = now_us() + 2 * LONG_MS * 1000;

    while (ask_key(text) != want) {
        if (now_us() > until)
            fail_msg("%s: %s", text, redis_cause_name(one.cause));
        poll(NULL, 0, 5);
    }
}

/* ---- pure ---------------------------------------------------------------------------------- */

static void
slots_are_those_of_the_specification(void **state)
{
    (void)state;
    assert_int_equal(cluster_slot(SLICE("123456789")), 0x31c3);
    assert_int_equal(cluster_slot(SLICE("foo")), 12182);
    assert_int_equal(cluster_slot(SLICE("{user1000}.following")), cluster_slot(SLICE("user1000")));
    assert_int_equal(cluster_slot(SLICE("foo{bar}{zap}")), cluster_slot(SLICE("bar")));
    assert_int_equal(cluster_slot(SLICE("foo{{bar}}zap")), cluster_slot(SLICE("{bar")));
    assert_int_not_equal(cluster_slot(SLICE("foo{}{bar}")), cluster_slot(SLICE("bar")));
    assert_int_equal(cluster_slot(SLICE("")), -1);
}

static void
redirections_are_read_with_every_kind_of_endpoint_and_nothing_else(void **state)
{
    static const char *const bad[] = { "MOVED", "MOVED 1", "MOVED 1 ", "MOVED x 1.2.3.4:1",
        "MOVED 16384 1.2.3.4:1", "MOVED 1 1.2.3.4", "MOVED 1 1.2.3.4:", "MOVED 1 1.2.3.4:0",
        "MOVED 1 1.2.3.4:65536", "MOVED -1 1.2.3.4:1", "" };
    struct cluster_range to;

    (void)state;
    assert_true(cluster_redirection(SLICE("MOVED 3999 127.0.0.1:6381"), &to));
    assert_int_equal(to.first, 3999);
    assert_string_equal(to.host, "127.0.0.1");
    assert_int_equal(to.port, 6381);
    assert_true(cluster_redirection(SLICE("ASK 1 2001:db8::1:6381"), &to));
    assert_string_equal(to.host, "2001:db8::1");
    assert_true(cluster_redirection(SLICE("MOVED 1 :6381"), &to));
    assert_string_equal(to.host, "");
    for (size_t i = 0; i < NELEM(bad); i++)
        assert_false(cluster_redirection(slice_of(bad[i]), &to));
}

/* ---- a real one ---------------------------------------------------------------------------- */

static void
keys_go_to_the_masters_of_their_slots(void **state)
{
    char command[64], first[64], second[64];

    (void)state;
    begin(0);
    for (int i = 0; i < 100; i++) {
        snprintf(command, sizeof command, "SET key:%d %d", i, i);
        assert_int_equal(ask_key(command), REDIS_OK);
    }
    for (int i = 0; i < 100; i++) {
        snprintf(command, sizeof command, "GET key:%d", i);
        assert_int_equal(ask_key(command), REDIS_OK);
        assert_int_equal(atoi(one.answer), i);
    }
    assert_int_equal(sum_of(&rig).failed[REDIS_CLUSTER], 0);
    snprintf(first, sizeof first, "%s", tell_server(nodes[0].port, "DBSIZE"));
    snprintf(second, sizeof second, "%s", tell_server(nodes[1].port, "DBSIZE"));
    assert_true(atoi(first + 1) > 0 && atoi(second + 1) > 0);
    assert_int_equal(ask(&rig, "PING"), REDIS_OK);      /* no key: any */
    assert_int_equal(ask_key("MSET {t}a 1 {t}b 2"), REDIS_OK);
    assert_int_equal(ask_key("MGET key:1 key:2"), REDIS_CLUSTER);       /* CROSSSLOT */
    rig_stop(&rig);
}

static void
a_slot_that_moves_is_followed_by_ask_and_then_by_moved(void **state)
{
    int slot = cluster_slot(SLICE("foo"));              /* of the third */
    char command[256];

    (void)state;
    begin(1);
    assert_int_equal(ask_key("SET foo 1"), REDIS_OK);
    tell(0, "CLUSTER SETSLOT %d IMPORTING %s", slot, id_of(2));
    tell(2, "CLUSTER SETSLOT %d MIGRATING %s", slot, id_of(0));
    assert_int_equal(ask_key("GET foo"), REDIS_OK);     /* still there */
    snprintf(command, sizeof command, "MIGRATE 127.0.0.1 %u foo 0 5000", nodes[0].port);
    assert_memory_equal(tell_server(nodes[2].port, command), "+OK", 3);
    assert_int_equal(ask_key("GET foo"), REDIS_OK);     /* ASK */
    assert_string_equal(one.answer, "1");
    snprintf(command, sizeof command, "CLUSTER COUNTKEYSINSLOT %d", slot);
    assert_int_equal(ask_with(one.connection, command, "foo"), REDIS_OK);   /* who answered */
    assert_int_equal(one.integer, 1);
    assert_int_equal(ask_key("MGET foo {foo}none"), REDIS_CLUSTER);     /* TRYAGAIN */
    tell(0, "CLUSTER SETSLOT %d NODE %s", slot, id_of(0));
    tell(2, "CLUSTER SETSLOT %d NODE %s", slot, id_of(0));
    assert_int_equal(ask_key("SET foo 2"), REDIS_OK);   /* MOVED */
    assert_int_equal(ask_key("GET foo"), REDIS_OK);
    assert_string_equal(one.answer, "2");
    rig_stop(&rig);
}

static void
a_master_that_is_lost_is_replaced_by_its_replica_and_the_others_serve_on(void **state)
{
    (void)state;
    begin(0);
    assert_int_equal(ask_key("SET key:0 1"), REDIS_OK);
    assert_int_equal(ask_key("SET {bar}1 here"), REDIS_OK);     /* slot 5061: of the first */
    assert_int_equal(ask_with(0, "WAIT 1 5000", "{bar}1"), REDIS_OK);
    assert_int_equal(one.integer, 1);
    rserver_kill(&nodes[0]);
    ask_key_until("GET {bar}1", REDIS_OPEN);
    assert_int_equal(ask_key("GET key:2"), REDIS_OK);           /* slot 9252: of the second */
    assert_true(redis_usable(rig.r));
    ask_key_until("SET {bar}2 there", REDIS_OK);                /* the replica has taken over */
    assert_int_equal(ask_key("GET {bar}1"), REDIS_OK);
    rig_stop(&rig);
}

static void
slots_that_nobody_serves_are_the_clusters_fault_and_said_as_such(void **state)
{
    (void)state;
    tell(1, "CLUSTER DELSLOTSRANGE 5461 10922");
    begin(1);
    assert_int_equal(ask_key("GET key:2"), REDIS_CLUSTER);
    ask_key_until("GET foo{3}", REDIS_OK);      /* slot 1584: of the replica, once all know that */
    rig_stop(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_those_of_the_specification),
        cmocka_unit_test(redirections_are_read_with_every_kind_of_endpoint_and_nothing_else),
        cmocka_unit_test(keys_go_to_the_masters_of_their_slots),
        cmocka_unit_test(a_slot_that_moves_is_followed_by_ask_and_then_by_moved),
        cmocka_unit_test(a_master_that_is_lost_is_replaced_by_its_replica_and_the_others_serve_on),
        cmocka_unit_test(slots_that_nobody_serves_are_the_clusters_fault_and_said_as_such),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
