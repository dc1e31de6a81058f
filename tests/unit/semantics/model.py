"""
What HTTP says of caching, written down from the text of the RFCs and from nothing of Weir's code.

Model    a response, a request before it and a request after it in; what a shared cache must, may
         and must not do with them out. Where an RFC leaves a choice that Weir has made, the choice
         stands here under the word "Choice" with its clause. An answer that no RFC settles and no
         document of ours promises is a set of answers.
Not here what makes cases and compares (test_model.py).

Plain section numbers are of RFC 9111. Times are milliseconds unless a name ends in _s.
"""
import datetime
import functools
import re

INFINITY_S = 2 ** 31                       # 1.2.2
DAY_MS = 86400000

TCHAR = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
TOKEN = re.compile("[%s]+" % TCHAR)
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')

# RFC 9110 15: the final statuses that it defines, without what is partial or about another
# response.
UNDERSTOOD = {200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 305, 307, 308,
              400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 413, 414, 415, 421, 422,
              426, 500, 501, 502, 503, 504, 505}
# Never stored. 3: 304 without understanding. RFC 6585 3 to 6: by name. Choice: the
# answers to a condition, a range, an expectation of one request (store.c).
NEVER = {304, 412, 416, 417, 428, 429, 431, 511}
NEVER_STALE = ("must-revalidate", "proxy-revalidate", "s-maxage")
# RFC 9110 15.1
HEURISTIC = {200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501}
SAFE = {"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"}    # RFC 9110 9.2.1, RFC 10008


class Head:
    """Field lines in order, as (name, value)."""

    def __init__(self, lines):
        self.by_name = {}
        for name, value in lines:
            self.by_name.setdefault(name.lower(), []).append(value.strip(" \t"))

    def all(self, name):
        return self.by_name.get(name.lower(), [])

    def has(self, name):
        return name.lower() in self.by_name

    @functools.cached_property
    def control(self):
        return Control(self)

    @functools.cached_property
    def targeted(self):
        """RFC 9213 2.2: of a list of fields, the first that is valid and not empty."""
        for name in TARGETS:
            parsed = [dictionary(v) for v in self.all(name)]
            if parsed and all(parsed) and not any(v == "" for v in self.all(name)):
                return Targeted([pair for one in parsed for pair in one.items()])
        return None

    def said(self, rules):
        """What a response says to us."""
        return self.targeted if rules.targets and self.targeted else self.control


# ---- lists and directives -----------------------------------------------------------------------

def pieces(value):
    """The members of a value, as they stand. What follows a quote that does not end is one piece
    with it: nothing tells where it was meant to end."""
    out, piece, rest = [], "", value
    while rest:
        quoted = QUOTED.match(rest)
        if quoted or rest[0] == '"':
            end = quoted.end() if quoted else len(rest)
            piece, rest = piece + rest[:end], rest[end:]
        elif rest[0] == ",":
            out.append(piece)
            piece, rest = "", rest[1:]
        else:
            piece, rest = piece + rest[0], rest[1:]
    return out + [piece]


def members(values):
    """RFC 9110 5.6.1: of several lines, commas in quoted strings apart, without empty ones."""
    return [p.strip(" \t") for v in values for p in pieces(v) if p.strip(" \t")]


# Choice: in a member with a quote that does not end, what forbids holds behind the first (cc.c).
FORBIDS = {"no-store", "no-cache", "private", "must-revalidate", "proxy-revalidate"}
# 5.2: these take no argument. Choice: what permits does not permit with one (cc.c).
PERMITS = {"public", "must-understand"}


def directives(head):
    """(name, argument): the argument is None without "=", and False when it is malformed (5.2).
    Choice: what cannot be read is read in the way that reuses least (cc.c; 4.2.1 encourages it for
    freshness). White space around "=" hides no directive; an escape in a quoted argument is none of
    those that 5.2.1 and 5.2.2 define."""
    out = []
    for member in members(head.all("Cache-Control")):
        name, equals, argument = member.partition("=")
        whole = argument == argument.strip(" \t") and name == name.strip(" \t")
        name = name.strip(" \t").lower()
        if not equals:
            argument = None
        elif whole and QUOTED.fullmatch(argument):
            argument = argument[1:-1]
        elif not whole or not TOKEN.fullmatch(argument):
            argument = False
        if TOKEN.fullmatch(name) and not (name in PERMITS and argument is not None):
            out.append((name, argument))
        if '"' in QUOTED.sub("", member):
            words = [w.strip(" \t").lower() for w in member.partition('"')[2].split(",")]
            # must-revalidate forbids and permits (3.5): here it does the one without the other
            out += [("proxy-revalidate" if w == "must-revalidate" else w, None)
                    for w in words if w in FORBIDS]
    return out


