/*
 * `weir explain`: the page for a person, made of what GET /explain says.
 *
 * Model    sections, one clause a line. In a UTF-8 locale a clause that allows is marked with a
 *          check and one that forbids with a cross, elsewhere by the words ok and no. What says
 *          nothing is left out.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/inside.h"

struct page { struct buf *b; const char *yes, *no; };

static bool
speaks_utf8(void)
{
    static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };

    for (size_t i = 0; i < NELEM(names); i++) {
        const char *value = getenv(names[i]);

        if (value != NULL && value[0] != '\0')
            return strcasestr(value, "utf-8") != NULL || strcasestr(value, "utf8") != NULL;
    }
    return false;
}

static const char *
text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));

    return s != NULL ? s : "";
}

static void
section(struct page *p, const char *title)
{
    buf_printf(p->b, "\n%s\n", title);
}

/* "  name: value" */
static void
line(struct page *p, const char *name, const char *value)
{
    buf_addz(p->b, "  ");
    client_plain(p->b, name);
    if (name[0] != '\0')
        buf_addz(p->b, ": ");
    client_plain(p->b, value);
    buf_addc(p->b, '\n');
}

/* "12.0 s" */
static void
add_seconds(struct buf *b, const json_t *o, const char *name, const char *before)
{
    const json_t *v = json_object_get(o, name);

    if (json_is_number(v))
        buf_printf(b, "%s%.1f s", before, json_number_value(v));
}

static void
clauses(struct page *p, const json_t *list)
{
    const json_t *c;
    size_t i;

    json_array_foreach(list, i, c) {
        const char *outcome = text_of(c, "outcome");

        if (strcmp(outcome, "silent") == 0)
            continue;
        buf_printf(p->b, "  %s ", strcmp(outcome, "forbids") == 0 ? p->no : p->yes);
        buf_printf(p->b, "%s: %s", text_of(c, "clause"), text_of(c, "asks"));
        add_seconds(p->b, c, "is_s", " ");
        add_seconds(p->b, c, "limit_s", json_object_get(c, "is_s") != NULL ? " of " : " ");
        if (text_of(c, "source")[0] != '\0')
            buf_printf(p->b, " (%s)", text_of(c, "source"));
        buf_addc(p->b, '\n');
    }
}

static void
fields(struct page *p, const json_t *o)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)o, name, value)
        line(p, name, json_string_value(value) != NULL ? json_string_value(value) : "");
}

static void
put_list(struct page *p, const char *name, const json_t *list)
{
    const json_t *s;
    size_t i;

    if (json_array_size(list) == 0)
        return;
    buf_printf(p->b, "  %s:", name);
    json_array_foreach(list, i, s) {
        buf_addc(p->b, ' ');
        client_plain(p->b, json_string_value(s));
    }
    buf_addc(p->b, '\n');
}

/* ---- the sections ---------------------------------------------------------------------------- */

static void
put_routes(struct page *p, const json_t *doc)
{
    static const struct { const char *word, *text; } outcomes[] = {
        { "method", "does not take the method" },
        { "fields", "asks for fields that the request lacks" },
        { "host", "is for other hosts" },
        { "behind", "would take it, and comes later" },
    };
    const json_t *route = json_object_get(doc, "route"), *c;
    size_t i;

    section(p, "Route");
    if (json_is_object(route))
        buf_printf(p->b, "  %s %s (line %lld), policy %s, origin %s\n", p->yes,
            text_of(route, "name"), (long long)json_integer_value(json_object_get(route, "line")),
            text_of(route, "policy"), text_of(route, "origin"));
    else
        buf_printf(p->b, "  %s none takes it\n", p->no);
    json_array_foreach(json_object_get(doc, "routes"), i, c)
        for (size_t k = 0; k < NELEM(outcomes); k++)
            if (strcmp(text_of(c, "outcome"), outcomes[k].word) == 0)
                buf_printf(p->b, "  - %s (line %lld) %s\n", text_of(c, "name"),
                    (long long)json_integer_value(json_object_get(c, "line")), outcomes[k].text);
}

static void
put_plugins(struct page *p, const json_t *o)
{
    if (!json_is_object(o))
        return;
    section(p, "Plugins");
    put_list(p, "asked", json_object_get(o, "asked"));
    put_list(p, "tags", json_object_get(o, "tags"));
    if (json_is_true(json_object_get(o, "authorized")))
        buf_printf(p->b, "  %s what depends on Authorization is among the key's parts\n", p->yes);
}

static void
put_key(struct page *p, const json_t *doc)
{
    const json_t *key = json_object_get(doc, "key"), *part;
    size_t i;

    if (!json_is_string(key))
        return;
    section(p, "Key");
    buf_addz(p->b, "  ");
    for (const char *s = json_string_value(key); *s != '\0'; s++)    /* up to the parts */
        buf_addc(p->b, *s);
    buf_addc(p->b, '\n');
    json_array_foreach(json_object_get(doc, "key_parts"), i, part) {
        const char *value = json_string_value(json_object_get(part, "value"));

        line(p, text_of(part, "part"), value != NULL ? value : "(absent)");
    }
}

static void
put_varies(struct page *p, const json_t *list)
{
    const json_t *v;
    size_t i;

    json_array_foreach(list, i, v) {
        const char *was = json_string_value(json_object_get(v, "stored"));
        const char *is = json_string_value(json_object_get(v, "asked"));

        buf_printf(p->b, "  %s varies by %s: ", json_is_true(json_object_get(v, "same")) ? p->yes :
            p->no, text_of(v, "field"));
        client_plain(p->b, was != NULL ? was : "(absent)");
        buf_addz(p->b, " stored, ");
        client_plain(p->b, is != NULL ? is : "(absent)");
        buf_addz(p->b, " asked\n");
    }
}

