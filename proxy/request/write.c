/*
 * WRITE: what the journal does with a write before anybody has it answered.
 *
 * Model    ROUTE asks for a plan. A write-back route acknowledges a POST, PUT, PATCH or DELETE
 *          first: always, or where the client prefers that (RFC 7240 4.1), or where the origin
 *          cannot be reached. An Idempotency-Key is kept on any route that says so. Then its
 *          content is collected (body.c), up to `write.max_body`; longer content is refused, or
 *          goes straight to the origin. Other unsafe methods go as with write-through: there is no
 *          rule by which they could be repeated or be seen while they are pending.
 *          In WRITE the journal is asked, one question after the other:
 *            PASS    may it go straight to the origin, or would it overtake?
 *            CLAIM   is its key new? Before it goes there.
 *            JUDGE   do its conditions fail by what its writer has pending already?
 *            ACCEPT  take it.
 *          What goes straight while earlier writes of its chain are pending would reach the origin
 *          before these. So it is accepted behind them, 202 being an answer that any client must
 *          understand (RFC 9110 15.3.3); what cannot be accepted is refused for now (503).
 *          An Idempotency-Key is never forgotten: what would go straight because the journal takes
 *          nothing is refused if it has one.
 *          Trailer fields of what is accepted are dropped, as RFC 9110 6.5.1 allows.
 *          A client that leaves while it is accepted changes nothing of that. One that leaves while
 *          its key is claimed waits for that (claim.c).
 */
#include <stdio.h>

#include "request/writing.h"

#define RETRY_BEHIND_S 1                /* what is pending goes as fast as the origin takes it */
#define RETRY_FULL_S   10               /* a full disk wants a person, a backlog time */

/* ---- what is asked, and what is heard -------------------------------------------------------- */

struct writing *
writing_of(struct request *r)
{
    if (r->writing == NULL)
        r->writing = pool_zalloc(r->pool, sizeof *r->writing);
    return r->writing;
}

void
writing_end(struct request *r)
{
    if (r->writing == NULL)
        return;
    write_forget(&r->writing->ask);
    buf_free(&r->writing->said);
}

static bool
keep(struct request *r, struct slice *s)
{
    if (s->p == NULL)
        return true;
    *s = pool_slice(r->pool, *s);
    return s->p != NULL;
}

void
write_heard(void *request, const struct write_answer *a)
{
    struct request *r = request;
    struct writing *w = r->writing;
    struct slice why = slice_of(a->why);

    w->ask = NULL;
    w->answered = true;
    w->answer = *a;
    w->lost = !keep(r, &why) || !keep(r, &w->answer.fields) || !keep(r, &w->answer.body) ||
        !keep(r, &w->answer.json);
    w->answer.why = why.n > 0 ? why.p : "";
    req_post(r);
}

void
write_viewed(void *request, const struct write_view *v)
{
    struct request *r = request;
    struct writing *w = r->writing;

    w->ask = NULL;
    w->answered = true;
    w->view = *v;
    w->lost = !keep(r, &w->view.fields) || !keep(r, &w->view.body);
    req_post(r);
}

bool
write_look_at_target(struct request *r, int64_t wait_ms)
{
    const struct conf_route *c = r->match.route->conf;

    r->writing->ask = write_look_pending(req_writes(), conn_loop(r->conn), r->host, r->path,
        r->query, hooks_who(r), c->write_pending_scope == WRITE_SCOPE_ALL,
        wait_ms, write_viewed, r);
    return r->writing->ask != NULL;
}

enum req_state
write_no_memory(struct request *r)
{
    COUNT(memory_failures);
    return req_problem_retry(r, 503, "out of memory", 1);
}

static bool
maybe_pending(const struct request *r)
{
    return write_maybe_pending(req_writes(), write_path_hash(r->host, r->path));
}

/* ---- ROUTE: the plan ------------------------------------------------------------------------- */

/* One String, as draft-ietf-httpapi-idempotency-key-header-07 2.1 has it. A text for the client
 * where it is none. */
