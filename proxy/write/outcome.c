/*
 * What became of a delivery: judged, purged or filled, told to other instances, committed; then it
 * is over, and what waited behind it may go. deliver.c has the model.
 * Threads  the write loop.
 */
#include "write/deliver.h"

#include "plugin/plugin.h"
#include "purge/purge.h"

#define HEAD_MAX     16384              /* of an answer's fields that are kept */
#define ANSWER_LONG  (16 << 20)         /* more of an answer is not waited for */
#define SPREAD_US    500000             /* at most, for purges to reach other instances */

void
delivery_judge(struct delivery *d, struct item *it, const struct policy_heard *h,
    int64_t retry_after_ms, const char *cause)
{
    const struct conf_route *c = d->route->conf;
    struct policy_retry r = { .attempts = it->row.attempts, .attempts_max = c->write_attempts,
        .accepted_ms = it->row.accepted_ms, .now_ms = wall_ms(),
        .retry_for_ms = c->write_retry_for_ms, .min_ms = c->write_backoff_min_ms,
        .max_ms = c->write_backoff_max_ms, .retry_after_ms = retry_after_ms,
        .random = random_fast() };

    it->to = policy_judge(policy_repeatable(it->row.method, c->write_idempotent), h);
    it->status = h->answered ? h->status : 0;
    it->cause = cause;
    if (it->to != WRITE_WAITING)
        return;
    it->delay_ms = policy_backoff(&r);
    if (it->delay_ms == -1)
        it->to = WRITE_EXPIRED;
}

/* ---- what it changed ------------------------------------------------------------------------- */

/* Success purges, and an unknown fate; what is dead too, since readers saw it pending. */
static bool
purges(const struct delivery *d, const struct item *it, bool reached)
{
    if (d->route->conf->purge_on == PURGE_ON_ANY && it->status != 0)
        return true;
    if (it->status != 0 && sem_invalidates(it->row.method, it->status))
        return true;
    return write_is_dead(it->to) || (it->status == 0 && reached);
}

/* ---- the outcome ----------------------------------------------------------------------------- */

static void
log_dead(const struct delivery *d, const struct item *it)
{
    const char *cause = it->cause != NULL ? it->cause : "";
    static struct log_limit limit;
    char id[WRITE_ID_N + 1];

    journal_id(d->w->j, it->row.seq, id);
    log_limited(&limit, LOG_WARN, "writes: %s is a dead letter (%s%s%s), route %s", id,
        write_state_name(it->to), cause[0] != '\0' ? ", " : "", cause, d->route->name);
}

static void
count_outcome(const struct delivery *d, const struct item *it)
{
    int64_t took_ms = wall_ms() - it->row.accepted_ms;

    switch (it->to) {
    case WRITE_DELIVERED:
        COUNT(writes_delivered);
        stats_observe(SUMMARY_write_delivery, took_ms > 0 ? (uint64_t)took_ms * 1000 : 0);
        break;
    case WRITE_WAITING:
        COUNT(writes_retried);
        break;
    case WRITE_SUPERSEDED:
        break;
    default:
        COUNT(writes_dead);
        log_dead(d, it);
    }
}

/* The plugins of its route hear what became of it. */
static void
tell_plugins(struct delivery *d, const struct item *it)
{
    const struct plugin_uses *uses = d->route->conf->plugins;
    struct weir_request *r;
    char id[WRITE_ID_N + 1];
    struct http_uri u;

    if (!plugin_has(uses, HOOK_BIT(DELIVERED)) || http_uri_parse(it->content.url, &u) == -1 ||
        (r = plugin_request(uses, d->pool)) == NULL)
        return;
    journal_id(d->w->j, it->row.seq, id);
    r->route = d->route->name;
    r->method = it->content.method_name;
    r->https = slice_eq(u.scheme, SLICE("https"));
    r->host = u.host;
    r->path = u.path;
    r->query = u.query;
    r->write_id = slice_of(id);
    r->outcome = slice_of(write_state_name(it->to));
    r->status = it->status;
    r->attempts = it->row.attempts;
    (void)plugin_run(r, HOOK_DELIVERED);
}

void
delivery_settle(struct delivery *d)
{
    struct writes *w = d->w;
    int64_t now = now_us() / 1000;

    d->recorded = true;
    if (d->filling)
        return;                         /* delivery_filled */

    schedule_ended(w->schedule, &d->turn);
    for (size_t i = 0; i < d->nitems; i++) {        /* before those that wait take their place */
        struct item *it = &d->items[i];

        if (it->lost)                   /* its new owner finds it as it was sent */
            continue;
        count_outcome(d, it);
        if (!write_is_pending(it->to)) {
            tell_plugins(d, it);
            writes_moved(w, &(struct write_row){ .state = WRITE_SENDING }, &it->row);
        }
    }
    for (size_t i = 0; i < d->nitems; i++) {
        struct item *it = &d->items[i];

        if (it->lost || write_is_pending(it->to)) {
            schedule_again(w->schedule, &it->row, it->delay_ms, now);
            watch_row(w, &it->row);
        }
    }
    writes_pump(w);
    delivery_free(d);
}

