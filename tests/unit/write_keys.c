/*
 * Idempotency keys in the journal: the first answer again, never a second write, never a forgotten
 * key.
 */
#include "write_kit.h"

static void
the_same_key_and_request_gets_the_first_write(void **state)
{
    struct journal_op first = kit_key(JOURNAL_ACCEPT, "k", "f"), again = first, other = first;
    struct journal_figures f;
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    assert_int_equal(kit_do(k.j, &first), JOURNAL_DONE);
    for (int i = 0; i < 2; i++) {
        again = kit_key(JOURNAL_ACCEPT, "k", "f");
        assert_int_equal(kit_do(k.j, &again), JOURNAL_REPEATED);
        assert_int_equal(again.first_seq, first.row.seq);
        other = kit_key(JOURNAL_ACCEPT, "k", "g");
        assert_int_equal(kit_do(k.j, &other), JOURNAL_MISMATCH);
        kit_state(&k, first.row.seq, WRITE_DELIVERED, "");
        kit_again(&k);
    }
    journal_figures(k.j, &f);
    assert_int_equal(f.pending, 0);
    kit_end(&k);
}

static void
of_two_in_one_transaction_the_second_hears_that_the_first_is_being_accepted(void **state)
{
    struct journal_op ops[3] = { kit_key(JOURNAL_ACCEPT, "k", "f"),
        kit_key(JOURNAL_ACCEPT, "k", "f"), kit_key(JOURNAL_CLAIM, "k", "f") };
    struct journal_op *all[3] = { &ops[0], &ops[1], &ops[2] };
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    kit_do_together(k.j, all, 3);
    assert_int_equal(ops[0].result, JOURNAL_DONE);
    assert_int_equal(ops[1].result, JOURNAL_BUSY);
    assert_non_null(strstr(ops[1].why, "being accepted"));
    assert_int_equal(ops[2].result, JOURNAL_BUSY);
    kit_end(&k);
}

static void
a_claim_is_open_until_its_answer_which_is_said_again(void **state)
{
    struct journal_op first = kit_key(JOURNAL_CLAIM, "k", "f"), again, end;
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    assert_int_equal(kit_do(k.j, &first), JOURNAL_DONE);
    assert_true(first.row.seq != 0);
    again = kit_key(JOURNAL_CLAIM, "k", "f");
    assert_int_equal(kit_do(k.j, &again), JOURNAL_BUSY);
    assert_non_null(strstr(again.why, "at the origin"));
    end = kit_key(JOURNAL_CLAIM_END, "k", "");
    end.row.seq = first.row.seq + 1;
    assert_int_equal(kit_do(k.j, &end), JOURNAL_GONE);
    end = kit_key(JOURNAL_CLAIM_END, "k", "");
    end.row.seq = first.row.seq;
    end.row.status = 201;
    end.content.answer_head = SLICE("Location: /x\r\n");
    end.content.answer_body = SLICE("made");
    assert_int_equal(kit_do(k.j, &end), JOURNAL_DONE);
    assert_int_equal(kit_do(k.j, &end), JOURNAL_GONE);
    kit_again(&k);
    again = kit_key(JOURNAL_CLAIM, "k", "f");
    assert_int_equal(kit_do(k.j, &again), JOURNAL_REPEATED);
    assert_int_equal(again.first_seq, 0);
    assert_int_equal(again.row.status, 201);
    assert_int_equal(again.row.seq, first.row.seq);
    assert_true(slice_eq(again.content.answer_head, SLICE("Location: /x\r\n")));
    assert_true(slice_eq(again.content.answer_body, SLICE("made")));
    free(again.reply);
    kit_end(&k);
}

static void
a_claim_that_is_released_can_be_made_again(void **state)
{
    struct journal_op claim = kit_key(JOURNAL_CLAIM, "k", "f"), release, other;
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    assert_int_equal(kit_do(k.j, &claim), JOURNAL_DONE);
    release = kit_key(JOURNAL_CLAIM_RELEASE, "k", "");
    assert_int_equal(kit_do(k.j, &release), JOURNAL_DONE);
    assert_int_equal(kit_do(k.j, &release), JOURNAL_GONE);
    other = kit_key(JOURNAL_CLAIM, "k", "g");
    assert_int_equal(kit_do(k.j, &other), JOURNAL_DONE);
    kit_end(&k);
}

