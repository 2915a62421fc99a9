# SPDX-License-Identifier: MIT
"""What a person does on the page, done in chromium."""
import re

import pytest
from playwright.sync_api import expect

from canned import answer_with
from serving import Server, make_nano

PROMPT = "Once upon a time"


def fill_prompt(page, text=PROMPT, max_tokens=24):
    page.get_by_label("Max tokens").fill(str(max_tokens))
    page.get_by_label("Seed").fill("1")  # a random model may also end at once or write nothing but blanks
    page.get_by_label("Prompt", exact=True).fill(text)


def run_to_end(page):
    page.get_by_role("button", name=re.compile("^Complete")).click()
    expect(page.locator("#stats")).to_contain_text("answer")
    expect(page.locator("#stop")).to_be_hidden()


def test_loads_quietly(visit):
    """On load: no stream, nothing from another host, no complaint, nothing repeated."""
    v = visit()
    expect(v.page.locator("#model option").first).not_to_have_text("loading…")
    v.page.wait_for_timeout(2500)
    assert v.complaints == []
    assert v.foreign() == []
    paths = [r.url[len(v.url):] for r in v.requests if r.url.startswith(v.url)]
    assert len(paths) == len(set(paths)), paths
    assert not any("completions" in path for path in paths)
    links = v.page.get_by_role("navigation").get_by_role("link")
    expect(links.first).to_have_text("Complete")


def test_headers_forbid_everything_foreign(visit):
    v = visit()
    policy = v.page.request.get(v.url + "/").headers.get("content-security-policy", "")
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe-inline" not in policy and "unsafe-eval" not in policy


def test_completes_and_counts(visit):
    v = visit()
    fill_prompt(v.page)
    expect(v.page.locator("#prompt-count")).to_contain_text(re.compile(r"^\d+ tokens"))
    counted = int(v.page.locator("#prompt-count").inner_text().split()[0])
    run_to_end(v.page)
    stats = v.page.locator("#stats").inner_text()
    assert v.page.locator("#answer").inner_text() != ""
    assert f"prompt {counted} ·" in stats, stats
    assert re.search(r"answer \d+ tokens? · first after \d+ ms", stats), stats
    v.shot("complete-1440")
    assert v.complaints == []


def test_same_seed_same_text_and_append(visit):
    v = visit()
    fill_prompt(v.page)
    run_to_end(v.page)
    first = v.page.locator("#answer").inner_text()
    run_to_end(v.page)
    expect(v.page.locator("#answer")).to_have_text(first, use_inner_text=True)
    v.page.get_by_role("button", name="Append to prompt").click()
    expect(v.page.get_by_label("Prompt", exact=True)).to_have_value(re.compile(f"^{PROMPT}.", re.S))


@pytest.fixture(scope="module")
def long_winded(tmp_path_factory):
    """gpt2-nano with room for answers that take a while."""
    model = make_nano(tmp_path_factory.mktemp("model") / "long", "--ctx", "16384")
    with Server("--model", str(model)) as server:
        yield server.url


@pytest.mark.parametrize("way", ["button", "escape"])
def test_stops(visit, long_winded, way):
    v = visit(long_winded)
    fill_prompt(v.page, max_tokens=16_000)
    v.page.get_by_label("Temperature", exact=True).fill("0")
    v.page.get_by_label("Prompt", exact=True).press("Control+Enter")
    expect(v.page.locator("#answer")).not_to_be_empty()
    if way == "button":
        v.page.locator("#stop").click()
    else:
        v.page.keyboard.press("Escape")
    expect(v.page.locator("#stats")).to_contain_text("stopped")
    expect(v.page.locator("#stop")).to_be_hidden()
    expect(v.page.locator("#run")).to_be_enabled()


def test_remembers(visit):
    v = visit()
    fill_prompt(v.page, "Remember me", 33)
    v.page.get_by_label(re.compile("^Colours")).click()
    v.page.reload()
    expect(v.page.get_by_label("Prompt", exact=True)).to_have_value("Remember me")
    expect(v.page.get_by_label("Max tokens")).to_have_value("33")
    expect(v.page.locator("html")).to_have_attribute("data-theme", "light")


