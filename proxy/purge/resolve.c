/*
 * From what an operator writes to what the store purges.
 *
 * Model    a URL becomes the URL parts of its keys: normalised, with the query rules of every route
 *          that could take a GET for it, since fields of the request may choose among them; of
 *          equal ones one is purged. "/path" without a host stands for it under every host, by
 *          the rules of the routes of all hosts; it is compared whole with path and query, so
 *          that `*` and `?` in it mean themselves. A prefix is normalised like a URL but keeps
 *          to no route's query rules; of a pattern only the escapes are normalised.
 *          First everything is understood, then everything is purged: one item that is not
 *          understood purges nothing.
 * Threads  any; route table and store are the caller's for the time of the call.
 */
#include "purge/inside.h"

#include <errno.h>
#include <stdlib.h>

#define ANY_HOST "http://any"           /* stands in for a host where only path and query count */

/* ---- URLs ----------------------------------------------------------------------------------- */

/* k is a key that key_of_url made without a recipe. */
static void
routes_of(const struct route_table *t, const struct key *k, bool any_host,
    void (*each)(void *arg, const struct route *r), void *arg)
{
    struct slice host = { 0 }, path = { k->bytes.p + k->path_at, k->url_n - k->path_at };
    const char *query = memchr(path.p, '?', path.n);
    const char *slashes = memchr(k->bytes.p, ':', k->url_n);

    if (query != NULL)
        path.n = (size_t)(query - path.p);
    if (slashes != NULL && slashes + 3 < path.p)
        host = http_without_port((struct slice){ slashes + 3, (size_t)(path.p - slashes - 3) });
    route_each(t, any_host ? NULL : &host, path, each, arg);
}

int
purge_routes_of(const struct route_table *t, struct slice url, bool any_host,
    void (*each)(void *arg, const struct route *r), void *arg)
{
    struct buf b = { 0 };
    struct key k;
    int rc = key_of_url(NULL, url, &b, &k);

    if (rc == 0)
        routes_of(t, &k, any_host, each, arg);
    buf_free(&b);
    return rc;
}

/* ---- the forms of one URL ------------------------------------------------------------------- */

struct forming {
    struct purge_forms *forms;
    struct slice        url;
    bool                any_host, over;
    struct buf          one;            /* scratch; owned */
};

static bool
has_form(const struct purge_forms *f, struct slice text)
{
    size_t at = 0;

    for (size_t i = 0; i < f->n; at += f->at[i++].text.n)
        if (slice_eq((struct slice){ f->text.p + at, f->at[i].text.n }, text))
            return true;
    return false;
}

/* Texts are set when all are there: the buffer moves while it grows. */
static void
add_form(struct purge_forms *f, enum store_purge_kind kind, struct slice text)
{
    if (f->n == f->cap) {
        size_t cap = f->cap == 0 ? 1 : f->cap * 2;
        struct store_purge *at = realloc(f->at, cap * sizeof *at);

        if (at == NULL) {
            f->text.failed = true;
            return;
        }
        f->at = at;
        f->cap = cap;
    }
    f->at[f->n++] = (struct store_purge){ .kind = kind, .text = { NULL, text.n } };
    buf_adds(&f->text, text);
}

static void
form_by(struct forming *g, const struct key_recipe *recipe)
{
    struct slice text;
    struct key k;

    if (g->over || g->forms->text.failed)
        return;
    if (key_of_url(recipe, g->url, &g->one, &k) == -1) {
        g->forms->text.failed = true;
        return;
    }
    text = (struct slice){ g->one.p, k.url_n };
    if (g->any_host)
        text = (struct slice){ g->one.p + k.path_at, k.url_n - k.path_at };
    if (has_form(g->forms, text))
        return;
    if (g->forms->n == PURGE_FORMS_MAX)
        g->over = true;
    else
        add_form(g->forms, g->any_host ? STORE_PURGE_PATH : STORE_PURGE_URL, text);
}

static void
form_by_route(void *arg, const struct route *r)
{
    form_by(arg, r->recipe);
}

