"""Proxy-Status (RFC 9209) tells what went wrong, on answers of our own alone."""
import pathlib
import re
import socket

import pytest

REGISTERED = set("""
    dns_timeout dns_error destination_not_found destination_unavailable destination_ip_prohibited
    destination_ip_unroutable connection_refused connection_terminated connection_timeout connection_read_timeout
    connection_write_timeout connection_limit_reached tls_protocol_error tls_certificate_error tls_alert_received
    http_request_error http_request_denied http_response_incomplete http_response_header_section_size
    http_response_header_size http_response_body_size http_response_trailer_section_size http_response_trailer_size
    http_response_transfer_coding http_response_content_coding http_response_timeout http_upgrade_failed
    http_protocol_error proxy_internal_response proxy_internal_error proxy_configuration_error
    proxy_loop_detected""".split())         # section 2.3
PROXY = pathlib.Path(__file__).resolve().parents[2] / "proxy"
MEMBER = re.compile(r'weir; error=([a-z_]+); details="[^"]*"')


def error(r):
    """The type, where the field is exactly one member of ours."""
    return MEMBER.fullmatch(r.header("Proxy-Status") or "none").group(1)


def test_every_cause_in_the_sources_is_a_registered_one():
    calls = re.compile(r'(?:(?:set_fault|fault_soon|exchange_broken)\(\w+, \d+,\s*|\.cause = )"(\w*)"')
    sources = [f for room in ("upstream", "fill") for f in (PROXY / room).glob("*.c")]
    causes = [c for f in sources for c in calls.findall(f.read_text())]
    assert len(causes) > 15 and set(causes) <= REGISTERED
    ours = (PROXY / "request" / "proxy_status.c").read_text()
    table = ours[ours.index("registered[]"):ours.index("};")]
    assert set(re.findall(r'"(\w+)"', table)) == REGISTERED


def refused_address():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % s.getsockname()[1]


def test_an_origin_that_refuses(weir):
    address = refused_address()
    w = weir(origins={"api": {"servers": ["http://" + address]}})
    r = w.get("/a")
    assert r.status == 502 and error(r) == "connection_refused"
    assert address not in r.header("Proxy-Status") and "127.0.0.1" not in r.header("Proxy-Status")
    assert r.header("Cache-Status") is None
    r = w.post("/a", body=b"x")
    assert r.status == 502 and error(r) == "connection_refused"


def test_an_origin_without_an_address(weir):
    r = weir(origins={"api": {"servers": ["http://no-such-host.invalid:80"]}}).get("/a")
    assert (r.status, error(r)) in ((502, "dns_error"), (504, "dns_timeout"))
    assert "no-such-host" not in r.header("Proxy-Status")


@pytest.mark.parametrize("answer, status, wanted", [
    (lambda q, c: c.reset(), 502, "connection_terminated"),
    (b"HTTP/1.1 200 OK\r\nContent-Le", 502, "http_response_incomplete"),
    (b"nonsense\r\n\r\n", 502, "http_protocol_error"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 502, "http_protocol_error"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200000 + b"\r\n\r\n", 502, "http_response_header_section_size"),
], ids=["reset", "cut", "nonsense", "two-lengths", "large-head"])
def test_an_origin_that_answers_badly(origin, weir, answer, status, wanted):
    w = weir()
    origin.on("/a", answer) if callable(answer) else origin.on("/a", raw=answer, close=True)
    r = w.get("/a")
    assert (r.status, error(r)) == (status, wanted)


def test_an_origin_that_does_not_answer(origin, weir):
    w = weir(origin={"timeout": {"first_byte": "200ms"}})
    gate = origin.gate()
    origin.on("/a", lambda q, c: gate.wait())
    r = w.get("/a")
    assert (r.status, error(r)) == (504, "connection_read_timeout")


def test_what_is_refused_here(origin, weir):
    w = weir(routes=[{"path": "/a/**"}])
    r = w.get("/other")
    assert (r.status, error(r)) == (404, "destination_not_found")
    r = w.get("/a/x", [("Cache-Control", "only-if-cached")])
    assert (r.status, error(r)) == (504, "proxy_internal_response")
    w.get("/a/x")
    r = w.get("/a/x", [("Via", origin.last("/a/x").header("Via"))])
    assert (r.status, error(r)) == (508, "proxy_loop_detected")
    r = w.get("/a/x", [("Content-Length", "x")])
    assert (r.status, error(r)) == (400, "http_request_error")
