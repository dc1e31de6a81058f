"""The disk tier: a restart is warm, what was purged before a crash stays purged, and a disk that fails
costs no answer."""
import itertools
import os
import pathlib
import subprocess
import threading

import pytest

from harness import SLOW, TIMEOUT, configuration, eventually, free_port, run_cli

FRESH = ("Cache-Control", "max-age=600")
MIB = 1 << 20


@pytest.fixture
def disky(weir):
    """Weir with a disk tier in `cache` below its directory."""
    def make(size="64MiB", cache=None, **keys):
        return weir(cache={"disk": {"path": "cache", "size": size}, **(cache or {})}, **keys)
    return make


def disk(w):
    return w.stats()["tiers"]["disk"]


def written(w):
    """Waits until nothing is on its way to the disk."""
    def is_written():
        s = w.stats()                            # a client may have its answer before it is stored
        it = s["tiers"]["disk"]
        return s["gauges"]["flights_now"] == 0 and it["queued_bytes"] == 0 and not it["loading"]
    eventually(is_written)
    return disk(w)


def crash(w):
    w.kill()
    w.start()


def restart(w):
    assert w.stop() == 0
    w.start()


def files(w):
    return [p for p in (pathlib.Path(w.directory) / "cache").rglob("*") if p.is_file()]


class Versions:
    """An origin's resources: every answer is the next version of its path."""

    def __init__(self, origin, headers=(FRESH,), path="*"):
        self.headers, self.made, self.lock = list(headers), {}, threading.Lock()
        origin.on(path, self)

    def __call__(self, req, conn):
        with self.lock:
            n = self.made[req.path] = self.made.get(req.path, 0) + 1
        conn.respond(200, self.headers, b"%s v%d" % (req.path.encode(), n))


# ---- a restart --------------------------------------------------------------------------------

@pytest.mark.parametrize("end", [restart, crash])
def test_a_restart_is_warm(origin, disky, end):
    Versions(origin)
    w = disky()
    for i in range(50):
        assert w.get("/a%d" % i).cache_status.stored
    written(w)
    end(w)
    for i in range(50):
        first = w.get("/a%d" % i)
        assert first.body == b"/a%d v1" % i
        assert first.cache_status.hit and first.cache_status.detail == "DISK", first
        again = w.get("/a%d" % i)
        assert again.cache_status.hit and again.cache_status.detail is None, again
    assert len(origin.requests) == 50


def test_what_memory_evicts_is_found_on_disk(origin, disky):
    origin.on("*", lambda req, conn: conn.respond(200, [FRESH], req.path.encode() * 9000))
    w = disky(cache={"memory": "1MiB", "max_object": "64KiB"})
    for i in range(60):
        assert w.get("/e%02d" % i).cache_status.stored
        written(w)
    assert all(w.get("/e%02d" % i).body == b"/e%02d" % i * 9000 for i in range(60))
    assert len(origin.requests) == 60
    assert w.metric("weir_cache_evictions_total") > 0


def test_an_older_representation_does_not_come_back_where_the_newer_is_too_large_for_the_disk(
        origin, disky):
    origin.on("/o", [lambda req, conn: conn.respond(200, [FRESH], b"small"),
                     lambda req, conn: conn.respond(200, [FRESH], b"L" * 9000)])
    w = disky(cache={"disk": {"path": "cache", "max_object": "4KiB"}})
    assert w.get("/o").body == b"small"
    written(w)
    assert len(w.get("/o", [("Cache-Control", "no-cache")]).body) == 9000
    crash(w)
    assert len(w.get("/o").body) == 9000
    assert origin.count("/o") == 3


def test_each_variant_comes_back_to_its_own_requests(origin, disky):
    origin.on("/v", lambda req, conn: conn.respond(
        200, [FRESH, ("Vary", "Accept-Language")], req.header("Accept-Language").encode()))
    w = disky()
    for language in ("de", "en"):
        w.get("/v", [("Accept-Language", language)])
    written(w)
    crash(w)
    for language in ("en", "de"):
        r = w.get("/v", [("Accept-Language", language)])
        assert (r.body, r.cache_status.hit) == (language.encode(), True), r
    fr = w.get("/v", [("Accept-Language", "fr")])
    assert (fr.body, fr.cache_status.fwd) == (b"fr", "vary-miss")
    assert origin.count("/v") == 3


