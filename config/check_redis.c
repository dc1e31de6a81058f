/*
 * Of `cache.redis` and `journal.redis` what no single value shows.
 */
#include "config/inside.h"
#include "redis/redis.h"

#include <errno.h>
#include <unistd.h>

#define PREFIX_MAX 64

/* One of the sections in which a Redis is named. */
struct section { struct load *l; struct conf_redis *r; const char *at; };

/* Of a word in it, else of the section. */
static struct spot
spot(const struct section *s, const char *word)
{
    static const struct conf_where nowhere = { 0, 0 };

    return (struct spot){ spot_where(tree_at(s->l->root, s->at), word, nowhere),
        textf(s->l, "%s.%s", s->at, word) };
}

static void
check_file(const struct section *s, const char *file, const char *word)
{
    struct spot at = spot(s, word);

    if (file != NULL && access(file, R_OK) == -1)
        problem(s->l, at.where, at.path, "%s cannot be read: %s; a file of PEM, readable for "
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
check_tls(const struct section *s, bool tls)
{
    const struct conf_redis *r = s->r;
    bool asked = r->tls_ca_file != NULL || r->tls_cert_file != NULL || r->tls_key_file != NULL ||
        r->tls_server_name != NULL || !r->tls_verify;
    struct spot at = spot(s, "tls"), verify = spot(s, "tls.verify");

    check_file(s, r->tls_ca_file, "tls.ca_file");
    check_file(s, r->tls_cert_file, "tls.cert_file");
    check_file(s, r->tls_key_file, "tls.key_file");
    if ((r->tls_cert_file == NULL) != (r->tls_key_file == NULL))
        problem(s->l, at.where, textf(s->l, "%s.%s", at.path, r->tls_key_file == NULL ?
            "cert_file" : "key_file"), "one without the other; tls.cert_file and tls.key_file");
    if (asked && !tls)
        warning(s->l, at.where, at.path, "has no effect; the url is not rediss://");
    else if (!r->tls_verify)
        warning(s->l, verify.where, verify.path, "certificates are not verified: whoever is "
            "between can read and change everything");
}

static const char *
read_password(const struct section *s, const char *file, const char *word)
{
    struct spot at = spot(s, word);

    return file != NULL ? token_read(s->l, file, at.where, at.path) : NULL;
}

/* All are read alike: by TLS or not, the same database. */
static void
check_urls(const struct section *s, struct redis_url *first)
{
    const struct node *section = tree_at(s->l->root, s->at);
    struct redis_url u;
    struct err e;

    for (size_t i = 0; i < s->r->url.n; i++) {
        const char *text = s->r->url.at[i];
        struct spot at = spot_item(s->l, section, s->at, "url", text);

        if (redis_url_read(slice_of(text), s->l->c->pool, &u, &e) == -1) {
            problem(s->l, at.where, at.path, "%s %s; a server, as redis://127.0.0.1:6379 or "
                "rediss://redis.example:6379/1", strchr(text, '@') != NULL ? "it" :
                shown(s->l, slice_of(text)), e.text);
            continue;
        }
        if (i == 0)
            *first = u;
        if (u.tls != first->tls || u.db != first->db)
            problem(s->l, at.where, at.path, "is not as the one before; of all the same scheme and "
                "the same database");
    }
}

static void
check_kind(const struct section *s, const struct redis_url *first)
{
    const struct conf_redis *r = s->r;
    struct spot url = spot(s, "url"), cluster = spot(s, "cluster");
    struct spot sentinel = spot(s, "sentinel");

    if (r->sentinel_master != NULL && r->cluster)
        problem(s->l, cluster.where, cluster.path, "a cluster has no sentinels; cluster or "
            "sentinel.master");
    if (r->url.n > 1 && r->sentinel_master == NULL && !r->cluster)
        problem(s->l, url.where, url.path, "several servers; with sentinel.master, or cluster: "
            "true, or one");
    if (r->cluster && first->db != 0)
        problem(s->l, url.where, url.path, "a cluster has no database but 0; without one");
    if (r->sentinel_master == NULL && (r->sentinel_username != NULL ||
        r->sentinel_password_file != NULL))
        warning(s->l, sentinel.where, sentinel.path, "has no effect; there is no sentinel.master");
}

static void
check_section(const struct section *s)
{
    struct conf_redis *r = s->r;
    struct redis_url first = { 0 };
    struct spot url = spot(s, "url"), prefix = spot(s, "prefix"), user = spot(s, "username");

    if (r->url.n == 0) {
        if (r->username != NULL || r->password_file != NULL)
            problem(s->l, url.where, url.path, "no server; one, as redis://127.0.0.1:6379");
        return;
    }
    check_urls(s, &first);
    check_kind(s, &first);
    if (!prefix_is_good(r->prefix))
        problem(s->l, prefix.where, prefix.path, "1 to %d printable characters of ASCII without "
            "spaces and braces are wanted; such as weir:", PREFIX_MAX);
    r->password = read_password(s, r->password_file, "password_file");
    r->sentinel_password = read_password(s, r->sentinel_password_file, "sentinel.password_file");
    if (r->username != NULL && r->password_file == NULL)
        warning(s->l, user.where, user.path, "a user without a password; %s.password_file as "
            "well", s->at);
    check_tls(s, first.tls);
}

/* ---- the journal's ------------------------------------------------------------------------ */

/* Is the i-th url of a that of a server, or of a master behind a sentinel, which b names too? */
static bool
also_named(struct load *l, const struct conf_redis *a, size_t i, const struct conf_redis *b)
{
    struct redis_url u, v;

    if (strcmp(a->sentinel_master != NULL ? a->sentinel_master : "",
        b->sentinel_master != NULL ? b->sentinel_master : "") != 0 ||
        redis_url_read(slice_of(a->url.at[i]), l->scratch, &u, NULL) == -1)
        return false;
    for (size_t k = 0; k < b->url.n; k++)
        if (redis_url_read(slice_of(b->url.at[k]), l->scratch, &v, NULL) == 0 &&
            u.server.port == v.server.port && strcasecmp(u.server.host, v.server.host) == 0)
            return true;
    return false;
}

static void
check_journal(const struct section *s)
{
    struct load *l = s->l;
    struct spot url = spot(s, "url");

    if (s->r->url.n == 0)
        return;
    if (l->c->journal_path != NULL)
        problem(l, url.where, url.path, "stands beside journal.path, and a journal is in one "
            "place; one or the other (`weir writes move` takes what is in a file over)");
    for (size_t i = 0; i < s->r->url.n; i++) {
        struct spot at = spot_item(l, tree_at(l->root, s->at), s->at, "url", s->r->url.at[i]);

        if (!also_named(l, s->r, i, &l->c->redis))
            continue;
        warning(l, at.where, at.path, "is of cache.redis too, and what a cache may evict a "
            "journal must keep; maxmemory-policy noeviction there, or a Redis of its own");
        return;
    }
}

void
check_redis(struct load *l)
{
    const struct section cache = { l, &l->c->redis, "cache.redis" };
    const struct section journal = { l, &l->c->journal_redis, "journal.redis" };

    check_section(&cache);
    check_section(&journal);
    check_journal(&journal);
}
