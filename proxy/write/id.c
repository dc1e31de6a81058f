/*
 * The id of a write: its seq and a constant, encrypted.
 *
 * Model    one block of AES-128 under the journal's own secret: 128 bits that nobody can guess or
 *          count by, from which the seq is had back without an index. A guess decrypts to the
 *          constant once in 2^64.
 * Moved    a write that was moved from a file into Redis has the seq that journal_moved says, in
 *          one of the partitions, and keeps it when it is moved back. An id that a file gave has a
 *          constant of its own, by which it is known that all are to be looked at; so it is found
 *          wherever its write is now. Ids that Redis gave hold their seq, also in a file.
 * Threads  any; but journal_id_seq, which may read: the write loop. A context a call, since one
 *          must not be shared.
 */
#include "write/share.h"

#include <endian.h>
#include <openssl/evp.h>

#define ID_BYTES 16
#define OF_FILE  0x7765697277726974ull  /* "weirwrit" */
#define OF_FLEET 0x7765697273686172ull  /* "weirshar" */

static bool
crypt_block(const struct journal *j, bool encrypt, const uint64_t in[2], uint64_t out[2])
{
    const uint8_t *secret = journal_secret(j);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int n = 0;
    bool ok = c != NULL && secret != NULL
        && EVP_CipherInit_ex(c, EVP_aes_128_ecb(), NULL, secret, NULL, encrypt) == 1
        && EVP_CIPHER_CTX_set_padding(c, 0) == 1
        && EVP_CipherUpdate(c, (unsigned char *)out, &n, (const unsigned char *)in, ID_BYTES) == 1
        && n == ID_BYTES;

    EVP_CIPHER_CTX_free(c);
    return ok;
}

void
journal_id(const struct journal *j, uint64_t seq, char id[WRITE_ID_N + 1])
{
    bool fleet = journal_shared(j) || seq <= j->shared_upto;
    uint64_t in[2] = { htole64(seq), htole64(fleet ? OF_FLEET : OF_FILE) }, out[2] = { 0 };

    crypt_block(j, true, in, out);      /* without memory: the id of nothing, which nobody finds */
    *put_hex_bytes(id, out, ID_BYTES) = '\0';
}

/* Of what a file gave: where it is now. That of no row where there is none. -1: cannot be told. */
static int
moved_to(struct journal *j, uint64_t old, uint64_t *seq)
{
    int rc = 0;

    *seq = 0;
    if (old >= JOURNAL_MOVABLE)
        return 0;
    *seq = journal_moved(old, 0, 0);
    if (j->share != NULL)
        return share_find(j->share, old, seq);
    for (unsigned part = 0; part < JOURNAL_PARTS && rc == 0; part++)
        if ((rc = journal_has(j, journal_moved(old, 0, part))) == 1)
            *seq = journal_moved(old, 0, part);
    return rc == -1 ? -1 : 0;
}

int
journal_id_seq(struct journal *j, struct slice id, uint64_t *seq)
{
    uint64_t in[2], out[2], old;

    if (!slice_hex_bytes(id, in, ID_BYTES))     /* lower case alone: an id has one spelling */
        return 0;
    if (!crypt_block(j, false, in, out))
        return -1;
    if (le64toh(out[1]) != OF_FILE && le64toh(out[1]) != OF_FLEET)
        return 0;
    old = le64toh(out[0]);
    *seq = old;
    if (le64toh(out[1]) == OF_FLEET || (j->share == NULL && old > j->shared_upto))
        return 1;
    return moved_to(j, old, seq) == 0 ? 1 : -1;
}
