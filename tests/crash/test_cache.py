"""kill -9 at any moment, with a disk tier: it opens again, what it gives back is whole, and nothing that
was purged before is among it."""
import threading
import time

import kit
from harness import SLOW, Client, Closed

ROUNDS = 60 if SLOW == 1.0 else 8
N = 40                                           # resources, in groups, under tags and prefixes of 4


def text(n, version):
    """Of a length that differs by resource and version, and says in every part what it is."""
    return b"resource %d version %d;" % (n, version) * (1 + n * 37 % 400 + version % 5)


class Resources:
    """The origin's; `floor` is the version that each had when the last purge of it had returned."""

    def __init__(self, origin):
        self.version, self.floor = [1] * N, [1] * N
        self.wrong, self.stop = [], threading.Event()
        self.disk = self.hits = 0
        origin.on("*", self)

    def __call__(self, req, conn):
        n = int(req.path.rsplit("/", 1)[1])
        conn.respond(200, [("Cache-Control", "max-age=600"), ("Cache-Groups", '"g%d"' % (n // 4))],
                     text(n, self.version[n]))

    def path(self, n):
        return "/p/%d/%d" % (n // 4, n)

    def read(self, w, random):
        while not self.stop.is_set():
            n = random.randrange(N)
            least = self.floor[n]
            try:
                with Client(w.port) as c:
                    r = c.get(self.path(n))
            except (OSError, Closed, AssertionError):
                continue                         # between a kill and the next start
            if r.status != 200:
                continue
            version = int(r.body.split(b";")[0].split()[-1])
            self.hits += r.cache_status.hit
            self.disk += r.cache_status.detail == "DISK"
            if version < least or r.body != text(n, version):
                self.wrong.append((n, least, version, len(r.body), r.cache_status))

    def purge(self, w, random):
        """Changes some, and purges them in one of the ways there are; they count once it returned."""
        group = random.randrange(N // 4)
        some = range(group * 4, group * 4 + 4)
        one = random.choice(some)
        what, changed = random.choice([
            ({"url": w.url + self.path(one)}, [one]), ({"tags": ["t%d" % one]}, [one]),
            ({"prefix": "%s/p/%d/" % (w.url, group)}, some), ({"pattern": "/p/%d/*" % group}, some),
            ({"groups": ["g%d" % group]}, some),
            *([({"all": True}, range(N)), ({"route": "all"}, range(N))]
              if random.random() < 0.05 else []),
        ])
        for n in changed:
            self.version[n] += 1
        then = {n: self.version[n] for n in changed}
        w.purge(soft=random.random() < 0.3, **what)
        for n in changed:
            self.floor[n] = then[n]


def test_nothing_comes_back_that_was_purged_before_any_of_sixty_kills(origin, weir):
    random = kit.chance()
    it = Resources(origin)
    w = weir(cache={"memory": "1MiB", "disk": {"path": "cache", "size": "16MiB"}},
             routes=[{"path": "/p/{group}/{id}", "name": "all", "tags": ["t{id}"]}])
    readers = [threading.Thread(target=it.read, args=(w, kit.chance())) for _ in range(3)]
    for t in readers:
        t.start()
    try:
        for _ in range(ROUNDS):
            until = time.monotonic() + random.uniform(0, 0.3) * SLOW    # the moment is what is tried
            while time.monotonic() < until:
                it.purge(w, random)
                time.sleep(random.uniform(0, 0.02))
            w.kill()
            w.start()
            assert not it.wrong, it.wrong
    finally:
        it.stop.set()
        for t in readers:
            t.join(30 * SLOW)
    assert not it.wrong, it.wrong
    assert w.stop() == 0
    w.start()
    for n in range(N):
        assert w.get(it.path(n)).body in {text(n, v) for v in range(it.floor[n], it.version[n] + 1)}
    print("%d kills, %d hits, %d of them from disk, %d versions" % (
        ROUNDS, it.hits, it.disk, sum(it.version)))
    assert it.disk > ROUNDS
