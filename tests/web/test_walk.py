# SPDX-License-Identifier: MIT
"""The guided walk of Inside: what a reader sees in its eight steps, on learned and on rotary positions, and the worked example to the last digit."""
import json
import re
import urllib.request

import pytest
from playwright.sync_api import expect

from serving import ROOT

STEPS = ["Tokens", "Embeddings and positions", "Plain self attention", "Queries, keys, values", "Mask and dropout", "Many heads", "The whole block", "The next token"]
# What must be there once a step has its numbers.
SHOWN = ["#walk-tokens tbody tr", ".walk-finding >> nth=1", "text=context vectors = weights", "text=values", "text=weights after dropout", ".walk-head >> nth=1", "text=adds up", "#walk-next tbody tr"]
SENTENCE = "The dog saw a dog"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "walk" / "walk.json").read_text())
TABLE = """name => {
  const figure = [...document.querySelectorAll('figure.matrix')].find((one) => one.querySelector('figcaption strong').textContent === name);
  return figure && [...figure.querySelectorAll('tbody tr')].map((row) => [...row.querySelectorAll('td')].map((td) => td.querySelector('input')?.value ?? td.textContent));
}"""


def walk(v, step=1, text=SENTENCE, **params):
    """Opens a step of the walk with a text."""
    def go(at):
        v.open("inside?" + "&".join(f"{name}={value}" for name, value in {"step": at, **params}.items()))

    if text is not None:
        go(1)
        v.page.get_by_label("Text", exact=True).fill(text)
        if text.isascii():
            expect(v.page.locator(".walk-text")).to_have_text(text)
    go(step)
    expect(v.page.get_by_role("heading", name=f"{step}. {STEPS[step - 1]}")).to_be_visible()
    return v


def settled(v, step):
    expect(v.page.locator(SHOWN[step - 1]).first).to_be_visible()
    expect(v.page.locator(".walk-waiting")).to_have_count(0)


def table(v, name):
    """The cells of a number table as the reader sees them, with a plain minus."""
    v.page.wait_for_function(f"name => ({TABLE})(name)", arg=name)
    return [[cell.replace("−", "-") for cell in row] for row in v.page.evaluate(TABLE, name)]


