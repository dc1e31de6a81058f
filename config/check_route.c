/*
 * What no single value of a route shows: its origin must resolve, its edits and templates must be
 * possible, it should leak nothing; and no two routes may be equal.
 */
#include "config/inside.h"
#include "http/http.h"
#include "key/key.h"
#include "route/route.h"
#include "semantics/semantics.h"

#include <stdlib.h>

/* ---- places ------------------------------------------------------------------------------- */

static struct spot
route_spot(struct load *l, size_t i, const char *option)
{
    return (struct spot){ spot_where(l->routes[i], option, l->c->routes[i].where),
        textf(l, "routes[%zu].%s", i, option) };
}

/* Of a text of a list option of a route. */
static struct spot
item_spot(struct load *l, size_t route, const char *option, const char *text)
{
    return spot_item(l, l->routes[route], textf(l, "routes[%zu]", route), option, text);
}

static struct spot
field_spot(struct load *l, size_t route, const char *option, const char *name)
{
    const struct node *v = tree_at(l->routes[route], option);
    struct spot s = route_spot(l, route, option);

    for (size_t i = 0; v != NULL && v->type == NODE_MAP && i < v->n; i++)
        if (strcmp(v->pairs[i].key->text.p, name) == 0)
            s.where = v->pairs[i].key->where;
    s.path = textf(l, "%s.%s", s.path, name);
    return s;
}

/* ---- routes ------------------------------------------------------------------------------- */

/* The origin of this name; NULL with a problem. */
static struct conf_origin *
origin_named(struct load *l, const char *name, struct spot s)
{
    struct nearest near = { .to = slice_of(name) };

    for (size_t k = 0; k < l->c->norigins; k++)
        if (strcmp(l->c->origins[k].id, name) == 0)
            return &l->c->origins[k];
    for (size_t k = 0; k < l->c->norigins; k++)
        nearest_try(&near, l->c->origins[k].id);
    if (near.word != NULL)
        problem(l, s.where, s.path, "no origin has the name %s; did you mean %s",
            shown(l, slice_of(name)), near.word);
    else
        problem(l, s.where, s.path, "no origin has the name %s; one of `origins`",
            shown(l, slice_of(name)));
    return NULL;
}

static void
resolve(struct load *l, size_t i)
{
    struct conf_route *r = &l->c->routes[i];
    struct spot s = route_spot(l, i, "origin");

    if (r->origin == NULL && l->c->norigins == 1)
        r->origin = l->c->origins[0].id;
    if (r->origin == NULL) {
        if (l->c->norigins > 1)
            problem(l, s.where, s.path, "%s", l->routes[i] == NULL ?
                "several origins and no routes; say in `routes` which takes what" :
                "no origin, and there are several; the name of one");
        return;
    }
    r->to = origin_named(l, r->origin, s);
}

static void
check_tokens(struct load *l, size_t i, const char *option, const struct conf_strings *list,
    const char *what)
{
    for (size_t k = 0; k < list->n; k++) {
        struct spot s = item_spot(l, i, option, list->at[k]);

        if (!http_is_token(slice_of(list->at[k])))
            problem(l, s.where, s.path, "%s is none; %s", shown(l, slice_of(list->at[k])), what);
    }
}

static void
check_methods(struct load *l, size_t i)
{
    const struct conf_strings *m = &l->c->routes[i].methods;

    check_tokens(l, i, "methods", m, "a method such as GET");
    for (size_t k = 0; k < m->n; k++) {
        struct spot s = item_spot(l, i, "methods", m->at[k]);
        char *up = (char *)textf(l, "%s", m->at[k]);

        for (char *c = up; *c != '\0'; c++)
            *c = *c >= 'a' && *c <= 'z' ? (char)(*c - 32) : *c;
        if (http_method(slice_of(m->at[k])) == HTTP_OTHER &&
            http_method(slice_of(up)) != HTTP_OTHER)
            problem(l, s.where, s.path, "%s is no method that clients send; methods are "
                "upper case: %s", shown(l, slice_of(m->at[k])), up);
    }
}

