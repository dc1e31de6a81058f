/*
 * The value: a whole response in bytes, for tiers that outlive the process or are shared.
 *
 * Model    a header of fixed size, little-endian, then key, vary, variant, head, tags, groups,
 *          body, without gaps. The checksum (XXH3) covers all behind itself. A reader takes its own
 *          version alone: another is a miss, so that old and new programs may share a tier. What is
 *          read is checked as if a stranger had written it: sums of lengths, the head's lines and
 *          Content-Length, the marks within it, the variant's values, each tag.
 *
 *     0  "WEIRVAL" and the version            48  response_ms, date_ms, age_ms, lifetime_ms,
 *     8  checksum of all from 16 on               last_modified_s: 8 bytes each
 *    16  body's size                          88  swr_s, sie_s: 4 each
 *    24  lengths of key, variant, head,       96  status, flags: 2 each
 *        tags, groups: 4 each                100  status_n, etag_at, etag_n: 4 each
 *    44  length of vary: 2                   112  route_id
 *    46  number of tags, of groups: 1 each   120  position: 2 of 8
 *
 * Threads  pure functions.
 */
#include "tier/value.h"

#include <endian.h>

#define HEADER  136
#define VERSION 2
#define LARGEST ((uint64_t)1 << 40)     /* of a body: sums cannot overflow */
#define FAR     ((int64_t)1 << 50)      /* a time: milliseconds for 35,000 years */
#define CLOCK_SLEW_MS 1000
static const char magic[8] = "WEIRVAL\002";

#define KNOWN   (META_NO_CACHE | META_MUST_REVALIDATE | META_HEURISTIC | META_FORCED | \
    META_SHARED_AUTH | META_EXPLICIT | META_DECODED)
_Static_assert(META_NO_CACHE == 1 && META_MUST_REVALIDATE == 2 && META_HEURISTIC == 4 &&
    META_FORCED == 8 && META_SHARED_AUTH == 16 && META_EXPLICIT == 32 && META_DECODED == 128,
    "these are the bits of the format: where the enum changes, they are mapped here");
_Static_assert(HTTP_NO_DATE == INT64_MIN, "last_modified_s: none is the least number");
_Static_assert(sizeof magic == 8 && VERSION == 2, "the version is the magic's last byte");

/* ---- numbers ------------------------------------------------------------------------------- */

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

/* ---- writing -------------------------------------------------------------------------------- */

static void
put_meta(char *h, const struct sem_meta *m)
{
    put64(h + 48, (uint64_t)m->response_ms);
    put64(h + 56, (uint64_t)m->date_ms);
    put64(h + 64, (uint64_t)m->age_ms);
    put64(h + 72, (uint64_t)m->lifetime_ms);
    put64(h + 80, (uint64_t)m->last_modified_s);
    put32(h + 88, (uint32_t)m->swr_s);
    put32(h + 92, (uint32_t)m->sie_s);
    put16(h + 96, m->status);
    put16(h + 98, m->flags);
}

static uint64_t
texts_size(const struct slice *texts, size_t n)
{
    uint64_t size = 0;

    for (size_t i = 0; i < n; i++)
        size += sizeof(uint32_t) + texts[i].n;
    return size;
}

static void
put_texts(struct buf *b, const struct slice *texts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char length[4];

        put32(length, (uint32_t)texts[i].n);
        buf_add(b, length, sizeof length);
        buf_adds(b, texts[i]);
    }
}

uint64_t
value_size(const struct store_parts *p)
{
    return HEADER + p->key->bytes.n + p->vary.n + p->variant.n + p->head.n + body_size(p->body) +
        texts_size(p->tags, p->ntags) + texts_size(p->groups, p->ngroups);
}

bool
value_begin(const struct store_parts *p, struct buf *b)
{
    uint64_t tags = texts_size(p->tags, p->ntags), groups = texts_size(p->groups, p->ngroups);
    char *h;

    if ((p->meta.flags & ~KNOWN) != 0 || p->search.n > 0 || p->ntags > 255 ||
        p->ngroups > STORE_GROUPS_MAX || p->vary.n > UINT16_MAX || tags > UINT32_MAX ||
        groups > UINT32_MAX || p->key->bytes.n > UINT32_MAX || p->head.n > UINT32_MAX ||
        p->variant.n > UINT32_MAX || (h = buf_reserve(b, HEADER)) == NULL)
        return false;
    memset(h, 0, HEADER);
    memcpy(h, magic, sizeof magic);
    put64(h + 16, body_size(p->body));
    put32(h + 24, (uint32_t)p->key->bytes.n);
    put32(h + 28, (uint32_t)p->variant.n);
    put32(h + 32, (uint32_t)p->head.n);
    put32(h + 36, (uint32_t)tags);
    put32(h + 40, (uint32_t)groups);
    put16(h + 44, (uint16_t)p->vary.n);
    h[46] = (char)p->ntags;
    h[47] = (char)p->ngroups;
    put_meta(h, &p->meta);
    put32(h + 100, p->status_n);
    put32(h + 104, p->etag_at);
    put32(h + 108, p->etag_n);
    put64(h + 112, p->route_id);
    b->n += HEADER;
    buf_adds(b, p->key->bytes);
    buf_adds(b, p->vary);
    buf_adds(b, p->variant);
    buf_adds(b, p->head);
    put_texts(b, p->tags, p->ntags);
    put_texts(b, p->groups, p->ngroups);
    return !b->failed;
}

