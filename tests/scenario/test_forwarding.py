"""What passes through Weir, both ways: fields, framing, interim answers, tunnels, who the client is."""
import re
import socket
import struct
import threading
import time

import pytest

import harness
from harness import eventually

PASS = [{"path": "/**", "policy": "pass"}]


def names(message):
    return names_of(message.headers)


def names_of(fields):
    return [n.lower() for n, _ in fields]


# ---- order -------------------------------------------------------------------------------------

def test_pipelined_requests_are_answered_in_order_whatever_each_takes(origin, weir):
    gate = origin.gate()
    origin.on("/hit", headers=[("Cache-Control", "max-age=60")], body=b"hit")
    origin.on("/fast", body=b"fast")
    origin.on("/slow", lambda req, conn: (gate.wait(), conn.respond(body=b"slow")))
    w = weir()
    w.get("/hit")
    order = ["/slow", "/hit", "/fast", "/hit", "/slow", "/none", "/hit"]
    with w.client() as c:
        c.send(b"".join(b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (p.encode(), w.host.encode()) for p in order))
        origin.wait("/slow")
        gate.set()
        answers = [c.response() for _ in order]
    assert [a.body for a in answers] == [b"slow", b"hit", b"fast", b"hit", b"slow", b"no handler\n", b"hit"]


def test_a_thousand_pipelined_hits_all_come(origin, weir):
    origin.on("/hit", headers=[("Cache-Control", "max-age=60")], body=b"x" * 300)
    w = weir()
    w.get("/hit")
    with w.client() as c:
        c.send(b"GET /hit HTTP/1.1\r\nHost: %s\r\n\r\n" % w.host.encode() * 1000)
        for _ in range(1000):
            assert c.response().body == b"x" * 300
    assert origin.count("/hit") == 1


def test_pipelined_bodies_do_not_run_into_the_next_request(origin, weir):
    origin.on("/p", lambda req, conn: conn.respond(body=req.body))
    w = weir()
    one = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfirst"
    two = b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n"
    with w.client() as c:
        c.send(one + two + one + two)
        assert [c.response().body for _ in range(4)] == [b"first", b"second", b"first", b"second"]


def test_a_connection_is_kept_in_http_1_1_and_closed_when_asked(origin, weir):
    origin.on("/a", body=b"x")
    w = weir()
    with w.client() as c:
        assert c.get("/a").header("Connection") is None
        assert c.get("/a").status == 200
        last = c.get("/a", [("Connection", "close")])
        assert last.header("Connection") == "close"
        assert c.closed()


def test_http_1_0_closes_unless_asked_and_never_sees_chunks(origin, weir):
    def chunked(req, conn):
        conn.head(200, chunked=True)
        conn.chunk(b"one")
        conn.chunk(b"two")
        conn.end([("X-T", "1")])
    origin.on("/len", body=b"x")
    origin.on("/chunked", chunked)
    w = weir(routes=PASS)
    with w.client() as c:
        r = c.request("GET", "/len", version="HTTP/1.0")
        assert r.body == b"x" and r.header("Connection") == "close" and c.closed()
    with w.client() as c:
        r = c.request("GET", "/len", [("Connection", "keep-alive")], version="HTTP/1.0")
        assert r.header("Connection") == "keep-alive"
        assert c.request("GET", "/len", version="HTTP/1.0").body == b"x"
    with w.client() as c:
        r = c.request("GET", "/chunked", [("Connection", "keep-alive")], version="HTTP/1.0")
        assert r.body == b"onetwo" and r.header("Transfer-Encoding") is None
        assert r.header("Connection") == "close" and c.closed()


def test_http_1_0_without_host_is_served(origin, weir):
    origin.on("/old", body=b"x")
    w = weir()
    assert w.raw(b"GET /old HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nx")


def test_a_half_close_is_not_leaving(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: (gate.wait(), conn.respond(body=b"late")))
    origin.on("/fast", body=b"fast")
    w = weir()
    with w.client() as c:
        c.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /fast HTTP/1.1\r\nHost: x\r\n\r\n")
        c.half_close()
        origin.wait("/slow")
        gate.set()
        assert c.response().body == b"late"
        assert c.response().body == b"fast"
        assert c.closed()


def test_a_half_closed_slow_reader_gets_its_whole_answer(origin, weir):
    def chunked(req, conn):
        conn.head(200, chunked=True)
        for _ in range(64):
            conn.chunk(b"x" * 65536)
        conn.end()
    origin.on("/big", chunked)
    w = weir(routes=PASS)
    with w.client(rcvbuf=4096) as c:
        c.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        c.half_close()
        assert len(c.response().body) == 64 * 65536


# ---- Expect, interim answers, trailers ------------------------------------------------------------

def test_100_continue_comes_when_the_origin_wants_the_body(origin, weir):
    def handler(req, conn):
        conn.respond(body=req.body)
    origin.on("/up", handler)
    w = weir()
    with w.client() as c:
        c.start("POST", "/up", [("Expect", "100-continue"), ("Content-Length", "5")])
        assert c.wire.until(b"\r\n\r\n", "100").startswith(b"HTTP/1.1 100")
        c.send(b"hello")
        assert c.response().body == b"hello"
        assert c.get("/up").status == 200
    assert origin.of("/up")[0].header("Expect") == "100-continue"


def test_a_refusal_instead_of_100_continue_reaches_the_client_before_its_body(origin, weir):
    def refuse(req, conn):
        conn.respond(413, body=b"no", reason="Content Too Large")
        conn.close()
    refuse.early = True
    origin.on("/up", refuse)
    w = weir()
    with w.client() as c:
        c.start("PUT", "/up", [("Expect", "100-continue"), ("Content-Length", "5000000")])
        r = c.response()
        assert r.status == 413 and r.body == b"no" and r.interim == []
        assert c.closed()


