/*
 * A journal that instances share, against a real Redis: what one takes is there for all, and each
 * partition has one owner.
 */
#include "share_kit.h"

static struct rserver server;

static int
start(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    rserver_start(&server, "--maxmemory-policy noeviction");
    return 0;
}

static int
stop(void **state)
{
    (void)state;
    rserver_stop(&server);
    return 0;
}

static int
empty(void **state)
{
    (void)state;
    tell_server(server.port, "FLUSHALL");
    return 0;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void
rows_are_what_they_were_and_bytes_of_another_are_known_for_it(void **state)
{
    struct write_row r = { .c1 = 1, .c2 = 2, .who = 3, .accepted_ms = 4, .due_ms = 5, .method = 2,
        .lane = 1, .state = WRITE_PENDING, .orders_target = true }, out;
    struct instance in;
    struct buf b = { 0 };
    uint64_t seed = 77;
    struct slice z = { (const char *)&seed, sizeof seed };

    (void)state;
    open_at(&in, server.port);
    row_pack(&b, seed, &r, SLICE("/a"));
    assert_true(row_unpack(in.j, 9, z, buf_slice(&b), (struct slice){ NULL, 0 }, &out));
    r.seq = 9;
    r.route = journal_route(in.j, SLICE("/a"));
    assert_memory_equal(&r, &out, sizeof r);
    for (size_t i = 0; i < b.n; i++) {
        b.p[i] ^= 4;
        assert_false(row_unpack(in.j, 9, z, buf_slice(&b), (struct slice){ NULL, 0 }, &out));
        b.p[i] ^= 4;
        assert_false(row_unpack(in.j, 9, z, (struct slice){ b.p, i }, (struct slice){ NULL, 0 },
            &out));
    }
    seed = 78;
    assert_false(row_unpack(in.j, 9, z, buf_slice(&b), (struct slice){ NULL, 0 }, &out));
    buf_free(&b);
    journal_close(&in.j);
}

/* ---- one instance ---------------------------------------------------------------------------- */

static void
what_is_accepted_is_read_as_it_was_and_its_owner_hears_of_it(void **state)
{
    struct write_content c;
    struct write_row r;
    struct instance in;
    struct err e;
    uint64_t first, second;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    first = accept_at(&in, 5, 11, "body");
    second = accept_at(&in, 5, 11, "");
    assert_true(second > first);
    assert_int_equal(journal_read(in.j, first, &r, &c, &e), 1);
    assert_int_equal(r.c1, 11);
    assert_int_equal(r.state, WRITE_PENDING);
    assert_true(slice_eq(journal_route_name(in.j, r.route), SLICE("/things")));
    assert_true(slice_eq(c.body, SLICE("body")));
    assert_true(slice_eq(c.url, SLICE("http://h/things")));
    assert_null(c.idempotency_key.p);
    assert_int_equal(journal_read(in.j, second, &r, &c, &e), 1);
    assert_true(c.has_body && c.body.n == 0);
    assert_int_equal(journal_read(in.j, second + 64, &r, NULL, &e), 0);
    AWAIT(&in, came(&in, first, WRITE_STATES, WRITE_PENDING) == 1 &&
        came(&in, second, WRITE_STATES, WRITE_PENDING) == 1);
    assert_true(journal_owns(in.j, 5));
    assert_true(journal_fence(in.j, 5) > 0);
    journal_close(&in.j);
}

static void
a_write_goes_through_its_states_and_its_entry_leaves_the_stream(void **state)
{
    struct write_content c;
    struct write_row r;
    struct instance in;
    struct err e;
    uint64_t seq;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    seq = accept_at(&in, 3, 11, "body");
    assert_string_equal(tell_server(server.port, "XLEN t:{j3}s"), ":1\r\n");
    assert_int_equal(set_state(&in, seq, WRITE_SENDING, 1), JOURNAL_DONE);
    assert_int_equal(set_state(&in, seq, WRITE_WAITING, 1), JOURNAL_DONE);
    assert_int_equal(journal_next(in.j, 3, 11, 0, false, &r), 1);
    assert_int_equal(r.seq, seq);
    assert_int_equal(r.state, WRITE_WAITING);
    assert_int_equal(journal_next(in.j, 3, 11, seq, false, &r), 0);
    assert_int_equal(set_state(&in, seq, WRITE_DELIVERED, 2), JOURNAL_DONE);
    assert_int_equal(set_state(&in, seq, WRITE_DELIVERED, 2), JOURNAL_DONE);   /* asked again */
    assert_int_equal(set_state(&in, seq, WRITE_WAITING, 2), JOURNAL_GONE);
    assert_string_equal(tell_server(server.port, "XLEN t:{j3}s"), ":0\r\n");
    assert_int_equal(journal_next(in.j, 3, 11, 0, false, &r), 0);
    assert_int_equal(journal_read(in.j, seq, &r, &c, &e), 1);
    assert_int_equal(r.state, WRITE_DELIVERED);
    assert_true(r.settled_ms > 0);
    assert_int_equal(r.c1, 11);
    assert_null(c.body.p);
    assert_true(slice_eq(c.answer_body, SLICE("ok")));
    assert_true(slice_eq(c.answer_head, SLICE("H: 1\r\n")));
    journal_close(&in.j);
}

/* Of a connection that was given up, behind what its owner sent on the next one. */
static void
a_word_that_comes_late_changes_nothing_and_hides_nothing(void **state)
{
    struct instance in;
    struct write_row r;
    struct err e;
    uint64_t seq;
    char text[512];

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    seq = accept_at(&in, 3, 11, "body");
    AWAIT(&in, came(&in, seq, WRITE_STATES, WRITE_PENDING) == 1);
    assert_int_equal(set_state(&in, seq, WRITE_SENDING, 1), JOURNAL_DONE);
    assert_int_equal(set_state(&in, seq, WRITE_WAITING, 1), JOURNAL_DONE);
    assert_int_equal(set_state(&in, seq, WRITE_SENDING, 1), JOURNAL_GONE);
    assert_int_equal(journal_read(in.j, seq, &r, NULL, &e), 1);
    assert_int_equal(r.state, WRITE_WAITING);
    assert_int_equal(set_state(&in, seq, WRITE_SENDING, 2), JOURNAL_DONE);
    assert_int_equal(set_state(&in, seq, WRITE_WAITING, 2), JOURNAL_DONE);
    snprintf(text, sizeof text, "EVAL \"redis.call('XADD',KEYS[1],'*','w',ARGV[1],'f',6,'t',2) "
        "return #redis.call('XREADGROUP','GROUP','weir','owner','COUNT',9,'STREAMS',KEYS[1],'>')"
        "[1][2]\" 1 t:{j3}s %llu", (unsigned long long)seq);
    assert_string_equal(tell_server(server.port, text), ":1\r\n");     /* nobody hears the answer */
    AWAIT(&in, came(&in, seq, 6, WRITE_WAITING) == 1);
    journal_close(&in.j);
}

static void
count_row(void *arg, const struct write_row *r)
{
    uint64_t *last = arg;

    assert_true(r->seq > last[0]);
    last[0] = r->seq;
    last[1]++;
}

static void
many_are_walked_in_order_of_their_numbers_whatever_their_partition(void **state)
{
    uint64_t seqs[300], last[2] = { 0, 0 }, at = 0;
    struct instance in;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    for (unsigned i = 0; i < NELEM(seqs); i++)
        seqs[i] = accept_at(&in, i % 3 == 0 ? 7 : i % 61, i, "b");
    while (journal_each(in.j, &at, ~0u, 40, count_row, last) == 1)
        continue;
    assert_int_equal(last[1], NELEM(seqs));
    assert_int_equal(set_state(&in, seqs[10], WRITE_DELIVERED, 1), JOURNAL_DONE);
    assert_int_equal(set_state(&in, seqs[20], WRITE_REJECTED, 1), JOURNAL_DONE);
    for (unsigned i = 0; i < 3; i++) {
        static const unsigned masks[] = { 1u << WRITE_PENDING, 1u << WRITE_REJECTED,
            1u << WRITE_DELIVERED };
        static const unsigned want[] = { 298, 1, 1 };

        last[0] = last[1] = at = 0;
        while (journal_each(in.j, &at, masks[i], 1000, count_row, last) == 1)
            continue;
        assert_int_equal(last[1], want[i]);
    }
    journal_close(&in.j);
}

static void
ids_are_known_after_another_opening_and_not_in_another_journal(void **state)
{
    char id[WRITE_ID_N + 1];
    struct instance in;
    uint64_t seq;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    journal_id(in.j, 4711, id);
    journal_close(&in.j);
    open_at(&in, server.port);
    await_all_owned(&in);
    assert_int_equal(journal_id_seq(in.j, slice_of(id), &seq), 1);
    assert_int_equal(seq, 4711);
    journal_close(&in.j);
    tell_server(server.port, "FLUSHALL");
    open_at(&in, server.port);
    await_all_owned(&in);
    assert_int_equal(journal_id_seq(in.j, slice_of(id), &seq), 0);
    journal_close(&in.j);
}

static void
figures_say_what_there_is(void **state)
{
    struct journal_figures f;
    struct instance in;
    int64_t until = now_us() + LONG_MS * 1000;
    uint64_t seq;

    (void)state;
    open_at(&in, server.port);
    journal_figures(in.j, &f);
    await_all_owned(&in);
    accept_at(&in, 1, 1, "x");
    seq = accept_at(&in, 2, 1, "x");
    assert_int_equal(set_state(&in, seq, WRITE_UNCERTAIN, 1), JOURNAL_DONE);
    do {
        journal_figures(in.j, &f);
        assert_true(now_us() < until);
        poll(NULL, 0, 5);
    } while (f.pending != 1 || f.dead != 1);
    assert_true(f.takes);
    assert_string_equal(f.why, "");
    assert_true(f.bytes > 1800 && f.room > 0 && f.oldest_ms > 0);
    journal_close(&in.j);
}

static void
without_redis_it_is_open_takes_nothing_and_says_why(void **state)
{
    struct journal_op op = a_write(1, 1, "x");
    int64_t until = now_us() + LONG_MS * 1000;
    struct journal_figures f;
    struct instance in;
    struct write_row r;
    struct err e;

    (void)state;
    open_at(&in, 1);
    assert_int_equal(kit_do(in.j, &op), JOURNAL_FULL);
    assert_null(journal_secret(in.j));
    assert_int_equal(journal_read(in.j, 1, &r, NULL, &e), -1);
    do {
        journal_figures(in.j, &f);
        assert_true(now_us() < until);
        poll(NULL, 0, 5);
    } while (strcmp(f.why, "Redis cannot be reached") != 0);
    assert_false(f.takes);
    assert_false(journal_owns(in.j, 1));
    journal_close(&in.j);
}

static void
a_verb_changes_what_is_as_it_was_seen_and_the_owner_hears_of_it(void **state)
{
    struct instance in;
    uint64_t dropped, revived;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    dropped = accept_at(&in, 9, 1, "x");
    revived = accept_at(&in, 9, 1, "y");
    assert_int_equal(by_verb(&in, dropped, WRITE_WAITING, 0, WRITE_DROPPED), JOURNAL_GONE);
    assert_int_equal(by_verb(&in, dropped, WRITE_PENDING, 3, WRITE_DROPPED), JOURNAL_GONE);
    AWAIT(&in, came(&in, dropped, WRITE_STATES, WRITE_PENDING) == 1);
    assert_int_equal(by_verb(&in, dropped, WRITE_PENDING, 0, WRITE_DROPPED), JOURNAL_DONE);
    AWAIT(&in, came(&in, dropped, WRITE_PENDING, WRITE_DROPPED) == 1);
    assert_int_equal(set_state(&in, dropped, WRITE_SENDING, 1), JOURNAL_GONE);
    assert_int_equal(set_state(&in, revived, WRITE_SENDING, 1), JOURNAL_DONE);
    assert_int_equal(by_verb(&in, revived, WRITE_SENDING, 1, WRITE_DROPPED), JOURNAL_GONE);
    assert_int_equal(set_state(&in, revived, WRITE_REJECTED, 1), JOURNAL_DONE);
    assert_string_equal(tell_server(server.port, "EXISTS t:{j9}k:0000000000000001"), ":0\r\n");
    assert_int_equal(by_verb(&in, revived, WRITE_REJECTED, 1, WRITE_PENDING), JOURNAL_DONE);
    AWAIT(&in, came(&in, revived, WRITE_REJECTED, WRITE_PENDING) == 1);
    assert_string_equal(tell_server(server.port, "ZCARD t:{j9}k:0000000000000001"), ":1\r\n");
    assert_int_equal(set_state(&in, revived, WRITE_DELIVERED, 1), JOURNAL_DONE);
    journal_close(&in.j);
}

/* ---- a fleet --------------------------------------------------------------------------------- */

static void
open_fleet(struct instance *in, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        open_at(&in[i], server.port);
    for (unsigned i = 0; i < n; i++)
        AWAIT(&in[i], in[i].nowns >= JOURNAL_PARTS / n - n &&
            in[i].nowns <= JOURNAL_PARTS / n + 1);
}

static void
what_any_takes_comes_to_its_owner_in_its_order(void **state)
{
    static struct instance in[3];
    uint64_t seqs[90], last = 0;
    struct instance *owner = NULL;
    unsigned n = 0;

    (void)state;
    open_fleet(in, 3);
    for (unsigned i = 0; i < NELEM(seqs); i++)
        seqs[i] = accept_at(&in[i % 3], 17, 5, "x");
    for (unsigned i = 0; i < 3; i++)
        if (journal_owns(in[i].j, 17))
            owner = &in[i];
    assert_non_null(owner);
    AWAIT(owner, came(owner, seqs[NELEM(seqs) - 1], WRITE_STATES, WRITE_PENDING) == 1);
    for (unsigned i = 0; i < owner->nnews; i++) {
        assert_true(owner->news[i].row.seq > last);
        last = owner->news[i].row.seq;
        assert_int_equal(last, seqs[n++]);
    }
    assert_int_equal(n, NELEM(seqs));
    for (unsigned i = 0; i < 3; i++)
        journal_close(&in[i].j);
}

static void
an_instance_that_stops_gives_its_partitions_back_and_what_is_pending_goes_to_the_next(void **state)
{
    static struct instance in[2];
    uint64_t seqs[3], token;

    (void)state;
    open_fleet(in, 2);
    for (unsigned i = 0; i < 3; i++)
        seqs[i] = accept_at(&in[0], 40 + i, 5, "x");
    token = journal_fence(in[1].j, 40) | journal_fence(in[0].j, 40);
    in[0].keep = true;                  /* the write loop is gone already */
    journal_close(&in[0].j);
    await_all_owned(&in[1]);
    for (unsigned i = 0; i < 3; i++)
        AWAIT(&in[1], came(&in[1], seqs[i], WRITE_STATES, WRITE_PENDING) >= 1);
    assert_true(journal_fence(in[1].j, 40) >= token);
    journal_close(&in[1].j);
}

static void
many_pending_ones_come_to_the_next_owner_once_and_in_order(void **state)
{
    enum { MANY = 700 };
    static uint64_t seqs[MANY];
    struct instance in;
    uint64_t last = 0;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    for (unsigned i = 0; i < MANY; i++)
        seqs[i] = accept_at(&in, 12, i % 5, "x");
    in.keep = true;
    journal_close(&in.j);
    open_at(&in, server.port);
    for (unsigned i = 0; i < 20; i++)   /* while the pages come, or after */
        assert_int_equal(by_verb(&in, seqs[MANY - 1 - i], WRITE_PENDING, 0, WRITE_DROPPED),
            JOURNAL_DONE);
    accept_at(&in, 12, 1, "x");
    AWAIT(&in, in.nnews > 0 && in.news[in.nnews - 1].row.seq > seqs[MANY - 1]);
    for (unsigned i = 0; i < in.nnews; i++)
        if (write_is_pending(in.news[i].row.state)) {
            assert_true(in.news[i].row.seq > last);
            last = in.news[i].row.seq;
        }
    for (unsigned i = 0; i < MANY - 20; i++)
        assert_int_equal(came(&in, seqs[i], WRITE_STATES, WRITE_PENDING), 1);
    journal_close(&in.j);
}

static void
a_damaged_row_is_uncertain_and_its_owner_hears_of_it(void **state)
{
    int64_t until = now_us() + LONG_MS * 1000;
    struct instance in;
    struct write_content c;
    struct write_row r;
    struct err e;
    uint64_t content, row;
    char command[96];

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    content = accept_at(&in, 8, 1, "x");
    row = accept_at(&in, 8, 1, "x");
    AWAIT(&in, in.nnews == 2);
    snprintf(command, sizeof command, "HSET t:{j8}w:%llu b rubbish", (unsigned long long)content);
    tell_server(server.port, command);
    snprintf(command, sizeof command, "HSET t:{j8}w:%llu r rubbish", (unsigned long long)row);
    tell_server(server.port, command);
    assert_int_equal(journal_read(in.j, content, &r, &c, &e), -1);
    assert_int_equal(e.code, EBADMSG);
    AWAIT(&in, came(&in, content, WRITE_PENDING, WRITE_UNCERTAIN) == 1);
    assert_int_equal(journal_read(in.j, content, &r, &c, &e), 1);
    assert_int_equal(r.state, WRITE_UNCERTAIN);
    assert_true(slice_starts(c.cause, SLICE("its content")));
    assert_int_equal(journal_next(in.j, 8, 1, 0, false, &r), -1);
    while (strcmp(tell_server(server.port, "ZCARD t:{j8}p"), ":0\r\n") != 0) {
        assert_true(now_us() < until);
        poll(NULL, 0, 5);
    }
    journal_close(&in.j);
}

static void
who_leaves_gives_all_its_partitions_to_the_others_and_is_alive(void **state)
{
    static struct instance in[2];
    struct journal_op claim;

    (void)state;
    open_fleet(in, 2);
    journal_leave(in[0].j);
    await_all_owned(&in[1]);
    AWAIT(&in[0], in[0].nowns == 0);
    accept_at(&in[0], 1, 1, "x");
    claim = kit_key(JOURNAL_CLAIM, "k", "f");
    assert_int_equal(kit_do(in[0].j, &claim), JOURNAL_DONE);
    claim = kit_key(JOURNAL_CLAIM, "k", "f");
    assert_int_equal(kit_do(in[1].j, &claim), JOURNAL_BUSY);
    assert_non_null(strstr(claim.why, "at the origin"));
    journal_close(&in[0].j);
    journal_close(&in[1].j);
}

/* Its process is stopped, as far as Redis is concerned: the owner's name is another's. */
static void
an_owner_that_slept_beyond_its_lease_changes_nothing(void **state)
{
    struct journal_op op, again;
    struct instance in;
    uint64_t seq, stolen;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    in.keep = true;
    seq = accept_at(&in, 4, 1, "x");
    again = update_of(seq, WRITE_DELIVERED, 1);
    again.fence = journal_fence(in.j, 4);
    stolen = again.fence + 1;
    {
        char command[96];

        snprintf(command, sizeof command, "HSET t:{j4}m t %llu", (unsigned long long)stolen);
        tell_server(server.port, "SET t:{j4}o another PX 60000");
        tell_server(server.port, command);
    }
    op = update_of(seq, WRITE_SENDING, 1);
    assert_int_equal(kit_do(in.j, &op), JOURNAL_LOST);
    assert_false(journal_owns(in.j, 4));
    assert_string_equal(tell_server(server.port, "ZCARD t:{j4}p"), ":1\r\n");
    AWAIT(&in, !in.owns[4]);
    tell_server(server.port, "DEL t:{j4}o");
    journal_left(in.j, 4);
    AWAIT(&in, in.owns[4]);
    assert_true(journal_fence(in.j, 4) > stolen);
    assert_int_equal(kit_do(in.j, &again), JOURNAL_LOST);       /* of the first time */
    assert_true(journal_owns(in.j, 4));
    assert_int_equal(set_state(&in, seq, WRITE_DELIVERED, 1), JOURNAL_DONE);
    journal_close(&in.j);
}

static void
a_partition_that_cannot_be_renewed_is_not_owned_any_more(void **state)
{
    int64_t until = now_us() + LONG_MS * 1000;
    struct instance in;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    kill(server.pid, SIGSTOP);
    while (journal_owns(in.j, 33) && now_us() < until)
        poll(NULL, 0, 5);
    assert_false(journal_owns(in.j, 33));
    AWAIT(&in, in.nowns == 0);
    kill(server.pid, SIGCONT);
    await_all_owned(&in);
    journal_close(&in.j);
}

static void
what_is_paused_is_paused_for_all(void **state)
{
    static struct instance in[2];
    struct journal_op op = { .kind = JOURNAL_PAUSE, .name = SLICE("route:/a"), .on = true };

    (void)state;
    open_fleet(in, 2);
    assert_int_equal(kit_do(in[0].j, &op), JOURNAL_DONE);
    assert_true(journal_paused(in[0].j, SLICE("route:/a")));
    AWAIT(&in[1], in[1].changed == 1);
    assert_true(journal_paused(in[1].j, SLICE("route:/a")));
    op.on = false;
    assert_int_equal(kit_do(in[1].j, &op), JOURNAL_DONE);
    AWAIT(&in[0], in[0].changed == 1);
    assert_false(journal_paused(in[0].j, SLICE("route:/a")));
    journal_close(&in[0].j);
    journal_close(&in[1].j);
}

/* ---- keys ------------------------------------------------------------------------------------ */

static struct journal_op
key_op(enum journal_kind kind, const char *key, const char *fingerprint)
{
    struct journal_op op = kit_key(kind, key, fingerprint);

    op.part = op.key_hash[0] % JOURNAL_PARTS;
    return op;
}

static void
a_key_is_known_to_all_instances_with_the_answer_that_it_had(void **state)
{
    static struct instance in[2];
    struct journal_op first = key_op(JOURNAL_ACCEPT, "one", "f"), same = first;
    struct journal_op other = key_op(JOURNAL_ACCEPT, "one", "g");
    struct journal_op claim = key_op(JOURNAL_CLAIM, "two", "f"), busy = claim, answered = claim;
    struct journal_op end = key_op(JOURNAL_CLAIM_END, "two", "f");

    (void)state;
    open_fleet(in, 2);
    assert_int_equal(kit_do(in[0].j, &first), JOURNAL_DONE);
    assert_int_equal(kit_do(in[1].j, &same), JOURNAL_REPEATED);
    assert_int_equal(same.first_seq, first.row.seq);
    assert_int_equal(kit_do(in[1].j, &other), JOURNAL_MISMATCH);
    assert_int_equal(kit_do(in[0].j, &claim), JOURNAL_DONE);
    assert_int_equal(kit_do(in[1].j, &busy), JOURNAL_BUSY);
    assert_string_equal(busy.why, "the first request with this key is at the origin");
    end.row.status = 201;
    end.row.seq = claim.row.seq;
    end.content = (struct write_content){ .answer_head = SLICE("A: 1\r\n"),
        .answer_body = SLICE("made") };
    assert_int_equal(kit_do(in[0].j, &end), JOURNAL_DONE);
    assert_int_equal(kit_do(in[1].j, &answered), JOURNAL_REPEATED);
    assert_int_equal(answered.first_seq, 0);
    assert_int_equal(answered.row.status, 201);
    assert_true(slice_eq(answered.content.answer_body, SLICE("made")));
    free(answered.reply);
    assert_int_equal(kit_do(in[0].j, &end), JOURNAL_GONE);
    journal_close(&in[0].j);
    journal_close(&in[1].j);
}

static void
the_claim_of_an_instance_that_ended_may_be_made_again_where_that_is_promised(void **state)
{
    struct journal_op claim = key_op(JOURNAL_CLAIM, "two", "f"), again = claim, promised = claim;
    struct journal_op released = key_op(JOURNAL_CLAIM_RELEASE, "two", "f");
    struct instance in;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    assert_int_equal(kit_do(in.j, &claim), JOURNAL_DONE);
    journal_close(&in.j);
    open_at(&in, server.port);
    await_all_owned(&in);
    assert_int_equal(kit_do(in.j, &again), JOURNAL_BUSY);
    assert_non_null(strstr(again.why, "unknown"));
    promised.promised = true;
    assert_int_equal(kit_do(in.j, &promised), JOURNAL_DONE);
    assert_true(promised.row.seq > claim.row.seq);
    assert_int_equal(kit_do(in.j, &released), JOURNAL_DONE);
    assert_int_equal(kit_do(in.j, &again), JOURNAL_DONE);
    journal_close(&in.j);
}

static void
keys_have_their_room_and_what_is_known_is_said_all_the_same(void **state)
{
    struct journal_limits limits = kit_limits;
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf redis = { .servers = &at, .nservers = 1 };
    struct share_options o = options(&redis);
    struct journal_op op = key_op(JOURNAL_ACCEPT, "0", "f");
    int64_t until = now_us() + LONG_MS * 1000;
    struct instance in;

    (void)state;
    limits.idempotency_size = 400;
    open_with(&in, &o, &limits);
    await_all_owned(&in);
    for (unsigned i = 0; op.result != JOURNAL_KEYS_FULL; i++) {
        char key[16];

        assert_true(now_us() < until);
        snprintf(key, sizeof key, "%u", i);
        op = key_op(JOURNAL_ACCEPT, key, "f");
        kit_do(in.j, &op);
    }
    op = key_op(JOURNAL_ACCEPT, "0", "f");
    assert_int_equal(kit_do(in.j, &op), JOURNAL_REPEATED);
    journal_close(&in.j);
}

/* ---- limits, and Redis itself ---------------------------------------------------------------- */

static void
peek_finds_what_is_pending_for_a_path_in_one_of_the_partitions(void **state)
{
    struct journal_op op = a_write(7, 100, "x"), peek = { .kind = JOURNAL_PEEK,
        .row.c1 = 200, .parts = 1ull << 3 | 1ull << 7 };
    struct instance in;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    op.row.c2 = 200;
    assert_int_equal(kit_do(in.j, &peek), JOURNAL_GONE);
    assert_int_equal(kit_do(in.j, &op), JOURNAL_DONE);
    assert_int_equal(kit_do(in.j, &peek), JOURNAL_DONE);
    peek.row.c1 = 100;
    assert_int_equal(kit_do(in.j, &peek), JOURNAL_DONE);
    peek.parts = 1ull << 3;
    assert_int_equal(kit_do(in.j, &peek), JOURNAL_GONE);
    journal_close(&in.j);
}

static void
settled_writes_go_when_their_time_is_out(void **state)
{
    int64_t until = now_us() + LONG_MS * 1000;
    struct journal_limits limits = kit_limits;
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf redis = { .servers = &at, .nservers = 1 };
    struct share_options o = options(&redis);
    struct instance in;
    uint64_t seq;

    (void)state;
    limits.keep_ms = 1;
    open_with(&in, &o, &limits);
    await_all_owned(&in);
    seq = accept_at(&in, 1, 1, "x");
    assert_int_equal(set_state(&in, seq, WRITE_DELIVERED, 1), JOURNAL_DONE);
    while (strcmp(tell_server(server.port, "ZCARD t:{j1}a"), ":0\r\n") != 0) {
        assert_true(now_us() < until);
        poll(NULL, 0, 20);
    }
    assert_string_equal(tell_server(server.port, "HGET t:{j1}m b"), "$1\r\n0\r\n");
    limits.keep_ms = 0;
    journal_limits(in.j, &limits);
    seq = accept_at(&in, 1, 1, "x");
    assert_int_equal(set_state(&in, seq, WRITE_DELIVERED, 1), JOURNAL_DONE);
    assert_string_equal(tell_server(server.port, "ZCARD t:{j1}a"), ":0\r\n");
    assert_string_equal(tell_server(server.port, "HGET t:{j1}m b"), "$1\r\n0\r\n");
    journal_close(&in.j);
}

static void
what_redis_lost_is_counted_and_no_number_is_given_twice(void **state)
{
    int64_t until = now_us() + LONG_MS * 1000;
    struct journal_figures f;
    struct instance in;
    uint64_t last = 0, seq;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    for (unsigned i = 0; i < 5; i++)
        last = accept_at(&in, 6, i, "x");
    assert_int_equal(set_state(&in, last, WRITE_DELIVERED, 1), JOURNAL_DONE);
    tell_server(server.port, "FLUSHALL");
    seq = accept_at(&in, 6, 1, "x");
    assert_true(seq > last);
    for (unsigned lost = 4; lost <= 5; lost++) {
        do {
            journal_figures(in.j, &f);
            assert_true(now_us() < until);
            poll(NULL, 0, 5);
        } while (f.lost != lost);
        tell_server(server.port, "FLUSHALL");
    }
    await_all_owned(&in);
    assert_true(accept_at(&in, 6, 1, "x") > seq);
    journal_close(&in.j);
}

static void
a_redis_that_would_lose_or_evict_writes_takes_none(void **state)
{
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf redis = { .servers = &at, .nservers = 1 };
    struct share_options o = options(&redis);
    struct instance in;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        static const char *const set[] = { "PING", "CONFIG SET appendonly yes",
            "CONFIG SET maxmemory-policy allkeys-lru" };
        static const char *const words[] = { "appendonly yes", "appendfsync always",
            "maxmemory-policy noeviction" };
        struct journal_op op = a_write(1, 1, "x");

        tell_server(server.port, set[i]);
        o.durable = WRITE_FSYNC;
        open_with(&in, &o, &kit_limits);
        assert_int_equal(kit_do(in.j, &op), JOURNAL_FULL);
        assert_non_null(strstr(op.why, words[i]));
        journal_close(&in.j);
    }
    tell_server(server.port, "CONFIG SET maxmemory-policy noeviction");
    o.durable = WRITE_OS;
    open_with(&in, &o, &kit_limits);
    await_all_owned(&in);
    accept_at(&in, 1, 1, "x");
    journal_close(&in.j);
    tell_server(server.port, "CONFIG SET appendonly no");
}

