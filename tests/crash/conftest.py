"""Fixtures of the crash tests: those of the scenarios, with a journal and a ledger of what came."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "scenario")]

from fixtures import origin, origins, redis, sentinel, weir  # noqa: E402, F401

import harness  # noqa: E402
import kit  # noqa: E402
import network  # noqa: E402


@pytest.fixture
def ledger(origin):
    """What the origin took; it answers every path."""
    it = kit.Ledger(origin)
    origin.on("*", it)
    return it


@pytest.fixture
def back(weir, tmp_path):
    """A factory: Weir with a journal and one write-back route, which `write` adds to."""
    def make(write=None, journal=None, **keys):
        path = tmp_path / "journal"
        path.mkdir(exist_ok=True)
        keys["origin"] = {"timeout": {"first_byte": "10s"}, "eject": {"for": "50ms"},
                          **keys.get("origin", {})}
        route = {"path": "/**", "policy": "write-back", "write": kit.write(write)}
        w = weir(journal={"path": str(path / "writes"), **(journal or {})},
                 routes=[route], **keys)
        w.journal = str(path / "writes")
        return w
    return make


@pytest.fixture
def cut_off(tmp_path):
    """(Redis in a network of its own, the network): cables for three instances, and for the test"""
    try:
        net = network.Network(harness.free_port(), 3 + 1)
    except network.NotPermitted as e:
        pytest.skip("no network that could be cut: %s" % e)
    directory = tmp_path / "redis"
    directory.mkdir()
    server = None
    try:
        server = harness.Redis(str(directory), "--bind", "*", "--protected-mode", "no",
                               host=net.cables[-1].there, under=net.under)
        yield server, net
    finally:
        if server:
            server.end()
        net.end()
