"""The plugin rate_limit: who is let in, what answers tell, and a limit that instances share."""
import os
import re
import subprocess
import time

import pytest

from harness import eventually, weir_binary
from test_plugins import hashed, shipped

PLUGIN = os.path.join(os.path.dirname(weir_binary()), "plugins", "rate_limit.so")
ALL = 'the "/**"'
FRESH = [("Cache-Control", "max-age=60")]


def limited(*routes, before=(), also={}, **options):
    """Routes are pairs of a path and options; also: other plugins of them."""
    return {"plugins": [*before, {"name": "rate_limit", "file": PLUGIN, "options": options}],
            "routes": [{"path": path, "name": "the \"%s\"" % path, "plugins": {**also, "rate_limit": its}}
                       for path, its in routes]}


def items(r, name):
    """The items of a structured field (RFC 9651), each line by itself: {name: {parameter: integer}}."""
    found = {}
    for key, value in r.headers:
        if key.lower() == name.lower():
            m = re.fullmatch(r'"((?:[ !#-\[\]-~]|\\["\\])*)"((?:;[a-z]=\d{1,15})+)', value)
            assert m, value
            found[re.sub(r"\\(.)", r"\1", m[1])] = {k: int(v) for k, v in re.findall(r";([a-z])=(\d+)", m[2])}
    return found


def statuses(w, n, path="/a", headers=()):
    return [w.get(path, headers).status for _ in range(n)]


def count(w, what):
    return w.metric("weir_plugin_rate_limit_%s_total" % what)


# ---- one instance --------------------------------------------------------------------------------

def test_a_burst_is_let_in_and_who_comes_again_when_told_to_is_too(origin, weir):
    origin.on("/a", body=b"a", headers=FRESH + [("RateLimit", '"theirs";r=7')])
    w = weir(**limited(("/**", {"rate": "60/m", "burst": 3})))
    answers = [w.get("/a") for _ in range(4)]
    assert [r.status for r in answers] == [200, 200, 200, 429]
    assert [r.cache_status.hit for r in answers[:3]] == [False, True, True]        # hits count as well
    assert items(answers[0], "RateLimit") == {"theirs": {"r": 7}, ALL: {"r": 2, "t": 2}}
    assert items(answers[1], "RateLimit") == {ALL: {"r": 1, "t": 1}}              # of no other exchange
    assert items(answers[2], "RateLimit") == {ALL: {"r": 0, "t": 1}}
    for r in answers:
        assert items(r, "RateLimit-Policy") == {ALL: {"q": 3, "w": 3}}
    no = answers[3]
    assert (no.header("Retry-After"), items(no, "RateLimit")) == ("1", {ALL: {"r": 0, "t": 1}})
    assert no.header("Content-Type") == "application/problem+json" and no.header("Cache-Control") == "no-store"
    assert no.json()["status"] == 429 and no.json()["detail"] == "too many requests; the next one in 1 s"
    time.sleep(int(no.header("Retry-After")))
    assert w.get("/a").status == 200
    assert (count(w, "allowed"), count(w, "refused")) == (4, 1)


def test_routes_share_the_plugins_limit_unless_they_have_their_own(origin, weir):
    origin.on("*", body=b"x", headers=FRESH)
    w = weir(**limited(("/own", {"rate": "100/h", "burst": 1}), ("/burst", {"burst": 3}), ("/try", {
        "dry_run": True, "rate": "1/h"}), ("/free", False), ("/plain", {}), ("/**", True), rate="2/h"))
    explained = w.api("GET", "/explain?url=http://%s/own" % w.host).json()          # takes none of it
    assert explained["plugins"]["asked"] == ["rate_limit"] and explained["verdict"]["outcome"] == "miss"
    assert statuses(w, 2, "/own") == [200, 429]
    assert items(w.get("/burst"), "RateLimit-Policy") == {'the "/burst"': {"q": 3, "w": 5400}}
    assert statuses(w, 1, "/plain") + statuses(w, 2, "/x") == [200, 200, 429]
    no = w.get("/plain")
    assert items(no, "RateLimit") == {"default": {"r": 0, "t": int(no.header("Retry-After"))}}
    assert 1790 <= int(no.header("Retry-After")) <= 1800
    assert items(no, "RateLimit-Policy") == {"default": {"q": 2, "w": 3600}}
    assert statuses(w, 3, "/free") == statuses(w, 3, "/try") == [200] * 3
    assert w.get("/free").header("RateLimit") is None and w.get("/try").header("RateLimit") is None
    assert count(w, "dry_run") == 3


def test_routes_of_one_path_have_buckets_of_their_own_also_without_a_name(origin, weir):
    origin.on("*", body=b"x", headers=FRESH)
    plugins = limited()["plugins"]

    def routes(writes, reads):
        return [{"path": "/**", "methods": methods, "plugins": {"rate_limit": {"rate": rate}}}
                for methods, rate in ((["POST"], writes), (["GET"], reads))]
    w = weir(plugins=plugins, routes=routes("1/h", "100/h"))
    assert statuses(w, 3) == [200] * 3
    assert [w.request("POST", "/a", [], b"").status for _ in range(2)] == [200, 429]
    assert statuses(w, 3) == [200] * 3
    w.write_config(plugins=plugins, routes=routes("1/h", "1/h"))
    assert w.api("POST", "/reload").status == 200
    assert statuses(w, 1) == [429] and w.request("POST", "/a", [], b"").status == 429


