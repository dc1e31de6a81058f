/*
 * What is in the store, told to a person: what a lookup has no use for.
 *
 * Threads  any; the shard's lock where store_each has not taken it.
 */
#include "store/inside.h"

static const struct node *
node_of(const struct object *o)
{
    CHECK(o, OBJECT_MAGIC);
    return (const struct node *)(const void *)o;
}

struct slice
store_variant(const struct object *o)
{
    return node_variant(node_of(o));
}

uint64_t
store_counts(const struct object *o)
{
    return node_charge(node_of(o));
}

/* The store's own tags are left out: the URL, and of a group its form without an origin. */
void
store_tags(const struct object *o, void (*each)(void *arg, bool group, struct slice text),
    void *arg)
{
    const struct node *n = node_of(o);

    for (size_t i = 0; i < n->ntags; i++) {
        const struct tag *g = node_tags(n)[i];
        struct slice text = { g->text + 1, g->text_n - 1 };

        if (g->text[0] == TAG_NAMED)
            each(arg, false, text);
        else if (g->text[0] == TAG_GROUP && text.n > 0 && text.p[0] != '\0')
            each(arg, true, text);
    }
}

bool
store_refused(struct store *s, const struct key *k,
    void (*each)(void *arg, const struct store_refusal *r), void *arg)
{
    struct shard *sh = store_shard(s, k->hash);
    struct node *n;

    CHECK(s, STORE_MAGIC);
    pthread_mutex_lock(&sh->lock);
    for (n = table_find(sh->table, k->hash, k->bytes); n != NULL; n = n->older) {
        purge_judge_locked(s, n);
        if (!n->dead && node_is_mark(n)) {
            each(arg, &(struct store_refusal){ .why = node_vary(n), .head = node_variant(n),
                .status = n->o.meta.status, .at_ms = n->o.meta.date_ms,
                .until_ms = n->o.meta.response_ms });
            break;
        }
    }
    pthread_mutex_unlock(&sh->lock);
    return n != NULL;
}