static const char *
read_key(struct request *r, struct slice *key)
{
    static const char *const malformed = "Idempotency-Key is not a String of RFC 9651; put it "
        "into double quotes: Idempotency-Key: \"8e03978e-40d5-43dd\"";
    const struct http_field *f = http_find(r->head, HF_IDEMPOTENCY_KEY);
    struct buf scratch = { 0 };
    struct sf_item item;
    const char *bad = NULL;

    for (const struct http_field *g = f + 1; g < r->head->fields + r->head->nfields; g++)
        if (g->id == HF_IDEMPOTENCY_KEY)
            return "Idempotency-Key comes more than once; send it in one line";
    if (sf_check(SF_ITEM, f->value) == -1 || sf_item(f->value, &item, &scratch) == -1 ||
        item.type != SF_STRING)
        bad = malformed;
    else if (item.text.n == 0)
        bad = "Idempotency-Key is empty; send another one with each new request";
    else
        *key = pool_slice(r->pool, item.text);
    buf_free(&scratch);
    return bad;
}

/* Nothing can be before it, or be kept of it. */
static bool
needs_no_journal(const struct request *r, const struct writing *w)
{
    return w->plan == PLAN_BEHIND && w->key.p == NULL && (req_writes() == NULL ||
        (r->match.route->write_key == NULL && !maybe_pending(r)));
}

enum req_state
write_begin(struct request *r)
{
    enum write_plan plan = write_plan(r->match.route, r->head);
    bool keyed = http_has(r->head, HF_IDEMPOTENCY_KEY) && r->match.route->idempotency_ms > 0;
    struct writing *w;
    const char *bad;

    if ((plan == PLAN_KEYED && !keyed) || (r->head->flags & HTTP_UPGRADING) != 0)
        return REQ_FORWARD;
    if ((w = writing_of(r)) == NULL)
        return write_no_memory(r);
    w->async = http_prefers(r->head, SLICE("respond-async"));
    w->plan = plan;
    if (keyed && (bad = read_key(r, &w->key)) != NULL)
        return req_problem(r, 400, bad);
    if (keyed && w->key.p == NULL)
        return write_no_memory(r);
    if (needs_no_journal(r, w)) {
        r->writing = NULL;
        return REQ_FORWARD;
    }
    return REQ_BODY;
}

/* ---- BODY: its content is longer than the journal takes -------------------------------------- */

enum req_state
write_too_long(struct request *r)
{
    const struct conf_route *c = r->match.route->conf;
    struct writing *w = r->writing;
    char text[160];

    w->cut = true;
    if (w->key.p != NULL || (w->plan == PLAN_ACCEPT && c->write_too_large == WRITE_ELSE_REJECT)) {
        snprintf(text, sizeof text, "the content of a write may be %lld bytes long here "
            "(write.max_body)%s", (long long)c->write_max_body,
            w->key.p != NULL ? ", as it has an Idempotency-Key; leave that out, or send less" : "");
        return req_problem(r, 413, text);
    }
    w->plan = PLAN_STRAIGHT;
    return REQ_WRITE;
}

/* ---- what the journal gets to know ----------------------------------------------------------- */

struct expanded { struct buf text; unsigned n; };

static void
take_value(void *arg, struct slice text)
{
    struct expanded *x = arg;

    if (x->n++ == 0)
        buf_adds(&x->text, text);
}

/* Expands the route's template. false: it finds nothing, or several values, which are no key. */
static bool
find_order_key(struct request *r)
{
    const struct route *route = r->match.route;
    const struct key_params params = { route->params, r->match.values, route->nparams };
    struct key_facts facts = { .request = r->head, .path = &params, .host = r->host,
        .query = r->query };
    struct expanded x = { .n = 0 };

    if (route->write_key == NULL)
        return true;
    if (!r->writing->cut && r->content.n <= KEY_BODY_MAX && !sem_coded(r->head))
        facts.request_body = buf_slice(&r->content);
    if (key_template_expand(route->write_key, &facts, take_value, &x) != -1 && x.n == 1 &&
        !x.text.failed)
        r->writing->order_key = pool_slice(r->pool, buf_slice(&x.text));
    buf_free(&x.text);
    return r->writing->order_key.p != NULL;
}

