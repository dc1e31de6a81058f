/*
 * Chunked transfer coding, decoding (RFC 9112 7.1).
 *
 * Model    a machine that takes a byte at a time of lines and any number at a time of data. The
 *          trailer section is kept as it came and parsed when it is complete.
 * Strict   sizes have at most sixteen digits and fit a signed number; white space only before an
 *          extension; every line ends in CRLF.
 */
#include "http/scan.h"

#define LINE_MAX_BYTES    4096
#define TRAILER_MAX_BYTES 8192

enum {
    SIZE_FIRST, SIZE, EXTENSION_SPACE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER_START,
    TRAILER, TRAILER_LF, LAST_LF, DONE, BROKEN
};

static int
size_digit(struct http_chunked *d, char c)
{
    if (!is_class(c, C_HEX) || d->line >= 16 || d->left > (INT64_MAX >> 4))
        return BROKEN;
    d->left = d->left << 4 | (uint64_t)hex_value(c);
    d->line++;
    return SIZE;
}

/* Behind the digits: CR, or extensions, before which white space may stand. */
static int
after_size(struct http_chunked *d, char c)
{
    if (c == '\r' && d->state != EXTENSION_SPACE)
        return SIZE_LF;
    if (c == ';')
        return EXTENSION;
    if (c != ' ' && c != '\t')
        return d->state == SIZE ? size_digit(d, c) : BROKEN;
    return ++d->line > LINE_MAX_BYTES ? BROKEN : EXTENSION_SPACE;
}

static int
extension(struct http_chunked *d, char c)
{
    if (c == '\r')
        return SIZE_LF;
    if (!is_class(c, C_VALUE) || ++d->line > LINE_MAX_BYTES)
        return BROKEN;
    return EXTENSION;
}

static int
size_line_done(struct http_chunked *d, char c)
{
    if (c != '\n')
        return BROKEN;
    d->line = 0;
    return d->left > 0 ? DATA : TRAILER_START;
}

static int
trailer_byte(struct http_chunked *d, char c, int next)
{
    if (d->trailer.n >= TRAILER_MAX_BYTES)
        return BROKEN;
    buf_addc(&d->trailer, c);
    return d->trailer.failed ? BROKEN : next;
}

static int
trailer_done(const struct http_chunked *d)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .fields = fields, .cap = HTTP_FIELDS_MAX };

    return http_parse_fields(d->trailer.p, d->trailer.n, &h) == 0 ? DONE : BROKEN;
}

static int
line_byte(struct http_chunked *d, char c)
{
    switch (d->state) {
    case SIZE_FIRST:
        return size_digit(d, c);
    case SIZE:
    case EXTENSION_SPACE:
        return after_size(d, c);
    case EXTENSION:
        return extension(d, c);
    case SIZE_LF:
        return size_line_done(d, c);
    case DATA_CR:
        return c == '\r' ? DATA_LF : BROKEN;
    case DATA_LF:
        return c == '\n' ? SIZE_FIRST : BROKEN;
    case TRAILER_START:
        return c == '\r' ? LAST_LF : is_class(c, C_TOKEN) ? trailer_byte(d, c, TRAILER) : BROKEN;
    case TRAILER:
        return c == '\r' ? trailer_byte(d, c, TRAILER_LF) :
            is_class(c, C_VALUE) ? trailer_byte(d, c, TRAILER) : BROKEN;
    case TRAILER_LF:
        return c == '\n' ? trailer_byte(d, c, TRAILER_START) : BROKEN;
    case LAST_LF:
        return c == '\n' ? trailer_done(d) : BROKEN;
    }
    return BROKEN;
}

enum http_chunk
http_chunked_next(struct http_chunked *d, struct slice *in, struct slice *data)
{
    while (d->state != DONE && d->state != BROKEN && in->n > 0) {
        if (d->state == DATA) {
            *data = (struct slice){ in->p, in->n < d->left ? in->n : (size_t)d->left };
            in->p += data->n;
            in->n -= data->n;
            d->left -= data->n;
            if (d->left == 0)
                d->state = DATA_CR;
            return HTTP_CHUNK_DATA;
        }
        d->state = (uint8_t)line_byte(d, *in->p);
        if (d->state == BROKEN)
            break;
        in->p++;
        in->n--;
    }
    if (d->state == BROKEN)
        return HTTP_CHUNK_BAD;
    return d->state == DONE ? HTTP_CHUNK_END : HTTP_CHUNK_MORE;
}

void
http_chunked_free(struct http_chunked *d)
{
    buf_free(&d->trailer);
}
