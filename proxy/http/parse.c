/*
 * The message head: request line, status line, field lines (RFC 9112), strictly.
 *
 * Model    one pass from front to back over the bytes, which stay where they are. What is wrong is
 *          found in the order of the bytes, so a head that comes in pieces is refused at the same
 *          byte, with the same status, as one that comes whole. Each step says OK, MORE or BAD.
 * Speed    plain field lines take a quick path that looks at sixteen bytes at a time; a known field
 *          name is found by its colon, one hash and one comparison, which also proves it a token.
 *          What is not plain (incomplete, wrong, at the end of the bytes, not ASCII) goes the
 *          careful way from the start of its line, which alone decides and names what is wrong.
 * Not here the forms of the target (target.c), where bodies end (framing.c), chunks (chunked.c).
 */
#include "http/scan.h"

enum step { BAD = -1, MORE, OK };

struct cursor {
    const char        *at, *end;
    const char        *floor;           /* the first byte of the message */
    struct http_fault *fault;
};

static enum step
bad(const struct cursor *c, unsigned status, const char *why)
{
    fault(c->fault, status, why);
    return BAD;
}

/* CRLF at c->at. */
static inline enum step
line_end(struct cursor *c, const char *why)
{
    if (c->at == c->end)
        return MORE;
    if (c->at[0] != '\r')
        return bad(c, 400, why);
    if (c->end - c->at < 2)
        return MORE;
    if (c->at[1] != '\n')
        return bad(c, 400, "a CR without LF");
    c->at += 2;
    return OK;
}

static enum step
name_fault(const struct cursor *c, const char *p)
{
    if (*p == ' ' || *p == '\t')
        return bad(c, 400, p == c->at ? "a line begins with white space (folding is obsolete)" :
            "white space before the colon of a field");
    if (*p == '\n')
        return bad(c, 400, "a LF without CR");
    if (*p == ':')
        return bad(c, 400, "an empty field name");
    return bad(c, 400, "an invalid character in a field name");
}

/* Field name and colon; f->id. Leaves c->at behind the colon. */
static enum step
field_name(struct cursor *c, struct http_field *f)
{
    const char *p = c->at;

    while (p < c->end && is_class(*p, C_TOKEN))
        p++;
    if (p == c->end)
        return MORE;
    if (*p != ':' || p == c->at)
        return name_fault(c, p);
    f->name = (struct slice){ c->at, (size_t)(p - c->at) };
    f->id = http_id(f->name);
    c->at = p + 1;
    return OK;
}

static enum step
field_value(struct cursor *c, struct slice *value)
{
    const char *p = c->at, *eol;

    while (p < c->end && (*p == ' ' || *p == '\t'))
        p++;
    c->at = eol = scan_value(p, c->end, c->floor);
    if (eol == c->end)
        return MORE;
    if (UNLIKELY(*eol != '\r'))
        return bad(c, 400, *eol == '\n' ? "a LF without CR" : "a control character in a field");
    while (eol > p && (eol[-1] == ' ' || eol[-1] == '\t'))
        eol--;
    *value = (struct slice){ p, (size_t)(eol - p) };
    return line_end(c, "");
}

static __attribute__((noinline)) enum step
careful_line(struct cursor *c, struct http_field *f)
{
    enum step s = field_name(c, f);

    return s == OK ? field_value(c, &f->value) : s;
}

#ifdef __SSE2__
/* The bytes of a block that are letters, digits, "-" or "_": the tokens that occur. */
static inline unsigned
plain_token(__m128i v)
{
    __m128i letter = _mm_add_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8(0x80 - 'a'));
    __m128i digit = _mm_add_epi8(v, _mm_set1_epi8((char)(0x80 - '0')));
    __m128i yes = _mm_cmplt_epi8(letter, _mm_set1_epi8(-128 + 26));

    yes = _mm_or_si128(yes, _mm_cmplt_epi8(digit, _mm_set1_epi8(-128 + 10)));
    yes = _mm_or_si128(yes, _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
    yes = _mm_or_si128(yes, _mm_cmpeq_epi8(v, _mm_set1_epi8('_')));
    return (unsigned)_mm_movemask_epi8(yes);
}

/* The name at p, where more than 16 bytes stand before end; false when it is not plain. Behind its
 * colon stands another byte. */
