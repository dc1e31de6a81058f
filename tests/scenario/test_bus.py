"""The purge bus: three instances that share a Redis purge as one."""
import contextlib
import os
import pathlib
import socket
import subprocess
import threading
import time

import pytest

from harness import eventually, Redis, Relay, SLOW

HOST = [("Host", "shop.test")]
LEASE = 2                               # seconds; short, so that its end can be awaited


@pytest.fixture
def fleet(weir, redis, origin):
    """fleet(n, **redis options): n instances in front of the origin."""
    def make(n=3, routes=None, **options):
        # what is stored here stays fresh for less: it is in memory alone
        options = {"url": redis.url, "lease": "%ds" % LEASE, "min_ttl": "1h", **options}
        return [weir(routes=routes or [{"name": "all", "path": "/**", "tags": ["t"]}],
                     cache={"redis": options}) for _ in range(n)]
    return make


def get(w, path, *headers):
    return w.get(path, HOST + list(headers))


def has(w, path):
    """Is it answered from the store, without a question to the origin?"""
    return get(w, path, ("Cache-Control", "only-if-cached")).status == 200


def warm(instances, *paths):
    for w in instances:
        for path in paths:
            assert get(w, path).status == 200
            assert get(w, path).cache_status.hit, w.log()


def purge(w, status=200, **what):
    """One that is to be done has its time."""
    r = w.api("POST", "/purge", {**({"wait": 8000} if status == 200 else {}), **what})
    assert r.status == status, (r.status, r.body)
    return r.json()


def not_done(w, why, **what):
    """One that is answered so, in `why` or by that name: Redis itself may be late."""
    def once():
        answer = purge(w, 202, **what)
        return answer if why in answer or why in answer.get("why", "") else None
    return eventually(once)


def fresh(origin, *paths, headers=()):
    for path in paths:
        origin.on(path, body=path.encode(), headers=[("Cache-Control", "max-age=600"), *headers])


def holds(w):
    return w.stats()["bus"]["lease"] == "held"


class Cable(Relay):
    """Between one instance and Redis: it can be cut without either side hearing of it."""

    def __init__(self, port):
        self.whole = threading.Event()
        self.whole.set()
        super().__init__(port)

    def carry(self, a, b, asks):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                self.whole.wait()
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)

    def end(self):
        self.whole.set()
        super().end()


KINDS = [
    ({"url": "http://shop.test/a/1"}, ["/a/1"], ["/a/2", "/b/1"]),
    ({"url": "/a/1"}, ["/a/1"], ["/a/2", "/b/1"]),
    ({"prefix": "http://shop.test/a/"}, ["/a/1", "/a/2"], ["/b/1"]),
    ({"prefix": "/a/"}, ["/a/1", "/a/2"], ["/b/1"]),
    ({"pattern": "*/1"}, ["/a/1", "/b/1"], ["/a/2"]),
    ({"tags": ["x"]}, ["/a/1"], ["/a/2", "/b/1"]),
    ({"groups": ["g"], "origin": "http://shop.test"}, ["/a/2"], ["/a/1", "/b/1"]),
    ({"groups": ["g"]}, ["/a/2"], ["/a/1", "/b/1"]),
    ({"route": ["b"]}, ["/b/1"], ["/a/1", "/a/2"]),
    ({"all": True}, ["/a/1", "/a/2", "/b/1"], []),
    ({"all": True, "soft": True}, ["/a/1", "/a/2", "/b/1"], []),
    ({"tags": ["x"], "soft": True}, ["/a/1"], ["/a/2", "/b/1"]),
]


def test_a_purge_of_any_kind_is_in_force_at_all_instances_when_it_was_answered(fleet, origin):
    instances = fleet(routes=[{"name": "b", "path": "/b/**"},
                              {"name": "x", "path": "/a/1", "tags": ["x"]},
                              {"name": "all", "path": "/**"}])
    fresh(origin, "/a/1", "/b/1")
    fresh(origin, "/a/2", headers=[("Cache-Groups", '"g"')])
    for turn, (what, gone, kept) in enumerate(KINDS):
        warm(instances, "/a/1", "/a/2", "/b/1")
        answer = purge(instances[turn % 3], **what)
        assert answer["done"] is True and answer["missing"] == [] and answer["instances"] == 3
        for w in instances:
            assert [p for p in kept if not has(w, p)] == [], what
            assert [p for p in gone if has(w, p)] == [], what


