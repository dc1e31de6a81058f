/*
 * The key of all queries that a response says are one (No-Vary-Search): the URL with the query that
 * the rule makes of it, the parts of the recipe, and the rule as a part.
 *
 * Model    a function of key and rule alone, so that who looks it up needs to know no more than
 *          the rules of a path. The query is the key's: what a route leaves out of keys is left
 *          out already.
 */
#include "key/key.h"

struct slice
key_path(struct slice url)
{
    const char *mark = memchr(url.p, '?', url.n);

    return mark != NULL ? (struct slice){ url.p, (size_t)(mark - url.p) } : url;
}

int
key_search_url(struct slice url, struct slice rule, struct buf *b)
{
    struct slice path = key_path(url), query = { url.p + path.n, url.n - path.n };
    size_t at;

    buf_adds(b, path);
    at = b->n;
    buf_addc(b, '?');
    if (query.n > 0)
        query = (struct slice){ query.p + 1, query.n - 1 };
    if (b->failed || http_search_query(rule, query, b) == -1)
        return -1;
    if (b->n == at + 1)
        b->n = at;
    return 0;
}

int
key_search(const struct key *k, struct slice rule, struct buf *b, struct key *search)
{
    struct slice url = { k->bytes.p, k->url_n };

    b->n = 0;
    if (key_search_url(url, rule, b) == -1 || b->n > UINT32_MAX)
        return -1;
    *search = (struct key){ .url_n = (uint32_t)b->n, .path_at = k->path_at,
        .url_hash = key_hash(buf_slice(b)) };
    buf_add(b, k->bytes.p + k->url_n, k->bytes.n - k->url_n);
    return b->failed ? -1 : key_add(search, 'S', rule, b);
}
