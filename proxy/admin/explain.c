/*
 * GET /explain?url=URL[&header=Name:value...]: what a GET for this URL would meet.
 *
 *   {"url": "http://h/p",
 *    "route": {"name", "path", "policy", "origin", "where": "line 12"} or null,
 *    "request": {"cacheable": true, "why": null},
 *    "key": "http://h/p", "answer": "hit" | "vary-miss" | "uri-miss" | "pass",
 *    "stored": [{"selected": true, "status": 200, "vary": "accept", "age_s": 1.5, "lifetime_s": 60,
 *                "ttl_s": 58.5, "fresh": true, "use": "fresh", "why": null, "soft_purged": false,
 *                "freshness_from": "origin", "body_bytes": 120,
 *                "fields": {"Cache-Control": "max-age=60", ...}}]}
 *
 * "use" is what sem_use says of this request and that variant: fresh, stale, stale-revalidate,
 * part, validate, cannot. The request is parsed by the parser that clients meet.
 */
#include "admin/inside.h"

#define FIELDS_MAX 64

struct explained {
    struct admin_request *r;
    struct sem_request    request;
    const struct object  *selected;     /* in the read section */
    int64_t               now_ms;
    size_t                n;
};

/* "a+b%20c" of a query into out. */
static int
decode(struct slice s, struct buf *out)
{
    struct buf spaced = { 0 };
    int rc;

    buf_adds(&spaced, s);
    for (size_t i = 0; i < spaced.n; i++)
        if (spaced.p[i] == '+')
            spaced.p[i] = ' ';
    rc = spaced.failed ? -1 : http_uri_decode(out, buf_slice(&spaced));
    buf_free(&spaced);
    return rc;
}

/* The request that is asked about, as it would come over the wire; -1 with a problem. */
static int
put_request(struct admin_request *r, struct buf *url, struct buf *wire, struct http_uri *u)
{
    struct slice rest = r->head->query, part, name;
    struct buf fields = { 0 };
    int rc = -1;

    while (slice_cut(&rest, '&', &part)) {
        struct slice value = part;

        slice_cut(&value, '=', &name);
        if (slice_eq(name, SLICE("url"))) {
            url->n = 0;
            rc = decode(value, url);
        } else if (slice_eq(name, SLICE("header"))) {
            if (decode(value, &fields) != 0)
                rc = -1;
            buf_addz(&fields, "\r\n");
        } else {
            rc = -1;
        }
    }
    if (rc != 0 || url->n == 0 || http_uri_parse(buf_slice(url), u) != 0) {
        admin_problem(r, 400,
            "/explain?url=URL[&header=Name:value] is wanted, URL absolute and percent-encoded");
        rc = -1;
    } else {
        bool named = fields.n >= 5 && strncasecmp(fields.p, "host:", 5) == 0;

        buf_printf(wire, "GET %.*s HTTP/1.1\r\n", SLICE_ARG(buf_slice(url)));
        if (!named)
            buf_printf(wire, "Host: %.*s\r\n", SLICE_ARG(u->host));
        buf_adds(wire, buf_slice(&fields));
        buf_addz(wire, "\r\n");
    }
    buf_free(&fields);
    return rc;
}

static void
put_member(struct buf *b, const char *name, const char *value)
{
    buf_printf(b, "\"%s\": ", name);
    if (value != NULL)
        admin_json_text(b, slice_of(value));
    else
        buf_addz(b, "null");
}

/* ---- what is stored -------------------------------------------------------------------------- */

static void
put_stored_fields(struct buf *b, const struct object *o)
{
    static const enum http_id shown[] = { HF_CACHE_CONTROL, HF_EXPIRES, HF_DATE, HF_AGE, HF_ETAG,
        HF_LAST_MODIFIED, HF_VARY, HF_NO_VARY_SEARCH, HF_CONTENT_TYPE };
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .cap = HTTP_FIELDS_MAX, .fields = fields };
    const char *comma = "";

    buf_addz(b, ", \"fields\": {");
    if (http_parse_fields(o->head->bytes + o->head->status_n, o->head->n - o->head->status_n,
        &h) == 0)
        for (size_t i = 0; i < NELEM(shown); i++) {
            if (!http_has(&h, shown[i]))
                continue;
            buf_addz(b, comma);
            admin_json_text(b, http_name(shown[i]));
            buf_addz(b, ": ");
            admin_json_text(b, http_value(&h, shown[i]));
            comma = ", ";
        }
    buf_addc(b, '}');
}

