/*
 * The hooks of a fetch: `response`, when its head has come, and `store`, when all of it is here.
 *
 * Model    what plugins change of the head is done before anything looks at it, as if the origin
 *          had sent it so. Tags that the request's hooks added come with the want.
 * Threads  home loop.
 */
#include "fill/compress.h"

#define BODY_MAX (1 << 20)              /* of what plugins look at, as plugins/abi.h says */

static bool
copy_tags(struct flight *f, const struct plugin_text *tags)
{
    f->tags.last = &f->tags.first;
    for (; tags != NULL; tags = tags->next) {
        struct plugin_text *t = pool_zalloc(f->pool, sizeof *t);

        if (t == NULL || (t->text = pool_slice(f->pool, tags->text)).p == NULL)
            return false;
        *f->tags.last = t;
        f->tags.last = &t->next;
    }
    return true;
}

bool
flight_hooks(struct flight *f, const struct plugin_text *tags)
{
    const struct plugin_uses *uses = f->route->conf->plugins;
    struct weir_request *r;

    if (!copy_tags(f, tags))
        return false;
    if (!plugin_has(uses, HOOK_BIT(RESPONSE) | HOOK_BIT(STORE)))
        return true;
    r = plugin_request(uses, f->pool);
    if (r == NULL)
        return false;
    r->route = f->route->name;
    r->method = f->request->method_name;
    r->https = f->https;
    r->host = f->host;
    r->path = f->request->path;
    r->query = f->request->query;
    r->key = f->key.bytes;
    r->head[WEIR_OF_REQUEST] = f->request;
    r->param = route_param;
    r->param_arg = &f->match;
    f->plugins = r;
    return true;
}

/* The route's rules, with the time that a plugin says. */
static bool
set_rules(struct flight *f)
{
    const struct weir_request *r = f->plugins;
    struct sem_rules *own;

    if (r->ttl_ms < 0)
        return true;
    own = pool_alloc(f->pool, sizeof *own);
    if (own == NULL)
        return false;
    *own = f->route->rules;
    *(r->ttl_forced ? &own->force_ttl_ms : &own->ttl_ms) = r->ttl_ms;
    f->rules = own;
    return true;
}

const struct http_head *
flight_hooks_response(struct flight *f, const struct http_head *h)
{
    struct weir_request *r = f->plugins;

    if (r == NULL || !plugin_has(r->uses, HOOK_BIT(RESPONSE)))
        return h;
    r->status = h->status;
    r->head[WEIR_OF_RESPONSE] = h;
    r->edited[WEIR_OF_RESPONSE] = false;
    if (plugin_run(r, HOOK_RESPONSE) != PLUGIN_NEXT || !set_rules(f))
        return NULL;
    return r->head[WEIR_OF_RESPONSE];
}

/* Of one body several may be stored (also.c), so tags that were added for one stay for the next. */
bool
flight_hooks_store(struct flight *f, const struct store_parts *p, const struct http_head *h)
{
    struct weir_request *r = f->plugins;

    if (r == NULL || !plugin_has(r->uses, HOOK_BIT(STORE)))
        return true;
    r->status = p->meta.flags & META_PARTIAL ? 206 : p->meta.status;
    r->head[WEIR_OF_RESPONSE] = h;
    r->key = p->key->bytes;
    r->body = (struct slice){ NULL, 0 };
    if (!sem_coded(h) && !(p->meta.flags & META_PARTIAL))
        r->body = body_size(p->body) > 0 ? body_text(p->body, f->pool, BODY_MAX) : SLICE("");
    if (plugin_run(r, HOOK_STORE) != PLUGIN_NEXT)
        r->no_store = true;
    return !r->no_store;
}
