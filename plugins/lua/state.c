/*
 * Scripts, and the states that run them.
 *
 * Model    a script's text is read with the configuration. A state is a lua_State with the compiled
 *          script; a call takes an idle one, or makes one, so that there are as many as workers
 *          have run it at once. Each call of a hook is a world of its own: the script runs from its
 *          top into a new environment, the hook's function is called, and all of it is dropped. So
 *          there is nothing by which a request could reach another: no global, no upvalue, no
 *          table survives a call, and what does (libraries, texts, compiled code) cannot be
 *          changed, but for where the row of random numbers stands. The price is that the top of a
 *          script runs each time; it should define functions and little else.
 *          Others keep a script's globals for all requests of a worker (OpenResty, Envoy, HAProxy),
 *          so that what somebody forgot to make local leaks. They limit nothing (OpenResty, Envoy,
 *          Traffic Server), or neither the time of functions in C nor the memory of one call
 *          (HAProxy). Here what a script keeps for later hooks of its request is r:keep(), and what
 *          for all is a counter.
 * Limits   time: of the thread's CPU, so that a busy machine is no script's fault. It is looked at
 *          after so many instructions, and inside of what runs long in C: patterns, rep, sort. That
 *          takes LuaJIT's interpreter: compiled code calls no hook. It also keeps pages from being
 *          writable and executable, which the systemd unit forbids. A single instruction on long
 *          texts is not cut short; how long they can be, the memory says.
 *          memory: of a state, counted around LuaJIT's own allocator, which knows where its
 *          pointers may lie. A call that begins with less than half of it free begins with a full
 *          collection.
 *          stack: a function in C that calls the script, which calls it, is bounded by LuaJIT
 *          through the script's stack alone, by when the thread's has long ended; so that is
 *          measured where time is.
 *          What went over time or memory cannot be caught (sandbox.c), and the state is closed.
 * Threads  script_open and script_close: one. script_call: any; a state is of one at a time.
 * Not here waiting: a script has nothing to wait for, and no coroutine.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <luajit.h>

#include "plugins/lua/inside.h"

#define INSTRUCTIONS 100
#define STACK_MAX    (1 << 19)          /* bytes, of the 8 MiB that a thread commonly has */
#define TEXT_MAX     (1 << 20)

enum { HOOKS_N = 8, NO_HOOK = -1 };
static const char *const hook_names[HOOKS_N] = { "request", "key", "response", "store", "deliver",
    "accepted", "delivered", "done" };      /* in the order of their bits */

enum { AT_RUN = 1, AT_LOCATE, AT_MAIN, AT_OUTER, AT_REQUEST };  /* of an idle state's stack */

static uint64_t
clock_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void *
allocate(void *arg, void *p, size_t was, size_t n)
{
    struct state *s = arg;
    void *q;

    if (n > was && n - was > s->most - s->used) {
        s->refused = true;
        return NULL;
    }
    q = s->alloc(s->alloc_arg, p, was, n);
    if (q != NULL || n == 0)
        s->used += n - was;
    return q;
}

struct state *
state_of(lua_State *L)
{
    void *arg;

    (void)lua_getallocf(L, &arg);
    return arg;
}

void
check_limits(lua_State *L, int level)
{
    struct state *s = state_of(L);
    uint64_t now, used;

    if (s->stack - (const char *)__builtin_frame_address(0) > STACK_MAX)
        luaL_error(L, "stack overflow");
    now = clock_ns(CLOCK_MONOTONIC);
    if (now < s->look_ns)
        return;
    used = clock_ns(CLOCK_THREAD_CPUTIME_ID) - s->cpu_ns;
    if (used < s->script->time_ns) {    /* the thread was waiting for a processor */
        s->look_ns = now + s->script->time_ns - used;
        return;
    }
    s->late = true;
    luaL_where(L, level);
    lua_pushfstring(L, "ran longer than its %d ms", (int)(s->script->time_ns / 1000000));
    lua_concat(L, 2);
    lua_error(L);
}

