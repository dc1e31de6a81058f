/*
 * store -- stored responses: bodies, objects, the index, purge state, the memory tier.
 *
 * Model    A key leads to an entry, an entry to its variants (objects). What is published does not
 *          change, but for relaxed atomics (visited, checked, soft). Lookups run inside
 *          rcu_begin/rcu_end without a lock; writers lock one shard. Eviction is S3-FIFO (Yang et
 *          al., SOSP 2023) by bytes. A body has a reference count of its own, so that a 304 makes a
 *          new object with a new head around the old body.
 * Purge    one counter, the purge sequence, orders all purges. Who fetches takes store_stamp before
 *          the request is sent; the object keeps it. An object whose stamp is older than a purge
 *          that matches it is invalid wherever it is met. An object whose `checked` equals the
 *          counter compares nothing.
 * Threads  store_get: in a read section. All else: any thread.
 */
#ifndef WEIR_STORE_H
#define WEIR_STORE_H

#include <sys/uio.h>

#include "base/base.h"
#include "http/http.h"
#include "key/key.h"
#include "semantics/semantics.h"

/* ---- bodies: append-only segments, one writer, many readers ---------------------------------- */

struct segment {
    struct segment *next;           /* published with release */
    char           *p;          /* owned; no header in front: a body of known size wastes nothing */
    uint32_t        cap;
    uint32_t        used;           /* writer only */
};

struct body {
    uint32_t         magic;
#define BODY_MAGIC 0xb0d1e500u
    atomic_int       refs;
    _Atomic uint64_t size;          /* bytes that readers may read */
    uint64_t         trimmed;       /* bytes freed at the front (writer) */
    struct segment  *first, *last;  /* last: writer only */
    struct segment   embedded;
};

/* expect: the size when it is known (one exact segment up to 1 MiB), else 0. NULL: memory out. */
struct body *body_new(uint64_t expect);
struct body *body_ref(struct body *b);
void body_unref(struct body **bp);
/* The writer; -1: memory out, nothing appended. */
int  body_append(struct body *b, struct slice data);
/* The writer, when complete. Gives back unused room when the caller's is the only reference;
 * otherwise readers may be in those bytes, and store_put keeps an exact copy instead. */
void body_seal(struct body *b);
uint64_t body_held(const struct body *b);               /* the writer: bytes of segments held */
/* The writer, when no reader needs bytes before `upto` any more: frees whole segments. */
void body_trim(struct body *b, uint64_t upto);
static inline uint64_t
body_size(const struct body *b)
{
    return atomic_load_explicit(&b->size, memory_order_acquire);
}
/* Where a reader is; zero-initialise. */
struct body_cursor { struct segment *segment; uint64_t at, segment_at; };
/* Up to max pieces from the cursor to `end` (<= body_size); the number. Does not move the
 * cursor. */
size_t body_pieces(const struct body *b, struct body_cursor *c, uint64_t end, struct iovec *iov,
    size_t max);
void body_skip(const struct body *b, struct body_cursor *c, uint64_t n);

/* The whole body as one run in the pool; .p is NULL when it is longer than max, trimmed, or memory
 * is out. */
struct slice body_text(const struct body *b, struct pool *p, uint64_t max);

/* ---- objects -------------------------------------------------------------------------------- */

struct stored_head {    /* "HTTP/1.1 200 OK\r\n", fields, "Content-Length: n\r\n"; no empty line.
                           Of a part: that of a 200, without Content-Length and Content-Range */
    /* lives as long as its object, in the same allocation */
    uint32_t   n;
    uint32_t   etag_at;             /* 0: none */
    uint16_t   etag_n;
    uint16_t   status_n;            /* bytes of the status line with its CRLF */
    char       bytes[];
};

/* A coded form of an object's content, whole. */
struct form {
    enum sem_coding     coding;
    struct stored_head *head;           /* owned */
    struct body        *body;           /* owned reference */
};
struct forms {
    size_t      n;
    struct form at[SEM_CODINGS];
};

