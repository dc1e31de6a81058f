/*
 * A journal of its own in a new directory for each test, and operations that are waited for.
 */
#ifndef WRITE_KIT_H
#define WRITE_KIT_H

#include "write/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#define KIT_MIB ((int64_t)1 << 20)

static __attribute__((unused)) const struct journal_limits kit_limits = {
    64 * KIT_MIB, KIT_MIB, 3600000, 1000000
};

struct kit {
    char directory[64], path[96];
    struct journal *j;
    struct write_row found[64];         /* the first that opening gave */
    unsigned nfound;
    struct write_row condemned;         /* the last that was found damaged later */
    bool known;
};

static inline void
kit_found(void *arg, const struct write_row *r)
{
    struct kit *k = arg;

    if (k->nfound < NELEM(k->found))
        k->found[k->nfound] = *r;
    k->nfound++;
}

static inline void
kit_condemned(void *arg, const struct write_row *r, bool known)
{
    struct kit *k = arg;

    k->condemned = *r;
    k->known = known;
}

static inline int
kit_open_with(struct kit *k, const struct journal_limits *limits, struct err *e)
{
    struct journal_found f = { .row = kit_found, .condemned = kit_condemned, .arg = k };

    k->nfound = 0;
    e->text[0] = '\0';
    k->j = journal_open(k->path, limits, &f, e);
    return k->j != NULL ? 0 : -1;
}

static inline void
kit_open(struct kit *k)
{
    struct err e;

    if (kit_open_with(k, &kit_limits, &e) == -1)
        fail_msg("%s", e.text);
}

static inline void
kit_new(struct kit *k)                  /* where TMPDIR says */
{
    const char *tmp = getenv("TMPDIR");

    memset(k, 0, sizeof *k);
    snprintf(k->directory, sizeof k->directory, "%s/weir-journal-XXXXXX",
        tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(k->directory));
    snprintf(k->path, sizeof k->path, "%s/journal", k->directory);
}

static inline int
kit_unlink(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st;
    (void)flag;
    (void)f;
    return remove(path);
}

static inline void
kit_end(struct kit *k)
{
    if (k->j != NULL)
        journal_close(&k->j);
    nftw(k->directory, kit_unlink, 8, FTW_DEPTH | FTW_PHYS);
}

static inline void
kit_again(struct kit *k)
{
    journal_close(&k->j);
    kit_open(k);
}

/* ---- operations ------------------------------------------------------------------------------ */

struct kit_wait { pthread_mutex_t mtx; pthread_cond_t cond; unsigned left; };

static inline void
kit_done(struct journal_op *op)
{
    struct kit_wait *w = op->arg;

    pthread_mutex_lock(&w->mtx);
    if (--w->left == 0)
        pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mtx);
}

/* Queued together behind a CALL that holds the thread until all are: one transaction. */
static inline void
kit_hold(struct journal_op *op)
{
    kit_done(op);
    pthread_mutex_lock((pthread_mutex_t *)op->content.url.p);
    pthread_mutex_unlock((pthread_mutex_t *)op->content.url.p);
}

static inline void
kit_do_together(struct journal *j, struct journal_op **ops, unsigned n)
{
    struct kit_wait w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, n + 1 };
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    struct journal_op hold = { .kind = JOURNAL_CALL, .done = kit_hold, .arg = &w,
        .content.url.p = (const char *)&gate };

    pthread_mutex_lock(&gate);
    journal_do(j, &hold);
    for (unsigned i = 0; i < n; i++) {
        ops[i]->done = kit_done;
        ops[i]->arg = &w;
        journal_do(j, ops[i]);
    }
    pthread_mutex_unlock(&gate);
    pthread_mutex_lock(&w.mtx);
    while (w.left != 0)
        pthread_cond_wait(&w.cond, &w.mtx);
    pthread_mutex_unlock(&w.mtx);
}

static inline enum journal_result
kit_do(struct journal *j, struct journal_op *op)
{
    kit_do_together(j, &op, 1);
    return op->result;
}

static inline struct journal_op
kit_write(uint64_t c1, struct slice body)
{
    return (struct journal_op){ .kind = JOURNAL_ACCEPT, .durable = WRITE_FSYNC,
        .row = { .c1 = c1, .who = 7, .accepted_ms = wall_ms(), .route = 1,
            .method = HTTP_POST, .lane = WRITE_LANE_DEFAULT, .state = WRITE_PENDING },
        .content = { .method_name = SLICE("POST"), .url = SLICE("http://h/things"),
            .target = SLICE("/things"), .host = SLICE("h"), .fields = SLICE("A: b\r\n"),
            .has_body = true, .body = body, .order_key = SLICE("h/things") } };
}

static inline uint64_t
kit_accept(struct kit *k, uint64_t c1, struct slice body)
{
    struct journal_op op = kit_write(c1, body);

    assert_int_equal(kit_do(k->j, &op), JOURNAL_DONE);
    return op.row.seq;
}

static inline enum journal_result
kit_state(struct kit *k, uint64_t seq, enum write_state state, const char *cause)
{
    struct journal_op op = { .kind = JOURNAL_UPDATE, .durable = WRITE_OS,
        .row = { .seq = seq, .state = state, .status = 200, .attempts = 1 },
        .keep_answer = true, .content = { .cause = slice_of(cause), .answer_body = SLICE("ok") } };

    return kit_do(k->j, &op);
}

static inline struct journal_op
kit_key(enum journal_kind kind, const char *key, const char *fingerprint)
{
    struct journal_op op = kit_write(1, SLICE("x"));

    op.kind = kind;
    op.key_for_ms = 3600000;
    snprintf((char *)op.key_hash, sizeof op.key_hash, "%s", key);
    snprintf((char *)op.fingerprint, sizeof op.fingerprint, "%s", fingerprint);
    return op;
}

#endif
