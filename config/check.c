/*
 * What no single value shows, but for the routes (check_route.c): options that contradict one
 * another, addresses taken twice, files that must be readable.
 *
 * Problems stand at the value that is at fault; where a default is, at what it belongs to.
 */
#include "config/inside.h"
#include "http/http.h"

#define VIA_MAX 128                     /* it stands in each answer */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN_MAX   4096
#define OBJECT_HEAD (128 << 10)         /* of a stored object: key, variant, head */

/* ---- places ------------------------------------------------------------------------------- */

static const struct conf_where nowhere = { 0, 0 };

/* Of the value at a path below n, else of n, else `other`. */
struct conf_where
spot_where(const struct node *n, const char *path, struct conf_where other)
{
    const struct node *v = tree_at(n, path);

    return v != NULL ? v->where : n != NULL ? n->where : other;
}

/* Of a text of a list option, which may also stand alone; of several equal ones the last. */
struct spot
spot_item(struct load *l, const struct node *section, const char *at, const char *option,
    const char *text)
{
    const struct node *v = tree_at(section, option);
    struct spot s = { spot_where(section, option, nowhere), textf(l, "%s.%s", at, option) };

    for (size_t i = v != NULL && v->type == NODE_LIST ? v->n : 0; i > 0; i--)
        if (v->items[i - 1]->type == NODE_SCALAR && strcmp(v->items[i - 1]->text.p, text) == 0)
            return (struct spot){ v->items[i - 1]->where, textf(l, "%s[%zu]", s.path, i - 1) };
    return s;
}

/* ---- files -------------------------------------------------------------------------------- */