/* The public face of an object, read only. The store's own part follows it in memory. */
struct object {
    uint32_t            magic;
#define OBJECT_MAGIC 0x0b1ec7a1u
    atomic_int          refs;
    struct stored_head *head;
    struct body        *body;       /* complete */
    struct forms       *forms;          /* rcu_load: NULL until there are any, then for good */
    struct sem_meta     meta;
    uint64_t            stamp;      /* purge sequence before its request was sent */
    uint64_t            route_id;
};

/* Where the body stands in its representation. META_PARTIAL: body_size bytes from `from` on. */
struct object_part {
    uint64_t from, size;            /* size: of the representation, or HTTP_SIZE_UNKNOWN */
    bool     ends;                  /* the body reaches its end */
};
struct object_part object_part(const struct object *o);

struct forms *forms_new(void);                  /* none in it; NULL: memory out */
/* Head (copied) and body (a reference is taken, or an exact copy made) of one more. -1: memory
 * out. */
struct store_parts;
int  forms_add(struct forms *f, enum sem_coding c, const struct store_parts *p);
void forms_free(struct forms **fp);                 /* NULL is fine */

/* One that is in no index: for an answer alone. p: key, head and its marks, body (a reference is
 * taken) and meta. NULL: memory is out. */
struct object *object_apart(const struct store_parts *p);
struct object *object_ref(struct object *o);    /* in a read section, or with a reference at hand */
void object_unref(struct object **op);

/* ---- lookups -------------------------------------------------------------------------------- */

struct store;
struct store *store_new(int64_t memory_bytes, unsigned variants, struct err *e);
void store_free(struct store **sp);                 /* when nobody uses it any more */
void store_variants_max(struct store *s, unsigned n);
/* Evicts n objects: nobody will ask for what is there any more. Tiers below keep what they have.
 * True when none is left. Any thread. */
bool store_clear(struct store *s, unsigned n);

enum store_answer {
    STORE_MISS,                     /* nothing under this key (Cache-Status: uri-miss) */
    STORE_VARY_MISS,                /* variants, but none for this request */
    STORE_HIT,                      /* *obj, valid to rcu_end; *soft: softly purged, or in doubt */
    STORE_PASS,                     /* marked: was not storable lately (hit-for-miss) */
};
/* req chooses the variant. Marks visited, checks purges. No lock, no allocation for an entry
 * without Vary (scratch of the thread otherwise). now_ms: monotonic milliseconds are not needed;
 * wall time, for marks. */
enum store_answer store_get(struct store *s, const struct key *k, const struct http_head *req,
    int64_t now_ms, struct object **obj, bool *soft);
/* The most recent of what is stored under other URLs of the path and says by No-Vary-Search that it
 * answers k's too: STORE_HIT as above, with *found its key, in b; else STORE_MISS. For keys that
 * store_get did not find. Costs a load where nothing is stored with such a rule, else a lock. */
enum store_answer store_search(struct store *s, const struct key *k, const struct http_head *req,
    int64_t now_ms, struct buf *b, struct key *found, struct object **obj, bool *soft);
/* The key of all URLs of k's path that are presumed equal to k's, by one of the rules that are
 * stored for the path, in b. false: there are none, or memory is out. */
bool store_search_presume(struct store *s, const struct key *k, struct buf *b,
    struct key *presumed);
/* Appends the rule by which it is stored, if by any. false: the index does not have it any more, or
 * memory is out. */
bool store_search_rule(struct store *s, const struct object *o, struct buf *b);
/* Each variant of a key, for explanations; takes no part in eviction. */
void store_each(struct store *s, const struct key *k,
    void (*each)(void *arg, const struct object *o, struct slice vary, bool soft), void *arg);

/* Of an object in store_each's callback: the values that select it (sem_variant); bytes that it
 * counts with; its tags, a group as store_parts.groups has it. */
