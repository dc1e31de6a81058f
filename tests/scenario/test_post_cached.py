"""A POST whose answer is its target's new representation is stored for later GETs (RFC 9110 9.3.3)."""
import pytest

FRESH = ("Cache-Control", "max-age=60")


def posting(origin, path, *headers, status=200, body=b"new", gate=None):
    """GET: old; POST: the answer given, its body after the gate."""
    def handler(req, conn):
        if req.method in ("GET", "HEAD"):
            conn.respond(200, [FRESH], b"old")
            return
        conn.head(status, list(headers), length=len(body), reason="Fine")
        if gate is not None:
            gate.wait()
        conn.send(body)
    origin.on(path, handler)


@pytest.mark.parametrize("status", [200, 201])
def test_the_answer_to_a_post_with_its_own_target_as_content_location_is_got_later(origin, weir, status):
    posting(origin, "/a", FRESH, ("Content-Location", "/a"), ("ETag", '"n"'),
            ("Set-Cookie", "a=b"), status=status)
    w = weir()
    assert w.get("/a").body == b"old"
    wrote = w.post("/a", b"x")
    assert wrote.status == status and wrote.body == b"new" and wrote.header("Set-Cookie")
    assert wrote.cache_status.fwd == "method"
    got = w.get("/a")
    assert got.cache_status.hit and got.body == b"new" and got.status == 200
    assert got.header("Set-Cookie") is None and got.header("Content-Location") == "/a"
    assert got.reason == ("OK" if status == 201 else "Fine")
    assert w.get("/a", [("If-None-Match", '"n"')]).status == 304
    assert w.request("HEAD", "/a").cache_status.hit
    assert origin.count("/a") == 2
    assert w.post("/a", b"x").cache_status.fwd == "method"      # but no POST is answered by it


@pytest.mark.parametrize("location", ["{url}/a?b=c", "/a?b=c", "?b=c", "/x/../a?b=c", "/%61?b=c"])
def test_content_location_is_compared_as_an_absolute_url(origin, weir, location):
    w = weir()
    posting(origin, "/a", FRESH, ("Content-Location", location.replace("{url}", w.url)))
    w.post("/a?b=c", b"x")
    assert w.get("/a?b=c").body == b"new"
    assert w.get("/a").body == b"old"


