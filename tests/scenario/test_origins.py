"""Origins that are down, slow, rude or many: what the client gets, and what is never used again."""
import contextlib
import socket
import struct
import threading
import time

import pytest

import harness
from harness import Closed, eventually

PASS = [{"path": "/**", "policy": "pass"}]


def problem(r, status):
    assert r.status == status, (r, r.body)
    assert r.header("Content-Type") == "application/problem+json" and r.json()["status"] == status
    assert r.header("Cache-Status") is None and r.json()["detail"]
    return r


RUBBISH = {
    "no HTTP": b"rubbish\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "a bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "LF alone": b"HTTP/1.1 200 OK\nContent-Length: 1\n\na",
    "obs-fold": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 1\r\n\r\na",
    "NUL": b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 1\r\n\r\na",
    "white space before a colon": b"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50000,
    "an endless line": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 500000,
    "a flood of interim responses": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 70 + b"HTTP/1.1 200 OK\r\n"
                                    b"Content-Length: 1\r\n\r\na",
    "an interim response with a body": b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello"
                                       b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
    "a protocol nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                                   b"Upgrade: websocket\r\n\r\nabc",
    "a chunk without a size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;a\r\na\r\n0\r\n\r\n",
    "an endless chunk extension": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"
                                  + b"a" * 10000,
    "endless trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
                        + b"A: b\r\n" * 5000,
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
}


@pytest.mark.parametrize("name", RUBBISH)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_rubbish_is_a_502_and_the_connection_is_not_used_again(origin, weir, name, method):
    origin.on("/bad", raw=RUBBISH[name], close=True)
    origin.on("/good", body=b"x")
    w = weir(origin={"retry": {"attempts": 0}, "pool": {"max": 1}})
    problem(w.request(method, "/bad", body=b"x" if method == "POST" else None), 502)
    assert w.get("/good").body == b"x"
    assert origin.last("/good").conn != origin.of("/bad")[-1].conn


def test_an_origin_that_is_down_is_a_502(origin, weir):
    w = weir()
    origin.stop()
    problem(w.get("/a"), 502)
    problem(w.post("/a", b"x" * 100000), 502)
    with w.client() as c:                                   # the client's connection may stay
        problem(c.get("/a"), 502)
        problem(c.get("/a"), 502)


def test_an_origin_that_is_slow_is_a_504(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: gate.wait())
    w = weir(origin={"timeout": {"first_byte": "150ms"}})
    problem(w.get("/slow"), 504)
    problem(w.post("/slow", b"x"), 504)
    w = weir(routes=[{"path": "/**", "timeout": {"first_byte": "100ms"}}])
    problem(w.get("/slow"), 504)


def test_an_origin_that_stalls_in_the_body_breaks_the_answer_off(origin, weir):
    gate = origin.gate()

    def stall(req, conn):
        conn.head(200, length=10)
        conn.send(b"01234")
        gate.wait()
    origin.on("/stall", stall)
    for policy in ("pass", "cache-aside"):
        w = weir(origin={"timeout": {"between_bytes": "150ms"}}, routes=[{"path": "/**", "policy": policy}])
        with w.client() as c:
            with pytest.raises(Closed) as e:
                c.get("/stall")
            assert e.value.got == b"01234"


def test_an_origin_that_cannot_be_reached_is_a_504_in_time(origin, weir):
    w = weir(origin={"servers": ["http://192.0.2.1:9"], "timeout": {"connect": "150ms"}, "retry": {"attempts": 0}})
    began = time.monotonic()
    assert w.get("/a").status in (502, 504)                 # by the machine's routes: refused at once, or no answer
    assert time.monotonic() - began < 2 * harness.SLOW


MORE = {
    "a response": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                  b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "bytes": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEXTRA",
    "bytes after the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  b"2\r\nok\r\n0\r\n\r\nEXTRA",
    "bytes after a 204": b"HTTP/1.1 204 No Content\r\n\r\nEXTRA",
    "bytes where none were promised": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nEXTRA",
}
FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"


@pytest.mark.parametrize("policy", ["cache-aside", "pass"])
@pytest.mark.parametrize("name", MORE)
def test_more_than_was_promised_is_a_502_and_never_the_next_answer(origin, weir, name, policy):
    raw = MORE[name].replace(b"OK\r\n", b"OK\r\nCache-Control: max-age=60\r\n", 1)
    origin.on("/more", raw=raw)
    origin.on("/good", body=b"good")
    w = weir(origin={"pool": {"max": 1}}, routes=[{"path": "/**", "policy": policy}])
    for n in range(1, 4):
        problem(w.get("/more"), 502)
        assert origin.count("/more") == n                   # nothing was stored
        assert w.get("/good").body == b"good"
    assert len({q.conn for q in origin.of("/more")}) == 3


