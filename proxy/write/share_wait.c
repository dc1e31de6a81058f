/*
 * A write of the shared journal waits for replicas: journal.redis.replicas.
 *
 * Model    what ACCEPT puts is held: its owner does not hear of it. WAIT, one for all that came
 *          since the last, says that so many replicas have it: then it is accepted, and RELEASE
 *          tells the owners. It goes out on the connection of the write alone: another master's
 *          replicas tell nothing. A WAIT is for all that its master wrote before, so what is
 *          released is all of a partition up to a seq, whoever took it: held ones are always the
 *          last of a partition, and the owner hears of all in order.
 * Too few  it is taken back, which Redis does only while it is held; no verb changes it until then.
 *          Where it is not held any more (its time was out, another instance's WAIT was answered
 *          later and better, a fail-over lost it) it is not accepted either: its fate is not known.
 * Time out who accepted it may have ended meanwhile. Then the look of any instance tells the owner
 *          when its time is out: it was not acknowledged, so it may be done or not.
 * Keys     the first request of a key that may not be at enough replicas is waited for as well,
 *          released, and asked for once more: by then it may have been taken back.
 * Threads  the journal's.
 */
#include "write/share.h"

#define UNKNOWN "too few replicas of Redis had it in time (journal.redis.replicas), and it could "\
    "not be taken back; whether the write was taken is not known"

static void wait_next(struct share_part *lane);

/* ---- telling owners -------------------------------------------------------------------------- */

static void
on_released(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_part *p = arg;

    if (share_unknown(p, cause, r)) {
        share_release(p);
    } else if (cause == REDIS_OK && reply_code(r) == JOURNAL_DONE) {
        if (reply_u64(r, 1) >= p->release)
            p->release = 0;
        news_read(p);
    }
}

/* What fails is asked again by the next round. */
void
share_release(struct share_part *p)
{
    struct share_args g = { .n = 0 };

    if (p->release == 0)
        return;
    args_addu(&g, p->release);
    share_script(p->s, p, LUA_RELEASE, &g, p->s->o.timeout_ms * 1000, on_released, p, NULL);
}

static uint64_t
seq_of(const struct share_call *c)
{
    return c->op->first_seq != 0 ? c->op->first_seq : c->op->row.seq;
}

static void
release_all(struct share *s, const struct share_call *calls)
{
    for (const struct share_call *c = calls; c != NULL; c = c->next)
        if (seq_of(c) > c->p->release)
            c->p->release = seq_of(c);
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        share_release(&s->parts[i]);
}

/* ---- waiting --------------------------------------------------------------------------------- */

void
call_undone(struct share_call *c, int code)
{
    call_finish(c, JOURNAL_FULL, code == JOURNAL_GONE ? UNKNOWN :
        "too few replicas of Redis have it (journal.redis.replicas)");
}

static void
too_few(struct share_call *c)
{
    if (c->op->first_seq != 0) {
        call_finish(c, JOURNAL_FULL, UNKNOWN);
        return;
    }
    c->undo = true;
    c->until_us = now_us() + c->s->o.timeout_ms * 1000;
    call_ask(c);
}

static void
enough(struct share_call *c)
{
    if (c->op->first_seq == 0) {
        call_accepted(c);
        return;
    }
    c->op->first_seq = 0;
    c->until_us = now_us() + c->s->o.timeout_ms * 1000;
    call_ask(c);
}

static void
each(struct share_call *c, void (*then)(struct share_call *c))
{
    for (struct share_call *next; c != NULL; c = next) {
        next = c->next;
        then(c);
    }
}

static void
on_waited(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_part *lane = arg;
    struct share_call *calls = lane->flying;
    bool good = cause == REDIS_OK && r->type == REPLY_INTEGER &&
        r->integer >= (int64_t)lane->s->o.replicas;

    lane->flying = NULL;
    if (good)
        release_all(lane->s, calls);
    each(calls, good ? enough : too_few);
    wait_next(lane);
}

static struct share_call *
take(struct share_call **from, uint64_t connection)
{
    struct share_call *taken = NULL, *c;

    while ((c = *from) != NULL) {
        if (c->connection != connection) {
            from = &c->next;
            continue;
        }
        *from = c->next;
        c->next = taken;
        taken = c;
    }
    return taken;
}

/* One WAIT for all that came since the last on a connection: what they wrote is before it there. */
static void
wait_next(struct share_part *lane)
{
    struct share *s = lane->s;
    char n[20], ms[20];
    struct slice argv[] = { SLICE("WAIT"), { n, put_u64(n, s->o.replicas) },
        { ms, put_u64(ms, (uint64_t)s->o.timeout_ms / 2 + 1) } };
    struct redis_command c = { .argv = argv, .argc = 3, .key = slice_of(lane->key),
        .within_us = s->o.timeout_ms * 1000, .done = on_waited, .arg = lane };
    enum redis_cause cause;

    if (lane->flying != NULL || lane->waiting == NULL)
        return;
    c.connection = lane->waiting->connection;
    lane->flying = take(&lane->waiting, c.connection);
    if (redis_send(s->redis, &c, &cause) == NULL)
        on_waited(lane, cause, NULL);
}

void
call_await_replicas(struct share_call *c, uint64_t connection)
{
    struct share *s = c->s;
    struct share_part *lane = redis_slots(s->redis) > 1 ? c->p : &s->parts[0];

    c->connection = connection;
    c->next = lane->waiting;
    lane->waiting = c;
    wait_next(lane);
}

void
call_await_first(struct share_call *c, uint64_t connection)
{
    if (c->waited) {                    /* it could not be released */
        call_finish(c, JOURNAL_FULL, UNKNOWN);
        return;
    }
    c->waited = true;
    call_await_replicas(c, connection);
}
