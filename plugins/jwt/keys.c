/*
 * Keys of a JWK set (RFC 7517), and signatures by them (RFC 7515, 7518, 8037).
 *
 * Model    a key takes those algorithms that its type is for, and of these the one that its own
 *          `alg` names, if it does: an RSA key's public half is never taken for a shared secret.
 *          Keys that are for encryption, or of types that are not known here, are left out; one
 *          that is malformed or too weak is an error.
 * Threads  a set is read only; any.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>

#include "plugins/jwt/jwt.h"

#define SECRET_MIN 32                   /* RFC 7518 3.2: as long as the hash */
#define RSA_MIN    2048                 /* 3.3 */

static const struct algorithm algorithms[] = {
    { "HS256", KEY_SECRET, 256, 0 },  { "HS384", KEY_SECRET, 384, 0 },
    { "HS512", KEY_SECRET, 512, 0 },
    { "RS256", KEY_RSA, 256, 0 },     { "RS384", KEY_RSA, 384, 0 },   { "RS512", KEY_RSA, 512, 0 },
    { "ES256", KEY_P256, 256, 32 },   { "ES384", KEY_P384, 384, 48 },
    { "ES512", KEY_P521, 512, 66 },
    { "EdDSA", KEY_ED25519, 0, 0 },
};

static const struct { const char *name, *group; enum key_type type; size_t n; } curves[] = {
    { "P-256", "prime256v1", KEY_P256, 32 }, { "P-384", "secp384r1", KEY_P384, 48 },
    { "P-521", "secp521r1", KEY_P521, 66 },
};

const struct algorithm *
algorithm_find(const char *name)
{
    for (size_t i = 0; i < sizeof algorithms / sizeof algorithms[0]; i++)
        if (strcmp(algorithms[i].name, name) == 0)
            return &algorithms[i];
    return NULL;
}

/* ---- base64url (RFC 7515 2: without padding) ------------------------------------------------- */

static int
digit(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 :
        c >= '0' && c <= '9' ? c - '0' + 52 : c == '-' ? 62 : c == '_' ? 63 : -1;
}

long
base64url(const char *p, size_t n, unsigned char *out)
{
    unsigned bits = 0, have = 0;
    size_t k = 0;

    if (n % 4 == 1)
        return -1;
    for (size_t i = 0; i < n; i++) {
        int d = digit(p[i]);

        if (d < 0)
            return -1;
        bits = bits << 6 | (unsigned)d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[k++] = (unsigned char)(bits >> have);
        }
    }
    return (bits & ((1u << have) - 1)) == 0 ? (long)k : -1;
}

/* A member of a JWK, decoded; the caller frees it. NULL: it has none, or no such one. */
static unsigned char *
bytes_of(const json_t *jwk, const char *name, size_t *n)
{
    const char *text = json_string_value(json_object_get(jwk, name));
    unsigned char *out = text != NULL ? malloc(strlen(text) + 1) : NULL;
    long k = out != NULL ? base64url(text, strlen(text), out) : -1;

    if (k <= 0) {
        free(out);
        return NULL;
    }
    *n = (size_t)k;
    return out;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static EVP_PKEY *
public_key(const char *type, OSSL_PARAM_BLD *build)
{
    OSSL_PARAM *params = build != NULL ? OSSL_PARAM_BLD_to_param(build) : NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;

    if (params == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) <= 0 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) <= 0)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return key;
}

static const char *
read_rsa(const json_t *jwk, struct key *k)
{
    size_t n_n = 0, e_n = 0;
    unsigned char *n = bytes_of(jwk, "n", &n_n), *e = bytes_of(jwk, "e", &e_n);
    BIGNUM *bn = n != NULL ? BN_bin2bn(n, (int)n_n, NULL) : NULL;
    BIGNUM *be = e != NULL ? BN_bin2bn(e, (int)e_n, NULL) : NULL;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();

    k->type = KEY_RSA;
    if (bn != NULL && be != NULL && build != NULL &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, bn) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, be))
        k->pkey = public_key("RSA", build);
    OSSL_PARAM_BLD_free(build);
    BN_free(bn);
    BN_free(be);
    free(n);
    free(e);
    return k->pkey == NULL ? "is no RSA key" :
        EVP_PKEY_get_bits(k->pkey) < RSA_MIN ? "is an RSA key of less than 2048 bits" : NULL;
}

