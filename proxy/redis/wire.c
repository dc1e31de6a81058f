/*
 * The bytes of a connection: of the socket, or of OpenSSL over it.
 *
 * Model    TLS 1.2 at least, no renegotiation. Certificates are verified against `server_name`,
 *          else the server's host as configured, or as Sentinel or the cluster told it. A
 *          connection that ends without close_notify ends like any other: RESP says itself
 *          whether an answer is whole. OpenSSL writes with write(2): the process ignores SIGPIPE.
 */
#include "redis/inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>

static int
load_files(SSL_CTX *ctx, const struct redis_conf *c, struct err *e)
{
    if (c->ca_file == NULL)
        SSL_CTX_set_default_verify_paths(ctx);
    else if (SSL_CTX_load_verify_locations(ctx, c->ca_file, NULL) != 1)
        return err_set(e, 0, "redis: %s: no certificates in PEM form could be read", c->ca_file);
    if (c->cert_file == NULL)
        return 0;
    if (SSL_CTX_use_certificate_chain_file(ctx, c->cert_file) != 1)
        return err_set(e, 0, "redis: %s: no certificate in PEM form could be read", c->cert_file);
    if (c->key_file == NULL || SSL_CTX_use_PrivateKey_file(ctx, c->key_file, SSL_FILETYPE_PEM) != 1)
        return err_set(e, 0, "redis: %s: no private key in PEM form that fits %s could be read",
            c->key_file != NULL ? c->key_file : "no key file", c->cert_file);
    return 0;
}

SSL_CTX *
redis_tls_context(const struct redis_conf *c, struct err *e)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (ctx == NULL) {
        err_set(e, ENOMEM, "redis: TLS: out of memory");
        return NULL;
    }
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(ctx, c->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (load_files(ctx, c, e) == -1) {
        ERR_clear_error();
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

/* The name to ask for and to find in the certificate. */
static bool
set_name(SSL *ssl, const char *name)
{
    struct in6_addr any;

    if (inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1;
}

bool
wire_secure(struct link *l)
{
    const struct redis *r = l->node->side->r;
    const char *name = r->conf.server_name != NULL ? r->conf.server_name : l->node->server->host;

    l->ssl = SSL_new(r->tls);
    return l->ssl != NULL && set_name(l->ssl, name) && SSL_set_fd(l->ssl, l->fd) == 1;
}

static enum wire
failed(struct link *l, int rc)
{
    switch (SSL_get_error(l->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return WIRE_MORE;
    case SSL_ERROR_ZERO_RETURN:
        return WIRE_END;
    default:
        return WIRE_BROKEN;
    }
}

enum wire
wire_handshake(struct link *l, bool *done)
{
    int rc;

    ERR_clear_error();
    rc = SSL_connect(l->ssl);
    *done = rc == 1;
    return *done ? WIRE_MORE : failed(l, rc);
}

void
wire_why(struct link *l, char *text, size_t size)
{
    unsigned long code = ERR_get_error();
    long verdict = l->ssl != NULL ? SSL_get_verify_result(l->ssl) : X509_V_OK;

    if (verdict != X509_V_OK)
        snprintf(text, size, "TLS: the certificate: %s", X509_verify_cert_error_string(verdict));
    else if (code != 0)
        snprintf(text, size, "TLS: %s", ERR_reason_error_string(code));
    else
        snprintf(text, size, "TLS: the connection ended");
    ERR_clear_error();
}

ssize_t
redis_wire_read(struct link *l, void *bytes, size_t n)
{
    ssize_t got;

    if (l->ssl != NULL) {
        ERR_clear_error();
        got = SSL_read(l->ssl, bytes, (int)n);
        return got > 0 ? got : failed(l, (int)got);
    }
    got = recv(l->fd, bytes, n, 0);
    if (got > 0)
        return got;
    return got == 0 ? WIRE_END : errno == EAGAIN || errno == EINTR ? WIRE_MORE : WIRE_BROKEN;
}

ssize_t
redis_wire_write(struct link *l, const void *bytes, size_t n)
{
    ssize_t put;

    if (l->ssl != NULL) {
        ERR_clear_error();
        put = SSL_write(l->ssl, bytes, (int)(n < (1 << 30) ? n : 1 << 30));
        return put > 0 ? put : failed(l, (int)put);
    }
    put = send(l->fd, bytes, n, MSG_NOSIGNAL);
    return put >= 0 ? put : errno == EAGAIN || errno == EINTR ? WIRE_MORE : WIRE_BROKEN;
}
