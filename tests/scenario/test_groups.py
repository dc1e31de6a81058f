"""Groups of stored responses (RFC 9875): what names them, what invalidates them, and what does not."""
import json

import pytest

FRESH = ("Cache-Control", "max-age=60")


def grouped(origin, path, *values):
    origin.on(path, headers=[FRESH] + [("Cache-Groups", v) for v in values], body=b"x")


def stored(w, path, headers=()):
    """Stored now, whatever was."""
    w.get(path, headers)
    assert w.get(path, headers).cache_status.hit


def fresh(w, path, headers=()):
    return w.get(path, list(headers) + [("Cache-Control", "only-if-cached")]).status == 200


def write(origin, w, *values, method="POST", status=200, headers=()):
    origin.on("/write", status=status, headers=[("Cache-Group-Invalidation", v) for v in values])
    return w.request(method, "/write", headers, None if method in ("GET", "HEAD") else b"x")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("status", [200, 201, 303])
def test_a_write_invalidates_the_groups_that_its_answer_names(origin, weir, method, status):
    w = weir()
    grouped(origin, "/a", '"scores", "x"')
    grouped(origin, "/b", '"y"', '"scores";since=1')
    grouped(origin, "/c", '"SCORES"', '"score"')
    for path in "/a", "/b", "/c":
        stored(w, path)
    answer = write(origin, w, '"scores", "nothing"', method=method, status=status)
    assert answer.header("Cache-Group-Invalidation") == '"scores", "nothing"'
    assert not fresh(w, "/a") and not fresh(w, "/b") and fresh(w, "/c")


def test_what_is_invalidated_takes_its_other_groups_not_with_it(origin, weir):
    w = weir()
    grouped(origin, "/a", '"one", "two"')
    grouped(origin, "/b", '"two"')
    stored(w, "/a"), stored(w, "/b")
    write(origin, w, '"one"')
    assert not fresh(w, "/a") and fresh(w, "/b")


@pytest.mark.parametrize("method,status", [("GET", 200), ("HEAD", 200), ("POST", 404), ("POST", 500)])
def test_safe_methods_and_errors_invalidate_no_group(origin, weir, method, status):
    w = weir()
    grouped(origin, "/a", '"g"')
    stored(w, "/a")
    write(origin, w, '"g"', method=method, status=status)
    assert fresh(w, "/a")


@pytest.mark.parametrize("value", ["g", '"g", h', '("g")', '"g" "h"', '"g'])
def test_a_field_that_is_no_list_of_strings_names_nothing(origin, weir, value):
    w = weir()
    grouped(origin, "/a", value)
    grouped(origin, "/b", '"g"')
    stored(w, "/a"), stored(w, "/b")
    write(origin, w, value)
    assert fresh(w, "/b")
    write(origin, w, '"g"')
    assert fresh(w, "/a") and not fresh(w, "/b")


def test_a_group_ends_at_its_origin(origin, weir):
    w = weir()
    other = [("Host", "other.example")]
    grouped(origin, "/a", '"g"')
    stored(w, "/a"), stored(w, "/a", other)
    write(origin, w, '"g"', headers=other)
    assert fresh(w, "/a") and not fresh(w, "/a", other)


def test_where_hosts_share_what_is_stored_they_share_its_groups(origin, weir):
    w = weir(routes=[{"path": "/**", "key": {"host": False}}])
    grouped(origin, "/a", '"g"')
    stored(w, "/a")
    write(origin, w, '"g"', headers=[("Host", "other.example")])
    assert not fresh(w, "/a")


def test_a_hundred_groups_of_a_hundred_characters_count(origin, weir):
    w = weir()
    names = ["%03d%s" % (i, "g" * 97) for i in range(100)]
    grouped(origin, "/a", ", ".join('"%s"' % n for n in names))
    for name in names[0], names[50], names[99]:
        stored(w, "/a")
        write(origin, w, '"%s"' % name)
        assert not fresh(w, "/a")


