/*
 * The ring: purges that the file has not taken yet, where kill -9 does not reach them.
 *
 * Model    a file that is allocated and touched when it is made, mapped shared: what is copied into
 *          it is in the kernel's hands at once, without I/O, and stays when the process ends in
 *          whatever way. A purge is in it before store_purge returns; the writer's thread takes it
 *          out when it is committed. Where one does not fit, the ring says that all on disk is to
 *          go. What is done is overwritten: its text is of the world's, and may have been erased.
 *          The file is the tier's lock, too (flock), and remembers whether the tier was closed, and
 *          in which run of the machine it was opened: after a power failure neither it nor the
 *          database is what it was.
 * Threads  as disk.h says; what is copied is under disk.mtx, so no order of stores matters but
 *          that in which a kill could come between: an entry counts when `put` moves.
 */
#include "tier/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC     "weir purges\n\0\0\0\1"       /* 16 bytes, the last is the version */
#define HEAD_SIZE DISK_PAGE
#define RING_MIN  (64 * 1024)
#define BOOT_ID   "/proc/sys/kernel/random/boot_id"

struct ring_head {
    char             magic[16];
    char             boot[40];
    uint32_t         clean, overflow;
    uint64_t         last_seq;          /* of the last purge that was told, noted or not */
    uint64_t         size;              /* of the entries */
    _Atomic uint64_t put, freed;        /* bytes since it was made; their place is modulo size */
};
struct entry_head { uint32_t n; uint8_t kind, soft; uint16_t zero; uint64_t id, seq; };
_Static_assert(sizeof(struct ring_head) <= HEAD_SIZE && sizeof(struct entry_head) == 24, "layout");

static char *
bytes_at(const struct ring *r, uint64_t at)
{
    return (char *)r->head + HEAD_SIZE + at % r->head->size;
}

/* ---- opening -------------------------------------------------------------------------------- */

/* Empty where there is none to be had. */
static void
boot_id(char out[40])
{
    int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd != -1 ? read(fd, out, 39) : -1;

    memset(out + (n > 0 ? n : 0), 0, 40 - (size_t)(n > 0 ? n : 0));
    if (fd != -1)
        close(fd);
}

static int
lock(int fd, const char *path, struct err *e)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(e, errno, "cache.disk: another process has it open (it holds %s); stop that "
            "one, or give this one a cache.disk.path of its own", path);
    return err_set(e, errno, "cache.disk: cannot lock %s: %s", path, strerror(errno));
}

static int
map(struct ring *r, const char *path, size_t size, struct err *e)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, 0);

    if (p == MAP_FAILED)
        return err_set(e, errno, "cache.disk: cannot map %s: %s", path, strerror(errno));
    r->head = p;
    r->size = size;
    return 0;
}

/* Each block is there before it is mapped: a store to it cannot find the disk full. */
static int
make(struct ring *r, const char *path, int64_t bytes, struct err *e)
{
    int64_t size = bytes > RING_MIN ? bytes / DISK_PAGE * DISK_PAGE : RING_MIN;
    int rc = ftruncate(r->fd, 0) == -1 ? errno : posix_fallocate(r->fd, 0, HEAD_SIZE + size);

    if (rc != 0)
        return err_set(e, rc, "cache.disk: cannot make %s: %s", path, strerror(rc));
    if (map(r, path, HEAD_SIZE + (size_t)size, e) == -1)
        return -1;
    r->head->size = (uint64_t)size;
    memcpy(r->head->magic, MAGIC, sizeof r->head->magic);
    return 0;
}

static bool
sound(const struct ring_head *h, size_t size)
{
    return h->size == size - HEAD_SIZE && h->put >= h->freed && h->put - h->freed <= h->size;
}

static int
take(struct ring *r, const char *path, size_t size, enum ring_state *was, struct err *e)
{
    char boot[40];

    if (map(r, path, size, e) == -1)
        return -1;
    boot_id(boot);
    if (sound(r->head, size) && (r->head->clean ||
            (boot[0] != '\0' && memcmp(r->head->boot, boot, sizeof boot) == 0))) {
        *was = RING_CLEAN;
        return 0;
    }
    munmap(r->head, r->size);
    r->head = NULL;
    return make(r, path, (int64_t)size - HEAD_SIZE, e);
}

int
ring_open(struct ring *r, const char *path, int64_t bytes, enum ring_state *was, struct err *e)
{
    char magic[16] = "";
    struct stat st;
    int rc;

    *was = RING_NEW;
    *r = (struct ring){ .fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) };
    if (r->fd == -1)
        return err_set(e, errno, "cache.disk: cannot open %s: %s; the directory cache.disk.path is "
            "to be this user's to write in", path, strerror(errno));
    if (lock(r->fd, path, e) == -1)
        goto fail;
    if (fstat(r->fd, &st) == -1 || pread(r->fd, magic, sizeof magic, 0) == -1) {
        err_set(e, errno, "cache.disk: cannot read %s: %s", path, strerror(errno));
        goto fail;
    }
    if (st.st_size > 0 && memcmp(magic, MAGIC, sizeof magic - 1) != 0 && magic[0] != '\0') {
        err_set(e, 0, "cache.disk: %s is another program's file, and stays as it is; give "
            "cache.disk.path a directory of its own", path);
        goto fail;
    }
    *was = st.st_size > 0 ? RING_LOST : RING_NEW;
    rc = st.st_size > HEAD_SIZE && memcmp(magic, MAGIC, sizeof magic) == 0 ?
        take(r, path, (size_t)st.st_size, was, e) : make(r, path, bytes, e);
    if (rc == 0)
        return 0;

