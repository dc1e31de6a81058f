"""Plugins: a probe that is built as anybody's would be, with `pkg-config weir`, and does in each hook
what a request or an answer tells it (tests/plugin/probe.c)."""
import hashlib
import os
import re
import subprocess

import pytest

from harness import eventually, weir_binary

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "plugin", "probe.c")
FRESH = [("Cache-Control", "max-age=60")]


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """A function that builds the probe out of tree; defines are for the compiler."""
    root = tmp_path_factory.mktemp("installed")
    prefix = str(root / "usr")
    tree = os.path.dirname(weir_binary())
    if not os.path.exists(os.path.join(tree, "cmake_install.cmake")):
        pytest.skip("WEIR is not in the tree that it was built in: nothing to install from")
    subprocess.run(["cmake", "--install", tree, "--prefix", prefix], check=True,
                   stdout=subprocess.DEVNULL)
    pkg = subprocess.run(
        ["find", prefix, "-name", "weir.pc"], check=True, capture_output=True, text=True).stdout.strip()
    env = {**os.environ, "PKG_CONFIG_PATH": os.path.dirname(pkg)}

    def flag(*what):
        return subprocess.run(["pkg-config", *what, "weir"], check=True, capture_output=True,
                              text=True, env=env).stdout.split()
    assert os.path.exists(os.path.join(flag("--variable=plugindir")[0], "json_tags.so"))

    def make(name, *defines):
        out = str(root / (name + ".so"))
        subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-pthread", *flag("--cflags"),
                        *defines, "-o", out, SOURCE], check=True)
        return out
    return make


@pytest.fixture(scope="session")
def probe(build):
    return build("probe")


def with_probe(probe, route=None, routes=None, **plugin):
    return {"plugins": [{"name": "probe", "file": probe, **plugin}],
            "routes": routes or [{"path": "/off"}, {"path": "/item/{id}", "plugins": {"probe": True}},
                                 {"path": "/**", "plugins": {"probe": route or {"stamp": "s1"}}}]}


def says(hook, words):
    return [("X-Probe-" + hook, words)]


# ---- loading and options -------------------------------------------------------------------------

def test_a_plugin_that_cannot_be_loaded_is_an_error_with_its_name(weir, build, probe, tmp_path):
    config = tmp_path / "c.yaml"
    other = build("probe_of_another_abi", "-DPROBE_ABI=99")

    def problems(text):
        config.write_text("origins: {api: {servers: [http://127.0.0.1:9]}}\nroutes: [{path: /**}]\n" + text)
        got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True)
        run = subprocess.run([weir_binary(), "-c", str(config)], capture_output=True, text=True)
        assert got.returncode == run.returncode == 1
        assert run.stderr.strip() == got.stdout.strip()
        return [line.replace(str(config), "F") for line in got.stdout.splitlines()]

    assert problems("plugins:\n  - {name: nosuch}\n")[0].startswith(
        "F:4:5: plugins[0].file: plugin nosuch: ")
    assert "No such file" in problems("plugins: [nosuch]\n")[0]
    assert problems("plugins:\n  - {name: probe, file: %s}\n" % other) == [
        "F:4:25: plugins[0].file: plugin probe: %s is of plugin ABI 99, and this is ABI 1; a build of it "
        "for this version" % other]
    assert "cannot be loaded" in problems("plugins: [{name: probe, file: %s}]\n" % SOURCE)[0]
    assert "exports no weir_plugin" in problems("plugins: [{name: probe, file: libm.so.6}]\n".replace(
        "libm.so.6", next(p for p in ("/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6",
                                      "/lib64/libm.so.6") if os.path.exists(p))))[0]
    assert "is the plugin probe; the file of other" in problems(
        "plugins: [{name: other, file: %s}]\n" % probe)[0]
    assert "greeting is not" not in problems("plugins: [{name: probe, file: %s, options: {greeting: bad}}]\n"
                                             % probe)[0]


