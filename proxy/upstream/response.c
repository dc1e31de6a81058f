/*
 * The way back: interim responses, the head, the body by its framing, what comes behind it.
 *
 * Model    exchange_on_bytes gets what is there, calls the exchange's events with slices of it and
 *          says how much it took; what it leaves (half a head, or anything while paused) comes
 *          again in front of the next bytes. Every callback may pause or cancel, so each step looks
 *          at the exchange again.
 * Not here what happens to the connection afterwards (exchange_complete, exchange_broken).
 */
#include "upstream/internal.h"

#define INTERIMS_MAX 64                 /* 1xx before a final response: more is a loop */
#define BAD_CHUNKS   "the chunked coding of the response is broken"

static bool
over(const struct exchange *x)
{
    return x->cancelled || x->state == X_DONE;
}

static void
bad(struct exchange *x, const char *detail)
{
    exchange_broken(x, 502, "http_protocol_error", detail);
}

/* ---- the head ---------------------------------------------------------------------------- */

static void
got_interim(struct exchange *x, const struct http_head *h)
{
    if (++x->interims > INTERIMS_MAX)
        bad(x, "the origin sent too many interim responses");
    else if (h->status == 100)
        exchange_body_go(x);            /* swallowed, asked for or not (RFC 9110 10.1.1) */
    else if (x->ev->on_interim != NULL)
        x->ev->on_interim(x->arg, h);
}

/* Only to what was asked for may be switched, and to nothing else beside it (RFC 9110 7.8). */
static bool
asked_for(const struct exchange *x, const struct http_head *h)
{
    struct http_list it = { 0 };
    struct slice protocol;
    size_t n = 0;

    if (x->upgrade.n == 0 || !(h->flags & HTTP_UPGRADING))
        return false;
    for (; http_list_next(h, HF_UPGRADE, &it, &protocol); n++)
        if (!slice_ieq(protocol, x->upgrade))
            return false;
    return n == 1;
}

static void
got_switch(struct exchange *x, struct http_head *h)
{
    if (!asked_for(x, h) || !exchange_sent(x)) {
        bad(x, "the origin switched to a protocol that nobody asked for");
        return;
    }
    h->framing = HTTP_NO_BODY;
    x->head_us = now_us();
    x->state = X_TUNNEL;
    x->spilt = true;
    x->ended = false;
    x->out.n = x->out_off = 0;
    exchange_limit(x);
    x->ev->on_head(x->arg, h);
}

/* More than was promised: whose bytes those are nobody can tell (RFC 9112 9.2), and so nor whether
 * those before them are right. An operator who knows may have them discarded. */
static void
too_much(struct exchange *x)
{
    bad(x, "the origin sent more than it promised");
}

/* What is wrong with the body as far as it is there, in time: nothing was passed on yet. */
static bool
wrong_already(struct exchange *x, const struct http_head *h, struct slice in)
{
    struct http_chunked c = { 0 };
    enum http_chunk got = HTTP_CHUNK_MORE;
    struct slice data;

    if (h->framing == HTTP_CHUNKED)
        while ((got = http_chunked_next(&c, &in, &data)) == HTTP_CHUNK_DATA)
            ;
    http_chunked_free(&c);
    if (got == HTTP_CHUNK_BAD)
        bad(x, BAD_CHUNKS);
    else if (x->o->discard_surplus)
        return false;
    else if ((h->framing == HTTP_NO_BODY || got == HTTP_CHUNK_END) ? in.n > 0
        : h->framing == HTTP_LENGTH && in.n > h->length)
        too_much(x);
    return x->state == X_DONE;
}

/* `in`: what is there behind the head. */
static void
got_final(struct exchange *x, struct http_head *h, struct slice in)
{
    struct http_fault f = { 0 };

    if (http_response_framing(h, x->method, &f) == -1) {
        bad(x, f.why);
        return;
    }
    if (wrong_already(x, h, in))
        return;
    x->head_us = now_us();
    x->state = X_BODY;
    x->spilt = true;
    x->framing = h->framing;
    x->todo = h->framing == HTTP_LENGTH ? h->length : 0;
    x->close = (h->flags & HTTP_CLOSE) != 0;
    stats_origin(x->s->stats, ORIGIN_FIRST_BYTE, (uint64_t)(x->head_us - x->try_us));
    if (x->probe) {
        balance_result(x->o, x->s, SERVER_WORKS, true);
        x->probe = false;
    }
    x->ev->on_head(x->arg, h);
}

