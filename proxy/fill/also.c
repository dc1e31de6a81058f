/*
 * A response that is also the answer to a GET: what a POST or a PUT leaves under its own target
 * (RFC 9110 8.7, 9.3.3), what a QUERY names as the resource of its result (RFC 10008 2.3).
 *
 * Model    the want says that this may be (`also`). When the head comes the flight judges whether
 *          the response may be stored so, and then keeps its body, private or not. Under which key,
 *          and as of which purge sequence, only who asked can say: fill_store_as. What comes later
 *          of that and of the body's end publishes. Nobody joins on that account: the flight is
 *          known by its own key, if it has one.
 * Threads  home loop.
 * Not here what may be trusted of Content-Location, and the order with the purge of a write
 *          (request/also.c).
 */
#include "fill/compress.h"

/* As far as the head tells. */
bool
also_judge(struct flight *f, const struct http_head *h, bool stored)
{
    struct http_head ok = *h;
    struct buf b = { 0 };

    if (!f->also || (!stored && f->mode != FILL_PRIVATE) ||
        !sem_store_as_get(&f->semantics, h, &f->route->rules, f->request_ms, wall_ms(),
            &f->also_meta) ||
        (h->framing == HTTP_LENGTH && h->length > (uint64_t)f->route->max_object) ||
        (!stored && !flight_may_vary(f, h)) || compress_misfit(f->route, h) ||
        (f->route->compress.n > 0 && sem_coded(h)))
        return false;
    if (f->gunzip != NULL)
        f->also_meta.flags |= META_DECODED;
    if (h->status != 200) {
        ok.status = 200;
        ok.reason = slice_of(http_reason(200));
    }
    if (head_build(f, &ok, HEAD_OTHERS, &b, &f->also_marks) == 0)
        f->also_head = pool_slice(f->pool, buf_slice(&b));
    buf_free(&b);
    return f->also_head.p != NULL;
}

static void
publish(struct flight *f)
{
    struct store_parts parts = {
        .key = &f->also_key, .status_n = f->also_marks.status_n, .etag_at = f->also_marks.etag_at,
        .etag_n = f->also_marks.etag_n, .meta = f->also_meta, .stamp = f->also_stamp,
    };
    struct object *o = NULL;

    if (flight_publish(f, &parts, f->also_head, &o) == STORE_STORED)
        object_unref(&o);
}

void
also_ended(struct flight *f)
{
    if (f->also_head.p != NULL && f->also_key.bytes.p != NULL)
        publish(f);
}

void
fill_store_as(struct fill *r, const struct key *key, uint64_t stamp)
{
    struct flight *f = r->flight;

    if (f == NULL || !r->starter || f->also_head.p == NULL || f->also_key.bytes.p != NULL)
        return;
    f->also_key = *key;
    f->also_key.bytes = pool_slice(f->pool, key->bytes);
    f->also_stamp = stamp;
    if (f->also_key.bytes.p != NULL && f->view.complete && f->also_whole)
        publish(f);
}

uint64_t
fill_stamp(const struct fill *r)
{
    return r->flight->stamp;
}
