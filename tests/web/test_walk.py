# SPDX-License-Identifier: MIT
"""The guided walk of Inside: what a reader sees in its eight steps, on learned and on rotary positions, and the worked example to the last digit."""
import json
import math
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
    expect(settings).to_have_count(4)
    for at, (name, verdict) in enumerate([("no positions, no mask", "identical"), ("positions, no mask", "different"), ("no positions, causal mask", "different"),
                                          ("positions, causal mask: the model's own", "different")]):
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
    rotary.get_by_role("slider").nth(1).fill("16")
    expect(rotary.locator(".walk-turn-controls .stats")).to_contain_text("angle 16 rad = 2 turns + 196.7°")
    expect(v.page.get_by_role("complementary", name="What to try")).to_contain_text("and so does the mask")


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


@pytest.mark.parametrize("norm,layer", [("norm 1", 0), ("norm 2", 3)])
def test_a_norm_can_be_followed_by_hand(visit, either, norm, layer):
    """Divided by what is said, all words are as long as said; times the weights (plus the biases) it is the norm that the model has, in every digit shown."""
    url, model = either
    v = walk(visit(url), 7, model=model, layer=layer)
    v.page.get_by_role("group", name="The block's parts").get_by_role("button", name=re.compile(f"^{norm}")).click()
    block = post(url, "/v1/inspect", model=model, prompt=SENTENCE, layer=layer, what=["block"])["block"]
    n, width = block["shape"]
    rows = lambda name: [block[name]["data"][t * width:(t + 1) * width] for t in range(n)]
    x, wanted = rows("input"), rows(norm.replace(" ", ""))
    if norm == "norm 2":
        x = [[a + b for a, b in zip(one, more)] for one, more in zip(x, rows("attention"))]
    layernorm = model == "gpt2-nano"
    expect(v.page.locator(".walk-part")).to_contain_text("LayerNorm: each word's mean" if layernorm else "RMSNorm: each word's numbers are divided by their root mean square")
    words = table(v, "of each word")
    for t, row in enumerate(words):
        mean = sum(x[t]) / width if layernorm else 0
        size = (sum((one - mean) ** 2 for one in x[t]) / width + 1e-5) ** 0.5
        assert abs(float(row[-2]) - size) < 6e-5 * max(1, size) and abs(float(row[-1]) - width ** 0.5) < 0.03 and (not layernorm or abs(float(row[0]) - mean) < 6e-5)
    expect(v.page.get_by_text(f"about √{width} = ")).to_be_visible()
    t, digits = 1, 2e-4
    hand = [[float(one) for one in row[:6]] for row in table(v, v.page.locator(".walk-part figcaption strong", has_text="the row of").inner_text())]
    own, divided, weights, biases, made = (hand[0], hand[2], hand[3], hand[4], hand[5]) if layernorm else (hand[0], hand[1], hand[2], [0] * 6, hand[3])
    for c in range(6):
        assert abs(own[c] - x[t][c]) < digits and abs(made[c] - wanted[t][c]) < digits
        assert abs(divided[c] * weights[c] + biases[c] - made[c]) < 4 * digits * max(1, abs(divided[c]), abs(weights[c]))
    expect(v.page.locator(".walk-part .matrix > .hint", has_text="they fit up to")).to_have_text(re.compile(r"10⁻[⁵⁶⁷⁸⁹]\. ε = 0\.00001\."))


