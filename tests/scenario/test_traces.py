"""Traces: sampled requests as spans, to a collector that decodes them (OTLP/HTTP, JSON)."""
import json
import re
import threading

import pytest

import harness
from harness import eventually

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = "00-%s-%s-01" % (TRACE, PARENT)
INTERNAL, SERVER, CLIENT = 1, 2, 3


class Span:
    """One of an export, decoded as strictly as OTLP's JSON encoding is written."""

    def __init__(self, o):
        assert set(o) <= {"traceId", "spanId", "parentSpanId", "traceState", "name", "kind", "attributes",
                          "startTimeUnixNano", "endTimeUnixNano", "status", "links"}, o
        assert re.fullmatch("[0-9a-f]{32}", o["traceId"]) and re.fullmatch("[0-9a-f]{16}", o["spanId"])
        self.trace, self.id, self.parent = o["traceId"], o["spanId"], o.get("parentSpanId")
        assert self.parent is None or re.fullmatch("[0-9a-f]{16}", self.parent)
        self.name, self.kind, self.state = o["name"], o["kind"], o.get("traceState")
        self.start, self.end = (int(o[k]) for k in ("startTimeUnixNano", "endTimeUnixNano"))
        assert isinstance(o["startTimeUnixNano"], str) and self.start <= self.end
        self.attributes = {}
        for a in o.get("attributes", []):
            (kind, value), = a["value"].items()
            assert isinstance(value, str) and kind in ("stringValue", "intValue"), a
            self.attributes[a["key"]] = int(value) if kind == "intValue" else value
        assert len(self.attributes) == len(o.get("attributes", []))
        self.failed = o.get("status", {}).get("code") == 2
        self.links = [(link["traceId"], link["spanId"]) for link in o.get("links", [])]


class Collector:
    """Answers exports with what `answers` says, first to last (the last stays), and keeps those taken."""

    def __init__(self, server):
        self.server, self.spans, self.answers, self.lock = server, [], [(200, [], b"{}")], threading.Lock()
        self.text = b""
        server.on("/v1/traces", self.take)

    def take(self, req, conn):
        assert req.method == "POST" and req.header("Content-Type") == "application/json"
        export = json.loads(req.body)
        resource, = export["resourceSpans"]
        scope, = resource["scopeSpans"]
        assert resource["resource"]["attributes"] == [
            {"key": "service.name", "value": {"stringValue": "edge"}}]
        spans = [Span(s) for s in scope["spans"]]
        with self.lock:
            status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if 200 <= status < 300:
                self.spans += spans
                self.text += req.body
        conn.respond(status, headers, body)

    def tree(self, name):
        """The one request of this name, and what is below it, by name, in order of time."""
        def there():
            with self.lock:
                return [s for s in self.spans if s.kind == SERVER and s.name == name]
        eventually(there, message="a span %r" % name)
        root, = there()
        below = sorted((s for s in self.spans if s.parent == root.id), key=lambda s: s.start)
        assert all(s.trace == root.trace and s.start >= root.start and s.end <= root.end for s in below)
        return root, below


@pytest.fixture
def collector(origins):
    return Collector(origins())


def tracing(weir, origin, collector, sample="0%", **keys):
    trace = {"origin": "spans", "service": "edge", "sample": sample, **keys.pop("trace", {})}
    return weir(origins={"api": {"servers": [origin.url]}, "spans": {"servers": [collector.server.url]}},
                trace=trace, **keys)


