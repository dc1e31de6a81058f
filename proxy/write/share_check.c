/*
 * Does Redis keep what it is given?
 *
 * Check    before the first round, after one that failed (it may be another server now), and each
 *          ten seconds: CONFIG GET, of each partition's server in a cluster. A Redis without a log,
 *          one that syncs it later than a route promises, or one that evicts, takes no writes from
 *          us, and what is to be set is said; what is pending is delivered all the same. Where
 *          CONFIG is not allowed that is said once, and what it would say is believed. `weir writes
 *          move` judges the Redis that it fills alike, before it writes anything.
 * Loss     a failover may lose what the former master had acknowledged, a restart without a log
 *          everything. Then a partition's counter is below what this instance was told: the look
 *          raises it again, so that no number is given twice, and those of the last writes that
 *          this instance took there, and does not know to be settled, are looked for. What is not
 *          there is lost: counted, and said with its id.
 * Threads  the journal's; the mover's.
 */
#include "stats/stats.h"
#include "write/mover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define LOST_SAID 100                   /* ids that are said, of a partition's loss */
#define LOST_LINE 20                    /* ... in a line */
#define CHECK_US ((int64_t)10000000)

/* ---- the configuration of Redis -------------------------------------------------------------- */

static struct slice
setting(const struct redis_reply *r, struct slice name)
{
    for (size_t i = 0; i + 1 < r->n; i += 2)
        if (slice_eq(reply_text(r, i), name))
            return reply_text(r, i + 1);
    return (struct slice){ NULL, 0 };
}

/* Why it is not to be trusted with writes; NULL: it is. */
static const char *
judge(struct share *s, const struct redis_reply *r)
{
    struct slice policy = setting(r, SLICE("maxmemory-policy"));

    if (slice_starts(policy, SLICE("allkeys-")))
        return "Redis would evict writes: set `maxmemory-policy noeviction` in it";
    if (slice_starts(policy, SLICE("volatile-")) && !s->warned_policy) {
        s->warned_policy = true;
        log_warn("journal %s: Redis may evict idempotency keys and leases: set `maxmemory-policy "
            "noeviction` in it", s->j->path);
    }
    if (s->o.durable == WRITE_MEMORY)
        return NULL;
    if (slice_eq(setting(r, SLICE("appendonly")), SLICE("no")))
        return "Redis keeps no log of what it has: set `appendonly yes` in it";
    if (s->o.durable == WRITE_FSYNC && setting(r, SLICE("appendfsync")).n > 0 &&
        !slice_eq(setting(r, SLICE("appendfsync")), SLICE("always")))
        return "Redis syncs too late for write.durability fsync: set `appendfsync always` in it, "
            "or that to os";
    return NULL;
}

/* A cluster whose other masters answered goes on, and is asked again. */
static void
checked(struct share *s)
{
    if (s->check_cause != REDIS_OK && (!s->looked || redis_slots(s->redis) == 1)) {
        share_round_failed(s, s->check_cause, NULL);
        return;
    }
    s->check_us = s->check_cause == REDIS_OK ? now_us() + CHECK_US : 0;
    if (s->check_cause == REDIS_OK || s->check_unfit != NULL)
        s->unfit = s->check_unfit;
    share_beat(s);
}

static void
warn_unknown(struct share *s)
{
    if (!s->warned_config)
        log_warn("journal %s: CONFIG GET is not allowed: that Redis keeps and syncs a log, and "
            "evicts nothing, cannot be checked", s->j->path);
    s->warned_config = true;
}

static void
on_config(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share *s = arg;
    const char *why = NULL;

    if (cause == REDIS_OK && r->type == REPLY_ARRAY) {
        why = judge(s, r);
    } else if (cause == REDIS_AUTH || cause == REDIS_OTHER) {
        warn_unknown(s);
    } else {
        s->check_cause = cause != REDIS_OK ? cause : REDIS_PROTOCOL;
    }
    if (why != NULL)
        s->check_unfit = why;
    if (--s->check_left == 0)
        checked(s);
}

static const struct slice config_get[] = { { "CONFIG", 6 }, { "GET", 3 }, { "appendonly", 10 },
    { "appendfsync", 11 }, { "maxmemory-policy", 16 } };

static unsigned
servers_of(const struct share *s)
{
    return redis_slots(s->redis) > 1 ? JOURNAL_PARTS : 1;
}

void
share_check(struct share *s)
{
    unsigned servers = servers_of(s);

    s->check_unfit = NULL;
    s->check_cause = REDIS_OK;
    s->check_left = 1;
    for (unsigned i = 0; i < servers; i++) {
        struct redis_command c = { .argv = config_get, .argc = NELEM(config_get),
            .key = slice_of(s->parts[i].key), .within_us = s->o.timeout_ms * 1000,
            .done = on_config, .arg = s };
        enum redis_cause cause;

        if (redis_send(s->redis, &c, &cause) != NULL)
            s->check_left++;
        else
            s->check_cause = cause;
    }
    if (--s->check_left == 0)
        checked(s);
}

