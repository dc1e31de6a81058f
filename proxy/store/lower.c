/*
 * What tiers below memory need: word of what must not be used any more, and an object's parts.
 *
 * Model    a listener of purges is told under purge_lock, before the purge's sequence can be seen:
 *          in the order of the sequences, and before anything with a stamp that new exists. A
 *          listener of drops is told, and store_parts_of hands out, under the shard's lock: what is
 *          handed out was in the index, so a drop of it comes later. The records of an object's
 *          tags are good only while the index has it; hence parts, and not the object, are what a
 *          writer keeps and asks store_may_keep about.
 * Threads  any; listeners are set before there are others.
 */
#include "store/inside.h"

void
store_on_purge(struct store *s, store_told_purge *told, void *arg)
{
    CHECK(s, STORE_MAGIC);
    assert(s->npurge < NELEM(s->on_purge));
    s->on_purge[s->npurge].told = told;
    s->on_purge[s->npurge++].arg = arg;
}

void
store_on_drop(struct store *s, store_told_drop *told, void *arg)
{
    CHECK(s, STORE_MAGIC);
    assert(s->ndrop < NELEM(s->on_drop));
    s->on_drop[s->ndrop].told = told;
    s->on_drop[s->ndrop++].arg = arg;
}

void
lower_tell_purge(struct store *s, const struct store_purge *p, uint64_t seq)
{
    for (size_t i = 0; i < s->npurge; i++)
        s->on_purge[i].told(s->on_purge[i].arg, p, seq);
}

void
lower_tell_drop(struct store *s, const struct node *n)
{
    if (node_is_mark(n))
        return;
    for (size_t i = 0; i < s->ndrop; i++)
        s->on_drop[i].told(s->on_drop[i].arg, &n->o);
}

struct store_identity
store_identity(const struct object *o)
{
    const struct node *n = (const struct node *)(const void *)o;

    CHECK(o, OBJECT_MAGIC);
    return (struct store_identity){ node_key(n), node_vary(n), node_variant(n) };
}

static uint32_t
path_at(struct slice url)
{
    return (uint32_t)(url_path(url).p - url.p);
}

/* The texts of its tags, but the URL, which follows from the key, and a group's form without its
 * origin, which follows from the other. */
static void
list_tags(const struct node *n, struct store_parts *p, struct slice *tags, struct slice *groups)
{
    p->tags = tags;
    p->groups = groups;
    for (size_t i = 0; i < n->ntags; i++) {
        const struct tag *g = node_tags(n)[i];
        struct slice text = { g->text + 1, g->text_n - 1 };

        if (g->text[0] == TAG_NAMED)
            tags[p->ntags++] = text;
        else if (g->text[0] == TAG_GROUP && text.n > 0 && text.p[0] != '\0')
            groups[p->ngroups++] = text;
    }
}

/* Under the shard's lock. */
static void
hand_out(const struct node *n, void (*with)(void *arg, const struct store_parts *p), void *arg)
{
    struct slice tags[NODE_TAGS_MAX], groups[NODE_TAGS_MAX], url = node_url(n);
    const struct stored_head *h = n->o.head;
    struct object_part part = object_part(&n->o);
    struct key k = { .bytes = node_key(n), .hash = key_hash(node_key(n)),
        .url_n = (uint32_t)url.n, .url_hash = key_hash(url), .path_at = path_at(url) };
    struct store_parts p = { .key = &k, .vary = node_vary(n), .variant = node_variant(n),
        .head = { h->bytes, h->n }, .status_n = h->status_n, .etag_at = h->etag_at,
        .etag_n = h->etag_n, .body = n->o.body, .meta = n->o.meta, .part = &part,
        .stamp = n->o.stamp, .route_id = n->o.route_id, .search = node_search_rule(n) };

    list_tags(n, &p, tags, groups);
    with(arg, &p);
}

bool
store_parts_of(struct store *s, struct object *o,
    void (*with)(void *arg, const struct store_parts *p), void *arg)
{
    struct node *n = (struct node *)(void *)o;
    struct shard *sh = store_shard(s, key_hash(node_key(n)));
    bool there;

    CHECK(s, STORE_MAGIC);
    CHECK(o, OBJECT_MAGIC);
    pthread_mutex_lock(&sh->lock);
    there = n->place != NODE_OUT;
    if (there) {
        purge_judge_locked(s, n);
        there = !n->dead && !n->soft;
    }
    if (there)
        hand_out(n, with, arg);
    pthread_mutex_unlock(&sh->lock);
    return there;
}

bool
store_search_rule(struct store *s, const struct object *o, struct buf *b)
{
    struct node *n = (struct node *)(uintptr_t)o;
    struct shard *sh = store_shard(s, key_hash(node_key(n)));
    bool there;

    CHECK(s, STORE_MAGIC);
    CHECK(o, OBJECT_MAGIC);
    pthread_mutex_lock(&sh->lock);
    there = n->place != NODE_OUT;
    if (there)
        buf_adds(b, node_search_rule(n));
    pthread_mutex_unlock(&sh->lock);
    return there && !b->failed;
}
