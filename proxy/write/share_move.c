/*
 * The shared journal's keys, put and read whole: for `weir writes move`.
 *
 * Model    a thread with a loop and a client of Redis sends what the caller asks for, a window of
 *          commands at a time; the caller waits for room in it, or for all. Once one has failed no
 *          other is sent. What is put is put by a script that leaves alone what is there.
 * Marked   while something is moved the partitions' format is `0`, which no instance knows: it
 *          takes none of them and accepts nothing. So no lease is held that could end, and what a
 *          crash leaves stays as it is until the next move ends it.
 * Threads  the caller's, and the loop's, which runs `each` of the readers (share_move_read.c) while
 *          the caller waits.
 */
#include "write/mover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define WINDOW    32
#define WITHIN_US ((int64_t)20000000)

/* ---- one command ----------------------------------------------------------------------------- */

/* Under mtx. */
static void
fail(struct mover *m, const char *what)
{
    if (!m->failed)
        err_set(m->e, EIO, "%s; nothing is lost: run the same again", what);
    m->failed = true;
}

static void
call_over(struct move_call *c, enum redis_cause cause, const struct redis_reply *r)
{
    struct mover *m = c->m;

    pthread_mutex_lock(&m->mtx);
    if (c->may_be_refused && (cause == REDIS_AUTH || cause == REDIS_OTHER)) {
        c->done(m, r, c->arg);
    } else if (cause != REDIS_OK && r != NULL && r->type == REPLY_ERROR && !m->failed) {
        err_set(m->e, EIO, "Redis says: %.*s; nothing is lost: run the same again",
            SLICE_ARG(r->text));
        m->failed = true;
    } else if (cause != REDIS_OK) {
        fail(m, share_why(cause));
    } else if (c->done != NULL && !m->failed) {
        c->done(m, r, c->arg);
    }
    m->under_way--;
    pthread_cond_signal(&m->less);
    pthread_mutex_unlock(&m->mtx);
    buf_free(&c->b);
    free(c);
}

static void
on_reply(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    call_over(arg, cause, r);
}

static void
run_call(struct loop_msg *msg)
{
    struct move_call *c = CONTAINER(msg, struct move_call, msg);
    struct redis_command plain = { .argv = c->g.at, .argc = c->g.n, .key = slice_of(c->p->key),
        .within_us = WITHIN_US, .done = on_reply, .arg = c };
    enum redis_cause cause;
    bool sent;

    if (c->script == -1)
        sent = redis_send(c->m->s->redis, &plain, &cause) != NULL;
    else
        sent = share_script(c->m->s, c->p, (enum share_script)c->script, &c->g, WITHIN_US, on_reply,
            c, &cause);
    if (!sent)
        call_over(c, cause, NULL);
}

struct move_call *
mover_call(struct mover *m, unsigned part, int script, mover_done *done, void *arg)
{
    struct move_call *c = calloc(1, sizeof *c);

    if (c == NULL) {
        pthread_mutex_lock(&m->mtx);
        fail(m, "memory is out");
        pthread_mutex_unlock(&m->mtx);
        return NULL;
    }
    c->msg.run = run_call;
    c->m = m;
    c->p = &m->s->parts[part];
    c->script = script;
    c->done = done;
    c->arg = arg;
    return c;
}

/* Waits until at most `n` are under way. */
static bool
await(struct mover *m, unsigned n)
{
    bool good;

    pthread_mutex_lock(&m->mtx);
    while (m->under_way > n)
        pthread_cond_wait(&m->less, &m->mtx);
    good = !m->failed;
    pthread_mutex_unlock(&m->mtx);
    return good;
}

bool
mover_send(struct move_call *c)
{
    struct mover *m = c->m;

    if (c->b.failed) {
        pthread_mutex_lock(&m->mtx);
        fail(m, "memory is out");
        pthread_mutex_unlock(&m->mtx);
    }
    if (!await(m, WINDOW - 1)) {
        buf_free(&c->b);
        free(c);
        return false;
    }
    pthread_mutex_lock(&m->mtx);
    m->under_way++;
    pthread_mutex_unlock(&m->mtx);
    loop_post(m->s->loop, &c->msg);
    return true;
}

