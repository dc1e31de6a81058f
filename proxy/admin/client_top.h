/* `weir top`: what is shown, between its keys (client_top.c) and its screen (client_top_draw.c). */
#ifndef WEIR_ADMIN_CLIENT_TOP_H
#define WEIR_ADMIN_CLIENT_TOP_H

#include <jansson.h>

#include "admin/inside.h"

enum top_sort { SORT_RATE, SORT_HITS, SORT_P50, SORT_P99, SORT_MAX, SORT_NAME, TOP_SORTS };
extern const char *const top_sorts[TOP_SORTS];

struct top {
    struct client client;
    json_t     *doc;                    /* owned: the newest of /stats/stream */
    const char *window;                 /* "10s" */
    enum top_sort sort;
    bool        backwards;
    bool        paused;
    bool        connected;
    bool        typing;                 /* the filter is being written */
    char        filter[64];             /* of routes and outcomes; NUL-terminated */
    size_t      first;                  /* row of the table that stands on top */
    size_t      rows;                   /* ... how many there were when it was drawn */
    char        news[256];              /* of the connection, for a person; "": nothing */
    int64_t     news_until_us;          /* once it stands again */
};

/* Draws all of it, for a terminal of any size. */
void top_draw(struct top *t);

#endif
