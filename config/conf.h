/*
 * config/conf.h -- the configuration as the rooms see it: plain data, read only.
 *
 * Generated from the tables in config/schema/: one line there is a field here, its default, the
 * loader, the message of `weir check`, the JSON schema and the reference. Everything is owned by
 * the struct conf and lives until the last conf_unref. Row 0: includes base alone.
 */
#ifndef WEIR_CONF_H
#define WEIR_CONF_H

#include <sys/socket.h>

#include "base/base.h"

enum conf_policy   { POLICY_CACHE_ASIDE, POLICY_PASS, POLICY_WRITE_THROUGH, POLICY_WRITE_BACK };
enum conf_balance  { BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONNECTIONS };
enum conf_purge_on { PURGE_ON_SUCCESS, PURGE_ON_ANY };
enum conf_log_form { LOG_FORM_JSON, LOG_FORM_COMBINED };
enum conf_write_fill { WRITE_FILL_AUTO, WRITE_FILL_RESPONSE, WRITE_FILL_REQUEST,
    WRITE_FILL_REFETCH };
enum conf_write_when { WRITE_WHEN_ALWAYS, WRITE_WHEN_PREFER, WRITE_WHEN_DOWN };
enum conf_write_ack { WRITE_ACK_202, WRITE_ACK_200, WRITE_ACK_201, WRITE_ACK_204 };
enum conf_write_else { WRITE_ELSE_REJECT, WRITE_ELSE_PASS };
enum conf_write_key  { WRITE_KEY_REJECT, WRITE_KEY_TARGET };
enum conf_write_durable { WRITE_FSYNC, WRITE_OS, WRITE_MEMORY };
enum conf_write_pending { WRITE_PENDING_WAIT, WRITE_PENDING_STALE, WRITE_PENDING_BYPASS };
enum conf_write_scope { WRITE_SCOPE_CLIENT, WRITE_SCOPE_ALL };
enum conf_lost { LOST_REVALIDATE, LOST_SERVE };
enum conf_on_failure {
    ON_FAILURE_BYPASS, ON_FAILURE_STALE, ON_FAILURE_SHED, ON_FAILURE_INHERIT
};
enum conf_on_error { ON_ERROR_FAIL, ON_ERROR_SKIP };
enum conf_write_batch { WRITE_BATCH_JSON_ARRAY, WRITE_BATCH_NDJSON };

#define CONF_UNSET INT64_MIN            /* a DURATION, TTL, BYTES or RATE that was left out */

struct conf_strings { const char **at; size_t n; };     /* at NULL: not given; n 0: maybe empty */
struct conf_fields  {
    /* secret: the value came from the environment, or its name says so; never shown */
    struct conf_field { const char *name, *value; bool secret; } *at;
    size_t n;
};
struct conf_ttls { struct conf_ttl { const char *name; int64_t ms; } *at; size_t n; };
struct conf_address { bool off; struct sockaddr_storage sa; socklen_t len; const char *text; };
struct conf_networks {
    struct conf_network { uint8_t family; uint8_t bits; uint8_t bytes[16]; } *at;   /* AF_INET(6) */
    size_t n;
};
struct conf_statuses { struct conf_status { unsigned status; int64_t ttl_ms; } *at; size_t n; };
/* http[s]://host:port, nothing behind it; host without the brackets of an IPv6 address. */
struct conf_urls {
    struct conf_url { const char *text, *host; uint16_t port; bool https; } *at;
    size_t n;
};

/* The kinds of value: KIND(NAME, C type, what a person reads in the reference). */
#define CONF_KINDS(KIND)                                                                       \
    KIND(COUNT,       uint64_t,                "a whole number")                               \
    KIND(BYTES,       int64_t,                 "a size such as 64KiB, 256MiB, 1GiB")           \
    KIND(DURATION,    int64_t,                 "a duration such as 50ms, 30s, 5m, 2h, 1d")     \
    KIND(TTL,         int64_t,                 "a duration, or a name of the top-level ttl")   \
    KIND(RATE,        int64_t,                 "a rate such as 500/s, 30/m or 10/h")           \
    KIND(PERCENT,     double,                  "a percentage such as 20% (kept as 0.2)")       \
    KIND(BOOL,        bool,                    "true or false")                                \
    KIND(STRING,      const char *,            "text")                                         \
    KIND(TOKEN,       const char *,            "a word of letters, digits and - _ .")          \
    KIND(FILE,        const char *,            "a file's path, from where weir runs")       \
    KIND(PATH,        const char *,            "a path that starts with /")                    \
    KIND(HOST,        const char *,            "a host name with an optional port")            \
    KIND(ADDRESS,     struct conf_address,     "ADDRESS:PORT, or off")                         \
    KIND(TEMPLATE,    const char *,            "a path template such as /api/users/{id}")      \
    KIND(TEMPLATES,   struct conf_strings,     "a text with placeholders, or a list of them")  \
    KIND(STRINGS,     struct conf_strings,     "a text, or a list of texts")                   \
    KIND(HOSTS,       struct conf_strings,     "a host, or a list of hosts")                   \
    KIND(NETWORKS,    struct conf_networks,    "a network such as 10.0.0.0/8, or a list")      \
    KIND(URLS,        struct conf_urls,        "a URL http[s]://HOST[:PORT], or a list")       \
    KIND(FIELDS,      struct conf_fields,      "a mapping of field names to values")           \
    KIND(STATUS_TTLS, struct conf_statuses,    "a mapping of statuses to durations")           \
    KIND(POLICY,      enum conf_policy,        "cache-aside, pass, write-through, write-back") \
    KIND(BALANCE,     enum conf_balance,       "round-robin or least-connections")             \
    KIND(PURGE_ON,    enum conf_purge_on,      "success or any")                               \
    KIND(LEVEL,       enum log_level,          "error, warn, info or debug")                   \
    KIND(LOGFORM,     enum conf_log_form,      "json or combined")                             \
    KIND(FILL,        enum conf_write_fill,    "auto, response, request or refetch")           \
    KIND(WHEN,        enum conf_write_when,    "always, prefer or down")                       \
    KIND(ACK,         enum conf_write_ack,     "202, 200, 201 or 204")                         \
    KIND(REFUSE,      enum conf_write_else,    "reject or pass")                               \
    KIND(MISSING,     enum conf_write_key,     "reject or target")                             \
    KIND(DURABLE,     enum conf_write_durable, "fsync, os or memory")                          \
    KIND(PENDING,     enum conf_write_pending, "wait, stale or bypass")                        \
    KIND(SCOPE,       enum conf_write_scope,   "client or all")                                \
    KIND(BATCH,       enum conf_write_batch,   "json-array or ndjson")                         \
    KIND(LOST,        enum conf_lost,          "revalidate or serve")                          \
    KIND(FAILING,     enum conf_on_failure,    "bypass, stale or shed")                        \
    KIND(FAILING_HERE, enum conf_on_failure,   "bypass, stale, shed or inherit")               \
    KIND(ON_ERROR,    enum conf_on_error,      "fail or skip")

