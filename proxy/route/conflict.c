/*
 * Conflicts: routes that are equal in specificity and would take the same requests.
 *
 * Each route is spelled out as lines "host, shape of the path, method, fields", one for each
 * pairing of a host and a method that it names. Two routes conflict when they share a line: sorting
 * the lines finds them all in n log n.
 */
#include "route/trie.h"

#include <stdlib.h>

struct line { const char *text; size_t route; };
struct lines { struct line *at; size_t n, cap; struct pool *pool; bool failed; };

/* Every placeholder of one segment is as specific as any other: `{a}` and `*` are the same shape.
 * A literal cannot begin with `*`. */
static int
add_shape(struct buf *b, const char *path, struct pool *p)
{
    struct template_parts t;

    if (template_parse(path, p, &t, NULL) == -1)
        return -1;
    for (size_t i = 0; i < t.n; i++) {
        buf_addc(b, '/');
        if (t.at[i].kind == SEGMENT_LITERAL)
            buf_adds(b, t.at[i].text);
        else
            buf_addz(b, t.at[i].kind == SEGMENT_REST ? "**" : "*");
    }
    return 0;
}

static int
by_text(const void *a, const void *b)
{
    return strcasecmp(*(char *const *)a, *(char *const *)b);
}

static void
add_fields(struct buf *b, const struct conf_strings *fields, struct pool *p)
{
    const char **names = pool_alloc(p, (fields->n + 1) * sizeof *names);

    if (names == NULL) {
        b->failed = true;
        return;
    }
    if (fields->n > 0)
        memcpy(names, fields->at, fields->n * sizeof *names);
    qsort(names, fields->n, sizeof *names, by_text);
    for (size_t i = 0; i < fields->n; i++) {
        if (i > 0 && strcasecmp(names[i], names[i - 1]) == 0)
            continue;
        buf_addlower(b, slice_of(names[i]));
        buf_addc(b, ',');
    }
}

static void
lines_add(struct lines *l, const struct buf *b, size_t route)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        struct line *at = realloc(l->at, cap * sizeof *at);

        if (at == NULL) {
            l->failed = true;
            return;
        }
        l->at = at;
        l->cap = cap;
    }
    l->at[l->n].text = b->failed ? NULL : pool_dup(l->pool, b->p, b->n);
    l->at[l->n].route = route;
    if (l->at[l->n].text == NULL)
        l->failed = true;
    else
        l->n++;
}

/* What all lines of a route share is spelled once, in `tail`. */
static void
spell(struct lines *l, const struct conf_route *r, size_t index, struct pool *scratch)
{
    static const char *const any[] = { "" };
    struct buf tail = { 0 }, b = { 0 };
    const char *const *hosts = r->hosts.n > 0 ? r->hosts.at : any;
    const char *const *methods = r->methods.n > 0 ? r->methods.at : any;
    size_t nh = r->hosts.n > 0 ? r->hosts.n : 1, nm = r->methods.n > 0 ? r->methods.n : 1;

    if (add_shape(&tail, r->path, scratch) == -1)
        goto out;                       /* malformed: reported for itself */
    buf_addc(&tail, ' ');
    add_fields(&tail, &r->headers, scratch);
    for (size_t i = 0; i < nh; i++) {
        for (size_t k = 0; k < nm; k++) {
            b.n = 0;
            buf_addlower(&b, slice_of(hosts[i]));
            while (b.n > 1 && b.p[b.n - 1] == '.')
                b.n--;
            buf_addc(&b, ' ');
            buf_addz(&b, strcmp(methods[k], "HEAD") == 0 ? "GET" : methods[k]);
            buf_addc(&b, ' ');
            buf_add(&b, tail.p, tail.n);
            b.failed |= tail.failed;
            lines_add(l, &b, index);
        }
    }
out:
    buf_free(&tail);
    buf_free(&b);
}

static int
by_line(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    int c = strcmp(x->text, y->text);

    return c != 0 ? c : (x->route > y->route) - (x->route < y->route);
}

struct pair { size_t i, j; };

static int
by_pair(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;

    if (x->i != y->i)
        return x->i < y->i ? -1 : 1;
    return (x->j > y->j) - (x->j < y->j);
}

/* Of several equal routes each later one is paired with the first: naming all pairs would be
 * quadratic, and tells nobody more. */
static size_t
pair_up(const struct lines *l, struct pair *pairs)
{
    size_t first = 0, n = 0, kept = 0;

    for (size_t k = 1; k < l->n; k++) {
        if (strcmp(l->at[k].text, l->at[first].text) != 0)
            first = k;
        else if (l->at[k].route != l->at[first].route)
            pairs[n++] = (struct pair){ l->at[first].route, l->at[k].route };
    }
    qsort(pairs, n, sizeof *pairs, by_pair);
    for (size_t k = 0; k < n; k++)
        if (kept == 0 || by_pair(&pairs[k], &pairs[kept - 1]) != 0)
            pairs[kept++] = pairs[k];
    return kept;
}

void
route_conf_conflicts(const struct conf_route *r, size_t n,
    void (*found)(void *arg, size_t i, size_t j), void *arg)
{
    struct lines l = { .pool = pool_new() };
    struct pair *pairs = NULL;
    size_t np = 0;

    for (size_t i = 0; i < n && l.pool != NULL && !l.failed; i++)
        spell(&l, &r[i], i, l.pool);
    if (l.n > 0 && !l.failed)
        pairs = malloc(l.n * sizeof *pairs);
    if (pairs != NULL) {
        qsort(l.at, l.n, sizeof *l.at, by_line);
        np = pair_up(&l, pairs);
    }
    for (size_t i = 0; i < np; i++)
        found(arg, pairs[i].i, pairs[i].j);
    free(pairs);
    free(l.at);
    pool_free(&l.pool);
}

static void
on_conflict(void *arg, size_t i, size_t j)
{
    (void)i, (void)j;
    *(bool *)arg = true;
}

bool
route_conf_conflict(const struct conf_route *a, const struct conf_route *b)
{
    const struct conf_route both[2] = { *a, *b };
    bool found = false;

    route_conf_conflicts(both, 2, on_conflict, &found);
    return found;
}
