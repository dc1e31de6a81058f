/*
 * plugin -- loads plugins, and calls their hooks.
 *
 * Model    A library is loaded once and stays. A struct plugin is one of a configuration: opened
 *          with its options, closed with the configuration. Each route has the list of those that
 *          it uses (plugin_uses), made at load, with a bit for each hook that any of them has; a
 *          route without has NULL, and nobody looks further.
 *          struct weir_request is what plugins know of a request, or of a fetch: who runs hooks
 *          fills in the facts, calls plugin_run, and reads what is to be done. Nothing is done to
 *          the request itself here.
 * Threads  load and open: one thread at a time. A weir_request: its owner's.
 * Not here options and their places in the file (config/), which hook runs when (request/, fill/,
 *          write/).
 */
#ifndef WEIR_PLUGIN_H
#define WEIR_PLUGIN_H

#include "base/base.h"
#include "http/http.h"
#include "key/key.h"
#include "plugins/abi.h"

/* ---- hooks ----------------------------------------------------------------------------------- */

/*   id         member     may suspend */
#define PLUGIN_HOOKS(X)             \
    X(REQUEST,   request,   true)   \
    X(KEY,       key,       true)   \
    X(RESPONSE,  response,  false)  \
    X(STORE,     store,     false)  \
    X(DELIVER,   deliver,   true)   \
    X(ACCEPTED,  accepted,  false)  \
    X(DELIVERED, delivered, false)  \
    X(DONE,      done,      false)

enum plugin_hook {
#define X(id, member, suspends) HOOK_##id,
    PLUGIN_HOOKS(X)
#undef X
    PLUGIN_HOOKS_N
};
#define HOOK_BIT(id) (1u << HOOK_##id)
/* A hit is not answered on the spot where one of these waits for it. */
#define PLUGIN_ON_HITS (HOOK_BIT(REQUEST) | HOOK_BIT(KEY) | HOOK_BIT(DELIVER) | HOOK_BIT(DONE))
/* What an answer depends on may be in parts of the key that only these know. */
#define PLUGIN_ON_KEYS (HOOK_BIT(REQUEST) | HOOK_BIT(KEY))

/* ---- loading --------------------------------------------------------------------------------- */

struct plugin;

/* The table of the library in this file, which stays loaded. `name`: what it must be called; NULL:
 * anything. NULL with *e. */
const struct weir_plugin *plugin_load(const char *file, const char *name, struct err *e);

struct plugin_complaint { const char *option, *text; };     /* option NULL: of the whole */
typedef void plugin_complain(void *arg, const struct plugin_complaint *c);

/* Opens it with the values of its options, in the order of its table; they are borrowed for as long
 * as it is open. NULL: it did not open, and may have said why. */
struct plugin *plugin_open(const struct weir_plugin *table, const struct weir_value *values,
    bool skip_errors, int64_t timeout_ms, plugin_complain *complain, void *arg);
const char *plugin_name(const struct plugin *p);
void plugin_close(struct plugin **pp);          /* when all its uses are closed; NULL is fine */
void plugin_tick(struct plugin *p);             /* each second, on the main thread */

struct plugin_use { struct plugin *plugin; void *state; unsigned hooks; };
struct plugin_uses {
    unsigned hooks;                     /* HOOK_BITs of those that one of them has */
    size_t n;
    struct plugin_use at[];             /* in the order in which they are called */
};
/* -1 likewise. *use is open until plugin_use_close. */
int  plugin_use_open(struct plugin *p, const char *route, const struct weir_value *values,
    struct plugin_use *use, plugin_complain *complain, void *arg);
void plugin_use_close(struct plugin_use *use);
/* uses may be NULL. */
static inline bool
plugin_has(const struct plugin_uses *uses, unsigned hooks)
{
    return uses != NULL && (uses->hooks & hooks) != 0;
}

/* ---- Redis, for plugins ---------------------------------------------------------------------- */

