/*
 * The hot path: a fresh hit, answered on the spot.
 *
 * Model    route, key, lookup and answer inside one read section, on memory of the thread: no lock,
 *          no allocation, one write. Everything that is not the plain case (another method, a body,
 *          conditions, ranges, a plugin that has to do with it, request directives that forbid it,
 *          stale, Via) returns false before anything was done, and the state machine looks again.
 *          What the socket does not take makes a request that delivers the rest.
 */
#include "request/priv.h"
#include "request/worker.h"

/* The id is for the log alone: an answer from store goes out without one, as it was stored. */
static void
tell_hit(struct conn *c, const struct http_head *h, const struct route *route, unsigned status,
    uint64_t us, uint64_t bytes)
{
    char made[REQ_ID_MADE + 1];
    const struct stats_step step = { "HIT", 0, (uint32_t)us };
    struct trace t = { 0 };
    struct stats_access a;

    if (req_tracer() != NULL)
        trace_begin(req_tracer(), http_value(h, HF_TRACEPARENT), &t);
    if (!t.sampled && atomic_load_explicit(&stats_access_on, memory_order_relaxed) ==
        ACCESS_TRACED)
        return;
    a = (struct stats_access){
        .wall_ms = wall_ms(), .client = conn_client(c), .method = h->method_name,
        .target = h->target, .host = h->host, .route = slice_of(route->name),
        .request_id = req_id(h, made),
        .user_agent = http_value(h, HF_USER_AGENT),
        .referer = http_find_name(h, SLICE("Referer")) != NULL ?
            http_find_name(h, SLICE("Referer"))->value : (struct slice){ NULL, 0 },
        .cache_status = SLICE("hit"), .protocol = req_protocol(h), .status = status,
        .outcome = OUTCOME_HIT, .us = us, .bytes_out = bytes, .steps = &step, .nsteps = 1,
    };

    stats_access(&a);
    if (t.sampled)
        trace_put(req_tracer(), &t, req_tracestate(h), &a);
}

/* The socket took `put` bytes of head, tail and body: a request delivers the rest. */
static bool
deliver_rest(struct conn *c, const struct http_head *h, struct slice bytes, struct site *site,
    struct object *o, const struct form *form, const struct route_match *m, size_t put,
    struct iovec *iov)
{
    struct request *r = req_new(c, h, bytes, site);
    size_t head_n = iov[0].iov_len + iov[1].iov_len;
    struct part *part;

    part = r != NULL ? pool_zalloc(r->pool, sizeof *part) : NULL;
    if (part == NULL) {
        COUNT(memory_failures);
        conn_abort(c);
        return true;
    }
    if (put < iov[0].iov_len) {
        iov[0].iov_base = (char *)iov[0].iov_base + put;
        iov[0].iov_len -= put;
        conn_write(c, iov, 2);
    } else if (put < head_n) {
        iov[1].iov_base = (char *)iov[1].iov_base + (put - iov[0].iov_len);
        iov[1].iov_len = head_n - put;
        conn_write(c, iov + 1, 1);
    }
    req_introduce(r);
    r->match = *m;
    r->object = object_ref(o);
    r->form = form;
    r->status = o->meta.status;
    r->outcome = OUTCOME_HIT;
    r->head_sent = true;
    r->close = !conn_may_keep(c);
    r->parts = part;
    r->nparts = 1;
    if (put > head_n) {
        part->at = put - head_n;
        r->bytes_out = part->at;
    }
    part->n = h->method == HTTP_HEAD ? 0 :
        body_size(form != NULL ? form->body : o->body) - part->at;
    r->state = REQ_DELIVER;
    req_post(r);
    return true;
}

