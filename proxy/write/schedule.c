/*
 * Which write goes next.
 *
 * Model    a chain is what must go in order: writes of one key. Of it memory holds one entry, with
 *          the first pending write; the others stay in the journal and are asked for, one query
 *          each, when they become the first. Chains whose first write may go stand in lists, one
 *          for each lane of a route. Routes with such chains take turns; a route's turn passes
 *          while it is paused, gone, at its limit of deliveries or ahead of its rate, or while its
 *          origin is down. Lanes share by smooth weighted round robin: none waits for ever.
 *          PUT, PATCH and DELETE of one target keep their order across chains too: before one goes
 *          the journal tells whether it is the first of its target, else its chain is BLOCKED, in
 *          no list, until the first one is settled and it is its turn. That is asked only while any
 *          pending write has a target besides its chain; of a shared journal, where one may be
 *          pending before it is told, once any had one in its partition, or may have.
 *          Entries are looked at again when they are taken (its row may have been dropped, or be
 *          due later), so that nothing has to be searched in a list. While the journal cannot tell
 *          what is first, the chain waits: what is behind that must not go before it.
 * Breaker  an origin that could not be reached five times in a row gets one delivery at a time, as
 *          a probe, after 0.5 s, 1 s, 2 s ... 15 s; one that reaches it opens the way for all.
 * Order    no write is taken while one of its chain is taken. Chains go in the order in which they
 *          became ready, lane by lane.
 * Threads  the write loop.
 */
#include "write/schedule.h"

#include <stdlib.h>

#include "write/chains.h"

#define FAILURES_MAX 5
#define PROBE_MIN_MS 500
#define PROBE_MAX_MS 15000
#define LOOKS_MAX    64             /* rows that one call looks at in vain */
#define BLIND_MS     1000           /* until rows that could not be read are asked for again */
#define BURST_US     20000          /* timers are of milliseconds: what is late is caught up */

struct sroute {
    struct schedule_limits limits;
    bool     known, paused, active;
    unsigned in_flight;
    int64_t  next_us;               /* by its rate */
    int64_t  since_ms;              /* when the first of those that are ready became so */
    struct chain_list lanes[WRITE_LANES];
    int      share[WRITE_LANES];
    uint64_t pending;
    uint32_t parts[JOURNAL_PARTS];  /* ... of each partition */
};

struct sorigin {
    bool     paused, down, probing;
    unsigned failures, probes;
    int64_t  probe_ms;
};

struct schedule {
    struct schedule_source source;
    struct chains     chains;
    struct delays      wheel;
    bool              started;          /* the wheel */
    struct chain_list loose;            /* their rows tell where they belong */
    struct sroute    *routes;  size_t nroutes;      /* by number */
    struct sorigin   *origins; size_t norigins;
    uint32_t         *active;  size_t nactive, cap, turn;   /* routes with ready chains */
    uint64_t          pending, targets; /* ... of which have a target besides */
    uint64_t          keyed;            /* shared: partitions in which some may have one */
    bool              hurried;
};

struct schedule *
schedule_new(const struct schedule_source *source)
{
    struct schedule *s = calloc(1, sizeof *s);

    if (s != NULL)
        s->source = *source;
    return s;
}

void
schedule_free(struct schedule **sp)
{
    struct schedule *s = *sp;

    *sp = NULL;
    if (s == NULL)
        return;
    chains_free(&s->chains);
    free(s->routes);
    free(s->origins);
    free(s->active);
    free(s);
}

/* What a row's chain is known by here; the same undoes it. */
static uint64_t
chain_key(const struct schedule *s, uint64_t hash, uint64_t seq)
{
    return s->source.shared ? hash ^ (journal_part(seq) + 1) * UINT64_C(0x9e3779b97f4a7c15) : hash;
}

/* CHAIN_NONE: it is not known. */
static uint32_t
chain_of(const struct schedule *s, const struct write_row *r)
{
    return chains_find(&s->chains, chain_key(s, r->c1, r->seq));
}

/* ---- routes and origins ---------------------------------------------------------------------- */

