/*
 * Taking writes, and claims of keys for those that go straight to the origin.
 *
 * Model    the asker's thread makes the row and hands it to the journal; when it is durable the
 *          write loop counts it among the pending ones, so that readers see it, and puts it into
 *          the schedule, before the asker hears of it.
 * Threads  write_*: any, the answer on the loop that asked.
 */
#include "write/priv.h"

#include <errno.h>
#include <stdlib.h>

#define FILTER_LINE_MAX 256

/* ---- the row --------------------------------------------------------------------------------- */

/* Is the name of this field one that the route does not keep? */
static bool
omits(const struct conf_strings *globs, struct slice name)
{
    char lower[FILTER_LINE_MAX], glob[FILTER_LINE_MAX];

    if (name.n > sizeof lower)
        return false;
    for (size_t i = 0; i < name.n; i++)
        lower[i] = (char)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] | 32 : name.p[i]);
    for (size_t g = 0; g < globs->n; g++) {
        struct slice s = slice_of(globs->at[g]);

        if (s.n > sizeof glob)
            continue;
        for (size_t i = 0; i < s.n; i++)
            glob[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] | 32 : s.p[i]);
        if (slice_glob((struct slice){ glob, s.n }, (struct slice){ lower, name.n }))
            return true;
    }
    return false;
}

/* The lines of fields without those that the route omits, at *at. */
static struct slice
put_fields(char **at, struct slice fields, const struct conf_strings *omit)
{
    struct slice kept = { *at, 0 };

    while (fields.n > 0) {
        const char *end = memchr(fields.p, '\n', fields.n), *colon;
        size_t n = end != NULL ? (size_t)(end - fields.p) + 1 : fields.n;

        colon = memchr(fields.p, ':', n);
        if (colon == NULL || !omits(omit, (struct slice){ fields.p, (size_t)(colon - fields.p) })) {
            memcpy(*at, fields.p, n);
            *at += n;
        }
        fields.p += n;
        fields.n -= n;
    }
    kept.n = (size_t)(*at - kept.p);
    return kept;
}

static struct slice
put_url(char **at, const struct write_request *r)
{
    struct slice url = { *at, 0 };

    put_slice(at, r->https ? SLICE("https://") : SLICE("http://"));
    put_slice(at, r->host);
    put_slice(at, r->path);
    if (r->query.p != NULL) {
        put_slice(at, SLICE("?"));
        put_slice(at, r->query);
    }
    url.n = (size_t)(*at - url.p);
    return url;
}

static bool
is_of_target(enum http_method m)
{
    return m == HTTP_PUT || m == HTTP_PATCH || m == HTTP_DELETE;
}

static void
chains_of(const struct write_request *r, uint64_t *c1, uint64_t *c2)
{
    uint64_t path = write_path_hash(r->host, r->path);

    *c1 = r->order_key.p != NULL ? ident_order(r->order_key) : path;
    *c2 = *c1 != path ? path : 0;
}

/* Its key, if it has one and the route remembers keys. -1: memory is out. */
static int
put_key(struct writes *w, struct wop *o, const struct write_request *r, struct slice url)
{
    int64_t keep = r->route->idempotency_ms;

    if (r->idempotency_key.p == NULL || keep <= 0)
        return 0;
    o->op.key_for_ms = keep;
    o->op.promised = r->route->conf->write_idempotent;
    return ident_key(w, r, url, o->op.part, o->op.key_hash, o->op.fingerprint);
}

static struct wop *
row_of(struct writes *w, const struct write_request *r)
{
    size_t n = 16 + 2 * r->host.n + 2 * r->path.n + r->query.n + r->target.n + r->fields.n +
        r->body.n + r->order_key.n + r->idempotency_key.n + r->method_name.n;
    struct wop *o = wop_new(w, JOURNAL_ACCEPT, n);
    struct write_content *c;
    char *at;

    if (o == NULL)
        return NULL;
    at = o->bytes;
    c = &o->op.content;
    o->op.durable = r->route->conf->write_durability;
    o->op.row = (struct write_row){ .who = r->who, .accepted_ms = wall_ms(),
        .route = journal_route(w->j, slice_of(r->route->name)), .method = (uint8_t)r->method,
        .lane = (uint8_t)r->lane, .state = WRITE_PENDING,
        .orders_target = is_of_target(r->method) };
    o->op.row.due_ms = o->op.row.accepted_ms;
    chains_of(r, &o->op.row.c1, &o->op.row.c2);
    o->op.part = fleet_part(r->route, write_path_hash(r->host, r->path));
    c->method_name = put_slice(&at, r->method_name);
    c->url = put_url(&at, r);
    c->target = put_slice(&at, r->target);
    c->host = put_slice(&at, r->host);
    c->fields = put_fields(&at, r->fields, &r->route->conf->write_omit);
    c->has_body = r->has_body;
    c->body = put_slice(&at, r->has_body ? r->body : (struct slice){ NULL, 0 });
    c->order_key = put_slice(&at, r->order_key.p != NULL ? r->order_key : r->path);
    c->idempotency_key = put_slice(&at, r->idempotency_key);
    if (o->op.row.route == 0 || put_key(w, o, r, c->url) == -1) {
        wop_free(o);                    /* memory is out */
        return NULL;
    }
    return o;
}

