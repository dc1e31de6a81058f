/*
 * The store: its making, lookups, and what changes the index.
 *
 * Model    a shard's table leads from a key to its newest node; older variants hang behind it. What
 *          is put goes in front and what it replaces is taken out behind it, so that a reader
 *          always finds one. The newest response says how its resource varies: one without Vary
 *          replaces all variants, one with Vary replaces the one without. Where no variant matches
 *          a request, the newest answers whose language it prefers to all others, if there is one.
 *          Room is made before a node is published, by evicting from the shards in turn, one lock
 *          at a time. What clients still hold of evicted objects counts against the limit.
 * Threads  store_get: a read section, no lock. All else: any thread, the shard's lock.
 */
#include "store/inside.h"
#include "stats/stats.h"

#include <errno.h>
#include <stdlib.h>

#define SHARDS_MAX   64
#define SHARD_BYTES  ((int64_t)4 << 20) /* a shard is worth its lock from here */
#define LARGEST      8                  /* an object may take one part in this many of the limit */
#define HOLDS        2                  /* ... and all that is under way, together */
#define FREQ_MAX     3
#define WAITING_BASE ((int64_t)4 << 20)

/* ---- making and ending ---------------------------------------------------------------------- */

void
store_charge(struct store *s, int64_t bytes)
{
    atomic_fetch_add_explicit(&s->used, bytes, memory_order_relaxed);
    stats_gauge_add(GAUGE_cache_memory, bytes);
}

static int
shards_init(struct store *s)
{
    s->shards = aligned_alloc(_Alignof(struct shard), s->nshards * sizeof *s->shards);
    if (s->shards == NULL)
        return -1;
    memset(s->shards, 0, s->nshards * sizeof *s->shards);
    for (unsigned i = 0; i < s->nshards; i++)
        if (table_init(s, &s->shards[i]) == -1 ||
            pthread_mutex_init(&s->shards[i].lock, NULL) != 0)
            return -1;
    return 0;
}

static void
store_destroy(struct store *s)
{
    if (s->shards != NULL)
        for (unsigned i = 0; i < s->nshards; i++)
            table_fini(s, &s->shards[i]);
    free(s->shards);
    purge_fini(s);
    tags_fini(s);
    free(s->cells);
    free(s->positions.at);
    store_charge(s, -s->used);
    s->magic = 0;
    free(s);
}

struct store *
store_new(int64_t memory_bytes, unsigned variants, struct err *e)
{
    struct store *s = calloc(1, sizeof *s);

    if (s == NULL)
        goto no_memory;
    s->magic = STORE_MAGIC;
    s->limit = memory_bytes;
    s->variants = variants;
    s->seq = 1;
    for (s->nshards = 1; s->nshards < SHARDS_MAX && s->nshards * SHARD_BYTES < memory_bytes;)
        s->nshards *= 2;
    s->trust_until_ms = INT64_MAX;
    pthread_mutex_init(&s->purge_lock, NULL);
    pthread_mutex_init(&s->positions.lock, NULL);
    s->positions.waiting = UINT64_MAX;
    if ((s->cells = calloc(CELLS, sizeof *s->cells)) == NULL || tags_init(s) != 0 ||
        shards_init(s) == -1)
        goto no_memory;
    if (sweep_start(s, e) == -1) {
        store_destroy(s);
        return NULL;
    }
    stats_gauge_set(GAUGE_cache_memory_limit, memory_bytes);
    return s;

no_memory:
    if (s != NULL)
        store_destroy(s);
    err_set(e, ENOMEM, "memory is out: the store's index cannot be made");
    return NULL;
}

static void
take_out(struct store *s, struct shard *sh, struct node *n, void *arg)
{
    (void)arg;
    store_unlink(s, sh, key_hash(node_key(n)), n, NULL);
}