bool
mover_flush(struct mover *m)
{
    return await(m, 0);
}

void
mover_key(struct move_call *c, const char *name)
{
    int n = snprintf(c->key, sizeof c->key, "%s%s", c->p->key, name);

    args_add(&c->g, (struct slice){ c->key, (size_t)n });
}

/* ---- opening --------------------------------------------------------------------------------- */

static void *
run_thread(void *arg)
{
    loop_run(((struct mover *)arg)->s->loop);
    return NULL;
}

struct mover *
mover_open(const struct share_options *o, struct journal *j, struct err *e)
{
    const struct journal_found found = { .row = NULL };
    struct mover *m = calloc(1, sizeof *m);
    int rc;

    if (m == NULL) {
        err_set(e, ENOMEM, "memory is out");
        return NULL;
    }
    m->e = e;
    m->j = j;
    pthread_mutex_init(&m->mtx, NULL);
    pthread_cond_init(&m->less, NULL);
    m->seqs = calloc(MOVER_PAGE, sizeof *m->seqs);
    m->keys = calloc(MOVER_PAGE, sizeof *m->keys);
    m->hashes = calloc(MOVER_PAGE, sizeof *m->hashes);
    if (m->seqs == NULL || m->keys == NULL || m->hashes == NULL) {
        err_set(e, ENOMEM, "memory is out");
    } else if ((m->s = share_prepare(o, j, &found, e)) != NULL) {
        rc = pthread_create(&m->thread, NULL, run_thread, m);
        m->running = rc == 0;
        if (rc != 0)
            err_set(e, rc, "journal: no thread: %s", strerror(rc));
    }
    if (!m->running)
        mover_close(&m);
    return m;
}

void
mover_close(struct mover **mp)
{
    struct mover *m = *mp;

    *mp = NULL;
    if (m->running) {
        await(m, 0);
        loop_stop(m->s->loop);
        pthread_join(m->thread, NULL);
    }
    if (m->s != NULL)
        share_close(&m->s);
    pthread_cond_destroy(&m->less);
    pthread_mutex_destroy(&m->mtx);
    free(m->hashes);
    free(m->keys);
    free(m->seqs);
    free(m);
}

/* ---- whose it is ----------------------------------------------------------------------------- */

static void
in_use(struct mover *m, struct slice who)
{
    if (!m->failed)
        err_set(m->e, EBUSY, "the journal in Redis is in use by %.*s: stop all instances that have "
            "it (one that was killed is forgotten after journal.redis.lease), and run this again",
            SLICE_ARG(who));
    m->failed = true;
}

static void
on_live(struct mover *m, const struct redis_reply *r, void *arg)
{
    struct slice secret = reply_text(r, 2);

    (void)arg;
    if (reply_code(r) != JOURNAL_DONE || r->n < 3 || r->at[1]->type != REPLY_ARRAY) {
        fail(m, share_why(REDIS_PROTOCOL));
        return;
    }
    if (r->at[1]->n > 0)
        in_use(m, reply_text(r->at[1], 0));
    if (m->found != NULL && secret.n == JOURNAL_SECRET) {
        memcpy(m->found->secret, secret.p, JOURNAL_SECRET);
        m->found->has_secret = true;
    }
}

static void
on_mark(struct mover *m, const struct redis_reply *r, void *arg)
{
    int code = reply_code(r);

    (void)arg;
    if (code == JOURNAL_BUSY)
        in_use(m, reply_text(r, 1));
    else if (code == JOURNAL_FULL)
        fail(m, "the journal in Redis has the format of another version");
    else if (code != JOURNAL_DONE)
        fail(m, share_why(REDIS_PROTOCOL));
    else if (m->found != NULL && r->n > 4) {
        m->found->rows += reply_u64(r, 1);
        m->found->keys += reply_u64(r, 2);
        if (reply_u64(r, 3) > m->found->counter)
            m->found->counter = reply_u64(r, 3);
        m->found->marked |= slice_eq(reply_text(r, 4), SLICE("0"));
    }
}

