/*
 * Responses to QUERY that are answers to GETs too: whose word for it counts.
 *
 * A QUERY  names by Content-Location where its result is found by GET (RFC 10008 2.3). A claim
 *          about another resource can be trusted only where both have one owner (RFC 9110 8.7),
 *          which HTTP does not tell: here it is where both are of one origin and one route, by the
 *          operator's word. A QUERY changes nothing, so its result is as of when it was sent, as
 *          that of a GET. A route with tags stores none: they would be made of the wrong path.
 *          Location names a resource that repeats the query (2.4), of which nothing is known yet.
 */
#include "request/priv.h"
#include "request/worker.h"

/* Would a GET of this path go the same way? */
static bool
same_route(const struct request *r, struct slice path, struct route_match *m)
{
    struct http_head get = *r->head;

    get.method = HTTP_GET;
    get.method_name = SLICE("GET");
    return route_match(r->site->table, r->route_host, path, &get, m) == r->match.route;
}

/* Splits what http_uri_normalise wrote. */
static void
split(const struct buf *target, struct slice *path, struct slice *query)
{
    const char *mark = memchr(target->p, '?', target->n);

    *path = (struct slice){ target->p, mark != NULL ? (size_t)(mark - target->p) : target->n };
    *query = (struct slice){ NULL, 0 };
    if (mark != NULL)
        *query = (struct slice){ mark + 1, target->n - path->n - 1 };
}

static bool
make_key(const struct request *r, struct slice url, struct buf *b, struct key *k)
{
    struct buf target = { 0 };
    struct slice path, query;
    struct route_match m;
    struct http_uri u;
    bool ok = false;

    if (http_uri_parse(url, &u) == 0) {
        http_uri_normalise(&target, u.path, u.query);
        if (!target.failed && target.n > 0) {
            split(&target, &path, &query);
            ok = same_route(r, path, &m) &&
                key_make(r->match.route->recipe, r->head, r->https, r->host, path, query, b,
                    k) == 0 &&
                target_key(r->conn, r->head, r->match.route, r->https, r->host, b, k) == 0;
        }
    }
    buf_free(&target);
    return ok;
}

void
also_query(struct request *r, const struct fill_view *v)
{
    static const struct fill_gate always;
    struct buf target = { 0 }, at = { 0 };
    struct key key;

    if (v->meta == NULL || v->status != 200 || r->match.route->ntags > 0 ||
        plugin_has(r->match.route->conf->plugins, PLUGIN_ON_KEYS) ||
        !http_has(v->response, HF_CONTENT_LOCATION))
        return;
    target_url(r, &target);
    if (!target.failed && r->host.n > 0 &&
        http_content_location(v->response, buf_slice(&target), &at) == 0 &&
        sem_same_origin(buf_slice(&target), buf_slice(&at)) &&
        make_key(r, buf_slice(&at), &req_worker()->key, &key))
        fill_store_as(r->fill, &key, fill_stamp(r->fill), &always);
    buf_free(&target);
    buf_free(&at);
}
