/*
 * purge/bus.h -- private to the bus: what its files share.
 *
 *   bus.c         the thread, figures; own purges in, entries of the stream out of it
 *   bus_entry.c   a purge as an entry of the stream, and back
 *   bus_queue.c   own purges on their way into the stream
 *   bus_lease.c   rounds: the lease, where the stream stands, whether it is still the same one
 *   bus_ask.c     who has applied a purge
 *   bus_erase.c   what another instance erases goes from the tiers of this one
 *   bus_saved.c   the position, and purges that wait, beside what is on disk
 */
#ifndef WEIR_PURGE_BUS_H
#define WEIR_PURGE_BUS_H

#include <pthread.h>
#include <sys/queue.h>

#include "purge/purge.h"
#include "redis/redis.h"
#include "stats/stats.h"

#define MS_US     INT64_C(1000)
#define SECOND_US INT64_C(1000000)
#define BUS_WAIT_US (2 * SECOND_US)     /* for an answer of Redis, where nobody else does */

/* ---- a purge as an entry (bus_entry.c) ------------------------------------------------------- */

struct bus_entry {
    struct slice       from;            /* the instance */
    uint64_t           seq;             /* ... its number there */
    struct store_purge purge;
};

#define BUS_ENTRY_FIELDS 16             /* names and values */
#define BUS_ID_MAX       43             /* "18446744073709551615-18446744073709551615" and NUL */
struct bus_words { char seq[24], route[20]; };
/* Appends the names and values of e to argv (borrowed from e and w); how many. */
size_t bus_entry_put(const struct bus_entry *e, struct bus_words *w, struct slice *argv);
/* -1: it is of a form that is not known here. */
int bus_entry_read(const struct redis_reply *fields, struct bus_entry *out);
/* "5-1". -1: it is no id of an entry. */
int bus_id_read(struct slice s, struct store_position *out);
struct slice bus_id_put(struct store_position at, char text[BUS_ID_MAX]);

/* ---- own purges on their way (bus_queue.c) --------------------------------------------------- */

enum own_state {
    OWN_WAITING,                        /* to be sent */
    OWN_SENT,                           /* no answer yet */
    OWN_ADDED,                          /* it has a place, but was not read from there yet */
};
struct own {
    TAILQ_ENTRY(own)   at;
    struct own        *same;            /* in its bucket, while it waits */
    uint64_t           hash;
    uint64_t           first, last;     /* the sequences that it stands for */
    enum own_state     state;
    bool               echoed;          /* SENT: it was read from the stream already */
    void              *bus;             /* SENT: whose (a callback's argument) */
    struct store_purge purge;           /* its text is below */
    char               text[];
};

#define QUEUE_BUCKETS 8192
struct bus_queue {
    pthread_mutex_t mtx;                /* taken under the store's purge_lock; guards all */
    struct store   *store;              /* borrowed */
    TAILQ_HEAD(owns, own) list;         /* in the order of `first` */
    struct own     *buckets[QUEUE_BUCKETS];
    size_t          waiting, bytes, most, most_bytes;   /* that wait, and their limits */
    uint64_t        owed_first, owed_last;  /* these are to be made one purge of all */
    bool            owed_soft, owed_erase;
    size_t          sent, unread;       /* SENT; ADDED */
    struct store_position added;        /* the last place that an own one was given */
    uint64_t        came;               /* how often there was one more that is not in the stream */
};

void queue_init(struct bus_queue *q, struct store *s, size_t most, size_t most_bytes);
void queue_fini(struct bus_queue *q);
/* The store's listener: any thread, under its purge_lock. Never fails. */
void queue_add(struct bus_queue *q, const struct store_purge *p, uint64_t seq);
/* The next to be sent, SENT from now on; NULL: there is none. */
struct own *queue_next(struct bus_queue *q);
/* The answer to o came: it has that place, or, at NULL, is to be sent again. read: how far the
 * stream was read. */
