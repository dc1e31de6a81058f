/*
 * trace -- distributed traces: a request's place in one (W3C Trace Context), and sampled requests
 * as spans to a collector (OTLP/HTTP 1, JSON encoding).
 *
 * Model    A request that comes with a valid traceparent belongs to that trace, and is told if that
 *          says so; any other begins one, and a share of them is told. What is told becomes JSON
 *          when the request is done, on its thread: a span of its own, and one for each state that
 *          it was in. They wait in batches, of which one at a time is under way to the collector.
 *          The queue is bounded in bytes; what does not fit, and what the collector does not take,
 *          is dropped and counted, and the log says so. Requests never wait.
 * Threads  trace_read, trace_begin, trace_put: any. Batches are under the tracer's mtx. Sending
 *          happens on the loop that tracer_open was given.
 */
#ifndef WEIR_TRACE_H
#define WEIR_TRACE_H

#include "base/base.h"
#include "config/conf.h"
#include "stats/stats.h"
#include "upstream/upstream.h"

struct tracer;

/* A request's place. */
struct trace {
    uint64_t hi, lo;                    /* the trace's id */
    uint64_t parent;                    /* the span that sent it; 0: none did */
    uint64_t span;                      /* its own; 0: it is in no trace */
    uint64_t client;                    /* of what it asks an origin */
    bool     sampled;
    struct { uint64_t hi, lo, span; } link;     /* another's that it waited for; span 0: none */
};

/* A traceparent of version 00, or what a later one has in common with it; fills ids, parent and
 * sampled. false: malformed. */
bool trace_read(struct slice traceparent, struct trace *t);
/* Of a request with this field, or without one (.p NULL). */
void trace_begin(const struct tracer *tr, struct slice traceparent, struct trace *t);
/* Appends the traceparent for what an origin is asked. */
void trace_tell(const struct trace *t, struct buf *b);
/* A request that is sampled is done now; tracestate: of its parent, or empty. */
void trace_put(struct tracer *tr, const struct trace *t, struct slice tracestate,
    const struct stats_access *a);

/* The `trace` of c to this origin, of which a reference is taken; l: one of upstream_new's. Before
 * the loops run. */
struct tracer *tracer_open(const struct conf *c, struct origin *o, struct loop *l, struct err *e);
/* Sends what waits at once, and no more than once. Is all of it sent, or given up, or are two
 * seconds over? Any thread, as often as wanted; NULL is fine. */
bool tracer_drain(struct tracer *tr);
void tracer_close(struct tracer **tp);  /* when the loop has stopped, before upstream_free */

#endif
