/*
 * write/journal_priv.h -- between the files of the journal.
 *
 * journal.c         opening, closing, what any thread may ask
 * journal_file.c    the SQLite file: making it, whose it is, its statements
 * journal_load.c    what is read of it when it is opened
 * journal_damage.c  a damaged file: set aside, and a new one made
 * journal_rescue.c  ... of what can be read of it
 * journal_scan.c    ... and of rows that SQLite does not find any more
 * journal_write.c   the journal thread: queue, transactions, failure and recovery
 * journal_wal.c     the checkpoint thread: keeps the WAL small
 * journal_apply.c   one operation inside a transaction
 * journal_keys.c    idempotency keys
 * journal_prune.c   what is let go: settled rows, keys out of time
 * journal_row.c     rows as columns, and their checksums
 * journal_read.c    the readers
 * move.c            all of it into Redis, or back
 *
 * A journal that instances share has its own files (share.h), and of this one's struct what stands
 * above the journal thread's.
 */
#ifndef WEIR_WRITE_JOURNAL_PRIV_H
#define WEIR_WRITE_JOURNAL_PRIV_H

#include "write/journal.h"

#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>

#define JOURNAL_APPLICATION 0x57654a6c  /* "WeJl", in the header of the file */
#define JOURNAL_SCHEMA      1           /* user_version: raise it when an older one cannot read */
#define JOURNAL_PAGE        2048        /* an index page is dirtied for nearly every row: small ones
                                           make a commit's bytes, and so its sync, half */
#define JOURNAL_SECRET      32

/* ---- statements ------------------------------------------------------------------------------ */

/* Rows as row_get takes them. A dead one is out of its chains: their columns are NULL, so that the
 * indexes hold what is pending alone, and its hashes in columns of their own. */
#define ROW_OF_WRITES \
    "seq, ifnull(c1, dead1), ifnull(c2, dead2), who, accepted_ms, due_ms, settled_ms, route, " \
    "attempts, status, method, lane, state, ordered, sum"
#define ROW \
    "seq, c1, c2, who, accepted_ms, due_ms, settled_ms, route, attempts, status, method, lane, " \
    "state, ordered, sum"
#define FIFTEEN "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15"
#define CONTENT \
    "seq, method, url, target, host, order_key, idempotency_key, fields, body, sum, body_sum"
#define KEY "h, fingerprint, seq, run, state, expires_ms, status, head, body, bytes, sum"

