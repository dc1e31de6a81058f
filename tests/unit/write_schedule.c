/* Which write goes next: order, lanes, limits, the breaker, and random schedules against a model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "write/chains.h"
#include "write/schedule.h"

/* ---- a journal in memory, and a clock ----------------------------------------------------------- */

#define ROWS 4096

struct world {
    struct write_row rows[ROWS];
    size_t n;
    uint64_t step;                  /* of seqs: in a fleet all are of one partition */
    int64_t now, wall;
    struct schedule_turn turns[ROWS];       /* by seq */
    bool blind;                     /* it cannot be read */
    struct schedule *s;
};

static int
next_of(void *arg, unsigned part, uint64_t c1, uint64_t seq, struct write_row *r)
{
    struct world *w = arg;

    (void)part;
    if (w->blind)
        return -1;
    for (size_t i = 0; i < w->n; i++)
        if (w->rows[i].c1 == c1 && w->rows[i].seq > seq && write_is_pending(w->rows[i].state)) {
            *r = w->rows[i];
            return 1;
        }
    return 0;
}

static int
next_of_target(void *arg, unsigned part, uint64_t target, uint64_t seq, struct write_row *r)
{
    struct world *w = arg;

    (void)part;
    if (w->blind)
        return -1;
    for (size_t i = 0; i < w->n; i++) {
        const struct write_row *at = &w->rows[i];

        if ((at->c1 == target || at->c2 == target) && at->orders_target && at->seq > seq &&
            write_is_pending(at->state)) {
            *r = *at;
            return 1;
        }
    }
    return 0;
}

static const struct schedule_limits plain = { .concurrency = 20, .weights = { 6, 3, 1 } };

static void
begin_with(struct world *w, bool shared)
{
    const struct schedule_source source = { next_of, next_of_target, w, shared };

    memset(w, 0, sizeof *w);
    w->step = shared ? JOURNAL_PARTS : 1;
    w->now = 1000000;
    w->wall = 1700000000000;
    w->s = schedule_new(&source);
    assert_non_null(w->s);
    assert_int_equal(schedule_route(w->s, 0, &plain), 0);
}

static void
begin(struct world *w)
{
    begin_with(w, false);
}

static void
end(struct world *w)
{
    schedule_free(&w->s);
}

static struct write_row *
put(struct world *w, uint64_t c1, uint64_t c2, uint32_t route, enum write_lane lane, bool orders)
{
    struct write_row *r = &w->rows[w->n++];

    assert_true(w->n <= ROWS);
    *r = (struct write_row){ .seq = w->n * w->step, .c1 = c1, .c2 = c2, .route = route,
        .lane = (uint8_t)lane, .state = WRITE_PENDING, .orders_target = orders,
        .method = orders ? HTTP_PUT : HTTP_POST };
    return r;
}

static struct write_row *
add(struct world *w, uint64_t c1)
{
    struct write_row *r = put(w, c1, 0, 0, WRITE_LANE_DEFAULT, true);

    assert_true(schedule_add(w->s, r, w->now) >= 0);
    return r;
}

/* Which is the next one; 0: there is none. */
static uint64_t
take(struct world *w)
{
    struct write_row r;
    struct schedule_turn turn;
    enum schedule_took took;
    uint64_t n;

    while ((took = schedule_take(w->s, w->now, w->wall, &r, &turn)) == SCHEDULE_MORE)
        ;
    if (took == SCHEDULE_NONE)
        return 0;
    n = r.seq / w->step;
    w->turns[n - 1] = turn;
    w->rows[n - 1].state = WRITE_SENDING;
    return n;
}

static void
ended(struct world *w, uint64_t seq)
{
    schedule_ended(w->s, &w->turns[seq - 1]);
}

/* That it could not be reached, or was. */
static bool
heard(struct world *w, uint64_t seq, bool reached)
{
    return schedule_heard(w->s, &w->turns[seq - 1], reached, 1, w->now);
}

