/*
 * The journal thread: the queue, transactions, failure and recovery.
 *
 * Model    what is queued is done in its order, as much as is there in one transaction, and told
 *          after the commit (group commit). With one operation waiting it is committed at once;
 *          where the last commit told many, their successors are waited for a part of the time that
 *          a commit takes, since else half of them would always miss the commit that the other half
 *          is in. Only a transaction that somebody wants synced is.
 * Failure  a transaction that cannot be committed is undone, and what would add to the file is
 *          refused: from then on it takes no writes, and once a second tries whether it can again.
 *          What was refused is not there after the end of the process either (undo_frames); what a
 *          loss of power leaves of a commit whose sync failed, until then, only the disk knows.
 *          What settles and frees is tried once more alone. A file that SQLite finds damaged takes
 *          none until the next opening, which sets it aside.
 * Threads  journal_do: any, under mtx. The rest on the journal thread, before it starts on
 *          journal_open's.
 */
#include "stats/stats.h"
#include "write/share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BATCH_ROWS   1024
#define BATCH_BYTES  (4 << 20)
#define GATHER_US    2000               /* at most, for those who come again */
#define RESERVE      65536              /* numbers at a time */
#define TICK_US      ((int64_t)1000000)
#define PROBE_BYTES  65536              /* more than a small write needs: it must not flap */

/* ---- the queue ------------------------------------------------------------------------------ */

void
journal_push(struct journal *j, struct journal_op *op)
{
    op->next = NULL;
    pthread_mutex_lock(&j->mtx);
    *j->queue_end = op;
    j->queue_end = &op->next;
    if (++j->queued == j->wanted)
        pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->mtx);
}

void
journal_do(struct journal *j, struct journal_op *op)
{
    CHECK(j, JOURNAL_MAGIC);
    assert(op->kind != JOURNAL_ACCEPT || write_is_pending(op->row.state));
    op->result = JOURNAL_DONE;
    op->why = "";
    op->first_seq = 0;
    op->reply = NULL;
    if (j->share != NULL)
        share_do(j->share, op);
    else
        journal_push(j, op);
}

/* With mtx: until so many are queued, or that time has come, or the journal closes. */
static void
await(struct journal *j, size_t wanted, int64_t until_us)
{
    struct timespec until = { until_us / 1000000, until_us % 1000000 * 1000 };

    j->wanted = wanted;
    while (j->queued < wanted && !j->closing)
        if (pthread_cond_timedwait(&j->wake, &j->mtx, &until) == ETIMEDOUT)
            break;
    j->wanted = 0;
}

/* All that is queued; NULL: it is time for idle work, or *closing. */
static struct journal_op *
take_queue(struct journal *j, bool *closing)
{
    struct journal_op *ops;

    pthread_mutex_lock(&j->mtx);
    await(j, 1, j->tick_us);
    if (j->queued != 0 && j->queued < j->last_batch) {
        int64_t patience = j->last_commit_us / 2;

        await(j, j->last_batch, now_us() + (patience < GATHER_US ? patience : GATHER_US));
    }
    ops = j->queue;
    j->queue = NULL;
    j->queue_end = &j->queue;
    j->queued = 0;
    *closing = j->closing;
    pthread_mutex_unlock(&j->mtx);
    return ops;
}

/* ---- transactions --------------------------------------------------------------------------- */

