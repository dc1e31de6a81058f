"""Real processes over real sockets: an origin that does what it is told, Weir, and a client.

A test is a function in tests/scenario/test_TOPIC.py whose name is a sentence. It takes the
fixtures `origin` (a fresh Origin) and `weir` (a factory that starts Weir in front of it):

    def test_a_second_read_is_answered_from_cache(origin, weir):
        origin.on("/a", body=b"hello", headers=[("Cache-Control", "max-age=60")])
        w = weir()                                  # one route: /** to the origin
        assert w.get("/a").body == b"hello"
        again = w.get("/a")
        assert again.status == 200
        assert again.cache_status.hit               # Cache-Status: weir; hit; ttl=..
        assert origin.count("/a") == 1

Configuration. weir() alone is listen, admin, one origin `api` and the route `/**`. Any top-level
key may be given; routes are dicts, and get `origin: api` when they name none:

        w = weir(routes=[{"path": "/api/{id}", "force_ttl": "1m"}, {"path": "/**", "policy": "pass"}],
                 cache={"memory": "16MiB"}, origins={"api": {"servers": [origin.url]}})
        w = weir(yaml="listen: ...")                # the whole file as text; {listen} {admin}
                                                    # {origin} are replaced by their addresses
        w = weir(listen={"timeout": {"idle": "1s"}})    # merged with the chosen address
        w = weir(origin={"pool": {"max": 1}}, args=None, env=None, wait=True)
        w = weir(under=["prlimit", "--nofile=64"], pass_fds=[])     # what execs it; what it inherits

The origin. origin.on(path, ...) with a fixed answer, bytes as they go over the wire, or a callable:

        origin.on("/b", status=404, body=b"no")                    # with Content-Length
        origin.on("/c", raw=b"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\nshort", close=True)
        def slowly(req, conn):                      # req.method .target .headers .body .raw
            conn.head(200, [("Cache-Control", "max-age=60")], chunked=True)
            conn.chunk(b"one")
            gate.wait()                             # gate = origin.gate(): an Event, opened at the end
            conn.chunk(b"two")
            conn.end()
        origin.on("/d", slowly)
        origin.on("/e", lambda req, conn: conn.reset())
        origin.on("/f", [first, second])            # one answer after the other; the last stays

    What is not set with on() is 404. Requests are in origin.requests; origin.of("/a") are those
    of one path (without query); origin.wait("/a", 2) returns when two have arrived. A handler
    runs in its connection's thread, so it may wait. origin.connections counts accepts.

The client. w.get(path, headers), w.request(method, path, headers, body) use a new connection and
check that the answer is well formed. w.client() is a connection that is kept:

        with w.client() as c:
            c.send(b"GET /a HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" * 3)   # pipelined
            answers = [c.response() for _ in range(3)]
            c.request("GET", "/a", [("Range", "bytes=0-1")])
            c.start("POST", "/up", [("Transfer-Encoding", "chunked")])   # the head only
            assert c.closed()                       # the peer ended the connection

        w.raw(b"...")                               # everything that comes back until the close
        w.api("POST", "/purge", {"url": "..."})     # the admin port; Response.json() reads answers

    Response: .status .reason .headers (list of pairs) .header(name, default) .all(name) .body
    .trailers .interim (Responses 1xx) .cache_status (.hit .fwd .stored .collapsed .ttl .params)
    .version .raw_head.

Many at once, with no sleep:

        answers = w.parallel(20, lambda i: w.get("/slow"), meanwhile=lambda: gate.set())

Waiting: eventually(lambda: w.log_has("drained")) polls until true, and fails after its time-out.

Redis: the fixture `redis` is a real server (class Redis), for weir(cache={"redis": {"url": redis.url}}).

A test that needs Weir's end: w.stop() sends SIGTERM and returns the exit status; the fixture
stops what is left, and fails the test on a crash, a non-zero status or a sanitizer's report.
w.kill() is a crash of ours; after either, w.start() begins again on the same ports and files.
"""
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import yaml as yaml_module

SLOW = 5.0 if os.environ.get("WEIR_SANITIZE") else 1.0     # sanitizers take their time
TIMEOUT = 10.0 * SLOW

BODILESS = {204, 304}

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)      # whom a Weir leaves behind is ours


