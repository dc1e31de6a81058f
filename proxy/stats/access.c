/*
 * Records of requests, and the access log: a line a request, as JSON or in the combined format, to
 * a file or to stdout.
 *
 * Model    a thread writes lines into a buffer of its own; the buffer goes out at 64 KiB, and once
 *          a second by stats_access_flush. Writes take turns, so that lines stay whole: what
 *          of a line reached a file before the disk was full is cut off again. The descriptor keeps
 *          its number over a reopen (dup3), so that nobody needs to wait for one.
 *          A pipe that is full is waited for 50 ms, no longer: workers must go on. What could not
 *          be written is dropped and counted; the sum is told once a minute, and at the end.
 * Threads  stats_access: any. A buffer has a lock, which only a flush contends for.
 */
#include "stats/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FLUSH_AT  65536
#define PIPE_WAIT 50                    /* ms */
#define TELL_EVERY_US 60000000

struct lines {                          /* one thread's */
    pthread_mutex_t lock;
    struct buf      b;
    uint64_t        n;
    struct lines   *next, *next_idle;   /* all; those without a thread */
};

atomic_uint stats_access_on;

static _Thread_local struct lines *mine;
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct lines *all, *idle;                    /* under list_lock */
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static pthread_mutex_t out_lock = PTHREAD_MUTEX_INITIALIZER;
static int   out = -1;                              /* the rest: under out_lock */
static char *out_path;                              /* owned; NULL: stdout or off */
static bool  out_torn;                              /* a pipe took part of a line */
static uint64_t lost;                               /* lines, not told yet */
static int     lost_error;                          /* of the last */
static int64_t tell_after_us;
static atomic_bool in_combined;

/* ---- writing --------------------------------------------------------------------------------- */

/* As much of s as the descriptor takes; how many bytes that was. A pipe or socket gets pieces
 * of PIPE_BUF at most, which it takes whole once poll says so, without blocking. */
