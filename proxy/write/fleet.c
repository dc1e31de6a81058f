/*
 * The write loop's part in a fleet: which partition a write is of, which ones are ours, and what
 * the journal tells of them.
 *
 * Model    a write's partition is that of its path, so that what is about one target keeps its
 *          order; where a route of the same origin orders writes by a template (write.key), across
 *          paths, all of that origin are of one. The schedule knows the rows of our partitions
 *          alone: a chain whose partition is no more ours has no next row, and goes. Every row
 *          comes from the journal, those that we took too, so that nothing is known twice.
 *          A partition that another instance is to have is left first: no delivery of it begins,
 *          and when none is under way the journal may give it away.
 * Limits   write.rate and write.concurrency are the fleet's: each instance has the share of its
 *          partitions, and one delivery at least; an origin of one partition is delivered by one
 *          instance, which has them whole.
 * Threads  the write loop, but for fleet_part, fleet_parts and what journal_found hears.
 */
#include "write/deliver.h"

#include <stdlib.h>

#include "key/key.h"

#define BIT(part) (UINT64_C(1) << (part))

/* ---- partitions ------------------------------------------------------------------------------ */

static unsigned
part_of_origin(const char *id)
{
    return (unsigned)(key_hash(slice_of(id)) % JOURNAL_PARTS);
}

unsigned
fleet_part(const struct route *r, uint64_t path_hash)
{
    return r->write_spans ? part_of_origin(r->conf->to->id) :
        (unsigned)(path_hash % JOURNAL_PARTS);
}

uint64_t
fleet_parts(const struct writes *w, uint64_t path_hash)
{
    return BIT(path_hash % JOURNAL_PARTS) | atomic_load(&w->spans);
}

void
fleet_site(struct writes *w)
{
    const struct route_table *t = w->site.table;
    uint64_t spans = 0;

    for (size_t i = 0; i < route_table_size(t); i++) {
        const struct route *r = route_table_at(t, i);

        if (r->write_spans)
            spans |= BIT(part_of_origin(r->conf->to->id));
    }
    atomic_store(&w->spans, spans);
    schedule_keyed(w->schedule, spans);
}

void
fleet_share(const struct writes *w, const struct route *r, struct schedule_limits *l)
{
    unsigned n = (unsigned)__builtin_popcountll(atomic_load(&w->owned));

    if (!journal_shared(w->j) || r->write_spans || n == 0)
        return;
    l->interval_us = l->interval_us * JOURNAL_PARTS / n;
    l->concurrency = (l->concurrency * n + JOURNAL_PARTS - 1) / JOURNAL_PARTS;
}

/* ---- what the journal tells ------------------------------------------------------------------ */

/* May be held up by memory that is out: it goes on where it was, a second later. */
struct news { size_t n, done; struct journal_news at[]; };

/* The row as it is now, which may be more than what `from` tells of. -1: memory is out. */
static int
take_one(struct writes *w, const struct journal_news *news)
{
    const struct write_row *r = &news->row, was = { .state = news->from };
    bool pending = write_is_pending(r->state);

    if (r->c1 == 0) {                           /* it is gone, and which chain it was of */
        schedule_lost(w->schedule);
        return 0;
    }
    if (news->from == WRITE_STATES && !pending) {       /* a verb was quicker; it may have been */
        schedule_lost(w->schedule);                     /* found, and have blocked others */
        return 0;
    }
    if (news->from == WRITE_STATES)
        return writes_enter(w, r) != -1 ? 0 : -1;
    if (!pending || !write_is_pending(news->from)) {
        writes_moved(w, &was, r);
        return 0;
    }
    watch_row(w, r);
    return schedule_knows(w->schedule, r->route) || writes_route(w, r->route) == 0 ?
        schedule_found(w->schedule, r, now_us() / 1000) : -1;
}

static void
take_news(struct wop *o)
{
    struct news *news = (struct news *)(void *)o->bytes;
    struct writes *w = o->w;

    for (; news->done < news->n; news->done++) {
        const struct write_row *r = &news->at[news->done].row;

        if ((atomic_load(&w->owned) & BIT(journal_part(r->seq))) != 0 &&
            take_one(w, &news->at[news->done]) == -1) {
            wop_again(o);
            return;
        }
    }
    writes_pump(w);
    wop_free(o);
}

/* NULL: memory is out, or nobody hears it any more. */
static struct wop *
message(struct writes *w, void (*then)(struct wop *o), size_t n)
{
    struct wop *o = atomic_load(&w->closing) ? NULL : wop_new(w, JOURNAL_CALL, n);

    if (o != NULL)
        o->then = then;
    return o;
}

void
fleet_came(void *arg, const struct journal_news *at, size_t n)
{
    struct wop *o = message(arg, take_news, sizeof(struct news) + n * sizeof *at);
    struct news *news;

    if (o == NULL)                      /* counted: they wait until the partition is taken again */
        return;
    news = (struct news *)(void *)o->bytes;
    news->n = n;
    news->done = 0;
    memcpy(news->at, at, n * sizeof *at);
    wop_post(o);
}

void
fleet_leave(struct writes *w)
{
    uint64_t busy = 0;

    if (w->leaving == 0)
        return;
    for (const struct delivery *d = w->deliveries; d != NULL; d = d->next)
        for (size_t i = 0; i < d->nitems; i++)
            busy |= BIT(journal_part(d->items[i].row.seq));
    for (unsigned part = 0; part < JOURNAL_PARTS; part++)
        if (w->leaving & ~busy & BIT(part)) {
            w->leaving &= ~BIT(part);
            journal_left(w->j, part);
        }
}

static void
set_part(struct writes *w, unsigned part, bool on)
{
    if (on) {
        w->leaving &= ~BIT(part);
        atomic_fetch_or(&w->owned, BIT(part));
    } else {
        atomic_fetch_and(&w->owned, ~BIT(part));
        schedule_forget(w->schedule, part);
        w->leaving |= BIT(part);
        fleet_leave(w);
    }
    if (w->site.table != NULL)
        writes_apply(w);                /* our share of the limits */
}

static void
take_part(struct wop *o)
{
    set_part(o->w, o->op.part, o->op.on);
    wop_free(o);
}

void
fleet_tick(struct writes *w)
{
    uint64_t unheard = atomic_exchange(&w->unheard, 0);

    for (unsigned part = 0; part < JOURNAL_PARTS; part++)
        if (unheard & BIT(part))
            set_part(w, part, false);
}

/* Without memory for it: a partition that is ours is not delivered before it is taken again; that
 * it is to be left is told by the tick. */
void
fleet_owns(void *arg, unsigned part, bool on)
{
    struct wop *o = message(arg, take_part, 0);
    struct writes *w = arg;

    if (o == NULL) {
        if (!on)
            atomic_fetch_or(&w->unheard, BIT(part));
        return;
    }
    o->op.part = part;
    o->op.on = on;
    wop_post(o);
}

static void
take_changed(struct wop *o)
{
    if (o->w->site.table != NULL)
        writes_apply(o->w);
    wop_free(o);
}

void
fleet_changed(void *arg)
{
    struct wop *o = message(arg, take_changed, 0);

    if (o != NULL)
        wop_post(o);
}
