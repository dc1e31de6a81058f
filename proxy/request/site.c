/*
 * A site: one configuration made ready to answer from.
 *
 * Threads  sites are made on the main thread alone.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "request/priv.h"
#include "request/worker.h"

#define VIA_DEFAULT "weir"              /* of config/schema/top.def */

/* A name that was chosen stands in Via as it is. The default would be the same in every Weir, and
 * two in a row would take each other for a loop; so it is followed by a number that is this
 * process's. */
static struct slice
hop_name(const char *via)
{
    static char own[32];
    uint64_t number;

    if (strcmp(via, VIA_DEFAULT) != 0)
        return slice_of(via);
    if (own[0] == '\0') {
        random_bytes(&number, sizeof number);
        snprintf(own, sizeof own, VIA_DEFAULT "-%016" PRIx64, number);
    }
    return slice_of(own);
}

struct site *
site_new(struct conf *c, struct upstream *u, struct err *e)
{
    struct site *s = calloc(1, sizeof *s);

    if (s == NULL) {
        err_set(e, ENOMEM, "out of memory");
        return NULL;
    }
    s->magic = SITE_MAGIC;
    atomic_init(&s->refs, 1);
    s->conf = conf_ref(c);
    s->via = slice_of(c->via);
    s->hop = hop_name(c->via);
    s->origins = calloc(c->norigins + 1, sizeof *s->origins);
    s->table = s->origins != NULL ? route_table_new(c, stats_route_slot, e) : NULL;
    if (s->table == NULL)
        goto fail;
    for (size_t i = 0; i < c->norigins; i++)
        if ((s->origins[i] = origin_open(u, &c->origins[i], e)) == NULL)
            goto fail;
    return s;

fail:
    site_unref(&s);
    return NULL;
}

struct site *
site_ref(struct site *s)
{
    CHECK(s, SITE_MAGIC);
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void
site_unref(struct site **sp)
{
    struct site *s = *sp;

    *sp = NULL;
    if (s == NULL)
        return;
    CHECK(s, SITE_MAGIC);
    if (atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    for (size_t i = 0; s->origins != NULL && i < s->conf->norigins; i++)
        if (s->origins[i] != NULL)
            origin_unref(&s->origins[i]);
    if (s->table != NULL)
        route_table_unref(&s->table);
    free(s->origins);
    conf_unref(&s->conf);
    s->magic = 0;
    free(s);
}

struct conf *
site_conf(const struct site *s)
{
    return s->conf;
}

struct route_table *
site_table(const struct site *s)
{
    return s->table;
}

struct origin *const *
site_origins(const struct site *s)
{
    return s->origins;
}

struct slice
site_via(const struct site *s)
{
    return s->hop;
}
