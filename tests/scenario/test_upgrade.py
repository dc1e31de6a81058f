"""A new process takes over from one that runs: nobody is refused, and nothing is lost or stale."""
import contextlib
import os
import re
import signal
import socket
import threading

import pytest

import harness
from harness import eventually

FRESH = [("Cache-Control", "max-age=600")]


class Load:
    """Clients that go on until stop(), each in a thread; what went wrong is raised there."""

    def __init__(self, *clients):
        self.ending, self.counts, self.errors = threading.Event(), [0] * len(clients), []
        self.threads = [threading.Thread(target=self._run, args=(i, c)) for i, c in enumerate(clients)]
        for t in self.threads:
            t.start()

    def _run(self, i, client):
        try:
            for _ in client:
                self.counts[i] += 1
                if self.ending.is_set():
                    break
        except Exception as e:          # pylint: disable=broad-except
            self.errors.append(e)
            self.counts[i] += 1 << 30

    def more(self, n=3):
        """Every client has had so many more answers."""
        want = [c + n for c in self.counts]
        eventually(lambda: all(c >= w for c, w in zip(self.counts, want)))

    def stop(self):
        self.ending.set()
        for t in self.threads:
            t.join()
        if self.errors:
            raise self.errors[0]


def kept(w, path):
    """One connection, for all of it."""
    with w.client() as c:
        while True:
            assert c.get(path).status == 200
            yield


def new(w, path):
    while True:
        assert w.get(path).status == 200
        yield


def misses(w):
    with w.client() as c:
        n = 0
        while True:
            n += 1
            assert c.get("/miss/%d" % n).status == 200
            yield


def through(w, seen):
    """The next read sees what was written, whoever answers it."""
    with w.client() as c:
        n = 0
        while True:
            n += 1
            body = b"%d" % n
            assert c.request("PUT", "/through", body=body).status == 204
            assert c.get("/through").body == body
            seen.append(body)
            yield


def back(w, accepted):
    with w.client() as c:
        n = 0
        while True:
            n += 1
            body = b"%d" % n
            r = c.request("POST", "/back", body=body)
            assert r.status == 202, r
            accepted.append(body)
            yield


@pytest.fixture
def store(origin):
    """An origin that keeps what is PUT, and counts."""
    kept_there = {}

    def through_origin(req, conn):
        if req.method == "PUT":
            kept_there["/through"] = req.body
            conn.respond(status=204)
        else:
            conn.respond(body=kept_there.get("/through", b""), headers=FRESH)
    origin.on("/through", through_origin)
    origin.on("/back", status=204)
    origin.on("/hit", body=b"x" * 2000, headers=FRESH)
    for n in range(1, 4000):
        origin.on("/miss/%d" % n, body=b"m", headers=FRESH)
    return origin


def routes():
    return [{"path": "/back", "policy": "write-back", "write": {"key": "all"}},
            {"path": "/through", "policy": "write-through"}, {"path": "/**"}]


def whole(tmp_path, **more):
    return {"cache": {"memory": "16MiB", "disk": {"path": str(tmp_path / "disk"), "size": "64MiB"}},
            "journal": {"path": str(tmp_path / "journal")}, "routes": routes(), **more}


def test_nobody_is_refused_and_nothing_is_lost_while_one_process_follows_another(
        store, weir, tmp_path):
    w = weir(**whole(tmp_path, workers=2))
    accepted, seen = [], []
    assert w.get("/hit").status == 200
    load = Load(kept(w, "/hit"), new(w, "/hit"), misses(w), through(w, seen), back(w, accepted))
    load.more()
    text = open(w.config).read()
    for workers in (3, 1):
        w.write_config(yaml=text.replace("workers: 2", "workers: %d" % workers))
        load.more()
        was = w.upgrade()
        load.more()
        assert was.wait(harness.TIMEOUT) == 0
        assert w.log_has("%d workers" % workers)
    load.stop()
    assert w.metric("weir_upgrades_total") == 2
    assert store.count("/hit") == 1                     # warm
    eventually(lambda: len(store.of("/back")) == len(accepted))
    assert [r.body for r in store.of("/back")] == accepted
    assert w.stop() == 0


