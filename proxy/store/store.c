/*
 * The store: its making, lookups, room, and what is taken out.
 *
 * Model    a shard's table leads from a key to its newest node; older variants hang behind it.
 *          Where no variant matches a request, the newest answers whose language it prefers to all
 *          others, if there is one. Room is made by evicting from the shards in turn, one lock at a
 *          time. What clients still hold of evicted objects counts against the limit.
 * Threads  store_get: a read section, no lock. All else: any thread, the shard's lock.
 */
#include "store/inside.h"
#include "stats/stats.h"

#include <errno.h>
#include <stdlib.h>

#define SHARDS_MAX   64
#define SHARD_BYTES  ((int64_t)4 << 20) /* a shard is worth its lock from here */
#define HOLDS        2                  /* bodies under way: one part in this many of the limit */
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

bool
store_clear(struct store *s, unsigned n)
{
    CHECK(s, STORE_MAGIC);
    while (n > 0 && evict_one(s))
        n--;
    return n > 0;
}

/* What waits for readers is gone within milliseconds, so it does not evict; but it is resident, so
 * past a bound nothing more is stored until it is gone. */
bool
store_room(struct store *s, int64_t bytes)
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

void
store_holds_change(struct store *s, uint64_t *mine, uint64_t bytes)
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
        store_holds_change(s, mine, bytes);
        store_charge(s, -(int64_t)(was - bytes));
        return true;
    }
    store_holds_change(s, mine, bytes);
    if (atomic_load_explicit(&s->holds, memory_order_relaxed) <= s->limit / HOLDS &&
        store_room(s, (int64_t)(bytes - was)))
        return true;
    store_holds_change(s, mine, was);
    return false;
}

/* ---- what is there already ------------------------------------------------------------------- */

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
