/* The shipped plugin lua: what holds a script in its limits and in its place. Its scripts answer with
 * what they find; requests through a whole Weir are in scenario/test_lua.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "plugin/plugin.h"

#define MEMORY (2 << 20)

static const struct weir_plugin *table;
static char complaint[600];

struct running {
    struct plugin *plugin;
    struct plugin_uses *uses;           /* owned; of one */
    struct weir_value options[3], route_options[2];
    char file[64];
};

static void
hear(void *arg, const struct plugin_complaint *c)
{
    (void)arg;
    snprintf(complaint, sizeof complaint, "%s: %s", c->option != NULL ? c->option : "", c->text);
}

/* False: it complained. */
static bool
open_script_with(struct running *s, const char *script, uint64_t time_ms, size_t memory)
{
    bool open;
    int fd;

    *s = (struct running){ .file = "/tmp/weir-lua-XXXXXX" };
    fd = mkstemp(s->file);
    assert_true(fd != -1);
    assert_int_equal(write(fd, script, strlen(script)), strlen(script));
    close(fd);
    s->options[0].text = (struct weir_text){ s->file, strlen(s->file) };
    s->options[1].number = time_ms;
    s->options[2].number = memory;
    s->uses = calloc(1, sizeof *s->uses + sizeof s->uses->at[0]);
    s->plugin = plugin_open(table, s->options, false, 1000, hear, NULL);
    open = s->plugin != NULL &&
        plugin_use_open(s->plugin, "/**", s->route_options, s->uses->at, hear, NULL) == 0;
    if (open) {
        s->uses->n = 1;
        s->uses->hooks = s->uses->at[0].hooks;
    }
    unlink(s->file);
    return open;
}

static bool
open_script(struct running *s, const char *script, uint64_t time_ms)
{
    return open_script_with(s, script, time_ms, MEMORY);
}

static void
close_script(struct running *s)
{
    if (s->uses->n > 0)
        plugin_use_close(&s->uses->at[0]);
    plugin_close(&s->plugin);
    free(s->uses);
}

/* What the hook answers; "next", or "failed". */
static const char *
ask(struct running *s, const char *client)
{
    static char answer[4096];
    struct pool *pool = pool_new();
    struct weir_request *r = plugin_request(s->uses, pool);

    r->route = "/**";
    r->client = slice_of(client);
    switch (plugin_run(r, HOOK_REQUEST)) {
    case PLUGIN_ANSWERED:
        snprintf(answer, sizeof answer, "%.*s", SLICE_ARG(r->answer_body));
        break;
    case PLUGIN_NEXT:
        strcpy(answer, "next");
        break;
    default:
        strcpy(answer, "failed");
    }
    plugin_end(r);
    pool_free(&pool);
    return answer;
}

static void
expect(const char *script, const char *answer)
{
    struct running s;

    if (!open_script(&s, script, 1000))
        fail_msg("%s", complaint);
    assert_string_equal(ask(&s, "c"), answer);
    close_script(&s);
}

#define REQUEST(body) "function request(r) " body " end"

/* ---- limits ---------------------------------------------------------------------------------- */

