/*
 * `weir stats`: /stats as a table for people. Times in milliseconds, of the last minute; counts
 * since start besides.
 */
#include <jansson.h>
#include <stdio.h>

#include "admin/inside.h"

const char *
client_text(const json_t *o, const char *name)
{
    const char *z = json_string_value(json_object_get(o, name));

    return z != NULL ? z : "";
}

double
client_number(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

/* The table fits 100 columns; a name that is longer than its column has a line of its own. */
#define NAME_WIDTH 19

static const struct { const char *title, *member; } columns[] = {
    { "p50 ms", "p50_us" }, { "p75", "p75_us" }, { "p90", "p90_us" }, { "p95", "p95_us" },
    { "p99", "p99_us" }, { "p99.9", "p999_us" }, { "max", "max_us" },
};

/* To the microsecond while six characters allow it, then with the decimals that fit. */
void
client_ms(const json_t *us, char out[16])
{
    double ms = json_number_value(us) / 1e3;

    if (us == NULL)
        strcpy(out, "-");
    else
        snprintf(out, 16, "%.*f", ms < 9.9995 ? 3 : ms < 999.995 ? 2 : 0, ms);
}

static void
print_ms(const json_t *us)
{
    char text[16];

    client_ms(us, text);
    printf(" %6s", text);
}

/* name, count since start, and of the last minute: rate and percentiles. */
static void
print_row(const char *name, const char *what, const json_t *windows)
{
    const json_t *minute = json_object_get(windows, "1m");

    printf("  %-*s %-11s %9.0f %7.1f", NAME_WIDTH, name, what,
        client_number(json_object_get(windows, "start"), "count"), client_number(minute, "rate"));
    for (size_t i = 0; i < NELEM(columns); i++)
        print_ms(json_object_get(minute, columns[i].member));
    putchar('\n');
}

/* What stands in the name's column of the first row. */
static const char *
begin_name(const char *name)
{
    if (name == NULL || strlen(name) <= NAME_WIDTH)
        return name != NULL ? name : "";
    printf("  %s\n", name);
    return "";
}

static void
print_header(const char *title)
{
    printf("\n%-*s %-11s %9s %7s", NAME_WIDTH + 2, title, "last minute", "count", "rate/s");
    for (size_t i = 0; i < NELEM(columns); i++)
        printf(" %6s", columns[i].title);
    putchar('\n');
}

static void
print_routes(const json_t *doc)
{
    json_t *routes = json_object_get(doc, "routes"), *windows;
    const char *outcome;

    print_header("route");
    for (size_t i = 0; i < json_array_size(routes); i++) {
        json_t *r = json_array_get(routes, i);
        json_t *rate = json_object_get(json_object_get(r, "hit_rate"), "1m");
        const char *name = begin_name(json_string_value(json_object_get(r, "name")));
        char hit[32] = "";

        if (json_is_number(rate))
            snprintf(hit, sizeof hit, "hits %.1f %%", 100 * json_number_value(rate));
        json_object_foreach(json_object_get(r, "outcomes"), outcome, windows) {
            print_row(name[0] != '\0' ? name : hit, outcome, windows);
            if (name[0] == '\0')
                hit[0] = '\0';          /* once, under the name */
            name = "";
        }
    }
}

static void
print_origins(const json_t *doc)
{
    static const char *const phases[] = { "connect", "first_byte", "total" };
    json_t *origins = json_object_get(doc, "origins");

    if (json_array_size(origins) == 0)
        return;
    print_header("origin");
    for (size_t i = 0; i < json_array_size(origins); i++) {
        json_t *o = json_array_get(origins, i);
        const char *name = begin_name(json_string_value(json_object_get(o, "name")));

        for (size_t p = 0; p < NELEM(phases); p++) {
            if (json_object_get(o, phases[p]) == NULL)
                continue;
            print_row(name, phases[p], json_object_get(o, phases[p]));
            name = "";
        }
    }
}

static void
print_totals(const json_t *doc)
{
    json_t *g = json_object_get(doc, "gauges"), *c = json_object_get(doc, "counters");

    printf("weir %s, up %.0f s, resident %.1f MiB, %.0f threads\n",
        json_string_value(json_object_get(doc, "version")), client_number(doc, "uptime_s"),
        client_number(json_object_get(doc, "process"), "resident_bytes") / 1048576,
        client_number(json_object_get(doc, "process"), "threads"));
    printf("requests %.0f (%.0f refused), connections %.0f open of %.0f accepted\n",
        client_number(c, "requests"), client_number(c, "requests_bad"),
        client_number(g, "client_connections"), client_number(c, "connections"));
    printf("cache    %.0f objects, %.1f of %.1f MiB, %.0f evicted, %.0f purges\n",
        client_number(g, "cache_objects"), client_number(g, "cache_memory") / 1048576,
        client_number(g, "cache_memory_limit") / 1048576, client_number(c, "cache_evictions"),
        client_number(c, "purges"));
    printf("pool     %.0f connections to origins, %.0f busy, %.0f waiting; "
        "%.0f waited, %.0f in vain\n",
        client_number(g, "origin_connections"), client_number(g, "origin_busy"),
        client_number(g, "pool_waiting"), client_number(c, "pool_waits"),
        client_number(c, "pool_timeouts"));
}

int
client_stats(const struct client *k)
{
    struct buf out = { 0 };
    int status = client_exchange(k, "GET", "/stats", SLICE(""), &out);
    json_t *doc = status == 200 ? json_loadb(out.p, out.n, 0, NULL) : NULL;

    if (status == 200 && doc == NULL) {
        fprintf(stderr, "weir: %s: /stats is no JSON; is this the admin port?\n", k->base);
        status = -1;
    } else if (doc != NULL) {
        print_totals(doc);
        print_routes(doc);
        print_origins(doc);
    } else if (status != -1) {
        fprintf(stderr, "%.*s", SLICE_ARG(buf_slice(&out)));
    }
    json_decref(doc);
    buf_free(&out);
    return status;
}
