"""Write-through: after a successful write the cache holds the new representation before the writer has
its answer (RFC 9110 8.7, 9.3.3, 9.3.4)."""
import json
import random
import threading
import time

import pytest

from harness import eventually

FRESH = ("Cache-Control", "max-age=60")


class Resource:
    """An origin's resource: GET gives what the last write made of it. `answer` makes the answer to a
    write of (request, state): status, headers, body."""

    def __init__(self, origin, path, answer=None, headers=(FRESH,)):
        self.state, self.headers, self.lock = b"old", list(headers), threading.Lock()
        self.answer = answer or (lambda req, state: (204, [], b""))
        self.gets = 0
        origin.on(path, self)

    def __call__(self, req, conn):
        if req.method in ("GET", "HEAD"):
            self.gets += 1
            if self.state is None:
                conn.respond(404, [], b"gone")
            else:
                conn.respond(200, self.headers, self.state)
            return
        with self.lock:
            self.state = None if req.method == "DELETE" else b"new " + req.body
            status, headers, body = self.answer(req, self.state)
        conn.respond(status, headers, body)


def through(fill="auto", **more):
    return [{"path": "/**", "policy": "write-through", "write": {"fill": fill}, **more}]


def holds(w, path, body, headers=()):
    """A hit, and nothing else."""
    got = w.get(path, headers)
    assert got.cache_status.hit, got.headers
    assert got.body == body and got.status == 200
    return got


def enclosing(*headers, status=200):
    return lambda req, state: (status, [("Content-Location", req.target), *headers], state)


# ---- auto ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
def test_an_answer_that_encloses_its_target_is_what_readers_get(origin, weir, method, status):
    r = Resource(origin, "/a", enclosing(FRESH, ("ETag", '"n"'), ("Set-Cookie", "a=b"),
                                         ("Location", "/a"), status=status))
    w = weir(routes=through())
    w.get("/a")
    wrote = w.request(method, "/a", body=b"x")
    assert wrote.status == status and wrote.body == b"new x" and wrote.header("Set-Cookie")
    assert wrote.cache_status.fwd == "method" and wrote.cache_status.detail == "filled"
    assert wrote.cache_status.stored
    got = holds(w, "/a", b"new x")
    assert got.header("Set-Cookie") is None and got.header("Location") is None
    assert w.get("/a", [("If-None-Match", '"n"')]).status == 304
    head = w.request("HEAD", "/a")
    assert head.cache_status.hit and head.header("Content-Length") == "5"
    assert r.gets == 1
    assert w.metric("weir_write_fills_total") == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_the_route_assumes_counts_for_put_and_patch_as_for_a_get(origin, weir, method):
    r = Resource(origin, "/a", enclosing(), headers=())
    w = weir(routes=through(ttl="1m"))
    assert w.request(method, "/a", body=b"x").cache_status.detail == "filled"
    assert 50 < holds(w, "/a", b"new x").cache_status.ttl <= 60
    assert r.gets == 0


def test_a_post_that_says_nothing_of_freshness_is_fetched(origin, weir):
    r = Resource(origin, "/a", enclosing())
    w = weir(routes=through(ttl="1m"))
    assert w.post("/a", b"x").cache_status.detail == "refetched"
    holds(w, "/a", b"new x")
    assert r.gets == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
@pytest.mark.parametrize("answer", [
    lambda req, state: (204, [], b""),
    lambda req, state: (200, [FRESH], b'{"ok": true}'),
    lambda req, state: (200, [FRESH, ("Content-Location", "/receipts/1")], b"a receipt"),
    lambda req, state: (201, [FRESH, ("Content-Location", "/a"), ("Content-Location", "/a")], b"?"),
    lambda req, state: (200, [("Cache-Control", "no-store"), ("Content-Location", "/a")], state),
    lambda req, state: (200, [FRESH, ("Vary", "*"), ("Content-Location", "/a")], state),
])
def test_what_no_answer_encloses_is_fetched_before_the_answer_leaves(origin, weir, method, answer):
    r = Resource(origin, "/a", answer)
    w = weir(routes=through())
    w.get("/a")
    wrote = w.request(method, "/a", body=b"x")
    assert wrote.status == answer(origin.last("/a"), b"")[0]
    assert wrote.cache_status.detail == "refetched" and not wrote.cache_status.stored
    assert r.gets == 2
    holds(w, "/a", b"new x")
    assert r.gets == 2


