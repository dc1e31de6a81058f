"""Content codings: what a route compresses is compressed once, and kept beside its identity."""
import gzip
import json
import random
import subprocess
import zlib

import brotli
import pytest
import zstandard

from harness import eventually, weir_binary

ROUTE = {"path": "/**", "compress": ["zstd", "br", "gzip"]}
JSON = ("Content-Type", "application/json")
FRESH = ("Cache-Control", "max-age=60")
TAG = ("ETag", '"abc"')
BODY = json.dumps([{"id": i, "name": "city of number %d" % i, "open": True}
                   for i in range(400)]).encode()
CODINGS = ("zstd", "br", "gzip")


def decode(coding, body):
    if coding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    if coding == "br":
        return brotli.decompress(body)
    if coding == "gzip":
        return gzip.decompress(body)
    assert coding is None
    return body


def plain(r):
    return decode(r.header("Content-Encoding"), r.body)


def ask(w, coding=None, target="/a", extra=(), method="GET"):
    headers = ([("Accept-Encoding", coding)] if coding is not None else []) + list(extra)
    return w.request(method, target, headers)


def coded(w, coding="gzip", target="/a", extra=()):
    """The answer in this coding, once it is there."""
    got = []

    def there():
        got[:] = [ask(w, coding, target, extra)]
        return got[0].header("Content-Encoding") == coding
    eventually(there)
    return got[0]


def idle(w, n):
    """n forms of the three of each object were made, refused or dropped."""
    eventually(lambda: sum(w.metric("weir_%s_total" % name) for name in
                           ("compressed", "compress_useless", "compress_dropped")) == n)


def compressing(weir, origin, *headers, body=BODY, route=None, status=200, **keys):
    origin.on("/a", status=status, headers=[FRESH, *(headers or (JSON, TAG))], body=body)
    return weir(routes=[{**ROUTE, **(route or {})}], **keys)


# ---- the forms ---------------------------------------------------------------------------------

def test_each_coding_is_made_once_and_a_hit_sends_it(origin, weir):
    w = compressing(weir, origin)
    first = ask(w, "zstd, br, gzip")
    assert first.body == BODY and first.header("Content-Encoding") is None
    assert first.cache_status.fwd == "uri-miss"
    for coding in CODINGS:
        r = coded(w, coding)
        assert r.cache_status.hit and plain(r) == BODY and len(r.body) < len(BODY) // 4
        assert r.header("ETag") == '"abc-%s"' % coding
        assert r.header("Content-Length") == str(len(r.body))
        assert r.header("Content-Type") == "application/json"
        assert ask(w, coding).body == r.body
    assert ask(w).body == BODY and ask(w).header("ETag") == '"abc"'
    assert origin.count("/a") == 1
    eventually(lambda: w.metric("weir_compressed_total") == 3)


def test_every_form_says_that_it_varies(origin, weir):
    w = compressing(weir, origin)
    forms = [ask(w, "gzip"), ask(w), coded(w, "gzip"), coded(w, "br"), ask(w)]
    forms.append(ask(w, "br", extra=[("If-None-Match", "*")]))
    forms.append(ask(w, extra=[("Range", "bytes=0-9")]))
    assert [r.all("Vary") for r in forms] == [["Accept-Encoding"]] * 7
    assert [r.status for r in forms[-2:]] == [304, 206]


@pytest.mark.parametrize("vary, expected", [
    ("Accept-Encoding", ["Accept-Encoding"]),
    ("X-Lang, accept-encoding", ["X-Lang, accept-encoding"]),
    ("X-Lang", ["X-Lang", "Accept-Encoding"]),
])
def test_vary_of_the_origin_stays_and_has_one_accept_encoding(origin, weir, vary, expected):
    w = compressing(weir, origin, JSON, ("Vary", vary))
    assert ask(w, "br").all("Vary") == expected
    assert coded(w, "br").all("Vary") == expected
    assert ask(w, "gzip, deflate").cache_status.hit, "one stored response for all codings"


def test_variants_have_forms_of_their_own(origin, weir):
    def handler(req, conn):
        conn.respond(headers=[FRESH, JSON, ("Vary", "X-Lang")],
                     body=req.header("X-Lang").encode() * 2000)
    origin.on("/a", handler)
    w = weir(routes=[ROUTE])
    for lang in ("de", "fr"):
        ask(w, extra=[("X-Lang", lang)])
    for lang in ("de", "fr"):
        assert plain(coded(w, "br", extra=[("X-Lang", lang)])) == lang.encode() * 2000


