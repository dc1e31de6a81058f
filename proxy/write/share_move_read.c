/*
 * The shared journal's keys, read whole: for `weir writes move` out of Redis. share_move.c has the
 * model and what else there is.
 */
#include "write/mover.h"

#include <stdio.h>

/* Those of a hash, whose names have a letter each; the reply has them in this order. */
static bool
read_fields(struct mover *m, unsigned part, const char *name, const char *letters,
    mover_done *done, void *arg)
{
    struct move_call *c = mover_call(m, part, -1, done, arg);

    if (c == NULL)
        return false;
    args_add(&c->g, SLICE("HMGET"));
    mover_key(c, name);
    for (const char *at = letters; *at != '\0'; at++)
        args_add(&c->g, (struct slice){ at, 1 });
    return mover_send(c);
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
    for (size_t i = 0; r->type == REPLY_ARRAY && i < r->n && i < MOVER_PAGE; i++)
        m->seqs[m->nseqs++] = reply_u64(r, i);
}

static bool
read_page(struct mover *m, unsigned part, uint64_t after)
{
    struct move_call *c = mover_call(m, part, -1, on_page, NULL);

    if (c == NULL)
        return false;
    buf_printf(&c->b, "(%llu", (unsigned long long)after);
    args_add(&c->g, SLICE("ZRANGEBYSCORE"));
    mover_key(c, "a");
    args_add(&c->g, buf_slice(&c->b));
    args_add(&c->g, SLICE("+inf"));
    args_add(&c->g, SLICE("LIMIT"));
    args_addu(&c->g, 0);
    args_addu(&c->g, MOVER_PAGE);
    return mover_send(c) && mover_flush(m);
}

static bool
read_row(struct mover *m, unsigned part, uint64_t *seq)
{
    char name[32];

    snprintf(name, sizeof name, "w:%llu", (unsigned long long)*seq);
    return read_fields(m, part, name, "zrvcba", on_row, seq);
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
        } while (m->nseqs == MOVER_PAGE);
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

static void
on_key_page(struct mover *m, const struct redis_reply *r, void *arg)
{
    m->nkeys = 0;
    *(size_t *)arg = r->type == REPLY_ARRAY ? r->n / 2 : 0;
    for (size_t i = 0; i + 1 < r->n && r->type == REPLY_ARRAY && m->nkeys < MOVER_PAGE; i += 2) {
        struct key_row *k = &m->keys[m->nkeys];
        struct slice member = reply_text(r, i), hash;       /* HASH:BYTES */

        if (!slice_cut(&member, ':', &hash) || !slice_hex_bytes(hash, m->hashes[m->nkeys], 16))
            continue;
        *k = (struct key_row){ .h = { (const char *)m->hashes[m->nkeys], 16 },
            .expires_ms = (int64_t)reply_u64(r, i + 1) };
        m->nkeys++;
    }
}

static bool
read_keys(struct mover *m, unsigned part, size_t from, size_t *got)
{
    struct move_call *c = mover_call(m, part, -1, on_key_page, got);

    if (c == NULL)
        return false;
    args_add(&c->g, SLICE("ZRANGE"));
    mover_key(c, "x");
    args_addu(&c->g, from);
    args_addu(&c->g, from + MOVER_PAGE - 1);
    args_add(&c->g, SLICE("WITHSCORES"));
    return mover_send(c) && mover_flush(m);
}

static bool
read_key(struct mover *m, unsigned part, struct key_row *k)
{
    char name[40] = "i:", hex[33];

    key_hex((const uint8_t *)k->h.p, hex);
    memcpy(name + 2, hex, 32);
    return read_fields(m, part, name, "fqsthyn", on_key, k);
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
        } while (got == MOVER_PAGE);
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
    struct move_call *c = mover_call(m, SHARE_FLEET, -1, on_paused, NULL);

    if (c == NULL)
        return false;
    m->name = each;
    m->arg = arg;
    args_add(&c->g, SLICE("SMEMBERS"));
    mover_key(c, "paused");
    return mover_send(c) && mover_flush(m);
}