static void
on_count(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    check_limits(L, 0);
}

static void
limit_memory(struct state *s)
{
    s->most = s->script->memory > s->used ? s->script->memory : s->used;
}

/* For what comes until limits_end. */
static void
limits_begin(struct state *s)
{
    s->refused = s->late = false;
    s->given = 0;
    s->stack = __builtin_frame_address(0);
    limit_memory(s);
    s->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    s->look_ns = clock_ns(CLOCK_MONOTONIC) + s->script->time_ns;
    lua_sethook(s->L, on_count, LUA_MASKCOUNT, INSTRUCTIONS);
}

static void
limits_end(struct state *s)
{
    lua_sethook(s->L, NULL, 0, 0);
    s->most = SIZE_MAX;
}

/* ---- a call ---------------------------------------------------------------------------------- */

/* The error at 1, with the script's line in front where it has none. */
static int
locate(lua_State *L)
{
    const struct script *s = state_of(L)->script;
    size_t n = strlen(s->name);
    const char *text;
    lua_Debug ar;

    if (!lua_isstring(L, 1)) {
        lua_pushfstring(L, "an error without a text (a %s)", luaL_typename(L, 1));
        lua_replace(L, 1);
    }
    text = lua_tostring(L, 1);
    if (strncmp(text, s->name, n) == 0 && text[n] == ':')
        return 1;
    for (int level = 0; lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (ar.currentline > 0 && strcmp(ar.source + (*ar.source == '@'), s->name) == 0) {
            lua_pushfstring(L, "%s:%d: %s", s->name, ar.currentline, text);
            return 1;
        }
    }
    return 1;
}

/* What the environment at 2 has of this name. False: no function; it may depend on something. */
static bool
push_hook(lua_State *L, lua_Integer hook)
{
    lua_pushstring(L, hook_names[hook]);
    lua_rawget(L, 2);
    return lua_isfunction(L, -1);
}

/* main, outer, r, hook: the script, in an environment of its own; then its hook. Without one: the
 * bits of those that it defines. */
static int
run(lua_State *L)
{
    lua_Integer hook = lua_tointeger(L, 4), bits = 0;
    struct state *s = state_of(L);

    lua_settop(L, 3);
    if (s->used > s->script->memory / 2) {
        lua_gc(L, LUA_GCCOLLECT, 0);
        limits_begin(s);                /* what it took is not the call's */
    }
    lua_newtable(L);
    lua_pushvalue(L, 2);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_setfenv(L, 1);
    lua_replace(L, 2);
    lua_pushvalue(L, 1);
    lua_call(L, 0, 0);
    for (lua_Integer i = 0; i < HOOKS_N && hook == NO_HOOK; i++)
        bits |= push_hook(L, i) ? (lua_Integer)1 << i : 0;
    if (hook != NO_HOOK && push_hook(L, hook)) {
        lua_pushvalue(L, 3);
        lua_call(L, 1, 0);
    }
    lua_pushinteger(L, bits);
    return 1;
}

/* Of what is at the stack's top: what went wrong, for a person. */
static void
say(struct state *s, char *why)
{
    const char *text = lua_tostring(s->L, -1), *name = s->script->name;

    if (s->refused)
        snprintf(why, WHY_MAX, "%.100s: needs more than its %zu KiB of memory", name,
            s->script->memory / 1024);
    else if (text != NULL && strncmp(text, name, strlen(name)) == 0)
        snprintf(why, WHY_MAX, "%.480s", text);
    else                                /* where the script's own stack has ended */
        snprintf(why, WHY_MAX, "%.100s: %.350s", name, text != NULL ? text : "failed");
}

