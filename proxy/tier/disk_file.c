/*
 * The disk tier's SQLite file: whose it is, its tables, its statements.
 *
 * Model    objects is thin, a row a response, so that a purge that must look at every URL reads
 *          little; content has the values (value.c), which fill overflow pages; tags leads from the
 *          hashes of an object's tags, groups, and of its URL where the key has parts behind it, to
 *          rows: another text with the same hash is purged with it.
 *          WAL, so that readers and the writer do not wait for one another; no sync at all: what
 *          the process wrote survives the process, and after a power failure the tier is emptied
 *          (disk_ring.c knows). Deleted bytes are overwritten (secure_delete), which costs little:
 *          a page that eviction frees is written anew within the same transaction.
 *          It is a cache: what is damaged is set aside, what is of another schema is removed, and a
 *          new one begun.
 */
#include "tier/disk.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define HEADER      100                 /* bytes of an SQLite file's header */
#define APPLICATION 0x57654443
#define SCHEMA      1
#define BUSY_MS     5000                /* somebody looks into the file with a tool of SQLite's */
#define WRITER_KB   8192
#define READER_KB   1024

#define STATEMENT_SQL(id, sql) sql,
static const char *const writer_sql[WRITER_N] = { WRITER_SQL(STATEMENT_SQL) };
static const char *const reader_sql[READER_N] = { READER_SQL(STATEMENT_SQL) };

static const char schema[] =
    "CREATE TABLE objects(id INTEGER PRIMARY KEY, key INTEGER, variant INTEGER, route INTEGER, "
        "at INTEGER, size INTEGER, soft INTEGER, url TEXT, tags BLOB);"
    "CREATE INDEX objects_key ON objects(key, at);"
    "CREATE TABLE content(id INTEGER PRIMARY KEY, value BLOB);"
    "CREATE TABLE tags(hash INTEGER, id INTEGER, PRIMARY KEY(hash, id)) WITHOUT ROWID;";

