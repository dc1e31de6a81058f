/*
 * Leases: what no instance has is fetched by one of them.
 *
 * Model    a lease is a key in Redis that ends by itself. Who has it fetches; when what came is
 *          put, or is known not to be, the lease is removed, if it still is this one, and that is
 *          published on the one channel of the prefix: "+ID" when there is something to be read
 *          now, "-ID" when there is not. A process listens once, on its first loop, which passes
 *          it on to those that wait. Whether another value came is looked at in the same step in
 *          which the lease is taken, so no fetch begins behind one that has just ended. A holder
 *          that dies costs what is left of its lease.
 * Threads  tier_release, rtier_lease_*: loops of the tier's. rtier_listen: the first one.
 */
#include "tier/redis.h"

#include <stdio.h>
#include <stdlib.h>

#include "stats/stats.h"

struct tier_lease {
    struct tier_lease *next;            /* under the tier's mtx */
    struct rtier      *tier;            /* borrowed */
    struct rtier_id    id;
    struct rtier_token token;
    bool               taken;           /* under the tier's mtx: its put ends it */
};

_Static_assert(RTIER_SEEN == 16, "the script has its last byte");
static const char ask_script[] =
    "if redis.call('GETRANGE', KEYS[2], 0, 15) ~= ARGV[3] then return -1 end "
    "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end "
    "return math.max(redis.call('PTTL', KEYS[1]), 1)";
static const char end_script[] =
    "local own = redis.call('GET', KEYS[1]) == ARGV[1] "
    "if own then redis.call('DEL', KEYS[1]) end "
    "if own or string.sub(ARGV[3], 1, 1) == '+' then redis.call('PUBLISH', ARGV[2], ARGV[3]) end "
    "return 0";

#define CHANNEL_MAX (RTIER_PREFIX_MAX + 8)
static struct slice
channel(struct rtier *r, char out[CHANNEL_MAX])
{
    int n = snprintf(out, CHANNEL_MAX, "%.*sleases", SLICE_ARG(r->prefix));

    return (struct slice){ out, (size_t)n };
}

/* ---- taking and ending ---------------------------------------------------------------------- */

static void
make_token(struct rtier_token *t)
{
    unsigned char bytes[RTIER_TOKEN / 2];

    random_bytes(bytes, sizeof bytes);
    put_hex_bytes(t->text, bytes, sizeof bytes);
}

struct redis_ask *
rtier_lease_ask(struct rtier *r, const struct rtier_id *id, struct slice seen,
    struct rtier_token *token,
    void (*done)(void *arg, enum redis_cause, const struct redis_reply *), void *arg)
{
    struct rtier_name lease, value;
    char ms[20];
    const struct slice argv[] = { SLICE("EVAL"), { ask_script, sizeof ask_script - 1 }, SLICE("2"),
        rtier_name(r->prefix, RTIER_LEASE, id, &lease),
        rtier_name(r->prefix, RTIER_VALUE, id, &value), { token->text, RTIER_TOKEN },
        { ms, put_u64(ms, (uint64_t)RTIER_LEASE_MS) }, seen };

    make_token(token);
    return rtier_send(r, argv, NELEM(argv), argv[3], r->timeout_us, done, arg);
}

void
rtier_lease_end(struct rtier *r, const struct rtier_id *id, const struct rtier_token *token,
    bool stored)
{
    struct rtier_name lease;
    char name[CHANNEL_MAX], said[RTIER_ID_MAX + 1];
    const struct slice argv[] = { SLICE("EVAL"), { end_script, sizeof end_script - 1 }, SLICE("1"),
        rtier_name(r->prefix, RTIER_LEASE, id, &lease), { token->text, RTIER_TOKEN },
        channel(r, name), { said, id->n + 1 } };

    said[0] = stored ? '+' : '-';
    memcpy(said + 1, id->text, id->n);
    (void)rtier_send(r, argv, NELEM(argv), argv[3], 0, NULL, NULL);
}

