/*
 * Byte ranges asked for and answered (RFC 9110 14.1.2, 14.2, 14.4).
 *
 * Model    a specification is read, cut to the size of the representation, and joined with the
 *          ranges before it that it overlaps or touches; the joined range stands where the first
 *          of them stood.
 */
#include "http/scan.h"

enum spec { MALFORMED, BEYOND, WITHIN, WHOLE_OF_NOTHING };

/* Digits into *v, saturating: a position beyond 2^64 is beyond every representation. */
static bool
position(struct slice s, uint64_t *v)
{
    *v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]))
            return false;
        if (__builtin_mul_overflow(*v, 10, v) ||
            __builtin_add_overflow(*v, (uint64_t)(s.p[i] - '0'), v)) {
            *v = UINT64_MAX;
            for (; i < s.n; i++)
                if (!is_digit(s.p[i]))
                    return false;
            return true;
        }
    }
    return s.n > 0;
}

static enum spec
one_spec(struct slice s, uint64_t size, struct http_range *r)
{
    const char *dash = memchr(s.p, '-', s.n);
    struct slice first, last;

    if (dash == NULL)
        return MALFORMED;
    first = (struct slice){ s.p, (size_t)(dash - s.p) };
    last = (struct slice){ dash + 1, s.n - first.n - 1 };
    if (first.n == 0) {                 /* the last so many bytes */
        if (!position(last, &r->last))
            return MALFORMED;
        if (r->last == 0)
            return BEYOND;
        if (size == 0)
            return WHOLE_OF_NOTHING;
        *r = (struct http_range){ size > r->last ? size - r->last : 0, size - 1 };
        return WITHIN;
    }
    if (!position(first, &r->first))
        return MALFORMED;
    if (last.n == 0)
        r->last = UINT64_MAX;
    else if (!position(last, &r->last) || r->last < r->first)
        return MALFORMED;
    if (r->first >= size)
        return BEYOND;
    if (r->last >= size)
        r->last = size - 1;
    return WITHIN;
}

/* Both inside a representation, so that adding one does not overflow. */
static bool
touches(const struct http_range *a, const struct http_range *b)
{
    return a->first <= b->last + 1 && b->first <= a->last + 1;
}

/* Adds r, joined with those that it touches, however many. */
static void
join(struct http_range *out, size_t *n, struct http_range r)
{
    size_t at = *n;

    out[(*n)++] = r;
    for (size_t i = 0; i < *n; i++) {
        size_t gone = i < at ? at : i;

        if (i == at || !touches(&out[i], &out[at]))
            continue;
        at = i < at ? i : at;
        if (out[gone].first < out[at].first)
            out[at].first = out[gone].first;
        if (out[gone].last > out[at].last)
            out[at].last = out[gone].last;
        memmove(&out[gone], &out[gone + 1], (*n - gone - 1) * sizeof *out);
        (*n)--;
        i = (size_t)-1;                 /* the larger range may touch others now */
    }
}

enum http_ranges
http_range(struct slice value, uint64_t size, struct http_range *out, size_t max, size_t *n)
{
    bool nothing = false;
    struct slice unit, member;
    struct http_range r;
    size_t specs = 0;

    *n = 0;
    if (value.n == 0 || !slice_cut(&value, '=', &unit) || !slice_ieq(unit, SLICE("bytes")) ||
        value.p == NULL)
        return HTTP_RANGE_IGNORE;
    while (slice_cut(&value, ',', &member)) {
        member = slice_trim(member);
        if (member.n == 0)
            continue;
        if (++specs > max)
            goto ignore;
        switch (one_spec(member, size, &r)) {
        case MALFORMED:
            goto ignore;
        case WHOLE_OF_NOTHING:
            nothing = true;
            break;
        case BEYOND:
            break;
        case WITHIN:
            join(out, n, r);
        }
    }
    if (*n > 0)
        return HTTP_RANGE_OK;
    /* The last bytes of an empty representation are satisfiable, but no range says so: 200. */
    return specs > 0 && !nothing ? HTTP_RANGE_UNSATISFIABLE : HTTP_RANGE_IGNORE;

ignore:
    *n = 0;
    return HTTP_RANGE_IGNORE;
}

bool
http_range_single(struct slice value, struct http_range_spec *out)
{
    struct slice unit, member, one = { NULL, 0 }, first;

    if (value.n == 0 || !slice_cut(&value, '=', &unit) || !slice_ieq(unit, SLICE("bytes")) ||
        value.p == NULL)
        return false;
    while (slice_cut(&value, ',', &member)) {
        member = slice_trim(member);
        if (member.n > 0 && one.n > 0)
            return false;
        if (member.n > 0)
            one = member;
    }
    if (one.n == 0 || !slice_cut(&one, '-', &first) || one.p == NULL)
        return false;
    *out = (struct http_range_spec){ .suffix = first.n == 0, .last = UINT64_MAX };
    if (first.n > 0 && !position(first, &out->first))
        return false;
    if (one.n == 0)
        return first.n > 0;
    return position(one, &out->last) && out->last >= out->first;
}

bool
http_content_range(struct slice value, struct http_content_range *out)
{
    struct slice unit, span, first;

    if (value.n == 0 || !slice_cut(&value, ' ', &unit) || !slice_ieq(unit, SLICE("bytes")) ||
        value.p == NULL || !slice_cut(&value, '/', &span) || value.p == NULL ||
        !slice_cut(&span, '-', &first) || span.p == NULL)
        return false;
    if (!position(first, &out->first) || !position(span, &out->last) || out->last < out->first ||
        out->last == UINT64_MAX)
        return false;
    if (slice_eq(value, SLICE("*"))) {
        out->size = HTTP_SIZE_UNKNOWN;
        return true;
    }
    return position(value, &out->size) && out->size > out->last &&
        out->size != HTTP_SIZE_UNKNOWN;
}

bool
http_range_asked(const struct http_head *h, struct http_range_spec *out)
{
    struct slice range = http_only(h, HF_RANGE);

    return range.p != NULL && http_range_single(range, out);
}
