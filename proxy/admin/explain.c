/*
 * GET /explain?url=URL[&method=M][&header=Name:value...][&trusted=1]: what such a request would
 * meet, and why. POST /explain with {"content": TEXT} says its content too.
 *
 * Model    the request is parsed by the parser that clients meet, and each decision made by the
 *          code that makes it for them, with a trace of the clauses that it weighed (semantics'
 *          *_weigh). clauses.def says of each clause what it asks, its source and what to change.
 *          trusted: as from a peer that the listener trusts, whose X-Forwarded-* count.
 * Threads  the admin loop's.
 * Not here what plugins say (explain_plugins.c), what is stored (explain_stored.c), what a write
 *          purges (explain_write.c); the page that `weir explain` makes of it (client_explain.c).
 *          README describes the members.
 */
#include "admin/explain.h"

#include <jansson.h>

#define FIELDS_MAX 64
#define ROUTES_MAX 20

/* ---- clauses --------------------------------------------------------------------------------- */

static const struct clause clauses[] = {
#define CLAUSE(word, source, asks, remedy, change) \
    { word, source, asks, CLAUSE_##remedy, change },
#include "admin/clauses.def"
#undef CLAUSE
};

const struct clause *
clause_of(const char *word)
{
    for (size_t i = 0; word != NULL && i < NELEM(clauses); i++)
        if (strcmp(clauses[i].word, word) == 0)
            return &clauses[i];
    return NULL;
}

void
explain_member(struct buf *b, const char *name, const char *value)
{
    buf_printf(b, "\"%s\": ", name);
    if (value != NULL)
        admin_json_text(b, slice_of(value));
    else
        buf_addz(b, "null");
}

static void
put_seconds(struct buf *b, const char *name, int64_t ms)
{
    if (ms >= 0)
        buf_printf(b, ", \"%s\": %.3f", name, (double)ms / 1e3);
}

static void
put_step(struct buf *b, const struct sem_step *step)
{
    static const char *const outcomes[] = { [SEM_ALLOWS] = "allows", [SEM_FORBIDS] = "forbids",
        [SEM_GIVES] = "gives", [SEM_SILENT] = "silent" };
    const struct clause *c = clause_of(step->word);

    buf_addz(b, "\n    {");
    explain_member(b, "clause", step->word);
    buf_addz(b, ", ");
    explain_member(b, "outcome", outcomes[step->outcome]);
    buf_addz(b, ", ");
    explain_member(b, "asks", c != NULL ? c->asks : NULL);
    buf_addz(b, ", ");
    explain_member(b, "source", c != NULL && c->source[0] != '\0' ? c->source : NULL);
    put_seconds(b, "is_s", step->is_ms);
    put_seconds(b, "limit_s", step->limit_ms);
    buf_addc(b, '}');
}

void
explain_clauses(struct explained *x, const char *name, const struct sem_trace *t, bool advise)
{
    struct buf *b = &x->r->out;

    buf_printf(b, "\"%s\": [", name);
    for (size_t i = 0; i < t->n; i++) {
        if (i > 0)
            buf_addc(b, ',');
        put_step(b, &t->at[i]);
        if (advise && t->at[i].outcome == SEM_FORBIDS)
            explain_advise(x, t->at[i].word);
    }
    buf_addc(b, ']');
}

void
explain_advise(struct explained *x, const char *word)
{
    const struct clause *c = clause_of(word);

    for (size_t i = 0; i < x->nadvice; i++)
        if (x->advice[i] == c)
            return;
    if (c != NULL && c->change[0] != '\0' && x->nadvice < ADVICE_MAX)
        x->advice[x->nadvice++] = c;
}

/* "; or `ttl` on route R (weir.yaml:12)" */
static void
put_remedy(struct buf *b, const struct explained *x, const struct clause *c)
{
    const char *option = c->remedy == CLAUSE_FORCE ? "force_ttl" : "ttl";

    if (c->remedy == CLAUSE_OWN || x->route == NULL)
        return;
    buf_printf(b, "; or set `%s` on route %s (%s:%d)", option, x->route->name,
        x->file != NULL ? x->file : "line", x->route->conf->where.line);
    if (c->remedy == CLAUSE_FORCE)
        buf_addz(b, ", which overrides the origin for all clients");
}

void
explain_advice(struct explained *x)
{
    struct buf *b = &x->r->out, text = { 0 };

    buf_addz(b, ",\n \"advice\": [");
    for (size_t i = 0; i < x->nadvice; i++) {
        const struct clause *c = x->advice[i];

        text.n = 0;
        buf_addz(&text, c->change);
        put_remedy(&text, x, c);
        buf_addz(b, i > 0 ? ",\n  {" : "\n  {");
        explain_member(b, "clause", c->word);
        buf_addz(b, ", \"text\": ");
        admin_json_text(b, buf_slice(&text));
        buf_addc(b, '}');
    }
    buf_addc(b, ']');
    b->failed |= text.failed;
    buf_free(&text);
}

/* ---- the request that is asked about --------------------------------------------------------- */

/* What the query says, into url, method, fields and x. -1: something else is there. */
static int
read_query(struct explained *x, struct buf *url, struct buf *method, struct buf *fields)
{
    struct slice rest = x->r->head->query, part, name;
    int rc = 0;

    while (rc == 0 && slice_cut(&rest, '&', &part)) {
        struct slice value = part;

        slice_cut(&value, '=', &name);
        if (slice_eq(name, SLICE("url"))) {
            url->n = 0;
            rc = admin_query_value(value, url);
        } else if (slice_eq(name, SLICE("method"))) {
            method->n = 0;
            rc = admin_query_value(value, method);
        } else if (slice_eq(name, SLICE("header"))) {
            rc = admin_query_value(value, fields);
            buf_addz(fields, "\r\n");
        } else if (slice_eq(name, SLICE("trusted")) && slice_eq(value, SLICE("1"))) {
            x->trusted = true;
        } else {
            rc = -1;
        }
    }
    return rc;
}

/* The request as it would come over the wire; -1 with a problem. */
static int
put_request(struct explained *x, struct buf *url, struct buf *wire, struct http_uri *u)
{
    struct buf fields = { 0 }, method = { 0 };
    int rc = read_query(x, url, &method, &fields);

    if (method.n == 0)
        buf_addz(&method, "GET");
    if (rc != 0 || url->n == 0 || http_uri_parse(buf_slice(url), u) != 0) {
        admin_problem(x->r, 400, "/explain?url=URL[&method=M][&header=Name:value][&trusted=1] is "
            "wanted, URL absolute and percent-encoded");
        rc = -1;
    } else {
        bool named = fields.n >= 5 && strncasecmp(fields.p, "host:", 5) == 0;

        buf_adds(wire, buf_slice(&method));
        buf_printf(wire, " %.*s HTTP/1.1\r\n", SLICE_ARG(buf_slice(url)));
        if (!named)
            buf_printf(wire, "Host: %.*s\r\n", SLICE_ARG(u->host));
        buf_adds(wire, buf_slice(&fields));
        if (x->content.n > 0)
            buf_printf(wire, "Content-Length: %zu\r\n", x->content.n);
        buf_addz(wire, "\r\n");
    }
    wire->failed |= fields.failed | method.failed;
    buf_free(&fields);
    buf_free(&method);
    return rc;
}

/* ---- the route ------------------------------------------------------------------------------- */

static void
put_route(struct buf *b, const struct route *route)
{
    static const char *const policies[] = { [POLICY_CACHE_ASIDE] = "cache-aside",
        [POLICY_PASS] = "pass",
        [POLICY_WRITE_THROUGH] = "write-through",
        [POLICY_WRITE_BACK] = "write-back" };
    const struct conf_route *c = route->conf;

    buf_addz(b, "{");
    explain_member(b, "name", route->name);
    buf_addz(b, ", ");
    explain_member(b, "path", c->path);
    buf_addz(b, ", ");
    explain_member(b, "policy", policies[c->policy]);
    buf_addz(b, ", ");
    explain_member(b, "origin", c->to != NULL ? c->to->id : c->origin);
    buf_printf(b, ", \"line\": %d}", c->where.line);
}

struct considered { struct explained *x; const struct route *seen[ROUTES_MAX]; size_t n; };

static void
each_route(void *arg, const struct route *route, enum route_near near)
{
    static const char *const words[] = { [ROUTE_TAKES] = "behind", [ROUTE_NEAR_METHOD] = "method",
        [ROUTE_NEAR_FIELDS] = "fields", [ROUTE_NEAR_HOST] = "host" };
    struct considered *c = arg;
    struct buf *b = &c->x->r->out;

    for (size_t i = 0; i < c->n; i++)
        if (c->seen[i] == route)
            return;
    if (c->n == ROUTES_MAX)
        return;
    buf_addz(b, c->n > 0 ? ",\n  {" : "\n  {");
    c->seen[c->n++] = route;
    explain_member(b, "name", route->name);
    buf_addz(b, ", ");
    explain_member(b, "outcome", route == c->x->route ? "taken" : words[near]);
    buf_printf(b, ", \"line\": %d}", route->conf->where.line);
}

/* ---- the key --------------------------------------------------------------------------------- */

static void
each_part(void *arg, const char *name, struct slice value)
{
    struct buf *b = &((struct explained *)arg)->r->out;

    buf_addz(b, b->p[b->n - 1] == '[' ? "{" : ", {");
    explain_member(b, "part", name);
    buf_addz(b, ", \"value\": ");
    if (value.p != NULL)
        admin_json_text(b, value);
    else
        buf_addz(b, "null");
    buf_addc(b, '}');
}

int
explain_key(const struct explained *x, struct buf *b, struct key *k)
{
    struct slice host = x->host;

    if (key_make(x->route->recipe, x->head, x->https, host, x->path, x->query, b, k) == -1)
        return -1;
    if (!x->route->conf->key_host)
        host.p = NULL;
    return x->trusted ? key_add_forwarded(k, x->head, x->https, host, b) : 0;
}

static int
add_content(const struct explained *x, struct buf *b, struct key *k)
{
    return !x->request.content ? 0 : key_add_content(k, x->head, x->content,
        (x->request.cc.flags & CC_NO_TRANSFORM) != 0, b);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* May the cache be asked? With content, for as much of it as a key is made of. */
static bool
asks(struct explained *x, const char **why, struct sem_trace *t)
{
    bool may = route_asks(x->route, x->head, x->content.n > 0, &x->request, why, t) == ROUTE_ASKS;
    bool fits = x->content.n <= (uint64_t)x->route->conf->key_max_content;

    if (x->plugins != NULL && x->plugins->authorized)
        x->request.authorization = false;
    if (may && x->plugins != NULL && x->plugins->pass) {
        t->at[t->n++] = (struct sem_step){ "plugin", SEM_FORBIDS, -1, -1 };
        *why = "plugin";
        return false;
    }
    if (!may || !x->request.content)
        return may;
    t->at[t->n++] = (struct sem_step){ "content-size", fits ? SEM_ALLOWS : SEM_FORBIDS, -1, -1 };
    *why = "content-size";
    return fits;
}

static bool
put_judged(struct explained *x)
{
    struct buf *b = &x->r->out;
    struct sem_trace t = { 0 };
    const char *why = NULL;
    bool may = asks(x, &why, &t);

    buf_printf(b, ",\n \"request\": {\"cacheable\": %s, ", may ? "true" : "false");
    explain_member(b, "why", may ? NULL : why);
    buf_addz(b, ", \"method\": ");
    admin_json_text(b, x->head->method_name);
    buf_printf(b, ", \"content_bytes\": %zu, \"trusted\": %s,\n  ", x->content.n,
        x->trusted ? "true" : "false");
    explain_clauses(x, "clauses", &t, true);
    buf_addc(b, '}');
    return may;
}

static bool
is_write(const struct explained *x)
{
    return !http_method_safe(x->head->method) && !x->request.promised;
}

/* Of what goes forward by itself, a HEAD is sent as it stands. */
static const char *
alone(struct explained *x)
{
    if (x->head->method != HTTP_HEAD)
        return "alone";
    explain_advise(x, "head");
    return "pass";
}

static const char *
verdict_of(struct explained *x, bool may)
{
    bool only_stored = (x->request.cc.flags & CC_ONLY_IF_CACHED) != 0;

    if (!may)
        return is_write(x) ? write_plan(x->route, x->head) == PLAN_ACCEPT ? "accept" : "write" :
            only_stored ? "only-if-cached" : "pass";
    if (x->answer == STORE_HIT)
        switch (x->use) {
        case SEM_FRESH:            return "hit";
        case SEM_STALE:            return "stale";
        case SEM_STALE_REVALIDATE: return "stale-while-revalidate";
        case SEM_PART:             return "part";
        default:                   break;
        }
    if (only_stored)
        return "only-if-cached";
    if (x->in_blocks)
        return "blocks";
    if (x->answer == STORE_PASS || (x->answer == STORE_HIT && x->use == SEM_CANNOT))
        return alone(x);
    return x->answer == STORE_HIT ? "validate" : "miss";
}

void
explain_verdict(struct explained *x, const char *word, const char *text)
{
    struct buf *b = &x->r->out;

    buf_addz(b, ",\n \"verdict\": {");
    explain_member(b, "outcome", word);
    buf_addz(b, ", ");
    explain_member(b, "text", text);
    buf_addc(b, '}');
}

static void
put_verdict(struct explained *x, const char *word)
{
    static const struct { const char *word, *text; } texts[] = {
        { "none", "no route takes it: 404" },
        { "pass", "goes to the origin and comes from there, for this client alone" },
        { "hit", "answered from the cache" },
        { "stale", "answered from the cache, stale, as the client allows" },
        { "stale-while-revalidate", "answered from the cache, stale, and validated behind it" },
        { "part", "what is stored is a part: a range in it is answered, else the rest asked for" },
        { "validate", "the origin is asked whether what is stored still holds" },
        { "alone", "goes to the origin beside other requests; stored if the answer allows" },
        { "blocks", "made of blocks: those that are stored and fresh, the others are asked for" },
        { "write", "goes to the origin; when that succeeds, what it changed is purged" },
        { "accept", "acknowledged when it is durable in the journal; delivered afterwards" },
        { "only-if-cached", "the client wants no other answer than a stored one: 504" },
        { "miss", "goes to the origin, once for all who ask; stored if the answer allows" },
    };

    for (size_t i = 0; i < NELEM(texts); i++)
        if (strcmp(texts[i].word, word) == 0)
            explain_verdict(x, word, texts[i].text);
}

/* host: normalised, with its port; matching wants it without. */
static struct slice
without_port(struct slice host)
{
    size_t n = host.n;

    while (n > 0 && host.p[n - 1] >= '0' && host.p[n - 1] <= '9')
        n--;
    return n > 0 && n < host.n && host.p[n - 1] == ':' ? (struct slice){ host.p, n - 1 } : host;
}

static void
put_key_and_stored(struct explained *x, const struct route_table *t)
{
    struct buf *b = &x->r->out, bytes = { 0 };
    struct key k;
    bool may;

    if (!explain_plugins(x, &bytes, &k)) {
        buf_free(&bytes);
        return;
    }
    may = put_judged(x);
    if (is_write(x))
        explain_write(x, t);
    if (add_content(x, &bytes, &k) == 0) {
        buf_addz(b, ",\n \"key\": ");
        admin_json_text(b, k.bytes);
        buf_addz(b, ", \"key_parts\": [");
        key_parts_each(x->route->recipe, &k, each_part, x);
        buf_addz(b, "],\n ");
        explain_stored(x, &k);
        put_verdict(x, verdict_of(x, may));
    }
    b->failed |= bytes.failed;
    buf_free(&bytes);
}

static void
explain(struct explained *x, const struct route_table *t)
{
    struct buf host = { 0 }, target = { 0 }, *b = &x->r->out;
    struct considered c = { .x = x };

    http_host_normalise(&host, x->head->host, x->https);
    http_uri_normalise(&target, x->head->path, x->head->query);
    x->host = buf_slice(&host);
    x->path = buf_slice(&target);
    if (x->path.n > 0 && memchr(x->path.p, '?', x->path.n) != NULL) {
        x->query = x->path;
        slice_cut(&x->query, '?', &x->path);
    }
    x->route = route_match(t, without_port(x->host), x->path, x->head, &x->match);
    buf_addz(b, ",\n \"route\": ");
    if (x->route != NULL)
        put_route(b, x->route);
    else
        buf_addz(b, "null");
    buf_addz(b, ",\n \"routes\": [");
    route_consider(t, without_port(x->host), x->path, x->head, each_route, &c);
    buf_addc(b, ']');
    if (x->route != NULL)
        put_key_and_stored(x, t);
    else
        put_verdict(x, "none");
    explain_advice(x);
    plugin_end(x->plugins);
    pool_free(&x->pool);
    b->failed |= host.failed | target.failed;
    buf_free(&host);
    buf_free(&target);
}

/* The document of a POST: the content of the request that is asked about. NULL with a problem. */
static json_t *
read_document(struct explained *x)
{
    json_error_t e;
    json_t *doc = json_loadb(x->r->body.p, x->r->body.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL,
        &e);
    const json_t *content = json_object_get(doc, "content");

    if (json_is_string(content) && json_object_size(doc) == 1) {
        x->content = (struct slice){ json_string_value(content), json_string_length(content) };
        return doc;
    }
    admin_problem(x->r, 400, "a JSON object is wanted, as {\"content\": \"a text\"}%s%s",
        doc == NULL ? ": " : "", doc == NULL ? e.text : "");
    json_decref(doc);
    return NULL;
}

static void
answer(struct explained *x, const struct http_uri *u, struct slice url)
{
    struct route_table *t = x->r->a->process.table(x->r->a->process.arg);
    const struct http_head *h = x->head;

    sem_request_read(h, &x->request);
    x->file = route_table_conf(t)->file;
    x->https = slice_ieq(u->scheme, SLICE("https")) || (x->trusted &&
        slice_ieq(http_value(h, HF_X_FORWARDED_PROTO), SLICE("https")));
    buf_addz(&x->r->out, "{\"url\": ");
    admin_json_text(&x->r->out, url);
    explain(x, t);
    buf_addz(&x->r->out, "}\n");
    route_table_unref(&t);
}

void
handle_explain(struct admin_request *r)
{
    static const struct http_limits limits = { .head = 32768, .uri = 16384, .fields = FIELDS_MAX };
    struct http_field fields[FIELDS_MAX];
    struct http_head h = { .cap = FIELDS_MAX, .fields = fields };
    struct explained x = { .r = r, .head = &h, .now_ms = wall_ms() };
    struct buf url = { 0 }, wire = { 0 };
    struct http_fault fault = { 0 };
    json_t *doc = NULL;
    struct http_uri u;
    ssize_t n;

    if (r->head->method == HTTP_POST && (doc = read_document(&x)) == NULL)
        return;
    if (put_request(&x, &url, &wire, &u) == 0) {
        n = wire.failed ? 0 : http_parse_request(wire.p, wire.n, &limits, &h, &fault);
        if (n != (ssize_t)wire.n)
            admin_problem(r, 400, "such a request would be refused: %s",
                fault.why != NULL ? fault.why : "its head ends early");
        else
            answer(&x, &u, buf_slice(&url));
    }
    json_decref(doc);
    buf_free(&url);
    buf_free(&wire);
}
