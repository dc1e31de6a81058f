/*
 * `weir writes move`: a journal in a file into Redis, and back.
 *
 * Model    the file is held by its lock, Redis by marks on all partitions (share_move.c): no
 *          instance has either meanwhile. PREFIX{j}move says what goes on:
 *            into SUM            a file is being put into Redis: what is there of it is let go, and
 *                                put again, until it is whole
 *            whole SUM COUNTER   it is all there: the file gets another name, the marks go
 *            out SUM PATH        all is being written to PATH, which takes its name when it is
 *                                whole; then Redis' keys go
 *          SUM is of the journal's secret, which goes over, so that it is known whose it is. So a
 *          move that ended anywhere is ended by the same command, and nothing is there twice.
 * Numbers  a file's seq becomes the counter of its partition (journal_moved), so that order within
 *          a partition is as it was; what Redis gave keeps its seq wherever it is. Ids: id.c.
 * Keys     an idempotency key of a write is of the write's partition, which its first byte says; a
 *          claim that was open has an unknown fate, as after a crash.
 * Threads  one; rows of Redis come on the mover's while this one waits.
 */
#include "write/priv.h"
#include "write/share.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define BATCH     256
#define COMMIT_AT 4096
#define PHASE_MAX (PATH_MAX + 64)

struct move {
    const struct conf *c;
    const char    *redis;               /* "redis", or a URL */
    char           path[PATH_MAX];      /* absolute */
    bool           dry;
    struct writes_moved *out;
    struct err    *e;

    struct pool   *pool;                /* owned */
    struct journal *j;                  /* owned: the file; or names of Redis' */
    struct mover  *m;                   /* owned */
    struct route_table *routes;         /* owned */
    char           phase[PHASE_MAX];    /* as it was */
    struct mover_found found;
    char           sum[17];
    bool           failed;              /* *e says why */

    sqlite3       *db;                  /* the new file */
    sqlite3_stmt  *st[WRITER_N];
    uint64_t       done;
};

static void
sum_up(struct move *x, const uint8_t *secret)
{
    snprintf(x->sum, sizeof x->sum, "%016llx",
        (unsigned long long)XXH3_64bits(secret, JOURNAL_SECRET));
}

static void
count(struct writes_moved *n, const struct write_row *r)
{
    if (write_is_pending(r->state))
        n->pending++;
    else if (write_is_dead(r->state))
        n->dead++;
    else
        n->settled++;
}

/* ---- the file's rows ------------------------------------------------------------------------- */

static unsigned
no_slot(const char *name)
{
    (void)name;
    return 0;
}

static const struct route *
route_of(const struct move *x, struct slice name)
{
    for (size_t i = 0; i < route_table_size(x->routes); i++)
        if (slice_eq(slice_of(route_table_at(x->routes, i)->name), name))
            return route_table_at(x->routes, i);
    return NULL;
}

/* One of a route that is gone goes with its path: where the route comes back, it is that mostly. */
static unsigned
part_of(const struct move *x, const struct write_row *r)
{
    uint64_t path = r->c2 != 0 ? r->c2 : r->c1;
    const struct route *route = route_of(x, journal_route_name(x->j, r->route));

    if (r->seq <= x->j->shared_upto)
        return journal_part(r->seq);
    return route != NULL && route->conf->to != NULL ? fleet_part(route, path) :
        (unsigned)(path % JOURNAL_PARTS);
}

struct rows { struct write_row at[BATCH]; size_t n; };

static void
add_row(void *arg, const struct write_row *r)
{
    struct rows *rows = arg;

    rows->at[rows->n++] = *r;
}

static void
on_call(struct journal_op *op)
{
    sem_post(op->arg);
}

/* Until what the readers asked for (that a damaged row is uncertain) is done. */
static void
settle(struct journal *j)
{
    struct journal_op op = { .kind = JOURNAL_CALL, .done = on_call };
    sem_t done;

    sem_init(&done, 0, 0);
    op.arg = &done;
    journal_do(j, &op);
    while (sem_wait(&done) == -1)
        ;
    sem_destroy(&done);
}

