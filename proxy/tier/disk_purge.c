/*
 * What a purge means for the disk tier's file: which rows, and that they go or are soft.
 *
 * Model    rows are found first, by index where the purge names a key, a tag or a group, else by
 *          looking at every URL, once for all purges of that sort that wait: their order does not
 *          matter, since nothing is put between them. Then the rows are changed, in as many
 *          transactions as it takes. To apply a purge twice does no harm, so one that was
 *          interrupted is begun anew. Hashes that collide purge too much.
 * Threads  the writer's.
 */
#include "tier/disk.h"

struct row { uint32_t id; enum tier_soft soft; };
struct found { struct disk *d; struct buf rows; };

static void
note(struct found *f, sqlite3_stmt *st, enum tier_soft soft)
{
    struct row r = { .id = (uint32_t)sqlite3_column_int64(st, 0), .soft = soft };

    buf_add(&f->rows, &r, sizeof r);
}

static int
ended(sqlite3_stmt *st, int rc)
{
    sqlite3_reset(st);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int
find(struct found *f, int statement, uint64_t what, enum tier_soft soft)
{
    sqlite3_stmt *st = f->d->st[statement];
    int rc;

    sqlite3_bind_int64(st, 1, (int64_t)what);
    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        note(f, st, soft);
    return ended(st, rc);
}

/* A drop is of one response, and of what is no newer and would have made way for it: of its
 * variant, and, where either has no Vary, of any. */
static int
find_dropped(struct found *f, const struct ring_entry *e)
{
    sqlite3_stmt *st = f->d->st[W_VARIANTS];
    uint64_t variant = 0;
    int rc;

    if (e->text.n == sizeof variant)
        memcpy(&variant, e->text.p, sizeof variant);
    sqlite3_bind_int64(st, 1, (int64_t)e->id);
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        uint64_t theirs = (uint64_t)sqlite3_column_int64(st, 1);

        if ((variant == 0 || theirs == 0 || theirs == variant) &&
            sqlite3_column_int64(st, 2) <= (int64_t)e->seq)
            note(f, st, TIER_FIRM);
    }
    return ended(st, rc);
}

/* Does any of them match? *soft: but none that is hard; the most of those. */
static bool
matches(const struct ring_entry *e, size_t n, struct slice url, enum tier_soft *soft)
{
    bool found = false;

    *soft = TIER_SOFT;
    for (size_t i = 0; i < n && *soft != TIER_FIRM; i++) {
        const struct store_purge p = { .kind = e[i].kind, .text = e[i].text };

        if (p.kind == STORE_PURGE_ALL || store_purge_matches(&p, url)) {
            found = true;
            *soft = e[i].soft == TIER_FIRM || e[i].soft > *soft ? e[i].soft : *soft;
        }
    }
    return found;
}

static int
find_by_url(struct found *f, const struct ring_entry *e, size_t n)
{
    sqlite3_stmt *st = f->d->st[W_URLS];
    int rc;

    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct slice url = { (const char *)sqlite3_column_blob(st, 1),
            (size_t)sqlite3_column_bytes(st, 1) };
        enum tier_soft soft;

        if (matches(e, n, url, &soft))
            note(f, st, soft);
    }
    return ended(st, rc);
}

static int
find_indexed(struct found *f, const struct ring_entry *e)
{
    int rc;

    switch (e->kind) {
    case RING_DROP:
        return find_dropped(f, e);
    case STORE_PURGE_URL:
        rc = find(f, W_BY_KEY, key_hash(e->text), e->soft);
        return rc == SQLITE_OK ? find(f, W_BY_TAG, disk_tag(TAG_OF_URL, e->text), e->soft) : rc;
    case STORE_PURGE_TAG:
        return find(f, W_BY_TAG, disk_tag(TAG_OF_TAG, e->text), e->soft);
    case STORE_PURGE_GROUP:
        return find(f, W_BY_TAG, disk_tag(TAG_OF_GROUP, e->text), e->soft);
    default:
        return find(f, W_BY_ROUTE, e->id, e->soft);
    }
}

bool
disk_purge_scans(const struct ring_entry *e)
{
    return e->kind != RING_DROP && e->kind != STORE_PURGE_URL && e->kind != STORE_PURGE_TAG &&
        e->kind != STORE_PURGE_GROUP && e->kind != STORE_PURGE_ROUTE;
}

static int
soften(struct disk *d, uint32_t id, enum tier_soft to)
{
    sqlite3_bind_int64(d->st[W_SOFTEN], 1, id);
    sqlite3_bind_int(d->st[W_SOFTEN], 2, (int)to);
    d->txn_pages++;
    return disk_write_step(d, W_SOFTEN);
}

int
disk_purge_apply(struct disk *d, const struct ring_entry *e, size_t n)
{
    struct found f = { .d = d };
    int rc = disk_purge_scans(e) ? find_by_url(&f, e, n) : find_indexed(&f, e);

    if (rc == SQLITE_OK && f.rows.failed)
        rc = SQLITE_NOMEM;
    for (size_t at = 0; at < f.rows.n && rc == SQLITE_OK; at += sizeof(struct row)) {
        struct row row;

        memcpy(&row, f.rows.p + at, sizeof row);
        if ((rc = disk_write_split(d)) == SQLITE_OK)
            rc = row.soft != TIER_FIRM ? soften(d, row.id, row.soft) : disk_row_remove(d, row.id);
    }
    buf_free(&f.rows);
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

    return index_may_have(&d->index, e.id) ? disk_purge_apply(d, &e, 1) : SQLITE_OK;
}