static void
a_claim_of_unknown_fate_is_made_again_only_where_that_is_promised(void **state)
{
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    for (int i = 0; i < 2; i++) {       /* by a crash, by its end */
        const char *name = i == 0 ? "a" : "b";
        struct journal_op claim = kit_key(JOURNAL_CLAIM, name, "f"), again, end;

        assert_int_equal(kit_do(k.j, &claim), JOURNAL_DONE);
        end = kit_key(JOURNAL_CLAIM_END, name, "");
        if (i == 0)
            kit_again(&k);
        else
            assert_int_equal(kit_do(k.j, &end), JOURNAL_DONE);
        again = kit_key(JOURNAL_CLAIM, name, "f");
        assert_int_equal(kit_do(k.j, &again), JOURNAL_BUSY);
        assert_non_null(strstr(again.why, "unknown"));
        again = kit_key(JOURNAL_CLAIM, name, "g");
        again.promised = true;
        assert_int_equal(kit_do(k.j, &again), JOURNAL_MISMATCH);
        again = kit_key(JOURNAL_CLAIM, name, "f");
        again.promised = true;
        assert_int_equal(kit_do(k.j, &again), JOURNAL_DONE);
        again = kit_key(JOURNAL_CLAIM, name, "f");
        again.promised = true;
        assert_int_equal(kit_do(k.j, &again), JOURNAL_BUSY);
    }
    kit_end(&k);
}

static void
keys_are_refused_when_they_are_full_and_taken_when_old_ones_are_out_of_time(void **state)
{
    const struct journal_limits small = { 64 * KIT_MIB, 64 * 1024, 3600000, 1000000 };
    struct journal_op op, plain = kit_write(1, SLICE("x"));
    struct kit k;
    struct err e;
    char name[16];
    int n = 0;

    (void)state;
    kit_new(&k);
    assert_int_equal(kit_open_with(&k, &small, &e), 0);
    do {
        snprintf(name, sizeof name, "k%d", n++);
        op = kit_key(JOURNAL_CLAIM, name, "f");
        op.durable = WRITE_OS;
        op.key_for_ms = n % 2 != 0 ? 3600000 : 1;
    } while (kit_do(k.j, &op) == JOURNAL_DONE && n < 10000);
    assert_true(n > 100 && n < 10000);
    assert_int_equal(op.result, JOURNAL_KEYS_FULL);
    assert_int_equal(kit_do(k.j, &plain), JOURNAL_DONE);
    op = kit_key(JOURNAL_ACCEPT, "k0", "f");    /* none is forgotten before its time */
    assert_int_equal(kit_do(k.j, &op), JOURNAL_BUSY);
    kit_end(&k);
}

static void
the_answer_of_a_claim_is_let_go_where_there_is_no_room_for_it(void **state)
{
    const struct journal_limits small = { 64 * KIT_MIB, 64 * 1024, 3600000, 1000000 };
    static const char big[64 * 1024];
    struct journal_op op = kit_key(JOURNAL_CLAIM, "k", "f"), end, again;
    struct kit k;
    struct err e;

    (void)state;
    kit_new(&k);
    assert_int_equal(kit_open_with(&k, &small, &e), 0);
    assert_int_equal(kit_do(k.j, &op), JOURNAL_DONE);
    end = kit_key(JOURNAL_CLAIM_END, "k", "");
    end.row.status = 200;
    end.content.answer_body = (struct slice){ big, sizeof big };
    assert_int_equal(kit_do(k.j, &end), JOURNAL_DONE);
    again = kit_key(JOURNAL_CLAIM, "k", "f");
    assert_int_equal(kit_do(k.j, &again), JOURNAL_REPEATED);
    assert_int_equal(again.row.status, 200);
    assert_null(again.content.answer_body.p);
    free(again.reply);
    kit_end(&k);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_key_and_request_gets_the_first_write),
        cmocka_unit_test(
            of_two_in_one_transaction_the_second_hears_that_the_first_is_being_accepted),
        cmocka_unit_test(a_claim_is_open_until_its_answer_which_is_said_again),
        cmocka_unit_test(a_claim_that_is_released_can_be_made_again),
        cmocka_unit_test(a_claim_of_unknown_fate_is_made_again_only_where_that_is_promised),
        cmocka_unit_test(
            keys_are_refused_when_they_are_full_and_taken_when_old_ones_are_out_of_time),
        cmocka_unit_test(the_answer_of_a_claim_is_let_go_where_there_is_no_room_for_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
