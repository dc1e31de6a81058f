/*
 * GET /stats: everything, as one JSON object.
 *
 *   {"version": "0.1.0", "now_ms": 1763..., "uptime_s": 42,
 *    "windows_s": {"10s": 10, "1m": 65, "5m": 305, "start": 3600},     what each really covers now
 *    "process": {"resident_bytes": n, "cpu_s": 1.25, "fds": n, "threads": n},
 *    "counters": {"requests": n, ...},  "gauges": {"cache_objects": n, ...},     as in metrics.def
 *    "routes": [{"name": "/api/users/{id}", "bytes": n,
 *                "hit_rate": {"10s": 0.93, "1m": null, "5m": ..., "start": ...},
 *                "outcomes": {"hit": {"bytes": n, "10s": FIGURES, ..., "start": FIGURES},
 *                             ...}}, ...],
 *    "origins": [{"name": "api/http://127.0.0.1:8000",
 *                 "connect": {"10s": FIGURES, ...}, "first_byte": {...}, "total": {...}}, ...],
 *    "states": {"LOOKUP": {"10s": FIGURES, ...}, ...},
 *    "summaries": {"write_delivery": {"10s": FIGURES, ...}, ...},
 *    ... and one member for each source (stats_source_add)}
 *   FIGURES = {"count": n, "rate": per second, "p50_us": n, "p75_us", "p90_us", "p95_us", "p99_us",
 *              "p999_us", "max_us"}; without the times when the count is 0.
 *
 * Only what was used is there. hit_rate: answered from a stored response (hit, stale) of all reads
 * (those, miss, collapsed and revalidated); null when there was no read. bytes: of bodies, since
 * start.
 */
#include "stats/inside.h"

#include <stdio.h>

static void
put_name(struct buf *b, const char *name)
{
    buf_addc(b, '"');
    buf_json(b, slice_of(name));
    buf_addc(b, '"');
}

static void
put_figures(struct buf *b, const struct figures *f)
{
    buf_printf(b, "{\"count\": %llu, \"rate\": %.3f", (unsigned long long)f->count, f->rate);
    for (unsigned q = 0; q < QUANTILES && f->count > 0; q++)
        buf_printf(b, ", \"%s_us\": %llu", quantile_names[q], (unsigned long long)f->q_us[q]);
    if (f->count > 0)
        buf_printf(b, ", \"max_us\": %llu", (unsigned long long)f->max_us);
    buf_addc(b, '}');
}

/* Its windows, as members of an object that the caller opens and closes. */
static void
put_windows(struct buf *b, const struct series *s)
{
    uint64_t sum, max, bytes;

    for (enum window w = 0; w < WINDOWS; w++) {
        struct cells *c = scratch_cells(0);
        struct figures f = { 0 };

        if (c != NULL) {
            series_cells(s, w, c);
            series_totals(s, &sum, &max, &bytes);
            figures_of(c, w, max, &f);
        }
        buf_printf(b, "%s\"%s\": ", w > 0 ? ", " : "", window_names[w]);
        put_figures(b, &f);
    }
}

static bool
route_used(size_t slot)
{
    for (unsigned o = 0; o < STATS_OUTCOMES; o++)
        if (series_find((uint32_t)(slot * STATS_OUTCOMES + o)) != NULL)
            return true;
    return false;
}

static void
put_hit_rate(struct buf *b, unsigned slot)
{
    buf_addz(b, "\"hit_rate\": {");
    for (enum window w = 0; w < WINDOWS; w++) {
        uint64_t answered, reads;

        route_reads(slot, w, &answered, &reads);
        buf_printf(b, "%s\"%s\": ", w > 0 ? ", " : "", window_names[w]);
        if (reads > 0)
            buf_printf(b, "%.4f", (double)answered / (double)reads);
        else
            buf_addz(b, "null");
    }
    buf_addc(b, '}');
}

