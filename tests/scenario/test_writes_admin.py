"""Operators see the journal, and act on it: /writes of the admin port, and `weir writes`."""
import json
import os
import socket
import time

import pytest

import harness

BACKOFF = {"min": "20ms", "max": "50ms"}
ROUTES = [
    {"path": "/e/**", "policy": "write-back",
     "write": {"key": "{header.x-key}", "key_missing": "target", "backoff": BACKOFF}},
    {"name": "plain", "path": "/p/**", "policy": "write-back", "write": {"backoff": BACKOFF}},
]


@pytest.fixture
def back(origin, weir, tmp_path):
    """Weir with a journal, in front of `origin`."""
    origin.on("*", status=200)
    return weir(journal={"path": str(tmp_path / "journal")}, routes=ROUTES)


def ids(answer):
    return [w["id"] for w in answer.json()["writes"]]


def state(w, i):
    return w.api("GET", "/writes/" + i).json()["state"]


def shell(w, *args):
    return w.cli("writes", *args, "--admin", w.admin_url)


def settled(w, i, want):
    harness.eventually(lambda: state(w, i) == want, message="%s is %s" % (i, want))


def put(w, target, headers=(), body=b"x"):
    answer = w.request("PUT", target, headers, body)
    assert answer.status == 202, answer
    return answer.json()["id"]


def test_writes_are_listed_in_the_order_of_acceptance_and_by_page(origin, back):
    back.api("POST", "/writes/pause", {"all": True})
    made = [put(back, "/e/%d" % i) for i in range(5)]
    first = back.api("GET", "/writes?limit=2")
    assert ids(first) == made[:2]
    assert ids(back.api("GET", "/writes?limit=2&after=" + first.json()["next"])) == made[2:4]
    last = back.api("GET", "/writes?limit=2&after=" + made[3])
    assert ids(last) == made[4:] and "next" not in last.json()
    back.api("POST", "/writes/resume", {"all": True})
    for i in made:
        settled(back, i, "delivered")


def test_a_filter_takes_state_route_and_key(origin, back):
    origin.on("/e/1", status=404)
    dead = put(back, "/e/1", {"X-Key": "k one"})
    fine = put(back, "/p/1")
    settled(back, dead, "rejected")
    settled(back, fine, "delivered")
    assert ids(back.api("GET", "/writes?state=dead")) == [dead]
    assert ids(back.api("GET", "/writes?state=rejected&route=%2Fe%2F%2A%2A")) == [dead]
    assert ids(back.api("GET", "/writes?route=plain")) == [fine]
    assert ids(back.api("GET", "/writes?key=k+one")) == [dead]
    assert ids(back.api("GET", "/writes?key=k%20two")) == []


def test_a_write_tells_what_is_known_of_it_but_no_secret(origin, back):
    origin.on("/e/1", status=422, headers=[("X-Why", "no")], body=b"not so")
    i = put(back, "/e/1", {"Authorization": "Bearer hush", "X-Key": "k"})
    settled(back, i, "rejected")
    answer = back.api("GET", "/writes/" + i)
    told = answer.json()
    assert told["method"] == "PUT" and told["url"].endswith("/e/1") and told["key"] == "k"
    assert back.log_has("%s is a dead letter (rejected)" % i)
    assert told["status"] == 422 and told["attempts"] == 1 and told["answer"] == "not so"
    assert b"hush" not in answer.body


def test_a_dead_write_is_retried_and_a_delivered_one_is_not(origin, back):
    origin.on("/e/1", status=400)
    i = put(back, "/e/1")
    settled(back, i, "rejected")
    origin.on("/e/1", status=204)
    assert back.api("POST", "/writes/%s/retry" % i).status == 200
    settled(back, i, "delivered")
    again = back.api("POST", "/writes/%s/retry" % i)
    assert again.status == 409 and "settled" in again.json()["detail"]


