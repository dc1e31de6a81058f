/*
 * route -- the compiled route table.
 *
 * Model    hosts lead to a trie of path segments; a node's routes are tried by method and field
 *          presence, the most specific first. Matching costs by the length of the path, not by the
 *          number of routes. A table is made whole at load, owns a reference to its struct conf,
 *          never changes, and lives until its last user is gone (reload swaps tables).
 *
 * Specificity, compared in this order: exact host, host wildcard (longer suffix first), any host;
 * then segment by segment from the left: literal, then {name} and *, then **; then a method list
 * before none; then more `headers` before fewer, and of as many the names decide. Equal in all of
 * it: an error at load.
 * A trailing slash is a segment of its own (empty); {name} and * take none that is empty, ** also
 * nothing at all, so that ** below /a takes /a. A route that takes GET takes HEAD. When the best
 * path has no route that takes the method or has the fields, the next best is tried.
 * Threads  any may match; a worker takes a reference for as long as a request uses a route.
 */
#ifndef WEIR_ROUTE_H
#define WEIR_ROUTE_H

#include "base/base.h"
#include "config/conf.h"
#include "http/http.h"
#include "key/key.h"
#include "semantics/semantics.h"

struct route_edit {                     /* compiled field edits of one direction */
    const struct conf_fields *set, *add;
    const struct conf_strings *remove;
    bool any;                           /* there is something to do */
};

struct route_compress {                 /* n 0: nothing is coded */
    uint8_t codings[SEM_CODINGS]; size_t n;         /* enum sem_coding, the preferred first */
    const struct conf_strings *types;
    uint64_t min;
};

/* What the rooms above need of one route; read only. */
struct route {
    const struct conf_route *conf;
    const char *name;                   /* identity */
    uint64_t id;                        /* key_hash(name): the same over reloads; purge by route */
    unsigned index;                     /* in its table */
    unsigned stats;                     /* slot for stats_*, the same over reloads for the same
                                           name; the caller of route_table_new provides it */
    /* May a stored response answer without more ado? */
    enum route_spot { SPOT_NOT, SPOT_YES, SPOT_UNLESS_PENDING } on_the_spot;
    struct key_recipe *recipe;
    struct sem_rules rules;
    struct key_template **tags;  size_t ntags;
    struct key_template **purge; size_t npurge;
    struct key_template *write_key;     /* NULL: the path */
    bool write_spans;                   /* a route of the same origin has a write_key: writes of it
                                           may be in order with those of other paths */
    unsigned needs;                     /* of purge, tags and write_key: KEY_NEEDS_* or-ed */
    struct route_edit request, response;
    struct route_compress compress;
    int64_t max_object;                 /* bytes, defaults resolved */
    enum conf_on_failure on_failure;    /* likewise */
    int64_t idempotency_ms;             /* how long keys are remembered, likewise; 0: not at all */
    const char *const *params; size_t nparams;      /* names in the path template, in order */
};

/* Does the edit take this field away, or replace it? */
bool route_edit_takes(const struct route_edit *e, struct slice name);
/* Appends the fields that it sets and adds. */
void route_edit_put(const struct route_edit *e, struct buf *b);

#define ROUTE_PARAMS_MAX 32

struct route_match {
    const struct route *route;
    struct slice values[ROUTE_PARAMS_MAX];          /* of route->params; still percent-encoded */
};

/* A parameter of the path by its name, percent-decoded into p; .p NULL: there is none, or memory is
 * out. match: a struct route_match; it is asked as plugins do (struct weir_request). */
struct slice route_param(void *match, struct slice name, struct pool *p);

struct route_table;

/* Compiles. NULL with *e only when memory is out or a template is bad (config's check found all
 * else before). slot(name) gives route.stats. The table takes its own reference to conf. */
struct route_table *route_table_new(struct conf *c, unsigned (*slot)(const char *name),
    struct err *e);
struct route_table *route_table_ref(struct route_table *t);         /* any thread */
void route_table_unref(struct route_table **tp);
struct conf *route_table_conf(const struct route_table *t);         /* borrowed */
size_t route_table_size(const struct route_table *t);
const struct route *route_table_at(const struct route_table *t, size_t i);
const struct route *route_table_find(const struct route_table *t, struct slice name);
/* The same for what a person wrote: NULL with *e, which tells the nearest. */
const struct route *route_table_named(const struct route_table *t, struct slice name,
    struct err *e);

/* The route of a request, or NULL when there is none (404). host lower-case without a port, path
 * normalised. h is looked at for method and fields only; NULL means a GET without fields. */
const struct route *route_match(const struct route_table *t, struct slice host, struct slice path,
    const struct http_head *h, struct route_match *m);

/* May the request be answered from the cache, as far as it and its route tell? Fills *rq. has_body:
 * the request has content. t: what was weighed, or NULL. */
enum route_ask {
    ROUTE_ASKS,
    ROUTE_ASKS_NOT,                     /* by the request's own word; *why */
    ROUTE_BYPASSES,                     /* by the route's, or there is no answer to it; *why */
};
enum route_ask route_asks(const struct route *r, const struct http_head *h, bool has_body,
    struct sem_request *rq, const char **why, struct sem_trace *t);
/* Is the range that it wants made of blocks (`range.block`), where no more of it is stored? */
bool route_in_blocks(const struct route *r, const struct http_head *h,
    const struct sem_request *rq, struct http_range_spec *range);

/* Appends the target that the origin gets for this path and query, normalised ones: the route's
 * prefix taken off or put in front. */
void route_target(const struct route *r, struct slice path, struct slice query, struct buf *b);

/* Calls each(arg, route) for every route that could have stored a GET or QUERY for this, or what
 * its `cache_methods` say, whatever fields it asks for: the most specific first, up to one that
 * takes all methods. For purging by URL. host as above; NULL: under every host, and then a route
 * may come more than once. */
void route_each(const struct route_table *t, const struct slice *host, struct slice path,
    void (*each)(void *arg, const struct route *r), void *arg);

/* For explanations: calls each(arg, route, what) for every route whose path takes this one, in the
 * order in which they are tried; those of other hosts come last, and may come more than once. The
 * first that TAKES it is route_match's. */
enum route_near { ROUTE_TAKES, ROUTE_NEAR_METHOD, ROUTE_NEAR_FIELDS, ROUTE_NEAR_HOST };
void route_consider(const struct route_table *t, struct slice host, struct slice path,
    const struct http_head *h, void (*each)(void *arg, const struct route *r, enum route_near n),
    void *arg);

/* For config's check: is the template well formed (*e if not), and are two routes equal in
 * specificity and matching set, so that neither could win? */
int  route_template_check(const char *template, struct err *e);
bool route_conf_conflict(const struct conf_route *a, const struct conf_route *b);
/* All conflicts of n routes in less than quadratic time: calls found(arg, i, j), i < j; of
 * more than two equal ones each later one with the first. A malformed path conflicts with none. */
void route_conf_conflicts(const struct conf_route *r, size_t n,
    void (*found)(void *arg, size_t i, size_t j), void *arg);
/* The parameter names of a template in p; *n of them. NULL when memory is out or malformed. */
const char *const *route_template_params(const char *template, struct pool *p, size_t *n);

#endif