#define WRITER_STATEMENTS(X)                                                                       \
    X(BEGIN,        "BEGIN IMMEDIATE")                                                             \
    X(COMMIT,       "COMMIT")                                                                      \
    X(ROLLBACK,     "ROLLBACK")                                                                    \
    X(PAGES,        "PRAGMA page_count")                                                           \
    X(FREE_PAGES,   "PRAGMA freelist_count")                                                       \
    X(META_PUT,     "INSERT OR REPLACE INTO meta(name, value) VALUES(?1, ?2)")                     \
    X(ROUTE_ADD,    "INSERT INTO routes(number, name) VALUES(?1, ?2)")                             \
    X(PAUSE_ON,     "INSERT OR IGNORE INTO paused(name) VALUES(?1)")                               \
    X(PAUSE_OFF,    "DELETE FROM paused WHERE name = ?1 OR ?1 = 'all'")                            \
    X(WRITE_ADD,    "INSERT INTO writes(" ROW ") VALUES(" FIFTEEN ")")                             \
    X(WRITE_GET,    "SELECT " ROW_OF_WRITES " FROM writes WHERE seq = ?1")                         \
    X(WRITE_SET,    "UPDATE writes SET due_ms = ?2, settled_ms = ?3, attempts = ?4, status = ?5, " \
                    "state = ?6, sum = ?7 WHERE seq = ?1")                                         \
    X(WRITE_DIE,    "UPDATE writes SET due_ms = ?2, settled_ms = ?3, attempts = ?4, status = ?5, " \
                    "state = ?6, sum = ?7, c1 = NULL, c2 = NULL, dead1 = ifnull(c1, dead1), "      \
                    "dead2 = ifnull(c2, dead2) WHERE seq = ?1")                                    \
    X(WRITE_RISE,   "UPDATE writes SET due_ms = ?2, settled_ms = ?3, attempts = ?4, status = ?5, " \
                    "state = ?6, sum = ?7, c1 = dead1, c2 = dead2, dead1 = NULL, dead2 = NULL "    \
                    "WHERE seq = ?1")                                                              \
    X(WRITE_DROP,   "DELETE FROM writes WHERE seq = ?1")                                           \
    X(OLDEST,       "SELECT seq, accepted_ms FROM writes WHERE seq >= ?1 AND state <= 2 "          \
                    "ORDER BY seq LIMIT 1")                                                        \
    X(CONTENT_ADD,  "INSERT INTO content(" CONTENT ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, " \
                    "?10, ?11)")                                                                   \
    X(CONTENT_EASE, "UPDATE content SET fields = NULL, body = NULL, body_sum = ?2 WHERE seq = ?1") \
    X(CONTENT_DROP, "DELETE FROM content WHERE seq = ?1")                                          \
    X(ANSWER_PUT,   "INSERT OR REPLACE INTO answers(seq, head, body, cause, sum) "                 \
                    "VALUES(?1, ?2, ?3, ?4, ?5)")                                                  \
    X(ANSWER_DROP,  "DELETE FROM answers WHERE seq = ?1")                                          \
    X(SETTLED_ADD,  "INSERT INTO settled(" ROW ") VALUES(" FIFTEEN ")")                            \
    X(SETTLED_OLD,  "SELECT seq FROM settled WHERE settled_ms < ?1 ORDER BY settled_ms LIMIT ?2")  \
    X(SETTLED_DROP, "DELETE FROM settled WHERE seq = ?1")                                          \
    X(KEY_GET,      "SELECT " KEY " FROM keys WHERE h = ?1")                                       \
    X(KEY_PUT,      "INSERT OR REPLACE INTO keys(" KEY ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, " \
                    "?9, ?10, ?11)")                                                               \
    X(KEY_DROP,     "DELETE FROM keys WHERE h = ?1")                                               \
    X(KEYS_OLD,     "SELECT h, bytes FROM keys INDEXED BY keys_when WHERE expires_ms < ?1 "        \
                    "ORDER BY expires_ms LIMIT ?2")

#define READER_STATEMENTS(X)                                                                       \
    X(READ_WRITE,   "SELECT " ROW_OF_WRITES " FROM writes WHERE seq = ?1")                         \
    X(READ_SETTLED, "SELECT " ROW " FROM settled WHERE seq = ?1")                                  \
    X(READ_CONTENT, "SELECT " CONTENT " FROM content WHERE seq = ?1")                              \
    X(READ_ANSWER,  "SELECT seq, head, body, cause, sum FROM answers WHERE seq = ?1")              \
    X(NEXT_C1,      "SELECT " ROW_OF_WRITES " FROM writes INDEXED BY writes_c1 "                   \
                    "WHERE c1 = ?1 AND seq > ?2 ORDER BY seq LIMIT 1")                             \
    X(NEXT_C2,      "SELECT " ROW_OF_WRITES " FROM writes INDEXED BY writes_c2 "                   \
                    "WHERE c2 = ?1 AND seq > ?2 ORDER BY seq LIMIT 1")                             \
    X(EACH_WRITE,   "SELECT " ROW_OF_WRITES " FROM writes WHERE seq > ?1 ORDER BY seq")            \
    X(EACH_DEAD,    "SELECT " ROW_OF_WRITES " FROM writes INDEXED BY writes_dead "                 \
                    "WHERE dead1 IS NOT NULL AND seq > ?1 ORDER BY seq")                           \
    X(EACH_SETTLED, "SELECT " ROW " FROM settled WHERE seq > ?1 ORDER BY seq")                     \
    X(EACH_ANY,     "SELECT " ROW_OF_WRITES " FROM writes WHERE seq > ?1 "                         \
                    "UNION ALL SELECT " ROW " FROM settled WHERE seq > ?1 ORDER BY seq")

