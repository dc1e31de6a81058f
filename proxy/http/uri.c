/*
 * URIs (RFC 3986): parsing, resolving, normalising, decoding.
 *
 * Model    only what section 6.2.2 calls equivalent for every URI is made the same. In particular
 *          %2F is not "/", "//" is not "/", and a parameter's place matters.
 * Strays   " < > \ ^ ` { | } stand in no URI, but browsers and API clients send them as they are,
 *          and nginx, HAProxy, Varnish and Envoy let them pass. Their one valid spelling is the
 *          escape, so that is their normal form: the key and the origin get %7C for |. A backslash
 *          is thereby never taken for "/". [ and ] are reserved (2.2), where an escape is another
 *          thing: they stay. Controls, space, DEL, # and what is not ASCII are refused by the
 *          parser, as HAProxy and Envoy do.
 */
#include "http/scan.h"

static bool
is_dot(const char *p, size_t n)
{
    return n == 1 && p[0] == '.';
}

static bool
is_dot_dot(const char *p, size_t n)
{
    return n == 2 && p[0] == '.' && p[1] == '.';
}

/* Removes dot segments in place (5.2.4) from an absolute path; returns the new length. */
static size_t
remove_dots(char *path, size_t n)
{
    size_t out = 0, i = 0;

    while (i < n) {                     /* path[i] is the '/' before a segment */
        size_t start = i + 1, end = start;

        while (end < n && path[end] != '/')
            end++;
        if (is_dot(path + start, end - start) || is_dot_dot(path + start, end - start)) {
            if (end - start == 2)
                while (out > 0 && path[--out] != '/')
                    ;
            if (end == n)               /* the last segment leaves its '/' */
                path[out++] = '/';
        } else {
            memmove(path + out, path + i, end - i);
            out += end - i;
        }
        i = end;
    }
    return out;
}

static void
put_code(char *to, unsigned char c)
{
    static const char hex[] = "0123456789ABCDEF";

    to[0] = '%';
    to[1] = hex[c >> 4];
    to[2] = hex[c & 15];
}

/* The escape at p in its normal form: 6.2.2.1 and 6.2.2.2. How many bytes. */
static size_t
put_escape(char *to, const char *p, bool lower)
{
    unsigned char c = (unsigned char)(hex_value(p[1]) << 4 | hex_value(p[2]));

    if (is_class((char)c, C_UNRESERVED)) {
        *to = lower ? to_lower((char)c) : (char)c;
        return 1;
    }
    put_code(to, c);
    return 3;
}

/* A '%' that begins no escape stays as it is. */
void
http_escapes_normalise(struct buf *b, struct slice s)
{
    const unsigned char *u = (const unsigned char *)s.p;
    const char *p = s.p, *end;
    char *out, *start;
    unsigned any = 0;
    size_t i = 0;

    for (; i + 4 <= s.n; i += 4)        /* every target comes by here */
        any |= http_class[u[i]] | http_class[u[i + 1]] | http_class[u[i + 2]] |
            http_class[u[i + 3]];
    for (; i < s.n; i++)
        any |= http_class[u[i]];
    if (LIKELY((any & C_REWRITTEN) == 0)) {
        buf_adds(b, s);
        return;
    }
    out = start = buf_reserve(b, s.n * 3);
    if (out == NULL)
        return;
    for (end = p + s.n; p < end;) {
        if (is_escape(p, end)) {
            out += put_escape(out, p, false);
            p += 3;
        } else if (is_class(*p, C_REWRITTEN) && *p != '%') {
            put_code(out, (unsigned char)*p++);
            out += 3;
        } else {
            *out++ = *p++;
        }
    }
    b->n += (size_t)(out - start);
}

void
http_uri_normalise(struct buf *b, struct slice path, struct slice query)
{
    size_t from = b->n;

    if (path.n == 0)
        buf_addc(b, '/');
    http_escapes_normalise(b, path);
    if (!b->failed && b->p[from] == '/' && memchr(b->p + from, '.', b->n - from) != NULL)
        b->n = from + remove_dots(b->p + from, b->n - from);
    if (query.p == NULL)
        return;
    buf_addc(b, '?');
    http_escapes_normalise(b, query);
}

/* Where the host ends and its port, if any, begins with ':'. */
static size_t
host_end(struct slice host)
{
    size_t i = host.n;

    while (i > 0 && is_digit(host.p[i - 1]))
        i--;
    return i > 0 && host.p[i - 1] == ':' ? i - 1 : host.n;
}

static size_t
put_lower(char *restrict to, const char *restrict p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = to_lower(p[i]);
    return n;
}

/* With escapes; returns the new length. */
static size_t
put_host(char *to, const char *p, size_t n)
{
    size_t out = 0;

    for (size_t i = 0; i < n; i++) {
        if (p[i] == '%' && is_escape(p + i, p + n)) {
            out += put_escape(to + out, p + i, true);
            i += 2;
        } else {
            to[out++] = to_lower(p[i]);
        }
    }
    return out;
}

void
http_host_normalise(struct buf *b, struct slice host, bool https)
{
    size_t n = host_end(host), out;
    char *at = buf_reserve(b, host.n);
    struct slice port = { NULL, 0 };

    if (at == NULL)
        return;
    if (n < host.n)
        port = (struct slice){ host.p + n + 1, host.n - n - 1 };
    if (LIKELY(n == 0 || memchr(host.p, '%', n) == NULL))
        out = put_lower(at, host.p, n);
    else
        out = put_host(at, host.p, n);
    while (out > 1 && at[out - 1] == '.')           /* the root's label: RFC 1034 3.1 */
        out--;
    b->n += out;
    while (port.n > 1 && *port.p == '0')            /* the digits are a number: 6.2.3 */
        port.p++, port.n--;
    if (port.n == 0 || slice_eq(port, https ? SLICE("443") : SLICE("80")))
        return;
    buf_addc(b, ':');
    buf_adds(b, port);
}

