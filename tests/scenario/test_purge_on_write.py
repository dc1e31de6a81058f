"""What a write changed leaves the cache before the writer has its answer; the PURGE method."""
import json
import threading

import pytest

import harness
from harness import eventually

FRESH = [("Cache-Control", "max-age=600")]


def fill(origin, w, *paths):
    for path in paths:
        origin.on(path.partition("?")[0], headers=FRESH, body=path.encode())
        w.get(path)
        assert w.get(path).cache_status.hit, path


def is_hit(w, path, headers=()):
    return w.get(path, [("Cache-Control", "only-if-cached")] + list(headers)).status == 200


def by_method(**answers):
    """A handler that answers by the method: a dict of respond()'s arguments, or a callable."""
    def handler(req, conn):
        answer = answers.get(req.method) or dict(headers=FRESH, body=b"read")
        answer(req, conn) if callable(answer) else conn.respond(**answer)
    return handler


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "UNKNOWN"])
@pytest.mark.parametrize("status", [200, 201, 204, 301, 303, 308])
def test_a_write_that_succeeds_purges_its_target(origin, weir, method, status):
    w = weir()
    origin.on("/a", by_method(**{method: dict(status=status)}))
    w.get("/a?q=1")
    w.get("/a")
    assert is_hit(w, "/a")
    assert w.request(method, "/a", body=b"x").status == status
    assert not is_hit(w, "/a") and is_hit(w, "/a?q=1")


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 503])
def test_an_error_answer_purges_nothing_unless_the_route_says_so(origin, weir, status):
    origin.on("/a", by_method(POST=dict(status=status)))
    w = weir()
    w.get("/a")
    assert w.post("/a", b"x").status == status
    assert is_hit(w, "/a")
    w = weir(routes=[{"path": "/**", "purge_on": "any"}])
    w.get("/a")
    assert w.post("/a", b"x").status == status
    assert not is_hit(w, "/a")


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "QUERY"])
def test_a_safe_method_purges_nothing(origin, weir, method):
    origin.on("/a", by_method(**{method: dict(status=200)}))
    w = weir()
    w.get("/a")
    assert w.request(method, "/a").status == 200
    assert is_hit(w, "/a")


def test_location_and_content_location_of_the_same_origin_are_purged(origin, weir):
    w = weir()
    for field in ("Location", "Content-Location"):
        for form, goes in (("/new", True), ("http://%s/new" % w.host, True), ("new", True),
                           ("//%s/new" % w.host, True),
                           ("http://elsewhere.example/new", False),
                           ("https://%s/new" % w.host, False), ("http://[", False)):
            fill(origin, w, "/new")
            origin.on("/w", status=201, headers=[(field, form)])
            assert w.post("/w", b"x").status == 201
            assert is_hit(w, "/new") != goes, (field, form)


def test_a_purge_is_done_before_the_writer_has_its_answer(origin, weir):
    gate = origin.gate()

    def write(req, conn):
        conn.head(200, length=4)
        gate.wait()
        conn.send(b"done")
    origin.on("/a", by_method(POST=write))
    w = weir()
    w.get("/a")
    with w.client() as c:
        c.start("POST", "/a", [("Content-Length", "0")])
        c.wire.until(b"\r\n\r\n", "a head")      # the head of the answer: by now it is gone
        assert not is_hit(w, "/a")
        gate.set()


def test_what_was_asked_for_before_the_write_is_not_served_after_it(origin, weir):
    gate = origin.gate()

    def read(req, conn):
        if origin.count("/a") == 1:
            gate.wait()
            conn.respond(headers=FRESH, body=b"old")
        else:
            conn.respond(headers=FRESH, body=b"new")
    origin.on("/a", by_method(GET=read, POST=dict(status=200)))
    w = weir()
    with w.client() as c:
        c.start("GET", "/a")
        origin.wait("/a")
        assert w.post("/a", b"x").status == 200
        assert w.get("/a").body == b"new"                     # joins no flight of before
        gate.set()
        assert c.response().body == b"old"
    assert w.get("/a").body == b"new"


