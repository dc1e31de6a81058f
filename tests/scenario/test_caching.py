"""What is stored and for how long: RFC 9111 3 and 4.2, and what a route adds to it."""
import time

import pytest

from harness import eventually, http_date

FRESH = ("Cache-Control", "max-age=60")
AGED = [("Cache-Control", "max-age=10"), ("Age", "100")]        # stored, and stale at once


def twice(origin, w, headers, status=200, request=(), reason="OK"):
    """Two reads of one URL; the second answer, and how many of them the origin saw."""
    path = "/%d" % (len(origin.handlers) + 1)
    origin.on(path, status=status, headers=headers, body=b"hello" if status != 204 else b"",
              reason=reason)
    w.get(path, request)
    second = w.get(path, request)
    return second, origin.count(path)


@pytest.mark.parametrize("headers", [
    [("Cache-Control", "max-age=60")],
    [("Cache-Control", "s-maxage=60")],
    [("Cache-Control", "max-age=0, s-maxage=60")],
    [("Cache-Control", "public, max-age=60, immutable")],
    [("Cache-Control", "MAX-AGE=60")],
    [("Cache-Control", 'max-age="60"')],
    [("Cache-Control", "x-unknown=1"), ("Cache-Control", "max-age=60")],
    [("Expires", http_date(36000))],
    [("Last-Modified", http_date(-100000))],
    [("Cache-Control", "max-age=60, must-revalidate")],
    [("Cache-Control", "max-age=60, proxy-revalidate")],
    [("Cache-Control", "max-age=60"), ("Expires", "0")],
])
def test_a_fresh_answer_is_served_again_without_the_origin(origin, weir, headers):
    second, count = twice(origin, weir(), headers)
    assert count == 1 and second.body == b"hello" and second.cache_status.hit


@pytest.mark.parametrize("headers", [
    [("Cache-Control", "no-store, max-age=60")],
    [("Cache-Control", "private, max-age=60")],
    [("Cache-Control", "max-age=0")],
    [("Cache-Control", "max-age=60, s-maxage=0")],
    [("Cache-Control", "no-cache, max-age=60")],
    [("Cache-Control", "max-age=60"), ("Cache-Control", "no-store")],
    [("Expires", http_date(-10))],
    [("Expires", "0")],
    [("Expires", "tomorrow")],
    [("Cache-Control", "max-age=60"), ("Vary", "*")],
    [("Cache-Control", "max-age=-1")],
    [("Pragma", "no-cache"), ("Expires", http_date(36000))],
    [("Last-Modified", http_date(36000))],
    [],
    AGED,
])
def test_what_may_not_be_reused_is_asked_for_again(origin, weir, headers):
    second, count = twice(origin, weir(), headers)
    assert count == 2 and second.body == b"hello" and not second.cache_status.hit


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_heuristic_freshness_holds_for_the_statuses_that_http_allows(origin, weir, status):
    headers = [("Last-Modified", http_date(-100000)), ("Location", "/x")]
    second, count = twice(origin, weir(), headers, status, reason="Any")
    assert count == 1 and second.status == status and second.cache_status.hit


@pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599])
def test_other_statuses_need_explicit_freshness(origin, weir, status):
    w = weir()
    _, count = twice(origin, w, [("Last-Modified", http_date(-100000)), ("Location", "/x")], status)
    assert count == 2
    second, count = twice(origin, w, [FRESH, ("Location", "/x")], status)
    assert count == 1 and second.status == status


def test_heuristic_freshness_can_be_turned_off(origin, weir):
    w = weir(routes=[{"path": "/**", "heuristic": False}])
    assert twice(origin, w, [("Last-Modified", http_date(-100000))])[1] == 2
    assert twice(origin, w, [FRESH])[1] == 1


def test_an_answer_to_a_request_with_no_store_is_not_stored(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH], body=b"hello")
    first = w.get("/a", [("Cache-Control", "no-store")])
    assert first.cache_status.fwd == "request" and not first.cache_status.stored
    w.get("/a")
    assert origin.count("/a") == 2


def test_a_stored_204_has_neither_content_nor_a_length(origin, weir):
    second, count = twice(origin, weir(), [FRESH], 204)
    assert count == 1 and second.cache_status.hit
    assert second.header("Content-Length") is None and second.header("Transfer-Encoding") is None


