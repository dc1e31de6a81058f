"""Fixtures of the browser's tests: a real Weir as in tests/scenario, and a page of a real browser."""
import importlib.util
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
SCENARIO = os.path.join(HERE, "..", "scenario")
sys.path[:0] = [HERE, SCENARIO]

spec = importlib.util.spec_from_file_location(
    "scenario_fixtures", os.path.join(SCENARIO, "conftest.py"))
scenario_fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scenario_fixtures)
origin, origins, weir, redis = (
    getattr(scenario_fixtures, name) for name in ("origin", "origins", "weir", "redis"))

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