def test_a_write_of_unknown_fate_purges(origin, weir):
    gate = origin.gate()

    def rubbish(req, conn):
        conn.send(b"rubbish\r\n\r\n")
        conn.close()
    for how in (lambda req, conn: conn.reset(), lambda req, conn: conn.close(), rubbish,
                lambda req, conn: gate.wait()):
        origin.on("/a", by_method(POST=how))
        w = weir(origin={"timeout": {"first_byte": "200ms"}},
                 routes=[{"path": "/**", "purge": ["all-lists"]},
                         {"path": "/list", "tags": ["all-lists"]}])
        fill(origin, w, "/list")
        w.get("/a")
        assert w.post("/a", b"x").status in (502, 504)
        assert not is_hit(w, "/a") and not is_hit(w, "/list")


def test_a_write_that_never_reached_the_origin_purges_nothing(origin, origins, weir):
    other = origins()
    w = weir(yaml="""
listen: {listen}
admin: {listen: "{admin}"}
origins: {api: {servers: "{origin}"}, gone: {servers: "%s"}}
routes: [{path: /**, origin: api, methods: [GET]}, {path: /**, origin: gone, methods: [POST]}]
""" % other.url)
    fill(origin, w, "/a")
    other.stop()
    assert w.post("/a", b"x").status == 502
    assert is_hit(w, "/a")


def test_a_client_that_leaves_in_the_middle_of_its_write_purges(origin, weir):
    gate = origin.gate()
    origin.on("/a", by_method(POST=lambda req, conn: (gate.wait(), conn.respond())))
    w = weir()
    w.get("/a")
    c = w.client()
    c.start("POST", "/a", [("Content-Length", "0")])
    origin.wait("/a", 2)
    c.reset()
    eventually(lambda: not is_hit(w, "/a"))


ROUTES = [
    {"path": "/api/recruiters/{id}", "tags": ["recruiter:{id}", "recruiters"],
     "purge": ["recruiter:{id}", "recruiters"]},
    {"path": "/api/recruiters", "tags": ["recruiters"], "purge": ["/api/summary"]},
    {"path": "/api/search", "tags": ["city:{query.city}"]},
    {"path": "/api/summary"}, {"path": "/api/other"},
    {"path": "/api/move", "purge": ["city:{query.city}"]},
    {"path": "/api/tenant", "tags": ["tenant:{header.x-tenant}"],
     "purge": ["tenant:{header.x-tenant}"],
     "key": {"headers": ["X-Tenant"]}},
    {"path": "/api/moved", "purge": ["city:{response.header.x-city}"]},
    {"path": "/api/by-body", "purge": ["recruiter:{request.body.recruiter.id}"]},
    {"path": "/api/by-answer",
     "purge": ["recruiter:{response.body.items[].id}", "/api/recruiters/{response.body.main}"]},
]


def test_templates_name_what_else_a_write_purges(origin, weir):
    w = weir(routes=ROUTES)
    everything = ["/api/recruiters/1", "/api/recruiters/2", "/api/recruiters",
                  "/api/search?city=Rome",
                  "/api/search?city=Oslo", "/api/summary", "/api/other"]

    def write(path, gone, headers=(), body=b"{}", answer=None):
        fill(origin, w, *everything)
        p = path.partition("?")[0]
        origin.on(p, **(answer or {}))
        assert w.post(path, body, headers).status == 200
        assert [e for e in everything if not is_hit(w, e)] == gone, path
    write("/api/recruiters/1", ["/api/recruiters/1", "/api/recruiters/2", "/api/recruiters"])
    write("/api/recruiters", ["/api/recruiters", "/api/summary"])
    write("/api/move?city=Rome", ["/api/search?city=Rome"])
    write("/api/moved", ["/api/search?city=Oslo"], answer=dict(headers=[("X-City", "Oslo")]))
    write("/api/by-body", ["/api/recruiters/2"], body=b'{"recruiter": {"id": 2}}')
    write("/api/by-answer", ["/api/recruiters/1", "/api/recruiters/2"],
          answer=dict(body=b'{"items": [{"id": 1}, {"id": "2"}], "main": "1"}'))


def test_a_header_placeholder_purges_only_its_tenant(origin, weir):
    origin.on("/api/tenant", headers=FRESH, body=b"x")
    w = weir(routes=ROUTES)
    origin.on("/api/move", body=b"x")
    a, b = [("X-Tenant", "a")], [("X-Tenant", "b")]
    w.get("/api/tenant", a)
    w.get("/api/tenant", b)
    assert is_hit(w, "/api/tenant", a) and is_hit(w, "/api/tenant", b)
    w.purge(tags=["tenant:a"])
    assert not is_hit(w, "/api/tenant", a) and is_hit(w, "/api/tenant", b)


