/* The PROXY protocol: headers of both versions, in pieces, cut, and wrong (proxy-protocol.txt). */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "conn/conn.h"

#define V2 "\r\n\r\n\0\r\nQUIT\n"

/* A copy of exact size, so that a read beyond the bytes is seen by AddressSanitizer. */
static ssize_t
parse(const char *p, size_t n, struct sockaddr_storage *sa, socklen_t *len)
{
    char *copy = malloc(n > 0 ? n : 1);
    ssize_t got;

    assert_non_null(copy);
    memcpy(copy, p, n);
    got = conn_proxy_header(copy, n, sa, len);
    free(copy);
    return got;
}

static const char *
text(const struct sockaddr_storage *sa, char out[INET6_ADDRSTRLEN + 8])
{
    char ip[INET6_ADDRSTRLEN];
    const void *at = sa->ss_family == AF_INET ?
        (const void *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr :
        (const void *)&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;

    /* the port lies at the same place in both */
    assert_non_null(inet_ntop(sa->ss_family, at, ip, sizeof ip));
    snprintf(out, INET6_ADDRSTRLEN + 8, "%s %u", ip,
        ntohs(((const struct sockaddr_in *)(const void *)sa)->sin_port));
    return out;
}

/* client: "address port"; NULL: the peer's own stands. */
struct good { const char *p; size_t n; const char *client; };
#define GOOD(s, client) { (s), sizeof(s) - 1, (client) }

static const struct good good[] = {
    GOOD("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", "192.0.2.1 56324"),
    GOOD("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255 65535"),
    GOOD("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "2001:db8::1 1"),
    GOOD("PROXY TCP6 ffff:f:f:f:f:f:f:ffff ffff:f:f:f:f:f:f:ffff 65535 65535\r\n",
        "ffff:f:f:f:f:f:f:ffff 65535"),
    GOOD("PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n", "192.0.2.1 0"),
    GOOD("PROXY UNKNOWN\r\n", NULL),
    GOOD("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", NULL),
    GOOD(V2 "\x20\x00\0\0", NULL),
    GOOD(V2 "\x20\x11\0\x0c" "\xc0\0\2\1\xc0\0\2\2\0\5\0\6", NULL),
    GOOD(V2 "\x21\x00\0\3abc", NULL),
    GOOD(V2 "\x21\x00\0\x0c" "\xc0\0\2\1\xc0\0\2\2\0\5\0\6", NULL),
    /* forwarded, but not from a TCP address: the connection's own stands (UNIX, UDP) */
    GOOD(V2 "\x21\x31\0\0", NULL), GOOD(V2 "\x21\x31\0\5" "/sock", NULL),
    GOOD(V2 "\x21\x32\0\0", NULL), GOOD(V2 "\x21\x12\0\x0c" "\xc0\0\2\1\xc0\0\2\2\0\5\0\6", NULL),
    GOOD(V2 "\x21\x22\0\0", NULL), GOOD(V2 "\x21\x10\0\0", NULL), GOOD(V2 "\x21\x01\0\0", NULL),
    GOOD(V2 "\x21\x11\0\x0c" "\xc0\0\2\1\xc0\0\2\2\0\5\0\6", "192.0.2.1 5"),
    GOOD(V2 "\x21\x11\0\x11" "\xc0\0\2\1\xc0\0\2\2\0\5\0\6" "\4\0\2ab", "192.0.2.1 5"),
    GOOD(V2 "\x21\x21\0\x24" "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
        "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2"
        "\1\2\0\6", "2001:db8::1 258"),
    /* IPv4 in IPv6 dress */
    GOOD("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 5 6\r\n", "192.0.2.1 5"),
    GOOD("PROXY TCP6 ::fffe:192.0.2.1 ::1 5 6\r\n", "::fffe:c000:201 5"),
    GOOD(V2 "\x21\x21\0\x24" "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1"
        "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\2"
        "\0\5\0\6", "192.0.2.1 5"),
};

static void
a_good_header_is_read_and_what_follows_is_left(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(good); i++) {
        const struct good *g = &good[i];
        char out[INET6_ADDRSTRLEN + 8], more[256];
        struct sockaddr_storage sa;
        socklen_t len = 77;

        assert_int_equal(parse(g->p, g->n, &sa, &len), g->n);
        if (g->client != NULL)
            assert_string_equal(text(&sa, out), g->client);
        else if (len > 0)
            assert_int_equal(sa.ss_family, AF_UNSPEC);      /* somebody's, who is not told */
        else
            assert_memory_equal(g->p, V2 "\x20", 13);       /* the proxy's own */
        memcpy(more, g->p, g->n);
        memcpy(more + g->n, "GET / HTTP/1.1\r\n", 16);
        assert_int_equal(parse(more, g->n + 16, &sa, &len), g->n);
    }
}

static void
a_header_in_pieces_is_waited_for(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(good); i++)
        for (size_t n = 0; n < good[i].n; n++) {
            struct sockaddr_storage sa;
            socklen_t len;

            assert_int_equal(parse(good[i].p, n, &sa, &len), 0);
        }
}