def test_what_differs_by_the_keys_parts_is_kept_apart(origin, disky):
    origin.on("/k", lambda req, conn: conn.respond(200, [FRESH], req.header("X-Tenant").encode()))
    w = disky(routes=[{"path": "/**", "key": {"headers": ["X-Tenant"]}}])
    for tenant in ("a", "b"):
        w.get("/k", [("X-Tenant", tenant)])
    written(w)
    crash(w)
    for tenant in ("b", "a"):
        r = w.get("/k", [("X-Tenant", tenant)])
        assert (r.body, r.cache_status.detail) == (tenant.encode(), "DISK")
    assert w.purge(url=w.url + "/k")["done"]
    crash(w)
    assert w.get("/k", [("X-Tenant", "a")]).cache_status.fwd == "uri-miss"


def test_what_a_304_freshened_is_fresh_after_a_restart(origin, disky):
    tag = ("ETag", '"1"')
    origin.on("/f", [lambda req, conn: conn.respond(
        200, [("Cache-Control", "max-age=0"), tag, ("X-Of", "200")], b"body"),
        lambda req, conn: conn.respond(304, [FRESH, tag, ("X-Of", "304")])])
    w = disky()
    w.get("/f")
    assert w.get("/f").cache_status.fwd == "stale"
    written(w)
    crash(w)
    r = w.get("/f")
    assert (r.body, r.header("X-Of"), r.cache_status.hit) == (b"body", "304", True)
    assert origin.count("/f") == 2


def test_what_is_stale_on_disk_is_validated(origin, disky):
    tag = ("ETag", '"1"')
    origin.on("/s", lambda req, conn: conn.respond(304, [("Cache-Control", "max-age=0"), tag])
              if req.header("If-None-Match") == '"1"' else
              conn.respond(200, [("Cache-Control", "max-age=0"), tag], b"body"))
    w = disky()
    w.get("/s")
    written(w)
    crash(w)
    r = w.get("/s")
    assert (r.body, r.cache_status.fwd) == (b"body", "stale")
    assert origin.of("/s")[-1].header("If-None-Match") == '"1"'


def test_a_head_a_range_and_only_if_cached_are_answered_from_disk(origin, disky):
    origin.on("/h", headers=[FRESH], body=b"0123456789")
    w = disky()
    for ask, status, body in (
            (lambda: w.request("HEAD", "/h"), 200, b""),
            (lambda: w.get("/h", [("Range", "bytes=2-4")]), 206, b"234"),
            (lambda: w.get("/h", [("Cache-Control", "only-if-cached")]), 200, b"0123456789"),
            (lambda: w.get("/h", [("If-Modified-Since", "Thu, 01 Jan 2099 00:00:00 GMT")]), 304,
             b"")):
        w.get("/h")
        written(w)
        crash(w)
        r = ask()
        assert (r.status, r.body) == (status, body), r
    assert origin.count("/h") == 1
    assert w.get("/none", [("Cache-Control", "only-if-cached")]).status == 504
    assert origin.count("/none") == 0


def test_forms_are_made_again_of_what_comes_back(origin, disky):
    origin.on("/c", headers=[FRESH, ("Content-Type", "text/plain")], body=b"compress me " * 400)
    w = disky(routes=[{"path": "/**", "compress": ["gzip"]}])
    w.get("/c")
    written(w)
    crash(w)
    gzip = [("Accept-Encoding", "gzip")]
    assert w.get("/c", gzip).cache_status.detail == "DISK"
    eventually(lambda: w.get("/c", gzip).header("Content-Encoding") == "gzip")
    assert origin.count("/c") == 1


def test_a_write_through_leaves_the_new_representation_on_disk(origin, disky):
    state = [b"old"]

    def answer(req, conn):
        if req.method == "PUT":
            state[0] = req.body
        conn.respond(200, [FRESH], state[0])
    origin.on("/w", answer)
    w = disky(routes=[{"path": "/**", "policy": "write-through"}])
    assert w.get("/w").body == b"old"
    written(w)
    assert w.request("PUT", "/w", body=b"new").status == 200
    written(w)
    crash(w)
    before = origin.count("/w")
    r = w.get("/w", [("Cache-Control", "only-if-cached")])
    assert (r.status, r.body) == (200, b"new")
    assert origin.count("/w") == before


