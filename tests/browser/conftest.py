"""Fixtures of the browser's tests: a real Weir as in tests/scenario, and a page of a real browser."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "scenario")]

from fixtures import origin, origins, redis, weir  # noqa: E402, F401

import browser as browser_module  # noqa: E402


def pytest_collection_modifyitems(items):
    missing = browser_module.missing()
    for item in items if missing else []:
        item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def chromium():
    b = browser_module.Browser()
    yield b
    b.close()


@pytest.fixture
def page(chromium):
    """A tab with nothing stored. What must not be (Page.faults) fails the test."""
    p = browser_module.Page(chromium)
    yield p
    p.close()
    assert p.faults == []

