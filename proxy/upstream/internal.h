/*
 * upstream/internal.h -- what the files of this room share.
 *
 *   upstream.c   servers and origins over reloads, the figures
 *   balance.c    which server; ejection, the retry budget
 *   pool.c       permits, idle connections, who waits
 *   wire.c       one connection: addresses in turn, plain bytes
 *   limit.c      its time limits
 *   tls.c        the same over TLS
 *   dns.c        names to addresses
 *   exchange.c   one request: a server, a connection, retries, the way out
 *   response.c   the way back: head, framing, body
 *
 * A connection and an exchange belong to one worker; a server's counters are atomics of the
 * process, its waiters stand under its mutex. Lock order: upstream.mtx before server.mtx; dns has
 * one of its own that is held over nothing else.
 */
#ifndef WEIR_UPSTREAM_INTERNAL_H
#define WEIR_UPSTREAM_INTERNAL_H

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/uio.h>

#include "stats/stats.h"
#include "upstream/upstream.h"

#define KIB64        (64 * 1024)
#define READ_MAX     KIB64              /* one recv */
#define HEAD_MAX     KIB64              /* of a response */
#define SECOND_US    INT64_C(1000000)

/* ---- time limits ------------------------------------------------------------------------- */

/* A limit that mostly moves away again: the timer behind it is touched only when it has to ring
 * earlier than it is set for (limit.c). */
struct deadline {
    struct event ev;
    int64_t      at_us;                 /* INT64_MAX: none */
    int64_t      armed_us;              /* when ev rings; INT64_MAX: not set */
    void       (*run)(void *arg);
    void        *arg;                   /* borrowed */
};
void deadline_init(struct deadline *d, struct event_base *b, void (*run)(void *), void *arg);
void deadline_set(struct deadline *d, int64_t at_us);
void deadline_clear(struct deadline *d);
void deadline_fini(struct deadline *d);

/* ---- names ------------------------------------------------------------------------------- */

#define ADDRS_MAX 16

struct addr { uint8_t family, bytes[16]; };             /* AF_INET or AF_INET6 */
struct addrs {
    size_t      n;
    bool        cut4, cut6;             /* the answer had more of that family */
    struct addr at[ADDRS_MAX];
};

struct dns;
enum dns_answer { DNS_FAILED = -1, DNS_LATER, DNS_FOUND };
struct dns_wait {
    struct loop_msg  msg;               /* posted to `loop` when the answer is there */
    struct loop     *loop;              /* borrowed: who asks */
    void           (*run)(struct dns_wait *);
    struct addrs     addrs;             /* .n == 0: failed */
    bool             posted;            /* under the resolver's mutex */
    struct dns_wait *next;
};
/* Who uses the names; all are called on the resolver's loop. */
struct dns_user {
    bool (*in_use)(void *arg, const char *host);        /* is anything connected to it? */
    void (*left)(void *arg, const char *host);          /* an address is no longer its own */
    void (*users)(void *arg, const char *host, struct buf *out);    /* who they are, for the log */
    void  *arg;                                         /* borrowed */
};
struct dns *dns_new(struct loop *l, const struct conf_strings *servers, const struct dns_user *u);
void dns_free(struct dns **dp);                         /* its loop has stopped */
/* FOUND: w->addrs is filled. LATER: w->run comes on w->loop, unless dns_cancel was in time; *old is
 * an answer that has run out, if there is one, for use should the fresh one take too long. */
enum dns_answer dns_lookup(struct dns *d, const char *host, struct dns_wait *w, struct addrs *old);
bool dns_cancel(struct dns *d, struct dns_wait *w);     /* false: w->run will still come */
/* By the last answer; where that was cut, nothing says that an address is not of the name. */
bool dns_has(struct dns *d, const char *host, const struct addr *a);

/* ---- servers ----------------------------------------------------------------------------- */

/* A server's connections on one worker. */
struct slot {
    struct server  *server;             /* borrowed */
    struct worker  *worker;             /* borrowed */
    struct wire    *idle;               /* newest first; the worker's thread only */
    unsigned        open;               /* connections, busy ones too; the worker's thread only */
    atomic_uint     nidle;
    struct loop_msg look;               /* "look after this slot" */
    atomic_bool     look_posted;
    struct deadline warm;               /* while there is a minimum; the worker's thread only */
    bool            warm_ready;
};

