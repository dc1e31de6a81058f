"""Of many requests for one missing or stale key exactly one goes to the origin, across workers."""
import threading
import time

import pytest

from harness import Closed, SLOW, eventually, http_date

FRESH = ("Cache-Control", "max-age=60")
N = 12


def collapsed(w, n):
    eventually(lambda: w.metric("weir_collapsed_total") >= n, message="%d did not collapse" % n)


def behind_a_gate(origin, path="/a", headers=(FRESH,), body=b"hello", status=200, reason="OK"):
    gate = origin.gate()

    def handler(req, conn):
        gate.wait()
        conn.respond(status, list(headers), body, reason)
    origin.on(path, handler)
    return gate


def test_many_at_once_make_one_fetch_and_all_have_its_answer(origin, weir):
    w = weir(workers=2)
    gate = behind_a_gate(origin)
    answers = w.parallel(N, lambda i: w.get("/a"),
                         meanwhile=lambda: (collapsed(w, N - 1), gate.set()))
    assert origin.count("/a") == 1
    assert all(a.status == 200 and a.body == b"hello" for a in answers)
    marked = [a.cache_status for a in answers if a.cache_status.collapsed]
    assert len(marked) == N - 1 and all(c.fwd == "uri-miss" for c in marked)
    assert w.get("/a").cache_status.hit


def test_those_who_wait_receive_the_bytes_as_they_arrive(origin, weir):
    w = weir(workers=2)
    more, end = origin.gate(), origin.gate()

    def slowly(req, conn):
        conn.head(200, [FRESH], chunked=True)
        conn.chunk(b"one")
        more.wait()
        conn.chunk(b"two")
        end.wait()
        conn.end()
    origin.on("/s", slowly)
    clients = [w.client() for _ in range(6)]
    for c in clients:
        c.start("GET", "/s")
    for c in clients:
        assert b"Transfer-Encoding: chunked" in c.wire.until(b"\r\n\r\n", "a head")
        assert c.wire.line() == b"3" and c.wire.line() == b"one"
    late = w.client()
    late.start("GET", "/s")
    late.wire.until(b"\r\n\r\n", "a head")
    assert late.wire.line() == b"3" and late.wire.line() == b"one"
    more.set()
    for c in clients + [late]:
        assert c.wire.line() == b"3" and c.wire.line() == b"two"
    end.set()
    for c in clients + [late]:
        assert c.wire.line() == b"0"
        c.close()
    assert origin.count("/s") == 1


def test_the_one_who_started_may_leave_and_the_others_still_get_it(origin, weir):
    w = weir(workers=2)
    gate = behind_a_gate(origin)
    leader = w.client()
    leader.start("GET", "/a")
    origin.wait("/a")
    answers = w.parallel(5, lambda i: w.get("/a"),
                         meanwhile=lambda: (collapsed(w, 5), leader.reset(), time.sleep(0.05),
                                            gate.set()))
    assert all(a.body == b"hello" for a in answers)
    assert origin.count("/a") == 1


def test_whoever_leaves_half_way_does_not_disturb_the_others(origin, weir):
    w = weir(workers=2, routes=[{"path": "/**", "max_object": "16MiB"}], cache={"memory": "64MiB"})
    gate = origin.gate()
    body = bytes(range(256)) * 16384

    def half(req, conn):
        conn.head(200, [FRESH], length=len(body))
        conn.send(body[:1 << 20])
        gate.wait()
        conn.send(body[1 << 20:])
    origin.on("/a", half)
    leavers = [w.client() for _ in range(4)]
    stayers = [w.client() for _ in range(4)]
    for c in leavers + stayers:
        c.start("GET", "/a")
    for c in leavers:
        c.wire.until(b"\r\n\r\n", "a head")
        c.wire.take(1000)
    for c in leavers:
        c.reset()
    gate.set()
    assert all(c.response().body == body for c in stayers)
    assert w.get("/a").body == body and origin.count("/a") == 1


def test_all_may_leave_and_the_answer_is_stored_all_the_same(origin, weir):
    w = weir(workers=2)
    gate = behind_a_gate(origin)
    clients = [w.client() for _ in range(3)]
    for c in clients:
        c.start("GET", "/a")
    origin.wait("/a")
    collapsed(w, 2)
    for c in clients:
        c.reset()
    gate.set()
    eventually(lambda: w.get("/a").cache_status.hit)
    assert origin.count("/a") == 1