static void
settle(struct world *w, uint64_t seq)
{
    struct write_row *r = &w->rows[seq - 1];

    r->state = WRITE_DELIVERED;
    ended(w, seq);
    schedule_settled(w->s, r, w->now);
}

static void
again(struct world *w, uint64_t seq, int64_t delay)
{
    struct write_row *r = &w->rows[seq - 1];

    r->state = WRITE_WAITING;
    r->due_ms = w->wall + delay;
    ended(w, seq);
    schedule_again(w->s, r, delay, w->now);
}

static void
pass(struct world *w, int64_t ms)
{
    w->now += ms;
    w->wall += ms;
}

/* ---- order -------------------------------------------------------------------------------------- */

static void
writes_of_one_key_go_one_after_the_other_in_their_order(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    add(&w, 7);
    add(&w, 7);
    add(&w, 8);
    assert_int_equal(take(&w), 1);
    assert_int_equal(take(&w), 3);
    assert_int_equal(take(&w), 0);
    settle(&w, 1);
    assert_int_equal(take(&w), 2);
    end(&w);
}

static void
a_position_counts_those_before_it_in_its_chain(void **state)
{
    static struct world w;
    struct write_row *r;

    (void)state;
    begin(&w);
    for (int i = 0; i < 3; i++) {
        r = put(&w, 7, 0, 0, WRITE_LANE_DEFAULT, true);
        assert_int_equal(schedule_add(w.s, r, w.now), i);
    }
    settle(&w, take(&w));
    r = put(&w, 7, 0, 0, WRITE_LANE_DEFAULT, true);
    assert_int_equal(schedule_add(w.s, r, w.now), 2);
    end(&w);
}

static void
a_failing_write_holds_its_key_and_nothing_else(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    add(&w, 7);
    add(&w, 7);
    add(&w, 8);
    assert_int_equal(take(&w), 1);
    again(&w, 1, 60000);
    assert_int_equal(take(&w), 3);
    settle(&w, 3);
    pass(&w, 59000);
    assert_int_equal(take(&w), 0);
    pass(&w, 1100);
    assert_int_equal(take(&w), 1);
    settle(&w, 1);
    assert_int_equal(take(&w), 2);
    end(&w);
}

static void
puts_of_one_target_keep_their_order_across_keys(void **state)
{
    static struct world w;
    struct write_row *r;

    (void)state;
    begin(&w);
    r = put(&w, 100, 7, 0, WRITE_LANE_DEFAULT, true);       /* by a key, to target 7 */
    schedule_add(w.s, r, w.now);
    add(&w, 7);                                             /* by its path */
    r = put(&w, 200, 7, 0, WRITE_LANE_DEFAULT, true);
    schedule_add(w.s, r, w.now);
    r = put(&w, 300, 7, 0, WRITE_LANE_DEFAULT, false);      /* a POST has no order there */
    schedule_add(w.s, r, w.now);
    assert_int_equal(take(&w), 1);
    assert_int_equal(take(&w), 4);
    assert_int_equal(take(&w), 0);
    settle(&w, 1);
    assert_int_equal(take(&w), 2);
    assert_int_equal(take(&w), 0);
    settle(&w, 2);
    assert_int_equal(take(&w), 3);
    end(&w);
}

static void
what_was_dropped_is_passed_over(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    for (int i = 0; i < 3; i++)
        add(&w, 7);
    w.rows[0].state = WRITE_DROPPED;
    schedule_settled(w.s, &w.rows[0], w.now);
    w.rows[1].state = WRITE_DROPPED;
    schedule_settled(w.s, &w.rows[1], w.now);
    assert_int_equal(take(&w), 3);
    settle(&w, 3);
    assert_false(schedule_has(w.s, 7));
    end(&w);
}

static void
one_that_is_pending_again_goes_before_those_behind_it(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    for (int i = 0; i < 3; i++)
        add(&w, 7);
    assert_int_equal(take(&w), 1);
    w.rows[0].state = WRITE_UNCERTAIN;
    ended(&w, 1);
    schedule_settled(w.s, &w.rows[0], w.now);
    assert_int_equal(take(&w), 2);
    w.rows[0].state = WRITE_PENDING;
    schedule_add(w.s, &w.rows[0], w.now);
    settle(&w, 2);
    assert_int_equal(take(&w), 1);
    settle(&w, 1);
    assert_int_equal(take(&w), 3);
    end(&w);
}