def delta_s(text):
    """1.2.2; None when it is none."""
    if text and re.fullmatch("[0-9]+", text):
        return min(int(text), INFINITY_S)
    return None


class Control:
    """Cache-Control of one message."""

    def __init__(self, head):
        self.list = directives(head)
        self.names = {n for n, _ in self.list}

    def has(self, name):
        return name in self.names

    def seconds(self, name, worst=min, invalid=0):
        """None when absent. Choice: of several the most restrictive, an invalid one is the most
        restrictive value (4.2.1; cc.c)."""
        values = []
        for n, argument in self.list:
            if n == name:
                value = delta_s(argument)
                values.append(invalid if value is None else value)
        return worst(values) if values else None

    def listed(self, name):
        """Field names of the qualified form, and whether there is an unqualified one (5.2.2.4,
        5.2.2.7). Choice: a list without a name in it, or that cannot be read, is unqualified."""
        fields, whole = set(), False
        for n, argument in self.list:
            if n != name:
                continue
            names = [m.strip(" \t") for m in argument.split(",")] if argument else []
            names = [m for m in names if m]
            if names and all(TOKEN.fullmatch(m) for m in names):
                fields.update(m.lower() for m in names)
            else:
                whole = True
        return fields, whole


# ---- targeted fields (RFC 9213), as dictionaries (RFC 9651) ---------------------------------------

TARGETS = ("Weir-Cache-Control", "CDN-Cache-Control")
KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
BARE = [(kind, re.compile(form)) for kind, form in (
    ("decimal", r"-?\d{1,12}\.\d{1,3}(?![\d.])"), ("integer", r"-?\d{1,15}(?![\d.])"),
    ("string", r'"(?:[ !#-\[\]-~]|\\["\\])*"'), ("token", "[A-Za-z*][%s:/]*" % TCHAR),
    ("bytes", r":[A-Za-z0-9+/=]*:"), ("boolean", r"\?[01]"), ("date", r"@-?\d{1,15}(?![\d.])"),
    ("display", r'%"(?:[ !#$&-~]|%[0-9a-f]{2})*"'))]
DIRECTIVES = {"no-store", "public", "must-revalidate", "proxy-revalidate", "must-understand"}
TIMES = {"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"}


class Invalid(Exception):
    pass


class Reader:
    """Parsing by RFC 9651 4.2."""

    def __init__(self, text):
        self.rest = text

    def take(self, pattern):
        found = re.compile(pattern).match(self.rest) if isinstance(pattern, str) else \
            pattern.match(self.rest)
        if not found:
            return None
        self.rest = self.rest[found.end():]
        return found.group()

    def need(self, pattern):
        taken = self.take(pattern)
        if taken is None:
            raise Invalid
        return taken

    def bare(self):
        for kind, form in BARE:
            text = self.take(form)
            if text is not None:
                return kind, text
        raise Invalid

    def parameters(self):
        while self.take(";"):
            self.take(" *")
            self.need(KEY)
            if self.take("="):
                self.bare()

    def item(self):
        if not self.take(r"\("):
            value = self.bare()
            self.parameters()
            return value
        while True:
            self.take(" *")
            if self.take(r"\)"):
                self.parameters()
                return "inner", ""
            self.bare()
            self.parameters()
            if not re.match("[ )]", self.rest):
                raise Invalid

    def members(self):
        out = {}
        while self.rest:
            key = self.need(KEY)
            out.pop(key, None)
            if self.take("="):
                out[key] = self.item()
            else:
                out[key] = ("boolean", "?1")
                self.parameters()
            self.take("[ \t]*")
            if not self.rest:
                break
            self.need(",")
            self.take("[ \t]*")
            if not self.rest:
                raise Invalid
        return out


@functools.lru_cache(2000)
def dictionary(text):
    """None when it is none. Choice: each line by itself (RFC 9651 4.2: what is split over lines has
    unpredictable results)."""
    reader = Reader(text.strip(" "))
    try:
        return reader.members()
    except Invalid:
        return None


class Targeted:
    """As Control, of a dictionary. Choice: a directive whose value is of another type than its own is
    not there; of a negative number of seconds none are left."""

    def __init__(self, pairs):
        self.members = dict(pairs)

    def has(self, name):
        if name in TIMES:
            return self.seconds(name) is not None
        if name in ("private", "no-cache"):
            return self.listed(name) != (set(), False)
        return name in DIRECTIVES and self.members.get(name) == ("boolean", "?1")

    def seconds(self, name):
        kind, text = self.members.get(name, (None, None))
        return min(max(0, int(text)), INFINITY_S) if kind == "integer" else None

    def listed(self, name):
        kind, text = self.members.get(name, (None, None))
        if kind == "string":
            names = [m.strip(" \t") for m in text[1:-1].split(",")]
            names = [m for m in names if m]
            if names and all(TOKEN.fullmatch(m) for m in names):
                return {m.lower() for m in names}, False
            return set(), True
        return set(), (kind, text) == ("boolean", "?1")


