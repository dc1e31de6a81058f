/*
 * What a restart finds again beside what is on disk: how far purges were applied, and own purges
 * that wait for Redis.
 *
 * Position what is on disk outlives the process, and so must the position up to which it was
 *          purged: a file beside it, written over after entries were applied. The disk tier has
 *          heard of them by then, and keeps what it heard over kill -9, as it keeps this. A start
 *          goes on from there, as an instance does that was away: what came meanwhile is applied,
 *          and where the stream does not reach back everything on disk is in doubt. So it is where
 *          there is no such file yet. Nothing is synced: what a power failure leaves of the tier
 *          is thrown away by it.
 * Waiting  what Redis did not take is written to a second file, each time that it is sent again and
 *          there is more of it (KEEP_RATE), and at the end. A start makes these purges once more:
 *          they commute, so that more is purged than need be, never less. What was purged in the
 *          SEND_RETRY_US before a kill -9 may be missing; in two seconds, of the largest file. One
 *          that is not whole stands for a purge of everything.
 * Threads  the bus's; saved_open before it runs.
 */
#include "purge/bus.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the position ---------------------------------------------------------------------------- */

/* Three numbers, and the hash of their text. */
#define TEXT_N 62
#define FILE_N (TEXT_N + 1 + 16 + 1)

static void
put(struct bus_place told, char line[FILE_N + 1])
{
    struct slice text = { line, TEXT_N };

    snprintf(line, FILE_N + 1, "%020llu %020llu %020llu", (unsigned long long)told.at.ms,
        (unsigned long long)told.at.n, (unsigned long long)told.count);
    snprintf(line + TEXT_N, FILE_N + 1 - TEXT_N, " %016llx\n", (unsigned long long)key_hash(text));
}

void
saved_put(struct bus *b)
{
    static struct log_limit limit;
    struct bus_place told = bus_told(b);
    char line[FILE_N + 1];

    if (b->saved_fd == -1 || b->yielded || !b->begun || store_position_cmp(told.at, b->saved) == 0)
        return;
    put(told, line);
    if (pwrite(b->saved_fd, line, FILE_N, 0) != FILE_N)
        log_limited(&limit, LOG_WARN, "purge bus: the position cannot be kept (%s): after a "
            "restart what is on disk is purged once more, or validated", strerror(errno));
    else
        b->saved = told.at;
}

static void
take(struct bus *b, const char line[FILE_N])
{
    struct slice rest = { line, TEXT_N }, ms, n;
    char want[FILE_N + 1];

    if (slice_cut(&rest, ' ', &ms) && slice_cut(&rest, ' ', &n) && slice_u64(ms, &b->at.ms) &&
        slice_u64(n, &b->at.n) && slice_u64(rest, &b->count)) {
        put((struct bus_place){ b->at, b->count }, want);
        b->begun = memcmp(want, line, FILE_N) == 0;
    }
    if (b->begun) {
        b->saved = b->at;
        store_position_begin(b->store, b->at);
    } else {
        b->at = (struct store_position){ 0 };
        b->count = 0;
    }
}

int
saved_open(struct bus *b, const char *directory, struct err *e)
{
    char path[4096], line[FILE_N];

    if (directory == NULL)
        return 0;
    snprintf(path, sizeof path, "%s/waiting", directory);
    if ((b->waiting = strdup(path)) == NULL)
        return err_set(e, ENOMEM, "purge bus: out of memory");
    snprintf(path, sizeof path, "%s/position", directory);
    b->saved_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (b->saved_fd == -1)
        return err_set(e, errno, "purge bus: %s: %s", path, strerror(errno));
    b->saved.ms = UINT64_MAX;           /* nothing, not even the beginning of the stream */
    if (pread(b->saved_fd, line, FILE_N, 0) == FILE_N)
        take(b, line);
    return 0;
}

/* ---- purges that wait ------------------------------------------------------------------------ */

static const char magic[16] = "weir waiting\n\0\1";

#define KEEP_RATE (8 << 20)             /* bytes a second */

