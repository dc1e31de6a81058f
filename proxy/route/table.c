/*
 * The table: compiled whole from a configuration, then never changed.
 *
 * Everything lives in one pool, the table itself included. Hosts lead to a root; a route with
 * several hosts stands under each of them. Entries of a node are kept sorted, the most specific
 * first, so that the order in the file never matters.
 */
#include "route/trie.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#define IDEMPOTENCY_MS (24 * 3600 * (int64_t)1000)      /* of write-back, as route.def says */

static int
no_memory(struct err *e)
{
    return err_set(e, 0, "out of memory");
}

/* ---- children and entries ----------------------------------------------------------------- */

static void
children_put(struct children *c, const struct child *add)
{
    uint32_t i = c->n;

    if (c->cap > CHILDREN_SMALL)
        for (i = (uint32_t)add->hash & (c->cap - 1); c->at[i].node != NULL;)
            i = (i + 1) & (c->cap - 1);
    c->at[i] = *add;
    c->n++;
}

static int
children_grow(struct children *c, struct pool *p)
{
    struct children bigger = { .cap = c->cap == 0 ? CHILDREN_SMALL : c->cap * 4 };

    bigger.at = pool_zalloc(p, bigger.cap * sizeof *bigger.at);
    if (bigger.at == NULL)
        return -1;
    for (uint32_t i = 0; i < c->cap; i++)
        if (c->at[i].node != NULL)
            children_put(&bigger, &c->at[i]);
    *c = bigger;
    return 0;
}

/* The child of this text, made when there is none. NULL when memory is out. */
static struct node *
child_of(struct children *c, struct slice text, struct pool *p)
{
    struct node *n = c->n > 0 ? children_find(c, text) : NULL;
    bool full = c->cap <= CHILDREN_SMALL ? c->n == c->cap : c->n * 2 >= c->cap;

    if (n != NULL)
        return n;
    if (full && children_grow(c, p) == -1)
        return NULL;
    n = pool_zalloc(p, sizeof *n);
    if (n != NULL)
        children_put(c, &(struct child){ .text = text, .hash = key_hash(text), .node = n });
    return n;
}

/* Method list before none, more fields before fewer; among as many other fields their names decide,
 * so that the order in the file does not. */
static int
rank(const struct entry *a, const struct entry *b)
{
    bool am = a->methods != 0 || a->nothers > 0, bm = b->methods != 0 || b->nothers > 0;

    if (am != bm)
        return am ? -1 : 1;
    if (a->nheaders != b->nheaders)
        return a->nheaders > b->nheaders ? -1 : 1;
    return strcmp(a->tie, b->tie);
}

static int
entries_add(struct entries *es, struct entry *e, struct pool *p)
{
    size_t i;

    if (es->n == es->cap) {
        size_t cap = es->cap == 0 ? 2 : es->cap * 2;
        struct entry **at = pool_alloc(p, cap * sizeof *at);

        if (at == NULL)
            return -1;
        if (es->n > 0)
            memcpy(at, es->at, es->n * sizeof *at);
        es->at = at;
        es->cap = cap;
    }
    for (i = es->n; i > 0 && rank(e, es->at[i - 1]) < 0; i--)
        es->at[i] = es->at[i - 1];
    es->at[i] = e;
    es->n++;
    return 0;
}

/* ---- one route ---------------------------------------------------------------------------- */

static int
by_text(const void *a, const void *b)
{
    return strcasecmp(*(char *const *)a, *(char *const *)b);
}

static int
entry_headers(struct entry *e, const struct conf_strings *fields, struct pool *p)
{
    struct buf tie = { 0 };
    const char **names = pool_alloc(p, (fields->n + 1) * sizeof *names);

    e->headers = pool_alloc(p, (fields->n + 1) * sizeof *e->headers);
    if (names == NULL || e->headers == NULL)
        return -1;
    if (fields->n > 0)
        memcpy(names, fields->at, fields->n * sizeof *names);
    qsort(names, fields->n, sizeof *names, by_text);
    for (size_t i = 0; i < fields->n; i++) {
        if (i > 0 && strcasecmp(names[i], names[i - 1]) == 0)
            continue;
        e->headers[e->nheaders++] =
            (struct want){ .id = http_id(slice_of(names[i])), .name = slice_of(names[i]) };
        buf_addlower(&tie, slice_of(names[i]));
        buf_addc(&tie, ',');
    }
    e->tie = tie.failed ? NULL : pool_dup(p, tie.p, tie.n);
    buf_free(&tie);
    return e->tie != NULL ? 0 : -1;
}

