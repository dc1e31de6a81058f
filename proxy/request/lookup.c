/*
 * LOOKUP: what is stored, and may it be used?
 */
#include "request/priv.h"

struct own_vary { struct request *r; const struct object *o; };

#define ROUNDS_MAX 6                    /* after that a request fetches for itself */

static void
note_vary(void *arg, const struct object *o, struct slice vary, bool soft)
{
    struct request *r = arg;

    (void)o;
    (void)soft;
    if (r->vary.n == 0 && vary.n > 0)
        r->vary = pool_slice(r->pool, vary);
}

/* As it stands, for this client alone. */
static enum req_state
forward(struct request *r, const char *why)
{
    r->why = why;
    r->get = NULL;
    r->collapsed = false;
    r->outcome = OUTCOME_PASS;
    object_unref(&r->stale);
    object_unref(&r->rest);
    return REQ_FORWARD;
}

/* May the client's range be fetched for the store? Otherwise the origin alone has the answer: to
 * several ranges, and to conditions that nothing here can be compared with (RFC 9110 13.2.1). */
bool
lookup_ranged(struct request *r)
{
    struct http_range_spec spec;

    r->waits = false;
    r->ranged = http_range_asked(r->head, &spec) && (!r->rq.conditional || r->stale != NULL);
    return r->ranged;
}

/* Nothing usable is stored. What this request may have is fetched for all; a part of it where
 * nobody fetches the whole. What would not be stored is asked for as it stands: the answer to a
 * HEAD, or to several ranges. */
static enum req_state
miss(struct request *r, enum fwd why)
{
    r->promoted = NULL;
    if (r->stale == NULL && r->rest == NULL && blocks_begin(r))
        return REQ_BLOCKS;
    COUNT(cache_misses);
    if (r->rq.cc.flags & CC_ONLY_IF_CACHED)
        return req_problem(r, 504, "only-if-cached: nothing usable is stored");
    if (r->fwd == FWD_NONE)
        r->fwd = why;
    if (r->rq.cc.flags & CC_NO_CACHE)
        r->alone = true;                /* its answer must be younger than the request */
    if (r->alone && r->head->method == HTTP_HEAD)
        return forward(r, "head");
    r->waits = r->head->method == HTTP_GET && r->rq.range && r->stale == NULL && r->rest == NULL;
    if (r->alone && r->waits && !lookup_ranged(r))
        return forward(r, "range");
    r->outcome = OUTCOME_MISS;
    return REQ_FETCH;
}

/* What the selected one varies by: who wants another variant must not wait for its validation. */
static void
note_own_vary(void *arg, const struct object *o, struct slice vary, bool soft)
{
    struct own_vary *own = arg;

    (void)soft;
    if (o == own->o && vary.n > 0)
        own->r->vary = pool_slice(own->r->pool, vary);
}

static void
learn_own_vary(struct request *r, const struct object *o)
{
    store_each(req_store(), &r->found, note_own_vary, &(struct own_vary){ r, o });
}

/* Asks for the whole with GET, whatever part of it this request wanted; a question by content again
 * as it was. */
static void
revalidate_behind(struct request *r, struct object *o)
{
    struct http_head get = *r->head;
    struct fill_want w;

    learn_own_vary(r, o);
    request_want(r, FILL_SHARED, &w);
    if (!r->rq.content) {
        get.method = HTTP_GET;
        get.method_name = SLICE("GET");
        w.request = &get;
        w.semantics.method = HTTP_GET;
    }
    w.semantics.range = false;
    w.stale = o;
    fill_behind(req_fills(), conn_loop(r->conn), &w);
}

static enum req_state
serve(struct request *r, enum sem_use use, const char *why)
{
    r->status = r->object->meta.status;
    r->outcome = use != SEM_FRESH ? OUTCOME_STALE : r->collapsed ? OUTCOME_COLLAPSED : OUTCOME_HIT;
    if (use == SEM_FRESH) {
        COUNT(cache_hits);
    } else {
        COUNT(cache_stale);
        r->why = why;
    }
    tier_served(r);
    if (use == SEM_STALE_REVALIDATE)
        revalidate_behind(r, r->object);
    return REQ_DELIVER;
}

/* Why what is stored needs the origin's word: it is stale, or it is fresh and the request's own
 * directives forbid it (RFC 9211 2.2). */
static enum fwd
why_validate(const struct request *r, const struct object *o, bool soft)
{
    bool fresh = !soft && sem_age_ms(&o->meta, wall_ms()) < o->meta.lifetime_ms;
    bool theirs = (o->meta.flags & META_NO_CACHE) != 0 && !(r->rq.cc.flags & CC_NO_CACHE);

    return fresh && !theirs ? FWD_REQUEST : FWD_STALE;
}

/* What is stored is a part. Fresh, it answers who wants no more of it; who wants the whole gets it
 * completed; who wants other bytes asks for those, and they are combined where they are stored. One
 * that is not fresh is validated for who wants what it has, and else no more than nothing. */
