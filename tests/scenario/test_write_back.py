"""Write-back: accepted first, delivered afterwards; what is accepted, what is refused, and what goes
straight to the origin."""
import json

import pytest

from harness import Closed, eventually

STATUS = "/.well-known/weir/writes/"


@pytest.fixture
def back(weir, tmp_path):
    """back(write={...}, **route) starts Weir with a journal and one write-back route."""
    def make(write=None, more=(), journal=None, **route):
        first = {"path": "/**", "policy": "write-back", "write": write or {}, **route}
        return weir(routes=[*more, first], origin={"timeout": {"connect": "500ms"}},
                    journal={"path": str(tmp_path / "journal"), **(journal or {})})
    return make


def problem(r, status, *words):
    """It is a problem document of that status whose detail has these words."""
    assert r.status == status, (r, r.body)
    assert r.header("Content-Type") == "application/problem+json"
    doc = r.json()
    assert doc["status"] == status and doc["title"]
    for word in words:
        assert word in doc["detail"], doc
    return doc


def write_id(r):
    assert r.header("Location", "").startswith(STATUS), r.raw_head
    return r.header("Location")[len(STATUS):]


def hold(origin, *paths):
    """The origin takes requests for these paths, and answers once the gate opens."""
    gate = origin.gate()

    def slowly(req, conn):
        gate.wait()
        conn.respond(200, body=b"done")
    for path in paths:
        origin.on(path, slowly)
    return gate


def written(origin, path):
    """The last write to path that came to the origin."""
    return [r for r in origin.of(path) if r.method != "GET"][-1]


# ---- the acknowledgement -----------------------------------------------------------------------

def test_a_write_is_acknowledged_before_the_origin_has_answered_it(origin, back):
    gate = hold(origin, "/a")
    w = back()
    r = w.post("/a", b"one", {"Content-Type": "text/plain"})
    assert r.status == 202
    assert r.header("Cache-Control") == "no-store"
    assert r.json()["id"] == write_id(r)
    assert r.json()["state"] in ("pending", "sending") and r.json()["position"] == 0
    got = origin.wait("/a")[0]
    assert (got.method, got.body, got.header("Content-Type")) == ("POST", b"one", "text/plain")
    gate.set()


def test_the_state_of_a_write_is_told_to_who_knows_its_id(origin, back):
    gate = hold(origin, "/a")
    w = back()
    id_ = write_id(w.post("/a", b"one"))
    r = w.get(STATUS + id_)
    assert r.status == 200 and r.header("Cache-Control") == "no-store"
    assert r.header("Content-Type") == "application/json"
    assert r.json()["id"] == id_ and r.json()["state"] in ("pending", "sending")
    with w.client() as c:
        head = c.request("HEAD", STATUS + id_)
        assert head.status == 200 and head.body == b""
    gate.set()
    eventually(lambda: w.get(STATUS + id_).json()["state"] == "delivered")
    assert origin.count(STATUS + id_) == 0


@pytest.mark.parametrize("name", ["0" * 32, "nonsense", "", "0" * 31, "0" * 33, "a/b"])
def test_an_unknown_id_is_404(origin, back, name):
    w = back()
    problem(w.get(STATUS + name), 404, "id")


def test_the_state_of_a_write_is_only_read(origin, back):
    w = back()
    r = w.request("DELETE", STATUS + "0" * 32)
    problem(r, 405, "GET")
    assert r.header("Allow") == "GET, HEAD"


def test_without_a_journal_that_path_is_like_any_other(origin, weir):
    origin.on(STATUS + "x", body=b"mine")
    assert weir().get(STATUS + "x").body == b"mine"


@pytest.mark.parametrize("ack,body", [("202", True), ("200", True), ("201", True), ("204", False)])
def test_a_route_chooses_the_status_of_the_acknowledgement(origin, back, ack, body):
    origin.on("/a", body=b"ok")
    w = back({"ack": ack})
    with w.client() as c:
        r = c.request("PUT", "/a", body=b"one")
        assert r.status == int(ack) and write_id(r)
        assert bool(r.body) == body
        if not body:
            assert r.header("Content-Length") is None and r.header("Content-Type") is None
        assert c.get(r.header("Location")).status == 200       # the connection is in order