@pytest.mark.parametrize("cc", ["private", "no-store", "max-age=0"])
def test_an_uncacheable_answer_lets_all_who_wait_go_at_once_and_together(origin, weir, cc):
    w = weir(workers=2)
    first = origin.gate()
    together = threading.Barrier(N - 1, timeout=10)

    def handler(req, conn):
        n = origin.count("/a")
        if n == 1:
            first.wait()
        else:
            together.wait()                     # breaks unless all the others are here at once
        conn.respond(200, [("Cache-Control", cc), ("Set-Cookie", "sid=" + req.header("X-Me"))],
                     req.header("X-Me").encode())
    origin.on("/a", handler)
    answers = w.parallel(N, lambda i: w.get("/a", [("X-Me", str(i))]),
                         meanwhile=lambda: (collapsed(w, N - 1), first.set()))
    for i, a in enumerate(answers):
        assert a.body == b"%d" % i and a.header("Set-Cookie") == "sid=%d" % i
    assert origin.count("/a") == N


def test_an_uncacheable_answer_is_remembered_so_that_nobody_waits_for_a_while(origin, weir):
    w = weir(workers=2)
    origin.on("/a", headers=[("Cache-Control", "private")], body=b"x")
    w.get("/a")
    together = threading.Barrier(4, timeout=10)
    origin.on("/a", lambda q, c: (together.wait(),
                                  c.respond(200, [("Cache-Control", "private")], b"x")))
    answers = w.parallel(4, lambda i: w.get("/a"))
    assert all(a.body == b"x" and not a.cache_status.collapsed for a in answers)


def test_without_pass_for_every_crowd_waits_for_the_first(origin, weir):
    w = weir(workers=2, cache={"pass_for": "0s"})
    origin.on("/a", headers=[("Cache-Control", "private")], body=b"x")
    w.get("/a")
    gate = behind_a_gate(origin, headers=[("Cache-Control", "private")])
    w.parallel(3, lambda i: w.get("/a"), meanwhile=lambda: (collapsed(w, 2), gate.set()))


def test_what_becomes_cacheable_is_stored_while_it_is_remembered_as_uncacheable(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, [("Cache-Control", "no-store")], b"1"),
                     lambda q, c: c.respond(200, [FRESH], b"2")])
    assert w.get("/a").body == b"1"
    assert w.get("/a").cache_status.stored
    assert w.get("/a").cache_status.hit


def test_variants_collapse_again_by_variant(origin, weir):
    w = weir(workers=2)
    gate, later = origin.gate(), origin.gate()

    def handler(req, conn):
        (gate if origin.count("/a") == 1 else later).wait()
        conn.respond(200, [FRESH, ("Vary", "X-Lang")], req.header("X-Lang").encode())
    origin.on("/a", handler)
    langs = ["de"] * 4 + ["fr"] * 4 + ["en"] * 4

    def meanwhile():
        collapsed(w, 11)
        gate.set()
        origin.wait("/a", 3)
        collapsed(w, 11 + 6)                    # two groups look again; one of each fetches
        later.set()
    answers = w.parallel(12, lambda i: w.get("/a", [("X-Lang", langs[i])]), meanwhile=meanwhile)
    assert [a.body.decode() for a in answers] == langs
    assert origin.count("/a") == 3


def test_known_variants_collapse_apart_from_the_start(origin, weir):
    w = weir(workers=2)
    origin.on("/a", lambda q, c: c.respond(200, [FRESH, ("Vary", "X-Lang")], b"known"))
    w.get("/a", [("X-Lang", "xx")])
    gate = origin.gate()

    def handler(req, conn):
        gate.wait()
        conn.respond(200, [FRESH, ("Vary", "X-Lang")], req.header("X-Lang").encode())
    origin.on("/a", handler)
    langs = ["de"] * 3 + ["fr"] * 3
    answers = w.parallel(6, lambda i: w.get("/a", [("X-Lang", langs[i])]),
                         meanwhile=lambda: (origin.wait("/a", 3), collapsed(w, 4), gate.set()))
    assert [a.body.decode() for a in answers] == langs
    assert origin.count("/a") == 3


