/*
 * The disk tier's writer: one thread that alone changes the file and the index.
 *
 * Model    a turn takes what there is, in this order: purges, rows to remove, responses to keep, as
 *          many as one transaction holds, then who waits for erasure, then a piece of the index.
 * Size     the file has three parts in 80 less than the tier: one for what the WAL may hold before
 *          a checkpoint, one for a transaction, one for its last step.
 * Failure  a transaction that fails is taken back whole, and the index loaded anew. Then nothing is
 *          kept until a retry succeeds, at growing intervals; purges stay in the ring, and
 *          `applied` where it was: what is still found is put into memory with that stamp, so
 *          memory refuses it if a purge has matched it since. A file that is damaged is set aside,
 *          once noticed.
 * Not here what a row is, and how it is put and removed (disk_row.c).
 * Threads  the writer's.
 */
#include "tier/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "stats/stats.h"

/* Answers go first where processors are scarce. It holds locks that loops take for some hundred
 * nanoseconds at a time: to be preempted in one is rare, and costs that loop a slice. */
#define NICE          5
#define PURGES        64                /* entries of the ring in one transaction */
#define RETRY_MIN_US  ((int64_t)1000000)
#define RETRY_MAX_US  ((int64_t)30000000)

/* ---- statements ----------------------------------------------------------------------------- */