struct bad { const char *p; size_t n; };
#define BAD(s) { (s), sizeof(s) - 1 }

static const struct bad bad[] = {
    BAD("GET / HTTP/1.1\r\n"), BAD("P "), BAD("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
    BAD("\r\n\r\nx"), BAD("PROXYTCP4 192.0.2.1 192.0.2.2 1 2\r\n"), BAD("PROXY TCP4\r\n"),
    BAD("PROXY \r\n"), BAD("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n"),
    BAD("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"), BAD("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n"),
    BAD("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n"),
    BAD("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n"),
    BAD("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n"),
    BAD("PROXY TCP4 192.0.2.1 192.0.2.2 05555 2\r\n"),
    BAD("PROXY TCP4 192.0.2.1 192.0.2.2 1 00\r\n"),
    BAD("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n"),
    BAD("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n"), BAD("PROXY TCP4 192.0.2.1 192.0.2.2 1 x\r\n"),
    BAD("PROXY TCP4 192.0.2.1 bad 1 2\r\n"), BAD("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n"),
    BAD("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n"), BAD("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n"),
    BAD("PROXY UNKNOWNX\r\n"),
    /* longer than a line may be */
    BAD("PROXY UNKNOWN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"),
    BAD(V2 "\x11\x11\0\x0c" "\xc0\0\2\1\xc0\0\2\2\0\5\0\6"),      /* version 1 in the binary form */
    BAD(V2 "\x22\x11\0\x0c" "\xc0\0\2\1\xc0\0\2\2\0\5\0\6"),      /* an unknown command */
    BAD(V2 "\x21\x11\0\x0b" "\xc0\0\2\1\xc0\0\2\2\0\5\0"),        /* too short for its addresses */
    BAD(V2 "\x21\x21\0\x0c" "\xc0\0\2\1\xc0\0\2\2\0\5\0\6"),
    /* no such values */
    BAD(V2 "\x21\x41\0\0"), BAD(V2 "\x21\x13\0\x0c" "\xc0\0\2\1\xc0\0\2\2\0\5\0\6"),
};

static void
what_is_no_header_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++) {
        struct sockaddr_storage sa;
        socklen_t len;

        if (parse(bad[i].p, bad[i].n, &sa, &len) != -1)
            fail_msg("accepted: %s", bad[i].p);
    }
}

static void
a_line_without_an_end_is_refused_in_time(void **state)
{
    struct sockaddr_storage sa;
    char line[200];
    socklen_t len;

    (void)state;
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    assert_int_equal(parse(line, 106, &sa, &len), 0);
    assert_int_equal(parse(line, 107, &sa, &len), -1);
    assert_int_equal(parse(line, 200, &sa, &len), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_header_is_read_and_what_follows_is_left),
        cmocka_unit_test(a_header_in_pieces_is_waited_for),
        cmocka_unit_test(what_is_no_header_is_refused),
        cmocka_unit_test(a_line_without_an_end_is_refused_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
