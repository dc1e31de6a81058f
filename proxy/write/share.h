/*
 * write/share.h -- private to the journal: one that the instances of a fleet share in Redis.
 *
 * share.c       opening, closing, its thread, the queue
 * share_send.c  a script to its server
 * share_op.c    one operation: asked, asked again, answered
 * share_ask.c   ... its script's arguments
 * share_wait.c  ... accepted when replicas have it
 * share_own.c   whose a partition is: leases, giving and taking
 * share_round.c rounds: who lives, what there is, what is renewed
 * share_news.c  what the owner hears: pages of what is pending, then the stream
 * share_read.c  the readers
 * share_check.c does Redis keep what it is given; what it lost
 * share_row.c   rows and contents as bytes
 * share_move.c  the journal's keys put, by `weir writes move`; share_move_read.c: read, whole
 * share_lua.c   the scripts
 *
 * Partition  N has the keys PREFIX{jN}x, x being
 *     m      hash: v version of the format, c counter, t fencing token, b bytes, k bytes of keys
 *     s      stream, an entry for each thing that the owner must hear of: w seq; of a change by
 *            others f the state before, t after. Those of pending writes stay until they are
 *            settled; group `weir`, consumer `owner`
 *     w:SEQ  hash of a write: st state, at attempts, n bytes, c1 c2 its chains, ev its entry,
 *            z seed of sums, r row as accepted, v what became of it, c content, b fields and body,
 *            a last answer, x the last operation of a verb
 *     p d e a    sorted sets: pending, dead, settled (by time), all of them
 *     h      sorted set of those held until replicas have them, by when their time is out (by
 *            Redis' clock); `inf` once it was, and they were told to the owner all the same
 *     k:HASH t:HASH      chains of pending ones: by c1, by c2
 *     i:KEY  idempotency key; x: sorted set of them with their bytes, by when their time is out
 *     o      the owner's name, which ends with its lease
 *     o:ID   what an operation made, for as long as it may be asked again
 *   and the fleet PREFIX{j}secret, live (instances, by when their lease ends), paused,
 *   move (what `weir writes move` has begun: move.c; v is 0 meanwhile), and the channel
 *   PREFIX{j}wake: a partition's number, `p` (paused), `g` (a partition was given back).
 */
#ifndef WEIR_WRITE_SHARE_H
#define WEIR_WRITE_SHARE_H

#include "redis/redis.h"
#include "write/journal_priv.h"

enum share_script { LUA_ACCEPT, LUA_CLAIM, LUA_CLAIM_END, LUA_CLAIM_RELEASE, LUA_UPDATE,
    LUA_RELEASE, LUA_TAKE, LUA_PAGE, LUA_READ, LUA_LOOK, LUA_GIVE, LUA_PRUNE, LUA_EACH, LUA_NEXT,
    LUA_BEAT, LUA_LEAVE, LUA_PAUSE, LUA_MARK, LUA_PUT, LUA_PUT_KEY, LUA_WIPE, LUA_LIVE,
    SHARE_SCRIPTS };
extern const char *const share_lua[SHARE_SCRIPTS];

#define SHARE_FLEET    JOURNAL_PARTS    /* in place of a partition: what is of all of them */
#define SHARE_PREFIX   128              /* most bytes of a prefix */
#define SHARE_NAME     96               /* of an instance */
#define SHARE_ARGS     48

struct share_options {
    const struct redis_conf *redis;
    const char *prefix;                 /* of all keys */
    int64_t timeout_ms;                 /* of an operation, all its tries together */
    int64_t lease_ms;
    unsigned replicas;                  /* that must have a write before it is accepted */
    enum conf_write_durable durable;    /* the strongest that a route promises */
};

/* ---- arguments ------------------------------------------------------------------------------- */

struct share_args {                     /* slices are borrowed; numbers live in `digits` */
    struct slice at[SHARE_ARGS];
    size_t  n, used;
    char    digits[20 * SHARE_ARGS];
};
void args_add(struct share_args *g, struct slice s);
void args_addu(struct share_args *g, uint64_t v);
void args_addhex(struct share_args *g, uint64_t v);     /* 16 digits */

