/*
 * A damaged journal: set aside under another name, and what can be read of it taken over.
 *
 * Model    the file and its WAL get second names, PATH.damaged-TIME, under which they stay as they
 *          are. A new journal is filled row by row from there: behind a page that cannot be read
 *          the next one that can is searched for, and every row is believed by its checksum alone.
 *          Only when the new one is complete does it take the old one's place, so that a crash
 *          meanwhile begins anew. A write whose content is lost, and content whose row is lost,
 *          become dead letters in state uncertain: a person sees what there was.
 * A WAL    whose tail is damaged is no error to SQLite: it believes frames up to the first one
 *          whose checksum is wrong, which is what a crash leaves. Should a disk spoil what it had
 *          said to be written, the writes of the frames behind are lost, acknowledged or not.
 * Threads  journal_open's.
 */
#include "write/journal_priv.h"

#include "http/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define SKIP ((uint64_t)1 << 20)        /* numbers left out, where those given are not known */

struct rescue {
    sqlite3      *from, *to;            /* owned, owned */
    sqlite3_stmt *st[WRITER_N];         /* of `to` */
    uint64_t      max_seq, saved, uncertain, keys;
    int           rc;                   /* of writing the new one: SQLITE_OK until it fails */
    bool          broken;               /* something could not be read */
};

/* ---- reading around damage ------------------------------------------------------------------ */

typedef void rescue_row(struct rescue *r, sqlite3_stmt *st);

/* Are the pages readable that lead to the first row after `seq`? */
static bool
readable(sqlite3_stmt *st, uint64_t seq)
{
    int rc;

    sqlite3_bind_int64(st, 1, (int64_t)seq);
    rc = sqlite3_step(st);
    sqlite3_reset(st);
    return rc == SQLITE_ROW || rc == SQLITE_DONE;
}

/* The least number from which on it can be read, above `seq`, from which on it cannot. */
static uint64_t
next_readable(sqlite3_stmt *st, uint64_t seq)
{
    uint64_t low = 0, high = 1;

    while (high < (uint64_t)1 << 62 && !readable(st, seq + high)) {
        low = high;
        high *= 2;
    }
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;

        if (readable(st, seq + middle))
            high = middle;
        else
            low = middle;
    }
    return seq + high;
}

/* sql: rows after ?1 in order of their number, which is its first column. */
static void
rescue_table(struct rescue *r, const char *sql, rescue_row *row)
{
    uint64_t last = 0;
    sqlite3_stmt *st;
    int rc;

    if (sqlite3_prepare_v2(r->from, sql, -1, &st, NULL) != SQLITE_OK) {
        r->broken = true;
        return;
    }
    do {
        sqlite3_bind_int64(st, 1, (int64_t)last);
        while ((rc = sqlite3_step(st)) == SQLITE_ROW && r->rc == SQLITE_OK) {
            last = (uint64_t)sqlite3_column_int64(st, 0);
            row(r, st);
        }
        sqlite3_reset(st);
        if (rc != SQLITE_DONE && r->rc == SQLITE_OK) {
            r->broken = true;
            last = next_readable(st, last);
        }
    } while (rc != SQLITE_DONE && r->rc == SQLITE_OK && last < (uint64_t)1 << 62);
    sqlite3_finalize(st);
}

