/*
 * The shared journal's keys, put and read whole: for `weir writes move`.
 *
 * Model    a thread with a loop and a client of Redis sends what the caller asks for, a window of
 *          commands at a time; the caller waits for room in it, or for all. Once one has failed no
 *          other is sent. What is put is put by a script that leaves alone what is there.
 * Marked   while something is moved the partitions' format is `0`, which no instance knows: it
 *          takes none of them and accepts nothing. So no lease is held that could end, and what a
 *          crash leaves stays as it is until the next move ends it.
 * Threads  the caller's, and the loop's, which runs `each` of the readers while the caller waits.
 */
#include "write/share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define WINDOW    32
#define WITHIN_US ((int64_t)20000000)
#define PAGE      256

typedef void move_done(struct mover *m, const struct redis_reply *r, void *arg);

struct mover {
    struct share *s;
    struct journal *j;                  /* borrowed */
    pthread_t thread;
    bool      running;
    struct err *e;                      /* borrowed */

    pthread_mutex_t mtx;
    pthread_cond_t  less;
    unsigned  under_way;
    bool      failed;

    /* what is being read */
    mover_row *row;
    void    (*key)(void *arg, const struct key_row *k);
    void    (*name)(void *arg, struct slice name);
    void     *arg;
    struct mover_found *found;
    uint64_t *seqs; size_t nseqs;       /* a page; owned */
    struct key_row *keys; size_t nkeys; /* a page; owned; .h: 16 bytes each in hashes */
    uint8_t  (*hashes)[16];
    uint64_t  left;                     /* WIPE */
    char     *text; size_t size;
};

struct move_call {
    struct loop_msg msg;
    struct mover *m;
    struct share_part *p;
    int       script;                   /* -1: a command */
    struct share_args g;
    struct buf b;                       /* bytes that g points to; owned */
    char      key[SHARE_PREFIX + 64];
    move_done *done;
    void     *arg;
};

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
    if (cause != REDIS_OK && r != NULL && r->type == REPLY_ERROR && !m->failed) {
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

static struct move_call *
call_new(struct mover *m, unsigned part, int script, move_done *done, void *arg)
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

static bool
send_call(struct move_call *c)
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

/* The key PREFIX{jN}NAME, as an argument. */
static void
add_key(struct move_call *c, const char *name)
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
    m->seqs = calloc(PAGE, sizeof *m->seqs);
    m->keys = calloc(PAGE, sizeof *m->keys);
    m->hashes = calloc(PAGE, sizeof *m->hashes);
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
    struct move_call *c = call_new(m, SHARE_FLEET, LUA_LIVE, on_live, NULL);

    return c != NULL && send_call(c) && mover_flush(m);
}

