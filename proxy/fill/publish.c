/*
 * A flight's way into the store, when the body is whole: its tags, its groups, and under which key.
 *
 * Model    tags come of the route's templates, which may look into the body; groups of the
 *          response's own field (RFC 9875), with the origin of its URI. Where the tags cannot be
 *          made the response is not stored: no purge would find it.
 * Threads  home loop.
 * Not here whether it may be stored (response.c), parts (part.c), under a second key (also.c).
 */
#include "fill/compress.h"

#include "stats/stats.h"

/* ---- tags ----------------------------------------------------------------------------------- */

#define TAGS_MAX 256
#define TELL_US  60000000

bool
publish_needs_body(const struct route *r)
{
    unsigned needs = 0;

    for (size_t i = 0; i < r->ntags; i++)
        needs |= key_template_needs(r->tags[i]);
    return (needs & KEY_NEEDS_RESPONSE_BODY) != 0;
}

/* As far as the head tells. */
bool
publish_has_tags(const struct flight *f, const struct http_head *h)
{
    return !publish_needs_body(f->route) ||
        (!sem_coded(h) && (h->framing != HTTP_LENGTH || h->length <= KEY_BODY_MAX));
}

/* Its tags cannot be made: stored without them, no purge would find the response. Told at most once
 * a minute for a route. */
const char *
publish_untagged(const struct flight *f)
{
    static _Atomic int64_t next_us[256];
    _Atomic int64_t *next = &next_us[f->route->id % NELEM(next_us)];
    int64_t now = now_us(), at = atomic_load(next);

    COUNT(cache_store_untagged);
    if (now >= at && atomic_compare_exchange_strong(next, &at, now + TELL_US))
        log_warn("route %s: the tags of %.*s cannot be made, it is not stored (they need a body of "
            "at most 64 KiB of JSON that is not coded, and are at most 256)", f->route->name,
            SLICE_ARG(f->send.target));
    return "tags";
}

struct tags { struct flight *f; struct slice at[TAGS_MAX]; size_t n; bool lost; };

static void
add_tag(void *arg, struct slice text)
{
    struct tags *t = arg;

    if (t->n < TAGS_MAX && (t->at[t->n] = pool_slice(t->f->pool, text)).p != NULL)
        t->n++;
    else
        t->lost = true;
}

static void
add_texts(struct tags *t, const struct plugin_text *text)
{
    for (; text != NULL; text = text->next)
        add_tag(t, text->text);
}

/* -1: a tag's template needs a body that is not to be had, or there are too many. */
static int
make_tags(struct flight *f, const struct http_head *h, const struct body *body, struct tags *t)
{
    const struct route *r = f->route;
    const struct key_params params = { r->params, f->match.values, r->nparams };
    struct key_facts facts = { .request = f->request, .response = h, .path = &params,
        .host = f->host, .query = f->request->query };

    if (f->content.p != NULL && f->content.n <= KEY_BODY_MAX && !sem_coded(f->request))
        facts.request_body = f->content;

    t->f = f;
    t->n = 0;
    t->lost = false;
    add_texts(t, f->tags.first);
    if (f->plugins != NULL)
        add_texts(t, f->plugins->tags.first);
    if (r->ntags == 0)
        return t->lost ? -1 : 0;
    if (publish_needs_body(r) && !sem_coded(h))
        facts.response_body = body_text(body, f->pool, KEY_BODY_MAX);
    for (size_t i = 0; i < r->ntags; i++)
        if (key_template_expand(r->tags[i], &facts, add_tag, t) == -1)
            return -1;
    return t->lost ? -1 : 0;
}

/* ---- groups of the response (RFC 9875) ------------------------------------------------------ */

/* Two responses share a group only when they share the origin of their URIs too (2.1). */
static void
add_group(void *arg, struct slice group)
{
    struct groups *g = arg;
    struct slice origin = g->origin;
    char *text = g->n < STORE_GROUPS_MAX ? pool_alloc(g->pool, origin.n + 1 + group.n) : NULL;

    if (text == NULL) {
        g->lost = g->lost || g->n < STORE_GROUPS_MAX;   /* over the limit they are ignored (2) */
        return;
    }
    memcpy(text, origin.p, origin.n);
    text[origin.n] = '\0';
    if (group.n > 0)
        memcpy(text + origin.n + 1, group.p, group.n);
    g->at[g->n++] = (struct slice){ text, origin.n + 1 + group.n };
}

/* -1: memory is out. */
int
publish_groups(const struct http_head *h, struct groups *g)
{
    return sem_groups(h, HF_CACHE_GROUPS, add_group, g) == -1 || g->lost ? -1 : 0;
}

/* ---- into the store ------------------------------------------------------------------------ */

