"""Validation with the origin, and conditions of clients: RFC 9111 4.3, RFC 9110 13."""
import pytest

from harness import eventually, http_date

AGED = [("Cache-Control", "max-age=10"), ("Age", "100")]        # stored, and stale at once
FRESH = ("Cache-Control", "max-age=60")
LM = "Wed, 01 Jan 2020 00:00:00 GMT"


def validated(*headers, first=(), body=b"hello"):
    """An origin that answers 304 to any condition, with these fields, and else 200, stale at once."""
    def handler(req, conn):
        if req.header("If-None-Match") or req.header("If-Modified-Since"):
            conn.respond(304, list(headers), reason="Not Modified")
        else:
            conn.respond(200, AGED + list(first), body)
    return handler


def test_a_stale_answer_with_an_entity_tag_is_validated_by_it(origin, weir):
    w = weir()
    origin.on("/a", validated(FRESH, first=[("ETag", '"v1"')]))
    w.get("/a")
    second = w.get("/a")
    assert origin.last("/a").header("If-None-Match") == '"v1"'
    assert second.status == 200 and second.body == b"hello"
    assert second.cache_status.fwd == "stale" and second.cache_status.params["fwd-status"] == "304"
    third = w.get("/a")
    assert third.cache_status.hit and third.body == b"hello" and int(third.header("Age")) < 5
    assert origin.count("/a") == 2


def test_a_stale_answer_with_a_date_of_change_is_validated_by_it(origin, weir):
    w = weir()
    origin.on("/a", validated(FRESH, first=[("Last-Modified", LM)]))
    w.get("/a")
    assert w.get("/a").body == b"hello"
    assert origin.last("/a").header("If-Modified-Since") == LM
    assert w.get("/a").cache_status.hit


def test_weak_entity_tags_validate_too(origin, weir):
    w = weir()
    origin.on("/a", validated(FRESH, first=[("ETag", 'W/"v1"')]))
    w.get("/a")
    w.get("/a")
    assert origin.last("/a").header("If-None-Match") == 'W/"v1"'
    assert w.get("/a").cache_status.hit


def test_a_stale_answer_without_a_validator_is_fetched_anew(origin, weir):
    w = weir()
    origin.on("/a", headers=AGED, body=b"x")
    w.get("/a")
    w.get("/a")
    last = origin.last("/a")
    assert last.header("If-None-Match") is None and last.header("If-Modified-Since") is None


def test_a_304_brings_new_fields_and_keeps_the_body(origin, weir):
    w = weir()
    origin.on("/a", validated(FRESH, ("X-New", "2"), ("X-Changed", "2"), ("Content-Type", "text/b"), ("ETag", '"v1"'),
                              ("Content-Length", "999"), ("Set-Cookie", "a=b"),
                              first=[("ETag", '"v1"'), ("X-Changed", "1"), ("X-Old", "1"), ("Content-Type", "text/a"),
                                     ("Content-Encoding", "identity")]))
    w.get("/a")
    for answer in (w.get("/a"), w.get("/a")):
        assert answer.body == b"hello" and answer.header("Content-Length") == "5"
        assert answer.header("X-New") == "2" and answer.header("X-Changed") == "2" and answer.header("X-Old") == "1"
        assert answer.header("Content-Type") == "text/b" and answer.header("Content-Encoding") == "identity"
        assert answer.header("ETag") == '"v1"'


