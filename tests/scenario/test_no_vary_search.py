"""No-Vary-Search: a stored response answers every URL of its path that it says it equals."""
import json

import pytest

from harness import eventually

FRESH = ("Cache-Control", "max-age=60")


def says(origin, path, rule, *more, body=None):
    """Each answer's body is its own target."""
    origin.on(path, lambda q, c: c.respond(200, [FRESH, ("No-Vary-Search", rule)] + list(more),
                                           q.target.encode() if body is None else body))


@pytest.mark.parametrize("rule,stored,asked,hit", [
    ('params', "/a?x=1", "/a?y=2", True),
    ('params', "/a?x=1", "/a", True),
    ('params', "/a", "/a?x", True),
    ('params', "/a", "/b", False),
    ('params=("utm" "id")', "/a?utm=1&q=2&id=3", "/a?q=2", True),
    ('params=("utm" "id")', "/a?utm=1&q=2", "/a?q=3", False),
    ('params, except=("q")', "/a?q=2&z=1", "/a?k&q=2", True),
    ('params, except=("q")', "/a?q=2&z=1", "/a?q=1&z=1", False),
    ('key-order', "/a?x=1&y=2", "/a?y=2&x=1", True),
    ('key-order', "/a?x=1&x=2", "/a?x=2&x=1", False),
    ('key-order', "/a?x=a+b", "/a?%78=%61%20b&&", True),
    ('key-order, params=("z")', "/a?x=1&y=2&z", "/a?z=1&y=2&x=1", True),
    ('except=("q")', "/a?q=2&z=1", "/a?k&q=2", True),
    ('except=("q")', "/a?q=2&z=1", "/a?q=1&z=1", False),
    ('except=()', "/a?q=2&z=1", "/a", True),
    ('except=("q"), unknown=1', "/a?q=2&z=1", "/a?k&q=2", True),
    ('params=("z"), except=("q")', "/a?q=2&z=1", "/a?q=2", False),
    ('params=1', "/a?x=1", "/a?y=1", False),
    ('unknown', "/a?x=1", "/a?y=1", False),
    ('params=("x"', "/a?x=1", "/a?x=2", False),
])
def test_a_stored_response_answers_what_it_says_it_equals(origin, weir, rule, stored, asked, hit):
    w = weir()
    for path in "/a", "/b":
        says(origin, path, rule)
    assert w.get(stored).body == stored.encode()
    got = w.get(asked)
    assert got.cache_status.hit == hit and got.body == (stored if hit else asked).encode()
    if hit:
        assert got.header("No-Vary-Search") == rule and len(origin.requests) == 1
        assert w.request("HEAD", asked).cache_status.hit
        assert w.get(stored).cache_status.hit


def test_it_is_equal_under_its_own_host_alone(origin, weir):
    w = weir()
    says(origin, "/a", "params")
    w.get("/a?x")
    assert not w.get("/a?y", [("Host", "other.example")]).cache_status.hit


def test_variants_stay_apart(origin, weir):
    w = weir()
    origin.on("/a", lambda q, c: c.respond(200, [FRESH, ("No-Vary-Search", "params"),
                                                 ("Vary", "X-Tenant")],
                                           dict(q.headers).get("X-Tenant", "").encode()))
    one, two = [("X-Tenant", "1")], [("X-Tenant", "2")]
    assert w.get("/a?x", one).body == b"1" and w.get("/a?x", two).body == b"2"
    a, b = w.get("/a?y", one), w.get("/a?z", two)
    assert (a.body, b.body) == (b"1", b"2") and a.cache_status.hit and b.cache_status.hit


def test_a_stale_one_is_revalidated_for_an_equal_url(origin, weir):
    w = weir()
    head = [("ETag", '"1"'), ("No-Vary-Search", "params")]
    origin.on("/a", [lambda q, c: c.respond(200, head + [("Cache-Control", "max-age=0")], b"x"),
                     lambda q, c: c.respond(304, head + [FRESH])])
    w.get("/a?x")
    got = w.get("/a?y")
    assert got.body == b"x" and got.cache_status.fwd == "stale"
    assert origin.last("/a").target == "/a?y"
    assert dict(origin.last("/a").headers)["If-None-Match"] == '"1"'
    assert w.get("/a?z").cache_status.hit


