/*
 * Response heads: what of an origin's response goes to clients, and what of it is stored.
 *
 * Model    a head is written once, as bytes: status line, the fields that may cross a proxy
 *          (RFC 9110 7.6.1) after the route's edits, Via, and a Date where the origin sent none
 *          (6.6.1). A 206 is kept as the head of the 200 that it is a part of (15.3.7.3). Framing,
 *          Age and Cache-Status are added at delivery. What is stored lacks what must not be
 *          replayed (sem_keeps).
 */
#include "fill/compress.h"

static void
put_field(struct buf *b, const struct http_field *f, struct head_marks *m)
{
    http_put(b, f->name, f->value);
    if (f->id == HF_ETAG && m->etag_n == 0) {
        m->etag_at = (uint32_t)(b->n - 2 - f->value.n);
        m->etag_n = (uint32_t)f->value.n;
    }
}

static void
put_via(const struct flight *f, unsigned minor, struct buf *b)
{
    buf_addz(b, minor > 0 ? "Via: 1.1 " : "Via: 1.0 ");
    buf_adds(b, f->via);
    buf_addz(b, "\r\n");
}

static void
put_date(struct buf *b)
{
    char date[HTTP_DATE_LEN];

    http_date_put(date, wall_ms() / 1000);
    http_put_id(b, HF_DATE, (struct slice){ date, sizeof date });
}

/* Appends the head of response h. 0, or -1 when memory is out. */
int
head_build(const struct flight *f, const struct http_head *h, enum head_for who, struct buf *b,
    struct head_marks *m)
{
    const struct route_edit *edit = &f->route->response;
    bool stored = who != HEAD_STARTER, part = who == HEAD_STORED && h->status == 206;
    struct sem_cc cc;

    *m = (struct head_marks){ 0 };
    if (stored)
        sem_cc_response(h, f->rules, &cc);
    buf_addz(b, "HTTP/1.1 ");
    buf_addu(b, part ? 200 : h->status);
    buf_addc(b, ' ');
    buf_adds(b, part ? SLICE("OK") : h->reason);
    buf_addz(b, "\r\n");
    m->status_n = (uint32_t)b->n;
    for (unsigned i = 0; i < h->nfields; i++) {
        const struct http_field *field = &h->fields[i];

        if (!http_forwards(h, field) || field->id == HF_CONTENT_LENGTH ||
            (part && field->id == HF_CONTENT_RANGE) ||
            (stored && !sem_keeps(h, &cc, field)) || route_edit_takes(edit, field->name))
            continue;
        put_field(b, field, m);
    }
    route_edit_put(edit, b);
    put_via(f, h->minor, b);
    if (!http_has(h, HF_DATE))
        put_date(b);
    compress_vary(f->route, h->status, m->status_n, b);
    return b->failed ? -1 : 0;
}

/* Is there a field of the same name in the 304 that replaces stored ones (RFC 9111 3.2)? */
static bool
replaced(const struct route_edit *edit, const struct http_head *r304, const struct sem_cc *cc,
    const struct http_field *old)
{
    if (old->id == HF_VIA || route_edit_takes(edit, old->name))
        return false;                   /* ours, or the route's word: it stays */
    for (unsigned i = 0; i < r304->nfields; i++) {
        const struct http_field *f = &r304->fields[i];

        if (f->id == old->id && (f->id != HF_NONE || slice_ieq(f->name, old->name)) &&
            http_forwards(r304, f) && sem_304_updates(r304, cc, f))
            return true;
    }
    return false;
}

/* Of a status line that we wrote: "HTTP/1.1 200". */
static unsigned
status_of(struct slice line)
{
    uint64_t status = 0;

    slice_u64((struct slice){ line.p + 9, 3 }, &status);
    return (unsigned)status;
}

/* Appends the stored head `old` as the 304 freshens it. Via and Date are among the fields: the
 * 304's Date replaces the stored one, and the stored Via stays. */
int
head_merge(const struct flight *f, const struct http_head *old, const struct http_head *r304,
    struct slice old_status, struct buf *b, struct head_marks *m)
{
    const struct route_edit *edit = &f->route->response;
    struct sem_cc cc;

    *m = (struct head_marks){ 0 };
    sem_cc_response(r304, f->rules, &cc);
    buf_adds(b, old_status);
    m->status_n = (uint32_t)b->n;
    for (unsigned i = 0; i < old->nfields; i++)
        if (old->fields[i].id != HF_CONTENT_LENGTH && !replaced(edit, r304, &cc, &old->fields[i]) &&
            !(old->fields[i].id == HF_DATE && !http_has(r304, HF_DATE)))
            put_field(b, &old->fields[i], m);
    for (unsigned i = 0; i < r304->nfields; i++) {
        const struct http_field *field = &r304->fields[i];

        if (!http_forwards(r304, field) || !sem_304_updates(r304, &cc, field) ||
            field->id == HF_VIA || !sem_keeps(r304, &cc, field) ||
            route_edit_takes(edit, field->name))
            continue;
        put_field(b, field, m);
    }
    if (!http_has(r304, HF_DATE))
        put_date(b);
    compress_vary(f->route, status_of(old_status), m->status_n, b);
    return b->failed ? -1 : 0;
}

void
head_again(const struct http_head *h, struct slice status, struct buf *b, struct head_marks *m)
{
    *m = (struct head_marks){ 0 };
    buf_adds(b, status);
    m->status_n = (uint32_t)b->n;
    for (unsigned i = 0; i < h->nfields; i++)
        put_field(b, &h->fields[i], m);
}

/* ---- what is remembered of a response that is not stored ------------------------------------- */

#define REMEMBERED_MAX 2048             /* bytes: a mark is small */

/* Does it bear on storing? */
static bool
is_weighed(const struct flight *f, const struct http_field *field)
{
    const struct sem_names *targets = &f->rules->targets;

    switch (field->id) {
    case HF_AGE: case HF_CACHE_CONTROL: case HF_DATE: case HF_ETAG: case HF_EXPIRES:
    case HF_LAST_MODIFIED: case HF_PRAGMA: case HF_SET_COOKIE: case HF_VARY:
        return true;
    default:
        break;
    }
    for (size_t i = 0; i < targets->n; i++)
        if (slice_ieq(field->name, targets->names[i]))
            return true;
    return slice_ieq(field->name, SLICE("Clear-Site-Data")) ||
        slice_ieq(field->name, SLICE("Content-Range"));
}

/* Of what is about one client the name alone. */
void
head_remember(const struct flight *f, const struct http_head *h, const char *why,
    int64_t until_ms)
{
    struct store_refusal r = { .why = slice_of(why), .status = h->status, .at_ms = wall_ms(),
        .until_ms = until_ms };
    struct buf b = { 0 };

    for (unsigned i = 0; i < h->nfields; i++) {
        const struct http_field *field = &h->fields[i];

        if (is_weighed(f, field) && b.n + field->name.n + field->value.n + 4 <= REMEMBERED_MAX)
            http_put(&b, field->name, sem_of_one_exchange(field) ? SLICE("") : field->value);
    }
    if (!b.failed)
        r.head = buf_slice(&b);
    store_refuse(f->fills->store, &f->key, &r);
    buf_free(&b);
}
