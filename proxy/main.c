/*
 * The command line; start, reload, drain.
 *
 * Model    main's own thread runs the admin loop, with the signals and one tick a second (windows
 *          of the figures, access log, drain). Workers run in front/, the write loop, if there is a
 *          journal, in write/. Start: everything that can
 *          fail is tried before the first thread, so that a wrong configuration or a port in use
 *          ends in one message and exit code 1.
 */
#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "admin/admin.h"
#include "base/base.h"
#include "config/config.h"
#include "fill/fill.h"
#include "front/front.h"
#include "plugin/plugin.h"
#include "purge/purge.h"
#include "redis/redis.h"
#include "request/request.h"
#include "stats/stats.h"
#include "store/store.h"
#include "upstream/upstream.h"
#include "write/write.h"

#define CUT_US       1000000            /* for requests that are cut to end in order */
#define AFTER_DRAIN_US 10000000         /* to close journal and tiers; told to a service manager */
#define DEFAULT_FILE "/etc/weir/weir.yaml"

/* jemalloc: what is freed goes back at once, so that cache.memory is what is resident; objects of 1
 * KiB share slabs of eight pages (measured: 30 bytes less an object). So do the blocks of pools:
 * each on a page of its own was given back and taken again, several times a miss (half of its
 * time). */
extern const char *malloc_conf;
const char *malloc_conf = 
    "dirty_decay_ms:0,muzzy_decay_ms:0,tcache_max:65536,slab_sizes:1024-1024:8|4096-4096:16";

struct process {
    struct loop   **loops;              /* of the workers, and behind them the write loop */
    size_t          nloops;             /* workers */
    struct loop    *admin_loop;
    struct upstream *upstream;
    struct store   *store;
    struct redis   *redis;              /* of the tiers; NULL: none is configured */
    struct tiers   *tiers;              /* NULL: memory is all there is */
    struct fills   *fills;
    struct front   *front;
    struct admin   *admin;
    struct writes  *writes;             /* NULL: there is no journal */
    struct bus     *bus;                /* NULL: there is no Redis */
    struct tracer  *tracer;             /* NULL: no traces are made */
    struct conf    *conf;               /* in force; owned reference */
    const char     *file, *origin;
    struct buf      overrides;          /* configuration made of flags */
    struct timer    tick;
    struct watchdog *watchdog;          /* NULL: no service manager watches */
    struct event   *signals[4];
    size_t          nsignals;
    int64_t         drain_until_us;     /* 0: not draining */
    bool            hurried;            /* a second signal ended the wait */
    int64_t         cut_until_us;       /* 0: not cutting what is left */
    unsigned        ticks;
    bool            started;
};

static const char usage[] =
    "weir " WEIR_VERSION " - a caching reverse proxy for APIs\n"
    "\n"
    "  weir [run] -c FILE                 run with a configuration file (default "
    DEFAULT_FILE ")\n"
    "  weir [run] --origin URL            run in front of URL with the embedded defaults\n"
    "             [--listen ADDR:PORT] [--admin ADDR:PORT|off]\n"
    "  weir check [-c] FILE               print every problem of a configuration\n"
    "  weir purge --url U | --prefix P | --pattern G | --tag T | --route R | --all |\n"
    "             --group G [--origin O]\n"
    "             [--soft] [--dry-run] [--wait MS]\n"
    "                                     purge what is stored\n"
    "  weir purge --id ID                 who has not applied a purge that was answered before\n"
    "  weir stats                         hit rates and latency percentiles\n"
    "  weir top                           the same live, on the terminal\n"
    "  weir log [--route R] [--outcome O] [--slower 100ms] [--steps] [--json]\n"
    "                                     requests as they are done\n"
    "  weir explain URL [-X METHOD] [-H 'Name: value'] [-d TEXT|@FILE] [--trusted] [--json]\n"
    "                                     which route, which key, what is stored and why\n"
    "  weir reload                        load the configuration again\n"
    "  weir health                        is it ready? exit code 0, else 1; for probes\n"
    "  weir writes ls|show|retry|drop|pause|resume|follow\n"
    "                                     the journal of write-back\n"
    "  weir writes move --from FILE --to redis [-c FILE] [--dry-run]\n"
    "                                     ... from a file into journal.redis, or back\n"
    "  weir version | reference | schema  print the version, the options' reference, the JSON "
    "schema\n"
    "  weir reference PLUGIN|FILE.so      print the options of a plugin\n"
    "\n"
    "purge, stats, top, log, explain, writes, reload and health take --admin URL (default\n"
    "http://127.0.0.1:8081), --token-file FILE and --timeout SECONDS (default 30).\n";