/* Each is a promise about the origin, which no look at a message can check. */
static void
check_cache_methods(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];

    for (size_t k = 0; k < r->cache_methods.n; k++) {
        enum http_method m = http_method(slice_of(r->cache_methods.at[k]));
        struct spot s = item_spot(l, i, "cache_methods", r->cache_methods.at[k]);

        if (!http_is_token(slice_of(r->cache_methods.at[k])))
            problem(l, s.where, s.path, "%s is none; a method such as POST",
                shown(l, slice_of(r->cache_methods.at[k])));
        else if (m == HTTP_GET || m == HTTP_HEAD || m == HTTP_QUERY)
            warning(l, s.where, s.path, "is answered from the cache anyway; leave it out");
        else if (m != HTTP_POST && m != HTTP_OTHER)
            problem(l, s.where, s.path, "%s does not ask for anything that could be stored; POST, "
                "or a method of the origin's own that only reads", r->cache_methods.at[k]);
        else if (r->policy != POLICY_PASS)
            warning(l, s.where, s.path, "promises that the origin changes nothing on %s here: one "
                "whose content was seen before does not reach it while the answer is fresh, and "
                "none purges; make sure, or leave it out", r->cache_methods.at[k]);
    }
}

/* Fields that say how a message is framed or where it goes: an edit of them would let two readers
 * disagree about one message (RFC 9112 11.2), or does nothing. NULL: may be edited. */
static const char *
untouchable(const char *name, bool request)
{
    enum http_id id = http_id(slice_of(name));

    if (id == HF_HOST && request)
        return "the host of a request is no field to edit; `host` of the origin";
    if (id == HF_CONTENT_LENGTH)
        return "weir writes it from the body; leave it out";
    if (id != HF_NONE && (http_flags(id) & HTTP_HOP))
        return "it belongs to one connection and never crosses (RFC 9110 7.6.1); leave it out";
    if (id == HF_EXPECT && request)
        return "weir answers it itself; leave it out";
    if ((id == HF_AGE || id == HF_CACHE_STATUS) && !request)
        return "weir writes it; leave it out";
    return NULL;
}

static void
check_vary(struct load *l, const struct conf_field *f, struct spot s)
{
    if (http_id(slice_of(f->name)) == HF_VARY && (strchr(f->value, '*') != NULL ||
            strcasestr(f->value, "user-agent") != NULL || strcasestr(f->value, "cookie") != NULL))
        warning(l, s.where, s.path, "Vary with unboundedly many values: hardly a request finds "
            "another's answer; vary on what has few values");
}

static void
check_edits(struct load *l, size_t i, const char *option, const struct conf_fields *f,
    bool request, bool set)
{
    for (size_t k = 0; k < f->n; k++) {
        const char *why = untouchable(f->at[k].name, request);
        struct spot s = field_spot(l, i, option, f->at[k].name);

        if (why != NULL)
            problem(l, s.where, s.path, "%s", why);
        if (!request)
            check_vary(l, &f->at[k], s);
        for (size_t m = 0; set && m < k; m++) {
            if (strcasecmp(f->at[m].name, f->at[k].name) == 0) {
                problem(l, s.where, s.path, "set twice; once, or with `add`");
                break;
            }
        }
    }
}

static void
check_removes(struct load *l, size_t i, const char *option, const struct conf_strings *list,
    bool request)
{
    for (size_t k = 0; k < list->n; k++) {
        const char *why = untouchable(list->at[k], request);
        struct spot s = item_spot(l, i, option, list->at[k]);

        if (why != NULL)
            problem(l, s.where, s.path, "%s", why);
    }
}

static void
check_templates(struct load *l, size_t i, const char *option, const struct conf_strings *list,
    const char *const *params, size_t n)
{
    for (size_t k = 0; k < list->n; k++) {
        struct spot s = item_spot(l, i, option, list->at[k]);
        struct err e = { 0 };

        if (key_template_new(list->at[k], params, n, l->scratch, &e) == NULL)
            problem(l, s.where, s.path, "%s", e.text);
    }
}

