"""What the crash tests share: writers that never give up, a ledger of what the origin took, and the
questions that are asked of the two together.

    writers  one for each key: it sends number 0, 1, 2 ... one after the other, and the same number
             under the same Idempotency-Key again until it is acknowledged, whatever happens between
    ledger   every request as it came, in order, with what the origin made of it

Randomness comes from chance(), whose seed is printed: WEIR_SEED=N repeats a run's choices (what the
kernel makes of them differs).
"""
import contextlib
import json
import os
import random
import re
import socket
import threading
import time

from harness import SLOW, Client, Closed, eventually

DRAINED = 120.0 * SLOW                           # for what waits to be delivered


def chance():
    seed = int(os.environ.get("WEIR_SEED") or random.randrange(1 << 32))
    print("WEIR_SEED=%d" % seed)
    return random.Random(seed)


def write(more=None):
    """A route's `write`, with waits that suit a test."""
    return {"backoff": {"min": "20ms", "max": "100ms"}, **(more or {})}


# ---- the origin's side -----------------------------------------------------------------------

class Delivery:
    """One request as it came, and what was made of it."""

    def __init__(self, req):
        self.method, self.path, self.body = req.method, req.path, req.body
        self.key, self.accepted = req.header("Idempotency-Key"), req.header("X-Weir-Accepted")
        self.fence = req.header("X-Weir-Fence")  # in a fleet
        self.at = time.monotonic()
        self.taken = True

    def __repr__(self):
        return "<%s %s %r taken=%s>" % (self.method, self.path, self.body[:40], self.taken)


class Ledger:
    """The handler of an origin's requests. `mood`, when set, decides first: mood(delivery) returns
    what answers (a function of conn) or None, and sets delivery.taken to whether the origin does
    the write, whatever becomes of the answer."""

    def __init__(self, origin):
        self.origin = origin
        self.deliveries = []                     # in the order in which they came
        self.bodies = {}                         # path -> the different ones that were taken
        self.mood = None
        self.lock = threading.Lock()

    def __call__(self, req, conn):
        if req.method == "GET":                  # what a delivered write changed is read again
            conn.respond(404)
            return
        delivery = Delivery(req)
        mood = self.mood
        with self.lock:
            reply = mood(delivery) if mood else None
            self.deliveries.append(delivery)
            if delivery.taken:
                self.bodies.setdefault(delivery.path, set()).add(delivery.body)
        if reply:
            reply(conn)
        else:
            conn.respond(200, body=b"done\n")

    def all(self):
        with self.lock:
            return list(self.deliveries)

    def taken(self, path=None):
        return [d for d in self.all() if d.taken and path in (None, d.path)]

    def count(self, path=None):
        """How many different writes were taken."""
        with self.lock:
            return sum(len(b) for p, b in self.bodies.items() if path in (None, p))

    def idle(self):
        """Waits until whatever was sent by a process that is gone has been read."""
        self.origin.idle()

    def go_away(self):
        """The origin stops listening and ends what is open."""
        self.origin.stop()
        self.idle()

    def come_back(self, origins):
        """Another process of the same origin, so to say, at the same address."""
        self.origin = origins(again=self.origin)


# ---- the clients' side -----------------------------------------------------------------------

class Writer(threading.Thread):
    """Sends /PATH number after number until it is told to stop; then the last one is acknowledged
    too. It keeps `ahead` of what the origin took at most."""

    def __init__(self, w, ledger, name, method="POST", ahead=1000):
        super().__init__(daemon=True)
        self.port, self.ledger, self.name, self.method = w.port, ledger, name, method
        self.path, self.ahead = "/" + name, ahead
        self.host = None
        self.acknowledged = 0                    # numbers 0 .. are
        self.repeated = self.refused = 0
        self.failure = None
        self.ending = threading.Event()
        self.client = None
        self.locations = {}                      # number -> Location of its acknowledgement

    def body(self, number):
        return b'{"key":"%s","number":%d}' % (self.name.encode(), number)

    def key(self, number):
        return '"%s-%d"' % (self.name, number)

    def send(self, number):
        """The answer, or None when the connection broke."""
        try:
            if self.client is None:
                self.client = Client(self.port, self.host)
            return self.client.request(self.method, self.path, [
                ("Idempotency-Key", self.key(number)), ("Content-Type", "application/json")],
                self.body(number))
        except (OSError, Closed):
            self.hang_up()
            return None

    def hang_up(self):
        if self.client is not None:
            self.client.close()
        self.client = None

    def accepted(self, number, r):
        """Is it acknowledged? What is repeated must be told what it was told before."""
        if r.status == 202:
            location = r.header("Location")
            assert self.locations.setdefault(number, location) == location, (number, location)
            return True
        if r.status == 200:                      # delivered meanwhile: the origin's own answer
            assert r.body == b"done\n", r.body
            return True
        self.refused += 1
        assert r.status in (409, 503), (self, number, r, r.body)
        return False

    def write(self, number):
        tries = 0
        while True:
            r = self.send(number)
            if r is not None and self.accepted(number, r):
                return
            tries += 1
            self.repeated += 1
            assert tries < 20000 * SLOW, "%s: number %d is never acknowledged: %r" % (
                self.name, number, r)
            time.sleep(0.002)                    # until there is somebody to connect to

    def run(self):
        try:
            while not self.ending.is_set():
                self.write(self.acknowledged)
                self.acknowledged += 1
                while (self.acknowledged - self.ledger.count(self.path) > self.ahead
                       and not self.ending.is_set()):
                    self.ending.wait(0.02)
        except Exception as e:                   # finish() raises it
            self.failure = e
        finally:
            self.hang_up()

    def ask_again(self, number):
        """What was acknowledged before gets the same answer."""
        r = eventually(lambda: self.send(number))
        assert self.accepted(number, r), r