def test_spellings_of_one_language_preference_collapse_into_one_fetch(origin, weir):
    w = weir(workers=2)
    vary = [FRESH, ("Vary", "Accept-Language")]
    origin.on("/a", lambda q, c: c.respond(200, vary, b"known"))
    w.get("/a", [("Accept-Language", "xx")])
    gate = origin.gate()

    def handler(req, conn):
        gate.wait()
        conn.respond(200, vary, b"new")
    origin.on("/a", handler)
    langs = ["de, en", "en, de", "EN,DE", "de;q=1.0, en", "en;q=0.5, de", "de, en;q=0.50"]
    answers = w.parallel(6, lambda i: w.get("/a", [("Accept-Language", langs[i])]),
                         meanwhile=lambda: (origin.wait("/a", 3), collapsed(w, 4), gate.set()))
    assert [a.body for a in answers] == [b"new"] * 6
    assert origin.count("/a") == 3


def test_a_stale_key_is_validated_once_for_all(origin, weir):
    w = weir(workers=2)
    gate = origin.gate()

    def handler(req, conn):
        if req.header("If-None-Match"):
            gate.wait()
            conn.respond(304, [FRESH, ("ETag", '"1"'), ("X-New", "1"), ("Set-Cookie", "a=b")],
                         reason="Not Modified")
        else:
            conn.respond(200, [("Cache-Control", "max-age=10"), ("Age", "100"), ("ETag", '"1"')],
                         b"hello")
    origin.on("/a", handler)
    w.get("/a")
    answers = w.parallel(N, lambda i: w.get("/a"),
                         meanwhile=lambda: (collapsed(w, N - 1), gate.set()))
    assert origin.count("/a") == 2
    assert all(a.body == b"hello" and a.header("X-New") == "1" for a in answers)
    assert sum(a.header("Set-Cookie") is not None for a in answers) == 1


def test_a_cookie_is_set_for_the_one_who_asked_and_never_for_those_who_waited(origin, weir):
    w = weir(workers=2)
    gate = behind_a_gate(origin, headers=[FRESH, ("Set-Cookie", "sid=1")])
    answers = w.parallel(N, lambda i: w.get("/a"),
                         meanwhile=lambda: (collapsed(w, N - 1), gate.set()))
    assert sum(a.header("Set-Cookie") is not None for a in answers) == 1
    assert all(a.cache_status.collapsed != (a.header("Set-Cookie") is not None) for a in answers)


def test_those_who_waited_are_told_the_age_that_the_answer_had(origin, weir):
    w = weir()
    gate = behind_a_gate(origin, headers=[("Cache-Control", "max-age=1000"), ("Age", "100")])
    answers = w.parallel(3, lambda i: w.get("/a"), meanwhile=lambda: (collapsed(w, 2), gate.set()))
    assert all(100 <= int(a.header("Age")) <= 105 for a in answers)


def test_a_failure_of_the_one_fetch_is_everybodys(origin, weir):
    w = weir(workers=2)
    gate = origin.gate()
    origin.on("/a", lambda q, c: (gate.wait(), c.reset()))
    answers = w.parallel(5, lambda i: w.get("/a"), meanwhile=lambda: (collapsed(w, 4), gate.set()))
    assert all(a.status == 502 for a in answers)
    origin.on("/a", headers=[FRESH], body=b"back")
    assert w.get("/a").body == b"back"


def test_a_truncated_answer_is_truncated_for_all_and_not_stored(origin, weir):
    w = weir(workers=2)
    gate = origin.gate()

    def short(req, conn):
        conn.head(200, [FRESH], length=100)
        conn.send(b"half")
        gate.wait()
        conn.close()
    origin.on("/a", short)

    def read(i):
        with pytest.raises(Closed) as e:
            w.get("/a")
        return e.value.got
    assert w.parallel(5, read, meanwhile=lambda: (collapsed(w, 4), gate.set())) == [b"half"] * 5
    origin.on("/a", headers=[FRESH], body=b"whole")
    assert w.get("/a").body == b"whole"


