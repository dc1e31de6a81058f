/*
 * The request as the origin gets it, and FORWARD: one exchange for one client, body and all.
 *
 * Model    hop-by-hop fields stop here (RFC 9110 7.6.1). Via and CDN-Loop are appended to.
 *          Forwarded and X-Forwarded-* are appended to when the client is in the listener's
 *          `trust`, and replaced otherwise (X-Forwarded-Port and X-Real-IP: taken away); who came
 *          through the PROXY protocol is judged by the address it gave, for the one who speaks it
 *          hands on what others wrote. Where the answer
 *          may be stored the client's conditions and ranges are kept back: the whole representation
 *          is asked for, and the conditions are judged here.
 *          A route that compresses asks for identity then, and for a HEAD and for a range, which
 *          are about the same.
 */
#include <stdio.h>

#include "request/priv.h"
#include "request/worker.h"

/* ---- fields ------------------------------------------------------------------------------ */

/* Fields that are written anew below, whoever sent them, and what the origin gets in them. */
static enum { NOT_OURS, SAME, BY_HOST, EACH }
ours(enum http_id id)
{
    switch (id) {
    case HF_CONTENT_LENGTH:
    case HF_EXPECT:
    case HF_X_FORWARDED_PROTO:          /* the scheme is part of the key */
    case HF_X_FORWARDED_PORT:           /* so is what a trusted proxy says; others say nothing */
        return SAME;
    case HF_HOST:
    case HF_X_FORWARDED_HOST:
        return BY_HOST;
    case HF_FORWARDED:
    case HF_X_FORWARDED_FOR:
    case HF_X_REAL_IP:
    case HF_VIA:
    case HF_CDN_LOOP:
    case HF_X_REQUEST_ID:
    case HF_TRACEPARENT:
        return EACH;
    default:
        return NOT_OURS;
    }
}

/* "X_Forwarded_For": gateways read it as the dashed name, which is not the client's to write. */
bool
forward_disguised(struct slice name)
{
    char dashed[64];
    enum http_id id;

    if (name.n > sizeof dashed || memchr(name.p, '_', name.n) == NULL)
        return false;
    for (size_t i = 0; i < name.n; i++)
        dashed[i] = name.p[i] == '_' ? '-' : name.p[i];
    id = http_id((struct slice){ dashed, name.n });
    return ours(id) != NOT_OURS || (http_flags(id) & HTTP_HOP) != 0;
}

/* Never the client's to send on. What Connection named has left the head already (http_strip). */
static bool
stops_here(enum http_id id, struct slice name)
{
    return (http_flags(id) & HTTP_HOP) != 0 || ours(id) != NOT_OURS || forward_disguised(name);
}

/* Kept back when the whole representation is asked for. */
static bool
conditional(enum http_id id)
{
    return id == HF_IF_MATCH || id == HF_IF_NONE_MATCH || id == HF_IF_MODIFIED_SINCE ||
        id == HF_IF_UNMODIFIED_SINCE || id == HF_IF_RANGE || id == HF_RANGE;
}

/* What the origin gets in this field of requests whose answers may be stored, as forward_fields
 * has it. */
static enum fill_field
sent(const struct route *route, struct slice name)
{
    const char *host = route->conf->to->host;
    enum http_id id = http_id(name);

    switch (ours(id)) {
    case SAME:                          /* length: the same where there is no content */
        return id == HF_CONTENT_LENGTH ? FILL_FIELD_CLIENTS : FILL_FIELD_SAME;
    case EACH:
        return FILL_FIELD_EACH;
    case BY_HOST:
        return route->conf->key_host || (id == HF_HOST && host != NULL && host[0] != '\0') ?
            FILL_FIELD_SAME : FILL_FIELD_EACH;
    case NOT_OURS:
        break;
    }
    return stops_here(id, name) || conditional(id) ||
        (id == HF_ACCEPT_ENCODING && route->compress.n > 0) ||
        route_edit_takes(&route->request, name) ?
        FILL_FIELD_SAME : FILL_FIELD_CLIENTS;
}

