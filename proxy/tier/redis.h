/*
 * What the Redis tier's own files share.
 *
 *   redis.c        making and ending; what the store tells, and what is on its way out
 *   redis_value.c  names of keys, markers, how long a value is kept: pure functions
 *   redis_get.c    asks, and reads, each for all who ask for the same
 *   redis_put.c    values on their way there
 *   redis_lease.c  one fetch in the fleet
 *   redis_erase.c  the bytes of what was purged
 *
 * A side, its reads and puts belong to one loop's thread.
 */
#ifndef WEIR_TIER_REDIS_H
#define WEIR_TIER_REDIS_H

#include <pthread.h>

#include "redis/redis.h"
#include "tier/value.h"

/* ---- names and forms (redis_value.c) -------------------------------------------------------- */

/* "{HASH}" of a key, or "{HASH}:HASH" of a variant of it: what names of values and leases end in.
 * In braces: a cluster keeps all of one key together. */
#define RTIER_ID_MAX 70
struct rtier_id { char text[RTIER_ID_MAX]; size_t n; };
void rtier_id_of(struct slice key, struct rtier_id *id);
void rtier_id_of_variant(const struct rtier_id *of, struct slice vary, struct slice variant,
    struct rtier_id *id);
static inline bool
rtier_id_eq(const struct rtier_id *a, struct slice b)
{
    return slice_eq((struct slice){ a->text, a->n }, b);
}

#define RTIER_PREFIX_MAX 64
#define RTIER_NAME_MAX   (RTIER_PREFIX_MAX + 2 + RTIER_ID_MAX)
struct rtier_name { char text[RTIER_NAME_MAX]; size_t n; };
enum { RTIER_VALUE = 'o', RTIER_LEASE = 'l' };
struct slice rtier_name(struct slice prefix, char kind, const struct rtier_id *id,
    struct rtier_name *out);

/* What stands in a response's place where there are variants of it: by what they vary. */
bool rtier_marker_put(struct slice key, struct slice vary, struct buf *b);
/* UNKNOWN: it is no marker of this version. */
enum value_verdict rtier_marker_read(struct slice in, struct slice *key, struct slice *vary);

/* Milliseconds for which it may be of use: fresh, or served stale by its own leave. */
int64_t rtier_left_ms(const struct sem_meta *m, int64_t now_ms);
/* For how long to keep it; 0: it is not worth it. */
int64_t rtier_keep_ms(const struct sem_meta *m, int64_t now_ms, int64_t min_ms, int64_t max_ms);

/* ---- the tier ------------------------------------------------------------------------------- */

struct read;
struct put;
struct later;
struct rtier_erase;

/* A value that is to go: it is asked for until Redis has answered. */
struct drop {
    struct drop *next, **at;            /* of its list */
    struct rtier_side *side;
    struct rtier_cell *cell;
    struct rtier_id    id;
};

struct rtier_side {                     /* what one loop has */
    struct rtier   *tier;               /* borrowed */
    struct loop    *loop;               /* borrowed */
    struct read    *reads[64];          /* owned; by the hash of their keys */
    _Atomic size_t  put_bytes;          /* of values on their way */
    size_t          large_bytes;        /* ... of which one that is not within their bound */
    struct put     *puts;               /* owned: those */
    struct later   *laters, **laters_end;       /* owned: puts that wait for their position */
    struct timer    later;
    struct drop    *deleting;           /* owned: those that were asked for */
    struct drop    *owed;               /* owned: ... in vain, so they are again */
    size_t          nowed;
    struct timer    again;
    atomic_uint     waiting;            /* reads that want to hear of a lease's end */

    pthread_mutex_t mtx;                /* guards the next two */
    struct drop    *drops;              /* owned */
    bool            drops_posted;
    struct loop_msg drops_msg;
};

/* Of the keys whose hashes fall here: how often a value of one was to go, and for how many of those
 * Redis has answered. Between the two, and for as long as it would be kept where that is given up,
 * a value from there is not used: unlike a purge, nothing in memory would refuse it. */
#define RTIER_CELLS 16384
struct rtier_cell {                     /* under the tier's mtx */
    struct rtier *tier;
    uint32_t      told, done;
    int64_t       until_us;
};

struct rtier {
    uint32_t        magic;
#define RTIER_MAGIC 0x71e24ed1u
    struct store   *store;              /* borrowed */
    struct redis   *redis;              /* borrowed */
    struct disk    *disk;               /* borrowed: gets what is promoted; NULL: none */
    char            prefix_text[RTIER_PREFIX_MAX];
    struct slice    prefix;
    int64_t         min_ms, max_ms, timeout_us, max_object;
    struct loop_msg begin;              /* on the first loop: subscribes */
    struct redis_sub *sub;
    pthread_mutex_t mtx;                /* guards the next three */
    struct tier_lease *leases;          /* that are held here */
    struct rtier_erase *erases;         /* owned: not yet answered */
    struct rtier_cell cells[RTIER_CELLS];
    size_t          nsides;
    struct rtier_side sides[];
};

