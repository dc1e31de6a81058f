/*
 * r, by which a script knows a request and says what is to be done: the functions of struct
 * weir_host; and `weir`, what it has besides.
 *
 * Model    r is one object for all calls of a state, and means the request of the call that runs.
 *          What Weir refuses (a value that is malformed, a thing that this hook may not do) is an
 *          error of the script, with its line: nothing is left out in silence.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plugins/lua/inside.h"

struct kept { struct kept *next; size_t name_n, n; char bytes[]; };     /* the name, the text */

#define GIVEN_FOR 64                    /* bytes that Weir keeps of a thing besides its texts */

/* Weir may copy it into the request's memory, which is not the state's: it counts as that does. */
static void
give(lua_State *L, struct state *s, size_t n)
{
    s->given += n + GIVEN_FOR;
    s->refused = s->refused || s->given > s->script->memory;
    if (s->refused)
        luaL_error(L, "not enough memory");
}

/* Of a function of r, with its arguments on the stack. */
static struct state *
call_of(lua_State *L)
{
    struct state *s = state_of(L);

    if (lua_touserdata(L, 1) != s->object)
        luaL_error(L, "a function of r is called with a colon, as r:field(\"Accept\")");
    for (int i = lua_gettop(L); i > 1; i--)
        give(L, s, lua_type(L, i) == LUA_TSTRING ? lua_objlen(L, i) : 0);
    return s;
}

static int
push_text(lua_State *L, struct weir_text t)
{
    if (t.p == NULL)
        lua_pushnil(L);
    else
        lua_pushlstring(L, t.p, t.n);
    return 1;
}

static struct weir_text
text_at(lua_State *L, int arg)
{
    struct weir_text t;

    t.p = luaL_checklstring(L, arg, &t.n);
    return t;
}

/* rc of a function of the host. */
static int
taken(lua_State *L, int rc, const char *what, const char *why)
{
    return rc < 0 ? luaL_error(L, "%s was not taken: %s", what, why) : 0;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static int
get_field(lua_State *L, enum weir_which which)
{
    struct state *s = call_of(L);
    const char *name = luaL_checkstring(L, 2);
    lua_Integer i = luaL_optinteger(L, 3, 1);

    luaL_argcheck(L, i >= 1 && i <= INT32_MAX, 3, "the first line is 1");
    return push_text(L, host->field(s->request, which, name, (unsigned)i - 1));
}

static int
change_field(lua_State *L, enum weir_which which, bool add)
{
    struct state *s = call_of(L);
    const char *name = luaL_checkstring(L, 2);
    struct weir_text value = { NULL, 0 };

    if (add || !lua_isnil(L, 3))
        value = text_at(L, 3);
    return taken(L, (add ? host->add_field : host->set_field)(s->request, which, name, value), name,
        "not a field that can be changed here, or no value of one");
}

/* Upvalues: which, how many it gave. */
static int
next_field(lua_State *L)
{
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(2));
    enum weir_which which = (enum weir_which)lua_tointeger(L, lua_upvalueindex(1));
    struct weir_text name, value;

    if (!host->field_at(state_of(L)->request, which, (unsigned)i, &name, &value))
        return 0;
    lua_pushinteger(L, i + 1);
    lua_replace(L, lua_upvalueindex(2));
    lua_pushlstring(L, name.p, name.n);
    lua_pushlstring(L, value.p != NULL ? value.p : "", value.n);
    return 2;
}

static int
all_fields(lua_State *L, enum weir_which which)
{
    call_of(L);
    lua_pushinteger(L, which);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_field, 2);
    return 1;
}

#define FIELD_FUNCTIONS(prefix, which)                                                    \
    static int prefix##field(lua_State *L)     { return get_field(L, which); }            \
    static int prefix##fields(lua_State *L)    { return all_fields(L, which); }           \
    static int set_##prefix##field(lua_State *L) { return change_field(L, which, false); } \
    static int add_##prefix##field(lua_State *L) { return change_field(L, which, true); }
FIELD_FUNCTIONS(, WEIR_OF_REQUEST)
FIELD_FUNCTIONS(response_, WEIR_OF_RESPONSE)

/* ---- what else is known ---------------------------------------------------------------------- */

static int
param(lua_State *L)
{
    struct state *s = call_of(L);
    struct weir_text value = host->param(s->request, luaL_checkstring(L, 2));

    give(L, s, value.n);                /* decoded for this */
    return push_text(L, value);
}

/* Of the route's `args`. */
static int
arg(lua_State *L)
{
    struct state *s = call_of(L);
    struct weir_text name = text_at(L, 2);

    for (size_t i = 0; i < s->route->nargs; i++) {
        struct weir_text a = s->route->args[i];

        if (a.n > name.n && a.p[name.n] == '=' && memcmp(a.p, name.p, name.n) == 0)
            return push_text(L, (struct weir_text){ a.p + name.n + 1, a.n - name.n - 1 });
    }
    return push_text(L, (struct weir_text){ NULL, 0 });
}

