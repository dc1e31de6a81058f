"""QUERY (RFC 10008): answered from the cache by its content, and taken for nothing else."""
import threading

import pytest

from harness import eventually

FRESH = ("Cache-Control", "max-age=60")
JSON = ("Content-Type", "application/json")
FORM = ("Content-Type", "application/x-www-form-urlencoded")


def echoing(origin, path, *headers, status=200):
    """Answers with the method, the content and how many requests came."""
    def handler(req, conn):
        conn.respond(status, list(headers) or [FRESH],
                     b"%s:%s:%d" % (req.method.encode(), req.body, origin.count(path)))
    origin.on(path, handler)


def query(w, path, body=b"", *headers):
    return w.request("QUERY", path, list(headers) or [JSON], body)


def test_a_query_is_answered_from_cache_by_its_content(origin, weir):
    echoing(origin, "/q")
    w = weir()
    first = query(w, "/q", b'{"a":1}')
    assert first.body == b'QUERY:{"a":1}:1'
    assert first.cache_status.fwd == "uri-miss" and first.cache_status.stored
    again = query(w, "/q", b'{"a":1}')
    assert again.cache_status.hit and again.body == first.body
    assert query(w, "/q", b'{"a":2}').body == b'QUERY:{"a":2}:2'
    assert query(w, "/q", b'{"a":1}').cache_status.hit


@pytest.mark.parametrize("headers, one, other, same", [
    ([JSON], b'{"a":1,"b":[1,2]}', b'{ "b" : [1, 2], "a": 1 }', True),
    ([JSON], b'{"a":1,"a":2}', b'{"a":2,"a":1}', False),
    ([JSON], b'{"a":1}', b'{"a":1.0}', False),
    ([FORM], b"a=1&b=2", b"b=2&a=1", True),
    ([FORM], b"a=1&a=2", b"a=2&a=1", False),
    ([("Content-Type", "text/plain")], b"a b", b"a  b", False),
    ([JSON, ("Content-Encoding", "x")], b"[1]", b"[ 1]", False),
    ([JSON, ("Cache-Control", "no-transform")], b"[1]", b"[ 1]", False),
])
def test_content_is_normalised_for_the_key_alone(origin, weir, headers, one, other, same):
    echoing(origin, "/q")
    w = weir()
    assert query(w, "/q", one, *headers).body == b"QUERY:" + one + b":1"
    assert query(w, "/q", other, *headers).cache_status.hit is same
    if not same:
        assert origin.last("/q").body == other       # sent as it came


def test_metadata_of_the_content_is_part_of_the_key(origin, weir):
    echoing(origin, "/q")
    w = weir()
    variants = [[JSON], [("Content-Type", "application/sql")], [JSON, ("Content-Language", "de")],
                [JSON, ("Content-Encoding", "x")], [JSON, ("Content-Location", "/x")]]
    for headers in variants:
        assert not query(w, "/q", b"[]", *headers).cache_status.hit
    for headers in variants:
        assert query(w, "/q", b"[]", *headers).cache_status.hit


def test_a_query_and_a_get_never_answer_each_other(origin, weir):
    echoing(origin, "/q")
    w = weir()
    assert query(w, "/q").body == b"QUERY::1"
    assert w.get("/q").body == b"GET::2"
    assert w.request("HEAD", "/q").cache_status.hit
    assert query(w, "/q").body == b"QUERY::1"
    assert w.get("/q").body == b"GET::2"


def test_a_query_purges_nothing_and_a_write_to_its_url_purges_all_its_results(origin, weir):
    echoing(origin, "/q")
    w = weir()
    w.get("/q")
    query(w, "/q", b"1")
    query(w, "/q", b"2")
    assert w.get("/q").cache_status.hit
    w.post("/q", b"x")
    assert not w.get("/q").cache_status.hit
    assert not query(w, "/q", b"1").cache_status.hit
    assert not query(w, "/q", b"2").cache_status.hit


