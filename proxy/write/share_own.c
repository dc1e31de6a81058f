/*
 * Whose a partition is: leases, giving and taking.
 *
 * Model    each instance aims at an equal part of the partitions: it takes free ones (in random
 *          order, so that those who start together spread), and gives back what is above it.
 *          With a partition taken goes a fencing token that is higher than all before it, also
 *          where Redis lost some: it is not below the server's clock in milliseconds.
 * Lease    by our clock it ends a part before Redis' clock ends it, counted from when the renewal
 *          was sent: then no delivery begins any more (share_owns), without anybody's doing, also
 *          in a process that was stopped. Who delivers meanwhile does so under a higher token, and
 *          nothing of ours changes a row of his.
 * Leaving  a partition that is given back is renewed until what is under way has ended.
 * Threads  the journal's.
 */
#include "write/share.h"

#include <stdlib.h>

static void take(struct share_part *p);

int64_t
round_us(const struct share *s)
{
    int64_t most = s->o.lease_ms / 4;   /* a round that hangs must not cost the leases */

    return 1000 * (s->o.timeout_ms < most ? s->o.timeout_ms : most);
}

/* ---- one partition --------------------------------------------------------------------------- */

static void
tell_owner(struct share_part *p, bool on)
{
    struct share *s = p->s;

    p->owned = on;
    if (s->found.owns != NULL && !s->closing)
        s->found.owns(s->found.arg, p->n, on);
}

static void
leave(struct share_part *p, bool kept)
{
    atomic_store(&p->until_us, 0);
    p->state = PART_LEAVING;
    p->kept = kept;
    news_end(p);
    tell_owner(p, false);
}

void
part_lose(struct share_part *p)
{
    if (p->state == PART_LOADING || p->state == PART_OURS) {
        p->s->ended++;
        leave(p, false);
    } else if (p->state == PART_LEAVING) {
        p->kept = false;
    }
}

static void
say_ended(struct share *s)
{
    if (s->ended > 0)
        log_warn("journal %s: leases of partitions ended (%u); other instances may have them",
            s->j->path, s->ended);
    s->ended = 0;
}

/* What was sent at asked_us renewed it. Two clocks agree on a lease to better than an eighth. */
void
share_renewed(struct share_part *p)
{
    int64_t lease = p->s->o.lease_ms * 1000;

    p->lease_us = p->asked_us + lease - lease / 8;
    if (p->state == PART_LOADING || p->state == PART_OURS)
        atomic_store(&p->until_us, p->lease_us);
}

void
share_expire(void *arg)
{
    struct share *s = arg;
    int64_t now = now_us();

    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        if (s->parts[i].owned && now >= s->parts[i].lease_us)
            part_lose(&s->parts[i]);
    say_ended(s);
    timer_set(&s->expire, s->o.lease_ms * 1000 / 16);
}

static void
on_given(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_part *p = arg;

    (void)share_unknown(p, cause, r);
    p->state = PART_FREE;               /* where it was not heard, the lease ends by itself */
    share_given(p->s);
}

static bool
give(struct share_part *p, uint64_t token)
{
    struct share_args g = { .n = 0 };

    args_add(&g, slice_of(p->s->name));
    args_addu(&g, token);
    p->state = PART_GIVING;
    if (share_script(p->s, p, LUA_GIVE, &g, round_us(p->s), on_given, p, NULL))
        return true;
    p->state = PART_FREE;
    return false;
}

void
share_run_left(struct loop_msg *m)
{
    struct share_part *p = CONTAINER(m, struct share_part, left);

    atomic_store(&p->left_posted, false);
    if (p->state != PART_LEAVING || p->s->gave)
        return;
    give(p, atomic_exchange(&p->token, 0));
}

static void
on_taken(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_part *p = arg;
    struct stream_id last;
    uint64_t token, counter;

    p->state = PART_FREE;
    if (share_unknown(p, cause, r)) {
        take(p);
        return;
    }
    if (cause != REDIS_OK || reply_code(r) != JOURNAL_DONE ||
        !stream_id_read(reply_text(r, 3), &last)) {
        if (cause != REDIS_OK)
            share_log(p->s, cause, r);
        return;
    }
    token = reply_u64(r, 1);
    if (p->s->closing) {
        p->s->giving += give(p, token) && p->s->gave;
        return;
    }
    counter = reply_u64(r, 2);
    p->state = PART_LOADING;
    if (counter > p->counter)
        p->counter = counter;
    atomic_store(&p->token, token);
    share_renewed(p);
    tell_owner(p, true);
    news_begin(p, counter, last);
}

static void
take(struct share_part *p)
{
    struct share_args g = { .n = 0 };

    args_add(&g, slice_of(p->s->name));
    args_addu(&g, (uint64_t)p->s->o.lease_ms);
    p->asked_us = now_us();
    p->state = PART_TAKING;
    if (!share_script(p->s, p, LUA_TAKE, &g, round_us(p->s), on_taken, p, NULL))
        p->state = PART_FREE;
}

/* ---- balance --------------------------------------------------------------------------------- */

static bool
is_mine(const struct share_part *p)
{
    return p->state == PART_TAKING || p->state == PART_LOADING || p->state == PART_OURS;
}

static bool
may_take(const struct share_part *p)
{
    return p->state == PART_FREE &&
        (p->owner[0] == '\0' || strcmp(p->owner, p->s->name) == 0);
}

/* Of those who live each that does not leave; at least one. */
static unsigned
takers(const struct share *s)
{
    int n = 0;

    for (size_t i = 0; i < s->nlive; i++)
        n += s->live[i][0] == '!' ? -1 : 1;
    return n > 0 ? (unsigned)n : 1;
}

void
share_balance(struct share *s)
{
    unsigned live = takers(s), mine = 0;
    unsigned aim = atomic_load(&s->leaving) ? 0 : (JOURNAL_PARTS + live - 1) / live;
    unsigned first = (unsigned)(random_fast() % JOURNAL_PARTS);
    unsigned step = 2 * (unsigned)(random_fast() % (JOURNAL_PARTS / 2)) + 1;

    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        mine += is_mine(&s->parts[i]);
    for (unsigned i = 0; i < JOURNAL_PARTS; i++) {
        struct share_part *p = &s->parts[(first + i * step) % JOURNAL_PARTS];

        if (mine < aim && may_take(p)) {
            take(p);
            mine++;
        } else if (mine > aim && p->state == PART_OURS) {
            leave(p, true);
            mine--;
        }
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

void
share_given(struct share *s)
{
    if (s->gave && --s->giving == 0)
        loop_stop(s->loop);
}

static void
on_left(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    (void)cause;
    (void)r;
    share_given(arg);
}

void
share_give_all(struct share *s)
{
    struct share_args g = { .n = 0 };

    if (s->gave)
        return;
    s->gave = true;
    s->giving = 1;                      /* this call's own */
    for (unsigned i = 0; i < JOURNAL_PARTS; i++) {
        struct share_part *p = &s->parts[i];

        atomic_store(&p->until_us, 0);
        if (p->state == PART_GIVING)
            s->giving++;
        else if (p->state == PART_LOADING || p->state == PART_OURS || p->state == PART_LEAVING)
            s->giving += give(p, atomic_load(&p->token));
    }
    args_add(&g, slice_of(s->name));
    s->giving += share_script(s, &s->parts[SHARE_FLEET], LUA_LEAVE, &g, round_us(s), on_left, s,
        NULL);
    share_given(s);
}
