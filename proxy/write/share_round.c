/*
 * Rounds: who lives, what there is, what is renewed.
 *
 * Model    a round, each second and when somebody gave a partition back:
 *            1. this instance is entered among the live ones, with the server's clock; who they
 *               are, what is paused and the secret are read;
 *            2. each partition is looked at: whose it is, how much it holds, and if it is ours its
 *               lease is renewed, by the same script;
 *            3. the partitions are shared out (share_own.c), and what is settled is let go.
 * Failure  a round that fails says why nothing is taken, and the next one tries again. Of a cluster
 *          the masters that are there are asked all the same.
 * Threads  the journal's.
 */
#include "write/share.h"

#include <stdio.h>
#include <stdlib.h>

#define ROUND_US   ((int64_t)1000000)
#define PRUNE_US   ((int64_t)5000000)
#define PRUNE_ROWS 256

/* ---- what is let go -------------------------------------------------------------------------- */

static void
on_pruned(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_part *p = arg;
    bool more = cause == REDIS_OK && reply_code(r) == JOURNAL_DONE &&
        (reply_u64(r, 1) == PRUNE_ROWS || reply_u64(r, 2) == PRUNE_ROWS);

    if (more || share_unknown(p, cause, r))
        p->prune_us = 0;
}

/* Settled writes when journal.keep has passed, the longest settled first before that where space is
 * wanted; keys whose time is out. */
static void
prune(struct share_part *p)
{
    struct share *s = p->s;
    bool tight = s->sum.bytes > (uint64_t)s->limits.size / 10 * 9;
    struct share_args g = { .n = 0 };
    int64_t before = tight ? INT64_MAX / 1024 : wall_ms() - s->limits.keep_ms;

    if (p->state != PART_OURS || (now_us() < p->prune_us && !tight))
        return;
    p->prune_us = now_us() + PRUNE_US;
    args_addu(&g, before > 0 ? (uint64_t)before : 0);
    args_addu(&g, PRUNE_ROWS);
    share_script(s, p, LUA_PRUNE, &g, round_us(s), on_pruned, p, NULL);
}

/* ---- the end of a round ---------------------------------------------------------------------- */

static void
next_round(struct share *s)
{
    int64_t third = s->o.lease_ms * 1000 / 4;

    s->round.running = false;
    if (!s->tried) {
        s->tried = true;
        share_pump(s);
    }
    if (s->round.again) {
        s->round.again = false;
        share_round(s);
    } else if (!s->closing) {
        timer_set(&s->tick, third < ROUND_US ? third : ROUND_US);
    }
}

void
share_round_failed(struct share *s, enum redis_cause cause, const struct redis_reply *r)
{
    if (cause == REDIS_OTHER || cause == REDIS_TYPE)
        share_log(s, cause, r);
    s->check_us = 0;
    share_takes(s, share_why(cause));
    share_publish(s);
    next_round(s);
}

static void
add_up(struct share *s)
{
    struct journal_figures sum = { 0 };

    s->key_bytes = 0;
    for (unsigned i = 0; i < JOURNAL_PARTS; i++) {
        const struct share_part *p = &s->parts[i];

        sum.pending += p->pending;
        sum.dead += p->dead;
        sum.bytes += p->bytes;
        s->key_bytes += p->key_bytes;
        if (p->oldest_ms != 0 &&
            (sum.oldest_ms == 0 || (uint64_t)p->oldest_ms < sum.oldest_ms))
            sum.oldest_ms = (uint64_t)p->oldest_ms;
    }
    s->sum = sum;
    s->added -= s->round.added;
    s->added_bytes -= s->round.added_bytes;
}

static void
round_ended(struct share *s)
{
    if (s->closing)
        return;
    if (s->round.answers > 0) {
        add_up(s);
        share_balance(s);
        for (unsigned i = 0; i < JOURNAL_PARTS; i++)
            news_look(&s->parts[i]);
        for (unsigned i = 0; i < JOURNAL_PARTS; i++) {
            share_release(&s->parts[i]);
            prune(&s->parts[i]);
        }
        share_forget_orphans(s);
    }
    if (s->round.cause != REDIS_OK) {
        share_round_failed(s, s->round.cause, NULL);
        return;
    }
    s->looked = true;
    s->barred = s->round.foreign ? "the journal in Redis has the format of another version, or "
        "is being moved (weir writes move)" :
        s->unfit;
    share_takes(s, s->barred);
    share_publish(s);
    next_round(s);
}

/* ---- 2: each partition ----------------------------------------------------------------------- */

static int64_t
accepted_ms(struct share_part *p, const struct redis_reply *r)
{
    struct write_row row;

    return row_unpack(p->s->j, 0, reply_text(r, 10), reply_text(r, 11), (struct slice){ NULL, 0 },
        &row) ? row.accepted_ms : 0;
}

static void
look_at(struct share_part *p, const struct redis_reply *r)
{
    struct slice owner = reply_text(r, 1), version = reply_text(r, 2);
    uint64_t counter = reply_u64(r, 3);
    bool held = p->owned || (p->state == PART_LEAVING && p->kept);

    if (!slice_eq(version, SLICE("1"))) {
        p->s->round.foreign = true;
        return;
    }
    snprintf(p->owner, sizeof p->owner, "%.*s", SLICE_ARG(owner));
    if (slice_eq(reply_text(r, 9), SLICE("1")))
        share_lost(p);
    if (counter > p->counter)
        p->counter = counter;
    p->bytes = reply_u64(r, 4);
    p->key_bytes = reply_u64(r, 5);
    p->pending = reply_u64(r, 6);
    p->dead = reply_u64(r, 7);
    stream_id_read(reply_text(r, 8), &p->last);
    p->oldest_ms = accepted_ms(p, r);
    if (held && strcmp(p->owner, p->s->name) == 0)
        share_renewed(p);
    else if (held)
        part_lose(p);
}

