/*
 * Matching: the hot path. No allocation, no lock, no shared memory written.
 *
 * The walk goes down segment by segment, at each node first to the literal child, then to the one
 * of placeholders, then to what `**` takes; the first route that takes the request is the most
 * specific one, and what fails falls back to the next best. The trie is a tree, so a walk sees a
 * node at most once and never more than two for each choice that the templates themselves offer.
 *
 * Many routes of one path that only `headers` tell apart are found by the request's fields
 * (fields.c).
 *
 * The same walk, with another visitor of the nodes, finds all routes that could take a GET: it goes
 * on behind those that ask for fields. With a third one it tells of each route of this path what
 * speaks against it.
 */
#include "route/trie.h"

struct walk {
    const struct http_head *head;       /* NULL: a GET without fields */
    uint32_t method;                    /* its bit */
    const struct entry *found;
    bool (*visit)(struct walk *w, const struct entries *es);    /* NULL: the first that takes it */
    void (*each)(void *arg, const struct route *r);             /* of the visitors */
    void (*near)(void *arg, const struct route *r, enum route_near n);
    void *arg;
    bool elsewhere;                         /* under hosts that are not the request's */
    struct slice at[ROUTE_SEGMENTS_MAX];    /* the segments that placeholders took */
};

static bool
method_taken(const struct walk *w, const struct entry *e)
{
    if (e->methods == 0 && e->nothers == 0)
        return true;
    if (w->method != 1u << HTTP_OTHER)
        return (e->methods & w->method) != 0;
    for (size_t i = 0; i < e->nothers; i++)
        if (slice_eq(e->others[i], w->head->method_name))
            return true;
    return false;
}

static bool
fields_present(const struct http_head *h, const struct entry *e)
{
    for (size_t i = 0; i < e->nheaders; i++) {
        const struct want *want = &e->headers[i];

        if (h == NULL || !(want->id != HF_NONE ? http_has(h, want->id) :
                http_find_name(h, want->name) != NULL))
            return false;
    }
    return true;
}

/* Names those that take what they may store: GET, HEAD, QUERY, and `cache_methods`. Behind one that
 * takes every GET no other ever has one, and so on; behind one for all methods nobody has any. */
static bool
name_each(struct walk *w, const struct entries *es)
{
    const unsigned ask = 1u << HTTP_GET | 1u << HTTP_HEAD | 1u << HTTP_QUERY;

    for (size_t i = 0; i < es->n; i++) {
        const struct entry *e = es->at[i];
        bool all = e->methods == 0 && e->nothers == 0;

        if (((all ? ask : e->methods & ask) & w->method) != 0 ||
            e->route->conf->cache_methods.n > 0)
            w->each(w->arg, e->route);
        if (e->nheaders > 0)
            continue;
        if (all)
            return true;
        w->method &= ~e->methods;
    }
    return false;
}

static bool
near_each(struct walk *w, const struct entries *es)
{
    for (size_t i = 0; i < es->n; i++) {
        const struct entry *e = es->at[i];

        w->near(w->arg, e->route, w->elsewhere ? ROUTE_NEAR_HOST : !method_taken(w, e) ?
            ROUTE_NEAR_METHOD : !fields_present(w->head, e) ? ROUTE_NEAR_FIELDS : ROUTE_TAKES);
    }
    return false;
}

/* The first of a chain that takes the request, if it is before `best`; else best. */
static uint32_t
first_of(const struct walk *w, const struct entries *es, uint32_t i, uint32_t best)
{
    for (; i < best; i = es->fields->next[i]) {
        const struct entry *e = es->at[i];

        if (method_taken(w, e) && (e->nheaders == 0 || fields_present(w->head, e)))
            return i;
    }
    return best;
}

static bool
pick_by_field(struct walk *w, const struct entries *es)
{
    uint32_t best = first_of(w, es, es->fields->plain.first, NO_ENTRY);

    for (unsigned i = 0; w->head != NULL && i < w->head->nfields; i++) {
        struct slice name = w->head->fields[i].name;
        const struct chain *c = field_chain(es->fields, name, field_hash(name));

        if (c->name.p != NULL)
            best = first_of(w, es, c->first, best);
    }
    if (best != NO_ENTRY)
        w->found = es->at[best];
    return best != NO_ENTRY;
}

static bool
pick(struct walk *w, const struct entries *es)
{
    if (UNLIKELY(w->visit != NULL))
        return w->visit(w, es);
    if (UNLIKELY(es->fields != NULL))
        return pick_by_field(w, es);
    for (size_t i = 0; i < es->n; i++) {
        const struct entry *e = es->at[i];

        if (method_taken(w, e) && (e->nheaders == 0 || fields_present(w->head, e))) {
            w->found = e;
            return true;
        }
    }
    return false;
}

