/*
 * The readers of the shared journal.
 *
 * Model    the write loop hands its question to the journal's thread and waits for the answer,
 *          which comes within journal.redis.timeout, as an answer or as what went wrong: a read
 *          that is not answered is a read that failed, and where only the connection ended it is
 *          asked once more. What journal_read gives is a copy in the journal's own memory.
 * Threads  the write loop asks; what is sent and read is the journal's thread's.
 */
#include "write/share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define TRIES 3
#define KEEP_BYTES (256 * 1024)         /* of the copy's memory between two reads */

struct read_row { struct write_row row; bool good; };

struct read {
    struct loop_msg msg;
    struct share *s;
    void        (*ask)(struct read *q);         /* on the journal's thread; ends with read_over */
    pthread_mutex_t mtx;
    pthread_cond_t  cond;
    bool         over;
    enum redis_cause cause;             /* OK: it was answered */
    int64_t      until_us;
    unsigned     tries;

    /* one */
    uint64_t     seq;
    bool         whole;
    bool         found, damaged;
    struct write_row row;
    struct write_content content;
    const char  *damage;
    bool         no_memory;

    /* many */
    unsigned     left;
    enum redis_cause missed;            /* what one was not answered for; OK: all were */
    uint64_t     after;
    unsigned     limit, mask;
    const char  *set;
    uint64_t     bound;                 /* nothing above it can be told yet */
    bool         more;
    struct read_row *rows; size_t nrows, rows_cap;      /* owned */

    /* the next of a chain */
    unsigned     part;
    uint64_t     hash;
    bool         by_target;
};

/* ---- waiting --------------------------------------------------------------------------------- */

static void
run_ask(struct loop_msg *m)
{
    struct read *q = CONTAINER(m, struct read, msg);

    q->ask(q);
}

static void
read_over(struct read *q, enum redis_cause cause)
{
    pthread_mutex_lock(&q->mtx);
    q->cause = cause;
    q->over = true;
    pthread_cond_signal(&q->cond);
    pthread_mutex_unlock(&q->mtx);
}

static enum redis_cause
wait_for(struct share *s, struct read *q, void (*ask)(struct read *q))
{
    q->s = s;
    q->ask = ask;
    q->msg.run = run_ask;
    q->until_us = now_us() + s->o.timeout_ms * 1000;
    pthread_mutex_init(&q->mtx, NULL);
    pthread_cond_init(&q->cond, NULL);
    loop_post(s->loop, &q->msg);
    pthread_mutex_lock(&q->mtx);
    while (!q->over)
        pthread_cond_wait(&q->cond, &q->mtx);
    pthread_mutex_unlock(&q->mtx);
    pthread_cond_destroy(&q->cond);
    pthread_mutex_destroy(&q->mtx);
    return q->cause;
}

static int64_t
time_left(const struct read *q)
{
    int64_t left = q->until_us - now_us();

    return left > 1000 ? left : 1000;
}

/* False: it was asked again. */
static bool
gives_up(struct read *q, struct share_part *p, enum redis_cause cause, const struct redis_reply *r)
{
    bool again = share_unknown(p, cause, r) || cause == REDIS_CLOSED;

    if (!again || ++q->tries >= TRIES || now_us() >= q->until_us)
        return true;
    q->ask(q);
    return false;
}

