/*
 * What the disk tier's own files share.
 *
 * Locks    renew -> mtx; index.lock and mtx are never held together. None is held while the store
 *          is called, but renew, by a reader.
 */
#ifndef WEIR_TIER_DISK_H
#define WEIR_TIER_DISK_H

#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>

#include "tier/value.h"

#define DISK_PAGE     4096
#define DISK_READERS  2
#define DISK_VARIANTS 32                /* rows of one key that are kept and looked at */
#define DISK_ASKS     256               /* keys that are read or wait for that; more are not asked
                                           for */
#define DISK_SPENT    64                /* rows that readers found useless, to be removed */
#define DISK_PATIENCE_US ((int64_t)1000000) /* a client waits no longer for what a disk has */
extern int64_t disk_erase_us;           /* nor who erases, for the word that it is done */

/* ---- the index in memory (disk_index.c) ----------------------------------------------------- */

enum slot_place { SLOT_OUT, SLOT_SMALL, SLOT_MAIN };

struct slot;
struct disk_index {
    pthread_mutex_t lock;               /* guards all; the writer alone changes what is there, so it
                                           may read its own without */
    struct slot   **chunks;             /* owned */
    uint32_t       *buckets;            /* owned: the newest slot of a chain; 0: none */
    uint32_t       *ghosts;             /* owned: fingerprints of what left the small queue */
    uint32_t        mask;               /* of buckets and ghosts */
    uint32_t        next, free;         /* never used; the list of those that were */
    uint32_t        live;
    uint32_t        cursor, last;       /* loading: rows up to cursor are there; last: of the rows
                                           that were there when it began */
    bool            loaded;
    uint32_t        head[3], tail[3];   /* queues by place: newest at the head */
    uint64_t        units[3];
};

int  index_init(struct disk_index *x, int64_t disk_size);
void index_fini(struct disk_index *x);
/* Empty; what is in the file is to be loaded anew. last: the largest row there. -1: memory is out,
 * nothing changes. */
int  index_reset(struct disk_index *x, uint32_t last);
/* A row of the file, in ascending order of id. -1: memory is out. */
int  index_load(struct disk_index *x, uint32_t id, uint64_t key, uint64_t bytes);
void index_loaded(struct disk_index *x);
/* A number for a new row, not yet in the index; 0: there is none (memory is out). */
uint32_t index_take(struct disk_index *x);
void index_put(struct disk_index *x, uint32_t id, uint64_t key, uint64_t bytes);
/* The number may be taken again. It need not be in the index. */
void index_remove(struct disk_index *x, uint32_t id);
/* The row to evict next, by S3-FIFO, its ghost left behind; 0: none is in the index. */
uint32_t index_victim(struct disk_index *x);
bool index_may_have(struct disk_index *x, uint64_t key);        /* any thread */
void index_touch(struct disk_index *x, uint32_t id, uint64_t key);      /* any thread: was read */

/* ---- the ring of purges (disk_ring.c) ------------------------------------------------------- */

#define RING_DROP 255                   /* a kind beside enum store_purge_kind */
struct ring_entry {
    uint8_t      kind;
    uint8_t      soft;                  /* enum tier_soft; FIRM: it goes */
    uint64_t     id;                    /* PURGE_ROUTE; DROP: the key's hash */
    uint64_t     seq;                   /* the purge's; DROP: that of the object's response_ms */
    struct slice text;                  /* of ring_next: good until ring_free */
};

struct ring_head;
struct ring {
    int               fd;               /* locked: this tier is ours */
    struct ring_head *head;             /* mapped; the entries behind it */
    size_t            size;             /* of the mapping */
    struct buf        scratch;          /* the text that wraps, in one piece */
};

enum ring_state {
    RING_NEW,                           /* was not there */
    RING_CLEAN,                         /* the file beside it is whole */
    RING_LOST,                          /* the machine stopped, or it is of another version: the
                                           file may be anything */
};
/* path: of its file. bytes: of a new one. -1: it is another's, or locked, or cannot be made. */
int  ring_open(struct ring *r, const char *path, int64_t bytes, enum ring_state *was,
    struct err *e);