/* ---- a partition ----------------------------------------------------------------------------- */

enum part_state {
    PART_FREE,              /* not ours */
    PART_TAKING,            /* asked for */
    PART_LOADING,           /* ours; what was pending is being told */
    PART_OURS,              /* ... was told; now the stream */
    PART_LEAVING,           /* no delivery begins; those under way end, the lease is renewed */
    PART_GIVING             /* given back */
};
struct stream_id { uint64_t ms, n; };

struct share_part {
    struct share *s;
    unsigned n;                         /* SHARE_FLEET: no partition */
    char     key[SHARE_PREFIX + 16];    /* PREFIX{jN} */
    uint32_t loaded;                    /* scripts that its server has: a bit each */
    _Atomic uint64_t token;             /* 0: not ours; stays while it is left */
    _Atomic int64_t  until_us;          /* deliveries may begin until then */

    /* the journal's thread's */
    enum part_state state;
    bool     kept;                      /* LEAVING: by our will, so its lease is renewed */
    bool     owned;                     /* as it was told */
    int64_t  asked_us;                  /* when what renews the lease was sent */
    int64_t  lease_us;                  /* by our clock it ends then */
    struct loop_msg left;
    atomic_bool left_posted;

    bool     busy;                      /* a page, or the stream, is being read */
    bool     again;                     /* ... and once more */
    bool     history;                   /* an answer was lost: what it told is asked for anew */
    uint64_t busy_token;
    uint64_t after, upto;               /* pages: the last seq that came, the last there was */
    struct stream_id since;             /* when it was taken */
    struct stream_id at;                /* the last entry that came */
    struct stream_id last;              /* the stream's, at the last look */
    uint64_t *told; size_t ntold, told_cap;     /* by pages, and again by the stream; owned */
    struct stream_id *acks; size_t nacks, acks_cap;         /* done; owned */
    size_t   nacked;                    /* of them, in what is being asked */

    struct share_call *waiting, *flying;        /* for replicas: the next WAIT, the one sent */
    uint64_t release;                   /* replicas have what is up to it; 0: Redis knows */
    int64_t  prune_us;                  /* what is to be let go is looked for then */
    uint64_t counter;                   /* the highest that we were told */
    char     owner[SHARE_NAME];         /* at the last look; "": nobody's */
    uint64_t pending, dead, bytes, key_bytes;
    int64_t  oldest_ms;
};

/* --- an operation under way ------------------------------------------------------------------- */

#define SHARE_ID  16
#define SHARE_ROW 900                   /* bytes of a write besides what it carries */

struct share_call {
    struct share_call *next;
    struct share      *s;
    struct journal_op *op;
    struct share_part *p;
    int64_t  start_us, until_us;
    unsigned tries;
    bool     unsure;                    /* an answer was lost: it may have been done */
    bool     undo;                      /* too few replicas have it */
    bool     waited;                    /* for replicas of its key's first request */
    uint64_t connection;                /* that replicas are waited for on */
    bool     yes;                       /* PEEK */
    unsigned left;                      /* PEEK: answers that are awaited */
    enum redis_cause cause;
    const char *condemns;               /* CONDEMN: the cause */
    uint8_t  id[SHARE_ID];
    char     over[SHARE_NAME];          /* whose open claim may be claimed again */
};

/* ---- the whole ------------------------------------------------------------------------------- */

struct share_round {
    bool     running, again;
    unsigned left;                      /* answers that are awaited */
    unsigned answers;                   /* of partitions */
    enum redis_cause cause;             /* of what failed */
    uint64_t added;                     /* share.added when it began */
    int64_t  added_bytes;
    bool     foreign;                   /* a partition has another format */
};
struct share_orphan {                   /* a claim whose answer was lost, to be forgotten */
    struct share_orphan *next;
    struct share *s;
    uint8_t  key_hash[16], id[16];
    int64_t  until_us;
    bool     asked, over;
};
#define SHARE_TAKEN 4096
struct share_taken { uint64_t seq; int64_t us; };
struct share_secret { struct share_secret *next; uint8_t bytes[JOURNAL_SECRET]; };

