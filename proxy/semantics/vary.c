/*
 * Vary: which fields of a request select among variants, and their values in one form
 * (RFC 9111 4.1).
 *
 * Model    the response's list becomes canonical once; the values of a request for that list are
 *          then one run of bytes to compare. White space and empty members of a list, and how it is
 *          spread over lines, are no difference (RFC 9110 5.3, 5.6.1); everything else is.
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

/* All lines of one field as one list; its length goes in front once it is known, in a fixed width
 * so that nothing moves. */
static void
add_values(struct slice name, const struct http_head *request, struct buf *b)
{
    enum http_id id = http_id(name);
    size_t length_at = b->n, start;
    bool present = false;
    uint32_t length;

    buf_add(b, "\0\0\0\0", 4);
    start = b->n;
    for (unsigned i = 0; i < request->nfields; i++) {
        const struct http_field *f = &request->fields[i];
        struct slice rest = f->value, member;

        if (f->id != id || (id == HF_NONE && !slice_ieq(f->name, name)))
            continue;
        present = true;
        while (http_member(&rest, &member)) {
            if (b->n > start)
                buf_addc(b, ',');
            buf_adds(b, member);
        }
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