struct rtier *rtier_open(const struct tier_options *o, struct store *s, struct disk *disk,
    struct err *e);
void rtier_close(struct rtier **rp);
void rtier_figures(struct rtier *r, struct tier_figures *f);
struct rtier_side *rtier_side_of(struct rtier *r, const struct loop *l);      /* NULL: none */
/* What is under this key is to go: rtier_delete is called with the cell, or rtier_told. Any thread;
 * under a lock of the store before memory may be without it. */
struct rtier_cell *rtier_tell(struct rtier *r, uint64_t key);
void rtier_told(struct rtier_cell *c, bool deleted);
/* false: something of this key is on its way out. *told: to be compared when it is in memory. */
bool rtier_settled(struct rtier *r, uint64_t key, uint32_t *told);
/* NULL: not sent. */
struct redis_ask *rtier_send(struct rtier *r, const struct slice *argv, size_t argc,
    struct slice key, int64_t within_us,
    void (*done)(void *arg, enum redis_cause, const struct redis_reply *), void *arg);

/* ---- asks (redis_get.c) --------------------------------------------------------------------- */

struct rtier_ask {                      /* part of a tier_ask */
    struct rtier_ask *next;             /* of its read */
    struct read      *read;             /* NULL: it waits for none */
    const struct key *key;
    const struct http_head *request;
    bool              lease, promoted;
    int64_t           until_us;
    bool            (*serves)(void *arg, const struct sem_meta *m, bool soft);
    void             *arg;
    void            (*done)(struct rtier_ask *a, const struct tier_result *r);
};
/* On l's thread; a: key, request, lease, serves, arg and done are set. WAIT: done comes; else the
 * answer. */
enum tier_answer rtier_get(struct rtier *r, struct loop *l, struct rtier_ask *a);
void rtier_cancel(struct rtier_ask *a);
void rtier_side_end(struct rtier_side *side);   /* frees reads; nobody is told */

/* ---- the other way (redis_put.c) ------------------------------------------------------------ */

void rtier_put(struct rtier *r, struct object *o);
void rtier_puts_end(struct rtier_side *side);   /* frees them; nothing is sent */
void rtier_on_later(void *side);
/* Takes d, of which side, id and cell are set. On the side's loop. */
void rtier_delete(struct drop *d);
void rtier_on_again(void *side);
void rtier_deletes_end(struct rtier_side *side);        /* frees them */

/* ---- leases (redis_lease.c) ----------------------------------------------------------------- */

#define RTIER_TOKEN 32
struct rtier_token { char text[RTIER_TOKEN]; };
#define RTIER_SEEN 16                   /* of a value: its magic and its checksum */
/* Asks for a lease, where the value begins with `seen`, as it was read: "" where there was none.
 * done's reply: 0 it is ours, with this token; -1: there is another value now; else for how many ms
 * more it is another's. NULL: not asked. */
struct redis_ask *rtier_lease_ask(struct rtier *r, const struct rtier_id *id, struct slice seen,
    struct rtier_token *token,
    void (*done)(void *arg, enum redis_cause, const struct redis_reply *), void *arg);
#define RTIER_LEASE_MS INT64_C(2000)
/* It is ours. NULL: memory is out; then it ends by itself. */
struct tier_lease *rtier_lease_new(struct rtier *r, const struct rtier_id *id,
    const struct rtier_token *token);
bool rtier_lease_held(struct rtier *r, const struct rtier_id *id);      /* by this process */
/* Its fetch brought something that is being put: whoever holds it no longer ends it. */
bool rtier_lease_take(struct rtier *r, const struct rtier_id *id, struct rtier_token *token);
/* Ends it, and tells all who wait for it. */
void rtier_lease_end(struct rtier *r, const struct rtier_id *id, const struct rtier_token *token,
    bool stored);
void rtier_listen(struct rtier *r);     /* on the first loop */
void rtier_heard(struct rtier_side *side, struct slice id, bool stored);        /* redis_get.c */
void rtier_heard_nothing(struct rtier_side *side);      /* something may have been missed */

/* ---- erasing (redis_erase.c) ---------------------------------------------------------------- */

int  rtier_erase(struct rtier *r, struct loop *l, void (*done)(void *arg, bool ok), void *arg);
void rtier_erases_end(struct rtier *r);

#endif
