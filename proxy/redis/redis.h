/*
 * redis -- one client for tier, bus, journal and plugins: one server, Sentinel or Cluster.
 *
 * Model    hiredis formats commands and reads replies; sockets, TLS, time-outs and topology are
 *          ours. Each loop has its own connections to each server, on which commands are pipelined;
 *          nothing is handed between threads. A command's deadline covers the look-up of the name,
 *          the connection, TLS, AUTH and the answer. A server that cannot be reached, hangs or
 *          fails again and again is not asked (breaker) until a probe, tried with backoff and
 *          jitter, has found it well. What goes wrong has a cause, is counted by it
 *          (weir_redis_failures_total), and is logged once a state, never once a command.
 *          A command is sent at most once, but for the redirections of a cluster, which did not
 *          execute it: whether to try again is the caller's to say.
 * Order    with `pool` 1, commands of a loop to a server are executed in the order of redis_send
 *          while nothing fails; with more connections, and in a cluster that moves slots, not.
 * Threads  redis_new, redis_free: main, while no loop runs. redis_send, redis_subscribe and what
 *          they return: the thread of one of the loops given to redis_new. `done` comes there,
 *          exactly once, never from inside redis_send, at the latest at the deadline.
 *          redis_usable, redis_figures: any.
 */
#ifndef WEIR_REDIS_H
#define WEIR_REDIS_H

#include "base/base.h"

/* Why there is no reply, or no useful one. */
enum redis_cause {
    REDIS_OK,
    REDIS_REFUSED,          /* no connection: refused, unreachable, name unknown, TLS failed */
    REDIS_TIMEOUT,          /* the deadline came: hung, slow */
    REDIS_CLOSED,           /* the connection ended before the whole answer */
    REDIS_PROTOCOL,         /* what came is no RESP, or larger than reply_max */
    REDIS_AUTH,             /* NOAUTH, WRONGPASS, NOPERM */
    REDIS_TYPE,             /* WRONGTYPE */
    REDIS_OOM,
    REDIS_READONLY,
    REDIS_LOADING,
    REDIS_CLUSTER,          /* CLUSTERDOWN, TRYAGAIN, CROSSSLOT, a slot that no one serves,
                             * MOVED or ASK too often */
    REDIS_OTHER,            /* any other error reply */
    REDIS_OPEN,             /* the breaker is open, or no master is known: not asked */
    REDIS_FULL,             /* too much is under way, or memory is out: not asked */
    REDIS_CAUSES
};
const char *redis_cause_name(enum redis_cause c);       /* "refused": for counters and logs */

/* A reply, valid until done returns. RESP2. */
struct redis_reply {
    enum {
        REPLY_NIL, REPLY_STRING, REPLY_STATUS, REPLY_ERROR, REPLY_INTEGER, REPLY_ARRAY
    } type;
    struct slice text;                  /* STRING, STATUS, ERROR; NUL behind it */
    int64_t integer;                    /* INTEGER */
    struct redis_reply **at;            /* ARRAY */
    size_t n;
    uint64_t connection;                /* that it came on, of this loop's: for redis_command */
};

enum redis_kind { REDIS_SINGLE, REDIS_SENTINEL, REDIS_CLUSTERED };
struct redis_server { const char *host; uint16_t port; };       /* IPv6 without brackets */

/* What is 0 or NULL has the default in parentheses. */
struct redis_conf {
    enum redis_kind kind;
    const struct redis_server *servers; /* SINGLE: one; else sentinels, or some of the cluster */
    size_t      nservers;
    const char *master;                 /* SENTINEL: its name there */
    unsigned    db;                     /* not with CLUSTERED */
    const char *username, *password;    /* (none); a password alone is the default user's */
    const char *sentinel_username, *sentinel_password;  /* (none) */
    bool        tls, verify;            /* of sentinels too */
    const char *ca_file;                /* PEM (the system's) */
    const char *cert_file, *key_file;   /* the client's certificate, PEM (none) */
    const char *server_name;            /* to find in the certificate (the server's host) */
    int64_t     connect_ms;             /* name, connection, TLS, AUTH; topology (500) */
    int64_t     idle_ms;                /* quiet for so long: a PING asks who is there (10,000) */
    unsigned    pool;                   /* connections of a loop to a server (1) */
    size_t      queue;                  /* most bytes of commands under way, of a loop (16 MiB) */
    size_t      reply_max;              /* a larger reply closes the connection (68 MiB) */
};

