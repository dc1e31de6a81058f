/*
 * The journal's SQLite file: whose it is, making one, its statements.
 *
 * Model    a journal is made whole at PATH.part, renamed to PATH.new when it is complete and
 *          synced, and then to PATH: a crash at any moment leaves the old file, or the new one, or
 *          a PATH.new that the next opening puts in its place. What is at PATH and not ours is
 *          never touched: the header's application id says so, and where a header cannot be read,
 *          the lock file beside it, which says that a journal was here.
 * Schema   writes: what is pending or dead, thin; content and answers: what it carries, and the
 *          last answer; settled: what is done with, without indexes that intake would pay for;
 *          keys: idempotency. Only c1 is indexed for every write, c2 where there is one.
 */
#include "write/journal_priv.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER 100                      /* bytes of an SQLite file's header */
#define BUSY_MS 5000                    /* somebody looks into the file with a tool of SQLite's */

#define STATEMENT_SQL(id, sql) sql,
const char *const writer_sql[WRITER_N] = { WRITER_STATEMENTS(STATEMENT_SQL) };
const char *const reader_sql[READER_N] = { READER_STATEMENTS(STATEMENT_SQL) };
#undef STATEMENT_SQL

#define ROW_COLUMNS \
    "who INTEGER, accepted_ms INTEGER, due_ms INTEGER, settled_ms INTEGER, route INTEGER, " \
    "attempts INTEGER, status INTEGER, method INTEGER, lane INTEGER, state INTEGER, " \
    "ordered INTEGER, sum INTEGER"
static const char schema[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE routes(number INTEGER PRIMARY KEY, name TEXT);"
    "CREATE TABLE paused(name TEXT PRIMARY KEY) WITHOUT ROWID;"
    "CREATE TABLE writes(seq INTEGER PRIMARY KEY, c1 INTEGER, c2 INTEGER, dead1 INTEGER, "
        "dead2 INTEGER, " ROW_COLUMNS ");"
    "CREATE INDEX writes_c1 ON writes(c1, seq) WHERE c1 IS NOT NULL;"
    "CREATE INDEX writes_c2 ON writes(c2, seq) WHERE c2 IS NOT NULL;"
    "CREATE INDEX writes_dead ON writes(seq) WHERE dead1 IS NOT NULL;"
    "CREATE TABLE content(seq INTEGER PRIMARY KEY, method TEXT, url TEXT, target TEXT, host TEXT, "
        "order_key TEXT, idempotency_key TEXT, sum INTEGER, body_sum INTEGER, fields TEXT, "
        "body BLOB);"
    "CREATE TABLE answers(seq INTEGER PRIMARY KEY, head TEXT, body BLOB, cause TEXT, sum INTEGER);"
    "CREATE TABLE settled(seq INTEGER PRIMARY KEY, c1 INTEGER, c2 INTEGER, " ROW_COLUMNS ");"
    "CREATE INDEX settled_when ON settled(settled_ms);"
    "CREATE TABLE keys(h BLOB PRIMARY KEY, fingerprint BLOB, seq INTEGER, run INTEGER, "
        "state INTEGER, expires_ms INTEGER, status INTEGER, bytes INTEGER, sum INTEGER, head TEXT, "
        "body BLOB) WITHOUT ROWID;"
    "CREATE INDEX keys_when ON keys(expires_ms, bytes);";

/* ---- errors --------------------------------------------------------------------------------- */

bool
is_damage(int rc)
{
    return (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;
}

int
file_error(sqlite3 *db, const char *path, struct err *e)
{
    int os = sqlite3_system_errno(db);

    return err_set(e, os, "journal %s: %s%s%s", path, sqlite3_errmsg(db),
        os != 0 ? ": " : "", os != 0 ? strerror(os) : "");
}

/* ---- whose it is ---------------------------------------------------------------------------- */

static uint32_t
be32_at(const unsigned char *header, size_t offset)
{
    uint32_t v;

    memcpy(&v, header + offset, sizeof v);
    return be32toh(v);
}

static enum file_kind
file_judge(const unsigned char *header, ssize_t n, const char *path, bool ours, struct err *e)
{
    bool sqlite = n == HEADER && memcmp(header, "SQLite format 3", 16) == 0;

    if (sqlite && be32_at(header, 68) == JOURNAL_APPLICATION) {
        uint32_t version = be32_at(header, 60);

        if (version <= JOURNAL_SCHEMA)
            return FILE_OURS;
        err_set(e, 0, "journal %s: it is of schema %u, and this version knows those up to %d; "
            "run the later version, or name another file as journal.path", path, version,
            JOURNAL_SCHEMA);
        return FILE_LATER;
    }
    if (ours && !(sqlite && be32_at(header, 68) != 0)) {
        err_set(e, 0, "%s", n < HEADER ? "it is cut off" : "its header was overwritten");
        return FILE_DAMAGED;
    }
    err_set(e, 0, "journal %s: this is another program's file, and stays as it is; name another "
        "file as journal.path", path);
    return FILE_FOREIGN;
}

enum file_kind
file_look(const char *path, int flags, bool ours, struct err *e)
{
    unsigned char header[HEADER];
    int fd = open(path, flags | O_CLOEXEC);
    ssize_t n;

    if (fd == -1 && errno == ENOENT)
        return FILE_NONE;
    n = fd != -1 ? pread(fd, header, sizeof header, 0) : -1;
    if (n == -1) {
        err_set(e, errno, "journal %s: %s", path, strerror(errno));
        if (fd != -1)
            close(fd);
        return FILE_FOREIGN;
    }
    close(fd);
    return file_judge(header, n, path, ours, e);
}

/* ---- opening -------------------------------------------------------------------------------- */

sqlite3 *
file_open(const char *path, int flags, struct err *e)
{
    sqlite3 *db = NULL;

    if (sqlite3_open_v2(path, &db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        if (db != NULL)
            file_error(db, path, e);
        else
            err_set(e, ENOMEM, "journal %s: memory is out", path);
        sqlite3_close(db);
        return NULL;
    }
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, BUSY_MS);
    sqlite3_exec(db, "PRAGMA cell_size_check = 1; PRAGMA temp_store = MEMORY", NULL, NULL, NULL);
    return db;
}

/* -1 with *e: for a schema that is not what the header says, too. */
int
file_prepare(sqlite3 *db, sqlite3_stmt **st, const char *const *sql, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (sqlite3_prepare_v3(db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &st[i], NULL)
            != SQLITE_OK)
            return file_error(db, sqlite3_db_filename(db, NULL), e);
    return 0;
}

void
file_close(sqlite3 **db, sqlite3_stmt **st, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sqlite3_finalize(st[i]);
        st[i] = NULL;
    }
    sqlite3_close(*db);
    *db = NULL;
}

/* ---- making one ----------------------------------------------------------------------------- */

char *
file_beside(const char *path, const char *suffix, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s%s", path, suffix);
    return out;
}

int
file_sync_directory(const char *path, struct err *e)
{
    char copy[PATH_MAX];
    int fd, rc;

    snprintf(copy, sizeof copy, "%s", path);
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = fd != -1 ? fsync(fd) : -1;
    if (rc == -1)
        err_set(e, errno, "journal %s: syncing its directory: %s", path, strerror(errno));
    if (fd != -1)
        close(fd);
    return rc;
}

static int
put_secret(sqlite3 *db, const uint8_t *secret)
{
    uint8_t fresh[JOURNAL_SECRET];
    sqlite3_stmt *st;
    int rc = sqlite3_prepare_v2(db, writer_sql[S_META_PUT], -1, &st, NULL);

    if (rc != SQLITE_OK)
        return rc;
    random_bytes(fresh, sizeof fresh);
    sqlite3_bind_text(st, 1, "secret", -1, SQLITE_STATIC);
    sqlite3_bind_blob(st, 2, secret != NULL ? secret : fresh, JOURNAL_SECRET, SQLITE_STATIC);
    rc = sqlite3_step(st);
    sqlite3_finalize(st);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* SQLite gives its WAL the mode of the file itself. */
static int
make_empty(const char *path, struct err *e)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd == -1)
        return err_set(e, errno, "journal: cannot make %s: %s", path, strerror(errno));
    close(fd);
    return 0;
}

