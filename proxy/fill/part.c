/*
 * Parts: what is stored of a 206, combined with what is stored already, and completed.
 *
 * Model    a 206 is kept as a part of a 200: its head without Content-Range, its bytes, where they
 *          begin, and the size of the whole where that is known (RFC 9111 3.3). One part a variant.
 *          What comes combines with it when both have the same strong validator and size, and
 *          touch (RFC 9110 15.3.7.3); else the newer takes its place. Combining copies, so
 *          beyond COMBINE_MAX the newer takes its place too: who reads a large thing through piece
 *          by piece would have it copied for each; routes with `range.block` keep pieces apart.
 *          Who wants the whole of a part that reaches one end of it asks for the rest, under
 *          If-Range. Without a strong validator a 206 to that is of no use, and the whole is asked
 *          for again; a 200 is as good as any.
 *          Where Content-Range and the body's length disagree the size of the whole is not
 *          believed either, and nothing is ever combined with the part. Its bytes begin where
 *          Content-Range says; and when the end was asked for (first-, -n), they reach it.
 * Threads  home.
 */
#include "fill/flight.h"

#define COMBINE_MAX (16 << 20)

static struct sem_validator
validator(const struct object *o)
{
    return (struct sem_validator){
        { o->head->bytes + o->head->etag_at, o->head->etag_n },
        o->meta.last_modified_s, o->meta.date_ms / 1000,
    };
}

static struct sem_validator
validator_of(const struct http_head *h)
{
    int64_t now = wall_ms() / 1000, date = http_date(http_value(h, HF_DATE), now);

    return (struct sem_validator){ http_value(h, HF_ETAG),
        http_date(http_value(h, HF_LAST_MODIFIED), now), date != HTTP_NO_DATE ? date : now };
}

/* ---- asking for the rest --------------------------------------------------------------------- */

static void
put_if_range(const struct object *o, struct buf *b)
{
    struct sem_validator v = validator(o);
    char date[HTTP_DATE_LEN];

    if (sem_etag_strong_equal(v.etag, v.etag)) {
        http_put_id(b, HF_IF_RANGE, v.etag);
    } else if (v.etag.n == 0 && sem_strong_date(&v)) {
        http_date_put(date, v.last_modified_s);
        http_put_id(b, HF_IF_RANGE, (struct slice){ date, sizeof date });
    }
}

bool
part_ask(const struct object *o, int64_t max, struct buf *b)
{
    struct object_part p = object_part(o);
    uint64_t n = body_size(o->body);

    if (p.size == HTTP_SIZE_UNKNOWN || p.size > (uint64_t)max || (p.from > 0 && !p.ends))
        return false;
    if (p.from == 0)
        buf_printf(b, "Range: bytes=%llu-\r\n", (unsigned long long)n);
    else
        buf_printf(b, "Range: bytes=0-%llu\r\n", (unsigned long long)p.from - 1);
    put_if_range(o, b);
    return true;
}

/* What is stored for this request; a reference, or NULL. */
static struct object *
stored(struct flight *f)
{
    struct object *o = NULL;
    bool soft;

    rcu_begin();
    if (store_get(f->fills->store, &f->key, f->request, wall_ms(), &o, &soft) != STORE_HIT || soft)
        o = NULL;
    if (o != NULL)
        object_ref(o);
    rcu_end();
    return o;
}

/* A purge may have come since the request was: bytes from before it are not to be joined. One that
 * was evicted meanwhile is as good as it was. */
static bool
purged(struct flight *f)
{
    struct object *o = stored(f);
    bool there = o == f->part;

    object_unref(&o);
    return !there && store_stamp_outdated(f->fills->store, f->part->stamp, &f->key, f->route->id);
}

bool
part_answers(struct flight *f, const struct http_head *h)
{
    struct object_part p = object_part(f->part);
    struct sem_validator mine = validator(f->part), theirs = validator_of(h);
    uint64_t first = p.from == 0 ? body_size(f->part->body) : 0;
    uint64_t last = p.from == 0 ? p.size - 1 : p.from - 1;
    const struct http_field *field = http_find(h, HF_CONTENT_RANGE);
    struct http_content_range span;

    return h->status == 206 && field != NULL && http_content_range(field->value, &span) &&
        span.first == first && span.last == last && span.size == p.size &&
        (h->framing != HTTP_LENGTH || h->length == last - first + 1) &&
        sem_same_strong(&mine, &theirs) && !purged(f);
}