struct server {
    uint32_t         magic;
#define SERVER_MAGIC 0x5e70e700u
    atomic_int       refs;              /* origins, connections, posted messages */
    struct upstream *u;                 /* borrowed: lives longer */
    struct server   *next;              /* upstream.servers, under upstream.mtx */
    unsigned         users;             /* origins, under upstream.mtx; 0: going away */
    atomic_bool      closing;           /* users == 0 */

    const char      *key;               /* owned, as are the next four */
    const char      *origin_id, *text, *host, *tls_name;
    uint16_t         port;
    bool             https;
    unsigned         stats;             /* the slot of its times */

    /* settings: written by origin_open, read anywhere */
    atomic_uint      max, min, waiting_max;
    _Atomic int64_t  idle_us, connect_us;
    SSL_CTX         *tls;               /* under mtx; one reference */

    /* the pool */
    atomic_uint      conns;             /* permits taken: open, opening, promised */
    atomic_uint      busy;              /* with an exchange, or one waiting for it */
    pthread_mutex_t  mtx;
    struct exchange *first, *last;      /* who waits, longest first; under mtx */
    struct exchange *granted;           /* their turn came, but they do not know yet; under mtx */
    atomic_uint      waiting;           /* their number; written under mtx */
    atomic_uint      good;              /* the address that last worked */
    atomic_uint      moves;             /* how often an address ceased to be its own */

    /* ejection */
    atomic_uint      fails, ejections;  /* consecutive */
    _Atomic int64_t  out_until_us;      /* 0: in service */
    atomic_bool      probing;

    unsigned         nslots;
    struct slot      slots[];           /* by worker */
};

struct server *server_ref(struct server *s);
void server_unref(struct server **sp);
void server_look(struct slot *sl);      /* any thread: have its worker look after the slot */

/* ---- origins ----------------------------------------------------------------------------- */

#define BUDGET_SECONDS 10

struct budget {
    struct { _Atomic int64_t second; atomic_uint requests, retries; } at[BUDGET_SECONDS];
};

struct origin {
    uint32_t          magic;
#define ORIGIN_MAGIC 0x0719170fu
    atomic_int        refs;
    struct upstream  *u;                /* one reference */
    struct origin    *next;             /* under u->mtx */
    const char       *host;             /* owned; NULL: the client's */
    enum conf_balance balance;
    bool              discard_surplus;
    int64_t           wait_us, first_byte_us, between_us, eject_for_us;
    unsigned          retry_attempts, eject_errors;
    double            retry_budget;
    atomic_uint       turn;
    struct budget     budget;
    size_t            n;
    struct server    *servers[];        /* one reference each */
};

struct worker {
    struct upstream  *u;                /* borrowed */
    unsigned          index;
    struct loop      *loop;             /* borrowed */
    struct event_base *base;            /* borrowed */
    struct wire      *conns;            /* all of this worker's */
    struct http_field fields[HTTP_FIELDS_MAX];
    char              bytes[HEAD_MAX + READ_MAX];   /* what is being read */
};

struct upstream {
    uint32_t        magic;
#define UPSTREAM_MAGIC 0x0b57ea30u
    atomic_int      refs;               /* upstream_new's and the origins' */
    struct dns     *dns;                /* owned */
    pthread_mutex_t mtx;
    struct server  *servers;            /* all that there are, under mtx */
    struct origin  *origins;            /* those in being, the newest first; under mtx */
    atomic_bool     stopped;            /* the loops have */
    struct upstream *next;              /* of the process, under the list's mutex */
    size_t          n;
    struct worker  *workers[];          /* owned */
};

/* ---- balance ----------------------------------------------------------------------------- */

/* A server for x: not one in `tried` while there is another. *probe: this request tries a server
 * that was out; server_result must be told how it went. */
struct server *balance_choose(struct origin *o, uint64_t tried, unsigned *index, bool *probe);
/* Would balance_choose find one that is not in `tried`? */
bool balance_another(const struct origin *o, uint64_t tried);
enum server_result { SERVER_WORKS, SERVER_FAILED, SERVER_UNKNOWN };
void balance_result(struct origin *o, struct server *s, enum server_result r, bool probe);
void budget_request(struct budget *b, int64_t now);
bool budget_retry(struct budget *b, double share, int64_t now);

/* ---- connections ------------------------------------------------------------------------- */

enum wire_state {
    WIRE_RESOLVING, WIRE_CONNECTING, WIRE_HANDSHAKE, WIRE_IDLE, WIRE_BUSY, WIRE_CLOSED
};

