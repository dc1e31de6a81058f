"""The dashboard and the recorded rules: each query returns data from a real Prometheus that scraped a real
Weir, under a little real traffic, with all that it can be configured to have."""
import json
import math
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest

import harness
from harness import eventually
from tools import DEPLOY, need

DASHBOARD = os.path.join(DEPLOY, "grafana", "weir.json")
RULES = os.path.join(DEPLOY, "prometheus", "weir.rules.yml")


@pytest.fixture
def prometheus(tmp_path):
    """A factory: prometheus(port of an admin port) scrapes it, with the rules; gives query(text)."""
    need("prometheus")
    made = []

    def make(target):
        port = harness.free_port()
        config = tmp_path / "prometheus.yml"
        config.write_text("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: ['%s']\n"
                          "scrape_configs:\n  - {job_name: weir, static_configs: [{targets: ['127.0.0.1:%d']}]}\n"
                          % (RULES, target))
        log = open(tmp_path / "prometheus.log", "wb")
        made.append((subprocess.Popen(
            ["prometheus", "--config.file=%s" % config, "--storage.tsdb.path=%s" % (tmp_path / "tsdb"),
             "--web.listen-address=127.0.0.1:%d" % port], stdout=log, stderr=log), log))

        def query(text):
            url = "http://127.0.0.1:%d/api/v1/query?%s" % (port, urllib.parse.urlencode({"query": text}))
            try:
                with urllib.request.urlopen(url, timeout=harness.TIMEOUT) as answer:
                    return json.load(answer)["data"]["result"]
            except urllib.error.HTTPError as e:
                if e.code == 503:                       # it is starting
                    return []
                raise AssertionError("%s: %s" % (text, e.read().decode())) from None
            except OSError:
                return []                               # it is not up yet
        return query
    yield make
    for process, log in made:
        process.terminate()
        process.wait()
        log.close()


def expressions():
    """Every query of every panel, and those of the variables, as Grafana would send them for All."""
    board = json.load(open(DASHBOARD))
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
            yield "$" + variable["name"], "count by (%s) (%s)" % (label, metric)


def test_every_query_of_the_dashboard_and_every_recorded_rule_returns_data(origin, weir, redis, prometheus,
                                                                           tmp_path):
    wanted = [(title, re.sub(r"\$(job|instance|route)\b", ".*", text).replace("$__rate_interval", "10s"))
              for title, text in expressions()]
    assert len(wanted) > 40 and not any("$" in text for _, text in wanted)
    wanted += [("rule", name) for name in re.findall(r"- record: (\S+)", open(RULES).read())]
    origin.on("*", body=b"hello", headers=[("Cache-Control", "max-age=60")])
    w = weir(cache={"redis": {"url": redis.url}, "disk": {"path": str(tmp_path / "cache"), "size": "16MiB"}},
             journal={"path": str(tmp_path / "journal")},
             routes=[{"path": "/w/{id}", "policy": "write-back"}, {"path": "/**"}])
    query, turn = prometheus(w.admin), [0]

    def has_data(text):
        """Each look is a little traffic too: a hit, a miss and a write."""
        turn[0] += 1
        for path in ("/same", "/new/%d" % turn[0]):
            assert w.get(path).status == 200
        assert w.post("/w/%d" % turn[0], b"x").status == 202
        return any(not math.isnan(float(r["value"][1])) for r in query(text))
    for title, text in wanted:
        eventually(lambda: has_data(text), timeout=40, message="no data for %s: %s" % (title, text))


def test_the_panels_do_not_overlap_and_each_says_what_it_shows():
    board, seen = json.load(open(DASHBOARD)), set()
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & seen and at["x"] + at["w"] <= 24, panel["title"]
        seen |= cells
        assert panel["type"] == "row" or (panel["description"] and panel["targets"]), panel["title"]