@pytest.mark.parametrize("name", ["no JSON", "too long", "coded", "chunked and long"])
def test_where_a_body_placeholder_finds_nothing_the_whole_route_is_purged(origin, weir, name):
    long = json.dumps({"pad": "x" * 70000, "id": 1}).encode()
    answer = {"no JSON": dict(body=b"<html>"), "too long": dict(body=long),
              "coded": dict(body=b'{"id": 1}', headers=[("Content-Encoding", "gzip")]),
              "chunked and long": lambda req, conn: (conn.head(chunked=True), conn.chunk(long),
                                                     conn.end())}[name]
    origin.on("/r/w", by_method(POST=answer))
    w = weir(routes=[{"path": "/r/{id}", "purge": ["thing:{response.body.id}"]},
                     {"path": "/other"}])
    fill(origin, w, "/r/1", "/r/2", "/other")
    r = w.post("/r/w", b"{}")
    assert r.status == 200 and len(r.body) >= 2
    assert not is_hit(w, "/r/1") and not is_hit(w, "/r/2") and is_hit(w, "/other")


@pytest.mark.parametrize("answer,widens", [
    (b'{}', True), (b'{"id": null}', True), (b'{"id": {"a": 1}}', True), (b'[]', True),
    (b'"x"', True),
    (b'{"id": 1}', False), (b'{"id": [1, 2]}', False), (b'{"id": []}', False),
])
def test_a_member_that_the_body_does_not_have_purges_the_whole_route(origin, weir, answer, widens):
    origin.on("/r/w", by_method(POST=dict(body=answer)))
    w = weir(routes=[{"path": "/r/{id}", "purge": ["thing:{response.body.id}"]},
                     {"path": "/other"}])
    fill(origin, w, "/r/1", "/other")
    w.post("/r/w", b"{}")
    assert is_hit(w, "/r/1") != widens and is_hit(w, "/other")
    assert w.metric("weir_purge_widened_total") == widens


def test_an_element_without_the_member_purges_the_whole_route(origin, weir):
    w = weir(routes=[{"path": "/r/{id}", "purge": ["thing:{request.body.items[].id}"]}])
    origin.on("/r/w", by_method(POST=dict(body=b"ok")))
    for body, widens in ((b'{"items": [{"id": 1}, {"id": 2}]}', False), (b'{"items": []}', False),
                         (b'{"items": [{"id": 1}, {}]}', True), (b'{"items": {"id": 1}}', True),
                         (b'{}', True)):
        fill(origin, w, "/r/1")
        w.post("/r/w", body)
        assert is_hit(w, "/r/1") != widens, body


def test_a_parameter_or_field_that_is_absent_names_nothing(origin, weir):
    origin.on("/r/w", by_method(POST=dict(body=b"{}")))
    w = weir(routes=[{"path": "/r/{id}",
                      "purge": ["thing:{query.a}", "thing:{header.x-id}",
                                "thing:{response.header.x-id}",
                                                   "thing:{query.a}:{response.body.id}"]}])
    fill(origin, w, "/r/1")
    w.get("/r/w")
    w.post("/r/w", b"{}")
    assert is_hit(w, "/r/1") and not is_hit(w, "/r/w")
    assert w.metric("weir_purge_widened_total") == 0


def test_a_field_of_an_answer_that_never_came_purges_the_whole_route(origin, weir):
    origin.on("/r/w", by_method(POST=lambda req, conn: conn.reset()))
    w = weir(routes=[{"path": "/r/{id}", "purge": ["thing:{response.header.x-id}"]}])
    fill(origin, w, "/r/1")
    assert w.post("/r/w", b"{}").status == 502
    assert not is_hit(w, "/r/1")


def test_what_a_template_is_is_said_by_its_text_not_by_what_it_expands_to(origin, weir):
    origin.on("/w/%2F7", body=b"ok")
    origin.on("/w/http:%2F%2Fx", body=b"ok")
    w = weir(routes=[{"path": "/w/{id}", "purge": ["{id}", "/r/{id}", "http://{host}/r/{id}/b"]},
                     {"path": "/tagged", "tags": ["/7"]}, {"path": "/r/**"}, {"path": "/7"}])
    fill(origin, w, "/tagged", "/7", "/r/%2F7", "/r/%2F7/b", "/r/7")
    w.post("/w/%2F7", b"x")
    assert not is_hit(w, "/tagged") and is_hit(w, "/7") and is_hit(w, "/r/7")
    assert not is_hit(w, "/r/%2F7") and not is_hit(w, "/r/%2F7/b")