void
publish_length(struct buf *b, unsigned status, const struct body *body)
{
    if (status != 204)
        http_put_number(b, HF_CONTENT_LENGTH, body_size(body));
}

/* Only now it is known that the response cannot be stored: the key is marked like others. */
static void
drop_untagged(struct flight *f)
{
    const char *why = f->plugins != NULL && f->plugins->no_store ? "plugin" : publish_untagged(f);

    response_unstorable(f, f->view.response, why);
    if (f->stale != NULL)
        store_drop(f->fills->store, f->stale);
    pthread_mutex_lock(&f->mtx);
    atomic_store(&f->storing, false);
    f->view.meta = NULL;
    f->view.why = why;
    pthread_mutex_unlock(&f->mtx);
}

/* What store_put says, or -2. */
static int
put_through(struct flight *f, const struct fill_gate *gate, struct store_parts *p,
    struct object **o)
{
    int r;

    if (gate->enter != NULL && !gate->enter(gate->arg))
        return -2;
    r = (int)(p->part != NULL ? part_publish(f, p, o) : store_put(f->fills->store, p, o));
    if (gate->leave != NULL)
        gate->leave(gate->arg);
    return r;
}

int
flight_publish(struct flight *f, struct store_parts *p, const struct http_head *h,
    struct slice head, const struct fill_gate *gate, struct object **o)
{
    struct groups groups = { .pool = f->pool,
        .origin = { p->key->bytes.p, p->key->path_at } };
    int r = STORE_NO_MEMORY;
    struct tags tags;
    struct buf b = { 0 }, rule = { 0 }, search = { 0 }, was = { 0 };
    bool moves = f->stale == NULL || !store_search_rule(f->fills->store, f->stale, &was);
    struct key equal;

    if (!flight_hooks_store(f, p, h) || make_tags(f, h, p->body, &tags) == -1)
        return -1;
    buf_adds(&b, head);
    if (!(p->meta.flags & META_PARTIAL))
        publish_length(&b, p->meta.status, p->body);
    p->head = buf_slice(&b);
    p->vary = f->vary;
    p->variant = f->variant;
    p->request_ms = f->request_ms;
    p->route_id = f->route->id;
    p->tags = tags.at;
    p->ntags = tags.n;
    p->groups = groups.at;
    if (publish_groups(h, &groups) == -1)
        b.failed = true;
    p->ngroups = groups.n;
    if (p->part == NULL && http_search_rule(h, &rule) == 1)     /* parts: no */
        (void)store_by_search(f->fills->store, p, buf_slice(&rule), &search, &equal);
    if (!b.failed)
        r = put_through(f, gate, p, o);
    if (r == STORE_STORED) {
        compress_later(f->fills->compressor, f->route, *o);
        tier_put(f->fills->tiers, *o);
    }
    /* What it replaces may have been stored for other URLs than it is. */
    moves = moves || !slice_eq(p->search, buf_slice(&was));
    if (r == STORE_STORED && f->stale != NULL && (p->key == &f->key || p->own == &f->key) && moves)
        store_drop(f->fills->store, f->stale);
    buf_free(&b);
    buf_free(&rule);
    buf_free(&search);
    buf_free(&was);
    return r;
}

void
publish_fetched(struct flight *f)
{
    struct object *o = NULL;
    struct object_part place;
    struct store_parts parts = {
        .key = &f->key, .status_n = f->marks.status_n, .etag_at = f->marks.etag_at,
        .etag_n = f->marks.etag_n, .meta = f->meta, .stamp = f->stamp, .body = f->body,
        .held = f->held > 0 ? &f->held : NULL,
    };
    int r;

    if (f->meta.flags & META_PARTIAL) {
        if (!part_place(f, &place)) {
            atomic_store(&f->storing, false);
            return;
        }
        if (place.from == 0 && body_size(f->body) == place.size)
            parts.meta.flags &= (uint16_t)~META_PARTIAL;    /* all of it is the whole */
        parts.part = &place;
    }
    r = flight_publish(f, &parts, f->view.response, f->stored_head, &f->gate, &o);
    if (r == -1) {
        drop_untagged(f);
        return;
    }
    if (r != STORE_STORED)
        atomic_store(&f->storing, false);
    else if (o->body == f->body)
        f->object = o;                  /* its bytes count as held when it is evicted before us */
    else
        object_unref(&o);
}

/* Gives unused room back, which may move bytes: only while nobody reads, and nobody can join. With
 * readers the store keeps a copy of the right size instead. */
void
publish_seal(struct flight *f)
{
    struct shard *s = flight_shard(f);

    pthread_mutex_lock(&s->mtx);
    pthread_mutex_lock(&f->mtx);
    if (f->readers == NULL)
        body_seal(f->body);
    pthread_mutex_unlock(&f->mtx);
    pthread_mutex_unlock(&s->mtx);
}