static size_t
write_some(struct slice s, bool file)
{
    size_t done = 0;

    while (done < s.n) {
        struct pollfd p = { .fd = out, .events = POLLOUT };
        size_t piece = s.n - done;
        ssize_t n;

        if (!file && piece > 4096)
            piece = 4096;
        if (!file && poll(&p, 1, PIPE_WAIT) <= 0) {
            errno = EAGAIN;
            break;
        }
        n = write(out, s.p + done, piece);
        if (n == -1 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

static uint64_t
count_lines(struct slice s)
{
    uint64_t n = 0;

    for (const char *p = s.p, *end = p + s.n; p < end && (p = memchr(p, '\n', (size_t)(end - p)));
        p++)
        n++;
    return n;
}

static const char *
loss_remedy(int error)
{
    switch (error) {
    case ENOSPC: case EDQUOT: return "make room on its disk";
    case EAGAIN:              return "what reads it is too slow";
    case EFBIG:               return "rotate it (SIGUSR1 opens it again)";
    default:                  return "mend that, or have log.access name another file";
    }
}

/* Tells what was lost since the last time. Under out_lock. */
static void
tell_losses(void)
{
    if (lost == 0)
        return;
    log_warn("access log %s: %llu lines dropped: %s; %s", out_path != NULL ? out_path : "stdout",
        (unsigned long long)lost, strerror(lost_error), loss_remedy(lost_error));
    lost = 0;
    tell_after_us = now_us() + TELL_EVERY_US;
}

static void
write_out(struct slice s, uint64_t lines)
{
    struct slice whole = s;
    struct stat st;
    size_t done, torn;
    bool file;

    pthread_mutex_lock(&out_lock);
    file = out != -1 && fstat(out, &st) == 0 && S_ISREG(st.st_mode);
    if (out_torn && write_some(SLICE("\n"), file) == 1)
        out_torn = false;
    done = out != -1 && !out_torn ? write_some(s, file) : 0;
    if (done < s.n && out != -1) {
        int error = errno;

        whole.n = done;
        while (whole.n > 0 && whole.p[whole.n - 1] != '\n')
            whole.n--;
        torn = done - whole.n;
        if (torn > 0 &&
            (!file || fstat(out, &st) != 0 || ftruncate(out, st.st_size - (off_t)torn) != 0))
            out_torn = true;
        lost += lines - count_lines(whole);
        lost_error = error;
        COUNT_N(access_dropped, lines - count_lines(whole));
    }
    pthread_mutex_unlock(&out_lock);
}

static void
lines_flush(struct lines *l)            /* under its lock */
{
    if (l->b.n > 0)
        write_out(buf_slice(&l->b), l->n);
    l->b.n = 0;
    l->n = 0;
}

void
stats_access_flush(void)
{
    pthread_mutex_lock(&list_lock);
    for (struct lines *l = all; l != NULL; l = l->next) {
        pthread_mutex_lock(&l->lock);
        lines_flush(l);
        pthread_mutex_unlock(&l->lock);
    }
    pthread_mutex_unlock(&list_lock);
    pthread_mutex_lock(&out_lock);
    if (now_us() >= tell_after_us)
        tell_losses();
    pthread_mutex_unlock(&out_lock);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int
open_log(const char *path, struct err *e)
{
    int fd = path == NULL ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3) :
        open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);

    if (fd == -1)
        return err_set(e, errno,
            "access log %s: %s; check that its directory exists and is writable",
            path == NULL ? "stdout" : path, strerror(errno));
    return fd;
}

/* Under out_lock: fd takes the place of `out`. */
static void
replace(int fd)
{
    if (out == -1) {
        out = fd;
        return;
    }
    dup3(fd, out, O_CLOEXEC);
    close(fd);
}

int
stats_access_open(const char *path, bool combined, struct err *e)
{
    bool off = strcmp(path, "off") == 0, to_stdout = strcmp(path, "stdout") == 0;
    char *copy = off || to_stdout ? NULL : strdup(path);
    int fd = -1;

    if (!off && !to_stdout && copy == NULL)
        return err_set(e, ENOMEM, "access log %s: out of memory", path);
    if (!off && (fd = open_log(copy, e)) == -1) {
        free(copy);
        return -1;
    }
    stats_access_flush();               /* to where these lines belong */
    pthread_mutex_lock(&out_lock);
    tell_losses();                      /* while the name that they are of is known */
    if (!off)
        replace(fd);
    else if (out != -1)
        close(out), out = -1;
    free(out_path);
    out_path = copy;
    out_torn = false;
    tell_after_us = 0;
    pthread_mutex_unlock(&out_lock);
    atomic_store(&in_combined, combined);
    stats_access_want(ACCESS_LOGGED, !off);
    return 0;
}

int
stats_access_reopen(struct err *e)
{
    int fd, rc = 0;

    stats_access_flush();
    pthread_mutex_lock(&out_lock);
    if (out_path != NULL) {
        fd = open_log(out_path, e);
        if (fd != -1) {
            replace(fd);
            out_torn = false;
        }
        rc = fd == -1 ? -1 : 0;
    }
    pthread_mutex_unlock(&out_lock);
    return rc;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void
on_thread_end(void *arg)
{
    struct lines *l = arg;

    mine = NULL;
    pthread_mutex_lock(&list_lock);
    l->next_idle = idle;
    idle = l;
    pthread_mutex_unlock(&list_lock);
}

static void
make_key(void)
{
    if (pthread_key_create(&key, on_thread_end) != 0)
        log_fatal("access log: no thread key left");
}

static struct lines *
lines_mine(void)
{
    struct lines *l;

    if (LIKELY(mine != NULL))
        return mine;
    pthread_once(&once, make_key);
    pthread_mutex_lock(&list_lock);
    l = idle;
    if (l != NULL) {
        idle = l->next_idle;
    } else if ((l = calloc(1, sizeof *l)) != NULL) {
        pthread_mutex_init(&l->lock, NULL);
        l->next = all;
        all = l;
    }
    pthread_mutex_unlock(&list_lock);
    if (l != NULL)
        pthread_setspecific(key, l);
    mine = l;
    return l;
}

void
stats_access_want(unsigned who, bool on)
{
    if (on)
        atomic_fetch_or(&stats_access_on, who);
    else
        atomic_fetch_and(&stats_access_on, ~who);
}

void
access_text(struct buf *b, const char *name, struct slice value)
{
    if (value.p == NULL)
        return;
    buf_printf(b, ",\"%s\":\"", name);
    buf_json(b, value);
    buf_addc(b, '"');
}

void
access_json(struct buf *b, const struct stats_access *a)
{
    time_t seconds = (time_t)(a->wall_ms / 1000);
    char when[32];
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(b, "{\"time\":\"%s.%03dZ\"", when, (int)(a->wall_ms % 1000));
    access_text(b, "client", a->client);
    access_text(b, "method", a->method);
    access_text(b, "host", a->host);
    access_text(b, "target", a->target);
    access_text(b, "protocol", a->protocol);
    buf_printf(b, ",\"status\":%u,\"outcome\":\"%s\"", a->status,
        stats_outcome_names[a->outcome]);
    access_text(b, "route", a->route);
    buf_printf(b, ",\"duration_us\":%llu,\"bytes_in\":%llu,\"bytes_out\":%llu",
        (unsigned long long)a->us, (unsigned long long)a->bytes_in,
        (unsigned long long)a->bytes_out);
    access_text(b, "request_id", a->request_id);
    access_text(b, "user_agent", a->user_agent);
    access_text(b, "referer", a->referer);
    access_text(b, "cache_status", a->cache_status);
}

/* Between quotes: what could end the quotes or the line is written as \xHH, as Apache does. */
static void
put_quoted(struct buf *b, struct slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c == '"' || c == '\\' || c < 0x20 || c >= 0x7f)
            buf_printf(b, "\\x%02x", c);
        else
            buf_addc(b, (char)c);
    }
    if (s.n == 0)
        buf_addc(b, '-');
}

/* The request line as far as it is known, "-" where nothing of it is. */
static void
put_request(struct buf *b, const struct stats_access *a)
{
    put_quoted(b, a->method);
    if (a->target.p != NULL) {
        buf_addc(b, ' ');
        put_quoted(b, a->target);
    }
    if (a->protocol.p != NULL) {
        buf_addc(b, ' ');
        put_quoted(b, a->protocol);
    }
}

static void
line_combined(struct buf *b, const struct stats_access *a)
{
    time_t seconds = (time_t)(a->wall_ms / 1000);
    char when[40];
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(when, sizeof when, "%d/%b/%Y:%H:%M:%S +0000", &tm);
    put_quoted(b, a->client);
    buf_printf(b, " - - [%s] \"", when);
    put_request(b, a);
    buf_printf(b, "\" %u ", a->status);
    if (a->bytes_out > 0)
        buf_addu(b, a->bytes_out);
    else
        buf_addc(b, '-');
    buf_addz(b, " \"");
    put_quoted(b, a->referer);
    buf_addz(b, "\" \"");
    put_quoted(b, a->user_agent);
    buf_addz(b, "\"\n");
}

static void
log_record(const struct stats_access *a)
{
    struct lines *l = lines_mine();
    size_t before;

    if (l == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    before = l->b.n;
    if (atomic_load_explicit(&in_combined, memory_order_relaxed)) {
        line_combined(&l->b, a);
    } else {
        access_json(&l->b, a);
        buf_addz(&l->b, "}\n");
    }
    if (l->b.failed) {
        l->b.failed = false;
        l->b.n = before;
        COUNT(access_dropped);
    } else {
        l->n++;
    }
    if (l->b.n >= FLUSH_AT)
        lines_flush(l);
    pthread_mutex_unlock(&l->lock);
}

void
stats_access(const struct stats_access *a)
{
    unsigned who = atomic_load_explicit(&stats_access_on, memory_order_relaxed);

    if (who & ACCESS_LOGGED)
        log_record(a);
    if (who & ACCESS_TAPPED)
        taps_put(a);
}