@pytest.mark.parametrize("how", ["too long", "coded", "no JSON"])
def test_a_request_body_that_cannot_be_read_purges_the_whole_route(origin, weir, how):
    origin.on("/r/w", by_method(POST=dict(body=b"ok")))
    w = weir(routes=[{"path": "/r/{id}", "purge": ["thing:{request.body.id}"]}, {"path": "/other"}])
    fill(origin, w, "/r/1", "/other")
    body = json.dumps({"pad": "x" * (70000 if how == "too long" else 1), "id": 1}).encode()
    w.post("/r/w", b"<xml>" if how == "no JSON" else body,
           [("Content-Encoding", "gzip")] if how == "coded" else [])
    assert not is_hit(w, "/r/1") and is_hit(w, "/other")


def test_a_body_that_says_it_is_not_coded_is_read(origin, weir):
    origin.on("/r/w", by_method(POST=dict(body=b'{"id": 1}',
                                          headers=[("Content-Encoding", "identity")])))
    w = weir(routes=[{"path": "/r/{id}", "tags": ["thing:{id}"],
                      "purge": ["thing:{request.body.id}", "thing:{response.body.id}"]}])
    fill(origin, w, "/r/1", "/r/2", "/r/3")
    w.post("/r/w", b'{"id": 2}', [("Content-Encoding", "identity")])
    assert [is_hit(w, "/r/%d" % i) for i in (1, 2, 3)] == [False, False, True]


def test_a_purge_names_what_the_client_sees_not_what_the_origin_sees(origin, weir):
    origin.on("/v2/a", by_method(POST=dict(status=200)))
    w = weir(routes=[{"path": "/api/**", "rewrite": {"strip": "/api", "prefix": "/v2"}}])
    w.get("/api/a")
    assert is_hit(w, "/api/a")
    w.post("/api/a", b"x")
    assert not is_hit(w, "/api/a")


def test_many_writers_and_readers_never_see_what_is_older_than_their_write(origin, weir):
    value = [0]
    lock = threading.Lock()

    def write(req, conn):
        with lock:
            value[0] += 1
            n = value[0]
        conn.respond(body=b"%d" % n)
    origin.on("/v", by_method(POST=write,
                              GET=lambda req, conn: conn.respond(headers=FRESH,
                                                                 body=b"%d" % value[0])))
    w = weir()

    def worker(i):
        with w.client() as c:
            for _ in range(25):
                mine = int(c.request("POST", "/v", body=b"x").body)
                assert int(c.get("/v").body) >= mine
    w.parallel(6, worker)


# ---- the PURGE method --------------------------------------------------------------------------

def test_purge_is_a_method_like_any_other_unless_it_is_allowed(origin, weir):
    origin.on("/a", by_method(PURGE=dict(status=405, body=b"mine")))
    w = weir()
    w.get("/a")
    assert w.request("PURGE", "/a").body == b"mine"
    assert origin.last("/a").method == "PURGE" and is_hit(w, "/a")