static struct write_request
describe(const struct request *r, struct slice fields)
{
    const struct writing *w = r->writing;

    return (struct write_request){
        .route = r->match.route, .method = r->head->method, .method_name = r->head->method_name,
        .https = r->https, .host = r->host, .path = r->path, .query = r->query,
        .target = r->target, .fields = fields, .type = http_value(r->head, HF_CONTENT_TYPE),
        .has_body = r->head->framing != HTTP_NO_BODY,
        .body = { r->content.p != NULL ? r->content.p : "", r->content.n },
        .order_key = w->order_key, .idempotency_key = w->key,
        .who = hooks_who(r), .lane = write_lane(r->head),
    };
}

/* ---- WRITE: one question after the other ----------------------------------------------------- */

static enum req_state
ask(struct request *r, enum write_step step, struct write_ask *a)
{
    r->writing->step = step;
    r->writing->ask = a;
    return a != NULL ? REQ_WAIT : write_no_memory(r);
}

static enum req_state
forward(struct request *r)
{
    r->outcome = OUTCOME_WRITE;
    return REQ_FORWARD;
}

static enum req_state
claim(struct request *r)
{
    const struct write_request q = describe(r, SLICE(""));

    if (r->writing->key.p == NULL)
        return forward(r);
    return ask(r, STEP_CLAIM, write_claim(req_writes(), conn_loop(r->conn), &q, write_heard, r));
}

static enum req_state
pass(struct request *r)
{
    const struct write_request q = describe(r, SLICE(""));

    if (r->match.route->write_key == NULL && !maybe_pending(r))
        return claim(r);
    return ask(r, STEP_PASS, write_may_pass(req_writes(), conn_loop(r->conn), &q, write_heard, r));
}

static enum req_state
take(struct request *r)
{
    struct buf fields = { 0 };
    struct write_ask *a = NULL;
    struct write_request q;

    if (r->host.n == 0)         /* HTTP/1.0 may say none: its URL could not be kept */
        return req_problem(r, 400, "a write that is acknowledged before the origin has it needs a "
            "Host field; send one");
    forward_fields(r, &fields);
    q = describe(r, buf_slice(&fields));
    if (!fields.failed)
        a = write_accept(req_writes(), conn_loop(r->conn), &q, write_heard, r);
    buf_free(&fields);
    return ask(r, STEP_ACCEPT, a);
}

static enum req_state
judge(struct request *r)
{
    if ((!http_has(r->head, HF_IF_MATCH) && !http_has(r->head, HF_IF_NONE_MATCH)) ||
        !maybe_pending(r))
        return take(r);
    r->writing->step = STEP_JUDGE;
    return write_look_at_target(r, 0) ? REQ_WAIT : write_no_memory(r);
}

static enum req_state
full(struct request *r, const char *why)
{
    struct writing *w = r->writing;
    char text[400];

    if (w->key.p == NULL && w->plan != PLAN_STRAIGHT &&
        r->match.route->conf->write_full == WRITE_ELSE_PASS) {
        w->plan = PLAN_STRAIGHT;
        return req_writes() != NULL ? pass(r) : forward(r);
    }
    snprintf(text, sizeof text, "the journal takes no %s now: %s; try again later",
        w->plan == PLAN_KEYED ? "Idempotency-Key" : "write", why);
    return req_problem_retry(r, 503, text, RETRY_FULL_S);
}

static enum req_state
no_order_key(struct request *r)
{
    char text[400];

    snprintf(text, sizeof text, "the key by which writes are kept in order (write.key: %s) has no "
        "one value in this request; send what it names", r->match.route->conf->write_key);
    return req_problem(r, 400, text);
}

static enum req_state
begin(struct request *r)
{
    struct writing *w = r->writing;

    if (req_writes() == NULL)
        return w->key.p == NULL && w->plan != PLAN_ACCEPT ? forward(r) :
            full(r, "it is not open; the next start opens it");
    if (w->plan == PLAN_KEYED)
        return claim(r);
    if (!find_order_key(r) && !w->cut &&
        r->match.route->conf->write_key_missing == WRITE_KEY_REJECT)
        return no_order_key(r);
    return w->plan == PLAN_ACCEPT ? judge(r) : pass(r);
}

