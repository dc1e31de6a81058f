"""The image and the composition: that their parts agree, and, slowly, that the image builds and serves."""
import json
import os
import re
import shutil
import socket
import subprocess
import urllib.request

import pytest
import yaml

import harness
from harness import eventually
from test_package import base_root, pack
from tools import DEPLOY, SOURCE, need, said

FOLDER = os.path.join(DEPLOY, "container")
DEBIAN = "localhost/debian:bookworm-slim"


def test_the_composition_mounts_what_is_there_and_names_what_it_has():
    with open(os.path.join(FOLDER, "compose.yaml")) as f:
        compose = yaml.safe_load(f)
    services = compose["services"]
    assert set(services) == {"origin", "weir", "redis", "prometheus", "grafana"}
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source.startswith("."):
                assert os.path.exists(os.path.join(FOLDER, source)), (name, source)
                assert volume.endswith(":ro"), volume
            else:
                assert source in compose["volumes"], source
        assert set(service.get("depends_on", [])) <= set(services)
    weir = services["weir"]
    assert weir["read_only"] and weir["cap_drop"] == ["ALL"]
    assert os.path.exists(os.path.join(FOLDER, weir["build"]["context"], weir["build"]["dockerfile"]))
    with open(os.path.join(FOLDER, "prometheus.yml")) as f:
        [job] = yaml.safe_load(f)["scrape_configs"]
    conf = yaml.safe_load(open(os.path.join(FOLDER, "compose-weir.yaml")))
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert job["job_name"] == "weir"                        # as the rules take it
    assert host in conf["admin"]["hosts"] and conf["admin"]["listen"].endswith(":" + port)


def test_weir_takes_the_configurations(tmp_path):
    shutil.copy(os.path.join(FOLDER, "demo-token"), tmp_path / "token")
    (tmp_path / "token").chmod(0o400)
    for name in ("weir.yaml", "compose-weir.yaml"):
        text = open(os.path.join(FOLDER, name)).read()
        text = text.replace("/etc/weir/token", str(tmp_path / "token")).replace("/var/lib/weir", str(tmp_path))
        checked = harness.check(text, tmp_path)
        assert checked.returncode == 0 and "0 warnings" in checked.stdout, checked.stdout
    image = open(os.path.join(FOLDER, "Dockerfile")).read()
    probe = re.search(r'"health", "--admin", "http://127.0.0.1:(\d+)"', image)[1]
    for name in ("weir.yaml", "compose-weir.yaml"):
        assert yaml.safe_load(open(os.path.join(FOLDER, name)))["probe"]["listen"] == "0.0.0.0:" + probe


def test_the_composition_works_as_processes(redis, tmp_path):
    """No runtime of containers: what the services run, with the names that they find one another by replaced."""
    need("prometheus"), need("redis-server")
    with open(os.path.join(FOLDER, "compose.yaml")) as f:
        services = yaml.safe_load(f)["services"]
    port = {name: harness.free_port() for name in ("8000", "8080", "8081", "8082", "9090")}
    token = open(os.path.join(FOLDER, "demo-token")).read().strip()
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(0o400)

    def local(name, **also):
        text = open(os.path.join(FOLDER, name)).read()
        for was, now in {"redis://redis:6379": redis.url, "http://origin:8000": "http://127.0.0.1:" + str(port["8000"]),
                         "0.0.0.0:8080": "127.0.0.1:%d" % port["8080"], "0.0.0.0:8081": "127.0.0.1:%d" % port["8081"],
                         "0.0.0.0:8082": "127.0.0.1:%d" % port["8082"], "weir:8081": "127.0.0.1:%d" % port["8081"],
                         "/etc/weir/token": str(tmp_path / "token"), "/etc/prometheus/token": str(tmp_path / "token"),
                         "/etc/prometheus/weir.rules.yml": os.path.join(DEPLOY, "prometheus", "weir.rules.yml"),
                         "/var/lib/weir": str(tmp_path), "interval: 5s": "interval: 1s", **also}.items():
            text = text.replace(was, now)
        path = tmp_path / name
        path.write_text(text)
        return str(path)
    [mount] = services["origin"]["volumes"]
    source, target = mount.split(":")[:2]
    of_origin = [os.path.join(FOLDER, source) if a == target else a.replace("/tmp", str(tmp_path))
                 for a in services["origin"]["command"]] + ["--port", str(port["8000"])]
    options = services["redis"]["command"][1:]      # each is one that Redis knows
    for name, value in zip(options[::2], options[1::2]):
        assert redis.call("CONFIG", "SET", name.removeprefix("--"), value) == "OK", name
    log = open(tmp_path / "log", "wb")
    running = [subprocess.Popen(command, stdout=log, stderr=log) for command in (
        of_origin, [harness.weir_binary(), "run", "-c", local("compose-weir.yaml")],
        ["prometheus", "--config.file=" + local("prometheus.yml"), "--storage.tsdb.path=%s" % (tmp_path / "tsdb"),
         "--web.listen-address=127.0.0.1:%d" % port["9090"]])]
    try:
        health = ["health", "--admin", "http://127.0.0.1:%d" % port["8082"]]
        eventually(lambda: harness.run_cli(*health).returncode == 0 and port_open(port["8000"]))
        with harness.Client(port["8080"]) as c:
            assert c.get("/api/cities").status == 200 and c.get("/api/cities").cache_status.hit
        with harness.Client(port["8081"], host="weir:8081") as c:       # as Prometheus calls it
            assert c.get("/metrics").status == 401
            assert c.get("/metrics", [("Authorization", "Bearer " + token)]).status == 200
        eventually(lambda: ("weir_requests_total", "weir") in scraped(port["9090"]), timeout=30)
    finally:
        for process in running:
            process.terminate()
        assert [process.wait(30) for process in running][1] == 0
        log.close()