def test_what_is_said_of_matrices_is_true_of_the_model(visit, either):
    """Biases, turns, shared keys and values, dropout: each said where it is so."""
    url, model = either
    gpt2 = model == "gpt2-nano"
    v = walk(visit(url), 4, model=model, layer=1)
    formula = v.page.get_by_role("math").first
    expect(formula).to_have_text(re.compile(re.escape("q = x Wq + bq, k = x Wk + bk, v = x Wv + bv" if gpt2 else "q = turned(x Wq), k = turned(x Wk), v = x Wv,")))
    expect(v.page.get_by_text("What block 1 reads, which block 0 has made, after its first norm")).to_be_visible()
    block = post(url, "/v1/inspect", model=model, prompt=SENTENCE, layer=1, what=["block"])["block"]["norm1"]
    assert [abs(float(x) - y) < 6e-4 for x, y in zip(table(v, "x, normed")[0][:4], block["data"])] == [True] * 4
    hand = v.page.get_by_role("group", name=re.compile("^the row of")).locator("tbody tr")
    expect(hand.locator("th")).to_have_text(["score s", "s / √d", re.compile(r"^exp\(s / √d( − max)?\)$"), "softmax"])
    v.page.get_by_role("button", name=re.compile("^Next")).click()
    expect(v.page.get_by_text("GPT-2 was trained so with p = 0.1")).to_contain_text("models of the Llama class usually without" if gpt2 else "models of the Llama class, as this one, usually without")
    v.page.get_by_role("button", name=re.compile("^Next")).click()
    expect(formula).to_have_text(re.compile(r"Wo \+ bo$" if gpt2 else "Wo$"))
    expect(v.page.locator(".walk-say")).to_contain_text("each with queries, keys and values of its own" if gpt2 else "queries of its own and keys and values that it shares with its group")
    settled(v, 6)
    expect(v.page.get_by_role("img", name="The colours of weights from 0 to 100%")).to_be_visible()
    shares = [float(one.rsplit(" ", 1)[1].strip("%")) for one in v.page.locator(".walk-head .hint").all_inner_texts() if one != "several words"]
    assert all(one >= 50 for one in shares), shares


def test_logits_by_hand(visit, either):
    """Each row's logit less the largest, e to its power over the sum that is named, is the model's probability."""
    url, model = either
    v = walk(visit(url), 8, model=model)
    settled(v, 8)
    found = re.search(r"is ([\d.]+)\. Each token's part", v.page.locator(".walk-step").inner_text())
    for row in v.page.locator("#walk-next tbody tr").all():
        logit, share = row.locator("td").nth(1).inner_text().replace("−", "-"), row.locator("td").nth(2).inner_text()
        p = 100 * math.exp(float(logit)) / float(found[1])
        assert abs(p - float(share.strip("<%"))) < max(0.06, 0.5 * (p >= 10)), (logit, share)


def test_nothing_is_drawn_that_is_no_text(visit, smol_url):
    """After an emoji the likeliest token is a part of a character: temperature 0 takes the likeliest that can be appended, and says so."""
    v = walk(visit(smol_url), 8, "I love you so much 😀", model="SmolLM2-135M-Instruct")
    settled(v, 8)
    rows = v.page.locator("#walk-next tbody tr")
    parts = rows.filter(has_text="‹")
    expect(parts.first.get_by_role("button")).to_have_text(re.compile(r"^‹\d+›$"))
    expect(parts.first.get_by_role("button")).to_be_disabled()
    expect(parts.first.locator("td").nth(3)).to_have_text("–")
    v.page.get_by_role("slider", name=re.compile("Temperature")).fill("0")
    whole = rows.filter(has_not_text="‹").first
    expect(whole.locator("td").nth(3)).to_have_text("100%")
    word = whole.get_by_role("button").inner_text()
    v.page.get_by_role("button", name="Take one").click()
    text = v.page.get_by_label("Text", exact=True)
    expect(text).to_have_value("I love you so much 😀" + word.replace("␣", " ").replace("⏎", "\n"))
    said = v.page.get_by_text(f"Took “{word}”")
    expect(said).to_be_visible()
    text.fill("Another text")
    expect(v.page.locator(".walk-text")).to_have_text("Another text…")
    expect(said).to_have_count(0)


def test_next_token_is_what_completions_say(visit, either):
    url, model = either
    v = walk(visit(url), 8, model=model)
    settled(v, 8)
    best = post(url, "/v1/completions", model=model, prompt=SENTENCE, max_tokens=1, logprobs=20, temperature=0, return_token_ids=True)["choices"][0]["logprobs"]
    ids = [int(x) for x in v.page.locator("#walk-next tbody td:nth-child(2)").all_inner_texts()]
    wanted = best["top_token_ids"][0]
    assert len(ids) == 20 and ids[:len(wanted)] == wanted[:20]
    first = v.page.locator("#walk-next tbody tr").filter(has_not_text="–").first  # the others are parts of a character
    shares = [float(x.strip("<%")) for x in v.page.locator("#walk-next tbody td:nth-child(5)").all_inner_texts() if x != "–"]
    assert abs(sum(shares) - 100) < 3
    slider = v.page.get_by_role("slider", name=re.compile("Temperature"))
    slider.fill("0")
    expect(first.locator("td").nth(3)).to_have_text("100%")
    slider.fill("2")
    expect(first.locator("td").nth(3)).not_to_have_text("100%")


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
