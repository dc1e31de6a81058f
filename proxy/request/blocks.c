/*
 * BLOCKS: a range of what is not stored whole, out of blocks of one size (`range.block`).
 *
 * Model    a block is a part, stored under the URL's key with one more part that says which it is:
 *          so it has its own freshness and eviction, is fetched once for all who want it, and a
 *          purge of the URL takes it. An answer goes through them in order: each is found or
 *          fetched here, delivered (deliver.c), and then the next. So a seek waits for one block,
 *          and what a client does not read is not fetched. All blocks of an answer are of one
 *          representation: the same strong validator, the same size. A stored one that is not is
 *          fetched anew; when that is not either, the URL is purged, and the answer begins anew, or
 *          is broken off where it has begun.
 *          The first block tells the size; the end (-n) is asked for by way of block 0.
 *          Where blocks do not work (the origin ignores Range, has no strong validator, or the
 *          answer may not be stored) the range is asked for as without this option, and a mark
 *          under the key spares the next requests the attempt, for cache.pass_for.
 * Not here the head (range.c), ranges that one stored object has whole (lookup.c).
 */
#include "request/priv.h"

#define RESTARTS_MAX 2
#define TRIES_MAX    6                  /* for one block: it may be evicted or purged at once */
#define AHEAD_MAX    256                /* blocks that are looked for before the head is sent */

struct blocks {
    uint64_t             size;          /* of a block */
    struct http_range_spec spec;
    struct http_range    range;         /* once the size of the whole is known */
    uint64_t             whole, at;     /* at: the next byte */
    bool                 known;         /* the size and validator are */
    unsigned             restarts, tries;
    int64_t              asked_ms;      /* when the block at hand was asked for; 0: not */
    struct sem_validator validator;     /* etag in the pool */
};

static bool
marked(const struct request *r)
{
    struct object *o = NULL;
    struct buf b = { 0 };
    struct key k;
    bool soft, is = true;

    if (key_block(&r->key, NULL, &b, &k) == 0) {
        rcu_begin();
        is = store_get(req_store(), &k, r->head, wall_ms(), &o, &soft) == STORE_PASS;
        rcu_end();
    }
    buf_free(&b);
    return is;
}

static void
mark(const struct request *r)
{
    int64_t pass_ms = r->site->conf->cache_pass_for_ms;
    struct buf b = { 0 };
    struct key k;

    if (pass_ms > 0 && key_block(&r->key, NULL, &b, &k) == 0)
        store_pass(req_store(), &k, wall_ms() + pass_ms);
    buf_free(&b);
}

bool
blocks_begin(struct request *r)
{
    struct http_range_spec spec;
    struct blocks *b;

    if (r->no_blocks || !route_in_blocks(r->match.route, r->head, &r->rq, &spec) || marked(r) ||
        (b = pool_zalloc(r->pool, sizeof *b)) == NULL)
        return false;
    b->size = (uint64_t)r->match.route->conf->range_block;
    b->spec = spec;
    b->at = b->spec.suffix ? 0 : b->spec.first;
    r->blocks = b;
    return true;
}

/* As without blocks, from here on. */
static enum req_state
without(struct request *r, bool for_all)
{
    if (for_all)
        mark(r);
    fill_close(&r->fill);
    object_unref(&r->stale);
    r->blocks = NULL;
    r->no_blocks = true;
    r->answer_stored = false;
    r->collapsed = false;
    r->fwd = FWD_NONE;
    r->fwd_status = 0;
    return REQ_LOOKUP;
}

/* What the client has, and what comes, are not of one representation. */
static enum req_state
changed(struct request *r)
{
    struct store_purge p = { .kind = STORE_PURGE_URL,
        .text = { r->key.bytes.p, r->key.url_n } };
    struct store_purged purged;
    struct blocks *b = r->blocks;

    object_unref(&r->object);
    fill_close(&r->fill);
    store_purge(req_store(), &p, &purged);
    COUNT(blocks_changed);
    if (r->head_sent)
        return deliver_cut(r);
    if (++b->restarts > RESTARTS_MAX)
        return without(r, false);
    b->known = false;
    b->asked_ms = 0;
    b->at = b->spec.suffix ? 0 : b->spec.first;
    return REQ_WAIT;
}

static struct sem_validator
validator(const struct object *o)
{
    return (struct sem_validator){ deliver_etag(o), o->meta.last_modified_s,
        o->meta.date_ms / 1000 };
}

static void
count(const struct request *r)
{
    if (r->fwd == FWD_NONE)
        COUNT(cache_hits);
    else
        COUNT(cache_misses);
}

/* How the request was answered: by its first block, and whether the others are there too. */
static void
tell(struct request *r)
{
    r->outcome = r->fwd == FWD_NONE ? OUTCOME_HIT : r->collapsed ? OUTCOME_COLLAPSED :
        r->fwd_status == 304 ? OUTCOME_REVALIDATED : OUTCOME_MISS;
}

