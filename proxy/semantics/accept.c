/*
 * Accept, Accept-Encoding and Accept-Language in one form (RFC 9110 12.5.1, 12.5.3, 12.5.4), and
 * the stored language that a request prefers to all others.
 *
 * Model    a value becomes its members, each in the form that its grammar calls equal to others,
 *          sorted by falling weight (12.4.2), then by name:
 *            - case is folded where the grammar has none: types, codings, ranges, the names of
 *              parameters, charsets (8.3.1, 8.3.2, 8.4.1; RFC 4647 2.1). The value of any other
 *              parameter keeps it; it loses quotes that say nothing (8.3.1).
 *            - q=1 is no weight, and q=0.50 is q=0.5. A member with q=0 stays: it forbids.
 *            - a member said twice is said once. Twice with two weights is nothing that 12.4.2
 *              knows, and no such value has this form.
 *            - x-gzip and x-compress are gzip and compress (8.4.1.1, 8.4.1.3).
 *          Nothing is added, such as the identity that is acceptable unless forbidden (12.5.3): a
 *          server may tell a default from what is said. The order of equal weights says nothing:
 *          only q ranks (12.4.2), and "cannot be relied upon" is what 12.5.4 has for any other
 *          reading. A value that its grammar does not make is compared as a mere list
 *          (vary.c). The form has itself as its form, so that no such list looks like one.
 * Choice   where stored and asked values differ in Accept-Language alone, a response in one
 *          language answers when one range alone has the highest weight and is that language.
 *          "de" does not take what is stored in "de-AT", which it would cover (RFC 4647 3.3.1):
 *          the server may have one that it prefers. Among equals the server chooses.
 * Threads  pure functions; what was put in form of late is remembered by each thread for itself.
 */
#include "semantics/priv.h"

/* A value with more is compared as a list: sorting is for what browsers and libraries send. */
#define MEMBERS_MAX 64

#define WEIGHT_ONE SEM_WEIGHT_ONE

struct member {
    size_t   at, n;                     /* its text without the weight, in the buffer */
    unsigned q;
};

/* qvalue (12.4.2) in thousandths; -1: it is none. */
int
accept_weight(struct slice s)
{
    int q = 0, unit = WEIGHT_ONE;

    if (s.n == 0 || s.n > 5 || (s.p[0] != '0' && s.p[0] != '1') || (s.n > 1 && s.p[1] != '.'))
        return -1;
    for (size_t i = 0; i < s.n; i++) {
        if (i == 1)
            continue;
        if (s.p[i] < '0' || s.p[i] > '9')
            return -1;
        q += (s.p[i] - '0') * unit;
        unit /= 10;
    }
    return q <= WEIGHT_ONE ? q : -1;
}

static void
add_weight(struct buf *b, unsigned q)
{
    if (q == WEIGHT_ONE)
        return;
    buf_addz(b, q == 0 ? ";q=0" : ";q=0.");
    for (unsigned unit = 100; q > 0; q %= unit, unit /= 10)
        buf_addc(b, (char)('0' + q / unit));
}

/* language-range of RFC 4647 2.1: subtags of one to eight letters, and digits but in the first. */
static bool
is_range(struct slice s)
{
    size_t run = 0;
    bool first = true;

    if (slice_eq(s, SLICE("*")))
        return true;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z', digit = c >= '0' && c <= '9';

        if (c == '-' && run > 0) {
            run = 0;
            first = false;
        } else if (!(letter || (digit && !first)) || ++run > 8) {
            return false;
        }
    }
    return run > 0;
}

static bool
is_media_range(struct slice s)
{
    struct slice type;

    return slice_cut(&s, '/', &type) && http_is_token(type) && http_is_token(s);
}

/* Where a quoted string at p ends, behind its quote; NULL: nowhere. */
static const char *
quoted_end(const char *p, const char *end)
{
    for (p++; p < end; p++) {
        if (*p == '"')
            return p + 1;
        if (*p == '\\')
            p++;
    }
    return NULL;
}