/* Connections end all the time: what was asked for is done, once, and told, once. */
static atomic_bool cutting;

static void *
cut_connections(void *arg)
{
    (void)arg;
    while (atomic_load(&cutting)) {
        tell_server(server.port, "CLIENT KILL TYPE normal");
        poll(NULL, 0, 20);
    }
    return NULL;
}

static void
connections_that_end_make_nothing_happen_twice(void **state)
{
    struct instance in;
    struct write_row r;
    uint64_t seqs[150];
    pthread_t thread;
    struct err e;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    atomic_store(&cutting, true);
    assert_int_equal(pthread_create(&thread, NULL, cut_connections, NULL), 0);
    for (unsigned i = 0; i < NELEM(seqs); i++) {
        seqs[i] = accept_at(&in, 2, 1, "x");
        assert_true(i == 0 || seqs[i] == seqs[i - 1] + JOURNAL_PARTS);
    }
    AWAIT(&in, in.nnews == NELEM(seqs));
    for (unsigned i = 0; i < NELEM(seqs); i++)
        assert_int_equal(came(&in, seqs[i], WRITE_STATES, WRITE_PENDING), 1);
    for (unsigned i = 0; i < NELEM(seqs); i += 3) {
        assert_int_equal(set_state(&in, seqs[i], WRITE_SENDING, 1), JOURNAL_DONE);
        assert_int_equal(set_state(&in, seqs[i], WRITE_DELIVERED, 1), JOURNAL_DONE);
    }
    atomic_store(&cutting, false);
    pthread_join(thread, NULL);
    assert_string_equal(tell_server(server.port, "ZCARD t:{j2}a"), ":150\r\n");
    assert_string_equal(tell_server(server.port, "ZCARD t:{j2}p"), ":100\r\n");
    assert_int_equal(journal_read(in.j, seqs[1], &r, NULL, &e), 1);
    assert_int_equal(in.nnews, NELEM(seqs));
    journal_close(&in.j);
}

