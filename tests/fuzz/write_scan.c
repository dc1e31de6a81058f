/*
 * A damaged journal, page by page: whatever the bytes are, what is given as a row has columns of
 * types that there are, within memory, and no more of them than there is room for.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "require.h"
#include "write/journal_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char directory[] = "/tmp/weir-fuzz-scan-XXXXXX";
static char file[64], wal[64];

static void
clean(void)
{
    unlink(file);
    unlink(wal);
    rmdir(directory);
}

static void
put(const char *path, const uint8_t *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    require(fd != -1 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}

static void
on_row(void *arg, uint64_t rowid, const struct scan_column *columns, unsigned n)
{
    uint64_t *sum = arg;

    require(n <= SCAN_COLUMNS);
    *sum += rowid;
    for (unsigned i = 0; i < n; i++) {
        require(columns[i].type == SQLITE_INTEGER || columns[i].type == SQLITE_TEXT ||
            columns[i].type == SQLITE_BLOB || columns[i].type == SQLITE_NULL);
        for (size_t k = 0; k < columns[i].bytes.n; k++)
            *sum += (unsigned char)columns[i].bytes.p[k];
    }
}

/* As the file and as its WAL: in frames, the pages lie elsewhere. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    volatile uint64_t sink;
    uint64_t sum = 0;

    if (file[0] == '\0') {
        require(mkdtemp(directory) != NULL && atexit(clean) == 0);
        snprintf(file, sizeof file, "%s/j", directory);
        snprintf(wal, sizeof wal, "%s/j-wal", directory);
    }
    put(file, data, n);
    put(wal, data, n);
    journal_scan(file, on_row, &sum);
    sink = sum;
    (void)sink;
    return 0;
}