def test_what_began_before_ends_where_it_began(origin, weir):
    gate = origin.gate()

    def long(req, conn):
        conn.head(200, chunked=True)
        conn.chunk(b"begun")
        gate.wait()
        conn.chunk(b"x" * 300000)
        conn.end()

    def tunnel(req, conn):
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        conn.send(conn.sock.recv(4))
        gate.wait()
        conn.send(b"bye")
        conn.close()
    origin.on("/long", long)
    origin.on("/later", lambda req, conn: (gate.wait(), conn.respond(body=b"late")))
    origin.on("/a", body=b"a")
    origin.on("/tunnel", tunnel)
    w = weir(routes=[{"path": "/**", "policy": "pass"}])
    with w.client() as down, w.client() as waits, w.client() as half, w.client() as idle, \
            w.client() as socket, harness.Client(w.admin) as figures:
        figures.start("GET", "/stats/stream")
        figures.wire.until(b"\r\n\r\n", "a head")
        socket.start("GET", "/tunnel", [("Connection", "upgrade"), ("Upgrade", "websocket")])
        assert socket.response().status == 101
        down.start("GET", "/long")
        begun = harness.Response(down.wire.until(b"\r\n\r\n", "a head"))
        waits.start("GET", "/later")
        origin.wait("/later")
        half.send(b"GET /a HTTP/1.1\r\nHo")
        assert idle.get("/a").body == b"a"
        was = w.upgrade()
        assert idle.get("/a").body == b"a"
        half.send(b"st: x\r\n\r\n")
        assert half.response().body == b"a"
        figures.wire.to_close()                         # it comes again
        socket.send(b"ping")
        assert socket.wire.take(4) == b"ping"
        assert was.poll() is None
        gate.set()
        assert socket.wire.take(3) == b"bye" and socket.closed()
        socket.half_close()
        assert down.wire.chunked(begun) == b"begun" + b"x" * 300000
        assert waits.response().body == b"late"
        assert was.wait(harness.TIMEOUT) == 0
        assert down.get("/a").body == b"a" and waits.get("/a").body == b"a"     # by the new one
    eventually(lambda: w.metric("weir_client_connections") == 0)
    assert not w.log_has("cut")


def test_a_write_ends_before_another_process_answers_anything(store, weir, tmp_path):
    gate = store.gate()
    store.on("/slow", lambda req, conn: (gate.wait(), conn.respond(
        body=b"new" if store.count("/slow") > 1 else b"old", headers=FRESH))
        if req.method == "PUT" else conn.respond(body=b"%d" % store.count("/slow"), headers=FRESH))
    w = weir(**whole(tmp_path, workers=1))
    assert w.get("/slow").body == b"1" and w.get("/hit").status == 200
    with w.client() as writes, w.client() as later, w.client() as ended:
        writes.start("PUT", "/slow", [("Content-Length", "0")])
        store.wait("/slow", 2)
        w.process.send_signal(signal.SIGUSR2)
        eventually(lambda: w.log_has("is ready; 1 writes are under way"))
        later.start("POST", "/back", [("Content-Length", "0")])
        ended.start("POST", "/back", [("Content-Length", "0")])
        ended.half_close()
        assert w.get("/slow").body == b"1"              # reads go on meanwhile
        assert w.get("/hit").cache_status.hit
        gate.set()
        assert writes.response().status == 200
        assert later.response().status == 202
        assert ended.response().status == 202           # though its client had said all
        was = w.upgraded()
        assert was.wait(harness.TIMEOUT) == 0
    assert int(w.get("/slow").body) > 1                 # nor did the disk keep what it changed
    eventually(lambda: store.count("/back") == 2)


def test_where_writes_do_not_end_the_old_process_goes_on(store, weir, tmp_path):
    gate = store.gate()
    store.on("/slow", lambda req, conn: (gate.wait(), conn.respond(status=204)))
    w = weir(**whole(tmp_path, drain="300ms"))
    with w.client() as writes, w.client() as later:
        writes.start("PUT", "/slow", [("Content-Length", "0")])
        store.wait("/slow")
        w.process.send_signal(signal.SIGUSR2)
        eventually(lambda: w.log_has("is ready"))
        later.start("POST", "/back", [("Content-Length", "0")])
        eventually(lambda: w.log_has(
            "upgrade failed: writes that are under way, or what the disk tier has to write, did not end "
            "in time; this process goes on"))
        assert later.response().status == 202
        assert w.metric("weir_upgrade_failures_total") == 1
        store.wait("/back")                             # delivered too
        gate.set()
        assert writes.response().status == 204
        w.process.send_signal(signal.SIGUSR2)
        assert w.upgraded(failures=1).wait(harness.TIMEOUT) == 0


@pytest.fixture
def program(tmp_path):
    """A path that a test may put another program at."""
    path = tmp_path / "weir"
    path.symlink_to(harness.weir_binary())
    return path


def replace(program, text):
    program.unlink()
    program.write_text(text)
    program.chmod(0o755)