def test_position_counts_the_writes_before_it(origin, back):
    gate = hold(origin, "/a")
    w = back()
    assert [w.post("/a", b"%d" % i).json()["position"] for i in range(3)] == [0, 1, 2]
    gate.set()


def test_other_methods_go_to_the_origin_as_with_write_through(origin, back):
    origin.on("/a", status=207, body=b"multi", reason="Multi-Status")
    w = back()
    r = w.request("PROPPATCH", "/a", body=b"<x/>")
    assert r.status == 207 and r.body == b"multi"


def test_what_is_accepted_survives_the_client_that_left(origin, back):
    origin.on("/a", body=b"ok")
    w = back()
    for i in range(20):
        with w.client() as c:
            c.start("POST", "/a", [("Content-Length", "2")])
            c.send(b"%02d" % i)
            c.reset() if i % 2 else c.close()
    eventually(lambda: len({r.body for r in origin.of("/a")}) >= 10)
    assert w.get("/a").status == 200


def test_conditions_and_fields_reach_the_origin_as_they_were(origin, back):
    origin.on("/a", body=b"ok")
    w = back(write={"omit": ["X-Secret*"]})
    assert w.request("PUT", "/a", [("If-Match", '"v1"'), ("Authorization", "Bearer t"),
                                   ("X-Secret-Thing", "s"), ("Expect", "100-continue"),
                                   ("Connection", "X-Hop"), ("X-Hop", "1"), ("Accept", "*/*")],
                     b"body").status == 202
    got = origin.wait("/a")[0]
    assert got.header("If-Match") == '"v1"' and got.header("Authorization") == "Bearer t"
    assert got.body == b"body" and got.header("Accept") == "*/*"
    for gone in ("X-Secret-Thing", "X-Hop", "Expect"):
        assert got.header(gone) is None