static inline bool
quick_name(const char *p, const char *end, struct http_field *f)
{
    __m128i v = _mm_loadu_si128((const void *)p), colon = _mm_set1_epi8(':');
    unsigned hit = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, colon));
    unsigned n;

    if (UNLIKELY(hit == 0)) {
        if (end - p <= KNOWN_MAX)
            return false;
        hit = (unsigned)_mm_movemask_epi8(
            _mm_cmpeq_epi8(_mm_loadu_si128((const void *)(p + 16)), colon)) << 16;
    }
    if (UNLIKELY(hit == 0) || UNLIKELY(hit & 3))     /* a long name, or none, or of one byte */
        return false;
    n = (unsigned)__builtin_ctz(hit);
    f->name = (struct slice){ p, n };
    f->id = known_id(p, n);
    return f->id != HF_NONE || (n <= 16 && (~plain_token(v) & ((1u << n) - 1)) == 0);
}

/* The bytes of a block that are not printable ASCII: those that one more and, with saturation, 33
 * less make negative. HTAB and obs-text among them are allowed, but not plain. */
static inline unsigned
not_plain(__m128i v)
{
    v = _mm_subs_epi8(_mm_add_epi8(v, _mm_set1_epi8(1)), _mm_set1_epi8(0x21));
    return (unsigned)_mm_movemask_epi8(v);
}

/* One plain and complete field line; where the next one begins, or NULL. */
static inline __attribute__((always_inline)) const char *
quick_line(const char *p, const char *end, struct http_field *f)
{
    const char *value, *eol;
    unsigned hit;

    if (UNLIKELY(end - p <= 16) || UNLIKELY(!quick_name(p, end, f)))
        return NULL;
    value = p + f->name.n + 1;
    value += *value == ' ';
    for (eol = value; LIKELY(end - eol >= 16); eol += 16) {
        hit = not_plain(_mm_loadu_si128((const void *)eol));
        if (hit != 0)
            goto found;
    }
    if (eol == end)
        return NULL;
    hit = not_plain(_mm_loadu_si128((const void *)(end - 16))) >> (16 - (end - eol));
    if (hit == 0)
        return NULL;
found:
    eol += __builtin_ctz(hit);
    if (UNLIKELY(end - eol < 2) || UNLIKELY(memcmp(eol, "\r\n", 2) != 0) ||
        UNLIKELY(*value == ' ') || UNLIKELY(eol[-1] == ' '))
        return NULL;
    f->value = (struct slice){ value, (size_t)(eol - value) };
    return eol + 2;
}
#else
static inline const char *
quick_line(const char *p, const char *end, struct http_field *f)
{
    (void)p, (void)end, (void)f;
    return NULL;
}
#endif

static inline __attribute__((always_inline)) enum step
field_line(struct cursor *c, struct http_field *f)
{
    const char *next = quick_line(c->at, c->end, f);

    if (UNLIKELY(next == NULL))
        return careful_line(c, f);
    c->at = next;
    return OK;
}

static inline void
field_seen(struct http_head *h, enum http_id id)
{
    h->have[id >> 6] |= (uint64_t)1 << (id & 63);
}

/* ---- fields that the head itself depends on ---- */

enum { KEEP_ALIVE = 64, UPGRADE_NAMED = 128 };     /* in h->flags while the head is parsed */

static void
note_connection(struct http_head *h, struct slice rest)
{
    struct slice member;

    if (LIKELY(slice_ieq(rest, SLICE("keep-alive")))) {
        h->flags |= KEEP_ALIVE;
        return;
    }
    while (http_member(&rest, &member)) {
        if (member.n == 5 && slice_ieq(member, SLICE("close")))
            h->flags |= HTTP_CLOSE;
        else if (member.n == 7 && slice_ieq(member, SLICE("upgrade")))
            h->flags |= UPGRADE_NAMED;
        else if (member.n == 10 && slice_ieq(member, SLICE("keep-alive")))
            h->flags |= KEEP_ALIVE;
    }
}

static enum step
note_length(const struct cursor *c, struct http_head *h, struct slice value)
{
    if (h->framing == HTTP_LENGTH)
        return bad(c, 400, "Content-Length is repeated");
    if (h->framing == HTTP_CHUNKED)
        return bad(c, 400, "Content-Length with Transfer-Encoding");
    /* More than a signed number holds is no honest length, and signed arithmetic stays safe. */
    if (!slice_u64(value, &h->length) || h->length > INT64_MAX)
        return bad(c, 400, "Content-Length is not a number");
    h->framing = HTTP_LENGTH;
    return OK;
}

/* Other codings are refused with 400 although RFC 9112 6.1 would have 501 for an unknown one:
 * who sends them to a server that never offered them (TE is not forwarded) is not to be trusted
 * about where the message ends. Test: http_requests. */