def test_a_stale_one_may_be_served_while_it_is_revalidated(origin, weir):
    w = weir()
    head = [("No-Vary-Search", "params")]
    origin.on("/a", [lambda q, c: c.respond(200, head + [
        ("Cache-Control", "max-age=0, stale-while-revalidate=60")], b"old"),
        lambda q, c: c.respond(200, head + [FRESH], b"new")])
    w.get("/a?x")
    assert w.get("/a?y").body == b"old"
    origin.wait("/a", 2)
    eventually(lambda: w.get("/a?z").body == b"new")


def test_a_304_that_changes_the_rule_is_asked_for_again_whole(origin, weir):
    w = weir()
    tag = ("ETag", '"1"')

    def answer(q, c):
        if "If-None-Match" in dict(q.headers):
            c.respond(304, [tag, FRESH, ("No-Vary-Search", 'params=("x")')])
        else:
            rule = "params" if len(origin.requests) == 1 else 'params=("x")'
            c.respond(200, [tag, ("Cache-Control", "max-age=%d" % (60 * (rule != "params"))),
                            ("No-Vary-Search", rule)], b"x")
    origin.on("/a", answer)
    w.get("/a?x=1&y=1")
    w.get("/a?x=1&y=1")
    assert len(origin.requests) == 3
    assert w.get("/a?x=2&y=1").cache_status.hit
    assert not w.get("/a?x=2&y=2").cache_status.hit


def test_the_newer_of_two_rules_holds(origin, weir):
    w = weir()
    says(origin, "/a", 'params=("x")', ("Date", "Sat, 01 Jan 2022 00:00:00 GMT"),
         ("Cache-Control", "max-age=999999999"), body=b"old")
    w.get("/a?x=1&y=1")
    says(origin, "/a", "params, except=(\"y\")", body=b"new")
    assert w.get("/a?z&y=1").body == b"new"
    assert w.get("/a?x=2&y=1").body == b"new"
    assert w.get("/a?y=1").body == b"new"


def test_what_was_stored_for_the_url_alone_gives_way(origin, weir):
    w = weir()
    tag = ("Cache-Control", "max-age=0")
    origin.on("/a", [lambda q, c: c.respond(200, [tag], b"alone"),
                     lambda q, c: c.respond(200, [FRESH, ("No-Vary-Search", "params")], b"all")])
    w.get("/a?x")
    assert w.get("/a?x").body == b"all"
    got = w.get("/a?x")
    assert got.body == b"all" and got.cache_status.hit


def test_more_rules_than_are_kept_cost_hits_alone(origin, weir):
    w = weir()
    origin.on("/a", lambda q, c: c.respond(200, [FRESH, (
        "No-Vary-Search", 'params=("%s")' % q.target.split("?")[1].split("=")[0])], b"x"))
    for i in range(12):
        w.get("/a?p%d=1" % i)
        assert w.get("/a?p%d=1" % i).cache_status.hit


@pytest.mark.parametrize("what", [
    {"url": "{base}/a?x=7&q=1"}, {"url": "/a?q=1&x=7"}, {"url": "/a?q=1"}, {"url": "{base}/a?q=1"},
    {"prefix": "{base}/a"}, {"prefix": "/a"}, {"prefix": "/a?x=7&q=1"}, {"prefix": "{base}/a?x"},
    {"pattern": "/a?x=7*"}, {"pattern": "/a*"}, {"pattern": "/a\\?x=*"}, {"tags": ["t"]},
    {"groups": ["g"]}, {"route": "r"}, {"all": True},
])
@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_of_what_it_covered_takes_it(origin, weir, what, soft):
    w = weir(routes=[{"path": "/**", "name": "r", "tags": ["t"]}])
    says(origin, "/a", 'params=("x"), key-order', ("Cache-Groups", '"g"'))
    w.get("/a?q=1&x=1")
    what = {k: v.replace("{base}", "http://%s" % w.host) if isinstance(v, str) else v
            for k, v in what.items()}
    if "url" in what and what["url"].startswith("http"):
        assert w.purge(dry_run=True, **what)["objects"] == 1
        assert w.purge(soft=soft, **what)["objects"] == 1
    else:
        w.purge(soft=soft, **what)
    got = w.get("/a?q=1&x=2").cache_status
    assert not got.hit and got.fwd == ("stale" if soft else "uri-miss")