static void
of_a_coalesced_chain_the_newest_counts(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    for (int i = 0; i < 4; i++)
        add(&w, 7);
    assert_int_equal(take(&w), 1);
    w.rows[2].state = WRITE_SENDING;
    schedule_instead(w.s, &w.rows[2]);
    for (int i = 0; i < 2; i++) {
        w.rows[i].state = WRITE_SUPERSEDED;
        schedule_settled(w.s, &w.rows[i], w.now);
    }
    assert_int_equal(take(&w), 0);
    settle(&w, 3);
    assert_int_equal(take(&w), 4);
    end(&w);
}

/* ---- limits -------------------------------------------------------------------------------------- */

static void
no_more_than_concurrency_are_at_the_origin(void **state)
{
    static struct world w;
    struct schedule_limits l = plain;

    (void)state;
    begin(&w);
    l.concurrency = 2;
    schedule_route(w.s, 0, &l);
    for (uint64_t c = 1; c <= 3; c++)
        add(&w, c);
    assert_int_equal(take(&w), 1);
    assert_int_equal(take(&w), 2);
    assert_int_equal(take(&w), 0);
    settle(&w, 2);
    assert_int_equal(take(&w), 3);
    end(&w);
}

static void
a_rate_spreads_deliveries(void **state)
{
    static struct world w;
    struct schedule_limits l = plain;
    unsigned sent = 0;
    uint64_t seq;

    (void)state;
    begin(&w);
    l.interval_us = 10000;                                  /* 100/s */
    schedule_route(w.s, 0, &l);
    for (uint64_t c = 1; c <= 500; c++)
        add(&w, c);
    for (int ms = 0; ms < 2000; ms++, pass(&w, 1))
        while ((seq = take(&w)) != 0) {
            settle(&w, seq);
            sent++;
        }
    assert_in_range(sent, 198, 204);
    assert_in_range(schedule_wait_ms(w.s, w.now), 0, 10);
    end(&w);
}

static void
lanes_share_by_weight_and_low_is_not_starved(void **state)
{
    static struct world w;
    unsigned sent[WRITE_LANES] = { 0 };
    uint64_t c = 1, seq;

    (void)state;
    begin(&w);
    for (int i = 0; i < 300; i++)
        for (int lane = 0; lane < WRITE_LANES; lane++)
            schedule_add(w.s, put(&w, c++, 0, 0, (enum write_lane)lane, true), w.now);
    for (int i = 0; i < 300; i++) {
        seq = take(&w);
        sent[w.rows[seq - 1].lane]++;
        settle(&w, seq);
    }
    assert_int_equal(sent[WRITE_LANE_HIGH], 180);
    assert_int_equal(sent[WRITE_LANE_DEFAULT], 90);
    assert_int_equal(sent[WRITE_LANE_LOW], 30);
    end(&w);
}

static void
what_is_paused_or_gone_waits_and_goes_on_afterwards(void **state)
{
    static struct world w;
    struct schedule_limits l = plain;

    (void)state;
    begin(&w);
    add(&w, 1);
    schedule_pause_route(w.s, 0, true);
    assert_int_equal(take(&w), 0);
    assert_int_equal(schedule_wait_ms(w.s, w.now), -1);
    schedule_pause_route(w.s, 0, false);
    schedule_pause_origin(w.s, 0, true);
    assert_int_equal(take(&w), 0);
    schedule_pause_origin(w.s, 0, false);
    l.held = true;
    schedule_route(w.s, 0, &l);
    assert_int_equal(take(&w), 0);
    schedule_route(w.s, 0, &plain);
    assert_int_equal(take(&w), 1);
    end(&w);
}