def test_chunked_content_is_accepted_and_its_trailers_are_dropped(origin, back):
    origin.on("/a", body=b"ok")
    w = back()
    with w.client() as c:
        c.start("POST", "/a", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
        c.send(b"3\r\none\r\n3\r\ntwo\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert c.response().status == 202
        assert c.get("/b").status == 404
    assert origin.wait("/a")[0].body == b"onetwo"


def test_a_client_that_expects_100_hears_it_and_is_acknowledged(origin, back):
    origin.on("/a", body=b"ok")
    w = back()
    with w.client() as c:
        c.start("PUT", "/a", [("Content-Length", "3"), ("Expect", "100-continue")])
        assert b" 100 " in c.wire.until(b"\r\n\r\n", "a 100")
        c.send(b"abc")
        assert c.response().status == 202


def test_writes_without_content_are_accepted(origin, back):
    origin.on("/a", body=b"ok")
    origin.on("/b", body=b"ok")
    w = back()
    assert w.request("DELETE", "/a").status == 202
    assert w.request("POST", "/b", [("Content-Length", "0")]).status == 202
    assert origin.wait("/a")[0].method == "DELETE"
    assert origin.wait("/b")[0].header("Content-Length") == "0"


# ---- when --------------------------------------------------------------------------------------

@pytest.mark.parametrize("prefer", [
    [("Prefer", "respond-async")], [("Prefer", "Respond-Async")],
    [("Prefer", "return=minimal, respond-async; wait=10")],
    [("Prefer", "return=minimal"), ("Prefer", "respond-async")],
    [("Prefer", 'respond-async=""')], [("prefer", "handling=\"a, b\" , respond-async ;;")]])
def test_who_prefers_it_is_acknowledged_first(origin, back, prefer):
    gate = hold(origin, "/a")
    w = back({"when": "prefer"})
    r = w.request("POST", "/a", prefer, b"x")
    assert r.status == 202 and r.header("Preference-Applied") == "respond-async"
    assert r.header("Vary") is None
    gate.set()


@pytest.mark.parametrize("prefer", [
    [], [("Prefer", "respond-async=no")], [("Prefer", "wait=1")], [("Prefer", "x=respond-async")],
    [("Prefer", 'x="a, respond-async"')], [("Prefer", "respond-async=1, respond-async")],
    [("Prefer", "wait; respond-async")]])
def test_who_does_not_prefer_it_has_the_origins_answer(origin, back, prefer):
    origin.on("/a", status=201, body=b"made")
    w = back({"when": "prefer"})
    r = w.request("POST", "/a", prefer, b"x")
    assert r.status == 201 and r.body == b"made" and r.header("Preference-Applied") is None


def test_a_write_does_not_overtake_those_that_wait(origin, back):
    gate = hold(origin, "/a")
    w = back({"when": "prefer"})
    assert w.request("PUT", "/a", [("Prefer", "respond-async")], b"first").status == 202
    assert w.request("PUT", "/a", body=b"second").status == 202     # behind the first
    gate.set()
    eventually(lambda: w.request("PUT", "/a", body=b"third").status == 200)
    bodies = [r.body for r in origin.of("/a") if r.method == "PUT"]
    assert bodies[:2] == [b"first", b"second"] and bodies[-1] == b"third"


def test_while_the_origin_answers_a_write_goes_straight_to_it(origin, back):
    origin.on("/a", status=201, body=b"made")
    w = back({"when": "down"})
    r = w.post("/a", b"x" * 1000)
    assert r.status == 201 and r.body == b"made"
    assert written(origin, "/a").body == b"x" * 1000
    assert w.request("PUT", "/a", [("Transfer-Encoding", "chunked")],
                     b"3\r\nabc\r\n0\r\n\r\n").status == 201
    assert written(origin, "/a").body == b"abc"


def test_while_the_origin_is_down_a_write_is_accepted(origin, origins, back):
    origin.on("/a", status=201, body=b"made")
    w = back({"when": "down", "backoff": {"min": "50ms", "max": "100ms"}})
    origin.stop()
    r = w.post("/a", b"kept", {"Content-Type": "text/plain"})
    assert r.status == 202 and write_id(r)
    again = origins(again=origin)
    got = again.wait("/a")[0]
    assert got.body == b"kept" and got.header("Content-Type") == "text/plain"
    eventually(lambda: w.get(r.header("Location")).json()["state"] == "delivered")
    eventually(lambda: w.post("/a", b"now").status == 201)


def test_a_post_whose_fate_is_unknown_is_not_accepted_in_its_place(origin, back):
    origin.on("/a", lambda req, conn: conn.reset())
    w = back({"when": "down"})
    r = w.post("/a", b"x")
    assert r.status == 502, r.body
    assert origin.count("/a") == 1


def test_a_put_whose_fate_is_unknown_is_free_to_be_repeated(origin, back):
    origin.on("/a", lambda req, conn: conn.reset())
    w = back({"when": "down"})
    assert w.request("PUT", "/a", body=b"x").status == 202


def test_content_that_is_too_long_to_keep_goes_straight_while_the_origin_answers(origin, back):
    origin.on("/a", body=b"ok")
    w = back({"when": "down", "max_body": "1KiB"})
    assert w.post("/a", b"x" * 5000).status == 200
    assert written(origin, "/a").body == b"x" * 5000


# ---- limits ------------------------------------------------------------------------------------

def test_content_over_the_limit_is_413_before_any_of_it_is_read(origin, back):
    w = back({"max_body": "1KiB"})
    with w.client() as c:
        c.start("POST", "/a", [("Content-Length", "1025"), ("Expect", "100-continue")])
        r = c.response()
        problem(r, 413, "1024")
        assert not r.interim
    assert w.post("/a", b"x" * 1024).status == 202


def test_content_that_grows_over_the_limit_is_413(origin, back):
    w = back({"max_body": "1KiB"})
    with w.client() as c:
        c.start("POST", "/a", [("Transfer-Encoding", "chunked")])
        c.send(b"400\r\n" + b"x" * 1024 + b"\r\n1\r\nx\r\n")
        problem(c.response(), 413, "1024")
    assert origin.count("/a") == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_a_route_may_let_longer_content_through(origin, back, chunked):
    origin.on("/a", status=201, body=b"made")
    w = back({"max_body": "1KiB", "too_large": "pass"})
    body = b"y" * 300000
    if chunked:
        r = w.request("POST", "/a", [("Transfer-Encoding", "chunked")],
                      b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:700], body[700:])) +
                      b"0\r\n\r\n")
    else:
        r = w.post("/a", body)
    assert r.status == 201 and written(origin, "/a").body == body


