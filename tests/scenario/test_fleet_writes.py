"""Writes in a fleet: three instances that share a journal in Redis. Whichever a client meets, a
write is delivered once, in order, and known to all."""
import contextlib
import functools
import os
import re
import socket
import threading

import pytest

from harness import Client, Closed, Redis, Relay, SLOW, eventually

STATUS = "/.well-known/weir/writes/"
ALICE, BOB = ("Authorization", "alice"), ("Authorization", "bob")
PARTITIONS = 64
HOST = "shop.test"                      # of all instances, as if behind one address
LEASE = 2                               # seconds; short, so that its end can be awaited


@pytest.fixture
def fleet(redis, weir, origin):
    """fleet(n, write={...}, **keys): n instances with one write-back route and one journal."""
    def make(n=3, write=None, join=(), journal=None, cache=False, more=(), **keys):
        route = {"path": "/**", "policy": "write-back", "write": {
            "backoff": {"min": "20ms", "max": "100ms"}, **(write or {})}}
        journal = {"redis": {"url": redis.url, "lease": "%ds" % LEASE, **(journal or {})}}
        if cache:
            keys["cache"] = {"redis": {"url": redis.url, "min_ttl": "1h"}}
        made = [weir(routes=[*more, route], journal=journal,
                     origin={"timeout": {"connect": "500ms"}}, **keys) for _ in range(n)]
        for w in made:
            w.client = functools.partial(Client, w.port, HOST)
        shared([*join, *made])
        return made
    return make


def partitions(w):
    return w.stats()["writes"]["partitions"]


def shared(instances):
    """All partitions are owned, and everybody has some."""
    try:
        eventually(lambda: sum(have := [partitions(w) for w in instances]) == PARTITIONS and all(have),
                   timeout=30 * SLOW)
    except AssertionError:
        raise AssertionError("partitions: %r" % [partitions(w) for w in instances]) from None


def held(origin, *paths):
    gate = origin.gate()

    def slowly(req, conn):
        if req.method != "GET":
            gate.wait()
        conn.respond(200, [("Cache-Control", "max-age=600")], b"old")
    for path in paths:
        origin.on(path, slowly)
    return gate


def written(origin, path):
    return [r for r in origin.of(path) if r.method != "GET"]


def serves(w, path):
    try:
        return w.get(path).status < 600
    except (OSError, Closed):
        return False


def drained(*instances):
    eventually(lambda: all(w.api("GET", "/writes?state=pending").json().get("writes") == []
                           for w in instances), timeout=30 * SLOW)


def fence(r):
    token, part = re.fullmatch(r"(\d+);partition=(\d+)", r.header("X-Weir-Fence")).groups()
    return int(part), int(token)


def test_the_user_of_redis_that_the_readme_makes_may_do_all_that_is_needed(
        origin, weir, redis, tmp_path):
    readme = os.path.join(os.path.dirname(__file__), "..", "..", "README.md")
    with open(readme, encoding="utf-8") as f:
        words = re.search(r"^ACL SETUSER weir on >SECRET (.*)$", f.read(), re.M)[1].split()
    redis.call("ACL", "SETUSER", "weir", "on", ">hunter2", *words)
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    server = {"url": redis.url, "username": "weir", "password_file": str(secret), "timeout": "1s"}
    origin.on("*", body=b"old", headers=[("Cache-Control", "max-age=600")])
    routes = [{"path": "/**", "policy": "write-back", "plugins": {"rate_limit": {"rate": "1000/s"}}}]
    instances = [weir(cache={"redis": server}, journal={"redis": server},
                      plugins=[{"name": "rate_limit"}], routes=routes) for _ in range(2)]
    shared(instances)
    for w in instances:
        w.client = functools.partial(Client, w.port, HOST)
        assert w.get("/a").body == b"old"
    assert instances[1].get("/a").cache_status.hit and origin.count("/a") == 1
    eventually(lambda: instances[0].metric("weir_redis_stores_total") >= 1)
    for i in range(20):
        assert instances[i % 2].request("PUT", "/w/%d" % (i % 3), (), b"%d" % i).status == 202
    drained(*instances)
    for erase in False, True:
        r = instances[0].api("POST", "/purge", {"all": True, "wait": 8000, "erase": erase})
        assert r.status == 200, r.body
    assert redis.call("ACL", "LOG") == []


# ---- delivery ---------------------------------------------------------------------------------

