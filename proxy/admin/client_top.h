/* `weir top`: what is shown, between its keys (client_top.c) and its screen (client_top_draw.c,
 * client_top_below.c). */
#ifndef WEIR_ADMIN_CLIENT_TOP_H
#define WEIR_ADMIN_CLIENT_TOP_H

#include <jansson.h>

#include "admin/inside.h"

enum top_sort { SORT_RATE, SORT_HITS, SORT_P50, SORT_P99, SORT_MAX, SORT_NAME, TOP_SORTS };
extern const char *const top_sorts[TOP_SORTS];

enum top_view { VIEW_ORIGINS, VIEW_SLOWEST, VIEW_PURGES, TOP_VIEWS };

struct top {
    struct client client;
    json_t     *doc;                    /* owned: the newest of /stats/stream */
    const char *window;                 /* "10s" */
    enum top_sort sort;
    bool        backwards;
    enum top_view view;                 /* what stands below the routes */
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

/* At most `width` columns of UTF-8; what would not stand in one is '?'. */
void top_put(int y, int x, int width, const char *text);
void top_line(int y, const char *format, ...) PRINTF(2, 3);
/* Below the routes: how many lines there would be, without a header; lines y to end, with it. */
int  top_below_rows(const struct top *t);
void top_below(const struct top *t, int y, int end);

#endif
