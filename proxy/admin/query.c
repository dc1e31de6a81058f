/*
 * What a request of the admin surface says in its target.
 */
#include "admin/inside.h"

int
admin_query_value(struct slice s, struct buf *out)
{
    struct buf spaced = { 0 };
    int rc;

    buf_adds(&spaced, s);
    for (size_t i = 0; i < spaced.n; i++)
        if (spaced.p[i] == '+')
            spaced.p[i] = ' ';
    rc = spaced.failed ? -1 : http_uri_decode(out, buf_slice(&spaced));
    buf_free(&spaced);
    return rc;
}

struct slice
admin_path_id(const struct admin_request *r)
{
    struct slice want = slice_of(r->endpoint->path), path = r->head->path, part, segment;

    while (slice_cut(&want, '/', &part) && slice_cut(&path, '/', &segment))
        if (slice_eq(part, SLICE("{id}")))
            return segment;
    return (struct slice){ NULL, 0 };
}
