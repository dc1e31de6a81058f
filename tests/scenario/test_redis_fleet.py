"""Whole instances on Redis as it is run where it must not fail: a cluster of three masters with a
replica each, of which a master dies and slots move. (Sentinel: test_bus.py)"""
import re
import threading

import pytest

from harness import SLOW, Cluster, eventually

HOST = [("Host", "shop.test")]
FRESH = ("Cache-Control", "max-age=600")
TIMEOUT_MS = int(500 * min(SLOW, 4))


@pytest.fixture
def cluster(tmp_path):
    directory = tmp_path / "cluster"
    directory.mkdir()
    made = Cluster(str(directory), masters=3, replicas=1)
    yield made
    made.end()


class Fleet:
    """Instances in front of an origin whose answers have versions."""

    def __init__(self, weir, origin, urls, n=3, **options):
        self.origin, self.versions, self.lock = origin, {}, threading.Lock()
        origin.on("*", self.answer)
        options = {"url": urls, "timeout": "%dms" % TIMEOUT_MS, "lease": "2s", **options}
        # One worker each: every worker finds out for itself who serves which slots.
        self.instances = [weir(workers=1, cache={"redis": options}) for _ in range(n)]
        self.hold()

    def answer(self, req, conn):
        with self.lock:
            n = self.versions[req.path] = self.versions.get(req.path, 0) + 1
        conn.respond(200, [FRESH], b"%s v%d" % (req.path.encode(), n))

    def hold(self):
        def well(w):
            stats = w.stats()
            return stats["bus"]["lease"] == "held" and not stats["tiers"]["redis"]["loading"]
        for w in self.instances:
            eventually(lambda w=w: well(w), timeout=20 * SLOW)

    def has(self, i, paths):
        """In memory, or in Redis, which it can ask then."""
        only = HOST + [("Cache-Control", "only-if-cached")]
        return all(self.instances[i].get(path, only).status == 200 for path in paths)

    def get(self, i, path):
        r = self.instances[i].get(path, HOST)
        assert r.status == 200 and r.body.startswith(path.encode() + b" v"), (r, r.body)
        return r

    def store(self, i, paths):
        before = self.metric(i, "weir_redis_stores_total")
        for path in paths:
            self.get(i, path)
        eventually(lambda: self.metric(i, "weir_redis_stores_total") >= before + len(paths))

    def metric(self, i, name, **labels):
        return self.instances[i].metric(name, **labels)

    def purge(self, i, **what):
        """Until everybody has applied it."""
        w = self.instances[i]
        answer = w.purge(**what)
        eventually(lambda: answer["done"] or w.api("GET", "/purge/" + answer["id"]).json()["done"],
                   timeout=20 * SLOW)

    def is_one_cache(self, prefix):
        """Missed by all at once, each is fetched once; shared; and gone everywhere after a purge."""
        paths = ["/%s/%d" % (prefix, n) for n in range(8)]
        bodies = self.instances[0].parallel(24, lambda i: self.get(i % 3, paths[i // 3]).body)
        assert bodies == [b"%s v1" % paths[i // 3].encode() for i in range(24)]
        assert [self.origin.count(path) for path in paths] == [1] * 8
        self.purge(1, prefix="http://shop.test/%s/" % prefix)
        assert {self.get(i, paths[0]).body for i in range(3)} == {b"%s v2" % paths[0].encode()}


def is_replicated(cluster):
    """Each replica has what its master has."""
    def offsets(s):
        role = s.call("ROLE")
        return role[1] if role[0] == "master" else role[3:]
    masters = {s.port: offsets(s) for s in cluster.masters()}
    return all(offsets(s) == ["connected", masters[s.call("ROLE")[2]]]
               for s in cluster.servers if s.call("ROLE")[0] != "master")


def test_a_cluster_whose_master_dies_and_whose_slots_move_is_one_cache_all_the_time(
        weir, origin, cluster):
    fleet = Fleet(weir, origin, cluster.urls[:3], cluster=True)
    fleet.is_one_cache("first")

    # A master dies, that of the purges: nobody's request fails, and its replica has all that it had.
    kept = ["/kept/%d" % n for n in range(48)]
    fleet.store(0, kept[:24])
    fleet.store(1, kept[24:])
    fleet.purge(0, url="http://shop.test/none")
    eventually(lambda: is_replicated(cluster))
    cluster.master("weir:purges").kill()
    n = 0
    while cluster.master("weir:purges") is None:
        fleet.get(n % 3, "/meanwhile/%d" % (n % 6))
        n += 1
    fleet.hold()
    for i in range(3):
        eventually(lambda: fleet.has(i, kept), timeout=20 * SLOW)
    fleet.is_one_cache("second")
    assert not any(w.log_has("Redis lost") for w in fleet.instances)

    # Slots move: that of the purges, and that of a value, which is asked for in the middle of it.
    failures = [fleet.metric(i, "weir_redis_failures_total", cause="cluster") for i in range(3)]
    moved = ["/moved/%d" % n for n in range(16)]
    fleet.store(0, moved)
    source = cluster.master("weir:purges")
    target = next(s for s in cluster.masters() if s is not source)
    cluster.move(source.call("CLUSTER", "KEYSLOT", "weir:purges"), source, target,
                 lambda: fleet.purge(0, url="http://shop.test/kept/0"))
    key, path = next((key, path) for key in source.call("KEYS", "weir:o:*") for path in moved
                     if re.search(r"shop\.test%s\D" % path, source.call("GET", key)))
    cluster.move(source.call("CLUSTER", "KEYSLOT", key), source, target,
                 lambda: fleet.has(1, [path]) or pytest.fail("it is not found on its way"))
    assert all(fleet.has(2, [path]) for path in moved)
    fleet.is_one_cache("third")
    assert failures == [
        fleet.metric(i, "weir_redis_failures_total", cause="cluster") for i in range(3)]
    assert not any(w.log_has("Redis lost") for w in fleet.instances)
    assert [fleet.get(i, kept[0]).body for i in range(3)] == [b"/kept/0 v2"] * 3
    assert [origin.count(path) for path in kept + moved] == [2] + [1] * 63
