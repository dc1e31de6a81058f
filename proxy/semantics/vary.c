/*
 * Vary: which fields of a request select among variants, and their values in one form
 * (RFC 9111 4.1).
 *
 * Model    the response's list becomes canonical once; the values of a request for that list are
 *          then one run of bytes to compare. How a value is spread over lines and the white space
 *          around it are no difference (RFC 9110 5.3, 5.5). In a field that is known to be a list,
 *          white space between its members and empty ones are none either (5.6.1). Everything else
 *          is: what is unknown, Cookie above all, may mean something by each of its bytes.
 * Threads  pure functions.
 * Not here orders and weights of Accept fields, which 4.1 lets a cache know but does not ask for.
 */
#include "semantics/semantics.h"

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
        for (size_t j = 0; j < names[i].n; j++) {
            char c = names[i].p[j];

            buf_addc(b, c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c);
        }
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

/* One line of a field, behind those before it. */
static void
add_line(struct buf *b, size_t start, bool list, bool first, struct slice value)
{
    struct slice member;

    if (!list) {
        if (!first)
            buf_addz(b, ", ");
        buf_adds(b, slice_trim(value));
        return;
    }
    while (http_member(&value, &member)) {
        if (b->n > start)
            buf_addc(b, ',');
        buf_adds(b, member);
    }
}

/* All lines of one field as one value; its length goes in front once it is known, in a fixed width
 * so that nothing moves. */
static void
add_values(struct slice name, const struct http_head *request, struct buf *b)
{
    enum http_id id = http_id(name);
    size_t length_at = b->n, start;
    bool present = false, list = is_list(id);
    uint32_t length;

    buf_add(b, "\0\0\0\0", 4);
    start = b->n;
    for (unsigned i = 0; i < request->nfields; i++) {
        const struct http_field *f = &request->fields[i];

        if (f->id != id || (id == HF_NONE && !slice_ieq(f->name, name)))
            continue;
        add_line(b, start, list, !present, f->value);
        present = true;
    }
    if (b->failed)
        return;
    length = present ? (uint32_t)(b->n - start) : UINT32_MAX;   /* absent is not empty */
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
