"""Three instances that share a journal in Redis, writers at all of them, and faults: what any of them
acknowledged reaches the origin, in order, with one owner of a partition at a time.

The origin checks the fence, as README says that one should: a delivery whose token is lower than
one that it has seen of that partition is refused, and does nothing."""
import re
import time

import pytest

import kit
from harness import SLOW, eventually

LEASE = 1.0 * SLOW
ROUNDS = 40 if SLOW == 1.0 else 6
INSTANCES = 3
PARTITIONS = 64


class Fences:
    """A mood of the ledger: it refuses former owners, and remembers who delivered when."""

    def __init__(self):
        self.highest = {}                        # partition -> token
        self.refused = 0

    def __call__(self, delivery):
        token, part = map(int, re.fullmatch(r"(\d+);partition=(\d+)", delivery.fence).groups())
        if token < self.highest.get(part, 0):
            self.refused += 1
            delivery.taken = False
            return lambda conn: conn.respond(409, body=b"a former owner\n")
        self.highest[part] = token
        return None


class Roaming(kit.Writer):
    """Each request goes to an instance by chance."""

    def __init__(self, instances, random, *args, **keys):
        super().__init__(instances[0], *args, **keys)
        self.instances, self.random = instances, random
        self.host = "shop.test"                  # of all, as if behind one address

    def send(self, number):
        port = self.random.choice(self.instances).port
        if port != self.port:
            self.hang_up()
        self.port = port
        return super().send(number)


def stats(w):
    return w.stats()["writes"]


def whole(instances):
    """Each partition has an owner."""
    eventually(lambda: sum(stats(w)["partitions"] for w in instances) == PARTITIONS,
               timeout=30 * SLOW)


@pytest.fixture
def fleet(weir, redis, ledger):
    def make(write=None, **options):
        made = [weir(routes=[{"path": "/**", "policy": "write-back", "write": kit.write(
            {"idempotent": True, "concurrency": 32, **(write or {})})}],
            journal={"redis": {"url": redis.url, "lease": "%dms" % (LEASE * 1000),
                               "timeout": "500ms", **options}}) for _ in range(INSTANCES)]
        whole(made)
        return made
    return make


def writers_of(instances, ledger, random, n=6):
    made = [Roaming(instances, random, ledger, "post-%d" % i) for i in range(n)]
    return made + [Roaming(instances, random, ledger, "put-%d" % i, "PUT") for i in range(n // 2)]


def judge(writers, instances, ledger, fences):
    kit.finish(writers)
    kit.drained(writers, ledger)
    repeats = kit.judge(writers, ledger)
    eventually(lambda: all(stats(w)["pending"] == 0 for w in instances), timeout=30 * SLOW)
    for w in instances:
        assert kit.writes(w, state="dead") == [] and stats(w)["lost"] == 0
    acknowledged = sum(x.acknowledged for x in writers)
    print("%d acknowledged, %d delivered twice, %d by a former owner, which the origin refused" % (
        acknowledged, repeats, fences.refused))
    assert acknowledged > 10 * ROUNDS
    return acknowledged


def test_what_a_fleet_acknowledges_is_delivered_in_order_over_kills_and_stops_of_instances(
        ledger, fleet):
    random = kit.chance()
    instances = fleet()
    ledger.mood = fences = Fences()
    writers = writers_of(instances, ledger, random)
    kit.start(writers)
    for _ in range(ROUNDS):
        w = random.choice(instances)
        time.sleep(random.uniform(0, LEASE / 2))
        kind = random.randrange(3)
        if kind == 0:
            w.kill()
            time.sleep(random.uniform(0, 2 * LEASE))
            w.start(wait=False)
        elif kind == 1:
            assert w.stop() == 0
            w.start(wait=False)
        else:
            w.pause()
            time.sleep(random.uniform(0, 2 * LEASE))
            w.resume()
        if any(x.failure for x in writers):
            break
    for w in instances:
        w.wait_ready()
    judge(writers, instances, ledger, fences)


def test_what_a_fleet_acknowledges_survives_crashes_and_silences_of_redis(ledger, fleet, redis):
    random = kit.chance()
    instances = fleet()
    ledger.mood = fences = Fences()
    writers = writers_of(instances, ledger, random)
    kit.start(writers)
    for _ in range(ROUNDS // 4):
        time.sleep(random.uniform(0, LEASE))
        if random.random() < 0.5:
            redis.kill()
            time.sleep(random.uniform(0, LEASE))
            redis.start()
        else:
            redis.pause()
            time.sleep(random.uniform(0, 2 * LEASE))
            redis.resume()
    judge(writers, instances, ledger, fences)
