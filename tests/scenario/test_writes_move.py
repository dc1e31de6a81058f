"""weir writes move: a journal in a file into Redis, and back, with all that clients hold of it."""
import contextlib
import os
import re
import subprocess
import threading

import pytest

from harness import Redis, Relay, SLOW, eventually, run_cli, weir_binary

STATUS = "/.well-known/weir/writes/"
ALICE = ("Authorization", "alice")
N = 200
MOVED = re.compile(r"moved (\d+) pending, (\d+) dead and (\d+) settled writes, (\d+) idempotency keys "
                   r"and (\d+) paused names from ")


class Toll(Relay):
    """In front of Redis: lets `limit` bytes of its clients through, then no more; `full` says so."""

    def __init__(self, port, limit):
        self.limit, self.full = limit, threading.Event()
        super().__init__(port)

    def carry(self, a, b, asks):
        with contextlib.suppress(OSError):
            while data := a.recv(4096):
                if asks:
                    data, self.limit = data[:self.limit], self.limit - len(data)
                b.sendall(data)
                if self.limit <= 0:
                    self.full.set()
                    return


@pytest.fixture
def place(weir, redis, origin, tmp_path):
    """A weir with a journal in a file; in_redis(), in_file(PATH) give it another, while it is stopped."""
    class Place:
        path = str(tmp_path / "journal")
        routes = [{"name": name, "path": path, "policy": "write-back", "write": {
            "backoff": {"min": "50ms", "max": "200ms"}, "idempotency": "1h", "idempotent": True, **more}}
            for name, path, more in (("held", "/held/**", {}), ("byname", "/k/**", {"key": "{header.x-account}"}),
                                     ("rest", "/**", {}))]

        def keys(self, **journal):
            return {"routes": self.routes, "journal": journal, "origin": {"timeout": {"connect": "500ms"}}}

        def in_redis(self):
            self.w.write_config(**self.keys(redis={"url": redis.url, "lease": "1s"}))

        def in_file(self, path):
            self.w.write_config(**self.keys(path=path))

        def move(self, a, b, *more):
            return run_cli("writes", "move", "--from", a, "--to", b, "-c", self.w.config, *more)
    p = Place()
    p.w = weir(**p.keys(path=p.path))
    return p


