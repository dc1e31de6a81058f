/*
 * GET /metrics: Prometheus text format 0.0.4.
 *
 * Model    each family at once: HELP, TYPE, its samples. Times are in seconds, sizes in bytes. Per
 *          route and outcome a summary (quantiles over the last minute; sum and count since start)
 *          and a histogram of fixed buckets (since start, which several instances can be added up
 *          by); per origin server and phase, and per state of the request machine, a summary.
 *          A quantile of nothing is NaN, as in Prometheus' own client libraries.
 */
#include "stats/inside.h"

#include <stdio.h>

static const struct { const char *le; uint64_t us; } buckets[] = {
    { "0.0001", 100 }, { "0.0005", 500 }, { "0.001", 1000 }, { "0.005", 5000 }, { "0.01", 10000 },
    { "0.025", 25000 }, { "0.05", 50000 }, { "0.1", 100000 }, { "0.25", 250000 }, { "0.5", 500000 },
    { "1", 1000000 }, { "2.5", 2500000 }, { "10", 10000000 },
};

static void
family(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* name="value", escaped as the format asks: backslash, quote, line feed. */
static void
label(struct buf *b, const char *name, const char *value)
{
    buf_printf(b, "%s=\"", name);
    for (; *value != '\0'; value++) {
        if (*value == '\n') {
            buf_addz(b, "\\n");
            continue;
        }
        if (*value == '\\' || *value == '"')
            buf_addc(b, '\\');
        buf_addc(b, *value);
    }
    buf_addc(b, '"');
}

static void
put_plain(struct buf *b)
{
#define COUNTER(id, unit, help)                                                                    \
    family(b, sizeof(unit) > 1 ? "weir_" #id "_" unit "_total" : "weir_" #id "_total", "counter",  \
        help);                                                                                     \
    buf_printf(b, "%s %llu\n",                                                                     \
        sizeof(unit) > 1 ? "weir_" #id "_" unit "_total" : "weir_" #id "_total",                   \
        (unsigned long long)stats_counter(STATS_##id));
#define GAUGE(id, unit, help) \
    family(b, sizeof(unit) > 1 ? "weir_" #id "_" unit : "weir_" #id, "gauge", help); \
    buf_printf(b, "%s %lld\n", sizeof(unit) > 1 ? "weir_" #id "_" unit : "weir_" #id, \
        (long long)stats_gauge(GAUGE_##id));
#include "stats/metrics.def"
}

/* The names that every Prometheus client library gives to these. */
static void
put_process(struct buf *b)
{
    struct process p;

    process_read(&p);
    family(b, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
    buf_printf(b, "process_resident_memory_bytes %llu\n", (unsigned long long)p.resident_bytes);
    family(b, "process_cpu_seconds_total", "counter",
        "Total user and system CPU time spent in seconds.");
    buf_printf(b, "process_cpu_seconds_total %.6f\n", p.cpu_s);
    family(b, "process_open_fds", "gauge", "Number of open file descriptors.");
    buf_printf(b, "process_open_fds %llu\n", (unsigned long long)p.fds);
    family(b, "process_start_time_seconds", "gauge",
        "Start time of the process since unix epoch in seconds.");
    buf_printf(b, "process_start_time_seconds %.3f\n", (double)stats_start_wall_ms() / 1e3);
    family(b, "weir_build_info", "gauge", "Always 1; the version is its label.");
    buf_addz(b, "weir_build_info{version=\"" WEIR_VERSION "\"} 1\n");
}

/* labels: `route="...",outcome="hit"`, without braces. scale: of the values to what is shown. */
static void
put_scaled(struct buf *b, const char *name, struct slice labels, const struct series *s,
    double scale)
{
    const char *comma = labels.n > 0 ? "," : "";
    static const char *const q_label[QUANTILES] = { "0.5", "0.75", "0.9", "0.95", "0.99", "0.999" };
    struct cells *c = scratch_cells(0);
    uint64_t sum, max, bytes;
    struct figures f;

    if (c == NULL)
        return;
    series_cells(s, WINDOW_1M, c);
    series_totals(s, &sum, &max, &bytes);
    figures_of(c, WINDOW_1M, max, &f);
    for (unsigned q = 0; q < QUANTILES; q++) {
        buf_printf(b, "%s{%.*s%squantile=\"%s\"} ", name, SLICE_ARG(labels), comma, q_label[q]);
        if (f.count > 0)
            buf_printf(b, "%.*f\n", scale > 1e6 ? 9 : 6, (double)f.q_us[q] / scale);
        else
            buf_addz(b, "NaN\n");
    }
    cells_clear(c);
    series_cells(s, WINDOW_START, c);
    buf_printf(b, "%s_sum{%.*s} %.*f\n%s_count{%.*s} %llu\n", name, SLICE_ARG(labels),
        scale > 1e6 ? 9 : 6, (double)sum / scale, name, SLICE_ARG(labels),
        (unsigned long long)cells_count(c));
}

static void
put_summary(struct buf *b, const char *name, struct slice labels, const struct series *s)
{
    put_scaled(b, name, labels, s, 1e6);
}

static void
put_summaries(struct buf *b)
{
    const struct { const char *name, *help; bool seconds; } all[] = {
#define SUMMARY(id, unit, help) \
        { sizeof(unit) > 1 ? "weir_" #id "_" unit : "weir_" #id, help, sizeof(unit) > 1 },
#include "stats/metrics.def"
    };

    for (unsigned i = 0; i < STATS_SUMMARIES; i++) {
        struct series *s = series_find(ID_SUMMARIES + i);

        if (s == NULL)
            continue;
        family(b, all[i].name, "summary", all[i].help);
        put_scaled(b, all[i].name, SLICE(""), s, all[i].seconds ? 1e6 : 1);
    }
}

/* Is there an earlier slot of the same family? */
static bool
family_begun(size_t slot, size_t n)
{
    for (size_t i = 1; i < slot; i++)
        if (strncmp(timer_slot_name(i), timer_slot_name(slot), n + 1) == 0)
            return true;
    return false;
}

/* Those of one family stand together, whenever they were named. */
static void
put_timers(struct buf *b)
{
    for (size_t slot = 1; slot < timer_slots(); slot++) {
        size_t n = strcspn(timer_slot_name(slot), "{");
        char name[128];

        if (n >= sizeof name || family_begun(slot, n))
            continue;
        memcpy(name, timer_slot_name(slot), n);
        name[n] = '\0';
        family(b, name, "summary", timer_slot_help(slot));
        for (size_t i = slot; i < timer_slots(); i++) {
            struct slice labels = slice_of(timer_slot_name(i) + n);
            struct series *s = series_find((uint32_t)(ID_TIMERS + i));

            if (s != NULL && strncmp(timer_slot_name(i), timer_slot_name(slot), n + 1) == 0)
                put_scaled(b, name, (struct slice){ labels.p + 1, labels.n - 2 }, s, 1e9);
        }
    }
}

static void
put_histogram(struct buf *b, const char *name, struct slice labels, const struct series *s)
{
    struct cells *c = scratch_cells(0);
    uint64_t sum, max, bytes, count;

    if (c == NULL)
        return;
    series_cells(s, WINDOW_START, c);
    series_totals(s, &sum, &max, &bytes);
    count = cells_count(c);
    for (size_t i = 0; i < NELEM(buckets); i++)
        buf_printf(b, "%s_bucket{%.*s,le=\"%s\"} %llu\n", name, SLICE_ARG(labels), buckets[i].le,
            (unsigned long long)cells_upto(c, buckets[i].us));
    buf_printf(b, "%s_bucket{%.*s,le=\"+Inf\"} %llu\n%s_sum{%.*s} %.6f\n%s_count{%.*s} %llu\n",
        name, SLICE_ARG(labels), (unsigned long long)count, name, SLICE_ARG(labels),
        (double)sum / 1e6, name, SLICE_ARG(labels), (unsigned long long)count);
}

static void
put_bytes(struct buf *b, const char *name, struct slice labels, const struct series *s)
{
    uint64_t sum, max, bytes;

    series_totals(s, &sum, &max, &bytes);
    buf_printf(b, "%s{%.*s} %llu\n", name, SLICE_ARG(labels), (unsigned long long)bytes);
}

static void
each_route(struct buf *b, const char *name,
    void (*put)(struct buf *, const char *, struct slice, const struct series *))
{
    struct buf labels = { 0 };

    for (size_t slot = 0; slot < route_slots(); slot++)
        for (unsigned o = 0; o < STATS_OUTCOMES; o++) {
            struct series *s = series_find((uint32_t)(slot * STATS_OUTCOMES + o));

            if (s == NULL)
                continue;
            labels.n = 0;
            label(&labels, "route", route_slot_name(slot));
            buf_addc(&labels, ',');
            label(&labels, "outcome", stats_outcome_names[o]);
            put(b, name, buf_slice(&labels), s);
        }
    b->failed |= labels.failed;
    buf_free(&labels);
}

static void
put_routes(struct buf *b)
{
    struct buf labels = { 0 };

    family(b, "weir_request_latency_seconds", "summary",
        "From a request's first byte to the last byte of its answer; quantiles over the last "
        "minute.");
    each_route(b, "weir_request_latency_seconds", put_summary);
    family(b, "weir_request_duration_seconds", "histogram",
        "From a request's first byte to the last byte of its answer, since start.");
    each_route(b, "weir_request_duration_seconds", put_histogram);
    family(b, "weir_response_body_bytes_total", "counter", "Bytes of response bodies sent.");
    each_route(b, "weir_response_body_bytes_total", put_bytes);

    family(b, "weir_hit_ratio", "gauge",
        "Share of the reads of the last minute that a stored response answered; NaN without "
        "reads.");
    for (size_t slot = 0; slot < route_slots(); slot++) {
        uint64_t answered, reads;

        route_reads((unsigned)slot, WINDOW_START, &answered, &reads);
        if (reads == 0)
            continue;
        route_reads((unsigned)slot, WINDOW_1M, &answered, &reads);
        labels.n = 0;
        label(&labels, "route", route_slot_name(slot));
        buf_printf(b, "weir_hit_ratio{%.*s} ", SLICE_ARG(buf_slice(&labels)));
        if (reads > 0)
            buf_printf(b, "%.4f\n", (double)answered / (double)reads);
        else
            buf_addz(b, "NaN\n");
    }
    b->failed |= labels.failed;
    buf_free(&labels);
}

static void
put_others(struct buf *b)
{
    static const char *const phases[STATS_ORIGIN_TIMES] = { "connect", "first_byte", "total" };
    struct buf labels = { 0 };

    family(b, "weir_origin_latency_seconds", "summary",
        "Of exchanges with origin servers, by phase; quantiles over the last minute.");
    for (size_t slot = 0; slot < origin_slots(); slot++)
        for (unsigned t = 0; t < STATS_ORIGIN_TIMES; t++) {
            struct series *s = series_find((uint32_t)(ID_ORIGINS + slot * ORIGIN_STRIDE + t));

            if (s == NULL)
                continue;
            labels.n = 0;
            label(&labels, "server", origin_slot_name(slot));
            buf_addc(&labels, ',');
            label(&labels, "phase", phases[t]);
            put_summary(b, "weir_origin_latency_seconds", buf_slice(&labels), s);
        }
    family(b, "weir_request_state_seconds", "summary",
        "Time that requests spent in each state; quantiles over the last minute.");
    for (unsigned i = 0; i < STATES_MAX; i++) {
        struct series *s = series_find(ID_STATES + i);

        if (s == NULL || state_name(i) == NULL)
            continue;
        labels.n = 0;
        label(&labels, "state", state_name(i));
        put_summary(b, "weir_request_state_seconds", buf_slice(&labels), s);
    }
    b->failed |= labels.failed;
    buf_free(&labels);
}

void
stats_metrics(struct buf *b)
{
    put_plain(b);
    put_process(b);
    stats_lock();
    series_gather();
    put_routes(b);
    put_others(b);
    put_summaries(b);
    put_timers(b);
    stats_unlock();
    for (struct stats_source *s = stats_sources(); s != NULL; s = s->next)
        if (s->metrics != NULL)
            s->metrics(b, s->arg);
}