def weir_binary():
    path = os.environ.get("WEIR") or os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "weir")
    if not os.access(path, os.X_OK):
        raise RuntimeError("no executable at %s: set WEIR to the path of the binary" % path)
    return os.path.abspath(path)


class _Ports:
    """A block of ports below those the kernel hands to clients, held by this process alone.

    That a port is free now does not keep another test process from taking it before Weir does, so
    each process first takes a block: the name of a block is a socket in the abstract namespace,
    which goes with the process that bound it. Within the block ports are handed out in turn.
    """
    SIZE, FIRST, BLOCKS = 200, 10000, 100

    def __init__(self):
        for block in range(self.BLOCKS):
            self.held = socket.socket(socket.AF_UNIX)
            try:
                self.held.bind("\0weir-tests-ports-%d" % block)
            except OSError:
                self.held.close()
                continue
            self.first = self.FIRST + block * self.SIZE
            self.next = 0
            return
        raise RuntimeError("every block of ports is taken")

    def take(self):
        for _ in range(self.SIZE):
            port = self.first + self.next % self.SIZE
            self.next += 1
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    continue
        raise RuntimeError("no free port")


_ports = None
_ports_lock = threading.Lock()


def free_port():
    """A free port that no other test process is handed."""
    global _ports
    with _ports_lock:
        _ports = _ports or _Ports()
        return _ports.take()


def eventually(condition, timeout=TIMEOUT, message=None):
    """Polls until condition() is true; its value is returned."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(message or "did not come true within %gs" % timeout)
        time.sleep(0.005)


# ---- messages --------------------------------------------------------------------------------

class Malformed(AssertionError):
    """A message that the strict reader refuses."""


class Closed(AssertionError):
    """The connection ended where a message was due; .got is what came before."""

    def __init__(self, text, got=b""):
        super().__init__("%s; got %r" % (text, got[:200]))
        self.got = got


class CacheStatus:
    """The member `weir` of Cache-Status (RFC 9211)."""

    def __init__(self, text):
        self.text = text
        self.params = {}
        for member in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', text or ""):
            parts = re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', member)
            if parts[0].strip().strip('"').lower() != "weir":
                continue
            self.params = {}
            for part in parts[1:]:
                name, eq, value = part.strip().partition("=")
                self.params[name] = value.strip('"') if eq else True
        self.hit = self.params.get("hit") is True
        self.stored = self.params.get("stored") is True
        self.collapsed = self.params.get("collapsed") is True
        self.fwd = self.params.get("fwd")
        self.detail = self.params.get("detail")
        self.ttl = int(self.params["ttl"]) if "ttl" in self.params else None

    def __repr__(self):
        return "CacheStatus(%r)" % self.text


class Message:
    """What a request and a response have in common: fields and a body."""

    def __init__(self, raw_head):
        self.raw_head = raw_head
        self.headers = []
        self.trailers = []
        self.body = b""
        lines = raw_head.decode("latin-1").split("\r\n")
        self.start_line = lines[0]
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
                raise Malformed("bad field line %r" % line)
            self.headers.append((name, value.strip(" \t")))

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def header(self, name, default=None):
        """The field's lines joined by a comma, or default."""
        values = self.all(name)
        return ", ".join(values) if values else default

    def json(self):
        return json.loads(self.body)


class Request(Message):
    def __init__(self, raw_head):
        super().__init__(raw_head)
        self.method, self.target, self.version = self.start_line.split(" ", 2)
        self.path, _, self.query = self.target.partition("?")
        self.raw = raw_head + b"\r\n\r\n"       # head and body as they came over the wire

    def __repr__(self):
        return "<%s %s>" % (self.method, self.target)


class Response(Message):
    def __init__(self, raw_head):
        super().__init__(raw_head)
        found = re.fullmatch(r"(HTTP/1\.[01]) (\d{3}) ([^\r\n]*)", self.start_line)
        if not found:
            raise Malformed("bad status line %r" % self.start_line)
        self.version, self.status, self.reason = found[1], int(found[2]), found[3]
        self.interim = []

    @property
    def cache_status(self):
        return CacheStatus(self.header("Cache-Status", ""))

    def __repr__(self):
        return "<Response %d %r %d bytes>" % (self.status, self.header("Cache-Status"), len(self.body))


