/*
 * What a writer hears of the journal: that its write was accepted, again what it heard the first
 * time, and how its write stands: /.well-known/weir/writes/ID, for whoever knows the id.
 */
#include "request/writing.h"

#define PREFIX "/.well-known/weir/writes/"

static unsigned
ack_status(const struct request *r)
{
    static const unsigned status[] = { [WRITE_ACK_202] = 202, [WRITE_ACK_200] = 200,
        [WRITE_ACK_201] = 201, [WRITE_ACK_204] = 204 };

    return status[r->match.route->conf->write_ack];
}

enum req_state
acknowledge(struct request *r)
{
    const struct write_answer *a = &r->writing->answer;
    unsigned status = ack_status(r);
    struct buf head = { 0 }, body = { 0 };
    enum req_state next;

    buf_printf(&head, "Location: " PREFIX "%s\r\n", a->id);
    if (r->writing->async)
        buf_addz(&head, "Preference-Applied: respond-async\r\n");
    buf_printf(&body, "{\"id\":\"%s\",\"state\":\"%s\",\"position\":%llu}\n", a->id,
        write_state_name(a->state), (unsigned long long)a->position);
    r->outcome = OUTCOME_ACCEPTED;
    next = req_answer_with(r, status, "application/json", buf_slice(&body), buf_slice(&head));
    buf_free(&head);
    buf_free(&body);
    return next;
}

/* Its own framing and connection are this answer's. */
static bool
again(const struct http_field *f)
{
    return (http_flags(f->id) & HTTP_HOP) == 0 && f->id != HF_CONTENT_LENGTH;
}

enum req_state
acknowledge_again(struct request *r)
{
    const struct write_answer *a = &r->writing->answer;
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct buf b = { 0 };
    enum req_state next;

    if (a->status == 0)
        return acknowledge(r);
    if (http_parse_fields(a->fields.p, a->fields.n, &h) == -1)
        h.nfields = 0;                  /* cannot happen: it was made of parsed fields */
    for (unsigned i = 0; i < h.nfields; i++)
        if (again(&h.fields[i]))
            http_put(&b, h.fields[i].name, h.fields[i].value);
    r->outcome = OUTCOME_ACCEPTED;
    r->fwd = FWD_NONE;
    r->why = "repeated";
    status_put(r, &b, NULL);
    next = req_answer_as(r, a->status, buf_slice(&b), a->body);
    buf_free(&b);
    return next;
}

/* ---- the state of a write -------------------------------------------------------------------- */

bool
write_is_status(const struct request *r)
{
    return req_writes() != NULL && slice_starts(r->path, SLICE(PREFIX));
}

enum req_state
write_status(struct request *r)
{
    struct slice id = { r->path.p + sizeof PREFIX - 1, r->path.n - (sizeof PREFIX - 1) };
    struct writing *w = writing_of(r);

    if (r->head->method != HTTP_GET && r->head->method != HTTP_HEAD)
        return req_problem_with(r, 405, "the state of a write is read with GET or HEAD; what "
            "becomes of it is for operators to say", SLICE("Allow: GET, HEAD\r\n"));
    if (w == NULL)
        return write_no_memory(r);
    req_bind(r);
    w->step = STEP_LOOK;
    w->ask = write_look(req_writes(), conn_loop(r->conn), id, true, write_heard, r);
    return w->ask != NULL ? REQ_WRITE : write_no_memory(r);
}

enum req_state
acknowledge_look(struct request *r)
{
    const struct write_answer *a = &r->writing->answer;

    if (a->outcome == WRITE_UNKNOWN)
        return req_problem(r, 404, "no write has this id; it may have been settled long ago "
            "(journal.keep)");
    if (a->outcome != WRITE_OK)
        return req_problem_retry(r, 503, a->why, 1);
    return req_answer(r, 200, "application/json", a->json);
}
