/*
 * PURGE: what a write changed leaves the cache before the writer has its answer.
 *
 * 2xx and 3xx purge the target, Location and Content-Location of the same origin (RFC 9111 4.4) and
 * what the route's templates name. An error purges nothing unless the route says so. A write whose
 * fate is unknown purges as a success would.
 */
#include "request/priv.h"

/* v: NULL when no answer came. */
void
purge_now(struct request *r, const struct fill_view *v)
{
    const struct route *route = r->match.route;
    const struct key_params params = { route->params, r->match.values, route->nparams };
    struct key_facts facts = { .request = r->head, .path = &params, .host = r->host,
        .query = r->query };
    struct store_purged done;
    struct buf b = { 0 };

    if (r->purged)
        return;
    r->purged = true;
    target_url(r, &b);
    if (b.failed) {                     /* it cannot be named: the safe side */
        (void)store_purge(req_store(), &(struct store_purge){ .kind = STORE_PURGE_ALL }, &done);
        buf_free(&b);
        return;
    }
    purge_target(req_store(), r->site->table, buf_slice(&b), v != NULL ? v->response : NULL);
    if (r->body_ended && !r->body_lost && r->body.p != NULL)
        facts.request_body = buf_slice(&r->body);
    if (v != NULL && route->npurge > 0) {
        facts.response = v->response;
        if ((route->needs & KEY_NEEDS_RESPONSE_BODY) && v->complete &&
            !sem_coded(v->response))
            facts.response_body = body_text(v->body, r->pool, KEY_BODY_MAX);
    }
    purge_templates(req_store(), r->site->table, route, &facts, buf_slice(&b));
    buf_free(&b);
}

enum req_state
do_purge(struct request *r)
{
    const struct route *route = r->match.route;
    struct fill_view v;
    bool any = route->conf->purge_on == PURGE_ON_ANY;

    fill_look(r->fill, &v);
    if (!any && !sem_invalidates(r->head->method, v.status)) {
        through_end(r);
        return r->conn != NULL ? REQ_DELIVER : REQ_ABORT;
    }
    if ((route->needs & KEY_NEEDS_RESPONSE_BODY) && route->npurge > 0 && !v.complete && !v.broken &&
        body_size(v.body) < KEY_BODY_MAX && !sem_coded(v.response)) {
        if (r->conn != NULL && conn_has_body(r->conn) && !fill_full(r->fill))
            conn_body(r->conn, true);   /* the origin may want it before it goes on */
        return REQ_WAIT;            /* the body's beginning, before the head of the answer leaves */
    }
    return through_purge(r, &v);
}
