/*
 * A route's edits of field lines.
 */
#include "route/route.h"

static struct slice
lower(struct slice s, char *out, size_t cap)
{
    if (s.n > cap)
        return (struct slice){ NULL, 0 };
    for (size_t i = 0; i < s.n; i++)
        out[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] | 0x20 : s.p[i]);
    return (struct slice){ out, s.n };
}

bool
route_edit_takes(const struct route_edit *e, struct slice name)
{
    char a[256], b[256];
    struct slice n, glob;

    if (!e->any)
        return false;
    for (size_t i = 0; e->set != NULL && i < e->set->n; i++)
        if (slice_ieq(slice_of(e->set->at[i].name), name))
            return true;
    n = lower(name, a, sizeof a);
    for (size_t i = 0; e->remove != NULL && i < e->remove->n; i++) {
        glob = lower(slice_of(e->remove->at[i]), b, sizeof b);
        if (n.p != NULL && glob.p != NULL && slice_glob(glob, n))
            return true;
    }
    return false;
}

void
route_edit_put(const struct route_edit *e, struct buf *b)
{
    const struct conf_fields *lists[] = { e->set, e->add };

    for (size_t l = 0; e->any && l < NELEM(lists); l++)
        for (size_t i = 0; lists[l] != NULL && i < lists[l]->n; i++)
            http_put(b, slice_of(lists[l]->at[i].name), slice_of(lists[l]->at[i].value));
}
