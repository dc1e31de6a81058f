/*
 * What the store's own files share: the node behind an object, shards, tags, purge state.
 *
 * Locks, outer first: shard -> purge -> tags. Each is held for a bounded piece of work; at most one
 * shard is locked at a time, and a purge never holds `purge` or `tags` while it takes a shard.
 */
#ifndef WEIR_STORE_INSIDE_H
#define WEIR_STORE_INSIDE_H

#include <pthread.h>

#include "store/store.h"

/* ---- nodes ---------------------------------------------------------------------------------- */

enum node_place { NODE_OUT, NODE_SMALL, NODE_MAIN };

/* What the index holds: an object, or a mark (o.body == NULL) that its key was not storable lately,
 * until o.meta.response_ms; store_refuse says what of the answer a mark has in its other places.
 * One allocation; in the tail: tags, key, vary, variant, head, of a part its place. */
struct node {
    struct object o;
    union {                             /* the queue's links are dead once it is out of the index */
        struct { struct node *prev, *next; } queue;
        struct rcu_node rcu;
    };
    struct node     *older;             /* the next variant under this key; newest first */
    _Atomic uint64_t checked;           /* the purge sequence at which it was last compared */
    uint32_t         charge;            /* in units of CHARGE_UNIT bytes, its body included */
    uint32_t         key_n, variant_n;
    uint16_t         vary_n, ntags;
    _Atomic uint8_t  freq;              /* 0..3: S3-FIFO's */
    _Atomic uint8_t  soft, dead;        /* what purges made of it; never taken back */
    uint8_t          place;             /* enum node_place; under the shard's lock */
    char             tail[];
};

#define CHARGE_UNIT 16

enum node_soft { NODE_SOFT = 1, NODE_DOUBT };   /* ... never served before it was validated */
/* In a read section, or under the shard's lock. Nothing takes a doubt back. */
static inline void
node_soften(struct node *n, enum node_soft to)
{
    if (atomic_load_explicit(&n->soft, memory_order_relaxed) < to)
        atomic_store_explicit(&n->soft, to, memory_order_relaxed);
}

struct tag;
struct node *node_new(const struct store_parts *p, struct tag **tags, size_t ntags,
    struct body *body);
void node_free(struct node *n);     /* one that was never published, or that nobody sees any more */
/* Out of the index: drops its reference after readers. */
void node_retire(struct node *n, struct body *kept);
int64_t nodes_waiting(void);            /* bytes out of the index that wait for readers to leave */
int64_t nodes_held(void);           /* bytes out of the index that somebody has a reference to */

static inline struct tag **
node_tags(const struct node *n)         /* aligned: they stand at sizeof(struct node) */
{
    return (struct tag **)(void *)((char *)(uintptr_t)n + sizeof(struct node));
}
static inline const char *
node_key_at(const struct node *n)
{
    return n->ntags == 0 ? n->tail : (const char *)(node_tags(n) + n->ntags);
}
static inline struct slice
node_key(const struct node *n)
{
    return (struct slice){ node_key_at(n), n->key_n };
}
static inline struct slice
node_vary(const struct node *n)
{
    return (struct slice){ node_key_at(n) + n->key_n, n->vary_n };
}
static inline struct slice
node_variant(const struct node *n)
{
    return (struct slice){ node_key_at(n) + n->key_n + n->vary_n, n->variant_n };
}
static inline struct slice
node_url(const struct node *n)          /* the key without the recipe's parts: a URL has no NUL */
{
    return (struct slice){ node_key_at(n), strnlen(node_key_at(n), n->key_n) };
}
static inline bool
node_is_mark(const struct node *n)
{
    return n->o.body == NULL;
}
static inline size_t
node_charge(const struct node *n)
{
    return (size_t)n->charge * CHARGE_UNIT;
}

/* What a request asks for under one Vary; zero-initialise, good within a read section and until the
 * thread's next choice. */
