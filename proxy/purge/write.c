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

/* What becomes of each purge: it is done in the store, or told. */
struct sink {
    struct store *store;
    void        (*each)(void *arg, const struct store_purge *p);        /* NULL: done */
    void         *arg;
};

static void
put(const struct sink *to, const struct store_purge *p)
{
    struct store_purged done;

    if (to->each != NULL)
        to->each(to->arg, p);
    else
        (void)store_purge(to->store, p, &done);
}

/* All forms of it; where it cannot be named, the safe side. */
static void
put_forms(const struct sink *to, struct purge_forms *f, int made)
{
    for (size_t i = 0; made == 0 && i < f->n; i++)
        put(to, &f->at[i]);
    if (made == -1 && f->text.failed)
        put(to, &(struct store_purge){ .kind = STORE_PURGE_ALL });
    purge_forms_free(f);
}

static void
purge_url(const struct sink *to, const struct route_table *t, struct slice url)
{
    struct purge_forms f = { 0 };

    put_forms(to, &f, purge_forms_of(t, url, false, &f));
}

/* Purges `ref`, resolved against target, if it is of the target's origin. */
static void
purge_reference(const struct sink *to, const struct route_table *t, struct slice target,
    struct slice ref)
{
    struct buf url = { 0 };
    struct http_uri base;

    if (http_uri_parse(target, &base) == 0 && http_uri_resolve(&url, &base, ref) == 0 &&
        sem_same_origin(target, buf_slice(&url)))
        purge_url(to, t, buf_slice(&url));
    buf_free(&url);
}

struct grouped { const struct sink *to; struct slice target; };

static void
purge_group(void *arg, struct slice group)
{
    struct grouped *g = arg;
    struct purge_forms f = { 0 };

    put_forms(g->to, &f, purge_forms_of_group(g->target, group, &f));
}

void
purge_target(struct store *s, const struct route_table *t, struct slice target,
    const struct http_head *response)
{
    static const enum http_id points[] = { HF_LOCATION, HF_CONTENT_LOCATION };
    const struct sink to = { .store = s };

    purge_url(&to, t, target);
    if (response == NULL)
        return;
    for (size_t i = 0; i < NELEM(points); i++)
        for (size_t f = 0; f < response->nfields; f++)
            if (response->fields[f].id == points[i])
                purge_reference(&to, t, target, response->fields[f].value);
    if (sem_groups(response, HF_CACHE_GROUP_INVALIDATION, purge_group,
        &(struct grouped){ &to, target }) == -1)
        put(&to, &(struct store_purge){ .kind = STORE_PURGE_ALL });
}

struct named {
    const struct sink        *to;
    const struct route_table *table;
    struct slice              target;   /* of the write: paths are under its origin */
    bool                      path;     /* the template's own text says so */
};

static void
purge_named(void *arg, struct slice text)
{
    struct named *n = arg;

    if (text.n == 0)
        return;
    if (n->path)
        purge_reference(n->to, n->table, n->target, text);
    else
        put(n->to, &(struct store_purge){ .kind = STORE_PURGE_TAG, .text = text });
}

struct widening { const struct sink *to; const struct route *done; };

static void
purge_route(void *arg, const struct route *route)
{
    struct widening *w = arg;

    if (route != w->done)
        put(w->to, &(struct store_purge){ .kind = STORE_PURGE_ROUTE, .id = route->id });
}

/* The write's own route, and those that store what it wrote to: that is often another one, which
 * takes GET. */
static void
widen(const struct sink *to, const struct route_table *t, const struct route *route,
    struct slice target)
{
    struct widening w = { .to = to };

    purge_route(&w, route);
    w.done = route;
    (void)purge_routes_of(t, target, false, purge_route, &w);
}

/* Those of the templates that need none of what is in `but`. false: one of them had not what it
 * needs, so it is all of the route. */
static bool
put_templates(const struct sink *to, const struct route_table *t, const struct route *route,
    const struct key_facts *f, struct slice target, unsigned but)
{
    struct named n = { .to = to, .table = t, .target = target };
    bool had = true;

    for (size_t i = 0; i < route->npurge && had; i++) {
        if (key_template_needs(route->purge[i]) & but)
            continue;
        n.path = key_template_is_path(route->purge[i]);
        had = key_template_expand_whole(route->purge[i], f, purge_named, &n) != -1;
    }
    if (!had)
        widen(to, t, route, target);
    return had;
}

void
purge_templates(struct store *s, const struct route_table *t, const struct route *route,
    const struct key_facts *f, struct slice target)
{
    if (!put_templates(&(struct sink){ .store = s }, t, route, f, target, 0))
        COUNT(purge_widened);
}

void
purge_foretell(const struct route_table *t, const struct route *route, const struct key_facts *f,
    struct slice target, void (*each)(void *arg, const struct store_purge *p), void *arg)
{
    const struct sink to = { .each = each, .arg = arg };

    purge_url(&to, t, target);
    put_templates(&to, t, route, f, target, KEY_NEEDS_RESPONSE | KEY_NEEDS_RESPONSE_BODY);
}