@pytest.mark.parametrize("what", [
    {"url": "{base}/a?x=7&q=2"}, {"url": "/b?q=1"}, {"url": "{base}/a"}, {"url": "/a"},
    {"prefix": "/b"}, {"prefix": "/aa?"}, {"pattern": "/b?x*"}, {"pattern": "/a"}])
def test_a_purge_of_what_it_did_not_cover_leaves_it(origin, weir, what):
    w = weir()
    says(origin, "/a", 'params=("x")')
    w.get("/a?q=1&x=1")
    w.purge(**{k: v.replace("{base}", "http://%s" % w.host) for k, v in what.items()})
    assert w.get("/a?q=1&x=2").cache_status.hit


def test_a_write_to_an_equal_url_purges_it(origin, weir):
    w = weir()
    origin.on("/a", lambda q, c: c.respond(200, [FRESH, ("No-Vary-Search", 'params=("x")')], b""))
    w.get("/a?q=1&x=1")
    w.post("/a?q=2&x=1")
    assert w.get("/a?q=1&x=2").cache_status.hit
    w.post("/a?x=3&q=1")
    assert not w.get("/a?q=1&x=2").cache_status.hit


def test_a_write_meets_a_fetch_under_way_whose_rule_nobody_knew(origin, weir):
    w = weir()
    gate, head = origin.gate(), [FRESH, ("No-Vary-Search", "params")]

    def answer(q, c):
        if q.method == "GET" and origin.count("/a") == 1:
            gate.wait()
        c.respond(200, head, b"x")
    origin.on("/a", answer)
    with w.client() as c:
        c.start("GET", "/a?x=1")
        origin.wait("/a", 1)
        w.post("/a?x=2")
        gate.set()
        assert c.response().body == b"x"
    assert not w.get("/a?x=3").cache_status.hit


def test_rules_of_the_route_go_before(origin, weir):
    w = weir(routes=[{"path": "/**", "key": {"headers": ["X-Tenant"]},
                      "query": {"ignore": ["utm_*"]}}])
    says(origin, "/a", 'params=("x")')
    one, two = [("X-Tenant", "1")], [("X-Tenant", "2")]
    w.get("/a?q=1&x=1&utm_a=1", one)
    assert w.get("/a?utm_b&x=2&q=1", one).cache_status.hit
    assert not w.get("/a?x=2&q=1", two).cache_status.hit
    assert w.purge(url="http://%s/a?q=1&x=5" % w.host)["objects"] == 2
    assert not w.get("/a?x=2&q=1", one).cache_status.hit


def test_an_explanation_finds_it(origin, weir):
    w = weir()
    says(origin, "/a", "params")
    w.get("/a?x=1")
    r = w.cli("explain", "--json", "--admin", w.admin_url, "http://%s/a?y=2" % w.host)
    told = json.loads(r.stdout)
    assert told["answer"] == "hit"
    assert told["stored"][0]["fields"]["No-Vary-Search"] == "params"


# ---- of many requests at once for what a known rule calls equal one goes to the origin ------------

def learn(w, origin, rule, path="/a"):
    """A rule is known as long as something is stored by it."""
    says(origin, path, rule)
    w.get(path + "?learn=1&q=0")
    return origin.count(path)


def behind_a_gate(origin, *answers, path="/a"):
    """The first request waits, and each is answered in its turn; the last answer stays."""
    gate, seen = origin.gate(), origin.count(path)

    def handler(q, c):
        n = origin.count(path) - seen
        if n == 1:
            gate.wait()
        answers[min(n, len(answers)) - 1](q, c)
    origin.on(path, handler)
    return gate


def answer(*headers, status=200, body=None):
    return lambda q, c: c.respond(status, list(headers), q.target.encode() if body is None else body)


def collapsed(w, n):
    eventually(lambda: w.metric("weir_collapsed_total") >= n, message="%d did not collapse" % n)


