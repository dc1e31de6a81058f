/*
 * Loading: a file's sections, each judged by its table; then what holds between them (check.c).
 *
 * Every section is read whatever was wrong with the one before, so that one run shows everything.
 */
#include "config/inside.h"
#include "http/http.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (16u << 20)            /* some 50,000 routes */

/* ---- mappings by table -------------------------------------------------------------------- */

/* What has a reader of its own, beside the options of a table. */
static const struct { const struct table *in; const char *word; } sections[] = {
    { &table_top, "ttl" }, { &table_top, "listen" }, { &table_top, "origins" },
    { &table_top, "plugins" }, { &table_top, "routes" },
    { &table_plugin, "options" }, { &table_route, "plugins" },
};

static bool
is_section(const struct table *t, const char *path)
{
    for (size_t i = 0; i < NELEM(sections); i++)
        if (t == sections[i].in && strcmp(path, sections[i].word) == 0)
            return true;
    return false;
}

/* The word of an option's path at the level of prefix, as "memory" of "cache.memory" behind
 * "cache."; NULL when it is elsewhere. In scratch memory. */
static const char *
word_at(struct load *l, const char *path, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(path, prefix, n) == 0 ?
        textf(l, "%.*s", (int)strcspn(path + n, "."), path + n) : NULL;
}

/* Names the nearest key of this level, else the place where a key of that name belongs, else all
 * that are known here. */
static void
unknown(struct load *l, const struct table *t, const char *prefix, const struct node *key,
    const char *path)
{
    struct nearest near = { .to = key->text };
    struct buf known = { 0 };
    const char *last = "", *elsewhere = NULL;

    for (size_t i = 0; i < t->n; i++) {
        const char *w = word_at(l, t->at[i].path, prefix), *dot = strrchr(t->at[i].path, '.');

        if (elsewhere == NULL &&
            strcmp(dot != NULL ? dot + 1 : t->at[i].path, key->text.p) == 0)
            elsewhere = t->at[i].path;
        if (w == NULL || strcmp(w, last) == 0)
            continue;
        last = w;
        nearest_try(&near, w);
        buf_printf(&known, "%s%s", known.n > 0 ? ", " : "", w);
    }
    for (size_t i = 0; prefix[0] == '\0' && i < NELEM(sections); i++)
        if (t == sections[i].in) {
            nearest_try(&near, sections[i].word);
            buf_printf(&known, ", %s", sections[i].word);
        }
    if (memchr(key->text.p, '.', key->text.n) != NULL)
        problem(l, key->where, path, "unknown key; dots in the reference are nesting, as "
            "`cache: {memory: 256MiB}`");
    else if (near.word != NULL)
        problem(l, key->where, path, "unknown key; did you mean %s", near.word);
    else if (elsewhere != NULL)
        problem(l, key->where, path, "unknown key; did you mean %s, nested", elsewhere);
    else
        problem(l, key->where, path, "unknown key; known here are %.*s",
            SLICE_ARG(buf_slice(&known)));
    buf_free(&known);
}

void
read_map(struct load *l, const struct table *t, const char *prefix, const struct node *map,
    const char *at, void *base)
{
    for (size_t i = 0; i < map->n; i++) {
        const struct node *key = map->pairs[i].key, *v = map->pairs[i].value;
        const char *full = textf(l, "%s%s", prefix, key->text.p);
        const char *path = at[0] != '\0' ? textf(l, "%s.%s", at, key->text.p) : key->text.p;
        bool nested = strchr(key->text.p, '.') == NULL;    /* `cache.memory: 1MiB` is refused */
        const struct option *o = nested ? option_find(t, full) : NULL;

        if (is_section(t, full) || (t == &table_top && strncmp(full, "x-", 2) == 0))
            continue;                   /* x-anything: a place for anchors */
        if (o != NULL)
            value_read(l, o, v, path, base);
        else if (!nested || !table_has_prefix(t, full))
            unknown(l, t, prefix, key, path);
        else if (v->type == NODE_MAP)
            read_map(l, t, textf(l, "%s.", full), v, path, base);
        else if (v->type != NODE_SCALAR || !v->null)
            problem(l, v->where, path, "%s; a mapping of its options",
                v->type == NODE_LIST ? "a list" : "a single value");
    }
}

