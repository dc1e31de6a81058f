#!/usr/bin/python3
"""A small real service to stand behind Weir: recruiters, cities and interview slots over SQLite.

    origin.py [--listen 127.0.0.1] [--port 8000] [--db FILE] [--work-ms 50]

    GET    /api/recruiters  /api/recruiters/{id}
    GET    /api/cities      /api/cities/{id}
    GET    /api/slots[?city=ID]  /api/slots/{id}
    POST   to a list, PUT, PATCH and DELETE of an item, GET and HEAD /healthz

Reads carry ETag and Cache-Control, answer If-None-Match with 304, and cost --work-ms of honest
work: rounds of hashing over the rows, as a report or a permission check would cost. HTTP/1.1 with
keep-alive; a thread a connection, one SQLite connection a thread.
"""
import argparse
import hashlib
import json
import re
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

# table -> (columns that a client may set, seconds a reader may keep it)
TABLES = {
    "recruiters": (("name", "email", "city"), 300),
    "cities": (("name", "country"), 3600),
    "slots": (("city", "recruiter", "starts", "taken"), 30),
}

SCHEMA = """
CREATE TABLE cities (id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL);
CREATE TABLE recruiters (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL,
    city INTEGER REFERENCES cities(id));
CREATE TABLE slots (id INTEGER PRIMARY KEY, city INTEGER REFERENCES cities(id),
    recruiter INTEGER REFERENCES recruiters(id), starts TEXT NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0);
CREATE INDEX slots_of_city ON slots(city);
"""

CITIES = [("Berlin", "DE"), ("Lisbon", "PT"), ("Prague", "CZ"), ("Ghent", "BE"), ("Turku", "FI"),
          ("Lyon", "FR"), ("Graz", "AT"), ("Porto", "PT")]
PEOPLE = ["Ada Brandt", "Bruno Costa", "Clara Novak", "Dirk Peeters", "Elina Laine", "Fanny Roux",
          "Gregor Hofer", "Helena Dias", "Ivo Kral", "Jana Maes", "Kai Virtanen", "Lea Martin"]


