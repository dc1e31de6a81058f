/* Private to fill/: the flight itself. */
#ifndef WEIR_FILL_FLIGHT_H
#define WEIR_FILL_FLIGHT_H

#include <pthread.h>

#include "fill/fill.h"

#define SHARDS 64
#define WINDOW (64 * 1024)              /* bytes between the origin and the slowest reader */

struct flight;
struct compressor;
struct gunzip;

struct head_marks { uint32_t status_n, etag_at, etag_n; };      /* where things stand in a head */

struct fills {
    uint32_t      magic;
#define FILLS_MAGIC 0xf1115000u
    struct store *store;                /* borrowed */
    struct tiers *tiers;                /* borrowed; NULL: there are none */
    struct compressor *compressor;      /* owned */
    atomic_bool   stopping;             /* no flight goes on without a reader */
    struct shard {
        pthread_mutex_t mtx;
        struct flight  *flights;        /* all that may be joined, or have no reader */
    } shards[SHARDS];
};

struct fill {
    uint32_t        magic;
#define FILL_MAGIC 0xf1110000u
    struct flight  *flight;             /* a reference; NULL: superseded, look again */
    struct fill    *next;               /* in flight->readers, under its mtx */
    struct loop    *loop;
    struct loop_msg msg;
    atomic_bool     posted;
    bool            closed;             /* own loop */
    bool            starter;
    bool            let_go;             /* under mtx: it held others up, and sees a broken body */
    uint64_t        seen_at;            /* home loop: `at` when last looked */
    enum fill_state verdict;            /* AGAIN, _APART or _ALONE, under mtx; else WAITING */
    const struct http_head *request;    /* borrowed from the reader's owner until the head came; */
    const struct key *key;              /* ... likewise. NULL: the flight's */
    _Atomic uint64_t at;
    void          (*on_change)(void *arg);
    void           *arg;
};

enum flight_phase { FLIGHT_WAITING, FLIGHT_HEAD, FLIGHT_OBJECT, FLIGHT_FAULT };

struct flight {
    uint32_t      magic;
#define FLIGHT_MAGIC 0xf1197700u
    atomic_int    refs;                 /* exchange and message under way, table, each reader */

    /* set at the start */
    struct fills *fills;
    struct loop  *home;
    struct pool  *pool;                 /* home loop only after the start */
    struct route_table *table;          /* owned references */
    struct origin *origin;
    struct object *stale, *part;
    struct tier_ask *ask;               /* home loop: before it takes off; NULL: none, or no more */
    struct tier_lease *lease;           /* owned; home loop: until no more is to be stored */
    const struct route *route;
    struct route_match match;
    enum fill_mode mode;
    struct fill_span asked_in;
    enum fill_field (*sent)(const struct route *route, struct slice name);
    struct key    key;                  /* bytes in the pool */
    struct key    together;             /* likewise; where it stands in the table */
    struct slice  authorization;        /* .p NULL: none */
    struct slice  range, if_range;      /* of a range alone; */
    bool          part_only;            /* ... and no whole is stored */
    struct http_head *request;
    struct sem_request semantics;
    const struct sem_rules *rules;      /* the route's, or as a plugin changed them */
    struct plugin_texts tags;           /* of the want */
    struct exchange_request send;       /* slices lie in the pool; fields: conditions last */
    size_t        conditions_at;
    struct slice  content;              /* of the request, all of it; .p NULL: the starter sends
                                           it */
    struct slice  host, via;
    bool          https;
    uint64_t      stamp;
    int64_t       request_ms;

    /* under the shard's mtx */
    struct flight *next;
    bool          listed;
    bool          apart;                /* the presumption is over: only its own URL may join */
    struct slice  vary, variant;        /* presumed, then known; bytes in the pool */

    /* home loop only: also.c */
    unsigned      also;                 /* FILL_ALSO... of the want */
    bool          also_whole;           /* the body is all there */
    bool          also_over;            /* it was tried: */
    bool          also_stored;
    struct slice  also_head;            /* .p NULL: it is not to be */
    struct head_marks also_marks;
    struct sem_meta also_meta;
    struct key    also_key;             /* bytes .p NULL: not told yet */
    uint64_t      also_stamp;
    struct fill_gate also_gate;

    /* home loop only */
    struct fill_gate gate;              /* of what is stored under `key` */
    struct exchange *x;
    struct exchange_times times;        /* when it was over; */
    const char   *server;               /* ... of the origin's, NULL before */
    struct weir_request *plugins;       /* as the route's plugins see it; NULL: none does */
    bool          again;                /* asked whole, after a 304 or 206 of no use */
    bool          joins;                /* a 206 is being joined with `part` */
    struct http_content_range span;     /* of a 206 that is stored */
    bool          bounded;              /* ... and the body's end is told by length or chunks */
    uint64_t      held;                 /* of the store's room, for the body */
    struct gunzip *gunzip;              /* owned: what comes is decoded; NULL: it is not */
    struct timer  patience;             /* with readers that hold others up; */
    bool          watching;             /* ... set */
    struct loop_msg drain;
    struct buf    interim;              /* 1xx heads; only the starter, on this loop, reads them */

    /* under mtx */
    pthread_mutex_t mtx;
    enum flight_phase phase;
    struct fill  *readers;
    struct fill_view view;              /* what readers see, verdicts aside */
    struct slice  shared_head;          /* without what only the starter may see */
    struct slice  stored_head;          /* the same, but that a 206 is kept as a 200 */
    struct body  *body;                 /* owned */
    struct head_marks marks;            /* of stored_head */
    struct sem_meta meta;
    struct exchange_fault fault;
    struct object *object;              /* owned reference */

