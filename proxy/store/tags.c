/*
 * Tags: each text once, with the sequences of its last hard and soft purge.
 *
 * Model    a node points to the records of its tags, so that asking whether a tag was purged since
 *          costs one load a tag, and purging one costs one store whatever it carries. A record
 *          lives while a node in the index carries it; a new one starts with the sequence of its
 *          cell (see state.c), so that a purge from before it was made counts for what is in
 *          flight. The URL of a key that has the recipe's parts behind it is such a record too, of
 *          a kind of its own: that is how a purge by URL finds them. So are groups (RFC 9875),
 *          twice each: under their origin, and for purges of a group whatever its origin. `live`
 *          counts nodes whose stamp is not older than the last hard purge of the tag.
 * Threads  the table: its lock. hard and soft: any thread, in a read section.
 */
#include "store/inside.h"

#include <malloc.h>
#include <stdlib.h>

#define CAP_MIN 64

uint64_t
tag_hash(enum tag_kind kind, struct slice text)
{
    const char *wall = kind == TAG_SEARCH ? memchr(text.p, '\0', text.n) : NULL;
    uint64_t h = key_hash(wall != NULL ? (struct slice){ text.p, (size_t)(wall - text.p) } : text);

    /* 2^64 / golden ratio: spreads */
    return kind == TAG_URL ? h : h * 0x9e3779b97f4a7c15u ^ h >> 29;
}

int
tags_init(struct store *s)
{
    s->tags.buckets = calloc(CAP_MIN, sizeof *s->tags.buckets);
    s->tags.cap = CAP_MIN;
    return s->tags.buckets != NULL ? pthread_mutex_init(&s->tags.lock, NULL) : -1;
}

void
tags_fini(struct store *s)
{
    if (s->tags.buckets == NULL)
        return;
    assert(s->tags.n == 0);
    free(s->tags.buckets);
    pthread_mutex_destroy(&s->tags.lock);
}

/* Twice the buckets; the old ones do when memory is out. */
static void
grow(struct store *s)
{
    struct tags *t = &s->tags;
    struct tag **wider = calloc(t->cap * 2, sizeof *wider);

    if (wider == NULL)
        return;
    for (size_t i = 0; i < t->cap; i++)
        for (struct tag *g = t->buckets[i], *next; g != NULL; g = next) {
            struct tag **to = &wider[g->hash & (t->cap * 2 - 1)];

            next = g->next;
            g->next = *to;
            *to = g;
        }
    store_charge(s, (int64_t)(t->cap * sizeof *wider));
    free(t->buckets);
    t->buckets = wider;
    t->cap *= 2;
}

static struct tag **
find(struct tags *t, enum tag_kind kind, struct slice text, uint64_t hash)
{
    struct tag **at = &t->buckets[hash & (t->cap - 1)];

    for (; *at != NULL; at = &(*at)->next)
        if ((*at)->hash == hash && (*at)->text[0] == (char)kind &&
            slice_eq((struct slice){ (*at)->text + 1, (*at)->text_n - 1 }, text))
            break;
    return at;
}

static struct tag *
intern(struct store *s, enum tag_kind kind, struct slice text)
{
    uint64_t hash = tag_hash(kind, text);
    struct tag **at = find(&s->tags, kind, text, hash), *g = *at;

    if (g != NULL)
        return g;
    if ((g = calloc(1, offsetof(struct tag, text) + 1 + text.n)) == NULL)
        return NULL;
    g->hash = hash;
    atomic_init(&g->hard, atomic_load_explicit(&s->cells[hash % CELLS], memory_order_relaxed));
    g->text_n = (uint32_t)text.n + 1;
    g->text[0] = (char)kind;
    memcpy(g->text + 1, text.p, text.n);
    *at = g;
    store_charge(s, (int64_t)malloc_usable_size(g));
    s->tags.searches += kind == TAG_SEARCH;
    if (++s->tags.n > s->tags.cap)
        grow(s);
    return g;
}

static void
tag_free(struct rcu_node *r)
{
    free(CONTAINER(r, struct tag, rcu));
}

static void
hold(struct tag *g, uint64_t stamp)
{
    g->refs++;
    g->live += stamp >= atomic_load_explicit(&g->hard, memory_order_relaxed);
}

static void
give(struct store *s, struct tag *g, uint64_t stamp)
{
    struct tag **at;

    g->live -= stamp >= atomic_load_explicit(&g->hard, memory_order_relaxed);
    if (--g->refs > 0)
        return;
    at = find(&s->tags, (enum tag_kind)g->text[0], (struct slice){ g->text + 1, g->text_n - 1 },
        g->hash);
    assert(*at == g);
    *at = g->next;
    s->tags.n--;
    s->tags.searches -= g->text[0] == TAG_SEARCH;
    store_charge(s, -(int64_t)malloc_usable_size(g));
    rcu_after(&g->rcu, tag_free);
}

/* Interns one more and holds it, once a node. */
static int
add(struct store *s, enum tag_kind kind, struct slice text, uint64_t stamp, struct tag **out,
    size_t *n)
{
    struct tag *g = intern(s, kind, text);

    if (g == NULL)
        return -1;
    for (size_t i = 0; i < *n; i++)
        if (out[i] == g)
            return 0;
    hold(g, stamp);
    out[(*n)++] = g;
    return 0;
}

enum tag_kind
tag_kind_of(enum store_purge_kind kind)
{
    return kind == STORE_PURGE_URL ? TAG_URL : kind == STORE_PURGE_GROUP ? TAG_GROUP : TAG_NAMED;
}

