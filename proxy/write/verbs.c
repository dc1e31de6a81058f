/*
 * What writers and operators ask and do: one write, lists, retry, drop, pause.
 *
 * Model    a filter is walked in pieces, so that deliveries go on in between, and what a piece
 *          changes is committed before the next. A write that a verb changes is held back from
 *          delivery until that is committed; one that is at the origin is not changed.
 * Threads  write_*: any, the answer on the loop that asked; the rest the write loop.
 */
#include "write/priv.h"

#include <errno.h>
#include <stdlib.h>

#define PIECE        500                /* rows looked at in one round */
#define LIST_DEFAULT 100
#define LIST_MAX     1000
#define POSITION_MAX 1000
#define POSITION_SHARED 50              /* each step is a question to Redis */

static const char unreadable[] = "the journal cannot be read";

struct held { struct held *next; uint64_t seq; bool pending; };     /* when the verb read it */

static const struct held *
held_of(const struct writes *w, uint64_t seq)
{
    const struct held *h = w->held;

    while (h != NULL && h->seq != seq)
        h = h->next;
    return h;
}

bool
verb_holds(const struct writes *w, uint64_t seq)
{
    return held_of(w, seq) != NULL;
}

bool
verb_moves(const struct writes *w, uint64_t seq)
{
    const struct held *h = held_of(w, seq);

    return h != NULL && h->pending;
}

static void
let_go(struct writes *w, uint64_t seq)
{
    for (struct held **at = &w->held; *at != NULL; at = &(*at)->next)
        if ((*at)->seq == seq) {
            struct held *h = *at;

            *at = h->next;
            free(h);
            return;
        }
}

void
verbs_free(struct writes *w)
{
    while (w->held != NULL)
        let_go(w, w->held->seq);
}

/* ---- one write ------------------------------------------------------------------------------- */

static int64_t
position_of(struct writes *w, const struct write_row *r)
{
    struct write_row before = { 0 };
    int64_t most = journal_shared(w->j) ? POSITION_SHARED : POSITION_MAX, n = 0;
    int rc = 0;

    if (!write_is_pending(r->state))
        return -1;
    while (n <= most &&
        (rc = journal_next(w->j, journal_part(r->seq), r->c1, before.seq, false, &before)) == 1 &&
        before.seq < r->seq)
        n++;
    return n <= most && rc != -1 ? n : -1;
}

/* As journal_read; of content that was damaged, or which a file's disk does not give, its cause
 * alone, so that a person sees the write. One that is settled and whose row is damaged is none. */
static int
read_any(struct write_ask *a, uint64_t seq, struct write_row *row, struct write_content *c)
{
    struct err e;
    int rc = journal_read(a->w->j, seq, row, c, &e);

    if (rc != -1 || (e.code != EBADMSG && journal_shared(a->w->j)))
        return rc;
    rc = journal_read(a->w->j, seq, row, NULL, &e);
    if (rc != 1)
        return rc == -1 && e.code == EBADMSG ? 0 : rc;
    *c = (struct write_content){ .cause = SLICE("its content in the journal cannot be read") };
    return 1;
}

/* The one that a->id names. false: it was answered. */
static bool
read_named(struct write_ask *a, struct write_row *row, struct write_content *c)
{
    int rc = journal_id_seq(a->w->j, a->id, &a->seq);

    if (rc == 1)
        rc = read_any(a, a->seq, row, c);
    if (rc != 1)
        ask_answer(a, rc == 0 ? WRITE_UNKNOWN : WRITE_FULL, rc == 0 ?
            "there is no such write, or it was settled long ago" : unreadable);
    return rc == 1;
}

static void
run_look(struct write_ask *a)
{
    struct write_content c;
    struct write_row row;
    struct json_row j = { .row = &row, .content = &c, .brief = a->brief };

    if (!read_named(a, &row, &c))
        return;
    journal_id(a->w->j, row.seq, a->answer.id);
    a->answer.state = row.state;
    a->answer.status = row.status;
    j.position = position_of(a->w, &row);
    a->answer.position = j.position > 0 ? (uint64_t)j.position : 0;
    json_write(a->w, &a->text, &j);
    buf_addc(&a->text, '\n');
    ask_answer(a, WRITE_OK, "");
}

struct write_ask *
write_look(struct writes *w, struct loop *l, struct slice id, bool brief, write_done *done,
    void *arg)
{
    struct write_ask *a = ask_new(w, l, arg);
    bool ok = true;

    if (a == NULL)
        return NULL;
    a->id = ask_copy(a, id, &ok);
    if (!ok) {
        ask_free(a);
        return NULL;
    }
    a->done = done;
    a->brief = brief;
    a->run = run_look;
    ask_post(a);
    return a;
}