static void
what_goes_over_a_limit_has_failed_and_the_next_call_has_not(void **unused)
{
    static const char *const bombs[] = {
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "pcall(pcall, pcall, function() while true do end end) while true do end",
        "pcall(error, setmetatable({}, {__tostring = function() while true do end end})) while true do end",
        "local s = 'x' while true do s = s .. s end",
        "pcall(function() local s = 'x' while true do s = s .. s end end)",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local t = {} while true do t = {t, {}} end",
        "return ('x'):rep(1e9)",
        "return ('x'):rep(1e5):rep(1e5)",
        "while true do local s = ('x'):rep(1e5) end",
        "local s = ('a'):rep(20000) return s:find('.-.-.-.-b')",
        "local s = ('a'):rep(20000) return s:match('a*a*a*a*a*b')",
        "local s = ('a'):rep(20000) return s:gsub('.-.-.-b', 'x')",
        "local s = ('a'):rep(20000) for w in s:gmatch('.-.-.-b') do end",
        "local function f() return 1 + f() end f()",
        "local function f() return pcall(f) end f() while true do end",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k + 1] end return t[1]",
        "local s = ('a'):rep(100) local function f() return s:gsub('a', f) end f()",
        "local m = {} m.__tostring = function(x) return string.format('%s', x) .. '' end"
            " string.format('%s', setmetatable({}, m))",
        "local m = {} m.__index = function(x) return os.time(x) + 0 end os.time(setmetatable({}, m))",
        "local m = {} m.__lt = function(x) table.sort({x, x}) return false end"
            " local x = setmetatable({}, m) table.sort({x, x})",
        "local m = {} m.__index = function(x) return ('a'):gsub('a', x) .. '' end"
            " local x = setmetatable({}, m) return ('a'):gsub('a', x)",
        "local t = {} for i = 1, 4e4 do t[i] = -i end while true do table.sort(t) end",
        "local t = {} for i = 1, 1e5 do t[i] = i % 7 end table.sort(t, rawequal)",
        "local s = ('x'):rep(900) s:find('%f[' .. ('a'):rep(4e4) .. ']')",
        "local s = ('x'):rep(300) s:gsub('y*', ('%0'):rep(3e5))",
        "local t = {} for i = 1, 500 do t[i] = i % 7 end"
            " table.sort(t, function() while true do end end)",
        "while true do r:keep('k', ('x'):rep(1000)) end",
        "while true do pcall(r.set_field, r, 'X-A', ('x'):rep(1000)) end",
        "string.format('%s', ('x'):rep(1e7))",
        "string.char(unpack({}, 1, 1e7))",
        "error({})",
        "error(nil)",
        "local x = nil + 1",
        "r:no_such()",
        "r.field('Accept')",
        "r:set_ttl(5)",
        "r:answer(99)",
        "r:add_tag('')",
        "r:count('no_such')",
        "r:mark('nonsense')",
    };

    (void)unused;
    for (size_t i = 0; i < NELEM(bombs); i++) {
        struct running s;
        char script[600];

        snprintf(script, sizeof script, "function request(r) if r.client == 'bad' then %s end "
            "r:answer(200, nil, 'well') end", bombs[i]);
        if (!open_script(&s, script, 20))
            fail_msg("%s", complaint);
        for (int k = 0; k < 2; k++) {
            if (strcmp(ask(&s, "bad"), "failed") != 0)
                fail_msg("did not fail: %s", bombs[i]);
            assert_string_equal(ask(&s, "good"), "well");
        }
        close_script(&s);
    }
}

static void
the_top_of_a_script_has_the_same_limits(void **unused)
{
    struct running s;

    (void)unused;
    assert_false(open_script(&s, "while true do end", 20));
    assert_non_null(strstr(complaint, ":1: ran longer than its 20 ms"));
    close_script(&s);
    assert_false(open_script(&s, "local s = 'x' while true do s = s .. s end", 1000));
    assert_non_null(strstr(complaint, ": needs more than its 2048 KiB of memory"));
    close_script(&s);
}

static void
memory_may_end_at_any_place(void **unused)
{
    static const char script[] = "local t = {1, 2, a = 'b'} function request(r) "
        "for i = 1, 40 do t[#t + 1] = ('k' .. i):gsub('%d', '<%0>') t['x' .. i] = {i} end "
        "table.sort({3, 1, 2}) r:keep('a', table.concat(t, ','):rep(20)) "
        "r:answer(200, nil, ('%s'):format(r:kept('a'):upper():sub(1, 5))) end";
    unsigned refused = 0, failed = 0, well = 0;

    (void)unused;
    for (size_t memory = 20000; memory < 120000; memory += 151) {
        struct running s;

        if (open_script_with(&s, script, 1000, memory)) {
            const char *answer = ask(&s, "c");

            *(strcmp(answer, "failed") == 0 ? &failed : &well) += 1;
            if (strcmp(answer, "failed") != 0)
                assert_string_equal(answer, "1,2,K");
            ask(&s, "c");
        } else {
            refused++;
        }
        close_script(&s);
    }
    assert_true(refused > 0 && failed > 0 && well > 0);
}

