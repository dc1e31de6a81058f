/*
 * The journal: what is accepted is there, in its order, and stays what it was.
 */
#include "write_kit.h"

static void
a_write_is_read_back_as_it_was_accepted(void **state)
{
    struct journal_op op = kit_write(11, SLICE("hello"));
    struct write_content c;
    struct write_row r;
    struct kit k;
    struct err e;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    op.row.c2 = 22;
    op.row.orders_target = true;
    op.content.idempotency_key = SLICE("");
    assert_int_equal(kit_do(k.j, &op), JOURNAL_DONE);
    assert_true(op.row.seq > 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(journal_read(k.j, op.row.seq, &r, &c, &e), 1);
        assert_memory_equal(&r, &op.row, sizeof r);
        assert_true(slice_eq(c.body, SLICE("hello")) && c.has_body);
        assert_true(slice_eq(c.url, SLICE("http://h/things")));
        assert_true(slice_eq(c.fields, SLICE("A: b\r\n")));
        assert_true(c.idempotency_key.p != NULL && c.idempotency_key.n == 0);
        assert_null(c.answer_head.p);
        kit_again(&k);
    }
    assert_int_equal(k.nfound, 1);
    assert_memory_equal(&k.found[0], &op.row, sizeof r);
    assert_int_equal(journal_read(k.j, op.row.seq + 1, &r, &c, &e), 0);
    kit_end(&k);
}

static void
a_chain_is_followed_in_order_by_its_key_and_by_its_target(void **state)
{
    struct journal_op ops[4] = { kit_write(1, SLICE("a")), kit_write(2, SLICE("b")),
        kit_write(3, SLICE("c")), kit_write(1, SLICE("d")) };
    struct journal_op *all[4] = { &ops[0], &ops[1], &ops[2], &ops[3] };
    struct write_row r;
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    ops[1].row.c2 = 1;
    kit_do_together(k.j, all, 4);
    for (int i = 1; i < 4; i++)
        assert_int_equal(ops[i].row.seq, ops[i - 1].row.seq + 1);
    assert_int_equal(journal_next(k.j, 0, 1, 0, false, &r), 1);
    assert_int_equal(r.seq, ops[0].row.seq);
    assert_int_equal(journal_next(k.j, 0, 1, r.seq, false, &r), 1);
    assert_int_equal(r.seq, ops[3].row.seq);
    assert_int_equal(journal_next(k.j, 0, 1, r.seq, true, &r), 0);
    assert_int_equal(journal_next(k.j, 0, 1, ops[0].row.seq, true, &r), 1);
    assert_int_equal(r.seq, ops[1].row.seq);
    /* a dead one is in no chain, and is again when it is retried */
    assert_int_equal(kit_state(&k, ops[0].row.seq, WRITE_REJECTED, "no"), JOURNAL_DONE);
    assert_int_equal(journal_next(k.j, 0, 1, 0, false, &r), 1);
    assert_int_equal(r.seq, ops[3].row.seq);
    assert_int_equal(kit_state(&k, ops[0].row.seq, WRITE_WAITING, ""), JOURNAL_DONE);
    assert_int_equal(journal_next(k.j, 0, 1, 0, false, &r), 1);
    assert_int_equal(r.seq, ops[0].row.seq);
    kit_end(&k);
}

static void
a_settled_write_keeps_its_answer_and_lets_its_body_go(void **state)
{
    struct write_content c;
    struct write_row r;
    struct kit k;
    struct err e;
    uint64_t seq;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    seq = kit_accept(&k, 1, SLICE("body"));
    assert_int_equal(kit_state(&k, seq, WRITE_SENDING, ""), JOURNAL_DONE);
    assert_int_equal(kit_state(&k, seq, WRITE_DELIVERED, ""), JOURNAL_DONE);
    assert_int_equal(kit_state(&k, seq, WRITE_DELIVERED, ""), JOURNAL_GONE);
    kit_again(&k);
    assert_int_equal(k.nfound, 0);
    assert_int_equal(journal_read(k.j, seq, &r, &c, &e), 1);
    assert_int_equal(r.state, WRITE_DELIVERED);
    assert_int_equal(r.c1, 1);
    assert_true(r.settled_ms != 0);
    assert_null(c.body.p);
    assert_null(c.fields.p);
    assert_true(slice_eq(c.url, SLICE("http://h/things")));
    assert_true(slice_eq(c.answer_body, SLICE("ok")));
    kit_end(&k);
}

