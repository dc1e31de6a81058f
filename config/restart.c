/*
 * What a reload cannot change: it is named, and stays in force as it runs.
 *
 * Model    a configuration that comes by a reload takes over from the one in force the values that
 *          need a restart, and its listeners: each with its new options where the file still names
 *          its address, with those that it has where it does not. So what is in force is one
 *          configuration, and the next reload is compared with what runs. All of it is copied: the
 *          one before may go.
 */
#include "config/inside.h"

#include <errno.h>

/* ---- naming ------------------------------------------------------------------------------- */

static void
put_or(struct buf *b, const struct option *o, const void *base)
{
    if (!value_put(b, o, base))
        buf_addz(b, "unset");
}

static size_t
differs(const struct option *o, const struct conf *was, const struct conf *is, struct buf *b)
{
    struct buf x = { 0 }, y = { 0 };
    size_t n = 0;

    put_or(&x, o, was);
    put_or(&y, o, is);
    if (!slice_eq(buf_slice(&x), buf_slice(&y))) {
        buf_printf(b, "%s: is %.*s and becomes %.*s with a restart\n", o->path,
            SLICE_ARG(buf_slice(&x)), SLICE_ARG(buf_slice(&y)));
        n = 1;
    }
    buf_free(&x);
    buf_free(&y);
    return n;
}

static bool
same_address(const struct conf_address *a, const struct conf_address *b)
{
    return a->off == b->off && a->len == b->len && memcmp(&a->sa, &b->sa, a->len) == 0;
}

/* In `c` the listener of the address that the i-th has in `of`; of several (port 0) the one of the
 * same rank. NULL: there is none. */
static const struct conf_listener *
same_listener(const struct conf *c, const struct conf *of, size_t i)
{
    const struct conf_address *a = &of->listeners[i].address;
    size_t rank = 0;

    for (size_t k = 0; k < i; k++)
        rank += same_address(&of->listeners[k].address, a);
    for (size_t k = 0; k < c->nlisteners; k++)
        if (same_address(&c->listeners[k].address, a) && rank-- == 0)
            return &c->listeners[k];
    return NULL;
}

size_t
config_restart_needed(const struct conf *was, const struct conf *is, struct buf *b)
{
    size_t n = 0;

    for (size_t i = 0; i < table_top.n; i++)
        if (table_top.at[i].restart)
            n += differs(&table_top.at[i], was, is, b);
    for (size_t i = 0; i < is->nlisteners; i++)
        if (same_listener(was, is, i) == NULL) {
            buf_printf(b, "listen: %s is opened with a restart\n", is->listeners[i].address.text);
            n++;
        }
    for (size_t i = 0; i < was->nlisteners; i++)
        if (same_listener(is, was, i) == NULL) {
            buf_printf(b, "listen: %s is closed with a restart\n", was->listeners[i].address.text);
            n++;
        }
    return n;
}

/* ---- taking over -------------------------------------------------------------------------- */

static bool
copy_text(struct pool *p, const char **text)
{
    *text = *text != NULL ? pool_dup(p, *text, strlen(*text)) : NULL;
    return *text != NULL;
}

static bool
copy_array(struct pool *p, const void *from, size_t bytes, void *to)
{
    void *at;

    if (from == NULL)
        return true;                    /* absent; an empty list is not */
    at = pool_alloc(p, bytes + 1);
    if (at == NULL)
        return false;
    memcpy(at, from, bytes);
    memcpy(to, &at, sizeof at);
    return true;
}

/* One for each C type of a value, of whose bytes `to` is a copy; what it points to is copied. */

static bool
deepen_flat(struct pool *p, void *to)
{
    (void)p, (void)to;
    return true;
}

static bool
deepen_text(struct pool *p, void *to)
{
    const char **text = to;

    return *text == NULL || copy_text(p, text);
}

static bool
deepen_address(struct pool *p, void *to)
{
    return deepen_text(p, &((struct conf_address *)to)->text);
}

static bool
deepen_networks(struct pool *p, void *to)
{
    struct conf_networks *v = to;

    return copy_array(p, v->at, v->n * sizeof *v->at, &v->at);
}

