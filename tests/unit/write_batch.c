/* A batch as one request, and what its one answer means for each of its writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "write/deliver.h"

#define N 3

struct world {
    struct conf_route conf;
    struct route route;
    struct delivery d;
};

static void
begin(struct world *w, const char *const bodies[N])
{
    struct write_row row = { .method = HTTP_POST, .state = WRITE_SENDING, .attempts = 1,
        .accepted_ms = wall_ms() };

    memset(w, 0, sizeof *w);
    w->conf.write_retry_for_ms = 3600000;
    w->conf.write_backoff_min_ms = w->conf.write_backoff_max_ms = 1000;
    w->route.conf = &w->conf;
    w->d = (struct delivery){ .pool = pool_new(), .route = &w->route, .batch = true };
    for (uint64_t i = 0; i < N; i++) {
        struct write_content c = { .has_body = true,
            .body = slice_of(bodies != NULL ? bodies[i] : "1") };

        row.seq = i + 1;
        assert_non_null(delivery_item(&w->d, &row, &c));
    }
}

static void
end(struct world *w)
{
    pool_free(&w->d.pool);
}

/* ---- the request ----------------------------------------------------------------------------- */

static void
contents_are_the_elements_of_an_array_or_a_line_each(void **state)
{
    static const char *const bodies[N] = { "{\"a\":\r\n 1}", " 2\t", "\"x\"" };
    static struct world w;

    (void)state;
    begin(&w, bodies);
    assert_int_equal(batch_body(&w.d), 0);
    assert_true(slice_eq(w.d.body, SLICE("[{\"a\":\r\n 1},2,\"x\"]")));
    w.conf.write_batch_format = WRITE_BATCH_NDJSON;
    assert_int_equal(batch_body(&w.d), 0);
    assert_true(slice_eq(w.d.body, SLICE("{\"a\":   1}\n2\n\"x\"\n")));
    end(&w);
}

/* ---- the answer ------------------------------------------------------------------------------ */

#define D WRITE_DELIVERED
#define R WRITE_REJECTED
#define W WRITE_WAITING
#define U WRITE_UNCERTAIN

static void
settle(struct world *w, unsigned status, const char *body)
{
    static const struct http_head none;
    const struct fill_view v = { .state = FILL_HEAD, .status = status, .response = &none,
        .complete = true };

    batch_settle(&w->d, &v, slice_of(body));
}

struct answer { unsigned status; const char *body; enum write_state to[N]; };

static void
each_write_is_settled_as_the_answer_says_of_it(void **state)
{
    static const struct answer answers[] = {
        { 200, "", { D, D, D } },
        { 200, "no json", { D, D, D } },
        { 202, "{\"ok\":true}", { D, D, D } },
        { 200, "[{\"status\":201},{\"status\":422},{\"status\":429}]", { D, R, W } },
        { 200, "{\"items\":[{\"statusCode\":200},{\"statusCode\":\"404\"},{}]}", { D, R, D } },
        { 200, "[{\"status\":404},{\"status\":404}]", { D, D, D } },    /* another number of them */
        { 200, "[404,405,406]", { D, D, D } },                          /* may be ids */
        { 200, "[{\"code\":404},{\"code\":\"405\"},{\"code\":406}]", { D, D, D } },
        { 200, "[{\"status\":\"lost\"},{\"status\":42},{\"status\":null}]", { D, D, D } },
        { 207, "[200,422,429]", { D, R, W } },
        { 207, "{\"r\":[{\"code\":200},{\"code\":422},{\"code\":429}]}", { D, R, W } },
        { 207, "[{\"status\":200},{},{\"status\":502}]", { D, R, U } },
        { 207, "", { U, U, U } },                                       /* who knows */
        { 207, "{}", { U, U, U } },
        { 429, "", { W, W, W } },
        { 400, "", { W, W, W } },                                       /* in fewer, then */
        { 400, "[{\"status\":200},{\"status\":200},{\"status\":200}]", { W, W, W } },
        { 408, "", { R, R, R } },
        { 500, "", { R, R, R } },
        { 502, "", { U, U, U } },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(answers); i++) {
        static struct world w;

        begin(&w, NULL);
        settle(&w, answers[i].status, answers[i].body);
        for (size_t k = 0; k < N; k++)
            if (w.d.items[k].to != answers[i].to[k])
                fail_msg("%u %s: write %zu is %s, not %s", answers[i].status, answers[i].body, k,
                    write_state_name(w.d.items[k].to), write_state_name(answers[i].to[k]));
        end(&w);
    }
}

static void
with_a_promise_what_may_have_been_done_is_tried_again(void **state)
{
    static const unsigned statuses[] = { 207, 408, 500, 502 };

    (void)state;
    for (size_t i = 0; i < NELEM(statuses); i++) {
        static struct world w;

        begin(&w, NULL);
        w.conf.write_idempotent = true;
        settle(&w, statuses[i], "");
        for (size_t k = 0; k < N; k++)
            assert_int_equal(w.d.items[k].to, W);
        end(&w);
    }
}

static void
one_that_is_refused_alone_is_a_dead_letter(void **state)
{
    static struct world w;

    (void)state;
    begin(&w, NULL);
    w.d.nitems = 1;
    settle(&w, 400, "");
    assert_int_equal(w.d.items[0].to, R);
    assert_int_equal(w.d.items[0].status, 400);
    end(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents_are_the_elements_of_an_array_or_a_line_each),
        cmocka_unit_test(each_write_is_settled_as_the_answer_says_of_it),
        cmocka_unit_test(with_a_promise_what_may_have_been_done_is_tried_again),
        cmocka_unit_test(one_that_is_refused_alone_is_a_dead_letter),
    };

    log_threshold = LOG_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
