/*
 * Bodies: append-only segments that one thread writes and many read.
 *
 * Model    a segment's bytes below the body's size never change and never move while a second
 *          reference exists. The writer fills, links the segment (release), then moves the size
 *          (release); a reader loads the size (acquire) and may touch everything below it.
 *          A small body of known size lives in one allocation with its struct where the
 *          allocator's size classes make that the cheaper form.
 * Threads  one writer; any readers, each with a reference and a cursor of its own.
 */
#include "store/inside.h"

#include <malloc.h>
#include <stdlib.h>

#define SEGMENT_MIN   (4u << 10)        /* unknown length: most API answers fit one of these */
#define SEGMENT_GROWN (256u << 10)      /* ... and grow by doubling up to this */
#define SEGMENT_TRIMMED (32u << 10)     /* ... where the front goes as the end comes */
#define SEGMENT_KNOWN (1u << 20)        /* known length: exact up to here, then pieces of this */

/* What an allocation of n costs in size classes spaced four to a doubling, as jemalloc has them. */
static size_t
size_class(size_t n)
{
    size_t step = 16;

    if (n > 128)
        step = (size_t)1 << (61 - __builtin_clzl(n - 1));
    return (n + step - 1) & ~(step - 1);
}

struct body *
body_new(uint64_t expect)
{
    size_t first = expect < SEGMENT_KNOWN ? (size_t)expect : SEGMENT_KNOWN;
    bool together = first > 0 &&
        size_class(sizeof(struct body) + first) <= sizeof(struct body) + size_class(first);
    struct body *b = malloc(sizeof *b + (together ? first : 0));

    if (b == NULL)
        return NULL;
    *b = (struct body){ .magic = BODY_MAGIC, .refs = 1 };
    if (first == 0)
        return b;
    b->embedded.p = together ? (char *)(b + 1) : malloc(first);
    if (b->embedded.p == NULL) {
        free(b);
        return NULL;
    }
    b->embedded.cap = (uint32_t)first;
    b->first = b->last = &b->embedded;
    return b;
}

