"""The Redis tier: what one instance has stored the others find, and a Redis that fails costs no
answer."""
import os
import signal
import socket
import threading
import time

import pytest

from harness import SLOW, TIMEOUT, Cluster, eventually, free_port

HOST = [("Host", "shop.test")]
FRESH = ("Cache-Control", "max-age=600")
TIMEOUT_MS = 1000                       # of an ask: machines let processes wait


@pytest.fixture
def shared(weir, redis):
    """shared(**options of cache.redis): an instance in front of the origin."""
    def make(server=redis, routes=None, wait=True, **options):
        options = {"url": server.url, "timeout": "%dms" % TIMEOUT_MS, **options}
        w = weir(cache={"redis": options}, **({"routes": routes} if routes else {}))
        if wait:
            eventually(lambda: holds(w))
        return w
    return make


def holds(w):
    """It has its lease, and knows where the stream of purges stands."""
    stats = w.stats()
    return stats["bus"]["lease"] == "held" and not stats["tiers"]["redis"]["loading"]


def get(w, path, *headers, **kw):
    return w.request(kw.get("method", "GET"), path, HOST + list(headers))


def kept(w, n, **labels):
    """Waits until so many values are written."""
    eventually(lambda: w.metric("weir_redis_stores_total") >= n)


def values(redis):
    return [k for k in redis.call("KEYS", "weir:o:*")]


def failures(w, cause):
    return w.metric("weir_redis_failures_total", cause=cause)


class Versions:
    """An origin's resources: every answer is the next version of its path."""

    def __init__(self, origin, headers=(FRESH,), path="*"):
        self.headers, self.made, self.lock = list(headers), {}, threading.Lock()
        origin.on(path, self)

    def __call__(self, req, conn):
        with self.lock:
            n = self.made[req.path] = self.made.get(req.path, 0) + 1
        conn.respond(200, self.headers, b"%s v%d" % (req.path.encode(), n))


# ---- sharing ----------------------------------------------------------------------------------

def test_what_one_instance_stored_another_finds(origin, shared):
    Versions(origin)
    a, b = shared(), shared()
    assert get(a, "/x").cache_status.stored
    kept(a, 1)
    first = get(b, "/x")
    assert first.body == b"/x v1"
    assert first.cache_status.hit and first.cache_status.detail == "REDIS", first
    again = get(b, "/x")
    assert again.cache_status.hit and again.cache_status.detail is None, again
    assert origin.count("/x") == 1
    assert b.metric("weir_redis_hits_total") == 1


def test_a_restart_is_warm_from_redis(origin, shared):
    Versions(origin)
    w = shared()
    for i in range(20):
        get(w, "/r%d" % i)
    kept(w, 20)
    w.kill()
    w.start()
    eventually(lambda: holds(w))
    assert all(get(w, "/r%d" % i).cache_status.detail == "REDIS" for i in range(20))
    assert len(origin.requests) == 20


def test_the_age_goes_on(origin, shared):
    origin.on("/age", headers=[("Cache-Control", "max-age=600"), ("Age", "100")], body=b"old")
    a, b = shared(), shared()
    get(a, "/age")
    kept(a, 1)
    r = get(b, "/age")
    assert 100 <= int(r.header("Age")) < 160
    assert r.cache_status.ttl <= 500


def test_each_variant_is_found_by_its_own_requests(origin, shared):
    origin.on("/v", lambda req, conn: conn.respond(
        200, [FRESH, ("Vary", "Accept-Language")], req.header("Accept-Language").encode()))
    a, b = shared(), shared()
    for language in ("de", "en"):
        get(a, "/v", ("Accept-Language", language))
    kept(a, 2)
    for language in ("en", "de"):
        r = get(b, "/v", ("Accept-Language", language))
        assert (r.body, r.cache_status.detail) == (language.encode(), "REDIS"), r
    fr = get(b, "/v", ("Accept-Language", "fr"))
    assert (fr.body, fr.cache_status.hit) == (b"fr", False)
    assert origin.count("/v") == 3


def test_what_no_longer_varies_is_found_by_all(origin, shared):
    origin.on("/u", [lambda req, conn: conn.respond(200, [FRESH, ("Vary", "X-A")], b"varies"),
                     lambda req, conn: conn.respond(200, [FRESH], b"one for all")])
    a, b = shared(), shared()
    get(a, "/u", ("X-A", "1"))
    kept(a, 1)
    get(a, "/u", ("X-A", "2"))
    kept(a, 2)
    assert get(b, "/u", ("X-A", "3")).body == b"one for all"
    assert origin.count("/u") == 2


def test_what_is_stale_in_redis_is_validated(origin, shared):
    tag = ("ETag", '"1"')
    swr = ("Cache-Control", "max-age=2, stale-if-error=600")
    origin.on("/s", lambda req, conn: conn.respond(304, [FRESH, tag])
              if req.header("If-None-Match") == '"1"' else conn.respond(200, [swr, tag], b"body"))
    a, b = shared(), shared()
    get(a, "/s")
    kept(a, 1)
    eventually(lambda: get(a, "/s", ("Cache-Control", "only-if-cached")).status == 504)
    r = get(b, "/s")
    assert (r.body, r.cache_status.fwd) == (b"body", "stale"), r
    assert origin.of("/s")[-1].header("If-None-Match") == '"1"'
    # ... and what it became is found by the first, whose own is stale
    kept(b, 1)
    r = get(a, "/s")
    assert (r.body, r.cache_status.detail) == (b"body", "REDIS"), r
    assert origin.count("/s") == 2


def test_a_head_a_range_and_only_if_cached_are_answered_from_redis(origin, shared):
    Versions(origin)
    a, b = shared(), shared()
    for i, (method, header, status, body) in enumerate((
            ("HEAD", ("X-A", "1"), 200, b""), ("GET", ("Range", "bytes=1-2"), 206, b"%d " % 1),
            ("GET", ("Cache-Control", "only-if-cached"), 200, b"/2 v1"))):
        get(a, "/%d" % i)
        kept(a, i + 1)
        r = get(b, "/%d" % i, header, method=method)
        assert (r.status, r.body) == (status, body), r
    assert len(origin.requests) == 3


