/*
 * write -- write policies: the journal, the delivery of what it holds, who may see what is pending,
 * repeated keys, and the order of writes that race.
 *
 * Model    A write that is acknowledged first (write-back) is a row of the journal: durable before
 *          anybody hears of it, delivered afterwards in the order of its chain, settled once. One
 *          thread writes the journal (SQLite, group commit); one loop, the write loop, schedules,
 *          delivers, reads the journal and answers questions about it. Nothing of this exists
 *          without `journal.path`; racing writes are known without it.
 * Threads  each function says where it may be called. What is asked of the journal is answered
 *          once, on the loop that asked, never from inside the call.
 */
#ifndef WEIR_WRITE_H
#define WEIR_WRITE_H

#include "base/base.h"
#include "config/conf.h"
#include "fill/fill.h"
#include "http/http.h"
#include "route/route.h"
#include "store/store.h"

/* ---- the whole ------------------------------------------------------------------------------ */

struct writes;

/* Opens the journal that the configuration names (taking its lock, making it where there is none,
 * reading what is pending) and starts its threads; `l` becomes the write loop, whose thread this
 * starts; it must be one of those that upstream knows. b: where purges go to other instances; NULL:
 * nowhere. NULL with *e: the lock is held by another
 * process, the file is no journal of ours or a later version's, or it cannot be read or written.
 * A damaged file is set aside under another name, and a new one made: an error line says so, and
 * what could be read of it is taken over. Nothing is delivered before the first writes_site. */
struct bus;
struct writes *writes_open(const struct conf *c, struct loop *l, struct store *s, struct fills *f,
    struct bus *b, struct err *e);
/* Would it take this path? Looks, and changes nothing. 0: yes, as far as can be seen; 1: not now,
 * and by this user; -1: never. *e: what is wrong; what to do. Any thread, before writes_open. */
int writes_check(const char *path, struct err *e);
/* `weir writes move`: the whole journal from a file into Redis ("redis": the one that c's
 * journal.redis names; or a redis:// URL), or back. Nobody may have either open. 0, or -1 with *e:
 * then it may be begun again, and goes on. dry: counts alone. c: whose routes are in force. */
struct writes_moved {
    uint64_t pending, dead, settled, keys, paused;
    bool finished;                      /* an earlier run had moved all; nothing was counted */
    char renamed[4200];                 /* what the file is called now; "": it is as it was */
};
int writes_move(const struct conf *c, const char *from, const char *to, bool dry,
    struct writes_moved *out, struct err *e);
/* What is in force from now on; references are taken. origins: of the table's configuration, in its
 * order. via: our name in Via. Any thread. */
void writes_site(struct writes *w, struct route_table *t, struct origin *const *origins,
    struct slice via);
/* No further delivery begins; those under way may end. True when none is under way. Any thread. */
bool writes_drain(struct writes *w);
/* No delivery begins while it holds, and no reader is kept waiting for one; what is accepted is
 * kept. True when none is under way. on false: as before. Any thread. */
bool writes_hold(struct writes *w, bool on);
/* Stops the threads; what is under way counts as sent without an answer. When no other loop runs
 * any more. NULL is fine. */
void writes_close(struct writes **wp);
/* JSON members for the detail of /readyz: can it take writes, how many wait, how old is the oldest.
 * False: it cannot take writes. Any thread. */
bool writes_ready(struct writes *w, struct buf *b);

/* ---- one write ------------------------------------------------------------------------------ */