/* So many that their path's beginning is purged instead, which is all of them and some others. */
static void
form_all(struct forming *g, const struct key *plain)
{
    const char *query = memchr(plain->bytes.p, '?', plain->url_n);
    size_t n = query != NULL ? (size_t)(query - plain->bytes.p) : plain->url_n;
    size_t from = g->any_host ? plain->path_at : 0;

    g->forms->n = g->forms->text.n = 0;
    add_form(g->forms, g->any_host ? STORE_PURGE_PATH_PREFIX : STORE_PURGE_PREFIX,
        (struct slice){ plain->bytes.p + from, n - from });
}

/* Sets the texts, which the buffer holds one behind the other. */
static int
finish_forms(struct purge_forms *f)
{
    size_t at = 0;

    for (size_t i = 0; i < f->n && !f->text.failed; at += f->at[i++].text.n)
        f->at[i].text.p = f->text.p + at;
    return f->text.failed ? -1 : 0;
}

int
purge_forms_of(const struct route_table *t, struct slice url, bool any_host,
    struct purge_forms *f)
{
    struct forming g = { .forms = f, .url = url, .any_host = any_host };
    struct buf b = { 0 };
    struct key plain;

    if (key_of_url(NULL, url, &b, &plain) == -1) {
        f->text.failed = b.failed;
        buf_free(&b);
        return -1;
    }
    routes_of(t, &plain, any_host, form_by_route, &g);
    if (f->n == 0)
        form_by(&g, NULL);              /* no route takes it; an earlier configuration's may have */
    if (g.over)
        form_all(&g, &plain);
    buf_free(&g.one);
    buf_free(&b);
    return finish_forms(f);
}

int
purge_forms_of_group(struct slice url, struct slice group, struct purge_forms *f)
{
    struct buf b = { 0 }, text = { 0 };
    struct key k;
    const char *host;

    if (key_of_url(NULL, url, &b, &k) == -1) {
        f->text.failed = b.failed;
        buf_free(&b);
        return -1;
    }
    host = (const char *)memchr(b.p, ':', k.path_at) + 3;       /* "https://" stands before it */
    for (size_t n = k.path_at, scheme = (size_t)(host - b.p); n > 0; n = n > scheme ? scheme : 0) {
        text.n = 0;
        buf_add(&text, b.p, n);
        buf_addc(&text, '\0');
        buf_adds(&text, group);
        f->text.failed = f->text.failed || text.failed;
        if (!f->text.failed)
            add_form(f, STORE_PURGE_GROUP, buf_slice(&text));
    }
    buf_free(&text);
    buf_free(&b);
    return finish_forms(f);
}

void
purge_forms_free(struct purge_forms *f)
{
    free(f->at);
    buf_free(&f->text);
    *f = (struct purge_forms){ 0 };
}

/* ---- items ---------------------------------------------------------------------------------- */

struct resolved {
    struct store_purge purge;           /* one ... */
    struct purge_forms forms;           /* ... or those of a URL */
    struct buf         text;            /* owns purge.text */
};

static int
resolve_prefix(struct slice url, bool path, struct resolved *r)
{
    struct key k;

    if (key_of_url(NULL, url, &r->text, &k) == -1)
        return -1;
    r->purge.text = (struct slice){ r->text.p, k.url_n };
    if (path) {
        r->purge.kind = STORE_PURGE_PATH_PREFIX;
        r->purge.text = (struct slice){ r->text.p + k.path_at, k.url_n - k.path_at };
    }
    return 0;
}

static int
resolve_url(const struct route_table *t, const struct purge_item *item, struct resolved *r,
    struct err *e)
{
    bool prefix = item->kind == STORE_PURGE_PREFIX;
    bool path = item->text.n > 0 && item->text.p[0] == '/';
    struct buf url = { 0 };
    int rc;

    if (path)
        buf_addz(&url, ANY_HOST);
    buf_adds(&url, item->text);
    if (url.failed)
        return err_set(e, ENOMEM, "memory is out");
    rc = prefix ? resolve_prefix(buf_slice(&url), path, r) :
        purge_forms_of(t, buf_slice(&url), path, &r->forms);
    buf_free(&url);
    if (rc == -1 && (r->forms.text.failed || r->text.failed))
        return err_set(e, ENOMEM, "memory is out");
    if (rc == -1)
        return err_set(e, EINVAL, "%s \"%.*s\" is no URL: write http://host/path or /path",
            prefix ? "prefix" : "url", SLICE_ARG(item->text));
    return 0;
}

