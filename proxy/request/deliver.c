/*
 * DELIVER: the answer leaves, at the client's pace.
 *
 * Model    three sources: an answer of our own (bytes), a stored object (parts of its body: whole,
 *          ranges, none), a flight (its body as it grows). Bodies are written straight from where
 *          they are; only heads and chunk sizes are copied. When the socket takes no more,
 *          on_writable runs us again; when the flight has no more yet, its change does. A response
 *          that breaks off is broken off here too, so that the client can see it.
 */
#include <stdio.h>

#include "request/priv.h"

#define PIECE_MAX (256 * 1024)          /* bytes written at a time to one client */
#define CHUNK_MAX (32 * 1024)           /* ... in one chunk: what the socket leaves is copied */

static enum req_state
finished(struct request *r)
{
    conn_done(r->conn, !r->close);
    r->conn = NULL;
    return REQ_DONE;
}

/* The client must see that this is not all: by its chunks or its length when it ends; where the
 * end of the connection is the end of the answer, only a reset tells. */
enum req_state
deliver_cut(struct request *r)
{
    if (r->head_sent && r->head->minor > 0)
        conn_done(r->conn, false);
    else
        conn_abort(r->conn);
    r->conn = NULL;
    r->outcome = OUTCOME_ERROR;
    return REQ_DONE;
}

/* ---- answers of our own ------------------------------------------------------------------ */

static enum req_state
deliver_answer(struct request *r)
{
    struct iovec iov = { (char *)(uintptr_t)r->answer.p, r->answer.n };

    if (!conn_write(r->conn, &iov, 1))
        return REQ_WAIT;                /* the loop will say that the client is gone */
    return finished(r);
}

/* ---- heads ------------------------------------------------------------------------------- */

static void
put_connection(struct request *r, struct buf *b)
{
    if (r->close)
        buf_addz(b, "Connection: close\r\n");
    else if (r->head->minor == 0)
        buf_addz(b, "Connection: keep-alive\r\n");
}

/* Writes head and whatever follows it in b; false: the client is gone. */
static bool
send_head(struct request *r, struct buf *b)
{
    struct iovec iov = { b->p, b->n };
    bool ok = !b->failed && conn_write(r->conn, &iov, 1);

    if (b->failed)
        COUNT(memory_failures);
    buf_free(b);
    r->head_sent = true;
    return ok;
}

/* ---- from a stored object ---------------------------------------------------------------- */

struct slice
deliver_etag(const struct object *o)
{
    return (struct slice){ o->head->etag_n > 0 ? o->head->bytes + o->head->etag_at : NULL,
        o->head->etag_n };
}

static bool
client_has(const struct request *r, const struct object *o, int64_t now_ms, char tag[FORM_TAG_MAX],
    struct slice *held)
{
    return r->rq.conditional && o->meta.status == 200 && form_held(r, deliver_etag(o),
        o->meta.last_modified_s, o->meta.date_ms / 1000, now_ms / 1000, tag, held);
}

/* The head names the tag of another form. */
static void
retag(struct http_head *h, struct slice etag)
{
    for (unsigned i = 0; i < h->nfields; i++)
        if (h->fields[i].id == HF_ETAG)
            h->fields[i].value = etag;
}

static const struct body *
sent_body(const struct request *r)
{
    return r->form != NULL ? r->form->body : r->object->body;
}

/* The stored head as it is, of the form that is sent. */
static void
put_stored(const struct request *r, struct buf *b)
{
    const struct stored_head *head = r->form != NULL ? r->form->head : r->object->head;

    buf_add(b, head->bytes, head->n);
}

static void
put_age(struct buf *b, const struct object *o, int64_t now_ms)
{
    http_put_number(b, HF_AGE, (uint64_t)sem_age_ms(&o->meta, now_ms) / 1000);
}

/* A head of another status made from the stored one: 304 with the fields that belong there, 206
 * and 416 with all but Content-Length (and Content-Type when `type` is false). */
void
deliver_fields(struct buf *b, const struct http_head *h, bool only_304, bool type)
{
    for (unsigned i = 0; i < h->nfields; i++) {
        const struct http_field *f = &h->fields[i];

        if (f->id == HF_CONTENT_LENGTH || (only_304 && !sem_in_304(f)) ||
            (!type && f->id == HF_CONTENT_TYPE))
            continue;
        http_put(b, f->name, f->value);
    }
}

static bool
stored_fields(const struct object *o, struct http_head *h, struct http_field *fields)
{
    const struct stored_head *s = o->head;

    *h = (struct http_head){ .fields = fields, .cap = HTTP_FIELDS_MAX, .status = o->meta.status };
    return http_parse_fields(s->bytes + s->status_n, s->n - s->status_n, h) == 0;
}

