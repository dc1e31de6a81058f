/*
 * Structured fields (RFC 9651 4.1): writing.
 *
 * Model    each function appends one piece in its canonical form and says true, or finds that the
 *          value has no serialisation, appends nothing and says false. Commas, spaces and the
 *          parentheses of inner lists are the caller's. Memory that is out shows in the buffer.
 */
#include "http/scan.h"
#include "http/sf.h"

#define INTEGER_MAX INT64_C(999999999999999)    /* fifteen digits; of a decimal twelve and three */

static void
put_number(struct buf *b, int64_t v)
{
    if (v < 0)
        buf_addc(b, '-');
    buf_addu(b, (uint64_t)(v < 0 ? -v : v));
}

static bool
in_range(int64_t v)
{
    return v >= -INTEGER_MAX && v <= INTEGER_MAX;
}

bool
sf_put_integer(struct buf *b, int64_t v)
{
    if (!in_range(v))
        return false;
    put_number(b, v);
    return true;
}

/* No more digits behind the point than it takes, and one at least (4.1.5). */
bool
sf_put_decimal(struct buf *b, int64_t thousandths)
{
    uint64_t size = thousandths < 0 ? -(uint64_t)thousandths : (uint64_t)thousandths;
    unsigned part = (unsigned)(size % 1000);

    if (!in_range(thousandths))
        return false;
    if (thousandths < 0 && thousandths > -1000)
        buf_addc(b, '-');
    put_number(b, thousandths / 1000);
    buf_addc(b, '.');
    buf_addc(b, (char)('0' + part / 100));
    if (part % 100 != 0)
        buf_addc(b, (char)('0' + part / 10 % 10));
    if (part % 10 != 0)
        buf_addc(b, (char)('0' + part % 10));
    return true;
}

bool
sf_put_date(struct buf *b, int64_t seconds)
{
    if (!in_range(seconds))
        return false;
    buf_addc(b, '@');
    put_number(b, seconds);
    return true;
}

bool
sf_put_boolean(struct buf *b, bool v)
{
    buf_addz(b, v ? "?1" : "?0");
    return true;
}

bool
sf_put_string(struct buf *b, struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] > 0x7e)
            return false;
    buf_addc(b, '"');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\')
            buf_addc(b, '\\');
        buf_addc(b, s.p[i]);
    }
    buf_addc(b, '"');
    return true;
}

bool
sf_put_token(struct buf *b, struct slice s)
{
    if (s.n == 0 || !sf_starts_token(s.p[0]))
        return false;
    for (size_t i = 1; i < s.n; i++)
        if (!sf_in_token(s.p[i]))
            return false;
    buf_adds(b, s);
    return true;
}

bool
sf_put_text(struct buf *b, struct slice s)
{
    return sf_put_token(b, s) || sf_put_string(b, s);
}

bool
sf_put_bytes(struct buf *b, struct slice s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    buf_addc(b, ':');
    for (size_t i = 0; i < s.n; i += 3) {
        size_t n = s.n - i < 3 ? s.n - i : 3;
        uint32_t v = 0;

        for (size_t k = 0; k < 3; k++)
            v = v << 8 | (k < n ? (unsigned char)s.p[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            buf_addc(b, k <= n ? digits[v >> (18 - 6 * k) & 63] : '=');
    }
    buf_addc(b, ':');
    return true;
}

static bool
is_utf8(struct slice s)
{
    struct utf8 u = { 0 };

    for (size_t i = 0; i < s.n; i++)
        if (!utf8_takes(&u, (unsigned char)s.p[i]))
            return false;
    return u.need == 0;
}

bool
sf_put_display(struct buf *b, struct slice s)
{
    if (!is_utf8(s))
        return false;
    buf_addz(b, "%\"");
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c == '%' || c == '"' || c < 0x20 || c > 0x7e)
            buf_printf(b, "%%%02x", c);
        else
            buf_addc(b, (char)c);
    }
    buf_addc(b, '"');
    return true;
}

bool
sf_put_key(struct buf *b, struct slice key)
{
    if (key.n == 0 || !sf_starts_key(key.p[0]))
        return false;
    for (size_t i = 1; i < key.n; i++)
        if (!sf_in_key(key.p[i]))
            return false;
    buf_adds(b, key);
    return true;
}

bool
sf_put_bare(struct buf *b, const struct sf_item *item)
{
    switch (item->type) {
    case SF_INTEGER:
        return sf_put_integer(b, item->integer);
    case SF_DECIMAL:
        return sf_put_decimal(b, item->integer);
    case SF_STRING:
        return sf_put_string(b, item->text);
    case SF_TOKEN:
        return sf_put_token(b, item->text);
    case SF_BYTES:
        return sf_put_bytes(b, item->text);
    case SF_BOOLEAN:
        return sf_put_boolean(b, item->integer != 0);
    case SF_DATE:
        return sf_put_date(b, item->integer);
    case SF_DISPLAY:
        return sf_put_display(b, item->text);
    case SF_INNER:
        break;
    }
    return false;
}

bool
sf_put_param(struct buf *b, struct slice key, const struct sf_item *value)
{
    bool plain = value->type == SF_BOOLEAN && value->integer != 0;
    size_t from = b->n;

    buf_addc(b, ';');
    if (sf_put_key(b, key)) {
        if (plain)
            return true;
        buf_addc(b, '=');
        if (sf_put_bare(b, value))
            return true;
    }
    if (!b->failed)
        b->n = from;
    return false;
}