def test_a_write_is_delivered_once_whichever_instance_took_it_and_whichever_owns_it(origin, fleet):
    paths = ["/w/%d" % i for i in range(60)]
    for path in paths:
        origin.on(path, body=b"done")
    a, b, c = fleet()
    for i, path in enumerate(paths):
        r = (a, b, c)[i % 3].post(path, b"x%d" % i, [ALICE])
        assert r.status == 202, (r, r.body)
    drained(a, b, c)
    for i, path in enumerate(paths):
        took, = written(origin, path)
        assert took.body == b"x%d" % i
        assert took.header("Authorization") == "alice" and took.header("X-Weir-Accepted")
    fences = {fence(written(origin, path)[0])[0] for path in paths}
    assert len(fences) > 10                          # spread over partitions
    eventually(lambda: all(w.metric("weir_writes_delivered_total") > 0 for w in (a, b, c)))


def test_writes_of_one_key_keep_their_order_across_instances(origin, fleet):
    origin.on("/doc", body=b"done")
    instances = fleet()
    for i in range(45):
        assert instances[i % 3].request("PUT", "/doc", [ALICE], b"%d" % i).status == 202
    drained(*instances)
    bodies = [int(r.body) for r in written(origin, "/doc")]
    assert bodies == list(range(45))
    assert len({fence(r) for r in written(origin, "/doc")}) == 1     # one owner


def test_a_key_of_the_route_keeps_order_across_paths_and_instances(origin, fleet):
    order = []
    for path in ("/x", "/y", "/z"):
        origin.on(path, lambda req, conn: (order.append(int(req.body)), conn.respond(200)))
    instances = fleet(write={"key": "{header.x-account}"})
    for i in range(30):
        assert instances[i % 3].post("/" + "xyz"[i * 7 % 3], b"%d" % i, [("X-Account", "7")]).status == 202
    drained(*instances)
    assert order == list(range(30))


def test_one_key_at_two_origins_orders_each_alone(origin, origins, redis, weir):
    other = origins()
    gate = held(origin, "/a/x")
    for i in range(6):
        origin.on("/a/%d" % i, body=b"done")
        other.on("/b/%d" % i, body=b"done")
    write = {"key": "{header.x-account}"}
    w = weir(journal={"redis": {"url": redis.url}}, origins={
        "api": {"servers": [origin.url]}, "other": {"servers": [other.url]}}, routes=[
            {"path": "/a/**", "policy": "write-back", "write": write},
            {"path": "/b/**", "policy": "write-back", "write": write, "origin": "other"}])
    key = [("X-Account", "7")]
    assert w.post("/a/x", b"first", key).status == 202
    origin.wait("/a/x")
    for i in range(6):
        assert w.post("/b/%d" % i, b"x", key).status == 202
        assert w.post("/a/%d" % i, b"x", key).status == 202
    eventually(lambda: len(other.requests) == 6)             # though the other origin stands still
    assert [r.path for r in origin.requests] == ["/a/x"]
    gate.set()
    drained(w)
    assert [r.path for r in origin.requests[1:]] == ["/a/%d" % i for i in range(6)]
    assert [r.path for r in other.requests] == ["/b/%d" % i for i in range(6)]


def test_a_client_cannot_say_the_fence(origin, fleet):
    origin.on("/a", body=b"done")
    a, = fleet(1)
    a.post("/a", b"x", [("X-Weir-Fence", "999999999999999;partition=0")])
    drained(a)
    took, = written(origin, "/a")
    assert len(took.headers) == len(dict(took.headers)) and fence(took)[1] < 999999999999999


def test_what_one_instance_delivered_is_served_by_none_as_it_was_before(origin, fleet):
    state = {}

    def handler(req, conn):
        if req.method == "PUT":
            state[req.path] = req.body
        conn.respond(200, [("Cache-Control", "max-age=600")], state.get(req.path, b"old"))
    origin.on("*", handler)
    instances = fleet(cache=True)
    for i in range(20):
        path, writer = "/doc/%d" % i, instances[i % 3]
        for w in instances:
            assert w.get(path, [ALICE]).body == b"old"
            assert w.get(path).body == b"old"
        assert writer.request("PUT", path, [ALICE], b"new").status == 202
        for w in instances:                          # pending or delivered, it is its own writer's
            assert w.get(path, [ALICE]).body == b"new", (w.url, path)
    drained(*instances)
    assert {w.get("/doc/%d" % i).body for w in instances for i in range(20)} == {b"new"}


# ---- what every instance knows ------------------------------------------------------------------

