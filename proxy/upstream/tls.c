/*
 * A connection over TLS: OpenSSL under libevent's bufferevent, behind the same few functions as a
 * plain one.
 *
 * Model    the socket is connected first (wire.c), then a bufferevent takes it through the
 *          handshake. Its callbacks are deferred: a write that fails inside exchange_start must
 *          not call back from there. What it decrypts is taken in worker-sized pieces exactly like
 *          what recv gives; what is written waits in its output up to 64 KiB.
 *          Certificates are verified against the name
 *          that the origin's configuration gives, else the server's (RFC 9110 4.3.4), TLS 1.2 at
 *          least, ALPN http/1.1. A connection that ends without close_notify is a reset: a body
 *          that ends with the connection may have been cut (RFC 9112 9.8).
 *          OpenSSL writes with write(2): the process ignores SIGPIPE.
 * Not here when to verify and which authorities: tls_context, from the origin's configuration.
 */
#include "upstream/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

SSL_CTX *
tls_context(const struct conf_origin *c, struct err *e)
{
    static const unsigned char alpn[] = "\x08http/1.1";
    const char *ca = c->tls_ca_file != NULL && c->tls_ca_file[0] != '\0' ? c->tls_ca_file : NULL;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (ctx == NULL) {
        err_set(e, ENOMEM, "origin %s: TLS: out of memory", c->id);
        return NULL;
    }
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_protos(ctx, alpn, sizeof alpn - 1);
    SSL_CTX_set_verify(ctx, c->tls_verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (ca != NULL && SSL_CTX_load_verify_locations(ctx, ca, NULL) != 1) {
        err_set(e, 0, "origin %s: tls.ca_file: %s: no certificates in PEM form could be read",
            c->id, ca);
        ERR_clear_error();
        SSL_CTX_free(ctx);
        return NULL;
    }
    if (ca == NULL)
        SSL_CTX_set_default_verify_paths(ctx);
    return ctx;
}

/* The name to ask for and to find in the certificate. */
static int
set_name(SSL *ssl, const char *name)
{
    struct in6_addr any;

    if (inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name);
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1;
}

static void
on_read(struct bufferevent *bev, void *arg)
{
    struct wire *c = arg;

    (void)bev;
    wire_enter(c);
    if (c->reading)
        tls_pump(c);
    wire_leave(c);
}

static void
on_write(struct bufferevent *bev, void *arg)
{
    struct wire *c = arg;

    wire_enter(c);
    if (c->finishing && evbuffer_get_length(bufferevent_get_output(bev)) == 0)
        SSL_shutdown(bufferevent_openssl_get_ssl(bev));
    wire_writable(c);
    wire_leave(c);
}

static void
on_event(struct bufferevent *bev, short what, void *arg)
{
    struct wire *c = arg;
    bool handshake = c->state == WIRE_HANDSHAKE;

    wire_enter(c);
    if (what & BEV_EVENT_CONNECTED) {
        wire_up(c);
    } else if (handshake) {
        SSL *ssl = bufferevent_openssl_get_ssl(bev);

        wire_trouble(c, SSL_get_verify_result(ssl) != X509_V_OK ? WIRE_CERTIFICATE : WIRE_TLS);
    } else if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
        if (c->reading)
            tls_pump(c);                /* what came before the end */
        c->over = true;
        c->clean = (what & BEV_EVENT_EOF) != 0;
        if (c->reading)
            tls_pump(c);
    }
    wire_leave(c);
}

int
tls_start(struct wire *c)
{
    SSL *ssl = NULL;

    pthread_mutex_lock(&c->s->mtx);
    if (c->s->tls != NULL)
        ssl = SSL_new(c->s->tls);
    pthread_mutex_unlock(&c->s->mtx);
    if (ssl == NULL || set_name(ssl, c->s->tls_name) != 1) {
        SSL_free(ssl);
        return -1;
    }
    c->tls = bufferevent_openssl_socket_new(c->w->base, c->fd, ssl, BUFFEREVENT_SSL_CONNECTING,
        BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    if (c->tls == NULL) {
        SSL_free(ssl);
        return -1;
    }
    bufferevent_setcb(c->tls, on_read, on_write, on_event, c);
    bufferevent_setwatermark(c->tls, EV_WRITE, KIB64 / 2, 0);
    bufferevent_setwatermark(c->tls, EV_READ, 0, KIB64);
    bufferevent_enable(c->tls, EV_WRITE);
    return 0;
}

void
tls_stop(struct wire *c)
{
    SSL *ssl = bufferevent_openssl_get_ssl(c->tls);

    bufferevent_setcb(c->tls, NULL, NULL, NULL, NULL);
    SSL_set_quiet_shutdown(ssl, 1);
    bufferevent_free(c->tls);           /* closes the socket */
    c->tls = NULL;
}

ssize_t
tls_write(struct wire *c, const struct iovec *iov, int n)
{
    struct evbuffer *out = bufferevent_get_output(c->tls);
    size_t room = evbuffer_get_length(out) < KIB64 ? KIB64 - evbuffer_get_length(out) : 0;
    ssize_t took = 0;

    if (c->over) {
        errno = EPIPE;
        return -1;
    }
    for (int i = 0; i < n && room > 0; i++) {
        size_t part = iov[i].iov_len < room ? iov[i].iov_len : room;

        if (evbuffer_add(out, iov[i].iov_base, part) == -1) {
            errno = ENOMEM;
            return -1;
        }
        room -= part;
        took += (ssize_t)part;
    }
    COUNT_N(origin_bytes_out, took);
    return took;
}

/* close_notify goes out behind what is in the output. */
void
tls_finish(struct wire *c)
{
    c->finishing = true;
    if (evbuffer_get_length(bufferevent_get_output(c->tls)) == 0)
        SSL_shutdown(bufferevent_openssl_get_ssl(c->tls));
    else
        bufferevent_setwatermark(c->tls, EV_WRITE, 0, 0);       /* on_write once it is empty */
}

void
tls_pump(struct wire *c)
{
    struct evbuffer *in = bufferevent_get_input(c->tls);
    bool again = true;

    while (again && c->state != WIRE_CLOSED && c->reading) {
        size_t have = wire_load(c);
        int n = evbuffer_remove(in, c->w->bytes + have,
            READ_MAX < sizeof c->w->bytes - have ? READ_MAX : sizeof c->w->bytes - have);

        again = n > 0;
        if (n > 0 || c->state == WIRE_BUSY)
            wire_bytes(c, n > 0 ? (size_t)n : 0);
    }
    if (c->state != WIRE_CLOSED && c->reading && c->over && evbuffer_get_length(in) == 0)
        wire_trouble(c, c->clean ? WIRE_EOF : WIRE_RESET);
}
