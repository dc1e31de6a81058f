"""What is no request is answered with an error and a closed connection, and never reaches the origin."""
import re

import pytest

import harness

HOST = b"Host: x\r\n"


def head(line, *fields, host=HOST):
    return line + b"\r\n" + host + b"".join(f + b"\r\n" for f in fields) + b"\r\n"


def get(*fields, host=HOST):
    return head(b"GET / HTTP/1.1", *fields, host=host)


def post(*fields, body=b"", host=HOST):
    return head(b"POST / HTTP/1.1", *fields, host=host) + body


CHUNKED = b"Transfer-Encoding: chunked"

# name: (bytes, status)
REFUSED = {
    # framing
    "length and coding": (post(b"Content-Length: 3", CHUNKED, body=b"0\r\n\r\n"), 400),
    "coding and length": (post(CHUNKED, b"Content-Length: 3", body=b"0\r\n\r\n"), 400),
    "differing lengths": (post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"), 400),
    "the same length twice": (post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), 400),
    "a listed length": (post(b"Content-Length: 3, 3", body=b"abc"), 400),
    "a signed length": (post(b"Content-Length: +3", body=b"abc"), 400),
    "a negative length": (post(b"Content-Length: -3", body=b"abc"), 400),
    "an empty length": (post(b"Content-Length:"), 400),
    "a length in hex": (post(b"Content-Length: 0x3", body=b"abc"), 400),
    "a length with white space inside": (post(b"Content-Length: 1 1", body=b"a"), 400),
    "a length beyond 64 bits": (post(b"Content-Length: 18446744073709551619", body=b"abc"), 400),
    "a length beyond 63 bits": (post(b"Content-Length: 9223372036854775808", body=b"abc"), 400),
    "coding gzip": (post(b"Transfer-Encoding: gzip", body=b"0\r\n\r\n"), 400),
    "coding gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 400),
    "coding chunked twice": (post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), 400),
    "coding chunked, chunked": (post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    "coding chunked with junk": (post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n"), 400),
    "coding xchunked": (post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 400),
    "coding identity": (post(b"Transfer-Encoding: identity"), 400),
    "an empty coding": (post(b"Transfer-Encoding:"), 400),
    "chunked in HTTP/1.0": (head(b"POST / HTTP/1.0", CHUNKED) + b"0\r\n\r\n", 400),
    # bytes in the head
    "LF alone": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "LF after a field": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
    "CR alone": (b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400),
    "NUL in a value": (get(b"A: b\0c"), 400),
    "NUL in a name": (get(b"A\0b: c"), 400),
    "NUL in the target": (head(b"GET /a\0b HTTP/1.1"), 400),
    "a control character in a value": (get(b"A: b\x01c"), 400),
    "DEL in a value": (get(b"A: b\x7fc"), 400),
    "white space before the colon": (get(b"A : b"), 400),
    "a tab before the colon": (get(b"A\t: b"), 400),
    "obs-fold": (get(b"A: b", b" c"), 400),
    "obs-fold with a tab": (get(b"Content-Length: 1", b"\t0"), 400),
    "white space before the first field": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "a field without a colon": (get(b"Abc"), 400),
    "an empty field name": (get(b": b"), 400),
    "a field name that is no token": (get(b"A(b): c"), 400),
    # Host
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (get(b"Host: y"), 400),
    "the same Host twice": (get(b"Host: x"), 400),
    "an empty Host": (get(host=b"Host:\r\n"), 400),
    "Host with a path": (get(host=b"Host: x/y\r\n"), 400),
    "Host with a user": (get(host=b"Host: a@x\r\n"), 400),
    "Host with white space": (get(host=b"Host: x y\r\n"), 400),
    "Host with a bad port": (get(host=b"Host: x:99999\r\n"), 400),
    "Host listed": (get(host=b"Host: x, y\r\n"), 400),
    "Host with a bad address": (get(host=b"Host: [::1\r\n"), 400),
    "two Hosts with an absolute target": (head(b"GET http://x/ HTTP/1.1", b"Host: y"), 400),
    # the request line
    "a target without a slash": (head(b"GET a HTTP/1.1"), 400),
    "a target of another scheme": (head(b"GET ftp://x/ HTTP/1.1"), 400),
    "an absolute target without a host": (head(b"GET http:/// HTTP/1.1"), 400),
    "an absolute target with a user": (head(b"GET http://u@x/ HTTP/1.1"), 400),
    "* for GET": (head(b"GET * HTTP/1.1"), 400),
    "a fragment": (head(b"GET /a#b HTTP/1.1"), 400),
    "a bad escape": (head(b"GET /%zz HTTP/1.1"), 400),
    "an escape cut short": (head(b"GET /%4 HTTP/1.1"), 400),
    "a byte beyond ASCII in the target": (head(b"GET /\xff HTTP/1.1"), 400),
    "two spaces": (head(b"GET  / HTTP/1.1"), 400),
    "a space in the target": (head(b"GET /a b HTTP/1.1"), 400),
    "a tab for a space": (head(b"GET\t/ HTTP/1.1"), 400),
    "white space before the method": (head(b" GET / HTTP/1.1"), 400),
    "a method that is no token": (head(b"G@T / HTTP/1.1"), 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/0.9 by name": (head(b"GET / HTTP/0.9"), 400),
    "HTTP/2.0": (head(b"GET / HTTP/2.0"), 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.257": (head(b"GET / HTTP/1.257"), 400),
    "HTTP/1.": (head(b"GET / HTTP/1."), 400),
    "http/1.1": (head(b"GET / http/1.1"), 400),
    "HTTP/1.1 and more": (head(b"GET / HTTP/1.1 x"), 400),
    "a space behind the version": (head(b"GET / HTTP/1.1 "), 400),
    "something else than HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", 400),
    "CONNECT": (head(b"CONNECT x:443 HTTP/1.1"), 501),
    # expectations
    "another expectation": (post(b"Expect: 200-ok", b"Content-Length: 1", body=b"a"), 417),
}

# Chunked bodies: the head is fine, so that the origin may hear of the request, but it never sees it whole.
BAD_CHUNKS = {
    "a size that is no number": b"x\r\nabc\r\n0\r\n\r\n",
    "a negative size": b"-1\r\nabc\r\n0\r\n\r\n",
    "a size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "an empty size": b"\r\nabc\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "a size beyond 63 bits": b"8000000000000000\r\nabc\r\n0\r\n\r\n",
    "white space before a size": b" 3\r\nabc\r\n0\r\n\r\n",
    "LF behind a size": b"3\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk ended by LF": b"3\r\nabc\n0\r\n\r\n",
    "NUL in an extension": b"3;a=\0\r\nabc\r\n0\r\n\r\n",
    "a folded trailer": b"3\r\nabc\r\n0\r\nA: b\r\n c\r\n\r\n",
    "a trailer without a colon": b"3\r\nabc\r\n0\r\nA\r\n\r\n",
    "a trailer with LF": b"3\r\nabc\r\n0\r\nA: b\n\r\n",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One Weir for all that is refused: that it still stands afterwards is part of the test."""
    o = harness.Origin()
    o.on("*", body=b"ok")
    w = harness.Weir(o.url, directory=str(tmp_path_factory.mktemp("strict")))
    yield o, w
    status = w.stop()
    o.stop()
    assert status == 0, w.log()


def refused(raw, *statuses):
    """One well formed problem, then the end."""
    answer = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n(?:[^\r\n]+\r\n)*?\r\n(.*)", raw, re.S)
    assert answer, raw
    status = int(answer[1])
    assert status in statuses, raw
    fields = raw.partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nconnection: close" in fields and b"application/problem+json" in fields, raw
    length = int(re.search(rb"content-length: (\d+)", fields)[1])
    assert len(answer[2]) == length, raw
    assert b'"status":%d' % status in answer[2]
    assert b"cache-status" not in fields


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_head_is_refused_closed_and_not_forwarded(shared, name):
    origin, w = shared
    data, status = REFUSED[name]
    before = origin.count()
    refused(w.raw(data), status)
    with w.client() as c:                        # a byte at a time: refused the same way, by its first part
        for i in range(len(data)):
            try:
                c.send(data[i:i + 1])
            except OSError:
                break
        refused(c.wire.to_close(), status)
    refused(w.raw(data + get() * 3), status)     # and what follows is never taken for a request
    assert origin.count() == before
    assert w.get("/").status == 200


@pytest.mark.parametrize("name", ["differing lengths", "LF after a field", "two Hosts", "a bad escape",
                                  "HTTP/2.0", "obs-fold"])
def test_a_bad_head_is_refused_wherever_it_is_split(shared, name):
    origin, w = shared
    data, status = REFUSED[name]
    before = origin.count()
    for at in range(1, len(data)):
        with w.client() as c:
            c.send(data[:at])
            try:
                c.send(data[at:])
            except OSError:
                pass
            refused(c.wire.to_close(), status)
    assert origin.count() == before


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_bad_chunked_body_is_refused_and_never_whole_at_the_origin(shared, name):
    origin, w = shared
    before = origin.count()
    data = post(CHUNKED, body=BAD_CHUNKS[name])
    for pieces in ([data], [data[i:i + 1] for i in range(len(data))]):
        with w.client() as c:
            for piece in pieces:
                try:
                    c.send(piece)
                except OSError:
                    break
            # what is no size may be seen to be too large before all of it is there
            refused(c.wire.to_close(), 400, 413 if "bits" in name else 400)
    assert origin.count() == before


def test_an_unterminated_chunked_body_never_becomes_whole(shared):
    origin, w = shared
    before = origin.count()
    for body in (b"", b"3", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r\n", b"3\r\nabc\r\n0", b"3\r\nabc\r\n0\r\n"):
        assert w.raw(post(CHUNKED, body=body), half_close=True) == b""
    assert w.raw(post(b"Content-Length: 4", body=b"abc"), half_close=True) == b""
    assert origin.count() == before


def test_a_good_request_is_understood_however_it_is_split(shared):
    origin, w = shared
    data = post(CHUNKED, b"X-Split: yes", body=b"3;x=y\r\nabc\r\n00A\r\n0123456789\r\n0\r\nA: b\r\n\r\n")
    with w.client() as c:
        for at in range(1, len(data)):
            c.send(data[:at])
            c.send(data[at:])
            assert c.response().status == 200
            assert origin.last("/").body == b"abc0123456789"
        for i in range(len(data)):
            c.send(data[i:i + 1])
        assert c.response().status == 200
    assert origin.last("/").header("X-Split") == "yes"


def test_an_empty_line_before_a_request_is_let_pass(shared):
    _, w = shared
    with w.client() as c:
        c.send(b"\r\n" + get() + b"\r\n" + get())
        assert c.response().status == 200
        assert c.response().status == 200


def test_the_absolute_form_replaces_host(shared):
    origin, w = shared
    with w.client() as c:
        c.send(b"GET http://Example.org/abs?q=1 HTTP/1.1\r\nHost: other\r\n\r\n")
        assert c.response().status == 200
    seen = origin.last("/abs")
    assert seen.target == "/abs?q=1" and seen.header("Host").lower() == "example.org"
    assert seen.header("X-Forwarded-Host").lower() == "example.org"


def test_an_absolute_target_is_the_same_key_as_its_path(shared):
    origin, w = shared
    origin.on("/same", headers=[("Cache-Control", "max-age=60")], body=b"x")
    with w.client() as c:
        c.send(b"GET http://s.example/same HTTP/1.1\r\nHost: other\r\n\r\n")
        assert c.response().cache_status.stored
        c.send(b"GET /same HTTP/1.1\r\nHost: S.example:80\r\n\r\n")
        assert c.response().cache_status.hit
        c.send(b"GET /same HTTP/1.1\r\nHost: other\r\n\r\n")
        assert not c.response().cache_status.hit


def test_every_method_token_is_kept(shared):
    origin, w = shared
    for method in ("PURGE", "QUERY", "PATCH", "M-SEARCH", "x", "get", "!#$%&'*+-.^_`|~09aZ", "PROPFIND"):
        assert w.request(method, "/method", body=b"a=b").status == 200, method
        assert origin.last("/method").method == method


def test_options_for_the_whole_server_is_forwarded(shared):
    origin, w = shared
    with w.client() as c:
        c.send(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
        assert c.response("OPTIONS").status == 200
    assert origin.of("*")[-1].method == "OPTIONS"


def test_max_forwards_counts_down_and_ends_at_nought(shared):
    """RFC 9110 7.6.2."""
    origin, w = shared
    assert w.request("OPTIONS", "/mf", [("Max-Forwards", "3")]).status == 200
    assert origin.last("/mf").header("Max-Forwards") == "2"
    before = origin.count()
    for method in ("OPTIONS", "TRACE"):
        assert w.request(method, "/mf", [("Max-Forwards", "0")]).status == 200
    assert origin.count() == before
    assert w.get("/mf", [("Max-Forwards", "0")]).status == 200       # means nothing for other methods
    assert origin.last("/mf").header("Max-Forwards") == "0"
