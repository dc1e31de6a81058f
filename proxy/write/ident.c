/*
 * What writes are known by: whose they are, their keys and fingerprints, and their lane.
 *
 * Model    who and keys are SHA-256 of the journal's secret and what they are made of, cut: nobody
 *          can find another's credentials or key by what comes of a guess. A fingerprint only has
 *          to tell a client's own requests apart.
 */
#include "write/priv.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <xxhash.h>

enum write_lane
write_lane(const struct http_head *h)
{
    struct buf all = { 0 }, scratch = { 0 };
    enum write_lane lane = WRITE_LANE_DEFAULT;
    struct sf_item u;

    if (http_find_name(h, SLICE("Priority")) == NULL)
        return lane;
    for (unsigned i = 0; i < h->nfields; i++)
        if (slice_ieq(h->fields[i].name, SLICE("Priority"))) {
            if (all.n > 0)
                buf_addz(&all, ", ");
            buf_adds(&all, h->fields[i].value);
        }
    if (!all.failed && sf_check(SF_DICTIONARY, buf_slice(&all)) == 0 &&
        sf_dictionary_get(buf_slice(&all), SLICE("u"), &u, &scratch) && u.type == SF_INTEGER &&
        u.integer >= 0 && u.integer <= 7 && u.integer != 3)
        lane = u.integer < 3 ? WRITE_LANE_HIGH : WRITE_LANE_LOW;
    buf_free(&all);
    buf_free(&scratch);
    return lane;
}

static void
add_part(struct buf *b, struct slice s)
{
    uint64_t n = s.n;

    buf_add(b, &n, sizeof n);
    buf_adds(b, s);
}

/* false: memory is out. */
static bool
digest(struct buf *b, unsigned char out[SHA256_DIGEST_LENGTH])
{
    bool ok = !b->failed && SHA256((const unsigned char *)b->p, b->n, out) != NULL;

    buf_free(b);
    return ok;
}

static bool
put_secret(const struct writes *w, struct buf *b)
{
    const uint8_t *secret = journal_secret(w->j);

    if (secret != NULL)
        buf_add(b, secret, 32);
    return secret != NULL;
}

uint64_t
write_who(struct writes *w, const struct http_head *h)
{
    unsigned char out[SHA256_DIGEST_LENGTH];
    struct buf b = { 0 };
    uint64_t who;

    CHECK(w, WRITES_MAGIC);
    if (!put_secret(w, &b)) {
        random_bytes(&who, sizeof who);         /* nobody's, and the journal takes nothing */
        return who;
    }
    for (unsigned i = 0; i < h->nfields; i++)
        if (h->fields[i].id == HF_AUTHORIZATION || h->fields[i].id == HF_COOKIE) {
            buf_addc(&b, h->fields[i].id == HF_COOKIE ? 'c' : 'a');
            add_part(&b, h->fields[i].value);
        }
    if (!digest(&b, out)) {
        random_bytes(&who, sizeof who);         /* nobody's */
        return who;
    }
    memcpy(&who, out, sizeof who);
    return who;
}

int
ident_key(struct writes *w, const struct write_request *r, struct slice url, unsigned part,
    uint8_t key[16], uint8_t fingerprint[16])
{
    unsigned char out[SHA256_DIGEST_LENGTH];
    struct buf b = { 0 };
    XXH128_hash_t x;

    if (!put_secret(w, &b)) {           /* the journal takes nothing */
        random_bytes(key, 16);
        random_bytes(fingerprint, 16);
        return 0;
    }
    buf_addc(&b, 'k');
    add_part(&b, r->idempotency_key);
    add_part(&b, url);
    buf_add(&b, &r->who, sizeof r->who);
    if (!digest(&b, out))
        return -1;
    memcpy(key, out, 16);
    key[0] = (uint8_t)((key[0] & ~(JOURNAL_PARTS - 1u)) | part);
    add_part(&b, r->method_name);
    add_part(&b, r->type);
    if (b.failed) {
        buf_free(&b);
        return -1;
    }
    x = XXH3_128bits_withSeed(r->body.p, r->has_body ? r->body.n : 0, XXH3_64bits(b.p, b.n));
    buf_free(&b);
    memcpy(fingerprint, &x, 16);
    return 0;
}

void
ident_hex(const uint8_t key[16], char id[WRITE_ID_N + 1])
{
    *put_hex_bytes(id, key, 16) = '\0';
}

uint64_t
ident_order(struct slice key)
{
    return XXH3_64bits(key.p, key.n);
}
