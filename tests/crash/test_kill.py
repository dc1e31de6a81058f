"""kill -9 at any moment: what was acknowledged reaches the origin, in order, and nothing else."""
import time

import kit
from harness import SLOW, eventually

ROUNDS = 200 if SLOW == 1.0 else 20


def test_every_acknowledged_write_survives_two_hundred_kills_in_order_and_none_is_invented(
        ledger, back):
    random = kit.chance()
    w = back(write={"idempotent": True})
    writers = [kit.Writer(w, ledger, "post-%d" % i) for i in range(4)]
    writers += [kit.Writer(w, ledger, "put-%d" % i, "PUT") for i in range(2)]
    kit.start(writers)
    for _ in range(ROUNDS):
        time.sleep(random.uniform(0, 0.25) * SLOW)      # the moment itself is what is tried
        kit.crash(w, ledger)
        writer = random.choice(writers)
        if writer.failure:
            break
    kit.finish(writers)
    kit.drained(writers, ledger)
    repeats = kit.judge(writers, ledger)
    for writer in writers:
        if writer.acknowledged:
            writer.ask_again(writer.acknowledged - 1)
    assert kit.writes(w, state="dead") == []
    print("%d kills, %d acknowledged, %d delivered twice, %d requests repeated" % (
        ROUNDS, sum(x.acknowledged for x in writers), repeats, sum(x.repeated for x in writers)))
    assert sum(x.acknowledged for x in writers) > ROUNDS


def test_what_a_put_acknowledged_last_is_what_the_origin_ends_with(ledger, back):
    random = kit.chance()
    w = back(write={"concurrency": 50})
    writers = [kit.Writer(w, ledger, "doc-%d" % i, "PUT", ahead=400) for i in range(6)]
    kit.start(writers)
    for _ in range(ROUNDS // 10):
        time.sleep(random.uniform(0, 0.25) * SLOW)
        kit.crash(w, ledger)
    kit.finish(writers)
    kit.drained(writers, ledger)
    kit.judge(writers, ledger)
    for writer in writers:
        last = [d for d in ledger.all() if d.path == writer.path][-1]
        assert last.body == writer.body(writer.acknowledged - 1)


def test_without_the_promise_a_post_in_flight_at_a_kill_is_uncertain_and_never_sent_again(
        origin, ledger, back):
    w = back()
    gate = origin.gate()
    ledger.mood = lambda d: (lambda conn: gate.wait()) if b"held" in d.body else None
    paths = ["/a", "/b", "/c"]
    held = {w.post(p, b"held").header("Location").rsplit("/", 1)[1] for p in paths}
    for p in paths:
        origin.wait(p)
        assert w.post(p, b"behind").status == 202
    assert w.post("/d", b"alone").status == 202
    eventually(lambda: kit.writes(w, state="delivered"))
    w.kill()
    gate.set()
    ledger.idle()
    w.start()
    eventually(lambda: all(ledger.count(p) == 2 for p in paths))
    listed = eventually(lambda: kit.writes(w, state="uncertain"))
    assert {x["id"] for x in listed} == held
    eventually(lambda: not kit.writes(w, state="pending"))
    for p in paths:
        assert [d.body for d in ledger.all() if d.path == p] == [b"held", b"behind"]
    assert [d.body for d in ledger.all() if d.path == "/d"] == [b"alone"]


def test_without_the_promise_no_post_is_sent_twice_over_many_kills(ledger, back):
    random = kit.chance()
    w = back()
    writers = [kit.Writer(w, ledger, "post-%d" % i) for i in range(6)]
    kit.start(writers)
    for _ in range(ROUNDS // 10):
        time.sleep(random.uniform(0, 0.25) * SLOW)
        kit.crash(w, ledger)
    kit.finish(writers)
    eventually(lambda: not kit.writes(w, state="pending"), timeout=kit.DRAINED)
    uncertain = {x["id"] for x in kit.writes(w, state="uncertain")}
    for writer in writers:
        came = [kit.number(d.body) for d in ledger.all() if d.path == writer.path]
        assert came == sorted(set(came)), "%s: twice, or not in order" % writer.name
        lost = set(range(writer.acknowledged)) - set(came)
        for number in lost:                      # acknowledged, not there: then it must be listed
            assert writer.locations[number].rsplit("/", 1)[1] in uncertain, (writer.name, number)
    assert kit.writes(w, state="rejected") == kit.writes(w, state="expired") == []
    print("%d acknowledged, %d uncertain" % (sum(x.acknowledged for x in writers), len(uncertain)))
