/*
 * The purge bus: what is purged at one instance is purged at all.
 *
 * Model    the store tells of each purge, in order, before it counts (store_on_purge). Those that
 *          were made here are queued and become entries of the stream PREFIXpurges (XADD), which
 *          every instance reads (XREAD BLOCK, on a connection of its own) and applies with
 *          store_purge, in the stream's order. Applied ones are told as well: they are known by
 *          `applying`, and are not sent again. An own entry that is read is not applied again (what
 *          a write-through stored since would go), it only fixes where it stands.
 *          All that is read was applied before others are told so, which is at once (lease_say),
 *          unless bytes are to go first (bus_erase.c).
 * Kept     entries live KEEP_MS and longer, unless there are a million of them: an instance that
 *          starts reads them all, so that it knows of purges which values that it finds elsewhere
 *          may have missed; one that was away for less catches up exactly.
 * Threads  a loop and a thread of its own: neither a reload nor the admin port holds up a purge.
 *          The listener runs on any thread.
 * Not here the lease and what follows from it (bus_lease.c), who has applied what (bus_ask.c).
 */
#include "purge/bus.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "config/conf.h"

#define WINDOW         128u             /* own entries under way at once */
#define WAITING_MAX    65536u           /* purges that wait; more become one of everything */
#define WAITING_BYTES  (16u << 20)
#define KEEP_MS        3600000u         /* of an entry, at least */
#define READ_COUNT     "512"
#define SEND_RETRY_US  (100 * MS_US)
#define OPEN_WAIT_US   SECOND_US
#define CLOSE_WAIT_US  (200 * MS_US)

/* ---- sending --------------------------------------------------------------------------------- */

struct redis_ask *
bus_send(struct bus *b, const struct slice *argv, size_t argc, int64_t within_us,
    void (*done)(void *arg, enum redis_cause cause, const struct redis_reply *r), void *arg)
{
    struct redis_command c = { .argv = argv, .argc = argc, .within_us = within_us, .done = done,
        .arg = arg, .key = argc > 1 ? argv[1] : SLICE("") };

    if (argc > 3 && slice_eq(argv[0], SLICE("EVAL")))
        c.key = argv[3];
    return redis_send(b->redis, &c, NULL);
}

/* Not moved by what comes meanwhile: what waits is kept then as well (waiting_put). */
static void
pump_later(struct bus *b)
{
    if (!b->pumps_later && timer_set(&b->send_timer, SEND_RETRY_US) == -1)
        COUNT(memory_failures);         /* the next purge or round sends them */
    else
        b->pumps_later = true;
}

static void
on_added(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct own *o = arg;
    struct bus *b = o->bus;
    struct store_position at;
    bool added = cause == REDIS_OK && bus_id_read(r->text, &at) == 0;

    b->in_flight--;
    queue_sent(&b->queue, o, added ? &at : NULL, b->at);
    if (added) {
        COUNT(bus_sent);
        waiting_forget(b);
        asks_look(b);
        bus_pump(b);
    } else {
        pump_later(b);
    }
}

/* Entries that are older than the youngest known by KEEP_MS may go; by the server's clock, which is
 * in their ids. */
static bool
send_one(struct bus *b, struct own *o)
{
    struct bus_entry e = { .from = slice_of(b->id), .seq = o->last, .purge = o->purge };
    struct slice argv[6 + BUS_ENTRY_FIELDS] = { SLICE("XADD"), slice_of(b->stream) };
    struct bus_words words;
    char oldest[24];
    size_t n = 2;

    o->bus = b;
    if (b->at.ms > KEEP_MS) {
        argv[n++] = SLICE("MINID");
        argv[n++] = SLICE("~");
        argv[n++] = (struct slice){ oldest, put_u64(oldest, b->at.ms - KEEP_MS) };
    }
    argv[n++] = SLICE("*");
    n += bus_entry_put(&e, &words, argv + n);
    if (bus_send(b, argv, n, BUS_WAIT_US, on_added, o) == NULL)
        return false;
    b->in_flight++;
    return true;
}

void
bus_pump(struct bus *b)
{
    struct own *o;

    while (b->in_flight < WINDOW && (o = queue_next(&b->queue)) != NULL)
        if (!send_one(b, o)) {
            queue_sent(&b->queue, o, NULL, b->at);
            pump_later(b);
            return;
        }
}

static void
on_send_timer(void *arg)
{
    struct bus *b = arg;

    b->pumps_later = false;
    if (now_us() >= b->keep_us)
        (void)waiting_put(b);
    bus_pump(b);
}

static void
run_kick(struct loop_msg *m)
{
    struct bus *b = CONTAINER(m, struct bus, kick);

    atomic_store(&b->kicked, false);
    bus_pump(b);
}