def test_all_that_a_filter_takes_are_retried_or_dropped(origin, back):
    for i in range(3):
        origin.on("/e/%d" % i, status=400)
        origin.on("/p/%d" % i, status=400)
    dead = [put(back, "/e/%d" % i) for i in range(3)] + [put(back, "/p/%d" % i) for i in range(3)]
    for i in dead:
        settled(back, i, "rejected")
    assert back.api("POST", "/writes/drop", {"route": "plain"}).json()["writes"] == 3
    for i in range(3):
        origin.on("/e/%d" % i, status=200)
    assert back.api("POST", "/writes/retry", {"state": "dead"}).json()["writes"] == 3
    for i in dead[:3]:
        settled(back, i, "delivered")
    for i in dead[3:]:
        assert state(back, i) == "dropped"


def test_all_writes_are_dropped_when_that_is_said(origin, back):
    back.api("POST", "/writes/pause", {"all": True})
    ids = [put(back, "/e/%d" % i) for i in range(3)]
    for args in ([], ["--state", "pending", "--limit", "1"], ["--state", "pending", "--all"],
                 [ids[0], "--after", ids[1]], ["--origin", "api"]):
        assert shell(back, "drop", *args).returncode == 2
    assert [state(back, i) for i in ids] == ["pending"] * 3
    assert shell(back, "drop", "--all").returncode == 0
    assert [state(back, i) for i in ids] == ["dropped"] * 3


def test_a_pending_write_is_cancelled_and_never_sent(origin, back):
    back.api("POST", "/writes/pause", {"route": "plain"})
    i = put(back, "/p/1")
    assert back.api("DELETE", "/writes/" + i).status == 200
    assert state(back, i) == "dropped"
    back.api("POST", "/writes/resume", {"route": "plain"})
    settled(back, put(back, "/p/2"), "delivered")
    assert origin.count("/p/1") == 0


def processor_seconds(pid):
    with open("/proc/%d/stat" % pid, encoding="latin-1") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("what", [{"all": True}, {"route": "plain"}, {"origin": "api"}])
def test_what_is_paused_waits_without_work(origin, back, what):
    back.api("POST", "/writes/pause", what)
    made = [put(back, "/p/%d" % i) for i in range(50)]
    before = processor_seconds(back.pid)
    time.sleep(1)                                # nothing is to happen in it
    assert processor_seconds(back.pid) - before < 0.2
    back.api("POST", "/writes/resume", what)
    for i in made:
        settled(back, i, "delivered")


def test_a_paused_origin_gets_nothing_and_a_restart_remembers_it(origin, weir, tmp_path):
    origin.on("*", status=200)
    keys = {"journal": {"path": str(tmp_path / "journal")}, "routes": ROUTES}
    first = weir(**keys)
    assert first.api("POST", "/writes/pause", {"origin": "api"}).status == 200
    i = put(first, "/e/1")
    assert first.stop() == 0
    second = weir(**keys)
    assert state(second, i) == "pending" and origin.count("/e/1") == 0
    second.api("POST", "/writes/resume", {"origin": "api"})
    settled(second, i, "delivered")


@pytest.mark.parametrize("what", [{"origin": "api"}, {"route": "/e/**"}])
def test_who_resumes_all_leaves_nothing_paused(origin, weir, tmp_path, what):
    origin.on("*", status=200)
    keys = {"journal": {"path": str(tmp_path / "journal")}, "routes": ROUTES}
    first = weir(**keys)
    assert first.api("POST", "/writes/pause", what).status == 200
    i = put(first, "/e/1")
    assert state(first, i) == "pending"
    assert first.api("POST", "/writes/resume", {"all": True}).status == 200
    settled(first, i, "delivered")
    assert first.stop() == 0
    second = weir(**keys)
    settled(second, put(second, "/e/2"), "delivered")


