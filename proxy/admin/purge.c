/*
 * POST /purge.
 *
 *   {"url": U, "prefix": P, "pattern": G, "tags": T, "groups": C, "route": R, "all": true,
 *    "origin": O, "soft": bool, "dry_run": bool, "erase": bool, "wait": ms}
 *
 * each of the first six a text or a list of texts ("tag" is taken for "tags", "group" for
 * "groups"), at least one of the first seven; "origin" says of which origin the groups are, else
 * they are those of all. The answer: {"done": true, "soft": b, "dry_run": b, "objects": n, "items":
 * [{"tag": "x", "exact": true, "objects": 3}, {"prefix": "/a", "exact": false, "objects": 0}]},
 * where exact: false says that it is done by generation: in force now, freed and counted later.
 * With "erase" the answer comes when the bytes are gone from memory and disk, and not only from
 * what is served: it has "erased": true. Where instances share a Redis, the answer waits until all
 * that live have applied the purge, and erased, for `wait` at most (500; 15,000 with "erase", and
 * "erased" is as "done"), and has "id", "instances" and
 * "missing" as well: 200 when nobody is missing, else 202 with "done": false, and GET /purge/ID
 * tells how it stands later.
 *
 * What is not understood is listed, all of it, and then nothing is purged: 400 with
 * "not_understood": [{"item": ..., "why": ...}].
 */
#include <jansson.h>
#include <stdlib.h>

#include "admin/inside.h"
#include "purge/purge.h"

#define WAIT_MS     500
#define WAIT_ERASE_MS 15000             /* bytes go, and who is gone loses its lease, in less */
#define WAIT_MS_MAX 60000
#define RECENT_ITEMS 5                  /* of a purge that /stats tells of */

static const struct { const char *member, *item; enum store_purge_kind kind; } kinds[] = {
    { "url", "url", STORE_PURGE_URL },             { "prefix", "prefix", STORE_PURGE_PREFIX },
    { "pattern", "pattern", STORE_PURGE_PATTERN }, { "tags", "tag", STORE_PURGE_TAG },
    { "tag", "tag", STORE_PURGE_TAG },             { "route", "route", STORE_PURGE_ROUTE },
    { "groups", "group", STORE_PURGE_GROUP },      { "group", "group", STORE_PURGE_GROUP },
};

struct purge_request {
    struct purge_item *items;           /* owned; texts are the document's */
    size_t n, cap;
    struct slice origin;                /* of its groups */
    bool soft, dry, erase, failed;      /* failed: memory is out */
    int64_t wait_ms;                    /* -1: not said */
    struct buf faults;                  /* members of not_understood */
};

static const char *
item_name(enum store_purge_kind kind)
{
    for (size_t i = 0; i < NELEM(kinds); i++)
        if (kinds[i].kind == kind)
            return kinds[i].item;
    return "all";
}

static void
fault(struct purge_request *q, struct slice item, const char *why)
{
    buf_addz(&q->faults, q->faults.n > 0 ? ", {\"item\": " : "{\"item\": ");
    admin_json_text(&q->faults, item);
    buf_addz(&q->faults, ", \"why\": ");
    admin_json_text(&q->faults, slice_of(why));
    buf_addc(&q->faults, '}');
}

static void
add_item(struct purge_request *q, enum store_purge_kind kind, struct slice text)
{
    if (q->n == q->cap) {
        size_t cap = q->cap > 0 ? q->cap * 2 : 16;
        struct purge_item *items = realloc(q->items, cap * sizeof *items);

        if (items == NULL) {
            q->failed = true;
            return;
        }
        q->items = items;
        q->cap = cap;
    }
    q->items[q->n++] = (struct purge_item){ .kind = kind, .text = text };
}

static void
read_text(struct purge_request *q, enum store_purge_kind kind, const char *member, const json_t *v)
{
    if (json_is_string(v) && json_string_length(v) > 0)
        add_item(q, kind, (struct slice){ json_string_value(v), json_string_length(v) });
    else
        fault(q, slice_of(member), "a text that is not empty, or a list of such, is wanted");
}

static void
read_flag(struct purge_request *q, const char *member, const json_t *v, bool *flag)
{
    if (json_is_boolean(v))
        *flag = json_is_true(v);
    else
        fault(q, slice_of(member), "true or false is wanted");
}

static void
read_wait(struct purge_request *q, const json_t *v)
{
    q->wait_ms = json_is_integer(v) ? json_integer_value(v) : -1;
    if (q->wait_ms < 0 || q->wait_ms > WAIT_MS_MAX)
        fault(q, SLICE("wait"), "milliseconds are wanted, 0 to 60000");
}

