/*
 * redis/inside.h -- what the files of this room share.
 *
 *   redis.c      the client: configuration, a side for each loop, commands in and out
 *   ask.c        a command: its deadline, its end
 *   server.c     a server as all loops see it: the breaker, what is counted and said
 *   node.c       a server as one loop sees it: its connections, the probe
 *   link.c       one connection: its pipeline, its end
 *   connect.c    how it is made: name, addresses, TLS, greeting
 *   wire.c       its bytes, plain and over TLS
 *   resp.c       hiredis: commands formatted, replies read
 *   cause.c      error replies to causes
 *   topology.c   Sentinel and Cluster: rounds of questions, routes
 *   sentinel.c   which server is the master
 *   cluster.c    which server has a slot; redirections
 *   sub.c        subscriptions
 *   figures.c    /stats and /metrics
 *
 * A side, its nodes, links, asks and subscriptions belong to one loop's thread. A server is the
 * process's: its counters and its breaker are atomics, the list stands under redis.mtx.
 */
#ifndef WEIR_REDIS_INSIDE_H
#define WEIR_REDIS_INSIDE_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "redis/redis.h"
#include "stats/stats.h"

#define MS_US            INT64_C(1000)
#define SECOND_US        INT64_C(1000000)
#define FORGET_US        (5 * SECOND_US)    /* the deadline of what nobody waits for */
#define BREAKER_FAILURES 5u                 /* in a row, that each alone would not open it */
#define BUSY_ASKS        8u                 /* on each connection: the pool grows */
#define ALONE_MAX        64u                /* connections of a loop to a server that block */
#define BACKOFF_FIRST_US (50 * MS_US)
#define BACKOFF_MOST_US  (5 * SECOND_US)
#define ADDRESSES_MAX    8u
#define HOST_MAX         255u

/* ---- bytes and replies (resp.c, cause.c) ------------------------------------------------- */

/* *bytes: malloc'd. -1: memory is out. */
int resp_format(const struct slice *argv, size_t argc, char **bytes, size_t *n);

struct resp;
struct resp *resp_new(size_t most);     /* bytes of a reply, its tree counted too */
void resp_free(struct resp **rp);
/* 0; -1: no RESP, too large, or memory is out: nothing more can be read. */
int resp_feed(struct resp *r, const void *bytes, size_t n);
/* 1 with *reply (reply_free), 0: more bytes are needed, -1 as resp_feed. */
int resp_next(struct resp *r, struct redis_reply **reply);
const char *resp_error(const struct resp *r);
void reply_free(struct redis_reply **rp);

/* Of an error reply: by its first word. REDIS_OK of all others. */
enum redis_cause cause_of(const struct redis_reply *r);

/* ---- a server, as the process sees it (server.c) ----------------------------------------- */

enum role { ROLE_SERVER, ROLE_MASTER, ROLE_SENTINEL };

struct server {
    TAILQ_ENTRY(server) at;             /* in redis.servers, under redis.mtx */
    unsigned         refs;              /* under redis.mtx: nodes */
    char             host[HOST_MAX + 1];
    uint16_t         port;
    char             address[HOST_MAX + 16];
    enum role        role;

    /* The breaker. */
    _Atomic enum redis_cause shut;      /* REDIS_OK: closed; else open, and why */
    _Atomic uint32_t epoch;             /* times it opened: connections of before are not used */
    _Atomic uint32_t failures;          /* in a row */
    _Atomic int64_t  shut_us;           /* when it opened */
    atomic_bool      probed;            /* a node has taken the probing on itself */
    atomic_bool      proven;            /* a command was answered since the last probe began */

    _Atomic uint64_t asked, failed[REDIS_CAUSES];
    _Atomic int64_t  said_us[REDIS_CAUSES];     /* when a command last failed so */
};

struct server *server_take(struct redis *r, const char *host, uint16_t port, enum role role);
void server_drop(struct redis *r, struct server **sp);
bool server_shut(const struct server *s);
/* Something went wrong that counts for `weight` of BREAKER_FAILURES. True: this opened it. */
bool server_failed(struct server *s, unsigned weight, enum redis_cause c, const char *why);
void server_well(struct server *s);     /* it answered */
void server_probed(struct server *s);   /* ... to a new connection: closes the breaker */
/* A probe failed, maybe for another cause than the last one. */
void server_still_shut(struct server *s, enum redis_cause c, const char *why);
/* An error reply: said when the last of its cause is a minute ago. */
void server_said(struct server *s, enum redis_cause c, struct slice text);

/* ---- the client -------------------------------------------------------------------------- */

struct link;
struct node;
TAILQ_HEAD(asks, redis_ask);
TAILQ_HEAD(links, link);
TAILQ_HEAD(nodes, node);
TAILQ_HEAD(subs, redis_sub);

