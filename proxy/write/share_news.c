/*
 * What the owner of a partition hears: what was pending when it took it, page by page in order of
 * seq, then what the stream brings.
 *
 * Model    with the token goes the stream's last entry and the counter as they were. Rows of up to
 *          that counter are of the pages, later ones of the stream; a row of the pages whose entry
 *          is later, since a verb changed it meanwhile, is left to the stream as well, and is new
 *          when that tells it. Rows are told as they are when the entry is read, so a row that
 *          changed twice may be told twice as it is.
 * Entries  that of a pending write stays in the stream until it is settled, by the script that does
 *          so. Others are done when they were told, and go with the next reading. Where the answer
 *          of a reading is lost, what it brought is asked for once more: the group still has it. A
 *          reading of a connection that was given up may be done late, behind one of the next: so
 *          what the last look saw in the stream, and no reading brings, is asked for in that way.
 * Threads  the journal's.
 */
#include "write/share.h"

#include <stdlib.h>

#define PAGE_ROWS 256
#define ACKS_MOST (SHARE_ARGS - 3)

static void ask_page(struct share_part *p);

static int64_t
timeout_us(const struct share *s)
{
    return s->o.timeout_ms * 1000;
}

/* ---- what is kept ---------------------------------------------------------------------------- */

static bool
grow(void **at, size_t *cap, size_t n, size_t size)
{
    size_t more = 2 * n + 16;
    void *grown;

    if (n < *cap)
        return true;
    grown = realloc(*at, more * size);
    if (grown == NULL)
        return false;
    *at = grown;
    *cap = more;
    return true;
}

/* What a page told and the stream will tell again: it must not be missing among its like meanwhile.
 * Without memory it is told twice as new, which costs a look. */
static void
told_before(struct share_part *p, uint64_t seq)
{
    void *at = p->told;
    bool ok = grow(&at, &p->told_cap, p->ntold, sizeof *p->told);

    p->told = at;
    if (ok)
        p->told[p->ntold++] = seq;
}

static bool
was_told(struct share_part *p, uint64_t seq)
{
    for (size_t i = 0; i < p->ntold; i++)
        if (p->told[i] == seq) {
            p->told[i] = p->told[--p->ntold];
            return true;
        }
    return false;
}

/* One that is forgotten goes when another instance takes the partition. */
static void
ack(struct share_part *p, struct stream_id id)
{
    void *at = p->acks;
    bool ok = grow(&at, &p->acks_cap, p->nacks, sizeof *p->acks);

    p->acks = at;
    if (ok)
        p->acks[p->nacks++] = id;
}

void
news_end(struct share_part *p)
{
    free(p->told);
    free(p->acks);
    p->told = NULL;
    p->acks = NULL;
    p->ntold = p->told_cap = p->nacks = p->acks_cap = 0;
    p->again = p->history = false;
    p->nacked = 0;
}

static void
tell(struct share_part *p, const struct journal_news *news, size_t n)
{
    struct share *s = p->s;

    if (n > 0 && s->found.came != NULL && !s->closing)
        s->found.came(s->found.arg, news, n);
}

/* The answer to what was asked under a token that is not ours any more is nobody's. */
static bool
is_for_us(struct share_part *p, enum part_state state)
{
    p->busy = false;
    return p->state == state && atomic_load(&p->token) == p->busy_token && !p->s->closing;
}

static void
on_damaged(struct share_part *p, uint64_t seq)
{
    share_condemn(p->s, seq, "its row in the journal was damaged");
}

/* ---- pages ----------------------------------------------------------------------------------- */

static void
take_page(struct share_part *p, const struct redis_reply *r)
{
    struct journal_news *news = calloc(r->n, sizeof *news);
    size_t n = 0;

    if (news == NULL)
        return;                         /* the next round asks again */
    for (size_t i = 1; i < r->n; i++) {
        const struct redis_reply *w = r->at[i];
        uint64_t seq = reply_u64(w, 0);
        struct stream_id entry;

        p->after = seq;
        if (!row_unpack(p->s->j, seq, reply_text(w, 1), reply_text(w, 2), reply_text(w, 3),
                &news[n].row)) {
            on_damaged(p, seq);
            continue;
        }
        if (stream_id_read(reply_text(w, 4), &entry) && stream_id_cmp(entry, p->since) > 0)
            told_before(p, seq);
        news[n++].from = WRITE_STATES;
    }
    tell(p, news, n);
    free(news);
    if (r->n - 1 < PAGE_ROWS) {
        p->state = PART_OURS;
        news_read(p);
    } else {
        ask_page(p);
    }
}

static void
on_page(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_part *p = arg;

    if (!is_for_us(p, PART_LOADING))
        return;
    if (share_unknown(p, cause, r))
        ask_page(p);
    else if (cause == REDIS_OK && reply_code(r) == JOURNAL_LOST)
        part_lose(p);
    else if (cause == REDIS_OK && reply_code(r) == JOURNAL_DONE)
        take_page(p, r);
    else
        share_log(p->s, cause, r);      /* the next round asks again */
}

