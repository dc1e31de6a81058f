/*
 * Structured fields (RFC 9651 4.2): checking and walking.
 *
 * Model    one recursive-descent parser over the source. Checking runs it without a scratch buffer
 *          and keeps nothing; the walkers run it a member at a time. Text without escapes is given
 *          as it stands in the source, other text is unescaped into the scratch buffer.
 * Not here writing (sf_put.c).
 * Limits   those of the RFC's types: 15 digits of an integer, 12 and 3 of a decimal.
 */
#include "http/sf.h"

struct source {
    const char *p, *end;
    struct buf *scratch;                /* borrowed; NULL: check only */
};

static bool
next_is(const struct source *s, char c)
{
    return s->p < s->end && *s->p == c;
}

static bool
take(struct source *s, char c)
{
    if (!next_is(s, c))
        return false;
    s->p++;
    return true;
}

static void
skip(struct source *s, bool tabs)       /* SP, or OWS */
{
    while (s->p < s->end && (*s->p == ' ' || (tabs && *s->p == '\t')))
        s->p++;
}

static struct slice
since(const struct source *s, const char *start)
{
    return (struct slice){ start, (size_t)(s->p - start) };
}

/* What was added to the scratch buffer since `from`. */
static struct slice
scratched(const struct source *s, size_t from)
{
    if (s->scratch == NULL || s->scratch->failed || s->scratch->p == NULL)
        return SLICE("");
    return (struct slice){ s->scratch->p + from, s->scratch->n - from };
}

static void
put(const struct source *s, char c)
{
    if (s->scratch != NULL)
        buf_addc(s->scratch, c);
}

static size_t
scratch_mark(const struct source *s, size_t most)
{
    if (s->scratch == NULL)
        return 0;
    buf_reserve(s->scratch, most);
    return s->scratch->n;
}

/* ---- bare items ---- */

static int64_t
take_digits(struct source *s, size_t *n)       /* no more than 18 are added up */
{
    int64_t v = 0;

    for (*n = 0; s->p < s->end && is_digit(*s->p); s->p++)
        if (++*n <= 18)
            v = v * 10 + (*s->p - '0');
    return v;
}

static int
number(struct source *s, struct sf_item *item)
{
    bool minus = take(s, '-');
    size_t whole, fraction;
    int64_t v = take_digits(s, &whole), part;

    if (whole == 0 || whole > 15)
        return -1;
    item->type = SF_INTEGER;
    if (take(s, '.')) {
        part = take_digits(s, &fraction);
        if (whole > 12 || fraction == 0 || fraction > 3)
            return -1;
        for (; fraction < 3; fraction++)
            part *= 10;
        v = v * 1000 + part;
        item->type = SF_DECIMAL;
    }
    item->integer = minus ? -v : v;
    return 0;
}

static int
string(struct source *s, struct sf_item *item)
{
    const char *start = ++s->p;
    bool escapes = false;

    while (s->p < s->end && *s->p != '"') {
        if (*s->p == '\\') {
            escapes = true;
            s->p++;
            if (!next_is(s, '"') && !next_is(s, '\\'))
                return -1;
        } else if (*s->p < 0x20 || *s->p > 0x7e) {
            return -1;
        }
        s->p++;
    }
    item->type = SF_STRING;
    item->text = since(s, start);
    if (!take(s, '"'))
        return -1;
    if (escapes) {
        struct slice raw = item->text;
        size_t from = scratch_mark(s, raw.n);

        for (size_t i = 0; i < raw.n; i++) {
            i += raw.p[i] == '\\';
            put(s, raw.p[i]);
        }
        item->text = scratched(s, from);
    }
    return 0;
}

static int
token(struct source *s, struct sf_item *item)
{
    const char *start = s->p++;

    while (s->p < s->end && sf_in_token(*s->p))
        s->p++;
    item->type = SF_TOKEN;
    item->text = since(s, start);
    return 0;
}

