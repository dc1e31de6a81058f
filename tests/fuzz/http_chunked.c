/*
 * Chunked coding. The first byte says where the rest is cut; in pieces it must decode to the same as
 * whole, and what was decoded, coded anew, must decode to itself.
 */
#include "http/http.h"
#include "require.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct decoded { struct buf body, trailer; enum http_chunk end; size_t taken; };

static void
decode(struct decoded *out, const char *p, size_t n, size_t step)
{
    struct http_chunked d = { 0 };

    *out = (struct decoded){ .end = HTTP_CHUNK_MORE };
    while (out->end == HTTP_CHUNK_MORE && out->taken < n) {
        size_t some = n - out->taken < step ? n - out->taken : step;
        struct slice in = { p + out->taken, some }, data;

        while ((out->end = http_chunked_next(&d, &in, &data)) == HTTP_CHUNK_DATA) {
            require(data.n > 0 && data.p >= p && data.p + data.n <= p + n);
            buf_adds(&out->body, data);
        }
        require(out->end != HTTP_CHUNK_MORE || in.n == 0);
        out->taken += some - in.n;
    }
    buf_adds(&out->trailer, buf_slice(&d.trailer));
    http_chunked_free(&d);
}

static void
decoded_free(struct decoded *d)
{
    buf_free(&d->body);
    buf_free(&d->trailer);
}

static bool
same(const struct decoded *a, const struct decoded *b)
{
    return a->end == b->end && a->taken == b->taken &&
        slice_eq(buf_slice(&a->body), buf_slice(&b->body)) &&
        slice_eq(buf_slice(&a->trailer), buf_slice(&b->trailer));
}

static void
coded_anew(const struct decoded *d)
{
    struct buf b = { 0 };
    struct decoded again;

    for (size_t at = 0; at < d->body.n; at += 7) {
        size_t n = d->body.n - at < 7 ? d->body.n - at : 7;

        buf_printf(&b, "%zx\r\n", n);
        buf_add(&b, d->body.p + at, n);
        buf_addz(&b, "\r\n");
    }
    buf_addz(&b, "0\r\n");
    buf_adds(&b, buf_slice(&d->trailer));
    buf_addz(&b, "\r\n");
    decode(&again, b.p, b.n, 5);
    again.taken = d->taken;
    require(same(d, &again));
    decoded_free(&again);
    buf_free(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data + 1;
    struct decoded whole, pieces, bytes;

    if (size < 2)
        return 0;
    size--;
    decode(&whole, p, size, size);
    decode(&pieces, p, size, data[0] > 0 ? data[0] : 1);
    decode(&bytes, p, size, 1);
    require(same(&whole, &pieces) && same(&whole, &bytes));
    if (whole.end == HTTP_CHUNK_END)
        coded_anew(&whole);
    decoded_free(&whole);
    decoded_free(&pieces);
    decoded_free(&bytes);
    return 0;
}
