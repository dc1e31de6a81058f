/*
 * What a delivered write changed: purged, or filled as write-through would have done it.
 *
 * Model    the write stands in the table of races from before it is sent until its purge is made,
 *          like one that goes straight to the origin, so that no fill of another is published past
 *          it. Then, where the route wants the new representation in the cache, it comes from the
 *          answer, from the write's own content, or from a GET of the target with the fields that
 *          the client sent: the same rules as request/through.c's (write/through.c).
 *          What became of the fill changes nothing for the write. The journal knows that it is
 *          delivered before; what is behind it in its chain, and its readers, wait for the fill.
 *          A batch is purged, target by target, and fills nothing.
 * Threads  the write loop.
 */
#include "plugin/plugin.h"
#include "purge/purge.h"
#include "write/deliver.h"

#define TEXT_MAX 65536                  /* of content that templates look at */

struct effect {
    struct http_head  *get;             /* in the pool; NULL: nothing is filled */
    struct sem_request semantics;
    struct route_match match;
    struct key         key;
    struct slice       target;
    struct origin     *origin;          /* owned reference */
    struct fill       *fill;            /* owned: the GET */
    uint64_t           sent;            /* the purge sequence before the write was sent */
};

static struct slice
without_port(struct slice host)
{
    size_t i = host.n;

    while (i > 0 && host.p[i - 1] >= '0' && host.p[i - 1] <= '9')
        i--;
    if (i > 0 && host.p[i - 1] == ':')
        host.n = i - 1;
    return host;
}

const struct route *
effect_match(const struct delivery *d, const struct http_head *h, struct route_match *m)
{
    return route_match(d->table, without_port(d->url.host), d->url.path, h, m);
}

/* ---- before it is sent ----------------------------------------------------------------------- */

static bool
same_route(const struct delivery *d)
{
    return d->effect->match.route == d->route;
}

/* Key and target of the GET. The fields are those that the origin got, so what they say of the host
 * is what counts, whoever said it. */
static bool
make_key(struct delivery *d, struct effect *f)
{
    bool https = slice_eq(d->url.scheme, SLICE("https"));
    struct slice host = d->url.host, none = { NULL, 0 };
    struct buf b = { 0 };
    bool ok = key_make(f->match.route->recipe, f->get, https, host, d->url.path, d->url.query, &b,
        &f->key) == 0 && key_add_forwarded(&f->key, f->get, https,
        f->match.route->conf->key_host ? host : none, &b) == 0;

    if (ok)
        f->key.bytes = pool_slice(d->pool, f->key.bytes);
    b.n = 0;
    route_target(f->match.route, d->url.path, d->url.query, &b);
    f->target = pool_slice(d->pool, buf_slice(&b));
    buf_free(&b);
    return ok && f->key.bytes.p != NULL && f->target.p != NULL;
}

void
effect_prepare(struct delivery *d)
{
    const struct conf *c = route_table_conf(d->table);
    const struct conf_route *route = d->route->conf;
    struct effect *f = pool_zalloc(d->pool, sizeof *f);
    const char *why;

    d->effect = f;
    if (f == NULL || d->batch || d->head->method == HTTP_DELETE || route->policy == POLICY_PASS ||
        (write_also(route, d->head) == 0 && !write_through(route)))
        return;
    f->get = write_get(d->pool, d->head);
    if (f->get == NULL)
        return;
    sem_request_read(f->get, &f->semantics);
    f->semantics.cc.flags &= ~(uint32_t)CC_ONLY_IF_CACHED;
    if (!sem_request_cacheable(&f->semantics, &why) || effect_match(d, f->get, &f->match) == NULL ||
        f->match.route->conf->policy == POLICY_PASS ||
        plugin_has(f->match.route->conf->plugins, PLUGIN_ON_KEYS) || !make_key(d, f)) {
        f->get = NULL;                  /* plugins: what they add to its key is not known */
        return;
    }
    f->origin = origin_ref(d->w->site.origins[f->match.route->conf->to - c->origins]);
}

static uint64_t
race_target(const struct delivery *d, const struct item *it)
{
    struct http_uri u;

    if (http_uri_parse(it->content.url, &u) == -1)
        return 0;
    return write_path_hash(d->route->conf->key_host ? u.host : SLICE(""), u.path);
}

unsigned
effect_begin(struct delivery *d)
{
    uint64_t before = 0, target;

    for (size_t i = 0; i < d->nitems; i++, before = target) {
        target = race_target(d, &d->items[i]);
        if (i == 0 || target != before)         /* one stands for all of a batch to one target */
            race_begin(&d->items[i].race, target);
    }
    if (d->effect == NULL)
        return 0;
    d->effect->sent = store_stamp(d->w->store);
    return d->effect->get != NULL && same_route(d) ? write_also(d->route->conf, d->head) : 0;
}

void
effect_end(struct delivery *d)
{
    for (size_t i = 0; i < d->nitems; i++)
        race_end(&d->items[i].race);
    if (d->effect == NULL)
        return;
    fill_close(&d->effect->fill);
    if (d->effect->origin != NULL)
        origin_unref(&d->effect->origin);
}

/* ---- the purge ------------------------------------------------------------------------------- */

void
effect_purge(struct delivery *d, const struct item *it, const struct fill_view *v,
    struct slice body)
{
    const struct key_params params = { d->route->params, d->match.values, d->route->nparams };
    struct key_facts facts = { .path = &params };