fail:
    close(r->fd);
    return -1;
}

int
ring_begin(struct ring *r)
{
    r->head->clean = 0;
    r->head->last_seq = 0;
    boot_id(r->head->boot);
    return msync(r->head, HEAD_SIZE, MS_SYNC);
}

void
ring_close(struct ring *r, bool clean)
{
    if (clean && msync(r->head, r->size, MS_SYNC) == 0) {
        r->head->clean = 1;
        msync(r->head, HEAD_SIZE, MS_SYNC);
    }
    munmap(r->head, r->size);
    close(r->fd);
    buf_free(&r->scratch);
}

/* ---- entries -------------------------------------------------------------------------------- */

/* Never over the end of the mapping: in two pieces where it wraps. */
static void
copy_in(struct ring *r, uint64_t where, const void *p, size_t n)
{
    size_t room = r->head->size - where % r->head->size, first = n < room ? n : room;

    if (first > 0)
        memcpy(bytes_at(r, where), p, first);
    if (n > first)
        memcpy(bytes_at(r, where + first), (const char *)p + first, n - first);
}

static uint64_t
span(size_t text)
{
    return (sizeof(struct entry_head) + text + 7) & ~(uint64_t)7;
}

void
ring_put(struct ring *r, const struct ring_entry *e)
{
    struct ring_head *h = r->head;
    struct entry_head eh = { .n = (uint32_t)e->text.n, .kind = e->kind, .soft = e->soft,
        .id = e->id, .seq = e->seq };
    bool whole = e->kind == RING_DROP || e->text.n <= h->size / 4;

    if (e->kind != RING_DROP)
        h->last_seq = e->seq;
    if (h->overflow || !whole || span(e->text.n) > h->size - (h->put - h->freed)) {
        h->overflow = 1;
        return;
    }
    copy_in(r, h->put, &eh, sizeof eh);
    copy_in(r, h->put + sizeof eh, e->text.p, e->text.n);
    atomic_store_explicit(&h->put, h->put + span(e->text.n), memory_order_release);
}

static struct slice
text_at(struct ring *r, uint64_t where, uint32_t n)
{
    size_t room = r->head->size - where % r->head->size;

    if (n <= room)
        return (struct slice){ bytes_at(r, where), n };
    buf_free(&r->scratch);
    buf_add(&r->scratch, bytes_at(r, where), room);
    buf_add(&r->scratch, bytes_at(r, where + room), n - room);
    return r->scratch.failed ? (struct slice){ NULL, 0 } : buf_slice(&r->scratch);
}

bool
ring_next(struct ring *r, uint64_t *at, struct ring_entry *e)
{
    const struct ring_head *h = r->head;
    struct entry_head eh;
    size_t first;

    if (*at < h->freed)
        *at = h->freed;
    if (*at == h->put)
        return false;
    first = h->size - *at % h->size < sizeof eh ? h->size - *at % h->size : sizeof eh;
    memcpy(&eh, bytes_at(r, *at), first);
    memcpy((char *)&eh + first, bytes_at(r, *at + first), sizeof eh - first);
    *e = (struct ring_entry){ .kind = eh.kind, .id = eh.id, .seq = eh.seq,
        .soft = eh.soft <= TIER_DOUBT ? eh.soft : TIER_FIRM };
    if (span(eh.n) <= h->put - *at && eh.n <= h->size)
        e->text = text_at(r, *at + sizeof eh, eh.n);
    if (e->text.p == NULL)              /* not what was written, or memory is out: all goes */
        *e = (struct ring_entry){ .kind = STORE_PURGE_ALL, .seq = e->seq };
    *at = span(eh.n) <= h->put - *at ? *at + span(eh.n) : h->put;
    return true;
}

bool
ring_overflowed(const struct ring *r, uint64_t *seq)
{
    *seq = r->head->last_seq;
    return r->head->overflow != 0;
}

static void
wipe(struct ring *r, uint64_t from, uint64_t to)
{
    size_t n = (size_t)(to - from), room = r->head->size - from % r->head->size;

    memset(bytes_at(r, from), 0, n < room ? n : room);
    if (n > room)
        memset(bytes_at(r, from + room), 0, n - room);
}

void
ring_free(struct ring *r, uint64_t at)
{
    uint64_t was = r->head->freed;

    atomic_store_explicit(&r->head->freed, at, memory_order_release);
    wipe(r, was, at);
}

void
ring_free_all(struct ring *r, uint64_t seq)
{
    if (r->head->last_seq == seq)
        r->head->overflow = 0;
    ring_free(r, r->head->put);
}

bool
ring_empty(const struct ring *r)
{
    return r->head->put == r->head->freed && !r->head->overflow;
}

uint64_t
ring_end(const struct ring *r)
{
    return r->head->put;
}
