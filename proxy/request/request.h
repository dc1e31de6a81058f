/*
 * request -- the state machine of one request, and the site that requests are answered from.
 *
 * Model    A site is one configuration made ready: route table and origins. Reload makes a new one
 *          and swaps it; a request finishes on the site that it began with. A memory hit is
 *          answered on the spot (hit.c), inside a read section, without a request object.
 *          Everything else becomes a struct request and walks the table in priv.h; each state's
 *          handler stands in a file of its own.
 * Threads  workers run requests; request_site_set from any one thread.
 */
#ifndef WEIR_REQUEST_H
#define WEIR_REQUEST_H

#include "base/base.h"
#include "config/conf.h"
#include "conn/conn.h"
#include "fill/fill.h"
#include "route/route.h"
#include "store/store.h"
#include "tier/tier.h"
#include "trace/trace.h"
#include "upstream/upstream.h"
#include "write/write.h"

struct site;

/* Compiles a configuration; takes its own reference to it. NULL with *e. */
struct site *site_new(struct conf *c, struct upstream *u, struct err *e);
struct site *site_ref(struct site *s);
void site_unref(struct site **sp);
struct conf *site_conf(const struct site *s);               /* borrowed */
struct route_table *site_table(const struct site *s);       /* borrowed */
struct origin *const *site_origins(const struct site *s);   /* of its configuration; borrowed */
struct slice site_via(const struct site *s);        /* our name as Via has it; lives as long as s */

/* Once, before any worker: what all requests share. t: NULL where memory is all there is; w: NULL
 * without a journal; tr: NULL where no traces are made. */
void request_init(struct store *s, struct tiers *t, struct fills *f, struct writes *w,
    struct tracer *tr);
/* From now on new requests are answered from s (takes your reference). Waits for a grace period. */
void request_site_set(struct site *s);
struct site *request_site(void);           /* the present one: a reference, NULL before the first */
void request_site_clear(void);                       /* at the end, when all workers have stopped */

/* How many requests are under way that need the journal, or are to change what is stored: unsafe
 * ones until their answer is on its way, and reads that may have to see what is pending. Any
 * thread. */
unsigned request_bound(void);
/* There is no journal any more. When nothing is bound, and nothing begins that would be. */
void request_unbind(void);

/* On each worker's own thread. */
int  request_worker_start(struct loop *l);
/* Writes that went on without their client are given up, and no more do: what they would purge ends
 * with the process. As often as wanted. */
void request_worker_drain(void);
void request_worker_stop(void);

/* What connections of the data port do. */
extern const struct conn_events request_events;

#endif
