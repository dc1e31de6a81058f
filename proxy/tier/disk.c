/*
 * The disk tier: opening and closing, and what loops hand to its threads.
 *
 * Model    a directory with an SQLite file, cache.db, and the ring of purges, purges. One thread
 *          writes, two read; loops only queue. What waits to be written is bounded in bytes and
 *          beyond that is dropped; purges are never dropped (disk_ring.c).
 * Peers    nginx keeps a file a response and bounds its cache from beside, by a manager that runs
 *          behind the writers: floods pass its limit (nginx#868), and its loader must read every
 *          file before it knows what it has. trafficserver keeps one ring of bytes and syncs its
 *          directory every minute: a purge takes the entry in the directory away, the bytes stay,
 *          and nobody can say until when (trafficserver#8984, #3496). varnish's file storage
 *          forgets all at a restart. badger, which Souin uses, replays or truncates its log after a
 *          crash, for minutes (badger#676). Hence: room is made before a row is put; purges are
 *          durable against the end of the process before they are reported, without waiting for the
 *          disk, and overwrite; a start reads nothing but what the last process left in the ring.
 * Start    the directory is this process's alone (flock). After a crash it goes on where it was:
 *          the kernel has what was written. After a power failure it begins empty, as it does
 *          where the file is damaged, of another schema, or larger than the size now allows.
 * Threads  disk_open and disk_close: one. Else any.
 */
#include "tier/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "stats/stats.h"

#define SHARE       80                  /* of the size: see disk_write.c */
#define WAL_MAX     ((int64_t)64 << 20)
#define VALUE_MAX   ((int64_t)512 << 20)
#define RING_SHARE  256
#define RING_MAX    ((int64_t)4 << 20)
#define SHM         65536               /* SQLite's index of the WAL */
#define SLACK       32                  /* pages that splitting tables may take unforeseen */
#define QUEUE_SHARE 16
#define QUEUE_MAX   ((uint64_t)64 << 20)
#define CLOSE_US    ((int64_t)5000000)

/* ---- opening -------------------------------------------------------------------------------- */

static int64_t
least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t
ring_bytes(int64_t size)
{
    return least(size / RING_SHARE, RING_MAX);
}

static void
divide(struct disk *d, const struct tier_options *o)
{
    int64_t share = o->disk_size / SHARE;

    d->size = o->disk_size;
    d->max_value = least(least(share, VALUE_MAX), o->disk_max_object);
    d->wal_pages = (uint32_t)(least(share, WAL_MAX) / DISK_PAGE);
    d->max_pages = (uint32_t)least((d->size - 3 * share - ring_bytes(d->size) - SHM) / DISK_PAGE,
        UINT32_MAX - 1);
    d->high_pages = d->max_pages - SLACK;
}

static int
make_directory(struct disk *d, const struct tier_options *o, struct err *e)
{
    if (strlen(o->disk_path) + 16 >= sizeof d->path)
        return err_set(e, ENAMETOOLONG, "cache.disk.path is too long");
    snprintf(d->path, sizeof d->path, "%s", o->disk_path);
    snprintf(d->file, sizeof d->file, "%s/cache.db", o->disk_path);
    if (mkdir(d->path, 0700) == -1 && errno != EEXIST)
        return err_set(e, errno, "cache.disk: cannot make the directory %s: %s; the one that it is "
            "in must exist and be writable", d->path, strerror(errno));
    return 0;
}

/* What is there that must not be read goes. -1: it is not ours to take away. */
static int
clear(struct disk *d, enum ring_state was, struct err *e)
{
    uint64_t seq;

    switch (disk_file_look(d, was != RING_NEW, e)) {
    case FILE_FOREIGN:
        return -1;
    case FILE_DAMAGED:
        log_warn("cache.disk %s: it is damaged; it is set aside as %s" FILE_ASIDE ", and a new one "
            "begun", d->file, d->file);
        disk_file_set_aside(d);
        break;
    case FILE_OTHER_SCHEMA:
        log_info("cache.disk %s: it is of another version of Weir; a new one is begun", d->file);
        disk_file_remove(d);
        break;
    case FILE_OURS:
        if (was != RING_CLEAN)
            log_warn("cache.disk %s: it was not closed before the machine stopped, or its purges "
                "are lost; it begins empty", d->path);
        if (was != RING_CLEAN || ring_overflowed(&d->ring, &seq))
            disk_file_remove(d);
        break;
    case FILE_NONE:
        break;
    }
    if (ring_overflowed(&d->ring, &seq))
        ring_free_all(&d->ring, seq);
    return 0;
}