struct slice store_variant(const struct object *o);
uint64_t store_counts(const struct object *o);
void store_tags(const struct object *o, void (*each)(void *arg, bool group, struct slice text),
    void *arg);

/* ---- storing -------------------------------------------------------------------------------- */

/* Bytes of bodies under way that may be stored are counted before they are: makes *held, which
 * begins as 0, that many, evicting what it takes. false: eviction made no room, or all that is
 * under way would be more than half of the limit; nothing changes. Fewer bytes always go. */
bool store_hold(struct store *s, uint64_t *held, uint64_t bytes);

#define STORE_GROUPS_MAX 128            /* RFC 9875 2 asks for 32 */

struct store_parts {
    const struct key *key;
    struct slice vary, variant;     /* sem_vary, sem_variant; empty when there is no Vary */
    struct slice head;              /* as stored_head.bytes; copied */
    uint32_t status_n, etag_at, etag_n;
    struct body *body;              /* sealed; a reference is taken, or an exact copy made where it
                                       wastes room */
    uint64_t *held;                 /* for it, by store_hold; taken over, to 0, with a reference of
                                       what is STORED; may be NULL */
    struct sem_meta meta;
    const struct object_part *part; /* with META_PARTIAL; store_freshen keeps that of `was` */
    int64_t request_ms;             /* when its request was sent; 0: nothing is newer */
    uint64_t stamp, route_id;
    const struct slice *tags; size_t ntags; /* at most 256, more are refused; copied (interned) */
    const struct slice *groups; size_t ngroups; /* each: origin, NUL, group (RFC 9875 2.1); at most
                                                   STORE_GROUPS_MAX, more are refused; copied */
    struct slice search;            /* No-Vary-Search; with the next by store_by_search only */
    const struct key *own;          /* ... its own URL's key: what is stored there goes */
    struct forms **forms;           /* store_freshen: of its content; taken over, to NULL, with what
                                       is STORED; may be NULL */
    bool regroup;                   /* store_freshen: these groups, instead of those that it had */
    bool soft, doubt;               /* store_put: stale from the first, by such a purge before
                                       `stamp` */
};
/* With a rule as http_search_rule has it p is to be stored for all URLs that the rule calls equal:
 * makes p->key the key of these, in b, and notes the rest in p. false: it stays stored for its own
 * alone (no memory, or STORE_SEARCHES_MAX other rules are stored for the path). rule, p->key and b
 * are to live until store_put. */
#define STORE_SEARCHES_MAX 8
bool store_by_search(struct store *s, struct store_parts *p, struct slice rule, struct buf *b,
    struct key *made);
enum store_result { STORE_STORED, STORE_PURGED, STORE_OLDER, STORE_TOO_LARGE, STORE_NO_MEMORY };
/* Publishes, in place of the variant that answers the same requests. PURGED: a purge after `stamp`
 * matches, nothing stored. OLDER: while this was fetched a newer response was stored that answers
 * the same requests (RFC 9111 4: the most recent is used), nothing stored. *out (may be NULL): a
 * reference for the caller. */
enum store_result store_put(struct store *s, const struct store_parts *p, struct object **out);
/* Publishes `was` anew with p's head, meta, request_ms and stamp, and the same body, if `was` is
 * still what the index has (PURGED otherwise, nothing stored; OLDER as above). *out as above. */
enum store_result store_freshen(struct store *s, struct object *was, const struct store_parts *p,
    struct object **out);
/* Hangs coded forms on an object that has none, if it is still what the index has (PURGED
 * otherwise), and there is room. Taken over when STORED, to NULL; so is *held, to 0. */
enum store_result store_add_forms(struct store *s, struct object *o, struct forms **forms,
    uint64_t *held);
