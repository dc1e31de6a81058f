/*
 * What no single value of a route shows of its writes: what write-back needs, what it promises, and
 * what has no effect.
 */
#include "config/inside.h"
#include "http/http.h"
#include "key/key.h"
#include "route/route.h"

static struct spot
spot(struct load *l, size_t i, const char *option)
{
    return (struct spot){ spot_where(l->routes[i], option, l->c->routes[i].where),
        textf(l, "routes[%zu].%s", i, option) };
}

/* The key is made before the write is sent, of a request that is there whole. */
static void
check_key(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    struct spot s = spot(l, i, "write.key");
    const char *const *params;
    struct key_template *t;
    struct err e = { 0 };
    size_t n;

    if (r->write_key == NULL || (params = route_template_params(r->path, l->scratch, &n)) == NULL)
        return;
    t = key_template_new(r->write_key, params, n, l->scratch, &e);
    if (t == NULL)
        problem(l, s.where, s.path, "%s", e.text);
    else if (key_template_needs(t) & (KEY_NEEDS_RESPONSE | KEY_NEEDS_RESPONSE_BODY))
        problem(l, s.where, s.path, "looks at the response, and there is none yet; placeholders of "
            "the request alone");
}

static bool
removed(const struct conf_route *r, struct slice field)
{
    const struct route_edit edit = { .remove = &r->request_remove, .any = true };
    const struct route_edit omit = { .remove = &r->write_omit, .any = true };

    return route_edit_takes(&edit, field) || route_edit_takes(&omit, field);
}

/* At delivery the templates see the request as it was kept, which is as the origin gets it. */
static void
check_purge(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];

    for (size_t k = 0; k < r->purge.n; k++) {
        const char *at = r->purge.at[k];

        while ((at = strstr(at, "{header.")) != NULL) {
            struct slice name = { at + 8, strcspn(at + 8, "}") };

            at = name.p + name.n;
            if (removed(r, name)) {
                struct spot s = spot_item(l, l->routes[i], textf(l, "routes[%zu]", i), "purge",
                    r->purge.at[k]);

                problem(l, s.where, s.path, "looks at %.*s, which request.remove or write.omit "
                    "takes away before the delivery; leave it there, or use another field",
                    SLICE_ARG(name));
            }
        }
    }
}

static void
check_promises(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    struct spot s;

    if (r->write_durability == WRITE_MEMORY) {
        s = spot(l, i, "write.durability");
        warning(l, s.where, s.path, "promises nothing of what is acknowledged, which is kept as "
            "with os; use os, or fsync for what must survive a loss of power");
    }
    if (r->write_pending_scope == WRITE_SCOPE_ALL) {
        s = spot(l, i, "write.pending_scope");
        warning(l, s.where, s.path, "shows everybody what one client wrote, before the origin has "
            "judged it; make sure that every client may write what all the others read, or use "
            "client");
    }
    if (r->write_backoff_min_ms > r->write_backoff_max_ms) {
        s = spot(l, i, "write.backoff.min");
        problem(l, s.where, s.path, "is more than write.backoff.max; at most that");
    }
}

static bool
keyed(const struct conf_route *r)
{
    return r->write_idempotency_ms != CONF_UNSET && r->write_idempotency_ms > 0;
}

static void
check_journal(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    struct spot s = spot(l, i, r->policy == POLICY_WRITE_BACK ? "policy" : "write.idempotency");

    if (!conf_has_journal(l->c) && (r->policy == POLICY_WRITE_BACK || keyed(r)))
        problem(l, s.where, s.path, "needs a journal; say where at the top: `journal: {path: "
            "/var/lib/weir/journal}`, or, of several instances, `journal: {redis: {url: "
            "redis://127.0.0.1:6379}}`");
}

/* Does the route say anything but the default there? */
static bool
said(const struct conf_route *r, const struct conf_route *defaults, const struct option *o)
{
    struct buf a = { 0 }, b = { 0 };
    bool differs;

    value_put(&a, o, r);
    value_put(&b, o, defaults);
    differs = !slice_eq(buf_slice(&a), buf_slice(&b));
    buf_free(&a);
    buf_free(&b);
    return differs;
}

/* Of what is kept of an Idempotency-Key, on any route. */
static bool
is_of_keys(const char *path)
{
    return strcmp(path, "write.max_body") == 0 || strcmp(path, "write.idempotent") == 0 ||
        strcmp(path, "write.durability") == 0;
}

/* Options of other policies than the route's. */
static void
check_idle(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    struct conf_route defaults = { 0 };

    value_defaults(l, &table_route, &defaults);
    for (size_t k = 0; k < table_route.n; k++) {
        const struct option *o = &table_route.at[k];
        bool fill = strcmp(o->path, "write.fill") == 0;
        struct spot s;

        if (strncmp(o->path, "write.", 6) != 0 || !said(r, &defaults, o))
            continue;
        s = spot(l, i, o->path);
        if (strncmp(o->path, "write.batch.", 12) == 0 && r->write_batch_to == NULL)
            problem(l, s.where, s.path, "stands without write.batch.to; a path of the origin");
        else if (r->policy != POLICY_WRITE_BACK && strcmp(o->path, "write.idempotency") != 0 &&
            !(keyed(r) && is_of_keys(o->path)) &&
            !(fill && r->policy == POLICY_WRITE_THROUGH))
            warning(l, s.where, s.path, "has no effect without policy write-back%s; leave it out",
                fill ? " or write-through" : "");
    }
}

void
check_write(struct load *l, size_t i)
{
    check_journal(l, i);
    check_idle(l, i);
    if (l->c->routes[i].policy != POLICY_WRITE_BACK)
        return;
    check_key(l, i);
    check_purge(l, i);
    check_promises(l, i);
}