/* ---- sections ----------------------------------------------------------------------------- */

void *
conf_array(struct load *l, size_t n, size_t size)
{
    void *p = pool_zalloc(l->c->pool, (n + 1) * size);

    if (p == NULL)
        l->no_memory = true;
    return p;
}

static void
read_ttls(struct load *l, const struct node *v)
{
    if (v == NULL || (v->type == NODE_SCALAR && v->null))
        return;
    if (v->type != NODE_MAP) {
        problem(l, v->where, "ttl", "no mapping; names with durations, as {short: 5m, long: 2h}");
        return;
    }
    l->c->ttls.at = conf_array(l, v->n, sizeof *l->c->ttls.at);
    for (size_t i = 0; i < v->n && !l->no_memory; i++) {
        const struct node *key = v->pairs[i].key, *d = v->pairs[i].value;
        struct conf_ttl *t = &l->c->ttls.at[l->c->ttls.n];
        const char *path = textf(l, "ttl.%s", key->text.p);

        if (key->text.n == 0 || (key->text.p[0] >= '0' && key->text.p[0] <= '9')) {
            problem(l, key->where, path, "looks like a duration; a name that begins with a letter");
        } else if (d->bad) {
            continue;
        } else if (d->type != NODE_SCALAR || !config_duration(d->text, &t->ms)) {
            problem(l, d->where, path, "%s is not understood; %s", d->type == NODE_SCALAR ?
                shown(l, d->text) : "a list or mapping", kind_text(K_DURATION));
        } else {
            t->name = pool_dup(l->c->pool, key->text.p, key->text.n);
            l->no_memory |= t->name == NULL;
            l->c->ttls.n++;
        }
    }
}

static void
read_listener(struct load *l, const struct node *v, const char *path, struct conf_listener *out)
{
    value_defaults(l, &table_listen, out);
    if (v == NULL)
        return;
    out->where = v->where;
    if (v->type != NODE_MAP || tree_at(v, "address") != NULL)
        out->address = (struct conf_address){ .off = true };    /* no default where one was meant */
    if (v->type == NODE_MAP)
        read_map(l, &table_listen, "", v, path, out);
    else
        value_read(l, option_find(&table_listen, "address"), v, path, out);
}

static void
read_listeners(struct load *l, const struct node *v)
{
    bool list = v != NULL && v->type == NODE_LIST;
    size_t n = list ? v->n : 1;

    l->c->listeners = conf_array(l, n, sizeof *l->c->listeners);
    l->listeners = pool_zalloc(l->scratch, (n + 1) * sizeof *l->listeners);
    if (l->c->listeners == NULL || l->listeners == NULL) {
        l->no_memory = true;
        return;
    }
    if (list && n == 0)
        problem(l, v->where, "listen", "an empty list; at least one listener");
    for (size_t i = 0; i < n; i++, l->c->nlisteners++) {
        l->listeners[i] = list ? v->items[i] : (struct node *)v;
        read_listener(l, l->listeners[i], list ? textf(l, "listen[%zu]", i) : "listen",
            &l->c->listeners[i]);
    }
}

static void
read_origin(struct load *l, const struct pair *p, struct conf_origin *out)
{
    const struct node *key = p->key, *v = p->value;
    const char *path = textf(l, "origins.%s", key->text.p);

    value_defaults(l, &table_origin, out);
    out->where = key->where;
    out->id = pool_dup(l->c->pool, key->text.p, key->text.n);
    l->no_memory |= out->id == NULL;
    if (key->text.n == 0 || !http_is_field_value(key->text))
        problem(l, key->where, path, "no name for an origin; a word such as api");
    if (v->type == NODE_MAP)
        read_map(l, &table_origin, "", v, path, out);
    else
        problem(l, v->where, path, "no mapping; an origin, as {servers: [http://127.0.0.1:8000]}");
}

