/*
 * What is put into the store: new objects, marks, freshened ones, coded forms.
 *
 * Model    room is made before a node is published. What is put goes in front and what it replaces
 *          is taken out behind it, so that a reader always finds one. The newest response says how
 *          its resource varies: one without Vary replaces all variants, one with Vary replaces the
 *          one without.
 * Threads  any, under the shard's lock.
 */
#include "store/inside.h"
#include "stats/stats.h"

#define LARGEST 8                       /* an object may take one part in this many of the limit */

/* ---- putting in ----------------------------------------------------------------------------- */

/* Does `n`, the newer one, replace v? */
static bool
replaces(const struct node *n, const struct node *v)
{
    if (node_is_mark(n) || node_is_mark(v))
        return node_is_mark(v);         /* a mark ends with whatever comes next under its key */
    if (n->vary_n == 0 || v->vary_n == 0)
        return true;
    return slice_eq(node_vary(n), node_vary(v)) && slice_eq(node_variant(n), node_variant(v));
}

/* Was v's response on its way together with n's, and is it the more recent (RFC 9111 4: by Date;
 * in one second, the one that came later)? A response that had come before n was asked for is older
 * whatever two clocks say. What is softly purged gives way to anything. */
static bool
outdates(const struct node *v, const struct node *n, int64_t request_ms)
{
    const struct sem_meta *old = &n->o.meta, *new = &v->o.meta;

    if (request_ms == 0 || new->response_ms < request_ms || node_is_mark(v) || node_is_mark(n) ||
        v->dead || v->soft)
        return false;
    if (new->date_ms / 1000 != old->date_ms / 1000)
        return new->date_ms > old->date_ms;
    return new->response_ms > old->response_ms;
}

/* Is a newer one there that answers requests which n would? Variants of one Vary do not meet. */
static bool
outdated(struct store *s, const struct node *n, struct node *freshened, int64_t request_ms)
{
    for (struct node *v = n->older; v != NULL; v = v->older) {
        bool apart = n->vary_n > 0 && slice_eq(node_vary(n), node_vary(v)) &&
            !slice_eq(node_variant(n), node_variant(v));

        if (v == freshened || apart)
            continue;
        purge_judge_locked(s, v);
        if (outdates(v, n, request_ms))
            return true;
    }
    return false;
}

/* What is replaced by n goes, and so does what is over the limit of variants, the oldest first. */
static void
thin(struct store *s, struct shard *sh, uint64_t hash, struct node *n, struct node *freshened)
{
    unsigned max = atomic_load_explicit(&s->variants, memory_order_relaxed);
    unsigned count = node_is_mark(n) ? 0 : 1;

    for (struct node *v = n->older, *older; v != NULL; v = older) {
        older = v->older;
        if (v == freshened)
            store_unlink(s, sh, hash, v, v->o.body);
        else if (replaces(n, v) || (!node_is_mark(v) && ++count > max))
            store_unlink(s, sh, hash, v, NULL);
    }
}

/* A replacement goes on in the queue where the replaced one stood. */
static enum node_place
place_for(struct shard *sh, uint64_t hash, struct node *n)
{
    for (struct node *v = n->older; v != NULL; v = v->older)
        if (replaces(n, v)) {
            n->freq = v->freq;
            return v->place;
        }
    return queue_entry(sh, hash);
}

/* With the shard locked and room reserved. */
static enum store_result
insert(struct store *s, struct shard *sh, uint64_t hash, struct node *n, struct node *freshened,
    int64_t request_ms)
{
    STEP("put: locked");
    if (purge_refuses(s, n))
        return STORE_PURGED;
    n->older = table_find(sh->table, hash, node_key(n));
    if (outdated(s, n, freshened, request_ms))
        return STORE_OLDER;
    if (table_reserve(s, sh) == -1)
        return STORE_NO_MEMORY;
    STEP("put: checked");
    queue_push(sh, n, place_for(sh, hash, n));
    table_put(sh, hash, n);
    if (!node_is_mark(n)) {
        atomic_fetch_add_explicit(&s->objects, 1, memory_order_relaxed);
        stats_gauge_add(GAUGE_cache_objects, 1);
    }
    thin(s, sh, hash, n, freshened);
    return STORE_STORED;
}

static void
give_up(struct store *s, struct node *n)
{
    store_charge(s, -(int64_t)node_charge(n));
    tags_give(s, node_tags(n), n->ntags, n->o.stamp);
    node_free(n);
}