static void
a_batch_waits_for_others_until_it_is_full_or_its_time_is_over(void **state)
{
    static struct world w;
    struct schedule_limits l = plain;

    (void)state;
    begin(&w);
    l.batch_max = 3;
    l.batch_every_ms = 1000;
    schedule_route(w.s, 0, &l);
    add(&w, 1);
    add(&w, 2);
    assert_int_equal(take(&w), 0);
    assert_int_equal(schedule_wait_ms(w.s, w.now), 1000);
    pass(&w, 400);
    add(&w, 3);
    assert_int_equal(take(&w), 1);                          /* full */
    settle(&w, 1);
    assert_int_equal(take(&w), 0);
    pass(&w, 1000);
    assert_int_equal(take(&w), 2);                          /* by time */
    end(&w);
}

/* ---- the breaker ---------------------------------------------------------------------------------- */

static void
an_origin_that_is_down_gets_one_probe_at_a_time(void **state)
{
    static struct world w;
    uint64_t seq;

    (void)state;
    begin(&w);
    for (uint64_t c = 1; c <= 20; c++)
        add(&w, c);
    for (int i = 0; i < 5; i++) {
        seq = take(&w);
        assert_int_not_equal(seq, 0);
        assert_int_equal(heard(&w, seq, false), i == 4);
        again(&w, seq, i == 4 ? 0 : 10);
    }
    assert_int_equal(take(&w), 0);
    assert_in_range(schedule_wait_ms(w.s, w.now), 1, 500);
    pass(&w, 500);
    seq = take(&w);
    assert_int_not_equal(seq, 0);
    assert_int_equal(take(&w), 0);                          /* one */
    assert_true(heard(&w, seq, false));
    again(&w, seq, 0);
    pass(&w, 499);
    assert_int_equal(take(&w), 0);                          /* the wait has doubled */
    pass(&w, 501);
    seq = take(&w);
    assert_int_not_equal(seq, 0);
    assert_false(heard(&w, seq, true));   /* it is back: all go */
    settle(&w, seq);
    for (int i = 0; i < 19; i++)
        assert_int_not_equal(take(&w), 0);
    end(&w);
}

/* Takes as many as fail for the breaker to stop deliveries; then there is a probe. */
static uint64_t
go_down(struct world *w)
{
    for (int i = 0; i < 5; i++) {
        uint64_t seq = take(w);

        assert_int_not_equal(seq, 0);
        (void)heard(w, seq, false);
        again(w, seq, 60000);
    }
    assert_int_equal(take(w), 0);
    pass(w, 500);
    return take(w);
}

static void
a_probe_ends_for_the_origin_that_it_was_sent_to(void **state)
{
    struct schedule_limits elsewhere = plain;
    static struct world w;
    uint64_t probe, seq;
    bool next = false;

    (void)state;
    begin(&w);
    assert_int_equal(schedule_route(w.s, 1, &plain), 0);
    for (uint64_t c = 1; c <= 20; c++)
        add(&w, c);
    probe = go_down(&w);
    assert_int_not_equal(probe, 0);
    elsewhere.origin = 1;
    assert_int_equal(schedule_route(w.s, 0, &elsewhere), 0);   /* a reload moves the route */
    again(&w, probe, 60000);                                    /* and it told nothing */
    assert_true(schedule_add(w.s, put(&w, 99, 0, 1, WRITE_LANE_DEFAULT, true), w.now) >= 0);
    while ((seq = take(&w)) != 0)
        next = next || seq == 21;
    assert_true(next);                      /* the next probe, of the origin that it was */
    end(&w);
}

static void
what_was_sent_before_ends_no_probe_and_puts_none_off(void **state)
{
    static struct world w;
    uint64_t old[6], probe;

    (void)state;
    begin(&w);
    for (uint64_t c = 1; c <= 20; c++)
        add(&w, c);
    for (int i = 0; i < 6; i++)
        old[i] = take(&w);
    probe = go_down(&w);
    assert_int_not_equal(probe, 0);
    for (int i = 0; i < 6; i++) {
        assert_true(heard(&w, old[i], false));
        again(&w, old[i], 0);
    }
    assert_int_equal(take(&w), 0);          /* one probe at a time */
    assert_true(heard(&w, probe, false));
    again(&w, probe, 0);
    pass(&w, 1000);
    assert_int_not_equal(take(&w), 0);      /* the second wait is of a second, at most */
    end(&w);
}