/* GET takes HEAD with it: a HEAD is answered from the stored GET (RFC 9111 4). */
static int
entry_methods(struct entry *e, const struct conf_strings *methods, struct pool *p)
{
    e->others = pool_alloc(p, (methods->n + 1) * sizeof *e->others);
    if (e->others == NULL)
        return -1;
    for (size_t i = 0; i < methods->n; i++) {
        enum http_method m = http_method(slice_of(methods->at[i]));

        if (m == HTTP_OTHER)
            e->others[e->nothers++] = slice_of(methods->at[i]);
        else
            e->methods |= 1u << m | (m == HTTP_GET ? 1u << HTTP_HEAD : 0);
    }
    return 0;
}

static int
trie_add(struct node *n, const struct template_parts *t, struct entry *e, struct pool *p)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct template_segment *g = &t->at[i];

        if (g->kind == SEGMENT_REST)
            return entries_add(&n->rest, e, p);
        if (g->kind == SEGMENT_LITERAL) {
            n = child_of(&n->literal, g->text, p);
        } else {
            if (n->any == NULL)
                n->any = pool_zalloc(p, sizeof *n->any);
            n = n->any;
        }
        if (n == NULL)
            return -1;
    }
    return entries_add(&n->here, e, p);
}

static struct node *
host_root(struct route_table *t, const char *host)
{
    bool wild = strncmp(host, "*.", 2) == 0;
    char *low = pool_dup(t->pool, host + (wild ? 2 : 0), strlen(host) - (wild ? 2 : 0));
    size_t n;

    if (low == NULL)
        return NULL;
    for (n = strlen(low); n > 1 && low[n - 1] == '.';)
        low[--n] = '\0';                /* as requests have it */
    for (char *c = low; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    return child_of(wild ? &t->wild : &t->exact, slice_of(low), t->pool);
}

static int
place(struct route_table *t, struct route *r, struct err *e)
{
    struct entry *en = pool_zalloc(t->pool, sizeof *en);
    struct template_parts parts;
    size_t k = 0;

    if (en == NULL)
        return no_memory(e);
    en->route = r;
    if (template_parse(r->conf->path, t->pool, &parts, e) == -1)
        return -1;
    if (entry_headers(en, &r->conf->headers, t->pool) == -1 ||
        entry_methods(en, &r->conf->methods, t->pool) == -1)
        return no_memory(e);
    for (size_t i = 0; i < parts.n; i++)
        if (parts.at[i].kind == SEGMENT_PARAM)
            en->param_at[k++] = (uint8_t)i;
    if (r->conf->hosts.n == 0 && trie_add(&t->anywhere, &parts, en, t->pool) == -1)
        return no_memory(e);
    for (size_t i = 0; i < r->conf->hosts.n; i++) {
        struct node *root = host_root(t, r->conf->hosts.at[i]);

        if (root == NULL || trie_add(root, &parts, en, t->pool) == -1)
            return no_memory(e);
    }
    return 0;
}

static int
templates_compile(const struct conf_strings *texts, struct route *r, struct pool *p,
    struct key_template ***out, size_t *n, struct err *e)
{
    *out = pool_alloc(p, (texts->n + 1) * sizeof **out);
    if (*out == NULL)
        return no_memory(e);
    for (size_t i = 0; i < texts->n; i++) {
        (*out)[i] = key_template_new(texts->at[i], r->params, r->nparams, p, e);
        if ((*out)[i] == NULL)
            return -1;
        r->needs |= key_template_needs((*out)[i]);
    }
    *n = texts->n;
    return 0;
}

static int
write_key_compile(const char *text, struct route *r, struct pool *p, struct err *e)
{
    if (text == NULL)
        return 0;
    r->write_key = key_template_new(text, r->params, r->nparams, p, e);
    if (r->write_key == NULL)
        return -1;
    r->needs |= key_template_needs(r->write_key);
    return 0;
}

static int64_t
or_none(int64_t v)
{
    return v == CONF_UNSET ? -1 : v;
}

static int
names_compile(const struct conf_strings *list, struct pool *p, struct sem_names *out)
{
    struct slice *names = pool_alloc(p, (list->n + 1) * sizeof *names);

    if (names == NULL)
        return -1;
    for (size_t i = 0; i < list->n; i++)
        names[i] = slice_of(list->at[i]);
    *out = (struct sem_names){ names, list->n };
    return 0;
}

static int
rules_compile(const struct route_table *t, const struct conf_route *c, struct sem_rules *rules)
{
    struct sem_status_ttl *negative =
        pool_alloc(t->pool, (c->negative_ttl.n + 1) * sizeof *negative);

    if (negative == NULL)
        return -1;
    for (size_t i = 0; i < c->negative_ttl.n; i++)
        negative[i] = (struct sem_status_ttl){ .status = c->negative_ttl.at[i].status,
            .ttl_ms = c->negative_ttl.at[i].ttl_ms };
    *rules = (struct sem_rules){
        .ttl_ms = or_none(c->ttl_ms),
        .force_ttl_ms = or_none(c->force_ttl_ms),
        .swr_ms = or_none(c->swr_ms),
        .sie_ms = or_none(c->sie_ms),
        .heuristic = c->heuristic,
        .negative = negative,
        .nnegative = c->negative_ttl.n,
        .targets = t->targets,
    };
    return names_compile(&c->response_replay, t->pool, &rules->replay);
}

static struct route_edit
edit_compile(const struct conf_fields *set, const struct conf_fields *add,
    const struct conf_strings *cut)
{
    return (struct route_edit){ .set = set, .add = add, .remove = cut,
        .any = set->n > 0 || add->n > 0 || cut->n > 0 };
}

/* Where nothing is stored nothing is coded. */
static struct route_compress
compress_compile(const struct conf_route *c)
{
    struct route_compress z = { .types = &c->compress_types, .min = (uint64_t)c->compress_min };

    for (size_t i = 0; i < c->compress.n && c->policy != POLICY_PASS; i++) {
        enum sem_coding coding = sem_coding(slice_of(c->compress.at[i]));

        if (coding != SEM_IDENTITY && coding < SEM_CODINGS &&
            memchr(z.codings, coding, z.n) == NULL)
            z.codings[z.n++] = (uint8_t)coding;
    }
    return z;
}

static int
compile(struct route_table *t, struct route *r, const struct conf_route *c,
    unsigned (*slot)(const char *name), struct err *e)
{
    r->conf = c;
    r->name = c->name != NULL ? c->name : c->path;
    r->id = key_hash(slice_of(r->name));
    r->index = (unsigned)(r - t->routes);
    r->stats = slot != NULL ? slot(r->name) : r->index;
    r->idempotency_ms = c->write_idempotency_ms != CONF_UNSET ? c->write_idempotency_ms :
        c->policy == POLICY_WRITE_BACK ? IDEMPOTENCY_MS : 0;
    r->on_failure = c->on_failure != ON_FAILURE_INHERIT ? c->on_failure :
        t->conf->redis_on_failure;
    r->max_object = c->max_object != CONF_UNSET ? c->max_object : t->conf->cache_max_object;
    r->request = edit_compile(&c->request_set, &c->request_add, &c->request_remove);
    r->response = edit_compile(&c->response_set, &c->response_add, &c->response_remove);
    r->compress = compress_compile(c);
    if (c->policy != POLICY_PASS && !c->plugins_on_hits && !t->conf->cache_status_key)
        r->on_the_spot = c->policy == POLICY_WRITE_BACK ? SPOT_UNLESS_PENDING : SPOT_YES;
    r->recipe = key_recipe_new(c, t->pool);
    if (r->recipe == NULL || rules_compile(t, c, &r->rules) == -1)
        return no_memory(e);
    if (route_template_check(c->path, e) == -1)
        return -1;
    r->params = route_template_params(c->path, t->pool, &r->nparams);
    if (r->params == NULL)
        return no_memory(e);
    if (templates_compile(&c->tags, r, t->pool, &r->tags, &r->ntags, e) == -1 ||
        templates_compile(&c->purge, r, t->pool, &r->purge, &r->npurge, e) == -1 ||
        write_key_compile(c->write_key, r, t->pool, e) == -1)
        return -1;
    return place(t, r, e);
}

/* ---- the whole ---------------------------------------------------------------------------- */

static int
by_name(const void *a, const void *b)
{
    const struct route *ra = *(struct route *const *)a, *rb = *(struct route *const *)b;
    int c = strcmp(ra->name, rb->name);

    return c != 0 ? c : (ra->index > rb->index) - (ra->index < rb->index);
}

static int
index_below(struct node *n, struct pool *p)
{
    if (entries_index(&n->here, p) == -1 || entries_index(&n->rest, p) == -1 ||
        (n->any != NULL && index_below(n->any, p) == -1))
        return -1;
    for (uint32_t i = 0; i < n->literal.cap; i++)
        if (n->literal.at[i].node != NULL && index_below(n->literal.at[i].node, p) == -1)
            return -1;
    return 0;
}

static int
index_hosts(struct children *hosts, struct pool *p)
{
    for (uint32_t i = 0; i < hosts->cap; i++)
        if (hosts->at[i].node != NULL && index_below(hosts->at[i].node, p) == -1)
            return -1;
    return 0;
}

static int
by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)*(void *const *)a, y = (uintptr_t)*(void *const *)b;

    return (x > y) - (x < y);
}

