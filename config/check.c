/*
 * What no single value shows: names that must resolve, options that contradict one another or leak,
 * files that must be readable, routes that no request could choose between.
 *
 * Problems stand at the value that is at fault; where a default is, at what it belongs to.
 */
#include "config/inside.h"
#include "http/http.h"
#include "key/key.h"
#include "route/route.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN_MAX 4096

/* ---- places ------------------------------------------------------------------------------------------------- */

/* Of the value at a path below n, else of n, else `other`. */
static struct conf_where
place(const struct node *n, const char *path, struct conf_where other)
{
    const struct node *v = tree_at(n, path);

    return v != NULL ? v->where : n != NULL ? n->where : other;
}

struct spot { struct conf_where where; const char *path; };

static struct spot
route_spot(struct load *l, size_t i, const char *option)
{
    return (struct spot){ place(l->routes[i], option, l->c->routes[i].where),
        textf(l, "routes[%zu].%s", i, option) };
}

/* The i-th text of a list option, which may also be one text. */
static struct spot
item_spot(struct load *l, const struct node *section, const char *at, const char *option, size_t i)
{
    const struct node *v = tree_at(section, option);
    struct spot s = { place(section, option, (struct conf_where){ 0, 0 }), textf(l, "%s.%s", at, option) };

    if (v != NULL && v->type == NODE_LIST && i < v->n)
        return (struct spot){ v->items[i]->where, textf(l, "%s[%zu]", s.path, i) };
    return s;
}

static struct spot
field_spot(struct load *l, size_t route, const char *option, const char *name)
{
    const struct node *v = tree_at(l->routes[route], option);
    struct spot s = route_spot(l, route, option);

    for (size_t i = 0; v != NULL && v->type == NODE_MAP && i < v->n; i++)
        if (strcmp(v->pairs[i].key->text.p, name) == 0)
            s.where = v->pairs[i].key->where;
    s.path = textf(l, "%s.%s", s.path, name);
    return s;
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

static const char *
token_read(struct load *l, const char *file, struct conf_where w, const char *path)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char bytes[TOKEN_MAX + 1];
    struct stat st;
    ssize_t n = fd != -1 ? read(fd, bytes, sizeof bytes) : -1;
    const char *out = NULL;

    if (n == -1) {
        problem(l, w, path, "%s cannot be read: %s; a file with the token alone, readable for weir's user",
            file, strerror(errno));
        goto out;
    }
    while (n > 0 && (bytes[n - 1] == '\n' || bytes[n - 1] == '\r'))
        n--;
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] <= ' ' || bytes[i] == 0x7f) {
            problem(l, w, path, "%s holds more than a token; one line without spaces, ASCII alone", file);
            goto out;
        }
    }
    if (n == 0 || n > TOKEN_MAX) {
        problem(l, w, path, "%s is %s; a file with a token of 1..%d characters", file,
            n == 0 ? "empty" : "too long", TOKEN_MAX);
        goto out;
    }
    if (fstat(fd, &st) == 0 && (st.st_mode & 0007) != 0)
        warning(l, w, path, "everybody on this machine may read %s; chmod o= %s", file, file);
    out = pool_dup(l->c->pool, bytes, (size_t)n);
    l->no_memory |= out == NULL;
out:
    if (fd != -1)
        close(fd);
    return out;
}

/* ---- addresses -------------------------------------------------------------------------------------------------- */

static bool
is_loopback(const struct conf_address *a)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->sa;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->sa;

    if (a->sa.ss_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
        (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
}

/* Would binding both fail or share connections? The wildcard address contains the others. */
static bool
overlap(const struct conf_address *a, const struct conf_address *b)
{
    const struct sockaddr_in *a4 = (const struct sockaddr_in *)&a->sa, *b4 = (const struct sockaddr_in *)&b->sa;
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)&a->sa, *b6 = (const struct sockaddr_in6 *)&b->sa;

    if (a->off || b->off || a->sa.ss_family != b->sa.ss_family)
        return false;
    if (a->sa.ss_family == AF_INET)
        return a4->sin_port == b4->sin_port && a4->sin_port != 0 &&
            (a4->sin_addr.s_addr == b4->sin_addr.s_addr || a4->sin_addr.s_addr == 0 ||
                b4->sin_addr.s_addr == 0);
    return a6->sin6_port == b6->sin6_port && a6->sin6_port != 0 &&
        (memcmp(&a6->sin6_addr, &b6->sin6_addr, 16) == 0 || IN6_IS_ADDR_UNSPECIFIED(&a6->sin6_addr) ||
            IN6_IS_ADDR_UNSPECIFIED(&b6->sin6_addr));
}

