/*
 * Structured fields. What sf_check accepts the walkers walk to its end; what they give, written out
 * again, is accepted and gives the same. Any bytes at all are either refused by a writer, which then
 * appended nothing, or read back as they were. The first byte is the kind.
 */
#include "http/http.h"
#include "require.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
put_item(struct buf *b, const struct sf_item *item, struct buf *scratch)
{
    struct slice rest = item->text, key;
    struct sf_item part;

    if (item->type == SF_INNER) {
        buf_addc(b, '(');
        for (const char *space = ""; sf_inner(&rest, &part, scratch); space = " ") {
            buf_addz(b, space);
            put_item(b, &part, scratch);
        }
        require(rest.n == 0);
        buf_addc(b, ')');
    } else {
        require(sf_put_bare(b, item));
    }
    for (rest = item->params; sf_param(&rest, &key, &part, scratch);)
        require(sf_put_param(b, key, &part));
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
        buf_addz(b, comma);
        require(sf_put_key(b, key));
        buf_addc(b, '=');
        put_item(b, &item, &scratch);
    }
    require(kind == SF_ITEM || rest.n == 0);
    buf_free(&scratch);
}

static void
write_text(enum sf_type type, struct slice s)
{
    struct sf_item wrote = { .type = type, .text = s }, read;
    struct buf b = { 0 }, scratch = { 0 };

    if (!sf_put_bare(&b, &wrote)) {
        require(b.n == 0);
    } else {
        require(sf_item(buf_slice(&b), &read, &scratch) == 0 && read.type == type);
        require(slice_eq(read.text, s));
    }
    buf_free(&scratch);
    buf_free(&b);
}

static void
write_number(enum sf_type type, struct slice s)
{
    struct sf_item wrote = { .type = type }, read;
    struct buf b = { 0 };

    memcpy(&wrote.integer, s.p, s.n < sizeof wrote.integer ? s.n : sizeof wrote.integer);
    if (!sf_put_bare(&b, &wrote))
        require(b.n == 0);
    else
        require(sf_item(buf_slice(&b), &read, NULL) == 0 && read.type == type && read.integer == wrote.integer);
    buf_free(&b);
}

static void
write_all(struct slice s)
{
    write_text(SF_STRING, s);
    write_text(SF_TOKEN, s);
    write_text(SF_BYTES, s);
    write_text(SF_DISPLAY, s);
    write_number(SF_INTEGER, s);
    write_number(SF_DECIMAL, s);
    write_number(SF_DATE, s);
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
    write_all(s);
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
