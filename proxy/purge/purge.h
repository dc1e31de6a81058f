/*
 * purge -- the verbs of purging: what operators ask for, and what a write changes.
 *
 * Threads  any.
 */
#ifndef WEIR_PURGE_H
#define WEIR_PURGE_H

#include "base/base.h"
#include "http/http.h"
#include "key/key.h"
#include "route/route.h"
#include "store/store.h"
#include "tier/tier.h"

struct purge_item {
    enum store_purge_kind kind;
    struct slice text;              /* url, prefix, pattern, tag, group, or the name of a route, as
                                       the operator wrote it */
    struct slice origin;            /* of a group: "https://host"; empty: of every one */
};
struct purge_how {
    bool soft;
    bool erase;                         /* other instances remove the bytes too; not with soft */
    bool dry;                           /* only counts */
};
struct purge_result { bool exact; uint64_t objects; };

/* Purges all items or, when one is not understood (a url that is none, an unknown route), none of
 * them: -1, *e says which and why, *bad its index. A url or prefix without scheme and host
 * ("/api/x") is matched under every host. */
int purge_run(struct store *s, const struct route_table *t, const struct purge_item *items,
    size_t n, struct purge_how how, struct purge_result *results, size_t *bad, struct err *e);

/* What a write to `target` on `route` purges besides: expands the route's templates over the facts,
 * purges what they give (tags; templates that start with '/' give paths of the same scheme and
 * host, those that start with a scheme URLs, of which those of the same origin count). A template
 * whose parameter or field is absent purges nothing. Where one needs what was not to be had (no
 * answer, no JSON, no such member), the whole route is purged instead, and every route that could
 * have stored the target; that is counted. */
void purge_templates(struct store *s, const struct route_table *t, const struct route *route,
    const struct key_facts *f, struct slice target);

/* The target of a write, its Location and Content-Location when they are of the same origin
 * (RFC 9111 4.4), under every key that a route could have given them, and the groups that its
 * Cache-Group-Invalidation names (RFC 9875 3). target: absolute,
 * normalised. response may be NULL (fate unknown). */
void purge_target(struct store *s, const struct route_table *t, struct slice target,
    const struct http_head *response);

/* For explanations: calls each(arg, purge) for what a write with these facts would purge, as far as
 * its request tells: its target, and what the route's templates name that need no answer. */
void purge_foretell(const struct route_table *t, const struct route *route,
    const struct key_facts *f, struct slice target,
    void (*each)(void *arg, const struct store_purge *p), void *arg);

/* ---- the bus: purges of all instances that share a Redis ------------------------------------- */

/* Each purge of this process, whatever made it, becomes an entry of a stream in Redis; those of
 * other instances are applied in the order of the stream, exactly as at home. Own thread. What is
 * promised when Redis is away: bus_lease.c. */
struct bus;
struct conf;
/* Before other threads use s. tiers: what other instances erase goes from there as well; NULL is
 * fine. NULL with e->code 0: no Redis is configured. Waits until the bus has
 * caught up, or has found that Redis cannot be asked; a second at most. */
struct bus *bus_open(const struct conf *c, struct store *s, struct tiers *tiers, struct err *e);
/* How far this process has applied is from now on not what the disk tier has: another has that.
 * Waits until the bus's thread knows; NULL is fine. */
void bus_yield(struct bus *b);
/* Ends its thread; after nothing else purges any more, before tiers_close. NULL is fine. */
void bus_stop(struct bus *b);
/* After bus_stop and tiers_close, before store_free. Takes yours, leaves NULL; NULL is fine. */
void bus_close(struct bus **bp);

enum bus_outcome {
    BUS_DONE,               /* every live instance has applied it, and erased what it says */
    BUS_MISSING,            /* some have not */
    BUS_UNKNOWN,            /* it is not in the stream yet, or Redis could not be asked who has */
    BUS_NO_ID,              /* no purge has that id, as far as this instance knows */
    BUS_NO_MEMORY,
};
struct bus_answer {
    enum bus_outcome outcome;
    struct slice json;      /* `"id": "1-0", "instances": 3, "missing": ["a"]`, or with "why" */
};
/* Asks until all purges made here up to the sequence `seq` (store_stamp) are applied everywhere, or
 * that time is over: done(arg, answer) on l, exactly once, never from inside. NULL: no memory. */
struct bus_ask;
struct bus_ask *bus_wait(struct bus *b, struct loop *l, uint64_t seq, int64_t wait_us,
    void (*done)(void *arg, const struct bus_answer *a), void *arg);
/* The same, at once, of a purge whose id an answer said. */
struct bus_ask *bus_look(struct bus *b, struct loop *l, struct slice id,
    void (*done)(void *arg, const struct bus_answer *a), void *arg);
void bus_forget(struct bus_ask **ap);           /* done will not come; on l; NULL is fine */

#endif
