"""What an explanation says is what a client then meets, and what it advises helps."""
import json
import os
import subprocess

import harness


def explain(w, path, *headers, trusted=False, host=None, method=None, content=None):
    target = "/explain?url=http://%s%s" % (host or w.host, path.replace("&", "%26"))
    target += "".join("&header=" + h.replace(" ", "+").replace("&", "%26") for h in headers)
    target += ("&trusted=1" if trusted else "") + ("&method=" + method if method else "")
    answer = w.api("GET", target) if content is None else \
        w.api("POST", target, {"content": content})
    assert answer.status == 200, answer.body
    return answer.json()


def outcomes(clauses):
    return {c["clause"]: c["outcome"] for c in clauses}


def advised(x):
    return [a["clause"] for a in x["advice"]]


def test_the_verdict_is_what_the_client_then_meets(origin, weir):
    origin.on("/fresh", body=b"a", headers=[("Cache-Control", "max-age=60")])
    origin.on("/asked", body=b"a", headers=[("Cache-Control", "no-cache"), ("ETag", '"1"')])
    origin.on("/swr", body=b"a",
              headers=[("Cache-Control", "max-age=0, stale-while-revalidate=60"), ("ETag", '"1"')])
    origin.on("/private", body=b"a", headers=[("Cache-Control", "private")])
    w = weir(routes=[{"path": "/pass", "policy": "pass"}, {"path": "/**"}])
    assert explain(w, "/fresh")["verdict"]["outcome"] == "miss"
    for path, outcome, request in (("/fresh", "hit", ()), ("/asked", "validate", ()),
                                   ("/swr", "stale-while-revalidate", ()),
                                   ("/private", "alone", ()), ("/pass", "pass", ()),
                                   ("/fresh", "pass", ("Cache-Control: no-store",)),
                                   ("/none", "only-if-cached", ("Cache-Control: only-if-cached",)),
                                   ("/fresh", "validate", ("Cache-Control: no-cache",))):
        if path != "/none":
            w.get(path)
        x = explain(w, path, *request)
        assert x["verdict"]["outcome"] == outcome, (path, x)
        met = w.get(path, [tuple(h.split(": ")) for h in request])
        assert met.cache_status is None or met.cache_status.hit == (
            outcome in ("hit", "stale-while-revalidate")), path
    assert explain(weir(routes=[{"path": "/a"}]), "/b")["verdict"]["outcome"] == "none"


def test_a_hit_needs_no_advice_and_says_what_gave_its_lifetime(origin, weir):
    for path, field in (("/s", "s-maxage=60, max-age=1"), ("/m", "max-age=60"), ("/t", None)):
        origin.on(path, body=b"a", headers=[("Cache-Control", field)] if field else [])
    w = weir(routes=[{"path": "/f", "force_ttl": "1m"}, {"path": "/**", "ttl": "1m"}])
    origin.on("/f", body=b"a", headers=[("Cache-Control", "no-store")])
    for path, word in (("/s", "s-maxage"), ("/m", "max-age"), ("/t", "ttl"), ("/f", "force_ttl")):
        w.get(path)
        x = explain(w, path)
        [stored] = x["stored"]
        assert stored["lifetime_from"] == word and x["advice"] == [], x
        assert outcomes(stored["stored_by"])[word] == "gives"
        assert outcomes(stored["clauses"])["stale"] == "allows"


def test_a_targeted_field_gives_the_lifetime_and_is_shown(origin, weir):
    origin.on("/a", body=b"a", headers=[("CDN-Cache-Control", "max-age=60"),
                                        ("Cache-Control", "no-store")])
    w = weir()
    w.get("/a")
    [stored] = explain(w, "/a")["stored"]
    assert stored["fields"]["CDN-Cache-Control"] == "max-age=60"
    assert stored["lifetime_from"] == "max-age" and stored["lifetime_s"] == 60


