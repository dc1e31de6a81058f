/*
 * Trailer sections pass, both ways, as far as a field of the head would, and but for fields that
 * change what the message is: framing, routing, authentication, and who asks (RFC 9110 6.5.1).
 * Those are the ones that the table of names marks.
 */
#include "request/priv.h"

/* What a field of the head would meet. */
struct gate {
    const struct http_head *head;       /* its Connection names trailer fields too (7.6.1) */
    const struct route_edit *edit;
    const struct sem_cc *shared;        /* not NULL: the answer was fetched for another's request */
    bool request;
};

static bool
passes(const struct gate *g, const struct http_field *f)
{
    return (http_flags(f->id) & (HTTP_HOP | HTTP_KEEP)) == 0 && http_forwards(g->head, f) &&
        !route_edit_takes(g->edit, f->name) && !(g->request && forward_disguised(f->name)) &&
        (g->shared == NULL || sem_keeps(g->head, g->shared, f));
}

/* The lines that pass; the given slice itself when all do. */
static struct slice
filter(struct pool *p, const struct gate *g, struct slice lines)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct slice out = { NULL, 0 };
    struct buf b = { 0 };
    unsigned kept = 0;

    if (lines.n == 0 || http_parse_fields(lines.p, lines.n, &h) == -1)
        return out;
    for (unsigned i = 0; i < h.nfields; i++) {
        if (!passes(g, &fields[i]))
            continue;
        http_put(&b, fields[i].name, fields[i].value);
        kept++;
    }
    if (kept == h.nfields)
        out = lines;
    else if (!b.failed && b.n > 0)
        out = pool_slice(p, buf_slice(&b));
    buf_free(&b);
    return out;
}

struct slice
trailer_request(const struct request *r, struct slice lines)
{
    struct gate g = { .head = r->head, .edit = &r->match.route->request,
        .request = true };

    return filter(r->pool, &g, lines);
}

struct slice
trailer_response(const struct request *r, const struct fill_view *v)
{
    struct gate g = { .head = v->response, .edit = &r->match.route->response };
    struct sem_cc cc;

    if (v->trailer.n > 0 && r->collapsed) {
        sem_cc_response(v->response, &r->match.route->rules, &cc);
        g.shared = &cc;
    }
    return filter(r->pool, &g, v->trailer);
}