def test_the_fetch_is_what_the_client_would_have_sent(origin, weir):
    Resource(origin, "/a")
    w = weir(routes=through(rewrite={"strip": "/v1"}))
    origin.on("/b", origin.handlers["/a"])
    w.request("PUT", "/v1/b?q=1", [
        ("Accept", "application/json"), ("Cookie", "a=b"), ("X-Mine", "1"), ("If-Match", '"o"'),
        ("Content-Type", "text/plain"), ("Content-Language", "de"), ("Idempotency-Key", '"k"'),
        ("Prefer", "return=minimal"), ("X-HTTP-Method-Override", "DELETE"), ("Range", "bytes=0-1"),
        ("Transfer-Encoding", "chunked")], b"1\r\nx\r\n0\r\n\r\n")
    get = origin.last("/b")
    assert get.method == "GET" and get.target == "/b?q=1" and get.body == b""
    assert get.header("Accept") == "application/json" and get.header("Cookie") == "a=b"
    assert get.header("X-Mine") == "1" and get.header("Via")
    for name in ("If-Match", "Content-Type", "Content-Language", "Idempotency-Key", "Prefer", "Range",
                 "X-HTTP-Method-Override", "Transfer-Encoding", "Content-Length"):
        assert get.header(name) is None, name


def test_the_answer_waits_for_the_fetch_and_readers_join_it(origin, weir):
    gate, state = origin.gate(), {"v": b"old"}

    def handler(req, conn):
        if req.method == "GET":
            body = state["v"]
            if body != b"old":
                gate.wait()
            conn.respond(200, [FRESH], body)
        else:
            state["v"] = req.body
            conn.respond(204)
    origin.on("/a", handler)
    w = weir(routes=through())
    w.get("/a")
    answers = []
    writer = threading.Thread(target=lambda: answers.append(w.request("PUT", "/a", body=b"new")))
    writer.start()
    origin.wait("/a", 3)
    readers = [threading.Thread(target=lambda: answers.append(w.get("/a"))) for _ in range(4)]
    for t in readers:
        t.start()
    eventually(lambda: w.metric("weir_collapsed_total") == 4)
    assert not answers
    gate.set()
    for t in [writer, *readers]:
        t.join()
    assert sorted(a.body for a in answers) == [b""] + [b"new"] * 4
    assert origin.count("/a") == 3


# ---- what the operator promises --------------------------------------------------------------------

@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("status", [200, 201])
def test_response_the_content_of_an_answer_is_the_representation(origin, weir, method, status):
    r = Resource(origin, "/a", lambda req, state: (status, [FRESH, ("ETag", '"e"')], state))
    w = weir(routes=through("response"))
    w.get("/a")
    assert w.request(method, "/a", body=b"x").cache_status.detail == "filled"
    assert holds(w, "/a", b"new x").header("ETag") == '"e"'
    assert r.gets == 1


@pytest.mark.parametrize("method, answer", [
    ("POST", lambda req, state: (200, [FRESH], b"a receipt")),
    ("PUT", lambda req, state: (204, [FRESH], b"")),
    ("PUT", lambda req, state: (203, [FRESH], b"transformed")),
    ("PUT", lambda req, state: (200, [FRESH, ("Content-Location", "/receipts/1")], b"a receipt")),
])
def test_response_promises_nothing_of_other_answers(origin, weir, method, answer):
    r = Resource(origin, "/a", answer)
    w = weir(routes=through("response"))
    assert w.request(method, "/a", body=b"x").cache_status.detail == "refetched"
    holds(w, "/a", b"new x")
    assert r.gets == 1