int  ring_begin(struct ring *r);        /* from now on a machine that stops loses the file */
void ring_close(struct ring *r, bool clean);
/* The next four under disk.mtx. What does not fit makes it overflow: all on disk is to go. */
void ring_put(struct ring *r, const struct ring_entry *e);
/* The oldest from *at on, and *at moves on; 0 is the beginning. false: there is none. */
bool ring_next(struct ring *r, uint64_t *at, struct ring_entry *e);
bool ring_overflowed(const struct ring *r, uint64_t *seq);
/* What was given up to `at` is done; with all: everything that was put up to now, seq the last. */
void ring_free(struct ring *r, uint64_t at);
void ring_free_all(struct ring *r, uint64_t seq);
bool ring_empty(const struct ring *r);
uint64_t ring_end(const struct ring *r);            /* where the next will be put */

/* ---- the file (disk_file.c) ----------------------------------------------------------------- */

#define WRITER_SQL(X) \
    X(W_BEGIN,     "BEGIN IMMEDIATE") \
    X(W_COMMIT,    "COMMIT") \
    X(W_PAGES,     "PRAGMA page_count") \
    X(W_FREE,      "PRAGMA freelist_count") \
    X(W_PUT,       "INSERT INTO objects(id, key, variant, route, at, size, soft, url, tags) " \
                       "VALUES(?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8)") \
    X(W_PUT_VALUE, "INSERT INTO content(id, value) VALUES(?1, ?2)") \
    X(W_PUT_TAG,   "INSERT OR IGNORE INTO tags(hash, id) VALUES(?1, ?2)") \
    X(W_ROW,       "SELECT size, tags FROM objects WHERE id = ?1") \
    X(W_DEL,       "DELETE FROM objects WHERE id = ?1") \
    X(W_DEL_VALUE, "DELETE FROM content WHERE id = ?1") \
    X(W_DEL_TAG,   "DELETE FROM tags WHERE hash = ?1 AND id = ?2") \
    X(W_SOFTEN,    "UPDATE objects SET soft = max(soft, ?2) WHERE id = ?1") \
    X(W_VARIANTS,  "SELECT id, variant, at FROM objects WHERE key = ?1 ORDER BY at DESC") \
    X(W_BY_KEY,    "SELECT id FROM objects WHERE key = ?1") \
    X(W_BY_TAG,    "SELECT id FROM tags WHERE hash = ?1") \
    X(W_BY_ROUTE,  "SELECT id FROM objects WHERE route = ?1") \
    X(W_URLS,      "SELECT id, url FROM objects") \
    X(W_LAST,      "SELECT coalesce(max(id), 0) FROM objects") \
    X(W_LOAD,      "SELECT id, key, size FROM objects WHERE id > ?1 AND id <= ?2 ORDER BY id " \
                       "LIMIT 1024")
#define READER_SQL(X) \
    X(R_BEGIN,     "BEGIN") \
    X(R_END,       "COMMIT") \
    X(R_FIND,      "SELECT id, soft FROM objects WHERE key = ?1 ORDER BY at DESC LIMIT 32") \
    X(R_VALUE,     "SELECT value FROM content WHERE id = ?1")
#define SQL_ID(id, sql) id,
enum { WRITER_SQL(SQL_ID) WRITER_N };
enum { READER_SQL(SQL_ID) READER_N };

