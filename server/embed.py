#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the playground's files as a C source: scripts and styles squeezed (squeeze.py), each file as it is and, where that is smaller, packed by
brotli (if the machine has it) and gzip; and one exact route each.

usage: embed.py OUT.c ROOT FILE...
A file under ROOT is served at its path there, any other (made in the build folder, or an example) from the last "vendor/" or "examples/" of its path
on; ROOT/index.html is also the answer to "/". On one machine the same files always give the same source."""
import gzip
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from squeeze import squeeze_css, squeeze_js

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
    """Packed, or as it is where there is no brotli: then a browser gets gzip, a sixth more bytes, and nothing else is different."""
    command = shutil.which("brotli")
    return subprocess.run([command, "--best", "--stdout", "-"], input=data, stdout=subprocess.PIPE, check=True).stdout if command else data


def content_of(url, path):
    """What is served. Third-party code and examples are left as they came."""
    squeeze = {".js": squeeze_js, ".css": squeeze_css}.get(path.suffix)
    if not squeeze or url.startswith("/vendor/"):
        return path.read_bytes()
    return squeeze(path.read_text(encoding="utf-8")).encode()


def main():
    out, root = sys.argv[1], Path(sys.argv[2]).resolve()
    files = {url_of(path, root): path for path in (Path(name).resolve() for name in sys.argv[3:])}
    if len(files) != len(sys.argv) - 3:
        sys.exit("embed.py: two files have the same URL")
    arrays, rows, routes = [], [], []
    for i, (url, path) in enumerate(sorted(files.items())):
        data = content_of(url, path)
        tag = hashlib.sha256(data).hexdigest()[:16]
        packed = [("", data), ("br", brotli(data)), ("gzip", gzip.compress(data, 9, mtime=0))]
        bodies = []
        for coding, body in packed:
            if coding and len(body) >= len(data):
                continue
            name = f"file_{i}{'_' if coding else ''}{coding}"
            arrays.append(byte_array(name, body))
            bodies.append('{"%s", "\\"%s%s\\"", %s, %d}' % (coding, tag, coding and "-" + coding, name, len(body)))
        for at in [url] + (["/"] if url == "/index.html" else []):
            rows.append('    {"%s", "%s", {%s}},' % (at, TYPES[path.suffix], ", ".join(bodies)))
            routes.append('    {"GET", "%s", SCOPE_PUBLIC, NULL, static_reply, NULL, "The playground"},' % at)
    with open(out, "w", encoding="ascii") as f:
        f.write("// SPDX-License-Identifier: MIT\n// Written by server/embed.py from web/.\n")
        f.write('#include "server/routes.h"\n#include "server/static.h"\n\n')
        f.write("\n".join(arrays) + "\n\nconst struct static_file static_files[] = {\n" + "\n".join(rows) + "\n    {0},\n};\n\n")
        f.write("const struct http_route static_routes[] = {\n" + "\n".join(routes) + "\n    {0},\n};\n")


if __name__ == "__main__":
    main()