enum write_state {                      /* names: write_state_name */
    WRITE_PENDING,                      /* accepted, not sent yet */
    WRITE_SENDING,                      /* at the origin; committed before its first byte leaves */
    WRITE_WAITING,                      /* failed, to be sent again */
    WRITE_DELIVERED,
    WRITE_SUPERSEDED,                   /* by a newer PUT to its target (write.coalesce) */
    WRITE_DROPPED,                      /* by an operator */
    WRITE_REJECTED,                     /* dead: the origin's answer was final */
    WRITE_EXPIRED,                      /* dead: out of time or attempts */
    WRITE_UNCERTAIN,                    /* dead: sent, fate unknown, and not to be repeated */
    WRITE_STATES
};
const char *write_state_name(enum write_state s);       /* "pending" ... */
static inline bool write_is_pending(enum write_state s) { return s <= WRITE_WAITING; }
static inline bool write_is_dead(enum write_state s) { return s >= WRITE_REJECTED; }

/* What becomes of a write. All but ACCEPT go to the origin if they can, as with write-through. */
enum write_plan {
    PLAN_ACCEPT,                        /* acknowledged first */
    PLAN_BEHIND,                        /* ... if earlier writes of its chain are pending */
    PLAN_DOWN,                          /* ... or the origin cannot be reached */
    PLAN_STRAIGHT,                      /* cannot be kept: not before earlier ones */
    PLAN_KEYED,                         /* only its Idempotency-Key is kept, if it has one */
};
/* As the route and the request's method and Prefer have it; STRAIGHT is not known yet. */
enum write_plan write_plan(const struct route *r, const struct http_head *h);

enum write_lane { WRITE_LANE_HIGH, WRITE_LANE_DEFAULT, WRITE_LANE_LOW, WRITE_LANES };
/* By the urgency of Priority (RFC 9218 4.1): 0..2 high, 3 or none default, 4..7 low. */
enum write_lane write_lane(const struct http_head *h);

/* Of host and path as a client uses them: what pending and racing writes are known by. */
uint64_t write_path_hash(struct slice host, struct slice path);
/* Of Authorization and Cookie, keyed by a secret of the process's journal: whose writes they
 * are. */
uint64_t write_who(struct writes *w, const struct http_head *h);

struct write_request {                  /* borrowed for the call */
    const struct route *route;
    enum http_method method;
    struct slice method_name;
    bool https;
    struct slice host, path, query;     /* normalised, as the client uses them */
    struct slice target;                /* for the origin */
    struct slice fields;                /* lines as the origin gets them; write.omit is applied */
    struct slice type;                  /* Content-Type */
    bool has_body; struct slice body;
    struct slice order_key;             /* what write.key gave; .p NULL: the path */
    struct slice idempotency_key;       /* the client's, decoded; .p NULL: none */
    uint64_t who;
    enum write_lane lane;
};

#define WRITE_ID_N 32                   /* hex digits of an id */

enum write_outcome {
    WRITE_OK,               /* accepted (id, state, position); claimed; found; done */
    WRITE_REPEATED,         /* the key was seen with this very request: id, or the answer it had */
    WRITE_MISMATCH,         /* ... with another request: 422 */
    WRITE_BUSY,             /* ... and that is being accepted, or is at the origin, or its fate is
                               unknown: 409; why says which */
    WRITE_FULL,             /* the journal takes none: why says why */
    WRITE_KEYS_FULL,        /* no room for another key: 503 */
    WRITE_UNKNOWN,          /* no such id: 404 */
    WRITE_CONFLICT,         /* not in this state: 409; why */
};

/* Slices are valid during the call of done. */
struct write_answer {
    enum write_outcome outcome;
    const char *why;                    /* for a person; "" when there is nothing to say */
    char id[WRITE_ID_N + 1];
    enum write_state state;
    uint64_t position;                  /* pending writes before it in its chain; 0: next */
    unsigned status;                    /* REPEATED: of the first answer; 0: not known yet */
    struct slice fields, body;          /* ... and the rest of it */
    struct slice json;                  /* LOOK, LIST and the operators' verbs: the answer's text */
    uint64_t n;                         /* how many writes an operator's verb touched */
};
typedef void write_done(void *arg, const struct write_answer *a);

struct write_ask;
/* The answer is not wanted any more (NULL is fine; leaves NULL); what was asked for is done all the
 * same. On the loop that asked. After done it is gone by itself. */