def test_check_judges_a_plugins_options_by_its_own_table(probe, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("""\
origins: {api: {servers: ["http://127.0.0.1:9"]}}
plugins:
  - name: probe
    file: %s
    on_error: explode
    options:
      greating: hi
      mode: three
      refuse_route: perhaps
  - probe
  - {name: spare, everywhere: true, no_such: 1}
routes:
  - path: /a
    plugins:
      prob: true
""" % probe)
    got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
    lines = [line.split(":", 1)[1] for line in got.splitlines()]
    assert lines[0].startswith("5:15: plugins[0].on_error: \"explode\" is not known; fail or skip")
    assert any(line.startswith("11:37: plugins[2].no_such: unknown key; ") for line in lines)
    assert any(line.startswith("15:7: routes[0].plugins.prob: no plugin of that name, did you mean probe")
               for line in lines)
    config.write_text(config.read_text().replace("    on_error: explode\n", ""))
    got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
    lines = [line.split(":", 1)[1] for line in got.splitlines()]
    assert "6:7: plugins[0].options.greating: unknown key; did you mean greeting" in lines
    assert '7:13: plugins[0].options.mode: "three" is not known; one of one, two' in lines
    assert any(line.startswith('8:21: plugins[0].options.refuse_route: "perhaps" is not known') for line in lines)
    assert any(line.startswith("9:5: plugins[1]: probe is there already") for line in lines)
    # What the plugin itself finds wrong, at the option that it names; and a route's own options.
    for text, wanted in [
            ("plugins: [{name: probe, file: %s, options: {greeting: bad}}]\nroutes: [{path: /a}]" % probe,
             "plugins[0].options.greeting: is bad; a good one"),
            ("plugins: [{name: probe, file: %s, options: {refuse_route: true}, everywhere: true}]\n"
             "routes: [{path: /a}]" % probe, "routes[0].plugins.probe: plugin probe: no route is good enough"),
            ("plugins: [{name: probe, file: %s}]\nroutes: [{path: /a, plugins: {probe: {limit: 11}}}]" % probe,
             "routes[0].plugins.probe.limit: \"11\" is too large; a whole number, within 1..10")]:
        config.write_text("origins: {api: {servers: [\"http://127.0.0.1:9\"]}}\n" + text)
        got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
        assert wanted in got, got


def test_the_reference_lists_a_plugins_options_and_the_configuration_hides_its_secrets(weir, probe):
    got = subprocess.run([weir_binary(), "reference", probe], capture_output=True, text=True)
    assert got.returncode == 0
    assert "| `greeting` | string | `hello` |  | reload | What an answer of its own says. |" in got.stdout
    assert "| `limit` | count | `5` | 1 – 10 | reload | A number. |" in got.stdout
    built = subprocess.run([weir_binary(), "reference", "json_tags"], capture_output=True, text=True)
    assert "| `pointers` |" in built.stdout, built.stderr       # beside a program that is not installed
    w = weir(**with_probe(probe, options={"secret": "hush-hush", "mode": "two"}))
    config = w.api("GET", "/config").body.decode()
    assert "hush" not in config and 'mode: "two"' in config and 'stamp: "s1"' in config


# ---- the request's hooks -------------------------------------------------------------------------

def test_request_and_key_hooks_answer_edit_and_key(origin, weir, probe):
    origin.on("/a", lambda req, conn: conn.respond(200, FRESH, ("set=%s param=%s" % (
        req.header("X-Set"), req.header("X-Param"))).encode()))
    origin.on("/item/a%20b", lambda req, conn: conn.respond(200, FRESH, req.header("X-Param").encode()))
    w = weir(**with_probe(probe))
    own = w.get("/a", says("Request", "answer"))
    assert (own.status, own.header("Content-Type"), own.body) == (203, "text/x-probe", b"/a")
    assert own.header("X-Greeting") == "hello" and not origin.requests
    no = w.get("/a", says("Request", "refuse"))
    assert no.status == 403 and no.json()["detail"] == "the probe says no"

    assert w.get("/a", says("Request", "set=1")).body == b"set=1 param=None"
    hit = w.get("/a", says("Request", "set=2"))
    assert hit.cache_status.hit and hit.body == b"set=1 param=None" and hit.header("X-Stamp") == "s1"
    assert w.get("/item/a%20b").body == b"a b"

    for hook in "Request", "Key":
        assert not w.get("/a", says(hook, "key=%s" % hook)).cache_status.hit
        assert w.get("/a", says(hook, "key=%s" % hook)).cache_status.hit
    assert origin.count("/a") == 3                              # a part is a part, whoever adds it ...
    assert w.get("/a", says("Request", "key=Key")).cache_status.hit
    assert origin.count("/a") == 3
    assert not w.get("/a", says("Request", "pass")).cache_status.hit
    assert w.get("/a", says("Request", "pass")).cache_status.detail == "plugin"
    assert w.get("/a", says("Request", "forbidden=1")).status == 200


def test_tags_of_the_request_purge_what_is_stored(origin, weir, probe):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(**with_probe(probe))
    w.get("/a", says("Request", "tag=t1"))
    assert w.get("/a").cache_status.hit
    assert w.api("POST", "/purge", {"tags": ["t1"]}).status == 200
    assert not w.get("/a").cache_status.hit


def test_an_authorized_answer_is_stored_for_those_with_the_same_key(origin, weir, probe):
    origin.on("/a", lambda req, conn: conn.respond(200, FRESH, req.header("Authorization").encode()))
    w = weir(**with_probe(probe))

    def get(token, words):
        return w.get("/a", [("Authorization", token)] + says("Request", words))
    for _ in range(2):
        assert not get("one", "key=t1").cache_status.hit            # RFC 9111 3.5
    assert get("one", "authorized key=t1").body == b"one"
    again = get("two", "authorized key=t1")
    assert again.cache_status.hit and again.body == b"one"
    other = get("two", "authorized key=t2")
    assert not other.cache_status.hit and other.body == b"two"


# ---- the hooks of a fetch ------------------------------------------------------------------------

def test_response_hooks_change_fields_freshness_and_storability(origin, weir, probe):
    w = weir(**with_probe(probe))
    for path, words, more in [("/ttl", "ttl=100", []), ("/private", "ttl=100 force", [("Cache-Control", "private")]),
                              ("/silent", "ttl=100", [("Cache-Control", "private")]),
                              ("/no", "nostore", FRESH)]:
        origin.on(path, body=b"x", headers=says("Response", words + " set=edited tag=r") + [("X-Secret", "s")] + more)
    first = w.get("/ttl")
    assert first.header("X-Set") == "edited" and first.header("X-Secret") is None
    assert w.get("/ttl").cache_status.ttl in (99, 100)
    assert not w.get("/private").cache_status.hit and w.get("/private").cache_status.ttl in (99, 100)
    hit = w.get("/ttl")
    assert hit.cache_status.hit and hit.header("X-Set") == "edited" and hit.header("X-Secret") is None
    for path in "/silent", "/no":
        assert not w.get(path).cache_status.stored and not w.get(path).cache_status.hit
    assert w.get("/no").cache_status.detail == "plugin"
    assert w.api("POST", "/purge", {"tags": ["r"]}).json()["objects"] == 2
    assert not w.get("/ttl").cache_status.hit


def test_a_304_is_edited_as_the_200_was(origin, weir, probe):
    def answer(req, conn):
        if req.header("If-None-Match"):
            conn.respond(304, says("Response", "set=again") + [("ETag", '"1"'), ("X-Secret", "s2")] + FRESH)
        else:
            conn.respond(200, says("Response", "set=first") + [("ETag", '"1"'), ("Cache-Control", "max-age=0")], b"b")
    origin.on("/a", answer)
    w = weir(**with_probe(probe))
    assert w.get("/a").header("X-Set") == "first"
    fresh = w.get("/a")
    assert (fresh.body, fresh.header("X-Set"), fresh.header("X-Secret")) == (b"b", "again", None)
    assert w.get("/a").cache_status.hit


def test_a_store_hook_sees_the_body_and_may_refuse(origin, weir, probe):
    origin.on("/tag", body=b"its-own-tag", headers=FRESH + says("Store", "body"))
    origin.on("/no", body=b"x", headers=FRESH + says("Store", "nostore"))
    w = weir(**with_probe(probe))
    w.get("/tag")
    assert w.get("/tag").cache_status.hit
    assert w.api("POST", "/purge", {"tags": ["its-own-tag"]}).json()["objects"] == 1
    w.get("/no")
    assert not w.get("/no").cache_status.hit


# ---- deliver, done, writes -----------------------------------------------------------------------

def test_deliver_edits_what_one_client_gets(origin, weir, probe):
    origin.on("/a", body=b"0123456789", headers=FRESH + [("Content-Type", "text/a"), ("ETag", '"1"')])
    w = weir(**with_probe(probe))
    first = w.get("/a", says("Deliver", "set=one type"))
    assert (first.header("X-Set"), first.header("X-Type"), first.header("X-Status")) == ("one", "text/a", "200")
    hit = w.get("/a", says("Deliver", "set=two"))
    assert hit.cache_status.hit and hit.header("X-Set") == "two" and hit.header("X-Type") is None
    part = w.get("/a", [("Range", "bytes=2-4")] + says("Deliver", "set=part"))
    assert (part.status, part.body, part.header("X-Set")) == (206, b"234", "part")
    same = w.get("/a", [("If-None-Match", '"1"')] + says("Deliver", "set=same"))
    assert (same.status, same.header("X-Set")) == (304, "same")
    missing = w.get("/nosuch", says("Deliver", "set=gone"))
    assert (missing.status, missing.header("X-Set"), missing.header("X-Status")) == (404, "gone", "404")
    own = w.get("/a", says("Request", "refuse") + says("Deliver", "set=own"))
    assert (own.status, own.header("X-Set"), own.header("X-Status")) == (403, "own", "403")


def test_the_end_of_requests_and_writes_is_told(origin, weir, probe, tmp_path):
    origin.on("/a", body=b"abc", headers=FRESH)
    origin.on("/w", status=201)
    w = weir(journal={"path": str(tmp_path / "journal")}, **with_probe(probe, routes=[
        {"path": "/w", "policy": "write-back", "plugins": {"probe": True}},
        {"path": "/**", "plugins": {"probe": True}}]))
    w.get("/a")
    w.get("/a")
    eventually(lambda: w.log_has("plugin probe: done GET /a status=200 outcome=hit id= bytes=3"))
    eventually(lambda: w.log_has("plugin probe: done GET /a status=200 outcome=miss id= bytes=3"))
    made = w.request("POST", "/w", [], b"x")
    assert made.status == 202
    write = made.json()["id"]
    assert w.log_has("plugin probe: accepted POST /w status=-1 outcome= id=%s " % write)
    eventually(lambda: w.log_has(
        "plugin probe: delivered POST /w status=201 outcome=delivered id=%s bytes=-1 attempts=1" % write))
    eventually(lambda: w.log_has("plugin probe: tick"))


# ---- suspending ----------------------------------------------------------------------------------

def test_a_suspended_request_goes_on_when_another_thread_says_so(origin, weir, probe):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(**with_probe(probe))
    for hook in "Request", "Key", "Deliver":
        answers = w.parallel(12, lambda i: w.get("/a", says(hook, "suspend set=%d" % i)))
        assert [a.body for a in answers] == [b"a"] * 12
        if hook == "Deliver":
            assert [a.header("X-Set") for a in answers] == [str(i) for i in range(12)]
    assert origin.count("/a") == 1


def test_a_client_that_leaves_a_suspended_request_harms_nobody(origin, weir, probe):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(**with_probe(probe))

    def hold(hook):
        """When it is held, its client leaves."""
        name = 'weir_plugin_hook_seconds_count{plugin="probe",hook="%s"}' % hook.lower()
        calls = metric(w, name)
        with w.client() as c:
            c.start("GET", "/a", says(hook, "hold"))
            eventually(lambda: metric(w, name) == calls + 1)
    for done, hook in (2, "Request"), (4, "Deliver"):
        hold(hook)
        assert w.get("/a", says("Request", "release")).status == 200
        eventually(lambda: w.log().count("done GET /a") == done)
    hold("Request")                                     # and one that is held to the very end
    assert w.stop() == 0


def test_one_that_is_not_resumed_in_time_has_failed(origin, weir, probe):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(**with_probe(probe, timeout="20ms"))
    late = w.get("/a", says("Request", "hold"))
    assert late.status == 500 and late.json()["detail"] == "the plugin probe failed"
    assert w.log_has("plugin probe: request was not resumed in time, route /**")
    assert w.get("/a", says("Request", "release")).status == 200


# ---- Redis ---------------------------------------------------------------------------------------

def test_a_plugin_sends_commands_to_the_redis_of_the_cache_from_any_thread(origin, weir, redis, probe):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(cache={"redis": {"url": redis.url, "prefix": "its:", "timeout": "1s"}}, **with_probe(probe))
    assert w.log_has("plugin probe: opened, there is a Redis")

    def ask(words):
        return w.get("/a", says("Request", words)).header("X-Redis")
    assert [ask(words) for words in ("redis=n", "redis=n elsewhere", "redis=n", "redis=n elsewhere")] == [
        "1", "[2,[two,nil,its:p:probe:n", "!no three", "4"]
    assert redis.call("GET", "its:p:probe:n") == "4"
    assert sorted(int(n) for n in w.parallel(12, lambda i: ask("redis=m elsewhere" if i % 2 else "redis=m"))
                  if n[0] not in "[!") == [1, *range(4, 13)]
    redis.kill()
    assert ask("redis=n") in ("none", "refused") and ask("redis=n elsewhere") in ("none", "refused")
    redis.start()
    eventually(lambda: ask("redis=n") == "5")


def test_a_command_to_redis_ends_with_weir_at_the_latest(origin, weir, redis, probe):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(cache={"redis": {"url": redis.url, "timeout": "10s"}}, **with_probe(probe))
    redis.pause()
    with w.client() as c:
        c.start("GET", "/a", says("Request", "redis=n"))
        eventually(lambda: metric(w, 'weir_plugin_hook_seconds_count{plugin="probe",hook="request"}') == 1)
    status = w.stop()
    redis.resume()
    assert status == 0
    none = weir(**with_probe(probe))
    assert none.get("/a", says("Request", "redis=n")).header("X-Redis") == "refused"
    assert not none.log_has("there is a Redis")


# ---- explanations --------------------------------------------------------------------------------

def test_an_explanation_is_what_plugins_make_of_such_a_request(origin, weir, probe):
    origin.on("/a", body=b"a", headers=[("Cache-Control", "max-age=60")])
    w = weir(**with_probe(probe))

    def explain(*said, path="/a"):
        of = "".join("&header=X-Probe-%s:%s" % (hook, words.replace(" ", "+")) for hook, words in said)
        return w.api("GET", "/explain?url=http://%s%s%s" % (w.host, path, of)).json()
    mine = says("Request", "key=t1 tag=mine") + says("Key", "key=t2")
    auth = [("Authorization", "x")] + says("Request", "key=t3 authorized")
    for fields in mine, auth:
        w.get("/a", fields)
        assert w.get("/a", fields).cache_status.hit
    calls = metric(w, "weir_plugin_probe_calls_total")
    errors = metric(w, 'weir_plugin_errors_total{plugin="probe",hook="request"}')

    x = explain(("Request", "key=t1 tag=mine"), ("Key", "key=t2"))
    assert x["verdict"]["outcome"] == "hit" and x["stored"][0]["tags"] == ["mine"]
    assert [p["value"] for p in x["key_parts"] if p["part"] == "plugin"] == ["probe\0t1", "probe\0t2"]
    assert x["plugins"] == {"asked": ["probe"], "outcome": "next", "by": None, "tags": ["mine"],
                            "pass": False, "authorized": False}
    assert explain(("Request", "key=t2"), ("Key", "key=t1"))["verdict"]["outcome"] == "miss"
    assert explain()["verdict"]["outcome"] == "miss"
    x = explain(("Request", "key=t3 authorized&header=Authorization:x"))
    assert x["verdict"]["outcome"] == "hit" and x["plugins"]["authorized"]
    x = explain(("Request", "key=t3&header=Authorization:x"))
    assert x["verdict"]["outcome"] != "hit"
    x = explain(("Request", "key=t1 pass"), ("Key", "key=t2"))
    assert x["verdict"]["outcome"] == "pass" and x["request"]["why"] == "plugin"

    for words, outcome, text in (("refuse", "answered", "answers it: 403, the probe says no"),
                                 ("fail", "failed", "fails on it: 500"), ("suspend", "waits", "asks somebody else")):
        x = explain(("Request", words))
        assert x["verdict"]["outcome"] == "plugin" and text in x["verdict"]["text"], x
        assert x["plugins"]["outcome"] == outcome and x["plugins"]["by"] == "probe"
        assert "key" not in x and "stored" not in x
    assert explain(path="/off")["verdict"]["outcome"] == "miss"
    page = w.cli("explain", "--admin", w.admin_url, "http://%s/a" % w.host, "-H", "X-Probe-Request: refuse").stdout
    assert "plugin: the plugin probe answers it: 403" in page and "Plugins\n  asked: probe" in page
    assert metric(w, "weir_plugin_probe_calls_total") == calls          # WEIR_EXPLAINED
    assert metric(w, 'weir_plugin_errors_total{plugin="probe",hook="request"}') == errors


# ---- errors and figures --------------------------------------------------------------------------

def metric(w, name):
    for line in w.api("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    return 0


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_on_error_decides_what_becomes_of_a_request(origin, weir, probe, on_error):
    origin.on("/a", body=b"a", headers=FRESH)
    origin.on("/r", body=b"r", headers=FRESH + says("Response", "fail"))
    origin.on("/s", body=b"s", headers=FRESH + says("Store", "nonsense"))
    w = weir(**with_probe(probe, on_error=on_error))
    fails = on_error == "fail"
    for hook in "Request", "Key", "Deliver":
        got = w.get("/a", says(hook, "fail"))
        assert got.status == (500 if fails else 200), hook
        assert (got.body == b"a") != fails
    assert w.get("/r").status == (502 if fails else 200)
    assert w.get("/s").body == b"s" and w.get("/s").cache_status.hit == (not fails)
    for hook in "request", "key", "deliver", "response", "store":
        assert metric(w, 'weir_plugin_errors_total{plugin="probe",hook="%s"}' % hook) >= 1, hook


def test_a_plugins_figures_are_among_ours(origin, weir, probe):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(**with_probe(probe))
    w.get("/a", says("Request", "suspend"))
    eventually(lambda: re.search(
        r'^weir_plugin_hook_seconds\{plugin="probe",hook="request",quantile="0.99"\} 0\.\d{9}$',
        w.api("GET", "/metrics").body.decode(), re.M))              # the window begins with a tick
    text = w.api("GET", "/metrics").body.decode()
    assert text.count("# TYPE weir_plugin_hook_seconds summary") == 1
    assert metric(w, "weir_plugin_probe_calls_total") >= 5
    assert "# HELP weir_plugin_probe_calls_total Calls of the probe." in text
    assert abs(metric(w, "weir_plugin_probe_nap_seconds_sum{}") - 0.002) < 1e-4
    timers = w.api("GET", "/stats").json()["timers"]
    hook = timers['weir_plugin_hook_seconds{plugin="probe",hook="request"}']["start"]
    assert hook["count"] == 2 and 0 < hook["p50_ns"] <= hook["p99_ns"] <= hook["max_ns"]


def test_a_reload_opens_plugins_with_their_new_options(origin, weir, probe):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(**with_probe(probe))
    assert w.get("/a", says("Request", "answer")).header("X-Greeting") == "hello"
    w.write_config(**with_probe(probe, {"stamp": "s2"}, options={"greeting": "ciao"}))
    assert w.api("POST", "/reload").status == 200
    assert w.get("/a", says("Request", "answer")).header("X-Greeting") == "ciao"
    assert w.get("/a").header("X-Stamp") == "s2"
    eventually(lambda: w.log_has("plugin probe: closed"))
    w.write_config(**with_probe(probe, options={"greeting": "bad"}))
    assert w.api("POST", "/reload").status != 200
    assert w.get("/a", says("Request", "answer")).header("X-Greeting") == "ciao"


def test_routes_without_a_hook_on_hits_stay_on_the_fastest_path(origin, weir, probe):
    origin.on("/off", body=b"a", headers=FRESH)
    w = weir(**with_probe(probe))
    for _ in range(2):
        assert w.get("/off", says("Request", "refuse")).status == 200
    assert metric(w, "weir_plugin_probe_calls_total") == 0


def test_of_its_hooks_a_plugin_has_only_those_that_it_wants_on_a_route(origin, weir, probe):
    origin.on("/only", body=b"a", headers=FRESH + says("Response", "set=edited"))
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(**with_probe(probe, routes=[{"path": "/only", "plugins": {"probe": {"hooks": 4}}},     # response
                                         {"path": "/**", "plugins": {"probe": {"stamp": "s1"}}}]))
    got = w.get("/only", says("Request", "refuse") + says("Deliver", "fail"))
    assert (got.status, got.header("X-Set")) == (200, "edited")
    assert w.get("/only", says("Request", "refuse")).cache_status.hit
    assert metric(w, "weir_plugin_probe_calls_total") == 1
    assert w.get("/a").header("X-Stamp") == "s1"                # the next route has all of them


def shipped(name):
    return os.path.join(os.path.dirname(weir_binary()), "plugins", name + ".so")


@pytest.mark.parametrize("name", ["json_tags", "api_key", "jwt", "rate_limit", "lua"])
def test_the_readme_of_a_shipped_plugin_has_its_options(name):
    if name == "lua" and not os.path.exists(shipped(name)):
        pytest.skip("built without LuaJIT")
    with open(os.path.join(os.path.dirname(SOURCE), "..", "..", "plugins", name, "README.md")) as f:
        readme = f.read()
    listed = subprocess.run([weir_binary(), "reference", shipped(name)], capture_output=True, text=True, check=True)
    rows = [line for line in listed.stdout.splitlines() if line.startswith("| ")]
    assert rows and [row for row in rows if row not in readme] == []


def test_the_reference_names_all_shipped_plugins():
    def reference(*of):
        return subprocess.run([weir_binary(), "reference", *of], capture_output=True, text=True, check=True).stdout
    folder = os.path.join(os.path.dirname(SOURCE), "..", "..", "plugins")
    names = sorted(n for n in os.listdir(folder) if os.path.isdir(os.path.join(folder, n)))
    rows = [line for line in reference().splitlines() if "| `weir reference " in line]
    assert sorted(row.split("`")[1] for row in rows) == names
    for n in names:
        if os.path.exists(shipped(n)):                  # lua is there where LuaJIT is
            assert "| `%s` | %s | `weir reference %s` |" % (n, reference(shipped(n)).splitlines()[2], n) in rows


# ---- json_tags -----------------------------------------------------------------------------------

def json_tags():
    return shipped("json_tags")


@pytest.mark.parametrize("body, tags", [
    (b'{"id": 3, "members": [{"id": 7}, {"id": 9}], "by": {"x": true, "y": "z"}}',
     ["team:3", "user:7", "user:9", "any:true", "any:z"]),
    (b'{"id": "a\\u00e9\\ud83d\\ude00\\n", "by": {"k/~": -1.5e3}}', ["team:a\u00e9\U0001f600\n", "any:-1.5e3", "esc:-1.5e3"]),
    (b'{"id": null, "members": {"0": {"id": "m"}}, "by": [[1], {"a": 2}]}', ["user:m"]),
    (b'{"id": 3', ["team:3"]), (b"[]", []), (b"", []), (b"null", []), (b"{} {}", []), (b'{"id": 1,}', ["team:1"]),
], ids=range(9))
def test_json_tags_are_purged_by(origin, weir, body, tags):
    origin.on("/t", body=body, headers=FRESH)
    w = weir(plugins=[{"name": "json_tags", "file": json_tags()}], routes=[{"path": "/**", "plugins": {
        "json_tags": {"pointers": ["team:#/id", "user:#/members/*/id", "any:#/by/*", "esc:#/by/k~1~0"]}}}])
    w.get("/t")
    for tag in tags + ["team:", "user:", "any:null", "nosuch"]:
        stored = w.get("/t").cache_status.hit
        assert stored
        found = w.api("POST", "/purge", {"tags": [tag], "dry_run": True}).json()["objects"]
        assert found == (1 if tag in tags else 0), tag


def test_json_tags_that_are_required_or_wrong(origin, weir, tmp_path):
    origin.on("/none", body=b"[1]", headers=FRESH)
    origin.on("/deep", body=b"[" * 5000, headers=FRESH)
    origin.on("/many", body=b"[" + b",".join(b'{"id":%d}' % i for i in range(300)) + b"]", headers=FRESH)
    plugins = {"plugins": [{"name": "json_tags", "file": json_tags()}]}
    w = weir(**plugins, routes=[{"path": "/none", "plugins": {"json_tags": {"pointers": "/id", "required": True}}},
                                {"path": "/**", "plugins": {"json_tags": {"pointers": "/*/id"}}}])
    for path, stored in ("/none", False), ("/deep", True), ("/many", False):
        w.get(path)
        assert w.get(path).cache_status.hit == stored, path
    assert metric(w, "weir_plugin_json_tags_unstored_total") >= 2
    config = tmp_path / "c.yaml"
    for pointers, why in [("[id]", "id is no JSON pointer"), ('"/a~2"', "neither ~0 nor ~1"), ("", "missing")]:
        config.write_text("origins: {api: {servers: [\"http://127.0.0.1:9\"]}}\nplugins: [{name: json_tags, file: %s}]\n"
                          "routes: [{path: /**, plugins: {json_tags: {%s}}}]\n" % (
                              json_tags(), "pointers: " + pointers if pointers else ""))
        got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
        assert "routes[0].plugins.json_tags.pointers: " in got and why in got


def test_json_tags_store_no_parts(origin, weir):
    def answer(req, conn):
        a, b = (int(n) for n in req.header("Range", "bytes=0-8")[6:].split("-"))
        conn.respond(206 if req.header("Range") else 200, FRESH + [("ETag", '"e"')] + (
            [("Content-Range", "bytes %d-%d/9" % (a, b))] if req.header("Range") else []), b'{"id": 7}'[a:b + 1])
    origin.on("/a", answer)
    w = weir(plugins=[{"name": "json_tags", "file": json_tags()}],
             routes=[{"path": "/**", "plugins": {"json_tags": {"pointers": ["user:#/id"]}}}])
    for part in "0-3", "4-8", "0-8":
        assert w.get("/a", [("Range", "bytes=" + part)]).status == 206
        assert w.get("/a").body == b'{"id": 7}'
        assert w.api("POST", "/purge", {"tags": ["user:7"]}).json()["objects"] == 1


def test_a_reload_while_shipped_plugins_run(origin, weir, tmp_path):
    """What is theirs in all configurations is set once: ThreadSanitizer says so otherwise."""
    origin.on("*", body=b"no JSON", headers=FRESH)
    keys, jwks = tmp_path / "keys", tmp_path / "jwks"
    keys.write_text(hashed(("k1", "one")))
    jwks.write_text('{"keys": [{"kty": "oct", "k": "%s"}]}' % ("c3Nz" * 20))
    names = ["api_key", "jwt", "json_tags", "rate_limit"]
    options = {"api_key": {"file": str(keys)}, "jwt": {"jwks_file": str(jwks)}, "rate_limit": {"rate": "1/h"}}
    w = weir(workers=2, plugins=[{"name": n, "file": shipped(n), "options": options.get(n, {})} for n in names],
             routes=[{"path": "/%s/{id}" % n, "plugins": {n: {"pointers": ["/id"]} if n == "json_tags" else True}}
                     for n in names])

    def ask(i):
        return {(n, w.get("/%s/%d-%d" % (n, i, k)).status) for k in range(8) for n in names}
    reloads = [lambda: w.parallel(2, ask), lambda: [w.api("POST", "/reload").status for _ in range(4)]]
    asked, reloaded = w.parallel(2, lambda i: reloads[i]())
    assert reloaded == [200] * 4
    assert set().union(*asked) == {("api_key", 401), ("jwt", 401), ("json_tags", 200), ("rate_limit", 200), ("rate_limit", 429)}
    for n in names:                                                     # is nobody's request
        assert w.api("GET", "/explain?url=http://%s/%s/1" % (w.host, n)).status == 200
    assert metric(w, "weir_plugin_api_key_refused_total") == metric(w, "weir_plugin_jwt_refused_total") == metric(w, "weir_plugin_json_tags_no_json_total") == 16


# ---- api_key -------------------------------------------------------------------------------------

def hashed(*keys):
    return "".join("%s %s\n" % (hashlib.sha256(key.encode()).hexdigest(), name) for key, name in keys)


def replace(path, text):
    (path.parent / "next").write_text(text)
    os.rename(path.parent / "next", path)


def test_api_keys_let_in_scope_what_is_stored_and_are_read_again(origin, weir, tmp_path):
    origin.on("/a", lambda req, conn: conn.respond(200, FRESH, ("%s %s" % (
        req.header("X-Consumer"), req.header("X-API-Key"))).encode()))
    origin.on("/ops", body=b"ops", headers=FRESH)
    keys = tmp_path / "keys"
    keys.write_text("# who\n\n" + hashed(("k1", "one"), ("k2", "two"), ("k2b", "two")))
    w = weir(plugins=[{"name": "api_key", "file": shipped("api_key"), "options": {"file": str(keys)}}], routes=[
        {"path": "/ops", "plugins": {"api_key": {"allow": ["two"]}}},
        {"path": "/**", "plugins": {"api_key": {"scope": "name", "forward": "X-Consumer"}}}])

    def get(path, *given):
        return w.get(path, [("X-API-Key", k) for k in given] + [("X-Consumer", "root")])
    for given in (), ("k3",), ("",), ("k1", "k1"):
        no = get("/a", *given)
        assert no.status == 401 and no.header("WWW-Authenticate") == 'ApiKey realm="api"', given
    assert not origin.requests
    assert get("/a", "k1").body == b"one None"
    assert get("/a", "k2").body == b"two None"
    again = get("/a", "k2b")
    assert again.cache_status.hit and again.body == b"two None"         # the same name, another key
    assert get("/a", "k1").body == b"one None" and origin.count("/a") == 2
    assert get("/ops", "k1").status == 403 and get("/ops", "k2").status == 200
    assert get("/a").status == 401                                      # also of what is stored

    replace(keys, "nonsense one\n")
    eventually(lambda: w.log_has("line 1 does not begin with a SHA-256 of 64 hex digits"))
    assert get("/a", "k1").status == 200
    replace(keys, hashed(("k3", "three")))
    eventually(lambda: get("/a", "k3").status == 200)
    assert get("/a", "k1").status == 401
    assert metric(w, "weir_plugin_api_key_reloads_total") == 1
    assert "k3" not in w.log()


def test_api_key_files_are_judged_by_check(tmp_path):
    config, keys = tmp_path / "c.yaml", tmp_path / "keys"
    config.write_text("origins: {api: {servers: [\"http://127.0.0.1:9\"]}}\nplugins:\n  - name: api_key\n    file: %s\n"
                      "    options: {file: %s}\n" % (shipped("api_key"), keys))
    for text, why in [(None, "cannot be read: No such file"), ("x" * 600 + "\n", "line 1 is too long"),
                      ("#\n" + "0" * 64 + "\n", "line 2 has no name behind the hash"),
                      ("0" * 64 + " a b\n", "line 1 has no name of one word"),
                      ("f" * 64 + " a\n" + "0" * 64 + " b\n#\n" + "F" * 64 + " b\n", "line 4 has a key that stands above already")]:
        if text is not None:
            keys.write_text(text)
        got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
        assert ":5:21: plugins[0].options.file: " in got and why in got, got
    keys.write_text("")
    for options, route, where in [(", field: X Key", "", "plugins[0].options.field"), (", field: Host", "", "plugins[0].options.field"),
                                  ("", "forward: Via", "routes[0].plugins.api_key.forward")]:
        config.write_text("origins: {api: {servers: [\"http://127.0.0.1:9\"]}}\nplugins:\n  - name: api_key\n    file: %s\n"
                          "    options: {file: %s%s}\nroutes: [{path: /**, plugins: {api_key: {%s}}}]\n" % (
                              shipped("api_key"), keys, options, route))
        got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
        assert where + ": is no name of a request field" in got, got


def test_what_a_writer_sees_of_its_own_writes_is_not_for_another_key(origin, weir, probe, tmp_path):
    gate = origin.gate()
    origin.on("/w", lambda req, conn: (req.method == "PUT" and gate.wait(), conn.respond(200, [], b"old")))
    w = weir(journal={"path": str(tmp_path / "journal")}, **with_probe(probe, routes=[
        {"path": "/**", "policy": "write-back", "plugins": {"probe": True}}]))

    def ask(method, key, body=None, more=()):
        return w.request(method, "/w", says("Request", "key=" + key) + [*more], body)
    put = [("Idempotency-Key", '"k"')]
    assert ask("PUT", "t1", b"new", put).status == 202
    assert ask("GET", "t1").body == b"new" and ask("GET", "t2").body == b"old"
    assert ask("PUT", "t1", b"other", put).status == 422            # its own key, another request
    assert ask("PUT", "t2", b"other", put).status == 202
    gate.set()