@pytest.mark.parametrize("framing", [[("Content-Length", "1")], [("Transfer-Encoding", "chunked")]])
@pytest.mark.parametrize("status, body", [(200, b"thank you"), (201, b""), (204, b"")])
def test_request_the_content_of_a_put_is_the_representation(origin, weir, status, body, framing):
    r = Resource(origin, "/a", lambda req, state: (status, [
        FRESH, ("ETag", '"e"'), ("Content-Type", "text/thanks"), ("Content-Language", "en"),
        ("X-Kept", "1"), ("Location", "/a")], body))
    w = weir(routes=through("request"))
    w.get("/a")
    wrote = w.request("PUT", "/a", [("Content-Type", "text/plain"), ("Content-Encoding", "x-mine"),
                                    ("X-Of-Client", "x"), *framing],
                      b"x" if framing[0][0] == "Content-Length" else b"1\r\nx\r\n0\r\n\r\n")
    assert wrote.status == status and wrote.body == body
    assert wrote.cache_status.detail == "filled" and not wrote.cache_status.stored
    got = holds(w, "/a", b"x")
    assert got.header("Content-Type") == "text/plain" and got.header("Content-Encoding") == "x-mine"
    assert got.header("ETag") == '"e"' and got.header("X-Kept") == "1"
    assert got.header("Content-Language") is None and got.header("Location") is None
    assert got.header("X-Of-Client") is None
    assert w.get("/a", [("If-None-Match", '"e"')]).status == 304
    assert r.gets == 1


def test_request_an_empty_content_is_one_too(origin, weir):
    Resource(origin, "/a", lambda req, state: (204, [FRESH], b""))
    w = weir(routes=through("request"))
    assert w.request("PUT", "/a", [("Content-Length", "0")]).cache_status.detail == "filled"
    holds(w, "/a", b"")


@pytest.mark.parametrize("method, headers, answer", [
    ("PATCH", [], lambda req, state: (204, [FRESH], b"")),
    ("POST", [], lambda req, state: (204, [FRESH], b"")),
    ("PUT", [("Content-Range", "bytes 0-0/5")], lambda req, state: (204, [FRESH], b"")),
    ("PUT", [], lambda req, state: (204, [("Cache-Control", "no-store")], b"")),
    ("PUT", [], lambda req, state: (200, [FRESH, ("Content-Location", "/b")], b"")),
    ("PUT", [], lambda req, state: (207, [FRESH], b"")),
])
def test_request_promises_nothing_of_other_writes(origin, weir, method, headers, answer):
    Resource(origin, "/a", answer)
    w = weir(routes=through("request"))
    assert w.request(method, "/a", headers, b"x").cache_status.detail == "refetched"
    holds(w, "/a", b"new x")


def test_request_content_beyond_max_object_is_not_kept(origin, weir):
    Resource(origin, "/a", lambda req, state: (204, [FRESH], b""), headers=[FRESH])
    w = weir(routes=through("request"), cache={"max_object": "64KiB"})
    wrote = w.request("PUT", "/a", body=b"x" * 100000)
    assert wrote.status == 204 and wrote.cache_status.detail == "not-filled"
    assert w.get("/a").body == b"new " + b"x" * 100000
    assert w.request("PUT", "/a", body=b"y" * 60000).cache_status.detail == "filled"
    holds(w, "/a", b"y" * 60000)
    assert w.metric("weir_write_fills_failed_total") == 1


def test_refetch_believes_no_answer(origin, weir):
    r = Resource(origin, "/a", lambda req, state: (200, [FRESH, ("Content-Location", "/a")], b"no"))
    w = weir(routes=through("refetch"))
    for method in ("PUT", "PATCH", "POST"):
        assert w.request(method, "/a", body=method.encode()).cache_status.detail == "refetched"
        holds(w, "/a", b"new " + method.encode())
    assert r.gets == 3


# ---- what leaves nothing ---------------------------------------------------------------------------

def test_delete_removes_and_leaves_nothing(origin, weir):
    r = Resource(origin, "/a", lambda req, state: (200, [FRESH, ("Content-Location", "/a")], b"bye"))
    w = weir(routes=through())
    w.get("/a")
    assert w.request("DELETE", "/a").body == b"bye"
    assert r.gets == 1
    assert w.get("/a").status == 404


@pytest.mark.parametrize("status", [202, 303, 400, 412, 500])
def test_what_is_not_done_leaves_nothing(origin, weir, status):
    r = Resource(origin, "/a", lambda req, state: (status, [FRESH, ("Content-Location", "/a")], b"?"))
    w = weir(routes=through())
    w.get("/a")
    assert w.request("PUT", "/a", body=b"x").status == status
    assert r.gets == 1
    assert w.get("/a").cache_status.hit == (status >= 400)


def test_who_asks_for_no_store_leaves_nothing(origin, weir):
    r = Resource(origin, "/a", enclosing(FRESH))
    w = weir(routes=through())
    w.request("PUT", "/a", [("Cache-Control", "no-store")], b"x")
    assert r.gets == 0
    assert not w.get("/a").cache_status.hit