#define STATEMENT_ID(id, sql) S_##id,
enum { WRITER_STATEMENTS(STATEMENT_ID) WRITER_N };
enum { READER_STATEMENTS(STATEMENT_ID) READER_N };
#undef STATEMENT_ID

/* ---- the journal ----------------------------------------------------------------------------- */

struct names {                          /* number i + 1: at[i] */
    char  **at;                         /* owned, each too; a name never moves */
    size_t  n, cap;
};

/* What a transaction changes in memory; put back when it is rolled back. */
struct journal_counts {
    uint64_t pending, dead;
    uint64_t oldest_seq;                /* no pending one is below it */
    int64_t  key_bytes;
    size_t   routes_stored;             /* of names */
};

struct share;

struct journal {
    uint32_t magic;
#define JOURNAL_MAGIC 0x6a6f7572u
    char    *path;                      /* owned */
    int      lock_fd;
    uint8_t  secret[JOURNAL_SECRET];    /* the first half makes ids */
    uint64_t shared_upto;               /* seqs up to this were given in Redis: id.c; 0: none */
    int64_t  run;                       /* which opening of it: claims of others are lost */
    pthread_t writer_thread, wal_thread;
    bool     threads;                   /* they run */

    pthread_mutex_t mtx;                /* the queue and what any thread may ask */
    pthread_cond_t  wake;
    struct journal_op *queue, **queue_end;
    size_t   queued;
    size_t   wanted;                    /* with how many the thread wants to be woken; 0: it runs */
    bool     closing;
    struct journal_limits limits;
    struct journal_figures figures;
    struct names routes;
    struct names paused;                /* unordered */
    struct share *share;                /* owned; NULL: a file */

    /* the journal thread's, or journal_open's */
    sqlite3      *db;
    sqlite3_stmt *st[WRITER_N];
    struct journal_counts now, before;  /* before the transaction */
    struct journal_limits lim;          /* as copied at its begin */
    uint64_t next_seq, reserved_seq;    /* numbers below this are spoken for on disk */
    uint64_t before_reserved;
    uint64_t batch_seq;                 /* of this transaction the first */
    int64_t  used, batch_bytes;         /* of the file when it began, and what it adds */
    int64_t  now_ms;
    bool     synced;                    /* PRAGMA synchronous=FULL is set */
    void   (*condemned)(void *arg, const struct write_row *r, bool known);
    void    *condemned_arg;             /* as journal_found has them */
    char     aside[PATH_MAX];                /* as figures have it */
    bool     takes;
    const char *why;                    /* ... it does not */
    bool     marked;                    /* as damaged, in meta */
    int64_t  tick_us;                   /* when idle work is done next */
    int64_t  commit_us, commits, operations;        /* sums */
    int64_t  last_commit_us; size_t last_batch;     /* of the last synced one */

    atomic_bool damaged;                /* a reader or the writer saw SQLITE_CORRUPT */

    /* the WAL: under wal_mtx */
    pthread_mutex_t wal_mtx;
    pthread_cond_t  wal_wake;
    bool     wal_asked, wal_stop;
    bool     wal_copied;                /* all but a rest: the journal thread does that */
    /* the journal thread's */
    int      wal_frames, wal_soft, wal_hard, wal_next, wal_rested;
    sqlite3 *wal_db;                    /* the checkpoint thread's */

    /* the write loop's */
    sqlite3      *reader;
    sqlite3_stmt *read[READER_N];
    struct buf    read_bytes;           /* what journal_read gave */
};

/* ---- journal.c ------------------------------------------------------------------------------- */

/* Nothing is open yet, and no thread runs; journal_close frees it. NULL: memory is out. */
struct journal *journal_new(const char *path, const struct journal_limits *limits);
int  journal_lock(const char *path, struct err *e);     /* the descriptor that holds it */
bool names_put(struct names *names, size_t at, struct slice name);
void names_clear(struct names *names);
void journal_set_paused(struct journal *j, struct slice name, bool on);
/* These and no others. False: they were. */
bool journal_paused_are(struct journal *j, const struct slice *names, size_t n);