def test_a_write_at_one_instance_purges_at_the_others(fleet, origin):
    instances = fleet()
    fresh(origin, "/a")
    warm(instances, "/a")
    origin.on("/a", lambda q, c: c.respond(204) if q.method == "PUT" else
              c.respond(200, [("Cache-Control", "max-age=600")], b"new"))
    assert instances[0].request("PUT", "/a", HOST, b"new").status == 204
    for w in instances[1:]:
        eventually(lambda w=w: get(w, "/a").body == b"new")


def test_what_a_write_through_stored_survives_its_own_echo(fleet, origin, redis):
    instances = fleet(2, routes=[{"path": "/**", "policy": "write-through"}])
    fresh(origin, "/a")
    warm(instances, "/a")
    origin.on("/a", lambda q, c: c.respond(200, [("Content-Location", "/a"),
                                               ("Cache-Control", "max-age=600")], b"new"))
    assert instances[0].request("PUT", "/a", HOST, b"new").status == 200
    eventually(lambda: instances[1].metric("weir_bus_applied_total") >= 1)
    eventually(lambda: instances[0].stats()["bus"]["position"] == instances[1].stats()["bus"]["position"])
    assert get(instances[0], "/a").cache_status.hit
    assert get(instances[0], "/a").body == b"new"
    assert not has(instances[1], "/a")


def test_who_has_not_applied_it_is_named_and_asked_for_later(fleet, origin):
    instances = fleet(lease="60s")
    fresh(origin, "/a")
    warm(instances, "/a")
    names = [w.stats()["bus"]["instance"] for w in instances]
    instances[2].pause()
    try:
        answer = purge(instances[0], 202, tags=["t"], wait=50)
        assert answer["done"] is False and answer["missing"] == [names[2]]
        for w in instances[:2]:
            later = w.api("GET", "/purge/" + answer["id"]).json()
            assert later["done"] is False and later["missing"] == [names[2]]
        out = instances[0].cli("purge", "--id", answer["id"], "--admin", instances[0].admin_url)
        assert out.returncode == 3 and names[2] in out.stdout
        out = instances[0].cli("purge", "--id", answer["id"], "--tag", "t", "--admin", instances[0].admin_url)
        assert out.returncode == 2 and "--id tells how far a purge is, and stands alone" in out.stderr
    finally:
        instances[2].resume()
    eventually(lambda: instances[1].api("GET", "/purge/" + answer["id"]).json()["done"])
    assert not has(instances[2], "/a")
    assert instances[0].api("GET", "/purge/no-such").status == 404
    out = instances[0].cli("purge", "--all", "--admin", instances[0].admin_url)
    assert out.returncode == 0 and '"done": true' in out.stdout


def test_a_fleet_that_has_never_purged_counts_no_failures_and_knows_no_purge(fleet, redis):
    w, = fleet(1, lease="1s")

    def known(place):
        return w.api("GET", "/purge/" + place).status
    assert [known("1-1"), known("9999999999999-0")] == [404, 404]
    eventually(lambda: "cmdstat_xtrim:calls=3" in redis.call("INFO", "commandstats"))   # rounds
    assert w.metric("weir_redis_failures_total") == 0
    first, last = (purge(w, tags=["t"])["id"] for _ in range(2))
    assert first != last and [known(first), known(last)] == [200, 200]
    assert [known(place + "1") for place in (first, last)] == [404, 404]        # between, beyond
    redis.call("XTRIM", "weir:purges", "MAXLEN", "1")
    assert w.api("GET", "/purge/" + first).json()["done"] is True       # it may have been one


def test_a_redis_that_evicts_has_no_purge_reported_as_done_that_an_instance_has_not_applied(
        fleet, origin, redis):
    here, away = instances = fleet(2, lease="60s")
    fresh(origin, "/a")
    purge(here, tags=["other"])
    warm(instances, "/a")
    name = away.stats()["bus"]["instance"]
    keys = [k for k in redis.call("KEYS", "*") if "{bus}" in k]
    away.pause()                        # it trusts what it has
    try:
        volatile = [k for k in keys if redis.call("PTTL", k) != -1]
        if volatile:
            redis.call("DEL", *volatile)
        answer = not_done(here, "missing", url="http://shop.test/a", wait=200)
        assert answer["missing"] == [name]
        redis.call("DEL", *keys)
        eventually(lambda: "for a lease" in here.api("GET", "/purge/" + answer["id"]).json().get("why", ""))
    finally:
        away.resume()
    eventually(lambda: not has(away, "/a"))


