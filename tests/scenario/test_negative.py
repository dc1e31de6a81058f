"""Errors: how long they are kept, and that nothing broken is kept at all."""
import pytest

from harness import Closed, eventually

FRESH = ("Cache-Control", "max-age=60")


def test_errors_are_kept_as_long_as_negative_ttl_says_where_the_origin_says_nothing(origin, weir):
    w = weir(routes=[{"path": "/**", "ttl": "1h", "negative_ttl": {404: "20s", 503: "10s"}}])
    for status, ttl in ((404, 20), (503, 10)):
        path = "/%d" % status
        origin.on(path, status=status, reason="No", body=b"no")
        assert w.get(path).status == status
        second = w.get(path)
        assert second.status == status and second.cache_status.hit and ttl - 2 <= second.cache_status.ttl <= ttl
    for status in (400, 410, 500, 502):
        path = "/%d" % status
        origin.on(path, status=status, reason="No", body=b"no")
        w.get(path)
        assert not w.get(path).cache_status.hit


def test_negative_ttl_does_not_contradict_the_origin(origin, weir):
    w = weir(routes=[{"path": "/**", "negative_ttl": {404: "20s"}}])
    origin.on("/no", status=404, headers=[("Cache-Control", "no-store")])
    origin.on("/long", status=404, headers=[FRESH])
    for path in ("/no", "/long"):
        w.get(path)
    assert not w.get("/no").cache_status.hit
    assert w.get("/long").cache_status.ttl > 30


BROKEN = {
    "shorter than its length": b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nhalf",
    "chunks that do not end": b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "a chunk cut short": b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    "no end of trailers": b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX: y\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("keep", ["max-age=60", "no-store"])
def test_a_broken_answer_is_broken_for_the_client_and_never_stored(origin, weir, how, end, keep):
    w = weir()
    gate = origin.gate()

    def handler(req, conn):
        good, bad, rest = BROKEN[how].replace(b"max-age=60", keep.encode()).partition(b"xyz")
        conn.send(good)
        gate.wait()                                     # the client has the beginning first
        conn.send(bad + rest)
        getattr(conn, end)()
    origin.on("/a", handler)
    with w.client() as c:
        c.start("GET", "/a")
        head = c.wire.until(b"\r\n\r\n", "a head")
        gate.set()
        rest = c.wire.to_close()
        assert b"half" in rest and not rest.endswith(b"0\r\n\r\n")
        assert b"chunked" in head or b"Content-Length: 100" in head
    origin.on("/a", headers=[FRESH], body=b"whole")
    second = w.get("/a")
    assert second.body == b"whole" and not second.cache_status.hit


def test_a_broken_answer_with_no_client_left_is_not_stored(origin, weir):
    w = weir()
    gate = origin.gate()

    def handler(req, conn):
        conn.head(200, [FRESH], length=100)
        conn.send(b"half")
        gate.wait()
        conn.close()
    origin.on("/a", handler)
    with w.client() as c:
        c.start("GET", "/a")
        c.wire.until(b"\r\n\r\n", "a head")
    gate.set()
    eventually(lambda: w.metric("weir_flights_now") == 0)
    origin.on("/a", headers=[FRESH], body=b"whole")
    assert w.get("/a").body == b"whole"


def test_an_answer_that_is_cut_does_not_spoil_a_stored_one(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, [("Cache-Control", "max-age=10, stale-if-error=1000"), ("Age", "100")], b"old"),
                     lambda q, c: (c.head(200, [FRESH], length=100), c.send(b"half"), c.close()),
                     lambda q, c: c.reset()])
    w.get("/a")
    with pytest.raises(Closed):
        w.get("/a")
    assert w.get("/a").body == b"old"


def test_more_than_was_promised_is_not_taken_for_the_next_answer(origin, weir):
    w = weir()
    origin.on("/a", raw=b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n"
                        b"Content-Length: 4\r\n\r\nevil")
    origin.on("/b", headers=[FRESH], body=b"good")
    for _ in range(3):
        assert w.get("/a").status == 502
        assert w.get("/b").body == b"good"


def test_an_answer_streams_to_the_client_while_it_is_stored(origin, weir):
    w = weir()
    gate = origin.gate()

    def handler(req, conn):
        conn.head(200, [FRESH], length=6)
        conn.send(b"one")
        gate.wait()
        conn.send(b"two")
    origin.on("/a", handler)
    with w.client() as c:
        c.start("GET", "/a")
        c.wire.until(b"\r\n\r\n", "a head")
        assert c.wire.take(3) == b"one"
        gate.set()
        assert c.wire.take(3) == b"two"
    eventually(lambda: w.get("/a").cache_status.hit)


@pytest.mark.parametrize("headers", [[("Cache-Control", "no-store")], [FRESH]])
def test_a_slow_reader_paces_what_is_not_stored(origin, weir, headers):
    w = weir(routes=[{"path": "/**", "max_object": "100KiB"}])
    sent = []

    def handler(req, conn):
        conn.head(200, headers, chunked=True)
        block = b"x" * 65536
        for _ in range(1024):
            conn.chunk(block)
            sent.append(len(block))
        conn.end()
    origin.on("/a", handler)
    with w.client(rcvbuf=4096) as c:
        c.start("GET", "/a")
        c.wire.until(b"\r\n\r\n", "a head")
        before = -1
        while len(sent) != before:                      # until the origin is held back
            before = len(sent)
            try:
                eventually(lambda: len(sent) > before, timeout=0.5)
            except AssertionError:
                break
        assert len(sent) < 400, "64 MiB went to a client that does not read"
        assert w.rss() < 200 << 20


def test_two_readers_of_what_is_too_large_to_store_both_get_it_whole(origin, weir):
    w = weir(workers=2, routes=[{"path": "/**", "max_object": "100KiB"}])
    gate = origin.gate()
    block = bytes(range(256)) * 256

    def handler(req, conn):
        conn.head(200, [FRESH], chunked=True)
        gate.wait()
        for _ in range(64):
            conn.chunk(block)
        conn.end()
    origin.on("/a", handler)

    def meanwhile():
        eventually(lambda: w.metric("weir_collapsed_total") == 3)
        gate.set()
    answers = w.parallel(4, lambda i: w.get("/a"), meanwhile=meanwhile)
    assert all(a.body == block * 64 for a in answers) and origin.count("/a") == 1
