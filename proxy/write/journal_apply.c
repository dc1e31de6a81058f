/*
 * One operation of the journal, inside a transaction.
 *
 * Model    a write that is accepted is a row and its content. An update reads the row first, so
 *          that what an update may not change stays as it was accepted, and the counts are right. A
 *          write that is settled leaves `writes` for `settled`, without its fields and body; a dead
 *          one stays, out of its chains.
 * Threads  the journal thread; before it starts, journal_open's.
 */
#include "write/journal_priv.h"

#include <stdlib.h>

#define ROW_BYTES 512                   /* of a write besides what it carries: its row, indexes */

bool
op_intake(const struct journal_op *op)
{
    return op->kind == JOURNAL_ACCEPT || op->kind == JOURNAL_CLAIM;
}

/* ---- is there room -------------------------------------------------------------------------- */

static int64_t
op_size(const struct journal_op *op)
{
    const struct write_content *c = &op->content;
    int64_t n = (int64_t)(c->url.n + c->target.n + c->host.n + c->fields.n + c->body.n
        + c->order_key.n + c->idempotency_key.n) + ROW_BYTES;

    return n > JOURNAL_PAGE / 2 ? n + JOURNAL_PAGE : n;     /* pages of its own, one in part */
}

static bool
refused(struct journal_op *op, const char *why)
{
    if (why == NULL)
        return false;
    op->result = JOURNAL_FULL;
    op->why = why;
    return true;
}

/* ---- accepting ------------------------------------------------------------------------------ */

static int
add_row(struct journal *j, int statement, const struct write_row *r)
{
    row_bind(j->st[statement], r);
    return step(j->st[statement]);
}

static int
of_seq(struct journal *j, int statement, uint64_t seq)
{
    sqlite3_bind_int64(j->st[statement], 1, (int64_t)seq);
    return step(j->st[statement]);
}

static int
accept_write(struct journal *j, struct journal_op *op)
{
    int64_t size = op_size(op);
    int rc;

    if (refused(op, j->takes ? NULL : j->why) || refused(op, journal_lacks(j, size)))
        return SQLITE_OK;
    if (op->key_for_ms > 0) {
        rc = key_take(j, op, j->next_seq);
        if (rc != SQLITE_OK || op->result != JOURNAL_DONE)
            return rc;
    }
    op->row.seq = j->next_seq++;
    rc = add_row(j, S_WRITE_ADD, &op->row);
    if (rc != SQLITE_OK)
        return rc;
    content_bind(j->st[S_CONTENT_ADD], op->row.seq, &op->content);
    rc = step(j->st[S_CONTENT_ADD]);
    if (j->now.pending++ == 0)
        j->now.oldest_seq = op->row.seq;
    j->batch_bytes += size;
    return rc;
}

static int
claim(struct journal *j, struct journal_op *op)
{
    int rc;

    if (refused(op, j->takes ? NULL : j->why))
        return SQLITE_OK;
    rc = key_take(j, op, j->next_seq);
    if (rc == SQLITE_OK && op->result == JOURNAL_DONE)
        op->row.seq = j->next_seq++;
    return rc;
}

/* ---- updating ------------------------------------------------------------------------------- */

/* SQLITE_ROW, SQLITE_DONE (no such row) or the error. */
static int
get_row(struct journal *j, uint64_t seq, struct write_row *r, bool *good)
{
    sqlite3_stmt *st = j->st[S_WRITE_GET];
    int rc;

    sqlite3_bind_int64(st, 1, (int64_t)seq);
    rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        *good = row_get(st, r);
    sqlite3_reset(st);
    return rc;
}

static bool
is_settled(enum write_state s)
{
    return !write_is_pending(s) && !write_is_dead(s);
}

static void
count_change(struct journal *j, const struct write_row *from, const struct write_row *to)
{
    if (write_is_pending(from->state) && !write_is_pending(to->state) && j->now.pending != 0)
        j->now.pending--;
    if (write_is_dead(from->state) && !write_is_dead(to->state) && j->now.dead != 0)
        j->now.dead--;
    if (!write_is_dead(from->state) && write_is_dead(to->state))
        j->now.dead++;
    if (!write_is_pending(from->state) && write_is_pending(to->state)
        && (j->now.pending++ == 0 || to->seq < j->now.oldest_seq))
        j->now.oldest_seq = to->seq;
}

static int
put_answer(struct journal *j, uint64_t seq, const struct write_content *c)
{
    answer_bind(j->st[S_ANSWER_PUT], seq, c);
    return step(j->st[S_ANSWER_PUT]);
}

static int
ease_content(struct journal *j, uint64_t seq)
{
    sqlite3_bind_int64(j->st[S_CONTENT_EASE], 2, (int64_t)content_eased_sum(seq));
    return of_seq(j, S_CONTENT_EASE, seq);
}