/* ---- configuration --------------------------------------------------------------------------- */

/* Of what flags say, places in the text that was made of them mean nothing: the flag does. */
static void
name_flags(struct config_report *r)
{
    for (size_t i = 0; i < r->n; i++) {
        struct config_problem *at = &r->at[i];

        at->line = 0;
        if (strcmp(at->path, "listen") == 0)
            at->path = "--listen";
        else if (strcmp(at->path, "admin.listen") == 0)
            at->path = "--admin";
    }
}

static struct conf *
load(const struct process *p, struct config_report *r)
{
    struct conf *c;

    if (p->file != NULL)
        return config_load(p->file, p->origin, r);
    c = config_parse(p->overrides.n > 0 ? p->overrides.p : NULL, p->overrides.n, "command line",
        p->origin, r);
    name_flags(r);
    return c;
}

static void
apply_log(const struct conf *c)
{
    struct err e;

    log_threshold = c->log_level;
    if (stats_access_open(c->log_access, c->log_format == LOG_FORM_COMBINED, &e) == -1)
        log_error("access log: %s; lines are dropped until it can be opened (SIGUSR1 tries again)",
            e.text);
}

static void
report_text(const struct config_report *r, const char *file, struct buf *b)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    if (out == NULL)
        return;
    config_report_print(r, file, out);
    fclose(out);
    buf_add(b, text, n);
    free(text);
}

/* What a reload makes of the configuration: NULL when there is none to run with. */
static struct site *
next_site(struct process *p, struct conf **cp, struct buf *text)
{
    struct config_report report = { 0 };
    struct err e = { 0 };
    struct site *site = NULL;

    *cp = load(p, &report);
    report_text(&report, p->file != NULL ? p->file : "command line", text);
    config_report_free(&report);
    if (*cp == NULL)
        return NULL;
    if (config_take_over(p->conf, *cp, text) == -1)
        err_set(&e, ENOMEM, "out of memory");
    else
        site = site_new(*cp, p->upstream, &e);
    if (site == NULL) {
        buf_printf(text, "%s\n", e.text);
        conf_unref(cp);
    }
    return site;
}

static void
writes_follow(struct process *p, struct site *s)
{
    if (p->writes != NULL)
        writes_site(p->writes, site_table(s), site_origins(s), site_via(s));
}

static int
take_next(struct process *p, struct buf *text)
{
    struct conf *c, *was = p->conf;
    struct site *site = next_site(p, &c, text);

    if (site == NULL) {
        COUNT(reload_failures);
        return -1;
    }
    COUNT(reloads);
    writes_follow(p, site);
    request_site_set(site);
    store_variants_max(p->store, (unsigned)c->cache_variants);
    front_reconfigure(p->front, c);
    if (p->admin != NULL)
        admin_reconfigure(p->admin, c);
    apply_log(c);
    front_look_up(c);
    p->conf = c;
    conf_unref(&was);
    return 0;
}