static int
grow(void **at, size_t *n, size_t want, size_t size)
{
    size_t to = *n > 0 ? *n : 8;
    char *p;

    if (want < *n)
        return 0;
    while (to <= want)
        to *= 2;
    p = realloc(*at, to * size);
    if (p == NULL)
        return -1;
    memset(p + *n * size, 0, (to - *n) * size);
    *at = p;
    *n = to;
    return 0;
}

/* Room for it in `active` too: a chain can then become ready without memory. */
static int
make_route(struct schedule *s, uint32_t route)
{
    void *routes = s->routes, *active = s->active;
    int rc = grow(&active, &s->cap, route, sizeof *s->active);

    s->active = active;
    if (rc == 0)
        rc = grow(&routes, &s->nroutes, route, sizeof *s->routes);
    s->routes = routes;
    return rc;
}

static int
make_origin(struct schedule *s, unsigned origin)
{
    void *at = s->origins;
    int rc = grow(&at, &s->norigins, origin, sizeof *s->origins);

    s->origins = at;
    return rc;
}

int
schedule_route(struct schedule *s, uint32_t route, const struct schedule_limits *limits)
{
    if (make_route(s, route) == -1 || make_origin(s, limits->origin) == -1)
        return -1;
    s->routes[route].limits = *limits;
    s->routes[route].known = true;
    return 0;
}

bool
schedule_knows(const struct schedule *s, uint32_t route)
{
    return route < s->nroutes && s->routes[route].known;
}

int
schedule_pause_route(struct schedule *s, uint32_t route, bool on)
{
    if (make_route(s, route) == -1)
        return -1;
    s->routes[route].paused = on;
    return 0;
}

int
schedule_pause_origin(struct schedule *s, unsigned origin, bool on)
{
    if (make_origin(s, origin) == -1)
        return -1;
    s->origins[origin].paused = on;
    return 0;
}

bool
schedule_heard(struct schedule *s, const struct schedule_turn *turn, bool reached, uint64_t random,
    int64_t now_ms)
{
    struct sorigin *o = &s->origins[turn->origin];
    int64_t wait;

    if (reached) {
        o->down = false;
        o->failures = o->probes = 0;
        return false;
    }
    if (o->down && !turn->probe)        /* it was sent before: no news */
        return true;
    if (!o->down && ++o->failures < FAILURES_MAX)
        return false;
    o->down = true;
    wait = PROBE_MIN_MS << (o->probes < 5 ? o->probes : 5);
    if (wait > PROBE_MAX_MS)
        wait = PROBE_MAX_MS;
    o->probes++;
    o->probe_ms = now_ms + wait / 2 + (int64_t)(random % (uint64_t)(wait / 2 + 1));
    return true;
}

/* When may it send, if nothing else happens? INT64_MAX: not by time. now_ms: at once. */
static int64_t
goes_at(const struct schedule *s, const struct sroute *r, int64_t now_ms)
{
    const struct sorigin *o = &s->origins[r->limits.origin];
    int64_t at = now_ms, other;

    if (!r->known || r->limits.held || r->paused || o->paused || (o->down && o->probing) ||
        r->in_flight >= r->limits.concurrency)
        return INT64_MAX;
    if (o->down && o->probe_ms > at)
        at = o->probe_ms;
    if (r->limits.interval_us > 0 && (other = (r->next_us + 999) / 1000) > at)
        at = other;
    if (r->limits.batch_max > 0 &&
        r->pending < (r->in_flight + 1) * (uint64_t)r->limits.batch_max &&
        (other = r->since_ms + r->limits.batch_every_ms) > at)
        at = other;
    return at;
}

/* ---- where a chain stands -------------------------------------------------------------------- */

static void
ready(struct schedule *s, uint32_t i, const struct write_row *row, int64_t now_ms)
{
    struct sroute *r = &s->routes[row->route];

    chain_at(&s->chains, i)->state = CHAIN_READY;
    chain_push(&s->chains, &r->lanes[row->lane], i);
    if (!r->active) {
        r->active = true;
        r->since_ms = now_ms;
        s->active[s->nactive++] = row->route;
    }
}

static void
loosen(struct schedule *s, uint32_t i)
{
    chain_at(&s->chains, i)->state = CHAIN_READY;
    chain_push(&s->chains, &s->loose, i);
}