/* A file that cannot be opened is not worth a start that fails: without it there may be room. */
static int
open_file(struct disk *d, struct err *e)
{
    struct err first = { 0 };
    int rc = disk_file_open_writer(d, &first);

    if (rc == SQLITE_OK)
        return 0;
    log_warn("%s; %s", first.text, disk_file_is_damage(rc) ? "it is damaged, is set aside, and a "
        "new one begun" : "it is removed, and a new one begun");
    if (disk_file_is_damage(rc))
        disk_file_set_aside(d);
    else
        disk_file_remove(d);
    return disk_file_open_writer(d, e) == SQLITE_OK ? 0 : -1;
}

static int
fit(struct disk *d, struct err *e)
{
    if (sqlite3_step(d->st[W_PAGES]) == SQLITE_ROW &&
        sqlite3_column_int64(d->st[W_PAGES], 0) > d->max_pages) {
        log_info("cache.disk %s: it is larger than cache.disk.size allows; a new one is begun",
            d->file);
        sqlite3_reset(d->st[W_PAGES]);
        disk_file_close(&d->db, d->st, WRITER_N);
        disk_file_remove(d);
        return open_file(d, e);
    }
    sqlite3_reset(d->st[W_PAGES]);
    return 0;
}

static int
open_all(struct disk *d, const struct tier_options *o, struct err *e)
{
    char purges[PATH_MAX];
    enum ring_state was;

    if (make_directory(d, o, e) == -1)
        return -1;
    snprintf(purges, sizeof purges, "%.*s/purges", PATH_MAX - 16, d->path);
    if (ring_open(&d->ring, purges, ring_bytes(d->size), &was, e) == -1)
        return -1;
    if (clear(d, was, e) == 0) {
        if (ring_begin(&d->ring) == -1)
            err_set(e, errno, "cache.disk: cannot write %s: %s", purges, strerror(errno));
        else if (open_file(d, e) == 0 && fit(d, e) == 0)
            return 0;
        disk_file_close(&d->db, d->st, WRITER_N);
    }
    ring_close(&d->ring, false);
    d->ring.head = NULL;
    return -1;
}

static struct disk *
make(const struct tier_options *o, struct store *s)
{
    struct disk *d = calloc(1, sizeof *d);
    pthread_rwlockattr_t writer_first;
    pthread_condattr_t monotonic;

    if (d == NULL)
        return NULL;
    divide(d, o);
    d->store = s;
    d->puts_end = &d->puts;
    d->waiting_end = &d->waiting;
    d->index_lost = true;
    pthread_mutex_init(&d->mtx, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&d->asks_mtx, NULL);
    pthread_cond_init(&d->asks_wake, NULL);
    pthread_rwlockattr_init(&writer_first);
    pthread_rwlockattr_setkind_np(&writer_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&d->renew, &writer_first);
    pthread_rwlockattr_destroy(&writer_first);
    if (index_init(&d->index, d->size) == -1)
        disk_close(&d);
    return d;
}

/* ---- what the store tells ------------------------------------------------------------------- */

static void
on_purge(void *arg, const struct store_purge *p, uint64_t seq)
{
    const struct ring_entry e = { .kind = (uint8_t)p->kind, .id = p->id, .seq = seq,
        .soft = p->soft ? (p->doubt ? TIER_DOUBT : TIER_SOFT) : TIER_FIRM, .text = p->text };
    struct disk *d = arg;

    pthread_mutex_lock(&d->mtx);
    if (!d->yielded)
        ring_put(&d->ring, &e);
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->mtx);
}

void
disk_drop_later(struct disk *d, const struct object *o)
{
    uint64_t variant;
    struct ring_entry e = disk_drop(o, &variant);

    pthread_mutex_lock(&d->mtx);
    if (!d->yielded)
        ring_put(&d->ring, &e);
    disk_cell(d, e.id)->told++;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->mtx);
}

static void
on_drop(void *arg, const struct object *o)
{
    disk_drop_later(arg, o);
}