static int
settle(struct journal *j, const struct write_row *r)
{
    int rc = of_seq(j, S_WRITE_DROP, r->seq);

    if (rc != SQLITE_OK)
        return rc;
    if (j->lim.keep_ms == 0) {
        rc = of_seq(j, S_CONTENT_DROP, r->seq);
        return rc == SQLITE_OK ? of_seq(j, S_ANSWER_DROP, r->seq) : rc;
    }
    rc = add_row(j, S_SETTLED_ADD, r);
    return rc == SQLITE_OK ? ease_content(j, r->seq) : rc;
}

static int
set_row(struct journal *j, const struct write_row *old, const struct write_row *r)
{
    bool was = write_is_dead(old->state), is = write_is_dead(r->state);
    sqlite3_stmt *st = j->st[was == is ? S_WRITE_SET : is ? S_WRITE_DIE : S_WRITE_RISE];

    row_bind_progress(st, r);
    return step(st);
}

/* What an update may not change is as it was accepted. A row that is damaged meanwhile is written
 * anew: who updates it knows all of it. */
static int
update(struct journal *j, struct journal_op *op)
{
    struct write_row old, r;
    bool good;
    int rc = get_row(j, op->row.seq, &old, &good);

    if (rc == SQLITE_DONE)
        op->result = JOURNAL_GONE;
    if (rc != SQLITE_ROW)
        return rc == SQLITE_DONE ? SQLITE_OK : rc;
    if (!good) {
        if ((rc = of_seq(j, S_WRITE_DROP, op->row.seq)) != SQLITE_OK)
            return rc;
        old = op->row;
        old.state = WRITE_PENDING;
        if ((rc = add_row(j, S_WRITE_ADD, &old)) != SQLITE_OK)
            return rc;
    }
    r = old;
    r.due_ms = op->row.due_ms;
    r.settled_ms = op->row.settled_ms;
    r.attempts = op->row.attempts;
    r.status = op->row.status;
    r.state = op->row.state;
    if (r.settled_ms == 0 && !write_is_pending(r.state))
        r.settled_ms = j->now_ms;
    if (op->keep_answer && (rc = put_answer(j, r.seq, &op->content)) != SQLITE_OK)
        return rc;
    rc = is_settled(r.state) ? settle(j, &r) : set_row(j, &old, &r);
    if (rc == SQLITE_OK && op->settle && !is_settled(r.state))
        rc = ease_content(j, r.seq);
    count_change(j, &old, &r);
    op->row = r;
    return rc;
}

/* Of a row whose sum is wrong all that it says is kept as it is, for a person to see. */
int
row_condemn(struct journal *j, struct journal_op *op)
{
    const struct write_content c = { .cause = slice_of(op->why) };
    uint64_t seq = op->row.seq;
    struct write_row old, r;
    bool good;
    int rc = get_row(j, seq, &old, &good);

    if (rc != SQLITE_ROW || (good && !write_is_pending(old.state))) {
        op->result = JOURNAL_GONE;
        return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    old.state = WRITE_PENDING;
    if (old.lane >= WRITE_LANES)
        old.lane = WRITE_LANE_DEFAULT;
    r = old;
    r.state = WRITE_UNCERTAIN;
    r.settled_ms = j->now_ms;
    if (!good) {
        rc = of_seq(j, S_WRITE_DROP, seq);
        if (rc == SQLITE_OK)
            rc = add_row(j, S_WRITE_ADD, &old);
    }
    rc = rc == SQLITE_ROW || rc == SQLITE_OK ? set_row(j, &old, &r) : rc;
    if (rc == SQLITE_OK)
        rc = put_answer(j, seq, &c);
    count_change(j, &old, &r);
    op->on = good;
    op->row = good ? r : (struct write_row){ .seq = seq, .state = r.state };
    return rc;
}

/* ---- all of them ---------------------------------------------------------------------------- */

static int
pause_name(struct journal *j, struct journal_op *op)
{
    sqlite3_stmt *st = j->st[op->on ? S_PAUSE_ON : S_PAUSE_OFF];

    bind_text(st, 1, op->name);
    return step(st);
}

int
journal_apply(struct journal *j, struct journal_op *op)
{
    op->result = JOURNAL_DONE;
    switch (op->kind) {
    case JOURNAL_ACCEPT:        return accept_write(j, op);
    case JOURNAL_CLAIM:         return claim(j, op);
    case JOURNAL_CLAIM_END:     return key_ended(j, op);
    case JOURNAL_CLAIM_RELEASE: return key_released(j, op);
    case JOURNAL_UPDATE:        return update(j, op);
    case JOURNAL_PAUSE:         return pause_name(j, op);
    case JOURNAL_CONDEMN:       return row_condemn(j, op);
    case JOURNAL_CALL:
    case JOURNAL_PEEK:          break;
    }
    return SQLITE_OK;
}
