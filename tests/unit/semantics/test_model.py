"""
semantics/ against the model: what is stored, how long it is fresh, how old it is, who may have it,
which request it answers, and what its validators say.

Model    an example is ten responses and ten exchanges around one; each pair is a case: a hundred
         cases an example. A failing example shrinks to one pair of the fewest fields.
Settings WEIR_DRIVER is the driver; WEIR_MODEL_CASES how many cases (100,000), WEIR_MODEL_SEED which
         ones (always the same ones when it is not set).
"""
import datetime
import os
import subprocess

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings, strategies as st

from model import (TARGETS, Head, Rules, Stored, as_get, forbidden, freshens, head_agrees, if_range,
                   invalidates, joins, keeps, not_modified, request_reusable, selects, updates,
                   vary)

SIDE = 10                                   # responses, and exchanges, of an example
CASES = int(os.environ.get("WEIR_MODEL_CASES", "100000"))
SEED = int(os.environ.get("WEIR_MODEL_SEED", "9111"))
T0 = 1700000000                             # Tue, 14 Nov 2023 22:13:20 GMT
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


# ---- the driver ---------------------------------------------------------------------------------

class Driver:
    """Answers cases; begun again after a crash, so that a crash shrinks like any failure."""

    def __init__(self):
        self.process = None

    def ask(self, cases):
        if self.process is None:
            self.process = subprocess.Popen([os.environ["WEIR_DRIVER"]], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE)
        try:
            self.process.stdin.write(b"".join(cases) + b".\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answers = []
        for _ in cases:
            line = self.process.stdout.readline()
            if not line.endswith(b"\n"):
                self.process.stdin.close()
                status, self.process = self.process.wait(), None
                raise AssertionError("the driver ended with %d in case %r" %
                                     (status, cases[len(answers)]))
            answers.append(dict(w.split("=", 1) for w in line.decode().split()))
        return answers


driver = Driver()


# ---- what cases are made of ---------------------------------------------------------------------

def date(seconds, form):
    """One of the three forms of RFC 9110 5.6.7, or one that looks like it."""
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    name, day, mon, year = DAYS[at.weekday()], at.day, MONTHS[at.month - 1], at.year
    time = "%02d:%02d:%02d" % (at.hour, at.minute, at.second)
    fix = "%s, %02d %s %04d %s GMT" % (name[:3], day, mon, year, time)
    return {
        "fix": fix, "lower": fix.lower(), "utc": fix[:-3] + "UTC", "zone": fix[:-3] + "+0000",
        "asc": "%s %s %2d %s %04d" % (name[:3], mon, day, time, year),
        "850": "%s, %02d-%s-%02d %s GMT" % (name, day, mon, year % 100, time),
        "cut": fix[:-4], "twice": fix + ", " + fix,
    }[form]


FORMS = ["fix"] * 30 + ["asc", "850", "lower", "utc", "zone", "cut", "twice"]
SECONDS = ["0", "1", "5", "10", "60", "3600", "2147483647", "2147483648", "2147483649",
           "4294967296", "4294967301", "9223372036854775807", "18446744073709551621",
           "99999999999999999999999", "007", '"10"', '"\\1\\0"', "", "-1", "+5", "5.0", "5s", "x",
           '"', '"5', "'5'", "5 5", '" 5"', '""', "0x10", "5;5"]
USUAL = ["0", "1", "5", "10", "60", "60", "3600", "3600"]
LISTS = ['"x-secret"', '"X-Secret, x-other"', "x-secret", '""', '","', '"', '"x-secret',
         '"x secret"', "", '"x-secret,,"', '"etag"']
seconds = st.sampled_from(USUAL * 10 + SECONDS)
# False first: what shrinks loses what it does not need.
often, half, few, seldom, rarely = (st.sampled_from([False] * no + [True] * yes)
                                    for no, yes in ((1, 3), (1, 1), (3, 1), (5, 1), (11, 1)))


def spelled(name):
    return st.sampled_from([name] * 6 + [name.upper(), name.title()])


def argued(name, arguments):
    return st.builds("{}={}".format, spelled(name), arguments)


RESPONSE_DIRECTIVE = st.one_of(
    argued("max-age", seconds), argued("max-age", seconds), argued("max-age", seconds),
    argued("max-age", seconds), argued("s-maxage", seconds),
    argued("stale-while-revalidate", seconds), argued("stale-if-error", seconds),
    argued("stale-while-revalidate", seconds), argued("stale-if-error", seconds),
    spelled("public"), spelled("public"), spelled("must-revalidate"), spelled("proxy-revalidate"),
    spelled("must-understand"),
    st.one_of(spelled("no-cache"), spelled("no-store"), spelled("private")),
    argued("no-cache", st.sampled_from(LISTS)), argued("private", st.sampled_from(LISTS)),
    st.sampled_from([
        "immutable", "no-transform", "max-age", "s-maxage", "max-age = 5", "max-age =5",
        "max-age= 5", "no-store=1", 'no-store=""', "no-store =x", "no-cache=", "private;x",
        "must-revalidate=1", "unknown", "unknown=3", 'unknown="no-store, private"',
        'unknown="a\\", no-store"', 'x="max-age=3600"', "xmax-age=3600", "max-age-x=3600",
        "no-storex", "nostore", "only-if-cached", "max-stale", "min-fresh=100000", "", "=", "=5",
        '"no-store"', ";", 'community="UCI"', "stale-while-revalidate", "stale-if-error",
        "proxy-revalidate=x", "public"]))
REQUEST_DIRECTIVE = st.one_of(
    argued("max-age", seconds), argued("min-fresh", seconds), argued("max-stale", seconds),
    spelled("max-stale"), argued("stale-if-error", seconds), spelled("no-cache"),
    st.sampled_from([
        "no-store", "no-store=1", "only-if-cached", "no-transform", "max-age", "min-fresh",
        "no-cache=x", 'no-cache="etag"', "s-maxage=0", "must-revalidate", "private", "public",
        "unknown", 'unknown="no-cache"', "stale-while-revalidate=60", "", "=", "max-stale ="]))
COMMON = ["max-age=60", "max-age=3600", "max-age=10, stale-while-revalidate=60",
          "public, max-age=60", "max-age=5, stale-if-error=3600", "s-maxage=60, max-age=5"]
TAGS = ['"a"', '"a"', '"a"', 'W/"a"', '"b"', 'W/"b"', '""', 'W/""', "a", "w/\"a\"", '"a', '"a,b"']
TENANTS = ["a", "a", "A", "a,b", "a, b", "a,,b", " a ,\tb ", "b, a", '"a,b"', '"a, b"', '"a', "",
           ","]
LANGUAGES = ["en", "en", "EN", "en, de", "en,de", "de, en", "en;q=1", "en;q=0.5, de",
             "de;q=0.5, en", "de, en;q=0.5", "*", "", "fr", "en, de;q=0", "dE ;Q=0.50,en",
             "en, en", "en;q=0.5, en", "en, e_n", "e_n, en", "en;q=1.1"]
ACCEPTS = ["a/b", "a/b", "A/B", "a/b;q=1", "a/b;q=1.000", "a/b, c/d;q=0.5", "c/d;q=0.50,a/b",
           "a/b;x=Y", 'a/b;X="Y"', "a/b;x=y", "a/b;charset=UTF-8", "a/b;charset=utf-8", "*/*", "",
           "a/b;q=0", "a/b, a/b", "a/b;q=0.5, a/b", "a", "a/b;q=2", "a/b;x=Y;q=0.5;z=1"]
# Values of targeted fields: dictionaries, and what is none.
TARGETED = ["max-age=60", "max-age=3600", "max-age=60, public", "no-store", "private", "no-cache",
            "s-maxage=5, max-age=60", "max-age=60;x=1", "max-age=60, stale-while-revalidate=60",
            "max-age=10, stale-if-error=3600", "must-revalidate, max-age=5", "max-age=60, max-age=5",
            'private="x-secret", max-age=60', 'no-cache="x secret", max-age=60', 'private=""',
            'private=x-secret, max-age=60', "no-store=?0, max-age=60", "no-store=1, max-age=60",
            "must-understand, no-store, max-age=60", "max-age=60.0", 'max-age="60"', "max-age=-1",
            "max-age=999999999999999", "max-age=9999999999999999", "max-age", "max-age=?1",
            "unknown=(a b;c \"d\"), max-age=60", "x=:YQ==:, y=@1, z=%\"a\", max-age=60",
            "", ",", "max-age=60,", "max-age= 60", "Max-Age=60", "max-age=60, NO-STORE", "max-age=",
            "(a)", "max-age=60 no-store", 'max-age=60, x="', "max-age=60\t,\tpublic", "private=?0"]
AGENTS = ["x/1", "x/1", "X/1", "x/2", "x/1 (a, b)"]
VARIES = ["Accept", "Accept", "Accept-Language", "X-Tenant", "Accept-Language", "X-Tenant", "User-Agent", "Cookie",
          "x-tenant, accept-language", "X-TENANT,,User-Agent", "User-Agent", "*", "X-Tenant, *",
          ",*", " , ,", "", "Accept Language", "X-Tenant;a", '"X-Tenant"', "Cookie", "X-Absent",
          "**", "*, *"]
METHODS = ["GET"] * 60 + ["HEAD"] * 4 + ["QUERY"] * 8 + ["POST"] * 8 + [ "PUT", "OPTIONS", "PROPFIND", "DELETE", "get"]
STATUSES = [200] * 60 + [203, 204, 300, 301, 404, 410] * 3 + [
    100, 199, 201, 202, 205, 206, 206, 206, 206, 206, 206, 207, 226, 299, 302, 303, 304, 306, 307, 308, 400, 401, 403, 405,
    412, 414, 416, 417, 418, 425, 428, 429, 451, 499, 500, 501, 502, 503, 504, 511, 599, 600, 777,
    999]
SPANS = ["bytes 0-4/10"] * 6 + ["bytes 5-9/10", "bytes 5-9/*", "BYTES 0-0/1", "bytes 0-4/5"] + [
    "bytes 5-4/10", "bytes 0-4/4", "bytes */10", "bytes 0-4", "bytes=0-4/10", "lines 0-4/10", "",
    "bytes 0-4/10, bytes 5-9/10", "bytes -4/10", "bytes 0-/10", "bytes 0-4/", "bytes  0-4/10"]
OFFSETS = [0] * 12 + [-1, 1, -5, 5, -10, 10, -60, 60, 60, 60, -600, -3600, 3600, 3600, -86400,
           -864000, 86400 * 365, -86400 * 365 * 40, 86400 * 365 * 47, 86400 * 365 * 60]
WAITS = [0, 0, 0, 1, 1000, 5000, 10000, 499, 500, 999, 1000, 1001, 4000, 4999, 5000, 5001, 9999,
         10000, 10001, 14999, 15000, 15001, 59999, 60000, 60001, 65000, 119999, 120000, 3600000,
         3601000, 86400000, 2147483648000, -1000, -60000]
ADDED = [None] * 7 + [0, 1, 5000, 10000, 3600000]


@st.composite
def controls(draw, directive, most, name="Cache-Control"):
    """Directives, spread over lines."""
    lines, line = [], None
    for one in draw(st.lists(directive, max_size=most)):
        if line is None or draw(seldom):
            line = one
            lines.append(line)
        else:
            line += draw(st.sampled_from([", ", ", ", ",", " ,\t", ",, "])) + one
            lines[-1] = line
    return [(name, l) for l in lines]


def dates(draw, name):
    out = [(name, date(T0 + draw(st.sampled_from(OFFSETS)), draw(st.sampled_from(FORMS))))]
    if draw(seldom):
        out.append((name, draw(st.sampled_from(
            ["0", "-1", "", "Thu, 31 Feb 2023 00:00:00 GMT", "x", "Tue, 14 Nov 2023 24:13:20 GMT",
             "Tue, 14 Nov 2023 22:60:20 GMT", out[0][1], date(T0 + 7, "fix")]))))
        if draw(half):
            del out[0]
    return out


@st.composite
def rules(draw):
    if not draw(few):
        return Rules(heuristic=not draw(few), targets=draw(st.sampled_from([2, 2, 2, 0])),
                     promised=draw(half))
    added = st.sampled_from(ADDED)
    return Rules(draw(added), draw(added), draw(added), draw(added), not draw(few),
                 draw(st.sampled_from([(), (), ((404, 10000),), ((500, 5000), (404, 0)),
                                       ((503, 1000), (429, 1000), (200, 2000)), ((206, 9000),)])),
                 draw(st.sampled_from([2, 2, 2, 0])), draw(half))


@st.composite
def responses(draw):
    """A status, its fields, the route's rules, a 304 that comes for it later."""
    lines = [("Cache-Control", draw(st.sampled_from(COMMON)))] if draw(half) else []
    lines += draw(controls(RESPONSE_DIRECTIVE, 3))
    if draw(few):
        lines += [(draw(st.sampled_from(TARGETS)), v)
                  for v in draw(st.lists(st.sampled_from(TARGETED), min_size=1, max_size=2))]
    if draw(often):
        lines += dates(draw, "Date")
    if draw(seldom):
        lines += dates(draw, "Expires")
    if draw(seldom):
        lines += [("Age", draw(seconds)) for _ in range(draw(st.integers(1, 2)))]
    modified = dates(draw, "Last-Modified") if draw(seldom) else []
    tags = [("ETag", draw(st.sampled_from(TAGS)))] if draw(often) else []
    lines += modified + tags
    if draw(few):
        lines += [("Vary", v) for v in draw(st.lists(st.sampled_from(VARIES), max_size=2))]
    others = st.lists(st.sampled_from([
        ("Pragma", "no-cache"), ("Set-Cookie", "a=b"), ("X-Secret", "1"), ("x-other", "2"),
        ("Connection", "X-Secret, close"), ("Connection", "ETag"), ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"), ("Proxy-Authentication-Info", "x"), ("TE", "x"),
        ("Upgrade", "h2c"), ("Content-Length", "5"), ("Content-Length", "6"),
        ("Content-Encoding", "gzip"),
        ("Cache-Status", "other; hit"), ("Content-Type", "text/plain"), ("Warning", "110 a b"),
        ("Trailer", "x"), ("Clear-Site-Data", '"cache"'), ("Server-Timing", "a;dur=1"),
        ("RateLimit-Limit", "5"), ("X-Request-Id", "1")]), max_size=2)
    lines += draw(others)
    status = draw(st.sampled_from(STATUSES))
    if status == 206 or draw(rarely):
        lines += [("Content-Range", draw(st.sampled_from(SPANS)))]
        lines += [("Content-Range", draw(st.sampled_from(SPANS)))] if draw(seldom) else []
    freshened = draw(st.sampled_from([[], tags, modified, tags + modified])) if not draw(few) else \
        [("ETag", draw(st.sampled_from(TAGS)))] + dates(draw, "Last-Modified")
    freshened = freshened + draw(others) + draw(controls(RESPONSE_DIRECTIVE, 2))
    return status, lines, draw(rules()), freshened


SELECTS = {
    "X-Tenant": TENANTS, "accept-language": LANGUAGES, "User-Agent": AGENTS, "Accept": ACCEPTS,
    "Cookie": ["a=1", "a=2", "a=1; b=2", "a=1;b=2", "a=1, b"]}
SELECTING = st.lists(st.one_of(*(st.sampled_from([(name, value) for value in values])
                                 for name, values in SELECTS.items())), max_size=3)


# The ones with a date end in a full stop.
TAGGED = ("If-None-Match", "If-Match", "If-Range")
CONDITIONS = st.sampled_from([(), (), (), (), ("If-None-Match",), ("If-None-Match",), ("If-Match",),
    ("If-Range",), ("If-Range.",), ("If-Modified-Since.",), ("If-Modified-Since.",),
    ("If-Unmodified-Since.",), ("If-None-Match", "If-Modified-Since."),
    ("If-Match", "If-Unmodified-Since."), ("If-Match", "If-None-Match"), ("If-Range", "If-Range"),
    ("If-None-Match", "If-None-Match"), ("If-Unmodified-Since.", "If-Modified-Since.")])


@st.composite
def exchanges(draw):
    """The request before, its times; a later request, when, and softly purged or not."""
    selecting = draw(SELECTING)
    first = selecting + (draw(controls(REQUEST_DIRECTIVE, 1)) if draw(rarely) else [])
    if draw(rarely):
        first = first + [("Authorization", "Basic eDp5")]
    if draw(seldom):
        first = first + [("Range", "bytes=0-4")]
    later = selecting
    if draw(few):
        later = draw(SELECTING) if draw(half) else \
            [(name, draw(st.sampled_from(SELECTS[name]))) for name, _ in selecting]
    if draw(few):
        later = later + draw(controls(REQUEST_DIRECTIVE, 3))
    if draw(seldom):
        later = later + [draw(st.sampled_from([
            ("Pragma", "no-cache"), ("Pragma", "x, NO-CACHE"), ("Pragma", "x"),
            ("Pragma", 'x="no-cache"')]))]
    if draw(rarely):
        later = later + [("Authorization", "Basic eDp5")]
    tag = st.sampled_from(TAGS + ["*", '"a", "b"', 'W/"a" , "c"', '"x",, "a"', '"a" "b"', "", ","])
    for name in draw(CONDITIONS):
        later = later + ([(name, draw(tag))] if name in TAGGED else dates(draw, name[:-1]))
    response_ms = T0 * 1000 + draw(st.sampled_from([0, 0, 1, 500, 999]))
    request_ms = response_ms - draw(st.sampled_from([0, 0, 1, 100, 1000, 5000, 60000, -50]))
    return (draw(st.sampled_from(METHODS)), first, request_ms, response_ms,
            draw(st.sampled_from(METHODS)), later, response_ms + draw(st.sampled_from(WAITS)),
            draw(seldom))


def heads(lines):
    return "".join("%s: %s\r\n" % line for line in lines).encode("latin-1")


def none(value):
    return -1 if value is None else value


def case_of(response, exchange):
    status, lines, r, freshened = response
    method, first, request_ms, response_ms, later_method, later, now, soft = exchange
    texts = [heads(first), heads(lines), heads(later), heads(freshened)]
    numbers = [status, int(soft), int(r.promised), request_ms, response_ms, now, none(r.ttl), none(r.force),
               none(r.swr), none(r.sie), int(r.heuristic), r.targets, len(r.negative)]
    for pair in r.negative.items():
        numbers += pair
    numbers += map(len, texts)
    line = "%s %s %s\n" % (method, later_method, " ".join(map(str, numbers)))
    return line.encode() + b"".join(texts)


# ---- comparing ----------------------------------------------------------------------------------

class Disagreement(AssertionError):
    pass


def judge(response, exchange, of_response, of_exchange, got):
    """Yields (what, the answer, the right answers). `of_` are their heads."""
    status, lines, r, freshened = response
    method, first, request_ms, response_ms, later_method, later, now, soft = exchange
    said, asked, after, r304 = of_response[0], of_exchange[0], of_exchange[1], of_response[1]
    stored = Stored(method, asked, status, said, r, request_ms, response_ms)
    yes = {True: "1", False: "0"}

    def flags(right):
        return {yes[x] for x in right}

    yield "store (%s)" % stored.clause, got["store"], flags(stored.may_store)
    if got["store"] == "0" and got["why"] in ("", "NULL"):
        yield "why", got["why"], {"a reason"}
    yield "reusable", got["reusable"], flags({request_reusable(later_method, after, r.promised)})
    yield "as GET", got["as_get"], flags(
        as_get(method, asked, status, said, r, request_ms, response_ms))
    yield "invalidates", got["invalidates"], flags({invalidates(method, status)})
    names = vary(said)
    if names is not None:
        yield "vary", got["vary"], {",".join(names)}
    yield "match", got["match"], flags(selects(said, asked, after))
    for (name, _), digit in zip(lines, got["keeps"], strict=True):
        yield "keeps " + name, digit, flags(keeps(stored, name))
    yield "freshens", got["freshens"], flags(freshens(stored, r304))
    for (name, _), digit in zip(freshened, got["updates"], strict=True):
        yield "updates " + name, digit, flags(updates(r304, name, r))
    if got["store"] == "0":
        return
    content = ("QUERY", "POST") if r.promised else ("QUERY",)
    one_key = method == later_method or not {method, later_method} & set(content)   # else they differ
    if got["reusable"] == "1" and got["match"] == "1" and one_key:
        around = (stored, method, asked, later_method, after, now)
        if got["use"] in ("fresh", "stale", "behind"):
            yield "forbidden", forbidden(*around, soft), {None}
        if got["error"] == "1":
            yield "forbidden on error", forbidden(*around, False, failed=True), {None}
    yield "lifetime", got["lifetime"], {str(stored.lifetime)}
    yield "age", got["age"], {str(stored.age(now))}
    yield "use", got["use"], stored.use(after, now, soft)
    yield "error", got["error"], flags({stored.on_error(after, now)})
    if later_method in ("GET", "HEAD"):     # no other is answered from here
        yield "condition", got["condition"], flags(not_modified(after, stored, now))
    yield "range", got["range"], flags(if_range(after, stored, now))
    yield "head", got["head"], flags(head_agrees(stored, 5, r304))
    yield "joins", got["joins"], flags(joins(stored, r304))


def explain(response, exchange, got, what, is_, right):
    status, lines, r, freshened = response
    method, first, request_ms, response_ms, later_method, later, now, soft = exchange
    return "\n".join([
        "%s is %s, right is %s" % (what, is_, " or ".join(sorted(map(str, right)))),
        "%s %r" % (method, first),
        "-> %d %r after %d ms, at %+d ms; rules %r" % (status, lines, response_ms - request_ms,
                                                      response_ms - T0 * 1000, vars(r)),
        "later %s %r after %d ms%s" % (later_method, later, now - response_ms,
                                       ", softly purged" if soft else ""),
        "304 %r" % freshened, "answers %r" % got])


count = 0


@seed(SEED)
@settings(max_examples=max(1, CASES // SIDE // SIDE), database=None, deadline=None,
          phases=[Phase.generate, Phase.shrink], print_blob=False, verbosity=Verbosity.quiet,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(responses(), min_size=SIDE, max_size=SIDE),
       st.lists(exchanges(), min_size=SIDE, max_size=SIDE))
def agree(some_responses, some_exchanges):
    global count
    left = [(r, (Head(r[1]), Head(r[3]))) for r in some_responses]
    right = [(e, (Head(e[1]), Head(e[5]))) for e in some_exchanges]
    pairs = [(r, e) for r in left for e in right]
    answers = driver.ask([case_of(r, e) for (r, _), (e, _) in pairs])
    for ((r, of_r), (e, of_e)), got in zip(pairs, answers, strict=True):
        for what, is_, allowed in judge(r, e, of_r, of_e, got):
            if is_ not in allowed:
                raise Disagreement(explain(r, e, got, what, is_, allowed))
    count += len(pairs)


def test_every_decision_is_one_that_the_model_allows():
    agree()
    assert count >= CASES // SIDE // SIDE * SIDE * SIDE
