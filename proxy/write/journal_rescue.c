/*
 * What can be read of a damaged journal, into a new one.
 *
 * Model    each table is read in its order; behind a page that cannot be read the next number from
 *          which on it can is searched for, and every row is believed by its checksum alone. Where
 *          something could not be read, rows that no page leads to any more are found by themselves
 *          (journal_scan.c): content as good as any, since it does not change; a row of a write
 *          only to say what a dead letter was. A write without its content, and content without its
 *          row, become dead letters in state uncertain: a person sees what there was.
 * Threads  journal_open's.
 */
#include "write/journal_priv.h"

#include "http/http.h"

#include <xxhash.h>

struct rescue {
    sqlite3        *from, *to;          /* borrowed, borrowed */
    sqlite3_stmt  **st;                 /* of `to`, borrowed */
    struct rescued *out;
    int             rc;                 /* of writing the new one: SQLITE_OK until it fails */
    bool            broken;             /* something could not be read */
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
    if (seq > r->out->max_seq && seq < (uint64_t)1 << 62)
        r->out->max_seq = seq;
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

static bool
has(struct rescue *r, const char *sql, uint64_t seq)
{
    sqlite3_stmt *st;
    bool found = false;

    if (sqlite3_prepare_v2(r->to, sql, -1, &st, NULL) == SQLITE_OK) {
        sqlite3_bind_int64(st, 1, (int64_t)seq);
        found = sqlite3_step(st) == SQLITE_ROW;
    }
    sqlite3_finalize(st);
    return found;
}

static void
on_write(struct rescue *r, sqlite3_stmt *st)
{
    struct write_row row;
    bool good = row_get(st, &row);

    note_seq(r, row.seq);
    if (good)
        put_write(r, &row);
    else
        r->broken = true;
}

static void
on_settled(struct rescue *r, sqlite3_stmt *st)
{
    struct write_row row;
    bool good = row_get(st, &row);

    note_seq(r, row.seq);
    if (good) {
        row_bind(r->st[S_SETTLED_ADD], &row);
        put(r, S_SETTLED_ADD);
    }
}

static void
on_content(struct rescue *r, sqlite3_stmt *st)
{
    struct write_content c;
    bool good = content_get(st, &c);

    note_seq(r, (uint64_t)sqlite3_column_int64(st, 0));
    if (good)
        copy_columns(r, st, S_CONTENT_ADD);
    else
        r->broken = true;
}

static void
on_answer(struct rescue *r, sqlite3_stmt *st)
{
    struct write_content c;

    if (answer_get(st, &c))
        copy_columns(r, st, S_ANSWER_PUT);
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
on_key(struct rescue *r, sqlite3_stmt *st)      /* its sum is looked at when it is used */
{
    copy_columns(r, st, S_KEY_PUT);
}

/* ---- rows that no page leads to any more ---------------------------------------------------- */

/* Columns of a row as it lies in its page, where seq is not (it is the number of the row: the last
 * one here), as the readers take them. */
#define RAW_WRITE "SELECT ?18, ifnull(?2, ?4), ifnull(?3, ?5), ?6, ?7, ?8, ?9, ?10, ?11, ?12, " \
    "?13, ?14, ?15, ?16, ?17"
#define RAW_CONTENT "SELECT ?12, ?2, ?3, ?4, ?5, ?6, ?7, ?10, ?11, ?8, ?9"
#define OF_WRITE   17
#define OF_CONTENT 11

/* What became of it since, nobody knows. */
static void
on_raw_write(struct rescue *r, sqlite3_stmt *st)
{
    struct write_row row;

    if (!row_get(st, &row) || has(r, "SELECT 1 FROM writes WHERE seq = ?1", row.seq)
        || has(r, "SELECT 1 FROM settled WHERE seq = ?1", row.seq)
        || !has(r, "SELECT 1 FROM content WHERE seq = ?1 AND fields IS NOT NULL", row.seq))
        return;
    note_seq(r, row.seq);
    row.state = WRITE_UNCERTAIN;
    row.settled_ms = wall_ms();
    put_write(r, &row);
    put_cause(r, row.seq, "what became of it is lost with a part of the journal");
}

static void
on_raw_content(struct rescue *r, sqlite3_stmt *st)
{
    uint64_t seq = (uint64_t)sqlite3_column_int64(st, 0);
    struct write_content c;

    if (!content_get(st, &c) || has(r, "SELECT 1 FROM content WHERE seq = ?1", seq))
        return;
    note_seq(r, seq);
    copy_columns(r, st, S_CONTENT_ADD);
}

struct raw { struct rescue *r; sqlite3_stmt *st; unsigned columns; rescue_row *row; };

static void
on_raw(void *arg, uint64_t rowid, const struct scan_column *columns, unsigned n)
{
    struct raw *raw = arg;

    if (n != raw->columns || rowid == 0 || rowid >= (uint64_t)1 << 62)
        return;
    for (unsigned i = 0; i < n; i++) {
        int at = (int)i + 1;

        if (columns[i].type == SQLITE_INTEGER)
            sqlite3_bind_int64(raw->st, at, columns[i].integer);
        else if (columns[i].type == SQLITE_NULL)
            sqlite3_bind_null(raw->st, at);
        else if (columns[i].type == SQLITE_TEXT)
            bind_text(raw->st, at, columns[i].bytes);
        else
            bind_slice(raw->st, at, columns[i].bytes);
    }
    sqlite3_bind_int64(raw->st, (int)n + 1, (int64_t)rowid);
    if (sqlite3_step(raw->st) == SQLITE_ROW)
        raw->row(raw->r, raw->st);
    sqlite3_reset(raw->st);
}

static void
scan(struct rescue *r, const char *path, const char *sql, unsigned columns, rescue_row *row)
{
    struct raw raw = { r, NULL, columns, row };

    if (sqlite3_prepare_v2(r->to, sql, -1, &raw.st, NULL) == SQLITE_OK)
        journal_scan(path, on_raw, &raw);
    sqlite3_finalize(raw.st);
}

/* ---- rows without their other half ---------------------------------------------------------- */

static bool
first_after(struct rescue *r, const char *sql, uint64_t seq, rescue_row *row, uint64_t *at)
{
    sqlite3_stmt *st;
    bool found = false;

    if (sqlite3_prepare_v2(r->to, sql, -1, &st, NULL) == SQLITE_OK) {
        sqlite3_bind_int64(st, 1, (int64_t)seq);
        found = sqlite3_step(st) == SQLITE_ROW;
        if (found) {
            *at = (uint64_t)sqlite3_column_int64(st, 0);
            row(r, st);
        }
    }
    sqlite3_finalize(st);
    return found;
}

static void
on_empty(struct rescue *r, sqlite3_stmt *st)
{
    struct write_row row;

    row_get(st, &row);
    row.state = WRITE_UNCERTAIN;
    row.settled_ms = wall_ms();
    row_bind_progress(r->st[S_WRITE_DIE], &row);
    put(r, S_WRITE_DIE);
    put_cause(r, row.seq, "its content in the journal was damaged");
}

static void
on_orphan(struct rescue *r, sqlite3_stmt *st)
{
    struct write_row row = { .seq = (uint64_t)sqlite3_column_int64(st, 0),
        .state = WRITE_UNCERTAIN, .lane = WRITE_LANE_DEFAULT, .orders_target = true,
        .settled_ms = wall_ms() };
    struct write_content c;

    content_get(st, &c);
    row.c1 = XXH3_64bits(c.url.p, c.url.n);     /* what it was known by is lost */
    row.method = (uint8_t)http_method(c.method_name);
    put_write(r, &row);
    put_cause(r, row.seq, "its row in the journal was damaged");
}

/* Both become dead letters. Content that was let go, of a row that is lost, goes too. */
static void
match_halves(struct rescue *r)
{
    uint64_t at = 0;

    while (r->rc == SQLITE_OK && first_after(r, "SELECT " ROW_OF_WRITES " FROM writes WHERE "
            "seq > ?1 AND c1 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM content "
            "WHERE content.seq = writes.seq) ORDER BY seq LIMIT 1", at, on_empty, &at))
        continue;
    at = 0;
    while (r->rc == SQLITE_OK && first_after(r, "SELECT " CONTENT " FROM content WHERE "
            "seq > ?1 AND fields IS NOT NULL AND NOT EXISTS (SELECT 1 FROM writes "
            "WHERE writes.seq = content.seq) AND NOT EXISTS (SELECT 1 FROM settled "
            "WHERE settled.seq = content.seq) ORDER BY seq LIMIT 1", at, on_orphan, &at))
        continue;
    done(r, sqlite3_exec(r->to, "DELETE FROM content WHERE NOT EXISTS (SELECT 1 FROM writes "
        "WHERE writes.seq = content.seq) AND NOT EXISTS (SELECT 1 FROM settled "
        "WHERE settled.seq = content.seq)", NULL, NULL, NULL));
}

static uint64_t
count(struct rescue *r, const char *sql)
{
    sqlite3_stmt *st;
    uint64_t n = 0;

    if (sqlite3_prepare_v2(r->to, sql, -1, &st, NULL) == SQLITE_OK
        && sqlite3_step(st) == SQLITE_ROW)
        n = (uint64_t)sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return n;
}

/* ---- all of it ------------------------------------------------------------------------------ */

int
journal_rescue(const char *path, sqlite3 *from, sqlite3 *to, sqlite3_stmt **st,
    struct rescued *out)
{
    struct rescue it = { .from = from, .to = to, .st = st, .out = out }, *r = &it;

    rescue_table(r, "SELECT number, name FROM routes WHERE number > ?1 ORDER BY number", on_route);
    rescue_ends(r, "SELECT name FROM paused ORDER BY name",
        "SELECT name FROM paused ORDER BY name DESC", on_paused);
    rescue_table(r, "SELECT " ROW_OF_WRITES " FROM writes WHERE seq > ?1 ORDER BY seq", on_write);
    rescue_table(r, "SELECT " ROW " FROM settled WHERE seq > ?1 ORDER BY seq", on_settled);
    rescue_table(r, "SELECT " CONTENT " FROM content WHERE seq > ?1 ORDER BY seq", on_content);
    rescue_table(r, "SELECT seq, head, body, cause, sum FROM answers WHERE seq > ?1 ORDER BY seq",
        on_answer);
    rescue_ends(r, "SELECT " KEY " FROM keys ORDER BY h",
        "SELECT " KEY " FROM keys ORDER BY h DESC", on_key);
    if (r->broken) {                    /* content first: a row without it is not wanted */
        scan(r, path, RAW_CONTENT, OF_CONTENT, on_raw_content);
        scan(r, path, RAW_WRITE, OF_WRITE, on_raw_write);
    }
    match_halves(r);
    out->saved = count(r, "SELECT count(*) FROM writes");
    out->uncertain = count(r, "SELECT count(*) FROM writes WHERE state = 8");
    out->keys = count(r, "SELECT count(*) FROM keys");
    return r->rc;
}
