"""Limits and time-outs of a listener: what is over them is told so, and harms nobody else."""
import re
import select
import socket
import time

import harness
from harness import Client, eventually


def refused(raw, status):
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", raw)
    assert found and int(found[1]) == status, raw[:200]
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert len(body) == int(re.search(rb"Content-Length: (\d+)", head)[1])


def with_head(n):
    """A request whose head is n bytes."""
    start = b"GET / HTTP/1.1\r\nHost: x\r\nA: "
    return start + b"a" * (n - len(start) - 4) + b"\r\n\r\n"


def test_a_head_over_its_limit_is_431(origin, weir):
    origin.on("/", body=b"x")
    w = weir(listen={"limits": {"head": "2KiB", "uri": "1KiB"}})
    with w.client() as c:
        c.send(with_head(2048))
        assert c.response().status == 200
    refused(w.raw(with_head(2049)), 431)
    refused(w.raw(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 400), 431)
    refused(w.raw(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100000), 431)      # without an end
    assert origin.count() == 1


def test_too_many_fields_are_431(origin, weir):
    origin.on("/", body=b"x")
    w = weir(listen={"limits": {"headers": 10}})
    fields = [("A", "b")] * 9
    assert w.get("/", fields).status == 200
    refused(w.raw(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10 + b"\r\n"), 431)
    assert origin.count() == 1


