/*
 * What is read of the journal when it is opened.
 *
 * Model    everything that scheduling needs is read whole and checked: the thin rows by their sums,
 *          their indexes against them (a row that its index lacks would wait for ever, so indexes
 *          that differ are made anew), the names, the sizes of the keys. A million pending rows
 *          take well under a second. What a write carries is checked when it is read for delivery.
 *          Only when all of it was readable is anybody told of a row.
 * Threads  journal_open's; the journal's own threads do not run yet.
 */
#include "write/journal_priv.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- one statement, row by row -------------------------------------------------------------- */

struct reading {
    struct journal *j;
    const struct journal_found *found;  /* NULL: checks alone */
    uint64_t  sums[3];                  /* of the entries that the indexes must have */
    uint64_t  max_seq;
    uint64_t *bad;                      /* owned: damaged rows */
    size_t    nbad, cap;
    bool      secret, marked;
};

static int
each_row(struct reading *r, const char *sql, int (*row)(struct reading *r, sqlite3_stmt *st))
{
    sqlite3_stmt *st;
    int rc = sqlite3_prepare_v2(r->j->db, sql, -1, &st, NULL);

    if (rc != SQLITE_OK)
        return rc == SQLITE_ERROR ? SQLITE_CORRUPT : rc;    /* not our tables */
    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        if ((rc = row(r, st)) != SQLITE_OK)
            break;
    sqlite3_finalize(st);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* ---- meta and names ------------------------------------------------------------------------- */

static int
on_meta(struct reading *r, sqlite3_stmt *st)
{
    struct slice name = column(st, 0), value = column(st, 1);

    if (slice_eq(name, SLICE("secret")) && value.n == JOURNAL_SECRET) {
        memcpy(r->j->secret, value.p, JOURNAL_SECRET);
        r->secret = true;
    } else if (slice_eq(name, SLICE("run"))) {
        r->j->run = sqlite3_column_int64(st, 1);
    } else if (slice_eq(name, SLICE("reserved"))) {
        r->j->reserved_seq = (uint64_t)sqlite3_column_int64(st, 1);
    } else if (slice_eq(name, SLICE("shared"))) {
        r->j->shared_upto = (uint64_t)sqlite3_column_int64(st, 1);
    } else if (slice_eq(name, SLICE("damaged"))) {
        r->marked = true;
    }
    return SQLITE_OK;
}

#define ROUTES_MAX (1 << 24)            /* that a number may say: beyond, it is damaged */

static int
on_route(struct reading *r, sqlite3_stmt *st)
{
    int64_t number = sqlite3_column_int64(st, 0);
    struct slice name = column(st, 1);

    if (number < 1 || number > ROUTES_MAX || name.p == NULL)
        return SQLITE_CORRUPT;
    return names_put(&r->j->routes, (size_t)number - 1, name) ? SQLITE_OK : SQLITE_NOMEM;
}

static int
on_paused(struct reading *r, sqlite3_stmt *st)
{
    struct slice name = column(st, 0);

    if (name.p == NULL)
        return SQLITE_CORRUPT;
    return names_put(&r->j->paused, r->j->paused.n, name) ? SQLITE_OK : SQLITE_NOMEM;
}

/* ---- rows and their indexes ----------------------------------------------------------------- */

static uint64_t
entry_sum(uint64_t hash, uint64_t seq)  /* sums of these tell sets apart */
{
    uint64_t x = (hash ^ seq * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;

    return (x ^ x >> 32) * 0xc4ceb9fe1a85ec53u;
}

static int
note_bad(struct reading *r, uint64_t seq)
{
    if (r->nbad == r->cap) {
        size_t cap = r->cap != 0 ? 2 * r->cap : 64;
        uint64_t *grown = realloc(r->bad, cap * sizeof *grown);

        if (grown == NULL)
            return SQLITE_NOMEM;
        r->bad = grown;
        r->cap = cap;
    }
    r->bad[r->nbad++] = seq;
    return SQLITE_OK;
}

/* Columns 15.. : the indexed ones as they are. */
static int
on_write(struct reading *r, sqlite3_stmt *st)
{
    struct write_row row;
    bool good = row_get(st, &row);

    if (sqlite3_column_type(st, 15) != SQLITE_NULL)
        r->sums[0] += entry_sum((uint64_t)sqlite3_column_int64(st, 15), row.seq);
    if (sqlite3_column_type(st, 16) != SQLITE_NULL)
        r->sums[1] += entry_sum((uint64_t)sqlite3_column_int64(st, 16), row.seq);
    if (sqlite3_column_type(st, 17) != SQLITE_NULL)
        r->sums[2] += entry_sum(0, row.seq);
    if (row.seq > r->max_seq)
        r->max_seq = row.seq;
    return good ? SQLITE_OK : note_bad(r, row.seq);
}

static int
on_found(struct reading *r, sqlite3_stmt *st)
{
    struct write_row row;

    row_get(st, &row);                  /* the bad ones are condemned by now */
    if (write_is_pending(row.state)) {
        if (r->j->now.pending++ == 0)
            r->j->now.oldest_seq = row.seq;
        if (r->found != NULL)
            r->found->row(r->found->arg, &row);
    } else {
        r->j->now.dead++;
    }
    return SQLITE_OK;
}

struct index_reading { struct reading r; uint64_t sum; int64_t a, b; bool disorder, any; };

static int
on_entry(struct reading *r, sqlite3_stmt *st)
{
    struct index_reading *x = CONTAINER(r, struct index_reading, r);
    int64_t a = sqlite3_column_int64(st, 0), b = sqlite3_column_int64(st, 1);

    x->disorder |= x->any && (a < x->a || (a == x->a && b <= x->b));
    x->any = true;
    x->a = a;
    x->b = b;
    x->sum += entry_sum((uint64_t)a, (uint64_t)b);
    return SQLITE_OK;
}

static int
check_indexes(struct reading *r)
{
    static const char *const sql[3] = {
        "SELECT c1, seq FROM writes INDEXED BY writes_c1 WHERE c1 IS NOT NULL ORDER BY c1, seq",
        "SELECT c2, seq FROM writes INDEXED BY writes_c2 WHERE c2 IS NOT NULL ORDER BY c2, seq",
        "SELECT 0, seq FROM writes INDEXED BY writes_dead WHERE dead1 IS NOT NULL ORDER BY seq",
    };
    bool good = true;

    for (size_t i = 0; i < NELEM(sql); i++) {
        struct index_reading x = { .r = { .j = r->j } };
        int rc = each_row(&x.r, sql[i], on_entry);

        if (rc != SQLITE_OK && !is_damage(rc))
            return rc;
        good &= rc == SQLITE_OK && !x.disorder && x.sum == r->sums[i];
    }
    if (good)
        return SQLITE_OK;
    log_warn("journal %s: an index was damaged, and is made anew", r->j->path);
    return sqlite3_exec(r->j->db, "REINDEX writes", NULL, NULL, NULL);
}

/* ---- all of it ------------------------------------------------------------------------------ */

static int
on_key_bytes(struct reading *r, sqlite3_stmt *st)
{
    r->j->now.key_bytes = sqlite3_column_int64(st, 0);
    return SQLITE_OK;
}

static int
on_max(struct reading *r, sqlite3_stmt *st)
{
    uint64_t max = (uint64_t)sqlite3_column_int64(st, 0);

    if (max > r->max_seq)
        r->max_seq = max;
    return SQLITE_OK;
}

static int
read_all(struct reading *r)
{
    static const struct { const char *sql; int (*row)(struct reading *, sqlite3_stmt *); } all[] = {
        { "SELECT name, value FROM meta", on_meta },
        { "SELECT number, name FROM routes", on_route },
        { "SELECT name FROM paused", on_paused },
        { "SELECT " ROW_OF_WRITES ", c1, c2, dead1 FROM writes", on_write },
        { "SELECT max(seq) FROM settled", on_max },
        { "SELECT max(seq) FROM content", on_max },
        { "SELECT ifnull(sum(bytes), 0) FROM keys INDEXED BY keys_when", on_key_bytes },
    };
    int rc;

    for (size_t i = 0; i < NELEM(all); i++)
        if ((rc = each_row(r, all[i].sql, all[i].row)) != SQLITE_OK)
            return rc;
    if (!r->secret || r->marked)
        return SQLITE_CORRUPT;
    return check_indexes(r);
}

/* This opening has a number of its own, and numbers of rows to give, durably. On a full disk it has
 * them with the first transaction that finds room. */
static int
begin_run(struct reading *r)
{
    struct journal *j = r->j;
    int rc = journal_begin(j, true);

    j->run++;
    j->next_seq = j->reserved_seq > r->max_seq ? j->reserved_seq : r->max_seq + 1;
    if (rc == SQLITE_OK)
        rc = journal_reserve(j);
    for (size_t i = 0; rc == SQLITE_OK && i < r->nbad; i++) {
        struct journal_op op = { .row.seq = r->bad[i],
            .why = "its row in the journal was damaged" };

        rc = row_condemn(j, &op);
    }
    if (rc == SQLITE_OK)
        rc = journal_commit(j);
    else
        journal_roll_back(j);
    if (rc == SQLITE_FULL) {
        log_error("journal %s: its disk is full; nothing is accepted until there is room", j->path);
        rc = SQLITE_OK;
    }
    if (r->nbad != 0)
        log_error("journal %s: %zu damaged rows; their writes are uncertain", j->path, r->nbad);
    return rc;
}

int
journal_load(struct journal *j, const struct journal_found *found)
{
    struct reading r = { .j = j };
    int rc;

    names_clear(&j->routes);
    names_clear(&j->paused);
    j->now = (struct journal_counts){ 0 };
    rc = read_all(&r);
    j->now.routes_stored = j->routes.n;
    if (rc == SQLITE_OK)
        rc = begin_run(&r);
    free(r.bad);
    j->now.pending = j->now.dead = 0;
    r.found = found;
    if (rc == SQLITE_OK)
        rc = each_row(&r, "SELECT " ROW_OF_WRITES " FROM writes ORDER BY seq", on_found);
    return rc;
}
