/*
 * tier -- what is below memory: whole responses on disk, and in a Redis that instances share.
 *
 * Model    a lower tier never answers a client. What it has under a key is put into the store
 *          (promoted), and who asked looks up again. So freshness, variants, validation and purges
 *          are decided in one place. What Redis had is written to the disk too, behind the answer.
 *          A value is a whole response in a versioned, checksummed form (value.c); what cannot be
 *          read is a miss, counted. What is stored by No-Vary-Search, parts of a representation,
 *          marks and coded forms are in memory alone.
 * Purges   a tier hears of every purge from the store, in order, before store_purge returns.
 * Threads  any; done comes on the loop that asked, exactly once, never from inside tier_get.
 */
#ifndef WEIR_TIER_H
#define WEIR_TIER_H

#include "base/base.h"
#include "key/key.h"
#include "store/store.h"

/* What is configured; borrowed until tiers_open returns. */
struct tier_options {
    const char *disk_path;              /* a directory, made if it is not there; NULL: no disk */
    int64_t     disk_size;              /* bytes of all its files together; TIER_DISK_MIN or more */
    int64_t     disk_max_object;        /* bytes of a body; no more than a part in 80 of the size
                                           is kept in any case */
    struct redis *redis;                /* NULL: none; else the rest is about it */
    struct loop *const *loops; size_t nloops;       /* its; those of requests are among them */
    const char *redis_prefix;           /* at most 64 bytes */
    int64_t     redis_min_ttl_ms, redis_max_ttl_ms; /* less is not kept, more is kept for so long */
    int64_t     redis_max_object;       /* bytes of a body */
    int64_t     redis_timeout_ms;       /* of an ask */
};
#define TIER_DISK_MIN ((int64_t)16 << 20)

struct tiers;
/* NULL without e->text: none is configured. A disk tier that cannot be opened is an
 * error that names path and remedy; one that is damaged, or of another schema, is begun anew, and
 * the log says so. Starts the tier's threads and sets the store's listeners: before there are other
 * threads. */
struct tiers *tiers_open(const struct tier_options *o, struct store *s, struct err *e);
/* Writes out what waits (a few seconds at most), marks a clean end, ends the threads. When the
 * loops have stopped and nobody purges any more, before store_free. Who still waits for an answer
 * does not get it. NULL is fine. */
void tiers_close(struct tiers **tp);

/* The disk is another process's from now on: what waits is written out, the files are closed. What
 * goes on here finds nothing there, and leaves nothing. Any thread that does not ask; before
 * tiers_close, once. NULL is fine. */
void tiers_yield(struct tiers *t);

enum tier_answer {
    TIER_NONE,                          /* nothing was found, or not in time */
    TIER_FOUND,                         /* something was promoted: look up again */
    TIER_FAILED,                        /* Redis failed, or is known not to answer: likewise nothing
                                           was found */
    TIER_WAIT,                          /* tier_get alone: done will tell */
};
enum tier_name { TIER_DISK, TIER_REDIS };
/* Until it ends, or is released, no other instance fetches the same. */
struct tier_lease;
struct tier_result {
    enum tier_answer answer;
    enum tier_name by;
    struct tier_lease *lease;           /* the caller's now; NULL: it fetches without */
};

struct tier_want {
    const struct key *key;
    const struct http_head *request;    /* chooses the variant. Both borrowed until done, or until
                                           tier_cancel */
    bool have_stale;                    /* memory has it, stale: a disk has nothing newer */
    bool lease;                         /* what is not found will be fetched, to be stored */
    /* May what was found be served, fresh or stale? Then it is the answer; else Redis is asked for
     * what is newer than a disk's. On l's thread, only reads; NULL: Redis' is, if it is fresh. */
    bool (*serves)(void *arg, const struct sem_meta *m, bool soft);
    void (*done)(void *arg, const struct tier_result *r);
    void *arg;
};
struct tier_ask;
/* On l's thread. NULL: *now is the answer, known at once, and done is not called: NONE (t is NULL,
 * no tier has it, too many ask already, or the disk does not answer) or FAILED. */
struct tier_ask *tier_get(struct tiers *t, struct loop *l, const struct tier_want *w,
    enum tier_answer *now);
/* done does not come; on the loop that asked, before done; NULL is fine. */
void tier_cancel(struct tier_ask **ap);
/* What it was for is fetched, or will not be. Where it was stored, tier_put came before. On a
 * worker's loop; leaves NULL; NULL is fine. */
void tier_release(struct tier_lease **lp);

/* A whole response was stored in memory: it goes to the tiers behind it, unless too much waits
 * (counted), or it leaves memory before its turn. Takes a reference. t may be NULL. */
void tier_put(struct tiers *t, struct object *o);

/* On l's thread: done(arg, left), there, when no tier has bytes any more that a purge before this
 * call removed. left: bits 1 << enum tier_name of those where that could not be done, or not in a
 * minute, or is not known. -1: memory is out, done is not called. */
int  tier_erase(struct tiers *t, struct loop *l, void (*done)(void *arg, unsigned left), void *arg);

/* Of Redis the last three alone: what all instances have there is not counted. */
struct tier_figures {
    uint64_t objects, bytes, limit;     /* bytes: in use; limit: of all its files */
    bool     loading;                   /* its index is not in memory yet: every miss costs I/O; or
                                           purges of the last process are still under way. Redis:
                                           where the stream of purges stands is not known yet, and
                                           nothing is sent or used */
    uint64_t queued_bytes;              /* not yet written */
    bool     failing;                   /* the disk is full or fails: nothing is kept for now; Redis
                                           does not answer, and is not asked */
};
bool tier_figures(struct tiers *t, enum tier_name which, struct tier_figures *f);   /* false: there
                                           is none */

#endif
