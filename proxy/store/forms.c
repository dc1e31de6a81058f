/*
 * Coded forms of an object: its content once more in gzip, br or zstd, each with a head of its own.
 *
 * Model    they are made after the object was stored, and hung on it with one release store; from
 *          then on they are as fixed as the object, are charged to its node, and end with it. A
 *          304 makes new heads for them around the same bodies (store_parts.forms).
 * Not here making them (fill/compress.c), choosing among them (request/form.c).
 * Threads  any.
 */
#include "store/inside.h"

#include <malloc.h>
#include <stdlib.h>

struct forms *
forms_new(void)
{
    return calloc(1, sizeof(struct forms));
}

int
forms_add(struct forms *f, enum sem_coding c, const struct store_parts *p)
{
    struct stored_head *h = malloc(sizeof *h + p->head.n);
    struct body *body = h != NULL ? body_keep(p->body) : NULL;

    assert(f->n < NELEM(f->at));
    if (body == NULL) {
        free(h);
        return -1;
    }
    *h = (struct stored_head){ .n = (uint32_t)p->head.n, .status_n = (uint16_t)p->status_n,
        .etag_at = p->etag_at, .etag_n = (uint16_t)p->etag_n };
    memcpy(h->bytes, p->head.p, p->head.n);
    f->at[f->n++] = (struct form){ c, h, body };
    return 0;
}

void
forms_free(struct forms **fp)
{
    struct forms *f = *fp;

    *fp = NULL;
    if (f == NULL)
        return;
    for (size_t i = 0; i < f->n; i++) {
        free(f->at[i].head);
        body_unref(&f->at[i].body);
    }
    free(f);
}

/* bodies: with them; without, the rest alone. */
size_t
forms_charge(const struct forms *f, bool bodies)
{
    size_t n = f != NULL ? malloc_usable_size((void *)(uintptr_t)f) : 0;

    for (size_t i = 0; f != NULL && i < f->n; i++)
        n += malloc_usable_size(f->at[i].head) + (bodies ? body_charge(f->at[i].body) : 0);
    return n;
}