/* `p` is where the next segment begins, NULL when the path is used up. */
static bool
descend(struct walk *w, const struct node *n, const char *p, const char *end, unsigned depth)
{
    const char *slash, *next;
    const struct node *child;
    struct slice s;

    if (p == NULL)
        return pick(w, &n->here) || pick(w, &n->rest);
    if (n->literal.n > 0 || n->any != NULL) {
        slash = p < end ? memchr(p, '/', (size_t)(end - p)) : NULL;
        s = (struct slice){ p, (size_t)((slash != NULL ? slash : end) - p) };
        next = slash != NULL ? slash + 1 : NULL;
        child = n->literal.n > 0 ? children_find(&n->literal, s) : NULL;
        if (child != NULL && descend(w, child, next, end, depth + 1))
            return true;
        if (n->any != NULL && s.n > 0) {
            w->at[depth] = s;
            if (descend(w, n->any, next, end, depth + 1))
                return true;
        }
    }
    return pick(w, &n->rest);
}

static bool
in_trie(struct walk *w, const struct node *root, struct slice path)
{
    if (path.n > 0 && path.p[0] == '/')
        return descend(w, root, path.p + 1, path.p + path.n, 0);
    return pick(w, &root->rest);        /* `OPTIONS *` has no path: only `**` takes it */
}

static bool
in_wild_hosts(struct walk *w, const struct route_table *t, struct slice host, struct slice path)
{
    struct slice label;

    while (slice_cut(&host, '.', &label) && host.p != NULL) {
        const struct node *root = children_find(&t->wild, host);

        if (root != NULL && in_trie(w, root, path))
            return true;
    }
    return false;
}

static bool
under_host(struct walk *w, const struct route_table *t, struct slice host, struct slice path)
{
    const struct node *root;

    return (t->exact.n > 0 && (root = children_find(&t->exact, host)) != NULL &&
        in_trie(w, root, path)) || (t->wild.n > 0 && in_wild_hosts(w, t, host, path)) ||
        in_trie(w, &t->anywhere, path);
}

static void
under_each(struct walk *w, const struct children *hosts, struct slice path)
{
    for (uint32_t i = 0; i < hosts->cap; i++)
        if (hosts->at[i].node != NULL) {
            w->method = ~0u;
            in_trie(w, hosts->at[i].node, path);
        }
}

const struct route *
route_match(const struct route_table *t, struct slice host, struct slice path,
    const struct http_head *h, struct route_match *m)
{
    struct walk w;

    CHECK(t, ROUTE_TABLE_MAGIC);
    w.head = h;
    w.method = 1u << (h != NULL ? h->method : HTTP_GET);
    w.visit = NULL;
    m->route = NULL;
    if (!under_host(&w, t, host, path))
        return NULL;
    m->route = w.found->route;
    for (size_t i = 0; i < m->route->nparams; i++)
        m->values[i] = w.at[w.found->param_at[i]];
    return m->route;
}

void
route_each(const struct route_table *t, const struct slice *host, struct slice path,
    void (*each)(void *arg, const struct route *r), void *arg)
{
    struct walk w = { .visit = name_each, .each = each, .arg = arg, .method = ~0u };

    CHECK(t, ROUTE_TABLE_MAGIC);
    if (host != NULL) {
        under_host(&w, t, *host, path);
        return;
    }
    under_each(&w, &t->exact, path);
    under_each(&w, &t->wild, path);
    w.method = ~0u;
    in_trie(&w, &t->anywhere, path);
}

/* ---- for explanations ------------------------------------------------------------------------ */

static bool
host_is_under(struct slice host, struct slice suffix)
{
    struct slice label;

    while (slice_cut(&host, '.', &label) && host.p != NULL)
        if (slice_eq(host, suffix))
            return true;
    return false;
}

static void
under_others(struct walk *w, const struct children *hosts, bool wild, struct slice host,
    struct slice path)
{
    for (uint32_t i = 0; i < hosts->cap; i++) {
        const struct child *c = &hosts->at[i];

        if (c->node != NULL && !(wild ? host_is_under(host, c->text) : slice_eq(host, c->text)))
            in_trie(w, c->node, path);
    }
}

void
route_consider(const struct route_table *t, struct slice host, struct slice path,
    const struct http_head *h, void (*each)(void *arg, const struct route *r, enum route_near n),
    void *arg)
{
    struct walk w = { .head = h, .method = 1u << (h != NULL ? h->method : HTTP_GET),
        .visit = near_each, .near = each, .arg = arg };

    CHECK(t, ROUTE_TABLE_MAGIC);
    under_host(&w, t, host, path);
    w.elsewhere = true;
    under_others(&w, &t->exact, false, host, path);
    under_others(&w, &t->wild, true, host, path);
}

struct slice
route_param(void *match, struct slice name, struct pool *p)
{
    const struct route_match *m = match;
    struct slice value = { NULL, 0 };
    struct buf b = { 0 };

    for (size_t i = 0; i < m->route->nparams; i++)
        if (slice_eq(slice_of(m->route->params[i]), name) &&
            http_uri_decode(&b, m->values[i]) == 0)
            value = pool_slice(p, b.p != NULL ? buf_slice(&b) : SLICE(""));
    buf_free(&b);
    return value;
}
