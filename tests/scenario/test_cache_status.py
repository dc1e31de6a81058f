"""Cache-Status tells what was done, by RFC 9211."""
import pytest

FRESH = ("Cache-Control", "max-age=60")
AGED = [("Cache-Control", "max-age=10"), ("Age", "100"), ("ETag", '"1"')]


def test_a_miss_that_is_stored_and_then_a_hit(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH], body=b"x")
    assert w.get("/a").header("Cache-Status") in (
        "weir; fwd=uri-miss; fwd-status=200; ttl=%d; stored" % ttl for ttl in (60, 59))
    text = w.get("/a").header("Cache-Status")
    assert text in ("weir; hit; ttl=60", "weir; hit; ttl=59")


def test_each_reason_to_go_forward(origin, weir):
    w = weir(routes=[{"path": "/pass", "policy": "pass"}, {"path": "/**"}])
    for path in ("/pass", "/a"):
        origin.on(path, headers=[FRESH, ("Vary", "X-V")], body=b"x")
    origin.on("/aged", headers=AGED, body=b"x")
    assert w.get("/pass").cache_status.fwd == "bypass"
    assert w.get("/a").cache_status.fwd == "uri-miss"
    assert w.get("/a", [("X-V", "1")]).cache_status.fwd == "vary-miss"
    assert w.get("/a", [("Cache-Control", "no-cache")]).cache_status.fwd == "request"
    assert w.get("/a", [("Cache-Control", "no-store")]).cache_status.fwd == "request"
    assert w.post("/a").cache_status.fwd == "method"
    w.get("/aged")
    assert w.get("/aged").cache_status.fwd == "stale"


@pytest.mark.parametrize("headers, detail", [
    ([("Cache-Control", "no-store")], "no-store"), ([("Cache-Control", "private")], "private"),
    ([("Cache-Control", "max-age=60"), ("Vary", "*")], "vary"), ([], "no-freshness"),
    ([("Cache-Control", "no-cache")], "no-cache"),
])
def test_the_detail_says_why_an_answer_was_not_stored(origin, weir, headers, detail):
    w = weir()
    origin.on("/a", headers=headers, body=b"x")
    status = w.get("/a").cache_status
    assert status.detail == detail and not status.stored and status.params["fwd-status"] == "200"


@pytest.mark.parametrize("directive", ["max-age=0", "max-age=1", "min-fresh=100", "no-cache"])
def test_what_is_fresh_and_forbidden_by_the_request_alone_is_not_called_stale(origin, weir,
                                                                              directive):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "max-age=60"), ("Age", "10")], body=b"a")
    w.get("/a")
    assert w.get("/a", [("Cache-Control", directive)]).cache_status.fwd == "request"


def test_what_is_stale_is_called_so_whatever_the_request_says(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "max-age=60"), ("Age", "70")], body=b"a")
    w.get("/a")
    assert w.get("/a", [("Cache-Control", "max-age=1")]).cache_status.fwd == "stale"
    origin.on("/b", headers=[("Cache-Control", "max-age=60, no-cache"), ("ETag", '"b"')],
              body=b"b")
    w.get("/b")
    assert w.get("/b").cache_status.fwd == "stale"


def test_the_origins_status_is_told_and_not_ours(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, AGED, b"x"),
                     lambda q, c: c.respond(304, [FRESH, ("ETag", '"1"')], reason="Not Modified")])
    w.get("/a")
    status = w.get("/a").cache_status
    assert status.params["fwd-status"] == "304" and 0 < status.ttl <= 60


def test_errors_of_our_own_have_none(origin, weir):
    w = weir()
    origin.on("/a", lambda q, c: c.reset())
    r = w.get("/a")
    assert r.status == 502 and r.header("Cache-Status") is None
    assert w.get("/a", [("Cache-Control", "only-if-cached")]).header("Cache-Status") is None