static bool
deepen_statuses(struct pool *p, void *to)
{
    struct conf_statuses *v = to;

    return copy_array(p, v->at, v->n * sizeof *v->at, &v->at);
}

static bool
deepen_strings(struct pool *p, void *to)
{
    struct conf_strings *v = to;
    bool ok = copy_array(p, v->at, v->n * sizeof *v->at, &v->at);

    for (size_t i = 0; ok && i < v->n; i++)
        ok = copy_text(p, &v->at[i]);
    return ok;
}

static bool
deepen_fields(struct pool *p, void *to)
{
    struct conf_fields *v = to;
    bool ok = copy_array(p, v->at, v->n * sizeof *v->at, &v->at);

    for (size_t i = 0; ok && i < v->n; i++)
        ok = copy_text(p, &v->at[i].name) && copy_text(p, &v->at[i].value);
    return ok;
}

static bool
deepen_urls(struct pool *p, void *to)
{
    struct conf_urls *v = to;
    bool ok = copy_array(p, v->at, v->n * sizeof *v->at, &v->at);

    for (size_t i = 0; ok && i < v->n; i++)
        ok = copy_text(p, &v->at[i].text) && copy_text(p, &v->at[i].host);
    return ok;
}

/* A kind of a type that none of them is for does not compile. Enums are unsigned here. */
static const struct copier { size_t size; bool (*deepen)(struct pool *p, void *to); } copiers[] = {
#define KIND(name, type, text) { sizeof(type), _Generic((type *)NULL,                           \
        uint64_t *: deepen_flat, int64_t *: deepen_flat, double *: deepen_flat,                \
        bool *: deepen_flat, unsigned *: deepen_flat, const char **: deepen_text,              \
        struct conf_address *: deepen_address, struct conf_strings *: deepen_strings,          \
        struct conf_networks *: deepen_networks, struct conf_urls *: deepen_urls,              \
        struct conf_fields *: deepen_fields, struct conf_statuses *: deepen_statuses) },
    CONF_KINDS(KIND)
#undef KIND
};

static bool
copy_option(struct pool *p, const struct option *o, const void *from, void *to)
{
    const struct copier *c = &copiers[o->kind];

    memcpy((char *)to + o->offset, (const char *)from + o->offset, c->size);
    return c->deepen(p, (char *)to + o->offset);
}

static int
keep_listeners(const struct conf *was, struct conf *is)
{
    struct conf_listener *kept = pool_zalloc(is->pool, (was->nlisteners + 1) * sizeof *kept);
    const char **tokens = pool_zalloc(is->pool, (was->nlisteners + 1) * sizeof *tokens);

    if (kept == NULL || tokens == NULL)
        return -1;
    for (size_t i = 0; i < was->nlisteners; i++) {
        const struct conf_listener *l = same_listener(is, was, i);

        if (l != NULL) {
            kept[i] = *l;
            tokens[i] = is->purge_tokens[l - is->listeners];
            continue;
        }
        for (size_t k = 0; k < table_listen.n; k++)
            if (!copy_option(is->pool, &table_listen.at[k], &was->listeners[i], &kept[i]))
                return -1;
        tokens[i] = was->purge_tokens[i];
        if (tokens[i] != NULL && !copy_text(is->pool, &tokens[i]))
            return -1;
    }
    is->listeners = kept;
    is->nlisteners = was->nlisteners;
    is->purge_tokens = tokens;
    return 0;
}

int
config_take_over(const struct conf *was, struct conf *is, struct buf *b)
{
    struct buf text = { 0 };
    bool ok;

    if (config_restart_needed(was, is, &text) > 0)
        is->waiting = pool_dup(is->pool, text.p, text.n);
    ok = !text.failed && (text.n == 0 || is->waiting != NULL);
    buf_adds(b, buf_slice(&text));
    buf_free(&text);
    for (size_t i = 0; ok && i < table_top.n; i++)
        if (table_top.at[i].restart)
            ok = copy_option(is->pool, &table_top.at[i], was, is);
    if (!ok || keep_listeners(was, is) == -1)
        return -1;
    conf_cap_objects(is);
    return 0;
}
