/*
 * /writes: the journal, for operators.
 *
 * Model    each question is asked of the write loop and answered when that has: the connection
 *          waits (admin_wait). A client that leaves meanwhile is forgotten, what it asked for is
 *          done. Filters of GET stand in the query, those of POST in a JSON object; what is not
 *          understood is named, and nothing is done. To change all writes has to be said: a filter
 *          that came to nothing must not mean them.
 * Threads  the admin loop's.
 * Not here what the answers say of a write (write/json.c).
 */
#include <jansson.h>
#include <stdlib.h>

#include "admin/inside.h"

#define LIMIT_MAX 1000

struct question {
    struct conn      *conn;             /* borrowed; it tells when it goes */
    struct write_ask *ask;
    struct write_watch *watch;          /* of a stream */
    uint64_t          lost;             /* events that the reader was too slow for */
};

/* ---- answers --------------------------------------------------------------------------------- */

static unsigned
status_of(enum write_outcome o)
{
    switch (o) {
    case WRITE_OK:       return 200;
    case WRITE_UNKNOWN:  return 404;
    case WRITE_CONFLICT: return 409;
    default:             return 503;
    }
}

static void
on_answer(void *arg, const struct write_answer *a)
{
    struct question *q = arg;
    struct conn *c = q->conn;
    struct admin_request r = admin_later(c);

    if (a->outcome != WRITE_OK)
        admin_problem(&r, status_of(a->outcome), "%s", a->why);
    else
        buf_adds(&r.out, a->json);
    free(q);
    admin_reply(c, &r);
}

static void
on_gone(void *arg)
{
    struct question *q = arg;

    write_forget(&q->ask);
    write_unwatch(&q->watch);
    free(q);
}

/* NULL with a problem: no journal, or no memory. */
static struct question *
question(struct admin_request *r)
{
    struct question *q;

    if (r->a->process.writes == NULL) {
        admin_problem(r, 404, "there is no journal: neither journal.path nor journal.redis names "
            "one");
        return NULL;
    }
    q = calloc(1, sizeof *q);
    if (q == NULL)
        admin_problem(r, 503, "out of memory; nothing was done");
    return q;
}

/* The question was asked, or there was no memory for it. */
static void
asked(struct admin_request *r, struct question *q, struct write_ask *ask)
{
    if (ask == NULL) {
        free(q);
        admin_problem(r, 503, "out of memory; nothing was done");
        return;
    }
    q->ask = ask;
    q->conn = admin_wait(r, on_gone, q);
}

/* ---- filters --------------------------------------------------------------------------------- */

/* A filter's texts, NUL behind each. */
struct filter { struct buf state, route, key, after; struct write_filter is; };

static void
filter_free(struct filter *f)
{
    buf_free(&f->state);
    buf_free(&f->route);
    buf_free(&f->key);
    buf_free(&f->after);
}

static struct slice
given(const struct buf *b)
{
    return b->p != NULL ? buf_slice(b) : (struct slice){ NULL, 0 };
}

static bool
known_state(struct slice s)
{
    for (unsigned i = 0; i < WRITE_STATES; i++)
        if (slice_eq(s, slice_of(write_state_name((enum write_state)i))))
            return true;
    return slice_eq(s, SLICE("dead"));
}

static bool
filter_done(struct admin_request *r, struct filter *f)
{
    if (f->state.failed || f->route.failed || f->key.failed || f->after.failed) {
        admin_problem(r, 503, "out of memory; nothing was done");
        return false;
    }
    f->is.state = given(&f->state);
    f->is.route = given(&f->route);
    f->is.key = given(&f->key);
    f->is.after = given(&f->after);
    if (f->is.state.p != NULL && !known_state(f->is.state)) {
        admin_problem(r, 400, "state: \"%.*s\" is none; pending, sending, waiting, delivered, "
            "superseded, dropped, rejected, expired, uncertain, or dead for the last three",
            SLICE_ARG(f->is.state));
        return false;
    }
    return true;
}

/* ?state=&route=&key=&after=&limit= */
static bool
read_query(struct admin_request *r, struct filter *f)
{
    struct slice rest = r->head->query, part, name;
    uint64_t limit = 0;

    while (slice_cut(&rest, '&', &part)) {
        struct slice value = part;
        struct buf *to;

        slice_cut(&value, '=', &name);
        if (part.n == 0)
            continue;
        if (slice_eq(name, SLICE("limit"))) {
            if (!slice_u64(value, &limit) || limit < 1 || limit > LIMIT_MAX) {
                admin_problem(r, 400, "limit: a number from 1 to %d is wanted", LIMIT_MAX);
                return false;
            }
            continue;
        }
        to = slice_eq(name, SLICE("state")) ? &f->state : slice_eq(name, SLICE("route")) ?
            &f->route : slice_eq(name, SLICE("key")) ? &f->key :
            slice_eq(name, SLICE("after")) ? &f->after : NULL;
        if (to == NULL || value.p == NULL || (to->n = 0, admin_query_value(value, to)) == -1) {
            admin_problem(r, 400, "\"%.*s\" is not understood; state=, route=, key=, after= and "
                "limit= are, percent-encoded", SLICE_ARG(part));
            return false;
        }
    }
    f->is.limit = (unsigned)limit;
    return filter_done(r, f);
}

