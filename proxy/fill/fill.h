/*
 * fill -- flights: one fetch from an origin, into the store and for one or many who wait.
 *
 * Model    A flight belongs to no client. It lives on the loop that started it (home), reads at the
 *          origin's pace into a body that only grows while the response may be stored (up to the
 *          route's max_object, and while the store has room for all that is under way), and
 *          everybody who joined reads from that body as it grows. A
 *          response that is not stored passes through a window: the slowest reader paces it, but
 *          one that stands still for seconds while others wait is let go (pace.c).
 *          Shared flights stand in a sharded table under their key and the request's Authorization.
 *          Nobody joins one that a purge since its start could match.
 *          A range is asked for by who wants one and has nothing stored (range), and only those
 *          who want the very same join; a 206 is stored as a part (part.c). Who wants the whole of
 *          what is stored in part asks for the rest, and gets one 200 of both.
 *          By a rule that is stored for the path (No-Vary-Search) requests for other URLs are
 *          presumed equal and join too (`together`). The response's own rule has the last word:
 *          those that it does not call equal are told to look again, each for its own URL.
 *          When the response varies, those whose variant differs are told to look again, and
 *          collapse again by variant. When it may not be stored, all who joined are let go
 *          together.
 * Threads  a reader (struct fill) belongs to the loop that opened it and hears on_change there,
 *          never from inside a call of its own. Body bytes are read without a lock.
 */
#ifndef WEIR_FILL_H
#define WEIR_FILL_H

#include "base/base.h"
#include "http/http.h"
#include "key/key.h"
#include "plugin/plugin.h"
#include "route/route.h"
#include "semantics/semantics.h"
#include "store/store.h"
#include "tier/tier.h"
#include "upstream/upstream.h"

struct fills;
struct fill;

/* t: NULL where memory is all there is; what is stored whole goes there too. */
struct fills *fills_new(struct store *s, struct tiers *t, struct err *e);
/* At the end: what is fetched for the cache alone is given up. Any thread; the loops still run. */
void fills_stop(struct fills *fs);
void fills_free(struct fills **fp);         /* when all loops have stopped */

enum fill_mode {
    FILL_SHARED,        /* may be joined, may be stored */
    FILL_ALONE,         /* may be stored, nobody joins: the request wants a fetch of its own */
    FILL_PRIVATE,       /* never stored: unsafe, ranged, authorised beyond sharing, `pass` */
};

/* What the origin gets in a field of the requests for one key. */
enum fill_field {
    FILL_FIELD_CLIENTS,         /* the client's own decides it */
    FILL_FIELD_SAME,            /* one value, or none, in all of them */
    FILL_FIELD_EACH,            /* another in each, whatever the client sent */
};

/* For what may also be stored as the answer to a GET. */
enum {
    FILL_ALSO = 1,                  /* fill_store_as may be said of it, with Content-Location; */
    FILL_ALSO_UNLOCATED = 2,        /* ... or has none */
    FILL_ALSO_ASSUMED = 4,          /* freshness may be what the route's rules assume */
};

/* Whether what a flight brought may be published is decided when it is: enter says so, and where it
 * says yes, leave follows at once. Zeroed: always. Both on the flight's loop, and no more once the
 * starter has closed: then it is not published. */
struct fill_gate { bool (*enter)(void *arg); void (*leave)(void *arg); void *arg; };

/* The span of a trace in which the origin is asked, for those who join; span 0: there is none. */
struct fill_span { uint64_t hi, lo, span; };

struct fill_want {
    enum fill_mode mode;
    struct route_table *table;              /* a reference is taken */
    const struct route_match *match;
    struct origin *origin;                  /* a reference is taken */
    const struct key *key;                  /* NULL with FILL_PRIVATE */
    const struct key *together;             /* of all URLs that are presumed equal; NULL, or the
                                               same as key: of none but its own */
    struct slice target;                    /* for the origin */
    const struct http_head *request;        /* the client's head; */
    struct slice request_bytes;             /* ... its slices point in here */
    struct sem_request semantics;
    struct object *stale;                   /* to be validated; a reference is taken; may be NULL */
    struct object *part;            /* fresh: only the rest is asked for; likewise */
    bool part_only;                 /* with range: what is no 206 is not stored */
    struct slice range, if_range;   /* what alone is asked for: the client's fields; empty: the
                                       whole */
    struct slice vary;              /* what other variants of this URL vary by, as far as known */
    const char *why;                        /* PRIVATE: why it is not stored, for Cache-Status */
    bool join_only;                         /* starts none */
    struct tier_lease **lease;              /* that of a flight which this starts, then its own, to
                                               NULL; may be NULL */
    bool https;
    struct slice host;                      /* normalised */
    struct slice via;                       /* our name */
    enum http_framing body; uint64_t length;        /* of the request */
    struct slice content;       /* ... the whole of it, copied: the flight sends it, again if it
                                   must; .p NULL: fill_send does */
    unsigned also;              /* FILL_ALSO..., or 0 */
    const struct plugin_text *tags;     /* for what this stores, besides its route's */
    struct fill_gate gate;      /* for what is stored under `key`, if this starts the flight */
    struct slice upgrade;
    bool expect;
    bool once;                  /* as exchange_request has it; PRIVATE */
    struct fill_span asked_in;
    /* Appends the field lines for the origin; called only when a fetch starts. */
    void (*fields)(void *arg, struct buf *b);
    void *fields_arg;
    /* Vary is about what the origin got: a field that is the same for all selects nothing, and by
     * one that is another each time no later request can be told to match. NULL: all are the
     * clients' own. */
    enum fill_field (*sent)(const struct route *route, struct slice name);
};

