/*
 * Erasing for another instance: bytes that its purge took go from what this one has.
 *
 * Model    an entry that says `erase` is applied as any other; then the tiers are asked to remove
 *          what purges took, and the sweeper for a pass over memory. Until that is over this
 *          instance does not say, and does not keep, that it has applied the entry (bus_told): who
 *          made the purge waits for it, and a process that ends before does it all again when it
 *          starts. So purges that come behind wait as well. One run is under way at a time; entries
 *          that come meanwhile share the next.
 *          A run that fails is tried again for a minute. Then the log says so, and this instance
 *          goes on: purges are not to be missing here for as long as a disk fails.
 *          Redis is gone through by each: one may have stored there what another has looked for.
 * Threads  the bus's.
 */
#include "purge/bus.h"

#include <limits.h>

#define LOOK_US  (5 * MS_US)
#define AGAIN_US SECOND_US

int64_t bus_erase_us = 60 * SECOND_US;  /* a constant, but in tests */

static struct bus_place
here(const struct bus *b)
{
    return (struct bus_place){ b->at, b->count };
}

struct bus_place
bus_told(const struct bus *b)
{
    return b->erase.held ? b->erase.before : here(b);
}

/* ---- a run ----------------------------------------------------------------------------------- */

static void on_below(void *arg, unsigned left);

/* Whoever yielded has no disk any more: the next process goes on from what was kept. */
static void
run(struct bus *b)
{
    struct bus_erase *e = &b->erase;

    e->sweep = store_sweep(b->store);
    e->left = 0;
    e->below = b->tiers == NULL || b->yielded;
    e->again = !e->below && e->asked;   /* one that took too long: behind it */
    if (e->below || e->again)
        return;
    e->asked = tier_erase(b->tiers, b->loop, on_below, b) == 0;
    e->below = !e->asked;
    e->left = e->asked ? 0 : UINT_MAX;
}

static void
on_below(void *arg, unsigned left)
{
    struct bus *b = arg;

    b->erase.asked = false;
    if (b->erase.again) {
        run(b);
        return;
    }
    b->erase.below = true;
    b->erase.left = left;
}

static void
begin(struct bus *b)
{
    struct bus_erase *e = &b->erase;

    e->wanted = false;
    e->covered = here(b);
    e->until_us = now_us() + bus_erase_us;
    run(b);
}

static void
end(struct bus *b, bool erased)
{
    struct bus_erase *e = &b->erase;

    if (!erased)
        log_error("purge bus: bytes that another instance erased could not be removed here within "
            "%lld s (%s): nothing of it is served; erase it again once that is over",
            (long long)(bus_erase_us / SECOND_US), !e->below ? "it takes longer" :
            (e->left & 1u << TIER_DISK) != 0 ? "disk" : e->left != 0 ? "Redis" : "memory");
    e->runs = e->held = e->wanted;
    if (e->wanted) {
        e->before = e->covered;
        begin(b);
    }
    lease_say(b);
    saved_put(b);
}

static void
on_timer(void *arg)
{
    struct bus *b = arg;
    struct bus_erase *e = &b->erase;
    bool late = now_us() >= e->until_us, over;

    if (!e->runs) {
        e->runs = true;
        begin(b);
    } else {
        over = e->below && store_swept(b->store, e->sweep);
        if (late || (over && e->left == 0)) {
            end(b, over && e->left == 0);
        } else if (over) {
            run(b);
            timer_set(&e->timer, AGAIN_US);
            return;
        }
    }
    if (e->runs)
        timer_set(&e->timer, LOOK_US);
}

/* ---- what asks for it ------------------------------------------------------------------------ */

void
bus_erase_want(struct bus *b)
{
    struct bus_erase *e = &b->erase;

    if (!e->held)
        e->before = here(b);
    e->held = e->wanted = true;
    if (!e->runs)
        timer_set(&e->timer, 0);        /* behind all that was read with it */
}

void
bus_erase_moved(struct bus *b)
{
    struct bus_erase *e = &b->erase;

    e->covered = here(b);
    if (!e->held || store_position_cmp(b->at, e->before.at) < 0)
        e->before = e->covered;         /* else what it holds is still not gone */
}

int
bus_erase_init(struct bus *b)
{
    return timer_init(&b->erase.timer, b->loop, on_timer, b);
}

void
bus_erase_fini(struct bus *b)
{
    timer_fini(&b->erase.timer);
}
