/*
 * GET /stats/history: the last five minutes in steps of ten seconds, so that who begins to look
 * need not wait for a past.
 *
 *   {"step_s": 10, "route": "/api/users", or null of all together,
 *    "steps": [{"age_s": 295, "outcomes": {"hit": FIGURES, "miss": FIGURES}}, ...]}
 *
 * oldest first; age_s: how long its end is ago. A step in which nothing was counted has no outcome.
 */
#include "stats/inside.h"

#define STEP_S 10

/* Slots from..to-1 together. */
static void
put_step(struct buf *b, int64_t ten, uint32_t from, uint32_t to)
{
    const char *comma = "";

    buf_printf(b, "{\"age_s\": %lld, \"outcomes\": {", (long long)series_ten_age(ten));
    for (unsigned o = 0; o < STATS_OUTCOMES; o++) {
        struct cells *c = scratch_cells(0);
        struct figures f = { 0 };

        for (uint32_t slot = from; c != NULL && slot < to; slot++) {
            struct series *s = series_find(slot * STATS_OUTCOMES + o);

            if (s != NULL)
                series_ten(s, ten, c);
        }
        if (c != NULL)
            figures_in(c, STEP_S, UINT64_MAX, &f);
        if (f.count == 0)
            continue;
        buf_printf(b, "%s\"%s\": ", comma, stats_outcome_names[o]);
        stats_put_figures(b, &f, "us");
        comma = ", ";
    }
    buf_addz(b, "}}");
}

bool
stats_history(struct buf *b, struct slice route)
{
    uint32_t from = 0, to;
    int64_t ten, end;
    const char *comma = "\n";

    stats_lock();
    series_gather();
    to = (uint32_t)route_slots();
    while (route.p != NULL && from < to && !slice_eq(route, slice_of(route_slot_name(from))))
        from++;
    if (route.p != NULL && from == to) {
        stats_unlock();
        return false;
    }
    buf_printf(b, "{\"step_s\": %d, \"route\": ", STEP_S);
    if (route.p != NULL)
        stats_put_name(b, route_slot_name(from));
    else
        buf_addz(b, "null");
    buf_addz(b, ", \"steps\": [");
    for (series_tens(&ten, &end); ten < end; ten++) {
        buf_addz(b, comma);
        put_step(b, ten, from, route.p != NULL ? from + 1 : to);
        comma = ",\n";
    }
    buf_addz(b, "]}\n");
    stats_unlock();
    return true;
}
