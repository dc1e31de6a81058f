"""Figures that are the same each time, for pictures: a day on which everything happened.

script() is what a page runs before its own scripts: its requests for figures are answered with
these, all others by Weir. READ is true once the page has read all of them.
"""
import json
import math

NOW_MS = 1767268800000                  # 2026-01-01 12:00:00
SECONDS = 120                           # of a live stream, behind five minutes of past
BASE = {"hit": (820, 24), "miss": (64, 9400), "collapsed": (9, 7100), "revalidated": (12, 4300),
        "stale": (3, 30), "pass": (18, 21000), "accepted": (6, 2600), "error": (0.4, 380)}
SPREAD = {"p50_us": 1, "p75_us": 1.6, "p90_us": 3, "p95_us": 5, "p99_us": 14, "p999_us": 40, "max_us": 90}
PATHS = ["/api/recruiters/{id}", "/api/recruiters", "/api/jobs/{id}", "/api/jobs", "/api/search", "/api/events",
         "/assets/**", "/graphql", "/v2/tenants/{tenant}/users/{id}", "/v2/tenants/{tenant}/invoices", "/feed", "/**"]


def figures(outcome, at, share=1.0):
    rate, us = BASE[outcome]
    rate *= share * (1 + 0.25 * math.sin(at / 47 + us) + 0.05 * math.sin(at / 6 + us))
    us *= 1 + 0.3 * math.sin(at / 31 + BASE[outcome][0]) + 0.05 * math.sin(at / 4)
    out = {"count": int(rate * 10) + 1, "rate": round(rate, 3)}
    out.update((name, int(us * f)) for name, f in SPREAD.items())
    return out


def windows(outcome, at, share):
    f = figures(outcome, at, share)
    return {"bytes": int(f["rate"] * 52000) + at * 900, "10s": f, "1m": figures(outcome, at - 20, share)}


def entry(at, share, outcomes):
    of = {o: windows(o, at, share) for o in outcomes}
    return {"outcomes": of, "bytes": sum(o["bytes"] for o in of.values())}


def routes(at):
    out = []
    for i, path in enumerate(PATHS):
        outcomes = ["accepted"] if path == "/api/events" else ["pass"] if path == "/graphql" else ["hit", "miss"]
        outcomes += ["error"] if i == 4 else []
        out.append({"name": path, **entry(at, 0.4 / (i + 1), outcomes)})
    return out


def stats(at):
    names = ("requests client_bytes_out cache_hits cache_stale cache_misses cache_stores cache_evictions disk_hits "
             "disk_misses disk_stores disk_evictions redis_hits redis_misses redis_stores writes_accepted "
             "writes_attempts writes_delivered writes_retried purges purged_objects bus_applied").split()
    f = {"count": 640, "rate": 64, "p50_us": 180, "p95_us": 24000, "p99_us": 91000, "max_us": 400000}
    origins = ["http://10.0.0.11:8000", "http://10.0.0.12:8000", "http://10.0.0.13:8000"]
    return {
        "version": "last" if at == SECONDS else "0.1.0", "now_ms": NOW_MS + at * 1000, "uptime_s": 93784 + at,
        "process": {"resident_bytes": 412 << 20, "cpu_s": 812.4, "fds": 318, "threads": 9},
        "counters": {n: at * (7 * len(n) + i) * (90000 if "bytes" in n else 1) for i, n in enumerate(names)},
        "gauges": {"client_connections": 214, "origin_connections": 61, "cache_objects": 48211,
                   "cache_memory": 201 << 20, "cache_memory_limit": 256 << 20},
        "total": entry(at, 1, BASE), "routes": routes(at),
        "origins": [{"name": "api/" + o, "connect": {"1m": f, "10s": f}, "first_byte": {"1m": f, "10s": f},
                     "total": {"1m": f, "10s": f}} for o in origins[:2]],
        "pools": [{"origin": "api", "server": o, "connections": c, "busy": b, "idle": c - b, "waiting": w, "max": 100,
                   "ejected": int(i == 2), "failures": x}
                  for i, (o, c, b, w, x) in enumerate(zip(origins, (42, 19, 0), (31, 4, 0), (3, 0, 0), (0, 1, 5)))],
        "tiers": {"disk": {"objects": 190233, "bytes": 990 << 20, "limit_bytes": 1 << 30, "queued_bytes": 81920,
                           "loading": False, "failing": False},
                  "redis": {"queued_bytes": 0, "loading": False, "failing": False}},
        "redis": [{"address": "10.0.0.5:6379", "role": "server", "state": "ok", "asked": 9, "failed": {}}],
        "bus": {"instance": "a", "lease": "held", "lag": 0, "instances": 3},
        "writes": {"takes": True, "why": "", "pending": 17, "dead": 3, "bytes": 5 << 20, "room": 1019 << 20,
                   "oldest_ms": 94000, "delivering": 4},
        "slowest": [{"at_ms": NOW_MS - 9000 * i, "us": 1840000 - 91000 * i, "status": 504 if i == 0 else 200,
                     "bytes": 512, "method": "GET", "url": "api.example/api/search?q=%d" % (i * 37), "route": "/api/search",
                     "outcome": "error" if i == 0 else ("miss", "pass")[i % 2], "id": "abc", "server": origins[0],
                     "steps": "TIER=0.00%ds FETCH=1.%d42s pool=0.000s first-byte=1.%d40s" % (i % 9, 8 - i % 8, 8 - i % 8)}
                    for i in range(14)],
        "purges": [{"at_ms": NOW_MS - 61000, "soft": False, "objects": 412, "items": [{"tag": "recruiters"}, {"tag": "jobs"}]},
                   {"at_ms": NOW_MS - 7200000, "soft": True, "objects": 1, "items": [{"url": "https://api.example/feed"}]}],
    }


def history():
    return {"step_s": 10, "route": None, "steps": [
        {"age_s": age, "outcomes": {o: figures(o, SECONDS - age) for o in BASE}} for age in range(295, 0, -10)]}


def letters():
    return {"writes": [{"id": "%032x" % (0xfeed << 96 | i), "state": s, "method": m, "url": "https://api.example" + u,
                        "accepted": "2026-01-01T11:%02d:07Z" % (12 + i), "attempts": a, "status": c}
                       for i, (s, m, u, a, c) in enumerate([
                           ("rejected", "POST", "/api/events", 1, 422), ("expired", "PUT", "/api/jobs/81", 41, 503),
                           ("uncertain", "POST", "/api/recruiters", 1, None)])]}


READ = "window.read?.size === 2 && document.querySelector('#about').textContent.startsWith('last ')"


def script():
    events = "".join("event: stats\ndata: %s\n\n" % json.dumps(stats(at)) for at in range(1, SECONDS + 1))
    return """(() => {
        const canned = %s, real = window.fetch;
        const stream = (text) => new ReadableStream({ start(c) { c.enqueue(new TextEncoder().encode(text)); } });
        window.fetch = (path, options) => {
            for (const [start, text] of Object.entries(canned)) {
                if (path.startsWith(start)) {
                    if (start.includes('stream')) return Promise.resolve(new Response(stream(text)));
                    const response = new Response(text);
                    response.json = () => { (window.read ??= new Set()).add(start); return Promise.resolve(JSON.parse(text)); };
                    return Promise.resolve(response);
                }
            }
            return real(path, options);
        };
    })();""" % json.dumps({"/stats/stream": events, "/stats/history": json.dumps(history()),
                           "/writes?": json.dumps(letters())})
