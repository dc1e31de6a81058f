/* What goes with a write: PUTs that it replaces, POSTs that are sent with it. */
#include "write_kit.h"

#include "write/deliver.h"

struct world {
    struct kit k;
    struct writes w;
    struct conf_route conf;
    struct route route;
    struct delivery d;
};

static int
next_of(void *arg, unsigned part, uint64_t c1, uint64_t seq, struct write_row *r)
{
    struct writes *w = arg;

    return journal_next(w->j, part, c1, seq, false, r);
}

static void
begin(struct world *w, unsigned batch)
{
    const struct schedule_source source = { next_of, writes_next_of_target, &w->w, false };
    const struct schedule_limits limits = { .concurrency = 20, .weights = { 6, 3, 1 },
        .batch_max = batch };

    memset(w, 0, sizeof *w);
    kit_new(&w->k);
    kit_open(&w->k);
    w->w.j = w->k.j;
    w->w.schedule = schedule_new(&source);
    assert_non_null(w->w.schedule);
    assert_int_equal(schedule_route(w->w.schedule, 1, &limits), 0);
    w->conf.write_coalesce = batch == 0;
    w->conf.write_batch_to = batch > 0 ? "/bulk" : NULL;
    w->conf.write_batch_max = batch;
    w->route.conf = &w->conf;
    w->d = (struct delivery){ .w = &w->w, .pool = pool_new(), .route_number = 1,
        .route = &w->route };
}

static void
end(struct world *w)
{
    pool_free(&w->d.pool);
    schedule_free(&w->w.schedule);
    kit_end(&w->k);
}

static uint64_t
add(struct world *w, struct journal_op op)
{
    assert_int_equal(kit_do(w->k.j, &op), JOURNAL_DONE);
    assert_true(schedule_add(w->w.schedule, &op.row, 1000) >= 0);
    return op.row.seq;
}

static struct journal_op
put_of(uint64_t who)
{
    struct journal_op op = kit_write(5, SLICE("content"));

    op.row.method = HTTP_PUT;
    op.row.orders_target = true;
    op.row.who = who;
    op.content.method_name = SLICE("PUT");
    return op;
}

static struct journal_op
post_of(uint64_t c1, const char *body)
{
    return kit_write(c1, slice_of(body));
}

/* The first that is due, and what goes with it. */
static void
take(struct world *w)
{
    struct schedule_turn turn;
    struct write_content c;
    struct write_row row;

    assert_int_equal(schedule_take(w->w.schedule, 1000, wall_ms(), &row, &turn), SCHEDULE_ROW);
    assert_int_equal(journal_read(w->k.j, row.seq, &row, &c, NULL), 1);
    assert_non_null(delivery_item(&w->d, &row, &c));
    gather(&w->d);
}

/* ---- coalescing ------------------------------------------------------------------------------ */

static void
of_one_clients_puts_the_newest_is_sent_and_the_others_are_superseded(void **state)
{
    static struct world w;
    uint64_t newest;

    (void)state;
    begin(&w, 0);
    add(&w, put_of(7));
    add(&w, put_of(7));
    newest = add(&w, put_of(7));
    take(&w);
    assert_int_equal(w.d.nitems, 3);
    assert_int_equal(w.d.items[0].row.seq, newest);
    assert_int_equal(w.d.items[0].to, WRITE_STATES);
    assert_int_equal(w.d.items[1].to, WRITE_SUPERSEDED);
    assert_int_equal(w.d.items[2].to, WRITE_SUPERSEDED);
    end(&w);
}

static void
goes_alone(struct journal_op behind)
{
    static struct world w;
    uint64_t first;

    begin(&w, 0);
    first = add(&w, put_of(7));
    add(&w, behind);
    add(&w, put_of(7));
    take(&w);
    assert_int_equal(w.d.nitems, 1);
    assert_int_equal(w.d.items[0].row.seq, first);
    end(&w);
}

static void
what_stands_behind_it_and_is_no_plain_put_of_the_same_client_is_not_skipped(void **state)
{
    struct journal_op op = put_of(8);

    (void)state;
    goes_alone(op);                     /* another client */
    op = put_of(7);
    op.content.fields = SLICE("A: b\r\nIf-Match: \"x\"\r\n");
    goes_alone(op);
    op.content.fields = SLICE("Content-Range: bytes 0-6/9\r\n");
    goes_alone(op);
    op = put_of(7);
    op.content.url = SLICE("http://h/things?other");
    goes_alone(op);
    op = put_of(7);
    op.row.method = HTTP_PATCH;
    goes_alone(op);
    op = put_of(7);
    op.row.state = WRITE_SENDING;       /* it may be at the origin */
    goes_alone(op);
}

