/*
 * The checkpoint thread: keeps the WAL small without making intake wait.
 *
 * Model    when the WAL has grown to its soft limit the checkpoint thread copies what is in it to
 *          the file (a passive checkpoint: nobody waits), a few times over, until what came
 *          meanwhile is a small rest. The journal thread copies that rest between two transactions,
 *          and the next one begins the WAL anew, over the same blocks of the file. Where that
 *          cannot keep up, at four times the limit, the journal thread does it all: intake is
 *          slowed, the WAL bounded.
 * Threads  wal_asked, wal_copied under wal_mtx; the rest of the state is the journal thread's.
 */
#include "write/journal_priv.h"

#define SOFT_MIN  (64 * 1024)           /* bytes */
#define SOFT_MAX  (32 * 1024 * 1024)
#define SHARE     32                    /* of journal.size: the soft limit */
#define PASSES    3
#define IDLE_MIN  64                    /* frames that are worth it when there is nothing to do */

static struct log_limit limited;

void
wal_limit(struct journal *j)
{
    int64_t soft = j->lim.size / SHARE;

    if (soft < SOFT_MIN)
        soft = SOFT_MIN;
    if (soft > SOFT_MAX)
        soft = SOFT_MAX;
    j->wal_soft = j->wal_next = (int)(soft / JOURNAL_PAGE);
    j->wal_hard = 4 * j->wal_soft;
}

int
wal_hook(void *arg, sqlite3 *db, const char *name, int frames)
{
    struct journal *j = arg;

    (void)db;
    (void)name;
    j->wal_frames = frames;
    return SQLITE_OK;
}

/* ---- the checkpoint thread ------------------------------------------------------------------ */

static void
copy_most(struct journal *j)
{
    int frames = 0, copied = 0;

    for (int i = 0; i < PASSES; i++) {
        int rc = sqlite3_wal_checkpoint_v2(j->wal_db, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames,
            &copied);

        if (rc != SQLITE_OK && rc != SQLITE_BUSY)
            log_limited(&limited, LOG_ERROR, "journal %s: checkpoint: %s", j->path,
                sqlite3_errmsg(j->wal_db));
        if (rc != SQLITE_OK || frames - copied < j->wal_soft / 8)
            break;
    }
}

void *
journal_wal_thread(void *arg)
{
    struct journal *j = arg;

    pthread_mutex_lock(&j->wal_mtx);
    for (;;) {
        while (!j->wal_asked && !j->wal_stop)
            pthread_cond_wait(&j->wal_wake, &j->wal_mtx);
        if (j->wal_stop)
            break;
        pthread_mutex_unlock(&j->wal_mtx);
        copy_most(j);
        pthread_mutex_lock(&j->wal_mtx);
        j->wal_asked = false;
        j->wal_copied = true;
        pthread_cond_broadcast(&j->wal_wake);
    }
    pthread_mutex_unlock(&j->wal_mtx);
    return NULL;
}

void
wal_end(struct journal *j)
{
    pthread_mutex_lock(&j->wal_mtx);
    j->wal_stop = true;
    pthread_cond_broadcast(&j->wal_wake);
    pthread_mutex_unlock(&j->wal_mtx);
    pthread_join(j->wal_thread, NULL);
}

/* ---- the journal thread --------------------------------------------------------------------- */

static void
ask(struct journal *j)
{
    pthread_mutex_lock(&j->wal_mtx);
    if (!j->wal_copied) {
        j->wal_asked = true;
        pthread_cond_broadcast(&j->wal_wake);
    }
    pthread_mutex_unlock(&j->wal_mtx);
}

/* Has the other thread copied what it could? must: waits for it, if it is at it. */
static bool
take_copied(struct journal *j, bool must)
{
    bool copied;

    pthread_mutex_lock(&j->wal_mtx);
    while (must && j->wal_asked)
        pthread_cond_wait(&j->wal_wake, &j->wal_mtx);
    copied = j->wal_copied;
    j->wal_copied = false;
    pthread_mutex_unlock(&j->wal_mtx);
    return copied;
}

static int
copy_rest(struct journal *j)
{
    int rc = sqlite3_wal_checkpoint_v2(j->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);

    j->wal_next = j->wal_frames + j->wal_soft / 2;      /* where a reader keeps it from ending */
    return rc;
}

void
wal_care(struct journal *j)
{
    int rc = SQLITE_OK;

    if (j->wal_frames < j->wal_soft)
        j->wal_next = j->wal_soft;
    if (j->wal_frames >= j->wal_hard) {
        take_copied(j, true);
        rc = copy_rest(j);
    } else if (j->wal_frames >= j->wal_soft && take_copied(j, false)) {
        rc = copy_rest(j);
    } else if (j->wal_frames >= j->wal_next) {
        ask(j);
    }
    if (rc != SQLITE_OK && rc != SQLITE_BUSY && j->takes)
        journal_fail(j, rc);
}

void
wal_idle(struct journal *j)
{
    if (take_copied(j, false))
        copy_rest(j);
    else if (j->wal_frames >= IDLE_MIN && j->wal_frames != j->wal_rested)
        ask(j);
    j->wal_rested = j->wal_frames;
}

int
wal_empty(struct journal *j)
{
    take_copied(j, true);
    return sqlite3_wal_checkpoint_v2(j->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}