/* what: as the script has it. */
static bool
mark_all(struct mover *m, const char *what, uint64_t counter)
{
    for (unsigned i = 0; i < JOURNAL_PARTS; i++) {
        struct move_call *c = call_new(m, i, LUA_MARK, on_mark, NULL);

        if (c == NULL)
            return false;
        args_add(&c->g, slice_of(what));
        args_addu(&c->g, counter);
        if (!send_call(c))
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
    struct move_call *c = call_new(m, SHARE_FLEET, -1, on_text, NULL);

    if (c == NULL)
        return false;
    m->text = out;
    m->size = size;
    args_add(&c->g, SLICE("GET"));
    add_key(c, "move");
    return send_call(c) && mover_flush(m);
}

/* "": the key goes. */
static bool
set_fleet(struct mover *m, const char *name, struct slice value)
{
    struct move_call *c = call_new(m, SHARE_FLEET, -1, NULL, NULL);

    if (c == NULL)
        return false;
    args_add(&c->g, value.n > 0 ? SLICE("SET") : SLICE("DEL"));
    add_key(c, name);
    buf_adds(&c->b, value);
    if (value.n > 0)
        args_add(&c->g, buf_slice(&c->b));
    return send_call(c) && mover_flush(m);
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
            struct move_call *c = call_new(m, i, LUA_WIPE, on_wiped, NULL);

            if (c == NULL)
                return false;
            m->left = 0;
            args_addu(&c->g, PAGE);
            args_add(&c->g, marked ? SLICE("1") : SLICE("0"));
            if (!send_call(c) || !mover_flush(m))
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
    struct move_call *c = call_new(m, journal_part(r->seq), LUA_PUT, on_put, NULL);
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
    return send_call(c);
}

bool
mover_put_key(struct mover *m, const struct key_row *k)
{
    unsigned part = (uint8_t)k->h.p[0] % JOURNAL_PARTS;
    struct move_call *c = call_new(m, part, LUA_PUT_KEY, on_put, NULL);
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
    return send_call(c);
}

bool
mover_put_paused(struct mover *m, struct slice name)
{
    struct move_call *c = call_new(m, SHARE_FLEET, -1, NULL, NULL);

    if (c == NULL)
        return false;
    args_add(&c->g, SLICE("SADD"));
    add_key(c, "paused");
    buf_adds(&c->b, name);
    args_add(&c->g, buf_slice(&c->b));
    return send_call(c);
}

/* ---- reading rows ---------------------------------------------------------------------------- */

/* z, r, v, c, b, a. */
static void
on_row(struct mover *m, const struct redis_reply *r, void *arg)
{
    uint64_t seq = *(const uint64_t *)arg;
    struct write_content c = { 0 };
    struct slice z = reply_text(r, 0), b = reply_text(r, 4), a = reply_text(r, 5);
    const char *damage = NULL;
    struct write_row row;
    bool good;

    if (z.p == NULL && reply_text(r, 1).p == NULL)
        return;
    if (!row_unpack(m->j, seq, z, reply_text(r, 1), reply_text(r, 2), &row))
        damage = "its row in the journal was damaged";
    good = content_unpack(z, reply_text(r, 3), &c) &&
        (b.p == NULL ? !write_is_pending(row.state) : body_unpack(z, b, &c));
    if (!good) {
        c = (struct write_content){ 0 };
        damage = damage != NULL ? damage : "its content in the journal was damaged";
    }
    if (a.p != NULL && !answer_unpack(seq, a, &c))
        c.cause = SLICE("its last answer in the journal was damaged");
    m->row(m->arg, &row, &c, damage);
}

static void
on_page(struct mover *m, const struct redis_reply *r, void *arg)
{
    (void)arg;
    m->nseqs = 0;
    for (size_t i = 0; r->type == REPLY_ARRAY && i < r->n && i < PAGE; i++)
        m->seqs[m->nseqs++] = reply_u64(r, i);
}

static bool
read_page(struct mover *m, unsigned part, uint64_t after)
{
    struct move_call *c = call_new(m, part, -1, on_page, NULL);

    if (c == NULL)
        return false;
    buf_printf(&c->b, "(%llu", (unsigned long long)after);
    args_add(&c->g, SLICE("ZRANGEBYSCORE"));
    add_key(c, "a");
    args_add(&c->g, buf_slice(&c->b));
    args_add(&c->g, SLICE("+inf"));
    args_add(&c->g, SLICE("LIMIT"));
    args_addu(&c->g, 0);
    args_addu(&c->g, PAGE);
    return send_call(c) && mover_flush(m);
}

static bool
read_row(struct mover *m, unsigned part, uint64_t *seq)
{
    static const char *const fields[] = { "z", "r", "v", "c", "b", "a" };
    struct move_call *c = call_new(m, part, -1, on_row, seq);
    char name[32];

    if (c == NULL)
        return false;
    snprintf(name, sizeof name, "w:%llu", (unsigned long long)*seq);
    args_add(&c->g, SLICE("HMGET"));
    add_key(c, name);
    for (size_t i = 0; i < NELEM(fields); i++)
        args_add(&c->g, slice_of(fields[i]));
    return send_call(c);
}

bool
mover_rows(struct mover *m, mover_row *each, void *arg)
{
    m->row = each;
    m->arg = arg;
    for (unsigned part = 0; part < JOURNAL_PARTS; part++) {
        uint64_t after = 0;

        do {
            if (!read_page(m, part, after))
                return false;
            for (size_t i = 0; i < m->nseqs; i++)
                if (!read_row(m, part, &m->seqs[i]))
                    return false;
            if (!mover_flush(m))
                return false;
            after = m->nseqs > 0 ? m->seqs[m->nseqs - 1] : after;
        } while (m->nseqs == PAGE);
    }
    return true;
}

/* ---- reading keys and names ------------------------------------------------------------------ */

/* f, q, s, t, h, y, n. One whose time is out meanwhile is not there. */
static void
on_key(struct mover *m, const struct redis_reply *r, void *arg)
{
    struct key_row *k = arg;

    k->fingerprint = reply_text(r, 0);
    k->seq = reply_u64(r, 1);
    k->state = (enum key_state)reply_u64(r, 2);
    k->status = (unsigned)reply_u64(r, 3);
    k->head = reply_text(r, 4);
    k->body = reply_text(r, 5);
    k->bytes = (int64_t)reply_u64(r, 6);
    if (k->fingerprint.n == 16 && k->state <= KEY_UNKNOWN)
        m->key(m->arg, k);
}

static bool
unhex(struct slice s, uint8_t out[16])
{
    for (size_t i = 0; i < 32; i++) {
        char c = i < s.n ? s.p[i] : 'x';
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

        if (v < 0)
            return false;
        out[i / 2] = (uint8_t)(i % 2 == 0 ? v << 4 : out[i / 2] | v);
    }
    return true;
}

static void
on_key_page(struct mover *m, const struct redis_reply *r, void *arg)
{
    m->nkeys = 0;
    *(size_t *)arg = r->type == REPLY_ARRAY ? r->n / 2 : 0;
    for (size_t i = 0; i + 1 < r->n && r->type == REPLY_ARRAY && m->nkeys < PAGE; i += 2) {
        struct key_row *k = &m->keys[m->nkeys];

        if (!unhex(reply_text(r, i), m->hashes[m->nkeys]))
            continue;
        *k = (struct key_row){ .h = { (const char *)m->hashes[m->nkeys], 16 },
            .expires_ms = (int64_t)reply_u64(r, i + 1) };
        m->nkeys++;
    }
}

static bool
read_keys(struct mover *m, unsigned part, size_t from, size_t *got)
{
    struct move_call *c = call_new(m, part, -1, on_key_page, got);

    if (c == NULL)
        return false;
    args_add(&c->g, SLICE("ZRANGE"));
    add_key(c, "x");
    args_addu(&c->g, from);
    args_addu(&c->g, from + PAGE - 1);
    args_add(&c->g, SLICE("WITHSCORES"));
    return send_call(c) && mover_flush(m);
}

static bool
read_key(struct mover *m, unsigned part, struct key_row *k)
{
    static const char *const fields[] = { "f", "q", "s", "t", "h", "y", "n" };
    struct move_call *c = call_new(m, part, -1, on_key, k);
    char name[40] = "i:", hex[33];

    if (c == NULL)
        return false;
    key_hex((const uint8_t *)k->h.p, hex);
    memcpy(name + 2, hex, 32);
    args_add(&c->g, SLICE("HMGET"));
    add_key(c, name);
    for (size_t i = 0; i < NELEM(fields); i++)
        args_add(&c->g, slice_of(fields[i]));
    return send_call(c);
}

bool
mover_keys(struct mover *m, void (*each)(void *arg, const struct key_row *k), void *arg)
{
    m->key = each;
    m->arg = arg;
    for (unsigned part = 0; part < JOURNAL_PARTS; part++) {
        size_t from = 0, got = 0;

        do {
            if (!read_keys(m, part, from, &got))
                return false;
            for (size_t i = 0; i < m->nkeys; i++)
                if (!read_key(m, part, &m->keys[i]))
                    return false;
            if (!mover_flush(m))
                return false;
            from += got;
        } while (got == PAGE);
    }
    return true;
}

static void
on_paused(struct mover *m, const struct redis_reply *r, void *arg)
{
    (void)arg;
    for (size_t i = 0; r->type == REPLY_ARRAY && i < r->n; i++)
        m->name(m->arg, reply_text(r, i));
}

bool
mover_paused(struct mover *m, void (*each)(void *arg, struct slice name), void *arg)
{
    struct move_call *c = call_new(m, SHARE_FLEET, -1, on_paused, NULL);

    if (c == NULL)
        return false;
    m->name = each;
    m->arg = arg;
    args_add(&c->g, SLICE("SMEMBERS"));
    add_key(c, "paused");
    return send_call(c) && mover_flush(m);
}