def test_a_client_that_does_not_wait_for_100_continue_is_served(origin, weir):
    origin.on("/up", lambda req, conn: conn.respond(body=req.body))
    w = weir()
    with w.client() as c:
        for _ in range(2):
            c.start("POST", "/up", [("Expect", "100-continue"), ("Content-Length", "5")])
            c.send(b"hello")
            r = c.response()
            assert r.status == 200 and r.body == b"hello"


def test_an_http_1_0_client_gets_no_interim_answer(origin, weir):
    def hints(req, conn):
        conn.interim(103, [("Link", "</a.css>; rel=preload")])
        conn.respond(body=b"x")
    origin.on("/hints", hints)
    w = weir(routes=PASS)
    assert w.raw(b"GET /hints HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_interim_answers_pass_on(origin, weir):
    def hints(req, conn):
        conn.interim(103, [("Link", "</a.css>; rel=preload"), ("Connection", "x-hop"), ("X-Hop", "1")])
        conn.interim(102)
        conn.respond(body=b"x")
    origin.on("/hints", hints)
    for policy in ("pass", "cache-aside"):
        w = weir(routes=[{"path": "/**", "policy": policy}])
        r = w.get("/hints")
        assert r.status == 200 and [i.status for i in r.interim] == [103, 102]
        assert r.interim[0].header("Link") == "</a.css>; rel=preload"
        assert names(r.interim[0]) == ["link"]


def test_trailers_pass_both_ways(origin, weir):
    def handler(req, conn):
        conn.head(200, [("Trailer", "X-Sum")], chunked=True)
        conn.chunk(b"body")
        conn.end([("X-Sum", "42"), ("X-More", "y")])
    origin.on("/t", handler)
    w = weir(routes=PASS)
    with w.client() as c:
        c.start("POST", "/t", [("Transfer-Encoding", "chunked"), ("Trailer", "X-In")])
        c.send(b"3\r\nabc\r\n0\r\nX-In: 1\r\nX-In2: 2\r\n\r\n")
        r = c.response()
        assert r.body == b"body" and r.trailers == [("X-Sum", "42"), ("X-More", "y")]
        assert c.get("/t").trailers == r.trailers
    assert origin.of("/t")[0].body == b"abc"
    assert origin.of("/t")[0].trailers == [("X-In", "1"), ("X-In2", "2")]


def test_trailers_that_frame_or_route_do_not_pass(origin, weir):
    """RFC 9110 6.5.1: not framing, routing, authentication."""
    origin.on("/t", body=b"x")
    w = weir(routes=PASS)
    with w.client() as c:
        c.start("POST", "/t", [("Transfer-Encoding", "chunked")])
        c.send(b"0\r\nContent-Length: 9\r\nTransfer-Encoding: gzip\r\nHost: evil\r\nAuthorization: x\r\n"
               b"X_Forwarded_For: 192.0.2.1\r\nX-Ok: 1\r\n\r\n")
        assert c.response().status == 200
    assert origin.last("/t").trailers == [("X-Ok", "1")]


EDITS = {"set": {"X-Set": "ours"}, "add": {"X-Add": "more"}, "remove": ["X-Drop*"]}


def test_what_a_route_takes_away_or_sets_comes_in_no_trailer(origin, weir):
    fields = [("X-Sum", "1"), ("x-set", "theirs"), ("X-Drop-This", "2"), ("X-Add", "3"), ("X-Hop", "4")]

    def handler(req, conn):
        conn.head(200, [("Connection", "x-hop")], chunked=True)
        conn.chunk(b"x")
        conn.end(fields)
    origin.on("/t", handler)
    w = weir(routes=[{"path": "/**", "policy": "pass", "request": EDITS, "response": EDITS}])
    with w.client() as c:
        c.start("POST", "/t", [("Transfer-Encoding", "chunked"), ("Connection", "x-hop")])
        c.send(b"0\r\n" + b"".join(b"%s: %s\r\n" % (n.encode(), v.encode()) for n, v in fields) + b"\r\n")
        r = c.response()
    assert r.trailers == [("X-Sum", "1"), ("X-Add", "3")] and r.all("X-Set") == ["ours"]
    seen = origin.last("/t")
    assert seen.trailers == [("X-Sum", "1"), ("X-Add", "3")] and seen.all("X-Set") == ["ours"]


def test_a_trailer_of_one_request_alone_is_not_given_to_those_who_waited(origin, weir):
    gate = origin.gate()

    def handler(req, conn):
        conn.head(200, [("Cache-Control", 'max-age=60, private="x-mine"')], chunked=True)
        conn.chunk(b"x")
        gate.wait()
        conn.end([("X-Sum", "1"), ("X-Request-Id", "7"), ("X-Mine", "2")])
    origin.on("/t", handler)
    w = weir()
    answers = w.parallel(4, lambda i: w.get("/t"),
                         meanwhile=lambda: (eventually(lambda: w.metric("weir_collapsed_total") == 3), gate.set()))
    for r in answers:
        assert names_of(r.trailers) == (["x-sum"] if r.cache_status.collapsed else ["x-sum", "x-request-id", "x-mine"])
    assert sum(r.cache_status.collapsed for r in answers) == 3


def test_what_a_route_takes_away_or_sets_comes_in_no_interim_answer(origin, weir):
    def hints(req, conn):
        conn.interim(103, [("Link", "</a.css>; rel=preload"), ("X-Set", "theirs"), ("X-Drop-This", "1"),
                           ("Keep-Alive", "timeout=5"), ("Content-Length", "0")])
        conn.respond(body=b"x")
    origin.on("/hints", hints)
    r = weir(routes=[{"path": "/**", "response": EDITS}]).get("/hints")
    assert names(r.interim[0]) == ["link"] and r.all("X-Set") == ["ours"]


def test_head_204_and_304_have_no_body(origin, weir):
    origin.on("/h", body=b"12345")
    origin.on("/204", status=204, reason="No Content")
    origin.on("/304", status=304, headers=[("ETag", '"a"')], reason="Not Modified")
    w = weir(routes=PASS)
    with w.client() as c:
        r = c.request("HEAD", "/h")
        assert r.status == 200 and r.header("Content-Length") == "5" and r.body == b""
        r = c.get("/204")
        assert r.status == 204 and r.header("Content-Length") is None
        assert r.header("Transfer-Encoding") is None
        r = c.get("/304", [("If-None-Match", '"a"')])
        assert r.status == 304 and r.header("ETag") == '"a"'
        assert c.get("/h").body == b"12345"


NO_CACHE = [("Cache-Control", "no-cache")]      # a HEAD stays a HEAD


def test_a_length_that_is_told_for_a_body_that_is_not_sent_is_one_number(origin, weir):
    """RFC 9110 8.6: a list of the same number may pass as that number only; RFC 9112 6.2: none beside chunks."""
    for path, line, fields in (("/h", b"200 OK", b"Content-Length: 5, 5\r\ncontent-length: 5\r\n"),
                               ("/304", b"304 Not Modified", b"ETag: \"a\"\r\nContent-Length: 5, 5\r\n"),
                               ("/te", b"200 OK", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")):
        origin.on(path, raw=b"HTTP/1.1 %s\r\n%s\r\n" % (line, fields))
    for policy in ("pass", "cache-aside"):
        w = weir(routes=[{"path": "/**", "policy": policy}])
        with w.client() as c:
            assert c.request("HEAD", "/h", NO_CACHE).all("Content-Length") == ["5"]
            assert c.get("/304", [("If-None-Match", '"a"')]).all("Content-Length") == ["5"]
            assert c.request("HEAD", "/te", NO_CACHE).all("Content-Length") == []


# ---- tunnels ----------------------------------------------------------------------------------------

def echo(origin, path, frames=None):
    def handler(req, conn):
        assert req.header("Connection").lower() == "upgrade" and req.header("Upgrade") == "websocket"
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi:")
        data = conn.wire.buf
        conn.wire.buf = b""
        while True:
            if data:
                conn.sock.sendall(data.upper())
            data = conn.sock.recv(65536)
            if not data:
                break
        conn.close()
    origin.on(path, handler)


def upgrade(c, path, extra=b""):
    c.send(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" % path + extra)
    r = c.response()
    assert r.status == 101 and r.header("Upgrade") == "websocket" and r.header("Connection").lower() == "upgrade"
    assert r.header("Content-Length") is None and r.header("Transfer-Encoding") is None


def test_an_upgrade_becomes_a_tunnel(origin, weir):
    echo(origin, "/ws")
    w = weir()
    with w.client() as c:
        upgrade(c, b"/ws")
        assert c.wire.take(3) == b"hi:"
        for word in (b"abc", b"GET / HTTP/1.1\r\n\r\n", b"\0\xff" * 10):
            c.send(word)
            assert c.wire.take(len(word)) == word.upper()


def test_bytes_sent_behind_the_upgrade_and_much_data_pass_the_tunnel(origin, weir):
    echo(origin, "/ws")
    w = weir()
    with w.client() as c:
        upgrade(c, b"/ws", b"early")
        assert c.wire.take(8) == b"hi:EARLY"
        data = bytes(range(48, 58)) * 100000
        sender = threading.Thread(target=c.send, args=(data,))
        sender.start()
        assert c.wire.take(len(data)) == data
        sender.join()


def test_a_tunnel_ends_when_either_side_ends(origin, weir):
    ended = threading.Event()

    def handler(req, conn):
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        data = conn.sock.recv(10)
        if data == b"bye":
            conn.close()
        else:
            while conn.sock.recv(10):
                pass
            ended.set()
    origin.on("/ws", handler)
    w = weir()
    with w.client() as c:
        upgrade(c, b"/ws")
        c.send(b"bye")
        assert c.closed()
    with w.client() as c:
        upgrade(c, b"/ws")
        c.send(b"x")
    assert ended.wait(harness.TIMEOUT)


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
MUCH = bytes(range(48, 58)) * 100000


def rest_of(sock):
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


def test_what_the_origin_says_after_the_client_ended_passes_the_tunnel(origin, weir):
    gate, heard = origin.gate(), []

    def handler(req, conn):
        conn.send(SWITCH)
        gate.wait()                              # what the client said stands in buffers, its end behind it
        heard.append(rest_of(conn.sock))
        conn.send(MUCH)
        conn.close()
    origin.on("/ws", handler)
    w = weir()
    with w.client() as c:
        upgrade(c, b"/ws")
        sender = threading.Thread(target=lambda: (c.send(MUCH), c.half_close()))
        sender.start()
        gate.set()
        assert rest_of(c.sock) == MUCH
        sender.join()
    assert heard == [MUCH]
    eventually(lambda: w.metric("weir_origin_busy") == 0)
    assert w.metric("weir_client_aborts_total") == 0


def test_what_the_client_says_after_the_origin_ended_passes_the_tunnel(origin, weir):
    gate, heard = origin.gate(), []

    def handler(req, conn):
        conn.send(SWITCH + MUCH)
        conn.sock.shutdown(socket.SHUT_WR)
        gate.wait()
        heard.append(rest_of(conn.sock))
        conn.close()
    origin.on("/ws", handler)
    w = weir()
    with w.client() as c:
        upgrade(c, b"/ws")
        assert c.wire.to_close() == MUCH
        sender = threading.Thread(target=lambda: (c.send(MUCH), c.half_close()))
        sender.start()
        gate.set()
        sender.join()
        eventually(lambda: heard)
        assert heard == [MUCH]
    eventually(lambda: w.metric("weir_origin_busy") == 0)
    assert w.metric("weir_client_aborts_total") == 0


def test_a_half_closed_tunnel_ends_when_its_origin_takes_no_more(origin, weir):
    gone = threading.Event()

    def handler(req, conn):
        conn.send(SWITCH)
        conn.close()
        gone.set()
    origin.on("/ws", handler)
    w = weir()
    with w.client() as c:
        upgrade(c, b"/ws")
        assert gone.wait(harness.TIMEOUT) and c.wire.to_close() == b""

        def ended():
            try:
                c.send(b"x")
            except OSError:
                return True
            return w.metric("weir_origin_busy") == 0
        eventually(ended)


def test_a_client_that_ends_at_once_gets_the_whole_tunnel(origin, weir):
    echo(origin, "/ws")
    w = weir()
    with w.client() as c:
        c.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc")
        c.half_close()
        assert c.response().status == 101
        assert c.wire.to_close() == b"hi:ABC"


def test_a_tunnel_in_which_nothing_moves_is_closed_at_both_ends(origin, weir):
    ended = threading.Event()

    def handler(req, conn):
        conn.send(SWITCH)
        rest_of(conn.sock)
        ended.set()
    origin.on("/ws", handler)
    w = weir(listen={"timeout": {"tunnel": "200ms"}})
    with w.client() as c:
        upgrade(c, b"/ws")
        assert c.closed() and ended.wait(harness.TIMEOUT)
    assert w.metric("weir_tunnels_idle_total") == 1 and w.metric("weir_client_aborts_total") == 0
    eventually(lambda: w.log_has("a tunnel of 127.0.0.1 was idle for 200 ms"))


def test_a_half_closed_tunnel_in_which_nothing_moves_is_closed_too(origin, weir):
    gate = origin.gate()

    def handler(req, conn):
        conn.send(SWITCH)
        gate.wait()
    origin.on("/ws", handler)
    w = weir(listen={"timeout": {"tunnel": "200ms"}})
    with w.client() as c:
        upgrade(c, b"/ws")
        c.half_close()
        assert c.closed()
    assert w.metric("weir_tunnels_idle_total") == 1


def test_bytes_of_either_side_keep_a_tunnel_open(origin, weir):
    """For longer than its time-out; the others of the listener and of the origin have no say in it."""
    heard, pause = threading.Semaphore(0), 0.3 * min(harness.SLOW, 2)

    def handler(req, conn):
        conn.send(SWITCH)
        for _ in range(7):                       # only the origin speaks
            time.sleep(pause)
            conn.send(b"o")
        for _ in range(7):                       # only the client does
            assert conn.sock.recv(1) == b"c"
            heard.release()
        conn.close()
    origin.on("/ws", handler)
    short = "%dms" % (pause * 1000)
    w = weir(listen={"timeout": {"tunnel": "%dms" % (pause * 5000), "idle": short, "body": short, "send": short}},
             origin={"timeout": {"between_bytes": short, "first_byte": short}, "pool": {"idle": short}})
    with w.client() as c:
        upgrade(c, b"/ws")
        assert c.wire.take(7) == b"o" * 7
        for _ in range(7):
            time.sleep(pause)
            c.send(b"c")
            assert heard.acquire(timeout=harness.TIMEOUT)
        assert c.closed()
    assert w.metric("weir_tunnels_idle_total") == 0


def test_an_origin_that_does_not_switch_answers_plainly(origin, weir):
    origin.on("/ws", body=b"no")
    w = weir()
    with w.client() as c:
        c.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert c.response().body == b"no"
        assert c.get("/ws").body == b"no"
    assert "upgrade" not in names(origin.of("/ws")[1])


def test_an_upgrade_that_nobody_asked_for_is_a_bad_gateway(origin, weir):
    origin.on("/ws", raw=b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    w = weir()
    assert w.get("/ws").status == 502


def test_an_upgrade_to_something_else_is_a_bad_gateway(origin, weir):
    origin.on("/ws", raw=b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n")
    w = weir()
    with w.client() as c:
        c.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n")
        assert c.response().status == 502
    assert origin.last("/ws").header("Upgrade") == "websocket"


# ---- fields -------------------------------------------------------------------------------------------

HOPS = ["Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "TE", "X-Named", "X-Other"]


def test_hop_by_hop_fields_stop_here_both_ways(origin, weir):
    fields = [("Connection", "x-named , close,X-OTHER, keep-alive"), ("Keep-Alive", "timeout=5"),
              ("Proxy-Connection", "keep-alive"), ("Proxy-Authenticate", "a"), ("Proxy-Authorization", "b"),
              ("TE", "trailers"), ("X-Named", "1"), ("X-Other", "2"), ("X-Kept", "3")]
    origin.on("/h", headers=[f for f in fields if f[0] != "TE"], body=b"x")
    for policy in ("pass", "cache-aside"):
        w = weir(routes=[{"path": "/**", "policy": policy}])
        r = w.get("/h", fields)
        for message in (origin.last("/h"), r):
            for name in HOPS:
                assert name.lower() not in names(message), name
            assert message.header("X-Kept") == "3"
        assert r.header("Connection") == "close"


def test_connection_cannot_take_away_what_routes_frames_or_authenticates(origin, weir):
    kept = [("Authorization", "Bearer x"), ("Cookie", "a=b"), ("Content-Type", "text/plain"), ("Range", "bytes=0-"),
            ("If-None-Match", '"x"'), ("Cache-Control", "no-cache")]
    origin.on("/k", headers=[("Connection", "cache-control, etag, content-length, set-cookie, date"), ("ETag", '"e"'),
                             ("Cache-Control", "no-store"), ("Set-Cookie", "a=b")], body=b"x")
    w = weir(routes=PASS)
    r = w.request("POST", "/k", kept + [("Connection", "host, content-length, x-forwarded-for, via, cdn-loop, "
                                         + ", ".join(n for n, _ in kept))], body=b"abc")
    seen = origin.last("/k")
    for name, value in kept:
        assert seen.header(name) == value
    assert seen.body == b"abc" and seen.header("Host") and seen.header("X-Forwarded-For") == "127.0.0.1"
    for name, value in (("ETag", '"e"'), ("Cache-Control", "no-store"), ("Set-Cookie", "a=b")):
        assert r.header(name) == value
    assert r.body == b"x" and r.header("Date")


def test_the_order_and_repetition_of_fields_is_kept(origin, weir):
    sent = [("X-A", "1"), ("X-B", "2"), ("X-A", "3"), ("x-c", ""), ("X-D", "a,  b")]
    origin.on("/o", headers=sent + [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], body=b"x")
    w = weir(routes=PASS)
    r = w.get("/o", sent)
    assert [f for f in origin.last("/o").headers if f[0].lower().startswith("x-") and len(f[0]) == 3] == sent
    assert [f for f in r.headers if f[0].lower().startswith("x-") and len(f[0]) == 3] == sent
    assert r.all("Set-Cookie") == ["a=1", "b=2"]


def test_via_is_appended_both_ways(origin, weir):
    origin.on("/v", headers=[("Via", "1.1 inner")], body=b"x")
    w = weir(via="edge-1")
    r = w.get("/v", [("Via", "1.0 outer")])
    assert origin.last("/v").header("Via") == "1.0 outer, 1.1 edge-1"
    assert r.header("Via") == "1.1 inner, 1.1 edge-1"
    assert r.header("Cache-Status").startswith("edge-1;")
    assert origin.last("/v").header("CDN-Loop") == "edge-1"


def test_forwarded_fields_of_strangers_are_replaced(origin, weir):
    origin.on("/f", body=b"x")
    w = weir()
    w.get("/f", [("Host", "api.example"), ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"),
                 ("X-Forwarded-Host", "evil"), ("Forwarded", "for=6.6.6.6;proto=https")])
    seen = origin.last("/f")
    assert seen.header("Host") == "api.example"
    assert seen.header("X-Forwarded-For") == "127.0.0.1"
    assert seen.header("X-Forwarded-Proto") == "http"
    assert seen.header("X-Forwarded-Host") == "api.example"
    assert seen.header("Forwarded") == 'for=127.0.0.1;proto=http;host="api.example"'


def test_forwarded_fields_of_trusted_proxies_are_appended_to(origin, weir):
    origin.on("/f", body=b"x")
    w = weir(listen={"trust": "127.0.0.0/8"})
    w.get("/f", [("Host", "api.example"), ("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-For", "10.0.0.1"),
                 ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "public.example"),
                 ("Forwarded", "for=192.0.2.7;proto=https")])
    seen = origin.last("/f")
    assert seen.header("X-Forwarded-For") == "192.0.2.7, 10.0.0.1, 127.0.0.1"
    assert seen.header("X-Forwarded-Proto") == "https"
    assert seen.header("X-Forwarded-Host") == "public.example"
    assert seen.header("Forwarded") == 'for=192.0.2.7;proto=https, for=127.0.0.1;proto=http;host="api.example"'


def test_the_host_goes_on_unless_the_origin_names_one(origin, weir):
    origin.on("/host", body=b"x")
    weir().get("/host", [("Host", "Api.Example:80")])
    assert origin.last("/host").header("Host").lower() in ("api.example", "api.example:80")
    w = weir(origin={"host": "inner.example"})
    w.get("/host", [("Host", "api.example")])
    assert origin.last("/host").header("Host") == "inner.example"
    assert origin.last("/host").header("X-Forwarded-Host") == "api.example"


# ---- the PROXY protocol ------------------------------------------------------------------------------------

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def test_the_proxy_protocol_tells_the_client(origin, weir):
    origin.on("/p", body=b"x")
    w = weir(listen={"trust": "127.0.0.1", "proxy_protocol": True})
    v4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + struct.pack("!HH", 5, 6)
    v6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack("!HH", 5, 6)
    mapped = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7") * 2 + struct.pack("!HH", 5, 6)
    for header, client in (
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", "192.0.2.1"),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", "2001:db8::1"),
            (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
            (V2 + b"\x21\x11" + struct.pack("!H", 12) + v4, "192.0.2.1"),
            (V2 + b"\x21\x11" + struct.pack("!H", 17) + v4 + b"\x04\0\x02ab", "192.0.2.1"),
            (V2 + b"\x21\x21" + struct.pack("!H", 36) + v6, "2001:db8::1"),
            (V2 + b"\x21\x21" + struct.pack("!H", 36) + mapped, "192.0.2.7"),
            (V2 + b"\x21\x31" + struct.pack("!H", 216) + b"/run/s".ljust(216, b"\0"), "127.0.0.1"),
            (V2 + b"\x20\x00" + struct.pack("!H", 0), "127.0.0.1")):
        data = header + b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n"
        with w.client() as c:
            c.send(data)
            assert c.response().status == 200
            assert c.get("/p").status == 200            # once a connection
        assert origin.last("/p").header("X-Forwarded-For") == client
        with w.client() as c:
            for i in range(len(data)):
                c.send(data[i:i + 1])
            assert c.response().status == 200
    quoted = '"[2001:db8::1]"'
    assert any(r.header("Forwarded").startswith("for=" + quoted) for r in origin.of("/p"))


def test_whom_the_proxy_protocol_does_not_name_nobody_trusts(origin, weir):
    origin.on("/p", body=b"x")
    w = weir(listen={"trust": "127.0.0.1", "proxy_protocol": True})
    claims = (b"GET /p HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n"
              b"X-Forwarded-Host: evil\r\nConnection: close\r\n\r\n")
    for header, believed in ((b"PROXY UNKNOWN\r\n", False),
                             (V2 + b"\x21\x31\0\xd8" + b"\0" * 216, False),
                             (V2 + b"\x20\0\0\0", True)):
        w.raw(header + claims)
        q = origin.last("/p")
        assert q.header("X-Forwarded-For") == ("6.6.6.6, 127.0.0.1" if believed else "127.0.0.1")
        assert q.header("X-Real-IP") == ("6.6.6.6" if believed else None)
        assert q.header("X-Forwarded-Host") == ("evil" if believed else "a")


def test_a_routes_word_on_who_asks_is_the_only_one(origin, weir):
    edits = {"set": {"X-Forwarded-Host": "foo", "X-Forwarded-For": "1.1.1.1"},
             "remove": ["X-Forwarded-Proto", "Forwarded", "Via"]}
    w = weir(routes=[{"path": "/**", "request": edits}], listen={"trust": "127.0.0.1"})
    origin.on("/a", body=b"x")
    w.get("/a", [("X-Forwarded-Host", "evil"), ("X-Forwarded-For", "6.6.6.6")])
    q = origin.last("/a")
    assert q.all("X-Forwarded-Host") == ["foo"] and q.all("X-Forwarded-For") == ["1.1.1.1"]
    assert not q.all("X-Forwarded-Proto") and not q.all("Forwarded") and not q.all("Via")


def test_what_came_through_the_proxy_protocol_is_trusted_by_the_address_it_gave(origin, weir):
    origin.on("*", lambda req, conn: conn.respond(
        headers=[("Cache-Control", "max-age=60")], body=req.header("X-Forwarded-Proto").encode()))
    w = weir(listen={"trust": ["127.0.0.1", "192.0.2.0/24"], "proxy_protocol": True})
    for client, believed in ("203.0.113.9", False), ("192.0.2.9", True):
        path = "/" + client
        with w.client() as c:
            c.send(b"PROXY TCP4 %s 198.51.100.1 5 6\r\n" % client.encode())
            for proto in "https", "gopher":
                r = c.get(path, headers={"Host": "x", "X-Forwarded-Proto": proto, "X-Forwarded-For": "6.6.6.6",
                                         "X-Forwarded-Host": "evil", "Forwarded": "for=6.6.6.6;host=evil"})
                assert r.body == (proto.encode() if believed else b"http")
        seen = origin.of(path)
        assert len(seen) == (2 if believed else 1)      # what is not believed is not in the key
        for req in seen:
            assert req.header("X-Forwarded-For") == ("6.6.6.6, " if believed else "") + client
            assert req.header("X-Forwarded-Host") == ("evil" if believed else "x")
            assert ("evil" in req.header("Forwarded")) == believed


def test_ipv4_networks_are_trusted_in_either_spelling(origin, weir):
    origin.on("/p", body=b"x")
    for trust in "127.0.0.0/8", "::ffff:127.0.0.0/104":
        w = weir(listen={"trust": trust}, routes=[{"path": "/**", "policy": "pass"}])
        assert w.get("/p", headers={"X-Forwarded-For": "192.0.2.9"}).status == 200
        assert origin.last("/p").header("X-Forwarded-For") == "192.0.2.9, 127.0.0.1"


def test_without_the_expected_proxy_header_the_connection_ends(origin, weir):
    w = weir(listen={"trust": "127.0.0.1", "proxy_protocol": True, "timeout": {"head": "100ms"}})
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PROXY TCP4 1.2.3 4.5.6.7 1 2\r\n", b"PROXY " + b"x" * 200,
                 b"PROX", b"", V2 + b"\x31\x11\0\0", V2[:5]):
        with w.client() as c:
            c.send(data)
            assert c.closed(), data
    assert origin.count() == 0 and w.metric("weir_proxy_refused_total") == 7


@pytest.mark.parametrize("data, half, what", [
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", False, "sent no PROXY header:"),
    (b"PROXY TCP4 1.2.3 4.5.6.7 1 2\r\n", False, "sent a malformed PROXY header:"),
    (V2 + b"\x31\x11\0\0", False, "sent a malformed PROXY header:"),
    (b"", False, "sent no PROXY header in time:"), (b"PROX", False, "sent a part of a PROXY header in time:"),
    (b"PROX", True, "sent a part of a PROXY header:"),
])
def test_a_missing_proxy_header_is_logged_with_the_peer_and_the_remedy(origin, weir, data, half, what):
    w = weir(listen={"trust": "127.0.0.1", "proxy_protocol": True, "timeout": {"head": "100ms"}})
    with w.client() as c:
        c.send(data)
        if half:
            c.half_close()
        assert c.closed()
    line = harness.eventually(lambda: [x for x in w.log().split("\n") if "PROXY" in x])[0]
    assert "127.0.0.1 is in `trust` of 127.0.0.1:%d and %s closed" % (w.port, what) in line
    assert "send-proxy" in line and "proxy_protocol: false" in line


def test_a_connection_without_a_byte_is_no_missing_proxy_header(origin, weir):
    w = weir(listen={"trust": "127.0.0.1", "proxy_protocol": True})
    with w.client() as c:                       # as health checks of load balancers do
        c.half_close()
        assert c.closed()
    assert w.metric("weir_proxy_refused_total") == 0 and not w.log_has("PROXY")


def test_a_stranger_cannot_speak_the_proxy_protocol(origin, weir):
    w = weir(listen={"trust": "10.0.0.0/8", "proxy_protocol": True})
    raw = w.raw(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 400")
    assert w.get("/").status == 404 and origin.count() == 1


# ---- loops, identity, traces ---------------------------------------------------------------------------------

def test_a_loop_gets_508(origin, weir):
    w = weir(via="edge")
    origin.on("*", body=b"x")
    for field in (("Via", "1.1 edge"), ("Via", "1.1 other, 1.0 Edge (comment)"), ("CDN-Loop", "edge"),
                  ("CDN-Loop", "other; a=b, edge; x=y")):
        r = w.get("/", [field])
        assert r.status == 508 and r.header("Content-Type") == "application/problem+json", field
        assert w.request("POST", "/", [field], b"x").status == 508
    assert origin.count() == 0
    for field in (("Via", "1.1 edge2"), ("Via", "edge other"), ("CDN-Loop", "edge2")):
        assert w.get("/", [field]).status == 200, field


def test_two_with_the_default_name_stand_in_a_row_and_each_knows_itself(origin, weir):
    origin.on("/a", headers=[("Cache-Control", "max-age=60")], body=b"x")
    inner = weir()
    outer = weir(yaml="""
listen: {listen}
admin: {listen: "{admin}"}
origins: {api: {servers: "%s"}}
routes: [{path: /**, origin: api}]
""" % inner.url)
    first = outer.get("/a")
    assert first.status == 200 and outer.get("/a").cache_status.hit
    hops = origin.last("/a").header("Via").split(", ")
    assert len(set(hops)) == 2 and all(re.fullmatch("1.1 weir-[0-9a-f]{16}", h) for h in hops)
    assert first.header("Via").split(", ") == hops[::-1]
    assert origin.last("/a").header("CDN-Loop").split(", ") == [h[4:] for h in hops]
    assert first.header("Cache-Status").count("weir; ") == 2
    outer.write_config(yaml=open(outer.config).read())
    outer.reload()                              # keeps its name
    for w, hop in (outer, hops[0]), (inner, hops[1]):
        for field in ("Via", hop), ("CDN-Loop", hop[4:].upper()):
            assert w.get("/b", [field]).status == 508
        assert w.get("/b", [("Via", "1.1 weir")]).status == 404


def test_a_proxy_that_leads_to_itself_is_noticed(origin, weir):
    w = weir(yaml="""
listen: {listen}
admin: {listen: "{admin}"}
origins: {api: {servers: "http://{listen}"}}
routes: [{path: /**, origin: api}]
""")
    assert w.get("/a").status == 508


def test_a_request_id_is_taken_or_made(origin, weir):
    origin.on("/id", body=b"x")
    w = weir()
    w.get("/id", [("X-Request-Id", "abc-123")])
    assert origin.last("/id").header("X-Request-Id") == "abc-123"
    made = set()
    for bad in (None, "", "a b", "x" * 129):
        w.get("/id", [("X-Request-Id", bad)] if bad is not None else [])
        made.add(origin.last("/id").header("X-Request-Id"))
    assert len(made) == 4 and all(re.fullmatch("[0-9a-f]{32}", i) for i in made)
    origin.on("/none", lambda req, conn: conn.reset())
    r = w.get("/none", [("X-Request-Id", "abc-123")])
    assert r.status == 502 and r.header("X-Request-Id") == "abc-123"


def test_a_trace_goes_on_with_a_new_span(origin, weir):
    origin.on("/t", body=b"x")
    w = weir()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    w.get("/t", [("traceparent", trace), ("tracestate", "a=b")])
    seen = origin.last("/t").header("traceparent").split("-")
    assert seen[:2] == trace.split("-")[:2] and seen[3] == "01"
    assert re.fullmatch("[0-9a-f]{16}", seen[2]) and seen[2] != "00f067aa0ba902b7" and seen[2] != "0" * 16
    assert origin.last("/t").header("tracestate") == "a=b"
    for bad in ("junk", trace.upper(), trace + "-x", "ff" + trace[2:], trace[:-1],
                "00-" + "0" * 32 + "-00f067aa0ba902b7-01"):
        w.get("/t", [("traceparent", bad)])
        assert origin.last("/t").header("traceparent") is None, bad


# ---- routes ----------------------------------------------------------------------------------------------------

def test_routes_match_by_host_method_header_and_the_most_specific_wins(origin, weir):
    origin.on("*", body=b"x")
    routes = [{"path": "/**", "name": "rest"}, {"path": "/api/*/b", "name": "star"},
              {"path": "/api/{id}/b", "host": "a.example", "name": "host"},
              {"path": "/api/{id}/b", "host": "*.example", "name": "wild"},
              {"path": "/api/1/b", "name": "exact"}, {"path": "/m", "methods": ["POST"], "name": "post"},
              {"path": "/m", "headers": ["X-Beta"], "name": "beta"}]
    w = weir(routes=[{**r, "request": {"set": {"X-Route": r["name"]}}} for r in routes])

    def route(path, headers=(), method="GET"):
        assert w.request(method, path, headers).status == 200
        return origin.last(path).header("X-Route")
    assert route("/x") == "rest"
    assert route("/api/2/b") == "star"
    assert route("/api/1/b") == "exact"
    assert route("/api/3/b", [("Host", "a.example")]) == "host"
    assert route("/api/3/b", [("Host", "A.EXAMPLE:8080")]) == "host"
    assert route("/api/4/b", [("Host", "b.c.example")]) == "wild"
    assert route("/m", method="POST") == "post"
    assert route("/m", [("x-beta", "1")]) == "beta"
    assert route("/m") == "rest"


def test_without_a_route_there_is_404(origin, weir):
    w = weir(routes=[{"path": "/only", "methods": ["GET"]}])
    origin.on("/only", body=b"x")
    assert w.get("/only").status == 200 and w.request("HEAD", "/only").status == 200
    for method, path in (("GET", "/other"), ("POST", "/only")):
        r = w.request(method, path, body=b"abc" if method == "POST" else None)
        assert r.status == 404 and r.header("Content-Type") == "application/problem+json"
        assert r.header("Cache-Status") is None
        assert r.json()["status"] == 404
    assert origin.count() == 2


def test_fields_are_edited_and_paths_rewritten(origin, weir):
    origin.on("*", headers=[("Server", "secret"), ("X-Powered-By", "y"), ("X-One", "a"), ("Cache-Control", "max-age=60")],
              body=b"x")
    w = weir(routes=[{
        "path": "/api/**", "rewrite": {"strip": "/api", "prefix": "/v2/"},
        "request": {"set": {"X-Tenant": "t1", "Accept": "application/json"}, "add": {"X-Also": "2"}, "remove": ["X-Drop*", "Cookie"]},
        "response": {"set": {"X-One": "b"}, "add": {"X-Two": "c"}, "remove": ["Server", "x-powered-*"]}}])
    sent = [("X-Tenant", "evil"), ("Accept", "*/*"), ("X-Also", "1"), ("X-Drop-This", "1"), ("x-dropped", "2"), ("Cookie", "a=b"),
            ("X-Keep", "k")]
    for _ in range(2):                           # from the origin, then from cache
        r = w.get("/api/things/1?q=%2f", sent)
        assert r.header("Server") is None and r.header("X-Powered-By") is None
        assert r.all("X-One") == ["b"] and r.header("X-Two") == "c"
    assert r.cache_status.hit
    seen = origin.requests[-1]
    assert seen.target == "/v2/things/1?q=%2F"
    assert seen.all("X-Tenant") == ["t1"] and seen.all("Accept") == ["application/json"]
    assert seen.all("X-Also") == ["1", "2"] and seen.header("X-Keep") == "k"
    for gone in ("x-drop-this", "x-dropped", "cookie"):
        assert gone not in names(seen)
    assert w.get("/api").status == 200 and origin.requests[-1].target == "/v2"
    assert w.get("/api/").status == 200 and origin.requests[-1].target == "/v2/"


def test_slow_requests_are_logged_with_where_the_time_went(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: (gate.wait(0.15), conn.respond(body=b"x")))
    w = weir(slow="100ms")
    assert w.get("/slow?q=1").status == 200
    eventually(lambda: w.log_has("slow: GET"))
    line = [s for s in w.log().splitlines() if "slow:" in s][0]
    assert "/slow?q=1" in line and "took 1" in line and "route /**" in line and "FETCH=0.1" in line
    assert "origin " + origin.url in line and "first-byte=0.1" in line


# ---- what Connection names is nowhere seen ---------------------------------------------------------------------

def test_a_field_that_connection_names_chooses_no_variant(origin, weir):
    def tenant(req, conn):
        body = req.header("X-Tenant", "none").encode()
        conn.head(200, [("Cache-Control", "max-age=60"), ("Vary", "X-Tenant")], length=len(body))
        conn.send(body)
    origin.on("/v", tenant)
    w = weir()
    assert w.get("/v", [("X-Tenant", "victim"), ("Connection", "X-Tenant")]).body == b"none"
    assert w.get("/v", [("X-Tenant", "victim")]).body == b"victim"


def test_routes_that_fields_select_keep_their_answers_apart(origin, origins, weir):
    other = origins()
    origin.on("/a", body=b"one", headers=[("Cache-Control", "max-age=60")])
    other.on("/a", body=b"two", headers=[("Cache-Control", "max-age=60")])
    w = weir(origins={"api": {"servers": [origin.url]}, "beta": {"servers": [other.url]}},
             routes=[{"path": "/**", "headers": ["X-Beta"], "name": "beta", "origin": "beta"}, {"path": "/**"}])
    assert w.get("/a", [("X-Beta", "1")]).body == b"two"
    assert w.get("/a").body == b"one"
    assert w.get("/a", [("X-Beta", "1")]).cache_status.hit


def test_a_trusted_proxys_https_has_entries_of_its_own(origin, weir):
    def scheme(req, conn):
        body = req.header("X-Forwarded-Proto").encode()
        conn.head(200, [("Cache-Control", "max-age=60")], length=len(body))
        conn.send(body)
    origin.on("/s", scheme)
    w = weir(listen={"trust": "127.0.0.0/8"})
    assert w.get("/s", [("X-Forwarded-Proto", "http")]).body == b"http"
    assert w.get("/s", [("X-Forwarded-Proto", "https")]).body == b"https"


def test_names_with_underscores_do_not_pass_for_ours(origin, weir):
    origin.on("/u", body=b"x")
    weir().get("/u", [("X_Forwarded_For", "6.6.6.6"), ("Content_Length", "3"), ("X_Mine", "1")])
    seen = origin.last("/u")
    assert seen.header("X_Forwarded_For") is None and seen.header("Content_Length") is None
    assert seen.header("X_Mine") == "1"


def test_only_if_cached_never_reaches_the_origin(origin, weir):
    origin.on("/o", body=b"x")
    w = weir(routes=[{"path": "/**", "policy": "pass"}])
    assert w.get("/o", [("Cache-Control", "only-if-cached")]).status == 504
    assert origin.count("/o") == 0


def test_options_star_has_no_path_to_rewrite(origin, weir):
    origin.on("*", body=b"")
    w = weir(routes=[{"path": "/**", "rewrite": {"prefix": "/v1"}}])
    with w.client() as c:
        c.send(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
        c.response()
    assert origin.requests[-1].target == "*"