static void
read_member(struct purge_request *q, const char *member, const json_t *v)
{
    bool all = false;

    for (size_t i = 0; i < NELEM(kinds); i++) {
        if (strcmp(member, kinds[i].member) != 0)
            continue;
        if (!json_is_array(v) || json_array_size(v) == 0)
            read_text(q, kinds[i].kind, member, v);
        for (size_t k = 0; k < json_array_size(v); k++)
            read_text(q, kinds[i].kind, member, json_array_get(v, k));
        return;
    }
    if (strcmp(member, "soft") == 0) {
        read_flag(q, member, v, &q->soft);
    } else if (strcmp(member, "dry_run") == 0) {
        read_flag(q, member, v, &q->dry);
    } else if (strcmp(member, "erase") == 0) {
        read_flag(q, member, v, &q->erase);
    } else if (strcmp(member, "all") == 0) {
        read_flag(q, member, v, &all);
        if (all)
            add_item(q, STORE_PURGE_ALL, SLICE(""));
    } else if (strcmp(member, "wait") == 0) {
        read_wait(q, v);
    } else if (strcmp(member, "origin") == 0) {
        if (json_string_length(v) > 0)
            q->origin = (struct slice){ json_string_value(v), json_string_length(v) };
        else
            fault(q, slice_of(member), "a text, as https://host, is wanted");
    } else {
        fault(q, slice_of(member), "not understood; known are url, prefix, pattern, tags, groups, "
            "origin, route, all, soft, dry_run, erase and wait");
    }
}

/* The origin goes with the groups, wherever in the document it stands. */
static void
place_origin(struct purge_request *q)
{
    bool groups = false;

    for (size_t i = 0; i < q->n; i++)
        if (q->items[i].kind == STORE_PURGE_GROUP) {
            q->items[i].origin = q->origin;
            groups = true;
        }
    if (!groups && q->origin.n > 0)
        fault(q, SLICE("origin"), "it says of which origin groups are, and there are none");
}

static json_t *
read_document(struct admin_request *r, struct purge_request *q)
{
    json_error_t e;
    json_t *doc = json_loadb(r->body.p, r->body.n, JSON_REJECT_DUPLICATES, &e), *v;
    const char *member;

    if (doc == NULL) {
        admin_problem(r, 400, "the body is no JSON: line %d, column %d: %s", e.line, e.column,
            e.text);
    } else if (!json_is_object(doc)) {
        admin_problem(r, 400, "a JSON object is wanted, as {\"tags\": [\"a\"]}");
        json_decref(doc);
        doc = NULL;
    } else {
        json_object_foreach(doc, member, v)
            read_member(q, member, v);
        place_origin(q);
        if (q->erase && (q->soft || q->dry))
            fault(q, SLICE("erase"), "with soft or dry_run nothing goes that could be erased");
        if (q->n == 0 && q->faults.n == 0 && !q->failed)
            fault(q, SLICE(""),
                "nothing to purge: url, prefix, pattern, tags, groups, route or \"all\": true is "
                "wanted");
    }
    return doc;
}

/* Purges all items, or lists in q->faults every one that purge_run does not take; it names one at a
 * time, so the others are judged by dry runs without those. */
static void
run(struct admin_request *r, struct purge_request *q, struct purge_result *results)
{
    struct admin_process *p = &r->a->process;
    struct route_table *t = p->table(p->arg);
    struct purge_how how = { .soft = q->soft, .erase = q->erase,
        .dry = q->dry || q->faults.n > 0 };
    struct err e = { 0 };
    size_t bad = 0;

    while (q->n > 0 &&
        purge_run(p->store, t, q->items, q->n, how, results, &bad, &e) == -1) {
        if (bad >= q->n)                /* of none in particular */
            bad = 0;
        fault(q, q->items[bad].text, e.text);
        q->items[bad] = q->items[--q->n];
        how.dry = true;
    }
    route_table_unref(&t);
}

/* What stands behind "done", with that many of the items at most. */
static void
put_results(struct buf *b, const struct purge_request *q, const struct purge_result *results,
    size_t max)
{
    uint64_t objects = 0;

    for (size_t i = 0; i < q->n; i++)
        objects += results[i].objects;
    buf_printf(b, ", \"soft\": %s, \"dry_run\": %s, \"objects\": %llu, \"items\": [",
        q->soft ? "true" : "false", q->dry ? "true" : "false", (unsigned long long)objects);
    for (size_t i = 0; i < q->n && i < max; i++) {
        buf_printf(b, "%s\n  {\"%s\": ", i > 0 ? "," : "", item_name(q->items[i].kind));
        if (q->items[i].kind == STORE_PURGE_ALL)
            buf_addz(b, "true");
        else
            admin_json_text(b, q->items[i].text);
        buf_printf(b, ", \"exact\": %s, \"objects\": %llu}", results[i].exact ? "true" : "false",
            (unsigned long long)results[i].objects);
    }
    buf_addc(b, ']');
}

/* ---- the other instances --------------------------------------------------------------------- */

struct waiting {
    struct conn    *conn;               /* borrowed; it tells when it goes */
    struct bus_ask *ask;
    struct buf      results;            /* empty: how it stands is asked, later */
    bool            erase;
};