def test_a_request_is_a_tree_of_spans_in_its_parents_trace(origin, weir, collector):
    origin.on("/a", body=b"hello", headers=[("Cache-Control", "max-age=60")])
    origin.on("/w", status=500)
    w = tracing(weir, origin, collector, trace={"fields": {"X-Key": "k3y"}}, routes=[
        {"path": "/back", "name": "back", "policy": "write-back"},
        {"path": "/{id}", "name": "one", "request": {"set": {"X-Route": "1"}}}],
        journal={"path": "journal"})
    secret = [("Authorization", "Bearer s3cret"), ("Cookie", "s3cret")]
    w.get("/a?key=s3cret", [("traceparent", SAMPLED), ("tracestate", "a=b"), ("baggage", "c=d")] + secret)
    root, below = collector.tree("GET one")
    assert (root.trace, root.parent, root.state, root.kind) == (TRACE, PARENT, "a=b", SERVER)
    assert root.attributes["http.response.status_code"] == 200 and root.attributes["url.path"] == "/a"
    assert root.attributes["weir.outcome"] in ("miss", "pass") and root.attributes["http.route"] == "one"
    asked = next(s for s in below if s.kind == CLIENT)
    assert asked.name in ("fetch", "forward") and asked.attributes["weir.origin"] == origin.url
    assert [s.name for s in below][0] == "route" and [s.name for s in below][-1] == "deliver"
    seen = origin.last("/a")
    assert seen.header("traceparent") == "00-%s-%s-01" % (TRACE, asked.id)
    assert (seen.header("tracestate"), seen.header("baggage")) == ("a=b", "c=d")
    assert collector.server.last("/v1/traces").header("X-Key") == "k3y"

    w.get("/a")                                         # not asked for, and 0 %
    w.get("/a", [("traceparent", SAMPLED)])             # stored or a hit now, one of both
    w.request("PUT", "/w", [("traceparent", SAMPLED)], b"x")
    root, below = collector.tree("PUT one")
    assert root.failed and [s.name for s in below if s.kind == CLIENT] == ["forward"]
    w.request("PUT", "/back", [("traceparent", SAMPLED)], b"x")
    root, below = collector.tree("PUT back")
    assert "write" in [s.name for s in below] and root.attributes["weir.outcome"] == "accepted"
    eventually(lambda: origin.count("/back") == 1)      # the delivery is told of to the origin alone
    assert re.fullmatch("00-%s-[0-9a-f]{16}-01" % TRACE, origin.last("/back").header("traceparent"))
    assert b"s3cret" not in collector.text


def test_hits_are_traced_and_who_samples_is_the_parent(origin, weir, collector):
    origin.on("/a", body=b"hello", headers=[("Cache-Control", "max-age=60")])
    w = tracing(weir, origin, collector, "100%", routes=[{"path": "/a", "name": "a"}, {"path": "/**", "name": "b"}])
    w.get("/a", [("traceparent", SAMPLED[:-2] + "00"), ("tracestate", "a=b")])
    assert re.fullmatch("00-%s-[0-9a-f]{16}-00" % TRACE, origin.last("/a").header("traceparent"))
    w.get("/a")
    root, below = collector.tree("GET a")               # the other was not told of
    assert root.parent is None and root.attributes["weir.outcome"] == "hit"
    assert [(s.name, s.kind) for s in below] == [("hit", INTERNAL)]
    w.get("/none", [("traceparent", "junk"), ("tracestate", "a=b"), ("baggage", "c=d")])
    root, below = collector.tree("GET b")               # a trace of its own
    asked = next(s for s in below if s.kind == CLIENT)
    seen = origin.last("/none")
    assert seen.header("traceparent") == "00-%s-%s-01" % (root.trace, asked.id)
    assert seen.header("tracestate") is None and seen.header("baggage") == "c=d"
    assert root.trace != TRACE and root.state is None


def test_who_waited_for_anothers_fetch_is_linked_to_its_span(origin, weir, collector):
    gate = origin.gate()
    origin.on("/a", lambda req, conn: (gate.wait(), conn.respond(200, [("Cache-Control", "max-age=60")], b"a")))
    w = tracing(weir, origin, collector, "0%", routes=[{"path": "/**", "name": "a"}])

    def ask(client, trace):
        client.start("GET", "/a", [("traceparent", "00-%s-%s-%s" % (trace, PARENT, "00" if trace[0] == "c" else "01"))])
    with w.client() as first, w.client() as second, w.client() as third:
        ask(first, "a" * 32)
        origin.wait("/a")
        ask(second, "b" * 32)
        ask(third, "c" * 32)                            # is not told itself
        eventually(lambda: w.metric("weir_collapsed_total") == 2)
        gate.set()
        assert [c.response().body for c in (first, second, third)] == [b"a"] * 3
    eventually(lambda: len([s for s in collector.spans if s.kind == SERVER]) == 2)
    spans = {(s.trace[0], s.kind): s for s in collector.spans if s.kind != INTERNAL}
    assert spans["b", SERVER].attributes["weir.outcome"] == "collapsed"
    assert spans["b", SERVER].links == [("a" * 32, spans["a", CLIENT].id)]
    assert spans["a", SERVER].links == [] and ("b", CLIENT) not in spans
    assert spans["a", CLIENT].id in origin.last("/a").header("traceparent")


