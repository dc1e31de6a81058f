/*
 * What an instance may conclude from the leases of its partitions.
 */
#include "share_kit.h"

#include <semaphore.h>

#include "write/priv.h"

#define PART 33

struct alone {                          /* an instance that has all partitions */
    struct rserver server;
    struct conf conf;
    struct loop *loop;
    struct writes *w;
    uint32_t route;
    struct loop_msg look;
    sem_t looked;
    bool out;                           /* the lease is, while it looks */
    uint64_t pending;
    enum schedule_took took;
    struct write_row row;
};

static void
begin(struct alone *a)
{
    static const char *url[1];
    static char text[64];
    struct err e;

    memset(a, 0, sizeof *a);
    sem_init(&a->looked, 0, 0);
    rserver_start(&a->server, "--appendonly yes");
    snprintf(text, sizeof text, "redis://127.0.0.1:%u", a->server.port);
    url[0] = text;
    a->conf = (struct conf){ .journal_redis = { .url = { url, 1 }, .prefix = "t:" },
        .journal_redis_timeout_ms = 5000, .journal_redis_lease_ms = 60000,
        .journal_size = kit_limits.size, .journal_keep_ms = kit_limits.keep_ms,
        .journal_idempotency_size = kit_limits.idempotency_size,
        .journal_depth = kit_limits.depth };
    a->loop = loop_new(0, &e);
    assert_non_null(a->loop);
    a->w = writes_open(&a->conf, a->loop, NULL, NULL, NULL, &e);
    assert_non_null(a->w);
    a->route = journal_route(a->w->j, SLICE("/things"));
    while (atomic_load(&a->w->owned) != UINT64_MAX)
        poll(NULL, 0, 1);
}

static void
end(struct alone *a)
{
    writes_close(&a->w);
    loop_free(&a->loop);
    rserver_stop(&a->server);
    sem_destroy(&a->looked);
}

/* On the write loop: what goes next? Its route is held but for this moment. */
static void
look(struct loop_msg *m)
{
    struct alone *a = CONTAINER(m, struct alone, look);
    struct share_part *p = &a->w->j->share->parts[PART];
    int64_t until = atomic_load(&p->until_us);
    struct schedule_limits l = { .concurrency = 1, .weights = { 1, 1, 1 } };
    struct schedule_turn turn;
    size_t bytes;

    a->pending = schedule_pending(a->w->schedule, &bytes);
    if (a->out)
        atomic_store(&p->until_us, 0);
    assert_int_equal(schedule_route(a->w->schedule, a->route, &l), 0);
    a->took = schedule_take(a->w->schedule, now_us() / 1000, wall_ms(), &a->row, &turn);
    l.held = true;
    assert_int_equal(schedule_route(a->w->schedule, a->route, &l), 0);
    atomic_store(&p->until_us, until);
    sem_post(&a->looked);
}

static void
look_now(struct alone *a, bool out)
{
    a->out = out;
    a->look.run = look;
    loop_post(a->loop, &a->look);
    sem_wait(&a->looked);
}

static uint64_t
accept_one(struct alone *a)
{
    struct journal_op op = a_write(PART, 5, "x");

    op.row.route = a->route;
    assert_int_equal(kit_do(a->w->j, &op), JOURNAL_DONE);
    return op.row.seq;
}

/* As in a process that was held up: its lease was out for a moment, and was renewed. */
static void
a_lease_that_is_renewed_late_loses_no_chain(void **state)
{
    struct alone a;
    uint64_t first;

    (void)state;
    begin(&a);
    first = accept_one(&a);
    while (look_now(&a, true), a.pending == 0)
        poll(NULL, 0, 1);
    assert_int_equal(a.took, SCHEDULE_NONE);
    for (int tries = 0; tries < 1000 && a.took != SCHEDULE_ROW; tries++) {
        poll(NULL, 0, 10);
        look_now(&a, false);
    }
    assert_int_equal(a.took, SCHEDULE_ROW);
    assert_int_equal(a.row.seq, first);
    end(&a);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lease_that_is_renewed_late_loses_no_chain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