@pytest.mark.parametrize("rule,targets,fetches", [
    ('params=("x")', ["/a?q=1&x=%d" % i for i in range(6)], 1),
    ('except=("q")', ["/a?k%d&q=1" % i for i in range(6)], 1),
    ('params=("x")', ["/a?q=%d&x=%d" % (i % 2, i) for i in range(2, 8)], 2),
    ('key-order', ["/a?q=1&z=2", "/a?z=2&q=1", "/a?%7a=2&q=1", "/a?q=1&z=2&"], 1),
])
def test_equal_misses_collapse_once_the_rule_is_known(origin, weir, rule, targets, fetches):
    w = weir(workers=2)
    before = learn(w, origin, rule)
    gate = origin.gate()
    origin.on("/a", lambda q, c: (gate.wait(), answer(FRESH, ("No-Vary-Search", rule))(q, c)))
    got = w.parallel(len(targets), lambda i: w.get(targets[i]),
                     meanwhile=lambda: (collapsed(w, len(targets) - fetches), gate.set()))
    assert origin.count("/a") - before == fetches
    assert len({a.body for a in got}) == fetches and all(a.status == 200 for a in got)
    assert all(w.get(t).cache_status.hit for t in targets)


def test_an_equal_request_joins_the_revalidation_of_a_stale_one(origin, weir):
    w = weir(workers=2)
    head = [("ETag", '"1"'), ("No-Vary-Search", "except=()")]
    origin.on("/a", answer(*head, ("Cache-Control", "max-age=0"), body=b"x"))
    w.get("/a?x")
    gate = behind_a_gate(origin, answer(*head, FRESH, status=304, body=b""))
    got = w.parallel(6, lambda i: w.get("/a?%d" % i),
                     meanwhile=lambda: (collapsed(w, 5), gate.set()))
    assert origin.count("/a") == 2 and {a.body for a in got} == {b"x"}
    assert sum(a.cache_status.collapsed for a in got) == 5


def test_one_revalidation_is_made_behind_a_stale_answer_whichever_equal_url_is_asked(origin, weir):
    w = weir(workers=2)
    head = [("No-Vary-Search", "except=()")]
    origin.on("/a", answer(*head, ("Cache-Control", "max-age=0, stale-while-revalidate=60"), body=b"x"))
    w.get("/a?x")
    gate = behind_a_gate(origin, answer(*head, FRESH, body=b"y"))
    for i in range(6):
        assert w.get("/a?%d" % i).body == b"x"
    gate.set()
    eventually(lambda: w.get("/a?z").body == b"y")
    assert origin.count("/a") == 2


@pytest.mark.parametrize("now", [[], [("No-Vary-Search", 'params=("z")')],
                                 [("No-Vary-Search", "params=(")]])
def test_those_that_the_answer_does_not_call_equal_ask_for_themselves(origin, weir, now):
    w = weir(workers=2)
    before = learn(w, origin, 'params=("x")')
    gate = behind_a_gate(origin, answer(FRESH, *now))
    targets = ["/a?q=1&x=%d" % (i % 3) for i in range(9)]
    got = w.parallel(9, lambda i: w.get(targets[i]),
                     meanwhile=lambda: (collapsed(w, 8), gate.set()))
    assert [a.body for a in got] == [t.encode() for t in targets]
    assert origin.count("/a") - before == 3         # each URL once
    assert all(w.get(t).body == t.encode() and w.get(t).cache_status.hit for t in targets)


def test_those_that_a_new_rule_still_calls_equal_stay(origin, weir):
    w = weir(workers=2)
    before = learn(w, origin, 'params=("x")')
    gate = behind_a_gate(origin, answer(FRESH, ("No-Vary-Search", 'params=("x" "z")'), body=b"one"))
    got = w.parallel(6, lambda i: w.get("/a?q=1&x=%d" % i),
                     meanwhile=lambda: (collapsed(w, 5), gate.set()))
    assert origin.count("/a") - before == 1 and {a.body for a in got} == {b"one"}
    assert w.get("/a?q=1&z").cache_status.hit