def test_the_cookie_of_a_304_is_for_the_client_that_caused_it_alone(origin, weir):
    w = weir()
    origin.on("/a", validated(FRESH, ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"), first=[("ETag", '"v1"')]))
    w.get("/a")
    assert w.get("/a").all("Set-Cookie") == ["a=b", "c=d"]
    assert w.get("/a").header("Set-Cookie") is None


def test_a_304_that_is_about_another_representation_is_not_used(origin, weir):
    w = weir()

    def handler(req, conn):
        if req.header("If-None-Match"):
            conn.respond(304, [FRESH, ("ETag", '"other"')], reason="Not Modified")
        else:
            conn.respond(200, AGED + [("ETag", '"v1"')], b"n%d" % origin.count("/a"))
    origin.on("/a", handler)
    assert w.get("/a").body == b"n1"
    assert w.get("/a").body == b"n3"                # asked once more, without conditions
    assert origin.last("/a").header("If-None-Match") is None


def test_a_304_that_forbids_to_store_ends_the_stored_answer(origin, weir):
    w = weir()
    origin.on("/a", validated(("Cache-Control", "no-store"), first=[("ETag", '"v1"')]))
    w.get("/a")
    assert w.get("/a").body == b"hello"
    w.get("/a")
    assert origin.last("/a").header("If-None-Match") is None


def test_a_304_that_turns_private_lets_those_who_wait_ask_for_themselves(origin, weir):
    w = weir()
    gate = origin.gate()

    def handler(req, conn):
        if req.header("If-None-Match"):
            gate.wait()
            conn.respond(304, [("Cache-Control", "private"), ("ETag", '"v1"')], reason="Not Modified")
        else:
            conn.respond(200, AGED + [("ETag", '"v1"')], b"n")
    origin.on("/a", handler)
    w.get("/a")
    w.parallel(4, lambda i: w.get("/a"), meanwhile=lambda: (origin.wait("/a", 2), gate.set()))
    assert origin.count("/a") > 2 or not w.get("/a").cache_status.hit


def test_a_200_to_a_validation_replaces_what_is_stored(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, AGED + [("ETag", '"1"')], b"old"),
                     lambda q, c: c.respond(200, [FRESH, ("ETag", '"2"')], b"new")])
    w.get("/a")
    second = w.get("/a")
    assert second.body == b"new" and second.cache_status.stored
    assert w.get("/a").body == b"new" and origin.count("/a") == 2


def test_a_404_to_a_validation_takes_the_stored_answer_away(origin, weir):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, AGED + [("ETag", '"1"')], b"old"),
                     lambda q, c: c.respond(404, [("Cache-Control", "no-store")], b"gone", reason="Not Found")])
    w.get("/a")
    assert w.get("/a").status == 404
    w.get("/a")
    assert origin.last("/a").header("If-None-Match") is None


@pytest.mark.parametrize("directive", ["no-cache", "max-age=0", "min-fresh=1000"])
def test_a_client_can_ask_for_validation(origin, weir, directive):
    w = weir()
    origin.on("/a", [lambda q, c: c.respond(200, [FRESH, ("Age", "5"), ("ETag", '"1"')], b"x"),
                     lambda q, c: c.respond(304, [FRESH, ("ETag", '"1"')], reason="Not Modified")])
    w.get("/a")
    r = w.get("/a", [("Cache-Control", directive)])
    assert r.status == 200 and r.body == b"x"
    assert origin.last("/a").header("If-None-Match") == '"1"'


def test_pragma_no_cache_counts_where_there_is_no_cache_control(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH], body=b"x")
    w.get("/a")
    assert not w.get("/a", [("Pragma", "no-cache")]).cache_status.hit
    assert w.get("/a", [("Pragma", "no-cache"), ("Cache-Control", "max-age=60")]).cache_status.hit


def test_only_if_cached_is_answered_from_cache_or_with_504(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH], body=b"x")
    r = w.get("/a", [("Cache-Control", "only-if-cached")])
    assert r.status == 504 and origin.count("/a") == 0
    w.get("/a")
    assert w.get("/a", [("Cache-Control", "only-if-cached")]).cache_status.hit
    assert w.get("/a", [("Cache-Control", "only-if-cached, no-cache")]).status == 504


def test_max_stale_takes_what_is_stale_unless_that_is_forbidden(origin, weir):
    w = weir()
    origin.on("/a", headers=AGED, body=b"x")
    origin.on("/b", headers=[("Cache-Control", "max-age=10, must-revalidate"), ("Age", "100"), ("ETag", '"1"')], body=b"x")
    for path in ("/a", "/b"):
        w.get(path)
    for value, hit in (("max-stale", True), ("max-stale=1000", True), ("max-stale=5", False)):
        r = w.get("/a", [("Cache-Control", value)])
        assert (r.cache_status.fwd is None) == hit, value
        assert r.body == b"x"
    assert w.get("/b", [("Cache-Control", "max-stale")]).cache_status.fwd == "stale"


# ---- conditions of clients -----------------------------------------------------------------------

TAGGED = [FRESH, ("ETag", '"v1"'), ("Last-Modified", LM), ("Content-Type", "text/a"), ("X-A", "1"), ("Vary", "X-B")]


