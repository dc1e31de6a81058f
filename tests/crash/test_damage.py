"""A journal that was damaged: Weir starts, says so, keeps the damaged file and delivers what can be
read of it, in order."""
import glob
import os

import pytest

import kit
from harness import eventually

PATHS = 10
WRITES = 400
GARBAGE = bytes((i * 167 + 13) % 256 for i in range(4096))


@pytest.fixture
def waiting(ledger, back, origins):
    """Weir, stopped, with 400 writes of ten keys that its origin has not had yet, and those."""
    w = back(write={"idempotent": True})
    ledger.go_away()
    sent = [("/p%d" % (i % PATHS), b"%04d" % i + b"." * 600) for i in range(WRITES)]
    statuses = kit.flood(w.port, [kit.post(*x) for x in sent], connections=PATHS, depth=10)
    assert set(statuses) == {202}
    yield w, [body for _, body in sent]


def ready(w):
    return w.api("GET", "/readyz").json()["writes"]


def again(w, ledger, origins):
    ledger.come_back(origins)
    w.start()


def waits(w):
    return ready(w)["pending"] > 0


def delivered(w, ledger):
    """What came when nothing waits any more; in order per key."""
    eventually(lambda: not waits(w), timeout=kit.DRAINED)
    for path in {d.path for d in ledger.all()}:
        bodies = [d.body for d in ledger.taken(path)]
        assert bodies == sorted(bodies), path
    return ledger.taken()


def overwrite(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def assert_set_aside(w):
    """The damaged file is kept, and log and /readyz say as what."""
    kept = [p for p in glob.glob(w.journal + ".damaged-*") if not p.endswith(("-wal", "-shm"))]
    assert len(kept) == 1, os.listdir(os.path.dirname(w.journal))
    assert "it was damaged" in w.log() and kept[0] in w.log(), w.log()
    assert ready(w)["damaged"] == kept[0]


def test_a_main_file_cut_in_half_is_set_aside_and_what_is_readable_is_delivered(
        waiting, ledger, origins):
    w, sent = waiting
    assert w.stop() == 0                         # the WAL is in the file now
    size = os.path.getsize(w.journal)
    os.truncate(w.journal, size // 2 // 4096 * 4096)
    again(w, ledger, origins)
    assert_set_aside(w)
    came = delivered(w, ledger)
    assert {d.body for d in came} <= set(sent)
    print("%d of %d were readable" % (len(came), len(sent)))
    assert len(came) > len(sent) // 4
    assert w.post("/new", b"new").status == 202
    eventually(lambda: ledger.count("/new"))


def test_a_main_file_cut_to_nothing_is_reported_and_writes_go_on(waiting, ledger, origins):
    w, _ = waiting
    assert w.stop() == 0
    os.truncate(w.journal, 0)
    again(w, ledger, origins)
    assert_set_aside(w)
    assert w.post("/new", b"new").status == 202
    eventually(lambda: ledger.count("/new"))
    assert ledger.bodies == {"/new": {b"new"}}   # and nothing is invented


def test_a_first_page_overwritten_with_garbage_is_reported_and_writes_go_on(
        waiting, ledger, origins):
    w, sent = waiting
    assert w.stop() == 0
    overwrite(w.journal, 0, GARBAGE)
    again(w, ledger, origins)
    assert_set_aside(w)
    assert {d.body for d in delivered(w, ledger)} <= set(sent)
    assert w.post("/new", b"new").status == 202
    eventually(lambda: ledger.count("/new"))


@pytest.mark.parametrize("where", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_page_overwritten_with_garbage_costs_what_was_on_it(waiting, ledger, origins, where):
    w, sent = waiting
    assert w.stop() == 0
    pages = os.path.getsize(w.journal) // len(GARBAGE)
    overwrite(w.journal, int(pages * where) * len(GARBAGE), GARBAGE)
    again(w, ledger, origins)
    eventually(lambda: not waits(w) or not ready(w)["takes"], timeout=kit.DRAINED)
    if not ready(w)["takes"]:                    # found while it ran: the next start mends it
        assert "damaged" in ready(w)["why"] and w.post("/new", b"new").status == 503
        kit.crash(w, ledger)
        assert_set_aside(w)
    came = {d.body for d in delivered(w, ledger)}
    dead = kit.writes(w, state="dead")
    lost = len(sent) - len(came) - len(dead)
    print("%d of %d delivered, %d listed as dead, %d lost" % (
        len(came), len(sent), len(dead), lost))
    assert came <= set(sent) and len(came) > len(sent) * 3 // 4
    assert ready(w)["dead"] == len(dead)
    assert all(x["state"] == "uncertain" and "journal" in x["cause"] for x in dead)
    if lost > 0:                                 # then a person is told where to look
        assert_set_aside(w)
    assert w.post("/new", b"new").status == 202


@pytest.mark.parametrize("cut", [1, 3000, 40000])
def test_a_cut_tail_of_the_wal_costs_the_last_writes_alone(waiting, ledger, origins, cut):
    w, sent = waiting
    w.kill()
    wal = w.journal + "-wal"
    size = os.path.getsize(wal)
    os.truncate(wal, size - cut)
    again(w, ledger, origins)
    came = delivered(w, ledger)
    bodies = {d.body for d in came}
    assert bodies <= set(sent)
    for k in range(PATHS):                       # of each key the first ones, without a gap
        mine = sorted(b for b in sent if int(b[:4]) % PATHS == k)
        have = sorted(b for b in bodies if int(b[:4]) % PATHS == k)
        assert have == mine[:len(have)]
    print("%d of %d after a cut of %d of %d bytes" % (len(came), len(sent), cut, size))
    assert w.post("/new", b"new").status == 202


def test_garbage_in_the_middle_of_the_wal_ends_it_there_and_weir_starts(waiting, ledger, origins):
    w, sent = waiting
    w.kill()
    wal = w.journal + "-wal"
    overwrite(wal, os.path.getsize(wal) // 2, os.urandom(5000))
    again(w, ledger, origins)
    came = delivered(w, ledger)
    assert {d.body for d in came} <= set(sent)
    assert w.post("/new", b"new").status == 202


def test_another_programs_file_is_left_as_it_is(back, ledger, tmp_path):
    (tmp_path / "journal").mkdir()
    path = tmp_path / "journal" / "writes"
    path.write_bytes(b"a diary\n" * 1000)
    w = back(wait=False)
    assert eventually(lambda: w.process.poll()) not in (None, 0)
    w.status = w.process.returncode
    assert w.log_has(str(path))
    assert path.read_bytes() == b"a diary\n" * 1000
