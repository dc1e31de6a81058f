/*
 * The readers of the journal, beside its writer.
 *
 * Model    a connection of its own, that reads what was committed last. No call leaves a statement
 *          open: a snapshot that lasts would keep the WAL from beginning anew. So what journal_read
 *          gives is a copy.
 * Damage   a pending write whose checksum is wrong is set to uncertain, for a person to see: it
 *          must neither be sent as something else nor hold up its chain. Where SQLite finds the
 *          file itself damaged the journal takes no writes any more (journal_write.c), and those
 *          that cannot be read stay as they are: the next opening may find them.
 * Threads  the write loop.
 */
#include "write/share.h"

#include <errno.h>
#include <stdlib.h>

#define KEEP_BYTES (256 * 1024)         /* of the copy's memory between two reads */

static struct log_limit limited;

/* ---- damage --------------------------------------------------------------------------------- */

static int
failed(struct journal *j, int rc, struct err *e)
{
    if (is_damage(rc))
        atomic_store(&j->damaged, true);
    log_limited(&limited, LOG_ERROR, "journal %s: reading: %s", j->path, sqlite3_errstr(rc));
    return err_set(e, EIO, "the journal cannot be read: %s", sqlite3_errstr(rc));
}

static void
on_condemned(struct journal_op *op)
{
    const struct journal *j = op->arg;

    if (op->result == JOURNAL_DONE && j->condemned != NULL)
        j->condemned(j->condemned_arg, &op->row, op->on);
    free(op);
}

static void
condemn(struct journal *j, uint64_t seq, const char *cause)
{
    struct journal_op *op = calloc(1, sizeof *op);

    log_limited(&limited, LOG_ERROR, "journal %s: write %llu: %s", j->path,
        (unsigned long long)seq, cause);
    if (op == NULL)
        return;
    op->kind = JOURNAL_CONDEMN;
    op->durable = WRITE_FSYNC;
    op->row.seq = seq;
    op->why = cause;
    op->done = on_condemned;
    op->arg = j;
    journal_push(j, op);
}

/* ---- one write ------------------------------------------------------------------------------ */

/* SQLITE_ROW, with the statement left at it, SQLITE_DONE, or the error. */
static int
look_up(struct journal *j, int statement, uint64_t seq)
{
    sqlite3_bind_int64(j->read[statement], 1, (int64_t)seq);
    return sqlite3_step(j->read[statement]);
}

static int
read_row(struct journal *j, uint64_t seq, struct write_row *r, const char **damage)
{
    static const int statements[] = { S_READ_WRITE, S_READ_SETTLED };
    int rc = SQLITE_DONE;

    for (size_t i = 0; rc == SQLITE_DONE && i < NELEM(statements); i++) {
        rc = look_up(j, statements[i], seq);
        if (rc == SQLITE_ROW && !row_get(j->read[statements[i]], r))
            *damage = "its row in the journal was damaged";
    }
    return rc;
}

static int
read_content(struct journal *j, uint64_t seq, struct write_content *c, const char **damage)
{
    int rc = look_up(j, S_READ_CONTENT, seq);

    *c = (struct write_content){ 0 };
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return rc;
    if (rc == SQLITE_DONE || !content_get(j->read[S_READ_CONTENT], c)) {
        *damage = "its content in the journal was damaged";
        *c = (struct write_content){ .cause = slice_of(*damage) };
    }
    rc = look_up(j, S_READ_ANSWER, seq);
    if (rc == SQLITE_ROW && !answer_get(j->read[S_READ_ANSWER], c)) {
        c->answer_head = c->answer_body = (struct slice){ 0 };
        c->cause = SLICE("its last answer in the journal was damaged");
    }
    return rc == SQLITE_DONE ? SQLITE_ROW : rc;
}

/* The statements' bytes into memory of ours. */
static bool
keep(struct journal *j, struct write_content *c)
{
    struct slice *all[] = { &c->method_name, &c->url, &c->target, &c->host, &c->fields, &c->body,
        &c->order_key, &c->idempotency_key, &c->answer_head, &c->answer_body, &c->cause };
    size_t n = 0;

    if (j->read_bytes.cap > KEEP_BYTES)
        buf_free(&j->read_bytes);
    j->read_bytes.n = 0;
    for (size_t i = 0; i < NELEM(all); i++)
        n += all[i]->n;
    if (buf_reserve(&j->read_bytes, n + 1) == NULL) {
        buf_free(&j->read_bytes);
        return false;
    }
    for (size_t i = 0; i < NELEM(all); i++)
        if (all[i]->n != 0) {
            char *at = j->read_bytes.p + j->read_bytes.n;

            buf_adds(&j->read_bytes, *all[i]);
            all[i]->p = at;
        }
    return true;
}

static void
reset_all(struct journal *j)
{
    static const int statements[] = { S_READ_WRITE, S_READ_SETTLED, S_READ_CONTENT, S_READ_ANSWER };

    for (size_t i = 0; i < NELEM(statements); i++)
        sqlite3_reset(j->read[statements[i]]);
}

