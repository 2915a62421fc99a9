# SPDX-License-Identifier: MIT
"""System: what the server is doing, read from its public interface."""
import json
import re
import urllib.request

import pytest
from playwright.sync_api import expect


def post(url, path, **body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


def test_shows_models_and_live_figures(visit, smol_url):
    v = visit(smol_url)
    v.open("system")
    row = v.page.get_by_role("region", name="Models").get_by_role("row").filter(has=v.page.get_by_role("link", name="SmolLM2-135M-Instruct", exact=True))
    expect(row).to_contain_text("30 × 9 heads, 576 wide")
    expect(row).to_contain_text("135 M")
    chart = v.page.get_by_role("img", name=re.compile("^Prompt tokens read a second"))
    expect(chart).to_have_attribute("aria-label", re.compile("0 now"))
    post(smol_url, "/v1/completions", model="gpt2-nano", prompt="x" * 200, max_tokens=1)
    expect(chart).to_have_attribute("aria-label", re.compile("at most [1-9]"))
    expect(chart.locator("path")).to_have_count(2)
    expect(v.page.get_by_text("No job is waiting or running")).to_be_visible()
    v.shot("system-1440")
    assert v.complaints == [] and v.foreign() == []


def test_polls_no_faster_than_every_two_seconds(visit, smol_url):
    v = visit(smol_url)
    v.open("system")
    looks = v.asked_at("/metrics", 3)
    assert all(b - a >= 1990 for a, b in zip(looks, looks[1:])), looks
    v.open("tokens")
    expect(v.page.locator(".tokens-card .tok").first).to_be_visible()
    count = len(v.asked_at("/metrics", 3))
    v.page.wait_for_timeout(2500)
    assert len(v.asked_at("/metrics", 3)) == count, "it goes on asking when nobody looks"


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_accessible_on_a_phone_too(visit, smol_url, colours):
    v = visit(smol_url, viewport={"width": 390, "height": 844}, color_scheme=colours)
    v.open("system")
    expect(v.page.get_by_text("This server")).to_be_visible()
    assert v.serious() == []
    assert v.fits()
    v.shot(f"system-390-{colours}")
