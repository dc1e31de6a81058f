/*
 * Of `cache.redis` what no single value shows.
 */
#include "config/inside.h"
#include "redis/redis.h"

#include <errno.h>
#include <unistd.h>

#define PREFIX_MAX 64

static struct conf_where
where(struct load *l, const char *path)
{
    static const struct conf_where nowhere = { 0, 0 };

    return spot_where(l->root, path, spot_where(l->root, "cache.redis", nowhere));
}

static void
check_file(struct load *l, const char *file, const char *path)
{
    if (file != NULL && access(file, R_OK) == -1)
        problem(l, where(l, path), path, "%s cannot be read: %s; a file of PEM, readable for "
            "weir's user", file, strerror(errno));
}

/* A brace in it would put all keys of a cluster on one server, or into none of ours. */
static bool
prefix_is_good(const char *prefix)
{
    size_t n = strlen(prefix);

    for (size_t i = 0; i < n; i++)
        if (prefix[i] <= ' ' || prefix[i] > '~' || prefix[i] == '{' || prefix[i] == '}')
            return false;
    return n > 0 && n <= PREFIX_MAX;
}

static void
check_tls(struct load *l, bool tls)
{
    const struct conf *c = l->c;
    bool asked = c->redis_tls_ca_file != NULL || c->redis_tls_cert_file != NULL ||
        c->redis_tls_key_file != NULL || c->redis_tls_server_name != NULL || !c->redis_tls_verify;

    check_file(l, c->redis_tls_ca_file, "cache.redis.tls.ca_file");
    check_file(l, c->redis_tls_cert_file, "cache.redis.tls.cert_file");
    check_file(l, c->redis_tls_key_file, "cache.redis.tls.key_file");
    if ((c->redis_tls_cert_file == NULL) != (c->redis_tls_key_file == NULL))
        problem(l, where(l, "cache.redis.tls"), c->redis_tls_key_file == NULL ?
            "cache.redis.tls.cert_file" : "cache.redis.tls.key_file", "one without the other; "
            "tls.cert_file and tls.key_file");
    if (asked && !tls)
        warning(l, where(l, "cache.redis.tls"), "cache.redis.tls", "has no effect; the url is not "
            "rediss://");
    else if (!c->redis_tls_verify)
        warning(l, where(l, "cache.redis.tls.verify"), "cache.redis.tls.verify", "certificates are "
            "not verified: whoever is between can read and change everything");
}

static const char *
read_password(struct load *l, const char *file, const char *path)
{
    return file != NULL ? token_read(l, file, where(l, path), path) : NULL;
}

/* All are read alike: by TLS or not, the same database. */
static void
check_urls(struct load *l, struct redis_url *first)
{
    const struct conf *c = l->c;
    const struct node *redis = tree_at(l->root, "cache.redis");
    struct redis_url u;
    struct err e;

    for (size_t i = 0; i < c->redis_url.n; i++) {
        const char *text = c->redis_url.at[i];
        struct spot s = spot_item(l, redis, "cache.redis", "url", text);

        if (redis_url_read(slice_of(text), l->c->pool, &u, &e) == -1) {
            problem(l, s.where, s.path, "%s %s; a server, as redis://127.0.0.1:6379 or "
                "rediss://redis.example:6379/1", strchr(text, '@') != NULL ? "it" :
                shown(l, slice_of(text)), e.text);
            continue;
        }
        if (i == 0)
            *first = u;
        if (u.tls != first->tls || u.db != first->db)
            problem(l, s.where, s.path, "is not as the one before; of all the same scheme and the "
                "same database");
    }
}

static void
check_kind(struct load *l, const struct redis_url *first)
{
    const struct conf *c = l->c;
    bool sentinel = c->redis_sentinel_master != NULL;

    if (sentinel && c->redis_cluster)
        problem(l, where(l, "cache.redis.cluster"), "cache.redis.cluster", "a cluster has no "
            "sentinels; cluster or sentinel.master");
    if (c->redis_url.n > 1 && !sentinel && !c->redis_cluster)
        problem(l, where(l, "cache.redis.url"), "cache.redis.url", "several servers; with "
            "sentinel.master, or cluster: true, or one");
    if (c->redis_cluster && first->db != 0)
        problem(l, where(l, "cache.redis.url"), "cache.redis.url", "a cluster has no database but "
            "0; without one");
    if (!sentinel && (c->redis_sentinel_username != NULL ||
        c->redis_sentinel_password_file != NULL))
        warning(l, where(l, "cache.redis.sentinel"), "cache.redis.sentinel", "has no effect; there "
            "is no sentinel.master");
}

void
check_redis(struct load *l)
{
    struct conf *c = l->c;
    struct redis_url first = { 0 };

    if (c->redis_url.n == 0) {
        if (c->redis_username != NULL || c->redis_password_file != NULL)
            problem(l, where(l, "cache.redis"), "cache.redis.url", "no server; one, as "
                "redis://127.0.0.1:6379");
        return;
    }
    check_urls(l, &first);
    check_kind(l, &first);
    if (!prefix_is_good(c->redis_prefix))
        problem(l, where(l, "cache.redis.prefix"), "cache.redis.prefix", "1 to %d printable "
            "characters of ASCII without spaces and braces are wanted; such as weir:", PREFIX_MAX);
    c->redis_password = read_password(l, c->redis_password_file, "cache.redis.password_file");
    c->redis_sentinel_password = read_password(l, c->redis_sentinel_password_file,
        "cache.redis.sentinel.password_file");
    if (c->redis_username != NULL && c->redis_password_file == NULL)
        warning(l, where(l, "cache.redis.username"), "cache.redis.username", "a user without a "
            "password; cache.redis.password_file as well");
    check_tls(l, first.tls);
}
