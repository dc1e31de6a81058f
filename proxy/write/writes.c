/*
 * The writes as a whole: start, configuration, end; and the operations that the write loop asks of
 * the journal.
 *
 * Model    three threads meet here: askers, the journal's, and the write loop. What the journal did
 *          comes to the write loop as a message (wop), in the order in which it was done; so a
 *          row's acceptance is known before anything that becomes of it.
 * End      the last messages are those of operations under way: one that does nothing is sent
 *          behind them, and when it comes back the loop stops.
 */
#include "write/priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define AGAIN_US 1000000
#define PUMP_MAX 64                     /* deliveries begun in one round of the loop */

/* ---- operations ------------------------------------------------------------------------------ */

struct slice
put_slice(char **at, struct slice s)
{
    struct slice copy = { s.p != NULL ? *at : NULL, s.n };

    if (s.n > 0)
        memcpy(*at, s.p, s.n);
    *at += s.n;
    return copy;
}

struct wop *
wop_new(struct writes *w, enum journal_kind kind, size_t n)
{
    struct wop *o = malloc(sizeof *o + n + 1);

    if (o == NULL) {
        COUNT(memory_failures);
        return NULL;
    }
    memset(o, 0, sizeof *o);
    o->w = w;
    o->op.kind = kind;
    o->op.why = "";
    return o;
}

void
wop_free(struct wop *o)
{
    if (o == NULL)
        return;
    free(o->op.reply);
    free(o);
}

static void
run_wop(struct loop_msg *m)
{
    struct wop *o = CONTAINER(m, struct wop, msg);

    o->then(o);
}

void
wop_post(struct wop *o)
{
    o->msg.run = run_wop;
    loop_post(o->w->loop, &o->msg);
}

static void
on_done(struct journal_op *op)          /* on the journal's thread */
{
    wop_post(CONTAINER(op, struct wop, op));
}

void
wop_do(struct wop *o)
{
    o->op.done = on_done;
    journal_do(o->w->j, &o->op);
}

void
wop_again(struct wop *o)
{
    struct writes *w = o->w;

    if (w->again == NULL)               /* those that wait are not put off */
        timer_set(&w->again_timer, AGAIN_US);
    o->next = w->again;
    w->again = o;
}

/* Those that wanted memory alone are called as they are, the others are done anew. */
static void
on_again(void *arg)
{
    struct writes *w = arg;
    struct wop *o = w->again;

    w->again = NULL;
    while (o != NULL) {
        struct wop *next = o->next;

        if (o->op.result == JOURNAL_DONE)
            o->then(o);
        else
            wop_do(o);
        o = next;
    }
}

/* ---- who is pending -------------------------------------------------------------------------- */

void
writes_count(struct writes *w, const struct write_row *r, bool pending)
{
    _Atomic uint32_t *at = &w->filter[row_target(r) % FILTER_N];
    uint32_t n = atomic_load_explicit(at, memory_order_relaxed);
    uint32_t *by = writes_by(w, row_target(r), r->who);

    if (pending || n > 0)
        atomic_store(at, pending ? n + 1 : n - 1);
    if (pending || *by > 0)
        *by = pending ? *by + 1 : *by - 1;
}

bool
write_maybe_pending(const struct writes *w, uint64_t path_hash)
{
    return journal_shared(w->j) || atomic_load(&w->filter[path_hash % FILTER_N]) > 0;
}

/* A shared journal tells of its rows after the start. */
static void
tell_of_unknown(struct writes *w, uint32_t number)
{
    struct slice name = journal_route_name(w->j, number);

    if (w->site.table != NULL && route_table_find(w->site.table, name) == NULL)
        log_warn("writes: those pending of route %.*s wait: the configuration has no such route "
            "now; bring it back, or drop them (weir writes drop --route)", SLICE_ARG(name));
}

int64_t
writes_enter(struct writes *w, const struct write_row *r)
{
    int64_t position;

    if (!schedule_knows(w->schedule, r->route)) {
        if (writes_route(w, r->route) == -1)
            return -1;
        tell_of_unknown(w, r->route);
    }
    position = schedule_add(w->schedule, r, now_us() / 1000);
    writes_pump(w);
    return position;
}

/* Of a partition whose lease is out, and which we were not told to leave, nothing is known: the
 * lease may be renewed late, and then its chains are ours still. */
