"""Three instances that share a Redis, clients at all of them, and faults: no answer is older than a
purge that was in force when it was asked for. history.py states it, and judges."""
import contextlib
import os
import random as chances
import threading
import time

import kit
from harness import SLOW, Client, Closed, eventually
from history import (COLLAPSED, DONE, FETCHED, MISSING, REDIS, UNKNOWN, WAITING, WRITTEN, Change,
                     Fault, Read, kinds, story, violations)

LEASE = 1.0 * SLOW
OPERATIONS = 50000 if os.environ.get("WEIR_LONG") else 5000     # for each of two networks
INSTANCES = 3
HOST = "shop.test"
URLS = ["/%s/%d" % (group, n) for group in "ab" for n in range(4)]
ROUTES = [{"path": "/%s/{id}" % group, "name": group, "tags": ["t{id}"]} for group in "ab"]


# ---- the checker: what it lets pass and what not ---------------------------------------------

def purge(outcome, at, instance="A", version=2, life=0, what="purge"):
    return Change(what, instance, life, {"/u": version}, at - 0.1, at, outcome)


def read(version, at, instance="B"):
    return Read(instance, "/u", at, at + 0.1, version, "hit")


def wrong(*history):
    return [v.read for v in violations(history, lease=2.0, grace=1.0)]


def test_an_old_answer_that_was_asked_for_after_a_purge_was_done_is_wrong():
    late = read(1, 5.01)
    assert wrong(purge(DONE, 5.0), late) == [late]
    assert wrong(late, purge(DONE, 5.0)) == [late]                  # in whatever order it is told
    assert wrong(purge(DONE, 5.0), read(1, 4.99), read(2, 6.0), read(3, 6.0)) == []
    assert wrong(purge(DONE, 5.0), read(1, 5.0)) == []              # not later


def test_a_newer_purge_counts_even_when_an_older_one_was_answered_after_it():
    late = read(2, 7.0)
    assert wrong(purge(DONE, 5.0, version=3), purge(DONE, 6.0, version=2), late) == [late]


def test_where_instances_were_missing_the_lease_counts():
    late = read(1, 7.1)
    assert wrong(purge(MISSING, 5.0), read(1, 6.9)) == []
    assert wrong(purge(MISSING, 5.0), late) == [late]


def test_at_home_a_purge_and_a_write_count_at_once():
    for outcome in (DONE, MISSING, WAITING, WRITTEN):
        late = read(1, 5.1, "A")
        assert wrong(purge(outcome, 5.0), late) == [late]
    assert wrong(purge(UNKNOWN, 5.0), read(1, 9.0, "A")) == []


def test_what_may_not_be_in_redis_when_its_process_ends_counts_for_the_same_life_alone():
    for who, outcome, counts, with_disk in (
            ("A", WAITING, False, False), (REDIS, WAITING, False, True), ("B", WAITING, True, True),
            ("A", WRITTEN, False, False), (REDIS, WRITTEN, False, True),
            ("A", MISSING, True, True), (REDIS, MISSING, False, True)):
        history = [purge(outcome, 5.0), Fault("killed", [who], 5.5, 8.0)]
        late = read(1, 6.9, "A")
        assert wrong(*history, late) == [late]
        late = late._replace(life=1)
        assert wrong(*history, late) == [late] * counts, (who, outcome)
        assert [v.read for v in violations([*history, late], lease=2.0, disks="A")] == (
            [late] * with_disk), (who, outcome)
    assert wrong(purge(WAITING, 5.0), Fault("killed", ["A"], 6.5, 8.0), late) == [late]


def test_what_waits_counts_elsewhere_when_a_later_purge_of_the_same_life_does():
    late = read(1, 30.0)
    assert wrong(purge(WAITING, 5.0), late) == []
    after = Change("purge", "A", 0, {"/v": 2}, 8.0, 9.0, DONE)
    assert wrong(purge(WAITING, 5.0), after, late) == [late]
    assert wrong(purge(WAITING, 5.0), after, read(1, 8.9)) == []
    assert wrong(purge(WAITING, 5.0), after._replace(life=1), late) == []
    assert wrong(purge(WAITING, 5.0), after._replace(instance="B"), late) == []
    assert wrong(purge(WAITING, 5.0), after._replace(start=4.9), late) == []
    missing = after._replace(outcome=MISSING)
    assert wrong(purge(WAITING, 5.0), missing, read(1, 10.9)) == []
    assert wrong(purge(WAITING, 5.0), missing, late) == [late]


def test_a_write_counts_elsewhere_after_the_lease_unless_its_instance_or_redis_had_a_fault():
    late = read(1, 8.1)
    assert wrong(purge(WRITTEN, 5.0), read(1, 7.9)) == []
    assert wrong(purge(WRITTEN, 5.0), late) == [late]
    for who, counts in (("A", False), (REDIS, False), ("B", True), ("C", True)):
        assert wrong(purge(WRITTEN, 5.0), Fault("stop", [who], 6.0, 9.0), late) == [late] * counts
    assert wrong(purge(WRITTEN, 5.0), Fault("stop", ["A"], 1.0, 4.0), late) == [late]
    assert wrong(purge(WRITTEN, 5.0), Fault("stop", ["A"], 8.5, 9.0), late) == [late]