def test_a_chunked_answer_is_stored_whole_and_served_with_its_length(origin, weir):
    w = weir()

    def chunked(req, conn):
        conn.head(200, [FRESH], chunked=True)
        conn.chunk(b"one,")
        conn.chunk(b"two")
        conn.end([("X-Trailer", "1")])
    origin.on("/c", chunked)
    assert w.get("/c").body == b"one,two"
    second = w.get("/c")
    assert second.body == b"one,two" and second.header("Content-Length") == "7"
    assert second.cache_status.hit and not second.trailers


def test_an_answer_until_the_close_is_stored_when_nothing_was_promised(origin, weir):
    w = weir()
    origin.on("/c", raw=b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"
              b"Connection: close\r\n\r\nall", close=True)
    assert w.get("/c").body == b"all"
    assert w.get("/c").body == b"all"


def test_an_empty_answer_is_stored(origin, weir):
    w = weir()
    origin.on("/e", headers=[FRESH], body=b"")
    w.get("/e")
    second = w.get("/e")
    assert second.cache_status.hit and second.body == b"" and second.header("Content-Length") == "0"


def test_a_stored_answer_says_its_age_which_counts_what_it_had_already(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "max-age=600"), ("Age", "100")], body=b"x")
    assert w.get("/a").header("Age") == "100"
    second = w.get("/a")
    assert 100 <= int(second.header("Age")) <= 102
    assert 497 <= second.cache_status.ttl <= 500


def test_a_date_in_the_past_makes_an_answer_older(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "max-age=600"), ("Date", http_date(-100))],
              body=b"x")
    w.get("/a")
    assert 99 <= int(w.get("/a").header("Age")) <= 103
    origin.on("/b", headers=[("Cache-Control", "max-age=60"), ("Date", http_date(-100))], body=b"x")
    w.get("/b")
    assert not w.get("/b").cache_status.hit


def test_fields_that_belong_to_one_exchange_are_not_replayed(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH, ("Connection", "X-Hop"), ("X-Hop", "1"), ("X-End", "1"),
                             ("Keep-Alive", "timeout=5"), ("Set-Cookie", "sid=secret"),
                             ("Proxy-Authenticate", "Basic")], body=b"x")
    first = w.get("/a")
    assert first.header("Set-Cookie") == "sid=secret"
    assert first.header("X-Hop") is None and first.header("X-End") == "1"
    second = w.get("/a")
    assert second.cache_status.hit and second.header("X-End") == "1"
    for name in ("X-Hop", "Keep-Alive", "Set-Cookie", "Proxy-Authenticate"):
        assert second.header(name) is None, name


def test_what_an_origin_says_of_one_exchange_is_told_to_its_client_alone(origin, weir):
    w = weir()
    fields = [("Server-Timing", "db;dur=53"),
              ("traceresponse", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
              ("RateLimit", '"d";r=50;t=30'), ("RateLimit-Policy", '"d";q=100;w=60'),
              ("RateLimit-Remaining", "50"), ("X-RateLimit-Remaining", "50"),
              ("X-Rate-Limit-Reset", "9"), ("Clear-Site-Data", '"cache"'), ("Set-Cookie", "a=b")]
    origin.on("/a", headers=[FRESH, ("ETag", '"1"'), *fields], body=b"x")
    first, second = w.get("/a"), w.get("/a")
    assert second.cache_status.hit
    for name, value in fields:
        assert first.header(name) == value and second.header(name) is None, name


def test_a_304_tells_its_client_what_is_for_it_alone(origin, weir):
    w = weir()
    one = [("Cache-Control", "max-age=0"), ("ETag", '"1"')]
    origin.on("/a", [lambda q, c: c.respond(200, one, b"x"),
                     lambda q, c: c.respond(304, one + [("Set-Cookie", "a=b"), ("Server-Timing", "t")], b""),
                     lambda q, c: c.respond(304, one, b"")])
    w.get("/a")
    second, third = w.get("/a"), w.get("/a")
    assert second.header("Set-Cookie") == "a=b" and second.header("Server-Timing") == "t"
    assert third.header("Set-Cookie") is None and third.header("Server-Timing") is None


def test_a_route_may_replay_fields_of_one_exchange(origin, weir):
    w = weir(routes=[{"path": "/**", "response": {"replay": ["Set-Cookie"]}}])
    origin.on("/a", headers=[FRESH, ("Set-Cookie", "a=b"), ("Server-Timing", "t")], body=b"x")
    w.get("/a")
    r = w.get("/a")
    assert r.cache_status.hit and r.header("Set-Cookie") == "a=b"
    assert r.header("Server-Timing") is None


def test_the_cache_status_of_caches_behind_is_kept_in_front_of_ours(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH, ("Cache-Status", "Origin; hit; ttl=9")], body=b"x")
    w.get("/a")
    lines = w.get("/a").all("Cache-Status")
    assert lines[0] == "Origin; hit; ttl=9" and lines[1].startswith("weir; hit")