def test_what_may_not_be_stored_is_not_on_disk(origin, disky):
    origin.on("/p", headers=[("Cache-Control", "private")], body=b"a-private-body")
    origin.on("/n", headers=[("Cache-Control", "no-store")], body=b"a-no-store-body")
    w = disky()
    w.get("/p")
    w.get("/n")
    written(w)
    assert not any(b"a-private-body" in f.read_bytes() or b"a-no-store-body" in f.read_bytes()
                   for f in files(w))


# ---- collapsing -------------------------------------------------------------------------------

def test_many_at_once_read_the_disk_once(origin, disky):
    origin.on("/one", headers=[FRESH], body=b"x" * 100_000)
    w = disky()
    w.get("/one")
    written(w)
    crash(w)
    written(w)
    answers = w.parallel(40, lambda i: w.get("/one"))
    assert all(r.cache_status.hit and len(r.body) == 100_000 for r in answers)
    assert origin.count("/one") == 1


def test_many_at_once_for_what_no_tier_has_ask_the_origin_once(origin, disky):
    gate = origin.gate()

    def slowly(req, conn):
        gate.wait()
        conn.respond(200, [FRESH], b"late")
    origin.on("/miss", slowly)
    w = disky()
    answers = w.parallel(20, lambda i: w.get("/miss"), meanwhile=lambda: (
        origin.wait("/miss", 1), gate.set()))
    assert {r.body for r in answers} == {b"late"}
    assert origin.count("/miss") == 1


# ---- purges -----------------------------------------------------------------------------------

TAGGED = {"path": "/t/{id}", "name": "tagged", "tags": ["item:{id}"]}
PURGES = {
    "url": lambda w: {"url": w.url + "/t/1"}, "prefix": lambda w: {"prefix": w.url + "/t/1"},
    "pattern": lambda w: {"pattern": "/t/1*"}, "tag": lambda w: {"tags": ["item:1"]},
    "route": lambda w: {"route": "tagged"}, "group": lambda w: {"groups": ["g1"]},
    "all": lambda w: {"all": True},
}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("what", PURGES)
def test_what_was_purged_before_a_crash_does_not_come_back(origin, disky, what, soft):
    versions = Versions(origin, headers=[FRESH, ("Cache-Groups", '"g1"')], path="/t/1")
    origin.on("/other", headers=[FRESH], body=b"other")
    w = disky(routes=[TAGGED, {"path": "/**"}])
    assert w.get("/t/1").body == b"/t/1 v1"
    w.get("/other")
    written(w)
    w.purge(**PURGES[what](w), soft=soft)
    crash(w)
    r = w.get("/t/1")
    assert r.body == b"/t/1 v2", (r, versions.made)
    assert w.get("/other").cache_status.hit == (what != "all")


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_reaches_what_is_on_disk_alone(origin, disky, soft):
    Versions(origin)
    w = disky()
    w.get("/a")
    written(w)
    crash(w)                                     # memory has nothing of it
    w.purge(url=w.url + "/a", soft=soft)
    assert w.get("/a").body == b"/a v2"


class Hanging:
    """A file system of its own, on which nothing is written, nor a page made dirty, between hang()
    and answer()."""

    def __init__(self, directory):
        self.path = str(directory / "mounted")
        image = str(directory / "image")
        with open(image, "wb") as f:
            f.truncate(64 * MIB)
        os.mkdir(self.path)
        self.mounted = self.hangs = False
        for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, self.path]):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
            except FileNotFoundError as e:
                pytest.skip("no file system can be mounted: %s" % e)
            if done.returncode != 0:
                pytest.skip("no file system can be mounted: %s" % done.stderr.strip())
        self.mounted = True

    def hang(self):
        subprocess.run(["fsfreeze", "-f", self.path], check=True, timeout=TIMEOUT)
        self.hangs = True

    def answer(self):
        subprocess.run(["fsfreeze", "-u", self.path], check=True, timeout=TIMEOUT)
        self.hangs = False

    def end(self):
        if self.hangs:
            self.answer()
        if self.mounted:
            subprocess.run(["umount", "-l", self.path], check=True, timeout=TIMEOUT)


@pytest.fixture
def hanging(tmp_path):
    disk = Hanging(tmp_path)
    yield disk
    disk.end()


