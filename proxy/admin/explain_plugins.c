/*
 * An explanation's part about plugins: what those that are asked before the cache say of it.
 *
 * Model    they are called as for a client's request, with all facts but those of the client, and
 *          what they change is so for all that is explained afterwards: fields, parts of the key,
 *          marks. One that would wait for somebody else's word is where the explanation ends: what
 *          comes of it nobody here knows.
 * Threads  the admin loop's.
 * Not here what they make of an answer, which is told of what is stored.
 */
#include <stdio.h>

#include "admin/explain.h"

static void
put_texts(struct buf *b, const char *name, const struct plugin_texts *texts)
{
    buf_printf(b, ", \"%s\": [", name);
    for (const struct plugin_text *t = texts->first; t != NULL; t = t->next) {
        buf_addz(b, t != texts->first ? ", " : "");
        admin_json_text(b, t->text);
    }
    buf_addc(b, ']');
}

static void
put_asked(struct buf *b, const struct plugin_uses *uses)
{
    const char *comma = "";

    for (size_t i = 0; i < uses->n; i++)
        if (uses->at[i].hooks & PLUGIN_ON_KEYS) {
            buf_addz(b, comma);
            admin_json_text(b, slice_of(plugin_name(uses->at[i].plugin)));
            comma = ", ";
        }
}

/* The verdict where it ends with them. */
static void
put_end(struct explained *x, enum plugin_verdict v)
{
    const struct weir_request *w = x->plugins;
    char text[400];

    if (v == PLUGIN_ANSWERED)
        snprintf(text, sizeof text, "the plugin %.64s answers it: %u%s%.250s", w->by,
            w->answer_status, w->answer_type == NULL ? ", " : "", w->answer_type == NULL &&
            w->answer_body.p != NULL ? w->answer_body.p : "");
    else if (w->would_wait)
        snprintf(text, sizeof text, "the plugin %.64s asks somebody else before it decides, which "
            "is not done for an explanation: key and answer depend on that", w->by);
    else
        snprintf(text, sizeof text, "the plugin %.64s fails on it: 500", w->by);
    explain_verdict(x, "plugin", text);
}

static void
put_said(struct explained *x, enum plugin_verdict v)
{
    const struct weir_request *w = x->plugins;
    struct buf *b = &x->r->out;

    buf_addz(b, ",\n \"plugins\": {\"asked\": [");
    put_asked(b, w->uses);
    buf_addz(b, "], ");
    explain_member(b, "outcome", v == PLUGIN_NEXT ? "next" : v == PLUGIN_ANSWERED ? "answered" :
        w->would_wait ? "waits" : "failed");
    buf_addz(b, ", ");
    explain_member(b, "by", v == PLUGIN_NEXT ? NULL : w->by);
    if (v == PLUGIN_ANSWERED)
        buf_printf(b, ", \"status\": %u", w->answer_status);
    put_texts(b, "tags", &w->tags);
    buf_printf(b, ", \"pass\": %s, \"authorized\": %s}", w->pass ? "true" : "false",
        w->authorized ? "true" : "false");
}

/* One round. -1: memory is out. */
static int
settle(struct explained *x, struct buf *b, struct key *k)
{
    struct slice bytes;

    if (x->plugins->edited[WEIR_OF_REQUEST]) {
        const struct http_head *h = plugin_take_head(x->plugins, &bytes);

        if (h == NULL)
            return -1;
        x->head = h;
    }
    b->n = 0;
    if (explain_key(x, b, k) == -1 || plugin_add_parts(x->plugins, k, b) == -1)
        return -1;
    x->plugins->key = k->bytes;
    return 0;
}

static bool
begin(struct explained *x)
{
    struct weir_request *w;

    x->pool = pool_new();
    w = x->pool != NULL ? plugin_request(x->route->conf->plugins, x->pool) : NULL;
    if (w == NULL)
        return false;
    w->explained = true;
    w->method = x->head->method_name;
    w->https = x->https;
    w->host = x->host;
    w->path = x->path;
    w->query = x->query;
    w->route = x->route->name;
    w->head[WEIR_OF_REQUEST] = x->head;
    w->param = route_param;
    w->param_arg = &x->match;
    x->plugins = w;
    return true;
}

bool
explain_plugins(struct explained *x, struct buf *b, struct key *k)
{
    enum plugin_verdict v = PLUGIN_NEXT;

    if (!plugin_has(x->route->conf->plugins, PLUGIN_ON_KEYS))
        return explain_key(x, b, k) == 0;
    if (!begin(x))
        return false;
    for (int round = 0; round < 2 && v == PLUGIN_NEXT; round++) {
        v = plugin_run(x->plugins, round == 0 ? HOOK_REQUEST : HOOK_KEY);
        if (v == PLUGIN_NEXT && settle(x, b, k) == -1)
            return false;
    }
    put_said(x, v);
    if (v != PLUGIN_NEXT)
        put_end(x, v);
    return v == PLUGIN_NEXT;
}