def test_fields_named_by_private_and_no_cache_are_not_replayed(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control",
                              'max-age=60, private="x-mine, x-too", no-cache=x-also'),
                             ("X-Mine", "1"), ("X-Too", "1"), ("X-Also", "1"), ("X-Ours", "1")],
                             body=b"x")
    assert w.get("/a").header("X-Mine") == "1"
    second = w.get("/a")
    assert second.cache_status.hit and second.header("X-Ours") == "1"
    for name in ("X-Mine", "X-Too", "X-Also"):
        assert second.header(name) is None, name


def test_a_head_is_answered_from_a_stored_get_with_its_length(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH, ("X-A", "1")], body=b"hello")
    w.get("/a")
    r = w.request("HEAD", "/a")
    assert r.cache_status.hit and r.header("Content-Length") == "5" and r.header("X-A") == "1"
    assert origin.count("/a") == 1


def test_a_head_that_finds_nothing_asks_with_get_and_fills_the_cache(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH, ("ETag", '"1"')], body=b"hello")
    first = w.request("HEAD", "/a", [("Range", "bytes=1-2")])
    assert first.status == 200 and first.header("Content-Length") == "5" and first.body == b""
    assert first.cache_status.fwd == "uri-miss" and first.cache_status.stored
    eventually(lambda: w.request("HEAD", "/a").cache_status.hit)
    assert w.get("/a").body == b"hello"
    assert [(r.method, r.header("Range")) for r in origin.of("/a")] == [("GET", None)]


def test_a_head_of_what_is_stale_validates_it(origin, weir):
    w = weir()
    origin.on("/a", [lambda req, conn: conn.respond(200, AGED + [("ETag", '"1"')], b"hello"),
                     lambda req, conn: conn.respond(304, [FRESH, ("ETag", '"1"')])])
    w.get("/a")
    r = w.request("HEAD", "/a")
    assert r.status == 200 and r.header("Content-Length") == "5"
    assert r.cache_status.params["fwd-status"] == "304"
    assert origin.of("/a")[1].header("If-None-Match") == '"1"'
    assert w.get("/a").cache_status.hit


@pytest.mark.parametrize("headers, body, changed", [
    ([("ETag", '"1"')], b"hello", False), ([("ETag", '"2"')], b"hello", True),
    ([("ETag", '"1"')], b"hello!", True), ([], b"hello", False),
    ([("Last-Modified", http_date(-5))], b"hello", True),
], ids=["the same", "another tag", "another length", "no validator", "a date it did not have"])
def test_a_head_that_shows_a_change_makes_what_is_stored_stale(origin, weir, headers, body,
                                                              changed):
    """RFC 9111 4.3.5."""
    w = weir()
    origin.on("/a", [lambda req, conn: conn.respond(200, [FRESH, ("ETag", '"1"')], b"hello"),
                     lambda req, conn: conn.respond(200, [FRESH] + headers, body)])
    w.get("/a")
    r = w.request("HEAD", "/a", [("Cache-Control", "no-cache")])
    assert [q.method for q in origin.of("/a")] == ["GET", "HEAD"] and r.body == b""
    after = w.get("/a").cache_status
    assert after.fwd == "stale" if changed else after.hit