/* ---- what the journal said ------------------------------------------------------------------- */

static enum write_outcome
outcome_of(enum journal_result r)
{
    switch (r) {
    case JOURNAL_DONE:
        return WRITE_OK;
    case JOURNAL_REPEATED:
        return WRITE_REPEATED;
    case JOURNAL_MISMATCH:
        return WRITE_MISMATCH;
    case JOURNAL_BUSY:
        return WRITE_BUSY;
    case JOURNAL_KEYS_FULL:
        return WRITE_KEYS_FULL;
    default:
        return WRITE_FULL;
    }
}

/* The first answer of a claim, as the operation has it. */
static void
repeat_claim(struct write_ask *a, const struct journal_op *op)
{
    a->answer.status = op->row.status;
    a->answer.fields = op->content.answer_head;
    a->answer.body = op->content.answer_body;
    a->answer.state = WRITE_DELIVERED;
    ident_hex(op->key_hash, a->answer.id);
    if (op->content.answer_body.p == NULL)
        ask_answer(a, WRITE_BUSY, "the request was done; its answer was too long to be kept");
    else
        ask_answer(a, WRITE_REPEATED, "");
}

/* The write that came first with this key: its answer where that is final and known whole. */
static void
repeat_write(struct write_ask *a, uint64_t seq)
{
    struct write_content c;
    struct write_row row;
    bool ok = true;
    struct err e;
    int rc = journal_read(a->w->j, seq, &row, &c, &e);

    if (rc == -1 && e.code != EBADMSG) {
        ask_answer(a, WRITE_BUSY, "what became of the first request with this key cannot be read "
            "now");
        return;
    }
    journal_id(a->w->j, seq, a->answer.id);
    a->answer.state = rc == -1 ? WRITE_UNCERTAIN :  /* damaged */
        WRITE_DELIVERED;                            /* settled so long ago that it is forgotten */
    if (rc == 1) {
        a->answer.state = row.state;
        if ((row.state == WRITE_DELIVERED || row.state == WRITE_REJECTED) &&
            c.answer_body.p != NULL) {
            a->answer.fields = ask_copy(a, c.answer_head, &ok);
            a->answer.body = ask_copy(a, c.answer_body, &ok);
            a->answer.status = ok ? row.status : 0;
        }
    }
    ask_answer(a, WRITE_REPEATED, "");
}

static void
on_accepted(struct wop *o)
{
    struct write_ask *a = o->arg;
    struct writes *w = o->w;
    int64_t position;

    if (o->op.result == JOURNAL_REPEATED && o->op.first_seq != 0) {
        repeat_write(a, o->op.first_seq);
        wop_free(o);
        return;
    }
    if (o->op.result != JOURNAL_DONE) {
        if (o->op.result == JOURNAL_FULL)
            COUNT(writes_refused);
        a->op = o;
        if (o->op.result == JOURNAL_REPEATED)
            repeat_claim(a, &o->op);
        else
            ask_answer(a, outcome_of(o->op.result), o->op.why);
        return;
    }
    if (a != NULL) {
        COUNT(writes_accepted);
        writes_count(w, &o->op.row, true);
    }
    position = journal_shared(w->j) ? (int64_t)o->op.position : writes_enter(w, &o->op.row);
    if (a != NULL) {
        journal_id(w->j, o->op.row.seq, a->answer.id);
        a->answer.state = WRITE_PENDING;
        a->answer.position = position > 0 ? (uint64_t)position : 0;
        ask_answer(a, WRITE_OK, "");
        watch_row(w, &o->op.row);
    }
    if (position == -1) {               /* memory is out: scheduled when there is some */
        o->arg = NULL;
        wop_again(o);
        return;
    }
    wop_free(o);
}

/* Before a shared journal was reached it is not known by what keys and credentials go there: what
 * is made of them now would be nobody's later. */
static void
refuse(struct write_ask *a, struct wop *o)
{
    COUNT(writes_refused);
    wop_free(o);
    ask_answer(a, WRITE_FULL, "Redis was not reached yet");
}

