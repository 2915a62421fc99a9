# SPDX-License-Identifier: MIT
"""Complete on SmolLM2: steering token by token, nothing lost, everything to take along."""
import json
import re
import subprocess
import sys

import httpx
import pytest
from playwright.sync_api import expect

PROMPT = "The cat sat on the"


@pytest.fixture
def complete(visit, smol_url):
    v = visit(smol_url)
    start(v)
    return v


def start(v, prompt=PROMPT, **sampling):
    v.keep(prompt=prompt, sampling={"temperature": 0.7, "seed": 3, "max_tokens": 10, **sampling})
    v.page.reload()
    expect(v.page.locator("#model")).to_have_value("SmolLM2-135M-Instruct")


def finished(v):
    expect(v.page.locator("#stats")).to_contain_text("tokens/s")
    expect(v.page.locator("#stop")).to_be_hidden()


def run(v):
    with v.page.expect_request("**/completions"):
        v.page.locator("#run").click()
    finished(v)
    return v.page.locator("#answer").inner_text()


def button(v, name):
    return v.page.get_by_role("button", name=name, exact=True)


def test_a_token_shows_what_it_was_chosen_from(complete):
    run(complete)
    complete.page.locator("#answer .tok").nth(1).hover()
    card = complete.page.locator(".token-card")
    expect(card).to_contain_text(re.compile(r"id \d+"))
    expect(card).to_contain_text(re.compile(r"probability [\d.]+% · surprise [\d.]+ bits · rank [\d,]+ of 49,152"))
    bars = card.locator(".bar")
    assert 8 <= bars.count() <= 9 and card.locator(".bar.chosen").count() == 1
    shares = [float(re.sub(r"[<%]", "", text)) for text in bars.locator(".bar-value").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    widths = [b["width"] for b in bars.locator(".bar-fill").evaluate_all("all => all.map((e) => e.getBoundingClientRect().toJSON())")]
    assert widths == sorted(widths, reverse=True)
    complete.page.mouse.move(5, 5)
    expect(card).to_be_hidden()


def test_keyboard_goes_from_token_to_token(complete):
    run(complete)
    complete.page.locator("#answer").focus()
    for _ in range(3):
        complete.page.keyboard.press("ArrowRight")
    card = complete.page.locator(".token-card")
    third = complete.page.locator("#answer .tok").nth(2).inner_text()
    expect(card).to_have_attribute("aria-label", re.compile("Token .*" + re.escape(third.strip())))
    complete.page.keyboard.press("ArrowDown")
    assert complete.page.evaluate("document.activeElement.className").startswith("bar")
    complete.page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    assert complete.page.evaluate("document.activeElement.id") == "answer"


def test_an_alternative_is_gone_on_from_and_taken_back(complete):
    first = run(complete)
    begins, body = complete.take_alternative(complete.page.locator("#answer .tok"), 3)
    finished(complete)
    expect(complete.page.locator("#prompt-count")).to_contain_text(f"{len(body['prompt']) - 4} tokens")
    expect(complete.page.locator("#answer .tok")).to_have_count(14)
    now = complete.page.locator("#answer").text_content()
    assert now.startswith(begins) and len(now) > len(begins)
    button(complete, "↶ Back to the earlier answer").click()
    expect(complete.page.locator("#answer")).to_have_text(first, use_inner_text=True)
    button(complete, "Later answer").click()
    expect(complete.page.locator("#answer")).to_have_text(now)


def test_a_token_belongs_to_the_model_that_wrote_it(complete):
    """Another model is chosen at the top meanwhile: its vocabulary is another one, so the answer goes on with its own model."""
    run(complete)
    complete.page.get_by_label("Model", exact=True).select_option("gpt2-nano")
    complete.page.locator("#answer .tok").nth(3).hover()
    with complete.page.expect_request("**/v1/completions") as sent:
        complete.page.locator(".token-card button.bar:not(.chosen)").first.click()
    assert json.loads(sent.value.post_data)["model"] == "SmolLM2-135M-Instruct"
    finished(complete)


def test_another_answer_then_on_writing(complete):
    start(complete, min_tokens=10)  # whatever the seed of the other answer, it does not end before
    first = run(complete)
    with complete.page.expect_request("**/v1/completions") as sent:
        button(complete, "Another answer").click()
    assert json.loads(sent.value.post_data)["seed"] != 3
    finished(complete)
    second = complete.page.locator("#answer").inner_text()
    assert second != first
    button(complete, "Go on writing").click()
    expect(complete.page.locator("#answer .tok")).to_have_count(20)
    assert complete.page.locator("#answer").inner_text().startswith(second)
    button(complete, "Earlier answer").click()
    expect(complete.page.locator("#answer")).to_have_text(first, use_inner_text=True)


def test_the_keyboard_stays_at_the_button(complete):
    """While an answer is written, and after it was stopped, by keys alone."""
    start(complete, max_tokens=7000, min_tokens=7000)
    run_button = complete.page.locator("#run")
    run_button.focus()
    complete.page.keyboard.press("Enter")
    expect(complete.page.locator("#stop")).to_be_visible()
    expect(run_button).to_be_focused()
    complete.page.keyboard.press("Tab")
    complete.page.keyboard.press("Enter")
    expect(complete.page.locator("#stats")).to_contain_text("stopped")
    expect(run_button).to_be_focused()


def test_an_answer_outlives_the_view(complete):
    complete.page.get_by_label("Max tokens").fill("60")
    complete.page.locator("#run").click()
    complete.page.get_by_role("link", name="Chat").click()
    expect(complete.page.locator("#say")).to_be_visible()
    complete.page.get_by_role("link", name="Complete").click()
    finished(complete)
    assert complete.page.locator("#answer").inner_text() != ""


def test_never_this_token(complete):
    run(complete)
    tok = complete.page.locator("#answer .tok").first
    tok.hover()
    word = tok.text_content()
    button(complete, "Never this token").click()
    with complete.page.expect_request("**/v1/completions") as sent:
        run(complete)
    assert list(json.loads(sent.value.post_data)["logit_bias"].values()) == [-100]
    assert complete.page.locator("#answer .tok").first.text_content() != word
    complete.page.get_by_role("button", name=re.compile("^Allow .* again$")).click()
    with complete.page.expect_request("**/v1/completions") as sent:
        run(complete)
    assert "logit_bias" not in json.loads(sent.value.post_data)
    assert complete.page.locator("#answer .tok").first.text_content() == word


def test_every_control_reaches_the_server(complete):
    """Each sampling control is there with its meaning, and what is set is sent."""
    wanted = {"Temperature": 0.9, "Top p": 0.9, "Top k": 40, "Min p": 0.05, "Repetition penalty": 1.1, "Max tokens": 7, "Seed": 11}
    more = {"Typical p": 0.8, "Presence penalty": 0.5, "Frequency penalty": -0.5, "Min tokens": 2}
    complete.page.get_by_text("More", exact=True).click()
    for label, value in {**wanted, **more}.items():
        field = complete.page.get_by_label(label, exact=True)
        field.fill(str(value))
        assert complete.page.locator(f"#{field.get_attribute('aria-describedby')}").inner_text() != ""
    complete.page.get_by_label("Stop at").fill("zzz\n\\n\\n")
    with complete.page.expect_request("**/v1/completions") as sent:
        run(complete)
    body = json.loads(sent.value.post_data)
    for label, value in {**wanted, **more}.items():
        assert body[label.lower().replace(" ", "_")] == value
    assert body["stop"] == ["zzz", "\n\n"]
    button(complete, "Exact").click()
    with complete.page.expect_request("**/v1/completions") as sent:
        run(complete)
    body = json.loads(sent.value.post_data)
    assert body["temperature"] == 0 and "top_k" not in body and body["max_tokens"] == 7 and body["seed"] == 11


def test_a_stop_text_inside_a_token(complete):
    text = complete.page.locator("#answer")
    run(complete)
    whole = text.text_content()
    word = max(re.findall(r"\w+", whole), key=len)
    complete.page.get_by_label("Stop at").fill(word[1:])
    run(complete)
    expect(text).to_have_text(whole[:whole.index(word[1:])])
    expect(complete.page.locator("#stats")).to_contain_text(f"stopped at “{word[1:]}”")


def test_scores_the_prompt(complete):
    button(complete, "Score the prompt").click()
    tokens = complete.page.locator("#scored .tok")
    expect(complete.page.locator("#scored")).to_have_text(PROMPT, use_inner_text=True)
    expect(complete.page.locator("#prompt-count")).to_contain_text(f"{tokens.count()} tokens")
    expect(complete.page.get_by_text(re.compile("mean surprise .* bits · perplexity"))).to_be_visible()
    tokens.nth(3).hover()
    expect(complete.page.locator(".token-card")).to_contain_text("probability")
    complete.page.get_by_label("Prompt", exact=True).fill(PROMPT + " mat")
    expect(complete.page.get_by_text("of an earlier prompt")).to_be_visible()
    button(complete, "Score it again").click()
    expect(complete.page.locator("#scored")).to_have_text(PROMPT + " mat", use_inner_text=True)


def test_an_unlikely_token_has_its_rank(complete):
    """Eight alternatives do not hold it: its place in the whole vocabulary is told, in the prompt, in an answer, and where it was exchanged and taken back."""
    sentence = "The cat sat on the zebra's harmonica"
    said = httpx.post(f"{complete.url}/v1/completions", timeout=60, json={"model": "SmolLM2-135M-Instruct", "prompt": sentence, "max_tokens": 0, "echo": True,
                      "logprobs": 1, "return_token_ids": True}).json()["choices"][0]["logprobs"]["token_ranks"]
    at = max(range(1, len(said)), key=lambda i: said[i])
    assert said[at] > 1000
    card = complete.page.locator(".token-card")
    complete.page.get_by_label("Prompt", exact=True).fill(sentence)
    button(complete, "Score the prompt").click()
    complete.page.locator("#scored .tok").nth(at).hover()
    expect(card).to_contain_text(f"rank {said[at]:,} of 49,152")
    complete.page.locator("#scored .tok").first.hover()
    expect(card).not_to_contain_text("rank")  # nothing stands before it

    complete.keep(sampling={"temperature": 2, "seed": 1, "max_tokens": 12})
    complete.page.reload()
    with complete.page.expect_response("**/v1/completions") as streamed:
        run(complete)
    chunks = [json.loads(line[6:]) for line in streamed.value.text().splitlines() if line.startswith("data: {")]
    ranks = [rank for c in chunks for choice in c["choices"] for rank in choice["logprobs"]["token_ranks"]]
    assert len(ranks) == 12
    at = next(i for i, rank in enumerate(ranks) if rank > 8)
    tokens = complete.page.locator("#answer .tok")
    tokens.nth(at).hover()
    expect(card).to_contain_text(f"rank {ranks[at]:,} of 49,152")
    complete.take_alternative(tokens, at)
    finished(complete)
    tokens.nth(at).hover()
    expect(card).to_contain_text(re.compile("rank 1 of 49,152"))
    card.locator("button.bar").last.click()
    finished(complete)
    tokens.nth(at).hover()
    expect(card).to_contain_text(f"rank {ranks[at]:,} of 49,152")


def test_colours_can_be_chosen(complete):
    run(complete)
    first = complete.page.locator("#answer .tok").first
    scale = complete.page.get_by_role("img", name=re.compile("^Probability: from pale"))
    expect(scale).to_be_visible()
    assert re.search(r"\bs[0-5]\b", first.get_attribute("class"))
    complete.page.get_by_text("Borders", exact=True).click()
    expect(first).to_have_class(re.compile(r"\bt0\b"))
    expect(scale).to_be_hidden()
    complete.page.get_by_text("None", exact=True).click()
    expect(first).to_have_class(re.compile(r"^tok\s*$"))
    complete.page.reload()
    run(complete)
    expect(complete.page.get_by_role("radio", name="None")).to_be_checked()


def text_of_stream(out):
    lines = [json.loads(line[6:]) for line in out.splitlines() if line.startswith("data: {")]
    return "".join(line["choices"][0]["text"] for line in lines if line["choices"])


def test_the_request_elsewhere_gives_the_same_answer(visit, smol_url):
    """curl and Python as shown, run as they are, write what the page writes; so does the shared address in a fresh browser."""
    v = visit(smol_url)
    start(v, "It's \"5 o'clock\"\nand $HOME is `here` \\n – 日本", top_k=50, stop="\\n\\n\\n")
    text = run(v)
    button(v, "View as…").click()
    shown = v.page.locator("#view-as")
    out = subprocess.run(["bash", "-c", shown.inner_text()], capture_output=True, text=True, timeout=60).stdout
    assert text_of_stream(out) == text
    v.page.get_by_text("Python", exact=True).click()
    expect(shown).to_contain_text("import")
    out = subprocess.run([sys.executable, "-c", shown.inner_text()], capture_output=True, text=True, timeout=60)
    assert out.stdout.rstrip("\n") == text.rstrip("\n"), out.stderr
    v.page.get_by_text("JavaScript", exact=True).click()
    expect(shown).to_contain_text("console.log(text)")
    source = shown.inner_text().replace("console.log(text)", "return text")
    assert v.page.evaluate("async () => {" + source + "}") == text
    v.page.get_by_text("Link", exact=True).click()
    expect(shown).to_contain_text("prompt=")
    link = shown.inner_text()
    other = visit(smol_url)
    other.page.goto(link)
    expect(other.page.get_by_label("Prompt", exact=True)).to_have_value(v.page.locator("#prompt").input_value())
    expect(other.page.get_by_label("Top k")).to_have_value("50")
    assert run(other) == text
    assert "prompt=" not in other.page.url


def test_the_key_is_not_shown(visit, nano):
    from serving import Server
    with Server("--model", str(nano)) as server:
        key = server.add_key("page")
        v = visit(server.url)
        v.page.get_by_label("API key").fill(key)
        button(v, "Use this key").click()
        v.page.get_by_label("Prompt", exact=True).fill("Hello")
        button(v, "View as…").click()
        for form, placeholder in (("curl", "Bearer $COUPLET_API_KEY"), ("Python", 'environ.get("COUPLET_API_KEY"'), ("JavaScript", "process.env.COUPLET_API_KEY"), ("Link", "prompt=Hello")):
            v.page.get_by_text(form, exact=True).click()
            expect(v.page.locator("#view-as")).to_contain_text(placeholder)
            assert key not in v.page.locator("#view-as").inner_text()


def test_exports_everything(complete):
    text = run(complete)
    with complete.page.expect_download() as saved:
        button(complete, "Export as JSON").click()
    got = json.loads(saved.value.path().read_text())
    assert saved.value.suggested_filename == "answer.json"
    assert got["prompt"] == PROMPT and got["text"].strip() == text.strip() and got["model"] == "SmolLM2-135M-Instruct"
    assert got["request"]["temperature"] == 0.7 and got["request"]["seed"] == 3
    assert len(got["tokens"]) == 10 and "".join(t["text"] for t in got["tokens"]) == got["text"]
    for token in got["tokens"]:
        assert token["logprob"] <= 0 and len(token["alternatives"]) >= 8 and all(isinstance(a["id"], int) for a in token["alternatives"])
        ids = [a["id"] for a in token["alternatives"]]
        assert ids.index(token["id"]) == min(token["rank"] - 1, 8)
    assert got["figures"]["tokens_per_second"] > 0


def test_first_visit_with_a_finger(visit, smol_url):
    """An empty page offers an example; a tap shows a token's alternatives, a tap beside closes them, a tap on one takes it."""
    v = visit(smol_url, viewport={"width": 390, "height": 844}, has_touch=True)
    expect(v.page.locator("#model")).to_have_value("SmolLM2-135M-Instruct")
    v.keep(sampling={"temperature": 0, "max_tokens": 8})
    v.page.reload()
    button(v, "Try it with an example").tap()
    finished(v)
    card = v.page.locator(".token-card")
    v.page.locator("#answer .tok").nth(2).tap()
    expect(card).to_be_visible()
    v.page.touchscreen.tap(2, 400)  # the margin, where no card comes
    expect(card).to_be_hidden()
    v.page.locator("#answer .tok").nth(2).tap()
    card.locator("button.bar:not(.chosen)").first.tap()
    expect(v.page.locator("#answer .tok")).to_have_count(11)
    assert v.complaints == []


@pytest.mark.parametrize("width,scheme", [(1440, "light"), (390, "dark")])
def test_looks(visit, smol_url, width, scheme):
    v = visit(smol_url, viewport={"width": width, "height": 900}, color_scheme=scheme)
    start(v, max_tokens=40)
    run(v)
    button(v, "Score the prompt").click()
    expect(v.page.locator("#scored .tok").first).to_be_visible()
    v.page.locator("#answer .tok").nth(4).click()
    expect(v.page.locator(".token-card")).to_be_visible()
    v.shot(f"complete-steered-{width}")
    assert v.serious() == []
    v.page.keyboard.press("Escape")
    v.page.mouse.move(2, 2)
    button(v, "View as…").click()
    assert v.serious() == []
    v.shot(f"view-as-{width}")
    assert v.fits()
    assert v.complaints == []
