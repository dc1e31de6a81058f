/*
 * What is let go, and whether there is room.
 *
 * Model    settled writes go when journal.keep has passed, keys when their time is out: a few at a
 *          time, in transactions of their own when nothing else is to be done. Where space is
 *          wanted settled ones go before their time, the longest settled first. Pending and dead
 *          ones never. Pages that become free are used again; the file does not shrink.
 * Room     what is in use of the file and the most that its WAL grows to are journal.size together.
 * Threads  the journal thread.
 */
#include "write/journal_priv.h"

#define AT_ONCE 256                     /* rows a step */
#define LEAST   (16 * JOURNAL_PAGE)     /* with less room than this it is called full */

/* ---- room ----------------------------------------------------------------------------------- */

static int64_t
room(const struct journal *j)           /* bytes of the file that may be in use */
{
    int64_t wal = (int64_t)j->wal_hard * JOURNAL_PAGE;

    return wal < j->lim.size / 2 ? j->lim.size - wal : j->lim.size / 2;
}

int64_t
journal_room(const struct journal *j)
{
    return room(j) > j->used ? room(j) - j->used : 0;
}

/* Why a write of `size` bytes more is not taken; NULL: it is. */
const char *
journal_lacks(struct journal *j, int64_t size)
{
    if (j->now.pending >= j->lim.depth)
        return "the journal holds as many pending writes as journal.depth allows";
    if (j->used + j->batch_bytes + size <= room(j))
        return NULL;
    return "the journal has reached journal.size";
}

const char *
journal_no_room(struct journal *j)
{
    return journal_lacks(j, LEAST);
}

/* ---- pruning -------------------------------------------------------------------------------- */

static int
drop_settled(struct journal *j, uint64_t seq)
{
    static const int statements[] = { S_SETTLED_DROP, S_CONTENT_DROP, S_ANSWER_DROP };
    int rc = SQLITE_OK;

    for (size_t i = 0; rc == SQLITE_OK && i < NELEM(statements); i++) {
        sqlite3_bind_int64(j->st[statements[i]], 1, (int64_t)seq);
        rc = step(j->st[statements[i]]);
    }
    return rc;
}

/* In a transaction: at most AT_ONCE that were settled before then. */
static int
prune_settled(struct journal *j, int64_t before_ms, int *n)
{
    sqlite3_stmt *st = j->st[S_SETTLED_OLD];
    uint64_t seqs[AT_ONCE];
    int rc;

    *n = 0;
    sqlite3_bind_int64(st, 1, before_ms);
    sqlite3_bind_int(st, 2, AT_ONCE);
    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        seqs[(*n)++] = (uint64_t)sqlite3_column_int64(st, 0);
    sqlite3_reset(st);
    rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    for (int i = 0; rc == SQLITE_OK && i < *n; i++)
        rc = drop_settled(j, seqs[i]);
    return rc;
}

static bool
tight(const struct journal *j)          /* a tenth left: it is time to make room */
{
    return j->used + j->batch_bytes > room(j) / 10 * 9;
}

int
journal_make_room(struct journal *j)
{
    int n;

    return tight(j) ? prune_settled(j, INT64_MAX, &n) : SQLITE_OK;
}

bool
journal_prune(struct journal *j)
{
    int settled = 0, keys = 0, rc = journal_begin(j, false);

    if (rc != SQLITE_OK) {
        journal_fail(j, rc);
        return false;
    }
    rc = prune_settled(j, tight(j) ? INT64_MAX : j->now_ms - j->lim.keep_ms, &settled);
    if (rc == SQLITE_OK)
        rc = key_prune(j, &keys);
    if (rc == SQLITE_OK)
        rc = journal_commit(j);
    else
        journal_roll_back(j);
    if (rc != SQLITE_OK)
        journal_fail(j, rc);
    return rc == SQLITE_OK && (settled == AT_ONCE || keys == AT_ONCE);
}