@pytest.mark.parametrize("name, value, status", [
    ("If-None-Match", '"v1"', 304), ("If-None-Match", 'W/"v1"', 304), ("If-None-Match", '"a", "v1"', 304),
    ("If-None-Match", "*", 304), ("If-None-Match", '"v2"', 200), ("If-None-Match", "v1", 200),
    ("If-Modified-Since", LM, 304), ("If-Modified-Since", "Wed, 01 Jan 2025 00:00:00 GMT", 304),
    ("If-Modified-Since", "Wed, 01 Jan 2014 00:00:00 GMT", 200), ("If-Modified-Since", "yesterday", 200),
])
@pytest.mark.parametrize("stored", [True, False])
def test_conditions_are_judged_here_stored_or_not(origin, weir, name, value, status, stored):
    w = weir()
    origin.on("/a", headers=TAGGED, body=b"hello")
    if stored:
        w.get("/a")
    r = w.get("/a", [(name, value)])
    assert r.status == status
    assert origin.count("/a") == 1 and origin.last("/a").header(name) is None
    if status == 304:
        assert r.header("ETag") == '"v1"' and r.header("Cache-Control") == "max-age=60"
        assert r.header("Vary") == "X-B" and r.header("Date")
        assert r.header("Content-Type") is None and r.header("X-A") is None
    eventually(lambda: w.get("/a").cache_status.hit)        # the rest of it comes behind a 304
    assert w.get("/a").body == b"hello" and origin.count("/a") == 1


@pytest.mark.parametrize("name, value", [("If-Match", '"v1"'), ("If-Unmodified-Since", LM)])
def test_a_precondition_is_the_origins_to_judge(origin, weir, name, value):
    w = weir()
    origin.on("/a", headers=TAGGED, body=b"hello")
    w.get("/a")
    origin.on("/a", status=412, body=b"changed")
    r = w.get("/a", [(name, value)])
    assert r.status == 412 and r.body == b"changed" and origin.last("/a").header(name) == value
    assert r.cache_status.fwd == "request" and r.cache_status.params["detail"] == "precondition"
    assert w.get("/a").cache_status.hit


def test_a_304_made_from_a_live_answer_has_what_is_for_its_client_alone(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "public, max-age=60"), ("ETag", '"a"'), ("Set-Cookie", "s=1"),
                             ("X-RateLimit-Remaining", "3")], body=b"x")
    r = w.get("/a", [("If-None-Match", '"a"')])
    assert r.status == 304 and r.header("Set-Cookie") == "s=1" and r.header("X-RateLimit-Remaining") == "3"
    r = w.get("/a", [("If-None-Match", '"a"')])
    assert r.status == 304 and r.header("Set-Cookie") is None


def test_if_none_match_goes_before_if_modified_since(origin, weir):
    w = weir()
    origin.on("/a", headers=TAGGED, body=b"hello")
    w.get("/a")
    assert w.get("/a", [("If-None-Match", '"v2"'), ("If-Modified-Since", LM)]).status == 200


def test_without_a_date_of_change_the_date_of_the_answer_counts(origin, weir):
    w = weir()
    origin.on("/a", headers=[FRESH], body=b"x")
    w.get("/a")
    assert w.get("/a", [("If-Modified-Since", http_date(5))]).status in (200, 304)
    assert w.get("/a", [("If-Modified-Since", http_date(-1000))]).status == 200


def test_a_client_that_validates_a_stale_answer_gets_304_when_its_own_is_the_current_one(origin, weir):
    w = weir()
    origin.on("/a", validated(FRESH, ("ETag", '"v1"'), first=[("ETag", '"v1"')]))
    w.get("/a")
    r = w.get("/a", [("If-None-Match", '"v1"')])
    assert r.status == 304 and origin.count("/a") == 2
    assert w.get("/a").body == b"hello"


def test_a_client_with_an_older_copy_gets_the_whole_after_a_304(origin, weir):
    w = weir()
    origin.on("/a", validated(FRESH, first=[("ETag", '"v1"')]))
    w.get("/a")
    r = w.get("/a", [("If-None-Match", '"v0"')])
    assert r.status == 200 and r.body == b"hello"
    assert origin.last("/a").header("If-None-Match") == '"v1"'


def test_conditions_reach_the_origin_where_nothing_is_stored_lately(origin, weir):
    w = weir()
    origin.on("/a", validated(("Cache-Control", "private"), first=[("Cache-Control", "private"), ("ETag", '"v1"')]))
    w.get("/a")
    r = w.get("/a", [("If-None-Match", '"v1"')])
    assert r.status == 304 and origin.last("/a").header("If-None-Match") == '"v1"'


def test_a_head_is_judged_like_a_get(origin, weir):
    w = weir()
    origin.on("/a", headers=TAGGED, body=b"hello")
    w.get("/a")
    assert w.request("HEAD", "/a", [("If-None-Match", '"v1"')]).status == 304
    assert w.request("HEAD", "/a", [("If-None-Match", '"v2"')]).status == 200
    assert origin.count("/a") == 1