@pytest.mark.parametrize("accept, coding", [
    ("gzip", "gzip"), ("br", "br"), ("zstd", "zstd"), ("x-gzip", "gzip"), ("GZIP", "gzip"),
    ("gzip, deflate, br", "br"), ("gzip, deflate, br, zstd", "zstd"),
    ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", "gzip"), ("gzip;q=0.5, br;q=0", "gzip"),
    ("*", "zstd"), ("zstd;q=0, *", "br"), ("*;q=0", None), ("deflate", None), ("", None),
    ("identity", None), ("identity;q=0.5, gzip;q=0.1", None), ("identity;q=0, br", "br"),
    ("gzip;q=nonsense", None), ("gzip;q=0.0001", None), ("gzip;q=0", None), (None, None),
])
def test_accept_encoding_decides(origin, weir, accept, coding):
    w = compressing(weir, origin)
    ask(w)
    coded(w)
    r = ask(w, accept)
    assert r.header("Content-Encoding") == coding and plain(r) == BODY
    assert ask(w, accept, method="HEAD").header("Content-Length") == str(len(r.body))


def test_the_route_says_which_codings_and_which_first(origin, weir):
    w = compressing(weir, origin, route={"compress": ["gzip", "br"]})
    ask(w)
    coded(w, "br")
    assert ask(w, "br, gzip, zstd").header("Content-Encoding") == "gzip"
    assert ask(w, "zstd").header("Content-Encoding") is None


def test_head_says_what_get_has(origin, weir):
    w = compressing(weir, origin)
    ask(w)
    r = coded(w, "br")
    head = ask(w, "br", method="HEAD")
    for name in ("Content-Encoding", "Content-Length", "ETag", "Vary", "Content-Type"):
        assert head.header(name) == r.header(name)
    assert origin.count("/a") == 1


def test_a_slow_client_gets_the_whole_coded_form(origin, weir):
    noise = random.Random(7)
    body = "".join(noise.choice("0123456789abcdef") for _ in range(3 << 20)).encode()
    w = compressing(weir, origin, body=body, route={"max_object": "4MiB", "compress": ["gzip"]})
    ask(w)
    with w.client(rcvbuf=4096) as c:
        coded(w)
        assert plain(c.request("GET", "/a", [("Accept-Encoding", "gzip")])) == body


def test_the_explanation_tells_which_codings_are_kept(origin, weir):
    w = compressing(weir, origin, route={"compress": ["br", "gzip"], "compress_min": "2KiB"})
    origin.on("/small", headers=[FRESH, JSON], body=BODY[:1500])
    for target in ("/a", "/small"):
        ask(w, target=target)
    idle(w, 2)

    def codings(target):
        return w.api("GET", "/explain?url=" + w.url + target).json()["stored"][0]["codings"]
    assert codings("/a") == ["br", "gzip"] and codings("/small") == []
    page = subprocess.run([weir_binary(), "explain", w.url + "/a", "--admin", w.admin_url],
                          capture_output=True, check=True, text=True)
    assert "\n  codings: br gzip\n" in page.stdout


# ---- what is not coded -------------------------------------------------------------------------

@pytest.mark.parametrize("headers, body", [
    ([("Content-Type", "image/png")], BODY),
    ([], BODY),
    ([JSON], BODY[:1000]),
    ([JSON, ("Cache-Control", "no-transform")], BODY),
    ([JSON, ("Content-Encoding", "br")], BODY),
    ([JSON, ("Vary", "Available-Dictionary")], BODY),
], ids=["image", "untyped", "small", "no-transform", "coded", "dictionary"])
def test_some_responses_are_never_coded(origin, weir, headers, body):
    w = compressing(weir, origin, *headers, body=body)
    origin.on("/b", headers=[FRESH, JSON], body=BODY)
    origin.on("/c", headers=[FRESH, *headers], body=body)
    w.get("/c")
    w.get("/b")
    coded(w, "gzip", "/b")
    r = ask(w, "gzip", "/c")
    assert r.cache_status.hit and r.body == body
    assert r.header("Content-Encoding") == dict(headers).get("Content-Encoding")
    eventually(lambda: w.metric("weir_compressed_total") == 3)