def test_a_head_of_what_is_not_stored_stays_a_head_and_does_not_wait_for_the_body(origin, weir):
    w = weir(cache={"max_object": "1MiB"})
    gate = origin.gate()

    def handler(req, conn):
        conn.head(200, [FRESH], length=8 << 20)
        if req.method == "GET":
            conn.send(b"x" * (1 << 20))
            gate.wait()
    origin.on("/big", handler)
    for method in ("GET", "HEAD", "HEAD"):
        r = w.request("HEAD", "/big")
        assert r.header("Content-Length") == str(8 << 20) and not r.cache_status.stored
        assert origin.of("/big")[-1].method == method
    eventually(lambda: w.metric("weir_flights_now") == 0)
    assert w.request("HEAD", "/other", [("Cache-Control", "no-cache")]).status == 404
    assert origin.of("/other")[-1].method == "HEAD"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "X-FOO"])
def test_answers_to_other_methods_are_neither_stored_nor_served_from_cache(origin, weir, method):
    w = weir()
    origin.on("/a", headers=[FRESH], body=b"hello")
    w.get("/a")
    assert w.request(method, "/a").cache_status.fwd == "method"
    w.request(method, "/a")
    assert [r.method for r in origin.of("/a")] == ["GET", method, method]


def test_an_answer_larger_than_max_object_streams_through_and_is_not_stored(origin, weir):
    w = weir(routes=[{"path": "/**", "max_object": "10KiB"}])
    body = bytes(range(256)) * 400
    origin.on("/known", headers=[FRESH], body=body)

    def unknown(req, conn):
        conn.head(200, [FRESH], chunked=True)
        for at in range(0, len(body), 1000):
            conn.chunk(body[at:at + 1000])
        conn.end()
    origin.on("/unknown", unknown)
    for path in ("/known", "/unknown"):
        assert w.get(path).body == body
        second = w.get(path)
        assert second.body == body and not second.cache_status.hit
        assert origin.count(path) == 2
    assert w.get("/known").cache_status.detail == "size"


def test_an_answer_of_exactly_max_object_is_stored(origin, weir):
    w = weir(routes=[{"path": "/**", "max_object": "10KiB"}])
    origin.on("/a", headers=[FRESH], body=b"x" * 10240)
    w.get("/a")
    assert w.get("/a").cache_status.hit


def test_an_answer_that_sets_a_cookie_is_stored_only_when_its_freshness_is_said(origin, weir):
    w = weir(routes=[{"path": "/forced", "force_ttl": "1m"}, {"path": "/**", "ttl": "1m"}])
    cookie = ("Set-Cookie", "sid=secret")
    for path, headers, stored in (("/silent", [cookie], False), ("/said", [cookie, FRESH], True),
                                  ("/public", [cookie, ("Cache-Control", "public")], True),
                                  ("/forced", [cookie], True), ("/none", [], True)):
        origin.on(path, headers=headers, body=b"x")
        first, second = w.get(path), w.get(path)
        assert first.cache_status.stored == stored and second.cache_status.hit == stored, path
        assert first.header("Set-Cookie") == (cookie[1] if cookie in headers else None)
        if stored:
            assert second.header("Set-Cookie") is None
        else:
            assert first.cache_status.detail == "set-cookie"


def test_what_the_store_would_refuse_is_not_called_stored(origin, weir):
    body = b"x" * 130000                        # more than an eighth of the memory
    for keys in ({}, {"routes": [{"path": "/**", "max_object": "1MiB"}]}):
        w = weir(cache={"memory": "1MiB"}, **keys)
        origin.on("/a", headers=[FRESH], body=body)
        for _ in range(2):
            status = w.get("/a").cache_status
            assert not status.hit and not status.stored and status.detail == "size"
        origin.on("/b", headers=[FRESH], body=body[:110000])
        assert w.get("/b").cache_status.stored
        assert w.get("/b").cache_status.hit


def test_a_large_answer_is_served_from_cache_byte_for_byte(origin, weir):
    w = weir(routes=[{"path": "/**", "max_object": "8MiB"}], cache={"memory": "64MiB"})
    body = bytes(range(251)) * 20000
    origin.on("/a", headers=[FRESH], body=body)
    assert w.get("/a").body == body
    with w.client(rcvbuf=4096) as c:
        second = c.get("/a")
        assert second.body == body and second.cache_status.hit
        assert c.get("/a").body == body
    assert origin.count("/a") == 1


# ---- what a route adds -------------------------------------------------------------------------

