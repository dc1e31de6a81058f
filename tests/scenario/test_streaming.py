"""Bodies pass as they come, both ways, in bounded memory, and nobody waits for another's pace."""
import hashlib
import threading
import time

import pytest

import harness
from harness import eventually

BIG = (40 if harness.SLOW > 1 else 200) << 20
BLOCK = bytes(range(256)) * 1024                 # 256 KiB
ROOM = (600 if harness.SLOW > 1 else 16) << 20     # sanitizers keep what was freed
PASS = [{"path": "/**", "policy": "pass"}]


def sends(chunked, n=BIG):
    def handler(req, conn):
        conn.head(200, chunked=chunked, length=None if chunked else n)
        for _ in range(n // len(BLOCK)):
            conn.chunk(BLOCK) if chunked else conn.send(BLOCK)
        if chunked:
            conn.end()
    return handler


def read_all(c):
    """The body of a long answer, not kept: its length and a hash; the client reads as fast as it can."""
    head = harness.Response(c.wire.until(b"\r\n\r\n", "a head"))
    left = c.wire.length(head)
    hash_, n = hashlib.sha1(), 0
    if left is None:
        while True:
            size = int(c.wire.line(), 16)
            if size == 0:
                c.wire.line()
                break
            hash_.update(c.wire.take(size))
            c.wire.take(2)
            n += size
            c.wire.seen = b""
    else:
        while n < left:
            part = c.wire.take(min(1 << 20, left - n))
            c.wire.seen = b""
            hash_.update(part)
            n += len(part)
    return head, n, hash_.hexdigest()


def expected(n=BIG):
    h = hashlib.sha1()
    for _ in range(n // len(BLOCK)):
        h.update(BLOCK)
    return h.hexdigest()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("policy", ["pass", "cache-aside"])
def test_a_long_download_streams_in_bounded_memory(origin, weir, chunked, policy):
    origin.on("/big", sends(chunked))
    w = weir(routes=[{"path": "/**", "policy": policy}])
    w.get("/warm")
    before, most = w.rss(), []
    with w.client() as c:
        watcher_ends = threading.Event()

        def watch():
            while not watcher_ends.wait(0.02):
                most.append(w.rss())
        watcher = threading.Thread(target=watch)
        watcher.start()
        c.start("GET", "/big")
        head, n, digest = read_all(c)
        watcher_ends.set()
        watcher.join()
    assert n == BIG and digest == expected()
    assert max(most) - before < ROOM


@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_upload_streams_in_bounded_memory(origin, weir, chunked):
    got = []

    def handler(req, conn):
        h, n = hashlib.sha1(), 0
        left = conn.wire.length(req)
        while left is None or n < left:
            if left is None:
                size = int(conn.wire.line(), 16)
                if size == 0:
                    conn.wire.line()
                    break
                part = conn.wire.take(size)
                conn.wire.take(2)
            else:
                part = conn.wire.take(min(1 << 20, left - n))
            conn.wire.seen = b""
            h.update(part)
            n += len(part)
        got.append((n, h.hexdigest()))
        conn.respond(body=b"done")
    handler.early = True
    origin.on("/up", handler)
    w = weir()
    w.get("/warm")
    before = w.rss()
    with w.client(timeout=60) as c:
        c.start("PUT", "/up", [("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(BIG))])
        most = 0
        for i in range(BIG // len(BLOCK)):
            c.send(b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK) if chunked else BLOCK)
            if i % 64 == 0:
                most = max(most, w.rss())
        if chunked:
            c.send(b"0\r\n\r\n")
        assert c.response().body == b"done"
    assert got == [(BIG, expected())]
    assert most - before < ROOM


def test_a_slow_origin_holds_the_uploading_client_back(origin, weir):
    gate = origin.gate()

    def handler(req, conn):
        gate.wait()
        origin.read_body(conn.wire, conn, req)
        conn.respond(body=b"%d" % len(req.body))
    handler.early = True
    origin.on("/up", handler)
    w = weir(listen={"timeout": {"body": "1s"}})               # not the client's fault: no 408
    w.get("/warm")
    before = w.rss()
    with w.client() as c:
        c.start("PUT", "/up", [("Content-Length", str(40 << 20))])
        sender = threading.Thread(target=c.send, args=(b"x" * (40 << 20),))
        sender.start()
        origin.wait("/up")
        time.sleep(1.3)
        assert sender.is_alive() and w.rss() - before < ROOM
        gate.set()
        assert c.response().body == b"%d" % (40 << 20)
        sender.join()


def test_a_slow_client_does_not_hold_others_of_the_same_answer(origin, weir):
    origin.on("/big", sends(False, 8 << 20))
    w = weir(cache={"max_object": "1MiB", "memory": "64MiB"})
    with w.client(rcvbuf=4096) as slow:
        slow.start("GET", "/big")
        slow.wire.until(b"\r\n\r\n", "a head")
        for _ in range(3):
            with w.client() as c:
                c.start("GET", "/big")
                assert read_all(c)[1] == 8 << 20
        w.get("/other")
        assert len(slow.wire.take(8 << 20)) == 8 << 20


def test_many_slow_clients_do_not_hold_hits_up(origin, weir):
    origin.on("/hit", headers=[("Cache-Control", "max-age=60")], body=b"x" * 100000)
    origin.on("/slow", sends(False, 4 << 20))
    w = weir()
    w.get("/hit")
    slow = [w.client(rcvbuf=4096) for _ in range(50)]
    for c in slow:
        c.start("GET", "/hit" if slow.index(c) % 2 else "/slow")
    for _ in range(20):
        assert len(w.get("/hit").body) == 100000
    assert len(slow[1].response().body) == 100000 and len(slow[0].response().body) == 4 << 20
    for c in slow:
        c.close()


def test_bytes_reach_the_client_while_the_origin_still_sends(origin, weir):
    gate = origin.gate()

    def handler(req, conn):
        conn.head(200, chunked=True)
        conn.chunk(b"first")
        gate.wait()
        conn.chunk(b"second")
        conn.end()
    origin.on("/s", handler)
    for policy in ("pass", "cache-aside"):
        gate.clear()
        w = weir(routes=[{"path": "/**", "policy": policy}])
        with w.client() as c:
            c.start("GET", "/s")
            c.wire.until(b"\r\n\r\n", "a head")
            assert c.wire.take(10) == b"5\r\nfirst\r\n"
            gate.set()
            assert c.wire.take(11) == b"6\r\nsecond\r\n"


def test_bytes_of_an_upload_reach_the_origin_while_the_client_still_sends(origin, weir):
    seen = threading.Event()

    def handler(req, conn):
        assert conn.wire.take(5) == b"first"
        seen.set()
        assert conn.wire.take(6) == b"second"
        conn.respond(body=b"ok")
    handler.early = True
    origin.on("/s", handler)
    w = weir()
    with w.client() as c:
        c.start("POST", "/s", [("Content-Length", "11")])
        c.send(b"first")
        assert seen.wait(harness.TIMEOUT)
        c.send(b"second")
        assert c.response().body == b"ok"


def test_an_answer_may_begin_before_the_upload_ends(origin, weir):
    def handler(req, conn):
        conn.head(200, chunked=True)
        while True:
            data = conn.wire.take(1)
            conn.chunk(data.upper())
            if data == b"z":
                break
        conn.end()
    handler.early = True
    origin.on("/echo", handler)
    w = weir()
    with w.client() as c:
        c.start("POST", "/echo", [("Content-Length", "3")])
        c.wire.until(b"\r\n\r\n", "a head")
        for byte in (b"a", b"b", b"z"):
            c.send(byte)
            assert c.wire.take(6) == b"1\r\n" + byte.upper() + b"\r\n"
        assert c.wire.take(5) == b"0\r\n\r\n"


def test_a_client_that_leaves_in_the_middle_of_an_upload_is_seen_by_the_origin(origin, weir):
    left = threading.Event()

    def handler(req, conn):
        try:
            conn.wire.take(100)
        except harness.Closed:
            left.set()
            raise
    handler.early = True
    origin.on("/up", handler)
    w = weir()
    for how in ("reset", "close"):
        left.clear()
        c = w.client()
        c.start("POST", "/up", [("Content-Length", "100")])
        c.send(b"abc")
        origin.wait("/up")
        getattr(c, how)()
        assert left.wait(harness.TIMEOUT), how
    eventually(lambda: w.metric("weir_client_connections") == 0)


def test_a_client_that_leaves_in_the_middle_of_a_download_ends_a_fetch_that_nobody_needs(origin, weir):
    left = threading.Event()

    def handler(req, conn):
        conn.head(200, chunked=True)
        try:
            while True:
                conn.chunk(BLOCK)
        except OSError:
            left.set()
            raise
    origin.on("/endless", handler)
    for policy in ("pass", "cache-aside"):
        for how in ("reset", "close"):
            left.clear()
            w = weir(routes=[{"path": "/**", "policy": policy}])
            c = w.client()
            c.start("GET", "/endless")
            c.wire.take(100000)
            getattr(c, how)()
            assert left.wait(harness.TIMEOUT), (policy, how)
            eventually(lambda: w.metric("weir_client_connections") == 0)
            w.stop()


def test_a_client_that_leaves_does_not_end_a_fetch_that_fills_the_cache(origin, weir):
    gate = origin.gate()

    def handler(req, conn):
        conn.head(200, [("Cache-Control", "max-age=60")], length=10)
        conn.send(b"01234")
        gate.wait()
        conn.send(b"56789")
    origin.on("/fill", handler)
    w = weir()
    c = w.client()
    c.start("GET", "/fill", [("Host", w.host)])
    assert c.wire.until(b"\r\n\r\n", "a head")
    c.reset()
    eventually(lambda: w.metric("weir_client_connections") == 0)
    gate.set()
    eventually(lambda: w.get("/fill").cache_status.hit)
    assert origin.count("/fill") == 1 and w.get("/fill").body == b"0123456789"


def test_a_broken_off_answer_is_broken_off_here_too_with_all_that_came(origin, weir):
    def short(req, conn):
        conn.head(200, length=100)
        conn.send(b"x" * 60)
        conn.close()

    def chunks(req, conn):
        conn.head(200, chunked=True)
        conn.chunk(b"x" * 60)
        conn.close()
    origin.on("/len", short)
    origin.on("/chunks", chunks)
    for policy in ("pass", "cache-aside"):
        w = weir(routes=[{"path": "/**", "policy": policy}])
        for path in ("/len", "/chunks"):
            with w.client() as c:
                with pytest.raises(harness.Closed) as e:
                    c.get(path)
                assert e.value.got == b"x" * 60
            with w.client() as c, pytest.raises(harness.Closed):     # HTTP/1.0 sees a reset or a short length
                c.start("GET", path, version="HTTP/1.0")
                head = harness.Response(c.wire.until(b"\r\n\r\n", "a head"))
                if c.wire.length(head) is None:
                    while True:
                        c.wire.take(1)
                c.wire.take(100)