static int
base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (is_lower(c))
        return c - 'a' + 26;
    if (is_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 9651 4.2.7: missing padding and pad bits that are not zero are accepted. */
static int
byte_sequence(struct source *s, struct sf_item *item)
{
    const char *start = ++s->p;
    size_t n, pads, from = 0;
    unsigned bits = 0;

    while (s->p < s->end && base64_value(*s->p) >= 0)
        s->p++;
    n = (size_t)(s->p - start);
    for (pads = 0; take(s, '='); pads++)
        ;
    if (!take(s, ':') || n % 4 == 1 || (pads > 0 && (pads > 2 || (n + pads) % 4 != 0)))
        return -1;
    item->type = SF_BYTES;
    from = scratch_mark(s, n);
    for (size_t i = 0; i < n; i++) {
        bits = bits << 6 | (unsigned)base64_value(start[i]);
        if (i % 4 > 0)
            put(s, (char)(bits >> (6 - 2 * (i % 4))));
    }
    item->text = scratched(s, from);
    return 0;
}

static int
boolean(struct source *s, struct sf_item *item)
{
    s->p++;
    if (!next_is(s, '0') && !next_is(s, '1'))
        return -1;
    item->type = SF_BOOLEAN;
    item->integer = *s->p++ - '0';
    return 0;
}

static int
date(struct source *s, struct sf_item *item)
{
    s->p++;
    if (number(s, item) == -1 || item->type != SF_INTEGER)
        return -1;
    item->type = SF_DATE;
    return 0;
}

static bool
is_lower_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f');
}

static int
display_string(struct source *s, struct sf_item *item)
{
    struct utf8 u = { 0 };
    size_t from;
    char c;

    s->p++;
    if (!take(s, '"'))
        return -1;
    from = scratch_mark(s, (size_t)(s->end - s->p));
    while (s->p < s->end && *s->p != '"') {
        c = *s->p++;
        if (c < 0x20 || c > 0x7e)
            return -1;
        if (c == '%') {
            if (s->end - s->p < 2 || !is_lower_hex(s->p[0]) || !is_lower_hex(s->p[1]))
                return -1;
            c = (char)(hex_value(s->p[0]) << 4 | hex_value(s->p[1]));
            s->p += 2;
        }
        if (!utf8_takes(&u, (unsigned char)c))
            return -1;
        put(s, c);
    }
    item->type = SF_DISPLAY;
    item->text = scratched(s, from);
    return take(s, '"') && u.need == 0 ? 0 : -1;
}

static int
bare_item(struct source *s, struct sf_item *item)
{
    *item = (struct sf_item){ 0 };
    if (s->p == s->end)
        return -1;
    switch (*s->p) {
    case '"':
        return string(s, item);
    case ':':
        return byte_sequence(s, item);
    case '?':
        return boolean(s, item);
    case '@':
        return date(s, item);
    case '%':
        return display_string(s, item);
    case '-':
        return number(s, item);
    }
    if (is_digit(*s->p))
        return number(s, item);
    return sf_starts_token(*s->p) ? token(s, item) : -1;
}

/* ---- keys, parameters, members ---- */

static int
take_key(struct source *s, struct slice *key)
{
    const char *start = s->p;

    if (s->p == s->end || !sf_starts_key(*s->p))
        return -1;
    while (s->p < s->end && sf_in_key(*s->p))
        s->p++;
    *key = since(s, start);
    return 0;
}

static void
set_true(struct sf_item *item)
{
    *item = (struct sf_item){ .type = SF_BOOLEAN, .integer = 1 };
}

/* Behind the ';'. */
static int
parameter(struct source *s, struct slice *key, struct sf_item *value)
{
    skip(s, false);
    if (take_key(s, key) == -1)
        return -1;
    if (take(s, '='))
        return bare_item(s, value);
    set_true(value);
    return 0;
}

/* Parameters are only checked here; who wants them walks them again. */
static int
parameters(struct source *s, struct slice *source)
{
    struct source check = { s->p, s->end, NULL };
    struct sf_item value;
    struct slice key;

    while (take(&check, ';'))
        if (parameter(&check, &key, &value) == -1)
            return -1;
    *source = since(&check, s->p);
    s->p = check.p;
    return 0;
}

static int
item_with_params(struct source *s, struct sf_item *item)
{
    if (bare_item(s, item) == -1)
        return -1;
    return parameters(s, &item->params);
}

/* Checks the members and gives their source. */
static int
inner_list(struct source *s, struct sf_item *item)
{
    struct source check = { s->p + 1, s->end, NULL };
    struct sf_item item_there;

    for (;;) {
        skip(&check, false);
        if (next_is(&check, ')'))
            break;
        if (item_with_params(&check, &item_there) == -1)
            return -1;
        if (!next_is(&check, ' ') && !next_is(&check, ')'))
            return -1;
    }
    *item = (struct sf_item){ .type = SF_INNER, .text = since(&check, s->p + 1) };
    s->p = check.p + 1;
    return parameters(s, &item->params);
}

