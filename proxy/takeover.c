/*
 * Taking over from a process that runs: the new one's part (takeover.h).
 *
 * Threads  the main thread. It waits for GO before any other runs.
 */
#include "takeover.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/front.h"
#include "stats/stats.h"

static bool
is_listed(struct slice list, uint64_t fd)
{
    struct slice word;
    uint64_t n;

    while (slice_cut(&list, ' ', &word))
        if (slice_u64(word, &n) && n == fd)
            return true;
    return false;
}

/* What libraries and plugins of the other opened without O_CLOEXEC would stay open as long as this
 * process: its peers could not tell that the other has closed it. */
static void
close_others(struct slice kept)
{
    DIR *all = opendir("/proc/self/fd");
    struct dirent *d;
    uint64_t fd;

    while (all != NULL && (d = readdir(all)) != NULL)
        if (slice_u64(slice_of(d->d_name), &fd) && fd > STDERR_FILENO && (int)fd != dirfd(all) &&
            !is_listed(kept, fd))
            close((int)fd);
    if (all != NULL)
        closedir(all);
}

bool
takeover_begin(struct process *p)
{
    const char *text = getenv(TAKEOVER);
    struct slice rest = slice_of(text), kept, version = { 0 }, pid = { 0 }, channel = { 0 };
    uint64_t v, parent, fd;
    struct err e;

    p->channel = -1;
    if (text == NULL)
        return false;
    slice_cut(&rest, ' ', &version);
    slice_cut(&rest, ' ', &pid);
    kept = rest;
    slice_cut(&rest, ' ', &channel);
    if (!slice_u64(version, &v) || !slice_u64(pid, &parent) || !slice_u64(channel, &fd) ||
        fd > INT32_MAX)
        log_fatal(TAKEOVER " is not what a process that is upgraded says: unset it");
    if (v != TAKEOVER_VERSION)
        log_fatal("upgrade: the process that runs hands over by version %llu of the rules, and "
            "this one takes over by version %d; restart it instead", (unsigned long long)v,
            TAKEOVER_VERSION);
    if (parent != (uint64_t)getppid())
        log_fatal(TAKEOVER " is of process %llu, which is not the one that started this: unset it",
            (unsigned long long)parent);
    p->channel = (int)fd;
    close_others(kept);
    if (fcntl(p->channel, F_SETFD, FD_CLOEXEC) == -1)
        log_fatal("upgrade: descriptor %d of " TAKEOVER ": %s", p->channel, strerror(errno));
    if (service_inherit(rest, &e) == -1)
        log_fatal("upgrade: %s", e.text);
    unsetenv(TAKEOVER);
    return true;
}

static bool
say(struct process *p, enum takeover_word word)
{
    const struct takeover_message m = { word, 0 };

    return send(p->channel, &m, sizeof m, MSG_NOSIGNAL) == sizeof m;
}

void
takeover_wait(struct process *p)
{
    struct takeover_message m = { 0 };
    ssize_t n;

    if (p->channel == -1)
        return;
    if (!say(p, TAKEOVER_READY))
        log_fatal("upgrade: the process that runs is gone: %s", strerror(errno));
    while ((n = recv(p->channel, &m, sizeof m, 0)) == -1 && errno == EINTR)
        continue;
    if (n != sizeof m || m.word != TAKEOVER_GO)
        log_fatal("upgrade: the process that runs goes on");
    p->upgrades = m.upgrades;
    COUNT_N(upgrades, m.upgrades);
}

void
takeover_end(struct process *p)
{
    if (p->taking != NULL)
        event_free(p->taking);
    p->taking = NULL;
    if (p->channel != -1)
        close(p->channel);
    p->channel = -1;
}

static void
on_channel(evutil_socket_t fd, short what, void *arg)
{
    struct process *p = arg;

    (void)what;
    if (!front_take(p->front, fd))
        takeover_end(p);
}

void
takeover_serve(struct process *p)
{
    if (p->channel == -1)
        return;
    p->taking = event_new(loop_base(p->admin_loop), p->channel, EV_READ | EV_PERSIST, on_channel,
        p);
    if (p->taking == NULL || event_add(p->taking, NULL) == -1)
        log_fatal("out of memory");
    if (!say(p, TAKEOVER_SERVES)) {
        log_warn("upgrade: the process that was taken over from is gone");
        takeover_end(p);
    }
}