def test_longer_content_does_not_overtake_what_waits(origin, back):
    gate = hold(origin, "/a")
    w = back({"max_body": "1KiB", "too_large": "pass"})
    assert w.request("PUT", "/a", body=b"small").status == 202
    r = w.request("PUT", "/a", body=b"y" * 2000)
    problem(r, 503, "earlier writes")
    assert r.header("Retry-After")
    gate.set()
    eventually(lambda: w.request("PUT", "/a", body=b"y" * 2000).status == 200)


def test_a_full_journal_is_503_with_retry_after(origin, back):
    gate = hold(origin, "/a")
    w = back(journal={"depth": 2})
    assert [w.post("/a", b"x").status for _ in range(2)] == [202, 202]
    r = w.post("/a", b"x")
    problem(r, 503, "journal")
    assert int(r.header("Retry-After")) > 0
    gate.set()
    eventually(lambda: w.post("/a", b"x").status == 202)


def test_a_full_journal_lets_through_where_the_route_says_so_but_nothing_overtakes(origin, back):
    gate = hold(origin, "/a")
    origin.on("/b", status=201, body=b"made")
    w = back({"full": "pass"}, journal={"depth": 1})
    assert w.post("/a", b"x").status == 202
    assert w.post("/b", b"y").status == 201
    problem(w.post("/a", b"z"), 503, "earlier writes")
    r = w.post("/b", b"y", {"Idempotency-Key": '"k"'})
    problem(r, 503, "journal")                      # its key would be forgotten
    gate.set()


def test_a_journal_that_a_reload_brings_is_opened_by_the_next_start(origin, weir, tmp_path):
    origin.on("/a", status=201, body=b"made")
    w = weir(drain="1s")
    journal = {"path": str(tmp_path / "journal")}
    routes = [{"path": "/down", "policy": "write-back", "write": {"when": "down"}},
              {"path": "/**", "policy": "write-back"}]
    w.write_config(routes=routes, journal=journal)
    w.reload()
    eventually(lambda: w.post("/a", b"x").status == 503)
    r = w.post("/a", b"x")
    problem(r, 503, "journal", "start")
    assert int(r.header("Retry-After")) > 0
    assert w.get("/a").status == 201
    origin.on("/down", status=201)
    assert w.post("/down", b"x").status == 201
    problem(w.post("/down", b"x", {"Idempotency-Key": '"k"'}), 503, "journal")


# ---- the order key -----------------------------------------------------------------------------

def test_a_key_that_finds_nothing_is_400_and_named(origin, back):
    w = back({"key": "order:{request.body.order}"})
    json_ = {"Content-Type": "application/json"}
    problem(w.post("/a", b"{}", json_), 400, "request.body.order")
    problem(w.post("/a", b"no json", json_), 400, "request.body.order")
    problem(w.post("/a"), 400, "request.body.order")
    problem(w.post("/a", json.dumps({"order": [1, 2]}).encode(), json_), 400, "one value")
    assert w.post("/a", b'{"order": 7}', json_).status == 202


def test_a_key_that_finds_nothing_may_be_the_target(origin, back):
    origin.on("/a", body=b"ok")
    w = back({"key": "order:{header.x-order}", "key_missing": "target"})
    assert w.post("/a", b"x").status == 202
    assert w.post("/a", b"x", {"X-Order": "1"}).status == 202


def test_writes_of_one_key_reach_the_origin_in_order_whatever_their_paths(origin, back):
    gate = hold(origin, "/a")
    for path in ("/b", "/c"):
        origin.on(path, body=b"ok")
    w = back({"key": "{header.x-order}"})
    assert w.post("/a", b"1", {"X-Order": "k"}).status == 202
    assert w.post("/b", b"2", {"X-Order": "k"}).status == 202
    assert w.post("/c", b"3", {"X-Order": "other"}).status == 202
    origin.wait("/c")
    assert origin.count("/b") == 0
    gate.set()
    origin.wait("/b")


# ---- conditions --------------------------------------------------------------------------------

@pytest.mark.parametrize("field,value,status", [
    ("If-None-Match", "*", 412), ("If-Match", '"other"', 412), ("If-Match", "*", 202)])