def test_what_saves_less_than_a_tenth_is_not_kept(origin, weir):
    body = random.Random(1).randbytes(20000)
    w = compressing(weir, origin, ("Content-Type", "text/plain"), body=body)
    ask(w)
    idle(w, 3)
    assert w.metric("weir_compress_useless_total") == 3
    assert ask(w, "br").body == body


def test_types_and_the_least_size_are_the_routes_word(origin, weir):
    w = compressing(weir, origin, ("Content-Type", "Application/X-Mine; a=b"), body=b"a" * 200,
                    route={"compress_types": ["application/x-*"], "compress_min": "200B"})
    ask(w)
    assert plain(coded(w, "br")) == b"a" * 200


def test_a_client_that_wants_no_transformation_gets_the_identity(origin, weir):
    w = compressing(weir, origin)
    ask(w)
    coded(w)
    r = ask(w, "gzip", extra=[("Cache-Control", "no-transform")])
    assert r.body == BODY and r.cache_status.hit


def test_digests_do_not_lie(origin, weir):
    digests = [("Content-Digest", "sha-256=:AAAA:"), ("Repr-Digest", "sha-256=:AAAA:"),
               ("Digest", "sha-256=AAAA"), ("Content-MD5", "AAAA"), ("Accept-Ranges", "bytes")]
    w = compressing(weir, origin, JSON, TAG, *digests)
    ask(w)
    r = coded(w, "br")
    assert [r.header(n) for n, _ in digests] == [None] * 5
    assert [ask(w).header(n) for n, _ in digests] == [v for _, v in digests]


def test_errors_are_coded_too_but_answers_that_may_not_be_stored_are_not(origin, weir):
    w = compressing(weir, origin, JSON, body=BODY, status=404)
    ask(w)
    r = coded(w)
    assert r.status == 404 and plain(r) == BODY
    origin.on("/p", headers=[JSON, ("Cache-Control", "private")], body=BODY)
    for _ in range(3):
        assert ask(w, "gzip", "/p").body == BODY


# ---- requests to the origin --------------------------------------------------------------------

def test_the_origin_is_asked_for_identity(origin, weir):
    w = compressing(weir, origin)
    ask(w, "gzip, br")
    assert origin.last("/a").all("Accept-Encoding") == ["identity"]
    w.request("POST", "/a", [("Accept-Encoding", "br")], b"x")
    assert origin.last("/a").all("Accept-Encoding") == ["br"]


def test_conditional_writes_go_to_the_origin_with_the_tags_it_knows(origin, weir):
    w = compressing(weir, origin)
    ask(w)
    tag = coded(w, "br").header("ETag")
    w.request("PUT", "/a", [("If-Match", tag)], b"x")
    assert origin.last("/a").header("If-Match") == '"abc-br", "abc"'
    w.request("PUT", "/a", [("If-None-Match", '"x", W/"y-br", "z-zstd", *')], b"x")
    assert origin.last("/a").header("If-None-Match") == '"x", W/"y-br", "z-zstd", *, "z"'


def test_without_compress_nothing_changes(origin, weir):
    origin.on("/a", headers=[FRESH, JSON, TAG], body=BODY)
    w = weir()
    r = ask(w, "gzip")
    assert origin.last("/a").header("Accept-Encoding") == "gzip"
    assert r.header("Vary") is None
    w.request("PUT", "/a", [("If-Match", '"a-br"')], b"x")
    assert origin.last("/a").header("If-Match") == '"a-br"'


# ---- conditions and ranges ---------------------------------------------------------------------

@pytest.mark.parametrize("accept, held, status, tag", [
    ("br", '"abc-br"', 304, '"abc-br"'),
    ("br", '"abc"', 304, '"abc"'),
    ("br, gzip", '"abc-gzip"', 304, '"abc-gzip"'),
    ("br", 'W/"abc-br"', 304, '"abc-br"'),
    ("gzip", '"abc", "abc-gzip"', 304, '"abc-gzip"'),
    ("gzip", '"abc-br"', 200, '"abc-gzip"'),        # it may not have that form any more
    (None, '"abc-br"', 200, '"abc"'),
    ("br", '"other-br"', 200, '"abc-br"'),
    ("br", "*", 304, None),
])
def test_if_none_match_holds_for_every_form_that_the_client_takes(origin, weir, accept, held,
                                                                  status, tag):
    w = compressing(weir, origin)
    ask(w)
    coded(w)
    r = ask(w, accept, extra=[("If-None-Match", held)])
    assert r.status == status and r.header("Content-Encoding") in (None, accept)
    assert tag is None or r.header("ETag") == tag
    assert origin.count("/a") == 1


