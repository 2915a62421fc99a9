# SPDX-License-Identifier: MIT
"""Texts that want to break out: nothing in a prompt, an answer or a token's name ever runs, and nothing sticks out sideways."""
import re

import pytest
from playwright.sync_api import expect

from canned import answer_with

SCRIPT = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'><svg onload='window.hurt = 1'></svg></textarea></span><b>bold</b>"
TEXTS = {
    "html": SCRIPT,
    "url": "javascript:alert(1) [a](javascript:alert(1)) ![x](https://example.org/x.png)",
    "rtl": "\u202eevil\u202c שלום עולם مرحبا \u2067isolated\u2069 \u200f\u200e abc",
    "zwj": "👨\u200d👩\u200d👧\u200d👦👩🏽\u200d🚀🏳️\u200d🌈 é e\u0301",
    "combining": "Z" + "\u0351\u0343\u0358\u031b" * 60 + "algo",
    "zero-width": "a\u200bb\u200cc\u2060d\ufeffe\u00adf",
    "long": "W" * 4000 + " " + "🅰" * 500,
    "control": "a\tb\r\nc\u0001d\u001be[31m\u2028f\u0085g",
}


def pieces(text):
    """As tokens: by words, and every third word by its bytes, two at a time, so that characters are torn."""
    out = []
    for i, word in enumerate(re.findall(r"\s*\S{1,40}|\s+", text)):
        data = word.encode()
        out += [data[k:k + 2] for k in range(0, len(data), 2)] if i % 3 == 0 else [word]
    return out


def unhurt(v):
    assert v.page.evaluate("window.hurt") is None
    assert v.page.locator("main img, main script, main b").count() == 0
    assert v.foreign() == []
    assert v.fits(), "something sticks out sideways"


@pytest.mark.parametrize("name", TEXTS)
def test_answers(visit, name):
    text = TEXTS[name]
    v = visit(viewport={"width": 390, "height": 844})
    answer_with(v.page, pieces(text))
    v.page.get_by_label("Prompt", exact=True).fill("x")
    v.page.locator("#run").click()
    expect(v.page.locator("#stats")).to_contain_text("answer")
    v.page.wait_for_function("text => document.querySelector('#answer').textContent === text", arg=text)
    for i in range(0, v.page.locator("#answer .tok").count(), 7):
        v.page.locator("#answer").evaluate("(e, i) => e.querySelectorAll('.tok')[i].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))", i)
        expect(v.page.locator(".token-card")).to_be_visible()
        unhurt(v)
        if i > 40:
            break
    v.shot(f"hostile-{name}-390")
    assert v.complaints == []


def test_prompts_and_conversations(visit):
    """Everything a user types comes back as typed: in Complete, its token view, and as a message."""
    v = visit(viewport={"width": 390, "height": 844})
    everything = "\n".join(text for name, text in TEXTS.items() if name != "control")
    part = "\n".join(text[:20] for name, text in TEXTS.items() if name != "control")
    v.page.get_by_label("Prompt", exact=True).fill(part)
    v.page.get_by_role("button", name="Score the prompt").click()
    expect(v.page.locator("#scored .tok").nth(5)).to_be_attached()
    v.page.wait_for_function("text => document.querySelector('#scored').textContent === text", arg=part)
    unhurt(v)
    v.page.reload()
    expect(v.page.get_by_label("Prompt", exact=True)).to_have_value(part)
    unhurt(v)
    answer_with(v.page, pieces(SCRIPT))
    v.page.get_by_role("link", name="Chat").click()
    v.page.get_by_label("System message").fill(SCRIPT)
    v.page.get_by_label("Your message").fill(everything)
    v.page.get_by_label("Your message").press("Control+Enter")
    expect(v.page.locator("#chat-stats")).to_contain_text("answer")
    for who, text in (("user", everything), ("assistant", SCRIPT)):
        v.page.wait_for_function("([who, text]) => document.querySelector(`.chat-${who} .text`).textContent === text", arg=[who, text])
    unhurt(v)
    v.page.reload()
    expect(v.page.locator(".chat-assistant .text")).to_have_text(SCRIPT, use_inner_text=True)
    unhurt(v)
    assert v.complaints == []


def test_an_address_runs_nothing(visit):
    v = visit()
    v.page.goto(v.url + "/#complete?model=%3Cimg%20src%3Dx%20onerror%3Dhurt%3D1%3E&prompt=" + "%3Cscript%3Ehurt%3D1%3C%2Fscript%3E" + "&temperature=%3Cb%3E&seed=9")
    v.page.reload()
    expect(v.page.locator("#prompt")).to_have_value("<script>hurt=1</script>")
    unhurt(v)
    v.page.locator("#run").click()
    expect(v.page.locator("#stats").filter(has_text="answer").or_(v.page.get_by_role("alert"))).to_be_visible()
    unhurt(v)


def test_a_megabyte_of_prompt(visit):
    """It can be typed into; the server's limits are explained."""
    v = visit()
    v.page.get_by_label("Prompt", exact=True).fill("words and more words " * 50_000)
    v.page.locator("#run").click()
    expect(v.page.get_by_role("alert")).to_contain_text("Shorten the prompt")
    v.page.get_by_label("Prompt", exact=True).press("End")
    v.page.get_by_label("Prompt", exact=True).press_sequentially(" on")
    expect(v.page.get_by_label("Prompt", exact=True)).to_have_value(re.compile("words  on$"))
    v.page.get_by_label("Prompt", exact=True).fill("more words " * 200_000)
    v.page.locator("#run").click()
    expect(v.page.get_by_role("alert")).to_contain_text("too large")
    unhurt(v)


@pytest.mark.parametrize("view, field", [("complete", "Prompt"), ("chat", "System message"), ("tokens", "Text"), ("inside", "Text"), ("compare", "Prompt")])
def test_a_megabyte_is_not_handled_at_every_key(visit, view, field):
    """What is typed into a long text is saved, sent and counted once it stands still, and then all of it is there."""
    v = visit()
    v.open(view)
    box = v.page.get_by_label(field, exact=True).first
    v.page.evaluate("""() => {
      window.big = 0; // texts of a megabyte made for localStorage or a request
      const stringify = JSON.stringify;
      JSON.stringify = (...all) => { const text = stringify(...all); if (text?.length > 1e6) big++; return text; };
    }""")
    box.evaluate("""box => {
      box.value = "words and more words ".repeat(50_000);
      box.dispatchEvent(new InputEvent("input", { bubbles: true }));
    }""")
    v.page.wait_for_function("() => big > 0")
    before = v.page.evaluate("big")
    box.evaluate("""async (box) => {
      for (const letter of "megabyte ") { // a key every fifth of a second
        box.setRangeText(letter, box.value.length, box.value.length, "end");
        box.dispatchEvent(new InputEvent("input", { bubbles: true }));
        await new Promise((done) => setTimeout(done, 200));
      }
    }""")
    assert v.page.evaluate("big") <= before + 3, "not one for each of nine keys"
    v.page.wait_for_function("() => Object.values(localStorage).some((text) => text.includes('words megabyte'))")
    assert v.complaints == [] or view == "inside"  # which says that it is too long


def test_names_of_models(visit):
    v = visit()
    hostile = {"id": SCRIPT + "W" * 200, "object": "model", "created": 1, "owned_by": "x", "max_model_len": 64, "meta": {"chat_template": None}, "couplet": {"origin": "served"}}
    v.page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": [hostile]}))
    v.page.reload()
    expect(v.page.locator("#model")).to_have_value(hostile["id"])
    for view in ("complete", "chat"):
        v.open(view)
        unhurt(v)
