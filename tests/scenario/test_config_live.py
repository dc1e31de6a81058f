"""A configuration is replaced while it runs: nothing is lost, and a bad one changes nothing."""
import threading

import yaml

import harness
from harness import eventually


def test_a_reload_takes_effect_for_new_requests(origin, weir):
    origin.on("*", body=b"x")
    w = weir(routes=[{"path": "/a"}])
    assert w.get("/b").status == 404
    w.write_config(routes=[{"path": "/b", "request": {"set": {"X-New": "1"}}}])
    w.reload()
    eventually(lambda: w.get("/b").status == 200)
    assert origin.last("/b").header("X-New") == "1"
    assert w.get("/a").status == 404
    eventually(lambda: w.log_has("configuration loaded again"))


def test_a_request_in_flight_finishes_on_the_table_that_it_began_with(origin, weir):
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: (gate.wait(), conn.respond(body=b"x")))
    w = weir(routes=[{"path": "/slow", "response": {"set": {"X-Table": "old"}}}])
    with w.client() as c:
        c.start("GET", "/slow")
        origin.wait("/slow")
        w.write_config(routes=[{"path": "/other"}])
        w.reload()
        eventually(lambda: w.log_has("configuration loaded again"))
        assert w.get("/slow").status == 404
        gate.set()
        r = c.response()
        assert r.status == 200 and r.header("X-Table") == "old"


def test_what_is_cached_outlives_a_reload(origin, weir):
    origin.on("/a", headers=[("Cache-Control", "max-age=60")], body=b"x")
    w = weir()
    w.get("/a")
    w.write_config(via="weir", slow="2s")
    w.reload()
    eventually(lambda: w.log_has("configuration loaded again"))
    assert w.get("/a").cache_status.hit and origin.count("/a") == 1


def test_no_request_is_lost_when_reloading_under_load(origin, weir):
    origin.on("/hit", headers=[("Cache-Control", "max-age=60")], body=b"hit")
    origin.on("/miss", body=b"miss")
    w = weir()
    ends, bad, done = threading.Event(), [], [0] * 4

    def load(i):
        try:
            with w.client() as c:
                while not ends.is_set():
                    for path, body in (("/hit", b"hit"), ("/miss", b"miss")):
                        r = c.get(path)
                        if r.status != 200 or r.body != body:
                            bad.append(r)
                    done[i] += 1
        except Exception as e:
            bad.append(e)
    threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for n in range(15):
        w.write_config(slow="%ds" % (n + 1), routes=[{"path": "/**"}, {"path": "/r%d" % n}])
        before = w.log().count("configuration loaded again")
        w.reload()
        eventually(lambda: w.log().count("configuration loaded again") > before)
    seen = sum(done)
    eventually(lambda: sum(done) > seen)
    ends.set()
    for t in threads:
        t.join()
    assert bad == [] and w.metric("weir_reloads_total") == 15


def test_a_bad_file_changes_nothing_and_says_why(origin, weir):
    origin.on("/a", body=b"x")
    w = weir(routes=[{"path": "/a"}])
    good = open(w.config).read()
    for text, why in ((good + "cahce: {memory: 1MiB}\n", "cache"), ("routes: [", ""), (good + "slow: never\n", "slow"),
                      ("", "")):
        with open(w.config, "w") as f:
            f.write(text)
        refused = w.log().count("reload refused")
        w.reload()
        eventually(lambda: w.log().count("reload refused") > refused)
        assert why in w.log() and w.config in w.log()
        assert w.get("/a").status == 200 and w.get("/b").status == 404
        r = w.api("POST", "/reload")
        assert r.status == 422 or r.status == 400 or r.status == 409, (r, r.body)
    assert w.process.poll() is None


def test_what_needs_a_restart_says_so(origin, weir):
    w = weir(cache={"memory": "16MiB"})
    w.write_config(cache={"memory": "32MiB"}, workers=3)
    w.reload()
    eventually(lambda: w.log_has("configuration loaded again"))
    assert "cache.memory" in w.log() and "workers" in w.log() and "restart" in w.log()


def test_limits_and_trust_of_a_listener_are_taken_over_by_new_connections(origin, weir):
    origin.on("*", body=b"x")
    w = weir()
    with w.client() as old:
        assert old.get("/" + "a" * 200).status == 200
        w.write_config(listen={"limits": {"uri": "100"}, "trust": "127.0.0.1"})
        w.reload()
        eventually(lambda: w.get("/" + "a" * 200).status == 414)
        w.get("/t", [("X-Forwarded-For", "192.0.2.1")])
        assert origin.last("/t").header("X-Forwarded-For") == "192.0.2.1, 127.0.0.1"
        assert old.get("/" + "a" * 200).status == 200


def test_a_restart_is_asked_for_by_what_runs_not_by_the_last_file(origin, weir):
    w = weir()
    for _ in range(2):                          # each time it is asked
        w.write_config(workers=7)
        r = w.api("POST", "/reload")
        assert r.json() == {"reloaded": True, "text": "workers: is 2 and becomes 7 with a restart\n"}
        text = w.api("GET", "/config").body.decode()
        assert text.startswith("# waits for a restart: workers: is 2 and becomes 7 with a restart\nworkers: 2\n")
    w.write_config()
    assert w.api("POST", "/reload").json()["text"] == ""
    assert "restart" not in w.api("GET", "/config").body.decode()


def test_a_listener_that_waits_for_a_restart_leaves_the_others_their_new_options(origin, weir):
    origin.on("*", body=b"x")
    w = weir()
    other = harness.free_port()
    old, new = "127.0.0.1:%d" % w.port, "127.0.0.1:%d" % other
    for _ in range(2):
        w.write_config(listen=[{"address": new}, {"address": old, "limits": {"uri": "100"}}])
        text = w.api("POST", "/reload").json()["text"]
        assert text == "listen: %s is opened with a restart\n" % new
        assert w.get("/" + "a" * 200).status == 414
    w.write_config(listen=[{"address": new}])
    text = w.api("POST", "/reload").json()["text"]
    assert text == "listen: %s is opened with a restart\nlisten: %s is closed with a restart\n" % (new, old)
    assert w.get("/" + "a" * 200).status == 414         # what it has stays
    config = yaml.safe_load(w.api("GET", "/config").body)
    assert [x["address"] for x in config["listen"]] == [old] and config["listen"][0]["limits"]["uri"] == "100B"


def test_every_way_to_reload_leaves_the_same_lines_in_the_log(origin, weir):
    ways = (lambda w: w.reload(), lambda w: w.api("POST", "/reload"),
            lambda w: w.cli("reload", "--admin", w.admin_url))
    seen = []
    for way in ways:
        w = weir()
        w.write_config(workers=7)
        way(w)
        eventually(lambda: w.log_has("configuration loaded again"))
        with open(w.config, "w") as f:
            f.write("slow: never\n")
        way(w)
        eventually(lambda: w.log_has("reload refused"))
        lines = [x.split("reload: ", 1)[-1].replace(w.config, "FILE") for x in w.log().split("\n")]
        seen.append([x for x in lines if "restart" in x or "FILE" in x])
        assert any("becomes 7" in x for x in seen[-1]) and any("slow" in x for x in seen[-1])
    assert seen[0] == seen[1] == seen[2]
