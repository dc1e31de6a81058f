"""Upgrades under writers: one after the other, and killed at any moment."""
import os
import re
import signal
import time

import kit
from harness import SLOW, Successor, eventually

ROUNDS = 15 if SLOW == 1.0 else 5


def test_over_many_upgrades_each_write_is_sent_once_and_delivered_once(ledger, back):
    # whatever the machine does meanwhile: an answer that came too late would be asked for again
    w = back(cache={"memory": "16MiB"}, drain="20s", origin={"timeout": {"first_byte": "20s"}})
    writers = [kit.Writer(w, ledger, "post-%d" % i) for i in range(3)]
    writers += [kit.Writer(w, ledger, "put-%d" % i, "PUT") for i in range(2)]
    kit.start(writers)
    for _ in range(ROUNDS):
        before = [x.acknowledged for x in writers]
        assert w.upgrade().wait() == 0
        eventually(lambda: all(x.failure or x.acknowledged > n + 1 for x, n in zip(writers, before)))
    kit.finish(writers)
    kit.drained(writers, ledger)
    assert kit.judge(writers, ledger) == 0
    assert [(x.repeated, x.refused) for x in writers] == [(0, 0)] * 5
    assert kit.writes(w, state="dead") == []
    assert w.metric("weir_upgrades_total") == ROUNDS


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(n) for n in f.read().split()]


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Round:
    """One upgrade, and who serves after it: the old process, one that it has handed over to, or one
    that is begun anew."""

    def __init__(self, w):
        self.w = w
        self.before = self.said()
        w.process.send_signal(signal.SIGUSR2)

    def said(self):
        return re.findall(r"this process goes on|upgrade: process \d+ serves", self.w.log())

    def end(self, ledger, killed):
        new = eventually(lambda: self.said()[len(self.before):] or (self.w.process.poll() is not None and [""]))
        if new[-1] == "this process goes on":
            return
        self.w.process.wait()
        successor = Successor(int(new[-1].split()[2])) if new[-1] else None
        if successor and successor.pid in killed:
            successor.wait()
        if successor and successor.poll() is None:
            self.w.process, self.w.pid = successor, successor.pid
        else:
            ledger.idle()
            self.w.start()


def test_an_upgrade_that_is_killed_at_any_moment_loses_no_write(ledger, back):
    random = kit.chance()
    w = back(write={"idempotent": True})
    writers = [kit.Writer(w, ledger, "post-%d" % i) for i in range(4)]
    kit.start(writers)
    for _ in range(ROUNDS):
        this = Round(w)
        time.sleep(random.uniform(0, 0.15) * SLOW)      # the moment itself is what is tried
        new = children(w.pid)
        if random.random() < 0.5:
            w.process.kill()
            w.process.wait()
        for pid in new:
            kill(pid)
        this.end(ledger, new)
    kit.finish(writers)
    kit.drained(writers, ledger)
    kit.judge(writers, ledger)
    assert kit.writes(w, state="dead") == []
    w.status = None
