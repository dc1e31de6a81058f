/*
 * The disk tier's readers: what is under a key is put into memory.
 *
 * Model    a reader notes which purges the file has, then looks: what it finds survived those, and
 *          is put with that number as its stamp, so that memory refuses it where a later purge
 *          matches. All variants under the key are put, the oldest first, so that the newest is
 *          found first. What memory has already, and no older, is left alone there. What is soft on
 *          disk is soft in memory from the first. What was dropped, or replaced, and is in the file
 *          yet is not used: there the cells of disk.h say so.
 * Late     who asked waits DISK_PATIENCE_US and no longer, whatever the disk does; then nobody is
 *          sent there until it has answered again.
 * Threads  as many readers as DISK_READERS says; asks come and are answered on their loops.
 */
#include "tier/disk.h"

#include <stdlib.h>

#include "stats/stats.h"

/* ---- promoting ------------------------------------------------------------------------------ */

/* What the file is as good as: purges up to the stamp, drops as far as they were told. */
struct state { uint64_t stamp; uint32_t told; };

/* false: a drop or a put of this key is on its way to the file. */
static bool
note_state(struct disk *d, uint64_t key, struct state *at)
{
    const struct disk_cell *c = disk_cell(d, key);
    bool settled;

    at->stamp = atomic_load_explicit(&d->applied, memory_order_acquire);
    pthread_mutex_lock(&d->mtx);
    at->told = c->told;
    settled = c->told == c->done;
    pthread_mutex_unlock(&d->mtx);
    return settled;
}

/* A drop that came in between found nothing in memory yet. */
static bool
stays(struct disk *d, uint64_t key, struct object *o, const struct state *at)
{
    struct state now;
    bool same;

    note_state(d, key, &now);
    same = now.told == at->told;
    if (!same)
        store_drop(d->store, o);
    object_unref(&o);
    return same;
}

/* A row that is of no use is removed, sooner or later: what does not fit here is found again. */
static void
spend(struct disk *d, uint32_t id)
{
    pthread_mutex_lock(&d->mtx);
    if (d->nspent < NELEM(d->spent)) {
        d->spent[d->nspent++] = id;
        pthread_cond_signal(&d->wake);
    }
    pthread_mutex_unlock(&d->mtx);
}

static bool
promote(struct disk *d, const struct disk_ask *a, uint32_t id, struct slice in,
    const struct state *at, enum tier_soft soft)
{
    struct object *o = NULL;
    struct value v;
    enum value_verdict verdict = value_decode(in, &v);
    enum store_result put;

    if (verdict == VALUE_BAD)
        COUNT(disk_bad);
    if (verdict != VALUE_GOOD || (slice_eq(v.key, a->key.bytes) && !value_useful(&v, wall_ms()))) {
        spend(d, id);
        return false;
    }
    if (!slice_eq(v.key, a->key.bytes))
        return false;
    index_touch(&d->index, id, a->key.hash);
    put = tier_promote(d->store, &v, at->stamp, soft, &o);
    if (put == STORE_TOO_LARGE)         /* memory was larger: it would be read in vain again */
        spend(d, id);
    if (put != STORE_STORED && put != STORE_OLDER)
        return false;
    return o == NULL || stays(d, a->key.hash, o, at);
}

/* ---- reading -------------------------------------------------------------------------------- */

struct rows { uint32_t id[DISK_VARIANTS]; enum tier_soft soft[DISK_VARIANTS]; size_t n; };

static int
find_rows(struct disk_reader *r, uint64_t key, struct rows *rows)
{
    sqlite3_stmt *st = r->st[R_FIND];
    int rc;

    rows->n = 0;
    sqlite3_bind_int64(st, 1, (int64_t)key);
    while ((rc = sqlite3_step(st)) == SQLITE_ROW && rows->n < DISK_VARIANTS) {
        rows->id[rows->n] = (uint32_t)sqlite3_column_int64(st, 0);
        rows->soft[rows->n++] = (enum tier_soft)sqlite3_column_int(st, 1);
    }
    sqlite3_reset(st);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int
read_row(struct disk_reader *r, const struct disk_ask *a, uint32_t id, const struct state *at,
    enum tier_soft soft, bool *found)
{
    sqlite3_stmt *st = r->st[R_VALUE];
    int rc;

    sqlite3_bind_int64(st, 1, id);
    rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        struct slice in = { sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0) };

        *found |= promote(r->disk, a, id, in, at, soft);
    }
    sqlite3_reset(st);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int