def test_a_longer_lease_of_another_instance_is_remembered(fleet, origin, redis):
    fresh(origin, "/a")
    here, = fleet(1, lease="1s")
    away, = fleet(1, lease="60s")
    purge(here, tags=["other"])
    warm([here, away], "/a")
    eventually(lambda: here.log_has("an instance has a lease of 60000 ms"))
    away.pause()
    try:
        redis.kill()
        redis.start(empty=True)
        purge(here, 202, url="http://shop.test/a", wait=0)
        eventually(lambda: holds(here))
        not_done(here, "for a lease", url="http://shop.test/a", wait=1500)
    finally:
        away.resume()


@pytest.mark.parametrize("command", ["xread", "xinfo"])
def test_an_instance_that_may_not_hear_is_waited_for_no_longer_than_its_lease(
        weir, origin, redis, tmp_path, command):
    fresh(origin, "/a")
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    redis.call("ACL", "SETUSER", "deaf", "on", ">hunter2", "~*", "&*", "+@all")
    near, deaf = [weir(cache={"redis": {"url": redis.url, "lease": "1s", "min_ttl": "1h", **user}})
                  for user in ({}, {"username": "deaf", "password_file": str(secret)})]
    purge(near, tags=["other"])
    warm([near, deaf], "/a")
    redis.call("ACL", "SETUSER", "deaf", "-" + command)
    eventually(lambda: not holds(deaf))
    answer = purge(near, url="http://shop.test/a")
    assert answer["instances"] == 1 and not has(deaf, "/a")
    redis.call("ACL", "SETUSER", "deaf", "+" + command)
    eventually(lambda: holds(deaf))
    assert purge(near, tags=["other"])["instances"] == 2


def test_the_end_of_an_instance_is_waited_for_no_longer_than_its_lease(fleet, origin):
    instances = fleet()
    instances[2].kill()
    answer = purge(instances[0], 202, all=True, wait=50)
    eventually(lambda: instances[1].api("GET", "/purge/" + answer["id"]).json()["done"],
               timeout=3 * LEASE * SLOW)
    assert instances[1].stop() == 0         # in order: nobody waits for it
    assert purge(instances[0], all=True)["instances"] == 1
    instances[2].status = 0


