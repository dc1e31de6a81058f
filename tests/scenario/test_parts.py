"""206 answers: stored as parts, combined, completed, answered from (RFC 9111 3.3, RFC 9110 15.3.7)."""
import re

import pytest
from harness import Closed, eventually

BODY = bytes(range(100))
LM = "Wed, 01 Jan 2020 00:00:00 GMT"


class Ranged:
    """An origin's resource that honours one range and If-Range."""

    def __init__(self, origin, path="/a", body=BODY, etag='"v1"', fields=(), fresh="max-age=60"):
        self.body, self.etag, self.fields, self.fresh, self.path = body, etag, list(fields), fresh, path
        self.origin = origin
        origin.on(path, self)

    def head(self):
        return ([("Cache-Control", self.fresh)] if self.fresh else []) + (
            [("ETag", self.etag)] if self.etag else []) + self.fields

    def __call__(self, req, conn):
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", req.header("Range", ""))
        size = len(self.body)
        if req.header("If-None-Match") and req.header("If-None-Match") == self.etag:
            conn.respond(304, self.head())
            return
        if req.header("If-Range") and req.header("If-Range") not in (self.etag, LM):
            asked = None
        if not asked:
            conn.respond(200, self.head() + [("Content-Type", "a/b")], self.body)
            return
        if asked[1]:
            first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
        else:
            first, last = max(0, size - int(asked[2])), size - 1
        if first >= size:
            conn.respond(416, [("Content-Range", "bytes */%d" % size)])
            return
        conn.respond(206, self.head() + [("Content-Range", "bytes %d-%d/%d" % (first, last, size)),
                                         ("Content-Type", "a/b")], self.body[first:last + 1])

    @property
    def asked(self):
        return [r.header("Range") for r in self.origin.of(self.path)]


def ask(w, spec, *more, path="/a"):
    return w.get(path, [("Range", "bytes=" + spec)] + list(more))


def test_a_part_answers_what_lies_within_it(origin, weir):
    a, w = Ranged(origin), weir()
    r = ask(w, "10-49")
    assert r.status == 206 and r.body == BODY[10:50] and r.header("Content-Range") == "bytes 10-49/100"
    assert r.cache_status.fwd == "uri-miss" and r.cache_status.stored
    for spec, first, last in (("10-49", 10, 49), ("20-29", 20, 29), ("49-49", 49, 49)):
        r = ask(w, spec)
        assert r.status == 206 and r.body == BODY[first:last + 1] and r.cache_status.hit
        assert r.header("Content-Range") == "bytes %d-%d/100" % (first, last)
        assert r.header("ETag") == '"v1"' and r.header("Content-Type") == "a/b" and r.header("Age")
    assert a.asked == ["bytes=10-49"]


def test_a_suffix_and_an_open_range_are_answered_from_a_part_that_ends(origin, weir):
    a, w = Ranged(origin), weir()
    assert ask(w, "-40").body == BODY[60:]
    assert ask(w, "-5").body == BODY[95:] and ask(w, "70-").body == BODY[70:] and ask(w, "70-1000").body == BODY[70:]
    assert a.asked == ["bytes=-40"]
    assert ask(w, "-41").body == BODY[59:]
    assert len(a.asked) == 2


def test_several_ranges_within_a_part_are_multipart_and_one_beyond_the_whole_is_416(origin, weir):
    a, w = Ranged(origin), weir()
    ask(w, "10-49")
    r = ask(w, "10-11, 20-21")
    assert r.status == 206 and r.header("Content-Type").startswith("multipart/byteranges")
    assert b"Content-Range: bytes 20-21/100" in r.body and BODY[20:22] in r.body
    r = ask(w, "100-")
    assert r.status == 416 and r.header("Content-Range") == "bytes */100"
    assert len(a.asked) == 1


