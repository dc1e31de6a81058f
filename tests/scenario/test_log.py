"""weir log: live requests, filtered by the server, to whoever listens."""
import json
import socket
import subprocess

import pytest

import harness
from harness import eventually


class Listener:
    """A stream of /log/stream; it hears what is done once it is made."""

    def __init__(self, w, query=""):
        self.sock = socket.create_connection(("127.0.0.1", w.admin), timeout=harness.TIMEOUT)
        self.sock.sendall(b"GET /log/stream%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % query.encode())
        self.wire = harness.Wire(self.sock)
        assert b" 200 " in self.wire.until(b"\r\n\r\n", "the head").split(b"\r\n")[0] + b" "
        assert self.event()[0] == "begin"

    def event(self):
        while True:
            lines = self.wire.until(b"\n\n", "an event").decode().strip().split("\n")
            if lines[0].startswith("event: "):
                return lines[0][7:], json.loads(lines[1][6:])

    def request(self):
        kind, data = self.event()
        assert kind == "request", (kind, data)
        return data

    def close(self):
        self.sock.close()


@pytest.fixture
def w(origin, weir):
    """With one worker: what two have done may be told in either order."""
    origin.on("/a", body=b"hello", headers=[("Cache-Control", "max-age=60")])
    origin.on("/b", body=b"b", headers=[("Cache-Control", "no-store")])
    origin.on("/fail", status=500)
    return weir(workers=1, routes=[{"path": "/b", "name": "bees"}, {"path": "/**", "name": "rest"}])


def test_who_listens_hears_each_request_with_its_steps_and_times(w):
    hears = Listener(w)
    w.get("/a?q=1")
    w.get("/a?q=1")
    miss, hit = hears.request(), hears.request()
    assert (miss["outcome"], miss["status"], miss["target"], miss["route"]) == ("miss", 200, "/a?q=1", "rest")
    assert miss["fwd"] == "uri-miss" and miss["bytes_out"] == 5 and miss["tries"] == 1
    assert miss["origin"].startswith("http://127.0.0.1:")
    assert 0 <= miss["pool_us"] <= miss["first_byte_us"] <= miss["duration_us"]
    assert [s["state"] for s in miss["steps"]] == ["ROUTE", "LOOKUP", "FETCH", "DELIVER"]
    ends = 0
    for s in miss["steps"]:                             # one begins where the other ended
        assert s["at_us"] == ends
        ends += s["us"]
    assert ends <= miss["duration_us"]
    assert hit["outcome"] == "hit" and "origin" not in hit and "fwd" not in hit
    assert hit["steps"] == [{"state": "HIT", "at_us": 0, "us": hit["duration_us"]}]
    hears.close()


def test_filters_are_judged_by_the_server(origin, w):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: (gate.wait(0.2), conn.respond(200)))
    wanted = {"?route=bees": ["/b"], "?route=bees&route=rest&outcome=miss": ["/a", "/b", "/fail", "/slow"],
              "?outcome=hit&outcome=stale": ["/a"], "?status=5xx": ["/fail"],
              "?status=400-503": ["/fail"], "?method=HEAD": ["/a"],
              "?path=/%3F&status=200": ["/a", "/b", "/a"], "?slower=150ms": ["/slow"]}
    listeners = [Listener(w, query) for query in wanted]
    for path in ("/a", "/b", "/fail"):
        w.get(path)
    w.request("HEAD", "/a")
    w.get("/slow")
    for (query, heard), hears in zip(wanted.items(), listeners):
        assert [hears.request()["target"] for _ in heard] == heard, query
        hears.close()


def test_a_filter_that_is_not_understood_is_refused(w):
    for query, says in [
            ("?route=bee", 'there is no route "bee"; the nearest is "bees"'), ("?outcome=mis", "hit, stale"),
            ("?status=99", "a status"), ("?status=500-400", "a status"), ("?slower=fast", "a duration"),
            ("?colour=red", "not understood"), ("?route", "not understood"), ("?path=", "not understood"),
            ("?" + "&".join(["route=bees"] * 33), "at most 32")]:
        answer = w.api("GET", "/log/stream" + query)
        assert answer.status == 400 and says in answer.json()["detail"], query


def test_what_clients_say_in_secret_is_not_told(w):
    hears = Listener(w)
    w.get("/a", [("Authorization", "Bearer s3cret"), ("Cookie", "id=s3cret"), ("X-Api-Key", "s3cret")])
    assert "s3cret" not in json.dumps(hears.request())
    hears.close()


