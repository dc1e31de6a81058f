/*
 * TIER: waits for what the tiers below memory have of the key.
 *
 * Model    asked once, when memory has nothing that may be used, and before anything else is done
 *          about that: whole or a range, HEAD, or only-if-cached. A tier answers into the store, so
 *          LOOKUP looks again, whatever came of it. What memory has is never older than what a disk
 *          has, so where one is stale, or was refused for this request, Redis alone is asked, where
 *          another instance may have put a newer one; it is asked behind a disk that has no better.
 *          Who is to fetch for all instances gets a lease with the answer. It goes to the flight
 *          that the request starts; where it starts none, it is given back.
 * Failure  of Redis is a miss, and what becomes of that is the route's `on_failure`: to the origin,
 *          or what memory has, as stale as it is, or 503 instead of the load that Redis held back.
 * Not here how tiers answer, and that those who ask for one key at once read it once (tier/).
 */
#include "request/priv.h"
#include "request/worker.h"

#define RETRY_S 1                       /* a breaker probes about as often */

static void
on_answer(void *arg, const struct tier_result *a)
{
    struct request *r = arg;

    CHECK(r, REQUEST_MAGIC);
    r->ask = NULL;
    r->promoted = a->answer == TIER_FOUND ? (a->by == TIER_DISK ? "DISK" : "REDIS") : NULL;
    r->tier_failed = a->answer == TIER_FAILED;
    r->lease = a->lease;
    req_post(r);
}

static bool
serves(void *arg, const struct sem_meta *m, bool soft)
{
    const struct request *r = arg;
    const char *why;
    enum sem_use use = sem_use(&r->rq, m, wall_ms(), soft, &why);

    return use == SEM_FRESH || use == SEM_STALE || use == SEM_STALE_REVALIDATE;
}

bool
tier_begin(struct request *r, enum store_answer got, enum sem_use use)
{
    bool hit = got == STORE_HIT, part = hit && use == SEM_PART, stale = hit && use == SEM_VALIDATE;
    const struct tier_want w = { .key = &r->key, .request = r->head, .have_stale = stale,
        .lease = !part && !r->rq.range && !(r->rq.cc.flags & CC_ONLY_IF_CACHED),
        .serves = serves, .done = on_answer, .arg = r };
    enum tier_answer now;

    if (r->asked || r->alone || (r->rq.cc.flags & CC_NO_CACHE) ||
        (got != STORE_MISS && got != STORE_VARY_MISS && !part && !stale))
        return false;
    r->asked = true;
    r->ask = tier_get(req_tiers(), req_worker()->loop, &w, &now);
    r->tier_failed = now == TIER_FAILED;
    return r->ask != NULL;
}

void
tier_served(struct request *r)
{
    if (r->promoted == NULL)
        return;
    r->why = r->why != NULL ? r->why : r->promoted;
    fill_compress(req_fills(), r->match.route, r->object);
}

enum tier_instead
tier_instead(struct request *r, const struct object *o)
{
    enum conf_on_failure what = r->match.route->on_failure;

    if (!r->tier_failed || what == ON_FAILURE_BYPASS ||
        (r->rq.cc.flags & CC_ONLY_IF_CACHED))
        return TIER_INSTEAD_NOTHING;
    r->tier_failed = false;
    if (o != NULL && !r->doubted && !(o->meta.flags & META_PARTIAL) &&
        (what == ON_FAILURE_STALE ? sem_stale_at_all(&r->rq, &o->meta, wall_ms()) :
            sem_stale_on_error(&r->rq, &o->meta, wall_ms()))) {
        COUNT(redis_failed_stale);
        return TIER_INSTEAD_STALE;
    }
    if (what == ON_FAILURE_STALE)
        return TIER_INSTEAD_NOTHING;
    COUNT(redis_failed_shed);
    return TIER_INSTEAD_SHED;
}

enum req_state
tier_shed(struct request *r)
{
    return req_problem_retry(r, 503, "the shared cache does not answer, and the origin is spared",
        RETRY_S);
}

enum req_state
do_tier(struct request *r)
{
    return r->ask != NULL ? REQ_WAIT : REQ_LOOKUP;
}
