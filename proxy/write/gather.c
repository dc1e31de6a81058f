/*
 * What goes with a write: those that it replaces (coalescing), those that are sent with it
 * (batching).
 *
 * Coalescing  of consecutive PUTs of one client (its credentials) to one URL in a chain the newest
 *             is sent; the others are superseded in the same breath as it is `sending`. A PUT of
 *             somebody else, that the origin may refuse, takes no other's place. A crash in
 *             between leaves some of them pending, which are sent before it, as if they had never
 *             been looked at. A conditional PUT stands for itself, and one behind which another
 *             chain has a write to the same target is not skipped: the origin would see the two in
 *             another order.
 * Batching    POSTs of a route, of one client (its credentials go with them), first those that
 *             follow in the same chain, then those of other chains that are ready. What is not one
 *             value of JSON goes alone, to its own target: among others it could be read as a part
 *             of theirs, or as several; so does what has a condition, which is on that target.
 *             One that failed twice with others goes with half as many, and half of that, until it
 *             stands alone: what the origin cannot take then harms nothing else.
 * Threads  the write loop.
 */
#include "write/deliver.h"

#include <jansson.h>

#define COALESCE_MAX 1000
#define BATCH_BYTES  (4 << 20)

/* ---- coalescing ------------------------------------------------------------------------------ */

/* Has it fields that say something of its target alone? */
static bool
is_conditional(const struct write_content *c)
{
    static const char *const conditions[] = { "If-Match", "If-None-Match", "If-Modified-Since",
        "If-Unmodified-Since", "Content-Range" };

    for (size_t i = 0; i < NELEM(conditions); i++)
        if (fields_find(c->fields, slice_of(conditions[i])) != NULL)
            return true;
    return false;
}

static bool
is_plain_put(const struct write_row *r, const struct write_content *c)
{
    return r->method == HTTP_PUT && r->state != WRITE_SENDING && !is_conditional(c);
}

/* Is `next` what follows `seq` among all that order its target? */
static bool
follows(struct writes *w, const struct write_row *next, uint64_t seq)
{
    struct write_row r;

    return !schedule_has_targets(w->schedule, seq) ||
        (writes_next_of_target(w, journal_part(seq), row_target(next), seq, &r) == 1 &&
        r.seq == next->seq);
}

/* The newest stands first then; those before it are superseded. */
static void
coalesce(struct delivery *d)
{
    struct writes *w = d->w;
    struct write_content c;
    struct write_row row, next;
    struct item newest;
    uint64_t seq = d->items[0].row.seq;

    if (!is_plain_put(&d->items[0].row, &d->items[0].content))
        return;
    while (d->nitems < COALESCE_MAX &&
        journal_next(w->j, journal_part(seq), d->items[0].row.c1, seq, false, &next) == 1 &&
        next.route == d->route_number && next.who == d->items[0].row.who &&
        follows(w, &next, seq) && !verb_holds(w, next.seq) &&
        journal_read(w->j, next.seq, &row, &c, NULL) == 1 && is_plain_put(&row, &c) &&
        slice_eq(c.url, d->items[0].content.url) && delivery_item(d, &row, &c) != NULL)
        seq = row.seq;
    if (d->nitems == 1)
        return;
    newest = d->items[d->nitems - 1];
    d->items[d->nitems - 1] = d->items[0];
    d->items[0] = newest;
    for (size_t i = 1; i < d->nitems; i++)
        d->items[i].to = WRITE_SUPERSEDED;
}

/* ---- batching -------------------------------------------------------------------------------- */

static bool
is_one_value(struct slice content)
{
    json_t *v = json_loadb(content.p, content.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

    json_decref(v);
    return v != NULL;
}

static bool
fits(const struct delivery *d, const struct write_row *r, const struct write_content *c)
{
    return r->method == HTTP_POST && r->state != WRITE_SENDING && r->route == d->route_number &&
        r->who == d->items[0].row.who && c->has_body && c->body.n > 0 && !is_conditional(c) &&
        fields_find(c->fields, SLICE("Content-Encoding")) == NULL && is_one_value(c->body);
}

/* As many as may go together: half as many for each failure after the second. */
static size_t
limit_of(const struct delivery *d)
{
    size_t most = (size_t)d->route->conf->write_batch_max;
    uint32_t attempts = 0;

    for (size_t i = 0; i < d->nitems; i++)
        if (d->items[i].row.attempts > attempts)
            attempts = d->items[i].row.attempts;
    for (; attempts > 1 && most > 1; attempts--)
        most /= 2;
    return most;
}

/* false: it does not, and the batch is full for this time. */
static bool
add(struct delivery *d, uint64_t seq, size_t *bytes)
{
    struct write_content c;
    struct write_row row;

    if (verb_holds(d->w, seq) || journal_read(d->w->j, seq, &row, &c, NULL) != 1 ||
        !write_is_pending(row.state) || !fits(d, &row, &c) || *bytes + c.body.n > BATCH_BYTES ||
        delivery_item(d, &row, &c) == NULL)
        return false;
    *bytes += c.body.n;
    if (d->nitems <= limit_of(d))
        return true;
    d->nitems--;
    return false;
}

/* Those that stand behind the last item in its chain. false: the batch is full. */
static bool
add_chain(struct delivery *d, size_t *bytes)
{
    uint64_t chain = d->items[d->nitems - 1].row.c1, last;
    struct write_row next;

    while (d->nitems < limit_of(d)) {
        last = d->items[d->nitems - 1].row.seq;
        if (journal_next(d->w->j, journal_part(last), chain, last, false, &next) != 1)
            return true;
        if (!add(d, next.seq, bytes))
            return false;
    }
    return false;
}

static void
collect(struct delivery *d)
{
    struct schedule *s = d->w->schedule;
    size_t bytes = d->items[0].content.body.n;
    struct write_row row;

    d->batch = true;
    while (add_chain(d, &bytes) && d->nitems < limit_of(d) &&
        schedule_take_more(s, d->route_number, now_us() / 1000, wall_ms(), &row))
        if (!add(d, row.seq, &bytes)) {
            schedule_again(s, &row, 0, now_us() / 1000);
            return;
        }
}

void
gather(struct delivery *d)
{
    const struct conf_route *c = d->route->conf;

    if (c->write_batch_to != NULL && c->write_batch_to[0] != '\0' &&
        fits(d, &d->items[0].row, &d->items[0].content))
        collect(d);
    else if (c->write_coalesce)
        coalesce(d);
}