def test_bad_sampling_value_is_named(visit):
    v = visit()
    fill_prompt(v.page)
    v.page.get_by_label("Temperature", exact=True).fill("9")
    v.page.get_by_role("button", name=re.compile("^Complete")).click()
    expect(v.page.get_by_role("alert")).to_contain_text("Temperature")
    v.page.get_by_role("button", name="Back to the defaults").click()
    expect(v.page.get_by_label("Temperature", exact=True)).to_have_value("0.7")


def test_too_long_prompt_says_what_to_do(visit):
    v = visit()
    fill_prompt(v.page, "word " * 20_000)
    v.page.get_by_role("button", name=re.compile("^Complete")).click()
    expect(v.page.get_by_role("alert")).to_contain_text("Shorten the prompt")


def test_chat_answers_or_says_why_not(visit):
    """gpt2-nano has no chat template: the page says so and gives the question back."""
    v = visit()
    v.page.get_by_role("link", name="Chat").click()
    v.page.get_by_label("Your message").fill("Hello")
    v.page.get_by_label("Your message").press("Control+Enter")
    alert, answered = v.page.get_by_role("alert"), v.page.locator("#chat-stats")
    expect(alert.or_(answered).filter(has_text=re.compile("chat template|answer")).first).to_be_visible()
    if alert.is_visible():
        expect(v.page.get_by_label("Your message")).to_have_value("Hello")
    v.shot("chat-1440")