def test_who_reads_too_slowly_loses_requests_and_is_told_how_many(w):
    hears = Listener(w)
    heard = lost = 0
    total, path = 1000, "/a?" + "x" * 8000              # 8 MB, more than sockets and rooms hold
    with w.client() as c:
        for _ in range(total // 20):
            c.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode() * 20)
            assert [c.response().status for _ in range(20)] == [200] * 20
    while heard + lost < total:
        kind, data = hears.event()
        heard += kind == "request"
        lost += data["requests"] if kind == "lost" else 0
    assert heard + lost == total and lost > 0
    hears.close()


def test_only_so_many_may_listen_and_one_that_leaves_makes_room(w):
    eight = [Listener(w) for _ in range(8)]
    assert w.api("GET", "/log/stream").status == 503
    w.get("/a")
    assert [h.request()["target"] for h in eight] == ["/a"] * 8
    eight.pop().close()
    last = []
    def again():
        try:
            last.append(Listener(w))
        except AssertionError:
            return False
        return True
    eventually(again)
    w.get("/b")
    assert last[0].request()["target"] == "/b"
    for h in eight + last:
        h.close()


def shell(w, *args):
    p = subprocess.Popen([harness.weir_binary(), "log", "--admin", "http://127.0.0.1:%d" % w.admin, *args],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = p.stderr.readline()
    assert first.startswith("weir log: listening"), first + p.stderr.read()
    return p


def test_the_shell_prints_a_line_a_request_and_its_steps(w):
    plain = shell(w, "--count", "2", "--route", "rest")
    steps = shell(w, "--count", "1", "--steps", "--outcome", "miss", "--path", "/a")
    as_json = shell(w, "--count", "1", "--json", "--outcome", "hit")
    for target in ("/b", "/a?x=%1b[31m", "/a", "/a"):
        w.get(target)
    lines = plain.communicate(timeout=harness.TIMEOUT)[0].splitlines()
    assert len(lines) == 2 and plain.returncode == 0
    assert " 200 miss " in lines[0] and "/a?x=%1b[31m  (route rest, uri-miss, origin http://" in lines[0]
    first, *states = steps.communicate(timeout=harness.TIMEOUT)[0].splitlines()
    assert "/a?x=" in first and [s.split()[-3] for s in states] == ["ROUTE", "LOOKUP", "FETCH", "DELIVER"]
    assert json.loads(as_json.communicate(timeout=harness.TIMEOUT)[0])["outcome"] == "hit"


def test_what_a_client_wrote_does_not_reach_the_terminal_as_it_is(w):
    p, as_json = shell(w, "--count", "1", "--status", "400"), shell(w, "--json", "--count", "1", "--status", "400")
    assert b" 400 " in w.raw(b"GET /\x1b[2J\xc2\x9b HTTP/1.1\r\nHost: x\r\n\r\n")
    said = as_json.communicate(timeout=harness.TIMEOUT)[0]
    assert "\x1b" not in said and "\x9b" not in said and json.loads(said)["target"] == "/\x1b[2J\x9b"
    out = p.communicate(timeout=harness.TIMEOUT)[0]
    assert "\x1b" not in out and "\x9b" not in out and "\\x1b[2J\\x9b" in out


def test_what_stands_in_a_tag_or_a_key_does_not_reach_the_terminal_as_it_is(origin, weir, tmp_path):
    said = {"a": "\x1b]0;x\x07", "b": "\x9b2J"}
    origin.on("/a", body=json.dumps(said).encode(), headers=[("Cache-Control", "max-age=60")])
    w = weir(journal={"path": str(tmp_path / "journal")}, routes=[
        {"path": "/w", "policy": "write-back", "write": {"key": "{request.body.a}{request.body.b}"}},
        {"path": "/a", "tags": ["{response.body.a}", "{response.body.b}"]}])
    w.get("/a")
    w.api("POST", "/writes/pause", {"all": True})
    put = w.request("PUT", "/w", [("Content-Type", "application/json")], json.dumps(said).encode())
    explained = w.cli("explain", "--admin", w.admin_url, "http://127.0.0.1:%d/a" % w.port)
    shown = w.cli("writes", "show", "--admin", w.admin_url, put.header("Location").rpartition("/")[2])
    assert "\\x1b]0;x\\x07" in explained.stdout and json.loads(shown.stdout)["key"] == said["a"] + said["b"]
    assert not any(c in p.stdout for c in "\x1b\x9b" for p in (explained, shown))


def test_the_shell_says_why_it_ends(w):
    p = shell(w)
    w.stop()
    assert p.wait(timeout=harness.TIMEOUT) == 1 and "ended the stream" in p.stderr.read()
    bad = w.cli("log", "--colour", "red")
    assert bad.returncode == 2 and "usage: weir log" in bad.stderr
    assert w.cli("log", "--count", "0").returncode == 2
