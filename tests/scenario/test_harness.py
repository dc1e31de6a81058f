"""The harness itself: its client and its origin must not overlook what Weir does wrong."""
import pytest

import harness
from harness import Client


def test_the_client_reads_pipelined_answers_in_order(origin):
    origin.on("/a", body=b"one")
    origin.on("/b", lambda req, conn: (conn.head(chunked=True), conn.chunk(b"two"),
                                       conn.end([("X-T", "1")])))
    with Client(origin.port) as c:
        c.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b?q HTTP/1.1\r\nHost: x\r\n\r\n")
        assert c.response().body == b"one"
        second = c.response()
        assert second.body == b"two" and second.trailers == [("X-T", "1")]
        assert c.request("POST", "/a", body=b"xyz").status == 200
    assert [r.target for r in origin.requests] == ["/a", "/b?q", "/a"]
    assert origin.last("/a").body == b"xyz"


def test_a_truncated_answer_is_noticed(origin):
    origin.on("/short", raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", close=True)
    origin.on("/reset", lambda req, conn: conn.reset())
    with Client(origin.port) as c, pytest.raises(harness.Closed) as e:
        c.get("/short")
    assert e.value.got == b"short"
    with Client(origin.port) as c, pytest.raises(harness.Closed):
        c.get("/reset")


def test_a_malformed_answer_is_refused(origin):
    origin.on("/two", raw=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
    origin.on("/fold", raw=b"HTTP/1.1 200 OK\r\nA: 1\r\n b\r\nContent-Length: 0\r\n\r\n")
    for path in ("/two", "/fold"):
        with Client(origin.port) as c, pytest.raises(harness.Malformed):
            c.get(path)


def test_answers_may_follow_one_another_and_wait_for_a_gate(origin):
    gate = origin.gate()
    origin.on("/s", [lambda q, c: (gate.wait(), c.respond(body=b"1")),
                     lambda q, c: c.respond(body=b"2")])
    with Client(origin.port) as c:
        c.start("GET", "/s")
        origin.wait("/s")
        gate.set()
        assert c.response().body == b"1"
        assert c.get("/s").body == b"2"


def test_cache_status_is_read_as_a_structured_field():
    s = harness.CacheStatus('other; hit, weir; fwd=uri-miss; fwd-status=200; stored; key="a;b, c"')
    assert s.fwd == "uri-miss" and s.stored and not s.hit and s.params["key"] == "a;b, c"
    assert harness.CacheStatus("weir; hit; ttl=-5").ttl == -5


def test_a_test_may_give_options_of_the_admin_port(weir):
    w = weir(admin={"hosts": ["ops.test"]})
    for host, status in ("ops.test", 200), ("other.test", 421):
        assert w.api("GET", "/stats", headers=[("Host", host)]).status == status
