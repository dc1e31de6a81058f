/*
 * The Redis tier: what is there under a key is put into memory, and on the disk behind it.
 *
 * Model    a read asks for one value, on behalf of all of its loop who want the same. Under a key
 *          stands a response, or a marker; by this each of the asks goes on to the read of its own
 *          variant. What is fresh answers, and what may be served stale, for who would serve it.
 *          What is not, and what is not there, is to be fetched:
 *          the read asks for the lease, and either one of its asks gets it, or they wait until they
 *          hear that its holder is done, and look once more. They do so too when the lease ended
 *          without a word: then one of them gets the next. Where nothing was stored, or Redis
 *          fails, or after ROUNDS, they fetch for themselves.
 *
 *              GET  ─ fresh, failed ─────────────────────► answered
 *               │                        ┌──────────────────▲
 *               └ none, stale ─► LEASE ──┴─ another's ─► WAIT ─ stored, over ─► GET
 *
 * Drops    what memory dropped while it was read, or before, and Redis may have yet, is not used:
 *          the cells of redis.h say so.
 * Deadline of an ask, `timeout`: both reads together; of a wait, the lease.
 * Threads  each side's loop.
 */
#include "tier/disk.h"
#include "tier/redis.h"

#include <stdlib.h>

#include "stats/stats.h"

#define SLACK_MS INT64_C(25)            /* the lease has ended by then, also in Redis */
#define ROUNDS   4                      /* reads of one value before its asks fetch */

enum read_state { READ_GET, READ_LEASE, READ_WAIT };
enum heard { HEARD_NOTHING, HEARD_STORED, HEARD_NOT_STORED };

struct read {
    struct read       *beside;          /* in its bucket */
    struct rtier_side *side;            /* borrowed */
    struct rtier_id    id;
    struct key         key;             /* bytes in text */
    enum read_state    state;
    struct redis_ask  *ask;             /* under way, in GET and LEASE */
    struct timer       timer;           /* of WAIT */
    struct rtier_ask  *asks, **asks_end;
    struct rtier_token token;           /* of the lease that is asked for */
    enum heard         heard;           /* since it asked for it */
    bool               promoted;        /* something, if only stale */
    char               seen[RTIER_SEEN];        /* the beginning of what was read last */
    size_t             seen_n;
    unsigned           rounds;
    uint32_t           told;            /* drops of its key, when it asked */
    char               text[];
};

static void ask_value(struct read *r, int64_t within_us);
static enum tier_answer join(struct rtier_side *side, struct rtier_ask *a,
    const struct rtier_id *id);

/* ---- reads ---------------------------------------------------------------------------------- */

static struct read **
bucket(struct rtier_side *side, struct slice id)
{
    return &side->reads[key_hash(id) % NELEM(side->reads)];
}

static struct read *
find(struct rtier_side *side, struct slice id)
{
    struct read *r = *bucket(side, id);

    while (r != NULL && !rtier_id_eq(&r->id, id))
        r = r->beside;
    return r;
}

static void
enter(struct read *r, enum read_state to)
{
    if (r->state == READ_GET && to != READ_GET)
        atomic_fetch_add(&r->side->waiting, 1);
    else if (r->state != READ_GET && to == READ_GET)
        atomic_fetch_sub(&r->side->waiting, 1);
    r->state = to;
}

static void
read_free(struct read *r)
{
    struct read **at = bucket(r->side, (struct slice){ r->id.text, r->id.n });

    while (*at != r)
        at = &(*at)->beside;
    *at = r->beside;
    enter(r, READ_GET);
    redis_cancel(&r->ask);
    timer_fini(&r->timer);
    free(r);
}

static void
tell(struct rtier_ask *a, enum tier_answer what, struct tier_lease *lease)
{
    const struct tier_result result = { .answer = what, .by = TIER_REDIS, .lease = lease };

    if (what == TIER_FOUND)
        COUNT(redis_hits);
    else
        COUNT(redis_misses);
    a->read = NULL;
    a->done(a, &result);
}

