"""A reader sees its own writes before the origin has them, and nobody else's."""
import threading
import time

import pytest

from harness import eventually
from test_write_back import back, hold, problem     # noqa: F401  (back is a fixture)

ALICE, BOB = ("Authorization", "Bearer alice"), ("Authorization", "Bearer bob")
FRESH = [("Cache-Control", "public, max-age=600")]


def held(origin, path="/a", body=b"old"):
    """The origin answers reads with `body`, and writes once the gate opens."""
    gate = origin.gate()

    def handler(req, conn):
        if req.method in ("GET", "HEAD"):
            conn.respond(200, FRESH, body)
        else:
            gate.wait()
            conn.respond(204)
    origin.on(path, handler)
    return gate


def test_a_pending_put_is_what_its_writer_reads(origin, back):
    gate = held(origin)
    w = back()
    assert w.get("/a", [ALICE]).body == b"old"          # stored, too
    assert w.request("PUT", "/a", [ALICE, ("Content-Type", "text/x"), ("Content-Language", "de"),
                                   ("Content-Location", "/from")], b"new").status == 202
    r = w.get("/a", [ALICE])
    assert (r.status, r.body, r.header("Content-Type"), r.header("Content-Language")) == (
        200, b"new", "text/x", "de")
    assert r.header("Content-Location") is None and r.header("Age") is None
    assert r.cache_status.hit and r.cache_status.detail == "pending" and r.cache_status.ttl is None
    assert r.header("Cache-Control") == "no-store" and r.header("ETag").startswith('"weir-pending-')
    head = w.request("HEAD", "/a", [ALICE])
    assert head.status == 200 and head.header("Content-Length") == "3"
    assert head.header("ETag") == r.header("ETag")
    gate.set()


@pytest.mark.parametrize("who", [BOB, ("Cookie", "s=1"), ("Accept", "*/*")])
def test_nobody_else_sees_it(origin, back, who):
    gate = held(origin)
    w = back()
    w.request("PUT", "/a", [ALICE], b"new")
    w.request("PUT", "/a", [("Cookie", "s=2")], b"newer")
    r = w.get("/a", [who])
    assert r.body == b"old" and r.cache_status.detail != "pending"
    assert w.get("/a", [who]).body == b"old"
    gate.set()


def test_a_route_may_show_it_to_everybody(origin, back):
    gate = held(origin)
    w = back({"pending_scope": "all"})
    w.request("PUT", "/a", [ALICE], b"new")
    assert w.get("/a", [BOB]).body == b"new"
    assert w.get("/a?q=1", [BOB]).body == b"old"        # another resource
    gate.set()


def test_a_stored_response_gives_way_on_every_worker_and_connection(origin, back):
    gate = held(origin)
    w = back({"pending_scope": "all"})
    for _ in range(8):
        w.get("/a")
    w.request("PUT", "/a", body=b"new")
    assert {w.get("/a").body for _ in range(16)} == {b"new"}
    gate.set()


def test_conditions_and_ranges_are_judged_by_pending_content(origin, back):
    gate = held(origin)
    w = back()
    w.request("PUT", "/a", [ALICE], b"0123456789")
    tag = w.get("/a", [ALICE]).header("ETag")
    assert w.get("/a", [ALICE, ("If-None-Match", tag)]).status == 304
    assert w.get("/a", [ALICE, ("If-None-Match", '"x"')]).status == 200
    r = w.get("/a", [ALICE, ("Range", "bytes=2-4")])
    assert r.status == 206 and r.body == b"234" and r.header("Content-Range") == "bytes 2-4/10"
    assert w.get("/a", [ALICE, ("Range", "bytes=2-4"), ("If-Range", '"x"')]).status == 200
    assert w.get("/a", [ALICE, ("Range", "bytes=20-")]).status == 416
    assert w.get("/a", [ALICE, ("If-Match", tag)]).status == 200
    problem(w.get("/a", [ALICE, ("If-Match", '"x"')]), 412, "If-Match")
    gate.set()


@pytest.mark.parametrize("size", [0, 1, 300000])
def test_content_of_any_size_is_read_whole(origin, back, size):
    gate = held(origin)
    w = back()
    w.request("PUT", "/a", [ALICE], b"n" * size)
    with w.client() as c:
        assert c.get("/a", [ALICE]).body == b"n" * size
        assert c.get("/a", [ALICE]).body == b"n" * size
    gate.set()