def test_each_client_is_told_apart_by_its_address_as_trusted_proxies_tell_it(origin, weir):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(**limited(("/**", {"rate": "1/h"}), fields=False))
    assert statuses(w, 2) == [200, 429]
    assert statuses(w, 1, headers=[("X-Forwarded-For", "192.0.2.1")]) == [429]      # anybody may say so
    assert w.get("/a").header("RateLimit") is None
    w.write_config(listen={"trust": ["127.0.0.0/8", "10.0.0.0/8"]}, **limited(("/**", {"rate": "1/h"})))
    assert w.api("POST", "/reload").status == 200
    for said, status in [
            (["192.0.2.1"], 200), (["192.0.2.1"], 429), (["192.0.2.2:4711"], 200), (["192.0.2.2"], 429),
            (["192.0.2.3, 192.0.2.1"], 429),                    # the first is what the client wrote
            (["192.0.2.4, 10.1.1.1", "10.2.2.2"], 200), (["192.0.2.4"], 429),
            (["::ffff:192.0.2.4"], 429), (["2001:db8::1"], 200), (["[2001:db8::ffff:2]:80"], 429),
            (["2001:db8:0:1::1"], 200), (["10.3.3.3"], 200), (["192.0.2.9, unknown, 10.3.3.3"], 429),
            (["192.0.2.9, unknown"], 429), ([], 429)]:
        assert statuses(w, 1, headers=[("X-Forwarded-For", s) for s in said]) == [status], said


def test_a_bucket_is_for_each_combination_of_its_key(origin, weir):
    origin.on("*", body=b"x", headers=FRESH)
    w = weir(**limited(("/{shop}/{item}", {"rate": "1/h", "key": ["header:x-tenant", "param:shop"]}), ("/**", {
        "rate": "1/h", "key": "host"})))

    def get(path, *fields):
        return w.get(path, fields).status
    assert [get("/s1/1", ("X-Tenant", "a")), get("/s1/2", ("X-Tenant", "a"))] == [200, 429]
    assert [get("/s2/1", ("X-Tenant", "a")), get("/s1/1", ("X-Tenant", "b"))] == [200, 200]
    assert [get("/s1/1"), get("/s1/1"), get("/s2/1")] == [200, 429, 200]            # by its address
    assert w.api("GET", "/explain?url=http://one/h").status == 200                  # is nobody's request
    assert [get("/h", ("Host", "one")), get("/h", ("Host", "two")), get("/h", ("Host", "one"))] == [200, 200, 429]


def test_a_key_of_api_key_has_its_own_bucket_and_nobody_takes_another_ones(origin, weir, tmp_path):
    origin.on("/a", body=b"a", headers=FRESH)
    keys = tmp_path / "keys"
    keys.write_text(hashed(("k1", "one"), ("k2", "two"), ("k2b", "two")))
    w = weir(**limited(("/**", {"rate": "2/h", "key": "header:X-Consumer"}),
                       also={"api_key": {"forward": "X-Consumer"}}, before=[{"name": "api_key", "file": shipped("api_key"), "options": {"file": str(keys)}}]))

    def get(key, *more):
        return w.get("/a", [("X-API-Key", key), *more]).status
    assert [get("k1"), get("k1"), get("k1")] == [200, 200, 429]
    assert [get("k2"), get("k2b", ("X-Consumer", "one")), get("k2", ("X-Consumer", "x"))] == [200, 200, 429]
    assert get("unknown") == 401                                # costs nothing of anybody's


def test_a_reload_keeps_the_buckets_and_obeys_the_new_limit(origin, weir):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(**limited(("/**", {"rate": "2/h"})))
    assert statuses(w, 3) == [200, 200, 429]
    for burst, wanted in ((2, [429]), (3, [200, 429])):
        w.write_config(**limited(("/**", {"rate": "2/h", "burst": burst}), buckets=2000))
        assert w.api("POST", "/reload").status == 200
        assert statuses(w, len(wanted)) == wanted, burst
    assert w.log_has("another number of `buckets` needs a restart")


def test_workers_together_let_in_no_more_than_one_would(origin, weir):
    origin.on("/a", body=b"a", headers=FRESH)
    w = weir(workers=4, **limited(("/**", {"rate": "50/h"})))
    w.get("/a")
    got = w.parallel(8, lambda i: statuses(w, 10))
    assert sum(s.count(200) for s in got) == 49 and sum(s.count(429) for s in got) == 31


