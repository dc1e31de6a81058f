/*
 * Delivery: one write on its way to the origin.
 *
 * Model    START    row and content are read, the request is made of them; others may go with it
 *                   (gather.c)
 *          SENDING  is committed, with one attempt more, before the first byte leaves
 *          ORIGIN   a private fetch (fill/); the answer's end is waited for
 *          OUTCOME  what it means (policy.c); what it changed is purged or filled, and only then
 *                   is it committed, and only then is it pending no more: a writer that looks
 *                   sees its pending write, or what the origin made of it, never what was before
 *                   (outcome.c).
 *          A crash in between leaves SENDING, and the write is sent again where it may be, with the
 *          same Idempotency-Key; where it may not its fate is unknown, and a person settles it.
 * End      a stop waits for those that are at the origin, and for the journal to take what became
 *          of them, but not for room on a disk that is full, where nothing is lost by that.
 * Threads  the write loop.
 */
#include "write/deliver.h"

#include <stdlib.h>

#include "purge/purge.h"

#define BACK_MS      1000               /* until what could not begin is tried again */

static const char no_memory[] = "memory was out";

static void supersede(struct delivery *d);

/* ---- items ----------------------------------------------------------------------------------- */

static struct slice
keep(struct delivery *d, struct slice s, bool *ok)
{
    if (s.p == NULL)
        return s;
    s = pool_slice(d->pool, s);
    *ok = *ok && s.p != NULL;
    return s;
}

static struct item *
room_for_item(struct delivery *d)
{
    if (d->nitems == d->cap) {
        size_t cap = d->cap > 0 ? d->cap * 2 : 1;
        struct item *items = pool_alloc(d->pool, cap * sizeof *items);

        if (items == NULL)
            return NULL;
        if (d->nitems > 0)
            memcpy(items, d->items, d->nitems * sizeof *items);
        d->items = items;
        d->cap = cap;
    }
    memset(&d->items[d->nitems], 0, sizeof *d->items);
    return &d->items[d->nitems];
}

struct item *
delivery_item(struct delivery *d, const struct write_row *row, const struct write_content *c)
{
    struct item *it = room_for_item(d);
    bool ok = true;

    if (it == NULL)
        return NULL;
    it->row = *row;
    it->to = WRITE_STATES;
    it->content = (struct write_content){ .method_name = keep(d, c->method_name, &ok),
        .url = keep(d, c->url, &ok), .target = keep(d, c->target, &ok),
        .host = keep(d, c->host, &ok), .fields = keep(d, c->fields, &ok),
        .has_body = c->has_body, .body = keep(d, c->body, &ok),
        .idempotency_key = keep(d, c->idempotency_key, &ok) };
    if (!ok)
        return NULL;
    d->nitems++;
    return it;
}

static struct delivery *
delivery_new(struct writes *w)
{
    struct pool *pool = pool_new();
    struct delivery *d = pool != NULL ? pool_zalloc(pool, sizeof *d) : NULL;

    if (d == NULL) {
        pool_free(&pool);
        return NULL;
    }
    d->magic = DELIVERY_MAGIC;
    d->w = w;
    d->pool = pool;
    d->table = route_table_ref(w->site.table);
    d->next = w->deliveries;
    if (d->next != NULL)
        d->next->prev = d;
    w->deliveries = d;
    atomic_fetch_add(&w->under_way, 1);
    return d;
}

void
delivery_free(struct delivery *d)
{
    CHECK(d, DELIVERY_MAGIC);
    effect_end(d);
    fill_close(&d->fill);
    if (d->prev != NULL)
        d->prev->next = d->next;
    else
        d->w->deliveries = d->next;
    if (d->next != NULL)
        d->next->prev = d->prev;
    if (d->origin != NULL)
        origin_unref(&d->origin);
    route_table_unref(&d->table);
    atomic_fetch_sub(&d->w->under_way, 1);
    bus_forget(&d->spreading);
    fleet_leave(d->w);
    d->magic = 0;
    pool_free(&(struct pool *){ d->pool });         /* the delivery itself lives there */
}