static void
a_redis_without_memory_takes_nothing_and_what_is_there_is_settled(void **state)
{
    struct journal_op op = a_write(1, 1, "x"), pause = { .kind = JOURNAL_PAUSE,
        .name = SLICE("route:/a"), .on = true };
    struct instance in;
    uint64_t seq;

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    seq = accept_at(&in, 1, 1, "x");
    tell_server(server.port, "CONFIG SET maxmemory 1");
    assert_int_equal(kit_do(in.j, &op), JOURNAL_FULL);
    assert_non_null(strstr(op.why, "out of memory"));
    assert_int_equal(set_state(&in, seq, WRITE_SENDING, 1), JOURNAL_DONE);
    assert_int_equal(set_state(&in, seq, WRITE_DELIVERED, 1), JOURNAL_DONE);
    assert_int_equal(kit_do(in.j, &pause), JOURNAL_DONE);
    tell_server(server.port, "CONFIG SET maxmemory 0");
    assert_int_equal(kit_do(in.j, &op), JOURNAL_DONE);
    journal_close(&in.j);
}

/* As if who accepted it had ended before replicas had it. */
static void
hold(uint64_t seq, const char *till)
{
    char command[128];
    unsigned part = journal_part(seq);

    snprintf(command, sizeof command, "XTRIM t:{j%u}s MAXLEN 0", part);
    tell_server(server.port, command);
    snprintf(command, sizeof command, "HSET t:{j%u}w:%llu ev 0-0", part, (unsigned long long)seq);
    tell_server(server.port, command);
    snprintf(command, sizeof command, "ZADD t:{j%u}h %s %llu", part, till, (unsigned long long)seq);
    tell_server(server.port, command);
}

