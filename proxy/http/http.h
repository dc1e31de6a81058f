/*
 * http -- the message: one strict parser for requests and responses, chunked coding, dates,
 * ranges, URIs, structured fields.
 *
 * Everything here is a pure function of its arguments: no I/O, no clock, no allocation (but for
 * struct buf where one is passed). Slices point into what was passed in. Any thread.
 */
#ifndef WEIR_HTTP_H
#define WEIR_HTTP_H

#include "base/base.h"

#include <sys/types.h>

/* ---- names ------------------------------------------------------------------------------- */

enum http_method {
    HTTP_OTHER, HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_PATCH, HTTP_DELETE, HTTP_OPTIONS,
    HTTP_TRACE, HTTP_CONNECT, HTTP_PURGE, HTTP_QUERY,
};
enum http_method http_method(struct slice token);   /* case-sensitive (RFC 9110 9.1) */
bool http_method_safe(enum http_method m);          /* GET HEAD OPTIONS TRACE QUERY */
bool http_method_idempotent(enum http_method m);   /* the safe ones, PUT, DELETE (RFC 9110 9.2.2) */

enum http_id {
    HF_NONE,                        /* a name that is in no table */
#define FIELD(id, name, flags) HF_##id,
#include "http/fields.def"
#undef FIELD
    HF_COUNT
};
enum { HTTP_HOP = 1, HTTP_KEEP = 2, HTTP_ONE = 4 };
enum http_id http_id(struct slice name);       /* case-insensitive; perfect hash or length switch */
struct slice http_name(enum http_id id);            /* the canonical spelling */
unsigned http_flags(enum http_id id);

/* ---- one message head ---------------------------------------------------------------------- */

struct http_field {
    struct slice name, value;       /* value without the white space around it */
    enum http_id id;
};

enum http_framing { HTTP_NO_BODY, HTTP_LENGTH, HTTP_CHUNKED, HTTP_UNTIL_CLOSE };

enum {                              /* http_head.flags */
    HTTP_CLOSE     = 1,             /* Connection: close, or HTTP/1.0 without keep-alive */
    HTTP_UPGRADING = 2,             /* Connection: upgrade together with Upgrade (HTTP/1.1 only) */
    HTTP_EXPECT    = 4,             /* Expect: 100-continue (HTTP/1.1 only) */
    HTTP_ABSOLUTE  = 8,             /* the target came in absolute-form */
    HTTP_HTTPS     = 16,            /* ... with the https scheme */
};

#define HTTP_FIELDS_MAX 256         /* more than this no limit allows */

struct http_head {
    enum http_method  method;       /* request */
    struct slice      method_name;
    struct slice      target;       /* as received */
    struct slice      host;         /* authority: of the absolute-form target, else of Host; may be
                                       empty in HTTP/1.0 */
    struct slice      path;         /* of the target, as received; "*" for OPTIONS *; "/" if
                                       empty */
    struct slice      query;        /* behind '?'; .p == NULL: there is no '?' */
    unsigned          status;       /* response: 100..999 */
    struct slice      reason;
    uint8_t           minor;        /* HTTP/1.minor: 0 or 1 (2..9 are read as 1: RFC 9110 2.5) */
    uint8_t           flags;
    bool              normal;       /* request: normalising changes nothing of host (by either
                                       scheme), path and query; false says nothing */
    enum http_framing framing;      /* request: complete. response: see http_response_framing */
    uint64_t          length;       /* HTTP_LENGTH */
    uint16_t          nfields, cap; /* cap: set by the caller, HTTP_FIELDS_MAX at most */
    struct http_field *fields;      /* the caller's array of cap */
    uint64_t          have[2];      /* a bit for each known field that is present */
};

/* Is there a field with this id? O(1). */
static inline bool
http_has(const struct http_head *h, enum http_id id)
{
    return h->have[id >> 6] >> (id & 63) & 1;
}
/* The first field with this id, or NULL. */
const struct http_field *http_find(const struct http_head *h, enum http_id id);
/* The same for any name, case-insensitive. */
const struct http_field *http_find_name(const struct http_head *h, struct slice name);
/* Its value, or an empty slice with .p == NULL. */
struct slice http_value(const struct http_head *h, enum http_id id);
/* The same of a field that is no list, where there is one line of it alone (RFC 9110 5.3). */
struct slice http_only(const struct http_head *h, enum http_id id);

/* A copy of a parsed head whose slices point into the pool: `bytes` is what h was parsed from (all
 * of its slices lie in there). NULL when memory is out. */