static int
add_groups(struct store *s, const struct store_parts *p, struct tag **out, size_t *n)
{
    int rc = 0;

    for (size_t i = 0; i < p->ngroups && rc == 0; i++) {
        struct slice g = p->groups[i];
        const char *wall = memchr(g.p, '\0', g.n);

        assert(wall != NULL);
        rc = add(s, TAG_GROUP, g, p->stamp, out, n);
        if (rc == 0)
            rc = add(s, TAG_GROUP, (struct slice){ wall, (size_t)(g.p + g.n - wall) }, p->stamp,
                out, n);
    }
    return rc;
}

static int
add_search(struct store *s, const struct store_parts *p, struct tag **out, size_t *n)
{
    struct buf b = { 0 };
    int rc;

    buf_adds(&b, key_path((struct slice){ p->key->bytes.p, p->key->url_n }));
    buf_addc(&b, '\0');
    buf_adds(&b, p->search);
    rc = b.failed ? -1 : add(s, TAG_SEARCH, buf_slice(&b), p->stamp, out, n);
    buf_free(&b);
    return rc;
}

int
tags_take(struct store *s, const struct store_parts *p, struct tag **out, size_t *n)
{
    int rc = 0;

    *n = 0;
    if (p->ntags == 0 && p->ngroups == 0 && p->key->bytes.n == p->key->url_n)
        return 0;
    pthread_mutex_lock(&s->tags.lock);
    for (size_t i = 0; i < p->ntags && rc == 0; i++)
        rc = add(s, TAG_NAMED, p->tags[i], p->stamp, out, n);
    if (rc == 0 && p->key->bytes.n > p->key->url_n)
        rc = add(s, TAG_URL, (struct slice){ p->key->bytes.p, p->key->url_n }, p->stamp, out, n);
    if (rc == 0)
        rc = add_groups(s, p, out, n);
    if (rc == 0 && p->search.n > 0)
        rc = add_search(s, p, out, n);
    if (rc == -1)
        while (*n > 0)
            give(s, out[--*n], p->stamp);
    pthread_mutex_unlock(&s->tags.lock);
    return rc;
}

int
tags_again(struct store *s, const struct node *was, const struct store_parts *p, struct tag **out,
    size_t *n)
{
    int rc = 0;

    *n = 0;
    if (was->ntags == 0 && p->ngroups == 0)
        return 0;
    pthread_mutex_lock(&s->tags.lock);
    for (size_t i = 0; i < was->ntags; i++) {
        struct tag *g = node_tags(was)[i];

        if (p->regroup && g->text[0] == TAG_GROUP)
            continue;
        hold(g, p->stamp);
        out[(*n)++] = g;
    }
    if (p->regroup)
        rc = add_groups(s, p, out, n);
    if (rc == -1)
        while (*n > 0)
            give(s, out[--*n], p->stamp);
    pthread_mutex_unlock(&s->tags.lock);
    return rc;
}

void
tags_give(struct store *s, struct tag **tags, size_t n, uint64_t stamp)
{
    if (n == 0)
        return;
    pthread_mutex_lock(&s->tags.lock);
    for (size_t i = 0; i < n; i++)
        give(s, tags[i], stamp);
    pthread_mutex_unlock(&s->tags.lock);
}

uint64_t
tags_purge(struct store *s, enum tag_kind kind, struct slice text, uint64_t seq, bool soft)
{
    struct tag *g;
    uint64_t hit = 0;

    pthread_mutex_lock(&s->tags.lock);
    if ((g = *find(&s->tags, kind, text, tag_hash(kind, text))) != NULL) {
        hit = g->live;
        atomic_store_explicit(soft ? &g->soft : &g->hard, seq, memory_order_relaxed);
        if (!soft)
            g->live = 0;
    }
    pthread_mutex_unlock(&s->tags.lock);
    return hit;
}

uint64_t
tags_count(struct store *s, enum tag_kind kind, struct slice text)
{
    struct tag *g;
    uint64_t n;

    pthread_mutex_lock(&s->tags.lock);
    g = *find(&s->tags, kind, text, tag_hash(kind, text));
    n = g != NULL ? g->live : 0;
    pthread_mutex_unlock(&s->tags.lock);
    return n;
}

size_t
tags_searches(struct store *s, struct slice path, struct buf *rules)
{
    uint64_t hash = tag_hash(TAG_SEARCH, path);
    size_t n = 0;

    pthread_mutex_lock(&s->tags.lock);
    for (struct tag *g = s->tags.buckets[hash & (s->tags.cap - 1)]; g != NULL; g = g->next) {
        struct slice text = { g->text + 1, g->text_n - 1 };
        uint16_t length = (uint16_t)(text.n - path.n - 1);

        if (g->hash != hash || g->text[0] != TAG_SEARCH || text.n <= path.n ||
            text.p[path.n] != '\0' || !slice_starts(text, path))
            continue;
        buf_add(rules, (const char *)&length, sizeof length);
        buf_add(rules, text.p + path.n + 1, length);
        n++;
    }
    pthread_mutex_unlock(&s->tags.lock);
    return n;
}

struct slice
tags_search_next(struct slice *rest)
{
    struct slice rule;
    uint16_t length;

    memcpy(&length, rest->p, sizeof length);
    rule = (struct slice){ rest->p + sizeof length, length };
    *rest = (struct slice){ rule.p + length, rest->n - sizeof length - length };
    return rule;
}

bool
tags_carry(const struct node *n, enum tag_kind kind, struct slice text)
{
    for (size_t i = 0; i < n->ntags; i++) {
        const struct tag *g = node_tags(n)[i];

        if (g->text[0] == (char)kind &&
            slice_eq((struct slice){ g->text + 1, g->text_n - 1 }, text))
            return true;
    }
    return false;
}