static void
many_calls_leave_no_garbage_for_the_next(void **unused)
{
    struct running s;

    (void)unused;
    assert_true(open_script(&s, REQUEST("local t = {} for i = 1, 500 do t[i] = ('x'):rep(i) .. r.client end "
        "r:answer(200, nil, tostring(#t))"), 1000));
    for (int i = 0; i < 300; i++) {
        char client[16];

        snprintf(client, sizeof client, "%d", i);
        assert_string_equal(ask(&s, client), "500");
    }
    close_script(&s);
}

/* ---- the sandbox ----------------------------------------------------------------------------- */

static void
a_script_sees_nothing_that_leaves_its_call(void **unused)
{
    (void)unused;
    expect(REQUEST("local seen = {} "
        "for i, v in ipairs({tostring(io), tostring(package), tostring(require), tostring(ffi), "
        "tostring(jit), tostring(debug), tostring(load), tostring(loadstring), tostring(loadfile), "
        "tostring(dofile), tostring(collectgarbage), tostring(gcinfo), tostring(newproxy), "
        "tostring(getfenv), tostring(setfenv), tostring(_G), tostring(coroutine), tostring(xpcall), "
        "tostring(print), tostring(module), tostring(string.dump), tostring(os.execute), "
        "tostring(os.exit), tostring(os.getenv), tostring(os.remove), tostring(os.tmpname), "
        "tostring(os.setlocale), tostring(math.randomseed), tostring(table.foreach)}) do "
        "if v ~= 'nil' then seen[#seen + 1] = i end end "
        "r:answer(200, nil, table.concat(seen, ' ') .. '.')"), ".");
}

static void
nothing_of_one_call_reaches_the_next(void **unused)
{
    static const char script[] =
        "local up, list, sealed = nil, {}, true\n"
        "shared = shared or {}\n"
        "local function try(f, ...) if pcall(f, ...) then sealed = false end end\n"
        "function request(r)\n"
        "  local found = {}\n"
        "  for _, v in pairs({up, list[1], shared[1], global, string.leak, ('').leak, table.leak,\n"
        "      math.leak, weir.leak, r:kept('leak')}) do found[#found + 1] = v end\n"
        "  up, list[1], shared[1], global = r.client, r.client, r.client, r.client\n"
        "  r:keep('leak', r.client)\n"
        "  assert(r:kept('leak') == r.client)\n"
        "  for _, lib in pairs({string, table, math, os, bit, weir, r}) do\n"
        "    try(function() lib.leak = r.client end)\n"
        "    try(rawset, lib, 'leak', r.client)\n"
        "    try(table.insert, lib, r.client)\n"
        "    try(setmetatable, lib, {})\n"
        "    if getmetatable(lib) ~= false then sealed = false end\n"
        "  end\n"
        "  if getmetatable('') ~= false then sealed = false end\n"
        "  try(function() ('').leak = 1 end)\n"
        "  string = {}\n"
        "  request = nil\n"
        "  r:answer(200, nil, #found .. ' ' .. tostring(sealed))\n"
        "end\n";
    struct running s;

    (void)unused;
    assert_true(open_script(&s, script, 1000));
    for (int i = 0; i < 3; i++)
        assert_string_equal(ask(&s, "secret"), "0 true");
    close_script(&s);
}