def test_a_routes_ttl_holds_where_the_origin_says_nothing(origin, weir):
    w = weir(routes=[{"path": "/**", "ttl": "5m"}])
    second, count = twice(origin, w, [])
    assert count == 1 and 295 <= second.cache_status.ttl <= 300
    assert twice(origin, w, [("Last-Modified", http_date(-10))])[0].cache_status.ttl > 200
    assert twice(origin, w, [("Cache-Control", "max-age=7")])[0].cache_status.ttl <= 7


@pytest.mark.parametrize("said", ["private", "no-store", "no-cache", "s-maxage=0", "max-age=0"])
def test_a_routes_ttl_does_not_contradict_the_origin(origin, weir, said):
    w = weir(routes=[{"path": "/**", "ttl": "5m"}])
    assert twice(origin, w, [("Cache-Control", said)])[1] == 2


def test_a_routes_ttl_does_not_share_what_was_authorized(origin, weir):
    w = weir(routes=[{"path": "/**", "ttl": "5m"}])
    assert twice(origin, w, [], request=[("Authorization", "Bearer a")])[1] == 2


def test_a_named_ttl_is_the_one_of_the_table(origin, weir):
    w = weir(ttl={"long": "2h"}, routes=[{"path": "/**", "ttl": "long"}])
    assert twice(origin, w, [])[0].cache_status.ttl > 7000


@pytest.mark.parametrize("said",
                         ["private", "no-store", "no-cache", "s-maxage=0", "max-age=1000000"])
def test_force_ttl_overrides_what_the_origin_says(origin, weir, said):
    w = weir(routes=[{"path": "/**", "force_ttl": "1m"}])
    second, count = twice(origin, w, [("Cache-Control", said)])
    assert count == 1 and second.cache_status.hit and second.cache_status.ttl <= 60


def test_a_pass_route_stores_nothing(origin, weir):
    w = weir(routes=[{"path": "/**", "policy": "pass"}])
    second, count = twice(origin, w, [FRESH])
    assert count == 2 and second.cache_status.fwd == "bypass"


def test_routes_of_one_path_do_not_share_what_their_keys_tell_apart(origin, weir):
    w = weir(routes=[{"path": "/**", "key": {"headers": ["X-Tenant"]}}])
    origin.on("/a", lambda q, c: c.respond(headers=[FRESH],
                                           body=q.header("X-Tenant", "none").encode()))
    for tenant in ("a", "b", "a", "b"):
        assert w.get("/a", [("X-Tenant", tenant)]).body == tenant.encode()
    assert origin.count("/a") == 2
    assert w.get("/a").body == b"none"


def test_a_cookie_can_be_part_of_the_key_without_the_others(origin, weir):
    w = weir(routes=[{"path": "/**", "key": {"cookies": ["lang"]}}])
    origin.on("/a", lambda q, c: c.respond(headers=[FRESH], body=q.header("Cookie", "-").encode()))
    assert w.get("/a", [("Cookie", "sid=1; lang=de")]).body == b"sid=1; lang=de"
    assert w.get("/a", [("Cookie", "lang=de; sid=2")]).cache_status.hit
    assert not w.get("/a", [("Cookie", "lang=fr; sid=2")]).cache_status.hit


# ---- keys --------------------------------------------------------------------------------------

@pytest.mark.parametrize("one, other", [
    ("/a/b", "/a/./b"), ("/a/b", "/a/x/../b"), ("/%7Eme", "/~me"), ("/a%2fb", "/a%2Fb"),
    ("/a?", "/a?"),
])
def test_targets_that_uri_syntax_calls_equivalent_share_an_entry(origin, weir, one, other):
    w = weir()
    origin.on("*", headers=[FRESH], body=b"x")
    w.get(one)
    assert w.get(other).cache_status.hit


@pytest.mark.parametrize("one, other", [
    ("/a", "/A"), ("/a", "/a/"), ("/a/b", "/a//b"), ("/a/b", "/a%2Fb"),
    ("/a?x=1&y=2", "/a?y=2&x=1"),
    ("/a", "/a?"), ("/a?x", "/a?x="), ("/a?b=1", "/a?B=1"), ("/a?x=+", "/a?x=%20"),
    ("/a?x=1", "/a?x=1&"),
])
def test_targets_that_the_origin_could_tell_apart_do_not(origin, weir, one, other):
    w = weir()
    origin.on("*", lambda q, c: c.respond(headers=[FRESH], body=q.target.encode()))
    assert w.get(one).body == one.encode()
    assert w.get(other).body == other.encode()