def test_a_fetch_that_fails_leaves_the_target_purged_and_the_answer_as_it_was(origin, weir):
    down = threading.Event()

    def fails(req, conn):
        if req.method == "PUT":
            down.set()
            conn.respond(200, [], b"done")
        elif down.is_set():
            conn.reset()
        else:
            conn.respond(200, [FRESH], b"%d" % origin.count("/a"))
    origin.on("/a", fails)
    w = weir(routes=through())
    assert w.get("/a").body == b"1"
    wrote = w.request("PUT", "/a", body=b"x")
    assert wrote.status == 200 and wrote.body == b"done"
    assert wrote.cache_status.detail == "not-filled"
    assert w.get("/a").status == 502
    down.clear()
    eventually(lambda: w.get("/a").status == 200)
    assert w.get("/a").body != b"1"


def test_a_fetch_that_takes_too_long_ends_by_the_origins_time_out(origin, weir):
    gate = origin.gate()

    def slow(req, conn):
        if req.method == "GET" and origin.count("/a") > 1:
            gate.wait()
        conn.respond(200, [FRESH], b"done")
    origin.on("/a", slow)
    w = weir(routes=through(), origin={"timeout": {"first_byte": "300ms"}})
    w.get("/a")
    wrote = w.request("PUT", "/a", body=b"x")
    assert wrote.status == 200 and wrote.cache_status.detail == "not-filled"


def test_a_target_that_is_not_storable_is_not_fetched_each_time(origin, weir):
    r = Resource(origin, "/a", headers=[("Cache-Control", "private")])
    w = weir(routes=through())
    w.get("/a")
    for _ in range(3):
        w.get("/a")
        before = r.gets
        assert w.request("PUT", "/a", body=b"x").status == 204
        assert r.gets == before
        assert w.get("/a").body == b"new x"


# ---- as if it had been fetched ----------------------------------------------------------------------

def test_authorization_is_heeded_in_every_mode(origin, weir):
    auth = [("Authorization", "Basic eDp5")]
    for fill in ("auto", "response", "request", "refetch"):
        for control, stored in (("max-age=60", False), ("max-age=60, public", True)):
            path = "/%s/%d" % (fill, stored)
            Resource(origin, path, enclosing(("Cache-Control", control)),
                     headers=[("Cache-Control", control)])
    for fill in ("auto", "response", "request", "refetch"):
        w = weir(routes=through(fill))
        for stored in (False, True):
            path = "/%s/%d" % (fill, stored)
            wrote = w.request("PUT", path, auth, b"x")
            assert (wrote.cache_status.detail == "not-filled") == (not stored), (fill, wrote)
            assert w.get(path).cache_status.hit == stored


def test_vary_holds_for_what_a_write_left(origin, weir):
    varies = [FRESH, ("Vary", "Accept-Language")]
    for fill, answer in (("auto", enclosing(*varies)), ("refetch", None),
                         ("request", lambda req, state: (204, varies, b""))):
        Resource(origin, "/" + fill, answer, headers=varies)
        w = weir(routes=through(fill))
        w.get("/" + fill, [("Accept-Language", "fr")])
        w.request("PUT", "/" + fill, [("Accept-Language", "de")], b"x")
        got = w.get("/" + fill, [("Accept-Language", "de")])
        assert got.cache_status.hit and got.body.endswith(b"x"), fill
        assert not w.get("/" + fill, [("Accept-Language", "fr")]).cache_status.hit


def test_tags_templates_and_edits_are_those_of_the_route(origin, weir):
    routes = [{"path": "/api/{id}", "policy": "write-through", "write": {"fill": "request"},
               "tags": ["one:{id}", "all", "of:{response.body.owner}"], "purge": ["list"],
               "response": {"set": {"X-Edited": "yes"}, "remove": ["X-Secret"]}},
              {"path": "/list", "tags": ["list"]}]
    Resource(origin, "/api/7", lambda req, state: (204, [FRESH, ("X-Secret", "s")], b""))
    Resource(origin, "/list")
    w = weir(routes=routes)
    body = json.dumps({"owner": "me"}).encode()
    for tag in ("one:7", "all", "of:me"):
        w.get("/list")
        assert w.request("PUT", "/api/7", body=body).cache_status.detail == "filled"
        assert not w.get("/list").cache_status.hit
        got = holds(w, "/api/7", body)
        assert got.header("X-Edited") == "yes" and got.header("X-Secret") is None
        w.purge(tags=[tag])
        assert not w.get("/api/7").cache_status.hit