/* ---- time ------------------------------------------------------------------------------------------ */

static void
waits_of_all_lengths_end_in_time(void **state)
{
    static const int64_t waits[] = { 1, 7, 8, 9, 100, 8191, 8192, 8193, 20000, 300000, 3600000,
        8380000, 8400000, 86400000 };
    static struct world w;

    (void)state;
    for (size_t i = 0; i < NELEM(waits); i++) {
        int64_t waited = 0, step;

        begin(&w);
        pass(&w, 12345 * (int64_t)i);
        add(&w, 1);
        assert_int_equal(take(&w), 1);
        again(&w, 1, waits[i]);
        while (take(&w) == 0) {
            step = schedule_wait_ms(w.s, w.now);
            assert_true(step >= 0);
            step = step > 0 ? step : 1;
            pass(&w, step);
            waited += step;
            assert_true(waited <= waits[i] + 20);
        }
        assert_true(waited >= waits[i]);
        end(&w);
    }
}

static void
a_clock_that_is_set_back_makes_no_wait_longer(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    add(&w, 1);
    assert_int_equal(take(&w), 1);
    again(&w, 1, 30000);
    w.wall -= INT64_C(400) * 86400 * 1000;
    pass(&w, 30000 + 8192);
    assert_int_equal(take(&w), 1);
    end(&w);

    begin(&w);                                              /* found at start, so to speak */
    add(&w, 1);
    w.rows[0].state = WRITE_WAITING;
    w.rows[0].settled_ms = w.wall + INT64_C(400) * 86400 * 1000;
    w.rows[0].due_ms = w.rows[0].settled_ms + 2000;
    assert_int_equal(take(&w), 0);
    pass(&w, 2100);
    assert_int_equal(take(&w), 1);
    end(&w);
}

static void
a_wait_goes_on_where_it_was_after_a_start(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    add(&w, 1);
    w.rows[0].state = WRITE_WAITING;
    w.rows[0].settled_ms = w.wall - 1000;
    w.rows[0].due_ms = w.wall + 3600 * 1000;                /* Retry-After: 3601 */
    assert_int_equal(take(&w), 0);
    pass(&w, 3599 * 1000);
    assert_int_equal(take(&w), 0);
    pass(&w, 10 * 1000);
    assert_int_equal(take(&w), 1);
    end(&w);
}

static void
one_that_waits_can_be_hurried(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    add(&w, 1);
    add(&w, 2);
    again(&w, take(&w), 100000);
    again(&w, take(&w), 100000);
    w.rows[0].due_ms = w.wall;
    schedule_hurry(w.s, &w.rows[0]);
    assert_int_equal(schedule_wait_ms(w.s, w.now), 0);
    assert_int_equal(take(&w), 1);
    assert_int_equal(take(&w), 0);
    pass(&w, 100100);
    assert_int_equal(take(&w), 2);
    end(&w);
}

/* ---- many ------------------------------------------------------------------------------------------- */

static void
a_million_targets_cost_at_most_32_bytes_each(void **state)
{
    static struct world w;
    size_t empty, bytes;

    (void)state;
    begin(&w);
    schedule_pending(w.s, &empty);
    for (uint64_t i = 1; i <= 1000000; i++) {
        struct write_row r = { .seq = i, .c1 = i * UINT64_C(0x9e3779b97f4a7c15), .lane = 1 };

        assert_int_equal(schedule_add(w.s, &r, w.now), 0);
    }
    assert_int_equal(schedule_pending(w.s, &bytes), 1000000);
    assert_int_equal(sizeof(struct chain), 24);
    assert_true(bytes - empty <= UINT64_C(32) * 1000000);
    end(&w);
}