static void
wait_for(struct schedule *s, uint32_t i, int64_t delay_ms, int64_t now_ms)
{
    struct chain *e = chain_at(&s->chains, i);

    if (!s->started)
        delays_start(&s->wheel, now_ms);
    s->started = true;
    e->state = CHAIN_WAITING;
    e->flags |= CHAIN_TIMED;
    if (delays_put(&s->wheel, &s->chains, i, delay_ms, now_ms))
        e->flags &= ~CHAIN_FAR & 15u;
    else
        e->flags |= CHAIN_FAR;
}

/* How long the row is still to wait. The wall clock, by which rows say when they are due, may have
 * been set back: no wait is longer than it was when it began. */
static int64_t
left_of(const struct chain *e, const struct write_row *row, int64_t wall_ms)
{
    int64_t left = row->due_ms - wall_ms;
    int64_t whole = row->settled_ms != 0 ? row->due_ms - row->settled_ms : 0;

    if (row->state != WRITE_WAITING || left <= 0)
        return 0;
    if (e->flags & CHAIN_TIMED)
        return left > WHEEL_TURN_MS && !(e->flags & CHAIN_FAR) ? 0 : left;
    return left < whole ? left : whole;
}

/* Its first pending write. false: there is none, and the chain is gone; or it waits, until that can
 * be told. */
static bool
look(struct schedule *s, uint32_t i, struct write_row *row, int64_t now_ms)
{
    struct chain *e = chain_at(&s->chains, i);
    uint64_t from = e->flags & CHAIN_FROM_START || e->head == 0 ? 0 : e->head - 1;

    int rc = s->source.next(s->source.arg, journal_part(e->head),
        chain_key(s, e->hash, e->head), from, row);

    if (rc == 0)
        chains_remove(&s->chains, i);
    if (rc == -1)
        wait_for(s, i, BLIND_MS, now_ms);
    if (rc != 1)
        return false;
    if (row->seq != e->head)
        e->flags = 0;
    e->head = row->seq;
    e->flags &= ~CHAIN_FROM_START & 15u;
    return true;
}

static uint64_t
target_of(const struct write_row *row)
{
    return row->c2 != 0 ? row->c2 : row->c1;
}

void
schedule_keyed(struct schedule *s, uint64_t parts)
{
    s->keyed |= parts;
}

bool
schedule_has_targets(const struct schedule *s, uint64_t seq)
{
    return s->source.shared ? (s->keyed >> journal_part(seq) & 1) != 0 : s->targets > 0;
}

/* Has another chain an earlier write to its target? 1, 0, or -1: it cannot be told. */
static int
is_blocked(struct schedule *s, const struct write_row *row)
{
    struct write_row first;
    int rc;

    if (!row->orders_target || !schedule_has_targets(s, row->seq))
        return 0;
    rc = s->source.next_of_target(s->source.arg, journal_part(row->seq), target_of(row), 0, &first);
    return rc == 1 ? first.seq < row->seq : rc;
}

void
schedule_lost(struct schedule *s)
{
    for (uint32_t i = 1; i < s->chains.used; i++)
        if (chain_at(&s->chains, i)->state == CHAIN_BLOCKED)
            loosen(s, i);
}

/* A write to this target is settled: the next one may have waited for it. Where that cannot be told
 * all that wait so look for themselves. */
static void
unblock(struct schedule *s, unsigned part, uint64_t target)
{
    struct write_row first;
    int rc = s->source.next_of_target(s->source.arg, part, target, 0, &first);
    uint32_t only = rc == 1 ? chain_of(s, &first) : CHAIN_NONE;

    if (only != CHAIN_NONE && chain_at(&s->chains, only)->state == CHAIN_BLOCKED)
        loosen(s, only);
    if (rc == -1)
        schedule_lost(s);
}

/* ---- writes come and go ---------------------------------------------------------------------- */

static void
count_in(struct schedule *s, const struct write_row *r)
{
    s->pending++;
    s->targets += r->c2 != 0;
    if (r->c2 != 0)
        schedule_keyed(s, UINT64_C(1) << journal_part(r->seq));
    s->routes[r->route].pending++;
    s->routes[r->route].parts[journal_part(r->seq)]++;
}

