"""Tens of thousands of writes that wait: a start finds them all, and they arrive, each once."""
import kit
from harness import SLOW, eventually

WRITES = 50000 if SLOW == 1.0 else 5000
KEYS = 5000


def test_a_backlog_of_fifty_thousand_survives_a_kill_and_arrives_in_order_once_each(
        origins, ledger, back):
    w = back(write={"durability": "os", "concurrency": 100},
             origin={"pool": {"max": 64}, "eject": {"for": "50ms"}})
    ledger.go_away()
    requests = [kit.post("/k/%d" % (i % KEYS), b"%06d" % i) for i in range(WRITES)]
    # One connection has all writes of a key: they are acknowledged in the order of their numbers.
    statuses = kit.flood(w.port, requests, connections=20, depth=100)
    assert set(statuses) == {202}
    w.kill()
    ledger.come_back(origins)
    w.start()
    with_backlog = w.rss()
    eventually(lambda: ledger.count() == WRITES, timeout=300 * SLOW)
    came = ledger.all()
    assert len(came) == WRITES, "%d were sent twice" % (len(came) - WRITES)
    per_key = {}
    for d in came:
        assert per_key.get(d.path, -1) < int(d.body), "not in order: %s" % d.path
        per_key[d.path] = int(d.body)
    assert len(per_key) == KEYS
    print("%d waited, %d MiB resident" % (WRITES, with_backlog >> 20))
