/* Private to request/. */
#ifndef WEIR_REQUEST_PRIV_H
#define WEIR_REQUEST_PRIV_H

#include "plugin/plugin.h"
#include "purge/purge.h"
#include "request/request.h"
#include "stats/stats.h"
#include "write/write.h"

#define BIT(n) (1u << (n))

/*    state    handler     may enter next (ABORT always) */
#define REQ_STATES(X)                                                                              \
    X(ROUTE,   do_route,   BIT(REQ_HOOKS) | BIT(REQ_BODY) | BIT(REQ_PENDING) | BIT(REQ_LOOKUP) |   \
                           BIT(REQ_FORWARD) | BIT(REQ_WRITE) | BIT(REQ_DELIVER))                   \
    X(HOOKS,   do_hooks,   BIT(REQ_BODY) | BIT(REQ_PENDING) | BIT(REQ_LOOKUP) | BIT(REQ_FORWARD) | \
                           BIT(REQ_WRITE) | BIT(REQ_DELIVER))                                      \
    X(BODY,    do_body,    BIT(REQ_LOOKUP) | BIT(REQ_FORWARD) | BIT(REQ_WRITE) | BIT(REQ_DELIVER)) \
    X(PENDING, do_pending, BIT(REQ_LOOKUP) | BIT(REQ_FORWARD) | BIT(REQ_DELIVER))                  \
    X(WRITE,   do_write,   BIT(REQ_FORWARD) | BIT(REQ_DELIVER))                                    \
    X(LOOKUP,  do_lookup,  BIT(REQ_TIER) | BIT(REQ_FETCH) | BIT(REQ_BLOCKS) | BIT(REQ_FORWARD) |   \
                           BIT(REQ_DELIVER))                                                       \
    X(TIER,    do_tier,    BIT(REQ_LOOKUP) | BIT(REQ_DELIVER))                                     \
    X(BLOCKS,  do_blocks,  BIT(REQ_LOOKUP) | BIT(REQ_DELIVER) | BIT(REQ_DONE))                     \
    X(FETCH,   do_fetch,   BIT(REQ_LOOKUP) | BIT(REQ_FORWARD) | BIT(REQ_DELIVER))                  \
    X(FORWARD, do_forward, BIT(REQ_WRITE) | BIT(REQ_PURGE) | BIT(REQ_DELIVER))                     \
    X(PURGE,   do_purge,   BIT(REQ_FILL) | BIT(REQ_DELIVER))                                       \
    X(FILL,    do_fill,    BIT(REQ_DELIVER))                                                       \
    X(DELIVER, do_deliver, BIT(REQ_BLOCKS) | BIT(REQ_DONE))                                        \
    X(ABORT,   do_abort,   BIT(REQ_DONE))                                                          \
    X(DONE,    do_done,    0)

enum req_state {
#define X(name, run, next) REQ_##name,
    REQ_STATES(X)
#undef X
    REQ_WAIT,                           /* not a state: the handler waits for something */
};

#define RANGES_MAX    16
#define PIECES_MAX    16
#define TRAIL_MAX     16

struct site {
    uint32_t            magic;
#define SITE_MAGIC 0x517e0000u
    atomic_int          refs;
    struct conf        *conf;           /* owned reference */
    struct route_table *table;          /* owned reference */
    struct origin     **origins;        /* of conf->origins, owned references */
    struct slice        via;            /* our name, as people see it */
    struct slice        hop;            /* as Via and CDN-Loop have it */
};

/* Why a request went forward (RFC 9211 2.2). */
enum fwd { FWD_NONE, FWD_BYPASS, FWD_METHOD, FWD_URI_MISS, FWD_VARY_MISS, FWD_REQUEST, FWD_STALE,
    FWD_PARTIAL };

/* A piece of an answer made from a stored body: text, then bytes of the body. */
struct part { struct slice text; uint64_t at, n; };