void
store_free(struct store **sp)
{
    struct store *s = *sp;

    *sp = NULL;
    if (s == NULL)
        return;
    CHECK(s, STORE_MAGIC);
    sweep_stop(s);
    store_visit_all(s, take_out, NULL);
    rcu_drain();
    store_destroy(s);
}

void
store_variants_max(struct store *s, unsigned n)
{
    CHECK(s, STORE_MAGIC);
    atomic_store_explicit(&s->variants, n, memory_order_relaxed);
}

/* ---- lookups -------------------------------------------------------------------------------- */

void
store_trust(struct store *s, int64_t until_ms)
{
    CHECK(s, STORE_MAGIC);
    atomic_store_explicit(&s->trust_until_ms, until_ms, memory_order_relaxed);
}

static inline bool
untrusted(const struct store *s, int64_t now_ms)
{
    return UNLIKELY(now_ms >= atomic_load_explicit(&s->trust_until_ms, memory_order_relaxed));
}

bool
store_untrusted(const struct store *s, int64_t now_ms)
{
    return untrusted(s, now_ms);
}

bool
store_doubts(struct store *s, const struct object *o, int64_t now_ms)
{
    const struct node *n = (const struct node *)(const void *)o;

    CHECK(s, STORE_MAGIC);
    return untrusted(s, now_ms) ||
        atomic_load_explicit(&n->soft, memory_order_relaxed) == NODE_DOUBT;
}

static inline void
visited(struct node *n)
{
    uint8_t freq = atomic_load_explicit(&n->freq, memory_order_relaxed);

    if (UNLIKELY(freq < FREQ_MAX))
        atomic_store_explicit(&n->freq, (uint8_t)(freq + 1), memory_order_relaxed);
}

/* Of the nodes of a key, none of which matches: the newest whose language the request prefers to
 * all others. Each was judged by the caller. */
static struct node *
preferred(struct node *n, const struct http_head *req)
{
    struct store_choice c = { 0 };

    for (; n != NULL; n = rcu_load(&n->older))
        if (!atomic_load_explicit(&n->dead, memory_order_relaxed) && !node_is_mark(n) &&
            choice_prefers(n, req, &c))
            break;
    return n;
}

static enum store_answer
choose(struct store *s, struct node *newest, const struct http_head *req, int64_t now_ms,
    struct object **obj, bool *soft)
{
    struct store_choice c = { 0 };
    bool pass = false, others = false;
    struct node *n;

    for (n = newest; n != NULL; n = rcu_load(&n->older)) {
        if (UNLIKELY(atomic_load_explicit(&n->checked, memory_order_acquire) !=
                atomic_load_explicit(&s->seq, memory_order_acquire)))
            purge_judge(s, n);
        if (atomic_load_explicit(&n->dead, memory_order_relaxed))
            continue;
        if (UNLIKELY(node_is_mark(n))) {
            pass |= now_ms < n->o.meta.response_ms;
            continue;
        }
        if (n->vary_n == 0 || choice_matches(n, req, &c))
            break;
        others = true;
    }
    if (n == NULL && (!others || (n = preferred(newest, req)) == NULL))
        return pass ? STORE_PASS : others ? STORE_VARY_MISS : STORE_MISS;
    visited(n);
    *soft = atomic_load_explicit(&n->soft, memory_order_relaxed) != 0 || untrusted(s, now_ms);
    *obj = &n->o;
    return STORE_HIT;
}

enum store_answer
store_get(struct store *s, const struct key *k, const struct http_head *req, int64_t now_ms,
    struct object **obj, bool *soft)
{
    const struct table *t;
    struct node *n;

    CHECK(s, STORE_MAGIC);
    t = rcu_load(&store_shard(s, k->hash)->table);
    n = table_find(t, k->hash, k->bytes);
    return n != NULL ? choose(s, n, req, now_ms, obj, soft) : STORE_MISS;
}