/* By signal or by the admin port: the log says the same. */
static int
reload(void *arg, struct buf *text)
{
    struct slice rest, line;
    int rc;

    service_notify("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)now_us());
    rc = take_next(arg, text);
    rest = buf_slice(text);
    while (slice_cut(&rest, '\n', &line))
        if (line.n > 0)
            log_line(rc == 0 ? LOG_WARN : LOG_ERROR, "reload: %.*s", SLICE_ARG(line));
    if (rc == 0)
        log_info("configuration loaded again");
    else
        log_error("reload refused: the configuration in force stays");
    service_notify("READY=1\nSTATUS=%s", rc == 0 ? "serving" :
        "serving; the last reload was refused, see the log");
    return rc;
}

/* ---- signals and the tick -------------------------------------------------------------------- */

static void
on_reload(evutil_socket_t sig, short what, void *arg)
{
    struct buf text = { 0 };

    (void)sig;
    (void)what;
    reload(arg, &text);
    buf_free(&text);
}

static void
on_reopen(evutil_socket_t sig, short what, void *arg)
{
    struct err e;

    (void)sig;
    (void)what;
    (void)arg;
    if (stats_access_reopen(&e) == -1)
        log_error("access log: %s", e.text);
}

static void
on_terminate(evutil_socket_t sig, short what, void *arg)
{
    struct process *p = arg;

    (void)what;
    if (p->drain_until_us != 0) {
        p->hurried = true;
        p->drain_until_us = 1;
        timer_set(&p->tick, 1);
        return;
    }
    log_info("%s: draining, for %lld ms at most", sig == SIGINT ? "SIGINT" : "SIGTERM",
        (long long)p->conf->drain_ms);
    service_notify("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=%lld",
        (long long)(p->conf->drain_ms * 1000 + CUT_US + AFTER_DRAIN_US));
    p->drain_until_us = now_us() + p->conf->drain_ms * 1000 + 1;
    front_drain(p->front);
    timer_set(&p->tick, 10000);
}

/* Draining: are all answers sent, and all fetches that fill the cache done? When time is up the
 * rest is cut, while the loops still run, so that every request ends by its own clean-up path. */
static void
drain_step(struct process *p)
{
    bool sent = p->writes == NULL || writes_drain(p->writes);
    bool done = front_drain(p->front) && sent && stats_gauge(GAUGE_flights_now) == 0 &&
        tracer_drain(p->tracer);
    int64_t now = now_us();

    if (done || (p->cut_until_us != 0 && now >= p->cut_until_us)) {
        loop_stop(p->admin_loop);
        return;
    }
    if (p->cut_until_us == 0 && now >= p->drain_until_us) {
        log_warn("drain: %s, %lld connections and %lld fetches are cut",
            p->hurried ? "a second signal ends it" : "time is up",
            (long long)stats_gauge(GAUGE_client_connections),
            (long long)stats_gauge(GAUGE_flights_now));
        front_cut(p->front);
        fills_stop(p->fills);
        p->cut_until_us = now + CUT_US;
    }
    timer_set(&p->tick, p->cut_until_us != 0 ? 2000 : 20000);
}

static void
log_summary(void)
{
    struct buf b = { 0 };

    stats_summary(&b);
    if (!b.failed)
        log_info("%.*s", (int)b.n, b.p);
    buf_free(&b);
}

static void
on_tick(void *arg)
{
    struct process *p = arg;

    watchdog_tick(p->watchdog);
    if (p->drain_until_us != 0) {
        drain_step(p);
        return;
    }
    stats_tick(now_us());
    for (size_t i = 0; i < p->conf->nplugins; i++)
        plugin_tick(p->conf->plugins[i].plugin);
    stats_access_flush();
    if (++p->ticks % 60 == 0)
        log_summary();
    timer_set(&p->tick, 1000000);
}

/* ---- the admin port's questions -------------------------------------------------------------- */

static struct route_table *
present_table(void *arg)
{
    struct site *s = request_site();
    struct route_table *t = route_table_ref(site_table(s));

    (void)arg;
    site_unref(&s);
    return t;
}

static size_t
has_journal(const struct process *p)
{
    return conf_has_journal(p->conf);
}

static bool
is_ready(void *arg, struct buf *why)
{
    const struct process *p = arg;

    buf_printf(why, "\"draining\":%s", p->drain_until_us != 0 ? "true" : "false");
    if (p->writes != NULL) {            /* reads go on without it */
        buf_addc(why, ',');
        (void)writes_ready(p->writes, why);
    } else if (p->started && has_journal(p)) {
        buf_addz(why, ",\"writes\":{\"takes\":false,\"why\":\"the journal is not open\"}");
    }
    return p->started && p->drain_until_us == 0;
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void
raise_file_limit(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
    }
}

/* A closed socket and a file at its limit are errors of the call that meets them. */
static void
block_signals(void)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };

    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
}

static void
watch(struct process *p, int sig, event_callback_fn run)
{
    struct event *ev = evsignal_new(loop_base(p->admin_loop), sig, run, p);

    if (ev == NULL || event_add(ev, NULL) == -1)
        log_fatal("signals: out of memory");
    assert(p->nsignals < NELEM(p->signals));
    p->signals[p->nsignals++] = ev;
}

