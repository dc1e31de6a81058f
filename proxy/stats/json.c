/*
 * GET /stats: everything, or what some windows have, as one JSON object.
 *
 *   {"version": "0.1.0", "now_ms": 1763..., "start_ms": 1763..., "uptime_s": 42,
 *    "windows_s": {"10s": 10, "1m": 65, "5m": 305, "start": 3600},     what each really covers now
 *    "process": {"resident_bytes": n, "cpu_s": 1.25, "fds": n, "threads": n},
 *    "counters": {"requests": n, ...},  "gauges": {"cache_objects": n, ...},     as in metrics.def
 *    "total": the same as a route's, of all together,
 *    "routes": [{"name": "/api/users/{id}", "bytes": n,
 *                "hit_rate": {"10s": 0.93, "1m": null, "5m": ..., "start": ...},
 *                "outcomes": {"hit": {"bytes": n, "10s": FIGURES, ..., "start": FIGURES},
 *                             ...}}, ...],
 *    "origins": [{"name": "api/http://127.0.0.1:8000",
 *                 "connect": {"10s": FIGURES, ...}, "first_byte": {...}, "total": {...}}, ...],
 *    "states": {"LOOKUP": {"10s": FIGURES, ...}, ...},
 *    "summaries": {"write_delivery": {"10s": FIGURES, ...}, ...},
 *    "timers": {"weir_plugin_hook_seconds{plugin=...,hook=...}": {"10s": FIGURES, ...}, ...},
 *    "slowest": [...],                                               slowest.c
 *    ... and one member for each source (stats_source_add)}
 *   FIGURES = {"count": n, "rate": per second, "p50_us": n, "p75_us", "p90_us", "p95_us", "p99_us",
 *              "p999_us", "max_us"}; without the times when the count is 0. Those of "timers" are
 *              nanoseconds: "p50_ns" ...
 *
 * Only what was used is there; where not all windows are asked for, what was used in one of those.
 * hit_rate: answered from a stored response (hit, stale) of all reads (those, miss, collapsed and
 * revalidated); null when there was no read. bytes: of bodies, since start.
 */
#include "stats/inside.h"

#include <stdio.h>

void
stats_put_name(struct buf *b, const char *name)
{
    buf_addc(b, '"');
    buf_json(b, slice_of(name));
    buf_addc(b, '"');
}

void
stats_put_figures(struct buf *b, const struct figures *f, const char *unit)
{
    buf_printf(b, "{\"count\": %llu, \"rate\": %.3f", (unsigned long long)f->count, f->rate);
    for (unsigned q = 0; q < QUANTILES && f->count > 0; q++)
        buf_printf(b, ", \"%s_%s\": %llu", quantile_names[q], unit,
            (unsigned long long)f->q_us[q]);
    if (f->count > 0)
        buf_printf(b, ", \"max_%s\": %llu", unit, (unsigned long long)f->max_us);
    buf_addc(b, '}');
}

bool
stats_windows(struct slice names, unsigned *set)
{
    struct slice name;

    *set = 0;
    while (slice_cut(&names, ',', &name)) {
        enum window w = 0;

        while (w < WINDOWS && !slice_eq(name, slice_of(window_names[w])))
            w++;
        if (w == WINDOWS)
            return false;
        *set |= 1u << w;
    }
    return *set != 0;
}

/* ---- one series, or one outcome of all routes ------------------------------------------------ */

#define ALL_ROUTES UINT32_MAX

/* What stands in a window of these series, which begin at `id` and lie `stride` apart. */
struct many { uint32_t id, stride, n; };

static bool
many_find(const struct many *m, uint64_t *max_us, uint64_t *bytes)
{
    bool found = false;

    *max_us = *bytes = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        struct series *s = series_find(m->id + i * m->stride);
        uint64_t sum, max, some;

        if (s == NULL)
            continue;
        series_totals(s, &sum, &max, &some);
        *max_us = max > *max_us ? max : *max_us;
        *bytes += some;
        found = true;
    }
    return found;
}

static void
many_figures(const struct many *m, enum window w, uint64_t max_us, struct figures *f)
{
    struct cells *c = scratch_cells(0);

    memset(f, 0, sizeof *f);
    for (uint32_t i = 0; c != NULL && i < m->n; i++) {
        struct series *s = series_find(m->id + i * m->stride);

        if (s != NULL)
            series_cells(s, w, c);
    }
    if (c != NULL)
        figures_of(c, w, max_us, f);
}

