/*
 * The tiers below memory, as the rooms above see them: a disk, then Redis, or one of them.
 *
 * Model    what a disk has may be older than what another instance has put into Redis since, while
 *          this one did not run. So it ends the search only where it serves who asked.
 * Threads  tiers_open and tiers_close: one. Else any.
 */
#include "tier/disk.h"
#include "tier/redis.h"

#include <errno.h>
#include <stdlib.h>

#include "stats/stats.h"

struct tiers {
    uint32_t     magic;
#define TIERS_MAGIC 0x71e25000u
    struct disk  *disk;                 /* owned; NULL: none */
    struct rtier *redis;                /* owned; likewise */
    struct store *store;                /* borrowed */
    pthread_mutex_t  mtx;
    struct tier_ask *asks;              /* under mtx: all that wait, */
    struct tier_erase *erases;          /* ... and these */
};

struct tier_ask {
    struct tiers    *tiers;             /* borrowed */
    struct tier_ask *older, *newer;     /* under its mtx */
    struct loop     *loop;              /* borrowed */
    struct disk_ask *disk;              /* while it is asked */
    bool             promoted;          /* by it */
    struct rtier_ask redis;
    void           (*done)(void *arg, const struct tier_result *r);
    void            *arg;
};

struct tier_erase {
    struct tiers      *tiers;           /* borrowed */
    struct tier_erase *next;            /* under its mtx */
    void   (*done)(void *arg, unsigned left);
    void    *arg;
    int      asked;                     /* tiers that have not told yet */
    unsigned left;
};

/* The source of the figures stays, since none can be taken away; it speaks of the newest. */
static _Atomic(struct tiers *) newest;

static void
figures_json(struct buf *b, void *arg)
{
    struct tiers *t = atomic_load(&newest);
    struct tier_figures f;
    bool more;

    (void)arg;
    buf_addz(b, ",\n\"tiers\": {");
    if ((more = tier_figures(t, TIER_DISK, &f)))
        buf_printf(b, "\"disk\": {\"objects\": %llu, \"bytes\": %llu, \"limit_bytes\": %llu, "
            "\"queued_bytes\": %llu, \"loading\": %s, \"failing\": %s}",
            (unsigned long long)f.objects, (unsigned long long)f.bytes,
            (unsigned long long)f.limit, (unsigned long long)f.queued_bytes,
            f.loading ? "true" : "false", f.failing ? "true" : "false");
    if (tier_figures(t, TIER_REDIS, &f))
        buf_printf(b, "%s\"redis\": {\"queued_bytes\": %llu, \"loading\": %s, \"failing\": %s}",
            more ? ", " : "", (unsigned long long)f.queued_bytes, f.loading ? "true" : "false",
            f.failing ? "true" : "false");
    buf_addc(b, '}');
}

static void
show(struct tiers *t)
{
    static struct stats_source source = { .json = figures_json };
    static bool shown;

    atomic_store(&newest, t);
    if (!shown)
        stats_source_add(&source);
    shown = true;
}

struct tiers *
tiers_open(const struct tier_options *o, struct store *s, struct err *e)
{
    struct tiers *t;

    *e = (struct err){ 0 };
    if (o->disk_path == NULL && o->redis == NULL)
        return NULL;
    if ((t = calloc(1, sizeof *t)) == NULL) {
        err_set(e, ENOMEM, "memory is out: the tiers cannot be made");
        return NULL;
    }
    t->magic = TIERS_MAGIC;
    t->store = s;
    pthread_mutex_init(&t->mtx, NULL);
    if ((o->disk_path != NULL && (t->disk = disk_open(o, s, e)) == NULL) ||
        (o->redis != NULL && (t->redis = rtier_open(o, s, t->disk, e)) == NULL))
        tiers_close(&t);
    else
        show(t);
    return t;
}

void
tiers_close(struct tiers **tp)
{
    struct tiers *t = *tp;

    *tp = NULL;
    if (t == NULL)
        return;
    CHECK(t, TIERS_MAGIC);
    atomic_store(&newest, NULL);
    disk_close(&t->disk);               /* its threads tell the other of drops, up to here */
    rtier_close(&t->redis);
    for (struct tier_ask *a = t->asks, *older; a != NULL; a = older) {
        older = a->older;
        free(a);
    }
    for (struct tier_erase *e = t->erases, *next; e != NULL; e = next) {
        next = e->next;
        free(e);
    }
    pthread_mutex_destroy(&t->mtx);
    t->magic = 0;
    free(t);
}

void
tiers_yield(struct tiers *t)
{
    if (t != NULL && t->disk != NULL)
        disk_yield(t->disk);
}

/* ---- asking --------------------------------------------------------------------------------- */

static void
list_ask(struct tier_ask *a)
{
    struct tiers *t = a->tiers;

    pthread_mutex_lock(&t->mtx);
    if ((a->older = t->asks) != NULL)
        t->asks->newer = a;
    t->asks = a;
    pthread_mutex_unlock(&t->mtx);
}

static void
free_ask(struct tier_ask *a)
{
    struct tiers *t = a->tiers;

    pthread_mutex_lock(&t->mtx);
    if (a->newer != NULL)
        a->newer->older = a->older;
    else
        t->asks = a->older;
    if (a->older != NULL)
        a->older->newer = a->newer;
    pthread_mutex_unlock(&t->mtx);
    free(a);
}

/* Where Redis has nothing, what the disk had is what was found. */
static void
answer(struct tier_ask *a, struct tier_result r)
{
    void (*done)(void *arg, const struct tier_result *r) = a->done;
    void *arg = a->arg;

    if (r.answer == TIER_NONE && a->promoted) {
        r.answer = TIER_FOUND;
        r.by = TIER_DISK;
    }
    free_ask(a);
    done(arg, &r);
}

