/*
 * A VFS of SQLite's over the default one, that knows what was synced, and can be full.
 *
 * Model    the files below a directory are watched: of each, what its last sync left (its bytes at
 *          its opening count as synced), and the writes since. vfs_after says what a loss of power
 *          at that moment leaves of them: what was synced, and any subset, torn at 512 bytes, of
 *          what was not; or, for the end of a process alone, all of it. A file that was never
 *          synced may not even be there. A write past vfs_full_at is refused as a full disk refuses
 *          it, and no sync succeeds after so many.
 * Threads  any, under one lock.
 */
#ifndef WRITE_VFS_H
#define WRITE_VFS_H

#include "write_kit.h"

#define VFS_SECTOR 512

struct vfs_change { struct vfs_change *next; int64_t offset; size_t n; bool cut; char bytes[]; };
struct vfs_file {
    struct vfs_file *next;
    char  name[128];
    unsigned opened;
    bool  there;                        /* for sure: it was synced once */
    struct buf synced;
    struct vfs_change *changes, **last;
};
struct vfs_handle {
    sqlite3_file base;
    struct vfs_file *file;              /* NULL: not watched */
    sqlite3_file *real;                 /* behind this */
};

static pthread_mutex_t vfs_mtx = PTHREAD_MUTEX_INITIALIZER;
static struct vfs_file *vfs_files;
static char vfs_below[128];
static _Atomic int64_t vfs_full_at = INT64_MAX;
static atomic_int vfs_syncs_left = INT32_MAX;
static sqlite3_vfs *vfs_real, vfs_ours;
static sqlite3_io_methods vfs_methods;

#define VFS_REAL(f) (((struct vfs_handle *)(f))->real)

/* ---- what is known of a file ----------------------------------------------------------------- */

static void
vfs_put(struct buf *b, int64_t offset, const char *bytes, size_t n)
{
    while (b->n < (size_t)offset)
        buf_addc(b, '\0');
    if ((size_t)offset + n > b->n)
        buf_reserve(b, (size_t)offset + n - b->n);
    memcpy(b->p + offset, bytes, n);
    if ((size_t)offset + n > b->n)
        b->n = (size_t)offset + n;
}

static void
vfs_note(struct vfs_file *f, int64_t offset, const void *bytes, size_t n, bool cut)
{
    struct vfs_change *c = malloc(sizeof *c + n);

    *c = (struct vfs_change){ .offset = offset, .n = n, .cut = cut };
    if (n != 0)
        memcpy(c->bytes, bytes, n);
    *f->last = c;
    f->last = &c->next;
}

static void
vfs_synced(struct vfs_file *f)
{
    for (struct vfs_change *c = f->changes, *next; c != NULL; c = next) {
        next = c->next;
        if (c->cut)
            f->synced.n = (size_t)c->offset < f->synced.n ? (size_t)c->offset : f->synced.n;
        else
            vfs_put(&f->synced, c->offset, c->bytes, c->n);
        free(c);
    }
    f->changes = NULL;
    f->last = &f->changes;
    f->there = true;
}

static void
vfs_read_all(struct vfs_file *f)
{
    int fd = open(f->name, O_RDONLY);
    ssize_t n;

    while (fd != -1 && (n = read(fd, buf_reserve(&f->synced, 65536), 65536)) > 0)
        f->synced.n += (size_t)n;
    if (fd != -1)
        close(fd);
    f->there = f->synced.n != 0;
}

static struct vfs_file *
vfs_watch(const char *name)
{
    struct vfs_file *f;

    for (f = vfs_files; f != NULL; f = f->next)
        if (strcmp(f->name, name) == 0)
            break;
    if (f == NULL) {
        f = calloc(1, sizeof *f);
        snprintf(f->name, sizeof f->name, "%s", name);
        f->last = &f->changes;
        vfs_read_all(f);
        f->next = vfs_files;
        vfs_files = f;
    }
    f->opened++;
    return f;
}

