/*
 * What a lower tier found, into memory.
 *
 * Threads  any.
 */
#include "tier/value.h"

struct there { const struct value *v; bool found; };

static void
compare(void *arg, const struct object *o, struct slice vary, bool soft)
{
    struct there *t = arg;

    t->found |= !soft && slice_eq(vary, t->v->vary) && slice_eq(store_variant(o), t->v->variant) &&
        o->meta.response_ms >= t->v->meta.response_ms;
}

static bool
is_there(struct store *s, const struct key *k, const struct value *v)
{
    struct there t = { .v = v };

    store_each(s, k, compare, &t);
    return t.found;
}

enum store_result
tier_promote(struct store *s, const struct value *v, uint64_t stamp, enum tier_soft soft,
    struct object **out)
{
    struct value_parts vp;
    enum store_result r;

    value_to_parts(v, &vp);
    if (is_there(s, &vp.key, v))
        return STORE_OLDER;
    vp.p.stamp = stamp;
    vp.p.soft = soft != TIER_FIRM;
    vp.p.doubt = soft == TIER_DOUBT;
    if ((vp.p.body = body_new(v->body.n)) == NULL)
        return STORE_NO_MEMORY;
    if (body_append(vp.p.body, v->body) == -1) {
        body_unref(&vp.p.body);
        return STORE_NO_MEMORY;
    }
    body_seal(vp.p.body);
    r = store_put(s, &vp.p, out);
    body_unref(&vp.p.body);
    return r;
}