struct body *
body_ref(struct body *b)
{
    CHECK(b, BODY_MAGIC);
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

static void
segment_free(struct body *b, struct segment *g)
{
    if (g->p != (char *)(b + 1))
        free(g->p);
    if (g != &b->embedded)
        free(g);
}

void
body_unref(struct body **bp)
{
    struct body *b = *bp;

    *bp = NULL;
    if (b == NULL)
        return;
    CHECK(b, BODY_MAGIC);
    if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (struct segment *g = b->first, *next; g != NULL; g = next) {
        next = g->next;
        segment_free(b, g);
    }
    b->magic = 0;
    free(b);
}

static uint32_t
next_cap(const struct body *b, const struct segment *last)
{
    if (b->trimmed > 0)
        return SEGMENT_TRIMMED;
    if (last == NULL)
        return SEGMENT_MIN;
    if (last->cap >= SEGMENT_KNOWN)
        return SEGMENT_KNOWN;
    if (last->cap < SEGMENT_MIN / 2)
        return SEGMENT_MIN;
    return last->cap < SEGMENT_GROWN / 2 ? last->cap * 2 : SEGMENT_GROWN;
}

/* The body's first segment is the embedded one. */
static struct segment *
segment_new(struct body *b, const struct segment *last)
{
    struct segment *g = last == NULL ? &b->embedded : malloc(sizeof *g);

    if (g == NULL)
        return NULL;
    *g = (struct segment){ .cap = next_cap(b, last) };
    g->p = malloc(g->cap);
    if (g->p != NULL)
        return g;
    if (last != NULL)
        free(g);
    return NULL;
}

/* A chain of new segments with room for n bytes behind the last one, not linked yet; its head. */
static struct segment *
segments_for(struct body *b, size_t n)
{
    struct segment *head = NULL, *tail = NULL;

    for (size_t room = 0; room < n; room += tail->cap) {
        struct segment *g = segment_new(b, tail != NULL ? tail : b->last);

        if (g == NULL) {
            for (struct segment *next; head != NULL; head = next) {
                next = head->next;
                segment_free(b, head);
            }
            return NULL;
        }
        if (tail != NULL)
            tail->next = g;
        else
            head = g;
        tail = g;
    }
    return head;
}

int
body_append(struct body *b, struct slice data)
{
    struct segment *more = NULL;
    size_t room = b->last != NULL ? b->last->cap - b->last->used : 0, total = data.n;

    CHECK(b, BODY_MAGIC);
    if (data.n == 0)
        return 0;
    if (data.n > room && (more = segments_for(b, data.n - room)) == NULL)
        return -1;
    for (struct segment *at = b->last != NULL ? b->last : more;;
         at = at == b->last ? more : at->next) {
        size_t n = at->cap - at->used < data.n ? at->cap - at->used : data.n;

        if (n > 0)
            memcpy(at->p + at->used, data.p, n);
        at->used += (uint32_t)n;
        data.p += n;
        data.n -= n;
        if (data.n == 0)
            break;
    }
    if (more != NULL) {
        if (b->last != NULL)
            rcu_store(&b->last->next, more);
        else
            rcu_store(&b->first, more);
        while (more->next != NULL)
            more = more->next;
        b->last = more;
    }
    atomic_store_explicit(&b->size, body_size(b) + total, memory_order_release);
    return 0;
}

void
body_seal(struct body *b)
{
    struct segment *g = b->last;
    char *p;

    CHECK(b, BODY_MAGIC);
    if (g == NULL || g->used == g->cap || g->used == 0 || g->p == (char *)(b + 1))
        return;
    if (atomic_load_explicit(&b->refs, memory_order_acquire) > 1)
        return;
    if ((p = realloc(g->p, g->used)) != NULL) {
        g->p = p;
        g->cap = g->used;
    }
}

uint64_t
body_held(const struct body *b)
{
    uint64_t n = 0;

    for (const struct segment *g = b->first; g != NULL; g = g->next)
        n += g->cap;
    return n;
}

/* A segment that ends at `upto` itself stays: a reader that has read all of it may still stand
 * there, waiting for the next one to be linked. */
void
body_trim(struct body *b, uint64_t upto)
{
    CHECK(b, BODY_MAGIC);
    while (b->first != NULL && b->first != b->last && b->trimmed + b->first->cap < upto) {
        struct segment *g = b->first;

        b->trimmed += g->cap;
        b->first = g->next;
        segment_free(b, g);
    }
}

/* The segment that holds byte `at`, from the cursor's on; *start is where it begins. NULL: not
 * there yet. */
static struct segment *
segment_at(const struct body *b, const struct body_cursor *c, uint64_t at, uint64_t *start)
{
    struct segment *g = c->segment;

    *start = c->segment_at;
    if (g == NULL) {
        g = rcu_load(&b->first);
        *start = 0;
    }
    while (g != NULL && at >= *start + g->cap) {
        *start += g->cap;
        g = rcu_load(&g->next);
    }
    return g;
}

size_t
body_pieces(const struct body *b, struct body_cursor *c, uint64_t end, struct iovec *iov,
    size_t max)
{
    uint64_t at = c->at, start;
    struct segment *g;
    size_t n = 0;

    CHECK(b, BODY_MAGIC);
    if (at >= end)
        return 0;
    for (g = segment_at(b, c, at, &start); g != NULL && n < max; n++) {
        uint64_t stop = start + g->cap < end ? start + g->cap : end;

        iov[n].iov_base = g->p + (at - start);
        iov[n].iov_len = (size_t)(stop - at);
        at = stop;
        if (at == end)
            return n + 1;
        start += g->cap;
        g = rcu_load(&g->next);
    }
    return n;
}

void
body_skip(const struct body *b, struct body_cursor *c, uint64_t n)
{
    struct segment *g = c->segment != NULL ? c->segment : rcu_load(&b->first), *next;

    c->at += n;
    assert(c->at <= body_size(b));
    /* At the end of all there is, the cursor rests at the last segment, which body_trim leaves
     * alone: not at an earlier one, which it frees. */
    while (g != NULL && c->at >= c->segment_at + g->cap && (next = rcu_load(&g->next)) != NULL) {
        c->segment_at += g->cap;
        g = next;
    }
    c->segment = g;
}

/* ---- for the store ------------------------------------------------------------------------- */

size_t
body_charge(const struct body *b)
{
    size_t n = malloc_usable_size((void *)(uintptr_t)b);

    for (const struct segment *g = b->first; g != NULL; g = g->next) {
        if (g->p != (const char *)(b + 1))
            n += malloc_usable_size(g->p);
        if (g != &b->embedded)
            n += malloc_usable_size((void *)(uintptr_t)g);
    }
    return n;
}

/* A reference to b, or, when more than an eighth of its room is unused, an exact copy. */
struct body *
body_keep(struct body *b)
{
    uint64_t size = body_size(b);
    struct body_cursor c = { 0 };
    struct body *exact;
    struct iovec v;

    CHECK(b, BODY_MAGIC);
    assert(b->trimmed == 0);
    if (body_held(b) - size <= size / 8)
        return body_ref(b);
    if ((exact = body_new(size)) == NULL)
        return NULL;
    while (body_pieces(b, &c, size, &v, 1) == 1) {
        if (body_append(exact, (struct slice){ v.iov_base, v.iov_len }) == -1) {
            body_unref(&exact);
            return NULL;
        }
        body_skip(b, &c, v.iov_len);
    }
    body_seal(exact);
    return exact;
}
