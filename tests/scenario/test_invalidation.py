"""Unsafe requests invalidate what they changed (RFC 9111 4.4); a purge outruns a fetch."""
import pytest

from harness import eventually

FRESH = ("Cache-Control", "max-age=60")


def cached(origin, w, *paths):
    for path in paths:
        origin.on(path, [lambda q, c: c.respond(200, [FRESH], b"old"),
                         lambda q, c: c.respond(200, [FRESH], b"new")])
        assert w.get(path).body == b"old"


def writing(origin, path, status=200, headers=(), reason="OK"):
    """POST and its like at path answer so; GET goes on as it was."""
    inner = origin.handlers.get(path)
    last = {}

    def handler(req, conn):
        if req.method in ("GET", "HEAD"):
            now = inner
            if isinstance(now, list):
                now = now.pop(0) if len(now) > 1 else now[0]
            last["x"] = now
            now(req, conn)
        else:
            conn.respond(status, list(headers), b"" if status == 204 else b"done", reason)
    origin.on(path, handler)


def fresh(w, path):
    return w.get(path).cache_status.hit


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "X-UNKNOWN"])
@pytest.mark.parametrize("status", [200, 201, 204, 302, 303])
def test_a_successful_write_purges_its_target_before_the_writer_has_its_answer(origin, weir, method,
                                                                               status):
    w = weir()
    cached(origin, w, "/a")
    writing(origin, "/a", status)
    w.request(method, "/a", body=b"x")
    assert w.get("/a").body == b"new"


@pytest.mark.parametrize("status", [400, 403, 404, 409, 500, 503])
def test_a_failed_write_purges_nothing(origin, weir, status):
    w = weir()
    cached(origin, w, "/a")
    writing(origin, "/a", status)
    w.post("/a", b"x")
    assert fresh(w, "/a")


def test_a_failed_write_purges_where_the_route_says_so(origin, weir):
    w = weir(routes=[{"path": "/**", "purge_on": "any"}])
    cached(origin, w, "/a")
    writing(origin, "/a", 500)
    w.post("/a", b"x")
    assert not fresh(w, "/a")


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_write_whose_fate_is_unknown_purges(origin, weir, how):
    w = weir()
    cached(origin, w, "/a")
    origin.on("/a", lambda q, c: getattr(c, how)() if q.method == "POST"
              else c.respond(200, [FRESH], b"new"))
    assert w.post("/a", b"x").status == 502
    assert w.get("/a").body == b"new"


def test_a_write_that_times_out_purges(origin, weir):
    w = weir(routes=[{"path": "/**", "timeout": {"first_byte": "100ms"}}])
    cached(origin, w, "/a")
    gate = origin.gate()
    origin.on("/a", lambda q, c: gate.wait() if q.method == "POST"
              else c.respond(200, [FRESH], b"new"))
    assert w.post("/a", b"x").status == 504
    assert w.get("/a").body == b"new"


def test_a_writer_who_leaves_before_its_answer_has_purged(origin, weir):
    w = weir()
    cached(origin, w, "/a")
    gate = origin.gate()
    origin.on("/a", lambda q, c: gate.wait() if q.method == "POST"
              else c.respond(200, [FRESH], b"new"))
    with w.client() as c:
        c.start("POST", "/a", [("Content-Length", "0")])
        origin.wait("/a", 2)
        c.reset()
    eventually(lambda: w.get("/a").body == b"new")


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
def test_a_write_purges_what_location_names_on_the_same_origin(origin, weir, name):
    w = weir()
    cached(origin, w, "/b", "/c", "/d/e")
    origin.on("/w", lambda q, c: c.respond(201, [(name, "/b")], b""))
    w.post("/w")
    assert not fresh(w, "/b") and fresh(w, "/c")
    origin.on("/w", lambda q, c: c.respond(201, [(name, w.url + "/c")], b""))
    w.post("/w")
    assert not fresh(w, "/c")
    origin.on("/d/w", lambda q, c: c.respond(201, [(name, "e")], b""))
    w.post("/d/w")
    assert not fresh(w, "/d/e")


