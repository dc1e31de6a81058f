/*
 * Changes of a head's fields.
 *
 * Model    each is done at once to a copy of the head, where there is one, so that the next plugin
 *          sees it; those of the response are also kept in their order, for heads that are made
 *          later.
 */
#include "plugin/inside.h"

/* Fields that say where a message ends, how it travels and whose it is are not a plugin's. */
bool
edit_may(enum weir_which which, struct slice name)
{
    enum http_id id = http_id(name);

    if (!http_is_token(name) || (http_flags(id) & HTTP_HOP) != 0)
        return false;
    switch (id) {
    case HF_CONTENT_LENGTH: case HF_VIA:
        return false;
    case HF_HOST: case HF_EXPECT: case HF_CDN_LOOP:
        return which != WEIR_OF_REQUEST;
    case HF_AGE: case HF_CONTENT_RANGE:
        return which != WEIR_OF_RESPONSE;
    default:
        return true;
    }
}

/* The copy, with room for one field more. NULL: memory is out, or there are too many. */
static struct http_head *
own_head(struct weir_request *r, enum weir_which which)
{
    const struct http_head *from = r->head[which];
    struct http_head *h = r->own[which];
    struct http_field *fields;
    unsigned cap;

    if (r->edited[which] && h->nfields < h->cap)
        return h;
    cap = from->nfields + 16u < HTTP_FIELDS_MAX ? from->nfields + 16u : HTTP_FIELDS_MAX;
    fields = cap > from->nfields ? pool_alloc(r->pool, cap * sizeof *fields) : NULL;
    if (h == NULL)
        h = pool_alloc(r->pool, sizeof *h);
    if (fields == NULL || h == NULL)
        return NULL;
    memcpy(fields, from->fields, from->nfields * sizeof *fields);
    if (h != from)
        *h = *from;
    h->fields = fields;
    h->cap = (uint16_t)cap;
    r->own[which] = h;
    return h;
}

static void
take_away(struct http_head *h, struct slice name)
{
    unsigned n = 0;

    for (unsigned i = 0; i < h->nfields; i++)
        if (!slice_ieq(h->fields[i].name, name))
            h->fields[n++] = h->fields[i];
    h->nfields = (uint16_t)n;
}

static void
apply(struct http_head *h, const struct plugin_field *f)
{
    if (!f->add)
        take_away(h, f->name);
    if (f->value.p != NULL)
        h->fields[h->nfields++] = (struct http_field){ f->name, f->value, http_id(f->name) };
    h->have[0] = h->have[1] = 0;
    for (unsigned i = 0; i < h->nfields; i++)
        if (h->fields[i].id != HF_NONE)
            h->have[h->fields[i].id >> 6] |= UINT64_C(1) << (h->fields[i].id & 63);
}

static bool
keep_edit(struct weir_request *r, const struct plugin_field *f)
{
    if (r->nedits == r->cap) {
        size_t cap = r->cap > 0 ? r->cap * 2 : 8;
        struct plugin_field *at = cap <= HTTP_FIELDS_MAX ?
            pool_alloc(r->pool, cap * sizeof *at) : NULL;

        if (at == NULL)
            return false;
        if (r->nedits > 0)
            memcpy(at, r->edits, r->nedits * sizeof *at);
        r->edits = at;
        r->cap = cap;
    }
    r->edits[r->nedits++] = *f;
    return true;
}

int
edit_field(struct weir_request *r, enum weir_which which, struct slice name, struct slice value,
    bool add)
{
    struct plugin_field f = { .add = add };
    struct http_head *h = NULL;

    if (!edit_may(which, name) || (value.p == NULL && add) ||
        (value.p != NULL && (!http_is_field_value(value) || slice_trim(value).n != value.n)))
        return -1;
    f.name = pool_slice(r->pool, name);
    if (value.p != NULL)
        f.value = (struct slice){ pool_dup(r->pool, value.p, value.n), value.n };
    if (f.name.p == NULL || (value.p != NULL && f.value.p == NULL) ||
        (r->head[which] != NULL && (h = own_head(r, which)) == NULL) ||
        (which == WEIR_OF_RESPONSE && !keep_edit(r, &f)))
        return -1;
    if (h != NULL) {
        apply(h, &f);
        r->head[which] = h;
        r->edited[which] = true;
    }
    return 0;
}

/* Does one of the edits from here on replace it? */
static bool
replaced(const struct weir_request *r, struct slice name, size_t from)
{
    for (size_t i = from; i < r->nedits; i++)
        if (!r->edits[i].add && slice_ieq(r->edits[i].name, name))
            return true;
    return false;
}

void
plugin_edit(const struct weir_request *r, const struct http_head *h, struct buf *b)
{
    for (unsigned i = 0; i < h->nfields; i++)
        if (!replaced(r, h->fields[i].name, 0))
            http_put(b, h->fields[i].name, h->fields[i].value);
    for (size_t i = 0; i < r->nedits; i++)
        if (r->edits[i].value.p != NULL && !replaced(r, r->edits[i].name, i + 1))
            http_put(b, r->edits[i].name, r->edits[i].value);
}