/* What was forgotten meanwhile is not counted any more. */
static void
count_out(struct schedule *s, const struct write_row *r)
{
    unsigned part = journal_part(r->seq);

    s->targets -= r->c2 != 0 && s->targets > 0;
    if (r->route >= s->nroutes || s->routes[r->route].parts[part] == 0)
        return;
    s->pending--;
    s->routes[r->route].pending--;
    s->routes[r->route].parts[part]--;
}

int64_t
schedule_add(struct schedule *s, const struct write_row *r, int64_t now_ms)
{
    uint32_t i = chain_of(s, r);
    bool is_new = i == CHAIN_NONE;
    struct chain *e;

    if (make_route(s, r->route) == -1 ||
        (is_new && (i = chains_add(&s->chains, chain_key(s, r->c1, r->seq))) == CHAIN_NONE))
        return -1;
    e = chain_at(&s->chains, i);
    count_in(s, r);
    if (is_new) {
        e->head = r->seq;
        if (s->source.shared)           /* what is before it may have been told, and forgotten */
            e->flags |= CHAIN_FROM_START;
        ready(s, i, r, now_ms);
    } else if (r->seq < e->head || (s->source.shared && e->state == CHAIN_BLOCKED)) {
        e->flags |= CHAIN_FROM_START;
        if (e->state == CHAIN_WAITING)
            schedule_hurry(s, r);
        else if (e->state == CHAIN_BLOCKED)
            loosen(s, i);
    }
    if (e->count < CHAIN_MANY)
        e->count++;
    return (int64_t)e->count - 1;
}

/* Counting it in its chain once too often costs a look, once too seldom would leave it behind. */
int
schedule_found(struct schedule *s, const struct write_row *r, int64_t now_ms)
{
    uint32_t i = chain_of(s, r);
    struct chain *e = i != CHAIN_NONE ? chain_at(&s->chains, i) : NULL;

    if (e == NULL)
        return schedule_add(s, r, now_ms) == -1 ? -1 : 0;
    if (e->count < CHAIN_MANY)
        e->count++;
    if (r->seq < e->head)
        e->flags |= CHAIN_FROM_START;
    if (e->state == CHAIN_BLOCKED)
        loosen(s, i);
    schedule_hurry(s, r);
    return 0;
}

void
schedule_settled(struct schedule *s, const struct write_row *r, int64_t now_ms)
{
    uint32_t i = chain_of(s, r);
    struct chain *e = i != CHAIN_NONE ? chain_at(&s->chains, i) : NULL;
    bool targets = schedule_has_targets(s, r->seq);
    struct write_row next;

    count_out(s, r);
    if (e != NULL && e->count > 0 && e->count < CHAIN_MANY)
        e->count--;
    if (e != NULL && e->head == r->seq) {
        if (e->state == CHAIN_WAITING) {
            e->flags |= CHAIN_HURRIED;
            s->hurried = true;
        } else if (e->state == CHAIN_BLOCKED) {
            loosen(s, i);
        } else if (e->state == CHAIN_SENDING && e->count == 0 && !s->source.shared) {
            chains_remove(&s->chains, i);
        } else if (e->state == CHAIN_SENDING && look(s, i, &next, now_ms)) {
            ready(s, i, &next, now_ms);
        }
    }
    if (r->orders_target && targets)
        unblock(s, journal_part(r->seq), target_of(r));
}

/* Chains that stand in a list go when they are looked at: the source has no next row for them. */
void
schedule_forget(struct schedule *s, unsigned part)
{
    for (size_t k = 0; k < s->nroutes; k++) {
        s->pending -= s->routes[k].parts[part];
        s->routes[k].pending -= s->routes[k].parts[part];
        s->routes[k].parts[part] = 0;
    }
    for (uint32_t i = 1; i < s->chains.used; i++) {
        struct chain *e = chain_at(&s->chains, i);

        if (journal_part(e->head) != part || chains_find(&s->chains, e->hash) != i)
            continue;
        e->count = 0;
        e->flags |= CHAIN_FROM_START;   /* what it is when it is ours again is not known */
        if (e->state == CHAIN_WAITING) {
            e->flags |= CHAIN_HURRIED;
            s->hurried = true;
        } else if (e->state == CHAIN_BLOCKED) {
            loosen(s, i);
        }
    }
}

