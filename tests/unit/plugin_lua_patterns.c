/* Patterns of the plugin lua against those of LuaJIT: the same results for random patterns and
 * texts, and an end where those have none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "plugins/lua/inside.h"

#ifdef WEIR_TSAN                        /* it keeps the frames that errors leave: 65536 at most */
#define ROUNDS 1000
#else
#define ROUNDS 40000
#endif

static unsigned looks, looks_allowed;

void
check_limits(lua_State *L, int level)
{
    (void)level;
    if (++looks > looks_allowed)
        luaL_error(L, "time is over");
}

static uint32_t random_state;

static unsigned
pick(unsigned n)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % n;
}

/* Of a few letters and of all that patterns are made of. */
static void
make(char *to, unsigned most, const char *const *from, unsigned n)
{
    to[0] = '\0';
    for (unsigned k = pick(most + 1); k > 0; k--)
        strcat(to, from[pick(n)]);
}

static const char compare[] =
    "local mine, theirs = ...\n"
    "local function all(f, ...)\n"
    "  local r = {pcall(f, ...)}\n"
    "  if not r[1] then return 'error' end\n"
    "  for i = 1, 12 do r[i] = tostring(r[i]) end\n"
    "  return table.concat(r, '\\1')\n"
    "end\n"
    "local function matches(lib, s, p)\n"
    "  local out, n = {}, 0\n"
    "  for a, b in lib.gmatch(s, p) do\n"
    "    n = n + 1; out[n] = tostring(a) .. '\\2' .. tostring(b)\n"
    "  end\n"
    "  return table.concat(out, '\\1')\n"
    "end\n"
    "local upper = function(a, b) return b ~= false and #tostring(a) % 2 == 0 and ('<' .. a .. '>') end\n"
    "return function(s, p, init, instead)\n"
    "  local results = function(lib)\n"
    "    return {all(lib.find, s, p), all(lib.find, s, p, init), all(lib.match, s, p, init),\n"
    "      all(lib.find, s, p, init, true), all(lib.gsub, s, p, instead), all(lib.gsub, s, p, upper, 3),\n"
    "      all(lib.gsub, s, p, {a = 'A', ab = 7, b = false}), all(matches, lib, s, p)}\n"
    "  end\n"
    "  local a, b = results(mine), results(theirs)\n"
    "  for i = 1, 8 do\n"
    "    if a[i] ~= b[i] and a[i] ~= 'error' then\n"
    "      return ('%d: %q %q %d %q: %q, not %q'):format(i, s, p, init, instead, a[i], b[i])\n"
    "    end\n"
    "  end\n"
    "  return nil, a[1] == 'error' and b[1] ~= 'error'\n"
    "end\n";

/* With the function of `compare` at the top. */
static lua_State *
both(void)
{
    lua_State *L = luaL_newstate();

    assert_non_null(L);
    luaL_openlibs(L);
    assert_int_equal(luaL_loadstring(L, compare), 0);
    lua_newtable(L);
    luaL_register(L, NULL, pattern_functions);
    lua_getglobal(L, "string");
    assert_int_equal(lua_pcall(L, 2, 1, 0), 0);
    return L;
}

static void
ask(lua_State *L, const char *s, const char *p, int init, const char *instead, unsigned *stricter)
{
    looks = 0;
    lua_pushvalue(L, -1);
    lua_pushstring(L, s);
    lua_pushstring(L, p);
    lua_pushinteger(L, init);
    lua_pushstring(L, instead);
    if (lua_pcall(L, 4, 2, 0) != 0)
        fail_msg("%s", lua_tostring(L, -1));
    if (!lua_isnil(L, -2))
        fail_msg("%s", lua_tostring(L, -2));
    *stricter += (unsigned)lua_toboolean(L, -1);
    lua_pop(L, 2);
}

