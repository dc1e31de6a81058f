/*
 * What a process is built of at its start and how it is taken down.
 *
 * Start: everything that can fail is tried before the first thread, so that a wrong configuration
 * or a port in use ends in one message and exit code 1.
 */
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <unistd.h>

#include "fill/fill.h"
#include "front/front.h"
#include "plugin/plugin.h"
#include "purge/purge.h"
#include "redis/redis.h"
#include "request/request.h"
#include "stats/stats.h"
#include "store/store.h"
#include "takeover.h"
#include "upstream/upstream.h"
#include "write/write.h"

size_t
process_has_journal(const struct process *p)
{
    return conf_has_journal(p->conf);
}

static void
make_loops(struct process *p)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct err e;

    p->nloops = p->conf->workers != 0 ? p->conf->workers : cores > 0 ? (size_t)cores : 1;
    p->loops = calloc(p->nloops + 1, sizeof *p->loops);
    for (size_t i = 0; p->loops != NULL && i < p->nloops + process_has_journal(p); i++)
        if ((p->loops[i] = loop_new((unsigned)i, &e)) == NULL)
            log_fatal("%s", e.text);
    if (p->loops == NULL)
        log_fatal("out of memory");
    p->admin_loop = loop_new((unsigned)p->nloops + 1, &e);
    if (p->admin_loop == NULL)
        log_fatal("%s", e.text);
}

#define REDIS_COMMANDS ((size_t)16 << 20)       /* under way, of a loop, beside one large value */

/* That of the loops, for the tier; the purge bus has its own. */
static void
open_redis(struct process *p)
{
    struct pool *pool = pool_new();
    struct redis_conf rc;
    struct err e = { 0 };
    int asked = pool != NULL ? redis_conf_of(&p->conf->redis, pool, &rc, &e) :
        err_set(&e, ENOMEM, "out of memory");

    rc.pool = (unsigned)p->conf->redis_pool;
    rc.queue = REDIS_COMMANDS + (size_t)p->conf->redis_max_object;
    if (asked == 1 && (p->redis = redis_new(&rc, p->loops, p->nloops + process_has_journal(p),
        &e)) == NULL)
        asked = -1;
    if (asked == -1)
        log_fatal("%s", e.text);
    pool_free(&pool);
}

/* Before workers run. */
static void
lend_redis(const struct process *p)
{
    plugin_redis_begin(&(struct plugin_redis){ .redis = p->redis, .loops = p->loops,
        .nloops = p->nloops, .prefix = p->conf->redis.prefix,
        .timeout_ms = p->conf->redis_timeout_ms });
}

/* What can fail of itself: nothing is held yet that one process alone may have. */
static struct site *
build(struct process *p, const struct admin_process *asks)
{
    struct site *site = NULL;
    struct err e = { 0 };

    if (stats_init(&e) == -1)
        log_fatal("%s", e.text);
    stats_gauge_set(GAUGE_start_time, wall_ms() / 1000);
    make_loops(p);
    p->front = front_open(p->conf, p->loops, p->nloops, &e);
    if (p->front == NULL)
        log_fatal("%s", e.text);
    p->upstream = upstream_new(p->loops, p->nloops + process_has_journal(p),
        &p->conf->dns_servers, &e);
    p->store = p->upstream != NULL ?
        store_new(p->conf->cache_memory, (unsigned)p->conf->cache_variants, &e) : NULL;
    if (p->store != NULL) {
        open_redis(p);
        lend_redis(p);
        site = site_new(p->conf, p->upstream, &e);
    }
    if (site == NULL || (p->channel != -1 && p->conf->journal_path != NULL &&
        writes_check(p->conf->journal_path, &e) == -1))
        log_fatal("%s", e.text);
    p->admin = admin_start(p->admin_loop, p->conf, asks, &e);
    if (p->admin == NULL || service_sockets_taken(&e) == -1)
        log_fatal("%s", e.text);
    return site;
}