void queue_sent(struct bus_queue *q, struct own *o, const struct store_position *at,
    struct store_position read);
/* The own entry of that number was read at that place. */
void queue_echo(struct bus_queue *q, uint64_t seq, struct store_position at);
/* The stream lost what was added: all that was not read from it is sent again. */
void queue_again(struct bus_queue *q);
/* Are all own purges up to that sequence in the stream? Then *at is the place of the last, or of a
 * later one. */
bool queue_is_added(struct bus_queue *q, uint64_t seq, struct store_position *at);
size_t queue_waiting(struct bus_queue *q);      /* not in the stream, as far as is known */
/* Each of these, unless none came since *came was set; and sets it. */
bool queue_each(struct bus_queue *q, uint64_t *came,
    void (*each)(void *arg, const struct store_purge *p), void *arg);

/* ---- the bus --------------------------------------------------------------------------------- */

struct bus_ask {
    TAILQ_ENTRY(bus_ask) at;            /* bus.asks: the bus's thread */
    TAILQ_ENTRY(bus_ask) in_all;        /* bus.all: under bus.mtx */
    uint32_t         magic;
#define BUS_ASK_MAGIC 0xb05a5c00u
    struct bus      *b;
    struct loop     *back;              /* where done is called */
    struct loop_msg  msg;
    void           (*done)(void *arg, const struct bus_answer *a);      /* there */
    void            *arg;

    bool             by_seq, placed;    /* placed: `place` is known */
    uint64_t         seq;
    struct store_position place;
    int64_t          until_us, pause_us;
    struct timer     timer;
    bool             look;              /* is there such an entry? */
    struct redis_ask *ask;
    struct buf       missing;           /* others, as JSON */
    size_t           live;
    struct bus_answer answer;
    struct buf       json;
};

enum applying { APPLY_NOTHING, APPLY_ENTRY, APPLY_HERE };

struct seen {                           /* of the stream */
    bool             exists, present;   /* ... the entry that was asked for */
    struct store_position last, oldest;
    uint64_t         added, length;
};

struct round {                          /* bus_lease.c */
    enum { ROUND_NONE, ROUND_LEASE, ROUND_LOOK, ROUND_READ } step;
    struct redis_ask *ask;
    bool             renew;             /* not behind one that failed */
    const char      *why;
    int64_t          sent_us;           /* the lease */
    struct store_position at;           /* the reader, when the stream was looked at */
    uint64_t         count;
    struct seen      seen;
};

struct bus_place { struct store_position at; uint64_t count; };

struct bus_erase {                      /* bus_erase.c */
    bool             held;              /* what was applied is not told beyond `before` */
    bool             wanted;            /* entries came that no run covers */
    bool             runs;
    bool             asked, again;      /* the tiers: no answer yet; ... of a run that is over */
    bool             below;             /* they are done, but for those in `left` */
    unsigned         left;
    uint64_t         sweep;             /* store_sweep's */
    int64_t          until_us;
    struct bus_place before, covered;   /* the first entry not erased; where the run began */
    struct timer     timer;
};

struct bus {
    uint32_t         magic;
#define BUS_MAGIC 0xb0500000u
    struct store    *store;             /* borrowed */
    struct tiers    *tiers;             /* borrowed; NULL: none */
    struct redis    *redis;             /* owned */
    struct loop     *loop;              /* owned */
    pthread_t        thread;
    struct bus_queue queue;
    char             id[96];
    char            *stream, *leases;   /* owned: keys */
    int64_t          lease_us;
    bool             serve;             /* goes on serving without a lease */
    atomic_bool      kicked;
    struct loop_msg  kick, end;
    struct stats_source figures;