@pytest.mark.parametrize("name", MORE)
def test_surplus_may_be_discarded_and_its_connection_is_never_used_again(origin, weir, name):
    origin.on("/more", raw=MORE[name].replace(b"OK\r\n", b"OK\r\nCache-Control: max-age=60\r\n", 1))
    origin.on("/good", body=b"good")
    w = weir(origin={"pool": {"max": 1}, "discard_surplus": True})
    assert w.get("/more").body in (b"ok", b"")
    assert w.get("/good").body == b"good"
    assert origin.of("/more")[0].conn != origin.of("/good")[0].conn
    if "204" not in name:
        assert w.get("/more").cache_status.hit


def test_a_body_to_head_and_bytes_behind_a_304_are_502(origin, weir):
    origin.on("/head", raw=FRESH + b"Content-Length: 5\r\n\r\nhello")
    w = weir(routes=PASS)
    assert w.request("HEAD", "/head").status == 502
    origin.on("/304", raw=b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\nhello")
    problem(w.get("/304", [("If-None-Match", '"a"')]), 502)


@pytest.mark.parametrize("first", [b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
                                   b"Content-Length: 3\r\n\r\nok"])
def test_more_behind_a_body_that_is_passed_on_is_no_end_of_it(origin, weir, first):
    def more(req, conn):
        conn.send(FRESH + first)
        time.sleep(0.1)
        conn.send(b"0\r\n\r\nEXTRA" if b"chunked" in first else b"!EXTRA")
    origin.on("/more", more)
    w = weir()
    for n in (1, 2):
        with w.client() as c:
            c.start("GET", "/more")
            with contextlib.suppress(Closed):
                c.response()
            assert c.closed()
        assert origin.count("/more") == n                   # nothing was stored
    assert origin.of("/more")[0].conn != origin.of("/more")[1].conn


def test_stale_is_served_where_allowed_instead_of_more_than_was_promised(origin, weir):
    origin.on("/a", headers=[("Cache-Control", "max-age=0, stale-if-error=60")], body=b"old")
    w = weir()
    assert w.get("/a").body == b"old"
    origin.on("/a", raw=MORE["bytes"])
    assert w.get("/a").body == b"old"


def test_an_answer_that_nobody_asked_for_closes_a_pooled_connection(origin, weir):
    def late(req, conn):
        conn.respond(body=b"ok")
        threading.Timer(0.05, lambda: conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")).start()
    origin.on("/late", late)
    origin.on("/good", body=b"good")
    w = weir(workers=1, routes=PASS)
    assert w.get("/late").body == b"ok"
    time.sleep(0.15)
    assert w.get("/good").body == b"good"
    assert origin.last("/good").conn != origin.last("/late").conn


def test_connections_are_kept_and_used_again(origin, weir):
    origin.on("/a", body=b"x")
    w = weir(workers=1, routes=PASS)
    with w.client() as c:
        for _ in range(10):
            assert c.get("/a").body == b"x"
            assert c.request("POST", "/a", body=b"y").body == b"x"
    assert origin.connections == 1


@pytest.mark.parametrize("raw, kept", [
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", True),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
    (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", False),
    (b"HTTP/1.1 200 OK\r\nConnection: x, close\r\nTransfer-Encoding: chunked\r\n\r\n"
     b"2;a;b=\"c\"\r\nok\r\n0;d\r\nX-A: b\r\n\r\n", False),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a;b=\"c\"\r\nok\r\n0\r\n\r\n", True),
])
@pytest.mark.parametrize("bytewise", [False, True])
def test_a_connection_is_kept_as_the_answer_says_however_it_is_cut(origin, weir, raw, kept, bytewise):
    def answer(req, conn):
        for i in range(0, len(raw), 1 if bytewise else len(raw)):
            conn.send(raw[i:i + 1] if bytewise else raw)
            time.sleep(0.0005)
    origin.on("/a", answer)
    w = weir(workers=1, routes=PASS)
    for _ in range(3):
        r = w.get("/a")
        assert r.status == 200 and r.body == b"ok"
    assert len({q.conn for q in origin.of("/a")}) == (1 if kept else 3)


def test_an_answer_before_the_request_is_complete_is_passed_on_and_the_connection_closed(weir):
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0))))
        w = weir(origin={"servers": ["http://127.0.0.1:%d" % listener.getsockname()[1]]}, workers=1,
                 routes=PASS)
        for closes in (False, True):
            c = stack.enter_context(w.client())
            c.send(b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
            sock = listener.accept()[0]
            got = b""
            while b"x" not in got:
                got += sock.recv(65536)
            sock.sendall(early)
            r = c.response()
            assert r.status == 413 and r.body == b"big"
            if not closes:
                while sock.recv(65536):                     # Weir closes
                    pass
            sock.close()


def test_a_reset_behind_the_head_is_no_end(origin, weir):
    def cut(req, conn):
        conn.send(FRESH + (b"Content-Length: 5\r\n" if req.target == "/length" else b"") + b"\r\nhel")
        time.sleep(0.05)
        conn.reset()
    origin.on("*", cut)
    w = weir()
    for target in ("/length", "/until-close"):
        for n in (1, 2):
            with w.client() as c:
                c.start("GET", target)
                with pytest.raises(Closed):
                    c.response()
            assert origin.count(target) == n                # nothing was stored


def test_a_kept_connection_that_the_origin_closed_costs_no_error(origin, weir):
    origin.on("/a", body=b"x")
    w = weir(workers=1, routes=PASS)
    for _ in range(10):
        assert w.get("/a").body == b"x"
        origin.kill_connections()
    assert w.get("/a").status == 200


def test_an_idempotent_request_is_tried_on_another_server(origin, origins, weir):
    dead, alive = origins(), origins()
    dead.stop()
    alive.on("*", lambda req, conn: conn.respond(body=req.method.encode()))
    w = weir(origin={"servers": [dead.url, alive.url], "eject": {"errors": 0}, "retry": {"budget": "100%"}}, routes=PASS)
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        for _ in range(3):
            assert w.request(method, "/a").body == method.encode()
    for _ in range(4):                                      # never reached anybody: no harm in another try
        assert w.post("/a", b"").status in (200, 502)


def test_a_write_that_may_have_arrived_is_not_repeated(origin, origins, weir):
    one, two = origins(), origins()
    for o in (one, two):
        o.on("*", lambda req, conn: conn.reset())
    w = weir(origin={"servers": [one.url, two.url], "eject": {"errors": 0}}, routes=PASS)
    problem(w.post("/once", b"x"), 502)
    assert one.count("/once") + two.count("/once") == 1
    problem(w.get("/often"), 502)
    assert one.count("/often") + two.count("/often") == 3   # once and two further attempts


@pytest.mark.parametrize("method", ["PUT", "DELETE", "QUERY"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_idempotent_request_is_sent_again_with_its_body(origins, weir, method, chunked):
    one, two = origins(), origins()
    one.on("*", lambda req, conn: conn.reset())
    two.on("*", lambda req, conn: conn.respond(body=req.body))
    w = weir(origin={"servers": [one.url, two.url], "eject": {"errors": 0},
                     "retry": {"budget": "100%"}}, routes=PASS)
    body = bytes(range(256)) * 200                          # 51,200 bytes
    for _ in range(2):                                      # each server is the first once
        with w.client() as c:
            if chunked:
                c.start(method, "/a", [("Transfer-Encoding", "chunked")])
                c.send(b"c800\r\n" + body + b"\r\n0\r\n\r\n")
                r = c.response()
            else:
                r = c.request(method, "/a", body=body)
        assert r.status == 200 and r.body == body
    assert one.count("/a") == 1 and two.count("/a") == 2


def test_a_body_of_more_than_64_kib_is_not_sent_again(origin, weir):
    origin.on("*", lambda req, conn: conn.reset())
    w = weir(origin={"eject": {"errors": 0}}, routes=PASS)
    problem(w.request("PUT", "/little", body=b"x" * 60000), 502)
    assert origin.count("/little") == 3                     # once and two further attempts
    problem(w.request("PUT", "/large", body=b"x" * 70000), 502)
    assert origin.count("/large") == 1


def test_a_server_that_fails_is_left_out_and_comes_back(origin, origins, weir):
    one, two = origins(), origins()
    bad = threading.Event()
    bad.set()
    one.on("*", lambda req, conn: conn.reset() if bad.is_set() else conn.respond(body=b"one"))
    two.on("*", body=b"two")
    w = weir(origin={"servers": [one.url, two.url], "eject": {"errors": 2, "for": "200ms"}}, routes=PASS)
    for _ in range(12):
        assert w.get("/a").body == b"two"
    assert one.count() <= 4
    bad.clear()
    eventually(lambda: w.get("/a").body == b"one")


def test_requests_spread_over_servers(origin, origins, weir):
    several = [origins() for _ in range(3)]
    for o in several:
        o.on("*", body=b"x")
    for balance in ("round-robin", "least-connections"):
        w = weir(origin={"servers": [o.url for o in several], "balance": balance}, routes=PASS)
        before = [o.count() for o in several]
        for _ in range(30):
            w.get("/a")
        got = [o.count() - b for o, b in zip(several, before)]
        assert sum(got) == 30 and (balance != "round-robin" or min(got) >= 5), (balance, got)


def test_a_wait_for_a_connection_that_takes_too_long_is_503_with_retry_after(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: (gate.wait(), conn.respond(body=b"x")))
    origin.on("/a", body=b"y")
    w = weir(origin={"pool": {"max": 2, "wait": "150ms"}}, routes=PASS)
    with w.client() as one, w.client() as two:
        one.start("GET", "/slow")
        two.start("GET", "/slow")
        origin.wait("/slow", 2)
        for _ in range(2):
            assert problem(w.get("/a"), 503).header("Retry-After")
        gate.set()
        assert one.response().body == b"x" and two.response().body == b"x"
    assert w.get("/a").body == b"y"
    assert origin.connections <= 2


def test_a_released_connection_wakes_who_waits_whatever_worker(origin, weir):
    origin.on("/a", lambda req, conn: (time.sleep(0.01), conn.respond(body=b"x")))
    w = weir(origin={"pool": {"max": 1, "wait": "10s"}}, routes=PASS, workers=4)
    answers = w.parallel(20, lambda i: w.get("/a"))
    assert all(r.body == b"x" for r in answers) and origin.connections <= 2


def test_too_many_waiting_are_503_at_once(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: (gate.wait(), conn.respond(body=b"x")))
    w = weir(origin={"pool": {"max": 1, "wait": "10m", "waiting": 0}}, routes=PASS)
    with w.client() as c:
        c.start("GET", "/slow")
        origin.wait("/slow")
        problem(w.get("/slow"), 503)                        # long before the wait is over
        gate.set()
        assert c.response().body == b"x"


def test_stale_is_served_where_allowed_when_the_origin_fails(origin, weir):
    origin.on("/a", headers=[("Cache-Control", "max-age=0, stale-if-error=60"), ("ETag", '"1"')], body=b"old")
    w = weir(origin={"timeout": {"first_byte": "150ms"}, "retry": {"attempts": 0}})
    assert w.get("/a").body == b"old"
    gate = origin.gate()
    for how in (lambda req, conn: conn.reset(), lambda req, conn: gate.wait(), lambda req, conn: conn.respond(500),
                lambda req, conn: conn.respond(503)):
        origin.on("/a", how)
        r = w.get("/a")
        assert r.status == 200 and r.body == b"old" and r.header("Age") is not None
    origin.stop()
    assert w.get("/a").body == b"old"


def test_an_https_origin_is_verified(origin, weir, tmp_path):
    import ssl
    import subprocess
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                    "2", "-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    secure = harness.Origin()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    plain_serve = secure._serve

    def serve(sock, number):
        try:
            sock = context.wrap_socket(sock, server_side=True)
        except (OSError, ssl.SSLError):
            return
        plain_serve(sock, number)
    secure._serve = serve
    secure.on("/a", body=b"secret")
    url = secure.url.replace("http:", "https:")
    try:
        assert problem(weir(origin={"servers": [url]}, routes=PASS).get("/a"), 502)
        for tls in ({"ca_file": str(cert)}, {"verify": False}):
            assert weir(origin={"servers": [url], "tls": tls}, routes=PASS).get("/a").body == b"secret"
        assert weir(origin={"servers": [url], "tls": {"ca_file": str(cert)}, "host": "other.example"},
                    routes=PASS).get("/a").status == 502
    finally:
        secure.stop()


def test_a_write_with_an_empty_body_has_time_outs_like_any_other(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: gate.wait())
    w = weir(origin={"timeout": {"first_byte": "150ms"}})
    with w.client() as c:
        c.send(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert c.response().status == 504


def test_a_client_that_resets_its_held_back_malformed_upload_harms_nobody(origin, weir):
    gate = origin.gate()

    def hold(req, conn):
        gate.wait()
        conn.reset()
    origin.on("/hold", hold)
    w = weir(origin={"pool": {"max": 1, "wait": "300ms"}}, workers=1)
    with w.client() as holder:
        holder.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        origin.wait("/hold")
        s = socket.create_connection(("127.0.0.1", w.port))
        s.setblocking(False)
        data = b"3fa\r\n" + b"x" * 1018 + b"\r\n"
        data = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + data * 90 + b"QQQQ\r\n" * 60000
        sent, until = 0, time.monotonic() + 0.15            # as much as Weir takes before the pool's wait is over
        while sent < len(data) and time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                sent += s.send(data[sent:sent + 8192])
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        eventually(lambda: w.stats()["counters"]["pool_timeouts"] + w.stats()["counters"]["client_aborts"] >= 1)
    gate.set()
    assert w.api("GET", "/healthz").status == 200