struct http_head *http_head_copy(struct pool *p, const struct http_head *h, struct slice bytes);

/* Walks the members of a comma-separated list over all lines of a field (RFC 9110 5.6.1): empty
 * members skipped, white space trimmed, commas inside quoted strings kept together.
 * Start with a zeroed iterator. */
struct http_list { uint16_t field; struct slice rest; bool open; };
bool http_list_next(const struct http_head *h, enum http_id id, struct http_list *it,
    struct slice *member);
/* The same over one value. Start with *rest = the value. */
bool http_member(struct slice *rest, struct slice *member);
/* Is `token` a member (case-insensitive)? */
bool http_list_has(const struct http_head *h, enum http_id id, struct slice token);

/* Does Prefer (RFC 7240) ask for this preference, which has no value? Of several of one name the
 * first counts. */
bool http_prefers(const struct http_head *h, struct slice preference);

struct http_limits {
    size_t   head;                  /* bytes of start line and fields together */
    size_t   uri;                   /* bytes of the target */
    unsigned fields;                /* lines */
};

/* Why a message was refused. `status` is what a client gets; for a response it is 502. */
struct http_fault { unsigned status; const char *why; };

/* Parses a request head at p (RFC 9112), strictly. Returns its length with the empty line, 0 when
 * more bytes are needed, -1 with *f when it is refused. One empty line (CRLF) before the start
 * line is skipped and counted (RFC 9112 2.2).
 *
 * Refused: bare CR or LF, NUL and other control characters, white space before a colon or at the
 * start of a line, an empty or invalid field name, a method that is no token, HTTP/0.9 and
 * malformed versions (400), versions other than 1.x (505), CONNECT (501), a target that is neither
 * origin-form nor absolute-form (http, https) nor `*` for OPTIONS, one with a fragment, control
 * or non-ASCII bytes, a bad percent escape; missing (1.1), repeated or invalid Host; user
 * information in an authority; Content-Length with Transfer-Encoding, repeated, listed, signed,
 * empty or overflowing Content-Length; Transfer-Encoding other than exactly one `chunked`, or in
 * HTTP/1.0; Expect other than 100-continue (417); over the limits (414, 431). */
ssize_t http_parse_request(const char *p, size_t n, const struct http_limits *l,
    struct http_head *h, struct http_fault *f);

/* The same for a response head: same field rules; a status line without reason is fine. */
ssize_t http_parse_response(const char *p, size_t n, const struct http_limits *l,
    struct http_head *h, struct http_fault *f);

/* How the body of this response to a request with `method` ends (RFC 9112 6.3); sets h->framing
 * and h->length. -1 with *f: both or bad Content-Length / Transfer-Encoding (differing
 * Content-Lengths, anything but exactly `chunked`, chunked from HTTP/1.0). For HEAD, 1xx, 204, 304
 * framing is HTTP_NO_BODY; a Content-Length there is information only, and h->length has it. */
int http_response_framing(struct http_head *h, enum http_method method, struct http_fault *f);

/* Parses field lines alone (a trailer section, a stored head) up to the end of p; the last line
 * needs its CRLF. -1 when malformed. Sets fields, nfields and have only. */
int http_parse_fields(const char *p, size_t n, struct http_head *h);

/* May this field of a message cross the proxy? No: hop-by-hop ones, and those that Connection
 * names, except flagged KEEP (RFC 9110 7.6.1). */
bool http_forwards(const struct http_head *h, const struct http_field *f);

/* Takes out of a request's head the fields that Connection names and that may not cross (RFC 9110
 * 7.6.1), so that key, route, Vary and what is forwarded all see one head. false: it names more
 * than 32. */
bool http_strip(struct http_head *h);

bool http_is_token(struct slice s);                 /* RFC 9110 5.6.2, at least one character */
bool http_is_field_value(struct slice s);           /* no control characters but HTAB */
bool http_is_host(struct slice s);               /* uri-host [":" port], reg-name, IPv4 or [IPv6] */
/* A host without its port: "[::1]:80" is "[::1]". */
static inline struct slice
http_without_port(struct slice host)
{
    size_t i = host.n;

    while (i > 0 && host.p[i - 1] >= '0' && host.p[i - 1] <= '9')
        i--;
    if (i > 0 && host.p[i - 1] == ':')
        host.n = i - 1;
    return host;
}
const char *http_reason(unsigned status);           /* "Not Found"; "" when unknown */

