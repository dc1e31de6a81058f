/*
 * Finding fields, and walking comma-separated lists (RFC 9110 5.6.1).
 */
#include "http/http.h"

const struct http_field *
http_find(const struct http_head *h, enum http_id id)
{
    if (!http_has(h, id))
        return NULL;
    for (unsigned i = 0; i < h->nfields; i++)
        if (h->fields[i].id == id)
            return &h->fields[i];
    return NULL;
}

const struct http_field *
http_find_name(const struct http_head *h, struct slice name)
{
    enum http_id id = http_id(name);

    if (id != HF_NONE)
        return http_find(h, id);
    for (unsigned i = 0; i < h->nfields; i++)
        if (h->fields[i].id == HF_NONE && slice_ieq(h->fields[i].name, name))
            return &h->fields[i];
    return NULL;
}

struct slice
http_value(const struct http_head *h, enum http_id id)
{
    const struct http_field *f = http_find(h, id);

    return f != NULL ? f->value : (struct slice){ NULL, 0 };
}

struct slice
http_only(const struct http_head *h, enum http_id id)
{
    const struct http_field *f = http_find(h, id);

    for (const struct http_field *g = f; f != NULL && ++g < h->fields + h->nfields;)
        if (g->id == id)
            return (struct slice){ NULL, 0 };
    return f != NULL ? f->value : (struct slice){ NULL, 0 };
}

/* Behind the quoted string that begins at p, or end when it does not end. */
static const char *
quoted_end(const char *p, const char *end)
{
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return end;
}

bool
http_member(struct slice *rest, struct slice *member)
{
    const char *p = rest->p, *end, *start;

    if (rest->n == 0)
        return false;
    for (end = p + rest->n; p < end;) {
        start = p;
        while (p < end && *p != ',')
            p = *p == '"' ? quoted_end(p, end) : p + 1;
        *member = slice_trim((struct slice){ start, (size_t)(p - start) });
        if (p < end)
            p++;
        if (member->n > 0) {
            *rest = (struct slice){ p, (size_t)(end - p) };
            return true;
        }
    }
    *rest = (struct slice){ NULL, 0 };
    return false;
}

bool
http_list_next(const struct http_head *h, enum http_id id, struct http_list *it,
    struct slice *member)
{
    if (!http_has(h, id))
        return false;
    for (; it->field < h->nfields; it->field++) {
        if (!it->open) {
            if (h->fields[it->field].id != id)
                continue;
            it->rest = h->fields[it->field].value;
            it->open = true;
        }
        if (http_member(&it->rest, member))
            return true;
        it->open = false;
    }
    return false;
}

bool
http_list_has(const struct http_head *h, enum http_id id, struct slice token)
{
    struct http_list it = { 0 };
    struct slice member;

    while (http_list_next(h, id, &it, &member))
        if (slice_ieq(member, token))
            return true;
    return false;
}

/* preference = token [ BWS "=" BWS word ] *( OWS ";" [ OWS parameter ] ); an empty value is none
 * (RFC 7240 2). The name comes before anything that could be quoted. */
bool
http_prefers(const struct http_head *h, struct slice preference)
{
    struct http_list it = { 0 };
    struct slice member;

    while (http_list_next(h, HF_PREFER, &it, &member)) {
        struct slice name = { member.p, 0 }, value;

        while (name.n < member.n && member.p[name.n] != ';' && member.p[name.n] != '=')
            name.n++;
        if (!slice_ieq(slice_trim(name), preference))
            continue;
        value = (struct slice){ member.p + name.n, member.n - name.n };
        if (value.n == 0 || value.p[0] == ';')
            return true;
        value = slice_trim((struct slice){ value.p + 1, value.n - 1 });
        if (slice_starts(value, SLICE("\"\"")))
            value = slice_trim((struct slice){ value.p + 2, value.n - 2 });
        return value.n == 0 || value.p[0] == ';';
    }
    return false;
}
