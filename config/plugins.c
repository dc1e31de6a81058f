/*
 * Plugins: loaded, their options judged by their own tables, opened for the whole and for each
 * route that uses them.
 *
 * Model    a plugin's table of options becomes one of ours, so that its values are read, judged,
 *          described and listed as all others are; then they are handed over as the ABI has them.
 *          What a plugin finds wrong itself is reported at the place of the option that it names.
 *          Opened here, also by `check`; closed with the configuration.
 */
#include "config/inside.h"
#include "plugin/plugin.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define SLOT 16                         /* bytes: room for a value of any kind that plugins have */

struct plugin_values {
    struct table table;                 /* of the plugin's options */
    const struct weir_option *from;
    char *base;                         /* a SLOT each */
    struct weir_value *values;          /* the same, as the plugin has them */
};

static const enum kind kinds[] = {
    [WEIR_COUNT] = K_COUNT, [WEIR_SIZE] = K_BYTES, [WEIR_DURATION] = K_DURATION,
    [WEIR_RATE] = K_RATE, [WEIR_BOOL] = K_BOOL, [WEIR_TEXT] = K_STRING, [WEIR_FILE] = K_FILE,
    [WEIR_WORD] = K_STRING, [WEIR_TEXTS] = K_STRINGS,
};

static bool
is_there(struct buf *b)
{
    char path[PATH_MAX];

    return snprintf(path, sizeof path, "%.*s", SLICE_ARG(buf_slice(b))) < (int)sizeof path &&
        access(path, F_OK) == 0;
}

/* The file of a plugin by its name: where plugins are, as seen from the program; in a tree where it
 * was built, and not installed, `plugins` beside it. */
static void
add_installed(struct buf *b, const char *name)
{
    const char *dir = WEIR_PLUGIN_DIR;
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program);
    struct buf built = { 0 };

    while (n > 0 && program[--n] != '/')
        ;                               /* its directory */
    buf_printf(&built, "%.*s/plugins/%s.so", n > 0 ? (int)n : 0, program, name);
    while (n > 0 && strncmp(dir, "../", 3) == 0) {
        dir += 3;
        while (program[--n] != '/')
            ;
    }
    buf_printf(b, "%.*s/%s/%s.so", n > 0 ? (int)n : 0, program, dir, name);
    if (!is_there(b) && is_there(&built)) {
        b->n = 0;
        buf_adds(b, buf_slice(&built));
    }
    buf_free(&built);
}

/* ---- tables ------------------------------------------------------------------------------- */

static const char *
or_empty(const char *s)
{
    return s != NULL ? s : "";
}

/* A plugin's table as one of ours; false: it is malformed at option *bad, or memory is out. */
static bool
table_of(const struct weir_option *from, struct pool *p, struct table *t, const char **bad)
{
    struct option *at;
    size_t n = 0;

    while (from != NULL && from[n].name != NULL)
        n++;
    *t = (struct table){ .section = "" };
    *bad = NULL;
    if ((at = pool_zalloc(p, (n + 1) * sizeof *at)) == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        *bad = from[i].name;
        if (from[i].kind < WEIR_COUNT || from[i].kind >= NELEM(kinds) ||
            strpbrk(from[i].name, ". :#{}[]\"'") != NULL || from[i].name[0] == '\0' ||
            (from[i].kind == WEIR_WORD && from[i].words == NULL))
            return false;
        at[i] = (struct option){ .path = from[i].name, .offset = i * SLOT,
            .kind = kinds[from[i].kind], .def = or_empty(from[i].def),
            .min = or_empty(from[i].min), .max = or_empty(from[i].max),
            .meaning = or_empty(from[i].meaning) };
    }
    t->at = at;
    t->n = n;
    return true;
}

/* ---- values ------------------------------------------------------------------------------- */