def create(path):
    """The file with its rows, when it is not there yet."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name='slots'").fetchone():
        db.executescript(SCHEMA)
        db.executemany("INSERT INTO cities(name, country) VALUES (?, ?)", CITIES)
        db.executemany(
            "INSERT INTO recruiters(name, email, city) VALUES (?, ?, ?)",
            [(n, n.lower().replace(" ", ".") + "@example.org", i % len(CITIES) + 1)
             for i, n in enumerate(PEOPLE)])
        db.executemany(
            "INSERT INTO slots(city, recruiter, starts) VALUES (?, ?, ?)",
            [(i % len(CITIES) + 1, i % len(PEOPLE) + 1,
              "2027-%02d-%02dT%02d:00:00Z" % (i % 12 + 1, i % 28 + 1, 9 + i % 8))
             for i in range(400)])
        db.commit()
    db.close()


def rounds_for(ms):
    """How many rounds of hashing this machine does in ms."""
    start, rounds, block = time.perf_counter(), 2000, b"x" * 1024
    for _ in range(rounds):
        block = hashlib.sha256(block).digest() * 32
    return int(rounds * ms / 1000 / (time.perf_counter() - start))


class Problem(Exception):
    def __init__(self, status, detail):
        super().__init__(detail)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    version_string = lambda self: "demo-origin"     # noqa: E731
    disable_nagle_algorithm = True
    wbufsize = -1                               # head and body leave together
    local = threading.local()

    def db(self):
        if not hasattr(self.local, "db"):
            self.local.db = sqlite3.connect(self.server.path, timeout=5)
            self.local.db.row_factory = sqlite3.Row
        return self.local.db

    # ---- answers

    def answer(self, status, value=None, headers=()):
        body = b"" if value is None else (json.dumps(value, indent=1) + "\n").encode()
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        if status not in (204, 304):
            if value is not None:
                self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)
        self.wfile.flush()

    def handle_request(self):
        try:
            body = self.read_body()
            self.route(body)
        except Problem as p:
            self.answer(p.status, {"error": str(p)}, [("Cache-Control", "no-store")])
        except sqlite3.IntegrityError as e:
            self.answer(409, {"error": str(e)}, [("Cache-Control", "no-store")])

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

    def log_message(self, *_):
        pass

    # ---- requests

    def read_body(self):
        length = self.headers.get("Content-Length")
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                data += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
        else:
            data = self.rfile.read(int(length)) if length else b""
        if self.command not in ("POST", "PUT", "PATCH"):
            return None
        try:
            value = json.loads(data)
        except ValueError:
            raise Problem(400, "the body is not JSON") from None
        if not isinstance(value, dict):
            raise Problem(400, "the body is not a JSON object")
        return value

    def route(self, body):
        url = urlsplit(self.path)
        if url.path == "/healthz":
            return self.answer(200, {"status": "ok"}, [("Cache-Control", "no-store")])
        found = re.fullmatch(r"/api/(recruiters|cities|slots)(?:/(\d+))?", url.path)
        if not found:
            raise Problem(404, "no such resource")
        table, key = found[1], found[2]
        if self.command in ("GET", "HEAD"):
            return self.read(table, key, parse_qs(url.query))
        allowed = ("POST",) if key is None else ("PUT", "PATCH", "DELETE")
        if self.command not in allowed:
            return self.answer(405, {"error": "not here"},
                               [("Allow", ", ".join(("GET", "HEAD") + allowed))])
        return self.write(table, key, body)

    def read(self, table, key, query):
        if key is not None:
            rows = self.db().execute("SELECT * FROM %s WHERE id = ?" % table, (key,)).fetchall()
        elif table == "slots" and "city" in query:
            rows = self.db().execute("SELECT * FROM slots WHERE city = ? ORDER BY starts, id",
                                     (query["city"][0],)).fetchall()
        else:
            rows = self.db().execute("SELECT * FROM %s ORDER BY id" % table).fetchall()
        items = [dict(row) for row in rows]
        if key is not None and not items:
            raise Problem(404, "no such item")
        value = items[0] if key is not None else {"items": items}
        etag = '"%s"' % self.work(json.dumps(value).encode())
        headers = [("ETag", etag), ("Cache-Control", "max-age=%d" % TABLES[table][1])]
        given = self.headers.get("If-None-Match", "")
        if given.strip() == "*" or etag in [t.strip().removeprefix("W/") for t in given.split(",")]:
            return self.answer(304, None, headers)
        return self.answer(200, value, headers)

    def work(self, data):
        """The cost of a read; the ETag is of the data alone."""
        block = data
        for _ in range(self.server.rounds):
            block = hashlib.sha256(block).digest() * 32
        return hashlib.sha256(data).hexdigest()[:16]

    def write(self, table, key, body):
        db, columns = self.db(), TABLES[table][0]
        if body is not None:
            unknown = set(body) - set(columns) - {"id"}
            if unknown:
                raise Problem(400, "unknown: " + ", ".join(sorted(unknown)))
        if self.command == "POST":
            names = [c for c in columns if c in body]
            if not names:
                raise Problem(400, "nothing to set; known: " + ", ".join(columns))
            with db:
                key = db.execute("INSERT INTO %s(%s) VALUES (%s)" % (
                    table, ", ".join(names), ", ".join("?" * len(names))),
                    [body[n] for n in names]).lastrowid
            item = dict(db.execute("SELECT * FROM %s WHERE id = ?" % table, (key,)).fetchone())
            return self.answer(201, item, [("Location", "/api/%s/%d" % (table, key))])
        if not db.execute("SELECT 1 FROM %s WHERE id = ?" % table, (key,)).fetchone():
            raise Problem(404, "no such item")
        if self.command == "DELETE":
            with db:
                db.execute("DELETE FROM %s WHERE id = ?" % table, (key,))
            return self.answer(204)
        names = [c for c in columns if c in body or self.command == "PUT"]
        if names:
            with db:
                db.execute("UPDATE %s SET %s WHERE id = ?" % (
                    table, ", ".join(n + " = ?" for n in names)),
                    [body.get(n) for n in names] + [key])
        item = dict(db.execute("SELECT * FROM %s WHERE id = ?" % table, (key,)).fetchone())
        return self.answer(200, item)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


def main():
    parser = argparse.ArgumentParser(description="The demonstration origin")
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--db", default="demo.sqlite")
    parser.add_argument("--work-ms", type=float, default=50)
    options = parser.parse_args()
    create(options.db)
    server = Server((options.listen, options.port), Handler)
    server.path, server.rounds = options.db, rounds_for(options.work_ms)
    print("demo origin on http://%s:%d, %g ms a read" %
          (options.listen, options.port, options.work_ms), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
