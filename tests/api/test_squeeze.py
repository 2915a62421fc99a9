# SPDX-License-Identifier: MIT
"""server/squeeze.py: what the page is sent differs from what was written by comments and blanks alone."""
import re
import sys

import pytest
from serving import ROOT

sys.path.insert(0, str(ROOT / "server"))
from squeeze import squeeze_css, squeeze_js  # noqa: E402

SCRIPTS = [p for p in sorted((ROOT / "web").rglob("*.js")) if "node_modules" not in p.parts]
COMMENT = re.compile(r"//(?=\s)[^\n]*|/\*.*?\*/", re.S)  # as they are written in web/; <//> is htm's, and a URL goes on without a blank
JS = {
    "a = 1; // one\n\n\n    b = 2;\n": "a = 1; \nb = 2;\n",
    "return/* b\n c */a/**/in b\n": "return a in b\n",
    "u = 'http://x'; v = \"/* no */\"; w = 'it\\'s // so';\n": "u = 'http://x'; v = \"/* no */\"; w = 'it\\'s // so';\n",
    "r = /[/'\"]\\/\\/*/g.test(x) ? a / b : c / d; // e\n": "r = /[/'\"]\\/\\/*/g.test(x) ? a / b : c / d; \n",
    "return /'/; // x\n": "return /'/; \n",
    "t = `a  // b\n    c ${ x ? `d  ${ {e: `}`} }` : \"`\" }  f`; // g\n": "t = `a  // b\n    c ${ x ? `d  ${ {e: `}`} }` : \"`\" }  f`; \n",
    "h = html`<p>\n        ${ a }\n\n    b  c</p>`; // d\n": "h = html`<p>\n${ a }\nb  c</p>`; \n",
    "s = `\\`  // ${1}`; // x\n": "s = `\\`  // ${1}`; \n",
    "x = (a + b) / 2; y = z[1] / 2 // '\n": "x = (a + b) / 2; y = z[1] / 2 \n",
}


@pytest.mark.parametrize("source", JS)
def test_scripts(source):
    assert squeeze_js(source) == JS[source].strip() + "\n"


def test_styles():
    assert squeeze_css("/* a */\np,\nq > b {\n  color: red; /* b */\n  margin: 0 1px;\n}\n") == "p,q > b{color: red;margin: 0 1px}\n"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.relative_to(ROOT / "web").as_posix())
def test_only_comments_and_blanks_go(path):
    text = path.read_text(encoding="utf-8")
    small = squeeze_js(text)
    letters, at = "".join(small.split()), 0
    assert "".join(squeeze_js(small).split()) == letters
    for c in letters:
        while text[at] != c or COMMENT.match(text, at):
            comment = COMMENT.match(text, at)
            assert comment or text[at].isspace(), (c, text[at - 40:at + 40])
            at = comment.end() if comment else at + 1
        at += 1
    assert not COMMENT.sub("", text[at:]).strip()