static int
source_next(void *arg, unsigned part, uint64_t c1, uint64_t seq, struct write_row *r)
{
    struct writes *w = arg;

    if (journal_owns(w->j, part))
        return journal_next(w->j, part, c1, seq, false, r);
    return (atomic_load(&w->owned) >> part & 1) != 0 ? -1 : 0;
}

int
writes_next_of_target(void *arg, unsigned part, uint64_t target, uint64_t seq,
    struct write_row *r)
{
    struct writes *w = arg;
    int rc;

    while ((rc = journal_next(w->j, part, target, seq, true, r)) == 1 && !r->orders_target)
        seq = r->seq;
    return rc;
}

/* ---- configuration --------------------------------------------------------------------------- */

static int
origin_number(struct writes *w, const char *name, unsigned *number)
{
    char **at;

    for (size_t i = 0; i < w->norigin_names; i++)
        if (strcmp(w->origin_names[i], name) == 0) {
            *number = (unsigned)i;
            return 0;
        }
    at = realloc(w->origin_names, (w->norigin_names + 1) * sizeof(char *));
    if (at == NULL)
        return -1;
    w->origin_names = at;
    at[w->norigin_names] = strdup(name);
    if (at[w->norigin_names] == NULL)
        return -1;
    *number = (unsigned)w->norigin_names++;
    return 0;
}

bool
writes_origin(const struct writes *w, struct slice name, unsigned *number)
{
    for (size_t i = 0; i < w->norigin_names; i++)
        if (slice_eq(slice_of(w->origin_names[i]), name)) {
            *number = (unsigned)i;
            return true;
        }
    return false;
}

/* "origin NAME": names of the journal's of what is paused. */
static bool
is_paused(struct writes *w, const char *what, const char *name)
{
    char text[512];

    snprintf(text, sizeof text, "%s %s", what, name);
    return journal_paused(w->j, slice_of(text));
}

static void
limits_of(const struct conf_route *c, struct schedule_limits *l)
{
    *l = (struct schedule_limits){ .origin = l->origin,
        .concurrency = (unsigned)c->write_concurrency,
        .interval_us = c->write_rate != CONF_UNSET ? c->write_rate : 0,
        .weights = { (unsigned)c->write_lane_high, (unsigned)c->write_lane_default,
            (unsigned)c->write_lane_low },
    };
    if (c->write_batch_to != NULL && c->write_batch_to[0] != '\0') {
        l->batch_max = (unsigned)c->write_batch_max;
        l->batch_every_ms = c->write_batch_every_ms;
    }
}

int
writes_route(struct writes *w, uint32_t number)
{
    struct slice name = journal_route_name(w->j, number);
    const struct route *r = w->site.table != NULL ? route_table_find(w->site.table, name) : NULL;
    struct schedule_limits l = { .held = true, .concurrency = 1, .weights = { 1, 1, 1 } };

    if (r != NULL) {
        if (origin_number(w, r->conf->to->id, &l.origin) == -1)
            return -1;
        limits_of(r->conf, &l);
        fleet_share(w, r, &l);
    }
    if (schedule_route(w->schedule, number, &l) == -1 ||
        schedule_pause_route(w->schedule, number,
            r != NULL && is_paused(w, "route", r->name)) == -1)
        return -1;
    return 0;
}

static void
site_free(struct write_site *s)
{
    for (size_t i = 0; i < s->norigins; i++)
        origin_unref(&s->origins[i]);
    if (s->table != NULL)
        route_table_unref(&s->table);
    free(s->origins);
    free(s->via);
    *s = (struct write_site){ 0 };
}

static void
tell_of_gone(struct writes *w, uint32_t number)
{
    struct slice name = journal_route_name(w->j, number);
    struct schedule_figures f;

    schedule_figures_of(w->schedule, number, &f);
    if (f.held && f.pending > 0)
        log_warn("writes: %llu pending of route %.*s wait: the configuration has no such route "
            "now; bring it back, or drop them (weir writes drop --route)",
            (unsigned long long)f.pending, SLICE_ARG(name));
}

/* All routes of the journal and the table are told to the schedule. */
void
writes_apply(struct writes *w)
{
    const struct conf *c = route_table_conf(w->site.table);
    bool ok = true;
    unsigned n;

    w->paused = journal_paused(w->j, SLICE("all"));
    for (size_t i = 0; i < c->norigins; i++)
        ok = origin_number(w, c->origins[i].id, &n) == 0 &&
            schedule_pause_origin(w->schedule, n, is_paused(w, "origin", c->origins[i].id)) == 0 &&
            ok;
    for (uint32_t i = 1; i <= journal_routes(w->j); i++)
        ok = writes_route(w, i) == 0 && ok;
    if (!ok)
        log_error("writes: out of memory; some routes deliver as before");
    writes_pump(w);
}

