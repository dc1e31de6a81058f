/*
 * A file becomes a tree: libyaml composes the document, this file resolves what is YAML's and not
 * ours -- aliases, merge keys, keys given twice -- and ${ENV} in values.
 *
 * Bounds: aliases may repeat at most ALIASED nodes in all and nest DEPTH levels, so that a small
 * file cannot unfold into a large tree; a node that contains itself is refused. libyaml's time is
 * quadratic in the levels, so a pass over its events comes first and stops where they are too many.
 */
#include "config/inside.h"

#include <stdlib.h>
#include <yaml.h>

#define ALIASED 200000
#define DEPTH   32
#define PARSED  64                    /* levels that libyaml is let into: it is quadratic in them */

struct build {
    struct load     *l;
    yaml_document_t *doc;
    uint8_t         *state;             /* of each node: SEEN, INSIDE */
    size_t           aliased;
    bool             bomb;              /* said so already */
};
enum { SEEN = 1, INSIDE = 2 };

static struct node *build(struct build *b, int index, const char *path, unsigned depth);

static struct conf_where
where(const yaml_mark_t *m)
{
    return (struct conf_where){ (int)m->line + 1, (int)m->column + 1 };
}

static void *
scratch(struct load *l, size_t n)
{
    void *p = pool_zalloc(l->scratch, n);

    if (p == NULL)
        l->no_memory = true;
    return p;
}

/* ---- scalars ------------------------------------------------------------------------------ */

static bool
env_name(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] | 32) >= 'a' && (s.p[i] | 32) <= 'z') && s.p[i] != '_' &&
            (i == 0 || s.p[i] < '0' || s.p[i] > '9'))
            return false;
    return s.n > 0;
}

/* Appends the variable that `rest` (behind "${") begins with. Returns the bytes taken. */
static size_t
env_one(struct load *l, struct node *n, const char *path, struct slice rest, struct buf *out)
{
    const char *end = rest.n > 0 ? memchr(rest.p, '}', rest.n) : NULL;
    struct slice name = { rest.p, end != NULL ? (size_t)(end - rest.p) : 0 };
    const char *z, *value;

    if (!env_name(name)) {
        problem(l, n->where, path, "${ is not followed by a name and }; an environment variable is "
            "written ${NAME}, and $${ stands for the text ${");
        n->bad = true;
        return 0;
    }
    z = textf(l, "%.*s", SLICE_ARG(name));
    value = getenv(z);
    if (value == NULL) {
        problem(l, n->where, path, "the environment variable %s is not set; set it, or write $${ "
            "for the text ${", z);
        n->bad = true;
    } else {
        buf_addz(out, value);
        n->env = true;
    }
    return name.n + 1;
}

static void
env_expand(struct load *l, struct node *n, const char *path, struct slice s)
{
    struct buf out = { 0 };

    for (size_t i = 0; i < s.n;) {
        struct slice rest = { s.p + i, s.n - i };

        if (slice_starts(rest, SLICE("$${"))) {
            buf_addz(&out, "${");
            i += 3;
        } else if (slice_starts(rest, SLICE("${"))) {
            size_t took = env_one(l, n, path, (struct slice){ rest.p + 2, rest.n - 2 }, &out);

            i += 2 + took;
        } else {
            buf_addc(&out, s.p[i++]);
        }
    }
    n->text = pool_slice(l->scratch, buf_slice(&out));
    if (out.failed || n->text.p == NULL)
        l->no_memory = true;
    buf_free(&out);
}

static struct node *
build_scalar(struct build *b, const yaml_node_t *y, const char *path, bool key)
{
    struct node *n = scratch(b->l, sizeof *n);
    struct slice s = { (const char *)y->data.scalar.value, y->data.scalar.length };

    if (n == NULL)
        return NULL;
    n->type = NODE_SCALAR;
    n->where = where(&y->start_mark);
    n->null = y->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && (s.n == 0 ||
        slice_eq(s, SLICE("~")) || slice_eq(s, SLICE("null")));
    if (s.n > 0 && memchr(s.p, '\0', s.n) != NULL) {
        problem(b->l, n->where, path, "has a NUL character; text without it");
        s.n = strlen(s.p);
    }
    if (!key && s.n > 0 && memchr(s.p, '$', s.n) != NULL) {
        env_expand(b->l, n, path, s);
    } else {
        n->text = pool_slice(b->l->scratch, s);
        if (n->text.p == NULL)
            b->l->no_memory = true;
    }
    return n->text.p != NULL ? n : NULL;
}