/* Leaves the bits that run() gives. -1 with why. */
static int
state_run(struct state *s, int hook, char *why)
{
    lua_State *L = s->L;
    int rc;

    lua_settop(L, AT_REQUEST);
    lua_pushvalue(L, AT_RUN);
    lua_pushvalue(L, AT_MAIN);
    lua_pushvalue(L, AT_OUTER);
    lua_pushvalue(L, AT_REQUEST);
    lua_pushinteger(L, hook);
    limits_begin(s);
    rc = lua_pcall(L, 4, 1, AT_LOCATE);
    limits_end(s);
    if (rc == 0 && !s->late && !s->refused)
        return 0;
    say(s, why);
    return -1;
}

/* ---- states ---------------------------------------------------------------------------------- */

/* Leaves in the registry what AT_ says. Throws. */
static int
make(lua_State *L)
{
    struct state *s = state_of(L);
    char chunk[300];

    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    lua_settop(L, 0);
    lua_pushcfunction(L, run);
    lua_pushcfunction(L, locate);
    snprintf(chunk, sizeof chunk, "@%s", s->script->name);
    if (luaL_loadbufferx(L, s->script->text, s->script->text_n, chunk, "t") != 0)
        return lua_error(L);
    lua_createtable(L, 0, 2);
    sandbox_push(L);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    request_push(L);
    for (int i = AT_REQUEST; i >= AT_RUN; i--)
        lua_rawseti(L, LUA_REGISTRYINDEX, i);
    return 0;
}

static void
state_free(struct state *s)
{
    if (s->L != NULL) {
        lua_setallocf(s->L, s->alloc, s->alloc_arg);    /* which goes with the state */
        lua_close(s->L);
    }
    free(s);
}

/* NULL with why. */
static struct state *
state_new(struct script *script, char *why)
{
    struct state *s = calloc(1, sizeof *s);
    lua_State *L;

    if (s == NULL || (L = s->L = luaL_newstate()) == NULL) {
        snprintf(why, WHY_MAX, "out of memory");
        free(s);
        return NULL;
    }
    s->script = script;
    s->most = SIZE_MAX;
    s->used = (size_t)lua_gc(L, LUA_GCCOUNT, 0) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB, 0);
    s->alloc = lua_getallocf(L, &s->alloc_arg);
    lua_setallocf(L, allocate, s);
    limit_memory(s);
    if (lua_cpcall(L, make, NULL) != 0) {
        say(s, why);
        state_free(s);
        return NULL;
    }
    s->most = SIZE_MAX;
    for (int i = AT_RUN; i <= AT_REQUEST; i++)
        lua_rawgeti(L, LUA_REGISTRYINDEX, i);
    return s;
}

static struct state *
state_take(struct script *script, char *why)
{
    struct state *s;

    pthread_mutex_lock(&script->mtx);
    s = script->idle;
    if (s != NULL)
        script->idle = s->next;
    pthread_mutex_unlock(&script->mtx);
    return s != NULL ? s : state_new(script, why);
}

static void
state_give(struct state *s)
{
    struct script *script = s->script;

    s->request = NULL;
    s->route = NULL;
    if (s->late || s->refused) {
        state_free(s);
        return;
    }
    lua_settop(s->L, AT_REQUEST);
    pthread_mutex_lock(&script->mtx);
    s->next = script->idle;
    script->idle = s;
    pthread_mutex_unlock(&script->mtx);
}

/* ---- scripts --------------------------------------------------------------------------------- */

/* One line a second of each script. */
static void
report(struct script *s, int hook, struct weir_request *r, const char *why)
{
    struct weir_text route = host->fact(r, WEIR_ROUTE);
    uint64_t now_s = clock_ns(CLOCK_MONOTONIC) / 1000000000;
    unsigned left_out = 0;
    char line[WHY_MAX + 300];
    bool due;

    pthread_mutex_lock(&s->mtx);
    due = s->reported_s != now_s;
    if (due) {
        s->reported_s = now_s;
        left_out = s->left_out;
    }
    s->left_out = due ? 0 : s->left_out + 1;
    pthread_mutex_unlock(&s->mtx);
    if (!due)
        return;
    snprintf(line, sizeof line, "%s (%s, route %.*s)", why, hook_names[hook],
        (int)(route.n < 100 ? route.n : 100), route.p != NULL ? route.p : "");
    if (left_out > 0)
        snprintf(line + strlen(line), 50, ", and %u before it", left_out);
    host->log(s->self, WEIR_LOG_ERROR, line);
}

