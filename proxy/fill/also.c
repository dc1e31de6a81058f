/*
 * What is also the answer to a GET: a response to a POST or a PUT that encloses its own target (RFC
 * 9110 8.7, 9.3.3), the content of a PUT, what a QUERY names as the resource of its result (RFC
 * 10008 2.3).
 *
 * Model    the want says that this may be (`also`). When the head comes the flight judges whether
 *          the response may be stored so, and then keeps its body, private or not. Under which key,
 *          as of which purge sequence and whether at all (the gate), only who asked can say:
 *          fill_store_as. What comes later of that and of the body's end publishes. Nobody joins on
 *          that account: the flight is known by its own key, if it has one.
 *          Content that was sent is stored with the fields that describe it, and with all of the
 *          response that is not about the response's own content: validators there are those of
 *          what was sent (RFC 9110 9.3.4).
 * Threads  home loop.
 * Not here what may be trusted of Content-Location, the order with the purge of a write, and what
 *          gates are for (write/).
 */
#include "fill/compress.h"

/* Fields that say what came of a write, and nothing to who reads. */
static bool
is_outcome(const struct http_field *f)
{
    return f->id == HF_LOCATION || f->id == HF_CACHE_GROUP_INVALIDATION ||
        f->id == HF_RETRY_AFTER || slice_ieq(f->name, SLICE("Preference-Applied"));
}

/* Fields about the content that they come with. */
static bool
is_of_content(const struct http_field *f)
{
    static const char *const names[] = { "Content-Digest", "Content-Disposition", "Content-MD5",
        "Digest", "Repr-Digest" };

    switch (f->id) {
    case HF_CONTENT_ENCODING: case HF_CONTENT_LANGUAGE: case HF_CONTENT_LENGTH:
    case HF_CONTENT_LOCATION: case HF_CONTENT_RANGE: case HF_CONTENT_TYPE:
        return true;
    default:
        break;
    }
    for (size_t i = 0; i < NELEM(names); i++)
        if (slice_ieq(f->name, slice_of(names[i])))
            return true;
    return false;
}

static bool
describes_content(const struct http_field *f)
{
    return f->id == HF_CONTENT_TYPE || f->id == HF_CONTENT_ENCODING ||
        f->id == HF_CONTENT_LANGUAGE;
}

static void
take(struct http_head *to, const struct http_field *f)
{
    to->fields[to->nfields++] = *f;
    if (f->id != HF_NONE)
        to->have[f->id >> 6] |= UINT64_C(1) << (f->id & 63);
}

/* The head that a GET gets where a write got h: with the content of h, or with that of `request`.
 * `fields` has room for HTTP_FIELDS_MAX, which both together may exceed: false then. */
static bool
head_of_get(const struct http_head *h, const struct http_head *request, struct http_field *fields,
    struct http_head *to)
{
    bool sent = request != NULL;

    *to = *h;
    to->fields = fields;
    to->cap = HTTP_FIELDS_MAX;
    to->nfields = 0;
    to->have[0] = to->have[1] = 0;
    if (h->status != 200) {
        to->status = 200;
        to->reason = slice_of(http_reason(200));
    }
    for (unsigned i = 0; i < h->nfields; i++)
        if (!is_outcome(&h->fields[i]) && !(sent && is_of_content(&h->fields[i])))
            take(to, &h->fields[i]);
    for (unsigned i = 0; sent && i < request->nfields; i++) {
        if (!describes_content(&request->fields[i]))
            continue;
        if (to->nfields == to->cap)
            return false;
        take(to, &request->fields[i]);
    }
    return true;
}

static struct slice
built(struct flight *f, const struct http_head *h, struct head_marks *m)
{
    struct slice s = { NULL, 0 };
    struct buf b = { 0 };

    if (head_build(f, h, HEAD_OTHERS, &b, m) == 0)
        s = pool_slice(f->pool, buf_slice(&b));
    buf_free(&b);
    return s;
}

/* A coding that the route's own forms cannot stand beside. */
static bool
misfits(const struct flight *f, const struct http_head *h)
{
    return compress_misfit(f->route, h) || (f->route->compress.n > 0 && sem_coded(h));
}