/* Inside the read section: writes the answer. */
static bool
respond(struct conn *c, const struct http_head *h, struct slice bytes, struct site *site,
    struct object *o, const struct form *form, const struct route_match *m, int64_t now_ms)
{
    const struct stored_head *head = form == NULL ? o->head : form->head;
    const struct body *body = form == NULL ? o->body : form->body;
    struct iovec iov[2 + PIECES_MAX];
    struct body_cursor cursor = { 0 };
    int64_t age = sem_age_ms(&o->meta, now_ms);
    bool close = !conn_may_keep(c);
    uint64_t size = h->method == HTTP_HEAD ? 0 : body_size(body), us;
    char tail[512];
    size_t n = 2, total;
    ssize_t put;

    iov[0] = (struct iovec){ (char *)(uintptr_t)head->bytes, head->n };
    iov[1] = (struct iovec){ tail, status_hit(tail, sizeof tail, site->via, age,
        o->meta.lifetime_ms - age, close) };
    if (size > 0)
        n += body_pieces(body, &cursor, size, iov + 2, PIECES_MAX);
    total = iov[0].iov_len + iov[1].iov_len + size;
    put = conn_write_some(c, iov, n);
    COUNT(cache_hits);
    if (put == -1)
        return true;                    /* the loop will hear that the client is gone */
    if ((size_t)put < total)
        return deliver_rest(c, h, bytes, site, o, form, m, (size_t)put, iov);
    us = (uint64_t)(now_us() - conn_since_us(c));
    stats_request(m->route->stats, OUTCOME_HIT, us, size);
    if (UNLIKELY(atomic_load_explicit(&stats_access_on, memory_order_relaxed)))
        tell_hit(c, h, m->route, o->meta.status, us, size);
    conn_done(c, !close);
    return true;
}

static bool
plain(const struct conn *c, const struct http_head *h)
{
    return (h->method == HTTP_GET || h->method == HTTP_HEAD) && !conn_has_body(c) &&
        (h->flags & (HTTP_UPGRADING | HTTP_EXPECT | HTTP_HTTPS)) == 0 && h->host.n > 0 &&
        !http_has(h, HF_VIA) && !http_has(h, HF_CDN_LOOP) && !http_has(h, HF_RANGE);
}

/* Is what is stored perhaps not what a writer is to see? */
static bool
maybe_pending(const struct request_worker *w, const struct target *t)
{
    struct writes *all = rcu_load(&w->shared->writes);

    return all != NULL && write_maybe_pending(all, write_path_hash(t->host, t->path));
}

bool
hit_try(struct conn *c, const struct http_head *h, struct slice bytes)
{
    struct request_worker *w = req_worker();
    struct route_match m;
    struct sem_request rq;
    struct object *o = NULL;
    struct target t;
    struct site *site;
    struct key key;
    const char *why;
    int64_t now;
    bool soft = false, done = false, https = target_https(c, h);

    if (!plain(c, h) || target_read(h, https, &w->target, &t) == -1)
        return false;
    sem_request_read(h, &rq);
    if (rq.conditional || rq.precondition || (rq.cc.flags & CC_NO_STORE))
        return false;
    rcu_begin();
    site = rcu_load(&w->shared->site);
    now = wall_ms();
    if (route_match(site->table, t.route_host, t.path, h, &m) != NULL &&
        (LIKELY(m.route->on_the_spot == SPOT_YES) ||
            (m.route->on_the_spot == SPOT_UNLESS_PENDING && !maybe_pending(w, &t))) &&
        key_make(m.route->recipe, h, https, t.host, t.path, t.query, &w->key, &key) == 0 &&
        target_key(c, h, m.route, https, t.host, &w->key, &key) == 0 &&
        store_get(w->shared->store, &key, h, now, &o, &soft) == STORE_HIT && !soft &&
        sem_use(&rq, &o->meta, now, false, &why) == SEM_FRESH)
        done = respond(c, h, bytes, site, o, LIKELY(rcu_load(&o->forms) == NULL) ? NULL :
            form_choose(o, m.route, h, &rq), &m, now);
    rcu_end();
    return done;
}
