/* Private to trace/. */
#ifndef WEIR_TRACE_INSIDE_H
#define WEIR_TRACE_INSIDE_H

#include "trace/trace.h"

/* Appends the request's spans, with a comma between them; how many they are. end_ns: when it was
 * done, since 1970. */
unsigned otlp_spans(struct buf *b, const struct trace *t, struct slice tracestate,
    const struct stats_access *a, uint64_t end_ns);
/* What stands before and behind all spans of an export. */
void otlp_open(struct buf *b, const char *service);
#define OTLP_CLOSE "]}]}]}"

/* How many spans of traces a tracer begins are told, as a share of 2^64. */
uint64_t tracer_share(const struct tracer *tr);

#endif