struct topology {                       /* what a side knows of who is to be asked */
    struct asks         waiting;        /* for the first answer */
    struct redis_ask   *question;       /* borrowed; NULL: no round is under way */
    struct node        *round[16];      /* who is asked in turn; borrowed */
    unsigned            nround, next;
    struct event        again, sweep;
    bool                scheduled;      /* `again` is set */
    int64_t             round_us;       /* the last one began */
    int64_t             backoff_us;
    bool                known;
    bool                failing;        /* the last round had no answer */
    enum redis_cause    why;
    struct node        *master;         /* SENTINEL; borrowed */
    unsigned            good;           /* SENTINEL: the server that knew last */
    struct redis_sub   *switches;       /* SENTINEL; one of side.subs */
    struct cluster_map *map;            /* CLUSTERED; owned */
};

struct side {                           /* what one loop has */
    struct redis       *r;              /* borrowed */
    struct loop        *loop;           /* borrowed */
    struct evdns_base  *dns;            /* owned; made at first use */
    struct nodes        nodes;
    struct subs         subs;
    size_t              bytes;          /* of asks */
    uint64_t            connections;    /* that were ever begun */
    struct topology     topology;
};

struct redis {
    uint32_t            magic;
#define REDIS_MAGIC 0x4ed15000u
    struct redis_conf   conf;           /* its strings owned */
    SSL_CTX            *tls;            /* owned; NULL: none */
    pthread_mutex_t     mtx;
    TAILQ_HEAD(, server) servers;
    atomic_int          failing;        /* sides whose last round had no answer */
    atomic_bool         said_failing;
    char                said_master[HOST_MAX + 16];     /* under mtx */
    struct redis       *next;           /* among the process's, for the figures */
    size_t              nsides;
    struct side         sides[];
};

struct side *side_here(struct redis *r);        /* that of the calling thread */
void figures_add(struct redis *r);
void figures_remove(struct redis *r);
void figures_count(struct server *s, enum redis_cause c);       /* s may be NULL */
SSL_CTX *redis_tls_context(const struct redis_conf *c, struct err *e);

/* A doubling wait with jitter. */
int64_t backoff_next(int64_t *backoff_us);

/* ---- a command (ask.c) ------------------------------------------------------------------- */

enum ask_state { ASK_WAITING, ASK_SENT, ASK_OVER };

struct redis_ask {
    uint32_t        magic;
#define ASK_MAGIC 0x4ed15a5cu
    enum ask_state  state;
    TAILQ_ENTRY(redis_ask) at;          /* in link.waiting or link.sent, by state */
    struct side    *side;               /* borrowed */
    struct link    *link;               /* borrowed; NULL when over */
    struct event    timer;
    int64_t         until_us, sent_us;
    char           *bytes;              /* owned */
    size_t          n;
    bool            alone;
    bool            late;               /* its caller was told: the answer is thrown away */
    bool            asking, skip;       /* ASKING goes ahead of it; whose answer comes first */
    uint8_t         redirects;
    int             slot;               /* -1: any master */
    void          (*done)(void *arg, enum redis_cause cause, const struct redis_reply *r);
    void           *arg;
};

int ask_slot(const struct redis_command *c);    /* -1: any */
struct redis_ask *redis_ask_new(struct side *side, const struct redis_command *c);
/* Out of all lists; tells the caller and frees. s (may be NULL) counts it. */
void redis_ask_finish(struct redis_ask *a, struct server *s, enum redis_cause c,
    const struct redis_reply *reply);
void redis_ask_free(struct redis_ask *a);     /* without a word */
void ask_forget(struct redis_ask *a);   /* out of the list that it is in */

/* ---- a server, as one loop sees it (node.c) ---------------------------------------------- */

struct node {
    TAILQ_ENTRY(node) at;
    struct side    *side;               /* borrowed */
    struct server  *server;             /* one reference */
    struct links    links;
    unsigned        nlinks, nalone;     /* that block */
    struct event    again;              /* the next probe */
    int64_t         backoff_us;
    int64_t         full_until_us;      /* it takes no more connections than there are */
    bool            probing;            /* server.probed is ours */
    bool            used;               /* a master, as the topology has it */
    bool            seed;               /* the configuration names it */
};

struct node *node_get(struct side *side, const char *host, uint16_t port, enum role role);
void redis_node_free(struct node *n);
/* Hands the ask to a connection. false: memory is out. */
bool node_send(struct node *n, struct redis_ask *a);
void node_probe(struct node *n);        /* if its breaker is open and nobody does */
void node_link_ready(struct link *l);
/* A connection that could not be made: the one that takes over what it was to send, if the server
 * serves others. */
struct link *node_heir(struct node *n, const struct link *l, enum redis_cause c);
/* weight: of BREAKER_FAILURES; 0: nobody's fault. Called when l is in no list any more. */
void node_link_failed(struct node *n, struct link *l, unsigned weight, enum redis_cause c,
    const char *why);

/* ---- one connection (link.c, connect.c, wire.c) ------------------------------------------ */

enum link_state { LINK_RESOLVING, LINK_CONNECTING, LINK_SECURING, LINK_GREETING, LINK_READY,
    LINK_OVER };
enum greet { GREET_AUTH, GREET_NAME, GREET_SELECT, GREET_ROLE, GREET_PING, GREETS };