def test_who_shares_an_older_question_may_have_its_answer_while_there_is_a_fault():
    older = Read("B", "/u", 4.9, 5.5, 1, FETCHED)
    late = Read("B", "/u", 5.1, 5.5, 1, COLLAPSED)
    fault = Fault("stop", [REDIS], 5.0, 6.0)
    assert wrong(purge(DONE, 5.0), older, late) == [late]
    assert wrong(purge(DONE, 5.0), older, late, fault) == []
    assert wrong(purge(DONE, 5.0), late, fault) == [late]           # nobody asked before
    assert wrong(purge(DONE, 5.0), older._replace(instance="A"), late, fault) == [late]
    assert wrong(purge(DONE, 4.8), older, late, fault) == [older, late]
    assert wrong(purge(DONE, 5.0), older, late._replace(kind="hit"), fault) == [
        late._replace(kind="hit")]
    assert wrong(purge(DONE, 5.0, "B"), older, late, fault) == [late]       # at home


def test_urls_and_instances_are_told_apart():
    other = Change("purge", "A", 0, {"/v": 9}, 4.0, 5.0, DONE)
    assert wrong(other, read(1, 6.0)) == []
    assert wrong(purge(WAITING, 5.0), read(1, 6.0, "B")) == []


def test_a_violation_is_told_with_what_led_to_it():
    history = [purge(DONE, 5.0), read(1, 6.0), Fault("stop", ["B"], 5.5, 7.0)]
    text = story(history, violations(history, 2.0)[0])
    assert "B gave version 1 of /u" in text and "fault: stop B" in text and text.count("=>") == 2


# ---- the clients -----------------------------------------------------------------------------

class Fleet:
    """The instances, the versions that the origin has, and the history."""

    def __init__(self, instances, origin, random):
        self.instances, self.random = instances, random
        self.lives = [0] * len(instances)
        self.versions = dict.fromkeys(URLS, 1)
        self.lock = threading.Lock()
        self.history = []
        self.ending = threading.Event()
        self.failures = []
        origin.on("*", self.answer)

    def changed(self, urls):
        """The origin's state changes; the versions from now on."""
        with self.lock:
            for url in urls:
                self.versions[url] += 1
            return {url: self.versions[url] for url in urls}

    def answer(self, req, conn):
        if req.method == "PUT":
            version = self.changed([req.path])[req.path]
            conn.respond(200, [("X-Version", str(version))], b"done")
            return
        version = self.versions[req.path]
        etag = '"%d"' % version
        dice = chances.random()
        if dice < 0.1:                           # purges come meanwhile
            time.sleep(0.03 if dice < 0.09 else 0.3)
        conn.respond(304 if req.header("If-None-Match") == etag else 200,
                     [("Cache-Control", "max-age=600"), ("ETag", etag),
                      ("Cache-Groups", '"g%s"' % req.path[1])],
                     b"" if req.header("If-None-Match") == etag else b"%d" % version)

    def name(self, i):
        return "ABC"[i]

    def until_the_end(self, step, *args):
        try:
            while not self.ending.is_set():
                step(*args)
        except Exception as e:                   # the test raises it
            self.failures.append(e)

    def one_read(self, i, random, held):
        url = random.choice(URLS)
        start = time.monotonic()
        try:
            if held[0] is None:
                held[0] = Client(self.instances[i].port, HOST)
            r = held[0].get(url)
        except (OSError, Closed):                # a kill
            if held[0] is not None:
                held[0].close()
            held[0] = None
            time.sleep(0.01)
            return
        assert r.status == 200, (r, r.body)
        status = r.cache_status
        self.history.append(Read(self.name(i), url, start, time.monotonic(), int(r.body),
                                 "hit" if status.hit and not status.detail else
                                 "hit, " + status.detail if status.hit else COLLAPSED if status.collapsed
                                 else "%s, %s" % (FETCHED, status.fwd), self.lives[i]))
        time.sleep(random.uniform(0, 0.03))

    def one_change(self, i, random):
        life = self.lives[i]
        start = time.monotonic()
        with contextlib.suppress(OSError, Closed):
            change = self.write if random.random() < 0.4 else self.purge
            what, versions, outcome = change(self.instances[i], random)
            self.history.append(Change(what, self.name(i), life, versions, start, time.monotonic(),
                                       outcome))
        time.sleep(random.uniform(0, 0.06))

    def write(self, w, random):
        url = random.choice(URLS)
        r = w.request("PUT", url, [("Host", HOST)], b"new")
        assert r.status == 200, (r, r.body)
        return "write", {url: int(r.header("X-Version"))}, WRITTEN

    def purge(self, w, random):
        one, group, n = random.choice(URLS), random.choice("ab"), random.randrange(4)
        of_group = [u for u in URLS if u[1] == group]
        base = "http://" + HOST
        what, urls = random.choice([
            ({"url": base + one}, [one]), ({"url": base + one}, [one]),
            ({"tags": ["t%d" % n]}, [u for u in URLS if u.endswith(str(n))]),
            ({"prefix": "%s/%s/" % (base, group)}, of_group), ({"pattern": "/%s/*" % group}, of_group),
            ({"groups": ["g" + group], "origin": base}, of_group),
            ({"route": [group]}, of_group), ({"all": True}, URLS)])
        soft = random.random() < 0.3
        versions = self.changed(urls)
        r = w.api("POST", "/purge", {**what, "soft": soft, "wait": random.choice([0, 50, 500])})
        assert r.status in (200, 202), (r, r.body)
        answer = r.json()
        assert (r.status == 200) == answer["done"], r.body
        outcome = DONE if r.status == 200 else MISSING if answer.get("missing") else WAITING
        return "%spurge of %r" % ("soft " * soft, what), versions, outcome

    def threads(self):
        for i in range(len(self.instances)):
            for _ in range(2):
                random = chances.Random(self.random.random())
                yield threading.Thread(
                    target=self.until_the_end, args=(self.one_read, i, random, [None]), daemon=True)
            random = chances.Random(self.random.random())
            yield threading.Thread(
                target=self.until_the_end, args=(self.one_change, i, random), daemon=True)

    def recovered(self):
        for w in self.instances:
            def well(w=w):
                bus = w.stats()["bus"]
                return bus["lease"] == "held" and bus["waiting"] == 0
            eventually(well, timeout=30 * SLOW, message="no lease:\n" + w.log()[-2000:])