def test_hosts_do_not_share_entries_and_their_case_does_not_matter(origin, weir):
    w = weir()
    origin.on("/a", lambda q, c: c.respond(headers=[FRESH], body=q.header("Host").encode()))
    assert w.get("/a", [("Host", "one.example")]).body == b"one.example"
    assert w.get("/a", [("Host", "two.example")]).body == b"two.example"
    assert w.get("/a", [("Host", "ONE.example")]).cache_status.hit


@pytest.mark.parametrize("rule, one, other", [
    ({"ignore": ["utm_*"]}, "/a?x=1&utm_source=q", "/a?x=1"),
    ({"keep": ["x"]}, "/a?x=1&y=2", "/a?z=3&x=1"),
    ({"sort": True}, "/a?x=1&y=2", "/a?y=2&x=1"),
    ({"ignore": ["*"]}, "/a?x", "/a"),
])
def test_a_routes_query_rules_make_entries_one(origin, weir, rule, one, other):
    w = weir(routes=[{"path": "/**", "query": rule}])
    origin.on("*", headers=[FRESH], body=b"x")
    w.get(one)
    assert w.get(other).cache_status.hit


ITEMS = b'{"items": [{"id": 1}]}'

def at_once(conn, headers, body):
    """Head and body in one packet: the answer is complete when its head is passed on."""
    lines = "".join("%s: %s\r\n" % h for h in [FRESH, *headers, ("Content-Length", len(body))])
    conn.send(b"HTTP/1.1 200 OK\r\n%s\r\n%s" % (lines.encode(), body))


TAGGED = {"routes": [{"path": "/**", "name": "tagged", "tags": ["id:{response.body.items[].id}"]}]}


@pytest.mark.parametrize("headers, body, chunked", [
    ([("Content-Encoding", "gzip")], ITEMS, False),
    ([], b'{"pad": "%s"}' % (b"x" * 70000), False),
    ([], b'{"pad": "%s"}' % (b"x" * 70000), True),
    ([], b"<html>", False), ([], b"<html>", True),
    ([], b'{"items": [%s]}' % b",".join(b'{"id": %d}' % i for i in range(257)), False),
], ids=["coded", "too long", "chunked and too long", "no JSON", "chunked and no JSON", "too many"])
def test_what_is_not_stored_for_want_of_its_tags_is_not_called_stored(origin, weir, headers, body,
                                                                     chunked):
    w = weir(**TAGGED)

    def handler(req, conn):
        if not chunked:
            return at_once(conn, headers, body)
        conn.head(200, [FRESH] + headers, chunked=True)
        conn.chunk(body[:3])
        time.sleep(0.05)
        conn.chunk(body[3:])
        conn.end()
    origin.on("/a", handler)
    answers = [w.get("/a") for _ in range(3)]
    assert origin.count("/a") == 3 and all(a.body == body for a in answers)
    assert not any(a.cache_status.stored for a in answers)
    eventually(lambda: w.metric("weir_cache_store_untagged_total") == 3)
    assert w.api("GET", "/explain?url=http://%s/a" % w.host).json()["answer"] == "pass"
    assert w.log().count("route tagged: the tags of /a cannot be made") == 1
    if not chunked:
        assert all(a.cache_status.detail == "tags" for a in answers)


@pytest.mark.parametrize("chunked", [False, True])
def test_what_its_body_gives_tags_to_is_stored_and_called_so_when_that_is_known(origin, weir,
                                                                               chunked):
    w = weir(**TAGGED)
    gate = origin.gate()

    def handler(req, conn):
        if not chunked:
            return at_once(conn, [("Content-Encoding", "identity")], ITEMS)
        conn.head(200, [FRESH], chunked=True)
        conn.chunk(ITEMS[:3])
        gate.wait()
        conn.chunk(ITEMS[3:])
        conn.end()
    origin.on("/a", handler)
    c = w.client()
    c.start("GET", "/a")
    if chunked:
        origin.wait("/a")
        time.sleep(0.1)
    gate.set()
    first = c.response()
    c.close()
    assert first.body == ITEMS and first.cache_status.stored == (not chunked)
    eventually(lambda: w.get("/a").cache_status.hit)
    w.purge(tags=["id:1"])
    assert not w.get("/a").cache_status.hit
