/*
 * The target for the origin.
 */
#include "route/route.h"

void
route_target(const struct route *r, struct slice path, struct slice query, struct buf *b)
{
    struct slice strip = slice_of(r->conf->rewrite_strip);
    struct slice prefix = slice_of(r->conf->rewrite_prefix);
    size_t at = b->n;

    if (path.n == 1 && path.p[0] == '*') {
        buf_addc(b, '*');               /* OPTIONS *: the server as a whole has no path */
        return;
    }
    if (strip.n > 1 && strip.p[strip.n - 1] == '/')
        strip.n--;
    if (strip.n > 1 && slice_starts(path, strip) && (path.n == strip.n || path.p[strip.n] == '/')) {
        path.p += strip.n;
        path.n -= strip.n;
    }
    if (prefix.n > 0 && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    buf_adds(b, prefix);
    buf_adds(b, path);
    if (b->n == at)
        buf_addc(b, '/');
    if (query.p != NULL) {
        buf_addc(b, '?');
        buf_adds(b, query);
    }
}
