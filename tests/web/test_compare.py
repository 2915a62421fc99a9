# SPDX-License-Identifier: MIT
"""Compare: models side by side on the same prompt and seed, what differs between them, and a prompt replayed through a training run."""
import json
import math
import re
import time

import httpx
import pytest
from playwright.sync_api import expect

from canned import stream
from held_trainer import Hold
from serving import ROOT, Server

NANO = "gpt2-nano"


def train(client, suffix):
    """A short training of gpt2-nano: checkpoints at steps 10, 20 and 30, the last of them the result."""
    text = (ROOT / "configs" / "examples" / "village.txt").read_bytes()[:6000]
    file = client.post("/v1/files", files={"file": ("village.txt", text)}, data={"purpose": "fine-tune"}).json()["id"]
    return client.post("/v1/fine_tuning/jobs", json={
        "model": NANO, "training_file": file, "suffix": suffix, "seed": 1, "hyperparameters": {"batch_size": 2},
        "couplet": {"training_type": {"type": "full"}, "context_length": 32, "learning_rate": 0.003, "max_steps": 30, "n_evals": 3, "n_checkpoints": 3, "validation_split": 0.1}}).json()["id"]


def ask_until(client, path, what):
    end = time.monotonic() + 240
    while not what(said := client.get(path).json()):
        assert time.monotonic() < end and said.get("status") not in ("failed", "cancelled"), said
        time.sleep(0.1)
    return said


@pytest.fixture(scope="module")
def trained(nano, tmp_path_factory):
    """gpt2-nano and the three checkpoints and the result of a short training of it; `hold` lets further trainings stand still."""
    hold = Hold(tmp_path_factory.mktemp("hold"))
    with Server("--model", str(nano), *hold.options) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        server.hold, server.client = hold, client
        server.job = ask_until(client, f"/v1/fine_tuning/jobs/{train(client, 'village')}", lambda job: job["status"] == "succeeded")
        yield server


def start(v, view="compare", prompt="The baker", **sampling):
    v.keep(prompt=prompt, sampling={"temperature": 1, "max_tokens": 12, **sampling})
    v.page.evaluate("view => { location.hash = '#' + view }", view)
    v.page.reload()
    expect(v.page.locator("#compare")).to_be_enabled()


def columns(v):
    return v.page.locator(".compare-column")


def compare(v):
    with v.page.expect_request("**/completions"):
        v.page.locator("#compare").click()
    expect(v.page.locator("#stop")).to_be_hidden()


def test_the_same_prompt_and_seed_at_the_same_time(visit, trained):
    v = visit(trained.url)
    base, result = NANO, trained.job["fine_tuned_model"]
    start(v, f"compare?models={base},{result}")
    expect(columns(v)).to_have_count(2)
    sent = []
    v.page.on("request", lambda r: sent.append(json.loads(r.post_data)) if r.url.endswith("/v1/completions") else None)
    compare(v)
    assert [b["model"] for b in sent] == [base, result] and all(b["stream"] for b in sent)
    assert len({b["seed"] for b in sent}) == 1 and len({b["prompt"] for b in sent}) == 1
    for i in range(2):
        expect(columns(v).nth(i).locator(".compare-stats")).to_contain_text("answer")
    a, b = (columns(v).nth(i).locator(".tok") for i in range(2))
    assert a.all_text_contents() != b.all_text_contents()
    expect(columns(v).nth(1).locator(".tok.differs")).not_to_have_count(0)
    expect(columns(v).nth(1).locator(".tag")).to_contain_text(re.compile("differs from the first token on|the same up to token"))
    assert v.complaints == [] and v.foreign() == []


def test_a_token_says_how_likely_the_other_finds_it(visit, trained):
    v = visit(trained.url)
    base, result = NANO, trained.job["fine_tuned_model"]
    start(v, f"compare?models={base},{result}")
    compare(v)
    column = columns(v).nth(1)
    with v.page.expect_response("**/v1/completions") as answered:
        column.locator(".tok, .text").first.hover()
    scored = answered.value.json()["choices"][0]
    assert scored["text"] is not None and answered.value.request.post_data_json["model"] == base
    expect(column).to_contain_text(re.compile(rf"mean surprise [\d.]+ bits · for {base} [\d.]+"))
    n = column.locator(".tok").count()
    v.page.mouse.move(2, 2)
    expect(v.page.locator(".token-card")).to_be_hidden()
    column.locator(".text").focus()
    v.page.keyboard.press("ArrowRight")
    under = v.page.locator(".compare-under")
    expect(under).to_contain_text(f"{base} finds it")
    shown = float(re.search(r"finds it <?([\d.]+)%", under.inner_text()).group(1))
    assert abs(shown - 100 * math.exp(scored["logprobs"]["token_logprobs"][-n])) < 0.6
    expect(under).to_contain_text(re.compile(r"[+−][\d.]+ points here|the same here"))