void
store_each(struct store *s, const struct key *k,
    void (*each)(void *arg, const struct object *o, struct slice vary, bool soft), void *arg)
{
    struct shard *sh = store_shard(s, k->hash);

    CHECK(s, STORE_MAGIC);
    pthread_mutex_lock(&sh->lock);
    for (struct node *n = table_find(sh->table, k->hash, k->bytes); n != NULL; n = n->older) {
        purge_judge_locked(s, n);
        if (!n->dead && !node_is_mark(n))
            each(arg, &n->o, node_vary(n), n->soft != 0 || untrusted(s, wall_ms()));
    }
    pthread_mutex_unlock(&sh->lock);
}

/* ---- taking out ----------------------------------------------------------------------------- */

void
store_unlink(struct store *s, struct shard *sh, uint64_t hash, struct node *n, struct body *kept)
{
    struct node *at = table_find(sh->table, hash, node_key(n));

    if (at == n && n->older == NULL) {
        table_remove(s, sh, hash, node_key(n));
    } else if (at == n) {
        table_put(sh, hash, n->older);
    } else {
        while (at->older != n)
            at = at->older;
        rcu_store(&at->older, n->older);
    }
    queue_remove(sh, n);
    store_charge(s, -(int64_t)node_charge(n));
    if (!node_is_mark(n)) {
        atomic_fetch_sub_explicit(&s->objects, 1, memory_order_relaxed);
        stats_gauge_add(GAUGE_cache_objects, -1);
    }
    tags_give(s, node_tags(n), n->ntags, n->o.stamp);
    node_retire(n, kept);
}

void
store_supersede(struct store *s, const struct key *k, int64_t response_ms)
{
    struct shard *sh = store_shard(s, k->hash);

    pthread_mutex_lock(&sh->lock);
    for (struct node *n = table_find(sh->table, k->hash, k->bytes), *older; n != NULL; n = older) {
        older = n->older;
        if (node_is_mark(n) || n->o.meta.response_ms <= response_ms) {
            lower_tell_drop(s, n);
            store_unlink(s, sh, k->hash, n, NULL);
        }
    }
    pthread_mutex_unlock(&sh->lock);
}

static bool
evict_from(struct store *s, struct shard *sh)
{
    struct node *n;

    pthread_mutex_lock(&sh->lock);
    if ((n = queue_victim(sh)) != NULL) {
        uint64_t hash = key_hash(node_key(n));

        if (n->place == NODE_SMALL)
            queue_ghost(sh, hash);
        if (!node_is_mark(n)) {
            COUNT(cache_evictions);
            COUNT_N(cache_evicted, node_charge(n));
        }
        store_unlink(s, sh, hash, n, NULL);
    }
    pthread_mutex_unlock(&sh->lock);
    return n != NULL;
}

static bool
evict_one(struct store *s)
{
    for (unsigned i = 0; i < s->nshards; i++) {
        unsigned turn = atomic_fetch_add_explicit(&s->cursor, 1, memory_order_relaxed);

        if (evict_from(s, &s->shards[turn & (s->nshards - 1)]))
            return true;
    }
    return false;
}

/* Reserves `bytes` (fewer than none: gives back), evicting as much as it takes. False when there is
 * no room: nothing is reserved. What waits for readers is gone within milliseconds, so it does not
 * evict; but it is resident, so past a bound nothing more is stored until it is gone. */
static bool
make_room(struct store *s, int64_t bytes)
{
    int64_t theirs = nodes_held();
    int64_t limit = s->limit - (theirs < s->limit / 2 ? theirs : s->limit / 2);

    if (bytes > 0 && nodes_waiting() > s->limit / 16 + WAITING_BASE)
        return false;
    store_charge(s, bytes);
    while (atomic_load_explicit(&s->used, memory_order_relaxed) > limit)
        if (!evict_one(s)) {
            store_charge(s, -bytes);
            return false;
        }
    return true;
}

static void
holds_change(struct store *s, uint64_t *mine, uint64_t bytes)
{
    int64_t more = (int64_t)bytes - (int64_t)*mine;

    atomic_fetch_add_explicit(&s->holds, more, memory_order_relaxed);
    *mine = bytes;
}

