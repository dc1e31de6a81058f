/*
 * What an operation of the shared journal asks of Redis: its script's arguments.
 *
 * Model    each stands in the order that the script says (share_lua.c). What the answer means is
 *          share_op.c's.
 * Threads  the journal's.
 */
#include "write/share.h"

#define HOLD_MS 1000                    /* beyond what asking, two WAITs and taking back may take */

/* ---- asking ---------------------------------------------------------------------------------- */

struct slice
key_hex(const uint8_t hash[16], char out[33])
{
    return (struct slice){ out, (size_t)(put_hex_bytes(out, hash, 16) - out) };
}

static struct slice
flag(bool on)
{
    return on ? SLICE("1") : SLICE("0");
}

static struct slice
id_of(const struct share_call *c)
{
    return (struct slice){ (const char *)c->id, SHARE_ID };
}

static void
send_script(struct share_call *c, enum share_script script, const struct share_args *g)
{
    int64_t left = c->until_us - now_us();
    enum redis_cause cause;

    c->tries++;
    if (!share_script(c->s, c->p, script, g, left > 1000 ? left : 1000, call_answer, c, &cause))
        call_failed(c, cause, NULL);
}

static bool
keys_full(const struct share *s)
{
    return s->key_bytes + 160 > (uint64_t)s->limits.idempotency_size;
}

/* What was written: z, r, c, b, its chains; the bytes of the slices lie in `b`. */
static void
add_write(struct share_call *c, struct share_args *g, struct buf *b)
{
    const struct journal_op *op = c->op;
    size_t body = op->content.body.n + op->content.fields.n, ends[3];
    uint64_t seed;

    memcpy(&seed, c->id, sizeof seed);
    row_pack(b, seed, &op->row, journal_route_name(c->s->j, op->row.route));
    ends[0] = b->n;
    content_pack(b, seed, &op->content);
    ends[1] = b->n;
    body_pack(b, seed, &op->content);
    ends[2] = b->n;
    args_addu(g, SHARE_ROW + ends[1] + body);
    args_add(g, (struct slice){ (const char *)c->id, SHARE_SEED });
    args_add(g, (struct slice){ b->p, ends[0] });
    args_add(g, (struct slice){ b->p + ends[0], ends[1] - ends[0] });
    args_add(g, (struct slice){ b->p + ends[1], ends[2] - ends[1] });
    args_addhex(g, op->row.c1);
    if (op->row.c2 != 0)
        args_addhex(g, op->row.c2);
    else
        args_add(g, SLICE(""));
}

static void
ask_intake(struct share_call *c)
{
    const struct journal_op *op = c->op;
    struct share_args g = { .n = 0 };
    struct buf b = { 0 };
    char hex[33];

    args_addu(&g, c->p->n);
    args_addu(&g, c->p->counter);
    args_add(&g, id_of(c));
    args_addu(&g, 2 * (uint64_t)c->s->o.timeout_ms + 5000);
    args_add(&g, slice_of(c->s->name));
    args_add(&g, key_hex(op->key_hash, hex));
    args_addu(&g, op->key_for_ms > 0 ? (uint64_t)op->key_for_ms : 0);
    args_add(&g, (struct slice){ (const char *)op->fingerprint, 16 });
    args_add(&g, flag(keys_full(c->s)));
    args_add(&g, flag(op->promised));
    args_add(&g, slice_of(c->over));
    if (op->kind == JOURNAL_ACCEPT) {
        add_write(c, &g, &b);
        args_addu(&g, c->s->o.replicas > 0 ? 4 * (uint64_t)c->s->o.timeout_ms + HOLD_MS : 0);
    }
    if (b.failed)
        call_finish(c, JOURNAL_FULL, "memory is out");
    else
        send_script(c, op->kind == JOURNAL_ACCEPT ? LUA_ACCEPT : LUA_CLAIM, &g);
    buf_free(&b);
}

static void
ask_claim(struct share_call *c)
{
    const struct journal_op *op = c->op;
    const struct write_content *answer = &op->content;
    uint64_t used = c->s->key_bytes, most = (uint64_t)c->s->limits.idempotency_size;
    struct share_args g = { .n = 0 };
    char hex[33];

    args_add(&g, key_hex(op->key_hash, hex));
    args_add(&g, slice_of(c->s->name));
    args_addu(&g, op->row.seq);
    if (op->kind == JOURNAL_CLAIM_END) {
        args_add(&g, op->row.status != 0 ? SLICE("2") : SLICE("3"));
        args_addu(&g, op->row.status);
        args_add(&g, answer->answer_head);
        args_add(&g, flag(answer->answer_body.p != NULL));
        args_add(&g, answer->answer_body);
        args_addu(&g, most > used ? most - used : 0);
    } else {
        args_add(&g, SLICE(""));
    }
    send_script(c, op->kind == JOURNAL_CLAIM_END ? LUA_CLAIM_END : LUA_CLAIM_RELEASE, &g);
}