struct share {
    struct journal *j;                  /* borrowed */
    struct share_options o;             /* .redis is NULL: it was copied */
    char     prefix[SHARE_PREFIX + 1];
    char     name[SHARE_NAME];          /* of this instance */
    char     sha[SHARE_SCRIPTS][41];
    struct loop  *loop;
    struct redis *redis;
    struct redis_sub *wake;
    pthread_t thread;
    bool     running;
    struct journal_found found;
    struct share_part parts[JOURNAL_PARTS + 1];     /* the last: the fleet's */
    const uint8_t *_Atomic secret;      /* of the newest of secrets; NULL: not known yet */
    struct share_secret *secrets;       /* owned */
    uint8_t  candidate[JOURNAL_SECRET]; /* where there is none yet */

    pthread_mutex_t mtx;
    struct journal_op *queue, **queue_end;
    struct loop_msg kick;
    bool     kicked;
    unsigned published;                 /* under j->mtx: how often figures were */
    struct loop_msg begin, end, leave;
    atomic_bool leaving;                /* wants no partitions */

    /* the journal's thread's */
    struct journal_op *ready, **ready_end;
    unsigned under_way;                 /* operations */
    struct share_call *again;           /* to be asked again */
    struct timer again_timer, tick, expire;
    bool     pumping;
    bool     closing, gave;
    unsigned giving;                    /* answers that are awaited after `gave` */
    struct share_round round;
    char   (*live)[SHARE_NAME]; size_t nlive, live_cap;     /* at the last round; owned */
    unsigned ended;                     /* leases; not said yet */
    bool     tried;                     /* a round ended */
    bool     looked;                    /* a round ended well */
    const char *why;                    /* it takes nothing; NULL: it does */
    const char *barred;                 /* ... and will not, as Redis is; NULL: it may */
    struct journal_limits limits;       /* as copied at the last kick */
    struct journal_figures sum;         /* at the last round */
    uint64_t key_bytes;
    int64_t  added_bytes; uint64_t added;       /* by us, since */
    int64_t  commits, operations, commit_us;
    uint64_t lost;
    struct share_taken taken[SHARE_TAKEN]; size_t ntaken;   /* by us, the last; seq 0: none */
    int64_t  check_us;                  /* when Redis' configuration is looked at again */
    unsigned check_left;
    enum redis_cause check_cause;
    const char *check_unfit, *unfit;    /* for writes; NULL: it is fit */
    bool     warned_policy, warned_config;
    struct share_orphan *orphans;       /* claims that may have been made; owned */
};

/* ---- share.c --------------------------------------------------------------------------------- */

/* What it shares with a file (names, limits, figures) is j's. NULL with *e. */
struct share *share_open(const struct share_options *o, struct journal *j,
    const struct journal_found *found, struct err *e);
/* Until it has asked Redis for the first time, well or not; so long at most. */
void share_await(struct share *s, int64_t within_us);
struct share *share_prepare(const struct share_options *o, struct journal *j,
    const struct journal_found *found, struct err *e);  /* its thread does not run */
void share_close(struct share **sp);
void share_do(struct share *s, struct journal_op *op);
void share_pump(struct share *s);
bool share_owns(struct share *s, unsigned part);
uint64_t share_fence(struct share *s, unsigned part);
void share_left(struct share *s, unsigned part);
void share_leave(struct share *s);
void share_op_over(struct share *s, struct journal_op *op);     /* tells it */
/* From now on it takes nothing, for this reason; NULL: it does. Says so once. */
void share_takes(struct share *s, const char *why);
void share_publish(struct share *s);                            /* the figures */

/* The strongest durability that is promised to anyone: fsync where a route promises it. */
enum conf_write_durable share_promised(const struct conf *c);
/* What the configuration says; strings live in c and p. -1 with *e. */
int share_options_of(const struct conf *c, struct pool *p, struct redis_conf *redis,
    struct share_options *o, struct err *e);