def test_the_key_is_told_where_that_is_asked_for_without_its_secret_parts(origin, weir):
    w = weir(cache={"status_key": True}, routes=[{"path": "/**", "key": {"headers": ["X-Secret"]}}])
    origin.on("/a", headers=[FRESH], body=b"x")
    for _ in range(2):
        status = w.get("/a?q=1", [("X-Secret", "hidden")]).cache_status
        assert status.params["key"].endswith("/a?q=1") and "hidden" not in status.text
    assert status.hit
    w2 = weir()
    assert "key" not in w2.get("/a").cache_status.params


def test_the_name_can_be_chosen_and_another_caches_member_stays_in_front(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "no-store"), ("Cache-Status", "inner; hit")], body=b"x")
    text = w.get("/a").header("Cache-Status")
    assert text.startswith("inner; hit, weir; fwd=uri-miss")


def test_a_304_and_a_206_and_a_head_from_cache_are_hits(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH, ("ETag", '"1"')], body=b"hello")
    w.get("/a")
    for method, headers, status in (("GET", [("If-None-Match", '"1"')], 304), ("GET", [("Range", "bytes=0-0")], 206),
                                    ("HEAD", [], 200)):
        r = w.request(method, "/a", headers)
        assert r.status == status and r.cache_status.hit and r.cache_status.ttl > 0 and r.header("Age") is not None


def test_a_stored_answer_tells_how_long_it_will_be_fresh(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "max-age=60"), ("Age", "20")], body=b"x")
    status = w.get("/a").cache_status
    assert status.stored and 38 <= status.ttl <= 40


def test_what_is_stale_by_a_moment_has_a_negative_ttl(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, [("Cache-Control", "max-age=10, stale-if-error=60"), ("Age", "10")], b"x"),
                     lambda q, c: c.reset()])
    w.get("/a")
    status = w.get("/a").cache_status
    assert status.fwd == "stale" and status.ttl < 0 and status.detail == "stale-if-error"
    assert "fwd-status" not in status.params            # there was no answer


def test_stale_while_revalidate_is_a_hit_with_a_negative_ttl(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "max-age=10, stale-while-revalidate=60"), ("Age", "12")], body=b"x")
    w.get("/a")
    status = w.get("/a").cache_status
    assert status.hit and status.ttl < 0 and status.detail == "stale-while-revalidate" and status.fwd is None


def test_a_416_and_a_304_of_a_live_answer_have_a_status(origin, weir):
    w = weir()
    for path in ("/a", "/b"):
        origin.on(path, headers=[FRESH, ("ETag", '"1"')], body=b"hello")
    r = w.get("/a", [("If-None-Match", '"1"')])
    assert r.status == 304 and r.cache_status.fwd == "uri-miss" and r.cache_status.stored
    w.get("/b")
    r = w.get("/b", [("Range", "bytes=99-")])
    assert r.status == 416 and r.cache_status.hit


def test_a_name_that_is_no_token_of_structured_fields_is_a_string(origin, weir):
    w = weir(via="1st-edge")
    origin.on("/a", headers=[FRESH], body=b"x")
    assert w.get("/a").header("Cache-Status").startswith('"1st-edge"; fwd=uri-miss')
    assert w.get("/a").header("Cache-Status").startswith('"1st-edge"; hit')
    assert w.get("/a").header("Via").endswith("1.1 1st-edge")


def test_the_key_is_a_string_with_escapes(origin, weir):
    w = weir(cache={"status_key": True})
    origin.on("/a", headers=[FRESH], body=b"x")
    for _ in range(2):
        text = w.get('/a?q="').header("Cache-Status")
        assert 'key="http://' in text and (text.endswith('/a?q=\\""') or text.endswith('/a?q=%22"'))


def test_every_answer_of_a_pass_route_and_of_a_write_has_a_status(origin, weir):
    w = weir(routes=[{"path": "/pass/**", "policy": "pass"}, {"path": "/**"}])
    for path in ("/pass/a", "/a"):
        origin.on(path, status=503, body=b"no")
    for method, path in (("GET", "/pass/a"), ("POST", "/pass/a"), ("POST", "/a"), ("OPTIONS", "/a"), ("GET", "/a")):
        r = w.request(method, path)
        assert r.status == 503 and r.cache_status.params["fwd-status"] == "503" and not r.cache_status.stored, (method, path)