class Wire:
    """Reads HTTP/1 messages from a socket, strictly, and keeps what is left over."""

    def __init__(self, sock):
        self.sock = sock
        self.buf = b""
        self.seen = b""                          # the raw bytes of the message being read

    def _fill(self, what):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            raise Closed("reset within %s" % what, self.buf) from None
        except socket.timeout:
            raise AssertionError("nothing came within %gs; waiting for %s, got %r" % (
                self.sock.gettimeout(), what, self.buf[:200])) from None
        if not data:
            raise Closed("closed within %s" % what, self.buf)
        self.buf += data

    def take(self, n, what="a body"):
        parts, have = [], 0
        while True:
            part = self.buf[:n - have]
            self.buf = self.buf[len(part):]
            parts.append(part)
            have += len(part)
            if have == n:
                break
            try:
                self._fill(what)
            except Closed as e:
                raise Closed("%s of %d bytes ended after %d" % (what, n, have), b"".join(parts)) from e
        data = b"".join(parts)
        self.seen += data
        return data

    def line(self, what="a line"):
        return self.until(b"\r\n", what)

    def until(self, end, what):
        while end not in self.buf:
            self._fill(what)
        data, _, self.buf = self.buf.partition(end)
        self.seen += data + end
        return data

    def to_close(self):
        with contextlib.suppress(Closed):
            while True:
                self._fill("a body until the close")
        data, self.buf = self.buf, b""
        self.seen += data
        return data

    def chunked(self, message):
        body = b""
        try:
            while True:
                line = self.line("a chunk size")
                size = line.split(b";")[0]
                if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size):
                    raise Malformed("bad chunk size %r" % line)
                if int(size, 16) == 0:
                    break
                body += self.take(int(size, 16), "a chunk")
                if self.take(2, "a chunk's end") != b"\r\n":
                    raise Malformed("no CRLF after a chunk")
            while True:
                line = self.line("trailers")
                if not line:
                    break
                name, _, value = line.decode("latin-1").partition(":")
                message.trailers.append((name, value.strip()))
        except Closed as e:
            raise Closed(str(e), body + e.got) from e
        return body

    def length(self, message):
        values = message.all("Content-Length")
        if not values:
            return None
        if len(values) > 1 or not values[0].isdigit():
            raise Malformed("Content-Length %r" % values)
        if message.all("Transfer-Encoding"):
            raise Malformed("both Content-Length and Transfer-Encoding")
        return int(values[0])

    def response(self, method="GET"):
        """The next final response; a body that is cut short raises Closed."""
        interim = []
        while True:
            head = self.until(b"\r\n\r\n", "a response head")
            r = Response(head)
            if r.status >= 200 or r.status == 101:
                break
            interim.append(r)
        r.interim = interim
        length, coding = self.length(r), r.header("Transfer-Encoding")
        if method == "HEAD" or r.status in BODILESS or r.status == 101:
            if coding and r.status == 204:
                raise Malformed("204 with Transfer-Encoding")
        elif coding is not None:
            if coding.lower() != "chunked" or r.version != "HTTP/1.1":
                raise Malformed("Transfer-Encoding %r in %s" % (coding, r.version))
            r.body = self.chunked(r)
        elif length is not None:
            r.body = self.take(length)
        else:
            r.body = self.to_close()
        return r


# ---- the client ------------------------------------------------------------------------------