const char *
token_read(struct load *l, const char *file, struct conf_where w, const char *path)
{
    const char *what = strstr(path, "password") != NULL ? "password" : "token";
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char bytes[TOKEN_MAX + 1];
    struct stat st;
    ssize_t n = fd != -1 ? read(fd, bytes, sizeof bytes) : -1;
    const char *out = NULL;

    if (n == -1) {
        problem(l, w, path, "%s cannot be read: %s; a file with the %s alone, "
            "readable for weir's user", file, strerror(errno), what);
        goto out;
    }
    while (n > 0 && (bytes[n - 1] == '\n' || bytes[n - 1] == '\r'))
        n--;
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] <= ' ' || bytes[i] == 0x7f) {
            problem(l, w, path, "%s holds more than a %s; one line without spaces, ASCII alone",
                file, what);
            goto out;
        }
    }
    if (n == 0 || n > TOKEN_MAX) {
        problem(l, w, path, "%s is %s; a file with a %s of 1..%d characters", file,
            n == 0 ? "empty" : "too long", what, TOKEN_MAX);
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

/* Where the access log goes must be there, or can be made. Who runs check may be another than who
 * runs weir: what only permissions say is a warning. */
static void
check_access_log(struct load *l)
{
    const char *file = l->c->log_access, *slash = strrchr(file, '/');
    struct conf_where w = spot_where(l->root, "log.access", nowhere);
    const char *dir = slash == NULL ? "." : slash == file ? "/" :
        textf(l, "%.*s", (int)(slash - file), file);
    struct stat st;

    if (strcmp(file, "off") == 0 || strcmp(file, "stdout") == 0)
        return;
    if (stat(file, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            problem(l, w, "log.access", "%s is a directory; a file's path, as %s/access.log, or "
                "`stdout`, or `off`", file, strcmp(file, "/") == 0 ? "" : file);
        else if (access(file, W_OK) == -1)
            warning(l, w, "log.access", "%s cannot be written by this user: %s; let weir's user "
                "write it", file, strerror(errno));
    } else if (stat(dir, &st) == -1 || !S_ISDIR(st.st_mode)) {
        problem(l, w, "log.access", "there is no directory %s; make it, or name a file in another",
            dir);
    } else if (slash != NULL && slash[1] == '\0') {
        problem(l, w, "log.access", "%s is no file's path; a file's, or `stdout`, or `off`", file);
    } else if (access(dir, W_OK) == -1) {
        warning(l, w, "log.access", "no file can be made in %s by this user: %s; let weir's user "
            "write there", dir, strerror(errno));
    }
}

/* ---- addresses ---------------------------------------------------------------------------- */

static bool
is_loopback(const struct conf_address *a)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->sa;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->sa;

    if (a->sa.ss_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static bool
is_mapped(const struct conf_address *a)
{
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->sa;

    return !a->off && a->sa.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
}

/* Would binding both fail or share connections? The wildcard address contains the others of its
 * family: sockets of IPv6 take nothing else (IPV6_V6ONLY). */
static bool
overlap(const struct conf_address *a, const struct conf_address *b)
{
    const struct sockaddr_in *a4 = (const void *)&a->sa, *b4 = (const void *)&b->sa;
    const struct sockaddr_in6 *a6 = (const void *)&a->sa, *b6 = (const void *)&b->sa;

    if (a->off || b->off || a->sa.ss_family != b->sa.ss_family)
        return false;
    if (a->sa.ss_family == AF_INET)
        return a4->sin_port == b4->sin_port && a4->sin_port != 0 &&
            (a4->sin_addr.s_addr == b4->sin_addr.s_addr || a4->sin_addr.s_addr == 0 ||
                b4->sin_addr.s_addr == 0);
    return a6->sin6_port == b6->sin6_port && a6->sin6_port != 0 &&
        (memcmp(&a6->sin6_addr, &b6->sin6_addr, 16) == 0 ||
            IN6_IS_ADDR_UNSPECIFIED(&a6->sin6_addr) || IN6_IS_ADDR_UNSPECIFIED(&b6->sin6_addr));
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
    for (size_t i = 0; i < c->nlisteners; i++) {
        all[n].address = &c->listeners[i].address;
        all[n].where = spot_where(l->listeners[i], "address", c->listeners[i].where);
        all[n++].path = c->nlisteners > 1 ? textf(l, "listen[%zu]", i) : "listen";
    }
    all[n].address = &c->admin_listen;
    all[n].where = spot_where(l->root, "admin.listen", nowhere);
    all[n++].path = "admin.listen";
    all[n].address = &c->probe_listen;
    all[n].where = spot_where(l->root, "probe.listen", nowhere);
    all[n++].path = "probe.listen";
    for (size_t i = 0; i < n; i++) {
        if (is_mapped(all[i].address))
            problem(l, all[i].where, all[i].path, "%s is an IPv4 address in IPv6 dress, which is "
                "not listened on; the IPv4 address, as 127.0.0.1:8080", all[i].address->text);
        for (size_t k = 0; k < i; k++) {
            if (overlap(all[i].address, all[k].address)) {
                problem(l, all[i].where, all[i].path,
                    "%s is taken by %s already (%s); another port", all[i].address->text,
                    all[k].path, all[k].address->text);
                break;
            }
        }
    }
}

/* ---- the top level ------------------------------------------------------------------------ */

static int64_t
most_of(int64_t memory)
{
    return memory / 8 - (memory / 64 < OBJECT_HEAD ? memory / 64 : OBJECT_HEAD);
}

void
conf_cap_objects(struct conf *c)
{
    int64_t most = most_of(c->cache_memory);

    if (c->cache_max_object > most)
        c->cache_max_object = most;
    for (size_t i = 0; i < c->nroutes; i++)
        if (c->routes[i].max_object != CONF_UNSET && c->routes[i].max_object > most)
            c->routes[i].max_object = most;
}

/* The store keeps nothing larger than an eighth of its memory, key and head included. A limit
 * beyond that is taken down to it here, so that what is announced as stored is stored: `*max`
 * becomes what holds. path NULL: a default, of which nobody needs to be told. */
void
cap_object(struct load *l, int64_t *max, struct conf_where w, const char *path)
{
    int64_t memory = l->c->cache_memory, most = most_of(memory);

    if (*max <= most)
        return;
    if (path != NULL && *max > memory)
        problem(l, w, path, "is more than cache.memory; at most %lldKiB of it, or more "
            "cache.memory", (long long)(most >> 10));
    else if (path != NULL)
        warning(l, w, path, "is more than one object may take of cache.memory, an eighth with its "
            "head: it is taken as %lldKiB; at most that, or more cache.memory",
            (long long)(most >> 10));
    *max = most;
}

/* A configuration in force is told with all its options, also those that have no effect. */
static bool
is_default(struct load *l, const char *path)
{
    const struct option *o = option_find(&table_top, path);
    struct buf b = { 0 };
    bool is = value_put(&b, o, l->c) && slice_eq(buf_slice(&b), slice_of(o->def));

    buf_free(&b);
    return is;
}

/* What only permissions say is a warning, as above. */
static void
check_disk(struct load *l)
{
    struct conf_where w = spot_where(l->root, "cache.disk.path", nowhere);
    const char *path = l->c->cache_disk_path;
    struct stat st;

    if (path == NULL && !(is_default(l, "cache.disk.size") &&
        is_default(l, "cache.disk.max_object")))
        problem(l, spot_where(l->root, "cache.disk", nowhere), "cache.disk", "says not where; "
            "a directory, as `disk: {path: /var/lib/weir/cache, size: 1GiB}`");
    if (path == NULL || stat(path, &st) == -1)
        return;                         /* it is made, or the start says why not */
    if (!S_ISDIR(st.st_mode))
        problem(l, w, "cache.disk.path", "%s is no directory; a directory, or the path of one to "
            "be made", path);
    else if (access(path, W_OK | X_OK) == -1)
        warning(l, w, "cache.disk.path", "%s cannot be written by this user: %s; let weir's user "
            "write there", path, strerror(errno));
}

static void
check_top(struct load *l)
{
    struct conf *c = l->c;
    struct conf_where admin = spot_where(l->root, "admin.listen", nowhere);

    if (c->admin_token_file != NULL)
        c->admin_token = token_read(l, c->admin_token_file,
            spot_where(l->root, "admin.token_file", nowhere), "admin.token_file");
    else if (!c->admin_listen.off && !is_loopback(&c->admin_listen))
        problem(l, admin, "admin.listen", "%s is open to others and has no token; "
            "admin.token_file, or an address of loopback such as 127.0.0.1:8081",
            c->admin_listen.text);
    for (size_t i = 0; i < c->admin_hosts.n; i++) {
        struct spot s = spot_item(l, tree_at(l->root, "admin"), "admin", "hosts",
            c->admin_hosts.at[i]);

        if (!http_is_host(slice_of(c->admin_hosts.at[i])))
            problem(l, s.where, s.path, "%s is no host; a name such as weir.example.com",
                shown(l, slice_of(c->admin_hosts.at[i])));
    }
    for (size_t i = 0; i < c->dns_servers.n; i++) {
        const char *text = c->dns_servers.at[i];
        struct spot s = spot_item(l, tree_at(l->root, "dns"), "dns", "servers", text);
        struct conf_address a;
        uint8_t bytes[16];

        if (inet_pton(AF_INET, text, bytes) != 1 && inet_pton(AF_INET6, text, bytes) != 1 &&
            value_address(slice_of(text), &a, l->scratch) == -1)
            problem(l, s.where, s.path, "%s is no name server; an address such as 10.0.0.2 "
                "or 10.0.0.2:53", shown(l, slice_of(text)));
    }
    check_redis(l);
    check_access_log(l);
    check_disk(l);
    cap_object(l, &c->cache_max_object, spot_where(l->root, "cache.max_object", nowhere),
        tree_at(l->root, "cache.max_object") != NULL ? "cache.max_object" : NULL);
    if (strlen(c->via) > VIA_MAX)
        problem(l, spot_where(l->root, "via", nowhere), "via", "is longer than %d characters; a "
            "short name such as edge-1", VIA_MAX);
    for (size_t i = 0; i < c->cache_targeted.n; i++) {
        struct spot s = spot_item(l, tree_at(l->root, "cache"), "cache", "targeted",
            c->cache_targeted.at[i]);

        if (!http_is_token(slice_of(c->cache_targeted.at[i])))
            problem(l, s.where, s.path, "%s is none; a field name such as CDN-Cache-Control",
                shown(l, slice_of(c->cache_targeted.at[i])));
    }
}

static void
check_listener(struct load *l, size_t i)
{
    struct conf_listener *c = &l->c->listeners[i];
    const struct node *n = l->listeners[i];
    const char *at = l->c->nlisteners > 1 ? textf(l, "listen[%zu]", i) : "listen";

    if (c->address.off && c->address.text != NULL)
        problem(l, spot_where(n, "address", c->where), textf(l, "%s.address", at),
            "a listener that is off; leave it out, or an address with a port");
    if (c->proxy_protocol && c->trust.n == 0)
        problem(l, spot_where(n, "proxy_protocol", c->where), textf(l, "%s.proxy_protocol", at),
            "nobody is trusted to speak it; name the proxies in `trust`");
    if (c->limit_uri > c->limit_head)
        problem(l, spot_where(n, "limits.uri", spot_where(n, "limits.head", c->where)),
            textf(l, "%s.limits.uri", at), "is more than limits.head; at most that");
    if (c->purge_networks.n > 0 && c->purge_token_file == NULL)
        problem(l, spot_where(n, "purge.networks", c->where), textf(l, "%s.purge.networks", at),
            "PURGE without a token; purge.token_file as well");
    if (c->purge_token_file == NULL)
        return;
    if (c->purge_networks.n == 0)
        warning(l, spot_where(n, "purge.token_file", c->where), textf(l, "%s.purge.token_file", at),
            "nobody may use PURGE; name who may in purge.networks");
    l->c->purge_tokens[i] = token_read(l, c->purge_token_file,
        spot_where(n, "purge.token_file", c->where), textf(l, "%s.purge.token_file", at));
}

/* ---- origins ------------------------------------------------------------------------------ */

static void
check_origin(struct load *l, size_t i)
{
    const struct conf_origin *c = &l->c->origins[i];
    const struct node *n = l->origins[i];
    const struct node *servers = tree_at(n, "servers");
    const char *at = textf(l, "origins.%s", c->id);
    bool https = false;

    /* a list of which nothing was understood is reported already */
    if (c->servers.n == 0 && n != NULL && n->type == NODE_MAP && (servers == NULL ||
            (servers->type == NODE_LIST && servers->n == 0)))
        problem(l, spot_where(n, "servers", c->where), textf(l, "%s.servers", at),
            "no server; at least one, as http://127.0.0.1:8000");
    for (size_t k = 0; k < c->servers.n; k++)
        https |= c->servers.at[k].https;
    for (size_t k = 1; k < c->servers.n; k++)
        for (size_t m = 0; m < k && k < 64; m++)
            if (strcasecmp(c->servers.at[k].text, c->servers.at[m].text) == 0) {
                struct spot s = spot_item(l, n, at, "servers", c->servers.at[k].text);

                problem(l, s.where, s.path, "the same server twice; each once");
                break;
            }
    if (c->pool_min > c->pool_max)
        problem(l, spot_where(n, "pool.min", c->where), textf(l, "%s.pool.min", at),
            "is more than pool.max; at most %llu", (unsigned long long)c->pool_max);
    if (c->tls_ca_file != NULL && access(c->tls_ca_file, R_OK) == -1)
        problem(l, spot_where(n, "tls.ca_file", c->where), textf(l, "%s.tls.ca_file", at),
            "%s cannot be read: %s; a file of certificates (PEM)", c->tls_ca_file, strerror(errno));
    if (!c->tls_verify && https)
        warning(l, spot_where(n, "tls.verify", c->where), textf(l, "%s.tls.verify", at),
            "certificates are not verified: whoever is between can read and change everything");
    if ((c->tls_ca_file != NULL || !c->tls_verify) && !https && c->servers.n > 0)
        warning(l, spot_where(n, "tls", c->where), textf(l, "%s.tls", at), "has no effect; no "
            "server is https");
}

/* ---- the whole ---------------------------------------------------------------------------- */

void
check_all(struct load *l)
{
    const struct node *origins = tree_at(l->root, "origins");
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
    if (c->norigins == 0 && (origins == NULL || origins->n == 0))
        problem(l, spot_where(l->root, "origins", nowhere), "origins",
            "no origin to stand in front of; `origins: {api: {servers: [http://127.0.0.1:8000]}}`, "
            "or --origin URL");
    for (size_t i = 0; i < c->norigins; i++)
        check_origin(l, i);
    if (l->routes != NULL)
        check_routes(l);
}