static void
on_redis(struct rtier_ask *ra, const struct tier_result *r)
{
    answer(CONTAINER(ra, struct tier_ask, redis), *r);
}

static enum tier_answer
ask_redis(struct tier_ask *a)
{
    return a->tiers->redis != NULL ? rtier_get(a->tiers->redis, a->loop, &a->redis) : TIER_NONE;
}

/* What memory has for a request by now: the newest that matches. */
struct found { const struct tier_ask *ask; struct sem_meta meta; bool any, soft, doubt; };

/* Under a lock of the store. */
static void
note_found(void *arg, const struct object *o, struct slice vary, bool soft)
{
    struct found *f = arg;
    struct buf b = { 0 };

    if (f->any)
        return;
    sem_variant(vary, f->ask->redis.request, &b);
    if (!b.failed && slice_eq(buf_slice(&b), store_variant(o))) {
        f->any = true;
        f->meta = o->meta;
        f->soft = soft;
        f->doubt = soft && store_doubts(f->ask->tiers->store, o, wall_ms());
    }
    buf_free(&b);
}

/* Not by store_get: whoever asks looks up again, and that is one use. */
static bool
serves(const struct tier_ask *a)
{
    struct found f = { .ask = a };

    store_each(a->tiers->store, a->redis.key, note_found, &f);
    return f.any && !f.doubt && a->redis.serves != NULL &&
        a->redis.serves(a->arg, &f.meta, f.soft);
}

static void
on_disk(void *arg, enum tier_answer what)
{
    struct tier_ask *a = arg;
    struct tier_result r = { .answer = what, .by = TIER_DISK };

    a->disk = NULL;
    a->promoted = what == TIER_FOUND;
    if (!a->promoted || (a->tiers->redis != NULL && !serves(a))) {
        r.by = TIER_REDIS;
        r.answer = ask_redis(a);
    }
    if (r.answer != TIER_WAIT)
        answer(a, r);
}

struct tier_ask *
tier_get(struct tiers *t, struct loop *l, const struct tier_want *w, enum tier_answer *now)
{
    struct tier_ask *a;

    *now = TIER_NONE;
    if (t == NULL || (a = calloc(1, sizeof *a)) == NULL)
        return NULL;
    CHECK(t, TIERS_MAGIC);
    a->tiers = t;
    a->loop = l;
    a->done = w->done;
    a->arg = w->arg;
    a->redis = (struct rtier_ask){ .key = w->key, .request = w->request, .lease = w->lease,
        .serves = w->serves, .arg = w->arg, .done = on_redis };
    list_ask(a);
    if (t->disk != NULL && !w->have_stale)
        a->disk = disk_get(t->disk, l, w->key, on_disk, a);
    if (a->disk == NULL && (*now = ask_redis(a)) != TIER_WAIT) {
        free_ask(a);
        return NULL;
    }
    return a;
}

void
tier_cancel(struct tier_ask **ap)
{
    struct tier_ask *a = *ap;

    *ap = NULL;
    if (a == NULL)
        return;
    disk_cancel(&a->disk);
    rtier_cancel(&a->redis);
    free_ask(a);
}

/* ---- the other way -------------------------------------------------------------------------- */

void
tier_put(struct tiers *t, struct object *o)
{
    if (t == NULL)
        return;
    CHECK(t, TIERS_MAGIC);
    if (t->disk != NULL)
        disk_put(t->disk, o);
    if (t->redis != NULL)
        rtier_put(t->redis, o);
}

static void
list_erase(struct tiers *t, struct tier_erase *e)
{
    pthread_mutex_lock(&t->mtx);
    e->next = t->erases;
    t->erases = e;
    pthread_mutex_unlock(&t->mtx);
}

static void
free_erase(struct tier_erase *e)
{
    struct tiers *t = e->tiers;
    struct tier_erase **at = &t->erases;

    pthread_mutex_lock(&t->mtx);
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    pthread_mutex_unlock(&t->mtx);
    free(e);
}

static void
on_erased(struct tier_erase *e, enum tier_name by, bool ok)
{
    if (!ok)
        e->left |= 1u << by;
    if (--e->asked > 0)
        return;
    e->done(e->arg, e->left);
    free_erase(e);
}

static void
on_disk_erased(void *arg, bool ok)
{
    on_erased(arg, TIER_DISK, ok);
}

static void
on_redis_erased(void *arg, bool ok)
{
    on_erased(arg, TIER_REDIS, ok);
}

int
tier_erase(struct tiers *t, struct loop *l, void (*done)(void *arg, unsigned left), void *arg)
{
    struct tier_erase *e = malloc(sizeof *e);

    CHECK(t, TIERS_MAGIC);
    if (e == NULL)
        return -1;
    *e = (struct tier_erase){ .tiers = t, .done = done, .arg = arg };
    list_erase(t, e);
    if (t->disk != NULL && disk_erase(t->disk, l, on_disk_erased, e) == 0)
        e->asked++;
    else if (t->disk != NULL)
        e->left |= 1u << TIER_DISK;
    if (t->redis != NULL && rtier_erase(t->redis, l, on_redis_erased, e) == 0)
        e->asked++;
    else if (t->redis != NULL)
        e->left |= 1u << TIER_REDIS;
    if (e->asked > 0)
        return 0;
    free_erase(e);
    return -1;
}

bool
tier_figures(struct tiers *t, enum tier_name which, struct tier_figures *f)
{
    bool there = t != NULL && (which == TIER_DISK ? t->disk != NULL : t->redis != NULL);

    if (there && which == TIER_DISK)
        disk_figures(t->disk, f);
    else if (there)
        rtier_figures(t->redis, f);
    return there;
}
