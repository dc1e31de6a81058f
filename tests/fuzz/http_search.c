/*
 * No-Vary-Search: a line of the field, then a query. What a rule makes of a query it leaves as it is, and
 * without the order of parameters it is the same from behind.
 */
#include "http/http.h"
#include "require.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
judge(struct slice rule, struct slice query)
{
    struct buf a = { 0 }, b = { 0 };

    require(http_search_query(rule, query, &a) == 0);
    require(http_search_query(rule, buf_slice(&a), &b) == 0);
    require(slice_eq(buf_slice(&a), buf_slice(&b)));
    for (size_t i = 0; i < a.n; i++)
        require(a.p[i] > ' ' && a.p[i] < 127 && a.p[i] != '?' && a.p[i] != '#');
    b.n = 0;
    buf_addz(&b, "&&");                 /* empty ones count for nothing */
    buf_adds(&b, query);
    a.n = 0;
    require(http_search_query(rule, buf_slice(&b), &a) == 0);
    b.n = 0;
    require(http_search_query(rule, query, &b) == 0);
    require(slice_eq(buf_slice(&a), buf_slice(&b)));
    buf_free(&a);
    buf_free(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *end = size > 0 ? memchr(text, '\n', size) : NULL;
    struct http_field fields[2];
    struct http_head h = { .fields = fields, .cap = 2 };
    struct buf line = { 0 }, rule = { 0 }, same = { 0 };

    if (end == NULL || size > 65536)
        return 0;
    buf_addz(&line, "No-Vary-Search: ");
    buf_add(&line, text, (size_t)(end - text));
    buf_addz(&line, "\r\n");
    if (http_parse_fields(line.p, line.n, &h) == 0 && http_search_rule(&h, &rule) == 1) {
        require(rule.n >= 2 && http_search_rule(&h, &same) == 1);
        require(slice_eq(buf_slice(&rule), buf_slice(&same)));
        judge(buf_slice(&rule), (struct slice){ end + 1, size - (size_t)(end + 1 - text) });
    }
    buf_free(&line);
    buf_free(&rule);
    buf_free(&same);
    return 0;
}