def test_groups_of_the_answer_hold_for_what_it_left(origin, weir):
    Resource(origin, "/a", enclosing(FRESH, ("Cache-Groups", '"g"')))
    w = weir(routes=through())
    w.request("PUT", "/a", body=b"x")
    holds(w, "/a", b"new x")
    w.purge(groups=["g"])
    assert not w.get("/a").cache_status.hit


def test_a_get_that_another_route_takes_is_filled_as_that_has_it(origin, weir):
    r = Resource(origin, "/v2/a", enclosing(FRESH))
    w = weir(routes=[{"path": "/a", "methods": ["PUT"], "policy": "write-through",
                      "rewrite": {"prefix": "/v2"}},
                     {"path": "/a", "rewrite": {"prefix": "/v2"}, "query": {"ignore": ["q"]},
                      "response": {"set": {"X-Read": "1"}}}])
    assert w.request("PUT", "/a?q=1", body=b"x").cache_status.detail == "refetched"
    assert holds(w, "/a?q=2", b"new x").header("X-Read") == "1"
    assert r.gets == 1


def test_a_get_that_no_route_stores_is_not_sent(origin, weir):
    r = Resource(origin, "/a", enclosing(FRESH))
    w = weir(routes=[{"path": "/a", "methods": ["PUT"], "policy": "write-through"},
                     {"path": "/**", "policy": "pass"}])
    assert w.request("PUT", "/a", body=b"x").status == 200
    assert r.gets == 0


def test_large_answers_pass_and_leave_what_fits(origin, weir):
    big = b"z" * 300000
    Resource(origin, "/a", lambda req, state: (200, [FRESH, ("Content-Location", "/a")], big))
    w = weir(routes=through(), cache={"max_object": "512KiB"})
    wrote = w.request("PUT", "/a", body=b"x")
    assert wrote.body == big and wrote.cache_status.detail == "filled"
    holds(w, "/a", big)
    w = weir(routes=through(), cache={"max_object": "128KiB"})
    wrote = w.request("PUT", "/a", body=b"x")
    assert wrote.body == big and wrote.cache_status.detail == "refetched"

    def chunked(req, conn):
        if req.method == "GET":
            conn.respond(200, [FRESH], b"small")
            return
        conn.head(200, [FRESH, ("Content-Location", "/b")], chunked=True)
        for at in range(0, len(big), 50000):
            conn.chunk(big[at:at + 50000])
        conn.end()
    origin.on("/b", chunked)
    wrote = w.request("PUT", "/b", body=b"x")
    assert wrote.body == big and wrote.cache_status.detail == "not-filled"
    assert not w.get("/b").cache_status.hit


def test_an_answer_that_breaks_off_leaves_nothing(origin, weir):
    def cut(req, conn):
        if req.method == "GET":
            conn.respond(200, [FRESH], b"whole")
            return
        conn.head(200, [FRESH, ("Content-Location", "/a")], length=10)
        conn.send(b"half")
        conn.close()
    origin.on("/a", cut)
    w = weir(routes=through())
    with w.client() as c:
        c.start("PUT", "/a", [("Content-Length", "0")])
        with pytest.raises(AssertionError):
            c.response()
    assert not w.get("/a").cache_status.hit


def test_other_policies_leave_nothing_of_a_put(origin, weir):
    r = Resource(origin, "/a", enclosing(FRESH))
    w = weir()
    assert w.request("PUT", "/a", body=b"x").cache_status.detail == "method"
    assert r.gets == 0 and not w.get("/a").cache_status.hit


# ---- writes that race -------------------------------------------------------------------------------

def gated(origin, path, w, method="PUT", fill_headers=(FRESH,)):
    """Writes wait at the origin for the gate that their body names."""
    gates = {}

    def handler(req, conn):
        if req.method == "GET":
            conn.respond(200, [FRESH], b"got")
            return
        gates[req.body].wait()
        conn.respond(200, [("Content-Location", path), *fill_headers], req.body)
    origin.on(path, handler)
    return gates