/* Cuts path and query apart. */
static void
path_and_query(struct slice s, struct slice *path, struct slice *query)
{
    const char *q = s.n > 0 ? memchr(s.p, '?', s.n) : NULL;

    *path = s;
    *query = (struct slice){ NULL, 0 };
    if (q != NULL) {
        path->n = (size_t)(q - s.p);
        *query = (struct slice){ q + 1, s.n - path->n - 1 };
    }
}

/* "host[:port]path?query" behind "//". User information is refused (RFC 9110 4.2.4): it is no part
 * of an http URI that is to be trusted. */
static int
hierarchy(struct slice s, struct http_uri *u)
{
    size_t n = 0;

    while (n < s.n && s.p[n] != '/' && s.p[n] != '?')
        n++;
    u->host = (struct slice){ s.p, n };
    path_and_query((struct slice){ s.p + n, s.n - n }, &u->path, &u->query);
    return http_is_host(u->host) && is_target(s) ? 0 : -1;
}

int
http_uri_parse(struct slice s, struct http_uri *u)
{
    struct http_uri out = { .scheme = { s.p, 4 } };

    if (s.n >= 7 && strncasecmp(s.p, "http://", 7) == 0)
        ;
    else if (s.n >= 8 && strncasecmp(s.p, "https://", 8) == 0)
        out.scheme.n = 5;
    else
        return -1;
    if (hierarchy((struct slice){ s.p + out.scheme.n + 3, s.n - out.scheme.n - 3 }, &out) == -1)
        return -1;
    *u = out;
    return 0;
}

/* Does ref begin with a scheme (3.1)? */
static bool
has_scheme(struct slice ref)
{
    size_t i = 0;

    if (ref.n == 0 || (ref.p[0] | 0x20) < 'a' || (ref.p[0] | 0x20) > 'z')
        return false;
    while (i < ref.n && ((is_class(ref.p[i], C_UNRESERVED) &&
        ref.p[i] != '_' && ref.p[i] != '~') || ref.p[i] == '+'))
        i++;
    return i < ref.n && ref.p[i] == ':';
}

static void
put_uri(struct buf *b, const struct http_uri *u)
{
    bool https = u->scheme.n == 5;

    buf_adds(b, https ? SLICE("https://") : SLICE("http://"));
    http_host_normalise(b, u->host, https);
    http_uri_normalise(b, u->path, u->query);
}

/* The path of 5.2.3: base's up to its last '/', then ref's. */
static int
put_merged(struct buf *b, const struct http_uri *base, struct http_uri *u)
{
    struct buf path = { 0 };
    size_t n = base->path.n;

    while (n > 0 && base->path.p[n - 1] != '/')
        n--;
    buf_add(&path, base->path.p, n);
    if (n == 0)
        buf_addc(&path, '/');
    buf_adds(&path, u->path);
    u->path = buf_slice(&path);
    b->failed = b->failed || path.failed;
    if (!b->failed)
        put_uri(b, u);
    buf_free(&path);
    return 0;
}

int
http_uri_resolve(struct buf *b, const struct http_uri *base, struct slice ref)
{
    struct http_uri u = *base;
    const char *fragment = ref.n > 0 ? memchr(ref.p, '#', ref.n) : NULL;

    if (fragment != NULL) {
        struct slice f = { fragment + 1, ref.n - (size_t)(fragment - ref.p) - 1 };

        ref.n = (size_t)(fragment - ref.p);
        if (!is_target(f))
            return -1;
    }
    if (has_scheme(ref)) {
        if (http_uri_parse(ref, &u) == -1)
            return -1;
    } else if (ref.n >= 2 && ref.p[0] == '/' && ref.p[1] == '/') {
        if (hierarchy((struct slice){ ref.p + 2, ref.n - 2 }, &u) == -1)
            return -1;
    } else if (!is_target(ref)) {
        return -1;
    } else if (ref.n > 0 && ref.p[0] == '?') {
        u.query = (struct slice){ ref.p + 1, ref.n - 1 };
    } else if (ref.n > 0) {
        path_and_query(ref, &u.path, &u.query);
        if (u.path.p[0] != '/')
            return put_merged(b, base, &u);
    }
    put_uri(b, &u);
    return 0;
}

int
http_content_location(const struct http_head *response, struct slice target, struct buf *b)
{
    struct slice at = http_only(response, HF_CONTENT_LOCATION);
    struct http_uri base;

    if (at.n == 0 || memchr(at.p, '#', at.n) != NULL ||       /* it has no fragment */
        http_uri_parse(target, &base) == -1 || http_uri_resolve(b, &base, at) == -1)
        return -1;
    return b->failed ? -1 : 0;
}

int
http_uri_decode(struct buf *b, struct slice s)
{
    size_t from = b->n;

    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%') {
            buf_addc(b, s.p[i]);
        } else if (is_escape(s.p + i, s.p + s.n)) {
            buf_addc(b, (char)(hex_value(s.p[i + 1]) << 4 | hex_value(s.p[i + 2])));
            i += 2;
        } else {
            b->n = from;
            return -1;
        }
    }
    return 0;
}
