/*
 * One value: from the text in a file to a field of struct conf, judged by its kind and limits.
 *
 * Defaults and limits of the tables pass through here as well, as texts of no place. A parser of a
 * scalar kind answers with what is wrong, or NULL; value_read adds what is allowed.
 */
#include "config/inside.h"
#include "http/http.h"
#include "route/route.h"

#include <stdlib.h>

/* ---- numbers with units ------------------------------------------------------------------- */

/* Digits, then one of the units with nothing between. */
static bool
with_unit(struct slice s, const struct unit *u, size_t n, int64_t *out)
{
    size_t digits = 0;
    uint64_t v;

    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9')
        digits++;
    if (!slice_u64((struct slice){ s.p, digits }, &v))
        return false;
    for (size_t i = 0; i < n; i++)
        if (slice_eq((struct slice){ s.p + digits, s.n - digits }, slice_of(u[i].name)))
            return v <= INT64_MAX && !__builtin_mul_overflow((int64_t)v, u[i].factor, out);
    return false;
}

const struct unit value_sizes[SIZES] = {
    { "", 1 }, { "B", 1 }, { "KiB", 1 << 10 }, { "MiB", 1 << 20 }, { "GiB", 1 << 30 },
    { "TiB", 1LL << 40 },
};
/* A year as RFC 9111's implementations have it: 365 days. */
const struct unit value_durations[DURATIONS] = {
    { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 },
    { "w", 7 * 86400000LL }, { "y", 365 * 86400000LL },
};

bool
config_duration(struct slice s, int64_t *ms)
{
    if (slice_eq(s, SLICE("0"))) {
        *ms = 0;
        return true;
    }
    return with_unit(s, value_durations, DURATIONS, ms);
}

static bool
percent(struct slice s, double *out)
{
    struct slice whole = s, part;
    uint64_t a = 0, b = 0;
    double scale = 1;

    if (s.n < 2 || s.n > 16 || s.p[s.n - 1] != '%')
        return false;
    whole.n--;
    slice_cut(&whole, '.', &part);
    if (!slice_u64(part, &a) || (whole.p != NULL && !slice_u64(whole, &b)))
        return false;
    for (size_t i = 0; i < whole.n; i++)
        scale *= 10;
    *out = ((double)a + (double)b / scale) / 100;
    return true;
}

/* So many in a second, a minute or an hour, as the microseconds for each. */
static bool
rate(struct slice s, int64_t *us)
{
    static const struct unit per[] = { { "s", 1000000 }, { "m", 60000000 }, { "h", 3600000000 } };
    struct slice number;
    uint64_t n;

    if (!slice_cut(&s, '/', &number) || s.p == NULL || !slice_u64(number, &n) || n == 0)
        return false;
    for (size_t i = 0; i < NELEM(per); i++)
        if (slice_eq(s, slice_of(per[i].name)) && n <= (uint64_t)per[i].factor) {
            *us = per[i].factor / (int64_t)n;
            return true;
        }
    return false;
}

/* ---- texts -------------------------------------------------------------------------------- */

static const char *
text_of_kind(struct load *l, enum kind k, struct slice s)
{
    struct err e;

    if (s.n == 0)
        return "an empty text";
    if (!http_is_field_value(s))
        return textf(l, "%s has a control character", shown(l, s));
    switch (k) {
    case K_TOKEN:
        for (size_t i = 0; i < s.n; i++)
            if (!((s.p[i] | 32) >= 'a' && (s.p[i] | 32) <= 'z') &&
                !(s.p[i] >= '0' && s.p[i] <= '9') && strchr("-_.", s.p[i]) == NULL)
                return textf(l, "%s is no such word", shown(l, s));
        return NULL;
    case K_PATH:
        if (s.p[0] != '/' || memchr(s.p, '?', s.n) != NULL || memchr(s.p, '#', s.n) != NULL ||
            memchr(s.p, ' ', s.n) != NULL)
            return textf(l, "%s is no path", shown(l, s));
        return NULL;
    case K_HOST:
        return http_is_host(s) ? NULL : textf(l, "%s is no host", shown(l, s));
    case K_TEMPLATE:
        return route_template_check(s.p, &e) == 0 ? NULL : textf(l, "%s", e.text);
    default:
        return NULL;
    }
}

