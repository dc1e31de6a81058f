/*
 * What the purge room's files share: from a URL as somebody wrote it to what the store knows it by.
 */
#ifndef WEIR_PURGE_INSIDE_H
#define WEIR_PURGE_INSIDE_H

#include "purge/purge.h"

/* The key's URL part for an absolute URL, by the recipe of the route that takes a GET for it; in
 * b (cleared first). -1: it is none, or memory is out. */
int purge_resolve(const struct route_table *t, struct slice url, struct buf *b, struct slice *out);

#endif
