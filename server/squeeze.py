# SPDX-License-Identifier: MIT
"""Scripts and styles without comments and indentation: what the browser does not need is not sent. Nothing else changes, line breaks stay."""
import re

# What a slash after these begins is a regular expression, after anything else it divides.
REGEX_AFTER = re.compile(r"(?:^|[(,=:\[!&|?{};+\-*%<>~^\n]|\b(?:return|typeof|case|in|of|void|delete|throw|await|yield|else|do|=>))\s*$")


def squeeze_js(text):
    out, at = [], 0
    braces = []  # for every open template substitution: how many { are open inside it, and whether its template is html``

    def seen():
        return "".join(out[-12:])[-200:]

    def template(start, is_html):
        """Copies a template's text from `start` to its end or its next substitution; returns where code goes on."""
        i = start
        while text[i] != "`" and text[i:i + 2] != "${":
            i += 2 if text[i] == "\\" else 1
        piece = text[start:i]
        # htm drops blanks around tags where they hold a line break, so one break says as much as a break and an indent.
        out.append(re.sub(r"[ \t]*\n\s*", "\n", piece) if is_html else piece)
        if text[i] == "`":
            out.append("`")
            return i + 1
        out.append("${")
        braces.append([0, is_html])
        return i + 2

    while at < len(text):
        c, two = text[at], text[at:at + 2]
        if two == "//":
            at = text.find("\n", at) if "\n" in text[at:] else len(text)
        elif two == "/*":
            at = text.index("*/", at) + 2
            if not out or not out[-1].endswith((" ", "\n")):
                out.append(" ")  # it kept words apart
        elif c in "\"'":
            end = re.compile(r"(?:\\.|[^\\%s])*%s" % (c, c), re.S).match(text, at + 1).end()
            out.append(text[at:end])
            at = end
        elif c == "`":
            is_html = seen().endswith("html")
            out.append(c)
            at = template(at + 1, is_html)
        elif c == "/" and REGEX_AFTER.search(seen()):
            end = re.compile(r"(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\[])+/[a-z]*").match(text, at + 1).end()
            out.append(text[at:end])
            at = end
        elif c == "}" and braces and braces[-1][0] == 0:
            out.append(c)
            at = template(at + 1, braces.pop()[1])
        elif c.isspace():
            end = re.compile(r"\s+").match(text, at).end()
            blank = "\n" if "\n" in text[at:end] else " "
            if not out or not out[-1].endswith("\n"):
                out.append(blank)
            elif blank == "\n":
                out[-1] = out[-1].rstrip(" ")
            at = end
        else:
            if braces and c in "{}":
                braces[-1][0] += 1 if c == "{" else -1
            word = re.compile(r"[\w$]+").match(text, at)
            out.append(word.group() if word else c)
            at = word.end() if word else at + 1
    return "".join(out).strip() + "\n"


def squeeze_css(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return re.sub(r"\s*([{};,])\s*", r"\1", text).replace(";}", "}").strip() + "\n"
