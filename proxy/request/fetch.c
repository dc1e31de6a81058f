/*
 * FETCH: waits for a flight, its own or another's.
 */
#include "request/priv.h"

/* What RFC 5861 4 calls an error. */
static bool
is_error(unsigned status)
{
    return status == 500 || status == 502 || status == 503 || status == 504;
}

/* The stored response, stale, instead of an error of the origin's, where that is allowed. */
static bool
stale_instead(struct request *r)
{
    if (r->stale == NULL || r->doubted || !sem_stale_on_error(&r->rq, &r->stale->meta, wall_ms()))
        return false;
    fill_close(&r->fill);
    r->object = r->stale;
    r->stale = NULL;
    r->status = r->object->meta.status;
    r->outcome = OUTCOME_STALE;
    r->why = "stale-if-error";
    COUNT(cache_stale);
    return true;
}

static int
take_off(struct request *r)
{
    struct fill_want w;

    request_want(r, r->alone ? FILL_ALONE : FILL_SHARED, &w);
    if (r->head->method == HTTP_HEAD) {
        if (r->get == NULL && (r->get = pool_alloc(r->pool, sizeof *r->get)) == NULL)
            return -1;
        *r->get = *r->head;
        r->get->method = w.semantics.method = HTTP_GET;
        r->get->method_name = SLICE("GET");
        w.request = r->get;
    }
    w.join_only = r->waits;
    w.lease = &r->lease;
    w.stale = r->stale;
    w.part = r->rest;
    w.semantics.range = r->ranged;      /* else the whole is asked for */
    if (r->ranged || r->rest != NULL)
        w.together = NULL;              /* parts are kept for their own URL */
    if (r->ranged) {
        w.range = http_value(r->head, HF_RANGE);
        w.if_range = http_value(r->head, HF_IF_RANGE);
    }
    r->interim_sent = 0;                /* of another's, if there was one before */
    r->fill = fill_open(req_fills(), conn_loop(r->conn), &w, req_post, r, &r->collapsed);
    if (r->fill != NULL && r->collapsed) {
        struct fill_span s = fill_span(r->fill);

        r->trace.link.hi = s.hi;
        r->trace.link.lo = s.lo;
        r->trace.link.span = s.span;
    }
    return r->fill != NULL ? 0 : -1;
}

/* A response is coming. */
static enum req_state
arrived(struct request *r, const struct fill_view *v)
{
    r->status = v->status;
    r->fwd_status = v->origin_status;
    if (is_error(v->status) && stale_instead(r))
        return REQ_DELIVER;
    r->outcome = r->collapsed ? OUTCOME_COLLAPSED : OUTCOME_MISS;
    if (v->meta == NULL)
        r->why = v->why;
    if (r->head->method == HTTP_QUERY && !r->collapsed)
        also_query(r, v);
    return REQ_DELIVER;
}

/* What the origin says with a 304 to this client alone; a stored head does not have it. */
static void
take_own(struct request *r, const struct http_head *r304)
{
    struct buf b = { 0 };
    struct sem_cc cc;

    sem_cc_response(r304, &r->match.route->rules, &cc);
    for (unsigned i = 0; i < r304->nfields; i++) {
        const struct http_field *f = &r304->fields[i];

        if (sem_of_one_exchange(f) && http_forwards(r304, f) && !sem_keeps(r304, &cc, f) &&
            !route_edit_takes(&r->match.route->response, f->name))
            http_put(&b, f->name, f->value);
    }
    r->own = pool_slice(r->pool, buf_slice(&b));
    buf_free(&b);
}

/* A part that is fresh again answers only who wants no more of it. */
static bool
part_fits(const struct request *r, const struct object *o)
{
    struct http_range ranges[RANGES_MAX];
    enum range_fit fit;
    size_t n;

    if (!(o->meta.flags & META_PARTIAL))
        return true;
    fit = range_fit(r, o, wall_ms(), ranges, &n);
    return fit == RANGE_WITHIN || fit == RANGE_UNSATISFIABLE;
}

static enum req_state
freshened(struct request *r, const struct fill_view *v)
{
    if (!part_fits(r, v->object)) {
        r->collapsed = false;
        fill_close(&r->fill);
        return REQ_LOOKUP;
    }
    rcu_begin();
    r->object = object_ref((struct object *)(uintptr_t)v->object);
    rcu_end();
    if (!r->collapsed)
        take_own(r, v->response);
    fill_close(&r->fill);
    r->status = r->object->meta.status;
    r->fwd_status = 304;
    r->outcome = OUTCOME_REVALIDATED;
    return REQ_DELIVER;
}

static enum req_state
look_again(struct request *r, const struct fill_view *v)
{
    r->fwd_status = v->status;
    if (v->state == FILL_AGAIN_ALONE) {
        if (is_error(v->status) && stale_instead(r))
            return REQ_DELIVER;
        r->alone = true;
    }
    r->apart = r->apart || v->state == FILL_AGAIN_APART;
    if (v->response == NULL)
        r->fwd = FWD_NONE;              /* one landed just before: nothing was asked for us */
    r->fwd_status = 0;
    r->collapsed = false;
    fill_close(&r->fill);
    return REQ_LOOKUP;
}

/* The whole is on its way to the store: a part of it is answered from there. What does not get
 * there is asked for again, as it stands and by this request alone. */
static enum req_state
wait_for_whole(struct request *r, const struct fill_view *v)
{
    bool collapsed = r->collapsed;
    enum req_state next;

    if (v->meta != NULL && !v->complete && !v->broken)
        return REQ_WAIT;
    r->alone = !v->stored;
    next = look_again(r, v);
    r->collapsed = collapsed;
    return next;
}

static enum req_state
failed(struct request *r, const struct exchange_fault *f)
{
    struct exchange_fault fault = *f;

    if (stale_instead(r))
        return REQ_DELIVER;
    return req_fault(r, &fault);
}

enum req_state
do_fetch(struct request *r)
{
    struct fill_view v;

    if (r->fill == NULL && take_off(r) == -1 && r->waits) {
        if (!lookup_ranged(r)) {
            r->why = "range";
            r->outcome = OUTCOME_PASS;
            return REQ_FORWARD;
        }
        take_off(r);
    }
    if (r->fill == NULL)
        return req_problem_retry(r, 503, "out of memory", 1);
    fill_look(r->fill, &v);
    forward_interim(r, &v);
    switch (v.state) {
    case FILL_WAITING:
        return REQ_WAIT;
    case FILL_HEAD:
        if (r->waits)
            return wait_for_whole(r, &v);
        return arrived(r, &v);
    case FILL_OBJECT:
        return freshened(r, &v);
    case FILL_AGAIN:
    case FILL_AGAIN_APART:
    case FILL_AGAIN_ALONE:
        return look_again(r, &v);
    case FILL_FAULT:
        return failed(r, v.fault);
    }
    return REQ_WAIT;
}
