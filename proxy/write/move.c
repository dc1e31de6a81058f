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
#include "write/move.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define BATCH     256

void
move_sum(struct move *x, const uint8_t *secret)
{
    snprintf(x->sum, sizeof x->sum, "%016llx",
        (unsigned long long)XXH3_64bits(secret, JOURNAL_SECRET));
}

void
move_count(struct writes_moved *n, const struct write_row *r)
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
    move_count(x->out, &r);
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

bool
move_starts(const char *z, const char *with)
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

int
move_open(struct move *x)
{
    struct redis_conf redis = { .verify = true };
    struct share_options o = { .redis = &redis, .prefix = "weir:", .timeout_ms = 1000,
        .lease_ms = 10000, .durable = share_promised(x->c) };
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
    bool mine = !move_starts(x->phase, "out") && own != NULL &&
        strncmp(own + 1, x->sum, 16) == 0;

    if (move_starts(x->phase, "whole") && !mine) {   /* a file that has its new name already */
        if (end_into(x) == -1 || !mover_look(x->m, &x->found))
            return -1;
        x->phase[0] = '\0';
    }
    if (move_starts(x->phase, "out"))
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

struct journal *
move_names(const struct move *x, const struct journal_limits *limits)
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
    if ((x->j = move_names(x, limits)) == NULL || move_open(x) == -1 ||
        !mover_phase(x->m, x->phase, sizeof x->phase))
        return -1;
    if (!move_starts(x->phase, "whole"))
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
        move_open(x) == -1)
        return -1;
    move_sum(x, x->j->secret);
    if (!mover_judge(x->m) || !mover_look(x->m, &x->found) ||
        !mover_phase(x->m, x->phase, sizeof x->phase) || check_target(x) == -1 ||
        put_all(x) == -1)
        return -1;
    if (x->dry)
        return 0;
    if (close_and_rename(x) == -1 || (x->j = move_names(x, limits)) == NULL ||
        move_open(x) == -1)
        return -1;
    return end_into(x);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool
is_redis(const char *z)
{
    return strcmp(z, "redis") == 0 || move_starts(z, "redis://") || move_starts(z, "rediss://");
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
        rc = is_redis(from) ? move_out(&x, &limits) : into_redis(&x, &limits);
    if (x.m != NULL)
        mover_close(&x.m);
    if (x.j != NULL)
        journal_close(&x.j);
    route_table_unref(&x.routes);
    pool_free(&x.pool);
    return rc;
}