static const char *
host_pattern(struct load *l, struct slice s)
{
    struct slice h = s;

    if (memchr(s.p, '/', s.n) != NULL)
        return textf(l, "%s is a URL or has a path; the host alone, as example.com", shown(l, s));
    if (slice_starts(h, SLICE("*.")))
        h = (struct slice){ s.p + 2, s.n - 2 };
    if (h.n > 0 && h.p[h.n - 1] != ']' && memchr(h.p, ':', h.n) != NULL)
        return textf(l, "%s has a port; a route matches the host alone", shown(l, s));
    if (memchr(h.p, '*', h.n) != NULL)
        return textf(l, "%s has a * elsewhere than in front; example.com, or *.example.com for any "
            "subdomain (leave `host` out for any host)", shown(l, s));
    return h.n > 0 && http_is_host(h) ? NULL : textf(l, "%s is no host", shown(l, s));
}

/* ---- scalars ------------------------------------------------------------------------------ */

static const char *
word(struct load *l, enum kind k, struct slice s, unsigned *out)
{
    const char *const *words = kind_words(k);
    struct nearest near = { .to = s };

    for (unsigned i = 0; words[i] != NULL; i++) {
        if (slice_eq(s, slice_of(words[i]))) {
            *out = i;
            return NULL;
        }
        nearest_try(&near, words[i]);
    }
    return textf(l, near.word != NULL ? "%s is not known, did you mean %s" : "%s is not known",
        shown(l, s), near.word);
}

static const char *
named_ttl(struct load *l, struct slice s, int64_t *out)
{
    struct nearest near = { .to = s };

    if (config_duration(s, out))
        return NULL;
    for (size_t i = 0; i < l->c->ttls.n; i++) {
        if (slice_eq(s, slice_of(l->c->ttls.at[i].name))) {
            *out = l->c->ttls.at[i].ms;
            return NULL;
        }
        nearest_try(&near, l->c->ttls.at[i].name);
    }
    return textf(l, near.word != NULL ? "%s is no duration and no name of the top-level ttl, did "
        "you mean %s" : "%s is no duration and no name of the top-level ttl", shown(l, s),
        near.word);
}

static const char *
address(struct load *l, struct slice s, struct conf_address *out)
{
    *out = (struct conf_address){ .off = true, .text = "off" };
    if (slice_eq(s, SLICE("off")) || value_address(s, out, l->c->pool) == 0)
        return NULL;
    return textf(l, "%s is no address with a port (a numeric one: 127.0.0.1:8080, [::]:8080)",
        shown(l, s));
}

static const char *
number(struct load *l, enum kind k, struct slice s, void *out)
{
    bool ok = k == K_COUNT ? slice_u64(s, out) : k == K_BYTES ?
        with_unit(s, value_sizes, SIZES, out) : k == K_DURATION ? config_duration(s, out) :
        k == K_RATE ? rate(s, out) : percent(s, out);

    return ok ? NULL : textf(l, "%s is not understood", shown(l, s));
}

/* Parses a scalar kind into *out (a variable of its C type). NULL, or what is wrong. */
static const char *
scalar(struct load *l, enum kind k, struct slice s, void *out)
{
    unsigned index = 0;
    const char *why;

    switch (k) {
    case K_COUNT: case K_BYTES: case K_DURATION: case K_RATE: case K_PERCENT:
        return number(l, k, s, out);
    case K_TTL:
        return named_ttl(l, s, out);
    case K_ADDRESS:
        return address(l, s, out);
    case K_BOOL:
        why = word(l, k, s, &index);
        *(bool *)out = index == 1;
        return why;
    default:
        if (kind_words(k) != NULL) {
            why = word(l, k, s, &index);
            *(unsigned *)out = index;
            return why;
        }
        why = text_of_kind(l, k, s);
        if (why == NULL && (*(char **)out = pool_dup(l->c->pool, s.p, s.n)) == NULL)
            l->no_memory = true;
        return why;
    }
}

