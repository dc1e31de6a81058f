"""The image and the composition: that their parts agree, and, slowly, that the image builds and serves."""
import json
import os
import re
import shutil
import subprocess

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