def test_the_newest_of_several_puts_is_read(origin, back):
    gate = held(origin)
    w = back()
    for i in range(3):
        w.request("PUT", "/a", [ALICE], b"new%d" % i)
    assert w.get("/a", [ALICE]).body == b"new2"
    gate.set()


def test_a_pending_delete_is_a_404(origin, back):
    gate = held(origin)
    w = back()
    w.get("/a", [ALICE])
    assert w.request("DELETE", "/a", [ALICE]).status == 202
    r = w.get("/a", [ALICE])
    problem(r, 404, "DELETE")
    assert r.cache_status.detail == "pending" and r.cache_status.hit
    assert w.request("HEAD", "/a", [ALICE]).status == 404
    assert w.get("/a", [BOB]).body == b"old"
    assert w.request("PUT", "/a", [ALICE], b"anew").status == 202
    assert w.get("/a", [ALICE]).body == b"anew"
    gate.set()


def test_a_reader_waits_for_the_delivery_of_its_patch(origin, back):
    gate, state = origin.gate(), {"body": b"old"}

    def handler(req, conn):
        if req.method == "GET":
            return conn.respond(200, FRESH, state["body"])
        gate.wait()
        state["body"] = b"patched"
        return conn.respond(204)
    origin.on("/a", handler)
    w = back({"pending_wait": "1m"})
    w.get("/a", [ALICE])
    assert w.request("PATCH", "/a", [ALICE], b"p").status == 202
    answers = w.parallel(3, lambda i: w.get("/a", [ALICE]), meanwhile=gate.set)
    assert {r.body for r in answers} == {b"patched"}
    assert {r.cache_status.detail for r in answers}.isdisjoint({"pending"})


def test_after_the_wait_it_gets_what_is_stored_with_its_mark(origin, back):
    gate = held(origin)
    w = back({"pending_wait": "100ms"})
    w.get("/a", [ALICE])
    w.request("PATCH", "/a", [ALICE], b"p")
    r = w.get("/a", [ALICE])
    assert r.body == b"old" and r.cache_status.hit and r.cache_status.detail == "pending"
    gate.set()


@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_what_is_stored_may_be_given_at_once(origin, back, method):
    gate = held(origin)
    w = back({"pending": "stale", "pending_wait": "1h"})
    w.get("/a", [ALICE])
    w.request(method, "/a", [ALICE], b"p")
    r = w.get("/a", [ALICE])
    assert r.body == b"old" and r.cache_status.hit and r.cache_status.detail == "pending"
    assert r.header("Age") is not None and r.cache_status.ttl is not None
    assert w.get("/a", [BOB]).cache_status.detail is None
    gate.set()


def test_or_the_origin_is_asked_and_nothing_is_stored(origin, back):
    gate = held(origin)
    w = back({"pending": "bypass", "pending_wait": "1h"})
    w.get("/a", [ALICE])
    before = len([r for r in origin.of("/a") if r.method == "GET"])
    w.request("PATCH", "/a", [ALICE], b"p")
    r = w.get("/a", [ALICE])
    assert r.cache_status.fwd == "bypass" and r.cache_status.detail == "pending"
    assert not r.cache_status.stored
    assert len([r for r in origin.of("/a") if r.method == "GET"]) == before + 1
    problem(w.get("/a", [ALICE, ("Cache-Control", "only-if-cached")]), 504)
    gate.set()


def test_a_long_backlog_of_others_costs_readers_nothing_and_hides_no_write(origin, back):
    gate = held(origin)
    w = back({"pending": "bypass"})
    w.request("PUT", "/a", [ALICE], b"new")
    assert w.get("/a", [ALICE]).body == b"new"
    with w.client() as c:
        for _ in range(1100):
            assert c.request("POST", "/a", [BOB], b"p").status == 202
    r = w.get("/a", [ALICE])            # so many are not looked through
    assert r.cache_status.fwd == "bypass" and r.cache_status.detail == "pending"
    r = w.get("/a")
    assert r.body == b"old" and r.cache_status.detail != "pending"
    gate.set()