int
disk_write_step(struct disk *d, int statement)
{
    int rc = sqlite3_step(d->st[statement]);

    sqlite3_reset(d->st[statement]);
    sqlite3_clear_bindings(d->st[statement]);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

/* Of a statement that gives one number. */
static int
number(struct disk *d, int statement, int64_t *n)
{
    int rc = sqlite3_step(d->st[statement]);

    *n = rc == SQLITE_ROW ? sqlite3_column_int64(d->st[statement], 0) : 0;
    sqlite3_reset(d->st[statement]);
    return rc == SQLITE_ROW ? SQLITE_OK : rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

int
disk_write_used(struct disk *d, uint32_t *pages)
{
    int64_t all, unused = 0;
    int rc = number(d, W_PAGES, &all);

    if (rc == SQLITE_OK)
        rc = number(d, W_FREE, &unused);
    *pages = (uint32_t)(all - unused);
    return rc;
}

/* ---- transactions --------------------------------------------------------------------------- */

int
disk_write_begin(struct disk *d)
{
    int rc = d->in_txn ? SQLITE_OK : disk_write_step(d, W_BEGIN);

    d->in_txn = rc == SQLITE_OK;
    return rc;
}

int
disk_write_checkpoint(struct disk *d, bool durable)
{
    int rc = SQLITE_OK;

    if (durable)
        rc = sqlite3_exec(d->db, "PRAGMA synchronous = FULL", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_wal_checkpoint_v2(d->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (rc == SQLITE_OK)
        d->wal_frames = 0;
    if (durable)
        sqlite3_exec(d->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
    return rc;
}

static void
tell(struct disk *d)
{
    stats_gauge_set(GAUGE_disk_objects, d->index.live);
    stats_gauge_set(GAUGE_disk_bytes, (int64_t)atomic_load(&d->used_pages) * DISK_PAGE);
}

/* A checkpoint waits for readers, who are quick. Where somebody else reads the file, the WAL grows
 * by a transaction; then nothing is kept until that has ended. */
static int
care_for_wal(struct disk *d)
{
    int rc = SQLITE_OK;

    if ((uint32_t)d->wal_frames >= d->wal_pages)
        rc = disk_write_checkpoint(d, false);
    return rc == SQLITE_BUSY && (uint32_t)d->wal_frames < 2 * d->wal_pages ? SQLITE_OK : rc;
}

int
disk_write_commit(struct disk *d)
{
    uint32_t pages;
    int rc;

    if (!d->in_txn)
        return SQLITE_OK;
    if ((rc = disk_write_used(d, &pages)) == SQLITE_OK)
        rc = disk_write_step(d, W_COMMIT);
    if (rc != SQLITE_OK)
        return rc;
    d->in_txn = false;
    d->txn_pages = 0;
    atomic_store(&d->used_pages, pages);
    tell(d);
    return care_for_wal(d);
}

int
disk_write_split(struct disk *d)
{
    int rc = d->txn_pages >= d->wal_pages ? disk_write_commit(d) : SQLITE_OK;

    return rc == SQLITE_OK ? disk_write_begin(d) : rc;
}

/* ---- a new file ----------------------------------------------------------------------------- */

/* Readers' connections go too: a file that is open somewhere keeps its bytes. */
int
disk_write_renew(struct disk *d, bool keep)
{
    struct err e = { 0 };
    int rc;

    pthread_rwlock_wrlock(&d->renew);
    for (size_t i = 0; i < NELEM(d->readers); i++)
        disk_file_close(&d->readers[i].db, d->readers[i].st, READER_N);
    disk_file_close(&d->db, d->st, WRITER_N);
    d->in_txn = false;
    d->txn_pages = 0;
    if (keep)
        disk_file_set_aside(d);
    else
        disk_file_remove(d);
    rc = disk_file_open_writer(d, &e);
    pthread_rwlock_unlock(&d->renew);
    pthread_mutex_lock(&d->mtx);
    d->nspent = 0;                      /* numbers of the old file's rows */
    pthread_mutex_unlock(&d->mtx);
    d->index_lost = index_reset(&d->index, 0) == -1;
    if (!d->index_lost) {
        index_loaded(&d->index);
    } else if (rc == SQLITE_OK) {
        rc = SQLITE_NOMEM;
        err_set(&e, ENOMEM, "cache.disk %s: memory is out", d->file);
    }
    atomic_store(&d->used_pages, 0);
    tell(d);
    if (rc != SQLITE_OK)
        log_limited(&d->limited, LOG_ERROR, "%s", e.text);
    return rc;
}

/* ---- a turn --------------------------------------------------------------------------------- */

static void
free_put(struct disk *d, struct disk_put *p)
{
    pthread_mutex_lock(&d->mtx);
    d->queued -= p->bytes;
    disk_cell(d, p->key)->done += p->noted;
    stats_gauge_set(GAUGE_disk_queue, (int64_t)d->queued);
    pthread_mutex_unlock(&d->mtx);
    object_unref(&p->o);
    free(p);
}

static struct disk_put *
take_put(struct disk *d)
{
    struct disk_put *p;

    pthread_mutex_lock(&d->mtx);
    if ((p = d->puts) != NULL && (d->puts = p->next) == NULL)
        d->puts_end = &d->puts;
    pthread_mutex_unlock(&d->mtx);
    return p;
}

static bool
purges_wait(struct disk *d)
{
    bool wait;

    pthread_mutex_lock(&d->mtx);
    wait = !ring_empty(&d->ring);
    pthread_mutex_unlock(&d->mtx);
    return wait;
}

/* They are written, and no longer queued, when the transaction is committed. Else what they
 * replaced is there again, and is to go without them. */
static int
do_puts(struct disk *d)
{
    struct disk_put *p, *done = NULL;
    int rc = SQLITE_OK;

    while (rc == SQLITE_OK && d->txn_pages < d->wal_pages && !purges_wait(d) &&
        (p = take_put(d)) != NULL) {
        rc = disk_row_keep(d, p->o);
        p->next = done;
        done = p;
    }
    if (rc == SQLITE_OK)
        rc = disk_write_commit(d);
    while ((p = done) != NULL) {
        done = p->next;
        if (rc != SQLITE_OK)
            disk_drop_later(d, p->o);
        free_put(d, p);
    }
    return rc;
}

static void
drop_puts(struct disk *d)
{
    struct disk_put *p;

    while ((p = take_put(d)) != NULL) {
        COUNT(disk_drops);
        if (p->noted)
            disk_drop_later(d, p->o);
        free_put(d, p);
    }
}

/* Those that are taken together; `scans` wait until the end, to be done at one go. */
struct purges {
    uint64_t at, last;                  /* in the ring; the last purge's number */
    unsigned n;
    size_t   nscans, ndrops;
    struct ring_entry scans[PURGES];
    uint64_t drops[PURGES];             /* told by this process: their keys */
};

/* What was taken from the ring is in the file. */
static int
purged(struct disk *d, const struct purges *p)
{
    int rc = disk_write_commit(d);

    if (rc != SQLITE_OK)
        return rc;
    pthread_mutex_lock(&d->mtx);
    ring_free(&d->ring, p->at);
    for (size_t i = 0; i < p->ndrops; i++)
        disk_cell(d, p->drops[i])->done++;
    pthread_mutex_unlock(&d->mtx);
    if (p->last > atomic_load(&d->applied))
        atomic_store(&d->applied, p->last);
    return SQLITE_OK;
}

/* Under mtx: the file is empty, which is all that a drop asks for. */
static void
drops_done(struct disk *d)
{
    for (size_t i = 0; i < DISK_CELLS; i++)
        d->cells[i].done = d->cells[i].told;
    for (const struct disk_put *p = d->puts; p != NULL; p = p->next)
        disk_cell(d, p->key)->done -= p->noted;
}

static int
do_overflow(struct disk *d, uint64_t seq)
{
    int rc = disk_write_renew(d, false);

    if (rc != SQLITE_OK)
        return rc;
    log_warn("cache.disk %s: more purges came than could be noted; it begins empty", d->path);
    pthread_mutex_lock(&d->mtx);
    ring_free_all(&d->ring, seq);
    drops_done(d);
    pthread_mutex_unlock(&d->mtx);
    d->taken = seq > d->taken ? seq : d->taken;
    if (seq > atomic_load(&d->applied))
        atomic_store(&d->applied, seq);
    return SQLITE_OK;
}

/* Numbers of the last process say nothing in this one, nor were its drops told here. */
static void
take_note(struct disk *d, struct purges *p, const struct ring_entry *e)
{
    p->n++;
    if (p->at <= d->old_end)
        return;
    if (e->kind == RING_DROP)
        p->drops[p->ndrops++] = e->id;
    else
        d->taken = p->last = e->seq;
}

static int
do_purge(struct disk *d, struct purges *p, const struct ring_entry *e)
{
    int rc;

    take_note(d, p, e);
    if (e->kind == STORE_PURGE_ALL && !e->soft) {
        p->nscans = 0;
        return disk_write_renew(d, false);
    }
    if (disk_purge_scans(e)) {
        p->scans[p->nscans++] = *e;
        return SQLITE_OK;
    }
    rc = disk_write_begin(d);
    return rc == SQLITE_OK ? disk_purge_apply(d, e, 1) : rc;
}

static int
end_purges(struct disk *d, struct purges *p)
{
    int rc = SQLITE_OK;

    if (p->nscans > 0 && (rc = disk_write_begin(d)) == SQLITE_OK)
        rc = disk_purge_apply(d, p->scans, p->nscans);
    if (rc == SQLITE_OK && p->n > 0)
        rc = purged(d, p);
    p->n = 0;
    p->nscans = p->ndrops = 0;
    return rc;
}

static int
do_purges(struct disk *d)
{
    struct purges p = { .at = 0 };
    struct ring_entry e;
    bool over, more = true;
    uint64_t seq;
    int rc = SQLITE_OK;

    while (rc == SQLITE_OK && more) {
        pthread_mutex_lock(&d->mtx);
        over = ring_overflowed(&d->ring, &seq);
        more = !over && ring_next(&d->ring, &p.at, &e);
        pthread_mutex_unlock(&d->mtx);
        if (over)
            return do_overflow(d, seq);
        if (more)
            rc = do_purge(d, &p, &e);
        if (rc == SQLITE_OK && (!more || p.n == PURGES))
            rc = end_purges(d, &p);
    }
    if (rc == SQLITE_OK && !atomic_load(&d->ready))
        disk_set(d, &d->ready, true);
    return rc;
}

static int
do_spent(struct disk *d)
{
    uint32_t ids[DISK_SPENT];
    unsigned n;
    int rc = SQLITE_OK;

    pthread_mutex_lock(&d->mtx);
    n = d->nspent;
    memcpy(ids, d->spent, n * sizeof ids[0]);
    d->nspent = 0;
    pthread_mutex_unlock(&d->mtx);
    for (unsigned i = 0; i < n && rc == SQLITE_OK; i++)
        if ((rc = disk_write_split(d)) == SQLITE_OK)
            rc = disk_row_remove(d, ids[i]);
    return rc;
}

static void
answer_erases(struct disk_erase *e, bool ok)
{
    for (struct disk_erase *next; e != NULL; e = next) {
        next = e->next;
        e->ok = ok;
        loop_post(e->loop, &e->msg);
    }
}

/* Deleted cells and pages are zeros in the file once the WAL, where older states of them are, has
 * been copied to it and is cut off. */
static int
do_erases(struct disk *d, struct disk_erase *e)
{
    int rc = disk_write_checkpoint(d, true);

    disk_file_forget_aside(d);
    answer_erases(e, rc == SQLITE_OK);
    return rc == SQLITE_BUSY ? SQLITE_OK : rc;
}

static int
load_piece(struct disk *d)
{
    sqlite3_stmt *rows = d->st[W_LOAD];
    int rc, n = 0;

    sqlite3_bind_int64(rows, 1, d->index.cursor);
    sqlite3_bind_int64(rows, 2, d->index.last);
    for (; (rc = sqlite3_step(rows)) == SQLITE_ROW; n++) {
        int64_t id = sqlite3_column_int64(rows, 0);

        /* A row takes some bytes, and numbers are used again. */
        if (id > d->size / 32 || index_load(&d->index, (uint32_t)id,
                (uint64_t)sqlite3_column_int64(rows, 1),
                (uint64_t)sqlite3_column_int64(rows, 2)) == -1) {
            rc = SQLITE_CORRUPT;
            break;
        }
    }
    sqlite3_reset(rows);
    if (rc == SQLITE_DONE && n == 0)
        index_loaded(&d->index);
    tell(d);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int
find_index(struct disk *d)
{
    int64_t last;
    int rc = number(d, W_LAST, &last);

    if (rc == SQLITE_OK && last > d->size / 32)
        rc = SQLITE_CORRUPT;
    if (rc == SQLITE_OK && index_reset(&d->index, (uint32_t)last) == -1)
        rc = SQLITE_NOMEM;
    d->index_lost = rc != SQLITE_OK;
    return rc;
}

static int
turn(struct disk *d, struct disk_erase **erases, bool damaged)
{
    struct disk_erase *e = *erases;
    int rc = damaged ? SQLITE_CORRUPT : SQLITE_OK;

    if (rc == SQLITE_OK && d->db == NULL)
        rc = disk_write_renew(d, false);
    if (rc == SQLITE_OK && d->index_lost)
        rc = find_index(d);
    if (rc == SQLITE_OK && d->retry_us != 0)
        rc = care_for_wal(d);
    if (rc == SQLITE_OK)
        rc = do_purges(d);
    if (rc == SQLITE_OK)
        rc = do_spent(d);
    if (rc == SQLITE_OK)
        rc = do_puts(d);
    if (rc == SQLITE_OK && e != NULL) {
        *erases = NULL;
        rc = do_erases(d, e);
    }
    if (rc == SQLITE_OK && !d->index.loaded)
        rc = load_piece(d);
    return rc;
}

/* ---- the thread ----------------------------------------------------------------------------- */

static void
fail(struct disk *d, int rc)
{
    int os = d->db != NULL ? sqlite3_system_errno(d->db) : 0;

    if (disk_file_is_damage(rc)) {
        log_error("cache.disk %s: %s: it is damaged; it was set aside as %s" FILE_ASIDE ", and a "
            "new one begun", d->file, sqlite3_errstr(rc), d->file);
        if (disk_write_renew(d, true) == SQLITE_OK)
            return;
    } else if (d->db != NULL && d->in_txn) {
        sqlite3_exec(d->db, "ROLLBACK", NULL, NULL, NULL);
        d->in_txn = false;
        d->txn_pages = 0;
        d->index_lost = true;
    }
    if (!atomic_load(&d->failing))
        log_error("cache.disk %s: %s%s%s; nothing is kept there until that is over", d->file,
            sqlite3_errstr(rc), os != 0 ? ": " : "", os != 0 ? strerror(os) : "");
    disk_set(d, &d->failing, true);
    COUNT(disk_failures);
    d->backoff_us = d->backoff_us == 0 ? RETRY_MIN_US : d->backoff_us * 2;
    d->backoff_us = d->backoff_us < RETRY_MAX_US ? d->backoff_us : RETRY_MAX_US;
    d->retry_us = now_us() + d->backoff_us;
    drop_puts(d);
}

static void
succeed(struct disk *d)
{
    if (atomic_load(&d->failing)) {
        disk_set(d, &d->failing, false);
        log_info("cache.disk %s: works again", d->file);
    }
    d->backoff_us = d->retry_us = 0;
}

static bool
has_work(const struct disk *d)
{
    return d->puts != NULL || d->erases != NULL || d->nspent > 0 || d->damaged ||
        d->index_lost || d->db == NULL || !d->index.loaded || !ring_empty(&d->ring) ||
        !atomic_load(&d->ready);
}

/* Under mtx. false: the end. Where the disk fails: until it is to be tried again. */
static bool
wait_for_work(struct disk *d)
{
    for (;;) {
        int64_t left = d->retry_us != 0 ? d->retry_us - now_us() : 0;
        struct timespec until;

        if (d->stop && (left > 0 || now_us() > d->stop_us ||
                (d->puts == NULL && ring_empty(&d->ring) && d->erases == NULL)))
            return false;
        if (left <= 0 && (d->stop || d->retry_us != 0 || has_work(d)))
            return true;
        left = now_us() + (left > 0 ? left : RETRY_MAX_US);
        until = (struct timespec){ .tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000 };
        pthread_cond_timedwait(&d->wake, &d->mtx, &until);
        if (d->retry_us != 0 && d->erases != NULL)
            return true;                /* who waits is to hear that it cannot be done */
    }
}

static void
work(struct disk *d)
{
    pthread_mutex_lock(&d->mtx);
    while (wait_for_work(d)) {
        struct disk_erase *erases = d->erases;
        bool damaged = d->damaged;
        int rc;

        d->erases = NULL;
        d->damaged = false;
        pthread_mutex_unlock(&d->mtx);
        if ((rc = turn(d, &erases, damaged)) == SQLITE_OK)
            succeed(d);
        else
            fail(d, rc);
        answer_erases(erases, false);
        pthread_mutex_lock(&d->mtx);
    }
    pthread_mutex_unlock(&d->mtx);
}

void *
disk_writer(void *arg)
{
    struct disk *d = arg;

    setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);    /* of this thread alone, on Linux */
    rcu_enter_thread();
    work(d);
    drop_puts(d);
    rcu_leave_thread();
    return NULL;
}