def test_an_instance_that_was_stopped_beyond_its_lease_validates_from_its_first_answer_on(
        fleet, origin):
    instances = fleet(2)
    fresh(origin, "/a", headers=[("ETag", '"1"'), ("Cache-Control", "stale-while-revalidate=600")])
    warm(instances, "/a")
    stopped = instances[1]
    with stopped.client() as c:
        c.request("GET", "/a", HOST)
        stopped.pause()
        try:
            c.send(b"GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            answer = purge(instances[0], 202, url="http://shop.test/a", wait=0)
            origin.on("/a", body=b"new", headers=[("Cache-Control", "max-age=600")])
            eventually(lambda: instances[0].api("GET", "/purge/" + answer["id"]).json()["done"],
                       timeout=3 * LEASE * SLOW)
        finally:
            stopped.resume()
        assert c.response().body == b"new"


def test_an_instance_that_is_cut_off_validates_and_catches_up(fleet, weir, origin, redis):
    cable = Cable(redis.port)
    try:
        near, = fleet(1)
        far = weir(cache={"redis": {"url": cable.url, "lease": "%ds" % LEASE}})
        fresh(origin, "/a", "/b", headers=[("Cache-Control", "stale-while-revalidate=600")])
        warm([near, far], "/a", "/b")
        name = far.stats()["bus"]["instance"]
        cable.whole.clear()
        answer = purge(near, 202, url="http://shop.test/a", wait=50)
        assert answer["missing"] == [name]
        assert has(far, "/a")           # within its lease
        origin.on("/a", body=b"new", headers=[("Cache-Control", "max-age=600")])
        eventually(lambda: near.api("GET", "/purge/" + answer["id"]).json()["done"],
                   timeout=3 * LEASE * SLOW)
        assert get(far, "/a").body == b"new"
        assert not get(far, "/b").cache_status.hit
        cable.whole.set()
        eventually(lambda: holds(far), timeout=20 * SLOW)
        assert get(far, "/b").cache_status.hit
        assert get(far, "/a").body == b"new"
        assert not far.log_has("Redis lost")
        assert purge(near, all=True)["instances"] == 2
    finally:
        cable.end()


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_without_redis_memory_is_served_for_the_lease_and_validated_after_it(fleet, origin, redis, how):
    instances = fleet(2)
    fresh(origin, "/a", headers=[("ETag", '"1"'), ("Cache-Control", "stale-while-revalidate=600")])
    warm(instances, "/a")
    (redis.kill if how == "killed" else redis.pause)()
    assert get(instances[0], "/a").cache_status.hit
    before = origin.count("/a")
    eventually(lambda: not holds(instances[0]), timeout=3 * LEASE * SLOW)
    assert instances[0].log_has("the lease ended")
    for _ in range(3):
        r = get(instances[0], "/a")
        assert r.status == 200 and not r.cache_status.hit
    told = instances[0].api("GET", "/explain?url=http://shop.test/a").json()["stored"][0]
    assert told["in_doubt"] is True and told["soft_purged"] is False and told["use"] == "validate"
    for header in [("Range", "bytes=0-0"), ("If-None-Match", '"1"'), ("Accept-Encoding", "gzip")]:
        assert get(instances[0], "/a", header).status in (200, 206, 304)
    assert origin.count("/a") >= before + 3
    # A purge works at home at once, and at the other when Redis is back.
    answer = purge(instances[0], 202, url="http://shop.test/a", wait=0)
    assert "why" in answer and answer["done"] is False
    assert get(instances[0], "/a").body == b"/a"
    (redis.start if how == "killed" else redis.resume)()
    eventually(lambda: all(holds(w) for w in instances), timeout=10 * SLOW)
    assert eventually(lambda: instances[0].api("GET", "/purge/" + answer["id"]).json()["done"])
    assert get(instances[0], "/a").status == 200
    assert get(instances[0], "/a").cache_status.hit


def test_an_origin_that_fails_is_not_covered_up_by_what_may_be_purged(fleet, origin, redis):
    w, = fleet(1)
    fresh(origin, "/a", headers=[("Cache-Control", "stale-if-error=600")])
    warm([w], "/a")
    redis.kill()
    eventually(lambda: not holds(w), timeout=3 * LEASE * SLOW)
    origin.on("/a", status=503, body=b"no")
    assert get(w, "/a").status == 503


def test_who_chooses_to_serve_without_a_lease_does(fleet, origin, redis):
    instances = fleet(2, lease_lost="serve")
    fresh(origin, "/a")
    warm(instances, "/a")
    redis.kill()
    eventually(lambda: not holds(instances[0]), timeout=3 * LEASE * SLOW)
    assert get(instances[0], "/a").cache_status.hit
    purge(instances[1], 202, tags=["t"], wait=0)
    assert get(instances[0], "/a").cache_status.hit
    redis.start()
    eventually(lambda: not has(instances[0], "/a"), timeout=10 * SLOW)


def test_a_redis_that_lost_its_data_leaves_everything_in_doubt(fleet, origin, redis):
    instances = fleet()
    fresh(origin, "/a", headers=[("ETag", '"1"'), ("Cache-Control", "stale-while-revalidate=600")])
    purge(instances[0], tags=["other"])
    warm(instances, "/a")
    redis.kill()
    redis.start(empty=True)
    for w in instances:
        eventually(lambda w=w: w.log_has("lost purges"), timeout=10 * SLOW)
        assert not get(w, "/a").cache_status.hit
    eventually(lambda: all(holds(w) for w in instances), timeout=10 * SLOW)
    eventually(lambda: instances[0].api("POST", "/purge", {"all": True}).status == 200)


def test_a_redis_that_lost_who_is_live_has_no_purge_reported_as_done(fleet, origin, redis):
    here, away = instances = fleet(2, lease="60s")
    fresh(origin, "/a")
    purge(here, tags=["other"])
    warm(instances, "/a")
    away.pause()                        # it trusts what it has, and is in no list of the new Redis
    try:
        redis.kill()
        redis.start(empty=True)
        eventually(lambda: here.log_has("lost purges") and holds(here))
        answer = not_done(here, "for a lease", url="http://shop.test/a", wait=200)
    finally:
        away.resume()
    eventually(lambda: not has(away, "/a"))
    assert here.api("GET", "/purge/" + answer["id"]).json()["done"] is False


def test_a_new_redis_knows_everybody_after_a_lease(fleet, redis):
    redis.call("DEL", "weir:{bus}leases")
    w, = fleet(1, lease="4s")
    answer = not_done(w, "for a lease", tags=["t"], wait=200)
    assert eventually(lambda: w.api("GET", "/purge/" + answer["id"]).json()["done"])
    purge(w, tags=["t"])


def test_a_redis_that_kept_its_data_leaves_nothing_in_doubt(fleet, origin, redis):
    instances = fleet()
    fresh(origin, "/a", "/b")
    purge(instances[0], tags=["other"])
    warm(instances, "/a", "/b")
    redis.kill()
    purge(instances[1], 202, url="http://shop.test/b", wait=0)
    redis.start()
    eventually(lambda: all(has(w, "/a") and not has(w, "/b") for w in instances), timeout=10 * SLOW)
    assert not any(w.log_has("lost purges") for w in instances)


def test_where_the_stream_was_trimmed_beyond_an_instance_everything_is_in_doubt_there(
        fleet, origin, redis):
    instances = fleet(2, lease="60s")
    fresh(origin, "/a")
    warm(instances, "/a")
    away = instances[1]
    away.pause()
    try:
        for i in range(5):
            instances[0].purge(tags=["other%d" % i], wait=0)
        eventually(lambda: redis.call("XLEN", "weir:purges") == 5 and instances[0].stats()["bus"][
            "position"] == redis.call("XREVRANGE", "weir:purges", "+", "-")[0][0])
        redis.call("XTRIM", "weir:purges", "MAXLEN", "2")
        redis.call("CLIENT", "KILL", "TYPE", "normal")
    finally:
        away.resume()
    eventually(lambda: away.log_has("does not reach back"))
    assert not has(away, "/a")
    assert has(instances[0], "/a")
    assert not instances[0].log_has("purge bus: Redis lost")


def test_an_entry_of_another_version_purges_everything(fleet, origin, redis):
    w, = fleet(1)
    fresh(origin, "/a")
    warm([w], "/a")
    redis.call("XADD", "weir:purges", "*", "v", "2", "what", "ever")
    eventually(lambda: w.metric("weir_bus_unknown_total") == 1)
    assert not has(w, "/a")


def test_purges_that_wait_for_redis_are_sent_once_for_each_text_and_in_order(fleet, origin, redis):
    instances = fleet(2)
    fresh(origin, "/a")
    redis.kill()
    for i in range(300):
        instances[0].purge(tags=["tag-%d" % (i % 3)], wait=0)
    assert instances[0].metric("weir_bus_waiting") <= 4
    redis.start()
    eventually(lambda: instances[1].metric("weir_bus_applied_total") >= 3, timeout=10 * SLOW)
    eventually(lambda: instances[0].metric("weir_bus_waiting") == 0)
    entries = redis.call("XRANGE", "weir:purges", "-", "+")
    texts = [e[1][e[1].index("text") + 1] for e in entries]
    assert sorted(set(texts)) == ["tag-0", "tag-1", "tag-2"] and len(texts) <= 6


def test_too_many_purges_that_wait_become_one_of_everything(fleet, origin, redis):
    instances = fleet(2)
    fresh(origin, "/a")
    warm(instances, "/a")
    redis.kill()
    instances[0].purge(tags=["many-%d" % i for i in range(70000)], wait=0)
    assert instances[0].metric("weir_bus_waiting") <= 65537
    assert instances[0].metric("weir_bus_folded_total") >= 1
    assert instances[0].log().count("more than 65536 purges") == 1
    redis.start()
    eventually(lambda: not has(instances[1], "/a"), timeout=10 * SLOW)


def test_thousands_of_purges_at_once_leave_alone_what_they_do_not_name(fleet, origin):
    instances = fleet(2, routes=[{"path": "/b", "tags": ["many-7999"]}, {"path": "/**", "tags": ["t"]}])
    fresh(origin, "/a", "/b")
    warm(instances, "/a", "/b")
    purge(instances[0], tags=["many-%d" % i for i in range(8000)])
    assert [has(instances[1], p) for p in ("/a", "/b")] == [True, False]
    assert instances[0].metric("weir_bus_folded_total") == 0


@pytest.mark.parametrize("how", ["stop", "kill", "upgrade"])
def test_purges_that_wait_for_redis_outlive_their_process(weir, origin, redis, tmp_path, how):
    fresh(origin, "/a", "/b", "/c")
    cache = {"redis": {"url": redis.url, "lease": "30s", "timeout": "1s"}}
    other = weir(cache=cache)
    w = weir(cache={**cache, "disk": {"path": str(tmp_path / "disk"), "size": "64MiB"}})
    warm([other, w], "/a", "/b", "/c")
    redis.kill()
    purge(w, 202, url="http://shop.test/a", wait=0)
    purge(w, 202, url="http://shop.test/b", soft=True, wait=0)
    waiting = tmp_path / "disk" / "waiting"
    if how != "stop":                           # there all is kept at the end
        eventually(lambda: waiting.exists() and waiting.read_bytes().count(b"http://shop.test/") == 2)
    if how == "upgrade":
        assert w.upgrade().wait() == 0
    else:
        getattr(w, how)()
        w.start()
    assert w.log_has("2 purges that waited for Redis")
    assert [has(other, p) for p in ("/a", "/b", "/c")] == [True, True, True]
    redis.start()
    eventually(lambda: not has(other, "/a") and not has(other, "/b"), timeout=20 * SLOW)
    assert has(other, "/c")
    eventually(lambda: not waiting.exists())
    assert get(w, "/a").status == 200 and not has(w, "/b")


def test_purges_that_wait_are_kept_however_fast_they_come(weir, origin, redis, tmp_path):
    w = weir(cache={"redis": {"url": redis.url}, "disk": {"path": str(tmp_path / "disk"), "size": "64MiB"}})
    redis.kill()
    waiting = tmp_path / "disk" / "waiting"
    n = 0

    def another():
        nonlocal n
        n += 1
        purge(w, 202, tags=["t%d" % n], wait=0)
        return waiting.exists()
    eventually(another)
    w.kill()
    w.start()
    assert w.log_has("purges that waited for Redis")


def test_a_file_of_waiting_purges_that_is_not_whole_purges_everything(weir, origin, redis, tmp_path):
    fresh(origin, "/a")
    cache = {"redis": {"url": redis.url, "timeout": "1s"}}
    other = weir(cache=cache)
    w = weir(cache={**cache, "disk": {"path": str(tmp_path / "disk"), "size": "64MiB"}})
    warm([other], "/a")
    redis.kill()
    purge(w, 202, tags=["t"], wait=0)
    assert w.stop() == 0 and w.log_has("1 purges did not reach Redis: they are kept in")
    waiting = tmp_path / "disk" / "waiting"
    waiting.write_bytes(waiting.read_bytes()[:-1])
    redis.start()
    w.start()
    assert w.log_has("waiting is not whole")
    eventually(lambda: not has(other, "/a"), timeout=20 * SLOW)


def test_a_start_without_redis_serves_and_catches_up(weir, origin, redis):
    redis.kill()
    fresh(origin, "/a")
    w = weir(cache={"redis": {"url": redis.url, "lease": "2s"}})
    assert get(w, "/a").status == 200
    assert not get(w, "/a").cache_status.hit
    redis.start()
    eventually(lambda: holds(w), timeout=10 * SLOW)
    assert get(w, "/a").status == 200
    assert get(w, "/a").cache_status.hit


def test_a_purge_of_one_client_reaches_all(fleet, origin, redis, weir, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    fresh(origin, "/a")
    instances = [weir(listen={"purge": {"networks": ["127.0.0.1"], "token_file": str(token)}},
                      cache={"redis": {"url": redis.url}}) for _ in range(2)]
    warm(instances, "/a")
    r = instances[0].request("PURGE", "/a", HOST + [("Authorization", "Bearer s3cret")])
    assert r.status in (200, 204)
    eventually(lambda: not has(instances[1], "/a"))


def test_purges_are_applied_everywhere_within_milliseconds(fleet, origin):
    """The figure is measured elsewhere; this holds that nothing polls on the way."""
    instances = fleet()
    took = []
    for i in range(50):
        begin = time.monotonic()
        purge(instances[i % 3], tags=["n%d" % i])
        took.append(time.monotonic() - begin)
    assert sorted(took)[25] < 0.1 * SLOW, took


def test_secrets_of_redis_stay_out_of_logs_and_answers(weir, origin, redis, tmp_path):
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    redis.call("ACL", "SETUSER", "weir", "on", ">hunter2", "~weir:*", "&weir:*", "+@all")
    w = weir(cache={"redis": {"url": redis.url, "username": "weir", "password_file": str(secret)}})
    eventually(lambda: holds(w))
    assert "hunter2" not in w.api("GET", "/config").body.decode()
    assert not w.log_has("hunter2")
    assert os.path.exists(str(secret))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_purges_that_were_made_while_an_instance_was_down_reach_what_it_has_on_disk(
        weir, origin, redis, tmp_path, how):
    fresh(origin, "/a", "/b", "/c")
    cache = {"redis": {"url": redis.url, "lease": "2s"}}
    other = weir(cache=cache)
    w = weir(cache={**cache, "disk": {"path": str(tmp_path / "disk"), "size": "64MiB"}})
    purge(other, url="http://shop.test/c")
    warm([w], "/a", "/b", "/c")
    eventually(lambda: w.metric("weir_disk_objects") == 3)
    getattr(w, how)()
    other.purge(url="http://shop.test/a", wait=0)
    w.start()
    eventually(lambda: holds(w))
    assert [get(w, p).cache_status.hit for p in ("/a", "/b", "/c")] == [False, True, True], w.log()
    getattr(w, how)()
    for i in range(3):
        other.purge(tags=["other%d" % i], wait=0)
    eventually(lambda: redis.call("XLEN", "weir:purges") == 5)
    redis.call("XTRIM", "weir:purges", "MAXLEN", "1")
    w.start()
    eventually(lambda: holds(w))
    assert w.log_has("does not reach back")
    assert not get(w, "/b").cache_status.hit


def test_bytes_are_erased_before_the_others_are_waited_for(weir, origin, redis, tmp_path):
    cache = {"redis": {"url": redis.url}}
    fresh(origin, "/a")
    instances = [weir(cache={**cache, "disk": {"path": str(tmp_path / ("disk%d" % i)),
                                               "size": "64MiB"}}) for i in range(2)]
    warm(instances, "/a")
    answer = purge(instances[0], tags=["none"], url="http://shop.test/a", erase=True)
    assert answer["erased"] is True and answer["done"] is True and answer["instances"] == 2
    assert not any(has(w, "/a") for w in instances)
    with pytest.raises(AssertionError):
        instances[1].purge(all=True, wait=-1)


SECRET = b"licensed-text-"


@pytest.fixture
def disks(weir, redis, origin):
    """Instances with a disk and Redis, each of which stores for itself what the paths are."""
    def make(n, *paths):
        for path in paths:
            origin.on(path, body=SECRET + path.encode(), headers=[("Cache-Control", "max-age=600")])
        made = [weir(cache={"disk": {"path": "cache", "size": "64MiB"},
                            "redis": {"url": redis.url, "lease": "30s", "timeout": "1s",
                                      "min_ttl": "1h"}}) for _ in range(n)]
        for w in made:
            eventually(lambda: holds(w) and not w.stats()["tiers"]["disk"]["loading"])
        warm(made, *paths)
        for w in made:
            eventually(lambda: w.metric("weir_disk_objects") == len(paths))
            assert all(on_disk(w, p) for p in paths), "the test looks in the wrong place"
        return made
    return make


def on_disk(w, path):
    """The files of its cache directory that have the body's bytes."""
    return [f for f in pathlib.Path(w.directory, "cache").rglob("*")
            if f.is_file() and SECRET + path.encode() in f.read_bytes()]


def erase(w, path, **how):
    r = w.api("POST", "/purge", {"url": "http://shop.test" + path, "erase": True, **how})
    return r.status, r.json()


def test_an_erase_is_done_when_the_bytes_are_gone_from_every_disk(disks):
    instances = disks(3, "/a", "/keep")
    status, answer = erase(instances[0], "/a")
    assert (status, answer["done"], answer["erased"], answer["instances"]) == (200, True, True, 3)
    assert not any(on_disk(w, "/a") for w in instances)
    assert all(on_disk(w, "/keep") and has(w, "/keep") for w in instances)


def test_who_was_not_there_for_an_erase_erases_when_it_is_back(disks):
    a, paused, stopped, killed = disks(4, "/a", "/keep")
    paused.pause()
    assert stopped.stop() == 0
    killed.kill()
    status, answer = erase(a, "/a", wait=50)
    assert (status, answer["done"], answer["erased"]) == (202, False, False)
    assert len(answer["missing"]) == 2 and not on_disk(a, "/a")
    paused.resume()
    stopped.start()
    killed.start()
    for w in (paused, stopped, killed):
        eventually(lambda: not on_disk(w, "/a"))
        assert on_disk(w, "/keep")
    # the dead one's lease is not over
    eventually(lambda: len(a.api("GET", "/purge/" + answer["id"]).json()["missing"]) == 1)


def test_an_erase_that_waits_for_redis_outlives_its_process(disks, redis):
    a, b = disks(2, "/a")
    redis.kill()
    r = a.api("POST", "/purge", {"url": "http://shop.test/a", "erase": True, "wait": 0})
    assert r.status == 500 and "from Redis" in r.json()["detail"]       # it cannot be looked at
    assert a.stop() == 0
    a.start()
    redis.start()
    eventually(lambda: not on_disk(b, "/a"), timeout=20 * SLOW)
    assert not on_disk(a, "/a")


def test_a_fail_over_by_sentinels_leaves_nothing_unsaid(redis, sentinel, weir, origin):
    """The replica has all that the master had: nothing is in doubt behind it."""
    replica = sentinel.replica
    # One worker each: every worker finds the master for itself.
    instances = [weir(workers=1, cache={"redis": {"url": [sentinel.url], "lease": "2s",
                                       "sentinel": {"master": "main"}}}) for _ in range(2)]
    fresh(origin, "/a", "/b", "/c0", "/c1", "/d")
    for i, w in enumerate(instances):
        get(w, "/c%d" % i)
        eventually(lambda w=w: w.metric("weir_redis_stores_total") == 1)
    purge(instances[0], tags=["other"])
    eventually(lambda: replica.call("XLEN", "weir:purges") == 1)
    warm(instances, "/a", "/b")
    redis.kill()
    purge(instances[1], 202, url="http://shop.test/b", wait=0)
    eventually(lambda: all(has(w, "/a") and not has(w, "/b") for w in instances),
               timeout=20 * SLOW)
    assert replica.call("ROLE")[0] == "master"
    assert not any(w.log_has("Redis lost") for w in instances)
    # The tier has what it had, and one fetches for all.
    eventually(lambda: all(w.stats()["bus"]["lease"] == "held" for w in instances))
    only = ("Cache-Control", "only-if-cached")
    for i, w in enumerate(instances):
        r = eventually(lambda: (r := get(w, "/c%d" % (1 - i), only)).status == 200 and r)
        assert r.cache_status.detail == "REDIS"
    instances[0].parallel(8, lambda i: get(instances[i % 2], "/d"))
    assert origin.count("/d") == 1
    purge(instances[0], all=True)


def test_keys_of_a_cluster_need_not_be_on_one_server(weir, origin, tmp_path):
    directories = [tmp_path / name for name in ("one", "two")]
    for d in directories:
        d.mkdir()
    servers = [Redis(str(d), "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
               for d in directories]
    try:
        servers[0].call("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        servers[1].call("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        servers[0].call("CLUSTER", "MEET", "127.0.0.1", str(servers[1].port))
        eventually(lambda: all("cluster_state:ok" in s.call("CLUSTER", "INFO") and
                               "cluster_known_nodes:2" in s.call("CLUSTER", "INFO") for s in servers),
                   timeout=20 * SLOW)
        slot = servers[0].call("CLUSTER", "KEYSLOT", "p:{bus}leases")
        servers[slot > 8191].call("HSET", "p:{bus}leases", "since", "1")
        instances = [weir(cache={"redis": {"url": s.url, "cluster": True, "prefix": "p:"}})
                     for s in servers]
        fresh(origin, "/a")
        for w in instances:
            eventually(lambda w=w: holds(w))
            warm(instances, "/a")
            assert purge(w, url="http://shop.test/a")["instances"] == 2
            assert not any(has(w, "/a") for w in instances)
    finally:
        for s in servers:
            s.kill()


@pytest.fixture
def three_and_three(tmp_path):
    """A cluster of three masters, each with a replica, as redis-cli makes it."""
    servers = []
    try:
        for i in range(6):
            (tmp_path / ("node%d" % i)).mkdir()
            servers.append(Redis(str(tmp_path / ("node%d" % i)), "--cluster-enabled", "yes",
                                 "--cluster-announce-ip", "127.0.0.1"))
        at = ["127.0.0.1:%d" % s.port for s in servers]
        subprocess.run(["redis-cli", "--cluster", "create", *at, "--cluster-replicas", "1",
                        "--cluster-yes"], check=True, timeout=60 * SLOW, stdout=subprocess.DEVNULL)
        eventually(lambda: all("cluster_state:ok" in s.call("CLUSTER", "INFO") and
                               "cluster_known_nodes:6" in s.call("CLUSTER", "INFO")
                               for s in servers), timeout=20 * SLOW)
        yield servers
    finally:
        for s in servers:
            s.end()


def master_of(masters, key):
    slot = masters[0].call("CLUSTER", "KEYSLOT", key)
    (port,) = (master[1] for first, last, master, *_ in masters[0].call("CLUSTER", "SLOTS")
               if first <= slot <= last)
    return next(s for s in masters if s.port == port)


def test_a_part_of_a_cluster_that_lost_who_is_live_has_no_purge_reported_as_done(
        fleet, origin, three_and_three):
    masters = [s for s in three_and_three if s.call("ROLE")[0] == "master"]
    master_of(masters, "b:{bus}leases").call("HSET", "b:{bus}leases", "since", "1")     # it is not new
    here, away = instances = fleet(2, url=masters[0].url, cluster=True, prefix="b:", lease="60s")
    fresh(origin, "/a")
    assert purge(here, tags=["other"])["instances"] == 2
    warm(instances, "/a")
    keeps, = (s for s in masters if any("leases" in k for k in s.call("KEYS", "b:*")))
    away.pause()                        # it trusts what it has, and is in no list any more
    try:
        replicas = [s for s in three_and_three if s.call("ROLE")[:3] == ["slave", "127.0.0.1",
                                                                         keeps.port]]
        keeps.call("FLUSHALL")
        eventually(lambda: len(replicas) == 1 and replicas[0].call("DBSIZE") == 0)
        not_done(here, "for a lease", url="http://shop.test/a", wait=200)
    finally:
        away.resume()
    eventually(lambda: not has(away, "/a"))