struct store_choice { struct slice vary, variant; };
/* Is the node, which has a Vary, the request's variant? Computes the variant once for each distinct
 * Vary in turn. */
bool choice_matches(const struct node *n, const struct http_head *req, struct store_choice *c);
/* Is it, though another, what the request prefers to all others by its language? */
bool choice_prefers(const struct node *n, const struct http_head *req, struct store_choice *c);

size_t body_charge(const struct body *b);
size_t forms_charge(const struct forms *f, bool bodies);     /* NULL: 0 */
uint32_t charge_units(size_t bytes);
struct body *body_keep(struct body *b);

/* ---- the index: one table a shard ----------------------------------------------------------- */

/* Open addressing, linear probing. A slot holds the pointer to the newest node of a key with 16
 * bits of its hash above bit 47, where user addresses of x86-64 and arm64 are zero; 0 is free,
 * SLOT_GONE was used. */
struct table {
    struct rcu_node   rcu;
    uint32_t          cap, used, live;  /* used: live and gone */
    uint32_t          ghosts;           /* sets of GHOST_WAYS */
    uint32_t         *ghost;            /* in this allocation, behind the slots */
    _Atomic uint64_t  slots[];
};
#define SLOT_GONE  1u
#define GHOST_WAYS 4

struct shard {
    _Alignas(64) struct table *table;   /* rcu_load */
    pthread_mutex_t lock;               /* guards all below, and every change of the table */
    uint32_t     generation;            /* moves when the table is replaced */
    struct node *head[3], *tail[3];     /* queues by enum node_place: newest at the head */
    size_t       bytes[3];
};

struct store;
int  table_init(struct store *s, struct shard *sh);
void table_fini(struct store *s, struct shard *sh);
struct node *table_find(const struct table *t, uint64_t hash, struct slice key);
/* Under the lock. Makes room for one more key; -1: memory out and none left. */
int  table_reserve(struct store *s, struct shard *sh);
/* A new key, or a new newest. */
void table_put(struct shard *sh, uint64_t hash, struct node *newest);
void table_remove(struct store *s, struct shard *sh, uint64_t hash, struct slice key);
static inline struct node *
slot_node(uint64_t slot)
{
    return slot <= SLOT_GONE ? NULL : (struct node *)(uintptr_t)(slot & 0xffffffffffffu);
}

/* ---- eviction ------------------------------------------------------------------------------- */

void queue_push(struct shard *sh, struct node *n, enum node_place to);
void queue_remove(struct shard *sh, struct node *n);
/* Where a new node goes: main if its ghost is there. */
enum node_place queue_entry(struct shard *sh, uint64_t hash);
struct node *queue_victim(struct shard *sh);
void queue_ghost(struct shard *sh, uint64_t hash);

/* ---- purge state ---------------------------------------------------------------------------- */

enum tag_kind {
    TAG_NAMED,
    TAG_URL,                            /* implicit, of keys that have parts behind the URL */
    TAG_SEARCH,                         /* path, NUL, rule: of what is stored by No-Vary-Search */
    TAG_GROUP,                          /* origin, NUL, group; and NUL, group */
};
#define NODE_TAGS_MAX (256 + 2 * STORE_GROUPS_MAX + 2)

struct tag {
    union {
        struct tag     *next;           /* in its bucket */
        struct rcu_node rcu;            /* once it is out */
    };
    _Atomic uint64_t hard, soft;        /* the sequences of its last purges */
    uint64_t         hash;
    uint32_t         refs;              /* nodes that carry it */
    uint32_t         live;              /* ... and that no hard purge of it has killed */
    uint32_t         text_n;
    char             text[];            /* its first byte is the kind */
};

struct tags {
    pthread_mutex_t lock;
    struct tag    **buckets;
    size_t          cap, n;
    _Atomic size_t  searches;           /* of TAG_SEARCH; changes under the lock */
};

