/*
 * Keeps a parsed head beyond the buffer that it was read into.
 */
#include "http/http.h"

static struct slice
moved(struct slice s, struct slice from, const char *to)
{
    if (s.p == NULL)
        return s;
    if (s.p < from.p || s.p > from.p + from.n)      /* a constant of the parser's: "/" or "" */
        return s;
    return (struct slice){ to + (s.p - from.p), s.n };
}

struct http_head *
http_head_copy(struct pool *p, const struct http_head *h, struct slice bytes)
{
    char *to = pool_dup(p, bytes.p, bytes.n);
    struct http_head *c = pool_alloc(p, sizeof *c);
    struct http_field *fields = pool_alloc(p, (h->nfields + 1u) * sizeof *fields);

    if (to == NULL || c == NULL || fields == NULL)
        return NULL;
    *c = *h;
    c->fields = fields;
    c->cap = h->nfields;
    c->method_name = moved(h->method_name, bytes, to);
    c->target = moved(h->target, bytes, to);
    c->host = moved(h->host, bytes, to);
    c->path = moved(h->path, bytes, to);
    c->query = moved(h->query, bytes, to);
    c->reason = moved(h->reason, bytes, to);
    for (unsigned i = 0; i < h->nfields; i++) {
        fields[i].id = h->fields[i].id;
        fields[i].name = moved(h->fields[i].name, bytes, to);
        fields[i].value = moved(h->fields[i].value, bytes, to);
    }
    return c;
}