void
value_position(struct buf *b, struct store_position at)
{
    put64(b->p + 120, at.ms);
    put64(b->p + 128, at.n);
}

void
value_seal(struct buf *b)
{
    put64(b->p + 8, key_hash((struct slice){ b->p + 16, b->n - 16 }));
}

/* ---- reading -------------------------------------------------------------------------------- */

static void
get_meta(const char *h, struct sem_meta *m)
{
    *m = (struct sem_meta){
        .response_ms = (int64_t)get64(h + 48), .date_ms = (int64_t)get64(h + 56),
        .age_ms = (int64_t)get64(h + 64), .lifetime_ms = (int64_t)get64(h + 72),
        .last_modified_s = (int64_t)get64(h + 80), .swr_s = (int32_t)get32(h + 88),
        .sie_s = (int32_t)get32(h + 92), .status = get16(h + 96), .flags = get16(h + 98) };
}

static struct slice
take(struct slice *rest, size_t n)
{
    struct slice s = { rest->p, n };

    rest->p += n;
    rest->n -= n;
    return s;
}

bool
value_next(struct slice *rest, struct slice *text)
{
    uint32_t n;

    if (rest->n < sizeof n || (n = get32(rest->p)) > rest->n - sizeof n)
        return false;
    take(rest, sizeof n);
    *text = take(rest, n);
    return true;
}

/* As many as it says, and nothing behind them. */
static bool
texts_good(struct slice texts, unsigned n, bool groups)
{
    struct slice text;

    for (; n > 0; n--)
        if (!value_next(&texts, &text) || (groups && memchr(text.p, '\0', text.n) == NULL))
            return false;
    return texts.n == 0;
}

/* A value for each name of the list, as sem_variant writes them. */
static bool
variant_good(struct slice vary, struct slice variant)
{
    struct slice name;

    while (vary.n > 0 && slice_cut(&vary, ',', &name)) {
        uint32_t n;

        if (name.n == 0 || variant.n < sizeof n)
            return false;
        n = get32(take(&variant, sizeof n).p);
        if (n == UINT32_MAX)
            continue;
        if (n > variant.n)
            return false;
        take(&variant, n);
    }
    return variant.n == 0;
}

static bool
status_good(struct slice line, unsigned status)
{
    return status >= 200 && status <= 999 && line.n >= 15 && slice_starts(line, SLICE("HTTP/1.1 "))
        && (unsigned)(line.p[9] - '0') == status / 100
        && (unsigned)(line.p[10] - '0') == status / 10 % 10
        && (unsigned)(line.p[11] - '0') == status % 10 && line.p[12] == ' '
        && memchr(line.p, '\r', line.n) == line.p + line.n - 2
        && memchr(line.p, '\n', line.n) == line.p + line.n - 1;
}

/* One message, with one length, which is that of its body (RFC 9112 6.3). */
static bool
head_good(const struct value *v)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct slice head = v->head;
    uint64_t length;

    if (v->status_n > head.n || !status_good(take(&head, v->status_n), v->meta.status) ||
        http_parse_fields(head.p, head.n, &h) == -1 || http_has(&h, HF_TRANSFER_ENCODING))
        return false;
    if (!http_has(&h, HF_CONTENT_LENGTH))
        return v->body.n == 0 && v->meta.status == 204;
    return slice_u64(http_only(&h, HF_CONTENT_LENGTH), &length) && length == v->body.n;
}

static bool
marks_good(const struct value *v)
{
    return v->etag_at <= v->head.n && v->etag_n <= v->head.n - v->etag_at &&
        v->etag_n <= UINT16_MAX && (v->etag_at > 0 || v->etag_n == 0);
}