struct route_mark {                     /* a route that was purged once; stays */
    struct route_mark *next;
    uint64_t           id;
    _Atomic uint64_t   hard, soft;
};

struct rule {                           /* newest first; rcu_load */
    struct rule          *next;
    struct rcu_node       rcu;
    uint64_t              seq;
    int64_t               made_us;
    enum store_purge_kind kind;
    bool                  soft;
    uint32_t              text_n;
    char                  text[];
};

struct position {                       /* see position.c */
    struct store_position place;
    uint64_t              first, last;
};
#define POSITIONS   8192
struct positions {
    pthread_mutex_t       lock;
    bool                  known;        /* has begun */
    struct store_position base;
    uint64_t              since;        /* the sequence when it began */
    uint64_t              waiting;
    struct position      *at;           /* POSITIONS, owned; NULL until it has begun */
    size_t                n;
};

#define CELLS       32768               /* 256 KiB; a purge refuses one in-flight fetch in 32768
                                           for nothing */
#define ROUTE_HEADS 256
#define RULES_MAX   4096                /* unswept; beyond, everything is purged instead */

struct store {
    uint32_t         magic;
#define STORE_MAGIC 0x5704e000u
    unsigned         nshards;           /* a power of two */
    int64_t          limit;
    atomic_uint      variants;
    atomic_uint      cursor;            /* whose turn it is to evict */
    struct shard    *shards;
    _Atomic int64_t  used;              /* bytes: nodes in the index, tables, tags, holds */
    _Atomic int64_t  holds;             /* bytes: of bodies under way */
    _Atomic int64_t  objects;

    _Atomic uint64_t seq;
    _Atomic uint64_t all_hard, all_soft, all_doubt;
    _Atomic int64_t  trust_until_ms;    /* wall clock; see store_doubts */
    _Atomic uint64_t tag_last;          /* the last purge of any tag */
    _Atomic uint64_t rules_newest;
    _Atomic uint64_t floor;             /* older stamps are not put: rules were forgotten */
    _Atomic uint64_t *cells;            /* by hash of URL or tag: the last purge, for fetches */
    struct route_mark *routes[ROUTE_HEADS];     /* rcu_load */
    pthread_mutex_t  purge_lock;        /* a purge gets its number; guards rules and routes */
    struct rule     *rules;             /* rcu_load */
    unsigned         nrules;
    struct tags      tags;
    struct positions positions;

    pthread_t        sweeper;
    pthread_mutex_t  sweep_lock;
    pthread_cond_t   sweep_cond;
    uint64_t         sweep_asked, sweep_done;   /* under sweep_lock: done is the value of asked that
                                                   the last complete pass began with */
    bool             sweep_stop;                /* under sweep_lock */
    uint64_t         swept;             /* the sweeper's: all nodes were compared up to it */

    struct { store_told_purge *told; void *arg; } on_purge[STORE_LISTENERS_MAX];
    struct { store_told_drop *told; void *arg; } on_drop[STORE_LISTENERS_MAX];
    size_t           npurge, ndrop;     /* do not change once there are threads */
};

static inline struct shard *
store_shard(const struct store *s, uint64_t hash)
{
    return &s->shards[(hash >> 16) & (s->nshards - 1)];
}
void store_charge(struct store *s, int64_t bytes);
/* Reserves `bytes` (fewer than none: gives back), evicting as much as it takes. False when there is
 * no room: nothing is reserved. */
bool store_room(struct store *s, int64_t bytes);
void store_holds_change(struct store *s, uint64_t *mine, uint64_t bytes);    /* *mine is now that */
typedef void store_visit(struct store *s, struct shard *sh, struct node *n, void *arg);
/* Every node that is there from begin to end, under its shard's lock, a few at a time. The visitor
 * may take the node out. */
