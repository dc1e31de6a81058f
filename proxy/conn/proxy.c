/*
 * The PROXY protocol, versions 1 and 2 (haproxy.org: proxy-protocol.txt).
 *
 * Model    parsed only from peers that the listener trusts, and then required of them. Version 1
 *          is a line of at most 107 bytes; version 2 a binary header with a length. TLVs are
 *          skipped. Addresses that are not of TCP are ignored, and the connection is taken with
 *          its own: it was forwarded all the same. An IPv4 address in IPv6 dress is the IPv4
 *          address.
 */
#include <arpa/inet.h>

#include "conn/conn.h"

#define V1_MAX 107

static const char v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";
static const char v4_mapped[12] = "\0\0\0\0\0\0\0\0\0\0\xff\xff";

static void
set_v4(struct sockaddr_storage *sa, socklen_t *len, const void *ip, uint16_t port_be)
{
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)sa;

    memset(sa, 0, sizeof *sa);
    in->sin_family = AF_INET;
    memcpy(&in->sin_addr, ip, 4);
    in->sin_port = port_be;
    *len = sizeof *in;
}

static void
set_v6(struct sockaddr_storage *sa, socklen_t *len, const void *ip, uint16_t port_be)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)sa;

    if (memcmp(ip, v4_mapped, sizeof v4_mapped) == 0) {             /* RFC 4291 2.5.5.2 */
        set_v4(sa, len, (const char *)ip + sizeof v4_mapped, port_be);
        return;
    }
    memset(sa, 0, sizeof *sa);
    in6->sin6_family = AF_INET6;
    memcpy(&in6->sin6_addr, ip, 16);
    in6->sin6_port = port_be;
    *len = sizeof *in6;
}

static bool
word(struct slice *line, char *out, size_t cap)
{
    struct slice w;

    if (!slice_cut(line, ' ', &w) || w.n == 0 || w.n >= cap)
        return false;
    memcpy(out, w.p, w.n);
    out[w.n] = '\0';
    return true;
}

/* Somebody asks through the proxy, and it does not say who. */
static void
set_unknown(struct sockaddr_storage *sa, socklen_t *len)
{
    sa->ss_family = AF_UNSPEC;
    *len = sizeof sa->ss_family;
}

static bool
port(struct slice *line, uint16_t *be)
{
    char digits[6];
    uint64_t number;

    /* leading zeros are not permitted: some would read them as octal */
    if (!word(line, digits, sizeof digits) || !slice_u64(slice_of(digits), &number) ||
        number > 65535 || (digits[0] == '0' && digits[1] != '\0'))
        return false;
    *be = htons((uint16_t)number);
    return true;
}

/* "TCP4 192.0.2.1 192.0.2.2 56324 443" */
static bool
addresses(struct slice line, struct sockaddr_storage *sa, socklen_t *len)
{
    char family[8], source[INET6_ADDRSTRLEN], target[INET6_ADDRSTRLEN];
    unsigned char ip[16], other[16];
    uint16_t from, to;
    int af;

    if (!word(&line, family, sizeof family) || !word(&line, source, sizeof source) ||
        !word(&line, target, sizeof target) || !port(&line, &from) || !port(&line, &to) ||
        line.p != NULL)
        return false;
    af = strcmp(family, "TCP4") == 0 ? AF_INET : strcmp(family, "TCP6") == 0 ? AF_INET6 : AF_UNSPEC;
    if (af == AF_UNSPEC || inet_pton(af, source, ip) != 1 || inet_pton(af, target, other) != 1)
        return false;
    if (af == AF_INET)
        set_v4(sa, len, ip, from);
    else
        set_v6(sa, len, ip, from);
    return true;
}

/* "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", "PROXY UNKNOWN", with anything behind it */
static ssize_t
version1(const char *p, size_t n, struct sockaddr_storage *sa, socklen_t *len)
{
    const char *end = memmem(p, n < V1_MAX ? n : V1_MAX, "\r\n", 2);
    struct slice line, unknown = SLICE("UNKNOWN");

    if (end == NULL)
        return n >= V1_MAX ? -1 : 0;
    line = (struct slice){ p + 6, (size_t)(end - p) - 6 };
    set_unknown(sa, len);
    if (slice_eq(line, unknown) || slice_starts(line, SLICE("UNKNOWN ")) ||
        addresses(line, sa, len))
        return end - p + 2;
    return -1;
}

/* The addresses of family and transport `how`, `n` bytes at p; they stay unknown where they are not
 * of TCP: unspecified, UNIX, datagrams. Values that the protocol does not know are invalid. */
static bool
binary_addresses(unsigned char how, const char *p, size_t n, struct sockaddr_storage *sa,
    socklen_t *len)
{
    uint16_t from;

    if (how == 0x11 && n >= 12) {
        memcpy(&from, p + 8, 2);
        set_v4(sa, len, p, from);
        return true;
    }
    if (how == 0x21 && n >= 36) {
        memcpy(&from, p + 32, 2);
        set_v6(sa, len, p, from);
        return true;
    }
    return how != 0x11 && how != 0x21 && how >> 4 <= 3 && (how & 15) <= 2;
}

static ssize_t
version2(const char *p, size_t n, struct sockaddr_storage *sa, socklen_t *len)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t rest;

    if (n < 16)
        return 0;
    rest = (size_t)u[14] << 8 | u[15];
    if (u[12] >> 4 != 2 || (u[12] & 15) > 1)
        return -1;
    if (n < 16 + rest)
        return 0;
    *len = 0;
    if ((u[12] & 15) == 1)
        set_unknown(sa, len);
    /* LOCAL: a health check of the proxy's own, whose addresses mean nothing */
    if ((u[12] & 15) == 1 && !binary_addresses(u[13], p + 16, rest, sa, len))
        return -1;
    return (ssize_t)(16 + rest);
}

ssize_t
conn_proxy_header(const char *p, size_t n, struct sockaddr_storage *sa, socklen_t *len)
{
    size_t have = n < sizeof v2_signature ? n : sizeof v2_signature;

    if (n == 0)
        return 0;
    if (memcmp(p, v2_signature, have) == 0)
        return have < sizeof v2_signature ? 0 : version2(p, n, sa, len);
    if (memcmp(p, "PROXY ", n < 6 ? n : 6) == 0)
        return n < 6 ? 0 : version1(p, n, sa, len);
    return -1;
}
