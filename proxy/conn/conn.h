/*
 * conn -- a client's connection: reading, framing, order, limits, timers.
 *
 * Model    One request at a time: the next head is parsed when the one before is answered, so
 *          pipelined requests are answered in order. Bytes are read into a buffer of the thread; a
 *          connection keeps a rest only when there is one. Back-pressure is not reading. A
 *          half-close is not leaving: what was asked for is still answered. All I/O on the socket
 *          is in io.c, so that TLS can stand there; HTTP/2 would be another framing above it with
 *          the same events.
 * Threads  a connection belongs to its worker's loop.
 */
#ifndef WEIR_CONN_H
#define WEIR_CONN_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/base.h"
#include "config/conf.h"
#include "http/http.h"

struct conn;
struct conn_worker;                 /* per loop: read buffer, timer wheel, all its connections */

struct conn_events {
    /* A head was read; h and bytes are valid during the call. The receiver answers now or later,
     * and says conn_done when the answer is complete (conn_has_body: whether a body follows). */
    void (*on_head)(struct conn *c, const struct http_head *h, struct slice bytes);
    /* What came is no request, or came too slowly, or is too large: answer it and say
     * conn_done(c, false). busy: a request was under way (its body is at fault): on_refused
     * replaces the rest of it. */
    void (*on_refused)(struct conn *c, const struct http_fault *f, bool busy);
    /* After conn_body(c, true); chunked coding is taken off. */
    void (*on_body)(struct conn *c, struct slice data);
    void (*on_body_end)(struct conn *c, struct slice trailer);
    void (*on_writable)(struct conn *c);        /* the socket takes more, nothing is queued */
    void (*on_gone)(struct conn *c);            /* while busy: the client left; c is done with */
};

struct conn_worker *conn_worker_new(struct loop *l, const struct conn_events *ev);
void conn_worker_free(struct conn_worker **wp);             /* closes what is left */
/* Draining: idle connections close now, busy ones after their answer. True when none is left. */
bool conn_worker_drain(struct conn_worker *w);
/* Waiting is over: everything is closed, busy or not. */
void conn_worker_cut(struct conn_worker *w);
size_t conn_worker_count(const struct conn_worker *w);

/* What is done with a request that comes: it is taken, or it waits in its connection, unread, where
 * it is unsafe, or whatever it is. Those that are under way go on. */
enum conn_hold { CONN_TAKES, CONN_HOLDS_WRITES, CONN_HOLDS };
void conn_worker_hold(struct conn_worker *w, enum conn_hold what);

/* A connection between two requests, for another process to go on with. */
#define CONN_REST_MAX (64 * 1024)
struct conn_place {
    int         fd;
    bool        began;                  /* its PROXY header, where one must come, was read */
    unsigned    listener;
    uint64_t    requests;               /* that it has had */
    struct sockaddr_storage peer, asker;
    struct slice rest;                  /* read, not yet taken; CONN_REST_MAX at most */
};
/* Gives away all that are between two requests. give: 0: it has it, the descriptor is closed here;
 * 1: not now; -1: it cannot have it. True when no connection is left, of any kind. */
bool conn_worker_give(struct conn_worker *w, int (*give)(void *arg, const struct conn_place *p),
    void *arg);
/* As conn_new. */
int  conn_take(struct conn_worker *w, const struct conn_place *p, struct conf *conf,
    atomic_uint *slot);

/* Takes fd. conf: a reference is taken; listener: index in it. slot, the listener's count of
 * connections, is decremented when the connection ends. -1: memory out (fd is closed, slot
 * decremented). */
int conn_new(struct conn_worker *w, int fd, const struct sockaddr *sa, socklen_t len,
    struct conf *conf, unsigned listener, atomic_uint *slot);

/* The same for one connection too many: it is told 503 with Retry-After and closed. */
int conn_reject(struct conn_worker *w, int fd, const struct sockaddr *sa, socklen_t len,
    struct conf *conf, unsigned listener, atomic_uint *slot);

/* Says that to a client for whom there is no descriptor but for this moment, and closes fd. */
void conn_turn_away(struct conn_worker *w, int fd);

/* ---- for the one who answers ------------------------------------------------------------- */

struct loop *conn_loop(const struct conn *c);
const struct conf_listener *conn_listener(const struct conn *c);
const char *conn_purge_token(const struct conn *c);         /* of its listener; NULL without */
/* During on_refused: what was read of the head that is refused; may be nothing. */
struct slice conn_refused(const struct conn *c);
bool  conn_https(const struct conn *c);
/* Is the peer in this list of networks? */
bool  conn_peer_in(const struct conn *c, const struct conf_networks *n);
/* Is the client, by the PROXY protocol where it came through that? */
bool  conn_client_in(const struct conn *c, const struct conf_networks *n);
/* Of an address in X-Forwarded-For: the same, and *member without brackets and port. False: it is
 * no address. */
bool  conn_forwarded_in(struct slice *member, const struct conf_networks *n, bool *in);
/* The client's address as text, "192.0.2.1" or "2001:db8::1" (by the PROXY protocol when it came
 * through it). */
struct slice conn_client(const struct conn *c);
int64_t conn_since_us(const struct conn *c);    /* when the first byte of this request was read */
void **conn_user(struct conn *c);               /* the answerer's own; NULL when a head comes */

/* Writes; what the socket does not take is copied and sent later. false: the client is gone
 * (on_gone was or will be called; do nothing more). */
bool conn_write(struct conn *c, const struct iovec *iov, size_t n);
/* Writes what the socket takes now and returns that. 0: it takes nothing, on_writable comes; -1:
 * gone. */
ssize_t conn_write_some(struct conn *c, const struct iovec *iov, size_t n);
size_t conn_queued(const struct conn *c);                   /* copied and not yet sent */
/* Calls on_writable when nothing is queued, from the loop. */
void conn_want_write(struct conn *c);

bool conn_has_body(const struct conn *c);                   /* a body not yet read to its end */
void conn_body(struct conn *c, bool on);                    /* let on_body come, or hold it back */
void conn_continue(struct conn *c);             /* 100 Continue, if the client waits for it */
/* After 101: from here on on_body gives raw bytes; on_body_end comes behind the client's last. */
void conn_tunnel(struct conn *c);
/* Nothing more will be written into the tunnel: the client is told so behind what is queued. */
void conn_finish(struct conn *c);
bool conn_may_keep(const struct conn *c);                   /* not draining, requests left on it */
/* The answer is complete (queued bytes aside). keep: the connection may serve another request. */
void conn_done(struct conn *c, bool keep);
/* Ends it at once, half-sent answer or not (a truncated response must be seen as such). on_gone
 * does not come. */
void conn_abort(struct conn *c);

/* ---- private to this room but for tests -------------------------------------------------- */

/* PROXY protocol (version 1 and 2, by HAProxy's proxy-protocol.txt): the length of the header at
 * p, 0: more is needed, -1: none. *len 0: LOCAL, the peer speaks for itself. AF_UNSPEC: somebody
 * whom the peer does not name (UNKNOWN, or no TCP). */
ssize_t conn_proxy_header(const char *p, size_t n, struct sockaddr_storage *sa, socklen_t *len);

#endif
