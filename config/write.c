/*
 * One value as YAML on one line, such that reading it back gives the same. Secrets stay hidden.
 */
#include "config/inside.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* As a double-quoted scalar; ${ is escaped, so that reading it back gives the same. */
static void
put_text(struct buf *b, const char *s)
{
    struct buf raw = { 0 };

    for (const char *c = s; *c != '\0'; c++) {
        if (c[0] == '$' && c[1] == '{')
            buf_addc(&raw, '$');
        buf_addc(&raw, *c);
    }
    buf_addc(b, '"');
    buf_json(b, buf_slice(&raw));
    buf_addc(b, '"');
    b->failed |= raw.failed;
    buf_free(&raw);
}

static void
put_unit(struct buf *b, int64_t v, const struct unit *u, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (v != 0 && v % u[i].factor == 0)
            best = i;
    buf_printf(b, "%lld%s", (long long)(v / u[best].factor), u[best].name);
}

static void
put_duration(struct buf *b, int64_t ms)
{
    if (ms == 0)
        buf_addz(b, "0s");
    else
        put_unit(b, ms, value_durations, DURATIONS - 2);       /* not in weeks or years */
}

/* In the largest unit that is kept exactly, as it may have been written. */
static void
put_rate(struct buf *b, int64_t us)
{
    static const struct unit per[] = { { "s", 1000000 }, { "m", 60000000 }, { "h", 3600000000 } };
    size_t i = 0;

    while (i + 1 < NELEM(per) && (per[i].factor / us == 0 ||
        per[i].factor / (per[i].factor / us) != us))
        i++;
    buf_printf(b, "%lld/%s", (long long)(per[i].factor / us), per[i].name);
}

static void
put_network(struct buf *b, const struct conf_network *n)
{
    char z[INET6_ADDRSTRLEN];

    inet_ntop(n->family, n->bytes, z, sizeof z);
    buf_printf(b, "\"%s/%u\"", z, n->bits);
}

static void
put_list(struct buf *b, enum kind k, const struct conf_strings *list)
{
    buf_addc(b, '[');
    for (size_t i = 0; i < list->n; i++) {
        if (i > 0)
            buf_addz(b, ", ");
        if (k == K_NETWORKS)
            put_network(b, &((const struct conf_network *)list->at)[i]);
        else if (k == K_URLS)
            put_text(b, ((const struct conf_url *)list->at)[i].text);
        else
            put_text(b, list->at[i]);
    }
    buf_addc(b, ']');
}

static void
put_field(struct buf *b, const struct conf_field *f)
{
    put_text(b, f->secret ? "(hidden)" : f->value);
}

/* Lines of the same name stand next to one another: they came from one list. */
static void
put_fields(struct buf *b, const struct conf_fields *f)
{
    buf_addc(b, '{');
    for (size_t i = 0; i < f->n;) {
        size_t same = 1;

        while (i + same < f->n && strcmp(f->at[i].name, f->at[i + same].name) == 0)
            same++;
        if (i > 0)
            buf_addz(b, ", ");
        put_text(b, f->at[i].name);
        buf_addz(b, same > 1 ? ": [" : ": ");
        for (size_t k = 0; k < same; k++) {
            if (k > 0)
                buf_addz(b, ", ");
            put_field(b, &f->at[i + k]);
        }
        if (same > 1)
            buf_addc(b, ']');
        i += same;
    }
    buf_addc(b, '}');
}

static void
put_statuses(struct buf *b, const struct conf_statuses *s)
{
    buf_addc(b, '{');
    for (size_t i = 0; i < s->n; i++) {
        buf_printf(b, "%s%u: ", i > 0 ? ", " : "", s->at[i].status);
        put_duration(b, s->at[i].ttl_ms);
    }
    buf_addc(b, '}');
}

static bool
put_scalar(struct buf *b, enum kind k, const void *field)
{
    switch (k) {
    case K_COUNT:
        buf_addu(b, *(const uint64_t *)field);
        return true;
    case K_BYTES: case K_DURATION: case K_TTL:
        if (*(const int64_t *)field == CONF_UNSET)
            return false;
        if (k == K_BYTES)
            put_unit(b, *(const int64_t *)field, value_sizes, SIZES);
        else
            put_duration(b, *(const int64_t *)field);
        return true;
    case K_RATE:
        if (*(const int64_t *)field == CONF_UNSET)
            return false;
        put_rate(b, *(const int64_t *)field);
        return true;
    case K_PERCENT:
        buf_printf(b, "%.10g%%", *(const double *)field * 100);
        return true;
    case K_ADDRESS:
        put_text(b, ((const struct conf_address *)field)->text);
        return true;
    default:
        if (*(const char *const *)field == NULL)
            return false;
        put_text(b, *(const char *const *)field);
        return true;
    }
}

bool
value_put(struct buf *b, const struct option *o, const void *base)
{
    const void *field = (const char *)base + o->offset;
    const struct conf_strings *list = field;        /* { pointer, count }, as all lists */

    if (o->kind == K_BOOL) {
        buf_addz(b, *(const bool *)field ? "true" : "false");
    } else if (kind_words(o->kind) != NULL) {
        buf_addz(b, kind_words(o->kind)[*(const unsigned *)field]);
    } else if (kind_is_list(o->kind) || o->kind == K_FIELDS || o->kind == K_STATUS_TTLS) {
        if (list->n == 0 && (list->at == NULL || !kind_is_list(o->kind)))
            return false;
        if (o->kind == K_FIELDS)
            put_fields(b, field);
        else if (o->kind == K_STATUS_TTLS)
            put_statuses(b, field);
        else
            put_list(b, o->kind, list);
    } else {
        return put_scalar(b, o->kind, field);
    }
    return true;
}
