/*
 * The request's life: from a head to the figures.
 *
 * Model    One setter moves between states and checks the table. A handler returns the next state,
 *          or REQ_WAIT. Whatever it waits for (a flight, the socket) posts req_run to the request's
 *          own loop, never calls it directly, so there is no recursion. A client that goes away
 *          enters ABORT from anywhere.
 */
#include "request/priv.h"

#include <stdlib.h>

#include "request/worker.h"
#include "request/writing.h"

#define LINE_KEPT 4096                  /* of a request that is refused before its head was whole */

static const struct {
    const char *name;
    enum req_state (*run)(struct request *);
    unsigned next;
} table[] = {
#define X(name, run, next) [REQ_##name] = { #name, run, next },
    REQ_STATES(X)
#undef X
};

static struct request_shared shared;
static _Thread_local struct request_worker *me;

struct request_worker *
req_worker(void)
{
    return me;
}

struct store *
req_store(void)
{
    return shared.store;
}

struct fills *
req_fills(void)
{
    return shared.fills;
}

struct tiers *
req_tiers(void)
{
    return shared.tiers;
}

struct writes *
req_writes(void)
{
    return rcu_load(&shared.writes);
}

struct tracer *
req_tracer(void)
{
    return shared.tracer;
}

/* ---- states ---------------------------------------------------------------------------------- */

/* Notes how long a state took. Of a request that has been in very many, those beyond the trail's
 * length count where it was in the same one before, or last. */
static void
step(struct request *r, const char *name, int64_t now)
{
    int64_t took = now - r->since_us;
    uint32_t us = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    struct stats_step *s = &r->trail[TRAIL_MAX - 1];

    if (r->ntrail < TRAIL_MAX) {
        r->trail[r->ntrail++] = (struct stats_step){ name,
            (uint32_t)(r->since_us - r->started_us), us };
        return;
    }
    while (s > r->trail && s->name != name)
        s--;
    (s->name == name ? s : &r->trail[TRAIL_MAX - 1])->us += us;
}

void
req_bind(struct request *r)
{
    if (r->bound)
        return;
    r->bound = true;
    atomic_fetch_add(&shared.bound, 1);
}

/* With what is behind it, is it done with the journal, and with what it changes? */
static bool
is_free(const struct request *r, enum req_state to)
{
    switch (to) {
    case REQ_LOOKUP:
    case REQ_FORWARD:
        return http_method_safe(r->head->method);
    case REQ_DELIVER:
        return r->writing == NULL || r->writing->claim[0] == '\0';
    default:
        return to == REQ_DONE;
    }
}

static void                             /* the only writer of r->state */
enter(struct request *r, enum req_state to)
{
    int64_t now = now_us();

    assert(to == REQ_ABORT || (table[r->state].next & BIT(to)) != 0);
    if (r->tunnel && r->state == REQ_DELIVER) {
        r->tunnel_us = (uint64_t)(now - r->since_us);
        step(r, "TUNNEL", now);
    } else {
        stats_state(r->state, (uint64_t)(now - r->since_us));
        step(r, table[r->state].name, now);
    }
    if (r->bound && is_free(r, to)) {
        r->bound = false;
        atomic_fetch_sub(&shared.bound, 1);
    }
    log_debug("%s -> %s", table[r->state].name, table[to].name);
    r->state = (uint8_t)to;
    r->since_us = now;
}

void
req_run(struct request *r)
{
    enum req_state to = REQ_WAIT;

    CHECK(r, REQUEST_MAGIC);
    if (r->running) {
        r->again = true;                /* a handler's own doing; the loop below looks once more */
        return;
    }
    r->running = true;
    do {
        r->again = false;
        while (r->state != REQ_DONE && (to = table[r->state].run(r)) != REQ_WAIT)
            enter(r, to);
    } while (r->again && r->state != REQ_DONE);
    r->running = false;
    if (r->state == REQ_DONE)
        do_done(r);
}

static void
run_posted(struct loop_msg *m)
{
    struct request *r = CONTAINER(m, struct request, msg);

    r->posted = false;
    req_run(r);
}

void
req_post(void *request)
{
    struct request *r = request;

    CHECK(r, REQUEST_MAGIC);
    if (r->posted)
        return;
    r->posted = true;
    r->msg.run = run_posted;
    loop_post(me->loop, &r->msg);
}