def test_the_request_decides_what_is_not_asked_for(origin, shared):
    Versions(origin)
    a, b = shared(), shared()
    get(a, "/n")
    kept(a, 1)
    assert get(b, "/n", ("Cache-Control", "no-cache")).body == b"/n v2"
    assert b.metric("weir_redis_hits_total") == 0


# ---- what is kept, and for how long -----------------------------------------------------------

def test_values_end_with_the_response_and_at_max_ttl(origin, shared, redis):
    origin.on("/short", headers=[("Cache-Control", "max-age=30")], body=b"x")
    origin.on("/stale", headers=[("Cache-Control", "max-age=30, stale-while-revalidate=30")],
              body=b"x")
    origin.on("/long", headers=[FRESH], body=b"x")
    w = shared(max_ttl="2m")
    for path, most in (("/short", 30_000), ("/stale", 60_000), ("/long", 120_000)):
        before = set(values(redis))
        get(w, path)
        eventually(lambda: set(values(redis)) - before)
        (key,) = set(values(redis)) - before
        assert most - 20_000 * SLOW < redis.call("PTTL", key) <= most


def test_what_is_short_lived_large_or_not_to_be_stored_is_not_kept(origin, shared, redis):
    origin.on("/brief", headers=[("Cache-Control", "max-age=5")], body=b"x")
    origin.on("/large", headers=[FRESH], body=b"x" * 3000)
    origin.on("/private", headers=[("Cache-Control", "private")], body=b"x")
    origin.on("/last", headers=[FRESH], body=b"x")
    w = shared(min_ttl="10s", max_object="2KiB")
    for path in ("/brief", "/large", "/private", "/last"):
        get(w, path)
    kept(w, 1)
    assert len(values(redis)) == 1
    assert get(w, "/large").cache_status.hit


def test_the_largest_that_max_object_allows_is_kept(origin, weir, redis):
    size = (64 if SLOW == 1 else 12) << 20      # a sanitizer takes seconds for the whole
    origin.on("/large", headers=[FRESH], body=b"x" * size)
    w = weir(cache={"memory": "600MiB", "max_object": "64MiB", "redis": {
        "url": redis.url, "timeout": "10s", "max_object": "64MiB"}})
    eventually(lambda: holds(w))
    assert len(get(w, "/large").body) == size
    kept(w, 1)
    w.kill()
    w.start()
    eventually(lambda: holds(w))
    r = get(w, "/large")
    assert (len(r.body), r.cache_status.detail) == (size, "REDIS"), r.headers
    assert w.metric("weir_redis_drops_total") == 0


def test_what_is_too_large_now_takes_its_predecessor_along(origin, shared, redis):
    origin.on("/g", [lambda req, conn: conn.respond(200, [FRESH], b"small"),
                     lambda req, conn: conn.respond(200, [FRESH], b"x" * 3000)])
    a, b = shared(max_object="2KiB"), shared(max_object="2KiB")
    get(a, "/g")
    kept(a, 1)
    get(a, "/g", ("Cache-Control", "no-cache"))
    eventually(lambda: values(redis) == [])
    assert len(get(b, "/g").body) == 3000


def test_a_404_to_a_validation_takes_the_value_away(origin, shared, redis):
    tag = ("ETag", '"1"')
    origin.on("/gone", [lambda req, conn: conn.respond(
        200, [("Cache-Control", "max-age=600"), tag], b"here"),
        lambda req, conn: conn.respond(404, [("Cache-Control", "no-store")], b"")])
    w = shared()
    get(w, "/gone")
    kept(w, 1)
    assert get(w, "/gone", ("Cache-Control", "max-age=0")).status == 404
    eventually(lambda: values(redis) == [])


# ---- purges -----------------------------------------------------------------------------------

def test_what_is_purged_is_not_found_by_anyone(origin, shared):
    Versions(origin)
    a, b, c = shared(), shared(), shared()
    get(a, "/p")
    kept(a, 1)
    assert get(b, "/p").cache_status.detail == "REDIS"
    assert a.api("POST", "/purge", {"url": "http://shop.test/p"}).status == 200
    assert get(c, "/p").body == b"/p v2"
    assert [get(w, "/p").body for w in (a, b, c)] == [b"/p v2"] * 3


@pytest.mark.parametrize("what", [{"url": "http://shop.test/t/1"}, {"tags": ["item:1"]},
                                  {"prefix": "/t/"}, {"route": "tagged"}, {"all": True}])
def test_an_answer_from_before_a_purge_that_is_stored_after_it_is_served_to_nobody(
        origin, shared, redis, what):
    gate = origin.gate()

    def answer(req, conn):
        if len(origin.of("/t/1")) == 1:
            gate.wait()
            conn.respond(200, [FRESH], b"before")
        else:
            conn.respond(200, [FRESH], b"after")
    origin.on("/t/1", answer)
    routes = [{"path": "/t/{id}", "name": "tagged", "tags": ["item:{id}"]}, {"path": "/**"}]
    a, b, c = (shared(routes=routes) for _ in range(3))
    late = []
    thread = threading.Thread(target=lambda: late.append(get(a, "/t/1").body))
    thread.start()
    origin.wait("/t/1", 1)
    assert b.api("POST", "/purge", what).status == 200
    gate.set()
    thread.join()
    assert late == [b"before"]          # it asked before the purge
    assert [get(w, "/t/1").body for w in (c, b, a)] == [b"after"] * 3


@pytest.mark.parametrize("what", [{"url": "http://shop.test/t/1"}, {"tags": ["item:1"]},
                                  {"prefix": "/t/"}, {"pattern": "/t/?"}, {"groups": ["g"]},
                                  {"route": "tagged"}, {"all": True},
                                  {"url": "http://shop.test/t/1", "soft": True}])
