/*
 * ROUTE: which route, which key, and what kind of request is this?
 */
#include <openssl/crypto.h>
#include <stdio.h>

#include "request/priv.h"
#include "request/worker.h"

/* A loop: our own name in Via (RFC 9110 7.6.3) or CDN-Loop (RFC 8586). */
static bool
passed_here(const struct request *r)
{
    struct http_list it = { 0 };
    struct slice member, word;

    while (http_list_next(r->head, HF_VIA, &it, &member)) {
        slice_cut(&member, ' ', &word);             /* the protocol */
        if (member.p != NULL)
            member = slice_trim(member);
        if (member.p != NULL && slice_cut(&member, ' ', &word) && slice_ieq(word, r->site->hop))
            return true;
    }
    it = (struct http_list){ 0 };
    while (http_list_next(r->head, HF_CDN_LOOP, &it, &member)) {
        slice_cut(&member, ';', &word);
        if (slice_ieq(slice_trim(word), r->site->hop))
            return true;
    }
    return false;
}

struct slice
req_id(const struct http_head *h, char made[REQ_ID_MADE + 1])
{
    struct slice given = h != NULL ? http_value(h, HF_X_REQUEST_ID) : (struct slice){ NULL, 0 };

    if (given.n > 0 && given.n <= 128 && http_is_token(given))
        return given;
    snprintf(made, REQ_ID_MADE + 1, "%016llx%016llx", (unsigned long long)random_fast(),
        (unsigned long long)random_fast());
    return (struct slice){ made, REQ_ID_MADE };
}

void
req_introduce(struct request *r)
{
    char made[REQ_ID_MADE + 1];

    r->client = pool_slice(r->pool, conn_client(r->conn));
    r->id = req_id(r->head, made);
    if (r->id.p == made)
        r->id = pool_slice(r->pool, r->id);
    if (r->id.p == NULL)
        r->id.n = 0;
    if (req_tracer() != NULL)
        trace_begin(req_tracer(), r->head != NULL ? http_value(r->head, HF_TRACEPARENT) :
            (struct slice){ NULL, 0 }, &r->trace);
}

static int
read_target(struct request *r)
{
    struct buf b = { 0 };
    struct target t;
    int rc = -1;

    if (target_read(r->head, r->https, &b, &t) == 0) {
        r->host = pool_slice(r->pool, t.host);
        r->route_host = (struct slice){ r->host.p, t.route_host.n };
        r->path = pool_slice(r->pool, t.path);
        if (t.query.p != NULL)
            r->query = pool_slice(r->pool, t.query);
        rc = r->host.p != NULL && r->path.p != NULL && (t.query.p == NULL || r->query.p != NULL) ?
            0 : -1;
    }
    buf_free(&b);
    return rc;
}

/* The path for the origin: the route's prefix taken off or put in front. */
int
route_rewrite(struct request *r)
{
    struct buf b = { 0 };

    route_target(r->match.route, r->path, r->query, &b);
    r->target = pool_slice(r->pool, buf_slice(&b));
    buf_free(&b);
    return r->target.p != NULL ? 0 : -1;
}

int
route_key(struct request *r)
{
    struct request_worker *w = req_worker();

    if (key_make(r->match.route->recipe, r->head, r->https, r->host, r->path, r->query, &w->key,
        &r->key) == -1 ||
        target_key(r->conn, r->head, r->match.route, r->https, r->host, &w->key,
            &r->key) == -1)
        return -1;
    r->key.bytes = pool_slice(r->pool, r->key.bytes);
    return r->key.bytes.p != NULL ? 0 : -1;
}

/* `PURGE /path` on the data port, for who the listener names and a token (constant time). */
static bool
may_purge(const struct request *r)
{
    const struct conf_listener *l = conn_listener(r->conn);
    const char *token = conn_purge_token(r->conn);
    struct slice given = http_value(r->head, HF_AUTHORIZATION);

    if (token == NULL || !conn_client_in(r->conn, &l->purge_networks) || given.n < 7 ||
        !slice_ieq((struct slice){ given.p, 7 }, SLICE("bearer ")))
        return false;
    given = slice_trim((struct slice){ given.p + 7, given.n - 7 });
    return given.n == strlen(token) && CRYPTO_memcmp(given.p, token, given.n) == 0;
}