static void
ask_update(struct share_call *c)
{
    struct journal_op *op = c->op;
    bool condemns = op->kind == JOURNAL_CONDEMN;
    struct write_content answer = op->content;
    struct share_args g = { .n = 0 };
    struct buf b = { 0 };
    size_t end;

    if (condemns) {
        op->row = (struct write_row){ .seq = op->row.seq, .state = WRITE_UNCERTAIN };
        answer = (struct write_content){ .cause = slice_of(c->condemns) };
    }
    if (op->row.settled_ms == 0 && !write_is_pending(op->row.state))
        op->row.settled_ms = wall_ms();
    progress_pack(&b, op->row.seq, &op->row);
    end = b.n;
    answer_pack(&b, op->row.seq, &answer);
    args_addu(&g, op->row.seq);
    args_add(&g, condemns ? SLICE("c") : op->by_verb ? SLICE("v") : SLICE("o"));
    args_addu(&g, op->fence);
    args_addu(&g, op->row.state);
    if (condemns)
        args_add(&g, SLICE(""));
    else
        args_addu(&g, op->row.attempts);
    args_add(&g, (struct slice){ b.p, end });
    args_add(&g, flag(op->settle));
    args_add(&g, flag(op->keep_answer || condemns));
    args_add(&g, (struct slice){ b.p + end, b.n - end });
    args_add(&g, flag(c->s->limits.keep_ms > 0));
    args_addu(&g, (uint64_t)op->row.settled_ms);
    args_addu(&g, op->was);
    args_addu(&g, op->was_attempts);
    args_add(&g, id_of(c));
    args_addu(&g, c->p->n);
    args_add(&g, SLICE(""));
    if (b.failed)
        call_finish(c, JOURNAL_FULL, "memory is out");
    else
        send_script(c, LUA_UPDATE, &g);
    buf_free(&b);
}

/* What is still held is dropped, and its key forgotten. */
static void
ask_undo(struct share_call *c)
{
    const struct journal_op *op = c->op;
    const struct write_row row = { .seq = op->row.seq, .state = WRITE_DROPPED,
        .settled_ms = wall_ms() };
    const struct write_content answer = { .cause = SLICE("too few replicas of Redis had it") };
    struct share_args g = { .n = 0 };
    struct buf b = { 0 };
    char hex[33];
    size_t end;

    progress_pack(&b, row.seq, &row);
    end = b.n;
    answer_pack(&b, row.seq, &answer);
    args_addu(&g, row.seq);
    args_add(&g, SLICE("u"));
    args_addu(&g, 0);
    args_addu(&g, row.state);
    args_addu(&g, 0);
    args_add(&g, (struct slice){ b.p, end });
    args_add(&g, SLICE("1"));
    args_add(&g, SLICE("1"));
    args_add(&g, (struct slice){ b.p + end, b.n - end });
    args_add(&g, flag(c->s->limits.keep_ms > 0));
    args_addu(&g, (uint64_t)row.settled_ms);
    args_addu(&g, WRITE_PENDING);
    args_addu(&g, 0);
    args_add(&g, id_of(c));
    args_addu(&g, c->p->n);
    args_add(&g, op->key_for_ms > 0 ? key_hex(op->key_hash, hex) : SLICE(""));
    if (b.failed)
        call_finish(c, JOURNAL_FULL, "memory is out");
    else
        send_script(c, LUA_UPDATE, &g);
    buf_free(&b);
}

static void
ask_pause(struct share_call *c)
{
    struct share_args g = { .n = 0 };

    args_add(&g, c->op->name);
    args_add(&g, flag(c->op->on));
    send_script(c, LUA_PAUSE, &g);
}

/* ---- PEEK ------------------------------------------------------------------------------------ */

static void
on_peek(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_call *c = arg;

    if (cause != REDIS_OK || r->type != REPLY_INTEGER)
        c->cause = cause != REDIS_OK ? cause : REDIS_PROTOCOL;
    else
        c->yes |= r->integer > 0;
    if (--c->left > 0)
        return;
    if (c->yes)
        call_finish(c, JOURNAL_DONE, "");
    else if (c->cause != REDIS_OK)
        call_give_up(c, c->cause);
    else
        call_finish(c, JOURNAL_GONE, "");
}

static void
peek(struct share_call *c, const struct share_part *p)
{
    struct share_args k = { .n = 0 };
    struct buf chains = { 0 };
    struct slice argv[3] = { SLICE("EXISTS") };
    struct redis_command command = { .argv = argv, .argc = 3, .key = slice_of(p->key),
        .within_us = c->s->o.timeout_ms * 1000, .done = on_peek, .arg = c };
    size_t n;

    args_addhex(&k, c->op->row.c1);
    buf_addz(&chains, p->key);
    buf_addz(&chains, "k:");
    buf_adds(&chains, k.at[0]);
    n = chains.n;
    buf_addz(&chains, p->key);
    buf_addz(&chains, "t:");
    buf_adds(&chains, k.at[0]);
    argv[1] = (struct slice){ chains.p, n };
    argv[2] = (struct slice){ chains.p + n, chains.n - n };
    c->left++;
    if (chains.failed || redis_send(c->s->redis, &command, &c->cause) == NULL) {
        c->left--;
        c->cause = chains.failed ? REDIS_FULL : c->cause;
    }
    buf_free(&chains);
}

static void
ask_peek(struct share_call *c)
{
    c->left = 1;                        /* this call's own: it ends when all are sent */
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        if (c->op->parts >> i & 1)
            peek(c, &c->s->parts[i]);
    if (--c->left > 0)
        return;
    if (c->cause != REDIS_OK)
        call_give_up(c, c->cause);
    else
        call_finish(c, JOURNAL_GONE, "");
}

/* ---- all of them ----------------------------------------------------------------------------- */

void
call_ask(struct share_call *c)
{
    if (c->undo) {
        ask_undo(c);
        return;
    }
    switch (c->op->kind) {
    case JOURNAL_ACCEPT:
    case JOURNAL_CLAIM:         ask_intake(c); return;
    case JOURNAL_CLAIM_END:
    case JOURNAL_CLAIM_RELEASE: ask_claim(c); return;
    case JOURNAL_UPDATE:
    case JOURNAL_CONDEMN:       ask_update(c); return;
    case JOURNAL_PAUSE:         ask_pause(c); return;
    case JOURNAL_PEEK:          ask_peek(c); return;
    case JOURNAL_CALL:          break;
    }
    call_finish(c, JOURNAL_DONE, "");
}
