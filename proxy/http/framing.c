/*
 * Where the body of a response ends (RFC 9112 6.3), and which fields cross a proxy (RFC 9110
 * 7.6.1).
 */
#include "http/scan.h"

/* All Content-Length values, over lines and lists, must be the same number. */
static int
content_length(const struct http_head *h, uint64_t *length, struct http_fault *f)
{
    bool seen = false;

    for (unsigned i = 0; i < h->nfields; i++) {
        struct slice rest = h->fields[i].value, part;
        uint64_t v;

        if (h->fields[i].id != HF_CONTENT_LENGTH)
            continue;
        while (slice_cut(&rest, ',', &part)) {
            if (!slice_u64(slice_trim(part), &v) || v > INT64_MAX)
                return fault(f, 502, "Content-Length is not a number");
            if (seen && v != *length)
                return fault(f, 502, "differing Content-Lengths");
            *length = v;
            seen = true;
        }
    }
    return 0;
}

static int
coding(const struct http_head *h, struct http_fault *f)
{
    bool seen = false;

    if (http_has(h, HF_CONTENT_LENGTH))
        return fault(f, 502, "Content-Length with Transfer-Encoding");
    if (h->minor == 0)
        return fault(f, 502, "Transfer-Encoding in HTTP/1.0");
    for (unsigned i = 0; i < h->nfields; i++) {
        if (h->fields[i].id != HF_TRANSFER_ENCODING)
            continue;
        if (seen || !slice_ieq(h->fields[i].value, SLICE("chunked")))
            return fault(f, 502, "Transfer-Encoding is not exactly chunked");
        seen = true;
    }
    return 0;
}

int
http_response_framing(struct http_head *h, enum http_method method, struct http_fault *f)
{
    bool length = http_has(h, HF_CONTENT_LENGTH), te = http_has(h, HF_TRANSFER_ENCODING);
    bool bodiless = h->status < 200 || h->status == 204;
    uint64_t n = 0;

    if (content_length(h, &n, f) == -1)
        return -1;
    h->length = te ? 0 : n;
    h->framing = HTTP_NO_BODY;
    if (bodiless || h->status == 304 || method == HTTP_HEAD) {
        /* Where no body is allowed at all, one that is announced may come after all: what follows
         * on the connection is then no response, so it is not used again. */
        if (bodiless && (te || n > 0))
            h->flags |= HTTP_CLOSE;
        return 0;
    }
    if (te) {
        if (coding(h, f) == -1)
            return -1;
        h->framing = HTTP_CHUNKED;
    } else if (length) {
        h->framing = HTTP_LENGTH;
        h->length = n;
    } else {
        h->framing = HTTP_UNTIL_CLOSE;
        h->flags |= HTTP_CLOSE;
    }
    return 0;
}

bool
http_forwards(const struct http_head *h, const struct http_field *f)
{
    unsigned flags = http_flags(f->id);

    if (flags & HTTP_HOP)
        return false;
    if (flags & HTTP_KEEP)
        return true;
    return !http_list_has(h, HF_CONNECTION, f->name);
}

#define NAMED_MAX 32

/* The members of Connection that name fields, not options of the connection itself. -1: too
 * many. */
static int
named_fields(const struct http_head *h, struct slice named[NAMED_MAX])
{
    struct http_list it = { 0 };
    struct slice member;
    int n = 0;

    while (http_list_next(h, HF_CONNECTION, &it, &member)) {
        if (slice_ieq(member, SLICE("close")) || slice_ieq(member, SLICE("keep-alive")) ||
            (http_flags(http_id(member)) & (HTTP_HOP | HTTP_KEEP)) != 0)
            continue;
        if (n == NAMED_MAX)
            return -1;
        named[n++] = member;
    }
    return n;
}

static bool
is_named(const struct http_field *f, const struct slice *named, int n)
{
    for (int i = 0; i < n; i++)
        if (slice_ieq(f->name, named[i]))
            return true;
    return false;
}

bool
http_strip(struct http_head *h)
{
    struct slice named[NAMED_MAX];
    int n = named_fields(h, named);
    unsigned kept = 0;

    if (n <= 0)
        return n == 0;
    h->have[0] = h->have[1] = 0;
    for (unsigned i = 0; i < h->nfields; i++) {
        if (is_named(&h->fields[i], named, n))
            continue;
        h->fields[kept++] = h->fields[i];
        h->have[h->fields[i].id >> 6] |= 1ull << (h->fields[i].id & 63);
    }
    h->nfields = (uint16_t)kept;
    return true;
}
