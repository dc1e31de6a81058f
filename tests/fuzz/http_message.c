/*
 * Heads. A head that is accepted is written out again and must be accepted alike; a prefix of an
 * accepted head asks for more; what refuses a head refuses it, with the same status, from some
 * byte on and ever after. Every slice lies inside the input. What is said to be in normal form is
 * what normalising leaves as it is.
 */
#include "http/http.h"
#include "require.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef ssize_t parser(const char *, size_t, const struct http_limits *, struct http_head *,
    struct http_fault *);

static const struct http_limits limits[] = { { 16384, 8192, 100 }, { 80, 20, 3 } };

static void
inside(struct slice s, const char *p, size_t n)
{
    require(s.n == 0 || (s.p >= p && s.p + s.n <= p + n) || (s.n == 1 && (*s.p == '/' || *s.p == '*')));
}

static bool
same(const struct http_head *a, const struct http_head *b)
{
    if (a->nfields != b->nfields || a->flags != b->flags || a->normal != b->normal ||
        a->framing != b->framing || a->length != b->length || a->minor != b->minor || a->have[0] != b->have[0] ||
        a->have[1] != b->have[1] || a->status != b->status || !slice_eq(a->host, b->host) ||
        !slice_eq(a->path, b->path) || !slice_eq(a->query, b->query) || !slice_eq(a->reason, b->reason))
        return false;
    for (unsigned i = 0; i < a->nfields; i++)
        if (a->fields[i].id != b->fields[i].id || !slice_eq(a->fields[i].name, b->fields[i].name) ||
            !slice_eq(a->fields[i].value, b->fields[i].value))
            return false;
    return true;
}

static void
written_out_it_reads_the_same(parser *parse, const struct http_head *h)
{
    static struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head again = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct http_limits l = { 1 << 20, 1 << 20, HTTP_FIELDS_MAX };
    struct http_fault f;
    struct buf b = { 0 };

    if (h->status != 0)
        buf_printf(&b, "HTTP/1.%d %u %.*s\r\n", h->minor, h->status, SLICE_ARG(h->reason));
    else
        buf_printf(&b, "%.*s %.*s HTTP/1.%d\r\n", SLICE_ARG(h->method_name), SLICE_ARG(h->target), h->minor);
    for (unsigned i = 0; i < h->nfields; i++) {
        require(http_is_token(h->fields[i].name) && http_is_field_value(h->fields[i].value));
        require(http_id(h->fields[i].name) == h->fields[i].id);
        http_put(&b, h->fields[i].name, h->fields[i].value);
    }
    buf_addz(&b, "\r\n");
    require(parse(b.p, b.n, &l, &again, &f) == (ssize_t)b.n);
    require(same(h, &again));
    buf_free(&b);
}

static void
normal_is_what_normalising_leaves(const struct http_head *h)
{
    struct buf b = { 0 };

    for (int https = 0; https < 2; https++) {
        b.n = 0;
        http_host_normalise(&b, h->host, https);
        require(slice_eq(buf_slice(&b), h->host));
    }
    b.n = 0;
    http_uri_normalise(&b, h->path, h->query);
    require(slice_eq(buf_slice(&b), h->target));
    buf_free(&b);
}

static void
one(parser *parse, const char *p, size_t n, const struct http_limits *l)
{
    static struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct http_fault f = { 0, NULL }, g;
    ssize_t whole = parse(p, n, l, &h, &f);

    require(whole >= -1 && whole <= (ssize_t)n && (whole != -1 || f.status >= 400));
    if (whole > 0) {
        for (unsigned i = 0; i < h.nfields; i++) {
            inside(h.fields[i].name, p, n);
            inside(h.fields[i].value, p, n);
        }
        inside(h.target, p, n);
        inside(h.host, p, n);
        inside(h.path, p, n);
        inside(h.query, p, n);
        require(h.framing != HTTP_CHUNKED || !http_has(&h, HF_CONTENT_LENGTH));
        require(h.status != 0 || h.host.n == 0 || http_is_host(h.host));
        written_out_it_reads_the_same(parse, &h);
        if (h.normal)
            normal_is_what_normalising_leaves(&h);
        if (h.status != 0)
            http_response_framing(&h, HTTP_GET, &g);
    }
    for (size_t i = 0, refused = 0; i < n && i < 512; i++) {
        char *piece = malloc(i > 0 ? i : 1);
        ssize_t r;

        require(piece != NULL);
        memcpy(piece, p, i);
        r = parse(piece, i, l, &h, &g);
        free(piece);
        if (r == -1)
            require(whole == -1 && g.status == f.status);
        else
            require(!refused && (r == 0 ? whole <= 0 || (ssize_t)i < whole : r == whole));
        refused |= r == -1;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < NELEM(limits); i++) {
        one(http_parse_request, (const char *)data, size, &limits[i]);
        one(http_parse_response, (const char *)data, size, &limits[i]);
    }
    return 0;
}
