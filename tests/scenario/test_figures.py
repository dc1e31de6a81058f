"""What the figures and the access log say of requests: who, what, how long, and by which id."""
import json
import re

from harness import eventually


def logging(weir, tmp_path, **conf):
    return weir(log={"access": str(tmp_path / "access.log"), **conf.pop("log", {})}, **conf)


def lines(tmp_path, n):
    """The n lines of the access log in order of time: each worker writes its own as a block."""
    path = tmp_path / "access.log"
    eventually(lambda: path.read_text().count("\n") >= n, message="%d lines in the access log" % n)
    got = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(got) == n, got
    return sorted(got, key=lambda line: line["time"])


# ---- ids --------------------------------------------------------------------------------------------

def test_each_line_of_the_access_log_has_a_request_id_whatever_answered(origin, weir, tmp_path):
    origin.on("/a", body=b"x", headers=[("Cache-Control", "max-age=60")])
    w = logging(weir, tmp_path)
    with w.client() as c:
        c.get("/a")
        for given in (None, None, "abc-123", "", "a b", "x" * 129):
            r = c.get("/a", [("X-Request-Id", given)] if given is not None else [])
            assert r.cache_status.hit and r.header("X-Request-Id") is None
    got = lines(tmp_path, 7)
    assert [g["outcome"] for g in got] == ["miss"] + ["hit"] * 6
    ids = [g["request_id"] for g in got]
    assert ids[3] == "abc-123" and len(set(ids)) == 7
    assert all(re.fullmatch("[0-9a-f]{32}", i) for i in ids[:3] + ids[4:])


def test_a_hit_that_the_socket_does_not_take_at_once_is_logged_like_others(origin, weir, tmp_path):
    body = b"x" * (6 << 20)                              # more than sockets buffer
    origin.on("/big", body=body, headers=[("Cache-Control", "max-age=60")])
    w = logging(weir, tmp_path, cache={"memory": "128MiB", "max_object": "8MiB"})
    with w.client() as c:
        assert c.get("/big").body == body
        r = c.get("/big")
        assert r.cache_status.hit and r.body == body
    hit = lines(tmp_path, 2)[1]
    assert hit["outcome"] == "hit" and hit["client"] == "127.0.0.1" and hit["bytes_out"] == len(body)
    assert re.fullmatch("[0-9a-f]{32}", hit["request_id"])