struct request {
    uint32_t           magic;
#define REQUEST_MAGIC 0x4e900e57u
    uint8_t            state;
    bool               running, again;  /* inside req_run; run once more */
    struct conn       *conn;            /* borrowed; NULL when the client is gone */
    struct loop_msg    msg;
    bool               posted;
    struct pool       *pool;            /* owned: the request itself lives there */
    struct site       *site;            /* owned reference */
    int64_t            started_us, since_us;
    struct stats_step  trail[TRAIL_MAX];        /* the states behind it, in their order */
    unsigned           ntrail;

    /* ROUTE */
    struct http_head  *head;
    struct slice       bytes;           /* that head's slices point in here */
    struct slice       host, path, query;       /* normalised */
    struct slice       route_host;      /* the host without its port */
    struct slice       target;          /* for the origin */
    struct slice       id;              /* X-Request-Id */
    struct slice       client;          /* its address */
    struct trace       trace;           /* .span 0: no traces are made */
    struct slice       line;            /* refused: the beginning of what was read of it */
    struct route_match match;
    struct key         key;
    struct key         found;           /* under which what was found is stored: key, or that of
                                           all URLs that No-Vary-Search calls equal; where nothing
                                           was, of those that are presumed so */
    struct sem_request rq;
    bool               https, unsafe;
    bool               bound;           /* counted by request_bound */

    /* HOOKS, DELIVER */
    struct weir_request *plugins;       /* in the pool: as the route's plugins see it; NULL: none
                                           has to do with it */
    const struct http_head *came;       /* the head before they changed it */
    bool               keyed;           /* its key was made with what they said; */
    bool               told;            /* ... and they know of its answer */

    /* BODY */
    struct buf         content;         /* of the request, or as much as was read of one too long */
    struct slice       trailer;         /* behind it */
    bool               too_long;        /* for the key, or for the journal */

    /* WRITE, PENDING */
    struct writing    *writing;         /* in the pool: what the journal has to do with it */
    bool               pending;         /* the answer says that writes to its target are pending */

    /* LOOKUP, FETCH, FORWARD */
    struct tier_ask   *ask;             /* owned: on its way, */
    bool               asked;           /* ... once; */
    const char        *promoted;        /* ... from where it brought something; */
    bool               tier_failed;     /* ... or Redis failed, and nothing was done about it */
    struct tier_lease *lease;           /* owned: it fetches for all instances */
    struct object     *stale;           /* owned reference: to be validated */
    struct object     *rest;            /* owned reference: a part, of which the rest is asked
                                           for */
    struct blocks     *blocks;          /* in the pool: the answer is made of them; */
    bool               no_blocks;       /* ... or they did not work */
    bool               ranged;          /* the client's range alone is asked for */
    bool               doubted;         /* what is stored is (store_doubts) */
    struct object     *object;          /* owned reference: to be delivered; */
    bool               unstored;        /* ... what a pending write leaves */
    const struct form *form;            /* of it, which is sent instead; NULL: it is */
    struct fill       *fill;            /* owned */
    struct slice       vary;            /* of other variants */
    unsigned           rounds;
    bool               alone, collapsed, revalidated;
    bool               apart;           /* joins no fetch for another URL: it was not equal */
    bool               waits;           /* for another's fetch alone: it wants a part of the
                                           whole */
    struct http_head  *get;             /* in the pool: what a HEAD that may fill the cache asks
                                           with */
    struct slice       own;             /* lines of a 304 for the client that caused it alone */
    const char        *why;             /* not stored because */
    enum fwd           fwd;
    unsigned           fwd_status;
    bool               body_ended;      /* of the request */
    bool               body_lost;       /* too long for placeholders, or coded */
    struct buf         body;            /* the first bytes of it, for placeholders */
    uint64_t           bytes_in;
    size_t             interim_sent;

    /* DELIVER */
    bool               head_sent, chunked, close, tunnel;
    uint64_t           tunnel_us;       /* how long it stood */
    unsigned           status;
    struct slice       answer;          /* head and first body bytes of an answer of our own */
    struct part       *parts;
    size_t             nparts, part;
    struct body_cursor cursor;
    uint64_t           bytes_out;
    enum stats_outcome outcome;
    bool               purged;

