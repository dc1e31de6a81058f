/*
 * The cache key: what the client asked for, in one run of bytes, and its hash.
 *
 * Model    "scheme://host/path?query", then, where the recipe has parts, a NUL and each part's
 *          occurrences as "<length>:<bytes>", closed by "."; then the caller's own parts, each
 *          with its letter in front. A URL has no NUL (the parser refuses
 *          control characters), and lengths come before bytes, so no two requests that differ in
 *          host, path, query or a part run together, unless the recipe's query rules make them one.
 * Threads  pure functions; a recipe is read only once made.
 * Not here normalising path and query (http/uri.c), Vary (semantics/vary.c).
 */
#define XXH_INLINE_ALL
#include <stdio.h>
#include <xxhash.h>

#include "key/key.h"

/* Parameters that are sorted on the stack. A query with more keeps its order: equal queries may
 * then have two keys, which costs a hit and confuses nothing. */
#define SORT_MAX 256

struct key_part {
    struct slice name;
    enum http_id id;                    /* of a field */
};

struct key_recipe {
    struct slice    *ignore, *keep;     /* globs */
    size_t           nignore, nkeep;
    struct key_part *fields, *cookies;
    size_t           nfields, ncookies;
    bool             sort, fold, no_host, query_rules, parts, keeps;  /* keeps: maybe none */
    struct slice     route;             /* identity; only where others take the same URL part */
};

uint64_t
key_hash(struct slice s)
{
    return XXH3_64bits(s.p, s.n);
}

/* ---- the recipe ---------------------------------------------------------------------------- */

static struct slice *
globs_new(const struct conf_strings *from, struct pool *p)
{
    struct slice *out = pool_alloc(p, (from->n + 1) * sizeof *out);

    for (size_t i = 0; out != NULL && i < from->n; i++)
        out[i] = slice_of(from->at[i]);
    return out;
}

static struct key_part *
parts_new(const struct conf_strings *from, struct pool *p)
{
    struct key_part *out = pool_alloc(p, (from->n + 1) * sizeof *out);

    for (size_t i = 0; out != NULL && i < from->n; i++) {
        out[i].name = slice_of(from->at[i]);
        out[i].id = http_id(out[i].name);
    }
    return out;
}

static void
add_names(struct buf *b, const struct conf_strings *names)
{
    for (size_t i = 0; i < names->n; i++) {
        buf_addc(b, i > 0 ? ' ' : '\n');
        buf_addz(b, names->at[i]);
    }
}

/* What tells this route's entries from those of all others with the same URL part: its name alone
 * does not, since routes without one are named by their path. */
static struct slice
route_identity(const struct conf_route *r, struct pool *p)
{
    struct buf b = { 0 };
    struct slice out = { NULL, 0 };

    buf_addz(&b, r->name != NULL && r->name[0] != '\0' ? r->name : r->path != NULL ? r->path : "");
    buf_addc(&b, '\n');
    buf_addz(&b, r->origin != NULL ? r->origin : "");
    add_names(&b, &r->hosts);
    add_names(&b, &r->headers);
    add_names(&b, &r->methods);
    if (!b.failed)
        out = pool_slice(p, buf_slice(&b));
    buf_free(&b);
    return out;
}

/* A HEAD on a route of its own is asked for with GET, and another route may take the GETs. */
static bool
takes_head_alone(const struct conf_route *r)
{
    bool get = false, head = false;

    for (size_t i = 0; i < r->methods.n; i++) {
        get = get || strcmp(r->methods.at[i], "GET") == 0;
        head = head || strcmp(r->methods.at[i], "HEAD") == 0;
    }
    return head && !get;
}

struct key_recipe *
key_recipe_new(const struct conf_route *r, struct pool *p)
{
    struct key_recipe *k = pool_zalloc(p, sizeof *k);

    if (k == NULL)
        return NULL;
    k->ignore = globs_new(&r->query_ignore, p);
    k->keep = globs_new(&r->query_keep, p);
    k->fields = parts_new(&r->key_headers, p);
    k->cookies = parts_new(&r->key_cookies, p);
    if (k->ignore == NULL || k->keep == NULL || k->fields == NULL || k->cookies == NULL)
        return NULL;
    k->nignore = r->query_ignore.n;
    k->nkeep = r->query_keep.n;
    k->nfields = r->key_headers.n;
    k->ncookies = r->key_cookies.n;
    k->sort = r->query_sort;
    k->fold = r->query_ignore_case;
    k->no_host = !r->key_host;
    k->keeps = r->query_keep.at != NULL;
    k->query_rules = k->nignore > 0 || k->keeps || k->sort || k->fold;
    if (r->headers.n > 0 || k->no_host || takes_head_alone(r)) {
        k->route = route_identity(r, p);
        if (k->route.p == NULL)
            return NULL;
    }
    k->parts = k->nfields > 0 || k->ncookies > 0 || k->route.n > 0;
    return k;
}