def test_four_models_and_back(visit, trained):
    v = visit(trained.url)
    start(v)
    for n in (3, 4):
        v.page.get_by_role("button", name="Add a model").click()
        expect(columns(v)).to_have_count(n)
    expect(v.page.get_by_role("button", name="Add a model")).to_be_hidden()
    names = v.page.locator(".compare-model").evaluate_all("all => all.map((e) => e.value)")
    assert len(set(names)) == 4
    v.page.get_by_label("Model 1", exact=True).select_option(names[1])  # taken: they swap
    expect(v.page.get_by_label("Model 2", exact=True)).to_have_value(names[0])
    compare(v)
    for i in range(4):
        expect(columns(v).nth(i).locator(".compare-stats")).to_contain_text("answer")
    v.shot("compare-four-1440")
    v.page.reload()
    expect(columns(v)).to_have_count(4)
    v.page.get_by_role("button", name=f"Remove {names[3]}").click()
    expect(columns(v)).to_have_count(3)


def test_only_what_differs_is_marked(visit, base_url, trained):
    """One word exchanged, one more, the rest equal: exactly these are underlined."""
    v = visit(trained.url)
    answers = {NANO: ["A", " red", " fox", " ran", " home"], trained.job["fine_tuned_model"]: ["A", " blue", " fox", " ran", " right", " home"]}
    start(v, f"compare?models={','.join(answers)}")
    v.page.route("**/v1/completions", lambda route: route.fulfill(status=200, headers={"Content-Type": "text/event-stream"}, body=stream(answers[route.request.post_data_json["model"]])))
    v.page.locator("#compare").click()
    expect(columns(v).nth(1).locator(".tag")).to_have_text("the same up to token 1")
    expect(columns(v).nth(0).locator(".tok.differs")).to_have_text(["red"])
    expect(columns(v).nth(1).locator(".tok.differs")).to_have_text(["blue", "right"])
    answers[NANO] = answers[trained.job["fine_tuned_model"]]
    v.page.locator("#compare").click()
    expect(columns(v).nth(1).locator(".tag")).to_have_text("the same answer as the first")
    expect(columns(v).locator(".tok.differs")).to_have_count(0)


def test_a_training_run_replayed(visit, trained):
    v = visit(trained.url)
    start(v, seed=1, temperature=0)
    slider, words = v.page.get_by_label("Checkpoint"), v.page.locator(".compare-run output")
    expect(slider).to_have_attribute("max", "4")  # base, three checkpoints, result
    expect(words).to_have_text("before training")
    slider.focus()
    v.page.keyboard.press("ArrowRight")
    expect(words).to_have_text("step 10")
    expect(v.page.locator(".compare-run .stats")).to_contain_text("answer")
    first = v.page.locator(".compare-run .text").inner_text()
    v.page.get_by_role("button", name="Replay all").click()
    expect(words).to_have_text("the result")
    expect(v.page.locator(".compare-run .stats")).to_contain_text(re.compile("(not|same) as step 30 · prompt"))
    asked = sum(r.url.endswith("/v1/completions") for r in v.requests)
    assert asked == 5
    slider.focus()
    for _ in range(3):
        v.page.keyboard.press("ArrowLeft")
    expect(words).to_have_text("step 10")
    expect(v.page.locator(".compare-run .text")).to_have_text(first, use_inner_text=True)
    assert sum(r.url.endswith("/v1/completions") for r in v.requests) == asked, "kept answers are not asked for again"
    assert v.complaints == []


def test_a_refused_checkpoint_is_asked_again(visit, trained):
    """A server that was busy once is not busy for ever."""
    v = visit(trained.url)
    start(v, seed=1, temperature=0)
    busy = '{"error": {"message": "The queue is full.", "code": "queue_full"}}'
    v.page.route("**/v1/completions", lambda route: route.fulfill(status=429, body=busy, content_type="application/json"))
    v.page.get_by_role("button", name="Replay all").click()
    expect(v.page.locator(".compare-run").get_by_role("alert")).to_contain_text("busy")
    v.page.unroute("**/v1/completions")
    v.page.get_by_role("button", name="Replay all").click()
    expect(v.page.locator(".compare-run output")).to_have_text("the result")
    expect(v.page.locator(".compare-run .stats")).to_contain_text("answer")
    expect(v.page.locator(".compare-run").get_by_role("alert")).to_have_count(0)


def answer_of(trained, model):
    body = {"model": model, "prompt": "The baker", "temperature": 0, "seed": 1, "max_tokens": 12}
    return trained.client.post("/v1/completions", json=body).json()["choices"][0]["text"]