static void
count_row(void *arg, const struct write_row *r)
{
    unsigned *n = arg;

    (void)r;
    ++*n;
}

static void
a_search_among_writes_looks_at_no_more_of_them_than_it_is_told(void **state)
{
    struct kit k;
    uint64_t seq[4], at = 0;
    unsigned n = 0;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    for (int i = 0; i < 4; i++)
        seq[i] = kit_accept(&k, (uint64_t)i, SLICE("x"));
    kit_state(&k, seq[2], WRITE_WAITING, "");
    assert_int_equal(journal_each(k.j, &at, 1u << WRITE_WAITING, 2, count_row, &n), 1);
    assert_true(at == seq[1] && n == 0);
    assert_int_equal(journal_each(k.j, &at, 1u << WRITE_WAITING, 2, count_row, &n), 1);
    assert_true(at == seq[3] && n == 1);
    assert_int_equal(journal_each(k.j, &at, 1u << WRITE_WAITING, 2, count_row, &n), 0);
    assert_true(at == seq[3] && n == 1);
    kit_end(&k);
}

static void
writes_are_listed_by_state_across_what_is_settled(void **state)
{
    struct journal_figures f;
    struct kit k;
    uint64_t seq[6], at;
    unsigned n;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    for (int i = 0; i < 6; i++)
        seq[i] = kit_accept(&k, (uint64_t)i, SLICE("x"));
    kit_state(&k, seq[1], WRITE_DELIVERED, "");
    kit_state(&k, seq[2], WRITE_EXPIRED, "");
    for (unsigned i = 0; i < 4; i++) {
        static const unsigned masks[] = { 1u << WRITE_DELIVERED, 1u << WRITE_EXPIRED,
            1u << WRITE_PENDING, ~0u };
        static const unsigned counts[] = { 1, 1, 4, 6 };

        n = 0;
        at = 0;
        assert_int_equal(journal_each(k.j, &at, masks[i], 100, count_row, &n), 0);
        assert_int_equal(n, counts[i]);
    }
    n = 0;
    at = seq[3];
    assert_int_equal(journal_each(k.j, &at, ~0u, 100, count_row, &n), 0);
    assert_int_equal(n, 2);
    journal_figures(k.j, &f);
    assert_int_equal(f.pending, 4);
    assert_int_equal(f.dead, 1);
    assert_true(f.takes && f.why[0] == '\0');
    assert_true(f.oldest_ms != 0 && f.bytes != 0);
    kit_again(&k);
    journal_figures(k.j, &f);
    assert_int_equal(f.pending, 4);
    assert_int_equal(f.dead, 1);
    kit_end(&k);
}

static void
the_figures_say_how_large_a_write_may_be(void **state)
{
    const struct journal_limits tiny = { KIT_MIB, KIT_MIB, 3600000, 1000 };
    static char large[100000];
    struct slice body = { large, sizeof large };
    struct journal_op op;
    struct journal_figures f;
    struct kit k;
    struct err e;

    (void)state;
    kit_new(&k);
    assert_int_equal(kit_open_with(&k, &tiny, &e), 0);
    do
        op = kit_write(1, body);
    while (kit_do(k.j, &op) == JOURNAL_DONE);
    assert_int_equal(op.result, JOURNAL_FULL);
    journal_figures(k.j, &f);
    assert_true(f.takes && f.room > 0 && f.room < 110000);
    body.n = 1000;
    kit_accept(&k, 2, body);            /* smaller ones are taken */
    kit_end(&k);
}