def test_conditions_are_judged_by_the_writers_own_pending_put(origin, back, field, value, status):
    gate = hold(origin, "/a")
    w = back()
    assert w.request("PUT", "/a", body=b"one").status == 202
    r = w.request("PUT", "/a", [(field, value)], b"two")
    assert r.status == status, r.body
    if status == 412:
        problem(r, 412, field)
    other = w.request("PUT", "/a", [(field, value), ("Authorization", "Bearer other")], b"three")
    assert other.status == 202                      # the origin judges it: it is another client's
    gate.set()


def test_a_pending_delete_fails_if_match_and_allows_creation(origin, back):
    gate = hold(origin, "/a")
    w = back()
    assert w.request("DELETE", "/a").status == 202
    problem(w.request("PUT", "/a", [("If-Match", "*")], b"x"), 412, "If-Match")
    assert w.request("PUT", "/a", [("If-None-Match", "*")], b"x").status == 202
    gate.set()


def test_the_tag_of_pending_content_holds_for_its_writer(origin, back):
    gate = hold(origin, "/a")
    w = back()
    w.request("PUT", "/a", body=b"one")
    tag = w.get("/a").header("ETag")
    assert w.request("PUT", "/a", [("If-Match", tag)], b"two").status == 202
    problem(w.request("PUT", "/a", [("If-Match", tag)], b"three"), 412)
    gate.set()


def test_the_tag_of_pending_content_reaches_the_origin_as_its_own(origin, back):
    gate = origin.gate()

    def put(tag):
        def handler(req, conn):
            gate.wait()
            conn.respond(204, [("ETag", tag)])
        return handler
    origin.on("/a", [put('"v1"'), put('"v2"')])
    w = back({"fill": "request"})
    w.request("PUT", "/a", body=b"one")
    tag = w.get("/a").header("ETag")
    r = w.request("PUT", "/a", [("If-Match", '"other", ' + tag)], b"two")
    assert r.status == 202
    gate.set()
    eventually(lambda: w.get(r.header("Location")).json()["state"] == "delivered")
    puts = [q.header("If-Match") for q in origin.of("/a") if q.method == "PUT"]
    assert puts == [None, '"other", "v1"']


@pytest.mark.parametrize("first", [(403, []), (204, []), (204, [("ETag", 'W/"v1"')])])
def test_a_tag_that_the_origin_cannot_know_stays_and_never_holds(origin, back, first):
    gate, answers = origin.gate(), [first, (412, [])]

    def handler(req, conn):
        if req.method != "PUT":
            return conn.respond(200, [("Cache-Control", "no-store")], b"x")
        gate.wait()
        return conn.respond(*answers.pop(0))
    origin.on("/a", handler)
    w = back()
    w.request("PUT", "/a", body=b"one")
    tag = w.get("/a").header("ETag")
    r = w.request("PUT", "/a", [("If-Match", tag)], b"two")
    gate.set()
    eventually(lambda: w.get(r.header("Location")).json()["state"] == "rejected")
    assert [q.header("If-Match") for q in origin.of("/a") if q.method == "PUT"] == [None, tag]


# ---- bad framing -------------------------------------------------------------------------------

def test_content_that_breaks_off_is_never_accepted(origin, back):
    w = back()
    with w.client() as c:
        c.start("POST", "/a", [("Content-Length", "10")])
        c.send(b"half")
        c.half_close()
        try:
            assert c.response().status == 400
        except Closed:
            pass
    with w.client() as c:
        c.start("POST", "/a", [("Transfer-Encoding", "chunked")])
        c.send(b"3\r\nabc\r\nzz\r\n")
        assert c.response().status == 400
    assert w.get("/b").status == 404
    assert origin.count("/a") == 0


def test_figures_and_access_log_tell_accepted_writes_apart(origin, back):
    origin.on("/a", body=b"ok")
    w = back(name="orders")
    w.post("/a", b"x")

    def outcomes():
        return [r["outcomes"] for r in w.stats()["routes"] if r["name"] == "orders"]
    assert "accepted" in eventually(outcomes)[0] and "write" not in outcomes()[0]


def test_a_write_without_a_host_is_refused_for_it_could_not_be_delivered(origin, back):
    w = back()
    with w.client() as c:
        c.send(b"PUT /a HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
        problem(c.response(), 400, "needs a Host field")
    assert not origin.requests
