/*
 * http, private: character classes, and scanning many bytes at a time.
 */
#ifndef WEIR_HTTP_SCAN_H
#define WEIR_HTTP_SCAN_H

#include "http/http.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    C_TOKEN      = 1,                   /* tchar, RFC 9110 5.6.2 */
    C_VALUE      = 2,                   /* field value: HTAB, SP, VCHAR, obs-text */
    C_TARGET     = 4,                   /* stands in a target as it is: not '#', '?', C_REWRITTEN */
    C_HEX        = 8,
    C_UNRESERVED = 16,                  /* RFC 3986 2.3 */
    C_NAME       = 32,                  /* reg-name without escapes: unreserved and sub-delims */
    C_REWRITTEN  = 64,                  /* '%', and what is sent in targets but stands in no URI */
    C_LOWER      = 128,                 /* C_NAME without capitals */
};
extern const uint8_t http_class[256];

static inline bool
is_class(char c, unsigned wanted)
{
    return (http_class[(unsigned char)c] & wanted) != 0;
}

static inline bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline char
to_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static inline int
hex_value(char c)                       /* of a C_HEX character */
{
    return is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10;
}

/* At p stands '%' and two hexadecimal digits. */
static inline bool
is_escape(const char *p, const char *end)
{
    return end - p >= 3 && *p == '%' && is_class(p[1], C_HEX) && is_class(p[2], C_HEX);
}

/* Is every byte printable ASCII but '#' (and '%' only as an escape)? */
static inline bool
is_target(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '%') {
            if (!is_escape(s.p + i, s.p + s.n))
                return false;
            i += 2;
        } else if (!is_class(s.p[i], C_TARGET | C_REWRITTEN) && s.p[i] != '?') {
            return false;
        }
    return true;
}

/* The two scanners give the first byte of [p, end) that is not of the class, or end; scan_target
 * stops at dots and may stop at any other byte too. `floor` is the lowest address that may be
 * read: with 16 bytes between it and end, what is left at the end is looked at in one more load
 * that reaches back. */
#ifdef __SSE2__
#define SCAN(name, unwanted)                                                                \
    static inline const char *                                                              \
    name(const char *p, const char *end, const char *floor)                                 \
    {                                                                                       \
        unsigned hit;                                                                       \
                                                                                            \
        for (; end - p >= 16; p += 16) {                                                    \
            hit = unwanted(_mm_loadu_si128((const void *)p));                               \
            if (hit != 0)                                                                   \
                return p + __builtin_ctz(hit);                                              \
        }                                                                                   \
        if (p < end && end - floor >= 16) {                                                 \
            hit = unwanted(_mm_loadu_si128((const void *)(end - 16))) >> (16 - (end - p));  \
            return hit != 0 ? p + __builtin_ctz(hit) : end;                                 \
        }                                                                                   \
        return name##_slowly(p, end);                                                       \
    }

static inline unsigned
unwanted_in_value(__m128i v)
{
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    __m128i tab = _mm_cmpeq_epi8(v, _mm_set1_epi8('\t'));
    __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));

    return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, low), del));
}

