/*
 * Who has applied a purge.
 *
 * Model    once the purge has a place in the stream, those who hold a lease are listed, and what
 *          each says that it has applied (LIVE:ID) is read until all say the place or more,
 *          or the asker's time is over. Whoever's lease has ended is not waited for: it trusts
 *          nothing that it stored (bus_lease.c). Last it is made sure that all this came from a
 *          Redis that knows everybody (SINCE). At home it is in force before anybody asks.
 *          An id is that of the entry, and any instance can tell of it; that of a purge which has
 *          no place yet is INSTANCE.SEQUENCE, and that instance alone can.
 * Threads  made and answered on the asker's loop, worked on by the bus's.
 */
#include "purge/bus.h"

#include <stdlib.h>

#define PAUSE_FIRST_US (1 * MS_US)
#define PAUSE_MOST_US  (20 * MS_US)
#define ANSWER_US      (200 * MS_US)    /* for Redis, when the asker's time is over already */
#define MEMBERS_MAX    10000u

static void step(struct bus_ask *a);

/* ---- the answer ------------------------------------------------------------------------------ */

static void
ask_free(struct bus_ask *a)
{
    pthread_mutex_lock(&a->b->mtx);
    TAILQ_REMOVE(&a->b->all, a, in_all);
    pthread_mutex_unlock(&a->b->mtx);
    buf_free(&a->json);
    free(a->members);
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
    redis_cancel(&a->list);
    redis_cancel(&a->since);
    for (size_t i = 0; i < a->nmembers; i++)
        redis_cancel(&a->members[i].get);
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
    return !a->by_seq && store_position_cmp(a->b->at, a->place) < 0;
}

static void
put_missing(struct bus_ask *a)
{
    const char *comma = "";
    size_t live = 1;

    for (size_t i = 0; i < a->nmembers; i++)
        live += a->members[i].live;
    buf_printf(&a->json, ", \"instances\": %zu, \"missing\": [", live);
    if (missing_here(a)) {
        buf_printf(&a->json, "\"%s\"", a->b->id);
        comma = ", ";
    }
    for (size_t i = 0; i < a->nmembers; i++)
        if (a->members[i].live && !a->members[i].has) {
            buf_addz(&a->json, comma);
            buf_addc(&a->json, '"');
            buf_json(&a->json, slice_of(a->members[i].id));
            buf_addc(&a->json, '"');
            comma = ", ";
        }
    buf_addc(&a->json, ']');
    pthread_mutex_lock(&a->b->mtx);
    a->b->shown.instances = live;
    pthread_mutex_unlock(&a->b->mtx);
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
    a->answer.outcome = a->json.failed ? BUS_NO_MEMORY : outcome;
    a->answer.json = buf_slice(&a->json);
    if (a->back == NULL) {              /* for the figures alone */
        ask_free(a);
        return;
    }
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

static bool
missing(const struct bus_ask *a)
{
    bool found = missing_here(a);

    for (size_t i = 0; i < a->nmembers; i++)
        found |= a->members[i].live && !a->members[i].has;
    return found;
}

static void
again(struct bus_ask *a)
{
    timer_set(&a->timer, a->pause_us);
    a->pause_us = a->pause_us * 2 < PAUSE_MOST_US ? a->pause_us * 2 : PAUSE_MOST_US;
}

/* It was asked after all else: what was lost before is seen here. */
static void
on_since(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct bus_ask *a = arg;
    uint64_t since;

    a->since = NULL;
    if (cause != REDIS_OK)
        answer(a, BUS_UNKNOWN, redis_cause_name(cause));
    else if (r->type == REPLY_STRING && slice_u64(r->text, &since) && since == a->b->since_ms &&
        now_us() >= a->b->complete_us)
        answer(a, missing(a) ? BUS_MISSING : BUS_DONE, NULL);
    else if (now_us() < a->until_us)
        a->listed = false, again(a);
    else
        answer(a, BUS_UNKNOWN, "Redis has not known the instances for a lease yet");
}

static void
all_in(struct bus_ask *a)
{
    struct slice get[] = { SLICE("GET"), slice_of(a->b->since) };

    if (a->why != NULL) {
        answer(a, BUS_UNKNOWN, a->why);
    } else if (missing(a) && now_us() < a->until_us) {
        again(a);
    } else if (a->back == NULL) {
        answer(a, missing(a) ? BUS_MISSING : BUS_DONE, NULL);
    } else {
        a->since = bus_send(a->b, get, NELEM(get), within(a), on_since, a);
        if (a->since == NULL)
            answer(a, BUS_UNKNOWN, "Redis cannot be asked");
    }
}

static void
on_live(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct member *m = arg;
    struct bus_ask *a = m->ask;
    struct store_position at;

    m->get = NULL;
    if (cause != REDIS_OK) {
        a->why = redis_cause_name(cause);
    } else {
        m->live = r->type == REPLY_STRING;
        m->has = m->live && bus_id_read(r->text, &at) == 0 &&
            store_position_cmp(at, a->place) >= 0;
    }
    if (--a->outstanding == 0)
        all_in(a);
}

static void
look(struct bus_ask *a)
{
    struct buf key = { 0 };

    a->outstanding = 1;
    for (size_t i = 0; i < a->nmembers && a->why == NULL; i++) {
        struct member *m = &a->members[i];

        if (m->has)
            continue;
        key.n = 0;
        buf_addz(&key, a->b->live);
        buf_addz(&key, m->id);
        m->get = key.failed ? NULL : bus_send(a->b, (struct slice[]){ SLICE("GET"),
            buf_slice(&key) }, 2, within(a), on_live, m);
        if (m->get != NULL)
            a->outstanding++;
        else
            a->why = "Redis cannot be asked";
    }
    buf_free(&key);
    if (--a->outstanding == 0)
        all_in(a);
}

static void
on_list(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct bus_ask *a = arg;

    a->list = NULL;
    if (cause != REDIS_OK || r->type != REPLY_ARRAY || r->n > MEMBERS_MAX) {
        answer(a, BUS_UNKNOWN, redis_cause_name(cause == REDIS_OK ? REDIS_PROTOCOL : cause));
        return;
    }
    free(a->members);
    a->nmembers = 0;
    a->members = calloc(r->n + 1, sizeof *a->members);
    for (size_t i = 0; a->members != NULL && i < r->n; i++) {
        struct member *m = &a->members[a->nmembers];

        if (slice_eq(r->at[i]->text, slice_of(a->b->id)) ||
            r->at[i]->text.n >= sizeof m->id)
            continue;
        m->ask = a;
        memcpy(m->id, r->at[i]->text.p, r->at[i]->text.n);
        a->nmembers++;
    }
    a->listed = a->members != NULL;
    if (a->listed)
        look(a);
    else
        answer(a, BUS_NO_MEMORY, "memory is out");
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
    if (a->listed) {
        look(a);
        return;
    }
    timer_clear(&a->timer);
    a->list = bus_send(a->b, (struct slice[]){ SLICE("ZRANGE"), slice_of(a->b->members),
        SLICE("0"), SLICE("-1") }, 4, within(a), on_list, a);
    if (a->list == NULL)
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
        a->placed = true;
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
asks_count(struct bus *b)
{
    struct bus_ask *a = ask_new(b, NULL, NULL, NULL);

    if (a == NULL)
        return;
    a->by_seq = a->placed = true;
    take_up(a);
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
