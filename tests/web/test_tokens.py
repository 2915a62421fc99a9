# SPDX-License-Identifier: MIT
"""Tokens: a text as the model reads it."""
import json
import re
import urllib.request

import pytest
from playwright.sync_api import expect

from serving import Server


def tokenize(url, **body):
    request = urllib.request.Request(url + "/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


@pytest.fixture
def tokens(visit, smol_url):
    def at(text=None, **options):
        v = visit(smol_url, **options)
        v.open("tokens")
        if text is not None:
            v.page.get_by_label("Text", exact=True).first.fill(text)
        return v
    return at


def texts(v):
    return v.page.locator(".tokens-card").first.locator(".tok").all_inner_texts()


def test_shows_the_servers_own_tokens(tokens, smol_url):
    v = tokens("An unbelievable story of 1234 words")
    wanted = [t["piece"] for t in tokenize(smol_url, model="SmolLM2-135M-Instruct", prompt="An unbelievable story of 1234 words", with_pieces=True)["tokens"]]
    expect(v.page.locator(".tokens-card .tok")).to_have_count(len(wanted))
    assert "".join(v.page.locator(".tokens-card .tok").evaluate_all("all => all.map(e => e.textContent)")) == "".join(wanted)
    expect(v.page.locator(".tokens-count")).to_contain_text(f"{len(wanted)} tokens of 8,192")
    assert len(set(v.page.locator(".tokens-card .tok").evaluate_all("all => all.slice(0, 5).map(e => getComputedStyle(e).backgroundColor)"))) == 5
    assert v.complaints == [] and v.foreign() == []


def test_ids_bytes_and_code_points(tokens, smol_url):
    v = tokens("naïve 界")
    v.page.get_by_text("Table", exact=True).click()
    ids = tokenize(smol_url, model="SmolLM2-135M-Instruct", prompt="naïve 界")["tokens"]
    rows = v.page.get_by_role("region", name="Tokens as a table").locator("tbody tr")
    expect(rows).to_have_count(len(ids))
    assert [int(rows.nth(i).locator("td").nth(1).inner_text()) for i in range(len(ids))] == ids
    expect(v.page.get_by_text("U+00EF")).to_be_visible()
    expect(v.page.get_by_text("part of a character").first).to_be_visible()
    shown = "".join(rows.nth(i).locator("td").nth(3).inner_text().replace(" ", "") for i in range(len(ids)))
    assert bytes.fromhex(shown) == "naïve 界".encode()
    v.page.get_by_text("Ids", exact=True).click()
    expect(v.page.locator(".tokens-card .tok").first).to_have_text(str(ids[0]))
    v.page.get_by_text("Text", exact=True).last.click()
    v.page.locator(".tokens-card .tok").first.hover()
    expect(v.page.locator(".token-card")).to_contain_text("bytes 6e")
    v.shot("tokens-1440")


def test_merges_step_by_step(tokens):
    v = tokens()
    v.page.get_by_label("Merges, step by step").fill("unbelievable")
    pieces = v.page.locator(".merge-pieces code")
    slider = v.page.get_by_role("slider", name="Merge")
    expect(v.page.locator(".merge-word .stats")).to_contain_text("after merge 9 of 9: 3 pieces")
    expect(pieces).to_have_text(["un", "belie", "vable"])
    slider.fill("0")
    expect(pieces).to_have_text(list("unbelievable"))
    v.page.get_by_role("button", name="One merge on").click()
    expect(v.page.locator(".merge-pieces .made")).to_have_text("le")
    expect(pieces).to_have_count(11)


def test_two_tokenizers_side_by_side(tokens):
    v = tokens("lighthouse")
    v.page.get_by_label("Compare with").select_option("gpt2-nano")
    cards = v.page.locator(".tokens-card")
    expect(cards).to_have_count(2)
    expect(cards.nth(1).locator(".tok")).to_have_count(len("lighthouse"))  # its vocabulary is bytes
    expect(cards.nth(1)).to_contain_text("gpt2-nano")
    v.page.reload()
    expect(cards).to_have_count(2)
    v.page.get_by_role("button", name="Take gpt2-nano away").click()
    expect(cards).to_have_count(1)


def test_ids_back_to_text(tokens, smol_url):
    v = tokens()
    ids = tokenize(smol_url, model="SmolLM2-135M-Instruct", prompt="Hello world")["tokens"]
    v.page.get_by_label("From ids to text").fill(", ".join(map(str, ids)))
    expect(v.page.locator(".tokens-decoded")).to_have_text("Hello world")
    v.page.get_by_label("From ids to text").fill("12 cat")
    expect(v.page.locator(".tokens-decoded")).to_contain_text("“cat” is not a token id")
    v.page.get_by_label("From ids to text").fill("99999999")
    expect(v.page.locator(".tokens-decoded")).to_contain_text(re.compile("not below"))


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_accessible_on_a_phone_too(tokens, colours):
    v = tokens("word " * 400, viewport={"width": 390, "height": 844}, color_scheme=colours)
    expect(v.page.locator(".tokens-count")).to_contain_text("tokens")
    assert v.serious() == []
    assert v.fits()
    v.shot(f"tokens-390-{colours}")


def test_empty_text_says_what_this_is(tokens):
    v = tokens("")
    expect(v.page.get_by_role("heading", name="Nothing to read yet")).to_be_visible()


def test_long_model_names_fit_a_phone(visit, nano):
    with Server("--model", f"{'a-model-with-a-long-name-' * 6}=" + str(nano), "--model", f"{'another-' * 20}=" + str(nano)) as server:
        v = visit(server.url, viewport={"width": 390, "height": 844})
        for view in ("tokens", "compare", "train", "system", "inside"):
            v.open(view)
            assert v.fits(), view


def test_a_long_text_shows_its_beginning_and_counts_the_rest(tokens):
    v = tokens("hello world " * 6000)
    card = v.page.locator(".tokens-card")
    expect(card).to_contain_text("The first 10,000 of 12,001.")
    expect(card.locator(".tok")).to_have_count(10_000)
    expect(card.locator(".count.over")).to_have_text("12,001 tokens of 8,192, too long")
    expect(card).to_contain_text("72,000 characters, 72,000 bytes · 6.00 bytes a token · 4 different tokens")


def test_numbers_are_of_one_text(tokens):
    """Until the server has answered, all of them are of the text before."""
    v = tokens("a b")
    stats = v.page.locator(".tokens-card > .stats")
    expect(stats).to_have_text("3 characters, 3 bytes · 1.50 bytes a token · 2 different tokens")
    v.page.route("**/tokenize", lambda route: None)  # no answer any more
    with v.page.expect_request("**/tokenize"):
        v.page.get_by_label("Text", exact=True).first.fill("a longer text of many words")
    expect(stats).to_have_text("3 characters, 3 bytes · 1.50 bytes a token · 2 different tokens")
    v.page.unroute("**/tokenize")
    v.page.get_by_label("Text", exact=True).first.fill("a")
    expect(stats).to_have_text("1 character, 1 byte · 1.00 bytes a token · 1 different token")