/* What hooks of one request remember for one another. */
static int
keep(lua_State *L)
{
    struct state *s = call_of(L);
    struct weir_text name = text_at(L, 2), text = text_at(L, 3);
    struct kept **first = (struct kept **)host->slot(s->request);
    struct kept *k = host->alloc(s->request, sizeof *k + name.n + text.n);

    if (k == NULL)
        return luaL_error(L, "not enough memory");
    *k = (struct kept){ *first, name.n, text.n };
    memcpy(k->bytes, name.p, name.n);
    memcpy(k->bytes + name.n, text.p, text.n);
    *first = k;
    return 0;
}

static int
kept(lua_State *L)
{
    struct state *s = call_of(L);
    struct weir_text name = text_at(L, 2);
    const struct kept *k = *host->slot(s->request);

    while (k != NULL && (k->name_n != name.n || memcmp(k->bytes, name.p, name.n) != 0))
        k = k->next;
    return push_text(L, k != NULL ? (struct weir_text){ k->bytes + k->name_n, k->n } :
        (struct weir_text){ NULL, 0 });
}

/* ---- what may be done ------------------------------------------------------------------------ */

static int
add_key(lua_State *L)
{
    struct state *s = call_of(L);
    const char *name = luaL_checkstring(L, 2);

    return taken(L, host->add_key(s->request, name, text_at(L, 3)), "a key part",
        "not in this hook, or there are too many");
}

static int
add_tag(lua_State *L)
{
    struct state *s = call_of(L);

    return taken(L, host->add_tag(s->request, text_at(L, 2)), "a tag",
        "not in this hook, or it is empty, or there are too many");
}

static int
set_ttl(lua_State *L)
{
    struct state *s = call_of(L);
    lua_Number seconds = luaL_checknumber(L, 2);

    luaL_argcheck(L, seconds >= 0 && seconds <= 1e9, 2, "seconds, 0 or more");
    return taken(L, host->set_ttl(s->request, (int64_t)(seconds * 1000), lua_toboolean(L, 3)),
        "a time to live", "in the hook response alone");
}

static int
mark(lua_State *L)
{
    static const char *const names[] = { "pass", "no_store", "authorized", NULL };
    static const enum weir_mark marks[] = { WEIR_MARK_PASS, WEIR_MARK_NO_STORE,
        WEIR_MARK_AUTHORIZED };
    struct state *s = call_of(L);
    int i = luaL_checkoption(L, 2, NULL, names);

    return taken(L, host->mark(s->request, marks[i]), names[i], "not in this hook");
}

static int
answer(lua_State *L)
{
    struct state *s = call_of(L);
    lua_Integer status = luaL_checkinteger(L, 2);
    const char *type = luaL_optstring(L, 3, "text/plain");
    struct weir_text body = { "", 0 };

    if (!lua_isnoneornil(L, 4))
        body = text_at(L, 4);
    s->answered = false;
    taken(L, host->answer(s->request, status > 0 ? (unsigned)status : 0, type, body), "an answer",
        "in request and key alone; a status of 200 to 599, but neither 206 nor 304");
    s->answered = true;
    return 0;
}

static int
refuse(lua_State *L)
{
    struct state *s = call_of(L);
    lua_Integer status = luaL_checkinteger(L, 2);
    const char *detail = luaL_checkstring(L, 3);

    s->answered = false;
    taken(L, host->refuse(s->request, status > 0 ? (unsigned)status : 0, detail), "an answer",
        "in request and key alone; a status of 200 to 599, but neither 206 nor 304");
    s->answered = true;
    return 0;
}

static int
log_line(lua_State *L)
{
    static const char *const names[] = { "error", "warn", "info", "debug", NULL };
    struct state *s = call_of(L);
    const char *text = luaL_checkstring(L, 2);

    host->log(s->script->self, (enum weir_level)luaL_checkoption(L, 3, "info", names), text);
    return 0;
}

static struct named_counter *
counter_find(const struct script *s, const char *name)
{
    struct named_counter *c = s->counters;

    while (c != NULL && strcmp(c->name, name) != 0)
        c = c->next;
    return c;
}

static int
count(lua_State *L)
{
    struct state *s = call_of(L);
    const char *name = luaL_checkstring(L, 2);
    lua_Number n = luaL_optnumber(L, 3, 1);
    struct named_counter *c = counter_find(s->script, name);

    luaL_argcheck(L, n >= 0 && n <= 1e15, 3, "0 or more");
    if (c == NULL)
        return luaL_error(L, "no counter of that name: weir.counter(\"%s\", \"What it counts.\") "
            "at the top of the script makes it", name);
    if (host->number(s->request, WEIR_EXPLAINED) != 1)  /* nobody sent that */
        host->count(c->counter, (uint64_t)n);
    return 0;
}

