/*
 * Trailer sections pass, both ways, but for fields that change what the message is: framing, routing,
 * authentication, and who asks (RFC 9110 6.5.1). Those are the ones that the table of names marks.
 */
#include "request/priv.h"

static bool
passes(const struct http_field *f)
{
    return (http_flags(f->id) & (HTTP_HOP | HTTP_KEEP)) == 0;
}

/* The lines that pass; the given slice itself when all do. */
struct slice
trailer_filter(struct pool *p, struct slice lines)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct slice out = { NULL, 0 };
    struct buf b = { 0 };
    unsigned kept = 0;

    if (lines.n == 0 || http_parse_fields(lines.p, lines.n, &h) == -1)
        return out;
    for (unsigned i = 0; i < h.nfields; i++) {
        if (!passes(&fields[i]))
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
