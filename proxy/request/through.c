/*
 * FILL: the cache holds what a write made before the writer has its answer.
 *
 * Model    a write takes its ticket before it is sent (write/race.c), is purged when the head of
 *          its answer came, and then, on a route with `policy: write-through`, the answer's head
 *          waits: for the rest of the answer, where its content is what is stored; for a GET of the
 *          target, sent as this client would have sent it, where it is not. That is a fetch like
 *          others: who asks meanwhile joins it, and its time-outs are the origin's. Whatever comes
 *          of it the client gets the origin's answer as it is; a fill that fails leaves the target
 *          purged, and Cache-Status says so.
 *          Elsewhere nobody waits: what a POST's answer leaves is stored when it is whole.
 *          A target that was not storable lately (hit-for-miss) is not fetched for nobody's sake.
 * Not here what is stored, and when it may be (write/through.c, write/race.c).
 */
#include "request/priv.h"

static bool
through(const struct request *r)
{
    return write_through(r->match.route->conf);
}

/* ---- before and while it is sent ------------------------------------------------------------ */

/* The GET of its target that this client would have sent, with the route and key of that. NULL: it
 * would not be stored. */
static struct request *
as_get(const struct request *r)
{
    struct request *g = pool_alloc(r->pool, sizeof *g);
    const char *why;

    if (g == NULL)
        return NULL;
    *g = *r;
    g->state = REQ_FETCH;
    g->unsafe = false;
    g->head = write_get(r->pool, r->head);
    if (g->head == NULL)
        return NULL;
    sem_request_read(g->head, &g->rq);
    g->rq.cc.flags &= ~(uint32_t)CC_ONLY_IF_CACHED;
    if (!sem_request_cacheable(&g->rq, &why) ||
        route_match(r->site->table, r->route_host, r->path, g->head, &g->match) == NULL ||
        g->match.route->conf->policy == POLICY_PASS ||
        plugin_has(g->match.route->conf->plugins, PLUGIN_ON_KEYS) || route_rewrite(g) == -1 ||
        route_key(g) == -1)
        return NULL;                    /* or what plugins would add to its key is not known */
    g->found = g->key;
    return g;
}

static bool
same_route(const struct request *r)
{
    return r->as_get->match.route == r->match.route;
}

void
through_want(struct request *r, struct fill_want *w)
{
    const struct conf_route *c = r->match.route->conf;
    unsigned also = write_also(c, r->head);

    r->sent_lost = true;
    if (c->policy != POLICY_PASS && (also != 0 || through(r)) && r->head->method != HTTP_DELETE)
        r->as_get = as_get(r);          /* a copy: before there is a ticket, which others link */
    if (r->as_get != NULL && same_route(r)) {
        w->also = also;
        r->sent_lost = !write_keeps_content(c, r->head);
    }
    r->stamp = store_stamp(req_store());
    race_begin(&r->race, write_path_hash(c->key_host ? r->host : SLICE(""), r->path));
}

static void
forget_sent(struct request *r)
{
    r->sent_lost = true;
    if (r->sent != NULL)
        body_unref(&r->sent);
    store_hold(req_store(), &r->sent_held, 0);
}

void
through_sent(struct request *r, struct slice data)
{
    uint64_t max = (uint64_t)r->match.route->max_object;
    uint64_t length = r->head->framing == HTTP_LENGTH ? r->head->length : 0;

    if (r->sent_lost)
        return;
    if (r->sent == NULL && length <= max)
        r->sent = body_new(length);
    if (r->sent == NULL || body_size(r->sent) + data.n > max ||
        body_append(r->sent, data) == -1 ||
        !store_hold(req_store(), &r->sent_held, body_held(r->sent)))
        forget_sent(r);
}

/* ---- the answer ----------------------------------------------------------------------------- */

/* Is the target marked as not storable? */
static bool
is_marked(const struct request *get)
{
    struct object *o = NULL;
    enum store_answer got;
    bool soft;

    rcu_begin();
    got = store_get(req_store(), &get->key, get->head, wall_ms(), &o, &soft);
    rcu_end();
    return got == STORE_PASS;
}

static enum write_source
source(const struct request *r, const struct fill_view *v)
{
    struct write_effect a = { .route = r->match.route->conf, .request = r->head,
        .response = v->response, .content = r->body_ended && !r->sent_lost };
    enum write_source from;
    struct buf target = { 0 };

    if (r->as_get == NULL || r->host.n == 0)
        return WRITE_SOURCE_NONE;
    target_url(r, &target);
    a.target = buf_slice(&target);
    from = target.failed ? WRITE_SOURCE_NONE : write_source(&a);
    buf_free(&target);
    if (from != WRITE_SOURCE_NONE && !same_route(r))
        from = through(r) ? WRITE_SOURCE_FETCH : WRITE_SOURCE_NONE;
    return from == WRITE_SOURCE_FETCH && is_marked(r->as_get) ? WRITE_SOURCE_NONE : from;
}

