/*
 * Tokens and sets of keys. The first byte says what the rest is: `t` a token; `c` the JSON of a
 * token's head and, behind a line end, of its claims, which are signed here; `k` a JWK set.
 *
 * Held to: no read or write beyond what is there; a token is let in only with a signature by our
 * secret, a time at which it ends, and the claim that is a part of the key; a set is taken, or
 * refused with a reason.
 */
#include "plugin_kit.h"

#include <jansson.h>
#include <openssl/hmac.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SECRET "0123456789abcdef0123456789abcdef"
#define OUR_SET "{\"keys\": [{\"kty\": \"oct\", \"k\": " \
    "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}"

/* ---- making tokens --------------------------------------------------------------------------- */

static void
add_base64url(struct buf *b, struct slice s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned bits = 0, have = 0;

    for (size_t i = 0; i < s.n; i++) {
        bits = bits << 8 | (unsigned char)s.p[i];
        for (have += 8; have >= 6;) {
            have -= 6;
            buf_addc(b, digits[bits >> have & 63]);
        }
    }
    if (have > 0)
        buf_addc(b, digits[bits << (6 - have) & 63]);
}

static void
add_signature(struct buf *b, struct slice of)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    HMAC(EVP_sha256(), SECRET, sizeof SECRET - 1, (const unsigned char *)of.p, of.n, mac, &n);
    add_base64url(b, (struct slice){ (const char *)mac, n });
}

static void
make_token(struct slice text, struct buf *token)
{
    struct slice head, made;

    slice_cut(&text, '\n', &head);
    add_base64url(token, head);
    buf_addc(token, '.');
    add_base64url(token, text);
    made = buf_slice(token);
    if (buf_reserve(token, 100) == NULL)
        abort();
    made.p = token->p;
    buf_addc(token, '.');
    add_signature(token, made);
}

/* ---- judging what was let in ----------------------------------------------------------------- */

static bool
is_signed(struct slice token)
{
    const char *last = memrchr(token.p, '.', token.n);
    struct buf b = { 0 };
    bool ok;

    if (last == NULL)
        return false;
    add_signature(&b, (struct slice){ token.p, (size_t)(last - token.p) });
    ok = slice_eq(buf_slice(&b), (struct slice){ last + 1, token.n - (size_t)(last + 1 - token.p) });
    buf_free(&b);
    return ok;
}

static void
require_claims(struct slice text)
{
    struct slice head;
    json_t *claims;

    slice_cut(&text, '\n', &head);
    claims = json_loadb(text.p, text.n, 0, NULL);
    require(json_is_object(claims) && json_object_get(claims, "tenant") != NULL);
    require(json_number_value(json_object_get(claims, "exp")) + 1 > (double)time(NULL) - 60);
    json_decref(claims);
}

/* ---- asking the plugin ----------------------------------------------------------------------- */

static bool
open_with(struct kit *k, struct slice set, char file[64])
{
    static const struct weir_text algorithms[] = { { "HS256", 5 } }, key[] = { { "tenant", 6 } },
        tags[] = { { "t:#sub", 6 }, { "roles", 5 } }, forward[] = { { "X-Tenant=tenant", 15 } };
    static const struct weir_value of_route[] = {
        { .set = 1, .texts = key, .ntexts = 1 }, { .set = 1, .texts = tags, .ntexts = 2 },
        { .set = 1, .texts = forward, .ntexts = 1 }, { .set = 1 }, { .set = 1, .number = 1 } };
    int fd = memfd_create("jwks", MFD_CLOEXEC);
    bool open;

    require(fd != -1 && write(fd, set.p != NULL ? set.p : "", set.n) == (ssize_t)set.n);
    snprintf(file, 64, "/proc/self/fd/%d", fd);
    open = kit_open(k, "jwt", (const struct weir_value[]){ { .set = 1, .text = { file,
        strlen(file) } }, { .set = 0 }, { .set = 0 },
        { .set = 1, .texts = algorithms, .ntexts = 1 }, { .set = 1, .number = 60000 } }, of_route);
    close(fd);
    return open;
}

/* Is a request with this token let in? */
static bool
lets_in(const struct kit *k, struct slice token)
{
    struct pool *p = pool_new();
    struct weir_request *r = plugin_request(k->uses, p);
    struct http_field fields[4];
    struct http_head h = { .fields = fields, .nfields = 1, .cap = 4 };
    struct buf value = { 0 };
    enum plugin_verdict v;

    buf_addz(&value, "Bearer ");
    buf_adds(&value, token);
    fields[0] = (struct http_field){ SLICE("Authorization"), buf_slice(&value), HF_AUTHORIZATION };
    r->head[WEIR_OF_REQUEST] = &h;
    v = plugin_run(r, HOOK_REQUEST);
    if (v == PLUGIN_NEXT)
        require(r->authorized && r->keys.n == 1 && is_signed(token) &&
            r->head[WEIR_OF_REQUEST]->nfields <= 1);        /* X-Tenant alone goes on */
    else if (v == PLUGIN_ANSWERED)
        require(r->answer_status == 401 || r->answer_status == 403);
    else
        require(v == PLUGIN_FAILED);    /* a claim that is no field's value, or too many tags */
    plugin_end(r);
    pool_free(&p);
    buf_free(&value);
    return v == PLUGIN_NEXT;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = { (const char *)data + 1, size - 1 }, token = rest;
    struct buf made = { 0 };
    char file[64];
    struct kit k;

    if (size == 0 || memchr("tck", data[0], 3) == NULL)
        return 0;
    if (!open_with(&k, data[0] == 'k' ? rest : SLICE(OUR_SET), file)) {
        require(data[0] == 'k');
        return 0;
    }
    if (data[0] != 't') {
        make_token(data[0] == 'c' ? rest : SLICE("{\"alg\": \"HS256\"}\n{\"exp\": 1, "
            "\"tenant\": 1}"), &made);
        token = buf_slice(&made);
    }
    if (lets_in(&k, token) && data[0] == 'c')
        require_claims(rest);
    buf_free(&made);
    kit_close(&k);
    return 0;
}