static json_t *
read_object(struct admin_request *r, const char *example)
{
    json_error_t e;
    json_t *doc = r->body.n > 0 ? json_loadb(r->body.p, r->body.n, JSON_REJECT_DUPLICATES, &e) :
        json_object();

    if (doc == NULL)
        admin_problem(r, 400, "the body is no JSON: line %d, column %d: %s", e.line, e.column,
            e.text);
    else if (!json_is_object(doc))
        admin_problem(r, 400, "a JSON object is wanted, as %s", example);
    else
        return doc;
    json_decref(doc);
    return NULL;
}

static bool
read_filter(struct admin_request *r, struct filter *f)
{
    json_t *doc = read_object(r, "{\"state\": \"dead\", \"route\": \"/api/**\"}"), *v;
    const char *member;
    bool ok = doc != NULL;

    if (!ok)
        return false;
    if (json_object_size(doc) == 0) {
        admin_problem(r, 400, "say which writes: state, route, key, or {\"all\": true}; nothing "
            "was done");
        ok = false;
    }
    json_object_foreach(doc, member, v) {
        bool all = strcmp(member, "all") == 0 && json_is_true(v);
        struct buf *to = strcmp(member, "state") == 0 ? &f->state :
            strcmp(member, "route") == 0 ? &f->route : strcmp(member, "key") == 0 ? &f->key : NULL;

        if (!ok || all)
            continue;
        if (to == NULL || json_string_length(v) == 0) {
            admin_problem(r, 400, "\"%s\": %s; nothing was done", member, to == NULL ?
                "not understood; known are state, route, key and all" : "a text is wanted");
            ok = false;
        } else {
            buf_add(to, json_string_value(v), json_string_length(v));
        }
    }
    json_decref(doc);
    return ok && filter_done(r, f);
}

/* ---- the endpoints --------------------------------------------------------------------------- */

void
handle_writes(struct admin_request *r)
{
    struct question *q = question(r);
    struct filter f = { 0 };

    if (q == NULL)
        return;
    if (read_query(r, &f))
        asked(r, q, write_list(r->a->process.writes, r->a->loop, &f.is, on_answer, q));
    else
        free(q);
    filter_free(&f);
}

void
handle_write(struct admin_request *r)
{
    struct question *q = question(r);

    if (q != NULL)
        asked(r, q, write_look(r->a->process.writes, r->a->loop, admin_path_id(r), false,
            on_answer, q));
}

static void
one(struct admin_request *r, enum write_verb verb)
{
    struct question *q = question(r);

    if (q != NULL)
        asked(r, q, write_verb(r->a->process.writes, r->a->loop, verb, admin_path_id(r), NULL,
            on_answer, q));
}

void
handle_write_retry(struct admin_request *r)
{
    one(r, WRITE_RETRY);
}

void
handle_write_drop(struct admin_request *r)
{
    one(r, WRITE_DROP);
}

static void
many(struct admin_request *r, enum write_verb verb)
{
    const struct slice none = { NULL, 0 };
    struct question *q = question(r);
    struct filter f = { 0 };

    if (q == NULL)
        return;
    if (read_filter(r, &f))
        asked(r, q, write_verb(r->a->process.writes, r->a->loop, verb, none, &f.is, on_answer, q));
    else
        free(q);
    filter_free(&f);
}

void
handle_writes_retry(struct admin_request *r)
{
    many(r, WRITE_RETRY);
}

void
handle_writes_drop(struct admin_request *r)
{
    many(r, WRITE_DROP);
}

/* {"origin": NAME} or {"route": NAME} or {"all": true}. */
static void
pause(struct admin_request *r, bool on)
{
    json_t *doc = read_object(r, "{\"route\": \"/api/events\"}");
    json_t *origin = json_object_get(doc, "origin"), *route = json_object_get(doc, "route");
    bool all = json_is_true(json_object_get(doc, "all"));
    struct slice o = { json_string_value(origin), json_string_length(origin) };
    struct slice t = { json_string_value(route), json_string_length(route) };
    struct question *q;

    if (doc == NULL)
        return;
    if (json_object_size(doc) != 1 || o.n + t.n + all == 0)
        admin_problem(r, 400, "one of {\"origin\": NAME}, {\"route\": NAME} and {\"all\": true} "
            "is wanted; nothing was done");
    else if ((q = question(r)) != NULL)
        asked(r, q, write_pause(r->a->process.writes, r->a->loop, o, t, on, on_answer, q));
    json_decref(doc);
}

void
handle_writes_pause(struct admin_request *r)
{
    pause(r, true);
}

void
handle_writes_resume(struct admin_request *r)
{
    pause(r, false);
}

static void
on_event(void *arg, const char *kind, struct slice json)
{
    struct question *q = arg;
    struct buf b = { 0 };

    if (q->lost > 0) {
        buf_printf(&b, "{\"events\": %llu}", (unsigned long long)q->lost);
        if (!b.failed && admin_event(q->conn, "lost", buf_slice(&b)))
            q->lost = 0;
        buf_free(&b);
    }
    q->lost += !admin_event(q->conn, kind, json);
}

void
handle_writes_stream(struct admin_request *r)
{
    struct question *q = question(r);

    if (q == NULL)
        return;
    q->watch = write_watch(r->a->process.writes, r->a->loop, on_event, q);
    if (q->watch == NULL) {
        asked(r, q, NULL);
        return;
    }
    q->conn = admin_stream(r, on_gone, q);
}