struct bound { const struct conf_address *address; struct conf_where where; const char *path; };

static void
check_overlaps(struct load *l)
{
    const struct conf *c = l->c;
    struct bound *all = pool_alloc(l->scratch, (c->nlisteners + 2) * sizeof *all);
    size_t n = 0;

    if (all == NULL) {
        l->no_memory = true;
        return;
    }
    for (size_t i = 0; i < c->nlisteners; i++)
        all[n++] = (struct bound){ &c->listeners[i].address, place(l->listeners[i], "address",
            c->listeners[i].where), l->listeners[i] != NULL && c->nlisteners > 1 ?
            textf(l, "listen[%zu]", i) : "listen" };
    all[n++] = (struct bound){ &c->admin_listen, place(l->root, "admin.listen", (struct conf_where){ 0, 0 }),
        "admin.listen" };
    all[n++] = (struct bound){ &c->probe_listen, place(l->root, "probe.listen", (struct conf_where){ 0, 0 }),
        "probe.listen" };
    for (size_t i = 1; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            if (overlap(all[i].address, all[k].address)) {
                problem(l, all[i].where, all[i].path, "%s is taken by %s already (%s); another port",
                    all[i].address->text, all[k].path, all[k].address->text);
                break;
            }
        }
    }
}

/* ---- the top level ------------------------------------------------------------------------------------------------ */

static void
check_top(struct load *l)
{
    struct conf *c = l->c;
    struct conf_where none = { 0, 0 }, admin = place(l->root, "admin.listen", none);

    if (c->admin_token_file != NULL)
        c->admin_token = token_read(l, c->admin_token_file, place(l->root, "admin.token_file", none),
            "admin.token_file");
    else if (!c->admin_listen.off && !is_loopback(&c->admin_listen))
        problem(l, admin, "admin.listen", "%s is open to others and has no token; admin.token_file, or an "
            "address of loopback such as 127.0.0.1:8081", c->admin_listen.text);
    for (size_t i = 0; i < c->admin_hosts.n; i++) {
        struct spot s = item_spot(l, tree_at(l->root, "admin"), "admin", "hosts", i);

        if (!http_is_host(slice_of(c->admin_hosts.at[i])))
            problem(l, s.where, s.path, "%s is no host; a name such as weir.example.com",
                shown(l, slice_of(c->admin_hosts.at[i])));
    }
    for (size_t i = 0; i < c->dns_servers.n; i++) {
        struct spot s = item_spot(l, tree_at(l->root, "dns"), "dns", "servers", i);
        const char *text = c->dns_servers.at[i];
        struct conf_address a;
        uint8_t bytes[16];

        if (inet_pton(AF_INET, text, bytes) != 1 && inet_pton(AF_INET6, text, bytes) != 1 &&
            value_address(slice_of(text), &a, l->scratch) == -1)
            problem(l, s.where, s.path, "%s is no name server; an address such as 10.0.0.2 or 10.0.0.2:53",
                shown(l, slice_of(text)));
    }
    if (c->cache_max_object > c->cache_memory)
        problem(l, place(l->root, "cache.max_object", place(l->root, "cache.memory", none)),
            "cache.max_object", "is more than cache.memory; at most that");
}

static void
check_listener(struct load *l, size_t i)
{
    struct conf_listener *c = &l->c->listeners[i];
    const struct node *n = l->listeners[i];
    const char *at = l->c->nlisteners > 1 ? textf(l, "listen[%zu]", i) : "listen";

    if (c->address.off && c->address.text != NULL)
        problem(l, place(n, "address", c->where), textf(l, "%s.address", at),
            "a listener that is off; leave it out, or an address with a port");
    if (c->proxy_protocol && c->trust.n == 0)
        problem(l, place(n, "proxy_protocol", c->where), textf(l, "%s.proxy_protocol", at),
            "nobody is trusted to speak it; name the proxies in `trust`");
    if (c->limit_uri > c->limit_head)
        problem(l, place(n, "limits.uri", place(n, "limits.head", c->where)), textf(l, "%s.limits.uri", at),
            "is more than limits.head; at most that");
    if (c->purge_networks.n > 0 && c->purge_token_file == NULL)
        problem(l, place(n, "purge.networks", c->where), textf(l, "%s.purge.networks", at),
            "PURGE without a token; purge.token_file as well");
    if (c->purge_token_file == NULL)
        return;
    if (c->purge_networks.n == 0)
        warning(l, place(n, "purge.token_file", c->where), textf(l, "%s.purge.token_file", at),
            "nobody may use PURGE; name who may in purge.networks");
    l->c->purge_tokens[i] = token_read(l, c->purge_token_file, place(n, "purge.token_file", c->where),
        textf(l, "%s.purge.token_file", at));
}

