"""An origin that dies, hangs or refuses while Weir is killed too: writes wait and keep order."""
import threading
import time

import pytest

import kit
from harness import SLOW, eventually

PHASES = 6


def writers_for(w, ledger):
    """POSTs under the route's promise, and PUTs."""
    writers = [kit.Writer(w, ledger, "post-%d" % i) for i in range(3)]
    return writers + [kit.Writer(w, ledger, "doc-%d" % i, "PUT") for i in range(3)]


def settle(writers, ledger):
    kit.finish(writers)
    kit.drained(writers, ledger)
    kit.judge(writers, ledger)
    for writer in writers:
        last = [d for d in ledger.all() if d.taken and d.path == writer.path][-1]
        assert last.body == writer.body(writer.acknowledged - 1), writer.name


def under_load(w, ledger, phase):
    """phase(k) for k in 0..; between phases writes go through, and every other one kills Weir."""
    random = kit.chance()
    writers = writers_for(w, ledger)
    kit.start(writers)
    for k in range(PHASES):
        taken = ledger.count()
        eventually(lambda: ledger.count() > taken + 20, timeout=kit.DRAINED)
        for writer in writers:
            writer.ahead += 100                  # what a phase without an origin wants accepted
        phase(k, random)
        if k % 2:
            kit.crash(w, ledger)
    settle(writers, ledger)


def test_an_origin_that_is_killed_and_restarted_gets_every_write_in_order(origins, ledger, back):
    w = back(write={"idempotent": True})

    def phase(k, random):
        ledger.go_away()
        if k % 2:
            kit.crash(w, ledger)
        before = w.metric("weir_writes_accepted_total")
        eventually(lambda: w.metric("weir_writes_accepted_total") > before + 10)
        ledger.come_back(origins)
    under_load(w, ledger, phase)


def test_an_origin_that_hangs_gets_every_write_in_order(origin, ledger, back):
    w = back(write={"idempotent": True}, origin={"timeout": {"first_byte": "150ms"}})

    def phase(k, random):
        hung, gate = [], threading.Event()
        origin.gates.append(gate)

        def mood(d):
            d.taken = random.random() < 0.5      # done or not: Weir cannot know
            hung.append(d)
            return lambda conn: gate.wait()
        ledger.mood = mood
        eventually(lambda: len(hung) > 6)
        ledger.mood = None
        gate.set()
    under_load(w, ledger, phase)


@pytest.mark.parametrize("status, fields", [
    (500, []), (503, [("Retry-After", "0")]), (408, []), (425, []), (429, [("Retry-After", "1")])])
def test_an_origin_that_refuses_in_bursts_gets_every_write_in_order(ledger, back, status, fields):
    w = back(write={"idempotent": True})

    def phase(k, random):
        refused = []

        def mood(d):
            d.taken = False
            refused.append(d)
            return lambda conn: conn.respond(status, fields, b"not now\n", "Refused")
        ledger.mood = mood
        eventually(lambda: len(refused) > 5)
        ledger.mood = None
    under_load(w, ledger, phase)


def test_a_retry_after_is_kept_over_a_kill(ledger, back):
    w = back(write={"idempotent": True})
    refused = []

    def mood(d):
        d.taken = False
        refused.append(d)
        return lambda conn: conn.respond(429, [("Retry-After", "2")], b"", "Too Many Requests")
    ledger.mood = mood
    assert w.post("/a", b"patient").status == 202
    eventually(lambda: kit.writes(w, state="waiting"))
    ledger.mood = None
    kit.crash(w, ledger)
    eventually(lambda: ledger.count("/a"), timeout=10 * SLOW)
    first, second = [d for d in ledger.all() if d.path == "/a"]
    assert second.at - first.at > 1.5 and len(refused) == 1


def test_sigterm_during_deliveries_loses_nothing_and_sends_nothing_twice(origin, ledger, back):
    w = back(write={"concurrency": 4})
    gate = origin.gate()
    ledger.mood = lambda d: (lambda conn: (gate.wait(), conn.respond(200, body=b"done\n")))
    for i in range(12):
        assert w.post("/p%d" % i, b"%d" % i).status == 202
    eventually(lambda: len(ledger.all()) == 4)
    w.terminate()
    eventually(lambda: w.log_has("drain"))
    gate.set()
    assert w.stop() == 0
    sent = len(ledger.all())
    ledger.mood = None
    w.start()
    eventually(lambda: ledger.count() == 12)
    assert len(ledger.all()) == 12, "something was sent twice"
    assert kit.writes(w, state="dead") == []
    print("%d were sent before the end" % sent)


def test_sigterm_under_load_again_and_again_loses_nothing(ledger, back):
    random = kit.chance()
    w = back(write={"idempotent": True})
    writers = writers_for(w, ledger)
    kit.start(writers)
    for _ in range(10):
        time.sleep(random.uniform(0, 0.2) * SLOW)
        assert w.stop() == 0, w.log()
        w.start()
    settle(writers, ledger)
