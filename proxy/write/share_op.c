/*
 * One operation of the shared journal: asked, asked again, answered.
 *
 * Model    an operation is a script, done whole or not at all. Within journal.redis.timeout it is
 *          asked again where the connection ended, a replica took over, or the script was not
 *          known; so each that could do harm twice has a random number by which the script knows
 *          it again.
 * No reply what an answer that never comes means:
 *            ACCEPT, CLAIM   FULL, and it may have been taken all the same: the client hears that
 *                            this is not known. With an Idempotency-Key it may ask again safely. A
 *                            claim of which we do not know is forgotten when Redis is back.
 *            UPDATE          FULL: asked again later, with the token of the first time. It may have
 *                            been done: again it is DONE, since the row is as it shall be.
 *            by verb         FULL; again it is GONE where it was done, and the person looks.
 *            CLAIM_END       FULL: the claim stays open while this instance lives, then unknown.
 *            CONDEMN, PAUSE  again.
 * Token    an UPDATE carries the fencing token under which its delivery began, and does nothing
 *          where the partition has another by now: LOST. So a process that was stopped beyond its
 *          lease changes nothing, whatever it has queued.
 * Threads  the journal's.
 */
#include "write/share.h"

#include <stdio.h>
#include <stdlib.h>

#define AGAIN_US   50000
#define TRIES_MAX  100
#define ORPHAN_US  ((int64_t)60000000)

/* ---- the end --------------------------------------------------------------------------------- */

void
call_finish(struct share_call *c, enum journal_result result, const char *why)
{
    struct journal_op *op = c->op;
    struct share *s = c->s;

    op->result = result;
    op->why = why;
    s->commits++;
    s->commit_us += now_us() - c->start_us;
    free(c);
    share_op_over(s, op);
}

static bool
is_intake(const struct journal_op *op)
{
    return op->kind == JOURNAL_ACCEPT || op->kind == JOURNAL_CLAIM;
}

/* An open claim would keep the key busy while we live. */
static void
orphan_add(const struct share_call *c)
{
    struct share_orphan *o = calloc(1, sizeof *o);

    if (o == NULL)
        return;
    o->s = c->s;
    memcpy(o->key_hash, c->op->key_hash, sizeof o->key_hash);
    memcpy(o->id, c->id, sizeof o->id);
    o->until_us = now_us() + ORPHAN_US;
    o->next = c->s->orphans;
    c->s->orphans = o;
}

void
call_give_up(struct share_call *c, enum redis_cause cause)
{
    const char *why = share_why(cause);

    if (c->unsure && c->op->kind == JOURNAL_CLAIM)
        orphan_add(c);
    if ((c->unsure || c->undo) && is_intake(c->op))
        why = "Redis did not answer; whether the write was taken is not known";
    call_finish(c, JOURNAL_FULL, why);
}

static bool
may_pass(const struct share_call *c, enum redis_cause cause)
{
    switch (cause) {
    case REDIS_CLOSED:
    case REDIS_REFUSED:
    case REDIS_READONLY:
    case REDIS_LOADING:
    case REDIS_CLUSTER:
        return true;
    default:
        return cause == REDIS_OPEN && c->unsure;
    }
}

void
call_failed(struct share_call *c, enum redis_cause cause, const struct redis_reply *r)
{
    struct share *s = c->s;

    if (share_unknown(c->p, cause, r) && c->tries < TRIES_MAX) {
        call_ask(c);
        return;
    }
    c->unsure |= cause == REDIS_CLOSED || cause == REDIS_TIMEOUT || cause == REDIS_PROTOCOL;
    if (may_pass(c, cause) && c->tries < TRIES_MAX && now_us() + AGAIN_US < c->until_us) {
        if (s->again == NULL)
            timer_set(&s->again_timer, AGAIN_US);
        c->next = s->again;
        s->again = c;
        return;
    }
    share_log(s, cause, r);
    call_give_up(c, cause);
}