static int
mark_spans(struct route_table *t)
{
    const void **keyed = calloc(t->n + 1, sizeof *keyed);      /* origins with a write_key */
    size_t n = 0;

    if (keyed == NULL)
        return -1;
    for (size_t i = 0; i < t->n; i++)
        if (t->routes[i].write_key != NULL)
            keyed[n++] = t->routes[i].conf->to;
    qsort(keyed, n, sizeof *keyed, by_address);
    for (size_t i = 0; i < t->n; i++) {
        const void *to = t->routes[i].conf->to;

        t->routes[i].write_spans = bsearch(&to, keyed, n, sizeof *keyed, by_address) != NULL;
    }
    free(keyed);
    return 0;
}

static int
fill(struct route_table *t, unsigned (*slot)(const char *name), struct err *e)
{
    const struct conf *c = t->conf;

    if (names_compile(&c->cache_targeted, t->pool, &t->targets) == -1)
        return no_memory(e);
    t->routes = pool_zalloc(t->pool, (c->nroutes + 1) * sizeof *t->routes);
    t->by_name = pool_alloc(t->pool, (c->nroutes + 1) * sizeof(struct route *));
    if (t->routes == NULL || t->by_name == NULL)
        return no_memory(e);
    for (size_t i = 0; i < c->nroutes; i++, t->n++) {
        if (compile(t, &t->routes[i], &c->routes[i], slot, e) == -1)
            return -1;
        t->by_name[i] = &t->routes[i];
    }
    qsort(t->by_name, t->n, sizeof *t->by_name, by_name);
    if (mark_spans(t) == -1 || index_hosts(&t->exact, t->pool) == -1 ||
        index_hosts(&t->wild, t->pool) == -1 || index_below(&t->anywhere, t->pool) == -1)
        return no_memory(e);
    return 0;
}