static int
read_whole(struct move *x, uint64_t seq, struct write_row *r, struct write_content *c)
{
    int rc = journal_read(x->j, seq, r, c, x->e);

    if (rc == -1 && x->e->code == EBADMSG) {
        settle(x->j);
        rc = journal_read(x->j, seq, r, c, x->e);
    }
    return rc;
}

/* One that is not there any more was settled long ago, and let go meanwhile. */
static bool
put_row(struct move *x, uint64_t seq)
{
    struct write_content c = { 0 };
    struct write_row r;
    int rc = read_whole(x, seq, &r, &c);

    if (rc != 1)
        return rc == 0;
    count(x->out, &r);
    if (x->dry)
        return true;
    r.seq = journal_moved(r.seq, x->j->shared_upto, part_of(x, &r));
    return mover_put(x->m, &r, &c);
}

static bool
put_rows(struct move *x)
{
    struct rows *rows = malloc(sizeof *rows);
    uint64_t seq = 0;
    int more = 1;

    if (rows == NULL)
        return err_set(x->e, ENOMEM, "memory is out") == 0;
    while (more == 1) {
        rows->n = 0;
        settle(x->j);
        more = journal_each(x->j, &seq, (1u << WRITE_STATES) - 1, BATCH, add_row, rows);
        if (more == -1)
            err_set(x->e, EIO, "journal %s: it cannot be read", x->path);
        for (size_t i = 0; more != -1 && i < rows->n; i++)
            if (!put_row(x, rows->at[i].seq))
                more = -1;
    }
    free(rows);
    return more == 0;
}

/* ---- the file's keys and names --------------------------------------------------------------- */

static bool
put_key(struct move *x, sqlite3_stmt *st)
{
    uint8_t h[16];
    struct key_row k;
    struct write_row r;
    bool good = key_column(st, &k);

    if (k.h.n != sizeof h || k.fingerprint.n != 16)
        return true;                    /* nobody finds it */
    x->out->keys++;
    if (x->dry)
        return true;
    memcpy(h, k.h.p, sizeof h);
    if (!good || k.state == KEY_OPEN || k.state > KEY_UNKNOWN)
        k.state = KEY_UNKNOWN;
    if (k.state == KEY_WRITE && journal_read(x->j, k.seq, &r, NULL, x->e) == 1)
        h[0] = (uint8_t)((h[0] & ~(JOURNAL_PARTS - 1u)) | part_of(x, &r));
    k.h.p = (const char *)h;
    k.seq = journal_moved(k.seq, x->j->shared_upto, h[0] % JOURNAL_PARTS);
    return mover_put_key(x->m, &k);
}

static bool
put_keys(struct move *x)
{
    sqlite3_stmt *st;
    bool good = true;
    int rc = sqlite3_prepare_v2(x->j->reader, "SELECT " KEY " FROM keys WHERE expires_ms > ?1", -1,
        &st, NULL);

    if (rc == SQLITE_OK) {
        sqlite3_bind_int64(st, 1, wall_ms());
        while (good && (rc = sqlite3_step(st)) == SQLITE_ROW)
            good = put_key(x, st);
        sqlite3_finalize(st);
    }
    if (good && rc != SQLITE_DONE)
        err_set(x->e, EIO, "journal %s: its keys cannot be read: %s", x->path, sqlite3_errstr(rc));
    return good && rc == SQLITE_DONE;
}

static bool
put_paused(struct move *x)
{
    for (size_t i = 0; i < x->j->paused.n; i++) {
        x->out->paused++;
        if (!x->dry && !mover_put_paused(x->m, slice_of(x->j->paused.at[i])))
            return false;
    }
    return true;
}

/* ---- a file into Redis ----------------------------------------------------------------------- */

static bool
starts(const char *z, const char *with)
{
    return slice_starts(slice_of(z), slice_of(with));
}

/* PATH.moved-TIME; with its lock. */
static int
rename_moved(struct move *x)
{
    time_t now = (time_t)(wall_ms() / 1000);
    char stamp[32], wal[PATH_MAX], *to = x->out->renamed;
    struct tm tm;

    gmtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    snprintf(to, sizeof x->out->renamed, "%s.moved-%s", x->path, stamp);
    for (int i = 2; access(to, F_OK) == 0; i++)
        snprintf(to, sizeof x->out->renamed, "%s.moved-%s-%d", x->path, stamp, i);
    if (access(file_beside(x->path, "-wal", wal), F_OK) == 0)
        return err_set(x->e, EBUSY, "journal %s: its WAL could not be ended: somebody else reads "
            "it; run this again when nobody does", x->path);
    if (rename(x->path, to) == -1)
        return err_set(x->e, errno, "journal %s: renaming it to %s: %s", x->path, to,
            strerror(errno));
    return file_sync_directory(x->path, x->e);
}

