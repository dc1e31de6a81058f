"""The rules for Prometheus, by promtool: what fires, and what does not."""
import os
import re
import shutil

from harness import eventually
from tools import DEPLOY, HERE, need, said

RULES = os.path.join(DEPLOY, "prometheus", "weir.rules.yml")


def test_each_alert_fires_when_it_should_and_not_before(tmp_path):
    promtool = need("promtool")
    shutil.copy(RULES, tmp_path)
    shutil.copy(os.path.join(HERE, "weir.rules.test.yml"), tmp_path)
    said(promtool, "check", "rules", "--lint-fatal", "weir.rules.yml", cwd=tmp_path)
    said(promtool, "test", "rules", "weir.rules.test.yml", cwd=tmp_path)


def test_no_alert_is_without_a_test():
    tests = open(os.path.join(HERE, "weir.rules.test.yml")).read()
    for alert in re.findall(r"- alert: (\w+)", open(RULES).read()):
        assert re.search(r"alertname: %s\n" % alert, tests), alert


def test_a_redis_that_is_gone_shows(origin, weir, redis):
    w = weir(cache={"redis": {"url": redis.url, "lease": "1s"}})
    eventually(lambda: w.metric("weir_redis_down") == 0 and w.metric("weir_bus_lease") == 1)
    redis.end()
    eventually(lambda: w.metric("weir_redis_down") >= 1)