static void
on_look(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_part *p = arg;
    struct share *s = p->s;

    if (share_unknown(p, cause, r)) {
        s->round.again = true;
    } else if (cause == REDIS_OK && reply_code(r) == JOURNAL_DONE && !s->closing) {
        s->round.answers++;
        look_at(p, r);
    } else if (!s->closing) {
        s->round.cause = cause != REDIS_OK ? cause : REDIS_PROTOCOL;
    }
    if (--s->round.left == 0)
        round_ended(s);
}

/* A partition that is asked for has its lease from that. */
static void
look(struct share_part *p)
{
    struct share *s = p->s;
    struct share_args g = { .n = 0 };
    bool held = p->owned || (p->state == PART_LEAVING && p->kept);
    enum redis_cause cause;

    args_add(&g, slice_of(s->name));
    args_addu(&g, (uint64_t)s->o.lease_ms);
    args_add(&g, held ? SLICE("1") : SLICE("0"));
    args_addu(&g, p->counter);
    if (held)
        p->asked_us = now_us();
    s->round.left++;
    if (!share_script(s, p, LUA_LOOK, &g, round_us(s), on_look, p, &cause)) {
        s->round.cause = cause;
        s->round.left--;
    }
}

/* ---- 1: the fleet ---------------------------------------------------------------------------- */

static void
know_secret(struct share *s, struct slice secret)
{
    const uint8_t *known = atomic_load(&s->secret);
    struct share_secret *k;

    if (secret.n != JOURNAL_SECRET ||
        (known != NULL && memcmp(known, secret.p, secret.n) == 0))
        return;
    k = malloc(sizeof *k);
    if (k == NULL)
        return;
    if (known != NULL)
        log_warn("journal %s: Redis has another secret now: ids of writes from before are unknown",
            s->j->path);
    memcpy(k->bytes, secret.p, sizeof k->bytes);
    k->next = s->secrets;               /* who had the former may be reading it */
    s->secrets = k;
    atomic_store(&s->secret, k->bytes);
}

static void
know_live(struct share *s, const struct redis_reply *r)
{
    if (r->n > s->live_cap) {
        char (*grown)[SHARE_NAME] = realloc(s->live, r->n * sizeof *grown);

        if (grown == NULL)
            return;
        s->live = grown;
        s->live_cap = r->n;
    }
    s->nlive = 0;
    for (size_t i = 0; i < r->n; i++)
        snprintf(s->live[s->nlive++], SHARE_NAME, "%.*s", SLICE_ARG(reply_text(r, i)));
}

static void
know_paused(struct share *s, const struct redis_reply *r)
{
    struct slice names[256];
    size_t n = 0;

    for (size_t i = 0; i < r->n && n < NELEM(names); i++)
        names[n++] = reply_text(r, i);
    if (journal_paused_are(s->j, names, n) && s->found.changed != NULL)
        s->found.changed(s->found.arg);
}

static void
look_at_all(struct share *s)
{
    s->round.left = 1;
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        look(&s->parts[i]);
    if (--s->round.left == 0)
        round_ended(s);
}

/* Of a cluster other masters may be there: their partitions are renewed, and who lives is who did.
 * At the start it must be known. */
static void
beat_failed(struct share *s, enum redis_cause cause, const struct redis_reply *r)
{
    if (!s->looked || redis_slots(s->redis) == 1) {
        share_round_failed(s, cause, r);
        return;
    }
    s->round.cause = cause;
    look_at_all(s);
}

static void
on_beat(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share *s = arg;

    if (share_unknown(&s->parts[SHARE_FLEET], cause, r)) {
        s->round.again = true;
        next_round(s);
        return;
    }
    if (s->closing) {
        next_round(s);
        return;
    }
    if (cause != REDIS_OK || reply_code(r) != JOURNAL_DONE || r->n != 4 ||
        r->at[2]->type != REPLY_ARRAY || r->at[3]->type != REPLY_ARRAY) {
        beat_failed(s, cause != REDIS_OK ? cause : REDIS_PROTOCOL, r);
        return;
    }
    know_secret(s, reply_text(r, 1));
    know_live(s, r->at[2]);
    know_paused(s, r->at[3]);
    look_at_all(s);
}

void
share_round(struct share *s)
{
    if (s->closing)
        return;
    if (s->round.running) {
        s->round.again = true;
        return;
    }
    s->round = (struct share_round){ .running = true, .added = s->added,
        .added_bytes = s->added_bytes };
    if (now_us() >= s->check_us)
        share_check(s);
    else
        share_beat(s);
}

void
share_beat(struct share *s)
{
    const uint8_t *secret = atomic_load(&s->secret);
    char leaves[SHARE_NAME + 1];
    struct share_args g = { .n = 0 };
    enum redis_cause cause;

    if (s->closing)
        return;
    args_add(&g, slice_of(s->name));
    args_addu(&g, (uint64_t)s->o.lease_ms);
    args_add(&g, (struct slice){ (const char *)(secret != NULL ? secret : s->candidate),
        JOURNAL_SECRET });
    snprintf(leaves, sizeof leaves, "!%s", s->name);
    args_add(&g, atomic_load(&s->leaving) ? slice_of(leaves) : SLICE(""));
    if (!share_script(s, &s->parts[SHARE_FLEET], LUA_BEAT, &g, round_us(s), on_beat, s, &cause))
        beat_failed(s, cause, NULL);
}
