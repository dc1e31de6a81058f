/*
 * Responses that are answers to GETs too: whose word for it counts, and as of when.
 *
 * A write  whose 2xx says by Content-Location that what it encloses is its own target now (RFC 9110
 *          8.7) is stored for GETs of that, if it states its freshness (9.3.3). Of the methods only
 *          POST: "responses to the PUT method are not cacheable" (9.3.4) but by a policy that says
 *          more than HTTP does.
 *          Order: the write purges its target, and what is stored must be as of a purge sequence
 *          that this purge does not outdate, but every other one does that came after the write was
 *          sent. For another write may have been done after this one at the origin, and answered
 *          before it: its purge lies between. So with s0 taken before the write was sent:
 *            1. c0 is read. A purge with a number up to c0 is visible now.
 *            2. If any since s0 could match, the answer is not stored.
 *            3. The write purges: its k purges take numbers.
 *            4. c1 is read. If c1 is c0 + k, no other purge has a number in between: stored as of
 *               c1. A later purge has a higher number and outdates it like any other object.
 *               Else somebody's purge came between 1 and 4, and may match: not stored.
 *          What is fetched meanwhile is judged by its own stamp, taken before it was sent: older
 *          than c1, it is outdated by this write's purge; not older, it was asked for after this
 *          write was done, and being the newer it is not replaced (store_put: OLDER).
 * A QUERY  names by Content-Location where its result is found by GET (RFC 10008 2.3). A claim
 *          about another resource can be trusted only where both have one owner (RFC 9110 8.7),
 *          which HTTP does not tell: here it is where both are of one origin and one route, by the
 *          operator's word. A QUERY changes nothing, so its result is as of when it was sent, as
 *          that of a GET. A route with tags stores none: they would be made of the wrong path.
 *          Location names a resource that repeats the query (2.4), of which nothing is known yet.
 */
#include "request/priv.h"
#include "request/worker.h"

/* The one Content-Location, absolute, in b. false: none, several, or none that can be read. */
static bool
located(const struct request *r, const struct http_head *response, struct slice target,
    struct buf *b)
{
    struct slice at = http_value(response, HF_CONTENT_LOCATION);
    struct http_uri base;
    unsigned n = 0;

    for (unsigned i = 0; i < response->nfields; i++)
        n += response->fields[i].id == HF_CONTENT_LOCATION;
    return n == 1 && at.n > 0 && r->host.n > 0 && http_uri_parse(target, &base) == 0 &&
        http_uri_resolve(b, &base, at) == 0 && !b->failed;
}

/* Would a GET of this path go the same way? */
static bool
same_route(const struct request *r, struct slice path, struct route_match *m)
{
    struct http_head get = *r->head;

    get.method = HTTP_GET;
    get.method_name = SLICE("GET");
    return route_match(r->site->table, r->route_host, path, &get, m) == r->match.route;
}

/* ---- writes -------------------------------------------------------------------------------- */

bool
also_write_may(const struct request *r)
{
    struct route_match m;

    return r->head->method == HTTP_POST && r->unsafe &&
        r->match.route->conf->policy != POLICY_PASS &&
        (r->rq.cc.flags & CC_NO_STORE) == 0 && same_route(r, r->path, &m);
}

/* Is it its own target that the answer encloses? */
static bool
encloses_target(const struct request *r, const struct http_head *response)
{
    struct buf target = { 0 }, at = { 0 }, x = { 0 }, y = { 0 };
    struct key a, b;
    bool same;

    target_url(r, &target);
    same = !target.failed && located(r, response, buf_slice(&target), &at) &&
        key_of_url(NULL, buf_slice(&target), &x, &a) == 0 &&
        key_of_url(NULL, buf_slice(&at), &y, &b) == 0 && slice_eq(a.bytes, b.bytes);
    buf_free(&target);
    buf_free(&at);
    buf_free(&x);
    buf_free(&y);
    return same;
}

void
also_write_purge(struct request *r, const struct fill_view *v)
{
    struct store *s = req_store();
    uint64_t c0 = store_stamp(s), made = store_purges_made(), c1;
    bool keep = v->response != NULL && encloses_target(r, v->response) &&
        !store_stamp_outdated(s, r->stamp, &r->key, r->match.route->id);

    purge_now(r, v);
    c1 = store_stamp(s);
    if (keep && c1 - c0 == store_purges_made() - made)
        fill_store_as(r->fill, &r->key, c1);
}

/* ---- queries ------------------------------------------------------------------------------- */

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
    struct buf target = { 0 }, at = { 0 };
    struct key key;

    if (v->meta == NULL || v->status != 200 || r->match.route->ntags > 0 ||
        !http_has(v->response, HF_CONTENT_LOCATION))
        return;
    target_url(r, &target);
    if (!target.failed && located(r, v->response, buf_slice(&target), &at) &&
        sem_same_origin(buf_slice(&target), buf_slice(&at)) &&
        make_key(r, buf_slice(&at), &req_worker()->key, &key))
        fill_store_as(r->fill, &key, fill_stamp(r->fill));
    buf_free(&target);
    buf_free(&at);
}
