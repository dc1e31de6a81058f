"""The units, by systemd's own tools, and the protocols of its manager, played by the test."""
import contextlib
import fcntl
import os
import re
import signal
import socket

import harness
from harness import eventually, free_port
from tools import DEPLOY, need, said

UNIT = os.path.join(DEPLOY, "systemd", "weir.service")


def test_the_unit_is_exposed_as_little_as_promised():
    need("systemd-analyze")
    text = said("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", UNIT)
    level = re.search(r"Overall exposure level for weir.service: ([\d.]+)", text)
    assert level and float(level[1]) <= 2.0, text


def test_systemd_finds_no_fault_in_the_installed_units(installed):
    need("systemd-analyze")
    units = os.path.join(installed, "usr/lib/systemd/system")
    assert sorted(os.listdir(units)) == ["weir.service", "weir.socket"]
    os.makedirs(os.path.join(installed, "bin"), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink("/bin/sh", os.path.join(installed, "bin/sh"))
    text = said("systemd-analyze", "verify", "--root=" + installed, "--man=no", "--recursive-errors=no",
                "weir.service", "weir.socket")
    assert text == ""


def test_the_unit_allows_the_system_calls_that_weir_makes(origin, weir, tmp_path):
    need("strace"), need("systemd-analyze")
    os.chmod(tmp_path, 0o777)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            os.chmod(folder, os.stat(folder).st_mode | 0o011)
    calls = tmp_path / "calls"
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    origin.on("/a", body=b"x" * 5000, headers=[("Cache-Control", "max-age=60"),
                                               ("Content-Type", "text/plain")])
    origin.on("/w", status=204)
    under = ["strace", "-f", "-qq", "-o", str(calls), "-e", "trace=all", "-e", "verbose=none"]
    if os.getuid() == 0:
        under += ["-u", "nobody"]
    w = weir(under=under, cache={"memory": "16MiB", "disk": {"path": str(state / "cache")}},
             journal={"path": str(state / "journal")}, origin={"servers": [
                 origin.url.replace("127.0.0.1", "localhost")]},
             routes=[{"path": "/w", "policy": "write-back"}, {"path": "/**", "compress": ["gzip"]}])
    for _ in range(3):
        assert w.get("/a", [("Accept-Encoding", "gzip")]).status == 200
    assert w.post("/w", b"1").status == 202
    origin.wait("/w")
    w.api("GET", "/metrics")
    pid = int(re.match(r"\d+", calls.read_text())[0])
    os.kill(pid, signal.SIGHUP)
    eventually(lambda: w.log_has("configuration loaded again"))
    os.kill(pid, signal.SIGTERM)
    w.status = w.process.wait(harness.TIMEOUT)
    assert w.status == 0, w.log()
    made = set(re.findall(r"^\d+ +(\w+)\(", calls.read_text(), re.M))
    assert {"accept4", "epoll_wait", "fdatasync", "prlimit64"} <= made
    assert made <= allowed(), made - allowed()


def allowed():
    """The calls that SystemCallFilter= lets pass, by systemd's own lists."""
    lists, at = {}, None
    for line in said("systemd-analyze", "syscall-filter", "--no-pager").splitlines():
        if line.startswith(("@", "#")):
            at = lists.setdefault(line.strip(), set())
        elif line.strip() and not line.strip().startswith("#"):
            at.add(line.strip())

    def every(name):
        return set().union(*map(every, lists[name])) if name.startswith("@") else {name}
    calls = set()
    for value in re.findall(r"^SystemCallFilter=(.*)$", open(UNIT).read(), re.M):
        named = set().union(*map(every, value.lstrip("~").split()))
        calls = calls - named if value.startswith("~") else calls | named
    return calls | every("@default")


class Manager:
    """Where NOTIFY_SOCKET points to."""
    def __init__(self, tmp_path):
        self.path = str(tmp_path / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(harness.TIMEOUT)
        self.socket.bind(self.path)

    def until(self, text):
        """The first message that has this line; those before it are dropped."""
        while True:
            message = self.socket.recv(4096).decode()
            if text in message.split("\n"):
                return dict(line.split("=", 1) for line in message.split("\n"))


def test_the_manager_is_told_of_start_reload_drain_and_health(origin, weir, tmp_path):
    manager = Manager(tmp_path)
    gate = origin.gate()
    origin.on("/slow", lambda req, conn: (gate.wait(), conn.respond(body=b"x")))
    w = weir(wait=False, drain="20s", env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "4000000"})
    manager.until("READY=1")
    assert w.api("GET", "/readyz").status == 200        # not a moment too early
    manager.until("WATCHDOG=1")
    manager.until("WATCHDOG=1")

    w.reload()
    assert int(manager.until("RELOADING=1")["MONOTONIC_USEC"]) > 0
    assert manager.until("READY=1")["STATUS"] == "serving"
    good = open(w.config).read()
    w.write_config(yaml=good + "nonsense: 1\n")
    w.reload()
    manager.until("RELOADING=1")
    assert "refused" in manager.until("READY=1")["STATUS"]

    with w.client() as c:
        c.start("GET", "/slow")
        origin.wait("/slow")
        w.terminate()
        # as long as `drain`, and what comes after it, whatever TimeoutStopSec= says
        assert int(manager.until("STOPPING=1")["EXTEND_TIMEOUT_USEC"]) > 20e6
        manager.until("WATCHDOG=1")
        gate.set()
        assert c.response().status == 200
    assert w.stop() == 0


@contextlib.contextmanager
def ports_of_a_manager(*ports):
    """Listening sockets, and the arguments of weir() by which they are its own, from 3 on."""
    with contextlib.ExitStack() as stack:
        fds = []
        for port in ports:
            s = stack.enter_context(socket.socket())
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            s.listen(64)
            fds.append(fcntl.fcntl(s, fcntl.F_DUPFD, 100))
            stack.callback(os.close, fds[-1])
        moves = " ".join("%d<&%d %d<&-" % (3 + i, fd, fd) for i, fd in enumerate(fds))
        script = 'LISTEN_PID=$$ LISTEN_FDS=%d exec "$@" %s' % (len(fds), moves)
        yield {"under": ["bash", "-c", script, "manager"], "pass_fds": fds}


def at(port, admin):
    return ("listen: 127.0.0.1:%d\nadmin: {listen: 127.0.0.1:%d}\nworkers: 2\n"
            "origins: {api: {servers: {origin}}}\n" % (port, admin))


def test_clients_wait_while_it_restarts_on_sockets_of_the_manager(origin, weir):
    origin.on("/a", body=b"hello")
    port, admin = free_port(), free_port()
    with ports_of_a_manager(port, admin) as given:
        w = weir(yaml=at(port, admin), wait=False, **given)
        w.port, w.admin = port, admin
        w.wait_ready()
        answers = w.parallel(8, lambda i: w.get("/a").body)      # by either worker
        assert answers == [b"hello"] * 8
        assert w.stop() == 0
        with w.client() as c:                                   # taken, and not refused
            c.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            w.start()
            assert c.response().body == b"hello"


def test_an_upgrade_names_the_successor_which_has_the_sockets_of_the_manager(origin, weir, tmp_path):
    manager = Manager(tmp_path)
    origin.on("/a", body=b"hello")
    port, admin = free_port(), free_port()
    with ports_of_a_manager(port, admin) as given:
        w = weir(yaml=at(port, admin), wait=False, **given, env={
            "NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "1000000"})
        w.port, w.admin = port, admin
        manager.until("READY=1")
        with w.client() as c:
            assert c.get("/a").body == b"hello"
            was = w.upgrade()
            assert c.get("/a").body == b"hello"
        assert manager.until("MAINPID=%d" % w.pid)["STATUS"] == "serving"
        manager.until("WATCHDOG=1")                             # the new one's
        assert was.wait(harness.TIMEOUT) == 0
        assert w.stop() == 0
        assert manager.until("STOPPING=1")


def test_a_socket_that_the_configuration_does_not_name_is_an_error(weir):
    port = free_port()
    with ports_of_a_manager(port) as given:
        w = weir(wait=False, **given)
        assert w.process.wait(harness.TIMEOUT) == 1
        w.status = 1
    assert w.log_has("the service manager listens on 127.0.0.1:%d, and no `listen`" % port)


def test_it_is_started_by_the_first_connection(origin, weir):
    activate = need("systemd-socket-activate")
    origin.on("/a", body=b"hello")
    port, admin = free_port(), free_port()
    w = weir(yaml=at(port, admin), wait=False,
             under=[activate, "-l", "127.0.0.1:%d" % port, "-l", "127.0.0.1:%d" % admin])
    w.port, w.admin = port, admin
    eventually(lambda: w.log().count("Listening on") == 2)
    assert "weir 0" not in w.log()
    assert w.get("/a").body == b"hello"
    eventually(lambda: w.log_has("workers"))            # said once all of them serve