def head_bytes(method, target, headers, host, version="HTTP/1.1"):
    lines = ["%s %s %s" % (method, target, version)]
    if host and not any(n.lower() == "host" for n, _ in headers):
        lines.append("Host: " + host)
    lines += ["%s: %s" % pair for pair in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def pairs(headers):
    return list(headers.items()) if isinstance(headers, dict) else list(headers or [])


class Client:
    """One connection to Weir."""

    def __init__(self, port, host=None, timeout=TIMEOUT, rcvbuf=None):
        self.host = host or "127.0.0.1:%d" % port
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = Wire(self.sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def start(self, method, target, headers=(), version="HTTP/1.1"):
        """Sends a head and leaves the body to send()."""
        self.send(head_bytes(method, target, pairs(headers), self.host, version))

    def request(self, method, target, headers=(), body=None, version="HTTP/1.1"):
        headers = pairs(headers)
        if body is not None and not any(
                n.lower() in ("content-length", "transfer-encoding") for n, _ in headers):
            headers.append(("Content-Length", str(len(body))))
        self.send(head_bytes(method, target, headers, self.host, version) + (body or b""))
        return self.response(method)

    def get(self, target, headers=()):
        return self.request("GET", target, headers)

    def response(self, method="GET"):
        return self.wire.response(method)

    def closed(self):
        """True when the peer ends the connection with nothing more to say."""
        if self.wire.buf:
            return False
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


# ---- the origin ------------------------------------------------------------------------------

class OriginConn:
    """What a handler answers with."""

    def __init__(self, origin, sock, number):
        self.origin, self.sock, self.number = origin, sock, number
        self.keep = True                         # set to False to close after this answer
        self.bodiless = False
        self.is_chunked = False

    def send(self, data):
        self.sock.sendall(data)

    def head(self, status=200, headers=(), chunked=False, length=None, reason="OK"):
        lines = ["HTTP/1.1 %d %s" % (status, reason)] + ["%s: %s" % p for p in pairs(headers)]
        names = {n.lower() for n, _ in pairs(headers)}
        if "date" not in names:
            lines.append("Date: " + http_date())
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        elif length is not None:
            lines.append("Content-Length: %d" % length)
        self.is_chunked = chunked
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self, trailers=()):
        self.send(b"0\r\n" + "".join("%s: %s\r\n" % p for p in trailers).encode() + b"\r\n")

    def respond(self, status=200, headers=(), body=b"", reason="OK"):
        """A whole answer with its Content-Length, unless the headers frame it already."""
        names = {n.lower() for n, _ in pairs(headers)}
        framed = names & {"content-length", "transfer-encoding"} or status in BODILESS or status < 200
        self.head(status, headers, length=None if framed else len(body), reason=reason)
        if not self.bodiless and status not in BODILESS:
            self.send(body)

    def interim(self, status, headers=(), reason="Interim"):
        lines = ["HTTP/1.1 %d %s" % (status, reason)] + ["%s: %s" % p for p in pairs(headers)]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def close(self):
        self.keep = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def reset(self):
        self.keep = False
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def http_date(offset=0):
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + offset))


