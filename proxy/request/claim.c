/*
 * The answer to a request whose Idempotency-Key was claimed: kept, so that a repetition gets it
 * too.
 *
 * Model    content is copied as it passes to the client, up to WRITE_ANSWER_MAX; what is longer, or
 *          breaks off, is remembered by its status alone. The key is free again where the origin
 *          never saw the request, where a repetition changes nothing (RFC 9110 9.2.2), and where
 *          the origin asks for another try of what it did not do (425, 429). In all other cases the
 *          key keeps the first answer, or that its fate is unknown.
 *          A client that leaves does not end this: what is at the origin is read to its end.
 */
#include "request/writing.h"

#define PIECES 8

void
claim_release(struct request *r)
{
    struct writing *w = r->writing;

    if (w == NULL || w->claim[0] == '\0')
        return;
    write_claim_released(req_writes(), w->claim);
    w->claim[0] = '\0';
}

void
claim_lost(struct request *r)
{
    const struct slice none = { NULL, 0 };
    struct writing *w = r->writing;

    if (w == NULL || w->claim[0] == '\0')
        return;
    write_claim_ended(req_writes(), w->claim, 0, none, none);
    w->claim[0] = '\0';
}

static void
take(struct writing *w, const struct body *body)
{
    struct iovec iov[PIECES];
    uint64_t size = body_size(body);

    while (!w->too_long && w->cursor.at < size) {
        size_t n = body_pieces(body, &w->cursor, size, iov, PIECES);

        for (size_t i = 0; i < n; i++) {
            buf_add(&w->said, iov[i].iov_base, iov[i].iov_len);
            body_skip(body, &w->cursor, iov[i].iov_len);
        }
        w->too_long = w->said.n > WRITE_ANSWER_MAX || w->said.failed;
    }
}

static void
end(struct request *r, const struct fill_view *v, bool whole)
{
    struct writing *w = r->writing;
    struct slice body = { NULL, 0 };

    if (whole && !w->too_long)
        body = (struct slice){ w->said.n > 0 ? w->said.p : "", w->said.n };
    if (v->status == 425 || v->status == 429)
        write_claim_released(req_writes(), w->claim);
    else
        write_claim_ended(req_writes(), w->claim, v->status,
            (struct slice){ v->head.p + v->status_n, v->head.n - v->status_n }, body);
    w->claim[0] = '\0';
    buf_free(&w->said);
}

void
claim_saw(struct request *r, const struct fill_view *v)
{
    struct writing *w = r->writing;

    if (w == NULL || w->claim[0] == '\0' || v->state != FILL_HEAD)
        return;
    take(w, v->body);
    if (v->complete || v->broken || w->too_long)
        end(r, v, v->complete);
}

/* The claim itself may still be on its way: then nobody has sent anything, and it is released. */
static bool
unclaimed(struct request *r)
{
    struct writing *w = r->writing;

    if (w->step != STEP_CLAIM)
        return true;
    if (w->ask != NULL)
        return false;
    if (w->answered && w->answer.outcome == WRITE_OK) {
        memcpy(w->claim, w->answer.id, sizeof w->claim);
        claim_release(r);
    }
    w->answered = false;
    return true;
}

static bool
was_sent(const struct request *r)
{
    struct exchange_times t = { .wait_us = -1 };

    (void)fill_server(r->fill, &t);
    return t.wait_us >= 0;
}

bool
claim_settled(struct request *r)
{
    struct writing *w = r->writing;
    struct fill_view v;

    if (w == NULL)
        return true;
    if (!unclaimed(r))
        return false;
    if (w->claim[0] == '\0' || r->fill == NULL)
        return true;
    fill_look(r->fill, &v);
    switch (v.state) {
    case FILL_HEAD:
        claim_saw(r, &v);
        fill_consumed(r->fill, body_size(v.body));
        if (w->claim[0] != '\0' && forward_stay(r))
            return false;
        if (w->claim[0] != '\0')
            end(r, &v, false);
        return true;
    case FILL_FAULT:
        (void)write_instead(r, v.fault);
        return true;
    default:
        if (was_sent(r))
            claim_lost(r);
        else
            claim_release(r);
        return true;
    }
}
