/*
 * What stands below the routes on the screen of `weir top`, one of three by the key `v`: origins
 * and their state, the slowest requests, the last purges.
 */
#include <curses.h>

#include "admin/client_top.h"

/* ---- origins --------------------------------------------------------------------------------- */

static const json_t *
origin_figures(const struct top *t, const char *origin, const char *server, const char *what)
{
    json_t *origins = json_object_get(t->doc, "origins");
    char name[512];

    snprintf(name, sizeof name, "%s/%s", origin, server);
    for (size_t i = 0; i < json_array_size(origins); i++) {
        json_t *o = json_array_get(origins, i);

        if (strcmp(client_text(o, "name"), name) == 0)
            return json_object_get(json_object_get(o, what), t->window);
    }
    return NULL;
}

static void
draw_origin(const struct top *t, int y, const json_t *p)
{
    const char *origin = client_text(p, "origin"), *server = client_text(p, "server");
    const json_t *total = origin_figures(t, origin, server, "total");
    const json_t *first = origin_figures(t, origin, server, "first_byte");
    char p50[16], p99[16], name[512], text[160], state[32] = "ok";
    int n;

    client_ms(json_object_get(first, "p50_us"), p50);
    client_ms(json_object_get(first, "p99_us"), p99);
    if (client_number(p, "ejected") > 0)
        strcpy(state, "OUT");
    else if (client_number(p, "failures") > 0)
        snprintf(state, sizeof state, "%.0f failed", client_number(p, "failures"));
    n = snprintf(text, sizeof text, " %-9s %8.1f %5.0f %5.0f %5.0f %8s %7s", state,
        client_number(total, "rate"), client_number(p, "connections"), client_number(p, "busy"),
        client_number(p, "waiting"), p50, p99);
    snprintf(name, sizeof name, "%s %s", origin, server);
    top_put(y, 0, COLS - n, name);
    top_put(y, COLS > n ? COLS - n : 12, COLS > n ? n : COLS - 12, text);
}

static void
title(int y, const char *text)
{
    attron(A_REVERSE);
    top_line(y, "%*s", COLS, "");
    top_put(y, 0, COLS, text);
    attroff(A_REVERSE);
}

static void
draw_origins(const struct top *t, int y, int end)
{
    static const char titles[] = " STATE       RATE/s  CONN  BUSY  WAIT FIRST ms     P99";
    json_t *pools = json_object_get(t->doc, "pools");
    int n = (int)sizeof titles - 1;

    if (y >= end)
        return;
    title(y, "ORIGIN");
    attron(A_REVERSE);
    top_put(y, COLS > n ? COLS - n : 12, COLS > n ? n : COLS - 12, titles);
    attroff(A_REVERSE);
    for (size_t i = 0; i < json_array_size(pools) && ++y < end; i++)
        draw_origin(t, y, json_array_get(pools, i));
}

/* ---- the slowest, the last purges ------------------------------------------------------------ */

/* "12 s", "4 min", "2 h" before what is shown was made. */
static const char *
ago(const struct top *t, const json_t *o, char text[16])
{
    double s = (client_number(t->doc, "now_ms") - client_number(o, "at_ms")) / 1000;

    snprintf(text, 16, s < 60 ? "%.0f s" : s < 3600 ? "%.0f min" : "%.0f h",
        s < 0 ? 0 : s < 60 ? s : s < 3600 ? s / 60 : s / 3600);
    return text;
}

static void
draw_slowest(const struct top *t, int y, int end)
{
    const json_t *list = json_object_get(t->doc, "slowest");

    title(y, "  TOOK ms     AGO  STATUS OUTCOME      SLOWEST REQUESTS, ROUTE, WHERE THE TIME WENT");
    for (size_t i = 0; i < json_array_size(list) && ++y < end; i++) {
        const json_t *r = json_array_get(list, i);
        char took[16], when[16];

        client_ms(json_object_get(r, "us"), took);
        top_line(y, "%9s %7s  %6.0f %-12s %s %.300s  %s  %s", took, ago(t, r, when),
            client_number(r, "status"), client_text(r, "outcome"), client_text(r, "method"),
            client_text(r, "url"), client_text(r, "route"), client_text(r, "steps"));
    }
}

/* {"tag": "a", ...}: "tag a" */
static void
add_item(struct buf *b, json_t *item)
{
    const char *kind = json_object_iter_key(json_object_iter(item));
    const char *value = kind != NULL ? client_text(item, kind) : "";

    buf_printf(b, "%s%s%s%s", b->n > 0 ? ", " : "", kind != NULL ? kind : "",
        value[0] != '\0' ? " " : "", value);
}

static void
draw_purges(const struct top *t, int y, int end)
{
    const json_t *list = json_object_get(t->doc, "purges");

    title(y, "    AGO  HOW    RESPONSES  LAST PURGES AT THIS PORT");
    for (size_t i = 0; i < json_array_size(list) && ++y < end; i++) {
        const json_t *p = json_array_get(list, i), *items = json_object_get(p, "items");
        struct buf what = { 0 };
        char when[16];

        for (size_t k = 0; k < json_array_size(items) && what.n < 400; k++)
            add_item(&what, json_array_get(items, k));
        buf_addc(&what, '\0');
        top_line(y, "%7s  %-6s %9.0f  %s", ago(t, p, when),
            json_is_true(json_object_get(p, "erased")) ? "erased" :
            json_is_true(json_object_get(p, "soft")) ? "soft" : "hard",
            client_number(p, "objects"), what.failed ? "" : what.p);
        buf_free(&what);
    }
}

/* ---- one of them ----------------------------------------------------------------------------- */

static const struct {
    const char *member;
    void      (*draw)(const struct top *t, int y, int end);
} views[TOP_VIEWS] = {
    [VIEW_ORIGINS] = { "pools", draw_origins }, [VIEW_SLOWEST] = { "slowest", draw_slowest },
    [VIEW_PURGES] = { "purges", draw_purges },
};

int
top_below_rows(const struct top *t)
{
    int n = (int)json_array_size(json_object_get(t->doc, views[t->view].member));

    return n > 0 || t->view == VIEW_ORIGINS ? n : 1;    /* an empty list has its header */
}

void
top_below(const struct top *t, int y, int end)
{
    views[t->view].draw(t, y, end);
}
