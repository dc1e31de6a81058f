/* What an operator's verb and a condemnation make of one write together: the write loop is held
 * still, so that they meet as they may. */
#include "write_kit.h"

#include <semaphore.h>

#include "write/priv.h"

struct meeting {
    struct kit k;
    struct loop *loop;
    struct writes *w;
    struct conf conf;
    struct loop_msg find;
    uint64_t seq;
    char id[WRITE_ID_N + 1];
    sem_t still, go, committed, answered;
    enum write_outcome outcome;
};

static void
on_committed(struct journal_op *op)
{
    struct meeting *m = op->arg;

    sem_post(&m->committed);
}

/* On the write loop: finds the damage, and holds the loop until that is committed and the verb
 * stands before its message. */
static void
find(struct loop_msg *msg)
{
    struct meeting *m = CONTAINER(msg, struct meeting, find);
    struct journal_op behind = { .kind = JOURNAL_CALL, .done = on_committed, .arg = m };
    struct write_content c;
    struct write_row r;
    struct err e;

    sem_post(&m->still);
    sem_wait(&m->go);
    assert_int_equal(journal_read(m->w->j, m->seq, &r, &c, &e), -1);
    journal_do(m->w->j, &behind);
    sem_wait(&m->committed);
}

static void
on_answer(void *arg, const struct write_answer *a)
{
    struct meeting *m = arg;

    m->outcome = a->outcome;
    sem_post(&m->answered);
}

static void
begin(struct meeting *m)
{
    struct write_row row;
    sqlite3 *db;
    struct err e;

    memset(m, 0, sizeof *m);
    sem_init(&m->still, 0, 0);
    sem_init(&m->go, 0, 0);
    sem_init(&m->committed, 0, 0);
    sem_init(&m->answered, 0, 0);
    kit_new(&m->k);
    kit_open(&m->k);
    m->seq = kit_accept(&m->k, 5, SLICE("x"));
    journal_close(&m->k.j);
    assert_int_equal(sqlite3_open(m->k.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE content SET body = 'other'", NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(db);
    m->conf = (struct conf){ .journal_path = m->k.path, .journal_size = kit_limits.size,
        .journal_idempotency_size = kit_limits.idempotency_size,
        .journal_keep_ms = kit_limits.keep_ms, .journal_depth = kit_limits.depth };
    m->loop = loop_new(0, &e);
    assert_non_null(m->loop);
    m->w = writes_open(&m->conf, m->loop, NULL, NULL, NULL, &e);
    assert_non_null(m->w);
    assert_int_equal(journal_read(m->w->j, m->seq, &row, NULL, &e), 1);
    journal_id(m->w->j, m->seq, m->id);
    assert_true(write_maybe_pending(m->w, 5));
}

static void
meet(struct meeting *m, enum write_verb verb)
{
    m->find.run = find;
    loop_post(m->loop, &m->find);
    sem_wait(&m->still);
    assert_non_null(write_verb(m->w, m->loop, verb, slice_of(m->id), &(struct write_filter){ 0 },
        on_answer, m));
    sem_post(&m->go);
    sem_wait(&m->answered);
    assert_int_equal(m->outcome, WRITE_OK);
}

static void
end(struct meeting *m)
{
    writes_close(&m->w);
    loop_free(&m->loop);
    kit_end(&m->k);
}

static void
a_condemned_write_that_is_dropped_at_once_is_pending_no_more(void **state)
{
    static struct meeting m;
    size_t bytes;

    (void)state;
    begin(&m);
    meet(&m, WRITE_DROP);
    assert_false(write_maybe_pending(m.w, 5));
    assert_int_equal(schedule_pending(m.w->schedule, &bytes), 0);
    end(&m);
}

static void
a_condemned_write_that_is_retried_at_once_is_pending_once(void **state)
{
    static struct meeting m;
    size_t bytes;

    (void)state;
    begin(&m);
    meet(&m, WRITE_RETRY);
    assert_int_equal(schedule_pending(m.w->schedule, &bytes), 1);
    end(&m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_condemned_write_that_is_dropped_at_once_is_pending_no_more),
        cmocka_unit_test(a_condemned_write_that_is_retried_at_once_is_pending_once),
    };

    log_threshold = LOG_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