static void
what_is_held_for_replicas_is_delivered_when_its_time_is_out_and_in_order(void **state)
{
    struct write_row r;
    struct instance in;
    uint64_t seqs[3];

    (void)state;
    open_at(&in, server.port);
    await_all_owned(&in);
    for (unsigned i = 0; i < NELEM(seqs); i++)
        seqs[i] = accept_at(&in, 5, 11, "x");
    journal_close(&in.j);
    hold(seqs[1], "9000000000000");
    hold(seqs[2], "9000000000001");
    open_at(&in, server.port);
    await_all_owned(&in);
    AWAIT(&in, in.nnews == 1);
    assert_int_equal(in.news[0].row.seq, seqs[0]);
    assert_int_equal(journal_next(in.j, 5, 11, seqs[0], false, &r), 0);
    hold(seqs[2], "1");
    AWAIT(&in, in.nnews == 3);
    for (unsigned i = 0; i < NELEM(seqs); i++) {
        assert_int_equal(in.news[i].row.seq, seqs[i]);
        assert_int_equal(in.news[i].from, WRITE_STATES);
    }
    assert_int_equal(journal_next(in.j, 5, 11, seqs[0], false, &r), 1);
    assert_string_equal(tell_server(server.port, "ZCOUNT t:{j5}h inf inf"), ":2\r\n");
    for (unsigned i = 0; i < NELEM(seqs); i++)
        assert_int_equal(set_state(&in, seqs[i], WRITE_DELIVERED, 1), JOURNAL_DONE);
    assert_string_equal(tell_server(server.port, "EXISTS t:{j5}h"), ":0\r\n");
    journal_close(&in.j);
}

