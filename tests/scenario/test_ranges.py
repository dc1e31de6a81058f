"""Ranges out of what is stored whole: RFC 9110 14."""
import re

import pytest

BODY = bytes(range(100))
LM = "Wed, 01 Jan 2020 00:00:00 GMT"
WHOLE = [("Cache-Control", "max-age=60"), ("ETag", '"v1"'), ("Last-Modified", LM), ("Content-Type", "a/b")]


@pytest.fixture
def stored(origin, weir):
    w = weir()
    origin.on("/a", headers=WHOLE, body=BODY)
    w.get("/a")
    return w


@pytest.mark.parametrize("spec, first, last", [
    ("0-9", 0, 9), ("0-0", 0, 0), ("90-", 90, 99), ("-5", 95, 99), ("50-1000", 50, 99), ("-1000", 0, 99), ("99-99", 99, 99),
])
def test_a_single_range_is_answered_from_the_stored_whole(origin, stored, spec, first, last):
    r = stored.get("/a", [("Range", "bytes=" + spec)])
    assert r.status == 206 and r.body == BODY[first:last + 1]
    assert r.header("Content-Range") == "bytes %d-%d/100" % (first, last)
    assert r.header("ETag") == '"v1"' and r.header("Content-Type") == "a/b" and r.header("Age") is not None
    assert r.cache_status.hit and origin.count("/a") == 1


@pytest.mark.parametrize("spec", ["100-", "1000-2000", "-0"])
def test_a_range_beyond_the_end_is_416_with_the_length(origin, stored, spec):
    r = stored.get("/a", [("Range", "bytes=" + spec)])
    assert r.status == 416 and r.header("Content-Range") == "bytes */100"
    assert stored.get("/a").body == BODY


@pytest.mark.parametrize("value", ["bytes=9-0", "bytes=a-b", "lines=0-1", "bytes", "bytes=", "bytes=0-1,x"])
def test_a_range_that_makes_no_sense_is_ignored(stored, value):
    r = stored.get("/a", [("Range", value)])
    assert r.status == 200 and r.body == BODY


def parts(r):
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", r.header("Content-Type"))[1].encode()
    pieces = r.body.split(b"--" + boundary)
    assert pieces[0].strip() == b"" and pieces[-1] == b"--\r\n"
    out = []
    for piece in pieces[1:-1]:
        head, _, body = piece.partition(b"\r\n\r\n")
        assert b"Content-Type: a/b" in head and body.endswith(b"\r\n")
        out.append((re.search(rb"Content-Range: (\S+ \S+)", head)[1].decode(), body[:-2]))
    return out


def test_a_range_that_is_said_twice_is_none(stored):
    answer = stored.get("/a", [("Range", "bytes=0-1"), ("Range", "bytes=0-3")])
    assert answer.status == 200 and answer.header("Content-Range") is None


def test_several_ranges_are_a_multipart_answer(stored):
    r = stored.get("/a", [("Range", "bytes=0-1, 50-51, -2")])
    assert r.status == 206 and r.header("Content-Range") is None
    assert parts(r) == [("bytes 0-1/100", BODY[:2]), ("bytes 50-51/100", BODY[50:52]), ("bytes 98-99/100", BODY[98:])]


def test_of_several_ranges_those_beyond_the_end_are_left_out(stored):
    r = stored.get("/a", [("Range", "bytes=200-300, 5-6")])
    assert r.status == 206 and r.body == BODY[5:7]


def test_too_many_ranges_are_ignored_or_answered_but_never_more_than_was_stored(stored):
    r = stored.get("/a", [("Range", "bytes=" + ",".join("0-" for _ in range(500)))])
    assert r.status in (200, 206, 416) and len(r.body) < 20000


@pytest.mark.parametrize("value, status", [
    ('"v1"', 206), ('"v2"', 200), ('W/"v1"', 200), (LM, 206), ("Wed, 01 Jan 2014 00:00:00 GMT", 200), ("junk", 200),
])
def test_if_range_needs_the_very_same_representation(stored, value, status):
    r = stored.get("/a", [("Range", "bytes=0-1"), ("If-Range", value)])
    assert r.status == status and len(r.body) == (2 if status == 206 else 100)


def test_conditions_go_before_ranges(stored):
    assert stored.get("/a", [("Range", "bytes=0-1"), ("If-None-Match", '"v1"')]).status == 304


def test_a_head_ignores_ranges(stored):
    r = stored.request("HEAD", "/a", [("Range", "bytes=0-1")])
    assert r.status == 200 and r.header("Content-Length") == "100"


def test_a_range_of_a_stored_error_is_ignored(origin, weir):
    w = weir()
    origin.on("/e", status=404, headers=[("Cache-Control", "max-age=60")], body=b"nothing")
    w.get("/e")
    r = w.get("/e", [("Range", "bytes=0-1")])
    assert r.status == 404 and r.body == b"nothing" and r.cache_status.hit


def test_a_range_of_what_is_not_stored_goes_to_the_origin_and_its_part_is_not_taken_for_the_whole(origin, weir):
    w = weir()

    def ranged(req, conn):
        if req.header("Range") == "bytes=0-9":
            conn.respond(206, WHOLE + [("Content-Range", "bytes 0-9/100")], BODY[:10], reason="Partial Content")
        else:
            conn.respond(200, WHOLE, BODY)
    origin.on("/a", ranged)
    r = w.get("/a", [("Range", "bytes=0-9")])
    assert r.status == 206 and r.body == BODY[:10]
    assert w.get("/a").body == BODY
    assert w.get("/a", [("Range", "bytes=0-9")]).cache_status.hit


def test_a_range_of_a_large_stored_answer_starts_deep_inside(origin, weir):
    w = weir(routes=[{"path": "/**", "max_object": "8MiB"}], cache={"memory": "64MiB"})
    body = bytes(range(251)) * 20000
    origin.on("/big", headers=WHOLE, body=body)
    w.get("/big")
    for first, last in ((4000000, 4000099), (65535, 65537), (0, 5019999), (5019000, 5019999)):
        r = w.get("/big", [("Range", "bytes=%d-%d" % (first, last))])
        assert r.status == 206 and r.body == body[first:last + 1]
    r = w.get("/big", [("Range", "bytes=5000000-5000001,1000000-1000001,65536-65537")])
    assert [p[1] for p in parts(r)] == [body[5000000:5000002], body[1000000:1000002], body[65536:65538]]


def test_a_stale_answer_is_validated_and_then_gives_its_range(origin, weir):
    w = weir()

    def handler(req, conn):
        assert req.header("Range") is None
        if req.header("If-None-Match"):
            conn.respond(304, WHOLE[:2], reason="Not Modified")
        else:
            conn.respond(200, [("Cache-Control", "max-age=10"), ("Age", "100"), ("ETag", '"v1"')], BODY)
    origin.on("/a", handler)
    w.get("/a")
    r = w.get("/a", [("Range", "bytes=0-1")])
    assert r.status == 206 and r.body == BODY[:2] and r.cache_status.params["fwd-status"] == "304"