/* All is in Redis, and says so. */
static int
end_into(struct move *x)
{
    unsigned long long counter = 0;

    sscanf(x->phase, "whole %*16s %llu", &counter);
    return mover_end(x->m, counter) && mover_set_phase(x->m, "") ? 0 : -1;
}

static int
close_and_rename(struct move *x)
{
    int lock = dup(x->j->lock_fd), rc;

    mover_close(&x->m);                 /* which has names of the journal */
    journal_close(&x->j);
    rc = rename_moved(x);
    close(lock);
    return rc;
}

static int
open_mover(struct move *x)
{
    struct redis_conf redis = { .verify = true };
    struct share_options o = { .redis = &redis, .prefix = "weir:", .timeout_ms = 1000,
        .lease_ms = 10000 };
    struct redis_url url;
    struct err why;

    if (strcmp(x->redis, "redis") == 0) {
        if (x->c->journal_redis.url.n == 0)
            return err_set(x->e, EINVAL, "the configuration names no Redis: write journal.redis "
                "into it, or a redis:// URL here");
        if (share_options_of(x->c, x->pool, &redis, &o, x->e) == -1)
            return -1;
    } else {
        if (redis_url_read(slice_of(x->redis), x->pool, &url, &why) == -1)
            return err_set(x->e, EINVAL, "%s %s", x->redis, why.text);
        redis.servers = &url.server;
        redis.nservers = 1;
        redis.db = url.db;
        redis.tls = url.tls;
    }
    x->m = mover_open(&o, x->j, x->e);
    return x->m != NULL ? 0 : -1;
}

/* Nothing but what an earlier one of the same file left. */
static int
check_target(struct move *x)
{
    const char *own = strchr(x->phase, ' ');
    bool mine = !starts(x->phase, "out") && own != NULL && strncmp(own + 1, x->sum, 16) == 0;

    if (starts(x->phase, "whole") && !mine) {   /* a file that has its new name already */
        if (end_into(x) == -1 || !mover_look(x->m, &x->found))
            return -1;
        x->phase[0] = '\0';
    }
    if (starts(x->phase, "out"))
        return err_set(x->e, EBUSY, "the journal in Redis is being moved to %s: end that first "
            "(weir writes move --from redis --to FILE)", x->phase + 4 + sizeof x->sum);
    if (x->phase[0] != '\0' && !mine)
        return err_set(x->e, EBUSY, "another file's move into this Redis has not ended: run that "
            "again first, or give journal.redis.prefix another name");
    if (!mine && x->found.rows + x->found.keys > 0)
        return err_set(x->e, EEXIST, "Redis has a journal already (%llu writes, %llu idempotency "
            "keys): move that to a file first, or give journal.redis.prefix another name",
            (unsigned long long)x->found.rows, (unsigned long long)x->found.keys);
    if (x->j->reserved_seq >= JOURNAL_MOVABLE)
        return err_set(x->e, ERANGE, "journal %s: its numbers are too high for Redis: let its "
            "writes be delivered, and begin with an empty journal", x->path);
    return 0;
}

static int
put_all(struct move *x)
{
    char phase[PHASE_MAX];

    snprintf(phase, sizeof phase, "into %s", x->sum);
    if (!x->dry && !(mover_set_phase(x->m, phase) && mover_mark(x->m) &&
        mover_clear(x->m, true) && mover_set_secret(x->m, x->j->secret)))
        return -1;
    if (!put_rows(x) || !put_keys(x) || !put_paused(x) || !mover_flush(x->m))
        return -1;
    if (x->dry)
        return 0;
    snprintf(x->phase, sizeof x->phase, "whole %s %llu", x->sum,
        (unsigned long long)x->j->reserved_seq);
    return mover_set_phase(x->m, x->phase) ? 0 : -1;
}

