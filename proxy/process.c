/*
 * The life of a process: reload, signals, the tick, drain.
 *
 * Model    main's own thread runs the admin loop, with the signals and one tick a second (windows
 *          of the figures, access log, drain). Workers run in front/, the write loop, if there is a
 *          journal, in write/.
 * Not here what a start builds and a stop takes down (start.c), and the command line (main.c).
 */
#include "takeover.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "fill/fill.h"
#include "front/front.h"
#include "plugin/plugin.h"
#include "request/request.h"
#include "stats/stats.h"
#include "store/store.h"
#include "upstream/upstream.h"
#include "write/write.h"

#define CUT_US       1000000            /* for requests that are cut to end in order */
#define CLEAR_STEP   5000               /* objects: some milliseconds, in which all else waits */
#define AFTER_DRAIN_US 10000000         /* to close journal and tiers; told to a service manager */

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

struct conf *
process_load(const struct process *p, struct config_report *r)
{
    struct conf *c;

    if (p->file != NULL)
        return config_load(p->file, p->origin, r);
    c = config_parse(p->overrides.n > 0 ? p->overrides.p : NULL, p->overrides.n, "command line",
        p->origin, r);
    name_flags(r);
    return c;
}

void
process_apply_log(const struct conf *c)
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

    *cp = process_load(p, &report);
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

void
process_writes_follow(struct process *p, struct site *s)
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
    process_writes_follow(p, site);
    request_site_set(site);
    store_variants_max(p->store, (unsigned)c->cache_variants);
    front_reconfigure(p->front, c);
    if (p->admin != NULL)
        admin_reconfigure(p->admin, c);
    process_apply_log(c);
    front_look_up(c);
    p->conf = c;
    conf_unref(&was);
    return 0;
}

/* By signal or by the admin port: the log says the same. */
static int
reload(void *arg, struct buf *text)
{
    struct process *p = arg;
    struct slice rest, line;
    int rc;

    if (upgrade_under_way(p)) {
        buf_addz(text, "an upgrade is under way, which reads the configuration too\n");
        COUNT(reload_failures);
        log_error("reload refused: %.*s", (int)text->n, text->p);
        return -1;
    }
    service_notify("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)now_us());
    rc = take_next(p, text);
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
on_upgrade(evutil_socket_t sig, short what, void *arg)
{
    (void)sig;
    (void)what;
    upgrade_begin(arg);
}

void
process_drain(struct process *p)
{
    p->drain_until_us = now_us() + p->conf->drain_ms * 1000 + 1;
    front_drain(p->front);
    timer_set(&p->tick, 10000);
}

void
process_terminate(struct process *p)
{
    service_notify("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=%lld",
        (long long)(p->conf->drain_ms * 1000 + CUT_US + AFTER_DRAIN_US));
    front_hold(p->front, CONN_TAKES);
    process_drain(p);
}

static void
on_terminate(evutil_socket_t sig, short what, void *arg)
{
    struct process *p = arg;

    (void)what;
    if (upgrade_cancel(p))
        return;
    if (p->drain_until_us != 0) {
        p->hurried = true;
        p->drain_until_us = 1;
        timer_set(&p->tick, 1);
        return;
    }
    log_info("%s: draining, for %lld ms at most", sig == SIGINT ? "SIGINT" : "SIGTERM",
        (long long)p->conf->drain_ms);
    process_terminate(p);
}

/* Draining: are all answers sent, and all fetches that fill the cache done? When time is up the
 * rest is cut, while the loops still run, so that every request ends by its own clean-up path. */
static void
drain_step(struct process *p)
{
    bool sent = p->writes == NULL || writes_drain(p->writes);
    bool upgraded = upgrade_under_way(p);
    bool gone = front_drain(p->front);
    long long connections = stats_gauge(GAUGE_client_connections);
    long long fetches = stats_gauge(GAUGE_flights_now);
    bool done = gone && sent && fetches == 0 &&
        tracer_drain(p->tracer) && (p->channel == -1 || !upgraded);
    int64_t now = now_us();

    if (done || (p->cut_until_us != 0 && now >= p->cut_until_us)) {
        if (!done && connections + fetches > 0)
            log_warn("drain: %lld connections and %lld fetches did not end", connections, fetches);
        loop_stop(p->admin_loop);
        return;
    }
    if (p->cut_until_us == 0 && upgraded && upgrade_bereft(p))
        p->drain_until_us = 1;
    if (p->cut_until_us == 0 && now >= p->drain_until_us) {
        log_warn("drain: %s, %lld connections and %lld fetches are cut",
            p->hurried ? "a second signal ends it" : "time is up", connections, fetches);
        front_cut(p->front);
        fills_stop(p->fills);
        p->cut_until_us = now + CUT_US;
    }
    if (upgraded)                       /* the successor's memory fills */
        store_clear(p->store, CLEAR_STEP);
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

static bool
is_ready(void *arg, struct buf *why)
{
    const struct process *p = arg;

    buf_printf(why, "\"draining\":%s", p->drain_until_us != 0 ? "true" : "false");
    if (p->writes != NULL) {            /* reads go on without it */
        buf_addc(why, ',');
        (void)writes_ready(p->writes, why);
    } else if (p->started && process_has_journal(p)) {
        buf_addz(why, ",\"writes\":{\"takes\":false,\"why\":\"the journal is not open\"}");
    }
    return p->started && p->drain_until_us == 0;
}

/* ---- running --------------------------------------------------------------------------------- */

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
void
process_block_signals(void)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };

    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
}

void
process_late_signals(sigset_t *late)
{
    sigemptyset(late);
    sigaddset(late, SIGHUP);
    sigaddset(late, SIGUSR1);
    sigaddset(late, SIGUSR2);
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

int
process_run(struct process *p)
{
    const struct admin_process asks = { .table = present_table, .reload = reload,
        .ready = is_ready, .arg = p };
    struct config_report report = { 0 };
    sigset_t late;
    bool takes_over;

    process_late_signals(&late);
    pthread_sigmask(SIG_BLOCK, &late, NULL);
    takes_over = takeover_begin(p);
    p->conf = process_load(p, &report);
    config_report_print(&report, p->file != NULL ? p->file : "command line", stderr);
    config_report_free(&report);
    if (p->conf == NULL)
        return 1;
    raise_file_limit();
    process_block_signals();
    process_start(p, &asks);
    watch(p, SIGTERM, on_terminate);
    watch(p, SIGINT, on_terminate);
    watch(p, SIGHUP, on_reload);
    watch(p, SIGUSR1, on_reopen);
    watch(p, SIGUSR2, on_upgrade);
    pthread_sigmask(SIG_UNBLOCK, &late, NULL);
    if (timer_init(&p->tick, p->admin_loop, on_tick, p) == -1 ||
        timer_set(&p->tick, 1000000) == -1)
        log_fatal("out of memory");
    if (takes_over)                     /* who ran tells the service manager */
        takeover_serve(p);
    else
        service_notify("READY=1\nSTATUS=serving");
    loop_run(p->admin_loop);
    process_stop(p);
    log_info("stopped");
    return p->exit_code;
}
