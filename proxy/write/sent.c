/*
 * What is sent to deliver a write: the request that its client sent, with the fields that the
 * origin got from the start, and what delivery adds: the time of acceptance and a key to know it
 * again by; in a fleet, the fencing token of who delivers.
 *
 * Threads  the write loop.
 */
#include "write/deliver.h"

/* With its line end. */
static bool
next_line(struct slice *rest, struct slice *line)
{
    const char *end;

    if (rest->n == 0)
        return false;
    end = memchr(rest->p, '\n', rest->n);
    *line = (struct slice){ rest->p, end != NULL ? (size_t)(end - rest->p) + 1 : rest->n };
    rest->p += line->n;
    rest->n -= line->n;
    return true;
}

const char *
fields_find(struct slice fields, struct slice name)
{
    struct slice line;

    while (next_line(&fields, &line))
        if (line.n > name.n && line.p[name.n] == ':' &&
            slice_ieq((struct slice){ line.p, name.n }, name))
            return line.p;
    return NULL;
}

/* Which writes go together: the same ones have the same key when they are sent again. */
static uint64_t
set_of(const struct delivery *d)
{
    struct slice rows = { NULL, 0 };
    struct buf b = { 0 };
    uint64_t set;

    for (size_t i = 0; i < d->nitems; i++)
        buf_addhex(&b, d->items[i].row.seq);
    rows = b.failed ? d->body : buf_slice(&b);
    set = key_hash(rows);
    buf_free(&b);
    return set;
}

/* The key that names a write alone: the client's own, else its id. */
static void
put_key(struct delivery *d, struct buf *b, const struct item *it)
{
    char id[WRITE_ID_N + 1];

    journal_id(d->w->j, it->row.seq, id);
    if (it->content.idempotency_key.p == NULL || !sf_put_string(b, it->content.idempotency_key))
        (void)sf_put_string(b, slice_of(id));
}

/* A batch that may have been done goes again in other company, or alone: by the keys of its writes
 * the origin knows each again. */
static void
put_batch_keys(struct delivery *d, struct buf *b)
{
    char id[WRITE_ID_N + 1];

    journal_id(d->w->j, d->items[0].row.seq, id);
    buf_printf(b, "Idempotency-Key: \"%s-%016llx\"\r\n", id, (unsigned long long)set_of(d));
    if (!d->route->conf->write_idempotent)
        return;
    buf_addz(b, "X-Weir-Idempotency-Keys: ");
    for (size_t i = 0; i < d->nitems; i++) {
        if (i > 0)
            buf_addz(b, ", ");
        put_key(d, b, &d->items[i]);
    }
    buf_addz(b, "\r\n");
}

/* Idempotency-Key of the write or of the batch; X-Weir-Accepted: when we took it. */
static void
put_extra(struct delivery *d, struct buf *b)
{
    const struct item *it = &d->items[0];
    char date[HTTP_DATE_LEN];

    if (d->batch) {
        put_batch_keys(d, b);
    } else if (fields_find(it->content.fields, SLICE("Idempotency-Key")) == NULL) {
        buf_addz(b, "Idempotency-Key: ");
        put_key(d, b, it);
        buf_addz(b, "\r\n");
    }
    if (d->batch)
        buf_addz(b, d->route->conf->write_batch_format == WRITE_BATCH_NDJSON ?
            "Content-Type: application/x-ndjson\r\n" : "Content-Type: application/json\r\n");
    http_date_put(date, it->row.accepted_ms / 1000);
    http_put(b, SLICE("X-Weir-Accepted"), (struct slice){ date, sizeof date });
}

/* Who delivers, in a fleet: an origin that refuses a token lower than one it has seen of the same
 * partition cannot be written to by an instance that was held up and has lost its lease. */
static void
put_fences(const struct delivery *d, struct buf *b)
{
    uint64_t said = 0;

    for (size_t i = 0; i < d->nitems; i++) {
        unsigned part = journal_part(d->items[i].row.seq);

        if (said >> part & 1)
            continue;
        buf_printf(b, "%s%llu;partition=%u", said == 0 ? "X-Weir-Fence: " : ", ",
            (unsigned long long)d->items[i].fence, part);
        said |= UINT64_C(1) << part;
    }
    buf_addz(b, "\r\n");
}

