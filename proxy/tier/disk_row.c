/*
 * Rows of the disk tier's file: putting one, removing one, making room.
 *
 * Model    an object is written if memory still has it and no purge forbids it (store_parts_of,
 *          store_may_keep); a purge that is told later stands in the ring behind it and removes
 *          the row. What memory evicted before its turn is not written, and takes an older response
 *          of its kind along, which must not be found in its place. Of a key's variants the newest
 *          are kept, as many as DISK_VARIANTS says.
 *          Room is made before a row is put, by eviction within the same transaction; what that
 *          frees is overwritten by what comes, so the file stays as large as it has become.
 * Threads  the writer's; disk_variant and disk_tag: any.
 */
#include "tier/disk.h"

#include <sched.h>

#include "stats/stats.h"

#define ROW_PAGES 4                     /* of thin tables and indexes that a row touches */
#define PAYLOAD   (DISK_PAGE - 4)       /* of an overflow page */
#define TAGS_MAX  (256 + 2 * STORE_GROUPS_MAX + 1)

/* ---- removing ------------------------------------------------------------------------------ */

static uint32_t
pages_of(uint64_t bytes)
{
    return (uint32_t)(bytes / PAYLOAD) + ROW_PAGES;
}

int
disk_row_remove(struct disk *d, uint32_t id)
{
    sqlite3_stmt *row = d->st[W_ROW];
    uint64_t tags[TAGS_MAX];
    size_t n = 0;
    int rc;

    sqlite3_bind_int64(row, 1, id);
    rc = sqlite3_step(row);
    if (rc == SQLITE_ROW) {
        n = (size_t)sqlite3_column_bytes(row, 1);
        n = n < sizeof tags ? n : sizeof tags;
        if (n > 0)
            memcpy(tags, sqlite3_column_blob(row, 1), n);
        d->txn_pages += pages_of((uint64_t)sqlite3_column_int64(row, 0)) +
            (uint32_t)(n / sizeof tags[0]);
    }
    sqlite3_reset(row);
    for (size_t i = 0; i < n / sizeof tags[0] && rc == SQLITE_ROW; i++) {
        sqlite3_bind_int64(d->st[W_DEL_TAG], 1, (int64_t)tags[i]);
        sqlite3_bind_int64(d->st[W_DEL_TAG], 2, id);
        rc = disk_write_step(d, W_DEL_TAG) == SQLITE_OK ? SQLITE_ROW : sqlite3_errcode(d->db);
    }
    for (int st = W_DEL; st <= W_DEL_VALUE && rc == SQLITE_ROW; st++) {
        sqlite3_bind_int64(d->st[st], 1, id);
        rc = disk_write_step(d, st) == SQLITE_OK ? SQLITE_ROW : sqlite3_errcode(d->db);
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return rc;
    index_remove(&d->index, id);
    return SQLITE_OK;
}

/* *room: false where nothing can be evicted, as long as the index is not loaded. */
static int
make_room(struct disk *d, uint32_t pages, bool *room)
{
    uint32_t now;
    int rc;

    *room = false;
    while ((rc = disk_write_split(d)) == SQLITE_OK &&
        (rc = disk_write_used(d, &now)) == SQLITE_OK) {
        uint32_t victim;

        *room = now + pages <= d->high_pages;
        if (*room || (victim = index_victim(&d->index)) == 0)
            return SQLITE_OK;
        if ((rc = disk_row_remove(d, victim)) != SQLITE_OK)
            return rc;
        COUNT(disk_evictions);
    }
    return rc;
}

/* ---- a response ---------------------------------------------------------------------------- */

uint64_t
disk_variant(struct slice vary, struct slice variant)
{
    struct buf b = { 0 };
    uint64_t hash;

    if (vary.n == 0)
        return 0;
    buf_adds(&b, vary);
    buf_addc(&b, '\0');
    buf_adds(&b, variant);
    hash = b.failed ? key_hash(variant) : key_hash(buf_slice(&b));
    buf_free(&b);
    return hash != 0 ? hash : 1;
}

uint64_t
disk_tag(char kind, struct slice text)
{
    return key_hash(text) * 0x9e3779b97f4a7c15u ^ (uint64_t)kind;   /* 2^64 / golden ratio */
}

struct copy { struct buf b; struct body *body; uint64_t stamp; bool good; };

/* Under a lock of the store. */
static void
copy_parts(void *arg, const struct store_parts *p)
{
    struct copy *c = arg;

    if ((c->good = value_begin(p, &c->b))) {
        c->body = body_ref(p->body);
        c->stamp = p->stamp;
    }
}

static void
copy_body(struct copy *c)
{
    struct body_cursor at = { 0 };
    uint64_t left = body_size(c->body);

    while (left > 0) {
        struct iovec v[16];
        size_t n = body_pieces(c->body, &at, body_size(c->body), v, NELEM(v));

        for (size_t i = 0; i < n; i++) {
            buf_add(&c->b, v[i].iov_base, v[i].iov_len);
            body_skip(c->body, &at, v[i].iov_len);
            left -= v[i].iov_len;
        }
    }
    body_unref(&c->body);
}

/* What it replaces, as store_put has it, and what is over the limit of variants. */
static int
replace(struct disk *d, const struct key *k, uint64_t variant)
{
    sqlite3_stmt *rows = d->st[W_VARIANTS];
    uint32_t go[DISK_VARIANTS * 2];
    size_t n = 0, kept = 0;
    int rc;

    sqlite3_bind_int64(rows, 1, (int64_t)k->hash);
    while ((rc = sqlite3_step(rows)) == SQLITE_ROW && n < NELEM(go)) {
        uint64_t theirs = (uint64_t)sqlite3_column_int64(rows, 1);

        if (variant == 0 || theirs == 0 || theirs == variant || ++kept >= DISK_VARIANTS)
            go[n++] = (uint32_t)sqlite3_column_int64(rows, 0);
    }
    sqlite3_reset(rows);
    rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
    for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
        rc = disk_row_remove(d, go[i]);
    return rc;
}

static int
put_tags(struct disk *d, uint32_t id, const uint64_t *tags, size_t n)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < n && rc == SQLITE_OK; i++) {
        sqlite3_bind_int64(d->st[W_PUT_TAG], 1, (int64_t)tags[i]);
        sqlite3_bind_int64(d->st[W_PUT_TAG], 2, id);
        rc = disk_write_step(d, W_PUT_TAG);
    }
    return rc;
}