static enum req_state
purge_method(struct request *r)
{
    struct purge_item item = { .kind = STORE_PURGE_URL };
    struct purge_result result;
    struct buf b = { 0 };
    enum req_state next;
    struct err e;
    size_t bad;

    if (!may_purge(r))
        return req_problem(r, 403, "PURGE is not allowed from here, or not with this token");
    target_url(r, &b);
    item.text = buf_slice(&b);
    if (b.failed ||
        purge_run(req_store(), r->site->table, &item, 1, (struct purge_how){ 0 }, &result, &bad,
            &e) == -1) {
        buf_free(&b);
        return req_problem(r, 503, "out of memory");
    }
    b.n = 0;
    buf_printf(&b, "{\"purged\":%llu}\n", (unsigned long long)result.objects);
    next = req_answer(r, 200, "application/json", buf_slice(&b));
    buf_free(&b);
    return next;
}

static bool
purges_here(const struct request *r)
{
    return r->head->method == HTTP_PURGE && conn_listener(r->conn)->purge_networks.n > 0;
}

enum req_state
do_route(struct request *r)
{
    uint64_t hops;

    r->outcome = OUTCOME_PASS;
    req_introduce(r);
    if (!http_method_safe(r->head->method))
        req_bind(r);
    if ((r->head->flags & HTTP_HTTPS) != 0 && !r->https)
        return req_problem(r, 421, "an https target on a connection without TLS");
    if (read_target(r) == -1)
        return req_problem_retry(r, 503, "out of memory", 1);
    if (!target_host_plain(r->host))
        return req_problem(r, 400, "the host has percent-escapes that no name of a host has");
    if (passed_here(r)) {
        COUNT(loops);
        return req_problem(r, 508,
            "the request passed here before: an origin or a proxy leads back to this one");
    }
    if (hops_left(r->head, &hops) && hops == 0)
        return hops_answer(r);
    if (purges_here(r))
        return purge_method(r);
    if (write_is_status(r))
        return write_status(r);
    if (route_match(r->site->table, r->route_host, r->path, r->head, &r->match) == NULL)
        return req_problem(r, 404, "no route takes this host, path and method");
    if (r->match.route->conf->policy == POLICY_WRITE_BACK)
        req_bind(r);
    if (route_rewrite(r) == -1 || !hooks_begin(r) || route_key(r) == -1)
        return req_problem_retry(r, 503, "out of memory", 1);
    return r->plugins != NULL ? REQ_HOOKS : route_ask(r);
}

enum req_state
route_ask(struct request *r)
{
    const char *why = NULL;
    enum route_ask asks;

    asks = route_asks(r->match.route, r->head, conn_has_body(r->conn), &r->rq, &why, NULL);
    r->unsafe = !http_method_safe(r->head->method) && !r->rq.promised;
    if (r->plugins != NULL && r->plugins->authorized)
        r->rq.authorization = false;
    if (asks == ROUTE_ASKS && r->plugins != NULL && r->plugins->pass) {
        asks = ROUTE_BYPASSES;
        why = "plugin";
    }
    if (asks == ROUTE_ASKS && r->rq.content)
        return REQ_BODY;
    if (asks == ROUTE_ASKS)
        return pending_may(r) ? pending_before(r, REQ_LOOKUP) : REQ_LOOKUP;
    r->why = why;
    r->fwd = FWD_BYPASS;
    if (asks == ROUTE_ASKS_NOT)
        r->fwd = r->head->method == HTTP_GET || r->head->method == HTTP_HEAD || r->rq.content ?
            FWD_REQUEST : FWD_METHOD;
    if (!r->unsafe && (r->rq.cc.flags & CC_ONLY_IF_CACHED))
        return req_problem(r, 504, "only-if-cached: this request is not answered from the cache");
    if (r->unsafe) {
        r->outcome = OUTCOME_WRITE;
        return write_begin(r);
    }
    return pending_may(r) ? pending_before(r, REQ_FORWARD) : REQ_FORWARD;
}