/* ---- mappings ----------------------------------------------------------------------------- */

/* A pair on its way into a map: own ones before merged ones, earlier merges before later ones. */
struct incoming { struct pair pair; size_t rank; bool merged; };
struct gather { struct incoming *at; size_t n, cap; };

static void
gather_add(struct build *b, struct gather *g, struct pair p, bool merged)
{
    if (g->n == g->cap) {
        size_t cap = g->cap == 0 ? 16 : g->cap * 2;
        struct incoming *at = realloc(g->at, cap * sizeof *at);

        if (at == NULL) {
            b->l->no_memory = true;
            return;
        }
        g->at = at;
        g->cap = cap;
    }
    g->at[g->n] = (struct incoming){ p, g->n, merged };
    g->n++;
}

static int
by_key(const void *a, const void *b)
{
    const struct incoming *x = a, *y = b;
    int c = strcmp(x->pair.key->text.p, y->pair.key->text.p);

    return c != 0 ? c : (x->rank > y->rank) - (x->rank < y->rank);
}

static int
by_rank(const void *a, const void *b)
{
    const struct incoming *x = a, *y = b;

    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* Of each key the first stays; a second one of the map's own is a mistake. */
static void
gather_unique(struct build *b, struct gather *g, const char *path)
{
    size_t kept = 0;

    if (g->n < 2)
        return;
    qsort(g->at, g->n, sizeof *g->at, by_key);
    for (size_t i = 0; i < g->n; i++) {
        const struct node *key = g->at[i].pair.key;

        if (kept == 0 || strcmp(key->text.p, g->at[kept - 1].pair.key->text.p) != 0)
            g->at[kept++] = g->at[i];
        else if (!g->at[i].merged)
            problem(b->l, key->where, path, "%s is given twice, first in line %d; once", shown(b->l,
                key->text), g->at[kept - 1].pair.key->where.line);
    }
    g->n = kept;
    qsort(g->at, g->n, sizeof *g->at, by_rank);
}

static void
merge_one(struct build *b, struct gather *g, const struct node *from, struct conf_where w,
    const char *path)
{
    if (from->type != NODE_MAP) {
        problem(b->l, w, path, "<< merges what is no mapping; an alias of a mapping, or a list of "
            "them");
        return;
    }
    for (size_t i = 0; i < from->n; i++)
        gather_add(b, g, from->pairs[i], true);
}

static void
merge(struct build *b, struct gather *g, const struct node *from, const char *path)
{
    if (from->type != NODE_LIST) {
        merge_one(b, g, from, from->where, path);
        return;
    }
    for (size_t i = 0; i < from->n; i++)
        merge_one(b, g, from->items[i], from->where, path);
}

static bool
is_merge(const yaml_node_t *key)
{
    return key->type == YAML_SCALAR_NODE && key->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
        strcmp((const char *)key->data.scalar.value, "<<") == 0;
}

static void
build_pair(struct build *b, struct gather *g, const yaml_node_pair_t *yp, const char *path,
    unsigned depth)
{
    yaml_node_t *yk = yaml_document_get_node(b->doc, yp->key);
    struct pair p;

    if (yk->type != YAML_SCALAR_NODE) {
        problem(b->l, where(&yk->start_mark), path, "a key is no word; a name followed by a colon");
        return;
    }
    p.key = build_scalar(b, yk, path, true);
    if (p.key == NULL)
        return;
    p.value = build(b, yp->value, path[0] != '\0' ? textf(b->l, "%s.%s", path, p.key->text.p) :
        p.key->text.p, depth + 1);
    if (p.value != NULL)
        gather_add(b, g, p, false);
}

static void
build_map(struct build *b, struct node *n, const yaml_node_t *y, const char *path, unsigned depth)
{
    struct gather g = { 0 };

    for (yaml_node_pair_t *p = y->data.mapping.pairs.start; p < y->data.mapping.pairs.top; p++)
        if (!is_merge(yaml_document_get_node(b->doc, p->key)))
            build_pair(b, &g, p, path, depth);
    for (yaml_node_pair_t *p = y->data.mapping.pairs.start; p < y->data.mapping.pairs.top; p++) {
        struct node *from;

        if (!is_merge(yaml_document_get_node(b->doc, p->key)))
            continue;
        from = build(b, p->value, path, depth + 1);
        if (from != NULL)
            merge(b, &g, from, path);
    }
    gather_unique(b, &g, path);
    n->pairs = scratch(b->l, (g.n + 1) * sizeof *n->pairs);
    for (size_t i = 0; n->pairs != NULL && i < g.n; i++)
        n->pairs[n->n++] = g.at[i].pair;
    free(g.at);
}

static void
build_list(struct build *b, struct node *n, const yaml_node_t *y, const char *path, unsigned depth)
{
    const yaml_node_item_t *at = y->data.sequence.items.start;
    size_t count = (size_t)(y->data.sequence.items.top - at);

    n->items = scratch(b->l, (count + 1) * sizeof *n->items);
    for (size_t i = 0; n->items != NULL && i < count; i++) {
        struct node *item = build(b, at[i], textf(b->l, "%s[%zu]", path, i), depth + 1);

        if (item != NULL)
            n->items[n->n++] = item;
    }
}

/* ---- any node ----------------------------------------------------------------------------- */

/* May this node be unfolded here? Says why not. */
static bool
may_unfold(struct build *b, int index, const yaml_node_t *y, const char *path, unsigned depth)
{
    uint8_t *state = &b->state[index];

    if (*state & INSIDE) {
        problem(b->l, where(&y->start_mark), path, "an alias names what it stands in; an alias of "
            "something else");
        return false;
    }
    if (depth > DEPTH) {
        problem(b->l, where(&y->start_mark), path, "nested too deeply; at most %d levels", DEPTH);
        return false;
    }
    if (*state & SEEN && ++b->aliased > ALIASED) {
        if (!b->bomb)
            problem(b->l, where(&y->start_mark), path, "aliases unfold into too much; at most %d "
                "values in all", ALIASED);
        b->bomb = true;
        return false;
    }
    if (y->tag != NULL && strncmp((const char *)y->tag, "tag:yaml.org,2002:", 18) != 0)
        problem(b->l, where(&y->start_mark), path, "the tag %s has no meaning here; a plain value",
            shown(b->l, slice_of((const char *)y->tag)));
    return true;
}

static struct node *
build(struct build *b, int index, const char *path, unsigned depth)
{
    const yaml_node_t *y = yaml_document_get_node(b->doc, index);
    struct node *n;

    if (y == NULL || b->l->no_memory || !may_unfold(b, index, y, path, depth))
        return NULL;
    b->state[index] |= SEEN;
    if (y->type == YAML_SCALAR_NODE)
        return build_scalar(b, y, path, false);
    n = scratch(b->l, sizeof *n);
    if (n == NULL)
        return NULL;
    n->where = where(&y->start_mark);
    n->type = y->type == YAML_MAPPING_NODE ? NODE_MAP : NODE_LIST;
    b->state[index] |= INSIDE;
    if (n->type == NODE_MAP)
        build_map(b, n, y, path, depth);
    else
        build_list(b, n, y, path, depth);
    b->state[index] &= (uint8_t)~INSIDE;
    return n;
}

/* ---- the document ------------------------------------------------------------------------- */

static struct conf_where
where_byte(const char *text, size_t n, size_t at)
{
    struct conf_where w = { 1, 1 };

    for (size_t i = 0; i < at && i < n; i++) {
        w.column += ((unsigned char)text[i] & 0xc0) != 0x80;
        if (text[i] == '\n')
            w = (struct conf_where){ w.line + 1, 1 };
    }
    return w;
}

/* The line at w, from that column on (or whole, with w.column 0). */
static struct slice
line_where(const char *text, size_t n, struct conf_where w)
{
    struct slice rest = { text, n }, line = { NULL, 0 };
    int column = 1;

    for (int i = 0; i < w.line; i++)
        if (!slice_cut(&rest, '\n', &line))
            return (struct slice){ "", 0 };
    for (; line.n > 0 && column < w.column; line.p++, line.n--)
        column += line.n > 1 && ((unsigned char)line.p[1] & 0xc0) != 0x80;
    return line;
}

/* What a parser's message does not say: two mistakes that everybody makes. */
static const char *
syntax_hint(const char *text, size_t n, struct conf_where w)
{
    struct slice whole = line_where(text, n, (struct conf_where){ w.line, 0 });

    if (memmem(whole.p, whole.n, "${", 2) != NULL)
        return "put \"${NAME}\" in quotes inside { } and [ ]";
    if (memmem(whole.p, whole.n, "{", 1) != NULL || memmem(whole.p, whole.n, "*", 1) != NULL)
        return "check brackets and colons, and put texts with { } * in quotes";
    return "check indentation, colons and quotes";
}

static void
syntax(struct load *l, const yaml_parser_t *y, const char *text, size_t n)
{
    struct conf_where w = where(&y->problem_mark);
    bool tab = slice_starts(line_where(text, n, w), SLICE("\t"));
    const char *hint = syntax_hint(text, n, w);

    switch (y->error) {
    case YAML_MEMORY_ERROR:
        l->no_memory = true;
        return;
    case YAML_READER_ERROR:
        problem(l, where_byte(text, n, y->problem_offset), "", "not readable as text (%s); UTF-8 "
            "without control characters", y->problem);
        return;
    default:
        if (tab)
            problem(l, w, "", "a tab cannot indent or separate here; spaces");
        else if (y->context != NULL)
            problem(l, w, "", "not YAML: %s, %s (from line %zu); %s", y->problem, y->context,
                y->context_mark.line + 1, hint);
        else
            problem(l, w, "", "not YAML: %s; %s", y->problem, hint);
    }
}

/* Is any document nested so deeply that composing it takes too long? Says so. What is no YAML is
 * left to the composing that follows. */
static bool
too_deep(struct load *l, const char *text, size_t n)
{
    yaml_parser_t y;
    yaml_event_t e;
    bool deep = false;
    unsigned depth = 0;

    if (!yaml_parser_initialize(&y)) {
        l->no_memory = true;
        return true;
    }
    yaml_parser_set_encoding(&y, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&y, (const unsigned char *)text, n);
    for (bool end = false; !end && !deep && yaml_parser_parse(&y, &e); yaml_event_delete(&e)) {
        end = e.type == YAML_STREAM_END_EVENT;
        if (e.type == YAML_SEQUENCE_START_EVENT || e.type == YAML_MAPPING_START_EVENT)
            deep = ++depth > PARSED;
        else if (e.type == YAML_SEQUENCE_END_EVENT || e.type == YAML_MAPPING_END_EVENT)
            depth--;
        if (deep)
            problem(l, where(&e.start_mark), "", "nested too deeply; at most %d levels", DEPTH);
    }
    yaml_parser_delete(&y);
    return deep;
}

/* There must be no second document behind the first. */
static int
end_of_stream(struct load *l, yaml_parser_t *y, const char *text, size_t n)
{
    yaml_document_t more;
    yaml_node_t *root;

    if (!yaml_parser_load(y, &more)) {
        syntax(l, y, text, n);
        return -1;
    }
    root = yaml_document_get_root_node(&more);
    if (root != NULL)
        problem(l, where(&more.start_mark), "", "a second document begins here; one document a "
            "file");
    yaml_document_delete(&more);
    return root != NULL ? -1 : 0;
}

int
tree_build(struct load *l, const char *text, size_t n)
{
    struct build b = { .l = l };
    yaml_parser_t parser;
    yaml_document_t doc;
    yaml_node_t *root;
    int rc = -1;

    if (too_deep(l, text, n))
        return -1;
    if (!yaml_parser_initialize(&parser)) {
        l->no_memory = true;
        return -1;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    if (!yaml_parser_load(&parser, &doc)) {
        syntax(l, &parser, text, n);
        goto out;
    }
    root = yaml_document_get_root_node(&doc);
    if (root == NULL || end_of_stream(l, &parser, text, n) == 0) {
        b.doc = &doc;
        b.state = calloc((size_t)(doc.nodes.top - doc.nodes.start) + 1, 1);
        if (b.state == NULL)
            l->no_memory = true;
        else if (root != NULL)
            l->root = build(&b, 1, "", 0);
        free(b.state);
        rc = l->no_memory ? -1 : 0;
    }
    yaml_document_delete(&doc);
out:
    yaml_parser_delete(&parser);
    return rc;
}

const struct node *
tree_at(const struct node *n, const char *path)
{
    struct slice rest = slice_of(path), part;

    while (n != NULL && slice_cut(&rest, '.', &part)) {
        const struct node *found = NULL;

        for (size_t i = 0; n->type == NODE_MAP && i < n->n && found == NULL; i++)
            if (slice_eq(n->pairs[i].key->text, part))
                found = n->pairs[i].value;
        n = found;
    }
    return n;
}
