#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The house rules that a machine can check: sizes, include arrows, what may stand in the repository.

Standard library only. Every rule is one function that yields (file, line, message); a rule without offenders counts as
passed. Looks at what git tracks, or, outside a checkout, at every source file below the root.
    tests/lint/lint.py             every rule, then `lint: N passed, N failed`
    tests/lint/lint.py --sizes     the longest functions and files, for a look
"""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_LINES, FILE_LINES, COLUMNS = 100, 800, 160  # 120 is the aim, kept by hand; past 160 nobody sees the end of a line
BUDGETS = {"base": 2500, "engine/kernels": 3000}
# Serving took 15,600 lines; reading, training, judging and writing models took as many again; files, jobs, their store, runner and client a quarter of
# that on top; looking inside a model (engine/infer/inspect*, /v1/inspect, `couplet inspect`) 2,500. Duplicates were looked for and removed each time.
PROGRAM_LINES = 44500
LARGE_BYTES = 1 << 20
PROGRAM_ROOMS = ("base", "tokenizer", "engine", "server")
# Room -> what it may include from this repository. Kernels know no model, so they see nothing of the engine but themselves.
ARROWS = {
    "base": ("base/",),
    "tokenizer": ("base/", "tokenizer/"),
    "engine/kernels": ("base/", "engine/kernels/"),
    "engine/model": ("base/", "tokenizer/", "engine/model/", "engine/kernels/"),
    "engine": ("base/", "tokenizer/", "engine/"),
    "server": ("base/", "tokenizer/", "engine/", "server/"),
}
SERVER_ONLY = ("microhttpd.h", "uv.h", "jansson.h", "sqlite3.h")
GENERATED = re.compile(r"(^tests/golden/|_tables?\.[ch]$|_data\.[ch]$|package-lock\.json$)")
TEXT = (".c", ".h", ".py", ".sh", ".build", ".txt", ".md", ".js", ".css", ".html", ".conf", ".json", ".yml", ".service")


def tracked():
    try:
        out = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                             capture_output=True, check=True)
        names = [n for n in out.stdout.decode().split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        skip = re.compile(r"^(build|models|node_modules|\.)")
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()
                 and not any(skip.match(part) for part in p.relative_to(ROOT).parts[:-1])]
    return sorted(n for n in set(names) if (ROOT / n).is_file())


class Tree:
    """Every tracked file, read once."""

    def __init__(self):
        self.names = tracked()
        self.lines = {}
        for name in self.names:
            if name.endswith(TEXT) or "." not in os.path.basename(name) or name == ".ci/run":
                data = (ROOT / name).read_bytes()
                if b"\0" not in data:
                    self.lines[name] = data.decode("utf-8", "replace").split("\n")

    def c_files(self, *rooms):
        return [n for n in self.lines if n.endswith((".c", ".h")) and (not rooms or n.startswith(tuple(r + "/" for r in rooms)))]


def strip_comments(lines):
    """The same lines with comments, strings and character constants blanked, so that braces can be counted."""
    token = re.compile(r'//.*|/\*|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')
    out, inside = [], False
    for line in lines:
        kept, at = "", 0
        while at < len(line):
            if inside:
                end = line.find("*/", at)
                if end < 0:
                    break
                inside, at = False, end + 2
                continue
            m = token.search(line, at)
            if not m:
                kept += line[at:]
                break
            kept += line[at:m.start()]
            at = m.end()
            if m.group() == "/*":
                inside = True
            elif m.group().startswith("//"):
                break
            else:
                kept += '""'
        out.append(kept)
    return out


def functions(lines):
    """(name, first line, number of lines) of every function body; initialisers of tables are not functions."""
    depth, head, head_line, found = 0, "", 0, []
    name_of = re.compile(r"(\w+)\s*\(")
    current = None
    for number, line in enumerate(strip_comments(lines), 1):
        if line.startswith("#") or (depth == 0 and not line.strip()):
            continue
        if depth == 0:
            if not head:
                head_line = number
            head += " " + line
        opened = line.count("{")
        if depth == 0 and opened:
            before = head[:head.rfind("{")] if opened == 1 else head[:head.find("{")]
            before = re.sub(r"__attribute__\s*\(\(.*?\)\)", "", before)
            is_function = "(" in before and "=" not in before and not re.match(r"\s*(typedef\s+)?(struct|enum|union)\s+\w*\s*$", before)
            names = name_of.findall(before)
            current = (names[0] if names else "?", head_line) if is_function else None
        depth += opened - line.count("}")
        if depth <= 0:
            depth = 0
            if opened or "}" in line:
                if current:
                    found.append((current[0], current[1], number - current[1] + 1))
                current, head = None, ""
            elif line.rstrip().endswith(";"):
                head = ""
    return found


def function_size(tree):
    for name in tree.c_files():
        if GENERATED.search(name):
            continue
        for func, line, size in functions(tree.lines[name]):
            if size > FUNCTION_LINES:
                yield name, line, f"{func}() has {size} lines, {FUNCTION_LINES} at most"


def file_size(tree):
    for name, lines in tree.lines.items():
        if name.endswith((".c", ".h", ".py", ".js", ".css")) and not GENERATED.search(name) and len(lines) - 1 > FILE_LINES:
            yield name, len(lines), f"{len(lines) - 1} lines, {FILE_LINES} at most: a missing room?"


def line_width(tree):
    for name in tree.c_files(*PROGRAM_ROOMS):  # tests hold long literals
        if GENERATED.search(name):
            continue
        for number, line in enumerate(tree.lines[name], 1):
            if len(line) > COLUMNS and not line.endswith("\\"):  # a row of a macro table
                yield name, number, f"{len(line)} columns, {COLUMNS} at most"


def whitespace(tree):
    for name in tree.c_files():
        for number, line in enumerate(tree.lines[name], 1):
            if "\t" in line:
                yield name, number, "a tab; the house indents with four spaces"
            elif line != line.rstrip():
                yield name, number, "blanks at the end of the line"


def include_arrows(tree):
    include = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
    for name in tree.c_files(*PROGRAM_ROOMS):
        room = max((r for r in ARROWS if name.startswith(r + "/")), key=len)
        for number, line in enumerate(tree.lines[name], 1):
            m = include.match(line)
            if not m:
                continue
            if "/" not in m.group(1):
                yield name, number, f'"{m.group(1)}": include paths start at the root of the repository'
            elif not m.group(1).startswith(ARROWS[room]):
                yield name, number, f'"{m.group(1)}": {room} may include {", ".join(ARROWS[room])} only'


def web_libraries_in_server_only(tree):
    include = re.compile(r"^\s*#\s*include\s+<([^>]+)>")
    for name in tree.c_files("base", "tokenizer", "engine"):
        for number, line in enumerate(tree.lines[name], 1):
            m = include.match(line)
            if m and m.group(1) in SERVER_ONLY:
                yield name, number, f"<{m.group(1)}> belongs to server/"


def exits_in_server_only(tree):
    call = re.compile(r"(?<![\w.>])(exit|_exit|quick_exit)\s*\(")
    for name in tree.c_files("base", "tokenizer", "engine"):
        for number, line in enumerate(strip_comments(tree.lines[name]), 1):
            if call.search(line):
                yield name, number, "nothing below server/ ends the process: return the error"


def spdx_first(tree):
    mark = "SPDX-License-" + "Identifier: MIT"
    for name, lines in tree.lines.items():
        if name.endswith((".c", ".h", ".py", ".js", ".css", ".html")) and not any(mark in line for line in lines[:3]):
            yield name, 1, "no SPDX line at the top"


def header_guard(tree):
    for name in tree.c_files():
        # *_simd.h is a source included once per instruction set
        if name.endswith(".h") and not name.endswith("_simd.h") and "#pragma once" not in tree.lines[name]:
            yield name, 1, "no #pragma once"


def unfinished_words(tree):
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|not imple" r"mented|\bst" r"ub\b")
    for name, lines in tree.lines.items():
        if name.startswith("tests/golden/"):
            continue
        for number, line in enumerate(lines, 1):
            m = words.search(line)
            if m:
                yield name, number, f'"{m.group()}": finish it, or leave it out'


def foreign_addresses(tree):
    """No host but our own and documentation's: registries are reached through their clients, which know where they are."""
    url = re.compile(r"https?://([A-Za-z0-9][A-Za-z0-9.-]*)")
    # huggingface.co: what HF_ENDPOINT stands for when it is not set, the hub that `couplet pull` is documented to ask.
    allowed = re.compile(r"^(huggingface\.co|localhost|127(\.\d+){3}|0\.0\.0\.0|(.*\.)?example(\.(com|org|net))?|.*\.(test|invalid|localhost)|www\.w3\.org|"
                         r"host|evil.*|attacker.*|couplet.*|www\.unicode\.org|arxiv\.org|json-schema\.org|github\.com)$")
    for name, lines in tree.lines.items():
        if name.startswith("tests/golden/") or name.startswith("configs/examples/"):
            continue
        for number, line in enumerate(lines, 1):
            for host in url.findall(line):
                if "." in host and not allowed.match(host):
                    yield name, number, f"address {host} is not ours"
            if re.search(r"index-" r"url", line):
                yield name, number, "a registry's address belongs to the machine, not to the repository"


