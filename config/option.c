/*
 * The tables of config/schema/ at run time, and the kinds of value.
 */
#include "config/inside.h"

#define RELOAD  false
#define RESTART true
#define OPTION(path, field, kind, def, min, max, applies, meaning) \
    { path, offsetof(struct STRUCT, field), K_##kind, def, min, max, applies, meaning },
#define REDIS_OPTION(word, field, kind, def, meaning) \
    OPTION(REDIS_AT word, REDIS_IN.field, kind, def, "", "", RESTART, meaning)

#define STRUCT conf
static const struct option top[] = {
#include "config/schema/top.def"
};
#undef STRUCT
#define STRUCT conf_listener
static const struct option listener[] = {
#include "config/schema/listen.def"
};
#undef STRUCT
#define STRUCT conf_origin
static const struct option origin[] = {
#include "config/schema/origin.def"
};
#undef STRUCT
#define STRUCT conf_route
static const struct option route[] = {
#include "config/schema/route.def"
};
#undef STRUCT

#define STRUCT conf_plugin
static const struct option plugin[] = {
#include "config/schema/plugin.def"
};
#undef STRUCT

const struct table table_top = { "", top, NELEM(top) };
const struct table table_listen = { "listen", listener, NELEM(listener) };
const struct table table_origin = { "origins", origin, NELEM(origin) };
const struct table table_route = { "routes", route, NELEM(route) };
const struct table table_plugin = { "plugins", plugin, NELEM(plugin) };

const struct option *
option_find(const struct table *t, const char *path)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->at[i].path, path) == 0)
            return &t->at[i];
    return NULL;
}

bool
table_has_prefix(const struct table *t, const char *path)
{
    size_t n = strlen(path);

    for (size_t i = 0; i < t->n; i++)
        if (strncmp(t->at[i].path, path, n) == 0 && t->at[i].path[n] == '.')
            return true;
    return false;
}

const char *
kind_text(enum kind k)
{
    static const char *const texts[] = {
#define KIND(name, type, text) text,
        CONF_KINDS(KIND)
#undef KIND
    };
    return texts[k];
}

const char *
kind_name(enum kind k)
{
    static const char *const names[] = {
#define KIND(name, type, text) #name,
        CONF_KINDS(KIND)
#undef KIND
    };
    return names[k];
}

bool
kind_is_list(enum kind k)
{
    return k == K_TEMPLATES || k == K_STRINGS || k == K_HOSTS || k == K_NETWORKS || k == K_URLS;
}

/* In the order of the enums of conf.h. */
const char *const *
kind_words(enum kind k)
{
    static const char *const bools[] = { "false", "true", NULL };
    static const char *const policies[] =
        { "cache-aside", "pass", "write-through", "write-back", NULL };
    static const char *const balances[] = { "round-robin", "least-connections", NULL };
    static const char *const purges[] = { "success", "any", NULL };
    static const char *const levels[] = { "error", "warn", "info", "debug", NULL };
    static const char *const forms[] = { "json", "combined", NULL };
    static const char *const fills[] = { "auto", "response", "request", "refetch", NULL };
    static const char *const whens[] = { "always", "prefer", "down", NULL };
    static const char *const acks[] = { "202", "200", "201", "204", NULL };
    static const char *const refuses[] = { "reject", "pass", NULL };
    static const char *const missings[] = { "reject", "target", NULL };
    static const char *const durables[] = { "fsync", "os", "memory", NULL };
    static const char *const pendings[] = { "wait", "stale", "bypass", NULL };
    static const char *const scopes[] = { "client", "all", NULL };
    static const char *const batches[] = { "json-array", "ndjson", NULL };
    static const char *const losts[] = { "revalidate", "serve", NULL };
    static const char *const failing[] = { "bypass", "stale", "shed", NULL };
    static const char *const on_error[] = { "fail", "skip", NULL };
    static const char *const failing_here[] = { "bypass", "stale", "shed", "inherit", NULL };

    switch (k) {
    case K_BOOL:     return bools;
    case K_POLICY:   return policies;
    case K_BALANCE:  return balances;
    case K_PURGE_ON: return purges;
    case K_LEVEL:    return levels;
    case K_LOGFORM:  return forms;
    case K_FILL:     return fills;
    case K_WHEN:     return whens;
    case K_ACK:      return acks;
    case K_REFUSE:   return refuses;
    case K_MISSING:  return missings;
    case K_DURABLE:  return durables;
    case K_PENDING:  return pendings;
    case K_SCOPE:    return scopes;
    case K_BATCH:    return batches;
    case K_LOST:     return losts;
    case K_FAILING:  return failing;
    case K_FAILING_HERE: return failing_here;
    case K_ON_ERROR: return on_error;
    default:         return NULL;
    }
}
