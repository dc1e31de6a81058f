"""Three instances that share a Redis, clients at all of them, and faults while one fetches for all: the
origin is asked once for each miss, but for leases that ended without an answer. history.py states it,
and judges; what became of the leases is what Redis tells of its keys."""
import contextlib
import os
import random as chances
import re
import socket
import threading
import time

import kit
from harness import SLOW, TIMEOUT, Client, Closed, eventually
from history import (ANSWERED, EXPIRED, FETCHED, GIVEN_UP, REDIS, Fault, Fetch, Lease, Read,
                     Removal, excesses, kinds)

LEASE = 2.0                             # of a fetch, in seconds
ROUNDS = 10 if os.environ.get("WEIR_LONG") else 1               # each with every fault
MISSES = 40                             # at least, behind each round
ASK = 2.0                               # in seconds: how long Redis has for an answer
INSTANCES = 3
HOST = "shop.test"


# ---- the checker: what it lets pass and what not ---------------------------------------------

def fetches(*instances):
    return [Fetch(instance, "/u", 5.0 + i) for i, instance in enumerate(instances)]


def too_many(*history):
    return [(e.url, len(e.fetches)) for e in excesses(history, instances=3)]


def test_a_second_fetch_is_one_too_many_whoever_makes_it():
    assert too_many(*fetches("A")) == []
    assert too_many(*fetches("A", "B")) == too_many(*fetches("A", "A")) == [("/u", 2)]
    assert too_many(*fetches("A"), Fetch("B", "/v", 6.0)) == []


def test_a_lease_that_expired_allows_one_more_and_one_that_was_answered_none():
    assert too_many(*fetches("A", "B"), Lease("/u", EXPIRED)) == []
    assert too_many(*fetches("A", "B", "C"), Lease("/u", EXPIRED)) == [("/u", 3)]
    assert too_many(*fetches("A", "B"), Lease("/u", ANSWERED)) == [("/u", 2)]
    assert too_many(*fetches("A", "B"), Lease("/v", EXPIRED)) == [("/u", 2)]


def test_a_lease_that_was_given_up_allows_one_fetch_of_each_who_may_have_waited():
    assert too_many(*fetches("A", "B", "C"), Lease("/u", GIVEN_UP)) == []
    assert too_many(*fetches("A", "B", "C", "A"), Lease("/u", GIVEN_UP)) == [("/u", 4)]


def test_who_had_no_redis_to_ask_between_the_read_and_the_fetch_may_fetch():
    both = fetches("A", "B")            # at 5 and 6
    for who, allowed in (("B", True), (REDIS, True), ("C", False)):
        assert too_many(*both, Fault("cut", [who], 5.9, 7.0)) == [("/u", 2)] * (not allowed)
        assert too_many(*both, Fault("cut", [who], 4.0, 5.5))[:1] == (
            [] if who == REDIS else [("/u", 2)])
        read = Read("B", "/u", 5.4, 6.2, 1, FETCHED)
        assert too_many(*both, Fault("cut", [who], 5.2, 5.5), read) == [("/u", 2)] * (not allowed)
    assert too_many(*both, Fault("cut", ["B"], 6.1, 7.0)) == [("/u", 2)]


def test_who_fetched_without_redis_may_take_away_what_is_there_which_is_one_fetch_more():
    all_of_them, cut = fetches("A", "B", "C"), Fault("cut", ["B"], 5.9, 6.5)        # at 5, 6, 7
    gone = Removal("/u", "deleted")
    assert too_many(*all_of_them, cut) == too_many(*all_of_them, cut, Removal("/v", "deleted"))
    assert too_many(*all_of_them, cut) == [("/u", 3)]
    assert too_many(*all_of_them, cut, gone) == []
    assert too_many(*all_of_them, Fetch("A", "/u", 8.0), cut, gone, gone) == [("/u", 4)]
    assert too_many(*fetches("A", "B"), gone) == [("/u", 2)]


# ---- what Redis tells ------------------------------------------------------------------------

