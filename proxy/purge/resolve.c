/*
 * From what an operator writes to what the store purges.
 *
 * Model    a URL becomes the URL part of its key: normalised, with the query rules of the route that a GET
 *          for it takes. "/path" without a host stands for it under every host, by the rules of the
 *          route that takes it whatever the host; it is compared whole with path and query, so
 *          that `*` and `?` in it mean themselves. A prefix is normalised like a URL but keeps
 *          to no route's query rules; a pattern is taken as it is written.
 *          First everything is understood, then everything is purged: one item that is not
 *          understood purges nothing.
 * Threads  any; route table and store are the caller's for the time of the call.
 */
#include "purge/inside.h"

#include <errno.h>
#include <stdlib.h>

#define ANY_HOST "http://any"           /* stands in for a host where only path and query count */
#define NAME_MAX_COMPARED 64

/* ---- URLs ----------------------------------------------------------------------------------------- */

static struct slice
without_port(struct slice host)
{
    const char *bracket = host.n > 0 ? memrchr(host.p, ']', host.n) : NULL;
    const char *from = bracket != NULL ? bracket : host.p;
    const char *colon = host.n > 0 ? memchr(from, ':', (size_t)(host.p + host.n - from)) : NULL;

    return colon != NULL ? (struct slice){ host.p, (size_t)(colon - host.p) } : host;
}

/* k is a key that key_of_url made. */
static const struct route *
route_of(const struct route_table *t, const struct key *k, bool any_host)
{
    struct slice host = { 0 }, path = { k->bytes.p + k->path_at, k->url_n - k->path_at };
    const char *query = memchr(path.p, '?', path.n);
    const char *slashes = memchr(k->bytes.p, ':', k->url_n);
    struct route_match m;

    if (query != NULL)
        path.n = (size_t)(query - path.p);
    if (!any_host && slashes != NULL && slashes + 3 < path.p)
        host = without_port((struct slice){ slashes + 3, (size_t)(path.p - slashes - 3) });
    return route_match(t, host, path, NULL, &m);
}

static int
resolve(const struct route_table *t, struct slice url, bool any_host, struct buf *b, struct key *k)
{
    const struct route *r;

    b->n = 0;
    if (key_of_url(NULL, url, b, k) == -1)
        return -1;
    if ((r = route_of(t, k, any_host)) == NULL)
        return 0;
    b->n = 0;
    return key_of_url(r->recipe, url, b, k);
}

int
purge_resolve(const struct route_table *t, struct slice url, struct buf *b, struct slice *out)
{
    struct key k;

    if (resolve(t, url, false, b, &k) == -1)
        return -1;
    *out = (struct slice){ b->p, k.url_n };
    return 0;
}

/* ---- items ------------------------------------------------------------------------------------------ */

struct resolved {
    struct store_purge purge;
    struct buf         text;            /* owns purge.text */
};

static int
resolve_url(const struct route_table *t, const struct purge_item *item, struct resolved *r,
    struct err *e)
{
    bool prefix = item->kind == STORE_PURGE_PREFIX;
    bool path = item->text.n > 0 && item->text.p[0] == '/';
    struct buf url = { 0 };
    struct key k;
    int rc;

    if (path)
        buf_addz(&url, ANY_HOST);
    buf_adds(&url, item->text);
    if (url.failed)
        return err_set(e, ENOMEM, "memory is out");
    rc = prefix ? key_of_url(NULL, buf_slice(&url), &r->text, &k) :
        resolve(t, buf_slice(&url), path, &r->text, &k);
    buf_free(&url);
    if (rc == -1)
        return err_set(e, EINVAL, "%s \"%.*s\" is no URL: write http://host/path or /path",
            prefix ? "prefix" : "url", SLICE_ARG(item->text));
    r->purge.text = (struct slice){ r->text.p, k.url_n };
    if (path) {
        r->purge.kind = prefix ? STORE_PURGE_PATH_PREFIX : STORE_PURGE_PATH;
        r->purge.text.p += k.path_at;
        r->purge.text.n -= k.path_at;
    }
    return 0;
}

