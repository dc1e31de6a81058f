"""A disk that is full, read-only, or somebody else's: never an acknowledgement that is not kept."""
import os
import pathlib
import subprocess
import tempfile

import pytest

import kit
from harness import SLOW, eventually, free_port, weir_binary

BODY = b"x" * 4000


def can_mount(path):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "weir-test", str(path)],
                          capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A directory on a file system of 2 MiB; skipped where nothing may be mounted."""
    path = tmp_path / "journal"
    path.mkdir()
    if not can_mount(path):
        pytest.skip("no file system may be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(w, ledger):
    """Writes until one is refused; the numbers of those that were acknowledged."""
    kept = []
    with w.client() as c:
        for i in range(3000):
            r = c.request("POST", "/p%d" % (i % 7), (), b"%06d" % i + BODY)
            if r.status != 202:
                assert r.status == 503, (r, r.body)
                assert r.header("Retry-After") is not None
                assert r.header("Content-Type") == "application/problem+json"
                return kept
            kept.append(b"%06d" % i + BODY)
    raise AssertionError("it never was full")


def takes_writes(w):
    return w.post("/after", b"room again").status == 202


def everything_arrives(w, ledger, kept):
    eventually(lambda: ledger.count() >= len(kept) + 1, timeout=kit.DRAINED)
    came = [d for d in ledger.all() if d.taken and d.path != "/after"]
    for path in {d.path for d in came}:
        bodies = [d.body for d in came if d.path == path]
        assert bodies == sorted(bodies), path
    assert {d.body for d in came} == set(kept)


def refuse(d):
    d.taken = False
    return lambda conn: conn.respond(503, [("Retry-After", "0")], b"", "Not now")


def test_on_a_full_disk_every_202_is_kept_and_writes_go_on_once_there_is_room(
        small_disk, ledger, back):
    w = back(write={"idempotent": True})
    ledger.mood = refuse
    kept = fill(w, ledger)
    assert kept
    ready = w.api("GET", "/readyz")
    assert ready.status == 200 and b"full" in ready.body, ready.body
    kit.crash(w, ledger)                         # a start finds no room either
    assert w.post("/a", BODY).status in (202, 503)
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    eventually(lambda: takes_writes(w))
    ledger.mood = None
    eventually(lambda: ledger.count() >= len(kept), timeout=kit.DRAINED)


def room(small_disk):
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)


def test_a_stop_does_not_wait_for_room_on_a_full_disk(small_disk, ledger, back):
    w = back(write={"idempotent": True}, drain="1h")
    ledger.mood = refuse
    kept = fill(w, ledger)
    eventually(lambda: w.stats()["writes"]["delivering"] > 0)   # the journal cannot take it
    assert w.stop() == 0
    room(small_disk)
    ledger.mood = None
    w.start()
    eventually(lambda: takes_writes(w))
    everything_arrives(w, ledger, kept)


def test_beyond_a_file_size_limit_every_202_is_kept_and_writes_go_on_once_it_is_lifted(
        ledger, back):
    w = back(write={"idempotent": True}, under=["prlimit", "--fsize=2000000:unlimited"])
    ledger.mood = refuse
    kept = fill(w, ledger)
    assert kept
    assert w.api("GET", "/readyz").status == 200
    assert w.get("/read").cache_status.fwd == "uri-miss"        # reads go on
    subprocess.run(["prlimit", "--pid=%d" % w.pid, "--fsize=unlimited:unlimited"], check=True)
    eventually(lambda: takes_writes(w))
    ledger.mood = None
    everything_arrives(w, ledger, kept)


def test_the_size_of_the_journal_is_a_limit_of_the_same_kind(ledger, back):
    w = back(write={"idempotent": True}, journal={"size": "2MiB", "keep": "0s"})
    ledger.mood = refuse
    kept = fill(w, ledger)
    size = sum(os.path.getsize(w.journal + end) for end in ("", "-wal"))
    assert len(kept) > 50 and size < 3 << 20, (len(kept), size)
    ledger.mood = None
    eventually(lambda: takes_writes(w), timeout=kit.DRAINED)
    everything_arrives(w, ledger, kept)


def start_another(w, tmp_path, journal=None, under=()):
    """A second process with this one's configuration but its ports; it is expected to end."""
    config = open(w.config, encoding="utf-8").read()
    for port in (w.port, w.admin):
        config = config.replace("127.0.0.1:%d" % port, "127.0.0.1:%d" % free_port())
    path = tmp_path / "another.yaml"
    path.write_text(config.replace(w.journal, journal or w.journal))
    return subprocess.run([*under, weir_binary(), "run", "-c", str(path)], capture_output=True,
                          text=True, timeout=20 * SLOW, check=False, cwd="/")


def test_a_second_process_on_the_same_journal_is_refused_and_says_whose_it_is(
        ledger, back, tmp_path):
    w = back()
    second = start_another(w, tmp_path)
    assert second.returncode not in (0, None)
    assert w.journal in second.stderr and str(w.pid) in second.stderr, second.stderr
    assert w.post("/a", b"x").status == 202
    eventually(lambda: ledger.count("/a"))
    w.kill()                                     # what a dead process held is free
    w.start()
    assert w.post("/b", b"x").status == 202


@pytest.fixture
def open_directory():
    """One that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="weir-crash-") as d:
        os.chmod(d, 0o755)
        yield pathlib.Path(d)


def test_a_journal_in_a_directory_that_cannot_be_written_is_refused_with_its_name(
        ledger, back, open_directory):
    w = back()
    directory = open_directory / "read-only"
    directory.mkdir(mode=0o555)
    under = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    r = start_another(w, open_directory, str(directory / "writes"),
                      under if os.getuid() == 0 else ())
    assert r.returncode not in (0, None)
    assert str(directory / "writes") in r.stderr and "Permission denied" in r.stderr, r.stderr


def test_a_start_on_a_read_only_disk_serves_reads_and_refuses_writes(origin, small_disk, weir):
    origin.on("*", body=b"x", headers=[("Cache-Control", "max-age=60")])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    w = weir(journal={"path": str(small_disk / "journal")}, routes=[
        {"path": "/w", "policy": "write-back"}, {"path": "/**"}])
    assert w.get("/a").status == 200 and w.get("/a").cache_status.hit
    refused = w.request("PUT", "/w", body=b"x")
    assert refused.status == 503 and refused.header("Retry-After")
    assert w.get("/w").status == 200
    ready = w.api("GET", "/readyz")
    assert ready.status == 200 and ready.json()["writes"]["takes"] is False
    assert w.log_has("Read-only file system")