struct route_table *
route_table_new(struct conf *c, unsigned (*slot)(const char *name), struct err *e)
{
    struct pool *p = pool_new();
    struct route_table *t = p != NULL ? pool_zalloc(p, sizeof *t) : NULL;

    if (t == NULL) {
        pool_free(&p);
        no_memory(e);
        return NULL;
    }
    t->magic = ROUTE_TABLE_MAGIC;
    atomic_init(&t->refs, 1);
    t->pool = p;
    t->conf = conf_ref(c);
    if (fill(t, slot, e) == -1)
        route_table_unref(&t);
    return t;
}

struct route_table *
route_table_ref(struct route_table *t)
{
    CHECK(t, ROUTE_TABLE_MAGIC);
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void
route_table_unref(struct route_table **tp)
{
    struct route_table *t = *tp;

    *tp = NULL;
    if (t == NULL)
        return;
    CHECK(t, ROUTE_TABLE_MAGIC);
    if (atomic_fetch_sub(&t->refs, 1) > 1)
        return;
    t->magic = 0;
    conf_unref(&t->conf);
    pool_free(&(struct pool *){ t->pool });
}

struct conf *
route_table_conf(const struct route_table *t)
{
    CHECK(t, ROUTE_TABLE_MAGIC);
    return t->conf;
}

size_t
route_table_size(const struct route_table *t)
{
    return t->n;
}

const struct route *
route_table_at(const struct route_table *t, size_t i)
{
    assert(i < t->n);
    return &t->routes[i];
}

/* The first in the file's order when several share a name. */
const struct route *
route_table_find(const struct route_table *t, struct slice name)
{
    size_t lo = 0, hi = t->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        struct slice at = slice_of(t->by_name[mid]->name);
        int c = memcmp(at.p, name.p, at.n < name.n ? at.n : name.n);

        if (c < 0 || (c == 0 && at.n < name.n))
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < t->n && slice_eq(slice_of(t->by_name[lo]->name), name))
        return t->by_name[lo];
    return NULL;
}

const struct route *
route_table_named(const struct route_table *t, struct slice name, struct err *e)
{
    const struct route *route = route_table_find(t, name);
    struct nearest near = { .to = name };

    if (route != NULL)
        return route;
    for (size_t i = 0; i < t->n; i++)
        nearest_try(&near, t->by_name[i]->name);
    if (near.word != NULL)
        err_set(e, ENOENT, "there is no route \"%.*s\"; the nearest is \"%s\"", SLICE_ARG(name),
            near.word);
    else
        err_set(e, ENOENT, "there is no route \"%.*s\"", SLICE_ARG(name));
    return NULL;
}