bool
store_hold(struct store *s, uint64_t *mine, uint64_t bytes)
{
    uint64_t was = *mine;

    CHECK(s, STORE_MAGIC);
    if (bytes <= was) {
        holds_change(s, mine, bytes);
        store_charge(s, -(int64_t)(was - bytes));
        return true;
    }
    holds_change(s, mine, bytes);
    if (atomic_load_explicit(&s->holds, memory_order_relaxed) <= s->limit / HOLDS &&
        make_room(s, (int64_t)(bytes - was)))
        return true;
    holds_change(s, mine, was);
    return false;
}

/* ---- putting in ----------------------------------------------------------------------------- */

/* Does `n`, the newer one, replace v? */
static bool
replaces(const struct node *n, const struct node *v)
{
    if (node_is_mark(n) || node_is_mark(v))
        return node_is_mark(v);         /* a mark ends with whatever comes next under its key */
    if (n->vary_n == 0 || v->vary_n == 0)
        return true;
    return slice_eq(node_vary(n), node_vary(v)) && slice_eq(node_variant(n), node_variant(v));
}

/* Was v's response on its way together with n's, and is it the more recent (RFC 9111 4: by Date;
 * in one second, the one that came later)? A response that had come before n was asked for is older
 * whatever two clocks say. What is softly purged gives way to anything. */
static bool
outdates(const struct node *v, const struct node *n, int64_t request_ms)
{
    const struct sem_meta *old = &n->o.meta, *new = &v->o.meta;

    if (request_ms == 0 || new->response_ms < request_ms || node_is_mark(v) || node_is_mark(n) ||
        v->dead || v->soft)
        return false;
    if (new->date_ms / 1000 != old->date_ms / 1000)
        return new->date_ms > old->date_ms;
    return new->response_ms > old->response_ms;
}

/* Is a newer one there that answers requests which n would? Variants of one Vary do not meet. */
static bool
outdated(struct store *s, const struct node *n, struct node *freshened, int64_t request_ms)
{
    for (struct node *v = n->older; v != NULL; v = v->older) {
        bool apart = n->vary_n > 0 && slice_eq(node_vary(n), node_vary(v)) &&
            !slice_eq(node_variant(n), node_variant(v));

        if (v == freshened || apart)
            continue;
        purge_judge_locked(s, v);
        if (outdates(v, n, request_ms))
            return true;
    }
    return false;
}

/* What is replaced by n goes, and so does what is over the limit of variants, the oldest first. */
static void
thin(struct store *s, struct shard *sh, uint64_t hash, struct node *n, struct node *freshened)
{
    unsigned max = atomic_load_explicit(&s->variants, memory_order_relaxed);
    unsigned count = node_is_mark(n) ? 0 : 1;

    for (struct node *v = n->older, *older; v != NULL; v = older) {
        older = v->older;
        if (v == freshened)
            store_unlink(s, sh, hash, v, v->o.body);
        else if (replaces(n, v) || (!node_is_mark(v) && ++count > max))
            store_unlink(s, sh, hash, v, NULL);
    }
}

/* A replacement goes on in the queue where the replaced one stood. */
static enum node_place
place_for(struct shard *sh, uint64_t hash, struct node *n)
{
    for (struct node *v = n->older; v != NULL; v = v->older)
        if (replaces(n, v)) {
            n->freq = v->freq;
            return v->place;
        }
    return queue_entry(sh, hash);
}