@pytest.mark.parametrize("status, headers", [
    (200, [FRESH]),
    (200, [FRESH, ("Content-Location", "/b")]),
    (200, [FRESH, ("Content-Location", "/a?x")]),
    (200, [FRESH, ("Content-Location", "/a#part")]),
    (200, [FRESH, ("Content-Location", "http://elsewhere.example/a")]),
    (200, [FRESH, ("Content-Location", "https://{host}/a")]),
    (200, [FRESH, ("Content-Location", "/a"), ("Content-Location", "/a")]),
    (200, [("Content-Location", "/a")]),
    (200, [("Content-Location", "/a"), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")]),
    (200, [("Content-Location", "/a"), ("Cache-Control", "max-age=60, no-cache"), ("ETag", '"v"')]),
    (200, [("Content-Location", "/a"), ("Cache-Control", "max-age=0"), ("ETag", '"v"')]),
    (200, [("Content-Location", "/a"), ("Cache-Control", "max-age=60, no-store")]),
    (200, [("Content-Location", "/a"), ("Cache-Control", "max-age=60, private")]),
    (200, [("Content-Location", "/a"), FRESH, ("Vary", "*")]),
    (202, [FRESH, ("Content-Location", "/a")]),
    (203, [FRESH, ("Content-Location", "/a")]),
    (303, [FRESH, ("Content-Location", "/a")]),
    (404, [FRESH, ("Content-Location", "/a")]),
])
def test_any_other_answer_to_a_post_is_stored_for_nobody(origin, weir, status, headers):
    w = weir(routes=[{"path": "/**", "ttl": "1m"}])
    posting(origin, "/a", *[(n, v.replace("{host}", w.host)) for n, v in headers], status=status)
    w.post("/a", b"x")
    assert w.get("/a").body == b"old"
    posting(origin, "/b", FRESH)
    assert w.get("/b").body == b"old"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_answers_to_other_writes_are_not_cacheable(origin, weir, method):
    posting(origin, "/a", FRESH, ("Content-Location", "/a"))
    w = weir()
    w.request(method, "/a", body=b"x")
    assert w.get("/a").body == b"old"


def test_authorization_is_heeded(origin, weir):
    w = weir()
    for path, control, body in (("/a", "max-age=60", b"old"), ("/b", "max-age=60, public", b"new")):
        posting(origin, path, ("Cache-Control", control), ("Content-Location", path))
        w.post(path, b"x", [("Authorization", "Basic eDp5")])
        assert w.get(path).body == body


def test_who_asks_for_no_store_leaves_nothing(origin, weir):
    posting(origin, "/a", FRESH, ("Content-Location", "/a"))
    w = weir()
    w.post("/a", b"x", [("Cache-Control", "no-store")])
    assert w.get("/a").body == b"old"


def test_vary_holds_for_what_a_post_left(origin, weir):
    posting(origin, "/a", FRESH, ("Content-Location", "/a"), ("Vary", "Accept-Language"))
    w = weir()
    w.post("/a", b"x", [("Accept-Language", "de")])
    assert w.get("/a", [("Accept-Language", "de")]).body == b"new"
    assert w.get("/a", [("Accept-Language", "fr")]).body == b"old"


def test_a_get_that_another_route_takes_is_not_answered(origin, weir):
    posting(origin, "/a", FRESH, ("Content-Location", "/a"))
    w = weir(routes=[{"path": "/a", "methods": ["POST"]}, {"path": "/**"}])
    w.post("/a", b"x")
    assert w.get("/a").body == b"old"


def test_another_write_that_is_answered_first_keeps_the_answer_out(origin, weir):
    """It may have been done after this one: its purge comes after this write was sent."""
    gate = origin.gate()

    def handler(req, conn):
        if req.method == "GET":
            conn.respond(200, [FRESH], b"of the second")
        elif req.body == b"1":
            gate.wait()
            conn.respond(200, [FRESH, ("Content-Location", "/a")], b"of the first")
        else:
            conn.respond(204)
    origin.on("/a", handler)
    w = weir()
    w.parallel(1, lambda i: w.post("/a", b"1"), meanwhile=lambda: (
        origin.wait("/a", 1), w.post("/a", b"2"), gate.set()))
    assert w.get("/a").body == b"of the second"


@pytest.mark.parametrize("purge", [{"url": "{url}/a"}, {"prefix": "{url}/"}, {"all": True},
                                   {"tags": ["t"]}, {"route": "/**"}])
def test_a_purge_while_the_body_comes_keeps_the_answer_out(origin, weir, purge):
    gate = origin.gate()
    posting(origin, "/a", FRESH, ("Content-Location", "/a"), gate=gate)
    w = weir(routes=[{"path": "/**", "tags": ["t"]}])
    said = {k: v.replace("{url}", w.url) if isinstance(v, str) else v for k, v in purge.items()}

    def meanwhile():
        with w.client() as c:
            c.start("POST", "/a", [("Content-Length", "1")])
            c.send(b"x")
            c.wire.until(b"\r\n\r\n", "the head")       # the write's own purge is done
            w.api("POST", "/purge", said)
            gate.set()
            assert c.wire.take(3) == b"new"
    meanwhile()
    assert w.get("/a").body == b"old"


def test_its_own_purges_do_not_keep_it_out(origin, weir):
    posting(origin, "/a", FRESH, ("Content-Location", "/a"), ("Location", "/a"))
    w = weir(routes=[{"path": "/**", "tags": ["t"], "purge": ["t", "/a", "/b"]}])
    assert w.get("/a").body == b"old"
    w.post("/a", b"x")
    assert w.get("/a").body == b"new"
    w.api("POST", "/purge", {"tags": ["t"]})
    assert w.get("/a").body == b"old"


def test_a_get_that_was_under_way_before_the_write_does_not_replace_its_answer(origin, weir):
    gate = origin.gate()

    def handler(req, conn):
        if req.method == "GET":
            gate.wait()
            conn.respond(200, [FRESH], b"old")
        else:
            conn.respond(200, [FRESH, ("Content-Location", "/a")], b"new")
    origin.on("/a", handler)
    w = weir()
    answers = w.parallel(1, lambda i: w.get("/a"), meanwhile=lambda: (
        origin.wait("/a", 1), w.post("/a", b"x"), gate.set()))
    assert answers[0].body == b"old"
    assert w.get("/a").body == b"new"


def test_an_answer_that_is_cut_or_too_long_is_not_stored(origin, weir):
    w = weir(cache={"max_object": "1KiB"})
    posting(origin, "/long", FRESH, ("Content-Location", "/long"), body=b"x" * 300000)
    assert len(w.post("/long", b"x").body) == 300000
    assert w.get("/long").body == b"old"

    def chunks(req, conn):
        if req.method == "GET":
            conn.respond(200, [FRESH], b"old")
            return
        conn.head(200, [FRESH, ("Content-Location", req.target)], chunked=True)
        for _ in range(20):
            conn.chunk(b"y" * 10000)
        if req.target == "/cut":
            conn.close()
        else:
            conn.end()
    origin.on("/chunks", chunks)
    assert len(w.post("/chunks", b"x").body) == 200000
    assert w.get("/chunks").body == b"old"
    origin.on("/cut", lambda q, c: c.respond(200, [FRESH], b"old") if q.method == "GET" else
              (c.head(200, [FRESH, ("Content-Location", "/cut")], length=9), c.send(b"cut"), c.close()))
    with w.client() as c:
        c.start("POST", "/cut", [("Content-Length", "0")])
        c.wire.until(b"\r\n\r\n", "the head")
        assert c.wire.to_close() == b"cut"
    assert w.get("/cut").body == b"old"
