"""weir top: the figures on a terminal, through a real pty."""
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios

import pytest

import harness
from harness import eventually

pyte = pytest.importorskip("pyte")


class Screen:
    """weir top on a terminal of its own, and what a person sees there."""

    def __init__(self, w, *args, columns=80, lines=24, term="xterm-256color"):
        self.admin = w.admin
        self.master, self.tty = pty.openpty()
        self.size(columns, lines, tell=False)
        self.before = termios.tcgetattr(self.tty)
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.bytes = b""
        self.process = subprocess.Popen(
            [harness.weir_binary(), "top", "--admin", "http://127.0.0.1:%d" % w.admin, *args],
            stdin=self.tty, stdout=self.tty, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": term, "LC_ALL": "C.UTF-8"})

    def size(self, columns, lines, tell=True):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if tell:
            self.screen.resize(lines, columns)

    def read(self):
        while select.select([self.master], [], [], 0.05)[0]:
            try:
                got = os.read(self.master, 65536)
            except OSError:
                break
            self.bytes += got
            self.stream.feed(got)
        return [line.rstrip() for line in self.screen.display]

    def shows(self, *texts):
        def all_there():
            lines = self.read()
            return all(any(t in line for line in lines) for t in texts)
        eventually(all_there, message="%r in\n%s" % (texts, "\n".join(self.screen.display)))
        return self.read()

    def shows_not(self, text):
        eventually(lambda: not any(text in line for line in self.read()), message="no %r" % text)

    def keys(self, text):
        os.write(self.master, text.encode())

    def ended(self):
        """Its exit status, with the terminal as it was: what was set, and the screen of before."""
        eventually(lambda: self.read() is not None and self.process.poll() is not None)
        self.read()
        assert termios.tcgetattr(self.tty) == self.before
        if b"\x1b[?1049h" in self.bytes:
            assert b"\x1b[?1049l" in self.bytes
        os.close(self.tty)
        os.close(self.master)
        return self.process.returncode


@pytest.fixture
def w(origin, weir):
    origin.on("/a", body=b"hello", headers=[("Cache-Control", "max-age=60")])
    w = weir(routes=[{"path": "/a", "name": "alpha"}, {"path": "/**", "name": "über/{rest}"}])
    for _ in range(9):
        w.get("/a")
    w.get("/none")
    return w


def rows(lines):
    """The table's: route and outcome."""
    first = next(i for i, line in enumerate(lines) if line.startswith("ROUTE")) + 1
    end = next(i for i, line in enumerate(lines) if line.startswith("ORIGIN"))
    return [tuple(line.split()[:2]) for line in lines[first:end] if line]


def test_it_shows_routes_origins_tiers_and_obeys_keys(w):
    s = Screen(w)
    lines = s.shows("alpha", "hits 80.0 %", "memory 1 objects", "no journal", "api http://127.0.0.1")
    assert max(len(line) for line in lines) <= 80 and "OUTCOME" in "".join(lines)
    assert ("alpha", "hit") == rows(lines)[0]                   # the most requests
    assert set(rows(lines)) == {("alpha", "hit"), ("alpha", "miss"), ("über/{rest}", "miss")}
    hit = next(line for line in lines if line.startswith("alpha") and " hit " in line).split()
    assert hit[3] == "88.9" and all(float(n) > 0 for n in hit[4:])  # of its route; percentiles
    s.keys("r")
    s.shows("r backwards")
    assert rows(s.read())[-1] == ("alpha", "hit")
    s.keys("rsssss")
    s.shows("ROUTE (sorted)")
    assert rows(s.read())[0] == ("alpha", "hit")
    s.keys("/alp")
    s.shows("filter: alp_")
    s.keys("\r")
    s.shows("2 rows", "filter:alp")
    s.shows_not("über")
    s.keys("/\x7f\x7f\x7füb")
    s.shows("filter: üb_")
    s.keys("er\r")
    s.shows("1 rows", "filter:über")
    s.keys("/" + 4 * "\x7f" + "\r")
    s.shows("alpha", "3 rows")
    s.keys("v")
    s.shows("SLOWEST REQUESTS", " 404 miss ", "GET 127.0.0.1:%d/none  über/{rest}  " % w.port)
    s.keys("v")
    s.shows("LAST PURGES")
    w.api("POST", "/purge", {"tags": ["one", "\x1b]0;x"], "prefix": "http://x/"})
    s.shows("hard           0  ", "tag one, tag ?]0;x")
    s.keys("v")
    s.shows("api http://127.0.0.1")
    s.keys("p")
    s.shows("PAUSED")
    s.keys("pw")
    s.shows("last 1m")
    s.shows_not("PAUSED")
    s.keys("q")
    assert s.ended() == 0


def test_it_draws_on_windows_of_any_size(w):
    s = Screen(w, columns=132, lines=50)
    s.shows("alpha", "ORIGIN")
    for columns, lines in ((40, 8), (14, 4), (1, 1), (200, 60)):
        s.size(columns, lines)
        s.read()
    s.size(80, 24)
    assert len(rows(s.shows("alpha", "ORIGIN", "q quit"))) == 3
    s.keys("q")
    assert s.ended() == 0


def test_it_outlives_the_server_and_says_so(w):
    s = Screen(w)
    s.shows("alpha")
    w.stop()
    s.shows("connection lost, trying again", "alpha")           # with what was known
    w.start()
    s.shows("connected again: the server was restarted")
    w.get("/a")
    s.shows("hits 0.0 %")
    w.kill()
    s.shows("connection lost, trying again")
    s.keys("q")
    assert s.ended() == 0
    w.start()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGABRT])
def test_a_signal_gives_the_terminal_back(w, sent):
    s = Screen(w)
    s.shows("alpha")
    s.process.send_signal(sent)
    assert s.ended() == (-signal.SIGABRT if sent == signal.SIGABRT else 0)


def test_what_cannot_be_shown_is_said_as_other_commands_say_it(w):
    s = Screen(w, term="no-such-terminal")
    assert s.ended() == 1 and b"this terminal (TERM) is not known" in s.process.stderr.read()
    none = w.cli("top")
    assert none.returncode == 2 and "a terminal is wanted" in none.stderr
    assert w.cli("top", "--sort", "colour").returncode == 2
    w.stop()
    s = Screen(w)
    assert s.ended() == 1 and b"Is weir running" in s.process.stderr.read()
    w.start()