/* "Name: what came before, value\r\n", unless the route has its own word. */
static void
append(const struct request *r, struct buf *b, enum http_id id, bool keep, struct slice value)
{
    if (route_edit_takes(&r->match.route->request, http_name(id)))
        return;
    buf_adds(b, http_name(id));
    buf_addz(b, ": ");
    for (unsigned i = 0; keep && i < r->head->nfields; i++)
        if (r->head->fields[i].id == id && r->head->fields[i].value.n > 0) {
            buf_adds(b, r->head->fields[i].value);
            buf_addz(b, ", ");
        }
    buf_adds(b, value);
    buf_addz(b, "\r\n");
}

/* node of RFC 7239 6: an IPv6 address stands in brackets and quotes. */
static void
forwarded(const struct request *r, struct buf *b, bool trusted)
{
    bool v6 = memchr(r->client.p, ':', r->client.n) != NULL;
    struct buf v = { 0 };

    buf_addz(&v, v6 ? "for=\"[" : "for=");
    buf_adds(&v, r->client);
    buf_addz(&v, v6 ? "]\"" : "");
    buf_addz(&v, conn_https(r->conn) ? ";proto=https" : ";proto=http");
    if (r->host.n > 0) {
        buf_addz(&v, ";host=\"");
        buf_adds(&v, r->host);
        buf_addc(&v, '"');
    }
    append(r, b, HF_FORWARDED, trusted, buf_slice(&v));
    b->failed = b->failed || v.failed;
    buf_free(&v);
}

/* What a trusted client said, else `ours`, unless that is empty or the route has its own word. */
static void
tell(const struct request *r, struct buf *b, enum http_id id, bool trusted, struct slice ours)
{
    struct slice value = trusted && http_has(r->head, id) ? http_value(r->head, id) : ours;

    if (value.p != NULL && !route_edit_takes(&r->match.route->request, http_name(id)))
        http_put_id(b, id, value);
}

static void
tell_who(const struct request *r, struct buf *b)
{
    const struct slice none = { NULL, 0 };
    bool trusted = conn_client_in(r->conn, &conn_listener(r->conn)->trust);

    append(r, b, HF_X_FORWARDED_FOR, trusted, r->client);
    tell(r, b, HF_X_FORWARDED_PROTO, trusted, r->https ? SLICE("https") : SLICE("http"));
    tell(r, b, HF_X_FORWARDED_HOST, trusted, r->head->host.n > 0 ? r->host : none);
    tell(r, b, HF_X_FORWARDED_PORT, trusted, none);
    tell(r, b, HF_X_REAL_IP, trusted, none);
    forwarded(r, b, trusted);
}

/* W3C Trace Context: passed on with a span id of ours, where traces are made that of the span which
 * is told of; what is malformed is not passed on. */
static void
trace(const struct request *r, struct buf *b)
{
    struct slice v = http_value(r->head, HF_TRACEPARENT);
    struct trace t;

    if (r->trace.span == 0 && !trace_read(v, &t))
        return;
    buf_addz(b, "Traceparent: ");
    if (r->trace.span != 0) {
        trace_tell(&r->trace, b);
    } else {
        buf_add(b, v.p, 36);
        buf_addhex(b, random_fast() | 1);
        buf_add(b, v.p + 52, v.n - 52);
    }
    buf_addz(b, "\r\n");
}

/* 3.3.1.1 there: it says nothing without the traceparent that it came with. */
static bool
orphaned(const struct http_head *h, const struct http_field *f)
{
    struct trace t;

    return slice_ieq(f->name, SLICE("Tracestate")) &&
        !trace_read(http_value(h, HF_TRACEPARENT), &t);
}