def test_a_purge_by_url_takes_all_contents(origin, weir):
    echoing(origin, "/q")
    w = weir(routes=[{"path": "/q", "methods": ["GET"]},
                     {"path": "/**", "query": {"ignore": ["utm"]}}])
    for body in (b"1", b"2"):
        query(w, "/q?a=1&utm=2", body)
        assert query(w, "/q?a=1", body).cache_status.hit
    w.api("POST", "/purge", {"url": w.url + "/q?a=1&utm=3"})
    for body in (b"1", b"2"):
        assert not query(w, "/q?a=1", body).cache_status.hit


def test_one_question_collapses_and_others_do_not_wait_for_it(origin, weir):
    gate = origin.gate()

    def slowly(req, conn):
        if req.body == b"[1,2]":
            gate.wait()
        conn.respond(200, [FRESH], req.body)
    origin.on("/q", slowly)
    w = weir()
    bodies = [b"[1,2]"] + [b"[1, 2]"] * 9

    def meanwhile():
        origin.wait("/q", 1)
        assert query(w, "/q", b"[3]").body == b"[3]"
        eventually(lambda: w.metric("weir_collapsed_total") >= 9)
        gate.set()
    first = threading.Event()

    def ask(i):
        if i > 0:
            first.wait()
            origin.wait("/q", 1)
        else:
            first.set()
        return query(w, "/q", bodies[i])
    answers = w.parallel(10, ask, meanwhile=meanwhile)
    assert {a.body for a in answers} == {b"[1,2]"}
    assert len([r for r in origin.of("/q") if r.body != b"[3]"]) == 1


def test_a_stale_answer_is_validated_with_the_same_content(origin, weir):
    origin.on("/q", [lambda q, c: c.respond(200, [("Cache-Control", "max-age=0"), ("ETag", '"v"')], b"x"),
                     lambda q, c: c.respond(304, [FRESH, ("ETag", '"v"')])])
    w = weir()
    assert query(w, "/q", b"[1]").body == b"x"
    again = query(w, "/q", b"[ 1]")
    assert again.body == b"x" and again.cache_status.fwd == "stale"
    asked = origin.last("/q")
    assert asked.method == "QUERY" and asked.body == b"[ 1]" and asked.header("If-None-Match") == '"v"'
    assert query(w, "/q", b"[1]").cache_status.hit


def test_a_304_about_something_else_is_asked_again_with_the_content(origin, weir):
    origin.on("/q", [lambda q, c: c.respond(200, [("Cache-Control", "max-age=0"), ("ETag", '"v"')], b"x"),
                     lambda q, c: c.respond(304, [FRESH, ("ETag", '"w"')]),
                     lambda q, c: c.respond(200, [FRESH, ("ETag", '"w"')], q.body)])
    w = weir()
    query(w, "/q", b"[1]")
    assert query(w, "/q", b"[1]").body == b"[1]"
    assert [r.body for r in origin.of("/q")] == [b"[1]"] * 3


def test_a_stale_answer_is_revalidated_behind_with_the_same_content(origin, weir):
    echoing(origin, "/q", ("Cache-Control", "max-age=0, stale-while-revalidate=60"))
    w = weir()
    query(w, "/q", b"[1]")
    assert query(w, "/q", b"[1]").body == b"QUERY:[1]:1"
    assert [r.body for r in origin.wait("/q", 2)] == [b"[1]"] * 2


def test_conditions_are_judged_at_the_cache(origin, weir):
    origin.on("/q", headers=[FRESH, ("ETag", '"v"')], body=b"x")
    w = weir()
    query(w, "/q", b"[1]")
    assert query(w, "/q", b"[1]", JSON, ("If-None-Match", '"v"')).status == 304
    assert query(w, "/q", b"[1]", JSON, ("If-None-Match", '"w"')).status == 200
    assert query(w, "/q", b"[2]", JSON, ("If-None-Match", '"v"')).status == 304
    assert origin.last("/q").header("If-None-Match") is None
    assert origin.count("/q") == 2


