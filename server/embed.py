#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the playground's files as a C source: scripts and styles minified by esbuild, each file as it is and, where that is smaller, packed by brotli
(if the machine has it) and gzip (by zopfli, if the machine has it); and one exact route each.

usage: embed.py OUT.c ROOT FILE...
A file under ROOT is served at its path there, any other (made in the build folder, or an example) from the last "vendor/" or "examples/" of its path
on; ROOT/index.html is also the answer to "/". On one machine the same files always give the same source."""
import gzip
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[1] / "web" / "packages.py"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


def url_of(path, root):
    if path.is_relative_to(root):
        return "/" + path.relative_to(root).as_posix()
    for folder in ("/vendor/", "/examples/"):
        before, found, name = path.as_posix().rpartition(folder)
        if found:
            return found + name
    sys.exit(f"embed.py: {path} is neither under {root} nor in a folder named vendor or examples")


def byte_array(name, data):
    lines = [",".join(map(str, data[at : at + 40])) for at in range(0, len(data), 40)]
    return "static const unsigned char %s[] = {\n%s\n};" % (name, ",\n".join(lines) or "0")


def brotli(data):
    """Packed, or as it is where there is no brotli: then a browser gets gzip, a tenth more bytes, and nothing else is different."""
    command = shutil.which("brotli")
    return subprocess.run([command, "--best", "--stdout", "-"], input=data, stdout=subprocess.PIPE, check=True).stdout if command else data


def gzipped(data):
    """zopfli finds two bytes in a hundred that gzip leaves."""
    command = shutil.which("zopfli")
    if not command:
        return gzip.compress(data, 9, mtime=0)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return subprocess.run([command, "-c", file.name], stdout=subprocess.PIPE, check=True).stdout


def esbuild(root, paths, *options):
    """{path: text} without comments, blanks and long names. A mistake in a file, or something esbuild doubts, ends the build with its place."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, PACKAGES, "esbuild", *paths, "--minify", "--charset=utf8", "--log-level=warning", f"--outbase={root}", f"--outdir={out}"]
        run = subprocess.run([*command, *options], cwd=root.parent, stderr=subprocess.PIPE, encoding="utf-8")
        if run.returncode or run.stderr:
            sys.exit(run.stderr + "embed.py: the playground could not be minified")
        return {path: (Path(out) / path.relative_to(root)).read_bytes() for path in paths}


def contents(root, files):
    """{url: what is served}: scripts stay modules, each by itself; styles get what they @import; third-party code and examples are left as they came."""
    ours = [path for path in files.values() if path.is_relative_to(root)]
    small = esbuild(root, [p for p in ours if p.suffix == ".js"])
    small |= esbuild(root, [p for p in ours if p.suffix == ".css"], "--bundle")
    return {url: small.get(path) or path.read_bytes() for url, path in sorted(files.items())}


def main():
    out, root = sys.argv[1], Path(sys.argv[2]).resolve()
    files = {url_of(path, root): path for path in (Path(name).resolve() for name in sys.argv[3:])}
    if len(files) != len(sys.argv) - 3:
        sys.exit("embed.py: two files have the same URL")
    arrays, rows, routes = [], [], []
    for i, (url, data) in enumerate(contents(root, files).items()):
        tag = hashlib.sha256(data).hexdigest()[:16]
        packed = [("", data), ("br", brotli(data)), ("gzip", gzipped(data))]
        bodies = []
        for coding, body in packed:
            if coding and len(body) >= len(data):
                continue
            name = f"file_{i}{'_' if coding else ''}{coding}"
            arrays.append(byte_array(name, body))
            bodies.append('{"%s", "\\"%s%s\\"", %s, %d}' % (coding, tag, coding and "-" + coding, name, len(body)))
        for at in [url] + (["/"] if url == "/index.html" else []):
            rows.append('    {"%s", "%s", {%s}},' % (at, TYPES[Path(url).suffix], ", ".join(bodies)))
            routes.append('    {"GET", "%s", SCOPE_PUBLIC, NULL, static_reply, NULL, "The playground"},' % at)
    with open(out, "w", encoding="ascii") as f:
        f.write("// SPDX-License-Identifier: MIT\n// Written by server/embed.py from web/.\n")
        f.write('#include "server/routes.h"\n#include "server/static.h"\n\n')
        f.write("\n".join(arrays) + "\n\nconst struct static_file static_files[] = {\n" + "\n".join(rows) + "\n    {0},\n};\n\n")
        f.write("const struct http_route static_routes[] = {\n" + "\n".join(routes) + "\n    {0},\n};\n")


if __name__ == "__main__":
    main()