static bool
has_name(const struct conf_strings *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcasecmp(list->at[i], name) == 0)
            return true;
    return false;
}

static void
check_replay(struct load *l, size_t i)
{
    const struct conf_strings *list = &l->c->routes[i].response_replay;

    for (size_t k = 0; k < list->n; k++) {
        struct slice name = slice_of(list->at[k]);
        const struct http_field f = { .name = name, .id = http_id(name) };
        struct spot s = item_spot(l, i, "response.replay", list->at[k]);

        if (!sem_of_one_exchange(&f))
            problem(l, s.where, s.path, "%s is stored and replayed anyway, or never; a field of "
                "one exchange such as Set-Cookie or Clear-Site-Data", shown(l, name));
        else if (f.id == HF_SET_COOKIE)
            warning(l, s.where, s.path, "gives everybody the cookie of whoever asked first; make "
                "sure that it tells nobody apart, or leave it out");
    }
}

static void
check_compress(struct load *l, size_t i)
{
    const struct conf_strings *list = &l->c->routes[i].compress;

    for (size_t k = 0; k < list->n; k++) {
        struct slice name = slice_of(list->at[k]);
        struct spot s = item_spot(l, i, "compress", list->at[k]);
        enum sem_coding c = sem_coding(name);

        if (c == SEM_IDENTITY || c == SEM_CODINGS || !slice_eq(name, sem_coding_name(c))) {
            problem(l, s.where, s.path, "%s is no coding that weir makes; zstd, br or gzip",
                shown(l, name));
            continue;
        }
        for (size_t m = 0; m < k; m++)
            if (strcmp(list->at[m], list->at[k]) == 0) {
                problem(l, s.where, s.path, "named twice; once");
                break;
            }
    }
}

/* Configurations that show one client what is another's. */
static void
check_leaks(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    bool by_user = has_name(&r->key_headers, "Authorization") &&
        (r->key_cookies.n > 0 || has_name(&r->key_headers, "Cookie"));
    struct spot s;

    if (r->force_ttl_ms != CONF_UNSET && r->policy != POLICY_PASS && !by_user) {
        s = route_spot(l, i, "force_ttl");
        warning(l, s.where, s.path, "stores for everybody what the origin says is private, answers "
            "to requests with Authorization, and those with Set-Cookie (without that field); make "
            "sure that all clients may see them, or use ttl");
    }
    if (!r->key_host && (r->hosts.n != 1 || strncmp(r->hosts.at[0], "*.", 2) == 0)) {
        s = route_spot(l, i, "key.host");
        warning(l, s.where, s.path, "several hosts match and share their entries: one is answered "
            "with what another said; keep it true, or name one host");
    }
}

static void
check_unbounded(struct load *l, size_t i)
{
    static const char *const many[] = { "User-Agent", "Cookie", "Referer", "Date", "Range",
        "X-Request-Id", "Traceparent", "X-Forwarded-For", "Forwarded", "If-None-Match",
        "If-Modified-Since" };
    const struct conf_strings *list = &l->c->routes[i].key_headers;

    for (size_t k = 0; k < list->n; k++)
        for (size_t m = 0; m < NELEM(many); m++)
            if (strcasecmp(list->at[k], many[m]) == 0) {
                struct spot s = item_spot(l, i, "key.headers", list->at[k]);

                warning(l, s.where, s.path, "%s has unboundedly many values: hardly a request "
                    "finds another's answer; leave it out, or a field with few values", many[m]);
            }
}

static void
check_block(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    int64_t most = r->max_object != CONF_UNSET ? r->max_object : l->c->cache_max_object;
    struct spot s;

    if (r->range_block == CONF_UNSET || r->range_block <= most)
        return;
    s = route_spot(l, i, "range.block");
    problem(l, s.where, s.path, "is more than max_object, so no block would be stored; at most "
        "that, or a larger max_object");
}

