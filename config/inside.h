/*
 * config/inside.h -- private to config/: the tree of a file, the tables at run time, and one load.
 */
#ifndef WEIR_CONFIG_INSIDE_H
#define WEIR_CONFIG_INSIDE_H

#include "config/config.h"

/* ---- tree.c: YAML to a tree with places, anchors, merge keys and ${ENV} resolved ---------- */

enum node_type { NODE_SCALAR, NODE_MAP, NODE_LIST };

struct node {
    enum node_type    type;
    struct conf_where where;
    bool              null;             /* SCALAR: a plain empty, ~ or null */
    bool              env;              /* SCALAR: something came from the environment */
    bool              bad;              /* SCALAR: reported already; not judged again */
    struct slice      text;             /* SCALAR: expanded, NUL-terminated */
    struct pair { struct node *key, *value; } *pairs;   /* MAP: keys are scalars, each once */
    struct node     **items;            /* LIST */
    size_t            n;
};

struct load {
    struct pool          *scratch;      /* owned: the tree, paths and messages under way */
    struct config_report *report;
    struct conf          *c;            /* under construction; its strings go to c->pool */
    struct node          *root;         /* NULL: an empty document */
    struct node         **listeners, **origins, **routes;   /* of each, NULL where implied */
    bool                  no_memory;
};

/* Sets l->root. Problems are reported; -1 when there is no tree to judge. */
int tree_build(struct load *l, const char *text, size_t n);
/* The value at a dotted path below n, or NULL. */
const struct node *tree_at(const struct node *n, const char *path);

/* ---- report.c ----------------------------------------------------------------------------- */

void problem(struct load *l, struct conf_where w, const char *path, const char *fmt, ...) PRINTF(4,
    5);
void warning(struct load *l, struct conf_where w, const char *path, const char *fmt, ...) PRINTF(4,
    5);
void report_sort(struct config_report *r);
/* Text in the scratch pool; "" when memory is out (l->no_memory). */
const char *textf(struct load *l, const char *fmt, ...) PRINTF(2, 3);
/* A value as a message quotes it: short, printable. */
const char *shown(struct load *l, struct slice s);


/* ---- option.c: the tables ----------------------------------------------------------------- */

enum kind {
#define KIND(name, type, text) K_##name,
    CONF_KINDS(KIND)
#undef KIND
    K_KINDS
};
const char *kind_text(enum kind k);
const char *kind_name(enum kind k);
bool kind_is_list(enum kind k);         /* one text or a list of them */

struct option {
    const char *path;
    size_t      offset;                 /* in its struct */
    enum kind   kind;
    const char *def, *min, *max;        /* "" for none */
    bool        restart;
    const char *meaning;
};
struct table {
    const char *section;                /* "", "listen", "origins", "routes", "plugins" */
    const struct option *at;
    size_t n;
};
extern const struct table table_top, table_listen, table_origin, table_route, table_plugin;

const struct option *option_find(const struct table *t, const char *path);
bool table_has_prefix(const struct table *t, const char *path);     /* "cache" for "cache.memory" */
/* The words of an enumerated kind, NULL-terminated; NULL for other kinds. */
const char *const *kind_words(enum kind k);

/* ---- value.c: one value ------------------------------------------------------------------- */

/* Judges v by the option and stores it. Each problem is reported at its place. */
void value_read(struct load *l, const struct option *o, const struct node *v, const char *path,
    void *base);
/* The default of an option, read as if it were written; nothing where there is none. */
void value_default(struct load *l, const struct option *o, const char *path, void *base);
/* Sets every field of a table's struct from the defaults. */
void value_defaults(struct load *l, const struct table *t, void *base);

struct unit { const char *name; int64_t factor; };
enum { SIZES = 6, DURATIONS = 7 };
extern const struct unit value_sizes[SIZES], value_durations[DURATIONS];

/* ---- net.c: they give NULL, or what is wrong ---------------------------------------------- */

int value_address(struct slice s, struct conf_address *a, struct pool *p);  /* -1; without "off" */
const char *value_network(struct load *l, struct slice s, struct conf_network *out);
const char *value_url(struct load *l, struct slice s, struct conf_url *out);

/* ---- write.c ------------------------------------------------------------------------------ */

/* Appends the value as YAML on one line; false (nothing appended) when it is unset or empty. */
bool value_put(struct buf *b, const struct option *o, const void *base);

/* ---- load.c ------------------------------------------------------------------------------- */

/* Reads a mapping by a table: `at` is how messages name the mapping ("routes[2]"), prefix what
 * precedes its keys in the table. */
void read_map(struct load *l, const struct table *t, const char *prefix, const struct node *map,
    const char *at, void *base);
/* An array of n, zeroed; at least one, so that it is never NULL but when memory is out. */
void *conf_array(struct load *l, size_t n, size_t size);

/* ---- plugins.c ---------------------------------------------------------------------------- */

void read_plugins(struct load *l, const struct node *v);        /* before the routes */
void read_uses(struct load *l, const struct node *route, struct conf_route *r, const char *path);
void plugins_close(struct conf *c);
/* Appends them as YAML, as config_dump does: the top-level section, and one route's. */
void plugins_dump(struct buf *b, const struct conf *c);
void plugins_dump_route(struct buf *b, const struct conf *c, const struct conf_route *r);
/* The options of one struct; lines begin at `depth`, but for the first where `dash` has begun
 * it. */
void dump_table(struct buf *b, const struct table *t, const void *base, unsigned depth, bool dash);
void reference_table(FILE *out, const char *title, const char *text, const struct table *t);

/* ---- check.c, check_route.c: what no single value shows ----------------------------------- */

struct spot { struct conf_where where; const char *path; };
/* Of the value at a path below n, else of n, else `other`. */
struct conf_where spot_where(const struct node *n, const char *path, struct conf_where other);
struct spot spot_item(struct load *l, const struct node *section, const char *at,
    const char *option, const char *text);
void check_all(struct load *l);
void check_routes(struct load *l);
void check_redis(struct load *l);               /* check_redis.c */
/* The content of a file that holds a token alone, in the configuration's pool; else NULL, reported
 * at path. */
const char *token_read(struct load *l, const char *file, struct conf_where w, const char *path);
void check_write(struct load *l, size_t i);     /* check_write.c: of the i-th route */
void cap_object(struct load *l, int64_t *max, struct conf_where w, const char *path);
/* What may be stored, by the memory that there is: nobody is told. */
void conf_cap_objects(struct conf *c);

#endif
