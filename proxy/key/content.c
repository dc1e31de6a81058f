/*
 * Request content as a part of the key: QUERY (RFC 10008 2.7), and methods that a route takes for
 * as safe.
 *
 * Model    the part is the method and a SHA-256 of the content's metadata and of the content, both
 *          normalised for the key alone: what is sent stays as it came. A hash that nobody can
 *          find collisions of, because who can would put an answer under another's question.
 *          Content is normalised only where all readers of its format must agree: JSON by white
 *          space and the order of members, a form by the order of its pairs. Numbers and strings
 *          stay as written. Where readers are known to disagree the order stays too: names that
 *          are equal but for case (Go's decoder), that have escapes or bytes beyond ASCII (equal
 *          once decoded), and in forms all but plain names (PHP makes arrays of some, and one
 *          name of others). So two texts share a key only when no reader could tell them apart.
 *          What is coded, not UTF-8, malformed or too deep is taken as bytes.
 * Threads  pure functions.
 * Not here collecting the content, and how much of it (request/body.c).
 */
#include <openssl/evp.h>
#include <stdlib.h>

#include "key/key.h"
#include "key/priv.h"

/* ---- sorting by name ----------------------------------------------------------------------- */

/* A member or a pair: its name, and where its text lies in the buffer that is sorted. */
struct named {
    struct slice name;
    size_t       at, n, order;
};

struct names { struct named *at; size_t n, cap; };

static struct named *
names_add(struct names *s)
{
    if (s->n == s->cap) {
        size_t cap = s->cap == 0 ? 64 : s->cap * 2;
        struct named *at = realloc(s->at, cap * sizeof *at);

        if (at == NULL)
            return NULL;
        s->at = at;
        s->cap = cap;
    }
    return &s->at[s->n++];
}

static int
compare_names(struct slice a, struct slice b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n > 0 ? strncasecmp(a.p, b.p, n) : 0;

    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int
by_name(const void *x, const void *y)
{
    const struct named *a = x, *b = y;
    int c = compare_names(a->name, b->name);

    return c != 0 ? c : (a->order > b->order) - (a->order < b->order);
}

static bool
has_equals(const struct named *at, size_t n)        /* once sorted */
{
    for (size_t i = 1; i < n; i++)
        if (compare_names(at[i - 1].name, at[i].name) == 0)
            return true;
    return false;
}

/* Writes the texts, which stand in b from `from` to its end with one byte between them, anew in the
 * order of `at`. */
static void
rearrange(struct buf *b, size_t from, const struct named *at, size_t n, char between)
{
    struct buf sorted = { 0 };

    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_addc(&sorted, between);
        buf_add(&sorted, b->p + at[i].at, at[i].n);
    }
    if (sorted.failed || sorted.n != b->n - from)
        b->failed = true;
    else
        memcpy(b->p + from, sorted.p, sorted.n);
    buf_free(&sorted);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

struct json {
    const char  *p, *end;
    struct buf  *out;
    struct names members;               /* of all objects that are open */
};

static void json_value(struct json *j);

static char                             /* the next that is no white space, or NUL at the end */
json_next(struct json *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r'))
        j->p++;
    return j->p < j->end ? *j->p : '\0';
}

static void
json_copy(struct json *j)
{
    buf_addc(j->out, *j->p++);
}

/* With its quotes, as written; the slice lies in the source. */
static struct slice
json_string(struct json *j)
{
    const char *start = j->p++;

    while (*j->p != '"')
        j->p += *j->p == '\\' ? 2 : 1;
    j->p++;
    buf_add(j->out, start, (size_t)(j->p - start));
    return (struct slice){ start, (size_t)(j->p - start) };
}

static bool
plain_name(struct slice name)
{
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] >= 0x80 || name.p[i] == '\\')
            return false;
    return true;
}

/* Sorts the members since `first`, where their order tells nothing to anybody. */
static void
json_sort(struct json *j, size_t first, size_t from)
{
    struct named *at = j->members.at + first;
    size_t n = j->members.n - first;
    bool sorted = true;

    for (size_t i = 0; i < n; i++) {
        if (!plain_name(at[i].name))
            return;
        sorted = sorted && (i == 0 || compare_names(at[i - 1].name, at[i].name) < 0);
    }
    if (sorted)
        return;
    qsort(at, n, sizeof *at, by_name);
    if (!has_equals(at, n))
        rearrange(j->out, from, at, n, ',');
}