#define KIND(name, type, text) typedef type conf_t_##name;
CONF_KINDS(KIND)
#undef KIND

struct conf_where { int line, column; };        /* 1-based; 0 when it came from no file */

#define OPTION(path, field, kind, def, min, max, applies, meaning) conf_t_##kind field;

struct conf_redis {
#define REDIS_OPTION(word, field, kind, def, meaning) conf_t_##kind field;
#include "config/schema/redis.def"
#undef REDIS_OPTION
    const char       *password, *sentinel_password;     /* the content of their files; or NULL */
};
#define REDIS_OPTION(word, field, kind, def, meaning)   /* of a member of its own */

struct conf_listener {
    struct conf_where where;
#include "config/schema/listen.def"
};

struct conf_origin {
    struct conf_where where;
    const char       *id;                       /* its key under `origins` */
#include "config/schema/origin.def"
};

struct plugin;
struct plugin_uses;
struct weir_option;
struct plugin_values;                           /* config's own: of a plugin's options */

struct conf_plugin {
    struct conf_where where;
    struct plugin    *plugin;                   /* owned, open; NULL only while loading */
    struct plugin_values *values;
    const struct weir_option *route_options;    /* of its library */
#include "config/schema/plugin.def"
};

struct conf_route {
    struct conf_where where;
    struct plugin_uses *plugins;                /* that it uses, open; NULL: none */
    struct plugin_values **plugin_values;       /* of each of conf.plugins; NULL: not used */
    bool              plugins_on_hits;          /* one of them has to do with every request */
    const struct conf_origin *to;               /* `origin`, resolved */
    unsigned          index;                    /* in conf.routes */
#include "config/schema/route.def"
};

struct conf {
    uint32_t          magic;
#define CONF_MAGIC 0xc04f1600u
    atomic_int        refs;
    struct pool      *pool;                     /* owned: everything below lives there */
    const char       *file;                     /* NULL when it came from no file */
    const char       *waiting;                  /* lines: what a restart would change; or NULL */
#include "config/schema/top.def"
    struct conf_redis redis, journal_redis;     /* url.n 0: none is configured */
    struct conf_ttls  ttls;                     /* the names of `ttl` */
    const char       *admin_token;              /* the content of admin_token_file, NULL without */
    struct conf_listener *listeners; size_t nlisteners;
    const char      **purge_tokens;             /* of each listener; NULL without */
    struct conf_origin *origins;  size_t norigins;
    const struct conf_origin *trace_to;         /* that of trace_origin, NULL without */
    struct conf_route  *routes;   size_t nroutes;
    struct conf_plugin *plugins;  size_t nplugins;  /* in the order in which they are called */
    void (*closing)(struct conf *c);            /* of what is open above; NULL: nothing is */
};
#undef OPTION
#undef REDIS_OPTION

static inline bool
conf_has_journal(const struct conf *c)
{
    return c->journal_path != NULL || c->journal_redis.url.n > 0;
}

static inline struct conf *
conf_ref(struct conf *c)
{
    CHECK(c, CONF_MAGIC);
    atomic_fetch_add(&c->refs, 1);
    return c;
}

static inline void
conf_unref(struct conf **cp)                    /* takes yours, leaves NULL; any thread */
{
    struct conf *c = *cp;

    *cp = NULL;
    if (c == NULL)
        return;
    CHECK(c, CONF_MAGIC);
    if (atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    if (c->closing != NULL)
        c->closing(c);
    c->magic = 0;
    pool_free(&(struct pool *){ c->pool });     /* the struct itself lives in the pool */
}

#endif
