/*
 * The configuration in force, and reading it again.
 */
#include "admin/inside.h"
#include "config/config.h"

void
handle_config(struct admin_request *r)
{
    struct route_table *t = r->a->process.table(r->a->process.arg);

    r->type = "application/yaml; charset=utf-8";
    config_dump(route_table_conf(t), &r->out);
    route_table_unref(&t);
}

void
handle_reload(struct admin_request *r)
{
    struct buf text = { 0 };
    bool done = r->a->process.reload(r->a->process.arg, &text) == 0;

    if (done) {
        buf_addz(&r->out, "{\"reloaded\": true");
    } else {                            /* the file is at fault, not this request */
        admin_problem_open(r, 422, "the new configuration was refused; the old one stays in force");
        buf_addz(&r->out, ", \"reloaded\": false");
    }
    buf_addz(&r->out, ", \"text\": ");
    admin_json_text(&r->out, buf_slice(&text));
    buf_addz(&r->out, "}\n");
    buf_free(&text);
}