def test_the_tag_of_a_form_that_is_not_there_yet_holds_too(origin, weir):
    w = compressing(weir, origin, route={"compress_min": "1MiB"})
    r = ask(w, "br", extra=[("If-None-Match", '"abc-br"')])
    assert r.status == 304 and r.header("ETag") == '"abc-br"' and r.cache_status.fwd == "uri-miss"
    assert ask(w, "br", extra=[("If-None-Match", '"abc-br"')]).status == 304


def test_a_weak_tag_stands_for_all_forms(origin, weir):
    w = compressing(weir, origin, JSON, ("ETag", 'W/"abc"'))
    ask(w)
    assert coded(w, "br").header("ETag") == 'W/"abc"'
    assert ask(w, "gzip", extra=[("If-None-Match", 'W/"abc"')]).status == 304


def test_a_range_is_cut_out_of_the_identity(origin, weir):
    w = compressing(weir, origin)
    ask(w)
    tag = coded(w, "br").header("ETag")
    r = ask(w, "br", extra=[("Range", "bytes=10-19")])
    assert r.status == 206 and r.body == BODY[10:20] and r.header("ETag") == '"abc"'
    assert r.header("Content-Encoding") is None
    # Bytes of another form must not be joined: the whole is sent.
    r = ask(w, "br", extra=[("Range", "bytes=10-19"), ("If-Range", tag)])
    assert r.status == 200 and plain(r) == BODY and r.header("Content-Encoding") == "br"


# ---- validation, purges, room ------------------------------------------------------------------

def test_a_304_keeps_the_forms_with_its_fields(origin, weir):
    n = [0]

    def handler(req, conn):
        n[0] += 1
        status = 304 if req.header("If-None-Match") == '"abc"' else 200
        conn.respond(status, [("Cache-Control", "max-age=1"), JSON, TAG, ("X-N", str(n[0]))],
                     BODY if status == 200 else b"")
    origin.on("/a", handler)
    w = weir(routes=[ROUTE])
    ask(w)
    first = coded(w, "br")
    eventually(lambda: ask(w, "br").header("X-N") != first.header("X-N"))
    r = ask(w, "br")
    assert r.header("Content-Encoding") == "br" and plain(r) == BODY
    assert r.body == first.body and r.header("ETag") == '"abc-br"'
    assert r.all("Vary") == ["Accept-Encoding"]
    assert all("If-None-Match" in dict(q.headers) for q in origin.of("/a")[1:])
    assert w.metric("weir_compressed_total") == 3, "nothing was compressed again"


def test_a_304_with_no_transform_ends_the_forms(origin, weir):
    answers = iter([(200, "max-age=1")])

    def handler(req, conn):
        status, cc = next(answers, (304, "max-age=60, no-transform"))
        conn.respond(status, [("Cache-Control", cc), JSON, TAG], BODY if status == 200 else b"")
    origin.on("/a", handler)
    w = weir(routes=[ROUTE])
    ask(w)
    coded(w)
    eventually(lambda: ask(w, "gzip").header("Content-Encoding") is None)
    assert ask(w, "gzip").body == BODY


def test_a_purge_takes_all_forms(origin, weir):
    w = compressing(weir, origin)
    ask(w)
    coded(w, "br")
    origin.on("/a", headers=[FRESH, JSON], body=BODY[::-1])
    w.purge(url=w.url + "/a")
    r = ask(w, "br")
    assert r.body == BODY[::-1] and r.cache_status.fwd == "uri-miss"
    assert plain(coded(w, "br")) == BODY[::-1]


def test_a_reload_without_compress_sends_the_identity(origin, weir):
    w = compressing(weir, origin)
    ask(w)
    coded(w)
    w.write_config(routes=[{"path": "/**"}])
    assert w.api("POST", "/reload").status == 200
    r = ask(w, "gzip")
    assert r.cache_status.hit and r.body == BODY