def test_check_names_what_is_wrong_and_where(tmp_path):
    config = tmp_path / "c.yaml"

    def check(options, route):
        config.write_text("origins: {api: {servers: [\"http://127.0.0.1:9\"]}}\nplugins:\n  - name: rate_limit\n"
                          "    file: %s\n    options: {%s}\nroutes:\n  - path: /a\n    plugins:\n      rate_limit: {%s}\n"
                          % (PLUGIN, options, route))
        got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True)
        return got.stdout.replace(str(config) + ":", "")
    for options, route, wanted in [
            ("", "", "9:19: routes[0].plugins.rate_limit.rate: missing; as 10/s or 100/m, here or in the plugin"),
            ("rate: 10", "", '5:21: plugins[0].options.rate: "10" is not understood'),
            ("rate: ~", "", "5:21: plugins[0].options.rate: no value; a rate such as"),
            ("key: [client, ip]", "rate: 1/s", "5:20: plugins[0].options.key: ip is not known; client, route, host"),
            ("", "rate: 1/s, key: 'header:'", "routes[0].plugins.rate_limit.key: header: is not known"),
            ("", "rate: 1/s, burst: 0", "routes[0].plugins.rate_limit.burst: \"0\" is too small"),
            ("shared: true", "rate: 1/s", "plugins[0].options.shared: there is nothing to share through"),
            ("rate: 1/s, burts: 3", "", "5:26: plugins[0].options.burts: unknown key; did you mean burst")]:
        assert wanted in check(options, route), (options, route, check(options, route))
    assert " ok, 1 route" in check("rate: 1/s", "")


# ---- shared --------------------------------------------------------------------------------------

@pytest.fixture
def fleet(weir, redis):
    """fleet(n, route's options): so many instances that share a Redis, and have asked it once."""
    def make(n, its, **cache):
        made = [weir(cache={"redis": {"url": redis.url, "timeout": "2s", **cache}},
                     **limited(("/**", its), ("/other", its))) for _ in range(n)]
        return made
    return make


def shared_buckets(redis):
    return redis.call("KEYS", "weir:p:rate_limit:*")


def test_instances_share_a_limit(origin, fleet, redis):
    origin.on("/a", body=b"a", headers=FRESH)
    a, b = fleet(2, {"rate": "100/h"})
    first = a.get("/a")
    assert items(first, "RateLimit")[ALL]["r"] == 99
    got = [w.get("/a") for _ in range(70) for w in (a, b)]
    assert [r.status for r in got].count(200) == 99              # not one too many, nor too few
    assert {r.status for r in got} == {200, 429}
    last = b.get("/a")
    assert items(last, "RateLimit")[ALL] == {"r": 0, "t": int(last.header("Retry-After"))}
    assert 1 <= int(last.header("Retry-After")) <= 36
    asks = count(a, "asks") + count(b, "asks")
    assert asks < 60 and count(a, "fallback") == count(b, "fallback") == 0
    key, = shared_buckets(redis)
    assert 3500000 < redis.call("PTTL", key) <= 3600001
    refused = [w.get("/a").status for _ in range(20) for w in (a, b)]
    assert set(refused) == {429} and count(a, "asks") + count(b, "asks") == asks        # nor is Redis asked for them


def test_many_at_once_share_a_limit_to_the_last_token(origin, fleet):
    origin.on("/a", body=b"a", headers=FRESH)
    both = fleet(2, {"rate": "30/h"})
    for w in both:
        w.get("/a")
    got = both[0].parallel(12, lambda i: statuses(both[i % 2], 5))
    assert sum(s.count(200) for s in got) == 28 and sum(s.count(429) for s in got) == 32


def test_without_redis_each_instance_limits_by_itself_and_it_comes_back(origin, fleet, redis):
    origin.on("/a", body=b"a", headers=FRESH)
    a, b = fleet(2, {"rate": "40/h"}, timeout="200ms")
    assert statuses(a, 10) == [200] * 10 and statuses(b, 5) == [200] * 5
    redis.kill()
    got = [a.get("/a") for _ in range(35)]
    assert [r.status for r in got] == [200] * 30 + [429] * 5    # it let 10 in before
    assert items(got[29], "RateLimit")[ALL]["r"] == 0 and got[34].header("Retry-After")
    assert statuses(b, 3) == [200] * 3
    assert count(a, "fallback") >= 25
    eventually(lambda: a.log_has("plugin rate_limit: Redis does not answer; each instance limits by itself"))
    redis.start()
    eventually(lambda: (a.get("/a"), count(a, "asks") and a.log_has("Redis answers again: limits are shared"))[1])
    assert a.log().count("Redis does not answer; each") == 1


def test_a_redis_that_hangs_or_refuses_costs_no_answer(origin, fleet, redis):
    origin.on("/a", body=b"a", headers=FRESH)
    w, = fleet(1, {"rate": "40/h"}, timeout="200ms")
    assert statuses(w, 2) == [200] * 2
    redis.pause()
    assert statuses(w, 45) == [200] * 38 + [429] * 7
    redis.resume()
    eventually(lambda: (w.get("/a"), w.log_has("limits are shared"))[1])
    before = shared_buckets(redis)
    origin.on("/other", body=b"a", headers=FRESH)
    key, = eventually(lambda: w.get("/other") and set(shared_buckets(redis)) - set(before))
    redis.call("DEL", key)
    redis.call("LPUSH", key, "not ours")
    assert statuses(w, 3, "/other") == [200] * 3
    eventually(lambda: w.log_has("Redis does not answer: WRONGTYPE"))