/* ---- random schedules against a model ---------------------------------------------------------------- */

static uint64_t
number(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* May this write go, by the words of the rule? */
static bool
may_go(const struct world *w, const struct write_row *r)
{
    uint64_t target = r->c2 != 0 ? r->c2 : r->c1;

    for (size_t i = 0; i + 1 < r->seq; i++) {
        const struct write_row *b = &w->rows[i];

        if (!write_is_pending(b->state))
            continue;
        if (b->c1 == r->c1)
            return false;
        if (r->orders_target && b->orders_target && (b->c2 != 0 ? b->c2 : b->c1) == target)
            return false;
    }
    return true;
}

static void
add_random(struct world *w, uint64_t *x)
{
    uint64_t target = 1 + number(x) % 6, key = number(x) % 3;

    schedule_add(w->s, put(w, key == 0 ? target : 100 + number(x) % 5, key == 0 ? 0 : target,
        (uint32_t)(number(x) % 3), (enum write_lane)(number(x) % 3), number(x) % 3 > 0), w->now);
}

static void
drop_random(struct world *w, uint64_t *x)
{
    struct write_row *r = &w->rows[number(x) % w->n];

    if (r->state == WRITE_PENDING || r->state == WRITE_WAITING) {
        r->state = WRITE_DROPPED;
        schedule_settled(w->s, r, w->now);
    } else if (write_is_dead(r->state)) {
        r->state = WRITE_PENDING;
        schedule_add(w->s, r, w->now);
    }
}

static void
end_random(struct world *w, uint64_t *x, uint64_t *out, size_t *nout)
{
    size_t i = number(x) % *nout;
    uint64_t seq = out[i];
    struct write_row *r = &w->rows[seq - 1];

    out[i] = out[--*nout];
    switch (number(x) % 4) {
    case 0:
        again(w, seq, (int64_t)(number(x) % 30000));
        break;
    case 1:
        r->state = WRITE_REJECTED;
        ended(w, seq);
        schedule_settled(w->s, r, w->now);
        break;
    default:
        settle(w, seq);
    }
}

static void
run_random(uint64_t seed)
{
    static struct world w;
    uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, out[64], seq;
    size_t nout = 0, settled = 0;

    begin(&w);
    for (uint32_t r = 0; r < 3; r++) {
        struct schedule_limits l = plain;

        l.concurrency = 1 + r;
        l.origin = r;
        schedule_route(w.s, r, &l);
    }
    for (int step = 0; step < 1200; step++) {
        uint64_t what = number(&x) % 10;

        if (what < 3 && w.n < 400)
            add_random(&w, &x);
        else if (what < 4 && w.n > 0 && step < 1000)
            drop_random(&w, &x);
        else if (what < 7 && nout > 0)
            end_random(&w, &x, out, &nout);
        else if (what < 8)
            pass(&w, (int64_t)(number(&x) % 5000));
        else if (nout < 64 && (seq = take(&w)) != 0) {
            w.rows[seq - 1].state = WRITE_PENDING;          /* the rule is about those before it */
            assert_true(may_go(&w, &w.rows[seq - 1]));
            w.rows[seq - 1].state = WRITE_SENDING;
            out[nout++] = seq;
        }
    }
    for (int step = 0; step < 4000; step++) {               /* nothing starves */
        while (nout < 64 && (seq = take(&w)) != 0)
            out[nout++] = seq;
        if (nout > 0)
            settle(&w, out[--nout]);
        else
            pass(&w, 1000);
    }
    for (size_t i = 0; i < w.n; i++)
        settled += !write_is_pending(w.rows[i].state);
    assert_int_equal(settled, w.n);
    assert_int_equal(schedule_pending(w.s, &(size_t){ 0 }), 0);
    end(&w);
}

static void
rows_that_cannot_be_read_hold_their_chain_until_they_can(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    for (int i = 0; i < 3; i++)
        add(&w, 7);
    w.blind = true;
    assert_int_equal(take(&w), 0);
    w.blind = false;
    add(&w, 7);                         /* must not become the first of its chain */
    assert_int_equal(take(&w), 0);
    pass(&w, 1100);
    assert_int_equal(take(&w), 1);
    w.blind = true;
    settle(&w, 1);
    w.blind = false;
    add(&w, 7);
    assert_int_equal(take(&w), 0);
    pass(&w, 1100);
    for (uint64_t seq = 2; seq <= 5; seq++) {
        assert_int_equal(take(&w), seq);
        settle(&w, seq);
    }
    end(&w);
}

static void
what_waits_for_its_target_goes_on_though_nobody_could_tell_that_it_may(void **state)
{
    static struct world w;

    (void)state;
    begin(&w);
    assert_true(schedule_add(w.s, put(&w, 7, 100, 0, WRITE_LANE_DEFAULT, true), w.now) >= 0);
    assert_true(schedule_add(w.s, put(&w, 8, 100, 0, WRITE_LANE_DEFAULT, true), w.now) >= 0);
    assert_int_equal(take(&w), 1);
    assert_int_equal(take(&w), 0);
    w.blind = true;
    settle(&w, 1);
    w.blind = false;
    assert_int_equal(take(&w), 2);
    settle(&w, 2);
    end(&w);
}

static void
what_waits_for_a_write_that_is_lost_goes_on(void **state)
{
    static struct world w;
    struct write_row *r;

    (void)state;
    begin(&w);
    r = put(&w, 7, 100, 0, WRITE_LANE_DEFAULT, true);
    r->state = WRITE_WAITING;
    r->due_ms = w.wall + 5000;
    r->settled_ms = w.wall;
    assert_true(schedule_add(w.s, r, w.now) >= 0);
    assert_true(schedule_add(w.s, put(&w, 8, 100, 0, WRITE_LANE_DEFAULT, true), w.now) >= 0);
    assert_int_equal(take(&w), 0);
    r->state = WRITE_UNCERTAIN;
    assert_int_equal(take(&w), 0);
    schedule_lost(w.s);
    assert_int_equal(take(&w), 2);
    end(&w);
}

static void
random_schedules_keep_every_order_and_starve_no_chain(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++)
        run_random(seed);
}