static void
random_patterns_match_as_those_of_luajit(void **unused)
{
    static const char *const parts[] = { "a", "b", "ab", "1", "-", "*", "+", "?", ".", "(", ")", "()",
        "%a", "%d", "%W", "%s", "%.", "%g", "%z", "[ab]", "[^a]", "[a-c1]", "[]]", "[^%d ]", "[%a-]",
        "%b()", "%bab", "%f[%w]", "%f[^a]", "%1", "%2", "^", "$", " ", "(a*)", "(.-)", "%%", "[a", "%" };
    static const char *const texts[] = { "a", "b", "ab", "1", " ", "(", ")", "-", ".", "]", "%", "A", "\t" };
    static const char *const others[] = { "x", "%0", "%1", "%%", "%2", "-" };
    unsigned all = sizeof parts / sizeof *parts, stricter = 0;
    char s[64], p[64], instead[32];
    lua_State *L = both();

    (void)unused;
    random_state = 1;
    looks_allowed = ~0u;
    for (unsigned i = 0; i < ROUNDS; i++) {
        make(s, 10, texts, sizeof texts / sizeof *texts);
        make(p, 5, parts, all);
        make(instead, 3, others, sizeof others / sizeof *others);
        ask(L, s, p, (int)pick(16) - 5, instead, &stricter);
    }
    /* Malformed patterns are errors here also where the text ends before what is malformed. */
    assert_true(stricter < ROUNDS / 4);
    lua_close(L);
}

static void
longer_patterns_match_too(void **unused)
{
    static const char *const cases[][2] = {
        { "key = value", "^(%w+)%s*=%s*(%w+)$" }, { "THE (quick) fox", "%((%a+)%)" },
        { "f(a(i)b)c", "%b()" }, { "2026-11-21T10:00:00Z", "^(%d%d%d%d)-(%d%d)-(%d%d)T([%d:]+)(Z?)$" },
        { "/api/v2/teams/7/members", "^/api/v(%d+)/(%w+)/(%d+)/?(.*)$" },
        { "en-GB,en;q=0.9,de;q=0.8", "([%a-]+);?q?=?([%d.]*)" }, { "aaa", "a-$" }, { "", "" },
        { "abcabc", "(a)(b)(c)%1%2%3" }, { "THE (quick) fox", "%f[%a]%a+%f[%A]" },
        { "0123456789012345678901234567890123456789012345678901234567890",
          "0123456789012345678901234567890123456789012345678.012345678%d*$" },
    };
    lua_State *L = both();
    unsigned stricter = 0;

    (void)unused;
    looks_allowed = ~0u;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ask(L, cases[i][0], cases[i][1], 1, "<%0>", &stricter);
    assert_int_equal(stricter, 0);
    lua_close(L);
}

static void
what_backtracks_for_ever_comes_to_an_end(void **unused)
{
    static const char *const patterns[] = { ".-.-.-.-b", "(.*)(.*)(.*)(.*)%1b", "a*a*a*a*a*a*b",
        "%b()%b()" };
    lua_State *L = luaL_newstate();

    (void)unused;
    luaL_openlibs(L);
    looks_allowed = 1000;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        looks = 0;
        lua_pushcfunction(L, pattern_functions[0].func);
        lua_getglobal(L, "string");
        lua_getfield(L, -1, "rep");
        lua_remove(L, -2);
        lua_pushstring(L, i == 3 ? "(" : "a");
        lua_pushinteger(L, 20000);
        lua_call(L, 2, 1);
        lua_pushstring(L, patterns[i]);
        assert_int_not_equal(lua_pcall(L, 2, 1, 0), 0);
        assert_non_null(strstr(lua_tostring(L, -1), "time is over"));
        lua_pop(L, 1);
    }
    lua_close(L);
}

static void
a_pattern_of_many_items_is_no_deep_recursion(void **unused)
{
    lua_State *L = luaL_newstate();
    char p[1201] = "";

    (void)unused;
    looks_allowed = ~0u;
    for (int i = 0; i < 600; i++)
        strcat(p, "a?");
    lua_pushcfunction(L, pattern_functions[1].func);
    lua_pushstring(L, p);
    lua_pushstring(L, p);
    assert_int_equal(lua_pcall(L, 2, 1, 0), 0);                 /* one in a thousand fits */
    assert_string_equal(lua_tostring(L, -1), "a");
    lua_pushcfunction(L, pattern_functions[1].func);
    memset(p, 'a', 300);
    lua_pushlstring(L, p, 300);
    for (int i = 0; i < 600; i++)
        memcpy(p + 2 * i, "a?", 3);
    lua_pushstring(L, p);
    assert_int_not_equal(lua_pcall(L, 2, 1, 0), 0);
    assert_non_null(strstr(lua_tostring(L, -1), "pattern too complex"));
    lua_close(L);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_patterns_match_as_those_of_luajit),
        cmocka_unit_test(longer_patterns_match_too),
        cmocka_unit_test(what_backtracks_for_ever_comes_to_an_end),
        cmocka_unit_test(a_pattern_of_many_items_is_no_deep_recursion),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
