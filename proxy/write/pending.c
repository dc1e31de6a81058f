/*
 * Read your writes: what the pending writes of a target make of it.
 *
 * Model    workers ask a counting filter first, without a lock: an array of counters under the hash
 *          of host and path, raised before an acceptance is told and lowered after a delivery is
 *          committed and what it changed is purged. Only where it says perhaps do they ask the
 *          write loop, which has another under that and the credentials, so that who wrote nothing
 *          costs no walk; else it walks the target's chain in order: a PUT is its content, a DELETE
 *          its end, anything else makes it unknown until it is delivered.
 * Threads  the write loop but for write_look_pending.
 */
#include "write/priv.h"

#include <errno.h>
#include <stdlib.h>

#define WALK_MAX 1024                   /* writes that are looked at; of more nothing is known */
#define WALK_SHARED 64                  /* ... where each is a question to Redis */
#define LOOK_AGAIN_US 50000

static bool
same_url(struct slice url, struct slice wanted)     /* wanted: without the scheme */
{
    struct slice at = url;

    if (slice_starts(at, SLICE("https://")))
        at = (struct slice){ at.p + 8, at.n - 8 };
    else if (slice_starts(at, SLICE("http://")))
        at = (struct slice){ at.p + 7, at.n - 7 };
    return slice_eq(at, wanted);
}

/* What the target is after this write, of whose content only the fields are looked at. */
static enum write_seen
seen_after(const struct write_row *r, const struct write_content *c)
{
    if (r->method == HTTP_DELETE)
        return WRITE_SEEN_GONE;
    return r->method == HTTP_PUT && fields_find(c->fields, SLICE("Content-Range")) == NULL ?
        WRITE_SEEN_CONTENT : WRITE_SEEN_UNKNOWN;
}

/* As journal_read; one that is damaged is pending no more. */
static int
read_pending(struct write_ask *a, uint64_t seq, struct write_row *row, struct write_content *c)
{
    struct err e;
    int rc = journal_read(a->w->j, seq, row, c, &e);

    return (rc == -1 && e.code == EBADMSG) || (rc == 1 && !write_is_pending(row->state)) ? 0 : rc;
}

/* The last of them alone is copied. One that is settled meanwhile has left its effect behind: it
 * was purged before. */
static void
show(struct write_ask *a, enum write_seen seen, uint64_t seq)
{
    struct write_content c;
    struct write_row row;
    bool ok = true;
    int rc = seen != WRITE_SEEN_NONE ? read_pending(a, seq, &row, &c) : 0;

    if (rc != 1) {
        a->view.seen = rc == 0 ? WRITE_SEEN_NONE : WRITE_SEEN_UNKNOWN;
        return;
    }
    a->view = (struct write_view){ .seen = seen, .accepted_ms = row.accepted_ms };
    journal_id(a->w->j, seq, a->view.id);
    if (seen != WRITE_SEEN_CONTENT)
        return;
    a->view.fields = ask_copy(a, c.fields, &ok);
    a->view.body = ask_copy(a, c.body.p != NULL ? c.body : SLICE(""), &ok);
    if (!ok)
        a->view.seen = WRITE_SEEN_UNKNOWN;
}

/* What the walk has come to. */
struct sight { enum write_seen seen; uint64_t last; unsigned part; int64_t accepted_ms; };

/* All of one partition; as journal_next. Of two partitions, between which a new configuration has
 * moved the path, the write that was accepted last counts. */
static int
walk(struct write_ask *a, unsigned part, struct sight *s)
{
    struct write_content c;
    struct write_row row;
    unsigned most = journal_shared(a->w->j) ? WALK_SHARED : WALK_MAX;
    uint64_t seq = 0;
    int rc = 0, found;

    for (unsigned n = 0; n < most &&
        (rc = journal_next(a->w->j, part, a->path_hash, seq, true, &row)) == 1; n++) {
        seq = row.seq;
        found = a->all || row.who == a->who ? read_pending(a, seq, &row, &c) : 0;
        if (found == -1)
            return -1;
        if (found == 1 && same_url(c.url, a->url) &&
            (s->last == 0 || s->part == part || row.accepted_ms >= s->accepted_ms))
            *s = (struct sight){ seen_after(&row, &c), seq, part, row.accepted_ms };
    }
    return rc;
}

static void
see(struct write_ask *a)
{
    uint64_t parts = journal_shared(a->w->j) ? fleet_parts(a->w, a->path_hash) : 1;
    struct sight s = { .seen = WRITE_SEEN_NONE };
    int rc = 0;

    a->view = (struct write_view){ .seen = WRITE_SEEN_NONE };
    if (!journal_shared(a->w->j) && !a->all && *writes_by(a->w, a->path_hash, a->who) == 0)
        return;
    for (unsigned part = 0; part < JOURNAL_PARTS && rc == 0; part++)
        if (parts >> part & 1)
            rc = walk(a, part, &s);
    if (rc != 0)
        a->view.seen = WRITE_SEEN_UNKNOWN;      /* there are more, or that cannot be told */
    else
        show(a, s.seen, s.last);
}

