/*
 * The buckets that instances share: asking Redis for a portion, and what becomes of who waits.
 *
 * Model    a shared bucket is one key with the moment when it is full again, by the clock of Redis,
 *          and lives no longer than that. A script gives as many tokens as there are of those that
 *          are asked for. Of one bucket one question is under way from here, and all requests that
 *          need its answer wait for that one. When it has come they are let go on, and decide anew.
 *          Redis that does not answer is not asked for a second (nor by redis/, for as long as its
 *          breaker is open): each instance decides by its own buckets then, which have counted all
 *          along.
 * Threads  any. An ask and who waits for it: under the lock of its bucket.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/rate_limit/rate_limit.h"

#define AWAY_US 1000000

struct waiter { struct weir_ticket *ticket; struct waiter *next; };

struct ask {
    unsigned char id[BUCKET_ID];
    struct limit limit;
    uint32_t want, back;
    struct waiter *waiters;
    uint32_t nwaiters;
};

/* KEYS: the bucket. ARGV: each_us, each_us * burst, tokens wanted, tokens given back. Gives what
 * struct portion has. Times in doubles are exact: less than 2^53 microseconds. */
static const char script[] =
    "local time = redis.call('TIME')\n"
    "local now = time[1] * 1000000 + time[2]\n"
    "local each, all = tonumber(ARGV[1]), tonumber(ARGV[2])\n"
    "local full = tonumber(redis.call('GET', KEYS[1]) or 0) - ARGV[4] * each\n"
    "full = math.min(math.max(full, now), now + all)\n"
    "local n = math.min(tonumber(ARGV[3]), math.floor((now + all - full) / each))\n"
    "full = full + n * each\n"
    "local room = now + all - full\n"
    "redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX',\n"
    "    math.ceil((full - now) / 1000) + 1)\n"
    "return {n, math.floor(room / each), full - now, n == 0 and each - room or 0}\n";

static struct weir_counter *asks;
static _Atomic int64_t away_until_us;   /* it is not asked before */
static atomic_int away;                 /* 1: the last question had no answer */
static int told;                        /* main thread: that it is away */
static pthread_mutex_t why_mtx = PTHREAD_MUTEX_INITIALIZER;
static char why[100];                   /* under why_mtx: the last error reply, or "" */

void
shared_open(struct weir_self *self)
{
    asks = host->counter(self, "rate_limit_asks", "Portions of shared buckets asked of Redis.");
}

void
shared_tick(struct weir_self *self)
{
    int now = atomic_load(&away);
    char text[200];

    if (now == told)
        return;
    told = now;
    pthread_mutex_lock(&why_mtx);
    if (now == 0)
        snprintf(text, sizeof text, "Redis answers again: limits are shared");
    else
        snprintf(text, sizeof text, "Redis does not answer%s%s; each instance limits by itself",
            why[0] != '\0' ? ": " : "", why);
    pthread_mutex_unlock(&why_mtx);
    host->log(self, now == 0 ? WEIR_LOG_INFO : WEIR_LOG_WARN, text);
}

int
shared_may_ask(int64_t now_us)
{
    return now_us >= atomic_load_explicit(&away_until_us, memory_order_relaxed);
}

/* ---- who waits ------------------------------------------------------------------------------- */

struct ask *
shared_ask(struct bucket *b, const struct limit *l, int64_t now_us)
{
    struct ask *a = b->ask;

    if (a != NULL || (a = calloc(1, sizeof *a)) == NULL)
        return NULL;
    memcpy(a->id, b->id, sizeof a->id);
    a->limit = *l;
    a->want = bucket_portion(b, l, now_us, &a->back);
    b->ask = a;
    return a;
}

int
shared_wait(struct ask *a, struct weir_request *r)
{
    struct waiter *w = malloc(sizeof *w);

    if (w == NULL || (w->ticket = host->suspend(r)) == NULL) {
        free(w);
        return -1;
    }
    w->next = a->waiters;
    a->waiters = w;
    a->nwaiters++;
    return 0;
}

/* p NULL: there is no answer. The ask is over. */
static void
end(struct ask *a, const struct portion *p)
{
    int64_t now_us = clock_us();
    struct bucket *b = buckets_lock_known(buckets, a->id);
    struct waiter *w = a->waiters, *next;       /* of those to come, none finds it any more */

    if (b != NULL && b->ask == a) {
        b->ask = NULL;
        if (p != NULL)
            bucket_fill(b, p, a->nwaiters, now_us);
    }
    buckets_unlock(buckets, a->id);
    if (p == NULL)
        atomic_store(&away_until_us, now_us + AWAY_US);
    atomic_store(&away, p == NULL);
    for (; w != NULL; w = next) {
        next = w->next;
        host->resume(w->ticket);
        free(w);
    }
    free(a);
}

/* ---- Redis ----------------------------------------------------------------------------------- */

/* -1: it is no answer of the script. */
static int
portion_of(const struct weir_reply *r, const struct ask *a, struct portion *p)
{
    int64_t v[4];

    if (r->kind != WEIR_REPLY_LIST || r->n != 4)
        return -1;
    for (size_t i = 0; i < 4; i++)
        if (r->at[i]->kind != WEIR_REPLY_INTEGER || (v[i] = r->at[i]->integer) < 0 ||
            v[i] > a->limit.each_us * a->limit.burst)
            return -1;
    if (v[0] > a->want || v[1] > a->limit.burst)
        return -1;
    *p = (struct portion){ (uint32_t)v[0], (uint32_t)v[1], v[2], v[3] };
    return 0;
}

static void
on_reply(void *arg, const struct weir_reply *r)
{
    struct ask *a = arg;
    struct portion p;

    pthread_mutex_lock(&why_mtx);
    snprintf(why, sizeof why, "%s", r != NULL && r->kind == WEIR_REPLY_ERROR ? r->text.p : "");
    pthread_mutex_unlock(&why_mtx);
    end(a, r != NULL && portion_of(r, a, &p) == 0 ? &p : NULL);
}

static struct weir_text
decimal(char *to, uint64_t n)           /* room for 21 */
{
    return (struct weir_text){ to, (size_t)snprintf(to, 21, "%llu", (unsigned long long)n) };
}

void
shared_send(struct ask *a, struct weir_self *self)
{
    char key[2 * BUCKET_ID + 1], number[4][21];
    uint64_t each = (uint64_t)a->limit.each_us;
    const struct weir_text argv[] = { { "EVAL", 4 }, { script, sizeof script - 1 }, { "1", 1 },
        { key, 2 * BUCKET_ID }, decimal(number[0], each),
        decimal(number[1], each * a->limit.burst), decimal(number[2], a->want),
        decimal(number[3], a->back) };

    for (size_t i = 0; i < BUCKET_ID; i++)
        snprintf(key + 2 * i, 3, "%02x", a->id[i]);
    host->count(asks, 1);
    if (host->redis(self, argv, sizeof argv / sizeof argv[0], 3, 0, on_reply, a) == -1)
        end(a, NULL);
}
