"""Variants: RFC 9111 4.1."""
import pytest

from harness import eventually

FRESH = ("Cache-Control", "max-age=60")


def by(*names, cc="max-age=60", extra=()):
    """An answer that varies by fields and tells what they were."""
    def handler(req, conn):
        text = "|".join(req.header(n, "-") for n in names)
        conn.respond(headers=[("Cache-Control", cc), ("Vary", ", ".join(names)), *extra],
                     body=text.encode())
    return handler


def test_variants_of_one_url_live_beside_each_other(origin, weir):
    w = weir()
    origin.on("/a", by("X-Lang"))
    for lang in ("de", "fr", "en"):
        first = w.get("/a", [("X-Lang", lang)])
        assert first.body == lang.encode()
        assert first.cache_status.fwd == ("uri-miss" if lang == "de" else "vary-miss")
    for lang in ("fr", "de", "en"):
        second = w.get("/a", [("X-Lang", lang)])
        assert second.body == lang.encode() and second.cache_status.hit
    assert w.get("/a").body == b"-"
    assert origin.count("/a") == 4


def test_a_missing_field_matches_only_a_missing_field(origin, weir):
    w = weir()
    origin.on("/a", by("X-Lang"))
    assert w.get("/a").body == b"-"
    assert w.get("/a").cache_status.hit
    assert w.get("/a", [("X-Lang", "")]).cache_status.fwd == "vary-miss"


def test_all_named_fields_must_match(origin, weir):
    w = weir()
    origin.on("/a", by("X-A", "X-B"))
    w.get("/a", [("X-A", "1"), ("X-B", "2")])
    assert w.get("/a", [("X-B", "2"), ("X-A", "1")]).cache_status.hit
    assert w.get("/a", [("X-A", "2"), ("X-B", "1")]).body == b"2|1"
    assert w.get("/a", [("X-A", "1,X-B:2")]).body == b"1,X-B:2|-"


@pytest.mark.parametrize("other", ["a,b", " a ,  b", "a, , b"])
def test_white_space_and_list_syntax_make_no_difference_in_a_list(origin, weir, other):
    w = weir()
    origin.on("/a", by("Accept-Language"))
    w.get("/a", [("Accept-Language", "a, b")])
    assert w.get("/a", [("Accept-Language", other)]).cache_status.hit
    assert w.get("/a", [("Accept-Language", "a"), ("Accept-Language", "b")]).cache_status.hit


# RFC 9110 12.4.2, 12.5.1, 12.5.3, 12.5.4; not what these do not call equal
@pytest.mark.parametrize("name, stored, same, other", [
    ("Accept-Language", "en, de", ["de, en", "eN, De", "de;q=1.0 ,en;q=1"], "de, en;q=0.9"),
    ("Accept-Language", "de-AT, de;q=0.9, en;q=0.5", ["en;q=0.50, de-at, de;q=0.900"], "de-AT, de"),
    ("Accept-Encoding", "gzip, deflate, br", ["br,deflate , GZIP", "x-gzip, br, deflate"], "gzip"),
    ("Accept-Encoding", "gzip;q=1.0, *;q=0", ["*;q=0.0, gzip"], "gzip"),
    ("Accept", "text/html, */*;q=0.8", ["*/*;q=0.80,Text/HTML"], "text/html;level=1, */*;q=0.8"),
    ("Accept", "a/b;charset=utf-8", ["a/b; Charset=\"UTF-8\""], "a/b"),
])
def test_fields_of_content_negotiation_are_compared_by_what_they_mean(origin, weir, name, stored,
                                                                      same, other):
    w = weir()
    origin.on("/a", by(name))
    w.get("/a", [(name, stored)])
    for value in same:
        again = w.get("/a", [(name, value)])
        assert again.cache_status.hit and again.body == stored.encode(), value
    assert w.get("/a", [(name, other)]).body == other.encode()


def test_a_stored_language_answers_who_prefers_it_to_all_others(origin, weir):
    w = weir()
    origin.on("/a", by("Accept-Language", "X-A", extra=[("Content-Language", "de")]))
    first = w.get("/a", [("Accept-Language", "en, de")]).body
    for lang in ("de", "fr;q=0.5, de;q=1.0", "DE, *;q=0.1"):
        again = w.get("/a", [("Accept-Language", lang)])
        assert again.cache_status.hit and again.body == first, lang
    assert origin.count("/a") == 1
    for fields in ([("Accept-Language", "fr, de;q=0.5")], [("Accept-Language", "de, fr")], [],
                   [("Accept-Language", "de-AT")], [("Accept-Language", "de"), ("X-A", "1")]):
        assert w.get("/a", fields).cache_status.fwd == "vary-miss", fields


