/*
 * The tiers below memory, as the rooms above see them: at most a disk.
 *
 * Threads  tiers_open and tiers_close: one. Else any.
 */
#include "tier/disk.h"

#include <errno.h>
#include <stdlib.h>

#include "stats/stats.h"

struct tiers {
    uint32_t     magic;
#define TIERS_MAGIC 0x71e25000u
    struct disk *disk;                  /* owned */
};

/* The source of the figures stays, since none can be taken away; it speaks of the newest. */
static _Atomic(struct tiers *) newest;

static void
figures_json(struct buf *b, void *arg)
{
    struct tier_figures f;

    (void)arg;
    buf_addz(b, ",\n\"tiers\": {");
    if (tier_disk_figures(atomic_load(&newest), &f))
        buf_printf(b, "\"disk\": {\"objects\": %llu, \"bytes\": %llu, \"limit_bytes\": %llu, "
            "\"queued_bytes\": %llu, \"loading\": %s, \"failing\": %s}",
            (unsigned long long)f.objects, (unsigned long long)f.bytes,
            (unsigned long long)f.limit, (unsigned long long)f.queued_bytes,
            f.loading ? "true" : "false", f.failing ? "true" : "false");
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
    if (o->disk_path == NULL)
        return NULL;
    if ((t = calloc(1, sizeof *t)) == NULL) {
        err_set(e, ENOMEM, "memory is out: the tiers cannot be made");
        return NULL;
    }
    t->magic = TIERS_MAGIC;
    if ((t->disk = disk_open(o, s, e)) == NULL)
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
    disk_close(&t->disk);
    t->magic = 0;
    free(t);
}

struct tier_ask *
tier_get(struct tiers *t, struct loop *l, const struct tier_want *w)
{
    if (t == NULL)
        return NULL;
    CHECK(t, TIERS_MAGIC);
    return disk_get(t->disk, l, w);
}

void
tier_put(struct tiers *t, struct object *o)
{
    if (t == NULL)
        return;
    CHECK(t, TIERS_MAGIC);
    disk_put(t->disk, o);
}

int
tier_erase(struct tiers *t, struct loop *l, void (*done)(void *arg, bool ok), void *arg)
{
    CHECK(t, TIERS_MAGIC);
    return disk_erase(t->disk, l, done, arg);
}

bool
tier_disk_figures(struct tiers *t, struct tier_figures *f)
{
    if (t == NULL)
        return false;
    CHECK(t, TIERS_MAGIC);
    disk_figures(t->disk, f);
    return true;
}