int
step(sqlite3_stmt *st)
{
    int rc = sqlite3_step(st);

    sqlite3_reset(st);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int
number_of(sqlite3_stmt *st, int64_t *n)
{
    int rc = sqlite3_step(st);

    if (rc == SQLITE_ROW)
        *n = sqlite3_column_int64(st, 0);
    sqlite3_reset(st);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int
measure(struct journal *j)
{
    int64_t pages = 0, unused = 0;
    int rc = number_of(j->st[S_PAGES], &pages);

    if (rc == SQLITE_OK)
        rc = number_of(j->st[S_FREE_PAGES], &unused);
    j->used = (pages - unused) * JOURNAL_PAGE;
    return rc;
}

/* Names that no transaction has stored yet. */
static int
store_routes(struct journal *j)
{
    int rc = SQLITE_OK;

    pthread_mutex_lock(&j->mtx);
    for (size_t i = j->now.routes_stored; rc == SQLITE_OK && i < j->routes.n; i++) {
        sqlite3_bind_int64(j->st[S_ROUTE_ADD], 1, (int64_t)i + 1);
        bind_text(j->st[S_ROUTE_ADD], 2, slice_of(j->routes.at[i]));
        rc = step(j->st[S_ROUTE_ADD]);
    }
    if (rc == SQLITE_OK)
        j->now.routes_stored = j->routes.n;
    pthread_mutex_unlock(&j->mtx);
    return rc;
}

static int
put_meta(struct journal *j, const char *name, int64_t value)
{
    bind_text(j->st[S_META_PUT], 1, slice_of(name));
    sqlite3_bind_int64(j->st[S_META_PUT], 2, value);
    return step(j->st[S_META_PUT]);
}

/* In a synced transaction: a number that was told of must not be given again when the power is lost
 * with the row that had it. */
int
journal_reserve(struct journal *j)
{
    uint64_t reserved = j->next_seq + RESERVE;
    int rc = put_meta(j, "run", j->run);

    assert(j->synced);
    if (rc == SQLITE_OK)
        rc = put_meta(j, "reserved", (int64_t)reserved);
    if (rc == SQLITE_OK)
        j->reserved_seq = reserved;
    return rc;
}

void
journal_roll_back(struct journal *j)
{
    if (!sqlite3_get_autocommit(j->db))
        step(j->st[S_ROLLBACK]);
    j->now = j->before;
    j->reserved_seq = j->before_reserved;
}

static int
set_sync(struct journal *j, bool sync)
{
    int rc = sync == j->synced ? SQLITE_OK : sqlite3_exec(j->db, sync ?
        "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);

    if (rc == SQLITE_OK)
        j->synced = sync;
    return rc;
}

int
journal_begin(struct journal *j, bool sync)
{
    bool reserve = j->next_seq + BATCH_ROWS > j->reserved_seq && j->next_seq != 0;
    int rc = set_sync(j, sync || reserve);

    if (rc == SQLITE_OK)
        rc = step(j->st[S_BEGIN]);
    pthread_mutex_lock(&j->mtx);
    j->lim = j->limits;
    pthread_mutex_unlock(&j->mtx);
    j->before = j->now;
    j->before_reserved = j->reserved_seq;
    j->now_ms = wall_ms();
    j->batch_seq = j->next_seq;
    j->batch_bytes = 0;
    if (rc == SQLITE_OK)
        rc = measure(j);
    if (rc == SQLITE_OK)
        rc = store_routes(j);
    if (rc == SQLITE_OK && reserve)
        rc = journal_reserve(j);
    if (rc != SQLITE_OK)
        journal_roll_back(j);
    return rc;
}

/* The frames of a commit whose sync failed are in the WAL, and after the end of this process they
 * would count: who was refused would have been accepted. A commit that is not synced takes their
 * place; where it begins a WAL, whose header is synced in any case, cutting that off does as
 * well. */
static void
undo_frames(struct journal *j)
{
    int rc = set_sync(j, false);

    if (rc == SQLITE_OK)
        rc = step(j->st[S_BEGIN]);
    if (rc == SQLITE_OK)
        rc = put_meta(j, "probe", 0);
    if (rc == SQLITE_OK)
        rc = step(j->st[S_COMMIT]);
    journal_roll_back(j);
    if (rc != SQLITE_OK)
        rc = wal_empty(j);
    if (rc != SQLITE_OK)
        log_error("journal %s: what could not be committed may be there after a restart", j->path);
}

int
journal_commit(struct journal *j)
{
    int rc = step(j->st[S_COMMIT]);

    if (rc == SQLITE_OK)
        return rc;
    journal_roll_back(j);
    if ((rc & 0xff) == SQLITE_IOERR)
        undo_frames(j);
    return rc;
}

/* ---- failure and recovery ------------------------------------------------------------------- */

static const char *
why_not(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:     return "the journal's disk is full";
    case SQLITE_READONLY: return "the journal's file or its disk is read-only";
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:   return "the journal's file is damaged; a restart sets it aside";
    case SQLITE_BUSY:
    case SQLITE_LOCKED:   return "another program holds the journal's file";
    case SQLITE_NOMEM:    return "memory is out";
    default:              return "the journal's disk fails";
    }
}

void
journal_fail(struct journal *j, int rc)
{
    const char *why = why_not(rc);
    int os = sqlite3_system_errno(j->db);

    if (is_damage(rc))
        atomic_store(&j->damaged, true);
    if (j->takes || j->why != why)
        log_error("journal %s: it takes no writes: %s (%s%s%s)", j->path, why, sqlite3_errstr(rc),
            os != 0 ? ", " : "", os != 0 ? strerror(os) : "");
    j->takes = false;
    j->why = why;
}

/* What a reader or the writer saw is remembered, so that the next opening sets the file aside.
 * Where that cannot be committed now it is tried again. */
static void
mark_damaged(struct journal *j)
{
    if (j->takes)
        journal_fail(j, SQLITE_CORRUPT);
    if (journal_begin(j, true) != SQLITE_OK)
        return;
    if (put_meta(j, "damaged", 1) == SQLITE_OK)
        j->marked = journal_commit(j) == SQLITE_OK;
    else
        journal_roll_back(j);
}

static int
put_probe(struct journal *j, int bytes)
{
    int rc = journal_begin(j, true);

    if (rc != SQLITE_OK)
        return rc;
    bind_text(j->st[S_META_PUT], 1, SLICE("probe"));
    sqlite3_bind_zeroblob(j->st[S_META_PUT], 2, bytes);
    rc = step(j->st[S_META_PUT]);
    if (rc == SQLITE_OK)
        return journal_commit(j);
    journal_roll_back(j);
    return rc;
}

/* Can it take writes again? The checkpoint comes first: after a sync that failed, what is in the
 * WAL may be in memory alone, and what is appended to it would be lost with it. */
static void
probe(struct journal *j)
{
    int rc = wal_empty(j);

    if (rc == SQLITE_OK)
        rc = put_probe(j, PROBE_BYTES);
    if (rc == SQLITE_OK)
        rc = put_probe(j, 0);
    if (rc != SQLITE_OK) {
        journal_fail(j, rc);
        return;
    }
    j->takes = true;
    j->why = "";
    log_info("journal %s: it takes writes again", j->path);
}

/* ---- one transaction ------------------------------------------------------------------------ */

static int
try_all(struct journal *j, struct journal_op *ops, bool intake)
{
    bool sync = false;
    int rc;

    for (struct journal_op *op = ops; op != NULL; op = op->next)
        sync |= op->durable == WRITE_FSYNC;
    rc = journal_begin(j, sync);
    if (rc != SQLITE_OK)
        return rc;
    if (intake)
        rc = journal_make_room(j);
    for (struct journal_op *op = ops; rc == SQLITE_OK && op != NULL; op = op->next)
        if (intake || !op_intake(op))
            rc = journal_apply(j, op);
    if (rc == SQLITE_OK)
        return journal_commit(j);
    journal_roll_back(j);
    return rc;
}

static bool
refuse(struct journal *j, struct journal_op *ops, bool intake)
{
    bool others = false;

    for (; ops != NULL; ops = ops->next)
        if (op_intake(ops) == intake) {
            ops->result = JOURNAL_FULL;
            ops->why = j->why;
            free(ops->reply);
            ops->reply = NULL;
        } else {
            others = true;
        }
    return others;
}

static void
tell(struct journal *j, struct journal_op *ops)
{
    for (struct journal_op *op = ops, *next; op != NULL; op = next) {
        next = op->next;
        if (op->kind == JOURNAL_PAUSE && op->result == JOURNAL_DONE)
            journal_set_paused(j, op->name, op->on);
        op->done(op);
    }
}

static void
transact(struct journal *j, struct journal_op *ops, size_t n)
{
    int64_t start = now_us(), took;
    int rc = try_all(j, ops, true);

    if (rc != SQLITE_OK) {
        journal_fail(j, rc);
        if (refuse(j, ops, true)) {
            rc = try_all(j, ops, false);
            if (rc != SQLITE_OK) {
                journal_fail(j, rc);
                refuse(j, ops, false);
            }
        }
    }
    took = now_us() - start;
    j->commits++;
    j->operations += (int64_t)n;
    j->commit_us += took;
    stats_observe(SUMMARY_journal_commit, (uint64_t)took);
    stats_observe(SUMMARY_journal_batch, n);
    j->last_batch = j->synced ? n : 0;
    j->last_commit_us = took;
    journal_publish(j);
    tell(j, ops);
    wal_care(j);
}

static size_t
op_bytes(const struct journal_op *op)
{
    return op->content.fields.n + op->content.body.n + op->content.answer_body.n + 256;
}

/* In transactions of bounded size; a CALL is alone, between two. */
static void
do_all(struct journal *j, struct journal_op *ops)
{
    while (ops != NULL) {
        struct journal_op *first = ops, *last = NULL;
        size_t n = 0, bytes = 0;

        while (ops != NULL && n < BATCH_ROWS && bytes < BATCH_BYTES
               && ops->kind != JOURNAL_CALL) {
            n++;
            bytes += op_bytes(ops);
            last = ops;
            ops = ops->next;
        }
        if (last != NULL) {
            last->next = NULL;
            transact(j, first, n);
        } else {
            ops = first->next;
            first->done(first);
        }
    }
}

/* ---- the thread ----------------------------------------------------------------------------- */

/* Once a second, and on until there is no more of it or somebody waits. */
static void
idle_work(struct journal *j)
{
    bool more = false;

    if (atomic_load(&j->damaged)) {
        if (!j->marked)
            mark_damaged(j);
    } else if (!j->takes) {
        probe(j);
    } else {
        more = journal_prune(j);
        wal_idle(j);
    }
    journal_publish(j);
    j->tick_us = now_us() + (more ? 0 : TICK_US);
}

void *
journal_thread(void *arg)
{
    struct journal *j = arg;
    bool closing = false;

    while (!closing) {
        struct journal_op *ops = take_queue(j, &closing);

        do_all(j, ops);
        if (now_us() >= j->tick_us && !closing)
            idle_work(j);
    }
    if (atomic_load(&j->damaged) && !j->marked)
        mark_damaged(j);
    return NULL;
}

/* ---- figures -------------------------------------------------------------------------------- */

static int64_t
oldest_ms(struct journal *j)
{
    sqlite3_stmt *st = j->st[S_OLDEST];
    int64_t ms = 0;

    if (j->now.pending == 0)
        return 0;
    sqlite3_bind_int64(st, 1, (int64_t)j->now.oldest_seq);
    if (sqlite3_step(st) == SQLITE_ROW) {
        j->now.oldest_seq = (uint64_t)sqlite3_column_int64(st, 0);
        ms = sqlite3_column_int64(st, 1);
    }
    sqlite3_reset(st);
    return ms;
}

void
journal_publish(struct journal *j)
{
    const char *why = j->takes ? journal_no_room(j) : j->why;
    struct journal_figures f = {
        .pending = j->now.pending, .dead = j->now.dead,
        .bytes = (uint64_t)(j->used > 0 ? j->used : 0), .room = (uint64_t)journal_room(j),
        .oldest_ms = (uint64_t)oldest_ms(j), .commits = (uint64_t)j->commits,
        .operations = (uint64_t)j->operations,
        .commit_us = (uint64_t)j->commit_us, .takes = why == NULL,
    };

    snprintf(f.why, sizeof f.why, "%s", why != NULL ? why : "");
    snprintf(f.aside, sizeof f.aside, "%.255s", j->aside);
    pthread_mutex_lock(&j->mtx);
    j->figures = f;
    pthread_mutex_unlock(&j->mtx);
}
