/*
 * What a write changes: its target, what its response points to, what its route's templates name.
 *
 * Model    RFC 9111 4.4: the target URI of an unsafe request with a non-error answer is
 *          invalidated, and so are the URIs in Location and Content-Location when their origin is
 *          the target's. The same bound holds for absolute URLs that a template gives, since their
 *          parts come from messages: what lies under another origin is left alone.
 *          Groups (RFC 9875 3) are those of the target's origin. What they invalidate may be in
 *          other groups too; those stay (2.2.1 would allow more).
 * Threads  any.
 */
#include "purge/inside.h"
#include "stats/stats.h"

static void
purge_url(struct store *s, const struct route_table *t, struct slice url)
{
    struct purge_forms f = { 0 };
    struct store_purged done;

    if (purge_forms_of(t, url, false, &f) == 0)
        for (size_t i = 0; i < f.n; i++)
            (void)store_purge(s, &f.at[i], &done);
    else if (f.text.failed)             /* it cannot be named: the safe side */
        (void)store_purge(s, &(struct store_purge){ .kind = STORE_PURGE_ALL }, &done);
    purge_forms_free(&f);
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

struct grouped { struct store *store; struct slice target; };

static void
purge_group(void *arg, struct slice group)
{
    struct grouped *g = arg;
    struct purge_forms f = { 0 };
    struct store_purged done;

    if (purge_forms_of_group(g->target, group, &f) == 0)
        for (size_t i = 0; i < f.n; i++)
            (void)store_purge(g->store, &f.at[i], &done);
    else if (f.text.failed)
        (void)store_purge(g->store, &(struct store_purge){ .kind = STORE_PURGE_ALL }, &done);
    purge_forms_free(&f);
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
    if (sem_groups(response, HF_CACHE_GROUP_INVALIDATION, purge_group,
        &(struct grouped){ s, target }) == -1)
        (void)store_purge(s, &(struct store_purge){ .kind = STORE_PURGE_ALL },
            &(struct store_purged){ 0 });
}

struct named {
    struct store             *store;
    const struct route_table *table;
    struct slice              target;   /* of the write: paths are under its origin */
    bool                      path;     /* the template's own text says so */
};

static void
purge_named(void *arg, struct slice text)
{
    struct named *n = arg;
    struct store_purge p = { .kind = STORE_PURGE_TAG, .text = text };
    struct store_purged done;

    if (text.n == 0)
        return;
    if (n->path)
        purge_reference(n->store, n->table, n->target, text);
    else
        (void)store_purge(n->store, &p, &done);
}

struct widening { struct store *store; const struct route *done; };

static void
purge_route(void *arg, const struct route *route)
{
    struct widening *w = arg;
    struct store_purge p = { .kind = STORE_PURGE_ROUTE, .id = route->id };
    struct store_purged done;

    if (route != w->done)
        (void)store_purge(w->store, &p, &done);
}

/* The write's own route, and those that store what it wrote to: that is often another one, which
 * takes GET. */
static void
widen(struct store *s, const struct route_table *t, const struct route *route, struct slice target)
{
    struct widening w = { .store = s };

    COUNT(purge_widened);
    purge_route(&w, route);
    w.done = route;
    (void)purge_routes_of(t, target, false, purge_route, &w);
}

void
purge_templates(struct store *s, const struct route_table *t, const struct route *route,
    const struct key_facts *f, struct slice target)
{
    struct named n = { .store = s, .table = t, .target = target };
    bool had = true;

    for (size_t i = 0; i < route->npurge && had; i++) {
        n.path = key_template_is_path(route->purge[i]);
        had = key_template_expand_whole(route->purge[i], f, purge_named, &n) != -1;
    }
    if (!had)
        widen(s, t, route, target);
}