bool
deliver_parts(struct request *r, size_t n)
{
    r->parts = pool_zalloc(r->pool, (n + 1) * sizeof *r->parts);
    r->nparts = n;
    return r->parts != NULL;
}

/* Decides between 200, 206, 304 and 416, and writes the head. */
static enum req_state
begin_object(struct request *r)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct object *o = r->object;
    int64_t now = wall_ms();
    struct buf b = { 0 };
    struct http_head h;
    char tag[FORM_TAG_MAX];
    struct slice held;

    r->close = !conn_may_keep(r->conn) || conn_has_body(r->conn);
    if (!stored_fields(o, &h, fields))
        return deliver_cut(r);          /* cannot happen: it was parsed before it was stored */
    if (client_has(r, o, now, tag, &held)) {
        retag(&h, held);
        r->status = 304;
        r->nparts = 0;
        buf_addz(&b, "HTTP/1.1 304 Not Modified\r\n");
        deliver_fields(&b, &h, true, true);
    } else if (!blocks_head(r, &b, &h) && !range_put(r, &b, &h, now)) {
        if (o->meta.flags & META_PARTIAL) {
            buf_free(&b);
            return deliver_cut(r);      /* cannot happen: LOOKUP and FETCH looked at its range */
        }
        r->form = form_choose(o, r->match.route, r->head, &r->rq);
        if (!deliver_parts(r, 1))
            b.failed = true;
        else if (r->head->method != HTTP_HEAD)
            r->parts[0].n = body_size(sent_body(r));
        put_stored(r, &b);
    }
    if (!r->unstored)
        put_age(&b, o, now);
    buf_adds(&b, r->own);
    status_put(r, &b, NULL);
    hooks_edit(r, &b);
    put_connection(r, &b);
    buf_addz(&b, "\r\n");
    if (b.failed) {
        buf_free(&b);
        return deliver_cut(r);
    }
    send_head(r, &b);
    return REQ_WAIT;
}

/* Writes the part's bytes as far as the socket takes them. false: it takes no more now. */
static bool
send_stored(struct request *r, struct part *p)
{
    struct iovec iov[PIECES_MAX];
    size_t n;
    ssize_t put;

    while (p->n > 0) {
        uint64_t end = p->n > PIECE_MAX ? p->at + PIECE_MAX : p->at + p->n;

        if (r->cursor.at != p->at) {
            if (r->cursor.at > p->at)
                r->cursor = (struct body_cursor){ 0 };
            body_skip(sent_body(r), &r->cursor, p->at - r->cursor.at);
        }
        n = body_pieces(sent_body(r), &r->cursor, end, iov, PIECES_MAX);
        put = conn_write_some(r->conn, iov, n);
        if (put <= 0)
            return false;
        body_skip(sent_body(r), &r->cursor, (uint64_t)put);
        p->at += (uint64_t)put;
        p->n -= (uint64_t)put;
        r->bytes_out += (uint64_t)put;
    }
    return true;
}

static enum req_state
deliver_object(struct request *r)
{
    if (!r->head_sent) {
        if (begin_object(r) != REQ_WAIT)
            return REQ_DONE;
    }
    for (; r->part < r->nparts; r->part++) {
        struct part *p = &r->parts[r->part];
        struct iovec iov = { (char *)(uintptr_t)p->text.p, p->text.n };

        if (p->text.n > 0 && !conn_write(r->conn, &iov, 1))
            return REQ_WAIT;
        r->bytes_out += p->text.n;
        p->text.n = 0;
        if (!send_stored(r, p))
            return REQ_WAIT;
    }
    if (blocks_more(r)) {
        object_unref(&r->object);
        return REQ_BLOCKS;
    }
    return finished(r);
}

/* ---- from a flight ----------------------------------------------------------------------- */

/* The client's own conditions against a response that was asked for whole. */
static bool
client_has_live(const struct request *r, const struct fill_view *v, char tag[FORM_TAG_MAX],
    struct slice *held)
{
    struct slice date = http_value(v->response, HF_DATE);
    int64_t now = wall_ms() / 1000, lm = HTTP_NO_DATE, made = now;

    if (!r->rq.conditional || v->status != 200 || r->fwd == FWD_BYPASS || v->meta == NULL)
        return false;
    if (http_has(v->response, HF_LAST_MODIFIED))
        lm = http_date(http_value(v->response, HF_LAST_MODIFIED), now);
    if (date.p != NULL && http_date(date, now) != HTTP_NO_DATE)
        made = http_date(date, now);
    return form_held(r, http_value(v->response, HF_ETAG), lm, made, now, tag, held);
}

