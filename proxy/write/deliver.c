/*
 * Delivery: one write on its way to the origin.
 *
 * Model    START    row and content are read, the request is made of them; others may go with it
 *                   (gather.c)
 *          SENDING  is committed, with one attempt more, before the first byte leaves
 *          ORIGIN   a private fetch (fill/); the answer's end is waited for
 *          OUTCOME  what it means (policy.c); what it changed is purged or filled, and only then
 *                   is it committed, and only then is it pending no more: a writer that looks
 *                   sees its pending write, or what the origin made of it, never what was before.
 *          A crash in between leaves SENDING, and the write is sent again where it may be, with the
 *          same Idempotency-Key; where it may not its fate is unknown, and a person settles it.
 * End      a stop waits for those that are at the origin, and for the journal to take what became
 *          of them, but not for room on a disk that is full, where nothing is lost by that.
 * Power    what a commit of SENDING must survive is the route's word for writes that may not be
 *          repeated. All other changes may be lost with the power: the write is then sent again, or
 *          is uncertain.
 * Threads  the write loop.
 */
#include "write/deliver.h"

#include <stdlib.h>

#include "plugin/plugin.h"
#include "purge/purge.h"

#define HEAD_MAX     16384              /* of an answer's fields that are kept */
#define ANSWER_LONG  (16 << 20)         /* more of an answer is not waited for */
#define BACK_MS      1000               /* until what could not begin is tried again */
#define SPREAD_US    500000             /* at most, for purges to reach other instances */

static const char no_memory[] = "memory was out";

static void send_out(struct delivery *d), supersede(struct delivery *d);

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

static void
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

/* ---- what is committed ----------------------------------------------------------------------- */

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
    if (d->committed == send_out && d->nitems == 1)
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

/* Items from this one on as they are now; all or none are asked for. -1: memory is out. */
static int
commit_some(struct delivery *d, size_t from, size_t to, void (*committed)(struct delivery *d))
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

static int
commit(struct delivery *d, void (*committed)(struct delivery *d))
{
    return commit_some(d, 0, d->nitems, committed);
}

/* SENDING is in the journal, or on its way there, and nothing was sent. Behind it goes what undoes
 * it; what was superseded stays so. */
static void
take_back(struct delivery *d)
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

/* Did no byte of it leave? */
static bool
is_unsent(const struct delivery *d)
{
    struct exchange_times t = { 0 };

    if (d->fill == NULL)
        return d->left > 0 && (d->committed == send_out || d->committed == supersede);
    (void)fill_server(d->fill, &t);
    return !t.reached;
}

static void settle(struct delivery *d);

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
            (void)commit(d, settle);
        }
        d->ended = true;
        if (unsent)
            take_back(d);
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
    if ((coalesced ? commit_some(d, 0, 1, supersede) : commit(d, send_out)) == -1)
        put_back(d);
}

/* ---- at the origin --------------------------------------------------------------------------- */

static void on_change(void *arg);

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
    take_back(d);
    if (d->left == 0)
        put_back(d);
}

/* In a fleet each change is one of its own: the older ones are settled once the newest is SENDING,
 * which at another instance may have been dropped. */
static void
supersede(struct delivery *d)
{
    if (!is_ours(d) || commit_some(d, 1, d->nitems, send_out) == -1)
        give_back(d);
}

static void
send_out(struct delivery *d)
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
    d->fill = fill_open(w->fills, w->loop, &want, on_change, d, &ignored);
    if (d->fill == NULL) {
        for (size_t i = 0; i < d->nitems; i++)
            delivery_judge(d, &d->items[i], &(struct policy_heard){ 0 }, -1, no_memory);
        delivery_finished(d);
    }
}

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

/* What comes behind it may go, and its readers look elsewhere. */
static void
settle(struct delivery *d)
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
        settle(d);
}

/* The journal knows at once: until then a kill would leave the fate unknown of what was done. */
static void
record(struct delivery *d)
{
    if (commit(d, settle) == 0)
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

static void
on_change(void *arg)
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
