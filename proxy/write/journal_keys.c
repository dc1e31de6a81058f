/*
 * Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07).
 *
 * Model    a key is known by a keyed hash of itself, its target and the credentials, and belongs to
 *          a write of the journal, or to a claim: a request that goes straight to the origin. A
 *          claim is open until its answer is entered; one that was open when the process ended, or
 *          whose end says so, has an unknown fate. A key is looked up and entered in one
 *          transaction, so of two the second sees the first; one that the same transaction entered
 *          is being accepted still (2.6). Keys stay for their time, whatever becomes of their
 *          write; when there is no room for another, no new one is taken.
 * Threads  the journal thread.
 */
#include "write/journal_priv.h"

#include <stdlib.h>

#define AT_ONCE   256

/* ---- rows ----------------------------------------------------------------------------------- */

static uint64_t
key_sum(const struct key_row *k)
{
    const int64_t numbers[5] = { k->run, k->expires_ms, k->bytes, k->status, k->state };
    const struct slice parts[5] = { k->h, k->fingerprint, k->head, k->body,
        { (const char *)numbers, sizeof numbers } };

    return sum_of(k->seq, parts, NELEM(parts));
}

bool
key_column(sqlite3_stmt *st, struct key_row *k)
{
    *k = (struct key_row){ .h = column(st, 0), .fingerprint = column(st, 1),
        .seq = (uint64_t)sqlite3_column_int64(st, 2), .run = sqlite3_column_int64(st, 3),
        .state = (enum key_state)sqlite3_column_int(st, 4),
        .expires_ms = sqlite3_column_int64(st, 5), .status = (unsigned)sqlite3_column_int(st, 6),
        .head = column(st, 7), .body = column(st, 8), .bytes = sqlite3_column_int64(st, 9) };
    return key_sum(k) == (uint64_t)sqlite3_column_int64(st, 10);
}

void
key_bind(sqlite3_stmt *st, const struct key_row *k)
{
    bind_slice(st, 1, k->h);
    bind_slice(st, 2, k->fingerprint);
    sqlite3_bind_int64(st, 3, (int64_t)k->seq);
    sqlite3_bind_int64(st, 4, k->run);
    sqlite3_bind_int(st, 5, (int)k->state);
    sqlite3_bind_int64(st, 6, k->expires_ms);
    sqlite3_bind_int(st, 7, (int)k->status);
    bind_text(st, 8, k->head);
    bind_slice(st, 9, k->body);
    sqlite3_bind_int64(st, 10, k->bytes);
    sqlite3_bind_int64(st, 11, (int64_t)key_sum(k));
}

/* SQLITE_ROW: *k is valid until KEY_GET is reset; SQLITE_DONE: there is none. */
static int
key_get(struct journal *j, const struct journal_op *op, struct key_row *k, bool *good)
{
    sqlite3_stmt *st = j->st[S_KEY_GET];
    int rc;

    sqlite3_bind_blob(st, 1, op->key_hash, sizeof op->key_hash, SQLITE_STATIC);
    rc = sqlite3_step(st);
    if (rc != SQLITE_ROW)
        return rc;
    *good = key_column(st, k);
    return rc;
}

static int
key_put(struct journal *j, const struct key_row *k, int64_t bytes_before)
{
    sqlite3_stmt *st = j->st[S_KEY_PUT];

    key_bind(st, k);
    j->now.key_bytes += k->bytes - bytes_before;
    return step(st);
}

static int
key_drop(struct journal *j, struct slice h, int64_t bytes)
{
    bind_slice(j->st[S_KEY_DROP], 1, h);
    j->now.key_bytes -= bytes;
    return step(j->st[S_KEY_DROP]);
}

static struct slice
bytes_of(const uint8_t (*sixteen)[16])
{
    return (struct slice){ (const char *)*sixteen, sizeof *sixteen };
}

/* ---- a key that is there -------------------------------------------------------------------- */

/* The first answer, in memory of the operation's own. */
static void
reply_with(struct journal_op *op, const struct key_row *k)
{
    struct write_content *c = &op->content;

    op->reply = malloc(k->head.n + k->body.n + 1);
    if (op->reply == NULL) {
        op->result = JOURNAL_BUSY;
        op->why = "memory is out";
        return;
    }
    op->result = JOURNAL_REPEATED;
    op->row.status = (uint16_t)k->status;
    op->row.seq = k->seq;
    c->answer_head = (struct slice){ op->reply, k->head.n };
    c->answer_body = (struct slice){ k->body.p != NULL ? op->reply + k->head.n : NULL, k->body.n };
    if (k->head.n != 0)
        memcpy(op->reply, k->head.p, k->head.n);
    if (k->body.n != 0)
        memcpy(op->reply + k->head.n, k->body.p, k->body.n);
}

static void
say_busy(struct journal_op *op, const char *why)
{
    op->result = JOURNAL_BUSY;
    op->why = why;
}

/* Sets op->result. DONE: it may be taken again. */
static void
judge(struct journal *j, struct journal_op *op, const struct key_row *k, bool good)
{
    op->result = JOURNAL_DONE;
    if (!good)
        say_busy(op, "what is known of the key was damaged");
    else if (k->expires_ms <= j->now_ms)
        return;
    else if (!slice_eq(k->fingerprint, bytes_of(&op->fingerprint)))
        op->result = JOURNAL_MISMATCH;
    else if (k->seq >= j->batch_seq)
        say_busy(op, "the first request with this key is being accepted");
    else if (k->state == KEY_WRITE) {
        op->result = JOURNAL_REPEATED;
        op->first_seq = k->seq;
    } else if (k->state == KEY_ANSWERED)
        reply_with(op, k);
    else if (k->state == KEY_OPEN && k->run == j->run)
        say_busy(op, "the first request with this key is at the origin");
    else if (!op->promised)
        say_busy(op, "whether the origin has done the first request with this key is unknown");
}