/* journal_open_shared with what it reads of the configuration. */
struct journal *journal_open_share(const struct share_options *o,
    const struct journal_limits *limits, const struct journal_found *found, struct err *e);

/* ---- share_send.c ---------------------------------------------------------------------------- */

typedef void share_done(void *arg, enum redis_cause cause, const struct redis_reply *r);
/* False: not sent; done is not called, *cause (may be NULL) says why. */
bool share_script(struct share *s, struct share_part *p, enum share_script script,
    const struct share_args *g, int64_t within_us, share_done *done, void *arg,
    enum redis_cause *cause);
/* The server does not know the script any more: asked again, it is sent whole. */
bool share_unknown(struct share_part *p, enum redis_cause cause, const struct redis_reply *r);
const char *share_why(enum redis_cause cause);
void share_log(struct share *s, enum redis_cause cause, const struct redis_reply *r);
/* Of an answer: its code; -1: it is none of ours. */
int  reply_code(const struct redis_reply *r);
struct slice reply_text(const struct redis_reply *r, size_t i);         /* .p NULL: none */
uint64_t reply_u64(const struct redis_reply *r, size_t i);
bool stream_id_read(struct slice s, struct stream_id *id);
int  stream_id_cmp(struct stream_id a, struct stream_id b);
#define STREAM_ID_MAX 42
struct slice stream_id_put(struct stream_id id, char out[STREAM_ID_MAX]);

/* ---- share_op.c ------------------------------------------------------------------------------ */

void share_begin(struct share *s, struct journal_op *op);       /* the journal's thread */
void share_call_again(struct share *s);
void share_forget_orphans(struct share *s);
void call_finish(struct share_call *c, enum journal_result result, const char *why);
void call_give_up(struct share_call *c, enum redis_cause cause);
void call_failed(struct share_call *c, enum redis_cause cause, const struct redis_reply *r);
void call_accepted(struct share_call *c);
share_done call_answer;                 /* arg: the call */

/* ---- share_wait.c ---------------------------------------------------------------------------- */

/* Of what was answered on that connection. */
void call_await_replicas(struct share_call *c, uint64_t connection);    /* ends it, accepted or
                                                                         * taken back */
void call_await_first(struct share_call *c, uint64_t connection);       /* of its key: asks again,
                                                                         * or ends it */
void call_undone(struct share_call *c, int code);       /* the answer to c->undo */
void share_release(struct share_part *p);               /* where Redis may not know */

/* ---- share_ask.c ----------------------------------------------------------------------------- */

void call_ask(struct share_call *c);
struct slice key_hex(const uint8_t hash[16], char out[33]);

/* ---- share_round.c --------------------------------------------------------------------------- */

void share_round(struct share *s);      /* now, or when the one that runs has ended */
void share_beat(struct share *s);       /* goes on after share_check */
void share_round_failed(struct share *s, enum redis_cause cause, const struct redis_reply *r);

/* ---- share_own.c ----------------------------------------------------------------------------- */

void share_expire(void *s);
void share_balance(struct share *s);
int64_t round_us(const struct share *s);        /* how long what renews a lease may take */
void share_give_all(struct share *s);   /* closing; s->giving answers will come */
void share_given(struct share *s);      /* an answer came; at 0 the loop ends */
void part_lose(struct share_part *p);   /* it is not ours any more */
void share_renewed(struct share_part *p);
void share_run_left(struct loop_msg *m);

/* ---- share_check.c --------------------------------------------------------------------------- */

void share_check(struct share *s);      /* ends with share_beat or share_round_failed */
void taken_add(struct share *s, uint64_t seq);
void taken_settled(struct share *s, uint64_t seq);
void share_lost(struct share_part *p);  /* its counter is below what it was */

/* ---- share_news.c ---------------------------------------------------------------------------- */

void news_begin(struct share_part *p, uint64_t counter, struct stream_id last);
void news_read(struct share_part *p);
void news_look(struct share_part *p);   /* if there may be something */
void news_end(struct share_part *p);    /* forgets what it has */