static void
without_enough_replicas_a_write_is_not_taken(void **state)
{
    struct redis_server at = { "127.0.0.1", server.port };
    struct redis_conf redis = { .servers = &at, .nservers = 1 };
    struct share_options o = options(&redis);
    struct journal_op op = key_op(JOURNAL_ACCEPT, "k", "f");
    struct rserver replica = { 0 };
    struct instance in;
    char more[64];
    int64_t until = now_us() + 2 * LONG_MS * 1000;
    uint64_t seq;

    (void)state;
    o.replicas = 1;
    o.timeout_ms = 1500;
    open_with(&in, &o, &kit_limits);
    await_all_owned(&in);
    in.keep = true;
    assert_int_equal(kit_do(in.j, &op), JOURNAL_FULL);
    assert_non_null(strstr(op.why, "replicas"));
    assert_null(strstr(op.why, "not known"));
    snprintf(more, sizeof more, "--replicaof 127.0.0.1 %u", server.port);
    rserver_start(&replica, more);
    do {
        op = key_op(JOURNAL_ACCEPT, "k", "f");
        assert_true(now_us() < until);
    } while (kit_do(in.j, &op) == JOURNAL_FULL);
    assert_int_equal(op.result, JOURNAL_DONE);
    seq = op.row.seq;
    AWAIT(&in, came(&in, seq, WRITE_STATES, WRITE_PENDING) == 1);
    assert_string_equal(tell_server(server.port, "KEYS t:*h"), "*0\r\n");
    /* Not acknowledged, and told to its owner all the same: so it is known to who asks again. */
    hold(seq, "inf");
    do {
        op = key_op(JOURNAL_ACCEPT, "k", "f");
        assert_true(now_us() < until);
    } while (kit_do(in.j, &op) == JOURNAL_FULL);
    assert_int_equal(op.result, JOURNAL_REPEATED);
    assert_int_equal(op.first_seq, seq);
    assert_string_equal(tell_server(server.port, "KEYS t:*h"), "*0\r\n");
    rserver_stop(&replica);
    do {                                /* Redis may not know at once that it has gone */
        hold(seq, "inf");
        op = key_op(JOURNAL_ACCEPT, "k", "f");
        assert_true(now_us() < until);
    } while (kit_do(in.j, &op) == JOURNAL_REPEATED);
    assert_int_equal(op.result, JOURNAL_FULL);
    assert_non_null(strstr(op.why, "not known"));
    assert_int_equal(in.nnews, 1);
    journal_close(&in.j);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(rows_are_what_they_were_and_bytes_of_another_are_known_for_it,
            empty),
        cmocka_unit_test_setup(what_is_accepted_is_read_as_it_was_and_its_owner_hears_of_it, empty),
        cmocka_unit_test_setup(a_write_goes_through_its_states_and_its_entry_leaves_the_stream,
            empty),
        cmocka_unit_test_setup(a_word_that_comes_late_changes_nothing_and_hides_nothing, empty),
        cmocka_unit_test_setup(many_are_walked_in_order_of_their_numbers_whatever_their_partition,
            empty),
        cmocka_unit_test_setup(ids_are_known_after_another_opening_and_not_in_another_journal,
            empty),
        cmocka_unit_test_setup(a_verb_changes_what_is_as_it_was_seen_and_the_owner_hears_of_it,
            empty),
        cmocka_unit_test_setup(figures_say_what_there_is, empty),
        cmocka_unit_test_setup(what_any_takes_comes_to_its_owner_in_its_order, empty),
        cmocka_unit_test_setup(
            an_instance_that_stops_gives_its_partitions_back_and_what_is_pending_goes_to_the_next,
            empty),
        cmocka_unit_test_setup(many_pending_ones_come_to_the_next_owner_once_and_in_order, empty),
        cmocka_unit_test_setup(a_damaged_row_is_uncertain_and_its_owner_hears_of_it, empty),
        cmocka_unit_test_setup(who_leaves_gives_all_its_partitions_to_the_others_and_is_alive,
            empty),
        cmocka_unit_test_setup(an_owner_that_slept_beyond_its_lease_changes_nothing, empty),
        cmocka_unit_test_setup(a_partition_that_cannot_be_renewed_is_not_owned_any_more, empty),
        cmocka_unit_test_setup(what_is_paused_is_paused_for_all, empty),
        cmocka_unit_test_setup(a_key_is_known_to_all_instances_with_the_answer_that_it_had, empty),
        cmocka_unit_test_setup(
            the_claim_of_an_instance_that_ended_may_be_made_again_where_that_is_promised, empty),
        cmocka_unit_test_setup(keys_have_their_room_and_what_is_known_is_said_all_the_same, empty),
        cmocka_unit_test_setup(peek_finds_what_is_pending_for_a_path_in_one_of_the_partitions,
            empty),
        cmocka_unit_test_setup(settled_writes_go_when_their_time_is_out, empty),
        cmocka_unit_test_setup(what_redis_lost_is_counted_and_no_number_is_given_twice, empty),
        cmocka_unit_test_setup(a_redis_that_would_lose_or_evict_writes_takes_none, empty),
        cmocka_unit_test_setup(connections_that_end_make_nothing_happen_twice, empty),
        cmocka_unit_test_setup(a_redis_without_memory_takes_nothing_and_what_is_there_is_settled,
            empty),
        cmocka_unit_test_setup(without_enough_replicas_a_write_is_not_taken, empty),
        cmocka_unit_test_setup(
            what_is_held_for_replicas_is_delivered_when_its_time_is_out_and_in_order, empty),
        cmocka_unit_test(without_redis_it_is_open_takes_nothing_and_says_why),
    };

    return cmocka_run_group_tests_name("write_share", tests, start, stop);
}