/* The store's listener: any thread, under its purge_lock. */
static void
on_purge(void *arg, const struct store_purge *p, uint64_t seq)
{
    struct bus *b = arg;

    if (loop_current() == b->loop && b->applying != APPLY_NOTHING) {
        if (b->applying == APPLY_ENTRY)
            store_position_add(b->store, seq, seq, b->applying_at);
        return;
    }
    queue_add(&b->queue, p, seq);
    if (!atomic_exchange(&b->kicked, true))
        loop_post(b->loop, &b->kick);
}

/* ---- applying -------------------------------------------------------------------------------- */

static void
purge_as(struct bus *b, enum applying as, const struct store_purge *p)
{
    struct store_purged done;

    b->applying = as;
    (void)store_purge(b->store, p, &done);      /* memory out: everything was purged */
    b->applying = APPLY_NOTHING;
}

void
bus_purge_here(struct bus *b, const struct store_purge *p)
{
    purge_as(b, APPLY_HERE, p);
}

static void
apply(struct bus *b, struct store_position at, const struct redis_reply *fields)
{
    static struct log_limit limit;
    struct bus_entry e;

    b->applying_at = at;
    if (bus_entry_read(fields, &e) == -1) {
        COUNT(bus_unknown);
        log_limited(&limit, LOG_WARN, "purge bus: an entry is not understood, so everything is "
            "purged: does another version of weir use this prefix?");
        purge_as(b, APPLY_ENTRY, &(struct store_purge){ .kind = STORE_PURGE_ALL });
    } else if (slice_eq(e.from, slice_of(b->id))) {
        queue_echo(&b->queue, e.seq, at);
    } else {
        COUNT(bus_applied);
        if (e.purge.erase)
            bus_erase_want(b);
        purge_as(b, APPLY_ENTRY, &e.purge);
    }
    b->at = at;
    b->count++;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* [[stream, [[id, [name, value, ...]], ...]]] */
static bool
read_entries(struct bus *b, const struct redis_reply *r)
{
    const struct redis_reply *entries;

    if (r->type == REPLY_NIL)           /* nothing new while it blocked */
        return true;
    if (r->type != REPLY_ARRAY || r->n != 1 || r->at[0]->type != REPLY_ARRAY || r->at[0]->n != 2)
        return false;
    entries = r->at[0]->at[1];
    for (size_t i = 0; entries->type == REPLY_ARRAY && i < entries->n; i++) {
        const struct redis_reply *e = entries->at[i];
        struct store_position at;

        if (e->type != REPLY_ARRAY || e->n != 2 || bus_id_read(e->at[0]->text, &at) == -1 ||
            store_position_cmp(at, b->at) <= 0)
            return false;
        apply(b, at, e->at[1]);
    }
    return entries->type == REPLY_ARRAY;
}

static void
on_read(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct bus *b = arg;

    b->read = NULL;
    if (cause != REDIS_OK || !read_entries(b, r)) {
        lease_reader_failed(b);
        return;
    }
    b->deaf = false;
    bus_read_on(b);
    if (r->type != REPLY_NIL) {
        lease_say(b);
        saved_put(b);
        asks_look(b);
        bus_show(b);
        bus_pump(b);                    /* own ones that were read have made room */
    }
    lease_read(b);
}

void
bus_read_on(struct bus *b)
{
    int64_t third_ms = b->lease_us / 3 / 1000, block_ms = b->deaf ? 1 : third_ms < 1000 ? third_ms :
        1000;                           /* deaf: a round waits for the answer */
    char from[BUS_ID_MAX], block[24];
    struct slice argv[] = { SLICE("XREAD"), SLICE("COUNT"), SLICE(READ_COUNT), SLICE("BLOCK"),
        { block, put_u64(block, (uint64_t)block_ms) }, SLICE("STREAMS"), slice_of(b->stream),
        bus_id_put(b->at, from) };
    struct redis_command c = { .argv = argv, .argc = NELEM(argv), .key = slice_of(b->stream),
        .within_us = block_ms * MS_US + SECOND_US, .alone = true, .done = on_read, .arg = b };

    if (b->read != NULL || !b->begun || b->suspect)
        return;
    b->read = redis_send(b->redis, &c, NULL);
    if (b->read == NULL)
        lease_reader_failed(b);
}

void
bus_read_stop(struct bus *b)
{
    redis_cancel(&b->read);
}

/* ---- figures --------------------------------------------------------------------------------- */

void
bus_show(struct bus *b)
{
    uint64_t added = b->round.seen.added;

    pthread_mutex_lock(&b->mtx);
    b->shown.held = b->held_until_us != 0;
    b->shown.tried = b->shown.tried || b->shown.held;
    b->shown.at = b->at;
    b->shown.lag = added > b->count ? added - b->count : 0;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mtx);
}

