"""The operators' port of a whole process: figures, explanations, purges, the shell, Prometheus."""
import contextlib
import gzip
import json
import shutil
import subprocess
import urllib.request

import pytest

import harness

FRESH = [("Cache-Control", "max-age=60")]


def warm(origin, w, path="/a"):
    origin.on(path, body=b"hello", headers=FRESH)
    w.get(path)
    assert w.get(path).cache_status.hit


def test_the_figures_tell_hits_misses_and_percentiles_of_each_route(origin, weir):
    w = weir(routes=[{"path": "/a"}, {"path": "/**"}])
    warm(origin, w)

    def route_a():                      # a request is counted once its answer has left
        return {r["name"]: r for r in w.stats()["routes"]}.get("/a", {"outcomes": {}})
    harness.eventually(lambda: {"hit", "miss"} <= set(route_a()["outcomes"]))
    route = route_a()
    for outcome in ("hit", "miss"):
        start = route["outcomes"][outcome]["start"]
        assert start["count"] == 1
        assert 0 < start["p50_us"] <= start["p999_us"] <= start["max_us"]
    assert route["hit_rate"]["start"] == 0.5
    assert w.metric("weir_request_duration_seconds_count", route="/a", outcome="hit") == 1
    assert w.metric("weir_requests_total") == 2


def test_the_table_of_figures_has_seven_percentiles_in_100_columns(origin, weir):
    long = "/a/" + "longer/than/its/column/" * 2 + "{id}"
    w = weir(routes=[{"path": long}, {"path": "/**"}])
    warm(origin, w)
    warm(origin, w, long.replace("{id}", "7"))

    def rows():
        lines = w.cli("stats", "--admin", w.admin_url).stdout.splitlines()
        found = [line.split() for line in lines if " hit " in line]
        return lines if len(found) == 2 and all("-" not in row for row in found) else None
    lines = harness.eventually(rows)
    heads = [line for line in lines if line.startswith(("route ", "origin "))]
    assert [" ".join(h.split()[-8:]) for h in heads] == 2 * ["p50 ms p75 p90 p95 p99 p99.9 max"]
    assert max(len(line) for line in lines) <= 100
    at = lines.index("  " + long)
    for row in lines[at + 1], lines[at + 2]:
        assert len(row) == len(heads[0]) and len(row.split()) >= 10
    assert "hits 50.0 %" in lines[at + 1] and "hits" not in lines[at + 2]


def test_the_windows_fill_as_seconds_pass(origin, weir):
    w = weir()
    warm(origin, w)

    def ten_seconds():
        hits = [r["outcomes"]["hit"] for r in w.stats()["routes"] if "hit" in r["outcomes"]]
        return hits and hits[0]["10s"]["count"] == 1
    harness.eventually(ten_seconds)


def test_promtool_accepts_the_metrics_of_a_process_that_worked(origin, weir):
    if shutil.which("promtool") is None:
        pytest.skip("no promtool")
    w = weir(routes=[{"path": "/a", "name": 'quo"te\\back'}, {"path": "/**"}])
    warm(origin, w)
    w.get("/missing")
    text = w.api("GET", "/metrics").body
    check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                           check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


def test_a_real_prometheus_scrapes_it(origin, weir, tmp_path):
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus")
    w = weir()
    warm(origin, w)
    port = harness.free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {scrape_interval: 1s}\nscrape_configs:\n"
                      "  - {job_name: weir, static_configs: [{targets: ['127.0.0.1:%d']}]}\n"
                      % w.admin)
    with open(tmp_path / "prometheus.log", "wb") as log:
        server = subprocess.Popen(
            ["prometheus", "--config.file=%s" % config,
             "--storage.tsdb.path=%s" % (tmp_path / "data"),
             "--web.listen-address=127.0.0.1:%d" % port], stdout=log, stderr=log)

    def value():
        try:
            with urllib.request.urlopen(
                    "http://127.0.0.1:%d/api/v1/query?query=weir_cache_hits_total" % port,
                    timeout=2) as answer:
                result = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(result[0]["value"][1]) if result else None
    try:
        harness.eventually(lambda: value() == 1.0, timeout=40,
                           message="prometheus did not scrape it")
    finally:
        server.terminate()
        server.wait()


def test_an_explanation_names_route_key_and_freshness(origin, weir):
    w = weir(routes=[{"path": "/a", "name": "the a"}, {"path": "/**"}])
    warm(origin, w)
    x = w.api("GET", "/explain?url=http://%s/a" % w.host).json()
    assert x["route"]["name"] == "the a"
    assert x["key"] == "http://%s/a" % w.host
    assert x["answer"] == "hit"
    [stored] = x["stored"]
    assert stored["fresh"] and stored["selected"] and stored["use"] == "fresh"
    assert 59 < stored["ttl_s"] <= 60 and stored["body_bytes"] == 5
    w.purge(url="http://%s/a" % w.host)
    x = w.api("GET", "/explain?url=http://%s/a" % w.host).json()
    assert (x["answer"], x["stored"]) == ("uri-miss", [])


