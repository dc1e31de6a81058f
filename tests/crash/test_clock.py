"""A clock that is set back by hours, or forth: what waits is delivered in time, none is lost."""
import glob
import os

import pytest

import kit
from harness import SLOW, eventually

HOURS = 3600


def library():
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    return found[0] if found else None


pytestmark = pytest.mark.skipif(
    library() is None or bool(os.environ.get("WEIR_SANITIZE")),
    reason="needs libfaketime, and a program without a sanitizer's own interposers")


class Clock:
    """Weir's wall clock, which set() moves while it runs; its monotonic clock goes on."""

    def __init__(self, path):
        self.path = str(path)
        self.set(0)
        # libc's allocator: jemalloc asks for the time before libfaketime has begun.
        self.env = {"LD_PRELOAD": library() + ":libc.so.6", "FAKETIME_TIMESTAMP_FILE": self.path,
                    "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def set(self, seconds):
        with open(self.path + ".new", "w", encoding="ascii") as f:
            f.write("%+d\n" % seconds)
        os.replace(self.path + ".new", self.path)


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


def test_the_clock_of_the_test_is_what_weir_sees(clock, ledger, back):
    clock.set(-100 * HOURS)
    w = back(env=clock.env)
    w.post("/a", b"x")
    eventually(lambda: ledger.count("/a"))
    accepted = ledger.all()[0].accepted
    clock.set(0)
    w.post("/b", b"x")
    eventually(lambda: ledger.count("/b"))
    assert accepted != ledger.all()[1].accepted and accepted[:16] != ledger.all()[1].accepted[:16]


def refused(ledger, w, n=20):
    """Writes that the origin has refused once each, and that wait to be sent again."""
    def mood(d):
        d.taken = False
        return lambda conn: conn.respond(503, body=b"", reason="Not now")
    ledger.mood = mood
    for i in range(n):
        assert w.post("/p%d" % i, b"%d" % i).status == 202
    eventually(lambda: len({d.path for d in ledger.all()}) == n)
    ledger.mood = None


BACKOFF = {"idempotent": True, "backoff": {"min": "1s", "max": "2s"}}


@pytest.mark.parametrize("by", [-6 * HOURS, -1000 * HOURS, 6 * HOURS])
def test_what_waits_for_a_retry_is_delivered_in_time_when_the_clock_is_moved(
        clock, ledger, back, by):
    w = back(write=BACKOFF, env=clock.env)
    refused(ledger, w)
    clock.set(by)
    eventually(lambda: ledger.count() == 20, timeout=10 * SLOW)
    assert kit.writes(w, state="dead") == []
    assert w.post("/new", b"new").status == 202
    eventually(lambda: ledger.count("/new"))


@pytest.mark.parametrize("by", [-6 * HOURS, -1000 * HOURS])
def test_at_a_restart_with_a_clock_in_the_past_what_waited_is_delivered_in_time(
        clock, ledger, back, by):
    w = back(write=BACKOFF, env=clock.env)
    refused(ledger, w)
    kit.crash(w, ledger, meanwhile=lambda: clock.set(by))
    eventually(lambda: ledger.count() == 20, timeout=10 * SLOW)
    assert kit.writes(w, state="dead") == []
    assert w.post("/p0", b"new").status == 202       # behind what this key had, in its order
    eventually(lambda: ledger.count("/p0") == 2)


def test_order_and_keys_hold_over_kills_and_a_clock_that_jumps(clock, ledger, back):
    random = kit.chance()
    w = back(write={"idempotent": True}, env=clock.env)
    writers = [kit.Writer(w, ledger, "post-%d" % i) for i in range(4)]
    kit.start(writers)
    for _ in range(8):
        taken = ledger.count()
        clock.set(random.choice([-30, -2, -1, 0, 1, 2, 12]) * HOURS)
        eventually(lambda: ledger.count() > taken + 20, timeout=kit.DRAINED)
        kit.crash(w, ledger)
    kit.finish(writers)
    kit.drained(writers, ledger)
    kit.judge(writers, ledger)