def test_the_status_of_a_write_is_known_to_every_instance(origin, fleet):
    gate = held(origin, "/a")
    a, b, c = fleet()
    r = a.post("/a", b"x")
    where = r.header("Location")
    for w in (a, b, c):
        eventually(lambda: w.get(where).json()["state"] == "sending")
    gate.set()
    for w in (a, b, c):
        eventually(lambda: w.get(where).json()["state"] == "delivered")


def test_a_reader_sees_its_own_pending_write_at_every_instance_and_nobody_else_does(origin, fleet):
    gate = held(origin, "/a")
    a, b, c = fleet()
    assert b.get("/a", [ALICE]).body == b"old"
    assert a.request("PUT", "/a", [ALICE, ("Content-Type", "text/x")], b"new").status == 202
    for w in (a, b, c):
        r = w.get("/a", [ALICE])
        assert r.body == b"new" and r.header("Content-Type") == "text/x"
        assert r.cache_status.detail == "pending"
        assert w.get("/a", [BOB]).body == b"old"
    assert c.request("DELETE", "/a", [ALICE]).status == 202
    assert {w.get("/a", [ALICE]).status for w in (a, b, c)} == {404}
    gate.set()


def test_an_idempotency_key_is_known_to_every_instance(origin, fleet):
    origin.on("/a", body=b"done")
    a, b, _ = fleet()
    key = [("Idempotency-Key", '"k1"'), ALICE]
    first = a.post("/a", b"x", key)
    assert first.status == 202
    again = b.post("/a", b"x", key)
    drained(a)
    assert again.status in (200, 202)
    assert b.post("/a", b"other", key).status == 422
    assert b.post("/a", b"x", [key[0], BOB]).status == 202
    drained(a, b)
    assert len(written(origin, "/a")) == 2
    assert b.post("/a", b"x", key).body == b"done"


def test_a_key_of_a_write_that_goes_straight_is_known_to_every_instance(origin, fleet):
    gate = origin.gate()

    def slowly(req, conn):
        gate.wait()
        conn.respond(201, body=b"made")
    origin.on("/direct/a", slowly)
    more = [{"path": "/direct/**", "policy": "cache-aside", "write": {"idempotency": "1h"}}]
    a, b, _ = fleet(more=more)
    key = [("Idempotency-Key", '"k1"')]
    answers = []
    t = threading.Thread(target=lambda: answers.append(a.post("/direct/a", b"x", key)))
    t.start()
    origin.wait("/direct/a")
    busy = b.post("/direct/a", b"x", key)
    assert busy.status == 409 and "at the origin" in busy.json()["detail"]
    gate.set()
    t.join()
    assert answers[0].status == 201
    again = b.post("/direct/a", b"x", key)
    assert again.status == 201 and again.body == b"made" and origin.count("/direct/a") == 1


def test_dead_letters_are_seen_and_settled_at_any_instance(origin, fleet):
    origin.on("/a", status=400, body=b"no")
    origin.on("/b", status=400, body=b"no")
    a, b, c = fleet()
    for path in ("/a", "/b"):
        assert a.post(path, b"x").status == 202
    for w in (a, b, c):
        eventually(lambda: len(w.api("GET", "/writes?state=dead").json()["writes"]) == 2)
    one, two = [x["id"] for x in c.api("GET", "/writes?state=dead").json()["writes"]]
    origin.on("/a", body=b"done")
    origin.on("/b", body=b"done")
    for w, name in ((b, one), (c, two)):
        assert w.api("POST", "/writes/%s/retry" % name).status == 200
    eventually(lambda: written(origin, "/a")[-1].at and len(written(origin, "/a")) == 2
               and len(written(origin, "/b")) == 2)
    drained(a, b, c)
    eventually(lambda: b.api("GET", "/writes?state=dead").json()["writes"] == [])


def test_a_waiting_write_is_dropped_by_an_instance_that_does_not_own_it(origin, fleet):
    origin.on("/a", status=503)
    instances = fleet(write={"idempotent": True, "backoff": {"min": "1h", "max": "1h"}})
    name = instances[0].post("/a", b"1").header("Location")[len(STATUS):]
    instances[1].post("/a", b"2")
    eventually(lambda: instances[2].api("GET", "/writes/" + name).json()["state"] == "waiting")
    origin.on("/a", body=b"done")
    for w in instances:                              # two of the three do not own it
        if w.api("DELETE", "/writes/" + name).status == 200:
            break
    drained(*instances)
    assert [r.body for r in written(origin, "/a")] == [b"1", b"2"]


