"""Fixtures of all tests with whole processes; harness.py explains them with examples."""
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import harness


@pytest.fixture
def origin():
    o = harness.Origin()
    yield o
    o.stop()
    for error in o.errors:
        raise error


@pytest.fixture
def origins():
    """A factory of further origins; again=O: one at the address of O, which was stopped, that
    answers as it did from its first connection on."""
    made = []

    def make(port=0, again=None):
        made.append(harness.Origin(again.port, again.handlers) if again else harness.Origin(port))
        return made[-1]
    yield make
    for o in made:
        o.stop()
    for o in made:
        for error in o.errors:
            raise error


@pytest.fixture
def redis(tmp_path):
    """A real redis-server that keeps what it is told on disk (appendonly). It is empty, but not new:
    who is live at a new one is known after a lease only."""
    directory = tmp_path / "redis"
    directory.mkdir()
    server = harness.Redis(str(directory))
    server.call("HSET", "weir:{bus}leases", "since", "1")
    yield server
    server.end()


@pytest.fixture
def sentinel(redis, tmp_path):
    """A sentinel that calls `redis` "main", and sentinel.replica, which has all that it has."""
    directories = [tmp_path / name for name in ("replica", "sentinel")]
    for d in directories:
        d.mkdir()
    replica = harness.Redis(str(directories[0]), "--replicaof", "127.0.0.1", str(redis.port))
    harness.eventually(lambda: "master_link_status:up" in replica.call("INFO", "replication"))
    server = harness.Sentinel(str(directories[1]), "main", redis.port)
    server.replica = replica
    yield server
    server.end()
    replica.end()


@pytest.fixture
def weir(origin, tmp_path):
    """A factory: weir(**configuration) starts Weir in front of `origin` and waits until it is ready.
    Where WEIR_JOURNAL=redis a journal is in Redis in place of a file."""
    made, servers = [], {}

    def in_redis(path=None, **rest):
        if path is not None and path not in servers:
            directory = tmp_path / ("journal%d" % len(servers))
            directory.mkdir()
            servers[path] = harness.Redis(str(directory))
        return {**rest, "redis": {"url": servers[path].url, "timeout": "5s"}} if path is not None else rest

    def make(yaml=None, **keys):
        if os.environ.get("WEIR_JOURNAL") == "redis" and "journal" in keys:
            keys["journal"] = in_redis(**keys["journal"])
        directory = tmp_path / ("weir%d" % len(made))
        directory.mkdir()
        made.append(harness.Weir(origin.url, yaml=yaml, directory=str(directory), **keys))
        return made[-1]
    yield make
    for gate in origin.gates:
        gate.set()
    with ThreadPoolExecutor(max(1, len(made))) as pool:
        ends = [(w, pool.submit(w.stop)) for w in made if w.status is None]
    for server in servers.values():
        server.end()
    for w, end in ends:
        assert end.result() == 0, "weir ended with %s\n%s" % (w.status, w.log())
