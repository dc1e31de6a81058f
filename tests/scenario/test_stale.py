"""Stale answers where they are allowed: RFC 9111 4.2.4, RFC 5861."""
import pytest

from harness import eventually

FRESH = ("Cache-Control", "max-age=60")


def aged(cc="max-age=10", *headers):
    return [("Cache-Control", cc), ("Age", "100"), *headers]


def test_stale_while_revalidate_serves_at_once_and_validates_once_behind(origin, weir):
    w = weir(workers=2)
    gate = origin.gate()

    def handler(req, conn):
        if origin.count("/a") == 1:
            conn.respond(200, aged("max-age=10, stale-while-revalidate=1000", ("ETag", '"1"')),
                         b"old")
        else:
            gate.wait()
            conn.respond(200, [FRESH, ("ETag", '"2"')], b"new")
    origin.on("/a", handler)
    w.get("/a")
    for _ in range(5):                          # none of them waits for the gate
        r = w.get("/a")
        assert r.body == b"old" and r.cache_status.hit and r.cache_status.ttl < 0
        assert r.cache_status.detail == "stale-while-revalidate"
    origin.wait("/a", 2)
    gate.set()
    eventually(lambda: w.get("/a").body == b"new")
    assert origin.count("/a") == 2 and origin.last("/a").header("If-None-Match") == '"1"'


def test_what_is_validated_behind_is_validated_whole_with_get(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, aged("max-age=10, stale-while-revalidate=1000"),
                                            b"old"),
                     lambda q, c: c.respond(200, [FRESH], b"new")])
    w.get("/a")
    assert w.request("HEAD", "/a").header("Content-Length") == "3"
    eventually(lambda: w.get("/a", [("Cache-Control", "only-if-cached")]).body == b"new")
    assert origin.last("/a").method == "GET"
    origin.on("/b", [lambda q, c: c.respond(200, aged("max-age=10, stale-while-revalidate=1000"),
                                            b"old"),
                     lambda q, c: c.respond(200, [FRESH], b"new")])
    w.get("/b")
    assert w.get("/b", [("Range", "bytes=0-0"), ("If-None-Match", '"x"')]).body == b"o"
    eventually(lambda: w.get("/b").body == b"new")
    assert origin.last("/b").header("Range") is None
    assert origin.last("/b").header("If-None-Match") is None


def test_a_failed_validation_behind_leaves_the_stale_answer(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, aged("max-age=10, stale-while-revalidate=1000"),
                                            b"old"),
                     lambda q, c: c.respond(503, [], b"no", reason="No")])
    w.get("/a")
    assert w.get("/a").body == b"old"
    origin.wait("/a", 2)
    assert w.get("/a").body == b"old"
    origin.on("/a", headers=[FRESH], body=b"new")
    eventually(lambda: w.get("/a").body == b"new")


def test_beyond_stale_while_revalidate_the_client_waits(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, aged("max-age=10, stale-while-revalidate=5"),
                                            b"old"),
                     lambda q, c: c.respond(200, [FRESH], b"new")])
    w.get("/a")
    assert w.get("/a").body == b"new"