/* The first block of an answer tells what it will be. REQ_BLOCKS: go on. */
static enum req_state
learn(struct request *r, const struct object *o)
{
    struct object_part part = object_part(o);
    struct sem_validator v = validator(o);
    struct http_range ranges[RANGES_MAX];
    struct blocks *b = r->blocks;
    size_t n;

    switch (range_fit(r, o, wall_ms(), ranges, &n)) {
    case RANGE_WITHIN:
    case RANGE_UNSATISFIABLE:
        count(r);
        r->blocks = NULL;               /* this one has it all */
        return REQ_DELIVER;
    case RANGE_NONE:
        object_unref(&r->object);
        return without(r, false);       /* If-Range: the whole is wanted */
    case RANGE_BEYOND:
        break;
    }
    if (part.size == HTTP_SIZE_UNKNOWN || !sem_same_strong(&v, &v) ||
        http_range(http_value(r->head, HF_RANGE), part.size, &b->range, 1, &n) != HTTP_RANGE_OK) {
        object_unref(&r->object);
        return without(r, true);
    }
    v.etag = pool_slice(r->pool, v.etag);
    b->validator = v;
    b->whole = part.size;
    b->known = true;
    if (b->at != b->range.first)
        b->asked_ms = 0;
    b->at = b->range.first;
    return REQ_BLOCKS;
}

/* The stored block of this key, with a reference, and what it may be used for. */
static enum store_answer
stored(const struct request *r, const struct key *k, struct object **o, enum sem_use *use_as,
    bool *soft)
{
    enum store_answer got;
    const char *why;

    *o = NULL;
    *use_as = SEM_CANNOT;
    rcu_begin();
    got = store_get(req_store(), k, r->head, wall_ms(), o, soft);
    if (got == STORE_HIT) {
        *use_as = sem_use(&r->rq, &(*o)->meta, wall_ms(), *soft, &why);
        object_ref(*o);
    }
    rcu_end();
    return got;
}

/* Is it of the representation that this answer is of? */
static bool
fits(const struct request *r, const struct object *o)
{
    struct sem_validator v = validator(o);

    return object_part(o).size == r->blocks->whole && sem_same_strong(&v, &r->blocks->validator);
}

static bool
is_here(const struct request *r, uint64_t n)
{
    struct object *o = NULL;
    struct buf bytes = { 0 };
    enum sem_use use_as;
    struct key k;
    bool soft, is;

    is = key_block(&r->key, &n, &bytes, &k) == 0 &&
        stored(r, &k, &o, &use_as, &soft) == STORE_HIT &&
        (use_as == SEM_PART || use_as == SEM_FRESH) && fits(r, o);
    if (o != NULL)
        object_unref(&o);
    buf_free(&bytes);
    return is;
}

/* Is the answer made of stored blocks alone, as far as AHEAD_MAX of them? The first is at hand. */
static bool
all_here(const struct request *r)
{
    const struct blocks *b = r->blocks;
    uint64_t first = b->range.first / b->size, last = b->range.last / b->size;

    for (uint64_t n = first + 1; n <= last && n - first <= AHEAD_MAX; n++)
        if (!is_here(r, n))
            return false;
    return true;
}

/* r->object is the block in which b->at was looked for: delivers what it has of the range. */
static enum req_state
use(struct request *r)
{
    struct object_part part = object_part(r->object);
    uint64_t end = part.from + body_size(r->object->body);
    struct blocks *b = r->blocks;

    if (!r->head_sent)
        tell(r);
    if (!b->known) {
        enum req_state next = learn(r, r->object);

        if (next != REQ_BLOCKS)
            return next;
    } else if (!fits(r, r->object)) {
        if (b->asked_ms != 0)
            return changed(r);
        store_drop(req_store(), r->object);     /* it may be the older one: its like is asked for */
        object_unref(&r->object);
        return REQ_WAIT;
    }
    if (b->at < part.from || b->at >= end) {    /* the end was asked for: another block has it */
        object_unref(&r->object);
        return REQ_WAIT;
    }
    if (r->nparts != 1 && !deliver_parts(r, 1)) {
        object_unref(&r->object);
        return r->head_sent ? deliver_cut(r) : without(r, false);
    }
    if (end > b->range.last + 1)
        end = b->range.last + 1;
    r->parts[0].at = b->at - part.from;
    r->parts[0].n = end - b->at;
    r->part = 0;
    if (!r->head_sent) {
        if (r->fwd == FWD_NONE && !all_here(r))
            r->fwd = FWD_PARTIAL;
        tell(r);
        count(r);
    }
    r->cursor = (struct body_cursor){ 0 };
    r->status = 206;
    b->at = end;
    b->tries = 0;
    b->asked_ms = 0;
    return REQ_DELIVER;
}

