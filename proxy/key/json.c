/*
 * Reads the values at one path out of a JSON document, in one pass and without a tree.
 *
 * Model    a recursive descent over the grammar of RFC 8259. `at` is how many steps of the path
 *          led to the value under the cursor, or OFF when it is on another branch: everything is
 *          checked, but only what the path leads to is kept. A member name that occurs twice is
 *          followed twice: for purging, one value too many is right and one too few is wrong.
 *          Not jansson: it turns 1.0 and 12345678901234567890 into a double and leaves one of two
 *          members of one name, so values would be other texts than the message's, and some
 *          missing.
 * Threads  pure functions.
 * Not here numbers as numbers (their text is the value), comments, other encodings than UTF-8.
 */
#include "key/key.h"
#include "key/priv.h"

#define OFF SIZE_MAX

struct reader {
    const char *p, *end;
    const struct json_path *path;
    struct json_values *out;
    unsigned depth;
};

static bool read_value(struct reader *r, size_t at);

int
json_path_parse(struct slice text, struct json_path *path)
{
    struct slice rest = text, step;

    path->n = 0;
    if (text.n == 0)
        return 0;
    while (slice_cut(&rest, '.', &step)) {
        size_t arrays = 0;

        while (step.n >= 2 && step.p[step.n - 2] == '[' && step.p[step.n - 1] == ']') {
            step.n -= 2;
            arrays++;
        }
        if ((step.n == 0 && arrays == 0) || memchr(step.p, '[', step.n) != NULL ||
            memchr(step.p, ']', step.n) != NULL)
            return -1;
        if (path->n + (step.n > 0) + arrays > KEY_JSON_STEPS)
            return -1;
        if (step.n > 0)
            path->steps[path->n++] = step;
        while (arrays-- > 0)
            path->steps[path->n++] = (struct slice){ NULL, 0 };
    }
    return 0;
}

/* ---- characters ---------------------------------------------------------------------------- */

static void
skip_space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
}

static bool
take(struct reader *r, char c)
{
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

static bool
take_word(struct reader *r, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0)
        return false;
    r->p += n;
    return true;
}

static bool
take_hex4(struct reader *r, uint32_t *out)
{
    *out = 0;
    if (r->end - r->p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = *r->p++;
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
            c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

        if (d < 0)
            return false;
        *out = *out << 4 | (uint32_t)d;
    }
    return true;
}

static size_t
put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xe0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* The character behind "\u": a pair of surrogates is one, a lone one is none (RFC 8259 8.2). */
static bool
take_unicode(struct reader *r, uint32_t *out)
{
    uint32_t low;

    if (!take_hex4(r, out))
        return false;
    if (*out < 0xd800 || *out > 0xdfff)
        return true;
    if (*out > 0xdbff || !take_word(r, "\\u") || !take_hex4(r, &low) ||
        low < 0xdc00 || low > 0xdfff)
        return false;
    *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

/* One character of a string, unescaped, at most 4 bytes at `to`; 0 when it is malformed. Bytes
 * beyond ASCII are passed on as they stand: a value is taken literally. */
static size_t
take_char(struct reader *r, char *to)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    const char *which;
    uint32_t c;

    if (r->p == r->end || (unsigned char)*r->p < 0x20)
        return 0;
    if (*r->p != '\\') {
        *to = *r->p++;
        return 1;
    }
    if (++r->p == r->end)
        return 0;
    if (*r->p == 'u') {
        r->p++;
        return take_unicode(r, &c) ? put_utf8(to, c) : 0;
    }
    which = *r->p != '\0' ? strchr(from, *r->p) : NULL;
    if (which == NULL)
        return 0;
    r->p++;
    *to = into[which - from];
    return 1;
}

/* A string behind its opening quote. `keep`: append it to the values' text. `name` (may be NULL):
 * set *same to whether it equals that. */
static bool
read_string(struct reader *r, bool keep, const struct slice *name, bool *same)
{
    size_t matched = 0, n;
    bool equal = true;
    char c[4];

    while (r->p < r->end && *r->p != '"') {
        n = take_char(r, c);
        if (n == 0)
            return false;
        if (keep)
            buf_add(&r->out->text, c, n);
        if (name != NULL && equal) {
            equal = name->n - matched >= n && memcmp(name->p + matched, c, n) == 0;
            matched += n;
        }
    }
    if (same != NULL)
        *same = name != NULL && equal && matched == name->n;
    return take(r, '"');
}