def test_a_stale_response_selected_by_its_language_is_validated(origin, weir):
    w = weir()

    def handler(req, conn):
        if req.header("If-None-Match"):
            conn.respond(304, [FRESH, ("ETag", '"1"')], reason="Not Modified")
        else:
            by("Accept-Language", cc="max-age=10", extra=[
                ("Content-Language", "de"), ("ETag", '"1"'), ("Age", "100")])(req, conn)
    origin.on("/a", handler)
    first = w.get("/a", [("Accept-Language", "en, de")]).body
    second = w.get("/a", [("Accept-Language", "de")])
    assert second.body == first and second.cache_status.fwd == "stale"
    for lang in ("de", "en, de", "de, sv;q=0.2"):
        third = w.get("/a", [("Accept-Language", lang)])
        assert third.cache_status.hit and third.body == first
    assert origin.count("/a") == 2


def test_white_space_beside_commas_makes_no_difference_in_an_unknown_field(origin, weir):
    w = weir()
    origin.on("/a", by("X-Own"))
    w.get("/a", [("X-Own", '1,"a, b"')])
    for fields in ([("X-Own", ' 1 , "a, b" ')], [("X-Own", "1"), ("X-Own", '"a, b"')]):
        assert w.get("/a", fields).cache_status.hit
    for other in ('1,"a,b"', '1,,"a, b"', '1,"a, b",', '"a, b",1'):
        assert w.get("/a", [("X-Own", other)]).body == other.encode()


@pytest.mark.parametrize("name", ["Cookie", "User-Agent"])
def test_what_is_known_to_be_no_list_is_compared_byte_by_byte(origin, weir, name):
    w = weir()
    origin.on("/a", by(name))
    w.get("/a", [(name, "a=1, b")])
    for other in ("a=1,b", "a=1, , b", "a=1, b,"):
        assert w.get("/a", [(name, other)]).body == other.encode()
    assert w.get("/a", [(name, " a=1, b ")]).cache_status.hit


def test_the_name_in_vary_is_compared_without_case(origin, weir):
    w = weir()
    origin.on("/a", by("x-LANG"))
    w.get("/a", [("X-Lang", "de")])
    assert w.get("/a", [("x-lang", "de")]).cache_status.hit


def test_the_number_of_variants_is_limited(origin, weir):
    w = weir(cache={"variants": 4})
    origin.on("/a", by("X-N"))
    for i in range(20):
        assert w.get("/a", [("X-N", str(i))]).body == b"%d" % i
    assert w.get("/a", [("X-N", "19")]).cache_status.hit
    hits = sum(w.get("/a", [("X-N", str(i))]).cache_status.hit for i in (19, 18, 17, 16))
    assert hits >= 3
    assert w.stats() and origin.count("/a") < 26


def test_vary_star_is_never_stored(origin, weir):
    w = weir()
    for i, star in enumerate(["*", "X-A, *", "*, *", ",*", "*,", '"*"', "*;q=1"]):
        origin.on("/%d" % i, headers=[FRESH, ("Vary", star)], body=b"x")
        w.get("/%d" % i)
        second = w.get("/%d" % i)
        assert not second.cache_status.hit and second.cache_status.detail == "vary"


def test_a_request_for_another_variant_does_not_join_the_validation_of_a_stale_one(origin, weir):
    w = weir()
    gate = origin.gate()
    stale = [("ETag", '"1"'), ("Age", "100")]

    def handler(req, conn):
        lang = req.header("X-Lang")
        if req.header("If-None-Match"):
            gate.wait()
            conn.respond(304, [FRESH, ("Vary", "X-Lang"), ("ETag", '"1"')],
                         reason="Not Modified")
        else:
            by("X-Lang", cc="max-age=10", extra=stale if lang == "de" else [])(req, conn)
    origin.on("/a", handler)
    assert w.get("/a", [("X-Lang", "de")]).body == b"de"
    with w.client() as de:
        de.start("GET", "/a", [("X-Lang", "de")])
        origin.wait("/a", 2)
        assert w.get("/a", [("X-Lang", "fr")]).body == b"fr"
        gate.set()
        assert de.response().body == b"de"


