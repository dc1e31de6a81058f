/* https to an origin: the certificate, its name, the bytes. */
#include "upstream_kit.h"

#include <signal.h>

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define OK_TEXT "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

/* ---- a certificate authority, made for the test ---------------------------------------------- */

static EVP_PKEY *ca_key, *key;
static X509 *ca, *cert;
static char ca_file[] = "/tmp/weir-ca-XXXXXX";
static SSL_CTX *ctx;

static void
extend(X509 *x, X509V3_CTX *v3, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, v3, nid, value);

    assert_int_equal(X509_add_ext(x, e, -1), 1);
    X509_EXTENSION_free(e);
}

static X509 *
certify(EVP_PKEY *k, const char *name, const char *alt, X509 *issuer, EVP_PKEY *with)
{
    X509 *x = X509_new();
    X509V3_CTX v3;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), issuer == NULL ? 1 : 2);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const void *)name, -1,
        -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(issuer != NULL ? issuer : x));
    X509_set_pubkey(x, k);
    X509V3_set_ctx(&v3, issuer != NULL ? issuer : x, x, NULL, NULL, 0);
    if (issuer == NULL)
        extend(x, &v3, NID_basic_constraints, "critical,CA:TRUE");
    if (alt != NULL)
        extend(x, &v3, NID_subject_alt_name, alt);
    assert_true(X509_sign(x, with, EVP_sha256()) > 0);
    return x;
}

static int
take_http11(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in,
    unsigned inlen, void *arg)
{
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, outlen,
        (const void *)"\x08http/1.1", 9, in, inlen) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    return SSL_TLSEXT_ERR_OK;
}

static int
make_certificates(void **state)
{
    FILE *f;

    signal(SIGPIPE, SIG_IGN);           /* as main does: OpenSSL writes with write(2) */
    ca_key = EVP_EC_gen("P-256");
    key = EVP_EC_gen("P-256");
    ca = certify(ca_key, "Test CA", NULL, NULL, ca_key);
    cert = certify(key, "origin.test", "DNS:origin.test,IP:127.0.0.1", ca, ca_key);
    f = fdopen(mkstemp(ca_file), "w");
    assert_int_equal(PEM_write_X509(f, ca), 1);
    fclose(f);
    ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(ctx, cert);
    SSL_CTX_use_PrivateKey(ctx, key);
    SSL_CTX_set_alpn_select_cb(ctx, take_http11, NULL);
    return group_setup(state);
}

static int
drop_certificates(void **state)
{
    SSL_CTX_free(ctx);
    X509_free(ca);
    X509_free(cert);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    unlink(ca_file);
    return group_teardown(state);
}

/* ---- the origin ------------------------------------------------------------------------------ */

static char sni[256];
static char big[1 << 20];

static bool
secure_head(struct script *s, SSL *ssl, char *buf, size_t size)
{
    size_t n = 0;

    while (n < size - 1 && SSL_read(ssl, buf + n, 1) == 1) {
        buf[++n] = '\0';
        if (n >= 4 && memcmp(buf + n - 4, "\r\n\r\n", 4) == 0) {
            atomic_fetch_add(&s->requests, 1);
            return true;
        }
    }
    return false;
}

static void
secure_answer(struct script *s, SSL *ssl, const char *head)
{
    char part[16384];
    int left;

    switch (atomic_load(&s->step)) {
    case 1:                             /* 8 MiB down */
        SSL_write(ssl, "HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n", 44);
        for (int i = 0; i < 8; i++)
            if (SSL_write(ssl, big, sizeof big) <= 0)
                return;
        break;
    case 2:                             /* ends as the connection: with close_notify, then not */
    case 3:
        SSL_write(ssl, "HTTP/1.1 200 OK\r\n\r\nhello", 24);
        if (atomic_load(&s->step) == 2)
            SSL_shutdown(ssl);
        break;
    default:
        left = strstr(head, "Content-Length: 8388608") != NULL ? 8388608 : 0;
        while (left > 0) {
            int n = SSL_read(ssl, part, sizeof part);

            if (n <= 0)
                return;
            left -= n;
        }
        SSL_write(ssl, OK_TEXT, sizeof OK_TEXT - 1);
    }
}

static void
serve_tls(struct script *s, int fd, unsigned nth)
{
    SSL *ssl = SSL_new(ctx);
    char head[8192];

    (void)nth;
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1) {
        const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

        snprintf(sni, sizeof sni, "%s", name != NULL ? name : "");
        while (secure_head(s, ssl, head, sizeof head)) {
            secure_answer(s, ssl, head);
            if (atomic_load(&s->step) >= 2)
                break;
        }
    }
    SSL_free(ssl);
}

static void
secure_kit(struct kit *k, struct script *sc, const char *name, bool trusted)
{
    script_start(sc, serve_tls);
    kit_start(k, 2);
    kit_url(k, "https", "127.0.0.1", sc->port);
    k->conf.host = name;
    k->conf.tls_ca_file = trusted ? ca_file : NULL;
    k->conf.retry_attempts = 0;
    kit_open(k);
}

static void
a_certificate_of_that_name_is_accepted_and_the_connection_kept(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    secure_kit(&k, &sc, "origin.test:8443", true);
    for (int i = 0; i < 3; i++) {
        shot_do(&s, &k, 0, "GET");
        assert_int_equal(s.faults, 0);
        assert_body(&s, "hello");
        assert_int_equal(s.times.reused, i > 0);
        shot_fini(&s);
    }
    assert_string_equal(sni, "origin.test");
    kit_end(&k, &sc);
    secure_kit(&k, &sc, NULL, true);    /* its address is in the certificate too */
    shot_hello(&k, 0);
    assert_string_equal(sni, "");
    kit_end(&k, &sc);
}

