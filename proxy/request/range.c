/*
 * Ranges out of a stored object, whole or a part (RFC 9110 14, 15.3.7): one is a 206 of its own,
 * several are multipart/byteranges, one beyond the end is 416. Where the size of the whole is not
 * known, Content-Range says so.
 */
#include <stdio.h>

#include "request/priv.h"

#define UNBOUNDED ((uint64_t)1 << 62)   /* stands for a size that is not known */

enum range_fit
range_fit(const struct request *r, const struct object *o, int64_t now_ms,
    struct http_range *ranges, size_t *n)
{
    struct object_part p = object_part(o);
    uint64_t end = p.from + body_size(o->body);
    bool known = p.size != HTTP_SIZE_UNKNOWN;

    if (!r->rq.range || o->meta.status != 200 || r->head->method != HTTP_GET ||
        !sem_if_range(r->head, deliver_etag(o), o->meta.last_modified_s, o->meta.date_ms / 1000,
            now_ms / 1000))
        return RANGE_NONE;
    switch (http_range(http_only(r->head, HF_RANGE), known ? p.size : p.ends ? end : UNBOUNDED,
        ranges, RANGES_MAX, n)) {
    case HTTP_RANGE_IGNORE:
        return RANGE_NONE;
    case HTTP_RANGE_UNSATISFIABLE:
        return known ? RANGE_UNSATISFIABLE : RANGE_BEYOND;
    case HTTP_RANGE_OK:
        break;
    }
    for (size_t i = 0; i < *n; i++)
        if (ranges[i].first < p.from || ranges[i].last >= end)
            return RANGE_BEYOND;
    return RANGE_WITHIN;
}

static void
put_content_range(struct buf *b, const struct http_range *range, uint64_t size)
{
    buf_printf(b, "Content-Range: bytes %llu-%llu/", (unsigned long long)range->first,
        (unsigned long long)range->last);
    if (size == HTTP_SIZE_UNKNOWN)
        buf_addc(b, '*');
    else
        buf_addu(b, size);
    buf_addz(b, "\r\n");
}

void
range_head(struct buf *b, const struct http_head *h, const struct http_range *range, uint64_t size)
{
    buf_addz(b, "HTTP/1.1 206 Partial Content\r\n");
    deliver_fields(b, h, false, true);
    put_content_range(b, range, size);
    http_put_number(b, HF_CONTENT_LENGTH, range->last - range->first + 1);
}

/* Several ranges: multipart/byteranges (RFC 9110 14.6). Sets the parts, and gives the length of
 * them all; 0: memory out. */
static uint64_t
multipart(struct request *r, const struct http_range *ranges, size_t n, struct slice type,
    const struct object_part *of, char boundary[17])
{
    uint64_t total = 0;
    struct buf b = { 0 };

    snprintf(boundary, 17, "%016llx", (unsigned long long)random_fast());
    if (!deliver_parts(r, n + 1))
        return 0;
    for (size_t i = 0; i <= n; i++) {
        struct part *p = &r->parts[i];

        b.n = 0;
        buf_printf(&b, i < n ? "\r\n--%s\r\n" : "\r\n--%s--\r\n", boundary);
        if (i < n) {
            if (type.n > 0)
                http_put_id(&b, HF_CONTENT_TYPE, type);
            put_content_range(&b, &ranges[i], of->size);
            buf_addz(&b, "\r\n");
            p->at = ranges[i].first - of->from;
            p->n = ranges[i].last - ranges[i].first + 1;
        }
        p->text = pool_slice(r->pool, buf_slice(&b));
        if (b.failed || p->text.p == NULL) {
            total = 0;
            break;
        }
        total += p->text.n + p->n;
    }
    buf_free(&b);
    return total;
}

/* Writes the status line and what stands in the head for the ranges. false: ignore the range. */
bool
range_put(struct request *r, struct buf *b, const struct http_head *h, int64_t now_ms)
{
    struct object_part part = object_part(r->object);
    struct http_range ranges[RANGES_MAX];
    char boundary[17];
    uint64_t total;
    size_t n = 0;

    switch (range_fit(r, r->object, now_ms, ranges, &n)) {
    case RANGE_NONE:
    case RANGE_BEYOND:
        return false;
    case RANGE_UNSATISFIABLE:
        r->status = 416;
        r->nparts = 0;
        buf_printf(b, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */%llu\r\n"
            "Content-Length: 0\r\n", (unsigned long long)part.size);
        deliver_fields(b, h, true, false);
        return true;
    case RANGE_WITHIN:
        break;
    }
    r->status = 206;
    if (n == 1) {
        if (!deliver_parts(r, 1))
            return false;
        r->parts[0].at = ranges[0].first - part.from;
        r->parts[0].n = ranges[0].last - ranges[0].first + 1;
        range_head(b, h, &ranges[0], part.size);
        return true;
    }
    buf_addz(b, "HTTP/1.1 206 Partial Content\r\n");
    total = multipart(r, ranges, n, http_value(h, HF_CONTENT_TYPE), &part, boundary);
    if (total == 0) {
        b->failed = true;
        return true;
    }
    deliver_fields(b, h, false, false);
    buf_printf(b, "Content-Type: multipart/byteranges; boundary=%s\r\n", boundary);
    http_put_number(b, HF_CONTENT_LENGTH, total);
    return true;
}