@pytest.mark.parametrize("fill", ["auto", "response", "request", "refetch"])
@pytest.mark.parametrize("first, second", [(b"1", b"2"), (b"2", b"1")])
def test_writes_that_overlap_leave_nothing_whoever_is_answered_first(origin, weir, fill, first, second):
    w = weir(routes=through(fill))
    gates = gated(origin, "/a", w)
    answers = {}

    def write(body):
        answers[body] = w.request("PUT", "/a", body=body)
    threads = {}
    for n, body in enumerate((b"1", b"2"), 1):
        gates[body] = origin.gate()
        threads[body] = threading.Thread(target=write, args=(body,))
        threads[body].start()
        origin.wait("/a", n)
    for body in (first, second):
        gates[body].set()
        threads[body].join()
        assert answers[body].cache_status.detail == "raced" and answers[body].body == body
    assert w.metric("weir_write_fills_raced_total") == 2
    assert not w.get("/a").cache_status.hit
    gates[b"3"] = origin.gate()
    gates[b"3"].set()
    assert w.request("PUT", "/a", body=b"3").cache_status.detail in ("filled", "refetched")
    assert w.get("/a").cache_status.hit


def test_a_write_of_another_route_or_query_or_method_races_too(origin, weir):
    w = weir(routes=[{"path": "/a", "policy": "write-through"},
                     {"path": "/a", "methods": ["DELETE"], "policy": "pass"}, {"path": "/**"}])
    gates = gated(origin, "/a", w)
    for method, target in (("DELETE", "/a"), ("PUT", "/a?x")):
        gates[b""] = origin.gate()
        gates[b"new"] = origin.gate()
        before = origin.count("/a")
        other = threading.Thread(target=lambda: w.request(method, target, [("Content-Length", "0")]))
        other.start()
        origin.wait("/a", before + 1)
        gates[b"new"].set()
        assert w.request("PUT", "/a", body=b"new").cache_status.detail == "raced"
        gates[b""].set()
        other.join()


def test_writes_of_different_paths_do_not_race(origin, weir):
    w = weir(routes=through())
    gates = gated(origin, "/a", w)
    gates[b"new"] = origin.gate()
    waiting = threading.Thread(target=lambda: w.request("PUT", "/a", body=b"new"))
    waiting.start()
    origin.wait("/a", 1)
    Resource(origin, "/b", enclosing(FRESH))
    assert w.request("PUT", "/b", body=b"x").cache_status.detail == "filled"
    gates[b"new"].set()
    waiting.join()


def test_a_write_that_begins_during_a_fetch_keeps_that_out(origin, weir):
    gate, state = origin.gate(), {"v": b"old", "gets": 0}

    def handler(req, conn):
        if req.method == "GET":
            state["gets"] += 1
            body = state["v"]
            if state["gets"] == 1:
                gate.wait()
            conn.respond(200, [FRESH], body)
        else:
            state["v"] = req.body
            conn.respond(200, [FRESH, ("Content-Location", "/a")] if req.body == b"2" else [], req.body)
    origin.on("/a", handler)
    w = weir(routes=through())
    answers = []
    first = threading.Thread(target=lambda: answers.append(w.request("PUT", "/a", body=b"1")))
    first.start()
    origin.wait("/a", 2)
    assert w.request("PUT", "/a", body=b"2").cache_status.detail == "filled"
    holds(w, "/a", b"2")
    gate.set()
    first.join()
    assert answers[0].cache_status.detail == "raced"
    holds(w, "/a", b"2")


def test_a_write_whose_client_left_is_purged_again_when_the_origin_has_done_it(origin, weir):
    gate, state = origin.gate(), {"v": b"old"}

    def handler(req, conn):
        if req.method == "GET":
            conn.respond(200, [FRESH], state["v"])
        elif req.body == b"late":
            gate.wait()
            state["v"] = req.body
            conn.respond(200, [FRESH, ("Content-Location", "/a")], req.body)
        else:
            conn.respond(200, [FRESH, ("Content-Location", "/a")], state["v"])
    origin.on("/a", handler)
    w = weir(routes=through())
    w.get("/a")
    c = w.client()
    c.start("PUT", "/a", [("Content-Length", "4")])
    c.send(b"late")
    origin.wait("/a", 2)
    c.reset()
    eventually(lambda: w.metric("weir_write_orphans_total") == 1)
    assert not w.get("/a").cache_status.hit         # purged when its client left, and stored since
    assert w.get("/a").cache_status.hit
    assert w.request("PUT", "/a", body=b"x").cache_status.detail == "raced"
    assert w.get("/a").body == b"old"
    gate.set()
    eventually(lambda: w.get("/a").body == b"late")
    eventually(lambda: w.request("PUT", "/a", body=b"x").cache_status.detail == "filled")


