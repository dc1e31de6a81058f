/*
 * Addresses, networks and URLs of servers. Numeric but for the hosts of URLs: a name in an address
 * to listen on would be looked up once, and nobody would know when.
 */
#include "config/inside.h"
#include "http/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* The last ':' parts host and port; an IPv6 address stands in brackets. */
static bool
host_port(struct slice s, struct slice *host, uint16_t *port)
{
    const char *colon = s.n > 0 ? memrchr(s.p, ':', s.n) : NULL;
    uint64_t v;

    if (colon == NULL || !slice_u64((struct slice){ colon + 1, (size_t)(s.p + s.n - colon - 1) },
        &v) ||
        v > 65535)
        return false;
    *host = (struct slice){ s.p, (size_t)(colon - s.p) };
    *port = (uint16_t)v;
    return true;
}

static int
ip_parse(struct slice s, uint8_t bytes[16])
{
    char z[INET6_ADDRSTRLEN];

    if (s.n == 0 || s.n >= sizeof z)
        return 0;
    memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    if (inet_pton(AF_INET, z, bytes) == 1)
        return AF_INET;
    return inet_pton(AF_INET6, z, bytes) == 1 ? AF_INET6 : 0;
}

int
value_address(struct slice s, struct conf_address *a, struct pool *p)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&a->sa;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a->sa;
    struct slice host;
    uint8_t bytes[16];
    uint16_t port;

    *a = (struct conf_address){ 0 };
    if (!host_port(s, &host, &port))
        return -1;
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') {
        if (ip_parse((struct slice){ host.p + 1, host.n - 2 }, bytes) != AF_INET6)
            return -1;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        memcpy(&v6->sin6_addr, bytes, 16);
        a->len = sizeof *v6;
    } else {
        if (ip_parse(host, bytes) != AF_INET)
            return -1;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, bytes, 4);
        a->len = sizeof *v4;
    }
    a->text = pool_dup(p, s.p, s.n);
    return a->text != NULL ? 0 : -1;
}

/* IPv4 in IPv6 dress is IPv4: clients that come so are matched as that (RFC 4291 2.5.5.2). */
static void
unmap(struct conf_network *n)
{
    static const uint8_t mapped[12] = { [10] = 0xff, 0xff };

    if (n->family != AF_INET6 || n->bits < 96 || memcmp(n->bytes, mapped, sizeof mapped) != 0)
        return;
    n->family = AF_INET;
    n->bits -= 96;
    memmove(n->bytes, n->bytes + 12, 4);
    memset(n->bytes + 4, 0, 12);
}

const char *
value_network(struct load *l, struct slice s, struct conf_network *out)
{
    struct slice rest = s, ip;
    uint64_t bits;
    unsigned width;

    *out = (struct conf_network){ 0 };
    slice_cut(&rest, '/', &ip);
    out->family = (uint8_t)ip_parse(ip, out->bytes);
    width = out->family == AF_INET ? 32 : 128;
    bits = width;
    if (out->family == 0 || (rest.p != NULL && (!slice_u64(rest, &bits) || bits > width)))
        return textf(l, "%s is no network", shown(l, s));
    for (unsigned i = (unsigned)bits; i < width; i++)
        if (out->bytes[i / 8] >> (7 - i % 8) & 1)
            return textf(l, "%s has bits behind its prefix of %u", shown(l, s), (unsigned)bits);
    out->bits = (uint8_t)bits;
    unmap(out);
    return NULL;
}

const char *
value_url(struct load *l, struct slice s, struct conf_url *out)
{
    struct slice rest = s, host;
    uint16_t port;

    *out = (struct conf_url){ 0 };
    out->https = slice_starts(s, SLICE("https://"));
    if (!out->https && !slice_starts(s, SLICE("http://")))
        return textf(l, "%s does not begin with http:// or https://", shown(l, s));
    rest.p += out->https ? 8 : 7;
    rest.n -= out->https ? 8 : 7;
    if (rest.n > 0 && rest.p[rest.n - 1] == '/')
        rest.n--;                       /* http://host/ says the same */
    for (size_t i = 0; i < rest.n; i++)
        if (strchr("/?#@", rest.p[i]) != NULL)
            return rest.p[i] == '@' ?
                "a URL with a user's name or password; send Authorization with request.set" :
                textf(l, "%s has something behind the host; a path goes into rewrite.prefix of the "
                    "route", shown(l, s));
    if (rest.n == 0 || !http_is_host(rest))
        return textf(l, "%s has no valid host", shown(l, s));
    if (rest.p[rest.n - 1] == ']' || !host_port(rest, &host, &port)) {
        if (rest.p[rest.n - 1] == ':')
            return textf(l, "%s has no port behind the colon", shown(l, s));
        host = rest;
        port = out->https ? 443 : 80;
    }
    if (port == 0 || host.n == 0)
        return textf(l, "%s has no valid %s", shown(l, s), port == 0 ? "port" : "host");
    if (host.p[0] == '[')               /* for getaddrinfo and inet_pton: without brackets */
        host = (struct slice){ host.p + 1, host.n - 2 };
    out->port = port;
    out->host = pool_dup(l->c->pool, host.p, host.n);
    out->text = pool_dup(l->c->pool, s.p, s.n);
    if (out->host == NULL || out->text == NULL)
        l->no_memory = true;
    return NULL;
}