/* Joins a flight or starts one; *collapsed tells which. on_change(arg) comes after every change of
 * what fill_look tells. Where one has just landed and left what this request may use, neither:
 * fill_look says FILL_AGAIN from the start. NULL: memory out, or none to join (join_only). */
struct fill *fill_open(struct fills *fs, struct loop *l, const struct fill_want *w,
    void (*on_change)(void *arg), void *arg, bool *collapsed);
/* That of who started the flight. */
struct fill_span fill_span(const struct fill *f);
/* Starts one that nobody waits for (revalidation behind a stale answer), unless one is under way
 * or has just landed. Instances that share a Redis fetch once: those that come later take from
 * there what the first one brought. */
void fill_behind(struct fills *fs, struct loop *l, const struct fill_want *w);
/* No on_change any more. A flight that can still be stored goes on without its reader. NULL is
 * fine. */
void fill_close(struct fill **fp);

enum fill_state {
    FILL_WAITING,
    FILL_HEAD,                  /* the response is coming: head, body, complete / broken */
    FILL_OBJECT,                /* a 304 freshened the stored one: object */
    FILL_AGAIN,                 /* not for you: look up again */
    FILL_AGAIN_APART,           /* not equal to what was asked for: look up again, and join no
                                   other URL's flight */
    FILL_AGAIN_ALONE,           /* not storable: fetch for yourself, all of you at once */
    FILL_FAULT,                 /* no response: fault */
};
struct fill_view {
    enum fill_state state;
    unsigned status;
    unsigned origin_status;     /* the same, but 206 where only the rest was asked for */
    struct slice head;          /* "HTTP/1.1 200 OK\r\n" and fields, no framing, no Age of ours, no
                                   empty line */
    size_t status_n;            /* of the status line */
    enum http_framing framing;  /* of the origin's response: NO_BODY, LENGTH (length), else unknown
                                   length */
    uint64_t length;
    const struct http_head *response;       /* parsed, whole: for purges and conditions */
    const struct sem_meta *meta;            /* when it may be stored, else NULL */
    const char *why;                        /* ... and why not */
    bool tags_later;            /* ... and whether it is, only the whole body tells */
    const struct body *body;
    bool complete, broken, stored;
    bool half_closed;           /* a tunnel's origin has said all it will, and still listens */
    struct slice trailer;                   /* with complete */
    struct slice interim;                   /* all 1xx heads so far, serialised, with empty lines */
    bool want_body;                         /* 100 Continue came, or its time-out */
    const struct object *object;
    const struct exchange_fault *fault;
};
/* Slices and pointers are valid until fill_close. */
void fill_look(struct fill *f, struct fill_view *v);
/* Body bytes before `at` are done with. */
void fill_consumed(struct fill *f, uint64_t at);

/* The response, once it is whole, is also what a GET of this key gets, as of this purge sequence,
 * if it may be stored so and the gate says yes; at once where it is whole already. By the starter,
 * on its loop, once the head came; nothing without `also`. */
void fill_store_as(struct fill *f, const struct key *key, uint64_t stamp,
    const struct fill_gate *gate);
/* What came of that. STORED: what a GET gets now is stored, this or what was asked for later. */
enum fill_as { FILL_AS_WAITS, FILL_AS_STORED, FILL_AS_NOT };
enum fill_as fill_stored_as(const struct fill *f);
/* Stores the content that was sent as what a GET of this key gets: with the Content-Type, -Encoding
 * and -Language of `request`, and all that the response says but about its own content. As
 * fill_store_as otherwise; at once. The body is sealed; *held as in store_parts. */
enum fill_as fill_store_sent(struct fill *f, const struct key *key, uint64_t stamp,
    const struct fill_gate *gate, const struct http_head *request, struct body *content,
    uint64_t *held);
uint64_t fill_stamp(const struct fill *f);  /* the purge sequence before its request was sent */

/* For what came into the store by no flight of ours: its coded forms are made behind it. */
void fill_compress(struct fills *fs, const struct route *route, struct object *o);

/* The request body, for the one who started a flight with one; on the flight's loop. */
void fill_send(struct fill *f, struct slice data);
void fill_send_end(struct fill *f, struct slice trailer);
bool fill_full(const struct fill *f);       /* wait for on_change */
/* For logs; "" when unknown. */
const char *fill_server(const struct fill *f, struct exchange_times *t);

#endif