/* ---- the query's rules --------------------------------------------------------------------- */

static bool
any_glob(const struct slice *globs, size_t n, struct slice name)
{
    for (size_t i = 0; i < n; i++)
        if (slice_glob(globs[i], name))
            return true;
    return false;
}

static int
hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 :
        c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static struct slice
param_name(struct slice param)
{
    const char *eq = memchr(param.p, '=', param.n);

    return eq != NULL ? (struct slice){ param.p, (size_t)(eq - param.p) } : param;
}

/* The decoded name, in the free tail of b: valid until b is next used. */
static struct slice
decoded_name(struct buf *b, struct slice raw)
{
    char *at = buf_reserve(b, raw.n + 1);
    size_t n = 0;

    if (at == NULL)
        return raw;
    for (size_t i = 0; i < raw.n; i++) {
        if (raw.p[i] == '%' && i + 2 < raw.n && hex(raw.p[i + 1]) >= 0 && hex(raw.p[i + 2]) >= 0) {
            at[n++] = (char)(hex(raw.p[i + 1]) << 4 | hex(raw.p[i + 2]));
            i += 2;
        } else {
            at[n++] = raw.p[i];
        }
    }
    return (struct slice){ at, n };
}

static bool
param_stays(const struct key_recipe *k, struct slice param, struct buf *b)
{
    struct slice name;

    if (!k->keeps && k->nignore == 0)
        return true;
    name = decoded_name(b, param_name(param));
    return (!k->keeps || any_glob(k->keep, k->nkeep, name)) &&
        !any_glob(k->ignore, k->nignore, name);
}

static int
param_order(struct slice a, struct slice b, bool fold)
{
    struct slice x = param_name(a), y = param_name(b);
    size_t n = x.n < y.n ? x.n : y.n;
    int c = fold ? strncasecmp(x.p, y.p, n) : memcmp(x.p, y.p, n);

    return c != 0 ? c : (x.n > y.n) - (x.n < y.n);
}

/* Stable, so that the order of one parameter's values, which an origin can see, stays. Binary
 * insertion: few parameters are the rule, and at 256 it is still some 30 KiB moved. */
static void
params_sort(struct slice *at, size_t n, bool fold)
{
    for (size_t i = 1; i < n; i++) {
        struct slice one = at[i];
        size_t low = 0, high = i;

        while (low < high) {
            size_t mid = (low + high) / 2;

            if (param_order(at[mid], one, fold) <= 0)
                low = mid + 1;
            else
                high = mid;
        }
        memmove(&at[low + 1], &at[low], (i - low) * sizeof *at);
        at[low] = one;
    }
}

/* Lower case, but for the hex digits of escapes: those have one spelling (RFC 3986 6.2.2.1). */
static void
fold_query(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '%')
            i += 2;
        else if (p[i] >= 'A' && p[i] <= 'Z')
            p[i] |= 0x20;
    }
}

static void
add_param(struct buf *b, struct slice param, bool *first)
{
    buf_addc(b, *first ? '?' : '&');
    buf_adds(b, param);
    *first = false;
}

/* Appends '?' and what the rules leave of the query; nothing when nothing is left. */
static void
add_query(const struct key_recipe *k, struct slice query, struct buf *b)
{
    struct slice params[SORT_MAX], rest = query, param;
    size_t n = 0, start = b->n;
    bool first = true;

    while (slice_cut(&rest, '&', &param)) {
        if (!param_stays(k, param, b))
            continue;
        if (!k->sort) {
            add_param(b, param, &first);
        } else if (n < SORT_MAX) {
            params[n++] = param;
        } else {                        /* too many: as they stand, from the start */
            struct key_recipe unsorted = *k;

            unsorted.sort = false;
            add_query(&unsorted, query, b);
            return;
        }
    }
    params_sort(params, n, k->fold);
    for (size_t i = 0; i < n; i++)
        add_param(b, params[i], &first);
    if (k->fold && !b->failed)
        fold_query(b->p + start, b->n - start);
}

/* ---- the parts ----------------------------------------------------------------------------- */

static void
add_counted(struct buf *b, struct slice s)
{
    buf_addu(b, s.n);
    buf_addc(b, ':');
    buf_adds(b, s);
}

/* Several lines are one value, joined by ", " (RFC 9110 5.3). An absent field has no value at all,
 * an empty one has the empty value. */