def test_a_value_from_before_a_purge_that_comes_into_redis_after_it_is_served_to_nobody(
        origin, shared, redis, what):
    Versions(origin, headers=[FRESH, ("Cache-Groups", '"g"')])
    routes = [{"path": "/t/{id}", "name": "tagged", "tags": ["item:{id}"]}, {"path": "/**"}]
    a, b, c = (shared(routes=routes) for _ in range(3))
    get(a, "/t/1")
    kept(a, 1)
    (key,) = values(redis)
    assert redis.call("COPY", key, "aside") == 1
    assert b.api("POST", "/purge", what).status == 200
    for i, w in enumerate((c, b, a)):
        assert redis.call("COPY", "aside", key, "REPLACE") == 1
        assert get(w, "/t/1").body == b"/t/1 v%d" % (i + 2)
        kept(w, 1 + (w is a))
    new = shared(routes=routes)         # it was not there when that was purged
    redis.call("COPY", "aside", key, "REPLACE")
    assert get(new, "/t/1").body == b"/t/1 v5"


def test_a_value_that_a_paused_instance_stores_after_a_purge_is_served_to_nobody(
        origin, shared, redis):
    gate = origin.gate()
    origin.on("/z", [lambda req, conn: (gate.wait(), conn.respond(200, [FRESH], b"before")),
                     lambda req, conn: conn.respond(200, [FRESH], b"after")])
    a, b = shared(lease="2s"), shared(lease="2s")
    late = []
    thread = threading.Thread(target=lambda: late.append(get(a, "/z").body))
    thread.start()
    origin.wait("/z", 1)
    os.kill(a.process.pid, signal.SIGSTOP)
    gate.set()
    b.api("POST", "/purge", {"url": "http://shop.test/z"})
    # alone with a value that was put just before, by one that does not know of the purge
    os.kill(a.process.pid, signal.SIGCONT)
    thread.join()
    assert get(b, "/z").body == b"after"
    eventually(lambda: holds(a))
    assert get(a, "/z").body == b"after"


def test_what_is_stored_right_behind_a_purge_is_of_use_to_others(origin, shared):
    Versions(origin)
    a, b = shared(), shared()
    get(a, "/w")
    kept(a, 1)
    a.request("POST", "/w", HOST, b"change")
    assert get(a, "/w").cache_status.stored
    kept(a, 2)
    r = get(b, "/w")
    assert r.cache_status.detail == "REDIS", (r, a.stats()["bus"])
    assert r.body == get(a, "/w").body


def test_what_a_write_leaves_is_of_use_to_others(origin, shared):
    def answer(req, conn):
        conn.respond(200, [FRESH, ("Content-Location", req.path)],
                     b"new" if req.method == "PUT" else b"old")
    origin.on("*", answer)
    routes = [{"path": "/**", "policy": "write-through"}]
    a, b = shared(routes=routes), shared(routes=routes)
    for i in range(10):
        get(a, "/w%d" % i)
        kept(a, 2 * i + 1)
        assert a.request("PUT", "/w%d" % i, HOST, b"new").status == 200
        kept(a, 2 * i + 2)
        r = get(b, "/w%d" % i)
        assert (r.body, r.cache_status.detail) == (b"new", "REDIS"), r


def test_erase_takes_the_bytes_out_of_redis(origin, shared, redis):
    secret = b"licensed-%d" % os.getpid()
    origin.on("/l", headers=[FRESH], body=secret)
    origin.on("/keep", headers=[FRESH], body=b"kept")
    a, b = shared(), shared()
    get(a, "/l")
    get(a, "/keep")
    kept(a, 2)
    redis.call("SET", "weir:o:{of-another-version}", "WEIRVAL\x09...")
    r = b.api("POST", "/purge", {"url": "http://shop.test/l", "erase": True})
    assert (r.status, r.json()["erased"]) == (200, True), r.body
    left = [redis.call("GET", k) for k in values(redis)]
    assert len(left) == 1 and "kept" in left[0]
    assert get(b, "/keep").cache_status.detail == "REDIS"
    origin.on("/varies", headers=[FRESH, ("Vary", "X-By")], body=b"x")
    for by in ("1", "2"):
        get(a, "/varies?of=somebody", ("X-By", by))
    kept(a, 4)
    assert any("somebody" in redis.call("GET", k) for k in values(redis))
    r = b.api("POST", "/purge", {"url": "http://shop.test/varies?of=somebody", "erase": True})
    assert (r.status, r.json()["erased"]) == (200, True), r.body
    assert not any("somebody" in redis.call("GET", k) for k in values(redis))
    assert get(b, "/keep").cache_status.hit


def test_bytes_that_cannot_be_erased_are_not_said_to_be(origin, shared, redis):
    Versions(origin)
    w = shared(lease_lost="serve")
    get(w, "/l")
    kept(w, 1)
    redis.kill()
    r = w.api("POST", "/purge", {"url": "http://shop.test/l", "erase": True, "wait": 0})
    assert r.status == 500 and "could not be removed" in r.json()["detail"], r.body
    assert get(w, "/l").body == b"/l v2"


@pytest.fixture
def cluster(tmp_path):
    """Three masters that have a part of the slots each."""
    made = Cluster(str(tmp_path))
    yield made.servers
    made.end()


def test_a_cluster_is_shared_fetches_once_and_is_erased(origin, shared, cluster):
    origin.on("*", lambda req, conn: conn.respond(
        200, [FRESH, ("Vary", "X-V")], b"%s %s" % (req.path.encode(), req.header("X-V").encode())))
    a, b = (shared(cluster[i], cluster=True) for i in range(2))
    asked = [("/c%d" % i, ("X-V", v)) for i in range(12) for v in "xy"]
    for path, v in asked:
        get(a, path, v)
    kept(a, len(asked))
    for path, v in asked:
        r = get(b, path, v)
        assert (r.body.decode(), r.cache_status.detail) == ("%s %s" % (path, v[1]), "REDIS")
    assert len(origin.requests) == len(asked)
    assert a.metric("weir_redis_leases_total") == len(asked)
    assert all(values(s) for s in cluster)
    assert failures(a, "cluster") == failures(b, "cluster") == 0
    r = b.api("POST", "/purge", {"prefix": "http://shop.test/c1", "erase": True})
    assert r.json()["erased"] is True, r.body
    left = [k for s in cluster for k in values(s) if k.count(":") == 3]
    assert len(left) == 2 * 9           # of /c0 and /c2 to /c9