def port_open(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def scraped(port):
    query = "http://127.0.0.1:%d/api/v1/query?query=weir_requests_total" % port
    try:
        with urllib.request.urlopen(query, timeout=harness.TIMEOUT) as answer:
            return {(s["metric"]["__name__"], s["metric"]["job"]) for s in json.load(answer)["data"]["result"]}
    except OSError:                                 # it is starting
        return set()


@pytest.mark.slow
def test_the_image_builds_and_serves_as_nobody_on_a_root_that_is_read_only(build, origin, tmp_path):
    """Registries of images are not asked: the base is the Debian that test_package.py makes."""
    if os.getuid() != 0:
        pytest.skip("images are built here by root alone")
    need("buildah"), need("podman"), need("debootstrap"), need("systemd-nspawn")
    packed = tmp_path / "packed"
    packed.mkdir()
    base = base_root(pack(build, packed))
    # Kept beside it: what the image installs is not installed again. The second directory is for this run, but podman wants
    # the one that it was first told, of 50 characters at most.
    storage = ["--root", base + ".storage", "--runroot", "/tmp/weir-run-" + os.path.basename(base)]
    if subprocess.run(["podman", *storage, "image", "exists", DEBIAN]).returncode != 0:
        tar = tmp_path / "base.tar"
        said("tar", "-C", base, "-cf", str(tar), ".")
        said("podman", *storage, "import", str(tar), DEBIAN)
        tar.unlink()
    said("buildah", *storage, "build", "--layers", "--isolation", "chroot", "--network", "host", "--format", "docker",
         "--pull-never", "-f", os.path.join(FOLDER, "Dockerfile"), "-t", "weir", SOURCE)
    [image] = json.loads(said("podman", *storage, "inspect", "weir"))
    conf = image["Config"]
    assert conf["User"] == "10001:10001" and image["Healthcheck"]["Test"][1:3] == ["weir", "health"]
    assert conf["Volumes"] == {"/var/lib/weir": {}}
    root = said("podman", *storage, "image", "mount", "weir").strip()
    try:
        serves_from(root, [*conf["Entrypoint"], *conf["Cmd"]], origin, tmp_path)
    finally:
        said("podman", *storage, "image", "umount", "-f", "weir")


def serves_from(root, command, origin, tmp_path):
    """nspawn stands in for the runtime, which wants control groups of one kind alone."""
    origin.on("/a", body=b"hello", headers=[("Cache-Control", "max-age=60")])
    file, state, port, probe = tmp_path / "weir.yaml", tmp_path / "state", harness.free_port(), harness.free_port()
    state.mkdir()
    os.chown(state, 10001, 10001)
    file.write_text("listen: 127.0.0.1:%d\nadmin: {listen: off}\nprobe: {listen: 127.0.0.1:%d}\n"
                    "cache: {disk: {path: /var/lib/weir/cache}}\norigins: {api: {servers: %s}}\n"
                    % (port, probe, origin.url))
    assert said("chroot", root, "id", "-u", "weir").strip() == "10001"
    run = subprocess.Popen(
        ["systemd-nspawn", "-q", "-D", root, "--read-only", "--user=weir", "--drop-capability=all",
         "--no-new-privileges=yes", "--register=no", "--keep-unit", "--console=pipe", "--kill-signal=SIGTERM",
         "--bind-ro=%s:/etc/weir/weir.yaml" % file, "--bind=%s:/var/lib/weir" % state, *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        eventually(lambda: run.poll() is not None or
                   harness.run_cli("health", "--admin", "http://127.0.0.1:%d" % probe).returncode == 0, timeout=60)
        assert run.poll() is None, run.stdout.read()
        for _ in range(2):
            with harness.Client(port) as c:
                r = c.get("/a")
                assert r.body == b"hello"
        assert r.cache_status.hit
        assert {os.stat(state / "cache").st_uid} == {10001}
    finally:
        run.terminate()
        told = run.communicate(timeout=30)[0]
    assert run.returncode == 0 and "stopped" in told, told
