/*
 * What is only looked at: the index, health, statistics.
 */
#include "admin/inside.h"
#include "stats/stats.h"

void
handle_index(struct admin_request *r)
{
    if (dashboard_is_page(r->head)) {
        handle_dashboard(r);
        return;
    }
    r->type = "text/plain; charset=utf-8";
    buf_printf(&r->out, "weir %s: the admin port\n\n", WEIR_VERSION);
    for (size_t i = 0; i < nendpoints; i++)
        buf_printf(&r->out, "%-4s %-9s %s\n", endpoints[i].method == HTTP_POST ? "POST" : "GET",
            endpoints[i].path, endpoints[i].about);
}

void
handle_healthz(struct admin_request *r)
{
    buf_addz(&r->out, "{\"status\": \"ok\"}\n");
}

void
handle_readyz(struct admin_request *r)
{
    struct buf why = { 0 };
    bool ready = r->a->process.ready(r->a->process.arg, &why);

    r->status = ready ? 200 : 503;
    buf_printf(&r->out, "{\"ready\": %s%s%.*s}\n", ready ? "true" : "false", why.n > 0 ? ", " : "",
        SLICE_ARG(buf_slice(&why)));
    buf_free(&why);
}

void
handle_metrics(struct admin_request *r)
{
    r->type = "text/plain; version=0.0.4; charset=utf-8";
    stats_metrics(&r->out);
}

void
handle_stats(struct admin_request *r)
{
    stats_json(&r->out, STATS_ALL_WINDOWS);
}