/* NULL: memory was out for one of them. known: the journal's secret was there when o was made. */
static struct write_ask *
begin(struct write_ask *a, struct wop *o, bool known, write_done *done, void (*then)(struct wop *o))
{
    if (o == NULL) {
        if (a != NULL)
            ask_free(a);
        return NULL;
    }
    a->done = done;
    o->then = then;
    o->arg = a;
    if (known)
        wop_do(o);
    else
        refuse(a, o);
    return a;
}

struct write_ask *
write_accept(struct writes *w, struct loop *l, const struct write_request *r, write_done *done,
    void *arg)
{
    bool known = journal_secret(w->j) != NULL;
    struct write_ask *a = ask_new(w, l, arg);
    struct wop *o = a != NULL ? row_of(w, r) : NULL;

    return begin(a, o, known, done, on_accepted);
}

/* ---- straight to the origin ------------------------------------------------------------------ */

static void
run_may_pass(struct write_ask *a)
{
    struct journal *j = a->w->j;
    struct write_row first;
    bool behind = journal_shared(j) ? journal_next(j, a->part, a->chain, 0, false, &first) != 0 :
        schedule_has(a->w->schedule, a->chain);

    if (!behind && a->orders_target)
        behind = journal_next(j, a->part, a->path_hash, 0, true, &first) != 0;
    ask_answer(a, behind ? WRITE_BUSY : WRITE_OK, behind ? "pending writes are before it" : "");
}

struct write_ask *
write_may_pass(struct writes *w, struct loop *l, const struct write_request *r, write_done *done,
    void *arg)
{
    struct write_ask *a = ask_new(w, l, arg);
    uint64_t c2;

    if (a == NULL)
        return NULL;
    a->done = done;
    chains_of(r, &a->chain, &c2);
    a->path_hash = write_path_hash(r->host, r->path);
    a->part = fleet_part(r->route, a->path_hash);
    a->orders_target = is_of_target(r->method);
    a->run = run_may_pass;
    ask_post(a);
    return a;
}

static void
on_claimed(struct wop *o)
{
    struct write_ask *a = o->arg;

    a->op = o;
    ident_hex(o->op.key_hash, a->answer.id);
    if (o->op.result == JOURNAL_REPEATED && o->op.first_seq != 0)
        repeat_write(a, o->op.first_seq);
    else if (o->op.result == JOURNAL_REPEATED)
        repeat_claim(a, &o->op);
    else
        ask_answer(a, outcome_of(o->op.result), o->op.why);
}

struct write_ask *
write_claim(struct writes *w, struct loop *l, const struct write_request *r, write_done *done,
    void *arg)
{
    bool known = journal_secret(w->j) != NULL;
    struct write_ask *a = ask_new(w, l, arg);
    size_t n = 16 + r->host.n + r->path.n + r->query.n;
    struct wop *o = a != NULL ? wop_new(w, JOURNAL_CLAIM, n) : NULL;
    char *at;

    assert(r->idempotency_key.p != NULL && r->route->idempotency_ms > 0);
    if (o != NULL) {
        at = o->bytes;
        o->op.durable = r->route->conf->write_durability;
        o->op.row.accepted_ms = wall_ms();
        o->op.row.who = r->who;
        o->op.part = fleet_part(r->route, write_path_hash(r->host, r->path));
        if (put_key(w, o, r, put_url(&at, r)) == -1) {
            wop_free(o);
            o = NULL;
        }
    }
    return begin(a, o, known, done, on_claimed);
}

static void
on_claim_told(struct wop *o)
{
    if (o->op.result == JOURNAL_FULL)
        wop_again(o);
    else
        wop_free(o);
}

/* Without memory its fate stays unknown, which is safe. */
static void
tell_claim(struct writes *w, const char *id, enum journal_kind kind, unsigned status,
    struct slice fields, struct slice body)
{
    struct wop *o = wop_new(w, kind, fields.n + body.n);
    char *at;

    if (o == NULL)
        return;
    at = o->bytes;
    if (!slice_hex_bytes(slice_of(id), o->op.key_hash, sizeof o->op.key_hash)) {
        wop_free(o);
        return;
    }
    o->op.durable = WRITE_OS;
    o->op.row.status = (uint16_t)status;
    o->op.content.answer_head = put_slice(&at, fields);
    o->op.content.answer_body = put_slice(&at, body);
    o->then = on_claim_told;
    wop_do(o);
}

void
write_claim_ended(struct writes *w, const char *id, unsigned status, struct slice fields,
    struct slice body)
{
    tell_claim(w, id, JOURNAL_CLAIM_END, status, fields, body);
}

void
write_claim_released(struct writes *w, const char *id)
{
    tell_claim(w, id, JOURNAL_CLAIM_RELEASE, 0, (struct slice){ NULL, 0 },
        (struct slice){ NULL, 0 });
}