static void
put_route(struct buf *b, unsigned slot)
{
    uint64_t sum, max, bytes, total = 0;
    const char *comma = "";

    buf_addz(b, "{\"name\": ");
    put_name(b, route_slot_name(slot));
    buf_addz(b, ", ");
    put_hit_rate(b, slot);
    buf_addz(b, ", \"outcomes\": {");
    for (unsigned o = 0; o < STATS_OUTCOMES; o++) {
        struct series *s = series_find(slot * STATS_OUTCOMES + o);

        if (s == NULL)
            continue;
        series_totals(s, &sum, &max, &bytes);
        total += bytes;
        buf_printf(b, "%s\"%s\": {\"bytes\": %llu, ", comma, stats_outcome_names[o],
            (unsigned long long)bytes);
        put_windows(b, s);
        buf_addc(b, '}');
        comma = ", ";
    }
    buf_printf(b, "}, \"bytes\": %llu}", (unsigned long long)total);
}

static void
put_routes(struct buf *b)
{
    const char *comma = "";

    buf_addz(b, ",\n\"routes\": [");
    for (size_t slot = 0; slot < route_slots(); slot++) {
        if (!route_used(slot))
            continue;
        buf_printf(b, "%s\n  ", comma);
        put_route(b, (unsigned)slot);
        comma = ",";
    }
    buf_addc(b, ']');
}

static void
put_origins(struct buf *b)
{
    static const char *const times[STATS_ORIGIN_TIMES] = { "connect", "first_byte", "total" };
    const char *comma = "";

    buf_addz(b, ",\n\"origins\": [");
    for (size_t slot = 0; slot < origin_slots(); slot++) {
        bool open = false;

        for (unsigned t = 0; t < STATS_ORIGIN_TIMES; t++) {
            struct series *s = series_find((uint32_t)(ID_ORIGINS + slot * ORIGIN_STRIDE + t));

            if (s == NULL)
                continue;
            if (!open) {
                buf_printf(b, "%s\n  {\"name\": ", comma);
                put_name(b, origin_slot_name(slot));
            }
            open = true;
            buf_printf(b, ", \"%s\": {", times[t]);
            put_windows(b, s);
            buf_addc(b, '}');
        }
        if (open) {
            buf_addc(b, '}');
            comma = ",";
        }
    }
    buf_addc(b, ']');
}

static void
put_states(struct buf *b)
{
    const char *comma = "";

    buf_addz(b, ",\n\"states\": {");
    for (unsigned i = 0; i < STATES_MAX; i++) {
        struct series *s = series_find(ID_STATES + i);

        if (s == NULL || state_name(i) == NULL)
            continue;
        buf_printf(b, "%s\n  ", comma);
        put_name(b, state_name(i));
        buf_addz(b, ": {");
        put_windows(b, s);
        buf_addc(b, '}');
        comma = ",";
    }
    buf_addc(b, '}');
}

/* Those of times; plain numbers are in /metrics alone. */
static void
put_summaries(struct buf *b)
{
    static const char *const names[] = {
#define SUMMARY(id, unit, help) sizeof(unit) > 1 ? #id : NULL,
#include "stats/metrics.def"
    };
    const char *comma = "";

    buf_addz(b, ",\n\"summaries\": {");
    for (unsigned i = 0; i < STATS_SUMMARIES; i++) {
        struct series *s = series_find(ID_SUMMARIES + i);

        if (s == NULL || names[i] == NULL)
            continue;
        buf_printf(b, "%s\n  ", comma);
        put_name(b, names[i]);
        buf_addz(b, ": {");
        put_windows(b, s);
        buf_addc(b, '}');
        comma = ",";
    }
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
stats_json(struct buf *b)
{
    int64_t now = wall_ms();
    struct process p;

    process_read(&p);
    buf_printf(b, "{\"version\": \"%s\", \"now_ms\": %lld, \"uptime_s\": %lld,\n", WEIR_VERSION,
        (long long)now, (long long)((now - stats_start_wall_ms()) / 1000));
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
    put_routes(b);
    put_origins(b);
    put_states(b);
    put_summaries(b);
    stats_unlock();
    for (struct stats_source *s = stats_sources(); s != NULL; s = s->next)
        if (s->json != NULL)
            s->json(b, s->arg);
    buf_addz(b, "}\n");
}
