/*
 * key -- from a request and a route's recipe to the cache key; and templates with placeholders.
 *
 * Model    a key is what the client asked for: scheme, host, path and query, normalised as RFC 3986
 *          6.2.2 has it and no further unless the recipe says so, then the recipe's parts
 *          (fields, cookies) and the caller's, each with its length so that no two requests run
 *          together.
 *          The part up to the recipe's parts is the URL as a person writes it: purge by URL and by
 *          prefix look at that. Keys are compared whole; the hash only finds them.
 * Threads  pure functions; recipes are read only once made.
 */
#ifndef WEIR_KEY_H
#define WEIR_KEY_H

#include "base/base.h"
#include "config/conf.h"
#include "http/http.h"

struct key {
    uint64_t     hash;                  /* XXH3 of bytes */
    uint64_t     url_hash;              /* XXH3 of the URL part alone */
    struct slice bytes;                 /* whole: the URL, then "\0" and parts if there are any */
    uint32_t     url_n;                 /* bytes of the URL: "http://host/path?query" */
    uint32_t     path_at;               /* where the path begins in it */
};

/* What a route says about keys. */
struct key_recipe;
/* NULL: memory is out. */
struct key_recipe *key_recipe_new(const struct conf_route *r, struct pool *p);

/* Builds the key of a request in b (cleared first; reuse one per thread). `path` and `query` are
 * the request's target normalised by http_uri_normalise; host by http_host_normalise. -1 when
 * memory is out. k points into b until b changes. The plain case (no recipe rule) must be cheap:
 * one append each and one hash. */
int key_make(const struct key_recipe *recipe, const struct http_head *h, bool https,
    struct slice host, struct slice path, struct slice query, struct buf *b, struct key *k);

/* The key that a GET for this absolute URL without recipe parts has: for purging by URL. The
 * route's query rules apply. "http:///path" is what was asked for without a host. -1 when url is no
 * absolute http(s) URL, or (with b->failed) memory is out. */
int key_of_url(const struct key_recipe *recipe, struct slice url, struct buf *b, struct key *k);
/* Adds a part of the caller's own to k, which key_make has just made in b: of which kind (a letter)
 * and its value. -1 when memory is out. */
int key_add(struct key *k, char kind, struct slice value, struct buf *b);
/* Adds the request's method and content as a part, with its Content-Type, -Encoding, -Language,
 * -Location and -Range (RFC 10008 2.7): what differs in nothing but the order of JSON members, JSON
 * white space or the order of a form's pairs has one key. as_is: the content counts as bytes
 * (no-transform). */
int key_add_content(struct key *k, const struct http_head *h, struct slice content, bool as_is,
    struct buf *b);
/* Adds what X-Forwarded-Host, -Proto, -Port and Forwarded say beyond what was asked of us: for a
 * request whose sender is trusted to say it. host.p NULL: the route's key has none. -1 as above. */
int key_add_forwarded(struct key *k, const struct http_head *h, bool https, struct slice host,
    struct buf *b);
/* The key of a block of what k is the key of; NULL: of the mark that it is not to be had in blocks.
 * In b. -1 as above. */
int key_block(const struct key *k, const uint64_t *block, struct buf *b, struct key *out);
/* For explanations: calls each(arg, name, value) for every part behind the URL of a key that this
 * recipe made: a name such as "header accept", "cookie sid", "route", "x-forwarded-host"; a value
 * with .p NULL is absent. */
void key_parts_each(const struct key_recipe *recipe, const struct key *k,
    void (*each)(void *arg, const char *name, struct slice value), void *arg);
/* What No-Vary-Search makes of a key, by a rule as http_search_rule has them: the key of all
 * requests whose queries the rule calls equal (and whose recipe's parts are). In b, cleared first.
 * -1: memory is out. */
int key_search(const struct key *k, struct slice rule, struct buf *b, struct key *search);
/* Appends the URL part of that alone. */
int key_search_url(struct slice url, struct slice rule, struct buf *b);
struct slice key_path(struct slice url);            /* the URL part of a key, without its query */
uint64_t key_hash(struct slice s);      /* XXH3, the one used above */

/* ---- templates: "recruiter:{id}", "/api/cities/{query.city}" --------------------------------- */

struct key_template;

/* What a placeholder may look at; a NULL member has nothing to give. */
struct key_facts {
    const struct http_head *request, *response;
    const struct key_params {           /* of the route's path template, percent-decoded by us */
        const char *const *names; const struct slice *values; size_t n;
    } *path;
    struct slice host;
    struct slice query;
    struct slice request_body, response_body;   /* whole identity-coded JSON, at most 64 KiB;
                                                   .p NULL: none */
};

/* Compiles "text{path.id}{id}{host}{query.city}{header.x-tenant}{response.header.x}
 * {request.body.a.b}{response.body.items[].id}". `params` are the names of the route's path
 * template (a bare {id} must be one of them). NULL with *e: unknown or malformed placeholder, named
 * with the nearest known one. */
struct key_template *key_template_new(const char *text, const char *const *params, size_t nparams,
    struct pool *p, struct err *e);
enum { KEY_NEEDS_REQUEST_BODY = 1, KEY_NEEDS_RESPONSE_BODY = 2, KEY_NEEDS_RESPONSE = 4 };
unsigned key_template_needs(const struct key_template *t);
#define KEY_BODY_MAX (64 * 1024)        /* larger bodies are not looked into */
/* Does the text begin with "/", "http://" or "https://"? Then it names a path or URL, and every
 * value is written as a path has it; else what it gives is a tag, whatever that looks like. */
bool key_template_is_path(const struct key_template *t);
/* Calls each(arg, text) for every value: an array gives several, and so does a field whose name
 * ends in [], one for each word between commas and white space; at most 256 in all. Returns how
 * many, 0 when a placeholder found nothing (nothing is called), -1 when what it needs was not
 * to be had (no response, no body, no JSON, memory out). Values are taken literally, never cut.
 * A parameter or field that is absent comes first: then nothing else is looked at, and it is 0. */
int key_template_expand(const struct key_template *t, const struct key_facts *f,
    void (*each)(void *arg, struct slice text), void *arg);
/* The same for what must not be left out, as a purge: also -1 when a body was there, but somewhere
 * had no value where a placeholder's path leads (no such member, null, an object). An array
 * without elements names nothing, and lacks nothing. */
int key_template_expand_whole(const struct key_template *t, const struct key_facts *f,
    void (*each)(void *arg, struct slice text), void *arg);

#endif
