"""The plugin lua: scripts at every hook of real requests. What holds them is in unit/plugin_lua.c."""
import os
import re
import subprocess
import threading

import pytest

from harness import eventually, weir_binary

PLUGIN = os.path.join(os.path.dirname(weir_binary()), "plugins", "lua.so")
FRESH = [("Cache-Control", "max-age=60")]
pytestmark = pytest.mark.skipif(not os.path.exists(PLUGIN), reason="built without LuaJIT")


@pytest.fixture
def with_lua(tmp_path):
    """Settings with a script for all routes, or {path: script}."""
    def settings(scripts, routes=None, on_error="fail", args=None, **options):
        if isinstance(scripts, str):
            scripts = {"/**": scripts}
        its = []
        for i, (path, text) in enumerate(scripts.items()):
            file = tmp_path / ("s%d.lua" % i)
            file.write_text(text)
            its.append({**((routes or {}).get(path) or {}), "path": path,
                        "plugins": {"lua": {"script": str(file), "args": args or []}}})
        return {"plugins": [{"name": "lua", "file": PLUGIN, "on_error": on_error, "options": options}],
                "routes": its}
    return settings


def metric(w, name):
    for line in w.api("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    return 0


def test_hooks_of_a_request_and_its_answer(origin, weir, with_lua):
    origin.on("/item/a%20b", lambda req, conn: conn.respond(
        200, FRESH + [("X-Secret", "s"), ("X-Two", "1"), ("X-Two", "2")],
        ("%s %s" % (req.header("X-Tenant"), req.header("X-Gone"))).encode()))
    w = weir(**with_lua({"/item/{id}": """
        function request(r)
          if r:field("X-Stop") then
            r:set_response_field("X-Why", r:field("X-Stop", 2) or "once")
            r:answer(203, "text/x-lua", r.method .. " " .. r.path .. "?" .. tostring(r.query) .. " " .. r.client)
            return
          end
          r:set_field("X-Tenant", r:arg("tenant") .. "-" .. r:param("id"))
          r:set_field("X-Gone", nil)
          r:keep("who", r:field("X-Who") or "nobody")
          r:add_tag("asked")
          if r:field("X-Part") then r:add_key("part", r:field("X-Part")) end
        end
        function key(r) assert(r.key:find("/item/", 1, true)) end
        function response(r)
          assert(r.status == 200 and r.client == nil)
          r:set_response_field("X-Secret", nil)
          r:set_ttl(1000, true)
          local all = {}
          for name, value in r:response_fields() do all[#all + 1] = name == "X-Two" and value or nil end
          r:add_response_field("X-Two", table.concat(all, "+"))
        end
        function store(r) r:add_tag(r.body) end
        function deliver(r)
          r:set_response_field("X-Status", tostring(r.status))
          r:set_response_field("X-For", r:kept("who"))
        end
        weir.counter("finished", "Requests that were finished.")
        function done(r)
          r:count("finished", 2)
          r:log(("done %s %d %d %s"):format(r.outcome, r.status, r.bytes_out, tostring(r.microseconds > 0)))
        end
    """}, args=["tenant=acme"]))
    own = w.get("/item/x?q=1", [("X-Stop", "1"), ("X-Stop", "twice")])
    assert (own.status, own.header("Content-Type"), own.header("X-Why")) == (203, "text/x-lua", "twice")
    assert own.body == b"GET /item/x?q=1 127.0.0.1" and not origin.requests
    first = w.get("/item/a%20b", [("X-Gone", "1"), ("X-Who", "one")])
    assert first.body == b"acme-a b None" and first.header("X-Secret") is None
    assert first.all("X-Two") == ["1", "2", "1+2"]
    hit = w.get("/item/a%20b")
    assert hit.cache_status.hit and hit.cache_status.ttl > 900
    assert (first.header("X-For"), hit.header("X-For"), hit.header("X-Status")) == ("one", "nobody", "200")
    assert not w.get("/item/a%20b", [("X-Part", "p")]).cache_status.hit
    assert w.api("POST", "/purge", {"tags": ["asked"], "dry_run": True}).json()["objects"] == 2
    assert w.api("POST", "/purge", {"tags": ["acme-a b None"], "dry_run": True}).json()["objects"] == 2
    eventually(lambda: w.log_has("plugin lua: done hit 200 13 true"))
    eventually(lambda: metric(w, "weir_plugin_lua_finished_total") == 8)


def test_hooks_of_a_write(origin, weir, with_lua, tmp_path):
    origin.on("/w", status=201)
    w = weir(journal={"path": str(tmp_path / "journal")}, **with_lua({"/w": """
        function accepted(r) r:log("accepted " .. r.write_id) end
        function delivered(r) r:log(("delivered %s %s %d %d"):format(r.write_id, r.outcome, r.status, r.attempts)) end
    """}, routes={"/w": {"policy": "write-back"}}))
    made = w.request("POST", "/w", [], b"x")
    assert made.status == 202
    assert w.log_has("plugin lua: accepted " + made.json()["id"])
    eventually(lambda: w.log_has("plugin lua: delivered %s delivered 201 1" % made.json()["id"]))


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_on_error_decides_what_becomes_of_a_failed_script(origin, weir, with_lua, on_error):
    scripts = {"/time": "function request(r)\n pcall(function() while true do end end) end",
               "/memory": "function request(r) pcall(string.rep, 'x', 1e8) end",
               "/error": "function request(r)\n\n local x = r.no.such end",
               "/late": "function response(r) local x = ('a'):rep(9999):match('.-.-.-.-b') end"}
    for path in scripts:
        origin.on(path, body=b"fine", headers=FRESH)
    w = weir(**with_lua(scripts, on_error=on_error, time="10ms", memory="1MiB"))
    for path, why in [("/time", "s0.lua:2: ran longer than its 10 ms (request, route /time)"),
                      ("/memory", "s1.lua: needs more than its 1024 KiB of memory (request, route /memory)"),
                      ("/error", "s2.lua:3: r has no no (request, route /error)"),
                      ("/late", "s3.lua:1: ran longer than its 10 ms (response, route /late)")]:
        got = w.get(path)
        assert got.status == (200 if on_error == "skip" else 502 if path == "/late" else 500)
        assert (got.body == b"fine") == (on_error == "skip") and w.log_has("plugin lua: " + why)
    for _ in range(20):
        w.get("/error")
    assert w.log().count("r has no no") < 10                    # a line a second
    assert metric(w, 'weir_plugin_errors_total{plugin="lua",hook="request"}') >= 3


def test_of_two_workers_each_has_its_own_and_a_reload_brings_another_script(origin, weir, with_lua):
    script = """
        local mine = {}
        function request(r)
          mine[#mine + 1] = r:field("X-Who")
          for i = 1, 200 do mine.x = (mine.x or 0) + i end
          r:set_response_field("X-Version", "%d")
          r:answer(200, "text/plain", table.concat(mine, ","))
        end
    """
    w = weir(workers=2, **with_lua(script % 1))
    wrong, versions = [], set()

    def ask(who):
        with w.client() as c:
            for i in range(150):
                got = c.request("GET", "/a", [("X-Who", "%s%d" % (who, i))])
                versions.add(got.header("X-Version"))
                if got.status != 200 or got.body.decode() != "%s%d" % (who, i):
                    wrong.append(got)
    threads = [threading.Thread(target=ask, args=(who,)) for who in "abcd"]
    for t in threads:
        t.start()
    w.write_config(workers=2, **with_lua(script % 2))
    assert w.api("POST", "/reload").status == 200
    for t in threads:
        t.join()
    assert not wrong and versions <= {"1", "2"}
    assert w.get("/a", [("X-Who", "z")]).header("X-Version") == "2"
    w.write_config(workers=2, **with_lua("function request(r"))
    assert w.api("POST", "/reload").status != 200
    assert w.get("/a", [("X-Who", "z")]).body == b"z"


def test_check_says_what_is_wrong_with_a_script(with_lua, tmp_path):
    config, script = tmp_path / "c.yaml", tmp_path / "x.lua"

    def check(text, route="{}", options="{script: %s}" % script):
        if text is not None:
            script.write_text(text)
        config.write_text("origins: {api: {servers: [\"http://127.0.0.1:9\"]}}\nplugins:\n  - name: lua\n    file: %s\n"
                          "    options: %s\nroutes:\n  - path: /a\n    plugins: {lua: %s}\n" % (PLUGIN, options, route))
        return subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
    good = "function request(r) end"
    assert "x.lua" not in check(good)
    assert ":5:23: plugins[0].options.script: x.lua:2: '=' expected near 'end'" in check("function request(r)\nx end")
    assert ": plugins[0].options.script: x.lua defines none of request, key," in check("function requests(r) end")
    assert ": plugins[0].options.script: x.lua: is bytecode; a text in Lua" in check("\033LJ")
    assert "plugins[0].options.time: " in check(good, options="{script: %s, time: 5m}" % script)
    assert ":8:27: routes[0].plugins.lua.args: is not of the form NAME=TEXT" in check(good, "{args: a}")
    other = tmp_path / "y.lua"
    other.write_text("error('no')")
    assert ":8:29: routes[0].plugins.lua.script: y.lua:1: no" in check(good, "{script: %s}" % other)
    assert "there is no script: `script` of the plugin's options, or here" in check(good, options="{}")
    os.unlink(script)
    assert "plugins[0].options.script: " in check(None)


def test_the_scripts_of_the_readme(origin, weir, with_lua):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../plugins/lua/README.md")) as f:
        tags, languages, maintenance = re.findall(r"^```lua\n(.*?)^```", f.read(), re.M | re.S)
    origin.on("/t", body=b"t", headers=FRESH + [("X-Entities", "team:7, user:3")])
    origin.on("/l", lambda req, conn: conn.respond(200, FRESH, req.header("Accept-Language").encode()))
    origin.on("/m", body=b"m", headers=FRESH)
    w = weir(**with_lua({"/t": tags, "/l": languages, "/m": maintenance}, args=["until=9999-01-01"]))
    assert w.get("/t").header("X-Entities") is None
    assert w.api("POST", "/purge", {"tags": ["user:3"]}).json()["objects"] == 1
    assert w.get("/l", [("Accept-Language", "xx, DE-at;q=0.5")]).body == b"de"
    assert w.get("/l", [("Accept-Language", "de")]).cache_status.hit
    assert w.get("/l").body == b"en"
    assert w.get("/m").body == b"m"
    no = w.request("POST", "/m", [], b"x")
    assert (no.status, no.header("Retry-After"), no.json()["detail"]) == (503, "3600", "maintenance until 9999-01-01")
    assert w.api("GET", "/explain?method=POST&url=http://%s/m" % w.host).json()["plugins"]["asked"] == ["lua"]
    assert metric(w, "weir_plugin_lua_maintenance_total") == 1
