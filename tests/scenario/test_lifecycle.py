"""Start, drain, stop: exit codes, messages, and nothing lost on the way."""
import os
import signal
import socket
import threading

import pytest

import harness
from harness import Closed, eventually, free_port


def test_a_drain_finishes_what_is_in_flight_and_closes_what_is_idle(origin, weir):
    gate = origin.gate()

    def slow(req, conn):
        conn.head(200, chunked=True)
        conn.chunk(b"begun")
        gate.wait()
        conn.chunk(b"finished")
        conn.end()
    origin.on("/slow", slow)
    origin.on("/later", lambda req, conn: (gate.wait(), conn.respond(body=b"late")))
    w = weir(routes=[{"path": "/**", "policy": "pass"}])
    with w.client() as idle, w.client() as busy, w.client() as waiting:
        assert idle.get("/none").status == 404
        busy.start("GET", "/slow")
        begun = harness.Response(busy.wire.until(b"\r\n\r\n", "a head"))
        waiting.start("GET", "/later")
        origin.wait("/later")
        w.terminate()
        assert idle.closed()
        eventually(lambda: refuses(w.port))
        assert w.process.poll() is None
        gate.set()
        assert busy.wire.chunked(begun) == b"begunfinished"
        assert busy.closed()
        r = waiting.response()
        assert r.body == b"late" and r.header("Connection") == "close" and waiting.closed()
    assert w.stop() == 0
    assert w.log_has("stopped")


