/*
 * The configuration described: what is in force.
 */
#include "config/inside.h"

#include <stdlib.h>

/* ---- dump --------------------------------------------------------------------------------- */

static void
indent(struct buf *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        buf_addz(b, "  ");
}

/* "request.set" behind "request.remove" shares its first word: the bytes of that, dot included. */
static size_t
shared(const char *a, const char *b)
{
    size_t n = 0;

    for (size_t i = 0; a[i] != '\0' && a[i] == b[i]; i++)
        if (a[i] == '.')
            n = i + 1;
    return n;
}

/* Nested by the dots of their paths. */
void
dump_table(struct buf *b, const struct table *t, const void *base, unsigned depth, bool dash)
{
    const char *last = "";

    for (size_t i = 0; i < t->n; i++) {
        const struct option *o = &t->at[i];
        struct buf v = { 0 };
        size_t at = shared(last, o->path);
        unsigned level = 0;

        if (!value_put(&v, o, base)) {
            buf_free(&v);
            continue;
        }
        for (size_t k = 0; k < at; k++)
            level += o->path[k] == '.';
        for (const char *p = o->path + at, *dot; (dot = strchr(p, '.')) != NULL; p = dot + 1,
            level++) {
            indent(b, dash ? 0 : depth + level);
            buf_printf(b, "%.*s:\n", (int)(dot - p), p);
            dash = false;
        }
        indent(b, dash ? 0 : depth + level);
        buf_printf(b, "%s: %.*s\n", strrchr(o->path, '.') != NULL ? strrchr(o->path, '.') + 1 :
            o->path,
            SLICE_ARG(buf_slice(&v)));
        dash = false;
        last = o->path;
        buf_free(&v);
    }
}

static void
dump_name(struct buf *b, const char *name)
{
    buf_addz(b, "  \"");
    buf_json(b, slice_of(name));
    buf_addz(b, "\":");
}

void
config_dump(const struct conf *c, struct buf *b)
{
    struct slice rest = slice_of(c->waiting != NULL ? c->waiting : ""), line;

    while (slice_cut(&rest, '\n', &line))
        if (line.n > 0)
            buf_printf(b, "# waits for a restart: %.*s\n", SLICE_ARG(line));
    dump_table(b, &table_top, c, 0, false);
    if (c->ttls.n > 0)
        buf_addz(b, "ttl:\n");
    for (size_t i = 0; i < c->ttls.n; i++) {
        dump_name(b, c->ttls.at[i].name);
        buf_printf(b, " %lldms\n", (long long)c->ttls.at[i].ms);
    }
    buf_addz(b, "listen:\n");
    for (size_t i = 0; i < c->nlisteners; i++) {
        buf_addz(b, "  - ");
        dump_table(b, &table_listen, &c->listeners[i], 2, true);
    }
    buf_addz(b, "origins:\n");
    for (size_t i = 0; i < c->norigins; i++) {
        dump_name(b, c->origins[i].id);
        buf_addc(b, '\n');
        dump_table(b, &table_origin, &c->origins[i], 2, false);
    }
    plugins_dump(b, c);
    buf_addz(b, "routes:\n");
    for (size_t i = 0; i < c->nroutes; i++) {
        buf_addz(b, "  - ");
        dump_table(b, &table_route, &c->routes[i], 2, true);
        plugins_dump_route(b, c, &c->routes[i]);
    }
}