# ---- dates --------------------------------------------------------------------------------------

MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
LONG_DAY = "(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
MONTH = "(?P<month>%s)" % "|".join(MONTHS)
CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
DATES = [re.compile(p, re.I) for p in (
    DAY + r", (?P<day>\d\d) " + MONTH + r" (?P<year>\d{4}) " + CLOCK + " gmt",
    LONG_DAY + r", (?P<day>\d\d)-" + MONTH + r"-(?P<short>\d\d) " + CLOCK + " gmt",
    DAY + " " + MONTH + r" (?P<day>[ \d]\d) " + CLOCK + r" (?P<year>\d{4})")]
EPOCH = datetime.datetime(1970, 1, 1)


def real(year, parts):
    """The moment, None when the calendar has none. A leap second is the next one."""
    second = int(parts["second"])
    if second > 60:
        return None
    try:
        at = datetime.datetime(year, MONTHS.index(parts["month"].lower()) + 1, int(parts["day"]),
                               int(parts["hour"]), int(parts["minute"]), min(second, 59))
    except ValueError:
        return None
    return at + datetime.timedelta(seconds=second == 60)


@functools.lru_cache(1000)
def date_s(text, now_s):
    """RFC 9110 5.6.7; letters in any case, no zone but GMT (4.2). None when it is none."""
    for form in DATES:
        m = form.fullmatch(text)
        if not m:
            continue
        g, now = m.groupdict(), EPOCH + datetime.timedelta(seconds=now_s)
        years = [int(g["year"])] if g.get("short") is None else \
            [now.year // 100 * 100 + century + int(g["short"]) for century in (100, 0, -100)]
        for year in years:
            at = real(year, g)
            # more than 50 years in the future: the most recent one in the past with those digits
            if len(years) == 1 or at is None or at <= now.replace(year=now.year + 50):
                break
        if at is not None:
            return int((at - EPOCH).total_seconds())
    return None


def only_date_s(head, name, now_s):
    """A singleton's date; None when absent, invalid, or of several that differ."""
    dates = {date_s(v, now_s) for v in head.all(name)}
    return dates.pop() if len(dates) == 1 else None


# ---- entity tags --------------------------------------------------------------------------------

ETAG = re.compile('(W/)?("[\x21\x23-\x7e\x80-\xff]*")')            # RFC 9110 8.8.3


def etag(head):
    values = head.all("ETag")
    return values[0] if values and ETAG.fullmatch(values[0]) else None


def strong_equal(a, b):                     # RFC 9110 8.8.3.2
    return a == b and not a.startswith("W/")


def weak_equal(a, b):
    return a[a.index('"'):] == b[b.index('"'):]


# ---- storing ------------------------------------------------------------------------------------

class Rules:
    """What a route adds (REFERENCE.md): milliseconds or None."""

    def __init__(self, ttl=None, force=None, swr=None, sie=None, heuristic=True, negative=(),
                 targets=0, promised=False):
        self.ttl, self.force, self.swr, self.sie = ttl, force, swr, sie
        self.heuristic, self.negative = heuristic, dict(negative)
        self.targets, self.promised = targets, promised


def part_said(request, response):
    """3.3: a 206 that was asked for and says by one valid Content-Range (RFC 9110 14.4) which part it
    is."""
    values = response.all("Content-Range")
    found = len(values) == 1 and re.fullmatch(r"bytes (\d+)-(\d+)/(\*|\d+)", values[0], re.I | re.A)
    if not request.has("Range") or not found:
        return False
    first, last = int(found[1]), int(found[2])
    return first <= last and (found[3] == "*" or last < int(found[3]))


class Stored:
    """What is known of a stored response. Every property is one that reuse depends on."""

    def __init__(self, method, request, status, response, rules, request_ms, response_ms):
        self.response, self.status, self.rules = response, status, rules
        self.part = part_said(request, response) if status == 206 else None
        status = 200 if self.part else status       # RFC 9110 15.3.7.3: it is part of a 200
        self.response_ms = response_ms
        self.control = response.said(rules)
        self.targeted = self.control is not response.control        # RFC 9213 2.2: it alone counts
        self.promised = rules.promised and method == "POST"
        # Choice: against the origin's word only for what its resources answer when all is well, of
        # which a cache knows that it may be kept (store.c; semantics.h).
        self.forced = rules.force is not None and status in HEURISTIC and status < 400
        self.date_s = only_date_s(response, "Date", response_ms // 1000)
        self.date_ms = response_ms if self.date_s is None else self.date_s * 1000
        self.modified_s = only_date_s(response, "Last-Modified", response_ms // 1000)
        self.lifetime, self.explicit = self._lifetime(status)
        self.initial_age = self._age(request_ms)
        self.may_store, self.clause = self._store(method, request, status)

    # 3
    def _store(self, method, request, status):
        asked, said = request.control, self.control
        if method not in ("GET", "QUERY") and not self.promised:    # RFC 10008 2.7
            # Choice: nothing else is stored under its own key, what a HEAD is told neither. For POST
            # with Content-Location see as_get.
            return {False}, "3 method"
        if status < 200:
            return {False}, "3 final"
        if asked.has("no-store"):
            return {False}, "5.2.1.5"
        if status in NEVER or status > 599:                         # RFC 9110 15: no status
            return {False}, "3 status"
        if self.part is False:
            return {False}, "3.3 part"
        if request.has("Range") and status != 200:                  # Choice: store.c
            return {False}, "3.3"
        if "*" in members(self.response.all("Vary")):               # Choice: it would match nothing
            return {False}, "4.1"
        if self.forced:                     # Choice: the route's word against the origin's
            return {True, False} if self._useless() else {True}, "force_ttl"
        if said.has("must-understand") and status not in UNDERSTOOD:
            return {False}, "5.2.2.3"
        if said.has("no-store"):
            # 5.2.2.3: not obeyed beside must-understand where the status is understood
            if not said.has("must-understand"):
                return {False}, "5.2.2.5"
        if said.listed("private")[1]:
            return {False}, "5.2.2.7"
        if request.has("Authorization") and not self.shared():
            return {False}, "3.5"
        if not (said.has("public") or said.has("max-age") or said.has("s-maxage") or
                (self.response.has("Expires") and not self.targeted) or status in HEURISTIC or
                status in self.rules.negative):                 # Choice: chosen by the operator
            return {False}, "3 last item"
        one = self.response.has("Set-Cookie") or self.response.has("Clear-Site-Data")
        if one and not self.explicit and not said.has("public"):
            return {False}, "7.3"           # Choice: nothing is assumed for such a one (store.c)
        if self.promised and self.guessed:
            return {False}, "RFC 9110 9.3.3"    # "when they include explicit freshness", or the route
        return {True, False} if self._useless() else {True}, "3"

    def _useless(self):
        """3 lets a cache leave out what has neither validator nor freshness: it answers nobody
        without the origin's word. Conditions are no use with a POST (RFC 9110 13.1.2)."""
        if self.promised and (self.lifetime == 0 or self.no_cache()):
            return True
        return not etag(self.response) and self.modified_s is None and \
            (self.lifetime == 0 or self.no_cache())

    # 3.5
    def shared(self):
        return self.forced or any(map(self.control.has, ("public", "s-maxage", "must-revalidate")))

    # 4.2.1: milliseconds, and whether the origin said so
    def _lifetime(self, status):
        for name in ("s-maxage", "max-age"):
            seconds = self.control.seconds(name)
            if seconds is not None:
                lifetime, explicit = seconds * 1000, True
                break
        else:
            if self.response.has("Expires") and not self.targeted:
                at = only_date_s(self.response, "Expires", self.response_ms // 1000)
                # 5.3: an invalid date has passed; 4.2.1: so has one of several. A time of receipt
                # counts by its whole seconds where there is no Date.
                lifetime = 0 if at is None else max(0, at - self.date_ms // 1000) * 1000
                explicit = True
            else:
                lifetime, explicit = self._assumed(status), False
        if self.forced:
            lifetime = self.rules.force
        return lifetime, explicit

    guessed = False                         # a heuristic's lifetime, or none

    def _assumed(self, status):
        if status in self.rules.negative:
            return self.rules.negative[status]
        if status not in HEURISTIC and not self.control.has("public"):      # 4.2.2
            return 0
        if self.rules.ttl is not None and status < 400:
            # Choice: before heuristics (REFERENCE.md), not for errors (store.c)
            return self.rules.ttl
        if self.rules.heuristic and self.modified_s is not None:
            # Choice: a tenth (REFERENCE.md; 4.2.2), a day at most (store.c)
            self.guessed = True
            return min(max(0, self.date_ms - self.modified_s * 1000) // 10, DAY_MS)
        return 0

    # 4.2.3; 5.1: the first member alone, and an invalid one is ignored
    def _age(self, request_ms):
        values = members(self.response.all("Age"))
        value = (delta_s(values[0]) if values else 0) or 0
        # Choice: a Date of whole seconds is compared with whole seconds (store.c)
        apparent = max(0, self.response_ms // 1000 - self.date_ms // 1000) * 1000
        delay = max(0, self.response_ms - request_ms)
        return max(apparent, value * 1000 + delay)

    def age(self, now):
        return self.initial_age + max(0, now - self.response_ms)

    # ---- reusing

    def no_cache(self):
        """5.2.2.4. Choice: 5.4 gives Pragma no meaning in a response, but who sends it alone is
        taken at that word (store.c)."""
        if self.forced:
            return False
        return self.control.listed("no-cache")[1] or (
            not self.response.has("Cache-Control") and not self.targeted and
            "no-cache" in map(str.lower, members(self.response.all("Pragma"))))

    def never_stale(self):
        """4.2.4, 5.2.2.2, 5.2.2.8, 5.2.2.10."""
        return not self.forced and any(map(self.control.has, NEVER_STALE))

    def window(self, name, rule):
        """RFC 5861: milliseconds behind the lifetime, 0 for none. The origin's word goes before the
        route's (REFERENCE.md), which counts in whole seconds, the begun one too."""
        seconds = self.control.seconds(name)
        if seconds is None:
            seconds = 0 if rule is None else (rule + 999) // 1000
        return min(seconds, INFINITY_S - 1) * 1000

    def fresh(self, now, soft):
        return not soft and self.lifetime > self.age(now)                           # 4.2

    def use(self, request, now, soft):
        """The set of right verdicts among fresh, stale, behind (stale and revalidated behind it),
        part (fresh, for who wants no more), validate, cannot."""
        asked = request.control
        # Choice: what 3.5 would not let be stored with Authorization is not given to a request
        # that has it either (semantics.h, META_SHARED_AUTH).
        if request.has("Authorization") and not self.shared():
            return {"cannot"}
        if self.no_cache():
            return {"validate"}                                     # 5.2.2.4
        if asks_validation(request, asked):
            return {"validate"}                                     # 5.2.1.4
        age = self.age(now)
        max_age = asked.seconds("max-age")
        if max_age is not None and age > max_age * 1000:
            return {"validate"}                                     # 5.2.1.1
        min_fresh = asked.seconds("min-fresh", max)
        if min_fresh is not None and self.lifetime < age + min_fresh * 1000:
            return {"validate"}                                     # 5.2.1.3
        if self.fresh(now, soft):
            return {"part" if self.part else "fresh"}
        if self.part:
            return {"validate"}             # Choice: no part is served stale (use.c)
        return self.stale(asked, max_age is not None or min_fresh is not None, now)

    def stale(self, asked, limited, now):
        if self.never_stale():
            return {"validate"}
        over = max(0, self.age(now) - self.lifetime)                # softly purged: since now
        accepted = asked.has("max-stale")                           # 5.2.1.2
        seconds = [delta_s(a) or 0 for n, a in asked.list if n == "max-stale" and a is not None]
        if seconds:
            accepted = 0 < min(seconds) and over <= min(seconds) * 1000
        # 5.2.1.1: with max-age the client wants nothing stale, unless max-stale says so; with
        # min-fresh even less
        if limited and not accepted:
            return {"validate"}
        swr = self.window("stale-while-revalidate", self.rules.swr)
        if swr > 0 and over <= swr:
            return {"behind"}                                       # RFC 5861 3
        return {"stale"} if accepted else {"validate"}

    def on_error(self, request, now):
        """May it be served when the origin has failed (4.2.4, RFC 5861 4)? Choice: only so long as
        stale-if-error allows, the request's before the response's; not to who asks for
        validation."""
        asked = request.control
        if request.has("Authorization") and not self.shared():
            return False                                            # 3.5
        if self.no_cache() or self.never_stale() or asks_validation(request, asked):
            return False
        seconds = asked.seconds("stale-if-error")
        window = self.window("stale-if-error", self.rules.sie)
        if seconds is not None:
            window = seconds * 1000
        return window > 0 and self.age(now) - self.lifetime <= window


def as_get(method, request, status, response, rules, request_ms, response_ms):
    """May it answer GETs of its own target, which Content-Location says it encloses (RFC 9110 9.3.3, of
    a QUERY RFC 10008 2.3)? As a GET's, with freshness that the origin states, of no other status
    than 200 and 201 (Choice: semantics.h). A set of bool."""
    del method
    if status not in (200, 201):
        return {False}
    whole = Head([(n, v) for n, values in request.by_name.items() for v in values if n != "range"])

    def stored(by):
        return Stored("GET", whole, 200, response, by, request_ms, response_ms)
    said = stored(Rules(swr=rules.swr, sie=rules.sie, heuristic=False, targets=rules.targets))
    if not said.explicit or said.lifetime <= 0 or said.no_cache() or True not in said.may_store:
        return {False}
    return stored(rules).may_store if rules.force is not None else said.may_store


def asks_validation(request, asked):
    """5.2.1.4; RFC 7234 5.4 gave Pragma its meaning."""
    return asked.has("no-cache") or (not request.has("Cache-Control") and
                                     "no-cache" in map(str.lower, members(request.all("Pragma"))))


def request_reusable(method, request, promised=False):
    """May the answer come from the cache: GET, HEAD (4) or a QUERY for the whole (RFC 10008 2.7), no
    no-store (Choice: semantics.h), no precondition that is the origin's alone (4.3.2). A POST that
    the route promises is safe is as a QUERY, but that conditions make it a 412 (RFC 9110 13.1.2)."""
    promised = promised and method == "POST"
    if (method == "QUERY" or promised) and request.has("Range"):
        return False
    if promised and (request.has("If-None-Match") or request.has("If-Modified-Since")):
        return False
    return (promised or method in ("GET", "HEAD", "QUERY")) and not request.control.has("no-store") and \
        not request.has("If-Match") and not request.has("If-Unmodified-Since")


# ---- Vary ---------------------------------------------------------------------------------------

WEIGHED = {"accept", "accept-encoding", "accept-language", "accept-charset"}


def vary(response):
    """4.1: sorted names; None when nothing can match. Choice: a malformed list matches nothing."""
    names = [m.lower() for m in members(response.all("Vary"))]
    if any(not TOKEN.fullmatch(m) or m == "*" for m in names):
        return None
    return sorted(set(names))


def plain(request, name):
    """A field that is known to be a list: white space and empty members are no difference (4.1)."""
    values = request.all(name)
    return members(values) if values else None


SINGLE = {"cookie", "user-agent"}           # known, and no lists: RFC 6265 4.2.1, RFC 9110 10.1.5


def joined(request, name):
    """A field that is no list of content negotiation: how it is spread over lines is no difference
    (4.1; RFC 9110 5.3). Who puts lines into one parts them by a comma and optional white space, so
    that, in what may be a list, white space beside a comma outside quoted strings is none either."""
    values = request.all(name)
    if not values:
        return None
    text = {s.join(values) for s in (", ", ",")}
    if name in SINGLE or any(QUOTED.sub("", t).count('"') for t in text):
        return text
    return {",".join(p.strip(" \t") for p in pieces(t)) for t in text}


def parameter(text):
    """RFC 9110 5.6.6: the name in any case; quotes that say nothing are no difference."""
    name, equals, value = text.partition("=")
    if QUOTED.fullmatch(value) and TOKEN.fullmatch(value[1:-1]):
        value = value[1:-1]
    return name.lower() + equals + value


def meaning(request, name):
    """What a field of content negotiation means at most: members in any order, case, weight."""
    values = plain(request, name)
    if values is None:
        return None
    out = set()
    for member in values:
        parts = [p.strip(" \t") for p in member.split(";")]
        parts = [p.lower() if i == 0 or name != "accept" or p[:2].lower() in ("q=", "q ") or
                 p.lower().startswith("charset=") else parameter(p) for i, p in enumerate(parts)]
        weight = 1.0
        for p in parts[1:]:
            m = re.fullmatch(r"q[ \t]*=[ \t]*([01](?:\.\d{0,3})?)", p)
            if m:
                weight = float(m.group(1))
        if name == "accept-encoding" and parts[0] in ("x-gzip", "x-compress"):
            parts[0] = parts[0][2:]         # RFC 9110 8.4.1
        out.add((parts[0], weight) + tuple(sorted(p for p in parts[1:] if not re.match(r"q[ \t]*=", p))))
    return out


RANGE = re.compile(r"(\*|[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)"
                   r"(?:[ \t]*;[ \t]*[qQ]=(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?")


def languages(request):
    """Choice: what RFC 9110 12.4.2 and 12.5.4 and RFC 4647 2.1 call equal is known as equal, where
    the value is made by their grammar and names no range twice."""
    ranges = [RANGE.fullmatch(m) for m in plain(request, "accept-language") or []]
    names = [m.group(1).lower() for m in ranges if m]
    return None not in ranges and len(names) == len(set(names))


def selects(response, first, second):
    """Does the response to `first` answer `second`? A set of bool."""
    names = vary(response)
    if names is None:
        return {False}
    right = {True}
    for name in names:
        if first.all(name) == second.all(name):
            continue
        if name in WEIGHED:
            if plain(first, name) == plain(second, name):
                continue
            if meaning(first, name) != meaning(second, name):
                return {False}
            if name == "accept-language" and languages(first) and languages(second):
                continue
        elif not (joined(first, name) or set()) & (joined(second, name) or set()):
            return {False}
        right = {True, False}               # 4.1 lets a cache know the syntax of a field
    return right


# ---- conditions ---------------------------------------------------------------------------------

def lone_date_s(request, name, now):
    """RFC 9110 13.1.3, 13.1.4: ignored when it is no date or has more than one member."""
    lines = request.all(name)
    return date_s(lines[0], now // 1000) if len(lines) == 1 else None


def tag_listed(request, name, tag, equal):
    """Is the tag in the list? A set of bool: what one tag of a malformed list is worth, no RFC
    says."""
    lines = request.all(name)
    if lines == ["*"]:
        return {True}
    named = [m.group() for v in lines for m in ETAG.finditer(v)]
    same = tag is not None and any(equal(n, tag) for n in named)
    if all(map(ETAG.fullmatch, members(lines))):
        return {same}
    return {True, False} if same or "*" in lines else {False}


def not_modified(request, stored, now):
    """A GET or HEAD against a stored 200 (4.3.2; RFC 9110 13.2.2): a set of bool. If-Match and
    If-Unmodified-Since are no cache's to judge: such a request is not answered from here."""
    tag, modified_s = etag(stored.response), stored.modified_s
    if request.has("If-None-Match"):
        return tag_listed(request, "If-None-Match", tag, weak_equal)
    since = lone_date_s(request, "If-Modified-Since", now)
    made = stored.date_ms // 1000 if modified_s is None else modified_s             # 4.3.2
    return {since is not None and made <= since}


def if_range(request, stored, now):
    """RFC 9110 13.1.5. A set of bool."""
    lines = request.all("If-Range")
    if not lines:
        return {True}
    if len(lines) > 1:
        return {False}
    tag, value = etag(stored.response), lines[0]
    if ETAG.fullmatch(value):
        return {tag is not None and strong_equal(tag, value)}
    at = date_s(value, now // 1000)
    if at is None or stored.modified_s is None or at != stored.modified_s:
        return {False}
    # RFC 9110 8.8.2.2: strong when Date is later by a second, or by what the cache trusts
    later = stored.date_ms // 1000 - stored.modified_s
    return {False} if later < 1 else {True} if later >= 60 else {True, False}


# ---- fields -------------------------------------------------------------------------------------

HOP = {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade",
       "trailer", "proxy-authenticate", "proxy-authorization", "proxy-authentication-info"}
# RFC 9110 7.6.1: no sender may name in Connection what is for all recipients.
# Choice: these stay whatever Connection says (fields.def, KEEP).
FOR_ALL = {"age", "cache-control", "content-type", "date", "etag", "expires", "last-modified",
           "vary", "content-encoding", "content-location", "location", "content-range",
           "content-length", "set-cookie", "warning", "pragma"}


def named_by_connection(head):
    return {m.lower() for m in members(head.all("Connection"))} - FOR_ALL


def listing(head, name, rules):
    """What private= and no-cache= say of keeping a field (5.2.2.4, 5.2.2.7). A list that cannot be
    read is none, and says enough without one."""
    said = head.said(rules)
    if any(name in said.listed(d)[0] for d in ("private", "no-cache")):
        return {False}
    fields = ("Cache-Control",) if said is head.control else TARGETS
    mentioned = any(name in v.lower() for f in fields for v in head.all(f))
    return {True, False} if mentioned else {True}


def keeps(stored, name):
    """May, must or must not a stored head have this field (3.1)? A set of bool."""
    name = name.lower()
    if name in HOP or name in named_by_connection(stored.response):
        return {False}
    listed = listing(stored.response, name, stored.rules)
    if listed == {False}:
        return {True, False} if stored.forced else listed
    # Choice: never replayed, or written anew (semantics.h, sem_keeps)
    if name in ("age", "content-length", "x-request-id") or of_one_exchange(name):
        return {False}
    return listed


def of_one_exchange(name):
    """Choice: what is about one exchange with one client is not replayed (semantics.h)."""
    return name in ("set-cookie", "server-timing", "traceresponse", "ratelimit",
                    "authentication-info", "clear-site-data") or \
        name.startswith(("ratelimit-", "x-ratelimit-", "x-rate-limit-"))


def updates(r304, name, rules):
    """Does this field of a 304 replace the stored one (3.2)? A set of bool."""
    name = name.lower()
    if name in HOP or name == "content-length" or name in named_by_connection(r304):
        return {False}
    listed = listing(r304, name, rules)
    if listed == {False} or of_one_exchange(name) or name in ("age", "x-request-id"):
        return {False}
    if name in ("content-encoding", "content-range", "etag"):
        return {True, False}
    return listed


def head_agrees(stored, size, head):
    """4.3.5: does each validator of an answer to HEAD, and its Content-Length, match what is stored? The
    same validator written otherwise may or may not. A set of bool."""
    lengths = set(head.all("Content-Length"))
    if len(lengths) > 1:
        return {True, False}                # RFC 9110 8.6: no message, no parser lets it through
    if lengths and lengths != {str(size)}:
        return {False}
    right = {True}
    for name in ("ETag", "Last-Modified"):
        ours, theirs = stored.response.all(name), head.all(name)
        if not theirs or theirs[:1] == ours[:1]:
            continue
        if theirs[0] == "":                 # an empty field: no validator, or another one
            right = {True, False}
            continue
        tags = [v for v in ours + theirs if ETAG.fullmatch(v)]
        dates = {date_s(v, stored.response_ms // 1000) for v in ours + theirs}
        alike = len(tags) > 1 and weak_equal(tags[0], tags[-1]) if name == "ETag" else \
            len(dates) == 1 and None not in dates
        if not ours or not (alike or set(ours) & set(theirs)):
            return {False}
        right = {True, False}
    return right


def joins(stored, other):
    """RFC 9110 15.3.7.3: parts are combined where they share the same strong validator. A set of
    bool."""
    ours, theirs = stored.response.all("ETag")[:1], other.all("ETag")[:1]
    if ours or theirs:
        return {bool(ours and theirs and all(map(ETAG.fullmatch, ours + theirs)) and
                     strong_equal(ours[0], theirs[0]))}
    now_s = stored.response_ms // 1000
    modified = [date_s(v, now_s) for v in other.all("Last-Modified")]
    if stored.modified_s is None or modified[:1] != [stored.modified_s]:
        return {False}
    made = [date_s(v, now_s) for v in other.all("Date")][:1]
    later = min(stored.date_ms // 1000, now_s if made in ([], [None]) else made[0]) - \
        stored.modified_s
    # 8.8.2.2: strong when Date is later by a second, or by what the cache trusts
    return {False} if later < 1 else {True} if later >= 60 else {True, False}


def freshens(stored, r304):
    """4.3.4, for the one stored response that was asked about. A set of bool."""
    ours, theirs = etag(stored.response), etag(r304)
    now_s = stored.response_ms // 1000
    modified = only_date_s(r304, "Last-Modified", now_s)
    if theirs and not theirs.startswith("W/"):
        if ours and strong_equal(ours, theirs):
            return {True}
        # 4.3.4 lets another strong validator identify it; that takes a Last-Modified that is
        # strong, which ours may doubt.
        same = modified is not None and modified == stored.modified_s
        return {True, False} if same else {False}
    if theirs:
        if ours and weak_equal(ours, theirs):
            return {True}
        return {True, False} if modified is not None and modified == stored.modified_s else {False}
    dates = r304.all("Last-Modified")
    if modified is not None:
        # the same moment written otherwise: the same validator or not
        same = dates[0] == (stored.response.all("Last-Modified") or [None])[0]
        return {True} if same and len(dates) == 1 else \
            {modified == stored.modified_s, False} if len(dates) == 1 else {True, False}
    if dates or ours or stored.modified_s is not None:
        # The letter of 4.3.4 identifies nothing; it came in answer to the validators that we sent.
        return {True, False}
    return {True}


def invalidates(method, status):
    return method not in SAFE and 200 <= status < 400               # 4.4


def forbidden(stored, first_method, first, method, request, now, soft, failed=False):
    """Why this response must not answer this request without the origin's word, None when it may:
    the MUST NOTs alone, whatever was chosen above where they leave a choice. `failed`: the origin
    did not answer."""
    said, asked = stored.control, request.control
    promised = stored.rules.promised and method == "POST"
    if not (promised or method in ("GET", "HEAD", "QUERY")) or \
            (first_method != "GET" and first_method != method) or \
            ((promised or method == "QUERY") and first_method != method):
        return "4 method"
    if stored.status < 200 or stored.status in NEVER:
        return "3 status"
    if stored.status == 206 and not failed:     # to some, when all goes wrong, and then they fit
        return "3.3"
    if first.control.has("no-store"):
        return "5.2.1.5"
    if selects(stored.response, first, request) == {False}:
        return "4.1"
    stale = soft or stored.age(now) >= stored.lifetime
    if not stored.forced:
        understood = said.has("must-understand") and stored.status in UNDERSTOOD
        if said.has("no-store") and not understood:
            return "5.2.2.5"
        if said.listed("private")[1]:
            return "5.2.2.7"
        if said.listed("no-cache")[1]:
            return "5.2.2.4"
        if first.has("Authorization") and \
                not any(map(said.has, ("public", "s-maxage", "must-revalidate"))):
            return "3.5"
        if stale and any(map(said.has, NEVER_STALE)):
            return "4.2.4"
    name, rule = ("stale-if-error", stored.rules.sie) if failed else \
        ("stale-while-revalidate", stored.rules.swr)
    allowed = said.has(name) or rule is not None or \
        asked.has("stale-if-error" if failed else "max-stale")
    return "4.2.4" if stale and not allowed else None
