/*
 * What deliveries ask the journal to commit, and what is done when it has.
 *
 * Power    what a commit of SENDING must survive is the route's word for writes that may not be
 *          repeated. All other changes may be lost with the power: the write is then sent again, or
 *          is uncertain.
 * Threads  the write loop.
 */
#include "write/deliver.h"

void
writes_moved(struct writes *w, const struct write_row *was, const struct write_row *r)
{
    bool before = write_is_pending(was->state), now = write_is_pending(r->state);

    if (before && !now) {
        writes_count(w, r, false);
        schedule_settled(w->schedule, r, now_us() / 1000);
        looks_again(w, r);
    } else if (!before && now) {
        writes_count(w, r, true);
        if (writes_enter(w, r) == -1)
            log_error("writes: out of memory; a write that is pending again waits for a restart");
    }
    watch_row(w, r);
    writes_pump(w);
}

/* Is nothing lost where the journal cannot take this before the process ends? What it says stays:
 * not sent, or at the origin, from which it is sent again, or uncertain. */
static bool
may_leave(const struct delivery *d)
{
    if (d->committed == delivery_send && d->nitems == 1)
        return true;
    for (size_t i = 0; i < d->nitems; i++)
        if (d->items[i].to != WRITE_UNCERTAIN &&
            !policy_repeatable(d->items[i].row.method, d->route->conf->write_idempotent))
            return false;
    return true;
}

static void
mark_lost(struct delivery *d, uint64_t seq)
{
    for (size_t i = 0; i < d->nitems; i++)
        if (d->items[i].row.seq == seq)
            d->items[i].lost = true;
}

static void
on_committed(struct wop *o)
{
    struct delivery *d = o->arg;

    CHECK(d, DELIVERY_MAGIC);
    if (o->op.result == JOURNAL_FULL && !d->ended) {
        d->ended = atomic_load(&d->w->draining) && may_leave(d);
        if (!d->ended) {
            wop_again(o);
            return;
        }
    }
    if (o->op.result == JOURNAL_LOST || (o->op.result == JOURNAL_GONE &&
        o->op.row.state == WRITE_SENDING && journal_shared(d->w->j)))
        mark_lost(d, o->op.row.seq);    /* somebody else's, or dropped at another instance */
    wop_free(o);
    if (--d->left > 0)
        return;
    if (d->ended)
        delivery_free(d);
    else
        d->committed(d);
}

static struct wop *
update_of(struct delivery *d, const struct item *it)
{
    bool answered = it->to != WRITE_SENDING && it->to != WRITE_SUPERSEDED;
    size_t n = answered ? it->answer_head.n + it->answer_body.n : 0;
    struct wop *o = wop_new(d->w, JOURNAL_UPDATE, n);
    char *at;

    if (o == NULL)
        return NULL;
    at = o->bytes;
    o->op.durable = it->to == WRITE_SENDING &&
        !policy_repeatable(it->row.method, d->route->conf->write_idempotent) ?
        d->route->conf->write_durability : WRITE_OS;
    o->op.row = it->row;
    o->op.fence = it->fence;
    o->op.settle = !write_is_pending(it->row.state) && !write_is_dead(it->row.state);
    o->op.keep_answer = answered;
    if (answered) {
        o->op.content.answer_head = put_slice(&at, it->answer_head);
        o->op.content.answer_body = put_slice(&at, it->answer_body);
        o->op.content.cause = slice_of(it->cause != NULL ? it->cause : "");
    }
    o->then = on_committed;
    o->arg = d;
    return o;
}

int
delivery_commit_some(struct delivery *d, size_t from, size_t to,
    void (*committed)(struct delivery *d))
{
    struct wop *list = NULL, *o;

    for (size_t i = to; i-- > from;) {
        o = update_of(d, &d->items[i]);
        if (o == NULL) {
            while ((o = list) != NULL) {
                list = o->next;
                wop_free(o);
            }
            return -1;
        }
        o->next = list;
        list = o;
    }
    d->committed = committed;
    d->left = to - from;
    while ((o = list) != NULL) {
        list = o->next;
        wop_do(o);
    }
    return 0;
}

int
delivery_commit(struct delivery *d, void (*committed)(struct delivery *d))
{
    return delivery_commit_some(d, 0, d->nitems, committed);
}

void
delivery_take_back(struct delivery *d)
{
    for (size_t i = 0; i < d->nitems; i++) {
        struct item *it = &d->items[i];
        struct wop *o;

        if (it->to != WRITE_SENDING)
            continue;
        it->row.state = it->was;
        it->row.attempts--;
        o = update_of(d, it);
        if (o == NULL)                  /* counted: it stays SENDING */
            continue;
        d->left++;
        wop_do(o);
    }
}
