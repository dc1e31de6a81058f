"""Which requests share an entry: those that the origin cannot tell apart, and no others."""
import pytest

FRESH = [("Cache-Control", "max-age=600")]


def links(req, conn):
    """An origin that builds absolute links of what it is told."""
    names = ("X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Host")
    conn.respond(headers=FRESH, body=" ".join(req.header(n) or "-" for n in names).encode())


def is_hit(w, path, headers=()):
    return w.get(path, [("Cache-Control", "only-if-cached")] + list(headers)).status == 200


@pytest.mark.parametrize("field,one,other", [
    ("X-Forwarded-Host", "a.example", "b.example"),
    ("X-Forwarded-Host", "a.example", "a.example, b.example"),
    ("X-Forwarded-Host", "a.example", ""), ("X-Forwarded-Host", "<script>", "a.example"),
    ("X-Forwarded-Proto", "http", "https"), ("X-Forwarded-Proto", "http", "https, http"),
    ("X-Forwarded-Proto", "http", "wss"), ("X-Forwarded-Proto", "http", "gopher"),
    ("X-Forwarded-Proto", "http", ""), ("X-Forwarded-Proto", "https", "HTTPS"),
    ("Forwarded", "for=192.0.2.1;host=a.example", "for=192.0.2.1;host=b.example"),
    ("Forwarded", "host=a.example, host=b.example", "host=b.example, host=a.example"),
    ("Forwarded", "host=a.example, for=192.0.2.1", "for=192.0.2.1, host=a.example"),
    ("Forwarded", "proto=https", "for=192.0.2.1"),
    ('Forwarded', 'for=x;Host="a.example:81"', "for=x"),
])
def test_what_a_trusted_proxy_says_has_entries_of_its_own(origin, weir, field, one, other):
    origin.on("/l", links)
    w = weir(listen={"trust": "127.0.0.0/8"})
    sent = [[("Host", "api.example"), (field, v)] for v in (one, other)]
    answers = [w.get("/l", h).body for h in sent]
    assert origin.count("/l") == 2 and answers[0] != answers[1]
    assert [w.get("/l", h).body for h in sent] == answers and origin.count("/l") == 2
    w.purge(url="http://api.example/l")
    w.purge(url="https://api.example/l")
    assert not any(is_hit(w, "/l", h) for h in sent)


@pytest.mark.parametrize("lines", [("https", "http"), ("http", "https"), ("", "https"), ("gopher", "http")])
def test_of_two_lines_of_a_trusted_scheme_the_origin_gets_the_one_that_is_in_the_key(origin, weir, lines):
    origin.on("/l", links)
    w = weir(listen={"trust": "127.0.0.0/8"})
    both = w.get("/l", [("Host", "api.example")] + [("X-Forwarded-Proto", v) for v in lines])
    assert origin.last("/l").all("X-Forwarded-Proto") == [lines[0]]
    alone = w.get("/l", [("Host", "api.example"), ("X-Forwarded-Proto", lines[0])])
    assert alone.cache_status.hit and alone.body == both.body
    assert not w.get("/l", [("Host", "api.example"), ("X-Forwarded-Proto", lines[1])]).cache_status.hit


@pytest.mark.parametrize("fields", [
    [("X-Forwarded-Host", "api.example")], [("X-Forwarded-Proto", "http")],
    [("Forwarded", "for=192.0.2.1;host=api.example;proto=http")],
    [("Forwarded", 'for=192.0.2.1;proto=HTTP;Host="API.example"')],
    [("X-Forwarded-For", "192.0.2.1")],
])
def test_what_says_nothing_new_shares_the_entry(origin, weir, fields):
    origin.on("/l", links)
    w = weir(listen={"trust": "127.0.0.0/8"})
    w.get("/l", [("Host", "api.example")])
    assert w.get("/l", [("Host", "api.example")] + fields).cache_status.hit


def test_a_route_whose_key_has_no_host_has_no_other_one_either(origin, weir):
    origin.on("/l", links)
    w = weir(listen={"trust": "127.0.0.0/8"}, routes=[{"path": "/**", "key": {"host": False}}])
    w.get("/l", [("Host", "api.example")])
    for fields in ([("X-Forwarded-Host", "b.example")], [("Forwarded", "for=x;host=b.example")]):
        assert w.get("/l", [("Host", "api.example")] + fields).cache_status.hit, fields
    assert not w.get("/l", [("X-Forwarded-Proto", "wss")]).cache_status.hit


def test_what_somebody_says_who_is_not_trusted_is_neither_forwarded_nor_in_the_key(origin, weir):
    origin.on("/l", links)
    w = weir()
    host = [("Host", "api.example")]
    told = w.get("/l", host + [("X-Forwarded-Host", "evil"), ("Forwarded", "host=evil"),
                               ("X-Forwarded-Proto", "https")])
    assert b"evil" not in told.body and w.get("/l", host).cache_status.hit