    if (d->batch)
        delivery_head(d, it);           /* each has a target of its own */
    facts.request = d->head;
    facts.host = d->url.host;
    facts.query = d->url.query;
    purge_target(d->w->store, d->table, it->content.url, v != NULL ? v->response : NULL);
    if (it->content.body.p != NULL && it->content.body.n <= TEXT_MAX && !sem_coded(d->head))
        facts.request_body = it->content.body;
    if (v != NULL) {
        facts.response = v->response;
        if ((d->route->needs & KEY_NEEDS_RESPONSE_BODY) && !sem_coded(v->response) &&
            body.n <= TEXT_MAX)
            facts.response_body = body;
    }
    purge_templates(d->w->store, d->table, d->route, &facts, it->content.url);
}

/* ---- the fill -------------------------------------------------------------------------------- */

static struct fill_gate
gate(struct delivery *d)
{
    return (struct fill_gate){ race_hold, race_release, &d->items[0].race };
}

/* Is the target worth a GET? Nobody waits for it here, as a client does with write-through: so only
 * what was stored is fetched anew, unless the route says `refetch`; never what is marked as not
 * storable. */
static bool
is_worth_it(struct delivery *d)
{
    struct object *o = NULL;
    enum store_answer got;
    bool soft;

    rcu_begin();
    got = store_get(d->w->store, &d->effect->key, d->effect->get, wall_ms(), &o, &soft);
    rcu_end();
    return got == STORE_HIT ||
        (got != STORE_PASS && d->route->conf->write_fill == WRITE_FILL_REFETCH);
}

static enum write_source
source_of(struct delivery *d, const struct fill_view *v)
{
    const struct write_effect a = { .route = d->route->conf, .request = d->head,
        .response = v->response, .target = d->items[0].content.url,
        .content = d->items[0].content.has_body };
    enum write_source from = d->effect != NULL && d->effect->get != NULL ? write_source(&a) :
        WRITE_SOURCE_NONE;

    if (from != WRITE_SOURCE_NONE && !same_route(d))
        from = write_through(d->route->conf) ? WRITE_SOURCE_FETCH : WRITE_SOURCE_NONE;
    return from == WRITE_SOURCE_FETCH && !is_worth_it(d) ? WRITE_SOURCE_NONE : from;
}

static bool
store_content(struct delivery *d, uint64_t stamp)
{
    struct slice content = d->items[0].content.body;
    struct fill_gate g = gate(d);
    struct body *b = content.n <= (uint64_t)d->route->max_object ? body_new(content.n) : NULL;
    uint64_t held = 0;
    bool stored = false;

    if (b == NULL)
        return false;
    if ((content.n == 0 || body_append(b, content) == 0) &&
        store_hold(d->w->store, &held, body_held(b))) {
        body_seal(b);
        stored = fill_store_sent(d->fill, &d->effect->key, stamp, &g, d->head, b, &held) ==
            FILL_AS_STORED;
    }
    body_unref(&b);
    store_hold(d->w->store, &held, 0);
    return stored;
}

static bool
store_answer(struct delivery *d, uint64_t stamp)
{
    struct fill_gate g = gate(d);

    fill_store_as(d->fill, &d->effect->key, stamp, &g);
    return fill_stored_as(d->fill) == FILL_AS_STORED;
}

/* The client's fields without those of a write, as the origin got them. */
static void
put_get_fields(void *arg, struct buf *b)
{
    const struct delivery *d = arg;

    for (unsigned i = 0; i < d->effect->get->nfields; i++)
        if (d->effect->get->fields[i].id != HF_HOST)
            http_put(b, d->effect->get->fields[i].name, d->effect->get->fields[i].value);
}

static void
on_fetched(void *arg)
{
    struct delivery *d = arg;
    struct fill_view v;

    fill_look(d->effect->fill, &v);
    if (v.state == FILL_WAITING || (v.state == FILL_HEAD && v.meta != NULL && !v.complete &&
        !v.broken))
        return;
    if (v.state == FILL_HEAD && v.stored)
        COUNT(write_fills);
    else if (race_overlapped(&d->items[0].race))
        COUNT(write_fills_raced);
    else
        COUNT(write_fills_failed);
    delivery_filled(d);
}

/* true: it is under way, and ends in delivery_filled. */
static bool
fetch(struct delivery *d)
{
    struct effect *f = d->effect;
    struct fill_want want = { .mode = FILL_ALONE, .table = d->table, .match = &f->match,
        .origin = f->origin, .key = &f->key, .target = f->target, .request = f->get,
        .request_bytes = d->bytes, .semantics = f->semantics,
        .https = slice_eq(d->url.scheme, SLICE("https")), .host = d->url.host,
        .via = slice_of(d->w->site.via), .fields = put_get_fields, .fields_arg = d,
        .body = HTTP_NO_BODY, .gate = gate(d) };
    bool ignored;

    f->fill = fill_open(d->w->fills, d->w->loop, &want, on_fetched, d, &ignored);
    return f->fill != NULL;
}

bool
effect_settle(struct delivery *d, const struct fill_view *v, struct slice body)
{
    enum write_source from = source_of(d, v);
    struct write_purge p = { 0 };
    bool whole;

    if (from != WRITE_SOURCE_NONE)
        write_purge_begin(d->w->store, &d->effect->key, d->effect->match.route->id,
            d->effect->sent, &p);
    effect_purge(d, &d->items[0], v, body);
    whole = from != WRITE_SOURCE_NONE && write_purge_end(d->w->store, &p);
    race_answered(&d->items[0].race);
    if (from == WRITE_SOURCE_NONE)
        return false;
    if ((whole && from == WRITE_SOURCE_ANSWER && store_answer(d, p.stamp)) ||
        (whole && from == WRITE_SOURCE_CONTENT && store_content(d, p.stamp))) {
        COUNT(write_fills);
        return false;
    }
    return write_through(d->route->conf) && !race_overlapped(&d->items[0].race) && fetch(d);
}
