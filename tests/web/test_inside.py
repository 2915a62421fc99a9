# SPDX-License-Identifier: MIT
"""Inside: the attention of all heads, the lens, neighbours and silenced heads, against what the server answers."""
import base64
import json
import re
import shutil
import struct
import sys
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "api"))
from adapters import make_adapter  # noqa: E402
from serving import Server, make_nano  # noqa: E402

SMOL = "SmolLM2-135M-Instruct"
TEXT = "The old man chased the dog. Then the dog chased the"
TIMES = "it was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "


def post(url, path, **body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def inspect(url, model=SMOL, prompt=TEXT, **body):
    return post(url, "/v1/inspect", model=model, prompt=prompt, **body)


def visible(text):
    return re.sub(r"^ +| +$", lambda blanks: "␣" * len(blanks[0]), text.replace("\n", "⏎")) or "∅"


def percent(p):
    x = p * 100
    if x >= 99.95 or x == 0:
        return f"{x:.0f}%"
    digits = 0 if x >= 10 else 1 if x >= 0.095 else 2
    return f"{x:.{digits}f}%" if x >= 0.0095 else "<0.01%"


def number(x, digits=3):
    """As format.js writes it."""
    if 0 < abs(x) < 1e-4:
        return re.sub(r"e([-+])0", r"e\1", f"{x:.{digits - 1}e}")
    return "%g" % float(f"{x:.{digits}g}")


@pytest.fixture
def inside(visit, smol_url):
    def at(tab, text=None, url=smol_url, **options):
        v = visit(url, **options)
        v.open(f"inside?tab={tab}")
        if text is not None:
            v.page.locator("#inside-text").fill(text)
        return v
    return at


# ---------------------------------------------------------------- the frame

def test_one_text_for_all_parts(inside):
    """The text is counted, survives a reload, and every part is a link that keeps it."""
    v = inside("neighbours", "One two three")
    expect(v.page.locator("#inside-count")).to_have_text("3 tokens")
    expect(v.page.locator("#inside-of-text [role=option]")).to_have_text(["One", " two", " three"])
    v.page.get_by_role("navigation", name="Parts of Inside").get_by_role("link", name="Lens").click()
    expect(v.page.locator(".inside-lens thead th")).to_have_text(["after", "One", "␣two", "␣three"])
    v.page.reload()
    expect(v.page.locator(".inside-lens thead th")).to_have_count(4)
    expect(v.page.locator("#inside-text")).to_have_value("One two three")
    expect(v.page.get_by_role("main")).to_contain_text("rotary")
    v.page.go_back()
    expect(v.page.locator("#inside-of-text")).to_be_visible()
    assert v.complaints == [] and v.foreign() == []


def test_nothing_to_look_at(inside):
    v = inside("attention", " ")
    expect(v.page.get_by_text("Nothing to look at yet")).to_be_visible()
    v.page.get_by_role("button", name="Facts").click()
    expect(v.page.locator("#inside-all canvas")).to_be_visible()
    assert v.complaints == []


def test_a_long_text_can_be_looked_at_in_part(inside, smol_url):
    """The server's bound is said in its own words; its first so many tokens are one click away, and all of a head's cells are there."""
    v = inside("attention", TIMES * 30)
    expect(v.page.get_by_text("The text is too long to look inside")).to_be_visible()
    expect(v.page.get_by_role("main")).to_contain_text("512 can be looked at")
    v.page.get_by_role("button", name="Look at the first 512 tokens").click()
    expect(v.page.locator("#inside-count")).to_have_text("the first 512 tokens")
    expect(v.page.locator("#inside-all")).to_contain_text("The first 249 of 512 tokens")  # the maps of all heads of more are above the server's bound
    expect(v.page.locator(".inside-map canvas")).to_be_visible()
    expect(v.page.locator("#inside-cell")).to_contain_text("(511)")
    v.page.get_by_role("button", name="Look at all").click()
    expect(v.page.get_by_text("The text is too long to look inside")).to_be_visible()
    assert all("400" in c for c in v.complaints), v.complaints  # chromium names refused requests


def test_hostile_text_is_text(inside):
    hostile = "<img src=x onerror=alert(1)> \u202eabc \u05e9\u05dc\u05d5\u05dd 👩\u200d🚀 </script>\n\n\t" + "w" * 80
    v = inside("attention", hostile)
    v.page.on("dialog", lambda dialog: pytest.fail("the text ran"))
    expect(v.page.locator(".inside-map canvas")).to_be_visible()
    for tab in ("lens", "neighbours", "heads"):
        v.open(f"inside?tab={tab}")
        expect(v.page.locator("#inside-lens td, #inside-of-text .bar, #inside-next .inside-pair").first).to_be_visible()
        assert v.page.locator("main img").count() == 0 and v.fits(), tab
    assert v.complaints == []


# ---------------------------------------------------------------- attention

def test_every_head_is_drawn(inside, smol_url):
    """30 rows of 9 maps; the pixels of a head are dark where its weights are large, and empty where the mask forbids."""
    v = inside("attention", TEXT)
    grid = v.page.locator(".inside-grid-maps")
    expect(v.page.locator(".inside-layers span")).to_have_count(30)
    expect(v.page.locator(".inside-heads span")).to_have_count(9)
    expect(v.page.locator("#inside-took")).to_contain_text("270 maps")
    expect(v.page.locator(".inside-map canvas")).to_be_visible()
    weights = inspect(smol_url, what=["weights"], layer=16, head=0)["weights"]
    n = weights["shape"][0]
    assert sum(weights["data"][q * n + q - 1] for q in range(2, n)) / (n - 2) > 0.5  # a head that looks one token back
    box = v.still(grid)
    step = box["width"] / 9
    read = """(canvas, at) => {
        const copy = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
        copy.drawImage(canvas, -at[0], -at[1]);
        return Array.from(copy.getImageData(0, 0, 1, 1).data);
    }"""
    pixel = lambda q, k: grid.locator("canvas").evaluate(read, [int((k + 0.5) * (step - 3) / n), int(16 * step + (q + 0.5) * (step - 3) / n)])
    assert pixel(2, 8)[3] == 0  # masked: nothing is drawn
    assert sum(pixel(9, 8)[:3]) < sum(pixel(9, 3)[:3]) - 150  # the token before is much darker than one further back
    assert v.complaints == []


def test_grid_opens_a_head_by_pointer_and_keys(inside):
    v = inside("attention", TEXT)
    grid = v.page.locator(".inside-grid-maps")
    expect(v.page.locator("#inside-took")).to_contain_text("270 maps")
    expect(v.page.locator(".inside-map canvas")).to_be_visible()
    box = v.still(grid)
    step = box["width"] / 9
    grid.hover(position={"x": step * 0.5, "y": step * 16.5})
    expect(v.page.locator("#inside-head")).to_contain_text("layer 16 · head 0 · mostly previous token")
    grid.click(position={"x": step * 5.5, "y": step * 3.5})
    expect(v.page.get_by_role("heading", name="Layer 3, head 5")).to_be_visible()
    expect(v.page).to_have_url(re.compile("layer=3&head=5"))
    grid.focus()
    v.page.mouse.move(0, 0)
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        v.page.keyboard.press(key)
    expect(v.page.get_by_role("heading", name="Layer 4, head 6")).to_be_visible()
    expect(v.page.locator("#inside-one")).to_contain_text("shares key/value head 2 with heads 6 to 8")
    v.page.reload()
    expect(v.page.get_by_role("heading", name="Layer 4, head 6")).to_be_visible()
    v.page.get_by_label("Layer", exact=True).select_option("16")
    v.page.get_by_label("Head", exact=True).select_option("0")
    expect(v.page.locator("#inside-one .tag")).to_have_text(re.compile(r"previous token \d+%"))


def test_exact_weights_under_pointer_and_arrow_keys(inside, smol_url):
    v = inside("attention", TEXT)
    v.open("inside?tab=attention&layer=3&head=5")
    told = inspect(smol_url, what=["weights"], layer=3, head=5)
    n, data, texts = told["weights"]["shape"][0], told["weights"]["data"], told["tokens"]["texts"]
    words = lambda q, k: f"{visible(texts[q])} ({q}) looks at {visible(texts[k])} ({k}): {number(data[q * n + k], 4)}"
    large, cell = v.page.locator(".inside-map"), v.page.locator("#inside-cell")
    expect(cell).to_contain_text(words(n - 1, n - 2))
    expect(cell).to_contain_text("row sums to 1.000")
    large.focus()
    v.page.keyboard.press("ArrowLeft")
    v.page.keyboard.press("ArrowUp")
    expect(cell).to_contain_text(words(n - 2, n - 3))
    expect(v.page.locator("#inside-one [role=status]")).to_contain_text(words(n - 2, n - 3))
    v.page.keyboard.press("End")
    expect(cell).to_contain_text("cannot see")
    box = v.still(large)
    cell_size = (box["width"] - 96) / n
    large.hover(position={"x": 96 + 4.5 * cell_size, "y": 96 + 7.5 * cell_size})
    expect(cell).to_contain_text(words(7, 4))
    assert v.complaints == []


def test_text_as_one_token_sees_it(inside, smol_url):
    v = inside("attention", TEXT)
    v.open("inside?tab=attention&layer=3&head=5")
    told = inspect(smol_url, what=["weights"], layer=3, head=5)
    n, data, texts = told["weights"]["shape"][0], told["weights"]["data"], told["tokens"]["texts"]
    strip, bars = v.page.locator(".inside-from [role=option]"), v.page.locator(".inside-from .bar")
    strip.nth(5).click()
    best = sorted(range(6), key=lambda k: -data[5 * n + k])
    expect(bars.first).to_contain_text(visible(texts[best[0]]))
    expect(bars.first).to_contain_text(number(data[5 * n + best[0]]))
    expect(bars).to_have_count(6)
    expect(strip.nth(7)).to_have_attribute("title", re.compile("masked"))
    v.page.get_by_text("is looked at by", exact=True).click()
    lookers = sorted(range(5, n), key=lambda q: -data[q * n + 5])
    expect(bars.first).to_contain_text(f"{visible(texts[lookers[0]])} {lookers[0]}")
    v.page.locator(".inside-from [role=listbox]").focus()
    v.page.keyboard.press("ArrowRight")
    expect(strip.nth(6)).to_have_attribute("aria-selected", "true")
    assert v.complaints == []


def test_heads_of_one_kind_stand_out(inside):
    v = inside("attention", TIMES * 3)
    chip = v.page.get_by_role("button", name=re.compile("^what followed last time"))
    expect(chip).to_be_visible()
    expect(v.page.locator("#inside-took")).to_contain_text("270 maps")
    shot = lambda: v.page.locator(".inside-grid-maps canvas").evaluate("c => c.toDataURL()")
    before = shot()
    chip.click()
    expect(chip).to_have_attribute("aria-pressed", "true")
    v.page.wait_for_function("before => document.querySelector('.inside-grid-maps canvas').toDataURL() !== before", arg=before)
    chip.click()
    v.page.wait_for_function("before => document.querySelector('.inside-grid-maps canvas').toDataURL() === before", arg=before)


def test_all_heads_of_128_tokens(inside, smol_url):
    """270 maps of 128 x 128, all of one answer and in one picture, and what each part of it took; how soon they are there is tests/bench/page_speed.py's."""
    ids = post(smol_url, "/tokenize", model=SMOL, prompt="Once " + TIMES * 10)["tokens"][:128]
    v = inside("attention", post(smol_url, "/detokenize", model=SMOL, tokens=ids)["prompt"])
    expect(v.page.locator("#inside-count")).to_have_text("128 tokens")
    expect(v.page.get_by_role("img", name="Attention of 30 layers with 9 heads each over 128 tokens")).to_be_visible()
    took = v.page.locator("#inside-took [data-draw]")
    expect(took).to_contain_text("270 maps")
    print("all heads of 128 tokens, in ms:", took.evaluate("e => ({...e.dataset})"))
    v.shot("inside-attention-128")


def test_colours_follow_the_theme(inside):
    v = inside("attention", TEXT)
    canvas = v.page.locator(".inside-grid-maps canvas")
    expect(v.page.locator("#inside-took")).to_contain_text("270 maps")
    shot = canvas.evaluate("c => c.toDataURL()")
    v.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    v.page.wait_for_function("before => document.querySelector('.inside-grid-maps canvas').toDataURL() !== before", arg=shot)


# ---------------------------------------------------------------- lens

def test_lens_says_what_every_layer_would(inside, smol_url):
    v = inside("lens", TEXT)
    lens = inspect(smol_url, what=["lens"], lens_tokens=8)["lens"]
    rows, columns, k = lens["shape"]
    at = lambda row, column, i=0: (row * columns + column) * k + i
    cells = v.page.locator(".inside-lens tbody tr")
    expect(cells).to_have_count(31)
    expect(cells.nth(0).locator("th")).to_have_text("embedding")
    expect(cells.nth(30).locator("td")).to_have_text([visible(lens["texts"][at(30, c)]) for c in range(8)])
    expect(cells.nth(14).locator("td")).to_have_text([visible(lens["texts"][at(14, c)]) for c in range(8)])
    answer = lens["texts"][at(30, 7)]
    expect(v.page.locator("#lens-story")).to_contain_text(f"the model says {visible(answer)} with {percent(lens['probabilities'][at(30, 7)])}")
    v.page.locator("#lens-30-7").hover()
    bars = v.page.locator(".inside-lens-card .bar")
    expect(bars).to_have_count(5)
    expect(bars.first).to_contain_text(percent(lens["probabilities"][at(30, 7)]))
    expect(bars.nth(3)).to_contain_text(visible(lens["texts"][at(30, 7, 3)]))
    v.page.mouse.move(5, 5)
    expect(bars).to_have_count(0)
    v.page.locator(".inside-lens").focus()
    v.page.keyboard.press("ArrowUp")
    v.page.keyboard.press("ArrowUp")
    expect(v.page.locator(".inside-lens [role=status]")).to_contain_text(f"layer 28, after {visible(inspect(smol_url)['tokens']['texts'][-1])}: {visible(lens['texts'][at(29, 7)])}")
    v.page.get_by_text("4", exact=True).click()
    expect(v.page.locator(".inside-lens thead th")).to_have_count(5)
    assert v.complaints == []


def test_numbers_of_the_text_before_are_marked_as_such(inside):
    """From the first key on until the new text's numbers are there, the old ones are pale."""
    v = inside("lens", TEXT)
    expect(v.page.locator(".inside-lens thead th").last).to_have_text("␣the")
    pale, held, free = v.page.locator(".inside-part[aria-busy=true]"), [], []
    expect(pale).to_have_count(0)
    v.page.route("**/v1/inspect", lambda route: route.continue_() if free else held.append(route))
    with v.page.expect_request("**/v1/inspect"):
        v.page.locator("#inside-text").fill("One two")
        expect(pale.first).to_have_css("opacity", "0.45")
    expect(v.page.locator(".inside-lens thead th").last).to_have_text("␣the")
    free.append(True)
    for route in held:
        route.continue_()
    expect(v.page.locator(".inside-lens thead th").last).to_have_text("␣two")
    expect(pale).to_have_count(0)


# ---------------------------------------------------------------- neighbours

def test_neighbours_of_tokens_and_of_any_word(inside, smol_url):
    v = inside("neighbours", TEXT)
    told = inspect(smol_url, what=["neighbours"], top_k=3)["neighbours"]
    v.page.locator("#inside-of-text [role=option]").nth(1).click()
    bars = v.page.locator("#inside-of-text .bar")
    expect(bars.nth(0)).to_contain_text(visible(told["texts"][3]))
    expect(bars.nth(0)).to_contain_text(number(told["similarities"][3]))
    expect(bars.nth(2)).to_contain_text(visible(told["texts"][5]))
    bars.nth(0).click()  # on to the neighbour's neighbours, and back
    expect(v.page.locator("#inside-of-text .inside-near-head")).to_contain_text(f"id {told['ids'][3]}")
    v.page.get_by_role("button", name=re.compile("^←")).click()
    expect(v.page.locator("#inside-of-text .inside-near-head code")).to_have_text("␣old")
    v.page.get_by_label("Of any word").fill(" green")
    expect(v.page.locator("#inside-any .bar-text").filter(has_text=re.compile("^␣red$"))).to_be_visible()
    v.page.get_by_label("Of any word").fill(" unbelievabletable")
    expect(v.page.locator("#inside-any [role=option]")).not_to_have_count(1)
    assert v.complaints == []


# ---------------------------------------------------------------- heads

def test_silenced_heads_change_the_answer(inside, smol_url):
    v = inside("heads", TEXT)
    told = inspect(smol_url, what=["lens"], lens_tokens=1, layer=29, top_k=20)["lens"]
    without = inspect(smol_url, what=["lens"], lens_tokens=1, layer=29, top_k=20, ablate=[[0, h] for h in range(9)])["lens"]
    pairs, switches = v.page.locator("#inside-next .inside-pair"), v.page.locator(".inside-switch")
    expect(switches).to_have_count(270)
    expect(pairs.first).to_contain_text(visible(told["texts"][0]))
    expect(pairs.first).to_contain_text(percent(told["probabilities"][0]))
    v.page.get_by_role("button", name="layer 0 head 4").click()
    expect(v.page.get_by_role("button", name="layer 0 head 4, silenced")).to_have_attribute("aria-pressed", "true")
    expect(v.page).to_have_url(re.compile("off=0.4"))
    v.page.get_by_role("button", name="All heads of layer 0").click()
    expect(v.page.locator(".inside-switch[aria-pressed=true]")).to_have_count(9)
    expect(v.page.locator("#inside-next")).to_contain_text(f"{visible(without['texts'][0])} ({percent(without['probabilities'][0])})")
    before, after = ({i: p for i, p in zip(one["ids"], one["probabilities"])} for one in (told, without))
    floor = min(*before.values(), *after.values())
    most = max({**before, **after}, key=lambda i: abs(before.get(i, floor) - after.get(i, floor)))
    names = {**dict(zip(told["ids"], told["texts"])), **dict(zip(without["ids"], without["texts"]))}
    expect(pairs.first.locator("code")).to_have_text(visible(names[most]))
    v.page.reload()
    expect(v.page.locator(".inside-switch[aria-pressed=true]")).to_have_count(9)
    v.page.get_by_role("button", name="Let all speak").click()
    expect(v.page.locator(".inside-switch[aria-pressed=true]")).to_have_count(0)
    first = switches.nth(0)
    first.focus()
    v.page.keyboard.press("ArrowRight")
    v.page.keyboard.press("Space")
    expect(v.page.get_by_role("button", name="layer 0 head 1, silenced")).to_be_focused()
    assert v.complaints == []


def test_which_head_matters_most(inside, smol_url):
    """Every head of a layer is tried alone; the bars are what the server answers for each; a run can be stopped."""
    v = inside("heads", TEXT)
    v.open("inside?tab=heads&layer=1")
    told = inspect(smol_url, what=["lens"], lens_tokens=1, layer=29, top_k=20)["lens"]
    v.page.locator("#inside-next .inside-pair").nth(1).click()
    word = told["ids"][1]
    v.page.get_by_role("button", name="Try the 9 heads of layer 1").click()
    rows = v.page.locator(".inside-changes li")
    expect(rows).to_have_count(9)
    expect(rows.nth(8)).to_contain_text("points")
    alone = inspect(smol_url, what=["lens"], lens_tokens=1, layer=29, top_k=20, ablate=[[1, 4]])["lens"]
    p = alone["probabilities"][alone["ids"].index(word)]
    expect(rows.nth(4)).to_contain_text(percent(p))
    expect(rows.nth(4).locator("i")).to_have_class("less" if p < told["probabilities"][1] else "more")
    expect(v.page.locator("[data-at='1.4']")).to_have_attribute("aria-label", re.compile("instead of"))
    v.page.route("**/v1/inspect", lambda route: None)  # no answer comes while it is looked
    v.page.get_by_role("button", name="Try all 270").click()
    expect(v.page.locator("#inside-trial progress")).to_be_visible()
    v.page.get_by_role("button", name="Stop").click()
    expect(v.page.locator("#inside-trial progress")).to_have_count(0)
    assert v.complaints == []


def test_what_nobody_waits_for_is_given_up(inside, smol_url):
    """A text typed on cancels the question about the old one: one answer is shown, the last text's."""
    v = inside("lens")
    v.page.route("**/v1/inspect", lambda route: None if "lens" in route.request.post_data and len(route.request.post_data) > 1000 else route.continue_())  # that answer takes for ever
    with v.page.expect_request(lambda r: "/v1/inspect" in r.url and "lens" in r.post_data and len(r.post_data) > 1000):
        v.page.locator("#inside-text").fill(TIMES * 16)
    v.page.locator("#inside-text").fill("Short text")
    expect(v.page.locator(".inside-lens thead th")).to_have_text(["after", "Short", "␣text"])
    asked = [r for r in v.requests if "/v1/inspect" in r.url and len(r.post_data) > 1000 and "lens" in r.post_data]
    assert asked and all(r.failure for r in asked)
    assert v.complaints == []


# ---------------------------------------------------------------- other models

@pytest.fixture(scope="module")
def odd_url(nano, tmp_path_factory):
    """A model without tokenizer, a small llama whose heads share keys, an adapter of gpt2-nano."""
    folder = tmp_path_factory.mktemp("odd")
    bare, llama = make_nano(folder / "bare"), make_nano(folder / "llama", "--arch", "llama", "--heads", "4", "--kv-heads", "2")
    for name in ("vocab.json", "merges.txt"):
        (bare / name).unlink()
    make_adapter(folder / "tuned", {"transformer.h.0.attn.c_attn": (128, 384)}, base=str(nano))
    with Server("--model", f"bare={bare}", "--model", f"llama={llama}", "--model", f"tuned={folder / 'tuned'}") as server:
        yield server.url
    shutil.rmtree(folder)


@pytest.mark.parametrize("model", ["bare", "llama", "tuned"])
def test_works_on_any_model(inside, odd_url, model):
    v = inside("attention", url=odd_url)
    v.page.locator("#model").select_option(model)
    if model == "bare":
        v.page.get_by_label("Token ids").fill("5 6 7 5 6")
        expect(v.page.locator("#inside-count")).to_have_text("5 tokens")
    expect(v.page.locator(".inside-map canvas")).to_be_visible()
    layers = inspect(odd_url, model=model, prompt=[1])["architecture"]["n_layer"]
    expect(v.page.locator(".inside-layers span")).to_have_count(layers)
    if model == "llama":
        expect(v.page.locator("#inside-one")).to_contain_text(re.compile(r"shares key/value head [01] with heads (0 to 1|2 to 3)"))
    for tab, there in (("lens", "#inside-lens td"), ("neighbours", "#inside-of-text .bar"), ("heads", "#inside-next .inside-pair")):
        v.open(f"inside?tab={tab}")
        expect(v.page.locator(there).first).to_be_visible()
    if model == "bare":
        expect(v.page.locator("#inside-next code").first).to_contain_text("<")
        v.page.get_by_label("Token ids").fill("5 x")
        expect(v.page.locator(".empty-state")).to_be_visible()
    assert all("400" in c for c in v.complaints), v.complaints


def test_works_on_gpt2_nano(inside, base_url):
    v = inside("attention", "hällo hällo", url=base_url)
    expect(v.page.locator(".inside-layers span")).to_have_count(4)
    expect(v.page.get_by_role("main")).to_contain_text("learned")
    exact = inspect(base_url, model="gpt2-nano", prompt="hällo hällo", what=["weights"], layer=0, head=0, encoding="float32")["weights"]
    half = inspect(base_url, model="gpt2-nano", prompt="hällo hällo")["tokens"]
    assert half["texts"][1] == "\ufffd"  # ä is two tokens: each is named by its id
    expect(v.page.locator(".inside-from [role=option]").nth(1)).to_have_text(f"‹{half['ids'][1]}›")
    data = struct.unpack(f"<{13 * 13}f", base64.b64decode(exact["data"]))
    v.open("inside?tab=attention&layer=0&head=0")
    expect(v.page.locator("#inside-cell")).to_contain_text(number(data[12 * 13 + 11], 4))
    assert v.complaints == [] and v.foreign() == []


def test_a_model_in_training_is_looked_at_again(visit, base_url):
    """What it answers is not kept, and a button asks once more. The list of models is made to call gpt2-nano one."""
    v = visit(base_url)

    def as_live(route):
        told = route.fetch().json()
        for model in told["data"]:
            model["couplet"]["origin"] = "live"
        route.fulfill(json=told)

    v.page.route("**/v1/models", as_live)
    v.page.reload()
    v.open("inside?tab=lens")
    expect(v.page.locator("#inside-lens td").first).to_be_visible()
    asked = lambda: len([r for r in v.requests if "/v1/inspect" in r.url and "lens" in r.post_data])
    before = asked()
    with v.page.expect_response(lambda r: "/v1/inspect" in r.url and "lens" in r.request.post_data):
        v.page.get_by_role("button", name="Look again").click()
    expect(v.page.locator("#inside-lens td").first).to_be_visible()
    assert asked() == before + 1 and v.complaints == []


# ---------------------------------------------------------------- looks

PARTS = [("attention", ".inside-map canvas"), ("lens", "#inside-lens td"), ("neighbours", "#inside-any .bar"), ("heads", "#inside-next .inside-pair")]


@pytest.mark.parametrize("width", [1440, 390])
def test_looks(inside, width):
    """Every part fits and has no serious finding, by day and by night."""
    v = inside("attention", TEXT, viewport={"width": width, "height": 900})
    for tab, ready in PARTS:
        v.open(f"inside?tab={tab}")
        expect(v.page.locator(ready).first).to_be_visible()
        if tab == "heads":
            v.page.get_by_role("button", name="layer 3 head 2", exact=True).click()
            expect(v.page.locator(".inside-bar.after").first).to_be_visible()
        expect(v.page.locator("[aria-busy=true]")).to_have_count(0)
        for scheme in ("light", "dark"):
            v.page.emulate_media(color_scheme=scheme)
            assert v.serious() == [], (tab, scheme)
            v.shot(f"inside-{tab}-{width}-{scheme}")
        assert v.fits(), tab
    assert v.complaints == []


def test_pointing_with_many_tokens(inside):
    """Moving over the large map of 480 tokens, and choosing another token: each is followed. Says what a move costs."""
    v = inside("attention", "a " * 480)
    v.open("inside?tab=attention&layer=0&head=0")
    expect(v.page.locator("#inside-cell")).to_contain_text("(479)")
    median = v.page.evaluate("""async () => {
        const time = async (act, n) => {
            const took = [];
            for (let i = 0; i < n; i++) {
                const began = performance.now();
                act(i);
                for (let turn = 0; turn < 5; turn++) await Promise.resolve(); // Preact draws in a microtask
                document.body.getBoundingClientRect(); // and the browser lays out
                took.push(performance.now() - began);
                await new Promise(requestAnimationFrame);
            }
            return took.sort((a, b) => a - b)[n >> 1];
        };
        const map = document.querySelector('.inside-map'), box = map.getBoundingClientRect(), tokens = document.querySelectorAll('.inside-from [role=option]');
        const point = (i) => map.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientX: box.left + 20 + i * 3, clientY: box.top + 300 - i}));
        return [await time(point, 40), await time((i) => tokens[i * 5].click(), 20)];
    }""")
    print("a move over the map, a choice of a token", f"{median[0]:.1f}, {median[1]:.1f} ms")
    expect(v.page.locator("#inside-cell")).to_have_text(re.compile(r"^␣a \("))
    expect(v.page.locator(".inside-from [role=option]").nth(95)).to_have_attribute("aria-selected", "true")