def test_a_location_elsewhere_purges_nothing_there(origin, weir):
    w = weir()
    other = [("Host", "other.example")]
    origin.on("/b", headers=[FRESH], body=b"x")
    w.get("/b", other)
    origin.on("/w", lambda q, c: c.respond(201, [("Location", "http://other.example/b"),
                                                 ("Content-Location", "//other.example/b")], b""))
    w.post("/w")
    assert w.get("/b", other).cache_status.hit


def test_a_write_purges_only_its_own_query(origin, weir):
    w = weir()
    origin.on("/a", lambda q, c: c.respond(200, [FRESH], q.target.encode()))
    w.get("/a?x=1")
    w.get("/a?x=2")
    w.post("/a?x=1")
    assert not fresh(w, "/a?x=1") and fresh(w, "/a?x=2")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"])
def test_safe_requests_purge_nothing(origin, weir, method):
    w = weir()
    cached(origin, w, "/a")
    origin.on("/a", headers=[FRESH], body=b"new")
    w.request(method, "/a")
    assert w.get("/a").body == b"old"


def test_a_write_purges_what_the_routes_templates_name(origin, weir):
    w = weir(routes=[{"path": "/r/{id}", "tags": ["r:{id}", "all"], "purge": ["r:{id}"]},
                     {"path": "/list", "tags": ["all"]},
                     {"path": "/touch", "purge": ["all"]}, {"path": "/**"}])
    origin.on("*", headers=[FRESH], body=b"x")
    for path in ("/r/1", "/r/1?x", "/r/2", "/list", "/free"):
        w.get(path)
    w.post("/r/1")
    assert [fresh(w, p) for p in ("/r/1", "/r/1?x", "/r/2", "/list", "/free")] == \
        [False, False, True, True, True]
    w.post("/touch")
    assert [fresh(w, p) for p in ("/r/1", "/r/1?x", "/r/2", "/list", "/free")] == \
        [False, False, False, False, True]


def test_tags_come_from_the_answer_too(origin, weir):
    w = weir(routes=[{"path": "/**",
                      "tags": ["{response.header.x-tag}", "id:{response.body.items[].id}",
                               "q:{query.q}"]}])
    origin.on("*", headers=[FRESH, ("X-Tag", "one"), ("Content-Type", "application/json")],
              body=b'{"items": [{"id": 7}, {"id": "x"}]}')
    for tag in ("one", "id:7", "id:x", "q:5"):
        w.get("/a?q=5")
        assert fresh(w, "/a?q=5")
        w.purge(tags=[tag])
        assert not fresh(w, "/a?q=5"), tag


@pytest.mark.parametrize("phase", ["before the head", "within the body"])
def test_what_was_asked_for_before_a_write_is_not_served_after_it(origin, weir, phase):
    w = weir(workers=2)
    gate = origin.gate()

    def handler(req, conn):
        if req.method == "POST":
            conn.respond(200, [], b"done")
        elif origin.count("/a") == 1:
            if phase == "before the head":
                gate.wait()
            conn.head(200, [FRESH], length=3)
            conn.send(b"o")
            gate.wait()
            conn.send(b"ld")
        else:
            conn.respond(200, [FRESH], b"new")
    origin.on("/a", handler)
    with w.client() as before:
        before.start("GET", "/a")
        origin.wait("/a")
        w.post("/a")
        assert w.get("/a").body == b"new"               # joins nothing from before
        gate.set()
        assert before.response().body == b"old"
    for _ in range(3):
        assert w.get("/a").body == b"new"


def test_a_304_that_was_asked_for_before_a_write_does_not_bring_the_old_answer_back(origin, weir):
    w = weir(workers=2)
    gate = origin.gate()
    state = {"body": b"old"}

    def handler(req, conn):
        if req.method == "POST":
            state["body"] = b"new"
            conn.respond(200, [], b"done")
        elif req.header("If-None-Match"):
            gate.wait()
            conn.respond(304, [FRESH, ("ETag", '"1"')], reason="Not Modified")
        else:
            conn.respond(200, [("Cache-Control", "max-age=10"), ("Age", "100"), ("ETag", '"1"')],
                         state["body"])
    origin.on("/a", handler)
    w.get("/a")
    with w.client() as before:
        before.start("GET", "/a")
        origin.wait("/a", 2)
        w.post("/a")
        gate.set()
        assert before.response().body == b"new"         # its stored answer is gone: asked once more
    assert w.get("/a").body == b"new"