static void
numbers_are_never_given_twice(void **state)
{
    const struct journal_limits none_kept = { 64 * KIT_MIB, KIT_MIB, 0, 1000 };
    struct kit k;
    struct err e;
    uint64_t last = 0;

    (void)state;
    kit_new(&k);
    for (int i = 0; i < 3; i++) {
        uint64_t seq;

        assert_int_equal(kit_open_with(&k, &none_kept, &e), 0);
        seq = kit_accept(&k, 1, SLICE("x"));
        assert_true(seq > last);
        last = seq;
        kit_state(&k, seq, WRITE_DELIVERED, "");
        assert_int_equal(journal_read(k.j, seq, NULL, NULL, &e), 0);
        journal_close(&k.j);
    }
    kit_end(&k);
}

static void
an_id_gives_its_number_back_and_no_other_text_does(void **state)
{
    char id[WRITE_ID_N + 1], other[WRITE_ID_N + 1];
    uint64_t seq = 0;
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    for (uint64_t i = 1; i < 1000; i++) {
        journal_id(k.j, i, id);
        assert_int_equal(journal_id_seq(k.j, slice_of(id), &seq), 1);
        assert_int_equal(seq, i);
    }
    memcpy(other, id, sizeof id);
    other[3] = id[3] == '0' ? '1' : '0';
    assert_int_equal(journal_id_seq(k.j, slice_of(other), &seq), 0);
    other[3] = 'G';
    assert_int_equal(journal_id_seq(k.j, slice_of(other), &seq), 0);
    assert_int_equal(journal_id_seq(k.j, SLICE(""), &seq), 0);
    assert_int_equal(journal_id_seq(k.j, (struct slice){ id, WRITE_ID_N - 1 }, &seq), 0);
    kit_again(&k);
    assert_int_equal(journal_id_seq(k.j, slice_of(id), &seq), 1);
    assert_int_equal(seq, 999);
    kit_end(&k);
}

static void
names_of_routes_and_of_what_is_paused_are_remembered(void **state)
{
    struct journal_op op = { .kind = JOURNAL_PAUSE, .name = SLICE("origin"), .on = true };
    uint32_t a, b;
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    a = journal_route(k.j, SLICE("a"));
    b = journal_route(k.j, SLICE("b"));
    assert_int_equal(journal_route(k.j, SLICE("a")), a);
    assert_true(a != 0 && b != 0 && a != b);
    assert_false(journal_paused(k.j, SLICE("origin")));
    assert_int_equal(kit_do(k.j, &op), JOURNAL_DONE);
    kit_again(&k);
    assert_true(journal_paused(k.j, SLICE("origin")));
    assert_int_equal(journal_route(k.j, SLICE("b")), b);
    assert_true(slice_eq(journal_route_name(k.j, a), SLICE("a")));
    assert_null(journal_route_name(k.j, 99).p);
    op.on = false;
    assert_int_equal(kit_do(k.j, &op), JOURNAL_DONE);
    assert_false(journal_paused(k.j, SLICE("origin")));
    kit_again(&k);
    assert_false(journal_paused(k.j, SLICE("origin")));
    kit_end(&k);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_is_read_back_as_it_was_accepted),
        cmocka_unit_test(a_chain_is_followed_in_order_by_its_key_and_by_its_target),
        cmocka_unit_test(a_settled_write_keeps_its_answer_and_lets_its_body_go),
        cmocka_unit_test(writes_are_listed_by_state_across_what_is_settled),
        cmocka_unit_test(a_search_among_writes_looks_at_no_more_of_them_than_it_is_told),
        cmocka_unit_test(the_figures_say_how_large_a_write_may_be),
        cmocka_unit_test(numbers_are_never_given_twice),
        cmocka_unit_test(an_id_gives_its_number_back_and_no_other_text_does),
        cmocka_unit_test(names_of_routes_and_of_what_is_paused_are_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