@pytest.mark.parametrize("cc", ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"])
def test_what_must_be_validated_is_never_served_stale(origin, weir, cc):
    w = weir(routes=[{"path": "/**", "stale_while_revalidate": "1h", "stale_if_error": "1h"}])
    origin.on("/a", [lambda q, c: c.respond(200, aged("max-age=10, " + cc, ("ETag", '"1"')),
                                            b"old"),
                     lambda q, c: c.respond(200, [FRESH], b"new")])
    w.get("/a")
    assert w.get("/a").body == b"new"
    origin.on("/b", [lambda q, c: c.respond(200, aged("max-age=10, " + cc, ("ETag", '"1"')),
                                            b"old"),
                     lambda q, c: c.reset()])
    w.get("/b")
    assert w.get("/b").status == 502


def test_a_route_allows_stale_answers_where_the_origin_says_nothing(origin, weir):
    w = weir(routes=[{"path": "/**", "stale_while_revalidate": "1h"}])
    origin.on("/a", [lambda q, c: c.respond(200, aged(), b"old"),
                     lambda q, c: c.respond(200, [FRESH], b"new")])
    w.get("/a")
    assert w.get("/a").body == b"old"
    eventually(lambda: w.get("/a").body == b"new")


def failing(how, gate=None):
    def handler(req, conn):
        if how == "reset":
            conn.reset()
        elif how == "close":
            conn.close()
        elif how == "rubbish":
            conn.send(b"rubbish\r\n\r\n")
        elif how == "slow":
            gate.wait()
        else:
            conn.respond(how, [("Cache-Control", "no-store")], b"error", reason="Error")
    return handler


@pytest.mark.parametrize("how", ["reset", "close", "rubbish", "slow", 500, 502, 503, 504])
def test_stale_if_error_serves_the_stale_answer_when_the_origin_fails(origin, weir, how):
    w = weir(routes=[{"path": "/**", "timeout": {"first_byte": "200ms"}}])
    origin.on("/a", [lambda q, c: c.respond(200, aged("max-age=10, stale-if-error=1000",
                                                 ("ETag", '"1"')), b"old"),
                     failing(how, origin.gate())])
    w.get("/a")
    for _ in range(2):
        r = w.get("/a")
        assert r.status == 200 and r.body == b"old" and r.cache_status.detail == "stale-if-error"
        assert r.cache_status.ttl < 0 and int(r.header("Age")) >= 100
    origin.on("/a", headers=[FRESH], body=b"new")
    assert w.get("/a").body == b"new"


def test_stale_if_error_serves_when_nobody_listens_any_more(origin, weir):
    w = weir(routes=[{"path": "/**", "stale_if_error": "1h"}])
    origin.on("/a", headers=aged(), body=b"old")
    w.get("/a")
    origin.stop()
    assert w.get("/a").body == b"old"
    assert w.get("/other").status == 502


@pytest.mark.parametrize("status", [400, 404, 501])
def test_an_answer_that_is_no_failure_is_not_replaced_by_a_stale_one(origin, weir, status):
    w = weir(routes=[{"path": "/**", "stale_if_error": "1h"}])
    origin.on("/a", [lambda q, c: c.respond(200, aged(), b"old"),
                     lambda q, c: c.respond(status, [("Cache-Control", "no-store")],
                                            b"no", reason="No")])
    w.get("/a")
    assert w.get("/a").status == status


@pytest.mark.parametrize("how, status", [("reset", 502), ("slow", 504), (500, 500), (503, 503)])
def test_without_leave_a_failure_is_shown(origin, weir, how, status):
    w = weir(routes=[{"path": "/**", "timeout": {"first_byte": "200ms"}}])
    origin.on("/a", [lambda q, c: c.respond(200, aged(), b"old"), failing(how, origin.gate())])
    w.get("/a")
    assert w.get("/a").status == status
    assert w.get("/a", [("Cache-Control", "stale-if-error=1000")]).body == b"old"


def test_beyond_stale_if_error_a_failure_is_shown(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, aged("max-age=10, stale-if-error=5"), b"old"),
                     failing(500)])
    w.get("/a")
    assert w.get("/a").status == 500


def test_an_error_that_could_be_stored_does_not_replace_the_stale_answer(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, aged("max-age=10, stale-if-error=1000"), b"old"),
                     lambda q, c: c.respond(503, [FRESH], b"error", reason="No")])
    w.get("/a")
    assert w.get("/a").body == b"old"
    assert w.get("/a").body == b"old" and origin.count("/a") == 3


def test_a_client_that_asks_too_often_leaves_the_stale_answer_to_the_others(origin, weir):
    w = weir()
    old = aged("max-age=10", ("ETag", '"1"'))
    origin.on("/a", [lambda q, c: c.respond(200, old, b"old"),
                     lambda q, c: c.respond(429, [("Retry-After", "9")], reason="Too Many Requests"),
                     lambda q, c: c.respond(304, [FRESH], reason="Not Modified")])
    w.get("/a")
    assert w.get("/a").status == 429
    assert w.get("/a").body == b"old" and origin.of("/a")[2].header("If-None-Match") is not None


def test_all_who_wait_for_a_failed_validation_get_the_stale_answer(origin, weir):
    w = weir(workers=2, routes=[{"path": "/**", "stale_if_error": "1h"}])
    for path, fail in (("/a", failing("reset")), ("/b", failing(503))):
        gate = origin.gate()
        origin.on(path, [lambda q, c: c.respond(200, aged(), b"old"),
                         lambda q, c, g=gate, f=fail: (g.wait(), f(q, c))])
        w.get(path)
        answers = w.parallel(6, lambda i, p=path: w.get(p), meanwhile=lambda p=path, g=gate: (
            origin.wait(p, 2), g.set()))
        assert [a.body for a in answers] == [b"old"] * 6
