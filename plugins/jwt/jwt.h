/* plugins/jwt/jwt.h -- keys, and signatures by them. */
#ifndef WEIR_PLUGIN_JWT_H
#define WEIR_PLUGIN_JWT_H

#include <stddef.h>

#include <jansson.h>
#include <openssl/evp.h>

enum key_type { KEY_SECRET, KEY_RSA, KEY_P256, KEY_P384, KEY_P521, KEY_ED25519 };

struct algorithm {
    const char *name;                   /* of JWA (RFC 7518, 8037) */
    enum key_type type;
    unsigned bits;                      /* of its hash; 0: it has its own */
    size_t half;                        /* bytes of r, and of s; 0: it has none */
};
const struct algorithm *algorithm_find(const char *name);       /* NULL: not known; "none" is not */

struct key {
    enum key_type type;
    const struct algorithm *only;       /* NULL: any for its type */
    char *id;                           /* owned; NULL: it has none */
    EVP_PKEY *pkey;                     /* owned */
    unsigned char *secret;              /* owned */
    size_t secret_n;
};
struct keys { struct key *at; size_t n; };

#define WHY_MAX 256
/* -1 with why (WHY_MAX bytes). *ks is empty before. */
int  keys_read(const char *file, struct keys *ks, char *why);
void keys_free(struct keys *ks);
/* Is sig one of these n bytes, by a key that is for the algorithm and has this id,
 * or none? id NULL: any. */
int  keys_verify(const struct keys *ks, const struct algorithm *a, const char *id, const char *p,
    size_t n, const unsigned char *sig, size_t sig_n);

/* Into out, which has room for n. -1: it is malformed. */
long base64url(const char *p, size_t n, unsigned char *out);

#endif