/* ---- in a fleet: a write may be taken, and settled, before it is told ------------------------ */

static void
put_fleet(struct world *w, uint64_t c1, uint64_t c2, bool told)
{
    struct write_row *r = put(w, c1, c2, 0, WRITE_LANE_DEFAULT, true);

    if (told)
        assert_true(schedule_add(w->s, r, w->now) >= 0);
}

static void
a_chain_that_a_fleet_tells_of_begins_with_what_the_journal_has_first(void **state)
{
    static struct world w;

    (void)state;
    begin_with(&w, true);
    put_fleet(&w, 5, 0, false);
    put_fleet(&w, 5, 0, true);
    assert_int_equal(take(&w), 1);
    end(&w);
}

static void
what_is_settled_before_it_is_told_leaves_nothing_blocked_for_good(void **state)
{
    static struct world w;

    (void)state;
    begin_with(&w, true);
    put_fleet(&w, 100, 0, true);        /* 1: of the path alone */
    put_fleet(&w, 7, 100, true);        /* 2: the same target, by another key */
    put_fleet(&w, 8, 200, true);        /* 3, and 4 of its key */
    put_fleet(&w, 8, 200, false);
    assert_int_equal(take(&w), 1);
    assert_int_equal(take(&w), 3);
    settle(&w, 3);
    assert_int_equal(take(&w), 4);
    settle(&w, 4);
    settle(&w, 1);
    assert_int_equal(take(&w), 2);
    end(&w);
}

static void
a_write_goes_behind_an_earlier_one_to_its_target_that_is_not_told_yet(void **state)
{
    static struct world w;

    (void)state;
    begin_with(&w, true);
    put_fleet(&w, 7, 100, true);
    assert_int_equal(take(&w), 1);
    put_fleet(&w, 8, 100, false);       /* 2: the same target, by another key */
    put_fleet(&w, 7, 100, false);       /* 3: the key of 1 */
    settle(&w, 1);
    assert_int_equal(take(&w), 0);
    end(&w);
}

