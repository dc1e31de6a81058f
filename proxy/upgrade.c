/*
 * Handing over to another process: the old one's part (takeover.h).
 *
 * Model    NONE -> STARTING -> ENDING_WRITES -> HOLDING -> GOING -> DONE. The successor is its own
 *          program file anew, with the same arguments; a file that was replaced is what an upgrade
 *          is. ENDING_WRITES: reads go on as ever; a request that is unsafe waits, unread, until
 *          those under way have their answers and the deliveries to origins theirs: PATIENCE_US
 *          or `drain` at most, or this process goes on. HOLDING: nobody begins anything, for as
 *          long as the workers need to hear of it. Then journal and disk tier are closed, and all
 *          the same wait, in their connections and in the listeners' queues, until the successor
 *          serves.
 *          DONE: connections between two requests go to the successor as they are; answers,
 *          tunnels and event streams under way end here, within `drain`. They began before the
 *          successor answered anything, so that nothing that they are told is too old for them.
 * Back     until GO nothing was given up: FAILED undoes the hold. After it the successor's failure
 *          is answered by starting this very program (/proc/self/exe), once.
 * Peers    nginx leaves it to a person to see whether the new processes work, and to bring the old
 *          ones back (USR2, WINCH, HUP or QUIT); both answer meanwhile. haproxy's master starts new
 *          workers which fetch the sockets from the old ones; until it could do that, by
 *          SO_REUSEPORT alone, connections queued on a socket that was closed were reset. Envoy's
 *          two processes share statistics, and the older one ends after a fixed time. None of them
 *          has files that one process must own.
 * Threads  the main thread's, on the admin loop.
 */
#include "takeover.h"

#include <errno.h>
#include <event2/event.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "front/front.h"
#include "request/request.h"
#include "stats/stats.h"

#define START_US    60000000            /* for a successor to be ready, or to open the files */
#define PATIENCE_US 5000000
#define PATIENCE_MIN_US 250000
#define STEP_US     2000
#define BURY_US     1000000
#define QUEUED_MAX  (1 << 20)           /* bytes that the disk tier writes out while all wait */

enum stage { NONE, STARTING, ENDING_WRITES, HOLDING, GOING, DONE };

struct upgrade {
    enum stage    stage;
    pid_t         child;
    int           channel;              /* -1: none */
    struct event *heard;
    struct timer  step;
    int64_t       deadline_us;
    int64_t       since_us;             /* when the hold began */
    bool          again;                /* the files are closed, and one has failed already */
    bool          terminate;            /* SIGTERM came when it was too late for that */
};

bool
upgrade_under_way(const struct process *p)
{
    return p->upgrade != NULL && p->upgrade->stage != NONE;
}

/* ---- starting the successor ------------------------------------------------------------------ */

extern char **environ;

static char **
environment(char *takeover)
{
    size_t n = 0, k = 0;
    char **env;

    while (environ[n] != NULL)
        n++;
    env = calloc(n + 2, sizeof *env);
    for (size_t i = 0; env != NULL && i < n; i++)
        if (strncmp(environ[i], TAKEOVER "=", sizeof TAKEOVER) != 0)
            env[k++] = environ[i];
    if (env != NULL)
        env[k] = takeover;
    return env;
}

/* The sockets stay open in it under the same numbers. */
static int
run_file(struct process *p, const char *file, int channel, struct slice sockets, char **env)
{
    posix_spawn_file_actions_t keep;
    posix_spawnattr_t attr;
    struct slice word;
    sigset_t late;
    uint64_t fd;
    int rc = posix_spawn_file_actions_init(&keep);

    if (rc != 0)
        return rc;
    process_late_signals(&late);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &late);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    rc = posix_spawn_file_actions_adddup2(&keep, channel, channel);
    while (rc == 0 && slice_cut(&sockets, ' ', &word))
        if (slice_u64(word, &fd))
            rc = posix_spawn_file_actions_adddup2(&keep, (int)fd, (int)fd);
    if (rc == 0)
        rc = posix_spawnp(&p->upgrade->child, file, &keep, &attr, p->argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&keep);
    return rc;
}

