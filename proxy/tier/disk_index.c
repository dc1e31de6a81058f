/*
 * The disk tier's index in memory: which keys it has, and which row to evict next.
 *
 * Model    a row's id is the number of its slot, so a slot of 20 bytes says all: the fingerprint of
 *          its key (32 bits: another key with the same costs a read from disk, nothing else), its
 *          chain, its queue, size, frequency. With a bucket and a ghost of 4 bytes each for every
 *          page of the disk's size that is 28 bytes an object of a page. Slots come in chunks, and
 *          buckets are made once: nothing is ever moved, so the lock is held for a few loads.
 * Eviction S3-FIFO by bytes, as memory has it (store/queue.c: the paper is named there). What is
 *          loaded from the file enters the main queue: it was kept. The order in which it came is
 *          not known any more.
 * Loading  in ascending order of id, a piece at a time between the writer's other work. Numbers
 *          that are free below the cursor are found on the way; what is removed above it is found
 *          free when the cursor passes.
 * Threads  as disk.h says.
 */
#include "tier/disk.h"

#include <stdlib.h>
#include <unistd.h>

struct slot {
    uint32_t print;
    uint32_t chain;
    uint32_t newer, older;              /* newer: of a free one the next free */
    uint32_t units : 28, freq : 2, place : 2;
};
_Static_assert(sizeof(struct slot) == 20, "what the head says");

#define CHUNK         65536
#define CHUNKS        4096              /* 268 million objects */
#define BUCKETS_MIN   4096
#define BUCKETS_MAX   (1u << 26)
#define UNIT          512               /* bytes */
#define FREQ_MAX      3
#define FREQ_PROMOTES 2
#define ROUNDS_MAX    256
#define GHOST_WAYS    4
#define HOLES         4096              /* numbers looked at under one hold of the lock */

int
index_init(struct disk_index *x, int64_t disk_size)
{
    uint32_t buckets = BUCKETS_MIN;

    while (buckets < BUCKETS_MAX && (int64_t)buckets * DISK_PAGE < disk_size)
        buckets *= 2;
    x->mask = buckets - 1;
    x->chunks = calloc(CHUNKS, sizeof(struct slot *));
    x->buckets = calloc(buckets, sizeof *x->buckets);
    x->ghosts = calloc(buckets, sizeof *x->ghosts);
    if (x->chunks == NULL || x->buckets == NULL || x->ghosts == NULL)
        return -1;
    return pthread_mutex_init(&x->lock, NULL) == 0 ? 0 : -1;
}

static void
free_slots(struct slot **chunks, uint32_t *buckets)
{
    for (size_t i = 0; chunks != NULL && i < CHUNKS; i++)
        free(chunks[i]);
    free(chunks);
    free(buckets);
}

void
index_fini(struct disk_index *x)
{
    free_slots(x->chunks, x->buckets);
    free(x->ghosts);
    *x = (struct disk_index){ 0 };
}

static struct slot *
at(const struct disk_index *x, uint32_t id)
{
    struct slot *chunk = id / CHUNK < CHUNKS ? x->chunks[id / CHUNK] : NULL;

    return chunk != NULL ? &chunk[id % CHUNK] : NULL;
}

/* -1: memory is out, or there are too many. */
static int
make_slot(struct disk_index *x, uint32_t id)
{
    if (id / CHUNK >= CHUNKS)
        return -1;
    if (x->chunks[id / CHUNK] == NULL)
        x->chunks[id / CHUNK] = calloc(CHUNK, sizeof(struct slot));
    return x->chunks[id / CHUNK] != NULL ? 0 : -1;
}

static uint32_t
print_of(uint64_t key)
{
    return (uint32_t)(key >> 32);
}

/* ---- queues and ghosts ---------------------------------------------------------------------- */

static void
queue_push(struct disk_index *x, uint32_t id, enum slot_place to)
{
    struct slot *s = at(x, id);

    s->place = to;
    s->newer = 0;
    s->older = x->head[to];
    if (s->older != 0)
        at(x, s->older)->newer = id;
    else
        x->tail[to] = id;
    x->head[to] = id;
    x->units[to] += s->units;
}

static void
queue_remove(struct disk_index *x, struct slot *s)
{
    if (s->newer != 0)
        at(x, s->newer)->older = s->older;
    else
        x->head[s->place] = s->older;
    if (s->older != 0)
        at(x, s->older)->newer = s->newer;
    else
        x->tail[s->place] = s->newer;
    x->units[s->place] -= s->units;
    s->place = SLOT_OUT;
}

static uint32_t *
ghost_set(struct disk_index *x, uint32_t print)
{
    return &x->ghosts[print & x->mask & ~(GHOST_WAYS - 1u)];
}

static enum slot_place
entry_place(struct disk_index *x, uint32_t print)
{
    uint32_t *set = ghost_set(x, print);

    for (int i = 0; i < GHOST_WAYS; i++)
        if (set[i] == (print | 1)) {
            set[i] = 0;
            return SLOT_MAIN;
        }
    return SLOT_SMALL;
}

static void
leave_ghost(struct disk_index *x, uint32_t print)
{
    uint32_t *set = ghost_set(x, print);

    memmove(set + 1, set, (GHOST_WAYS - 1) * sizeof *set);
    set[0] = print | 1;                 /* 0: none */
}

uint32_t
index_victim(struct disk_index *x)
{
    uint32_t id = 0;

    pthread_mutex_lock(&x->lock);
    for (int i = 0; i < ROUNDS_MAX; i++) {
        bool small = x->units[SLOT_SMALL] * 10 > x->units[SLOT_SMALL] + x->units[SLOT_MAIN] ||
            x->tail[SLOT_MAIN] == 0;
        struct slot *s;

        if ((id = x->tail[small ? SLOT_SMALL : SLOT_MAIN]) == 0)
            break;
        s = at(x, id);
        if (s->freq < (small ? FREQ_PROMOTES : 1)) {
            if (small)
                leave_ghost(x, s->print);
            break;
        }
        s->freq = small ? 0 : s->freq - 1u;
        queue_remove(x, s);
        queue_push(x, id, SLOT_MAIN);
    }
    pthread_mutex_unlock(&x->lock);
    return id;
}