/* Behind magic, each with its text behind it; then the hash of it all. */
struct kept {
    uint64_t id;
    uint32_t n;
    uint8_t  kind, soft, doubt, erase;
};

static void
keep(void *arg, const struct store_purge *p)
{
    const struct kept k = { .id = p->id, .n = (uint32_t)p->text.n, .kind = (uint8_t)p->kind,
        .soft = p->soft, .doubt = p->doubt, .erase = p->erase };

    buf_add(arg, &k, sizeof k);
    buf_adds(arg, p->text);
}

/* In one piece or not at all. */
static int
write_file(const char *path, struct slice s)
{
    char new[4096 + 8];
    ssize_t n;
    int fd;

    snprintf(new, sizeof new, "%s.new", path);
    fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd == -1)
        return errno;
    errno = ENOSPC;
    n = write(fd, s.p, s.n);
    if (close(fd) == 0 && n == (ssize_t)s.n && rename(new, path) == 0)
        return 0;
    return errno;
}

bool
waiting_put(struct bus *b)
{
    static struct log_limit limit;
    struct buf text = { 0 };
    uint64_t hash;
    int rc = 0;

    if (b->waiting == NULL)
        return false;
    buf_add(&text, magic, sizeof magic);
    if (!b->yielded && queue_waiting(&b->queue) > 0 &&
        queue_each(&b->queue, &b->kept_came, keep, &text)) {
        hash = key_hash(buf_slice(&text));
        buf_add(&text, &hash, sizeof hash);
        rc = text.failed ? ENOMEM : write_file(b->waiting, buf_slice(&text));
        b->kept = b->kept || rc == 0;
        b->keep_us = now_us() + (int64_t)text.n * SECOND_US / KEEP_RATE;
    }
    buf_free(&text);
    if (rc == 0)
        return true;
    b->kept_came = 0;
    log_limited(&limit, LOG_WARN, "purge bus: purges that wait for Redis cannot be kept in %s "
        "(%s): they are lost if this process ends before Redis has them", b->waiting, strerror(rc));
    return false;
}

void
waiting_forget(struct bus *b)
{
    if (!b->kept || b->yielded || queue_waiting(&b->queue) > 0)
        return;
    b->kept = false;
    unlink(b->waiting);
}

/* What is in the file; false: it is not whole, or cannot be read. */
static bool
read_file(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    uint64_t hash;
    struct stat st;
    ssize_t n;

    if (fd == -1)
        return errno == ENOENT;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        buf_reserve(out, (size_t)st.st_size) != NULL &&
        (n = read(fd, out->p, (size_t)st.st_size)) > 0)
        out->n = (size_t)n;
    close(fd);
    if (out->n < sizeof magic + sizeof hash || memcmp(out->p, magic, sizeof magic) != 0)
        return false;
    out->n -= sizeof hash;
    memcpy(&hash, out->p + out->n, sizeof hash);
    return hash == key_hash(buf_slice(out));
}

void
waiting_take(struct bus *b)
{
    struct buf text = { 0 };
    struct store_purged done;
    size_t at = sizeof magic, n = 0;
    struct kept k;

    if (b->waiting == NULL)
        return;
    if (!read_file(b->waiting, &text)) {
        log_warn("purge bus: %s is not whole: everything is purged in place of what waited for "
            "Redis when the process before ended", b->waiting);
        (void)store_purge(b->store, &(struct store_purge){ .kind = STORE_PURGE_ALL }, &done);
        n++;
    } else while (at + sizeof k <= text.n) {
        memcpy(&k, text.p + at, sizeof k);
        at += sizeof k + k.n;
        (void)store_purge(b->store, &(struct store_purge){ .kind = k.kind, .id = k.id,
            .soft = k.soft, .doubt = k.doubt, .erase = k.erase,
            .text = { text.p + at - k.n, k.n } }, &done);
        if (k.erase)                    /* the process before may not have come to its own */
            bus_erase_want(b);
        n++;
    }
    buf_free(&text);
    b->kept = n > 0;
    if (n > 0)
        log_info("purge bus: %zu purges that waited for Redis when the process before ended are "
            "made once more", n);
}