def test_what_is_not_understood_in_a_purge_is_listed_and_nothing_goes(origin, weir):
    w = weir()
    warm(origin, w)
    r = w.api("POST", "/purge", {"all": True, "flocks": ["g"], "route": "none", "colour": 1})
    assert r.status == 400
    assert r.header("Content-Type") == "application/problem+json"
    assert {f["item"] for f in r.json()["not_understood"]} == {"flocks", "none", "colour"}
    assert w.get("/a").cache_status.hit


def test_a_purge_of_a_hundred_mebibytes_is_refused_and_the_process_stands(origin, weir):
    w = weir()
    warm(origin, w)
    head = b"POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n"
    with harness.Client(w.admin) as c:
        try:
            c.send(head)
            for _ in range(1600):
                c.send(b"x" * 65536)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert c.response("POST").status == 413
    assert w.get("/a").cache_status.hit


def test_the_configuration_is_shown_without_its_secrets(weir, tmp_path):
    token = tmp_path / "token"
    token.write_text("open-sesame\n")
    token.chmod(0o600)
    w = weir(yaml="listen: '{listen}'\nadmin: {listen: '{admin}', token_file: %s}\n"
                  "origins: {api: {servers: ['{origin}']}}\nroutes: [{path: /**}]\n" % token,
                  wait=False)
    bearer = [("Authorization", "Bearer open-sesame")]

    def up():
        try:
            return w.api("GET", "/readyz", headers=bearer).status == 200
        except OSError:
            return False
    harness.eventually(up)
    assert w.api("GET", "/config").status == 401
    answer = w.api("GET", "/config", headers=bearer)
    assert answer.status == 200
    assert b"/**" in answer.body and b"open-sesame" not in answer.body


def test_the_shell_has_the_same_verbs(origin, weir):
    w = weir()
    warm(origin, w)
    binary = harness.weir_binary()

    def shell(*args):
        return subprocess.run([binary, *args, "--admin", w.admin_url], capture_output=True,
                              check=False, text=True)
    stats = shell("stats")
    assert stats.returncode == 0 and "/**" in stats.stdout and "hit" in stats.stdout
    explained = shell("explain", "http://%s/a" % w.host, "--json")
    assert explained.returncode == 0 and json.loads(explained.stdout)["answer"] == "hit"
    assert shell("reload").returncode == 0
    purged = shell("purge", "--url", "http://%s/a" % w.host)
    assert purged.returncode == 0 and json.loads(purged.stdout)["objects"] == 1
    assert not w.get("/a").cache_status.hit
    refused = shell("purge", "--route", "no-such")
    assert refused.returncode == 1 and "no-such" in refused.stderr


def test_the_shell_says_what_to_do_when_nobody_listens():
    port = harness.free_port()
    r = subprocess.run([harness.weir_binary(), "stats", "--admin", "http://127.0.0.1:%d" % port],
                       capture_output=True, check=False, text=True)
    assert r.returncode == 1
    assert "127.0.0.1:%d" % port in r.stderr and "admin.listen" in r.stderr


def test_a_port_in_use_is_named_with_the_remedy(origin, weir):
    w = weir()
    other = harness.Weir(origin.url, wait=False,
                         yaml="listen: '{listen}'\nadmin: {listen: '127.0.0.1:%d'}\n"
                              "origins: {api: {servers: ['{origin}']}}\nroutes: [{path: /**}]\n"
                              % w.admin)
    assert other.process.wait(timeout=20) == 1
    other.status = 1
    assert "admin.listen" in other.log() and "choose another port" in other.log()


def test_who_fills_the_probe_port_keeps_no_probe_out(weir):
    probe = harness.free_port()
    w = weir(probe={"listen": "127.0.0.1:%d" % probe})
    with contextlib.ExitStack() as held:
        for i in range(130):
            c = held.enter_context(harness.Client(probe))
            c.send([b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"][i % 3])
        for _ in range(3):
            with harness.Client(probe) as c:
                assert c.get("/healthz").status == 200
        assert w.api("GET", "/healthz").status == 200


def test_the_probe_port_has_health_alone(weir):
    port = harness.free_port()
    weir(probe={"listen": "127.0.0.1:%d" % port})
    with harness.Client(port) as c:
        assert c.get("/healthz").status == 200
        assert c.get("/readyz").status == 200
        assert c.get("/metrics").status == 404
        assert c.request("POST", "/purge", body=b"{}").status == 404


def events(w, target, headers=()):
    """The data of a stream of server-sent events, one after the other, for ever."""
    with harness.Client(w.admin) as c:
        c.start("GET", target, headers)
        assert b"text/event-stream" in c.wire.until(b"\r\n\r\n", "a head")
        while True:
            for line in c.wire.until(b"\n\n", "an event").split(b"\n"):
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])