struct disk;
enum file_state { FILE_NONE, FILE_OURS, FILE_DAMAGED, FILE_OTHER_SCHEMA, FILE_FOREIGN };
/* ours: a ring of ours lies beside it. */
enum file_state disk_file_look(const struct disk *d, bool ours, struct err *e);
/* Opens it for the writer, made if it is not there. SQLITE_OK, or why not, with *e. */
int  disk_file_open_writer(struct disk *d, struct err *e);
int  disk_file_open_reader(struct disk *d, sqlite3 **db, sqlite3_stmt **st, struct err *e);
void disk_file_close(sqlite3 **db, sqlite3_stmt **st, size_t n);
void disk_file_remove(const struct disk *d);             /* with what SQLite has beside it */
#define FILE_ASIDE ".damaged"
/* Likewise, but the file is kept as FILE_ASIDE, instead of an earlier one. */
void disk_file_set_aside(const struct disk *d);
void disk_file_forget_aside(const struct disk *d);
bool disk_file_is_damage(int rc);

/* ---- the tier ------------------------------------------------------------------------------- */

struct disk_put {
    struct disk_put *next;
    struct object   *o;                 /* a reference */
    uint64_t         bytes, key;        /* key: its hash */
    bool             noted;             /* in its key's cell */
};

/* Of the keys whose hashes fall here: how often one was dropped, or had an older response replaced,
 * and how often that was in the file then. Between the two what the file has is not to be used:
 * unlike a purge, nothing in memory would refuse it. */
#define DISK_CELLS 65536
struct disk_cell { uint32_t told, done; };

struct disk_ask {
    struct loop_msg msg;
    struct disk    *disk;
    struct disk_ask *next;              /* of those that wait; under asks_mtx, */
    struct disk_ask *older, *newer;     /* ... of all, */
    struct disk_ask *others;            /* ... for the same key, which this one is read for too, */
    struct disk_ask *beside;            /* ... of those that are not answered, in a bucket */
    struct loop    *loop;
    void          (*done)(void *arg, enum tier_answer a);
    void           *arg;
    atomic_bool     cancelled;          /* set by the loop, which was told, or will not be */
    bool            answered;           /* under asks_mtx: the message is on its way */
    struct timer    late;               /* the loop's */
    enum tier_answer answer;
    struct key      key;                /* bytes in text */
    char            text[];
};

struct disk_erase {
    struct loop_msg    msg;
    struct disk       *disk;
    struct disk_erase *next, *next_all;
    struct loop       *loop;
    void             (*done)(void *arg, bool ok);
    void              *arg;
    struct timer       late;            /* the loop's, as is the next */
    bool               told;            /* that it took too long */
    bool               ok;
};

struct disk_reader {
    struct disk  *disk;
    pthread_t     thread;
    bool          started;
    sqlite3      *db;                   /* under renew; NULL: is to be opened */
    sqlite3_stmt *st[READER_N];
};

struct disk {
    struct store *store;                /* borrowed */
    char          path[PATH_MAX];       /* the directory */
    char          file[PATH_MAX];       /* the database in it */
    int64_t       size, max_value;      /* bytes: of all files; of one value */
    uint32_t      wal_pages;            /* a checkpoint is due; and most of one transaction */
    uint32_t      high_pages, max_pages;/* eviction begins; SQLite refuses */
    struct disk_index index;

    pthread_mutex_t  mtx;               /* guards the next lines */
    pthread_cond_t   wake;              /* of the writer */
    struct disk_put *puts, **puts_end;
    uint64_t         queued;            /* bytes of puts, and that being written */
    struct ring      ring;
    struct disk_erase *erases;          /* not yet begun */
    struct disk_erase *erases_all;      /* not yet answered */
    uint32_t         spent[DISK_SPENT];
    unsigned         nspent;
    bool             stop, damaged;     /* damaged: a reader met it */
    bool             yielded;           /* the files are closed: nothing is queued nor noted */
    struct disk_cell cells[DISK_CELLS];

    _Atomic uint64_t applied;           /* purges up to it are in the file */
    atomic_bool      ready;             /* those of the last process are */
    atomic_bool      failing;           /* both set as disk_set says */
    _Atomic uint32_t used_pages;
    pthread_rwlock_t renew;             /* readers use the file; the writer replaces it */

