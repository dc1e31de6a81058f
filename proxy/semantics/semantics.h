/*
 * semantics -- what HTTP caching says (RFC 9111, 9110, 5861, 8246, 9213, 9875), as pure functions.
 *
 * Values and `now` in, a decision out: no I/O, no clock, no allocation (struct buf where one is
 * passed). Any thread. Times: _ms since 1970 unless they say seconds. Each function cites its
 * clause; each decision comes with a `why` for Cache-Status `detail` and for explanations: a static
 * word such as "no-store", "authorization", "status", never NULL when the answer is no.
 */
#ifndef WEIR_SEMANTICS_H
#define WEIR_SEMANTICS_H

#include "base/base.h"
#include "http/http.h"

/* ---- Cache-Control ------------------------------------------------------------------------- */

enum {
    CC_NO_STORE = 1, CC_NO_CACHE = 2, CC_PRIVATE = 4, CC_PUBLIC = 8, CC_MUST_REVALIDATE = 16,
    CC_PROXY_REVALIDATE = 32, CC_MUST_UNDERSTAND = 64, CC_IMMUTABLE = 128, CC_NO_TRANSFORM = 256,
    CC_ONLY_IF_CACHED = 512, CC_MAX_STALE_ANY = 1024,
    CC_NO_CACHE_FIELDS = 2048,      /* no-cache="a, b": those fields alone need validation */
    CC_PRIVATE_FIELDS = 4096,       /* private="a, b" */
};
struct sem_cc {
    uint32_t flags;
    /* seconds, -1 when absent; an invalid value is stale at once (0), one too large 2^31 (1.2.2) */
    int64_t max_age, s_maxage, max_stale, min_fresh, swr, sie;
    bool targeted;                  /* read from a targeted field: Cache-Control and Expires do not
                                       count */
    struct slice listed[2];         /* ... and what its no-cache= and private= list */
    const struct sem_names *replay; /* of the route's rules, NULL for none */
};
/* Over all lines of Cache-Control. Duplicate directives: the most restrictive. Unknown ones are
 * ignored; arguments as token or quoted string (5.2). */
void sem_cc_read(const struct http_head *h, struct sem_cc *cc);

struct sem_names { const struct slice *names; size_t n; };
struct sem_rules;
/* What a response says to us: the first of the rules' targeted fields that is there, valid and not
 * empty (RFC 9213 2.2), else Cache-Control. */
void sem_cc_response(const struct http_head *h, const struct sem_rules *rules, struct sem_cc *cc);

/* ---- what was weighed ------------------------------------------------------------------------ */

/* For explanations: each clause that a decision below weighed, in order, by the word that it has as
 * a `why`. The decisions are made by the same code with and without. */
enum sem_outcome {
    SEM_ALLOWS, SEM_FORBIDS,
    SEM_GIVES,                      /* it decided: a lifetime, leave to serve stale */
    SEM_SILENT,                     /* it was looked for, and says nothing */
};
#define SEM_STEPS_MAX 32
struct sem_trace {
    struct sem_step {
        const char *word;
        enum sem_outcome outcome;
        int64_t is_ms, limit_ms;    /* what was compared, or is_ms given; -1: no such thing */
    } at[SEM_STEPS_MAX];
    size_t n;
};

/* ---- the request ---------------------------------------------------------------------------- */

struct sem_request {
    enum http_method method;
    struct sem_cc cc;               /* Pragma: no-cache counts where there is no Cache-Control
                                       (5.4) */
    bool authorization, range;
    bool conditional;               /* If-None-Match or If-Modified-Since: a cache judges them */
    bool precondition;              /* If-Match or If-Unmodified-Since: the origin alone does */
    bool content;                   /* its content is part of the question: QUERY (RFC 10008) */
    bool promised;                  /* ... of a method that is safe by the route's promise alone */
};
void sem_request_read(const struct http_head *h, struct sem_request *r);
/* May the answer come from the cache at all: GET, HEAD, or a method that is asked by content; no
 * no-store and no precondition for the origin in the request? */
bool sem_request_cacheable(const struct sem_request *r, const char **why);
bool sem_request_weigh(const struct sem_request *r, const char **why, struct sem_trace *t);

