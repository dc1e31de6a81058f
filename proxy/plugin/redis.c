/*
 * Plugins' commands to the Redis that instances share.
 *
 * Model    redis/ takes commands on the threads of its loops alone. One that a hook sends goes out
 *          there and then; one of any other thread is posted to the first loop. Those under way
 *          stand in a list, so that each ends by one call, whatever becomes of Weir: by its reply,
 *          or by plugin_redis_end.
 * Threads  redis_ask: any. The list: under mtx, which is not held while plugins are called or Redis
 *          is. The rest is written while no loop runs.
 */
#include "plugin/inside.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "redis/redis.h"

struct ask {
    struct loop_msg msg;                /* of one that is posted */
    TAILQ_ENTRY(ask) at;                /* of `asks`, under mtx */
    weir_replied *replied;
    void *arg;
    int64_t until_us;
    struct slice key;
    size_t argc;
    struct slice argv[];                /* what they say stands behind them */
};

static struct {
    pthread_mutex_t mtx;
    bool configured;                    /* who loads configurations */
    struct plugin_redis to;             /* under mtx from here; .redis NULL: not, or no more */
    char *prefix;                       /* owned */
    TAILQ_HEAD(, ask) asks;
} all = { .mtx = PTHREAD_MUTEX_INITIALIZER, .asks = TAILQ_HEAD_INITIALIZER(all.asks) };

/* ---- replies --------------------------------------------------------------------------------- */

/* NULL: memory is out. */
static struct weir_reply *
reply_of(const struct redis_reply *r, struct pool *p)
{
    static const enum weir_reply_kind kinds[] = { [REPLY_NIL] = WEIR_REPLY_NIL,
        [REPLY_STRING] = WEIR_REPLY_TEXT, [REPLY_STATUS] = WEIR_REPLY_TEXT,
        [REPLY_ERROR] = WEIR_REPLY_ERROR, [REPLY_INTEGER] = WEIR_REPLY_INTEGER,
        [REPLY_ARRAY] = WEIR_REPLY_LIST };
    struct weir_reply *out = pool_zalloc(p, sizeof *out);
    const struct weir_reply **at = r->n > 0 ? pool_alloc(p, r->n * sizeof *at) : NULL;

    if (out == NULL || (r->n > 0 && at == NULL))
        return NULL;
    *out = (struct weir_reply){ .kind = kinds[r->type], .integer = r->integer,
        .text = { r->text.p, r->text.n }, .at = at, .n = r->n };
    for (size_t i = 0; i < r->n; i++)
        if ((at[i] = reply_of(r->at[i], p)) == NULL)
            return NULL;
    return out;
}

static void
take_out(struct ask *a)
{
    pthread_mutex_lock(&all.mtx);
    TAILQ_REMOVE(&all.asks, a, at);
    pthread_mutex_unlock(&all.mtx);
}

static void
on_reply(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct ask *a = arg;
    struct pool *p = r != NULL ? pool_new() : NULL;
    struct weir_reply *reply = p != NULL ? reply_of(r, p) : NULL;

    (void)cause;                        /* of an error reply, the text says it too */
    take_out(a);
    if (a->replied != NULL)
        a->replied(a->arg, reply);
    pool_free(&p);
    free(a);
}

/* ---- commands -------------------------------------------------------------------------------- */

/* With the key as Redis knows it. NULL: memory is out. */
static struct ask *
ask_new(const struct plugin *p, const struct weir_text *argv, size_t argc, size_t key)
{
    const struct slice front[] = { slice_of(all.prefix), SLICE("p:"),
        slice_of(p->library->table->name), SLICE(":") };
    size_t n = argc * sizeof(struct slice);
    struct ask *a;
    char *to;

    for (size_t i = 0; i < argc; i++)
        n += argv[i].n;
    for (size_t i = 0; i < NELEM(front); i++)
        n += front[i].n;
    a = malloc(sizeof *a + n);
    if (a == NULL)
        return NULL;
    *a = (struct ask){ .argc = argc };
    to = (char *)&a->argv[argc];
    for (size_t i = 0; i < argc; i++) {
        a->argv[i].p = to;
        for (size_t k = 0; i == key && key > 0 && k < NELEM(front); k++)
            to = (char *)memcpy(to, front[k].p, front[k].n) + front[k].n;
        if (argv[i].n > 0)
            to = (char *)memcpy(to, argv[i].p, argv[i].n) + argv[i].n;
        a->argv[i].n = (size_t)(to - a->argv[i].p);
    }
    a->key = key > 0 ? a->argv[key] : SLICE("");
    return a;
}