def test_a_304_changes_the_groups(origin, weir):
    w = weir()
    tag = ("ETag", '"1"')
    origin.on("/a", [lambda q, c: c.respond(200, [("Cache-Control", "max-age=0"), tag,
                                                  ("Cache-Groups", '"old"')], b"x"),
                     lambda q, c: c.respond(304, [FRESH, tag, ("Cache-Groups", '"new"')])])
    w.get("/a")
    assert w.get("/a").header("Cache-Groups") == '"new"'
    write(origin, w, '"old"')
    assert fresh(w, "/a")
    write(origin, w, '"new"')
    assert not fresh(w, "/a")


def test_a_304_without_groups_keeps_them_even_where_clients_never_see_them(origin, weir):
    w = weir(routes=[{"path": "/**", "response": {"remove": ["Cache-Groups"]}}])
    tag = ("ETag", '"1"')
    origin.on("/a", [lambda q, c: c.respond(200, [("Cache-Control", "max-age=0"), tag,
                                                  ("Cache-Groups", '"g"')], b"x"),
                     lambda q, c: c.respond(304, [FRESH, tag])])
    assert w.get("/a").header("Cache-Groups") is None
    assert w.get("/a").cache_status.fwd == "stale" and fresh(w, "/a")
    write(origin, w, '"g"')
    assert not fresh(w, "/a")


def test_a_group_is_purged_by_operators_of_one_origin_or_of_all(origin, weir):
    w = weir()
    other = [("Host", "other.example")]
    grouped(origin, "/a", '"g"')

    def again():
        stored(w, "/a"), stored(w, "/a", other)
    again()
    r = w.purge(groups=["g", "h"], origin="http://other.example")
    assert r["objects"] == 1
    assert [(i["group"], i["exact"]) for i in r["items"]] == [("g", True), ("h", True)]
    assert fresh(w, "/a") and not fresh(w, "/a", other)
    again()
    assert w.purge(group="g", dry_run=True)["objects"] == 2
    assert w.purge(group="g")["objects"] == 2
    assert not fresh(w, "/a") and not fresh(w, "/a", other)
    again()
    r = w.cli("purge", "--admin", w.admin_url, "--group", "g", "--origin", "http://other.example",
              "--soft")
    assert r.returncode == 0 and json.loads(r.stdout)["objects"] == 1
    assert w.get("/a", other).cache_status.fwd == "stale" and fresh(w, "/a")


@pytest.mark.parametrize("what", [{"groups": ["g"], "origin": "other.example"}, {"groups": []},
                                  {"groups": ["g"], "origin": "http://other.example/path"},
                                  {"tags": ["g"], "origin": "http://other.example"},
                                  {"groups": ["g"], "origin": 1}, {"groups": [""]}])
def test_groups_that_are_not_understood_purge_nothing(origin, weir, what):
    w = weir()
    grouped(origin, "/a", '"g"')
    stored(w, "/a")
    r = w.api("POST", "/purge", what)
    assert r.status == 400 and r.json()["not_understood"]
    assert fresh(w, "/a")


def test_a_list_of_tags_in_a_field_is_a_tag_for_each_word_and_need_not_reach_clients(origin, weir):
    for path, keys in (("/1", "a b"), ("/2", "b,c"), ("/3", "ab")):
        origin.on(path, headers=[("Cache-Control", "max-age=60"), ("Surrogate-Key", keys)], body=b"x")
    w = weir(routes=[{"path": "/**", "tags": ["{response.header.surrogate-key[]}"],
                      "response": {"remove": ["Surrogate-Key"], "set": {"Cache-Control": "no-store"}}}])
    for path in "/1", "/2", "/3":
        stored(w, path)                 # by what the origin sent
        got = w.get(path)
        assert got.header("Surrogate-Key") is None and got.header("Cache-Control") == "no-store"
        assert got.cache_status.ttl > 50
    for tag, objects in (("a", 1), ("b", 2), ("c", 1), ("ab", 1), ("a b", 0)):
        assert w.purge(tags=[tag], dry_run=True)["objects"] == objects, tag
    w.purge(tags=["b"])
    assert [fresh(w, path) for path in ("/1", "/2", "/3")] == [False, False, True]