static void
by_its_configuration_alone_a_partition_is_known_to_have_keys(void **state)
{
    static struct world w;

    (void)state;
    begin_with(&w, true);
    schedule_keyed(w.s, 1);
    put_fleet(&w, 100, 0, true);        /* 1: of the path */
    assert_int_equal(take(&w), 1);
    put_fleet(&w, 8, 100, false);       /* 2: the same target, by a key */
    put_fleet(&w, 100, 0, false);       /* 3: of the path */
    settle(&w, 1);
    assert_int_equal(take(&w), 0);
    end(&w);
}

static void
a_delivery_that_ends_after_its_partition_was_lost_leaves_no_delay_behind(void **state)
{
    static struct world w;
    struct write_row lost;

    (void)state;
    begin_with(&w, true);
    put_fleet(&w, 7, 0, true);
    lost = w.rows[0];
    assert_int_equal(take(&w), 1);
    schedule_forget(w.s, 0);
    ended(&w, 1);
    schedule_again(w.s, &lost, 3600 * 1000, w.now);
    w.rows[0].state = WRITE_DELIVERED;  /* by its new owner */
    put_fleet(&w, 7, 0, true);          /* the partition is ours again */
    assert_int_equal(take(&w), 2);
    end(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_of_one_key_go_one_after_the_other_in_their_order),
        cmocka_unit_test(a_position_counts_those_before_it_in_its_chain),
        cmocka_unit_test(a_failing_write_holds_its_key_and_nothing_else),
        cmocka_unit_test(puts_of_one_target_keep_their_order_across_keys),
        cmocka_unit_test(what_was_dropped_is_passed_over),
        cmocka_unit_test(one_that_is_pending_again_goes_before_those_behind_it),
        cmocka_unit_test(of_a_coalesced_chain_the_newest_counts),
        cmocka_unit_test(no_more_than_concurrency_are_at_the_origin),
        cmocka_unit_test(a_rate_spreads_deliveries),
        cmocka_unit_test(lanes_share_by_weight_and_low_is_not_starved),
        cmocka_unit_test(what_is_paused_or_gone_waits_and_goes_on_afterwards),
        cmocka_unit_test(a_batch_waits_for_others_until_it_is_full_or_its_time_is_over),
        cmocka_unit_test(an_origin_that_is_down_gets_one_probe_at_a_time),
        cmocka_unit_test(a_probe_ends_for_the_origin_that_it_was_sent_to),
        cmocka_unit_test(what_was_sent_before_ends_no_probe_and_puts_none_off),
        cmocka_unit_test(waits_of_all_lengths_end_in_time),
        cmocka_unit_test(a_clock_that_is_set_back_makes_no_wait_longer),
        cmocka_unit_test(a_wait_goes_on_where_it_was_after_a_start),
        cmocka_unit_test(one_that_waits_can_be_hurried),
        cmocka_unit_test(rows_that_cannot_be_read_hold_their_chain_until_they_can),
        cmocka_unit_test(what_waits_for_its_target_goes_on_though_nobody_could_tell_that_it_may),
        cmocka_unit_test(what_waits_for_a_write_that_is_lost_goes_on),
        cmocka_unit_test(a_million_targets_cost_at_most_32_bytes_each),
        cmocka_unit_test(random_schedules_keep_every_order_and_starve_no_chain),
        cmocka_unit_test(a_chain_that_a_fleet_tells_of_begins_with_what_the_journal_has_first),
        cmocka_unit_test(what_is_settled_before_it_is_told_leaves_nothing_blocked_for_good),
        cmocka_unit_test(a_write_goes_behind_an_earlier_one_to_its_target_that_is_not_told_yet),
        cmocka_unit_test(by_its_configuration_alone_a_partition_is_known_to_have_keys),
        cmocka_unit_test(a_delivery_that_ends_after_its_partition_was_lost_leaves_no_delay_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