/* Before there are other threads that purge: the tiers hear of every one. */
static void
open_tiers(struct process *p)
{
    const struct conf *c = p->conf;
    const struct tier_options o = { .disk_path = c->cache_disk_path,
        .disk_size = c->cache_disk_size, .disk_max_object = c->cache_disk_max_object,
        .redis = p->redis, .loops = p->loops, .nloops = p->nloops + process_has_journal(p),
        .redis_prefix = c->redis.prefix, .redis_min_ttl_ms = c->redis_min_ttl_ms,
        .redis_max_ttl_ms = c->redis_max_ttl_ms, .redis_max_object = c->redis_max_object,
        .redis_timeout_ms = c->redis_timeout_ms };
    struct err e = { 0 };

    p->tiers = tiers_open(&o, p->store, &e);
    if (p->tiers == NULL && e.text[0] != '\0')
        log_fatal("%s", e.text);
    p->bus = bus_open(c, p->store, p->tiers, &e);
    if (p->bus == NULL && e.text[0] != '\0')
        log_fatal("%s", e.text);
}

static void
open_journal(struct process *p, struct site *site)
{
    struct err e = { 0 };

    if (!process_has_journal(p))
        return;
    p->writes = writes_open(p->conf, p->loops[p->nloops], p->store, p->fills, p->bus, &e);
    if (p->writes == NULL && e.code != EROFS)
        log_fatal("%s", e.text);
    if (p->writes == NULL)              /* a disk that failed: reads go on */
        log_error("%s; writes that need the journal are refused until it is opened by a start",
            e.text);
    else
        process_writes_follow(p, site);
}

static void
serve(struct process *p, const struct admin_process *asks, struct site *site)
{
    struct admin_process ap = *asks;
    struct err e = { 0 };

    if (p->conf->trace_to != NULL && (p->tracer = tracer_open(p->conf,
        site_origins(site)[p->conf->trace_to - p->conf->origins], p->loops[0], &e)) == NULL)
        log_fatal("%s", e.text);
    request_init(p->store, p->tiers, p->fills, p->writes, p->tracer);
    request_site_set(site);
    ap.store = p->store;
    ap.tiers = p->tiers;
    ap.writes = p->writes;
    ap.bus = p->bus;
    admin_answer_from(p->admin, &ap);
    process_apply_log(p->conf);
    if (front_start(p->front, &e) == -1)
        log_fatal("%s", e.text);
    /* without a journal that is open nobody runs the write loop */
    p->watchdog = watchdog_new(p->loops, p->nloops + (p->writes != NULL));
}

void
process_start(struct process *p, const struct admin_process *asks)
{
    struct site *site = build(p, asks);
    struct buf where = { 0 };
    struct err e = { 0 };

    takeover_wait(p);
    open_tiers(p);
    p->fills = fills_new(p->store, p->tiers, &e);
    if (p->fills == NULL)
        log_fatal("%s", e.text);
    open_journal(p, site);
    serve(p, asks, site);
    front_addresses(p->front, &where);
    buf_addc(&where, '\0');
    log_info("weir " WEIR_VERSION ": %s, admin %s, %zu workers", where.failed ? "" : where.p,
        admin_address(p->admin) != NULL ? admin_address(p->admin) : "off", p->nloops);
    buf_free(&where);
    front_look_up(p->conf);
    p->started = true;
}

void
process_stop(struct process *p)
{
    front_stop(p->front);
    upgrade_free(p);
    takeover_end(p);
    while (p->nsignals > 0)
        event_free(p->signals[--p->nsignals]);
    admin_stop(&p->admin);
    writes_close(&p->writes);
    tracer_close(&p->tracer);
    upstream_free(&p->upstream);
    request_site_clear();
    bus_stop(p->bus);
    fills_free(&p->fills);
    front_free(&p->front);
    tiers_close(&p->tiers);
    bus_close(&p->bus);
    plugin_redis_end();
    redis_free(&p->redis);
    timer_fini(&p->tick);
    rcu_drain();
    store_free(&p->store);
    rcu_drain();
    stats_access_flush();
    conf_unref(&p->conf);               /* plugins end: until then they may wake a request's loop */
    for (size_t i = 0; i <= p->nloops; i++)
        loop_free(&p->loops[i]);
    loop_free(&p->admin_loop);
    watchdog_free(&p->watchdog);
    free(p->loops);
    buf_free(&p->overrides);
    stats_fini();
}
