"""Fixtures of the deployment tests: those of the scenarios, and Weir installed below a directory."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "scenario")]

from fixtures import origin, redis, weir  # noqa: E402, F401

from tools import SOURCE, said  # noqa: E402


@pytest.fixture(scope="session")
def build():
    """The build directory that the binary under test comes from."""
    path = os.path.dirname(os.path.abspath(os.environ.get("WEIR", os.path.join(SOURCE, "build/weir"))))
    if not os.path.exists(os.path.join(path, "CMakeCache.txt")):
        pytest.skip("%s is no build directory" % path)
    return path


@pytest.fixture(scope="session")
def installed(build, tmp_path_factory):
    """The root below which `cmake --install` put everything."""
    root = tmp_path_factory.mktemp("installed")
    said("cmake", "--install", build, "--prefix", "/usr", env={**os.environ, "DESTDIR": str(root)})
    return str(root)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; run with `pytest -m slow tests/deploy`")