enum wire_trouble {
    WIRE_EOF, WIRE_RESET, WIRE_REFUSED, WIRE_UNREACHABLE, WIRE_TIMEOUT, WIRE_NO_NAME,
    WIRE_NAME_TIMEOUT, WIRE_TLS, WIRE_CERTIFICATE, WIRE_NO_MEMORY
};

struct wire {
    uint32_t         magic;
#define WIRE_MAGIC 0xc0991c70u
    enum wire_state  state;
    struct worker   *w;                 /* borrowed */
    struct server   *s;                 /* one reference */
    struct exchange *x;                 /* borrowed: who uses or awaits it */
    struct wire     *next, *prev;       /* worker.conns */
    struct wire     *idle_next, *idle_prev;
    int              fd;
    int              hold;              /* > 0: inside a callback of its own */
    bool             give;              /* to the pool when hold is 0 */
    bool             used;              /* a response came over it */
    bool             reading, writing;  /* rd, wr are added */
    struct event     rd, wr;
    struct event     soon;              /* activated by hand: an active event cannot be added */
    bool             soon_read, soon_write;
    struct bufferevent *tls;            /* owned; NULL over plain */
    bool             over, clean;       /* TLS: the peer ended, with close_notify */
    bool             finishing;         /* TLS: so do we, behind what is in the output */
    struct deadline  limit;
    int64_t          opened_us, connect_until_us;
    int64_t          idle_us;           /* since when it is idle */
    size_t           try, tries;        /* addresses */
    struct addr      addr;              /* the one in use */
    unsigned         moves;             /* the server's when addr was last known to be its own */
    unsigned         uses;              /* changes when it passes to another exchange */
    struct buf       rest;              /* read and not yet taken */
    bool             failed;            /* before it was up: `why` is told next round */
    enum wire_trouble why;
    struct dns_wait  dns;
    struct addrs     old;               /* has run out, while a fresh one is awaited */
};

/* A connection to s for x, or to be idle when x is NULL. Takes the permit, also when it fails
 * (NULL: memory out). What comes of it is told later by x's exchange_on_*. */
struct wire *wire_open(struct worker *w, struct server *s, struct exchange *x);
void wire_close(struct wire *c);                        /* gives its permit back */
void wire_abandon(struct wire *c);                      /* the loops have stopped */
void wire_close_keep(struct wire *c);                   /* the permit stays taken: the caller's */
void wire_use(struct wire *c, struct exchange *x);      /* it was idle */
bool wire_moved(struct wire *c);                        /* the server's name has left its address */
bool wire_stale(struct wire *c);                        /* the peer closed or wrote? (a call) */
bool wire_rested(const struct wire *c, const struct exchange *x);       /* idle too long for it? */
/* Bytes taken, 0 when it would block (exchange_on_writable comes), -1 with errno. */
ssize_t wire_write(struct wire *c, const struct iovec *iov, int n);
void wire_finish(struct wire *c);                       /* no more bytes from us */
void wire_soon(struct wire *c);                         /* exchange_on_writable, in this round */
void wire_read(struct wire *c, bool on);
void wire_limit(struct wire *c, int64_t at_us);
void wire_idle(struct wire *c);                         /* state, limit */
void wire_idle_over(struct wire *c);                    /* pool.c: idle for pool.idle */
void wire_depart(struct wire *c);                       /* plain, hold == 0: leaves its worker, */
void wire_arrive(struct wire *c, struct worker *w);     /* and comes to another, on its thread */
void wire_enter(struct wire *c);
void wire_leave(struct wire *c);                        /* and does what was put off */
/* For tls.c: what the transport found. */
void wire_up(struct wire *c);
void wire_bytes(struct wire *c, size_t n);              /* n bytes behind `rest` in worker.bytes */
void wire_trouble(struct wire *c, enum wire_trouble t);
void wire_writable(struct wire *c);
size_t wire_load(struct wire *c);                       /* `rest` to the front of worker.bytes */

SSL_CTX *tls_context(const struct conf_origin *c, struct err *e);
int  tls_start(struct wire *c);                         /* on its connected fd */
void tls_stop(struct wire *c);
ssize_t tls_write(struct wire *c, const struct iovec *iov, int n);
void tls_finish(struct wire *c);
void tls_pump(struct wire *c);                          /* takes what is decrypted */

/* ---- pool -------------------------------------------------------------------------------- */

enum pool_answer { POOL_FAILED = -1, POOL_WAIT, POOL_CONN, POOL_PERMIT, POOL_FULL };
/* A connection for x on its worker: CONN: *c is it. PERMIT: open one. WAIT: exchange_on_grant
 * comes. FULL: too many wait. `fresh`: none that was used before. */
