# SPDX-License-Identifier: MIT
"""The page as a whole: what it weighs, what it asks for, that every view is there and can be reached and used by everybody."""
import re

import pytest
from playwright.sync_api import expect

VIEWS = ["Complete", "Chat", "Compare", "Tokens", "Inside", "Train", "System"]
BUDGET = 150_000  # bytes over the wire, everything that the program embeds for the page


def embedded_files(v):
    """Every file of the page, found as a browser would: from index.html along links, imports and import()s."""
    seen, todo = {}, ["/"]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        reply = v.page.request.get(v.url + path)
        assert reply.status == 200, path
        seen[path] = reply
        text = reply.text()
        for found in re.findall(r"""(?:href=|src=|from\s*|import\s*\(?\s*)["'`]((?:\.{0,2}/)[\w./-]+\.(?:js|css))["'`]""", text):
            folder = path.rsplit("/", 1)[0] + "/"
            parts = []
            for part in ((folder + found) if found.startswith(".") else found).split("/"):
                if part == "..":
                    parts.pop()
                elif part not in (".", ""):
                    parts.append(part)
            todo.append("/" + "/".join(parts))
        if path.endswith("app.js"):
            todo += [f"/views/{view.lower()}.js" for view in VIEWS]
    return seen


def test_the_whole_page_is_light(visit):
    v = visit()
    files = embedded_files(v)
    assert {"/", "/app.js", "/style.css", "/vendor/preact.js", "/vendor/uplot.js"} <= set(files), sorted(files)
    sizes = {}
    session = v.context.new_cdp_session(v.page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda e: sizes.update({e["requestId"]: e["encodedDataLength"]}))
    v.page.evaluate("paths => Promise.all(paths.map(p => fetch(p, {cache: 'no-store'}).then(r => r.arrayBuffer())))", list(files))
    v.page.wait_for_timeout(200)
    assert len(sizes) >= len(files)
    total = sum(sizes.values())  # with the answers' headers
    print(f"{len(files)} files, {total} bytes over the wire")
    assert total <= BUDGET, total


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_view_opens_clean(visit, view, colours):
    """By its link, at 1440 and 390 pixels: nothing to complain about, nothing serious for axe, nothing from elsewhere, nothing sticks out."""
    v = visit(color_scheme=colours)
    v.page.get_by_role("navigation", name="Pages").get_by_role("link", name=view, exact=True).click()
    expect(v.page).to_have_title(re.compile(view))
    v.page.locator(f"main.view-{view.lower()} > :nth-child(2)").wait_for()
    expect(v.page.get_by_role("heading", level=1)).to_have_text(view)
    assert v.serious() == []
    v.page.set_viewport_size({"width": 390, "height": 844})
    assert v.fits()
    v.page.wait_for_load_state("networkidle")
    assert v.complaints == [] and v.foreign() == []


def test_the_navigation_is_complete(visit):
    v = visit()
    assert v.page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts() == VIEWS


def test_the_address_carries_view_and_model(visit, smol_url):
    v = visit(smol_url)
    v.page.goto(smol_url + "/#tokens?model=gpt2-nano")
    expect(v.page.get_by_label("Model", exact=True)).to_have_value("gpt2-nano")
    expect(v.page).to_have_title(re.compile("Tokens"))
    v.page.get_by_role("navigation", name="Pages").get_by_role("link", name="System").click()
    v.page.go_back()
    expect(v.page).to_have_title(re.compile("Tokens"))


def test_keyboard_alone(visit):
    """From the address bar: skip link, navigation, model, colours; and the text is reached without a mouse."""
    v = visit()
    expect(v.page.locator("#run")).to_be_enabled()
    v.page.keyboard.press("Tab")
    expect(v.page.get_by_role("link", name="Skip to the text")).to_be_focused()
    v.page.keyboard.press("Enter")
    assert v.page.evaluate("document.activeElement.id") == "main"
    v.page.keyboard.press("Tab")
    assert v.page.evaluate("document.activeElement.id") == "prompt"