static void
a_put_that_another_chain_has_a_write_between_is_not_replaced(void **state)
{
    struct journal_op other = put_of(7);
    static struct world w;

    (void)state;
    begin(&w, 0);
    add(&w, put_of(7));
    other.row.c1 = 6;                   /* its own key, the same target */
    other.row.c2 = 5;
    add(&w, other);
    add(&w, put_of(7));
    take(&w);
    assert_int_equal(w.d.nitems, 1);
    end(&w);
}

/* ---- batching -------------------------------------------------------------------------------- */

static void
those_of_the_chain_go_first_then_those_of_others_up_to_the_most(void **state)
{
    static struct world w;
    uint64_t seq[5];

    (void)state;
    begin(&w, 4);
    seq[0] = add(&w, post_of(1, "{}"));
    seq[1] = add(&w, post_of(2, "[1]"));
    seq[2] = add(&w, post_of(1, "\"a\""));
    seq[3] = add(&w, post_of(3, "3"));
    seq[4] = add(&w, post_of(4, "4"));
    take(&w);
    assert_true(w.d.batch);
    assert_int_equal(w.d.nitems, 4);
    assert_int_equal(w.d.items[0].row.seq, seq[0]);
    assert_int_equal(w.d.items[1].row.seq, seq[2]);
    assert_int_equal(w.d.items[2].row.seq, seq[1]);
    assert_int_equal(w.d.items[3].row.seq, seq[3]);
    w.d.nitems = 0;
    take(&w);                           /* the rest is still there */
    assert_int_equal(w.d.items[0].row.seq, seq[4]);
    end(&w);
}

static void
goes_in_no_batch(struct journal_op other)
{
    static struct world w;

    begin(&w, 4);
    add(&w, post_of(1, "{}"));
    add(&w, other);
    take(&w);
    assert_true(w.d.batch);
    assert_int_equal(w.d.nitems, 1);
    w.d.nitems = 0;
    w.d.batch = false;
    take(&w);                           /* it is put back, and goes by itself */
    assert_int_equal(w.d.nitems, 1);
    end(&w);
}

static void
what_does_not_fit_goes_by_itself(void **state)
{
    struct journal_op op = post_of(2, "{}");

    (void)state;
    op.row.who = 8;                     /* another client's credentials */
    goes_in_no_batch(op);
    goes_in_no_batch(post_of(2, "{}, {}"));
    goes_in_no_batch(post_of(2, ""));
    op = post_of(2, "{}");
    op.content.fields = SLICE("Content-Encoding: gzip\r\n");
    goes_in_no_batch(op);
    op = post_of(2, "{}");
    op.row.method = HTTP_PUT;
    goes_in_no_batch(op);
    op = post_of(2, "{}");
    op.row.state = WRITE_SENDING;
    goes_in_no_batch(op);
}

static void
one_that_failed_twice_goes_with_half_as_many_and_then_alone(void **state)
{
    static const size_t together[] = { 8, 8, 4, 2, 1, 1 };
    static struct world w;

    (void)state;
    for (uint32_t attempts = 0; attempts < NELEM(together); attempts++) {
        struct journal_op op = post_of(1, "{}");

        begin(&w, 8);
        op.row.attempts = attempts;
        add(&w, op);
        for (uint64_t c = 2; c <= 12; c++)
            add(&w, post_of(c, "{}"));
        take(&w);
        assert_int_equal(w.d.nitems, together[attempts]);
        end(&w);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_one_clients_puts_the_newest_is_sent_and_the_others_are_superseded),
        cmocka_unit_test(what_stands_behind_it_and_is_no_plain_put_of_the_same_client_is_not_skipped),
        cmocka_unit_test(a_put_that_another_chain_has_a_write_between_is_not_replaced),
        cmocka_unit_test(those_of_the_chain_go_first_then_those_of_others_up_to_the_most),
        cmocka_unit_test(what_does_not_fit_goes_by_itself),
        cmocka_unit_test(one_that_failed_twice_goes_with_half_as_many_and_then_alone),
    };

    log_threshold = LOG_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