class Listener:
    """Leases, as they end, and values that are removed: notifications of keys "weir:l:ID" and
    "weir:o:ID"."""

    def __init__(self, redis):
        self.redis, self.leases, self.open = redis, [], {}          # leases: (id, end)
        self.removed = []               # ids
        self.over = threading.Event()
        redis.call("CONFIG", "SET", "notify-keyspace-events", "Kg$x")
        self.socket = socket.create_connection((redis.host, redis.port), TIMEOUT)
        self.file = self.socket.makefile("rb")
        self.socket.sendall(b"PSUBSCRIBE __keyspace@0__:weir:* over\r\n")
        for _ in range(2):
            redis._reply(self.file)
        self.socket.settimeout(None)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        with contextlib.suppress(OSError, AssertionError):
            while not self.over.is_set():
                _, _, channel, event = self.redis._reply(self.file)
                self.hear(channel, event)

    def hear(self, channel, event):
        found = re.search(r":weir:([lo]):(\{.*)", channel)
        if channel == "over":
            self.over.set()
        elif found and found[1] == "o" and event == "set" and found[2] in self.open:
            self.open[found[2]] = ANSWERED
        elif found and found[1] == "o" and event == "del":
            self.removed.append(found[2])
        elif found and found[1] == "l":
            if event == "set":
                self.open[found[2]] = GIVEN_UP           # unless more is heard
            elif event in ("del", "expired"):
                end = self.open.pop(found[2])
                self.leases.append((found[2], EXPIRED if event == "expired" else end))

    def end(self):
        """Of which URL each lease was that has ended, and each removal; those of URLs that have no value
        are left out."""
        eventually(lambda: self.redis.call("KEYS", "weir:l:*") == [])
        self.redis.call("PUBLISH", "over", "")
        assert self.over.wait(TIMEOUT)
        self.socket.close()
        urls = {}
        for name in self.redis.call("KEYS", "weir:o:*"):
            key = re.search(r"http://%s(/m/\d+)" % HOST, self.redis.call("GET", name))
            urls[name[len("weir:o:"):]] = key[1]
        return ([Lease(urls[name], end) for name, end in self.leases if name in urls]
                + [Removal(urls[name], "deleted") for name in self.removed if name in urls])


# ---- the fleet -------------------------------------------------------------------------------

class Fleet:
    """Instances, each with its own door to the origin; readers at all of them that go on to new URLs
    together; and a trap for a fetch: the next one waits, and who made it is known."""

    def __init__(self, weir, origins, urls, random):
        self.random, self.history, self.newest = random, [], 0
        self.lock, self.ending, self.failures = threading.Lock(), threading.Event(), []
        self.trap = None                # an Event: set when there is who fell into it
        self.caught, self.release = None, None
        self.instances = []
        for i, url in enumerate(urls):
            door = origins()
            door.on("*", lambda req, conn, i=i: self.answer(i, req, conn))
            self.instances.append(weir(
                origins={"api": {"servers": [door.url]}},
                cache={"redis": {"url": url, "timeout": "%gs" % ASK}}))
        self.recovered()

    def answer(self, i, req, conn):
        self.history.append(Fetch("ABC"[i], req.path, time.monotonic()))
        release = None
        with self.lock:
            if self.trap is not None:
                self.caught, release = i, self.release
                self.trap.set()
                self.trap = None
        dice = chances.random()
        if release is not None:
            release.wait(10 * TIMEOUT)
        elif dice < 0.2:
            time.sleep(0.03 if dice < 0.19 else LEASE + 0.3)
        conn.respond(200, [("Cache-Control", "max-age=3600")], req.path.encode())

    def one_read(self, i, random, held):
        if random.random() < 0.1:
            self.newest += 1
        self.read(i, "/m/%d" % max(0, self.newest - random.choice([0, 0, 0, 1, 2, 9])), held)
        time.sleep(random.uniform(0, 0.03))

    def read(self, i, url, held):
        start = time.monotonic()
        try:
            held[0] = held[0] or Client(self.instances[i].port, HOST)
            r = held[0].get(url)
        except (OSError, Closed):       # a kill
            if held[0] is not None:
                held[0].close()
            held[0] = None
            time.sleep(0.01)
            return
        assert (r.status, r.body) == (200, url.encode()), (r, r.body)
        self.history.append(Read("ABC"[i], url, start, time.monotonic(), 1,
                                 "hit" if r.cache_status.hit else FETCHED))

    def reader(self, i, random):
        held = [None]
        try:
            while not self.ending.is_set():
                self.one_read(i, random, held)
        except Exception as e:                   # the test raises it
            self.failures.append(e)

    def start(self):
        self.threads = [threading.Thread(
            target=self.reader, args=(i, chances.Random(self.random.random())), daemon=True)
            for i in range(INSTANCES) for _ in range(3)]
        for t in self.threads:
            t.start()

    def recovered(self):
        def well(w):
            stats = w.stats()
            tier = stats["tiers"]["redis"]
            return stats["bus"]["lease"] == "held" and not tier["loading"] and not tier["failing"]
        for w in self.instances:
            eventually(lambda w=w: well(w), timeout=30 * SLOW, message="not well:\n" + w.log()[-2000:])

    def begin_anew(self, some):
        """A process to which Redis failed may hear of that only now; and of what it could not remove
        there it is in doubt, with all that shares a cell with that, for as long as values live."""
        for w in some:
            w.kill()
            w.start()
        self.recovered()

    def disturb(self, what, who, do):
        """While a fetch is under way, do(i) is done to who made it; or to Redis. It returns what
        undoes it."""
        self.release = threading.Event()
        with self.lock:
            self.trap = trap = threading.Event()
        assert trap.wait(TIMEOUT)
        i, start = self.caught, time.monotonic()
        undo = do(i)
        time.sleep(self.random.uniform(0.1, 0.5) * LEASE)
        if self.random.random() < 0.5:
            self.release.set()          # the answer comes while there is a fault
        time.sleep(self.random.uniform(0.1, 0.9) * LEASE)
        undo()
        self.recovered()
        self.begin_anew(self.instances if who else [self.instances[i]])
        self.history.append(Fault(what, [who or "ABC"[i]], start, time.monotonic()))
        self.release.set()

    def end(self):
        self.ending.set()
        if self.release is not None:
            self.release.set()
        for t in self.threads:
            t.join(30 * SLOW)
        for failure in self.failures:
            raise failure
        for i in range(INSTANCES):      # what one has alone, the others miss still
            held = [None]
            for n in range(self.newest + 1):
                self.read(i, "/m/%d" % n, held)