/* Is v beyond the limit? Both were parsed by the same code. */
static int
compare(enum kind k, const void *v, const void *limit)
{
    int64_t a, b;

    if (k == K_PERCENT) {
        double x = *(const double *)v, y = *(const double *)limit;
        return (x > y) - (x < y);
    }
    if (k == K_COUNT) {
        uint64_t x = *(const uint64_t *)v, y = *(const uint64_t *)limit;
        return (x > y) - (x < y);
    }
    a = *(const int64_t *)v;
    b = *(const int64_t *)limit;
    return (a > b) - (a < b);
}

static const char *
within(struct load *l, const struct option *o, struct slice s, const void *v)
{
    uint64_t limit[2] = { 0 };          /* room for the widest number */
    bool low = false, high = false;

    if (o->min[0] != '\0' && scalar(l, o->kind, slice_of(o->min), limit) == NULL)
        low = compare(o->kind, v, limit) < 0;
    if (o->max[0] != '\0' && scalar(l, o->kind, slice_of(o->max), limit) == NULL)
        high = compare(o->kind, v, limit) > 0;
    if (!low && !high)
        return NULL;
    return textf(l, low ? "%s is too small" : "%s is too large", shown(l, s));
}

static bool
has_range(enum kind k)
{
    return k == K_COUNT || k == K_BYTES || k == K_DURATION || k == K_TTL || k == K_PERCENT;
}

/* The allowed part of a message. */
static const char *
allowed(struct load *l, const struct option *o)
{
    if (!has_range(o->kind) || (o->min[0] == '\0' && o->max[0] == '\0'))
        return kind_text(o->kind);
    if (o->max[0] == '\0')
        return textf(l, "%s, %s or more", kind_text(o->kind), o->min);
    return textf(l, "%s, within %s..%s", kind_text(o->kind), o->min, o->max);
}

/* ---- structured kinds --------------------------------------------------------------------- */

static const char *
list_item(struct load *l, const struct option *o, struct slice s, void *list, size_t i)
{
    const char *why = NULL;

    switch (o->kind) {
    case K_NETWORKS:
        return value_network(l, s, &((struct conf_networks *)list)->at[i]);
    case K_URLS:
        return value_url(l, s, &((struct conf_urls *)list)->at[i]);
    case K_HOSTS:
        why = host_pattern(l, s);
        break;
    default:
        break;
    }
    if (why == NULL)
        why = text_of_kind(l, K_STRING, s);
    if (why == NULL)
        ((struct conf_strings *)list)->at[i] = pool_dup(l->c->pool, s.p, s.n);
    return why;
}

static size_t
item_size(enum kind k)
{
    return k == K_NETWORKS ? sizeof(struct conf_network) : k == K_URLS ? sizeof(struct conf_url) :
        sizeof(const char *);
}

/* All list kinds are { pointer, count }: conf_strings stands for them where only that matters. */
static void
list_read(struct load *l, const struct option *o, const struct node *v, const char *path,
    void *field)
{
    struct conf_strings *list = field;
    struct node *const one[] = { (struct node *)v };
    struct node *const *items = v->type == NODE_LIST ? v->items : one;
    size_t n = v->type == NODE_LIST ? v->n : 1;

    *list = (struct conf_strings){ pool_zalloc(l->c->pool, (n + 1) * item_size(o->kind)), 0 };
    if (list->at == NULL) {
        l->no_memory = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const char *p = v->type == NODE_LIST ? textf(l, "%s[%zu]", path, i) : path;
        const char *why = items[i]->bad ? NULL : items[i]->type != NODE_SCALAR || items[i]->null ?
            "no value" : list_item(l, o, items[i]->text, field, list->n);

        if (items[i]->bad)
            continue;
        if (why != NULL)
            problem(l, items[i]->where, p, "%s; %s", why, kind_text(o->kind));
        else
            list->n++;
    }
}