def test_forms_count_against_the_memory_and_go_with_their_objects(origin, weir):
    text = BODY * 2

    def handler(req, conn):
        conn.respond(headers=[FRESH, JSON], body=(req.target.encode() + text)[:len(text)])
    for i in range(200):
        origin.on("/%d" % i, handler)
    w = weir(routes=[ROUTE], cache={"memory": "4MiB"})
    limit = w.metric("weir_cache_memory_limit_bytes")
    with w.client() as c:
        for i in range(200):
            r = c.request("GET", "/%d" % i, [("Accept-Encoding", "br")])
            assert plain(r) == ("/%d" % i).encode() + text[:len(text) - len("/%d" % i)]
            assert w.metric("weir_cache_memory_bytes") <= 1.1 * limit
    assert w.metric("weir_cache_evictions_total") > 0
    before = w.metric("weir_cache_memory_bytes")
    assert w.purge(all=True)
    eventually(lambda: w.metric("weir_cache_objects") == 0)
    eventually(lambda: w.metric("weir_cache_memory_bytes") < before / 2)


def test_forms_add_what_they_hold_to_the_figures(origin, weir):
    w = compressing(weir, origin)
    ask(w)
    idle(w, 3)
    sizes = sum(len(ask(w, c).body) for c in CODINGS)
    with_forms = w.metric("weir_cache_memory_bytes")
    w.purge(all=True)
    w.write_config(routes=[{"path": "/**"}])
    w.api("POST", "/reload")
    eventually(lambda: w.metric("weir_cache_objects") == 0)
    ask(w)
    more = with_forms - w.metric("weir_cache_memory_bytes")
    assert sizes <= more <= sizes + 4096


# ---- an origin that sends gzip all the same -----------------------------------------------------

def gzips(body=BODY, headers=(), chunks=0, cc="max-age=60", etag='"gz"', packed=None):
    packed = gzip.compress(body) if packed is None else packed

    def handler(req, conn):
        head = [("Cache-Control", cc), JSON, ("ETag", etag), ("Content-Encoding", "gzip"), *headers]
        if req.header("If-None-Match"):
            assert req.header("If-None-Match") == 'W/"gz"'
            return conn.respond(304, head[:3])
        if not chunks:
            return conn.respond(headers=head, body=packed)
        conn.head(200, head, chunked=True)
        for i in range(0, len(packed), chunks):
            conn.chunk(packed[i:i + chunks])
        conn.end()
        return None
    return handler


@pytest.mark.parametrize("chunks", [0, 1, 100])
def test_gzip_that_nobody_asked_for_is_undone(origin, weir, chunks):
    origin.on("/a", gzips(chunks=chunks, headers=[("Content-MD5", "AAAA")]))
    w = weir(routes=[ROUTE])
    r = ask(w)
    assert r.body == BODY and r.header("Content-Encoding") is None
    assert r.header("ETag") == 'W/"gz"' and r.header("Content-MD5") is None
    assert r.all("Vary") == ["Accept-Encoding"]
    assert ask(w, "identity").body == BODY and ask(w, "identity").cache_status.hit
    assert plain(coded(w, "br")) == BODY and plain(coded(w, "gzip")) == BODY
    assert ask(w, extra=[("Range", "bytes=5-9")]).body == BODY[5:10]
    assert ask(w, "br", extra=[("If-None-Match", 'W/"gz"')]).status == 304
    assert origin.count("/a") == 1 and w.metric("weir_decoded_total") == 1


def test_a_trailer_about_the_coded_bytes_ends_with_them(origin, weir):
    def handler(req, conn):
        conn.head(200, [FRESH, JSON, ("Content-Encoding", "gzip")], chunked=True)
        conn.chunk(gzip.compress(BODY))
        conn.end([("Repr-Digest", "sha-256=:AAAA:")])
    origin.on("/a", handler)
    w = weir(routes=[ROUTE])
    r = ask(w, extra=[("TE", "trailers")])
    assert r.body == BODY and r.trailers == []


def test_what_was_undone_is_still_validated_by_the_origins_tag(origin, weir):
    origin.on("/a", gzips(cc="max-age=0"))
    w = weir(routes=[ROUTE])
    assert ask(w).body == BODY
    for _ in range(3):
        r = ask(w)
        assert r.body == BODY and r.header("ETag") == 'W/"gz"'
        assert (r.cache_status.fwd, r.cache_status.params.get("fwd-status")) in (
            ("stale", 304), ("stale", "304"))
    assert plain(coded(w, "br")) == BODY
    assert w.metric("weir_decoded_total") == 1