/* Is it about what a compressing route stores? Then it is asked for as it is stored. */
static bool
asks_identity(const struct request *r, bool whole)
{
    return r->match.route->compress.n > 0 && (whole || r->head->method == HTTP_HEAD ||
        (r->head->method == HTTP_GET && r->rq.range));
}

void
forward_fields(void *request, struct buf *b)
{
    const struct request *r = request;
    const struct route_edit *edit = &r->match.route->request;
    bool whole = r->state != REQ_FORWARD && r->state != REQ_WRITE;
    bool identity = asks_identity(r, whole);
    struct buf via = { 0 };
    uint64_t hops;
    bool counted = hops_left(r->head, &hops);

    for (unsigned i = 0; i < r->head->nfields; i++) {
        const struct http_field *f = &r->head->fields[i];

        if (stops_here(f->id, f->name) || (whole && conditional(f->id)) ||
            (counted && f->id == HF_MAX_FORWARDS) || orphaned(r->head, f) ||
            route_edit_takes(edit, f->name) || (identity && f->id == HF_ACCEPT_ENCODING))
            continue;
        if (r->match.route->compress.n > 0 && (f->id == HF_IF_MATCH || f->id == HF_IF_NONE_MATCH))
            form_conditions(f, b);
        else
            http_put(b, f->name, f->value);
    }
    if (identity && !route_edit_takes(edit, http_name(HF_ACCEPT_ENCODING)))
        http_put_id(b, HF_ACCEPT_ENCODING, sem_coding_name(SEM_IDENTITY));
    if (counted)
        http_put_number(b, HF_MAX_FORWARDS, hops - 1);
    tell_who(r, b);
    buf_addz(&via, r->head->minor > 0 ? "1.1 " : "1.0 ");
    buf_adds(&via, r->site->hop);
    append(r, b, HF_VIA, true, buf_slice(&via));
    append(r, b, HF_CDN_LOOP, true, r->site->hop);
    if (r->id.n > 0)
        http_put_id(b, HF_X_REQUEST_ID, r->id);
    trace(r, b);
    route_edit_put(edit, b);
    b->failed = b->failed || via.failed;
    buf_free(&via);
}

void
request_want(struct request *r, enum fill_mode mode, struct fill_want *w)
{
    const struct conf_route *c = r->match.route->conf;

    *w = (struct fill_want){
        .mode = mode, .table = r->site->table, .match = &r->match,
        .origin = r->site->origins[c->to - r->site->conf->origins],
        .key = &r->key, .together = r->apart ? NULL : &r->found, .target = r->target,
        .request = r->head, .request_bytes = r->bytes,
        .semantics = r->rq, .vary = r->vary, .why = r->why, .https = r->https, .host = r->host,
        .via = r->site->hop, .fields = forward_fields, .fields_arg = r,
        .sent = sent, .tags = r->plugins != NULL ? r->plugins->tags.first : NULL,
    };
    if (r->trace.sampled)
        w->asked_in = (struct fill_span){ r->trace.hi, r->trace.lo, r->trace.client };
    if (r->rq.content && r->state != REQ_FORWARD) {
        w->body = r->head->framing == HTTP_NO_BODY ? HTTP_NO_BODY : HTTP_LENGTH;
        w->length = r->content.n;
        w->content = buf_slice(&r->content);
        w->also = r->head->method == HTTP_QUERY;
    }
}

/* ---- FORWARD ----------------------------------------------------------------------------- */

/* The one protocol that a tunnel is made for: h2c would carry requests past all that is here. */
static bool
wants_websocket(const struct http_head *h)
{
    return (h->flags & HTTP_UPGRADING) != 0 && http_list_has(h, HF_UPGRADE, SLICE("websocket"));
}

/* A part of its content, for those who look at it when the answer comes. */
static void
keep_body(struct request *r, struct slice data)
{
    if (r->unsafe && !r->tunnel)
        through_sent(r, data);
    if (r->tunnel || !(r->match.route->needs & KEY_NEEDS_REQUEST_BODY) || r->body_lost)
        return;
    buf_add(&r->body, data.p, data.n);
    if (r->body.n > KEY_BODY_MAX || r->body.failed) {
        r->body_lost = true;
        buf_free(&r->body);
    }
}

