/*
 * HOOKS: what the route's plugins have to say of a request; later, of its answer.
 *
 * Model    plugins know a struct weir_request, which is made once the route is known. In HOOKS they
 *          are asked twice: before there is a key, and with it. What they changed of the head is
 *          written out and parsed again, by the same strict parser, so that all that comes later
 *          has one head to look at; what they add to the key stands behind its other parts.
 *          One that waits for something has suspended the request: it stays in its state until it
 *          is woken (plugin/suspend.c). What they say of the answer's fields is done to the head
 *          that is made for this client, whatever that head is made of.
 * Not here calling them (plugin/call.c), the hooks of a fetch (fill/hooks.c).
 */
#include <stdio.h>

#include "request/priv.h"
#include "request/worker.h"

static void
wake(void *request)
{
    req_run(request);
}

/* For whom the proxies in front ask, as far as they are trusted: of the addresses in
 * X-Forwarded-For the last that is none of theirs. What stands before anybody may have written. */
static struct slice
client_behind(const struct request *r)
{
    const struct conf_networks *trust = &conn_listener(r->conn)->trust;
    struct slice member, client = r->client;
    struct http_list it = { 0 };
    bool in;

    if (!http_has(r->head, HF_X_FORWARDED_FOR) || !conn_client_in(r->conn, trust))
        return client;
    while (http_list_next(r->head, HF_X_FORWARDED_FOR, &it, &member))
        if (!conn_forwarded_in(&member, trust, &in))
            client = r->client;
        else if (!in || client.p == r->client.p)
            client = member;
    return client;
}

bool
hooks_begin(struct request *r)
{
    const struct plugin_uses *uses = r->match.route->conf->plugins;
    struct weir_request *w;

    if (!plugin_has(uses, PLUGIN_ON_HITS | HOOK_BIT(ACCEPTED)))
        return true;
    w = plugin_request(uses, r->pool);
    if (w == NULL)
        return false;
    w->loop = conn_loop(r->conn);
    w->wake = wake;
    w->arg = r;
    w->method = r->head->method_name;
    w->https = r->https;
    w->host = r->host;
    w->path = r->path;
    w->query = r->query;
    w->client = client_behind(r);
    w->id = r->id;
    w->route = r->match.route->name;
    w->head[WEIR_OF_REQUEST] = r->head;
    w->param = route_param;
    w->param_arg = &r->match;
    r->plugins = w;
    r->came = r->head;
    return true;
}

uint64_t
hooks_who(const struct request *r)
{
    uint64_t who = write_who(req_writes(), r->plugins != NULL ? r->came : r->head);
    const struct plugin_text *t = r->plugins != NULL ? r->plugins->keys.first : NULL;

    for (; t != NULL; t = t->next) {
        const uint64_t parts[] = { who, key_hash(t->name), key_hash(t->text) };

        who = key_hash((struct slice){ (const char *)parts, sizeof parts });
    }
    return who;
}

/* ---- HOOKS ----------------------------------------------------------------------------------- */

static enum req_state
failed(struct request *r)
{
    char text[128];

    snprintf(text, sizeof text, "the plugin %.64s failed", r->plugins->by);
    return req_problem(r, 500, text);
}

/* Theirs, as they said it. */
static enum req_state
answer(struct request *r)
{
    const struct weir_request *w = r->plugins;
    struct buf detail = { 0 };
    enum req_state next;

    if (w->answer_type != NULL) {
        if (w->answer_status >= 400)
            r->outcome = OUTCOME_ERROR;
        return req_answer(r, w->answer_status, w->answer_type, w->answer_body);
    }
    buf_adds(&detail, w->answer_body);
    buf_addc(&detail, '\0');
    next = req_problem_with(r, w->answer_status, detail.failed ? "" : detail.p, SLICE(""));
    buf_free(&detail);
    return next;
}

static int
add_parts(struct request *r)
{
    struct buf *b = &req_worker()->key;
    int rc;

    b->n = 0;
    buf_adds(b, r->key.bytes);
    rc = plugin_add_parts(r->plugins, &r->key, b);
    r->key.bytes = pool_slice(r->pool, r->key.bytes);
    return rc == 0 && r->key.bytes.p != NULL ? 0 : -1;
}

/* What one round of them changed is so from now on. */
static int
settle(struct request *r)
{
    if (r->plugins->edited[WEIR_OF_REQUEST]) {
        struct http_head *h = plugin_take_head(r->plugins, &r->bytes);

        if (h == NULL)
            return -1;
        r->head = h;
    }
    if (route_key(r) == -1 || (r->plugins->keys.n > 0 && add_parts(r) == -1))
        return -1;
    r->plugins->key = r->key.bytes;
    return 0;
}

enum req_state
do_hooks(struct request *r)
{
    for (;; r->keyed = true) {
        enum plugin_verdict v = plugin_run(r->plugins, r->keyed ? HOOK_KEY : HOOK_REQUEST);

        if (v == PLUGIN_WAIT)
            return REQ_WAIT;
        if (v == PLUGIN_ANSWERED)
            return answer(r);
        if (v == PLUGIN_FAILED)
            return failed(r);
        if (settle(r) == -1) {
            COUNT(memory_failures);
            return req_problem_retry(r, 503, "out of memory", 1);
        }
        if (r->keyed)
            return route_ask(r);
    }
}

