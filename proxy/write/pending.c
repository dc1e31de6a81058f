/*
 * Read your writes: what the pending writes of a target make of it.
 *
 * Model    workers ask a counting filter first, without a lock: an array of counters under the hash
 *          of host and path, raised before an acceptance is told and lowered after a delivery is
 *          committed and what it changed is purged. Only where it says perhaps do they ask the
 *          write loop, which walks the target's chain in order: a PUT is its content, a DELETE its
 *          end, anything else makes it unknown until it is delivered.
 * Threads  the write loop but for write_look_pending.
 */
#include "write/priv.h"

#include <stdlib.h>

#define LOOK_MAX 256                    /* writes that are looked at; of more nothing is known */

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

/* What the target is after this write. */
static void
see_write(struct write_ask *a, const struct write_row *r, const struct write_content *c)
{
    bool ok = true;

    a->view = (struct write_view){ .seen = WRITE_SEEN_UNKNOWN, .accepted_ms = r->accepted_ms };
    journal_id(a->w->j, r->seq, a->view.id);
    if (r->method == HTTP_DELETE) {
        a->view.seen = WRITE_SEEN_GONE;
    } else if (r->method == HTTP_PUT && fields_find(c->fields, SLICE("Content-Range")) == NULL) {
        a->view.fields = ask_copy(a, c->fields, &ok);
        a->view.body = ask_copy(a, c->body.p != NULL ? c->body : SLICE(""), &ok);
        if (ok)
            a->view.seen = WRITE_SEEN_CONTENT;
    }
}

static void
see(struct write_ask *a)
{
    struct write_content c;
    struct write_row row;
    uint64_t seq = 0;
    unsigned n = 0;

    a->view = (struct write_view){ .seen = WRITE_SEEN_NONE };
    while (journal_next(a->w->j, a->path_hash, seq, true, &row) == 1) {
        seq = row.seq;
        if (!a->all && row.who != a->who)
            continue;
        if (n++ == LOOK_MAX) {
            a->view = (struct write_view){ .seen = WRITE_SEEN_UNKNOWN };
            return;
        }
        if (journal_read(a->w->j, seq, &row, &c, NULL) == 1 && write_is_pending(row.state) &&
            same_url(c.url, a->url))
            see_write(a, &row, &c);
    }
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

void
looks_again(struct writes *w, uint64_t path_hash)
{
    struct write_ask **at = &w->looking, *a, *mine = NULL;

    while ((a = *at) != NULL) {
        if (a->path_hash == path_hash) {
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

void
looks_expire(struct writes *w)
{
    struct write_ask **at = &w->looking, *a;
    int64_t now = w->looking != NULL ? now_us() : 0;

    while ((a = *at) != NULL) {
        if (a->until_us <= now) {
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
    ask_post(a);
    return a;
}
