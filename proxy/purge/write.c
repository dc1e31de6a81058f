/*
 * What a write changes: its target, what its response points to, what its route's templates name.
 *
 * Model    RFC 9111 4.4: the target URI of an unsafe request with a non-error answer is invalidated, and so
 *          are the URIs in Location and Content-Location when their origin is the target's. The
 *          same bound holds for absolute URLs that a template gives, since their parts come from
 *          messages: what lies under another origin is left alone.
 * Threads  any.
 */
#include "purge/inside.h"
#include "stats/stats.h"

static void
purge_url(struct store *s, const struct route_table *t, struct slice url)
{
    struct store_purge p = { .kind = STORE_PURGE_URL };
    struct store_purged done;
    struct buf b = { 0 };

    if (purge_resolve(t, url, &b, &p.text) == 0)
        (void)store_purge(s, &p, &done);
    else if (b.failed)                  /* it cannot be named: the safe side */
        (void)store_purge(s, &(struct store_purge){ .kind = STORE_PURGE_ALL }, &done);
    buf_free(&b);
}

/* Purges `ref`, resolved against target, if it is of the target's origin. */
static void
purge_reference(struct store *s, const struct route_table *t, struct slice target, struct slice ref)
{
    struct buf url = { 0 };
    struct http_uri base;

    if (http_uri_parse(target, &base) == 0 && http_uri_resolve(&url, &base, ref) == 0 &&
        sem_same_origin(target, buf_slice(&url)))
        purge_url(s, t, buf_slice(&url));
    buf_free(&url);
}

void
purge_target(struct store *s, const struct route_table *t, struct slice target,
    const struct http_head *response)
{
    static const enum http_id points[] = { HF_LOCATION, HF_CONTENT_LOCATION };

    purge_url(s, t, target);
    if (response == NULL)
        return;
    for (size_t i = 0; i < NELEM(points); i++)
        for (size_t f = 0; f < response->nfields; f++)
            if (response->fields[f].id == points[i])
                purge_reference(s, t, target, response->fields[f].value);
}

struct named {
    struct store             *store;
    const struct route_table *table;
    struct slice              origin;   /* "http://host/" */
};

static bool
is_url(struct slice text)
{
    return (text.n > 7 && slice_ieq((struct slice){ text.p, 7 }, SLICE("http://"))) ||
        (text.n > 8 && slice_ieq((struct slice){ text.p, 8 }, SLICE("https://")));
}

static void
purge_named(void *arg, struct slice text)
{
    struct named *n = arg;
    struct store_purge p = { .kind = STORE_PURGE_TAG, .text = text };
    struct store_purged done;

    if (text.n == 0)
        return;
    if (text.p[0] == '/' || is_url(text))
        purge_reference(n->store, n->table, n->origin, text);
    else
        (void)store_purge(n->store, &p, &done);
}

static void
purge_route(struct store *s, const struct route *route)
{
    struct store_purge p = { .kind = STORE_PURGE_ROUTE, .id = route->id };
    struct store_purged done;

    COUNT(purge_widened);
    (void)store_purge(s, &p, &done);
}

void
purge_templates(struct store *s, const struct route_table *t, const struct route *route,
    const struct key_facts *f, bool https, struct slice host)
{
    struct buf origin = { 0 };
    struct named n = { s, t, { 0 } };
    bool widen = false;

    if (route->npurge == 0)
        return;
    buf_addz(&origin, https ? "https://" : "http://");
    buf_adds(&origin, host);
    buf_addc(&origin, '/');
    n.origin = buf_slice(&origin);
    widen = origin.failed;
    for (size_t i = 0; i < route->npurge && !widen; i++)
        widen = key_template_expand(route->purge[i], f, purge_named, &n) == -1;
    if (widen)
        purge_route(s, route);
    buf_free(&origin);
}