/* What is for the cache, on a route that has none. */
static void
check_pass(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    const struct { const char *option; bool said; } idle[] = {
        { "ttl", r->ttl_ms != CONF_UNSET },
        { "force_ttl", r->force_ttl_ms != CONF_UNSET },
        { "negative_ttl", r->negative_ttl.n > 0 },
        { "stale_while_revalidate", r->swr_ms != CONF_UNSET },
        { "stale_if_error", r->sie_ms != CONF_UNSET },
        { "max_object", r->max_object != CONF_UNSET },
        { "range.block", r->range_block != CONF_UNSET },
        { "compress", r->compress.n > 0 },
        { "tags", r->tags.n > 0 },
        { "cache_methods", r->cache_methods.n > 0 },
        { "key", r->key_headers.n > 0 || r->key_cookies.n > 0 },
        { "query", r->query_ignore.n > 0 || r->query_keep.at != NULL || r->query_sort },
    };

    for (size_t k = 0; k < NELEM(idle) && r->policy == POLICY_PASS; k++) {
        struct spot s;

        if (!idle[k].said)
            continue;
        s = route_spot(l, i, idle[k].option);
        warning(l, s.where, s.path, "has no effect with policy pass; leave it out");
    }
}

/* Does the prefix stand in no path that the template takes? */
static bool
strips_nothing(const char *path, const char *strip)
{
    size_t fixed = strcspn(path, "{*"), n = strlen(strip);

    if (path[fixed] == '\0' && n > fixed)
        return true;
    return strncmp(path, strip, n < fixed ? n : fixed) != 0;
}

static void
check_effect(struct load *l, size_t i)
{
    struct conf_route *r = &l->c->routes[i];
    struct spot s;

    if (r->ttl_ms != CONF_UNSET && r->force_ttl_ms != CONF_UNSET) {
        s = route_spot(l, i, "ttl");
        warning(l, s.where, s.path, "has no effect beside force_ttl; one of them");
    }
    if (r->rewrite_strip != NULL && r->path != NULL && strips_nothing(r->path, r->rewrite_strip)) {
        s = route_spot(l, i, "rewrite.strip");
        warning(l, s.where, s.path, "is in no path that %s takes, so nothing is stripped; a "
            "beginning of that path", shown(l, slice_of(r->path)));
    }
    if (r->query_ignore.n > 0 && r->query_keep.at != NULL) {
        s = route_spot(l, i, "query.ignore");
        problem(l, s.where, s.path, "stands beside query.keep; one of them");
    }
    if ((r->on_failure == ON_FAILURE_STALE || r->on_failure == ON_FAILURE_SHED) &&
        l->c->redis.url.n == 0) {
        s = route_spot(l, i, "on_failure");
        warning(l, s.where, s.path, "has no effect without cache.redis.url; leave it out");
    }
    if (r->max_object != CONF_UNSET && r->policy != POLICY_PASS) {
        s = route_spot(l, i, "max_object");
        cap_object(l, &r->max_object, s.where, s.path);
    }
}

static void
check_route(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    const char *const *params;
    size_t n;

    if (l->routes[i] != NULL && l->routes[i]->type != NODE_MAP)
        return;
    resolve(l, i);
    check_methods(l, i);
    check_cache_methods(l, i);
    check_tokens(l, i, "headers", &r->headers, "a field name such as X-Tenant");
    check_tokens(l, i, "key.headers", &r->key_headers, "a field name such as X-Tenant");
    check_tokens(l, i, "key.cookies", &r->key_cookies, "a cookie's name");
    check_replay(l, i);
    check_compress(l, i);
    check_edits(l, i, "request.set", &r->request_set, true, true);
    check_edits(l, i, "request.add", &r->request_add, true, false);
    check_removes(l, i, "request.remove", &r->request_remove, true);
    check_edits(l, i, "response.set", &r->response_set, false, true);
    check_edits(l, i, "response.add", &r->response_add, false, false);
    check_removes(l, i, "response.remove", &r->response_remove, false);
    check_block(l, i);
    check_leaks(l, i);
    check_unbounded(l, i);
    check_pass(l, i);
    check_effect(l, i);
    check_write(l, i);
    params = route_template_params(r->path, l->scratch, &n);
    if (params != NULL) {
        check_templates(l, i, "tags", &r->tags, params, n);
        check_templates(l, i, "purge", &r->purge, params, n);
    }
}