static size_t
least(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;

    return m < c ? m : c;
}

/* How many bytes must be put in, left out or changed (Levenshtein), for names of some length. */
static size_t
distance(struct slice a, struct slice b)
{
    size_t row[NAME_MAX_COMPARED + 1];

    if (a.n > NAME_MAX_COMPARED || b.n > NAME_MAX_COMPARED)
        return SIZE_MAX;
    for (size_t j = 0; j <= b.n; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t before = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            size_t up = row[j];

            row[j] = least(up + 1, row[j - 1] + 1, before + (a.p[i - 1] != b.p[j - 1]));
            before = up;
        }
    }
    return row[b.n];
}

static const char *
nearest_route(const struct route_table *t, struct slice name)
{
    const char *nearest = NULL;
    size_t best = name.n / 2 + 2;       /* farther off it is another name, not a slip */

    for (size_t i = 0; i < route_table_size(t); i++) {
        const char *candidate = route_table_at(t, i)->name;
        size_t d = distance(name, slice_of(candidate));

        if (d < best) {
            best = d;
            nearest = candidate;
        }
    }
    return nearest;
}

static int
resolve_route(const struct route_table *t, struct slice name, struct store_purge *p, struct err *e)
{
    const struct route *route = route_table_find(t, name);
    const char *nearest;

    if (route != NULL) {
        p->id = route->id;
        return 0;
    }
    if ((nearest = nearest_route(t, name)) != NULL)
        return err_set(e, ENOENT, "there is no route \"%.*s\"; the nearest is \"%s\"",
            SLICE_ARG(name), nearest);
    return err_set(e, ENOENT, "there is no route \"%.*s\"", SLICE_ARG(name));
}

static int
resolve_item(const struct route_table *t, const struct purge_item *item, struct resolved *r,
    struct err *e)
{
    r->purge.kind = item->kind;
    r->purge.text = item->text;
    switch (item->kind) {
    case STORE_PURGE_URL:
    case STORE_PURGE_PREFIX:
        return resolve_url(t, item, r, e);
    case STORE_PURGE_PATTERN:
        if (item->text.n > 0 && (item->text.p[0] == '/' || item->text.p[0] == '*'))
            return 0;
        return err_set(e, EINVAL, "pattern \"%.*s\" matches nothing: it is compared with path and "
            "query, so it starts with / or *", SLICE_ARG(item->text));
    case STORE_PURGE_TAG:
        return item->text.n > 0 ? 0 : err_set(e, EINVAL, "a tag is empty");
    case STORE_PURGE_ROUTE:
        return resolve_route(t, item->text, &r->purge, e);
    case STORE_PURGE_ALL:
        return 0;
    case STORE_PURGE_PATH:
    case STORE_PURGE_PATH_PREFIX:
        break;
    }
    return err_set(e, EINVAL, "this kind of purge is made from url and prefix");
}

static void
run_item(struct store *s, const struct store_purge *p, bool dry, struct purge_result *result)
{
    struct store_purged done;

    if (dry) {
        *result = (struct purge_result){ true, store_purge_count(s, p) };
        return;
    }
    (void)store_purge(s, p, &done);     /* memory out: everything was purged, and done says so */
    *result = (struct purge_result){ done.exact, done.objects };
}

int
purge_run(struct store *s, const struct route_table *t, const struct purge_item *items, size_t n,
    bool soft, bool dry, struct purge_result *results, size_t *bad, struct err *e)
{
    struct resolved *r = calloc(n + 1, sizeof *r);
    int rc = 0;

    *bad = 0;
    if (r == NULL)
        return err_set(e, ENOMEM, "memory is out");
    for (size_t i = 0; i < n && rc == 0; i++) {
        r[i].purge.soft = soft;
        if ((rc = resolve_item(t, &items[i], &r[i], e)) == -1)
            *bad = i;
    }
    for (size_t i = 0; i < n && rc == 0; i++)
        run_item(s, &r[i].purge, dry, &results[i]);
    for (size_t i = 0; i < n; i++)
        buf_free(&r[i].text);
    free(r);
    return rc;
}