def test_a_model_in_training_beside_its_base(visit, trained):
    """Each comparison is with the newest weights; when the run is over the page says that they are gone, and its result can be chosen."""
    trained.hold.at(10)
    job = train(trained.client, "learning")

    def at(step):
        """Waits until the run's weights of that step are served; the name of the newest."""
        made = ask_until(trained.client, f"/v1/fine_tuning/jobs/{job}/checkpoints", lambda said: [c for c in said["data"] if c["step_number"] == step])
        return re.sub(":ckpt-step-.*", ":live", made["data"][0]["fine_tuned_model_checkpoint"])

    try:
        live = at(10)
        v = visit(trained.url)
        start(v, f"compare?models={NANO},{live}", seed=1, temperature=0)
        said = columns(v).nth(1).locator(".text")
        for step in (10, 20):
            trained.hold.at(step)
            assert at(step) == live
            compare(v)
            for i in range(2):
                expect(columns(v).nth(i).locator(".compare-stats")).to_contain_text("answer")
            v.page.wait_for_function("([e, text]) => e.textContent === text", arg=[said.element_handle(), answer_of(trained, live.replace(":live", f":ckpt-step-{step}"))])
        v.page.get_by_label("Training run").select_option(job)
        v.page.get_by_role("button", name="Replay all").click()
        expect(v.page.locator(".compare-run output")).to_have_text("newest weights")
        expect(v.page.locator(".compare-run .stats")).to_contain_text("answer")
        assert v.complaints == []
    finally:
        trained.hold.release()
    result = ask_until(trained.client, f"/v1/fine_tuning/jobs/{job}", lambda job: job["status"] == "succeeded")["fine_tuned_model"]
    v.page.locator("#compare").click()
    expect(v.page.locator("#notice")).to_contain_text("no longer served")
    expect(v.page.get_by_label("Model 1", exact=True).locator("option", has_text="learning")).to_have_count(4)  # three checkpoints and the result
    v.page.get_by_label("Model 2", exact=True).select_option(result)
    compare(v)
    expect(columns(v).nth(1).locator(".compare-stats")).to_contain_text("answer")


def test_models_that_must_be_loaded_first(visit, trained):
    """One of the run's models fits into memory at a time: each is loaded when it is asked, one after the other, and none is refused."""
    command, name = trained.command, trained.job["fine_tuned_model"]
    trained.stop()
    trained.command = [*command, "--max-loaded", "1"]
    trained.start()
    try:
        wanted = [NANO, f"{name}:ckpt-step-10", f"{name}:ckpt-step-20", name]
        v = visit(trained.url)
        start(v, f"compare?models={','.join(wanted)}", seed=1, temperature=0)
        expect(columns(v)).to_have_count(4)
        compare(v)
        for i in range(4):
            expect(columns(v).nth(i).locator(".compare-stats")).to_contain_text("answer")
            v.page.wait_for_function("([e, text]) => e.textContent === text", arg=[columns(v).nth(i).locator(".text").element_handle(), answer_of(trained, wanted[i])])
        columns(v).nth(1).locator(".text").hover()
        expect(columns(v).nth(1)).to_contain_text(re.compile(r"mean surprise [\d.]+ bits( · for .+ [\d.]+){3}"))
        v.page.get_by_role("button", name="Replay all").click()
        expect(v.page.locator(".compare-run output")).to_have_text("the result")
        expect(v.page.locator(".compare-run .stats")).to_contain_text(re.compile("as step 30 · prompt"))
        expect(v.page.get_by_role("alert")).to_have_count(0)
        assert v.complaints == []
    finally:
        trained.stop()
        trained.command = command
        trained.start()


def test_models_of_different_make(visit, smol_url):
    """A model without a chat template goes along; with another vocabulary there are no probabilities to compare, and no complaint about it."""
    v = visit(smol_url)
    start(v, "compare?models=SmolLM2-135M-Instruct,gpt2-nano", seed=1)
    compare(v)
    for i in range(2):
        expect(columns(v).nth(i).locator(".compare-stats")).to_contain_text("answer")
    columns(v).nth(0).locator(".text").hover()
    v.page.mouse.move(2, 2)
    assert v.complaints == [] and v.page.locator(".compare-under").count() == 0
    v.page.get_by_text("Question", exact=True).click()
    expect(v.page.get_by_text("gpt2-nano has no chat template")).to_be_visible()
    compare(v)
    expect(columns(v).nth(0).locator(".compare-stats")).to_contain_text("answer")
    expect(columns(v).nth(1).get_by_role("alert")).to_contain_text("no chat template")


def test_one_model_alone(visit):
    v = visit()
    v.open("compare")
    expect(v.page.get_by_text("nothing to compare yet")).to_be_visible()
    expect(v.page.get_by_text("When a fine-tuning job has left checkpoints")).to_be_visible()
    expect(v.page.locator("#compare")).to_be_disabled()


@pytest.mark.parametrize("width,scheme", [(1440, "light"), (390, "dark")])
def test_looks(visit, trained, width, scheme):
    v = visit(trained.url, viewport={"width": width, "height": 900}, color_scheme=scheme)
    start(v, f"compare?models={NANO},{trained.job['fine_tuned_model']}", seed=1, max_tokens=60)
    compare(v)
    v.page.get_by_role("button", name="Replay all").click()
    expect(v.page.locator(".compare-run output")).to_have_text("the result")
    expect(v.page.locator(".compare-run .stats")).to_contain_text("answer")
    columns(v).nth(1).locator(".text").focus()
    v.page.keyboard.press("ArrowRight")
    expect(v.page.locator(".token-card")).to_be_visible()
    v.shot(f"compare-{width}")
    assert v.serious() == []
    assert v.fits()
    assert v.complaints == []
