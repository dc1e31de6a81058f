/*
 * Who has applied a purge.
 *
 * Model    once the purge has a place in the stream, LEASES (bus_lease.c) is read, in one look
 *          together with the server's clock, until all whose lease has not ended say that they have
 *          applied that place or more, or the asker's time is over. Whoever's lease has ended is
 *          not waited for: it trusts nothing that it stored. What a Redis says that does not know
 *          everybody yet ("since") is of no account. At home it is in force before anybody asks.
 *          An id is that of the entry, and any instance can tell of it; that of a purge which has
 *          no place yet is INSTANCE.SEQUENCE, and that instance alone can. An id that was asked
 *          for is one of an entry, or older than the oldest that the stream has kept; else it is
 *          none.
 * Threads  made and answered on the asker's loop, worked on by the bus's.
 */
#include "purge/bus.h"

#include <stdlib.h>

#define PAUSE_FIRST_US (1 * MS_US)
#define PAUSE_MOST_US  (20 * MS_US)
#define ANSWER_US      (200 * MS_US)    /* for Redis, when the asker's time is over already */

/* LEASES. The server's clock and all that it has. */
static const char who_script[] =
    "local t = redis.call('TIME') "
    "return {t[1], t[2], redis.call('HGETALL', KEYS[1])}";

static void step(struct bus_ask *a);

/* ---- the answer ------------------------------------------------------------------------------ */

static void
ask_free(struct bus_ask *a)
{
    pthread_mutex_lock(&a->b->mtx);
    TAILQ_REMOVE(&a->b->all, a, in_all);
    pthread_mutex_unlock(&a->b->mtx);
    buf_free(&a->json);
    buf_free(&a->missing);
    a->magic = 0;
    free(a);
}

static void
run_answer(struct loop_msg *m)
{
    struct bus_ask *a = CONTAINER(m, struct bus_ask, msg);

    CHECK(a, BUS_ASK_MAGIC);
    if (a->done != NULL)
        a->done(a->arg, &a->answer);
    ask_free(a);
}

static void
leave(struct bus_ask *a)
{
    redis_cancel(&a->ask);
    timer_fini(&a->timer);
    TAILQ_REMOVE(&a->b->asks, a, at);
}

static void
put_id(struct bus_ask *a)
{
    char id[BUS_ID_MAX];

    if (a->placed)
        buf_printf(&a->json, "\"id\": \"%.*s\"", SLICE_ARG(bus_id_put(a->place, id)));
    else
        buf_printf(&a->json, "\"id\": \"%s.%llu\"", a->b->id, (unsigned long long)a->seq);
}

/* This instance's own part, of a purge that may be another's. */
static bool
missing_here(const struct bus_ask *a)
{
    return !a->by_seq && store_position_cmp(bus_told(a->b).at, a->place) < 0;
}

static void
put_missing(struct bus_ask *a)
{
    buf_printf(&a->json, ", \"instances\": %zu, \"missing\": [", a->live + 1);
    if (missing_here(a))
        buf_printf(&a->json, "\"%s\"%s", a->b->id, a->missing.n > 0 ? ", " : "");
    buf_adds(&a->json, buf_slice(&a->missing));
    buf_addc(&a->json, ']');
}

static void
answer(struct bus_ask *a, enum bus_outcome outcome, const char *why)
{
    put_id(a);
    if (outcome == BUS_DONE || outcome == BUS_MISSING)
        put_missing(a);
    else
        buf_printf(&a->json, ", \"why\": \"%s\"", why);
    leave(a);
    a->answer.outcome = a->json.failed || a->missing.failed ? BUS_NO_MEMORY : outcome;
    a->answer.json = buf_slice(&a->json);
    a->msg.run = run_answer;
    loop_post(a->back, &a->msg);
}

/* ---- asking Redis ---------------------------------------------------------------------------- */

static int64_t
within(const struct bus_ask *a)
{
    int64_t left = a->until_us - now_us();

    return left > ANSWER_US ? left : ANSWER_US;
}

static void
again(struct bus_ask *a)
{
    timer_set(&a->timer, a->pause_us);
    a->pause_us = a->pause_us * 2 < PAUSE_MOST_US ? a->pause_us * 2 : PAUSE_MOST_US;
}