static inline unsigned
unwanted_in_target(__m128i v)           /* and at '$' and '~', to compare less often */
{
    __m128i one = _mm_or_si128(v, _mm_set1_epi8(1)), two = _mm_or_si128(v, _mm_set1_epi8(2));
    __m128i no = _mm_cmplt_epi8(v, _mm_set1_epi8(0x21));    /* signed: obs-text too */

    no = _mm_or_si128(no, _mm_cmpgt_epi8(v, _mm_set1_epi8('z')));
    no = _mm_or_si128(no, _mm_cmpeq_epi8(one, _mm_set1_epi8('#')));     /* and '"' */
    no = _mm_or_si128(no, _mm_cmpeq_epi8(one, _mm_set1_epi8('%')));
    no = _mm_or_si128(no, _mm_cmpeq_epi8(two, _mm_set1_epi8('>')));     /* and '<' */
    no = _mm_or_si128(no, _mm_cmpeq_epi8(two, _mm_set1_epi8('^')));     /* and '\\' */
    no = _mm_or_si128(no, _mm_cmpeq_epi8(v, _mm_set1_epi8('?')));
    no = _mm_or_si128(no, _mm_cmpeq_epi8(v, _mm_set1_epi8('`')));
    no = _mm_or_si128(no, _mm_cmpeq_epi8(v, _mm_set1_epi8('.')));
    return (unsigned)_mm_movemask_epi8(no);
}
#else
#define SCAN(name, unwanted)                                                                \
    static inline const char *                                                              \
    name(const char *p, const char *end, const char *floor)                                 \
    {                                                                                       \
        (void)floor;                                                                        \
        return name##_slowly(p, end);                                                       \
    }
#endif

static inline const char *
scan_value_slowly(const char *p, const char *end)
{
    while (p < end && is_class(*p, C_VALUE))
        p++;
    return p;
}

static inline const char *
scan_target_slowly(const char *p, const char *end)
{
    while (p < end && is_class(*p, C_TARGET) && *p != '.')
        p++;
    return p;
}

SCAN(scan_value, unwanted_in_value)
SCAN(scan_target, unwanted_in_target)

/* ---- known field names (names.c) ---- */

#define KNOWN_MAX 32                    /* bytes of the longest known name, at most */

struct http_known {
    _Alignas(16) char lower[KNOWN_MAX]; /* in lower case, padded with zeros */
    char    fold[KNOWN_MAX];            /* 0x20 where a letter stands: or-ing it in folds case */
    uint8_t n;
};
extern struct http_known http_known[HF_COUNT];
extern uint8_t http_slots[256];         /* hash to id; open addressing, zero ends a run */

/* Length, two characters at the start and two at the end, multiplied by a number that spreads
 * (2^32 over the golden ratio). Where two names collide, the next slot takes the second. */
static inline unsigned
name_hash(const char *p, size_t n)      /* n > 1 */
{
    uint16_t first, last;

    memcpy(&first, p, 2);
    memcpy(&last, p + n - 2, 2);
    return ((((uint32_t)first << 16 | last) | 0x20202020u) + (uint32_t)n) * 0x9e3779b1u >> 24;
}

#ifdef __SSE2__
/* A bit for each of the sixteen bytes that differ. */
static inline unsigned
name_differs(const char *p, const struct http_known *k, size_t from)
{
    __m128i have = _mm_loadu_si128((const void *)(p + from));
    __m128i fold = _mm_load_si128((const void *)(k->fold + from));
    __m128i want = _mm_load_si128((const void *)(k->lower + from));

    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_or_si128(have, fold), want)) ^ 0xffff;
}

/* The id of the name of n (2..KNOWN_MAX) bytes at p, where 16 bytes may be read, or KNOWN_MAX for a
 * longer name. */
static inline enum http_id
known_id(const char *p, unsigned n)
{
    unsigned id, differ;

    for (unsigned at = name_hash(p, n); (id = http_slots[at]) != HF_NONE; at = (at + 1) & 0xff) {
        const struct http_known *k = &http_known[id];

        if (k->n != n)
            continue;
        differ = name_differs(p, k, 0);
        if (n > 16)
            differ |= name_differs(p, k, 16) << 16;
        if (differ << (KNOWN_MAX - n) == 0)     /* what stands behind the name does not count */
            return (enum http_id)id;
    }
    return HF_NONE;
}
#endif

/* ---- between files ---- */

static inline int
fault(struct http_fault *f, unsigned status, const char *why)
{
    *f = (struct http_fault){ status, why };
    return -1;
}

/* Splits h->target; `question` is its first '?', or NULL (target.c). */
int http_target(struct http_head *h, const char *question, struct http_fault *f);

#endif