@pytest.mark.parametrize("method,target,body,status,says", [
    ("GET", "/writes/00000000000000000000000000000000", None, 404, "no such write"),
    ("GET", "/writes/nonsense", None, 404, "no such write"),
    ("GET", "/writes?stat=dead", None, 400, "not understood"),
    ("GET", "/writes?state=deaf", None, 400, "is none"),
    ("GET", "/writes?limit=0", None, 400, "1 to 1000"),
    ("POST", "/writes/retry", {"stat": "dead"}, 400, "known are"),
    ("POST", "/writes/retry", [1], 400, "object"),
    ("POST", "/writes/drop", {}, 400, "say which"),
    ("POST", "/writes/drop", None, 400, "say which"),
    ("POST", "/writes/drop", {"all": False}, 400, "not understood"),
    ("POST", "/writes/pause", {}, 400, "one of"),
    ("POST", "/writes/pause", {"route": "nowhere"}, 404, "no such route"),
    ("POST", "/writes/00000000000000000000000000000000/retry", None, 404, "no such write"),
    ("DELETE", "/writes", None, 405, "takes"),
    ("PUT", "/writes/00000000000000000000000000000000", None, 405, "takes GET, HEAD, DELETE"),
])
def test_what_is_not_understood_is_named(origin, back, method, target, body, status, says):
    answer = back.api(method, target, body)
    assert answer.status == status and says in answer.json()["detail"], answer.body
    assert answer.header("Content-Type") == "application/problem+json"


def test_without_a_journal_the_answer_says_so(origin, weir):
    answer = weir().api("GET", "/writes")
    assert answer.status == 404 and "journal.path" in answer.json()["detail"]


def test_a_stream_tells_each_change_of_state(origin, back):
    events = []
    s = socket.create_connection(("127.0.0.1", back.admin), timeout=harness.TIMEOUT)
    s.sendall(b"GET /writes/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wire = harness.Wire(s)
    head = wire.until(b"\r\n\r\n", "the head")
    assert b"text/event-stream" in head
    i = None

    def follow():
        while not any(e.get("id") == i and e.get("state") == "delivered" for e in events):
            event = wire.until(b"\n\n", "an event")
            for line in event.split(b"\n"):
                if line.startswith(b"data: "):
                    events.append(json.loads(line[6:]))
    wire.until(b"\n\n", "the first event")      # it hears from now on
    i = put(back, "/e/1")
    follow()
    s.close()
    states = [e["state"] for e in events if e.get("id") == i]
    assert states[-2:] == ["sending", "delivered"]


def test_the_shell_lists_shows_retries_and_follows(origin, back):
    origin.on("/e/1", status=400)
    i = put(back, "/e/1")
    settled(back, i, "rejected")
    listed = shell(back, "ls", "--state", "dead")
    assert listed.returncode == 0 and i in listed.stdout and "rejected" in listed.stdout
    assert json.loads(shell(back, "show", i).stdout)["id"] == i
    origin.on("/e/1", status=200)
    retried = shell(back, "retry", i, "--wait")
    assert retried.returncode == 0 and "0 pending" in retried.stderr
    assert state(back, i) == "delivered"
    assert shell(back, "retry", i).returncode == 1
    assert "no id" in shell(back, "show", "xyz").stderr
    assert shell(back, "retry").returncode == 2
    assert shell(back, "pause").returncode == 2
    assert shell(back, "lss").returncode == 2


def test_the_figures_tell_deliveries_and_commits(origin, back):
    for i in range(5):
        settled(back, put(back, "/p/%d" % i), "delivered")
    # a state is told once it is committed, the figures a moment later
    harness.eventually(lambda: back.metric("weir_write_delivery_seconds_count") == 5)
    harness.eventually(lambda: back.metric("weir_writes_delivered_total") == 5)
    assert back.metric("weir_writes_accepted_total") == 5
    assert back.metric("weir_writes_depth") == 0 == back.metric("weir_writes_dead")
    assert back.metric("weir_write_delivery_seconds_count") == 5
    assert 0 < back.metric("weir_write_delivery_seconds_sum") < 100
    assert back.metric("weir_journal_commit_seconds_count") >= 5
    assert back.metric("weir_journal_batch_sum") >= 5
    assert back.stats()["summaries"]["write_delivery"]["start"]["count"] == 5
