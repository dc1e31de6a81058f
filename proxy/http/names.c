/*
 * Names: methods, field names and their ids, reason phrases; character classes.
 *
 * Model    fields.def gives each known field an id. A name is found by one look into a hash table
 *          of 256 slots and one comparison. The table is made before main, so that a new line in
 *          fields.def is all that a new field needs.
 * Threads  any; nothing changes after start.
 */
#include "http/scan.h"

#define HOP  HTTP_HOP
#define KEEP HTTP_KEEP
#define ONE  HTTP_ONE

static const struct {
    struct slice name;
    unsigned     flags;
} fields[HF_COUNT] = {
#define FIELD(id, name, flags) [HF_##id] = { { name, sizeof(name) - 1 }, flags },
#include "http/fields.def"
#undef FIELD
};
_Static_assert(HF_COUNT <= 128, "http_head.have holds 128 bits");

struct http_known http_known[HF_COUNT];
uint8_t http_slots[256];

static void __attribute__((constructor))
names_init(void)
{
    for (unsigned id = HF_NONE + 1; id < HF_COUNT; id++) {
        struct http_known *k = &http_known[id];
        struct slice name = fields[id].name;
        unsigned at = name_hash(name.p, name.n);

        assert(name.n > 1 && name.n <= KNOWN_MAX);
        k->n = (uint8_t)name.n;
        for (size_t i = 0; i < name.n; i++) {
            k->lower[i] = to_lower(name.p[i]);
            k->fold[i] = k->lower[i] >= 'a' && k->lower[i] <= 'z' ? 0x20 : 0;
        }
        while (http_slots[at] != HF_NONE)
            at = (at + 1) & 0xff;
        http_slots[at] = (uint8_t)id;
    }
}

enum http_id
http_id(struct slice name)
{
    unsigned id;

    if (name.n < 2 || name.n > KNOWN_MAX)
        return HF_NONE;
    for (unsigned at = name_hash(name.p, name.n); (id = http_slots[at]) != HF_NONE;
        at = (at + 1) & 0xff)
        if (slice_ieq(fields[id].name, name))
            return (enum http_id)id;
    return HF_NONE;
}

struct slice
http_name(enum http_id id)
{
    return fields[id].name;
}

unsigned
http_flags(enum http_id id)
{
    return fields[id].flags;
}

static const struct {
    struct slice name;
    bool         safe, idempotent;
} methods[] = {
    [HTTP_OTHER]   = { { "", 0 },        false, false },
    [HTTP_GET]     = { { "GET", 3 },     true,  true },
    [HTTP_HEAD]    = { { "HEAD", 4 },    true,  true },
    [HTTP_POST]    = { { "POST", 4 },    false, false },
    [HTTP_PUT]     = { { "PUT", 3 },     false, true },
    [HTTP_PATCH]   = { { "PATCH", 5 },   false, false },
    [HTTP_DELETE]  = { { "DELETE", 6 },  false, true },
    [HTTP_OPTIONS] = { { "OPTIONS", 7 }, true,  true },
    [HTTP_TRACE]   = { { "TRACE", 5 },   true,  true },
    [HTTP_CONNECT] = { { "CONNECT", 7 }, false, false },
    [HTTP_PURGE]   = { { "PURGE", 5 },   false, false },
    [HTTP_QUERY]   = { { "QUERY", 5 },   true,  true },
};

enum http_method
http_method(struct slice token)
{
    if (LIKELY(token.n == 3 && memcmp(token.p, "GET", 3) == 0))
        return HTTP_GET;
    for (unsigned m = HTTP_GET; m < NELEM(methods); m++)
        if (slice_eq(methods[m].name, token))
            return (enum http_method)m;
    return HTTP_OTHER;
}

bool
http_method_safe(enum http_method m)
{
    return methods[m].safe;
}

bool
http_method_idempotent(enum http_method m)
{
    return methods[m].idempotent;
}