static void
read_origins(struct load *l, const struct node *v)
{
    if (v == NULL || (v->type == NODE_SCALAR && v->null))
        return;
    if (v->type != NODE_MAP) {
        problem(l, v->where, "origins", "no mapping; origins by name, as {api: {servers: [...]}}");
        return;
    }
    l->c->origins = conf_array(l, v->n, sizeof *l->c->origins);
    l->origins = pool_zalloc(l->scratch, (v->n + 1) * sizeof *l->origins);
    if (l->c->origins == NULL || l->origins == NULL) {
        l->no_memory = true;
        return;
    }
    for (size_t i = 0; i < v->n; i++) {
        l->origins[i] = v->pairs[i].value;
        read_origin(l, &v->pairs[i], &l->c->origins[i]);
        l->c->norigins++;
    }
}

/* The origin of --origin. */
static void
imply_origin(struct load *l, const char *url)
{
    const struct option *o = option_find(&table_origin, "servers");
    struct node v = { .type = NODE_SCALAR, .text = slice_of(url) };

    l->c->origins = conf_array(l, 1, sizeof *l->c->origins);
    l->origins = pool_zalloc(l->scratch, 2 * sizeof *l->origins);
    if (l->c->origins == NULL || l->origins == NULL) {
        l->no_memory = true;
        return;
    }
    value_defaults(l, &table_origin, &l->c->origins[0]);
    l->c->origins[0].id = "default";
    l->c->norigins = 1;
    value_read(l, o, &v, "--origin", &l->c->origins[0]);
}

static void
read_route(struct load *l, const struct node *v, size_t i)
{
    struct conf_route *r = &l->c->routes[i];

    r->index = (unsigned)i;
    value_defaults(l, &table_route, r);
    if (v != NULL) {
        const char *path = textf(l, "routes[%zu]", i);

        r->where = v->where;
        if (v->type != NODE_MAP || tree_at(v, "path") != NULL)
            r->path = NULL;             /* what cannot be read is not taken for all paths */
        if (v->type == NODE_MAP)
            read_map(l, &table_route, "", v, path, r);
        else
            problem(l, v->where, path, "no mapping; a route, as "
                "{path: /api/users/{id}, origin: api}");
    }
    if (r->name == NULL)
        r->name = r->path;
    read_uses(l, v, r, textf(l, "routes[%zu]", i));
}

static void
read_routes(struct load *l, const struct node *v)
{
    bool absent = v == NULL || (v->type == NODE_SCALAR && v->null);
    size_t n = absent ? 1 : v->n;

    if (!absent && v->type != NODE_LIST) {
        problem(l, v->where, "routes", "no list; routes, each behind a dash: "
            "- {path: /**, origin: api}");
        return;
    }
    if (!absent && n == 0)
        problem(l, v->where, "routes", "an empty list; leave it out for one route of all paths");
    l->c->routes = conf_array(l, n, sizeof *l->c->routes);
    l->routes = pool_zalloc(l->scratch, (n + 1) * sizeof *l->routes);
    if (l->c->routes == NULL || l->routes == NULL) {
        l->no_memory = true;
        return;
    }
    for (size_t i = 0; i < n; i++, l->c->nroutes++) {
        l->routes[i] = absent ? NULL : v->items[i];
        read_route(l, l->routes[i], i);
    }
}

/* ---- the whole ---------------------------------------------------------------------------- */