    /* FORWARD, PURGE, FILL: a write */
    struct race        race;
    uint64_t           stamp;           /* purge sequence before it was sent */
    struct body       *sent;            /* owned: its content, as far as it came, */
    uint64_t           sent_held;       /* ... and the store's room for it; */
    bool               sent_lost;       /* ... or it is not kept */
    enum write_source  source;
    struct request    *as_get;          /* in the pool: of its target, as its client would ask */
    struct fill       *refetch;         /* owned: that, on its way */
    unsigned           refetches;
    bool               answer_stored;   /* as Cache-Status tells, whatever a flight says */
    bool               stays;           /* it is one ... */
    struct request    *next_left;       /* of those whose client has left (forward.c) */
};

/* request.c */
void req_run(struct request *r);        /* advances until a handler must wait */
void req_post(void *request);           /* req_run, later, from the loop */
void req_bind(struct request *r);       /* request_bound counts it, until `enter` sees its end */
/* A reference to site is taken; inside a read section, or with one at hand. */
struct request *req_new(struct conn *c, const struct http_head *h, struct slice bytes,
    struct site *site);
struct request_worker *req_worker(void);    /* of this thread */
struct store *req_store(void);
struct fills *req_fills(void);
struct tiers *req_tiers(void);          /* NULL: memory is all there is */
struct writes *req_writes(void);        /* NULL without a journal */
struct tracer *req_tracer(void);        /* NULL: no traces are made */
struct slice req_tracestate(const struct http_head *h);     /* h may be NULL */
struct slice req_protocol(const struct http_head *h);       /* "HTTP/1.1" */
void req_finish(struct request *r);     /* DONE: figures, log lines, memory */

/* route.c */
#define REQ_ID_MADE 32
/* The client's X-Request-Id where it is fit for one, else one that is made in `made`. h may be
 * NULL. */
struct slice req_id(const struct http_head *h, char made[REQ_ID_MADE + 1]);
/* Its client, its id, its trace; once, while there is a conn. */
void req_introduce(struct request *r);
/* Its target for the origin, and its key, by the route that it matches. -1: memory out. */
int  route_rewrite(struct request *r);
int  route_key(struct request *r);
enum req_state route_ask(struct request *r);    /* its route and key are known: what next? */

/* one file each */
enum req_state do_route(struct request *r);
enum req_state do_hooks(struct request *r);
enum req_state do_body(struct request *r);
enum req_state do_pending(struct request *r);
enum req_state do_write(struct request *r);
enum req_state do_lookup(struct request *r);
enum req_state do_tier(struct request *r);
enum req_state do_fetch(struct request *r);
enum req_state do_blocks(struct request *r);
enum req_state do_forward(struct request *r);
enum req_state do_purge(struct request *r);
enum req_state do_fill(struct request *r);
enum req_state do_deliver(struct request *r);
enum req_state do_abort(struct request *r);
enum req_state do_done(struct request *r);

/* lookup.c: the client's range alone is asked for from here on */
bool lookup_ranged(struct request *r);

/* tier.c */
/* Are the tiers below memory to be asked, where a lookup found that? TIER is next then. */
bool tier_begin(struct request *r, enum store_answer got, enum sem_use use);
void tier_served(struct request *r);    /* r->object answers: was it promoted for it? */
/* Redis failed, once: what becomes of a request that is not answered by memory's word? o: what it
 * has, to be validated; may be NULL. */
enum tier_instead { TIER_INSTEAD_NOTHING, TIER_INSTEAD_STALE, TIER_INSTEAD_SHED };
enum tier_instead tier_instead(struct request *r, const struct object *o);
enum req_state tier_shed(struct request *r);