static int
failed(enum redis_cause cause, struct err *e)
{
    static struct log_limit limited;
    const char *why = share_why(cause);

    log_limited(&limited, LOG_ERROR, "journal: reading: %s", why);
    return err_set(e, EIO, "the journal cannot be read: %s", why);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void
on_condemned(struct journal_op *op)     /* its owner hears of it by the stream */
{
    free(op);
}

void
share_condemn(struct share *s, uint64_t seq, const char *cause)
{
    static struct log_limit limited;
    struct journal_op *op = calloc(1, sizeof *op);

    log_limited(&limited, LOG_ERROR, "journal %s: write %llu: %s", s->j->path,
        (unsigned long long)seq, cause);
    if (op == NULL)
        return;
    op->kind = JOURNAL_CONDEMN;
    op->row.seq = seq;
    op->why = cause;
    op->done = on_condemned;
    share_do(s, op);
}

/* ---- one ------------------------------------------------------------------------------------- */

/* The bytes of an answer into memory that the write loop reads. */
static bool
keep(struct journal *j, struct slice *s, size_t n)
{
    size_t bytes = 0;

    if (j->read_bytes.cap > KEEP_BYTES)
        buf_free(&j->read_bytes);
    j->read_bytes.n = 0;
    for (size_t i = 0; i < n; i++)
        bytes += s[i].n;
    if (buf_reserve(&j->read_bytes, bytes + 1) == NULL) {
        buf_free(&j->read_bytes);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (s[i].p != NULL) {
            char *at = j->read_bytes.p + j->read_bytes.n;

            buf_adds(&j->read_bytes, s[i]);
            s[i].p = at;
        }
    return true;
}

/* z, r, v, and of a whole one c, b, a. */
static void
take_one(struct read *q, const struct redis_reply *r)
{
    struct journal *j = q->s->j;
    struct slice z = reply_text(r, 0), content[4];
    struct write_content *c = &q->content;

    q->found = reply_text(r, 1).p != NULL || z.p != NULL;
    if (!q->found)
        return;
    if (!row_unpack(j, q->seq, z, reply_text(r, 1), reply_text(r, 2), &q->row)) {
        q->damage = "its row in the journal was damaged";
        return;
    }
    if (!q->whole)
        return;
    content[0] = z;
    for (size_t i = 1; i < 4; i++)
        content[i] = reply_text(r, 2 + i);
    if (!keep(j, content, NELEM(content))) {
        q->no_memory = true;
        return;
    }
    if (!content_unpack(content[0], content[1], c) ||
        (content[2].p == NULL ? write_is_pending(q->row.state) :
            !body_unpack(content[0], content[2], c))) {
        if (write_is_pending(q->row.state))
            q->damage = "its content in the journal was damaged";
        *c = (struct write_content){ .cause = SLICE("its content in the journal was damaged") };
    }
    if (content[3].p != NULL && !answer_unpack(q->seq, content[3], c))
        c->cause = SLICE("its last answer in the journal was damaged");
}

static void
on_one(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct read *q = arg;

    if (cause != REDIS_OK) {
        if (gives_up(q, &q->s->parts[journal_part(q->seq)], cause, r))
            read_over(q, cause);
        return;
    }
    take_one(q, r);
    read_over(q, REDIS_OK);
}

static void
ask_one(struct read *q)
{
    const struct share_part *p = &q->s->parts[journal_part(q->seq)];
    char key[SHARE_PREFIX + 48];
    int n = snprintf(key, sizeof key, "%sw:%llu", p->key, (unsigned long long)q->seq);
    struct slice argv[] = { SLICE("HMGET"), { key, (size_t)n }, SLICE("z"), SLICE("r"), SLICE("v"),
        SLICE("c"), SLICE("b"), SLICE("a") };
    struct redis_command c = { .argv = argv, .argc = q->whole ? 8 : 5, .key = slice_of(p->key),
        .within_us = time_left(q), .done = on_one, .arg = q };
    enum redis_cause cause;

    if (redis_send(q->s->redis, &c, &cause) == NULL)
        read_over(q, cause);
}

int
share_read(struct share *s, uint64_t seq, struct write_row *r, struct write_content *c,
    struct err *e)
{
    struct read q = { .seq = seq, .whole = c != NULL };
    enum redis_cause cause = wait_for(s, &q, ask_one);

    if (cause != REDIS_OK)
        return failed(cause, e);
    if (!q.found)
        return 0;
    if (q.damage != NULL) {
        share_condemn(s, seq, q.damage);
        return err_set(e, EBADMSG, "%s", q.damage);
    }
    if (q.no_memory)
        return err_set(e, ENOMEM, "memory is out");
    if (r != NULL)
        *r = q.row;
    if (c != NULL)
        *c = q.content;
    return 1;
}

/* ---- the next of a chain --------------------------------------------------------------------- */

static void
on_next(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct read *q = arg;

    if (cause != REDIS_OK) {
        if (gives_up(q, &q->s->parts[q->part], cause, r))
            read_over(q, cause);
        return;
    }
    if (reply_code(r) == JOURNAL_DONE && r->n > 1) {
        q->found = true;
        q->seq = reply_u64(r->at[1], 0);
        q->damaged = !row_unpack(q->s->j, q->seq, reply_text(r->at[1], 1), reply_text(r->at[1], 2),
            reply_text(r->at[1], 3), &q->row);
    }
    read_over(q, REDIS_OK);
}

static void
ask_next(struct read *q)
{
    struct share_args g = { .n = 0 };
    enum redis_cause cause;

    args_addhex(&g, q->hash);
    args_addu(&g, q->after);
    args_add(&g, q->by_target ? SLICE("1") : SLICE("0"));
    if (!share_script(q->s, &q->s->parts[q->part], LUA_NEXT, &g, time_left(q), on_next, q, &cause))
        read_over(q, cause);
}

int
share_next(struct share *s, unsigned part, uint64_t hash, uint64_t seq, bool by_target,
    struct write_row *r)
{
    struct read q = { .part = part % JOURNAL_PARTS, .hash = hash, .after = seq,
        .by_target = by_target };
    enum redis_cause cause = wait_for(s, &q, ask_next);

    if (cause != REDIS_OK)
        return failed(cause, NULL);
    if (!q.found)
        return 0;
    *r = q.row;
    if (!q.damaged)
        return 1;
    share_condemn(s, q.seq, "its row in the journal was damaged");
    return -1;
}

/* ---- one that was moved here ----------------------------------------------------------------- */

struct find_part { struct read *q; uint64_t seq; };

static void
on_find(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct find_part *x = arg;
    struct read *q = x->q;

    if (cause == REDIS_OK && r->type == REPLY_INTEGER && r->integer > 0) {
        q->seq = x->seq;
        q->found = true;
    }
    if (cause != REDIS_OK)
        q->missed = cause;
    free(x);
    if (--q->left == 0)
        read_over(q, q->found ? REDIS_OK : q->missed);
}

static void
find_in(struct read *q, unsigned part)
{
    struct find_part *x = malloc(sizeof *x);
    const struct share_part *p = &q->s->parts[part];
    char key[SHARE_PREFIX + 48];
    struct slice argv[] = { SLICE("EXISTS"), { key, 0 } };
    struct redis_command c = { .argv = argv, .argc = NELEM(argv), .key = slice_of(p->key),
        .within_us = time_left(q), .done = on_find, .arg = x };
    enum redis_cause cause = REDIS_FULL;

    if (x == NULL) {
        q->missed = cause;
        return;
    }
    *x = (struct find_part){ q, journal_moved(q->after, 0, part) };
    argv[1].n = (size_t)snprintf(key, sizeof key, "%sw:%llu", p->key, (unsigned long long)x->seq);
    if (redis_send(q->s->redis, &c, &cause) != NULL) {
        q->left++;
        return;
    }
    q->missed = cause;
    free(x);
}

static void
ask_find(struct read *q)
{
    q->left = 1;
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        find_in(q, i);
    if (--q->left == 0)
        read_over(q, q->missed);
}

int
share_find(struct share *s, uint64_t old, uint64_t *seq)
{
    enum redis_cause cause;
    struct read q;
    unsigned tries = 0;

    do {
        q = (struct read){ .after = old, .seq = *seq };
        cause = wait_for(s, &q, ask_find);
    } while (cause == REDIS_CLOSED && ++tries < TRIES);
    if (cause != REDIS_OK)
        return failed(cause, NULL);
    *seq = q.seq;
    return 0;
}

/* ---- many ------------------------------------------------------------------------------------ */

/* All partitions are asked for their first ones; what lies above the last of one that has more is
 * not told yet, so that the order is right. */
struct each_part { struct read *q; struct share_part *p; };

static void
add_row(struct read *q, const struct redis_reply *w)
{
    struct read_row *at;

    if (q->nrows == q->rows_cap) {
        size_t cap = 2 * q->nrows + 64;
        struct read_row *grown = realloc(q->rows, cap * sizeof *grown);

        if (grown == NULL) {
            q->no_memory = true;
            return;
        }
        q->rows = grown;
        q->rows_cap = cap;
    }
    at = &q->rows[q->nrows++];
    at->good = row_unpack(q->s->j, reply_u64(w, 0), reply_text(w, 1), reply_text(w, 2),
        reply_text(w, 3), &at->row);
}

static void
on_each(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct each_part *x = arg;
    struct share_part *p = x->p;
    struct read *q = x->q;

    free(x);
    (void)share_unknown(p, cause, r);
    if (cause == REDIS_OK && reply_code(r) == JOURNAL_DONE) {
        for (size_t i = 3; i < r->n; i++)
            add_row(q, r->at[i]);
        if (reply_u64(r, 1) >= q->limit) {
            q->more = true;
            if (reply_u64(r, 2) < q->bound)
                q->bound = reply_u64(r, 2);
        }
        if (reply_u64(r, 2) > q->seq)
            q->seq = reply_u64(r, 2);
    } else {
        q->cause = cause != REDIS_OK ? cause : REDIS_PROTOCOL;
    }
    if (--q->left == 0)
        read_over(q, q->cause);
}

static void
ask_each(struct read *q)
{
    q->left = 1;
    for (unsigned i = 0; i < JOURNAL_PARTS; i++) {
        struct each_part *x = malloc(sizeof *x);
        struct share_args g = { .n = 0 };
        enum redis_cause cause = REDIS_FULL;

        args_addu(&g, q->after);
        args_addu(&g, q->limit);
        args_add(&g, slice_of(q->set));
        args_addu(&g, q->mask);
        q->left++;
        if (x != NULL) {
            *x = (struct each_part){ q, &q->s->parts[i] };
            if (share_script(q->s, x->p, LUA_EACH, &g, time_left(q), on_each, x, &cause))
                continue;
        }
        free(x);
        q->left--;
        q->cause = cause;
    }
    if (--q->left == 0)
        read_over(q, q->cause);
}

static int
by_seq(const void *a, const void *b)
{
    const struct read_row *x = a, *y = b;

    return x->row.seq < y->row.seq ? -1 : x->row.seq > y->row.seq;
}

static const char *
set_for(unsigned mask)
{
    unsigned dead = 0, pending = 0;

    for (unsigned i = 0; i < WRITE_STATES; i++) {
        if (write_is_dead(i))
            dead |= 1u << i;
        if (write_is_pending(i))
            pending |= 1u << i;
    }
    if ((mask & ~dead) == 0)
        return "d";
    return (mask & ~pending) == 0 ? "p" : "a";
}

int
share_each(struct share *s, uint64_t *seq, unsigned state_mask, unsigned max,
    void (*each)(void *arg, const struct write_row *r), void *arg)
{
    struct read q = { .after = *seq, .limit = max / 16 + 4, .bound = UINT64_MAX };
    enum redis_cause cause;

    q.mask = state_mask & ((1u << WRITE_STATES) - 1);
    q.set = set_for(q.mask);
    cause = wait_for(s, &q, ask_each);
    if (cause != REDIS_OK || q.no_memory) {
        free(q.rows);
        return cause != REDIS_OK ? failed(cause, NULL) : -1;
    }
    if (q.nrows > 0)
        qsort(q.rows, q.nrows, sizeof *q.rows, by_seq);
    for (size_t i = 0; i < q.nrows && q.rows[i].row.seq <= q.bound; i++)
        if (q.rows[i].good)
            each(arg, &q.rows[i].row);
        else
            share_condemn(s, q.rows[i].row.seq, "its row in the journal was damaged");
    free(q.rows);
    if (q.more)
        *seq = q.bound;
    else if (q.seq > *seq)
        *seq = q.seq;
    return q.more;
}