/* ---- DELIVER --------------------------------------------------------------------------------- */

/* Of a head's text, up to its empty line if it has one: the fields. In the pool; NULL: none. */
static struct http_head *
parsed(struct request *r, struct slice text, size_t *status_n)
{
    struct http_head *h = pool_zalloc(r->pool, sizeof *h);
    struct http_field *fields = pool_alloc(r->pool, HTTP_FIELDS_MAX * sizeof *fields);
    const char *line = memmem(text.p, text.n, "\r\n", 2), *end;

    if (h == NULL || fields == NULL || line == NULL)
        return NULL;
    *status_n = (size_t)(line - text.p) + 2;
    end = memmem(line, text.n - *status_n + 2, "\r\n\r\n", 4);
    if (end != NULL)
        text.n = (size_t)(end - text.p) + 2;
    h->fields = fields;
    h->cap = HTTP_FIELDS_MAX;
    return http_parse_fields(text.p + *status_n, text.n - *status_n, h) == 0 ? h : NULL;
}

static struct slice
source(const struct request *r)
{
    struct fill_view v;

    if (r->answer.p != NULL)
        return r->answer;
    if (r->object != NULL)
        return (struct slice){ r->object->head->bytes, r->object->head->n };
    fill_look(r->fill, &v);
    return v.head;
}

/* The answer is dropped for one that says that a plugin failed. */
static void
instead(struct request *r)
{
    hooks_end(r);
    fill_close(&r->fill);
    through_end(r);
    object_unref(&r->object);
    r->form = NULL;
    r->answer = (struct slice){ NULL, 0 };
    (void)failed(r);
}

/* An answer of our own is a text already. */
static void
edit_answer(struct request *r)
{
    const char *end = memmem(r->answer.p, r->answer.n, "\r\n\r\n", 4);
    size_t head_n = end != NULL ? (size_t)(end - r->answer.p) + 2 : 0;
    struct buf b = { 0 };
    struct slice whole;

    buf_add(&b, r->answer.p, head_n);
    hooks_edit(r, &b);
    buf_add(&b, r->answer.p + head_n, r->answer.n - head_n);
    whole = b.failed ? (struct slice){ NULL, 0 } : pool_slice(r->pool, buf_slice(&b));
    if (whole.p != NULL)
        r->answer = whole;
    else
        COUNT(memory_failures);
    buf_free(&b);
}

bool
hooks_deliver(struct request *r)
{
    struct weir_request *w = r->plugins;
    enum plugin_verdict v = PLUGIN_NEXT;
    size_t status_n;

    if (w == NULL || r->told)
        return true;
    if (plugin_has(w->uses, HOOK_BIT(DELIVER))) {
        w->status = r->status;
        w->head[WEIR_OF_RESPONSE] = parsed(r, source(r), &status_n);
        w->edited[WEIR_OF_RESPONSE] = false;
        v = plugin_run(w, HOOK_DELIVER);
    }
    if (v == PLUGIN_WAIT)
        return false;
    r->told = true;
    if (v == PLUGIN_FAILED)
        instead(r);
    if (r->answer.p != NULL && w->nedits > 0)
        edit_answer(r);
    return true;
}

void
hooks_edit(const struct request *r, struct buf *b)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    const char *line = b->p != NULL ? memmem(b->p, b->n, "\r\n", 2) : NULL;
    struct buf edited = { 0 };
    size_t n;

    if (r->plugins == NULL || r->plugins->nedits == 0 || line == NULL || b->failed)
        return;
    n = (size_t)(line - b->p) + 2;
    if (http_parse_fields(b->p + n, b->n - n, &h) == -1)
        return;                         /* cannot happen: it was made of parsed fields */
    buf_add(&edited, b->p, n);
    plugin_edit(r->plugins, &h, &edited);
    buf_free(b);
    *b = edited;
}

/* ---- what they hear besides ------------------------------------------------------------------ */

void
hooks_accepted(struct request *r, const char *id)
{
    if (r->plugins == NULL || !plugin_has(r->plugins->uses, HOOK_BIT(ACCEPTED)))
        return;
    r->plugins->write_id = slice_of(id);
    (void)plugin_run(r->plugins, HOOK_ACCEPTED);
}

void
hooks_done(struct request *r, uint64_t us)
{
    struct weir_request *w = r->plugins;

    hooks_end(r);
    if (w == NULL || !plugin_has(w->uses, HOOK_BIT(DONE)))
        return;
    w->status = r->status;
    w->bytes_in = (int64_t)r->bytes_in;
    w->bytes_out = (int64_t)r->bytes_out;
    w->us = (int64_t)us;
    w->outcome = slice_of(stats_outcome_names[r->outcome]);
    (void)plugin_run(w, HOOK_DONE);
}

void
hooks_end(struct request *r)
{
    plugin_end(r->plugins);
}
