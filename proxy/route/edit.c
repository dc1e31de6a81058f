/*
 * A route's edits of field lines.
 */
#include "route/route.h"

bool
route_edit_takes(const struct route_edit *e, struct slice name)
{
    if (!e->any)
        return false;
    for (size_t i = 0; e->set != NULL && i < e->set->n; i++)
        if (slice_ieq(slice_of(e->set->at[i].name), name))
            return true;
    for (size_t i = 0; e->remove != NULL && i < e->remove->n; i++)
        if (slice_iglob(slice_of(e->remove->at[i]), name))
            return true;
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