static enum step
note_coding(const struct cursor *c, struct http_head *h, struct slice value)
{
    if (h->framing == HTTP_LENGTH)
        return bad(c, 400, "Content-Length with Transfer-Encoding");
    if (h->framing == HTTP_CHUNKED)
        return bad(c, 400, "Transfer-Encoding is repeated");
    if (h->minor == 0)
        return bad(c, 400, "Transfer-Encoding in HTTP/1.0");
    if (!slice_ieq(value, SLICE("chunked")))
        return bad(c, 400, "Transfer-Encoding is not exactly chunked");
    h->framing = HTTP_CHUNKED;
    return OK;
}

static enum step
note_expect(const struct cursor *c, struct http_head *h, struct slice value)
{
    struct slice member;
    unsigned members = 0;

    for (; http_member(&value, &member); members++)
        if (!slice_ieq(member, SLICE("100-continue")))
            return bad(c, 417, "an expectation other than 100-continue");
    if (members == 0)
        return bad(c, 417, "an empty expectation");
    if (h->minor > 0)                   /* RFC 9110 10.1.1: ignored in HTTP/1.0 */
        h->flags |= HTTP_EXPECT;
    return OK;
}

/* Is it a host, and its own normal form under http and https alike? Only a name or an IPv4 address
 * is found to be one; the port is no scheme's default. */
static bool
host_is_plain(struct slice s)
{
    const char *p = s.p, *end = p + s.n;
    unsigned port = 0;

    while (p < end && is_class(*p, C_LOWER))
        p++;
    if (p == s.p || p[-1] == '.')
        return false;
    if (p == end)
        return true;
    if (*p++ != ':' || end - p < 1 || end - p > 5 || *p == '0')
        return false;
    for (; p < end && is_digit(*p); p++)
        port = port * 10 + (unsigned)(*p - '0');
    return p == end && port <= 65535 && port != 80 && port != 443;
}

/* RFC 9112 3.2: exactly one Host; empty is for a target without an authority, which http URIs never
 * are. The authority of an absolute-form target goes before the field's (3.2.2). */
static enum step
note_host(const struct cursor *c, struct http_head *h, struct slice value)
{
    if (http_has(h, HF_HOST))
        return bad(c, 400, "Host is repeated");
    if (value.n == 0 && h->minor > 0 && !(h->flags & HTTP_ABSOLUTE))
        return bad(c, 400, "Host is empty");
    if (!host_is_plain(value)) {
        if (value.n > 0 && !http_is_host(value))
            return bad(c, 400, "Host is invalid");
        h->normal = false;
    }
    if (!(h->flags & HTTP_ABSOLUTE))
        h->host = value;
    return OK;
}

_Static_assert(HF_CONNECTION < 64 && HF_CONTENT_LENGTH < 64 && HF_EXPECT < 64 && HF_HOST < 64 &&
    HF_TRANSFER_ENCODING < 64, "noted has them in its first word");

#define BIT(id) ((uint64_t)1 << (id))
static const uint64_t noted[2] = { BIT(HF_CONNECTION) | BIT(HF_CONTENT_LENGTH) | BIT(HF_EXPECT) |
    BIT(HF_HOST) | BIT(HF_TRANSFER_ENCODING) };

/* Before f is seen: a second Host finds the first. */
static enum step
note_request(const struct cursor *c, struct http_head *h, const struct http_field *f)
{
    switch (f->id) {
    case HF_HOST:
        return note_host(c, h, f->value);
    case HF_CONNECTION:
        note_connection(h, f->value);
        return OK;
    case HF_CONTENT_LENGTH:
        return note_length(c, h, f->value);
    case HF_TRANSFER_ENCODING:
        return note_coding(c, h, f->value);
    case HF_EXPECT:
        return note_expect(c, h, f->value);
    default:
        return OK;
    }
}

/* RFC 9112 9.3: does the connection persist? RFC 9110 7.8: is an upgrade asked for? */
static void
conclude(struct http_head *h)
{
    if (h->minor == 0 && !(h->flags & KEEP_ALIVE))
        h->flags |= HTTP_CLOSE;
    if (h->flags & UPGRADE_NAMED && h->minor > 0 && http_has(h, HF_UPGRADE))
        h->flags |= HTTP_UPGRADING;
    h->flags &= (uint8_t)~(KEEP_ALIVE | UPGRADE_NAMED);
    h->have[0] &= ~((uint64_t)1 << HF_NONE);
}

