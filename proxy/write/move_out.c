/*
 * `weir writes move` out of Redis into a file. move.c has the model.
 */
#include "write/move.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define COMMIT_AT 4096

/* ---- Redis' rows into a file ----------------------------------------------------------------- */

static void
put_step(struct move *x, int statement)
{
    int rc = step(x->st[statement]);

    if (rc == SQLITE_OK && ++x->done % COMMIT_AT == 0)
        rc = sqlite3_exec(x->db, "COMMIT; BEGIN", NULL, NULL, NULL);
    if (rc != SQLITE_OK && !x->failed) {
        file_error(x->db, x->path, x->e);
        x->failed = true;
    }
}

static void
add_write(struct move *x, const struct write_row *r)
{
    bool settled = !write_is_pending(r->state) && !write_is_dead(r->state);
    int statement = settled ? S_SETTLED_ADD : S_WRITE_ADD;

    row_bind(x->st[statement], r);
    put_step(x, statement);
    if (write_is_dead(r->state)) {      /* it was in its chain, and left it */
        row_bind_progress(x->st[S_WRITE_DIE], r);
        put_step(x, S_WRITE_DIE);
    }
}

static void
on_redis_row(void *arg, const struct write_row *row, const struct write_content *content,
    const char *damage)
{
    struct write_content c = *content;
    struct write_row r = *row;
    struct move *x = arg;

    if (damage != NULL && write_is_pending(r.state))
        r.state = WRITE_UNCERTAIN;
    if (damage != NULL && r.settled_ms == 0)
        r.settled_ms = wall_ms();
    if (damage != NULL && c.cause.p == NULL)
        c.cause = slice_of(damage);
    move_count(x->out, &r);
    if (x->db == NULL || x->failed)
        return;
    add_write(x, &r);
    if (c.method_name.p != NULL) {
        content_bind(x->st[S_CONTENT_ADD], r.seq, &c);
        put_step(x, S_CONTENT_ADD);
    }
    if (c.answer_head.p != NULL || c.answer_body.p != NULL || c.cause.p != NULL) {
        answer_bind(x->st[S_ANSWER_PUT], r.seq, &c);
        put_step(x, S_ANSWER_PUT);
    }
}

static void
on_redis_key(void *arg, const struct key_row *key)
{
    struct move *x = arg;
    struct key_row k = *key;

    x->out->keys++;
    if (x->db == NULL || x->failed)
        return;
    if (k.state == KEY_OPEN)
        k.state = KEY_UNKNOWN;
    key_bind(x->st[S_KEY_PUT], &k);
    put_step(x, S_KEY_PUT);
}

static void
on_redis_paused(void *arg, struct slice name)
{
    struct move *x = arg;

    x->out->paused++;
    if (x->db == NULL || x->failed)
        return;
    bind_text(x->st[S_PAUSE_ON], 1, name);
    put_step(x, S_PAUSE_ON);
}

static bool
read_all(struct move *x)
{
    return mover_rows(x->m, on_redis_row, x) && mover_keys(x->m, on_redis_key, x) &&
        mover_paused(x->m, on_redis_paused, x) && !x->failed;
}

/* ---- Redis into a file ----------------------------------------------------------------------- */

static void
put_number(struct move *x, const char *name, uint64_t value)
{
    bind_text(x->st[S_META_PUT], 1, slice_of(name));
    sqlite3_bind_int64(x->st[S_META_PUT], 2, (int64_t)value);
    put_step(x, S_META_PUT);
}

static void
put_names(struct move *x)
{
    for (uint32_t i = 1; i <= journal_routes(x->j); i++) {
        sqlite3_bind_int64(x->st[S_ROUTE_ADD], 1, i);
        bind_text(x->st[S_ROUTE_ADD], 2, journal_route_name(x->j, i));
        put_step(x, S_ROUTE_ADD);
    }
}

