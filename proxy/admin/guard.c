/*
 * Who may ask for what: looked at once a head is complete, before any byte of a body is waited for.
 *
 * A browser can be made to call a server on its own machine or network: by a name that is rebound
 * to our address (so Host must be a name or address of ours), or by a page of another origin (so
 * Origin, where there is one, must be the one that was called). RFC 9110 7.4 has 421 for the first.
 * A body in one of the types that a form can send is refused for the same reason.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <stdio.h>

#include "admin/inside.h"
#include "stats/stats.h"

/* host[:port] without its port, [::1] without its brackets. */
static struct slice
host_alone(struct slice authority)
{
    const char *end;

    if (authority.n > 0 && authority.p[0] == '[') {
        end = memchr(authority.p, ']', authority.n);
        return end == NULL ? authority :
            (struct slice){ authority.p + 1, (size_t)(end - authority.p) - 1 };
    }
    end = memchr(authority.p, ':', authority.n);
    return end == NULL ? authority : (struct slice){ authority.p, (size_t)(end - authority.p) };
}

static bool
is_configured(const struct admin *a, struct slice host)
{
    for (char **h = a->hosts; h != NULL && *h != NULL; h++)
        if (slice_ieq(host_alone(slice_of(*h)), host))
            return true;
    return false;
}

/* Is this literal a loopback address, or the one that the connection came in by? */
static bool
is_own_address(struct slice host, const struct sockaddr *local)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr six;
    struct in_addr four;

    if (host.n >= sizeof text)
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    if (inet_pton(AF_INET, text, &four) == 1) {
        const struct sockaddr_in *l4 = (const void *)local;
        const struct sockaddr_in6 *l6 = (const void *)local;

        return ntohl(four.s_addr) >> 24 == 127 ||
            (local->sa_family == AF_INET && l4->sin_addr.s_addr == four.s_addr) ||
            (local->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&l6->sin6_addr) &&
                memcmp(&l6->sin6_addr.s6_addr[12], &four, 4) == 0);
    }
    return inet_pton(AF_INET6, text, &six) == 1 && (IN6_IS_ADDR_LOOPBACK(&six) ||
        (local->sa_family == AF_INET6 &&
            memcmp(&six, &((const struct sockaddr_in6 *)(const void *)local)->sin6_addr,
                sizeof six) == 0));
}

static bool
host_is_ours(const struct admin *a, struct slice authority, const struct sockaddr *local)
{
    struct slice host;

    if (authority.n == 0)               /* HTTP/1.0 without Host: no browser */
        return false;
    host = host_alone(authority);
    return slice_ieq(host, SLICE("localhost")) || is_own_address(host, local) ||
        is_configured(a, host);
}

/* The origin that was called, or a name that the operator gave. */
static bool
origin_is_ours(const struct admin *a, const struct http_head *h)
{
    struct http_uri u;

    if (!http_has(h, HF_ORIGIN))
        return true;
    if (http_uri_parse(http_value(h, HF_ORIGIN), &u) != 0)
        return false;                   /* "null" among them */
    return slice_ieq(u.host, h->host) || is_configured(a, host_alone(u.host));
}

static bool
token_is_right(const struct admin *a, const struct http_head *h)
{
    struct slice v = http_value(h, HF_AUTHORIZATION);
    size_t n;

    if (a->token == NULL)
        return true;
    if (v.n < 7 || strncasecmp(v.p, "Bearer ", 7) != 0)
        return false;
    v = slice_trim((struct slice){ v.p + 7, v.n - 7 });
    n = strlen(a->token);               /* its length is no secret, its bytes are */
    return v.n == n && CRYPTO_memcmp(v.p, a->token, n) == 0;
}

static bool
may(struct admin_request *r, const struct sockaddr *local)
{
    const struct http_head *h = r->head;

    if (!host_is_ours(r->a, h->host, local)) {
        admin_problem(r, 421,
            "\"%.*s\" is no name of this admin port; call it by localhost or its own address, "
            "or add the name to admin.hosts",
            (int)(h->host.n < 200 ? h->host.n : 200), h->host.p);
        return false;
    }
    if (!origin_is_ours(r->a, h)) {
        admin_problem(r, 403,
            "requests of pages of other origins are refused; add the page's host to admin.hosts");
        return false;
    }
    if (!token_is_right(r->a, h) && !dashboard_is_page(h)) {
        r->challenge = true;
        admin_problem(r, 401,
            "this admin port asks for the token of admin.token_file: Authorization: Bearer TOKEN");
        return false;
    }
    return true;
}

/* application/json, with parameters or without; or no type at all. */
static bool
type_is_json(const struct http_head *h)
{
    struct slice rest = http_value(h, HF_CONTENT_TYPE), type;

    if (rest.p == NULL)
        return true;
    return slice_cut(&rest, ';', &type) && slice_ieq(slice_trim(type), SLICE("application/json"));
}

/* Path by segments; `{id}` takes any one that is not empty. */
static bool
takes(const char *pattern, struct slice path)
{
    struct slice want = slice_of(pattern), part, seg;

    while (slice_cut(&want, '/', &part)) {
        if (!slice_cut(&path, '/', &seg))
            return false;
        if (slice_eq(part, SLICE("{id}")) ? seg.n == 0 : !slice_eq(part, seg))
            return false;
    }
    return path.p == NULL;
}

static bool
has_method(const struct endpoint *e, enum http_method m)
{
    return e->method == m || (e->method == HTTP_GET && m == HTTP_HEAD);
}

/* The endpoint of the path and the method: an exact path goes before one with `{id}`. */
static const struct endpoint *
find(struct admin_request *r, bool probe)
{
    static const char *const names[] = { [HTTP_GET] = "GET, HEAD", [HTTP_POST] = "POST",
        [HTTP_DELETE] = "DELETE" };
    const char *path = NULL;
    size_t n = 0;

    for (size_t i = 0; i < nendpoints; i++) {
        const struct endpoint *e = &endpoints[i];

        if ((probe && !e->probe) || !takes(e->path, r->head->path) ||
            (path != NULL && strcmp(path, e->path) != 0))
            continue;
        if (has_method(e, r->head->method))
            return e;
        path = e->path;
        n += (size_t)snprintf(r->allow + n, sizeof r->allow - n, "%s%s", n > 0 ? ", " : "",
            names[e->method]);
    }
    if (path == NULL)
        admin_problem(r, 404,
            probe ? "the probe port has /healthz and /readyz" : "GET / lists what is here");
    else
        admin_problem(r, 405, "%s takes %s", path, r->allow);
    return NULL;
}

const struct endpoint *
admin_admit(struct admin_request *r, const struct sockaddr *local, bool probe)
{
    const struct http_head *h = r->head;
    const struct endpoint *e;
    if (!probe && !may(r, local)) {
        COUNT(admin_denied);
        return NULL;
    }
    e = find(r, probe);
    if (e == NULL)
        return NULL;
    if (e->method == HTTP_POST && !type_is_json(h)) {
        admin_problem(r, 415, "%s takes application/json, as curl -H 'Content-Type: "
            "application/json' (or --json) says it; a form's types are refused, since any web page "
            "can send them", e->path);
        return NULL;
    }
    if (h->framing == HTTP_LENGTH && h->length > ADMIN_BODY_MAX) {
        admin_problem(r, 413, "a body may have %u bytes", ADMIN_BODY_MAX);
        return NULL;
    }
    return e;
}
