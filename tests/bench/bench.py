"""What the benchmarks share: the servers under test, each in its best one-core configuration, wrk,
and CPU time from /proc.

Every server is pinned to one core and runs throughout; wrk (and, for misses, the origin) has the
other. Rounds go through the servers in turn, so that a drift of the machine meets all alike, and
ratios are taken within a round. wrk saturates before a bare loop does, so CPU time per request is
the figure that counts.
"""
import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TICK = os.sysconf("SC_CLK_TCK")

# With Host, twelve fields, as a browser sends them to an API.
HEADERS = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: application/json, text/plain, */*",
    "Accept-Language: en-GB,en;q=0.8,de;q=0.5,pt;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://www.example.org/recruiters/overview?page=3",
    "Origin: https://www.example.org",
    "X-Requested-With: XMLHttpRequest",
    "DNT: 1",
    "Sec-Fetch-Dest: empty",
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Site: same-origin",
]


def arguments(description, rounds=5, seconds=5):
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", default=os.path.join(HERE, "..", "..", "build", "weir"))
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=int, default=seconds)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", help="servers, by a comma")
    return parser


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A process pinned to a core, its configuration in a directory of its own."""

    def __init__(self, name, command, port, work, core=0, env=None):
        self.name, self.port = name, port
        self.log = os.path.join(work, name + ".log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["taskset", "-c", str(core)] + command, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(env or {})},
                                            start_new_session=True)
        self.url = "http://127.0.0.1:%d" % port
        for _ in range(600):
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url + "/warm", timeout=2).read()
                return
            time.sleep(0.05)
        self.stop()
        with open(self.log, encoding="utf-8", errors="replace") as f:
            raise SystemExit("%s does not answer:\n%s" % (name, f.read()))

    def pids(self):
        """The process and its descendants (nginx's worker, Varnish's child)."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    with open("/proc/%s/stat" % entry, encoding="latin-1") as f:
                        parents[int(entry)] = int(f.read().rpartition(")")[2].split()[1])
        mine = {self.process.pid}
        while True:
            more = {pid for pid, parent in parents.items() if parent in mine} - mine
            if not more:
                return mine
            mine |= more

    def cpu(self):
        """Seconds of user and system time so far."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                with open("/proc/%d/stat" % pid, encoding="latin-1") as f:
                    fields = f.read().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICK

    def rss(self):
        """Resident bytes of the process."""
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) * 1024

    def stop(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, sig)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
                return


class Bench:
    """A directory, the compiled helpers, and the servers, all gone at the end."""

    def __init__(self, options):
        self.options = options
        self.servers = {}
        self.helpers = []

    def __enter__(self):
        # Caches that are files lie in memory, as the others' do.
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.work = tempfile.mkdtemp(prefix="weir-bench-", dir=base)
        for name in ("bare", "load", "posts"):
            subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-pthread", "-o", self.path(name),
                            os.path.join(HERE, name + ".c")], check=True)
        return self

    def __exit__(self, *_):
        for server in list(self.servers.values()) + self.helpers:
            server.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.work, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def wanted(self, name):
        return not self.options.only or name in self.options.only.split(",")

    def origin(self, core, *fields):
        port = free_port()
        server = Server("origin", [self.path("bare"), str(port), *fields], port, self.work, core)
        self.helpers.append(server)
        return port

    def add(self, name, command, port, env=None):
        if self.wanted(name):
            self.servers[name] = Server(name, command, port, self.work, env=env)

    def bare(self, *fields):
        port = free_port()
        self.add("bare", [self.path("bare"), str(port), *fields], port)

    def haproxy(self, origin):
        port = free_port()
        self.add("haproxy", ["haproxy", "-db", "-f", self.write("haproxy.cfg", f"""
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option http-keep-alive
cache objects
    total-max-size 64
    max-object-size 65536
    max-age 3600
frontend clients
    bind 127.0.0.1:{port}
    default_backend origin
backend origin
    http-request cache-use objects
    http-response cache-store objects
    http-reuse always
    server one 127.0.0.1:{origin}
""")], port)

    def nginx(self, origin, cached=True):
        port = free_port()
        os.makedirs(self.path("nginx"), exist_ok=True)
        cache = """proxy_cache objects;
            proxy_cache_key $scheme$host$request_uri;""" if cached else ""
        self.add("nginx", ["nginx", "-p", self.work, "-e", "stderr", "-c", self.write("nginx.conf", f"""
daemon off;
worker_processes 1;
pid {self.work}/nginx.pid;
error_log stderr error;
user root;
events {{ worker_connections 4096; use epoll; multi_accept on; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 60s;
    open_file_cache max=100000 inactive=300s;
    open_file_cache_valid 300s;
    proxy_temp_path {self.work}/nginx/temp;
    client_body_temp_path {self.work}/nginx/body;
    fastcgi_temp_path {self.work}/nginx/fastcgi;
    uwsgi_temp_path {self.work}/nginx/uwsgi;
    scgi_temp_path {self.work}/nginx/scgi;
    proxy_cache_path {self.work}/nginx/cache levels=1:2 keys_zone=objects:64m max_size=2g
        inactive=1h use_temp_path=off;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            {cache}
        }}
    }}
}}
""")], port)

    def varnish(self, origin):
        port = free_port()
        os.makedirs(self.path("varnish"), exist_ok=True)
        self.add("varnish", ["varnishd", "-F", "-j", "none", "-n", self.path("varnish"),
                             "-a", "127.0.0.1:%d" % port, "-b", "127.0.0.1:%d" % origin,
                             "-s", "malloc,256m", "-t", "3600",
                             "-p", "thread_pools=1", "-p", "thread_pool_min=100",
                             "-p", "thread_pool_max=500"], port)

    def weir(self, origin, policy="cache-aside", memory="256MiB", name="weir", tiers=""):
        """tiers: more of `cache`, such as "redis: {...}"."""
        if not self.wanted(name):
            return
        if not os.access(self.options.weir, os.X_OK):
            print("no executable at %s: measuring the others" % self.options.weir)
            return
        port, admin = free_port(), free_port()
        self.add(name, [self.options.weir, "run", "-c", self.write(name + ".yaml", f"""
listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin}}}
workers: 1
log: {{level: warn}}
cache: {{memory: {memory}{tiers and ", " + tiers}}}
origins:
  bare: {{servers: ["http://127.0.0.1:{origin}"], pool: {{max: 256}}}}
routes:
  - {{path: /**, origin: bare, policy: {policy}}}
""")], port)
        self.servers[name].admin = admin

    # ---- measuring

    def wrk(self, server, path, script=None, core=1, seconds=None):
        """(requests a second, CPU microseconds a request)"""
        command = ["taskset", "-c", str(core), "wrk", "-t1", "-c%d" % self.options.connections,
                   "-d%ds" % (seconds or self.options.seconds)]
        for header in HEADERS:
            command += ["-H", header]
        if script:
            command += ["-s", script]
        before = server.cpu()
        out = subprocess.run(command + [server.url + path], capture_output=True, text=True,
                             check=True).stdout
        used = server.cpu() - before
        requests = int(re.search(r"(\d+) requests in", out)[1])
        if re.search(r"Non-2xx|Socket errors: .*(connect|read|write) [1-9]", out):
            print("%s: %s" % (server.name, out))
        return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), used * 1e6 / max(requests, 1)

    def rounds(self, path, script=None):
        """name -> list of (requests/s, us), a pair a round; a second of warming up before."""
        for server in self.servers.values():
            self.wrk(server, path, script, seconds=1)
        results = {name: [] for name in self.servers}
        for number in range(self.options.rounds):
            for name, server in self.servers.items():
                results[name].append(self.wrk(server, path, script))
            print("round %d: %s" % (number + 1, "  ".join(
                "%s %d/s %.2f us" % (name, *results[name][-1]) for name in results)), flush=True)
        return results


def ratio(results, name, other, column):
    return statistics.median(a[column] / b[column] for a, b in zip(results[name], results[other]))


def table(results, against):
    """Prints medians, and medians of the ratios within rounds."""
    print("\n%-10s %12s %14s" % ("", "requests/s", "CPU us/request") + "".join(
        "  %24s" % ("x %s: req/s, CPU" % other) for other in against if other in results))
    for name, pairs in results.items():
        line = "%-10s %12.0f %14.2f" % (name, statistics.median(p[0] for p in pairs),
                                        statistics.median(p[1] for p in pairs))
        for other in against:
            if other in results:
                line += "  %15.2f %8.2f" % (ratio(results, name, other, 0), ratio(results, name, other, 1))
        print(line)


def verdict(text, value, limit, at_most=True):
    """Prints one target; True when it is met."""
    good = value <= limit if at_most else value >= limit
    print("%s: %.2f, to reach: at %s %.2f -- %s" % (
        text, value, "most" if at_most else "least", limit, "met" if good else "NOT met"))
    return good


def finish(verdicts):
    sys.exit(0 if all(verdicts) else 1)