def test_what_the_collector_cannot_take_now_it_gets_later(origin, weir, collector):
    w = tracing(weir, origin, collector, "100%", routes=[{"path": "/{n}", "name": "x"}])
    times = []
    def at():
        return [s for s in collector.spans if s.kind == SERVER]
    collector.answers = [(503, [("Retry-After", "1")], b""), (429, [], b"slow down"), (200, [], b"{}")]
    w.get("/one")
    eventually(at)
    assert collector.server.count("/v1/traces") == 3 and len(at()) == 1
    assert w.log_has("the collector answered 503; tried again")
    # one that is no use again, and one that was taken in part
    collector.answers = [(400, [], b"no"), (200, [], b'{"partialSuccess": {"rejectedSpans": "2"}}')]
    w.get("/two")
    eventually(lambda: w.metric("weir_trace_dropped_total") > 0)
    dropped = w.metric("weir_trace_dropped_total")
    assert w.log_has("dropped: the collector answered 400")
    w.get("/three")
    eventually(lambda: w.metric("weir_trace_dropped_total") == dropped + 2)
    eventually(lambda: w.metric("weir_trace_spans_total") == len(collector.spans) - 2)
    # while it is down nobody waits, and once it is back it gets what was queued
    collector.answers = [(200, [], b"{}")]
    port = collector.server.port
    collector.server.stop()
    for _ in range(20):
        assert w.get("/gone").status == 404
    eventually(lambda: w.log_has("tried again"))
    collector.server = harness.Origin(port)
    collector.server.on("/v1/traces", collector.take)
    eventually(lambda: len([s for s in at() if s.attributes["url.path"] == "/gone"]) == 20)
    collector.server.stop()


def test_what_waits_is_bounded_and_a_slow_collector_slows_nobody(origin, weir, collector):
    gate = origin.gate()
    taken = collector.take
    collector.server.on("/v1/traces", lambda req, conn: (gate.wait(harness.TIMEOUT), taken(req, conn)))
    w = tracing(weir, origin, collector, "100%", trace={"queue": "64KiB"})
    with w.client() as c:
        for _ in range(200):
            assert c.get("/none").status == 404
    assert w.metric("weir_trace_dropped_total") > 100
    gate.set()
    eventually(lambda: collector.spans)


def test_a_reload_leaves_traces_as_they_are_and_what_waits_at_the_end_is_sent(origin, weir, collector):
    fields = {"fields": {"X-Key": "k3y", "X-Other": "2"}}
    w = tracing(weir, origin, collector, "100%", trace=fields)
    w.write_config(origins={"api": {"servers": [origin.url]}}, slow="2s")
    answer = w.api("POST", "/reload")
    assert answer.status == 200 and "trace.sample: is 100% and becomes 1%" in answer.json()["text"], answer.body
    for _ in range(3):
        w.get("/none")
    assert w.stop() == 0
    assert len([s for s in collector.spans if s.kind == SERVER]) == 3


def test_a_collector_that_is_no_origin_is_a_mistake_of_the_configuration(tmp_path):
    checked = harness.check(
        "origins: {api: {servers: [http://127.0.0.1:1]}, spans: {servers: [http://127.0.0.1:2]}}\n"
        "routes: [{path: \"/**\", origin: api}]\ntrace: {origin: span}\n", tmp_path)
    assert checked.returncode == 1 and "did you mean spans" in checked.stdout and "trace.origin" in checked.stdout
    checked = harness.check(
        "origins: {api: {servers: [http://127.0.0.1:1]}, spans: {servers: [http://127.0.0.1:2]}}\n"
        "routes: [{path: \"/**\", origin: api}]\ntrace: {origin: spans}\n", tmp_path)
    assert checked.returncode == 0 and "no route uses it" not in checked.stdout, checked.stdout