void
deliveries_free(struct writes *w)
{
    while (w->deliveries != NULL)
        delivery_free(w->deliveries);
}

bool
delivery_has(const struct writes *w, uint64_t seq)
{
    for (const struct delivery *d = w->deliveries; d != NULL; d = d->next)
        for (size_t i = 0; i < d->nitems; i++)
            if (d->items[i].row.seq == seq)
                return true;
    return false;
}

/* Did no byte of it leave? */
static bool
is_unsent(const struct delivery *d)
{
    struct exchange_times t = { 0 };

    if (d->fill == NULL)
        return d->left > 0 && (d->committed == delivery_send || d->committed == supersede);
    (void)fill_server(d->fill, &t);
    return !t.reached;
}

/* Its fetch is given up; memory goes now, or when the journal is done with it. */
void
deliveries_end(struct writes *w)
{
    struct delivery *next;

    for (struct delivery *d = w->deliveries; d != NULL; d = next) {
        bool unsent = is_unsent(d);

        next = d->next;
        effect_end(d);
        fill_close(&d->fill);
        if (d->spreading != NULL) {
            bus_forget(&d->spreading);
            (void)delivery_commit(d, delivery_settle);
        }
        d->ended = true;
        if (unsent)
            delivery_take_back(d);
        if (d->left == 0)
            delivery_free(d);
    }
}

/* Nothing was sent: the chains go back. */
static void
put_back(struct delivery *d)
{
    struct writes *w = d->w;

    schedule_ended(w->schedule, &d->turn);
    for (size_t i = 0; i < d->nitems; i++)
        schedule_again(w->schedule, &d->items[i].row, BACK_MS, now_us() / 1000);
    writes_pump(w);
    delivery_free(d);
}

/* ---- the start ------------------------------------------------------------------------------- */

static bool
set_route(struct delivery *d, uint32_t number)
{
    struct writes *w = d->w;
    const struct conf *c = route_table_conf(d->table);

    d->route_number = number;
    d->route = route_table_find(d->table, journal_route_name(w->j, number));
    if (d->route == NULL)
        return false;
    d->origin = origin_ref(w->site.origins[d->route->conf->to - c->origins]);
    return true;
}

/* It was at the origin when the process ended, and may not be sent again. */
static void
left_uncertain(struct delivery *d)
{
    struct item *it = &d->items[0];

    it->to = WRITE_UNCERTAIN;
    it->cause = "it was at the origin when this process ended";
    delivery_finished(d);
}

/* From here on it is delivered under these tokens, or not at all. */
static void
set_fences(struct delivery *d)
{
    for (size_t i = 0; i < d->nitems; i++)
        d->items[i].fence = journal_fence(d->w->j, journal_part(d->items[i].row.seq));
}

void
delivery_start(struct writes *w, const struct write_row *taken, const struct schedule_turn *turn)
{
    struct delivery *d = verb_holds(w, taken->seq) ? NULL : delivery_new(w);
    struct write_content c;
    struct write_row row;
    struct err e;
    bool coalesced;

    if (d == NULL || journal_read(w->j, taken->seq, &row, &c, &e) != 1 ||
        !write_is_pending(row.state) || !set_route(d, row.route) ||
        delivery_item(d, &row, &c) == NULL) {
        schedule_ended(w->schedule, turn);
        schedule_again(w->schedule, taken, BACK_MS, now_us() / 1000);
        if (d != NULL)
            delivery_free(d);
        return;
    }
    d->turn = *turn;
    set_fences(d);
    if (row.state == WRITE_SENDING &&
        !policy_repeatable(row.method, d->route->conf->write_idempotent)) {
        left_uncertain(d);
        return;
    }
    gather(d);
    set_fences(d);
    coalesced = d->nitems > 1 && !d->batch && journal_shared(w->j);
    if (delivery_request(d) == -1) {
        put_back(d);
        return;
    }
    for (size_t i = 0; i < d->nitems; i++) {
        struct item *it = &d->items[i];

        if (it->to == WRITE_SUPERSEDED) {
            it->row.state = WRITE_SUPERSEDED;
            it->row.settled_ms = wall_ms();
            continue;
        }
        it->to = WRITE_SENDING;
        it->was = it->row.state;
        it->row.state = WRITE_SENDING;
        it->row.attempts++;
    }
    if ((coalesced ? delivery_commit_some(d, 0, 1, supersede) :
        delivery_commit(d, delivery_send)) == -1)
        put_back(d);
}