/* ---- operations ----------------------------------------------------------------------------- */

static bool
fits(const struct journal *j, int64_t bytes)
{
    return j->now.key_bytes + bytes <= j->lim.idempotency_size;
}

static int
enter(struct journal *j, struct journal_op *op, uint64_t seq)
{
    const struct key_row k = { .h = bytes_of(&op->key_hash),
        .fingerprint = bytes_of(&op->fingerprint), .seq = seq, .run = j->run,
        .state = op->kind == JOURNAL_ACCEPT ? KEY_WRITE : KEY_OPEN,
        .expires_ms = j->now_ms + op->key_for_ms, .bytes = KEY_BYTES };
    int n, rc = fits(j, k.bytes) ? SQLITE_OK : key_prune(j, &n);

    if (rc != SQLITE_OK)
        return rc;
    if (fits(j, k.bytes))
        return key_put(j, &k, 0);
    op->result = JOURNAL_KEYS_FULL;
    op->why = "idempotency keys have reached journal.idempotency_size";
    return SQLITE_OK;
}

int
key_take(struct journal *j, struct journal_op *op, uint64_t seq)
{
    struct key_row k;
    bool good;
    int rc = key_get(j, op, &k, &good);

    op->result = JOURNAL_DONE;
    if (rc == SQLITE_ROW)
        judge(j, op, &k, good);
    sqlite3_reset(j->st[S_KEY_GET]);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return rc;
    if (op->result != JOURNAL_DONE)
        return SQLITE_OK;
    rc = rc == SQLITE_ROW ? key_drop(j, bytes_of(&op->key_hash), k.bytes) : SQLITE_OK;
    return rc == SQLITE_OK ? enter(j, op, seq) : rc;
}

/* The open claim that the operation means: SQLITE_ROW; SQLITE_DONE with GONE. */
static int
open_claim(struct journal *j, struct journal_op *op, struct key_row *k)
{
    bool good;
    int rc = key_get(j, op, k, &good);

    if (rc == SQLITE_ROW && good && k->state == KEY_OPEN && k->run == j->run
        && (op->row.seq == 0 || op->row.seq == k->seq))
        return rc;
    sqlite3_reset(j->st[S_KEY_GET]);
    if (rc == SQLITE_ROW || rc == SQLITE_DONE) {
        op->result = JOURNAL_GONE;
        rc = SQLITE_DONE;
    }
    return rc;
}

int
key_ended(struct journal *j, struct journal_op *op)
{
    uint8_t fingerprint[16] = { 0 };
    struct key_row k;
    int64_t before;
    int rc = open_claim(j, op, &k);

    if (rc != SQLITE_ROW)
        return rc == SQLITE_DONE ? SQLITE_OK : rc;
    memcpy(fingerprint, k.fingerprint.p,
        k.fingerprint.n < sizeof fingerprint ? k.fingerprint.n : sizeof fingerprint);
    sqlite3_reset(j->st[S_KEY_GET]);
    before = k.bytes;
    k.h = bytes_of(&op->key_hash);
    k.fingerprint = bytes_of(&fingerprint);
    k.status = op->row.status;
    k.state = k.status != 0 ? KEY_ANSWERED : KEY_UNKNOWN;
    k.head = op->content.answer_head;
    k.body = op->content.answer_body;
    k.bytes = KEY_BYTES + (int64_t)(k.head.n + k.body.n);
    if (!fits(j, k.bytes - before)) {
        k.head = k.body = (struct slice){ 0 };
        k.bytes = KEY_BYTES;
    }
    return key_put(j, &k, before);
}

int
key_released(struct journal *j, struct journal_op *op)
{
    struct key_row k;
    int64_t bytes;
    int rc = open_claim(j, op, &k);

    if (rc != SQLITE_ROW)
        return rc == SQLITE_DONE ? SQLITE_OK : rc;
    bytes = k.bytes;
    sqlite3_reset(j->st[S_KEY_GET]);
    return key_drop(j, bytes_of(&op->key_hash), bytes);
}

/* In a transaction: at most AT_ONCE whose time is out. */
int
key_prune(struct journal *j, int *n)
{
    struct { uint8_t h[16]; int64_t bytes; } found[AT_ONCE];
    sqlite3_stmt *st = j->st[S_KEYS_OLD];
    int rc;

    *n = 0;
    sqlite3_bind_int64(st, 1, j->now_ms);
    sqlite3_bind_int(st, 2, AT_ONCE);
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct slice h = column(st, 0);

        if (h.n != sizeof found[0].h) {
            rc = SQLITE_CORRUPT;
            break;
        }
        memcpy(found[*n].h, h.p, h.n);
        found[(*n)++].bytes = sqlite3_column_int64(st, 1);
    }
    sqlite3_reset(st);
    rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    for (int i = 0; rc == SQLITE_OK && i < *n; i++)
        rc = key_drop(j, bytes_of(&found[i].h), found[i].bytes);
    return rc;
}