    /* any thread */
    atomic_bool   storing, paused, drain_posted;
};

/* flight.c */
struct shard *flight_shard(const struct flight *f);
void flight_take_off(struct flight *f);             /* home: sends the request */
void flight_landed(struct flight *f);               /* home: it is over; drops its reference */
void flight_stamp(struct flight *f);                /* home: what it asks for is from now on */
void flight_ask_again(struct flight *f);            /* home: once more, for the whole */
void flight_unref(struct flight **fp);
void flight_list(struct flight *f);                 /* under its shard's mtx: into the table */
void flight_unlist(struct flight *f);               /* home: nobody joins any more */
void flight_wake(struct flight *f);                 /* under f->mtx: its readers */
void flight_no_memory(struct flight *f);            /* home: counted, the exchange is given up */
void flight_drain(struct flight *f);                /* any thread: a reader moved on or left */
/* first.c: takes off, home, unless another instance has fetched it */
void flight_look_first(struct flight *f);
/* fill.c: asks the origin whether o still holds (RFC 9110 13.1, RFC 9111 4.3.1). */
void flight_conditions(const struct object *o, struct buf *b);
/* response.c: home */
void response_head(struct flight *f, const struct http_head *h);
void response_rest(struct flight *f, const struct http_head *h);    /* ... of f->part */
/* The parsed head, in the pool; NULL: memory out. */
const struct http_head *response_kept(struct flight *f, const struct http_head *h);
/* Under f->mtx: the readers that wait, but for the starter, get this verdict. */
void response_release(struct flight *f, enum fill_state verdict);
void response_unstorable(struct flight *f, const struct http_head *h, const char *why);
void response_no_room(struct flight *f, const char **why);
/* What the response varies by; false: by what tells nothing of a later request. */
bool flight_may_vary(struct flight *f, const struct http_head *h);
/* fresh.c: home */
void fresh_304(struct flight *f, const struct http_head *h);
/* publish.c: home */
struct groups {
    struct pool *pool;
    struct slice origin;                /* of the URL that they are stored under */
    struct slice at[STORE_GROUPS_MAX]; size_t n;
    bool lost;
};
bool publish_needs_body(const struct route *r);     /* do its tags? */
bool publish_has_tags(const struct flight *f, const struct http_head *h);   /* can they be made? */
const char *publish_untagged(const struct flight *f);       /* they cannot: counted; why */
int  publish_groups(const struct http_head *h, struct groups *g);   /* -1: memory out */
/* The length of a stored body; never with 204 (RFC 9110 8.6). */
void publish_length(struct buf *b, unsigned status, const struct body *body);
void publish_seal(struct flight *f);
void publish_fetched(struct flight *f);             /* the body is whole: under the flight's key */
/* Puts p's body, which is whole, under p's key, with p's meta, stamp, room and marks of `head`,
 * which was made of h. What store_put says, or -1: its tags cannot be made; or -2: the gate is
 * shut. */
int  flight_publish(struct flight *f, struct store_parts *p, const struct http_head *h,
    struct slice head, const struct fill_gate *gate, struct object **o);
/* also.c, home */
void also_shut(struct flight *f);       /* the starter closed: its gates are no more */
bool also_judge(struct flight *f, const struct http_head *h, bool stored);
void also_ended(struct flight *f);
/* hooks.c: what the route's plugins say. Home. */
bool flight_hooks(struct flight *f, const struct plugin_text *tags);     /* false: memory out */
/* The head, as they leave it; NULL: one of them failed. */
const struct http_head *flight_hooks_response(struct flight *f, const struct http_head *h);
/* p is about to be stored, with a head h. false: not by their word. */
bool flight_hooks_store(struct flight *f, const struct store_parts *p, const struct http_head *h);
/* pace.c */
void flight_pace(struct flight *f);     /* home: frees what all have, holds the origin back */
/* head.c */
enum head_for { HEAD_STARTER, HEAD_OTHERS, HEAD_STORED };
int  head_build(const struct flight *f, const struct http_head *h, enum head_for who, struct buf *b,
    struct head_marks *m);
int  head_merge(const struct flight *f, const struct http_head *old, const struct http_head *r304,
    struct slice old_status, struct buf *b, struct head_marks *m);
/* Appends h, parsed of a head with this status line, as it is. */
void head_again(const struct http_head *h, struct slice status, struct buf *b,
    struct head_marks *m);
/* Marks the key as not storable until then, with why and what was weighed of the response. */
void head_remember(const struct flight *f, const struct http_head *h, const char *why,
    int64_t until_ms);
/* part.c: home */
/* The fields that ask for what `part` lacks; false: it is not worth it, or nothing tells what. */
bool part_ask(const struct object *o, int64_t max, struct buf *b);
/* a 206 with the rest of f->part? */
bool part_answers(struct flight *f, const struct http_head *h);
/* The head of the whole, as h completes it, in the pool; *m: its marks. `whole` is that head,
 * parsed; has room for its fields. .p NULL: memory out. */
struct slice part_head(struct flight *f, const struct http_head *h, struct http_head *whole,
    struct head_marks *m);
int  part_front(struct flight *f);    /* appends what stands before the new bytes; -1: memory out */
bool part_back(struct flight *f);      /* ... behind them, at the end. false: it is not the whole */
/* Can a response of h->length (when it is known) be a part at all? Fills f->span; false with
 * *why. */
bool part_storable(struct flight *f, const struct http_head *h, const char **why);
/* The body is whole: where does it stand? false: it is not stored. */
bool part_place(const struct flight *f, struct object_part *p);
/* Publishes it: combined with what is stored, or in its place. */
enum store_result part_publish(struct flight *f, struct store_parts *p, struct object **out);

#endif
