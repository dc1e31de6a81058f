/*
 * Memory: pools, growing buffers, random bytes.
 *
 * Model    a pool is a list of blocks; the first lives with the pool, a request of more than a
 *          quarter block gets a block of its own. Nothing is returned before pool_free.
 */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define BLOCK 4000                      /* with malloc's header a page, near enough */

struct block {
    struct block *next;
    _Alignas(16) char bytes[];
};

struct pool {
    uint32_t      magic;
#define POOL_MAGIC 0x9001a110u
    struct block *blocks;               /* owned */
    char         *at, *end;             /* free part of the current block */
    _Alignas(16) char first[];
};

struct pool *
pool_new(void)
{
    struct pool *p = malloc(BLOCK);

    if (p == NULL)
        return NULL;
    p->magic = POOL_MAGIC;
    p->blocks = NULL;
    p->at = p->first;
    p->end = (char *)p + BLOCK;
    return p;
}

void
pool_free(struct pool **pp)
{
    struct pool *p = *pp;

    *pp = NULL;
    if (p == NULL)
        return;
    CHECK(p, POOL_MAGIC);
    for (struct block *b = p->blocks, *next; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    p->magic = 0;
    free(p);
}

void *
pool_alloc(struct pool *p, size_t n)
{
    size_t need = (n + 15) & ~(size_t)15;
    struct block *b;
    void *out;

    CHECK(p, POOL_MAGIC);
    if (need < n)
        return NULL;
    if (need <= (size_t)(p->end - p->at)) {
        out = p->at;
        p->at += need;
        return out;
    }
    if (need > SIZE_MAX - sizeof *b - BLOCK)
        return NULL;
    b = malloc(sizeof *b + (need > BLOCK / 4 ? need : BLOCK));
    if (b == NULL)
        return NULL;
    b->next = p->blocks;
    p->blocks = b;
    if (need <= BLOCK / 4) {
        p->at = b->bytes + need;
        p->end = b->bytes + BLOCK;
    }
    return b->bytes;
}

void *
pool_zalloc(struct pool *p, size_t n)
{
    void *out = pool_alloc(p, n);

    if (out != NULL)
        memset(out, 0, n);
    return out;
}

char *
pool_dup(struct pool *p, const void *bytes, size_t n)
{
    char *out = n < SIZE_MAX ? pool_alloc(p, n + 1) : NULL;

    if (out == NULL)
        return NULL;
    if (n > 0)
        memcpy(out, bytes, n);
    out[n] = '\0';
    return out;
}

struct slice
pool_slice(struct pool *p, struct slice s)
{
    return (struct slice){ pool_dup(p, s.p, s.n), s.n };
}

char *
buf_reserve(struct buf *b, size_t n)
{
    size_t cap = b->cap;
    char *p;

    if (b->failed)
        return NULL;
    if (n <= cap - b->n && b->p != NULL)
        return b->p + b->n;
    if (n > SIZE_MAX / 2 - b->n) {
        b->failed = true;
        return NULL;
    }
    cap = cap < 128 ? 128 : cap;
    while (cap - b->n < n)
        cap *= 2;
    p = realloc(b->p, cap);
    if (p == NULL) {
        b->failed = true;
        return NULL;
    }
    b->p = p;
    b->cap = cap;
    return p + b->n;
}

void
buf_add(struct buf *b, const void *bytes, size_t n)
{
    char *at;

    if (n == 0)
        return;
    at = buf_reserve(b, n);
    if (at == NULL)
        return;
    memcpy(at, bytes, n);
    b->n += n;
}

void
buf_addc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void
buf_adds(struct buf *b, struct slice s)
{
    buf_add(b, s.p, s.n);
}

void
buf_addz(struct buf *b, const char *z)
{
    buf_add(b, z, strlen(z));
}

void
buf_addlower(struct buf *b, struct slice s)
{
    char *to = buf_reserve(b, s.n);

    for (size_t i = 0; to != NULL && i < s.n; i++)
        to[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i];
    if (to != NULL)
        b->n += s.n;
}

void
buf_addu(struct buf *b, uint64_t v)
{
    char *at = buf_reserve(b, 20);

    if (at != NULL)
        b->n += put_u64(at, v);
}

void
buf_addhex(struct buf *b, uint64_t v)
{
    char *at = buf_reserve(b, 16);

    if (at != NULL)
        b->n += (size_t)(put_hex(at, v) - at);
}

void
buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    char *at;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    at = n >= 0 ? buf_reserve(b, (size_t)n + 1) : NULL;
    if (at == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(at, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}

void
buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){ 0 };
}

/* The length of the UTF-8 sequence at p (RFC 3629), or 0 when it is none. */
static size_t
utf8_length(const unsigned char *p, size_t n)
{
    size_t want = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;

    if (p[0] < 0xc2 || p[0] > 0xf4 || n < want)
        return 0;
    for (size_t i = 1; i < want; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return want;
}

void
buf_json(struct buf *b, struct slice s)
{
    const unsigned char *p = (const unsigned char *)s.p;

    for (size_t i = 0; i < s.n;) {
        size_t len = slice_control((struct slice){ s.p + i, s.n - i });

        if (len > 0) {                  /* also what JSON would allow: it may come to a terminal */
            buf_printf(b, "\\u%04x", p[i + len - 1]);
        } else if (p[i] >= 0x80) {
            len = utf8_length(p + i, s.n - i);
            if (len == 0)
                buf_addz(b, "\xef\xbf\xbd");
            else
                buf_add(b, p + i, len);
        } else if (p[i] == '"' || p[i] == '\\') {
            buf_addc(b, '\\');
            buf_addc(b, (char)p[i]);
        } else {
            buf_addc(b, (char)p[i]);
        }
        i += len > 0 ? len : 1;
    }
}

void
random_bytes(void *out, size_t n)
{
    char *p = out;

    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);

        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
}

/* xorshift64* (Vigna, 2014), seeded once a thread. */
uint64_t
random_fast(void)
{
    static _Thread_local uint64_t s;

    while (s == 0)
        random_bytes(&s, sizeof s);
    s ^= s >> 12;
    s ^= s << 25;
    s ^= s >> 27;
    return s * 0x2545f4914f6cdd1dULL;
}