/* From both ends, for what has no number. */
static void
rescue_ends(struct rescue *r, const char *ascending, const char *descending, rescue_row *row)
{
    const char *const sql[2] = { ascending, descending };
    int rc = SQLITE_ERROR;

    for (size_t i = 0; i < NELEM(sql) && rc != SQLITE_DONE; i++) {
        sqlite3_stmt *st;

        if (sqlite3_prepare_v2(r->from, sql[i], -1, &st, NULL) == SQLITE_OK)
            while ((rc = sqlite3_step(st)) == SQLITE_ROW && r->rc == SQLITE_OK)
                row(r, st);
        sqlite3_finalize(st);
        r->broken |= rc != SQLITE_DONE;
    }
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void
done(struct rescue *r, int rc)
{
    if (rc != SQLITE_OK && r->rc == SQLITE_OK)
        r->rc = rc;
}

static void
put(struct rescue *r, int statement)
{
    done(r, step(r->st[statement]));
}

static void
note_seq(struct rescue *r, uint64_t seq)
{
    if (seq > r->max_seq && seq < (uint64_t)1 << 62)
        r->max_seq = seq;
}

/* Columns as they are, for tables whose rows are checked by the caller. */
static void
copy_columns(struct rescue *r, sqlite3_stmt *st, int statement)
{
    for (int i = 0; i < sqlite3_column_count(st); i++)
        sqlite3_bind_value(r->st[statement], i + 1, sqlite3_column_value(st, i));
    put(r, statement);
}

static void
put_cause(struct rescue *r, uint64_t seq, const char *cause)
{
    const struct write_content c = { .cause = slice_of(cause) };

    answer_bind(r->st[S_ANSWER_PUT], seq, &c);
    put(r, S_ANSWER_PUT);
}

/* A dead letter is added to its chain and leaves it, as it did when it died. */
static void
put_write(struct rescue *r, const struct write_row *row)
{
    row_bind(r->st[S_WRITE_ADD], row);
    put(r, S_WRITE_ADD);
    if (write_is_dead(row->state)) {
        row_bind_progress(r->st[S_WRITE_DIE], row);
        put(r, S_WRITE_DIE);
    }
}

/* Into `to`; false: it is lost. */
static bool
copy_content(struct rescue *r, uint64_t seq)
{
    struct write_content c;
    sqlite3_stmt *st;
    bool good = false;

    if (sqlite3_prepare_v2(r->from, "SELECT " CONTENT " FROM content WHERE seq = ?1", -1, &st,
            NULL) == SQLITE_OK) {
        sqlite3_bind_int64(st, 1, (int64_t)seq);
        good = sqlite3_step(st) == SQLITE_ROW && content_get(st, &c);
        if (good)
            copy_columns(r, st, S_CONTENT_ADD);
    }
    sqlite3_finalize(st);
    return good;
}

static void
on_write(struct rescue *r, sqlite3_stmt *st)
{
    struct write_row row;
    bool good = row_get(st, &row);

    note_seq(r, row.seq);
    if (!good) {                        /* its content may make a dead letter */
        r->broken = true;
        return;
    }
    if (!copy_content(r, row.seq)) {
        r->broken = true;
        r->uncertain++;
        row.state = WRITE_UNCERTAIN;
        put_cause(r, row.seq, "its content in the journal was damaged");
    }
    r->saved++;
    put_write(r, &row);
}

static void
on_settled(struct rescue *r, sqlite3_stmt *st)
{
    struct write_row row;
    bool good = row_get(st, &row);

    note_seq(r, row.seq);
    if (!good)
        return;
    row_bind(r->st[S_SETTLED_ADD], &row);
    put(r, S_SETTLED_ADD);
    copy_content(r, row.seq);
}

static bool
has(sqlite3 *db, const char *sql, uint64_t seq)
{
    sqlite3_stmt *st;
    bool found = false;

    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK) {
        sqlite3_bind_int64(st, 1, (int64_t)seq);
        found = sqlite3_step(st) == SQLITE_ROW;
    }
    sqlite3_finalize(st);
    return found;
}

static void
on_answer(struct rescue *r, sqlite3_stmt *st)
{
    struct write_content c;

    if (answer_get(st, &c) && !has(r->to, "SELECT 1 FROM answers WHERE seq = ?1",
            (uint64_t)sqlite3_column_int64(st, 0)))
        copy_columns(r, st, S_ANSWER_PUT);
}

/* Content that was not let go, and no row that says what became of it. */
static void
on_content(struct rescue *r, sqlite3_stmt *st)
{
    struct write_row row = { .seq = (uint64_t)sqlite3_column_int64(st, 0),
        .state = WRITE_UNCERTAIN, .lane = WRITE_LANE_DEFAULT, .orders_target = true,
        .settled_ms = wall_ms() };
    struct write_content c;

    note_seq(r, row.seq);
    if (!content_get(st, &c) || c.fields.p == NULL
        || has(r->to, "SELECT 1 FROM content WHERE seq = ?1", row.seq))
        return;
    row.c1 = XXH3_64bits(c.url.p, c.url.n);     /* what it was known by is lost */
    row.method = (uint8_t)http_method(c.method_name);
    r->saved++;
    r->uncertain++;
    put_write(r, &row);
    copy_columns(r, st, S_CONTENT_ADD);
    put_cause(r, row.seq, "its row in the journal was damaged");
}

static void
on_route(struct rescue *r, sqlite3_stmt *st)
{
    copy_columns(r, st, S_ROUTE_ADD);
}

static void
on_paused(struct rescue *r, sqlite3_stmt *st)
{
    copy_columns(r, st, S_PAUSE_ON);
}