enum pool_answer pool_take(struct exchange *x, struct slot *sl, bool fresh, struct wire **c);
void pool_give(struct wire *c);                         /* it may be used again */
void pool_offer(struct wire *c);                        /* to those who wait, if it is idle */
void pool_permit_back(struct server *s);                /* a connection less */
bool pool_leave(struct exchange *x);                    /* waits no more; false: a grant comes */
void pool_idle_remove(struct wire *c);
struct slot *pool_slot(struct server *s, struct worker *w);
void pool_look(struct slot *sl);                        /* on its worker */

/* ---- exchanges --------------------------------------------------------------------------- */

enum exchange_state { X_NEW, X_WAIT, X_CONNECT, X_HEAD, X_BODY, X_TUNNEL, X_DONE, X_FAULT };

struct exchange {
    uint32_t         magic;
#define EXCHANGE_MAGIC 0xe8c4a9e0u
    enum exchange_state state;
    struct origin   *o;                 /* one reference */
    struct worker   *w;                 /* borrowed */
    struct server   *s;                 /* borrowed of o */
    struct wire     *c;                 /* the one in use or being opened */
    const struct exchange_events *ev;   /* borrowed */
    void            *arg;
    int              hold;              /* > 0: inside a callback */

    /* the request */
    enum http_method method;
    enum http_framing body;
    bool             idempotent, expect, once;
    struct slice     upgrade;           /* the protocol asked for, in `head` */
    bool             await;             /* the body waits for 100 (Continue) */
    bool             ended;             /* the caller's body is complete */
    bool             cut;               /* the origin takes no more of it */
    bool             full;              /* exchange_full was true: on_drain is owed */
    bool             finished;          /* a tunnel's end was passed on */
    bool             half_closed;       /* ... and the origin's end came first */
    bool             spilt;             /* bytes of the body are no longer kept */
    uint64_t         left;              /* of HTTP_LENGTH not yet given to us */
    struct buf       out;               /* the body, framed */
    size_t           out_off, head_off; /* sent of them */

    /* the response */
    struct http_chunked chunked;
    enum http_framing framing;
    uint64_t         todo;              /* of HTTP_LENGTH */
    unsigned         interims;
    bool             close;             /* the origin will */
    bool             mid_head;          /* a part of a head is there */
    bool             paused, cancelled;

    /* tries */
    uint64_t         tried;             /* servers, by index up to 63 */
    unsigned         tries, retries;
    bool             probe, counted, stale_once, received, reached, reused;
    bool             elsewhere;         /* no server may be tried a second time */
    unsigned         server;            /* index in o->servers */
    struct exchange_fault fault;        /* X_FAULT */

    int64_t          first_byte_us, between_us;     /* limits */
    int64_t          start_us, taken_us, ready_us, head_us;     /* 0: not yet */
    int64_t          try_us;            /* this try was sent */
    struct deadline  limit;             /* pool.wait, 100-continue, a fault put off */

    /* waiting, under s->mtx */
    struct exchange *next, *prev;
    bool             queued, granted;
    struct loop_msg  grant;
    struct wire     *grant_conn;        /* NULL: a permit */

    size_t           head_n;
    char             head[];            /* the request's */
};

void exchange_on_grant(struct exchange *x, struct wire *c);     /* NULL: a permit */
void exchange_lost(struct exchange *x);                         /* it will hear of no grant */
void exchange_on_ready(struct exchange *x);                     /* x->c is connected */
/* Bytes of the response: what was taken of them. */
size_t exchange_on_bytes(struct exchange *x, struct slice in);
void exchange_on_trouble(struct exchange *x, enum wire_trouble t);      /* x->c is NULL again */
void exchange_on_eof(struct exchange *x);
void exchange_on_writable(struct exchange *x);
void exchange_on_limit(struct exchange *x);
/* For response.c. */
void exchange_limit(struct exchange *x);                /* sets the connection's */
void exchange_enter(struct exchange *x);
bool exchange_leave(struct exchange *x);                /* false: it is gone */
bool exchange_sent(const struct exchange *x);           /* the whole request */
void exchange_complete(struct exchange *x, bool reusable, struct slice trailer);
void exchange_broken(struct exchange *x, unsigned status, const char *cause, const char *detail);
void exchange_body_go(struct exchange *x);              /* 100 (Continue), or its time-out */

#endif