/* ---- between routes ----------------------------------------------------------------------- */

static void
on_conflict(void *arg, size_t i, size_t j)
{
    struct load *l = arg;

    problem(l, l->c->routes[j].where, textf(l, "routes[%zu]", j), "takes the same requests as "
        "routes[%zu] in line %d, and neither is more specific (this is line %d); another path, "
        "host, method or `headers`",
        i, l->c->routes[i].where.line, l->c->routes[j].where.line);
}

static int
by_name(const void *a, const void *b)
{
    const struct conf_route *x = *(struct conf_route *const *)a;
    const struct conf_route *y = *(struct conf_route *const *)b;
    int c = strcmp(x->name, y->name);

    return c != 0 ? c : (x->index > y->index) - (x->index < y->index);
}

/* Figures and purges by route go by the name. Two routes that merely share a path share them. */
static void
check_names(struct load *l)
{
    const struct conf_route **at = pool_alloc(l->scratch, (l->c->nroutes + 1) * sizeof *at);
    size_t n = 0;

    if (at == NULL) {
        l->no_memory = true;
        return;
    }
    for (size_t i = 0; i < l->c->nroutes; i++)
        if (l->c->routes[i].name != NULL)
            at[n++] = &l->c->routes[i];
    qsort(at, n, sizeof *at, by_name);
    for (size_t i = 1, first = 0; i < n; i++) {
        size_t index = at[i]->index;

        if (strcmp(at[i]->name, at[first]->name) != 0) {
            first = i;
        } else if (tree_at(l->routes[index], "name") != NULL) {
            problem(l, route_spot(l, index, "name").where, textf(l, "routes[%zu].name", index),
                "%s is the name of routes[%u] in line %d; another", shown(l, slice_of(at[i]->name)),
                at[first]->index, at[first]->where.line);
        } else {
            warning(l, at[i]->where, textf(l, "routes[%zu]", index), "has the path, and so the "
                "name, of routes[%u] in line %d: figures and purges by route take both as one; "
                "give it a `name`",
                at[first]->index, at[first]->where.line);
        }
    }
}

static int
by_pointer(const void *a, const void *b)
{
    const struct conf_origin *x = *(struct conf_origin *const *)a;
    const struct conf_origin *y = *(struct conf_origin *const *)b;

    return (x > y) - (x < y);
}

static void
check_unused(struct load *l)
{
    const struct conf_origin **used = pool_alloc(l->scratch, (l->c->nroutes + 1) * sizeof *used);
    size_t n = 0;

    for (size_t i = 0; used != NULL && i < l->c->nroutes; i++)
        if (l->c->routes[i].to != NULL)
            used[n++] = l->c->routes[i].to;
        else
            return;                     /* a name that is wrong may have meant it */
    if (used == NULL)
        return;
    qsort(used, n, sizeof *used, by_pointer);
    for (size_t i = 0; i < l->c->norigins; i++) {
        const struct conf_origin *o = &l->c->origins[i];

        if (o != l->c->trace_to && bsearch(&o, used, n, sizeof *used, by_pointer) == NULL)
            warning(l, o->where, textf(l, "origins.%s", o->id), "no route uses it; name it as a "
                "route's origin, or leave it out");
    }
}

void
check_routes(struct load *l)
{
    for (size_t i = 0; i < l->c->nroutes; i++)
        check_route(l, i);
    route_conf_conflicts(l->c->routes, l->c->nroutes, on_conflict, l);
    check_names(l);
    if (l->c->trace_origin != NULL)
        l->c->trace_to = origin_named(l, l->c->trace_origin, (struct spot){
            spot_where(l->root, "trace.origin", (struct conf_where){ 0, 0 }), "trace.origin" });
    check_unused(l);
}