/* Appends "Name: value\r\n". */
void http_put(struct buf *b, struct slice name, struct slice value);
void http_put_id(struct buf *b, enum http_id id, struct slice value);
void http_put_number(struct buf *b, enum http_id id, uint64_t value);

/* ---- chunked coding ------------------------------------------------------------------------ */

struct http_chunked {               /* zero-initialise; http_chunked_free when given up early */
    uint64_t   left;                /* of this chunk */
    uint8_t    state;
    uint32_t   line;                /* bytes of the line under way: extensions are bounded */
    struct buf trailer;             /* field lines of the trailer section, at most 8 KiB */
};
enum http_chunk { HTTP_CHUNK_BAD = -1, HTTP_CHUNK_MORE, HTTP_CHUNK_DATA, HTTP_CHUNK_END };
/* Takes from the front of *in (advancing it). DATA: *data is a part of the body, inside `in`.
 * MORE: all of `in` was taken. END: the body is complete; d->trailer has passed http_parse_fields,
 * what is left of *in belongs to the next message. BAD: bad size, overflow, bare LF, a trailer that
 * is malformed or over 8 KiB. Chunk extensions are dropped (at most 4 KiB of them a chunk). */
enum http_chunk http_chunked_next(struct http_chunked *d, struct slice *in, struct slice *data);
void http_chunked_free(struct http_chunked *d);

/* ---- dates ------------------------------------------------------------------------------- */

#define HTTP_NO_DATE INT64_MIN
#define HTTP_DATE_LEN 29
/* Seconds since 1970 from any of the three forms of RFC 9110 5.6.7 (two-digit years by its
 * 50-year rule, relative to now_s), or HTTP_NO_DATE. */
int64_t http_date(struct slice s, int64_t now_s);
/* How long Retry-After of a response asks to wait, in ms, a day at most; -1: it does not. */
int64_t http_retry_after(const struct http_head *response, int64_t now_ms);
void http_date_put(char out[HTTP_DATE_LEN], int64_t seconds);      /* IMF-fixdate, no NUL */

/* ---- ranges ------------------------------------------------------------------------------ */

struct http_range { uint64_t first, last; };        /* inclusive, inside the representation */
enum http_ranges { HTTP_RANGE_IGNORE, HTTP_RANGE_OK, HTTP_RANGE_UNSATISFIABLE };
/* `Range` against a representation of `size` bytes (RFC 9110 14.2). IGNORE: another unit,
 * malformed, or more than max ranges. OK: *n ranges, in the order asked for, overlapping and
 * adjacent ones coalesced (14.2, "many small ranges"). */
enum http_ranges http_range(struct slice value, uint64_t size, struct http_range *out, size_t max,
    size_t *n);

/* A `Range` of one specification, before the size is known. */
struct http_range_spec {
    bool     suffix;                    /* the last `last` bytes */
    uint64_t first, last;               /* last: UINT64_MAX when it is open, "first-" */
};
bool http_range_single(struct slice value, struct http_range_spec *out);
/* What the request's one line of Range asks for; false: it has none, several, or one of more. */
bool http_range_asked(const struct http_head *h, struct http_range_spec *out);

#define HTTP_SIZE_UNKNOWN UINT64_MAX
struct http_content_range { uint64_t first, last, size; };          /* inclusive */
/* `Content-Range` of one part in bytes (RFC 9110 14.4). false: another unit, malformed, invalid, or
 * the unsatisfied-range of a 416. */
bool http_content_range(struct slice value, struct http_content_range *out);

/* ---- URIs -------------------------------------------------------------------------------- */

/* Appends path and query in the form that RFC 3986 6.2.2 calls equivalent: percent-encoded
 * unreserved characters decoded, other escapes in upper case, dot segments removed from the path.
 * Characters that stand in no URI and are sent all the same (such as |) become escapes.
 * Nothing else: "//" stays, %2F stays, the order of parameters stays. The empty path is "/".
 * query.p == NULL: no '?' is written. */
void http_uri_normalise(struct buf *b, struct slice path, struct slice query);
/* The same for a part of either, as it stands: its escapes and such characters alone. */
void http_escapes_normalise(struct buf *b, struct slice s);
/* Appends host[:port] in lower case, without the scheme's default port and without dots at the end
 * of the name; percent-encoded unreserved characters decoded, other escapes in upper case. */
void http_host_normalise(struct buf *b, struct slice host, bool https);