def test_a_reader_that_leaves_while_it_waits_is_forgotten(origin, back):
    gate = held(origin)
    w = back({"pending_wait": "1h"})
    w.request("PATCH", "/a", [ALICE], b"p")
    for _ in range(5):
        with w.client() as c:
            c.start("GET", "/a", [ALICE])
            c.reset()
    gate.set()
    eventually(lambda: w.get("/a", [ALICE]).status == 200)


def test_after_the_delivery_everybody_reads_what_was_written(origin, back):
    state = {"body": b"old"}

    def handler(req, conn):
        if req.method == "PUT":
            state["body"] = req.body
            return conn.respond(204)
        return conn.respond(200, FRESH, state["body"])
    origin.on("/a", handler)
    w = back()
    w.get("/a")
    r = w.request("PUT", "/a", [ALICE], b"new")
    eventually(lambda: w.get(r.header("Location")).json()["state"] == "delivered")
    for who in (ALICE, BOB):
        got = w.get("/a", [who])
        assert got.body == b"new" and got.cache_status.detail != "pending"


def test_what_the_origin_refused_is_not_read_any_more(origin, back):
    def handler(req, conn):
        if req.method == "PUT":
            return conn.respond(403, body=b"no")
        return conn.respond(200, FRESH, b"old")
    origin.on("/a", handler)
    w = back()
    w.get("/a", [ALICE])
    r = w.request("PUT", "/a", [ALICE], b"new")
    eventually(lambda: w.get(r.header("Location")).json()["state"] == "rejected")
    assert w.get("/a", [ALICE]).body == b"old"


def test_while_the_origin_is_down_writers_read_what_they_wrote(origin, back):
    w = back()
    origin.stop()
    assert w.request("PUT", "/a", [ALICE], b"new").status == 202
    assert w.get("/a", [ALICE]).body == b"new"
    assert w.get("/b", [ALICE]).status in (502, 503)


def test_the_figures_count_reads_of_what_is_pending(origin, back):
    gate = held(origin)
    w = back()
    w.request("PUT", "/a", [ALICE], b"new")
    w.get("/a", [ALICE])
    w.get("/a", [BOB])
    assert w.metric("weir_write_pending_reads_total") == 1
    gate.set()


@pytest.mark.parametrize("conf", [{}, {"coalesce": True}, {"durability": "os", "fill": "request"}])
def test_a_writer_never_reads_anything_older_than_what_it_wrote(origin, back, conf):
    """Each client writes numbers to a resource of its own, over many connections, to an origin that
    fails now and then, and is slow: whatever comes between acknowledgement and delivery, what it
    reads is what it wrote last. Others read the same resources, and never see them go back."""
    stored, lock, calls = {}, threading.Lock(), [0]

    def handler(req, conn):
        with lock:
            calls[0] += 1
            turn = calls[0]
        if req.method == "PUT":
            if turn % 7 == 0:
                return conn.respond(503)
            if turn % 5 == 0:
                time.sleep(0.01)
            with lock:
                stored[req.path] = req.body
            return conn.respond(200 if turn % 2 else 204)
        with lock:
            body = stored.get(req.path, b"0")
        return conn.respond(200, FRESH, body)
    origin.on("*", handler)
    w = back({"backoff": {"min": "1ms", "max": "20ms"}, **conf})
    end, wrong = time.monotonic() + 3, []

    def writer(i):
        who, path, n = ("Authorization", "Bearer w%d" % i), "/item/%d" % i, 0
        while time.monotonic() < end and not wrong:
            n += 1
            with w.client() as c:
                assert c.request("PUT", path, [who], b"%d" % n).status == 202
                for _ in range(3):
                    r = c.get(path, [who])
                    if r.body != b"%d" % n:
                        wrong.append((path, n, r.body, r.header("Cache-Status")))
        return n

    def reader(i):
        path, last = "/item/%d" % i, 0
        while time.monotonic() < end and not wrong:
            r = w.get(path)
            if int(r.body) < last:
                wrong.append((path, last, r.body, r.header("Cache-Status")))
            last = int(r.body)
        return last

    counts = w.parallel(8, lambda i: writer(i) if i < 4 else reader(i - 4))
    assert not wrong
    assert min(counts[:4]) > 5
    for i in range(4):
        eventually(lambda: stored["/item/%d" % i] == b"%d" % counts[i])