/* ---- at the origin --------------------------------------------------------------------------- */

/* Those that this one replaced are settled now, before it leaves. */
static void
settle_superseded(struct delivery *d)
{
    size_t n = 0;

    if (d->nitems > 1 && !d->batch)
        schedule_instead(d->w->schedule, &d->items[0].row);
    for (size_t i = 0; i < d->nitems; i++) {
        struct item *it = &d->items[i];

        if (it->to == WRITE_SUPERSEDED) {
            COUNT(writes_superseded);
            writes_moved(d->w, &(struct write_row){ .state = WRITE_PENDING }, &it->row);
        } else {
            d->items[n++] = *it;
        }
    }
    d->nitems = n;
}

/* Are all its partitions ours still, and have been since it began? */
static bool
is_ours(const struct delivery *d)
{
    for (size_t i = 0; i < d->nitems; i++) {
        const struct item *it = &d->items[i];
        unsigned part = journal_part(it->row.seq);

        if (it->lost || !journal_owns(d->w->j, part) || journal_fence(d->w->j, part) != it->fence)
            return false;
    }
    return true;
}

/* It was not sent, and is not to be. */
static void
give_back(struct delivery *d)
{
    d->committed = put_back;
    delivery_take_back(d);
    if (d->left == 0)
        put_back(d);
}

/* In a fleet each change is one of its own: the older ones are settled once the newest is SENDING,
 * which at another instance may have been dropped. */
static void
supersede(struct delivery *d)
{
    if (!is_ours(d) || delivery_commit_some(d, 1, d->nitems, delivery_send) == -1)
        give_back(d);
}

void
delivery_send(struct delivery *d)
{
    const struct item *it = &d->items[0];
    struct writes *w = d->w;
    struct fill_want want;
    bool ignored;

    settle_superseded(d);
    if (!is_ours(d)) {
        give_back(d);
        return;
    }
    for (size_t i = 0; i < d->nitems; i++)
        watch_row(w, &d->items[i].row);
    it = &d->items[0];
    want = (struct fill_want){ .mode = FILL_PRIVATE, .table = d->table, .match = &d->match,
        .origin = d->origin, .target = it->content.target, .request = d->head,
        .request_bytes = d->bytes, .why = "write", .https = slice_eq(d->url.scheme, SLICE("https")),
        .host = it->content.host, .via = slice_of(w->site.via), .fields = delivery_fields,
        .fields_arg = d, .body = HTTP_NO_BODY,
        .once = !policy_repeatable(it->row.method, d->route->conf->write_idempotent) };
    want.also = effect_begin(d);
    if (d->batch)
        want.target = slice_of(d->route->conf->write_batch_to);
    if (it->content.has_body || d->batch) {
        want.body = HTTP_LENGTH;
        want.length = d->body.n;
        want.content = d->body.p != NULL ? d->body : SLICE("");
    }
    sem_request_read(d->head, &want.semantics);
    if (d->nitems > 0)
        COUNT(writes_attempts);
    d->fill = fill_open(w->fills, w->loop, &want, delivery_heard, d, &ignored);
    if (d->fill == NULL) {
        for (size_t i = 0; i < d->nitems; i++)
            delivery_judge(d, &d->items[i], &(struct policy_heard){ 0 }, -1, no_memory);
        delivery_finished(d);
    }
}