def test_requests_that_ask_for_a_fetch_of_their_own_get_one(origin, weir):
    w = weir(workers=2)
    gate = behind_a_gate(origin)
    answers = w.parallel(4, lambda i: w.get("/a", [("Cache-Control", "no-cache")]),
                         meanwhile=lambda: (origin.wait("/a", 4), gate.set()))
    assert all(a.body == b"hello" and not a.cache_status.collapsed for a in answers)


def test_a_slow_reader_does_not_hold_up_the_others_of_a_stored_answer(origin, weir):
    w = weir(workers=2, routes=[{"path": "/**", "max_object": "16MiB"}], cache={"memory": "64MiB"})
    body = bytes(range(256)) * 16384
    gate = behind_a_gate(origin, body=body)
    slow = w.client(rcvbuf=4096)
    slow.start("GET", "/a")
    origin.wait("/a")
    gate.set()
    assert w.get("/a").body == body
    eventually(lambda: w.get("/a").cache_status.hit)
    assert slow.response().body == body
    assert origin.count("/a") == 1


def test_a_client_of_http_1_0_can_wait_too(origin, weir):
    w = weir(workers=2)
    more = origin.gate()

    def slowly(req, conn):
        conn.head(200, [FRESH], chunked=True)
        conn.chunk(b"one")
        more.wait()
        conn.chunk(b"two")
        conn.end()
    origin.on("/a", slowly)
    answers = w.parallel(4, lambda i: w.request("GET", "/a", version="HTTP/1.%d" % (i % 2)),
                         meanwhile=lambda: (collapsed(w, 3), more.set()))
    assert all(a.body == b"onetwo" for a in answers) and origin.count("/a") == 1


def test_a_reader_who_is_behind_when_the_answer_ends_still_gets_all_of_it(origin, weir):
    w = weir(workers=2, routes=[{"path": "/**", "max_object": "16MiB"}], cache={"memory": "64MiB"})
    body = bytes(range(251)) * 16001            # fills no segment to its end

    def chunked(req, conn):
        conn.head(200, [FRESH], chunked=True)
        for at in range(0, len(body), 50000):
            conn.chunk(body[at:at + 50000])
        conn.end()
    origin.on("/a", chunked)
    slow = [w.client(rcvbuf=4096) for _ in range(4)]
    for c in slow:
        c.start("GET", "/a")
    eventually(lambda: w.get("/a").cache_status.hit)
    assert [c.response().body == body for c in slow] == [True] * 4
    assert w.get("/a").body == body and origin.count("/a") == 1


def outgrown(origin, body, path="/big"):
    """A chunked answer that begins when the gate opens and is larger than what is stored."""
    gate = origin.gate()

    def handler(req, conn):
        gate.wait()
        conn.head(200, [FRESH], chunked=True)
        for at in range(0, len(body), 50000):
            conn.chunk(body[at:at + 50000])
        conn.end()
    origin.on(path, handler)
    return gate