/* Takes one head from *in: false when there is none yet, or it was the last straw. */
static bool
take_head(struct exchange *x, struct slice *in)
{
    /* What is too large is found here, also when a read filled the whole buffer. */
    static const struct http_limits limits = { .head = HEAD_MAX + READ_MAX + 1, .uri = HEAD_MAX,
        .fields = HTTP_FIELDS_MAX };
    struct http_head h = { .fields = x->w->fields, .cap = HTTP_FIELDS_MAX };
    struct http_fault f = { 0 };
    ssize_t n = http_parse_response(in->p, in->n, &limits, &h, &f);

    if (n == 0 && in->n <= HEAD_MAX)
        return false;
    if (n == -1) {
        bad(x, f.why);
        return false;
    }
    if (n == 0 || n > HEAD_MAX) {
        exchange_broken(x, 502, "http_response_header_section_size",
            "the head of the response is too large");
        return false;
    }
    in->p += n;
    in->n -= (size_t)n;
    if (h.status == 101)
        got_switch(x, &h);
    else if (h.status < 200)
        got_interim(x, &h);
    else
        got_final(x, &h, *in);
    return true;
}

/* ---- the body ---------------------------------------------------------------------------- */

/* The body is complete. What follows it in the same bytes was asked for by nobody, as a request is
 * sent when the response before it is done: then it is no end. */
static void
body_done(struct exchange *x, const struct slice *in, struct slice trailer)
{
    if (in->n > 0 && !x->o->discard_surplus)
        too_much(x);
    else
        exchange_complete(x, in->n == 0, trailer);
}

static bool
take_plain(struct exchange *x, struct slice *in)
{
    struct slice data = *in;

    if (x->framing == HTTP_LENGTH && data.n > x->todo)
        data.n = (size_t)x->todo;
    in->p += data.n;
    in->n -= data.n;
    x->todo -= x->framing == HTTP_LENGTH ? data.n : 0;
    x->ev->on_data(x->arg, data);
    return true;
}

static bool
take_chunked(struct exchange *x, struct slice *in)
{
    struct slice data;

    switch (http_chunked_next(&x->chunked, in, &data)) {
    case HTTP_CHUNK_DATA:
        x->ev->on_data(x->arg, data);
        return true;
    case HTTP_CHUNK_END:
        body_done(x, in, buf_slice(&x->chunked.trailer));
        return false;
    case HTTP_CHUNK_MORE:
        return false;
    default:
        bad(x, BAD_CHUNKS);
        return false;
    }
}

static bool
take_body(struct exchange *x, struct slice *in)
{
    if (x->framing == HTTP_NO_BODY || (x->framing == HTTP_LENGTH && x->todo == 0)) {
        body_done(x, in, (struct slice){ NULL, 0 });
        return false;
    }
    if (in->n == 0)
        return false;
    return x->framing == HTTP_CHUNKED ? take_chunked(x, in) : take_plain(x, in);
}

/* ---- what the connection tells ----------------------------------------------------------- */

size_t
exchange_on_bytes(struct exchange *x, struct slice in)
{
    size_t had = in.n;
    bool more = true;

    exchange_enter(x);
    x->received = x->received || in.n > 0;
    while (more && !over(x) && !x->paused) {
        if (x->state == X_HEAD)
            more = in.n > 0 && take_head(x, &in);
        else if (x->state == X_BODY)
            more = take_body(x, &in);
        else if (x->state == X_TUNNEL && in.n > 0) {
            struct slice data = in;

            in.n = 0;
            x->ev->on_data(x->arg, data);
        } else
            more = false;
    }
    x->mid_head = x->state == X_HEAD && in.n > 0;
    if (!over(x))
        exchange_limit(x);
    exchange_leave(x);
    return had - in.n;
}

/* A tunnel ends one way at a time. Over TLS both ways end at once: a close_notify is mostly all
 * that comes before the connection is gone (RFC 8446 6.1). */
static bool
half_closes(const struct exchange *x)
{
    return x->state == X_TUNNEL && !x->s->https && !x->finished && !x->cut &&
        x->ev->on_half_close != NULL;
}

void
exchange_on_eof(struct exchange *x)
{
    struct wire *c = x->c;
    bool ends = x->state == X_TUNNEL || (x->state == X_BODY && x->framing == HTTP_UNTIL_CLOSE);

    if (half_closes(x)) {
        x->half_closed = true;
        wire_read(c, false);
        exchange_enter(x);
        x->ev->on_half_close(x->arg);
        exchange_leave(x);
    } else if (ends)
        exchange_complete(x, false, (struct slice){ NULL, 0 });
    else
        wire_trouble(c, WIRE_RESET);
}