static void
json_object(struct json *j)
{
    size_t first = j->members.n, from, index, start;
    struct named *m;

    json_copy(j);
    from = j->out->n;
    while (json_next(j) != '}') {
        if (*j->p == ',') {
            json_copy(j);
            json_next(j);
        }
        if ((m = names_add(&j->members)) == NULL) {
            j->out->failed = true;
            j->p = j->end;
            return;
        }
        index = j->members.n - 1;
        start = j->out->n;
        m->order = index;
        m->name = json_string(j);
        json_next(j);
        json_copy(j);                   /* the colon */
        json_value(j);
        if (j->out->failed)
            return;
        m = &j->members.at[index];      /* it may have moved */
        m->at = start;
        m->n = j->out->n - start;
    }
    json_sort(j, first, from);
    j->members.n = first;
    json_copy(j);
}

/* Depth is bounded: json_find refused what is deeper. */
static void
json_value(struct json *j)
{
    switch (json_next(j)) {
    case '{':
        json_object(j);
        break;
    case '[':
        json_copy(j);
        while (!j->out->failed && json_next(j) != ']') {
            if (*j->p == ',')
                json_copy(j);
            json_value(j);
        }
        if (!j->out->failed)
            json_copy(j);
        break;
    case '"':
        json_string(j);
        break;
    default:
        while (j->p < j->end && strchr(" \t\n\r,]}", *j->p) == NULL)
            json_copy(j);
        break;
    }
}

bool
content_json(struct slice content, struct buf *out)
{
    const struct json_path whole = { .n = 0 };
    struct json_values none = { .cap = 0 };
    struct json j = { .p = content.p, .end = content.p + content.n, .out = out };
    size_t from = out->n;
    bool ok = json_find(content, &whole, &none) == 0;

    buf_free(&none.text);
    if (!ok)
        return false;
    json_value(&j);
    free(j.members.at);
    if (!out->failed)
        return true;
    out->n = from;
    out->failed = false;
    return false;
}

/* ---- forms --------------------------------------------------------------------------------- */

/* One that means the same to all who decode it. */
static bool
plain_field(struct slice name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            c != '_' && c != '-')
            return false;
    }
    return name.n > 0;
}

bool
content_form(struct slice content, struct buf *out)
{
    struct names pairs = { 0 };
    struct slice rest = content, pair;
    size_t from = out->n;
    /* ';' parts pairs for some readers. */
    bool plain = content.n > 0 && memchr(content.p, ';', content.n) == NULL;
    const char *at = content.p;

    buf_adds(out, content);
    while (plain && slice_cut(&rest, '&', &pair)) {
        const char *eq = pair.n > 0 ? memchr(pair.p, '=', pair.n) : NULL;
        struct named *one = names_add(&pairs);

        if (one == NULL) {
            plain = false;
            break;
        }
        one->name = (struct slice){ pair.p, eq != NULL ? (size_t)(eq - pair.p) : pair.n };
        one->at = from + (size_t)(at - content.p);
        one->n = pair.n;
        one->order = pairs.n;
        at += pair.n + 1;
        plain = plain_field(one->name);
    }
    if (plain && !out->failed && content.p[content.n - 1] != '&') {
        qsort(pairs.at, pairs.n, sizeof *pairs.at, by_name);
        rearrange(out, from, pairs.at, pairs.n, '&');
    } else {
        plain = false;
    }
    free(pairs.at);
    if (!plain || out->failed) {
        out->n = from;
        out->failed = false;
        return false;
    }
    return true;
}

/* ---- metadata ------------------------------------------------------------------------------ */

/* All lines of a field, joined as a list. */
static void
put_field(const struct http_head *h, enum http_id id, struct buf *b)
{
    bool first = true;

    for (unsigned i = 0; http_has(h, id) && i < h->nfields; i++) {
        if (h->fields[i].id != id)
            continue;
        if (!first)
            buf_addz(b, ", ");
        buf_adds(b, h->fields[i].value);
        first = false;
    }
}