void write_forget(struct write_ask **ap);

/* From here on: on the loop l, which hears done. NULL: memory is out, and nothing was done. */

/* Takes a write: OK once it is as durable as the route says. With an idempotency key also REPEATED,
 * MISMATCH, BUSY, KEYS_FULL. */
struct write_ask *write_accept(struct writes *w, struct loop *l, const struct write_request *r,
    write_done *done, void *arg);
/* May this PUT, PATCH, POST or DELETE go straight to the origin, or are pending ones of its chain
 * before it (write.when: down)? OK: it may. BUSY: accept it. */
struct write_ask *write_may_pass(struct writes *w, struct loop *l, const struct write_request *r,
    write_done *done, void *arg);

/* ---- keys of writes that go straight to the origin ------------------------------------------ */

/* Claims the key, durably, before the request is sent. OK: send it, then say how it ended, with the
 * answer's id: write_claim_ended with its final answer, or with status 0 when its fate is unknown,
 * as it is after a crash; or write_claim_released when the origin never saw it. */
struct write_ask *write_claim(struct writes *w, struct loop *l, const struct write_request *r,
    write_done *done, void *arg);
#define WRITE_ANSWER_MAX (64 * 1024)    /* of content that is kept to be said again */
/* body.p NULL: longer than that; a repetition then hears 409 with the status. Any thread. */
void write_claim_ended(struct writes *w, const char *id, unsigned status, struct slice fields,
    struct slice body);
void write_claim_released(struct writes *w, const char *id);

/* ---- read your writes ----------------------------------------------------------------------- */

/* May there be pending writes to this path? False is certain. Any thread; no lock. */
bool write_maybe_pending(const struct writes *w, uint64_t path_hash);

enum write_seen { WRITE_SEEN_NONE, WRITE_SEEN_CONTENT, WRITE_SEEN_GONE, WRITE_SEEN_UNKNOWN };
struct write_view {                     /* slices are valid during the call of done */
    enum write_seen seen;               /* what the pending writes make of the target together: */
    char id[WRITE_ID_N + 1];            /* CONTENT: of the PUT; its */
    struct slice fields, body;          /* ... request fields and content */
    int64_t accepted_ms;
};
/* What those of `who` (all: of everybody) that are pending now for this URL (host, path, query as
 * the client uses them) make of it. wait_ms > 0: while that is UNKNOWN the answer waits, so long at
 * most, for their delivery. */
struct write_ask *write_look_pending(struct writes *w, struct loop *l, struct slice host,
    struct slice path, struct slice query, uint64_t who, bool all, int64_t wait_ms,
    void (*done)(void *arg, const struct write_view *v), void *arg);
/* Would If-Match or If-None-Match of this write already fail by the pending state of its own
 * writer? etag of pending content: write_etag. (Used by write_accept's caller through
 * look_pending.) */
#define WRITE_ETAG_MAX (WRITE_ID_N + 16)
size_t write_etag(char out[WRITE_ETAG_MAX], const char *id);    /* "\"weir-pending-ID\"" */

/* ---- what operators and writers ask --------------------------------------------------------- */

/* The state of one write as JSON: for the writer (brief) or an operator (everything but
 * secrets). */
struct write_ask *write_look(struct writes *w, struct loop *l, struct slice id, bool brief,
    write_done *done, void *arg);
struct write_filter {
    struct slice state;                 /* a name, "dead" or "all pending" alike; .p NULL: any */
    struct slice route, key;            /* route's name; text of the order key */
    struct slice after;                 /* an id: those accepted later */
    unsigned limit;                     /* at most so many; 0: 100 */
};
struct write_ask *write_list(struct writes *w, struct loop *l, const struct write_filter *f,
    write_done *done, void *arg);