static void
make_loops(struct process *p)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct err e;

    p->nloops = p->conf->workers != 0 ? p->conf->workers : cores > 0 ? (size_t)cores : 1;
    p->loops = calloc(p->nloops + 1, sizeof *p->loops);
    for (size_t i = 0; p->loops != NULL && i < p->nloops + has_journal(p); i++)
        if ((p->loops[i] = loop_new((unsigned)i, &e)) == NULL)
            log_fatal("%s", e.text);
    if (p->loops == NULL)
        log_fatal("out of memory");
    p->admin_loop = loop_new((unsigned)p->nloops + 1, &e);
    if (p->admin_loop == NULL)
        log_fatal("%s", e.text);
}

/* That of the loops, for the tier; the purge bus has its own. NULL: none is configured. */
static struct redis *
open_redis(struct process *p)
{
    struct pool *pool = pool_new();
    struct redis_conf rc;
    struct err e = { 0 };
    int asked = pool != NULL ? redis_conf_of(&p->conf->redis, pool, &rc, &e) :
        err_set(&e, ENOMEM, "out of memory");

    rc.pool = (unsigned)p->conf->redis_pool;
    if (asked == 1 && (p->redis = redis_new(&rc, p->loops, p->nloops + has_journal(p), &e)) == NULL)
        asked = -1;
    if (asked == -1)
        log_fatal("%s", e.text);
    pool_free(&pool);
    return p->redis;
}

/* Before there are other threads that purge: the tiers hear of every one. */
static void
open_tiers(struct process *p)
{
    const struct conf *c = p->conf;
    const struct tier_options o = { .disk_path = c->cache_disk_path,
        .disk_size = c->cache_disk_size, .disk_max_object = c->cache_disk_max_object,
        .redis = open_redis(p), .loops = p->loops, .nloops = p->nloops + has_journal(p),
        .redis_prefix = c->redis.prefix, .redis_min_ttl_ms = c->redis_min_ttl_ms,
        .redis_max_ttl_ms = c->redis_max_ttl_ms, .redis_max_object = c->redis_max_object,
        .redis_timeout_ms = c->redis_timeout_ms };
    struct err e = { 0 };

    p->tiers = tiers_open(&o, p->store, &e);
    if (p->tiers == NULL && e.text[0] != '\0')
        log_fatal("%s", e.text);
}

static void
start(struct process *p)
{
    struct admin_process ap = { .table = present_table, .reload = reload, .ready = is_ready,
        .arg = p };
    struct buf where = { 0 };
    struct site *site;
    struct err e = { 0 };

    if (stats_init(&e) == -1)
        log_fatal("%s", e.text);
    stats_gauge_set(GAUGE_start_time, wall_ms() / 1000);
    make_loops(p);
    p->front = front_open(p->conf, p->loops, p->nloops, &e);
    if (p->front == NULL)
        log_fatal("%s", e.text);
    p->upstream = upstream_new(p->loops, p->nloops + has_journal(p), &p->conf->dns_servers, &e);
    p->store = p->upstream != NULL ?
        store_new(p->conf->cache_memory, (unsigned)p->conf->cache_variants, &e) : NULL;
    if (p->store != NULL)
        open_tiers(p);
    p->bus = p->store != NULL ? bus_open(p->conf, p->store, &e) : NULL;
    if (p->store != NULL && p->bus == NULL && e.text[0] != '\0')
        log_fatal("%s", e.text);
    p->fills = p->store != NULL ? fills_new(p->store, p->tiers, &e) : NULL;
    site = p->fills != NULL ? site_new(p->conf, p->upstream, &e) : NULL;
    if (site == NULL)
        log_fatal("%s", e.text);
    if (has_journal(p)) {
        p->writes = writes_open(p->conf, p->loops[p->nloops], p->store, p->fills, p->bus, &e);
        if (p->writes == NULL && e.code != EROFS)
            log_fatal("%s", e.text);
        if (p->writes == NULL)          /* a disk that failed: reads go on */
            log_error("%s; writes that need the journal are refused until it is opened by a start",
                e.text);
        else
            writes_follow(p, site);
    }
    if (p->conf->trace_to != NULL && (p->tracer = tracer_open(p->conf,
        site_origins(site)[p->conf->trace_to - p->conf->origins], p->loops[0], &e)) == NULL)
        log_fatal("%s", e.text);
    request_init(p->store, p->tiers, p->fills, p->writes, p->tracer);
    request_site_set(site);
    ap.store = p->store;
    ap.tiers = p->tiers;
    ap.writes = p->writes;
    ap.bus = p->bus;
    p->admin = admin_start(p->admin_loop, p->conf, &ap, &e);
    if (p->admin == NULL)
        log_fatal("%s", e.text);
    if (service_sockets_taken(&e) == -1)
        log_fatal("%s", e.text);
    apply_log(p->conf);
    if (front_start(p->front, &e) == -1)
        log_fatal("%s", e.text);
    /* without a journal that is open nobody runs the write loop */
    p->watchdog = watchdog_new(p->loops, p->nloops + (p->writes != NULL));
    front_addresses(p->front, &where);
    buf_addc(&where, '\0');
    log_info("weir " WEIR_VERSION ": %s, admin %s, %zu workers", where.failed ? "" : where.p,
        admin_address(p->admin) != NULL ? admin_address(p->admin) : "off", p->nloops);
    buf_free(&where);
    front_look_up(p->conf);
    p->started = true;
}

