/*
 * A damaged journal: set aside under another name, and a new one made of what can be read.
 *
 * Model    the file and its WAL get second names, PATH.damaged-TIME, under which they stay as they
 *          are. Only when the new one is complete does it take the old one's place, so that a crash
 *          meanwhile begins anew.
 * A WAL    whose tail is damaged is no error to SQLite: it believes frames up to the first one
 *          whose checksum is wrong, which is what a crash leaves. Should a disk spoil what it had
 *          said to be written, the writes of the frames behind are lost, acknowledged or not.
 * Threads  journal_open's.
 */
#include "write/journal_priv.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SKIP ((uint64_t)1 << 20)        /* numbers left out, where those given are not known */

/* ---- what is in meta ------------------------------------------------------------------------ */

/* False: it is not there, or not of that length (n 0: a number). */
static bool
meta_of(sqlite3 *db, const char *name, void *value, size_t n, int64_t *number)
{
    sqlite3_stmt *st;
    bool found = false;

    if (sqlite3_prepare_v2(db, "SELECT value FROM meta WHERE name = ?1", -1, &st, NULL)
        == SQLITE_OK) {
        sqlite3_bind_text(st, 1, name, -1, SQLITE_STATIC);
        if (sqlite3_step(st) == SQLITE_ROW) {
            struct slice s = column(st, 0);

            *number = sqlite3_column_int64(st, 0);
            found = n == 0 || s.n == n;
            if (found && n != 0)
                memcpy(value, sqlite3_column_blob(st, 0), n);
        }
    }
    sqlite3_finalize(st);
    return found;
}

static int
put_meta(sqlite3_stmt **st, const char *name, int64_t value)
{
    bind_text(st[S_META_PUT], 1, slice_of(name));
    sqlite3_bind_int64(st[S_META_PUT], 2, value);
    return step(st[S_META_PUT]);
}

/* Numbers that were given must not be given again, and claims of former runs are of former runs. */
static int
put_counters(sqlite3 *from, sqlite3_stmt **st, uint64_t max_seq)
{
    int64_t reserved = 0, run = 0, shared = 0;
    int rc;

    meta_of(from, "reserved", NULL, 0, &reserved);
    if (!meta_of(from, "run", NULL, 0, &run))
        run = wall_ms();
    if (reserved < 0 || (uint64_t)reserved < max_seq + 1)
        reserved = (int64_t)(max_seq + SKIP);
    rc = put_meta(st, "reserved", reserved);
    if (rc == SQLITE_OK && meta_of(from, "shared", NULL, 0, &shared))
        rc = put_meta(st, "shared", shared);
    return rc == SQLITE_OK ? put_meta(st, "run", run) : rc;
}

static int
fill_new(const char *path, sqlite3 *from, const char *aside, sqlite3 **new, struct rescued *r,
    struct err *e)
{
    sqlite3_stmt *st[WRITER_N] = { NULL };
    int rc = file_prepare(*new, st, writer_sql, WRITER_N, e);

    if (rc == 0) {
        rc = step(st[S_BEGIN]);
        if (rc == SQLITE_OK)
            rc = journal_rescue(aside, from, *new, st, r);
        if (rc == SQLITE_OK)
            rc = put_counters(from, st, r->max_seq);
        if (rc == SQLITE_OK)
            rc = step(st[S_COMMIT]);
        if (rc != SQLITE_OK)
            rc = err_set(e, 0, "journal %s: taking over what is left of it: %s", path,
                sqlite3_errstr(rc));
    }
    for (size_t i = 0; i < WRITER_N; i++)
        sqlite3_finalize(st[i]);
    return rc;
}

static int
make_of(const char *path, sqlite3 *from, const char *aside, struct rescued *r, struct err *e)
{
    uint8_t secret[JOURNAL_SECRET];
    int64_t number;
    sqlite3 *new;

    r->same_ids = meta_of(from, "secret", secret, sizeof secret, &number);
    new = file_make(path, r->same_ids ? secret : NULL, e);
    if (new == NULL)
        return -1;
    if (fill_new(path, from, aside, &new, r, e) == 0)
        return file_install(path, &new, e);
    sqlite3_close(new);
    return -1;
}

/* ---- setting aside -------------------------------------------------------------------------- */

/* A second name; nothing where there is nothing. */
static int
link_to(const char *path, const char *aside, const char *suffix, struct err *e)
{
    char from[PATH_MAX], to[PATH_MAX];

    file_beside(path, suffix, from);
    file_beside(aside, suffix, to);
    if (link(from, to) == -1 && errno != ENOENT)
        return err_set(e, errno, "journal: setting %s aside as %s: %s", from, to, strerror(errno));
    return 0;
}

static int
name_aside(const char *path, char aside[PATH_MAX], struct err *e)
{
    time_t now = (time_t)(wall_ms() / 1000);
    struct tm tm;
    char stamp[32];

    gmtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    snprintf(aside, PATH_MAX, "%s.damaged-%s", path, stamp);
    for (int i = 2; access(aside, F_OK) == 0; i++)
        snprintf(aside, PATH_MAX, "%s.damaged-%s-%d", path, stamp, i);
    return link_to(path, aside, "", e) == 0 ? link_to(path, aside, "-wal", e) : -1;
}

/* What reading it made: it had no WAL, or a wal-index of no use to anybody. */
static void
tidy(const char *aside)
{
    char path[PATH_MAX];
    struct stat st;

    unlink(file_beside(aside, "-shm", path));
    if (stat(file_beside(aside, "-wal", path), &st) == 0 && st.st_size == 0)
        unlink(path);
}

int
journal_set_aside(struct journal *j, const char *why, struct err *e)
{
    const char *path = j->path;
    char aside[PATH_MAX], reason[sizeof e->text];
    struct rescued r = { 0 };
    sqlite3 *from;
    int rc;

    snprintf(reason, sizeof reason, "%s", why);
    if (name_aside(path, aside, e) == -1
        || (from = file_open(aside, SQLITE_OPEN_READWRITE, e)) == NULL)
        return -1;
    sqlite3_db_config(from, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    /* A file that is shorter than its header says is read as far as it goes. */
    sqlite3_exec(from, "PRAGMA writable_schema = 1", NULL, NULL, NULL);
    rc = make_of(path, from, aside, &r, e);
    sqlite3_close(from);
    tidy(aside);
    snprintf(j->aside, sizeof j->aside, "%s", aside);
    if (rc == 0)
        log_error("journal %s: it was damaged (%s) and is set aside as %s; a new one holds the "
            "%llu writes (%llu of them uncertain) and %llu idempotency keys that could be read; "
            "others may be lost%s", path, reason, aside, (unsigned long long)r.saved,
            (unsigned long long)r.uncertain, (unsigned long long)r.keys,
            r.same_ids ? "" : ", and ids given before are not known any more");
    return rc;
}