/* Is it still in the index, without forms? */
bool store_wants_forms(struct store *s, const struct object *o);
/* As a soft purge of this one object: stale from now on. */
void store_soften(struct store *s, struct object *o);
/* Takes this one object out of the index, if it is still there (a 404 to a validation, say). */
void store_drop(struct store *s, struct object *o);
/* Until `until_ms` (wall) store_get answers STORE_PASS for this key where it has no object.
 * Accounted and evicted like objects; a store_put under the key ends it. */
void store_pass(struct store *s, const struct key *k, int64_t until_ms);
/* The same, remembering for explanations which answer was not stored and why; copied. */
struct store_refusal {
    struct slice why;               /* the word */
    struct slice head;              /* lines of those of its fields that were weighed */
    unsigned status;
    int64_t at_ms, until_ms;        /* when it came; wall */
};
void store_refuse(struct store *s, const struct key *k, const struct store_refusal *r);
/* What a mark under this key remembers; false: there is none. r is good until each returns. */
bool store_refused(struct store *s, const struct key *k,
    void (*each)(void *arg, const struct store_refusal *r), void *arg);

/* ---- purging -------------------------------------------------------------------------------- */

enum store_purge_kind {
    STORE_PURGE_URL,        /* text: the URL part of a key, as key_of_url makes it. All variants,
                               whatever parts the recipe adds */
    STORE_PURGE_PREFIX,     /* text: the beginning of the URL part, "http://host/api/" */
    STORE_PURGE_PATTERN,    /* text: glob over path and query, any host */
    STORE_PURGE_TAG,        /* text: the tag */
    STORE_PURGE_GROUP,      /* text: as store_parts.groups; with an empty origin, of every one */
    STORE_PURGE_ROUTE,      /* id: route.id */
    STORE_PURGE_ALL,
    STORE_PURGE_PATH,       /* text: path and query, exactly, under any host */
    STORE_PURGE_PATH_PREFIX,/* text: the beginning of path and query, under any host */
};
struct store_purge {
    enum store_purge_kind kind;
    struct slice text;
    uint64_t id;
    bool soft;              /* stale from now on instead of gone */
    bool doubt;             /* soft, of ALL: see store_doubts */
    bool erase;             /* bytes are to go as well: no matter of the store's, told as it came */
};
struct store_purged {
    bool     exact;         /* false: done by generation, `objects` is 0 */
    uint64_t objects;       /* by tag: with those that another purge took, until the sweeper came */
};
/* In force for every lookup that starts after it returns. -1 only when memory is out (then
 * everything is purged instead, which is safe, and *r says exact = false). */
int  store_purge(struct store *s, const struct store_purge *p, struct store_purged *r);
/* Asks the sweeper for a pass; store_swept: is one over that began since? Then the index holds
 * nothing of what was purged before, and its bytes are free once no answer is sent from them. */
uint64_t store_sweep(struct store *s);
bool store_swept(struct store *s, uint64_t sweep);
/* How many objects would match; looks at all of them for prefix, pattern and route, and for tags
 * and keys with parts while the sweeper has work to do. */
uint64_t store_purge_count(struct store *s, const struct store_purge *p);

uint64_t store_stamp(const struct store *s);        /* the purge sequence now */
/* How many purges this thread has made, in any store: tells its own from others', where only its
 * own may have come between two stamps. */
uint64_t store_purges_made(void);
/* Could a purge since `stamp` match what a fetch under this key and route brings? Tags are not
 * known yet, so any purge of a tag since then counts. For joining flights. */
bool store_stamp_outdated(struct store *s, uint64_t stamp, const struct key *k, uint64_t route_id);

/* ---- purges of other instances -------------------------------------------------------------- */

/* Until then (wall clock) what is stored is as good as its freshness says; from then on all of it
 * is in doubt, since purges may have been missed. At first INT64_MAX. */
void store_trust(struct store *s, int64_t until_ms);
bool store_untrusted(const struct store *s, int64_t now_ms);
/* Of a hit with *soft: may it not be served before the origin was asked, whatever allows stale
 * responses? It is in doubt now, or was stored before a purge that says so. */
