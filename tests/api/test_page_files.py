# SPDX-License-Identifier: MIT
"""What the program serves of the page's scripts and styles: the same modules, minified; a mistake in one ends the build."""
import re
import subprocess
import sys

import pytest
from serving import ROOT
from wire import ask

WEB = ROOT / "web"
SCRIPTS = [p.relative_to(WEB).as_posix() for p in sorted(WEB.rglob("*.js")) if "node_modules" not in p.parts]
MODULES = re.compile(r"""(?:\bfrom|\bimport)\s*["']([./][^"']+)["']""")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_stays_the_module_it_is(server, name):
    """It names the modules that its source names, and has lost its comments."""
    source, served = (WEB / name).read_text(encoding="utf-8"), ask(server, "GET", "/" + name).body.decode()
    assert set(MODULES.findall(served)) == set(MODULES.findall(source))
    assert len(served) < len(source) and "SPDX" in source and "SPDX" not in served


def test_styles_are_one_file(server):
    served = ask(server, "GET", "/page.css").body.decode()
    assert "@import" not in served and "/*" not in served and "light-dark(" in served
    assert ask(server, "GET", "/style.css").status == 404


def test_the_licences_of_what_others_wrote_come_with_it(server):
    text = ask(server, "GET", "/vendor/licences.txt").body.decode()
    assert all(owner in text for owner in ("Jason Miller", "Leon Sorokin", "Apache License"))


@pytest.mark.parametrize("text, complaint", [("const a = 1;\nconst b = ;\n", "Unexpected"), ("export const a = { b: 1,\n  b: 2 };\n", "Duplicate key")])
def test_a_mistake_ends_the_build_with_its_place(tmp_path, text, complaint):
    web = tmp_path / "web"
    (web / "views").mkdir(parents=True)
    (web / "views" / "broken.js").write_text(text)
    command = [sys.executable, ROOT / "server" / "embed.py", tmp_path / "out.c", web, web / "views" / "broken.js"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode != 0 and complaint in run.stderr and "web/views/broken.js:2:" in run.stderr, run.stderr
    assert not (tmp_path / "out.c").exists()