/* ---- journal_file.c -------------------------------------------------------------------------- */

enum file_kind { FILE_NONE, FILE_OURS, FILE_FOREIGN, FILE_LATER, FILE_DAMAGED };
char *file_beside(const char *path, const char *suffix, char out[PATH_MAX]);    /* out */
/* What the first bytes at `path` say, opened with these flags; ours: a lock file of ours lies
 * beside it. */
enum file_kind file_look(const char *path, int flags, bool ours, struct err *e);
/* A new journal, complete, at path.part: schema, secret (NULL: a new one). The caller fills, closes
 * and installs it. NULL with *e. */
sqlite3 *file_make(const char *path, const uint8_t *secret, struct err *e);
/* path.part, which it closes, becomes the journal, whatever was at `path`; or what a crash left of
 * that. */
int  file_install(const char *path, sqlite3 **db, struct err *e);
int  file_install_left(const char *path, struct err *e);
int  file_sync_directory(const char *path, struct err *e);     /* ... that `path` is in */
sqlite3 *file_open(const char *path, int flags, struct err *e);
int  file_prepare(sqlite3 *db, sqlite3_stmt **st, const char *const *sql, size_t n, struct err *e);
void file_close(sqlite3 **db, sqlite3_stmt **st, size_t n);
int  file_error(sqlite3 *db, const char *path, struct err *e);      /* -1 with what SQLite says */
bool is_damage(int rc);                 /* CORRUPT, NOTADB, a schema that is not ours */
extern const char *const writer_sql[WRITER_N], *const reader_sql[READER_N];

/* ---- journal_load.c -------------------------------------------------------------------------- */

/* Reads it all: meta, names, pending rows (each(found)), keys' sizes; checks the indexes. The
 * SQLite result: SQLITE_OK, or why not. */
int  journal_load(struct journal *j, const struct journal_found *found);

/* ---- journal_damage.c ------------------------------------------------------------------------ */

/* Links the file and its WAL to PATH.damaged-TIME, makes a new one of what can be read, says so. */
int  journal_set_aside(struct journal *j, const char *why, struct err *e);

/* ---- journal_rescue.c ------------------------------------------------------------------------ */

struct rescued { uint64_t max_seq, saved, uncertain, keys; bool same_ids; };
/* Inside a transaction of `to`, whose statements are st: the SQLite result of writing it. */
int  journal_rescue(const char *path, sqlite3 *from, sqlite3 *to, sqlite3_stmt **st,
    struct rescued *out);

/* ---- journal_scan.c -------------------------------------------------------------------------- */

#define SCAN_COLUMNS 20                 /* more than any table has */
struct scan_column { int type; int64_t integer; struct slice bytes; };  /* type: as SQLite has it */
typedef void scan_row(void *arg, uint64_t rowid, const struct scan_column *columns, unsigned n);
/* Calls row for everything in the file and its WAL that looks like a row of a table. */
void journal_scan(const char *path, scan_row *row, void *arg);

/* ---- journal_write.c ------------------------------------------------------------------------- */

void *journal_thread(void *j);
int  step(sqlite3_stmt *st);            /* to its end, reset: SQLITE_OK or the error */
int  journal_reserve(struct journal *j);                /* in a transaction: more numbers */
int  journal_begin(struct journal *j, bool sync);
int  journal_commit(struct journal *j); /* or rolls back: then nothing was done */
void journal_roll_back(struct journal *j);
void journal_fail(struct journal *j, int rc);           /* it takes no writes from now on */
void journal_publish(struct journal *j);                /* the figures */
void journal_push(struct journal *j, struct journal_op *op);

/* ---- journal_wal.c --------------------------------------------------------------------------- */