/* A group counts twice: with its origin, and without. */
static size_t
list_tags(const struct store_parts *p, uint64_t tags[TAGS_MAX])
{
    const struct key *k = p->key;
    size_t n = 0;

    for (size_t i = 0; i < p->ntags; i++)
        tags[n++] = disk_tag(TAG_OF_TAG, p->tags[i]);
    for (size_t i = 0; i < p->ngroups; i++) {
        struct slice g = p->groups[i];
        const char *wall = memchr(g.p, '\0', g.n);

        tags[n++] = disk_tag(TAG_OF_GROUP, g);
        tags[n++] = disk_tag(TAG_OF_GROUP, (struct slice){ wall, (size_t)(g.p + g.n - wall) });
    }
    if (k->bytes.n > k->url_n)
        tags[n++] = disk_tag(TAG_OF_URL, (struct slice){ k->bytes.p, k->url_n });
    return n;
}

static int
put_row(struct disk *d, uint32_t id, const struct store_parts *p, struct slice value)
{
    sqlite3_stmt *put = d->st[W_PUT], *content = d->st[W_PUT_VALUE];
    uint64_t tags[TAGS_MAX];
    size_t n = list_tags(p, tags);
    int rc;

    d->txn_pages += pages_of(value.n) + (uint32_t)n;
    sqlite3_bind_int64(put, 1, id);
    sqlite3_bind_int64(put, 2, (int64_t)p->key->hash);
    sqlite3_bind_int64(put, 3, (int64_t)disk_variant(p->vary, p->variant));
    sqlite3_bind_int64(put, 4, (int64_t)p->route_id);
    sqlite3_bind_int64(put, 5, p->meta.response_ms);
    sqlite3_bind_int64(put, 6, (int64_t)value.n);
    sqlite3_bind_text(put, 7, p->key->bytes.p, (int)p->key->url_n, SQLITE_STATIC);
    sqlite3_bind_blob(put, 8, tags, (int)(n * sizeof tags[0]), SQLITE_STATIC);
    if ((rc = disk_write_step(d, W_PUT)) != SQLITE_OK)
        return rc;
    sqlite3_bind_int64(content, 1, id);
    sqlite3_bind_blob64(content, 2, value.p, value.n, SQLITE_STATIC);
    rc = disk_write_step(d, W_PUT_VALUE);
    return rc == SQLITE_OK ? put_tags(d, id, tags, n) : rc;
}

static int
keep(struct disk *d, const struct store_parts *p, struct slice value)
{
    uint64_t variant = disk_variant(p->vary, p->variant);
    bool room = false;
    uint32_t id;
    int rc = disk_write_begin(d);

    if (rc == SQLITE_OK)
        rc = replace(d, p->key, variant);
    if (rc == SQLITE_OK)
        rc = make_room(d, pages_of(value.n), &room);
    if (rc != SQLITE_OK || !room || (id = index_take(&d->index)) == 0) {
        COUNT(disk_drops);
        return rc;
    }
    if ((rc = put_row(d, id, p, value)) != SQLITE_OK) {
        COUNT(disk_drops);
        return rc;
    }
    index_put(&d->index, id, p->key->hash, value.n);
    COUNT(disk_stores);
    return SQLITE_OK;
}

/* The purges that were taken from the ring must be seen by what comes: the store tells of one just
 * before it publishes it. */
static bool
allowed(struct disk *d, const struct store_parts *p)
{
    while (store_stamp(d->store) < d->taken)
        sched_yield();
    return store_may_keep(d->store, p);
}

/* The value of an object that memory still has; else nothing is good. */
static void
copy_object(struct disk *d, struct object *o, struct copy *c, struct value *v)
{
    if (!store_parts_of(d->store, o, copy_parts, c) || !c->good)
        return;
    copy_body(c);
    if ((c->good = !c->b.failed)) {
        value_seal(&c->b);
        c->good = value_decode(buf_slice(&c->b), v) == VALUE_GOOD;
    }
}

int
disk_row_keep(struct disk *d, struct object *o)
{
    struct copy c = { .good = false };
    struct value_parts vp;
    struct value v;
    int rc = SQLITE_OK;

    copy_object(d, o, &c, &v);
    if (c.good) {
        value_to_parts(&v, &vp);
        vp.p.stamp = c.stamp;
        c.good = allowed(d, &vp.p);
    }
    if (c.good)
        rc = keep(d, &vp.p, buf_slice(&c.b));
    else
        rc = disk_purge_object(d, o);
    buf_free(&c.b);
    return rc;
}
