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

/* The end of a hit's head, with the empty line. Room for 200 bytes and the name. */
size_t
status_hit(char *out, size_t cap, const struct slice via, int64_t age_ms, int64_t ttl_ms, bool close)
{
    int64_t ttl = ttl_ms / 1000;
    size_t n = 0;

    assert(cap >= via.n + 128);
    n = put(out, n, SLICE("Age: "));
    n += put_u64(out + n, (uint64_t)(age_ms / 1000));
    n = put(out, n, SLICE("\r\nCache-Status: "));
    n = put(out, n, via);
    n = put(out, n, SLICE("; hit; ttl="));
    if (ttl < 0)
        out[n++] = '-';
    n += put_u64(out + n, (uint64_t)(ttl < 0 ? -ttl : ttl));
    if (close)
        n = put(out, n, SLICE("\r\nConnection: close"));
    return put(out, n, SLICE("\r\n\r\n"));
}

static const char *
fwd_name(enum fwd f)
{
    static const char *const name[] = { "", "bypass", "method", "uri-miss", "vary-miss", "request", "stale" };

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
    sf_put_string(b, buf_slice(&text));
    buf_free(&text);
}

/* Appends "Cache-Status: ...\r\n" of an answer that came by way of the origin or of a stored response. v: the
 * flight's view, NULL without one. */
void
status_put(const struct request *r, struct buf *b, const struct fill_view *v)
{
    const struct object *o = r->object;
    int64_t now = wall_ms();

    buf_addz(b, "Cache-Status: ");
    buf_adds(b, r->site->via);
    if (r->fwd == FWD_NONE)
        buf_addz(b, "; hit");
    else
        buf_addz(b, "; fwd=");
    buf_addz(b, fwd_name(r->fwd));
    if (r->fwd != FWD_NONE && r->fwd_status != 0) {
        buf_addz(b, "; fwd-status=");
        buf_addu(b, r->fwd_status);
    }
    if (o != NULL)
        buf_printf(b, "; ttl=%lld", (long long)((o->meta.lifetime_ms - sem_age_ms(&o->meta, now)) / 1000));
    if (v != NULL && v->meta != NULL)
        buf_addz(b, "; stored");
    if (r->collapsed)
        buf_addz(b, "; collapsed");
    if (r->site->conf->cache_status_key && r->key.bytes.n > 0)
        put_key(r, b);
    if (r->why != NULL) {
        buf_addz(b, "; detail=");
        buf_addz(b, r->why);
    }
    buf_addz(b, "\r\n");
}
