/*
 * Write-through: what a successful write leaves in the cache, and as of when.
 *
 * Model    of a write to a target, on a route with `policy: write-through`, the cache is to hold
 *          the new representation. Where it comes from (`write.fill`):
 *            ANSWER   the content of the answer, where its one Content-Location is the target (RFC
 *                     9110 8.7: what it encloses is the target's representation now; PUT 9.3.4,
 *                     POST 9.3.3); by the operator's word (`response`) without one too, in a 200 or
 *                     201 to PUT or PATCH. A Content-Location elsewhere says that it is something
 *                     else, whatever the operator thinks.
 *            CONTENT  the content of a PUT, by the operator's word (`request`), in a 200, 201 or
 *                     204. Not of a part (Content-Range, RFC 9110 14.5), nor where the answer names
 *                     a representation elsewhere.
 *            FETCH    a GET of the target, sent after the purge, in all other cases.
 *          Nothing is left by DELETE; by 202, which says that nothing is done yet (15.3.3); of a
 *          request with no-store; of a target whose GETs no route stores.
 *          Write-back is the same once a write was delivered.
 *          On other routes a POST alone leaves its answer, by Content-Location: "responses to the
 *          PUT method are not cacheable" (9.3.4) but by a policy that says more than HTTP does.
 *          A POST's answer has to state its freshness (9.3.3); for the others what the route
 *          assumes counts, as if it had been fetched.
 * Order    the write purges its target, and what is stored must be as of a purge sequence that this
 *          purge does not outdate, but every other one does that came after the write was sent. For
 *          another write, of a URL that changes this target too, may have been done after this one
 *          at the origin, and answered before it: its purge lies between. So with s0 taken before
 *          the write was sent:
 *            1. c0 is read. A purge with a number up to c0 is visible now.
 *            2. If any since s0 could match, the answer is not stored.
 *            3. The write purges: its k purges take numbers.
 *            4. c1 is read. If c1 is c0 + k, no other purge has a number in between: stored as of
 *               c1. A later purge has a higher number and outdates it like any other object.
 *               Else somebody's purge came between 1 and 4, and may match: not stored.
 *          What is fetched meanwhile is judged by its own stamp, taken before it was sent: older
 *          than c1, it is outdated by this write's purge; not older, it was asked for after this
 *          write was done, and being the newer it is not replaced (store_put: OLDER).
 * Threads  pure but for the store: any.
 * Not here writes that race for one target (race.c), storing (fill/also.c), and the waiting of a
 *          client (request/through.c).
 */
#include "write/write.h"

/* ---- before it is sent ---------------------------------------------------------------------- */

bool
write_through(const struct conf_route *c)
{
    return c->policy == POLICY_WRITE_THROUGH || c->policy == POLICY_WRITE_BACK;
}

static bool
by_response(const struct conf_route *c, enum http_method m)
{
    return write_through(c) && c->write_fill == WRITE_FILL_RESPONSE &&
        (m == HTTP_PUT || m == HTTP_PATCH);
}

unsigned
write_also(const struct conf_route *c, const struct http_head *request)
{
    bool through = write_through(c);

    if (request->method == HTTP_POST)
        return !through || c->write_fill != WRITE_FILL_REFETCH ? FILL_ALSO : 0;
    if (!through || c->write_fill == WRITE_FILL_REFETCH ||
        (request->method != HTTP_PUT && request->method != HTTP_PATCH))
        return 0;
    return FILL_ALSO | FILL_ALSO_ASSUMED |
        (by_response(c, request->method) ? FILL_ALSO_UNLOCATED : 0);
}

bool
write_keeps_content(const struct conf_route *c, const struct http_head *request)
{
    return write_through(c) && c->write_fill == WRITE_FILL_REQUEST &&
        request->method == HTTP_PUT && !http_has(request, HF_CONTENT_RANGE);
}

/* ---- once its answer's head came ------------------------------------------------------------ */

