/* Private to fill/: the coding libraries. Any thread, each object one at a time. */
#ifndef WEIR_FILL_CODER_H
#define WEIR_FILL_CODER_H

#include "store/store.h"

/* Gets the output piece by piece. Not 0: stop, and give that back. While the input goes in it is
 * also called with nothing, now and then. */
typedef int coder_sink(void *arg, struct slice out);

/* Codes a complete body. 0, what the sink gave, or -1: the library's memory is out. */
int encode(enum sem_coding c, const struct body *b, coder_sink *sink, void *arg);

struct gunzip;
struct gunzip *gunzip_new(void);                    /* NULL: memory out */
/* 0, what the sink gave, or -1: that is no gzip (RFC 1952). */
int  gunzip_feed(struct gunzip *g, struct slice in, coder_sink *sink, void *arg);
bool gunzip_whole(const struct gunzip *g);          /* what came so far is all of it */
void gunzip_free(struct gunzip **gp);               /* NULL is fine */

#endif