void
schedule_again(struct schedule *s, const struct write_row *r, int64_t delay_ms, int64_t now_ms)
{
    uint32_t i = chain_of(s, r);
    struct chain *e = i != CHAIN_NONE ? chain_at(&s->chains, i) : NULL;

    if (e == NULL || e->state != CHAIN_SENDING || e->head != r->seq)
        return;
    if ((e->flags & CHAIN_FROM_START) != 0)     /* it was forgotten meanwhile: the row says when */
        loosen(s, i);
    else if (delay_ms > 0)
        wait_for(s, i, delay_ms, now_ms);
    else
        ready(s, i, r, now_ms);
}

void
schedule_hurry(struct schedule *s, const struct write_row *r)
{
    uint32_t i = chain_of(s, r);

    if (i == CHAIN_NONE || chain_at(&s->chains, i)->state != CHAIN_WAITING)
        return;
    chain_at(&s->chains, i)->flags |= CHAIN_HURRIED;
    s->hurried = true;
}

void
schedule_instead(struct schedule *s, const struct write_row *newest)
{
    uint32_t i = chain_of(s, newest);

    assert(i != CHAIN_NONE && chain_at(&s->chains, i)->state == CHAIN_SENDING);
    chain_at(&s->chains, i)->head = newest->seq;
}

void
schedule_ended(struct schedule *s, const struct schedule_turn *turn)
{
    assert(s->routes[turn->route].in_flight > 0);
    s->routes[turn->route].in_flight--;
    if (turn->probe)
        s->origins[turn->origin].probing = false;
}

/* ---- taking ---------------------------------------------------------------------------------- */

/* Of the lanes in which chains stand the one whose share is due (smooth weighted round robin). */
static int
choose_lane(struct sroute *r)
{
    int best = -1, total = 0;

    for (int l = 0; l < WRITE_LANES; l++) {
        if (r->lanes[l].first == CHAIN_NONE) {
            r->share[l] = 0;
            continue;
        }
        r->share[l] += (int)r->limits.weights[l];
        total += (int)r->limits.weights[l];
        if (best == -1 || r->share[l] > r->share[best])
            best = l;
    }
    if (best != -1)
        r->share[best] -= total;
    return best;
}

static void
deactivate(struct schedule *s, size_t at)
{
    s->routes[s->active[at]].active = false;
    s->active[at] = s->active[--s->nactive];
}

/* A chain that stands in no list goes where its row says. */
static void
place(struct schedule *s, uint32_t i, const struct write_row *row, int64_t now_ms, int64_t wall_ms)
{
    int64_t left = left_of(chain_at(&s->chains, i), row, wall_ms);

    if (left > 0)
        wait_for(s, i, left, now_ms);
    else
        ready(s, i, row, now_ms);
}

/* What the wheel gave and what was woken; false: there are more. */
static bool
place_loose(struct schedule *s, int64_t now_ms, int64_t wall_ms)
{
    struct write_row row;
    uint32_t i;

    if (s->started)
        delays_turn(&s->wheel, &s->chains, now_ms, &s->loose);
    if (s->hurried && s->started)
        delays_sweep(&s->wheel, &s->chains, &s->loose);
    s->hurried = false;
    for (unsigned k = 0; k < LOOKS_MAX; k++) {
        if ((i = chain_pop(&s->chains, &s->loose)) == CHAIN_NONE)
            return true;
        if (look(s, i, &row, now_ms))
            place(s, i, &row, now_ms, wall_ms);
    }
    return s->loose.first == CHAIN_NONE;
}

/* The first chain of one of the route's lanes: true: its write goes. false: it stands elsewhere
 * now, or there was none. */
static bool
take_from(struct schedule *s, uint32_t route, int64_t now_ms, int64_t wall_ms,
    struct write_row *row)
{
    struct sroute *r = &s->routes[route];
    int lane = choose_lane(r), blocked;
    uint32_t i;

    if (lane == -1)
        return false;
    i = chain_pop(&s->chains, &r->lanes[lane]);
    if (!look(s, i, row, now_ms))
        return false;
    if (row->route != route || left_of(chain_at(&s->chains, i), row, wall_ms) > 0) {
        place(s, i, row, now_ms, wall_ms);
        return false;
    }
    blocked = is_blocked(s, row);
    if (blocked == -1)
        wait_for(s, i, BLIND_MS, now_ms);
    else if (blocked == 1)
        chain_at(&s->chains, i)->state = CHAIN_BLOCKED;
    if (blocked != 0)
        return false;
    chain_at(&s->chains, i)->state = CHAIN_SENDING;
    return true;
}

