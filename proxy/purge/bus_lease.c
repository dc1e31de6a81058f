/*
 * Rounds: an instance's lease, and what it may conclude from it.
 *
 * Model    a round, each third of the lease:
 *            1. the instance stands in LEASES with the end of its lease, by the server's clock, and
 *               the position that was applied;
 *            2. once that is answered, the stream is looked at: its last entry L, how many entries
 *               were ever added, and whether the entry that was applied last is still there;
 *            3. when everything up to L was applied, what is stored is trusted until the time at
 *               which 1 was sent plus the lease (a little less: clocks do not run alike).
 * Why      let an instance trust what it stored at time t, by a round whose step 1 was sent at s,
 *          and let a purge be in the stream that it has not applied. That purge came behind L, so
 *          after step 2, so after 1. Whoever made it reads LEASES after that: it finds this
 *          instance there, with an end that is s + lease > t or later. So while t lies before that
 *          end the purge is said to be missing here, and when it has passed, this instance trusts
 *          nothing: what it stored is in doubt (store_doubts), by the wall clock and without
 *          anybody's doing, even when the process was stopped. A purge is reported done only when
 *          no instance could serve what it took away.
 *          In doubt everything goes on being stored and is validated at each use; so nothing is
 *          lost when the lease is there again: by then what was missed was applied, in order. A
 *          fetch that was under way when the lease ended is not joined any more.
 *          Behind a round that failed, or a reader that did, step 1 is left out until one has got
 *          to its end and the reader has had an answer. A reader that makes no progress holds up
 *          step 3, and no further round begins before. So the lease ends, and nobody waits for an
 *          instance that cannot hear.
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
 * Leases   LEASES is a hash, PREFIX{bus}leases: of each instance "END LEASE POSITION", in ms, and
 *          "since": when the hash was made. It has no time to live, and who is in it is forgotten
 *          by what an instance does alone (1 removes whose lease has ended), or as a whole: by a
 *          Redis that lost its data, or that evicts keys of any kind. So who is live is never lost
 *          without "since". Who held a lease then may trust what it stored to its end; nobody is
 *          said to have applied a purge before "since" is older than a lease (bus_ask.c): by then
 *          all are in the hash again, or trust nothing. The same holds for a Redis that is new.
 *          Leases are to be of one length. One that is longer is remembered by who saw it, for
 *          that: it may be held by an instance that the hash has lost.
 *          The stream, PREFIXpurges, may be lost without all this: see "Same".
 * Threads  the bus's.
 */
#include "purge/bus.h"

#define ENTRIES_MAX     "1000000"       /* of the stream, about 100 MiB, however young they are */
#define RETRY_FIRST_US  (50 * MS_US)
#define RETRY_MOST_US   SECOND_US

static void run_round(void *arg);

/* LEASES; an instance, its lease, its position. How many are live, and the longest lease. */
static const char lease_script[] =
    "local t = redis.call('TIME') "
    "local now = t[1] * 1000 + math.floor(t[2] / 1000) "
    "redis.call('HSETNX', KEYS[1], 'since', now) "
    "redis.call('HSET', KEYS[1], ARGV[1], now + ARGV[2] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3]) "
    "local live, longest, all = 0, 0, redis.call('HGETALL', KEYS[1]) "
    "for i = 1, #all, 2 do "
    "if all[i] ~= 'since' then "
    "local over, lease = string.match(all[i + 1], '^(%d+) (%d+) ') "
    "if over and tonumber(over) > now then "
    "live, longest = live + 1, math.max(longest, lease) "
    "else redis.call('HDEL', KEYS[1], all[i]) end end end "
    "return {live, longest}";
/* LEASES; an instance, its position. */
static const char say_script[] =
    "local lease = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^%d+ %d+ ') "
    "if lease then redis.call('HSET', KEYS[1], ARGV[1], lease .. ARGV[2]) end "
    "return 0";
/* The stream; an id. Nil: there is none, which is no failure. */
static const char look_script[] =
    "if redis.call('EXISTS', KEYS[1]) == 0 then return false end "
    "return {redis.call('XINFO', 'STREAM', KEYS[1]), "
    "redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])}";

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
    b->round.renew = false;
    pthread_mutex_lock(&b->mtx);
    b->shown.tried = true;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mtx);
    pause_after_failure(b);
}

