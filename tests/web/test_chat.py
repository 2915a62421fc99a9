# SPDX-License-Identifier: MIT
"""Chat on SmolLM2: answers stream, can be stopped, asked for again and steered; nothing that was said is lost."""
import json
import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from canned import answer_with


@pytest.fixture
def chat(visit, smol_url):
    v = visit(smol_url)
    v.keep(sampling={"temperature": 0.7, "seed": 3, "max_tokens": 12})
    v.page.evaluate("location.hash = '#chat'")
    v.page.reload()
    expect(v.page.locator("#model")).to_have_value("SmolLM2-135M-Instruct")
    return v


def ask(v, text):
    v.page.get_by_label("Your message").fill(text)
    with v.page.expect_request("**/v1/chat/completions"):  # from here on the figures are not those of the answer before
        v.page.get_by_label("Your message").press("Enter")
    finished(v)


def ask_for_long(v):
    """Asks for an answer that takes many seconds on any machine."""
    v.keep(sampling={"temperature": 0, "max_tokens": 7000, "min_tokens": 7000})
    v.page.reload()
    expect(v.page.locator("#model")).to_have_value("SmolLM2-135M-Instruct")
    v.page.get_by_label("Your message").fill("Write a very long story about a lighthouse.")


def finished(v):
    expect(v.page.locator("#chat-stats")).to_contain_text("tokens/s")
    expect(v.page.locator("#send")).to_be_visible()


def answers(v):
    return v.page.locator("#messages .chat-assistant .text")


def test_conversation_survives_a_reload(chat):
    ask(chat, "What is the capital of France?")
    first = answers(chat).inner_text()
    assert first != ""
    ask(chat, "And of Italy?")
    stats = chat.page.locator("#chat-stats").inner_text()
    assert re.search(r"prompt \d+ · \d+ of it cached · answer \d+ tokens · first after \d+ ms · [\d.]+ tokens/s", stats), stats
    assert answers(chat).first.inner_text() == first
    chat.page.reload()
    expect(answers(chat)).to_have_count(2)
    expect(answers(chat).first).to_have_text(first, use_inner_text=True)
    chat.page.get_by_role("button", name="New chat").click()
    expect(answers(chat)).to_have_count(0)
    assert chat.complaints == [] and chat.foreign() == []


def test_system_message_and_settings_go_along(chat):
    chat.page.get_by_label("System message").fill("Answer like a pirate.")
    with chat.page.expect_request("**/v1/chat/completions") as sent:
        ask(chat, "Hello")
    body = json.loads(sent.value.post_data)
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"] == "Answer like a pirate." and body["seed"] == 3 and body["max_tokens"] == 12


def test_stops(chat):
    ask_for_long(chat)
    chat.page.get_by_label("Your message").press("Enter")
    expect(answers(chat)).not_to_be_empty()
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator("#chat-stats")).to_contain_text("stopped")
    assert answers(chat).inner_text() != ""


def test_a_reload_in_the_middle_keeps_what_came(chat):
    ask_for_long(chat)
    chat.page.locator("#send").click()
    expect(chat.page.get_by_label("Your message")).to_be_focused()  # not lost with the button
    expect(answers(chat)).to_contain_text(re.compile(".{40}"))
    expect(chat.page.locator("#chat-stop")).to_be_visible()
    chat.page.reload()
    expect(answers(chat)).to_contain_text(re.compile(".{40}"))


def card_of(v, tokens, at):
    """What the card of a token says."""
    v.page.mouse.move(0, 0)
    expect(v.page.locator(".token-card")).to_have_count(0)
    tokens.nth(at).hover()
    return v.page.locator(".token-card").inner_text()


def test_tokens_survive_a_reload(chat):
    """Colours, cards and alternatives are what they were; also of a character in several tokens, and of an alternative that was taken."""
    tokens = chat.page.locator("#messages .tok")
    ask(chat, "What is the capital of France?")
    chat.take_alternative(tokens, 2)
    finished(chat)
    expect(chat.page.get_by_text("2 of 2")).to_be_visible()
    before = answers(chat).inner_html(), card_of(chat, tokens, 3)
    assert "probability" in before[1] and "picked" in before[0]
    chat.page.reload()
    expect(tokens.nth(3)).to_be_visible()
    assert (answers(chat).inner_html(), card_of(chat, tokens, 3)) == before
    begins, body = chat.take_alternative(tokens, 4)
    finished(chat)
    assert all(isinstance(one, int) for one in body["prompt"])
    expect(chat.page.get_by_text("3 of 3")).to_be_visible()
    assert answers(chat).text_content().startswith(begins)
    chat.page.get_by_role("button", name="New chat").click()
    answer_with(chat.page, ["Four", " ", "ñ".encode()[:1], "ñ".encode()[1:], "."])
    chat.page.get_by_label("Your message").fill("Which letter?")
    chat.page.get_by_label("Your message").press("Enter")
    expect(chat.page.locator("#chat-stats")).to_contain_text("answer 5 tokens")
    before = answers(chat).inner_html(), card_of(chat, tokens, 3)
    chat.page.reload()
    expect(tokens).to_have_count(5)
    assert (answers(chat).inner_html(), card_of(chat, tokens, 3)) == before
    assert chat.complaints == []