# ---- values that are none ---------------------------------------------------------------------

@pytest.mark.parametrize("damage", [
    *(b"WEIRVAL" + version + b"\0" * 200 for version in (b"\x01", b"\x02", b"\x03")), b"", b"garbage", b"WEIRVRY\x01short", b"WEIRVRY\x02" + b"\0" * 90])
def test_what_is_no_value_of_ours_is_a_miss(origin, shared, redis, damage):
    Versions(origin)
    a, b = shared(), shared()
    get(a, "/d")
    kept(a, 1)
    (key,) = values(redis)
    redis.call("SET", key, damage, "XX")
    r = get(b, "/d")
    assert (r.status, r.body) == (200, b"/d v2")
    assert b.metric("weir_redis_bad_total") == 1


def test_a_value_that_is_cut_or_flipped_is_a_miss(origin, shared, redis):
    Versions(origin)
    a, b = shared(), shared()
    get(a, "/d")
    kept(a, 1)
    (key,) = values(redis)
    redis.call("SETRANGE", key, redis.call("STRLEN", key) - 2, "!!")
    assert get(b, "/d").body == b"/d v2"
    assert b.metric("weir_redis_bad_total") == 1


def test_a_value_of_another_key_is_a_miss(origin, shared, redis):
    Versions(origin)
    a, b = shared(), shared()
    get(a, "/one")
    kept(a, 1)
    (one,) = values(redis)
    get(a, "/two")
    kept(a, 2)
    (two,) = set(values(redis)) - {one}
    redis.call("COPY", one, two, "REPLACE")
    assert get(b, "/two").body == b"/two v2"
    assert b.metric("weir_redis_hits_total") == 0
    r = get(b, "/one")                  # nothing was put into memory for it
    assert (r.body, r.cache_status.detail) == (b"/one v1", "REDIS"), r


# ---- failure ----------------------------------------------------------------------------------

class Failing:
    """One instance that has nothing, one Redis that did answer, and what becomes of it."""

    def __init__(self, origin, shared, **options):
        Versions(origin)
        self.w = shared(**options)
        assert get(self.w, "/before").cache_status.stored
        kept(self.w, 1)

    def misses(self, cause, n=5):
        before = failures(self.w, cause)
        for i in range(n):
            r = get(self.w, "/%s%d" % (cause, i))
            assert (r.status, r.cache_status.hit) == (200, False), r
        eventually(lambda: failures(self.w, cause) > before)
        assert get(self.w, "/before").cache_status.hit is not None


def test_a_redis_that_is_killed_is_a_miss_logged_once_and_asked_again(origin, shared, redis):
    f = Failing(origin, shared, lease_lost="serve")
    redis.kill()
    f.misses("refused")
    eventually(lambda: failures(f.w, "open") > 0 or [get(f.w, "/o%d" % failures(f.w, "refused"))])
    for i in range(50):
        assert get(f.w, "/many%d" % i).status == 200
    lines = [l for l in f.w.log().splitlines() if "redis" in l.lower() and str(redis.port) in l]
    assert len(lines) <= 4, lines           # the tier's and the bus's connections, each its state
    redis.start()
    eventually(lambda: not f.w.stats()["tiers"]["redis"]["failing"])
    eventually(lambda: holds(f.w))
    n = f.w.metric("weir_redis_stores_total")
    get(f.w, "/back")
    kept(f.w, n + 1)


def test_a_redis_that_hangs_costs_its_time_out_and_then_nothing(origin, shared, redis):
    f = Failing(origin, shared, lease_lost="serve")
    redis.pause()
    try:
        f.misses("timeout", 1)
        eventually(lambda: get(f.w, "/wait%d" % len(origin.requests)).status == 200
                   and failures(f.w, "open") > 0)
        before, waited = failures(f.w, "open"), failures(f.w, "timeout")
        for i in range(20):
            assert get(f.w, "/open%d" % i).status == 200
        assert failures(f.w, "open") >= before + 20         # none of them was sent, nor waited
        assert failures(f.w, "timeout") < waited + 5        # what asks whether it is back
    finally:
        redis.resume()


def test_a_slow_redis_is_a_miss_within_the_time_out(origin, shared, redis):
    f = Failing(origin, shared, lease_lost="serve")
    redis.call("CLIENT", "PAUSE", str(TIMEOUT_MS * 20), "ALL")
    f.misses("timeout", 1)


def test_another_password_is_a_miss(origin, shared, redis):
    f = Failing(origin, shared, lease_lost="serve")
    redis.call("CONFIG", "SET", "requirepass", "secret")
    # those that are connected stay logged in
    with socket.create_connection(("127.0.0.1", redis.port)) as s:
        s.sendall(b"AUTH secret\r\nCLIENT KILL TYPE normal SKIPME yes\r\n")
        s.recv(100)
    f.misses("auth")


def test_a_key_of_another_type_is_a_miss(origin, shared, redis):
    f = Failing(origin, shared)
    b = shared()
    (key,) = values(redis)
    redis.call("DEL", key)
    redis.call("RPUSH", key, "no", "string")
    assert get(b, "/before").body == b"/before v2"
    assert failures(b, "type") >= 1
    assert f.w.metric("weir_redis_hits_total") == 0


def test_a_redis_without_memory_is_only_not_written_to(origin, shared, redis):
    f = Failing(origin, shared, lease_lost="serve")
    b = shared(lease_lost="serve")
    redis.call("CONFIG", "SET", "maxmemory", "1")
    f.misses("oom")
    assert get(b, "/before").cache_status.detail == "REDIS"
    redis.call("CONFIG", "SET", "maxmemory", "0")