static const char *
read_ec(const json_t *jwk, struct key *k)
{
    const char *crv = json_string_value(json_object_get(jwk, "crv"));
    size_t c = 0, x_n = 0, y_n = 0, curves_n = sizeof curves / sizeof curves[0];
    unsigned char *x = bytes_of(jwk, "x", &x_n), *y = bytes_of(jwk, "y", &y_n), point[1 + 2 * 66];
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();

    while (c < curves_n && (crv == NULL || strcmp(crv, curves[c].name) != 0))
        c++;
    if (c < curves_n && x != NULL && y != NULL && x_n == curves[c].n && y_n == x_n) {
        k->type = curves[c].type;
        point[0] = POINT_CONVERSION_UNCOMPRESSED;
        memcpy(point + 1, x, x_n);
        memcpy(point + 1 + x_n, y, y_n);
        if (build != NULL &&
            OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, curves[c].group,
                0) &&
            OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * x_n))
            k->pkey = public_key("EC", build);
    }
    OSSL_PARAM_BLD_free(build);
    free(x);
    free(y);
    return k->pkey == NULL ? "is no EC key of P-256, P-384 or P-521" : NULL;
}

static const char *
read_okp(const json_t *jwk, struct key *k)
{
    const char *crv = json_string_value(json_object_get(jwk, "crv"));
    size_t n = 0;
    unsigned char *x = bytes_of(jwk, "x", &n);

    k->type = KEY_ED25519;
    if (x != NULL && crv != NULL && strcmp(crv, "Ed25519") == 0)
        k->pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, n);
    free(x);
    return k->pkey == NULL ? "is no key of Ed25519" : NULL;
}

static const char *
read_secret(const json_t *jwk, struct key *k)
{
    k->type = KEY_SECRET;
    k->secret = bytes_of(jwk, "k", &k->secret_n);
    return k->secret == NULL ? "is no secret" :
        k->secret_n < SECRET_MIN ? "is a secret of less than 32 bytes" : NULL;
}

void
keys_free(struct keys *ks)
{
    for (size_t i = 0; i < ks->n; i++) {
        EVP_PKEY_free(ks->at[i].pkey);
        if (ks->at[i].secret != NULL)
            OPENSSL_cleanse(ks->at[i].secret, ks->at[i].secret_n);
        free(ks->at[i].secret);
        free(ks->at[i].id);
    }
    free(ks->at);
    *ks = (struct keys){ NULL, 0 };
}

/* One that is not for signatures, or of a type that is not known: left out (RFC 7517 5). */
static int
is_left_out(const json_t *jwk)
{
    static const char *const types[] = { "RSA", "EC", "OKP", "oct" };
    const char *kty = json_string_value(json_object_get(jwk, "kty"));
    const char *use = json_string_value(json_object_get(jwk, "use"));
    const char *alg = json_string_value(json_object_get(jwk, "alg"));

    if (kty == NULL || (use != NULL && strcmp(use, "sig") != 0) ||
        (alg != NULL && algorithm_find(alg) == NULL))
        return 1;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(kty, types[i]) == 0)
            return 0;
    return 1;
}

static const char *
read_key(const json_t *jwk, struct key *k)
{
    const char *kty = json_string_value(json_object_get(jwk, "kty"));
    const char *kid = json_string_value(json_object_get(jwk, "kid"));
    const char *alg = json_string_value(json_object_get(jwk, "alg"));
    const char *why = kty[0] == 'R' ? read_rsa(jwk, k) : kty[0] == 'E' ? read_ec(jwk, k) :
        kty[0] == 'O' ? read_okp(jwk, k) : read_secret(jwk, k);

    if (why != NULL)
        return why;
    k->only = alg != NULL ? algorithm_find(alg) : NULL;
    if (k->only != NULL && k->only->type != k->type)
        return "has an alg that is not for its type";
    if (kid != NULL && (k->id = strdup(kid)) == NULL)
        return "does not fit into memory";
    return NULL;
}