/* redis[s]://HOST[:PORT][/DB]. The host lives in p. -1: *e says what is wrong with it, to stand
 * behind the URL. */
struct redis_url { struct redis_server server; unsigned db; bool tls; };
int redis_url_read(struct slice s, struct pool *p, struct redis_url *out, struct err *e);
/* What `cache.redis` or `journal.redis` says, whose `pool` and time are the caller's; its strings
 * live in p and c. 1; 0: none is configured; -1 with *e. */
struct conf_redis;
int redis_conf_of(const struct conf_redis *c, struct pool *p, struct redis_conf *out,
    struct err *e);

struct redis;
/* Copies conf. Connects when first asked. NULL with *e when the files of TLS cannot be used. */
struct redis *redis_new(const struct redis_conf *conf, struct loop **loops, size_t nloops,
    struct err *e);
/* What waits is dropped without a word. Takes yours, leaves NULL; NULL is fine. Before the loops
 * are freed. */
void redis_free(struct redis **rp);

struct redis_command {
    const struct slice *argv;           /* copied */
    size_t       argc;
    struct slice key;                   /* what decides the slot; empty: any master, or */
    unsigned     slot;                  /* ... that of this one: its number and one more */
    uint64_t     connection;            /* on that one alone (WAIT); 0: on any. REDIS_CLOSED where
                                         * it is gone, or Sentinel names another master */
    int64_t      within_us;             /* from now; 0: nobody waits: 5 s */
    bool         alone;                 /* it blocks (XREAD BLOCK): a connection for itself, and a
                                         * deadline behind what it blocks for */
    /* r: NULL unless cause is REDIS_OK or that of an error reply, whose text it then has.
     * NULL: nobody wants to know. */
    void       (*done)(void *arg, enum redis_cause cause, const struct redis_reply *r);
    void        *arg;
};
struct redis_ask;
/* NULL: nothing was sent and done is not called; *cause (may be NULL) says why: OPEN, FULL,
 * CLUSTER, CLOSED. Else it is valid until done is called; without a done, only that it is not NULL
 * says something. */
struct redis_ask *redis_send(struct redis *r, const struct redis_command *c,
    enum redis_cause *cause);
/* done will not come; whether the command is executed is not known. Takes yours, leaves NULL; NULL
 * is fine. */
void redis_cancel(struct redis_ask **ap);

/* Subscribes this loop to a channel, on a connection of its own, over and over until unsubscribed:
 * message(arg, payload) for each; lost(arg) (may be NULL) after each gap, when it is subscribed
 * again: what was published meanwhile is not known. The first time nothing is said. Both may
 * unsubscribe. NULL: memory is out. */
struct redis_sub;
struct redis_sub *redis_subscribe(struct redis *r, struct slice channel,
    void (*message)(void *arg, struct slice payload), void (*lost)(void *arg), void *arg);
void redis_unsubscribe(struct redis_sub **sp);          /* leaves NULL; NULL is fine */

/* Slots that keys are spread over: of a cluster 16384, else 1. */
unsigned redis_slots(const struct redis *r);

/* For /stats: each server that is known, once. state: "ok", or the cause for which it is not asked.
 * Commands that found no server (OPEN, FULL) are no server's. each must not call back. */
struct redis_server_figures {
    const char *address, *role, *state;         /* role: "server", "master", "sentinel" */
    uint64_t    asked, failed[REDIS_CAUSES];
};
void redis_figures(struct redis *r,
    void (*each)(void *arg, const struct redis_server_figures *f), void *arg);
/* Is there a master that may be asked? True until the contrary is found out. */
bool redis_usable(struct redis *r);

#endif
