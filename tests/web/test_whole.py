# SPDX-License-Identifier: MIT
"""The page as a whole: what it weighs, what it asks for, that every view is there and can be reached and used by everybody."""
import http.client
import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from serving import ROOT

VIEWS = ["Complete", "Chat", "Compare", "Tokens", "Inside", "Train", "System"]
BUDGETS = {"br": 150_000, "gzip": 160_000}  # bytes, packed: everything that the program embeds for the page but the texts (examples, licences)


@pytest.mark.parametrize("coding", BUDGETS)
def test_the_whole_page_is_light(visit, coding):
    """Every file of the page, packed as a browser asks for it; each is there, and together they are small."""
    v, web = visit(), ROOT / "web"
    styles = re.findall(r'@import "(.*)";', (web / "page.css").read_text())
    assert sorted(styles) == sorted(p.relative_to(web).as_posix() for p in [web / "style.css", *web.glob("style/*.css")]), "page.css imports every style"
    scripts = [p.relative_to(web).as_posix() for p in web.rglob("*.js") if "node_modules" not in p.parts]
    names = ["index.html", "page.css", *scripts, *(f"vendor/{name}" for name in ("preact.js", "hooks.js", "htm.js", "uplot.js", "uplot.css"))]
    sizes, host = {}, urlsplit(v.url)
    connection = http.client.HTTPConnection(host.hostname, host.port)
    for name in names:
        connection.request("GET", "/" + name, headers={"Accept-Encoding": coding})
        reply = connection.getresponse()
        sizes[name] = len(reply.read())
        assert reply.status == 200, f"{name} is not embedded: web/meson.build does not list it"
        assert sizes[name] < 1000 or reply.headers["Content-Encoding"] == coding, f"{name}: the machine that built the program had no brotli"
    total = sum(sizes.values())
    print(f"{len(names)} files, {total} bytes by {coding}; the largest: {sorted(sizes.items(), key=lambda item: -item[1])[:5]}")
    assert total <= BUDGETS[coding]


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
    expect(v.page.get_by_role("navigation", name="Pages").get_by_role("link")).to_have_text(VIEWS)


def test_the_address_carries_view_and_model(visit, smol_url):
    v = visit(smol_url)
    v.page.goto(smol_url + "/#tokens?model=gpt2-nano")
    expect(v.page.get_by_label("Model", exact=True)).to_have_value("gpt2-nano")
    expect(v.page).to_have_title(re.compile("Tokens"))
    v.open("tokens?model=SmolLM2-135M-Instruct")  # without a reload
    expect(v.page.get_by_label("Model", exact=True)).to_have_value("SmolLM2-135M-Instruct")
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
    expect(v.page.locator("#main")).to_be_focused()
    v.page.keyboard.press("Tab")
    expect(v.page.locator("#prompt")).to_be_focused()