static int
spawn(struct process *p, const char *file, int channel, struct err *e)
{
    struct buf sockets = { 0 }, text = { 0 };
    char **env = NULL;
    int fds[2], rc = ENOMEM;

    front_sockets(p->front, &sockets);
    if (p->admin != NULL)
        for (size_t i = 0, n = admin_sockets(p->admin, fds); i < n; i++)
            buf_printf(&sockets, " %d", fds[i]);
    buf_printf(&text, TAKEOVER "=%d %ld %d %.*s", TAKEOVER_VERSION, (long)getpid(), channel,
        (int)sockets.n, sockets.p);
    buf_addc(&text, '\0');
    if (!sockets.failed && !text.failed && (env = environment(text.p)) != NULL)
        rc = run_file(p, file, channel, buf_slice(&sockets), env);
    buf_free(&sockets);
    buf_free(&text);
    free(env);
    return rc == 0 ? 0 : err_set(e, rc, "%s: %s", file, strerror(rc));
}

static void on_heard(evutil_socket_t fd, short what, void *arg);

static int
begin(struct process *p, const char *file, struct err *e)
{
    struct upgrade *u = p->upgrade;
    int pair[2], rc;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == -1)
        return err_set(e, errno, "socketpair: %s", strerror(errno));
    u->heard = event_new(loop_base(p->admin_loop), pair[0], EV_READ | EV_PERSIST, on_heard, p);
    rc = u->heard == NULL || event_add(u->heard, NULL) == -1 ? err_set(e, ENOMEM, "out of memory") :
        spawn(p, file, pair[1], e);
    close(pair[1]);
    u->channel = pair[0];
    if (rc == -1)
        return -1;
    u->stage = STARTING;
    u->deadline_us = now_us() + START_US;
    timer_set(&u->step, STEP_US);
    return 0;
}

static void
hang_up(struct upgrade *u)
{
    if (u->heard != NULL)
        event_free(u->heard);
    u->heard = NULL;
    if (u->channel != -1)
        close(u->channel);
    u->channel = -1;
}

/* ---- when it fails --------------------------------------------------------------------------- */

/* Its end is waited for: what it holds is free then. One that ends by itself closes its descriptors
 * first; how it ended is known a moment later. */
static void
bury(struct upgrade *u, bool ends, char *how, size_t cap)
{
    int status = 0, tries = ends ? BURY_US / STEP_US : 0;
    pid_t found;

    hang_up(u);
    if (u->child <= 0) {
        snprintf(how, cap, "did not start");
        return;
    }
    while ((found = waitpid(u->child, &status, WNOHANG)) != u->child && tries-- > 0)
        usleep(STEP_US);
    if (found != u->child) {
        kill(u->child, SIGKILL);
        waitpid(u->child, &status, 0);
    }
    u->child = 0;
    if (WIFEXITED(status))
        snprintf(how, cap, "ended with exit code %d", WEXITSTATUS(status));
    else
        snprintf(how, cap, "was ended by signal %d", WTERMSIG(status));
}

static void
release(struct process *p)
{
    front_hold(p->front, CONN_TAKES);
    if (p->writes != NULL)
        writes_hold(p->writes, false);
    if (p->admin != NULL)
        admin_hold(p->admin, false);
}

/* Nothing was given up yet. why: NULL: how the successor ended says it. */
static void
go_on(struct process *p, const char *why)
{
    struct upgrade *u = p->upgrade;
    bool held = u->stage > STARTING;
    char how[64];

    u->stage = NONE;
    bury(u, why == NULL, how, sizeof how);
    timer_clear(&u->step);
    if (held)
        release(p);
    COUNT(upgrade_failures);
    log_error("upgrade failed: %s%s; this process goes on", why != NULL ? why : "the new process ",
        why != NULL ? "" : how);
    service_notify("STATUS=serving; the last upgrade failed, see the log");
}