class Origin:
    """A scriptable HTTP/1.1 origin; a thread a connection."""

    def __init__(self, port=0, handlers=()):
        self.handlers = dict(handlers)
        self.requests = []
        self.connections = 0
        self.errors = []                         # exceptions of handlers; the fixture raises them
        self.arrived = threading.Condition()
        self.gates = []
        self.socks = set()
        self.newest = None                       # whom it accepted last
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port or free_port()))
        self.listener.listen(512)
        self.port = self.listener.getsockname()[1]
        self.url = "http://127.0.0.1:%d" % self.port
        self.stopping = False
        threading.Thread(target=self._accept, daemon=True).start()

    # -- scripting

    def on(self, path, handler=None, status=200, headers=(), body=b"", raw=None, close=False,
           reason="OK"):
        """Sets the answer of a path (without its query); "*" is every path not named."""
        if isinstance(body, str):
            body = body.encode()
        if raw is not None:
            handler = lambda req, conn: conn.send(raw)              # noqa: E731
        elif handler is None:
            handler = lambda req, conn: conn.respond(status, headers, body, reason)   # noqa: E731
        if close:
            inner = handler
            handler = lambda req, conn: (inner(req, conn), conn.close())              # noqa: E731
        self.handlers[path] = handler

    def gate(self):
        """An Event for handlers to wait on; it is set at the latest when the test ends."""
        gate = threading.Event()
        self.gates.append(gate)
        return gate

    # -- what came

    def of(self, path):
        with self.arrived:
            return [r for r in self.requests if r.path == path]

    def count(self, path=None):
        with self.arrived:
            return len([r for r in self.requests if path is None or r.path == path])

    def last(self, path):
        return self.of(path)[-1]

    def wait(self, path, n=1, timeout=TIMEOUT):
        """Returns the requests for path once there are n of them."""
        with self.arrived:
            ok = self.arrived.wait_for(
                lambda: len([r for r in self.requests if r.path == path]) >= n, timeout)
        got = self.of(path)
        assert ok, "%d of %d requests for %s within %gs" % (len(got), n, path, timeout)
        return got

    # -- running

    def _accept(self):
        while not self.stopping:
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.socks.add(sock)
            self.newest = peer
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _read(self, wire, conn):
        """One request; handlers that want the body later set `early` on themselves."""
        wire.seen = b""
        req = Request(wire.until(b"\r\n\r\n", "a request head"))
        handler = self._handler(req)
        if not getattr(handler, "early", False):
            self.read_body(wire, conn, req)
        return req, handler

    def read_body(self, wire, conn, req):
        if (req.header("Expect") or "").lower() == "100-continue":
            conn.interim(100, reason="Continue")
        length = wire.length(req)
        if req.header("Transfer-Encoding", "").lower() == "chunked":
            req.body = wire.chunked(req)
        elif length:
            req.body = wire.take(length)
        req.raw = wire.seen

    def _handler(self, req):
        handler = self.handlers.get(req.path, self.handlers.get("*"))
        if isinstance(handler, list):
            with self.arrived:
                handler = handler.pop(0) if len(handler) > 1 else handler[0]
        if handler is None:
            return lambda q, c: c.respond(404, body=b"no handler\n", reason="Not Found")
        return handler

    def _serve(self, sock, number):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire, conn = Wire(sock), OriginConn(self, sock, number)
        conn.wire = wire
        try:
            while conn.keep and not self.stopping:
                req, handler = self._read(wire, conn)
                req.conn, req.at = number, time.monotonic()
                conn.bodiless = req.method == "HEAD"
                with self.arrived:
                    self.requests.append(req)
                    self.arrived.notify_all()
                handler(req, conn)
        except (Closed, OSError):
            pass                                 # Weir went away: its right
        except Exception as e:                   # a bad request, or a handler's assertion
            self.errors.append(e)
        finally:
            self.socks.discard(sock)
            sock.close()

    def idle(self):
        """Waits until no connection is open: whatever was sent by who is gone has been read. They are
        accepted in their order, so none waits for that any more when one of ours was."""
        if not self.stopping:
            with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as mine:
                eventually(lambda: self.newest == mine.getsockname(), message="nothing is accepted")
        eventually(lambda: not self.socks, message="connections stayed open")

    def kill_connections(self):
        for sock in list(self.socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def stop(self):
        """Stops listening and ends every connection, so that connects are refused."""
        self.stopping = True
        for gate in self.gates:
            gate.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.kill_connections()


# ---- Weir ------------------------------------------------------------------------------------

def configuration(port, admin_port, origin_url, **keys):
    """The YAML of a test: the chosen addresses, one origin, one route, and what the test gives."""
    conf = {"listen": "127.0.0.1:%d" % port, "admin": {"listen": "127.0.0.1:%d" % admin_port},
            "workers": 2, "origins": {"api": {"servers": [origin_url]}},
            "routes": [{"path": "/**"}]}
    listen = keys.pop("listen", None)
    if isinstance(listen, dict):
        conf["listen"] = {"address": conf["listen"], **listen}
    elif listen is not None:
        conf["listen"] = listen
    conf["admin"].update(keys.pop("admin", {}))
    if "origin" in keys:                         # settings of the one origin
        conf["origins"]["api"].update(keys.pop("origin"))
    conf.update(keys)
    conf["routes"] = [r if "origin" in r else {**r, "origin": "api"} for r in conf["routes"]]
    return yaml_module.safe_dump(conf, sort_keys=False)


class Successor:
    """A process that another one has started, and left to us at its end: as subprocess.Popen."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:           # not ours yet
                return None
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=TIMEOUT):
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("process %d" % self.pid, timeout)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, sig):
        os.kill(self.pid, sig)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Weir:
    """A Weir process; started and ready when the constructor returns."""

    def __init__(self, origin_url=None, yaml=None, args=None, env=None, wait=True, directory=None,
                 under=(), pass_fds=(), program=None, **keys):
        self.pass_fds = pass_fds
        self.directory = directory or tempfile.mkdtemp(prefix="weir-test-")
        self.port, self.admin = free_port(), free_port()
        self.url = "http://127.0.0.1:%d" % self.port
        self.admin_url = "http://127.0.0.1:%d" % self.admin
        self.host = "127.0.0.1:%d" % self.port
        self.origin_url = origin_url
        self.stderr = os.path.join(self.directory, "stderr")
        self.config = os.path.join(self.directory, "weir.yaml")
        self.write_config(yaml, **keys)
        command = [program or weir_binary()] + (args if args is not None else ["run", "-c", self.config])
        # ThreadSanitizer sleeps for a second at the end, for threads that are left: none of ours is.
        self.environment = {**os.environ, "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1",
                            "UBSAN_OPTIONS": "print_stacktrace=1",
                            "TSAN_OPTIONS": "exitcode=66:atexit_sleep_ms=0", **(env or {})}
        self.command = [*under, *command]
        self.start(wait)

    def start(self, wait=True):
        """Begins it; after stop() or kill() again, on the same ports and files."""
        self.status, self.upgrades = None, 0
        with open(self.stderr, "ab") as err:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                env=self.environment, cwd=self.directory, pass_fds=self.pass_fds)
        self.pid = self.process.pid
        if wait:
            self.wait_ready()

    def kill(self):
        """Ends it as a crash does; not before it was found running."""
        assert self.process.poll() is None, "weir had ended already:\n" + self.log()
        self.process.kill()
        self.status = self.process.wait()

    def pause(self):
        """SIGSTOP; every thread stands still when it returns. resume() goes on."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = "/proc/%d/task" % self.pid
        eventually(lambda: all(open("%s/%s/stat" % (tasks, t)).read().rpartition(")")[2].split()[0]
                               == "T" for t in os.listdir(tasks)))

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def write_config(self, yaml=None, **keys):
        """Also for reloads: write, then reload()."""
        if yaml is None:
            yaml = configuration(self.port, self.admin, self.origin_url or "http://127.0.0.1:9", **keys)
        else:
            for name, value in (("{listen}", "127.0.0.1:%d" % self.port),
                                ("{admin}", "127.0.0.1:%d" % self.admin),
                                ("{origin}", self.origin_url or "")):
                yaml = yaml.replace(name, value)
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(yaml)

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError("weir ended with %s:\n%s" % (self.process.returncode, self.log()))
            try:
                with Client(self.admin, timeout=1.0 * SLOW) as c:
                    return c.get("/readyz").status == 200
            except (OSError, AssertionError):
                return False
        try:
            eventually(ready, timeout=TIMEOUT, message="weir was not ready in time")
        except AssertionError as e:
            self.process.kill()
            raise AssertionError("%s\n%s\n%s" % (e, open(self.config).read(), self.log())) from None

    # -- requests

    def client(self, **options):
        return Client(self.port, **options)

    def request(self, method, target, headers=(), body=None, version="HTTP/1.1"):
        with self.client() as c:
            return c.request(method, target, headers, body, version)

    def get(self, target, headers=()):
        return self.request("GET", target, headers)

    def post(self, target, body=b"", headers=()):
        return self.request("POST", target, headers, body)

    def raw(self, data, half_close=False, timeout=TIMEOUT):
        """Sends bytes; gives everything that comes back until Weir ends the connection."""
        with self.client(timeout=timeout) as c:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                c.send(data)
                if half_close:
                    c.half_close()
            return c.wire.to_close()

    def api(self, method, target, body=None, headers=()):
        """The admin port; a dict or list as body goes as JSON."""
        headers = pairs(headers)
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.append(("Content-Type", "application/json"))
        with Client(self.admin) as c:
            return c.request(method, target, headers, body)

    def purge(self, **what):
        r = self.api("POST", "/purge", what)
        assert r.status in (200, 202), (r, r.body)
        return r.json()

    def stats(self):
        return self.api("GET", "/stats").json()

    def metric(self, name, **labels):
        """The sum of a metric's samples in /metrics whose labels include the given ones."""
        total, found = 0.0, False
        for line in self.api("GET", "/metrics").body.decode().splitlines():
            m = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if not m or m[1] != name:
                continue
            have = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[2] or ""))
            if all(have.get(k) == v for k, v in labels.items()):
                total, found = total + float(m[3]), True
        assert found, "no sample of %s%r in /metrics" % (name, labels)
        return total

    def parallel(self, n, call, meanwhile=None):
        """The results of call(0..n-1) in n threads; meanwhile() runs once all have begun."""
        barrier = threading.Barrier(n + 1)

        def one(i):
            barrier.wait()
            return call(i)
        with ThreadPoolExecutor(n) as pool:
            futures = [pool.submit(one, i) for i in range(n)]
            barrier.wait()
            if meanwhile:
                meanwhile()
            return [f.result() for f in futures]

    # -- the process

    def cli(self, *args, env=None, stdin=None):
        """Another command of the binary, such as cli("purge", "--admin", w.admin_url, "--all")."""
        return run_cli(*args, env=env, stdin=stdin)

    def upgrade(self):
        """SIGUSR2; w.process is the new one when it serves, and what is returned the old one."""
        self.process.send_signal(signal.SIGUSR2)
        return self.upgraded()

    def upgraded(self, failures=0):
        """The same, after the signal. failures: that were seen before."""
        served = []

        def serves():
            served[:] = re.findall(r"upgrade: process (\d+) serves", self.log())
            assert self.log().count("upgrade failed") == failures, self.log()
            return len(served) > self.upgrades
        eventually(serves, timeout=3 * TIMEOUT)
        was, self.process = self.process, Successor(int(served[self.upgrades]))
        self.upgrades += 1
        self.pid = self.process.pid
        return was

    def reload(self):
        """SIGHUP; the caller awaits the effect."""
        self.process.send_signal(signal.SIGHUP)

    def log(self):
        with open(self.stderr, encoding="utf-8", errors="replace") as f:
            return f.read()

    def log_has(self, text):
        return text in self.log()

    def rss(self):
        with open("/proc/%d/status" % self.pid) as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) * 1024

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self, sig=signal.SIGTERM, timeout=3 * TIMEOUT):
        """Ends it; the exit status. Fails on a sanitizer's report."""
        if self.status is None:
            if self.process.poll() is None:
                self.process.send_signal(sig)
            try:
                self.status = self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError("weir did not end within %gs\n%s" % (timeout, self.log())) from None
            report = re.search(
                r"(ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:|Assertion .* failed)",
                self.log())
            assert not report, "a sanitizer or an assertion spoke:\n" + self.log()
        return self.status


