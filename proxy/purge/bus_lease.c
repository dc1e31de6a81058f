/*
 * Rounds: an instance's lease, and what it may conclude from it.
 *
 * Model    a round, each third of the lease:
 *            1. the server's clock is read (TIME);
 *            2. INSTANCES gets the instance, with that clock's time, then LIVE:ID is set to the
 *               position that was applied, to end after the lease (PX); SINCE is set to that time,
 *               unless it is there;
 *            3. once all are done, the stream is looked at: its last entry L, how many entries
 *               were ever added, and whether the entry that was applied last is still there;
 *            4. when everything up to L was applied, what is stored is trusted until the time at
 *               which 2 was sent plus the lease (a little less: clocks do not run alike).
 * Why      let an instance trust what it stored at time t, by a round whose step 2 was sent at s,
 *          and let a purge be in the stream that it has not applied. That purge came behind L, so
 *          after step 3, so after 2. Whoever made it lists the instances after that: it finds this
 *          one in INSTANCES, and its LIVE, set at s or later, ends no sooner than s +
 *          lease > t. So while t lies before that end the purge is said to be missing here, and
 *          when LIVE is gone, this instance trusts nothing: what it stored is in doubt
 *          (store_doubts), by the wall clock and without anybody's doing, even when the process
 *          was stopped. A purge is reported done only when no instance could serve what it
 *          took away.
 *          In doubt everything goes on being stored and is validated at each use; so nothing is
 *          lost when the lease is there again: by then what was missed was applied, in order. A
 *          fetch that was under way when the lease ended is not joined any more.
 *          A reader that makes no progress holds up step 4, and no further round begins before: so
 *          LIVE ends as well, and nobody waits for an instance that cannot hear.
 * Same     is the stream still the one that was read? Entries are counted (entries-added of XINFO,
 *          which is kept over restarts and fail-overs): at the last entry our count is the
 *          stream's. If the applied entry is there, and the counts agree where they can be
 *          compared, nothing was lost. If it is gone because entries were trimmed, those behind it
 *          are all there when no more were trimmed than we have counted. Else purges were missed:
 *          everything stored is in doubt from then on (a purge of `all`, soft and in doubt). Where
 *          the stream was not trimmed but lost entries that we had read (Redis came back without
 *          its data, or a replica took over that had not got them), others may not have read them:
 *          then that purge goes into the stream too.
 * Redis down for all: within the lease everybody serves from memory as before. Then, by
 *          `lease_lost`, each validates, or each goes on serving and purges work at home alone.
 *          Purges wait and are sent when Redis is back.
 * Since    a Redis that lost its data lost who is live as well: who held a lease then may trust
 *          what it stored to its end, and be in no list. So nobody is said to have applied a purge
 *          before SINCE is older than a lease (bus_ask.c): by then all are listed again, or
 *          trust nothing. The same holds for a Redis that is new.
 * Keys     INSTANCES, LIVE:ID and SINCE are PREFIX{bus}instances and so on: in a cluster they are
 *          of one slot, so that SINCE cannot outlive who is live. The stream, PREFIXpurges, may be
 *          lost without them: see "Same".
 * Threads  the bus's.
 */
#include "purge/bus.h"

#define MEMBER_KEPT_MS  (24 * 3600 * INT64_C(1000))     /* of an instance that was not seen since */
#define ENTRIES_MAX     "1000000"       /* of the stream, about 100 MiB, however young they are */
#define RETRY_FIRST_US  (50 * MS_US)
#define RETRY_MOST_US   SECOND_US

static void run_round(void *arg);

/* ---- trust ----------------------------------------------------------------------------------- */

/* Clocks of two machines agree on ten seconds to better than this. */
static int64_t
lease_here(const struct bus *b)
{
    return b->lease_us - b->lease_us / 100 - 5 * MS_US;
}

static void
on_lease_over(void *arg)
{
    struct bus *b = arg;

    b->held_until_us = 0;
    b->lost = true;
    stats_gauge_set(GAUGE_bus_lease, 0);
    bus_show(b);
    COUNT(bus_leases_lost);
    if (b->serve) {
        log_warn("purge bus: the lease ended (%s); what is stored is served as before "
            "(cache.redis.lease_lost), whatever other instances purge", b->round.why);
        return;
    }
    log_warn("purge bus: the lease ended (%s); the origin is asked before anything stored is "
        "served", b->round.why);
    store_trust(b->store, 0);           /* whatever the wall clock says */
    /* A tag that nothing carries: fetches from before are not joined by who comes now. */
    bus_purge_here(b, &(struct store_purge){ .kind = STORE_PURGE_TAG,
        .text = SLICE("") });
}