def test_the_list_has_each_write_once_and_those_of_a_path_in_the_order_of_acceptance(origin, fleet):
    a, b = fleet(2)
    assert a.api("POST", "/writes/pause", {"all": True}).status == 200
    sent = {}
    for i in range(45):
        path = "/l/%d" % (i * i % 7)
        r = (a, b)[i % 2].request("PUT", path, [ALICE], b"x")
        assert r.status == 202
        sent.setdefault(path, []).append(r.json()["id"])
    for w in (a, b):
        listed, after = [], ""
        while after is not None:
            page = w.api("GET", "/writes?limit=4" + after).json()
            assert 0 < len(page["writes"]) <= 4
            listed += page["writes"]
            after = "&after=" + page["next"] if "next" in page else None
        assert len(listed) == 45
        for path, ids in sent.items():
            assert [x["id"] for x in listed if x["url"].endswith(path)] == ids
    assert a.api("POST", "/writes/resume", {"all": True}).status == 200


def test_a_pause_holds_at_all_instances_and_is_remembered(origin, fleet):
    origin.on("*", body=b"done")
    a, b, c = fleet()
    assert b.api("POST", "/writes/pause", {"all": True}).status == 200
    paths = ["/p/%d" % i for i in range(12)]
    eventually(lambda: all(w.stats()["writes"]["paused"] for w in (a, b, c)))
    for i, path in enumerate(paths):
        (a, b, c)[i % 3].post(path, b"x")
    eventually(lambda: a.stats()["writes"]["pending"] == len(paths))
    assert origin.requests == []
    assert c.api("POST", "/writes/resume", {"all": True}).status == 200
    drained(a, b, c)
    assert len(origin.requests) == len(paths)


# ---- instances come and go ----------------------------------------------------------------------

def test_an_instance_that_stops_gives_its_partitions_to_the_others_at_once(origin, fleet):
    origin.on("*", body=b"done")
    a, b, c = fleet(journal={"lease": "5m"})         # by the lease's end it would be too late
    assert a.stop() == 0
    shared([b, c])
    for i in range(20):
        assert b.post("/s/%d" % i, b"x").status == 202
    drained(b, c)
    assert len(origin.requests) == 20


def test_what_a_killed_instance_had_is_taken_over_when_its_lease_ends(origin, fleet):
    gate = held(origin, *["/k/%d" % i for i in range(30)])
    a, b, c = fleet(write={"idempotent": True, "concurrency": 64})
    for i in range(30):
        assert a.post("/k/%d" % i, b"%d" % i, [ALICE]).status == 202
    eventually(lambda: len(origin.requests) == 30)
    a.kill()
    gate.set()
    shared([b, c])
    drained(b, c)
    tokens = {}
    for r in origin.requests:
        part, token = fence(r)
        assert token >= tokens.get(part, 0)          # never an older owner after a newer one
        tokens[part] = token
    for i in range(30):
        assert {r.body for r in written(origin, "/k/%d" % i)} == {b"%d" % i}


def test_an_instance_that_comes_gets_its_share_while_writes_flow(origin, fleet):
    origin.on("*", body=b"done")
    a, = fleet(1)
    assert partitions(a) == PARTITIONS
    ending, sent = threading.Event(), []

    def flow():
        with a.client() as client:
            while not ending.is_set():
                path = "/f/%d" % (len(sent) % 40)
                assert client.request("PUT", path, [], b"%d" % len(sent)).status == 202
                sent.append(path)
    t = threading.Thread(target=flow)
    t.start()
    try:
        b, = fleet(1, join=[a])
    finally:
        ending.set()
        t.join()
    drained(a, b)
    for path in set(sent):
        bodies = [int(r.body) for r in written(origin, path)]
        assert bodies == sorted(bodies) and bodies[-1] == max(i for i, p in enumerate(sent) if p == path)


# ---- Redis --------------------------------------------------------------------------------------

def test_without_redis_writes_are_refused_reads_go_on_and_nothing_is_lost(origin, fleet, redis):
    gate = held(origin, "/a")
    origin.on("/r", body=b"read", headers=[("Cache-Control", "max-age=600")])
    a, b = fleet(2, journal={"timeout": "300ms"})
    assert a.get("/r").body == b"read"
    assert a.post("/a", b"1").status == 202
    redis.kill()
    r = b.post("/a", b"2")
    assert r.status == 503 and r.header("Retry-After"), (r, r.body)
    assert "Redis" in r.json()["detail"]
    assert a.get("/r").body == b"read" and b.get("/r").body == b"read"
    eventually(lambda: a.api("GET", "/readyz").json()["writes"]["takes"] is False)
    gate.set()
    redis.start()
    eventually(lambda: b.post("/a", b"3").status == 202, timeout=30 * SLOW)
    drained(a, b)
    bodies = [r.body for r in written(origin, "/a")]
    assert bodies[0] == b"1" and bodies[-1] == b"3"