static void
stop(struct process *p)
{
    front_stop(p->front);
    while (p->nsignals > 0)
        event_free(p->signals[--p->nsignals]);
    admin_stop(&p->admin);
    writes_close(&p->writes);
    tracer_close(&p->tracer);
    upstream_free(&p->upstream);
    request_site_clear();
    bus_close(&p->bus);
    fills_free(&p->fills);
    front_free(&p->front);
    tiers_close(&p->tiers);
    redis_free(&p->redis);
    timer_fini(&p->tick);
    rcu_drain();
    store_free(&p->store);
    rcu_drain();
    stats_access_flush();
    for (size_t i = 0; i <= p->nloops; i++)
        loop_free(&p->loops[i]);
    loop_free(&p->admin_loop);
    watchdog_free(&p->watchdog);
    free(p->loops);
    conf_unref(&p->conf);
    buf_free(&p->overrides);
    stats_fini();
}

static int
run(struct process *p)
{
    struct config_report report = { 0 };

    p->conf = load(p, &report);
    config_report_print(&report, p->file != NULL ? p->file : "command line", stderr);
    config_report_free(&report);
    if (p->conf == NULL)
        return 1;
    raise_file_limit();
    block_signals();
    start(p);
    watch(p, SIGTERM, on_terminate);
    watch(p, SIGINT, on_terminate);
    watch(p, SIGHUP, on_reload);
    watch(p, SIGUSR1, on_reopen);
    if (timer_init(&p->tick, p->admin_loop, on_tick, p) == -1 ||
        timer_set(&p->tick, 1000000) == -1)
        log_fatal("out of memory");
    service_notify("READY=1\nSTATUS=serving");
    loop_run(p->admin_loop);
    stop(p);
    log_info("stopped");
    return 0;
}

/* What the configuration cannot tell of it. -1: a start would fail. */
static int
check_journal(const struct conf *c, const char *name, size_t *warnings)
{
    const char *path = c->journal_path;
    struct err e;
    int rc = path != NULL ? writes_check(path, &e) : 0;

    if (rc != 0)
        printf("%s: %s%s\n", name, rc == 1 ? "warning: " : "", e.text);
    *warnings += rc == 1;
    return rc == -1 ? -1 : 0;
}

static int
check(const struct process *p)
{
    struct config_report report = { 0 };
    const char *name = p->file != NULL ? p->file : "command line";
    struct conf *c = load(p, &report);
    size_t warnings = report.n - report.errors;

    config_report_print(&report, name, stdout);
    if (c != NULL && check_journal(c, name, &warnings) == -1)
        conf_unref(&c);
    if (c != NULL)
        printf("%s: ok, %zu route%s, %zu warning%s\n", name, c->nroutes,
            c->nroutes == 1 ? "" : "s", warnings, warnings == 1 ? "" : "s");
    config_report_free(&report);
    if (c == NULL)
        return 1;
    conf_unref(&c);
    return 0;
}