def test_a_replica_is_only_not_written_to(origin, shared, redis, tmp_path):
    f = Failing(origin, shared, lease_lost="serve")
    redis.call("REPLICAOF", "127.0.0.1", str(free_port()))
    redis.call("CONFIG", "SET", "replica-serve-stale-data", "yes")
    f.misses("readonly")
    redis.call("REPLICAOF", "NO", "ONE")


class Peer:
    """What listens in Redis' place: answer(connection) for each."""

    def __init__(self, answer):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = "redis://127.0.0.1:%d" % self.port
        self.answer = answer
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                s, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.one, args=(s,), daemon=True).start()

    def one(self, s):
        try:
            self.answer(s)
        except OSError:
            pass
        s.close()

    def close(self):
        self.socket.close()


class Between:
    """A relay in front of Redis, whose answers to GET pass through `change`. Answers behind a GET
    of a value wait for `gets`, a DEL and what is behind it for `dels`."""

    def __init__(self, redis):
        self.redis, self.change = redis, None
        self.gets, self.dels, self.asked = threading.Event(), threading.Event(), threading.Event()
        self.gets.set()
        self.dels.set()
        self.peer = Peer(self.relay)
        self.url = self.peer.url

    def relay(self, s):
        with socket.create_connection(("127.0.0.1", self.redis.port)) as up:
            got = threading.Event()

            def back():
                while data := up.recv(65536):
                    if got.is_set():
                        self.asked.set()
                        self.gets.wait(TIMEOUT)
                    s.sendall(data)
                s.shutdown(socket.SHUT_RDWR)
            threading.Thread(target=lambda: self.quietly(back), daemon=True).start()
            while data := s.recv(65536):
                if self.change is not None and b"GET\r\n" in data:
                    self.change(s)
                    return
                if b"GET\r\n" in data and b":o:" in data:
                    got.set()
                if b"DEL\r\n" in data:
                    self.dels.wait(TIMEOUT)
                up.sendall(data)

    @staticmethod
    def quietly(run):
        try:
            run()
        except OSError:
            pass


@pytest.mark.parametrize("what, cause", [
    (lambda s: s.sendall(b"$100\r\ncut"), "closed"),
    (lambda s: s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100), "protocol"),
    (lambda s: s.sendall(b"-LOADING Redis is loading the dataset in memory\r\n"), "loading"),
    (lambda s: s.sendall(b"-ERR something else\r\n"), "other"),
    (lambda s: s.sendall(b":1\r\n"), None),
    (lambda s: None, "closed"),
])
def test_answers_that_are_cut_or_garbage_are_misses(origin, shared, redis, what, cause):
    Versions(origin)
    between = Between(redis)
    w = shared(between, lease_lost="serve")
    between.change = what
    r = get(w, "/cut")
    assert (r.status, r.body) == (200, b"/cut v1")
    if cause is not None:
        eventually(lambda: failures(w, cause) >= 1)
    between.change = None
    between.peer.close()


def test_a_stop_waits_for_nothing_that_is_on_its_way_to_redis(origin, shared, redis):
    Versions(origin)
    w = shared()
    redis.call("CLIENT", "PAUSE", "60000", "WRITE")
    assert get(w, "/on-its-way", ("Cache-Control", "no-cache")).cache_status.stored
    assert w.stats()["tiers"]["redis"]["queued_bytes"] > 0
    assert w.stop() == 0
    redis.call("CLIENT", "UNPAUSE")


def test_no_redis_at_the_start_is_no_reason_not_to_start(origin, weir):
    Versions(origin)
    w = weir(cache={"redis": {"url": "redis://127.0.0.1:%d" % free_port(), "lease_lost": "serve"}})
    assert get(w, "/a").body == b"/a v1"
    assert get(w, "/a").cache_status.hit


def test_what_becomes_of_a_miss_while_redis_fails_is_declared(origin, shared, redis):
    said = {"stale": "max-age=1", "strict": "max-age=1, must-revalidate",
            "sie": "max-age=1, stale-if-error=600", "brief": "max-age=1, must-revalidate"}
    made = {}

    def answer(req, conn):
        made[req.path] = made.get(req.path, 0) + 1
        conn.respond(200, [("Cache-Control", said.get(req.path.split("/")[1], "max-age=600"))],
                     b"%s v%d" % (req.path.encode(), made[req.path]))
    origin.on("*", answer)
    w = shared(lease_lost="serve", on_failure="shed", routes=[
        {"path": "/stale/**", "on_failure": "stale"}, {"path": "/strict/**", "on_failure": "stale"},
        {"path": "/pass/**", "on_failure": "bypass"}, {"path": "/**"}])
    for path in ("/stale/1", "/strict/1", "/shed/1", "/sie/1"):
        assert get(w, path).status == 200
    redis.kill()
    only = ("Cache-Control", "only-if-cached")
    assert get(w, "/brief/1", ("Cache-Control", "no-cache")).status == 200  # not to be kept there
    eventually(lambda: all(get(w, p, only).status == 504
                           for p in ("/stale/1", "/strict/1", "/sie/1", "/brief/1")))
    eventually(lambda: w.stats()["tiers"]["redis"]["failing"] or not get(w, "/pass/x"))
    r = get(w, "/stale/1")
    assert (r.status, r.body, r.cache_status.hit) == (200, b"/stale/1 v1", True), r
    assert r.cache_status.detail == "redis-failed"
    assert get(w, "/stale/2").body == b"/stale/2 v1"            # memory has none: the origin
    assert get(w, "/strict/1").body == b"/strict/1 v2"          # its own word forbids it
    assert get(w, "/pass/1").body == b"/pass/1 v1"
    assert get(w, "/shed/1").cache_status.hit                   # it is fresh in memory
    r = get(w, "/shed/2")
    assert (r.status, r.header("Retry-After")) == (503, "1"), r
    assert "proxy_internal_error" in r.header("Proxy-Status")
    assert origin.count("/shed/2") == 0
    assert get(w, "/brief/1").status == 503     # though what is there could not be removed
    assert get(w, "/sie/1").body == b"/sie/1 v1"
    assert w.metric("weir_redis_failed_shed_total") >= 1
    assert w.metric("weir_redis_failed_stale_total") >= 2


