/*
 * Who is at the other end: addresses as text and against lists of networks.
 */
#include "conn/priv.h"

#include <arpa/inet.h>

/* The address of sa as 4 or 16 bytes; an IPv4 one that came over IPv6 counts as IPv4. */
static const uint8_t *
address_bytes(const struct sockaddr_storage *sa, uint8_t *family)
{
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;

    *family = (uint8_t)sa->ss_family;
    if (sa->ss_family == AF_INET)
        return (const uint8_t *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr;
    if (!IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
        return in6->sin6_addr.s6_addr;
    *family = AF_INET;
    return in6->sin6_addr.s6_addr + 12;
}

static bool
in_networks(const struct sockaddr_storage *sa, const struct conf_networks *n)
{
    uint8_t family;
    const uint8_t *ip = address_bytes(sa, &family);

    if (sa->ss_family == AF_UNSPEC)
        return false;
    for (size_t i = 0; i < n->n; i++) {
        const struct conf_network *net = &n->at[i];
        unsigned whole = net->bits / 8, part = net->bits % 8;

        if (net->family == family && memcmp(ip, net->bytes, whole) == 0 &&
            (part == 0 || ((ip[whole] ^ net->bytes[whole]) >> (8 - part)) == 0))
            return true;
    }
    return false;
}

bool
conn_peer_in(const struct conn *c, const struct conf_networks *n)
{
    return in_networks(&c->peer, n);
}

bool
conn_client_in(const struct conn *c, const struct conf_networks *n)
{
    return in_networks(&c->asker, n);
}

/* Without the brackets of an IPv6 address, and without a port. */
static struct slice
bare_address(struct slice s)
{
    const char *colon = memchr(s.p, ':', s.n), *end = memchr(s.p, ']', s.n);

    if (s.n > 0 && s.p[0] == '[' && end != NULL)
        return (struct slice){ s.p + 1, (size_t)(end - s.p) - 1 };
    if (colon != NULL && memchr(colon + 1, ':', s.n - (size_t)(colon + 1 - s.p)) == NULL)
        s.n = (size_t)(colon - s.p);
    return s;
}

bool
conn_forwarded_in(struct slice *member, const struct conf_networks *n, bool *in)
{
    struct sockaddr_storage sa = { .ss_family = AF_UNSPEC };
    struct slice s = bare_address(*member);
    char text[INET6_ADDRSTRLEN] = "";

    if (s.n == 0 || s.n >= sizeof text)
        return false;
    memcpy(text, s.p, s.n);
    if (inet_pton(AF_INET, text, &((struct sockaddr_in *)(void *)&sa)->sin_addr) == 1)
        sa.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)(void *)&sa)->sin6_addr) == 1)
        sa.ss_family = AF_INET6;
    *member = s;
    *in = in_networks(&sa, n);
    return sa.ss_family != AF_UNSPEC;
}

struct slice
conn_client(const struct conn *c)
{
    return (struct slice){ c->client, c->client_n };
}

void
peer_name(struct conn *c)
{
    uint8_t family;
    const uint8_t *ip = address_bytes(&c->peer, &family);

    if (inet_ntop(family, ip, c->client, sizeof c->client) == NULL)
        c->client[0] = '\0';
    c->client_n = (uint8_t)strlen(c->client);
}

void
peer_asks(struct conn *c, const struct sockaddr_storage *sa)
{
    c->asker = *sa;
    if (sa->ss_family == AF_UNSPEC)
        return;                         /* the connection's own address is shown, but not trusted */
    inet_ntop(sa->ss_family, sa->ss_family == AF_INET ?
        (const void *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr :
        (const void *)&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, c->client,
        sizeof c->client);
    c->client_n = (uint8_t)strlen(c->client);
}