static void
a_wrong_name_and_an_unknown_authority_are_refused_unless_told(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    secure_kit(&k, &sc, "other.test", true);
    shot_do(&s, &k, 0, "GET");
    assert_fault(&s, 502, "tls_certificate_error");
    assert_false(s.fault.reached);
    assert_int_equal(atomic_load(&sc.requests), 0);
    shot_fini(&s);
    kit_end(&k, &sc);
    secure_kit(&k, &sc, "origin.test", false);
    shot_do(&s, &k, 0, "GET");
    assert_fault(&s, 502, "tls_certificate_error");
    assert_int_equal(atomic_load(&sc.requests), 0);
    shot_fini(&s);
    origin_unref(&k.o);
    k.conf.tls_verify = false;
    kit_open(&k);
    shot_hello(&k, 0);
    kit_end(&k, &sc);
}

static void
serve_no_tls(struct script *s, int fd, unsigned nth)
{
    (void)s;
    (void)nth;
    say(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
    read_n(fd, 1 << 20);
}

static void
an_origin_that_speaks_no_tls_is_a_502(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    script_start(&sc, serve_no_tls);
    kit_start(&k, 1);
    kit_url(&k, "https", "127.0.0.1", sc.port);
    k.conf.retry_attempts = 0;
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    assert_fault(&s, 502, "tls_protocol_error");
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
a_bad_authority_file_is_told_at_once(void **state)
{
    struct kit k;
    struct err e;

    (void)state;
    kit_start(&k, 1);
    kit_url(&k, "https", "127.0.0.1", 1);
    k.conf.tls_ca_file = "/nonexistent.pem";
    assert_null(origin_open(k.u, &k.conf, &e));
    assert_non_null(strstr(e.text, "tls.ca_file: /nonexistent.pem"));
    kit_stop(&k);
}

static int uploaded;

static void
upload(struct shot *s)
{
    while (s->x != NULL && !exchange_full(s->x) && uploaded < 8) {
        exchange_send(s->x, (struct slice){ big, sizeof big });
        if (++uploaded == 8)
            exchange_send_end(s->x, (struct slice){ NULL, 0 });
    }
}

static void
on_drain_upload(struct shot *s, enum when w)
{
    if (w == ON_DRAIN)
        upload(s);
}

static void
pause_once(struct shot *s, enum when w)
{
    if (w == ON_DATA && s->continues++ == 0)
        exchange_pause(s->x, true);
}

static void
go_on(struct shot *s)
{
    exchange_pause(s->x, false);
}

static void
large_bodies_pass_both_ways(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    secure_kit(&k, &sc, "origin.test", true);
    uploaded = 0;
    shot_init(&s, &k, 0, "POST");
    s.r.body = HTTP_LENGTH;
    s.r.length = 8388608;
    s.started = upload;
    s.hook = on_drain_upload;
    shot_fire(&s);
    shot_wait(&s);
    assert_body(&s, "hello");
    shot_fini(&s);
    atomic_store(&sc.step, 1);
    shot_init(&s, &k, 0, "GET");
    s.hook = pause_once;
    shot_begin(&s);
    nap_ms(100);
    shot_act(&s, go_on);
    shot_wait(&s);
    assert_int_equal(s.ends, 1);
    assert_int_equal(s.body.n, 8388608);
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
a_body_that_ends_with_the_connection_needs_close_notify(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    secure_kit(&k, &sc, "origin.test", true);
    atomic_store(&sc.step, 2);
    shot_do(&s, &k, 0, "GET");
    assert_int_equal(s.ends, 1);
    assert_body(&s, "hello");
    shot_fini(&s);
    atomic_store(&sc.step, 3);
    shot_do(&s, &k, 0, "GET");
    assert_fault(&s, 502, "http_response_incomplete");
    assert_true(s.fault.mid_body);
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
a_waiting_request_gets_a_secure_connection_on_any_worker(void **state)
{
    enum { N = 8 };
    struct script sc;
    struct kit k;
    struct shot s[N];

    (void)state;
    secure_kit(&k, &sc, "origin.test", true);
    origin_unref(&k.o);
    k.conf.pool_max = 1;
    kit_open(&k);
    for (unsigned i = 0; i < N; i++) {
        shot_init(&s[i], &k, i % 2, "GET");
        shot_fire(&s[i]);
    }
    for (unsigned i = 0; i < N; i++) {
        shot_wait(&s[i]);
        assert_body(&s[i], "hello");
        shot_fini(&s[i]);
    }
    kit_end(&k, &sc);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_certificate_of_that_name_is_accepted_and_the_connection_kept),
        cmocka_unit_test(a_wrong_name_and_an_unknown_authority_are_refused_unless_told),
        cmocka_unit_test(an_origin_that_speaks_no_tls_is_a_502),
        cmocka_unit_test(a_bad_authority_file_is_told_at_once),
        cmocka_unit_test(large_bodies_pass_both_ways),
        cmocka_unit_test(a_body_that_ends_with_the_connection_needs_close_notify),
        cmocka_unit_test(a_waiting_request_gets_a_secure_connection_on_any_worker),
    };

    return cmocka_run_group_tests(tests, make_certificates, drop_certificates);
}