void
share_call_again(struct share *s)
{
    struct share_call *c = s->again, *first = NULL;

    s->again = NULL;
    while (c != NULL) {                 /* in the order in which they failed */
        struct share_call *next = c->next;

        c->next = first;
        first = c;
        c = next;
    }
    while (first != NULL) {
        c = first;
        first = c->next;
        call_ask(c);
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

/* The first answer to a key, in memory of the operation's own. */
static void
on_repeated(struct share_call *c, const struct redis_reply *r)
{
    struct slice head = reply_text(r, 4), body = reply_text(r, 5);
    struct journal_op *op = c->op;

    op->first_seq = reply_u64(r, 1);
    if (op->first_seq != 0) {
        if (c->s->o.replicas > 0 && slice_eq(reply_text(r, 2), SLICE("1")))
            call_await_first(c, r->connection);
        else
            call_finish(c, JOURNAL_REPEATED, "");
        return;
    }
    op->reply = malloc(head.n + body.n + 1);
    if (op->reply == NULL) {
        call_finish(c, JOURNAL_BUSY, "memory is out");
        return;
    }
    op->row.seq = reply_u64(r, 2);
    op->row.status = (uint16_t)reply_u64(r, 3);
    op->content.answer_head = (struct slice){ op->reply, head.n };
    op->content.answer_body = (struct slice){ body.p != NULL ? op->reply + head.n : NULL, body.n };
    if (head.n != 0)
        memcpy(op->reply, head.p, head.n);
    if (body.n != 0)
        memcpy(op->reply + head.n, body.p, body.n);
    call_finish(c, JOURNAL_REPEATED, "");
}

static bool
lives(const struct share *s, struct slice name)
{
    if (slice_eq(name, slice_of(s->name)))
        return true;
    for (size_t i = 0; i < s->nlive; i++)
        if (slice_eq(name, slice_of(s->live[i])))
            return true;
    return false;
}

static void
say_unknown(struct share_call *c)
{
    call_finish(c, JOURNAL_BUSY,
        "whether the origin has done the first request with this key is unknown");
}

static void
say_open(struct share_call *c)
{
    call_finish(c, JOURNAL_BUSY, "the first request with this key is at the origin");
}

/* Does the claim's instance live? Its score is there until its lease has ended. */
static void
on_score(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_call *c = arg;

    if (cause != REDIS_OK || r->type == REPLY_STRING)
        say_open(c);                    /* as far as is known */
    else if (c->op->promised)
        call_ask(c);
    else
        say_unknown(c);
}

static void
ask_score(struct share_call *c)
{
    struct share_part *fleet = &c->s->parts[SHARE_FLEET];
    char live[SHARE_PREFIX + 32];
    int n = snprintf(live, sizeof live, "%slive", fleet->key);
    struct slice argv[] = { SLICE("ZSCORE"), { live, (size_t)n }, slice_of(c->over) };
    struct redis_command command = { .argv = argv, .argc = 3, .key = slice_of(fleet->key),
        .within_us = c->s->o.timeout_ms * 1000, .done = on_score, .arg = c };

    if (redis_send(c->s->redis, &command, NULL) == NULL)
        say_open(c);
}

/* A claim whose fate is not known, or which is open: of an instance that has ended its fate is not
 * known either. */
static void
on_busy(struct share_call *c, const struct redis_reply *r)
{
    struct slice who = reply_text(r, 1);

    if (who.n > 0 && lives(c->s, who)) {
        say_open(c);
    } else if (who.n > 0 && who.n < SHARE_NAME && c->over[0] == '\0') {
        memcpy(c->over, who.p, who.n);
        ask_score(c);                   /* it may have come since the last round */
    } else {
        say_unknown(c);
    }
}

void
call_accepted(struct share_call *c)
{
    taken_add(c->s, c->op->row.seq);
    call_finish(c, JOURNAL_DONE, "");
}

static void
on_taken(struct share_call *c, const struct redis_reply *r)
{
    struct share_part *p = c->p;
    struct share *s = c->s;

    c->op->row.seq = reply_u64(r, 1);
    c->op->position = reply_u64(r, 2);
    if (slice_eq(reply_text(r, 3), SLICE("1")))
        share_lost(p);
    if (c->op->row.seq / JOURNAL_PARTS > p->counter)
        p->counter = c->op->row.seq / JOURNAL_PARTS;
    if (c->op->kind != JOURNAL_ACCEPT) {
        call_finish(c, JOURNAL_DONE, "");
        return;
    }
    s->added++;
    share_publish(s);
    news_read(p);
    if (s->o.replicas > 0)
        call_await_replicas(c, r->connection);
    else
        call_accepted(c);
}

/* What an update may not change is as it was accepted. */
static void
on_updated(struct share_call *c, const struct redis_reply *r)
{
    struct journal_op *op = c->op;
    struct write_row was;
    bool good = row_unpack(c->s->j, op->row.seq, reply_text(r, 1), reply_text(r, 2),
        (struct slice){ NULL, 0 }, &was);

    if (!write_is_pending(op->row.state) && !write_is_dead(op->row.state))
        taken_settled(c->s, op->row.seq);
    if (good) {
        was.due_ms = op->row.due_ms;
        was.settled_ms = op->row.settled_ms;
        was.attempts = op->row.attempts;
        was.status = op->row.status;
        was.state = op->row.state;
        op->row = was;
    }
    if (op->kind == JOURNAL_CONDEMN)
        op->on = good;
    call_finish(c, JOURNAL_DONE, "");
}

static void
on_paused(struct share_call *c)
{
    journal_set_paused(c->s->j, c->op->name, c->op->on);
    call_finish(c, JOURNAL_DONE, "");
}

static void
on_lost(struct share_call *c)
{
    struct share_part *p = c->p;

    if (c->op->fence == atomic_load(&p->token))
        part_lose(p);
    call_finish(c, JOURNAL_LOST, "another instance delivers this partition now");
}

/* Not there any more: where it was asked for twice, the first time did it. */
static void
on_gone(struct share_call *c)
{
    const struct journal_op *op = c->op;
    bool done = c->unsure && !op->by_verb && op->kind != JOURNAL_CONDEMN &&
        (op->kind != JOURNAL_UPDATE || (!write_is_pending(op->row.state) &&
            !write_is_dead(op->row.state)));

    call_finish(c, done ? JOURNAL_DONE : JOURNAL_GONE, "");
}

void
call_answer(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_call *c = arg;
    bool updates = c->op->kind == JOURNAL_UPDATE || c->op->kind == JOURNAL_CONDEMN;
    int code = cause == REDIS_OK ? reply_code(r) : -1;

    if (code == -1)
        call_failed(c, cause == REDIS_OK ? REDIS_PROTOCOL : cause, r);
    else if (c->undo)
        call_undone(c, code);
    else if (code == JOURNAL_REPEATED)
        on_repeated(c, r);
    else if (code == JOURNAL_BUSY)
        on_busy(c, r);
    else if (code == JOURNAL_LOST)
        on_lost(c);
    else if (code == JOURNAL_GONE)
        on_gone(c);
    else if (code == JOURNAL_DONE && is_intake(c->op))
        on_taken(c, r);
    else if (code == JOURNAL_DONE && updates)
        on_updated(c, r);
    else if (code == JOURNAL_DONE && c->op->kind == JOURNAL_PAUSE)
        on_paused(c);
    else
        call_finish(c, (enum journal_result)code, code == JOURNAL_KEYS_FULL ?
            "idempotency keys have reached journal.idempotency_size" : "");
}

/* ---- claims of which we do not know ---------------------------------------------------------- */

static void
on_forgotten(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_orphan *o = arg;

    o->asked = false;
    (void)share_unknown(&o->s->parts[o->key_hash[0] % JOURNAL_PARTS], cause, r);
    o->over = cause == REDIS_OK && reply_code(r) == JOURNAL_DONE;
}

/* A claim that is not there may still come, as long as a server may have it unread. */
void
share_forget_orphans(struct share *s)
{
    struct share_orphan **at = &s->orphans, *o;

    while ((o = *at) != NULL) {
        struct share_args g = { .n = 0 };
        char hex[33];

        if (!o->asked && (o->over || now_us() >= o->until_us)) {
            *at = o->next;
            free(o);
            continue;
        }
        at = &o->next;
        if (o->asked)
            continue;
        args_add(&g, key_hex(o->key_hash, hex));
        args_add(&g, slice_of(s->name));
        args_addu(&g, 0);
        args_add(&g, (struct slice){ (const char *)o->id, sizeof o->id });
        o->asked = share_script(s, &s->parts[o->key_hash[0] % JOURNAL_PARTS], LUA_CLAIM_RELEASE, &g,
            s->o.timeout_ms * 1000, on_forgotten, o, NULL);
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

static unsigned
part_of(const struct journal_op *op)
{
    switch (op->kind) {
    case JOURNAL_ACCEPT:
    case JOURNAL_CLAIM:
        return op->part % JOURNAL_PARTS;
    case JOURNAL_CLAIM_END:
    case JOURNAL_CLAIM_RELEASE:
        return op->key_hash[0] % JOURNAL_PARTS;
    case JOURNAL_UPDATE:
    case JOURNAL_CONDEMN:
        return journal_part(op->row.seq);
    default:
        return SHARE_FLEET;
    }
}

/* Why it is not even asked; NULL: it is. */
static const char *
refusal(struct share *s, const struct journal_op *op)
{
    const struct write_content *c = &op->content;
    uint64_t size = SHARE_ROW + c->url.n + c->target.n + c->host.n + c->fields.n + c->body.n +
        c->order_key.n + c->idempotency_key.n;

    if (!is_intake(op))
        return NULL;
    if (s->barred != NULL)
        return s->barred;
    if (!s->looked)
        return s->why != NULL ? s->why : "Redis was not reached yet";
    if (op->kind == JOURNAL_CLAIM)
        return NULL;
    if (s->sum.pending + s->added >= s->limits.depth)
        return "the journal holds as many pending writes as journal.depth allows";
    if (s->sum.bytes + (uint64_t)s->added_bytes + size > (uint64_t)s->limits.size)
        return "the journal has reached journal.size";
    s->added_bytes += (int64_t)size;
    return NULL;
}

void
share_begin(struct share *s, struct journal_op *op)
{
    struct share_call *c = calloc(1, sizeof *c);
    const char *why = refusal(s, op);

    if (c == NULL) {
        op->result = JOURNAL_FULL;
        op->why = "memory is out";
        share_op_over(s, op);
        return;
    }
    c->s = s;
    c->op = op;
    c->p = &s->parts[part_of(op)];
    c->start_us = now_us();
    c->until_us = c->start_us + s->o.timeout_ms * 1000;
    c->condemns = op->why;
    random_bytes(c->id, sizeof c->id);
    if (why != NULL)
        call_finish(c, JOURNAL_FULL, why);
    else if (op->kind == JOURNAL_UPDATE && !op->by_verb && op->fence == 0)
        on_lost(c);
    else
        call_ask(c);
}
