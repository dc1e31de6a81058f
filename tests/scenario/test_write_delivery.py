"""Delivery of accepted writes: order, what is tried again, dead letters, restarts, batches, and what
the cache holds afterwards."""
import contextlib
import json
import signal
import socket
import sqlite3
import time

import pytest

from harness import TIMEOUT, eventually

STATUS = "/.well-known/weir/writes/"
FAST = {"min": "10ms", "max": "50ms"}


@pytest.fixture
def back(weir, tmp_path):
    """back(write={...}, **route) starts Weir with the test's journal and one write-back route."""
    def make(write=None, more=(), **route):
        return weir(**settings(write, more, tmp_path, **route))
    return make


def settings(write, more, tmp_path, **route):
    first = {"path": "/**", "policy": "write-back", "write": {"backoff": FAST, **(write or {})},
             **route}
    return {"routes": [*more, first], "origin": {"timeout": {"connect": "500ms"}},
            "journal": {"path": str(tmp_path / "journal")}}


def accept(w, method, path, body=b"x", headers=()):
    r = w.request(method, path, headers, body)
    assert r.status == 202, (r, r.body)
    return r.json()["id"]


def state(w, id_):
    return w.get(STATUS + id_).json()["state"]


def becomes(w, id_, wanted):
    eventually(lambda: state(w, id_) == wanted,
               message="%s is %s, not %s" % (id_, state(w, id_), wanted))


def counts(w, name, n):
    """A state is told once it is committed, the figures a moment later."""
    eventually(lambda: w.metric(name) == n, message="%s is %r" % (name, w.metric(name)))


def writes(origin, path=None):
    return [r for r in origin.requests if r.method not in ("GET", "HEAD") and
            (path is None or r.target == path)]


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def answers(*statuses, headers=()):
    """One status after the other; the last stays."""
    left = list(statuses)

    def handler(req, conn):
        if req.method == "GET":
            conn.respond(200, [("Cache-Control", "max-age=600")], b"origin")
            return
        status = left.pop(0) if len(left) > 1 else left[0]
        conn.respond(status, headers, b"answer")
    return handler


# ---- what is tried again -----------------------------------------------------------------------

@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_put_is_tried_again_until_it_is_taken(origin, back, status):
    origin.on("/a", answers(status, status, 204))
    w = back()
    becomes(w, accept(w, "PUT", "/a"), "delivered")
    assert len(writes(origin)) == 3
    counts(w, "weir_writes_delivered_total", 1)
    counts(w, "weir_writes_retried_total", 2)


@pytest.mark.parametrize("status,states", [
    (425, None), (429, None), (408, "rejected"), (500, "rejected"), (503, "rejected"),
    (502, "uncertain"), (504, "uncertain")])
def test_a_post_is_tried_again_only_where_the_origin_did_nothing(origin, back, status, states):
    origin.on("/a", answers(status, 201))
    w = back()
    becomes(w, accept(w, "POST", "/a"), states or "delivered")
    assert len(writes(origin)) == (2 if states is None else 1)


@pytest.mark.parametrize("status", [301, 304, 400, 404, 409, 412, 422])
def test_a_final_answer_makes_a_dead_letter_at_once(origin, back, status):
    origin.on("/a", answers(status))
    w = back()
    id_ = accept(w, "PUT", "/a")
    becomes(w, id_, "rejected")
    assert len(writes(origin)) == 1 and w.get(STATUS + id_).json()["status"] == status
    counts(w, "weir_writes_dead", 1)


def test_a_post_that_is_promised_idempotent_is_tried_again_with_the_same_key(origin, back):
    calls = []

    def handler(req, conn):
        calls.append(req)
        conn.reset() if len(calls) < 3 else conn.respond(201)
    origin.on("/a", handler)
    w = back({"idempotent": True})
    id_ = accept(w, "POST", "/a")
    becomes(w, id_, "delivered")
    assert [r.header("Idempotency-Key") for r in writes(origin)] == ['"%s"' % id_] * 3


