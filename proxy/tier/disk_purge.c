/*
 * What a purge means for the disk tier's file: which rows, and that they go or are soft.
 *
 * Model    rows are found first, by index where the purge names a key, a tag or a group, else by
 *          looking at every URL; then they are changed, in as many transactions as it takes. To
 *          apply a purge twice does no harm, so one that was interrupted is begun anew. Hashes that
 *          collide purge too much.
 * Threads  the writer's.
 */
#include "tier/disk.h"

struct found { struct disk *d; struct buf ids; };

static void
note(struct found *f, sqlite3_stmt *st)
{
    uint32_t id = (uint32_t)sqlite3_column_int64(st, 0);

    buf_add(&f->ids, &id, sizeof id);
}

static int
ended(sqlite3_stmt *st, int rc)
{
    sqlite3_reset(st);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int
find(struct found *f, int statement, uint64_t what)
{
    sqlite3_stmt *st = f->d->st[statement];
    int rc;

    sqlite3_bind_int64(st, 1, (int64_t)what);
    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        note(f, st);
    return ended(st, rc);
}

/* A drop is of one response, and of what is no newer. */
static int
find_dropped(struct found *f, const struct ring_entry *e)
{
    sqlite3_stmt *st = f->d->st[W_VARIANTS];
    uint64_t variant = 0;
    int rc;

    if (e->text.n == sizeof variant)
        memcpy(&variant, e->text.p, sizeof variant);
    sqlite3_bind_int64(st, 1, (int64_t)e->id);
    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        if ((uint64_t)sqlite3_column_int64(st, 1) == variant &&
            sqlite3_column_int64(st, 2) <= (int64_t)e->seq)
            note(f, st);
    return ended(st, rc);
}

static int
find_by_url(struct found *f, const struct ring_entry *e)
{
    const struct store_purge p = { .kind = e->kind, .text = e->text };
    sqlite3_stmt *st = f->d->st[W_URLS];
    int rc;

    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct slice url = { (const char *)sqlite3_column_blob(st, 1),
            (size_t)sqlite3_column_bytes(st, 1) };

        if (e->kind == STORE_PURGE_ALL || store_purge_matches(&p, url))
            note(f, st);
    }
    return ended(st, rc);
}

static int
find_all(struct found *f, const struct ring_entry *e)
{
    int rc;

    switch (e->kind) {
    case RING_DROP:
        return find_dropped(f, e);
    case STORE_PURGE_URL:
        rc = find(f, W_BY_KEY, key_hash(e->text));
        return rc == SQLITE_OK ? find(f, W_BY_TAG, disk_tag(TAG_OF_URL, e->text)) : rc;
    case STORE_PURGE_TAG:
        return find(f, W_BY_TAG, disk_tag(TAG_OF_TAG, e->text));
    case STORE_PURGE_GROUP:
        return find(f, W_BY_TAG, disk_tag(TAG_OF_GROUP, e->text));
    case STORE_PURGE_ROUTE:
        return find(f, W_BY_ROUTE, e->id);
    default:
        return find_by_url(f, e);
    }
}

static int
soften(struct disk *d, uint32_t id)
{
    sqlite3_bind_int64(d->st[W_SOFTEN], 1, id);
    d->txn_pages++;
    return disk_write_step(d, W_SOFTEN);
}

int
disk_purge_apply(struct disk *d, const struct ring_entry *e)
{
    struct found f = { .d = d };
    int rc = find_all(&f, e);

    if (rc == SQLITE_OK && f.ids.failed)
        rc = SQLITE_NOMEM;
    for (size_t at = 0; at < f.ids.n && rc == SQLITE_OK; at += sizeof(uint32_t)) {
        uint32_t id;

        memcpy(&id, f.ids.p + at, sizeof id);
        if ((rc = disk_write_split(d)) == SQLITE_OK)
            rc = e->soft ? soften(d, id) : disk_row_remove(d, id);
    }
    buf_free(&f.ids);
    return rc;
}

struct ring_entry
disk_drop(const struct object *o, uint64_t *variant)
{
    struct store_identity id = store_identity(o);

    *variant = disk_variant(id.vary, id.variant);
    return (struct ring_entry){ .kind = RING_DROP, .id = key_hash(id.key),
        .seq = (uint64_t)o->meta.response_ms, .text = { (const char *)variant, sizeof *variant } };
}

int
disk_purge_object(struct disk *d, const struct object *o)
{
    uint64_t variant;
    struct ring_entry e = disk_drop(o, &variant);

    return index_may_have(&d->index, e.id) ? disk_purge_apply(d, &e) : SQLITE_OK;
}