/* ---- filters --------------------------------------------------------------------------------- */

static unsigned
states_of(struct slice name)
{
    const unsigned all = (1u << WRITE_STATES) - 1;
    unsigned pending = 1u << WRITE_PENDING | 1u << WRITE_SENDING | 1u << WRITE_WAITING;
    unsigned dead = 1u << WRITE_REJECTED | 1u << WRITE_EXPIRED | 1u << WRITE_UNCERTAIN;

    if (name.p == NULL)
        return all;
    if (slice_eq(name, SLICE("pending")))
        return pending;
    if (slice_eq(name, SLICE("dead")))
        return dead;
    for (unsigned s = 0; s < WRITE_STATES; s++)
        if (slice_eq(name, slice_of(write_state_name(s))))
            return 1u << s;
    return 0;
}

static bool
copy_filter(struct write_ask *a, const struct write_filter *f)
{
    bool ok = true;

    a->filter = *f;
    a->filter.route = ask_copy(a, f->route, &ok);
    a->filter.key = ask_copy(a, f->key, &ok);
    a->filter.after = ask_copy(a, f->after, &ok);
    a->states = states_of(f->state);
    return ok;
}

/* Of PIECE rows of the journal those that the filter's states take. */
struct piece { struct write_row at[PIECE]; size_t n; bool more; uint64_t seen; };

static void
add_row(void *arg, const struct write_row *r)
{
    struct piece *p = arg;

    p->at[p->n++] = *r;
}

/* The next piece. NULL: it was answered; or nobody hears that any more, and what it would still do
 * would be done behind the write loop's end. */
static struct piece *
read_piece(struct write_ask *a)
{
    struct piece *p;
    int rc = -1;

    if (atomic_load(&a->w->closing))
        return NULL;
    p = malloc(sizeof *p);
    if (p != NULL) {
        p->n = 0;
        p->seen = a->seq;
        rc = journal_each(a->w->j, &p->seen, a->states, PIECE, add_row, p);
        p->more = rc == 1;
    }
    if (rc != -1)
        return p;
    free(p);
    ask_answer(a, WRITE_FULL, "the journal cannot be read, or memory is out");
    return NULL;
}

/* Does the rest of the filter take it too? 1, with *c read; 0; -1: the journal cannot be read. */
static int
takes(struct write_ask *a, const struct write_row *r, struct write_content *c)
{
    struct write_row now;
    int rc;

    if (a->filter.route.p != NULL &&
        !slice_eq(journal_route_name(a->w->j, r->route), a->filter.route))
        return 0;
    rc = read_any(a, r->seq, &now, c);
    return rc == 1 && a->filter.key.p != NULL ? slice_eq(c->order_key, a->filter.key) : rc;
}

/* Starts where the filter says. false: it was answered. */
static bool
begin(struct write_ask *a)
{
    int rc = 1;

    if (a->states == 0) {
        ask_answer(a, WRITE_UNKNOWN, "there is no such state");
        return false;
    }
    if (a->filter.after.p != NULL)
        rc = journal_id_seq(a->w->j, a->filter.after, &a->seq);
    if (rc != 1)
        ask_answer(a, rc == 0 ? WRITE_UNKNOWN : WRITE_FULL,
            rc == 0 ? "`after` is the id of no write" : unreadable);
    return rc == 1;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static void
end_list(struct write_ask *a, uint64_t last)
{
    char id[WRITE_ID_N + 1];

    buf_addc(&a->text, ']');
    if (last != 0) {
        journal_id(a->w->j, last, id);
        buf_printf(&a->text, ",\"next\":\"%s\"", id);
    }
    buf_addz(&a->text, "}\n");
    ask_answer(a, WRITE_OK, "");
}

static void
run_list_piece(struct write_ask *a)
{
    uint64_t limit = a->filter.limit == 0 ? LIST_DEFAULT :
        a->filter.limit > LIST_MAX ? LIST_MAX : a->filter.limit;
    struct piece *p = read_piece(a);
    uint64_t last = 0;
    struct write_content c;
    int taken = 0;
    bool more;

    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n && taken != -1; i++) {
        const struct json_row j = { .row = &p->at[i], .content = &c, .position = -1 };

        if (a->answer.n == limit) {
            last = a->seq;
            break;
        }
        a->seq = p->at[i].seq;
        taken = takes(a, &p->at[i], &c);
        if (taken != 1)
            continue;
        if (a->answer.n++ > 0)
            buf_addc(&a->text, ',');
        json_write(a->w, &a->text, &j);
    }
    more = p->more && last == 0;
    if (more)
        a->seq = p->seen;
    free(p);
    if (taken == -1)
        ask_answer(a, WRITE_FULL, unreadable);
    else if (!more)
        end_list(a, last);
    else
        ask_post(a);
}

