/*
 * gzip that was not asked for: a compressing route asks for identity, and an origin that sends gzip
 * all the same has it undone as it comes.
 *
 * Model    what is stored is identity then, from which the route's own forms are made, and who
 *          cannot take gzip is served. Everything behind on_head sees a response without the
 *          coding: of unknown length, without digests of other bytes (nor trailers, which are
 *          digests mostly), its entity tag weakened, as nginx does it: by the weak tag the origin
 *          can still be asked whether it has changed (RFC 9110 13.1.2 compares weakly), and its
 *          304s about the strong one are read as if they had the weak one (META_DECODED).
 *          What goes to one client alone keeps the coding that this client takes.
 *          Other codings than gzip are not undone; they pass, and are stored, as they came. So is
 *          gzip that says no-transform.
 * Bounds   the origin's bytes come in pieces of a socket's read, and deflate expands a thousandfold
 *          at most: that much more than a window may be there before the origin is held back.
 * Threads  the home loop.
 */
#include "fill/compress.h"

#include "fill/coder.h"
#include "stats/stats.h"

static bool
in_gzip(const struct http_head *h)
{
    struct http_list it = { 0 };
    struct slice coding;
    unsigned n = 0;

    while (http_list_next(h, HF_CONTENT_ENCODING, &it, &coding))
        if (++n > 1 || sem_coding(coding) != SEM_GZIP)
            return false;
    return n == 1;
}

/* Does the one client for whom the response is refuse gzip? */
static bool
refused(const struct flight *f)
{
    unsigned weight[SEM_CODINGS];

    sem_codings(f->request, weight);
    return http_has(f->request, HF_ACCEPT_ENCODING) && weight[SEM_GZIP] == 0;
}

static bool
wanted(const struct flight *f, const struct http_head *h)
{
    struct sem_cc cc;

    if (f->route->compress.n == 0 || h->status < 200 || h->status == 204 || h->status == 206 ||
        h->status == 304 || h->framing == HTTP_NO_BODY || !in_gzip(h) ||
        (f->semantics.cc.flags & CC_NO_TRANSFORM) || (f->mode == FILL_PRIVATE && !refused(f)))
        return false;
    sem_cc_read(h, &cc);
    return !(cc.flags & CC_NO_TRANSFORM);
}

/* W/ in front of what has none; .p == NULL: memory out. */
static struct slice
weakened(struct flight *f, struct slice etag)
{
    struct slice w = { pool_alloc(f->pool, etag.n + 2), etag.n + 2 };

    if (etag.n > 0 && etag.p[0] == 'W')
        return etag;
    if (w.p != NULL) {
        memcpy((char *)(uintptr_t)w.p, "W/", 2);
        memcpy((char *)(uintptr_t)w.p + 2, etag.p, etag.n);
    }
    return w;
}

/* A copy in the pool: with its entity tag weakened, and (`whole`) without what is about the coded
 * bytes. NULL: memory out. */
static struct http_head *
edited(struct flight *f, const struct http_head *h, bool whole)
{
    struct http_head *c = pool_alloc(f->pool, sizeof *c);
    struct http_field *fields = pool_alloc(f->pool, (h->nfields + 1u) * sizeof *fields);

    if (c == NULL || fields == NULL)
        return NULL;
    *c = *h;
    c->fields = fields;
    c->nfields = 0;
    c->cap = (uint16_t)(h->nfields + 1);
    for (unsigned i = 0; i < h->nfields; i++) {
        struct http_field *to = &fields[c->nfields];

        if (whole && sem_about_bytes(&h->fields[i]))
            continue;
        *to = h->fields[i];
        if (to->id == HF_ETAG && (to->value = weakened(f, to->value)).p == NULL)
            return NULL;
        c->nfields++;
    }
    return c;
}

static void
forget(struct http_head *h, enum http_id id)
{
    h->have[id / 64] &= ~((uint64_t)1 << (id % 64));
}

const struct http_head *
decode_head(struct flight *f, const struct http_head *h)
{
    struct http_head *plain;

    gunzip_free(&f->gunzip);            /* of an answer that was asked for again */
    if (!wanted(f, h))
        return h;
    plain = edited(f, h, true);
    if (plain == NULL || (f->gunzip = gunzip_new()) == NULL)
        return NULL;
    forget(plain, HF_CONTENT_ENCODING);
    forget(plain, HF_CONTENT_LENGTH);
    forget(plain, HF_ACCEPT_RANGES);
    plain->framing = HTTP_UNTIL_CLOSE;
    plain->length = 0;
    COUNT(decoded);
    return plain;
}

const struct http_head *
decode_304(struct flight *f, const struct http_head *r304)
{
    return f->stale->meta.flags & META_DECODED ? edited(f, r304, false) : r304;
}
