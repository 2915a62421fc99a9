#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns what a test runner wrote down into the one closing line of a suite: `NAME: N passed, N failed[, N skipped]`.

    closing.py NAME meson BUILD_DIR     counts the tests inside each executable (test.h prints their sum)
    closing.py NAME pytest JUNIT.xml...  of several runs the sum
Exit status 1 when something failed or nothing ran: a suite without a test proves nothing.
"""
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

INNER = re.compile(r"^\S+: (\d+) passed, (\d+) failed", re.M)


def count_meson(build_dir):
    passed = failed = skipped = 0
    for line in (Path(build_dir) / "meson-logs" / "testlog.json").read_text().splitlines():
        test = json.loads(line)
        inner = [tuple(map(int, m)) for m in INNER.findall(test.get("stdout") or "")]
        good, bad = sum(m[0] for m in inner), sum(m[1] for m in inner)
        if test["result"] == "SKIP":
            skipped += 1
        elif test["result"] == "OK":
            passed, failed = passed + (good or not inner), failed + bad
        else:  # a crash or a timeout has no sum of its own
            passed, failed = passed + good, failed + (bad or 1)
    return passed, failed, skipped


def count_pytest(junit):
    passed = failed = skipped = 0
    for suite in ET.parse(junit).getroot().iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        out = int(suite.get("skipped", 0))
        passed, failed, skipped = passed + int(suite.get("tests", 0)) - bad - out, failed + bad, skipped + out
    return passed, failed, skipped


def main():
    name, kind, *where = sys.argv[1:]
    try:
        passed, failed, skipped = map(sum, zip(*map({"meson": count_meson, "pytest": count_pytest}[kind], where)))
    except (OSError, ValueError, ET.ParseError) as error:
        print(f"{name}: the runner left no result: {error}")
        passed, failed, skipped = 0, 1, 0
    print(f"{name}: {passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