static int
fetch(struct request *r, const struct key *k, uint64_t n)
{
    struct blocks *b = r->blocks;
    struct fill_want w;
    struct buf range = { 0 };

    buf_printf(&range, "bytes=%llu-%llu", (unsigned long long)(n * b->size),
        (unsigned long long)(n * b->size + b->size - 1));
    request_want(r, FILL_SHARED, &w);
    w.key = k;
    w.together = NULL;
    w.range = buf_slice(&range);
    w.part_only = true;
    w.semantics.range = true;
    w.stale = r->stale;
    b->asked_ms = wall_ms();
    if (!range.failed)
        r->fill = fill_open(req_fills(), conn_loop(r->conn), &w, req_post, r, &r->collapsed);
    buf_free(&range);
    if (!r->head_sent && r->fwd == FWD_NONE)
        r->fwd = r->stale != NULL ? FWD_STALE : FWD_URI_MISS;
    return r->fill != NULL ? 0 : -1;
}

/* Looks for the block of b->at, and fetches it where it is not there. REQ_BLOCKS: r->object is
 * it. */
static enum req_state
find(struct request *r)
{
    struct blocks *b = r->blocks;
    uint64_t n = b->at / b->size;
    struct object *o = NULL;
    struct buf bytes = { 0 };
    enum store_answer got;
    enum sem_use use_as;
    struct key k;
    bool soft;
    int rc = -1;

    if (++b->tries > TRIES_MAX || n > UINT64_MAX / b->size - 1 ||
        key_block(&r->key, &n, &bytes, &k) == -1) {
        buf_free(&bytes);
        return r->head_sent ? deliver_cut(r) : without(r, false);
    }
    object_unref(&r->stale);
    got = stored(r, &k, &o, &use_as, &soft);
    r->doubted = got == STORE_HIT && soft && store_doubts(req_store(), o, wall_ms());
    if (got == STORE_HIT && use_as == SEM_VALIDATE && b->asked_ms != 0 &&
        (!soft || store_untrusted(req_store(), wall_ms())) && o->meta.response_ms >= b->asked_ms)
        use_as = SEM_PART;              /* it has come for this answer */
    if (got == STORE_HIT && (use_as == SEM_PART || use_as == SEM_FRESH)) {
        r->object = o;
        buf_free(&bytes);
        return REQ_BLOCKS;
    }
    if (got == STORE_HIT && use_as == SEM_VALIDATE)
        r->stale = o;
    else if (got == STORE_HIT)
        object_unref(&o);
    if (got != STORE_HIT || use_as != SEM_CANNOT)
        rc = fetch(r, &k, n);
    buf_free(&bytes);
    if (rc == 0)
        return REQ_WAIT;
    return r->head_sent ? deliver_cut(r) : without(r, false);
}

/* Its own answer to the block is a part that is stored; nothing else is of use. */
static enum req_state
arrived(struct request *r, const struct fill_view *v)
{
    bool part = v->status == 206 && v->meta != NULL;

    r->fwd_status = r->head_sent ? r->fwd_status : v->status;
    if (part && !v->complete && !v->broken)
        return REQ_WAIT;
    if (part && v->stored) {
        r->answer_stored = true;
        fill_close(&r->fill);
        return REQ_BLOCKS;
    }
    if (r->head_sent)
        return v->status == 206 && !v->broken ? deliver_cut(r) : changed(r);
    return without(r, !v->broken && (v->status == 206 || v->status == 200));
}

/* What the fetch has come to. REQ_BLOCKS: look again. */
static enum req_state
look(struct request *r)
{
    struct exchange_fault fault;
    struct fill_view v;

    fill_look(r->fill, &v);
    switch (v.state) {
    case FILL_WAITING:
        return REQ_WAIT;
    case FILL_HEAD:
        return arrived(r, &v);
    case FILL_OBJECT:
        rcu_begin();
        r->object = object_ref((struct object *)(uintptr_t)v.object);
        rcu_end();
        r->fwd_status = r->head_sent ? r->fwd_status : 304;
        fill_close(&r->fill);
        return REQ_BLOCKS;
    case FILL_AGAIN:
    case FILL_AGAIN_APART:              /* not of blocks: they are asked for by their own key */
        fill_close(&r->fill);
        return REQ_BLOCKS;
    case FILL_AGAIN_ALONE:
        return r->head_sent ? changed(r) : without(r, false);
    case FILL_FAULT:
        fault = *v.fault;
        return r->head_sent ? deliver_cut(r) : req_fault(r, &fault);
    }
    return REQ_WAIT;
}

bool
blocks_more(const struct request *r)
{
    return r->blocks != NULL && r->blocks->at <= r->blocks->range.last;
}

bool
blocks_head(struct request *r, struct buf *b, const struct http_head *h)
{
    if (r->blocks == NULL)
        return false;
    range_head(b, h, &r->blocks->range, r->blocks->whole);
    return true;
}

enum req_state
do_blocks(struct request *r)
{
    enum req_state next;

    if (r->conn == NULL)
        return REQ_WAIT;                /* on_gone is about to say so, or did */
    for (;;) {
        if (r->fill != NULL && (next = look(r)) != REQ_BLOCKS)
            return next;
        if (r->object == NULL && (next = find(r)) == REQ_WAIT)
            continue;                   /* it may be there already: fill_look tells */
        if (r->object == NULL)
            return next;
        if ((next = use(r)) != REQ_WAIT)
            return next;
    }
}