@pytest.mark.parametrize("old, new, want", [
    ((10, 19), (20, 29), (10, 29)), ((20, 29), (10, 19), (10, 29)),      # adjacent
    ((10, 24), (20, 29), (10, 29)), ((20, 29), (10, 24), (10, 29)),      # overlapping
    ((15, 19), (10, 29), (10, 29)),                                      # the newer holds the older
    ((10, 19), (30, 39), (30, 39)),                                      # apart: the newer stays
    ((0, 49), (50, 99), (0, 99)), ((50, 99), (0, 60), (0, 99)),          # now it is whole
])
def test_parts_with_one_strong_validator_are_combined(origin, weir, old, new, want):
    a, w = Ranged(origin, body=bytes(range(0, 100))), weir()
    ask(w, "%d-%d" % old)
    r = ask(w, "%d-%d" % new)
    assert r.body == BODY[new[0]:new[1] + 1] and r.cache_status.fwd == "partial"
    eventually(lambda: ask(w, "%d-%d" % want).cache_status.hit)
    assert ask(w, "%d-%d" % want).body == BODY[want[0]:want[1] + 1]
    assert len(a.asked) == 2
    if want == (0, 99):
        r = w.get("/a")
        assert r.cache_status.hit and r.status == 200 and r.body == BODY and r.header("Content-Length") == "100"
        assert r.header("Content-Range") is None


@pytest.mark.parametrize("etag, fields, joined", [
    ('"v1"', [], True), ('W/"v1"', [], False), (None, [("Last-Modified", LM)], True), (None, [], False),
])
def test_only_a_strong_validator_combines(origin, weir, etag, fields, joined):
    a, w = Ranged(origin, etag=etag, fields=fields), weir()
    ask(w, "10-19")
    ask(w, "20-29")
    r = ask(w, "10-29")
    assert r.body == BODY[10:30] and r.cache_status.hit == joined
    assert len(a.asked) == (2 if joined else 3)


def test_another_validator_replaces_the_part(origin, weir):
    a, w = Ranged(origin), weir()
    ask(w, "10-19")
    a.etag, a.body = '"v2"', bytes(reversed(BODY))
    assert ask(w, "20-29").body == a.body[20:30]
    assert ask(w, "10-19").body == a.body[10:20] and len(a.asked) == 3


def test_fields_of_the_newer_part_update_those_of_the_older(origin, weir):
    a, w = Ranged(origin, fields=[("A", "1"), ("B", "1")]), weir()
    ask(w, "10-19")
    a.fields = [("A", "2")]
    ask(w, "20-29")
    r = ask(w, "10-29")
    assert r.cache_status.hit and r.header("A") == "2" and r.header("B") == "1"


@pytest.mark.parametrize("first, rest", [("0-29", "bytes=30-"), ("60-", "bytes=0-59"), ("-40", "bytes=0-59")])
def test_the_whole_is_completed_by_asking_for_the_rest(origin, weir, first, rest):
    a, w = Ranged(origin, fields=[("A", "1")]), weir()
    ask(w, first)
    a.fields = [("A", "2"), ("Set-Cookie", "c=1")]
    r = w.get("/a")
    assert r.status == 200 and r.body == BODY and r.cache_status.fwd == "partial" and r.cache_status.stored
    assert r.cache_status.params["fwd-status"] == "206"         # what the origin said (RFC 9211 2.3)
    assert r.header("Content-Range") is None and r.header("A") == "2" and r.header("Content-Length") == "100"
    assert r.header("Set-Cookie") == "c=1" and len(r.all("Via")) == 1
    last = origin.of("/a")[-1]
    assert last.header("Range") == rest and last.header("If-Range") == '"v1"'
    r = w.get("/a")
    assert r.cache_status.hit and r.body == BODY and r.header("Set-Cookie") is None and len(a.asked) == 2


def test_a_part_in_the_middle_is_not_completed(origin, weir):
    a, w = Ranged(origin), weir()
    ask(w, "10-19")
    assert w.get("/a").body == BODY and a.asked == ["bytes=10-19", None]


@pytest.mark.parametrize("etag, fields", [('W/"v1"', []), (None, [])])
def test_without_a_strong_validator_the_whole_is_asked_for_again(origin, weir, etag, fields):
    a, w = Ranged(origin, etag=etag, fields=fields), weir()
    ask(w, "0-9")
    a.body = bytes(reversed(BODY))
    r = w.get("/a")
    assert r.status == 200 and r.body == a.body
    assert a.asked == ["bytes=0-9", "bytes=10-", None]
    assert w.get("/a").cache_status.hit