enum write_verb { WRITE_RETRY, WRITE_DROP };
/* One (id.p not NULL) or all that the filter takes. RETRY: a dead or waiting one is due now, with
 * all its attempts; CONFLICT for a delivered one. DROP: pending ones are cancelled unless they are
 * at the origin (CONFLICT), dead ones are settled. */
struct write_ask *write_verb(struct writes *w, struct loop *l, enum write_verb verb,
    struct slice id, const struct write_filter *f, write_done *done, void *arg);
/* Deliveries of an origin or a route (one of the two is .p NULL; both: of all) stop or go on. It is
 * remembered in the journal. UNKNOWN: there is none of that name. */
struct write_ask *write_pause(struct writes *w, struct loop *l, struct slice origin,
    struct slice route, bool on, write_done *done, void *arg);
/* Hears every change of a write's state and once a second how it goes, as JSON of one line, on l,
 * until write_unwatch (on l; on_event is not called after it). A watcher that has not taken
 * 1,000 of them loses the oldest, and is told how many. NULL: memory out. */
struct write_watch;
struct write_watch *write_watch(struct writes *w, struct loop *l,
    void (*on_event)(void *arg, const char *kind, struct slice json), void *arg);
void write_unwatch(struct write_watch **wp);

/* ---- racing writes (race.c) ----------------------------------------------------------------- */

/* A write that is at its origin: a member of what it is about; zero-initialise. */
struct race {
    struct race *next;              /* these are the table's, under its lock */
    uint64_t     target;
    enum race_phase { RACE_OUT, RACE_AT_ORIGIN, RACE_ANSWERED } phase;
    bool         overlapped;
};

/* Before the request is sent. target: write_path_hash, without the host where the route's key has
 * none. */
void race_begin(struct race *t, uint64_t target);
/* Its answer's head came, and what it changed is purged. Nothing on one that is out. */
void race_answered(struct race *t);
bool race_overlapped(const struct race *t);
/* May what it left be published now? True: no other to its target begins until race_release, which
 * the same thread calls at once. As a struct fill_gate has them. */
bool race_hold(void *ticket);
void race_release(void *ticket);
void race_end(struct race *t);      /* nothing on one that is out */

/* ---- fills (through.c) ---------------------------------------------------------------------- */

/* Does the route want the new representation in the cache after a write? */
bool write_through(const struct conf_route *c);
/* fill_want.also of a write. */
unsigned write_also(const struct conf_route *c, const struct http_head *request);
/* Is its own content to be kept, for WRITE_SOURCE_CONTENT? */
bool write_keeps_content(const struct conf_route *c, const struct http_head *request);

struct write_effect {
    const struct conf_route *route;
    const struct http_head *request, *response;
    struct slice target;            /* absolute, normalised */
    bool content;                   /* the whole content of the request is at hand */
};
/* Where the new representation is to be had. ANSWER: fill_store_as; CONTENT: fill_store_sent;
 * FETCH, also where one of these cannot be stored: a GET, on the route that takes it. */
enum write_source { WRITE_SOURCE_NONE, WRITE_SOURCE_ANSWER, WRITE_SOURCE_CONTENT,
    WRITE_SOURCE_FETCH };
enum write_source write_source(const struct write_effect *a);
bool write_encloses_target(struct slice target, const struct http_head *response);

/* Around the purge of a write that was sent as of purge sequence `sent`. True: `stamp` is as of
 * when its answer or content may be stored under `key`; false: another purge may match it. */
struct write_purge { uint64_t before, made, stamp; bool undisturbed; };
void write_purge_begin(struct store *s, const struct key *key, uint64_t route_id, uint64_t sent,
    struct write_purge *p);
bool write_purge_end(struct store *s, struct write_purge *p);

/* The GET of its target that the client of a write would have sent: the same fields without those
 * of its content, its conditions and its repetition. In the pool; slices as in `request`. NULL:
 * memory out. */
struct http_head *write_get(struct pool *p, const struct http_head *request);

#endif