/* Is this the empty line that ends the head? MORE also when that is not yet known. */
static inline bool
at_last_line(const struct cursor *c)
{
    return c->at == c->end || *c->at == '\r';
}

/* ---- start lines ---- */

static void
head_reset(struct http_head *h)
{
    struct http_field *fields = h->fields;
    uint16_t cap = h->cap;

    *h = (struct http_head){ .fields = fields, .cap = cap };
}

static enum step
method(struct cursor *c, struct http_head *h)
{
    const char *p = c->at;

    while (p < c->end && is_class(*p, C_TOKEN))
        p++;
    if (p == c->end)
        return MORE;
    if (*p != ' ' || p == c->at)
        return bad(c, 400, "the method is not a token");
    h->method_name = (struct slice){ c->at, (size_t)(p - c->at) };
    h->method = http_method(h->method_name);
    c->at = p + 1;
    return OK;
}

/* Why no target has the byte at p. */
static enum step
target_fault(const struct cursor *c, const char *p)
{
    if (*p == '%')
        return bad(c, 400, "a bad percent escape in the target");
    return bad(c, 400, *p == '#' ? "a fragment in the target" :
        *p == '\r' || *p == '\n' ? "no HTTP version" : "an invalid character in the target");
}

/* The limit bounds what is looked at, so that 414 comes at the same byte however the bytes come. */
static enum step
target(struct cursor *c, struct http_head *h, size_t limit, const char **question)
{
    const char *start = c->at, *p = start;
    const char *end = (size_t)(c->end - p) > limit ? p + limit : c->end;
    bool cut = false;                   /* an escape reaches over the end */
    bool normal = true;

    *question = NULL;
    for (;;) {
        p = scan_target(p, end, c->floor);
        if (p == end || *p == ' ')
            break;
        normal = normal && !is_class(*p, C_REWRITTEN) && (*p != '.' || p[-1] != '/');
        if (*p == '%') {
            if ((end - p > 1 && !is_class(p[1], C_HEX)) ||
                (end - p > 2 && !is_class(p[2], C_HEX)))
                return target_fault(c, p);
            cut = end - p < 3;
            p = cut ? end : p + 3;
        } else if (*p == '?') {
            *question = *question == NULL ? p : *question;
            p++;
        } else if (is_class(*p, C_TARGET | C_REWRITTEN)) {
            p++;
        } else {
            return target_fault(c, p);
        }
    }
    if (p == c->end)
        return MORE;
    if (*p != ' ')
        return bad(c, 414, "the target is too long");
    if (p == start || cut)
        return bad(c, 400, cut ? "a bad percent escape in the target" : "an empty target");
    h->normal = normal && *start == '/';
    h->target = (struct slice){ start, (size_t)(p - start) };
    c->at = p + 1;
    return OK;
}

/* HTTP-version = "HTTP/" DIGIT "." DIGIT, case-sensitive (RFC 9112 2.3). */
static inline enum step
version(struct cursor *c, struct http_head *h)
{
    static const char form[] = "HTTP/1.1";
    const char *p = c->at;
    bool fits;

    if (LIKELY(c->end - p >= 8) && LIKELY(memcmp(p, form, 8) == 0)) {
        h->minor = 1;
        c->at = p + 8;
        return OK;
    }
    for (size_t i = 0; i < sizeof form - 1; i++) {
        if (p + i == c->end)
            return MORE;
        fits = is_digit(form[i]) ? is_digit(p[i]) : p[i] == form[i];
        if (!fits)
            return bad(c, 400, "a malformed HTTP version");
    }
    if (p[5] == '0')
        return bad(c, 400, "HTTP/0.x");
    if (p[5] != '1')
        return bad(c, 505, "an HTTP version other than 1.x");
    h->minor = p[7] != '0';             /* RFC 9110 2.5: the highest that we know */
    c->at = p + sizeof form - 1;
    return OK;
}

static enum step
request_line(struct cursor *c, struct http_head *h, size_t uri_limit)
{
    const char *question;
    enum step s;

    if (c->at < c->end && *c->at == '\r' && (s = line_end(c, "")) != OK)
        return s;
    if ((s = method(c, h)) != OK || (s = target(c, h, uri_limit, &question)) != OK ||
        (s = version(c, h)) != OK ||
        (s = line_end(c, "something behind the HTTP version")) != OK)
        return s;
    if (h->method == HTTP_CONNECT)
        return bad(c, 501, "CONNECT");
    return http_target(h, question, c->fault) == 0 ? OK : BAD;
}