def test_a_range_of_a_result_is_the_origins(origin, weir):
    echoing(origin, "/q")
    w = weir()
    query(w, "/q", b"[1]")
    part = query(w, "/q", b"[1]", JSON, ("Range", "bytes=0-1"))
    assert part.cache_status.fwd == "request" and part.cache_status.detail == "range"
    assert origin.last("/q").header("Range") == "bytes=0-1"


def test_content_beyond_the_limit_passes_through_uncached(origin, weir):
    echoing(origin, "/q")
    w = weir(routes=[{"path": "/**", "key": {"max_content": "1KiB"}}])
    for body in (b"x" * 1025, b"y" * 300000):
        for chunked in (False, True):
            for _ in range(2):
                if chunked:
                    half = len(body) // 2
                    data = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:half], body[half:])) + b"0\r\n\r\n"
                    r = w.request("QUERY", "/q", [JSON, ("Transfer-Encoding", "chunked")], data)
                else:
                    r = query(w, "/q", body)
                assert r.body.split(b":")[1] == body
                assert r.cache_status.fwd == "request" and r.cache_status.detail == "content-size"
                assert not r.cache_status.stored
    assert query(w, "/q", b"x" * 1024).cache_status.stored
    assert query(w, "/q", b"x" * 1024).cache_status.hit


