"""What clients of a fleet saw, and whether they may have; what its origin was asked, and whether it had
to be.

A history is a list of operations, each with the moments at which its client began it and had its
end (one clock for all). Every URL has a version, which only grows; a change (a purge, or a write
through the data plane) makes that of some URLs at least so large before it is sent.

What is demanded of each answer: it is of no older version than
    at home       any change that the same instance had acknowledged before the answer's request began;
                  after a restart, if there was no fault when it did: of Redis, and of the instance
                  where it waited for Redis. Purges that wait when their process ends may be lost; with
                  a disk tier only those of the last moment, so there a fault of Redis is none
    everywhere    any change that was in force everywhere by then:
                  a purge that was answered 200, from its answer on;
                  one that was answered 202 because instances were missing, a lease later;
                  anything else that was acknowledged (202 while Redis was not heard, writes), when a
                  later purge at the same instance is: they go out in order. A write without any
                  fault at its instance or at Redis meanwhile: after the lease, and GRACE, which
                  is for machines that let processes wait.
It is not asked whether the answer was stored: a version is read at the origin after the request
came there, so what was fetched or validated for the client cannot be older, and what was fetched
for another before the change is as stale as what was stored. But an instance without a lease
lets questions be shared, and cannot know of purges meanwhile: so while there is a fault a collapsed
answer is judged, for what is in force everywhere, as asked for when the fetch was that it shares.

What is demanded of the fetches of a URL, whose response stays fresh: it is missed once, so there is
    one fetch for all instances,
    and one more for each lease that ended by itself, without a word of who held it,
    for each lease that was given up, one of each instance that may have waited for that,
    those of an instance that had no Redis to ask: between the read that led to the fetch and the
    fetch there was a fault, of it or of Redis,
    and for each of these at most one more when the value in Redis was removed: who fetched alone and
    does not know whether its own is there now takes away what may be older.
"""
import bisect
import collections

# life: the instance's number of starts
Read = collections.namedtuple("Read", "instance url start end version kind life", defaults=[0])
# versions: {url: version}; outcome: DONE ...
Change = collections.namedtuple("Change", "what instance life versions start end outcome")
# who: the instances, or REDIS, that it is done to, from its beginning until all was well again.
Fault = collections.namedtuple("Fault", "what who start end")
Violation = collections.namedtuple("Violation", "read change since")
Fetch = collections.namedtuple("Fetch", "instance url start")   # as it came to the origin
Lease = collections.namedtuple("Lease", "url end")              # in Redis, and how it ended
Removal = collections.namedtuple("Removal", "url what")         # of a value in Redis
Excess = collections.namedtuple("Excess", "url fetches leases alone")   # alone: those without Redis

DONE, MISSING, WAITING, WRITTEN = "done", "missing", "waiting", "written"
UNKNOWN = "unknown"                              # no answer came: it may have happened, or may yet
COLLAPSED, FETCHED = "collapsed", "fetched"      # kinds of answers (the latter: how it begins)
ANSWERED, EXPIRED, GIVEN_UP = "answered", "expired", "given up"         # ends of leases
REDIS = "redis"
GRACE = 1.0


class Floor:
    """The least version that is due at a moment: what add() said, whatever order it was said in."""

    def __init__(self):
        self.claims = []                         # (since, version, change)
        self.times, self.best = [], []

    def add(self, since, version, change):
        self.claims.append((since, version, change))

    def seal(self):
        self.claims.sort(key=lambda c: c[0])
        for claim in self.claims:
            self.times.append(claim[0])
            last = self.best[-1] if self.best else None
            self.best.append(claim if last is None or claim[1] > last[1] else last)

    def at(self, moment):
        """The claim that is largest of those from before the moment, or None."""
        i = bisect.bisect_left(self.times, moment)
        return self.best[i - 1] if i else None


def settled(changes, lease):
    """{(instance, life): ([start, ...], [the earliest that a purge begun then or later was in force
    everywhere, ...])}"""
    lives = collections.defaultdict(list)
    for c in changes:
        if c.outcome in (DONE, MISSING):
            lives[c.instance, c.life].append((c.start, c.end + (lease if c.outcome == MISSING else 0)))
    found = {}
    for life, reports in lives.items():
        reports.sort()
        times = [t for _, t in reports]
        for i in range(len(times) - 2, -1, -1):
            times[i] = min(times[i], times[i + 1])
        found[life] = [s for s, _ in reports], times
    return found


def everywhere(change, reports, faults, lease, grace):
    """From when on the change is in force at every instance, or None."""
    found = []
    if change.outcome in (DONE, MISSING):
        found.append(change.end + (lease if change.outcome == MISSING else 0))
    starts, times = reports.get((change.instance, change.life), ((), ()))
    i = bisect.bisect_left(starts, change.end)
    if i < len(times):
        found.append(times[i])
    until = change.end + lease + grace
    if change.outcome == WRITTEN and not overlap(its(faults, change.instance), change.start, until):
        found.append(until)
    return min(found, default=None)