def test_what_changed_meanwhile_comes_whole(origin, weir):
    a, w = Ranged(origin), weir()
    ask(w, "0-9")
    a.etag, a.body = '"v2"', b"new" * 50
    r = w.get("/a")
    assert r.status == 200 and r.body == a.body and a.asked == ["bytes=0-9", "bytes=10-"]
    assert w.get("/a").cache_status.hit


@pytest.mark.parametrize("answer", [
    (206, [("ETag", '"v2"'), ("Content-Range", "bytes 10-99/100")], BODY[10:]),     # another validator
    (206, [("ETag", '"v1"'), ("Content-Range", "bytes 11-99/100")], BODY[11:]),     # a gap
    (206, [("ETag", '"v1"'), ("Content-Range", "bytes 10-98/100")], BODY[10:99]),   # not all
    (206, [("ETag", '"v1"'), ("Content-Range", "bytes 10-99/101")], BODY[10:]),     # another size
    (206, [("ETag", '"v1"'), ("Content-Range", "bytes 10-99/100")], BODY[10:50]),   # shorter than it says
    (206, [("ETag", '"v1"')], BODY[10:]),
    (416, [("Content-Range", "bytes */5")], b""),
])
def test_a_rest_that_does_not_fit_is_not_joined(origin, weir, answer):
    a, w = Ranged(origin), weir()
    ask(w, "0-9")

    def odd(req, conn):
        if req.header("Range"):
            conn.respond(answer[0], [("Cache-Control", "max-age=60")] + answer[1], answer[2])
        else:
            a(req, conn)
    origin.on("/a", odd)
    r = w.get("/a")
    assert r.status == 200 and r.body == BODY
    assert [q.header("Range") for q in origin.of("/a")] == ["bytes=0-9", "bytes=10-", None]


def test_a_rest_in_chunks_that_is_short_is_broken_off_and_not_stored(origin, weir):
    a, w = Ranged(origin), weir()
    ask(w, "0-9")

    def short(req, conn):
        conn.head(206, [("Cache-Control", "max-age=60"), ("ETag", '"v1"'), ("Content-Range", "bytes 10-99/100")],
                  chunked=True)
        conn.chunk(BODY[10:50])
        conn.end()
    origin.on("/a", short)
    with pytest.raises(Closed):
        w.get("/a")
    origin.on("/a", a)
    assert w.get("/a").body == BODY


def test_an_error_to_the_rest_is_the_answer(origin, weir):
    a, w = Ranged(origin), weir()
    ask(w, "0-9")
    origin.on("/a", status=404, body=b"gone")
    assert w.get("/a").status == 404


def test_a_truncated_206_is_not_stored(origin, weir):
    w = weir()

    def cut(req, conn):
        conn.head(206, [("Cache-Control", "max-age=60"), ("ETag", '"v1"'), ("Content-Range", "bytes 0-49/100")],
                  length=50)
        conn.send(BODY[:20])
        conn.close()
    origin.on("/a", cut)
    with pytest.raises(Closed):
        ask(w, "0-49")
    a = Ranged(origin)
    r = ask(w, "0-9")
    assert r.body == BODY[:10] and not r.cache_status.hit
    assert a.asked[-1] == "bytes=0-9"


def answers(content_range, body, *fields):
    return dict(status=206, headers=[("Cache-Control", "max-age=60"), ("ETag", '"v1"')] +
                ([("Content-Range", content_range)] if content_range else []) + list(fields), body=body)