def test_purge_asks_for_the_network_and_the_token(origin, weir, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    on = {"purge": {"networks": "127.0.0.0/8", "token_file": str(token)}}
    w = weir(listen=on)
    fill(origin, w, "/a", "/a?q=1", "/b")
    before = origin.count()
    for bad in ([], [("Authorization", "Bearer wrong")], [("Authorization", "Bearer s3cre")],
                [("Authorization", "Bearer s3cret1")],
                [("Authorization", "Basic s3cret")], [("Authorization", "s3cret")],
                [("Authorization", "Bearer")]):
        r = w.request("PURGE", "/a", bad)
        assert r.status == 403 and r.header("Content-Type") == "application/problem+json", bad
    assert is_hit(w, "/a")
    good = [("Authorization", "Bearer s3cret")]
    r = w.request("PURGE", "/a", good)
    assert r.status == 200 and r.json()["purged"] == 1
    assert not is_hit(w, "/a") and is_hit(w, "/a?q=1") and is_hit(w, "/b")
    assert origin.count() == before
    w.request("PURGE", "/a?q=1", good)
    assert not is_hit(w, "/a?q=1")
    w = weir(listen={"purge": {"networks": "10.0.0.0/8", "token_file": str(token)}})
    assert w.request("PURGE", "/a", good).status == 403


def test_purge_takes_all_variants(origin, weir, tmp_path):
    token = tmp_path / "token"
    token.write_text("t")
    origin.on("/v", headers=FRESH + [("Vary", "Accept-Language")], body=b"x")
    w = weir(listen={"purge": {"networks": "127.0.0.1", "token_file": str(token)}})
    for language in ("en", "it", "fr"):
        w.get("/v", [("Accept-Language", language)])
    assert w.request("PURGE", "/v", [("Authorization", "Bearer t")]).json()["purged"] == 3
    assert not any(is_hit(w, "/v", [("Accept-Language", s)]) for s in ("en", "it", "fr"))


# ---- every way in which a URL may be stored ----------------------------------------------------

BY_FIELDS = [
    {"path": "/api/**", "name": "beta", "headers": ["X-Beta"], "query": {"ignore": ["utm_*"]}},
    {"path": "/api/**", "name": "app", "headers": ["X-App"], "query": {"sort": True},
     "key": {"cookies": ["sid"]}},
    {"path": "/**", "name": "all"},
]
BETA, APP = [("X-Beta", "1")], [("X-App", "1"), ("Cookie", "sid=7")]


def fill_by_fields(origin, w):
    origin.on("/api/a", by_method(POST=dict(status=200)))
    for headers in (BETA, APP, []):
        w.get("/api/a?utm_x=1&c=2&b=3", headers)
        assert is_hit(w, "/api/a?utm_x=1&c=2&b=3", headers)


def left_by_fields(w):
    return [h for h in (BETA, APP, []) if is_hit(w, "/api/a?utm_x=1&c=2&b=3", h)]


def test_a_write_purges_its_target_under_every_route_that_could_have_stored_it(origin, weir):
    w = weir(routes=BY_FIELDS)
    fill_by_fields(origin, w)
    assert w.post("/api/a?utm_x=1&c=2&b=3", b"x").status == 200
    assert left_by_fields(w) == []
    origin.on("/api/w", by_method(POST=dict(status=201,
                                            headers=[("Location", "/api/a?utm_x=1&c=2&b=3")])))
    fill_by_fields(origin, w)
    assert w.post("/api/w", b"x").status == 201
    assert left_by_fields(w) == []


def test_a_purge_by_url_takes_it_from_every_route_that_could_have_stored_it(origin, weir, tmp_path):
    token = tmp_path / "token"
    token.write_text("t")
    w = weir(routes=BY_FIELDS,
             listen={"purge": {"networks": "127.0.0.1", "token_file": str(token)}})
    url = "/api/a?utm_x=1&c=2&b=3"
    for name in (url, "http://%s%s" % (w.host, url)):
        fill_by_fields(origin, w)
        assert w.purge(url=name, dry_run=True)["objects"] == 3
        w.purge(url=name)
        assert left_by_fields(w) == [], name
    fill_by_fields(origin, w)
    assert w.request("PURGE", url, [("Authorization", "Bearer t")]).json()["purged"] == 3
    assert left_by_fields(w) == []


def test_a_purge_that_widens_takes_the_routes_that_store_the_target(origin, weir):
    origin.on("/r/w", by_method(POST=dict(body=b"<html>")))
    w = weir(routes=[{"path": "/r/{id}", "name": "write", "methods": ["POST"],
                      "purge": ["thing:{response.body.id}"]},
                     {"path": "/r/{id}", "name": "read"}, {"path": "/other"}])
    fill(origin, w, "/r/1", "/other")
    assert w.post("/r/w", b"{}").status == 200
    assert not is_hit(w, "/r/1") and is_hit(w, "/other")


def test_a_write_without_a_host_purges_what_was_stored_without_one(origin, weir):
    origin.on("/a", by_method(POST=dict(status=200)))
    w = weir()

    def old(method):
        with w.client() as c:
            c.send(b"%s /a HTTP/1.0\r\nContent-Length: 0\r\n\r\n" % method)
            return c.response()
    old(b"GET")
    assert old(b"GET").cache_status.hit
    assert old(b"POST").status == 200
    assert not old(b"GET").cache_status.hit
