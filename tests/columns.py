#!/usr/bin/python3
"""Lines have 100 columns at most: fails on one that has more, and names it.

Looks at the code, in C, below proxy/, config/ and plugins/. Tables (.def) are exempt: a row of one is a line.
So are the tests, whose rows of cases stand one or more to a line.

    columns.py SOURCE_DIR
"""
import os
import sys

COLUMNS = 100
TOPS = ("proxy", "config", "plugins")


def files(root):
    for top in TOPS:
        for folder, folders, names in os.walk(os.path.join(root, top)):
            folders.sort()
            yield from (os.path.join(folder, n) for n in sorted(names) if n.endswith((".c", ".h")))


def too_long(path):
    """The number and width of each line that is."""
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            width = len(line.rstrip("\n").expandtabs(8))
            if width > COLUMNS:
                yield number, width


def main(root):
    seen = list(files(root))
    faults = ["%s:%d: %d columns; %d at most" % (os.path.relpath(path, root), number, width, COLUMNS)
              for path in seen for number, width in too_long(path)]
    assert len(seen) > 100, "there is hardly any code below %s" % root
    for fault in faults:
        print(fault, file=sys.stderr)
    print("%d files, %d lines too long" % (len(seen), len(faults)))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