static void
apply_site(struct writes *w)
{
    const struct conf *c = route_table_conf(w->site.table);
    const struct journal_limits limits = { c->journal_size, c->journal_idempotency_size,
        c->journal_keep_ms, c->journal_depth };

    journal_limits(w->j, &limits);
    fleet_site(w);
    writes_apply(w);
    for (uint32_t i = 1; i <= journal_routes(w->j); i++)
        tell_of_gone(w, i);
}

struct site_msg { struct loop_msg msg; struct writes *w; struct write_site site; };

static void
run_site(struct loop_msg *m)
{
    struct site_msg *s = CONTAINER(m, struct site_msg, msg);
    struct writes *w = s->w;

    site_free(&w->site);
    w->site = s->site;
    free(s);
    apply_site(w);
}

void
writes_site(struct writes *w, struct route_table *t, struct origin *const *origins,
    struct slice via)
{
    size_t n = route_table_conf(t)->norigins;
    struct site_msg *m = calloc(1, sizeof *m);

    CHECK(w, WRITES_MAGIC);
    if (m != NULL) {
        m->site.origins = calloc(n + 1, sizeof(struct origin *));
        m->site.via = strndup(via.p, via.n);
    }
    if (m == NULL || m->site.origins == NULL || m->site.via == NULL) {
        log_error("writes: out of memory; they are delivered as before");
        if (m != NULL)
            site_free(&m->site);
        free(m);
        return;
    }
    m->w = w;
    m->site.table = route_table_ref(t);
    for (size_t i = 0; i < n; i++)
        m->site.origins[m->site.norigins++] = origin_ref(origins[i]);
    m->msg.run = run_site;
    loop_post(w->loop, &m->msg);
}

/* ---- the pump -------------------------------------------------------------------------------- */

static void
run_pump(struct loop_msg *m)
{
    struct writes *w = CONTAINER(m, struct writes, pump);
    enum schedule_took took = SCHEDULE_NONE;
    struct schedule_turn turn;
    struct write_row row;
    bool delivers;
    int64_t wait, look;

    w->pump_posted = false;
    atomic_store(&w->pumping, true);            /* before `draining` is read: writes_drain */
    delivers = w->site.table != NULL && !w->paused && !atomic_load(&w->draining) &&
        !atomic_load(&w->holding);
    looks_expire(w);
    if (delivers)
        for (unsigned i = 0; i < PUMP_MAX; i++) {
            took = schedule_take(w->schedule, now_us() / 1000, wall_ms(), &row, &turn);
            if (took != SCHEDULE_ROW)
                break;
            delivery_start(w, &row, &turn);
        }
    atomic_store(&w->pumping, false);
    if (took != SCHEDULE_NONE) {
        writes_pump(w);
        return;
    }
    wait = delivers ? schedule_wait_ms(w->schedule, now_us() / 1000) : -1;
    wait = wait == -1 ? -1 : wait * 1000;
    look = looks_wait_us(w);
    if (look != -1 && (wait == -1 || look < wait))
        wait = look;
    timer_clear(&w->timer);
    if (wait != -1 && !atomic_load(&w->closing))
        timer_set(&w->timer, wait);
}

void
writes_pump(struct writes *w)
{
    if (w->pump_posted)
        return;
    w->pump_posted = true;
    w->pump.run = run_pump;
    loop_post(w->loop, &w->pump);
}

static void
on_timer(void *arg)
{
    writes_pump(arg);
}

static void
on_tick(void *arg)
{
    struct writes *w = arg;

    watch_tick(w);
    fleet_tick(w);
    timer_set(&w->tick, 1000000);
}

/* ---- figures --------------------------------------------------------------------------------- */

int64_t
age_ms(const struct journal_figures *f)
{
    int64_t at = (int64_t)f->oldest_ms, now = wall_ms();

    return at != 0 && at < now ? now - at : 0;
}

