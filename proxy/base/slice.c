/*
 * Slices and number formatting: the small things that are used on every path.
 */
#include "base/base.h"

#include <endian.h>

bool
slice_starts(struct slice s, struct slice prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

struct slice
slice_trim(struct slice s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
        s.p++, s.n--;
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

bool
slice_cut(struct slice *rest, char sep, struct slice *part)
{
    const char *at;

    if (rest->p == NULL)
        return false;
    at = rest->n > 0 ? memchr(rest->p, sep, rest->n) : NULL;
    if (at == NULL) {
        *part = *rest;
        *rest = (struct slice){ NULL, 0 };
        return true;
    }
    *part = (struct slice){ rest->p, (size_t)(at - rest->p) };
    rest->n -= part->n + 1;
    rest->p = at + 1;
    return true;
}

bool
slice_u64(struct slice s, uint64_t *out)
{
    uint64_t v = 0;

    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned d = (unsigned char)s.p[i] - '0';

        if (d > 9 || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, d, &v))
            return false;
    }
    *out = v;
    return true;
}

static bool
same(char a, char b, bool any_case)
{
    return a == b || (any_case && (a ^ b) == 0x20 && (a | 0x20) >= 'a' && (a | 0x20) <= 'z');
}

/* How many bytes of the pattern, from p, stand for c; 0: it is not c that they stand for. */
static size_t
glob_one(struct slice pattern, size_t p, char c, bool any_case)
{
    if (p >= pattern.n)
        return 0;
    if (pattern.p[p] == '\\' && p + 1 < pattern.n &&
        (pattern.p[p + 1] == '*' || pattern.p[p + 1] == '?' || pattern.p[p + 1] == '\\'))
        return pattern.p[p + 1] == c ? 2 : 0;
    return pattern.p[p] == '?' || same(pattern.p[p], c, any_case) ? 1 : 0;
}

/* The usual two-pointer match: on a mismatch go back to the last star and let it eat one more. */
static bool
glob(struct slice pattern, struct slice s, bool any_case)
{
    size_t p = 0, i = 0, star = SIZE_MAX, mark = 0, n;

    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            mark = i;
        } else if ((n = glob_one(pattern, p, s.p[i], any_case)) > 0) {
            p += n;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

bool
slice_glob(struct slice pattern, struct slice s)
{
    return glob(pattern, s, false);
}

bool
slice_iglob(struct slice pattern, struct slice s)
{
    return glob(pattern, s, true);
}

size_t
put_u64(char *p, uint64_t v)
{
    size_t n = 1;

    for (uint64_t rest = v; rest >= 10; rest /= 10)
        n++;
    for (size_t i = n; i-- > 0; v /= 10)
        p[i] = (char)('0' + v % 10);
    return n;
}

char *
put_hex_bytes(char *p, const void *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *at = bytes;

    for (size_t i = 0; i < n; i++) {
        *p++ = digits[at[i] >> 4];
        *p++ = digits[at[i] & 15];
    }
    return p;
}

char *
put_hex(char *p, uint64_t v)
{
    uint64_t bytes = htobe64(v);

    return put_hex_bytes(p, &bytes, sizeof bytes);
}

bool
slice_hex(struct slice s, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if ((c < '0' || c > '9') && (c < 'a' || c > 'f'))
            return false;
        *out = *out << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return s.n > 0 && s.n <= 16;
}

bool
slice_hex_bytes(struct slice s, void *out, size_t n)
{
    uint64_t byte;

    if (s.n != 2 * n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!slice_hex((struct slice){ s.p + 2 * i, 2 }, &byte))
            return false;
        ((uint8_t *)out)[i] = (uint8_t)byte;
    }
    return true;
}
