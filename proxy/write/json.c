/*
 * A write as JSON: for its writer, and for operators.
 *
 * Secrets  fields that carry credentials are named, their values are not told.
 * Threads  the write loop.
 */
#include "write/priv.h"

#include <stdio.h>
#include <time.h>

#define BODY_SHOWN 4096                 /* of an answer's content */

void
json_time(struct buf *b, int64_t ms)
{
    time_t s = (time_t)(ms / 1000);
    struct tm tm;

    gmtime_r(&s, &tm);
    buf_printf(b, "\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", tm.tm_year + 1900, tm.tm_mon + 1,
        tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(ms % 1000));
}

static void
text(struct buf *b, const char *name, struct slice s)
{
    if (s.p == NULL)
        return;
    buf_printf(b, ",\"%s\":\"", name);
    buf_json(b, s);
    buf_addc(b, '"');
}

static void
when(struct buf *b, const char *name, int64_t ms)
{
    if (ms <= 0)
        return;
    buf_printf(b, ",\"%s\":", name);
    json_time(b, ms);
}

static bool
is_secret(struct slice name)
{
    enum http_id id = http_id(name);

    return id == HF_AUTHORIZATION || id == HF_COOKIE || id == HF_SET_COOKIE ||
        slice_ieq(name, SLICE("Proxy-Authorization")) ||
        slice_ieq(name, SLICE("X-Api-Key")) || slice_ieq(name, SLICE("Idempotency-Key"));
}

/* [["Name","value"], ...] */
static void
put_lines(struct buf *b, const char *name, struct slice lines)
{
    struct slice line, field;
    const char *before = "";

    buf_printf(b, ",\"%s\":[", name);
    while (slice_cut(&lines, '\n', &line)) {
        if (!slice_cut(&line, ':', &field) || line.p == NULL)
            continue;
        if (line.n > 0 && line.p[line.n - 1] == '\r')
            line.n--;
        buf_printf(b, "%s[\"", before);
        buf_json(b, field);
        buf_addz(b, "\",\"");
        buf_json(b, is_secret(field) ? SLICE("(hidden)") : slice_trim(line));
        buf_addz(b, "\"]");
        before = ",";
    }
    buf_addc(b, ']');
}

/* Why a pending one does not go, for its writer too. */
static void
put_held(struct writes *w, struct buf *b, const struct write_row *r)
{
    struct schedule_figures f;

    if (!write_is_pending(r->state))
        return;
    schedule_figures_of(w->schedule, r->route, &f);
    if (f.held || f.paused || f.origin_paused || f.down || w->paused)
        text(b, "held", f.held ? SLICE("no such route now") : f.down ?
            SLICE("the origin cannot be reached") : SLICE("paused"));
}

static void
put_more(struct writes *w, struct buf *b, const struct json_row *j)
{
    static const char *const lanes[] = { "high", "default", "low" };
    const struct write_content *c = j->content;

    text(b, "route", journal_route_name(w->j, j->row->route));
    buf_printf(b, ",\"lane\":\"%s\"", lanes[j->row->lane % WRITE_LANES]);
    if (c == NULL)
        return;
    text(b, "key", c->order_key);
    put_lines(b, "fields", c->fields);
    buf_printf(b, ",\"content_bytes\":%zu", c->body.n);
    if (c->answer_head.p != NULL)
        put_lines(b, "answer_fields", c->answer_head);
    if (c->answer_body.p != NULL)
        text(b, "answer", (struct slice){ c->answer_body.p,
            c->answer_body.n < BODY_SHOWN ? c->answer_body.n : BODY_SHOWN });
}

void
json_write(struct writes *w, struct buf *b, const struct json_row *j)
{
    const struct write_row *r = j->row;
    char id[WRITE_ID_N + 1];

    journal_id(w->j, r->seq, id);
    buf_printf(b, "{\"id\":\"%s\",\"state\":\"%s\"", id, write_state_name(r->state));
    if (j->position >= 0)
        buf_printf(b, ",\"position\":%lld", (long long)j->position);
    if (j->content != NULL) {
        text(b, "method", j->content->method_name);
        text(b, "url", j->content->url);
    }
    when(b, "accepted", r->accepted_ms);
    if (r->state == WRITE_WAITING)
        when(b, "due", r->due_ms);
    if (!write_is_pending(r->state))
        when(b, "settled", r->settled_ms);
    buf_printf(b, ",\"attempts\":%u", r->attempts);
    if (r->status != 0)
        buf_printf(b, ",\"status\":%u", r->status);
    if (j->content != NULL && j->content->cause.n > 0)
        text(b, "cause", j->content->cause);
    put_held(w, b, r);
    if (!j->brief)
        put_more(w, b, j);
    buf_addc(b, '}');
}