static bool
bodiless(const struct request *r, unsigned status)
{
    return r->head->method == HTTP_HEAD || status == 204 || status == 304 || status < 200;
}

/* How the body's end will be told: by length, by chunks, by closing. */
static void
put_framing(struct request *r, const struct fill_view *v, struct buf *b)
{
    if (bodiless(r, v->status)) {
        if (v->framing == HTTP_LENGTH || (http_has(v->response, HF_CONTENT_LENGTH) &&
            v->status >= 200 && v->status != 204 && !http_has(v->response, HF_TRANSFER_ENCODING)))
            http_put_number(b, HF_CONTENT_LENGTH, v->length);
        return;
    }
    if (v->framing == HTTP_LENGTH || v->framing == HTTP_NO_BODY) {
        http_put_number(b, HF_CONTENT_LENGTH, v->length);
    } else if (v->complete && v->trailer.n == 0) {
        http_put_number(b, HF_CONTENT_LENGTH, body_size(v->body));
    } else if (r->head->minor > 0) {
        r->chunked = true;
        buf_addz(b, "Transfer-Encoding: chunked\r\n");
    } else {
        r->close = true;
    }
}

/* Another's answer came without its Age (it is written anew for a stored one); this client did not
 * have it from the origin itself (RFC 9111 5.1). */
static void
put_waited_age(const struct request *r, const struct fill_view *v, struct buf *b)
{
    int64_t age = r->collapsed && v->meta != NULL ? sem_age_ms(v->meta, wall_ms()) / 1000 : 0;

    if (age > 0)
        http_put_number(b, HF_AGE, (uint64_t)age);
}

/* Made from a live response that the client has already: its fields that belong into a 304. */
static enum req_state
deliver_304(struct request *r, const struct fill_view *v, struct slice held)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct buf b = { 0 };

    if (http_parse_fields(v->head.p + v->status_n, v->head.n - v->status_n, &h) == -1)
        return deliver_cut(r);                  /* cannot happen: it was made from parsed fields */
    retag(&h, held);
    r->status = 304;
    buf_addz(&b, "HTTP/1.1 304 Not Modified\r\n");
    deliver_fields(&b, &h, true, true);
    for (unsigned f = 0; f < h.nfields && !r->collapsed; f++)
        if (sem_of_one_exchange(&h.fields[f]))
            http_put(&b, h.fields[f].name, h.fields[f].value);
    put_waited_age(r, v, &b);
    status_put(r, &b, v);
    hooks_edit(r, &b);
    put_connection(r, &b);
    buf_addz(&b, "\r\n");
    if (!send_head(r, &b))
        return REQ_WAIT;
    return finished(r);
}

/* The tunnel after a 101: bytes both ways, each until its own end. */
static void
begin_tunnel(struct request *r)
{
    r->tunnel = true;
    r->close = true;
    conn_tunnel(r->conn);
}

/* Writes the head, and in the same call as much of the body as is there already. false: the
 * client is gone. */
static bool
send_head_and(struct request *r, const struct fill_view *v, struct buf *b)
{
    uint64_t have = bodiless(r, v->status) || r->chunked ? 0 : body_size(v->body);
    struct iovec iov[PIECES_MAX + 1];
    size_t n, head_n = b->n;
    ssize_t put;

    if (have == 0 || conn_queued(r->conn) > 0)
        return send_head(r, b);
    iov[0] = (struct iovec){ b->p, b->n };
    n = body_pieces(v->body, &r->cursor, have < PIECE_MAX ? have : PIECE_MAX, iov + 1, PIECES_MAX);
    put = conn_write_some(r->conn, iov, n + 1);
    r->head_sent = true;
    if (put >= 0 && (size_t)put < head_n) {
        iov[0] = (struct iovec){ b->p + put, head_n - (size_t)put };
        put = conn_write(r->conn, iov, 1) ? (ssize_t)head_n : -1;
    }
    buf_free(b);
    if (put == -1)
        return false;
    body_skip(v->body, &r->cursor, (uint64_t)put - head_n);
    r->bytes_out += (uint64_t)put - head_n;
    fill_consumed(r->fill, r->cursor.at);
    return true;
}