def test_the_last_answer_that_was_not_stored_is_judged_and_its_cookie_is_not_told(origin, weir):
    origin.on("/p", body=b"a", headers=[("Cache-Control", "private, max-age=9"),
                                        ("Set-Cookie", "sid=secret")])
    w = weir(routes=[{"path": "/**", "name": "all"}])
    assert explain(w, "/p")["last_refused"] is None
    w.get("/p")
    raw = w.api("GET", "/explain?url=http://%s/p" % w.host).body
    assert b"secret" not in raw
    x = json.loads(raw)
    last = x["last_refused"]
    assert (x["answer"], last["why"], last["status"]) == ("pass", "private", 200)
    assert last["fields"]["Cache-Control"] == "private, max-age=9" and "Set-Cookie" in last["fields"]
    assert outcomes(last["clauses"])["private"] == "forbids"
    assert advised(x) == ["private"]
    assert "force_ttl" in x["advice"][0]["text"] and "route all" in x["advice"][0]["text"]


def test_what_fill_refuses_has_its_reason_and_advice_too(origin, weir):
    origin.on("/big", body=b"x" * 5000, headers=[("Cache-Control", "max-age=60")])
    origin.on("/nothing", body=b"x")
    w = weir(cache={"max_object": "1KiB"})
    for path, why in (("/big", "size"), ("/nothing", "no-freshness")):
        w.get(path)
        x = explain(w, path)
        assert x["last_refused"]["why"] == why and advised(x) == [why], x


def test_the_advice_helps(origin, weir):
    origin.on("/a", body=b"a", headers=[("Cache-Control", "private")])
    w = weir()
    w.get("/a")
    assert advised(explain(w, "/a")) == ["private"]
    origin.on("/a", body=b"a", headers=[("Cache-Control", "public, max-age=60")])
    w.get("/a")
    assert explain(w, "/a")["verdict"]["outcome"] == "hit" and w.get("/a").cache_status.hit


def test_variants_say_in_which_field_they_differ(origin, weir):
    origin.on("/v", body=b"a", headers=[("Cache-Control", "max-age=60"), ("Vary", "X-A, X-B")])
    w = weir()
    w.get("/v", [("X-A", "1")])
    x = explain(w, "/v", "X-A: 2")
    [stored] = x["stored"]
    assert x["answer"] == "vary-miss" and not stored["selected"]
    assert stored["varies"] == [
        {"field": "x-a", "stored": "1", "asked": "2", "same": False},
        {"field": "x-b", "stored": None, "asked": None, "same": True}]
    assert advised(x) == ["variant"]


def test_tags_groups_and_a_soft_purge_are_told(origin, weir):
    origin.on("/a", body=b"a", headers=[("Cache-Control", "max-age=60"), ("ETag", '"1"'),
                                        ("Cache-Groups", '"scores", "news"')])
    w = weir(routes=[{"path": "/{id}", "tags": ["thing:{id}"]}])
    w.get("/a")
    [stored] = explain(w, "/a")["stored"]
    assert stored["tags"] == ["thing:a"] and sorted(stored["groups"]) == ["news", "scores"]
    w.purge(tags=["thing:a"], soft=True)
    x = explain(w, "/a")
    assert outcomes(x["stored"][0]["clauses"])["soft-purged"] == "forbids"
    assert "soft-purged" in advised(x) and x["verdict"]["outcome"] == "validate"


def test_routes_that_nearly_took_it_say_what_was_against_it(origin, weir):
    w = weir(routes=[{"path": "/a", "methods": ["POST"], "name": "writes"},
                     {"path": "/a", "headers": ["X-New"], "name": "new"},
                     {"path": "/a", "host": "other.example", "name": "other"},
                     {"path": "/{x}", "name": "any"}, {"path": "/**", "name": "rest"},
                     {"path": "/b", "name": "elsewhere"}])
    x = explain(w, "/a")
    assert {r["name"]: r["outcome"] for r in x["routes"]} == {
        "writes": "method", "new": "fields", "other": "host", "any": "taken", "rest": "behind"}
    assert x["route"]["name"] == "any"
    assert explain(w, "/a", "X-New: 1")["route"]["name"] == "new"