def fails(w, what):
    before = w.metric("weir_upgrade_failures_total")
    w.process.send_signal(signal.SIGUSR2)
    eventually(lambda: w.metric("weir_upgrade_failures_total") == before + 1)
    assert w.log_has("upgrade failed: %s; this process goes on" % what), w.log()
    assert w.get("/hit").status == 200
    assert w.post("/back").status == 202


def test_a_new_process_that_cannot_begin_changes_nothing(store, weir, tmp_path, program):
    w = weir(program=str(program), **whole(tmp_path))
    good = open(w.config).read()
    with w.client() as c:
        assert c.get("/hit").status == 200
        w.write_config(nonsense=True, **whole(tmp_path))
        fails(w, "the new process ended with exit code 1")
        assert w.log_has("nonsense")                    # why
        w.write_config(**whole(tmp_path, listen="127.0.0.1:%d" % harness.free_port()))
        fails(w, "the new process ended with exit code 1")
        assert w.log_has("the process that runs listens on 127.0.0.1:%d, and no `listen`" % w.port)
        with open(w.config, "w", encoding="utf-8") as f:
            f.write(good)
        replace(program, "#!/bin/sh\nkill -SEGV $$\n")
        fails(w, "the new process was ended by signal 11")
        program.unlink()
        fails(w, "%s: No such file or directory" % program)
        program.symlink_to(harness.weir_binary())
        assert c.get("/hit").status == 200              # the same connection, all the time
        w.process.send_signal(signal.SIGUSR2)
        was = w.upgraded(failures=4)
        assert c.get("/hit").status == 200
        assert was.wait(harness.TIMEOUT) == 0


TAKES_AND_ENDS = """#!/usr/bin/python3
import os, socket, sys
s = socket.socket(fileno=int(os.environ["WEIR_TAKEOVER"].split()[2]))
s.send(b"\\1" + bytes(7))
s.recv(8)
sys.exit(7)
"""


def test_a_new_process_that_ends_with_what_it_was_given_is_followed_by_the_old_program(
        store, weir, tmp_path, program):
    w = weir(program=str(program), **whole(tmp_path))
    accepted, seen = [], []
    assert w.get("/hit").status == 200
    replace(program, TAKES_AND_ENDS)
    load = Load(kept(w, "/hit"), new(w, "/hit"), through(w, seen), back(w, accepted))
    load.more()
    w.process.send_signal(signal.SIGUSR2)
    eventually(lambda: w.log_has("the new process ended with exit code 7 after it was handed over"))
    was = w.process
    eventually(lambda: w.log_has("serves"))
    w.upgraded(failures=1)
    load.more()
    load.stop()
    assert was.wait(harness.TIMEOUT) == 0
    assert store.count("/hit") == 1
    eventually(lambda: len(store.of("/back")) == len(accepted))
    assert [r.body for r in store.of("/back")] == accepted


def test_sigterm_ends_an_upgrade_and_both(store, weir, tmp_path, program):
    w = weir(program=str(program), **whole(tmp_path))
    replace(program, "#!/bin/sh\necho begun >&2\nexec sleep 600\n")
    w.process.send_signal(signal.SIGUSR2)
    eventually(lambda: w.log_has("begun"))
    w.process.send_signal(signal.SIGUSR2)
    eventually(lambda: w.log_has("an upgrade is under way already"))
    assert w.stop() == 0
    assert w.log_has("upgrade failed: SIGTERM came before the new process was handed over to")