# ---- what was dropped -------------------------------------------------------------------------

def gone_once_validated(origin, path):
    """Here, then gone, then out of order, then here anew."""
    respond = [((200, [FRESH, ("ETag", '"1"')], b"v1")), ((404, [("Cache-Control", "no-store")], b"")),
               ((503, [], b"")), ((200, [FRESH], b"v4"))]
    origin.on(path, [lambda req, conn, r=r: conn.respond(*r) for r in respond])


def test_a_value_that_was_read_before_its_response_was_dropped_is_not_used(origin, shared, redis):
    gone_once_validated(origin, "/d")
    between = Between(redis)
    w = shared(between, lease_lost="serve", timeout="10s")
    get(w, "/d")
    kept(w, 1)
    between.gets.clear()
    first = threading.Thread(target=get, args=(w, "/d", ("Cache-Control", "max-age=0")))
    first.start()
    assert between.asked.wait(TIMEOUT)
    assert get(w, "/d", ("Cache-Control", "no-cache")).status == 404
    eventually(lambda: values(redis) == [])
    between.gets.set()
    first.join(TIMEOUT)
    assert origin.count("/d") == 3
    assert get(w, "/d").body == b"v4"
    between.peer.close()


def test_a_value_is_not_used_while_the_word_that_it_was_dropped_is_on_its_way(
        origin, shared, redis):
    between = Between(redis)
    w = shared(between, lease_lost="serve", timeout="10s")
    for path in ["/d%d" % i for i in range(6)]:         # some are asked for by another thread
        between.dels.set()
        gone_once_validated(origin, path)
        get(w, path)
        eventually(lambda: len(values(redis)) == 1)
        between.dels.clear()
        assert get(w, path, ("Cache-Control", "no-cache")).status == 404
        assert get(w, path).status == 503
        assert len(values(redis)) == 1
        between.dels.set()
        eventually(lambda: values(redis) == [])
    between.peer.close()


def test_what_was_dropped_while_redis_was_away_goes_when_it_is_back(origin, shared, redis):
    gone_once_validated(origin, "/d")
    a, b = (shared(lease_lost="serve") for _ in range(2))
    get(a, "/d")
    eventually(lambda: len(values(redis)) == 1)
    redis.kill()
    assert get(a, "/d", ("Cache-Control", "no-cache")).status == 404
    redis.start()
    eventually(lambda: values(redis) == [])
    origin.on("/d", headers=[FRESH], body=b"again")

    def shares():
        return get(a, "/d").body == b"again" and get(b, "/d").cache_status.detail == "REDIS"
    eventually(shares)


# ---- one fetch in the fleet -------------------------------------------------------------------

def test_a_miss_is_fetched_once_by_all_instances(origin, shared):
    gate = origin.gate()

    def slowly(req, conn):
        gate.wait()
        conn.respond(200, [FRESH], b"once")
    origin.on("/hot", slowly)
    fleet = [shared() for _ in range(3)]

    def meanwhile():
        origin.wait("/hot", 1)
        eventually(lambda: sum(w.metric("weir_redis_lease_waits_total") for w in fleet) >= 2)
        gate.set()
    answers = fleet[0].parallel(30, lambda i: get(fleet[i % 3], "/hot"), meanwhile=meanwhile)
    assert {r.body for r in answers} == {b"once"}
    assert origin.count("/hot") == 1
    assert sum(w.metric("weir_redis_leases_total") for w in fleet) == 1
    assert sum(w.metric("weir_redis_lease_expired_total") for w in fleet) == 0


