/*
 * Ranges: inside the representation, apart from one another, and the same when they are asked for
 * as they were answered; and the text as a Content-Range. The first byte is the number of ranges, the next eight the size.
 */
#include "http/http.h"
#include "require.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
asked_for_again(const struct http_range *ranges, size_t n, uint64_t size)
{
    struct http_range out[16];
    struct buf b = { 0 };
    size_t m;

    buf_addz(&b, "bytes=");
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, "%s%llu-%llu", i > 0 ? "," : "", (unsigned long long)ranges[i].first,
            (unsigned long long)ranges[i].last);
    require(http_range(buf_slice(&b), size, out, NELEM(out), &m) == HTTP_RANGE_OK && m == n);
    require(memcmp(out, ranges, n * sizeof *out) == 0);
    buf_free(&b);
}

/* One range, before the size is known, is the one that any size large enough gives. */
static void
one_range(struct slice text)
{
    struct http_range_spec spec;
    struct http_range out[16];
    size_t n;

    if (!http_range_single(text, &spec) || spec.suffix || spec.last >= UINT64_MAX - 1)
        return;
    require(http_range(text, UINT64_MAX - 1, out, NELEM(out), &n) == HTTP_RANGE_OK && n == 1);
    require(out[0].first == spec.first && out[0].last == spec.last);
}

/* What is read as a part lies within its whole, and reads the same when it is written again. */
static void
one_part(struct slice text)
{
    struct http_content_range a, b;
    char again[80];

    if (!http_content_range(text, &a))
        return;
    require(a.first <= a.last && a.last < a.size);
    if (a.size == HTTP_SIZE_UNKNOWN)
        snprintf(again, sizeof again, "bytes %llu-%llu/*", (unsigned long long)a.first,
            (unsigned long long)a.last);
    else
        snprintf(again, sizeof again, "bytes %llu-%llu/%llu", (unsigned long long)a.first,
            (unsigned long long)a.last, (unsigned long long)a.size);
    require(http_content_range(slice_of(again), &b) && a.first == b.first && a.last == b.last &&
        a.size == b.size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_range out[16];
    uint64_t length;
    size_t n, max;
    enum http_ranges r;

    if (size < 9)
        return 0;
    one_range((struct slice){ (const char *)data + 9, size - 9 });
    one_part((struct slice){ (const char *)data + 9, size - 9 });
    max = data[0] % 17;
    memcpy(&length, data + 1, 8);
    r = http_range((struct slice){ (const char *)data + 9, size - 9 }, length, out, max, &n);
    require(n <= max && (r == HTTP_RANGE_OK) == (n > 0));
    for (size_t i = 0; i < n; i++) {
        require(out[i].first <= out[i].last && out[i].last < length);
        for (size_t k = 0; k < i; k++)
            require(out[i].first > out[k].last + 1 || out[k].first > out[i].last + 1);
    }
    if (n > 0)
        asked_for_again(out, n, length);
    return 0;
}