    /* the bus's thread */
    enum applying    applying;
    struct store_position applying_at;
    bool             begun;             /* `at` is known */
    struct store_position at;           /* applied up to here */
    uint64_t         count;             /* entries ever added to the stream, up to `at` */
    int              saved_fd;          /* owned; -1: there is no disk tier */
    bool             yielded;           /* ... any more; written under mtx */
    struct loop_msg  yield;
    struct store_position saved;
    char            *waiting;           /* owned: the file; NULL: there is no disk tier */
    bool             kept;              /* it is there */
    uint64_t         kept_came;         /* ... with all up to then */
    int64_t          keep_us;           /* not written again before */
    bool             suspect;           /* the reader failed: not read on before a round looked */
    bool             deaf;              /* ... and had no answer since */
    struct redis_ask *read;
    struct redis_ask *ack;
    struct store_position acked;
    unsigned         in_flight;         /* own entries */
    bool             pumps_later;       /* send_timer is set */
    struct round     round;
    struct bus_erase erase;
    struct timer     round_timer, trust_timer, send_timer;
    int64_t          retry_us;          /* the next pause after a failure */
    int64_t          held_until_us;     /* the lease; 0: none */
    uint64_t         longest_ms;        /* lease of any instance that was seen */
    bool             held;              /* by this process, at any time */
    bool             lost;              /* it was said that the lease is lost */
    TAILQ_HEAD(, bus_ask) asks;

    pthread_mutex_t  mtx;               /* for what follows */
    TAILQ_HEAD(, bus_ask) all;          /* so that the end finds those that no loop runs for */
    pthread_cond_t   cond;
    struct { bool tried, held; struct store_position at; uint64_t lag; size_t instances; } shown;
};

/* One command; its fields and what the answer goes to. NULL: not sent. */
struct redis_ask *bus_send(struct bus *b, const struct slice *argv, size_t argc, int64_t within_us,
    void (*done)(void *arg, enum redis_cause cause, const struct redis_reply *r), void *arg);
void bus_read_on(struct bus *b);        /* reads the stream, if it may and does not already */
void bus_read_stop(struct bus *b);
void bus_pump(struct bus *b);           /* sends what waits */
void bus_show(struct bus *b);           /* for the figures */
/* A purge that the others are not to hear of. */
void bus_purge_here(struct bus *b, const struct store_purge *p);

extern int64_t bus_erase_us;
/* How far it has applied, as others and the next process may know it. */
struct bus_place bus_told(const struct bus *b);
int  bus_erase_init(struct bus *b);
void bus_erase_fini(struct bus *b);
/* An entry behind b->at is to be erased, or what was purged by the process before. */
void bus_erase_want(struct bus *b);
void bus_erase_moved(struct bus *b);    /* b->at is in another stream now */

void lease_begin(struct bus *b);        /* the first round */
void lease_end(struct bus *b);
void lease_reader_failed(struct bus *b);
void lease_read(struct bus *b);         /* the reader had an answer; b->at may have moved */
/* Others may know what was applied. Not without a lease: who has none is not waited for. */
void lease_say(struct bus *b);

/* Looks at the stream, and for the entry at that place. NULL: not sent. */
struct redis_ask *stream_look(struct bus *b, struct store_position at, int64_t within_us,
    void (*done)(void *arg, enum redis_cause cause, const struct redis_reply *r), void *arg);
/* Its answer. -1: it is not understood. */
int  stream_seen(const struct redis_reply *r, struct seen *out);

/* Beside the disk tier in that directory, which may be NULL. Before the thread runs. -1 with *e. */
int  saved_open(struct bus *b, const char *directory, struct err *e);
void saved_put(struct bus *b);
/* Those of the process before are made once more, as own ones: on the bus's thread, first. */
void waiting_take(struct bus *b);
/* Own purges that are not in the stream. Are they where the next process finds them? */
bool waiting_put(struct bus *b);
void waiting_forget(struct bus *b);     /* unless there are any */

void asks_look(struct bus *b);          /* own purges have got places */
void asks_end(struct bus *b);
void asks_free(struct bus *b);          /* when no loop runs any more */

#endif
