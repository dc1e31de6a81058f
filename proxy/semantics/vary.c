/*
 * Vary: which fields of a request select among variants, and their values in one form
 * (RFC 9111 4.1).
 *
 * Model    the response's list becomes canonical once; the values of a request for that list are
 *          then one run of bytes to compare, a value after the other, each behind its length. How a
 *          value is spread over lines and the white space around it are no difference (RFC 9110
 *          5.3, 5.5). Beyond that, by what is known of the field:
 *            - content negotiation: by its grammar (accept.c);
 *            - known to be a list: nor are white space between members and empty ones (5.6.1);
 *            - known to be none, Cookie above all: each of its bytes may mean something;
 *            - unknown: whoever passes a field on may part what was lines by a comma with or
 *              without white space (5.3), so white space beside a comma is no difference. An empty
 *              member is: it may have a place. In a quoted string all is content (5.6.4).
 *          Between a stored variant and another, accept.c may still see the language preferred.
 * Threads  pure functions.
 */
#include "semantics/priv.h"

#include <endian.h>

/* No useful response varies on more; each name costs a pass over the fields of every request. */
#define NAMES_MAX 64

static int
name_order(struct slice a, struct slice b)
{
    int c = strncasecmp(a.p, b.p, a.n < b.n ? a.n : b.n);

    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

/* Puts name into its place among n, once. The new n. */
static size_t
insert_name(struct slice *names, size_t n, struct slice name)
{
    size_t at = n;

    while (at > 0 && name_order(names[at - 1], name) > 0)
        at--;
    if (at > 0 && name_order(names[at - 1], name) == 0)
        return n;
    memmove(&names[at + 1], &names[at], (n - at) * sizeof *names);
    names[at] = name;
    return n + 1;
}

bool
sem_vary(const struct http_head *response, struct buf *b)
{
    struct http_list it = { 0 };
    struct slice names[NAMES_MAX + 1], member;
    size_t n = 0;

    while (http_list_next(response, HF_VARY, &it, &member)) {
        /* "*" is itself a token: it is caught first, alone or beside others. */
        if (slice_eq(member, SLICE("*")) || !http_is_token(member))
            return false;
        n = insert_name(names, n, member);
        if (n > NAMES_MAX)
            return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_addc(b, ',');
        buf_addlower(b, names[i]);
    }
    return true;
}

/* Fields of requests that are defined as lists (RFC 9110 5.6.1). */
static bool
is_list(enum http_id id)
{
    switch (id) {
    case HF_ACCEPT:
    case HF_ACCEPT_ENCODING:
    case HF_ACCEPT_LANGUAGE:
    case HF_CACHE_CONTROL:
    case HF_CDN_LOOP:
    case HF_FORWARDED:
    case HF_IF_MATCH:
    case HF_IF_NONE_MATCH:
    case HF_PRAGMA:
    case HF_PREFER:
    case HF_VIA:
    case HF_X_FORWARDED_FOR:
        return true;
    default:
        return false;
    }
}

/* The lines of one field, in their order. */
static bool
next_line(const struct http_head *request, enum http_id id, struct slice name, unsigned *at,
    struct slice *value)
{
    while (*at < request->nfields) {
        const struct http_field *f = &request->fields[(*at)++];

        if (f->id == id && (id != HF_NONE || slice_ieq(f->name, name))) {
            *value = f->value;
            return true;
        }
    }
    return false;
}

/* Takes white space beside commas, outside quoted strings, out of what stands from `start` on. A
 * quoted string that does not end leaves all as it is: nothing tells what is inside. */
static void
tighten(struct buf *b, size_t start)
{
    bool quoted = false;
    size_t to = start;

    for (size_t i = start; i < b->n; i++) {
        if (quoted && b->p[i] == '\\')
            i++;
        else if (b->p[i] == '"')
            quoted = !quoted;
    }
    if (quoted)
        return;
    for (size_t i = start; i < b->n; i++) {
        char c = b->p[i];

        if (!quoted && c == ',')
            while (to > start && (b->p[to - 1] == ' ' || b->p[to - 1] == '\t'))
                to--;
        if (!quoted && (c == ' ' || c == '\t') && to > start && b->p[to - 1] == ',')
            continue;
        b->p[to++] = c;
        if (quoted && c == '\\' && i + 1 < b->n)
            b->p[to++] = b->p[++i];
        else if (c == '"')
            quoted = !quoted;
    }
    b->n = to;
}

static void
add_list(struct slice name, enum http_id id, const struct http_head *request, struct buf *b)
{
    size_t start = b->n;
    struct slice value, member;

    for (unsigned at = 0; next_line(request, id, name, &at, &value);)
        while (http_member(&value, &member)) {
            if (b->n > start)
                buf_addc(b, ',');
            buf_adds(b, member);
        }
}

static void
add_bytes(struct slice name, enum http_id id, const struct http_head *request, struct buf *b)
{
    size_t start = b->n;
    struct slice value;
    bool first = true;

    for (unsigned at = 0; next_line(request, id, name, &at, &value); first = false) {
        if (!first)
            buf_addz(b, ", ");
        buf_adds(b, slice_trim(value));
    }
    if (id == HF_NONE && !b->failed)
        tighten(b, start);
}

/* Does a quoted string run on into the next line? The lines are one value then (RFC 9110 5.3), and
 * their members are not those of each. */
static bool
runs_on(struct slice name, enum http_id id, const struct http_head *request)
{
    struct slice value;

    for (unsigned at = 0; next_line(request, id, name, &at, &value);)
        if (UNLIKELY(memchr(value.p, '"', value.n) != NULL && sem_unended(value)))
            return true;
    return false;
}

static void
add_value(struct slice name, enum http_id id, const struct http_head *request, struct buf *b)
{
    bool weighed = id == HF_ACCEPT || id == HF_ACCEPT_ENCODING || id == HF_ACCEPT_LANGUAGE;

    if (weighed && accept_put(id, request, b))
        return;
    if (is_list(id) && !runs_on(name, id, request))
        add_list(name, id, request, b);
    else
        add_bytes(name, id, request, b);
}

/* All lines of one field as one value; its length goes in front once it is known, in a fixed width
 * so that nothing moves, and little-endian, since machines share values (tier/). */
static void
add_values(struct slice name, const struct http_head *request, struct buf *b)
{
    enum http_id id = http_id(name);
    struct slice value;
    size_t length_at = b->n, start;
    unsigned at = 0;
    uint32_t length = UINT32_MAX;       /* absent is not empty */

    buf_add(b, "\0\0\0\0", 4);
    start = b->n;
    if (next_line(request, id, name, &at, &value)) {
        add_value(name, id, request, b);
        length = htole32((uint32_t)(b->n - start));
    }
    if (!b->failed)
        memcpy(b->p + length_at, &length, sizeof length);
}

void
sem_variant(struct slice vary, const struct http_head *request, struct buf *b)
{
    struct slice rest = vary, name;

    if (vary.n == 0)
        return;
    while (slice_cut(&rest, ',', &name))
        add_values(name, request, b);
}

/* ---- a variant of another's --------------------------------------------------------------- */

#define BY_LANGUAGE SLICE("accept-language")

bool
sem_by_language(struct slice vary)
{
    struct slice rest = vary, name;

    while (slice_cut(&rest, ',', &name))
        if (slice_eq(name, BY_LANGUAGE))
            return true;
    return false;
}

/* The next value of a variant, with its length before it as `whole`. An absent one has no bytes and
 * .p == NULL. */
static struct slice
next_value(struct slice *variant, struct slice *whole)
{
    struct slice value = { NULL, 0 };
    uint32_t n;

    assert(variant->n >= sizeof n);
    memcpy(&n, variant->p, sizeof n);
    n = le32toh(n);
    if (n != UINT32_MAX)
        value = (struct slice){ variant->p + sizeof n, n };
    assert(value.n <= variant->n - sizeof n);
    *whole = (struct slice){ variant->p, sizeof n + value.n };
    variant->p += whole->n;
    variant->n -= whole->n;
    return value;
}

bool
sem_variant_next(struct slice *vary, struct slice *variant, struct slice *name,
    struct slice *value)
{
    struct slice whole;

    if (vary->n == 0 || variant->n == 0 || !slice_cut(vary, ',', name))
        return false;
    *value = next_value(variant, &whole);
    return true;
}

bool
sem_language_selects(struct slice vary, struct slice stored, struct slice asked,
    struct slice language)
{
    struct slice rest = vary, name, a, b;
    bool preferred = false;

    while (slice_cut(&rest, ',', &name)) {
        struct slice value = next_value(&asked, &a);

        next_value(&stored, &b);
        if (slice_eq(name, BY_LANGUAGE))
            preferred = accept_prefers(value, language);
        else if (!slice_eq(a, b))
            return false;
    }
    return preferred;
}