def test_a_write_whose_client_left_before_all_of_it_came_does_not_go_on(origin, weir):
    origin.on("/a", lambda req, conn: conn.respond(200, [FRESH], b"old"))
    w = weir(routes=through())
    w.get("/a")
    c = w.client()
    c.start("PUT", "/a", [("Content-Length", "4")])
    c.send(b"la")
    eventually(lambda: w.metric("weir_origin_busy") == 1)
    c.reset()
    eventually(lambda: w.metric("weir_origin_busy") == 0)
    assert w.metric("weir_write_orphans_total") == 0


def test_a_writer_that_leaves_while_its_target_is_fetched_leaves_no_ticket(origin, weir):
    gate = origin.gate()

    def handler(req, conn):
        if req.method == "GET" and origin.count("/a") == 2:
            gate.wait()
        conn.respond(200, [FRESH], b"body")
    origin.on("/a", handler)
    w = weir(routes=through())
    c = w.client()
    c.start("PUT", "/a", [("Content-Length", "0")])
    origin.wait("/a", 2)
    c.reset()
    eventually(lambda: w.metric("weir_client_aborts_total") >= 1)
    gate.set()
    eventually(lambda: w.metric("weir_flights_now") == 0)
    assert w.request("PUT", "/a", body=b"x").cache_status.detail == "refetched"
    assert w.get("/a").cache_status.hit


# ---- the hammer -------------------------------------------------------------------------------------

class Versions:
    """An origin of a few resources that knows every write's version: each write becomes the next
    version when it takes it, and is answered some time later."""

    def __init__(self, origin, names, answer):
        self.latest = {n: 0 for n in names}
        self.lock, self.answer = threading.Lock(), answer
        for n in names:
            origin.on(n, self)

    def __call__(self, req, conn):
        if req.method == "GET":
            with self.lock:
                version = self.latest[req.path]
            conn.respond(200, [FRESH], b"%d" % version)
            return
        if random.random() < 0.5:
            time.sleep(random.random() * 0.002)
        with self.lock:
            self.latest[req.path] += 1
            version = self.latest[req.path]
        if random.random() < 0.5:
            time.sleep(random.random() * 0.002)
        self.answer(req, conn, version)


@pytest.mark.parametrize("fill", ["auto", "response", "refetch"])
def test_a_hammer_of_writers_and_readers_never_sees_what_is_older_than_an_answered_write(origin, weir, fill):
    names = ["/%d" % i for i in range(3)]
    Versions(origin, names, lambda req, conn, version: conn.respond(200, [
        FRESH, ("X-Version", str(version))] + (
            [("Content-Location", req.path)] if fill == "auto" and version % 4 else []),
        b"%d" % version))
    w = weir(routes=through(fill), origin={"pool": {"max": 64}})
    answered = {n: 0 for n in names}
    lock, over, bad, done = threading.Lock(), threading.Event(), [], []

    def one(seed):
        rng = random.Random(seed)
        with w.client() as c:
            while not over.is_set() and not bad:
                name = rng.choice(names)
                if rng.random() < (0.25 if seed % 2 else 0.02):
                    version = int(c.request("PUT", name, body=b"x").header("X-Version"))
                    with lock:
                        answered[name] = max(answered[name], version)
                else:
                    with lock:
                        floor = answered[name]
                    got = c.request("GET", name)
                    if int(got.body) < floor:
                        bad.append((name, floor, int(got.body), got.headers))
                done.append(name)

    def enough():
        return len(done) > 100 and w.metric("weir_write_fills_total") > 5 and \
            w.metric("weir_write_fills_raced_total") > 0

    def go_on():
        try:
            time.sleep(2)                           # as many of them as can be
            eventually(lambda: bad or enough())
        finally:
            over.set()
    w.parallel(6, one, meanwhile=go_on)
    assert not bad, bad[:3]
    for name in names:                              # and it comes to rest at the newest
        assert int(w.get(name).body) == answered[name]