@pytest.mark.parametrize("spec, given", [
    ("0-9", answers("bytes 0-9/100", BODY[:8])), ("0-9", answers("bytes 0-9/100", BODY[:12])),
    ("-10", answers("bytes 90-99/100", BODY[80:])), ("0-9", answers(None, BODY[:10])),
    ("0-9", answers("bytes 9-0/100", BODY[:10])), ("0-9", answers("bytes 0-9/5", BODY[:10])),
    ("0-9", answers("lines 0-9/100", BODY[:10])),
])
def test_a_wrong_content_range_is_passed_on_and_not_stored(origin, weir, spec, given):
    origin.on("/a", **given)
    w = weir()
    for _ in range(2):
        r = ask(w, spec)
        assert r.status == 206 and not r.cache_status.hit and not r.cache_status.stored
    assert origin.count("/a") == 2


def test_of_a_part_shorter_than_it_says_the_size_is_not_told_and_nothing_is_joined(origin, weir):
    origin.on("/a", **answers("bytes 40-99/100", BODY[40:90]))
    w = weir()
    assert ask(w, "-60").header("Content-Range") == "bytes 40-99/100"     # as it came
    r = ask(w, "-10")
    assert r.cache_status.hit and r.body == BODY[80:90] and r.header("Content-Range") == "bytes 80-89/*"
    assert not ask(w, "100-").cache_status.hit
    w.get("/a")
    assert origin.of("/a")[-1].header("Range") is None


def test_if_range_is_judged_against_the_part_and_passed_on_without_one(origin, weir):
    a, w = Ranged(origin), weir()
    r = ask(w, "0-49", ("If-Range", '"v0"'))
    assert r.status == 200 and r.body == BODY and origin.of("/a")[0].header("If-Range") == '"v0"'
    assert ask(w, "0-9").cache_status.hit          # the whole was stored
    b = Ranged(origin, "/b")
    r = ask(w, "0-49", ("If-Range", '"v1"'), path="/b")     # may lack fields: not stored
    assert r.status == 206 and r.cache_status.detail == "if-range"
    ask(w, "0-49", path="/b")
    assert ask(w, "0-9", ("If-Range", '"v1"'), path="/b").cache_status.hit
    r = ask(w, "0-9", ("If-Range", '"v0"'), path="/b")
    assert r.status == 200 and r.body == BODY and b.asked[-1] == "bytes=50-"


def test_other_conditions_go_to_the_origin_where_nothing_is_stored(origin, weir):
    a, w = Ranged(origin), weir()
    assert ask(w, "0-9", ("If-None-Match", '"v1"')).status == 304
    assert origin.of("/a")[0].header("If-None-Match") == '"v1"' and a.asked == ["bytes=0-9"]
    ask(w, "0-9")
    assert ask(w, "0-9", ("If-None-Match", '"v1"')).status == 304 and len(a.asked) == 2


def test_a_stale_part_is_validated_for_who_wants_what_it_has(origin, weir):
    a, w = Ranged(origin, fresh="no-cache"), weir()
    ask(w, "10-49")
    r = ask(w, "20-29")
    assert r.status == 206 and r.body == BODY[20:30] and r.header("Content-Range") == "bytes 20-29/100"
    last = origin.of("/a")[-1]
    assert last.header("If-None-Match") == '"v1"' and last.header("Range") == "bytes=20-29"
    assert r.cache_status.params["fwd-status"] == "304"
    a.etag, a.body = '"v2"', bytes(reversed(BODY))
    assert ask(w, "20-29").body == a.body[20:30]
    w.get("/a")
    assert a.asked[-1] is None


def test_a_purge_takes_parts(origin, weir):
    a, w = Ranged(origin), weir()
    ask(w, "0-49")
    assert w.api("POST", "/purge", {"url": "http://%s/a" % w.host}).json()["objects"] == 1
    assert not ask(w, "0-9").cache_status.hit and len(a.asked) == 2


def test_a_head_is_not_answered_from_a_part(origin, weir):
    a, w = Ranged(origin), weir()
    ask(w, "0-49")
    origin.on("/a", headers=[("Content-Length", "100")])
    r = w.request("HEAD", "/a")
    assert r.status == 200 and not r.cache_status.hit


