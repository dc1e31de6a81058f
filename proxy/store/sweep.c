/*
 * The sweeper, and the purges as callers see them.
 *
 * Model    a purge is in force when it is published; the sweeper walks the index afterwards, frees
 *          the bytes of what purges killed, and so lets rules be forgotten. Purges during a
 *          pass are served by one more pass. It takes a shard's lock for a few hundred nodes at a
 *          time.
 * Threads  store_purge, store_purge_count: any. The sweeper is one thread of the store's own, at a
 *          lower priority.
 */
#include "store/inside.h"
#include "stats/stats.h"

#include <errno.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define CHUNK      256                  /* slots looked at under one hold of a lock */
#define NICE       5
#define FORGET_US  ((int64_t)60000000)  /* how often old rules are looked at without a purge */
#define REST       9                    /* times a pass's length between passes: a tenth of a core
                                           at most, however fast purges come */

/* ---- walking the index ---------------------------------------------------------------------- */

/* Visits slots from *at under the lock. A table that is replaced meanwhile is begun anew. False at
 * the end. */
static bool
visit_chunk(struct store *s, struct shard *sh, uint32_t *at, uint32_t *generation,
    store_visit *visit, void *arg)
{
    bool more;

    pthread_mutex_lock(&sh->lock);
    if (*generation != sh->generation)
        *at = 0;
    *generation = sh->generation;
    for (uint32_t end = *at + CHUNK; *at < end && *at < sh->table->cap; ++*at) {
        struct node *n = slot_node(atomic_load_explicit(&sh->table->slots[*at],
            memory_order_relaxed));

        for (struct node *older; n != NULL; n = older) {
            older = n->older;
            visit(s, sh, n, arg);
        }
        if (*generation != sh->generation)
            break;
    }
    more = *generation != sh->generation || *at < sh->table->cap;
    pthread_mutex_unlock(&sh->lock);
    return more;
}

void
store_visit_all(struct store *s, store_visit *visit, void *arg)
{
    for (unsigned i = 0; i < s->nshards; i++) {
        uint32_t at = 0, generation = 0;

        while (visit_chunk(s, &s->shards[i], &at, &generation, visit, arg))
            continue;
    }
}

static void
sweep_node(struct store *s, struct shard *sh, struct node *n, void *arg)
{
    (void)arg;
    purge_judge_locked(s, n);
    if (!n->dead)
        return;
    if (!node_is_mark(n))
        COUNT(purged_objects);
    store_unlink(s, sh, key_hash(node_key(n)), n, NULL);
}

/* ---- the thread ----------------------------------------------------------------------------- */

/* With sweep_lock: until that much time has passed, or the store ends, or (where `asked` counts) a
 * purge asks for a pass. */
static void
rest(struct store *s, int64_t us, bool asked)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    us += until.tv_nsec / 1000;
    until.tv_sec += us / 1000000;
    until.tv_nsec = us % 1000000 * 1000;
    while (!s->sweep_stop && !(asked && s->sweep_asked != s->sweep_done))
        if (pthread_cond_timedwait(&s->sweep_cond, &s->sweep_lock, &until) == ETIMEDOUT)
            return;
}

/* One pass, without sweep_lock; how long it took. */
static int64_t
sweep_pass(struct store *s)
{
    int64_t start = now_us();
    uint64_t seq = store_stamp(s);

    store_visit_all(s, sweep_node, NULL);
    purge_forget(s, seq);
    s->swept = seq;
    return now_us() - start;
}

static void *
sweeper(void *arg)
{
    struct store *s = arg;

    setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);    /* Linux: of this thread alone */
    pthread_mutex_lock(&s->sweep_lock);
    while (!s->sweep_stop) {
        uint64_t asked = s->sweep_asked;
        bool pass = asked != s->sweep_done;
        int64_t took = 0;

        pthread_mutex_unlock(&s->sweep_lock);
        if (pass)
            took = sweep_pass(s);
        else
            purge_forget(s, s->swept);
        pthread_mutex_lock(&s->sweep_lock);
        s->sweep_done = asked;
        pthread_cond_broadcast(&s->sweep_cond);
        rest(s, took * REST, false);
        rest(s, FORGET_US, true);
    }
    pthread_mutex_unlock(&s->sweep_lock);
    return NULL;
}

int
sweep_start(struct store *s, struct err *e)
{
    int rc;

    pthread_mutex_init(&s->sweep_lock, NULL);
    pthread_cond_init(&s->sweep_cond, NULL);
    if ((rc = pthread_create(&s->sweeper, NULL, sweeper, s)) != 0)
        return err_set(e, rc, "the store's sweeper thread: %s", strerror(rc));
    return 0;
}

