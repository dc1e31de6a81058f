/*
 * The screen of `weir top`: totals, tiers and journal, the table of routes × outcomes, what stands
 * below it (client_top_below.c), and the keys. What does not fit is left out: columns from the
 * right, what is below before routes.
 */
#include <curses.h>
#include <stdlib.h>
#include <wchar.h>

#include "admin/client_top.h"

#define LINES_ABOVE 4                   /* of totals */

struct row {
    const char   *route, *outcome;
    const json_t *f;                    /* its figures in the window */
    double        rate, hits;           /* hits: of its route, -1: no read */
};

void
top_put(int y, int x, int width, const char *text)
{
    mbstate_t state = { 0 };
    wchar_t w;
    size_t n;

    move(y, x);
    for (; *text != '\0' && width > 0; text += n) {
        int columns;

        n = mbrtowc(&w, text, strlen(text), &state);
        if (n == (size_t)-1 || n == (size_t)-2) {
            state = (mbstate_t){ 0 };
            n = 1;
            w = L'?';
        }
        columns = wcwidth(w);
        if (columns < 1)
            w = L'?', columns = 1;
        if (columns > width)
            return;
        addnwstr(&w, 1);
        width -= columns;
    }
}

void
top_line(int y, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (y < LINES)
        top_put(y, 0, COLS, text);
}

/* ---- above ----------------------------------------------------------------------------------- */

static double
rate_of(const json_t *outcomes, const char *name, const char *window)
{
    return client_number(json_object_get(json_object_get(outcomes, name), window), "rate");
}

static void
draw_title(const struct top *t)
{
    double up = client_number(t->doc, "uptime_s");

    attron(A_BOLD);
    top_line(0, "weir %s  %s  up %.0f:%02d:%02d  last %s%s", client_text(t->doc, "version"),
        t->client.base, up / 3600 - (int)up % 3600 / 3600.0, (int)up / 60 % 60, (int)up % 60,
        t->window, t->paused ? "  PAUSED" : "");
    attroff(A_BOLD);
}

static void
draw_totals(const struct top *t)
{
    const json_t *total = json_object_get(t->doc, "total"), *windows, *g, *rate;
    json_t *outcomes = json_object_get(total, "outcomes");
    const char *name;
    double all = 0;
    char hits[16] = "-";

    json_object_foreach(outcomes, name, windows)
        all += rate_of(outcomes, name, t->window);
    rate = json_object_get(json_object_get(total, "hit_rate"), t->window);
    if (json_is_number(rate))
        snprintf(hits, sizeof hits, "%.1f %%", 100 * json_number_value(rate));
    g = json_object_get(t->doc, "gauges");
    top_line(1, "%.1f requests/s  hits %s  errors %.1f/s  clients %.0f  origins %.0f, %.0f busy, "
        "%.0f waiting", all, hits, rate_of(outcomes, "error", t->window),
        client_number(g, "client_connections"), client_number(g, "origin_connections"),
        client_number(g, "origin_busy"), client_number(g, "pool_waiting"));
}

static const char *
tier_word(const json_t *tier)
{
    return json_is_true(json_object_get(tier, "failing")) ? " FAILING" :
        json_is_true(json_object_get(tier, "loading")) ? " loading" : "";
}

static void
draw_tiers(const struct top *t)
{
    const json_t *g = json_object_get(t->doc, "gauges"), *tiers = json_object_get(t->doc, "tiers");
    const json_t *disk = json_object_get(tiers, "disk"), *redis = json_object_get(tiers, "redis");
    char text[256];
    size_t n;

    n = (size_t)snprintf(text, sizeof text, "memory %.0f objects, %.1f of %.1f MiB",
        client_number(g, "cache_objects"), client_number(g, "cache_memory") / 1048576,
        client_number(g, "cache_memory_limit") / 1048576);
    if (disk != NULL && n < sizeof text)
        n += (size_t)snprintf(text + n, sizeof text - n, "  disk %.0f, %.1f of %.1f MiB%s",
            client_number(disk, "objects"), client_number(disk, "bytes") / 1048576,
            client_number(disk, "limit_bytes") / 1048576, tier_word(disk));
    if (redis != NULL && n < sizeof text)
        snprintf(text + n, sizeof text - n, "  redis %s", tier_word(redis)[0] != '\0' ?
            tier_word(redis) + 1 : "ok");
    top_line(2, "%s", text);
}

