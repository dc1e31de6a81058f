/*
 * Errors, log lines and the clock.
 *
 * Model    a line is formatted on the stack and leaves in one write(2), so lines of several
 *          threads never mix. A log that cannot be written is not an error of a request's.
 */
#include "base/base.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

_Atomic enum log_level log_threshold = LOG_INFO;

int
err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;

    if (e == NULL)
        return -1;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    return -1;
}

static void PRINTF(3, 0)
log_write(enum log_level level, uint32_t left_out, const char *fmt, va_list ap)
{
    static const char *const name[] = { "error", "warn", "info", "debug" };
    int saved = errno;
    char line[2048];
    struct timespec ts;
    struct tm tm;
    size_t n;
    int more;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s ", ts.tv_nsec / 1000000,
        name[level]);
    if (left_out > 0)
        n += (size_t)snprintf(line + n, sizeof line - n, "(%" PRIu32 " like it left out) ",
            left_out);
    more = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    if (more > 0)
        n += (size_t)more < sizeof line - n - 1 ? (size_t)more : sizeof line - n - 2;
    for (size_t i = 0; i < n; i++)      /* a line stays one line, whatever a client sent */
        for (size_t k = slice_control((struct slice){ line + i, n - i }); k > 0; k--)
            line[i + k - 1] = '?';
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0) {
        /* nowhere left to say so */
    }
    errno = saved;
}

void
log_line(enum log_level level, const char *fmt, ...)
{
    va_list ap;

    if (level > log_threshold)
        return;
    va_start(ap, fmt);
    log_write(level, 0, fmt, ap);
    va_end(ap);
}

void
log_limited(struct log_limit *lim, enum log_level level, const char *fmt, ...)
{
    int64_t now = now_us(), next = atomic_load(&lim->next_us);
    va_list ap;

    if (level > log_threshold)
        return;
    if (now < next || !atomic_compare_exchange_strong(&lim->next_us, &next, now + 1000000)) {
        atomic_fetch_add(&lim->left_out, 1);
        return;
    }
    va_start(ap, fmt);
    log_write(level, atomic_exchange(&lim->left_out, 0), fmt, ap);
    va_end(ap);
}

void
log_fatal(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_write(LOG_ERROR, 0, fmt, ap);
    va_end(ap);
    exit(1);
}

int64_t
now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
wall_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}
