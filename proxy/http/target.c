/*
 * The request target's forms (RFC 9112 3.2), and what a host may look like.
 *
 * Model    the bytes of the target were checked by the parser: printable ASCII, no fragment, good
 *          escapes. Characters that RFC 3986 would have escaped but that clients send as they are
 *          pass: "[" and "]" unchanged, others (such as "|") as escapes (uri.c).
 */
#include "http/scan.h"

#include <arpa/inet.h>

static bool
is_port(struct slice s)                 /* may be empty (RFC 3986 3.2.3) */
{
    unsigned long v = 0;

    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]))
            return false;
        v = v * 10 + (unsigned long)(s.p[i] - '0');
        if (v > 65535)
            return false;
    }
    return true;
}

static bool
is_ipv6(struct slice s)
{
    char z[INET6_ADDRSTRLEN];
    struct in6_addr a;

    if (s.n == 0 || s.n >= sizeof z || memchr(s.p, '\0', s.n) != NULL)
        return false;
    memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    return inet_pton(AF_INET6, z, &a) == 1;
}

/* RFC 3986 3.2.2 without IPvFuture, which does not exist. The empty host is none (RFC 9110 4.2.1).
 */
bool
http_is_host(struct slice s)
{
    const char *p = s.p, *end;

    if (s.n == 0)
        return false;
    end = p + s.n;
    if (*p == '[') {
        p = memchr(s.p, ']', s.n);
        if (p == NULL || !is_ipv6((struct slice){ s.p + 1, (size_t)(p - s.p) - 1 }))
            return false;
        p++;
    } else {
        for (;;) {
            while (p < end && is_class(*p, C_NAME))
                p++;
            if (!is_escape(p, end))
                break;
            p += 3;
        }
        if (p == s.p)
            return false;
    }
    if (p == end)
        return true;
    return *p == ':' && is_port((struct slice){ p + 1, (size_t)(end - p) - 1 });
}

/* absolute-form: http_uri_parse, and what it says about the connection that should be. */
static int
absolute_form(struct http_head *h, struct http_fault *f)
{
    struct http_uri u;

    if (http_uri_parse(h->target, &u) == -1)
        return fault(f, 400, "the target is neither a path nor an absolute http URI");
    h->host = u.host;
    h->path = u.path;
    h->query = u.query;
    h->flags |= HTTP_ABSOLUTE;
    if (u.scheme.n == 5)
        h->flags |= HTTP_HTTPS;
    if (h->path.n > 0)
        return 0;
    /* RFC 9112 3.2.4: OPTIONS for a URI without path and query asks about the server. */
    h->path = h->method == HTTP_OPTIONS && h->query.p == NULL ? SLICE("*") : SLICE("/");
    return 0;
}

int
http_target(struct http_head *h, const char *question, struct http_fault *f)
{
    const char *p = h->target.p, *end = p + h->target.n;

    if (LIKELY(*p == '/')) {
        if (question == NULL) {
            h->path = h->target;
            return 0;
        }
        h->path = (struct slice){ p, (size_t)(question - p) };
        h->query = (struct slice){ question + 1, (size_t)(end - question) - 1 };
        return 0;
    }
    if (h->target.n == 1 && *p == '*') {
        h->path = h->target;
        return h->method == HTTP_OPTIONS ? 0 : fault(f, 400, "the target * is for OPTIONS only");
    }
    return absolute_form(h, f);
}
