"""Ranges of large things out of blocks: `range.block`."""
import re

import pytest
from harness import Closed, eventually
from test_parts import Ranged, ask

KIB = 1024
B = 64 * KIB
BODY = b"".join(b"%07d\n" % i for i in range(80 * KIB))      # 640 KiB: ten blocks


@pytest.fixture
def blocks(weir):
    return weir(routes=[{"path": "/**", "range": {"block": "64KiB"}}], cache={"memory": "64MiB"})


def span(i, n=1):
    return "bytes=%d-%d" % (i * B, (i + n) * B - 1)


def test_a_range_is_fetched_in_blocks_and_the_next_is_answered_from_them(origin, blocks):
    a = Ranged(origin, body=BODY)
    first, last = B + 100, 3 * B + 50
    r = ask(blocks, "%d-%d" % (first, last))
    assert r.status == 206 and r.body == BODY[first:last + 1]
    assert r.header("Content-Range") == "bytes %d-%d/%d" % (first, last, len(BODY))
    assert r.header("ETag") == '"v1"' and r.header("Content-Type") == "a/b" and len(r.all("Content-Range")) == 1
    assert r.cache_status.stored and r.cache_status.params["fwd-status"] == "206"
    assert a.asked == [span(1), span(2), span(3)]
    r = ask(blocks, "%d-%d" % (2 * B - 5, 2 * B + 5))
    assert r.cache_status.hit and r.body == BODY[2 * B - 5:2 * B + 6] and len(a.asked) == 3
    r = ask(blocks, "%d-%d" % (3 * B, 4 * B))               # one more: not from the cache alone
    assert not r.cache_status.hit and r.cache_status.fwd == "partial"
    again = ask(blocks, "%d-%d" % (B, 5 * B - 1)).cache_status
    assert again.hit and not again.stored
    assert r.body == BODY[3 * B:4 * B + 1] and a.asked[3:] == [span(4)]


@pytest.mark.parametrize("spec, first, wants", [
    ("-10", len(BODY) - 10, [0, 9]), ("%d-" % (8 * B + 1), 8 * B + 1, [8, 9]),
    ("%d-%d" % (9 * B, 100 * B), 9 * B, [9]), ("-%d" % (100 * B), 0, list(range(10))),
])
def test_open_and_suffix_ranges_end_where_the_whole_does(origin, blocks, spec, first, wants):
    a = Ranged(origin, body=BODY)
    r = ask(blocks, spec)
    assert r.status == 206 and r.body == BODY[first:]
    assert r.header("Content-Range") == "bytes %d-%d/%d" % (first, len(BODY) - 1, len(BODY))
    assert a.asked == [span(i) for i in wants]


def test_what_fits_into_one_block_and_what_lies_beyond_the_end(origin, blocks):
    a = Ranged(origin, body=b"0123456789")
    r = ask(blocks, "2-4")
    assert r.body == b"234" and r.cache_status.stored and ask(blocks, "-3").body == b"789"
    assert a.asked == [span(0)]
    r = ask(blocks, "10-")
    assert r.status == 416 and r.header("Content-Range") == "bytes */10" and len(a.asked) == 1
    assert ask(blocks, "%d-" % B).status == 416
    assert blocks.get("/a").body == b"0123456789"


def test_a_block_is_fetched_once_for_many(origin, blocks):
    gate = origin.gate()
    a = Ranged(origin, body=BODY)

    def slowly(req, conn):
        gate.wait()
        a(req, conn)
    origin.on("/a", slowly)
    got = blocks.parallel(6, lambda i: ask(blocks, "%d-%d" % (i, B + i)), meanwhile=lambda: gate.set())
    assert [r.body for r in got] == [BODY[i:B + i + 1] for i in range(6)]
    assert sorted(a.asked) == sorted([span(0), span(1)])


def test_a_stored_block_of_an_older_representation_is_fetched_anew(origin, blocks):
    a = Ranged(origin, body=BODY)
    ask(blocks, "%d-%d" % (B, 2 * B - 1))
    a.etag, a.body = '"v2"', BODY[::-1]
    r = ask(blocks, "0-%d" % (2 * B))           # block 0 is new, block 1 is old
    assert r.header("ETag") == '"v2"' and r.body == a.body[:2 * B + 1]
    assert a.asked == [span(1), span(0), span(1), span(2)]


def test_what_changes_within_an_answer_breaks_it_off(origin, blocks):
    a = Ranged(origin, body=BODY)

    def changing(req, conn):
        if req.header("Range") == span(2):
            a.etag, a.body = '"v2"', BODY[::-1]
        a(req, conn)
    origin.on("/a", changing)
    with pytest.raises(Closed) as e:
        ask(blocks, "0-%d" % (4 * B))
    assert BODY.startswith(e.value.got)
    r = ask(blocks, "0-%d" % (4 * B))
    assert r.body == a.body[:4 * B + 1] and r.header("ETag") == '"v2"'


@pytest.mark.parametrize("etag, fields", [('W/"v1"', []), (None, [])])
def test_without_a_strong_validator_the_range_goes_as_it_is(origin, blocks, etag, fields):
    a = Ranged(origin, body=BODY, etag=etag, fields=fields)
    spec = "%d-%d" % (B, 3 * B)
    for _ in range(2):
        assert ask(blocks, spec).body == BODY[B:3 * B + 1]
    assert a.asked[0] == span(1) and a.asked[1] == "bytes=" + spec
    assert span(1) not in a.asked[1:]