static void
draw_journal(const struct top *t)
{
    const json_t *w = json_object_get(t->doc, "writes");

    if (w == NULL)
        top_line(3, "no journal");
    else
        top_line(3, "journal %.0f pending, oldest %.1f s, %.0f delivering, %.0f dead%s",
            client_number(w, "pending"), client_number(w, "oldest_ms") / 1000,
            client_number(w, "delivering"), client_number(w, "dead"),
            json_is_true(json_object_get(w, "takes")) ? "" : "  TAKES NO MORE");
}

/* ---- routes ---------------------------------------------------------------------------------- */

static const struct {
    const char *title, *member;         /* of the figures; NULL: not there */
    int         width;
    int         sort;                   /* TOP_SORTS: by none */
} columns[] = {
    { "OUTCOME", NULL, 12, TOP_SORTS }, { "RATE/s", NULL, 9, SORT_RATE },
    { "HITS %", NULL, 7, SORT_HITS },   { "P50 ms", "p50_us", 8, SORT_P50 },
    { "P90", "p90_us", 7, TOP_SORTS },  { "P99", "p99_us", 7, SORT_P99 },
    { "MAX", "max_us", 7, SORT_MAX },
};

static const struct top *sorting;       /* for qsort */

static double
value_of(const struct row *r)
{
    static const char *const members[TOP_SORTS] = { [SORT_P50] = "p50_us", [SORT_P99] = "p99_us",
        [SORT_MAX] = "max_us" };

    return sorting->sort == SORT_RATE ? r->rate : sorting->sort == SORT_HITS ? r->hits :
        client_number(r->f, members[sorting->sort]);
}

static int
compare(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    int c = 0;

    if (sorting->sort != SORT_NAME) {
        double v = value_of(x), w = value_of(y);

        c = v < w ? 1 : v > w ? -1 : 0;
    }
    if (c == 0)
        c = strcmp(x->route, y->route);
    if (c == 0)
        c = strcmp(x->outcome, y->outcome);
    return sorting->backwards ? -c : c;
}

static bool
wanted(const struct top *t, const struct row *r)
{
    return client_number(r->f, "count") > 0 && (t->filter[0] == '\0' ||
        strcasestr(r->route, t->filter) != NULL || strcasestr(r->outcome, t->filter) != NULL);
}

/* Those that are to be seen, in order; the caller's. NULL: memory is out, or there is none. */
static struct row *
make_rows(const struct top *t, size_t *n)
{
    json_t *routes = json_object_get(t->doc, "routes"), *windows;
    struct row *rows = NULL;
    size_t cap = 0;

    *n = 0;
    for (size_t i = 0; i < json_array_size(routes); i++) {
        json_t *route = json_array_get(routes, i);
        json_t *hits = json_object_get(json_object_get(route, "hit_rate"), t->window);
        const char *outcome;

        json_object_foreach(json_object_get(route, "outcomes"), outcome, windows) {
            struct row r = { client_text(route, "name"), outcome,
                json_object_get(windows, t->window), 0,
                json_is_number(hits) ? json_number_value(hits) : -1 };
            struct row *more = rows;

            r.rate = client_number(r.f, "rate");
            if (!wanted(t, &r))
                continue;
            if (*n == cap && (more = realloc(rows, (cap = 2 * cap + 64) * sizeof *rows)) == NULL)
                break;
            rows = more;
            rows[(*n)++] = r;
        }
    }
    sorting = t;
    if (*n > 0)
        qsort(rows, *n, sizeof *rows, compare);
    return rows;
}

/* How many columns fit beside a name of twelve, and what that leaves for the name. */
static size_t
fit_columns(int *name)
{
    size_t n = NELEM(columns);
    int width = 0;

    for (size_t i = 0; i < n; i++)
        width += columns[i].width;
    while (n > 0 && COLS - width < 13)
        width -= columns[--n].width;
    *name = COLS - width - 1;
    return n;
}