static int
member(struct source *s, struct sf_item *item)
{
    return next_is(s, '(') ? inner_list(s, item) : item_with_params(s, item);
}

static int
pair(struct source *s, struct slice *key, struct sf_item *item)
{
    if (take_key(s, key) == -1)
        return -1;
    if (take(s, '='))
        return member(s, item);
    set_true(item);
    return parameters(s, &item->params);
}

/* Between members: a comma with one behind it, or the end. */
static int
separator(struct source *s)
{
    skip(s, true);
    if (s->p == s->end)
        return 0;
    if (!take(s, ','))
        return -1;
    skip(s, true);
    return s->p < s->end ? 0 : -1;
}

/* ---- the door ---- */

int
sf_check(enum sf_kind kind, struct slice text)
{
    struct source s;
    struct sf_item item;
    struct slice key;

    if (text.n == 0)
        return kind == SF_ITEM ? -1 : 0;
    s = (struct source){ text.p, text.p + text.n, NULL };
    skip(&s, false);
    if (kind == SF_ITEM) {
        if (item_with_params(&s, &item) == -1)
            return -1;
        skip(&s, false);
        return s.p == s.end ? 0 : -1;
    }
    while (s.p < s.end)
        if ((kind == SF_LIST ? member(&s, &item) : pair(&s, &key, &item)) == -1 ||
            separator(&s) == -1)
            return -1;
    return 0;
}

static bool
walked(struct source *s, struct slice *rest, int result)
{
    if (result == -1) {
        *rest = (struct slice){ NULL, 0 };
        return false;
    }
    *rest = (struct slice){ s->p, (size_t)(s->end - s->p) };
    return true;
}

/* Ready to take the next member, if there is one. */
static bool
walk(struct source *s, struct slice *rest, struct buf *scratch)
{
    if (rest->n == 0)
        return false;
    *s = (struct source){ rest->p, rest->p + rest->n, scratch };
    skip(s, false);
    if (s->p == s->end)
        *rest = (struct slice){ NULL, 0 };
    return s->p < s->end;
}

bool
sf_list(struct slice *rest, struct sf_item *item, struct buf *scratch)
{
    struct source s;

    return walk(&s, rest, scratch) &&
        walked(&s, rest, member(&s, item) == 0 ? separator(&s) : -1);
}

bool
sf_dictionary(struct slice *rest, struct slice *key, struct sf_item *item, struct buf *scratch)
{
    struct source s;

    return walk(&s, rest, scratch) &&
        walked(&s, rest, pair(&s, key, item) == 0 ? separator(&s) : -1);
}

bool
sf_inner(struct slice *rest, struct sf_item *item, struct buf *scratch)
{
    struct source s;

    return walk(&s, rest, scratch) && walked(&s, rest, item_with_params(&s, item));
}

bool
sf_param(struct slice *rest, struct slice *key, struct sf_item *value, struct buf *scratch)
{
    struct source s;

    return walk(&s, rest, scratch) &&
        walked(&s, rest, take(&s, ';') ? parameter(&s, key, value) : -1);
}

int
sf_item(struct slice text, struct sf_item *item, struct buf *scratch)
{
    struct source s;

    if (!walk(&s, &text, scratch) || item_with_params(&s, item) == -1)
        return -1;
    skip(&s, false);
    return s.p == s.end ? 0 : -1;
}

/* The last one counts (4.2.2 step 7, 4.2.3.2 step 7). */
bool
sf_dictionary_get(struct slice text, struct slice key, struct sf_item *item, struct buf *scratch)
{
    struct slice found;
    struct sf_item value;
    bool any = false;

    if (scratch != NULL)
        buf_reserve(scratch, text.n);   /* what is found stays while the rest is walked */
    while (sf_dictionary(&text, &found, &value, scratch))
        if (slice_eq(found, key)) {
            *item = value;
            any = true;
        }
    return any;
}

bool
sf_param_get(struct slice params, struct slice key, struct sf_item *value, struct buf *scratch)
{
    struct slice found;
    struct sf_item v;
    bool any = false;

    if (scratch != NULL)
        buf_reserve(scratch, params.n);
    while (sf_param(&params, &found, &v, scratch))
        if (slice_eq(found, key)) {
            *value = v;
            any = true;
        }
    return any;
}