def test_a_disk_that_hangs_holds_up_no_purge_and_forgets_none(origin, weir, hanging):
    Versions(origin)
    w = weir(cache={"disk": {"path": hanging.path + "/cache", "size": "16MiB"}},
             routes=[{"path": "/w/**", "policy": "write-through"}, {"path": "/**"}])
    paths = ["/a", "/b", "/w/c", "/stays"]
    for path in paths:
        w.get(path)
    written(w)
    hanging.hang()
    w.purge(url=w.url + "/a")
    assert w.post("/b", b"changed").status == 200
    assert w.request("PUT", "/w/c", (), b"new").status == 200
    assert w.get("/stays").cache_status.hit
    assert [w.get(p).body for p in ("/a", "/b")] == [b"/a v2", b"/b v3"]
    for i in range(100):                         # what is on its way to the disk waits, or is dropped
        assert w.get("/new%d" % i).status == 200
    threading.Timer(0.1, hanging.answer).start() # before that it cannot end
    crash(w)
    assert w.get("/stays").cache_status.hit
    for path in ("/a", "/b", "/w/c"):
        assert w.get(path).body != b"%s v1" % path.encode()
    assert w.stop() == 0


def test_a_write_that_purges_holds_after_a_crash(origin, disky):
    Versions(origin)
    w = disky()
    w.get("/a")
    written(w)
    w.post("/a", b"changed")
    w.kill()
    w.start()
    assert w.get("/a").body == b"/a v3"          # the write's answer was v2


def test_erase_leaves_no_bytes_in_the_files(origin, disky):
    secret = b"licensed-text-%d" % os.getpid()
    origin.on("/l", headers=[FRESH], body=secret * 50)
    origin.on("/keep", headers=[FRESH], body=b"kept")
    w = disky()
    w.get("/l")
    w.get("/keep")
    written(w)
    assert any(secret in f.read_bytes() for f in files(w)), "the test looks in the wrong place"
    r = w.api("POST", "/purge", {"url": w.url + "/l", "erase": True})
    assert (r.status, r.json()["erased"]) == (200, True), r.body
    assert not any(secret in f.read_bytes() for f in files(w))
    assert w.get("/keep").cache_status.hit
    crash(w)
    assert w.get("/keep").cache_status.detail == "DISK"


def test_the_shell_erases_and_soft_purges_do_not(origin, disky):
    origin.on("/l", headers=[FRESH], body=b"some-licensed-text")
    w = disky()
    w.get("/l")
    written(w)
    done = w.cli("purge", "--admin", w.admin_url, "--all", "--erase")
    assert (done.returncode, '"erased": true' in done.stdout) == (0, True), done
    assert not any(b"some-licensed-text" in f.read_bytes() for f in files(w))
    r = w.api("POST", "/purge", {"all": True, "soft": True, "erase": True})
    assert r.status == 400 and "erase" in r.json()["not_understood"][0]["item"]


def test_erase_without_a_disk_waits_for_memory(origin, weir):
    origin.on("/l", headers=[FRESH], body=b"text")
    w = weir()
    w.get("/l")
    r = w.api("POST", "/purge", {"prefix": w.url + "/", "erase": True})
    assert (r.status, r.json()["erased"]) == (200, True)
    assert w.metric("weir_cache_objects") == 0


# ---- what operators see -----------------------------------------------------------------------

def test_operators_see_that_the_disk_is_asked_and_what_it_holds(origin, disky):
    origin.on("/a", headers=[FRESH], body=b"a")
    w = disky()
    ask = "/explain?url=%s/a" % w.url
    assert w.api("GET", ask).json()["asks_disk"] is True
    assert "The disk tier is asked first" in w.cli(
        "explain", "--admin", w.admin_url, w.url + "/a").stdout
    w.get("/a")
    assert w.api("GET", ask).json()["asks_disk"] is False
    assert (written(w)["objects"], disk(w)["failing"]) == (1, False)
    assert w.metric("weir_disk_objects") == 1
    crash(w)
    w.get("/a")
    assert w.metric("weir_disk_hits_total") == 1
    assert "TIER" in w.stats()["states"]


# ---- the disk itself --------------------------------------------------------------------------

def test_the_size_is_kept(origin, disky):
    origin.on("*", lambda req, conn: conn.respond(200, [FRESH], os.urandom(100_000)))
    w = disky(size="16MiB", cache={"memory": "4MiB"})
    for i in range(400):
        w.get("/big%d" % i)
        if i % 40 == 39:
            written(w)
            assert sum(f.stat().st_size for f in files(w)) <= 16 * MIB * 1.05
    assert w.stats()["counters"]["disk_evictions"] > 0
    w.get("/last")
    written(w)
    restart(w)
    last = w.get("/last")
    assert last.cache_status.detail == "DISK"


