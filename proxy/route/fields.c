/*
 * Routes of one path that `headers` tell apart, found by the fields that a request has.
 *
 * Trying each in turn costs by their number. Here a request is looked up once for each of its own
 * fields, and only routes are tried whose rarest field it has.
 */
#include "route/trie.h"

uint64_t
field_hash(struct slice name)
{
    uint64_t h = 0xcbf29ce484222325u;   /* FNV-1a, of lower case */

    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];

        h = (h ^ (c >= 'A' && c <= 'Z' ? c | 0x20u : c)) * 0x100000001b3u;
    }
    return h ^ h >> 32;
}

struct chain *
field_chain(const struct by_field *f, struct slice name, uint64_t hash)
{
    uint32_t i = (uint32_t)hash & f->mask;

    while (f->at[i].name.p != NULL && (f->at[i].hash != hash || !slice_ieq(f->at[i].name, name)))
        i = (i + 1) & f->mask;
    return &f->at[i];
}

static struct by_field *
index_new(size_t entries, size_t names, struct pool *p)
{
    struct by_field *f = pool_zalloc(p, sizeof *f);
    uint32_t cap = 16;

    while (cap < names * 2)
        cap *= 2;
    if (f == NULL || (f->at = pool_zalloc(p, cap * sizeof *f->at)) == NULL ||
        (f->next = pool_alloc(p, entries * sizeof *f->next)) == NULL)
        return NULL;
    f->mask = cap - 1;
    f->plain.first = NO_ENTRY;
    return f;
}

static void
count_names(struct by_field *f, const struct entry *e)
{
    for (size_t k = 0; k < e->nheaders; k++) {
        uint64_t hash = field_hash(e->headers[k].name);
        struct chain *c = field_chain(f, e->headers[k].name, hash);

        if (c->name.p == NULL)
            *c = (struct chain){ .name = e->headers[k].name, .hash = hash, .first = NO_ENTRY };
        c->uses++;
    }
}

static struct chain *
rarest(struct by_field *f, const struct entry *e)
{
    struct chain *best = NULL;

    for (size_t k = 0; k < e->nheaders; k++) {
        struct chain *c = field_chain(f, e->headers[k].name, field_hash(e->headers[k].name));

        if (best == NULL || c->uses < best->uses)
            best = c;
    }
    return best != NULL ? best : &f->plain;
}

int
entries_index(struct entries *es, struct pool *p)
{
    size_t fielded = 0, names = 0;

    for (size_t i = 0; i < es->n; i++) {
        fielded += es->at[i]->nheaders > 0;
        names += es->at[i]->nheaders;
    }
    if (fielded <= FIELDED_FEW)
        return 0;
    es->fields = index_new(es->n, names, p);
    if (es->fields == NULL)
        return -1;
    for (size_t i = 0; i < es->n; i++)
        count_names(es->fields, es->at[i]);
    for (uint32_t i = 0; i < es->n; i++) {
        struct chain *c = rarest(es->fields, es->at[i]);

        if (c->first == NO_ENTRY)
            c->first = i;
        else
            es->fields->next[c->last] = i;
        c->last = i;
        es->fields->next[i] = NO_ENTRY;
    }
    return 0;
}