/* Takes OWS ";" OWS name "=" value off a member. false: it does not begin so. */
static bool
cut_parameter(struct slice *rest, struct slice *name, struct slice *value)
{
    struct slice s = slice_trim(*rest);
    const char *end = s.p + s.n, *p;

    if (s.n == 0 || s.p[0] != ';')
        return false;
    s = slice_trim((struct slice){ s.p + 1, s.n - 1 });
    if ((p = memchr(s.p, '=', s.n)) == NULL)
        return false;
    *name = (struct slice){ s.p, (size_t)(p - s.p) };
    value->p = ++p;
    if (p < end && *p == '"')
        p = quoted_end(p, end);
    else
        while (p < end && *p != ';' && *p != ' ' && *p != '\t')
            p++;
    if (p == NULL)
        return false;
    value->n = (size_t)(p - value->p);
    *rest = (struct slice){ p, (size_t)(end - p) };
    return http_is_token(*name) && (value->p[0] == '"' || http_is_token(*value));
}

/* A parameter of a media type, which is part of what the member names. */
static void
add_parameter(struct buf *b, struct slice name, struct slice value)
{
    struct slice inner = value;

    if (value.p[0] == '"') {
        inner = (struct slice){ value.p + 1, value.n - 2 };
        if (!http_is_token(inner))
            inner = value;
    }
    buf_addc(b, ';');
    buf_addlower(b, name);
    buf_addc(b, '=');
    if (slice_ieq(name, SLICE("charset")))
        buf_addlower(b, inner);
    else
        buf_adds(b, inner);
}

static bool
add_name(enum http_id id, struct slice name, struct buf *b)
{
    bool valid = id == HF_ACCEPT ? is_media_range(name) :
        id == HF_ACCEPT_LANGUAGE ? is_range(name) : http_is_token(name);

    if (id == HF_ACCEPT_ENCODING &&
        (slice_ieq(name, SLICE("x-gzip")) || slice_ieq(name, SLICE("x-compress"))))
        name = (struct slice){ name.p + 2, name.n - 2 };
    if (valid)
        buf_addlower(b, name);
    return valid;
}

/* Appends the member's text and tells its weight. false: the grammar does not make it. */
static bool
read_member(enum http_id id, struct slice text, struct buf *b, struct member *m)
{
    struct slice name = text, rest, value;
    const char *semicolon = memchr(text.p, ';', text.n);
    int q = WEIGHT_ONE;
    bool weighed = false;

    if (semicolon != NULL)
        name.n = (size_t)(semicolon - text.p);
    rest = (struct slice){ text.p + name.n, text.n - name.n };
    m->at = b->n;
    if (!add_name(id, slice_trim(name), b))
        return false;
    for (; rest.n > 0; rest = slice_trim(rest)) {
        if (weighed || !cut_parameter(&rest, &name, &value))
            return false;               /* what follows a weight is of an older grammar (12.5.1) */
        if ((weighed = slice_ieq(name, SLICE("q"))))
            q = accept_weight(value);
        else if (id == HF_ACCEPT)
            add_parameter(b, name, value);
        else
            return false;
    }
    m->n = b->n - m->at;
    m->q = (unsigned)q;
    return q >= 0;
}

static int
member_order(const char *p, const struct member *a, const struct member *b)
{
    int c = memcmp(p + a->at, p + b->at, a->n < b->n ? a->n : b->n);

    return c != 0 ? c : (a->n > b->n) - (a->n < b->n);
}

/* Puts m into its place among *n. false: it is there with another weight, or there are too many. */
static bool
insert_member(const char *p, struct member *all, size_t *n, const struct member *m)
{
    size_t at = *n;

    for (size_t i = 0; i < *n; i++)
        if (all[i].n == m->n && memcmp(p + all[i].at, p + m->at, m->n) == 0)
            return all[i].q == m->q;
    if (*n == MEMBERS_MAX)
        return false;
    while (at > 0 && (all[at - 1].q < m->q ||
            (all[at - 1].q == m->q && member_order(p, &all[at - 1], m) > 0)))
        at--;
    memmove(&all[at + 1], &all[at], (*n - at) * sizeof *all);
    all[at] = *m;
    (*n)++;
    return true;
}

/* Writes what was read, in order, in place of what was read. */
static void
write_members(struct buf *b, size_t start, const struct member *all, size_t n)
{
    size_t from = b->n;

    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_addc(b, ',');
        if (buf_reserve(b, all[i].n) == NULL)   /* first: the text to add may move */
            return;
        buf_add(b, b->p + all[i].at, all[i].n);
        add_weight(b, all[i].q);
    }
    if (b->failed)
        return;
    memmove(b->p + start, b->p + from, b->n - from);
    b->n = start + (b->n - from);
}