def test_a_write_purges_its_target_whatever_a_trusted_proxy_said(origin, weir):
    origin.on("/l", links)
    w = weir(listen={"trust": "127.0.0.0/8"})
    host = [("Host", "api.example")]
    other = host + [("X-Forwarded-Host", "other.example")]
    for writer in (host, other):
        w.get("/l", host)
        w.get("/l", other)
        assert is_hit(w, "/l", host) and is_hit(w, "/l", other)
        assert w.post("/l", b"x", writer).status == 200
        assert not is_hit(w, "/l", host) and not is_hit(w, "/l", other)


@pytest.mark.parametrize("host", ["api.example.", "API.Example", "api.example:80",
                                  "api.example.:080", "%61pi%2Eexample", "api.example.."])
def test_spellings_of_a_host_are_one_and_the_origin_sees_that_one(origin, weir, host):
    origin.on("/h", links)
    w = weir(routes=[{"path": "/**", "host": ["api.example"]}])
    assert b"api.example api.example" not in w.get("/h", [("Host", host)]).body
    assert origin.last("/h").header("Host") == "api.example"
    assert w.get("/h", [("Host", "api.example")]).cache_status.hit
    w.purge(url="http://%s/h" % host)
    assert not is_hit(w, "/h", [("Host", "api.example")])


def test_a_route_may_name_its_host_with_a_dot_at_the_end(origin, weir):
    origin.on("/h", links)
    w = weir(routes=[{"path": "/**", "host": ["api.example.", "*.Other.example."]}])
    for host in ("api.example", "api.example.", "a.other.example"):
        assert w.get("/h", [("Host", host)]).status == 200, host


@pytest.mark.parametrize("host", ["a%20b", "a%2Fb", "%00", "a%25", "api.example%3A80",
                                  "s%C3%A3o.example"])
def test_a_host_with_escapes_that_no_name_has_is_refused(origin, weir, host):
    w = weir()
    r = w.get("/h", [("Host", host)])
    assert r.status == 400 and r.header("Content-Type") == "application/problem+json"
    assert origin.count() == 0


def two_origins(weir, origins, **route):
    """Routes of two hosts, each with an origin of its own."""
    return weir(origins={n: {"servers": [o.url]} for n, o in zip("ab", origins)},
                routes=[dict(route, host="%s.example" % n, origin=n) for n in "ab"])


@pytest.mark.parametrize("route", [{"path": "/**"}, {"path": "/{x}"}])
def test_routes_without_a_host_in_the_key_never_share_entries(origin, origins, weir, route):
    other = origins()
    for o, text in ((origin, b"of a"), (other, b"of b")):
        o.on("/l", body=text, headers=FRESH)
    w = two_origins(weir, (origin, other), key={"host": False}, **route)
    ask = [[("Host", n + ".example")] for n in "ab"]
    assert [w.get("/l", h).body for h in ask] == [b"of a", b"of b"]
    assert [w.get("/l", h).body for h in ask] == [b"of a", b"of b"]
    assert origin.count("/l") == other.count("/l") == 1
    w.purge(url="/l")
    assert not any(is_hit(w, "/l", h) for h in ask)


def test_routes_that_fields_select_never_share_entries(origin, origins, weir):
    other = origins()
    for o, text in ((origin, b"of a"), (other, b"of b")):
        o.on("/l", body=text, headers=FRESH)
    w = weir(origins={"a": {"servers": [origin.url]}, "b": {"servers": [other.url]}},
             routes=[{"path": "/l", "origin": n, "headers": ["X-" + n]} for n in "ab"])
    for _ in range(2):
        assert [w.get("/l", [("X-" + n, "1")]).body for n in "ab"] == [b"of a", b"of b"]


def test_an_empty_list_of_parameters_to_keep_keeps_none(origin, weir):
    origin.on("/l", body=b"x", headers=FRESH)
    w = weir(routes=[{"path": "/**", "query": {"keep": []}}])
    w.get("/l?a=1")
    assert w.get("/l?b=2&c").cache_status.hit and w.get("/l").cache_status.hit
    assert "keep: []" in w.api("GET", "/config").body.decode()
    w.purge(url="/l?z")
    assert not is_hit(w, "/l")


def told(req, conn):
    names = ("X-Real-IP", "X-Forwarded-Port")
    conn.respond(headers=FRESH, body=" ".join(req.header(n) or "-" for n in names).encode())


