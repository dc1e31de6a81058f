#!/usr/bin/python3
"""Includes go downwards: reads every #include and fails on an upward or sideways one.

The rows are those of the design: a file may include only what stands in a row below its own, and
of another room only its door, room/room.h. In row 0 base includes nothing of ours and the others
may include base. Tables (.def) may be read by every room in a row above or beside. Each
third-party library has its door too.

    layering.py SOURCE_DIR
"""
import os
import re
import sys

ROWS = [
    ["base", "http", "stats", "conf", "abi"],
    ["key", "conn", "semantics", "redis"],
    ["store", "upstream", "route"],
    ["tier", "plugin"],
    ["fill", "purge", "trace"],
    ["write"],
    ["request", "config"],
    ["front", "admin"],
    ["main"],
]
ROW = {room: i for i, row in enumerate(ROWS) for room in row}

# A library's header -> the rooms that may include it.
DOORS = {
    "evhtp": {"front", "admin"},
    "hiredis": {"redis"},
    "yaml.h": {"config"},
    "curses": {"admin"},
    "sqlite3.h": {"write", "tier"},
    "zlib.h": {"fill"},
    "brotli": {"fill"},
    "zstd.h": {"fill"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def room_of(path):
    """The room of a file, by its path below the source directory; None when it has none."""
    parts = path.split("/")
    if path == "config/conf.h" or parts[:2] == ["config", "schema"]:
        return "conf"
    if path == "plugins/abi.h":
        return "abi"
    if parts[0] == "config":
        return "config"
    if parts[0] == "plugins":
        return "plugin file"
    if parts[0] == "proxy":
        return "main" if len(parts) == 2 else parts[1]
    return None


def resolve(root, path, name):
    """An include's path below root, or None for a header that is not ours."""
    for base in (os.path.dirname(path), "proxy", ""):
        candidate = os.path.normpath(os.path.join(base, name))
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    return None


def verdict(path, target):
    """None, or what is wrong with `path` including `target`."""
    mine, theirs = room_of(path), room_of(target)
    if theirs is None:
        return "includes what belongs to no room"
    if mine == theirs:
        return None
    if mine == "plugin file":
        return None if theirs == "abi" else "a plugin includes only plugins/abi.h"
    for room in (mine, theirs):
        if room not in ROW:
            return "the room %s stands in no row" % room
    door = {"conf": "config/conf.h", "config": "config/config.h", "abi": "plugins/abi.h"}.get(
        theirs, "proxy/%s/%s.h" % (theirs, theirs))
    table = target.endswith(".def")
    if not table and target != door:
        return "%s is private to %s; its door is %s" % (target, theirs, door)
    if ROW[theirs] < ROW[mine] or (ROW[mine] == 0 and theirs == "base"):
        return None
    if table and ROW[theirs] == ROW[mine]:
        return None
    how = "sideways" if ROW[theirs] == ROW[mine] else "upwards"
    return "%s: %s (row %d) includes %s (row %d)" % (how, mine, ROW[mine], theirs, ROW[theirs])


def library_verdict(path, name):
    for prefix, rooms in DOORS.items():
        if name.startswith(prefix) and room_of(path) not in rooms:
            return "<%s> is included only by %s" % (name, " and ".join(sorted(rooms)))
    return None


def check(root):
    """The complaints, one a line; and how many includes were read."""
    complaints, count = [], 0
    for top in ("proxy", "config", "plugins"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if not name.endswith((".c", ".h", ".def")):
                    continue
                path = os.path.relpath(os.path.join(folder, name), root)
                with open(os.path.join(root, path), encoding="utf-8") as f:
                    for number, line in enumerate(f, 1):
                        found = INCLUDE.match(line)
                        if not found:
                            continue
                        count += 1
                        target = resolve(root, path, found[2]) if found[1] == '"' else None
                        wrong = (verdict(path, target) if target
                                 else library_verdict(path, found[2]))
                        if wrong:
                            complaints.append("%s:%d: %s" % (path, number, wrong))
    return complaints, count


def self_test():
    """The rules themselves, so that a silent checker is noticed."""
    good = [("proxy/key/key.c", "proxy/http/http.h"), ("proxy/http/uri.c", "proxy/base/base.h"),
            ("proxy/store/memory.c", "proxy/store/priv.h"), ("proxy/main.c", "config/config.h"),
            ("proxy/route/match.c", "config/conf.h"), ("plugins/x/x.c", "plugins/abi.h")]
    bad = [("proxy/base/log.c", "proxy/http/http.h"), ("proxy/http/uri.c", "proxy/stats/stats.h"),
           ("proxy/key/key.c", "proxy/store/store.h"), ("proxy/fill/fill.c", "proxy/store/priv.h"),
           ("proxy/fill/fill.c", "proxy/purge/purge.h"), ("proxy/store/x.c", "config/config.h"),
           ("plugins/x/x.c", "proxy/base/base.h")]
    for path, target in good:
        assert verdict(path, target) is None, (path, target)
    for path, target in bad:
        assert verdict(path, target) is not None, (path, target)


if __name__ == "__main__":
    self_test()
    found, includes = check(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("\n".join(found) if found else "%d includes, all downwards" % includes)
    sys.exit(1 if found or includes == 0 else 0)