/* hooks.c: what the route's plugins say. Nothing without any. */
bool hooks_begin(struct request *r);    /* the route is known. false: memory out */
/* An answer is there, nothing of it was sent. false: they are not done with it; wait. */
bool hooks_deliver(struct request *r);
void hooks_edit(const struct request *r, struct buf *b);    /* a head without its empty line */
void hooks_accepted(struct request *r, const char *id);     /* by the journal */
void hooks_done(struct request *r, uint64_t us);
/* Whose writes these are: by what the client sent, and by what plugins say tells clients apart. */
uint64_t hooks_who(const struct request *r);
void hooks_end(struct request *r);      /* it waits for none of them any more */

/* form.c: which form of a stored response a request gets. */
/* In a read section, or with a reference at hand. NULL: the identity. */
const struct form *form_choose(const struct object *o, const struct route *route,
    const struct http_head *h, const struct sem_request *rq);
/* The tag of a form of what has `etag` that the request says it has, and may have: what a 304 is
 * to say. It is written into tag where it is another than etag. .p == NULL with a 304 without a
 * tag. false: none. */
#define FORM_TAG_MAX (1024 + SEM_CODED_MORE)
bool form_held(const struct request *r, struct slice etag, int64_t last_modified_s,
    int64_t date_s, int64_t now_s, char tag[FORM_TAG_MAX], struct slice *held);
/* A client's If-Match or If-None-Match, for the origin: with the tags that those of our forms
 * stand for. */
void form_conditions(const struct http_field *f, struct buf *b);

/* hit.c: answers a fresh hit on the spot; false: nothing was done. */
bool hit_try(struct conn *c, const struct http_head *h, struct slice bytes);

/* target.c */
/* Did the client use https, by the connection or by the word of a trusted proxy in front? */
bool target_https(const struct conn *c, const struct http_head *h);
struct target { struct slice host, path, query; struct slice route_host; };
/* What was asked for in its normal form: slices point into h, or into b, where it was made. -1:
 * memory out. */
int  target_read(const struct http_head *h, bool https, struct buf *b, struct target *t);
bool target_host_plain(struct slice host);          /* no escapes, but those that were undone */
/* Appends the absolute URL that was asked for. */
void target_url(const struct request *r, struct buf *b);
/* Adds to a key that key_make made in b what the peer, if it is trusted, says its client asked for.
 * -1: memory out. */
int  target_key(const struct conn *c, const struct http_head *head, const struct route *route,
    bool https, struct slice host, struct buf *b, struct key *k);

/* forward.c: the client's request, as the origin gets it. */
void forward_fields(void *request, struct buf *b);
bool forward_disguised(struct slice name);          /* one of ours but for its underscores */
void forward_body(struct request *r, struct slice data);
void forward_body_end(struct request *r, struct slice trailer);
void forward_interim(struct request *r, const struct fill_view *v);
/* The client left, or what it sent was malformed, while its request was at the origin. True: it
 * goes on there without its client. */
bool forward_given_up(struct request *r);
/* It goes on without its client, until its thread drains. false: that drains already. */
bool forward_stay(struct request *r);
void forward_left(struct request *r);   /* one of these is over */
void request_want(struct request *r, enum fill_mode mode, struct fill_want *w);

/* deliver.c */
struct slice deliver_etag(const struct object *o);
/* The fields of h that belong into an answer made from it: all but Content-Length; those of a 304
 * alone; without Content-Type. */
void deliver_fields(struct buf *b, const struct http_head *h, bool only_304, bool type);
bool deliver_parts(struct request *r, size_t n);    /* n of them; false: memory out */
/* breaks the answer off, so that it shows; REQ_DONE */
enum req_state deliver_cut(struct request *r);

/* range.c */
enum range_fit {
    RANGE_NONE,                         /* no range that counts: the whole is wanted */
    RANGE_WITHIN,                       /* n ranges of what is stored */
    RANGE_BEYOND,                       /* of the representation, but not of the part that is
                                           stored */
    RANGE_UNSATISFIABLE,
};
/* What this request wants of o; ranges has room for RANGES_MAX. */
enum range_fit range_fit(const struct request *r, const struct object *o, int64_t now_ms,
    struct http_range *ranges, size_t *n);
/* The status line and fields of a 206 of one range, but for the empty line. */
void range_head(struct buf *b, const struct http_head *h, const struct http_range *range,
    uint64_t size);