def read_whole(w, path="/big"):
    """The bytes of a chunked answer, joined in linear time."""
    head, _, rest = w.raw(b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (
        path.encode(), b"127.0.0.1:%d" % w.port)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    parts, at = [], 0
    while True:
        end = rest.index(b"\r\n", at)
        size = int(rest[at:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(rest[end + 2:end + 2 + size])
        at = end + 4 + size


def test_a_reader_that_stands_still_is_let_go_when_others_wait_for_what_is_not_stored(origin, weir):
    w = weir(workers=2, listen={"timeout": {"send": "%gs" % (60 * SLOW)}})
    body = bytes(range(251)) * 40001            # 10 MB: beyond all that sockets hold
    gate = outgrown(origin, body)
    with w.client(rcvbuf=4096) as still:
        still.start("GET", "/big")
        origin.wait("/big")
        began = time.monotonic()
        answers = w.parallel(3, lambda i: read_whole(w),
                             meanwhile=lambda: (collapsed(w, 3), gate.set()))
        assert all(a == body for a in answers)
        assert time.monotonic() - began < 30 * SLOW # not timeout.send
        assert w.metric("weir_readers_let_go_total") == 1
        with pytest.raises(Closed) as e:
            still.response()
        assert 0 < len(e.value.got) < len(body) and body.startswith(e.value.got)
    assert origin.count("/big") == 1


def test_a_reader_that_is_slow_but_moves_is_waited_for(origin, weir):
    w = weir(workers=2)
    body = bytes(range(251)) * 40001
    gate = outgrown(origin, body)
    with w.client(rcvbuf=65536) as slow:
        slow.start("GET", "/big")
        origin.wait("/big")

        def slowly():
            collapsed(w, 1)
            gate.set()
            end = time.monotonic() + 4
            while time.monotonic() < end:
                slow.wire.take(50000)
                time.sleep(0.05)
            slow.wire.until(b"\r\n0\r\n\r\n", "the last chunk")
        assert w.parallel(1, lambda i: read_whole(w), meanwhile=slowly) == [body]
        assert w.metric("weir_readers_let_go_total") == 0


def test_a_lone_reader_that_stands_still_is_never_let_go(origin, weir):
    w = weir(workers=2)
    body = bytes(range(251)) * 40001
    gate = outgrown(origin, body)
    gate.set()
    with w.client(rcvbuf=4096) as still:
        still.start("GET", "/big")
        origin.wait("/big")
        time.sleep(4)
        assert still.response().body == body
    assert w.metric("weir_readers_let_go_total") == 0


def test_a_fetch_of_its_own_whose_client_has_left_is_given_up_at_the_end(origin, weir):
    w = weir(drain="100ms")
    behind_a_gate(origin)
    with w.client() as c:
        c.start("GET", "/a", [("Cache-Control", "no-cache")])
        origin.wait("/a")
        c.reset()
    eventually(lambda: w.metric("weir_client_aborts_total") == 1)
    assert w.metric("weir_flights_now") == 1
    assert w.stop() == 0
    assert w.log_has("time is up, 0 connections and 1 fetches are cut")
    assert not w.log_has("did not end")             # what is not given up is waited for a second


def test_a_fetch_that_ends_late_does_not_replace_what_came_after_it(origin, weir):
    """RFC 9111 4: of several stored responses the most recent is used."""
    w = weir()
    gate = origin.gate()

    def late(req, conn):
        conn.head(200, [FRESH, ("Date", http_date()), ("ETag", '"old"')], chunked=True)
        conn.chunk(b"old")
        gate.wait()
        conn.end()
    origin.on("/d", [late, lambda req, conn: conn.respond(
        200, [FRESH, ("Date", http_date(2)), ("ETag", '"new"')], b"new")])
    first = w.client()
    first.start("GET", "/d")
    first.wire.until(b"\r\n\r\n", "a head")
    assert w.get("/d", [("Cache-Control", "no-cache")]).body == b"new"
    gate.set()
    assert first.wire.line() == b"3" and first.wire.line() == b"old" and first.wire.line() == b"0"
    first.close()
    eventually(lambda: w.metric("weir_cache_store_older_total") == 1)
    after = w.get("/d")
    assert after.body == b"new" and after.cache_status.hit
    assert origin.count("/d") == 2


@pytest.mark.parametrize("known", [True, False])
def test_bodies_under_way_are_within_the_memory_of_the_cache(origin, weir, known):
    w = weir(cache={"memory": "16MiB"}, origin={"pool": {"max": 100}})
    gate, size, n = origin.gate(), 900000, 40

    def hold(req, conn):
        length = [("Content-Length", str(size))] if known else []
        conn.head(200, [FRESH] + length, chunked=not known)
        put = conn.send if known else conn.chunk
        put(b"x" * (size - 10))
        gate.wait()
        put(b"y" * 10)
        if not known:
            conn.end()
    origin.on("*", hold)
    base, clients = w.rss(), [w.client() for _ in range(n)]
    for i, c in enumerate(clients):     # one after the other: the first find room
        c.start("GET", "/%d" % i)
        eventually(lambda: w.metric("weir_flights_now") == i + 1)
    eventually(lambda: w.metric("weir_cache_store_memory_total") > 0)
    time.sleep(0.5)
    assert w.metric("weir_cache_memory_bytes") <= 16 << 20
    if SLOW == 1:                       # sanitizers keep what was freed
        assert w.rss() - base < 1.1 * (16 << 20) + n * 200000
    gate.set()
    for c in clients:
        assert c.response().body == b"x" * (size - 10) + b"y" * 10
        c.close()
    eventually(lambda: w.metric("weir_flights_now") == 0)
    assert w.metric("weir_cache_memory_bytes") <= 16 << 20
    found = [w.get("/%d" % i).cache_status.hit for i in range(n)]
    assert any(found) and not all(found)


def test_what_found_no_room_is_not_called_stored_and_may_be_stored_the_next_time(origin, weir):
    w = weir(cache={"memory": "2MiB", "max_object": "256KiB"})
    gate = origin.gate()

    def hold(req, conn):
        conn.head(200, [FRESH, ("Content-Length", "200000")])
        conn.send(b"x" * 199990)
        gate.wait()
        conn.send(b"x" * 10)
    origin.on("*", hold)
    clients = [w.client() for _ in range(8)]
    for i, c in enumerate(clients):
        c.start("GET", "/%d" % i)
        origin.wait("/%d" % i)
    eventually(lambda: w.metric("weir_cache_store_memory_total") > 0)
    gate.set()
    answers = [c.response() for c in clients]
    told = [a.cache_status for a in answers]
    assert all(len(a.body) == 200000 for a in answers)
    assert all(t.stored != (t.detail == "memory") for t in told)
    last = [i for i, t in enumerate(told) if t.detail == "memory"][-1]
    for c in clients:
        c.close()
    assert w.get("/%d" % last).cache_status.stored
    assert w.get("/%d" % last).cache_status.hit


def test_heads_and_gets_wait_for_one_fetch(origin, weir):
    w = weir(workers=2)
    gate = behind_a_gate(origin)
    answers = w.parallel(N, lambda i: w.request("HEAD" if i % 2 else "GET", "/a"),
                         meanwhile=lambda: (collapsed(w, N - 1), gate.set()))
    assert [r.method for r in origin.of("/a")] == ["GET"]
    assert all(a.header("Content-Length") == "5" for a in answers)
    assert [a.body for a in answers] == [b"" if i % 2 else b"hello" for i in range(N)]


def test_a_range_waits_for_the_whole_that_is_on_its_way(origin, weir):
    w = weir(workers=2)
    gate = behind_a_gate(origin)
    first = w.client()
    first.start("GET", "/a")
    origin.wait("/a")
    answers = w.parallel(4, lambda i: w.get("/a", [("Range", "bytes=%d-3" % i)]),
                         meanwhile=lambda: (collapsed(w, 4), gate.set()))
    assert origin.count("/a") == 1 and first.response().body == b"hello"
    assert [(a.status, a.body) for a in answers] == [(206, b"hello"[i:4]) for i in range(4)]
    assert all(a.cache_status.fwd == "uri-miss" and a.cache_status.collapsed for a in answers)
    first.close()


def test_a_range_of_what_turns_out_not_to_be_stored_is_asked_for_itself(origin, weir):
    w = weir()
    gate = origin.gate()

    def handler(req, conn):
        if req.header("Range"):
            return conn.respond(206, [("Content-Range", "bytes 1-2/5")], b"el", "Partial Content")
        gate.wait()
        conn.respond(200, [("Cache-Control", "no-store")], b"hello")
    origin.on("/a", handler)
    first = w.client()
    first.start("GET", "/a")
    origin.wait("/a")
    answers = w.parallel(3, lambda i: w.get("/a", [("Range", "bytes=1-2")]),
                         meanwhile=lambda: (collapsed(w, 3), gate.set()))
    assert all(a.status == 206 and a.body == b"el" for a in answers)
    assert not any(a.cache_status.collapsed for a in answers)
    assert origin.count("/a") == 4
    assert first.response().body == b"hello"
    first.close()


def test_a_range_that_nobody_fetches_whole_is_asked_for_as_it_is(origin, weir):
    w = weir()
    origin.on("/a", lambda req, conn: conn.respond(206, [("Content-Range", "bytes 1-2/5")], b"el",
                                                   "Partial Content"))
    answer = w.get("/a", [("Range", "bytes=1-2")])
    assert answer.status == 206 and answer.cache_status.detail == "no-freshness"
    assert [r.header("Range") for r in origin.of("/a")] == ["bytes=1-2"]