/* ---- putting in, taking out ----------------------------------------------------------------- */

static void
put(struct disk_index *x, uint32_t id, uint64_t key, uint64_t bytes, bool kept)
{
    struct slot *s = at(x, id);
    uint32_t *bucket = &x->buckets[print_of(key) & x->mask];
    uint64_t units = (bytes + UNIT - 1) / UNIT;

    s->print = print_of(key);
    s->chain = *bucket;
    *bucket = id;
    s->units = units < (1u << 28) ? (uint32_t)units : (1u << 28) - 1;
    s->freq = 0;
    queue_push(x, id, kept ? SLOT_MAIN : entry_place(x, s->print));
    x->live++;
}

static void
give(struct disk_index *x, uint32_t id)
{
    struct slot *s = at(x, id);

    s->newer = x->free;
    x->free = id;
}

/* Under the lock, which is let go of now and then, for long enough that who waits gets it: loops
 * do, and there may be millions of numbers. */
static int
give_below(struct disk_index *x, uint32_t end)
{
    int rc = 0;

    while (x->cursor + 1 < end && rc == 0) {
        uint32_t hole = x->cursor + 1;

        if ((rc = make_slot(x, hole)) == 0 && at(x, hole)->place == SLOT_OUT)
            give(x, hole);
        x->cursor += rc == 0;
        if (hole % HOLES == 0) {
            pthread_mutex_unlock(&x->lock);
            usleep(1);
            pthread_mutex_lock(&x->lock);
        }
    }
    return rc;
}

int
index_load(struct disk_index *x, uint32_t id, uint64_t key, uint64_t bytes)
{
    int rc;

    pthread_mutex_lock(&x->lock);
    rc = give_below(x, id);
    if (rc == 0 && (rc = make_slot(x, id)) == 0 && at(x, id)->place == SLOT_OUT)
        put(x, id, key, bytes, true);
    if (rc == 0)
        x->cursor = id;
    pthread_mutex_unlock(&x->lock);
    return rc;
}

void
index_loaded(struct disk_index *x)
{
    pthread_mutex_lock(&x->lock);
    if (x->cursor < x->last)
        (void)give_below(x, x->last + 1);       /* what cannot be given is not used */
    x->cursor = x->last;
    x->loaded = true;
    pthread_mutex_unlock(&x->lock);
}

uint32_t
index_take(struct disk_index *x)
{
    uint32_t id = 0;

    pthread_mutex_lock(&x->lock);
    if (x->free != 0) {
        id = x->free;
        x->free = at(x, id)->newer;
    } else if (make_slot(x, x->next) == 0) {
        id = x->next++;
    }
    pthread_mutex_unlock(&x->lock);
    return id;
}

void
index_put(struct disk_index *x, uint32_t id, uint64_t key, uint64_t bytes)
{
    pthread_mutex_lock(&x->lock);
    put(x, id, key, bytes, false);
    pthread_mutex_unlock(&x->lock);
}

void
index_remove(struct disk_index *x, uint32_t id)
{
    struct slot *s;

    pthread_mutex_lock(&x->lock);
    if ((s = at(x, id)) != NULL && s->place != SLOT_OUT) {
        uint32_t *link = &x->buckets[s->print & x->mask];

        while (*link != id)
            link = &at(x, *link)->chain;
        *link = s->chain;
        queue_remove(x, s);
        x->live--;
        if (id <= x->cursor || id > x->last)
            give(x, id);
    }
    pthread_mutex_unlock(&x->lock);
}

/* What was is freed behind the lock, which loops wait for: it may be much. */
int
index_reset(struct disk_index *x, uint32_t last)
{
    struct slot **chunks = calloc(CHUNKS, sizeof(struct slot *)), **old_chunks = x->chunks;
    uint32_t *buckets = calloc(x->mask + (size_t)1, sizeof *buckets), *old_buckets = x->buckets;

    if (chunks == NULL || buckets == NULL) {
        free(chunks);
        free(buckets);
        return -1;
    }
    pthread_mutex_lock(&x->lock);
    x->chunks = chunks;
    x->buckets = buckets;
    memset(x->head, 0, sizeof x->head);
    memset(x->tail, 0, sizeof x->tail);
    memset(x->units, 0, sizeof x->units);
    x->live = x->free = x->cursor = 0;
    x->last = last;
    x->next = last + 1;
    x->loaded = false;
    pthread_mutex_unlock(&x->lock);
    free_slots(old_chunks, old_buckets);
    return 0;
}

/* ---- looking -------------------------------------------------------------------------------- */

bool
index_may_have(struct disk_index *x, uint64_t key)
{
    bool may;

    pthread_mutex_lock(&x->lock);
    may = !x->loaded;
    for (uint32_t id = x->buckets[print_of(key) & x->mask]; id != 0 && !may; id = at(x, id)->chain)
        may = at(x, id)->print == print_of(key);
    pthread_mutex_unlock(&x->lock);
    return may;
}

void
index_touch(struct disk_index *x, uint32_t id, uint64_t key)
{
    struct slot *s;

    pthread_mutex_lock(&x->lock);
    s = at(x, id);
    if (s != NULL && s->place != SLOT_OUT && s->print == print_of(key) && s->freq < FREQ_MAX)
        s->freq++;
    pthread_mutex_unlock(&x->lock);
}