static void
on_key(struct rescue *r, sqlite3_stmt *st)
{
    r->keys++;                          /* its sum is looked at when it is used */
    copy_columns(r, st, S_KEY_PUT);
}

/* ---- all of it ------------------------------------------------------------------------------ */

static void
take_over(struct rescue *r)
{
    rescue_table(r, "SELECT number, name FROM routes WHERE number > ?1 ORDER BY number", on_route);
    rescue_ends(r, "SELECT name FROM paused ORDER BY name",
        "SELECT name FROM paused ORDER BY name DESC", on_paused);
    rescue_table(r, "SELECT " ROW_OF_WRITES " FROM writes WHERE seq > ?1 ORDER BY seq", on_write);
    rescue_table(r, "SELECT " ROW " FROM settled WHERE seq > ?1 ORDER BY seq",
        on_settled);
    rescue_table(r, "SELECT " CONTENT " FROM content WHERE seq > ?1 ORDER BY seq", on_content);
    rescue_table(r, "SELECT seq, head, body, cause, sum FROM answers WHERE seq > ?1 ORDER BY seq",
        on_answer);
    rescue_ends(r, "SELECT " KEY " FROM keys ORDER BY h",
        "SELECT " KEY " FROM keys ORDER BY h DESC", on_key);
}

/* SQLITE_OK with *value where there is one. */
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

static void
put_meta(struct rescue *r, const char *name, int64_t value)
{
    bind_text(r->st[S_META_PUT], 1, slice_of(name));
    sqlite3_bind_int64(r->st[S_META_PUT], 2, value);
    put(r, S_META_PUT);
}

/* Numbers that were given must not be given again, and claims of former runs are of former runs. */
static void
put_counters(struct rescue *r)
{
    int64_t reserved = 0, run = 0;

    meta_of(r->from, "reserved", NULL, 0, &reserved);
    if (!meta_of(r->from, "run", NULL, 0, &run))
        run = wall_ms();
    if (reserved < 0 || (uint64_t)reserved < r->max_seq + 1)
        reserved = (int64_t)(r->max_seq + SKIP);
    put_meta(r, "reserved", reserved);
    put_meta(r, "run", run);
}

static int
rescue_into_new(struct rescue *r, const char *path, bool *same_ids, struct err *e)
{
    uint8_t secret[JOURNAL_SECRET];
    int64_t number;

    *same_ids = meta_of(r->from, "secret", secret, sizeof secret, &number);
    r->to = file_make(path, *same_ids ? secret : NULL, e);
    if (r->to == NULL)
        return -1;
    if (file_prepare(r->to, r->st, writer_sql, WRITER_N, e) == -1)
        goto fail;
    put(r, S_BEGIN);
    if (r->from != NULL)
        take_over(r);
    put_counters(r);
    put(r, S_COMMIT);
    if (r->rc == SQLITE_OK) {
        for (size_t i = 0; i < WRITER_N; i++)
            sqlite3_finalize(r->st[i]);
        return file_install(path, &r->to, e);
    }
    file_error(r->to, path, e);
fail:
    file_close(&r->to, r->st, WRITER_N);
    return -1;
}

/* A second name; nothing where there is nothing. */
static int
link_to(const char *path, const char *aside, const char *suffix, struct err *e)
{
    char from[PATH_MAX], to[PATH_MAX];

    snprintf(from, sizeof from, "%s%s", path, suffix);
    snprintf(to, sizeof to, "%s%s", aside, suffix);
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

int
journal_set_aside(const char *path, const char *why, struct err *e)
{
    struct rescue r = { 0 };
    char aside[PATH_MAX], reason[sizeof e->text];
    bool same_ids;
    int rc;

    snprintf(reason, sizeof reason, "%s", why);
    if (name_aside(path, aside, e) == -1)
        return -1;
    r.from = file_open(aside, SQLITE_OPEN_READWRITE, e);
    if (r.from != NULL)
        sqlite3_db_config(r.from, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    rc = rescue_into_new(&r, path, &same_ids, e);
    sqlite3_close(r.from);
    if (rc == 0)
        log_error("journal %s: it was damaged (%s) and is set aside as %s; a new one holds the "
            "%llu writes (%llu of them uncertain) and %llu idempotency keys that could be read%s%s",
            path, reason, aside, (unsigned long long)r.saved, (unsigned long long)r.uncertain,
            (unsigned long long)r.keys, "; others may be lost",
            same_ids ? "" : ", and ids given before are not known any more");
    return rc;
}