/* Everything up to what was seen of the stream is applied. */
static void
complete(struct bus *b)
{
    saved_put(b);
    if (!b->round.renew) {
        b->round.renew = true;
        next_round(b, 0);
        return;
    }
    b->retry_us = RETRY_FIRST_US;
    b->round.why = "it was not renewed in time";
    hold(b);
    next_round(b, b->round.sent_us + b->lease_us / 3 - now_us());
    bus_show(b);
    bus_pump(b);
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
    const struct seen *s = &r->seen;
    uint64_t gone = s->added - s->length;       /* trimmed */

    if (!s->exists)
        return r->count == 0 ? SAME : LOST;
    if (r->count > s->added || store_position_cmp(r->at, s->last) > 0)
        return LOST;
    if (store_position_cmp(r->at, s->last) == 0)
        return r->count == s->added ? SAME : LOST;
    if (s->present)
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
    bus_erase_moved(b);
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
        (unsigned long long)r->seen.added, (unsigned long long)r->seen.last.ms,
        (unsigned long long)r->seen.last.n);
    begin_at(b, r->seen.last, r->seen.added);
    queue_again(&b->queue);
}

/* The first of this process. All that the stream has is read: values that live in Redis may have
 * missed any of it. What is on disk, of which nothing is known, may have missed more. */
static void
begin(struct bus *b)
{
    const struct seen *s = &b->round.seen;

    if (b->saved_fd != -1)
        bus_purge_here(b, &all_in_doubt);
    begin_at(b, s->length > 0 ? before(s->oldest) : s->last, s->added - s->length);
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
    const struct seen *s = &b->round.seen;

    if (b->round.step != ROUND_READ || b->deaf ||
        (s->exists && store_position_cmp(b->at, s->last) < 0))
        return;
    if (s->exists && store_position_cmp(b->at, s->last) == 0 && b->count != s->added) {
        begin_anew(b, true);            /* of another stream some entries were taken for ours */
        bus_read_on(b);
    }
    complete(b);
}

/* ---- a round's commands ---------------------------------------------------------------------- */

