/*
 * jwt -- lets requests in that bring a signed token (RFC 7519), and keeps answers apart by what it
 * says.
 *
 * Model    the token of `Authorization: Bearer` is verified with each request, also where the
 *          answer is stored. Its algorithm has to be one that the configuration allows and that the
 *          key is for; it has to say when it expires. Claims that the route names become parts of
 *          the cache key: then an answer is shared by those for whom these claims are the same, and
 *          by nobody else, and may be stored although the request was authorized. A route that
 *          names none stores only what RFC 9111 3.5 lets a shared cache store.
 *          The file of keys is read again when it changes; a bad one leaves them as they were.
 * Threads  hooks read keys under a lock that only a new file takes for writing.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "plugins/abi.h"
#include "plugins/jwt/jwt.h"
#include "plugins/watched.h"

#define TOKEN_MAX 8192

struct plugin {
    struct weir_self *self;
    struct watched file;                /* main thread */
    struct weir_text issuer;            /* these are the configuration's; .p NULL: any */
    const struct weir_text *audience, *algorithms;
    size_t naudience, nalgorithms;
    double leeway_s;
    pthread_rwlock_t lock;
    struct keys keys;                   /* under lock */
};

struct route {
    const struct weir_text *key, *tags, *forward;
    size_t nkey, ntags, nforward;
    int optional, strip;
};

static const struct weir_host *host;
static struct weir_counter *refused, *reloads, *bad_files;
static struct weir_timer *verifying;

static struct weir_text
text_of(const char *z)
{
    return (struct weir_text){ z, strlen(z) };
}

/* ---- the token ------------------------------------------------------------------------------- */

/* A part of the token as JSON; NULL: it is none. */
static json_t *
json_of(const char *p, size_t n)
{
    unsigned char bytes[TOKEN_MAX];
    long k = n < sizeof bytes ? base64url(p, n, bytes) : -1;

    return k <= 0 ? NULL :
        json_loadb((const char *)bytes, (size_t)k, JSON_REJECT_DUPLICATES, NULL);
}

static const struct algorithm *
allowed(const struct plugin *p, const json_t *head)
{
    const char *alg = json_string_value(json_object_get(head, "alg"));

    for (size_t i = 0; alg != NULL && i < p->nalgorithms; i++)
        if (strcmp(p->algorithms[i].p, alg) == 0)
            return algorithm_find(alg);
    return NULL;
}

static int
is_signed(struct plugin *p, const json_t *head, const char *token, size_t n,
    const char *sig, size_t sig_n)
{
    const struct algorithm *a = allowed(p, head);
    unsigned char bytes[TOKEN_MAX];
    long k = sig_n < sizeof bytes ? base64url(sig, sig_n, bytes) : -1;
    struct timespec before, after;
    int ok;

    if (a == NULL || k <= 0 || json_object_get(head, "crit") != NULL)   /* RFC 7515 4.1.11 */
        return 0;
    clock_gettime(CLOCK_MONOTONIC, &before);
    pthread_rwlock_rdlock(&p->lock);
    ok = keys_verify(&p->keys, a, json_string_value(json_object_get(head, "kid")), token, n, bytes,
        (size_t)k);
    pthread_rwlock_unlock(&p->lock);
    clock_gettime(CLOCK_MONOTONIC, &after);
    host->observe(verifying, (uint64_t)(after.tv_sec - before.tv_sec) * 1000000000 +
        (uint64_t)after.tv_nsec - (uint64_t)before.tv_nsec);
    return ok;
}

static int
is_for(const struct plugin *p, const char *name)
{
    for (size_t i = 0; name != NULL && i < p->naudience; i++)
        if (strcmp(p->audience[i].p, name) == 0)
            return 1;
    return 0;
}

/* NULL, or why the claims do not hold (RFC 7519 4.1). */
static const char *
judge(const struct plugin *p, const json_t *claims)
{
    const json_t *exp = json_object_get(claims, "exp"), *nbf = json_object_get(claims, "nbf");
    const json_t *iss = json_object_get(claims, "iss"), *aud = json_object_get(claims, "aud"), *one;
    double now = (double)time(NULL);
    size_t i;
    int ours = p->naudience == 0 || is_for(p, json_string_value(aud));

    if (!json_is_number(exp))
        return "the token does not say when it expires";
    if (!(json_number_value(exp) + p->leeway_s > now))
        return "the token has expired";
    if (nbf != NULL && (!json_is_number(nbf) || !(json_number_value(nbf) - p->leeway_s <= now)))
        return "the token is not valid yet";
    if (p->issuer.p != NULL &&
        (!json_is_string(iss) || strcmp(json_string_value(iss), p->issuer.p) != 0))
        return "the token is of another issuer";
    json_array_foreach(aud, i, one)
        ours = ours || is_for(p, json_string_value(one));
    return ours ? NULL : "the token is for another audience";
}