def test_where_there_is_no_more_room_the_oldest_answers_keep_their_text_alone(chat):
    """And an answer whose tokens are of another text says nothing of them."""
    tokens = chat.page.locator("#messages .tok")
    for question in ("What is the capital of France?", "And of Italy?"):
        ask(chat, question)
    texts = answers(chat).all_inner_texts()
    grow = """() => { const all = JSON.parse(sessionStorage["couplet.chat.tokens"]); all[Object.keys(all)[0]].chars = 999_000;
        sessionStorage["couplet.chat.tokens"] = JSON.stringify(all); }"""  # as if the first answer were a book
    chat.page.goto("about:blank")  # which saves
    chat.page.goto(f"{chat.url}/openapi.json")
    chat.page.evaluate(grow)
    chat.page.goto(f"{chat.url}/#chat")
    expect(tokens.nth(3)).to_be_visible()
    ask(chat, "And of Spain?")
    chat.page.reload()
    expect(answers(chat)).to_have_count(3)
    assert answers(chat).all_inner_texts()[:2] == texts
    expect(answers(chat).nth(0).locator(".tok")).to_have_count(1)
    assert answers(chat).nth(1).locator(".tok").count() > 1 and answers(chat).nth(2).locator(".tok").count() > 1
    expect(chat.page.get_by_text("Only the text of this answer is still known")).to_have_count(1)
    answers(chat).nth(0).locator(".tok").hover()
    expect(chat.page.locator(".token-card")).to_have_count(0)
    chat.page.goto(f"{chat.url}/openapi.json")
    chat.page.evaluate("""() => { const chat = JSON.parse(sessionStorage["couplet.chat"]); chat.nodes[chat.leaf].content = "Madrid!";
        sessionStorage["couplet.chat"] = JSON.stringify(chat); }""")  # as a page that fell over may leave it
    chat.page.goto(f"{chat.url}/#chat")
    expect(answers(chat).nth(2).locator(".tok")).to_have_text("Madrid!")
    expect(chat.page.get_by_text("Only the text of this answer is still known")).to_have_count(2)


def test_another_answer_keeps_the_first(chat):
    ask(chat, "Tell me a secret.")
    first = answers(chat).inner_text()
    chat.page.get_by_role("button", name="Another answer").click()
    expect(chat.page.get_by_text("2 of 2")).to_be_visible()
    finished(chat)
    second = answers(chat).inner_text()
    assert second != first
    chat.page.get_by_role("button", name="Earlier answer").click()
    expect(answers(chat)).to_have_text(first, use_inner_text=True)
    chat.page.get_by_role("button", name="Later answer").click()
    expect(answers(chat)).to_have_text(second, use_inner_text=True)


def test_an_edited_question_cuts_what_follows_and_can_be_taken_back(chat):
    ask(chat, "Name a colour.")
    ask(chat, "Why that one?")
    chat.page.get_by_role("button", name="Edit", exact=True).first.click()
    chat.page.get_by_label("Edit the message").fill("Name an animal.")
    chat.page.get_by_role("button", name="Ask this instead").click()
    expect(answers(chat)).to_have_count(1)
    finished(chat)
    expect(chat.page.locator(".chat-user .text")).to_have_text(["Name an animal."])
    chat.page.get_by_role("button", name="Earlier question").click()
    expect(chat.page.locator(".chat-user .text")).to_have_text(["Name a colour.", "Why that one?"])
    expect(answers(chat)).to_have_count(2)