def refused(config, tmp_path):
    path = tmp_path / "weir.yaml"
    path.write_text(config)
    done = run_cli("run", "-c", str(path))
    assert done.returncode != 0
    return done.stderr


def test_a_path_that_cannot_be_is_refused_with_its_name(origin, tmp_path):
    (tmp_path / "file").write_text("")

    def config(path):
        return configuration(free_port(), free_port(), origin.url, cache={"disk": {"path": path}})
    said = refused(config(str(tmp_path / "file")), tmp_path)
    assert "cache.disk.path" in said and "is no directory" in said
    said = refused(config(str(tmp_path / "none" / "there" / "cache")), tmp_path)
    assert str(tmp_path / "none" / "there" / "cache") in said
    assert run_cli("check", "-c", str(tmp_path / "weir.yaml")).returncode == 0
    for name in ("cache.db", "purges"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("somebody's notes")
        said = refused(config(str(tmp_path / name)), tmp_path)
        assert str(tmp_path / name / name) in said and "another program's" in said


def test_a_second_process_is_refused_the_same_path(origin, disky, tmp_path):
    w = disky()
    path = os.path.join(w.directory, "cache")
    said = refused(configuration(free_port(), free_port(), origin.url,
                                 cache={"disk": {"path": path}}), tmp_path)
    assert path in said
    assert w.get("/x").status == 404


def test_damaged_files_are_misses_and_never_wrong_bytes(origin, disky):
    origin.on("*", lambda req, conn: conn.respond(200, [FRESH], req.path.encode() * 2000))
    w = disky()
    for i in range(200):
        w.get("/d%03d" % i)
    written(w)
    assert w.stop() == 0
    for f in files(w):
        size = f.stat().st_size
        with open(f, "r+b") as h:
            for at in range(20_000, size, 40_000):
                h.seek(at)
                h.write(os.urandom(100))
    w.start()
    for i in range(200):
        r = w.get("/d%03d" % i)
        assert (r.status, r.body) == (200, b"/d%03d" % i * 2000)
    written(w)
    restart(w)
    assert all(w.get("/d%03d" % i).body == b"/d%03d" % i * 2000 for i in range(200))


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "small"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "weir-test", str(path)],
                      capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system may be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_costs_no_answer(origin, weir, small_disk):
    Versions(origin)
    origin.on("/fill", lambda req, conn: conn.respond(200, [FRESH], os.urandom(50_000)))
    w = weir(cache={"disk": {"path": str(small_disk / "cache"), "size": "64MiB"}})
    for i in range(200):
        assert w.get("/fill?%d" % i).status == 200
    assert w.get("/a").body == b"/a v1"
    w.purge(url=w.url + "/a")
    w.kill()
    w.start()
    assert w.get("/a").body == b"/a v2"
    assert w.get("/a").cache_status.hit


# ---- under load -------------------------------------------------------------------------------

def test_no_version_from_before_a_purge_is_served_after_it_whatever_crashes(origin, disky):
    """Readers, and one who changes a resource at the origin, purges it, and from then on accepts no
    older version; across crashes at any moment."""
    current = [1] * 20

    def answer(req, conn):
        n = int(req.path[2:])
        conn.respond(200, [FRESH], b"%d" % current[n])
    origin.on("*", answer)
    w = disky(cache={"memory": "1MiB"})
    floor, stop, wrong = [0] * 20, threading.Event(), []

    def read(i):
        for n in itertools.cycle(range(20)):
            if stop.is_set():
                return
            least = floor[n]
            try:
                r = w.get("/r%d" % n)
            except (OSError, AssertionError):
                continue                         # between a crash and the next start
            if r.status == 200 and int(r.body) < least:
                wrong.append((n, least, r.body, r.cache_status))

    def change(rounds):
        for n in itertools.islice(itertools.cycle(range(20)), rounds):
            current[n] += 1
            w.purge(url=w.url + "/r%d" % n)
            floor[n] = current[n]
    readers = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for t in readers:
        t.start()
    try:
        for _ in range(4):
            change(60)
            w.kill()
            w.start()
            assert not wrong, wrong
    finally:
        stop.set()
        for t in readers:
            t.join(30 * SLOW)
    assert not wrong, wrong