int
script_call(const struct route *route, unsigned hook_bit, struct weir_request *r)
{
    int hook = __builtin_ctz(hook_bit), rc = -1;
    char why[WHY_MAX];
    struct state *s = state_take(route->script, why);

    if (s != NULL) {
        s->request = r;
        s->route = route;
        s->answered = false;
        rc = state_run(s, hook, why);
        if (rc == 0 && s->answered)
            rc = WEIR_ANSWERED;
        state_give(s);
    }
    if (rc == -1)
        report(route->script, hook, r, why);
    return rc == -1 ? WEIR_FAILED : rc;
}

/* -1 with why. */
static int
read_text(struct script *s, char *why)
{
    FILE *f = fopen(s->file, "re");
    int error = errno;

    if (f == NULL) {
        snprintf(why, WHY_MAX, "cannot be read: %s", strerror(error));
        return -1;
    }
    s->text = malloc(TEXT_MAX + 1);
    s->text_n = s->text != NULL ? fread(s->text, 1, TEXT_MAX + 1, f) : 0;
    error = s->text == NULL ? ENOMEM : ferror(f) ? EIO : s->text_n > TEXT_MAX ? EFBIG : 0;
    fclose(f);
    if (error != 0)
        snprintf(why, WHY_MAX, "cannot be read: %s", strerror(error));
    else if (s->text_n > 0 && s->text[0] == LUA_SIGNATURE[0])
        snprintf(why, WHY_MAX, "%.100s: is bytecode; a text in Lua", s->name);
    else
        return 0;
    return -1;
}

/* -1 with why. The state that it ran in is idle. */
static int
first_run(struct script *s, char *why)
{
    struct state *state = state_new(s, why);
    int rc;

    if (state == NULL)
        return -1;
    s->opening = true;
    rc = state_run(state, NO_HOOK, why);
    s->opening = false;
    if (rc == 0)
        s->hooks = (unsigned)lua_tointeger(state->L, -1);
    state_give(state);
    if (rc == 0 && s->hooks == 0) {
        snprintf(why, WHY_MAX, "%.100s defines none of request, key, response, store, deliver, "
            "accepted, delivered, done", s->name);
        rc = -1;
    }
    return rc;
}

struct script *
script_open(const char *file, uint64_t time_ms, size_t memory, struct weir_self *self, char *why)
{
    struct script *s = calloc(1, sizeof *s);
    const char *slash;

    if (s == NULL || (s->file = strdup(file)) == NULL) {
        snprintf(why, WHY_MAX, "out of memory");
        free(s);
        return NULL;
    }
    slash = strrchr(s->file, '/');
    s->name = slash != NULL ? slash + 1 : s->file;
    s->self = self;
    s->time_ns = time_ms * 1000000;
    s->memory = memory;
    pthread_mutex_init(&s->mtx, NULL);
    if (read_text(s, why) == -1 || first_run(s, why) == -1) {
        script_close(s);
        return NULL;
    }
    return s;
}

void
script_close(struct script *s)
{
    for (struct state *i = s->idle, *next; i != NULL; i = next) {
        next = i->next;
        state_free(i);
    }
    for (struct named_counter *c = s->counters, *next; c != NULL; c = next) {
        next = c->next;
        free(c->name);
        free(c);
    }
    pthread_mutex_destroy(&s->mtx);
    free(s->text);
    free(s->file);
    free(s);
}
