/*
 * Blocks: what one thread counts in.
 *
 * Model    a thread gets its block when it first counts; when it ends, the next new thread goes on
 *          with the block, so that no count is lost and short-lived threads do not pile up. A block
 *          has the counters and a two-level table of histograms, both levels made on first use.
 *          New histograms are pushed on a lock-free stack, from which the reader takes them.
 * Threads  a block is written by its thread; counters are read by any. A thread for which no block
 *          could be made counts in a shared spare one: it may lose counts, never more.
 */
#include "stats/inside.h"

#include <pthread.h>
#include <stdlib.h>

#define PAGE_HISTS 512u
#define PAGES      ((ID_END + PAGE_HISTS - 1) / PAGE_HISTS)

struct page { struct hist *at[PAGE_HISTS]; };       /* borrowed: the series own them */

struct block {
    _Atomic uint64_t counters[STATS_COUNTERS];
    struct block *next;                             /* all blocks; never changes once published */
    struct block *next_idle;                        /* under the mutex */
    struct page  *pages[PAGES];                     /* owned; the thread's alone */
};

static _Thread_local struct block *mine;
static struct block spare;
static _Atomic(struct block *) blocks;
static struct block *idle;                          /* under the mutex */
static _Atomic(struct hist *) fresh;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic int64_t gauges[STATS_GAUGES];

static void
on_thread_end(void *arg)
{
    struct block *b = arg;

    mine = NULL;
    pthread_mutex_lock(&mutex);
    b->next_idle = idle;
    idle = b;
    pthread_mutex_unlock(&mutex);
}

static void
make_key(void)
{
    if (pthread_key_create(&key, on_thread_end) != 0)
        log_fatal("statistics: no thread key left");
}

static __attribute__((noinline, cold)) struct block *
block_of_thread(void)
{
    struct block *b;

    pthread_once(&once, make_key);
    pthread_mutex_lock(&mutex);
    b = idle;
    if (b != NULL)
        idle = b->next_idle;
    pthread_mutex_unlock(&mutex);
    if (b == NULL) {
        b = calloc(1, sizeof *b);
        if (b == NULL)
            return &spare;
        b->next = atomic_load_explicit(&blocks, memory_order_relaxed);
        while (!atomic_compare_exchange_weak_explicit(&blocks, &b->next, b, memory_order_release,
            memory_order_relaxed))
            ;
    }
    pthread_setspecific(key, b);
    mine = b;
    return b;
}

static inline struct block *
block_mine(void)
{
    return LIKELY(mine != NULL) ? mine : block_of_thread();
}

void
stats_add(enum stats_counter c, uint64_t n)
{
    _Atomic uint64_t *at = &block_mine()->counters[c];

    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + n,
        memory_order_relaxed);
}

uint64_t
stats_counter(enum stats_counter c)
{
    uint64_t n = atomic_load_explicit(&spare.counters[c], memory_order_relaxed);

    for (struct block *b = atomic_load_explicit(&blocks, memory_order_acquire); b != NULL;
        b = b->next)
        n += atomic_load_explicit(&b->counters[c], memory_order_relaxed);
    return n;
}

void
stats_gauge_add(enum stats_gauge g, int64_t n)
{
    atomic_fetch_add_explicit(&gauges[g], n, memory_order_relaxed);
}

void
stats_gauge_set(enum stats_gauge g, int64_t v)
{
    atomic_store_explicit(&gauges[g], v, memory_order_relaxed);
}

int64_t
stats_gauge(enum stats_gauge g)
{
    return atomic_load_explicit(&gauges[g], memory_order_relaxed);
}

static __attribute__((noinline, cold)) struct hist *
hist_make(struct block *b, uint32_t id)
{
    struct page **page = &b->pages[id / PAGE_HISTS];
    struct hist *h;

    if (b == &spare)
        return NULL;
    if (*page == NULL && (*page = calloc(1, sizeof **page)) == NULL)
        return NULL;
    h = calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    h->id = id;
    (*page)->at[id % PAGE_HISTS] = h;
    h->next = atomic_load_explicit(&fresh, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&fresh, &h->next, h, memory_order_release,
        memory_order_relaxed))
        ;
    return h;
}

struct hist *
hist_mine(uint32_t id)
{
    struct block *b = block_mine();
    struct page *page = b->pages[id / PAGE_HISTS];
    struct hist *h = page != NULL ? page->at[id % PAGE_HISTS] : NULL;

    return LIKELY(h != NULL) ? h : hist_make(b, id);
}

struct hist *
hist_fresh(void)
{
    return atomic_exchange_explicit(&fresh, NULL, memory_order_acquire);
}

void
blocks_free(void)
{
    struct block *b = atomic_exchange(&blocks, NULL);

    pthread_once(&once, make_key);
    pthread_setspecific(key, NULL);
    mine = NULL;
    idle = NULL;
    while (b != NULL) {
        struct block *next = b->next;

        for (unsigned i = 0; i < PAGES; i++)
            free(b->pages[i]);
        free(b);
        b = next;
    }
    memset(&spare, 0, sizeof spare);
    for (unsigned g = 0; g < STATS_GAUGES; g++)
        stats_gauge_set(g, 0);
}

void
stats_request(unsigned slot, enum stats_outcome o, uint64_t us, uint64_t bytes)
{
    struct hist *h = hist_mine((slot < ROUTES_MAX ? slot : 0) * STATS_OUTCOMES + o);

    if (LIKELY(h != NULL))
        hist_add(h, us, bytes);
}

void
stats_origin(unsigned slot, enum stats_origin_time t, uint64_t us)
{
    struct hist *h = hist_mine(ID_ORIGINS + (slot < ORIGINS_MAX ? slot : 0) * ORIGIN_STRIDE + t);

    if (LIKELY(h != NULL))
        hist_add(h, us, 0);
}

void
stats_state(unsigned state, uint64_t us)
{
    struct hist *h = state < STATES_MAX ? hist_mine(ID_STATES + state) : NULL;

    if (LIKELY(h != NULL))
        hist_add(h, us, 0);
}

void
stats_observe(enum stats_summary s, uint64_t v)
{
    struct hist *h = hist_mine(ID_SUMMARIES + s);

    if (LIKELY(h != NULL))
        hist_add(h, v, 0);
}

void
stats_timer(unsigned slot, uint64_t ns)
{
    struct hist *h = slot != 0 ? hist_mine(ID_TIMERS + slot) : NULL;

    if (LIKELY(h != NULL))
        hist_add(h, ns, 0);
}