static void
add_field_part(const struct key_part *part, const struct http_head *h, struct buf *b)
{
    size_t total = 0, seen = 0;

    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;

        for (unsigned i = 0; i < h->nfields; i++) {
            const struct http_field *f = &h->fields[i];

            if (f->id != part->id || (f->id == HF_NONE && !slice_ieq(f->name, part->name)))
                continue;
            if (pass == 0) {
                total += f->value.n + (seen++ > 0 ? 2 : 0);
                continue;
            }
            if (at++ > 0)
                buf_add(b, ", ", 2);
            buf_adds(b, f->value);
        }
        if (pass == 0 && seen == 0)
            break;
        if (pass == 0) {
            buf_addu(b, total);
            buf_addc(b, ':');
        }
    }
    buf_addc(b, '.');
}

/* Every cookie of that name, in order (RFC 6265 4.2.1): origins differ in which one they take. */
static void
add_cookie_part(const struct key_part *part, const struct http_head *h, struct buf *b)
{
    for (unsigned i = 0; http_has(h, HF_COOKIE) && i < h->nfields; i++) {
        struct slice rest = h->fields[i].value, pair, name;

        if (h->fields[i].id != HF_COOKIE)
            continue;
        while (slice_cut(&rest, ';', &pair)) {
            pair = slice_trim(pair);
            if (pair.n == 0)
                continue;
            name = param_name(pair);
            if (!slice_eq(slice_trim(name), part->name))
                continue;
            pair.p += name.n < pair.n ? name.n + 1 : name.n;
            pair.n -= name.n < pair.n ? name.n + 1 : name.n;
            add_counted(b, slice_trim(pair));
        }
    }
    buf_addc(b, '.');
}

static void
add_parts(const struct key_recipe *k, const struct http_head *h, struct buf *b)
{
    buf_addc(b, '\0');
    if (k->route.n > 0) {
        buf_addu(b, k->route.n);
        buf_addc(b, ':');
        buf_adds(b, k->route);
    }
    for (size_t i = 0; i < k->nfields; i++)
        add_field_part(&k->fields[i], h, b);
    for (size_t i = 0; i < k->ncookies; i++)
        add_cookie_part(&k->cookies[i], h, b);
}

/* ---- the key ------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) int
make_url(const struct key_recipe *recipe, bool https, struct slice host, struct slice path,
    struct slice query, struct buf *b, struct key *k)
{
    struct slice scheme = https ? SLICE("https://") : SLICE("http://");
    char *at;

    if (recipe != NULL && recipe->no_host)
        host.n = 0;
    b->n = 0;
    b->failed = false;
    at = buf_reserve(b, scheme.n + host.n + path.n + query.n + 1);
    if (at == NULL)
        return -1;
    memcpy(at, scheme.p, scheme.n);
    if (host.n > 0)
        memcpy(at + scheme.n, host.p, host.n);
    k->path_at = (uint32_t)(scheme.n + host.n);
    memcpy(at + k->path_at, path.p, path.n);
    b->n = k->path_at + path.n;
    if (query.p != NULL && recipe != NULL && recipe->query_rules) {
        add_query(recipe, query, b);
    } else if (query.p != NULL) {
        b->p[b->n++] = '?';
        if (query.n > 0)
            memcpy(b->p + b->n, query.p, query.n);
        b->n += query.n;
    }
    if (b->failed || b->n > UINT32_MAX)
        return -1;
    k->url_n = (uint32_t)b->n;
    k->bytes = buf_slice(b);
    k->url_hash = k->hash = key_hash(k->bytes);
    return 0;
}

int
key_make(const struct key_recipe *recipe, const struct http_head *h, bool https,
    struct slice host, struct slice path, struct slice query, struct buf *b, struct key *k)
{
    if (make_url(recipe, https, host, path, query, b, k) == -1)
        return -1;
    if (LIKELY(recipe == NULL || !recipe->parts))
        return 0;
    add_parts(recipe, h, b);
    if (b->failed)
        return -1;
    k->bytes = buf_slice(b);
    k->hash = key_hash(k->bytes);
    return 0;
}

int
key_add(struct key *k, char kind, struct slice value, struct buf *b)
{
    if (b->n == k->url_n)
        buf_addc(b, '\0');
    buf_addc(b, kind);
    add_counted(b, value);
    buf_addc(b, '.');
    if (b->failed || b->n > UINT32_MAX)
        return -1;
    k->bytes = buf_slice(b);
    k->hash = key_hash(k->bytes);
    return 0;
}

/* ---- its parts, told ------------------------------------------------------------------------ */

/* "5:value" off the front of rest; false when that does not begin so. */
static bool
cut_counted(struct slice *rest, struct slice *value)
{
    const char *colon = rest->n > 0 ? memchr(rest->p, ':', rest->n) : NULL;
    uint64_t n;

    if (colon == NULL || !slice_u64((struct slice){ rest->p, (size_t)(colon - rest->p) }, &n) ||
        n > (size_t)(rest->p + rest->n - colon - 1))
        return false;
    *value = (struct slice){ colon + 1, n };
    rest->n -= (size_t)(colon + 1 - rest->p) + n;
    rest->p = colon + 1 + n;
    return true;
}

