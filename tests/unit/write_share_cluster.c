/*
 * A journal that instances share, in a cluster of three masters: partitions are spread over them,
 * and every script finds its keys.
 */
#include "share_kit.h"

#define NODES 3

static struct rserver nodes[NODES];

static int
start(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    cluster_start(nodes, NODES);
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
open_in_cluster(struct instance *in, unsigned replicas)
{
    struct redis_server at = { "127.0.0.1", nodes[0].port };
    struct redis_conf redis = { .kind = REDIS_CLUSTERED, .servers = &at, .nservers = 1,
        .connect_ms = 2000 };
    struct share_options o = options(&redis);

    o.replicas = replicas;
    open_with(in, &o, &kit_limits);
}

static void
count_row(void *arg, const struct write_row *r)
{
    (void)r;
    ++*(unsigned *)arg;
}

static void
every_operation_works_in_partitions_on_all_masters(void **state)
{
    static struct instance in[2];
    uint64_t seqs[JOURNAL_PARTS], at = 0;
    struct write_content c;
    struct write_row r;
    struct err e;
    unsigned n = 0;

    (void)state;
    open_in_cluster(&in[0], 0);
    open_in_cluster(&in[1], 0);
    for (unsigned i = 0; i < 2; i++)
        AWAIT(&in[i], in[i].nowns == JOURNAL_PARTS / 2);
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        seqs[i] = accept_at(&in[i % 2], i, i, "body");
    for (unsigned i = 0; i < 3; i++)
        assert_string_not_equal(tell_server(nodes[i].port, "DBSIZE"), ":0\r\n");
    for (unsigned i = 0; i < JOURNAL_PARTS; i++) {
        struct instance *owner = journal_owns(in[0].j, i) ? &in[0] : &in[1];
        struct journal_op peek = { .kind = JOURNAL_PEEK, .row.c1 = i, .parts = UINT64_MAX };

        AWAIT(owner, came(owner, seqs[i], WRITE_STATES, WRITE_PENDING) == 1);
        assert_int_equal(kit_do(in[0].j, &peek), JOURNAL_DONE);
        assert_int_equal(set_state(owner, seqs[i], WRITE_SENDING, 1), JOURNAL_DONE);
        assert_int_equal(journal_read(in[1].j, seqs[i], &r, &c, &e), 1);
        assert_true(slice_eq(c.body, SLICE("body")));
        assert_int_equal(journal_next(in[0].j, i, i, 0, true, &r), 1);
    }
    while (journal_each(in[0].j, &at, 1u << WRITE_SENDING, 10, count_row, &n) == 1)
        continue;
    assert_int_equal(n, JOURNAL_PARTS);
    in[0].keep = true;
    journal_close(&in[0].j);
    await_all_owned(&in[1]);
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        AWAIT(&in[1], came(&in[1], seqs[i], WRITE_STATES, WRITE_SENDING) +
            came(&in[1], seqs[i], WRITE_STATES, WRITE_PENDING) >= 1);
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        assert_int_equal(set_state(&in[1], seqs[i], WRITE_DELIVERED, 1), JOURNAL_DONE);
    journal_close(&in[1].j);
}

/* It is the one with what is of the fleet. */
static void
a_master_that_is_gone_takes_its_partitions_alone(void **state)
{
    unsigned done = 0, full = 0;
    uint64_t left = 0;
    int64_t until;
    struct instance in;

    (void)state;
    open_in_cluster(&in, 0);
    await_all_owned(&in);
    rserver_kill(&nodes[atoi(tell_server(nodes[0].port, "CLUSTER KEYSLOT {j}") + 1) / 5462]);
    for (unsigned i = 0; i < JOURNAL_PARTS; i += 4) {
        struct journal_op op = a_write(i, i, "x");

        if (kit_do(in.j, &op) == JOURNAL_DONE)
            done++;
        else
            full += op.result == JOURNAL_FULL;
    }
    assert_int_equal(done + full, JOURNAL_PARTS / 4);
    assert_true(done > 0 && full > 0);
    AWAIT(&in, in.nowns < JOURNAL_PARTS - 10);
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        if (journal_owns(in.j, i))
            left |= 1ull << i;
    assert_true(left != 0);
    until = now_us() + 2200000;         /* more than a lease */
    while (now_us() < until) {
        for (unsigned i = 0; i < JOURNAL_PARTS; i++)
            assert_true((left >> i & 1) == 0 || journal_owns(in.j, i));
        poll(NULL, 0, 20);
    }
    journal_close(&in.j);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_works_in_partitions_on_all_masters),
        cmocka_unit_test(a_master_that_is_gone_takes_its_partitions_alone),
    };

    return cmocka_run_group_tests_name("write_share_cluster", tests, start, stop);
}