/* As far as the head tells. */
bool
also_judge(struct flight *f, const struct http_head *h, bool stored)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head get;

    if (f->also == 0 || (!stored && f->mode != FILL_PRIVATE) ||
        (!http_has(h, HF_CONTENT_LOCATION) && !(f->also & FILL_ALSO_UNLOCATED)) ||
        !sem_store_as_get(&f->semantics, h, f->rules, (f->also & FILL_ALSO_ASSUMED) != 0,
            f->request_ms, wall_ms(), &f->also_meta) ||
        (h->framing == HTTP_LENGTH && h->length > (uint64_t)f->route->max_object) ||
        (!stored && !flight_may_vary(f, h)) || misfits(f, h) ||
        !head_of_get(h, NULL, fields, &get))
        return false;
    if (f->gunzip != NULL)
        f->also_meta.flags |= META_DECODED;
    f->also_head = built(f, &get, &f->also_marks);
    return f->also_head.p != NULL;
}

/* false: it is not stored. */
static bool
put(struct flight *f, struct store_parts *p, const struct http_head *h, struct slice head,
    const struct fill_gate *gate)
{
    struct object *o = NULL;
    int r = flight_publish(f, p, h, head, gate, &o);

    if (r == STORE_STORED)
        object_unref(&o);
    return r == STORE_STORED || r == STORE_OLDER;
}

static void
publish(struct flight *f)
{
    struct store_parts parts = {
        .key = &f->also_key, .status_n = f->also_marks.status_n, .etag_at = f->also_marks.etag_at,
        .etag_n = f->also_marks.etag_n, .meta = f->also_meta, .stamp = f->also_stamp,
        .body = f->body, .held = f->held > 0 ? &f->held : NULL,
    };

    f->also_over = true;
    f->also_stored = put(f, &parts, f->view.response, f->also_head, &f->also_gate);
}

void
also_ended(struct flight *f)
{
    if (f->also_head.p != NULL && f->also_key.bytes.p != NULL)
        publish(f);
}

static bool
shut(void *arg)
{
    (void)arg;
    return false;
}

void
also_shut(struct flight *f)
{
    static const struct fill_gate closed = { .enter = shut };

    if (f->gate.enter != NULL)
        f->gate = closed;
    if (f->also_gate.enter != NULL)
        f->also_gate = closed;
}

void
fill_store_as(struct fill *r, const struct key *key, uint64_t stamp, const struct fill_gate *gate)
{
    struct flight *f = r->flight;

    if (f == NULL || !r->starter || f->also_head.p == NULL || f->also_key.bytes.p != NULL)
        return;
    f->also_key = *key;
    f->also_key.bytes = pool_slice(f->pool, key->bytes);
    f->also_stamp = stamp;
    f->also_gate = *gate;
    if (f->also_key.bytes.p != NULL && f->view.complete && f->also_whole)
        publish(f);
}

enum fill_as
fill_stored_as(const struct fill *r)
{
    const struct flight *f = r->flight;

    if (f->also_over)
        return f->also_stored ? FILL_AS_STORED : FILL_AS_NOT;
    return f->also_key.bytes.p != NULL && f->x != NULL && atomic_load(&f->storing) ?
        FILL_AS_WAITS : FILL_AS_NOT;
}

enum fill_as
fill_store_sent(struct fill *r, const struct key *key, uint64_t stamp,
    const struct fill_gate *gate, const struct http_head *request, struct body *content,
    uint64_t *held)
{
    struct store_parts parts = { .key = key, .stamp = stamp, .body = content, .held = held };
    struct flight *f = r->flight;
    struct http_field fields[HTTP_FIELDS_MAX];
    struct head_marks m;
    struct http_head get;
    struct slice head;

    if (f == NULL || !r->starter || f->view.response == NULL ||
        !head_of_get(f->view.response, request, fields, &get) ||
        !sem_store_as_get(&f->semantics, &get, f->rules, true, f->request_ms, wall_ms(),
            &parts.meta) ||
        misfits(f, &get) || !flight_may_vary(f, &get) || (head = built(f, &get, &m)).p == NULL)
        return FILL_AS_NOT;
    parts.status_n = m.status_n;
    parts.etag_at = m.etag_at;
    parts.etag_n = m.etag_n;
    return put(f, &parts, &get, head, gate) ? FILL_AS_STORED : FILL_AS_NOT;
}

uint64_t
fill_stamp(const struct fill *r)
{
    return r->flight->stamp;
}