static void
read_all(struct load *l, const char *origin)
{
    static const struct node none = { .type = NODE_MAP };
    const struct node *root = l->root != NULL ? l->root : &none, *origins;

    if (root->type == NODE_SCALAR && root->null)
        root = &none;
    if (root->type != NODE_MAP) {
        problem(l, root->where, "", "no mapping; options by name, as `listen: 0.0.0.0:8080`");
        return;
    }
    l->root = (struct node *)root;
    value_defaults(l, &table_top, l->c);
    read_map(l, &table_top, "", root, "", l->c);
    read_ttls(l, tree_at(root, "ttl"));         /* before the routes, which use the names */
    read_listeners(l, tree_at(root, "listen"));
    origins = tree_at(root, "origins");
    read_origins(l, origins);
    if (origin != NULL && (origins == NULL || origins->null))
        imply_origin(l, origin);
    else if (origin != NULL)
        warning(l, origins->where, "origins", "--origin is not used; it stands for an absent "
            "`origins`");
    read_plugins(l, tree_at(root, "plugins"));
    read_routes(l, tree_at(root, "routes"));
    if (!l->no_memory)
        check_all(l);
}

static struct conf *
conf_new(const char *file)
{
    struct pool *p = pool_new();
    struct conf *c = p != NULL ? pool_zalloc(p, sizeof *c) : NULL;

    if (c == NULL) {
        pool_free(&p);
        return NULL;
    }
    c->magic = CONF_MAGIC;
    atomic_init(&c->refs, 1);
    c->pool = p;
    c->closing = plugins_close;
    c->file = file != NULL ? pool_dup(p, file, strlen(file)) : NULL;
    return c;
}

struct conf *
config_parse(const char *text, size_t n, const char *name, const char *origin,
    struct config_report *r)
{
    struct load l = { .report = r, .scratch = pool_new(), .c = conf_new(text != NULL ? name :
        NULL) };

    if (r->pool == NULL)
        r->pool = pool_new();
    if (l.scratch == NULL || l.c == NULL || r->pool == NULL)
        l.no_memory = true;
    else if (text == NULL || tree_build(&l, text, n) == 0)
        read_all(&l, origin);
    if (l.no_memory && r->pool != NULL)
        problem(&l, (struct conf_where){ 0, 0 }, "", "out of memory");
    report_sort(r);
    pool_free(&l.scratch);
    if (r->errors > 0 || l.no_memory)
        conf_unref(&l.c);
    return l.c;
}

/* The whole file into b, or -1 with errno. */
static int
slurp(const char *file, struct buf *b)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC), saved = 0;
    ssize_t got = 1;

    if (fd == -1)
        return -1;
    while (got > 0 && b->n <= FILE_MAX) {
        char *at = buf_reserve(b, 64 << 10);

        got = at != NULL ? read(fd, at, 64 << 10) : -1;
        if (got > 0)
            b->n += (size_t)got;
    }
    saved = b->failed ? ENOMEM : b->n > FILE_MAX ? EFBIG : errno;
    close(fd);
    errno = saved;
    return got == -1 || b->n > FILE_MAX ? -1 : 0;
}

static const char *
remedy(int e)
{
    switch (e) {
    case ENOENT: case ENOTDIR:
        return "name an existing file with -c, or start with --origin URL alone";
    case EACCES: case EPERM:
        return "let the user that runs weir read it and its directories";
    case EISDIR:               return "name the file itself";
    case EFBIG:                return "at most 16 MiB";
    default:                   return "a readable file";
    }
}

struct conf *
config_load(const char *file, const char *origin, struct config_report *r)
{
    struct load l = { .report = r };
    struct buf b = { 0 };
    struct conf *c = NULL;

    if (r->pool == NULL)
        r->pool = pool_new();
    if (slurp(file, &b) == -1) {
        int e = errno;

        if (r->pool != NULL)
            problem(&l, (struct conf_where){ 0, 0 }, "", "cannot be read: %s; %s", strerror(e),
                remedy(e));
    } else {
        c = config_parse(b.p != NULL ? b.p : "", b.n, file, origin, r);
    }
    buf_free(&b);
    return c;
}
