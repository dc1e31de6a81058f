/* Private to fill/: coded forms of what is stored. */
#ifndef WEIR_FILL_COMPRESS_H
#define WEIR_FILL_COMPRESS_H

#include "fill/flight.h"

struct compressor;
struct compressor *compressor_new(struct store *s);     /* borrowed; NULL: memory out */
void compressor_free(struct compressor **cp);       /* waits for its thread; NULL is fine */

/* o is stored and has no forms: they will be made behind it, where its route wants any. */
void compress_later(struct compressor *c, const struct route *route, struct object *o);
/* The forms of `was` for the head that a 304 made of its own. NULL: none, or memory out. */
struct forms *compress_again(const struct route *route, const struct object *was,
    struct slice head, size_t status_n);
/* Adds to a head for clients what tells caches that the route codes such responses. */
void compress_vary(const struct route *route, unsigned status, size_t status_n, struct buf *b);

/* Is it in a dictionary's coding (RFC 9842), without the Vary that tells apart who has which
 * dictionary, or on a route that compresses, which asks nobody for it? Not to be stored: only a
 * client that has the dictionary can read it. */
bool compress_misfit(const struct route *route, const struct http_head *h);

/* decode.c: is the response to be kept, and passed on, without its coding? Then its head as it is
 * without, in the pool, and f->gunzip is set; otherwise h. NULL: memory out. */
const struct http_head *decode_head(struct flight *f, const struct http_head *h);
/* A 304 about what was stored without its coding: with its entity tag as ours is. */
const struct http_head *decode_304(struct flight *f, const struct http_head *r304);

#endif