static void
run_look_pending(struct write_ask *a)
{
    see(a);
    if (a->view.seen == WRITE_SEEN_UNKNOWN && a->until_us > now_us()) {
        a->looking = a->w->looking;
        a->w->looking = a;
        writes_pump(a->w);              /* sets the timer */
        return;
    }
    ask_answer(a, WRITE_OK, "");
}

/* ---- in a fleet ------------------------------------------------------------------------------ */

static void
on_peeked(struct wop *o)
{
    struct write_ask *a = o->arg;

    if (o->op.result == JOURNAL_DONE) {
        run_look_pending(a);
    } else {                            /* where Redis cannot be asked nobody waits for it */
        a->view = (struct write_view){ .seen = o->op.result == JOURNAL_GONE ? WRITE_SEEN_NONE :
            WRITE_SEEN_UNKNOWN };
        ask_answer(a, WRITE_OK, "");
    }
    wop_free(o);
}

/* Most reads find nothing: that is asked first, without holding up the write loop. Any thread. */
static void
peek(struct write_ask *a)
{
    struct wop *o = journal_secret(a->w->j) != NULL ? wop_new(a->w, JOURNAL_PEEK, 0) : NULL;

    if (o == NULL) {
        a->view = (struct write_view){ .seen = WRITE_SEEN_UNKNOWN };
        ask_answer(a, WRITE_OK, "");
        return;
    }
    o->op.row.c1 = a->path_hash;
    o->op.parts = fleet_parts(a->w, a->path_hash);
    o->then = on_peeked;
    o->arg = a;
    wop_do(o);
}

/* ---- who waits ------------------------------------------------------------------------------- */

void
looks_again(struct writes *w, const struct write_row *r)
{
    struct write_ask **at = &w->looking, *a, *mine = NULL;

    while ((a = *at) != NULL) {
        if (a->path_hash == row_target(r) && (a->all || a->who == r->who)) {
            *at = a->looking;
            a->looking = mine;
            mine = a;
        } else {
            at = &a->looking;
        }
    }
    while ((a = mine) != NULL) {
        mine = a->looking;
        run_look_pending(a);
    }
}

/* In a fleet others may have delivered it. */
static void
look_again(struct writes *w, int64_t now)
{
    struct write_ask *mine = w->looking, *a;

    if (now < w->look_again_us)
        return;
    w->look_again_us = now + LOOK_AGAIN_US;
    w->looking = NULL;
    while ((a = mine) != NULL) {
        mine = a->looking;
        peek(a);
    }
}

void
looks_expire(struct writes *w)
{
    struct write_ask **at = &w->looking, *a;
    int64_t now = w->looking != NULL ? now_us() : 0;

    if (w->looking != NULL && journal_shared(w->j))
        look_again(w, now);
    while ((a = *at) != NULL) {
        if (a->until_us <= now || atomic_load(&w->holding)) {
            *at = a->looking;
            ask_answer(a, WRITE_OK, "");
        } else {
            at = &a->looking;
        }
    }
}

int64_t
looks_wait_us(const struct writes *w)
{
    int64_t now = w->looking != NULL ? now_us() : 0, wait = -1;

    for (const struct write_ask *a = w->looking; a != NULL; a = a->looking)
        if (wait == -1 || a->until_us - now < wait)
            wait = a->until_us > now ? a->until_us - now : 0;
    if (wait > LOOK_AGAIN_US && journal_shared(w->j))
        wait = LOOK_AGAIN_US;
    return wait;
}

struct write_ask *
write_look_pending(struct writes *w, struct loop *l, struct slice host, struct slice path,
    struct slice query, uint64_t who, bool all, int64_t wait_ms,
    void (*done)(void *arg, const struct write_view *v), void *arg)
{
    struct write_ask *a = ask_new(w, l, arg);
    struct buf url = { 0 };
    bool ok = true;

    if (a == NULL)
        return NULL;
    buf_adds(&url, host);
    buf_adds(&url, path);
    if (query.p != NULL) {
        buf_addc(&url, '?');
        buf_adds(&url, query);
    }
    if (!url.failed)
        a->url = ask_copy(a, buf_slice(&url), &ok);
    if (url.failed || !ok) {
        buf_free(&url);
        ask_free(a);
        return NULL;
    }
    buf_free(&url);
    a->seen = done;
    a->path_hash = write_path_hash(host, path);
    a->who = who;
    a->all = all;
    a->until_us = wait_ms > 0 ? now_us() + wait_ms * 1000 : 0;
    a->run = run_look_pending;
    if (journal_shared(w->j))
        peek(a);
    else
        ask_post(a);
    return a;
}