# ---- faults ----------------------------------------------------------------------------------

def stop_instance(fleet, i):
    fleet.instances[i].pause()
    return fleet.instances[i].resume


def kill_instance(fleet, i):
    w = fleet.instances[i]
    fleet.lives[i] += 1                          # what is under way now is of neither life
    w.kill()
    fleet.lives[i] += 1
    return w.start


def cut_instance(cable, to_redis):
    cable.cut(to_redis)
    return cable.mend


def faults_of(fleet, redis, net):
    """{target: [(name, a function that does it and returns what undoes it), ...]}"""
    found = {REDIS: [
        ("stopped", lambda: (redis.pause(), redis.resume)[1]),
        ("killed", lambda: (redis.kill(), redis.start)[1]),
        ("emptied", lambda: (redis.kill(), lambda: redis.start(empty=True))[1])]}
    for i in range(len(fleet.instances)):
        found[fleet.name(i)] = [
            ("stopped", lambda i=i: stop_instance(fleet, i)),
            ("killed", lambda i=i: kill_instance(fleet, i))]
        if net is not None:
            cable = net.cables[i]
            found[fleet.name(i)] += 2 * [
                ("deaf", lambda c=cable: cut_instance(c, to_redis=False)),
                ("mute", lambda c=cable: cut_instance(c, to_redis=True))]
    return found


def disturb(fleet, faults):
    """One or two faults at once, for up to a lease and a half; then a while without any."""
    random = fleet.random
    who = random.sample(sorted(faults), random.choice([1, 1, 2]))
    start, undo, names = time.monotonic(), [], []
    try:
        for target in who:
            name, do = random.choice(faults[target])
            names.append(name)
            undo.append(do())
            time.sleep(random.uniform(0, 0.3) * LEASE)
        time.sleep(random.uniform(0, 1.5) * LEASE)
    finally:
        random.shuffle(undo)
        for heal in undo:
            heal()
    fleet.recovered()
    fleet.history.append(Fault(" and ".join(names), who, start, time.monotonic()))
    time.sleep(random.choice([0, 0, 0.2, 2.5]) * LEASE)


def run(weir, origin, redis, net):
    random = kit.chance()
    urls = ["redis://%s:%d" % (net.cables[i].there if net else redis.host, redis.port)
            for i in range(INSTANCES)]
    # Two have a disk as well: they come back from a kill with what they had.
    disk = {"disk": {"path": "cache", "size": "16MiB"}}
    instances = [weir(routes=ROUTES, cache={"redis": {"url": url, "lease": "%gs" % LEASE},
                                            **(disk if i else {})}) for i, url in enumerate(urls)]
    fleet = Fleet(instances, origin, random)
    fleet.recovered()
    faults = faults_of(fleet, redis, net)
    threads = list(fleet.threads())
    for t in threads:
        t.start()
    try:
        while len(fleet.history) < OPERATIONS and not fleet.failures:
            disturb(fleet, faults)
    finally:
        fleet.ending.set()
        for t in threads:
            t.join(30 * SLOW)
    for failure in fleet.failures:
        raise failure
    found = violations(fleet.history, LEASE, grace=SLOW, disks="BC")
    count = kinds(fleet.history)
    print(len(fleet.history), "operations:", count)
    assert not found, "%d answers are too old\n%s" % (
        len(found), "\n\n".join(story(fleet.history, v) for v in found[:3]))
    assert count["read hit"] and count["change done"]


def test_no_answer_is_older_than_a_purge_that_was_in_force(weir, origin, redis):
    run(weir, origin, redis, None)


def test_no_answer_is_older_than_a_purge_that_was_in_force_where_cables_are_cut_one_sidedly(
        weir, origin, cut_off):
    run(weir, origin, *cut_off)
