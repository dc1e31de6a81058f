/*
 * Eviction: S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache
 * eviction", SOSP 2023), by bytes, one set of queues a shard.
 *
 * Model    what is new enters a small queue of a tenth of the bytes; what was asked for more than
 *          once there moves to the main queue at its end, the rest is evicted and leaves its
 *          fingerprint behind. What comes back while its fingerprint is there enters the main
 *          queue at once. The main queue gives one more round for each time something was asked
 *          for, three at most. So one scan over everything passes through a tenth.
 *          Fingerprints stand in small sets, newest first: the oldest of a set falls out.
 * Threads  the shard's lock; only `freq` is touched without it.
 */
#include "store/inside.h"

#define FREQ_PROMOTES 2                 /* "accessed more than once", section 4.1 of the paper */
#define ROUNDS_MAX    256   /* nodes looked at for one victim, so that the lock is held briefly */

void
queue_push(struct shard *sh, struct node *n, enum node_place to)
{
    n->place = (uint8_t)to;
    n->queue.prev = NULL;
    n->queue.next = sh->head[to];
    if (sh->head[to] != NULL)
        sh->head[to]->queue.prev = n;
    else
        sh->tail[to] = n;
    sh->head[to] = n;
    sh->bytes[to] += node_charge(n);
}

void
queue_remove(struct shard *sh, struct node *n)
{
    if (n->queue.prev != NULL)
        n->queue.prev->queue.next = n->queue.next;
    else
        sh->head[n->place] = n->queue.next;
    if (n->queue.next != NULL)
        n->queue.next->queue.prev = n->queue.prev;
    else
        sh->tail[n->place] = n->queue.prev;
    sh->bytes[n->place] -= node_charge(n);
    n->place = NODE_OUT;
}

static uint32_t *
ghost_set(struct table *t, uint64_t hash)
{
    return t->ghost + GHOST_WAYS * (((hash & UINT32_MAX) * t->ghosts) >> 32);
}

static uint32_t
fingerprint(uint64_t hash)
{
    return (uint32_t)(hash >> 32) | 1;  /* 0: none */
}

enum node_place
queue_entry(struct shard *sh, uint64_t hash)
{
    uint32_t *set = ghost_set(sh->table, hash), f = fingerprint(hash);

    for (int i = 0; i < GHOST_WAYS; i++)
        if (set[i] == f) {
            set[i] = 0;
            return NODE_MAIN;
        }
    return NODE_SMALL;
}

void
queue_ghost(struct shard *sh, uint64_t hash)
{
    uint32_t *set = ghost_set(sh->table, hash);

    memmove(set + 1, set, (GHOST_WAYS - 1) * sizeof *set);
    set[0] = fingerprint(hash);
}

struct node *
queue_victim(struct shard *sh)
{
    struct node *n = NULL;

    for (int i = 0; i < ROUNDS_MAX; i++) {
        bool small = sh->bytes[NODE_SMALL] * 10 > sh->bytes[NODE_SMALL] + sh->bytes[NODE_MAIN] ||
            sh->tail[NODE_MAIN] == NULL;
        uint8_t freq;

        if ((n = sh->tail[small ? NODE_SMALL : NODE_MAIN]) == NULL)
            return NULL;
        freq = atomic_load_explicit(&n->freq, memory_order_relaxed);
        if (atomic_load_explicit(&n->dead, memory_order_relaxed) ||
            freq < (small ? FREQ_PROMOTES : 1))
            return n;
        atomic_store_explicit(&n->freq, small ? 0 : (uint8_t)(freq - 1), memory_order_relaxed);
        queue_remove(sh, n);
        queue_push(sh, n, NODE_MAIN);
    }
    return n;
}
