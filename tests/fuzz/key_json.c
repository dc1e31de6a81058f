/*
 * The JSON path reader: the first line is a path, the rest a document.
 *
 * Held to: no read or write beyond what is there, values lie in order inside the text, and a
 * document that is taken for one path is taken for every path.
 */
#include "key/key.h"
#include "key/priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *line = size > 0 ? memchr(data, '\n', size) : NULL;
    struct slice text, document;
    struct json_path path, none = { .n = 0 };
    uint32_t ends[8];
    struct json_values v = { .ends = ends, .cap = NELEM(ends) };
    int rc;

    if (line == NULL)
        return 0;
    text = (struct slice){ (const char *)data, (size_t)(line - (const char *)data) };
    document = (struct slice){ line + 1, size - text.n - 1 };
    if (json_path_parse(text, &path) == -1)
        return 0;
    rc = json_find(document, &path, &v);
    assert(v.n <= v.cap);
    for (size_t i = 0, from = 0; i < v.n; from = ends[i++])
        assert(ends[i] >= from && ends[i] <= v.text.n);
    v.n = v.text.n = 0;
    v.over = false;
    assert(json_find(document, &none, &v) == rc);
    buf_free(&v.text);
    return 0;
}
