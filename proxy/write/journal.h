/*
 * write/journal.h -- private to write/: the journal: a file, its one writer, and readers beside it;
 * or Redis, which the instances of a fleet share.
 *
 * Fleet    a shared journal has JOURNAL_PARTS partitions. Writes that must keep their order, and
 *          what has the same idempotency key, are of one; a partition is owned by one instance at a
 *          time, under a lease with a fencing token, and delivered by that one alone. Everything
 *          else any instance may do. Without a fleet all partitions are ours, always.
 * Threads  journal_open, journal_close: one thread. journal_do: any thread. The readers: the write
 *          loop alone; those of a shared journal wait for Redis. Operations are done in the order
 *          of journal_do, many in one transaction; in a shared journal those of one partition.
 */
#ifndef WEIR_WRITE_JOURNAL_H
#define WEIR_WRITE_JOURNAL_H

#include "write/write.h"

struct journal;

#define JOURNAL_PARTS 64
static inline unsigned
journal_part(uint64_t seq)              /* of a shared journal's row */
{
    return (unsigned)(seq % JOURNAL_PARTS);
}

/* ---- rows ------------------------------------------------------------------------------------ */

struct write_row {                      /* thin: what scheduling needs */
    uint64_t seq;                       /* order of acceptance; never used again */
    uint64_t c1;                        /* hash of the order key */
    uint64_t c2;                    /* write_path_hash of the target where c1 is not that; or 0 */
    uint64_t who;
    int64_t  accepted_ms, due_ms;       /* wall clock; 0: not */
    int64_t  settled_ms;                /* ... or, while it waits, when that began */
    uint32_t route;                     /* journal_route_name */
    uint32_t attempts;
    uint16_t status;                    /* of the last answer; 0: none */
    uint8_t  method;                    /* enum http_method */
    uint8_t  lane, state;
    bool     orders_target;             /* PUT, PATCH, DELETE: kept in order by c2 too */
};
struct write_content {                  /* fat; slices are valid until the next call of a reader */
    struct slice method_name;
    struct slice url;                   /* absolute, as the client uses it */
    struct slice target, host, fields;  /* for the origin */
    bool has_body; struct slice body;
    struct slice order_key;             /* as text, for people */
    struct slice idempotency_key;       /* the client's; .p NULL: none */
    struct slice answer_head, answer_body;          /* the last answer, a bounded copy */
    struct slice cause;                 /* why it waits or is dead, for people */
};

/* ---- operations ------------------------------------------------------------------------------ */

enum journal_kind {
    JOURNAL_ACCEPT,         /* row, content, and a key if there is one: seq is given */
    JOURNAL_CLAIM,          /* a key alone, for a request that goes straight to the origin: row.seq
                               is given, so that it can have an id; no row goes by it */
    JOURNAL_CLAIM_END,      /* its answer: row.status, content.answer_* (answer_body.p NULL: too
                               long to keep); status 0: its fate is unknown, as after a crash */
    JOURNAL_CLAIM_RELEASE,  /* forget it */
    JOURNAL_UPDATE,         /* state, attempts, due_ms, settled_ms, status, answer, cause of seq */
                            /* delivered, superseded, dropped: content's body and fields are let go
                               in any case, and it is GONE to a later UPDATE */
    JOURNAL_PAUSE,          /* name, on: remembered */
    JOURNAL_CALL,           /* nothing: done is called between two commits (for tests, for close) */
    JOURNAL_PEEK,           /* shared: are writes pending for the path row.c1 in one of `parts`?
                               DONE: yes; GONE: no */
    JOURNAL_CONDEMN,        /* the readers' own: a pending row that cannot be read is uncertain;
                               GONE: it is not pending; on: what its row says is right */
};
enum journal_result { JOURNAL_DONE, JOURNAL_REPEATED, JOURNAL_MISMATCH, JOURNAL_BUSY, JOURNAL_FULL,
    JOURNAL_KEYS_FULL, JOURNAL_GONE,
    JOURNAL_LOST };         /* shared, UPDATE: the partition is another's now; nothing was done */

struct journal_op {
    struct journal_op *next;
    enum journal_kind  kind;
    enum conf_write_durable durable;
    struct write_row   row;             /* ACCEPT: seq is filled in; UPDATE: as it shall be */
    struct write_content content;       /* its bytes belong to the operation */
    bool               settle;          /* UPDATE: the content's body and fields are let go */
    bool               keep_answer;     /* UPDATE: content.answer_* and cause replace the former */
    bool               by_verb;         /* UPDATE: an operator's, of any partition: only where the
                                           row is as `was` says, and not SENDING; else GONE. Its
                                           owner is told (journal_found.came) */
    uint8_t            was; uint32_t was_attempts;
    uint64_t           fence;           /* shared, UPDATE: the token under which its delivery began
                                           (journal_fence); 0: set by journal_do to the present
                                           one. Another by now: LOST */
    unsigned           part;            /* shared: ACCEPT, CLAIM */
    uint64_t           parts;           /* PEEK: a bit each */
    uint64_t           position;        /* shared, ACCEPT: how many of its chain are before it */
    /* idempotency: ACCEPT, CLAIM (.key_for_ms > 0), CLAIM_END, CLAIM_RELEASE */
    uint8_t            key_hash[16];    /* XXH3-128 keyed: key, target, credentials */
    uint8_t            fingerprint[16]; /* method, target, content type, content */
    int64_t            key_for_ms;
    bool               promised;        /* write.idempotent: a claim whose fate a crash left unknown
                                           may be made again */
    struct slice       name;            /* PAUSE */
    bool               on;
    /* the result */
    enum journal_result result;         /* FULL: nothing was done; UPDATE: ask again later */
    const char        *why;             /* static; "" when there is nothing to say */
    uint64_t           first_seq;       /* REPEATED: of the write (whose row may be pruned before
                                           its key); 0: of a claim, whose answer is in `reply`,
                                           content.answer_*, row.status, its number in row.seq */
    char              *reply;           /* the operation's: free it with it */
    /* On the journal's thread, always after the commit, which is synced where one of its operations
     * asks for fsync: `os` and `memory` differ in what is promised, not in what is done. Readers
     * see what it did. Takes the operation. */
    void             (*done)(struct journal_op *op);
    void              *arg;
};