bool
disk_file_is_damage(int rc)
{
    return (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;
}

static int
file_error(const struct disk *d, sqlite3 *db, struct err *e)
{
    int os = sqlite3_system_errno(db);

    return err_set(e, os, "cache.disk %s: %s%s%s", d->file, sqlite3_errmsg(db),
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

static enum file_state
judge(const unsigned char *header, ssize_t n, bool ours)
{
    bool sqlite = n == HEADER && memcmp(header, "SQLite format 3", 16) == 0;

    if (n == 0)
        return FILE_NONE;               /* was not made whole */
    if (sqlite && be32_at(header, 68) == APPLICATION)
        return be32_at(header, 60) == SCHEMA ? FILE_OURS : FILE_OTHER_SCHEMA;
    if (ours && !(sqlite && be32_at(header, 68) != 0))
        return FILE_DAMAGED;
    return FILE_FOREIGN;
}

enum file_state
disk_file_look(const struct disk *d, bool ours, struct err *e)
{
    unsigned char header[HEADER];
    enum file_state state;
    int fd = open(d->file, O_RDWR | O_CLOEXEC);
    ssize_t n;

    if (fd == -1 && errno == ENOENT)
        return FILE_NONE;
    n = fd != -1 ? pread(fd, header, sizeof header, 0) : -1;
    state = n != -1 ? judge(header, n, ours) : FILE_FOREIGN;
    if (n == -1)
        err_set(e, errno, "cache.disk: cannot open %s: %s; it is to be this user's to read and "
            "write", d->file, strerror(errno));
    else if (state == FILE_FOREIGN)
        err_set(e, 0, "cache.disk: %s is another program's file, and stays as it is; give "
            "cache.disk.path a directory of its own", d->file);
    if (fd != -1)
        close(fd);
    return state;
}

/* ---- removing ------------------------------------------------------------------------------- */

static const char *const beside[] = { "-wal", "-shm", "-journal" };

static char *
with_suffix(const struct disk *d, const char *suffix, char out[PATH_MAX + 16])
{
    snprintf(out, PATH_MAX + 16, "%s%s", d->file, suffix);
    return out;
}

static void
remove_beside(const struct disk *d)
{
    char path[PATH_MAX + 16];

    for (size_t i = 0; i < NELEM(beside); i++)
        unlink(with_suffix(d, beside[i], path));
}

void
disk_file_remove(const struct disk *d)
{
    unlink(d->file);
    remove_beside(d);
}

void
disk_file_set_aside(const struct disk *d)
{
    char path[PATH_MAX + 16];

    if (rename(d->file, with_suffix(d, FILE_ASIDE, path)) == -1)
        unlink(d->file);
    remove_beside(d);
}

void
disk_file_forget_aside(const struct disk *d)
{
    char path[PATH_MAX + 16];

    unlink(with_suffix(d, FILE_ASIDE, path));
}

/* ---- opening -------------------------------------------------------------------------------- */

static int
prepare(sqlite3 *db, sqlite3_stmt **st, const char *const *sql, size_t n)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
        rc = sqlite3_prepare_v3(db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &st[i], NULL);
    return rc == SQLITE_ERROR ? SQLITE_CORRUPT : rc;    /* not the tables that its header says */
}

void
disk_file_close(sqlite3 **db, sqlite3_stmt **st, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sqlite3_finalize(st[i]);
        st[i] = NULL;
    }
    sqlite3_close(*db);
    *db = NULL;
}

static int
open_db(const struct disk *d, int flags, sqlite3 **db, struct err *e)
{
    int rc = sqlite3_open_v2(d->file, db, flags | SQLITE_OPEN_NOMUTEX, NULL);

    if (rc != SQLITE_OK) {
        if (*db != NULL)
            file_error(d, *db, e);
        else
            err_set(e, ENOMEM, "cache.disk %s: memory is out", d->file);
        sqlite3_close(*db);
        *db = NULL;
        return rc;
    }
    sqlite3_extended_result_codes(*db, 1);
    sqlite3_busy_timeout(*db, BUSY_MS);
    return sqlite3_exec(*db, "PRAGMA cell_size_check = 1; PRAGMA temp_store = MEMORY", NULL, NULL,
        NULL);
}

/* SQLite gives its WAL the mode of the file itself. What lies beside a file that is not there is
 * of an older one. */
static int
make_empty(const struct disk *d, struct err *e)
{
    int fd = open(d->file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd == -1)
        return err_set(e, errno, "cache.disk: cannot make %s: %s", d->file, strerror(errno));
    close(fd);
    remove_beside(d);
    return 0;
}

/* Whose it is, of which schema, and the tables come at once, and before there is a WAL: file_look
 * reads the file alone. */
static int
begin_file(struct disk *d)
{
    char sql[200 + sizeof schema];

    snprintf(sql, sizeof sql, "PRAGMA page_size = %d; PRAGMA synchronous = OFF; BEGIN; "
        "PRAGMA application_id = %d; PRAGMA user_version = %d; %s COMMIT", DISK_PAGE, APPLICATION,
        SCHEMA, schema);
    return sqlite3_exec(d->db, sql, NULL, NULL, NULL);
}

static int
set_up(struct disk *d, bool new)
{
    char sql[300];
    int rc = new ? begin_file(d) : SQLITE_OK;

    snprintf(sql, sizeof sql, "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; "
        "PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 0; PRAGMA max_page_count = %u; "
        "PRAGMA cache_size = -%d", d->max_pages, WRITER_KB);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(d->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? prepare(d->db, d->st, writer_sql, WRITER_N) : rc;
}

static int
on_wal(void *arg, sqlite3 *db, const char *name, int frames)
{
    struct disk *d = arg;

    (void)db;
    (void)name;
    d->wal_frames = frames;
    return SQLITE_OK;
}

int
disk_file_open_writer(struct disk *d, struct err *e)
{
    struct err ignored;
    bool new = disk_file_look(d, true, &ignored) == FILE_NONE;
    int rc;

    if (new && make_empty(d, e) == -1)
        return SQLITE_CANTOPEN;
    if ((rc = open_db(d, SQLITE_OPEN_READWRITE, &d->db, e)) != SQLITE_OK)
        return rc;
    d->wal_frames = 0;
    sqlite3_wal_hook(d->db, on_wal, d);
    if ((rc = set_up(d, new)) == SQLITE_OK) {
        sqlite3_wal_hook(d->db, on_wal, d);     /* wal_autocheckpoint = 0 took it away */
        return SQLITE_OK;
    }
    file_error(d, d->db, e);
    disk_file_close(&d->db, d->st, WRITER_N);
    return rc;
}

int
disk_file_open_reader(struct disk *d, sqlite3 **db, sqlite3_stmt **st, struct err *e)
{
    char sql[64];
    int rc = open_db(d, SQLITE_OPEN_READONLY, db, e);

    snprintf(sql, sizeof sql, "PRAGMA cache_size = -%d", READER_KB);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(*db, sql, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = prepare(*db, st, reader_sql, READER_N);
    if (rc != SQLITE_OK && *db != NULL) {
        file_error(d, *db, e);
        disk_file_close(db, st, READER_N);
    }
    return rc;
}
