/*
 * An explanation's part about a write: who has it first (write_plan), what its success would purge,
 * told by the code that purges (purge_foretell), and what only the origin's answer will tell.
 *
 * Threads  the admin loop's.
 */
#include "admin/explain.h"
#include "purge/purge.h"

struct listed { struct explained *x; const struct route_table *table; size_t n; };

static const char *
name_of(enum store_purge_kind kind)
{
    switch (kind) {
    case STORE_PURGE_URL:         return "url";
    case STORE_PURGE_PREFIX:      return "prefix";
    case STORE_PURGE_PATTERN:     return "pattern";
    case STORE_PURGE_TAG:         return "tag";
    case STORE_PURGE_GROUP:       return "group";
    case STORE_PURGE_ROUTE:       return "route";
    case STORE_PURGE_PATH:        return "path";
    case STORE_PURGE_PATH_PREFIX: return "path_prefix";
    case STORE_PURGE_ALL:         break;
    }
    return "all";
}

static void
each_purge(void *arg, const struct store_purge *p)
{
    struct listed *l = arg;
    struct buf *b = &l->x->r->out;
    struct slice text = p->kind == STORE_PURGE_ALL ? SLICE("everything") : p->text;

    for (size_t i = 0; p->kind == STORE_PURGE_ROUTE && i < route_table_size(l->table); i++)
        if (route_table_at(l->table, i)->id == p->id)
            text = slice_of(route_table_at(l->table, i)->name);
    buf_printf(b, "%s{\"%s\": ", l->n++ > 0 ? ", " : "", name_of(p->kind));
    admin_json_text(b, text);
    buf_addc(b, '}');
}

static void
put_later(struct buf *b, const struct route *route)
{
    buf_addz(b, "], \"told_by_the_answer\": [\"Location\", \"Content-Location\", "
        "\"Cache-Group-Invalidation\"");
    for (size_t i = 0; i < route->npurge; i++)
        if (key_template_needs(route->purge[i]) & (KEY_NEEDS_RESPONSE | KEY_NEEDS_RESPONSE_BODY)) {
            buf_addz(b, ", ");
            admin_json_text(b, slice_of(route->conf->purge.at[i]));
        }
    buf_addz(b, "]}");
}

/* What the route's policy makes of it, as one sentence. */
static const char *
course(const struct explained *x)
{
    static const char *const fills[] = { [WRITE_FILL_AUTO] = "its answer's content where "
        "Content-Location says so, else the target, fetched at once, is stored before the client "
        "has its answer", [WRITE_FILL_RESPONSE] = "the content of a 200 or 201 to PUT or PATCH is "
        "stored before the client has its answer", [WRITE_FILL_REQUEST] = "the content of a PUT is "
        "stored before the client has its answer", [WRITE_FILL_REFETCH] = "the target is fetched "
        "and stored before the client has its answer" };

    switch (write_plan(x->route, x->head)) {
    case PLAN_ACCEPT:
        return "acknowledged when it is durable in the journal, delivered afterwards";
    case PLAN_BEHIND:
        return "goes to the origin; behind earlier writes that are pending it is acknowledged "
            "first, and with Prefer: respond-async always";
    case PLAN_DOWN:
        return "goes to the origin; acknowledged first where that cannot be reached, or earlier "
            "writes are pending";
    default:
        return x->route->conf->policy == POLICY_WRITE_THROUGH ||
            x->route->conf->policy == POLICY_WRITE_BACK ?
            fills[x->route->conf->write_fill] : "goes to the origin; its answer purges";
    }
}

void
explain_write(struct explained *x, const struct route_table *t)
{
    const struct route *route = x->route;
    const struct key_params params = { route->params, x->match.values, route->nparams };
    struct key_facts facts = { .request = x->head, .path = &params, .host = x->host,
        .query = x->query };
    struct listed l = { .x = x, .table = t };
    struct buf *b = &x->r->out, target = { 0 };

    if (x->content.n > 0 && !sem_coded(x->head))
        facts.request_body = x->content;
    buf_addz(&target, x->https ? "https://" : "http://");
    buf_adds(&target, x->host);
    buf_adds(&target, x->path);
    if (x->query.p != NULL) {
        buf_addc(&target, '?');
        buf_adds(&target, x->query);
    }
    buf_addz(b, ",\n \"write\": {");
    explain_member(b, "course", course(x));
    buf_addz(b, ", ");
    explain_member(b, "idempotency_key", x->route->idempotency_ms == 0 ? "not looked at" :
        http_has(x->head, HF_IDEMPOTENCY_KEY) ? "remembered" : "none was sent");
    buf_addz(b, ", ");
    explain_member(b, "purge_on", route->conf->purge_on == PURGE_ON_ANY ? "any" : "success");
    buf_addz(b, ", \"purges\": [");
    if (!target.failed)
        purge_foretell(t, route, &facts, buf_slice(&target), each_purge, &l);
    put_later(b, route);
    b->failed |= target.failed;
    buf_free(&target);
}
