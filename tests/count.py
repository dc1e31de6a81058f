#!/usr/bin/python3
"""Adds up what ctest ran, test by test: cmocka's, pytest's and the conformance suite's own counts
where an entry prints them, else the entry itself. Ends with "N passed, N failed".

    count.py NAME=RESULTS.xml ...
"""
import os
import re
import sys
import xml.etree.ElementTree as tree


def count(output, ok):
    """(passed, failed) of one ctest entry."""
    passed = failed = 0
    totals = re.findall(r"^\[\s+(PASSED|FAILED)\s+\] (\d+) test\(s\)", output, re.M)
    if totals:                                  # cmocka
        passed = sum(int(n) for kind, n in totals if kind == "PASSED")
        failed = sum(int(n) for kind, n in totals if kind == "FAILED")
    else:
        lines = [line for line in output.splitlines()
                 if re.search(r"\b\d+ (passed|failed|errors?)\b", line)]
        for n, kind in re.findall(r"(\d+) (passed|failed|errors?)", lines[-1] if lines else ""):
            if kind == "passed":
                passed += int(n)
            else:
                failed += int(n)
    if not passed and not failed:
        passed = 1 if ok else 0
    if not ok and not failed:                   # a crash, a time-out, a sanitizer's report
        failed = 1
    return passed, failed


def failures(output):
    """The lines that name what failed: pytest's summary, cmocka's and the sanitizers'."""
    return re.findall(r"^(?:FAILED|ERROR) .*|^\[  FAILED  \] (?!\d).*|^SUMMARY: \w+Sanitizer.*",
                      output, re.M)[:20]


def main(arguments):
    passed = failed = 0
    for argument in arguments:
        name, _, path = argument.partition("=")
        if not os.path.exists(path):
            print("%s: no results" % name)
            failed += 1
            continue
        here = [0, 0]
        for case in tree.parse(path).getroot().iter("testcase"):
            if case.get("status") == "disabled":
                continue
            ok = case.get("status") == "run" and case.find("failure") is None
            good, bad = count(case.findtext("system-out") or "", ok)
            here[0] += good
            here[1] += bad
            if bad:
                print("%s: %s: %d passed, %d failed" % (name, case.get("name"), good, bad))
                for line in failures(case.findtext("system-out") or ""):
                    print("    " + line)
        if here == [0, 0]:
            here[1] = 1
            print("%s: no test ran" % name)
        print("%s: %d good, %d bad" % (name, *here))
        passed, failed = passed + here[0], failed + here[1]
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