def test_the_key_has_its_parts_and_what_a_trusted_peer_says(origin, weir):
    origin.on("/a", body=b"a", headers=[("Cache-Control", "max-age=60")])
    w = weir(routes=[{"path": "/**", "key": {"headers": ["X-Tenant", "X-None"], "cookies": ["sid"]}}],
             listen={"trust": "127.0.0.0/8"})
    fields = [("X-Tenant", "t"), ("Cookie", "sid=7; x=y"), ("X-Forwarded-Host", "www.example"),
              ("X-Forwarded-Port", "81")]
    w.get("/a", fields)
    lines = ["%s: %s" % f for f in fields]
    x = explain(w, "/a", *lines, trusted=True)
    assert x["key_parts"] == [
        {"part": "header X-Tenant", "value": "t"}, {"part": "header X-None", "value": None},
        {"part": "cookie sid", "value": "7"}, {"part": "x-forwarded-host", "value": "www.example"},
        {"part": "x-forwarded-port", "value": "81"}]
    assert x["answer"] == "hit" and w.get("/a", fields).cache_status.hit
    assert explain(w, "/a", *lines)["answer"] == "uri-miss"


def test_what_no_vary_search_calls_equal_is_found_and_says_under_which_key(origin, weir):
    origin.on("/s", body=b"a", headers=[("Cache-Control", "max-age=60"),
                                        ("No-Vary-Search", 'params=("utm")')])
    w = weir()
    w.get("/s?q=1&utm=2")
    assert explain(w, "/s?q=1%26utm=3")["verdict"]["outcome"] == "hit"
    x = explain(w, "/s?q=1")
    assert x["found_under"] is not None and x["stored"][0]["fields"]["No-Vary-Search"]
    assert w.get("/s?q=1").cache_status.hit
    assert explain(w, "/s?q=2")["answer"] == "uri-miss"


def test_the_page_has_marks_that_the_terminal_can_show(origin, weir):
    origin.on("/p", body=b"a", headers=[("Cache-Control", "private")])
    w = weir()
    w.get("/p")

    def page(url, lang, *args):
        return subprocess.run(
            [harness.weir_binary(), "explain", url, "--admin", w.admin_url, *args],
            capture_output=True, check=False, text=True, encoding="utf-8",
            env={"PATH": os.environ["PATH"], "LC_ALL": lang})
    utf8 = page("http://%s/p" % w.host, "C.UTF-8")
    assert utf8.returncode == 0 and utf8.stderr == ""
    assert "\nalone: " in utf8.stdout and "\u2718 private: " in utf8.stdout
    assert "\u2714 no-store: " in utf8.stdout and "What to change\n  - the origin says private" in utf8.stdout
    plain = page("http://%s/p" % w.host, "C")
    assert "  no private: " in plain.stdout and plain.stdout.isascii()
    assert json.loads(page("http://%s/p" % w.host, "C", "--json").stdout)["answer"] == "pass"
    assert page("nonsense", "C").returncode == 1


# ---- other methods, content, blocks, writes ------------------------------------------------------

def test_a_head_is_explained_as_it_is_answered(origin, weir):
    origin.on("/a", body=b"a", headers=[("Cache-Control", "max-age=60")])
    origin.on("/private", body=b"a", headers=[("Cache-Control", "private")])
    w = weir()
    x = explain(w, "/a", method="HEAD")
    assert (x["request"]["method"], x["verdict"]["outcome"]) == ("HEAD", "miss")
    assert w.request("HEAD", "/a").status == 200 and origin.last("/a").method == "GET"
    # the answer has no body to wait for, the store has
    harness.eventually(lambda: explain(w, "/a", method="HEAD")["verdict"]["outcome"] == "hit")
    w.get("/private")
    x = explain(w, "/private", method="HEAD")
    assert x["verdict"]["outcome"] == "pass" and "head" in advised(x)
    w.request("HEAD", "/private")
    assert origin.last("/private").method == "HEAD"