/* The claims of a token that holds; else NULL with *why. */
static json_t *
claims_of(struct plugin *p, struct weir_text token, const char **why)
{
    const char *dot = memchr(token.p, '.', token.n), *end = token.p + token.n;
    const char *last = dot != NULL ? memchr(dot + 1, '.', (size_t)(end - dot - 1)) : NULL;
    json_t *head = NULL, *claims = NULL;

    *why = "the token is not valid";
    if (last == NULL || token.n > TOKEN_MAX)
        return NULL;
    head = json_of(token.p, (size_t)(dot - token.p));
    if (head != NULL && is_signed(p, head, token.p, (size_t)(last - token.p), last + 1,
            (size_t)(end - last - 1)))
        claims = json_of(dot + 1, (size_t)(last - dot - 1));
    json_decref(head);
    *why = claims != NULL && json_is_object(claims) ? judge(p, claims) : *why;
    if (*why == NULL)
        return claims;
    json_decref(claims);
    return NULL;
}

/* ---- what its claims do ---------------------------------------------------------------------- */

/* Of a string, a number or a boolean, in the request's memory; .p NULL: it is none. */
static struct weir_text
scalar(struct weir_request *r, const json_t *v)
{
    char *text = NULL, *copy = NULL;

    if (json_is_string(v))
        text = strdup(json_string_value(v));
    else if (json_is_number(v) || json_is_boolean(v))
        text = json_dumps(v, JSON_ENCODE_ANY);
    if (text != NULL && (copy = host->alloc(r, strlen(text) + 1)) != NULL)
        strcpy(copy, text);
    free(text);
    return copy != NULL ? text_of(copy) : (struct weir_text){ NULL, 0 };
}

/* Any value, so that different ones are different texts. */
static int
add_key(struct weir_request *r, const char *name, const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    int rc = text != NULL ? host->add_key(r, name, text_of(text)) : -1;

    free(text);
    return rc;
}

static int
add_tag(struct weir_request *r, const char *prefix, size_t n, const json_t *v)
{
    struct weir_text value = scalar(r, v);
    char *tag = value.p != NULL ? host->alloc(r, n + value.n) : NULL;

    if (tag == NULL)
        return 0;                       /* what is no scalar is no tag */
    memcpy(tag, prefix, n);
    memcpy(tag + n, value.p, value.n);
    return host->add_tag(r, (struct weir_text){ tag, n + value.n });
}

/* "prefix#claim", or "claim": one tag, or one for each element. */
static int
add_tags(struct weir_request *r, const char *what, const json_t *claims)
{
    const char *mark = strchr(what, '#');
    size_t n = mark != NULL ? (size_t)(mark - what) : 0, i;
    const json_t *v = json_object_get(claims, mark != NULL ? mark + 1 : what), *one;
    int rc = 0;

    if (!json_is_array(v))
        return add_tag(r, what, n, v);
    json_array_foreach(v, i, one)
        rc = rc == 0 ? add_tag(r, what, n, one) : rc;
    return rc;
}

/* "Field=claim": the origin gets the claim in the field, and nothing else that the client said. */
static int
forward(struct weir_request *r, const char *what, const json_t *claims)
{
    const char *equals = strchr(what, '=');
    struct weir_text none = { NULL, 0 };
    char field[128];

    snprintf(field, sizeof field, "%.*s", (int)(equals - what), what);
    return host->set_field(r, WEIR_OF_REQUEST, field, claims == NULL ? none :
        scalar(r, json_object_get(claims, equals + 1)));
}

/* -1: memory is out, or a claim does not fit. */
static int
apply(struct weir_request *r, const struct route *its, const json_t *claims)
{
    for (size_t i = 0; i < its->nforward; i++)
        if (forward(r, its->forward[i].p, claims) == -1)
            return -1;
    if (claims == NULL)
        return 0;
    for (size_t i = 0; i < its->nkey; i++)
        if (add_key(r, its->key[i].p, json_object_get(claims, its->key[i].p)) == -1)
            return -1;
    for (size_t i = 0; i < its->ntags; i++)
        if (add_tags(r, its->tags[i].p, claims) == -1)
            return -1;
    if (its->nkey > 0 && host->mark(r, WEIR_MARK_AUTHORIZED) == -1)
        return -1;
    return its->strip ? host->set_field(r, WEIR_OF_REQUEST, "Authorization",
        (struct weir_text){ NULL, 0 }) : 0;
}