/* The read is over. The first ask has the lease, where there is one. */
static void
answer(struct read *r, enum tier_answer what, struct tier_lease *lease)
{
    struct rtier_ask *asks = r->asks;

    if (what == TIER_NONE && r->promoted)
        what = TIER_FOUND;
    read_free(r);
    for (struct rtier_ask *a = asks, *next; a != NULL; a = next) {
        next = a->next;
        tell(a, what == TIER_NONE && a->promoted ? TIER_FOUND : what, lease);
        lease = NULL;
    }
}

static void
add(struct read *r, struct rtier_ask *a)
{
    a->read = r;
    a->next = NULL;
    *r->asks_end = a;
    r->asks_end = &a->next;
}

static void
take_off(struct rtier_ask *a)
{
    struct read *r = a->read;
    struct rtier_ask **at = &r->asks;

    while (*at != a)
        at = &(*at)->next;
    if ((*at = a->next) == NULL)
        r->asks_end = at;
    a->read = NULL;
}

/* ---- leases --------------------------------------------------------------------------------- */

static void
look_again(struct read *r)
{
    timer_clear(&r->timer);
    enter(r, READ_GET);
    ask_value(r, r->side->tier->timeout_us);
}

static void
on_wait_over(void *arg)
{
    COUNT(redis_lease_expired);
    look_again(arg);
}

static void
wait(struct read *r, int64_t ms)
{
    if (r->heard == HEARD_STORED) {
        look_again(r);
        return;
    }
    if (r->heard == HEARD_NOT_STORED || rtier_lease_held(r->side->tier, &r->id) ||
        (r->timer.ev == NULL && timer_init(&r->timer, r->side->loop, on_wait_over, r) == -1) ||
        timer_set(&r->timer, (ms < RTIER_LEASE_MS ? ms : RTIER_LEASE_MS) * 1000 +
            SLACK_MS * 1000) == -1) {
        answer(r, TIER_NONE, NULL);
        return;
    }
    COUNT(redis_lease_waits);
    enter(r, READ_WAIT);
}

static void
on_lease(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct read *r = arg;
    struct rtier *t = r->side->tier;

    r->ask = NULL;
    if (cause != REDIS_OK || reply->type != REPLY_INTEGER) {
        if (cause == REDIS_TIMEOUT)     /* it may be ours now, or soon */
            rtier_lease_end(t, &r->id, &r->token, false);
        answer(r, redis_usable(t->redis) ? TIER_NONE : TIER_FAILED, NULL);
    } else if (reply->integer == 0) {
        struct tier_lease *lease = NULL;

        COUNT(redis_leases);
        if (r->asks == NULL || (lease = rtier_lease_new(t, &r->id, &r->token)) == NULL)
            rtier_lease_end(t, &r->id, &r->token, false);
        answer(r, TIER_NONE, lease);
    } else if (reply->integer < 0) {
        look_again(r);
    } else {
        wait(r, reply->integer);
    }
}

/* Those who do not fetch for all have their answer. */
static void
let_go(struct read *r)
{
    for (struct rtier_ask *a = r->asks, *next; a != NULL; a = next) {
        next = a->next;
        if (a->lease)
            continue;
        take_off(a);
        tell(a, r->promoted || a->promoted ? TIER_FOUND : TIER_NONE, NULL);
    }
}

/* there: something is, and is of no use; a fetch for all that has just brought that would bring no
 * better. */
static void
to_fetch(struct read *r, bool there)
{
    struct rtier *t = r->side->tier;

    let_go(r);
    if (r->asks == NULL || r->rounds >= ROUNDS || (there && r->heard == HEARD_STORED) ||
        rtier_lease_held(t, &r->id)) {
        answer(r, TIER_NONE, NULL);
        return;
    }
    r->heard = HEARD_NOTHING;
    enter(r, READ_LEASE);
    if ((r->ask = rtier_lease_ask(t, &r->id, (struct slice){ r->seen, r->seen_n },
        &r->token, on_lease, r)) == NULL)
        answer(r, redis_usable(t->redis) ? TIER_NONE : TIER_FAILED, NULL);
}

void
rtier_heard(struct rtier_side *side, struct slice id, bool stored)
{
    struct read *r = find(side, id);

    if (r == NULL || r->state == READ_GET)
        return;
    r->heard = stored ? HEARD_STORED : HEARD_NOT_STORED;
    if (r->state == READ_LEASE)
        return;
    if (stored)
        look_again(r);
    else
        answer(r, TIER_NONE, NULL);
}