def test_an_alternative_is_gone_on_from(chat):
    """What stood before the token stays, the alternative follows, then what the model says; the old answer is a click away."""
    ask(chat, "What is the capital of France?")
    first = answers(chat).inner_text()
    begins, body = chat.take_alternative(chat.page.locator("#messages .tok"), 2)
    finished(chat)
    assert all(isinstance(one, int) for one in body["prompt"])
    expect(chat.page.get_by_text("2 of 2")).to_be_visible()
    assert answers(chat).text_content().startswith(begins)
    assert answers(chat).inner_text() != first
    chat.page.get_by_role("button", name="Earlier answer").click()
    expect(answers(chat)).to_have_text(first, use_inner_text=True)


def test_goes_on_writing(chat):
    chat.page.get_by_label("Max tokens").fill("5")
    ask(chat, "Write a story about a dog.")
    first = answers(chat).inner_text()
    expect(chat.page.locator("#messages .tok")).to_have_count(5)
    chat.page.get_by_role("button", name="Go on writing").click()
    expect(chat.page.locator("#messages .tok")).to_have_count(10)
    assert answers(chat).inner_text().startswith(first)


def test_the_conversation_elsewhere(chat):
    """The Python shown, run as it is, gives the answer of the page; the file holds every token."""
    ask(chat, "What is the capital of France?")
    text = answers(chat).inner_text()
    chat.page.get_by_role("button", name="View as…").click()
    chat.page.get_by_text("Python", exact=True).click()
    expect(chat.page.locator("#view-as")).to_contain_text("import")
    out = subprocess.run([sys.executable, "-c", chat.page.locator("#view-as").inner_text()], capture_output=True, text=True, timeout=60)
    assert out.stdout.rstrip("\n") == text.rstrip("\n"), out.stderr
    chat.page.keyboard.press("Escape")
    with chat.page.expect_download() as saved:
        chat.page.get_by_role("button", name="Export as JSON").click()
    got = json.loads(saved.value.path().read_text())
    assert [m["role"] for m in got["messages"]] == ["user", "assistant"]
    assert "".join(t["text"] for t in got["messages"][1]["tokens"]) == got["messages"][1]["content"]
    assert all(t["logprob"] <= 0 and len(t["alternatives"]) == 8 for t in got["messages"][1]["tokens"])


def test_the_prompt_as_the_model_reads_it(chat):
    """The template's signs and its own system message are seen, token by token: what the server said it had read."""
    ask(chat, "What is the capital of France?")
    with chat.page.expect_request("**/tokenize") as sent:
        chat.page.get_by_role("button", name="Show the prompt").click()
    prompt = chat.page.locator("#chat-prompt")
    expect(prompt).to_contain_text("You are a helpful AI assistant named SmolLM")
    expect(prompt.locator(".tok.sign").first).to_have_text("<|im_start|>")
    assert prompt.text_content().endswith("What is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    read = int(re.search(r"prompt (\d+)", chat.page.locator("#chat-stats").inner_text())[1])
    expect(prompt.locator(".tok")).to_have_count(read)
    assert sent.value.post_data_json["messages"] == [{"role": "user", "content": "What is the capital of France?"}]
    assert chat.serious() == []
    chat.page.keyboard.press("Escape")
    chat.page.get_by_label("System message").fill("Be brief.")
    chat.page.get_by_label("Your message").fill("And of Italy?")
    chat.page.get_by_role("button", name="Show the prompt").click()
    expect(prompt).to_contain_text("Be brief.")
    expect(prompt).to_contain_text("And of Italy?")


def test_without_a_template_the_question_comes_back(chat):
    chat.page.get_by_label("Model", exact=True).select_option("gpt2-nano")
    expect(chat.page.get_by_role("heading", name="This model only goes on with a text")).to_be_visible()
    chat.page.get_by_label("Your message").fill("Hello")
    chat.page.get_by_label("Your message").press("Enter")
    expect(chat.page.get_by_role("alert")).to_contain_text("no chat template")
    expect(chat.page.get_by_label("Your message")).to_have_value("Hello")
    expect(chat.page.locator("#messages > li")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_looks(visit, smol_url, scheme):
    v = visit(smol_url, viewport={"width": 390, "height": 844} if scheme == "dark" else {"width": 1440, "height": 900}, color_scheme=scheme)
    v.keep(sampling={"temperature": 0, "max_tokens": 40})
    v.page.evaluate("location.hash = '#chat'")
    v.page.reload()
    assert v.serious() == []
    ask(v, "Write two sentences about the sea.")
    assert v.serious() == []
    assert v.fits()
    v.shot(f"chat-{v.page.viewport_size['width']}")
    assert v.complaints == []