/* RFC 6750 3. */
static int
refuse(struct weir_request *r, unsigned status, const char *why, int invalid)
{
    if (host->number(r, WEIR_EXPLAINED) != 1)
        host->count(refused, 1);
    host->set_field(r, WEIR_OF_RESPONSE, "WWW-Authenticate", text_of(status == 403 ?
        "Bearer error=\"insufficient_scope\"" : invalid ? "Bearer error=\"invalid_token\"" :
        "Bearer"));
    return host->refuse(r, status, why);
}

static const char *
missing(const struct route *its, const json_t *claims)
{
    for (size_t i = 0; i < its->nkey; i++)
        if (json_object_get(claims, its->key[i].p) == NULL)
            return its->key[i].p;
    return NULL;
}

static int
request(void *plugin, void *route, struct weir_request *r)
{
    struct weir_text given = host->field(r, WEIR_OF_REQUEST, "Authorization", 0);
    const struct route *its = route;
    const char *why, *lacks;
    char text[200];
    json_t *claims;
    int rc;

    if (given.p == NULL && its->optional)
        return apply(r, its, NULL) == 0 ? WEIR_NEXT : refuse(r, 503, "out of memory", 0);
    if (given.p == NULL || given.n < 8 || strncasecmp(given.p, "Bearer ", 7) != 0)
        return refuse(r, 401, "this needs a token: Authorization: Bearer", 0);
    if (host->field(r, WEIR_OF_REQUEST, "Authorization", 1).p != NULL)
        return refuse(r, 401, "there is more than one token", 1);
    claims = claims_of(plugin, (struct weir_text){ given.p + 7, given.n - 7 }, &why);
    if (claims == NULL)
        return refuse(r, 401, why, 1);
    lacks = missing(its, claims);
    if (lacks != NULL) {
        snprintf(text, sizeof text, "the token has no claim %.100s", lacks);
        rc = refuse(r, 403, text, 1);
    } else {
        /* Refused, not failed: with on_error: skip it would pass half done. */
        rc = apply(r, its, claims) == 0 ? WEIR_NEXT :
            refuse(r, 403, "a claim of the token fits into no field or tag", 1);
    }
    json_decref(claims);
    return rc;
}

/* ---- the file of keys ------------------------------------------------------------------------ */

static void
tick(void *plugin)
{
    struct keys next = { NULL, 0 }, was;
    struct plugin *p = plugin;
    char why[WHY_MAX], text[512];

    if (!watched_changed(&p->file))
        return;
    if (keys_read(p->file.path, &next, why) == -1) {
        host->count(bad_files, 1);
        snprintf(text, sizeof text, "%.200s %s; the keys stay as they were", p->file.path, why);
        host->log(p->self, WEIR_LOG_ERROR, text);
        return;
    }
    pthread_rwlock_wrlock(&p->lock);
    was = p->keys;
    p->keys = next;
    pthread_rwlock_unlock(&p->lock);
    keys_free(&was);
    host->count(reloads, 1);
    snprintf(text, sizeof text, "%zu keys", next.n);
    host->log(p->self, WEIR_LOG_INFO, text);
}

/* ---- open and close -------------------------------------------------------------------------- */

/* Once: at a reload hooks read them. */
static void
name_figures(const struct weir_host *h, struct weir_self *self)
{
    host = h;
    refused = h->counter(self, "jwt_refused", "Requests without a token that holds.");
    reloads = h->counter(self, "jwt_reloads", "Times that a changed file of keys was taken.");
    bad_files = h->counter(self, "jwt_bad_files", "Times that a changed file was not taken.");
    verifying = h->timer(self, "jwt_verify", "Of each verification of a signature.");
}

static int
open_plugin(const struct weir_host *h, struct weir_self *self, const struct weir_value *values,
    void **out)
{
    struct plugin *p = calloc(1, sizeof *p);
    char why[WHY_MAX], text[512];

    if (host == NULL)
        name_figures(h, self);
    if (p == NULL) {
        h->complain(self, NULL, "out of memory");
        return -1;
    }
    *p = (struct plugin){ .self = self, .file = { .path = values[0].text.p },
        .issuer = values[1].text, .audience = values[2].texts, .naudience = values[2].ntexts,
        .algorithms = values[3].texts, .nalgorithms = values[3].ntexts,
        .leeway_s = (double)values[4].number / 1000 };
    for (size_t i = 0; i < p->nalgorithms; i++)
        if (algorithm_find(p->algorithms[i].p) == NULL) {
            h->complain(self, "algorithms", "has one that is not known; HS256, RS256, ES256, their "
                "384 and 512, and EdDSA");
            free(p);
            return -1;
        }
    watched_changed(&p->file);
    if (keys_read(p->file.path, &p->keys, why) == -1) {
        snprintf(text, sizeof text, "%.200s %s", p->file.path, why);
        h->complain(self, "jwks_file", text);
        free(p);
        return -1;
    }
    pthread_rwlock_init(&p->lock, NULL);
    *out = p;
    return 0;
}