/* Of a word that is none of those allowed. */
static void
judge_word(struct load *l, const struct weir_option *o, const struct node *v, const char *path)
{
    struct slice rest = slice_of(o->words), word;

    if (v == NULL || v->type != NODE_SCALAR || v->bad)
        return;
    while (slice_cut(&rest, ',', &word))
        if (slice_eq(slice_trim(word), v->text))
            return;
    problem(l, v->where, path, "%s is not known; one of %s", shown(l, v->text), o->words);
}

static struct weir_text *
texts_of(struct load *l, const struct conf_strings *list)
{
    struct weir_text *t = pool_zalloc(l->c->pool, (list->n + 1) * sizeof *t);

    if (t == NULL)
        l->no_memory = true;
    for (size_t i = 0; t != NULL && i < list->n; i++)
        t[i] = (struct weir_text){ list->at[i], strlen(list->at[i]) };
    return t;
}

static void
hand_over(struct load *l, const struct option *o, const void *field, struct weir_value *v)
{
    const struct conf_strings *list = field;
    const char *text;

    switch (o->kind) {
    case K_COUNT:
        v->number = *(const uint64_t *)field;
        break;
    case K_BYTES: case K_DURATION: case K_RATE:
        v->number = *(const int64_t *)field != CONF_UNSET ? (uint64_t)*(const int64_t *)field : 0;
        break;
    case K_BOOL:
        v->number = *(const bool *)field;
        break;
    case K_STRINGS:
        v->texts = texts_of(l, list);
        v->ntexts = list->n;
        break;
    default:
        text = *(const char *const *)field;
        v->text = (struct weir_text){ text, text != NULL ? strlen(text) : 0 };
    }
}

/* 60/m and 1/s are the same number, and not the same to people. */
static void
as_written(struct load *l, const struct weir_option *o, const struct node *v,
    struct weir_value *out)
{
    struct slice s = slice_of(o->def);

    if (v != NULL && v->type == NODE_SCALAR) {
        s = pool_slice(l->c->pool, v->text);
        l->no_memory |= s.p == NULL;
    }
    out->text = (struct weir_text){ s.p, s.n };
}

/* Judges the mapping `map` (NULL: absent) by a plugin's table. NULL: there were problems. where:
 * of what misses an option. */
static struct plugin_values *
values_read(struct load *l, const struct weir_option *from, const struct node *map,
    const char *path, struct conf_where where)
{
    struct plugin_values *pv = pool_zalloc(l->c->pool, sizeof *pv);
    size_t errors = l->report->errors;
    const char *bad = NULL;

    if (pv == NULL || !table_of(from, l->c->pool, &pv->table, &bad) ||
        (pv->base = pool_zalloc(l->c->pool, (pv->table.n + 1) * SLOT)) == NULL ||
        (pv->values = conf_array(l, pv->table.n, sizeof *pv->values)) == NULL) {
        if (bad != NULL)
            problem(l, where, path, "the plugin's table of options is malformed at \"%s\"", bad);
        l->no_memory |= bad == NULL;
        return NULL;
    }
    pv->from = from;
    for (size_t i = 0; i < pv->table.n; i++)
        value_default(l, &pv->table.at[i], textf(l, "%s.%s", path, from[i].name), pv->base);
    if (map != NULL && map->type != NODE_MAP && !map->null)
        problem(l, map->where, path, "no mapping; its options by name");
    else if (map != NULL && map->type == NODE_MAP)
        read_map(l, &pv->table, "", map, path, pv->base);
    for (size_t i = 0; i < pv->table.n; i++) {
        const struct node *v = map != NULL ? tree_at(map, from[i].name) : NULL;
        const char *at = textf(l, "%s.%s", path, from[i].name);

        if (v == NULL && (from[i].flags & WEIR_REQUIRED) != 0)
            problem(l, where, at, "missing; %s", kind_text(pv->table.at[i].kind));
        if (from[i].kind == WEIR_WORD)
            judge_word(l, &from[i], v, at);
        hand_over(l, &pv->table.at[i], pv->base + i * SLOT, &pv->values[i]);
        if (from[i].kind == WEIR_RATE)
            as_written(l, &from[i], v, &pv->values[i]);
        pv->values[i].given = v != NULL;
        pv->values[i].set = v != NULL || or_empty(from[i].def)[0] != '\0';
    }
    return l->report->errors == errors && !l->no_memory ? pv : NULL;
}

