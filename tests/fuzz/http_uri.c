/*
 * URIs. Normalising what is valid changes nothing the second time and leaves no dot segment, and
 * never a printable character that stands in no URI; a
 * resolved reference is an absolute URI that resolves to itself; decoding never makes longer.
 */
#include "http/http.h"
#include "require.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
escapes_are_good(struct slice s)
{
    struct buf b = { 0 };
    bool good = http_uri_decode(&b, s) == 0;

    require(b.n <= s.n);
    buf_free(&b);
    return good;
}

static void
split(struct slice s, struct slice *path, struct slice *query)
{
    *query = s;
    slice_cut(query, '?', path);
}

static void
normalised(struct slice s)
{
    struct slice path, query, segment;
    struct buf once = { 0 }, twice = { 0 };

    split(s, &path, &query);
    http_uri_normalise(&once, path, query);
    require(once.n > 0 && once.n <= s.n * 3 + 1);
    for (size_t i = 0; i < once.n; i++)
        require(strchr("\"<>\\^`{|}", once.p[i]) == NULL || once.p[i] == '\0');
    if (escapes_are_good(s)) {
        split(buf_slice(&once), &path, &query);
        http_uri_normalise(&twice, path, query);
        require(slice_eq(buf_slice(&once), buf_slice(&twice)));
        if (*path.p == '/')
            while (slice_cut(&path, '/', &segment))
                require(!slice_eq(segment, SLICE(".")) && !slice_eq(segment, SLICE("..")));
    }
    buf_free(&once);
    buf_free(&twice);
}

static void
host(struct slice s)
{
    struct buf once = { 0 }, twice = { 0 };

    if (!http_is_host(s))
        return;
    for (int https = 0; https < 2; https++) {
        once.n = twice.n = 0;
        http_host_normalise(&once, s, https);
        require(http_is_host(buf_slice(&once)));
        http_host_normalise(&twice, buf_slice(&once), https);
        require(slice_eq(buf_slice(&once), buf_slice(&twice)));
    }
    buf_free(&once);
    buf_free(&twice);
}

static void
resolved(struct slice base_text, struct slice ref)
{
    struct buf once = { 0 }, twice = { 0 };
    struct http_uri base, u;

    if (http_uri_parse(base_text, &base) == -1)
        require(http_uri_parse(SLICE("http://a/b/c/d;p?q"), &base) == 0);
    if (http_uri_resolve(&once, &base, ref) == 0) {
        require(http_uri_parse(buf_slice(&once), &u) == 0);
        require(http_uri_resolve(&twice, &base, buf_slice(&once)) == 0);
        require(slice_eq(buf_slice(&once), buf_slice(&twice)));
    } else {
        require(once.n == 0);
    }
    buf_free(&once);
    buf_free(&twice);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice s = { (const char *)data, size }, first;

    normalised(s);
    host(s);
    resolved(s, s);
    if (slice_cut(&s, '\n', &first) && s.p != NULL)
        resolved(first, s);
    return 0;
}