def test_an_answer_that_is_not_stored_is_of_its_own_url_alone(origin, weir):
    w = weir(workers=2)
    before = learn(w, origin, 'params=("x")')
    gate = behind_a_gate(origin, answer(("Cache-Control", "no-store")), answer(FRESH))
    targets = ["/a?q=1&x=%d" % (i % 3) for i in range(6)]
    got = w.parallel(6, lambda i: w.get(targets[i]),
                     meanwhile=lambda: (collapsed(w, 5), gate.set()))
    assert [a.body for a in got] == [t.encode() for t in targets]
    assert origin.count("/a") - before <= 4


def test_an_error_while_it_is_validated_leaves_the_stale_one_to_all(origin, weir):
    w = weir(workers=2)
    origin.on("/a", answer(("No-Vary-Search", "except=()"), body=b"old", *[
        ("Cache-Control", "max-age=0, stale-if-error=60")]))
    w.get("/a?x")
    gate = behind_a_gate(origin, answer(status=503, body=b"no"))
    got = w.parallel(6, lambda i: w.get("/a?%d" % i),
                     meanwhile=lambda: (collapsed(w, 5), gate.set()))
    assert {a.body for a in got} == {b"old"} and origin.count("/a") == 2


@pytest.mark.parametrize("what", [{"url": "{base}/a?q=1&x=9"}, {"pattern": "/a?q=1&x=9*"},
                                  {"prefix": "{base}/a?q=1&x=9"}, {"tags": ["t"]}])
def test_who_comes_after_a_purge_joins_no_fetch_for_another_url(origin, weir, what):
    w = weir(workers=2, routes=[{"path": "/**", "tags": ["t"]}])
    before = learn(w, origin, 'params=("x")')
    rule = ("No-Vary-Search", 'params=("x")')
    gate = behind_a_gate(origin, answer(FRESH, rule, body=b"old"), answer(FRESH, rule, body=b"new"))
    with w.client() as c:
        c.start("GET", "/a?q=1&x=1")
        origin.wait("/a", before + 1)
        w.purge(**{k: v.replace("{base}", "http://%s" % w.host) if isinstance(v, str) else v
                   for k, v in what.items()})
        w.get("/a?learn=2&q=0")                     # the rule is known again
        asked = origin.count("/a")
        assert w.get("/a?q=1&x=2").body == b"new" and origin.count("/a") == asked + 1
        gate.set()
        assert c.response().body == b"old"
    assert w.get("/a?q=1&x=3").body == b"new"


def test_a_range_of_an_equal_url_waits_for_the_whole_and_parts_stay_with_their_own(origin, weir):
    w = weir(workers=2)
    rule = ("No-Vary-Search", 'params=("x")')
    before = learn(w, origin, 'params=("x")')
    gate = behind_a_gate(origin, answer(FRESH, rule, ("ETag", '"1"'), body=b"0123456789"))
    with w.client() as one, w.client() as two:
        one.start("GET", "/a?q=1&x=1")
        origin.wait("/a", before + 1)
        two.start("GET", "/a?q=1&x=2", [("Range", "bytes=2-4")])
        collapsed(w, 1)
        gate.set()
        assert one.response().body == b"0123456789"
        got = two.response()
        assert (got.status, got.body) == (206, b"234") and origin.count("/a") == before + 1

    def part(q, c):
        c.respond(206, [FRESH, rule, ("ETag", '"1"'), ("Content-Range", "bytes 0-1/10")], b"01")
    origin.on("/p", part)
    for i in range(2):
        assert w.get("/p?x=%d" % i, [("Range", "bytes=0-1")]).status == 206
    assert origin.count("/p") == 2


def test_a_query_with_content_collapses_by_the_rule_too(origin, weir):
    w = weir(workers=2)
    rule = ("No-Vary-Search", 'params=("x")')
    origin.on("/a", lambda q, c: c.respond(200, [FRESH, rule], q.body))
    kind = [("Content-Type", "application/json")]
    w.request("QUERY", "/a?x=0", kind, b"[0]")
    gate = behind_a_gate(origin, lambda q, c: c.respond(200, [FRESH, rule], q.body))
    got = w.parallel(4, lambda i: w.request("QUERY", "/a?x=%d" % i, kind, b"[1]"),
                     meanwhile=lambda: (collapsed(w, 3), gate.set()))
    assert {a.body for a in got} == {b"[1]"} and origin.count("/a") == 2