static void
what_lua_has_is_there(void **unused)
{
    (void)unused;
    expect(REQUEST("r:answer(200, nil, ('%s|%s|%d|%s|%s|%s|%s'):format(('a,b'):gsub(',', ';'), "
        "table.concat({('k=v'):match('(%w)=(%w)')}, '/'), math.floor(7.5), select('#', 1, 2), "
        "('ab'):rep(2), ('x'):upper(), bit.band(6, 3)))"), "a;b|k/v|7|2|abab|X|2");
    expect(REQUEST("local t = {3, 1, 2} table.sort(t) local a = table.concat(t) "
        "table.sort(t, function(x, y) return x > y end) r:answer(200, nil, a .. table.concat(t))"),
        "123321");
    expect(REQUEST("r:answer(200, nil, tostring(os.time() - weir.now() < 1) .. os.date('!%Y', 0) .. "
        "tostring(math.random() < 1))"), "true1970true");
    expect(REQUEST("local ok, why = pcall(error, 'x', 0) local t = {pcall(function(...) return ... end, 1, nil, 3)} "
        "r:answer(200, nil, tostring(ok) .. why .. tostring(t[1]) .. t[4])"), "falsextrue3");
    expect(REQUEST("r:answer(200) r:refuse(403, 'no')"), "no");
    expect(REQUEST("local a, b = pcall(r.answer, r, 99) r:answer(200, nil, tostring(a))"), "false");
}

/* ---- what is wrong with a script ------------------------------------------------------------- */

static void
a_wrong_script_is_not_opened_and_says_where(void **unused)
{
    static const char *const cases[][2] = {
        { "x = = 1", ":1: unexpected symbol near '='" },
        { "\n\nfunction request(r) r:answer( end", ":3: unexpected symbol near 'end'" },
        { "local a = nil\na.b = 1", ":2: attempt to index local 'a' (a nil value)" },
        { "error({})", "an error without a text (a table)" },
        { "table.sort({1, 'a'})\n", ":1: attempt to compare" },
        { "weir.counter('a b', 'x')", ":1: bad argument #1 to 'counter' (letters, digits and _)" },
        { "x = 1", "defines none of request, key," },
        { "function request(r) end\nrequire('os')", ":2: attempt to call global 'require' (a nil value)" },
        { "\033LJ\002", "bytecode" },
    };

    (void)unused;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct running s;

        complaint[0] = '\0';
        assert_false(open_script(&s, cases[i][0], 1000));
        close_script(&s);
        if (strncmp(complaint, "script: ", 8) != 0 || strstr(complaint, cases[i][1]) == NULL)
            fail_msg("%s", complaint);
    }
}

static void
only_the_hooks_that_a_script_defines_are_called(void **unused)
{
    struct running s;

    (void)unused;
    assert_true(open_script(&s, "function response(r) end function store(r) end done = 1", 1000));
    assert_int_equal(s.uses->hooks, HOOK_BIT(RESPONSE) | HOOK_BIT(STORE));
    assert_string_equal(ask(&s, "c"), "next");
    close_script(&s);
}

static int
load(void **state)
{
    struct err e;

    (void)state;
    log_threshold = LOG_ERROR;
    table = plugin_load(PLUGIN_LUA, "lua", &e);
    return table != NULL ? 0 : -1;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_over_a_limit_has_failed_and_the_next_call_has_not),
        cmocka_unit_test(the_top_of_a_script_has_the_same_limits),
        cmocka_unit_test(memory_may_end_at_any_place),
        cmocka_unit_test(many_calls_leave_no_garbage_for_the_next),
        cmocka_unit_test(a_script_sees_nothing_that_leaves_its_call),
        cmocka_unit_test(nothing_of_one_call_reaches_the_next),
        cmocka_unit_test(what_lua_has_is_there),
        cmocka_unit_test(a_wrong_script_is_not_opened_and_says_where),
        cmocka_unit_test(only_the_hooks_that_a_script_defines_are_called),
    };

    return cmocka_run_group_tests(tests, load, NULL);
}