static bool
nobody_lives(struct mover *m)
{
    struct move_call *c = mover_call(m, SHARE_FLEET, LUA_LIVE, on_live, NULL);

    return c != NULL && mover_send(c) && mover_flush(m);
}

/* what: as the script has it. */
static bool
mark_all(struct mover *m, const char *what, uint64_t counter)
{
    for (unsigned i = 0; i < JOURNAL_PARTS; i++) {
        struct move_call *c = mover_call(m, i, LUA_MARK, on_mark, NULL);

        if (c == NULL)
            return false;
        args_add(&c->g, slice_of(what));
        args_addu(&c->g, counter);
        if (!mover_send(c))
            return false;
    }
    return mover_flush(m);
}

bool
mover_look(struct mover *m, struct mover_found *out)
{
    bool good;

    *out = (struct mover_found){ 0 };
    m->found = out;
    good = nobody_lives(m) && mark_all(m, "0", 0);
    m->found = NULL;
    return good;
}

/* An instance that began after the look is seen by the second one; it meets the marks itself. */
bool
mover_mark(struct mover *m)
{
    return mark_all(m, "1", 0) && nobody_lives(m);
}

bool
mover_end(struct mover *m, uint64_t counter)
{
    return mark_all(m, "2", counter);
}

/* ---- phase and secret ------------------------------------------------------------------------ */

static void
on_text(struct mover *m, const struct redis_reply *r, void *arg)
{
    (void)arg;
    snprintf(m->text, m->size, "%.*s", r->type == REPLY_STRING ? (int)r->text.n : 0,
        r->type == REPLY_STRING ? r->text.p : "");
}

bool
mover_phase(struct mover *m, char *out, size_t size)
{
    struct move_call *c = mover_call(m, SHARE_FLEET, -1, on_text, NULL);

    if (c == NULL)
        return false;
    m->text = out;
    m->size = size;
    args_add(&c->g, SLICE("GET"));
    mover_key(c, "move");
    return mover_send(c) && mover_flush(m);
}

/* "": the key goes. */
static bool
set_fleet(struct mover *m, const char *name, struct slice value)
{
    struct move_call *c = mover_call(m, SHARE_FLEET, -1, NULL, NULL);

    if (c == NULL)
        return false;
    args_add(&c->g, value.n > 0 ? SLICE("SET") : SLICE("DEL"));
    mover_key(c, name);
    buf_adds(&c->b, value);
    if (value.n > 0)
        args_add(&c->g, buf_slice(&c->b));
    return mover_send(c) && mover_flush(m);
}

bool
mover_set_phase(struct mover *m, const char *phase)
{
    return set_fleet(m, "move", slice_of(phase));
}

bool
mover_set_secret(struct mover *m, const uint8_t *secret)
{
    return set_fleet(m, "secret", (struct slice){ (const char *)secret,
        secret != NULL ? JOURNAL_SECRET : 0 });
}

/* ---- letting go ------------------------------------------------------------------------------ */

static void
on_wiped(struct mover *m, const struct redis_reply *r, void *arg)
{
    (void)arg;
    if (reply_code(r) != JOURNAL_DONE)
        fail(m, "a partition of the journal is in use");
    else
        m->left = reply_u64(r, 1);
}

bool
mover_clear(struct mover *m, bool marked)
{
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        do {
            struct move_call *c = mover_call(m, i, LUA_WIPE, on_wiped, NULL);

            if (c == NULL)
                return false;
            m->left = 0;
            args_addu(&c->g, MOVER_PAGE);
            args_add(&c->g, marked ? SLICE("1") : SLICE("0"));
            if (!mover_send(c) || !mover_flush(m))
                return false;
        } while (m->left > 0);
    return set_fleet(m, "paused", SLICE(""));
}

/* ---- putting --------------------------------------------------------------------------------- */

static void
on_put(struct mover *m, const struct redis_reply *r, void *arg)
{
    int code = reply_code(r);

    (void)arg;
    if (code != JOURNAL_DONE && code != JOURNAL_REPEATED)
        fail(m, code == JOURNAL_LOST ? "another move has ended this one" :
            share_why(REDIS_PROTOCOL));
}