static enum req_state
found_part(struct request *r, struct object *o, enum sem_use use, bool soft)
{
    struct http_range ranges[RANGES_MAX];
    enum fwd why = use == SEM_PART ? FWD_PARTIAL : why_validate(r, o, soft);
    size_t n;
    enum range_fit fit = range_fit(r, o, wall_ms(), ranges, &n);
    bool has = fit == RANGE_WITHIN || fit == RANGE_UNSATISFIABLE;

    if (use == SEM_PART && has) {
        r->object = o;
        return serve(r, SEM_FRESH, NULL);
    }
    learn_own_vary(r, o);
    if (use == SEM_PART && fit == RANGE_NONE)
        r->rest = o;
    r->stale = use == SEM_VALIDATE && has ? o : NULL;
    if ((r->stale != NULL && !lookup_ranged(r)) || (r->stale == NULL && r->rest == NULL)) {
        r->stale = NULL;
        object_unref(&o);
    }
    return miss(r, why);
}

static bool
take_found(struct request *r, const struct key *k)
{
    struct slice bytes = pool_slice(r->pool, k->bytes);

    if (bytes.p == NULL)
        return false;
    r->found = *k;
    r->found.bytes = bytes;
    return true;
}

/* What is stored for this URL, or for those that its path's rules call equal (No-Vary-Search). A
 * mark that the URL itself was not storable goes before these. In a read section. */
static enum store_answer
find(struct request *r, struct object **o, bool *soft)
{
    enum store_answer got = store_get(req_store(), &r->key, r->head, wall_ms(), o, soft);
    struct buf b = { 0 };
    struct key k;

    r->found = r->key;
    if (got != STORE_MISS && got != STORE_VARY_MISS)
        return got;
    if (store_search(req_store(), &r->key, r->head, wall_ms(), &b, &k, o, soft) == STORE_HIT) {
        if (take_found(r, &k))
            got = STORE_HIT;
    } else if (got == STORE_MISS && store_search_presume(req_store(), &r->key, &b, &k)) {
        take_found(r, &k);
    }
    buf_free(&b);
    return got;
}

static enum req_state
look_up(struct request *r)
{
    struct object *o = NULL, *found = NULL;
    enum sem_use use = SEM_CANNOT;
    enum store_answer got;
    const char *why = NULL;
    bool soft = false;

    if (++r->rounds > ROUNDS_MAX)
        r->alone = true;
    object_unref(&r->stale);
    object_unref(&r->rest);
    r->ranged = r->doubted = false;
    rcu_begin();
    got = find(r, &o, &soft);
    if (got == STORE_HIT) {
        use = sem_use(&r->rq, &o->meta, wall_ms(), soft, &why);
        r->doubted = soft && store_doubts(req_store(), o, wall_ms());
        if (r->doubted && (use == SEM_STALE || use == SEM_STALE_REVALIDATE))
            use = SEM_VALIDATE;         /* nobody's leave to serve stale was given to what may be
                                           purged */
        found = object_ref(o);
    }
    rcu_end();
    if (tier_begin(r, got, use)) {
        object_unref(&found);
        return REQ_TIER;
    }
    if (use == SEM_VALIDATE || got != STORE_HIT) {
        enum tier_instead instead = tier_instead(r, found);

        if (instead == TIER_INSTEAD_STALE) {
            r->object = found;
            return serve(r, SEM_STALE, "redis-failed");
        }
        if (instead == TIER_INSTEAD_SHED) {
            object_unref(&found);
            return tier_shed(r);
        }
    }
    switch (got) {
    case STORE_MISS:
        return miss(r, r->rq.cc.flags & CC_NO_CACHE ? FWD_REQUEST : FWD_URI_MISS);
    case STORE_PASS:
        if (blocks_begin(r))
            return REQ_BLOCKS;
        r->alone = true;
        if ((r->rq.conditional || r->rq.range) && !(r->rq.cc.flags & CC_ONLY_IF_CACHED)) {
            /* Nothing here to judge the client's conditions by, or to take ranges of: the origin
             * does (RFC 9110 13.2.1). */
            r->fwd = r->fwd == FWD_NONE ? FWD_URI_MISS : r->fwd;
            return forward(r, "pass-for");
        }
        return miss(r, FWD_URI_MISS);
    case STORE_VARY_MISS:
        store_each(req_store(), &r->key, note_vary, r);
        return miss(r, FWD_VARY_MISS);
    case STORE_HIT:
        break;
    }
    if (use == SEM_FRESH || use == SEM_STALE || use == SEM_STALE_REVALIDATE) {
        r->object = found;
        return serve(r, use, why);
    }
    if (use != SEM_CANNOT && (found->meta.flags & META_PARTIAL))
        return found_part(r, found, use, soft);
    if (use == SEM_CANNOT) {
        object_unref(&found);
        r->alone = r->alone || r->head->method == HTTP_HEAD;    /* what is stored stays */
        return miss(r, FWD_REQUEST);
    }
    r->stale = found;
    learn_own_vary(r, found);
    return miss(r, why_validate(r, found, soft));
}

/* Who does not fetch does not for others either. */
enum req_state
do_lookup(struct request *r)
{
    enum req_state next = look_up(r);

    if (next != REQ_FETCH)
        tier_release(&r->lease);
    return next;
}