static void
on_found(void *arg, const struct write_row *r)
{
    (void)arg, (void)r;
}

static struct journal *
names_of_redis(const struct move *x, const struct journal_limits *limits)
{
    struct journal *j = journal_new("in Redis", limits);

    if (j == NULL)
        err_set(x->e, ENOMEM, "memory is out");
    return j;
}

/* The file has gone: was that the end of a move? */
static int
finish_into(struct move *x, const struct journal_limits *limits)
{
    if ((x->j = names_of_redis(x, limits)) == NULL || open_mover(x) == -1 ||
        !mover_phase(x->m, x->phase, sizeof x->phase))
        return -1;
    if (!starts(x->phase, "whole"))
        return err_set(x->e, ENOENT, "there is no journal at %s", x->path);
    x->out->finished = true;
    return x->dry ? 0 : end_into(x);
}

static int
into_redis(struct move *x, const struct journal_limits *limits)
{
    const struct journal_found found = { .row = on_found };

    if (access(x->path, F_OK) == -1)
        return finish_into(x, limits);
    x->routes = route_table_new((struct conf *)(uintptr_t)x->c, no_slot, x->e);
    if (x->routes == NULL || (x->j = journal_open(x->path, limits, &found, x->e)) == NULL ||
        open_mover(x) == -1)
        return -1;
    sum_up(x, x->j->secret);
    if (!mover_look(x->m, &x->found) || !mover_phase(x->m, x->phase, sizeof x->phase) ||
        check_target(x) == -1 || put_all(x) == -1)
        return -1;
    if (x->dry)
        return 0;
    if (close_and_rename(x) == -1 || (x->j = names_of_redis(x, limits)) == NULL ||
        open_mover(x) == -1)
        return -1;
    return end_into(x);
}

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
    count(x->out, &r);
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
        sum_up(x, (const uint8_t *)secret.p);
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
    bool out = starts(x->phase, "out "), there = access(x->path, F_OK) == 0;
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
    sum_up(x, x->found.secret);
    return 0;
}

static int
out_of_redis(struct move *x, const struct journal_limits *limits)
{
    char phase[PHASE_MAX];
    int lock, rc;

    if ((x->j = names_of_redis(x, limits)) == NULL || open_mover(x) == -1 ||
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

/* ---- the whole ------------------------------------------------------------------------------- */

static bool
is_redis(const char *z)
{
    return strcmp(z, "redis") == 0 || starts(z, "redis://") || starts(z, "rediss://");
}

/* The path of the present directory, where it has none: another run may have another. */
static int
set_path(struct move *x, const char *path)
{
    char here[PATH_MAX];

    if (path[0] != '/' && getcwd(here, sizeof here) == NULL)
        return err_set(x->e, errno, "the present directory: %s", strerror(errno));
    if (snprintf(x->path, sizeof x->path, "%s%s%s", path[0] != '/' ? here : "",
        path[0] != '/' ? "/" : "", path) >= PATH_MAX - 64)
        return err_set(x->e, ENAMETOOLONG, "journal %s: the path is too long", path);
    return 0;
}

int
writes_move(const struct conf *c, const char *from, const char *to, bool dry,
    struct writes_moved *out, struct err *e)
{
    const struct journal_limits limits = { c->journal_size, c->journal_idempotency_size,
        c->journal_keep_ms, c->journal_depth };
    struct move x = { .c = c, .redis = is_redis(from) ? from : to, .dry = dry, .out = out, .e = e };
    int rc = -1;

    *out = (struct writes_moved){ 0 };
    if (is_redis(from) == is_redis(to))
        return err_set(e, EINVAL, "one of --from and --to is `redis`, or a redis:// URL; the other "
            "is a file");
    if (set_path(&x, is_redis(from) ? to : from) == -1)
        return -1;
    x.pool = pool_new();
    if (x.pool == NULL)
        err_set(e, ENOMEM, "memory is out");
    else
        rc = is_redis(from) ? out_of_redis(&x, &limits) : into_redis(&x, &limits);
    if (x.m != NULL)
        mover_close(&x.m);
    if (x.j != NULL)
        journal_close(&x.j);
    route_table_unref(&x.routes);
    pool_free(&x.pool);
    return rc;
}