def test_a_post_without_an_answer_is_uncertain(origin, back):
    origin.on("/a", lambda req, conn: conn.reset())
    w = back()
    id_ = accept(w, "POST", "/a")
    becomes(w, id_, "uncertain")
    assert len(writes(origin)) == 1
    assert w.get(STATUS + id_).json()["cause"] == "connection_terminated"


def closes_what_was_used(req, conn):
    """An origin whose close of an idle connection crosses the next request on it."""
    if conn.origin.used.setdefault(conn.number, req.target) != req.target:
        conn.reset()
    else:
        conn.respond(201)


def test_a_post_is_not_sent_over_a_connection_that_the_origin_may_be_closing(origin, back):
    origin.used = {}
    origin.on("/a", closes_what_was_used)
    origin.on("/b", closes_what_was_used)
    w = back()
    becomes(w, accept(w, "POST", "/a"), "delivered")
    time.sleep(.15)                                 # idle for longer than a moment
    becomes(w, accept(w, "POST", "/b"), "delivered")


def test_a_post_of_a_route_that_writes_back_when_the_origin_is_down_is_not_either(origin, back):
    origin.used = {}
    origin.on("/a", closes_what_was_used)
    origin.on("/b", closes_what_was_used)
    w = back({"when": "down"})
    assert w.request("POST", "/a", body=b"x").status == 201
    time.sleep(.15)
    assert w.request("POST", "/b", body=b"x").status == 201


def test_attempts_and_time_are_limited(origin, back):
    origin.on("/a", answers(503))
    w = back({"attempts": 3})
    becomes(w, accept(w, "PUT", "/a"), "expired")
    assert len(writes(origin)) == 3


def test_the_time_for_retries_is_limited(origin, back):
    origin.on("/a", answers(503))
    w = back({"retry_for": "300ms"})
    becomes(w, accept(w, "PUT", "/a"), "expired")
    assert len(writes(origin)) > 1


def test_retry_after_is_honoured(origin, back):
    times = []

    def handler(req, conn):
        times.append(time.monotonic())
        conn.respond(503, [("Retry-After", "1")]) if len(times) == 1 else conn.respond(200)
    origin.on("/a", handler)
    w = back()
    becomes(w, accept(w, "PUT", "/a"), "delivered")
    assert times[1] - times[0] >= 0.99


# ---- what goes with it -------------------------------------------------------------------------

def test_every_delivery_has_a_key_and_the_time_of_acceptance(origin, back):
    origin.on("*", status=200)
    w = back()
    id_ = accept(w, "POST", "/a", headers=[("X-Weir-Accepted", "mine")])
    becomes(w, id_, "delivered")
    first = writes(origin)[0]
    assert first.header("Idempotency-Key") == '"%s"' % id_
    assert first.all("X-Weir-Accepted") != ["mine"] and len(first.all("X-Weir-Accepted")) == 1
    assert first.header("X-Weir-Accepted").endswith(" GMT")
    becomes(w, accept(w, "POST", "/b", headers=[("Idempotency-Key", '"mine"')]), "delivered")
    assert writes(origin, "/b")[0].all("Idempotency-Key") == ['"mine"']


def test_fields_that_a_route_omits_are_not_delivered(origin, back):
    origin.on("*", status=200)
    w = back({"omit": ["authorization", "X-Secret-*"]})
    becomes(w, accept(w, "PUT", "/a", headers=[
        ("Authorization", "Bearer x"), ("x-secret-one", "1"), ("X-Other", "2")]), "delivered")
    got = writes(origin)[0]
    assert got.header("Authorization") is None and got.header("X-Secret-One") is None
    assert got.header("X-Other") == "2"


# ---- order -------------------------------------------------------------------------------------

def test_a_failing_write_holds_its_target_and_nothing_else(origin, back):
    gate = origin.gate()
    origin.on("/a", lambda req, conn: conn.respond(200 if gate.is_set() else 503))
    origin.on("/b", status=200)
    w = back()
    ids = [accept(w, "PUT", "/a", b"%d" % i) for i in range(3)]
    becomes(w, accept(w, "PUT", "/b"), "delivered")
    assert state(w, ids[1]) == "pending"
    gate.set()
    for id_ in ids:
        becomes(w, id_, "delivered")
    bodies = [r.body for r in writes(origin, "/a")]
    assert sorted(bodies) == bodies and bodies[-2:] == [b"1", b"2"]