static enum store_result
counted(enum store_result r)
{
    if (r == STORE_STORED)
        COUNT(cache_stores);
    else if (r == STORE_PURGED)
        COUNT(cache_store_refused);
    else if (r == STORE_OLDER)
        COUNT(cache_store_older);
    else if (r == STORE_NO_MEMORY)
        COUNT(memory_failures);
    return r;
}

/* The node for p around `body`, whose reference it takes over in any case, with its tags held and
 * its room reserved. */
static struct node *
prepare(struct store *s, const struct store_parts *p, struct body *body)
{
    /* A copy beside the original, which its readers keep, is more. */
    int64_t here = p->held != NULL && body == p->body ? (int64_t)*p->held : 0;
    struct tag *tags[NODE_TAGS_MAX];
    struct node *n;
    size_t ntags;

    if (tags_take(s, p, tags, &ntags) == -1)
        goto no_tags;
    if ((n = node_new(p, tags, ntags, body)) == NULL)
        goto no_node;
    if (store_room(s, (int64_t)node_charge(n) - here))
        return n;
    n->o.body = NULL;
    node_free(n);
no_node:
    tags_give(s, tags, ntags, p->stamp);
no_tags:
    body_unref(&body);
    return NULL;
}

static bool
too_large(const struct store *s, const struct store_parts *p)
{
    uint64_t bytes = p->key->bytes.n + p->vary.n + p->variant.n + p->head.n;

    if (p->body != NULL)
        bytes += body_size(p->body);
    return bytes > (uint64_t)s->limit / LARGEST || p->head.n > UINT32_MAX || p->ntags > 256 ||
        p->ngroups > STORE_GROUPS_MAX || p->vary.n > UINT16_MAX ||
        p->status_n > UINT16_MAX || p->etag_n > UINT16_MAX;
}

static enum store_result
put(struct store *s, const struct store_parts *p, struct body *body, struct object **out)
{
    bool over = p->held != NULL && body == p->body;
    struct shard *sh = store_shard(s, p->key->hash);
    struct node *n = prepare(s, p, body);
    enum store_result r;

    if (n == NULL)
        return STORE_NO_MEMORY;
    if (out != NULL)
        object_ref(&n->o);
    STEP("put: prepared");
    pthread_mutex_lock(&sh->lock);
    r = insert(s, sh, p->key->hash, n, NULL, p->request_ms);
    pthread_mutex_unlock(&sh->lock);
    if (r != STORE_STORED) {
        if (over)
            store_charge(s, (int64_t)*p->held);     /* give_up takes the node's charge whole */
        give_up(s, n);
        return r;
    }
    if (p->own != NULL)
        store_supersede(s, p->own, p->meta.response_ms);
    if (over)
        store_holds_change(s, p->held, 0);    /* its bytes are the node's now */
    if (out != NULL)
        *out = &n->o;
    return r;
}

enum store_result
store_put(struct store *s, const struct store_parts *p, struct object **out)
{
    struct body *body;

    CHECK(s, STORE_MAGIC);
    if (too_large(s, p))
        return STORE_TOO_LARGE;
    if ((body = body_keep(p->body)) == NULL)
        return counted(STORE_NO_MEMORY);
    return counted(put(s, p, body, out));
}

void
store_pass(struct store *s, const struct key *k, int64_t until_ms)
{
    store_refuse(s, k, &(struct store_refusal){ .until_ms = until_ms });
}

/* A mark varies by nothing: the word stands in the place of vary, the fields in variant's. */
void
store_refuse(struct store *s, const struct key *k, const struct store_refusal *r)
{
    struct store_parts p = { .key = k, .vary = r->why, .variant = r->head,
        .meta = { .response_ms = r->until_ms, .date_ms = r->at_ms,
            .status = (uint16_t)r->status }, .stamp = store_stamp(s) };

    CHECK(s, STORE_MAGIC);
    if (!too_large(s, &p))
        (void)put(s, &p, NULL, NULL); /* without the mark the next request asks the origin alone */
}

/* The node that is to follow `was`: the same but for p. */
static struct node *
successor(struct store *s, struct node *was, struct store_parts *p, const struct key *k)
{
    struct tag *tags[NODE_TAGS_MAX];
    struct object_part part = object_part(&was->o);
    struct node *n;
    size_t ntags;

    p->key = k;
    p->vary = node_vary(was);
    p->variant = node_variant(was);
    p->route_id = was->o.route_id;
    p->part = &part;
    p->meta.flags = (uint16_t)((p->meta.flags & ~META_PARTIAL) |
        (was->o.meta.flags & META_PARTIAL));
    if (tags_again(s, was, p, tags, &ntags) == -1)
        return NULL;
    if ((n = node_new(p, tags, ntags, was->o.body)) == NULL) {
        tags_give(s, tags, ntags, p->stamp);
        return NULL;
    }
    body_ref(was->o.body);
    if (p->forms != NULL && *p->forms != NULL) {
        n->o.forms = *p->forms;
        n->charge += charge_units(forms_charge(n->o.forms, true));
    }
    store_charge(s, (int64_t)node_charge(n));
    return n;
}