/* What BODY read of it. */
static void
send_content(struct request *r)
{
    if (r->content.n > 0) {
        keep_body(r, buf_slice(&r->content));
        fill_send(r->fill, buf_slice(&r->content));
    }
    if (r->body_ended && r->content.p != NULL)
        fill_send_end(r->fill, trailer_request(r, r->trailer));
}

static int
take_off(struct request *r)
{
    struct fill_want w;
    bool ignored;

    request_want(r, FILL_PRIVATE, &w);
    w.body = r->head->framing;
    w.length = r->head->length;
    w.expect = (r->head->flags & HTTP_EXPECT) != 0 && r->content.p == NULL;
    w.once = r->writing != NULL && !http_method_idempotent(r->head->method);
    if (w.body == HTTP_LENGTH && w.length == 0)
        r->body_ended = true;
    if (r->unsafe)
        through_want(r, &w);
    if (wants_websocket(r->head))
        w.upgrade = SLICE("websocket");
    r->body_lost = sem_coded(r->head);
    r->interim_sent = 0;
    r->fill = fill_open(req_fills(), conn_loop(r->conn), &w, req_post, r, &ignored);
    if (r->fill == NULL)
        return -1;
    send_content(r);
    if (!w.expect && conn_has_body(r->conn)) {
        conn_continue(r->conn);
        conn_body(r->conn, true);
    }
    return 0;
}

/* 1xx responses pass on (RFC 9110 15.2), but not to HTTP/1.0 clients. */
void
forward_interim(struct request *r, const struct fill_view *v)
{
    struct iovec iov = { (char *)(uintptr_t)v->interim.p + r->interim_sent,
        v->interim.n - r->interim_sent };

    if (v->interim.n <= r->interim_sent)
        return;
    r->interim_sent = v->interim.n;
    if (r->head->minor > 0)
        conn_write(r->conn, &iov, 1);
}

void
forward_body(struct request *r, struct slice data)
{
    r->bytes_in += data.n;
    if (r->state == REQ_BODY)
        body_collect(r, data);
    if (r->fill == NULL)
        return;
    keep_body(r, data);
    fill_send(r->fill, data);
    if (fill_full(r->fill))
        conn_body(r->conn, false);
}

void
forward_body_end(struct request *r, struct slice trailer)
{
    r->body_ended = true;
    if (r->state == REQ_BODY)
        body_collected(r, trailer);
    if (r->fill != NULL)
        fill_send_end(r->fill, trailer_request(r, trailer));
}

/* Has the whole of the request left for the origin? A part of one is not to be acted on (RFC 9112
 * 8), and one that still waits for a connection has not been. */
static bool
is_at_origin(const struct request *r)
{
    struct exchange_times t = { .wait_us = -1 };

    (void)fill_server(r->fill, &t);
    return (r->body_ended || r->head->framing == HTTP_NO_BODY) && t.wait_us >= 0;
}

bool
forward_stay(struct request *r)
{
    struct request_worker *w = req_worker();

    if (w->draining)
        return false;
    if (!r->stays) {
        r->stays = true;
        r->next_left = w->left;
        w->left = r;
    }
    return true;
}

/* What the origin may have changed is purged. It may still be about to: a write that is with it
 * goes on until its answer comes, and is purged again then, so that nothing that was stored in
 * between, and is from before it, stays. */
bool
forward_given_up(struct request *r)
{
    struct fill_view v;

    if (!r->unsafe || r->fill == NULL)
        return false;
    fill_look(r->fill, &v);
    if (r->state == REQ_PURGE)
        purge_now(r, &v);
    if (r->state != REQ_FORWARD)
        return false;
    purge_now(r, NULL);
    if (r->conn != NULL || !is_at_origin(r) || !forward_stay(r))
        return false;
    r->purged = false;
    COUNT(write_orphans);
    return true;
}

