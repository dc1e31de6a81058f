"""Requests with Authorization and what a shared cache may do with their answers: RFC 9111 3.5."""
import pytest

ME = [("Authorization", "Bearer me")]
YOU = [("Authorization", "Bearer you")]


def says_who(cache_control):
    def handler(req, conn):
        conn.respond(headers=[("Cache-Control", cache_control)], body=req.header("Authorization", "nobody").encode())
    return handler


def test_an_authorized_answer_is_not_stored_and_never_meets_another(origin, weir):
    w = weir()
    origin.on("/a", says_who("max-age=60"))
    first = w.get("/a", ME)
    assert first.cache_status.detail == "authorization" and not first.cache_status.stored
    assert w.get("/a", YOU).body == b"Bearer you"
    assert w.get("/a").body == b"nobody"
    assert origin.count("/a") == 3


@pytest.mark.parametrize("cc", ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"])
def test_what_the_origin_shares_answers_everybody(origin, weir, cc):
    w = weir()
    origin.on("/a", says_who(cc))
    w.get("/a", ME)
    for who in (ME, YOU, []):
        assert w.get("/a", who).cache_status.hit
    assert origin.count("/a") == 1


def test_a_stored_anonymous_answer_does_not_answer_the_authorized_but_stays(origin, weir):
    w = weir()
    origin.on("/a", says_who("max-age=60"))
    w.get("/a")
    mine = w.get("/a", ME)
    assert mine.body == b"Bearer me" and mine.cache_status.fwd == "request"
    assert w.get("/a").cache_status.hit
    assert origin.count("/a") == 2


def test_force_ttl_shares_what_was_authorized(origin, weir):
    w = weir(routes=[{"path": "/**", "force_ttl": "1m"}])
    origin.on("/a", says_who("private"))
    w.get("/a", ME)
    assert w.get("/a", YOU).body == b"Bearer me"


def test_requests_with_different_credentials_never_share_a_fetch(origin, weir):
    w = weir()
    gate = origin.gate()

    def slowly(req, conn):
        gate.wait()
        says_who("public, max-age=60")(req, conn)
    origin.on("/a", slowly)
    headers = [ME, YOU, [], ME, YOU, []]
    answers = w.parallel(6, lambda i: w.get("/a", headers[i]),
                         meanwhile=lambda: (origin.wait("/a", 3), gate.set()))
    for i, answer in enumerate(answers):
        if not answer.cache_status.hit:     # one that came after the first had landed: it is public
            assert answer.body == (headers[i][0][1].encode() if headers[i] else b"nobody"), i


def test_requests_with_the_same_credentials_share_no_private_answer(origin, weir):
    w = weir()
    gate = origin.gate()

    def slowly(req, conn):
        gate.wait()
        conn.respond(headers=[("Cache-Control", "private, max-age=60"), ("X-Session", req.header("Cookie"))],
                     body=req.header("Cookie").encode())
    origin.on("/a", slowly)
    answers = w.parallel(5, lambda i: w.get("/a", ME + [("Cookie", "c=%d" % i)]),
                         meanwhile=lambda: (origin.wait("/a"), gate.set()))
    assert [a.body for a in answers] == [b"c=%d" % i for i in range(5)]