void
delivery_filled(struct delivery *d)
{
    CHECK(d, DELIVERY_MAGIC);
    d->filling = false;
    effect_end(d);
    if (d->recorded)
        delivery_settle(d);
}

/* The journal knows at once: until then a kill would leave the fate unknown of what was done. */
static void
record(struct delivery *d)
{
    if (delivery_commit(d, delivery_settle) == 0)
        return;
    COUNT(memory_failures);             /* as it is in the journal: it was sent */
    log_error("writes: out of memory; the outcome of a delivery is lost, it stays `sending`");
    schedule_ended(d->w->schedule, &d->turn);
    for (size_t i = 0; i < d->nitems; i++)
        schedule_again(d->w->schedule, &d->items[i].row, 1000, now_us() / 1000);
    delivery_free(d);
}

static void
on_spread(void *arg, const struct bus_answer *a)
{
    struct delivery *d = arg;

    (void)a;                            /* an instance that has not heard of it in time is not
                                           connected, and asks the origin: see bus_lease.c */
    d->spreading = NULL;
    record(d);
}

/* In a fleet others must not serve what was before once nothing is pending: what it changed is
 * purged everywhere first. */
static void
spread(struct delivery *d)
{
    struct writes *w = d->w;
    bool settles = false;

    for (size_t i = 0; i < d->nitems; i++)
        settles |= !write_is_pending(d->items[i].to);
    if (settles && w->bus != NULL && journal_shared(w->j))
        d->spreading = bus_wait(w->bus, w->loop, store_stamp(w->store), SPREAD_US, on_spread, d);
    if (d->spreading == NULL)
        record(d);
}

void
delivery_finished(struct delivery *d)
{
    int64_t now = wall_ms();

    if (!d->filling)
        effect_end(d);
    fill_close(&d->fill);
    for (size_t i = 0; i < d->nitems; i++) {
        struct item *it = &d->items[i];

        it->row.state = (uint8_t)it->to;
        it->row.status = (uint16_t)it->status;
        it->row.due_ms = it->to == WRITE_WAITING ? now + it->delay_ms : 0;
        it->row.settled_ms = now;
    }
    spread(d);
}

static void
hear_fault(struct delivery *d, const struct exchange_fault *f)
{
    bool down = schedule_heard(d->w->schedule, &d->turn, !policy_unreachable(f),
        random_fast(), now_us() / 1000);

    for (size_t i = 0; i < d->nitems; i++) {
        struct item *it = &d->items[i];

        delivery_judge(d, it, &(struct policy_heard){ .reached = f->reached }, -1, f->cause);
        if (it->to == WRITE_WAITING && down)
            it->delay_ms = 0;           /* the breaker says when */
        if (purges(d, it, f->reached))
            effect_purge(d, it, NULL, (struct slice){ NULL, 0 });
    }
    delivery_finished(d);
}

static void
keep_answer(struct delivery *d, struct item *it, const struct fill_view *v, struct slice body)
{
    struct slice fields = { v->head.p + v->status_n, v->head.n - v->status_n };

    if (fields.n > HEAD_MAX)
        return;
    it->answer_head = pool_slice(d->pool, fields);
    if (v->complete && body.p != NULL && body.n <= WRITE_ANSWER_MAX)
        it->answer_body = body;
}

static void
hear_answer(struct delivery *d, const struct fill_view *v)
{
    int64_t after = http_retry_after(v->response, wall_ms());
    struct slice body = body_size(v->body) == 0 ? SLICE("") :
        body_text(v->body, d->pool, WRITE_ANSWER_MAX);

    (void)schedule_heard(d->w->schedule, &d->turn, true, 0, now_us() / 1000);
    if (d->batch) {
        batch_settle(d, v, body);
    } else {
        delivery_judge(d, &d->items[0],
            &(struct policy_heard){ .answered = true, .status = v->status }, after, "");
        keep_answer(d, &d->items[0], v, body);
    }
    if (!d->batch && d->items[0].to == WRITE_DELIVERED) {
        d->filling = effect_settle(d, v, body);
    } else {
        for (size_t i = 0; i < d->nitems; i++)
            if (purges(d, &d->items[i], true))
                effect_purge(d, &d->items[i], v, body);
    }
    delivery_finished(d);
}

void
delivery_heard(void *arg)
{
    struct delivery *d = arg;
    struct fill_view v;

    CHECK(d, DELIVERY_MAGIC);
    fill_look(d->fill, &v);
    if (v.state == FILL_FAULT) {
        hear_fault(d, v.fault);
    } else if (v.state == FILL_HEAD) {
        uint64_t size = body_size(v.body);

        if (v.complete || v.broken || size > ANSWER_LONG) {
            hear_answer(d, &v);
        } else {
            fill_consumed(d->fill, size);
        }
    }
}