def test_phone_and_dark(visit):
    v = visit(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    fill = v.page.get_by_label("Prompt", exact=True)
    fill.fill(PROMPT)
    run_to_end(v.page)
    assert v.fits(), "the page scrolls sideways"
    assert not v.page.locator("#settings").evaluate("e => e.open")
    v.shot("complete-390-dark")
    v.page.get_by_role("link", name="Chat").click()
    expect(v.page.get_by_label("Your message")).to_be_visible()
    v.shot("chat-390-dark")
    assert v.fits(), "the chat scrolls sideways"


def test_every_control_has_a_name(visit):
    v = visit()
    expect(v.page.locator("#run")).to_be_enabled()
    unnamed = v.page.evaluate("""() => [...document.querySelectorAll('button, input, select, textarea, a')]
        .filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML)""")
    assert unnamed == []


def test_without_a_model(visit, base_url):
    with Server() as server:
        v = visit(server.url)
        expect(v.page.get_by_role("heading", name="No model is loaded")).to_be_visible()
        v.shot("empty-1440")


def test_gone_server_is_explained(visit, nano):
    with Server("--model", str(nano)) as server:
        v = visit(server.url)
        expect(v.page.locator("#run")).to_be_enabled()
        fill_prompt(v.page)
        assert server.stop() == 0
        v.page.get_by_role("button", name=re.compile("^Complete")).click()
        expect(v.page.get_by_role("alert")).to_contain_text("Is couplet still running?")


def test_asks_for_a_key(visit, nano):
    """One stored key makes keys required: the page asks for it, then goes on where it was."""
    with Server("--model", str(nano)) as server:
        key = server.add_key("page")
        v = visit(server.url)
        expect(v.page.get_by_label("API key")).to_be_visible()
        v.shot("key-1440")
        v.page.get_by_label("API key").fill("wrong")
        v.page.get_by_role("button", name="Use this key").click()
        expect(v.page.get_by_role("alert")).to_contain_text("does not know this API key")
        v.page.get_by_label("API key").fill(key)
        v.page.get_by_role("button", name="Use this key").click()
        expect(v.page.locator("#run")).to_be_enabled()
        fill_prompt(v.page)
        run_to_end(v.page)


NO_STORE = """for (const name of ["localStorage", "sessionStorage"])
  Object.defineProperty(window, name, {get() { throw new DOMException("not here", "SecurityError"); }});"""


def test_a_browser_that_keeps_nothing(visit):
    """Where the browser forbids a page to store anything, everything but remembering works."""
    v = visit()
    v.page.add_init_script(NO_STORE)
    v.page.reload()
    expect(v.page.locator("#run")).to_be_enabled()
    fill_prompt(v.page)
    run_to_end(v.page)
    assert v.complaints == []


def test_what_an_older_page_kept(visit):
    """Members of another kind than today's are not taken over; the others are."""
    v = visit()
    v.page.evaluate("""() => {
      localStorage.setItem("couplet.chat", JSON.stringify({nodes: null, leaf: 3, next: "x"}));
      localStorage.setItem("couplet.sampling", JSON.stringify({temperature: {value: 1}, stop: null, seed: "7"}));
    }""")
    v.page.goto("about:blank")
    v.page.goto(v.url + "/#chat")
    expect(v.page.get_by_label("Your message")).to_be_visible()
    expect(v.page.get_by_label("Temperature", exact=True)).to_have_value("0.7")
    expect(v.page.get_by_label("Seed")).to_have_value("7")
    expect(v.page.get_by_label("Stop at")).to_have_value("")
    assert v.complaints == []


def test_two_tabs_take_nothing_from_each_other(visit):
    """Each keeps its conversation and its prompt over a reload; a new one goes on with the last there was. The colours are those of all."""
    v = visit()
    tabs = [v.page, v.context.new_page()]
    for i, tab in enumerate(tabs):
        tab.goto(v.url + "/#complete")
        tab.get_by_label("Prompt", exact=True).fill(f"Tab {i} writes")
        tab.get_by_role("link", name="Chat").click()
        answer_with(tab, [f"Tab {i}", " it is", "."])
        tab.get_by_label("Your message").fill(f"Which tab, {i}?")
        tab.get_by_label("Your message").press("Enter")
        expect(tab.locator("#chat-stats")).to_contain_text("answer 3 tokens")
    tabs[0].locator("#theme").click()
    for i, tab in enumerate(tabs):
        expect(tab.locator("html")).to_have_attribute("data-theme", "light")
        tab.reload()
        expect(tab.locator(".chat-user .text")).to_have_text(["Which tab, 0?", "Which tab, 1?"][:i + 1])
        expect(tab.locator(".chat-assistant .tok")).to_have_text(["Tab 0", " it is", ".", "Tab 1", " it is", "."][:3 * i + 3])
        tab.get_by_role("link", name="Complete").click()
        expect(tab.get_by_label("Prompt", exact=True)).to_have_value(f"Tab {i} writes")
    third = v.context.new_page()
    third.goto(v.url)
    expect(third.get_by_label("Prompt", exact=True)).to_have_value("Tab 1 writes")
    assert v.complaints == []


def test_a_model_that_is_gone_leaves_the_list(visit, nano, tmp_path):
    """The notice says to choose another one: those that are there now can be chosen, and the keyboard is not lost with the notice."""
    with Server("--model", f"first={nano}", "--model", f"second={nano}") as server:
        v = visit(server.url)
        v.page.get_by_label("Model", exact=True).select_option("second")
        fill_prompt(v.page)
        refusal = '{"error": {"message": "The model does not exist.", "code": "model_not_found"}}'
        left = v.page.evaluate("fetch('/v1/models').then((r) => r.json())")
        left["data"] = left["data"][:1]
        v.page.route("**/v1/models", lambda route: route.fulfill(json=left))
        v.page.route("**/v1/completions", lambda route: route.fulfill(status=404, body=refusal, content_type="application/json"))
        v.page.locator("#run").click()
        expect(v.page.get_by_role("alert")).to_contain_text("no longer served")
        expect(v.page.locator("#model option")).to_have_text(["first"])
        v.page.get_by_role("button", name="Dismiss").click()
        expect(v.page.locator("#main")).to_be_focused()


def test_what_went_wrong_in_a_view_stays_there(visit):
    v = visit()
    v.page.route("**/v1/completions", lambda route: route.fulfill(status=503, body="{}", content_type="application/json"))
    expect(v.page.locator("#run")).to_be_enabled()
    fill_prompt(v.page)
    v.page.locator("#run").click()
    expect(v.page.get_by_role("alert")).to_contain_text("not ready")
    v.open("tokens")
    expect(v.page.get_by_role("alert")).to_have_count(0)


def test_a_view_that_did_not_load_is_forgotten_when_another_does(visit):
    v = visit()
    v.page.route("**/views/tokens.js", lambda route: route.abort())
    v.page.evaluate("location.hash = '#tokens'")
    expect(v.page.get_by_role("alert")).to_contain_text("did not load")
    v.open("chat")
    expect(v.page.get_by_role("alert")).to_have_count(0)