/* RFC 9112 4. The space before an absent reason may be missing too: servers leave it out. */
static enum step
status_line(struct cursor *c, struct http_head *h)
{
    enum step s = version(c, h);
    const char *p;

    if (s != OK)
        return s;
    p = c->at;
    for (size_t i = 0; i < 4; i++) {
        if (p + i == c->end)
            return MORE;
        if (i == 0 ? p[0] != ' ' : !is_digit(p[i]) || (i == 1 && p[1] == '0'))
            return bad(c, 400, "a malformed status");
    }
    h->status = (unsigned)((p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0'));
    c->at = p + 4;
    if (c->at < c->end && *c->at == ' ') {
        p = c->at + 1;
        c->at = scan_value(p, c->end, c->floor);
        h->reason = (struct slice){ p, (size_t)(c->at - p) };
    }
    return line_end(c, "a malformed status line");
}

/* ---- whole heads ---- */

static enum step
request_fields(struct cursor *c, struct http_head *h, unsigned limit)
{
    struct http_field *f = h->fields, *last = f + limit;
    const char *p = c->at, *end = c->end, *next;        /* kept out of memory */
    enum step s;

    for (; p < end && *p != '\r'; f++, p = next) {
        if (UNLIKELY(f == last))
            return bad(c, 431, "too many fields");
        next = quick_line(p, end, f);
        if (UNLIKELY(next == NULL)) {
            c->at = p;
            if ((s = careful_line(c, f)) != OK)
                return s;
            next = c->at;
        }
        if (UNLIKELY(noted[f->id >> 6] >> (f->id & 63) & 1) &&
            (s = note_request(c, h, f)) != OK)
            return s;
        field_seen(h, f->id);
    }
    h->nfields = (uint16_t)(f - h->fields);
    c->at = p;
    return line_end(c, "");
}

static enum step
response_fields(struct cursor *c, struct http_head *h, unsigned limit)
{
    struct http_field *f = h->fields;
    enum step s;

    for (; !at_last_line(c); f++) {
        if (h->nfields >= limit)
            return bad(c, 431, "too many fields");
        if ((s = field_line(c, f)) != OK)
            return s;
        if (f->id == HF_CONNECTION)
            note_connection(h, f->value);
        field_seen(h, f->id);
        h->nfields++;
    }
    return line_end(c, "");
}

/* Nothing behind the limit is looked at: what is not complete there is too large. */
static struct cursor
cursor_at(const char *p, size_t n, const struct http_limits *l, struct http_fault *f)
{
    return (struct cursor){ p, p + (n < l->head ? n : l->head), p, f };
}

static unsigned
fields_limit(const struct http_limits *l, const struct http_head *h)
{
    return l->fields < h->cap ? l->fields : h->cap;
}

ssize_t
http_parse_request(const char *p, size_t n, const struct http_limits *l, struct http_head *h,
    struct http_fault *f)
{
    struct cursor c = cursor_at(p, n, l, f);
    enum step s;

    head_reset(h);
    s = request_line(&c, h, l->uri);
    if (s == OK)
        s = request_fields(&c, h, fields_limit(l, h));
    if (s == MORE)
        return n < l->head ? 0 : fault(f, 431, "the head is too large");
    if (s == BAD)
        return -1;
    if (h->minor > 0 && !http_has(h, HF_HOST))
        return fault(f, 400, "no Host");
    conclude(h);
    return c.at - p;
}

ssize_t
http_parse_response(const char *p, size_t n, const struct http_limits *l, struct http_head *h,
    struct http_fault *f)
{
    struct cursor c = cursor_at(p, n, l, f);
    enum step s;

    head_reset(h);
    s = status_line(&c, h);
    if (s == OK)
        s = response_fields(&c, h, fields_limit(l, h));
    if (s == MORE)
        return n < l->head ? 0 : fault(f, 502, "the head is too large");
    if (s == BAD)
        return fault(f, 502, f->why);
    conclude(h);
    return c.at - p;
}

int
http_parse_fields(const char *p, size_t n, struct http_head *h)
{
    struct http_fault ignored;
    struct cursor c = { p, n > 0 ? p + n : p, p, &ignored };      /* p may be NULL */
    struct http_field *f = h->fields;

    h->nfields = 0;
    h->have[0] = h->have[1] = 0;
    for (; c.at < c.end; f++) {
        if (h->nfields >= h->cap || field_line(&c, f) != OK)
            return -1;
        field_seen(h, f->id);
        h->nfields++;
    }
    h->have[0] &= ~((uint64_t)1 << HF_NONE);
    return 0;
}