class Redis:
    """A redis-server on a free port.

        redis.url                       # redis://127.0.0.1:PORT, for cache.redis.url
        redis.call("XLEN", "weir:purges")
        redis.pause(); redis.resume()   # SIGSTOP, SIGCONT
        redis.kill(); redis.start()     # with what it has on disk; start(empty=True): without
    """

    def __init__(self, directory, *options, host="127.0.0.1", under=()):
        self.directory, self.host, self.port = directory, host, free_port()
        self.url = "redis://%s:%d" % (host, self.port)
        self.options, self.under = options, under   # under: what execs it
        self.process = None
        self.start()

    def start(self, empty=False):
        if empty:
            shutil.rmtree(os.path.join(self.directory, "appendonlydir"), ignore_errors=True)
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [*self.under, "redis-server", "--port", str(self.port), "--bind", self.host, "--save", "",
                 "--appendonly", "yes", "--appendfsync", "always", "--dir", self.directory,
                 *self.options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self.answers, message="redis-server did not answer")

    def answers(self):
        assert self.process.poll() is None, "redis-server ended"
        try:
            return self.call("PING") == "PONG"
        except (OSError, AssertionError):
            return False

    def call(self, *words):
        """One command on a connection of its own; its reply. An error is raised."""
        with socket.create_connection((self.host, self.port), TIMEOUT) as s:
            words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
            s.sendall(b"*%d\r\n" % len(words) + b"".join(
                b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            return self._reply(s.makefile("rb"))

    def _reply(self, f):
        line = f.readline()
        assert line.endswith(b"\r\n"), "redis-server ended the connection"
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise AssertionError(rest.decode())
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if int(rest) < 0:
            return None
        if kind == b"$":
            return f.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
        return [self._reply(f) for _ in range(int(rest))]

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process.poll() is None:
            self.kill()


class Relay:
    """In front of a server on that port: carry(a, b, asks) moves what comes on a to b, on a thread of
    its own for each way; asks: it comes from the client."""

    def __init__(self, port):
        self.to, self.sockets = port, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "redis://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                here = self.listener.accept()[0]
                there = socket.create_connection(("127.0.0.1", self.to))
                self.sockets += [here, there]
                for ends in (here, there, True), (there, here, False):
                    threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def end(self):
        for s in [self.listener, *self.sockets]:
            s.close()


class Sentinel(Redis):
    """A redis-sentinel, alone, that watches the server on `port` under that name."""

    def __init__(self, directory, name, port):
        self.watched = (name, port)
        super().__init__(directory)

    def start(self, empty=False):
        path = os.path.join(self.directory, "sentinel.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write("port %d\nbind 127.0.0.1\nsentinel monitor %s 127.0.0.1 %d 1\n"
                    "sentinel down-after-milliseconds %s 500\n"
                    "sentinel failover-timeout %s 3000\n" % (
                        self.port, *self.watched, self.watched[0], self.watched[0]))
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", path, "--sentinel"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self.answers, message="redis-sentinel did not answer")
        eventually(lambda: self.call("SENTINEL", "REPLICAS", self.watched[0]),
                   timeout=3 * TIMEOUT, message="redis-sentinel found no replica")


class Cluster:
    """Masters, each with so many replicas: .servers is a list of Redis.

        c.master("weir:purges")         # the server that has the key now
        c.move(slot, to, meanwhile)     # meanwhile() runs with the keys moved and the slot not yet
    """

    def __init__(self, directory, masters=3, replicas=0):
        self.directory, self.servers = directory, []
        for i in range(masters * (1 + replicas)):
            path = os.path.join(directory, "node%d" % i)
            os.mkdir(path)
            self.servers.append(Redis(path, "--cluster-enabled", "yes", "--cluster-announce-ip",
                                      "127.0.0.1", "--cluster-node-timeout", "1000",
                                      "--repl-diskless-sync-delay", "0"))
        subprocess.run(["redis-cli", "--cluster", "create", "--cluster-replicas", str(replicas),
                        "--cluster-yes", *("127.0.0.1:%d" % s.port for s in self.servers)],
                       check=True, capture_output=True)
        self.urls = [s.url for s in self.servers]
        eventually(lambda: all(self.sees_all(s) for s in self.servers), timeout=6 * TIMEOUT,
                   message="the cluster did not form")

    def sees_all(self, server):
        return "cluster_state:ok" in server.call("CLUSTER", "INFO") and all(
            "connected" in words for words in self.nodes(server)) and (
                server.call("ROLE")[0] == "master" or server.call("ROLE")[3] == "connected")

    @staticmethod
    def nodes(server):
        return [line.split() for line in server.call("CLUSTER", "NODES").splitlines()]

    def at(self, port):
        return next(s for s in self.servers if s.port == port)

    def alive(self):
        return [s for s in self.servers if s.process.poll() is None]

    def masters(self):
        return [s for s in self.alive() if s.call("ROLE")[0] == "master"]

    def master(self, key):
        """As the others see it, too."""
        try:
            slot = self.alive()[0].call("CLUSTER", "KEYSLOT", key)
            found = {s[2][1] for server in self.alive() for s in server.call("CLUSTER", "SLOTS")
                     if s[0] <= slot <= s[1]}
        except AssertionError:          # the cluster is down
            return None
        port, = found if len(found) == 1 else (None,)
        return self.at(port) if port in [s.port for s in self.alive()] else None

    def move(self, slot, source, target, meanwhile):
        ids = {s: s.call("CLUSTER", "MYID") for s in (source, target)}
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        meanwhile()
        for s in (target, source, *self.masters()):
            s.call("CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    def end(self):
        for s in self.servers:
            s.end()


def run_cli(*args, env=None, stdin=None, timeout=TIMEOUT):
    """Runs `weir ARGS` to its end: .returncode, .stdout, .stderr (text)."""
    return subprocess.run([weir_binary(), *args], capture_output=True, text=True, timeout=timeout,
                          input=stdin, env={**os.environ, **(env or {})}, check=False)


def check(text, tmp_path, **env):
    """`weir check` on a configuration given as text."""
    path = os.path.join(str(tmp_path), "checked.yaml")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return run_cli("check", "-c", path, env=env)