static void
figures_json(struct buf *out, void *arg)
{
    struct bus *b = arg;
    char at[BUS_ID_MAX];

    pthread_mutex_lock(&b->mtx);
    buf_printf(out, ",\"bus\":{\"instance\":\"%s\",\"lease\":\"%s\",\"position\":\"%.*s\","
        "\"lag\":%llu,\"instances\":%zu,", b->id, b->shown.held ? "held" : "lost",
        SLICE_ARG(bus_id_put(b->shown.at, at)), (unsigned long long)b->shown.lag,
        b->shown.instances);
    pthread_mutex_unlock(&b->mtx);
    buf_printf(out, "\"waiting\":%zu,\"sent\":%llu,\"applied\":%llu}",
        queue_waiting(&b->queue),
        (unsigned long long)stats_counter(STATS_bus_sent),
        (unsigned long long)stats_counter(STATS_bus_applied));
}

static void
family(struct buf *out, const char *name, const char *help, double value)
{
    buf_printf(out, "# HELP weir_bus_%s %s\n# TYPE weir_bus_%s gauge\nweir_bus_%s %g\n", name, help,
        name, name, value);
}

static void
figures_metrics(struct buf *out, void *arg)
{
    struct bus *b = arg;

    pthread_mutex_lock(&b->mtx);
    family(out, "lag", "Purges in the stream that are not applied yet, at the last look.",
        (double)b->shown.lag);
    family(out, "instances", "Instances that hold a lease, this one among them, at the last look.",
        (double)b->shown.instances);
    pthread_mutex_unlock(&b->mtx);
    family(out, "waiting", "Own purges that are not in the stream yet.",
        (double)queue_waiting(&b->queue));
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static void *
run_thread(void *arg)
{
    struct bus *b = arg;

    loop_run(b->loop);
    return NULL;
}

static void
run_begin(struct loop_msg *m)
{
    struct bus *b = CONTAINER(m, struct bus, end);

    timer_init(&b->send_timer, b->loop, on_send_timer, b);
    bus_erase_init(b);
    waiting_take(b);
    lease_begin(b);
}

/* Names that people find again, made unique by chance: what an earlier process sent is not ours. */
static void
make_id(struct bus *b)
{
    char host[65] = "";
    uint64_t chance;

    random_bytes(&chance, sizeof chance);
    gethostname(host, sizeof host - 1);
    for (char *c = host; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && *c != '-')
            *c = '-';
    snprintf(b->id, sizeof b->id, "%s-%08llx%08llx", host[0] != '\0' ? host : "weir",
        (unsigned long long)(chance >> 32), (unsigned long long)(chance & 0xffffffff));
}

static char *
joined(const char *prefix, const char *name)
{
    size_t n = strlen(prefix) + strlen(name) + 1;
    char *s = malloc(n);

    if (s != NULL)
        snprintf(s, n, "%s%s", prefix, name);
    return s;
}

static void
bus_free(struct bus *b)
{
    asks_free(b);
    redis_free(&b->redis);
    loop_free(&b->loop);
    queue_fini(&b->queue);
    free(b->stream);
    free(b->leases);
    if (b->saved_fd != -1)
        close(b->saved_fd);
    free(b->waiting);
    pthread_mutex_destroy(&b->mtx);
    pthread_cond_destroy(&b->cond);
    b->magic = 0;
    free(b);
}

static struct bus *
bus_new(const struct conf *c, struct store *s)
{
    struct bus *b = calloc(1, sizeof *b);

    if (b == NULL)
        return NULL;
    b->magic = BUS_MAGIC;
    b->saved_fd = -1;
    b->store = s;
    b->lease_us = c->redis_lease_ms * 1000;
    b->serve = c->redis_lease_lost == LOST_SERVE;
    b->stream = joined(c->redis.prefix, "purges");
    b->leases = joined(c->redis.prefix, "{bus}leases");
    b->kick.run = run_kick;
    make_id(b);
    queue_init(&b->queue, s, WAITING_MAX, WAITING_BYTES);
    TAILQ_INIT(&b->asks);
    TAILQ_INIT(&b->all);
    pthread_mutex_init(&b->mtx, NULL);
    pthread_cond_init(&b->cond, NULL);
    return b;
}

/* A start with Redis at hand begins with the lease. */
static void
wait_for_lease(struct bus *b)
{
    struct timespec until;
    bool held;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += OPEN_WAIT_US / SECOND_US;
    pthread_mutex_lock(&b->mtx);
    while (!b->shown.tried && pthread_cond_timedwait(&b->cond, &b->mtx, &until) != ETIMEDOUT)
        continue;
    held = b->shown.held;
    pthread_mutex_unlock(&b->mtx);
    if (!held)
        log_warn("purge bus: Redis does not answer yet; %s", b->serve ? "nothing is heard of what "
            "other instances purge" : "the origin is asked before anything stored is served");
}

struct bus *
bus_open(const struct conf *c, struct store *s, struct tiers *tiers, struct err *e)
{
    struct redis_conf rc;
    struct pool *p = pool_new();
    int asked = p != NULL ? redis_conf_of(&c->redis, p, &rc, e) : 0, rc2 = 0;
    struct bus *b = asked == 1 ? bus_new(c, s) : NULL;

    *e = asked == -1 ? *e : (struct err){ 0 };
    if (p == NULL || (asked == 1 && (b == NULL || b->stream == NULL || b->leases == NULL)))
        err_set(e, ENOMEM, "purge bus: out of memory");
    else if (asked == 1 && saved_open(b, c->cache_disk_path, e) == 0 &&
        (b->loop = loop_new(0, e)) != NULL) {
        rc.pool = 1;                    /* entries stand in the order in which they were made */
        b->redis = redis_new(&rc, &b->loop, 1, e);
    }
    pool_free(&p);
    if (b == NULL || b->redis == NULL)
        goto fail;
    b->tiers = tiers;
    store_on_purge(s, on_purge, b);
    b->end.run = run_begin;
    loop_post(b->loop, &b->end);
    if ((rc2 = pthread_create(&b->thread, NULL, run_thread, b)) != 0)
        log_fatal("purge bus: a thread: %s", strerror(rc2));
    b->figures = (struct stats_source){ figures_json, figures_metrics, b, NULL };
    stats_source_add(&b->figures);
    wait_for_lease(b);
    return b;

fail:
    if (b != NULL)
        bus_free(b);
    return NULL;
}

static void
on_left(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct bus *b = arg;

    (void)cause;
    (void)r;
    loop_stop(b->loop);
}

static void
on_left_late(void *arg)
{
    loop_stop(((struct bus *)arg)->loop);
}

/* Nobody is to wait for who has left. */
static void
run_end(struct loop_msg *m)
{
    struct bus *b = CONTAINER(m, struct bus, end);
    size_t waiting = queue_waiting(&b->queue);

    if (waiting > 0 && waiting_put(b))
        log_warn("purge bus: %zu purges did not reach Redis: they are kept in %s, and sent when "
            "this instance starts again", waiting, b->waiting);
    else if (waiting > 0)
        log_warn("purge bus: %zu purges end here: they did not reach Redis, and other instances do "
            "not hear of them", waiting);
    lease_end(b);
    bus_erase_fini(b);
    asks_end(b);
    bus_read_stop(b);
    timer_fini(&b->send_timer);
    if (bus_send(b, (struct slice[]){ SLICE("HDEL"), slice_of(b->leases), slice_of(b->id) }, 3,
        CLOSE_WAIT_US, on_left, b) == NULL ||
        timer_init(&b->send_timer, b->loop, on_left_late, b) == -1 ||
        timer_set(&b->send_timer, 2 * CLOSE_WAIT_US) == -1)
        loop_stop(b->loop);
}

static void
run_yield(struct loop_msg *m)
{
    struct bus *b = CONTAINER(m, struct bus, yield);

    (void)waiting_put(b);
    pthread_mutex_lock(&b->mtx);
    b->yielded = true;
    pthread_cond_broadcast(&b->cond);
    pthread_mutex_unlock(&b->mtx);
}

void
bus_yield(struct bus *b)
{
    if (b == NULL)
        return;
    CHECK(b, BUS_MAGIC);
    b->yield.run = run_yield;
    loop_post(b->loop, &b->yield);
    pthread_mutex_lock(&b->mtx);
    while (!b->yielded)
        pthread_cond_wait(&b->cond, &b->mtx);
    pthread_mutex_unlock(&b->mtx);
}

void
bus_stop(struct bus *b)
{
    if (b == NULL)
        return;
    CHECK(b, BUS_MAGIC);
    b->end.run = run_end;
    loop_post(b->loop, &b->end);
    pthread_join(b->thread, NULL);
    timer_fini(&b->send_timer);
}

void
bus_close(struct bus **bp)
{
    struct bus *b = *bp;

    *bp = NULL;
    if (b == NULL)
        return;
    CHECK(b, BUS_MAGIC);
    bus_free(b);
}
