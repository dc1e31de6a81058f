"""Fixtures of the scenario tests."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fixtures import origin, origins, redis, sentinel, weir  # noqa: E402, F401