/* The one clean-up path of a client that left. What it asked for may have been done: see
 * forward.c. */
enum req_state
do_abort(struct request *r)
{
    if (!r->tunnel)                     /* however that ends: it was made, and it ends */
        r->outcome = OUTCOME_ERROR;
    if (!claim_settled(r))
        return REQ_WAIT;
    hooks_end(r);
    writing_end(r);
    tier_cancel(&r->ask);
    tier_release(&r->lease);
    fill_close(&r->fill);
    through_end(r);
    forward_left(r);
    return REQ_DONE;
}

enum req_state
do_done(struct request *r)
{
    if (!r->posted)                     /* else: when the message under way arrives */
        req_finish(r);
    return REQ_WAIT;
}

/* ---- the beginning --------------------------------------------------------------------------- */

struct request *
req_new(struct conn *c, const struct http_head *h, struct slice bytes, struct site *site)
{
    struct pool *p = pool_new();
    struct request *r = p != NULL ? pool_zalloc(p, sizeof *r) : NULL;

    if (r == NULL)
        goto fail;
    r->magic = REQUEST_MAGIC;
    r->pool = p;
    r->conn = c;
    r->started_us = r->since_us = conn_since_us(c);
    r->https = h != NULL ? target_https(c, h) : conn_https(c);
    if (h != NULL) {
        r->head = http_head_copy(p, h, bytes);
        if (r->head == NULL)
            goto fail;
        r->bytes = (struct slice){ r->head->method_name.p, bytes.n };
    }
    r->site = site_ref(site);
    *conn_user(c) = r;
    return r;

fail:
    COUNT(memory_failures);
    pool_free(&p);
    return NULL;
}

static void
on_head(struct conn *c, const struct http_head *h, struct slice bytes)
{
    struct request *r;
    struct site *site;

    if (hit_try(c, h, bytes))
        return;
    site = request_site();
    r = req_new(c, h, bytes, site);
    site_unref(&site);
    if (r == NULL)
        conn_abort(c);
    else
        req_run(r);
}

/* No head came of it. What was read is kept for the access log, as far as it says something. */
static struct request *
req_new_refused(struct conn *c)
{
    struct site *site = request_site();
    struct request *r = req_new(c, NULL, (struct slice){ NULL, 0 }, site);
    struct slice bytes = conn_refused(c);

    site_unref(&site);
    if (r == NULL)
        return NULL;
    req_introduce(r);
    if (bytes.n > LINE_KEPT)
        bytes.n = LINE_KEPT;
    if (bytes.n > 0)
        r->line = pool_slice(r->pool, bytes);
    return r;
}

static void
on_refused(struct conn *c, const struct http_fault *f, bool busy)
{
    struct request *r = *conn_user(c);

    if (busy && r != NULL && (r->head_sent || r->state >= REQ_DELIVER)) {
        conn_abort(c);                  /* an answer is on its way: cut, and seen to be cut */
        r->conn = NULL;
        enter(r, REQ_ABORT);
        req_post(r);
        return;
    }
    if (busy && r != NULL) {
        (void)forward_given_up(r);
        hooks_end(r);
        writing_end(r);
        tier_cancel(&r->ask);
        tier_release(&r->lease);
        fill_close(&r->fill);
        through_end(r);
    } else if ((r = req_new_refused(c)) == NULL) {
        conn_abort(c);
        return;
    }
    r->close = true;
    enter(r, req_problem(r, f->status, f->why));
    req_post(r);
}

static void
on_body(struct conn *c, struct slice data)
{
    struct request *r = *conn_user(c);

    if (r != NULL)
        forward_body(r, data);
}

static void
on_body_end(struct conn *c, struct slice trailer)
{
    struct request *r = *conn_user(c);

    if (r != NULL)
        forward_body_end(r, trailer);
}

static void
on_writable(struct conn *c)
{
    struct request *r = *conn_user(c);

    if (r != NULL)
        req_run(r);
}

static void
on_gone(struct conn *c)
{
    struct request *r = *conn_user(c);

    r->conn = NULL;
    if (r->state == REQ_ABORT || r->state == REQ_DONE)
        return;
    if (forward_given_up(r))
        return;
    enter(r, REQ_ABORT);
    req_post(r);
}