static int
append_body(struct body *to, const struct body *from, uint64_t skip)
{
    struct body_cursor c = { 0 };
    struct iovec iov[16];
    size_t n;

    if (skip > 0)
        body_skip(from, &c, skip);
    while ((n = body_pieces(from, &c, body_size(from), iov, NELEM(iov))) > 0)
        for (size_t i = 0; i < n; i++) {
            if (body_append(to, (struct slice){ iov[i].iov_base, iov[i].iov_len }) == -1)
                return -1;
            body_skip(from, &c, iov[i].iov_len);
        }
    return 0;
}

int
part_front(struct flight *f)
{
    return object_part(f->part).from == 0 ? append_body(f->body, f->part->body, 0) : 0;
}

bool
part_back(struct flight *f)
{
    struct object_part p = object_part(f->part);

    if (p.from > 0 && (body_size(f->body) != p.from ||
        append_body(f->body, f->part->body, 0) == -1))
        return false;
    return body_size(f->body) == p.size;
}

/* The stored head, updated by the fields that came with the newer bytes (RFC 9110 15.3.7.3). */
static int
merge(const struct flight *f, const struct object *o, const struct http_head *h, struct buf *b,
    struct head_marks *m)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head old = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    const struct stored_head *sh = o->head;

    if (http_parse_fields(sh->bytes + sh->status_n, sh->n - sh->status_n, &old) == -1)
        return -1;
    return head_merge(f, &old, h, (struct slice){ sh->bytes, sh->status_n }, b, m);
}

/* The Age of the newer bytes is no field of the stored head, but how old the whole is. */
struct slice
part_head(struct flight *f, const struct http_head *h, struct http_head *whole,
    struct head_marks *m)
{
    struct slice none = { NULL, 0 }, stored = none, all = none;
    struct buf b = { 0 };

    if (merge(f, f->part, h, &b, m) == 0) {
        stored = pool_slice(f->pool, buf_slice(&b));
        for (unsigned i = 0; i < h->nfields; i++)
            if (h->fields[i].id == HF_AGE)
                http_put_id(&b, HF_AGE, h->fields[i].value);
        if (!b.failed)
            all = pool_slice(f->pool, buf_slice(&b));
    }
    buf_free(&b);
    if (stored.p == NULL || all.p == NULL ||
        http_parse_fields(all.p + m->status_n, all.n - m->status_n, whole) == -1)
        return none;
    whole->status = 200;
    whole->minor = h->minor;
    whole->reason = SLICE("OK");
    whole->framing = HTTP_LENGTH;
    whole->length = object_part(f->part).size;
    return stored;
}

/* ---- storing --------------------------------------------------------------------------------- */

/* Was the end of the representation asked for? */
static bool
wants_end(const struct flight *f)
{
    struct http_range_spec spec;

    return http_range_single(f->range, &spec) && (spec.suffix || spec.last == UINT64_MAX);
}

static bool
fits(const struct flight *f, uint64_t n)
{
    uint64_t span = f->span.last - f->span.first + 1;

    return n == span || (n > 0 && n < span && f->bounded && wants_end(f));
}

/* To an If-Range of the client's a 206 may leave out the fields that the client has (15.3.7): it is
 * no head to answer others with. */
bool
part_storable(struct flight *f, const struct http_head *h, const char **why)
{
    f->bounded = h->framing == HTTP_LENGTH || h->framing == HTTP_CHUNKED;
    if (f->if_range.n > 0)
        *why = "if-range";
    else if (!http_content_range(http_value(h, HF_CONTENT_RANGE), &f->span) ||
        (h->framing == HTTP_LENGTH && !fits(f, h->length)))
        *why = "content-range";
    else
        return true;
    return false;
}

bool
part_place(const struct flight *f, struct object_part *p)
{
    uint64_t n = body_size(f->body);

    if (!fits(f, n))
        return false;
    *p = (struct object_part){ .from = f->span.first, .size = f->span.size };
    if (n < f->span.last - f->span.first + 1) {
        p->size = HTTP_SIZE_UNKNOWN;
        p->ends = true;
    } else {
        p->ends = p->size != HTTP_SIZE_UNKNOWN ? f->span.last + 1 == p->size : wants_end(f);
    }
    return true;
}

/* Do bytes at a and bytes at b make one run? */
static bool
touch(const struct object_part *a, uint64_t an, const struct object_part *b, uint64_t bn)
{
    return a->size == b->size && a->size != HTTP_SIZE_UNKNOWN && a->from <= b->from + bn &&
        b->from <= a->from + an;
}