def test_writes_to_many_targets_arrive_in_order_for_each(origin, back):
    origin.on("*", status=200)
    w = back({"concurrency": 5})
    ids = [accept(w, "PUT", "/%d" % (i % 7), b"%04d" % i) for i in range(140)]
    for id_ in ids:
        becomes(w, id_, "delivered")
    for t in range(7):
        bodies = [r.body for r in writes(origin, "/%d" % t)]
        assert bodies == [b"%04d" % i for i in range(140) if i % 7 == t]


# ---- the origin's absence ----------------------------------------------------------------------

def test_when_the_origin_is_back_all_that_waited_is_delivered(origin, origins, back):
    w = back({"backoff": {"min": "10ms", "max": "1h"}})
    origin.on("*", status=200)
    origin.stop()
    ids = [accept(w, "PUT", "/%d" % i) for i in range(40)]
    eventually(lambda: w.metric("weir_writes_retried_total") >= 5)
    again = origins(again=origin)
    eventually(lambda: len(writes(again)) >= 35)
    w.api("POST", "/writes/retry", {"state": "waiting"})
    for id_ in ids:
        becomes(w, id_, "delivered")


# ---- restarts ----------------------------------------------------------------------------------

def test_what_is_pending_survives_a_kill(origin, weir, tmp_path):
    gate = origin.gate()

    def handler(req, conn):
        gate.wait()
        conn.respond(200)
    origin.on("/held", handler)
    origin.on("/a", status=200)
    conf = settings({"concurrency": 1}, [], tmp_path)
    w = weir(**conf)
    held = accept(w, "PUT", "/held")
    origin.wait("/held")
    id_ = accept(w, "POST", "/a", b"kept")
    assert w.stop(signal.SIGKILL) == -signal.SIGKILL
    gate.set()
    w = weir(**conf)
    becomes(w, held, "delivered")               # a PUT is sent again
    becomes(w, id_, "delivered")
    assert [r.body for r in writes(origin, "/a")] == [b"kept"]
    assert len(writes(origin, "/held")) == 2
    assert len({r.header("Idempotency-Key") for r in writes(origin, "/held")}) == 1


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_post_at_the_origin_when_it_is_killed_is_uncertain_or_sent_again(origin, weir, tmp_path,
                                                                           idempotent):
    gate = origin.gate()

    def handler(req, conn):
        gate.wait()
        conn.respond(200)
    origin.on("/a", handler)
    conf = settings({"idempotent": idempotent}, [], tmp_path)
    w = weir(**conf)
    id_ = accept(w, "POST", "/a")
    origin.wait("/a")
    w.stop(signal.SIGKILL)
    gate.set()
    w = weir(**conf)
    becomes(w, id_, "delivered" if idempotent else "uncertain")
    assert len(writes(origin)) == (2 if idempotent else 1)


def test_writes_of_a_route_that_is_gone_are_held_until_it_is_back(origin, weir, tmp_path):
    gate = origin.gate()
    origin.on("/a", lambda req, conn: conn.respond(200 if gate.is_set() else 503))
    conf = settings({}, [], tmp_path, name="mine")
    w = weir(**conf)
    id_ = accept(w, "PUT", "/a")
    eventually(lambda: w.metric("weir_writes_retried_total") >= 1)
    other = settings({}, [], tmp_path, name="another")
    w.write_config(**other)
    w.reload()
    eventually(lambda: w.log_has("loaded again"))
    eventually(lambda: w.api("GET", "/writes/" + id_).json().get("held") == "no such route now")
    gate.set()
    w.write_config(**conf)
    w.reload()
    becomes(w, id_, "delivered")


