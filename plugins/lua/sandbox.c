/*
 * What a script sees.
 *
 * Model    nothing that leaves the process, runs bytecode, or can be changed for the next call: no
 *          io, package, require, load, debug, ffi, jit, coroutine, no environments, no bytecode.
 *          What Lua's own libraries have of the rest is picked by name, so that what a later LuaJIT
 *          adds is not there. A library is no table to a script but an object without a __newindex,
 *          which table.insert and rawset cannot write to either.
 *          pcall does not catch what ends a call: its limits. xpcall and coroutines are left out
 *          for that too: LuaJIT runs an error's handler with its hooks off, where nothing ends it.
 *          newproxy is left out for its __gc, which runs outside of calls.
 */
#include <string.h>
#include <sys/random.h>

#include "plugins/lua/inside.h"

#define REP_CHUNK 65536                 /* bytes between two looks at the clock */
#define REP_MAX   (1 << 30)             /* more than `memory` can be */

/* ---- functions that are not Lua's ------------------------------------------------------------ */

static int
protected_call(lua_State *L)
{
    struct state *s = state_of(L);
    int rc;

    luaL_checkany(L, 1);
    check_limits(L, 1);
    rc = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    if (s->late || s->refused)
        return rc != 0 ? lua_error(L) : luaL_error(L, "not enough memory");
    lua_pushboolean(L, rc == 0);
    lua_insert(L, 1);
    return lua_gettop(L);
}

static int
string_rep(lua_State *L)
{
    size_t n, times, checked = 0;
    const char *s = luaL_checklstring(L, 1, &n);
    lua_Number asked = luaL_checknumber(L, 2);
    char *to;

    if (n == 0 || !(asked >= 1)) {
        lua_pushliteral(L, "");
        return 1;
    }
    if (asked * (lua_Number)n > REP_MAX)
        return luaL_error(L, "resulting string too large");
    times = (size_t)asked;
    to = lua_newuserdata(L, n * times);
    for (size_t at = 0; at < n * times; at += n) {
        memcpy(to + at, s, n);
        if (at - checked >= REP_CHUNK) {
            check_limits(L, 1);
            checked = at;
        }
    }
    lua_pushlstring(L, to, n * times);
    check_limits(L, 1);
    return 1;
}

/* Upvalue: what compares; nil: `<`. Each time is a place to look at the clock, which a function in
 * C such as rawequal is not. */
static int
is_less(lua_State *L)
{
    check_limits(L, 1);
    if (lua_isnil(L, lua_upvalueindex(1))) {
        lua_pushboolean(L, lua_lessthan(L, 1, 2));
        return 1;
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 2, 1);
    return 1;
}

/* Upvalue: Lua's. */
static int
table_sort(lua_State *L)
{
    check_limits(L, 1);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    if (!lua_isnil(L, 2))
        luaL_checktype(L, 2, LUA_TFUNCTION);
    if (lua_isnil(L, 2) || lua_iscfunction(L, 2))
        lua_pushcclosure(L, is_less, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 2, 0);
    return 0;
}

/* ---- libraries ------------------------------------------------------------------------------- */

static const char *const base_names[] = { "assert", "error", "getmetatable", "ipairs", "next",
    "pairs", "rawequal", "rawget", "rawset", "select", "setmetatable", "tonumber", "tostring",
    "type", "unpack", NULL };
static const char *const string_names[] = { "byte", "char", "format", "len", "lower", "reverse",
    "sub", "upper", NULL };
static const char *const table_names[] = { "concat", "insert", "remove", NULL };
static const char *const math_names[] = { "abs", "acos", "asin", "atan", "atan2", "ceil", "cos",
    "cosh", "deg", "exp", "floor", "fmod", "frexp", "huge", "ldexp", "log", "log10",
    "max", "min", "modf", "pi", "pow", "rad", "random", "sin", "sinh", "sqrt", "tan", "tanh",
    NULL };
static const char *const os_names[] = { "clock", "date", "difftime", "time", NULL };
static const char *const bit_names[] = { "arshift", "band", "bnot", "bor", "bswap", "bxor",
    "lshift", "rol", "ror", "rshift", "tobit", "tohex", NULL };

/* Of the library's table at the top: a table with these alone in its place. */
static void
pick(lua_State *L, const char *const *names)
{
    lua_newtable(L);
    for (; *names != NULL; names++) {
        lua_getfield(L, -2, *names);
        lua_setfield(L, -2, *names);
    }
    lua_remove(L, -2);
}

/* Opens it; leaves a table of those names. */
static void
open_library(lua_State *L, lua_CFunction open, const char *name, const char *const *names)
{
    lua_pushcfunction(L, open);
    lua_pushstring(L, name);
    lua_call(L, 1, 0);
    lua_getglobal(L, name);
    pick(L, names);
}

/* The table at the top as an object that can be read alone, in the table at `into`. */
static void
seal(lua_State *L, int into, const char *name)
{
    lua_newuserdata(L, 0);
    lua_createtable(L, 0, 2);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_setfield(L, into, name);
    lua_pop(L, 1);
}

/* Methods of texts are those of `string`. */
static void
set_text_methods(lua_State *L, int library)
{
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushvalue(L, library);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}

/* Others than those of another state, and not known to who sees a few of them. */
static void
seed(lua_State *L)
{
    uint64_t n = 0;

    if (getrandom(&n, sizeof n, GRND_NONBLOCK) != (ssize_t)sizeof n)
        n = (uintptr_t)L;
    lua_getglobal(L, "math");
    lua_getfield(L, -1, "randomseed");
    lua_pushnumber(L, (lua_Number)(n >> 11));
    lua_call(L, 1, 0);
    lua_pop(L, 1);
}

void
sandbox_push(lua_State *L)
{
    int base;

    lua_pushcfunction(L, luaopen_base);
    lua_pushliteral(L, "");
    lua_call(L, 1, 0);
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    pick(L, base_names);
    base = lua_gettop(L);
    lua_pushcfunction(L, protected_call);
    lua_setfield(L, base, "pcall");

    open_library(L, luaopen_string, "string", string_names);
    luaL_register(L, NULL, pattern_functions);
    lua_pushcfunction(L, string_rep);
    lua_setfield(L, -2, "rep");
    set_text_methods(L, lua_gettop(L));
    seal(L, base, "string");

    open_library(L, luaopen_table, "table", table_names);
    lua_getglobal(L, "table");
    lua_getfield(L, -1, "sort");
    lua_pushcclosure(L, table_sort, 1);
    lua_setfield(L, -3, "sort");
    lua_pop(L, 1);
    seal(L, base, "table");

    open_library(L, luaopen_math, "math", math_names);
    seed(L);
    seal(L, base, "math");
    open_library(L, luaopen_os, "os", os_names);
    seal(L, base, "os");
    open_library(L, luaopen_bit, "bit", bit_names);
    seal(L, base, "bit");
    weir_push(L);
    seal(L, base, "weir");
}