/* ---- origins ------------------------------------------------------------------------------------------------------- */

static void
check_origin(struct load *l, size_t i)
{
    const struct conf_origin *c = &l->c->origins[i];
    const struct node *n = l->origins[i];
    const char *at = textf(l, "origins.%s", c->id);
    bool https = false;

    if (c->servers.n == 0 && n != NULL && n->type == NODE_MAP && (tree_at(n, "servers") == NULL ||
            tree_at(n, "servers")->type == NODE_LIST) && (tree_at(n, "servers") == NULL ||
            tree_at(n, "servers")->n == 0))
        problem(l, place(n, "servers", c->where), textf(l, "%s.servers", at),
            "no server; at least one, as http://127.0.0.1:8000");
    for (size_t k = 0; k < c->servers.n; k++)
        https |= c->servers.at[k].https;
    for (size_t k = 1; k < c->servers.n; k++)
        for (size_t m = 0; m < k && k < 64; m++)
            if (strcasecmp(c->servers.at[k].text, c->servers.at[m].text) == 0) {
                struct spot s = item_spot(l, n, at, "servers", k);

                problem(l, s.where, s.path, "the same server twice; each once");
                break;
            }
    if (c->pool_min > c->pool_max)
        problem(l, place(n, "pool.min", c->where), textf(l, "%s.pool.min", at),
            "is more than pool.max; at most %llu", (unsigned long long)c->pool_max);
    if (c->tls_ca_file != NULL && access(c->tls_ca_file, R_OK) == -1)
        problem(l, place(n, "tls.ca_file", c->where), textf(l, "%s.tls.ca_file", at),
            "%s cannot be read: %s; a file of certificates (PEM)", c->tls_ca_file, strerror(errno));
    if (!c->tls_verify && https)
        warning(l, place(n, "tls.verify", c->where), textf(l, "%s.tls.verify", at),
            "certificates are not verified: whoever is between can read and change everything");
    if ((c->tls_ca_file != NULL || !c->tls_verify) && !https && c->servers.n > 0)
        warning(l, place(n, "tls", c->where), textf(l, "%s.tls", at), "has no effect; no server is https");
}

/* ---- routes --------------------------------------------------------------------------------------------------------- */

static void
resolve(struct load *l, size_t i)
{
    struct conf_route *r = &l->c->routes[i];
    struct spot s = route_spot(l, i, "origin");
    struct nearest near = { .to = slice_of(r->origin) };

    if (r->origin == NULL && l->c->norigins == 1)
        r->origin = l->c->origins[0].id;
    if (r->origin == NULL) {
        if (l->c->norigins > 1)
            problem(l, s.where, s.path, l->routes[i] == NULL ? "several origins and no routes; say in "
                "`routes` which takes what" : "no origin, and there are several; the name of one");
        return;
    }
    for (size_t k = 0; k < l->c->norigins; k++) {
        if (strcmp(l->c->origins[k].id, r->origin) == 0) {
            r->to = &l->c->origins[k];
            return;
        }
        nearest_try(&near, l->c->origins[k].id);
    }
    if (near.word != NULL)
        problem(l, s.where, s.path, "no origin has the name %s; did you mean %s",
            shown(l, slice_of(r->origin)), near.word);
    else
        problem(l, s.where, s.path, "no origin has the name %s; one of `origins`",
            shown(l, slice_of(r->origin)));
}

static void
check_tokens(struct load *l, size_t i, const char *option, const struct conf_strings *list,
    const char *what)
{
    const char *at = textf(l, "routes[%zu]", i);

    for (size_t k = 0; k < list->n; k++) {
        struct spot s = item_spot(l, l->routes[i], at, option, k);

        if (!http_is_token(slice_of(list->at[k])))
            problem(l, s.where, s.path, "%s is none; %s", shown(l, slice_of(list->at[k])), what);
    }
}