void
sweep_stop(struct store *s)
{
    pthread_mutex_lock(&s->sweep_lock);
    s->sweep_stop = true;
    pthread_cond_broadcast(&s->sweep_cond);
    pthread_mutex_unlock(&s->sweep_lock);
    pthread_join(s->sweeper, NULL);
    pthread_cond_destroy(&s->sweep_cond);
    pthread_mutex_destroy(&s->sweep_lock);
}

uint64_t
store_sweep(struct store *s)
{
    uint64_t mine;

    CHECK(s, STORE_MAGIC);
    pthread_mutex_lock(&s->sweep_lock);
    mine = ++s->sweep_asked;
    pthread_cond_broadcast(&s->sweep_cond);
    pthread_mutex_unlock(&s->sweep_lock);
    return mine;
}

bool
store_swept(struct store *s, uint64_t sweep)
{
    bool over;

    pthread_mutex_lock(&s->sweep_lock);
    over = s->sweep_done >= sweep;
    pthread_mutex_unlock(&s->sweep_lock);
    return over;
}

void
sweep_wait(struct store *s)
{
    uint64_t mine = store_sweep(s);

    pthread_mutex_lock(&s->sweep_lock);
    while (s->sweep_done < mine)
        pthread_cond_wait(&s->sweep_cond, &s->sweep_lock);
    pthread_mutex_unlock(&s->sweep_lock);
}

/* May the index hold what purges have killed? Then tags count too many. */
static bool
sweep_pending(struct store *s)
{
    bool pending;

    pthread_mutex_lock(&s->sweep_lock);
    pending = s->sweep_asked != s->sweep_done;
    pthread_mutex_unlock(&s->sweep_lock);
    return pending;
}

/* ---- purging -------------------------------------------------------------------------------- */

/* The nodes of one key that are older than `seq`: out, or soft. How many objects were alive. */
static uint64_t
purge_key(struct store *s, struct slice key, uint64_t seq, bool soft)
{
    uint64_t hash = key_hash(key), hit = 0;
    struct shard *sh = store_shard(s, hash);

    pthread_mutex_lock(&sh->lock);
    for (struct node *n = table_find(sh->table, hash, key), *older; n != NULL; n = older) {
        older = n->older;
        if (n->o.stamp >= seq)
            continue;
        purge_judge_locked(s, n);
        hit += !n->dead && !node_is_mark(n);
        if (soft)
            node_soften(n, NODE_SOFT);
        else
            store_unlink(s, sh, hash, n, NULL);
    }
    pthread_mutex_unlock(&sh->lock);
    return hit;
}

int
store_purge(struct store *s, const struct store_purge *p, struct store_purged *r)
{
    uint64_t seq, tagged, keyed = 0;
    int rc;

    CHECK(s, STORE_MAGIC);
    COUNT(purges);
    rc = purge_publish(s, p, &seq, &tagged);
    if (p->kind == STORE_PURGE_URL)
        keyed = purge_key(s, p->text, seq, p->soft);
    if (keyed > 0 && !p->soft)
        COUNT_N(purged_objects, keyed);
    r->exact = p->kind == STORE_PURGE_URL || p->kind == STORE_PURGE_TAG ||
        p->kind == STORE_PURGE_GROUP;
    r->objects = r->exact ? tagged + keyed : 0;
    if (!r->exact || tagged > 0)
        (void)store_sweep(s);
    return rc;
}

struct count { const struct store_purge *p; uint64_t n; };

static void
count_node(struct store *s, struct shard *sh, struct node *n, void *arg)
{
    struct count *c = arg;

    (void)sh;
    purge_judge_locked(s, n);
    c->n += !n->dead && !node_is_mark(n) && purge_matches(c->p, n);
}

static uint64_t
count_key(struct store *s, struct slice key)
{
    uint64_t hash = key_hash(key), found = 0;
    struct shard *sh = store_shard(s, hash);

    pthread_mutex_lock(&sh->lock);
    for (struct node *n = table_find(sh->table, hash, key); n != NULL; n = n->older) {
        purge_judge_locked(s, n);
        found += !n->dead && !node_is_mark(n);
    }
    pthread_mutex_unlock(&sh->lock);
    return found;
}

uint64_t
store_purge_count(struct store *s, const struct store_purge *p)
{
    struct count c = { .p = p };

    CHECK(s, STORE_MAGIC);
    if (p->kind == STORE_PURGE_TAG || p->kind == STORE_PURGE_URL || p->kind == STORE_PURGE_GROUP) {
        bool url = p->kind == STORE_PURGE_URL;
        uint64_t tagged = tags_count(s, tag_kind_of(p->kind), p->text);

        if (tagged == 0 || !sweep_pending(s))
            return tagged + (url ? count_key(s, p->text) + search_count(s, p->text) : 0);
        c.n = url ? search_count(s, p->text) : 0;
    }
    store_visit_all(s, count_node, &c);
    return c.n;
}

uint64_t
store_stamp(const struct store *s)
{
    return atomic_load_explicit(&s->seq, memory_order_acquire);
}
