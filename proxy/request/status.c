/*
 * Age and Cache-Status (RFC 9111 5.1, RFC 9211).
 */
#include <stdio.h>

#include "request/priv.h"

static size_t
put(char *out, size_t at, struct slice s)
{
    memcpy(out + at, s.p, s.n);
    return at + s.n;
}

/* Whole seconds, rounded down: what is stale by a moment is not told as if it were not. */
static int64_t
ttl_s(int64_t ttl_ms)
{
    return ttl_ms >= 0 ? ttl_ms / 1000 : -((-ttl_ms + 999) / 1000);
}

/* The name is a token of RFC 9110, where a token of RFC 9651 begins with a letter or '*': any other
 * is written as a string, in which nothing of it needs an escape. */
static bool
name_needs_quotes(struct slice name)
{
    char c = name.n > 0 ? name.p[0] | 0x20 : 'a';

    return (c < 'a' || c > 'z') && name.p[0] != '*';
}

static size_t
put_name(char *out, size_t at, struct slice name)
{
    bool quotes = name_needs_quotes(name);

    if (UNLIKELY(quotes))
        out[at++] = '"';
    at = put(out, at, name);
    if (UNLIKELY(quotes))
        out[at++] = '"';
    return at;
}

/* The end of a hit's head, with the empty line. Room for 128 bytes and the name. */
size_t
status_hit(char *out, size_t cap, const struct slice via, int64_t age_ms, int64_t ttl_ms,
    bool close)
{
    int64_t ttl = ttl_s(ttl_ms);
    size_t n = 0;

    assert(cap >= via.n + 128);
    n = put(out, n, SLICE("Age: "));
    n += put_u64(out + n, (uint64_t)(age_ms / 1000));
    n = put(out, n, SLICE("\r\nCache-Status: "));
    n = put_name(out, n, via);
    n = put(out, n, SLICE("; hit; ttl="));
    if (ttl < 0)
        out[n++] = '-';
    n += put_u64(out + n, (uint64_t)(ttl < 0 ? -ttl : ttl));
    if (close)
        n = put(out, n, SLICE("\r\nConnection: close"));
    return put(out, n, SLICE("\r\n\r\n"));
}

const char *
status_fwd(enum fwd f)
{
    static const char *const name[] = { NULL, "bypass", "method", "uri-miss", "vary-miss",
        "request", "stale", "partial" };

    return name[f];
}

static void
put_key(const struct request *r, struct buf *b)
{
    struct buf text = { 0 };

    /* What parts a recipe adds may be a client's secret: the URL alone is shown. */
    for (size_t i = 0; i < r->key.url_n; i++)
        if (r->key.bytes.p[i] >= 0x20 && r->key.bytes.p[i] < 0x7f)
            buf_addc(&text, r->key.bytes.p[i]);
    buf_addz(b, "; key=");
    sf_put_string(b, buf_slice(&text));     /* never refused */
    buf_free(&text);
}

static void
put_ttl(struct buf *b, const struct sem_meta *m)
{
    buf_addz(b, "; ttl=");
    sf_put_integer(b, ttl_s(m->lifetime_ms - sem_age_ms(m, wall_ms())));
}

/* Our name, and how the request was handled: a hit, or why it went forward. */
static void
put_outcome(const struct request *r, struct buf *b)
{
    sf_put_text(b, r->site->via);
    if (r->fwd == FWD_NONE) {
        buf_addz(b, "; hit");
        return;
    }
    buf_addz(b, "; fwd=");
    buf_addz(b, status_fwd(r->fwd));
    if (r->fwd_status != 0) {
        buf_addz(b, "; fwd-status=");
        buf_addu(b, r->fwd_status);
    }
}

/* Appends "Cache-Status: ...\r\n" of an answer that came by way of the origin or of a stored
 * response, behind the members of caches nearer to the origin (RFC 9211 2). v: the flight's view,
 * NULL without one. */
void
status_put(const struct request *r, struct buf *b, const struct fill_view *v)
{
    buf_addz(b, "Cache-Status: ");
    put_outcome(r, b);
    if (r->object != NULL && !r->unstored)
        put_ttl(b, &r->object->meta);
    else if (v != NULL && v->meta != NULL)
        put_ttl(b, v->meta);
    if (r->answer_stored || (v != NULL && v->meta != NULL && (v->stored || !v->tags_later)))
        buf_addz(b, "; stored");
    if (r->collapsed)
        buf_addz(b, "; collapsed");
    if (r->site->conf->cache_status_key && r->key.bytes.n > 0)
        put_key(r, b);
    if (r->pending || r->why != NULL) {
        buf_addz(b, "; detail=");
        sf_put_text(b, r->pending ? SLICE("pending") : slice_of(r->why));
    }
    buf_addz(b, "\r\n");
}
