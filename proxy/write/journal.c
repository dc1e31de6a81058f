/*
 * Opening and closing the journal, and what any thread may ask of it.
 *
 * Model    one process has a journal, by flock on PATH.lock, which stays there and says that PATH
 *          is ours (see journal_file.c). Three connections: the journal thread's, which alone
 *          writes; the checkpoint thread's; the write loop's, which reads.
 * Threads  journal_open and journal_close: one. Names and figures: any, under mtx.
 * Not here what is done with an operation (journal_write.c).
 */
#include "write/share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define READER_CACHE_KB 4096
#define START_US        2000000         /* a start waits so long for Redis */
#define WRITER_CACHE_KB 16384           /* an index page that is not in it costs a read(2) */

/* ---- the lock file -------------------------------------------------------------------------- */

static const char lock_text[] = "weir journal, process ";

/* Does a lock file of ours lie beside it? *pid: whose it says it is, or was. */
static bool
lock_read(const char *lock, long *pid)
{
    char text[64] = "";
    int fd = open(lock, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd != -1 ? read(fd, text, sizeof text - 1) : -1;

    if (fd != -1)
        close(fd);
    if (n < (ssize_t)sizeof lock_text - 1 || memcmp(text, lock_text, sizeof lock_text - 1) != 0)
        return false;
    *pid = strtol(text + sizeof lock_text - 1, NULL, 10);
    return true;
}

static int
lock_take(const char *path, const char *lock, struct err *e)
{
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    long pid = 0;

    if (fd == -1)
        return err_set(e, errno, "journal: cannot make %s: %s; the directory of journal.path must "
            "exist and be writable", lock, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    if (errno == EWOULDBLOCK) {
        lock_read(lock, &pid);
        err_set(e, EWOULDBLOCK, "journal %s: process %ld has it open (it holds %s); stop that one, "
            "or give this one a journal.path of its own", path, pid, lock);
    } else {
        err_set(e, errno, "journal: cannot lock %s: %s", lock, strerror(errno));
    }
    close(fd);
    return -1;
}

static int
lock_sign(int fd, const char *lock, struct err *e)
{
    char text[64];
    int n = snprintf(text, sizeof text, "%s%ld\n", lock_text, (long)getpid());

    if (pwrite(fd, text, (size_t)n, 0) != n || ftruncate(fd, n) == -1)
        return err_set(e, errno, "journal: cannot write %s: %s", lock, strerror(errno));
    return 0;
}

int
journal_lock(const char *path, struct err *e)
{
    char lock[PATH_MAX];
    int fd;

    if ((size_t)snprintf(lock, sizeof lock, "%s.lock", path) >= sizeof lock - 64)
        return err_set(e, ENAMETOOLONG, "journal %s: the path is too long", path);
    fd = lock_take(path, lock, e);
    if (fd != -1 && lock_sign(fd, lock, e) == -1) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- names ---------------------------------------------------------------------------------- */

/* At its place, with gaps before it where there was none. False: memory is out. */
bool
names_put(struct names *names, size_t at, struct slice name)
{
    char *copy = strndup(name.p, name.n);

    if (copy != NULL && at >= names->cap) {
        size_t cap = 2 * at + 16;
        char **grown = realloc(names->at, cap * sizeof *grown);

        if (grown != NULL) {
            names->at = grown;
            names->cap = cap;
        }
    }
    if (copy == NULL || at >= names->cap) {
        free(copy);
        return false;
    }
    while (names->n <= at)
        names->at[names->n++] = NULL;
    free(names->at[at]);
    names->at[at] = copy;
    return true;
}

void
names_clear(struct names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->at[i]);
    free(names->at);
    *names = (struct names){ 0 };
}

/* At which place, or names->n. */
static size_t
find_name(const struct names *names, struct slice name)
{
    size_t i;

    for (i = 0; i < names->n; i++)
        if (names->at[i] != NULL && slice_eq(slice_of(names->at[i]), name))
            break;
    return i;
}

/* ---- opening -------------------------------------------------------------------------------- */

static void
set_cache(sqlite3 *db, int kb)
{
    char sql[64];

    snprintf(sql, sizeof sql, "PRAGMA cache_size = -%d", kb);
    sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static void
close_connections(struct journal *j)
{
    file_close(&j->reader, j->read, READER_N);
    file_close(&j->wal_db, NULL, 0);
    file_close(&j->db, j->st, WRITER_N);
}

/* SQLITE_OK, or why not, with *e; nothing is open then. */
static int
open_file(struct journal *j, const struct journal_found *found, struct err *e)
{
    int rc = SQLITE_ERROR;

    if ((j->db = file_open(j->path, SQLITE_OPEN_READWRITE, e)) == NULL)
        return rc;
    rc = sqlite3_exec(j->db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", NULL, NULL,
        NULL);
    if (rc == SQLITE_OK && file_prepare(j->db, j->st, writer_sql, WRITER_N, e) == -1) {
        rc = sqlite3_errcode(j->db);
        if (rc == SQLITE_ERROR)         /* not the tables that the header promises */
            rc = SQLITE_CORRUPT;
    }
    j->synced = true;
    sqlite3_wal_hook(j->db, wal_hook, j);
    if (rc == SQLITE_OK)
        rc = journal_load(j, found);
    if (rc != SQLITE_OK) {
        if (e->text[0] == '\0')
            err_set(e, sqlite3_system_errno(j->db), "journal %s: %s", j->path, sqlite3_errstr(rc));
        close_connections(j);
        return rc;
    }
    j->reader = file_open(j->path, SQLITE_OPEN_READONLY, e);
    j->wal_db = j->reader != NULL ? file_open(j->path, SQLITE_OPEN_READWRITE, e) : NULL;
    if (j->wal_db == NULL || file_prepare(j->reader, j->read, reader_sql, READER_N, e) == -1) {
        close_connections(j);
        return SQLITE_CANTOPEN;
    }
    set_cache(j->db, WRITER_CACHE_KB);  /* what was read once is not kept */
    set_cache(j->reader, READER_CACHE_KB);
    sqlite3_wal_autocheckpoint(j->wal_db, 0);
    return SQLITE_OK;
}

/* The lock is held. */
static int
open_or_make(struct journal *j, enum file_kind kind, const struct journal_found *found,
    struct err *e)
{
    sqlite3 *new;
    int rc;

    if (kind == FILE_NONE) {
        if ((new = file_make(j->path, NULL, e)) == NULL || file_install(j->path, &new, e) == -1)
            return -1;
    } else if (kind == FILE_DAMAGED) {
        if (journal_set_aside(j, e->text, e) == -1)
            return -1;
    }
    e->text[0] = '\0';
    rc = open_file(j, found, e);
    if (is_damage(rc)) {
        if (journal_set_aside(j, e->text, e) == -1)
            return -1;
        e->text[0] = '\0';
        rc = open_file(j, found, e);
    }
    return rc == SQLITE_OK ? 0 : -1;
}

static int
start_threads(struct journal *j, struct err *e)
{
    int rc = pthread_create(&j->wal_thread, NULL, journal_wal_thread, j);

    if (rc != 0)
        return err_set(e, rc, "journal: no thread: %s", strerror(rc));
    rc = pthread_create(&j->writer_thread, NULL, journal_thread, j);
    if (rc != 0) {
        wal_end(j);
        return err_set(e, rc, "journal: no thread: %s", strerror(rc));
    }
    j->threads = true;
    return 0;
}

struct journal *
journal_new(const char *path, const struct journal_limits *limits)
{
    struct journal *j = calloc(1, sizeof *j);
    pthread_condattr_t monotonic;

    if (j == NULL || (j->path = strdup(path)) == NULL) {
        free(j);
        return NULL;
    }
    j->magic = JOURNAL_MAGIC;
    j->lock_fd = -1;
    j->limits = j->lim = *limits;
    j->queue_end = &j->queue;
    j->takes = true;
    j->why = "";
    pthread_mutex_init(&j->mtx, NULL);
    pthread_mutex_init(&j->wal_mtx, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&j->wake, &monotonic);
    pthread_cond_init(&j->wal_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    wal_limit(j);
    return j;
}

/* Where it is to be made. */
static int
check_directory(const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    int n = slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path);
    char directory[PATH_MAX];
    struct stat st;

    snprintf(directory, sizeof directory, "%.*s", n, slash == NULL ? "." : path);
    if (stat(directory, &st) == 0 && S_ISDIR(st.st_mode) && (slash == NULL || slash[1] != '\0'))
        return 0;
    err_set(e, 0, "journal %s: there is no directory %s; make it for weir's user (systemd: "
        "StateDirectory), or name a file in another as journal.path", path, directory);
    return 1;
}

int
writes_check(const char *path, struct err *e)
{
    char lock[PATH_MAX];
    enum file_kind kind;
    struct stat st;
    long pid;

    if (stat(path, &st) == -1)
        return check_directory(path, e);
    if (S_ISDIR(st.st_mode))
        return err_set(e, EISDIR, "journal %s: this is a directory; name a file in it as "
            "journal.path", path);
    snprintf(lock, sizeof lock, "%s.lock", path);
    e->code = 0;
    kind = file_look(path, O_RDONLY | O_NONBLOCK, lock_read(lock, &pid), e);
    if (kind != FILE_FOREIGN && kind != FILE_LATER)
        return 0;
    return e->code == 0 ? -1 : 1;
}

struct journal *
journal_open(const char *path, const struct journal_limits *limits,
    const struct journal_found *found, struct err *e)
{
    struct journal *j = journal_new(path, limits);
    char lock[PATH_MAX];
    enum file_kind kind;
    long pid;
    bool ours;

    if (j == NULL) {
        err_set(e, ENOMEM, "journal %s: memory is out", path);
        return NULL;
    }
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);     /* a lock for every allocation, else */
    if ((size_t)snprintf(lock, sizeof lock, "%s.lock", path) >= sizeof lock - 64) {
        err_set(e, ENAMETOOLONG, "journal %s: the path is too long", path);
        goto fail;
    }
    ours = lock_read(lock, &pid);
    kind = file_look(path, O_RDWR, ours, e);
    if (kind == FILE_FOREIGN || kind == FILE_LATER)
        goto fail;
    if ((j->lock_fd = lock_take(path, lock, e)) == -1 || file_install_left(path, e) == -1)
        goto fail;
    kind = file_look(path, O_RDWR, ours, e);    /* now nobody else changes it */
    if (kind == FILE_FOREIGN || kind == FILE_LATER || lock_sign(j->lock_fd, lock, e) == -1
        || open_or_make(j, kind, found, e) == -1)
        goto fail;
    journal_publish(j);
    j->condemned = found->condemned;
    j->condemned_arg = found->arg;
    if (start_threads(j, e) == -1)
        goto fail;
    return j;

fail:
    journal_close(&j);
    return NULL;
}

struct journal *
journal_open_share(const struct share_options *o, const struct journal_limits *limits,
    const struct journal_found *found, struct err *e)
{
    struct journal *j = journal_new("in Redis", limits);

    if (j == NULL) {
        err_set(e, ENOMEM, "journal: memory is out");
        return NULL;
    }
    j->share = share_open(o, j, found, e);
    if (j->share == NULL)
        journal_close(&j);
    return j;
}

enum conf_write_durable
share_promised(const struct conf *c)
{
    enum conf_write_durable most = WRITE_MEMORY;

    for (size_t i = 0; i < c->nroutes; i++)
        if (c->routes[i].policy == POLICY_WRITE_BACK && c->routes[i].write_durability < most)
            most = c->routes[i].write_durability;
    return most;
}

int
share_options_of(const struct conf *c, struct pool *p, struct redis_conf *redis,
    struct share_options *o, struct err *e)
{
    *o = (struct share_options){ .redis = redis, .prefix = c->journal_redis.prefix,
        .timeout_ms = c->journal_redis_timeout_ms, .lease_ms = c->journal_redis_lease_ms,
        .replicas = (unsigned)c->journal_redis_replicas, .durable = share_promised(c) };
    if (strlen(o->prefix) > SHARE_PREFIX || strpbrk(o->prefix, "{}") != NULL)
        return err_set(e, EINVAL, "journal.redis.prefix: it is longer than %d bytes, or has a "
            "brace", SHARE_PREFIX);
    return redis_conf_of(&c->journal_redis, p, redis, e) == 1 ? 0 : -1;
}

struct journal *
journal_open_shared(const struct conf *c, const struct journal_limits *limits,
    const struct journal_found *found, struct err *e)
{
    struct pool *p = pool_new();
    struct redis_conf redis;
    struct share_options o;
    struct journal *j = NULL;

    if (p == NULL)
        err_set(e, ENOMEM, "journal: memory is out");
    else if (share_options_of(c, p, &redis, &o, e) == 0)
        j = journal_open_share(&o, limits, found, e);
    if (j != NULL)
        share_await(j->share, START_US);
    pool_free(&p);
    return j;
}

void
journal_close(struct journal **jp)
{
    struct journal *j = *jp;

    *jp = NULL;
    CHECK(j, JOURNAL_MAGIC);
    if (j->share != NULL)
        share_close(&j->share);
    if (j->threads) {
        pthread_mutex_lock(&j->mtx);
        j->closing = true;
        pthread_cond_signal(&j->wake);
        pthread_mutex_unlock(&j->mtx);
        pthread_join(j->writer_thread, NULL);
        wal_end(j);
    }
    close_connections(j);
    if (j->lock_fd != -1)
        close(j->lock_fd);
    names_clear(&j->routes);
    names_clear(&j->paused);
    buf_free(&j->read_bytes);
    pthread_cond_destroy(&j->wal_wake);
    pthread_cond_destroy(&j->wake);
    pthread_mutex_destroy(&j->wal_mtx);
    pthread_mutex_destroy(&j->mtx);
    free(j->path);
    j->magic = 0;
    free(j);
}

/* ---- what any thread may ask ---------------------------------------------------------------- */

const uint8_t *
journal_secret(const struct journal *j)
{
    return j->share != NULL ? atomic_load(&j->share->secret) : j->secret;
}

bool
journal_shared(const struct journal *j)
{
    return j->share != NULL;
}

bool
journal_owns(struct journal *j, unsigned part)
{
    return j->share == NULL || share_owns(j->share, part);
}

uint64_t
journal_fence(struct journal *j, unsigned part)
{
    return j->share != NULL ? share_fence(j->share, part) : 0;
}

void
journal_leave(struct journal *j)
{
    if (j->share != NULL)
        share_leave(j->share);
}

void
journal_left(struct journal *j, unsigned part)
{
    if (j->share != NULL)
        share_left(j->share, part);
}

void
journal_limits(struct journal *j, const struct journal_limits *limits)
{
    pthread_mutex_lock(&j->mtx);
    j->limits = *limits;
    pthread_mutex_unlock(&j->mtx);
}

void
journal_figures(struct journal *j, struct journal_figures *f)
{
    pthread_mutex_lock(&j->mtx);
    *f = j->figures;
    pthread_mutex_unlock(&j->mtx);
}

/* The journal thread stores a new one with the next transaction, so before any row that names it.
 * 0: memory is out. */
uint32_t
journal_route(struct journal *j, struct slice name)
{
    size_t i;

    pthread_mutex_lock(&j->mtx);
    i = find_name(&j->routes, name);
    if (i == j->routes.n && !names_put(&j->routes, i, name))
        i = SIZE_MAX;
    pthread_mutex_unlock(&j->mtx);
    return (uint32_t)(i + 1);
}

uint32_t
journal_routes(struct journal *j)
{
    uint32_t n;

    pthread_mutex_lock(&j->mtx);
    n = (uint32_t)j->routes.n;
    pthread_mutex_unlock(&j->mtx);
    return n;
}

struct slice
journal_route_name(struct journal *j, uint32_t number)
{
    struct slice name = { NULL, 0 };

    pthread_mutex_lock(&j->mtx);
    if (number != 0 && number <= j->routes.n)
        name = slice_of(j->routes.at[number - 1]);
    pthread_mutex_unlock(&j->mtx);
    return name;
}

bool
journal_paused(struct journal *j, struct slice name)
{
    bool paused;

    pthread_mutex_lock(&j->mtx);
    paused = find_name(&j->paused, name) < j->paused.n;
    pthread_mutex_unlock(&j->mtx);
    return paused;
}

bool
journal_paused_are(struct journal *j, const struct slice *names, size_t n)
{
    struct names all = { 0 };
    bool same;

    pthread_mutex_lock(&j->mtx);
    same = j->paused.n == n;
    for (size_t i = 0; same && i < n; i++)
        same = find_name(&j->paused, names[i]) < j->paused.n;
    for (size_t i = 0; !same && i < n; i++)
        if (!names_put(&all, all.n, names[i]))
            log_error("journal %s: memory is out: %.*s is not paused here", j->path,
                SLICE_ARG(names[i]));
    if (!same) {
        names_clear(&j->paused);
        j->paused = all;
    }
    pthread_mutex_unlock(&j->mtx);
    return !same;
}

/* The journal thread, after the commit that says so. */
void
journal_set_paused(struct journal *j, struct slice name, bool on)
{
    size_t at;

    pthread_mutex_lock(&j->mtx);
    at = find_name(&j->paused, name);
    if (on && at == j->paused.n) {
        if (!names_put(&j->paused, at, name))
            log_error("journal %s: memory is out: %.*s is not paused before a restart", j->path,
                SLICE_ARG(name));
    } else if (!on && slice_eq(name, SLICE("all"))) {
        names_clear(&j->paused);
    } else if (!on && at < j->paused.n) {
        free(j->paused.at[at]);
        j->paused.at[at] = j->paused.at[--j->paused.n];
    }
    pthread_mutex_unlock(&j->mtx);
}