static struct slice
flag(bool on)
{
    return on ? SLICE("1") : SLICE("0");
}

static struct slice
piece(const struct buf *b, size_t from, size_t to)
{
    return b->failed ? (struct slice){ "", 0 } : (struct slice){ b->p + from, to - from };
}

bool
mover_put(struct mover *m, const struct write_row *r, const struct write_content *w)
{
    struct move_call *c = mover_call(m, journal_part(r->seq), LUA_PUT, on_put, NULL);
    bool pending = write_is_pending(r->state), dead = write_is_dead(r->state);
    bool body = pending || dead || w->has_body || w->fields.p != NULL;
    bool answer = w->answer_head.p != NULL || w->answer_body.p != NULL || w->cause.p != NULL;
    struct share_args *g;
    uint64_t seed;
    size_t at[5];

    if (c == NULL)
        return false;
    g = &c->g;
    random_bytes(&seed, sizeof seed);
    buf_add(&c->b, &seed, SHARE_SEED);
    at[0] = c->b.n;
    row_pack(&c->b, seed, r, journal_route_name(m->j, r->route));
    at[1] = c->b.n;
    content_pack(&c->b, seed, w);
    at[2] = c->b.n;
    if (body)
        body_pack(&c->b, seed, w);
    at[3] = c->b.n;
    if (answer)
        answer_pack(&c->b, r->seq, w);
    at[4] = c->b.n;
    args_addu(g, r->seq);
    args_addu(g, r->state);
    args_addu(g, r->attempts);
    args_addu(g, SHARE_ROW + c->b.n);
    args_addhex(g, r->c1);
    if (r->c2 != 0)
        args_addhex(g, r->c2);
    else
        args_add(g, SLICE(""));
    args_add(g, piece(&c->b, 0, at[0]));
    args_add(g, piece(&c->b, at[0], at[1]));
    args_add(g, piece(&c->b, at[1], at[2]));
    args_add(g, flag(body));
    args_add(g, piece(&c->b, at[2], at[3]));
    args_add(g, piece(&c->b, at[3], at[4]));
    args_addu(g, r->settled_ms > 0 ? (uint64_t)r->settled_ms : 0);
    args_add(g, flag(pending));
    args_add(g, flag(dead));
    return mover_send(c);
}

bool
mover_put_key(struct mover *m, const struct key_row *k)
{
    unsigned part = (uint8_t)k->h.p[0] % JOURNAL_PARTS;
    struct move_call *c = mover_call(m, part, LUA_PUT_KEY, on_put, NULL);
    struct slice parts[] = { { NULL, 32 }, k->fingerprint, k->head, k->body };
    char hex[33];

    if (c == NULL)
        return false;
    parts[0] = key_hex((const uint8_t *)k->h.p, hex);
    for (size_t i = 0; i < NELEM(parts); i++)
        buf_adds(&c->b, parts[i].p != NULL ? parts[i] : (struct slice){ "", 0 });
    for (size_t i = 0, at = 0; i < NELEM(parts); at += parts[i++].n)
        parts[i].p = parts[i].p != NULL ? c->b.p + at : NULL;
    args_add(&c->g, parts[0]);
    args_addu(&c->g, (uint64_t)k->expires_ms);
    args_add(&c->g, parts[1]);
    args_addu(&c->g, k->seq);
    args_addu(&c->g, k->state);
    args_addu(&c->g, k->status);
    args_add(&c->g, parts[2]);
    args_add(&c->g, flag(parts[3].p != NULL));
    args_add(&c->g, parts[3]);
    args_addu(&c->g, (uint64_t)k->bytes);
    return mover_send(c);
}

bool
mover_put_paused(struct mover *m, struct slice name)
{
    struct move_call *c = mover_call(m, SHARE_FLEET, -1, NULL, NULL);

    if (c == NULL)
        return false;
    args_add(&c->g, SLICE("SADD"));
    mover_key(c, "paused");
    buf_adds(&c->b, name);
    args_add(&c->g, buf_slice(&c->b));
    return mover_send(c);
}
