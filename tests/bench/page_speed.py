#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How fast the playground is, in chromium on this machine: first paint, work of the main thread for a key and for a hover with 2,000 (and 10,000)
tokens on screen, our own part of it (scripts) for a key in a megabyte of text, and the attention of all heads of SmolLM2 over 128 tokens, from the
click to the drawn picture.

    COUPLET=build/server/couplet .venv/bin/python tests/bench/page_speed.py [ROUNDS]      prints medians of ROUNDS (5) and the worst
"""
import json
import re
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from playwright.sync_api import sync_playwright  # noqa: E402
from serving import ROOT, Server  # noqa: E402

SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT_128 = "the cat sat on the mat and " * 18 + "the cat"  # 128 tokens of SmolLM2
SHOWN = "Attention of 30 layers with 9 heads each over 128 tokens"
WORDS = [" the", " lighthouse", " keeper", " was", " not", " at", " home", ",", " and", " so", " it", " went", " on", ".", "\n"]


def canned(n):
    """A stream of n tokens with eight alternatives each, as the server would send it."""
    out = []
    for i in range(n):
        text = WORDS[i % len(WORDS)]
        top = {w: -0.4 * k - 0.2 for k, w in enumerate(WORDS[:8])} | {text: -0.1}
        choice = {"index": 0, "text": text, "finish_reason": None, "token_ids": [i],
                  "logprobs": {"tokens": [text], "token_logprobs": [-(i % 70) / 10], "top_logprobs": [top], "text_offset": [0], "top_token_ids": [list(range(len(top)))]}}
        out.append("data: " + json.dumps({"id": "x", "object": "text_completion", "choices": [choice]}) + "\n\n")
    return "".join(out) + "data: [DONE]\n\n"


def main_thread_ms(session, act, times):
    """Mean and largest work of the main thread (script, style, layout, paint) for one `act`, in ms."""
    spent = []
    for i in range(times):
        before = metric(session, "TaskDuration")
        act(i)
        spent.append(1000 * (metric(session, "TaskDuration") - before))
    return statistics.mean(spent), max(spent)


def metric(session, name):
    return next(m["value"] for m in session.send("Performance.getMetrics")["metrics"] if m["name"] == name)


def typing_and_hovering(page, session, url, n):
    page.route("**/v1/completions", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=canned(n)))
    page.goto(url + "/#complete")
    page.get_by_label("Prompt", exact=True).fill("Once")
    page.locator("#run").click()
    page.locator(f'#answer [data-i="{n - 1}"]').wait_for(state="attached", timeout=60_000)
    frame = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))"
    page.get_by_label("Prompt", exact=True).focus()

    def key(i):
        page.keyboard.press("abcdefgh"[i % 8])
        page.evaluate(frame)

    def hover(i):
        page.mouse.move(*places[i])  # as a hand does it; a locator's hover() would be measured too
        page.evaluate(frame)
    typed = main_thread_ms(session, key, 20)
    page.locator("#answer").scroll_into_view_if_needed()
    places = page.evaluate("""() => [...document.querySelectorAll('#answer .tok')].map((e) => e.getClientRects()[0])
        .filter((b) => b && b.width > 4 && b.top > 60 && b.bottom < innerHeight).map((b) => [b.left + b.width / 2, b.top + b.height / 2])""")[::3]
    hovered = main_thread_ms(session, hover, 20)
    page.unroute("**/v1/completions")
    return typed, hovered


def typing_in_a_megabyte(page, session, url, view, box):
    """Script of the main thread for a key, in ms: median and worst. The layout of so large a field, which is the browser's own, takes longer."""
    page.goto(f"{url}/#{view}")
    page.locator(box).evaluate("""e => {
        e.value = "The old man chased the dog. ".repeat(40_000).slice(0, 1_000_000);
        e.dispatchEvent(new InputEvent("input", { bubbles: true }));
        e.focus();
        e.setSelectionRange(50, 50);
    }""")
    page.wait_for_timeout(8000)  # what is done with the whole text once it stands still is over
    spent = []
    for letter in "abcdefghij":
        before = metric(session, "ScriptDuration")
        page.keyboard.press(letter)
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))")
        spent.append(1000 * (metric(session, "ScriptDuration") - before))
    return statistics.median(spent), max(spent)


def attention(page, url):
    """From asking for the picture of all heads over 128 tokens to having it drawn, in ms, as the page itself measures it."""
    page.goto(url + "/#inside?tab=attention&model=SmolLM2-135M-Instruct")
    page.get_by_label("Text", exact=True).first.fill(TEXT_128)
    page.get_by_role("img", name=SHOWN).wait_for()
    return float(re.search(r"in (\d+) ms", page.locator("[data-draw]").inner_text())[1])


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    paints, grids = [], []
    with Server("--model", f"SmolLM2-135M-Instruct={SMOLLM2}") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        for _ in range(rounds):
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            page = context.new_page()
            page.goto(server.url + "/")
            page.locator("#prompt").wait_for()
            paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            grids.append(attention(page, server.url))
            context.close()
        print(f"first contentful paint: {statistics.median(paints):.0f} ms (worst {max(paints):.0f})")
        print(f"{SHOWN}: {statistics.median(grids):.0f} ms (worst {max(grids):.0f})")
        for n in (2000, 10000):
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable")
            (typed, worst_typed), (hovered, worst_hovered) = typing_and_hovering(page, session, server.url, n)
            print(f"{n} tokens on screen: a key {typed:.1f} ms (worst {worst_typed:.1f}), a hover {hovered:.1f} ms (worst {worst_hovered:.1f})")
        for view, box in (("complete", "#prompt"), ("chat", "#say"), ("chat", "#system"), ("tokens", "#tokens-input"), ("compare", "#prompt"), ("inside", "#inside-text")):
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable")
            typed, worst = typing_in_a_megabyte(page, session, server.url, view, box)
            print(f"a megabyte in {view} {box}: scripts for a key {typed:.1f} ms (worst {worst:.1f})")
        browser.close()


if __name__ == "__main__":
    main()