/* With the shard locked and room reserved. */
static enum store_result
insert(struct store *s, struct shard *sh, uint64_t hash, struct node *n, struct node *freshened,
    int64_t request_ms)
{
    STEP("put: locked");
    if (purge_refuses(s, n))
        return STORE_PURGED;
    n->older = table_find(sh->table, hash, node_key(n));
    if (outdated(s, n, freshened, request_ms))
        return STORE_OLDER;
    if (table_reserve(s, sh) == -1)
        return STORE_NO_MEMORY;
    STEP("put: checked");
    queue_push(sh, n, place_for(sh, hash, n));
    table_put(sh, hash, n);
    if (!node_is_mark(n)) {
        atomic_fetch_add_explicit(&s->objects, 1, memory_order_relaxed);
        stats_gauge_add(GAUGE_cache_objects, 1);
    }
    thin(s, sh, hash, n, freshened);
    return STORE_STORED;
}

static void
give_up(struct store *s, struct node *n)
{
    store_charge(s, -(int64_t)node_charge(n));
    tags_give(s, node_tags(n), n->ntags, n->o.stamp);
    node_free(n);
}

static enum store_result
counted(enum store_result r)
{
    if (r == STORE_STORED)
        COUNT(cache_stores);
    else if (r == STORE_PURGED)
        COUNT(cache_store_refused);
    else if (r == STORE_OLDER)
        COUNT(cache_store_older);
    else if (r == STORE_NO_MEMORY)
        COUNT(memory_failures);
    return r;
}

/* The node for p around `body`, whose reference it takes over in any case, with its tags held and
 * its room reserved. */
static struct node *
prepare(struct store *s, const struct store_parts *p, struct body *body)
{
    /* A copy beside the original, which its readers keep, is more. */
    int64_t here = p->held != NULL && body == p->body ? (int64_t)*p->held : 0;
    struct tag *tags[NODE_TAGS_MAX];
    struct node *n;
    size_t ntags;

    if (tags_take(s, p, tags, &ntags) == -1)
        goto no_tags;
    if ((n = node_new(p, tags, ntags, body)) == NULL)
        goto no_node;
    if (make_room(s, (int64_t)node_charge(n) - here))
        return n;
    n->o.body = NULL;
    node_free(n);
no_node:
    tags_give(s, tags, ntags, p->stamp);
no_tags:
    body_unref(&body);
    return NULL;
}

static bool
too_large(const struct store *s, const struct store_parts *p)
{
    uint64_t bytes = p->key->bytes.n + p->vary.n + p->variant.n + p->head.n;

    if (p->body != NULL)
        bytes += body_size(p->body);
    return bytes > (uint64_t)s->limit / LARGEST || p->head.n > UINT32_MAX || p->ntags > 256 ||
        p->ngroups > STORE_GROUPS_MAX || p->vary.n > UINT16_MAX ||
        p->status_n > UINT16_MAX || p->etag_n > UINT16_MAX;
}

static enum store_result
put(struct store *s, const struct store_parts *p, struct body *body, struct object **out)
{
    bool over = p->held != NULL && body == p->body;
    struct shard *sh = store_shard(s, p->key->hash);
    struct node *n = prepare(s, p, body);
    enum store_result r;

    if (n == NULL)
        return STORE_NO_MEMORY;
    if (out != NULL)
        object_ref(&n->o);
    STEP("put: prepared");
    pthread_mutex_lock(&sh->lock);
    r = insert(s, sh, p->key->hash, n, NULL, p->request_ms);
    pthread_mutex_unlock(&sh->lock);
    if (r != STORE_STORED) {
        if (over)
            store_charge(s, (int64_t)*p->held);     /* give_up takes the node's charge whole */
        give_up(s, n);
        return r;
    }
    if (p->own != NULL)
        store_supersede(s, p->own, p->meta.response_ms);
    if (over)
        holds_change(s, p->held, 0);    /* its bytes are the node's now */
    if (out != NULL)
        *out = &n->o;
    return r;
}

enum store_result
store_put(struct store *s, const struct store_parts *p, struct object **out)
{
    struct body *body;

    CHECK(s, STORE_MAGIC);
    if (too_large(s, p))
        return STORE_TOO_LARGE;
    if ((body = body_keep(p->body)) == NULL)
        return counted(STORE_NO_MEMORY);
    return counted(put(s, p, body, out));
}

