/*
 * Accept, Accept-Encoding, Accept-Language and an unknown field: the first byte says which, the rest
 * is the value; what follows the first LF is a language.
 *
 * Held to: the form of a value has itself as its form, so that no two values meet in it that would
 * part again; the order of members makes no difference where there is a form; a language that
 * is preferred no longer is when it is forbidden as well; what a thread remembers of a value is what
 * it would make of it anew.
 */
#include "semantics/priv.h"
#include "require.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct { enum http_id id; struct slice name, vary; } kinds[] = {
    { HF_ACCEPT, { "Accept", 6 }, { "accept", 6 } },
    { HF_ACCEPT_ENCODING, { "Accept-Encoding", 15 }, { "accept-encoding", 15 } },
    { HF_ACCEPT_LANGUAGE, { "Accept-Language", 15 }, { "accept-language", 15 } },
    { HF_NONE, { "X-Own", 5 }, { "x-own", 5 } },
};

/* The form of one field with this value; the value behind its length. false: no field value. */
static bool
form(size_t kind, struct slice value, struct buf *out)
{
    struct http_field fields[4];
    struct http_head h = { .method = HTTP_GET, .cap = 4, .fields = fields };
    struct buf text = { 0 };
    bool ok;

    http_put(&text, kinds[kind].name, value);
    ok = http_is_field_value(value) && http_parse_fields(text.p, text.n, &h) == 0 && h.nfields == 1;
    if (ok)
        sem_variant(kinds[kind].vary, &h, out);
    buf_free(&text);
    return ok && !out->failed;
}

static void
check_order(size_t kind, struct slice value, struct slice formed)
{
    struct slice members[64], rest = value;
    struct buf turned = { 0 }, again = { 0 };
    size_t n = 0;

    while (n < NELEM(members) && http_member(&rest, &members[n]))
        n++;
    for (size_t i = n; i-- > 0;) {
        buf_adds(&turned, members[i]);
        if (i > 0)
            buf_addz(&turned, " ,\t");
    }
    if (rest.n == 0 && form(kind, buf_slice(&turned), &again))
        require(slice_eq(buf_slice(&again), formed));
    buf_free(&turned);
    buf_free(&again);
}

/* A second line that is empty adds nothing, and no such value is one that came before. */
static void
remembered_as_it_was_made(size_t kind, struct slice value)
{
    struct http_field field[2];
    struct http_head h = { .cap = 2, .fields = field };
    struct buf lines = { 0 }, one = { 0 }, two = { 0 };

    http_put(&lines, kinds[kind].name, value);
    if (kind < 3 && http_parse_fields(lines.p, lines.n, &h) == 0) {
        bool made = accept_put(kinds[kind].id, &h, &one);

        http_put(&lines, kinds[kind].name, SLICE(""));
        require(http_parse_fields(lines.p, lines.n, &h) == 0);
        require(accept_put(kinds[kind].id, &h, &two) == made);
        require(slice_eq(buf_slice(&one), buf_slice(&two)));
    }
    buf_free(&lines);
    buf_free(&one);
    buf_free(&two);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf one = { 0 }, two = { 0 }, fields = { 0 };
    struct slice value, language = { "de-AT", 5 }, formed;
    const char *gap;
    size_t kind;

    if (size == 0)
        return 0;
    kind = data[0] % NELEM(kinds);
    value = (struct slice){ (const char *)data + 1, size - 1 };
    if (value.n > 0 && (gap = memchr(value.p, '\n', value.n)) != NULL) {
        language = (struct slice){ gap + 1, (size_t)(value.p + value.n - gap - 1) };
        value.n = (size_t)(gap - value.p);
    }
    if (form(kind, value, &one)) {
        struct http_field field;
        struct http_head h = { .cap = 1, .fields = &field };

        remembered_as_it_was_made(kind, value);
        formed = (struct slice){ one.p + 4, one.n - 4 };
        require(form(kind, formed, &two) && slice_eq(buf_slice(&two), buf_slice(&one)));
        http_put(&fields, kinds[kind].name, value);
        two.n = 0;
        if (kind < 3 && http_parse_fields(fields.p, fields.n, &h) == 0 &&
            accept_put(kinds[kind].id, &h, &two))
            check_order(kind, value, buf_slice(&one));
        if (kind == 2 && accept_prefers(formed, language)) {
            two.n = 0;
            buf_adds(&two, formed);
            buf_addz(&two, slice_ieq(language, SLICE("x-a")) ? ",x-b" : ",x-a");
            require(!accept_prefers(buf_slice(&two), language));
        }
    }
    buf_free(&one);
    buf_free(&two);
    buf_free(&fields);
    return 0;
}
