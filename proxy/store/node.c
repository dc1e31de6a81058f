/*
 * Nodes: one allocation for an object, its tags, key, variant and head; and how they go.
 *
 * Model    the index holds one reference. Out of the index, a node waits until the readers that
 *          may see it have left (rcu_after), then the index's reference is dropped; whoever took
 *          one keeps the memory longer. Both kinds are counted, because they are resident though
 *          no longer stored: `waiting` and `kept_out`, for all stores of the process together.
 * Threads  any.
 */
#include "store/inside.h"

#include <malloc.h>
#include <stdlib.h>

_Static_assert(offsetof(struct node, o) == 0, "an object is the face of a node");
_Static_assert(sizeof(struct node) % sizeof(void *) == 0, "tags behind a node are aligned");

static _Atomic int64_t waiting, kept_out;

static char *
append(char *at, struct slice s)
{
    if (s.n > 0)
        memcpy(at, s.p, s.n);
    return at + s.n;
}

uint32_t
charge_units(size_t bytes)
{
    return (uint32_t)((bytes + CHARGE_UNIT - 1) / CHARGE_UNIT);
}

/* Takes over nothing: tags and body are the caller's until it succeeds. */
struct node *
node_new(const struct store_parts *p, struct tag **tags, size_t ntags, struct body *body)
{
    size_t start = ntags == 0 ? offsetof(struct node, tail) :
        sizeof(struct node) + ntags * sizeof *tags;
    size_t head_at = (start + p->key->bytes.n + p->vary.n + p->variant.n + 3) & ~(size_t)3;
    size_t part_n = body != NULL && (p->meta.flags & META_PARTIAL) ? sizeof *p->part : 0;
    struct node *n = malloc(head_at +
        (body != NULL ? sizeof(struct stored_head) + p->head.n + part_n : 0));
    char *at;

    if (n == NULL)
        return NULL;
    memset(n, 0, sizeof *n);
    n->o = (struct object){ .magic = OBJECT_MAGIC, .refs = 1, .body = body, .meta = p->meta,
        .stamp = p->stamp, .route_id = p->route_id };
    n->key_n = (uint32_t)p->key->bytes.n;
    n->vary_n = (uint16_t)p->vary.n;
    n->variant_n = (uint32_t)p->variant.n;
    n->ntags = (uint16_t)ntags;
    n->soft = p->soft ? (p->doubt ? NODE_DOUBT : NODE_SOFT) : 0;
    if (ntags > 0)
        memcpy(node_tags(n), tags, ntags * sizeof *tags);
    at = append((char *)n + start, p->key->bytes);
    append(append(at, p->vary), p->variant);
    if (body != NULL) {
        struct stored_head *h = (struct stored_head *)(void *)((char *)n + head_at);

        *h = (struct stored_head){ .n = (uint32_t)p->head.n, .status_n = (uint16_t)p->status_n,
            .etag_at = p->etag_at, .etag_n = (uint16_t)p->etag_n };
        append(append(h->bytes, p->head), (struct slice){ (const char *)p->part, part_n });
        n->o.head = h;
    }
    n->charge = charge_units(malloc_usable_size(n) + (body != NULL ? body_charge(body) : 0));
    return n;
}

void
node_free(struct node *n)
{
    CHECK(&n->o, OBJECT_MAGIC);
    if (n->o.body != NULL)
        body_unref(&n->o.body);
    forms_free(&n->o.forms);
    n->o.magic = 0;
    free(n);
}

static void
readers_left(struct rcu_node *r)
{
    struct node *n = CONTAINER(r, struct node, rcu);
    struct object *o = &n->o;
    int64_t charge = (int64_t)node_charge(n);

    atomic_fetch_add_explicit(&kept_out, charge, memory_order_relaxed);
    atomic_fetch_sub_explicit(&waiting, charge, memory_order_relaxed);
    object_unref(&o);
}

void
node_retire(struct node *n, struct body *kept)
{
    if (kept != NULL)
        n->charge = charge_units(malloc_usable_size(n) + forms_charge(n->o.forms, false));
    atomic_fetch_add_explicit(&waiting, (int64_t)node_charge(n), memory_order_relaxed);
    rcu_after(&n->rcu, readers_left);
}

int64_t
nodes_waiting(void)
{
    return atomic_load_explicit(&waiting, memory_order_relaxed);
}

int64_t
nodes_held(void)
{
    return atomic_load_explicit(&kept_out, memory_order_relaxed);
}

/* Few objects are parts: what tells of one stands behind its head, wherever that ends. */
struct object_part
object_part(const struct object *o)
{
    struct object_part part = { 0, body_size(o->body), true };

    if (o->meta.flags & META_PARTIAL)
        memcpy(&part, o->head->bytes + o->head->n, sizeof part);
    return part;
}

struct object *
object_apart(const struct store_parts *p)
{
    struct body *body = body_ref(p->body);
    struct node *n = node_new(p, NULL, 0, body);

    if (n == NULL) {
        body_unref(&body);
        return NULL;
    }
    atomic_fetch_add_explicit(&kept_out, (int64_t)node_charge(n), memory_order_relaxed);
    return &n->o;
}

struct object *
object_ref(struct object *o)
{
    CHECK(o, OBJECT_MAGIC);
    atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
    return o;
}

/* The last one can only go after the index's, which readers_left drops. */
void
object_unref(struct object **op)
{
    struct object *o = *op;
    struct node *n = (struct node *)(void *)o;

    *op = NULL;
    if (o == NULL)
        return;
    CHECK(o, OBJECT_MAGIC);
    if (atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) > 1)
        return;
    atomic_fetch_sub_explicit(&kept_out, (int64_t)node_charge(n), memory_order_relaxed);
    node_free(n);
}