/* ---- those that are held -------------------------------------------------------------------- */

struct tier_lease *
rtier_lease_new(struct rtier *r, const struct rtier_id *id, const struct rtier_token *token)
{
    struct tier_lease *l = malloc(sizeof *l);

    if (l == NULL)
        return NULL;
    *l = (struct tier_lease){ .tier = r, .id = *id, .token = *token };
    pthread_mutex_lock(&r->mtx);
    l->next = r->leases;
    r->leases = l;
    pthread_mutex_unlock(&r->mtx);
    return l;
}

/* Under mtx. */
static struct tier_lease *
held(struct rtier *r, const struct rtier_id *id)
{
    struct tier_lease *l = r->leases;

    while (l != NULL && !rtier_id_eq(&l->id, (struct slice){ id->text, id->n }))
        l = l->next;
    return l;
}

bool
rtier_lease_held(struct rtier *r, const struct rtier_id *id)
{
    bool is;

    pthread_mutex_lock(&r->mtx);
    is = held(r, id) != NULL;
    pthread_mutex_unlock(&r->mtx);
    return is;
}

bool
rtier_lease_take(struct rtier *r, const struct rtier_id *id, struct rtier_token *token)
{
    struct tier_lease *l;
    bool was = true;

    pthread_mutex_lock(&r->mtx);
    if ((l = held(r, id)) != NULL) {
        was = l->taken;
        l->taken = true;
        *token = l->token;
    }
    pthread_mutex_unlock(&r->mtx);
    return !was;
}

void
tier_release(struct tier_lease **lp)
{
    struct tier_lease *l = *lp, **at;
    struct rtier *r;

    *lp = NULL;
    if (l == NULL)
        return;
    r = l->tier;
    pthread_mutex_lock(&r->mtx);
    for (at = &r->leases; *at != l;)
        at = &(*at)->next;
    *at = l->next;
    pthread_mutex_unlock(&r->mtx);
    if (!l->taken && rtier_side_of(r, loop_current()) != NULL)
        rtier_lease_end(r, &l->id, &l->token, false);
    free(l);
}

/* ---- hearing -------------------------------------------------------------------------------- */

struct heard_msg {
    struct loop_msg    msg;
    struct rtier_side *side;
    size_t             n;
    char               text[RTIER_ID_MAX + 1];
};

static void
hear(struct rtier_side *side, struct slice said)
{
    if (said.n < 2)
        rtier_heard_nothing(side);
    else
        rtier_heard(side, (struct slice){ said.p + 1, said.n - 1 }, said.p[0] == '+');
}

static void
on_heard(struct loop_msg *m)
{
    struct heard_msg *h = CONTAINER(m, struct heard_msg, msg);

    hear(h->side, (struct slice){ h->text, h->n });
    free(h);
}

/* A loop that is not told, because memory is out, waits as long as the lease. */
static void
pass_on(struct rtier *r, struct slice said)
{
    for (size_t i = 0; i < r->nsides; i++) {
        struct heard_msg *h;

        if (atomic_load(&r->sides[i].waiting) == 0)
            continue;
        if (i == 0) {
            hear(&r->sides[i], said);
        } else if ((h = calloc(1, sizeof *h)) != NULL) {
            h->msg.run = on_heard;
            h->side = &r->sides[i];
            h->n = said.n;
            memcpy(h->text, said.p, said.n);
            loop_post(r->sides[i].loop, &h->msg);
        }
    }
}

static void
on_message(void *arg, struct slice payload)
{
    if (payload.n >= 2 && payload.n <= RTIER_ID_MAX + 1)
        pass_on(arg, payload);
}

static void
on_gap(void *arg)
{
    pass_on(arg, SLICE(""));
}

void
rtier_listen(struct rtier *r)
{
    char name[CHANNEL_MAX];

    r->sub = redis_subscribe(r->redis, channel(r, name), on_message, on_gap, r);
}
