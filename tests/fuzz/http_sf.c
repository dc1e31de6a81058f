/*
 * Structured fields. What sf_check accepts the walkers walk to its end; what they give, written out
 * again, is accepted and gives the same. The first byte is the kind.
 */
#include "http/http.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool ok)
{
    if (!ok)
        abort();
}

static void
put_bytes(struct buf *b, struct slice s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    buf_addc(b, ':');
    for (size_t i = 0; i < s.n; i += 3) {
        uint32_t v = 0;
        size_t n = s.n - i < 3 ? s.n - i : 3;

        for (size_t k = 0; k < 3; k++)
            v = v << 8 | (k < n ? (unsigned char)s.p[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            buf_addc(b, k <= n ? digits[v >> (18 - 6 * k) & 63] : '=');
    }
    buf_addc(b, ':');
}

static void
put_display(struct buf *b, struct slice s)
{
    buf_addz(b, "%\"");
    for (size_t i = 0; i < s.n; i++)
        buf_printf(b, "%%%02x", (unsigned char)s.p[i]);
    buf_addc(b, '"');
}

static void
put_item(struct buf *b, const struct sf_item *item, struct buf *scratch)
{
    struct slice rest = item->text, key;
    long long v = item->integer, whole = v < 0 ? -v : v;
    struct sf_item part;

    switch (item->type) {
    case SF_INTEGER:
        require(whole <= 999999999999999);
        buf_printf(b, "%lld", v);
        break;
    case SF_DECIMAL:
        require(whole <= 999999999999999);
        buf_printf(b, "%s%lld.%03lld", v < 0 ? "-" : "", whole / 1000, whole % 1000);
        break;
    case SF_STRING:
        sf_put_string(b, item->text);
        break;
    case SF_TOKEN:
        buf_adds(b, item->text);
        break;
    case SF_BYTES:
        put_bytes(b, item->text);
        break;
    case SF_BOOLEAN:
        require(v == 0 || v == 1);
        buf_printf(b, "?%lld", v);
        break;
    case SF_DATE:
        buf_printf(b, "@%lld", v);
        break;
    case SF_DISPLAY:
        put_display(b, item->text);
        break;
    case SF_INNER:
        buf_addc(b, '(');
        while (sf_inner(&rest, &part, scratch)) {
            put_item(b, &part, scratch);
            buf_addc(b, ' ');
        }
        require(rest.n == 0);
        buf_addc(b, ')');
    }
    for (rest = item->params; sf_param(&rest, &key, &part, scratch);) {
        buf_printf(b, ";%.*s=", SLICE_ARG(key));
        put_item(b, &part, scratch);
    }
    require(rest.n == 0);
}

/* Walks all of a valid field and writes it out. */
static void
put_field(struct buf *b, enum sf_kind kind, struct slice s)
{
    struct slice rest = s, key;
    struct buf scratch = { 0 };
    struct sf_item item;
    const char *comma = "";

    if (kind == SF_ITEM) {
        require(sf_item(s, &item, &scratch) == 0);
        put_item(b, &item, &scratch);
    }
    for (; kind == SF_LIST && sf_list(&rest, &item, &scratch); comma = ", ") {
        buf_addz(b, comma);
        put_item(b, &item, &scratch);
    }
    for (; kind == SF_DICTIONARY && sf_dictionary(&rest, &key, &item, &scratch); comma = ", ") {
        buf_printf(b, "%s%.*s=", comma, SLICE_ARG(key));
        put_item(b, &item, &scratch);
    }
    require(kind == SF_ITEM || rest.n == 0);
    buf_free(&scratch);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice s = { (const char *)data + 1, size - 1 }, rest = s, key;
    struct buf once = { 0 }, twice = { 0 };
    enum sf_kind kind;
    struct sf_item item;

    if (size < 1)
        return 0;
    kind = (enum sf_kind)(data[0] % 3);
    if (sf_check(kind, s) == -1) {          /* the walkers must stop all the same */
        while (sf_list(&rest, &item, &once))
            ;
        for (rest = s; sf_dictionary(&rest, &key, &item, &once);)
            ;
        require(sf_item(s, &item, &once) == -1 || kind != SF_ITEM);
        buf_free(&once);
        return 0;
    }
    put_field(&once, kind, s);
    require(sf_check(kind, buf_slice(&once)) == 0);
    put_field(&twice, kind, buf_slice(&once));
    require(slice_eq(buf_slice(&once), buf_slice(&twice)));
    buf_free(&once);
    buf_free(&twice);
    return 0;
}
