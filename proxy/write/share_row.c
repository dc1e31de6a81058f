/*
 * Rows and contents of the shared journal as bytes.
 *
 * Model    one form for all: a version, the XXH3-64 of what follows, then parts, each behind its
 *          length; of a row the first part has its numbers at fixed places, little-endian. A seq is
 *          known only when Redis has given it, so what is made before is summed with the row's own
 *          random seed, what is made later with its seq: bytes of another write are known for what
 *          they are. A version that is not known is damage to who reads it.
 * Threads  any.
 */
#include "write/share.h"

#include <endian.h>

#define VERSION   1
#define HEAD      9                     /* version, sum */
#define NONE      UINT32_MAX
#define ROW_N     58
#define PROGRESS_N 23

/* ---- parts ----------------------------------------------------------------------------------- */

static void
put64(char *at, uint64_t v)
{
    v = htole64(v);
    memcpy(at, &v, sizeof v);
}

static void
put32(char *at, uint32_t v)
{
    v = htole32(v);
    memcpy(at, &v, sizeof v);
}

static void
put16(char *at, uint16_t v)
{
    v = htole16(v);
    memcpy(at, &v, sizeof v);
}

static uint64_t
get64(const char *at)
{
    uint64_t v;

    memcpy(&v, at, sizeof v);
    return le64toh(v);
}

static uint32_t
get32(const char *at)
{
    uint32_t v;

    memcpy(&v, at, sizeof v);
    return le32toh(v);
}

static uint16_t
get16(const char *at)
{
    uint16_t v;

    memcpy(&v, at, sizeof v);
    return le16toh(v);
}

static void
pack(struct buf *b, uint64_t seed, const struct slice *parts, size_t n)
{
    char head[HEAD] = { VERSION }, length[4];

    put64(head + 1, sum_of(seed, parts, n));
    buf_add(b, head, sizeof head);
    for (size_t i = 0; i < n; i++) {
        put32(length, parts[i].p != NULL ? (uint32_t)parts[i].n : NONE);
        buf_add(b, length, sizeof length);
        buf_adds(b, parts[i].p != NULL ? parts[i] : (struct slice){ "", 0 });
    }
}

static bool
unpack(struct slice s, uint64_t seed, struct slice *parts, size_t n)
{
    size_t at = HEAD;

    if (s.p == NULL || s.n < HEAD || s.p[0] != VERSION)
        return false;
    for (size_t i = 0; i < n; i++) {
        uint32_t length;

        if (s.n - at < sizeof length)
            return false;
        length = get32(s.p + at);
        at += sizeof length;
        if (length != NONE && length > s.n - at)
            return false;
        parts[i] = length == NONE ? (struct slice){ NULL, 0 } : (struct slice){ s.p + at, length };
        at += parts[i].n;
    }
    return at == s.n && sum_of(seed, parts, n) == get64(s.p + 1);
}

static bool
seed_of(struct slice z, uint64_t *seed)
{
    if (z.p == NULL || z.n != SHARE_SEED)
        return false;
    memcpy(seed, z.p, SHARE_SEED);
    return true;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void
put_progress(char *at, const struct write_row *r)
{
    put64(at, (uint64_t)r->due_ms);
    put64(at + 8, (uint64_t)r->settled_ms);
    put32(at + 16, r->attempts);
    put16(at + 20, r->status);
    at[22] = (char)r->state;
}

static void
get_progress(const char *at, struct write_row *r)
{
    r->due_ms = (int64_t)get64(at);
    r->settled_ms = (int64_t)get64(at + 8);
    r->attempts = get32(at + 16);
    r->status = get16(at + 20);
    r->state = (uint8_t)at[22];
}

void
row_pack(struct buf *b, uint64_t seed, const struct write_row *r, struct slice route)
{
    char at[ROW_N] = { 0 };
    const struct slice parts[2] = { { at, ROW_N }, route };

    put64(at, r->c1);
    put64(at + 8, r->c2);
    put64(at + 16, r->who);
    put64(at + 24, (uint64_t)r->accepted_ms);
    at[32] = (char)r->method;
    at[33] = (char)r->lane;
    at[34] = r->orders_target;
    put_progress(at + 35, r);
    pack(b, seed, parts, NELEM(parts));
}

void
progress_pack(struct buf *b, uint64_t seq, const struct write_row *r)
{
    char at[PROGRESS_N];
    const struct slice parts[1] = { { at, PROGRESS_N } };

    put_progress(at, r);
    pack(b, seq, parts, NELEM(parts));
}

bool
row_unpack(struct journal *j, uint64_t seq, struct slice z, struct slice r, struct slice v,
    struct write_row *out)
{
    struct slice parts[2], progress[1];
    uint64_t seed;
    const char *at;

    *out = (struct write_row){ .seq = seq, .state = WRITE_UNCERTAIN };
    if (!seed_of(z, &seed) || !unpack(r, seed, parts, 2) || parts[0].n != ROW_N)
        return false;
    at = parts[0].p;
    out->c1 = get64(at);
    out->c2 = get64(at + 8);
    out->who = get64(at + 16);
    out->accepted_ms = (int64_t)get64(at + 24);
    out->method = (uint8_t)at[32];
    out->lane = (uint8_t)at[33];
    out->orders_target = at[34] != 0;
    get_progress(at + 35, out);
    out->route = parts[1].p != NULL ? journal_route(j, parts[1]) : 0;
    if (v.n > 0) {
        if (!unpack(v, seq, progress, 1) || progress[0].n != PROGRESS_N)
            return false;
        get_progress(progress[0].p, out);
    }
    return out->state < WRITE_STATES && out->lane < WRITE_LANES;
}

/* ---- contents -------------------------------------------------------------------------------- */

void
content_pack(struct buf *b, uint64_t seed, const struct write_content *c)
{
    const struct slice parts[6] = { c->method_name, c->url, c->target, c->host, c->order_key,
        c->idempotency_key };

    pack(b, seed, parts, NELEM(parts));
}

bool
content_unpack(struct slice z, struct slice c, struct write_content *out)
{
    struct slice parts[6];
    uint64_t seed;

    if (!seed_of(z, &seed) || !unpack(c, seed, parts, 6))
        return false;
    out->method_name = parts[0];
    out->url = parts[1];
    out->target = parts[2];
    out->host = parts[3];
    out->order_key = parts[4];
    out->idempotency_key = parts[5];
    return true;
}

void
body_pack(struct buf *b, uint64_t seed, const struct write_content *c)
{
    struct slice parts[2] = { c->fields, c->has_body ? c->body : (struct slice){ NULL, 0 } };

    if (c->has_body && parts[1].p == NULL)
        parts[1].p = "";
    pack(b, seed, parts, NELEM(parts));
}

bool
body_unpack(struct slice z, struct slice b, struct write_content *out)
{
    struct slice parts[2];
    uint64_t seed;

    if (!seed_of(z, &seed) || !unpack(b, seed, parts, 2))
        return false;
    out->fields = parts[0];
    out->body = parts[1];
    out->has_body = parts[1].p != NULL;
    return true;
}

void
answer_pack(struct buf *b, uint64_t seq, const struct write_content *c)
{
    const struct slice parts[3] = { c->answer_head, c->answer_body, c->cause };

    pack(b, seq, parts, NELEM(parts));
}

bool
answer_unpack(uint64_t seq, struct slice a, struct write_content *out)
{
    struct slice parts[3];

    if (!unpack(a, seq, parts, 3))
        return false;
    out->answer_head = parts[0];
    out->answer_body = parts[1];
    out->cause = parts[2];
    return true;
}