def test_a_head_that_completes_a_part_has_the_length_of_the_whole(origin, weir):
    Ranged(origin)
    w = weir()
    ask(w, "0-49")
    r = w.request("HEAD", "/a")
    assert r.status == 200 and r.header("Content-Length") == "100" and r.header("Content-Range") is None
    assert r.cache_status.fwd == "partial" and r.cache_status.params["fwd-status"] == "206"


def test_the_same_range_is_fetched_once_for_many(origin, weir):
    gate = origin.gate()
    a = Ranged(origin)

    def slowly(req, conn):
        gate.wait()
        a(req, conn)
    origin.on("/a", slowly)
    w = weir()
    got = w.parallel(5, lambda i: ask(w, "10-19"), meanwhile=lambda: gate.set())
    assert all(r.status == 206 and r.body == BODY[10:20] and r.header("Content-Range") == "bytes 10-19/100" for r in got)
    assert len(a.asked) == 1


def test_a_part_of_what_is_too_large_to_store_is_stored_and_not_completed(origin, weir):
    a, w = Ranged(origin, body=bytes(5000)), weir(cache={"max_object": 4096})
    ask(w, "0-99")
    assert ask(w, "50-60").cache_status.hit
    assert len(w.get("/a").body) == 5000 and a.asked == ["bytes=0-99", None]


def test_a_part_is_kept_apart_by_vary(origin, weir):
    a, w = Ranged(origin, fields=[("Vary", "X-T")]), weir()
    ask(w, "0-9", ("X-T", "1"))
    assert not ask(w, "0-9", ("X-T", "2")).cache_status.hit
    assert ask(w, "0-9", ("X-T", "1")).cache_status.hit


@pytest.mark.parametrize("vary", ["Range", "X-A, range", "If-Range"])
def test_a_part_that_varies_by_the_range_is_not_stored(origin, weir, vary):
    a, w = Ranged(origin, fields=[("Vary", vary)]), weir()
    assert ask(w, "10-19").cache_status.params["detail"] == "vary"
    assert not ask(w, "12-14").cache_status.hit and len(a.asked) == 2
    assert w.get("/a").cache_status.stored and ask(w, "12-14").cache_status.hit    # the whole was asked for without


def test_large_parts_are_combined_byte_for_byte(origin, weir):
    body = b"".join(b"%08d" % i for i in range(300000))
    a, w = Ranged(origin, body=body), weir(cache={"memory": "128MiB", "max_object": "8MiB"})
    for first, last in ((1000000, 1699999), (400000, 1100000), (1600000, 2399999), (0, 500000)):
        assert ask(w, "%d-%d" % (first, last)).body == body[first:last + 1]
    r = w.get("/a")
    assert r.cache_status.hit and r.body == body and len(a.asked) == 4


def test_a_head_is_compared_with_the_whole_that_a_part_is_of(origin, weir):
    a, w = Ranged(origin), weir()
    ask(w, "10-49")

    def head(length):
        origin.on("/a", lambda req, conn: conn.head(200, a.head(), length=length)
                  if req.method == "HEAD" else a(req, conn))
        assert w.request("HEAD", "/a", [("Cache-Control", "no-cache")]).status == 200
        return ask(w, "10-49").cache_status.hit
    assert head(len(BODY))
    assert not head(len(BODY) + 1)


def test_interim_responses_of_a_second_fetch_pass_whole(origin, weir):
    w = weir()
    asked = []

    def handler(req, conn):
        asked.append(req)
        if len(asked) > 1:
            conn.interim(103, [("Link", "</%s>" % ("x" * 20 * len(asked)))])
        if len(asked) == 2:             # it moves the Date, so that the client's If-Range is none
            conn.respond(304, [("Date", LM)])
        else:
            conn.respond(206, [("Cache-Control", "max-age=10"), ("Age", "12"),
                               ("Last-Modified", LM), ("Content-Range", "bytes 0-9/100")], BODY[:10])
    origin.on("/a", handler)
    ask(w, "0-9")
    r = ask(w, "0-9", ("If-Range", LM))
    assert r.status == 206 and r.body == BODY[:10] and len(asked) == 3
    assert [i.header("Link") for i in r.interim] == ["</%s>" % ("x" * n) for n in (40, 60)]