static enum req_state
begin_flight(struct request *r, const struct fill_view *v)
{
    struct buf b = { 0 };
    char tag[FORM_TAG_MAX];
    struct slice held;

    r->close = !conn_may_keep(r->conn) || (conn_has_body(r->conn) && v->complete);
    if (client_has_live(r, v, tag, &held))
        return deliver_304(r, v, held);
    buf_adds(&b, v->head);
    put_framing(r, v, &b);
    put_waited_age(r, v, &b);
    status_put(r, &b, v);
    hooks_edit(r, &b);
    if (v->status == 101) {
        buf_addz(&b, "Connection: upgrade\r\n");
        http_put_id(&b, HF_UPGRADE, SLICE("websocket"));     /* all that is asked for */
    } else {
        put_connection(r, &b);
    }
    buf_addz(&b, "\r\n");
    if (b.failed) {
        buf_free(&b);
        return deliver_cut(r);
    }
    if (send_head_and(r, v, &b) && v->status == 101)
        begin_tunnel(r);
    return REQ_WAIT;
}

/* One chunk of what is there. false: the socket takes no more. */
static bool
send_chunk(struct request *r, const struct fill_view *v, uint64_t have)
{
    struct iovec iov[PIECES_MAX + 2];
    char size[20];
    size_t n, bytes = 0;

    if (conn_queued(r->conn) > 0) {
        conn_want_write(r->conn);
        return false;
    }
    n = body_pieces(v->body, &r->cursor, have, iov + 1, PIECES_MAX);
    for (size_t i = 1; i <= n; i++)
        bytes += iov[i].iov_len;
    iov[0] = (struct iovec){ size, (size_t)snprintf(size, sizeof size, "%zx\r\n", bytes) };
    iov[n + 1] = (struct iovec){ (char *)(uintptr_t)"\r\n", 2 };
    if (!conn_write(r->conn, iov, n + 2))
        return false;
    body_skip(v->body, &r->cursor, bytes);
    r->bytes_out += bytes;
    return true;
}

/* Writes what there is of the body. false: the socket takes no more. */
static bool
send_live(struct request *r, const struct fill_view *v)
{
    struct iovec iov[PIECES_MAX];
    uint64_t have;
    size_t n;
    ssize_t put;

    while (r->cursor.at < (have = body_size(v->body))) {
        if (have - r->cursor.at > (r->chunked ? CHUNK_MAX : PIECE_MAX))
            have = r->cursor.at + (r->chunked ? CHUNK_MAX : PIECE_MAX);
        if (r->chunked) {
            if (!send_chunk(r, v, have))
                return false;
        } else {
            n = body_pieces(v->body, &r->cursor, have, iov, PIECES_MAX);
            put = conn_write_some(r->conn, iov, n);
            if (put <= 0)
                return false;
            body_skip(v->body, &r->cursor, (uint64_t)put);
            r->bytes_out += (uint64_t)put;
        }
        fill_consumed(r->fill, r->cursor.at);
    }
    return true;
}

static enum req_state
end_flight(struct request *r, const struct fill_view *v)
{
    struct slice trailer = trailer_response(r, v);
    struct iovec iov[3] = { { (char *)(uintptr_t)"0\r\n", 3 },
        { (char *)(uintptr_t)trailer.p, trailer.n }, { (char *)(uintptr_t)"\r\n", 2 } };

    if (r->chunked && !conn_write(r->conn, iov, 3))
        return REQ_WAIT;
    r->close = r->close || conn_has_body(r->conn);
    return finished(r);
}

static enum req_state
deliver_flight(struct request *r)
{
    struct fill_view v;
    bool complete;

    fill_look(r->fill, &v);
    claim_saw(r, &v);
    if (!r->head_sent) {
        enum req_state next = begin_flight(r, &v);

        if (next != REQ_WAIT || !r->head_sent)
            return next;
    }
    complete = v.complete;              /* before the body is looked at: it grows in the meantime */
    if (bodiless(r, v.status) && v.status != 101) {
        fill_consumed(r->fill, body_size(v.body));
        return complete || v.stored || v.meta != NULL || r->get != NULL ? end_flight(r, &v) :
            v.broken ? deliver_cut(r) : REQ_WAIT;
    }
    if (conn_has_body(r->conn) && !fill_full(r->fill))
        conn_body(r->conn, true);
    if (!send_live(r, &v))
        return REQ_WAIT;
    if (v.half_closed)
        conn_finish(r->conn);
    if (v.broken)
        return r->tunnel ? finished(r) : deliver_cut(r);
    return complete ? end_flight(r, &v) : REQ_WAIT;
}

enum req_state
do_deliver(struct request *r)
{
    if (r->conn == NULL)
        return REQ_WAIT;                /* on_gone is about to say so, or did */
    if (!r->head_sent && !hooks_deliver(r))
        return REQ_WAIT;
    if (r->answer.p != NULL)
        return deliver_answer(r);
    if (r->object != NULL)
        return deliver_object(r);
    return deliver_flight(r);
}
