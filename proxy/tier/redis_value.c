/*
 * The Redis tier: how its keys are called, what stands there beside values, and for how long.
 *
 * Names    PREFIX "o:{HASH}" is a response without Vary, or a marker that says by what the
 *          responses under this key vary; PREFIX "o:{HASH}:HASH" is a variant, by the list and what
 *          the request has there; "l:" and the same are leases. A hash is the XXH3-128 of what is
 *          compared whole when it was found.
 * Marker   "WEIRVRY" and the version, checksum (XXH3) of all behind it, the key's length (4 bytes,
 *          little-endian), key, canonical Vary.
 * Threads  pure functions.
 */
#include "tier/redis.h"

#include <endian.h>
#include <xxhash.h>

static const char magic[8] = "WEIRVRY\001";
#define HEADER 20

/* ---- names ---------------------------------------------------------------------------------- */

static char *
put_hash(char *at, XXH128_hash_t h)
{
    return put_hex(put_hex(at, h.high64), h.low64);
}

void
rtier_id_of(struct slice key, struct rtier_id *id)
{
    char *at = id->text;

    *at++ = '{';
    at = put_hash(at, XXH3_128bits(key.p, key.n));
    *at++ = '}';
    id->n = (size_t)(at - id->text);
}

void
rtier_id_of_variant(const struct rtier_id *of, struct slice vary, struct slice variant,
    struct rtier_id *id)
{
    XXH128_hash_t by = XXH3_128bits(vary.p, vary.n);
    char *at = id->text + of->n;

    memcpy(id->text, of->text, of->n);
    *at++ = ':';
    at = put_hash(at, XXH3_128bits_withSeed(variant.p, variant.n, by.low64 ^ by.high64));
    id->n = (size_t)(at - id->text);
}

struct slice
rtier_name(struct slice prefix, char kind, const struct rtier_id *id, struct rtier_name *out)
{
    char *at = out->text;

    assert(prefix.n <= RTIER_PREFIX_MAX);
    memcpy(at, prefix.p, prefix.n);
    at += prefix.n;
    *at++ = kind;
    *at++ = ':';
    memcpy(at, id->text, id->n);
    out->n = prefix.n + 2 + id->n;
    return (struct slice){ out->text, out->n };
}

/* ---- markers -------------------------------------------------------------------------------- */

bool
rtier_marker_put(struct slice key, struct slice vary, struct buf *b)
{
    uint32_t n = htole32((uint32_t)key.n);
    uint64_t sum = 0;

    if (key.n > UINT32_MAX)
        return false;
    buf_add(b, magic, sizeof magic);
    buf_add(b, &sum, sizeof sum);
    buf_add(b, &n, sizeof n);
    buf_adds(b, key);
    buf_adds(b, vary);
    if (b->failed)
        return false;
    sum = htole64(key_hash((struct slice){ b->p + 16, b->n - 16 }));
    memcpy(b->p + 8, &sum, sizeof sum);
    return true;
}

/* As sem_vary writes it. */
static bool
vary_good(struct slice vary)
{
    struct slice name;

    if (vary.n == 0 || vary.n > UINT16_MAX)
        return false;
    while (slice_cut(&vary, ',', &name)) {
        if (!http_is_token(name))
            return false;
        for (size_t i = 0; i < name.n; i++)
            if (name.p[i] >= 'A' && name.p[i] <= 'Z')
                return false;
    }
    return true;
}

enum value_verdict
rtier_marker_read(struct slice in, struct slice *key, struct slice *vary)
{
    uint64_t sum;
    uint32_t n;

    if (in.n < sizeof magic || memcmp(in.p, magic, sizeof magic) != 0)
        return VALUE_UNKNOWN;
    if (in.n < HEADER)
        return VALUE_BAD;
    memcpy(&sum, in.p + 8, sizeof sum);
    memcpy(&n, in.p + 16, sizeof n);
    n = le32toh(n);
    if (le64toh(sum) != key_hash((struct slice){ in.p + 16, in.n - 16 }) || n > in.n - HEADER)
        return VALUE_BAD;
    *key = (struct slice){ in.p + HEADER, n };
    *vary = (struct slice){ in.p + HEADER + n, in.n - HEADER - n };
    return vary_good(*vary) ? VALUE_GOOD : VALUE_BAD;
}

/* ---- time ----------------------------------------------------------------------------------- */

static int64_t
fresh_ms(const struct sem_meta *m, int64_t now_ms)
{
    return m->lifetime_ms - sem_age_ms(m, now_ms);              /* RFC 9111 4.2 */
}

int64_t
rtier_left_ms(const struct sem_meta *m, int64_t now_ms)
{
    int64_t stale = m->swr_s > m->sie_s ? m->swr_s : m->sie_s;

    if (stale < 0 || (m->flags & (META_MUST_REVALIDATE | META_NO_CACHE)))
        stale = 0;                                              /* 4.2.4 */
    return fresh_ms(m, now_ms) + stale * 1000;
}

int64_t
rtier_keep_ms(const struct sem_meta *m, int64_t now_ms, int64_t min_ms, int64_t max_ms)
{
    int64_t fresh = fresh_ms(m, now_ms), left = rtier_left_ms(m, now_ms);

    if ((m->flags & META_NO_CACHE) || fresh < min_ms || fresh <= 0)
        return 0;
    return left < max_ms ? left : max_ms;
}