/* The run of both: the newer bytes, with those of the older before and behind. NULL: memory out. */
static struct body *
joined(const struct object_part *a, const struct body *newer, const struct object_part *b,
    const struct body *older)
{
    uint64_t a_end = a->from + body_size(newer), b_end = b->from + body_size(older);
    uint64_t from = a->from < b->from ? a->from : b->from, end = a_end > b_end ? a_end : b_end;
    struct body *out = body_new(end - from);
    struct body_cursor c = { 0 };
    struct iovec iov[16];
    int rc = 0;
    size_t n;

    while (out != NULL && rc == 0 && b->from < a->from && c.at < a->from - b->from &&
        (n = body_pieces(older, &c, a->from - b->from, iov, NELEM(iov))) > 0)
        for (size_t i = 0; i < n && rc == 0; i++) {
            rc = body_append(out, (struct slice){ iov[i].iov_base, iov[i].iov_len });
            body_skip(older, &c, iov[i].iov_len);
        }
    if (out != NULL && rc == 0)
        rc = append_body(out, newer, 0);
    if (out != NULL && rc == 0 && b_end > a_end)
        rc = append_body(out, older, a_end - b->from);
    if (out != NULL && rc == -1)
        body_unref(&out);
    if (out != NULL)
        body_seal(out);
    return out;
}

/* Both in one body. */
static enum store_result
put_joined(struct flight *f, struct store_parts *p, const struct object *o, struct object **out)
{
    struct object_part old = object_part(o), place = *p->part;
    struct body *body = joined(p->part, f->body, &old, o->body);
    enum store_result got = STORE_NO_MEMORY;
    uint64_t held = 0;

    if (body == NULL)
        return got;
    place.from = old.from < place.from ? old.from : place.from;
    place.ends = place.from + body_size(body) == place.size;
    p->part = &place;
    if (place.from == 0 && place.ends) {
        struct buf b = { 0 };

        buf_adds(&b, p->head);
        publish_length(&b, 200, body);
        p->head = b.failed ? (struct slice){ NULL, 0 } : pool_slice(f->pool, buf_slice(&b));
        buf_free(&b);
        p->meta.flags &= (uint16_t)~META_PARTIAL;
    }
    p->body = body;
    p->held = &held;
    if (p->head.p != NULL && store_hold(f->fills->store, &held, body_held(body)))
        got = store_put(f->fills->store, p, out);
    store_hold(f->fills->store, &held, 0);
    body_unref(&body);
    return got;
}

static bool
combines(const struct flight *f, const struct store_parts *p, const struct object *o)
{
    struct sem_validator mine = validator(o), theirs = validator_of(f->view.response);
    struct object_part old = object_part(o);
    uint64_t n = body_size(f->body), m = body_size(o->body), max = (uint64_t)f->route->max_object;

    return (o->meta.flags & META_PARTIAL) && (p->meta.flags & META_PARTIAL) &&
        touch(p->part, n, &old, m) && n + m <= (max < COMBINE_MAX ? max : COMBINE_MAX) &&
        sem_same_strong(&mine, &theirs);
}

/* The groups of what is stored are those of its latest head (RFC 9875): where the newer bytes came
 * without, nobody could find the older by theirs. */
static bool
loses_groups(const struct http_head *h, const struct buf *merged, const struct head_marks *m)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head both = { .fields = fields, .cap = HTTP_FIELDS_MAX };

    return http_parse_fields(merged->p + m->status_n, merged->n - m->status_n, &both) == -1 ||
        (http_has(&both, HF_CACHE_GROUPS) && !http_has(h, HF_CACHE_GROUPS));
}

/* A whole that is stored and fresh has what the part has, and more. */
enum store_result
part_publish(struct flight *f, struct store_parts *p, struct object **out)
{
    struct object *o = stored(f);
    enum store_result got = STORE_OLDER;
    struct head_marks m;
    struct buf b = { 0 };

    if (o == NULL || (o->meta.flags & META_PARTIAL) ||
        sem_age_ms(&o->meta, wall_ms()) >= o->meta.lifetime_ms) {
        if (o != NULL && combines(f, p, o) && merge(f, o, f->view.response, &b, &m) == 0 &&
            !loses_groups(f->view.response, &b, &m)) {
            p->head = buf_slice(&b);
            p->status_n = m.status_n;
            p->etag_at = m.etag_at;
            p->etag_n = m.etag_n;
            got = put_joined(f, p, o, out);
        } else {
            got = store_put(f->fills->store, p, out);
        }
    }
    buf_free(&b);
    object_unref(&o);
    return got;
}