/* "END LEASE POSITION". */
static bool
lease_of(struct slice s, uint64_t *end_ms, struct store_position *at)
{
    struct slice end, lease;

    return slice_cut(&s, ' ', &end) && slice_u64(end, end_ms) && slice_cut(&s, ' ', &lease) &&
        bus_id_read(s, at) == 0;
}

/* One of LEASES. What is not understood is a lease of somebody who has applied nothing. */
static void
count(struct bus_ask *a, struct slice id, struct slice value, uint64_t now_ms)
{
    uint64_t end_ms = UINT64_MAX;
    struct store_position at = { 0 };
    bool read = lease_of(value, &end_ms, &at);

    if (read && end_ms <= now_ms)
        return;
    a->live++;
    if (read && store_position_cmp(at, a->place) >= 0)
        return;
    buf_addz(&a->missing, a->missing.n > 0 ? ", \"" : "\"");
    buf_json(&a->missing, id);
    buf_addc(&a->missing, '"');
}

/* -1: it is not understood. since_ms 0: there is no such hash. */
static int
read_leases(struct bus_ask *a, const struct redis_reply *r, uint64_t *now_ms, uint64_t *since_ms)
{
    uint64_t s, us;

    a->live = a->missing.n = 0;
    *since_ms = 0;
    if (r->type != REPLY_ARRAY || r->n != 3 || !slice_u64(r->at[0]->text, &s) ||
        !slice_u64(r->at[1]->text, &us) || r->at[2]->type != REPLY_ARRAY)
        return -1;
    *now_ms = s * 1000 + us / 1000;
    for (size_t i = 0; i + 1 < r->at[2]->n; i += 2) {
        struct slice name = r->at[2]->at[i]->text, value = r->at[2]->at[i + 1]->text;

        if (slice_eq(name, SLICE("since")))
            (void)slice_u64(value, since_ms);
        else if (!slice_eq(name, slice_of(a->b->id)))
            count(a, name, value, *now_ms);
    }
    return 0;
}

static void
on_who(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct bus_ask *a = arg;
    bool late = now_us() >= a->until_us, missing, known;
    uint64_t now_ms = 0, since_ms = 0;

    a->ask = NULL;
    if (cause == REDIS_OK && read_leases(a, r, &now_ms, &since_ms) == -1)
        cause = REDIS_PROTOCOL;
    missing = a->missing.n > 0 || missing_here(a);
    known = since_ms != 0 && since_ms + a->b->longest_ms <= now_ms;
    if (cause != REDIS_OK)
        answer(a, BUS_UNKNOWN, redis_cause_name(cause));
    else if (!late && (missing || !known))
        again(a);
    else if (!known)
        answer(a, BUS_UNKNOWN, "Redis has not known the instances for a lease yet");
    else
        answer(a, missing ? BUS_MISSING : BUS_DONE, NULL);
}

static void
ask_who(struct bus_ask *a)
{
    a->ask = bus_send(a->b, (struct slice[]){ SLICE("EVAL"), { who_script, sizeof who_script - 1 },
        SLICE("1"), slice_of(a->b->leases) }, 4, within(a), on_who, a);
    if (a->ask == NULL)
        answer(a, BUS_UNKNOWN, "Redis cannot be asked");
}

static void
on_entry(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct bus_ask *a = arg;
    struct seen seen;

    a->ask = NULL;
    a->look = false;
    if (cause == REDIS_OK && stream_seen(r, &seen) == -1)
        cause = REDIS_PROTOCOL;
    if (cause != REDIS_OK)
        answer(a, BUS_UNKNOWN, redis_cause_name(cause));
    else if (store_position_cmp(a->place, seen.exists ? seen.last : a->b->at) > 0 ||
        (seen.length > 0 && !seen.present && store_position_cmp(a->place, seen.oldest) > 0))
        answer(a, BUS_NO_ID, "no purge has this id");
    else
        ask_who(a);
}

