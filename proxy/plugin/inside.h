/* plugin/inside.h -- private to plugin/. */
#ifndef WEIR_PLUGIN_INSIDE_H
#define WEIR_PLUGIN_INSIDE_H

#include "plugin/plugin.h"

struct library {
    const struct weir_plugin *table;    /* the library's own */
    weir_hook *hooks[PLUGIN_HOOKS_N];
    unsigned  timers[PLUGIN_HOOKS_N];   /* stats_timer slots */
    _Atomic uint64_t errors[PLUGIN_HOOKS_N];
    char *file;                         /* owned, resolved */
    struct library *next;
};

struct plugin {
    uint32_t magic;
#define PLUGIN_MAGIC 0x9106010au
    struct library *library;            /* for good */
    void *state;                        /* the plugin's */
    unsigned hooks;                     /* HOOK_BITs: those that it has and wants */
    bool skip_errors, has_redis;
    int64_t timeout_ms;
    plugin_complain *complain;          /* during open alone */
    void *complain_arg;
};

/* Of a suspended request, and of who resumes it. */
struct plugin_ticket {
    uint32_t magic;
#define TICKET_MAGIC 0x71c4e70au
    atomic_int refs;                    /* the request's, and that of who resumes */
    atomic_bool left;                   /* the request has dropped it: nothing follows */
    struct loop *loop;                  /* the request's; runs as long as it has not */
    struct loop_msg msg;
    struct timer timer;                 /* own loop */
    struct weir_request *request;       /* own loop; NULL: it has dropped it */
    bool resumed, late;                 /* own loop */
};

/* suspend.c */
struct plugin_ticket *ticket_new(struct weir_request *r, int64_t timeout_ms);
void ticket_resume(struct plugin_ticket *t);        /* any thread */
void ticket_drop(struct plugin_ticket **tp);        /* the request's; NULL is fine */

/* edit.c */
bool edit_may(enum weir_which which, struct slice name);
int edit_field(struct weir_request *r, enum weir_which which, struct slice name,
    struct slice value, bool add);

/* host.c */
extern const struct weir_host plugin_host;

/* redis.c: as redis() of struct weir_host. */
int redis_ask(struct plugin *p, const struct weir_text *argv, size_t argc, size_t key, int64_t ms,
    weir_replied *replied, void *arg);
bool redis_is_configured(void);

/* figures.c: what plugins count. */
void figures_begin(void);                           /* once there is a library */
struct library *libraries(void);                    /* load.c: the newest first; grows in front */
extern const char *const hook_names[PLUGIN_HOOKS_N];
extern const bool hook_suspends[PLUGIN_HOOKS_N];
struct weir_counter *figures_counter(const char *name, const char *meaning);
struct weir_timer *figures_timer(const char *name, const char *meaning);
bool figures_name(const char *name);                /* letters, digits and _ */
void plugin_count(struct weir_counter *c, uint64_t n);
void plugin_observe(struct weir_timer *t, uint64_t ns);
uint64_t figures_ns(void);                          /* monotonic */

#endif
