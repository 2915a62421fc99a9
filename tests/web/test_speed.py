# SPDX-License-Identifier: MIT
"""Typing and pointing stay cheap with 2,000 and with 10,000 tokens on screen: the browser restyles and lays out anew a handful of elements for each key and
each move, however many there are. Counted, not timed, so that it is the same on any machine; the times are tests/bench/page_speed.py's."""
import json

import pytest
from playwright.sync_api import expect

from canned import answer_with

WORDS = ["the", " cat", " sat", " on", " a", " mat", ".\n", " and", " then", " it", " looked", " out", " of", " window"]


class Work:
    """What the browser did meanwhile: elements restyled, and boxes to be laid out, one number a time."""

    def __init__(self, browser, page):
        self.browser, self.page = browser, page

    def __enter__(self):
        self.browser.start_tracing(page=self.page, categories=["devtools.timeline", "blink", "disabled-by-default-devtools.timeline"])
        return self

    def __exit__(self, *_):
        events = json.loads(self.browser.stop_tracing())["traceEvents"]
        self.styled = [e["args"]["elementCount"] for e in events if e.get("name") == "UpdateLayoutTree" and "elementCount" in e.get("args", {})]
        self.laid_out = [e["args"]["beginData"]["dirtyObjects"] for e in events if e.get("name") == "Layout" and "beginData" in e.get("args", {})]


@pytest.mark.parametrize("tokens", [2_000, 10_000])
def test_typing_and_pointing(browser, visit, tokens):
    v = visit()
    page = v.page
    answer_with(page, [WORDS[i % len(WORDS)] for i in range(tokens)])
    page.get_by_label("Prompt", exact=True).fill("x")
    page.locator("#run").click()
    expect(page.locator("#answer .tok")).to_have_count(tokens)
    page.locator("#answer").evaluate("e => e.scrollIntoView()")
    page.mouse.move(200, 60)
    expect(page.locator(".token-card")).to_be_visible()
    v.still(page.locator(".token-card"))
    with Work(browser, page) as pointing:
        for i in range(40):
            page.mouse.move(200 + i * 37 % 500, 60 + i % 10 * 24)
            page.evaluate("new Promise(requestAnimationFrame)")
    page.mouse.move(2, 2)
    page.get_by_label("Prompt", exact=True).focus()
    with Work(browser, page) as typing:
        for i in range(40):
            page.keyboard.press("abcdefg "[i % 8])
            page.evaluate("new Promise(requestAnimationFrame)")
    for name, work in (("pointing", pointing), ("typing", typing)):
        print(f"{tokens} tokens, {name}: restyled {sorted(work.styled)[-5:]} of {len(work.styled)}, laid out {sorted(work.laid_out)[-5:]} of {len(work.laid_out)}")
        assert len(work.styled) >= 10, "nothing was counted"
        assert max(work.styled) < 300 and max(work.laid_out, default=0) < 300, name