static bool
put_form(enum http_id id, const struct http_head *request, struct buf *b)
{
    struct member all[MEMBERS_MAX], m;
    struct http_list it = { 0 };
    struct slice text;
    size_t n = 0, start = b->n;

    while (http_list_next(request, id, &it, &text))
        if (!read_member(id, text, b, &m) ||
            (!b->failed && !insert_member(b->p, all, &n, &m))) {
            if (!b->failed)
                b->n = start;
            return false;
        }
    if (!b->failed && n > 0)
        write_members(b, start, all, n);
    return true;
}

/* ---- what was put in form of late ------------------------------------------------------------ */

/* Few values make nearly all requests. A value that is found here whole has this form, whoever sent
 * it first. */
#define MEMOS_LOG2 5
#define MEMO_BYTES 192
#define MEMO_LEAST 8                    /* bytes at both ends make the hash */

struct memo {
    uint8_t id, value_n, form_n;        /* id: HF_NONE in one that is free */
    char    value[MEMO_BYTES], form[MEMO_BYTES];
};
static _Thread_local struct memo memos[1 << MEMOS_LOG2];

/* The field's only line; empty: it has none, or several. */
static struct slice
only_line(enum http_id id, const struct http_head *request)
{
    const struct http_field *end = request->fields + request->nfields, *f;
    struct slice value = { NULL, 0 };

    for (f = request->fields; f < end; f++) {
        if (f->id != id)
            continue;
        if (value.p != NULL)
            return (struct slice){ NULL, 0 };
        value = f->value;
    }
    return value;
}

static struct memo *
memo_for(struct slice value)
{
    uint64_t first, last;

    if (value.n < MEMO_LEAST || value.n > MEMO_BYTES)
        return NULL;
    memcpy(&first, value.p, sizeof first);
    memcpy(&last, value.p + value.n - sizeof last, sizeof last);
    return &memos[(first + last * 31 + value.n) * 0x9e3779b97f4a7c15u >> (64 - MEMOS_LOG2)];
}

static void
memo_set(struct memo *m, enum http_id id, struct slice value, const struct buf *b, size_t start)
{
    size_t n = b->n - start;

    if (b->failed || n == 0 || n > MEMO_BYTES)
        return;
    *m = (struct memo){ .id = (uint8_t)id, .value_n = (uint8_t)value.n, .form_n = (uint8_t)n };
    memcpy(m->value, value.p, value.n);
    memcpy(m->form, b->p + start, n);
}

bool
accept_put(enum http_id id, const struct http_head *request, struct buf *b)
{
    struct slice value = only_line(id, request);
    struct memo *m = memo_for(value);
    size_t start = b->n;

    if (m != NULL && m->id == id && slice_eq((struct slice){ m->value, m->value_n }, value)) {
        buf_add(b, m->form, m->form_n);
        return true;
    }
    if (!put_form(id, request, b))
        return false;
    if (m != NULL)
        memo_set(m, id, value, b, start);
    return true;
}

/* ---- the language that is preferred ---------------------------------------------------------- */

/* The next member of a canonical value. false: its end, or it is not canonical (*bad). */
static bool
next_range(struct slice *rest, struct slice *range, int *q, bool *bad)
{
    struct slice value;

    if (!slice_cut(rest, ',', &value))
        return false;
    slice_cut(&value, ';', range);
    *q = WEIGHT_ONE;
    if (value.n > 2 && memcmp(value.p, "q=", 2) == 0)
        *q = accept_weight((struct slice){ value.p + 2, value.n - 2 });
    else if (value.p != NULL)
        *q = -1;
    *bad = *q < 0 || !is_range(*range);
    return !*bad;
}

bool
accept_prefers(struct slice accepted, struct slice language)
{
    struct slice rest = accepted, range, best = { NULL, 0 };
    int q, highest = 0;
    bool bad = false;

    while (next_range(&rest, &range, &q, &bad)) {
        if (q > highest)
            best = range;
        else if (q == highest)
            best.p = NULL;
        if (q > highest)
            highest = q;
    }
    return !bad && best.p != NULL && slice_ieq(best, language);
}