/* Writes the status line and fields of a 206 or 416 out of r->object, whose head is h, and
 * sets r's parts. false: the range does not count. */
bool range_put(struct request *r, struct buf *b, const struct http_head *h, int64_t now_ms);

/* blocks.c */
bool blocks_begin(struct request *r);   /* false: not on this route, or not for this request */
bool blocks_more(const struct request *r);          /* what is delivered is not all */
/* false: it has none */
bool blocks_head(struct request *r, struct buf *b, const struct http_head *h);

/* trailer.c: the lines of a trailer section that pass. */
struct slice trailer_request(const struct request *r, struct slice lines);
struct slice trailer_response(const struct request *r, const struct fill_view *v);

/* body.c: what comes of the content in BODY. */
void body_collect(struct request *r, struct slice data);
void body_collected(struct request *r, struct slice trailer);

/* write.c */
enum req_state write_begin(struct request *r);  /* of an unsafe request: where does it go? */
enum req_state write_too_long(struct request *r);
/* The origin did not answer. True: the journal takes the request, in WRITE. */
bool write_instead(struct request *r, const struct exchange_fault *f);
void writing_end(struct request *r);    /* it asks nothing more */

/* claim.c: nothing without a claim */
void claim_saw(struct request *r, const struct fill_view *v);   /* before it passes to the client */
void claim_release(struct request *r);  /* the origin never saw it */
void claim_lost(struct request *r);     /* nobody knows whether it did */
/* The client left: is all known that a repetition can hear? If not, req_run follows. */
bool claim_settled(struct request *r);

/* acknowledge.c: before any route */
bool write_is_status(const struct request *r);
enum req_state write_status(struct request *r);

/* pending.c */
bool pending_may(const struct request *r);
enum req_state pending_before(struct request *r, enum req_state next);

/* also.c: its head came; a QUERY's answer may be one to a GET too. */
void also_query(struct request *r, const struct fill_view *v);

/* through.c: what a write leaves in the cache. */
void through_want(struct request *r, struct fill_want *w);      /* before it is sent */
void through_sent(struct request *r, struct slice data);        /* a part of its content was */
enum req_state through_purge(struct request *r, const struct fill_view *v); /* its head came */
void through_end(struct request *r);    /* done or not; nothing the second time */

/* hops.c */
bool hops_left(const struct http_head *h, uint64_t *left);
enum req_state hops_answer(struct request *r);      /* none were left: we are the last */

/* purge.c: what the write changed, once; v: its answer, NULL when none came. */
void purge_now(struct request *r, const struct fill_view *v);

/* problem.c: an answer of our own (RFC 9457); returns REQ_DELIVER. */
enum req_state req_problem(struct request *r, unsigned status, const char *detail);
enum req_state req_problem_retry(struct request *r, unsigned status, const char *detail,
    unsigned retry_s);
enum req_state req_fault(struct request *r, const struct exchange_fault *f);
/* more: further field lines. */
enum req_state req_problem_with(struct request *r, unsigned status, const char *detail,
    struct slice more);
enum req_state req_answer(struct request *r, unsigned status, const char *type, struct slice body);
enum req_state req_answer_with(struct request *r, unsigned status, const char *type,
    struct slice body, struct slice more);
/* Another's answer, whose fields these are. */
enum req_state req_answer_as(struct request *r, unsigned status, struct slice fields,
    struct slice body);

/* proxy_status.c: the field of an error of our own (RFC 9209). */
const char *proxy_status_error(unsigned status);    /* its registered type; NULL: none fits */
void proxy_status_put(const struct request *r, struct buf *b, const char *error,
    const char *details);

/* status.c: Age and Cache-Status. */
const char *status_fwd(enum fwd f);     /* as Cache-Status has it; NULL: it did not go forward */
size_t status_hit(char *out, size_t cap, const struct slice via, int64_t age_ms, int64_t ttl_ms,
    bool close);
void status_put(const struct request *r, struct buf *b, const struct fill_view *v);

#endif