/* Nothing that arithmetic on times could overflow. */
static bool
meta_good(const struct sem_meta *m)
{
    const int64_t times[] = { m->response_ms, m->date_ms, m->age_ms, m->lifetime_ms,
        m->last_modified_s != HTTP_NO_DATE ? m->last_modified_s : 0 };

    for (size_t i = 0; i < NELEM(times); i++)
        if (times[i] < -FAR || times[i] > FAR)
            return false;
    return (m->flags & ~KNOWN) == 0;
}

static bool
value_good(const struct value *v)
{
    struct slice url = { v->key.p, strnlen(v->key.p, v->key.n) };

    return meta_good(&v->meta) && v->status_n <= UINT16_MAX &&
        v->ngroups <= STORE_GROUPS_MAX && memmem(url.p, url.n, "://", 3) != NULL &&
        head_good(v) && marks_good(v) && variant_good(v->vary, v->variant) &&
        texts_good(v->tags, v->ntags, false) && texts_good(v->groups, v->ngroups, true);
}

enum value_verdict
value_decode(struct slice in, struct value *v)
{
    struct slice rest = in;
    uint64_t body, others;
    const char *h;

    if (in.n < HEADER || memcmp(in.p, magic, sizeof magic) != 0)
        return VALUE_UNKNOWN;
    h = take(&rest, HEADER).p;
    body = get64(h + 16);
    others = (uint64_t)get32(h + 24) + get32(h + 28) + get32(h + 32) + get32(h + 36) +
        get32(h + 40) + get16(h + 44);
    if (body > LARGEST || body + others != rest.n ||
        get64(h + 8) != key_hash((struct slice){ in.p + 16, in.n - 16 }))
        return VALUE_BAD;
    v->key = take(&rest, get32(h + 24));
    v->vary = take(&rest, get16(h + 44));
    v->variant = take(&rest, get32(h + 28));
    v->head = take(&rest, get32(h + 32));
    v->tags = take(&rest, get32(h + 36));
    v->groups = take(&rest, get32(h + 40));
    v->body = rest;
    v->ntags = (uint8_t)h[46];
    v->ngroups = (uint8_t)h[47];
    get_meta(h, &v->meta);
    v->status_n = get32(h + 100);
    v->etag_at = get32(h + 104);
    v->etag_n = get32(h + 108);
    v->route_id = get64(h + 112);
    v->position[0] = get64(h + 120);
    v->position[1] = get64(h + 128);
    return value_good(v) ? VALUE_GOOD : VALUE_BAD;
}

/* ---- using ---------------------------------------------------------------------------------- */

static size_t
to_slices(struct slice texts, struct slice *out)
{
    size_t n = 0;

    while (value_next(&texts, &out[n]))
        n++;
    return n;
}

void
value_to_parts(const struct value *v, struct value_parts *out)
{
    struct key *k = &out->key;
    const char *scheme, *path;

    *k = (struct key){ .bytes = v->key, .hash = key_hash(v->key),
        .url_n = (uint32_t)strnlen(v->key.p, v->key.n) };
    scheme = memmem(v->key.p, k->url_n, "://", 3);
    path = memchr(scheme + 3, '/', (size_t)(v->key.p + k->url_n - (scheme + 3)));
    k->path_at = path != NULL ? (uint32_t)(path - v->key.p) : k->url_n;
    k->url_hash = key_hash((struct slice){ v->key.p, k->url_n });
    out->p = (struct store_parts){ .key = k, .vary = v->vary, .variant = v->variant,
        .head = v->head, .status_n = v->status_n, .etag_at = v->etag_at, .etag_n = v->etag_n,
        .meta = v->meta, .request_ms = v->meta.response_ms, .route_id = v->route_id,
        .tags = out->tags, .groups = out->groups };
    out->p.ntags = to_slices(v->tags, out->tags);
    out->p.ngroups = to_slices(v->groups, out->groups);
}

/* With a validator it always may: a 304 makes it fresh without its body (RFC 9111 4.3). */
bool
value_useful(const struct value *v, int64_t now_ms)
{
    const struct sem_meta *m = &v->meta;
    int64_t stale = m->swr_s > m->sie_s ? m->swr_s : m->sie_s;
    int64_t left = m->lifetime_ms - sem_age_ms(m, now_ms);      /* 4.2 */

    if (m->response_ms > now_ms + CLOCK_SLEW_MS)
        return false;
    return v->etag_n > 0 || m->last_modified_s != HTTP_NO_DATE || left > 0 ||
        (!(m->flags & META_MUST_REVALIDATE) && stale > 0 && -left <= stale * 1000);
}