/* ---- storing --------------------------------------------------------------------------------- */

/* What a route adds to what the origin says. -1: says nothing. */
struct sem_rules {
    int64_t ttl_ms, force_ttl_ms, swr_ms, sie_ms;
    bool    heuristic;
    const struct sem_status_ttl { unsigned status; int64_t ttl_ms; } *negative;
    size_t  nnegative;
    struct sem_names targets;       /* targeted fields (RFC 9213), the one that goes first in
                                       front */
    struct sem_names replay;        /* fields of one exchange that are kept all the same */
};

enum {                              /* sem_meta.flags */
    META_NO_CACHE = 1,              /* never without validation */
    META_MUST_REVALIDATE = 2,       /* never stale: must-revalidate, proxy-revalidate, s-maxage */
    META_HEURISTIC = 4, META_FORCED = 8,
    META_SHARED_AUTH = 16,          /* may answer requests with Authorization (3.5) */
    META_EXPLICIT = 32,             /* explicit freshness from the origin */
    META_PARTIAL = 64,              /* a part of the representation alone (3.3) */
    META_DECODED = 128,             /* the origin sends gzip: ours has its entity tag weakened */
};

/* What reuse needs to know of a stored response: fixed size, part of the object. */
struct sem_meta {
    int64_t  response_ms;           /* when the response head (or the 304) came */
    int64_t  date_ms;               /* of its Date, or response_ms */
    int64_t  age_ms;                /* corrected_initial_age (4.2.3) */
    int64_t  lifetime_ms;           /* freshness_lifetime (4.2.1) */
    int64_t  last_modified_s;       /* HTTP_NO_DATE without */
    int32_t  swr_s, sie_s;          /* -1: not allowed */
    uint16_t status;
    uint16_t flags;
};

/* May this response be stored in a shared cache (RFC 9111 3, 3.5), and what is it then? Times of
 * sending the request and of receiving the head. false with *why. With rules->force_ttl_ms >= 0 the
 * response's own word is overridden for the statuses below 400 that RFC 9110 15.1 calls cacheable
 * (no rule stores 1xx, 304, 412, 416, 417, nor what RFC 6585 forbids). A 206 to a request with
 * Range is stored as a part of a 200, which m->status then is: META_PARTIAL; one of several parts
 * is not. With Set-Cookie the response needs freshness of the origin's own, public, or
 * force_ttl. */
bool sem_store(const struct sem_request *rq, const struct http_head *response,
    const struct sem_rules *rules, int64_t request_ms, int64_t response_ms,
    struct sem_meta *m, const char **why);
bool sem_store_weigh(const struct sem_request *rq, const struct http_head *response,
    const struct sem_rules *rules, int64_t request_ms, int64_t response_ms,
    struct sem_meta *m, const char **why, struct sem_trace *t);

/* The same for the answer to a request of another method, which is to answer GETs: to a POST or PUT
 * whose Content-Location is its own target (RFC 9110 8.7, 9.3.3), to a QUERY with that of its
 * result (RFC 10008 2.3). A 201 becomes a 200. Only with freshness that the origin itself states,
 * unless `assumed`: then the rules count as for a GET. The caller compared Content-Location. */
bool sem_store_as_get(const struct sem_request *rq, const struct http_head *response,
    const struct sem_rules *rules, bool assumed, int64_t request_ms, int64_t response_ms,
    struct sem_meta *m);

/* Is it about one exchange with one client: Set-Cookie, Server-Timing, traceresponse, RateLimit,
 * RateLimit-*, X-RateLimit-*, Authentication-Info, Clear-Site-Data? The client that caused the
 * fetch gets it, nobody else. */
bool sem_of_one_exchange(const struct http_field *f);
/* Is this field of the response kept in a stored head? Not: hop-by-hop, Connection's, those of one
 * exchange but for those that cc->replay names, Age (written anew), those of private= and no-cache=
 * (3.1, 5.2.2.4, 5.2.2.7), Content-Length (written from the body), Proxy-*. */
bool sem_keeps(const struct http_head *response, const struct sem_cc *cc,
    const struct http_field *f);