/* ---- what a plugin finds ------------------------------------------------------------------ */

struct hearing {
    struct load *l;
    const struct node *map;             /* of the options; may be NULL */
    struct conf_where where;
    const char *path, *name;
};

static void
hear(void *arg, const struct plugin_complaint *c)
{
    const struct hearing *h = arg;

    if (c->option == NULL)
        problem(h->l, h->where, h->path, "plugin %s: %s", h->name, c->text);
    else
        problem(h->l, h->map != NULL ? spot_where(h->map, c->option, h->where) : h->where,
            textf(h->l, "%s.%s", h->path, c->option), "%s", c->text);
}

/* One that says nothing more has failed all the same. */
static void
did_not_open(const struct hearing *h, size_t errors)
{
    if (h->l->report->errors == errors)
        problem(h->l, h->where, h->path, "plugin %s did not open", h->name);
}

/* ---- plugins: [...] ----------------------------------------------------------------------- */

static const struct weir_plugin *
load_one(struct load *l, const struct conf_plugin *p, const struct node *v, const char *path)
{
    const struct weir_plugin *t;
    struct err e;

    t = plugin_load(p->file, p->name, &e);
    if (t == NULL)
        problem(l, v->type == NODE_MAP ? spot_where(v, "file", p->where) : p->where,
            textf(l, "%s.file", path), "plugin %s: %s", p->name, e.text);
    return t;
}

static void
open_one(struct load *l, struct conf_plugin *p, const struct node *v, const char *path)
{
    const struct node *map = v->type == NODE_MAP ? tree_at(v, "options") : NULL;
    struct hearing h = { l, map, map != NULL ? map->where : p->where,
        textf(l, "%s.options", path), p->name };
    const struct weir_plugin *t = load_one(l, p, v, path);
    size_t errors = l->report->errors;

    if (t == NULL)
        return;
    p->values = values_read(l, t->options, map, h.path, h.where);
    if (p->values == NULL)
        return;
    p->plugin = plugin_open(t, p->values->values, p->on_error == ON_ERROR_SKIP, p->timeout_ms,
        hear, &h);
    p->route_options = t->route_options;
    if (p->plugin == NULL)
        did_not_open(&h, errors);
}

static bool
is_named_twice(const struct load *l, const struct conf_plugin *p)
{
    for (const struct conf_plugin *q = l->c->plugins; q < p; q++)
        if (q->name != NULL && strcmp(q->name, p->name) == 0)
            return true;
    return false;
}

static void
read_plugin(struct load *l, const struct node *v, struct conf_plugin *p, const char *path)
{
    size_t errors = l->report->errors;

    value_defaults(l, &table_plugin, p);
    p->where = v->where;
    if (v->type == NODE_MAP)
        read_map(l, &table_plugin, "", v, path, p);
    else
        value_read(l, option_find(&table_plugin, "name"), v, path, p);
    if (l->report->errors != errors || l->no_memory)
        return;
    if (p->name == NULL) {
        problem(l, p->where, path, "no name; a plugin, as {name: json_tags}");
        return;
    }
    if (is_named_twice(l, p)) {
        problem(l, p->where, path, "%s is there already; each plugin once", p->name);
        return;
    }
    if (p->file == NULL || p->file[0] == '\0') {
        struct buf file = { 0 };

        add_installed(&file, p->name);
        p->file = file.failed ? NULL : pool_dup(l->c->pool, file.p, file.n);
        l->no_memory |= p->file == NULL;
        buf_free(&file);
    }
    if (!l->no_memory)
        open_one(l, p, v, path);
}