static int
start(struct disk *d, struct err *e)
{
    int rc;

    d->old_end = ring_end(&d->ring);
    atomic_store(&d->ready, ring_empty(&d->ring));
    atomic_store(&d->applied, store_stamp(d->store));
    rc = pthread_create(&d->writer, NULL, disk_writer, d);
    d->started = rc == 0;
    for (size_t i = 0; i < NELEM(d->readers) && rc == 0; i++) {
        d->readers[i].disk = d;
        rc = pthread_create(&d->readers[i].thread, NULL, disk_read, &d->readers[i]);
        d->readers[i].started = rc == 0;
    }
    if (rc != 0)
        return err_set(e, rc, "cache.disk: cannot start a thread: %s", strerror(rc));
    store_on_purge(d->store, on_purge, d);
    store_on_drop(d->store, on_drop, d);
    return 0;
}

struct disk *
disk_open(const struct tier_options *o, struct store *s, struct err *e)
{
    struct disk *d = make(o, s);

    if (d == NULL) {
        err_set(e, ENOMEM, "cache.disk: memory is out");
        return NULL;
    }
    if (open_all(d, o, e) == -1 || start(d, e) == -1)
        disk_close(&d);
    return d;
}

/* ---- closing -------------------------------------------------------------------------------- */

/* It cannot be ended otherwise: where the disk never answers, the supervisor's kill is the end, and
 * what was purged is not lost by it. */
static void
join(struct disk *d, pthread_t thread, bool *said)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2 * CLOSE_US / 1000000;
    if (!*said && pthread_timedjoin_np(thread, NULL, &until) == 0)
        return;
    if (!*said)
        log_warn("cache.disk %s: the disk does not answer, and the stop waits for it; a kill loses "
            "no purge", d->file);
    *said = true;
    pthread_join(thread, NULL);
}

static void
stop_threads(struct disk *d)
{
    bool said = false;

    pthread_mutex_lock(&d->asks_mtx);
    d->asks_stop = true;
    pthread_cond_broadcast(&d->asks_wake);
    pthread_mutex_unlock(&d->asks_mtx);
    for (size_t i = 0; i < NELEM(d->readers); i++)
        if (d->readers[i].started)
            join(d, d->readers[i].thread, &said);
    pthread_mutex_lock(&d->mtx);
    d->stop = true;
    d->stop_us = now_us() + CLOSE_US;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->mtx);
    if (d->started)
        join(d, d->writer, &said);
}

static void
close_files(struct disk *d)
{
    bool whole = d->db != NULL && disk_write_checkpoint(d, true) == SQLITE_OK;

    for (size_t i = 0; i < NELEM(d->readers); i++)
        disk_file_close(&d->readers[i].db, d->readers[i].st, READER_N);
    disk_file_close(&d->db, d->st, WRITER_N);
    ring_close(&d->ring, whole);
    d->ring.head = NULL;
}

static void
end(struct disk *d)
{
    stop_threads(d);
    pthread_mutex_lock(&d->mtx);
    d->yielded = true;
    pthread_mutex_unlock(&d->mtx);
    if (d->ring.head != NULL)
        close_files(d);
}

void
disk_yield(struct disk *d)
{
    end(d);
    disk_read_end(d);
}

void
disk_close(struct disk **dp)
{
    struct disk *d = *dp;

    *dp = NULL;
    if (d == NULL)
        return;
    if (!d->yielded)
        end(d);
    for (struct disk_ask *a = d->asks, *older; a != NULL; a = older) {
        older = a->older;
        disk_ask_free(a);
    }
    for (struct disk_erase *e = d->erases_all, *next; e != NULL; e = next) {
        next = e->next_all;
        timer_fini(&e->late);
        free(e);
    }
    index_fini(&d->index);
    pthread_rwlock_destroy(&d->renew);
    pthread_mutex_destroy(&d->mtx);
    pthread_mutex_destroy(&d->asks_mtx);
    free(d);
}

/* ---- keeping -------------------------------------------------------------------------------- */

static uint64_t
queue_limit(const struct disk *d)
{
    uint64_t share = (uint64_t)d->size / QUEUE_SHARE;

    return share < QUEUE_MAX ? share : QUEUE_MAX;
}