struct link {
    uint32_t        magic;
#define LINK_MAGIC 0x4ed15114u
    enum link_state state;
    TAILQ_ENTRY(link) at;
    uint64_t        number;             /* of its side's connections, from 1 */
    struct node    *node;               /* borrowed */
    struct redis_sub *sub;              /* borrowed; NULL: asks */
    bool            alone, probe;
    bool            retired;            /* no new asks: closed when the last is answered */
    bool            pinged;             /* a PING of ours is under way */
    bool            flushing;           /* `soon` will write */
    int             hold;               /* > 0: inside a callback */
    uint32_t        epoch;              /* of the server's breaker when it was made */

    int             fd;
    SSL            *ssl;                /* owned */
    struct event    rd, wr, soon, limit;
    bool            writing;            /* wr is added */
    struct evdns_getaddrinfo_request *dns;
    struct sockaddr_storage addresses[ADDRESSES_MAX];
    unsigned        naddresses, next;
    int64_t         until_us;           /* connecting and greeting */
    int             error;              /* of the last address */

    struct resp    *resp;               /* owned */
    struct buf      out;
    size_t          out_off;
    enum greet      greets[GREETS];
    unsigned        ngreets, greeted;
    int64_t         alive_us;           /* a byte last came, or one that had waited went */
    struct asks     waiting, sent;
    unsigned        nasks;
};

struct link *link_new(struct node *n, bool alone);
void link_send(struct link *l, struct redis_ask *a);    /* takes it */
void link_write(struct link *l, const void *bytes, size_t n);   /* soon */
void link_forget(struct link *l, struct redis_ask *a);  /* out of its list */
/* Closes it; its asks end with c. weight: for the breaker. May free l. */
void link_fail(struct link *l, enum redis_cause c, unsigned weight, const char *why);
void link_quit(struct link *l);         /* closes it; it has no asks. May free l. */
void link_abandon(struct link *l);      /* at the end: frees it and its asks, without a word */
void link_retire(struct link *l);       /* as soon as it has no asks */

/* For connect.c. */
void link_enter(struct link *l);
void link_leave(struct link *l);        /* may free it */
void link_limit(struct link *l, int64_t us);    /* on_limit will be called */
void link_assign(struct link *l, int fd);
void link_close_fd(struct link *l);
void link_ready(struct link *l);        /* the greeting is answered */

void connect_start(struct link *l);
void connect_next(struct link *l);      /* the address has failed */
void connect_made(struct link *l);      /* it is connected, or has failed */
void connect_secure(struct link *l);    /* on with the handshake */
void greet_answered(struct link *l, const struct redis_reply *r);

enum wire { WIRE_MORE = -1, WIRE_END = -2, WIRE_BROKEN = -3 };
ssize_t redis_wire_read(struct link *l, void *bytes, size_t n);       /* or an enum wire */
ssize_t redis_wire_write(struct link *l, const void *bytes, size_t n);
bool wire_secure(struct link *l);       /* makes l->ssl; false: memory is out */
enum wire wire_handshake(struct link *l, bool *done);
/* What OpenSSL says of the last failure, one line. */
void wire_why(struct link *l, char *text, size_t size);

/* ---- who is asked (topology.c, sentinel.c, cluster.c) ------------------------------------ */

void topology_init(struct side *side);
void topology_fini(struct side *side);
void topology_stale(struct side *side);         /* what is known may be wrong */
void topology_candidate(struct side *side, struct node *n);     /* of this round; NULL is fine */
/* Where a command goes; NULL with *c, which is REDIS_OK when it is about to be known. */
struct node *side_route(struct side *side, int slot, enum redis_cause *c);
void topology_wait(struct redis_ask *a);        /* until it is */

void sentinel_round(struct side *side);
enum redis_cause sentinel_answer(struct side *side, const struct redis_reply *r);
struct node *sentinel_any(struct side *side);

#define CLUSTER_SLOTS 16384
struct cluster_range { int first, last; uint16_t port; char host[HOST_MAX + 1]; };
int cluster_slot(struct slice key);             /* -1: no key */
struct node *cluster_node(struct side *side, int slot);
void cluster_round(struct side *side);
enum redis_cause cluster_answer(struct side *side, struct node *asked, const struct redis_reply *r);
void cluster_map_free(struct side *side);
bool cluster_range(const struct redis_reply *r, struct cluster_range *out);
bool cluster_redirection(struct slice text, struct cluster_range *out);
/* True: the error sent it elsewhere. */
bool cluster_redirect(struct redis_ask *a, struct node *from, const struct redis_reply *r);

/* ---- subscriptions (sub.c) --------------------------------------------------------------- */

struct redis_sub *sub_new(struct side *side, struct slice channel, bool sentinel,
    void (*message)(void *arg, struct slice payload), void (*lost)(void *arg), void *arg);
void sub_ready(struct redis_sub *s);    /* its link is */
void sub_reply(struct redis_sub *s, const struct redis_reply *r);
void sub_lost(struct redis_sub *s);     /* its link is gone */

#endif