step(struct disk_reader *r, int statement)
{
    int rc = sqlite3_step(r->st[statement]);

    sqlite3_reset(r->st[statement]);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* In one transaction: rows and values are of one state of the file. */
static int
look_up(struct disk_reader *r, const struct disk_ask *a, bool *found)
{
    struct state at;
    struct rows rows;
    int rc;

    if (!note_state(r->disk, a->key.hash, &at))
        return SQLITE_OK;
    if ((rc = step(r, R_BEGIN)) != SQLITE_OK)
        return rc;
    rc = find_rows(r, a->key.hash, &rows);
    for (size_t i = rows.n; i > 0 && rc == SQLITE_OK; i--)
        rc = read_row(r, a, rows.id[i - 1], &at, rows.soft[i - 1], found);
    step(r, R_END);
    return rc;
}

/* Under renew. */
static void
answer(struct disk_reader *r, struct disk_ask *a)
{
    struct disk *d = r->disk;
    struct err e = { 0 };
    bool found = false;
    int rc = SQLITE_OK;

    if (d->db == NULL)
        return;                         /* there is no file for now */
    if (r->db == NULL)
        rc = disk_file_open_reader(d, &r->db, r->st, &e);
    if (rc == SQLITE_OK)
        rc = look_up(r, a, &found);
    if (rc != SQLITE_OK)
        COUNT(disk_failures);
    if (disk_file_is_damage(rc)) {
        pthread_mutex_lock(&d->mtx);
        d->damaged = true;
        pthread_cond_signal(&d->wake);
        pthread_mutex_unlock(&d->mtx);
    }
    if (found)
        a->answer = TIER_FOUND;
}

/* ---- asks ----------------------------------------------------------------------------------- */

static struct disk_ask **
bucket(struct disk *d, const struct key *k)
{
    return &d->reads[k->hash % NELEM(d->reads)];
}

/* Under asks_mtx. */
static void
list_ask(struct disk *d, struct disk_ask *a)
{
    if ((a->older = d->asks) != NULL)
        d->asks->newer = a;
    d->asks = a;
}

static void
unlink_ask(struct disk_ask *a)
{
    struct disk *d = a->disk;

    pthread_mutex_lock(&d->asks_mtx);
    if (a->newer != NULL)
        a->newer->older = a->older;
    else
        d->asks = a->older;
    if (a->older != NULL)
        a->older->newer = a->newer;
    pthread_mutex_unlock(&d->asks_mtx);
}

void
disk_ask_free(struct disk_ask *a)
{
    timer_fini(&a->late);
    free(a);
}

static void
on_answer(struct loop_msg *m)
{
    struct disk_ask *a = CONTAINER(m, struct disk_ask, msg);
    void (*done)(void *arg, enum tier_answer) = a->done;
    enum tier_answer what = a->answer;
    bool cancelled = atomic_load(&a->cancelled);
    void *arg = a->arg;

    unlink_ask(a);
    disk_ask_free(a);
    if (!cancelled)
        done(arg, what);
}

/* What is read already is put into memory, for those who come later. */
static void
on_late(void *arg)
{
    struct disk_ask *a = arg;
    struct disk *d = a->disk;
    bool late;

    pthread_mutex_lock(&d->asks_mtx);
    if ((late = !a->answered))
        atomic_store(&d->slow, true);
    pthread_mutex_unlock(&d->asks_mtx);
    if (!late)
        return;
    COUNT(disk_late);
    atomic_store(&a->cancelled, true);
    a->done(a->arg, TIER_NONE);
}

void
disk_cancel(struct disk_ask **ap)
{
    struct disk_ask *a = *ap;

    *ap = NULL;
    if (a == NULL)
        return;
    timer_clear(&a->late);
    atomic_store(&a->cancelled, true);
}

static struct disk_ask *
new_ask(struct disk *d, struct loop *l, const struct key *k,
    void (*done)(void *arg, enum tier_answer a), void *arg)
{
    struct disk_ask *a = calloc(1, sizeof *a + k->bytes.n);

    if (a == NULL)
        return NULL;
    a->msg.run = on_answer;
    a->disk = d;
    a->loop = l;
    a->done = done;
    a->arg = arg;
    a->key = *k;
    memcpy(a->text, k->bytes.p, k->bytes.n);
    a->key.bytes.p = a->text;
    if (timer_init(&a->late, l, on_late, a) == 0 && timer_set(&a->late, DISK_PATIENCE_US) == 0)
        return a;
    disk_ask_free(a);
    return NULL;
}

/* Behind one for the same key, or to be read. false: too many ask already. */
static bool
queue_ask(struct disk *d, struct disk_ask *a)
{
    struct disk_ask **at = bucket(d, &a->key), *first;
    bool room;

    pthread_mutex_lock(&d->asks_mtx);
    for (first = *at; first != NULL; first = first->beside)
        if (first->key.hash == a->key.hash && slice_eq(first->key.bytes, a->key.bytes))
            break;
    room = !d->asks_stop && (first != NULL || d->nreads < DISK_ASKS);
    if (room)
        list_ask(d, a);
    if (room && first != NULL) {
        a->others = first->others;
        first->others = a;
    } else if (room) {
        d->nreads++;
        a->beside = *at;
        *at = a;
        *d->waiting_end = a;
        d->waiting_end = &a->next;
        pthread_cond_signal(&d->asks_wake);
    }
    pthread_mutex_unlock(&d->asks_mtx);
    return room;
}

struct disk_ask *
disk_get(struct disk *d, struct loop *l, const struct key *k,
    void (*done)(void *arg, enum tier_answer a), void *arg)
{
    struct disk_ask *a;

    if (!index_may_have(&d->index, k->hash)) {
        COUNT(disk_misses);
        return NULL;
    }
    a = !atomic_load(&d->slow) ? new_ask(d, l, k, done, arg) : NULL;
    if (a != NULL && queue_ask(d, a))
        return a;
    COUNT(disk_unasked);
    if (a != NULL)
        disk_ask_free(a);
    return NULL;
}

/* Those that came while it was read have its answer too: whoever looks again finds what it
 * brought. */
static void
answered(struct disk *d, struct disk_ask *a)
{
    struct disk_ask **at = bucket(d, &a->key);
    enum tier_answer what = a->answer;

    pthread_mutex_lock(&d->asks_mtx);
    while (*at != a)
        at = &(*at)->beside;
    *at = a->beside;
    d->nreads--;
    atomic_store(&d->slow, false);
    for (struct disk_ask *next; a != NULL; a = next) {
        next = a->others;
        a->answer = what;
        a->answered = true;
        loop_post(a->loop, &a->msg);
    }
    pthread_mutex_unlock(&d->asks_mtx);
}

/* ---- the thread ----------------------------------------------------------------------------- */

void
disk_set(struct disk *d, atomic_bool *what, bool to)
{
    pthread_mutex_lock(&d->asks_mtx);
    atomic_store(what, to);
    pthread_cond_broadcast(&d->asks_wake);
    pthread_mutex_unlock(&d->asks_mtx);
}

/* At a start they wait until the purges of the last process are in the file, unless it fails. */
static struct disk_ask *
next_ask(struct disk *d)
{
    struct disk_ask *a = NULL;

    pthread_mutex_lock(&d->asks_mtx);
    while (!d->asks_stop && ((a = d->waiting) == NULL ||
            !(atomic_load(&d->ready) || atomic_load(&d->failing))))
        pthread_cond_wait(&d->asks_wake, &d->asks_mtx);
    if (d->asks_stop)
        a = NULL;
    else if ((d->waiting = a->next) == NULL)
        d->waiting_end = &d->waiting;
    pthread_mutex_unlock(&d->asks_mtx);
    return a;
}

/* Somebody still waits for it. */
static bool
is_wanted(struct disk *d, const struct disk_ask *a)
{
    bool wanted = false;

    pthread_mutex_lock(&d->asks_mtx);
    for (; a != NULL && !wanted; a = a->others)
        wanted = !atomic_load(&a->cancelled);
    pthread_mutex_unlock(&d->asks_mtx);
    return wanted;
}

void *
disk_read(void *arg)
{
    struct disk_reader *r = arg;
    struct disk *d = r->disk;
    struct disk_ask *a;

    rcu_enter_thread();
    while ((a = next_ask(d)) != NULL) {
        if (atomic_load(&d->ready) && is_wanted(d, a)) {
            pthread_rwlock_rdlock(&d->renew);
            answer(r, a);
            pthread_rwlock_unlock(&d->renew);
            if (a->answer == TIER_FOUND)
                COUNT(disk_hits);
            else
                COUNT(disk_misses);
        }
        answered(d, a);
    }
    rcu_leave_thread();
    return NULL;
}

void
disk_read_end(struct disk *d)
{
    struct disk_ask *a, *next;

    pthread_mutex_lock(&d->asks_mtx);
    a = d->waiting;
    d->waiting = NULL;
    d->waiting_end = &d->waiting;
    pthread_mutex_unlock(&d->asks_mtx);
    for (; a != NULL; a = next) {
        next = a->next;
        answered(d, a);
    }
}