static void
step(struct bus_ask *a)
{
    if (!a->placed && !(a->placed = queue_is_added(&a->b->queue, a->seq, &a->place))) {
        int64_t left = a->until_us - now_us();

        if (left <= 0)
            answer(a, BUS_UNKNOWN, "it waits to be sent to Redis");
        else
            timer_set(&a->timer, left);
        return;
    }
    timer_clear(&a->timer);
    if (!a->look) {
        ask_who(a);
        return;
    }
    a->ask = stream_look(a->b, a->place, within(a), on_entry, a);
    if (a->ask == NULL)
        answer(a, BUS_UNKNOWN, "Redis cannot be asked");
}

static void
on_timer(void *arg)
{
    step(arg);
}

void
asks_look(struct bus *b)
{
    for (struct bus_ask *a = TAILQ_FIRST(&b->asks), *next; a != NULL; a = next) {
        next = TAILQ_NEXT(a, at);
        if (!a->placed)
            step(a);
    }
}

/* ---- coming and going ------------------------------------------------------------------------ */

static struct bus_ask *
ask_new(struct bus *b, struct loop *l, void (*done)(void *arg, const struct bus_answer *a),
    void *arg)
{
    struct bus_ask *a = calloc(1, sizeof *a);

    if (a == NULL)
        return NULL;
    a->magic = BUS_ASK_MAGIC;
    a->b = b;
    a->back = l;
    a->done = done;
    a->arg = arg;
    a->until_us = now_us();
    a->pause_us = PAUSE_FIRST_US;
    pthread_mutex_lock(&b->mtx);
    TAILQ_INSERT_TAIL(&b->all, a, in_all);
    pthread_mutex_unlock(&b->mtx);
    return a;
}

static void
take_up(struct bus_ask *a)
{
    TAILQ_INSERT_TAIL(&a->b->asks, a, at);
    if (timer_init(&a->timer, a->b->loop, on_timer, a) == -1)
        answer(a, BUS_NO_MEMORY, "memory is out");
    else if (!a->by_seq && !a->placed)
        answer(a, BUS_NO_ID, "no purge has this id");
    else
        step(a);
}

static void
run_ask(struct loop_msg *m)
{
    struct bus_ask *a = CONTAINER(m, struct bus_ask, msg);

    CHECK(a, BUS_ASK_MAGIC);
    take_up(a);
}

struct bus_ask *
bus_wait(struct bus *b, struct loop *l, uint64_t seq, int64_t wait_us,
    void (*done)(void *arg, const struct bus_answer *a), void *arg)
{
    struct bus_ask *a = ask_new(b, l, done, arg);

    CHECK(b, BUS_MAGIC);
    if (a == NULL)
        return NULL;
    a->by_seq = true;
    a->seq = seq;
    a->until_us += wait_us;
    a->msg.run = run_ask;
    loop_post(b->loop, &a->msg);
    return a;
}

struct bus_ask *
bus_look(struct bus *b, struct loop *l, struct slice id,
    void (*done)(void *arg, const struct bus_answer *a), void *arg)
{
    struct bus_ask *a = ask_new(b, l, done, arg);
    struct slice own = slice_of(b->id);

    CHECK(b, BUS_MAGIC);
    if (a == NULL)
        return NULL;
    if (bus_id_read(id, &a->place) == 0)
        a->placed = a->look = true;
    else if (slice_starts(id, own) && id.n > own.n + 1 && id.p[own.n] == '.')
        a->by_seq = slice_u64((struct slice){ id.p + own.n + 1, id.n - own.n - 1 }, &a->seq) &&
            a->seq <= store_stamp(b->store);
    a->msg.run = run_ask;
    loop_post(b->loop, &a->msg);
    return a;
}

void
bus_forget(struct bus_ask **ap)
{
    struct bus_ask *a = *ap;

    *ap = NULL;
    if (a == NULL)
        return;
    CHECK(a, BUS_ASK_MAGIC);
    a->done = NULL;
}

void
asks_end(struct bus *b)
{
    struct bus_ask *a;

    while ((a = TAILQ_FIRST(&b->asks)) != NULL)
        leave(a);
}

void
asks_free(struct bus *b)
{
    struct bus_ask *a;

    while ((a = TAILQ_FIRST(&b->all)) != NULL)
        ask_free(a);
}