def test_content_in_chunks_is_the_same_as_content_with_a_length(origin, weir):
    echoing(origin, "/q")
    w = weir()
    query(w, "/q", b"[1]")
    r = w.request("QUERY", "/q", [JSON, ("Transfer-Encoding", "chunked")], b"1\r\n[\r\n2\r\n1]\r\n0\r\n\r\n")
    assert r.cache_status.hit
    r = w.request("QUERY", "/q", [JSON, ("Transfer-Encoding", "chunked")],
                  b"3\r\n[1]\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert r.cache_status.detail == "trailer" and r.body == b"QUERY:[1]:2"


def test_a_client_that_expects_100_is_told_to_go_on(origin, weir):
    echoing(origin, "/q")
    w = weir()
    for _ in range(2):
        with w.client() as c:
            c.start("QUERY", "/q", [JSON, ("Expect", "100-continue"), ("Content-Length", "3")])
            assert c.wire.until(b"\r\n\r\n", "100").startswith(b"HTTP/1.1 100")
            c.send(b"[1]")
            r = c.response()
            assert r.body == b"QUERY:[1]:1"
            assert c.get("/other").status == 404     # the connection goes on
    assert r.cache_status.hit


def test_queries_are_answered_in_order_on_one_connection(origin, weir):
    echoing(origin, "/q")
    w = weir()
    with w.client() as c:
        c.send(b"".join(b"QUERY /q HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d" % i for i in range(5)))
        assert [c.response().body.split(b":")[1] for _ in range(5)] == [b"%d" % i for i in range(5)]


def test_a_client_that_leaves_within_its_content_leaves_nothing_behind(origin, weir):
    echoing(origin, "/q")
    w = weir()
    with w.client() as c:
        c.start("QUERY", "/q", [("Content-Length", "100")])
        c.send(b"half")
    with w.client() as c:
        c.start("QUERY", "/q", [("Transfer-Encoding", "chunked")])
        c.send(b"nonsense\r\n")
        assert c.response().status == 400
    assert origin.count("/q") == 0


def test_a_query_is_tried_again_when_its_connection_fails(origin, weir):
    origin.on("/q", [lambda q, c: c.reset(), lambda q, c: c.respond(200, [FRESH], q.body)])
    w = weir()
    assert query(w, "/q", b"[1]").body == b"[1]"
    assert query(w, "/q", b"[1]").cache_status.hit


def test_no_store_only_if_cached_and_pass_hold_for_queries(origin, weir):
    echoing(origin, "/q")
    w = weir(routes=[{"path": "/q"}, {"path": "/**", "policy": "pass"}])
    assert query(w, "/q", b"[1]", JSON, ("Cache-Control", "only-if-cached")).status == 504
    assert origin.count("/q") == 0
    assert not query(w, "/q", b"[1]", JSON, ("Cache-Control", "no-store")).cache_status.stored
    assert query(w, "/q", b"[1]").cache_status.stored
    assert query(w, "/q", b"[1]", JSON, ("Cache-Control", "only-if-cached")).cache_status.hit
    echoing(origin, "/p")
    assert query(w, "/p", b"[1]").cache_status.fwd == "bypass"


def test_accept_query_passes_and_is_kept(origin, weir):
    origin.on("/q", headers=[FRESH, ("Accept-Query", '"application/jsonpath"')], body=b"x")
    w = weir()
    for _ in range(2):
        assert query(w, "/q", b"[1]").header("Accept-Query") == '"application/jsonpath"'
        assert w.get("/q").header("Accept-Query") == '"application/jsonpath"'


def test_vary_tells_results_apart(origin, weir):
    origin.on("/q", lambda q, c: c.respond(200, [FRESH, ("Vary", "Accept, Content-Type")],
                                           (q.header("Accept") or "-").encode()))
    w = weir()
    for accept in ("a/b", "c/d"):
        assert query(w, "/q", b"[1]", JSON, ("Accept", accept)).body == accept.encode()
    for accept in ("a/b", "c/d"):
        assert query(w, "/q", b"[1]", JSON, ("Accept", accept)).cache_status.hit


def test_tags_are_made_of_the_content(origin, weir):
    echoing(origin, "/q")
    w = weir(routes=[{"path": "/**", "tags": ["kind:{request.body.kind}"]}])
    query(w, "/q", b'{"kind":"a"}')
    query(w, "/q", b'{"kind":"b"}')
    w.api("POST", "/purge", {"tags": ["kind:a"]})
    assert not query(w, "/q", b'{"kind":"a"}').cache_status.hit
    assert query(w, "/q", b'{"kind":"b"}').cache_status.hit


# ---- Content-Location, Location --------------------------------------------------------------

def test_the_named_resource_of_a_result_is_stored_for_get(origin, weir):
    echoing(origin, "/q", FRESH, ("Content-Location", "/results/17?x"), ("Location", "/queries/42"))
    w = weir()
    query(w, "/q", b"[1]")
    got = w.get("/results/17?x")
    assert got.cache_status.hit and got.body == b"QUERY:[1]:1"
    assert not w.get("/queries/42").cache_status.hit
    assert not w.get("/q").cache_status.hit


@pytest.mark.parametrize("headers", [
    [FRESH, ("Content-Location", "http://elsewhere.example/results/17")],
    [FRESH, ("Content-Location", "//elsewhere.example/results/17")],
    [FRESH, ("Content-Location", "/results/17"), ("Content-Location", "/results/18")],
    [FRESH, ("Content-Location", "/other/17")],                         # another route's
    [("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"), ("Content-Location", "/results/17")],
    [("Cache-Control", "max-age=60, private"), ("Content-Location", "/results/17")],
    [("Cache-Control", "max-age=60, no-cache"), ("Content-Location", "/results/17")],
])
def test_a_claim_that_cannot_be_trusted_stores_nothing_for_get(origin, weir, headers):
    echoing(origin, "/results/q", *headers)
    w = weir(routes=[{"path": "/results/**"}, {"path": "/**"}])
    query(w, "/results/q", b"[1]")
    for path in ("/results/17", "/results/18", "/other/17"):
        assert not w.get(path).cache_status.hit
    assert not w.get("/results/17", [("Host", "elsewhere.example")]).cache_status.hit


def test_a_purge_of_the_named_resource_while_it_comes_is_heeded(origin, weir):
    gate = origin.gate()

    def slowly(req, conn):
        conn.head(200, [FRESH, ("Content-Location", "/r")], length=1)
        gate.wait()
        conn.send(b"x")
    origin.on("/q", slowly)
    w = weir()
    answers = w.parallel(1, lambda i: query(w, "/q", b"[1]"), meanwhile=lambda: (
        origin.wait("/q", 1), w.api("POST", "/purge", {"url": w.url + "/r"}), gate.set()))
    assert answers[0].body == b"x"
    assert not w.get("/r").cache_status.hit
    assert query(w, "/q", b"[1]").cache_status.hit


# ---- cache_methods ---------------------------------------------------------------------------

SEARCH = {"path": "/search", "cache_methods": ["POST"]}


def test_a_post_that_the_route_promises_is_safe_is_answered_by_its_content(origin, weir):
    echoing(origin, "/search")
    w = weir(routes=[SEARCH, {"path": "/**"}])
    assert w.post("/search", b'{"a":1}', [JSON]).cache_status.stored
    assert w.post("/search", b'{ "a":1}', [JSON]).cache_status.hit
    assert not query(w, "/search", b'{"a":1}').cache_status.hit
    assert not w.get("/search").cache_status.hit
    w.post("/search", b'{"a":2}', [JSON])
    assert w.get("/search").cache_status.hit                        # nothing was purged
    assert w.post("/search", b'{"a":1}', [JSON]).cache_status.hit
    w.request("PUT", "/search", body=b"x")
    assert not w.post("/search", b'{"a":1}', [JSON]).cache_status.hit


@pytest.mark.parametrize("route, headers, stored", [
    ({}, [("ETag", '"v"'), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")], False),
    ({"ttl": "1m"}, [("ETag", '"v"')], True),
    ({"force_ttl": "1m"}, [("Cache-Control", "no-store")], True),
    ({}, [("Cache-Control", "max-age=60")], True),
    ({}, [("Cache-Control", "no-cache"), ("ETag", '"v"')], False),
    ({"stale_if_error": "1m"}, [("ETag", '"v"')], False),
])
def test_a_promised_post_is_stored_with_freshness_that_is_said(origin, weir, route, headers, stored):
    echoing(origin, "/search", *headers)
    w = weir(routes=[{**SEARCH, **route}])
    assert w.post("/search", b"[1]", [JSON]).cache_status.stored is stored
    assert w.post("/search", b"[1]", [JSON]).cache_status.hit is stored


def test_a_stale_promised_post_is_asked_anew_without_conditions(origin, weir):
    echoing(origin, "/search", ("Cache-Control", "max-age=0, stale-if-error=60"), ("ETag", '"v"'))
    w = weir(routes=[SEARCH])
    w.post("/search", b"[1]", [JSON])
    assert w.post("/search", b"[1]", [JSON]).body == b"POST:[1]:2"
    assert origin.last("/search").header("If-None-Match") is None
    origin.on("/search", status=503)
    assert w.post("/search", b"[1]", [JSON]).body == b"POST:[1]:2"


def test_a_promised_post_with_a_condition_is_the_origins(origin, weir):
    echoing(origin, "/search")
    w = weir(routes=[SEARCH])
    w.post("/search", b"[1]", [JSON])
    r = w.post("/search", b"[1]", [JSON, ("If-None-Match", "*")])
    assert r.cache_status.fwd == "request" and origin.last("/search").header("If-None-Match") == "*"


def test_without_the_promise_a_post_stays_a_write(origin, weir):
    echoing(origin, "/search")
    w = weir()
    w.get("/search")
    assert w.post("/search", b"[1]", [JSON]).cache_status.fwd == "method"
    assert not w.get("/search").cache_status.hit


def test_a_method_of_the_origins_own_may_be_promised(origin, weir):
    echoing(origin, "/search")
    w = weir(routes=[{"path": "/**", "cache_methods": ["SEARCH"]}])
    w.request("SEARCH", "/search", [JSON], b"[1]")
    assert w.request("SEARCH", "/search", [JSON], b"[1]").cache_status.hit
    w.api("POST", "/purge", {"url": w.url + "/search"})
    assert not w.request("SEARCH", "/search", [JSON], b"[1]").cache_status.hit