void
rtier_heard_nothing(struct rtier_side *side)
{
    struct read *waiting = NULL, *r;

    for (size_t i = 0; i < NELEM(side->reads); i++)
        for (r = side->reads[i]; r != NULL; r = r->beside)
            if (r->state == READ_LEASE)
                r->heard = HEARD_STORED;
    do {                                /* look_again may end it, and others */
        waiting = NULL;
        for (size_t i = 0; i < NELEM(side->reads) && waiting == NULL; i++)
            for (waiting = side->reads[i]; waiting != NULL && waiting->state != READ_WAIT;)
                waiting = waiting->beside;
        if (waiting != NULL)
            look_again(waiting);
    } while (waiting != NULL);
}

/* ---- values --------------------------------------------------------------------------------- */

/* Each goes on to its own variant. */
static void
to_variants(struct read *r, struct slice vary)
{
    struct rtier_side *side = r->side;
    struct rtier_id id, of = r->id;
    struct rtier_ask *asks = r->asks;
    struct buf b = { 0 };
    enum tier_answer now;

    read_free(r);
    for (struct rtier_ask *a = asks, *next; a != NULL; a = next) {
        next = a->next;
        a->read = NULL;
        b.n = 0;
        sem_variant(vary, a->request, &b);
        now = TIER_FAILED;
        if (!b.failed) {
            rtier_id_of_variant(&of, vary, buf_slice(&b), &id);
            now = join(side, a, &id);
        }
        if (now != TIER_WAIT)
            tell(a, now, NULL);
    }
    buf_free(&b);
}

/* A drop that came since it was asked for found nothing in memory yet. What stays is written to
 * this instance's disk too, behind the answer, as what it fetched would be: a drop or purge from
 * now on finds it in memory, before it is written, or on the disk. */
static bool
stays(struct read *r, struct object *o)
{
    struct rtier *t = r->side->tier;
    uint32_t told;

    rtier_settled(t, r->key.hash, &told);
    if (told != r->told)
        store_drop(t->store, o);
    else if (t->disk != NULL)
        disk_put(t->disk, o);
    object_unref(&o);
    return told == r->told;
}

/* Stale, it is all the same what these want, and what others wait for is not waited for by them. */
static void
serve(struct read *r, const struct sem_meta *m)
{
    for (struct rtier_ask *a = r->asks, *next; a != NULL; a = next) {
        next = a->next;
        if (a->serves == NULL || !a->serves(a->arg, m, false))
            continue;
        take_off(a);
        tell(a, TIER_FOUND, NULL);
    }
}

/* Puts it into memory. Is it fresh there now? */
static bool
promote(struct read *r, const struct value *v)
{
    struct object *o = NULL;
    const struct store_position at = { v->position[0], v->position[1] };
    int64_t now = wall_ms();
    enum store_result put;
    uint64_t stamp;

    if (rtier_left_ms(&v->meta, now) <= 0 || !store_stamp_of(r->side->tier->store, at, &stamp))
        return false;
    put = tier_promote(r->side->tier->store, v, stamp, TIER_FIRM, &o);
    if ((put != STORE_STORED && put != STORE_OLDER) || (o != NULL && !stays(r, o)))
        return false;
    r->promoted = true;
    if (sem_age_ms(&v->meta, now) < v->meta.lifetime_ms)
        return true;
    serve(r, &v->meta);
    return false;
}

static void
found(struct read *r, struct slice in)
{
    bool marker_may = memchr(r->id.text, ':', r->id.n) == NULL;
    struct slice key, vary;
    struct value v;
    enum value_verdict verdict = value_decode(in, &v);

    if (verdict == VALUE_GOOD) {
        if (slice_eq(v.key, r->key.bytes) && promote(r, &v))
            answer(r, TIER_FOUND, NULL);
        else
            to_fetch(r, true);
        return;
    }
    if (verdict == VALUE_UNKNOWN && marker_may)
        verdict = rtier_marker_read(in, &key, &vary);
    if (verdict == VALUE_GOOD && slice_eq(key, r->key.bytes)) {
        to_variants(r, vary);
        return;
    }
    if (verdict != VALUE_GOOD)
        COUNT(redis_bad);
    to_fetch(r, true);
}