/* Escapes as keys have them (RFC 3986 6.2.2), but for the pattern's own backslashes: one that makes
 * no `*` or `?` stand for itself is a byte of the URL, which keys have as an escape. Dot segments
 * stay: which `?` is one byte and which begins a query nobody knows. */
static void
put_pattern(struct buf *b, struct slice text)
{
    struct slice piece;

    while (slice_cut(&text, '\\', &piece)) {
        http_escapes_normalise(b, piece);
        if (text.p == NULL)
            return;
        if (text.n > 0 && (*text.p == '*' || *text.p == '?')) {
            buf_addc(b, '\\');
            buf_addc(b, *text.p);
        } else {
            buf_addz(b, "%5C");
        }
        if (text.n > 0 && memchr("*?\\", *text.p, 3) != NULL)
            text.p++, text.n--;
    }
}

static int
resolve_pattern(struct slice text, struct resolved *r, struct err *e)
{
    if (text.n == 0 || (text.p[0] != '/' && text.p[0] != '*'))
        return err_set(e, EINVAL, "pattern \"%.*s\" matches nothing: it is compared with path and "
            "query, so it starts with / or *", SLICE_ARG(text));
    put_pattern(&r->text, text);
    if (r->text.failed)
        return err_set(e, ENOMEM, "memory is out");
    r->purge.text = buf_slice(&r->text);
    return 0;
}

/* Without an origin, of every one. */
static int
resolve_group(const struct purge_item *item, struct resolved *r, struct err *e)
{
    struct http_uri u;

    if (item->origin.n == 0) {
        buf_addc(&r->text, '\0');
        buf_adds(&r->text, item->text);
        r->purge.text = buf_slice(&r->text);
    } else if (http_uri_parse(item->origin, &u) == -1 || u.query.p != NULL || u.path.n > 1 ||
        (purge_forms_of_group(item->origin, item->text, &r->forms) == -1 &&
        !r->forms.text.failed)) {
        return err_set(e, EINVAL, "origin \"%.*s\" is none: write http://host or https://host:port",
            SLICE_ARG(item->origin));
    }
    if (r->text.failed || r->forms.text.failed)
        return err_set(e, ENOMEM, "memory is out");
    return 0;
}

static int
resolve_route(const struct route_table *t, struct slice name, struct store_purge *p, struct err *e)
{
    const struct route *route = route_table_named(t, name, e);

    if (route == NULL)
        return -1;
    p->id = route->id;
    return 0;
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
        return resolve_pattern(item->text, r, e);
    case STORE_PURGE_TAG:
        return item->text.n > 0 ? 0 : err_set(e, EINVAL, "a tag is empty");
    case STORE_PURGE_GROUP:
        return resolve_group(item, r, e);
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
run_one(struct store *s, const struct store_purge *p, bool dry, struct purge_result *result)
{
    struct store_purged done;

    if (dry) {
        result->objects += store_purge_count(s, p);
        return;
    }
    (void)store_purge(s, p, &done);     /* memory out: everything was purged, and done says so */
    result->exact = result->exact && done.exact;
    result->objects += done.objects;
}

static void
run_item(struct store *s, struct resolved *r, const struct purge_how *how,
    struct purge_result *result)
{
    struct store_purge *at = r->forms.n > 0 ? r->forms.at : &r->purge;
    size_t n = r->forms.n > 0 ? r->forms.n : 1;

    *result = (struct purge_result){ .exact = true };
    for (size_t i = 0; i < n; i++) {
        at[i].soft = how->soft;
        at[i].erase = how->erase;
        run_one(s, &at[i], how->dry, result);
    }
}

int
purge_run(struct store *s, const struct route_table *t, const struct purge_item *items, size_t n,
    struct purge_how how, struct purge_result *results, size_t *bad, struct err *e)
{
    struct resolved *r = calloc(n + 1, sizeof *r);
    int rc = 0;

    *bad = 0;
    if (r == NULL)
        return err_set(e, ENOMEM, "memory is out");
    for (size_t i = 0; i < n && rc == 0; i++)
        if ((rc = resolve_item(t, &items[i], &r[i], e)) == -1)
            *bad = i;
    for (size_t i = 0; i < n && rc == 0; i++)
        run_item(s, &r[i], &how, &results[i]);
    for (size_t i = 0; i < n; i++) {
        purge_forms_free(&r[i].forms);
        buf_free(&r[i].text);
    }
    free(r);
    return rc;
}
