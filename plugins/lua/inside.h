/* plugins/lua/inside.h -- private to the plugin. */
#ifndef WEIR_PLUGIN_LUA_H
#define WEIR_PLUGIN_LUA_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "plugins/abi.h"

extern const struct weir_host *host;    /* lua.c; from the first open() on */

/* ---- a script, and the states that run it ---------------------------------------------------- */

struct named_counter { char *name; struct weir_counter *counter; struct named_counter *next; };

struct script {
    struct script *next;                /* of this plugin's */
    struct weir_self *self;
    char *file, *text;                  /* owned; as it was when the configuration was loaded */
    const char *name;                   /* of the file alone; in `file` */
    size_t text_n;
    uint64_t time_ns;                   /* these are the configuration's */
    size_t memory;
    unsigned hooks;                     /* WEIR_HOOK_s that it defines */
    struct named_counter *counters;     /* owned; written during open alone */
    bool opening;                       /* open() runs it */

    pthread_mutex_t mtx;
    struct state *idle;                 /* under mtx; owned */
    uint64_t reported_s;                /* under mtx; when an error was logged, ... */
    unsigned left_out;                  /* ... and how many were not since */
};

/* One lua_State with the script in it; it runs one call at a time, on any thread. */
struct state {
    struct state *next;                 /* idle */
    struct script *script;
    lua_State *L;                       /* owned */
    lua_Alloc alloc;                    /* LuaJIT's own */
    void *alloc_arg;
    size_t used, most;                  /* bytes */
    size_t given;                       /* bytes that this call gave Weir to keep, about */
    bool refused, late;                 /* the call went over a limit, and ends */
    const char *stack;                  /* the thread's, where the call began */
    uint64_t look_ns, cpu_ns;           /* when to look at the thread's clock; what it said first */

    const void *object;                 /* what scripts call r */
    struct weir_request *request;       /* of this call */
    const struct route *route;
    bool answered;
};

struct route { struct script *script; const struct weir_text *args; size_t nargs; };

/* state.c */
/* Reads the file, runs it once. NULL with why (room for WHY_MAX). */
struct script *script_open(const char *file, uint64_t time_ms, size_t memory,
    struct weir_self *self, char *why);
void script_close(struct script *s);
/* Runs the function of this hook, a WEIR_HOOK_. What the hook returns. */
int  script_call(const struct route *route, unsigned hook, struct weir_request *r);
struct state *state_of(lua_State *L);
/* Throws when the call's time is over, or the thread's stack too deep. level: of the script's
 * function, as lua_getstack counts. */
void check_limits(lua_State *L, int level);

#define WHY_MAX 512

/* These leave one value each on the stack, and throw when memory is out. */
void sandbox_push(lua_State *L);        /* sandbox.c: a table of all that a script sees */
void request_push(lua_State *L);        /* request.c: r */
void weir_push(lua_State *L);           /* request.c: a table of the functions of `weir` */

/* patterns.c: string.find, match, gmatch and gsub. */
extern const luaL_Reg pattern_functions[];

#endif