/* On a loop of `to`. */
static bool
send_it(struct ask *a, struct redis *to)
{
    int64_t left_us = a->until_us - now_us();
    const struct redis_command c = { .argv = a->argv, .argc = a->argc, .key = a->key,
        .within_us = left_us, .done = on_reply, .arg = a };

    return left_us > 0 && redis_send(to, &c, NULL) != NULL;
}

static void
on_posted(struct loop_msg *m)
{
    struct ask *a = CONTAINER(m, struct ask, msg);

    if (!send_it(a, all.to.redis))      /* is there as long as loops run */
        on_reply(a, REDIS_OPEN, NULL);
}

static bool
runs_here(void)
{
    struct loop *here = loop_current();
    size_t i = 0;

    while (i < all.to.nloops && all.to.loops[i] != here)
        i++;
    return i < all.to.nloops;
}

int
redis_ask(struct plugin *p, const struct weir_text *argv, size_t argc, size_t key, int64_t ms,
    weir_replied *replied, void *arg)
{
    struct ask *a = NULL;
    bool here = false;

    if (argc == 0)
        return p->has_redis ? 0 : -1;
    if (key >= argc || ms < 0 || ms > INT32_MAX)
        return -1;
    pthread_mutex_lock(&all.mtx);
    if (all.to.redis != NULL && (a = ask_new(p, argv, argc, key)) != NULL) {
        a->replied = replied;
        a->arg = arg;
        a->until_us = now_us() + (ms > 0 ? ms : all.to.timeout_ms) * 1000;
        TAILQ_INSERT_TAIL(&all.asks, a, at);
        here = runs_here();
        if (!here) {
            a->msg.run = on_posted;
            loop_post(all.to.loops[0], &a->msg);
        }
    }
    pthread_mutex_unlock(&all.mtx);
    if (a == NULL)
        return -1;
    if (!here || send_it(a, all.to.redis))
        return 0;                       /* elsewhere it may be over by now */
    take_out(a);
    free(a);
    return -1;
}

/* ---- coming and going ------------------------------------------------------------------------ */

void
plugin_redis_configured(bool yes)
{
    all.configured = yes;
}

bool
redis_is_configured(void)
{
    return all.configured;
}

void
plugin_redis_begin(const struct plugin_redis *r)
{
    char *prefix = r->redis != NULL ? strdup(r->prefix) : NULL;

    assert(all.to.redis == NULL && TAILQ_EMPTY(&all.asks));
    if (prefix == NULL)
        return;
    pthread_mutex_lock(&all.mtx);
    all.to = *r;
    all.to.prefix = all.prefix = prefix;
    pthread_mutex_unlock(&all.mtx);
}

void
plugin_redis_end(void)
{
    TAILQ_HEAD(, ask) asks = TAILQ_HEAD_INITIALIZER(asks);
    struct ask *a;

    pthread_mutex_lock(&all.mtx);
    TAILQ_CONCAT(&asks, &all.asks, at);
    all.to.redis = NULL;
    free(all.prefix);
    all.prefix = NULL;
    pthread_mutex_unlock(&all.mtx);
    while ((a = TAILQ_FIRST(&asks)) != NULL) {
        TAILQ_REMOVE(&asks, a, at);
        if (a->replied != NULL)
            a->replied(a->arg, NULL);
        free(a);
    }
}