static void
put_figures(struct writes *w, struct buf *b, bool *takes)
{
    struct journal_figures f;

    journal_figures(w->j, &f);
    *takes = f.takes;
    buf_printf(b, "\"writes\":{\"takes\":%s,\"why\":\"", f.takes ? "true" : "false");
    if (!f.takes)
        buf_json(b, slice_of(f.why));
    buf_printf(b, "\",\"pending\":%llu,\"dead\":%llu,\"bytes\":%llu,\"room\":%llu,"
        "\"oldest_ms\":%llu,\"delivering\":%u,\"paused\":%s", (unsigned long long)f.pending,
        (unsigned long long)f.dead, (unsigned long long)f.bytes, (unsigned long long)f.room,
        (unsigned long long)age_ms(&f), atomic_load(&w->under_way),
        journal_paused(w->j, SLICE("all")) ? "true" : "false");
    if (journal_shared(w->j))
        buf_printf(b, ",\"partitions\":%u,\"lost\":%llu",
            (unsigned)__builtin_popcountll(atomic_load(&w->owned)), (unsigned long long)f.lost);
    if (f.aside[0] != '\0') {
        buf_addz(b, ",\"damaged\":\"");     /* its file, for a person to look at */
        buf_json(b, slice_of(f.aside));
        buf_addc(b, '"');
    }
    buf_addc(b, '}');
}

bool
writes_ready(struct writes *w, struct buf *b)
{
    bool takes;

    CHECK(w, WRITES_MAGIC);
    put_figures(w, b, &takes);
    return takes;
}

static void
figures_json(struct buf *b, void *arg)
{
    bool takes;

    buf_addc(b, ',');
    put_figures(arg, b, &takes);
}

static void
family(struct buf *b, const char *name, const char *unit, const char *help, double value)
{
    buf_printf(b, "# HELP weir_writes_%s%s %s\n# TYPE weir_writes_%s%s gauge\n"
        "weir_writes_%s%s %g\n", name, unit, help, name, unit, name, unit, value);
}

static void
figures_metrics(struct buf *b, void *arg)
{
    struct writes *w = arg;
    struct journal_figures f;

    journal_figures(w->j, &f);
    family(b, "depth", "", "Writes that are accepted and not yet settled.", (double)f.pending);
    family(b, "dead", "", "Dead letters.", (double)f.dead);
    family(b, "oldest", "_seconds", "Age of the oldest pending write.",
        (double)age_ms(&f) / 1000);
    family(b, "journal", "_bytes", "Bytes of the journal in use.", (double)f.bytes);
}

/* ---- begin and end --------------------------------------------------------------------------- */

static void
on_found(void *arg, const struct write_row *r)
{
    struct writes *w = arg;

    writes_count(w, r, true);
    if (schedule_add(w->schedule, r, now_us() / 1000) == -1)
        log_fatal("journal: out of memory for the pending writes");
}

/* What a delivery has, or a verb that read it as pending, is moved by these. Where the row itself
 * was damaged the counts stay one too high, for it cannot be told which: readers ask once more than
 * they must. */
static void
take_condemned(struct wop *o)
{
    const struct write_row was = { .state = WRITE_PENDING };
    struct writes *w = o->w;
    struct write_row *r = &o->op.row;

    if (!o->op.on) {
        schedule_lost(w->schedule);
        writes_pump(w);
    } else if (!delivery_has(w, r->seq) && !verb_moves(w, r->seq)) {
        writes_moved(w, &was, r);
    }
    wop_free(o);
}

static void
on_condemned(void *arg, const struct write_row *r, bool known)     /* on the journal's thread */
{
    struct writes *w = arg;
    struct wop *o = atomic_load(&w->closing) ? NULL : wop_new(w, JOURNAL_CONDEMN, 0);

    if (o == NULL)
        return;
    o->op.row = *r;
    o->op.on = known;
    o->then = take_condemned;
    wop_post(o);
}

static void *
run_thread(void *arg)
{
    struct writes *w = arg;

    loop_run(w->loop);
    return NULL;
}

static int
make_timers(struct writes *w)
{
    return timer_init(&w->timer, w->loop, on_timer, w) == 0 &&
        timer_init(&w->again_timer, w->loop, on_again, w) == 0 &&
        timer_init(&w->tick, w->loop, on_tick, w) == 0 ? 0 : -1;
}