def test_a_target_over_its_limit_is_414(origin, weir):
    origin.on("*", body=b"x")
    w = weir(listen={"limits": {"uri": "100"}})
    assert w.get("/" + "a" * 99).status == 200
    refused(w.raw(b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: x\r\n\r\n"), 414)
    refused(w.raw(b"GET /" + b"a" * 30000), 414)
    assert origin.count() == 1


def test_a_body_over_its_limit_is_413(origin, weir):
    origin.on("/up", lambda req, conn: conn.respond(body=b"%d" % len(req.body)))
    w = weir(listen={"limits": {"body": "1000"}})
    assert w.post("/up", b"x" * 1000).body == b"1000"
    start = b"POST /up HTTP/1.1\r\nHost: x\r\n"
    refused(w.raw(start + b"Content-Length: 1001\r\n\r\n"), 413)                  # by its announcement
    refused(w.raw(start + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001), 413)
    refused(w.raw(start + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"), 413)
    chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    with w.client() as c:
        c.send(start + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2 + b"0\r\n\r\n")
        assert c.response().body == b"1000"
    refused(w.raw(start + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2 + b"1\r\nx\r\n0\r\n\r\n"), 413)
    for size in b"3e9\r\n", b"7fffffffffffffff\r\n", b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n", b"3e9":
        refused(w.raw(start + b"Transfer-Encoding: chunked\r\n\r\n" + size), 413)    # no byte of it is awaited
    assert origin.count() == 2
    assert w.post("/up", b"").body == b"0"


def test_an_idle_connection_is_closed(origin, weir):
    origin.on("/", body=b"x")
    w = weir(listen={"timeout": {"idle": "150ms"}})
    with w.client() as fresh, w.client() as used:
        assert used.get("/").status == 200
        time.sleep(0.1)
        assert used.get("/").status == 200                  # not idle yet, and now it counts anew
        assert fresh.closed() and used.closed()


def test_a_slow_head_is_408_however_steadily_it_drips(origin, weir):
    w = weir(listen={"timeout": {"head": "200ms", "idle": "10s"}})
    with w.client() as c:
        c.send(b"GET / HT")
        refused(c.wire.to_close(), 408)
    with w.client() as c:
        data, began = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 500, time.monotonic()
        while not select.select([c.sock], [], [], 0.02)[0]:
            c.send(data[:1])                                # a byte now and then wins no time
            data = data[1:]
        assert time.monotonic() - began < 5                 # not idle
        refused(c.wire.to_close(), 408)
    assert origin.count() == 0


def test_a_slow_body_is_408_and_one_that_goes_on_is_not(origin, weir):
    origin.on("/up", lambda req, conn: conn.respond(body=req.body))
    w = weir(listen={"timeout": {"body": "200ms"}})
    with w.client() as c:
        c.start("POST", "/up", [("Content-Length", "10")])
        c.send(b"abc")
        refused(c.wire.to_close(), 408)
    assert origin.count("/up") == 0
    with w.client() as c:
        c.start("POST", "/up", [("Content-Length", "10")])
        for i in range(10):
            c.send(b"%d" % i)
            time.sleep(0.05)
        assert c.response().body == b"0123456789"


def test_a_client_that_takes_nothing_is_dropped(origin, weir):
    origin.on("/big", body=b"x" * 8000000)
    w = weir(listen={"timeout": {"send": "200ms"}}, routes=[{"path": "/**", "policy": "pass"}])
    with w.client(rcvbuf=4096) as c:
        c.start("GET", "/big")
        eventually(lambda: w.metric("weir_client_connections") == 0)
        origin.wait("/big")


def test_a_client_cannot_put_off_its_end_by_sending(origin, weir):
    origin.on("/big", body=b"x" * 8000000)
    w = weir(listen={"timeout": {"send": "200ms"}}, routes=[{"path": "/**", "policy": "pass"}])
    with w.client(rcvbuf=4096) as c:
        c.start("GET", "/big")
        began = time.monotonic()
        try:
            while time.monotonic() - began < 5 * harness.SLOW:
                c.send(b"G")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - began < 3 * harness.SLOW


def test_a_connection_ends_after_its_number_of_requests(origin, weir):
    origin.on("/hit", headers=[("Cache-Control", "max-age=60")], body=b"x")
    w = weir(listen={"limits": {"requests": 3}})
    w.get("/hit")
    for path in ("/hit", "/miss"):
        with w.client() as c:
            c.send(b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (path.encode(), w.host.encode()) * 5)
            answers = [c.response() for _ in range(3)]
            assert [a.header("Connection") for a in answers] == [None, None, "close"]
            assert c.closed()


def test_over_the_connection_limit_a_client_is_told_503(origin, weir):
    origin.on("/", body=b"x")
    w = weir(listen={"limits": {"connections": 3}})
    kept = [w.client() for _ in range(3)]
    for c in kept:
        assert c.get("/").status == 200
    for _ in range(5):
        with w.client() as c:
            c.start("GET", "/")
            r = c.response()
            assert r.status == 503 and r.header("Retry-After") and r.header("Connection") == "close"
            assert r.json()["status"] == 503
            assert c.closed()
    assert kept[0].get("/").status == 200
    kept[1].close()
    eventually(lambda: w.get("/").status == 200)
    for c in kept:
        c.close()


def test_file_descriptors_may_run_out_and_the_listener_lives(origin, weir):
    origin.on("/", headers=[("Cache-Control", "max-age=60")], body=b"x")
    w = weir(under=["prlimit", "--nofile=64"])
    assert w.get("/").status == 200
    crowd = []
    for _ in range(100):
        s = socket.socket()
        s.settimeout(harness.TIMEOUT)
        s.connect(("127.0.0.1", w.port))
        crowd.append(s)
    eventually(lambda: w.log_has("raise the limit of open files"))

    def told(s):
        s.setblocking(False)
        try:
            return s.recv(4096).startswith(b"HTTP/1.1 503 ")
        except OSError:
            return False
    eventually(lambda: any(told(s) for s in crowd))         # not closed without a word
    for s in crowd:
        s.close()

    def served():
        try:
            with Client(w.port, timeout=1) as c:
                return c.get("/").status == 200
        except (OSError, AssertionError):
            return False
    for _ in range(20):                                     # on every worker
        eventually(served)


def test_a_client_that_never_reads_costs_bounded_memory(origin, weir):
    w = weir(routes=[{"path": "/only"}])
    before = w.rss()
    with w.client(rcvbuf=4096) as c:
        c.sock.settimeout(1.0)
        request = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
        try:
            for _ in range(500):                            # 17 MB of requests, 150 MB of answers
                c.send(request)
        except (OSError, socket.timeout):
            pass
        assert w.rss() - before < (20e6 if harness.SLOW == 1 else 600e6)
        assert w.get("/x").status == 404                    # the others do not notice


def test_a_refused_client_reads_why_although_it_sent_more(origin, weir):
    """RFC 9112 9.6: the end must not reset the answer away."""
    w = weir(listen={"limits": {"body": "1000"}})
    for _ in range(5):
        with w.client() as c:
            c.start("POST", "/up", [("Content-Length", "3000000")])
            try:
                c.send(b"x" * 3000000)
            except OSError:
                pass
            refused(c.wire.to_close(), 413)