void *journal_wal_thread(void *j);
void wal_limit(struct journal *j);      /* of limits.size */
int  wal_hook(void *j, sqlite3 *db, const char *name, int frames);
void wal_care(struct journal *j);       /* after a commit */
void wal_idle(struct journal *j);       /* when there is nothing to do */
int  wal_empty(struct journal *j);      /* all of it into the file: the SQLite result */
void wal_end(struct journal *j);

/* ---- journal_apply.c ------------------------------------------------------------------------- */

/* Inside a transaction: SQLITE_OK with op->result, or the error that ends the transaction. */
int  journal_apply(struct journal *j, struct journal_op *op);
int  row_condemn(struct journal *j, struct journal_op *op);     /* row.seq, why */
bool op_intake(const struct journal_op *op);            /* ACCEPT, CLAIM */

/* ---- journal_keys.c -------------------------------------------------------------------------- */

#define KEY_BYTES 160                   /* of one without an answer, with its indexes */
enum key_state { KEY_WRITE, KEY_OPEN, KEY_ANSWERED, KEY_UNKNOWN };

struct key_row {
    struct slice h, fingerprint, head, body;
    uint64_t seq;
    int64_t  run, expires_ms, bytes;
    unsigned status;
    enum key_state state;
};
bool key_column(sqlite3_stmt *st, struct key_row *k);   /* as KEY says; false: it is damaged */
void key_bind(sqlite3_stmt *st, const struct key_row *k);

/* Looks the key up; where it is new (op->result DONE) or may be claimed again, enters it with this
 * seq. */
int  key_take(struct journal *j, struct journal_op *op, uint64_t seq);
int  key_ended(struct journal *j, struct journal_op *op);
int  key_released(struct journal *j, struct journal_op *op);
int  key_prune(struct journal *j, int *n);              /* a step of it; *n: how many went */

/* ---- journal_read.c -------------------------------------------------------------------------- */

int journal_has(struct journal *j, uint64_t seq);       /* 1, 0, -1; a file; the write loop */

/* ---- move.c ---------------------------------------------------------------------------------- */

/* The seq that a file's write has in Redis: the partition's counter goes on with what the file
 * counted. Those that Redis gave (`upto` and below) keep theirs. */
#define JOURNAL_MOVABLE ((uint64_t)1 << 34)     /* seqs of a file below this can be moved */
static inline uint64_t
journal_moved(uint64_t seq, uint64_t upto, unsigned part)
{
    return seq <= upto ? seq : seq * JOURNAL_PARTS + part;
}

/* ---- journal_prune.c ------------------------------------------------------------------------- */

bool journal_prune(struct journal *j);  /* a transaction of its own; true: there is more */
int  journal_make_room(struct journal *j);              /* in a transaction, if space is short */
const char *journal_lacks(struct journal *j, int64_t size);
const char *journal_no_room(struct journal *j);
int64_t journal_room(const struct journal *j);          /* bytes for further writes */

/* ---- journal_row.c --------------------------------------------------------------------------- */

/* The sum lies with the row, so that it fails where a row is not what was written, or is at another
 * place than it was. */
uint64_t row_sum(const struct write_row *r);
void row_bind(sqlite3_stmt *st, const struct write_row *r);     /* 15 columns; sums it */
bool row_get(sqlite3_stmt *st, struct write_row *r);            /* false: it is damaged */
void row_bind_progress(sqlite3_stmt *st, const struct write_row *r);
void content_bind(sqlite3_stmt *st, uint64_t seq, const struct write_content *c);
bool content_get(sqlite3_stmt *st, struct write_content *c);
uint64_t content_eased_sum(uint64_t seq);
void answer_bind(sqlite3_stmt *st, uint64_t seq, const struct write_content *c);
bool answer_get(sqlite3_stmt *st, struct write_content *c);

struct slice column(sqlite3_stmt *st, int i);           /* NULL: .p NULL; else .p not NULL */
void bind_slice(sqlite3_stmt *st, int i, struct slice s);
void bind_text(sqlite3_stmt *st, int i, struct slice s);
uint64_t sum_of(uint64_t seq, const struct slice *parts, size_t n);

#endif