static void
ask_page(struct share_part *p)
{
    struct share_args g = { .n = 0 };

    if (p->busy)
        return;
    p->busy_token = atomic_load(&p->token);
    args_addu(&g, p->busy_token);
    args_addu(&g, p->after);
    args_addu(&g, p->upto);
    args_addu(&g, PAGE_ROWS);
    p->busy = share_script(p->s, p, LUA_PAGE, &g, timeout_us(p->s), on_page, p, NULL);
}

void
news_begin(struct share_part *p, uint64_t counter, struct stream_id last)
{
    p->after = 0;
    p->upto = counter * JOURNAL_PARTS + JOURNAL_PARTS - 1;
    p->since = p->at = last;
    ask_page(p);
}

/* ---- the stream ------------------------------------------------------------------------------ */

/* Of an entry: seq, z, r, v, entry of the row, its own id, state before, after. False: it tells
 * nothing. */
static bool
take_entry(struct share_part *p, const struct redis_reply *w, struct journal_news *out)
{
    struct stream_id id, entry;
    uint64_t seq = reply_u64(w, 0), after = reply_u64(w, 7);
    bool there = reply_text(w, 1).n > 0;

    if (!stream_id_read(reply_text(w, 5), &id))
        return false;
    if (stream_id_cmp(id, p->at) > 0)
        p->at = id;
    out->from = (uint8_t)reply_u64(w, 6);
    if (out->from > WRITE_STATES)
        out->from = WRITE_STATES;
    if (was_told(p, seq))
        out->from = WRITE_PENDING;
    if (!there) {                       /* not kept, or its entry is gone */
        ack(p, id);
        out->row = (struct write_row){ .seq = seq,
            .state = (uint8_t)(after < WRITE_STATES ? after : WRITE_DROPPED) };
        return seq != 0;
    }
    if (!row_unpack(p->s->j, seq, reply_text(w, 1), reply_text(w, 2), reply_text(w, 3),
            &out->row)) {
        ack(p, id);
        if (after == WRITE_UNCERTAIN && p->s->found.condemned != NULL)
            p->s->found.condemned(p->s->found.arg, &out->row, false);
        else
            on_damaged(p, seq);
        return false;
    }
    if (!write_is_pending(out->row.state) ||
        !stream_id_read(reply_text(w, 4), &entry) || stream_id_cmp(entry, id) != 0)
        ack(p, id);
    return true;
}

static void
take_entries(struct share_part *p, const struct redis_reply *r)
{
    struct journal_news *news = calloc(r->n, sizeof *news);
    size_t n = 0;

    if (news == NULL) {
        p->history = true;
        return;
    }
    for (size_t i = 1; i < r->n; i++)
        n += take_entry(p, r->at[i], &news[n]);
    tell(p, news, n);
    free(news);
    if (p->history && r->n == 1) {
        p->history = false;
        p->again = true;
    } else if (r->n == 1 && stream_id_cmp(p->last, p->at) > 0) {
        p->history = true;              /* who got it? the next round asks */
    }
    if (p->again || r->n - 1 == PAGE_ROWS)
        news_read(p);
}

static void
on_entries(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct share_part *p = arg;

    if (!is_for_us(p, PART_OURS))
        return;
    if (share_unknown(p, cause, r)) {
        p->nacked = 0;
        news_read(p);
        return;
    }
    if (cause == REDIS_OK && reply_code(r) == JOURNAL_LOST) {
        part_lose(p);
        return;
    }
    if (cause != REDIS_OK || reply_code(r) != JOURNAL_DONE) {
        p->history = true;              /* the next round asks again */
        p->nacked = 0;
        share_log(p->s, cause, r);
        return;
    }
    p->nacks -= p->nacked;
    if (p->nacks > 0)
        memmove(p->acks, p->acks + p->nacked, p->nacks * sizeof *p->acks);
    p->nacked = 0;
    take_entries(p, r);
}

void
news_read(struct share_part *p)
{
    char from[STREAM_ID_MAX], ids[ACKS_MOST][STREAM_ID_MAX];
    struct share_args g = { .n = 0 };

    if (p->state != PART_OURS)
        return;
    if (p->busy) {
        p->again = true;
        return;
    }
    p->again = false;
    p->busy_token = atomic_load(&p->token);
    args_addu(&g, p->busy_token);
    args_add(&g, p->history ? stream_id_put(p->at, from) : SLICE(">"));
    args_addu(&g, PAGE_ROWS);
    for (p->nacked = 0; p->nacked < p->nacks && p->nacked < ACKS_MOST; p->nacked++)
        args_add(&g, stream_id_put(p->acks[p->nacked], ids[p->nacked]));
    p->busy = share_script(p->s, p, LUA_READ, &g, timeout_us(p->s), on_entries, p, NULL);
}

void
news_look(struct share_part *p)
{
    if (p->state == PART_LOADING)
        ask_page(p);
    else if (p->state == PART_OURS &&
        (p->history || p->again || p->nacks > 0 || stream_id_cmp(p->last, p->at) > 0))
        news_read(p);
}
