/*
 * http, private: the alphabets of structured fields (RFC 9651), for reading and for writing.
 */
#ifndef WEIR_HTTP_SF_H
#define WEIR_HTTP_SF_H

#include "http/scan.h"

static inline bool
is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static inline bool
sf_starts_token(char c)
{
    return is_lower(to_lower(c)) || c == '*';
}

static inline bool
sf_in_token(char c)
{
    return is_class(c, C_TOKEN) || c == ':' || c == '/';
}

static inline bool
sf_starts_key(char c)
{
    return is_lower(c) || c == '*';
}

static inline bool
sf_in_key(char c)
{
    return is_lower(c) || is_digit(c) || c == '_' || c == '-' || c == '.' || c == '*';
}

/* A UTF-8 sequence under way (RFC 3629). */
struct utf8 { int need; unsigned char low, high; };

static inline bool
utf8_takes(struct utf8 *u, unsigned char c)
{
    if (u->need > 0) {
        if (c < u->low || c > u->high)
            return false;
        u->need--;
        u->low = 0x80;
        u->high = 0xbf;
        return true;
    }
    u->need = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    u->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    u->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return c < 0x80 || (c >= 0xc2 && c <= 0xf4);
}

#endif