static void
hold(struct bus *b)
{
    int64_t wall = wall_ms(), until = b->round.sent_us + lease_here(b), left = until - now_us();

    if (left <= 0)
        return;
    b->held_until_us = until;
    b->held = true;
    if (!b->serve)
        store_trust(b->store, wall + left / 1000);
    timer_set(&b->trust_timer, left);
    if (b->lost)
        log_info("purge bus: the lease is held again");
    b->lost = false;
    stats_gauge_set(GAUGE_bus_lease, 1);
}

/* ---- the end of a round ---------------------------------------------------------------------- */

static void
next_round(struct bus *b, int64_t after_us)
{
    b->round.step = ROUND_NONE;
    timer_set(&b->round_timer, after_us > 0 ? after_us : 0);
}

static void
pause_after_failure(struct bus *b)
{
    next_round(b, b->retry_us);
    b->retry_us = b->retry_us * 2 < RETRY_MOST_US ? b->retry_us * 2 : RETRY_MOST_US;
}

static void
give_up(struct bus *b)
{
    for (size_t i = 0; i < NELEM(b->round.asks); i++)
        redis_cancel(&b->round.asks[i]);
    b->round.outstanding = 0;
    pthread_mutex_lock(&b->mtx);
    b->shown.tried = true;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mtx);
    pause_after_failure(b);
}

/* Everything up to r.last is applied. */
static void
complete(struct bus *b)
{
    saved_put(b);
    b->retry_us = RETRY_FIRST_US;
    b->round.why = "it was not renewed in time";
    hold(b);
    next_round(b, b->round.sent_us + b->lease_us / 3 - now_us());
    bus_show(b);
    bus_pump(b);
    asks_count(b);
}

/* ---- is it the same stream? ------------------------------------------------------------------ */

static struct store_position
before(struct store_position p)
{
    if (p.n > 0)
        return (struct store_position){ p.ms, p.n - 1 };
    return (struct store_position){ p.ms - 1, UINT64_MAX };
}

enum same { SAME, TRIMMED, LOST };

static enum same
compare(const struct round *r)
{
    uint64_t gone = r->added - r->length;       /* trimmed */

    if (!r->exists)
        return r->count == 0 ? SAME : LOST;
    if (r->count > r->added || store_position_cmp(r->at, r->last) > 0)
        return LOST;
    if (store_position_cmp(r->at, r->last) == 0)
        return r->count == r->added ? SAME : LOST;
    if (r->present)
        return SAME;
    if (r->count == gone)
        return SAME;
    return r->count < gone ? TRIMMED : LOST;
}

/* From here on everything is read; what was before is of no account. */
static void
begin_at(struct bus *b, struct store_position at, uint64_t count)
{
    bus_read_stop(b);
    b->at = at;
    b->count = count;
    b->begun = true;
    store_position_begin(b->store, at);
}

static const struct store_purge all_in_doubt = { .kind = STORE_PURGE_ALL, .soft = true,
    .doubt = true };

static void
begin_anew(struct bus *b, bool lost)
{
    const struct round *r = &b->round;
    struct store_purged done;

    if (lost)
        (void)store_purge(b->store, &all_in_doubt, &done);
    else
        bus_purge_here(b, &all_in_doubt);
    COUNT(bus_gaps);
    log_warn("purge bus: %s (%llu were read, up to %llu-%llu; %llu were added, up to %llu-%llu); "
        "everything stored is validated before it is served again", lost ? "Redis lost purges that "
        "it had taken" : "the stream does not reach back to where this instance was",
        (unsigned long long)b->count, (unsigned long long)b->at.ms, (unsigned long long)b->at.n,
        (unsigned long long)r->added, (unsigned long long)r->last.ms,
        (unsigned long long)r->last.n);
    begin_at(b, r->exists ? r->last : (struct store_position){ 0 }, r->exists ? r->added : 0);
    queue_again(&b->queue);
}

/* The first of this process. All that the stream has is read: values that live in Redis may have
 * missed any of it. What is on disk, of which nothing is known, may have missed more. */
static void
begin(struct bus *b)
{
    const struct round *r = &b->round;

    if (b->saved_fd != -1)
        bus_purge_here(b, &all_in_doubt);
    if (!r->exists)
        begin_at(b, (struct store_position){ 0 }, 0);
    else
        begin_at(b, r->length > 0 ? before(r->oldest) : r->last, r->added - r->length);
}

