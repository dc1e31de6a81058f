/*
 * gzip as it comes: however the bytes are cut, the same comes out, or the same refusal; and what
 * this zlib made is undone.
 */
#include <stdlib.h>
#include <zlib.h>

#include "fill/coder.h"

#define OUT_MAX (256 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct got { char *p; size_t n; };

static int
take(void *arg, struct slice out)
{
    struct got *g = arg;

    if (g->n + out.n > OUT_MAX)
        return 7;
    if (out.n > 0)
        memcpy(g->p + g->n, out.p, out.n);
    g->n += out.n;
    return 0;
}

/* In pieces of `step` bytes. 1: whole, 0: more must come; else what gunzip_feed said. */
static int
undo(const char *p, size_t n, size_t step, struct got *out)
{
    struct gunzip *g = gunzip_new();
    int rc = 0;

    out->n = 0;
    for (size_t at = 0; at < n && rc == 0; at += step)
        rc = gunzip_feed(g, (struct slice){ p + at, n - at < step ? n - at : step }, take, out);
    if (rc == 0)
        rc = gunzip_whole(g) ? 1 : 0;
    gunzip_free(&g);
    return rc;
}

static size_t
pack(const uint8_t *data, size_t n, char *to, size_t cap)
{
    z_stream z = { .next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)n,
        .next_out = (Bytef *)to, .avail_out = (uInt)cap };

    if (deflateInit2(&z, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        abort();
    if (deflate(&z, Z_FINISH) != Z_STREAM_END)
        abort();
    deflateEnd(&z);
    return cap - z.avail_out;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct got a = { malloc(OUT_MAX), 0 }, b = { malloc(OUT_MAX), 0 };
    char *packed = malloc(n * 2 + 1024);
    int rc = undo((const char *)data, n, n + 1, &a);
    size_t size;

    if (undo((const char *)data, n, 1, &b) != rc || (rc != 7 && rc != -1 && (a.n != b.n ||
            memcmp(a.p, b.p, a.n) != 0)))
        abort();
    size = pack(data, n, packed, n * 2 + 1024);
    if (n <= OUT_MAX && (undo(packed, size, 3, &a) != 1 || a.n != n ||
            (n > 0 && memcmp(a.p, data, n) != 0)))
        abort();
    free(packed);
    free(a.p);
    free(b.p);
    return 0;
}
