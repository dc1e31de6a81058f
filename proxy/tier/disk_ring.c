/*
 * The ring: purges that the file has not taken yet, where kill -9 does not reach them.
 *
 * Model    a file that is allocated and touched when it is made, mapped shared: what is copied into
 *          it is in the kernel's hands at once, and stays when the process ends in whatever way.
 *          While the tier is open it is one of tmpfs: a store to a page of the directory's own file
 *          may wait for the file system, and where the disk hangs all loops that purge would hang
 *          with it. The directory's file, `purges`, says how that one is called, and takes over
 *          what is in it when the tier is closed. Where there is no tmpfs, it serves itself. A
 *          container that is made anew after a kill has lost its tmpfs: then the tier begins empty.
 *          A purge is in it before store_purge returns; the writer's thread takes it
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
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
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
    uint64_t         other[2];          /* the name of the file of tmpfs; 0: none, this is all */
};
struct entry_head { uint32_t n; uint8_t kind, soft; uint16_t zero; uint64_t id, seq; };
_Static_assert(sizeof(struct ring_head) <= HEAD_SIZE && sizeof(struct entry_head) == 24, "layout");

static char *
bytes_at(const struct ring *r, uint64_t at)
{
    return (char *)r->head + HEAD_SIZE + at % r->head->size;
}

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

/* ---- the file of tmpfs ---------------------------------------------------------------------- */

/* What the service manager keeps for this service (systemd.exec(5)), else what all have. */
static const char *
other_directory(void)
{
    const char *dir = getenv("RUNTIME_DIRECTORY");
    struct statfs fs;

    if (dir == NULL || statfs(dir, &fs) == -1 || fs.f_type != TMPFS_MAGIC)
        dir = "/dev/shm";
    return statfs(dir, &fs) == 0 && fs.f_type == TMPFS_MAGIC ? dir : NULL;
}

/* NULL: there is none. */
static const char *
other_path(const uint64_t name[2], char out[PATH_MAX])
{
    const char *dir = name[0] != 0 ? other_directory() : NULL;
    int n = dir == NULL ? -1 : snprintf(out, PATH_MAX, "%s/weir-purges-%016llx%016llx", dir,
        (unsigned long long)name[0], (unsigned long long)name[1]);

    return n > 0 && n < PATH_MAX ? out : NULL;
}

static void
other_remove(const uint64_t name[2])
{
    char path[PATH_MAX];

    if (other_path(name, path) != NULL)
        unlink(path);
}

/* Mapped; NULL: it cannot be made. */
static struct ring_head *
other_make(const uint64_t name[2], size_t size)
{
    char path[PATH_MAX];
    int fd = other_path(name, path) == NULL ? -1 :
        open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    void *p = MAP_FAILED;

    if (fd == -1)
        return NULL;
    if (posix_fallocate(fd, 0, (off_t)size) == 0)
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED)
        unlink(path);
    close(fd);
    return p != MAP_FAILED ? p : NULL;
}

/* What it has, into h; false: it is not there, or not ours. */
static bool
other_read(const uint64_t name[2], struct ring_head *h, size_t size)
{
    char path[PATH_MAX];
    int fd = other_path(name, path) == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    bool good;

    if (fd == -1)
        return false;
    good = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
        st.st_size == (off_t)size && pread(fd, h, size, 0) == (ssize_t)size;
    close(fd);
    return good;
}

/* ---- opening -------------------------------------------------------------------------------- */

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

/* Is what is mapped what the last process left? With what is in tmpfs it becomes that. */
static bool
is_whole(struct ring *r)
{
    uint64_t name[2] = { r->head->other[0], r->head->other[1] };
    char boot[40];

    if (r->head->clean)
        return sound(r->head, r->size);
    boot_id(boot);
    if (boot[0] == '\0' || memcmp(r->head->boot, boot, sizeof boot) != 0)
        return false;
    return (name[0] == 0 || (other_read(name, r->head, r->size) &&
            memcmp(r->head->other, name, sizeof name) == 0 &&
            memcmp(r->head->boot, boot, sizeof boot) == 0)) && sound(r->head, r->size);
}

static int
take(struct ring *r, const char *path, size_t size, enum ring_state *was, struct err *e)
{
    if (map(r, path, size, e) == -1)
        return -1;
    if (is_whole(r)) {
        *was = RING_CLEAN;
        return 0;
    }
    other_remove(r->head->other);
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

/* A kill before the head is written leaves what was named there. */
int
ring_begin(struct ring *r)
{
    uint64_t was[2] = { r->head->other[0], r->head->other[1] }, name[2];
    struct ring_head *other;

    random_bytes(name, sizeof name);
    name[0] |= 1;
    r->head->clean = 0;
    r->head->last_seq = 0;
    boot_id(r->head->boot);
    if ((other = other_make(name, r->size)) == NULL) {
        memset(name, 0, sizeof name);
        log_info("cache.disk: no file of tmpfs can be made in %s; a disk that hangs holds up who "
            "purges", other_directory() != NULL ? other_directory() : "/dev/shm");
    } else {
        memcpy(other, r->head, r->size);
        memcpy(other->other, name, sizeof name);
    }
    memcpy(r->head->other, name, sizeof name);
    if (msync(r->head, r->size, MS_SYNC) == -1) {
        if (other != NULL)
            munmap(other, r->size);
        other_remove(name);
        return -1;
    }
    other_remove(was);
    if (other != NULL) {
        munmap(r->head, r->size);
        r->head = other;
    }
    return 0;
}

/* All of it, before the word that it is all. */
static bool
write_back(struct ring *r)
{
    struct ring_head *h = r->head;
    const char *p = (const char *)h;
    size_t n = 0;
    ssize_t now = 1;

    while (n < r->size && now > 0)
        if ((now = pwrite(r->fd, p + n, r->size - n, (off_t)n)) > 0)
            n += (size_t)now;
    if (n < r->size || fsync(r->fd) == -1)
        return false;
    h->clean = 1;
    memset(h->other, 0, sizeof h->other);
    return pwrite(r->fd, h, HEAD_SIZE, 0) == HEAD_SIZE && fsync(r->fd) == 0;
}

void
ring_close(struct ring *r, bool clean)
{
    uint64_t name[2] = { r->head->other[0], r->head->other[1] };

    if (clean && write_back(r))
        other_remove(name);
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
