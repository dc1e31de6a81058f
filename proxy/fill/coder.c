/*
 * The door to zlib, libbrotlienc and libzstd: coding a body, and undoing gzip as it comes.
 *
 * Model    a body is coded once and sent often, so the levels are those above which more time buys
 *          little: on JSON each takes some 20 to 60 MB/s of one core. The zstd window stays within
 *          the 8 MiB that RFC 9659 lets a decoder of the content coding expect.
 *          gzip may consist of several members (RFC 1952 2.2). What is behind the last one and is
 *          no member is ignored, as every browser does.
 * Threads  any, each encoder and decoder on one at a time.
 */
#include "fill/coder.h"

#include <brotli/encode.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define OUT_MAX    (64 * 1024)
#define IN_MAX     (64 * 1024)          /* between two questions whether to go on */
#define GZIP_LEVEL 6
#define GZIP_BITS  (MAX_WBITS + 16)     /* gzip, not zlib */
#define BR_QUALITY 5
#define ZSTD_LEVEL 9

struct run {
    coder_sink *sink;
    void *arg;
    char *out;                          /* OUT_MAX */
};

static int
give(struct run *r, size_t n)
{
    return n > 0 ? r->sink(r->arg, (struct slice){ r->out, n }) : 0;
}

/* ---- one step of each: all of `in`, and the end with `last` ---------------------------------- */

static int
gzip_step(z_stream *z, struct slice in, bool last, struct run *r)
{
    int rc = Z_OK, stop;

    z->next_in = (Bytef *)(uintptr_t)in.p;
    z->avail_in = (uInt)in.n;
    do {
        z->next_out = (Bytef *)r->out;
        z->avail_out = OUT_MAX;
        rc = deflate(z, last ? Z_FINISH : Z_NO_FLUSH);
        if (rc == Z_STREAM_ERROR)
            return -1;
        if ((stop = give(r, OUT_MAX - z->avail_out)) != 0)
            return stop;
    } while (last ? rc != Z_STREAM_END : z->avail_out == 0);
    return 0;
}

static int
br_step(BrotliEncoderState *s, struct slice in, bool last, struct run *r)
{
    const uint8_t *next_in = (const uint8_t *)in.p;
    size_t avail_in = in.n;
    int stop;

    do {
        uint8_t *next_out = (uint8_t *)r->out;
        size_t avail_out = OUT_MAX;

        if (!BrotliEncoderCompressStream(s, last ? BROTLI_OPERATION_FINISH :
                BROTLI_OPERATION_PROCESS, &avail_in, &next_in, &avail_out, &next_out, NULL))
            return -1;
        if ((stop = give(r, OUT_MAX - avail_out)) != 0)
            return stop;
    } while (avail_in > 0 || BrotliEncoderHasMoreOutput(s) ||
        (last && !BrotliEncoderIsFinished(s)));
    return 0;
}