/* It had journal and disk tier, or was to have them. */
static void
try_self(struct process *p, bool ends)
{
    struct upgrade *u = p->upgrade;
    struct err e;
    char how[64];

    bury(u, ends, how, sizeof how);
    u->stage = NONE;
    timer_clear(&u->step);
    if (u->terminate) {
        log_info("SIGTERM: the new process %s, and this one ends", how);
        process_terminate(p);
        return;
    }
    COUNT(upgrade_failures);
    if (!u->again) {
        u->again = true;
        log_error("upgrade failed: the new process %s after it was handed over to; the program of "
            "this one is started to go on", how);
        if (begin(p, "/proc/self/exe", &e) == 0)
            return;
        snprintf(how, sizeof how, "cannot be started: %.40s", e.text);
    }
    log_error("upgrade failed: the process that was to go on %s; this one ends", how);
    p->exit_code = 1;
    process_terminate(p);
}

static void
failed(struct process *p, const char *why)
{
    if (p->upgrade->stage == GOING || p->upgrade->again)
        try_self(p, why == NULL);
    else
        go_on(p, why);
}

/* ---- step by step ---------------------------------------------------------------------------- */

static bool
is_still(struct process *p)
{
    bool still = front_held(p->front) && request_bound() == 0;
    struct tier_figures f;

    if (tier_figures(p->tiers, TIER_DISK, &f))
        still = still && f.queued_bytes < QUEUED_MAX;
    still = (p->writes == NULL || writes_hold(p->writes, true)) && still;
    return (p->admin == NULL || admin_hold(p->admin, true)) && still;
}

static void
go(struct process *p)
{
    struct upgrade *u = p->upgrade;
    const struct takeover_message m = { TAKEOVER_GO, p->upgrades + 1 };

    if (!u->again) {
        admin_stop(&p->admin);
        request_unbind();
        if (p->writes != NULL)
            writes_drain(p->writes);
        watchdog_only(p->watchdog, p->nloops);
        writes_close(&p->writes);
        bus_yield(p->bus);
        tiers_yield(p->tiers);
    }
    u->stage = GOING;
    u->deadline_us = u->again ? INT64_MAX : now_us() + START_US;        /* behind it is nobody */
    if (send(u->channel, &m, sizeof m, MSG_NOSIGNAL) != sizeof m)
        failed(p, NULL);
}

/* No more than a drain may take. */
static int64_t
patience_us(const struct process *p)
{
    int64_t drain_us = p->conf->drain_ms * 1000;

    return drain_us < PATIENCE_MIN_US ? PATIENCE_MIN_US :
        drain_us < PATIENCE_US ? drain_us : PATIENCE_US;
}

static void
on_step(void *arg)
{
    struct process *p = arg;
    struct upgrade *u = p->upgrade;
    int64_t now = now_us();

    timer_set(&u->step, STEP_US);
    if (now > u->deadline_us) {
        failed(p, u->stage == ENDING_WRITES || u->stage == HOLDING ?
            "writes that are under way, or what the disk tier has to write, did not end in time" :
            "the new process did not say in 60 s that it is ready");
        return;
    }
    if (u->stage == ENDING_WRITES && is_still(p)) {
        u->stage = HOLDING;
        u->since_us = now;
        front_hold(p->front, CONN_HOLDS);
    } else if (u->stage == HOLDING && is_still(p)) {
        go(p);
    }
}

static void
on_ready(struct process *p)
{
    struct upgrade *u = p->upgrade;

    if (u->again) {
        go(p);
        return;
    }
    log_info("upgrade: process %ld is ready; %u writes are under way here", (long)u->child,
        request_bound());
    u->stage = ENDING_WRITES;
    u->deadline_us = now_us() + patience_us(p);
    front_hold(p->front, CONN_HOLDS_WRITES);
}

