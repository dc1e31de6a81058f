/*
 * A request's place in a trace (W3C Trace Context, level 1).
 */
#include "trace/inside.h"

/* 3.2.2.1: upper case is not valid. */
bool
trace_read(struct slice v, struct trace *t)
{
    uint64_t version, flags;

    if (v.n < 55 || v.p[2] != '-' || v.p[35] != '-' || v.p[52] != '-' ||
        !slice_hex((struct slice){ v.p, 2 }, &version) || version == 0xff ||
        (version == 0 ? v.n != 55 : v.n > 55 && v.p[55] != '-') ||
        !slice_hex((struct slice){ v.p + 3, 16 }, &t->hi) ||
        !slice_hex((struct slice){ v.p + 19, 16 }, &t->lo) ||
        !slice_hex((struct slice){ v.p + 36, 16 }, &t->parent) ||
        !slice_hex((struct slice){ v.p + 53, 2 }, &flags))
        return false;
    t->sampled = flags & 1;
    return (t->hi != 0 || t->lo != 0) && t->parent != 0;    /* no id at all is no id */
}

void
trace_begin(const struct tracer *tr, struct slice traceparent, struct trace *t)
{
    if (traceparent.p == NULL || !trace_read(traceparent, t)) {
        t->hi = random_fast();
        t->lo = random_fast() | 1;
        t->parent = 0;
        t->sampled = random_fast() < tracer_share(tr);
    }
    t->span = random_fast() | 1;
    t->client = random_fast() | 1;
}

void
trace_tell(const struct trace *t, struct buf *b)
{
    buf_addz(b, "00-");
    buf_addhex(b, t->hi);
    buf_addhex(b, t->lo);
    buf_addc(b, '-');
    buf_addhex(b, t->client);
    buf_addz(b, t->sampled ? "-01" : "-00");
}