void
store_pass(struct store *s, const struct key *k, int64_t until_ms)
{
    store_refuse(s, k, &(struct store_refusal){ .until_ms = until_ms });
}

/* A mark varies by nothing: the word stands in the place of vary, the fields in variant's. */
void
store_refuse(struct store *s, const struct key *k, const struct store_refusal *r)
{
    struct store_parts p = { .key = k, .vary = r->why, .variant = r->head,
        .meta = { .response_ms = r->until_ms, .date_ms = r->at_ms,
            .status = (uint16_t)r->status }, .stamp = store_stamp(s) };

    CHECK(s, STORE_MAGIC);
    if (!too_large(s, &p))
        (void)put(s, &p, NULL, NULL); /* without the mark the next request asks the origin alone */
}

/* The node that is to follow `was`: the same but for p. */
static struct node *
successor(struct store *s, struct node *was, struct store_parts *p, const struct key *k)
{
    struct tag *tags[NODE_TAGS_MAX];
    struct object_part part = object_part(&was->o);
    struct node *n;
    size_t ntags;

    p->key = k;
    p->vary = node_vary(was);
    p->variant = node_variant(was);
    p->route_id = was->o.route_id;
    p->part = &part;
    p->meta.flags = (uint16_t)((p->meta.flags & ~META_PARTIAL) |
        (was->o.meta.flags & META_PARTIAL));
    if (tags_again(s, was, p, tags, &ntags) == -1)
        return NULL;
    if ((n = node_new(p, tags, ntags, was->o.body)) == NULL) {
        tags_give(s, tags, ntags, p->stamp);
        return NULL;
    }
    body_ref(was->o.body);
    if (p->forms != NULL && *p->forms != NULL) {
        n->o.forms = *p->forms;
        n->charge += charge_units(forms_charge(n->o.forms, true));
    }
    store_charge(s, (int64_t)node_charge(n));
    return n;
}

static enum store_result
freshen(struct store *s, struct node *was, struct store_parts *p, struct object **out)
{
    struct key k = { .bytes = node_key(was), .hash = key_hash(node_key(was)) };
    struct shard *sh = store_shard(s, k.hash);
    enum store_result r = STORE_PURGED;
    struct node *n = NULL;

    pthread_mutex_lock(&sh->lock);
    if (was->place != NODE_OUT)
        purge_judge_locked(s, was);
    if (was->place != NODE_OUT && !was->dead) {
        r = STORE_NO_MEMORY;
        if ((n = successor(s, was, p, &k)) != NULL)
            r = insert(s, sh, k.hash, n, was, p->request_ms);
    }
    if (r == STORE_STORED && out != NULL)
        *out = object_ref(&n->o);
    pthread_mutex_unlock(&sh->lock);
    if (n != NULL && r == STORE_STORED && p->forms != NULL)
        *p->forms = NULL;
    if (n != NULL && r != STORE_STORED) {
        n->o.forms = NULL;              /* the caller's still */
        give_up(s, n);
    }
    return r;
}

enum store_result
store_freshen(struct store *s, struct object *was, const struct store_parts *with,
    struct object **out)
{
    struct store_parts p = { .head = with->head, .status_n = with->status_n,
        .etag_at = with->etag_at, .etag_n = with->etag_n, .meta = with->meta,
        .request_ms = with->request_ms, .stamp = with->stamp, .regroup = with->regroup,
        .forms = with->forms, .groups = with->groups,
        .ngroups = with->regroup ? with->ngroups : 0 };
    struct key none = { 0 };
    enum store_result r;

    CHECK(s, STORE_MAGIC);
    CHECK(was, OBJECT_MAGIC);
    p.key = &none;
    if (too_large(s, &p))
        return STORE_TOO_LARGE;
    r = freshen(s, (struct node *)(void *)was, &p, out);
    if (r == STORE_STORED)
        COUNT(cache_freshened);
    else
        counted(r);
    return r;
}