/* A drain is what is left: its end is the end of the process. */
static void
on_serves(struct process *p)
{
    struct upgrade *u = p->upgrade;

    u->stage = DONE;
    timer_clear(&u->step);
    event_free(u->heard);
    u->heard = NULL;
    COUNT(upgrades);
    log_info("upgrade: process %ld serves; requests waited for %lld ms; what is under way ends "
        "here, within %lld ms", (long)u->child, (long long)((now_us() - u->since_us) / 1000),
        (long long)p->conf->drain_ms);
    service_notify("MAINPID=%ld\nSTATUS=serving\nWATCHDOG=1", (long)u->child);
    service_mute();
    if (u->terminate)
        kill(u->child, SIGTERM);
    front_give(p->front, u->channel);
    process_drain(p);
}

static void
on_heard(evutil_socket_t fd, short what, void *arg)
{
    struct process *p = arg;
    struct upgrade *u = p->upgrade;
    struct takeover_message m = { 0 };
    ssize_t n = recv(fd, &m, sizeof m, MSG_DONTWAIT);

    (void)what;
    if (n == -1 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == sizeof m && m.word == TAKEOVER_READY && u->stage == STARTING)
        on_ready(p);
    else if (n == sizeof m && m.word == TAKEOVER_SERVES && u->stage == GOING)
        on_serves(p);
    else
        failed(p, NULL);
}

/* ---- the signals ----------------------------------------------------------------------------- */

void
upgrade_begin(struct process *p)
{
    struct upgrade *u = p->upgrade;
    struct err e;

    if (upgrade_under_way(p) || p->drain_until_us != 0) {
        log_warn("SIGUSR2: %s already", p->drain_until_us != 0 ? "this process ends" :
            "an upgrade is under way");
        return;
    }
    if (getpid() == 1) {                /* of a container, or of a machine */
        log_error("upgrade refused: this is process 1, with which all others end; start another "
            "container instead");
        COUNT(upgrade_failures);
        return;
    }
    if (u == NULL && ((u = calloc(1, sizeof *u)) == NULL ||
        timer_init(&u->step, p->admin_loop, on_step, p) == -1)) {
        free(u);
        log_error("upgrade failed: out of memory; this process goes on");
        return;
    }
    p->upgrade = u;
    u->channel = -1;
    log_info("SIGUSR2: upgrade: %s is started", p->argv[0]);
    service_notify("STATUS=upgrading");
    if (begin(p, p->argv[0], &e) == -1)
        go_on(p, e.text);
}

bool
upgrade_cancel(struct process *p)
{
    struct upgrade *u = p->upgrade;

    if (!upgrade_under_way(p) || u->stage == DONE)
        return false;
    if (u->stage == GOING || u->again) {
        if (u->terminate)
            kill(u->child, SIGKILL);
        else
            log_info("SIGTERM: when process %ld serves, both drain; a second one does not wait for "
                "that", (long)u->child);
        u->terminate = true;
        return true;
    }
    go_on(p, "SIGTERM came before the new process was handed over to");
    return false;
}

/* A manager learns of the end of a process that another one started when that one has ended too. */
bool
upgrade_bereft(const struct process *p)
{
    siginfo_t how = { 0 };

    if (p->upgrade->stage != DONE || getenv("NOTIFY_SOCKET") == NULL ||
        waitid(P_PID, (id_t)p->upgrade->child, &how, WEXITED | WNOHANG | WNOWAIT) == -1 ||
        how.si_pid == 0 || (how.si_code == CLD_EXITED && how.si_status == 0))
        return false;
    log_error("upgrade: process %ld, which served, %s %d; this one ends at once, so that the "
        "service manager hears of it and starts it anew", (long)p->upgrade->child,
        how.si_code == CLD_EXITED ? "ended with exit code" : "was ended by signal", how.si_status);
    return true;
}

void
upgrade_free(struct process *p)
{
    struct upgrade *u = p->upgrade;

    if (u == NULL)
        return;
    hang_up(u);
    timer_fini(&u->step);
    free(u);
    p->upgrade = NULL;
}