def test_a_stop_waits_for_deliveries_that_are_at_the_origin(origin, weir, tmp_path):
    gate = origin.gate()

    def handler(req, conn):
        gate.wait()
        conn.respond(200)
    origin.on("/a", handler)
    conf = settings({}, [], tmp_path)
    w = weir(**conf)
    id_ = accept(w, "POST", "/a")
    origin.wait("/a")
    w.terminate()
    eventually(lambda: w.log_has("draining"))
    gate.set()
    assert w.stop() == 0
    w = weir(**conf)
    assert state(w, id_) == "delivered" and len(writes(origin)) == 1


def test_a_post_that_was_not_sent_before_the_stop_is_sent_after_it(origin, weir, tmp_path):
    origin.on("/a", answers(429, 200, headers=[("Retry-After", "1")]))
    conf = {**settings({}, [], tmp_path), "drain": "100ms"}
    w = weir(**conf)
    id_ = accept(w, "POST", "/a")
    becomes(w, id_, "waiting")
    with contextlib.closing(sqlite3.connect(tmp_path / "journal", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")               # `sending` cannot be committed
        eventually(lambda: w.stats()["writes"]["delivering"] == 1)
        w.terminate()
        eventually(lambda: not listens(w.admin))    # all is cut
        db.execute("ROLLBACK")
        w.process.wait(TIMEOUT)
    assert w.stop() == 0
    w = weir(**conf)
    becomes(w, id_, "delivered")
    assert len(writes(origin)) == 2


def test_a_post_that_was_only_connecting_when_the_stop_cut_it_is_sent_after_it(origin, weir,
                                                                               tmp_path):
    origin.on("/a", answers(201))
    with socket.socket() as full:                   # nobody accepts: no further connection is made
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = "http://127.0.0.1:%d" % full.getsockname()[1]
        with contextlib.ExitStack() as waiting:
            for _ in range(4):
                s = waiting.enter_context(socket.socket())
                s.setblocking(False)
                s.connect_ex(full.getsockname())
            conf = {**settings({}, [], tmp_path), "drain": "100ms"}
            conf["origin"] = {"servers": [url], "timeout": {"connect": "30s"}}
            w = weir(**conf)
            id_ = accept(w, "POST", "/a")
            becomes(w, id_, "sending")
            assert w.stop() == 0
    conf["origin"] = {}
    w = weir(**conf)
    becomes(w, id_, "delivered")
    assert w.get(STATUS + id_).json()["attempts"] == 1


# ---- operators ---------------------------------------------------------------------------------

def test_what_is_paused_waits_and_goes_on(origin, weir, tmp_path):
    origin.on("*", status=200)
    conf = settings({}, [], tmp_path, name="mine")
    w = weir(**conf)
    assert w.api("POST", "/writes/pause", {"route": "mine"}).status == 200
    id_ = accept(w, "PUT", "/a")
    assert w.stop() == 0
    w = weir(**conf)                            # it is remembered
    assert state(w, id_) == "pending"
    assert w.api("GET", "/writes/" + id_).json()["held"] == "paused"
    assert w.get(STATUS + id_).json()["held"] == "paused"      # its writer hears it too
    assert w.api("POST", "/writes/resume", {"route": "mine"}).status == 200
    becomes(w, id_, "delivered")


def test_a_write_that_is_found_damaged_stands_before_no_other(origin, weir, tmp_path):
    origin.on("*", status=200)
    conf = settings({"key": "{header.x-key}"}, [], tmp_path, name="mine")
    w = weir(**conf)
    w.api("POST", "/writes/pause", {"route": "mine"})
    made = [accept(w, "POST", "/a", headers=[("X-Key", "k")]) for _ in range(2)]
    assert w.stop() == 0
    with contextlib.closing(sqlite3.connect(str(tmp_path / "journal"))) as journal:
        journal.execute("UPDATE content SET body = 'other' WHERE seq = "
                        "(SELECT min(seq) FROM content)")
        journal.commit()
    w = weir(**conf)
    becomes(w, made[0], "uncertain")
    assert w.post("/a", b"x", [("X-Key", "k")]).json()["position"] == 1
    w.api("POST", "/writes/resume", {"route": "mine"})
    becomes(w, made[1], "delivered")


def test_the_log_says_that_writes_wait_for_a_route_that_is_gone(origin, weir, tmp_path):
    conf = settings({}, [], tmp_path, name="mine")
    w = weir(**conf)
    w.api("POST", "/writes/pause", {"route": "mine"})
    accept(w, "PUT", "/a")
    assert w.stop() == 0
    conf["routes"][0]["name"] = "other"
    w = weir(**conf)
    eventually(lambda: w.log_has("writes: 1 pending of route mine wait"))


def test_a_dead_letter_is_retried_or_dropped_by_a_person(origin, back):
    origin.on("/a", answers(400, 200))
    origin.on("/b", answers(400))
    w = back()
    id_, other = accept(w, "POST", "/a", b"one"), accept(w, "POST", "/b")
    becomes(w, id_, "rejected")
    becomes(w, other, "rejected")
    assert w.api("POST", "/writes/%s/retry" % id_).status == 200
    becomes(w, id_, "delivered")
    assert [r.body for r in writes(origin, "/a")] == [b"one", b"one"]
    assert w.api("POST", "/writes/%s/retry" % id_).status == 409
    assert w.api("DELETE", "/writes/" + other).status == 200
    assert state(w, other) == "dropped"
    assert w.api("DELETE", "/writes/" + other).status == 409


def test_a_pending_write_that_is_dropped_is_never_sent(origin, back):
    origin.on("*", status=200)
    w = back(name="mine")
    w.api("POST", "/writes/pause", {"route": "mine"})
    ids = [accept(w, "PUT", "/a", b"%d" % i) for i in range(3)]
    assert w.api("DELETE", "/writes/" + ids[0]).status == 200
    w.api("POST", "/writes/resume", {"route": "mine"})
    becomes(w, ids[2], "delivered")
    assert [r.body for r in writes(origin)] == [b"1", b"2"] and state(w, ids[0]) == "dropped"


# ---- coalescing --------------------------------------------------------------------------------

def test_of_puts_that_wait_only_the_newest_is_sent(origin, back):
    origin.on("*", status=200)
    w = back({"coalesce": True}, name="mine")
    w.api("POST", "/writes/pause", {"route": "mine"})
    ids = [accept(w, "PUT", "/a", b"%d" % i) for i in range(5)]
    last = accept(w, "DELETE", "/a", None)
    w.api("POST", "/writes/resume", {"route": "mine"})
    becomes(w, last, "delivered")
    assert [state(w, i) for i in ids] == ["superseded"] * 4 + ["delivered"]
    assert [(r.method, r.body) for r in writes(origin)] == [("PUT", b"4"), ("DELETE", b"")]
    counts(w, "weir_writes_superseded_total", 4)


def test_what_stands_between_two_puts_is_never_skipped(origin, back):
    origin.on("*", status=200)
    w = back({"coalesce": True}, name="mine")
    w.api("POST", "/writes/pause", {"route": "mine"})
    for body, headers in ((b"0", ()), (b"1", [("If-Match", "*")]), (b"2", ()), (b"3", ())):
        id_ = accept(w, "PUT", "/a", body, headers)
    accept(w, "PUT", "/a?q=1", b"4")
    id_ = accept(w, "PUT", "/a", b"5")
    w.api("POST", "/writes/resume", {"route": "mine"})
    becomes(w, id_, "delivered")
    assert [r.body for r in writes(origin)] == [b"0", b"1", b"3", b"4", b"5"]


def test_a_put_of_somebody_else_takes_nobodys_place(origin, back):
    def handler(req, conn):
        conn.respond(200 if req.header("Authorization") == "mine" else 403)
    origin.on("/a", handler)
    w = back({"coalesce": True}, name="mine")
    w.api("POST", "/writes/pause", {"route": "mine"})
    mine = [accept(w, "PUT", "/a", body, [("Authorization", "mine")]) for body in (b"0", b"1")]
    others = accept(w, "PUT", "/a", b"2")
    w.api("POST", "/writes/resume", {"route": "mine"})
    becomes(w, others, "rejected")
    assert [state(w, i) for i in mine] == ["superseded", "delivered"]
    assert [r.body for r in writes(origin)] == [b"1", b"2"]


# ---- batching ----------------------------------------------------------------------------------

BATCH = {"to": "/bulk", "max": 4, "every": "100ms"}


def held_posts(w, n, path="/e"):
    w.api("POST", "/writes/pause", {"route": "mine"})
    ids = [accept(w, "POST", path, b'{"n": %d}' % i, [("Content-Type", "application/json")])
           for i in range(n)]
    w.api("POST", "/writes/resume", {"route": "mine"})
    return ids


def test_posts_are_sent_together_as_an_array(origin, back):
    origin.on("/bulk", status=200)
    w = back({"batch": BATCH}, name="mine")
    ids = held_posts(w, 6)
    for id_ in ids:
        becomes(w, id_, "delivered")
    sent = writes(origin)
    assert {r.target for r in sent} == {"/bulk"}
    assert [[e["n"] for e in json.loads(r.body)] for r in sent] == [[0, 1, 2, 3], [4, 5]]
    assert sent[0].header("Content-Type") == "application/json"
    assert len({r.header("Idempotency-Key") for r in sent}) == 2


def test_posts_are_sent_together_as_lines(origin, back):
    origin.on("/bulk", status=200)
    w = back({"batch": {**BATCH, "format": "ndjson"}}, name="mine")
    for id_ in held_posts(w, 3):
        becomes(w, id_, "delivered")
    assert writes(origin)[0].body == b'{"n": 0}\n{"n": 1}\n{"n": 2}\n'
    assert writes(origin)[0].header("Content-Type") == "application/x-ndjson"


@pytest.mark.parametrize("status", [200, 207])
def test_each_of_a_batch_has_its_own_result(origin, back, status):
    def handler(req, conn):
        if len(json.loads(req.body)) > 1:
            conn.respond(status, [], json.dumps({"results": [
                {"status": 201}, {"status": 422}, {"status": 429}]}).encode())
        else:
            conn.respond(200)
    origin.on("/bulk", handler)
    w = back({"batch": BATCH}, name="mine")
    ids = held_posts(w, 3)
    becomes(w, ids[0], "delivered")
    becomes(w, ids[1], "rejected")
    becomes(w, ids[2], "delivered")
    assert json.loads(writes(origin)[-1].body) == [{"n": 2}]


@pytest.mark.parametrize("answer", [[404, 405, 406], {"ids": [404, 405, 406]},
                                    {"coupons": [{"code": 404}, {"code": "500"}, {"code": 406}]}])
def test_numbers_in_the_answer_to_a_batch_are_no_results(origin, back, answer):
    origin.on("/bulk", status=200, body=json.dumps(answer).encode())
    w = back({"batch": BATCH}, name="mine")
    for id_ in held_posts(w, 3):
        becomes(w, id_, "delivered")
    assert len(writes(origin)) == 1


def test_a_batch_that_fails_is_tried_as_a_whole_and_then_split(origin, back):
    def handler(req, conn):
        conn.respond(400 if any(e["n"] == 2 for e in json.loads(req.body)) else 200)
    origin.on("/bulk", handler)
    w = back({"batch": BATCH}, name="mine")
    ids = held_posts(w, 4)
    for i in (0, 1, 3):
        becomes(w, ids[i], "delivered")
    becomes(w, ids[2], "rejected")
    sizes = [len(json.loads(r.body)) for r in writes(origin)]
    assert sizes[:3] == [4, 4, 2]


@pytest.mark.parametrize("status", [408, 500, 503])
def test_a_batch_that_the_origin_may_have_done_is_not_sent_again_without_a_promise(origin, back,
                                                                                   status):
    origin.on("/bulk", status=status)
    w = back({"batch": BATCH}, name="mine")
    for id_ in held_posts(w, 4):
        becomes(w, id_, "rejected")
    assert len(writes(origin)) == 1


@pytest.mark.parametrize("format", ["json-array", "ndjson"])
def test_what_is_not_one_value_of_json_goes_alone(origin, back, format):
    origin.on("/bulk", status=200)
    origin.on("/e", status=200)
    w = back({"batch": {**BATCH, "max": 9, "format": format}}, name="mine")
    w.api("POST", "/writes/pause", {"route": "mine"})
    contents = [b"1", b'{"a": "', b"2", b'"}', b"3,4", b"5], [6", b"not", b"1 2", b'"x" ']
    ids = [accept(w, "POST", "/e", c) for c in contents]
    w.api("POST", "/writes/resume", {"route": "mine"})
    for id_ in ids:
        becomes(w, id_, "delivered")
    assert [r.body for r in writes(origin, "/e")] == [
        c for c in contents if c not in (b"1", b"2", b'"x" ')]
    sent = b"".join(r.body for r in writes(origin, "/bulk"))
    assert [int(c) for c in sent.decode() if c.isdigit()] == [1, 2]


def test_a_route_with_batches_coalesces_its_puts(origin, back):
    origin.on("/e", status=200)
    w = back({"batch": BATCH, "coalesce": True}, name="mine")
    w.api("POST", "/writes/pause", {"route": "mine"})
    ids = [accept(w, "PUT", "/e", b"%d" % i) for i in range(3)]
    w.api("POST", "/writes/resume", {"route": "mine"})
    becomes(w, ids[2], "delivered")
    assert [state(w, i) for i in ids] == ["superseded", "superseded", "delivered"]
    assert [r.body for r in writes(origin)] == [b"2"]


def test_the_writes_of_a_batch_keep_their_keys_in_other_company(origin, back):
    by_key = {}

    def handler(req, conn):
        keys = [k.strip() for k in (req.header("X-Weir-Idempotency-Keys") or
                                    req.header("Idempotency-Key")).split(",")]
        for key, n in zip(keys, json.loads(req.body), strict=True):
            by_key.setdefault(key, []).append(n)
        conn.respond(200) if len(writes(origin)) > 2 else conn.reset()
    origin.on("/bulk", handler)
    w = back({"batch": {**BATCH, "max": 8}, "idempotent": True}, name="mine")
    w.api("POST", "/writes/pause", {"route": "mine"})
    ids = [accept(w, "POST", "/e/%d" % i, b"%d" % i,
                  [("Idempotency-Key", '"its own"'), ("X-Weir-Idempotency-Keys", '"forged"')]
                  if i == 3 else []) for i in range(5)]
    w.api("POST", "/writes/resume", {"route": "mine"})
    for id_ in ids:
        becomes(w, id_, "delivered")
    names = {'"%s"' % id_: n for n, id_ in enumerate(ids) if n != 3} | {'"its own"': 3}
    assert {k: set(v) for k, v in by_key.items()} == {k: {n} for k, n in names.items()}
    assert all(len(v) > 1 for v in by_key.values())


def test_a_post_with_a_condition_goes_alone_to_its_own_target(origin, back):
    origin.on("*", status=200)
    w = back({"batch": BATCH}, name="mine")
    w.api("POST", "/writes/pause", {"route": "mine"})
    json = ("Content-Type", "application/json")
    ids = [accept(w, "POST", "/%s" % i, b"%d" % i, [json] + ([("If-Match", '"x"')] if i in (1, 2) else []))
           for i in range(4)]
    w.api("POST", "/writes/resume", {"route": "mine"})
    for i in ids:
        becomes(w, i, "delivered")
    sent = {r.path: (r.body, r.header("If-Match")) for r in writes(origin) if r.path != "/bulk"}
    assert sent == {"/1": (b"1", '"x"'), "/2": (b"2", '"x"')}
    together = [r for r in writes(origin) if r.path == "/bulk"]
    assert sorted(b"".join(r.body for r in together).replace(b"][", b",")) == sorted(b"[0,3]")
    assert all(r.header("If-Match") is None for r in together)


def test_a_batch_is_of_one_clients_writes(origin, back):
    origin.on("/bulk", status=200)
    w = back({"batch": BATCH}, name="mine")
    w.api("POST", "/writes/pause", {"route": "mine"})
    ids = [accept(w, "POST", "/e", b"%d" % i, [("Authorization", who)])
           for i, who in enumerate(["a", "a", "b", "b"])]
    w.api("POST", "/writes/resume", {"route": "mine"})
    for id_ in ids:
        becomes(w, id_, "delivered")
    assert [(r.header("Authorization"), r.body) for r in writes(origin)] == \
        [("a", b"[0,1]"), ("b", b"[2,3]")]


# ---- the cache afterwards ----------------------------------------------------------------------

def versions(origin, path):
    """A resource: GET says what was PUT last."""
    now = {"body": b"first"}

    def handler(req, conn):
        if req.method == "PUT":
            now["body"] = req.body
            conn.respond(204)
        else:
            conn.respond(200, [("Cache-Control", "max-age=600")], now["body"])
    origin.on(path, handler)


def is_hit(w, path):
    r = w.get(path, [("Cache-Control", "only-if-cached")])
    return r.body if r.status == 200 else None


def test_after_delivery_the_cache_holds_what_was_written(origin, back):
    versions(origin, "/a")
    w = back()
    assert w.get("/a").body == b"first"
    becomes(w, accept(w, "PUT", "/a", b"second"), "delivered")
    assert is_hit(w, "/a") == b"second"


def test_a_write_is_delivered_once_the_origin_has_answered_whatever_the_fetch_does(origin, back):
    gate = origin.gate()

    def handler(req, conn):
        if req.method == "GET" and len(writes(origin, "/a")) > 0:
            gate.wait()
        conn.respond(200, [("Cache-Control", "max-age=600")], b"x")
    origin.on("/a", handler)
    w = back()
    w.get("/a")
    id_ = accept(w, "PUT", "/a")
    origin.wait("/a", 3)                        # the fetch is at the origin, and stays there
    becomes(w, id_, "delivered")
    gate.set()
    eventually(lambda: is_hit(w, "/a") == b"x")


def test_what_nobody_read_is_not_fetched_after_delivery_unless_the_route_says_so(origin, back):
    versions(origin, "/a")
    w = back(more=[{"path": "/b", "policy": "write-back", "write": {"fill": "refetch"}}])
    becomes(w, accept(w, "PUT", "/a", b"second"), "delivered")
    assert [r.method for r in origin.of("/a")] == ["PUT"]
    versions(origin, "/b")
    becomes(w, accept(w, "PUT", "/b", b"second"), "delivered")
    assert [r.method for r in origin.of("/b")] == ["PUT", "GET"] and is_hit(w, "/b") == b"second"


def test_the_content_of_a_put_is_what_is_stored_where_the_route_says_so(origin, back):
    versions(origin, "/a")
    w = back({"fill": "request"}, ttl="10m")
    w.get("/a")
    becomes(w, accept(w, "PUT", "/a", b"second", [("Content-Type", "text/plain")]), "delivered")
    assert is_hit(w, "/a") == b"second"
    assert len([r for r in origin.of("/a") if r.method == "GET"]) == 1


def test_after_a_dead_letter_readers_see_the_origins_truth(origin, back):
    origin.on("/a", answers(409))
    w = back()
    w.get("/a")
    becomes(w, accept(w, "PUT", "/a", b"second"), "rejected")
    assert is_hit(w, "/a") is None
    assert w.get("/a").body == b"origin"


def test_what_the_route_names_is_purged_after_delivery(origin, back):
    origin.on("*", lambda req, conn: conn.respond(
        200, [("Cache-Control", "max-age=600")], b'{"id": 7}'))
    w = back(path="/users/{id}", purge=["/list", "/by/{response.body.id}"],
             more=[{"path": "/list"}, {"path": "/by/{id}"}])
    for path in ("/list", "/by/7", "/by/8"):
        w.get(path)
    becomes(w, accept(w, "PUT", "/users/1"), "delivered")
    assert is_hit(w, "/list") is None and is_hit(w, "/by/7") is None and is_hit(w, "/by/8")
