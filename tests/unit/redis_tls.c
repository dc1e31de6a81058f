/*
 * redis/ over TLS: the server's certificate is verified, ours is shown, large values go both ways.
 */
#include "redis_kit.h"

#include <sys/stat.h>

static struct rserver server;
static struct rig rig;
static char dir[64], ca[96], cert[96], key[96];

static void
shell(const char *fmt, ...)
{
    char command[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    assert_int_equal(system(command), 0);
}

static void
make_certificates(void)
{
    static const char ec[] = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";

    snprintf(dir, sizeof dir, "/tmp/weir-redis-tls-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(ca, sizeof ca, "%s/ca.pem", dir);
    snprintf(cert, sizeof cert, "%s/client.pem", dir);
    snprintf(key, sizeof key, "%s/client.key", dir);
    shell("openssl req -x509 %s -subj /CN=ca -keyout %s/ca.key -out %s 2>/dev/null", ec, dir, ca);
    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "server" : "client";

        shell("printf 'subjectAltName=DNS:redis.test,IP:127.0.0.1' > %s/ext && "
            "openssl req %s -subj /CN=%s -keyout %s/%s.key -out %s/csr 2>/dev/null && "
            "openssl x509 -req -in %s/csr -CA %s -CAkey %s/ca.key -CAcreateserial -days 2 "
            "-extfile %s/ext -out %s/%s.pem 2>/dev/null",
            dir, ec, name, dir, name, dir, dir, ca, dir, dir, dir, name);
    }
}

static int
start(void **state)
{
    char more[512];

    (void)state;
    make_certificates();
    server.port = free_port();
    snprintf(more, sizeof more, "--port 0 --tls-port %u --tls-cert-file %s/server.pem "
        "--tls-key-file %s/server.key --tls-ca-cert-file %s --tls-auth-clients yes", server.port,
        dir, dir, ca);
    rserver_start(&server, more);
    return 0;
}

static int
stop(void **state)
{
    (void)state;
    rserver_stop(&server);
    shell("rm -rf %s", dir);
    return 0;
}

static struct redis_server at;

static struct redis_conf
conf_of(uint16_t port)
{
    at = (struct redis_server){ "127.0.0.1", port };
    return (struct redis_conf){ .servers = &at, .nservers = 1, .connect_ms = LONG_MS, .tls = true,
        .verify = true, .ca_file = ca, .cert_file = cert, .key_file = key };
}

static void
values_small_and_large_go_both_ways(void **state)
{
    struct redis_conf conf = conf_of(server.port);
    static struct shot shots[50];
    size_t n = 5 << 20;
    char *text = malloc(n + 16);

    (void)state;
    rig_start(&rig, &conf);
    memcpy(text, "SET big ", 8);
    memset(text + 8, 'x', n);
    text[8 + n] = '\0';
    assert_int_equal(ask(&rig, text), REDIS_OK);
    assert_int_equal(ask(&rig, "SET a apple"), REDIS_OK);
    for (size_t i = 0; i < NELEM(shots); i++)
        shoot(&shots[i], &rig, LONG_MS, i % 10 == 0 ? "GET big" : "GET a");
    for (size_t i = 0; i < NELEM(shots); i++) {
        assert_int_equal(await_shot(&shots[i]), REDIS_OK);
        assert_int_equal(shots[i].n, i % 10 == 0 ? n : 5);
    }
    rig_stop(&rig);
    free(text);
}

static void
refused_with(struct redis_conf *conf, bool late)
{
    enum redis_cause c;

    rig_start(&rig, conf);
    c = ask(&rig, "GET a");
    assert_true(c == REDIS_REFUSED || (late && c == REDIS_CLOSED));
    assert_int_equal(ask(&rig, "GET a"), REDIS_OPEN);
    rig_stop(&rig);
}

static void
a_certificate_of_an_unknown_authority_or_another_name_is_refused(void **state)
{
    struct redis_conf conf = conf_of(server.port);

    (void)state;
    conf.server_name = "redis.test";
    rig_start(&rig, &conf);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    rig_stop(&rig);
    conf.server_name = "other.test";
    refused_with(&conf, false);
    conf.verify = false;
    rig_start(&rig, &conf);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    rig_stop(&rig);
    conf.verify = true;
    conf.server_name = NULL;
    conf.ca_file = NULL;
    refused_with(&conf, false);
}

static void
without_our_certificate_there_is_no_connection_where_one_is_wanted(void **state)
{
    struct redis_conf conf = conf_of(server.port);

    (void)state;
    conf.cert_file = conf.key_file = NULL;
    refused_with(&conf, true);
}

static void
a_client_without_tls_gets_nothing_from_a_server_with_it(void **state)
{
    struct redis_conf conf = conf_of(server.port);

    (void)state;
    conf.tls = false;
    refused_with(&conf, true);
}

static void
serve_nothing(struct peer *p, int fd, unsigned nth)
{
    char byte;

    (void)p;
    (void)nth;
    while (recv(fd, &byte, 1, 0) == 1)
        ;
}

static void
a_handshake_that_hangs_ends_in_time(void **state)
{
    static struct peer peer;
    struct redis_conf conf;

    (void)state;
    peer_start(&peer, serve_nothing);
    conf = conf_of(peer.port);
    conf.connect_ms = 1500;
    rig_start(&rig, &conf);
    assert_int_equal(ask_within(&rig, 50, "GET a"), REDIS_TIMEOUT);
    assert_int_equal(ask(&rig, "GET a"), REDIS_TIMEOUT);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OPEN);
    rig_stop(&rig);
    peer_stop(&peer);
}

static void
files_that_cannot_be_used_are_said_at_the_start(void **state)
{
    struct redis_conf conf = conf_of(server.port);
    struct err e;

    (void)state;
    conf.ca_file = "/nowhere/ca.pem";
    assert_null(redis_new(&conf, NULL, 0, &e));
    assert_non_null(strstr(e.text, "/nowhere/ca.pem"));
    conf.ca_file = ca;
    conf.key_file = ca;
    assert_null(redis_new(&conf, NULL, 0, &e));
    assert_non_null(strstr(e.text, ca));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_small_and_large_go_both_ways),
        cmocka_unit_test(a_certificate_of_an_unknown_authority_or_another_name_is_refused),
        cmocka_unit_test(without_our_certificate_there_is_no_connection_where_one_is_wanted),
        cmocka_unit_test(a_client_without_tls_gets_nothing_from_a_server_with_it),
        cmocka_unit_test(a_handshake_that_hangs_ends_in_time),
        cmocka_unit_test(files_that_cannot_be_used_are_said_at_the_start),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
