/*
 * Rows as columns of SQLite, and their checksums.
 *
 * Model    every row carries the XXH3-64 of all that it says, its seq among it, so that a row that
 *          was changed, torn or moved is known for what it is whenever it is read. Content has two
 *          sums: what stays when a write is settled, and its fields and body, which are let go.
 * Threads  any; a statement belongs to one.
 */
#include "write/journal_priv.h"

#include <xxhash.h>

/* ---- checksums ------------------------------------------------------------------------------ */

uint64_t
sum_of(uint64_t seq, const struct slice *parts, size_t n)
{
    uint64_t sum = seq;

    for (size_t i = 0; i < n; i++) {
        uint64_t length = parts[i].p != NULL ? parts[i].n : UINT64_MAX;

        sum = XXH3_64bits_withSeed(&length, sizeof length, sum);
        if (parts[i].n != 0)
            sum = XXH3_64bits_withSeed(parts[i].p, parts[i].n, sum);
    }
    return sum;
}

uint64_t
row_sum(const struct write_row *r)
{
    uint64_t all[10] = { r->seq, r->c1, r->c2, r->who, (uint64_t)r->accepted_ms,
        (uint64_t)r->due_ms, (uint64_t)r->settled_ms, (uint64_t)r->route << 32 | r->attempts,
        (uint64_t)r->status << 32 | (uint64_t)r->method << 16 | (uint64_t)r->lane << 8 | r->state,
        r->orders_target };

    return XXH3_64bits(all, sizeof all);
}

/* ---- slices --------------------------------------------------------------------------------- */

struct slice
column(sqlite3_stmt *st, int i)
{
    struct slice s = { NULL, 0 };

    if (sqlite3_column_type(st, i) == SQLITE_NULL)
        return s;
    s.p = sqlite3_column_blob(st, i);   /* NULL for an empty one */
    s.n = (size_t)sqlite3_column_bytes(st, i);
    if (s.p == NULL)
        s = (struct slice){ "", 0 };
    return s;
}

/* Borrowed until the statement is stepped to its end. */
void
bind_slice(sqlite3_stmt *st, int i, struct slice s)
{
    if (s.p == NULL)
        sqlite3_bind_null(st, i);
    else
        sqlite3_bind_blob64(st, i, s.p, s.n, SQLITE_STATIC);
}

void
bind_text(sqlite3_stmt *st, int i, struct slice s)
{
    if (s.p == NULL)
        sqlite3_bind_null(st, i);
    else
        sqlite3_bind_text64(st, i, s.p, s.n, SQLITE_STATIC, SQLITE_UTF8);
}

/* ---- the thin row --------------------------------------------------------------------------- */

void
row_bind(sqlite3_stmt *st, const struct write_row *r)
{
    const int64_t all[15] = { (int64_t)r->seq, (int64_t)r->c1, (int64_t)r->c2, (int64_t)r->who,
        r->accepted_ms, r->due_ms, r->settled_ms, r->route, r->attempts, r->status, r->method,
        r->lane, r->state, r->orders_target, (int64_t)row_sum(r) };

    for (int i = 0; i < 15; i++)
        sqlite3_bind_int64(st, i + 1, all[i]);
    if (r->c2 == 0)
        sqlite3_bind_null(st, 3);
}

bool
row_get(sqlite3_stmt *st, struct write_row *r)
{
    int64_t state = sqlite3_column_int64(st, 12);

    *r = (struct write_row){
        .seq = (uint64_t)sqlite3_column_int64(st, 0),
        .c1 = (uint64_t)sqlite3_column_int64(st, 1), .c2 = (uint64_t)sqlite3_column_int64(st, 2),
        .who = (uint64_t)sqlite3_column_int64(st, 3),
        .accepted_ms = sqlite3_column_int64(st, 4), .due_ms = sqlite3_column_int64(st, 5),
        .settled_ms = sqlite3_column_int64(st, 6),
        .route = (uint32_t)sqlite3_column_int64(st, 7),
        .attempts = (uint32_t)sqlite3_column_int64(st, 8),
        .status = (uint16_t)sqlite3_column_int64(st, 9),
        .method = (uint8_t)sqlite3_column_int64(st, 10),
        .lane = (uint8_t)sqlite3_column_int64(st, 11), .state = (uint8_t)state,
        .orders_target = sqlite3_column_int64(st, 13) != 0,
    };
    return row_sum(r) == (uint64_t)sqlite3_column_int64(st, 14)
        && state >= 0 && state < WRITE_STATES && r->lane < WRITE_LANES;
}