static void
each_object(void *arg, const struct object *o, struct slice vary, bool soft)
{
    static const char *const uses[] = { "fresh", "stale", "stale-revalidate", "part",
        "validate", "cannot" };
    struct explained *x = arg;
    struct buf *b = &x->r->out;
    const struct sem_meta *m = &o->meta;
    int64_t age = sem_age_ms(m, x->now_ms);
    const char *why = NULL;
    enum sem_use use = sem_use(&x->request, m, x->now_ms, soft, &why);

    buf_printf(b, "%s\n  {\"selected\": %s, \"status\": %u, \"vary\": ", x->n++ > 0 ? "," : "",
        o == x->selected ? "true" : "false", m->status);
    admin_json_text(b, vary);
    buf_printf(b, ", \"age_s\": %.3f, \"lifetime_s\": %.3f, \"ttl_s\": %.3f, \"fresh\": %s, ",
        (double)age / 1e3, (double)m->lifetime_ms / 1e3, (double)(m->lifetime_ms - age) / 1e3,
        m->lifetime_ms > age && !soft ? "true" : "false");
    put_member(b, "use", uses[use]);
    buf_addz(b, ", ");
    put_member(b, "why", use == SEM_FRESH ? NULL : why);
    buf_printf(b, ", \"soft_purged\": %s, \"body_bytes\": %llu, ", soft ? "true" : "false",
        (unsigned long long)body_size(o->body));
    put_member(b, "freshness_from", m->flags & META_FORCED ? "force_ttl" :
        m->flags & META_EXPLICIT ? "origin" : m->flags & META_HEURISTIC ? "heuristic" : "route");
    put_stored_fields(b, o);
    buf_addc(b, '}');
}

static void
put_stored(struct explained *x, const struct key *k, const struct http_head *h)
{
    static const char *const answers[] = { [STORE_MISS] = "uri-miss",
        [STORE_VARY_MISS] = "vary-miss", [STORE_HIT] = "hit", [STORE_PASS] = "pass" };
    struct store *s = x->r->a->process.store;
    struct object *o = NULL;
    struct buf b = { 0 };
    struct key equal;
    enum store_answer answer;
    bool soft = false;

    rcu_begin();
    answer = store_get(s, k, h, x->now_ms, &o, &soft);
    if ((answer == STORE_MISS || answer == STORE_VARY_MISS) &&
        store_search(s, k, h, x->now_ms, &b, &equal, &o, &soft) == STORE_HIT) {
        answer = STORE_HIT;
        k = &equal;
    }
    x->selected = answer == STORE_HIT ? o : NULL;
    put_member(&x->r->out, "answer", answers[answer]);
    buf_addz(&x->r->out, ", \"stored\": [");
    store_each(s, k, each_object, x);
    rcu_end();
    buf_free(&b);
    buf_addc(&x->r->out, ']');
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
    put_member(b, "name", route->name);
    buf_addz(b, ", ");
    put_member(b, "path", c->path);
    buf_addz(b, ", ");
    put_member(b, "policy", policies[c->policy]);
    buf_addz(b, ", ");
    put_member(b, "origin", c->to != NULL ? c->to->id : c->origin);
    buf_printf(b, ", \"line\": %d}", c->where.line);
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
explain(struct explained *x, const struct route_table *t, const struct http_head *h, bool https)
{
    struct buf host = { 0 }, target = { 0 }, key = { 0 };
    struct slice path, query = { NULL, 0 };
    struct buf *b = &x->r->out;
    struct route_match m;
    const struct route *route;
    const char *why = NULL;
    struct key k;

    http_host_normalise(&host, h->host, https);
    http_uri_normalise(&target, h->path, h->query);
    path = buf_slice(&target);
    if (memchr(path.p, '?', path.n) != NULL) {
        query = path;
        slice_cut(&query, '?', &path);
    }
    route = route_match(t, without_port(buf_slice(&host)), path, h, &m);
    buf_addz(b, "\"route\": ");
    if (route != NULL)
        put_route(b, route);
    else
        buf_addz(b, "null");
    if (route != NULL &&
        key_make(route->recipe, h, https, buf_slice(&host), path, query, &key, &k) == 0) {
        bool may = sem_request_cacheable(&x->request, &why);

        buf_printf(b, ", \"request\": {\"cacheable\": %s, ", may ? "true" : "false");
        put_member(b, "why", may ? NULL : why);
        buf_addz(b, "}, \"key\": ");
        admin_json_text(b, k.bytes);
        buf_addz(b, ", ");
        put_stored(x, &k, h);
    }
    b->failed |= host.failed | target.failed | key.failed;
    buf_free(&host);
    buf_free(&target);
    buf_free(&key);
}

void
handle_explain(struct admin_request *r)
{
    static const struct http_limits limits = { .head = 32768, .uri = 16384, .fields = FIELDS_MAX };
    struct http_field fields[FIELDS_MAX];
    struct http_head h = { .cap = FIELDS_MAX, .fields = fields };
    struct explained x = { .r = r, .now_ms = wall_ms() };
    struct buf url = { 0 }, wire = { 0 };
    struct http_fault fault = { 0 };
    struct http_uri u;
    ssize_t n;

    if (put_request(r, &url, &wire, &u) == 0) {
        n = wire.failed ? 0 : http_parse_request(wire.p, wire.n, &limits, &h, &fault);
        if (n != (ssize_t)wire.n) {
            admin_problem(r, 400, "such a request would be refused: %s",
                fault.why != NULL ? fault.why : "its head ends early");
        } else {
            struct route_table *t = r->a->process.table(r->a->process.arg);

            sem_request_read(&h, &x.request);
            buf_addz(&r->out, "{\"url\": ");
            admin_json_text(&r->out, buf_slice(&url));
            buf_addz(&r->out, ", ");
            explain(&x, t, &h, slice_ieq(u.scheme, SLICE("https")));
            buf_addz(&r->out, "}\n");
            route_table_unref(&t);
        }
    }
    buf_free(&url);
    buf_free(&wire);
}