void
read_plugins(struct load *l, const struct node *v)
{
    if (v == NULL || (v->type == NODE_SCALAR && v->null))
        return;
    if (v->type != NODE_LIST) {
        problem(l, v->where, "plugins", "no list; plugins, each behind a dash: - {name: "
            "json_tags}");
        return;
    }
    plugin_redis_configured(l->c->redis.url.n > 0);
    l->c->plugins = conf_array(l, v->n, sizeof *l->c->plugins);
    for (size_t i = 0; i < v->n && !l->no_memory; i++) {
        l->c->nplugins++;
        read_plugin(l, v->items[i], &l->c->plugins[i], textf(l, "plugins[%zu]", i));
    }
}

/* ---- routes: [{plugins: {...}}] ----------------------------------------------------------- */

static void
judge_names(struct load *l, const struct node *map, const char *path)
{
    for (size_t i = 0; i < map->n; i++) {
        const struct node *key = map->pairs[i].key;
        struct nearest near = { .to = key->text };
        bool known = false;

        for (size_t k = 0; k < l->c->nplugins; k++)
            if (l->c->plugins[k].name != NULL) {
                known = known || slice_eq(slice_of(l->c->plugins[k].name), key->text);
                nearest_try(&near, l->c->plugins[k].name);
            }
        if (!known)
            problem(l, key->where, textf(l, "%s.%s", path, key->text.p), near.word != NULL ?
                "no plugin of that name, did you mean %s; one of the top-level `plugins`" :
                "no plugin of that name; one of the top-level `plugins`", near.word);
    }
}

/* Is the plugin used? *map: its options, or NULL. */
static bool
is_used(struct load *l, const struct conf_plugin *p, const struct node *v, const char *path,
    const struct node **map)
{
    const struct option yes_no = { .kind = K_BOOL, .min = "", .max = "" };
    bool used = p->everywhere;

    *map = NULL;
    if (v == NULL)
        return used;
    if (v->type == NODE_MAP || (v->type == NODE_SCALAR && v->null)) {
        *map = v;
        return true;
    }
    value_read(l, &yes_no, v, path, &used);
    return used;
}

/* Adds it to the route's. */
static void
use(struct load *l, size_t i, const struct node *map, struct conf_route *r, const char *path)
{
    const struct conf_plugin *p = &l->c->plugins[i];
    struct hearing h = { l, map, map != NULL ? map->where : r->where, path, p->name };
    size_t errors = l->report->errors;
    struct plugin_use *its = &r->plugins->at[r->plugins->n];
    struct plugin_values *pv;

    if (p->plugin == NULL)
        return;                         /* reported already */
    pv = values_read(l, p->route_options, map, path, h.where);
    if (pv == NULL)
        return;
    if (plugin_use_open(p->plugin, or_empty(r->name), pv->values, its, hear, &h) == -1) {
        did_not_open(&h, errors);
        return;
    }
    r->plugin_values[i] = pv;
    r->plugins->hooks |= its->hooks;
    r->plugins->n++;
}

void
read_uses(struct load *l, const struct node *route, struct conf_route *r, const char *path)
{
    const struct node *map = route != NULL && route->type == NODE_MAP ?
        tree_at(route, "plugins") : NULL, *options;
    const char *at = textf(l, "%s.plugins", path);

    if (map != NULL && map->type != NODE_MAP && !map->null) {
        problem(l, map->where, at, "no mapping; plugins by name, as {json_tags: {pointers: "
            "/id}}");
        return;
    }
    if (map != NULL && map->type == NODE_MAP)
        judge_names(l, map, at);
    if (l->c->nplugins == 0)
        return;
    r->plugins = conf_array(l, 1, sizeof *r->plugins + l->c->nplugins * sizeof *r->plugins->at);
    r->plugin_values = conf_array(l, l->c->nplugins, sizeof(struct plugin_values *));
    for (size_t i = 0; i < l->c->nplugins && !l->no_memory; i++) {
        const struct conf_plugin *p = &l->c->plugins[i];
        const struct node *v = map != NULL && map->type == NODE_MAP && p->name != NULL ?
            tree_at(map, p->name) : NULL;
        const char *its = textf(l, "%s.%s", at, or_empty(p->name));

        if (is_used(l, p, v, its, &options))
            use(l, i, options, r, its);
    }
    if (!l->no_memory && r->plugins->n == 0)
        r->plugins = NULL;
    r->plugins_on_hits = plugin_has(r->plugins, PLUGIN_ON_HITS);
}