static void
vfs_unwatch(struct vfs_file *f)
{
    struct vfs_file **at = &vfs_files;

    if (--f->opened != 0)
        return;
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    vfs_synced(f);
    buf_free(&f->synced);
    free(f);
}

/* ---- what is left ---------------------------------------------------------------------------- */

enum vfs_end { VFS_PROCESS, VFS_POWER_NONE, VFS_POWER_SOME };

static void
vfs_apply(struct buf *b, const struct vfs_change *c, enum vfs_end end)
{
    if (end == VFS_POWER_NONE)
        return;
    if (c->cut) {
        if ((end == VFS_PROCESS || random_fast() % 2 == 0) && (size_t)c->offset < b->n)
            b->n = (size_t)c->offset;
        return;
    }
    for (size_t at = 0, n; at < c->n; at += n) {
        n = VFS_SECTOR - (size_t)(c->offset + (int64_t)at) % VFS_SECTOR;
        if (n > c->n - at)
            n = c->n - at;
        if (end == VFS_PROCESS || random_fast() % 2 == 0)
            vfs_put(b, c->offset + (int64_t)at, c->bytes + at, n);
    }
}

/* Into another directory. */
static __attribute__((unused)) void
vfs_after(const char *directory, enum vfs_end end)
{
    pthread_mutex_lock(&vfs_mtx);
    for (struct vfs_file *f = vfs_files; f != NULL; f = f->next) {
        struct buf b = { 0 };
        char path[256];
        int fd;

        buf_adds(&b, buf_slice(&f->synced));
        for (struct vfs_change *c = f->changes; c != NULL; c = c->next)
            vfs_apply(&b, c, end);
        snprintf(path, sizeof path, "%s%s", directory, strrchr(f->name, '/'));
        if (f->there || end == VFS_PROCESS || random_fast() % 2 == 0) {
            fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
            assert_true(fd != -1 && write(fd, b.p, b.n) == (ssize_t)b.n);
            close(fd);
        }
        buf_free(&b);
    }
    pthread_mutex_unlock(&vfs_mtx);
}

/* ---- SQLite's side --------------------------------------------------------------------------- */

static int
vfs_close(sqlite3_file *h)
{
    struct vfs_handle *v = (struct vfs_handle *)h;
    int rc = v->real->pMethods->xClose(v->real);

    pthread_mutex_lock(&vfs_mtx);
    if (v->file != NULL)
        vfs_unwatch(v->file);
    pthread_mutex_unlock(&vfs_mtx);
    return rc;
}

static int
vfs_write(sqlite3_file *h, const void *bytes, int n, sqlite3_int64 offset)
{
    struct vfs_handle *v = (struct vfs_handle *)h;
    int rc;

    if (v->file != NULL && offset + n > atomic_load(&vfs_full_at))
        return SQLITE_FULL;
    pthread_mutex_lock(&vfs_mtx);
    rc = v->real->pMethods->xWrite(v->real, bytes, n, offset);
    if (rc == SQLITE_OK && v->file != NULL)
        vfs_note(v->file, offset, bytes, (size_t)n, false);
    pthread_mutex_unlock(&vfs_mtx);
    return rc;
}

static int
vfs_truncate(sqlite3_file *h, sqlite3_int64 size)
{
    struct vfs_handle *v = (struct vfs_handle *)h;
    int rc;

    pthread_mutex_lock(&vfs_mtx);
    rc = v->real->pMethods->xTruncate(v->real, size);
    if (rc == SQLITE_OK && v->file != NULL)
        vfs_note(v->file, size, NULL, 0, true);
    pthread_mutex_unlock(&vfs_mtx);
    return rc;
}

static int
vfs_sync(sqlite3_file *h, int flags)
{
    struct vfs_handle *v = (struct vfs_handle *)h;

    (void)flags;                        /* the real disk's time is not what is tested */
    if (v->file != NULL && atomic_fetch_sub(&vfs_syncs_left, 1) <= 0)
        return SQLITE_IOERR_FSYNC;
    pthread_mutex_lock(&vfs_mtx);
    if (v->file != NULL)
        vfs_synced(v->file);
    pthread_mutex_unlock(&vfs_mtx);
    return SQLITE_OK;
}