def start(writers):
    for writer in writers:
        writer.start()


def finish(writers):
    for writer in writers:
        writer.ending.set()
    for writer in writers:
        writer.join(60 * SLOW)
        assert not writer.is_alive(), "%s does not end" % writer.name
        if writer.failure is not None:
            raise writer.failure


def crash(w, ledger, meanwhile=None):
    """kill -9 and a new start on the same journal."""
    w.kill()
    ledger.idle()
    if meanwhile:
        meanwhile()
    w.start()


# ---- the two together ------------------------------------------------------------------------

def number(body):
    return json.loads(body)["number"]


def drained(writers, ledger):
    """Waits until the origin took everything that was acknowledged."""
    def done():
        return all(ledger.count(writer.path) >= writer.acknowledged for writer in writers)
    with contextlib.suppress(AssertionError):
        eventually(done, timeout=DRAINED)
    for writer in writers:
        assert not missing(writer, ledger), "%s: acknowledged and not delivered: %r" % (
            writer.name, missing(writer, ledger))


def missing(writer, ledger):
    came = {number(body) for body in ledger.bodies.get(writer.path, ())}
    return sorted(set(range(writer.acknowledged)) - came)[:20]


def judge(writers, ledger):
    """Every acknowledged write is at the origin, in order, once but for repetitions that their
    Idempotency-Key tells, and nothing else is. Returns how many were repeated."""
    repeats = 0
    for writer in writers:
        came = [d for d in ledger.all() if d.path == writer.path]
        numbers = [number(d.body) for d in came if d.taken]
        assert set(numbers) >= set(range(writer.acknowledged)), missing(writer, ledger)
        for d in came:
            assert d.method == writer.method
            assert d.body == writer.body(number(d.body)), d         # as it was sent
            assert d.key == writer.key(number(d.body)), d           # once after de-duplication
            assert d.accepted is not None, d
        assert numbers == sorted(numbers), "%s: not in order: %r" % (writer.name, numbers)
        assert set(numbers) <= set(range(writer.acknowledged)), numbers[-5:]
        repeats += len(numbers) - len(set(numbers))
    assert {d.path for d in ledger.all()} <= {writer.path for writer in writers}
    return repeats


def whole_answer(w, path):
    r = w.api("GET", path)
    assert r.status in (200, 503), (r, r.body)
    return r if r.status == 200 else None        # else Redis was late


def writes(w, **query):
    """GET /writes of the admin port, page by page."""
    got, after = [], None
    while True:
        asked = {**query, "after": after} if after else query
        path = "/writes?" + "&".join("%s=%s" % pair for pair in asked.items())
        r = eventually(lambda: whole_answer(w, path))
        page = r.json()["writes"]
        if not page:
            return got
        got += page
        after = page[-1]["id"]


# ---- many, quickly ---------------------------------------------------------------------------

def flood(port, requests, connections=16, depth=50):
    """Sends whole requests as bytes, pipelined; returns the statuses in their order."""
    statuses = [None] * len(requests)

    def share(which):
        mine = range(which, len(requests), connections)
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.settimeout(30 * SLOW)
            buf = b""
            for first in range(0, len(mine), depth):
                batch = mine[first:first + depth]
                s.sendall(b"".join(requests[i] for i in batch))
                for i in batch:
                    status, buf = answer(s, buf)
                    statuses[i] = status
    threads = [threading.Thread(target=share, args=(i,)) for i in range(connections)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return statuses


def answer(s, buf):
    """The status of the answer that begins in buf, and what is behind it."""
    while True:
        head, end, rest = buf.partition(b"\r\n\r\n")
        if end:
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
            length = int(length[1]) if length else 0
            if len(rest) >= length:
                return int(head[9:12]), rest[length:]
        data = s.recv(65536)
        if not data:
            raise Closed("the connection ended", buf)
        buf += data


def post(path, body, fields=b""):
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (
        path.encode(), fields, len(body), body)