static void
judge(struct bus *b)
{
    struct round *r = &b->round;
    enum same same = b->begun ? compare(r) : SAME;

    if (!b->begun)
        begin(b);
    else if (same != SAME)
        begin_anew(b, same == LOST && b->held);     /* a start may have come to another Redis */
    b->suspect = false;
    r->step = ROUND_READ;
    bus_read_on(b);
    lease_read(b);
}

void
lease_read(struct bus *b)
{
    struct round *r = &b->round;

    if (r->step != ROUND_READ || (r->exists && store_position_cmp(b->at, r->last) < 0))
        return;
    if (r->exists && store_position_cmp(b->at, r->last) == 0 && b->count != r->added) {
        begin_anew(b, true);            /* of another stream some entries were taken for ours */
        bus_read_on(b);
    }
    complete(b);
}

/* ---- a round's commands ---------------------------------------------------------------------- */

/* An answer came; false: it, or one before, was none of use, and when all are in it is given up. */
static bool
came(struct bus *b, size_t i, enum redis_cause cause)
{
    struct round *r = &b->round;

    r->asks[i] = NULL;
    r->outstanding--;
    if (cause != REDIS_OK) {
        r->failed = true;
        r->why = redis_cause_name(cause);
    }
    if (r->outstanding == 0 && r->failed)
        give_up(b);
    return !r->failed;
}

static bool
ask(struct bus *b, size_t i, const struct slice *argv, size_t argc,
    void (*done)(void *arg, enum redis_cause cause, const struct redis_reply *r))
{
    b->round.asks[i] = bus_send(b, argv, argc, BUS_WAIT_US, done, b);
    b->round.outstanding += b->round.asks[i] != NULL;
    return b->round.asks[i] != NULL;
}

static void
not_sent(struct bus *b)
{
    b->round.why = "Redis cannot be asked";
    give_up(b);
}

static uint64_t
number(const struct redis_reply *r)
{
    return r->type == REPLY_INTEGER && r->integer > 0 ? (uint64_t)r->integer : 0;
}

static const struct redis_reply *
member_of(const struct redis_reply *map, const char *name)
{
    for (size_t i = 0; map->type == REPLY_ARRAY && i + 1 < map->n; i += 2)
        if (map->at[i]->type == REPLY_STRING && slice_eq(map->at[i]->text, slice_of(name)))
            return map->at[i + 1];
    return NULL;
}

static void
on_stream(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct bus *b = arg;
    struct round *r = &b->round;
    bool none = reply != NULL && reply->type == REPLY_ERROR &&
        slice_starts(reply->text, SLICE("ERR no such key"));
    const struct redis_reply *last, *added, *length, *first;

    r->exists = !none;
    if (!none && cause == REDIS_OK) {
        last = member_of(reply, "last-generated-id");
        added = member_of(reply, "entries-added");
        length = member_of(reply, "length");
        first = member_of(reply, "first-entry");
        if (added == NULL || last == NULL || length == NULL || first == NULL ||
            bus_id_read(last->text, &r->last) == -1 || (first->type == REPLY_ARRAY &&
            (first->n < 1 || bus_id_read(first->at[0]->text, &r->oldest) == -1))) {
            static struct log_limit limit;

            log_limited(&limit, LOG_ERROR, "purge bus: what Redis tells of the stream is not "
                "understood; Redis 7.0 or newer is needed");
            cause = REDIS_OTHER;
        } else {
            r->added = number(added);
            r->length = number(length) < r->added ? number(length) : r->added;
        }
    }
    if (came(b, 0, none ? REDIS_OK : cause) && r->outstanding == 0)
        judge(b);
}

static void
on_entry(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct bus *b = arg;

    b->round.present = cause == REDIS_OK && reply->type == REPLY_ARRAY && reply->n > 0;
    if (came(b, 1, cause) && b->round.outstanding == 0)
        judge(b);
}

static void
look(struct bus *b)
{
    struct round *r = &b->round;
    char id[BUS_ID_MAX];
    struct slice at = bus_id_put(b->at, id), stream = slice_of(b->stream);
    struct slice info[] = { SLICE("XINFO"), SLICE("STREAM"), stream };
    struct slice range[] = { SLICE("XRANGE"), stream, at, at };

    r->step = ROUND_LOOK;
    r->at = b->at;
    r->count = b->count;
    r->exists = r->present = false;
    r->last = r->oldest = (struct store_position){ 0 };
    r->added = r->length = 0;
    if (!ask(b, 0, info, NELEM(info), on_stream) || !ask(b, 1, range, NELEM(range), on_entry))
        not_sent(b);
}

