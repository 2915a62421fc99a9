# SPDX-License-Identifier: MIT
"""Typing and pointing stay within a frame with 2,000 tokens on screen, and the page stays usable with 10,000. Counted in the page's own processor time, which
other programs on the machine do not change."""
import json

import pytest
from playwright.sync_api import expect

from canned import answer_with

FRAME_MS = 16
WORDS = ["the", " cat", " sat", " on", " a", " mat", ".\n", " and", " then", " it", " looked", " out", " of", " window"]


class Tasks:
    """What the page's main thread did meanwhile: the milliseconds of each task."""

    def __init__(self, browser, page):
        self.browser, self.page = browser, page

    def __enter__(self):
        self.browser.start_tracing(page=self.page, categories=["devtools.timeline", "toplevel", "disabled-by-default-devtools.timeline"])
        return self

    def __exit__(self, *_):
        events = json.loads(self.browser.stop_tracing())["traceEvents"]
        main = {(e["pid"], e["tid"]) for e in events if e.get("name") == "thread_name" and e["args"].get("name") == "CrRendererMain"}
        self.ms = sorted(e.get("tdur", 0) / 1000 for e in events if e.get("name") == "RunTask" and e.get("ph") == "X" and (e["pid"], e["tid"]) in main)
        self.over = [ms for ms in self.ms if ms > FRAME_MS]


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
    expect(page.locator(".token-card")).to_be_visible()  # the first card is made and drawn for the first time: not what is counted
    with Tasks(browser, page) as pointing:
        for i in range(40):
            page.mouse.move(200 + i * 37 % 500, 60 + i % 10 * 24)
            page.evaluate("new Promise(requestAnimationFrame)")
    page.mouse.move(2, 2)
    page.get_by_label("Prompt", exact=True).focus()
    with Tasks(browser, page) as typing:
        for i in range(40):
            page.keyboard.press("abcdefg "[i % 8])
            page.evaluate("new Promise(requestAnimationFrame)")
    for name, tasks in (("pointing", pointing), ("typing", typing)):
        print(f"{tokens} tokens, {name}: longest {tasks.ms[-1]:.1f} ms, over a frame: {len(tasks.over)} of {len(tasks.ms)}")
    assert len(pointing.over) <= 2, pointing.over  # 2: the collector of garbage comes when it likes
    assert len(typing.over) <= 2, typing.over
    assert max(pointing.ms[-1], typing.ms[-1]) < 100
