"""The Debian package: what is in it, and, slowly, its life under a systemd that was booted.

The slow part makes a Debian root with debootstrap and keeps it (WEIR_TEST_ROOTS, /var/tmp/weir-tests unless
said), installs the package in a copy, boots that with systemd-nspawn, and upgrades, removes and purges.
"""
import contextlib
import hashlib
import os
import re
import shutil
import subprocess

import pytest

from harness import eventually
from tools import DEPLOY, need, said


def pack(build, where, version=None):
    """The path of the package that cpack makes of the build."""
    need("dpkg-shlibdeps")
    said("cpack", "-B", str(where), *(["-D", "CPACK_PACKAGE_VERSION=" + version] if version else []), cwd=build)
    return next(str(p) for p in where.iterdir() if p.suffix == ".deb")


@pytest.fixture(scope="session")
def package(build, tmp_path_factory):
    return pack(build, tmp_path_factory.mktemp("package"))


def test_the_package_holds_what_its_control_files_speak_of(package, tmp_path):
    said("dpkg-deb", "-R", package, str(tmp_path))
    for path in ("usr/bin/weir", "usr/share/man/man1/weir.1",
                 "usr/share/man/man5/weir.yaml.5", "usr/share/doc/weir/copyright",
                 "usr/share/doc/weir/examples/all-options.yaml", "usr/lib/systemd/system/weir.service",
                 "usr/lib/systemd/system/weir.socket"):
        assert (tmp_path / path).is_file(), path
    conffiles = (tmp_path / "DEBIAN/conffiles").read_text().split()
    assert sorted(conffiles) == sorted("/" + str(p.relative_to(tmp_path))
                                       for p in (tmp_path / "etc").rglob("*") if p.is_file())
    control = (tmp_path / "DEBIAN/control").read_text()
    assert re.search(r"^Depends: .*\badduser\b.*\blibevent", control, re.M) and "Version: 0." in control
    for script in ("postinst", "prerm", "postrm"):
        said("sh", "-n", str(tmp_path / "DEBIAN" / script))
    unit = (tmp_path / "usr/lib/systemd/system/weir.service").read_text()
    assert unit == open(os.path.join(DEPLOY, "systemd/weir.service")).read()
    weir = str(tmp_path / "usr/bin/weir")
    assert said(weir, "check", "-c", str(tmp_path / "etc/weir/weir.yaml"))
    # by its name alone: where plugins are follows the program
    for name in ("json_tags", "api_key", "jwt", "rate_limit"):
        assert "The plugin " + name in said(weir, "reference", name)
    for so in tmp_path.rglob("lua.so"):
        assert "libluajit" in control and "`memory`" in said(weir, "reference", "lua"), so


def test_the_manual_has_every_option_of_the_reference(package, tmp_path):
    said("dpkg-deb", "-R", package, str(tmp_path))
    page = (tmp_path / "usr/share/man/man5/weir.yaml.5").read_text()
    with open(os.path.join(DEPLOY, "../config/REFERENCE.md")) as f:
        options = re.findall(r"^\| `([^`]+)` \|", f.read(), re.M)
    assert len(options) > 100
    for option in options:
        assert ".TP\n\\fB" + option.replace("-", "\\-") + "\\fR\n" in page, option
    assert "\\|" not in page and "`" not in page


def test_elsewhere_than_in_usr_the_unit_names_the_paths_of_the_prefix(build, tmp_path):
    said("cmake", "--install", build, "--prefix", str(tmp_path))
    unit = (tmp_path / "lib/systemd/system/weir.service").read_text()
    assert "ExecStart=%s/bin/weir run -c %s/etc/weir/weir.yaml\n" % (tmp_path, tmp_path) in unit


# ---- its life -------------------------------------------------------------------------------------

