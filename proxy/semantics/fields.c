/*
 * Fields of stored responses: which are kept, which a 304 replaces, which a 304 to a client has
 * (RFC 9111 3.1, 3.2; RFC 9110 15.4.5); and which writes invalidate (RFC 9111 4.4).
 *
 * Threads  pure functions.
 */
#include "semantics/semantics.h"
#include "semantics/priv.h"

static bool
name_starts(struct slice name, struct slice prefix)
{
    return name.n > prefix.n && strncasecmp(name.p, prefix.p, prefix.n) == 0;
}

/* What the origin says of one exchange and one client: a cookie (RFC 9111 7.3), what it allows that
 * client still, how long it took, where it was traced, an answer to credentials (RFC 9110 11.6.3),
 * that the client is to forget what it has of the site. */
bool
sem_of_one_exchange(const struct http_field *f)
{
    static const struct slice names[] = {
        SLICE("Server-Timing"), SLICE("Traceresponse"), SLICE("RateLimit"),
        SLICE("Authentication-Info"), SLICE("Clear-Site-Data"),
    }, families[] = {
        SLICE("RateLimit-"), SLICE("X-RateLimit-"), SLICE("X-Rate-Limit-"),
    };

    if (f->id != HF_NONE)
        return f->id == HF_SET_COOKIE;
    for (size_t i = 0; i < NELEM(names); i++)
        if (slice_ieq(f->name, names[i]))
            return true;
    for (size_t i = 0; i < NELEM(families); i++)
        if (name_starts(f->name, families[i]))
            return true;
    return false;
}

static bool
replayed(const struct sem_cc *cc, struct slice name)
{
    for (size_t i = 0; cc->replay != NULL && i < cc->replay->n; i++)
        if (slice_ieq(name, cc->replay->names[i]))
            return true;
    return false;
}

bool
sem_keeps(const struct http_head *response, const struct sem_cc *cc, const struct http_field *f)
{
    switch (f->id) {
    case HF_AGE:                        /* 5.1: written anew for each answer */
    case HF_CONTENT_LENGTH:             /* written from the content that is stored */
    case HF_X_REQUEST_ID:               /* of the one request that it answered */
    case HF_TRAILER:                    /* announces trailer fields, which are not stored */
        return false;
    default:
        break;
    }
    if (!http_forwards(response, f) || name_starts(f->name, SLICE("Proxy-")) ||
        (sem_of_one_exchange(f) && !replayed(cc, f->name)))
        return false;
    return !(cc->flags & (CC_NO_CACHE_FIELDS | CC_PRIVATE_FIELDS)) ||
        !sem_cc_names(response, cc, f->name);
}

/* 3.2: all but what is not stored, Content-Length, and what tells how the stored content was made
 * or what its bytes add up to. The media type is not among those: the content is kept as it came,
 * whatever it is called. An entity tag that selected is the stored one, or a weak form of it, which
 * would only weaken it. */
bool
sem_304_updates(const struct http_head *r304, const struct sem_cc *cc, const struct http_field *f)
{
    switch (f->id) {
    case HF_CONTENT_ENCODING:
    case HF_CONTENT_RANGE:
        return false;
    case HF_ETAG:
        if (!sem_etag_valid(f->value) || f->value.p[0] == 'W')
            return false;
        /* fall through */
    default:
        if (slice_ieq(f->name, SLICE("Content-MD5")) || slice_ieq(f->name, SLICE("Content-Digest")))
            return false;
        return sem_keeps(r304, cc, f);
    }
}

/* 15.4.5 names six. Last-Modified guides the update of a cache that has no entity tag, as do the
 * targeted fields of RFC 9213; and what a browser checks before it lets a page see the answer
 * (Access-Control-*) is no representation metadata. */
bool
sem_in_304(const struct http_field *f)
{
    switch (f->id) {
    case HF_CACHE_CONTROL:
    case HF_CDN_CACHE_CONTROL:
    case HF_CONTENT_LOCATION:
    case HF_DATE:
    case HF_ETAG:
    case HF_EXPIRES:
    case HF_LAST_MODIFIED:
    case HF_VARY:
        return true;
    default:
        return name_starts(f->name, SLICE("Access-Control-"));
    }
}

bool
sem_coded(const struct http_head *h)
{
    struct http_list it = { 0 };
    struct slice coding;

    while (http_list_next(h, HF_CONTENT_ENCODING, &it, &coding))
        if (!slice_ieq(coding, SLICE("identity")))
            return true;
    return false;
}

/* ---- invalidation -------------------------------------------------------------------------- */

/* 4.4: a non-error response to a method that is unsafe, or of which we do not know. */
bool
sem_invalidates(enum http_method m, unsigned status)
{
    return !http_method_safe(m) && status >= 200 && status < 400;
}

/* "scheme://authority" of an absolute URL; empty when it is none. */
static struct slice
origin_of(struct slice url)
{
    const char *end = url.p + url.n, *p = memmem(url.p, url.n, "://", 3);

    if (p == NULL || p == url.p)
        return (struct slice){ NULL, 0 };
    for (p += 3; p < end && *p != '/' && *p != '?' && *p != '#'; p++)
        ;
    return (struct slice){ url.p, (size_t)(p - url.p) };
}

bool
sem_same_origin(struct slice a, struct slice b)
{
    struct slice x = origin_of(a), y = origin_of(b);

    return x.n > 0 && slice_ieq(x, y);
}