sqlite3 *
file_make(const char *path, const uint8_t *secret, struct err *e)
{
    char part[PATH_MAX], wal[PATH_MAX], set_up[256];
    sqlite3 *db;

    file_beside(path, ".part", part);
    unlink(part);
    unlink(file_beside(path, ".part-wal", wal));
    if (make_empty(part, e) == -1 || (db = file_open(part, SQLITE_OPEN_READWRITE, e)) == NULL)
        return NULL;
    snprintf(set_up, sizeof set_up, "PRAGMA page_size = %d; PRAGMA application_id = %d; "
        "PRAGMA user_version = %d; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN",
        JOURNAL_PAGE, JOURNAL_APPLICATION, JOURNAL_SCHEMA);
    if (sqlite3_exec(db, set_up, NULL, NULL, NULL) == SQLITE_OK
        && sqlite3_exec(db, schema, NULL, NULL, NULL) == SQLITE_OK
        && put_secret(db, secret) == SQLITE_OK
        && sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
        return db;
    file_error(db, part, e);
    sqlite3_close(db);
    return NULL;
}

/* PATH.new, which is complete, to PATH. The WAL of what was there goes first: with the new file it
 * must never be read. */
int
file_install_left(const char *path, struct err *e)
{
    char new[PATH_MAX], old[PATH_MAX];

    if (access(file_beside(path, ".new", new), F_OK) == -1)
        return 0;
    unlink(file_beside(path, "-wal", old));
    unlink(file_beside(path, "-shm", old));
    if (rename(new, path) == -1)
        return err_set(e, errno, "journal: renaming %s: %s", new, strerror(errno));
    return file_sync_directory(path, e);
}

/* A checkpoint first: what is renamed is the file alone. */
int
file_install(const char *path, sqlite3 **db, struct err *e)
{
    char part[PATH_MAX], new[PATH_MAX];
    int rc = sqlite3_wal_checkpoint_v2(*db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);

    file_beside(path, ".part", part);
    file_beside(path, ".new", new);
    if (rc != SQLITE_OK)
        file_error(*db, part, e);
    sqlite3_close(*db);
    *db = NULL;
    if (rc != SQLITE_OK)
        return -1;
    if (rename(part, new) == -1)
        return err_set(e, errno, "journal: renaming %s: %s", part, strerror(errno));
    if (file_sync_directory(path, e) == -1)
        return -1;
    return file_install_left(path, e);
}