/* The statements are reset at the end alone: till then all of them read one snapshot. */
int
journal_read(struct journal *j, uint64_t seq, struct write_row *r, struct write_content *c,
    struct err *e)
{
    const char *damage = NULL;
    struct write_row row;
    bool kept = true;
    int rc;

    CHECK(j, JOURNAL_MAGIC);
    if (j->share != NULL)
        return share_read(j->share, seq, r, c, e);
    rc = read_row(j, seq, &row, &damage);
    if (rc == SQLITE_ROW && c != NULL && damage == NULL) {
        rc = read_content(j, seq, c, &damage);
        if (!write_is_pending(row.state))
            damage = NULL;              /* a person may see what there is of it */
        if (rc == SQLITE_ROW && damage == NULL)
            kept = keep(j, c);
    }
    reset_all(j);
    if (rc == SQLITE_DONE)
        return 0;
    if (rc != SQLITE_ROW)
        return failed(j, rc, e);
    if (damage != NULL) {
        condemn(j, seq, damage);
        return err_set(e, EBADMSG, "%s", damage);
    }
    if (!kept)
        return err_set(e, ENOMEM, "memory is out");
    if (r != NULL)
        *r = row;
    return 1;
}

int
journal_has(struct journal *j, uint64_t seq)
{
    int rc = look_up(j, S_READ_WRITE, seq);

    if (rc == SQLITE_DONE)
        rc = look_up(j, S_READ_SETTLED, seq);
    reset_all(j);
    return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : failed(j, rc, NULL);
}

/* ---- many ----------------------------------------------------------------------------------- */

static int
next_in(struct journal *j, int statement, uint64_t hash, uint64_t seq, struct write_row *r)
{
    sqlite3_stmt *st = j->read[statement];
    bool good = true;
    int rc;

    sqlite3_bind_int64(st, 1, (int64_t)hash);
    sqlite3_bind_int64(st, 2, (int64_t)seq);
    rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        good = row_get(st, r);
    sqlite3_reset(st);
    if (rc != SQLITE_ROW)
        return rc == SQLITE_DONE ? 0 : failed(j, rc, NULL);
    if (!good) {
        condemn(j, r->seq, "its row in the journal was damaged");
        return -1;
    }
    return 1;
}

int
journal_next(struct journal *j, unsigned part, uint64_t hash, uint64_t seq, bool by_target,
    struct write_row *r)
{
    struct write_row other;
    int first, second;

    CHECK(j, JOURNAL_MAGIC);
    if (j->share != NULL)
        return share_next(j->share, part, hash, seq, by_target, r);
    first = next_in(j, S_NEXT_C1, hash, seq, r);
    if (!by_target || first == -1)
        return first;
    second = next_in(j, S_NEXT_C2, hash, seq, &other);
    if (second == 1 && (first == 0 || other.seq < r->seq))
        *r = other;
    return second == -1 ? -1 : first | second;
}

static int
statement_for(unsigned mask)
{
    unsigned dead = 0, pending = 0;

    for (unsigned s = 0; s < WRITE_STATES; s++) {
        if (write_is_dead(s))
            dead |= 1u << s;
        if (write_is_pending(s))
            pending |= 1u << s;
    }
    if ((mask & (dead | pending)) == 0)
        return S_EACH_SETTLED;
    if ((mask & ~dead) == 0)
        return S_EACH_DEAD;
    return (mask & ~(dead | pending)) == 0 ? S_EACH_WRITE : S_EACH_ANY;
}

/* A state is no condition of the statements: no index has it, and a search for a rare one among a
 * million would take a step through all of them. */
int
journal_each(struct journal *j, uint64_t *seq, unsigned state_mask, unsigned max,
    void (*each)(void *arg, const struct write_row *r), void *arg)
{
    sqlite3_stmt *st;
    int rc = SQLITE_ROW;

    CHECK(j, JOURNAL_MAGIC);
    if (j->share != NULL)
        return share_each(j->share, seq, state_mask, max, each, arg);
    state_mask &= (1u << WRITE_STATES) - 1;
    st = j->read[statement_for(state_mask)];
    sqlite3_bind_int64(st, 1, (int64_t)*seq);
    for (unsigned n = 0; n < max && (rc = sqlite3_step(st)) == SQLITE_ROW; n++) {
        struct write_row r;
        bool good = row_get(st, &r);

        *seq = r.seq;
        if (r.state < WRITE_STATES && (state_mask >> r.state & 1) == 0)
            continue;
        if (good)
            each(arg, &r);
        else
            condemn(j, r.seq, "its row in the journal was damaged");
    }
    sqlite3_reset(st);
    if (rc == SQLITE_ROW)
        return 1;
    return rc == SQLITE_DONE ? 0 : failed(j, rc, NULL);
}