static void
check_methods(struct load *l, size_t i)
{
    const struct conf_strings *m = &l->c->routes[i].methods;

    check_tokens(l, i, "methods", m, "a method such as GET");
    for (size_t k = 0; k < m->n; k++) {
        struct spot s = item_spot(l, l->routes[i], textf(l, "routes[%zu]", i), "methods", k);
        char *up = (char *)textf(l, "%s", m->at[k]);

        for (char *c = up; *c != '\0'; c++)
            *c = *c >= 'a' && *c <= 'z' ? (char)(*c - 32) : *c;
        if (http_method(slice_of(m->at[k])) == HTTP_OTHER && http_method(slice_of(up)) != HTTP_OTHER)
            problem(l, s.where, s.path, "%s is no method that clients send; methods are upper case: %s",
                shown(l, slice_of(m->at[k])), up);
    }
}

/* Fields that say how a message is framed or where it goes: an edit of them would let two readers
 * disagree about one message (RFC 9112 11.2), or does nothing. NULL: may be edited. */
static const char *
untouchable(const char *name, bool request)
{
    enum http_id id = http_id(slice_of(name));

    if (id == HF_HOST && request)
        return "the host of a request is no field to edit; `host` of the origin";
    if (id == HF_CONTENT_LENGTH)
        return "weir writes it from the body; leave it out";
    if (id != HF_NONE && (http_flags(id) & HTTP_HOP))
        return "it belongs to one connection and never crosses (RFC 9110 7.6.1); leave it out";
    if (id == HF_EXPECT && request)
        return "weir answers it itself; leave it out";
    if ((id == HF_AGE || id == HF_CACHE_STATUS) && !request)
        return "weir writes it; leave it out";
    return NULL;
}

static void
check_edits(struct load *l, size_t i, const char *option, const struct conf_fields *f, bool request, bool set)
{
    for (size_t k = 0; k < f->n; k++) {
        const char *why = untouchable(f->at[k].name, request);
        struct spot s = field_spot(l, i, option, f->at[k].name);

        if (why != NULL)
            problem(l, s.where, s.path, "%s", why);
        for (size_t m = 0; set && m < k; m++)
            if (strcasecmp(f->at[m].name, f->at[k].name) == 0) {
                problem(l, s.where, s.path, "set twice; once, or with `add`");
                break;
            }
        if (!request && http_id(slice_of(f->at[k].name)) == HF_VARY &&
            (strchr(f->at[k].value, '*') != NULL || strcasestr(f->at[k].value, "user-agent") != NULL ||
                strcasestr(f->at[k].value, "cookie") != NULL))
            warning(l, s.where, s.path, "Vary with unboundedly many values: hardly a request finds "
                "another's answer; vary on what has few values");
    }
}

static void
check_removes(struct load *l, size_t i, const char *option, const struct conf_strings *list, bool request)
{
    for (size_t k = 0; k < list->n; k++) {
        const char *why = untouchable(list->at[k], request);
        struct spot s = item_spot(l, l->routes[i], textf(l, "routes[%zu]", i), option, k);

        if (why != NULL)
            problem(l, s.where, s.path, "%s", why);
    }
}

static void
check_templates(struct load *l, size_t i, const char *option, const struct conf_strings *list,
    const char *const *params, size_t n)
{
    for (size_t k = 0; k < list->n; k++) {
        struct spot s = item_spot(l, l->routes[i], textf(l, "routes[%zu]", i), option, k);
        struct err e = { 0 };

        if (key_template_new(list->at[k], params, n, l->scratch, &e) == NULL)
            problem(l, s.where, s.path, "%s", e.text);
    }
}

static bool
has_name(const struct conf_strings *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcasecmp(list->at[i], name) == 0)
            return true;
    return false;
}