/* Of what an UPDATE may change: ?1 seq ... ?7 sum. */
void
row_bind_progress(sqlite3_stmt *st, const struct write_row *r)
{
    const int64_t all[7] = { (int64_t)r->seq, r->due_ms, r->settled_ms, r->attempts, r->status,
        r->state, (int64_t)row_sum(r) };

    for (int i = 0; i < 7; i++)
        sqlite3_bind_int64(st, i + 1, all[i]);
}

/* ---- content and answers -------------------------------------------------------------------- */

static uint64_t
content_sum(uint64_t seq, const struct write_content *c)
{
    const struct slice parts[6] = { c->method_name, c->url, c->target, c->host, c->order_key,
        c->idempotency_key };

    return sum_of(seq, parts, NELEM(parts));
}

static uint64_t
body_sum(uint64_t seq, struct slice fields, struct slice body)
{
    const struct slice parts[2] = { fields, body };

    return sum_of(seq, parts, NELEM(parts));
}

uint64_t
content_eased_sum(uint64_t seq)
{
    return body_sum(seq, (struct slice){ 0 }, (struct slice){ 0 });
}

void
content_bind(sqlite3_stmt *st, uint64_t seq, const struct write_content *c)
{
    struct slice body = c->has_body ? c->body : (struct slice){ 0 };

    if (c->has_body && body.p == NULL)
        body.p = "";
    sqlite3_bind_int64(st, 1, (int64_t)seq);
    bind_text(st, 2, c->method_name);
    bind_text(st, 3, c->url);
    bind_text(st, 4, c->target);
    bind_text(st, 5, c->host);
    bind_text(st, 6, c->order_key);
    bind_text(st, 7, c->idempotency_key);
    bind_text(st, 8, c->fields);
    bind_slice(st, 9, body);
    sqlite3_bind_int64(st, 10, (int64_t)content_sum(seq, c));
    sqlite3_bind_int64(st, 11, (int64_t)body_sum(seq, c->fields, body));
}

/* Leaves answer_* and cause. */
bool
content_get(sqlite3_stmt *st, struct write_content *c)
{
    uint64_t seq = (uint64_t)sqlite3_column_int64(st, 0);

    c->method_name = column(st, 1);
    c->url = column(st, 2);
    c->target = column(st, 3);
    c->host = column(st, 4);
    c->order_key = column(st, 5);
    c->idempotency_key = column(st, 6);
    c->fields = column(st, 7);
    c->body = column(st, 8);
    c->has_body = c->body.p != NULL;
    return content_sum(seq, c) == (uint64_t)sqlite3_column_int64(st, 9)
        && body_sum(seq, c->fields, c->body) == (uint64_t)sqlite3_column_int64(st, 10);
}

static uint64_t
answer_sum(uint64_t seq, const struct write_content *c)
{
    const struct slice parts[3] = { c->answer_head, c->answer_body, c->cause };

    return sum_of(seq, parts, NELEM(parts));
}

void
answer_bind(sqlite3_stmt *st, uint64_t seq, const struct write_content *c)
{
    sqlite3_bind_int64(st, 1, (int64_t)seq);
    bind_text(st, 2, c->answer_head);
    bind_slice(st, 3, c->answer_body);
    bind_text(st, 4, c->cause);
    sqlite3_bind_int64(st, 5, (int64_t)answer_sum(seq, c));
}

bool
answer_get(sqlite3_stmt *st, struct write_content *c)
{
    c->answer_head = column(st, 1);
    c->answer_body = column(st, 2);
    c->cause = column(st, 3);
    return answer_sum((uint64_t)sqlite3_column_int64(st, 0), c)
        == (uint64_t)sqlite3_column_int64(st, 4);
}
