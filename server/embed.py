#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the playground's files as a C source: one array a file, its type and ETag, and one exact route each.

usage: embed.py OUT.c FILE...      index.html is also the answer to "/"."""
import hashlib
import os
import sys

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


def main():
    out, files = sys.argv[1], sorted(sys.argv[2:])
    arrays, rows, routes = [], [], []
    for i, path in enumerate(files):
        name = os.path.basename(path)
        with open(path, "rb") as f:
            data = f.read()
        kind = TYPES[os.path.splitext(name)[1]]
        tag = hashlib.sha256(data).hexdigest()[:16]
        lines = [",".join(str(b) for b in data[at : at + 40]) for at in range(0, len(data), 40)]
        arrays.append("static const unsigned char file_%d[] = {\n%s\n};" % (i, ",\n".join(lines) or "0"))
        for url in ["/" + name] + (["/"] if name == "index.html" else []):
            rows.append('    {"%s", "%s", "\\"%s\\"", file_%d, %d},' % (url, kind, tag, i, len(data)))
            routes.append('    {"GET", "%s", SCOPE_PUBLIC, NULL, static_reply, NULL, "The playground"},' % url)
    with open(out, "w", encoding="ascii") as f:
        f.write("// SPDX-License-Identifier: MIT\n// Written by server/embed.py from web/.\n")
        f.write('#include "server/routes.h"\n#include "server/static.h"\n\n')
        f.write("\n".join(arrays) + "\n\nconst struct static_file static_files[] = {\n" + "\n".join(rows) + "\n    {0},\n};\n\n")
        f.write("const struct http_route static_routes[] = {\n" + "\n".join(routes) + "\n    {0},\n};\n")


if __name__ == "__main__":
    main()