/* ---- the answers ----------------------------------------------------------------------------- */

/* Of pending state that decides. Where it does not, the origin judges at the delivery. */
static enum req_state
judged(struct request *r)
{
    const struct write_view *v = &r->writing->view;
    char etag[WRITE_ETAG_MAX], text[200];
    struct slice now = { NULL, 0 };

    if (v->seen != WRITE_SEEN_CONTENT && v->seen != WRITE_SEEN_GONE)
        return take(r);
    if (v->seen == WRITE_SEEN_CONTENT)
        now = (struct slice){ etag, write_etag(etag, v->id) };
    if (sem_matches(r->head, now))
        return take(r);
    snprintf(text, sizeof text, "%s does not hold: a write to this target is pending, and leaves "
        "%s; read it again", http_has(r->head, HF_IF_MATCH) ? "If-Match" : "If-None-Match",
        now.p != NULL ? "another representation" : "nothing there");
    return req_problem(r, 412, text);
}

static enum req_state
refused(struct request *r)
{
    const struct write_answer *a = &r->writing->answer;
    char text[400];

    switch (a->outcome) {
    case WRITE_REPEATED:
        COUNT(write_repeated);
        return acknowledge_again(r);
    case WRITE_MISMATCH:
        return req_problem(r, 422, "this Idempotency-Key was sent before with another request "
            "(method, target, Content-Type or content); use a new key for a new request");
    case WRITE_BUSY:
        snprintf(text, sizeof text, "a request with this Idempotency-Key came before%s%s; its "
            "answer is not known yet, or never will be", a->why[0] != '\0' ? ": " : "", a->why);
        return req_problem(r, 409, text);
    case WRITE_KEYS_FULL:
        return req_problem_retry(r, 503, "there is no room for another Idempotency-Key "
            "(journal.idempotency_size), and none is forgotten before its time; try again later",
            RETRY_FULL_S);
    default:
        return full(r, a->why[0] != '\0' ? a->why : "it is full");
    }
}

static enum req_state
heard(struct request *r)
{
    struct writing *w = r->writing;

    switch (w->step) {
    case STEP_LOOK:
        return acknowledge_look(r);
    case STEP_JUDGE:
        return judged(r);
    case STEP_PASS:
        if (w->answer.outcome == WRITE_OK)
            return claim(r);
        if (w->plan != PLAN_STRAIGHT)
            return judge(r);
        return req_problem_retry(r, 503, "earlier writes of its order are still on their way to "
            "the origin, and this one cannot wait behind them; try again", RETRY_BEHIND_S);
    case STEP_CLAIM:
        if (w->answer.outcome != WRITE_OK)
            return refused(r);
        memcpy(w->claim, w->answer.id, sizeof w->claim);
        return forward(r);
    default:
        if (w->answer.outcome != WRITE_OK)
            return refused(r);
        hooks_accepted(r, w->answer.id);
        return acknowledge(r);
    }
}

enum req_state
do_write(struct request *r)
{
    struct writing *w = r->writing;

    if (w->ask != NULL)
        return REQ_WAIT;
    if (!w->answered)
        return w->step == STEP_ACCEPT ? judge(r) : begin(r);
    w->answered = false;
    return w->lost ? write_no_memory(r) : heard(r);
}

/* ---- FORWARD: the origin did not answer ------------------------------------------------------ */

bool
write_instead(struct request *r, const struct exchange_fault *f)
{
    struct writing *w = r->writing;
    bool free = !f->reached || http_method_idempotent(r->head->method);

    if (!free)
        claim_lost(r);
    if (w == NULL || !free)
        return false;
    claim_release(r);
    if (w->plan != PLAN_DOWN || w->cut || r->conn == NULL || req_writes() == NULL)
        return false;
    w->step = STEP_ACCEPT;
    return true;
}
