/*
 * PENDING: a reader sees its own writes before the origin has them.
 *
 * Model    GET and HEAD of a write-back route whose path may have pending writes. The journal tells
 *          what those of the same client (the same Authorization and Cookie), or of everybody where
 *          the route promises that (`write.pending_scope: all`), make of the target together:
 *            CONTENT   of a PUT: it is the answer, as an object that is in no index, so that
 *                      conditions and ranges are judged as for any other (deliver.c). It is said
 *                      to be of no use to anybody else: no-store.
 *            GONE      404.
 *            UNKNOWN   of a POST or PATCH: `write.pending` says whether to wait for the delivery,
 *                      or to give what is stored, or what the origin says.
 *          All of it says detail=pending. It is no error and was not forwarded: a hit (RFC 9211
 *          2.1). A reader whose pending writes make nothing of the target goes on as ever.
 */
#include "request/writing.h"

bool
pending_may(const struct request *r)
{
    return r->match.route->conf->policy == POLICY_WRITE_BACK && req_writes() != NULL &&
        (r->head->method == HTTP_GET || r->head->method == HTTP_HEAD) &&
        (r->head->flags & HTTP_UPGRADING) == 0 &&
        write_maybe_pending(req_writes(), write_path_hash(r->host, r->path));
}

enum req_state
pending_before(struct request *r, enum req_state next)
{
    struct writing *w = writing_of(r);

    if (w == NULL)
        return write_no_memory(r);
    w->next = next;
    return REQ_PENDING;
}

/* Of a PUT's fields those that are about what it encloses. Content-Location is not: in a request it
 * tells where that came from (RFC 9110 8.7). */
static bool
describes(const struct http_field *f)
{
    return f->id == HF_CONTENT_TYPE || f->id == HF_CONTENT_ENCODING ||
        f->id == HF_CONTENT_LANGUAGE;
}

static void
put_date(struct buf *b, enum http_id id, int64_t seconds)
{
    char date[HTTP_DATE_LEN];

    http_date_put(date, seconds);
    http_put_id(b, id, (struct slice){ date, sizeof date });
}

static void
put_head(struct buf *b, const struct write_view *v, int64_t now_ms, struct store_parts *p)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    char etag[WRITE_ETAG_MAX];

    buf_addz(b, "HTTP/1.1 200 OK\r\n");
    p->status_n = (uint32_t)b->n;
    put_date(b, HF_DATE, now_ms / 1000);
    buf_addz(b, "ETag: ");
    p->etag_at = (uint32_t)b->n;
    p->etag_n = (uint32_t)write_etag(etag, v->id);
    buf_add(b, etag, p->etag_n);
    buf_addz(b, "\r\nCache-Control: no-store\r\n");
    put_date(b, HF_LAST_MODIFIED, v->accepted_ms / 1000);
    if (http_parse_fields(v->fields.p, v->fields.n, &h) == 0)
        for (unsigned i = 0; i < h.nfields; i++)
            if (describes(&h.fields[i]))
                http_put(b, h.fields[i].name, h.fields[i].value);
    http_put_number(b, HF_CONTENT_LENGTH, v->body.n);
}

static struct object *
object_of(const struct request *r, const struct write_view *v)
{
    int64_t now = wall_ms();
    struct store_parts p = { .key = &r->key, .body = body_new(v->body.n) };
    struct object *o = NULL;
    struct buf head = { 0 };

    p.meta = (struct sem_meta){ .response_ms = now, .date_ms = now, .status = 200,
        .last_modified_s = v->accepted_ms / 1000, .swr_s = -1, .sie_s = -1 };
    put_head(&head, v, now, &p);
    p.head = buf_slice(&head);
    if (p.body != NULL && body_append(p.body, v->body) == 0 && !head.failed) {
        body_seal(p.body);
        o = object_apart(&p);
    }
    body_unref(&p.body);
    buf_free(&head);
    return o;
}

static enum req_state
content(struct request *r, const struct write_view *v)
{
    char etag[WRITE_ETAG_MAX];
    struct slice now = { etag, write_etag(etag, v->id) };

    if (http_has(r->head, HF_IF_MATCH) && !sem_matches(r->head, now))
        return req_problem(r, 412, "If-Match does not hold: a write to this target is pending, and "
            "leaves another representation; read it again");
    if ((r->object = object_of(r, v)) == NULL)
        return write_no_memory(r);
    r->fwd = FWD_NONE;
    r->status = 200;
    r->unstored = true;
    r->outcome = OUTCOME_HIT;
    return REQ_DELIVER;
}

/* Not an error: what the writer asked for. */
static enum req_state
gone(struct request *r)
{
    struct buf status = { 0 };
    enum req_state next;

    r->fwd = FWD_NONE;
    status_put(r, &status, NULL);
    next = req_problem_with(r, 404, "a DELETE of this is pending", buf_slice(&status));
    buf_free(&status);
    r->outcome = OUTCOME_HIT;
    return next;
}

static enum req_state
unknown(struct request *r)
{
    if (r->match.route->conf->write_pending != WRITE_PENDING_BYPASS)
        return r->writing->next;
    if (r->rq.cc.flags & CC_ONLY_IF_CACHED)
        return req_problem(r, 504, "only-if-cached: a write to this target is pending");
    r->fwd = FWD_BYPASS;
    r->outcome = OUTCOME_PASS;
    return REQ_FORWARD;
}

enum req_state
do_pending(struct request *r)
{
    const struct conf_route *c = r->match.route->conf;
    struct writing *w = r->writing;

    if (w->ask != NULL)
        return REQ_WAIT;
    if (!w->answered)
        return write_look_at_target(r, c->write_pending == WRITE_PENDING_WAIT ?
            c->write_pending_wait_ms : 0) ? REQ_WAIT : write_no_memory(r);
    w->answered = false;
    if (w->lost)
        return write_no_memory(r);
    r->pending = w->view.seen != WRITE_SEEN_NONE;
    if (r->pending)
        COUNT(write_pending_reads);
    switch (w->view.seen) {
    case WRITE_SEEN_CONTENT:
        return content(r, &w->view);
    case WRITE_SEEN_GONE:
        return gone(r);
    case WRITE_SEEN_UNKNOWN:
        return unknown(r);
    case WRITE_SEEN_NONE:
        break;
    }
    return w->next;
}