int
keys_read(const char *file, struct keys *ks, char *why)
{
    json_error_t e;
    json_t *set = json_load_file(file, JSON_REJECT_DUPLICATES, &e);
    const json_t *list = json_object_get(set, "keys"), *jwk;
    const char *wrong = NULL;
    size_t i;

    if (set == NULL) {
        snprintf(why, WHY_MAX, "cannot be read: %s", e.text);
        return -1;
    }
    ks->at = calloc(json_array_size(list) + 1, sizeof *ks->at);
    json_array_foreach(list, i, jwk) {
        if (ks->at == NULL || wrong != NULL || is_left_out(jwk))
            continue;
        wrong = read_key(jwk, &ks->at[ks->n++]);
        if (wrong != NULL)
            snprintf(why, WHY_MAX, "its key %zu %s", i, wrong);
    }
    if (wrong == NULL && ks->n == 0)
        snprintf(why, WHY_MAX, "has no key for signatures; a JWK set (RFC 7517)");
    json_decref(set);
    if (wrong == NULL && ks->n > 0)
        return 0;
    keys_free(ks);
    return -1;
}

/* ---- signatures ------------------------------------------------------------------------------ */

static const EVP_MD *
digest_of(const struct algorithm *a)
{
    return a->bits == 256 ? EVP_sha256() : a->bits == 384 ? EVP_sha384() :
        a->bits == 512 ? EVP_sha512() : NULL;
}

static int
by_secret(const struct algorithm *a, const struct key *k, const char *p, size_t n,
    const unsigned char *sig, size_t sig_n)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned mac_n = 0;

    return HMAC(digest_of(a), k->secret, (int)k->secret_n, (const unsigned char *)p, n, mac,
        &mac_n) != NULL && mac_n == sig_n && CRYPTO_memcmp(mac, sig, sig_n) == 0;
}

/* r and s side by side (RFC 7518 3.4), as OpenSSL wants them. NULL: they are not. */
static unsigned char *
der_of(const struct algorithm *a, const unsigned char *sig, size_t *n)
{
    ECDSA_SIG *s = *n == 2 * a->half ? ECDSA_SIG_new() : NULL;
    BIGNUM *r = s != NULL ? BN_bin2bn(sig, (int)a->half, NULL) : NULL;
    BIGNUM *t = s != NULL ? BN_bin2bn(sig + a->half, (int)a->half, NULL) : NULL;
    unsigned char *der = NULL;
    int der_n = -1;

    if (r != NULL && t != NULL && ECDSA_SIG_set0(s, r, t)) {
        r = t = NULL;                   /* the signature's now */
        der_n = i2d_ECDSA_SIG(s, &der);
    }
    BN_free(r);
    BN_free(t);
    ECDSA_SIG_free(s);
    *n = der_n > 0 ? (size_t)der_n : 0;
    return der_n > 0 ? der : NULL;
}

static int
by_public_key(const struct algorithm *a, const struct key *k, const char *p, size_t n,
    const unsigned char *sig, size_t sig_n)
{
    unsigned char *der = NULL;
    EVP_MD_CTX *ctx;
    int ok;

    if (a->half > 0 && (sig = der = der_of(a, sig, &sig_n)) == NULL)
        return 0;
    ctx = EVP_MD_CTX_new();
    ok = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, digest_of(a), NULL, k->pkey) == 1 &&
        EVP_DigestVerify(ctx, sig, sig_n, (const unsigned char *)p, n) == 1;
    EVP_MD_CTX_free(ctx);
    OPENSSL_free(der);
    return ok;
}

int
keys_verify(const struct keys *ks, const struct algorithm *a, const char *id, const char *p,
    size_t n, const unsigned char *sig, size_t sig_n)
{
    for (size_t i = 0; i < ks->n; i++) {
        const struct key *k = &ks->at[i];

        if (k->type != a->type || (k->only != NULL && k->only != a) ||
            (id != NULL && k->id != NULL && strcmp(k->id, id) != 0))
            continue;
        if (k->type == KEY_SECRET ? by_secret(a, k, p, n, sig, sig_n) :
            by_public_key(a, k, p, n, sig, sig_n))
            return 1;
    }
    return 0;
}