/* "type/subtype" in lower case (RFC 9110 8.3.1) at the beginning of what stands in b since `from`;
 * the parameters stay as written. */
static struct slice
fold_type(struct buf *b, size_t from)
{
    size_t n = from;

    for (; n < b->n && b->p[n] != ';' && b->p[n] != ',' && b->p[n] != ' ' && b->p[n] != '\t'; n++)
        if (b->p[n] >= 'A' && b->p[n] <= 'Z')
            b->p[n] |= 0x20;
    return (struct slice){ b->p + from, n - from };
}

/* Is it in UTF-8, as far as its type says? JSON is (RFC 8259 8.1), and a form. */
static bool
utf8(struct slice rest)
{
    const char *p;

    rest.p = rest.n > 0 ? rest.p : "";
    p = memmem(rest.p, rest.n, "=", 1);
    if (p == NULL)
        return memchr(rest.p, ',', rest.n) == NULL;
    rest = slice_trim(rest);
    if (rest.n < 1 || *rest.p != ';')
        return false;
    rest = slice_trim((struct slice){ rest.p + 1, rest.n - 1 });
    return slice_ieq(rest, SLICE("charset=utf-8")) || slice_ieq(rest, SLICE("charset=\"utf-8\""));
}

static bool
is_json(struct slice type)
{
    return slice_eq(type, SLICE("application/json")) ||
        (type.n > 5 && memcmp(type.p + type.n - 5, "+json", 5) == 0);
}

/* ---- the part ------------------------------------------------------------------------------ */

/* What stands in b since `at` is preceded by its length, in the eight bytes in front. */
static void
count_in(struct buf *b, size_t at)
{
    uint64_t n = b->n - at;

    if (!b->failed)
        memcpy(b->p + at - 8, &n, 8);
}

static size_t
begin_counted(struct buf *b)
{
    buf_add(b, "\0\0\0\0\0\0\0\0", 8);
    return b->n;
}

static void
put_counted_field(const struct http_head *h, enum http_id id, struct buf *b)
{
    size_t at = begin_counted(b);

    put_field(h, id, b);
    count_in(b, at);
}

/* Appends the content in its normal form, behind a letter that says which. */
static void
put_content(const struct http_head *h, struct slice type, bool utf, bool as_is,
    struct slice content, struct buf *b)
{
    size_t mode = b->n;

    buf_addc(b, 'b');
    if (as_is || !utf || http_has(h, HF_CONTENT_ENCODING) || content.n == 0) {
        buf_adds(b, content);
    } else if (is_json(type) && content_json(content, b)) {
        b->p[mode] = 'j';
    } else if (slice_eq(type, SLICE("application/x-www-form-urlencoded")) &&
        content_form(content, b)) {
        b->p[mode] = 'f';
    } else {
        buf_adds(b, content);
    }
}

int
key_add_content(struct key *k, const struct http_head *h, struct slice content, bool as_is,
    struct buf *b)
{
    static const enum http_id others[] = { HF_CONTENT_ENCODING, HF_CONTENT_LANGUAGE,
        HF_CONTENT_LOCATION, HF_CONTENT_RANGE };
    unsigned char digest[EVP_MAX_MD_SIZE];
    struct buf text = { 0 }, type = { 0 };
    struct slice name;
    unsigned n = 0;
    size_t at;
    int rc = -1;

    put_field(h, HF_CONTENT_TYPE, &type);
    name = fold_type(&type, 0);
    at = begin_counted(&text);
    buf_adds(&text, buf_slice(&type));
    count_in(&text, at);
    for (size_t i = 0; i < NELEM(others); i++)
        put_counted_field(h, others[i], &text);
    put_content(h, name, utf8((struct slice){ name.p + name.n, type.n - name.n }), as_is, content,
        &text);
    if (!text.failed && !type.failed &&
        EVP_Digest(text.p, text.n, digest, &n, EVP_sha256(), NULL) == 1) {
        text.n = 0;
        buf_adds(&text, h->method_name);
        buf_addc(&text, ' ');
        for (unsigned i = 0; i < n; i++)
            buf_printf(&text, "%02x", digest[i]);
        rc = text.failed ? -1 : key_add(k, 'c', buf_slice(&text), b);
    }
    buf_free(&text);
    buf_free(&type);
    return rc;
}
