"""What the figures and the access log say of requests: who, what, how long, and by which id."""
import json
import re
import time

import pytest

from harness import eventually


def logging(weir, tmp_path, **conf):
    return weir(log={"access": str(tmp_path / "access.log"), **conf.pop("log", {})}, **conf)


def lines(tmp_path, n):
    """The n lines of the access log in order of time: each worker writes its own as a block."""
    path = tmp_path / "access.log"
    eventually(lambda: path.read_text().count("\n") >= n, message="%d lines in the access log" % n)
    got = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(got) == n, got
    return sorted(got, key=lambda line: line["time"])


# ---- ids --------------------------------------------------------------------------------------------

def test_each_line_of_the_access_log_has_a_request_id_whatever_answered(origin, weir, tmp_path):
    origin.on("/a", body=b"x", headers=[("Cache-Control", "max-age=60")])
    w = logging(weir, tmp_path)
    with w.client() as c:
        c.get("/a")
        for given in (None, None, "abc-123", "", "a b", "x" * 129):
            r = c.get("/a", [("X-Request-Id", given)] if given is not None else [])
            assert r.cache_status.hit and r.header("X-Request-Id") is None
    got = lines(tmp_path, 7)
    assert [g["outcome"] for g in got] == ["miss"] + ["hit"] * 6
    ids = [g["request_id"] for g in got]
    assert ids[3] == "abc-123" and len(set(ids)) == 7
    assert all(re.fullmatch("[0-9a-f]{32}", i) for i in ids[:3] + ids[4:])


def test_a_hit_that_the_socket_does_not_take_at_once_is_logged_like_others(origin, weir, tmp_path):
    body = b"x" * (6 << 20)                              # more than sockets buffer
    origin.on("/big", body=body, headers=[("Cache-Control", "max-age=60")])
    w = logging(weir, tmp_path, cache={"memory": "128MiB", "max_object": "8MiB"})
    with w.client() as c:
        assert c.get("/big").body == body
        r = c.get("/big")
        assert r.cache_status.hit and r.body == body
    hit = lines(tmp_path, 2)[1]
    assert hit["outcome"] == "hit" and hit["client"] == "127.0.0.1" and hit["bytes_out"] == len(body)
    assert re.fullmatch("[0-9a-f]{32}", hit["request_id"])


# ---- refused requests -------------------------------------------------------------------------------

FIELDS = b"".join(b"X-%d: y\r\n" % i for i in range(300))


@pytest.mark.parametrize("sent,status,method,target,protocol", [
    (b"GET /a HTTP/1.1\r\nHost: x\r\nA b\r\n\r\n", 400, "GET", "/a", "HTTP/1.1"),
    (b"GET /a HTTP/1.0\r\nHost: a b\r\n\r\n", 400, "GET", "/a", "HTTP/1.0"),
    (b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n", 505, "GET", "/a", "HTTP/2.0"),
    (b"\r\nGET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, "GET", "/%zz", "HTTP/1.1"),
    (b"GET /\"\xff\x01\r\n\r\n", 400, "GET", "/\"\ufffd\x01", None),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "GET", "/" + "a" * 4091, None),
    (b"PUT /a HTTP/1.1\r\nHost: x\r\n" + FIELDS + b"\r\n", 431, "PUT", "/a", "HTTP/1.1"),
    (b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", 413, "PUT", "/a", "HTTP/1.1"),
    (b"GET /slow HTTP/1.1\r\nHost:", 408, "GET", "/slow", "HTTP/1.1"),
    (b"GET /slo", 408, "GET", "/slo", None),
    (b"GET", 408, "GET", None, None),
    (b"\x16\x03\x01\x02\x00\x01\x00 abc d\r\n\r\n", 400, None, None, None),
])
def test_a_refused_request_is_logged_with_its_client_and_what_was_read_of_it(
        origin, weir, tmp_path, sent, status, method, target, protocol):
    w = logging(weir, tmp_path, listen={"timeout": {"head": "300ms"}, "limits": {"body": "1MiB"}})
    assert w.raw(sent).startswith(b"HTTP/1.1 %d " % status)
    line, = lines(tmp_path, 1)
    assert line["client"] == "127.0.0.1" and line["status"] == status
    assert (line.get("method"), line.get("target"), line.get("protocol")) == (method, target, protocol)


def test_a_combined_line_of_what_is_no_request_has_dashes(origin, weir, tmp_path):
    w = logging(weir, tmp_path, log={"format": "combined"})
    assert w.raw(b"\0\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert w.raw(b"GET /a HTTP/3.0\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 505 ")
    text = (lambda: (tmp_path / "access.log").read_text())
    eventually(lambda: text().count("\n") == 2)
    assert text().count("127.0.0.1 - - [") == 2
    assert '"-" 400 ' in text() and '"GET /a HTTP/3.0" 505 ' in text()


# ---- tunnels ----------------------------------------------------------------------------------------

UPGRADE = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def tunnels(origin):
    def handler(req, conn):
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        while conn.sock.recv(65536):
            pass
        conn.close()
    origin.on("/ws", handler)


def only_pass(w, limit_us):
    """All requests were passes, and none took long by the figures."""
    stats = w.stats()
    outcomes = stats["routes"][0]["outcomes"]
    assert list(outcomes) == ["pass"] and outcomes["pass"]["start"]["max_us"] < limit_us
    assert all(s["start"].get("max_us", 0) < limit_us for s in stats["states"].values()), stats["states"]
    return outcomes["pass"]["start"]["count"]


def test_a_tunnel_counts_with_the_time_to_its_101_and_is_logged_with_all_of_it(origin, weir, tmp_path):
    tunnels(origin)
    w = logging(weir, tmp_path, slow="1200ms")
    with w.client() as c:
        c.send(UPGRADE)
        assert c.response().status == 101 and c.wire.take(5) == b"hello"
        c.send(b"1234567")
        time.sleep(1.5)                                  # what is tested is that it does not count
    line, = lines(tmp_path, 1)
    assert line["status"] == 101 and line["outcome"] == "pass" and line["duration_us"] > 1400000
    assert (line["bytes_in"], line["bytes_out"]) == (7, 5)
    assert only_pass(w, 1200000) == 1
    assert not w.log_has("slow:") and w.metric("weir_requests_slow_total") == 0


def test_a_tunnel_closed_because_nothing_moved_is_no_error(origin, weir, tmp_path):
    tunnels(origin)
    w = logging(weir, tmp_path, listen={"timeout": {"tunnel": "1500ms"}}, slow="1200ms")
    with w.client() as c:
        c.send(UPGRADE)
        assert c.response().status == 101 and c.wire.to_close() == b"hello"
    line, = lines(tmp_path, 1)
    assert line["outcome"] == "pass" and line["duration_us"] >= 1400000 and line["bytes_out"] == 5
    assert only_pass(w, 1200000) == 1
    assert w.metric("weir_requests_slow_total") == 0