static void
put_cell(int y, int x, int width, const char *text)     /* to the right of its width */
{
    int n = (int)strlen(text);

    top_put(y, n < width ? x + width - n : x + 1, width - 1, text);
}

static void
draw_cell(int y, int x, size_t column, const struct row *r)
{
    char text[32];

    if (column == 0) {
        top_put(y, x, columns[0].width, r->outcome);
        return;
    }
    if (column == 1)
        snprintf(text, sizeof text, "%.1f", r->rate);
    else if (column == 2 && r->hits >= 0)
        snprintf(text, sizeof text, "%.1f", 100 * r->hits);
    else if (column == 2)
        strcpy(text, "-");
    else
        client_ms(json_object_get(r->f, columns[column].member), text);
    put_cell(y, x, columns[column].width, text);
}

static void
draw_header(const struct top *t, int y, const char *name)
{
    int width;
    size_t n = fit_columns(&width);

    attron(A_REVERSE);
    top_line(y, "%*s", COLS, "");
    top_put(y, 0, width, name);
    for (size_t i = 0, x = (size_t)width + 1; i < n; x += (size_t)columns[i++].width) {
        bool sorted = columns[i].sort == (int)t->sort;

        if (sorted)
            attron(A_BOLD | A_UNDERLINE);
        if (i == 0)
            top_put(y, (int)x, columns[i].width, columns[i].title);
        else
            put_cell(y, (int)x, columns[i].width, columns[i].title);
        if (sorted)
            attroff(A_BOLD | A_UNDERLINE);
    }
    attroff(A_REVERSE);
}

/* Lines y to end, without it. */
static void
draw_routes(struct top *t, int y, int end)
{
    size_t n, room = end - y > 1 ? (size_t)(end - y - 1) : 0;
    struct row *rows = make_rows(t, &n);
    int width;
    size_t shown = fit_columns(&width);

    if (y < end)
        draw_header(t, y++, t->sort == SORT_NAME ? "ROUTE (sorted)" : "ROUTE");
    if (t->first + room > n)
        t->first = n > room ? n - room : 0;
    t->rows = n;
    for (size_t i = t->first; i < n && y < end; i++, y++) {
        int x = width + 1;

        top_put(y, 0, width, rows[i].route);
        for (size_t c = 0; c < shown; x += columns[c++].width)
            draw_cell(y, x, c, &rows[i]);
    }
    free(rows);
}

/* ---- below ----------------------------------------------------------------------------------- */

static void
draw_keys(const struct top *t, int y)
{
    if (t->typing) {
        top_line(y, "filter: %s_  (return keeps it, escape clears it)", t->filter);
        return;
    }
    attron(t->news[0] != '\0' ? A_BOLD : A_DIM);
    if (t->news[0] != '\0')
        top_line(y, "%s", t->news);
    else
        top_line(y, "q quit  s sort:%s  r %s  / filter%s%s  p pause  w window  v view  %zu rows",
            top_sorts[t->sort], t->backwards ? "backwards" : "reverse",
            t->filter[0] != '\0' ? ":" : "", t->filter, t->rows);
    attroff(A_BOLD | A_DIM);
}

void
top_draw(struct top *t)
{
    int room = LINES - LINES_ABOVE - 3;         /* but for both headers and the keys */
    int most = t->view == VIEW_ORIGINS ? room / 3 : room / 2, rows = top_below_rows(t);
    int below = room < 4 ? 0 : rows < most ? rows : most;
    int end = LINES - 1 - (below > 0 ? below + 1 : 0);

    erase();
    if (!t->connected)
        attron(A_DIM);
    draw_title(t);
    draw_totals(t);
    draw_tiers(t);
    draw_journal(t);
    draw_routes(t, LINES_ABOVE, end);
    if (below > 0)
        top_below(t, end, LINES - 1);
    attroff(A_DIM);
    draw_keys(t, LINES - 1);
    refresh();
}