static void
put_variant(struct page *p, const json_t *o)
{
    buf_printf(p->b, "\nStored%s: %lld, %lld bytes, ",
        json_is_true(json_object_get(o, "selected")) ? ", selected" : ", another variant",
        (long long)json_integer_value(json_object_get(o, "status")),
        (long long)json_integer_value(json_object_get(o, "body_bytes")));
    add_seconds(p->b, o, "age_s", "age ");
    add_seconds(p->b, o, "lifetime_s", ", lifetime ");
    buf_printf(p->b, " from %s\n", text_of(o, "lifetime_from")[0] != '\0' ?
        text_of(o, "lifetime_from") : text_of(o, "freshness_from"));
    fields(p, json_object_get(o, "fields"));
    put_list(p, "codings", json_object_get(o, "codings"));
    put_list(p, "tags", json_object_get(o, "tags"));
    put_list(p, "groups", json_object_get(o, "groups"));
    put_varies(p, json_object_get(o, "varies"));
    clauses(p, json_object_get(o, "clauses"));
    buf_printf(p->b, "  %s served if the origin fails\n",
        json_is_true(json_object_get(o, "served_if_origin_fails")) ? p->yes : p->no);
}

static void
put_refused(struct page *p, const json_t *o)
{
    if (!json_is_object(o))
        return;
    buf_printf(p->b, "\nThe last answer was not stored: %lld, %s, ",
        (long long)json_integer_value(json_object_get(o, "status")), text_of(o, "why"));
    add_seconds(p->b, o, "age_s", "");
    buf_addz(p->b, " ago\n");
    fields(p, json_object_get(o, "fields"));
    clauses(p, json_object_get(o, "clauses"));
}

static void
put_write(struct page *p, const json_t *o)
{
    const json_t *purge, *value;
    const char *kind;
    size_t i;

    if (!json_is_object(o))
        return;
    section(p, "Write");
    line(p, "course", text_of(o, "course"));
    line(p, "Idempotency-Key", text_of(o, "idempotency_key"));
    section(p, strcmp(text_of(o, "purge_on"), "any") == 0 ? "Any answer purges" :
        "A success (2xx, 3xx, or no answer) purges");
    json_array_foreach(json_object_get(o, "purges"), i, purge)
        json_object_foreach((json_t *)(uintptr_t)purge, kind, value)
            line(p, kind, json_string_value(value));
    put_list(p, "and what these of the answer name", json_object_get(o, "told_by_the_answer"));
}

static void
put_blocks(struct page *p, const json_t *o)
{
    const json_t *block;
    size_t i;

    if (!json_is_object(o))
        return;
    buf_printf(p->b, "\nBlocks of %lld bytes%s\n",
        (long long)json_integer_value(json_object_get(o, "size")),
        json_is_true(json_object_get(o, "refused_lately")) ? ": were not to be had lately" : "");
    json_array_foreach(json_object_get(o, "wanted"), i, block)
        buf_printf(p->b, "  %s %lld: %s\n", json_is_true(json_object_get(block, "stored")) ?
            p->yes : p->no, (long long)json_integer_value(json_object_get(block, "block")),
            json_is_true(json_object_get(block, "stored")) ? text_of(block, "use") : "not stored");
}

static void
put_advice(struct page *p, const json_t *list)
{
    const json_t *a;
    size_t i;

    if (json_array_size(list) > 0)
        section(p, "What to change");
    json_array_foreach(list, i, a) {
        buf_addz(p->b, "  - ");
        client_plain(p->b, text_of(a, "text"));
        buf_addc(p->b, '\n');
    }
}

int
client_explain_page(struct slice text, struct buf *b)
{
    bool utf8 = speaks_utf8();
    struct page p = { b, utf8 ? "\u2714" : "ok", utf8 ? "\u2718" : "no" };
    json_t *doc = json_loadb(text.p, text.n, JSON_ALLOW_NUL, NULL);
    const json_t *request = json_object_get(doc, "request"), *o;
    size_t i;

    if (doc == NULL)
        return -1;
    client_plain(b, json_is_object(request) ? text_of(request, "method") : "GET");
    buf_addc(b, ' ');
    client_plain(b, text_of(doc, "url"));
    buf_printf(b, "\n%s: %s\n", text_of(json_object_get(doc, "verdict"), "outcome"),
        text_of(json_object_get(doc, "verdict"), "text"));
    put_routes(&p, doc);
    put_plugins(&p, json_object_get(doc, "plugins"));
    put_key(&p, doc);
    if (json_is_object(request)) {
        section(&p, "Request");
        clauses(&p, json_object_get(request, "clauses"));
    }
    put_write(&p, json_object_get(doc, "write"));
    json_array_foreach(json_object_get(doc, "stored"), i, o)
        put_variant(&p, o);
    if (json_is_true(json_object_get(doc, "asks_disk")))
        buf_addz(b, "\nThe disk tier is asked first\n");
    if (json_is_true(json_object_get(doc, "asks_redis")))
        buf_addz(b, "\nRedis is asked before the origin\n");
    put_blocks(&p, json_object_get(doc, "blocks"));
    put_refused(&p, json_object_get(doc, "last_refused"));
    put_advice(&p, json_object_get(doc, "advice"));
    json_decref(doc);
    return b->failed ? -1 : 0;
}
