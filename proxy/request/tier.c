/*
 * TIER: waits for what the tiers below memory have of the key.
 *
 * Model    asked once, when memory has nothing that may be used, and before anything else is done
 *          about that: whole or a range, HEAD, or only-if-cached. A tier answers into the store, so
 *          LOOKUP looks again, whatever came of it. What memory has is never older than what a disk
 *          has, so one that is stale, or was refused for this request, is not asked for below.
 * Not here how tiers answer, and that those who ask for one key at once read it once (tier/).
 */
#include "request/priv.h"
#include "request/worker.h"

static void
on_answer(void *arg, enum tier_answer a)
{
    struct request *r = arg;

    CHECK(r, REQUEST_MAGIC);
    r->ask = NULL;
    r->promoted = a == TIER_FOUND;
    req_post(r);
}

bool
tier_begin(struct request *r, enum store_answer got, enum sem_use use)
{
    bool hit = got == STORE_HIT, part = hit && use == SEM_PART, stale = hit && use == SEM_VALIDATE;
    const struct tier_want w = { .key = &r->key, .have_stale = stale, .done = on_answer, .arg = r };

    if (r->asked || r->alone || (r->rq.cc.flags & CC_NO_CACHE) ||
        (got != STORE_MISS && got != STORE_VARY_MISS && !part && !stale))
        return false;
    r->asked = true;
    r->ask = tier_get(req_tiers(), req_worker()->loop, &w);
    return r->ask != NULL;
}

void
tier_served(struct request *r)
{
    if (!r->promoted)
        return;
    r->why = r->why != NULL ? r->why : "DISK";
    fill_compress(req_fills(), r->match.route, r->object);
}

enum req_state
do_tier(struct request *r)
{
    return r->ask != NULL ? REQ_WAIT : REQ_LOOKUP;
}
