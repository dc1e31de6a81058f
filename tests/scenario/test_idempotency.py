"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07): the same key gets the same answer, and
never a second write."""
import pytest

from harness import eventually
from test_write_back import back, hold, problem     # noqa: F401  (back is a fixture)

KEY = ("Idempotency-Key", '"8e03978e-40d5-43dd"')
ROUTES = ["pass", "cache-aside", "write-through"]


@pytest.fixture
def keyed(weir, tmp_path):
    """keyed(policy, **write) starts Weir with a journal and one route that keeps keys."""
    def make(policy="cache-aside", journal=None, **write):
        return weir(routes=[{"path": "/**", "policy": policy,
                             "write": {"idempotency": "1h", **write}}],
                    journal={"path": str(tmp_path / "journal"), **(journal or {})})
    return make


def post(w, path="/pay", body=b"10 EUR", *more, key=KEY, method="POST"):
    return w.request(method, path, [("Content-Type", "text/plain"), key, *more], body)


# ---- routes whose writes go straight to the origin ---------------------------------------------

@pytest.mark.parametrize("policy", ROUTES)
def test_a_repeated_key_gets_the_first_answer_and_the_origin_is_not_asked(origin, keyed, policy):
    origin.on("/pay", status=201, headers=[("Location", "/pay/1"), ("X-Receipt", "r1")],
              body=b"paid", reason="Created")
    w = keyed(policy)
    first, again = post(w), post(w)
    for r in (first, again):
        assert (r.status, r.body, r.header("Location"), r.header("X-Receipt")) == (
            201, b"paid", "/pay/1", "r1")
    assert again.cache_status.hit and again.cache_status.detail == "repeated"
    posts = [r for r in origin.of("/pay") if r.method == "POST"]
    assert [r.header("Idempotency-Key") for r in posts] == [KEY[1]]


def test_another_request_under_the_key_is_422(origin, keyed):
    origin.on("*", status=201, body=b"paid")
    w = keyed()
    post(w)
    problem(post(w, body=b"20 EUR"), 422, "new key")
    problem(w.request("POST", "/pay", [("Content-Type", "application/json"), KEY], b"10 EUR"), 422)
    assert origin.count("/pay") == 1
    assert post(w, "/other").status == 201          # another target: another key


def test_a_key_is_its_writers_own(origin, keyed):
    origin.on("/pay", status=201, body=b"paid")
    w = keyed()
    for who in (("Authorization", "Bearer a"), ("Authorization", "Bearer b"), ("Cookie", "s=1"),
                ("Cookie", "s=2")):
        assert not post(w, "/pay", b"10 EUR", who).cache_status.hit
        assert post(w, "/pay", b"10 EUR", who).cache_status.hit
    assert origin.count("/pay") == 4


def test_while_the_first_is_at_the_origin_a_repetition_is_409(origin, keyed):
    gate = hold(origin, "/pay")
    w = keyed()
    with w.client() as c:
        c.start("POST", "/pay", [KEY, ("Content-Length", "1")])
        c.send(b"x")
        origin.wait("/pay")
        problem(w.request("POST", "/pay", [KEY], b"x"), 409, "Idempotency-Key")
        gate.set()
        assert c.response().status == 200
    eventually(lambda: w.request("POST", "/pay", [KEY], b"x").body == b"done")
    assert origin.count("/pay") == 1


@pytest.mark.parametrize("value", [
    "8e03978e", "12", ":aGk=:", '"open', '""', '"a", "b"', "a b", "?1", '"a" b', "", "(1 2)",
    '"\\x"', "'single'"])
def test_a_malformed_key_is_400_and_the_remedy_named(origin, keyed, value):
    origin.on("/pay", status=201, body=b"paid")
    w = keyed()
    problem(post(w, key=("Idempotency-Key", value)), 400, "Idempotency-Key")
    assert origin.count("/pay") == 0


def test_two_fields_are_400(origin, keyed):
    w = keyed()
    problem(post(w, "/pay", b"x", ("Idempotency-Key", '"b"')), 400, "one line")


@pytest.mark.parametrize("value", ['"a"', '"a";x=1', '"with \\"quotes\\" and \\\\"', '"' + "k" * 300 + '"'])
def test_any_string_is_a_key(origin, keyed, value):
    origin.on("/pay", status=201, body=b"paid")
    w = keyed()
    key = ("Idempotency-Key", value)
    assert post(w, key=key).status == 201 and post(w, key=key).cache_status.hit
    assert origin.count("/pay") == 1


def test_a_route_that_keeps_no_keys_hands_them_on_as_they_are(origin, weir):
    origin.on("/pay", status=201, body=b"paid")
    w = weir()
    for _ in range(2):
        assert post(w, key=("Idempotency-Key", "no string")).status == 201
    assert origin.count("/pay") == 2


def test_an_error_is_an_answer_and_is_repeated(origin, keyed):
    origin.on("/pay", [lambda q, c: c.respond(500, body=b"broke"), lambda q, c: c.respond(201)])
    w = keyed()
    assert [post(w).status, post(w).status] == [500, 500]
    assert origin.count("/pay") == 1


@pytest.mark.parametrize("status", [425, 429])
def test_what_the_origin_did_not_do_may_be_tried_again(origin, keyed, status):
    origin.on("/pay", [lambda q, c: c.respond(status), lambda q, c: c.respond(201, body=b"paid")])
    w = keyed()
    assert post(w).status == status
    eventually(lambda: post(w).status == 201)


def test_what_never_reached_the_origin_may_be_tried_again(origin, origins, keyed):
    w = keyed()
    origin.on("/pay", status=201, body=b"paid")
    origin.stop()
    assert post(w).status in (502, 503)
    again = origins(again=origin)
    eventually(lambda: post(w).status == 201)
    assert post(w).status == 201 and again.count("/pay") == 1


def test_a_fate_that_is_unknown_stays_so(origin, keyed):
    origin.on("/pay", [lambda q, c: c.reset(), lambda q, c: c.respond(201, body=b"paid")])
    w = keyed()
    assert post(w).status == 502
    problem(post(w), 409)
    assert origin.count("/pay") == 1


def test_a_fate_that_is_unknown_is_found_out_where_the_origin_knows_repetitions(origin, keyed):
    origin.on("/pay", [lambda q, c: c.reset(), lambda q, c: c.respond(201, body=b"paid")])
    w = keyed(idempotent=True)
    assert post(w).status == 502
    assert post(w).status == 201 and post(w).body == b"paid"
    assert origin.count("/pay") == 2


def test_a_put_whose_fate_is_unknown_may_be_repeated(origin, keyed):
    origin.on("/pay", lambda q, c: c.reset())
    w = keyed()
    assert post(w, method="PUT").status == 502
    origin.on("/pay", status=204)
    eventually(lambda: post(w, method="PUT").status == 204)


def test_who_left_before_the_answer_finds_it_under_the_key(origin, keyed):
    gate = hold(origin, "/pay")
    w = keyed()
    with w.client() as c:
        c.start("POST", "/pay", [KEY, ("Content-Length", "1")])
        c.send(b"x")
        origin.wait("/pay")
        c.reset()
    eventually(lambda: w.metric("weir_client_aborts_total") == 1)
    gate.set()
    eventually(lambda: w.request("POST", "/pay", [KEY], b"x").body == b"done")
    assert origin.count("/pay") == 1


def test_who_left_in_the_middle_of_the_answer_finds_the_whole_of_it(origin, keyed):
    gate = origin.gate()

    def slowly(req, conn):
        conn.head(200, [("Content-Type", "text/plain")], chunked=True)
        conn.chunk(b"first ")
        gate.wait()
        conn.chunk(b"second")
        conn.end()
    origin.on("/pay", slowly)
    w = keyed()
    with w.client() as c:
        c.start("POST", "/pay", [KEY, ("Content-Length", "1")])
        c.send(b"x")
        c.wire.until(b"first ", "the beginning")
        c.reset()
    eventually(lambda: w.metric("weir_client_aborts_total") == 1)
    gate.set()
    eventually(lambda: w.request("POST", "/pay", [KEY], b"x").body == b"first second")
    assert origin.count("/pay") == 1


def test_an_answer_too_long_to_keep_is_told_by_its_status(origin, keyed):
    origin.on("/pay", status=201, body=b"z" * 200000)
    w = keyed()
    assert len(post(w).body) == 200000
    problem(post(w), 409)
    assert origin.count("/pay") == 1


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_content_is_repeated_without(origin, keyed, status):
    origin.on("/pay", status=status, headers=[("ETag", '"v"')])
    w = keyed()
    with w.client() as c:
        for _ in range(2):
            r = c.request("POST", "/pay", [KEY], b"x")
            assert r.status == status and r.header("ETag") == '"v"'
    assert origin.count("/pay") == 1


def test_content_over_the_limit_is_413_with_a_key_only(origin, keyed):
    origin.on("/pay", status=201)
    w = keyed(max_body="1KiB")
    problem(post(w, body=b"x" * 2000), 413, "Idempotency-Key")
    assert w.post("/pay", b"x" * 2000).status == 201


def test_when_there_is_no_room_for_another_key_it_is_503_and_none_is_forgotten(origin, keyed):
    origin.on("*", status=201, body=b"p" * 30000)
    w = keyed(journal={"idempotency_size": "64KiB"})
    kept, refused = [], None
    for i in range(100):
        r = post(w, key=("Idempotency-Key", '"k%d"' % i))
        if r.status == 503:
            refused = r
            break
        kept.append(i)
    problem(refused, 503, "Idempotency-Key")
    assert int(refused.header("Retry-After")) > 0 and kept
    asked = origin.count("/pay")
    for i in kept:                                          # 409: no room for the answer either
        r = post(w, key=("Idempotency-Key", '"k%d"' % i))
        assert r.status == 409 or r.cache_status.hit
    assert origin.count("/pay") == asked
    assert w.post("/pay", b"10 EUR").status == 201          # without a key: as ever


def test_chunked_content_has_the_same_fingerprint(origin, keyed):
    origin.on("/pay", status=201, body=b"paid")
    w = keyed()
    assert w.request("POST", "/pay", [KEY, ("Transfer-Encoding", "chunked")],
                     b"2\r\n10\r\n0\r\n\r\n").status == 201
    assert w.request("POST", "/pay", [KEY], b"10").cache_status.hit
    assert origin.last("/pay").body == b"10"


def test_purges_of_a_keyed_write_see_its_content(origin, weir, tmp_path):
    origin.on("/item", headers=[("Cache-Control", "max-age=60")], body=b"old")
    origin.on("/pay", status=201)
    w = weir(routes=[{"path": "/item"}, {"path": "/**", "purge": ["/{request.body.path}"],
                                         "write": {"idempotency": "1h"}}],
             journal={"path": str(tmp_path / "journal")})
    w.get("/item")
    assert w.get("/item").cache_status.hit
    w.request("POST", "/pay", [KEY, ("Content-Type", "application/json")], b'{"path": "item"}')
    assert not w.get("/item").cache_status.hit


def test_many_at_once_with_one_key_are_one_write(origin, keyed):
    gate = hold(origin, "/pay")
    w = keyed()
    answers = w.parallel(20, lambda i: post(w), meanwhile=lambda: (origin.wait("/pay"), gate.set()))
    assert {r.status for r in answers} <= {200, 409} and 200 in {r.status for r in answers}
    assert origin.count("/pay") == 1


@pytest.mark.parametrize("begun", [False, True])
def test_a_stop_does_not_wait_for_an_answer_that_nobody_waits_for(origin, weir, tmp_path, begun):
    gate = origin.gate()

    def never(req, conn):
        if begun:
            conn.head(200, length=100)
            conn.send(b"half")
        gate.wait()
    origin.on("/pay", never)
    w = weir(routes=[{"path": "/**", "write": {"idempotency": "1h"}}],
             journal={"path": str(tmp_path / "journal")}, drain="1s")
    with w.client() as c:
        c.start("POST", "/pay", [KEY, ("Content-Length", "1")])
        c.send(b"x")
        origin.wait("/pay")
        if begun:
            c.wire.until(b"half", "the beginning")
        c.reset()
    eventually(lambda: w.metric("weir_client_aborts_total") == 1)
    assert w.stop() == 0


# ---- write-back --------------------------------------------------------------------------------

def test_a_repeated_write_is_acknowledged_with_the_same_location(origin, back):
    gate = hold(origin, "/pay")
    w = back()
    first, again = post(w), post(w)
    assert first.status == again.status == 202
    assert first.header("Location") == again.header("Location")
    problem(post(w, body=b"20 EUR"), 422)
    assert post(w, key=("Idempotency-Key", '"another"')).header("Location") != \
        first.header("Location")
    gate.set()
    origin.wait("/pay", 2)


def test_once_it_is_known_the_final_answer_is_repeated(origin, back):
    origin.on("/pay", status=201, headers=[("X-Receipt", "r1")], body=b"paid")
    w = back()
    r = post(w)
    eventually(lambda: w.get(r.header("Location")).json()["state"] == "delivered")
    again = post(w)
    assert (again.status, again.body, again.header("X-Receipt")) == (201, b"paid", "r1")
    assert len([q for q in origin.of("/pay") if q.method == "POST"]) == 1
    assert w.metric("weir_write_repeated_total") == 1


def test_write_back_keeps_keys_unless_told_otherwise(origin, back):
    origin.on("/pay", status=201)
    w = back({"idempotency": "0s"})
    assert post(w).header("Location") != post(w).header("Location")
    assert post(w, key=("Idempotency-Key", "no string")).status == 202


def test_a_malformed_key_is_400_before_any_content_is_read(origin, back):
    w = back()
    with w.client() as c:
        c.start("POST", "/pay", [("Idempotency-Key", "x"), ("Content-Length", "10"),
                                 ("Expect", "100-continue")])
        r = c.response()
        problem(r, 400, '"8e03978e-40d5-43dd"')
        assert not r.interim


def test_a_key_is_kept_across_the_ways_a_write_may_go(origin, origins, back):
    w = back({"when": "down", "backoff": {"min": "50ms", "max": "100ms"}})
    origin.on("/pay", status=201, body=b"paid")
    origin.stop()
    first = post(w)
    assert first.status == 202
    assert post(w).header("Location") == first.header("Location")
    again = origins(again=origin)
    eventually(lambda: post(w).status == 201)
    assert len([q for q in again.of("/pay") if q.method == "POST"]) == 1


def test_keys_survive_a_restart(origin, weir, tmp_path):
    origin.on("/pay", status=201, body=b"paid")
    conf = {"routes": [{"path": "/**", "write": {"idempotency": "1h"}}],
            "journal": {"path": str(tmp_path / "journal")}}
    host = ("Host", "api.example")
    w = weir(**conf)
    post(w, "/pay", b"10 EUR", host)
    assert w.stop() == 0
    w = weir(**conf)
    assert post(w, "/pay", b"10 EUR", host).cache_status.hit
    assert origin.count("/pay") == 1