static bool
secret_name(const char *name)
{
    static const char *const parts[] =
        { "authorization", "cookie", "token", "secret", "password", "api-key", "apikey" };

    for (size_t i = 0; i < NELEM(parts); i++)
        if (strcasestr(name, parts[i]) != NULL)
            return true;
    return false;
}

static void
field_add(struct load *l, const struct node *name, const struct node *v, const char *path,
    struct conf_fields *out)
{
    struct conf_field *f = &out->at[out->n];

    if (v->bad)
        return;
    if (v->type != NODE_SCALAR || v->null) {
        problem(l, v->where, path, "no value; a text");
        return;
    }
    if (!http_is_field_value(v->text) || slice_trim(v->text).n != v->text.n) {
        problem(l, v->where, path, "the value has a control character, or a space at an end; a "
            "text as RFC 9110 5.5 has it");
        return;
    }
    f->name = pool_dup(l->c->pool, name->text.p, name->text.n);
    f->value = pool_dup(l->c->pool, v->text.p, v->text.n);
    if (f->name == NULL || f->value == NULL) {
        l->no_memory = true;
        return;
    }
    f->secret = v->env || secret_name(f->name);
    out->n++;
}

static void
fields_read(struct load *l, const struct node *v, const char *path, struct conf_fields *out)
{
    size_t n = 0;

    for (size_t i = 0; i < v->n; i++)
        n += v->pairs[i].value->type == NODE_LIST ? v->pairs[i].value->n : 1;
    *out = (struct conf_fields){ pool_zalloc(l->c->pool, (n + 1) * sizeof *out->at), 0 };
    if (out->at == NULL) {
        l->no_memory = true;
        return;
    }
    for (size_t i = 0; i < v->n; i++) {
        const struct node *name = v->pairs[i].key, *value = v->pairs[i].value;
        const char *p = textf(l, "%s.%s", path, name->text.p);

        if (!http_is_token(name->text)) {
            problem(l, name->where, path, "%s is no field name; letters, digits and -",
                shown(l, name->text));
        } else if (value->type == NODE_LIST) {
            for (size_t k = 0; k < value->n; k++)
                field_add(l, name, value->items[k], textf(l, "%s[%zu]", p, k), out);
        } else {
            field_add(l, name, value, p, out);
        }
    }
}

static void
status_read(struct load *l, const struct option *o, const struct pair *pair, const char *path,
    struct conf_statuses *out)
{
    struct conf_status *s = &out->at[out->n];
    const char *why;
    uint64_t status;

    if (pair->value->bad)
        return;
    path = textf(l, "%s.%s", path, pair->key->text.p);
    if (pair->key->text.n != 3 || !slice_u64(pair->key->text, &status) || status < 200 ||
        status > 599) {
        problem(l, pair->key->where, path, "%s is no status; 200..599", shown(l, pair->key->text));
        return;
    }
    if (status == 206 || status == 304) {
        problem(l, pair->key->where, path, "a %u is never stored for itself; another status",
            (unsigned)status);
        return;
    }
    why = pair->value->type != NODE_SCALAR || pair->value->null ? "no value" :
        named_ttl(l, pair->value->text, &s->ttl_ms);
    if (why == NULL)
        why = within(l, &(struct option){ .kind = K_TTL, .min = o->min, .max = o->max },
            pair->value->text, &s->ttl_ms);
    if (why != NULL) {
        problem(l, pair->value->where, path, "%s; %s, within %s..%s", why, kind_text(K_TTL), o->min,
            o->max);
        return;
    }
    s->status = (unsigned)status;
    out->n++;
}