/* number = [ minus ] int [ frac ] [ exp ] (RFC 8259 6). */
static bool
read_number(struct reader *r)
{
    const char *start;

#define DIGITS() \
    for (start = r->p; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++) \
        ; \
    if (r->p == start) \
        return false
    take(r, '-');
    if (!take(r, '0')) {
        DIGITS();
    }
    if (take(r, '.')) {
        DIGITS();
    }
    if (take(r, 'e') || take(r, 'E')) {
        if (!take(r, '+'))
            take(r, '-');
        DIGITS();
    }
#undef DIGITS
    return true;
}

/* ---- values -------------------------------------------------------------------------------- */

/* Is a value that the path ends at wanted here? */
static bool
wanted(const struct reader *r, size_t at)
{
    return at == r->path->n || at == r->path->n + 1;
}

/* The text since `from` is one value. */
static void
value_ends(struct reader *r, size_t from)
{
    struct json_values *v = r->out;

    if (v->n == v->cap) {
        v->over = true;
        v->text.n = from;
        return;
    }
    v->ends[v->n++] = (uint32_t)v->text.n;
}

static bool
read_object(struct reader *r, size_t at)
{
    bool named = at != OFF && at < r->path->n && r->path->steps[at].p != NULL, found = false, same;

    skip_space(r);
    if (take(r, '}')) {
        r->out->absent |= at != OFF;
        return true;
    }
    do {
        skip_space(r);
        if (!take(r, '"') || !read_string(r, false, named ? &r->path->steps[at] : NULL, &same))
            return false;
        skip_space(r);
        if (!take(r, ':') || !read_value(r, same ? at + 1 : OFF))
            return false;
        found |= same;
        skip_space(r);
    } while (take(r, ','));
    r->out->absent |= at != OFF && !found;
    return take(r, '}');
}

/* What the elements are to the path: those of a step "[]" go on behind it; those of an array at its
 * end are values if they are scalars. */
static bool
read_array(struct reader *r, size_t at)
{
    size_t to = OFF;

    if (at != OFF && at < r->path->n && r->path->steps[at].p == NULL)
        to = at + 1;
    else if (at == r->path->n)
        to = r->path->n + 1;            /* a scalar here counts, a further array or object not */
    r->out->absent |= at != OFF && to == OFF;
    skip_space(r);
    if (take(r, ']'))
        return true;
    do {
        if (!read_value(r, to))
            return false;
        skip_space(r);
    } while (take(r, ','));
    return take(r, ']');
}

static bool
read_value(struct reader *r, size_t at)
{
    bool keep = wanted(r, at), ok;
    size_t from = r->out->text.n;
    const char *start;

    skip_space(r);
    if (r->p == r->end || r->depth == KEY_JSON_DEPTH)
        return false;
    start = r->p;
    if (take(r, '{') || take(r, '[')) {
        r->depth++;
        ok = *start == '{' ? read_object(r, at) : read_array(r, at);
        r->depth--;
        return ok;
    }
    r->out->absent |= at != OFF && (!keep || *start == 'n');
    if (take_word(r, "null"))
        return true;
    if (take(r, '"')) {
        ok = read_string(r, keep, NULL, NULL);
    } else {
        ok = take_word(r, "true") || take_word(r, "false") || read_number(r);
        if (ok && keep)
            buf_add(&r->out->text, start, (size_t)(r->p - start));
    }
    if (ok && keep)
        value_ends(r, from);
    return ok;
}

int
json_find(struct slice document, const struct json_path *path, struct json_values *out)
{
    struct reader r = { .p = document.p, .path = path, .out = out };

    if (document.p == NULL || document.n > UINT32_MAX)
        return -1;
    r.end = document.p + document.n;
    if (!read_value(&r, 0))
        return -1;
    skip_space(&r);
    return r.p == r.end && !out->text.failed ? 0 : -1;
}