def machine_paths(tree):
    path = re.compile(r"(?<![\w./-])/(wo" r"rk|ho" r"me/\w|ro" r"ot|op" r"t/\w)[/\w]*")
    for name, lines in tree.lines.items():
        if name == "Dockerfile":
            continue  # its paths are inside the image
        for number, line in enumerate(lines, 1):
            m = path.search(line)
            if m:
                yield name, number, f"{m.group()} exists on one machine only"


def large_files(tree):
    for name in tree.names:
        size = (ROOT / name).stat().st_size
        if size > LARGE_BYTES:
            yield name, 1, f"{size >> 10} KiB; 1 MiB at most"


def budgets(tree):
    count = lambda *rooms: sum(len(tree.lines[n]) - 1 for n in tree.c_files(*rooms) if not GENERATED.search(n))
    for room, limit in BUDGETS.items():
        if count(room) > limit:
            yield room, count(room), f"{count(room)} lines, {limit} at most: remove before adding"
    if count(*PROGRAM_ROOMS) > PROGRAM_LINES:
        yield "program", count(*PROGRAM_ROOMS), f"{count(*PROGRAM_ROOMS)} lines, {PROGRAM_LINES} at most"


def shell_scripts(tree):
    tool = shutil.which("shellcheck")
    if not tool:
        return
    scripts = [n for n, lines in tree.lines.items() if lines and re.match(r"#!.*\b(ba)?sh$", lines[0])]
    run = subprocess.run([tool, "-f", "gcc", *scripts], cwd=ROOT, capture_output=True, text=True)
    for line in run.stdout.splitlines():
        m = re.match(r"([^:]+):(\d+):\d+: (.*)", line)
        yield (m.group(1), m.group(2), m.group(3)) if m else ("shellcheck", 0, line)


