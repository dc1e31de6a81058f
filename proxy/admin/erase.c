/*
 * POST /purge with "erase": true: the answer comes when the bytes are gone.
 *
 * Model    the purge is in force already. Below memory the tiers are asked to overwrite what it
 *          took; in memory the sweeper is asked for a pass, after which the index holds nothing of
 *          it, and looked at until that is over. Who leaves does not end it. A tier that does not
 *          confirm it, or not in time (tier.h), is named.
 * Threads  the admin loop's alone.
 */
#include <stdlib.h>

#include "admin/inside.h"

#define LOOK_US 5000

struct erasing {
    struct erasing *next;               /* of the admin surface's */
    struct admin   *a;
    struct conn    *conn;               /* NULL: it left */
    struct purged   purged;             /* what is answered, then */
    struct timer    look;
    uint64_t        sweep;              /* store_sweep's */
    bool            below;              /* the tiers are done, but for those in `left` */
    unsigned        left;
};

static void
erasing_free(struct erasing *e)
{
    struct erasing **at = &e->a->erasing;

    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    timer_fini(&e->look);
    buf_free(&e->purged.results);
    free(e);
}

static void
problem(struct admin_request *r, unsigned left)
{
    bool disk = left & 1u << TIER_DISK, redis = left & 1u << TIER_REDIS;

    admin_problem(r, 500, "purged, and nothing of it is served; but the bytes could not be removed "
        "from %s%s%s, or not in time: the log says why; ask again once that is over%s%s to be sure "
        "at once", disk ? "disk" : "", disk && redis ? " and " : "", redis ? "Redis" : "",
        disk ? ", or stop this instance and remove the directory of cache.disk," : "",
        redis ? ", or remove the values in Redis," : "");
}

static void
finish(struct erasing *e)
{
    struct conn *c = e->conn;
    struct admin_request r;
    bool here = true;

    if (c != NULL) {
        r = admin_later(c);
        if (e->left != 0)
            problem(&r, e->left);
        else
            here = purge_answer(&r, &e->purged);
    }
    erasing_free(e);
    if (c != NULL && here)
        admin_reply(c, &r);
}

static void
on_look(void *arg)
{
    struct erasing *e = arg;

    if (e->below && store_swept(e->a->process.store, e->sweep))
        finish(e);
    else
        timer_set(&e->look, LOOK_US);
}

static void
on_below(void *arg, unsigned left)
{
    struct erasing *e = arg;

    e->below = true;
    e->left = left;
}

static void
on_gone(void *arg)
{
    struct erasing *e = arg;

    e->conn = NULL;
}

void
erase_begin(struct admin_request *r, struct purged *purged)
{
    struct admin_process *p = &r->a->process;
    struct erasing *e = calloc(1, sizeof *e);

    if (e == NULL || timer_init(&e->look, r->a->loop, on_look, e) == -1) {
        free(e);
        goto fail;
    }
    e->purged = *purged;
    *purged = (struct purged){ 0 };
    e->a = r->a;
    e->next = r->a->erasing;
    r->a->erasing = e;
    e->below = p->tiers == NULL;
    if (timer_set(&e->look, LOOK_US) == -1 ||
        (p->tiers != NULL && tier_erase(p->tiers, r->a->loop, on_below, e) == -1)) {
        erasing_free(e);
        goto fail;
    }
    e->sweep = store_sweep(p->store);
    e->conn = admin_wait(r, on_gone, e);
    return;

fail:
    buf_free(&purged->results);
    admin_problem(r, 503, "out of memory: purged, but when the bytes are gone cannot be told");
}

/* The loop has stopped: nothing is told any more. */
void
erase_end(struct admin *a)
{
    while (a->erasing != NULL)
        erasing_free(a->erasing);
}
