"""Fields that speak to this cache alone (RFC 9213)."""


def test_cdn_cache_control_replaces_cache_control_and_reaches_the_client(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60")], body=b"x")
    w.get("/a")
    r = w.get("/a")
    assert r.cache_status.hit and origin.count("/a") == 1
    assert r.header("CDN-Cache-Control") == "max-age=60"
    origin.on("/b", headers=[("Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store")], body=b"x")
    w.get("/b")
    assert not w.get("/b").cache_status.hit


def test_a_trailer_that_it_makes_private_reaches_no_collapsed_client(origin, weir):
    w = weir()
    gate = origin.gate()

    def slowly(req, conn):
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Secret\r\n"
                  b'CDN-Cache-Control: max-age=60, private="X-Secret"\r\n\r\n3\r\none\r\n')
        gate.wait()
        conn.send(b"0\r\nX-Secret: s\r\n\r\n")
    origin.on("/a", slowly)
    answers = w.parallel(3, lambda i: w.get("/a", [("TE", "trailers")]),
                         meanwhile=lambda: (origin.wait("/a", 1), gate.set()))
    assert sum(("X-Secret", "s") in [tuple(t) for t in r.trailers] for r in answers) <= 1


def test_one_that_is_no_dictionary_is_ignored_whole(origin, weir):
    w = weir()
    origin.on("/a", headers=[("Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store, &")], body=b"x")
    w.get("/a")
    assert w.get("/a").cache_status.hit


def test_the_list_of_fields_is_the_configurations(origin, weir):
    w = weir(cache={"targeted": ["Edge-Cache-Control", "CDN-Cache-Control"]})
    origin.on("/a", headers=[("CDN-Cache-Control", "max-age=60"), ("Edge-Cache-Control", "no-store")], body=b"x")
    w.get("/a")
    assert not w.get("/a").cache_status.hit
    origin.on("/b", headers=[("Cache-Control", "no-store"), ("Weir-Cache-Control", "max-age=60")], body=b"x")
    w.get("/b")
    assert not w.get("/b").cache_status.hit


def test_a_validation_answered_304_goes_by_the_targeted_field_too(origin, weir):
    w = weir()
    headers = [("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "no-store"), ("ETag", '"v"')]
    origin.on("/a", [lambda q, c: c.respond(200, [("CDN-Cache-Control", "max-age=0"), ("ETag", '"v"')], b"x"),
                     lambda q, c: c.respond(304, headers, b"")])
    w.get("/a")
    assert w.get("/a").body == b"x"
    assert w.get("/a").cache_status.hit and origin.count("/a") == 2