static void
on_value(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct read *r = arg;

    r->ask = NULL;
    r->seen_n = reply != NULL && reply->type == REPLY_STRING ? reply->text.n : 0;
    r->seen_n = r->seen_n < RTIER_SEEN ? r->seen_n : RTIER_SEEN;
    if (r->seen_n > 0)
        memcpy(r->seen, reply->text.p, r->seen_n);
    if (cause != REDIS_OK)
        answer(r, TIER_FAILED, NULL);
    else if (reply->type == REPLY_STRING)
        found(r, reply->text);
    else
        to_fetch(r, reply->type != REPLY_NIL);
}

/* As rtier_get; the read is not ended. */
static enum tier_answer
send_get(struct read *r, int64_t within_us)
{
    struct rtier *t = r->side->tier;
    struct rtier_name name;
    struct slice argv[2] = { SLICE("GET"), rtier_name(t->prefix, RTIER_VALUE, &r->id, &name) };

    if (!rtier_settled(t, r->key.hash, &r->told))
        return redis_usable(t->redis) ? TIER_NONE : TIER_FAILED;
    r->rounds++;
    r->ask = rtier_send(t, argv, 2, argv[1], within_us, on_value, r);
    return r->ask != NULL ? TIER_WAIT : TIER_FAILED;
}

static void
ask_value(struct read *r, int64_t within_us)
{
    enum tier_answer now = send_get(r, within_us);

    if (now != TIER_WAIT)
        answer(r, now, NULL);
}

/* ---- asks ----------------------------------------------------------------------------------- */

static struct read *
read_new(struct rtier_side *side, const struct key *k, const struct rtier_id *id)
{
    struct read *r = calloc(1, sizeof *r + k->bytes.n);
    struct read **at = bucket(side, (struct slice){ id->text, id->n });

    if (r == NULL)
        return NULL;
    r->side = side;
    r->id = *id;
    r->key = *k;
    memcpy(r->text, k->bytes.p, k->bytes.n);
    r->key.bytes.p = r->text;
    r->asks_end = &r->asks;
    r->beside = *at;
    *at = r;
    return r;
}

static enum tier_answer
join(struct rtier_side *side, struct rtier_ask *a, const struct rtier_id *id)
{
    struct read *r = find(side, (struct slice){ id->text, id->n });
    int64_t within = a->until_us - now_us();
    enum tier_answer now;

    if (r != NULL && !slice_eq(r->key.bytes, a->key->bytes))
        return TIER_NONE;
    if (r != NULL && r->state != READ_GET && !a->lease)
        return TIER_NONE;
    if (r == NULL) {
        if (within <= 0 || (r = read_new(side, a->key, id)) == NULL)
            return TIER_FAILED;
        if ((now = send_get(r, within)) != TIER_WAIT) {
            read_free(r);
            return now;
        }
    }
    add(r, a);
    return TIER_WAIT;
}

enum tier_answer
rtier_get(struct rtier *r, struct loop *l, struct rtier_ask *a)
{
    struct rtier_side *side = rtier_side_of(r, l);
    struct store_position at;
    enum tier_answer now;
    struct rtier_id id;

    CHECK(r, RTIER_MAGIC);
    a->read = NULL;
    a->until_us = now_us() + r->timeout_us;
    rtier_id_of(a->key->bytes, &id);
    if (side == NULL)
        now = TIER_NONE;
    else if (!store_position(r->store, store_stamp(r->store), &at))
        now = redis_usable(r->redis) ? TIER_NONE : TIER_FAILED;
    else
        now = join(side, a, &id);
    if (now != TIER_WAIT)
        COUNT(redis_misses);
    return now;
}

/* One who asks for a lease stays, so that it can be given back. */
void
rtier_cancel(struct rtier_ask *a)
{
    struct read *r = a->read;

    if (r == NULL)
        return;
    take_off(a);
    if (r->asks == NULL && r->state != READ_LEASE)
        read_free(r);
}

void
rtier_side_end(struct rtier_side *side)
{
    for (size_t i = 0; i < NELEM(side->reads); i++)
        while (side->reads[i] != NULL)
            read_free(side->reads[i]);
}