struct telling { void (*each)(void *arg, const char *name, struct slice value); void *arg; };

/* All values up to the '.' behind them; one without any is absent. */
static void
tell_part(const struct telling *t, const char *kind, struct slice name, struct slice *rest)
{
    struct slice value = { NULL, 0 };
    char text[256];
    bool any = false;

    snprintf(text, sizeof text, "%s%.*s", kind, SLICE_ARG(name));
    while (cut_counted(rest, &value)) {
        t->each(t->arg, text, value);
        any = true;
    }
    if (!any)
        t->each(t->arg, text, (struct slice){ NULL, 0 });
    if (rest->n > 0) {
        rest->p++;
        rest->n--;
    }
}

int
key_block(const struct key *k, const uint64_t *block, struct buf *b, struct key *out)
{
    struct buf n = { 0 };
    int rc;

    if (block != NULL)
        buf_addu(&n, *block);
    *out = *k;
    b->n = 0;
    buf_adds(b, k->bytes);
    rc = b->failed || n.failed ? -1 : key_add(out, 'B', buf_slice(&n), b);
    buf_free(&n);
    return rc;
}

static const char *
added_name(char kind)
{
    switch (kind) {
    case 'f': return "forwarded";
    case 'h': return "x-forwarded-host";
    case 'o': return "x-forwarded-port";
    case 'p': return "x-forwarded-proto";
    case 'P': return "plugin";
    default:  return "content";
    }
}

void
key_parts_each(const struct key_recipe *recipe, const struct key *k,
    void (*each)(void *arg, const char *name, struct slice value), void *arg)
{
    struct slice rest = { k->bytes.p + k->url_n, k->bytes.n - k->url_n }, value;
    struct telling t = { each, arg };

    if (rest.n == 0)
        return;
    rest.p++;
    rest.n--;
    if (recipe != NULL && recipe->route.n > 0 && cut_counted(&rest, &value))
        each(arg, "route", value);
    for (size_t i = 0; recipe != NULL && i < recipe->nfields; i++)
        tell_part(&t, "header ", recipe->fields[i].name, &rest);
    for (size_t i = 0; recipe != NULL && i < recipe->ncookies; i++)
        tell_part(&t, "cookie ", recipe->cookies[i].name, &rest);
    while (rest.n > 1) {
        char kind = *rest.p++;

        rest.n--;
        tell_part(&t, added_name(kind), SLICE(""), &rest);
    }
}

/* "http:///path" is what an HTTP/1.0 request without Host asks for: its key has no host. */
static int
parse_url(struct slice url, struct http_uri *u, struct buf *b)
{
    static const struct slice without[] = { { "http:///", 8 }, { "https:///", 9 } };
    int rc = http_uri_parse(url, u);

    for (size_t i = 0; rc == -1 && i < NELEM(without); i++) {
        size_t n = without[i].n - 1;

        if (url.n <= n || !slice_ieq((struct slice){ url.p, n + 1 }, without[i]))
            continue;
        buf_add(b, url.p, n);
        buf_addc(b, 'h');               /* stands in while the rest is parsed */
        buf_add(b, url.p + n, url.n - n);
        rc = b->failed ? -1 : http_uri_parse(buf_slice(b), u);
        u->host.n = 0;
    }
    return rc;
}

/* Off the hot path: an operator's purge, or the target of a write. */
int
key_of_url(const struct key_recipe *recipe, struct slice url, struct buf *b, struct key *k)
{
    struct buf host = { 0 }, target = { 0 }, whole = { 0 };
    struct slice path, query = { NULL, 0 };
    struct http_uri u;
    const char *mark;
    bool https;
    int rc = -1;

    if (parse_url(url, &u, &whole) == -1) {
        b->failed = whole.failed;
        buf_free(&whole);
        return -1;
    }
    https = slice_ieq(u.scheme, SLICE("https"));
    http_host_normalise(&host, u.host, https);
    http_uri_normalise(&target, u.path, u.query);
    if (!host.failed && !target.failed && target.n > 0) {
        path = buf_slice(&target);
        mark = u.query.p != NULL ? memchr(path.p, '?', path.n) : NULL;
        if (mark != NULL) {
            query = (struct slice){ mark + 1, (size_t)(path.p + path.n - mark - 1) };
            path.n = (size_t)(mark - path.p);
        }
        rc = make_url(recipe, https, buf_slice(&host), path, query, b, k);
    } else {
        b->failed = true;
    }
    buf_free(&host);
    buf_free(&target);
    buf_free(&whole);
    return rc;
}