/* An answer came; false: it is of no use, and the round is given up. */
static bool
came(struct bus *b, enum redis_cause cause)
{
    b->round.ask = NULL;
    if (cause == REDIS_OK)
        return true;
    b->round.why = redis_cause_name(cause);
    give_up(b);
    return false;
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

struct redis_ask *
stream_look(struct bus *b, struct store_position at, int64_t within_us,
    void (*done)(void *arg, enum redis_cause cause, const struct redis_reply *r), void *arg)
{
    char id[BUS_ID_MAX];
    struct slice argv[] = { SLICE("EVAL"), { look_script, sizeof look_script - 1 }, SLICE("1"),
        slice_of(b->stream), bus_id_put(at, id) };

    return bus_send(b, argv, NELEM(argv), within_us, done, arg);
}

int
stream_seen(const struct redis_reply *r, struct seen *out)
{
    const struct redis_reply *info, *range, *last, *added, *length, *first;

    *out = (struct seen){ .exists = r->type != REPLY_NIL };
    if (!out->exists)
        return 0;
    if (r->type != REPLY_ARRAY || r->n != 2)
        return -1;
    info = r->at[0];
    range = r->at[1];
    last = member_of(info, "last-generated-id");
    added = member_of(info, "entries-added");
    length = member_of(info, "length");
    first = member_of(info, "first-entry");
    if (added == NULL || last == NULL || length == NULL || first == NULL ||
        bus_id_read(last->text, &out->last) == -1 || (first->type == REPLY_ARRAY &&
        (first->n < 1 || bus_id_read(first->at[0]->text, &out->oldest) == -1)))
        return -1;
    out->present = range->type == REPLY_ARRAY && range->n > 0;
    out->added = number(added);
    out->length = number(length) < out->added ? number(length) : out->added;
    return 0;
}

static void
on_look(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    static struct log_limit limit;
    struct bus *b = arg;

    if (cause == REDIS_OK && stream_seen(reply, &b->round.seen) == -1) {
        log_limited(&limit, LOG_ERROR, "purge bus: what Redis tells of the stream is not "
            "understood; Redis 7.0 or newer is needed");
        cause = REDIS_OTHER;
    }
    if (came(b, cause))
        judge(b);
}

static void
look(struct bus *b)
{
    struct round *r = &b->round;

    r->step = ROUND_LOOK;
    r->at = b->at;
    r->count = b->count;
    r->ask = stream_look(b, b->at, BUS_WAIT_US, on_look, b);
    if (r->ask == NULL)
        not_sent(b);
}

/* Who is live, and whose lease is the longest. */
static void
note_leases(struct bus *b, uint64_t live, uint64_t longest)
{
    if (longest > b->longest_ms) {
        log_warn("purge bus: an instance has a lease of %llu ms, where others have one of %llu: "
            "cache.redis.lease is to be the same at all", (unsigned long long)longest,
            (unsigned long long)b->longest_ms);
        b->longest_ms = longest;
    }
    pthread_mutex_lock(&b->mtx);
    b->shown.instances = live;
    pthread_mutex_unlock(&b->mtx);
}

static void
on_leased(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct bus *b = arg;

    if (cause == REDIS_OK && (reply->type != REPLY_ARRAY || reply->n != 2))
        cause = REDIS_PROTOCOL;
    if (!came(b, cause))
        return;
    note_leases(b, number(reply->at[0]), number(reply->at[1]));
    look(b);
}

static void
run_round(void *arg)
{
    struct bus *b = arg;
    char lease[24], at[BUS_ID_MAX];
    struct slice argv[] = { SLICE("EVAL"), { lease_script, sizeof lease_script - 1 }, SLICE("1"),
        slice_of(b->leases), slice_of(b->id),
        { lease, put_u64(lease, (uint64_t)b->lease_us / 1000) },
        bus_id_put(bus_told(b).at, at) };
    struct slice trim[] = { SLICE("XTRIM"), slice_of(b->stream), SLICE("MAXLEN"), SLICE("~"),
        SLICE(ENTRIES_MAX) };

    if (b->round.step != ROUND_NONE)
        return;
    if (!b->round.renew) {
        look(b);
        return;
    }
    b->round.step = ROUND_LEASE;
    b->round.sent_us = now_us();
    b->round.ask = bus_send(b, argv, NELEM(argv), BUS_WAIT_US, on_leased, b);
    if (b->round.ask == NULL)
        not_sent(b);
    else
        bus_send(b, trim, NELEM(trim), 0, NULL, NULL);
}

/* ---- how far it has applied, meanwhile ------------------------------------------------------- */

static void
on_said(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct bus *b = arg;

    (void)r;
    b->ack = NULL;
    if (cause == REDIS_OK && store_position_cmp(b->acked, bus_told(b).at) != 0)
        lease_say(b);
}

void
lease_say(struct bus *b)
{
    struct store_position told = bus_told(b).at;
    char at[BUS_ID_MAX];
    struct slice argv[] = { SLICE("EVAL"), { say_script, sizeof say_script - 1 }, SLICE("1"),
        slice_of(b->leases), slice_of(b->id), bus_id_put(told, at) };

    if (b->held_until_us == 0 || b->ack != NULL)
        return;
    b->acked = told;
    b->ack = bus_send(b, argv, NELEM(argv), BUS_WAIT_US, on_said, b);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

void
lease_reader_failed(struct bus *b)
{
    struct round *r = &b->round;

    b->suspect = b->deaf = true;
    if (r->step != ROUND_READ && r->step != ROUND_NONE)
        return;
    r->renew = false;
    if (r->step == ROUND_READ)          /* it would wait for the reader */
        pause_after_failure(b);
    else
        next_round(b, b->retry_us);
}

void
lease_begin(struct bus *b)
{
    b->retry_us = RETRY_FIRST_US;
    b->longest_ms = (uint64_t)b->lease_us / 1000;
    b->round.why = "Redis was not reached";
    b->round.renew = true;
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
    redis_cancel(&b->round.ask);
    redis_cancel(&b->ack);
    timer_fini(&b->round_timer);
    timer_fini(&b->trust_timer);
}