def python_compiles(tree):
    for name, lines in tree.lines.items():
        if name.endswith(".py"):
            try:
                compile("\n".join(lines), name, "exec")
            except SyntaxError as error:
                yield name, error.lineno, error.msg


def documented_paths(tree):
    """What README and ARCHITECTURE point at is there."""
    link = re.compile(r"\]\((?!https?:|#)([^)#]+)|\b((?:base|tokenizer|engine|server|web|tests|configs|docs)/[\w/-]+\.\w+)")
    for name in ("README.md", "ARCHITECTURE.md"):
        for number, line in enumerate(tree.lines.get(name, ()), 1):
            for match in link.finditer(line):
                path = match.group(1) or match.group(2)
                if not (ROOT / path).exists():
                    yield name, number, f"{path} does not exist"


RULES = (function_size, file_size, line_width, whitespace, include_arrows, web_libraries_in_server_only, exits_in_server_only,
         spdx_first, header_guard, unfinished_words, foreign_addresses, machine_paths, large_files, budgets, shell_scripts,
         python_compiles, documented_paths)


def print_sizes(tree):
    sized = [(size, f"{n}:{line} {func}()") for n in tree.c_files() for func, line, size in functions(tree.lines[n])]
    sized.sort(reverse=True)
    for size, where in sized[:20]:
        print(f"{size:5} {where}")
    if sized:
        print(f"{len(sized)} functions, median {sized[len(sized) // 2][0]} lines, p90 {sized[len(sized) // 10][0]}")
    for room in PROGRAM_ROOMS + tuple(BUDGETS):
        print(f"{sum(len(tree.lines[n]) - 1 for n in tree.c_files(room)):6} {room}")


def main():
    tree = Tree()
    if sys.argv[1:] == ["--sizes"]:
        print_sizes(tree)
        return 0
    failed = 0
    for rule in RULES:
        offenders = list(rule(tree))
        failed += bool(offenders)
        for name, line, message in offenders:
            print(f"{name}:{line}: {message} [{rule.__name__}]")
    print(f"lint: {len(RULES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
