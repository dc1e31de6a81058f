/*
 * The configuration's options of Redis as this room wants them.
 *
 *   redis://HOST[:PORT][/DB]     port 6379, database 0; rediss:// over TLS
 *
 * Threads  any.
 */
#include "redis/redis.h"

#include <errno.h>

#include "config/conf.h"
#include "http/http.h"

#define PORT   6379
#define DB_MAX 65535                    /* `databases` of redis.conf says 16 by default */

/* "host", "host:port", "[::1]:port". */
static int
read_host(struct slice s, struct pool *p, struct redis_server *out, struct err *e)
{
    size_t end = s.n;
    uint64_t port = PORT;

    if (!http_is_host(s) || s.p[s.n - 1] == ':')
        return err_set(e, EINVAL, "has no valid host");
    while (end > 0 && s.p[end - 1] != ':' && s.p[end - 1] != ']')
        end--;
    if (end > 0 && s.p[end - 1] == ':') {
        if (!slice_u64((struct slice){ s.p + end, s.n - end }, &port) || port == 0 || port > 65535)
            return err_set(e, EINVAL, "has no valid port");
        s.n = end - 1;
    }
    if (s.n > 2 && s.p[0] == '[')
        s = (struct slice){ s.p + 1, s.n - 2 };
    if (s.n == 0)
        return err_set(e, EINVAL, "has no valid host");
    out->port = (uint16_t)port;
    out->host = pool_dup(p, s.p, s.n);
    return out->host != NULL ? 0 : err_set(e, ENOMEM, "memory is out");
}

int
redis_url_read(struct slice s, struct pool *p, struct redis_url *out, struct err *e)
{
    struct slice rest = s, host;
    uint64_t db = 0;

    *out = (struct redis_url){ .tls = slice_starts(s, SLICE("rediss://")) };
    if (!out->tls && !slice_starts(s, SLICE("redis://")))
        return err_set(e, EINVAL, "does not begin with redis:// or rediss://");
    rest.p += out->tls ? 9 : 8;
    rest.n -= out->tls ? 9 : 8;
    if (rest.n > 0 && memchr(rest.p, '@', rest.n) != NULL)
        return err_set(e, EINVAL, "has a user's name or password in it: a configuration is shown "
            "to many; use username and password_file");
    (void)slice_cut(&rest, '/', &host);
    if (rest.n > 0 && (!slice_u64(rest, &db) || db > DB_MAX))
        return err_set(e, EINVAL, "has something behind the host that is no database's number");
    out->db = (unsigned)db;
    return read_host(host, p, &out->server, e);
}

int
redis_conf_of(const struct conf_redis *c, struct pool *p, struct redis_conf *out, struct err *e)
{
    size_t n = c->url.n;
    struct redis_server *servers = pool_alloc(p, (n + 1) * sizeof *servers);
    struct redis_url u = { 0 };
    struct err why;

    *out = (struct redis_conf){ 0 };
    if (n == 0)
        return 0;
    if (servers == NULL)
        return err_set(e, ENOMEM, "Redis: memory is out");
    for (size_t i = 0; i < n; i++) {
        if (redis_url_read(slice_of(c->url.at[i]), p, &u, &why) == -1)
            return err_set(e, why.code, "Redis: its url %s", why.text);
        servers[i] = u.server;
    }
    *out = (struct redis_conf){ .servers = servers, .nservers = n,
        .kind = c->sentinel_master != NULL ? REDIS_SENTINEL :
            c->cluster ? REDIS_CLUSTERED : REDIS_SINGLE,
        .master = c->sentinel_master, .db = u.db, .tls = u.tls,
        .username = c->username, .password = c->password,
        .sentinel_username = c->sentinel_username,
        .sentinel_password = c->sentinel_password,
        .verify = c->tls_verify, .ca_file = c->tls_ca_file,
        .cert_file = c->tls_cert_file, .key_file = c->tls_key_file,
        .server_name = c->tls_server_name };
    return 1;
}
