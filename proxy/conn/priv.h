/* Private to conn/. */
#ifndef WEIR_CONN_PRIV_H
#define WEIR_CONN_PRIV_H

#include "conn/conn.h"

#define READ_BUFFER CONN_REST_MAX
#define WHEEL_SLOTS 1024            /* of WHEEL_US: a minute; longer deadlines go round again */
#define WHEEL_US    50000

enum conn_state {
    CONN_PROXY,                         /* a PROXY header must come first */
    CONN_HEAD,                          /* between requests, or in the middle of a head */
    CONN_BUSY,                          /* a request is being answered */
    CONN_TUNNEL,
    CONN_FLUSH,                         /* the last answer is being sent */
    CONN_LINGER,                        /* said all; reads until the client closes (9112 9.6) */
};

/* What the client is to do next; each has its time-out. */
enum conn_wait { WAIT_NONE, WAIT_IDLE, WAIT_HEAD, WAIT_BODY, WAIT_SEND, WAIT_TUNNEL, WAIT_LINGER };

struct conn {
    uint32_t        magic;
#define CONN_MAGIC 0xc0110c70u
    int             fd;
    uint8_t         state;              /* enum conn_state */
    uint8_t         wait;               /* enum conn_wait: what the deadline is about */
    bool            half_closed;        /* the client has said all it will */
    bool            reading, writing;   /* events that are set */
    bool            want_writable;      /* the answerer wants on_writable */
    bool            finishing, finished;        /* a tunnel's last byte is to leave; has left */
    bool            body_on, body_done, expect;
    bool            keep_asked;         /* HTTP says that the connection may stay */
    bool            broken;             /* a write failed; on_readable ends it */
    bool            dead;               /* freed when the outermost call returns */
    bool            kicked;
    unsigned        depth;              /* calls of ours on the stack */
    struct conn_worker *worker;         /* borrowed */
    struct event   *read_ev, *write_ev; /* owned */
    struct loop_msg kick;               /* goes on with what is at hand, from the loop */
    void           *user;
    struct buf      in;                 /* the rest: bytes read and not yet taken */
    size_t          in_at;
    struct buf      out;                /* copied and not yet sent */
    size_t          out_at;
    enum http_framing framing;          /* of the request's body */
    uint64_t        body_left, body_seen;
    struct http_chunked chunked;
    uint64_t        requests;
    int64_t         since_us;           /* when this request's first byte was read; 0: not yet */
    int64_t         deadline_us;        /* 0: none */
    unsigned        slot;               /* in the wheel, plus one; 0: not in it */
    struct conn    *wheel_next, **wheel_prev;
    struct conn    *next, **prev;       /* all of the worker's */
    struct conf    *conf;               /* a reference */
    unsigned        listener;
    atomic_uint    *count;              /* borrowed */
    struct sockaddr_storage peer;       /* who connected: trust is about it */
    struct sockaddr_storage asker;      /* who asks: what is allowed is about it */
    char            client[INET6_ADDRSTRLEN];       /* who asks: by PROXY protocol, else the peer */
    uint8_t         client_n;
};

struct conn_worker {
    uint32_t        magic;
#define CONN_WORKER_MAGIC 0xc0110c71u
    struct loop    *loop;               /* borrowed */
    const struct conn_events *ev;
    struct conn    *conns;
    size_t          count;
    bool            draining;
    uint8_t         hold;               /* enum conn_hold */
    int64_t         now_us;             /* when the bytes at hand were read */
    struct timer    tick;
    int64_t         wheel_us;           /* time of the slot that the wheel stands at */
    unsigned        wheel_at;
    struct conn    *wheel[WHEEL_SLOTS];
    struct http_head head;              /* of the request that is being taken */
    struct slice    refused;            /* a head that is being refused: its bytes so far */
    struct http_field fields[HTTP_FIELDS_MAX];
    char            buffer[READ_BUFFER];
};

/* io.c: the only system calls on a client's socket. */
ssize_t io_read(struct conn *c, char *p, size_t n);     /* 0: end, -1: gone, -2: nothing now */
ssize_t io_write(struct conn *c, const struct iovec *iov, size_t n);    /* bytes, -1: gone */

/* wheel.c */
int  wheel_start(struct conn_worker *w);
void wheel_stop(struct conn_worker *w);
void wheel_set(struct conn *c, int64_t now, int64_t after_us);          /* 0: none */
void wheel_remove(struct conn *c);

/* conn.c */
static inline size_t
conn_rest(const struct conn *c)
{
    return c->in.n - c->in_at;
}
void conn_kill(struct conn *c);         /* closes it; freed when nothing needs it */
void conn_kick(struct conn *c);         /* goes on from the loop with what is at hand */
void conn_reset_at_close(struct conn *c);       /* so that its client knows the answer was cut */
void conn_release(struct conn *c);      /* frees it when it is dead and nothing needs it */
void conn_gone(struct conn *c);         /* the client is: tells the answerer, closes */
void conn_goodbye(struct conn *c);      /* all was said: lingers, then closes */
void conn_expired(struct conn *c);      /* its deadline has passed */
void conn_rearm(struct conn *c, int64_t now);           /* the deadline for what is awaited now */
void conn_progress(struct conn *c);     /* what was awaited has come, or a part of it */
void conn_set_reading(struct conn *c, bool on);
void conn_set_writing(struct conn *c, bool on);

/* read.c */
void conn_consume(struct conn *c);      /* goes on with the rest */
void conn_on_readable(int fd, short what, void *arg);
void conn_refuse(struct conn *c, unsigned status, const char *why);     /* ... or its body */
void conn_refuse_head(struct conn *c, struct slice bytes, unsigned status, const char *why);
/* A peer that must speak the PROXY protocol does not: closed. */
void conn_refuse_peer(struct conn *c, const char *what);

/* write.c */
void conn_on_writable(int fd, short what, void *arg);

/* peer.c */
void peer_name(struct conn *c);         /* c->client, from c->peer */
void peer_asks(struct conn *c, const struct sockaddr_storage *sa);     /* c->asker, by its word */

#endif