/* The windows asked for, as `"name": FIGURES` separated by commas; counts[] gets how many each has.
 * False, and nothing appended: none of them has any, and not all were asked for. */
static bool
put_windows(struct buf *b, const struct many *m, uint64_t max_us, unsigned windows,
    uint64_t counts[WINDOWS])
{
    const char *comma = "";
    size_t before = b->n;
    bool used = windows == STATS_ALL_WINDOWS;

    for (enum window w = 0; w < WINDOWS; w++) {
        struct figures f;

        counts[w] = 0;
        if (!(windows >> w & 1))
            continue;
        many_figures(m, w, max_us, &f);
        counts[w] = f.count;
        used |= f.count > 0;
        buf_printf(b, "%s\"%s\": ", comma, window_names[w]);
        stats_put_figures(b, &f, m->id >= ID_TIMERS ? "ns" : "us");
        comma = ", ";
    }
    if (!used)
        b->n = before;
    return used;
}

/* `"name": {windows}` of one series, behind the comma; true if there was something. */
static bool
put_one(struct buf *b, const char *comma, const char *name, uint32_t id, unsigned windows)
{
    struct many m = { id, 0, 1 };
    uint64_t max_us, bytes, counts[WINDOWS];
    size_t before = b->n;

    if (!many_find(&m, &max_us, &bytes))
        return false;
    buf_addz(b, comma);
    stats_put_name(b, name);
    buf_addz(b, ": {");
    if (!put_windows(b, &m, max_us, windows, counts)) {
        b->n = before;
        return false;
    }
    buf_addc(b, '}');
    return true;
}

/* ---- routes ---------------------------------------------------------------------------------- */

static void
put_hit_rate(struct buf *b, unsigned windows, const uint64_t answered[WINDOWS],
    const uint64_t reads[WINDOWS])
{
    const char *comma = "";

    buf_addz(b, ", \"hit_rate\": {");
    for (enum window w = 0; w < WINDOWS; w++) {
        if (!(windows >> w & 1))
            continue;
        buf_printf(b, "%s\"%s\": ", comma, window_names[w]);
        if (reads[w] > 0)
            buf_printf(b, "%.4f", (double)answered[w] / (double)reads[w]);
        else
            buf_addz(b, "null");
        comma = ", ";
    }
    buf_addc(b, '}');
}

/* The members of a route, or of all. False: nothing to say of it. */
static bool
put_route(struct buf *b, uint32_t slot, unsigned windows)
{
    uint64_t answered[WINDOWS] = { 0 }, reads[WINDOWS] = { 0 }, total = 0;
    const char *comma = "";
    bool used = false;

    buf_addz(b, "\"outcomes\": {");
    for (unsigned o = 0; o < STATS_OUTCOMES; o++) {
        struct many m = { slot == ALL_ROUTES ? o : slot * STATS_OUTCOMES + o, STATS_OUTCOMES,
            slot == ALL_ROUTES ? (uint32_t)route_slots() : 1 };
        uint64_t max_us, bytes, counts[WINDOWS];
        size_t before = b->n;

        if (!many_find(&m, &max_us, &bytes))
            continue;
        total += bytes;
        buf_printf(b, "%s\"%s\": {\"bytes\": %llu, ", comma, stats_outcome_names[o],
            (unsigned long long)bytes);
        if (!put_windows(b, &m, max_us, windows, counts)) {
            b->n = before;
            continue;
        }
        buf_addc(b, '}');
        comma = ", ";
        used = true;
        for (enum window w = 0; w < WINDOWS; w++) {
            answered[w] += outcome_is_answered(o) ? counts[w] : 0;
            reads[w] += outcome_is_read(o) ? counts[w] : 0;
        }
    }
    buf_printf(b, "}, \"bytes\": %llu", (unsigned long long)total);
    put_hit_rate(b, windows, answered, reads);
    return used;
}

static void
put_routes(struct buf *b, unsigned windows)
{
    const char *comma = "";

    buf_addz(b, ",\n\"total\": {");
    put_route(b, ALL_ROUTES, windows);
    buf_addz(b, "},\n\"routes\": [");
    for (uint32_t slot = 0; slot < route_slots(); slot++) {
        size_t before = b->n;

        buf_printf(b, "%s\n  {\"name\": ", comma);
        stats_put_name(b, route_slot_name(slot));
        buf_addz(b, ", ");
        if (!put_route(b, slot, windows)) {
            b->n = before;
            continue;
        }
        buf_addc(b, '}');
        comma = ",";
    }
    buf_addc(b, ']');
}