struct redis;
/* Of those that are opened from now on: is one configured? */
void plugin_redis_configured(bool yes);
struct plugin_redis {
    struct redis *redis;                /* NULL: none is configured */
    struct loop *const *loops; size_t nloops;       /* its, of the workers; borrowed */
    const char *prefix;                 /* copied */
    int64_t timeout_ms;                 /* of a command that says nothing else */
};
/* Before workers run. Memory is out: there is none. */
void plugin_redis_begin(const struct plugin_redis *r);
/* When no loop runs any more, before redis_free: who waits is told that there is no reply. */
void plugin_redis_end(void);

/* ---- a request, as plugins know it ----------------------------------------------------------- */

struct plugin_field { struct slice name, value; bool add; };        /* value.p NULL: taken away */
struct plugin_text { struct slice name, text; struct plugin_text *next; };
struct plugin_texts { struct plugin_text *first, **last; size_t n; };

struct weir_request {
    uint32_t magic;
#define WEIR_REQUEST_MAGIC 0x9a6b10adu
    const struct plugin_uses *uses;     /* borrowed */
    struct pool *pool;                  /* borrowed */
    struct loop *loop;                  /* NULL: it cannot be suspended */
    void       (*wake)(void *arg);      /* on that loop, when it may go on */
    void        *arg;

    /* facts: of the caller's, before each run; what is left zeroed is not known */
    struct slice method, host, path, query, client, id, key, body, write_id, outcome;
    const char  *route;
    bool         https;
    bool         explained;             /* nobody has sent it: /explain asks about it */
    unsigned     attempts;
    int64_t      status, bytes_in, bytes_out, us;   /* -1: not known */
    struct slice (*param)(void *arg, struct slice name, struct pool *p);    /* NULL: none */
    void        *param_arg;
    const struct http_head *head[2];    /* by enum weir_which; NULL: not known */

    /* what is to be done: read by the caller */
    bool edited[2];                     /* head[] is a changed copy, in the pool */
    struct http_head *own[2];           /* ... this one */
    struct plugin_field *edits; size_t nedits, cap; /* of the response, in their order */
    struct plugin_texts keys, tags;
    bool pass, no_store, authorized;
    int64_t ttl_ms; bool ttl_forced;    /* -1: nothing said */
    unsigned answer_status;             /* 0: no answer */
    const char *answer_type;            /* NULL: a problem, whose detail the body is */
    struct slice answer_body;
    const char *by;                     /* the plugin that answered, or failed */
    bool would_wait;                    /* explained: that one waits, for what nobody knows */

    /* plugin/ alone */
    enum plugin_hook hook;
    size_t next;                        /* of uses: the one to call */
    void **slots;
    struct plugin_ticket *ticket;       /* suspended by it */
};

/* In p, zeroed but for its magic. NULL: memory is out. */
struct weir_request *plugin_request(const struct plugin_uses *uses, struct pool *p);

enum plugin_verdict {
    PLUGIN_NEXT,                        /* all were asked */
    PLUGIN_WAIT,                        /* suspended: wake comes, then call again */
    PLUGIN_ANSWERED,                    /* answer_ tells what, by who */
    PLUGIN_FAILED,                      /* by tells who */
};
/* Asks those that have this hook, or goes on asking where one was suspended. */
enum plugin_verdict plugin_run(struct weir_request *r, enum plugin_hook hook);
/* The request's head as they left it, parsed anew by the strict parser from *bytes in the pool, and
 * what they see from now on. NULL: it is none any more, or memory is out. */
struct http_head *plugin_take_head(struct weir_request *r, struct slice *bytes);
/* Adds the parts that they gave. b: the key's bytes and no others, as key_add wants it. 0 or -1. */
int plugin_add_parts(const struct weir_request *r, struct key *k, struct buf *b);
/* It is over, or given up: no wake any more. NULL is fine. */
void plugin_end(struct weir_request *r);

/* Appends the lines of a head as the edits leave it. */
void plugin_edit(const struct weir_request *r, const struct http_head *h, struct buf *b);

#endif