def test_it_starts_without_redis_and_takes_writes_when_redis_comes(origin, redis, weir):
    origin.on("/a", body=b"done")
    redis.kill()
    w = weir(routes=[{"path": "/**", "policy": "write-back"}], journal={"redis": {"url": redis.url}},
             wait=False)
    eventually(lambda: serves(w, "/a"))
    assert w.post("/a", b"x").status == 503
    redis.start()
    eventually(lambda: w.post("/a", b"x").status == 202, timeout=30 * SLOW)
    drained(w)


@pytest.mark.parametrize("options,words", [
    (["--appendonly", "no"], "appendonly"),
    (["--appendfsync", "everysec"], "appendfsync"),
    (["--maxmemory-policy", "allkeys-lru"], "maxmemory-policy")])
def test_a_redis_that_may_lose_writes_is_not_trusted_with_them(origin, weir, tmp_path, options, words):
    (tmp_path / "other").mkdir()
    redis = Redis(str(tmp_path / "other"), *options)
    try:
        w = weir(routes=[{"path": "/**", "policy": "write-back"}],
                 journal={"redis": {"url": redis.url}}, wait=False)
        eventually(lambda: serves(w, "/a"))
        eventually(lambda: words in w.post("/a", b"x").json()["detail"])
        assert w.post("/a", b"x").status == 503 and w.log_has(words)
    finally:
        redis.end()


def test_everysec_is_enough_where_the_route_asks_for_no_more(origin, weir, tmp_path):
    origin.on("/a", body=b"done")
    (tmp_path / "other").mkdir()
    redis = Redis(str(tmp_path / "other"), "--appendfsync", "everysec")
    try:
        w = weir(routes=[{"path": "/**", "policy": "write-back", "write": {"durability": "os"}}],
                 journal={"redis": {"url": redis.url}})
        eventually(lambda: w.post("/a", b"x").status == 202)
        drained(w)
    finally:
        redis.end()