def test_stale_while_revalidate_of_one_variant_does_not_touch_another(origin, weir):
    w = weir()
    gate = origin.gate()

    def handler(req, conn):
        if req.header("If-None-Match"):
            gate.wait()
            conn.respond(304, [("ETag", '"1"'), FRESH], reason="Not Modified")
        else:
            by("X-Lang", cc="max-age=10, stale-while-revalidate=1000",
               extra=[("ETag", '"1"'), ("Age", "100")])(req, conn)
    origin.on("/a", handler)
    w.get("/a", [("X-Lang", "de")])
    assert w.get("/a", [("X-Lang", "de")]).body == b"de"        # and a validation behind it
    origin.wait("/a", 2)
    assert w.get("/a", [("X-Lang", "fr")]).body == b"fr"
    gate.set()
    eventually(lambda: w.get("/a", [("X-Lang", "de")]).cache_status.hit)
    assert w.get("/a", [("X-Lang", "de")]).body == b"de"


def test_all_variants_go_with_a_write(origin, weir):
    w = weir()
    origin.on("/a", by("X-Lang"))
    for lang in ("de", "fr"):
        w.get("/a", [("X-Lang", lang)])
    w.post("/a")
    for lang in ("de", "fr"):
        assert not w.get("/a", [("X-Lang", lang)]).cache_status.hit


# ---- the origin varies by what it got, not by what the client sent -----------------------------

EDITED = [{"path": "/**", "request": {"set": {"X-Tier": "gold"}, "remove": ["X-Debug-*"],
                                      "add": {"X-Lang": "en"}}}]


@pytest.mark.parametrize("name", ["X-Tier", "X-Debug-Level", "X-Forwarded-Proto",
                                  "X-Forwarded-Host", "Host", "X_Forwarded_Proto",
                                  "If-None-Match", "Range", "TE"])
def test_a_field_that_the_origin_gets_alike_from_all_selects_nothing(origin, weir, name):
    w = weir(routes=EDITED)
    origin.on("/a", by(name))
    first = w.get("/a").body
    with w.client() as c:
        again = c.request("GET", "/a", [(name, c.host if name == "Host" else "bytes=0-1")] +
                          ([("Connection", "TE")] if name == "TE" else []))
    assert again.cache_status.hit and origin.count("/a") == 1
    assert again.status == 206 if name == "Range" else again.body == first


def test_what_the_client_decides_besides_such_a_field_still_selects(origin, weir):
    w = weir(routes=EDITED)
    origin.on("/a", by("X-Tier", "Accept-Language", "X-Forwarded-Proto"))
    assert w.get("/a", [("Accept-Language", "de"), ("X-Tier", "1")]).body == b"gold|de|http"
    assert w.get("/a", [("Accept-Language", "fr"), ("X-Tier", "1")]).body == b"gold|fr|http"
    again = w.get("/a", [("Accept-Language", "de"), ("X-Tier", "2")])
    assert again.cache_status.hit and again.body == b"gold|de|http"
    assert again.header("Vary") == "X-Tier, Accept-Language, X-Forwarded-Proto"


def test_a_field_that_the_route_adds_to_selects_by_what_the_client_sent(origin, weir):
    w = weir(routes=EDITED)
    origin.on("/a", by("X-Lang"))
    assert w.get("/a", [("X-Lang", "de")]).body == b"de, en"
    assert w.get("/a").body == b"en"
    assert w.get("/a", [("X-Lang", "de")]).cache_status.hit


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "Via", "CDN-Loop", "X-Request-Id",
                                  "Traceparent"])
def test_what_varies_by_a_field_that_is_another_each_time_is_not_stored(origin, weir, name):
    w = weir()
    origin.on("/a", by("Accept", name))
    assert w.get("/a").status == 200
    again = w.get("/a")
    assert not again.cache_status.hit and again.cache_status.detail == "vary"
    assert origin.count("/a") == 2


def test_what_varies_by_host_is_stored_where_the_key_has_it_or_the_origin_gets_one(origin, weir):
    w = weir(routes=[{"path": "/**", "key": {"host": False}}])
    origin.on("/a", by("Host"))
    w.get("/a", [("Host", "one.test")])
    assert w.get("/a", [("Host", "two.test")]).body == b"two.test"
    w = weir(routes=[{"path": "/**", "key": {"host": False}}], origin={"host": "api.test"})
    w.get("/a", [("Host", "one.test")])
    again = w.get("/a", [("Host", "two.test")])
    assert again.cache_status.hit and again.body == b"api.test"


@pytest.mark.parametrize("name", ["Accept", "Prefer"])
def test_a_quoted_string_over_two_lines_is_not_the_one_of_one_line(origin, weir, name):
    w = weir()
    origin.on("/a", by(name))
    w.get("/a", [(name, 'a/b;c="x,y"')])
    assert not w.get("/a", [(name, 'a/b;c="x'), (name, 'y"')]).cache_status.hit
