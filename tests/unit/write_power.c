/*
 * What is acknowledged as durable is there after a loss of power.
 *
 * Thousands of moments in the life of a journal with a small WAL, so that checkpoints and new WALs
 * are among them: what had been told by then is noted, then what a loss of power (or the end of the
 * process) would leave is written elsewhere, opened, and looked at.
 */
#include "write_vfs.h"

#define WRITES  64                      /* of a journal */
#define BUDGET_US ((int64_t)8000000)
#define RUNS    4000

static const struct journal_limits tiny = { KIT_MIB, KIT_MIB, 3600000, 1000000 };

struct told { uint64_t seq; unsigned state; bool synced; };     /* under mtx, of `op` */
struct life {
    pthread_mutex_t mtx;
    pthread_cond_t  cond;
    unsigned begun, ended;
    struct journal_op ops[WRITES];
    char bodies[WRITES][4096];
    struct told told[WRITES];
};

static void
on_told(struct journal_op *op)
{
    struct life *l = op->arg;
    size_t i = (size_t)(op - l->ops);

    assert_int_equal(op->result, JOURNAL_DONE);
    pthread_mutex_lock(&l->mtx);
    l->told[i] = (struct told){ op->row.seq, op->row.state, op->durable == WRITE_FSYNC };
    l->ended++;
    pthread_cond_signal(&l->cond);
    pthread_mutex_unlock(&l->mtx);
}

/* An update of the one before it, now and then; else a write of its own. */
static void
act(struct life *l, struct journal *j)
{
    unsigned i = l->begun++;
    struct journal_op *op = &l->ops[i];
    uint64_t before = 0;

    pthread_mutex_lock(&l->mtx);
    if (i != 0 && random_fast() % 3 == 0 && l->told[i - 1].state == WRITE_PENDING)
        before = l->told[i - 1].seq;
    pthread_mutex_unlock(&l->mtx);
    memset(l->bodies[i], (int)('a' + i % 26), sizeof l->bodies[i]);
    *op = kit_write(i, (struct slice){ l->bodies[i], random_fast() % sizeof l->bodies[i] });
    if (before != 0) {
        op->kind = JOURNAL_UPDATE;
        op->row.seq = before;
        op->row.state = random_fast() % 2 == 0 ? WRITE_SENDING : WRITE_DELIVERED;
    }
    op->durable = random_fast() % 3 == 0 ? WRITE_OS : WRITE_FSYNC;
    op->done = on_told;
    op->arg = l;
    journal_do(j, op);
}

/* The last state that must be known of a write. */
static void
check_one(const struct life *l, const struct told *told, unsigned i, struct journal *j, bool power)
{
    const struct told *last = &told[i];
    struct write_content c;
    struct write_row r;
    struct err e;

    if (last->seq == 0 || l->ops[i].kind != JOURNAL_ACCEPT)
        return;
    if (i + 1 < WRITES && told[i + 1].seq == last->seq && (!power || told[i + 1].synced))
        last = &told[i + 1];
    if (power && !last->synced)
        return;
    if (journal_read(j, last->seq, &r, &c, &e) != 1)
        fail_msg("write %u of seq %llu was told as durable and is lost", i,
            (unsigned long long)last->seq);
    if (r.state < last->state)
        fail_msg("write %u was told to be in state %u, and is in %u", i, last->state, r.state);
    if (write_is_pending(r.state))
        assert_true(slice_eq(c.body, l->ops[i].content.body));
}

static void
check_all(const struct life *l, const struct told *told, const char *directory, bool power)
{
    struct kit k = { 0 };
    struct journal_op op = kit_write(1, SLICE("x"));
    struct err e;

    snprintf(k.path, sizeof k.path, "%s/journal", directory);
    if (kit_open_with(&k, &tiny, &e) == -1)
        fail_msg("%s", e.text);
    for (unsigned i = 0; i < WRITES; i++)
        check_one(l, told, i, k.j, power);
    assert_int_equal(kit_do(k.j, &op), JOURNAL_DONE);
    for (unsigned i = 0; i < WRITES; i++)       /* whether it survived or not */
        assert_true(op.row.seq > told[i].seq);
    journal_close(&k.j);
}

static void
live(unsigned *moments)
{
    struct life *l = calloc(1, sizeof *l);
    struct told told[WRITES];
    struct kit k, after;

    pthread_mutex_init(&l->mtx, NULL);
    pthread_cond_init(&l->cond, NULL);
    kit_new(&k);
    snprintf(vfs_below, sizeof vfs_below, "%s", k.directory);
    assert_int_equal(kit_open_with(&k, &tiny, &(struct err){ 0 }), 0);
    while (l->begun < WRITES) {
        enum vfs_end end = random_fast() % 3;
        unsigned wait;

        for (uint64_t n = 1 + random_fast() % 12; n != 0 && l->begun < WRITES; n--)
            act(l, k.j);
        wait = (unsigned)(random_fast() % (l->begun + 1));
        pthread_mutex_lock(&l->mtx);
        while (l->ended < wait)
            pthread_cond_wait(&l->cond, &l->mtx);
        memcpy(told, l->told, sizeof told);
        pthread_mutex_unlock(&l->mtx);
        kit_new(&after);
        vfs_after(after.directory, end);
        check_all(l, told, after.directory, end != VFS_PROCESS);
        kit_end(&after);
        ++*moments;
    }
    journal_close(&k.j);
    vfs_below[0] = '\0';
    kit_end(&k);
    free(l);
}

static void
what_was_told_to_be_durable_survives_a_loss_of_power(void **state)
{
    int64_t until = now_us() + BUDGET_US;
    unsigned moments = 0;

    (void)state;
    while (moments < RUNS && now_us() < until)
        live(&moments);
    print_message("%u moments\n", moments);
}

/* After so many more syncs none succeeds, the one of a commit or that of a new WAL's header. */
static bool
refuse_and_end(unsigned before, int syncs)
{
    struct journal_op op = kit_write(99, SLICE("refused"));
    struct kit k, after;
    bool refused;

    kit_new(&k);
    snprintf(vfs_below, sizeof vfs_below, "%s", k.directory);
    assert_int_equal(kit_open_with(&k, &tiny, &(struct err){ 0 }), 0);
    for (unsigned i = 0; i < before; i++)
        kit_accept(&k, i, SLICE("taken"));
    atomic_store(&vfs_syncs_left, syncs);
    refused = kit_do(k.j, &op) == JOURNAL_FULL;
    kit_new(&after);
    vfs_after(after.directory, VFS_PROCESS);
    atomic_store(&vfs_syncs_left, INT32_MAX);
    assert_int_equal(kit_open_with(&after, &tiny, &(struct err){ 0 }), 0);
    assert_int_equal(after.nfound, before + !refused);
    kit_end(&after);
    kit_end(&k);
    vfs_below[0] = '\0';
    return refused;
}

static void
what_was_refused_for_a_sync_that_failed_is_not_there_after_a_kill(void **state)
{
    unsigned refused = 0;

    (void)state;
    for (unsigned before = 1; before < 40; before++)
        for (int syncs = 0; syncs < 3; syncs++)
            refused += refuse_and_end(before, syncs);
    assert_true(refused >= 39);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_refused_for_a_sync_that_failed_is_not_there_after_a_kill),
        cmocka_unit_test(what_was_told_to_be_durable_survives_a_loss_of_power),
    };

    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
    vfs_start();
    log_threshold = LOG_ERROR;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
