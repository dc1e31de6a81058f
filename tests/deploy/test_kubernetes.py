"""The manifests: that their parts agree with each other and with Weir, and, slowly, with the API's schemas."""
import json
import os
import shutil
import subprocess

import pytest
import yaml

import harness
from tools import DEPLOY, HERE, need, said

FOLDER = os.path.join(DEPLOY, "kubernetes")


def objects(folder=FOLDER):
    """As `kubectl apply -k` would send them."""
    return list(yaml.safe_load_all(said(need("kubectl"), "kustomize", str(folder))))


def find(all_of_them, kind, name="weir"):
    [found] = [o for o in all_of_them if o["kind"] == kind and o["metadata"]["name"].startswith(name)
               and (name != "weir" or "admin" not in o["metadata"]["name"])]
    return found


def test_every_manifest_is_part_of_the_kustomization():
    listed = yaml.safe_load(open(os.path.join(FOLDER, "kustomization.yaml")))
    named = set(listed["resources"]) | {f for g in ("configMapGenerator", "secretGenerator")
                                        for one in listed[g] for f in one["files"]}
    assert named | {"kustomization.yaml"} == set(os.listdir(FOLDER))


def test_probes_drain_and_security_are_those_that_weir_has(tmp_path):
    with open(os.path.join(FOLDER, "deployment.yaml")) as f:
        pod = yaml.safe_load(f)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    with open(os.path.join(FOLDER, "weir.yaml")) as f:
        text = f.read()
    conf = yaml.safe_load(text)
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    for name, at in (("http", conf["listen"]), ("admin", conf["admin"]["listen"]),
                     ("probe", conf["probe"]["listen"])):
        assert at == "0.0.0.0:%d" % ports[name]
    paths = {k: container[k]["httpGet"] for k in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert [p["path"] for p in paths.values()] == ["/readyz", "/readyz", "/healthz"]
    assert all(p["port"] == "probe" for p in paths.values())
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = int(conf["drain"].rstrip("s"))
    assert before > 0 and before + drain + 10 <= pod["terminationGracePeriodSeconds"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    assert os.path.dirname(conf["cache"]["disk"]["path"]) in mounts
    assert container["args"][-1] == "/etc/weir/weir.yaml" and "/etc/weir" in mounts
    token = conf["admin"]["token_file"]
    assert os.path.dirname(token) in mounts and os.path.exists(os.path.join(FOLDER, os.path.basename(token)))
    shutil.copy(os.path.join(FOLDER, "token"), tmp_path)
    (tmp_path / "token").chmod(0o400)
    checked = harness.check(text.replace("/etc/weir-admin", str(tmp_path)), tmp_path)
    assert checked.returncode == 0 and "0 warnings" in checked.stdout, checked.stdout


def test_services_budget_and_monitor_select_the_pods_and_name_their_ports():
    them = objects()
    template = find(them, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    ports = {p["name"] for p in template["spec"]["containers"][0]["ports"]}
    for service in (find(them, "Service"), find(them, "Service", "weir-admin")):
        assert service["spec"]["selector"].items() <= labels
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports
    assert find(them, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    monitor = find(them, "ServiceMonitor")["spec"]
    scraped = find(them, "Service", "weir-admin")
    assert monitor["selector"]["matchLabels"].items() <= scraped["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {p["name"] for p in scraped["spec"]["ports"]}
    assert scraped["metadata"]["labels"][monitor["jobLabel"]] == "weir"     # as the rules take it
    secret = find(them, "Secret", "weir-admin")
    wanted = monitor["endpoints"][0]["authorization"]["credentials"]
    assert wanted["name"] == secret["metadata"]["name"] and wanted["key"] in secret["data"]
    assert {o["metadata"].get("namespace", "weir") for o in them} == {"weir"}


def test_another_configuration_rolls_the_pods_over(tmp_path):
    def mounted(folder):
        them = objects(folder)
        volumes = find(them, "Deployment")["spec"]["template"]["spec"]["volumes"]
        [name] = [v["configMap"]["name"] for v in volumes if "configMap" in v]
        assert name == find(them, "ConfigMap")["metadata"]["name"]
        return name
    copy = shutil.copytree(FOLDER, tmp_path / "k")
    was = mounted(copy)
    with open(copy / "weir.yaml", "a") as f:
        f.write("slow: 2s\n")
    assert mounted(copy) != was


@pytest.mark.slow
def test_the_schemas_of_the_api_know_every_field(tmp_path):
    need("node"), need("npm")
    folder = shutil.copytree(os.path.join(HERE, "kubernetes"), tmp_path / "schemas",
                             ignore=shutil.ignore_patterns("node_modules"))
    said("npm", "ci", "--no-audit", "--no-fund", cwd=folder)

    def faults(them):
        done = subprocess.run(["node", "validate.mjs"], cwd=folder, input=json.dumps(them), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert (done.returncode == 0) == (done.stdout == ""), done.stdout
        return done.stdout.splitlines()
    assert faults(objects()) == []
    wrong = objects()
    find(wrong, "Deployment")["spec"]["replica"] = 2
    find(wrong, "ServiceMonitor")["spec"]["endpoints"][0]["port"] = 8081
    assert len(faults(wrong)) == 2