static int
zstd_step(ZSTD_CCtx *c, struct slice in, bool last, struct run *r)
{
    ZSTD_inBuffer from = { in.p, in.n, 0 };
    size_t left;
    int stop;

    do {
        ZSTD_outBuffer to = { r->out, OUT_MAX, 0 };

        left = ZSTD_compressStream2(c, &to, &from, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return -1;
        if ((stop = give(r, to.pos)) != 0)
            return stop;
    } while (from.pos < from.size || (last && left > 0));
    return 0;
}

/* ---- a body ---------------------------------------------------------------------------------- */

struct encoder {
    enum sem_coding coding;
    z_stream z;
    BrotliEncoderState *br;
    ZSTD_CCtx *zstd;
};

static int
encoder_init(struct encoder *e, enum sem_coding c, uint64_t size)
{
    *e = (struct encoder){ .coding = c };
    switch (c) {
    case SEM_GZIP:
        return deflateInit2(&e->z, GZIP_LEVEL, Z_DEFLATED, GZIP_BITS, 8, Z_DEFAULT_STRATEGY) ==
            Z_OK ? 0 : -1;
    case SEM_BR:
        if ((e->br = BrotliEncoderCreateInstance(NULL, NULL, NULL)) == NULL)
            return -1;
        BrotliEncoderSetParameter(e->br, BROTLI_PARAM_QUALITY, BR_QUALITY);
        BrotliEncoderSetParameter(e->br, BROTLI_PARAM_SIZE_HINT,
            size > UINT32_MAX ? UINT32_MAX : (uint32_t)size);
        return 0;
    case SEM_ZSTD:
        if ((e->zstd = ZSTD_createCCtx()) == NULL)
            return -1;
        ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
        ZSTD_CCtx_setPledgedSrcSize(e->zstd, size);
        return 0;
    default:
        assert(false);
        return -1;
    }
}

static void
encoder_fini(struct encoder *e)
{
    if (e->coding == SEM_GZIP)
        deflateEnd(&e->z);
    BrotliEncoderDestroyInstance(e->br);
    ZSTD_freeCCtx(e->zstd);
}

static int
step(struct encoder *e, struct slice in, bool last, struct run *r)
{
    return e->coding == SEM_GZIP ? gzip_step(&e->z, in, last, r) :
        e->coding == SEM_BR ? br_step(e->br, in, last, r) : zstd_step(e->zstd, in, last, r);
}

int
encode(enum sem_coding c, const struct body *b, coder_sink *sink, void *arg)
{
    struct run r = { sink, arg, malloc(OUT_MAX) };
    struct body_cursor at = { 0 };
    uint64_t size = body_size(b);
    struct encoder e;
    struct iovec v;
    int rc;

    if (r.out == NULL || encoder_init(&e, c, size) == -1) {
        free(r.out);
        return -1;
    }
    rc = 0;
    while (rc == 0 && at.at < size &&
        body_pieces(b, &at, size - at.at > IN_MAX ? at.at + IN_MAX : size, &v, 1) == 1) {
        if ((rc = sink(arg, (struct slice){ NULL, 0 })) == 0)
            rc = step(&e, (struct slice){ v.iov_base, v.iov_len }, false, &r);
        body_skip(b, &at, v.iov_len);
    }
    if (rc == 0)
        rc = step(&e, (struct slice){ NULL, 0 }, true, &r);
    encoder_fini(&e);
    free(r.out);
    return rc;
}

/* ---- gzip, undone ---------------------------------------------------------------------------- */

struct gunzip {
    z_stream z;
    bool     any, ended;                /* a byte came; and the last member has ended */
    bool     over;                      /* what comes is no member */
    char     out[16 * 1024];
};

struct gunzip *
gunzip_new(void)
{
    struct gunzip *g = calloc(1, sizeof *g);

    if (g != NULL && inflateInit2(&g->z, GZIP_BITS) != Z_OK) {
        free(g);
        g = NULL;
    }
    return g;
}

/* The bytes at hand begin another member, or all is over. */
static bool
next_member(struct gunzip *g)
{
    if (g->ended && *g->z.next_in != 0x1f)
        g->over = true;
    else if (g->ended && inflateReset(&g->z) == Z_OK)
        g->ended = false;
    return !g->over;
}

int
gunzip_feed(struct gunzip *g, struct slice in, coder_sink *sink, void *arg)
{
    bool full = false;
    int rc, stop;

    g->z.next_in = (Bytef *)(uintptr_t)in.p;
    g->z.avail_in = (uInt)in.n;
    g->any = g->any || in.n > 0;
    while (full || (g->z.avail_in > 0 && next_member(g))) {
        g->z.next_out = (Bytef *)g->out;
        g->z.avail_out = sizeof g->out;
        rc = inflate(&g->z, Z_NO_FLUSH);
        if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
            return -1;
        full = rc == Z_OK && g->z.avail_out == 0;
        g->ended = rc == Z_STREAM_END;
        if (g->z.avail_out < sizeof g->out && (stop = sink(arg, (struct slice){ g->out,
                sizeof g->out - g->z.avail_out })) != 0)
            return stop;
    }
    return 0;
}

bool
gunzip_whole(const struct gunzip *g)
{
    return g->ended || g->over || !g->any;
}

void
gunzip_free(struct gunzip **gp)
{
    struct gunzip *g = *gp;

    *gp = NULL;
    if (g == NULL)
        return;
    inflateEnd(&g->z);
    free(g);
}