/* Numbers go on above the highest. */
static int
fill(struct move *x)
{
    uint64_t upto = x->found.counter * JOURNAL_PARTS + JOURNAL_PARTS - 1;

    if (file_prepare(x->db, x->st, writer_sql, WRITER_N, x->e) == -1)
        return -1;
    if (sqlite3_exec(x->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        return file_error(x->db, x->path, x->e);
    if (!read_all(x))
        return -1;
    put_names(x);
    put_number(x, "reserved", upto + 1);
    put_number(x, "shared", upto);
    if (!x->failed && sqlite3_exec(x->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        return file_error(x->db, x->path, x->e);
    return x->failed ? -1 : 0;
}

static int
write_file(struct move *x)
{
    int rc = -1;

    x->db = file_make(x->path, x->found.secret, x->e);
    if (x->db == NULL)
        return -1;
    rc = fill(x);
    for (size_t i = 0; i < WRITER_N; i++)
        sqlite3_finalize(x->st[i]);
    if (rc == 0)
        rc = file_install(x->path, &x->db, x->e);
    sqlite3_close(x->db);
    x->db = NULL;
    return rc;
}

/* Is the file at the path what an earlier move made of this journal? */
static bool
is_ours(struct move *x)
{
    struct err e;
    sqlite3 *db = file_open(x->path, SQLITE_OPEN_READWRITE, &e);
    sqlite3_stmt *st = NULL;
    struct slice secret = { NULL, 0 };
    bool same = false;

    if (db != NULL && sqlite3_prepare_v2(db, "SELECT value FROM meta WHERE name = 'secret'", -1,
        &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
        secret = column(st, 0);
    if (secret.n == JOURNAL_SECRET) {
        move_sum(x, (const uint8_t *)secret.p);
        same = strncmp(x->phase + 4, x->sum, 16) == 0;
    }
    sqlite3_finalize(st);
    sqlite3_close(db);
    return same;
}

/* 1: the file is there and whole; 0: it is to be written. */
static int
check_source(struct move *x)
{
    bool out = move_starts(x->phase, "out "), there = access(x->path, F_OK) == 0;
    const char *to = out ? x->phase + 4 + sizeof x->sum : "";

    if (x->phase[0] != '\0' && !out)
        return err_set(x->e, EBUSY, "a file's move into this Redis has not ended: run that again "
            "first");
    if (out && strcmp(to, x->path) == 0 && there && is_ours(x))
        return 1;
    if (out && strcmp(to, x->path) != 0 && access(to, F_OK) == 0)
        return err_set(x->e, EBUSY, "it is being moved to %s already: end that first", to);
    if (there)
        return err_set(x->e, EEXIST, "there is a file at %s already: move it away, or name another",
            x->path);
    if (!x->found.has_secret)
        return err_set(x->e, ENOENT, "there is no journal in this Redis (its prefix is "
            "journal.redis.prefix)");
    move_sum(x, x->found.secret);
    return 0;
}

int
move_out(struct move *x, const struct journal_limits *limits)
{
    char phase[PHASE_MAX];
    int lock, rc;

    if ((x->j = move_names(x, limits)) == NULL || move_open(x) == -1 ||
        !mover_look(x->m, &x->found) || !mover_phase(x->m, x->phase, sizeof x->phase))
        return -1;
    if (x->dry)
        return (rc = check_source(x)) == 0 && !read_all(x) ? -1 : rc == -1 ? -1 : 0;
    if ((lock = journal_lock(x->path, x->e)) == -1)
        return -1;
    rc = check_source(x);
    snprintf(phase, sizeof phase, "out %s %s", x->sum, x->path);
    if (rc == 0)
        rc = mover_set_phase(x->m, phase) && mover_mark(x->m) && mover_look(x->m, &x->found) ?
            write_file(x) : -1;
    else if (rc == 1)
        x->out->finished = true;
    if (rc != -1)
        rc = mover_set_secret(x->m, NULL) && mover_clear(x->m, false) &&
            mover_set_phase(x->m, "") ? 0 : -1;
    close(lock);
    return rc;
}