static void
statuses_read(struct load *l, const struct option *o, const struct node *v, const char *path,
    struct conf_statuses *out)
{
    *out = (struct conf_statuses){ pool_zalloc(l->c->pool, (v->n + 1) * sizeof *out->at), 0 };
    if (out->at == NULL) {
        l->no_memory = true;
        return;
    }
    for (size_t i = 0; i < v->n; i++)
        status_read(l, o, &v->pairs[i], path, out);
}

/* ---- the doors ---------------------------------------------------------------------------- */

static const char *
type_text(const struct node *v)
{
    return v->type == NODE_MAP ? "a mapping" : v->type == NODE_LIST ? "a list" :
        v->null ? "no value" : "a single value";
}

void
value_read(struct load *l, const struct option *o, const struct node *v, const char *path,
    void *base)
{
    void *field = (char *)base + o->offset;
    bool map = o->kind == K_FIELDS || o->kind == K_STATUS_TTLS;
    union { uint64_t number; double share; struct conf_address address; const char *text; } out;
    const char *why;

    if (v->bad)
        return;
    if ((map && v->type != NODE_MAP) || (!map && v->type == NODE_MAP) || (!map && v->null) ||
        (!map && !kind_is_list(o->kind) && v->type == NODE_LIST)) {
        problem(l, v->where, path, "%s; %s", type_text(v), allowed(l, o));
    } else if (o->kind == K_FIELDS) {
        fields_read(l, v, path, field);
    } else if (o->kind == K_STATUS_TTLS) {
        statuses_read(l, o, v, path, field);
    } else if (kind_is_list(o->kind)) {
        list_read(l, o, v, path, field);
    } else {
        memset(&out, 0, sizeof out);
        why = scalar(l, o->kind, v->text, &out);
        if (why == NULL && has_range(o->kind))
            why = within(l, o, v->text, &out);
        if (why != NULL)
            problem(l, v->where, path, "%s; %s", why, allowed(l, o));
        else
            scalar(l, o->kind, v->text, field);
    }
}

#define DEFAULTS_MAX 16

/* In the tables a list stands in one text, its items apart by ", ". */
static void
list_default(struct load *l, const struct option *o, const char *path, void *base)
{
    struct node items[DEFAULTS_MAX] = { 0 }, *at[DEFAULTS_MAX];
    struct node list = { .type = NODE_LIST, .items = at };
    struct slice rest = slice_of(o->def), item;

    while (slice_cut(&rest, ',', &item)) {
        if (list.n == DEFAULTS_MAX)
            break;                      /* of a plugin's table; ours have fewer */
        items[list.n] = (struct node){ .type = NODE_SCALAR, .text = slice_trim(item) };
        at[list.n] = &items[list.n];
        list.n++;
    }
    value_read(l, o, &list, path, base);
}

void
value_default(struct load *l, const struct option *o, const char *path, void *base)
{
    struct node v = { .type = NODE_SCALAR, .text = slice_of(o->def) };
    void *field = (char *)base + o->offset;

    if (kind_is_list(o->kind) && o->def[0] != '\0')
        list_default(l, o, path, base);
    else if (o->def[0] != '\0')
        value_read(l, o, &v, path, base);
    else if (o->kind == K_BYTES || o->kind == K_DURATION || o->kind == K_TTL ||
        o->kind == K_RATE)
        *(int64_t *)field = CONF_UNSET;
    else if (o->kind == K_ADDRESS)
        *(struct conf_address *)field = (struct conf_address){ .off = true, .text = "off" };
}

/* What "" as a default means to each kind is what zero means, but for numbers that may be unset. */
void
value_defaults(struct load *l, const struct table *t, void *base)
{
    size_t errors = l->report->errors;

    for (size_t i = 0; i < t->n; i++)
        value_default(l, &t->at[i], t->at[i].path, base);
    assert(l->report->errors == errors);        /* a default of the tables is no user's fault */
}