static void
writes_free(struct writes *w)
{
    struct wop *o;

    timer_fini(&w->timer);
    timer_fini(&w->again_timer);
    timer_fini(&w->tick);
    while ((o = w->again) != NULL) {
        w->again = o->next;
        wop_free(o);
    }
    deliveries_free(w);
    verbs_free(w);
    while (w->asks != NULL)
        ask_free(w->asks);
    watches_free(w);
    if (w->j != NULL)
        journal_close(&w->j);
    if (w->schedule != NULL)
        schedule_free(&w->schedule);
    site_free(&w->site);
    for (size_t i = 0; i < w->norigin_names; i++)
        free(w->origin_names[i]);
    free(w->origin_names);
    free((void *)w->filter);
    free(w->by);
    pthread_mutex_destroy(&w->mtx);
    w->magic = 0;
    free(w);
}

struct writes *
writes_open(const struct conf *c, struct loop *l, struct store *s, struct fills *f, struct bus *b,
    struct err *e)
{
    const struct journal_limits limits = { c->journal_size, c->journal_idempotency_size,
        c->journal_keep_ms, c->journal_depth };
    struct writes *w = calloc(1, sizeof *w);
    const struct schedule_source source = { source_next, writes_next_of_target, w,
        c->journal_redis.url.n > 0 };
    const struct journal_found found = { .row = on_found, .condemned = on_condemned,
        .owns = fleet_owns, .came = fleet_came, .changed = fleet_changed, .arg = w };
    int rc;

    if (w == NULL) {
        err_set(e, ENOMEM, "journal: out of memory");
        return NULL;
    }
    w->magic = WRITES_MAGIC;
    w->loop = l;
    w->store = s;
    w->fills = f;
    w->bus = b;
    pthread_mutex_init(&w->mtx, NULL);
    w->filter = calloc(FILTER_N, sizeof *w->filter);
    w->by = calloc(FILTER_N, sizeof *w->by);
    w->schedule = schedule_new(&source);
    if (w->filter == NULL || w->by == NULL || w->schedule == NULL || make_timers(w) == -1) {
        err_set(e, ENOMEM, "journal: out of memory");
        writes_free(w);
        return NULL;
    }
    w->j = c->journal_redis.url.n > 0 ? journal_open_shared(c, &limits, &found, e) :
        journal_open(c->journal_path, &limits, &found, e);
    if (w->j == NULL) {
        writes_free(w);
        return NULL;
    }
    timer_set(&w->tick, 1000000);
    rc = pthread_create(&w->thread, NULL, run_thread, w);
    if (rc != 0) {
        err_set(e, rc, "journal: a thread: %s", strerror(rc));
        writes_free(w);
        return NULL;
    }
    w->running = true;
    w->figures = (struct stats_source){ figures_json, figures_metrics, w, NULL };
    stats_source_add(&w->figures);
    return w;
}

static void
run_hold(struct loop_msg *m)
{
    struct writes *w = CONTAINER(m, struct writes, hold);

    atomic_store(&w->hold_posted, false);
    writes_pump(w);
}

static bool
is_still(struct writes *w)
{
    return !atomic_load(&w->pumping) && atomic_load(&w->under_way) == 0;
}

bool
writes_hold(struct writes *w, bool on)
{
    CHECK(w, WRITES_MAGIC);
    atomic_store(&w->holding, on);
    if (!atomic_exchange(&w->hold_posted, true)) {
        w->hold.run = run_hold;
        loop_post(w->loop, &w->hold);
    }
    return is_still(w);
}

/* A pump that is not seen here sees `draining`; what one that has ended began is under way. */
bool
writes_drain(struct writes *w)
{
    CHECK(w, WRITES_MAGIC);
    if (!atomic_exchange(&w->draining, true))
        journal_leave(w->j);
    return is_still(w);
}

static void
on_last(struct wop *o)
{
    loop_stop(o->w->loop);
    wop_free(o);
}

static void
run_end(struct loop_msg *m)
{
    struct writes *w = CONTAINER(m, struct writes, end);
    struct wop *o = wop_new(w, JOURNAL_CALL, 0);

    deliveries_end(w);
    timer_clear(&w->timer);
    timer_clear(&w->again_timer);
    timer_clear(&w->tick);
    if (o == NULL) {
        loop_stop(w->loop);
        return;
    }
    o->then = on_last;
    wop_do(o);
}

void
writes_close(struct writes **wp)
{
    struct writes *w = *wp;

    *wp = NULL;
    if (w == NULL)
        return;
    CHECK(w, WRITES_MAGIC);
    atomic_store(&w->draining, true);
    atomic_store(&w->closing, true);
    w->end.run = run_end;
    loop_post(w->loop, &w->end);
    pthread_join(w->thread, NULL);
    writes_free(w);
}
