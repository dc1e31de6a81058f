/*
 * Rows of a damaged file, found page by page without SQLite.
 *
 * Model    a table's rows lie in leaf pages, which SQLite finds by the pages above them. Where one
 *          of those is lost, every page of the file and of its WAL is looked at by itself: what has
 *          the form of a leaf of a table (file format 1.6) is taken apart, and its rows are given
 *          to the caller, whose checksums tell rows from noise. Rows that were deleted, and former
 *          versions of others, may be among them.
 * Threads  journal_open's.
 */
#include "write/journal_priv.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEAF         0x0d               /* of a table */
#define WAL_HEADER   32
#define FRAME_HEADER 24
#define ROW_MAX      ((uint64_t)64 << 20)       /* bytes; longer is noise, as is what is longer than
                                                   the file that it goes on in: a chain of pages may
                                                   lead back to itself */
/* Of a row: what fits a page whole, and else the least of it that lies there (1.6). */
#define LOCAL_MAX    (JOURNAL_PAGE - 35)
#define LOCAL_MIN    ((JOURNAL_PAGE - 12) * 32 / 255 - 23)
#define OVERFLOW     (JOURNAL_PAGE - 4)

struct scan {
    int        file;                    /* where rows that are longer than a page go on */
    uint64_t   size;                    /* ... its bytes */
    scan_row  *row;
    void      *arg;
    struct buf payload;                 /* owned */
};

/* Big endian, seven bits a byte, the ninth all eight. NULL: it goes beyond `end`. */
static const unsigned char *
varint(const unsigned char *p, const unsigned char *end, uint64_t *v)
{
    *v = 0;
    for (int i = 0; i < 9 && p < end; i++, p++) {
        if (i == 8) {
            *v = *v << 8 | *p;
            return p + 1;
        }
        *v = *v << 7 | (*p & 0x7f);
        if (*p < 0x80)
            return p + 1;
    }
    return NULL;
}

static int64_t
integer(const unsigned char *p, size_t n)       /* n bytes, signed */
{
    int64_t v = n != 0 && p[0] >= 0x80 ? -1 : 0;

    for (size_t i = 0; i < n; i++)
        v = (int64_t)((uint64_t)v << 8 | p[i]);
    return v;
}

/* One column of serial type `type` (2.1) at p; its length, or SIZE_MAX. */
static size_t
column_of(uint64_t type, const unsigned char *p, const unsigned char *end, struct scan_column *c)
{
    static const size_t sizes[10] = { 0, 1, 2, 3, 4, 6, 8, 8, 0, 0 };
    size_t n = type >= 12 ? (size_t)(type - 12) / 2 : type < 10 ? sizes[type] : SIZE_MAX;

    if (n > (size_t)(end - p))
        return SIZE_MAX;
    *c = (struct scan_column){ .type = type == 0 ? SQLITE_NULL : type < 12 ? SQLITE_INTEGER
        : type % 2 != 0 ? SQLITE_TEXT : SQLITE_BLOB, .bytes = { (const char *)p, n } };
    if (c->type == SQLITE_INTEGER)
        c->integer = type >= 8 ? (int64_t)type - 8 : integer(p, n);
    return n;
}

/* A record (2.1) to columns, and on to the caller. */
static void
give_record(struct scan *s, uint64_t rowid, const unsigned char *p, size_t n)
{
    struct scan_column columns[SCAN_COLUMNS];
    const unsigned char *end = p + n, *body, *type;
    uint64_t header, t;
    unsigned count = 0;

    type = varint(p, end, &header);
    if (type == NULL || header > n)
        return;
    for (body = p + header; type < p + header; count++) {
        size_t length;

        type = varint(type, p + header, &t);
        if (type == NULL || count == SCAN_COLUMNS)
            return;
        length = column_of(t, body, end, &columns[count]);
        if (length == SIZE_MAX)
            return;
        body += length;
    }
    s->row(s->arg, rowid, columns, count);
}

/* The rest of a row, from a chain of overflow pages. */
static bool
read_overflow(struct scan *s, uint32_t page, uint64_t n)
{
    while (n != 0 && page > 1) {
        unsigned char bytes[JOURNAL_PAGE];
        size_t part = n < OVERFLOW ? (size_t)n : OVERFLOW;

        if (pread(s->file, bytes, sizeof bytes, (off_t)(page - 1) * JOURNAL_PAGE)
            != (ssize_t)sizeof bytes)
            return false;
        buf_add(&s->payload, bytes + 4, part);
        memcpy(&page, bytes, sizeof page);
        page = be32toh(page);
        n -= part;
    }
    return n == 0 && !s->payload.failed;
}

static void
scan_cell(struct scan *s, const unsigned char *p, const unsigned char *end)
{
    uint64_t n, rowid, local;
    uint32_t page;

    if ((p = varint(p, end, &n)) == NULL || (p = varint(p, end, &rowid)) == NULL || n > ROW_MAX)
        return;
    local = n;
    if (n > LOCAL_MAX) {
        local = LOCAL_MIN + (n - LOCAL_MIN) % OVERFLOW;
        if (local > LOCAL_MAX)
            local = LOCAL_MIN;
    }
    if (local + (n > local ? sizeof page : 0) > (uint64_t)(end - p) || n - local > s->size)
        return;
    if (n == local) {
        give_record(s, rowid, p, (size_t)n);
        return;
    }
    s->payload.n = 0;
    buf_add(&s->payload, p, (size_t)local);
    memcpy(&page, p + local, sizeof page);
    if (read_overflow(s, be32toh(page), n - local))
        give_record(s, rowid, (const unsigned char *)s->payload.p, (size_t)n);
}

static void
scan_page(struct scan *s, const unsigned char *page)
{
    const unsigned char *end = page + JOURNAL_PAGE;
    size_t cells = (size_t)page[3] << 8 | page[4];

    if (page[0] != LEAF || 8 + 2 * cells > JOURNAL_PAGE)
        return;
    for (size_t i = 0; i < cells; i++) {
        size_t at = (size_t)page[8 + 2 * i] << 8 | page[9 + 2 * i];

        if (at < JOURNAL_PAGE)
            scan_cell(s, page + at, end);
    }
}

static void
scan_file(struct scan *s, const char *path, off_t first, off_t step)
{
    unsigned char page[JOURNAL_PAGE];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    for (off_t at = first; fd != -1 && pread(fd, page, sizeof page, at) == (ssize_t)sizeof page;
         at += step)
        scan_page(s, page);
    if (fd != -1)
        close(fd);
}

void
journal_scan(const char *path, scan_row *row, void *arg)
{
    struct scan s = { .file = open(path, O_RDONLY | O_CLOEXEC), .row = row, .arg = arg };
    char wal[PATH_MAX];
    struct stat st;

    s.size = s.file != -1 && fstat(s.file, &st) == 0 ? (uint64_t)st.st_size : 0;
    snprintf(wal, sizeof wal, "%s-wal", path);
    scan_file(&s, wal, WAL_HEADER + FRAME_HEADER, FRAME_HEADER + JOURNAL_PAGE);
    scan_file(&s, path, 0, JOURNAL_PAGE);
    buf_free(&s.payload);
    if (s.file != -1)
        close(s.file);
}