/* ---- share_read.c ---------------------------------------------------------------------------- */

int share_read(struct share *s, uint64_t seq, struct write_row *r, struct write_content *c,
    struct err *e);
int share_next(struct share *s, unsigned part, uint64_t hash, uint64_t seq, bool by_target,
    struct write_row *r);
int share_each(struct share *s, uint64_t *seq, unsigned state_mask, unsigned max,
    void (*each)(void *arg, const struct write_row *r), void *arg);
/* Of a write that a file had as `old`: *seq becomes its seq, and stays where there is none. -1: it
 * cannot be told now. */
int share_find(struct share *s, uint64_t old, uint64_t *seq);
void share_condemn(struct share *s, uint64_t seq, const char *cause);

/* ---- share_move.c ---------------------------------------------------------------------------- */

/* From mover_mark to mover_end, or mover_clear, the format of all partitions is that of no version:
 * no instance takes any, or takes writes; and their tokens are new, so that a former owner changes
 * nothing. All calls wait for what they ask; false: it failed, and the error of mover_open has it.
 * mover_put_* may fail at a later one. One thread. */
struct mover;
struct mover_found {                    /* of all partitions together */
    uint64_t rows, keys, counter;       /* the highest counter */
    bool marked;                        /* a move has begun, and has not ended */
    uint8_t secret[JOURNAL_SECRET]; bool has_secret;
};
/* A write as it is read; what `damage` names could not be. Slices are valid during the call. */
typedef void mover_row(void *arg, const struct write_row *r, const struct write_content *c,
    const char *damage);
/* j: names of routes; borrowed. NULL with *e. */
struct mover *mover_open(const struct share_options *o, struct journal *j, struct err *e);
void mover_close(struct mover **mp);
bool mover_judge(struct mover *m);      /* fails where no instance would trust this Redis */
bool mover_look(struct mover *m, struct mover_found *out);      /* fails if anybody uses it */
bool mover_mark(struct mover *m);
/* What the move is about, for the next one to go on; "": there is none. */
bool mover_phase(struct mover *m, char *out, size_t size);
bool mover_set_phase(struct mover *m, const char *phase);
bool mover_clear(struct mover *m, bool marked);     /* all partitions are empty; marked or new */
bool mover_end(struct mover *m, uint64_t counter);      /* unmarks; counters are not below it */
bool mover_set_secret(struct mover *m, const uint8_t *secret);  /* NULL: there is none */
bool mover_put(struct mover *m, const struct write_row *r, const struct write_content *c);
bool mover_put_key(struct mover *m, const struct key_row *k);
bool mover_put_paused(struct mover *m, struct slice name);
bool mover_flush(struct mover *m);
bool mover_rows(struct mover *m, mover_row *each, void *arg);
bool mover_keys(struct mover *m, void (*each)(void *arg, const struct key_row *k), void *arg);
bool mover_paused(struct mover *m, void (*each)(void *arg, struct slice name), void *arg);

/* ---- share_row.c ----------------------------------------------------------------------------- */

#define SHARE_SEED 8
/* Appends; b->failed: memory is out. The row's route by its name. */
void row_pack(struct buf *b, uint64_t seed, const struct write_row *r, struct slice route);
void progress_pack(struct buf *b, uint64_t seq, const struct write_row *r);
void content_pack(struct buf *b, uint64_t seed, const struct write_content *c);
void body_pack(struct buf *b, uint64_t seed, const struct write_content *c);
void answer_pack(struct buf *b, uint64_t seq, const struct write_content *c);
/* False: damaged. v empty: nothing became of it yet. */
bool row_unpack(struct journal *j, uint64_t seq, struct slice z, struct slice r, struct slice v,
    struct write_row *out);
/* Slices point into the bytes; b, a .p NULL: there are none. */
bool content_unpack(struct slice z, struct slice c, struct write_content *out);
bool body_unpack(struct slice z, struct slice b, struct write_content *out);
bool answer_unpack(uint64_t seq, struct slice a, struct write_content *out);

#endif