const struct conn_events request_events = {
    .on_head = on_head, .on_refused = on_refused, .on_body = on_body, .on_body_end = on_body_end,
    .on_writable = on_writable, .on_gone = on_gone,
};

/* ---- the end --------------------------------------------------------------------------------- */

static const char *
route_name(const struct request *r)
{
    return r->match.route != NULL ? r->match.route->name : "(none)";
}

static void
put_time(struct buf *b, const char *name, int64_t us)
{
    if (us >= 0)
        buf_printf(b, "%s%s=%lld.%03llds", b->n > 0 ? " " : "", name, (long long)us / 1000000,
            (long long)us / 1000 % 1000);
}

static void
put_times(struct buf *b, const struct exchange_times *t)
{
    put_time(b, "pool", t->wait_us);
    put_time(b, "connected", t->connect_us);
    put_time(b, "first-byte", t->first_byte_us);
    if (t->tries > 1)
        buf_printf(b, " tries=%u", t->tries);
}

/* Where its time went; the server that was asked, or "". */
static const char *
put_steps(const struct request *r, struct buf *b)
{
    struct exchange_times t = { 0 };
    const char *server = r->fill != NULL ? fill_server(r->fill, &t) : "";

    for (unsigned i = 0; i < r->ntrail; i++)
        if (r->trail[i].us >= 1000)
            buf_printf(b, "%s%s=%u.%03us", b->n > 0 ? " " : "", r->trail[i].name,
                r->trail[i].us / 1000000, r->trail[i].us / 1000 % 1000);
    if (*server != '\0')
        put_times(b, &t);
    return server;
}

static void
log_slow(const struct request *r, uint64_t us, const char *server, struct slice steps)
{
    static struct log_limit limit;

    COUNT(requests_slow);
    log_limited(&limit, LOG_WARN, "slow: %.*s %.*s%.*s took %llu ms (route %s%s%s): %.*s",
        SLICE_ARG(r->head->method_name), SLICE_ARG(r->head->host), SLICE_ARG(r->head->target),
        (unsigned long long)us / 1000, route_name(r), *server != '\0' ? ", origin " : "",
        server, SLICE_ARG(steps));
}

struct slice
req_protocol(const struct http_head *h)
{
    return h->minor > 0 ? SLICE("HTTP/1.1") : SLICE("HTTP/1.0");
}

/* Method, target and version of a refused request, each if it is there: the first words of its
 * first line. What does not begin with a method is no request. */
static void
read_line(struct slice line, struct stats_access *a)
{
    struct slice word;
    size_t n = 0;

    while (line.n > 0 && (*line.p == '\r' || *line.p == '\n'))
        line.p++, line.n--;
    while (n < line.n && line.p[n] != '\r' && line.p[n] != '\n')
        n++;
    line.n = n;
    if (n == 0 || !slice_cut(&line, ' ', &word) || !http_is_token(word))
        return;
    a->method = word;
    if (line.n == 0)
        return;
    slice_cut(&line, ' ', &a->target);
    if (line.n >= 5 && memcmp(line.p, "HTTP/", 5) == 0)
        a->protocol = line;
}

static struct stats_access
access_of(const struct request *r, uint64_t us)
{
    static const struct http_head none;
    const struct http_head *h = r->head != NULL ? r->head : &none;
    struct exchange_times t = { 0 };
    const char *server = r->fill != NULL ? fill_server(r->fill, &t) : "";
    const struct http_field *referer = http_find_name(h, SLICE("Referer"));
    struct stats_access a = {
        .wall_ms = wall_ms(), .client = r->client, .method = h->method_name, .target = h->target,
        .host = h->host, .route = slice_of(route_name(r)), .request_id = r->id,
        .user_agent = http_value(h, HF_USER_AGENT),
        .cache_status = slice_of(stats_outcome_names[r->outcome]),
        .status = r->status, .outcome = r->outcome, .us = us, .bytes_in = r->bytes_in,
        .bytes_out = r->bytes_out,
        .fwd = slice_of(status_fwd(r->fwd)), .detail = slice_of(r->why),
        .origin = slice_of(server), .pool_us = t.wait_us, .connect_us = t.connect_us,
        .first_byte_us = t.first_byte_us, .tries = t.tries,
        .steps = r->trail, .nsteps = r->ntrail,
    };

    if (referer != NULL)
        a.referer = referer->value;
    if (r->head != NULL)
        a.protocol = req_protocol(h);
    else
        read_line(r->line, &a);
    return a;
}

