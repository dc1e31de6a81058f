/*
 * upstream -- connections to origins: pool, balance, health, retries, TLS, names; and an exchange:
 * one request sent and one response received.
 *
 * Model    an origin is a list of servers. A server's idle connections are kept by worker; what
 *          is counted against its limits (connections, waiting, retry budget, failures) is counted
 *          for the process, and a connection given back or closed on one worker wakes whoever
 *          waits longest on any. Servers with the same URL and TLS settings are one over reloads.
 *          Responses meet the parser of http/ and nothing else.
 * Threads  an exchange lives on the loop that started it: call its functions there, its callbacks
 *          come there, never from inside exchange_start. Everything else: any thread.
 */
#ifndef WEIR_UPSTREAM_H
#define WEIR_UPSTREAM_H

#include "base/base.h"
#include "config/conf.h"
#include "http/http.h"

struct upstream;
struct origin;
struct exchange;

/* The workers' loops; their threads need not run yet. dns: addresses of name servers, none: those
 * of /etc/resolv.conf. */
struct upstream *upstream_new(struct loop *const *loops, size_t n, const struct conf_strings *dns,
    struct err *e);
/* After all loops have stopped. */
void upstream_free(struct upstream **up);

/* One reference. Starts what keeps pool.min warm. -1/NULL with *e: memory out, bad CA file. */
struct origin *origin_open(struct upstream *u, const struct conf_origin *c, struct err *e);
struct origin *origin_ref(struct origin *o);
/* With the last one idle connections close, busy ones when they are done. */
void origin_unref(struct origin **op);

struct exchange_request {           /* borrowed for the call of exchange_start only */
    enum http_method method;
    struct slice method_name;
    struct slice target;            /* origin-form, or "*" */
    struct slice host;              /* the Host to send where the origin's configuration has none */
    struct slice fields;            /* whole lines "Name: value\r\n": not Host, Connection, Upgrade,
                                       Content-Length, Transfer-Encoding, Expect: they are ours */
    enum http_framing body;         /* HTTP_NO_BODY, HTTP_LENGTH (length bytes) or HTTP_CHUNKED */
    uint64_t length;
    struct slice upgrade;           /* protocol(s) for Upgrade; .n == 0: none */
    bool expect;                    /* Expect: 100-continue; the body waits until told or 1 s */
    bool once;                      /* it costs much not to know its fate: no connection that has
                                       stood idle for more than a moment */
    int64_t first_byte_ms, between_bytes_ms;        /* CONF_UNSET: the origin's */
};

struct exchange_fault {
    unsigned status;                /* what a client gets: 502, 503 or 504 */
    const char *cause;              /* RFC 9209 2.3 error type: "connection_refused", "dns_error",
                                       "connection_read_timeout", "http_response_incomplete", ... */
    const char *detail;             /* for the log and problem+json; no address of the origin's */
    bool reached;                   /* the origin may have acted on the request */
    bool mid_body;                  /* on_head was called before */
    unsigned retry_after_s;         /* for 503 */
};

/* Exactly one of on_end and on_fault comes last, then nothing more. Slices are valid during the
 * call. The receiver may call exchange_cancel from inside any of them. The exchange itself lives
 * until exchange_cancel, after on_end and on_fault too: whoever started it always ends it so. */
struct exchange_events {
    void (*on_interim)(void *arg, const struct http_head *h);   /* 1xx but 100 and 101 */
    void (*on_continue)(void *arg);                     /* 100 or its time-out: send the body */
    void (*on_head)(void *arg, const struct http_head *h);  /* final, framing decided; or 101 */
    void (*on_data)(void *arg, struct slice data);      /* of the body, without its coding */
    void (*on_drain)(void *arg);                        /* exchange_full became false */
    void (*on_end)(void *arg, struct slice trailer);    /* lines of the trailer section */
    void (*on_fault)(void *arg, const struct exchange_fault *f);
    /* The origin has said all it will in a tunnel, and still takes bytes: on_end comes when those
     * have ended too. NULL: its end is the tunnel's. */
    void (*on_half_close)(void *arg);
};

/* NULL when memory is out. The request's head goes out as soon as there is a connection. While no
 * more than 64 KiB of its body were sent (they are kept), an idempotent request is retried on
 * another connection (another server first) when it failed before a response began; one whose
 * pooled connection turned out closed before anything was received is sent once more on a new
 * connection, whatever the retry budget (RFC 9112 9.3.1). */
struct exchange *exchange_start(struct origin *o, struct loop *l, const struct exchange_request *r,
    const struct exchange_events *ev, void *arg);
/* Body bytes in order; copied. Framing is done here. After a 101 these are the tunnel's bytes. */
void exchange_send(struct exchange *x, struct slice data);
void exchange_send_end(struct exchange *x, struct slice trailer);   /* its lines: chunked only */
bool exchange_full(const struct exchange *x);       /* over 64 KiB not yet taken by the origin */
void exchange_pause(struct exchange *x, bool on);   /* stop reading the response (back-pressure) */
/* Frees it, complete or not: no callback any more, the connection is closed unless the response was
 * complete. NULL is fine; leaves NULL. */
void exchange_cancel(struct exchange **xp);
/* The server in use or last tried, "http://127.0.0.1:8000", for logs; times since start, -1 not
 * yet. */
const char *exchange_server(const struct exchange *x);
struct exchange_times {
    int64_t wait_us, connect_us, first_byte_us;
    bool reused, reached;               /* reached: a byte of it was sent, by whatever try */
    unsigned tries;
};
void exchange_times(const struct exchange *x, struct exchange_times *t);

/* How full is the origin, for /readyz and the figures: appended as JSON; also registered with
 * stats. */
void upstream_json(struct upstream *u, struct buf *b);

#endif
