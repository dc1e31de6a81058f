/*
 * What hooks before there is an answer have changed of a request, made so: its head, its key.
 */
#include "plugin/inside.h"

struct http_head *
plugin_take_head(struct weir_request *r, struct slice *bytes)
{
    const struct http_limits limits = { SIZE_MAX, SIZE_MAX, HTTP_FIELDS_MAX };
    const struct http_head *from = r->head[WEIR_OF_REQUEST];
    struct http_field *fields = pool_alloc(r->pool, (from->nfields + 1u) * sizeof *fields);
    struct http_head *h = pool_zalloc(r->pool, sizeof *h);
    struct http_fault fault;
    struct buf b = { 0 };

    buf_adds(&b, from->method_name);
    buf_addc(&b, ' ');
    buf_adds(&b, from->target);
    buf_addz(&b, from->minor > 0 ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n");
    for (unsigned i = 0; i < from->nfields; i++)
        http_put(&b, from->fields[i].name, from->fields[i].value);
    buf_addz(&b, "\r\n");
    *bytes = b.failed ? (struct slice){ NULL, 0 } : pool_slice(r->pool, buf_slice(&b));
    buf_free(&b);
    if (h == NULL || fields == NULL || bytes->p == NULL)
        return NULL;
    h->fields = fields;
    h->cap = (uint16_t)(from->nfields + 1);
    if (http_parse_request(bytes->p, bytes->n, &limits, h, &fault) <= 0)
        return NULL;
    r->head[WEIR_OF_REQUEST] = h;
    r->edited[WEIR_OF_REQUEST] = false;
    return h;
}

int
plugin_add_parts(const struct weir_request *r, struct key *k, struct buf *b)
{
    struct buf part = { 0 };
    int rc = 0;

    for (const struct plugin_text *t = r->keys.first; t != NULL && rc == 0; t = t->next) {
        part.n = 0;
        buf_adds(&part, t->name);
        buf_addc(&part, '\0');
        buf_adds(&part, t->text);
        rc = b->failed || part.failed ? -1 : key_add(k, 'P', buf_slice(&part), b);
    }
    buf_free(&part);
    return rc;
}
