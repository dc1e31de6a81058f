/*
 * Tags from JSON: the first line has pointers, with spaces between; the rest is the body.
 *
 * Held to: no read or write beyond what is there, each tag begins with the prefix of one of the
 * pointers and its value is short, and a body that jansson reads is none that is refused.
 */
#include "plugin_kit.h"

#include <jansson.h>

#define POINTERS 8

static size_t
read_pointers(struct slice line, char *bytes, struct weir_text *at)
{
    struct slice one;
    size_t n = 0;

    while (n < POINTERS && slice_cut(&line, ' ', &one)) {
        memcpy(bytes, one.p, one.n);
        bytes[one.n] = '\0';
        if (memchr(bytes, '\0', one.n) == NULL)         /* as a configuration can have it */
            at[n++] = (struct weir_text){ bytes, one.n };
        bytes += one.n + 1;
    }
    return n;
}

static bool
has_prefix(const struct weir_text *at, size_t n, struct slice tag)
{
    for (size_t i = 0; i < n; i++) {
        const char *mark = memchr(at[i].p, '#', at[i].n);
        struct slice prefix = { at[i].p, mark != NULL ? (size_t)(mark - at[i].p) : 0 };

        if (slice_starts(tag, prefix) && tag.n > prefix.n && tag.n <= prefix.n + 256)
            return true;
    }
    return false;
}

/* Is it JSON by another reader, and not too deep for this one? To jansson a NUL is an end. */
static bool
is_plain(struct slice body)
{
    json_t *doc = json_loadb(body.p != NULL ? body.p : "", body.n, JSON_DECODE_ANY, NULL);
    unsigned depth = 0, most = 0;

    for (size_t i = 0; i < body.n; i++) {
        depth += body.p[i] == '[' || body.p[i] == '{';
        most = depth > most ? depth : most;
    }
    json_decref(doc);
    return doc != NULL && most < 64 && memchr(body.p, '\0', body.n) == NULL;
}

static void
run(const struct weir_text *at, size_t n, struct slice body)
{
    const struct weir_value values[] = { { .set = 1, .texts = at, .ntexts = n },
        { .set = 1, .number = 1 } };            /* required: what gives no tag is not stored */
    struct pool *p = pool_new();
    struct weir_request *r;
    struct kit k;

    if (kit_open(&k, "json_tags", NULL, values)) {
        r = plugin_request(k.uses, p);
        r->body = body;
        require(plugin_run(r, HOOK_STORE) == PLUGIN_NEXT);
        for (const struct plugin_text *t = r->tags.first; t != NULL; t = t->next)
            require(has_prefix(at, n, t->text));
        require(r->tags.n > 0 || r->no_store);
        if (is_plain(body) && r->tags.n > 0 && r->tags.n < 200)
            require(!r->no_store);
        plugin_end(r);
        kit_close(&k);
    }
    pool_free(&p);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *line = size > 0 ? memchr(data, '\n', size) : NULL;
    struct weir_text at[POINTERS];
    struct slice pointers, body;
    char bytes[2048];

    if (line == NULL || line - (const char *)data >= 2000)
        return 0;
    pointers = (struct slice){ (const char *)data, (size_t)(line - (const char *)data) };
    body = (struct slice){ line + 1, size - pointers.n - 1 };
    run(at, read_pointers(pointers, bytes, at), body);
    return 0;
}