void store_visit_all(struct store *s, store_visit *visit, void *arg);
/* Takes out what is stored under a key and was answered before that moment. */
void store_supersede(struct store *s, const struct key *k, int64_t response_ms);
/* Under the lock of its shard: out of index and queue. `kept`: the body lives on in another
 * node. */
void store_unlink(struct store *s, struct shard *sh, uint64_t hash, struct node *n,
    struct body *kept);

int  tags_init(struct store *s);
void tags_fini(struct store *s);
/* Interns the tags and groups of a put, and the URL where the key has parts; out has room for
 * NODE_TAGS_MAX.
 * Counts one more node on each. *n of them; -1: memory out. */
int  tags_take(struct store *s, const struct store_parts *p, struct tag **out, size_t *n);
/* Those of `was` for the node that follows it; with p->regroup, p's groups instead of its own. As
 * above. */
int  tags_again(struct store *s, const struct node *was, const struct store_parts *p,
    struct tag **out, size_t *n);
/* The kind of tags that this kind of purge is about. */
enum tag_kind tag_kind_of(enum store_purge_kind kind);
void tags_give(struct store *s, struct tag **tags, size_t n, uint64_t stamp);
uint64_t tag_hash(enum tag_kind kind, struct slice text); /* of a URL: key_hash, as key.url_hash; of
                                                             a search: of its path alone */
/* Marks the tag, if it is there, as purged by seq; how many live nodes that hits. */
uint64_t tags_purge(struct store *s, enum tag_kind kind, struct slice text, uint64_t seq,
    bool soft);
/* Appends the rules stored for a path, each behind its length in two bytes. How many. */
size_t tags_searches(struct store *s, struct slice path, struct buf *rules);
/* The next of them, and *rest moves on. */
struct slice tags_search_next(struct slice *rest);
uint64_t tags_count(struct store *s, enum tag_kind kind, struct slice text);
/* under its shard's lock */
bool tags_carry(const struct node *n, enum tag_kind kind, struct slice text);

/* lower.c. Under purge_lock, before seq is published; under the shard's lock. */
void lower_tell_purge(struct store *s, const struct store_purge *p, uint64_t seq);
void lower_tell_drop(struct store *s, const struct node *n);

/* The rule by which it is stored; empty: none. In the index: under its shard's lock, or in a read
 * section. */
struct slice node_search_rule(const struct node *n);
struct slice url_path(struct slice url);        /* from its path on: "http://h/a?b" -> "/a?b" */
/* search.c: the other URLs of a purge by URL, by the rules that are stored for its path. -1: memory
 * is out. */
int  search_purge(struct store *s, struct slice url, uint64_t seq, bool soft, uint64_t *tagged);
uint64_t search_count(struct store *s, struct slice url);
uint64_t search_cell(struct slice url);             /* of its path, as tag_hash of a TAG_SEARCH */
/* Brings the node's soft and dead up to the purge sequence now: in a read section, or under the
 * shard's lock. */
void purge_judge(struct store *s, struct node *n);
void purge_judge_locked(struct store *s, struct node *n);
/* Under the shard's lock: must this put be refused? Sets n->checked. */
bool purge_refuses(struct store *s, struct node *n);
bool purge_matches(const struct store_purge *p, const struct node *n);
/* Gives the purge its number and puts it in force for everything but exact keys. */
int  purge_publish(struct store *s, const struct store_purge *p, uint64_t *seq, uint64_t *tagged);
/* Retires rules that every node has been compared with. */
void purge_forget(struct store *s, uint64_t swept);
void purge_fini(struct store *s);

int  sweep_start(struct store *s, struct err *e);
void sweep_stop(struct store *s);
void sweep_wait(struct store *s);       /* until a pass that begins now is complete; for tests */

/* Points between steps where a unit test runs another thread's steps; empty otherwise. */
#ifdef STORE_STEPS
extern void (*store_step)(const char *where);
#define STEP(where) do { if (store_step != NULL) store_step(where); } while (0)
#else
#define STEP(where) (void)0
#endif

#endif