def its(faults, instance):
    """Those that keep it from Redis."""
    return [f for f in faults if {instance, REDIS} & set(f.who)]


def overlap(faults, start, end):
    return any(f.start <= end and f.end >= start for f in faults)


def asked(read, fetches, faults):
    """From when on what is in force everywhere counts for it."""
    if read.kind != COLLAPSED:
        return read.start
    start = min((f.start for f in fetches[read.instance, read.url]
                 if f.start <= read.start <= f.end and f.version == read.version),
                default=read.start)
    return start if overlap(faults, start, read.end) else read.start


def stays(change, faults, grace, disk):
    """Does it outlive its process?"""
    who = {REDIS} if change.outcome in (DONE, MISSING) else {REDIS, change.instance}
    if disk:
        who.remove(REDIS)
    return not overlap([f for f in faults if who & set(f.who)], change.start, change.end + grace)


def violations(history, lease, grace=GRACE, disks=()):
    """The answers that are older than they may be. disks: the instances that have one."""
    changes = [o for o in history if isinstance(o, Change) and o.outcome != UNKNOWN]
    faults = [o for o in history if isinstance(o, Fault)]
    reports = settled(changes, lease)
    floors = collections.defaultdict(Floor)      # (instance, life; either None for all; url)
    for c in changes:
        since = everywhere(c, reports, faults, lease, grace)
        life = None if stays(c, faults, grace, c.instance in disks) else c.life
        for url, version in c.versions.items():
            floors[c.instance, life, url].add(c.end, version, c)
            if since is not None:
                floors[None, None, url].add(since, version, c)
    for floor in floors.values():
        floor.seal()
    fetches = collections.defaultdict(list)
    for r in history:
        if isinstance(r, Read) and r.kind.startswith(FETCHED):
            fetches[r.instance, r.url].append(r)
    found = []
    for r in history:
        if not isinstance(r, Read):
            continue
        due = [floors[key].at(start) for key, start in (
            ((r.instance, None, r.url), r.start), ((r.instance, r.life, r.url), r.start),
            ((None, None, r.url), asked(r, fetches, faults))) if key in floors]
        due = max((d for d in due if d is not None), key=lambda d: d[1], default=None)
        if due is not None and r.version < due[1]:
            found.append(Violation(r, due[2], due[0]))
    return found


def by_url(history, kind):
    found = collections.defaultdict(list)
    for o in history:
        if isinstance(o, kind):
            found[o.url].append(o)
    return found


def is_alone(fetch, reads, faults):
    """It was made without Redis, or may have been."""
    begin = min((r.start for r in reads if r.instance == fetch.instance
                 and r.start <= fetch.start <= r.end), default=fetch.start)
    return overlap(its(faults, fetch.instance), begin, fetch.start)


def excesses(history, instances):
    """The URLs that were fetched more often than they may be by so many instances."""
    faults = [o for o in history if isinstance(o, Fault)]
    reads, leases = by_url(history, Read), by_url(history, Lease)
    removals = by_url(history, Removal)
    found = []
    for url, fetches in by_url(history, Fetch).items():
        alone = [f for f in fetches if is_alone(f, reads[url], faults)]
        ends = collections.Counter(lease.end for lease in leases[url])
        without = len(alone) + min(len(alone), len(removals[url]))
        if len(fetches) > 1 + ends[EXPIRED] + (instances - 1) * ends[GIVEN_UP] + without:
            found.append(Excess(url, fetches, leases[url], alone))
    return found


def kinds(history):
    """How many operations there are of each kind, for people."""
    names = {Read: "kind", Change: "outcome", Fault: "what", Fetch: "instance", Lease: "end",
             Removal: "what"}
    count = collections.Counter(
        "%s %s" % (type(o).__name__.lower(), getattr(o, names[type(o)])) for o in history)
    return dict(sorted(count.items()))


def story(history, violation):
    """What led to it, in the order of the ends."""
    read, change, since = violation
    lines = ["%s gave version %d of %s, asked at %.4f: version %d is due from %.4f on" % (
        read.instance, read.version, read.url, read.start, change.versions[read.url], since)]
    begin, end = min(change.start, read.start) - 1.0, read.end
    for o in sorted(history, key=lambda o: o.end):
        of_url = isinstance(o, Fault) or read.url in (
            (o.url,) if isinstance(o, Read) else o.versions)
        if of_url and o.end >= begin and o.start <= end:
            lines.append("%s %.4f-%.4f %s" % ("=>" if o in (read, change) else "  ", o.start, o.end, (
                "%s reads %d, %s" % (o.instance, o.version, o.kind) if isinstance(o, Read) else
                "%s.%d %s: %d, %s" % (o.instance, o.life, o.what, o.versions[read.url], o.outcome)
                if isinstance(o, Change) else "fault: %s %s" % (o.what, " ".join(o.who)))))
    return "\n".join(lines)