def judge(fleet, told_by_redis):
    history = fleet.history + told_by_redis
    found = excesses(history, INSTANCES)
    told = "\n".join("%s: fetched by %s; leases: %s; without Redis: %d" % (
        e.url, ", ".join("%s at %.3f" % f[::2] for f in e.fetches),
        ", ".join(lease.end for lease in e.leases), len(e.alone)) for e in found)
    urls = {f.url for f in history if isinstance(f, Fetch)}
    plain = excesses([o for o in history if isinstance(o, Fetch)], INSTANCES)
    print("%d misses of the fleet, %d of them fetched more than once; %r" % (
        len(urls), len(plain), kinds(history)))
    assert not found, "%s\n%r\n%s" % (
        told, [o for o in history if isinstance(o, Fault)],
        "\n".join(w.log()[-2000:] for w in fleet.instances))
    assert len(urls) - len(plain) > MISSES / 2 < kinds(told_by_redis)["lease " + ANSWERED]


def run(weir, origins, redis, urls, faults):
    random = kit.chance()
    fleet = Fleet(weir, origins, urls, random)
    listener = Listener(redis)
    fleet.start()
    try:
        for _ in range(ROUNDS):
            for what, who, do in random.sample(faults(fleet), len(faults(fleet))):
                fleet.disturb(what, who, do)
            enough = fleet.newest + MISSES
            eventually(lambda: fleet.newest >= enough or fleet.failures, timeout=3 * TIMEOUT)
    finally:
        fleet.end()
    told_by_redis = listener.end()
    judge(fleet, told_by_redis)
    return kinds(told_by_redis)


def kill(w):
    w.kill()
    return w.start


def pause(process):
    process.pause()
    return process.resume


def test_a_miss_is_fetched_once_by_a_fleet_whose_fetchers_die_and_stand_still(weir, origins, redis):
    ends = run(weir, origins, redis, [redis.url] * INSTANCES, lambda fleet: [
        ("killed", None, lambda i: kill(fleet.instances[i])),
        ("stopped", None, lambda i: pause(fleet.instances[i])),
        ("stopped", REDIS, lambda i: pause(redis))])
    assert ends["lease " + EXPIRED]     # of who was killed at least


def test_a_miss_is_fetched_once_by_a_fleet_whose_cables_are_cut_one_sidedly(weir, origins, cut_off):
    redis, net = cut_off

    def cut(i, to_redis):
        net.cables[i].cut(to_redis)
        return net.cables[i].mend
    run(weir, origins, redis,
        ["redis://%s:%d" % (net.cables[i].there, redis.port) for i in range(INSTANCES)],
        lambda fleet: [("deaf", None, lambda i: cut(i, to_redis=False)),
                       ("mute", None, lambda i: cut(i, to_redis=True))])