/* ---- the others ------------------------------------------------------------------------------ */

static void
put_origins(struct buf *b, unsigned windows)
{
    static const char *const times[STATS_ORIGIN_TIMES] = { "connect", "first_byte", "total" };
    const char *comma = "";

    buf_addz(b, ",\n\"origins\": [");
    for (uint32_t slot = 0; slot < origin_slots(); slot++) {
        size_t before = b->n;
        bool used = false;

        buf_printf(b, "%s\n  {\"name\": ", comma);
        stats_put_name(b, origin_slot_name(slot));
        for (unsigned t = 0; t < STATS_ORIGIN_TIMES; t++)
            used |= put_one(b, ", ", times[t], ID_ORIGINS + slot * ORIGIN_STRIDE + t, windows);
        if (used) {
            buf_addc(b, '}');
            comma = ",";
        } else {
            b->n = before;
        }
    }
    buf_addc(b, ']');
}

static void
put_states(struct buf *b, unsigned windows)
{
    const char *comma = "\n  ";

    buf_addz(b, ",\n\"states\": {");
    for (unsigned i = 0; i < STATES_MAX; i++)
        if (state_name(i) != NULL && put_one(b, comma, state_name(i), ID_STATES + i, windows))
            comma = ",\n  ";
    buf_addc(b, '}');
}

/* Those of times; plain numbers are in /metrics alone. */
static void
put_summaries(struct buf *b, unsigned windows)
{
    static const char *const names[] = {
#define SUMMARY(id, unit, help) sizeof(unit) > 1 ? #id : NULL,
#include "stats/metrics.def"
    };
    const char *comma = "\n  ";

    buf_addz(b, ",\n\"summaries\": {");
    for (unsigned i = 0; i < STATS_SUMMARIES; i++)
        if (names[i] != NULL && put_one(b, comma, names[i], ID_SUMMARIES + i, windows))
            comma = ",\n  ";
    buf_addc(b, '}');
}

static void
put_timers(struct buf *b, unsigned windows)
{
    const char *comma = "\n  ";

    buf_addz(b, ",\n\"timers\": {");
    for (uint32_t slot = 1; slot < timer_slots(); slot++)
        if (put_one(b, comma, timer_slot_name(slot), ID_TIMERS + slot, windows))
            comma = ",\n  ";
    buf_addc(b, '}');
}

static void
put_numbers(struct buf *b)
{
    const char *comma = "";

    buf_addz(b, ",\n\"counters\": {");
#define COUNTER(id, unit, help) \
    buf_printf(b, "%s\"" #id "\": %llu", comma, (unsigned long long)stats_counter(STATS_##id)); \
    comma = ", ";
#include "stats/metrics.def"
    buf_addz(b, "},\n\"gauges\": {");
    comma = "";
#define GAUGE(id, unit, help) \
    buf_printf(b, "%s\"" #id "\": %lld", comma, (long long)stats_gauge(GAUGE_##id)); \
    comma = ", ";
#include "stats/metrics.def"
    buf_addc(b, '}');
}

void
stats_json(struct buf *b, unsigned windows)
{
    int64_t now = wall_ms();
    struct process p;

    process_read(&p);
    buf_printf(b, "{\"version\": \"%s\", \"now_ms\": %lld, \"start_ms\": %lld, "
        "\"uptime_s\": %lld,\n", WEIR_VERSION, (long long)now, (long long)stats_start_wall_ms(),
        (long long)((now - stats_start_wall_ms()) / 1000));
    buf_printf(b, "\"process\": {\"resident_bytes\": %llu, \"cpu_s\": %.3f, "
        "\"fds\": %llu, \"threads\": %llu}",
        (unsigned long long)p.resident_bytes, p.cpu_s, (unsigned long long)p.fds,
        (unsigned long long)p.threads);
    put_numbers(b);
    stats_lock();
    series_gather();
    buf_addz(b, ",\n\"windows_s\": {");
    for (enum window w = 0; w < WINDOWS; w++)
        buf_printf(b, "%s\"%s\": %.0f", w > 0 ? ", " : "", window_names[w], window_seconds(w));
    buf_addc(b, '}');
    put_routes(b, windows);
    put_origins(b, windows);
    put_states(b, windows);
    put_summaries(b, windows);
    put_timers(b, windows);
    stats_unlock();
    slowest_json(b);
    for (struct stats_source *s = stats_sources(); s != NULL; s = s->next)
        if (s->json != NULL)
            s->json(b, s->arg);
    buf_addz(b, "}\n");
}