/* ---- the command line ------------------------------------------------------------------------ */

static int
bad_usage(const char *what, const char *arg)
{
    fprintf(stderr, "weir: %s%s\n`weir help` lists the commands and options.\n", what, arg);
    return 2;
}

/* A value of a flag as YAML. */
static void
override(struct process *p, const char *before, const char *value, const char *behind)
{
    buf_addz(&p->overrides, before);
    buf_addc(&p->overrides, '\'');
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\'')
            buf_addc(&p->overrides, '\'');
        buf_addc(&p->overrides, *c);
    }
    buf_printf(&p->overrides, "'%s\n", behind);
}

/* -1, or an exit code. */
static int
take_option(struct process *p, int opt)
{
    switch (opt) {
    case 'c':
        p->file = optarg;
        return -1;
    case 'o':
        p->origin = optarg;
        return -1;
    case 'l':
        override(p, "listen: ", optarg, "");
        return -1;
    case 'a':
        override(p, "admin: {listen: ", optarg, "}");
        return -1;
    case 'h':
        fputs(usage, stdout);
        return 0;
    default:
        puts("weir " WEIR_VERSION);
        return 0;
    }
}

/* Options of run and check. -1, or an exit code. */
static int
read_options(struct process *p, int argc, char **argv, bool takes_file)
{
    static const char shorts[] = "c:hV";
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "origin", required_argument, NULL, 'o' },
        { "listen", required_argument, NULL, 'l' }, { "admin", required_argument, NULL, 'a' },
        { "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' },
        { NULL, 0, NULL, 0 },
    };
    bool seen[128] = { false };
    int opt, rc = -1;
    struct err e;

    if (options_exact(argc, argv, shorts, options, &e) == -1)
        return bad_usage(e.text, "");
    while (rc == -1 && (opt = getopt_long(argc, argv, shorts, options, NULL)) != -1) {
        if (seen[opt & 127])
            return bad_usage("given twice, and only one can hold: ", optarg);
        seen[opt & 127] = true;
        rc = take_option(p, opt);
    }
    if (rc != -1)
        return rc;
    if (optind < argc && takes_file && p->file == NULL)
        p->file = argv[optind++];
    if (optind < argc)
        return bad_usage(p->file == NULL ? "a file goes behind -c; not understood: " :
            "not understood: ", argv[optind]);
    if (p->file != NULL && p->overrides.n > 0)
        return bad_usage("--listen and --admin go with --origin; with a file, write them there",
            "");
    if (p->file == NULL && p->origin == NULL) {
        if (access(DEFAULT_FILE, F_OK) != 0)
            return bad_usage("nothing to run: give -c FILE or --origin URL; there is no "
                DEFAULT_FILE, "");
        p->file = DEFAULT_FILE;
    }
    return -1;
}

static int
show_version(struct process *p, int argc, char **argv)
{
    (void)p, (void)argc, (void)argv;
    puts("weir " WEIR_VERSION);
    return 0;
}

static int
show_help(struct process *p, int argc, char **argv)
{
    (void)p, (void)argc, (void)argv;
    fputs(usage, stdout);
    return 0;
}

static int
show_reference(struct process *p, int argc, char **argv)
{
    struct err e;

    (void)p;
    if (argc < 2)
        config_reference(stdout);
    for (int i = 1; i < argc; i++)
        if (config_reference_plugin(argv[i], stdout, &e) == -1) {
            fprintf(stderr, "weir: %s\n", e.text);
            return 1;
        }
    return 0;
}

static int
show_schema(struct process *p, int argc, char **argv)
{
    (void)p, (void)argc, (void)argv;
    config_schema(stdout);
    return 0;
}

static int
ask(struct process *p, int argc, char **argv)
{
    (void)p;
    return admin_client(argc, argv);
}

/* ---- weir writes move ------------------------------------------------------------------------ */

static void
print_moved(const struct writes_moved *n, const char *from, const char *to, bool dry)
{
    if (n->finished) {
        printf("all was moved from %s to %s already%s\n", from, to,
            dry ? "; run this without --dry-run to end that" : "");
        return;
    }
    printf("%s %llu pending, %llu dead and %llu settled writes, %llu idempotency keys and %llu "
        "paused names from %s to %s%s%s\n", dry ? "would move" : "moved",
        (unsigned long long)n->pending, (unsigned long long)n->dead,
        (unsigned long long)n->settled, (unsigned long long)n->keys,
        (unsigned long long)n->paused, from, to,
        n->renamed[0] != '\0' ? "; the file is now " : "", n->renamed);
}