bool store_doubts(struct store *s, const struct object *o, int64_t now_ms);

/* Where a purge stands in the stream that the instances share: the id of a Redis stream's entry. */
struct store_position { uint64_t ms, n; };
static inline int
store_position_cmp(struct store_position a, struct store_position b)
{
    return a.ms != b.ms ? (a.ms > b.ms ? 1 : -1) : a.n != b.n ? (a.n > b.n ? 1 : -1) : 0;
}
/* All purges of the stream up to `at` are of no account to what is fetched from now on, and of
 * those behind it all will be added; what was before is not known. */
void store_position_begin(struct store *s, struct store_position at);
/* The purges here with the sequences `first` to `last`, or some of these, are the entry at `at`. In
 * the order of the stream; of one made here not before it is in the stream, of another's not after
 * it is in force. */
void store_position_add(struct store *s, uint64_t first, uint64_t last, struct store_position at);
/* Purges made here from this sequence on have no place yet; UINT64_MAX: all have. */
void store_position_wait(struct store *s, uint64_t first);
/* For a value that other instances may read: the last position such that what was fetched under
 * this stamp is younger than all purges up to it. false: not known; such a value is not shared. */
bool store_position(struct store *s, uint64_t stamp, struct store_position *at);
/* Have all purges made here up to the stamp a place? Until then the position is lower than it will
 * be, and a value with it is refused where those purges match it. */
bool store_position_settled(struct store *s, uint64_t stamp);
/* The stamp to put a value with that has this position. false: what was purged since is not known
 * here; such a value is not used. */
bool store_stamp_of(struct store *s, struct store_position at, uint64_t *stamp);

/* ---- for tiers below memory ----------------------------------------------------------------- */

/* Set before there are other threads, at most STORE_LISTENERS_MAX of each kind. They are called
 * under locks of the store: they only copy or queue, and call nothing of it but positions. */
#define STORE_LISTENERS_MAX 4
/* Every purge, in the order of seq (one more each time), before store_purge returns, and before
 * there is anything with a stamp of seq or more. One that failed for want of memory is told as
 * ALL, which it became. */
typedef void store_told_purge(void *arg, const struct store_purge *p, uint64_t seq);
void store_on_purge(struct store *s, store_told_purge *told, void *arg);
/* This response is not to be used any more (store_drop, store_soften, or one of its URL is stored
 * by No-Vary-Search): what a tier has under that key for that variant goes, if it is no newer than
 * this (meta.response_ms). The object may be out of the index. */
typedef void store_told_drop(void *arg, const struct object *o);
void store_on_drop(struct store *s, store_told_drop *told, void *arg);
/* Of any object, as long as it is held. */
struct store_identity { struct slice key, vary, variant; };
struct store_identity store_identity(const struct object *o);
/* Calls with(arg, p) under its shard's lock for what the index has and no purge nor drop has made
 * gone or stale: p is what store_put would take to store it, but held, request_ms and forms; all
 * of it is good until `with` returns, the body with a reference longer. `with` only copies or
 * queues: a purge or drop of this object is told after it. false: not called. */
bool store_parts_of(struct store *s, struct object *o,
    void (*with)(void *arg, const struct store_parts *p), void *arg);
/* Does a purge of a kind that looks at the URL alone match what is stored under this one? */
bool store_purge_matches(const struct store_purge *p, struct slice url);
/* Would a store_put of p be refused now, by a purge since p->stamp? Looks at key, stamp, route_id,
 * tags, groups and search alone; refuses a few for nothing, as store_put does. Who writes to a
 * lower tier asks before, and removes what a purge that is told later matches. */
bool store_may_keep(struct store *s, const struct store_parts *p);

/* bytes: with those held for what is under way. */
struct store_figures { uint64_t objects, bytes, limit, entries, tags, rules; };
void store_figures(struct store *s, struct store_figures *f);

#endif