/* Tells the log, when it took longer than `slow`, and the list of the slowest. */
static void
note_slow(const struct request *r, uint64_t us)
{
    int64_t slow_ms = r->site->conf->slow_ms;
    bool slow = slow_ms > 0 && us >= (uint64_t)slow_ms * 1000;
    bool slowest = stats_slowest_wants(us);
    struct buf steps = { 0 };
    const char *server;

    if (r->head == NULL || (!slow && !slowest))
        return;
    server = put_steps(r, &steps);
    if (slow)
        log_slow(r, us, server, buf_slice(&steps));
    if (slowest) {
        struct stats_access a = access_of(r, us);

        stats_slowest(&a, slice_of(server), buf_slice(&steps));
    }
    buf_free(&steps);
}

struct slice
req_tracestate(const struct http_head *h)
{
    const struct http_field *f = h != NULL ? http_find_name(h, SLICE("Tracestate")) : NULL;

    return f != NULL ? f->value : (struct slice){ NULL, 0 };
}

void
req_finish(struct request *r)
{
    uint64_t whole_us = (uint64_t)(now_us() - r->started_us);
    /* How long a tunnel stood is no latency: its answer was the 101. */
    uint64_t us = whole_us > r->tunnel_us ? whole_us - r->tunnel_us : 0;

    stats_request(r->match.route != NULL ? r->match.route->stats : 0, r->outcome, us, r->bytes_out);
    note_slow(r, us);
    if (atomic_load_explicit(&stats_access_on, memory_order_relaxed)) {
        struct stats_access a = access_of(r, whole_us);

        stats_access(&a);
        if (r->trace.sampled)
            trace_put(req_tracer(), &r->trace, req_tracestate(r->head), &a);
    }
    hooks_done(r, us);
    writing_end(r);
    tier_release(&r->lease);            /* of one that joined another's flight */
    fill_close(&r->fill);
    through_end(r);
    object_unref(&r->stale);
    object_unref(&r->rest);
    object_unref(&r->object);
    buf_free(&r->body);
    buf_free(&r->content);
    site_unref(&r->site);
    r->magic = 0;
    pool_free(&(struct pool *){ r->pool });
}

/* ---- what all share -------------------------------------------------------------------------- */

void
request_init(struct store *s, struct tiers *t, struct fills *f, struct writes *w,
    struct tracer *tr)
{
    shared.store = s;
    shared.tiers = t;
    shared.fills = f;
    shared.writes = w;
    shared.tracer = tr;
    for (unsigned i = 0; i < REQ_WAIT; i++)
        stats_state_name(i, table[i].name);
}

unsigned
request_bound(void)
{
    return atomic_load(&shared.bound);
}

void
request_unbind(void)
{
    assert(request_bound() == 0);
    rcu_store(&shared.writes, NULL);
}

void
request_site_set(struct site *s)
{
    struct site *was = shared.site;

    rcu_store(&shared.site, s);
    rcu_wait();
    site_unref(&was);
}

struct site *
request_site(void)
{
    struct site *s;

    rcu_begin();
    s = rcu_load(&shared.site);
    if (s != NULL)
        site_ref(s);
    rcu_end();
    return s;
}

void
request_site_clear(void)
{
    site_unref(&shared.site);
}

int
request_worker_start(struct loop *l)
{
    me = calloc(1, sizeof *me);
    if (me == NULL)
        return -1;
    me->shared = &shared;
    me->loop = l;
    return 0;
}

void
request_worker_drain(void)
{
    me->draining = true;
    for (struct request *r = me->left; r != NULL; r = r->next_left) {
        enter(r, REQ_ABORT);
        req_post(r);
    }
}

void
request_worker_stop(void)
{
    if (me == NULL)
        return;
    buf_free(&me->target);
    buf_free(&me->key);
    free(me);
    me = NULL;
}