def test_a_new_process_that_is_killed_is_not_waited_for_where_a_manager_would_start_it(
        origin, weir, tmp_path):
    def long(req, conn):
        conn.head(200, chunked=True)
        conn.chunk(b"begun")
        conn.sock.recv(1)
    origin.on("/long", long)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        w = weir(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with w.client() as c:
            c.start("GET", "/long")
            c.wire.until(b"begun", "a beginning")
            was = w.upgrade()
            w.process.kill()
            assert was.wait(harness.TIMEOUT) == 0
        assert w.log_has("which served, was ended by signal 9; this one ends at once")
        assert w.process.wait(harness.TIMEOUT) == -signal.SIGKILL       # to be seen by the manager
        w.start()


HANGS = TAKES_AND_ENDS.replace("sys.exit(7)", "print('has it', file=sys.stderr, flush=True)\nsignal.pause()") \
    .replace("import os", "import os, signal")


def test_sigterm_when_it_was_handed_over_to_one_that_does_not_serve(store, weir, tmp_path, program):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(harness.TIMEOUT)
        w = weir(program=str(program), env={"NOTIFY_SOCKET": str(tmp_path / "notify"),
                                            "WATCHDOG_USEC": "1000"}, **whole(tmp_path))
        replace(program, HANGS)
        w.process.send_signal(signal.SIGUSR2)
        eventually(lambda: w.log_has("has it"))
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while manager.recv(512):
                pass
        manager.settimeout(harness.TIMEOUT)
        for _ in range(2):                              # though nobody runs the journal's loop
            assert manager.recv(512) == b"WATCHDOG=1"
        w.process.send_signal(signal.SIGTERM)
        eventually(lambda: w.log_has("both drain"))
        w.process.send_signal(signal.SIGTERM)
        assert w.process.wait(harness.TIMEOUT) == 0
    assert w.log_has("SIGTERM: the new process was ended by signal 9, and this one ends")


@pytest.mark.parametrize("sig", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_comes_while_a_process_starts_does_not_end_it(store, weir, tmp_path, sig):
    gate = store.gate()
    store.on("/slow", lambda req, conn: (gate.wait(), conn.respond(status=204)))
    w = weir(**whole(tmp_path))
    with w.client() as writes:
        writes.start("PUT", "/slow", [("Content-Length", "0")])
        store.wait("/slow")
        w.process.send_signal(signal.SIGUSR2)
        eventually(lambda: w.log_has("is ready; 1 writes"))
        os.kill(int(re.search(r"process (\d+) is ready", w.log()).group(1)), sig)
        gate.set()
        assert writes.response().status == 204
        assert w.upgraded().wait(harness.TIMEOUT) == 0
        if sig == signal.SIGUSR2:
            assert w.upgraded().wait(harness.TIMEOUT) == 0
        assert w.get("/hit").status == 200


def test_what_was_purged_before_and_while_one_follows_another_is_not_found(store, weir, tmp_path):
    w = weir(**whole(tmp_path))
    for n in range(1, 41):
        assert w.get("/miss/%d" % n).status == 200
    w.purge(prefix=w.url + "/miss/1")
    ends = []

    def purges():
        for n in range(20, 40):
            w.purge(url="%s/miss/%d" % (w.url, n))
            ends.append(n)
            yield
    load = Load(purges())
    was = w.upgrade()
    for t in load.threads:
        t.join()
    assert not load.errors and len(ends) == 20, load.errors
    for n in (1, 10, 19, *ends):
        w.get("/miss/%d" % n)
        assert store.count("/miss/%d" % n) == 2, n
    assert w.get("/miss/40").cache_status.hit and store.count("/miss/40") == 1
    assert was.wait(harness.TIMEOUT) == 0


def test_who_came_through_a_proxy_is_known_to_the_next_process(origin, weir):
    origin.on("/who", lambda req, conn: conn.respond(
        body=req.header("X-Forwarded-For", "").encode()))
    w = weir(listen={"proxy_protocol": True, "trust": ["127.0.0.0/8"]})
    with w.client() as c, w.client() as silent:
        c.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 80\r\n")
        assert c.get("/who").body.endswith(b"192.0.2.7")
        w.upgrade()
        assert c.get("/who").body.endswith(b"192.0.2.7")
        silent.send(b"PROXY TCP4 192.0.2.8 192.0.2.1 40000 80\r\n")
        assert silent.get("/who").body.endswith(b"192.0.2.8")


def test_what_another_instance_purges_while_one_follows_another_is_not_found(
        store, weir, redis, tmp_path):
    shared = {"url": redis.url, "lease": "2s"}
    host = [("Host", "shop.test")]
    a, b = (weir(cache={"memory": "16MiB", "redis": shared, "disk": {
        "path": str(tmp_path / name), "size": "64MiB"}}) for name in ("disk-a", "disk-b"))
    eventually(lambda: a.stats()["bus"]["lease"] == b.stats()["bus"]["lease"] == "held")
    for n in range(1, 61):
        assert a.get("/miss/%d" % n, host).status == 200
    eventually(lambda: a.metric("weir_disk_stores_total") >= 60)
    purged = []

    def purges():
        for n in range(1, 60):
            purged.append((n, b.purge(url="http://shop.test/miss/%d" % n)))
            yield
    load = Load(purges())
    load.more()
    was = a.upgrade()
    for t in load.threads:
        t.join()
    assert not load.errors, load.errors
    for n, answer in purged:
        eventually(lambda answer=answer: answer["done"] or
                   b.api("GET", "/purge/" + answer["id"]).json()["done"])
        a.get("/miss/%d" % n, host)
        assert store.count("/miss/%d" % n) == 2, n
    a.get("/miss/60", host)
    assert store.count("/miss/60") == 1
    assert was.wait(harness.TIMEOUT) == 0