void
forward_left(struct request *r)
{
    struct request **at = &req_worker()->left;

    if (!r->stays)
        return;
    r->stays = false;
    while (*at != r)
        at = &(*at)->next_left;
    *at = r->next_left;
}

/* Nobody waits for its answer any more. */
static enum req_state
left(struct request *r, const struct fill_view *v)
{
    switch (v->state) {
    case FILL_HEAD:
        return REQ_PURGE;
    case FILL_FAULT:
        purge_now(r, NULL);
        return REQ_ABORT;
    default:
        return REQ_WAIT;
    }
}

static enum req_state
failed(struct request *r, const struct exchange_fault *f)
{
    if (r->unsafe && f->reached)
        purge_now(r, NULL);
    through_end(r);
    if (!write_instead(r, f))
        return req_fault(r, f);
    fill_close(&r->fill);
    buf_free(&r->body);
    return REQ_WRITE;
}

/* The stored response to a GET that this request could have had, if there is one. */
static struct object *
stored_for(const struct request *r)
{
    struct object *o = NULL;
    bool soft;

    if (r->key.bytes.n == 0 || r->match.route->conf->policy == POLICY_PASS)
        return NULL;
    rcu_begin();
    if (store_get(req_store(), &r->key, r->head, wall_ms(), &o, &soft) == STORE_HIT)
        o = object_ref(o);
    else
        o = NULL;
    rcu_end();
    return o;
}

/* A HEAD that went to the origin may tell that what is stored has changed (RFC 9111 4.3.5). Both
 * are compared as the route has edited them; the length is the whole's, also of a stored part. */
static void
learn_from_head(struct request *r, const struct fill_view *v)
{
    struct http_field fields[HTTP_FIELDS_MAX], stored_fields[HTTP_FIELDS_MAX];
    struct http_head head = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct http_head stored = { .fields = stored_fields, .cap = HTTP_FIELDS_MAX };
    struct object *o = v->status == 200 ? stored_for(r) : NULL;
    bool length = http_has(v->response, HF_CONTENT_LENGTH) &&
        !http_has(v->response, HF_TRANSFER_ENCODING);
    uint64_t size;

    if (o == NULL)
        return;
    size = object_part(o).size;
    length = length && size != HTTP_SIZE_UNKNOWN;
    if (o->meta.status == 200 && !(o->meta.flags & META_DECODED) &&
        http_parse_fields(v->head.p + v->status_n, v->head.n - v->status_n, &head) == 0 &&
        http_parse_fields(o->head->bytes + o->head->status_n, o->head->n - o->head->status_n,
            &stored) == 0 &&
        !sem_head_agrees(&stored, size, &head, length ? (int64_t)v->length : -1))
        store_soften(req_store(), o);
    object_unref(&o);
}

enum req_state
do_forward(struct request *r)
{
    struct fill_view v;

    if (r->fill == NULL && take_off(r) == -1) {
        claim_release(r);
        return req_problem_retry(r, 503, "out of memory", 1);
    }
    fill_look(r->fill, &v);
    if (r->conn == NULL)
        return left(r, &v);
    forward_interim(r, &v);
    if (conn_has_body(r->conn) && !fill_full(r->fill)) {
        if (v.want_body)
            conn_continue(r->conn);
        if (v.want_body || (r->head->flags & HTTP_EXPECT) == 0 ||
            r->content.p != NULL)
            conn_body(r->conn, true);
    }
    switch (v.state) {
    case FILL_HEAD:
        r->status = v.status;
        r->fwd_status = v.status;
        r->why = v.why;
        if (r->head->method == HTTP_HEAD)
            learn_from_head(r, &v);
        return r->unsafe ? REQ_PURGE : REQ_DELIVER;
    case FILL_FAULT:
        return failed(r, v.fault);
    default:
        return REQ_WAIT;
    }
}