def post(url, path, **body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def model_of(v):
    return v.page.locator("#model").input_value()


@pytest.fixture(params=["gpt2-nano", "SmolLM2-135M-Instruct"])
def either(request):
    return request.getfixturevalue("base_url" if request.param == "gpt2-nano" else "smol_url"), request.param


def test_steps_through_everything(visit, either):
    url, model = either
    v = walk(visit(url), model=model)
    for step in range(1, 9):
        expect(v.page.get_by_role("heading", name=f"{step}. {STEPS[step - 1]}")).to_be_visible()
        settled(v, step)
        expect(v.page.get_by_role("navigation", name="Steps of the walk").locator("[aria-current=step]")).to_contain_text(STEPS[step - 1])
        expect(v.page.get_by_role("math").first).to_be_visible()
        expect(v.page.get_by_role("complementary", name="What to try")).to_be_visible()
        if step < 8:
            v.page.get_by_role("button", name=re.compile("^Next")).click()
    expect(v.page).to_have_url(re.compile("step=8"))
    expect(v.page.get_by_role("button", name=re.compile("^Next"))).to_be_disabled()
    v.page.get_by_role("button", name=re.compile("Back")).click()
    expect(v.page.get_by_role("heading", name="7. The whole block")).to_be_visible()
    v.page.get_by_role("link", name=re.compile("Plain self attention")).click()
    settled(v, 3)
    assert v.complaints == [] and v.foreign() == []


@pytest.mark.parametrize("step,part,choice", [(3, "plain", None), (4, "rand", None), (4, "linear", "nn.Linear"), (5, "mask", None), (6, "heads", None)])
def test_worked_example_shows_the_numbers(visit, step, part, choice):
    v = walk(visit(), step, source="example")
    if choice:
        v.page.get_by_text(choice, exact=True).click()
        expect(v.page.get_by_text("what the notebook printed")).to_be_visible()
    for name, rows in GOLDEN[part].items():
        if name == "inputs x":
            assert [[f"{float(x):.4f}" for x in row] for row in table(v, name)] == rows
            continue
        assert table(v, name) == rows, name
    if part == "mask":
        assert table(v, "causal mask") == [["1" if c <= r else "0" for c in range(6)] for r in range(6)]
    assert v.complaints == []


def test_worked_example_says_where_the_notebook_is_wrong(visit):
    v = walk(visit(), 4, source="example")
    v.page.get_by_text("nn.Linear", exact=True).click()
    expect(v.page.get_by_role("region", name="The notebook's slip")).to_contain_text("multiplies by the variable")
    v.page.get_by_role("button", name=re.compile("^Next")).click()
    expect(v.page.get_by_text("dropout never acts there")).to_be_visible()
    v.page.get_by_role("button", name=re.compile("^Next")).click()
    expect(v.page.get_by_text("would fail wherever")).to_be_visible()


def test_inputs_of_the_example_may_be_changed(visit):
    v = walk(visit(), 3, source="example")
    before = table(v, "scores = x xᵀ")
    v.page.get_by_label("inputs x, Your, x₀").fill("1")
    now = f"{1 + 0.15 ** 2 + 0.89 ** 2:.4f}"
    assert before[0][0] != now
    v.page.wait_for_function(f"now => ({TABLE})('scores = x xᵀ')[0][0] === now", arg=now)
    v.page.get_by_role("button", name=re.compile("^Next")).click()
    assert table(v, "queries = x W_q")[0] != GOLDEN["rand"]["queries = x W_q"][0], "the next step goes on with the same numbers"
    v.page.get_by_role("button", name="Back to the example's").click()
    v.page.wait_for_function(f"want => ({TABLE})('queries = x W_q')[0][0] === want", arg=GOLDEN["rand"]["queries = x W_q"][0][0])


def test_order_is_seen_only_with_positions(visit, either):
    url, model = either
    v = walk(visit(url), 2, model=model)
    demo = v.page.get_by_role("region", name="The order of words")
    settings = demo.locator(".walk-setting")
    expect(settings).to_have_count(3)
    for at, (name, verdict) in enumerate([("no positions, no mask", "identical"), ("positions, no mask", "different"), ("no positions, causal mask", "different")]):
        expect(settings.nth(at).get_by_role("heading")).to_have_text(name)
        expect(settings.nth(at).locator(".tag")).to_have_text(verdict)
        expect(settings.nth(at).locator("tbody tr")).to_have_count(4)
    rows = table(v, "␣man: no positions, no mask")
    assert rows[0][:6] == rows[1][:6] and {x.lstrip("-") for x in rows[2][:6]} == {"0.0000"}
    rows = table(v, "␣man: positions, no mask")
    assert rows[0][:6] != rows[1][:6]
    demo.get_by_role("button", name="␣dog").click()
    table(v, "␣dog: positions, no mask")
    demo.get_by_label("Sentence B").fill("The man slept")
    expect(settings.first.locator("tbody tr")).to_have_count(2)  # man, the
    demo.get_by_label("Sentence B").fill("Nothing alike")
    expect(demo).to_contain_text("no word in common")


def test_learned_positions_are_rows_that_are_added(visit):
    v = walk(visit(), 2)
    settled(v, 2)
    token, position, total = (table(v, name) for name in ("token rows", "position rows", "their sum"))
    assert all(abs(float(a) + float(b) - float(c)) < 1.6e-4 for x, y, z in zip(token, position, total) for a, b, c in zip(x[:12], y, z))
    expect(v.page.get_by_text("116 more columns").first).to_be_visible()
    expect(v.page.get_by_role("region", name="Rotary positions")).to_have_count(0)


def test_rotary_positions_turn_queries(visit, smol_url):
    v = walk(visit(smol_url), 2, model="SmolLM2-135M-Instruct", head=2)
    rotary = v.page.get_by_role("region", name="Rotary positions")
    expect(rotary.locator(".walk-finding")).to_contain_text("as the formula says")
    expect(v.page.get_by_text("position rows", exact=True)).to_have_count(0)
    before, after = table(v, "queries of block 0, head 2, before"), table(v, "the same queries, turned")
    assert before[0] == after[0] and before[1] != after[1], "position 0 is not turned, position 1 is"
    assert table(v, "angles in radians")[1][:2] == ["1.0000", f"{100_000 ** (-10 / 64):.4f}"]
    rotary.get_by_role("slider").nth(1).fill("0")
    expect(rotary.locator(".walk-turn-controls .stats")).to_contain_text("angle 0 rad")


def test_the_arrays_are_the_model_s(visit, smol_url):
    v = walk(visit(smol_url), 5, model="SmolLM2-135M-Instruct", layer=7, head=4)
    settled(v, 5)
    look = post(smol_url, "/v1/inspect", model=model_of(v), prompt=SENTENCE, layer=7, head=4, what=["weights", "scores"])
    n = look["weights"]["shape"][0]
    assert [[float(x) for x in row] for row in table(v, "weights")] == [[round(look["weights"]["data"][r * n + c], 2) for c in range(n)] for r in range(n)]
    assert [row.index("-∞") if "-∞" in row else n for row in table(v, "scores, masked")] == list(range(1, n + 1))
    expect(v.page.locator(".walk-finding .tag")).to_have_text("equal")
    v.page.get_by_label("Layer").select_option("0")
    expect(v.page.get_by_text("Block 0, head 4, as served.")).to_be_visible()
    assert "layer=0" not in v.page.url, "the first layer needs no word in the address"
    v.page.get_by_role("button", name=re.compile("^Next")).click()
    expect(v.page.locator(".walk-group")).to_have_count(3)
    expect(v.page.get_by_text("Grouped queries:")).to_be_visible()
    v.page.get_by_role("button", name=re.compile("Head 5 ")).click()
    table(v, "weights of head 5")
    v.page.get_by_role("button", name=re.compile("^Next")).click()
    v.page.get_by_role("group", name="The block's parts").get_by_role("button", name=re.compile("^MLP")).click()
    expect(v.page.get_by_text("Much of what a model knows")).to_be_visible()


def test_next_token_is_what_completions_say(visit, either):
    url, model = either
    v = walk(visit(url), 8, model=model)
    settled(v, 8)
    best = post(url, "/v1/completions", model=model, prompt=SENTENCE, max_tokens=1, logprobs=20, temperature=0, return_token_ids=True)["choices"][0]["logprobs"]
    ids = [int(x) for x in v.page.locator("#walk-next tbody td:nth-child(2)").all_inner_texts()]
    wanted = best["top_token_ids"][0]
    assert len(ids) == 20 and ids[:len(wanted)] == wanted[:20]
    first = v.page.locator("#walk-next tbody tr").first
    shares = [float(x.strip("<%")) for x in v.page.locator("#walk-next tbody td:nth-child(4)").all_inner_texts()]
    assert abs(sum(shares) - 100) < 10
    slider = v.page.get_by_role("slider", name=re.compile("Temperature"))
    slider.fill("0")
    expect(first.locator("td").nth(2)).to_have_text("100%")
    slider.fill("2")
    expect(first.locator("td").nth(2)).not_to_have_text("100%")


def test_taken_token_is_appended_and_walked_again(visit, smol_url):
    v = walk(visit(smol_url), 8, "The capital of France is", model="SmolLM2-135M-Instruct")
    settled(v, 8)
    v.page.get_by_role("slider", name=re.compile("Temperature")).fill("0")
    likeliest = v.page.locator("#walk-next tbody tr").first.get_by_role("button")
    word = likeliest.inner_text().replace("␣", " ")
    v.page.get_by_role("button", name="Take one").click()
    expect(v.page.get_by_label("Text", exact=True)).to_have_value(f"The capital of France is{word}")
    expect(v.page.locator(".walk-text .tok")).to_have_count(6)
    likeliest.click()
    expect(v.page.locator(".walk-text .tok")).to_have_count(7)
    v.page.get_by_role("link", name="Walk through it again").click()
    settled(v, 1)
    expect(v.page.locator("#walk-tokens tbody tr")).to_have_count(7)
    walk(v, 8, None, first=3)  # of a text that is cut nothing is taken: it would not be seen
    expect(v.page.locator(".walk-text .tok")).to_have_count(3)
    expect(v.page.get_by_role("button", name="Take one")).to_be_disabled()
    expect(v.page.get_by_text("Only the beginning of the text is looked at")).to_be_visible()


def test_keyboard(visit):
    v = walk(visit(), 3)
    settled(v, 3)
    v.page.locator("#walk-title").focus()
    v.page.keyboard.press("ArrowRight")
    expect(v.page.get_by_role("heading", name="4. Queries, keys, values")).to_be_focused()
    v.page.keyboard.press("ArrowLeft")
    settled(v, 3)
    v.page.get_by_label("Text", exact=True).press("ArrowRight")
    cells = v.page.get_by_role("group", name=re.compile("^scores = x xᵀ, "))
    cells.focus()
    v.page.keyboard.press("ArrowRight")
    v.page.keyboard.press("ArrowRight")
    v.page.keyboard.press("ArrowDown")
    expect(v.page.locator("figure", has=cells).get_by_role("status")).to_contain_text("h, h: ")  # row 1, column 1 of T, h, e, ...
    v.page.keyboard.press("Enter")
    expect(v.page.get_by_text("the row of “h” by hand")).to_be_visible()
    expect(v.page.get_by_role("heading", name="3. Plain self attention")).to_be_visible()


def test_the_browser_s_back_button_goes_a_step_back(visit):
    v = visit()
    v.open("complete")
    walk(v, 1, None)
    v.page.get_by_role("button", name=re.compile("^Next")).click()
    expect(v.page.get_by_role("heading", name="2. Embeddings and positions")).to_be_focused()
    v.page.keyboard.press("ArrowRight")
    v.page.keyboard.press("ArrowRight")
    expect(v.page.get_by_role("heading", name="4. Queries, keys, values")).to_be_visible()
    for step in (3, 2, 1):
        v.page.go_back()
        expect(v.page.get_by_role("heading", name=f"{step}. {STEPS[step - 1]}")).to_be_visible()
    v.page.go_forward()
    expect(v.page.get_by_role("heading", name="2. Embeddings and positions")).to_be_visible()
    v.page.go_back()
    v.page.go_back()
    expect(v.page).to_have_url(re.compile("#complete"))


def test_bytes_of_half_characters(visit):
    v = walk(visit(), 1, "é<b>")
    expect(v.page.locator("#walk-tokens code")).to_have_text(["c3", "a9", "3c", "62", "3e"])
    assert v.page.locator("#walk-tokens b").count() == 0


@pytest.mark.parametrize("scheme,steps,example", [("light", range(1, 9), (4, 6)), ("dark", (2, 5, 7), (5,))])
def test_accessible(visit, smol_url, scheme, steps, example):
    v = walk(visit(smol_url, color_scheme=scheme), model="SmolLM2-135M-Instruct")
    for source, some in (("", steps), ("example", example)):
        for step in some:
            walk(v, step, None, source=source)
            if not source:
                settled(v, step)
            expect(v.page.locator(".walk-waiting")).to_have_count(0)
            assert v.serious() == [], f"step {step} {source}"
            v.shot(f"walk-{source}{step}-1440-{scheme}")


def test_fits_a_phone(visit, smol_url):
    v = walk(visit(smol_url, viewport={"width": 390, "height": 844}, has_touch=True), model="SmolLM2-135M-Instruct")
    for source in ("", "example"):
        for step in range(3 if source else 1, 7 if source else 9):
            walk(v, step, None, source=source)
            if not source:
                settled(v, step)
            expect(v.page.locator(".walk-waiting")).to_have_count(0)
            assert v.fits(), f"step {step} {source}"
            v.shot(f"walk-{source}{step}-390")
    assert v.complaints == []