void
plugins_close(struct conf *c)
{
    for (size_t i = 0; i < c->nroutes; i++)
        for (size_t k = 0; c->routes[i].plugins != NULL && k < c->routes[i].plugins->n; k++)
            plugin_use_close(&c->routes[i].plugins->at[k]);
    for (size_t i = c->nplugins; i > 0; i--)
        plugin_close(&c->plugins[i - 1].plugin);
}

/* ---- described ---------------------------------------------------------------------------- */

/* Those that say something, as a mapping on one line. */
static void
dump_values(struct buf *b, const struct plugin_values *pv)
{
    const char *comma = "";

    buf_addc(b, '{');
    for (size_t i = 0; i < pv->table.n; i++) {
        struct buf v = { 0 };

        if (pv->values[i].set && (pv->from[i].flags & WEIR_SECRET) != 0)
            buf_addz(&v, "\"(hidden)\"");
        else if (!pv->values[i].set || !value_put(&v, &pv->table.at[i], pv->base))
            continue;
        buf_printf(b, "%s%s: %.*s", comma, pv->table.at[i].path, SLICE_ARG(buf_slice(&v)));
        comma = ", ";
        b->failed |= v.failed;
        buf_free(&v);
    }
    buf_addz(b, "}\n");
}

void
plugins_dump(struct buf *b, const struct conf *c)
{
    if (c->nplugins > 0)
        buf_addz(b, "plugins:\n");
    for (size_t i = 0; i < c->nplugins; i++) {
        buf_addz(b, "  - ");
        dump_table(b, &table_plugin, &c->plugins[i], 2, true);
        buf_addz(b, "    options: ");
        dump_values(b, c->plugins[i].values);
    }
}

void
plugins_dump_route(struct buf *b, const struct conf *c, const struct conf_route *r)
{
    if (c->nplugins > 0)
        buf_addz(b, "    plugins:\n");
    for (size_t i = 0; i < c->nplugins; i++) {
        buf_printf(b, "      %s: ", c->plugins[i].name);
        if (r->plugin_values[i] != NULL)
            dump_values(b, r->plugin_values[i]);
        else
            buf_addz(b, "false\n");
    }
}

static void
reference_of(FILE *out, const char *title, const char *text, const struct weir_option *options)
{
    struct pool *p = pool_new();
    const char *bad;
    struct table t;

    if (p != NULL && table_of(options, p, &t, &bad) && t.n > 0)
        reference_table(out, title, text, &t);
    pool_free(&p);
}

int
config_reference_plugin(const char *name, FILE *out, struct err *e)
{
    const struct weir_plugin *t;
    struct buf file = { 0 };

    if (strchr(name, '/') != NULL)
        buf_addz(&file, name);
    else
        add_installed(&file, name);
    buf_addc(&file, '\0');
    t = file.failed ? NULL : plugin_load(file.p, NULL, e);
    buf_free(&file);
    if (t == NULL)
        return -1;
    fprintf(out, "# The plugin %s\n\n%s\n", t->name, or_empty(t->meaning));
    reference_of(out, "Options", "Below `options` of the plugin.", t->options);
    reference_of(out, "Options of a route", "Below the plugin's name in a route's `plugins`.",
        t->route_options);
    return 0;
}