def test_a_query_is_explained_by_its_content(origin, weir):
    origin.on("/q", lambda q, c: c.respond(200, [("Cache-Control", "max-age=60")], q.body))
    w = weir(routes=[{"path": "/**", "key": {"max_content": "1KiB"}}])
    kind = [("Content-Type", "application/json")]
    w.request("QUERY", "/q", kind, b'{"a": 1, "b": 2}')
    json_type = "Content-Type: application/json"
    x = explain(w, "/q", json_type, method="QUERY", content='{"b":2,"a":1}')
    assert x["verdict"]["outcome"] == "hit" and x["request"]["content_bytes"] == 13
    assert [p["part"] for p in x["key_parts"]] == ["content"]
    assert w.request("QUERY", "/q", kind, b'{"b":2,"a":1}').cache_status.hit
    assert explain(w, "/q", json_type, method="QUERY", content="{}")["answer"] == "uri-miss"
    assert explain(w, "/q", method="QUERY", content='{"b":2,"a":1}')["answer"] == "uri-miss"
    x = explain(w, "/q", json_type, "Range: bytes=0-1", method="QUERY", content="{}")
    assert (x["verdict"]["outcome"], x["request"]["why"]) == ("pass", "range")
    x = explain(w, "/q", json_type, method="QUERY", content="[%s]" % ("1," * 600 + "1"))
    assert (x["verdict"]["outcome"], x["request"]["why"]) == ("pass", "content-size")
    assert advised(x) == ["content-size"]
    x = explain(w, "/q", content="x")
    assert (x["verdict"]["outcome"], x["request"]["why"]) == ("pass", "request-body")


def test_a_promised_post_is_a_question_and_another_is_a_write(origin, weir):
    origin.on("/search", lambda q, c: c.respond(200, [("Cache-Control", "max-age=60")], b"x"))
    w = weir(routes=[{"path": "/search", "cache_methods": ["POST"]}, {"path": "/**"}])
    assert explain(w, "/search", method="POST", content="a")["verdict"]["outcome"] == "miss"
    w.post("/search", body=b"a")
    x = explain(w, "/search", method="POST", content="a")
    assert x["verdict"]["outcome"] == "hit" and "write" not in x
    assert w.post("/search", body=b"a").cache_status.hit
    x = explain(w, "/other", method="POST", content="a")
    assert x["verdict"]["outcome"] == "write" and x["request"]["why"] == "method"
    for method, outcome in (("PUT", "write"), ("OPTIONS", "pass"), ("X-NEW", "write")):
        assert explain(w, "/search", method=method)["verdict"]["outcome"] == outcome


def test_a_write_says_what_its_success_purges_and_it_does(origin, weir):
    fresh = [("Cache-Control", "max-age=60")]
    routes = [{"path": "/things/{id}", "name": "thing", "tags": ["thing:{id}"],
               "purge": ["thing:{id}", "/lists/{id}?x=1", "{request.body.tag}",
                         "{response.header.x-tag}"]},
              {"path": "/lists/**", "name": "lists"}, {"path": "/**", "name": "rest", "tags": ["t"]}]
    for path in ("/things/7", "/lists/7", "/by-tag"):
        origin.on(path, body=b"a", headers=fresh)
    w = weir(routes=routes)
    x = explain(w, "/things/7", method="PUT", content='{"tag": "t"}')
    base = "http://%s" % w.host
    assert x["route"]["policy"] == "cache-aside" and x["verdict"]["outcome"] == "write"
    assert x["write"] == {
        "course": "goes to the origin; its answer purges", "idempotency_key": "not looked at",
        "purge_on": "success",
        "purges": [{"url": base + "/things/7"}, {"tag": "thing:7"}, {"url": base + "/lists/7?x=1"},
                   {"tag": "t"}],
        "told_by_the_answer": ["Location", "Content-Location", "Cache-Group-Invalidation",
                               "{response.header.x-tag}"]}
    paths = ("/things/7", "/lists/7?x=1", "/by-tag")
    for path in paths:
        w.get(path)
        assert w.get(path).cache_status.hit                # the explanation has purged nothing
    w.request("PUT", "/things/7", [("Content-Type", "application/json")], b'{"tag": "t"}')
    assert not any(w.get(path).cache_status.hit for path in paths)
    x = explain(w, "/things/7", method="PUT", content="no JSON")
    assert {"route": "thing"} in x["write"]["purges"]       # what could not be filled is all of it


