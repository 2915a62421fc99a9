# SPDX-License-Identifier: MIT
"""What an answer shows of itself: every token can be pointed at, its end is told as it was, its card says whose the probability is."""
import pytest
from playwright.sync_api import expect

from canned import answer_with, stream


def ask(v, view):
    """Asks something in Complete or Chat; the answer's tokens."""
    v.open(view)
    box = v.page.get_by_label("Prompt" if view == "complete" else "Your message", exact=True)
    box.fill("Say it")
    box.press("Control+Enter" if view == "complete" else "Enter")
    return v.page.locator("#answer .tok" if view == "complete" else "#messages .tok")


def test_what_takes_no_room_can_be_pointed_at(visit):
    """A line break alone, and signs without width; none of the marks is part of the text."""
    v, said = visit(), ["List:", "\n", "one", "\n\n", "\u200b", "two", "\ufeff", "\t", ".\n"]
    answer_with(v.page, said)
    tokens = ask(v, "complete")
    expect(tokens).to_have_count(len(said))
    for i, text in enumerate(said):
        assert v.still(tokens.nth(i))["width"] > 2, repr(text)
    place = tokens.nth(1).evaluate("e => { const box = e.getClientRects()[0]; return [box.x + 2, box.y + box.height / 2]; }")
    v.page.mouse.move(*place)
    expect(v.page.locator(".token-card-head")).to_contain_text("⏎")
    expect(v.page.locator(".token-card button.bar")).to_have_count(8)
    copied = v.page.evaluate("() => { getSelection().selectAllChildren(document.querySelector('#answer')); return String(getSelection()); }")
    assert "⏎" not in copied and "⏎" not in tokens.nth(1).text_content()
    assert v.complaints == []


def test_the_card_says_whose_probability_it_is(visit):
    v = visit()
    answer_with(v.page, ["Four", " tokens", " it", " is"])
    ask(v, "complete").nth(1).hover()
    expect(v.page.locator(".token-card")).to_contain_text("The model's own, before temperature and the other settings")


@pytest.mark.parametrize("view", ["complete", "chat"])
def test_an_answer_that_the_server_broke_off(visit, view):
    """What came stays and is told from a finished answer; it can be gone on with, and from any of its tokens."""
    v = visit()
    whole = stream(["Once", " there", " was", " a", " keeper"], view == "chat")
    part = "".join(event + "\n\n" for event in whole.split("\n\n")[:3])
    v.page.route("**/completions", lambda route: route.fulfill(status=200, headers={"Content-Type": "text/event-stream"}, body=part))
    tokens = ask(v, view)
    expect(v.page.get_by_role("alert")).to_contain_text("the connection ended in the middle of the answer")
    expect(v.page.locator("#stats" if view == "complete" else "#chat-stats")).to_contain_text("answer 3 tokens")
    expect(v.page.locator("#stats" if view == "complete" else "#chat-stats")).to_contain_text("the server broke off here")
    expect(tokens).to_have_count(3)
    v.page.unroute("**/completions")
    with v.page.expect_request("**/v1/completions") as sent:
        v.page.get_by_role("button", name="Go on writing").click()
    assert sent.value.post_data_json["prompt"] == [1, 2, 500, 501, 502]
    expect(v.page.locator("main")).to_contain_text("Once there was")
    expect(v.page.get_by_role("button", name="Go on writing")).to_be_visible()
    tokens.nth(1).hover()
    expect(v.page.locator(".token-card button.bar").first).to_be_visible()


def test_a_stop_text_that_ended_it_is_named(visit, smol_url):
    v = visit(smol_url)
    v.page.get_by_label("Temperature", exact=True).fill("0")
    v.page.get_by_label("Stop at").fill(" seven")
    v.page.get_by_label("Prompt", exact=True).fill("One, two, three, four,")
    v.page.locator("#run").click()
    expect(v.page.locator("#stats")).to_contain_text("stopped at “ seven”")
    expect(v.page.locator("#answer")).to_have_text(" five, six,")


def test_the_card_tells_the_chance_to_be_drawn(visit):
    """Where the alternatives that are known decide it: beside the model's probability stands what the settings made of it, also after a reload."""
    v = visit()
    answer_with(v.page, ["Four", " tokens", " it", " is"])  # each exp(-0.5 - i) likely, the others exp(-8 - k)
    v.page.get_by_label("Temperature", exact=True).fill("2")
    v.page.get_by_label("Top k").fill("2")
    tokens, values = ask(v, "chat"), v.page.locator(".token-card .bar-value")
    tokens.first.hover()
    expect(values).to_have_text(["61% → 98%", "0.03% → 2.3%", *[f"{p}% → 0%" for p in ("0.01", "<0.01", "<0.01", "<0.01", "<0.01", "<0.01")]])
    expect(v.page.locator(".token-card")).to_contain_text("→ the chance to be drawn with them")
    v.page.reload()
    tokens.first.hover()
    expect(values.first).to_have_text("61% → 98%")
    v.page.locator(".token-card").get_by_role("button", name="Never this token").click()
    v.page.get_by_label("Top k").fill("0")
    v.page.get_by_role("button", name="Another answer").click()
    expect(v.page.get_by_text("2 of 2")).to_be_visible()
    expect(v.page.locator("#chat-stats")).to_contain_text("answer 4 tokens")
    v.page.mouse.move(0, 0)
    tokens.first.hover()
    expect(values.first).to_have_text("61%")  # at temperature 2 too much is drawn from what is not listed