static void
close_plugin(void *plugin)
{
    struct plugin *p = plugin;

    keys_free(&p->keys);
    pthread_rwlock_destroy(&p->lock);
    free(p);
}

static int
route_open(void *plugin, struct weir_self *self, const char *name,
    const struct weir_value *values, void **out)
{
    struct route *r = calloc(1, sizeof *r);

    (void)plugin;
    (void)name;
    if (r == NULL) {
        host->complain(self, NULL, "out of memory");
        return -1;
    }
    *r = (struct route){ .key = values[0].texts, .nkey = values[0].ntexts,
        .tags = values[1].texts, .ntags = values[1].ntexts, .forward = values[2].texts,
        .nforward = values[2].ntexts, .optional = (int)values[3].number,
        .strip = (int)values[4].number };
    if (r->strip && r->nkey == 0) {
        host->complain(self, "strip", "without `key` what one token got would be stored for all; "
            "name in `key` the claims that answers depend on");
        free(r);
        return -1;
    }
    for (size_t i = 0; i < r->nforward; i++) {
        const char *equals = strchr(r->forward[i].p, '=');
        char field[128] = "";

        if (equals != NULL && equals - r->forward[i].p <= 100)
            memcpy(field, r->forward[i].p, (size_t)(equals - r->forward[i].p));
        if (!host->may_set(WEIR_OF_REQUEST, field)) {
            host->complain(self, "forward", "is not of the form FIELD=CLAIM, as X-Tenant=tenant, "
                "or names a field that a plugin may not set");
            free(r);
            return -1;
        }
    }
    *out = r;
    return 0;
}

static void
route_close(void *plugin, void *route)
{
    (void)plugin;
    free(route);
}

static const struct weir_option options[] = {
    { "jwks_file", WEIR_FILE, WEIR_REQUIRED, NULL, NULL, NULL, NULL,
      "A JWK set (RFC 7517) with the keys that sign tokens. Read again when it changes." },
    { "issuer", WEIR_TEXT, 0, NULL, NULL, NULL, NULL, "What `iss` must be; anything unless said." },
    { "audience", WEIR_TEXTS, 0, NULL, NULL, NULL, NULL,
      "One of these must be in `aud`; anything unless said." },
    { "algorithms", WEIR_TEXTS, 0, "RS256, ES256, EdDSA", NULL, NULL, NULL,
      "Those that a token may be signed by: HS256, RS256, ES256, their 384 and 512, EdDSA." },
    { "leeway", WEIR_DURATION, 0, "30s", "0s", "10m", NULL,
      "How much the issuer's clock may differ, for `exp` and `nbf`." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

static const struct weir_option route_options[] = {
    { "key", WEIR_TEXTS, 0, NULL, NULL, NULL, NULL,
      "Claims that answers depend on: those for whom all of them are the same share what is "
      "stored, which may then be stored although the request has Authorization. A token without "
      "one of them: 403." },
    { "tags", WEIR_TEXTS, 0, NULL, NULL, NULL, NULL,
      "Claims that are tags of what is stored, with a text in front of `#`, as `tenant:#tenant`." },
    { "forward", WEIR_TEXTS, 0, NULL, NULL, NULL, NULL,
      "Claims that the origin gets in fields, as `X-Tenant=tenant`, whatever the client said in "
      "those." },
    { "optional", WEIR_BOOL, 0, "false", NULL, NULL, NULL,
      "Requests without Authorization pass, and share answers among themselves. A token that does "
      "not hold never passes." },
    { "strip", WEIR_BOOL, 0, "false", NULL, NULL, NULL, "The origin does not get the token." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

const struct weir_plugin weir_plugin = {
    .abi = WEIR_ABI, .size = sizeof(struct weir_plugin), .name = "jwt", .version = "1",
    .meaning = "Lets requests in that bring a signed token, and keeps answers apart by its claims.",
    .options = options, .route_options = route_options, .open = open_plugin,
    .close = close_plugin, .route_open = route_open, .route_close = route_close, .tick = tick,
    .request = request,
};