struct http_uri { struct slice scheme, host, path, query; };       /* host with its port */
/* Parses an absolute http or https URI; -1 when it is none. */
int http_uri_parse(struct slice s, struct http_uri *u);
/* Resolves `ref` (absolute, "//host/p", "/p", "p", "?q") against base (RFC 3986 5.2) and appends
 * the normalised absolute URI to b. -1 when ref is malformed or leads to another scheme than
 * http(s). */
int http_uri_resolve(struct buf *b, const struct http_uri *base, struct slice ref);

/* Appends what the one Content-Location of a response to `target` (absolute) names, absolute and
 * normalised. -1: it has none, or several, or one that is malformed or leads to another scheme; or
 * (with b->failed) memory is out. */
int http_content_location(const struct http_head *response, struct slice target, struct buf *b);

/* Decodes percent escapes into b. -1 for a bad escape. */
int http_uri_decode(struct buf *b, struct slice s);

/* ---- No-Vary-Search (draft-ietf-httpbis-no-vary-search) ------------------------------------- */

/* Appends the rule of a response, in one form. 1; 0: it has none, nothing was appended; -1: memory
 * is out. */
int  http_search_rule(const struct http_head *response, struct buf *rule);
/* Appends what all queries that a rule calls equal have in common; nothing where no parameter is
 * left. A query of its own making gives itself. -1: memory is out. */
int  http_search_query(struct slice rule, struct slice query, struct buf *b);

/* ---- structured fields (RFC 9651) ---------------------------------------------------------- */

enum sf_type { SF_INTEGER, SF_DECIMAL, SF_STRING, SF_TOKEN, SF_BYTES, SF_BOOLEAN, SF_DATE,
    SF_DISPLAY, SF_INNER };
struct sf_item {
    enum sf_type type;
    int64_t      integer;           /* INTEGER, BOOLEAN, DATE; DECIMAL in thousandths */
    struct slice text;              /* STRING and DISPLAY unescaped, TOKEN, BYTES decoded, INNER:
                                       its source between the parentheses (walk it with sf_inner) */
    struct slice params;            /* source of the parameters (walk it with sf_param) */
};
/* A parse of a whole field: first sf_check it, so that an invalid field is ignored whole; the
 * walkers below then cannot fail. `scratch` takes unescaped text, and what is added to it may move
 * what is there: a text is good until the next call with the same scratch, unless room for the
 * whole field was made with buf_reserve(scratch, s.n) first (unescaping makes nothing longer).
 * Keys that come twice are given twice: the last one counts (RFC 9651 4.2.2). */
enum sf_kind { SF_ITEM, SF_LIST, SF_DICTIONARY };
int  sf_check(enum sf_kind kind, struct slice s);                  /* 0 valid, -1 not */
bool sf_list(struct slice *rest, struct sf_item *item, struct buf *scratch);
bool sf_dictionary(struct slice *rest, struct slice *key, struct sf_item *item,
    struct buf *scratch);
bool sf_inner(struct slice *rest, struct sf_item *item, struct buf *scratch);
bool sf_param(struct slice *rest, struct slice *key, struct sf_item *value, struct buf *scratch);
int  sf_item(struct slice s, struct sf_item *item, struct buf *scratch);
/* The one that counts of those with this key; room in scratch is made for all that is walked.
 * false: none. */
bool sf_dictionary_get(struct slice s, struct slice key, struct sf_item *item, struct buf *scratch);
bool sf_param_get(struct slice params, struct slice key, struct sf_item *value,
    struct buf *scratch);

/* Each appends one piece in its canonical form; false: it has none, and nothing was appended. */
bool sf_put_integer(struct buf *b, int64_t v);                     /* fifteen digits at most */
bool sf_put_decimal(struct buf *b, int64_t thousandths);           /* twelve before the point */
bool sf_put_string(struct buf *b, struct slice s);                 /* printable ASCII */
bool sf_put_token(struct buf *b, struct slice s);
bool sf_put_text(struct buf *b, struct slice s);        /* a token where it is one, else a string */
bool sf_put_bytes(struct buf *b, struct slice s);
bool sf_put_boolean(struct buf *b, bool v);
bool sf_put_date(struct buf *b, int64_t seconds);
bool sf_put_display(struct buf *b, struct slice s);                /* UTF-8 */
bool sf_put_key(struct buf *b, struct slice key);
/* no inner list; without its parameters */
bool sf_put_bare(struct buf *b, const struct sf_item *item);
bool sf_put_param(struct buf *b, struct slice key, const struct sf_item *value);  /* ";key=value" */

#endif