def accept(place, origin):
    """N writes that wait for an origin that is down, dead letters and held ones among them; of each what
    it was sent as and its Location."""
    state = {"down": True}

    def answer(req, conn):
        if req.path.startswith("/bad"):
            conn.respond(422, body=b"never")
        else:
            conn.respond(503 if state["down"] else 200, body=b"done")
    origin.on("*", answer)
    w = place.w
    assert w.api("POST", "/writes/pause", {"route": "held"}).status == 200
    sent = []
    with w.client() as c:
        for i in sorted(range(N), key=lambda i: i % 20 != 0):
            if i == 1:
                eventually(lambda: len(w.api("GET", "/writes?state=dead").json()["writes"]) == N // 20)
            path = ("/bad/%d" % i if i % 20 == 0 else "/held/%d" % (i % 3) if i % 10 == 1 else
                    "/k/%d" % i if i % 10 == 2 else "/w/%d" % (i % 7))
            key = [ALICE, ("Idempotency-Key", '"key-%d"' % i), ("X-Account", "7")]
            r = c.request("POST", path, key, b"%d" % i)
            assert r.status == 202, (r, r.body)
            sent.append((path, key, b"%d" % i, r.header("Location")))
    eventually(lambda: w.api("GET", "/writes?state=waiting").json()["writes"] != [])
    assert w.api("POST", "/writes/pause", {"all": True}).status == 200
    eventually(lambda: w.api("GET", "/writes?state=sending").json()["writes"] == [])
    return sent, state


def told(w, sent):
    """What the Locations that clients hold say."""
    with w.client() as c:
        found = [c.get(location, [ALICE]) for _, _, _, location in sent]
    assert {r.status for r in found} == {200}
    return [(r.json()["state"], r.json()["attempts"], r.json()["accepted"], r.json().get("cause")) for r in found]


def repeats(w, sent):
    """Each key is known with its request, and with another it is refused."""
    with w.client() as c:
        for path, key, body, _ in sent[::9]:
            r = c.request("POST", path, key, body)
            if path.startswith("/bad"):
                assert r.status == 422 and r.body == b"never", (r, r.body)
            else:
                assert r.status == 202 and r.header("Location"), (r, r.body)
            r = c.request("POST", path, key, b"other")
            assert r.status == 422 and r.body != b"never"
    have = w.api("GET", "/writes?limit=1000").json()["writes"]
    assert len(have) == len(sent)
    return [x["id"] for x in have]


def delivered_once_in_order(place, origin, sent, state):
    before = len(origin.requests)
    state["down"] = False
    assert place.w.api("POST", "/writes/resume", {"all": True}).status == 200
    eventually(lambda: place.w.api("GET", "/writes?state=pending").json()["writes"] ==
               place.w.api("GET", "/writes?state=waiting").json()["writes"] == [], timeout=20 * SLOW)
    came = [r for r in origin.requests[before:] if r.method == "POST"]
    good = [(path, body) for path, _, body, _ in sent if not path.startswith("/bad")]
    for chain in {path[:3] if path.startswith("/k") else path for path, _ in good}:
        want = [int(b) for p, b in good if p.startswith(chain)]
        assert [int(r.body) for r in came if r.path.startswith(chain)] == want
    assert len(came) == len(good)


def counts(r):
    assert r.returncode == 0, r.stderr
    return tuple(int(x) for x in MOVED.search(r.stdout.replace("would move", "moved")).groups())


def test_a_journal_goes_into_redis_and_back_with_all_that_clients_hold(origin, place, redis, tmp_path):
    sent, state = accept(place, origin)
    was = told(place.w, sent)
    running = place.move(place.path, redis.url)
    assert running.returncode == 1 and "process %d has it open" % place.w.pid in running.stderr
    assert place.w.stop() == 0
    place.in_redis()
    whole = (N - N // 20, N // 20, 0, N, 2)
    assert counts(place.move(place.path, "redis", "--dry-run")) == whole
    assert redis.call("KEYS", "weir:{j*") == []
    r = place.move(place.path, "redis")
    assert counts(r) == whole and r.stdout.count("\n") == 1
    assert "%s.moved-" % place.path in r.stdout and not (tmp_path / "journal").exists()
    place.w.start()
    eventually(lambda: place.w.stats()["writes"]["partitions"] == 64, timeout=20 * SLOW)
    assert told(place.w, sent) == was
    redis.pause()
    assert place.w.get(sent[0][3], [ALICE]).status == 503       # where it is cannot be told
    redis.resume()
    eventually(lambda: place.w.get(sent[0][3], [ALICE]).status == 200)
    assert told(place.w, sent) == was
    eventually(lambda: place.w.stats()["writes"]["partitions"] == 64, timeout=20 * SLOW)
    ids = repeats(place.w, sent)
    running = place.move("redis", str(tmp_path / "back"))
    assert running.returncode == 1 and "in use by" in running.stderr
    assert place.w.stop() == 0
    assert counts(place.move("redis", str(tmp_path / "back"))) == whole
    assert redis.call("KEYS", "weir:{j*") == []
    place.in_file(str(tmp_path / "back"))
    place.w.start()
    assert told(place.w, sent) == was
    assert told(place.w, [(None, None, None, STATUS + i) for i in ids]) and repeats(place.w, sent) == ids
    delivered_once_in_order(place, origin, sent, state)


def takes_nothing(place):
    """What a mover left in Redis is neither delivered nor added to."""
    place.w.start()
    eventually(lambda: "being moved" in place.w.api("GET", "/readyz").body.decode())
    r = place.w.post("/w/1", b"new", [ALICE])
    assert r.status == 503 and place.w.stats()["writes"]["partitions"] == 0, (r, r.body)
    assert place.w.stop() == 0


def killed_over_and_over(place, redis, step, *args):
    """Runs the mover again and again, killing it ever later, until it ends by itself."""
    looked = False
    for n in range(1, 60):
        toll = Toll(redis.port, n * step)
        command = [weir_binary(), "writes", "move", *[toll.url if a == "redis" else a for a in args],
                   "-c", place.w.config]
        mover = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            eventually(lambda: toll.full.is_set() or mover.poll() is not None, timeout=30 * SLOW)
            if mover.poll() is None:
                mover.kill()
            out, err = mover.communicate()
        finally:
            toll.end()
        if mover.returncode == 0:
            assert looked
            return n
        assert mover.returncode == -9 or "run the same again" in err, err
        marked = all(redis.call("HGET", "weir:{j%d}m" % i, "v") == "0" for i in range(64))
        if marked and mover.returncode == -9 and not looked:
            looked = True
            takes_nothing(place)
    raise AssertionError("it never ended")


def test_a_mover_that_is_killed_anywhere_is_run_again_and_all_is_there_once(origin, place, redis, tmp_path):
    sent, state = accept(place, origin)
    was = told(place.w, sent)
    assert place.w.stop() == 0
    place.in_redis()
    assert killed_over_and_over(place, redis, 90000, "--from", place.path, "--to", "redis") > 4
    assert [p.name.startswith("journal.moved-") for p in tmp_path.glob("journal*") if
            not p.name.endswith(".lock")] == [True]
    place.w.start()
    eventually(lambda: place.w.stats()["writes"]["partitions"] == 64, timeout=20 * SLOW)
    assert told(place.w, sent) == was
    repeats(place.w, sent)
    assert place.w.stop() == 0
    back = str(tmp_path / "back")
    assert killed_over_and_over(place, redis, 20000, "--from", "redis", "--to", back) > 4
    assert redis.call("KEYS", "weir:{j*") == []
    place.in_file(back)
    place.w.start()
    assert told(place.w, sent) == was
    repeats(place.w, sent)
    delivered_once_in_order(place, origin, sent, state)


def test_a_redis_that_no_instance_would_trust_gets_no_journal(origin, weir, tmp_path):
    origin.on("*", status=503)
    path = str(tmp_path / "journal")
    routes = [{"path": "/**", "policy": "write-back", "write": {"idempotent": True}}]
    w = weir(routes=routes, journal={"path": path})
    assert w.post("/a", b"x").status == 202 and w.stop() == 0
    (tmp_path / "other").mkdir()
    redis = Redis(str(tmp_path / "other"))
    try:
        w.write_config(routes=routes, journal={"redis": {"url": redis.url, "lease": "1s"}})

        def move(to, *more):
            return run_cli("writes", "move", "--from", path, "--to", to, "-c", w.config, *more)
        for name, good, bad in (("appendonly", "yes", "no"), ("appendfsync", "always", "everysec"),
                                ("maxmemory-policy", "noeviction", "allkeys-lru")):
            redis.call("CONFIG", "SET", name, bad)
            for args in ("redis",), (redis.url,), ("redis", "--dry-run"):
                r = move(*args)
                assert r.returncode == 1 and "set `%s %s`" % (name, good) in r.stderr, (name, r)
            assert redis.call("DBSIZE") == 0 and os.path.exists(path)
            redis.call("CONFIG", "SET", name, good)
        routes[0]["write"]["durability"] = "os"
        w.write_config(routes=routes, journal={"redis": {"url": redis.url, "lease": "1s"}})
        redis.call("CONFIG", "SET", "appendfsync", "everysec")
        redis.call("ACL", "SETUSER", "default", "-config")
        r = move("redis")
        assert r.returncode == 0 and "cannot be checked" in r.stderr, r
        redis.call("ACL", "SETUSER", "default", "+config")
        w.start()
        eventually(lambda: w.stats()["writes"]["pending"] == 1 and w.stats()["writes"]["partitions"] == 64)
        assert w.stop() == 0
    finally:
        redis.end()


def test_what_redis_holds_already_and_what_is_no_journal_are_refused(origin, place, redis, tmp_path):
    accept(place, origin)
    assert place.w.stop() == 0
    place.in_redis()
    for args, status, words in (
            (("redis", redis.url), 1, "the other is a file"),
            (("a", "b"), 1, "the other is a file"),
            ((str(tmp_path / "none"), "redis"), 1, "there is no journal at"),
            (("redis", str(tmp_path / "new")), 1, "there is no journal in this Redis"),
            (("redis", place.path), 1, "there is a file at")):
        r = place.move(*args)
        assert r.returncode == status and words in r.stderr, (args, r)
    assert run_cli("writes", "move", "--from", "redis").returncode == 2
    assert place.move(place.path, "redis").returncode == 0
    place.in_file(place.path)
    place.w.start()
    assert place.w.stop() == 0
    place.in_redis()
    r = place.move(place.path, "redis")
    assert r.returncode == 1 and "Redis has a journal already (200 writes, 200 idempotency keys)" in r.stderr