static void
run_list(struct write_ask *a)
{
    if (!begin(a))
        return;
    buf_addz(&a->text, "{\"writes\":[");
    a->run = run_list_piece;
    run_list_piece(a);
}

struct write_ask *
write_list(struct writes *w, struct loop *l, const struct write_filter *f, write_done *done,
    void *arg)
{
    struct write_ask *a = ask_new(w, l, arg);

    if (a == NULL)
        return NULL;
    if (!copy_filter(a, f)) {
        ask_free(a);
        return NULL;
    }
    a->done = done;
    a->run = run_list;
    ask_post(a);
    return a;
}

/* ---- retry and drop -------------------------------------------------------------------------- */

struct change { struct write_ask *a; struct write_row was; };

static void
one_left(struct write_ask *a)
{
    if (--a->left > 0)
        return;
    if (a->more) {
        ask_post(a);
        return;
    }
    buf_printf(&a->text, "{\"writes\":%llu}\n", (unsigned long long)a->answer.n);
    if (a->unread)
        ask_answer(a, WRITE_FULL, "the journal cannot be read; what was changed until then stays "
            "changed, for the rest the same again");
    else
        ask_answer(a, a->one && a->answer.n == 0 ? WRITE_CONFLICT : WRITE_OK,
            a->one && a->answer.n == 0 ? "it has changed meanwhile" : "");
}

static void
on_changed(struct wop *o)
{
    struct writes *w = o->w;
    struct change *c = (struct change *)(void *)o->bytes;
    struct write_ask *a = c->a;

    if (o->op.result == JOURNAL_FULL) {
        wop_again(o);
        return;
    }
    let_go(w, o->op.row.seq);
    if (o->op.result == JOURNAL_DONE) {
        a->answer.n++;
        a->answer.state = o->op.row.state;
        if (!journal_shared(w->j)) {    /* there its owner hears of it, be that us */
            writes_moved(w, &c->was, &o->op.row);
            if (o->op.row.state == WRITE_WAITING)
                schedule_hurry(w->schedule, &o->op.row);
            writes_pump(w);
        }
    }
    one_left(a);
    wop_free(o);
}

/* Why not; NULL: *r is as it shall be. */
static const char *
change(const struct write_ask *a, struct write_row *r)
{
    int64_t now = wall_ms();

    if (delivery_has(a->w, r->seq) || verb_holds(a->w, r->seq) ||
        (journal_shared(a->w->j) && r->state == WRITE_SENDING))
        return "it is at the origin now";
    if (!write_is_pending(r->state) && !write_is_dead(r->state))
        return "it is settled";
    if (a->verb == WRITE_DROP) {
        r->state = WRITE_DROPPED;
        r->settled_ms = now;
        return NULL;
    }
    if (write_is_dead(r->state))
        r->state = WRITE_PENDING;
    r->attempts = 0;
    r->settled_ms = 0;
    r->due_ms = now;
    return NULL;
}

/* Why not; NULL: it is under way. */
static const char *
do_verb(struct write_ask *a, const struct write_row *row)
{
    struct write_row to = *row;
    const char *why = change(a, &to);
    struct held *h = why == NULL ? malloc(sizeof *h) : NULL;
    struct wop *o = h != NULL ? wop_new(a->w, JOURNAL_UPDATE, sizeof(struct change)) : NULL;

    if (o == NULL) {
        free(h);
        return why != NULL ? why : "memory is out";
    }
    *h = (struct held){ a->w->held, row->seq, write_is_pending(row->state) };
    a->w->held = h;
    *(struct change *)(void *)o->bytes = (struct change){ a, *row };
    o->op.row = to;
    o->op.by_verb = true;
    o->op.was = row->state;
    o->op.was_attempts = row->attempts;
    o->op.durable = WRITE_FSYNC;
    o->op.settle = to.state == WRITE_DROPPED;
    o->then = on_changed;
    a->left++;
    wop_do(o);
    return NULL;
}

static void
run_verb_piece(struct write_ask *a)
{
    struct piece *p = read_piece(a);
    struct write_content c;

    if (p == NULL)
        return;
    a->seq = p->seen;
    a->left = 1;
    for (size_t i = 0; i < p->n && !a->unread; i++) {
        int taken = takes(a, &p->at[i], &c);

        a->unread = taken == -1;
        if (taken == 1 && (a->filter.limit == 0 || a->answer.n + a->left <= a->filter.limit))
            (void)do_verb(a, &p->at[i]);
    }
    a->more = p->more && !a->unread;
    free(p);
    one_left(a);
}