/* ---- the journal ----------------------------------------------------------------------------- */

struct journal_limits {
    int64_t size, idempotency_size, keep_ms; uint64_t depth;
};
struct journal_news { struct write_row row; uint8_t from; };
struct journal_found {                  /* what was pending when it was opened, in order of seq */
    void (*row)(void *arg, const struct write_row *r);
    /* ... and later, on the journal's thread: this one is found damaged, and is uncertain now. Of
     * what is not `known` to be right its seq alone is told. NULL: nobody asks. */
    void (*condemned)(void *arg, const struct write_row *r, bool known);
    /* Of a shared journal, on the journal's thread, in order. `owns`: the partition is ours now and
     * its rows come; or (on false) it is not: no delivery of it may begin, and journal_left is to
     * be called when none is under way. `came`: rows of our partitions that others, or we, took or
     * changed: from WRITE_STATES: new to us, else the state before. `changed`: another instance
     * paused or resumed something (journal_paused). */
    void (*owns)(void *arg, unsigned part, bool on);
    void (*came)(void *arg, const struct journal_news *news, size_t n);
    void (*changed)(void *arg);
    void *arg;
};
/* See writes_open. Rows in state SENDING are given as they are: they were at the origin. */
struct journal *journal_open(const char *path, const struct journal_limits *limits,
    const struct journal_found *found, struct err *e);
/* The one in Redis that the configuration names; waits for it, two seconds at most. Where it cannot
 * be reached the journal is open all the same, takes nothing, and tries again. NULL with *e: what
 * the configuration says cannot be used. */
struct journal *journal_open_shared(const struct conf *c, const struct journal_limits *limits,
    const struct journal_found *found, struct err *e);
void journal_close(struct journal **jp);            /* does what is queued first; gives partitions
                                                       back */
bool journal_shared(const struct journal *j);
/* May a delivery of this partition begin now? Any thread; true where nothing is shared. */
bool journal_owns(struct journal *j, unsigned part);
uint64_t journal_fence(struct journal *j, unsigned part);       /* the token; 0: none. Any thread */
/* Before the end, so that others deliver at once: all partitions are left, none is taken again. Any
 * thread. */
void journal_leave(struct journal *j);
void journal_left(struct journal *j, unsigned part);    /* the write loop: see journal_found.owns */
void journal_limits(struct journal *j, const struct journal_limits *limits);    /* any thread */
void journal_do(struct journal *j, struct journal_op *op);
/* 32 bytes, the same for its life. NULL: a shared journal was not reached yet. */
const uint8_t *journal_secret(const struct journal *j);
/* The id of a seq: unguessable, needs no index. Any thread. Back: 1; 0 for what is no id of this
 * journal's (1 may still be of no row); -1 where that cannot be told now. The write loop. */
void journal_id(const struct journal *j, uint64_t seq, char id[WRITE_ID_N + 1]);
int journal_id_seq(struct journal *j, struct slice id, uint64_t *seq);
uint32_t journal_route(struct journal *j, struct slice name);   /* its number; any thread */
/* Numbers are 1 to this; after damage not all have a name. */
uint32_t journal_routes(struct journal *j);
struct slice journal_route_name(struct journal *j, uint32_t number);    /* lives as long as j */
bool journal_paused(struct journal *j, struct slice name);      /* as JOURNAL_PAUSE left it; any
                                                                   thread */

/* Readers, on the write loop. 1 found, 0 not, -1 the file fails (counted, logged). A row whose
 * checksum is wrong is -1 with *e (code EBADMSG), and is set to WRITE_UNCERTAIN with that cause
 * (one that is not pending, and whose content is damaged, is found, without it); where the file
 * or its disk fails (EIO), or memory is out (ENOMEM), it stays as it is. */
int journal_read(struct journal *j, uint64_t seq, struct write_row *r, struct write_content *c,
    struct err *e);
/* The first pending one of this chain after `seq`; part: where the chain is, of a shared one.
 * by_target: chains are c1 or c2 = hash. */
int journal_next(struct journal *j, unsigned part, uint64_t hash, uint64_t seq, bool by_target,
    struct write_row *r);
/* Looks at `max` rows after *seq in ascending order, calls each for those in a state of the mask
 * (bits of enum write_state), and takes *seq to the last one. 1: there may be more, 0: there are
 * none, -1 as above. */
int journal_each(struct journal *j, uint64_t *seq, unsigned state_mask, unsigned max,
    void (*each)(void *arg, const struct write_row *r), void *arg);

struct journal_figures {
    uint64_t pending, dead;
    uint64_t bytes;                     /* in use, of journal.size */
    uint64_t room;                      /* left of it: a larger write is refused */
    uint64_t oldest_ms;                 /* when the oldest pending one was accepted; 0: none */
    uint64_t commits, operations, commit_us;        /* since it was opened */
    bool     takes; char why[128];
    uint64_t lost;                      /* shared: what Redis lost after it had taken it */
    char     aside[256];                /* as what a damaged file was set aside at the start; "" */
};
void journal_figures(struct journal *j, struct journal_figures *f);     /* any thread */

#endif
