/*
 * Ranges out of a stored object (RFC 9110 14, 15.3.7): one is a 206 of its own, several are
 * multipart/byteranges, one beyond the end is 416.
 */
#include <stdio.h>

#include "request/priv.h"

/* Several ranges: multipart/byteranges (RFC 9110 14.6). Sets the parts, and gives the length of
 * them all; 0: memory out. */
static uint64_t
multipart(struct request *r, const struct http_range *ranges, size_t n, struct slice type,
    uint64_t size, char boundary[17])
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
            buf_printf(&b, "Content-Range: bytes %llu-%llu/%llu\r\n\r\n",
                (unsigned long long)ranges[i].first, (unsigned long long)ranges[i].last,
                (unsigned long long)size);
            p->at = ranges[i].first;
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
    const struct object *o = r->object;
    uint64_t size = body_size(o->body), total;
    struct http_range ranges[RANGES_MAX];
    char boundary[17];
    size_t n = 0;

    if (!r->rq.range || o->meta.status != 200 || r->head->method != HTTP_GET ||
        !sem_if_range(r->head, deliver_etag(o), o->meta.last_modified_s, o->meta.date_ms / 1000,
            now_ms / 1000))
        return false;
    switch (http_range(http_value(r->head, HF_RANGE), size, ranges, RANGES_MAX, &n)) {
    case HTTP_RANGE_IGNORE:
        return false;
    case HTTP_RANGE_UNSATISFIABLE:
        r->status = 416;
        r->nparts = 0;
        buf_printf(b, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */%llu\r\n"
            "Content-Length: 0\r\n", (unsigned long long)size);
        deliver_fields(b, h, true, false);
        return true;
    case HTTP_RANGE_OK:
        break;
    }
    r->status = 206;
    buf_addz(b, "HTTP/1.1 206 Partial Content\r\n");
    if (n == 1) {
        if (!deliver_parts(r, 1))
            return false;
        r->parts[0].at = ranges[0].first;
        r->parts[0].n = ranges[0].last - ranges[0].first + 1;
        deliver_fields(b, h, false, true);
        buf_printf(b, "Content-Range: bytes %llu-%llu/%llu\r\nContent-Length: %llu\r\n",
            (unsigned long long)ranges[0].first, (unsigned long long)ranges[0].last,
            (unsigned long long)size, (unsigned long long)r->parts[0].n);
        return true;
    }
    total = multipart(r, ranges, n, http_value(h, HF_CONTENT_TYPE), size, boundary);
    if (total == 0) {
        b->failed = true;
        return true;
    }
    deliver_fields(b, h, false, false);
    buf_printf(b, "Content-Type: multipart/byteranges; boundary=%s\r\nContent-Length: %llu\r\n",
        boundary, (unsigned long long)total);
    return true;
}