/* A 304 freshens (3.2, 4.3.4): may it freshen this stored response (validators agree)? */
bool sem_304_selects(const struct http_head *stored, const struct http_head *r304);
/* Does this field of a 304, which says cc, replace the stored one? Not Content-Length, -Encoding,
 * -Range, -MD5, -Digest, ETag of another strength aside (3.2). */
bool sem_304_updates(const struct http_head *r304, const struct sem_cc *cc,
    const struct http_field *f);

/* Is the content coded (RFC 9110 8.4)? `identity` is no coding (12.5.3). */
bool sem_coded(const struct http_head *h);

/* Is the 200 to a HEAD about the stored response to a GET (4.3.5): does each validator that it has
 * equal the stored one, and its Content-Length (-1: it has none) the stored body's? Else that is
 * stale from now on. */
bool sem_head_agrees(const struct http_head *stored, uint64_t body, const struct http_head *head,
    int64_t length);

/* ---- reusing --------------------------------------------------------------------------------- */

int64_t sem_age_ms(const struct sem_meta *m, int64_t now_ms);       /* current_age (4.2.3), >= 0 */

enum sem_use {
    SEM_FRESH,                      /* serve */
    SEM_STALE,                      /* serve, stale: max-stale of the client (4.2.4) */
    SEM_STALE_REVALIDATE,           /* serve, stale, and revalidate behind it (RFC 5861) */
    SEM_PART,                       /* fresh, but a part: serve what lies within it, ask for the
                                       rest (3.3) */
    SEM_VALIDATE,                   /* ask the origin first */
    SEM_CANNOT,                     /* this client may not have it at all (3.5): fetch, do not
                                       validate */
};
/* `soft`: softly purged, so stale from now on. */
enum sem_use sem_use(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms,
    bool soft, const char **why);
enum sem_use sem_use_weigh(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms,
    bool soft, const char **why, struct sem_trace *t);
/* May it be served however stale it is, where a cache decides to (RFC 9111 4.2.4)? Not against its
 * own word, nor the request's. */
bool sem_stale_at_all(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms);
/* After the origin failed (no answer, or 500, 502, 503, 504): may the stale one be served? */
bool sem_stale_on_error(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms);
bool sem_stale_on_error_weigh(const struct sem_request *rq, const struct sem_meta *m,
    int64_t now_ms, struct sem_trace *t);

/* ---- Vary ------------------------------------------------------------------------------------ */

/* Appends the canonical form of the response's Vary: lower-case names, sorted, once each, joined by
 * ','; nothing for none. false when it has `*` in any spelling (such a response matches nothing
 * later, 4.1) or the list is malformed. */
bool sem_vary(const struct http_head *response, struct buf *b);
/* Appends the request's values for a canonical Vary list, normalised (4.1): Accept, Accept-Encoding
 * and Accept-Language by their grammar, others by white space and list syntax as far as the field's
 * allows. Each is preceded by its length (4 bytes, little-endian), an absent field told apart from
 * an empty one. Two requests match when these are equal. */
void sem_variant(struct slice vary, const struct http_head *request, struct buf *b);
/* Takes the next field of a canonical Vary list and its value of a variant off their fronts; an
 * absent value has .p == NULL. False when there is no more. */
bool sem_variant_next(struct slice *vary, struct slice *variant, struct slice *name,
    struct slice *value);
/* Can a variant be selected by its language at all under this Vary list: does it name
 * Accept-Language? */
bool sem_by_language(struct slice vary);
/* Two variants for one Vary list differ. Does the stored one answer all the same, because they
 * differ in Accept-Language alone and what is asked there prefers the stored response's one
 * Content-Language to all others (RFC 9110 12.5.4)? */
bool sem_language_selects(struct slice vary, struct slice stored, struct slice asked,
    struct slice language);

/* ---- content codings ------------------------------------------------------------------------- */

enum sem_coding { SEM_IDENTITY, SEM_GZIP, SEM_BR, SEM_ZSTD, SEM_CODINGS };
#define SEM_WEIGHT_ONE 1000             /* q=1 */

