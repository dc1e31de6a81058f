/*
 * The tiers below memory, as the rooms above see them: at most a disk.
 *
 * Threads  tiers_open and tiers_close: one. Else any.
 */
#include "tier/disk.h"

#include <errno.h>
#include <stdlib.h>

struct tiers {
    uint32_t     magic;
#define TIERS_MAGIC 0x71e25000u
    struct disk *disk;                  /* owned */
};

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