/* Configurations that show one client what is another's. */
static void
check_leaks(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    bool by_user = has_name(&r->key_headers, "Authorization") &&
        (r->key_cookies.n > 0 || has_name(&r->key_headers, "Cookie"));
    struct spot s;

    if (r->force_ttl_ms != CONF_UNSET && r->policy != POLICY_PASS && !by_user) {
        s = route_spot(l, i, "force_ttl");
        warning(l, s.where, s.path, "stores for everybody what the origin says is private, answers to "
            "requests with Authorization, and those with Set-Cookie (without that field); make sure that "
            "all clients may see them, or use ttl");
    }
    if (!r->key_host && (r->hosts.n != 1 || strncmp(r->hosts.at[0], "*.", 2) == 0)) {
        s = route_spot(l, i, "key.host");
        warning(l, s.where, s.path, "several hosts match and share their entries: one is answered with "
            "what another said; keep it true, or name one host");
    }
}

static void
check_unbounded(struct load *l, size_t i)
{
    static const char *const many[] = { "User-Agent", "Cookie", "Referer", "X-Request-Id", "Traceparent",
        "X-Forwarded-For", "Forwarded", "Date", "If-None-Match", "If-Modified-Since", "Range" };
    const struct conf_strings *list = &l->c->routes[i].key_headers;

    for (size_t k = 0; k < list->n; k++)
        for (size_t m = 0; m < NELEM(many); m++)
            if (strcasecmp(list->at[k], many[m]) == 0) {
                struct spot s = item_spot(l, l->routes[i], textf(l, "routes[%zu]", i), "key.headers", k);

                warning(l, s.where, s.path, "%s has unboundedly many values: hardly a request finds "
                    "another's answer; leave it out, or a field with few values", many[m]);
            }
}

/* What is for the cache, on a route that has none. */
static void
check_pass(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    const struct { const char *option; bool said; } idle[] = {
        { "ttl", r->ttl_ms != CONF_UNSET }, { "force_ttl", r->force_ttl_ms != CONF_UNSET },
        { "negative_ttl", r->negative_ttl.n > 0 }, { "stale_while_revalidate", r->swr_ms != CONF_UNSET },
        { "stale_if_error", r->sie_ms != CONF_UNSET }, { "max_object", r->max_object != CONF_UNSET },
        { "tags", r->tags.n > 0 }, { "key", r->key_headers.n > 0 || r->key_cookies.n > 0 },
        { "query", r->query_ignore.n > 0 || r->query_keep.n > 0 || r->query_sort },
    };

    for (size_t k = 0; k < NELEM(idle) && r->policy == POLICY_PASS; k++) {
        struct spot s;

        if (!idle[k].said)
            continue;
        s = route_spot(l, i, idle[k].option);
        warning(l, s.where, s.path, "has no effect with policy pass; leave it out");
    }
}

static void
check_effect(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    struct spot s;

    if (r->ttl_ms != CONF_UNSET && r->force_ttl_ms != CONF_UNSET) {
        s = route_spot(l, i, "ttl");
        warning(l, s.where, s.path, "has no effect beside force_ttl; one of them");
    }
    if (r->query_ignore.n > 0 && r->query_keep.n > 0) {
        s = route_spot(l, i, "query.ignore");
        problem(l, s.where, s.path, "stands beside query.keep; one of them");
    }
    if (r->max_object != CONF_UNSET && r->max_object > l->c->cache_memory) {
        s = route_spot(l, i, "max_object");
        problem(l, s.where, s.path, "is more than cache.memory; at most that");
    }
}

static void
check_route(struct load *l, size_t i)
{
    const struct conf_route *r = &l->c->routes[i];
    const char *const *params;
    size_t n;

    if (l->routes[i] != NULL && l->routes[i]->type != NODE_MAP)
        return;
    resolve(l, i);
    check_methods(l, i);
    check_tokens(l, i, "headers", &r->headers, "a field name such as X-Tenant");
    check_tokens(l, i, "key.headers", &r->key_headers, "a field name such as X-Tenant");
    check_tokens(l, i, "key.cookies", &r->key_cookies, "a cookie's name");
    check_edits(l, i, "request.set", &r->request_set, true, true);
    check_edits(l, i, "request.add", &r->request_add, true, false);
    check_removes(l, i, "request.remove", &r->request_remove, true);
    check_edits(l, i, "response.set", &r->response_set, false, true);
    check_edits(l, i, "response.add", &r->response_add, false, false);
    check_removes(l, i, "response.remove", &r->response_remove, false);
    check_leaks(l, i);
    check_unbounded(l, i);
    check_pass(l, i);
    check_effect(l, i);
    params = route_template_params(r->path, l->scratch, &n);
    if (params != NULL) {
        check_templates(l, i, "tags", &r->tags, params, n);
        check_templates(l, i, "purge", &r->purge, params, n);
    }
}