static enum store_result
freshen(struct store *s, struct node *was, struct store_parts *p, struct object **out)
{
    struct key k = { .bytes = node_key(was), .hash = key_hash(node_key(was)) };
    struct shard *sh = store_shard(s, k.hash);
    enum store_result r = STORE_PURGED;
    struct node *n = NULL;

    pthread_mutex_lock(&sh->lock);
    if (was->place != NODE_OUT)
        purge_judge_locked(s, was);
    if (was->place != NODE_OUT && !was->dead) {
        r = STORE_NO_MEMORY;
        if ((n = successor(s, was, p, &k)) != NULL)
            r = insert(s, sh, k.hash, n, was, p->request_ms);
    }
    if (r == STORE_STORED && out != NULL)
        *out = object_ref(&n->o);
    pthread_mutex_unlock(&sh->lock);
    if (n != NULL && r == STORE_STORED && p->forms != NULL)
        *p->forms = NULL;
    if (n != NULL && r != STORE_STORED) {
        n->o.forms = NULL;              /* the caller's still */
        give_up(s, n);
    }
    return r;
}

enum store_result
store_freshen(struct store *s, struct object *was, const struct store_parts *with,
    struct object **out)
{
    struct store_parts p = { .head = with->head, .status_n = with->status_n,
        .etag_at = with->etag_at, .etag_n = with->etag_n, .meta = with->meta,
        .request_ms = with->request_ms, .stamp = with->stamp, .regroup = with->regroup,
        .forms = with->forms, .groups = with->groups,
        .ngroups = with->regroup ? with->ngroups : 0 };
    struct key none = { 0 };
    enum store_result r;

    CHECK(s, STORE_MAGIC);
    CHECK(was, OBJECT_MAGIC);
    p.key = &none;
    if (too_large(s, &p))
        return STORE_TOO_LARGE;
    r = freshen(s, (struct node *)(void *)was, &p, out);
    if (r == STORE_STORED)
        COUNT(cache_freshened);
    else
        counted(r);
    return r;
}

/* ---- coded forms ---------------------------------------------------------------------------- */

/* Under the shard's lock. */
static bool
formless(struct store *s, struct node *n)
{
    if (n->place == NODE_OUT)
        return false;
    purge_judge_locked(s, n);
    return !n->dead && n->o.forms == NULL;
}

bool
store_wants_forms(struct store *s, const struct object *o)
{
    struct node *n = (struct node *)(uintptr_t)o;
    struct shard *sh = store_shard(s, key_hash(node_key(n)));
    bool wants;

    CHECK(s, STORE_MAGIC);
    CHECK(o, OBJECT_MAGIC);
    pthread_mutex_lock(&sh->lock);
    wants = formless(s, n);
    pthread_mutex_unlock(&sh->lock);
    return wants;
}

enum store_result
store_add_forms(struct store *s, struct object *o, struct forms **forms, uint64_t *held)
{
    struct node *n = (struct node *)(void *)o;
    struct shard *sh = store_shard(s, key_hash(node_key(n)));
    uint32_t units = charge_units(forms_charge(*forms, true));
    int64_t bytes = (int64_t)units * CHARGE_UNIT, here = (int64_t)*held;
    bool stored;

    CHECK(s, STORE_MAGIC);
    CHECK(o, OBJECT_MAGIC);
    if (bytes > s->limit / LARGEST)
        return STORE_TOO_LARGE;
    if (!store_room(s, bytes - here))
        return STORE_NO_MEMORY;
    STEP("forms: room");
    pthread_mutex_lock(&sh->lock);
    stored = formless(s, n);
    if (stored) {
        sh->bytes[n->place] += (size_t)bytes;
        n->charge += units;
        rcu_store(&o->forms, *forms);
        *forms = NULL;
    }
    pthread_mutex_unlock(&sh->lock);
    if (stored)
        store_holds_change(s, held, 0);
    else
        store_charge(s, here - bytes);
    return stored ? STORE_STORED : STORE_PURGED;
}