def test_a_write_says_who_has_it_first(origin, weir, tmp_path):
    origin.on("*")
    back = {"path": "/%s", "policy": "write-back"}
    w = weir(journal={"path": str(tmp_path / "journal")}, routes=[
        {**back, "path": "/always"}, {**back, "path": "/prefer", "write": {"when": "prefer"}},
        {**back, "path": "/down", "write": {"when": "down"}},
        {"path": "/through", "policy": "write-through", "write": {"idempotency": "1h"}}])

    def course(path, *headers, method="PUT"):
        x = explain(w, path, *headers, method=method)
        return x["verdict"]["outcome"], x["write"]["course"].split(" ")[0], \
            x["write"]["idempotency_key"]
    key = 'Idempotency-Key: "k"'
    assert course("/always", key) == ("accept", "acknowledged", "remembered")
    assert course("/always", method="LOCK")[:2] == ("write", "its")
    assert course("/prefer") == ("write", "goes", "none was sent")
    assert course("/prefer", "Prefer: respond-async")[:2] == ("accept", "acknowledged")
    assert course("/down")[:2] == ("write", "goes")
    assert course("/through", key) == ("write", "its", "remembered")
    for path, status in (("/always", 202), ("/prefer", 200), ("/down", 200), ("/through", 200)):
        assert w.request("PUT", path, body=b"x").status == status
    page = w.cli("explain", "-X", "PUT", "--admin", w.admin_url, w.url + "/always")
    assert "course: acknowledged" in page.stdout


def test_blocks_are_told_one_by_one(origin, weir):
    body = bytes(range(256)) * 1024

    def ranged(q, c):
        first, last = (int(n) for n in q.header("Range").split("=")[1].split("-"))
        last = min(last, len(body) - 1)
        c.respond(206, [("Cache-Control", "max-age=60"), ("ETag", '"1"'),
                        ("Content-Range", "bytes %d-%d/%d" % (first, last, len(body)))],
                  body[first:last + 1])
    origin.on("/b", ranged)
    w = weir(routes=[{"path": "/**", "range": {"block": "64KiB"}}])
    span = "bytes=65000-140000"
    wanted = "Range: " + span
    x = explain(w, "/b", wanted)
    assert x["verdict"]["outcome"] == "blocks" and x["blocks"]["size"] == 65536
    assert [(b["block"], b["stored"]) for b in x["blocks"]["wanted"]] == [
        (0, False), (1, False), (2, False)]
    assert w.get("/b", [("Range", "bytes=65540-65550")]).body == body[65540:65551]
    x = explain(w, "/b", wanted)
    assert [(b["stored"], b["use"]) for b in x["blocks"]["wanted"]] == [
        (False, None), (True, "fresh"), (False, None)]
    assert w.get("/b", [("Range", span)]).body == body[65000:140001]
    assert all(b["use"] == "fresh" for b in explain(w, "/b", wanted)["blocks"]["wanted"])
    assert "blocks" not in explain(w, "/b")
    origin.on("/whole", body=b"a" * 5000, headers=[("Cache-Control", "private")])
    w.get("/whole", [("Range", "bytes=0-9")])
    x = explain(w, "/whole", "Range: bytes=0-9")
    assert x["blocks"]["refused_lately"] and x["verdict"]["outcome"] != "blocks"


def test_the_shell_asks_with_method_and_content(origin, weir, tmp_path):
    origin.on("/q", lambda q, c: c.respond(200, [("Cache-Control", "max-age=60")], b"x"))
    w = weir()
    content = tmp_path / "query.json"
    content.write_text('[1, "\u00e4"]', encoding="utf-8")
    w.request("QUERY", "/q", [("Content-Type", "application/json")], content.read_bytes())
    url = "http://%s/q" % w.host

    def shell(*args):
        return w.cli("explain", url, "--admin", w.admin_url, *args)
    page = shell("-X", "QUERY", "-d", "@%s" % content, "-H", "Content-Type: application/json").stdout
    assert page.startswith("QUERY %s\nhit: " % url), page
    assert shell("-X", "HEAD").stdout.startswith("HEAD ")
    page = shell("-d", "x").stdout
    assert page.startswith("POST %s\nwrite: " % url) and "purges\n  url: %s\n" % url in page
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for wrong in ("@%s" % binary, "@%s" % (tmp_path / "none")):
        assert shell("-d", wrong).returncode == 1
    assert shell("-X", "GE T").returncode == 1
    answer = w.api("POST", "/explain?url=" + url, {"other": "x"})
    assert answer.status == 400
    assert w.api("DELETE", "/explain?url=" + url).header("Allow") == "GET, HEAD, POST"