    /* the writer's thread alone, once it runs */
    pthread_t     writer;
    bool          started;
    sqlite3      *db;
    sqlite3_stmt *st[WRITER_N];
    int           wal_frames;
    struct log_limit limited;
    uint32_t      txn_pages;            /* estimate of what this transaction writes */
    bool          in_txn;
    uint64_t      old_end;              /* of the ring: up to there it is of the last process */
    uint64_t      taken;                /* the last purge that was taken from the ring */
    bool          index_lost;           /* a transaction was taken back: it is to be loaded anew */
    int64_t       retry_us, backoff_us, stop_us;

    pthread_mutex_t  asks_mtx;          /* guards the next lines */
    pthread_cond_t   asks_wake;
    struct disk_ask *waiting, **waiting_end;
    struct disk_ask *asks;              /* all, newest first */
    struct disk_ask *reads[DISK_ASKS];  /* not answered, one for a key; by its hash */
    unsigned         nreads;
    atomic_bool      slow;              /* one was not answered in time, nor any since */
    bool             asks_stop;
    struct disk_reader readers[DISK_READERS];
};

/* Under mtx. */
static inline struct disk_cell *
disk_cell(struct disk *d, uint64_t key)
{
    return &d->cells[key % DISK_CELLS];
}

struct disk *disk_open(const struct tier_options *o, struct store *s, struct err *e);
void disk_yield(struct disk *d);
void disk_close(struct disk **dp);
void disk_put(struct disk *d, struct object *o);
void disk_drop_later(struct disk *d, const struct object *o);   /* notes it in the ring */
int  disk_erase(struct disk *d, struct loop *l, void (*done)(void *arg, bool ok), void *arg);
void disk_figures(struct disk *d, struct tier_figures *f);

/* disk_write.c: the writer's. Each gives an SQLite code. */
void *disk_writer(void *arg);
int  disk_write_begin(struct disk *d);       /* a transaction, if there is none */
int  disk_write_commit(struct disk *d);      /* with the care of the WAL */
int  disk_write_split(struct disk *d);  /* commits when the transaction is as large as it may be */
int  disk_write_renew(struct disk *d, bool keep);   /* an empty file; keep: the old set aside */
int  disk_write_step(struct disk *d, int statement);     /* runs and resets; SQLITE_DONE is OK */
int  disk_write_checkpoint(struct disk *d, bool durable);        /* the WAL becomes empty */
int  disk_write_used(struct disk *d, uint32_t *pages);

/* disk_row.c, likewise. Within a transaction, or to begin one. */
int  disk_row_remove(struct disk *d, uint32_t id);
int  disk_row_keep(struct disk *d, struct object *o);
uint64_t disk_variant(struct slice vary, struct slice variant);         /* hash; 0: no Vary */
enum { TAG_OF_URL = 'u', TAG_OF_TAG = 't', TAG_OF_GROUP = 'g' };
uint64_t disk_tag(char kind, struct slice text);

/* disk_purge.c: what an entry of the ring means for the file; n: of several that all scan. */
int  disk_purge_apply(struct disk *d, const struct ring_entry *e, size_t n);
bool disk_purge_scans(const struct ring_entry *e);      /* must every row be looked at for it? */
int  disk_purge_object(struct disk *d, const struct object *o);     /* it was dropped */
/* The entry that says so; its text is *variant. Any thread. */
struct ring_entry disk_drop(const struct object *o, uint64_t *variant);

/* disk_read.c */
void disk_set(struct disk *d, atomic_bool *what, bool to);  /* and readers look again */
void *disk_read(void *arg);
void disk_read_end(struct disk *d);         /* when no reader runs: who waits is told so */
void disk_ask_free(struct disk_ask *a);     /* on its loop, or when that has stopped */
/* As tier_get: NULL: it has nothing. */
struct disk_ask *disk_get(struct disk *d, struct loop *l, const struct key *k,
    void (*done)(void *arg, enum tier_answer a), void *arg);
void disk_cancel(struct disk_ask **ap);

#endif