struct slice sem_coding_name(enum sem_coding c);
enum sem_coding sem_coding(struct slice name);      /* SEM_CODINGS: none of them */
/* What Accept-Encoding gives each (RFC 9110 12.5.3); 0: refused. */
void sem_codings(const struct http_head *request, unsigned weight[SEM_CODINGS]);
/* Those of the n that are made, and identity, that are acceptable: the highest weight first, of
 * equal ones the earlier made, identity last. How many; one at least: identity, where nothing is
 * acceptable. */
size_t sem_coding_order(const unsigned weight[SEM_CODINGS], const uint8_t *made, size_t n,
    uint8_t order[SEM_CODINGS]);
/* Is the field, an entity tag aside, about the bytes of one form, and not of another: its length,
 * coding, digest (RFC 9530) and ranges? */
bool sem_about_bytes(const struct http_field *f);
#define SEM_CODED_MORE 8                /* bytes that a coded form's tag is longer at most */
/* Writes the tag of the form of what has this one (8.8.3.3), which may be longer by SEM_CODED_MORE;
 * its length. 0: it has none. */
size_t sem_etag_coded(struct slice etag, enum sem_coding c, char *out);
/* The tag that may have become this one, without its closing quote; .p == NULL: none. */
struct slice sem_etag_uncoded(struct slice etag);

/* ---- conditional requests and ranges at the cache -------------------------------------------- */

/* Is a stored or arriving 200 what the client has already, so that a 304 is the answer to its GET
 * or HEAD (RFC 9110 13.2.2, steps 3 and 4; RFC 9111 4.3.2)? etag.p == NULL: none. Comparison is
 * weak; date: when the response was made. If-Match and If-Unmodified-Since are the origin's to
 * judge. */
bool sem_not_modified(const struct http_head *request, struct slice etag,
    int64_t last_modified_s, int64_t date_s, int64_t now_s);
/* Do If-Match and If-None-Match of an unsafe request hold (RFC 9110 13.2.2, steps 1 and 3)? false:
 * 412. etag: of the current representation, .p == NULL: there is none. Its date is not looked
 * at. */
bool sem_matches(const struct http_head *request, struct slice etag);
/* May Range be honoured, If-Range considered (RFC 9110 13.1.5)? True without If-Range. */
bool sem_if_range(const struct http_head *request, struct slice etag, int64_t last_modified_s,
    int64_t date_s, int64_t now_s);
/* Do both have the same strong validator, so that parts of them may be combined (RFC 9110 8.8.2.2,
 * 15.3.7.3)? An entity tag decides where either has one. */
struct sem_validator { struct slice etag; int64_t last_modified_s, date_s; };
bool sem_same_strong(const struct sem_validator *a, const struct sem_validator *b);
bool sem_strong_date(const struct sem_validator *v);        /* is its Last-Modified strong? */
bool sem_etag_weak_equal(struct slice a, struct slice b);
bool sem_etag_strong_equal(struct slice a, struct slice b);
bool sem_etag_valid(struct slice a);                /* entity-tag of RFC 9110 8.8.3 */
/* Belongs in a 304 made from a stored 200 (RFC 9110 15.4.5)? */
bool sem_in_304(const struct http_field *f);

/* ---- invalidation ---------------------------------------------------------------------------- */

/* Does an unsafe request with this outcome invalidate (4.4): method not safe, status 2xx or 3xx? */
bool sem_invalidates(enum http_method m, unsigned status);
/* Same origin (scheme, host, port)? Both absolute and normalised. */
bool sem_same_origin(struct slice a, struct slice b);

/* ---- groups (RFC 9875) ----------------------------------------------------------------------- */

#define SEM_GROUP_MAX 1024          /* bytes of a group; longer ones are ignored (2: 32 at least) */
/* Calls each(arg, group) for the groups that the field (Cache-Groups, Cache-Group-Invalidation)
 * lists; for none where it is no list of strings. A group is good until each returns. -1: memory is
 * out; it may have been called for some. */
int sem_groups(const struct http_head *response, enum http_id field,
    void (*each)(void *arg, struct slice group), void *arg);

#endif