def test_variants_are_fetched_once_each(origin, shared):
    gate = origin.gate()

    def slowly(req, conn):
        gate.wait()
        conn.respond(200, [FRESH, ("Vary", "X-V")], req.header("X-V").encode())
    origin.on("/v", slowly)
    fleet = [shared() for _ in range(2)]
    answers = fleet[0].parallel(16, lambda i: get(fleet[i % 2], "/v", ("X-V", str(i // 2 % 2))),
                                meanwhile=lambda: (origin.wait("/v", 1), gate.set()))
    assert {r.body for r in answers} == {b"0", b"1"}
    assert origin.count("/v") <= 3


def aging(origin, path, fleet):
    """All have version 1 of it, which is stale by now and may be served while it is fetched; the
    next one stays fresh."""
    versions = Versions(origin, [("Cache-Control", "max-age=2, stale-while-revalidate=600")])
    assert [get(w, path).body for w in fleet] == [path.encode() + b" v1"] * len(fleet)
    end = time.monotonic() + 2.1
    eventually(lambda: time.monotonic() > end)
    versions.headers = [FRESH]
    return versions


def test_what_is_served_stale_is_fetched_anew_by_one_of_all_instances(origin, shared):
    fleet = [shared() for _ in range(3)]
    gate = origin.gate()
    versions = aging(origin, "/swr", fleet)
    origin.on("/swr", lambda req, conn: (gate.wait(), versions(req, conn)))
    assert [get(w, "/swr").body for w in fleet] == [b"/swr v1"] * 3
    origin.wait("/swr", 2)
    eventually(lambda: sum(w.metric("weir_redis_lease_waits_total") for w in fleet) == 2)
    assert [get(w, "/swr").body for w in fleet] == [b"/swr v1"] * 3     # nobody waits for it
    gate.set()
    eventually(lambda: [get(w, "/swr").body for w in fleet] == [b"/swr v2"] * 3)
    assert origin.count("/swr") == 2


def test_what_another_instance_has_fetched_anew_is_not_fetched_again(origin, shared):
    a, b = shared(), shared()
    aging(origin, "/swr", (a, b))
    assert get(a, "/swr").body == b"/swr v1"
    kept(a, 2)
    assert get(b, "/swr").body == b"/swr v1"
    eventually(lambda: get(b, "/swr").body == b"/swr v2")
    assert origin.count("/swr") == 2


def test_who_may_be_served_stale_waits_for_no_other_instance(origin, shared):
    a, b = shared(), shared()
    gate = origin.gate()
    versions = aging(origin, "/swr", [a])
    kept(a, 1)
    origin.on("/swr", lambda req, conn: (gate.wait(), versions(req, conn)))
    assert get(a, "/swr").body == b"/swr v1"
    origin.wait("/swr", 2)
    r = get(b, "/swr")                  # it had nothing; the gate is shut
    assert r.body == b"/swr v1" and r.cache_status.detail == "stale-while-revalidate"
    eventually(lambda: b.metric("weir_redis_lease_waits_total") == 1)
    gate.set()
    eventually(lambda: get(b, "/swr").body == b"/swr v2")
    assert origin.count("/swr") == 2
    assert [w.metric("weir_redis_leases_total") for w in (a, b)] == [2, 0]


def test_what_came_from_another_instance_and_is_stale_too_is_validated(origin, shared):
    asked, tag = [], ("ETag", '"1"')

    def answer(req, conn):
        asked.append(req.header("If-None-Match"))
        conn.respond(304 if asked[-1] else 200,
                     [tag, ("Cache-Control", "max-age=1, stale-while-revalidate=600")],
                     b"" if asked[-1] else b"body")
    origin.on("/e", answer)
    a, b = shared(min_ttl="100ms"), shared(min_ttl="100ms")

    def once(w, n):
        assert get(w, "/e").body == b"body"
        kept(w, n)
        end = time.monotonic() + 1.1
        eventually(lambda: time.monotonic() > end)
    once(a, 1)
    once(b, 1)                          # takes it from there, stale, and validates it
    once(a, 2)                          # finds what b has freshened, stale too by now
    assert asked == [None, '"1"', '"1"']


def test_a_fetch_does_not_begin_behind_one_that_has_just_ended(origin, shared):
    n = 60
    fleet = [shared() for _ in range(3)]
    versions = Versions(origin, [("Cache-Control", "max-age=4, stale-while-revalidate=600")])
    for w in fleet:
        w.parallel(n, lambda i: get(w, "/u%d" % i))
    end = time.monotonic() + 4.1
    eventually(lambda: time.monotonic() > end)
    versions.headers = [FRESH]
    fleet[0].parallel(3 * n, lambda i: get(fleet[i % 3], "/u%d" % (i // 3)))
    eventually(lambda: all(get(fleet[i % 3], "/u%d" % (i // 3)).body.endswith(b" v2")
                           for i in range(3 * n)))
    assert [origin.count("/u%d" % i) for i in range(n)] == [2] * n


@pytest.mark.parametrize("on_failure, fetches", [("bypass", 2), ("stale", 1), ("shed", 1)])
def test_what_is_served_stale_while_redis_fails_is_fetched_as_on_failure_says(
        origin, shared, redis, on_failure, fetches):
    w = shared(routes=[{"path": "/**", "on_failure": on_failure}])
    aging(origin, "/swr", [w])
    redis.kill()
    assert get(w, "/swr").body == b"/swr v1"
    if fetches == 2:
        eventually(lambda: get(w, "/swr").body == b"/swr v2")
    else:
        eventually(lambda: w.metric("weir_flights_now") == 0)
        assert get(w, "/swr").body == b"/swr v1"
    assert w.stop() == 0
    assert origin.count("/swr") == fetches


def test_who_waits_for_what_is_not_stored_is_told(origin, shared, redis):
    gate = origin.gate()
    order = []

    def slowly(req, conn):
        order.append(req)
        if len(order) == 1:
            gate.wait()
        conn.respond(200, [("Cache-Control", "private")], b"each its own")
    origin.on("/own", slowly)
    a, b = shared(), shared()

    def meanwhile():
        origin.wait("/own", 1)
        eventually(lambda: a.metric("weir_redis_lease_waits_total") +
                   b.metric("weir_redis_lease_waits_total") == 1)
        gate.set()
    answers = a.parallel(2, lambda i: get((a, b)[i], "/own"), meanwhile=meanwhile)
    assert [r.body for r in answers] == [b"each its own"] * 2
    assert a.metric("weir_redis_lease_expired_total") + \
        b.metric("weir_redis_lease_expired_total") == 0
    eventually(lambda: redis.call("KEYS", "weir:l:*") == [])


def test_a_holder_that_is_killed_costs_its_lease(origin, shared, weir):
    first = threading.Event()
    gate = origin.gate()

    def answer(req, conn):
        if not first.is_set():
            first.set()
            gate.wait()
        conn.respond(200, [FRESH], b"fetched")
    origin.on("/k", answer)
    a, b, c = (shared() for _ in range(3))
    thread = threading.Thread(target=lambda: pytest.raises(Exception, get, a, "/k"))
    thread.start()
    assert first.wait(TIMEOUT)
    got = []
    others = [threading.Thread(target=lambda w=w: got.append(get(w, "/k"))) for w in (b, c)]
    for t in others:
        t.start()
    eventually(lambda: all(w.metric("weir_redis_lease_waits_total") == 1 for w in (b, c)))
    a.kill()
    for t in others:
        t.join(TIMEOUT)
    thread.join()
    assert [r.body for r in got] == [b"fetched"] * 2
    assert origin.count("/k") == 2      # one of those who waited fetched for both
    a.start()


def test_a_client_that_leaves_before_its_fetch_leaves_no_lease(origin, shared, redis):
    gate = origin.gate()
    origin.on("/c", lambda req, conn: (gate.wait(), conn.respond(200, [FRESH], b"done")))
    a, b = shared(), shared()
    client = a.client()
    client.start("GET", "/c", HOST)
    origin.wait("/c", 1)
    client.close()
    gate.set()
    eventually(lambda: redis.call("KEYS", "weir:l:*") == [])
    assert get(b, "/c").body == b"done"
    assert origin.count("/c") == 1


def test_a_reload_in_a_request_waits_for_nobody(origin, shared):
    gate = origin.gate()
    origin.on("/n", [lambda req, conn: (gate.wait(), conn.respond(200, [FRESH], b"first")),
                     lambda req, conn: conn.respond(200, [FRESH], b"second")])
    a, b = shared(), shared()
    thread = threading.Thread(target=lambda: get(a, "/n"))
    thread.start()
    origin.wait("/n", 1)
    assert get(b, "/n", ("Cache-Control", "no-cache")).body == b"second"
    gate.set()
    thread.join()


def with_disk(weir, redis):
    w = weir(cache={"redis": {"url": redis.url, "timeout": "%dms" % TIMEOUT_MS},
                    "disk": {"path": "cache", "size": "64MiB"}})
    eventually(lambda: holds(w))
    return w


def on_disk(w, n):
    """Waits until so many responses are written."""
    eventually(lambda: w.stats()["tiers"]["disk"]["objects"] == n)


def test_disk_and_redis_are_asked_in_turn(origin, weir, redis):
    Versions(origin)
    a, b = with_disk(weir, redis), with_disk(weir, redis)
    get(a, "/both")
    kept(a, 1)
    on_disk(a, 1)
    assert get(b, "/both").cache_status.detail == "REDIS"
    assert a.stop() == 0
    a.start()
    eventually(lambda: holds(a))
    assert get(a, "/both").cache_status.detail == "DISK"
    assert origin.count("/both") == 1


def test_what_came_from_redis_is_on_disk_after_a_restart_unless_it_was_purged(
        origin, weir, redis):
    origin.on("/v", lambda req, conn: conn.respond(
        200, [FRESH, ("Vary", "Accept-Language")], req.header("Accept-Language").encode()))
    Versions(origin)
    a, b = with_disk(weir, redis), with_disk(weir, redis)
    german = ("Accept-Language", "de")
    wanted = ("/kept",), ("/purged",), ("/v", german)
    for args in wanted:
        get(a, *args)
    kept(a, 3)
    assert [get(b, *args).cache_status.detail for args in wanted] == ["REDIS"] * 3
    on_disk(b, 3)
    assert a.api("POST", "/purge", {"url": "http://shop.test/purged"}).status == 200
    on_disk(b, 2)
    b.kill()
    b.start()
    eventually(lambda: holds(b))
    assert get(b, "/purged").body == b"/purged v2"
    for args, body in ((("/kept",), b"/kept v1"), (("/v", german), b"de")):
        r = get(b, *args)
        assert (r.body, r.cache_status.detail) == (body, "DISK"), r


def test_what_is_stale_on_disk_does_not_hide_what_is_newer_in_redis(origin, weir, shared, redis):
    tag = ("ETag", '"1"')
    stale = [("Cache-Control", "max-age=1"), tag]
    may = [("Cache-Control", "max-age=1, stale-while-revalidate=600"), tag]
    fresh = [FRESH, tag]
    older, newer = (lambda req, conn, h=h, body=body: conn.respond(200, h, body)
                    for h, body in ((stale, b"v1"), (fresh, b"v2")))
    origin.on("/s", [older, newer])
    origin.on("/swr", [lambda req, conn: conn.respond(200, may, b"v1"), newer])
    origin.on("/alone", [older, lambda req, conn: conn.respond(304, fresh)])
    origin.on("/v", lambda req, conn: conn.respond(
        200, [FRESH, ("Vary", "X-A")], req.header("X-A").encode()))
    a, b = with_disk(weir, redis), shared()
    for path in ("/s", "/swr", "/alone"):
        get(a, path)
    get(a, "/v", ("X-A", "1"))
    on_disk(a, 4)
    assert a.stop() == 0
    end = time.monotonic() + 1.1
    eventually(lambda: time.monotonic() > end)
    for path in ("/s", "/swr"):
        assert get(b, path, ("Cache-Control", "no-cache")).body == b"v2"
    get(b, "/v", ("X-A", "2"))
    kept(b, 3)
    a.start()
    eventually(lambda: holds(a))
    for path, header, body in (("/s", ("X-A", "1"), b"v2"), ("/v", ("X-A", "2"), b"2")):
        r = get(a, path, header)
        assert (r.body, r.cache_status.detail) == (body, "REDIS"), r
    assert get(a, "/v", ("X-A", "1")).cache_status.hit
    r = get(a, "/swr")                  # may be served stale: it is, and then what is newer
    assert (r.body, r.cache_status.detail) == (b"v1", "stale-while-revalidate"), r
    eventually(lambda: get(a, "/swr").body == b"v2")
    assert [origin.count(path) for path in ("/s", "/swr", "/v")] == [2] * 3
    # ... and where Redis has nothing newer, what the disk has is validated, by one for all
    r = get(a, "/alone")
    assert (r.body, r.cache_status.fwd) == (b"v1", "stale"), r
    assert origin.of("/alone")[-1].header("If-None-Match") == '"1"'
    assert a.metric("weir_redis_leases_total") == 1


def test_a_lease_of_who_joins_a_fetch_without_one_is_given_back(origin, shared, redis):
    gate = origin.gate()
    origin.on("/j", lambda req, conn: (gate.wait(), conn.respond(200, [FRESH], b"fetched")))
    w = shared()
    threads = [threading.Thread(target=get, args=(w, "/j")) for _ in range(2)]
    redis.pause()
    threads[0].start()
    origin.wait("/j")
    redis.resume()
    paths = iter(range(10000))
    eventually(lambda: get(w, "/%d" % next(paths)) and w.metric("weir_redis_leases_total"))
    leases = w.metric("weir_redis_leases_total")
    threads[1].start()
    eventually(lambda: w.metric("weir_redis_leases_total") == leases + 1)
    eventually(lambda: w.metric("weir_collapsed_total") == 1)
    gate.set()
    for t in threads:
        t.join(TIMEOUT)
    eventually(lambda: redis.call("KEYS", "weir:l:*") == [])
    assert origin.count("/j") == 1
    assert w.api("POST", "/purge", {"url": "/j"}).status == 200
    assert get(w, "/j").body == b"fetched"
    assert w.metric("weir_redis_leases_total") == leases + 2