def test_an_origin_that_ignores_ranges_is_asked_in_blocks_once(origin, blocks):
    origin.on("/a", headers=[("Cache-Control", "no-store"), ("ETag", '"v1"')], body=BODY)
    for _ in range(3):
        r = ask(blocks, "0-9")
        assert r.status == 200 and r.body == BODY
    assert [q.header("Range") for q in origin.of("/a")] == [span(0)] + ["bytes=0-9"] * 3


def test_an_origin_that_ignores_ranges_fills_the_whole(origin, blocks):
    origin.on("/a", headers=[("Cache-Control", "max-age=60"), ("ETag", '"v1"')], body=BODY)
    assert ask(blocks, "0-9").status == 200
    r = ask(blocks, "5-9")
    assert r.status == 206 and r.cache_status.hit and r.body == BODY[5:10]


def test_an_answer_that_may_not_be_stored_goes_as_it_is(origin, blocks):
    a = Ranged(origin, body=BODY, fresh="no-store")
    for _ in range(2):
        r = ask(blocks, "%d-%d" % (5, 3 * B))
        assert r.status == 206 and r.body == BODY[5:3 * B + 1]
    assert a.asked == [span(0)] + ["bytes=5-%d" % (3 * B)] * 2


def test_if_range_and_other_conditions(origin, blocks):
    a = Ranged(origin, body=BODY)
    r = ask(blocks, "0-%d" % B, ("If-Range", '"v1"'))
    assert r.status == 206 and len(r.body) == B + 1 and all(not q.header("If-Range") for q in origin.of("/a"))
    r = ask(blocks, "0-%d" % B, ("If-Range", '"v0"'))
    assert r.status == 200 and r.body == BODY
    b = Ranged(origin, "/b", body=BODY)
    assert ask(blocks, "0-9", ("If-None-Match", '"v1"'), path="/b").status == 304 and b.asked == ["bytes=0-9"]


def test_a_stale_block_is_validated(origin, blocks):
    a = Ranged(origin, body=BODY, fresh="no-cache")
    for _ in range(2):
        assert ask(blocks, "10-%d" % B).body == BODY[10:B + 1]
    assert [q.header("If-None-Match") for q in origin.of("/a")] == [None, None, '"v1"', '"v1"']
    a.etag, a.body = '"v2"', BODY[::-1]
    r = ask(blocks, "10-%d" % B)
    assert r.body == a.body[10:B + 1] and r.header("ETag") == '"v2"'


def test_a_purge_by_url_takes_all_blocks(origin, blocks):
    a = Ranged(origin, body=BODY)
    ask(blocks, "0-%d" % (3 * B))
    n = len(a.asked)
    assert blocks.api("POST", "/purge", {"url": "http://%s/a" % blocks.host}).json()["objects"] == 4
    assert not ask(blocks, "0-9").cache_status.hit and len(a.asked) == n + 1


def test_the_whole_goes_on_as_ever_and_answers_ranges_then(origin, blocks):
    a = Ranged(origin, body=BODY)
    ask(blocks, "0-9")
    assert blocks.get("/a").body == BODY and a.asked == [span(0), None]
    assert ask(blocks, "%d-" % (5 * B)).cache_status.hit and len(a.asked) == 2


def test_an_origin_that_fails_in_the_middle_breaks_the_answer_off(origin, blocks):
    a = Ranged(origin, body=BODY)

    def failing(req, conn):
        if req.header("Range") == span(1):
            conn.respond(503, [], b"no")
        else:
            a(req, conn)
    origin.on("/a", failing)
    with pytest.raises(Closed) as e:
        ask(blocks, "0-%d" % (3 * B))
    assert e.value.got == BODY[:B]
    origin.on("/b", lambda req, conn: conn.respond(503, [], b"no"))
    assert ask(blocks, "0-9", path="/b").status == 503


def test_blocks_are_fetched_no_faster_than_the_client_reads(origin, weir):
    w = weir(routes=[{"path": "/**", "range": {"block": "64KiB"}}], cache={"memory": "64MiB"})
    a = Ranged(origin, body=BODY * 40)
    with w.client() as c:
        c.start("GET", "/a", [("Range", "bytes=0-")])
        eventually(lambda: len(a.asked) >= 2)
        import time
        time.sleep(0.3)
        assert len(a.asked) < 300
        r = c.response()
        assert r.status == 206 and r.body == a.body
    assert len(a.asked) == 400


def test_blocks_larger_than_max_object_are_refused(weir, tmp_path):
    import harness
    import subprocess
    config = tmp_path / "weir.yaml"
    config.write_text("origins: {a: {servers: ['http://127.0.0.1:1']}}\n"
                      "routes: [{path: '/**', max_object: 64KiB, range: {block: 128KiB}}]\n")
    done = subprocess.run([harness.weir_binary(), "check", "-c", str(config)], capture_output=True, text=True)
    assert done.returncode != 0 and re.search(r"range.block: is more than max_object", done.stderr + done.stdout)