static int
vfs_read(sqlite3_file *h, void *to, int n, sqlite3_int64 offset)
{
    return VFS_REAL(h)->pMethods->xRead(VFS_REAL(h), to, n, offset);
}
static int vfs_size(sqlite3_file *h, sqlite3_int64 *n)
{
    return VFS_REAL(h)->pMethods->xFileSize(VFS_REAL(h), n);
}
static int vfs_lock(sqlite3_file *h, int l) { return VFS_REAL(h)->pMethods->xLock(VFS_REAL(h), l); }
static int vfs_unlock(sqlite3_file *h, int l)
{
    return VFS_REAL(h)->pMethods->xUnlock(VFS_REAL(h), l);
}
static int vfs_reserved(sqlite3_file *h, int *out)
{
    return VFS_REAL(h)->pMethods->xCheckReservedLock(VFS_REAL(h), out);
}
static int vfs_control(sqlite3_file *h, int op, void *arg)
{
    if (op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE)
        return SQLITE_OK;               /* they would change the file behind our back */
    return VFS_REAL(h)->pMethods->xFileControl(VFS_REAL(h), op, arg);
}
static int vfs_sector(sqlite3_file *h) { return VFS_REAL(h)->pMethods->xSectorSize(VFS_REAL(h)); }
static int vfs_features(sqlite3_file *h)
{
    return VFS_REAL(h)->pMethods->xDeviceCharacteristics(VFS_REAL(h));
}
static int vfs_shm_map(sqlite3_file *h, int page, int n, int extend, void volatile **out)
{
    return VFS_REAL(h)->pMethods->xShmMap(VFS_REAL(h), page, n, extend, out);
}
static int vfs_shm_lock(sqlite3_file *h, int offset, int n, int flags)
{
    return VFS_REAL(h)->pMethods->xShmLock(VFS_REAL(h), offset, n, flags);
}
static void vfs_shm_barrier(sqlite3_file *h) { VFS_REAL(h)->pMethods->xShmBarrier(VFS_REAL(h)); }
static int vfs_shm_unmap(sqlite3_file *h, int delete)
{
    return VFS_REAL(h)->pMethods->xShmUnmap(VFS_REAL(h), delete);
}

static int
vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *h, int flags, int *out)
{
    struct vfs_handle *v = (struct vfs_handle *)h;
    bool watched = name != NULL && vfs_below[0] != '\0' && strstr(name, vfs_below) == name
        && strstr(name, ".part") == NULL
        && (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) != 0;
    int rc;

    (void)vfs;
    v->real = (sqlite3_file *)(v + 1);
    pthread_mutex_lock(&vfs_mtx);
    v->file = watched ? vfs_watch(name) : NULL;
    rc = vfs_real->xOpen(vfs_real, name, v->real, flags, out);
    if (rc != SQLITE_OK && v->file != NULL)
        vfs_unwatch(v->file);
    pthread_mutex_unlock(&vfs_mtx);
    v->base.pMethods = v->real->pMethods != NULL ? &vfs_methods : NULL;
    return rc;
}

static void
vfs_start(void)                         /* before SQLite is used */
{
    vfs_real = sqlite3_vfs_find(NULL);
    vfs_ours = *vfs_real;
    vfs_ours.zName = "watched";
    vfs_ours.pNext = NULL;
    vfs_ours.szOsFile += (int)sizeof(struct vfs_handle);
    vfs_ours.xOpen = vfs_open;
    vfs_methods = (sqlite3_io_methods){ 2, vfs_close, vfs_read, vfs_write, vfs_truncate, vfs_sync,
        vfs_size, vfs_lock, vfs_unlock, vfs_reserved, vfs_control, vfs_sector, vfs_features,
        vfs_shm_map, vfs_shm_lock, vfs_shm_barrier, vfs_shm_unmap, NULL, NULL };
    sqlite3_vfs_register(&vfs_ours, 1);
}

#endif