/* The registry at iana.org/assignments/http-status-codes. */
const char *
http_reason(unsigned status)
{
    static const char *const reasons[] = {
        [100] = "Continue", [101] = "Switching Protocols", [102] = "Processing",
        [103] = "Early Hints",
        [200] = "OK", [201] = "Created", [202] = "Accepted",
        [203] = "Non-Authoritative Information", [204] = "No Content", [205] = "Reset Content",
        [206] = "Partial Content", [207] = "Multi-Status", [208] = "Already Reported",
        [226] = "IM Used",
        [300] = "Multiple Choices", [301] = "Moved Permanently", [302] = "Found",
        [303] = "See Other", [304] = "Not Modified", [305] = "Use Proxy",
        [307] = "Temporary Redirect", [308] = "Permanent Redirect",
        [400] = "Bad Request", [401] = "Unauthorized", [402] = "Payment Required",
        [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed",
        [406] = "Not Acceptable", [407] = "Proxy Authentication Required",
        [408] = "Request Timeout", [409] = "Conflict", [410] = "Gone", [411] = "Length Required",
        [412] = "Precondition Failed", [413] = "Content Too Large", [414] = "URI Too Long",
        [415] = "Unsupported Media Type", [416] = "Range Not Satisfiable",
        [417] = "Expectation Failed", [421] = "Misdirected Request",
        [422] = "Unprocessable Content", [423] = "Locked", [424] = "Failed Dependency",
        [425] = "Too Early", [426] = "Upgrade Required", [428] = "Precondition Required",
        [429] = "Too Many Requests", [431] = "Request Header Fields Too Large",
        [451] = "Unavailable For Legal Reasons",
        [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
        [503] = "Service Unavailable", [504] = "Gateway Timeout",
        [505] = "HTTP Version Not Supported", [506] = "Variant Also Negotiates",
        [507] = "Insufficient Storage", [508] = "Loop Detected",
        [511] = "Network Authentication Required",
    };

    return status < NELEM(reasons) && reasons[status] != NULL ? reasons[status] : "";
}

#define VT (C_VALUE | C_TARGET)
#define ODD (C_VALUE | C_REWRITTEN)     /* neither reserved nor unreserved (RFC 3986 2) */
#define CAPITAL (VT | C_NAME | C_TOKEN | C_UNRESERVED)
#define SUB (VT | C_NAME | C_LOWER)     /* a sub-delim */
#define TSUB (SUB | C_TOKEN)            /* ... that is a token character */
#define UNRESERVED (TSUB | C_UNRESERVED)

const uint8_t http_class[256] = {
    ['\t'] = C_VALUE, [' '] = C_VALUE, [0x80 ... 0xff] = C_VALUE,
    ['0' ... '9'] = UNRESERVED | C_HEX,
    ['A' ... 'F'] = CAPITAL | C_HEX, ['G' ... 'Z'] = CAPITAL,
    ['a' ... 'f'] = UNRESERVED | C_HEX, ['g' ... 'z'] = UNRESERVED,
    ['-'] = UNRESERVED, ['.'] = UNRESERVED, ['_'] = UNRESERVED, ['~'] = UNRESERVED,
    ['!'] = TSUB, ['$'] = TSUB, ['&'] = TSUB, ['\''] = TSUB, ['*'] = TSUB, ['+'] = TSUB,
    ['('] = SUB, [')'] = SUB, [','] = SUB, [';'] = SUB, ['='] = SUB,
    ['^'] = ODD | C_TOKEN, ['`'] = ODD | C_TOKEN, ['|'] = ODD | C_TOKEN,
    ['"'] = ODD, ['<'] = ODD, ['>'] = ODD, ['\\'] = ODD, ['{'] = ODD, ['}'] = ODD,
    ['/'] = VT, [':'] = VT, ['@'] = VT, ['['] = VT, [']'] = VT,
    ['#'] = C_VALUE | C_TOKEN, ['%'] = C_VALUE | C_TOKEN | C_REWRITTEN, ['?'] = C_VALUE,
};

bool
http_is_token(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!is_class(s.p[i], C_TOKEN))
            return false;
    return s.n > 0;
}

bool
http_is_field_value(struct slice s)
{
    return s.n == 0 || scan_value(s.p, s.p + s.n, s.p) == s.p + s.n;
}

static struct buf *
put_two(struct buf *b, struct slice name, struct slice value)
{
    char *at = buf_reserve(b, name.n + value.n + 4);

    if (at == NULL)
        return b;
    memcpy(at, name.p, name.n);
    memcpy(at + name.n, ": ", 2);
    if (value.n > 0)
        memcpy(at + name.n + 2, value.p, value.n);
    memcpy(at + name.n + 2 + value.n, "\r\n", 2);
    b->n += name.n + value.n + 4;
    return b;
}

void
http_put(struct buf *b, struct slice name, struct slice value)
{
    put_two(b, name, value);
}

void
http_put_id(struct buf *b, enum http_id id, struct slice value)
{
    put_two(b, http_name(id), value);
}

void
http_put_number(struct buf *b, enum http_id id, uint64_t value)
{
    char digits[20];

    put_two(b, http_name(id), (struct slice){ digits, put_u64(digits, value) });
}