def test_what_too_few_replicas_have_is_neither_acknowledged_nor_delivered(origin, fleet):
    gate = held(origin, "*")
    a, b = fleet(2, write={"idempotent": True}, journal={"replicas": 1, "timeout": "400ms"})
    answers = []
    for i in range(8):                               # some are of partitions of who takes them
        key = [("Idempotency-Key", '"k%d"' % i)] if i % 4 < 2 else []
        r = (a, b)[i % 2].request(("POST", "PUT")[i // 4], "/r/%d" % i, key, b"x")
        answers.append((r.status, "too few replicas" in r.json().get("detail", "")))
    assert answers == [(503, True)] * 8
    drained(a, b)
    assert origin.requests == []
    gate.set()


def test_a_write_that_cannot_be_looked_up_now_is_not_said_to_be_none(origin, fleet, redis, weir):
    gate = held(origin, "/a")
    a, = fleet(1, journal={"timeout": "300ms"})
    at = a.request("PUT", "/a", [ALICE], b"x").header("Location")
    verb = "/writes/" + at.rsplit("/", 1)[1]
    redis.pause()
    try:
        late = weir(routes=[{"path": "/**", "policy": "write-back"}], wait=False,
                    journal={"redis": {"url": redis.url, "timeout": "300ms"}})
        r = a.get(at, [ALICE])
        assert r.status == 503 and r.header("Retry-After") == "1", r
        assert a.api("GET", verb).status == a.api("DELETE", verb).status == 503
        assert a.api("GET", "/writes?after=" + at.rsplit("/", 1)[1]).status == 503
        assert eventually(lambda: late.get(at).status) == 503       # it knows no id of this fleet
    finally:
        redis.resume()
    eventually(lambda: a.get(at, [ALICE]).status == late.get(at, [ALICE]).status == 200)
    assert a.get(STATUS + "0" * 32).status == 404
    gate.set()
    drained(a)


class Censor(Relay):
    """In front of Redis: ends a connection on which `word` is said."""

    word = None

    def carry(self, a, b, asks):
        with contextlib.suppress(OSError):
            while (data := a.recv(65536)) and not (self.word and self.word in data):
                b.sendall(data)
        for s in a, b:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)


def test_a_list_of_writes_is_whole_or_none(origin, redis, weir):
    gate = held(origin, "/a")
    censor = Censor(redis.port)
    a = weir(routes=[{"path": "/**", "policy": "write-back"}], journal={"redis": {"url": censor.url}})
    shared([a])
    for body in b"1", b"2":
        assert a.request("PUT", "/a", [ALICE], body).status == 202
    assert len(a.api("GET", "/writes").json()["writes"]) == 2           # Redis knows the script now
    censor.word = b"HMGET"              # what each of them contains
    for what in ("GET", "/writes"), ("POST", "/writes/retry", {"all": True}):
        r = a.api(*what)
        assert r.status == 503 and "cannot be read" in r.json()["detail"], r.body
    censor.word = None
    assert len(eventually(lambda: a.api("GET", "/writes").json().get("writes"))) == 2
    gate.set()
    drained(a)
    censor.end()


def test_what_is_pending_is_not_taken_for_nothing_while_it_cannot_be_read(origin, redis, weir):
    gate = held(origin, "/a")
    censor = Censor(redis.port)
    a = weir(routes=[{"path": "/**", "policy": "write-back"}], journal={"redis": {"url": censor.url}})
    shared([a])
    assert a.request("PUT", "/a", [ALICE], b"new").status == 202
    origin.wait("/a")
    assert a.get("/a", [ALICE]).body == b"new"
    assert a.get("/a").cache_status.detail != "pending"         # it is not somebody else's
    censor.word = b"HMGET"              # what each of them contains
    r = a.get("/a", [ALICE])
    assert r.cache_status.detail == "pending", r.headers        # of its own nothing is known
    censor.word = None
    eventually(lambda: a.get("/a", [ALICE]).body == b"new")
    gate.set()
    drained(a)
    censor.end()


def all_but(key):
    """Patterns that take every key but this one."""
    return [key[:i] for i in range(1, len(key))] + [key + "?*"] + \
        ["%s[^%s]*" % (key[:i], key[i]) for i in range(len(key))]


def test_a_condition_on_a_pending_write_waits_while_the_journal_cannot_be_read(origin, fleet, redis):
    gate = origin.gate()

    def answer(req, conn):
        gate.wait()
        conn.respond(200, [("ETag", '"of-the-origin"')])
    origin.on("/a", answer)
    a, = fleet(1)
    first = a.request("PUT", "/a", [ALICE], b"1").json()["id"]
    key, = redis.call("KEYS", "weir:{j*}w:*")
    tag = a.get("/a", [ALICE]).header("ETag")
    assert tag == '"weir-pending-%s"' % first
    second = a.request("PUT", "/a", [ALICE, ("If-Match", tag)], b"2").json()["id"]
    origin.wait("/a")
    assert a.api("POST", "/writes/pause", {"all": True}).status == 200
    gate.set()
    eventually(lambda: a.api("GET", "/writes/" + first).json()["state"] == "delivered")
    redis.call("ACL", "SETUSER", "default", "resetkeys", *("~" + p for p in all_but(key)))
    assert a.api("POST", "/writes/resume", {"all": True}).status == 200
    eventually(lambda: a.log_has("journal: reading:"))
    assert [r.body for r in written(origin, "/a")] == [b"1"]
    redis.call("ACL", "SETUSER", "default", "~*")
    eventually(lambda: a.api("GET", "/writes/" + second).json()["state"] == "delivered", timeout=30 * SLOW)
    assert [r.header("If-Match") for r in written(origin, "/a")] == [None, '"of-the-origin"']


def test_what_redis_lost_is_counted_and_said(origin, fleet, redis):
    gate = held(origin, "/a")
    a, = fleet(1)
    ids = set()
    for i in range(130):
        r = a.request("PUT", "/a", [], b"%d" % i)
        assert r.status == 202
        ids.add(r.json()["id"])
    origin.wait("/a")
    redis.kill()
    redis.start(empty=True)
    eventually(lambda: a.stats()["writes"]["lost"] >= 129, timeout=30 * SLOW)
    said = " ".join(re.findall("lost in partition [0-9]+:((?: [0-9a-f]{32})+)", a.log())).split()
    assert len(said) == len(set(said)) == 100 and set(said) <= ids
    assert a.log_has("%d more" % (a.stats()["writes"]["lost"] - 100))
    gate.set()
    eventually(lambda: a.post("/b", b"x").status == 202, timeout=30 * SLOW)