static void
waiting_free(struct waiting *w)
{
    buf_free(&w->results);
    free(w);
}

static void
on_gone(void *arg)
{
    struct waiting *w = arg;

    bus_forget(&w->ask);
    waiting_free(w);
}

static void
put_answer(struct admin_request *r, bool done, bool erase, struct buf *results, struct slice bus)
{
    r->status = results->n == 0 || done ? 200 : 202;
    buf_printf(&r->out, "{\"done\": %s%s%.*s", done ? "true" : "false",
        !erase ? "" : done ? ", \"erased\": true" : ", \"erased\": false",
        SLICE_ARG(buf_slice(results)));
    if (bus.n > 0) {
        buf_addz(&r->out, ", ");
        buf_adds(&r->out, bus);
    }
    buf_addz(&r->out, "}\n");
    r->out.failed |= results->failed;
}

static void
on_bus(void *arg, const struct bus_answer *a)
{
    struct waiting *w = arg;
    struct conn *c = w->conn;
    struct admin_request r = admin_later(c);

    if (w->results.n == 0 && (a->outcome == BUS_NO_ID || a->outcome == BUS_NO_MEMORY))
        admin_problem(&r, a->outcome == BUS_NO_ID ? 404 : 503, a->outcome == BUS_NO_ID ?
            "no purge has this id, as far as this instance knows" : "out of memory");
    else
        put_answer(&r, a->outcome == BUS_DONE, w->erase, &w->results, a->json);
    waiting_free(w);
    admin_reply(c, &r);
}

bool
purge_answer(struct admin_request *r, struct purged *p)
{
    struct bus *bus = r->a->process.bus;
    struct waiting *w = bus != NULL ? calloc(1, sizeof *w) : NULL;

    if (w != NULL && (w->ask = bus_wait(bus, r->a->loop, p->seq, p->wait_ms * 1000, on_bus, w)) !=
        NULL) {
        w->results = p->results;
        w->erase = p->erase;
        p->results = (struct buf){ 0 };
        w->conn = admin_wait(r, on_gone, w);
        return false;
    }
    free(w);
    put_answer(r, bus == NULL, p->erase, &p->results, bus == NULL ? SLICE("") :
        SLICE("\"why\": \"out of memory\""));
    buf_free(&p->results);
    return true;
}

void
handle_purge_look(struct admin_request *r)
{
    struct bus *bus = r->a->process.bus;
    struct waiting *w;

    if (bus == NULL) {
        admin_problem(r, 404, "a purge is done when it is answered: no Redis is configured, so "
            "there are no other instances");
        return;
    }
    w = calloc(1, sizeof *w);
    if (w == NULL || (w->ask = bus_look(bus, r->a->loop, admin_path_id(r), on_bus, w)) == NULL) {
        free(w);
        admin_problem(r, 503, "out of memory");
        return;
    }
    w->conn = admin_wait(r, on_gone, w);
}

/* ---- POST /purge ----------------------------------------------------------------------------- */

static void
answer(struct admin_request *r, const struct purge_request *q, const struct purge_result *results)
{
    struct purged p = { .seq = store_stamp(r->a->process.store), .erase = q->erase,
        .wait_ms = q->wait_ms >= 0 ? q->wait_ms : q->erase ? WAIT_ERASE_MS : WAIT_MS };

    if (!q->dry) {
        struct buf recent = { 0 };

        if (q->erase)
            buf_addz(&recent, ", \"erased\": true");
        put_results(&recent, q, results, RECENT_ITEMS);
        if (!recent.failed)
            recent_add(r->a, buf_slice(&recent));
        buf_free(&recent);
    }
    put_results(&p.results, q, results, SIZE_MAX);
    if (q->erase) {
        erase_begin(r, &p);
    } else if (q->dry) {
        put_answer(r, true, false, &p.results, SLICE(""));
        buf_free(&p.results);
    } else {
        (void)purge_answer(r, &p);
    }
}

void
handle_purge(struct admin_request *r)
{
    struct purge_request q = { .wait_ms = -1 };
    struct purge_result *results = NULL;
    json_t *doc = read_document(r, &q);

    if (doc == NULL)
        return;
    results = q.n > 0 && !q.failed ? calloc(q.n, sizeof *results) : NULL;
    if (q.failed || (q.n > 0 && results == NULL)) {
        admin_problem(r, 503, "out of memory; nothing was purged");
    } else {
        run(r, &q, results);
        if (q.faults.n == 0) {
            answer(r, &q, results);
        } else {
            admin_problem_open(r, 400, "not understood, so nothing was purged");
            buf_printf(&r->out, ", \"not_understood\": [%.*s]}\n", SLICE_ARG(buf_slice(&q.faults)));
            r->out.failed |= q.faults.failed;
        }
    }
    free(results);
    free(q.items);
    buf_free(&q.faults);
    json_decref(doc);
}
