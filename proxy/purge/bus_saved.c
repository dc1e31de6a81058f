/*
 * How far purges were applied to what a restart finds again.
 *
 * Model    what is on disk outlives the process, and so must the position up to which it was
 *          purged: a file beside it, written over after entries were applied. The disk tier has
 *          heard of them by then, and keeps what it heard over kill -9, as it keeps this. A start
 *          goes on from there, as an instance does that was away: what came meanwhile is applied,
 *          and where the stream does not reach back everything on disk is in doubt. So it is where
 *          there is no such file yet. Nothing is synced: what a power failure leaves of the tier
 *          is thrown away by it.
 * Threads  the bus's; saved_open before it runs.
 */
#include "purge/bus.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Three numbers, and the hash of their text. */
#define TEXT_N 62
#define FILE_N (TEXT_N + 1 + 16 + 1)

static void
put(const struct bus *b, char line[FILE_N + 1])
{
    struct slice text = { line, TEXT_N };

    snprintf(line, FILE_N + 1, "%020llu %020llu %020llu", (unsigned long long)b->at.ms,
        (unsigned long long)b->at.n, (unsigned long long)b->count);
    snprintf(line + TEXT_N, FILE_N + 1 - TEXT_N, " %016llx\n", (unsigned long long)key_hash(text));
}

void
saved_put(struct bus *b)
{
    static struct log_limit limit;
    char line[FILE_N + 1];

    if (b->saved_fd == -1 || b->yielded || !b->begun || store_position_cmp(b->at, b->saved) == 0)
        return;
    put(b, line);
    if (pwrite(b->saved_fd, line, FILE_N, 0) != FILE_N)
        log_limited(&limit, LOG_WARN, "purge bus: the position cannot be kept (%s): after a "
            "restart what is on disk is purged once more, or validated", strerror(errno));
    else
        b->saved = b->at;
}

static void
take(struct bus *b, const char line[FILE_N])
{
    struct slice rest = { line, TEXT_N }, ms, n;
    char want[FILE_N + 1];

    if (slice_cut(&rest, ' ', &ms) && slice_cut(&rest, ' ', &n) && slice_u64(ms, &b->at.ms) &&
        slice_u64(n, &b->at.n) && slice_u64(rest, &b->count)) {
        put(b, want);
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
    snprintf(path, sizeof path, "%s/position", directory);
    b->saved_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (b->saved_fd == -1)
        return err_set(e, errno, "purge bus: %s: %s", path, strerror(errno));
    b->saved.ms = UINT64_MAX;           /* nothing, not even the beginning of the stream */
    if (pread(b->saved_fd, line, FILE_N, 0) == FILE_N)
        take(b, line);
    return 0;
}