/* ---- r --------------------------------------------------------------------------------------- */

static const luaL_Reg methods[] = {
    { "field", field }, { "fields", fields }, { "set_field", set_field },
    { "add_field", add_field }, { "response_field", response_field },
    { "response_fields", response_fields }, { "set_response_field", set_response_field },
    { "add_response_field", add_response_field }, { "param", param }, { "arg", arg },
    { "keep", keep }, { "kept", kept }, { "add_key", add_key }, { "add_tag", add_tag },
    { "set_ttl", set_ttl }, { "mark", mark }, { "answer", answer }, { "refuse", refuse },
    { "log", log_line }, { "count", count }, { NULL, NULL },
};

static const struct known { const char *name; int what; bool number; } knowns[] = {
    { "method", WEIR_METHOD, false }, { "scheme", WEIR_SCHEME, false },
    { "host", WEIR_HOST, false }, { "path", WEIR_PATH, false },
    { "query", WEIR_QUERY, false }, { "route", WEIR_ROUTE, false },
    { "client", WEIR_CLIENT, false }, { "id", WEIR_REQUEST_ID, false },
    { "key", WEIR_KEY, false }, { "body", WEIR_BODY, false },
    { "write_id", WEIR_WRITE_ID, false }, { "outcome", WEIR_OUTCOME, false },
    { "status", WEIR_STATUS, true }, { "bytes_in", WEIR_BYTES_IN, true },
    { "bytes_out", WEIR_BYTES_OUT, true }, { "microseconds", WEIR_MICROSECONDS, true },
    { "attempts", WEIR_ATTEMPTS, true },
};

/* Upvalue: a table of the functions, and of the places in `knowns`. */
static int
index_request(lua_State *L)
{
    struct state *s = state_of(L);
    const struct known *k;
    int64_t n;

    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    if (lua_isnil(L, -1))
        return luaL_error(L, "r has no %s", lua_isstring(L, 2) ? lua_tostring(L, 2) : "such thing");
    if (!lua_isnumber(L, -1))
        return 1;
    k = &knowns[lua_tointeger(L, -1)];
    if (!k->number)
        return push_text(L, host->fact(s->request, (enum weir_fact)k->what));
    n = host->number(s->request, (enum weir_number)k->what);
    if (n < 0)
        lua_pushnil(L);
    else
        lua_pushnumber(L, (lua_Number)n);
    return 1;
}

void
request_push(lua_State *L)
{
    state_of(L)->object = lua_newuserdata(L, 0);
    lua_createtable(L, 0, 2);
    lua_newtable(L);
    luaL_register(L, NULL, methods);
    for (size_t i = 0; i < sizeof knowns / sizeof *knowns; i++) {
        lua_pushinteger(L, (lua_Integer)i);
        lua_setfield(L, -2, knowns[i].name);
    }
    lua_pushcclosure(L, index_request, 1);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
}

/* ---- weir ------------------------------------------------------------------------------------ */

/* Seconds since 1970, with fractions. */
static int
weir_now(lua_State *L)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    lua_pushnumber(L, (lua_Number)t.tv_sec + (lua_Number)t.tv_nsec / 1e9);
    return 1;
}

/* Made when the configuration is loaded; later the same line says nothing new. */
static int
weir_counter(lua_State *L)
{
    struct script *s = state_of(L)->script;
    const char *name = luaL_checkstring(L, 1), *meaning = luaL_checkstring(L, 2);
    struct weir_counter *counter;
    struct named_counter *c;
    char full[80];

    if (counter_find(s, name) != NULL)
        return 0;
    if (!s->opening)
        return luaL_error(L, "weir.counter is for the top of the script, whatever the request");
    luaL_argcheck(L, strlen(name) <= 56, 1, "56 letters at most");
    counter = host->counter(s->self, strcat(strcpy(full, "lua_"), name), meaning);
    if (counter == NULL)
        return luaL_argerror(L, 1, "letters, digits and _");
    c = malloc(sizeof *c);
    if (c == NULL || (c->name = strdup(name)) == NULL) {
        free(c);
        return luaL_error(L, "not enough memory");
    }
    c->counter = counter;
    c->next = s->counters;
    s->counters = c;
    return 0;
}

void
weir_push(lua_State *L)
{
    static const luaL_Reg functions[] = { { "now", weir_now }, { "counter", weir_counter },
        { NULL, NULL } };

    lua_newtable(L);
    luaL_register(L, NULL, functions);
}