def base_root(package):
    """A directory with Debian, systemd and what the package depends on; made once."""
    depends = [re.match(r"[\w.+-]+", d.strip())[0]
               for d in said("dpkg-deb", "-f", package, "Depends").split(",")]
    wanted = ",".join(sorted({"systemd-sysv", "dbus", "logrotate", *depends}))
    roots = os.environ.get("WEIR_TEST_ROOTS", "/var/tmp/weir-tests")
    root = os.path.join(roots, hashlib.sha256(wanted.encode()).hexdigest()[:16])
    if not os.path.exists(root):
        mirror = said("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()[0]
        os.makedirs(roots, exist_ok=True)
        shutil.rmtree(root + ".part", ignore_errors=True)
        said("debootstrap", "--variant=minbase", "--include=" + wanted, "bookworm", root + ".part", mirror)
        os.rename(root + ".part", root)
    return root


class Machine:
    """A booted root; run() is a command in it."""
    def __init__(self, root, log):
        self.log = open(log, "wb")
        self.process = subprocess.Popen(
            ["systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "--private-network",
             "--console=pipe", "--boot"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.leader = eventually(self.first_process)

    def first_process(self):
        """systemd, as seen from here, once what nspawn began has become it."""
        for child in open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)).read().split():
            with contextlib.suppress(OSError):
                if open("/proc/%s/comm" % child).read() == "systemd\n":
                    return child
        return None

    def run(self, *command):
        return subprocess.run(["nsenter", "-t", self.leader, "-a", "-r", "-w", "env", "-i", "PATH=/usr/bin:/usr/sbin",
                               "DEBIAN_FRONTEND=noninteractive", *command],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)

    def good(self, *command):
        done = self.run(*command)
        assert done.returncode == 0, "%s\n%s" % (" ".join(command), done.stdout)
        return done.stdout

    def shows(self, name):
        return self.good("systemctl", "show", "-P", name, "weir.service").strip()

    def serves(self):
        return (self.run("systemctl", "is-active", "weir.service").stdout == "active\n" and
                self.run("weir", "health").returncode == 0)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture
def machine(package, tmp_path):
    if os.getuid() != 0:
        pytest.skip("a root is made and booted by root alone")
    need("debootstrap"), need("systemd-nspawn"), need("nsenter")
    root = tmp_path / "root"
    said("cp", "-a", "--reflink=auto", base_root(package), str(root))
    shutil.copy(package, root / "weir.deb")
    # where no systemd runs, as when an image is built
    said("chroot", str(root), "dpkg", "-i", "/weir.deb", env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
    drop = root / "etc/systemd/system/weir.service.d"
    drop.mkdir(parents=True)
    (drop / "watchdog.conf").write_text("[Service]\nWatchdogSec=4s\n")
    m = Machine(str(root), str(tmp_path / "console"))
    m.root = root
    try:
        yield m
    finally:
        m.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.slow
def test_it_is_installed_started_upgraded_removed_and_purged(machine, build, tmp_path):
    m = machine
    conf = m.root / "etc/weir/weir.yaml"
    eventually(m.serves, timeout=60)
    assert m.shows("StatusText") == "serving"
    main = m.shows("MainPID")
    assert m.good("stat", "-c", "%U %G", "/proc/" + main).split() == ["weir", "weir"]
    assert m.good("stat", "-c", "%U %a", "/var/lib/weir").split() == ["weir", "750"]

    # a reload that is refused says so, and one that is not is in force
    good = conf.read_text()
    conf.write_text(good + "nonsense: 1\n")
    assert m.run("systemctl", "reload", "weir").returncode != 0
    assert m.serves() and m.shows("MainPID") == main
    conf.write_text(good + "log: {access: /var/log/weir/access.log}\n"
                    "cache: {disk: {path: /var/lib/weir/cache, size: 64MiB}}\n"
                    "journal: {path: /var/lib/weir/journal}\n")
    m.good("systemctl", "reload", "weir")
    log = m.root / "var/log/weir/access.log"
    eventually(log.exists)

    # what the hardening forbids it does not need
    m.good("systemctl", "restart", "weir")
    eventually(m.serves)
    assert (m.root / "var/lib/weir/journal").exists()

    # logs are rotated: it writes to a new file
    log.write_text("a line\n")
    m.good("logrotate", "-f", "/etc/logrotate.d/weir")
    assert (m.root / "var/log/weir/access.log.1").read_text() == "a line\n"
    eventually(log.exists)

    # a process that hangs is found
    main = m.shows("MainPID")
    m.good("sh", "-c", "kill -STOP " + main)
    eventually(lambda: m.shows("NRestarts") == "1" and m.serves(), timeout=30)
    assert m.shows("MainPID") != main

    # an upgrade keeps the configuration as the administrator has it, and runs the new version
    newer = pack(build, tmp_path / "newer", "0.99.0")
    shutil.copy(newer, m.root / "newer.deb")
    main, kept = m.shows("MainPID"), conf.read_text()
    conf.write_text(kept + "nonsense: 1\n")
    assert "goes on" in m.good("dpkg", "-i", "/newer.deb")      # the version that runs
    assert m.serves() and m.shows("MainPID") == main
    conf.write_text(kept)
    m.good("dpkg", "-i", "/newer.deb")
    assert m.good("dpkg-query", "-W", "-f", "${Version}", "weir") == "0.99.0"
    eventually(m.serves)
    eventually(lambda: m.shows("MainPID") not in (main, "0"))
    assert conf.read_text() == kept
    assert "upgrade: process %s serves" % m.shows("MainPID") in m.good(
        "journalctl", "--no-pager", "-o", "cat", "-u", "weir")
    assert m.shows("NRestarts") == "1"

    # ports of systemd's: the first connection starts it
    m.good("systemctl", "stop", "weir")
    m.good("systemctl", "start", "weir.socket")
    assert m.run("systemctl", "is-active", "weir.service").stdout == "inactive\n"
    m.good("weir", "health")
    assert m.serves()

    m.good("dpkg", "-r", "weir")
    assert m.run("systemctl", "is-active", "weir.service", "weir.socket").stdout.split() == ["inactive"] * 2
    assert conf.exists() and (m.root / "var/lib/weir/journal").exists()
    assert not (m.root / "usr/bin/weir").exists()
    m.good("dpkg", "-P", "weir")
    for path in ("etc/weir/weir.yaml", "etc/logrotate.d/weir", "var/lib/weir", "var/log/weir"):
        assert not (m.root / path).exists(), path
    assert "weir.service" not in m.good("systemctl", "list-unit-files", "--no-pager")