/* ---- coded forms ---------------------------------------------------------------------------- */

/* Under the shard's lock. */
static bool
formless(struct store *s, struct node *n)
{
    if (n->place == NODE_OUT)
        return false;
    purge_judge_locked(s, n);
    return !n->dead && n->o.forms == NULL;
}

bool
store_wants_forms(struct store *s, const struct object *o)
{
    struct node *n = (struct node *)(uintptr_t)o;
    struct shard *sh = store_shard(s, key_hash(node_key(n)));
    bool wants;

    CHECK(s, STORE_MAGIC);
    CHECK(o, OBJECT_MAGIC);
    pthread_mutex_lock(&sh->lock);
    wants = formless(s, n);
    pthread_mutex_unlock(&sh->lock);
    return wants;
}

enum store_result
store_add_forms(struct store *s, struct object *o, struct forms **forms, uint64_t *held)
{
    struct node *n = (struct node *)(void *)o;
    struct shard *sh = store_shard(s, key_hash(node_key(n)));
    uint32_t units = charge_units(forms_charge(*forms, true));
    int64_t bytes = (int64_t)units * CHARGE_UNIT, here = (int64_t)*held;
    bool stored;

    CHECK(s, STORE_MAGIC);
    CHECK(o, OBJECT_MAGIC);
    if (bytes > s->limit / LARGEST)
        return STORE_TOO_LARGE;
    if (!make_room(s, bytes - here))
        return STORE_NO_MEMORY;
    STEP("forms: room");
    pthread_mutex_lock(&sh->lock);
    stored = formless(s, n);
    if (stored) {
        sh->bytes[n->place] += (size_t)bytes;
        n->charge += units;
        rcu_store(&o->forms, *forms);
        *forms = NULL;
    }
    pthread_mutex_unlock(&sh->lock);
    if (stored)
        holds_change(s, held, 0);
    else
        store_charge(s, here - bytes);
    return stored ? STORE_STORED : STORE_PURGED;
}

void
store_soften(struct store *s, struct object *o)
{
    struct node *n = (struct node *)(void *)o;
    struct shard *sh = store_shard(s, key_hash(node_key(n)));

    CHECK(s, STORE_MAGIC);
    CHECK(o, OBJECT_MAGIC);
    pthread_mutex_lock(&sh->lock);
    node_soften(n, NODE_SOFT);
    lower_tell_drop(s, n);
    pthread_mutex_unlock(&sh->lock);
}

void
store_drop(struct store *s, struct object *o)
{
    struct node *n = (struct node *)(void *)o;
    uint64_t hash = key_hash(node_key(n));
    struct shard *sh = store_shard(s, hash);

    CHECK(s, STORE_MAGIC);
    CHECK(o, OBJECT_MAGIC);
    pthread_mutex_lock(&sh->lock);
    lower_tell_drop(s, n);
    if (n->place != NODE_OUT)
        store_unlink(s, sh, hash, n, NULL);
    pthread_mutex_unlock(&sh->lock);
}

void
store_figures(struct store *s, struct store_figures *f)
{
    CHECK(s, STORE_MAGIC);
    *f = (struct store_figures){ .limit = (uint64_t)s->limit };
    f->objects = (uint64_t)atomic_load_explicit(&s->objects, memory_order_relaxed);
    f->bytes = (uint64_t)atomic_load_explicit(&s->used, memory_order_relaxed);
    for (unsigned i = 0; i < s->nshards; i++) {
        pthread_mutex_lock(&s->shards[i].lock);
        f->entries += s->shards[i].table->live;
        pthread_mutex_unlock(&s->shards[i].lock);
    }
    pthread_mutex_lock(&s->tags.lock);
    f->tags = s->tags.n;
    pthread_mutex_unlock(&s->tags.lock);
    pthread_mutex_lock(&s->purge_lock);
    f->rules = s->nrules;
    pthread_mutex_unlock(&s->purge_lock);
}
