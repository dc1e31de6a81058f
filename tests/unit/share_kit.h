/*
 * Instances that share a journal in Redis, in one process, and what they hear.
 */
#ifndef SHARE_KIT_H
#define SHARE_KIT_H

#define sum_of kit_sum_of                /* the journal has one too */
#include "redis_kit.h"
#undef sum_of
#include "write_kit.h"
#include "write/share.h"

/* ---- an instance ----------------------------------------------------------------------------- */

#define NEWS_MAX 4096

struct instance {
    struct journal *j;
    pthread_mutex_t mtx;
    pthread_cond_t  cond;
    bool     owns[JOURNAL_PARTS];
    bool     keep;                      /* does not leave partitions by itself */
    struct journal_news news[NEWS_MAX];
    unsigned nnews, nowns, changed, condemned;
};

static UNUSED void
on_owns(void *arg, unsigned part, bool on)
{
    struct instance *in = arg;

    pthread_mutex_lock(&in->mtx);
    assert_true(in->owns[part] != on);
    in->owns[part] = on;
    in->nowns += on ? 1 : -1u;
    pthread_cond_broadcast(&in->cond);
    pthread_mutex_unlock(&in->mtx);
    if (!on && !in->keep)
        journal_left(in->j, part);
}

static UNUSED void
on_came(void *arg, const struct journal_news *news, size_t n)
{
    struct instance *in = arg;

    pthread_mutex_lock(&in->mtx);
    for (size_t i = 0; i < n && in->nnews < NEWS_MAX; i++)
        in->news[in->nnews++] = news[i];
    pthread_cond_broadcast(&in->cond);
    pthread_mutex_unlock(&in->mtx);
}

static UNUSED void
on_changed(void *arg)
{
    struct instance *in = arg;

    pthread_mutex_lock(&in->mtx);
    in->changed++;
    pthread_cond_broadcast(&in->cond);
    pthread_mutex_unlock(&in->mtx);
}

static UNUSED struct share_options
options(const struct redis_conf *redis)
{
    return (struct share_options){ .redis = redis, .prefix = "t:", .timeout_ms = 5000,
        .lease_ms = 2000, .durable = WRITE_MEMORY };
}

static UNUSED void
open_with(struct instance *in, const struct share_options *o, const struct journal_limits *limits)
{
    struct journal_found found = { .owns = on_owns, .came = on_came, .changed = on_changed,
        .arg = in };
    struct err e;

    memset(in, 0, sizeof *in);
    pthread_mutex_init(&in->mtx, NULL);
    pthread_cond_init(&in->cond, NULL);
    in->j = journal_open_share(o, limits, &found, &e);
    if (in->j == NULL)
        fail_msg("%s", e.text);
}

static UNUSED void
open_at(struct instance *in, uint16_t port)
{
    struct redis_server at = { "127.0.0.1", port };
    struct redis_conf redis = { .servers = &at, .nservers = 1, .connect_ms = 2000 };
    struct share_options o = options(&redis);

    open_with(in, &o, &kit_limits);
}

/* Until cond, with in->mtx. */
#define AWAIT(in, condition) do { \
        struct timespec until_; \
        clock_gettime(CLOCK_REALTIME, &until_); \
        until_.tv_sec += LONG_MS / 1000; \
        pthread_mutex_lock(&(in)->mtx); \
        while (!(condition)) \
            if (pthread_cond_timedwait(&(in)->cond, &(in)->mtx, &until_) == ETIMEDOUT) \
                fail_msg("never: %s", #condition); \
        pthread_mutex_unlock(&(in)->mtx); \
    } while (0)

static UNUSED unsigned
came(struct instance *in, uint64_t seq, unsigned from, enum write_state state)
{
    unsigned n = 0;

    for (unsigned i = 0; i < in->nnews; i++)
        n += in->news[i].row.seq == seq && in->news[i].from == from &&
            in->news[i].row.state == state;
    return n;
}

static UNUSED void
await_all_owned(struct instance *in)
{
    AWAIT(in, in->nowns == JOURNAL_PARTS);
}

static UNUSED struct journal_op
a_write(unsigned part, uint64_t c1, const char *body)
{
    struct journal_op op = kit_write(c1, slice_of(body));

    op.part = part;
    return op;
}

static UNUSED uint64_t
accept_at(struct instance *in, unsigned part, uint64_t c1, const char *body)
{
    struct journal_op op = a_write(part, c1, body);

    op.row.route = journal_route(in->j, SLICE("/things"));
    if (kit_do(in->j, &op) != JOURNAL_DONE)
        fail_msg("%d: %s", (int)op.result, op.why);
    assert_int_equal(journal_part(op.row.seq), part);
    return op.row.seq;
}

static UNUSED struct journal_op
update_of(uint64_t seq, enum write_state state, unsigned attempts)
{
    return (struct journal_op){ .kind = JOURNAL_UPDATE, .row = { .seq = seq, .state = state,
        .attempts = attempts, .status = 200 }, .keep_answer = true,
        .content = { .cause = SLICE("so"), .answer_head = SLICE("H: 1\r\n"),
            .answer_body = SLICE("ok") } };
}

static UNUSED enum journal_result
set_state(struct instance *in, uint64_t seq, enum write_state state, unsigned attempts)
{
    struct journal_op op = update_of(seq, state, attempts);

    return kit_do(in->j, &op);
}

static UNUSED enum journal_result
by_verb(struct instance *in, uint64_t seq, enum write_state was, unsigned was_attempts,
    enum write_state state)
{
    struct journal_op op = update_of(seq, state, 0);

    op.by_verb = true;
    op.was = was;
    op.was_attempts = was_attempts;
    return kit_do(in->j, &op);
}

#endif