/* Is this line not the client's to say here? */
static bool
is_ours(const struct delivery *d, struct slice line)
{
    static const char *const batch[] = { "Content-Type", "Content-Digest", "Content-MD5", "Digest",
        "Repr-Digest", "Idempotency-Key" };

    if (fields_find(line, SLICE("X-Weir-Accepted")) != NULL ||
        fields_find(line, SLICE("X-Weir-Idempotency-Keys")) != NULL ||
        fields_find(line, SLICE("X-Weir-Fence")) != NULL)
        return true;
    for (size_t i = 0; d->batch && i < NELEM(batch); i++)
        if (fields_find(line, slice_of(batch[i])) != NULL)
            return true;
    return false;
}

/* -1: the tags that it asks for cannot be told now. */
static int
put_conditions(const struct delivery *d, struct buf *b)
{
    struct slice rest = d->items[0].content.fields, line;

    while (next_line(&rest, &line))
        if (fields_find(line, SLICE("If-Match")) != NULL && tags_put(d->w, line, b) == -1)
            return -1;
    return 0;
}

void
delivery_fields(void *arg, struct buf *b)
{
    struct delivery *d = arg;
    struct slice rest = d->items[0].content.fields, line;

    while (next_line(&rest, &line))
        if (!is_ours(d, line) && fields_find(line, SLICE("If-Match")) == NULL)
            buf_adds(b, line);
    buf_adds(b, d->extra);
    if (journal_shared(d->w->j))
        put_fences(d, b);
}

/* The head as a client would have sent it: what templates, Vary and rules look at. */
static int
parse_head(struct delivery *d, const struct item *it, bool fields)
{
    const struct http_limits limits = { SIZE_MAX, SIZE_MAX, HTTP_FIELDS_MAX };
    struct http_field *at = pool_alloc(d->pool, HTTP_FIELDS_MAX * sizeof *at);
    struct http_fault fault;
    struct buf b = { 0 };

    d->head = pool_zalloc(d->pool, sizeof *d->head);
    if (d->head == NULL || at == NULL || http_uri_parse(it->content.url, &d->url) == -1)
        return -1;
    buf_adds(&b, it->content.method_name);
    buf_addc(&b, ' ');
    buf_add(&b, d->url.path.p, (size_t)(it->content.url.p + it->content.url.n - d->url.path.p));
    buf_addz(&b, " HTTP/1.1\r\nHost: ");
    buf_adds(&b, it->content.host);
    buf_addz(&b, "\r\n");
    if (fields)
        buf_adds(&b, it->content.fields);
    buf_addz(&b, "\r\n");
    d->bytes = pool_slice(d->pool, buf_slice(&b));
    buf_free(&b);
    d->head->fields = at;
    d->head->cap = HTTP_FIELDS_MAX;
    return d->bytes.p != NULL &&
        http_parse_request(d->bytes.p, d->bytes.n, &limits, d->head, &fault) > 0 ? 0 : -1;
}

/* The route's parameters, if the path still leads to it. */
static void
match(struct delivery *d)
{
    if (effect_match(d, d->head, &d->match) == d->route)
        return;
    memset(&d->match, 0, sizeof d->match);
    d->match.route = d->route;
    for (size_t i = 0; i < d->route->nparams; i++)
        d->match.values[i] = SLICE("");
}

int
delivery_head(struct delivery *d, const struct item *it)
{
    if (parse_head(d, it, true) == -1 && parse_head(d, it, false) == -1)
        return -1;
    match(d);
    return 0;
}

int
delivery_request(struct delivery *d)
{
    const struct item *it = &d->items[0];
    struct buf b = { 0 };

    if (delivery_head(d, it) == -1)
        return -1;
    d->body = it->content.body;
    if (d->batch && batch_body(d) == -1)
        return -1;
    put_extra(d, &b);
    if (put_conditions(d, &b) == 0)
        d->extra = pool_slice(d->pool, buf_slice(&b));
    buf_free(&b);
    effect_prepare(d);
    return d->extra.p != NULL ? 0 : -1;
}