/* false: too much waits, or nothing is kept for now. */
static bool
queue_put(struct disk *d, struct object *o, uint64_t key, uint64_t bytes)
{
    struct disk_put *p = malloc(sizeof *p);
    bool room;

    if (p == NULL)
        return false;
    *p = (struct disk_put){ .o = object_ref(o), .bytes = bytes + sizeof *p, .key = key,
        .noted = index_may_have(&d->index, key) };
    pthread_mutex_lock(&d->mtx);
    room = !d->yielded && !atomic_load(&d->failing) && d->queued + p->bytes <= queue_limit(d);
    if (room) {
        d->queued += p->bytes;
        disk_cell(d, key)->told += p->noted;
        *d->puts_end = p;
        d->puts_end = &p->next;
        pthread_cond_signal(&d->wake);
    }
    pthread_mutex_unlock(&d->mtx);
    if (!room) {
        object_unref(&p->o);
        free(p);
    }
    return room;
}

/* What is not kept goes before an older response of its kind, which is not to be found when memory
 * has this one no more. After a kill it may be, where this one still waited to be written: it is
 * used as long as it is fresh by its own word (RFC 9111 4.2), as by a cache that never had the
 * other; to note each response that replaces one in the ring would cost every one of them that
 * much more. */
void
disk_put(struct disk *d, struct object *o)
{
    uint64_t bytes = body_size(o->body) + o->head->n;
    uint64_t key = key_hash(store_identity(o).key);
    bool fits = !(o->meta.flags & META_PARTIAL) && bytes <= (uint64_t)d->max_value;

    if (fits && queue_put(d, o, key, bytes))
        return;
    if (fits)
        COUNT(disk_drops);
    if (index_may_have(&d->index, key))
        disk_drop_later(d, o);
}

/* ---- erasing -------------------------------------------------------------------------------- */

int64_t disk_erase_us = 60000000;       /* a constant, but in tests */

static void
on_erased(struct loop_msg *m)
{
    struct disk_erase *e = CONTAINER(m, struct disk_erase, msg), **at;
    void (*done)(void *arg, bool ok) = e->done;
    struct disk *d = e->disk;
    void *arg = e->arg;
    bool ok = e->ok, told = e->told;

    pthread_mutex_lock(&d->mtx);
    for (at = &d->erases_all; *at != e;)
        at = &(*at)->next_all;
    *at = e->next_all;
    pthread_mutex_unlock(&d->mtx);
    timer_fini(&e->late);
    free(e);
    if (!told)
        done(arg, ok);
}

/* The writer goes on with it; who asks again hears of it. */
static void
on_erase_late(void *arg)
{
    struct disk_erase *e = arg;

    log_warn("cache.disk %s: bytes are not erased after %lld s: there is much to do, or the disk "
        "does not answer; it is gone on with", e->disk->file,
        (long long)(disk_erase_us / 1000000));
    e->told = true;
    e->done(e->arg, false);
}

int
disk_erase(struct disk *d, struct loop *l, void (*done)(void *arg, bool ok), void *arg)
{
    struct disk_erase *e = malloc(sizeof *e);

    if (e == NULL)
        return -1;
    *e = (struct disk_erase){ .msg.run = on_erased, .disk = d, .loop = l, .done = done,
        .arg = arg };
    if (timer_init(&e->late, l, on_erase_late, e) == -1 ||
        timer_set(&e->late, disk_erase_us) == -1) {
        timer_fini(&e->late);
        free(e);
        return -1;
    }
    pthread_mutex_lock(&d->mtx);
    e->next = d->erases;
    d->erases = e;
    e->next_all = d->erases_all;
    d->erases_all = e;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->mtx);
    return 0;
}

void
disk_figures(struct disk *d, struct tier_figures *f)
{
    *f = (struct tier_figures){ .limit = (uint64_t)d->size,
        .bytes = (uint64_t)atomic_load(&d->used_pages) * DISK_PAGE,
        .failing = atomic_load(&d->failing) };
    pthread_mutex_lock(&d->index.lock);
    f->objects = d->index.live;
    f->loading = !d->index.loaded || !atomic_load(&d->ready);
    pthread_mutex_unlock(&d->index.lock);
    pthread_mutex_lock(&d->mtx);
    f->queued_bytes = d->queued;
    pthread_mutex_unlock(&d->mtx);
}