static enum req_state
done(struct request *r, const char *what)
{
    r->why = what;
    through_end(r);
    return REQ_DELIVER;
}

static enum req_state
filled(struct request *r, const char *what)
{
    COUNT(write_fills);
    return done(r, what);
}

static enum req_state
not_filled(struct request *r)
{
    if (race_overlapped(&r->race)) {
        COUNT(write_fills_raced);
        return done(r, "raced");
    }
    COUNT(write_fills_failed);
    return done(r, "not-filled");
}

static struct fill_gate
gate(struct request *r)
{
    return (struct fill_gate){ race_hold, race_release, &r->race };
}

/* An answer of another route's, or of one that was disturbed, is had by asking again. */
static enum req_state
store_answer(struct request *r, const struct write_purge *p)
{
    struct fill_gate g = gate(r);

    fill_store_as(r->fill, &r->as_get->key, p->stamp, &g);
    return through(r) ? REQ_FILL : REQ_DELIVER;     /* whose ticket stays until it is delivered */
}

static enum req_state
store_content(struct request *r, const struct write_purge *p)
{
    struct fill_gate g = gate(r);

    if (r->sent == NULL)
        r->sent = body_new(0);
    if (r->sent != NULL) {
        body_seal(r->sent);
        if (fill_store_sent(r->fill, &r->as_get->key, p->stamp, &g, r->head, r->sent,
            &r->sent_held) == FILL_AS_STORED)
            return filled(r, "filled");
    }
    r->source = WRITE_SOURCE_FETCH;
    return REQ_FILL;
}

enum req_state
through_purge(struct request *r, const struct fill_view *v)
{
    const struct request *key_of = r->as_get != NULL ? r->as_get : r;
    struct write_purge p;

    r->source = source(r, v);
    write_purge_begin(req_store(), &key_of->key, key_of->match.route->id, r->stamp, &p);
    purge_now(r, v);
    if (!write_purge_end(req_store(), &p) && r->source != WRITE_SOURCE_NONE)
        r->source = through(r) ? WRITE_SOURCE_FETCH : WRITE_SOURCE_NONE;
    race_answered(&r->race);
    if (r->conn == NULL || r->source == WRITE_SOURCE_NONE) {
        through_end(r);
        return r->conn != NULL ? REQ_DELIVER : REQ_ABORT;
    }
    if (through(r) && race_overlapped(&r->race))
        return not_filled(r);
    switch (r->source) {
    case WRITE_SOURCE_ANSWER:
        return store_answer(r, &p);
    case WRITE_SOURCE_CONTENT:
        return store_content(r, &p);
    default:
        return REQ_FILL;
    }
}

/* ---- FILL ----------------------------------------------------------------------------------- */

#define FETCHES_MAX 3                   /* others' that turned out to be of other variants */

static bool
take_off(struct request *r)
{
    struct request *g = r->as_get;
    struct fill_want w;
    bool collapsed;

    if (r->refetches++ == FETCHES_MAX || race_overlapped(&r->race))
        return false;
    g->conn = r->conn;
    request_want(g, FILL_SHARED, &w);
    w.gate = gate(r);
    r->refetch = fill_open(req_fills(), conn_loop(r->conn), &w, req_post, r, &collapsed);
    return r->refetch != NULL;
}

static enum req_state
fetched(struct request *r, bool stored)
{
    fill_close(&r->refetch);
    return stored ? filled(r, "refetched") : not_filled(r);
}

static enum req_state
refetch(struct request *r)
{
    struct fill_view v;

    for (;;) {
        if (r->refetch == NULL && !take_off(r))
            return not_filled(r);
        fill_look(r->refetch, &v);
        switch (v.state) {
        case FILL_WAITING:
            return REQ_WAIT;
        case FILL_HEAD:
            if (v.meta != NULL && !v.complete && !v.broken)
                return REQ_WAIT;
            return fetched(r, v.stored);
        case FILL_AGAIN:
            if (v.response == NULL)
                return fetched(r, true);        /* another's has just landed */
            fill_close(&r->refetch);
            break;
        default:
            return fetched(r, false);
        }
    }
}

enum req_state
do_fill(struct request *r)
{
    struct fill_view v;

    fill_look(r->fill, &v);
    if (conn_has_body(r->conn) && !fill_full(r->fill))
        conn_body(r->conn, true);       /* the origin may want it before it goes on */
    if (r->source == WRITE_SOURCE_ANSWER)
        switch (fill_stored_as(r->fill)) {
        case FILL_AS_WAITS:
            return REQ_WAIT;
        case FILL_AS_STORED:
            r->answer_stored = true;
            return filled(r, "filled");
        case FILL_AS_NOT:
            if (v.broken || body_size(v.body) > (uint64_t)r->match.route->max_object)
                return not_filled(r);
            r->source = WRITE_SOURCE_FETCH;
        }
    return refetch(r);
}

void
through_end(struct request *r)
{
    fill_close(&r->refetch);
    race_end(&r->race);
    forget_sent(r);
}