/* ---- between routes ---------------------------------------------------------------------------------------------------- */

static void
on_conflict(void *arg, size_t i, size_t j)
{
    struct load *l = arg;

    problem(l, l->c->routes[j].where, textf(l, "routes[%zu]", j), "takes the same requests as routes[%zu] in "
        "line %d, and neither is more specific (this is line %d); another path, host, method or `headers`",
        i, l->c->routes[i].where.line, l->c->routes[j].where.line);
}

static int
by_name(const void *a, const void *b)
{
    const struct conf_route *x = *(struct conf_route *const *)a, *y = *(struct conf_route *const *)b;
    int c = strcmp(x->name, y->name);

    return c != 0 ? c : (x->index > y->index) - (x->index < y->index);
}

/* Figures and purges by route go by the name. Two routes that merely share a path share them. */
static void
check_names(struct load *l)
{
    const struct conf_route **at = pool_alloc(l->scratch, (l->c->nroutes + 1) * sizeof *at);
    size_t n = 0;

    if (at == NULL) {
        l->no_memory = true;
        return;
    }
    for (size_t i = 0; i < l->c->nroutes; i++)
        if (l->c->routes[i].name != NULL)
            at[n++] = &l->c->routes[i];
    qsort(at, n, sizeof *at, by_name);
    for (size_t i = 1, first = 0; i < n; i++) {
        size_t index = at[i]->index;

        if (strcmp(at[i]->name, at[first]->name) != 0) {
            first = i;
        } else if (tree_at(l->routes[index], "name") != NULL) {
            problem(l, route_spot(l, index, "name").where, textf(l, "routes[%zu].name", index),
                "%s is the name of routes[%u] in line %d; another", shown(l, slice_of(at[i]->name)),
                at[first]->index, at[first]->where.line);
        } else {
            warning(l, at[i]->where, textf(l, "routes[%zu]", index), "has the path, and so the name, of "
                "routes[%u] in line %d: figures and purges by route take both as one; give it a `name`",
                at[first]->index, at[first]->where.line);
        }
    }
}

static int
by_address(const void *a, const void *b)
{
    const struct conf_origin *x = *(struct conf_origin *const *)a, *y = *(struct conf_origin *const *)b;

    return (x > y) - (x < y);
}

static void
check_unused(struct load *l)
{
    const struct conf_origin **used = pool_alloc(l->scratch, (l->c->nroutes + 1) * sizeof *used);
    size_t n = 0;

    for (size_t i = 0; used != NULL && i < l->c->nroutes; i++)
        if (l->c->routes[i].to != NULL)
            used[n++] = l->c->routes[i].to;
        else
            return;                     /* a name that is wrong may have meant it */
    if (used == NULL)
        return;
    qsort(used, n, sizeof *used, by_address);
    for (size_t i = 0; i < l->c->norigins; i++) {
        const struct conf_origin *o = &l->c->origins[i];

        if (bsearch(&o, used, n, sizeof *used, by_address) == NULL)
            warning(l, o->where, textf(l, "origins.%s", o->id), "no route uses it; name it as a route's "
                "origin, or leave it out");
    }
}

void
check_all(struct load *l)
{
    struct conf *c = l->c;

    c->purge_tokens = pool_zalloc(c->pool, (c->nlisteners + 1) * sizeof *c->purge_tokens);
    if (c->purge_tokens == NULL) {
        l->no_memory = true;
        return;
    }
    check_top(l);
    for (size_t i = 0; i < c->nlisteners; i++)
        check_listener(l, i);
    check_overlaps(l);
    if (c->norigins == 0 && (tree_at(l->root, "origins") == NULL || tree_at(l->root, "origins")->n == 0))
        problem(l, place(l->root, "origins", (struct conf_where){ 0, 0 }), "origins", "no origin to stand in "
            "front of; `origins: {api: {servers: [http://127.0.0.1:8000]}}`, or --origin URL");
    for (size_t i = 0; i < c->norigins; i++)
        check_origin(l, i);
    if (l->routes == NULL)
        return;
    for (size_t i = 0; i < c->nroutes; i++)
        check_route(l, i);
    route_conf_conflicts(c->routes, c->nroutes, on_conflict, l);
    check_names(l);
    check_unused(l);
}