static void
run_verb(struct write_ask *a)
{
    struct write_content c;
    struct write_row row;
    const char *why;

    if (a->id.p == NULL) {
        if (!begin(a))
            return;
        a->run = run_verb_piece;
        run_verb_piece(a);
        return;
    }
    a->one = true;
    a->left = 1;
    if (!read_named(a, &row, &c))
        return;
    journal_id(a->w->j, row.seq, a->answer.id);
    a->answer.state = row.state;
    why = do_verb(a, &row);
    if (why != NULL)
        ask_answer(a, WRITE_CONFLICT, why);
    else
        one_left(a);
}

struct write_ask *
write_verb(struct writes *w, struct loop *l, enum write_verb verb, struct slice id,
    const struct write_filter *f, write_done *done, void *arg)
{
    struct write_ask *a = ask_new(w, l, arg);
    bool ok = true;

    if (a == NULL)
        return NULL;
    a->id = ask_copy(a, id, &ok);
    if (!ok || (id.p == NULL && !copy_filter(a, f))) {
        ask_free(a);
        return NULL;
    }
    if (id.p == NULL && f->state.p == NULL)         /* of what is settled there is nothing to do */
        a->states &= ~(1u << WRITE_DELIVERED | 1u << WRITE_SUPERSEDED | 1u << WRITE_DROPPED);
    a->verb = verb;
    a->done = done;
    a->run = run_verb;
    ask_post(a);
    return a;
}

/* ---- pause ----------------------------------------------------------------------------------- */

/* Who resumes all means all: nothing stays paused under a name of its own, which may be gone. */
static void
resume_all(struct writes *w)
{
    for (uint32_t i = 1; i <= journal_routes(w->j); i++)
        (void)schedule_pause_route(w->schedule, i, false);
    for (unsigned i = 0; i < w->norigin_names; i++)
        (void)schedule_pause_origin(w->schedule, i, false);
}

static bool
apply_pause(struct write_ask *a)
{
    struct writes *w = a->w;
    unsigned origin;

    if (a->origin.p != NULL)
        return writes_origin(w, a->origin, &origin) &&
            schedule_pause_origin(w->schedule, origin, a->on) == 0;
    if (a->route.p != NULL)
        return schedule_pause_route(w->schedule, journal_route(w->j, a->route), a->on) == 0;
    w->paused = a->on;
    if (!a->on)
        resume_all(w);
    return true;
}

static void
on_paused(struct wop *o)
{
    struct write_ask *a = o->arg;

    if (o->op.result != JOURNAL_DONE) {
        ask_answer(a, WRITE_FULL, o->op.why);
    } else {
        (void)apply_pause(a);
        buf_printf(&a->text, "{\"paused\":%s}\n", a->on ? "true" : "false");
        writes_pump(a->w);
        ask_answer(a, WRITE_OK, "");
    }
    wop_free(o);
}

static bool
names_something(const struct write_ask *a)
{
    const struct route_table *t = a->w->site.table;
    const struct conf *c = t != NULL ? route_table_conf(t) : NULL;

    if (a->route.p != NULL)
        return t != NULL && route_table_find(t, a->route) != NULL;
    for (size_t i = 0; a->origin.p != NULL && c != NULL && i < c->norigins; i++)
        if (slice_eq(slice_of(c->origins[i].id), a->origin))
            return true;
    return a->origin.p == NULL;
}

static void
run_pause(struct write_ask *a)
{
    size_t n = 16 + a->origin.n + a->route.n;
    struct wop *o;
    char *at;

    if (!names_something(a)) {
        ask_answer(a, WRITE_UNKNOWN, a->route.p != NULL ? "there is no such route" :
            "there is no such origin");
        return;
    }
    o = wop_new(a->w, JOURNAL_PAUSE, n);
    if (o == NULL) {
        ask_answer(a, WRITE_FULL, "memory is out");
        return;
    }
    at = o->bytes;
    put_slice(&at, a->origin.p != NULL ? SLICE("origin ") :
        a->route.p != NULL ? SLICE("route ") : SLICE("all"));
    put_slice(&at, a->origin.p != NULL ? a->origin : a->route);
    o->op.name = (struct slice){ o->bytes, (size_t)(at - o->bytes) };
    o->op.on = a->on;
    o->op.durable = WRITE_FSYNC;
    o->then = on_paused;
    o->arg = a;
    wop_do(o);
}

struct write_ask *
write_pause(struct writes *w, struct loop *l, struct slice origin, struct slice route, bool on,
    write_done *done, void *arg)
{
    struct write_ask *a = ask_new(w, l, arg);
    bool ok = true;

    if (a == NULL)
        return NULL;
    a->origin = ask_copy(a, origin, &ok);
    a->route = ask_copy(a, route, &ok);
    if (!ok) {
        ask_free(a);
        return NULL;
    }
    a->on = on;
    a->done = done;
    a->run = run_pause;
    ask_post(a);
    return a;
}