def test_head_of_a_stream_is_its_head_alone(weir, tmp_path):
    w = weir(journal={"path": str(tmp_path / "journal")}, routes=[{"path": "/**", "policy": "write-back"}])
    for target in "/stats/stream?windows=10s", "/log/stream", "/writes/stream":
        with harness.Client(w.admin) as c:
            c.start("HEAD", target)
            head = c.wire.until(b"\r\n\r\n", "a head")
            assert b" 200 " in head and b"text/event-stream" in head
            assert c.closed(), target
    assert len(json.loads(w.api("GET", "/stats").body)["routes"]) == 0


def test_the_figures_come_each_second_and_have_a_past(origin, weir):
    w = weir(routes=[{"path": "/a"}, {"path": "/**"}])
    warm(origin, w)
    stream = events(w, "/stats/stream?windows=10s")
    hits = next(s for s in stream if s["total"]["hit_rate"]["10s"] == 0.5)
    assert [r["name"] for r in hits["routes"]] == ["/a"]
    assert list(hits["total"]["outcomes"]["hit"]) == ["bytes", "10s"]
    w.get("/a")
    assert next(s for s in stream if s["total"]["outcomes"]["hit"]["10s"]["count"] == 2)
    stream.close()
    past = w.api("GET", "/stats/history?route=%2Fa").json()
    assert past["route"] == "/a" and past["step_s"] == 10
    assert w.api("GET", "/stats/history").json()["route"] is None
    for target, status in (("/stats/history?route=%2Fb", 404), ("/stats/history?windows=10s", 400),
                           ("/stats/stream?windows=2m", 400), ("/stats/stream?windows", 400)):
        assert w.api("GET", target).status == status, target


def test_the_slowest_requests_and_the_last_purges_are_told(origin, weir):
    origin.on("/slow", headers=[("Cache-Control", "no-store")], body=b"x")
    w = weir(routes=[{"path": "/**", "tags": ["t"]}])
    w.get("/slow?a=b", [("X-Request-Id", "abc")])
    slowest = harness.eventually(lambda: w.stats()["slowest"])[0]
    assert slowest["url"] == w.host + "/slow?a=b" and slowest["outcome"] in ("miss", "pass")
    assert slowest["server"] == origin.url and slowest["us"] > 0
    assert w.stats()["purges"] == []
    w.purge(tags="t", dry_run=True)
    w.purge(tags=["t"] + ["u%d" % i for i in range(50)], soft=True)
    w.purge(all=True)
    last, first = w.stats()["purges"]
    assert last["items"] == [{"all": True, "exact": False, "objects": 0}] and not last["soft"]
    assert first["soft"] and first["at_ms"] <= last["at_ms"] and len(first["items"]) == 5


def answers(w):
    with contextlib.suppress(OSError):
        return w.api("GET", "/healthz").status


def test_the_page_needs_no_token_and_all_else_does(weir, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "token").chmod(0o600)
    w = weir(yaml="listen: '{listen}'\nadmin: {listen: '{admin}', token_file: %s}\n"
                  "origins: {api: {servers: ['{origin}']}}\nroutes: [{path: /**}]\n"
                  % (tmp_path / "token"), wait=False)
    harness.eventually(lambda: answers(w))
    html = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")]
    page = w.api("GET", "/", headers=html)
    assert page.status == 200 and page.header("Content-Type") == "text/html; charset=utf-8"
    policy = page.header("Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert w.api("GET", "/dashboard/index.html").body == page.body
    for accept, coded in (("gzip, br", True), ("gzip;q=0", False), ("identity, gzip;q=0.5", False)):
        got = w.api("GET", "/dashboard/index.html", headers=[("Accept-Encoding", accept)])
        assert got.header("Content-Encoding") == ("gzip" if coded else None), accept
        assert (gzip.decompress(got.body) if coded else got.body) == page.body
        assert not coded or len(got.body) < len(page.body) / 2
    got = w.api("GET", "/dashboard/nothing.js", headers=[("Accept-Encoding", "gzip")])
    assert got.status == 404 and got.header("Content-Encoding") is None
    assert w.api("GET", "/dashboard/nothing.js").status == 404
    for target in "/", "/stats", "/stats/stream", "/stats/history", "/writes", "/dashboardx/a":
        assert w.api("GET", target).status == 401, target
    for method, target in ("POST", "/dashboard/index.html"), ("DELETE", "/"), ("POST", "/purge"):
        assert w.api(method, target, headers=html).status == 401, (method, target)
    # a name that is not ours, of a page that somebody else had made
    assert w.api("GET", "/", headers=html + [("Host", "evil.example")]).status == 421
    assert b"POST" in w.api("GET", "/", headers=[("Authorization", "Bearer secret")]).body