static bool
is_empty(const struct sroute *r)
{
    for (int l = 0; l < WRITE_LANES; l++)
        if (r->lanes[l].first != CHAIN_NONE)
            return false;
    return true;
}

static struct schedule_turn
count_taken(struct schedule *s, uint32_t route, int64_t now_ms)
{
    struct sroute *r = &s->routes[route];
    struct sorigin *o = &s->origins[r->limits.origin];
    int64_t now_us = now_ms * 1000;

    r->in_flight++;
    r->since_ms = now_ms;
    if (r->limits.interval_us > 0) {
        if (r->next_us < now_us - BURST_US)
            r->next_us = now_us - BURST_US;
        r->next_us += r->limits.interval_us;
    }
    o->probing = o->probing || o->down;
    return (struct schedule_turn){ route, r->limits.origin, o->down };
}

enum schedule_took
schedule_take(struct schedule *s, int64_t now_ms, int64_t wall_ms, struct write_row *row,
    struct schedule_turn *turn)
{
    bool more = !place_loose(s, now_ms, wall_ms);
    size_t passed = 0;
    unsigned looks = 0;

    while (passed < s->nactive) {
        struct sroute *r;
        uint32_t route;

        s->turn = s->turn < s->nactive ? s->turn : 0;
        route = s->active[s->turn];
        r = &s->routes[route];
        if (is_empty(r)) {
            deactivate(s, s->turn);
            continue;
        }
        if (goes_at(s, r, now_ms) > now_ms) {
            passed++;
            s->turn++;
            continue;
        }
        if (looks++ >= LOOKS_MAX)
            return SCHEDULE_MORE;
        if (take_from(s, route, now_ms, wall_ms, row)) {
            *turn = count_taken(s, route, now_ms);
            s->turn++;
            return SCHEDULE_ROW;
        }
    }
    return more ? SCHEDULE_MORE : SCHEDULE_NONE;
}

bool
schedule_take_more(struct schedule *s, uint32_t route, int64_t now_ms, int64_t wall_ms,
    struct write_row *row)
{
    for (unsigned k = 0; k < LOOKS_MAX && !is_empty(&s->routes[route]); k++)
        if (take_from(s, route, now_ms, wall_ms, row))
            return true;
    return false;
}

int64_t
schedule_wait_ms(struct schedule *s, int64_t now_ms)
{
    int64_t wait = s->started ? delays_wait_ms(&s->wheel, now_ms) : -1, at;

    if (s->loose.first != CHAIN_NONE || s->hurried)
        return 0;
    for (size_t k = 0; k < s->nactive; k++) {
        at = is_empty(&s->routes[s->active[k]]) ? INT64_MAX :
            goes_at(s, &s->routes[s->active[k]], now_ms);
        if (at != INT64_MAX && (wait == -1 || at - now_ms < wait))
            wait = at - now_ms;
    }
    return wait;
}

/* ---- for those who ask ----------------------------------------------------------------------- */

bool
schedule_has(const struct schedule *s, uint64_t c1)
{
    uint32_t i = chains_find(&s->chains, c1);

    return i != CHAIN_NONE && chain_at(&s->chains, i)->count > 0;
}

void
schedule_figures_of(const struct schedule *s, uint32_t route, struct schedule_figures *f)
{
    const struct sroute *r = route < s->nroutes ? &s->routes[route] : NULL;
    const struct sorigin *o = r != NULL && r->known ? &s->origins[r->limits.origin] : NULL;

    *f = (struct schedule_figures){ 0 };
    if (r == NULL)
        return;
    f->pending = r->pending;
    f->active = r->in_flight;
    f->held = !r->known || r->limits.held;
    f->paused = r->paused;
    f->origin_paused = o != NULL && o->paused;
    f->down = o != NULL && o->down;
}

uint64_t
schedule_pending(const struct schedule *s, size_t *bytes)
{
    *bytes = chains_bytes(&s->chains) + sizeof *s;
    return s->pending;
}