static void
on_config_of_mover(struct mover *m, const struct redis_reply *r, void *arg)
{
    const char *why;

    (void)arg;
    if (r == NULL || r->type != REPLY_ARRAY) {
        warn_unknown(m->s);
        return;
    }
    why = judge(m->s, r);
    if (why != NULL && !m->failed)
        err_set(m->e, EINVAL, "%s; nothing was moved", why);
    m->failed |= why != NULL;
}

bool
mover_judge(struct mover *m)
{
    for (unsigned i = 0; i < servers_of(m->s); i++) {
        struct move_call *c = mover_call(m, i, -1, on_config_of_mover, NULL);

        if (c == NULL)
            return false;
        c->may_be_refused = true;
        for (size_t k = 0; k < NELEM(config_get); k++)
            args_add(&c->g, config_get[k]);
        if (!mover_send(c))
            return false;
    }
    return mover_flush(m);
}

/* ---- loss ------------------------------------------------------------------------------------ */

void
taken_add(struct share *s, uint64_t seq)
{
    s->taken[s->ntaken++ % SHARE_TAKEN] = (struct share_taken){ seq, now_us() };
}

void
taken_settled(struct share *s, uint64_t seq)
{
    for (size_t i = 0; i < SHARE_TAKEN && i < s->ntaken; i++)
        if (s->taken[i].seq == seq)
            s->taken[i].seq = 0;
}

struct search {                         /* for what a partition lost */
    struct share_part *p;
    unsigned left;
    uint64_t lost;
    uint64_t said[LOST_SAID];           /* the first of them that are known */
};
struct search_one { struct search *all; uint64_t seq; };

/* In lines that a log takes whole. */
static void
say_lost(const struct search *x)
{
    const struct share *s = x->p->s;
    size_t n = x->lost < LOST_SAID ? (size_t)x->lost : LOST_SAID;
    char ids[LOST_LINE * (WRITE_ID_N + 1) + 1];

    log_error("journal %s: Redis lost %llu writes that it had taken in partition %u", s->j->path,
        (unsigned long long)x->lost, x->p->n);
    for (size_t i = 0; i < n; i += LOST_LINE) {
        char *at = ids;

        for (size_t k = i; k < n && k < i + LOST_LINE; k++, at += WRITE_ID_N) {
            *at++ = ' ';
            journal_id(s->j, x->said[k], at);
        }
        log_error("journal %s: lost in partition %u:%s", s->j->path, x->p->n, ids);
    }
    if (x->lost > n)
        log_error("journal %s: lost in partition %u: %llu more", s->j->path, x->p->n,
            (unsigned long long)(x->lost - n));
}

static void
search_over(struct search *x)
{
    struct share *s = x->p->s;

    if (--x->left > 0)
        return;
    if (x->lost > 0) {
        s->lost += x->lost;
        COUNT_N(writes_lost, x->lost);
        say_lost(x);
        share_publish(s);
    }
    free(x);
}

static void
on_searched(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct search_one *one = arg;
    struct search *x = one->all;

    if (cause == REDIS_OK && r->type == REPLY_INTEGER && r->integer == 0) {
        taken_settled(x->p->s, one->seq);
        if (x->lost < LOST_SAID)
            x->said[x->lost] = one->seq;
        x->lost++;
    }
    free(one);
    search_over(x);
}

static void
search_for(struct search *x, uint64_t seq)
{
    struct search_one *one = malloc(sizeof *one);
    char key[SHARE_PREFIX + 48];
    int n = snprintf(key, sizeof key, "%sw:%llu", x->p->key, (unsigned long long)seq);
    struct slice argv[] = { SLICE("EXISTS"), { key, (size_t)n } };
    struct redis_command c = { .argv = argv, .argc = 2, .key = slice_of(x->p->key),
        .done = on_searched, .arg = one };

    if (one == NULL)
        return;
    *one = (struct search_one){ x, seq };
    if (redis_send(x->p->s->redis, &c, NULL) != NULL)
        x->left++;
    else
        free(one);
}

void
share_lost(struct share_part *p)
{
    struct share *s = p->s;
    int64_t since = now_us() - s->limits.keep_ms * 1000;
    struct search *x = calloc(1, sizeof *x);

    log_warn("journal %s: partition %u is older in Redis than it was: it lost what it had taken "
        "last", s->j->path, p->n);
    if (x == NULL)
        return;
    x->p = p;
    x->left = 1;
    for (size_t i = 0; i < SHARE_TAKEN && i < s->ntaken; i++)
        if (s->taken[i].seq != 0 && journal_part(s->taken[i].seq) == p->n &&
            (s->taken[i].us >= since || p->owned))
            search_for(x, s->taken[i].seq);
    search_over(x);
}