static void
on_set(struct bus *b, size_t i, enum redis_cause cause)
{
    if (came(b, i, cause) && b->round.outstanding == 0)
        look(b);
}

static void
on_listed(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    (void)reply;
    on_set(arg, 0, cause);
}

static void
on_leased(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    (void)reply;
    on_set(arg, 1, cause);
}

/* The list of who is live is whole a lease after its first entry. */
static void
on_since(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct bus *b = arg;
    uint64_t since = b->round.now_ms;

    if (cause == REDIS_OK && reply->type != REPLY_NIL && (reply->type != REPLY_STRING ||
        !slice_u64(reply->text, &since)))
        cause = REDIS_PROTOCOL;
    if (cause == REDIS_OK && since != b->since_ms) {
        uint64_t age_ms = b->round.now_ms > since ? b->round.now_ms - since : 0;
        int64_t left = b->lease_us / 1000 - (int64_t)(age_ms < MEMBER_KEPT_MS ? age_ms :
            MEMBER_KEPT_MS);

        b->since_ms = since;
        b->complete_us = now_us() + (left > 0 ? left * MS_US : 0);
    }
    on_set(b, 2, cause);
}

static void
on_time(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct bus *b = arg;
    uint64_t seconds = 0, us = 0;
    char now[24], ms[24], old[24], at[BUS_ID_MAX], lease[24];
    struct buf live = { 0 };

    if (cause == REDIS_OK && (reply->type != REPLY_ARRAY || reply->n < 2 ||
        !slice_u64(reply->at[0]->text, &seconds) || !slice_u64(reply->at[1]->text, &us)))
        cause = REDIS_PROTOCOL;
    if (!came(b, 0, cause))
        return;
    b->round.step = ROUND_SET;
    b->round.sent_us = now_us();
    b->round.now_ms = seconds * 1000 + us / 1000;
    buf_addz(&live, b->live);
    buf_addz(&live, b->id);
    struct slice members = slice_of(b->members), id = slice_of(b->id);
    struct slice list[] = { SLICE("ZADD"), members, { now, put_u64(now, seconds * 1000) }, id };
    struct slice set[] = { SLICE("SET"), buf_slice(&live), bus_id_put(b->at, at), SLICE("PX"),
        { lease, put_u64(lease, (uint64_t)b->lease_us / 1000) } };
    struct slice trim[] = { SLICE("XTRIM"), slice_of(b->stream), SLICE("MAXLEN"), SLICE("~"),
        SLICE(ENTRIES_MAX) };
    struct slice since[] = { SLICE("SET"), slice_of(b->since), { ms, put_u64(ms, b->round.now_ms) },
        SLICE("NX"), SLICE("GET") };
    struct slice forget[] = { SLICE("ZREMRANGEBYSCORE"), members, SLICE("-inf"),
        { old, put_u64(old, seconds * 1000 - MEMBER_KEPT_MS) } };

    if (live.failed || !ask(b, 0, list, NELEM(list), on_listed) ||
        !ask(b, 1, set, NELEM(set), on_leased) || !ask(b, 2, since, NELEM(since), on_since))
        not_sent(b);
    if (b->round.step == ROUND_SET) {
        bus_send(b, forget, NELEM(forget), 0, NULL, NULL);
        bus_send(b, trim, NELEM(trim), 0, NULL, NULL);
    }
    buf_free(&live);
}

static void
run_round(void *arg)
{
    struct bus *b = arg;
    struct slice time[] = { SLICE("TIME") };

    if (b->round.step != ROUND_NONE)
        return;
    b->round.step = ROUND_TIME;
    b->round.failed = false;
    if (!ask(b, 0, time, NELEM(time), on_time))
        not_sent(b);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

void
lease_reader_failed(struct bus *b)
{
    b->suspect = true;
    if (b->round.step == ROUND_READ)            /* it would wait for the reader */
        pause_after_failure(b);
    else if (b->round.step == ROUND_NONE)
        next_round(b, b->retry_us);
}

void
lease_begin(struct bus *b)
{
    b->retry_us = RETRY_FIRST_US;
    b->round.why = "Redis was not reached";
    b->lost = true;
    timer_init(&b->round_timer, b->loop, run_round, b);
    timer_init(&b->trust_timer, b->loop, on_lease_over, b);
    if (!b->serve)
        store_trust(b->store, 0);
    run_round(b);
}

void
lease_end(struct bus *b)
{
    for (size_t i = 0; i < NELEM(b->round.asks); i++)
        redis_cancel(&b->round.asks[i]);
    timer_fini(&b->round_timer);
    timer_fini(&b->trust_timer);
}