bool
write_encloses_target(struct slice target, const struct http_head *response)
{
    struct buf at = { 0 }, x = { 0 }, y = { 0 };
    struct key a, b;
    bool same = http_content_location(response, target, &at) == 0 &&
        key_of_url(NULL, target, &x, &a) == 0 && key_of_url(NULL, buf_slice(&at), &y, &b) == 0 &&
        slice_eq(a.bytes, b.bytes);

    buf_free(&at);
    buf_free(&x);
    buf_free(&y);
    return same;
}

enum write_source
write_source(const struct write_effect *a)
{
    enum http_method m = a->request->method;
    const struct http_head *h = a->response;
    bool whole = h->status == 200 || h->status == 201;
    bool located = http_has(h, HF_CONTENT_LOCATION);
    bool target = located && write_encloses_target(a->target, h);

    if (h->status < 200 || h->status > 299 || h->status == 202 || m == HTTP_DELETE)
        return WRITE_SOURCE_NONE;
    if (write_also(a->route, a->request) != 0 && whole &&
        (target || (by_response(a->route, m) && !located)))
        return WRITE_SOURCE_ANSWER;
    if (!write_through(a->route))
        return WRITE_SOURCE_NONE;
    if (a->content && write_keeps_content(a->route, a->request) && !(located && !target) &&
        (whole || h->status == 204))
        return WRITE_SOURCE_CONTENT;
    return WRITE_SOURCE_FETCH;
}

/* ---- the purge ------------------------------------------------------------------------------ */

void
write_purge_begin(struct store *s, const struct key *key, uint64_t route_id, uint64_t sent,
    struct write_purge *p)
{
    p->before = store_stamp(s);
    p->made = store_purges_made();
    p->undisturbed = !store_stamp_outdated(s, sent, key, route_id);
}

bool
write_purge_end(struct store *s, struct write_purge *p)
{
    p->stamp = store_stamp(s);
    return p->undisturbed && p->stamp - p->before == store_purges_made() - p->made;
}

/* ---- the GET that its client would have sent ------------------------------------------------ */

/* Fields of a write alone: about its content, its conditions, how often it may be done and how it
 * is to be answered (RFC 7240); and those that some take for its method. */
static bool
is_of_write(const struct http_field *f)
{
    static const char *const names[] = { "Content-Digest", "Content-Disposition", "Content-MD5",
        "Digest", "Repr-Digest", "X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override" };

    switch (f->id) {
    case HF_CONTENT_ENCODING: case HF_CONTENT_LANGUAGE: case HF_CONTENT_LENGTH:
    case HF_CONTENT_LOCATION: case HF_CONTENT_RANGE: case HF_CONTENT_TYPE: case HF_EXPECT:
    case HF_IDEMPOTENCY_KEY: case HF_IF_MATCH: case HF_IF_MODIFIED_SINCE: case HF_IF_NONE_MATCH:
    case HF_IF_RANGE: case HF_IF_UNMODIFIED_SINCE: case HF_PREFER: case HF_RANGE: case HF_TRAILER:
    case HF_TRANSFER_ENCODING:
        return true;
    case HF_NONE:
        break;
    default:
        return false;
    }
    for (size_t i = 0; i < NELEM(names); i++)
        if (slice_ieq(f->name, slice_of(names[i])))
            return true;
    return false;
}

struct http_head *
write_get(struct pool *p, const struct http_head *request)
{
    struct http_head *get = pool_alloc(p, sizeof *get);
    struct http_field *fields = pool_alloc(p, (request->nfields + 1u) * sizeof *fields);

    if (get == NULL || fields == NULL)
        return NULL;
    *get = *request;
    get->method = HTTP_GET;
    get->method_name = SLICE("GET");
    get->framing = HTTP_NO_BODY;
    get->length = 0;
    get->flags &= (uint8_t)~(HTTP_EXPECT | HTTP_UPGRADING);
    get->fields = fields;
    get->cap = request->nfields;
    get->nfields = 0;
    memset(get->have, 0, sizeof get->have);
    for (unsigned i = 0; i < request->nfields; i++)
        if (!is_of_write(&request->fields[i])) {
            enum http_id id = request->fields[i].id;

            fields[get->nfields++] = request->fields[i];
            if (id != HF_NONE)
                get->have[id >> 6] |= UINT64_C(1) << (id & 63);
        }
    return get;
}