@pytest.mark.parametrize("name", ["X-Real-IP", "X-Forwarded-Port", "X_Real_IP"])
def test_what_a_stranger_says_of_address_and_port_reaches_nobody(origin, weir, name):
    origin.on("/l", told)
    w = weir()
    assert w.get("/l", [(name, "81")]).body == b"- -"
    assert w.get("/l").cache_status.hit
    assert not any(k.lower().replace("_", "-") == name.lower() for k, _ in origin.last("/l").headers)


def test_a_trusted_proxys_port_is_in_the_key_and_its_address_crosses(origin, weir):
    origin.on("/l", told)
    w = weir(listen={"trust": "127.0.0.0/8"})
    sent = [[], [("X-Forwarded-Port", "81"), ("X-Real-IP", "192.0.2.1")],
            [("X-Forwarded-Port", "82")]]
    for _ in range(2):
        assert [w.get("/l", h).body for h in sent] == [b"- -", b"192.0.2.1 81", b"- 82"]
    assert origin.count("/l") == 3
    w.purge(url="/l")
    assert not any(is_hit(w, "/l", h) for h in sent)


STRAYS = '"<>\\^`{|}'


@pytest.mark.parametrize("raw", ["/s/%s" % STRAYS, "/s?q=%s" % STRAYS, '/s?filter={"a":[1]}&x[0]=b|c', "/s/a\\..\\b"])
def test_characters_that_stand_in_no_uri_have_one_spelling_which_the_origin_gets(origin, weir, raw):
    origin.on("*", headers=FRESH, body=b"x")
    w = weir()
    escaped = "".join("%%%02X" % ord(c) if c in STRAYS else c for c in raw)
    assert not w.get(raw).cache_status.hit and w.get(escaped).cache_status.hit
    assert [r.target for r in origin.requests] == [escaped]
    for purge in ({"url": raw}, {"prefix": raw[:-1]}, {"pattern": raw.replace("\\", "\\\\").replace("?", "\\?")},
                  {"pattern": raw[:3] + "*" + raw[-1]}):
        w.get(raw)
        assert is_hit(w, raw) and is_hit(w, escaped)
        w.purge(**purge)
        assert not is_hit(w, escaped), purge


def test_a_template_takes_a_stray_character_by_its_escape(origin, weir):
    origin.on("*", body=b"x")
    w = weir(routes=[{"path": "/a%7Cb"}])
    assert w.get("/a|b").status == 200 and w.get("/a%7cb").status == 200


@pytest.mark.parametrize("byte", [b"\xc3\xa9", b"\x7f", b"\x01", b"\t", b"#", b"%", b"%4"])
def test_controls_fragments_and_what_is_not_ascii_are_refused_in_a_target(origin, weir, byte):
    origin.on("*", body=b"x")
    w = weir()
    for target in b"/a" + byte, b"/a?b=" + byte:
        assert w.raw(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target).startswith(b"HTTP/1.1 400 ")
    assert origin.count() == 0


@pytest.mark.parametrize("one, two", [
    ('host="a;q"', 'host="a;z"'), ("for=1;x-tenant=a", "for=1;x-tenant=b"),
    ("host=a;host=b", "host=c;host=b"), ("host=a", "host=a, host=a")])
def test_what_a_trusted_peer_says_in_forwarded_keeps_entries_apart(origin, weir, one, two):
    w = weir(listen={"trust": "127.0.0.0/8"})
    origin.on("/a", headers=[("Cache-Control", "max-age=60")], body=b"x")
    for value in (one, two):
        assert not w.get("/a", [("Forwarded", value)]).cache_status.hit, value
        assert w.get("/a", [("Forwarded", value)]).cache_status.hit, value


def test_who_asked_is_no_part_of_the_key(origin, weir):
    w = weir(listen={"trust": "127.0.0.0/8"})
    origin.on("/a", headers=[("Cache-Control", "max-age=60")], body=b"x")
    w.get("/a", [("Host", "h"), ("Forwarded", 'for="1;host=z";by=x;proto=http;host="H"')])
    assert w.get("/a", [("Host", "h"), ("Forwarded", "for=2")]).cache_status.hit


def test_a_head_on_a_route_of_its_own_shares_nothing_with_the_gets_of_another(origin, origins, weir):
    other = origins()
    origin.on("/x", headers=[("Cache-Control", "max-age=60")], body=b"ours")
    other.on("/x", headers=[("Cache-Control", "max-age=60")], body=b"of another")
    w = weir(origins={"api": {"servers": [origin.url]}, "b": {"servers": [other.url]}},
             routes=[{"path": "/x", "methods": ["HEAD"], "origin": "b", "name": "h"},
                     {"path": "/x", "origin": "api", "name": "g"}])
    assert w.request("HEAD", "/x").header("Content-Length") == "10"
    assert w.get("/x").body == b"ours"
    assert w.request("HEAD", "/x").header("Content-Length") == "10"
