/*
 * Spans in the JSON encoding of OTLP 1: ids in hexadecimal, 64-bit numbers as text, enumerations as
 * numbers. Attributes are those of OpenTelemetry's HTTP conventions; queries and fields stay out,
 * but for User-Agent: they may hold secrets.
 */
#include "trace/inside.h"

#define TEXT_MAX 1024                   /* of an attribute */
#define STATE_MAX 512                   /* of tracestate, which nobody needs to keep longer */

enum kind { INTERNAL = 1, SERVER = 2, CLIENT = 3 };

static struct slice
shortened(struct slice s, size_t max)
{
    return (struct slice){ s.p, s.n < max ? s.n : max };
}

/* ",{...}"; the first of a span is its caller's care. */
static void
put_text(struct buf *b, const char *key, struct slice value)
{
    if (value.n == 0)
        return;
    buf_printf(b, ",{\"key\":\"%s\",\"value\":{\"stringValue\":\"", key);
    buf_json(b, shortened(value, TEXT_MAX));
    buf_addz(b, "\"}}");
}

static void
put_number(struct buf *b, const char *key, int64_t value)
{
    if (value >= 0)
        buf_printf(b, ",{\"key\":\"%s\",\"value\":{\"intValue\":\"%lld\"}}", key, (long long)value);
}

static void
put_ids(struct buf *b, const struct trace *t, uint64_t span, uint64_t parent)
{
    buf_addz(b, "{\"traceId\":\"");
    buf_addhex(b, t->hi);
    buf_addhex(b, t->lo);
    buf_addz(b, "\",\"spanId\":\"");
    buf_addhex(b, span);
    if (parent != 0) {
        buf_addz(b, "\",\"parentSpanId\":\"");
        buf_addhex(b, parent);
    }
    buf_addc(b, '"');
}

static void
put_times(struct buf *b, enum kind kind, uint64_t start_ns, uint64_t us)
{
    buf_printf(b, ",\"kind\":%d,\"startTimeUnixNano\":\"%llu\",\"endTimeUnixNano\":\"%llu\"", kind,
        (unsigned long long)start_ns, (unsigned long long)(start_ns + us * 1000));
}

static void
put_request(struct buf *b, const struct trace *t, struct slice tracestate,
    const struct stats_access *a, uint64_t start_ns)
{
    struct slice rest = a->target, path = { NULL, 0 };

    if (rest.p != NULL)
        slice_cut(&rest, '?', &path);
    put_ids(b, t, t->span, t->parent);
    if (tracestate.n > 0 && tracestate.n <= STATE_MAX) {
        buf_addz(b, ",\"traceState\":\"");
        buf_json(b, tracestate);
        buf_addc(b, '"');
    }
    buf_addz(b, ",\"name\":\"");
    buf_json(b, a->method.n > 0 ? shortened(a->method, 32) : SLICE("HTTP"));
    buf_addc(b, ' ');
    buf_json(b, shortened(a->route, TEXT_MAX));
    buf_addc(b, '"');
    put_times(b, SERVER, start_ns, a->us);
    if (t->link.span != 0) {
        buf_addz(b, ",\"links\":[");
        put_ids(b, &(struct trace){ .hi = t->link.hi, .lo = t->link.lo }, t->link.span, 0);
        buf_addz(b, "}]");
    }
    buf_printf(b, ",\"attributes\":[{\"key\":\"weir.outcome\",\"value\":{\"stringValue\":\"%s\"}}",
        stats_outcome_names[a->outcome]);
    put_text(b, "http.request.method", a->method);
    put_text(b, "http.route", a->route);
    put_text(b, "url.path", path);
    put_text(b, "server.address", a->host);
    put_text(b, "client.address", a->client);
    put_text(b, "user_agent.original", a->user_agent);
    put_text(b, "weir.request_id", a->request_id);
    put_text(b, "weir.fwd", a->fwd);
    put_text(b, "weir.detail", a->detail);
    put_number(b, "http.response.status_code", a->status);
    put_number(b, "http.response.body.size", (int64_t)a->bytes_out);
    buf_printf(b, "],\"status\":{%s}}", a->status >= 500 ? "\"code\":2" : "");
}

/* Is an origin asked in it? */
static bool
asks(const char *state)
{
    return strcmp(state, "FETCH") == 0 || strcmp(state, "FORWARD") == 0;
}

static void
put_step(struct buf *b, const struct trace *t, const struct stats_access *a,
    const struct stats_step *s, bool client, uint64_t start_ns)
{
    put_ids(b, t, client ? t->client : random_fast() | 1, t->span);
    buf_addz(b, ",\"name\":\"");
    buf_addlower(b, slice_of(s->name));
    buf_addc(b, '"');
    put_times(b, client ? CLIENT : INTERNAL, start_ns + s->at_us * UINT64_C(1000), s->us);
    if (client) {
        buf_printf(b, ",\"attributes\":[{\"key\":\"weir.tries\",\"value\":{\"intValue\":\"%u\"}}",
            a->tries);
        put_text(b, "weir.origin", a->origin);
        put_text(b, "http.request.method", a->method);
        put_number(b, "weir.pool_us", a->pool_us);
        put_number(b, "weir.connect_us", a->connect_us);
        put_number(b, "weir.first_byte_us", a->first_byte_us);
        buf_addc(b, ']');
    }
    buf_addc(b, '}');
}

unsigned
otlp_spans(struct buf *b, const struct trace *t, struct slice tracestate,
    const struct stats_access *a, uint64_t end_ns)
{
    uint64_t start_ns = end_ns - a->us * 1000;
    size_t last = a->nsteps;            /* the state in which the origin was asked */

    for (size_t i = 0; i < a->nsteps; i++)
        if (a->origin.n > 0 && asks(a->steps[i].name))
            last = i;
    put_request(b, t, tracestate, a, start_ns);
    for (size_t i = 0; i < a->nsteps; i++) {
        buf_addc(b, ',');
        put_step(b, t, a, &a->steps[i], i == last, start_ns);
    }
    return 1 + (unsigned)a->nsteps;
}

void
otlp_open(struct buf *b, const char *service)
{
    buf_addz(b, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\","
        "\"value\":{\"stringValue\":\"");
    buf_json(b, slice_of(service));
    buf_addz(b, "\"}}]},\"scopeSpans\":[{\"scope\":{\"name\":\"weir\",\"version\":\"" WEIR_VERSION
        "\"},\"spans\":[");
}