@pytest.mark.parametrize("packed, body", [
    (gzip.compress(b"a" * 3000) + gzip.compress(b"b" * 3000), b"a" * 3000 + b"b" * 3000),
    (gzip.compress(BODY) + b"\0" * 20, BODY),
    (b"", b""),
], ids=["two", "zeros", "nothing"])
def test_members_and_what_is_behind_them(origin, weir, packed, body):
    origin.on("/a", gzips(packed=packed))
    origin.on("/b", gzips(packed=packed, chunks=1))
    w = weir(routes=[ROUTE])
    assert ask(w).body == body and ask(w, target="/b").body == body
    assert ask(w).cache_status.hit


@pytest.mark.parametrize("packed", [gzip.compress(BODY)[:-9], gzip.compress(BODY)[:500],
                                    b"\x1f\x8b" + b"x" * 50,
                                    gzip.compress(BODY)[:-8] + b"12345678"],
                         ids=["no-end", "half", "garbage", "checksum"])
def test_broken_gzip_is_broken_off_and_never_stored(origin, weir, packed):
    origin.on("/a", gzips(packed=packed))
    w = weir(routes=[ROUTE])
    for _ in range(2):
        with w.client() as c, pytest.raises((AssertionError, OSError)):
            r = c.get("/a")
            assert r.status == 200
    assert w.metric("weir_cache_objects") == 0 and origin.count("/a") == 2
    assert w.process.poll() is None


def test_zlib_is_no_gzip(origin, weir):
    origin.on("/a", gzips(packed=zlib.compress(BODY)))
    w = weir(routes=[ROUTE])
    with w.client() as c, pytest.raises((AssertionError, OSError)):
        assert c.get("/a").status == 200


def test_gzip_that_expands_beyond_what_is_stored_passes_through(origin, weir):
    body = b"0" * (8 << 20)
    origin.on("/a", gzips(body))
    w = weir(routes=[ROUTE])
    for _ in range(2):
        assert ask(w).body == body
    assert w.metric("weir_cache_objects") == 0


def test_gzip_with_no_transform_passes_as_it_came(origin, weir):
    origin.on("/a", gzips(cc="max-age=60, no-transform"))
    w = weir(routes=[ROUTE])
    for _ in range(2):
        r = ask(w)
        assert gzip.decompress(r.body) == BODY and r.header("ETag") == '"gz"'


def test_a_write_that_is_answered_in_gzip_is_undone_only_for_who_refuses_it(origin, weir):
    origin.on("/a", gzips())
    w = weir(routes=[ROUTE])
    assert ask(w, "gzip", method="POST").header("Content-Encoding") == "gzip"
    r = ask(w, "identity", method="POST")
    assert r.header("Content-Encoding") is None and r.body == BODY


@pytest.mark.parametrize("coding", ["dcb", "dcz"])
def test_dictionary_codings_pass_and_are_never_stored(origin, weir, coding):
    origin.on("/a", headers=[FRESH, JSON, ("Content-Encoding", coding),
                             ("Vary", "Accept-Encoding, Available-Dictionary")], body=BODY)
    w = weir(routes=[ROUTE])
    for _ in range(2):
        r = ask(w, "gzip, " + coding, extra=[("Available-Dictionary", ":AAAA:")])
        assert r.header("Content-Encoding") == coding and r.body == BODY
        assert not r.cache_status.hit
    assert w.metric("weir_cache_objects") == 0


@pytest.mark.parametrize("vary, kept", [
    (None, False), ("Accept-Encoding", False), ("Available-Dictionary", False),
    ("accept-encoding, available-dictionary", True),
])
def test_dictionary_codings_are_kept_apart_by_vary_or_not_at_all(origin, weir, vary, kept):
    def handler(req, conn):
        conn.respond(headers=[FRESH, JSON, *([("Vary", vary)] if vary else []),
                              ("Content-Encoding", "dcb")],
                     body=(req.header("Available-Dictionary") or "none").encode())
    origin.on("/a", handler)
    w = weir()
    for i in range(2):
        for dictionary in (":AAAA:", ":BBBB:"):
            r = ask(w, "dcb", extra=[("Available-Dictionary", dictionary)])
            assert r.body == dictionary.encode() and r.cache_status.hit == (kept and i == 1)
    assert ask(w, "gzip").body == b"none"


# ---- configuration -----------------------------------------------------------------------------

def test_a_shutdown_does_not_wait_for_the_queue(origin, weir):
    body = BODY * 400
    origin.on("/a", headers=[FRESH, JSON], body=body)
    w = weir(routes=[{**ROUTE, "max_object": "32MiB"}], cache={"memory": "512MiB"})
    assert ask(w).body == body
    assert w.stop() == 0
