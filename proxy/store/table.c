/*
 * The index's tables: open addressing that is read without a lock.
 *
 * Model    a reader probes from the key's home slot to the first free one. A writer (shard locked)
 *          fills the first slot on that path that is gone or free, so that what a reader looks for
 *          is never behind a free slot; it empties a slot to `gone`, and turns a run of gone slots
 *          to free when a free one follows. A full table is copied into a new one and freed after
 *          its readers. Load 0.62 after a copy, 0.8 with gone slots at most: 10 to 13 bytes a key.
 *          Hashes are not kept: a copy computes them from the keys again, which costs less than the
 *          cache miss that reading the node is anyway.
 * Threads  table_find: a read section, or the lock. All else: the lock.
 */
#include "store/inside.h"

#include <malloc.h>
#include <stdlib.h>

#define CAP_MIN   64
#define TAG_SHIFT 48

static inline uint32_t
home(uint64_t hash, uint32_t cap)       /* the high bits choose (Lemire's multiply-shift) */
{
    return (uint32_t)(((unsigned __int128)hash * cap) >> 64);
}

static inline uint64_t
slot_of(uint64_t hash, const struct node *n)
{
    uint64_t p = (uint64_t)(uintptr_t)n;

    assert(p >> TAG_SHIFT == 0);
    return p | hash << TAG_SHIFT;       /* the low 16 bits, which `home` hardly sees */
}

static struct table *
table_new(uint32_t cap)
{
    uint32_t sets = cap / (2 * GHOST_WAYS);     /* as many fingerprints as half the slots */
    struct table *t = calloc(1, sizeof *t + cap * sizeof t->slots[0] +
        sets * GHOST_WAYS * sizeof *t->ghost);

    if (t == NULL)
        return NULL;
    t->cap = cap;
    t->ghosts = sets;
    t->ghost = (uint32_t *)(void *)(t->slots + cap);
    return t;
}

static int64_t
table_charge(struct table *t)
{
    return (int64_t)malloc_usable_size(t);
}

int
table_init(struct store *s, struct shard *sh)
{
    if ((sh->table = table_new(CAP_MIN)) == NULL)
        return -1;
    store_charge(s, table_charge(sh->table));
    return 0;
}

void
table_fini(struct store *s, struct shard *sh)
{
    if (sh->table != NULL)
        store_charge(s, -table_charge(sh->table));
    free(sh->table);
    sh->table = NULL;
}

struct node *
table_find(const struct table *t, uint64_t hash, struct slice key)
{
    uint32_t at = home(hash, t->cap);
    uint64_t slot;

    while ((slot = atomic_load_explicit(&t->slots[at], memory_order_acquire)) != 0) {
        if (slot >> TAG_SHIFT == (hash & 0xffff) && slot != SLOT_GONE) {
            struct node *n = slot_node(slot);

            if (n->key_n == key.n && memcmp(node_key_at(n), key.p, key.n) == 0)
                return n;
        }
        if (++at == t->cap)
            at = 0;
    }
    return NULL;
}

/* The slot of the key; or where it would go, with *there false. */
static uint32_t
locate(const struct table *t, uint64_t hash, struct slice key, bool *there)
{
    uint32_t at = home(hash, t->cap), first_gone = UINT32_MAX;
    uint64_t slot;

    for (*there = false;; at = at + 1 == t->cap ? 0 : at + 1) {
        slot = atomic_load_explicit(&t->slots[at], memory_order_relaxed);
        if (slot == 0)
            return first_gone != UINT32_MAX ? first_gone : at;
        if (slot == SLOT_GONE) {
            if (first_gone == UINT32_MAX)
                first_gone = at;
        } else if (slot >> TAG_SHIFT == (hash & 0xffff) &&
            slice_eq(node_key(slot_node(slot)), key)) {
            *there = true;
            return at;
        }
    }
}

static void
table_left(struct rcu_node *r)
{
    free(CONTAINER(r, struct table, rcu));
}

static int
rebuild(struct store *s, struct shard *sh, uint32_t cap)
{
    struct table *old = sh->table, *t = table_new(cap);

    if (t == NULL)
        return -1;
    for (uint32_t i = 0; i < old->cap; i++) {
        uint64_t slot = atomic_load_explicit(&old->slots[i], memory_order_relaxed);
        struct node *n = slot_node(slot);
        uint32_t at;

        if (n == NULL)
            continue;
        for (at = home(key_hash(node_key(n)), cap); t->slots[at] != 0;)
            at = at + 1 == cap ? 0 : at + 1;
        atomic_store_explicit(&t->slots[at], slot, memory_order_relaxed);
    }
    t->used = t->live = old->live;
    if (t->ghosts == old->ghosts)
        memcpy(t->ghost, old->ghost, t->ghosts * GHOST_WAYS * sizeof *t->ghost);
    store_charge(s, table_charge(t) - table_charge(old));
    rcu_store(&sh->table, t);
    sh->generation++;
    rcu_after(&old->rcu, table_left);
    return 0;
}

static uint32_t
cap_for(uint32_t live)
{
    return live + live / 2 + live / 8 < CAP_MIN ? CAP_MIN : live + live / 2 + live / 8;
}

/* A table that cannot grow goes on to be filled, up to its last free slot but one: a probe ends at
 * a free slot. */
int
table_reserve(struct store *s, struct shard *sh)
{
    struct table *t = sh->table;

    if (t->used + 1 <= t->cap - t->cap / 5)
        return 0;
    if (rebuild(s, sh, cap_for(t->live + 1)) == 0)
        return 0;
    return t->used + 2 <= t->cap ? 0 : -1;
}

void
table_put(struct shard *sh, uint64_t hash, struct node *newest)
{
    struct table *t = sh->table;
    bool there;
    uint32_t at = locate(t, hash, node_key(newest), &there);

    if (!there) {
        t->live++;
        t->used += t->slots[at] == 0;
    }
    atomic_store_explicit(&t->slots[at], slot_of(hash, newest), memory_order_release);
}

void
table_remove(struct store *s, struct shard *sh, uint64_t hash, struct slice key)
{
    struct table *t = sh->table;
    bool there;
    uint32_t at = locate(t, hash, key, &there), next = at + 1 == t->cap ? 0 : at + 1;

    assert(there);
    t->live--;
    atomic_store_explicit(&t->slots[at], SLOT_GONE, memory_order_relaxed);
    if (t->slots[next] == 0)
        while (t->slots[at] == SLOT_GONE) {
            atomic_store_explicit(&t->slots[at], 0, memory_order_relaxed);
            t->used--;
            at = at == 0 ? t->cap - 1 : at - 1;
        }
    if (t->cap > CAP_MIN && t->live < t->cap / 8)
        (void)rebuild(s, sh, cap_for(t->live));     /* memory out: the large one will do */
}