def refuses(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def test_a_drain_ends_after_its_time_whatever_is_in_flight(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: gate.wait())
    w = weir(drain="200ms")
    with w.client() as c:
        c.start("GET", "/slow")
        origin.wait("/slow")
        assert w.stop(timeout=harness.TIMEOUT) == 0
        assert c.closed()
    assert w.log_has("draining, for 200 ms at most") and w.log_has("time is up")


def test_a_second_signal_does_not_wait(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: gate.wait())
    w = weir()
    with w.client() as c, w.client() as uploading:
        c.start("GET", "/slow")
        uploading.start("POST", "/slow", [("Content-Length", "10")])
        uploading.send(b"abc")
        origin.wait("/slow")
        w.terminate()
        eventually(lambda: w.log_has("draining"))
        assert w.process.poll() is None
        assert w.stop() == 0
        assert c.closed()
    assert w.log_has("drain: a second signal ends it, 2 connections and ")
    assert not w.log_has("time is up")


def test_a_drain_waits_for_a_pipelined_request_that_came_before(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: (gate.wait(), conn.respond(body=b"one")))
    w = weir()
    with w.client() as c:
        c.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        origin.wait("/slow")
        w.terminate()
        eventually(lambda: w.log_has("draining"))
        gate.set()
        assert c.response().header("Connection") == "close"
        assert c.closed()
    assert w.stop() == 0


def test_sigint_drains_too(origin, weir):
    w = weir()
    assert w.stop(signal.SIGINT) == 0
    assert w.log_has("SIGINT")


def test_readiness_ends_with_the_drain(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: (gate.wait(), conn.respond(body=b"x")))
    w = weir()
    with w.client() as c:
        c.start("GET", "/slow")
        origin.wait("/slow")
        w.terminate()
        eventually(lambda: w.api("GET", "/readyz").status == 503)
        assert w.api("GET", "/healthz").status == 200
        gate.set()
        assert c.response().status == 200
    assert w.stop() == 0


def test_health_says_by_its_exit_code_whether_to_send_requests_here(origin, weir):
    gate, probe = origin.gate(), free_port()
    origin.on("/slow", lambda req, conn: (gate.wait(), conn.respond(body=b"x")))
    w = weir(probe={"listen": "127.0.0.1:%d" % probe})
    probe_url = "http://127.0.0.1:%d" % probe
    for url in (w.admin_url, probe_url):
        asked = w.cli("health", "--admin", url)
        assert asked.returncode == 0 and '"ready": true' in asked.stdout, asked
    with w.client() as c:
        c.start("GET", "/slow")
        origin.wait("/slow")
        w.terminate()
        eventually(lambda: w.cli("health", "--admin", probe_url).returncode == 1)
        gate.set()
        assert c.response().status == 200
    assert w.stop() == 0
    assert w.cli("health", "--admin", probe_url).returncode == 1


def run(tmp_path, text):
    path = tmp_path / "weir.yaml"
    path.write_text(text)
    return harness.run_cli("run", "-c", str(path))


def test_a_port_in_use_is_told_with_its_remedy(origin, weir, tmp_path):
    w = weir()
    conf = "listen: 127.0.0.1:%d\nadmin: {listen: 127.0.0.1:%d}\norigins: {api: {servers: %s}}\nroutes: [{path: /**}]\n"
    for data, admin in ((w.port, free_port()), (free_port(), w.admin)):
        ended = run(tmp_path, conf % (data, admin, origin.url))
        assert ended.returncode == 1, ended
        told = [line for line in ended.stderr.splitlines() if "in use" in line]
        assert len(told) == 1 and "127.0.0.1:%d" % (w.port if data == w.port else w.admin) in told[0]
        assert "another port" in told[0] or "stop" in told[0]
    assert w.get("/x").status == 404                     # the first one does not notice


def test_a_port_held_by_another_program_is_told(origin, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        ended = run(tmp_path, "listen: 127.0.0.1:%d\nadmin: {listen: off}\norigins: {api: {servers: %s}}\n"
                    "routes: [{path: /**}]\n" % (s.getsockname()[1], origin.url))
    assert ended.returncode == 1 and "in use" in ended.stderr


def test_an_address_that_is_not_ours_is_told(origin, tmp_path):
    ended = run(tmp_path, "listen: 192.0.2.1:8080\nadmin: {listen: off}\norigins: {api: {servers: %s}}\n"
                "routes: [{path: /**}]\n" % origin.url)
    assert ended.returncode == 1 and "192.0.2.1:8080" in ended.stderr and "no such address" in ended.stderr


@pytest.mark.parametrize("make", ["missing", "unreadable", "empty", "a directory", "no YAML", "binary"])
def test_a_file_that_is_none_ends_with_one_clear_message(tmp_path, make):
    path = tmp_path / "weir.yaml"
    if make == "unreadable":
        path.write_text("x")
        path.chmod(0)
        if os.geteuid() == 0:
            pytest.skip("root reads everything")
    elif make == "empty":
        path.write_text("")
    elif make == "a directory":
        path.mkdir()
    elif make == "no YAML":
        path.write_text("routes: [\n")
    elif make == "binary":
        path.write_bytes(bytes(range(256)))
    for verb in ("run", "check"):
        ended = harness.run_cli(verb, "-c", str(path))
        assert ended.returncode == 1, ended
        told = ended.stderr + ended.stdout
        assert str(path) in told and 1 <= len(told.splitlines()) <= 4, told


def test_an_origin_that_does_not_resolve_is_a_clear_502_and_the_process_stands(origin, weir):
    w = weir(yaml="""
listen: {listen}
admin: {listen: "{admin}"}
origins: {api: {servers: "http://no-such-host.invalid:80", timeout: {connect: 500ms}}, good: {servers: "{origin}"}}
routes: [{path: /bad, origin: api}, {path: /**, origin: good}]
""")
    r = w.get("/bad")
    assert r.status in (502, 504) and r.header("Content-Type") == "application/problem+json"
    assert "name" in r.json()["detail"] or "resolve" in r.json()["detail"]
    origin.on("/fine", body=b"x")
    assert w.get("/fine").status == 200


def test_a_full_disk_for_the_access_log_costs_only_its_lines(origin, weir):
    origin.on("/", body=b"x")
    w = weir(log={"access": "/dev/full"})
    for _ in range(5):
        assert w.get("/").status == 200
    eventually(lambda: w.log_has("access log"))
    assert w.get("/").status == 200


def test_bad_usage_is_told(tmp_path):
    for args in (["nonsense"], ["--nonsense"], ["run", "extra"], ["run", "-c"]):
        ended = harness.run_cli(*args)
        assert ended.returncode == 2 and "weir help" in ended.stderr, args
    assert harness.run_cli("help").returncode == 0 and harness.run_cli("version").returncode == 0


def test_an_origin_alone_is_a_working_cache(origin, tmp_path):
    port = free_port()
    origin.on("/a", headers=[("Cache-Control", "max-age=60")], body=b"x")
    w = harness.Weir(origin.url, directory=str(tmp_path), wait=False,
                     args=["--origin", origin.url, "--listen", "127.0.0.1:%d" % port, "--admin", "off"])
    w.port = port

    def hit():
        try:
            return w.get("/a").cache_status.hit
        except OSError:
            return False
    eventually(hit)
    assert w.stop() == 0 and origin.count("/a") == 1


def test_connections_spread_over_workers_and_all_listeners_answer(origin, weir):
    second = free_port()
    origin.on("/", body=b"x")
    w = weir(yaml="""
listen:
  - {listen}
  - {address: "127.0.0.1:%d", limits: {uri: 100}}
admin: {listen: "{admin}"}
workers: 4
origins: {api: {servers: "{origin}"}}
routes: [{path: /**, origin: api}]
""" % second)
    assert w.get("/").status == 200
    with harness.Client(second) as c:
        assert c.get("/").status == 200
        assert c.get("/" + "x" * 100).status == 414
    with w.client() as c:
        assert c.get("/" + "x" * 100).status == 404
    answers = w.parallel(40, lambda i: w.get("/"))
    assert all(r.status == 200 for r in answers)


def test_ipv4_and_ipv6_listen_on_one_port_each_for_itself(origin, weir):
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    origin.on("/a", body=b"x")
    both, six, probe = free_port(), free_port(), free_port()
    weir(listen=["0.0.0.0:%d" % both, "[::]:%d" % both, "[::]:%d" % six, "127.0.0.1:%d" % probe],
         probe={"listen": "[::]:%d" % probe})
    for port, family, host, served in ((both, socket.AF_INET, "127.0.0.1", True), (both, socket.AF_INET6, "::1", True),
                                       (six, socket.AF_INET6, "::1", True), (six, socket.AF_INET, "127.0.0.1", False)):
        with socket.socket(family) as s:
            s.settimeout(harness.TIMEOUT)
            if not served:
                with pytest.raises(ConnectionRefusedError):
                    s.connect((host, port))
                continue
            s.connect((host, port))
            s.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 200"), (host, port)