static int
move_writes(struct process *p, const char *from, const char *to, bool dry)
{
    struct config_report report = { 0 };
    struct writes_moved moved;
    struct conf *c = load(p, &report);
    struct err e = { 0 };
    int rc = 1;

    if (c == NULL)
        config_report_print(&report, p->file, stderr);
    config_report_free(&report);
    if (c == NULL)
        return 1;
    block_signals();
    log_threshold = LOG_WARN;
    if (writes_move(c, from, to, dry, &moved, &e) == 0) {
        print_moved(&moved, from, to, dry);
        rc = 0;
    } else {
        fprintf(stderr, "weir writes move: %s\n", e.text);
    }
    conf_unref(&c);
    return rc;
}

static int
do_move(struct process *p, int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "from", required_argument, NULL, 'f' },
        { "to", required_argument, NULL, 't' }, { "dry-run", no_argument, NULL, 'n' },
        { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
    };
    const char *from = NULL, *to = NULL;
    bool dry = false;
    struct err e;
    int opt;

    p->file = DEFAULT_FILE;
    if (options_exact(argc, argv, "c:h", options, &e) == -1)
        return bad_usage(e.text, "");
    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (opt == 'h')
            return show_help(p, argc, argv);
        if (opt == 'c')
            p->file = optarg;
        else if (opt == 'f')
            from = optarg;
        else if (opt == 't')
            to = optarg;
        else
            dry = true;
    }
    if (optind < argc)
        return bad_usage("not understood: ", argv[optind]);
    if (from == NULL || to == NULL)
        return bad_usage("weir writes move: say what moves where: --from FILE --to redis, or back",
            "");
    return move_writes(p, from, to, dry);
}

/* The other verbs ask an instance that runs; this one needs that none does. */
static int
do_writes(struct process *p, int argc, char **argv)
{
    return argc > 1 && strcmp(argv[1], "move") == 0 ? do_move(p, argc - 1, argv + 1) :
        ask(p, argc, argv);
}

static int
do_run(struct process *p, int argc, char **argv)
{
    int rc = read_options(p, argc, argv, false);

    return rc == -1 ? run(p) : rc;
}

static int
do_check(struct process *p, int argc, char **argv)
{
    int rc = read_options(p, argc, argv, true);

    return rc == -1 ? check(p) : rc;
}

static const struct { const char *name; bool alone; int (*run)(struct process *, int, char **); }
    verbs[] = {
    { "run", false, do_run }, { "check", false, do_check }, { "purge", false, ask },
    { "stats", false, ask }, { "explain", false, ask }, { "reload", false, ask },
    { "health", false, ask }, { "writes", false, do_writes }, { "log", false, ask },
    { "top", false, ask }, { "version", true, show_version }, { "help", true, show_help },
    { "reference", false, show_reference }, { "schema", true, show_schema },
};

int
main(int argc, char **argv)
{
    struct process p = { 0 };
    struct buf text = { 0 };
    struct nearest near;
    int rc;

    if (argc < 2 || argv[1][0] == '-') {
        rc = do_run(&p, argc, argv);
        buf_free(&p.overrides);
        return rc;
    }
    near = (struct nearest){ .to = slice_of(argv[1]) };
    for (size_t i = 0; i < NELEM(verbs); i++) {
        nearest_try(&near, verbs[i].name);
        if (strcmp(verbs[i].name, argv[1]) != 0)
            continue;
        if (verbs[i].alone && argc > 2)
            return bad_usage("not understood: ", argv[2]);
        rc = verbs[i].run(&p, argc - 1, argv + 1);
        buf_free(&p.overrides);
        return rc;
    }
    buf_printf(&text, near.word != NULL ? "%s; did you mean %s" : "%s", argv[1], near.word);
    buf_addc(&text, '\0');
    bad_usage("unknown command: ", text.failed ? argv[1] : text.p);
    buf_free(&text);
    return 2;
}
