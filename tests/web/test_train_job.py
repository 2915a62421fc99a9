# SPDX-License-Identifier: MIT
"""Train, second half: the runs, one run while it learns and afterwards, its checkpoints and results, runs in one chart. Jobs are made through the API, as
a page left open would find them."""
import json
import re
import time

import httpx
import pytest
from playwright.sync_api import expect

from held_trainer import Hold
from serving import ROOT, Server

TEXT = (ROOT / "configs" / "examples" / "village.txt").read_bytes()[:24_000]
ROWS = "".join(json.dumps({"instruction": f"Say number {i}", "input": ["", "a", "b c"][i % 3], "output": ["one two", "three four five", "six"][i % 3]}) + "\n"
               for i in range(48)).encode()
SMALL = {"training_type": {"type": "full"}, "context_length": 32, "learning_rate": 0.003, "validation_split": 0.1}


class Trainer:
    """A server's jobs, through the API; `hold` lets them stand still."""

    def __init__(self, url, hold):
        self.url, self.hold, self.client = url, hold, httpx.Client(base_url=url, timeout=60)
        self.text, self.rows = self.upload("village.txt", TEXT), self.upload("rows.jsonl", ROWS)

    def upload(self, name, data):
        return self.client.post("/v1/files", files={"file": (name, data)}, data={"purpose": "fine-tune"}).json()["id"]

    def start(self, suffix, file=None, batch_size=4, metadata=None, model="gpt2-nano", n_epochs=1, **couplet):
        answer = self.client.post("/v1/fine_tuning/jobs", json={
            "model": model, "training_file": file or self.text, "suffix": suffix, "seed": 1, "metadata": metadata,
            "hyperparameters": {"batch_size": batch_size, "n_epochs": n_epochs}, "couplet": {**SMALL, **couplet}})
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    def job(self, job):
        return self.client.get(f"/v1/fine_tuning/jobs/{job}").json()

    def wait(self, job, what=lambda job: job["status"] == "succeeded", seconds=240):
        end = time.monotonic() + seconds
        while not what(now := self.job(job)):
            assert time.monotonic() < end and now["status"] not in ("failed", "cancelled"), now
            time.sleep(0.1)
        return now

    def reached(self, job, step):
        """Waits for a run that is held at a step."""
        return self.wait(job, lambda now: now["couplet"]["step"] == step)

    def steps(self, job):
        events = self.client.get(f"/v1/fine_tuning/jobs/{job}/events?limit=1000").json()["data"]
        return {e["data"]["step"]: e["data"] for e in events if e["type"] == "metrics" and "valid_loss" not in e["data"]}

    def cancel(self, job):
        self.client.post(f"/v1/fine_tuning/jobs/{job}/cancel")
        self.wait(job, lambda now: now["status"] in ("cancelled", "succeeded"))


@pytest.fixture(scope="module")
def trainer(nano, tmp_path_factory):
    hold = Hold(tmp_path_factory.mktemp("hold"))
    with Server("--model", str(nano), *hold.options) as server:
        yield Trainer(server.url, hold)


@pytest.fixture(scope="module")
def village(trainer):
    """A finished run on a text."""
    job = trainer.start("village", max_steps=40, n_evals=4, n_checkpoints=2, sample_prompts=["The mill", "Anna"])
    trainer.wait(job)
    return job


@pytest.fixture(scope="module")
def rows(trainer):
    """A finished run on instructions, with answers of base and result."""
    job = trainer.start("answers", file=trainer.rows, context_length=256, validation_split=0.25, n_epochs=2, learning_rate=0.004)
    trainer.wait(job)
    return job


@pytest.fixture
def endless(trainer):
    """A run that goes on until the test is over; it stands at step 5."""
    trainer.hold.at(5)
    job = trainer.start("endless", max_steps=1_000_000, n_evals=1, n_checkpoints=1, warmup_ratio=0.5)
    trainer.reached(job, 5)
    yield job
    trainer.cancel(job)
    trainer.hold.release()


def open_job(visit, trainer, job, **options):
    v = visit(trainer.url, **options)
    v.open(f"train?job={job}")
    expect(v.page.locator("#job")).to_be_visible()
    return v


def legend(v, label, chart="#loss-chart"):
    return v.page.locator(f"{chart} b[data-series='{label}']")


def step(v):
    """The step at the chart's right end."""
    text = v.page.locator("#loss-chart .chart-at").text_content()
    return int(re.sub(r"\D", "", text) or 0)


def wait_step(v, least):
    v.page.wait_for_function("least => Number(document.querySelector('#loss-chart .chart-at')?.textContent.replace(/\\D/g, '')) >= least", arg=least)


def numbers(v, chart="#loss-chart"):
    """The chart's table: header cells, then rows."""
    v.page.locator(f"{chart} summary").click()
    table = v.page.locator(f"{chart} table")
    expect(table).to_be_visible()
    return table.evaluate("t => [...t.rows].map(r => [...r.cells].map(c => c.textContent))")


def marker(v):
    v.page.evaluate("window.sameDocument = true")
    return lambda: v.page.evaluate("window.sameDocument === true")


# ---------------------------------------------------------------- the runs


def test_nothing_was_trained_yet(visit, nano):
    with Server("--model", str(nano)) as server:
        v = visit(server.url)
        v.open("train")
        expect(v.page.get_by_text("Nothing has been trained yet")).to_be_visible()
        assert v.fits() and not v.complaints


def test_the_list_says_how_each_run_stands(visit, trainer, village, endless):
    waiting = trainer.start("waiting", max_steps=2)
    v = visit(trainer.url)
    v.open("train")
    run = {name: v.page.locator(".job-run", has=v.page.get_by_role("link", name=name, exact=True)) for name in ("village", "endless", "waiting")}
    expect(run["village"]).to_contain_text("finished")
    expect(run["village"]).to_contain_text("gpt2-nano · all weights · village.txt")
    expect(run["village"]).to_contain_text("40 steps")
    expect(run["waiting"]).to_contain_text("next in the queue")
    expect(run["endless"]).to_contain_text(re.compile(r"step 5 of 1,000,000 · .* left"))
    trainer.hold.at(9)
    expect(run["endless"]).to_contain_text("step 9 of 1,000,000")  # without a reload
    opened, first, *later = v.asked_at("/fine_tuning/jobs?limit=20", 4)
    assert all(b - a >= 1990 for a, b in zip([first, *later], later)), "asked more often than every two seconds"
    run["waiting"].get_by_role("button", name="Cancel waiting").click()
    expect(run["waiting"]).to_contain_text("cancelled")  # nothing was lost: nobody asks
    assert trainer.job(waiting)["status"] == "cancelled"
    assert not [r for r in v.requests if "stream=true" in r.url], "a list holds no stream"
    run["village"].get_by_role("link", name="village").click()
    expect(v.page).to_have_url(re.compile(f"#train\\?job={village}"))
    assert not v.complaints


def test_pause_resume_cancel(visit, trainer, endless):
    v = open_job(visit, trainer, endless)
    page, status = v.page, v.page.locator("#job [data-status]")
    expect(status).to_have_text("training")
    wait_step(v, 5)
    page.get_by_role("button", name="Pause endless").click()
    expect(status).to_have_text("paused")
    expect(page.get_by_role("button", name="Resume endless")).to_be_focused()  # the keyboard stays where it was
    assert trainer.job(endless)["status"] == "paused"
    rested = trainer.job(endless)["couplet"]["step"]  # where it was saved
    trainer.hold.at(rested + 5)
    page.get_by_role("button", name="Resume endless").click()
    expect(status).to_have_text("training")
    wait_step(v, rested + 5)
    page.get_by_role("button", name="Cancel endless").click()
    dialog = page.get_by_role("dialog", name="Cancel this run?")
    expect(dialog).to_contain_text("lost")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    expect(status).to_have_text("training")
    page.get_by_role("button", name="Cancel endless").click()
    dialog.get_by_role("button", name="Cancel the run").click()
    expect(status).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Pause endless")).to_have_count(0)
    expect(page.locator("#main")).to_be_focused()
    expect(page.locator("#events")).to_contain_text("The job has been cancelled.")
    assert not v.complaints


def test_a_list_that_cannot_be_read_anew_says_so(visit, trainer, endless):
    v = visit(trainer.url)
    v.open("train")
    expect(v.page.locator("#runs")).to_contain_text("step 5 of")
    v.page.route("**/fine_tuning/jobs?limit=*", lambda route: route.abort())
    expect(v.page.locator("#runs").get_by_role("status")).to_contain_text("Trying again")
    v.page.unroute("**/fine_tuning/jobs?limit=*")
    expect(v.page.locator("#runs").get_by_role("status")).to_have_count(0)


def test_after_its_last_step_a_run_writes_its_results(visit, trainer, endless):
    v = visit(trainer.url)

    def at_its_end(route):
        answer = route.fetch().json()
        answer["data"][0]["couplet"].update(step=1_000_000, seconds_per_step=1)
        route.fulfill(json=answer)
    v.page.route("**/fine_tuning/jobs?limit=*", at_its_end)
    v.open("train")
    expect(v.page.locator("#runs")).to_contain_text("step 1,000,000 of 1,000,000 · writing its results")


def test_system_calls_runs_as_train_does(visit, trainer, village, endless):
    v, waiting = visit(trainer.url), trainer.start("waiting", max_steps=2)
    v.open("system")
    expect(v.page.locator(".system-queue li")).to_have_text([re.compile("endless training.*gpt2-nano"), re.compile("waiting waiting")])
    expect(v.page.get_by_role("region", name="Models").get_by_role("link", name=re.compile(r"^village \(\w+\)$"))).to_be_visible()
    trainer.cancel(waiting)


def test_again_like_this_is_like_this(visit, trainer):
    """Nothing held out and no sample prompts stay so; only another file has its own name and prompts."""
    trainer.hold.at(0)
    job = trainer.start("plain", max_steps=2, n_evals=1, n_checkpoints=1, validation_split=None)
    try:
        v = visit(trainer.url)
        v.open(f"train?new=1&like={job}")
        field = lambda label: v.page.locator(".train-new").get_by_label(label, exact=True)  # noqa: E731
        expect(field("Held out")).to_have_value("0")
        expect(field("Sample prompts")).to_have_value("-")
        expect(field("Name")).to_have_value("plain")
        v.page.get_by_role("button", name="View as…").click()
        expect(v.page.locator("#view-as")).to_contain_text('"max_steps": 2')
        expect(v.page.locator("#view-as")).to_contain_text('"seed": 1')
        said = v.page.locator("#view-as").text_content()
        assert "validation_split" not in said and "sample_prompts" not in said
        v.page.get_by_role("button", name="Close").click()
        v.open(f"train?new=1&file={trainer.rows}")
        expect(field("Name")).to_have_value("")
        expect(field("Sample prompts")).to_have_value("")
        expect(field("Steps")).to_have_value("2")
    finally:
        trainer.cancel(job)
        trainer.hold.release()


# ---------------------------------------------------------------- one run


def test_a_run_is_watched_to_its_end(visit, trainer):
    """From the first step to the result on a page that is never loaded again."""
    trainer.hold.at(5)
    job = trainer.start("watched", training_type={"type": "lora"}, max_steps=40, n_evals=4, n_checkpoints=2, sample_prompts=["The mill"], metadata={"couplet.estimate_s": "90"})
    trainer.reached(job, 5)
    v = open_job(visit, trainer, job)
    page, same = v.page, marker(v)
    wait_step(v, 5)
    assert step(v) == 5
    trainer.hold.at(25)
    wait_step(v, 25)
    expect(page.locator("#job progress")).to_have_attribute("value", "0.625")
    expect(page.locator("#job")).to_contain_text(re.compile("step 25 of 40 · (.* left|nearly done)"))
    expect(page.locator("#job")).to_contain_text("1 min 30 s")  # what was expected
    expect(page.locator("#job [data-status]")).to_have_text("training")
    trainer.hold.release()
    expect(page.locator("#job [data-status]")).to_have_text("finished")
    wait_step(v, 40)
    steps = trainer.steps(job)
    expect(legend(v, "Training")).to_have_text(re.compile(r"^\d"))
    assert same() and float(legend(v, "Training").inner_text()) == pytest.approx(steps[40]["train_loss"], rel=1e-3)
    expect(legend(v, "Validation")).to_have_text(re.compile(r"^\d+\.\d+$"))
    for name in ("Learning rate", "Tokens/s", "Gradient norm"):
        expect(page.get_by_role("group", name=name, exact=True).locator("b")).to_have_text(re.compile(r"^\d"))
    expect(page.locator("#finished")).to_contain_text("better")
    expect(page.locator("#events li").first).to_contain_text("successfully completed")
    expect(page.locator("#model option", has_text=re.compile(r"^ft:gpt2-nano:local:watched:\w+$"))).to_have_count(1)  # the picker knows the new model
    streams = [r for r in v.requests if "stream=true" in r.url]
    assert len(streams) == 1 and streams[0].headers.get("last-event-id"), "one stream, from the last known event on"
    with page.expect_download() as download:
        page.get_by_role("button", name="Adapter (PEFT)").click()
    assert download.value.suggested_filename == "watched-peft.tar"
    page.wait_for_load_state("networkidle")
    asked = len(v.requests)
    page.wait_for_timeout(2700)  # a run that goes on is asked about every 2.5 s
    assert len(v.requests) == asked, "nothing is asked once all is over"
    assert not v.complaints and not v.foreign()


def test_curves_are_the_events(visit, trainer, village):
    v = open_job(visit, trainer, village)
    page, steps = v.page, trainer.steps(village)
    head, *table = numbers(v)
    assert head == ["step", "Training", "Validation"]
    by_step = {int(row[0]): row for row in table}
    assert set(range(1, 41)) <= set(by_step)
    for n in (1, 17, 40):
        assert float(by_step[n][1]) == pytest.approx(steps[n]["train_loss"], rel=1e-3)
    assert [n for n, row in by_step.items() if row[2]] == [0, 10, 20, 30, 40]
    page.locator("#main").get_by_text("Tokens", exact=True).click()
    expect(page.locator("#loss-chart .chart-at")).to_have_text(f"tokens {steps[40]['tokens']:,}")
    expect(page).to_have_url(re.compile("x=tokens"))
    page.get_by_text("Epochs", exact=True).click()
    expect(page.locator("#loss-chart .chart-at")).to_have_text(re.compile(r"^epoch 0\.\d+"))
    page.locator(".job-curves").get_by_text("Steps", exact=True).click()
    page.locator("#loss-chart").focus()  # first: it scrolls, and the pointer would leave
    plot = page.locator("#loss-chart .u-over")
    box = v.still(plot)
    plot.hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    expect(page.locator("#loss-chart .chart-at")).to_have_text("step 20")
    assert float(legend(v, "Training").inner_text()) == pytest.approx(steps[20]["train_loss"], rel=1e-3)
    expect(page.get_by_role("group", name="Gradient norm", exact=True).locator("b")).to_have_text(re.compile(f"{steps[20]['grad_norm']:.2f}"[:3]))
    page.keyboard.press("ArrowRight")
    expect(page.locator("#loss-chart .chart-at")).to_have_text("step 21")
    page.get_by_role("button", name="Log", exact=True).click()
    page.get_by_role("button", name="Smooth", exact=True).click()
    expect(page.locator("#loss-chart [role=img]")).to_have_attribute("aria-label", re.compile(r"Loss\. .*Validation from \d"))
    page.get_by_role("button", name="Training").first.click()
    expect(page.get_by_role("button", name="Training").first).to_have_attribute("aria-pressed", "false")
    assert not v.complaints


def test_a_chart_is_zoomed_and_follows_the_colours(visit, trainer, village):
    v = open_job(visit, trainer, village)
    page, plot = v.page, v.page.locator("#loss-chart .u-over")
    expect(page.locator(".job-verdict")).to_be_visible()
    box = v.still(plot)
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 60, steps=4)
    page.mouse.up()
    whole = page.locator("#loss-chart").get_by_role("button", name="Show all")
    expect(whole).to_be_visible()
    picture = "document.querySelector('#loss-chart canvas').toDataURL()"
    zoomed = page.evaluate(picture)
    whole.click()
    expect(whole).to_have_count(0)
    page.wait_for_function(f"before => {picture} !== before", arg=zoomed)
    light = page.evaluate(picture)
    page.locator("#theme").click()
    page.locator("#theme").click()  # automatic, light, dark
    page.wait_for_function(f"before => {picture} !== before", arg=light)
    assert not v.complaints


def test_samples_by_step(visit, trainer, village):
    v = open_job(visit, trainer, village)
    samples, slider = v.page.locator("#samples"), v.page.get_by_label("Step of the samples")
    expect(samples.locator(".card-tools")).to_have_text("step 40")
    shown = samples.locator("> .job-sample")
    expect(shown).to_have_count(2)
    last = shown.first.inner_text()
    assert last.startswith("The mill")
    slider.focus()
    v.page.keyboard.press("Home")
    expect(samples.locator(".card-tools")).to_have_text("step 0")
    expect(shown.first).not_to_have_text(last)
    samples.get_by_text("All samples, newest first").click()
    expect(samples.locator(".job-sample-list .tag")).to_have_text(["step 40", "step 30", "step 20", "step 10", "step 0"])


def test_a_reload_in_the_middle_loses_nothing(visit, trainer, endless):
    v = open_job(visit, trainer, endless)
    wait_step(v, 5)
    v.page.reload()
    wait_step(v, 5)
    trainer.hold.at(9)
    wait_step(v, 9)
    _, *table = numbers(v)
    assert [row[0] for row in table if row[1]] == [str(n) for n in range(1, 10)], "every step, those before the reload too"
    v.open("complete")
    trainer.hold.at(12)
    v.open(f"train?job={endless}")
    wait_step(v, 12)
    assert not v.complaints


def test_the_time_left_is_known_from_the_first_steps_on(visit, trainer, endless):
    """The job object is asked for every few seconds only; what it does not know yet, the events tell."""
    v, answers = visit(trainer.url), []

    def before_the_first_step(route):
        if answers:
            return  # the next one never comes
        answers.append(route.fetch().json())
        answers[0]["couplet"].update(step=0, seconds_per_step=None)
        route.fulfill(json=answers[0])
    v.page.route(f"**/v1/fine_tuning/jobs/{endless}", before_the_first_step)
    v.open(f"train?job={endless}")
    expect(v.page.locator("#job .job-progress")).to_contain_text(re.compile(r"step 5 of 1,000,000 · .+ left"))
    trainer.hold.at(9)
    expect(v.page.locator("#job .job-progress")).to_contain_text(re.compile(r"step 9 of 1,000,000 · .+ left"))


def test_a_restarted_server_is_found_again(visit, nano, tmp_path):
    """The server goes and comes back while a run is watched: the page says so, waits, and goes on where it was."""
    hold = Hold(tmp_path)
    hold.at(10)
    with Server("--model", str(nano), *hold.options) as server:
        trainer = Trainer(server.url, hold)
        job = trainer.start("long", max_steps=1_000_000, n_evals=1, n_checkpoints=1)
        trainer.reached(job, 10)
        v = open_job(visit, trainer, job)
        same = marker(v)
        wait_step(v, 10)
        server.stop()
        expect(v.page.locator("#job")).to_contain_text("connection lost")
        before, asked = step(v), len(v.requests)
        hold.at(before + 20)  # the run was saved some steps after what the page has seen
        server.start()
        wait_step(v, before + 5)
        expect(v.page.locator("#job")).not_to_contain_text("connection lost")
        again = [r for r in v.requests[asked:] if "stream=true" in r.url]
        assert same() and again and again[-1].headers["last-event-id"].startswith("ftevent-")
        trainer.cancel(job)
        expect(v.page.locator("#job [data-status]")).to_have_text("cancelled")
        assert not [c for c in v.complaints if "ERR_" not in c and "503" not in c]  # the browser itself complains of a server that is away or not ready yet


def test_a_failed_run_says_why(visit, trainer):
    job = trainer.start("short", file=trainer.rows, context_length=8)
    trainer.wait(job, lambda now: now["status"] == "failed")
    v = open_job(visit, trainer, job)
    failed = v.page.locator(".job-failed")
    expect(failed).to_contain_text("rows.jsonl line 1")
    expect(failed).to_contain_text("Mend the file")
    expect(failed.get_by_role("link")).to_have_attribute("href", f"#train?new=1&like={job}")
    v.open("train?job=ftjob-none")
    expect(v.page.get_by_text("There is no such run")).to_be_visible()


# ---------------------------------------------------------------- what came of it


def test_checkpoints_are_tried_at_once(visit, trainer, village):
    v = open_job(visit, trainer, village)
    page, models = v.page, v.page.locator(".job-model")
    expect(models).to_have_count(3)  # the result, steps 40 and 20
    expect(page.get_by_label("Try it")).to_have_value("The mill")
    page.get_by_label("Try it").fill("Anna went")
    early = models.nth(2)
    expect(early).to_contain_text(re.compile(r"Step 20.*training \d\.\d+ · validation \d\.\d+"))
    early.get_by_role("button", name="Try Step 20").click()
    expect(early.get_by_role("status").last).to_contain_text("tokens/s")
    assert early.locator(".text").inner_text().strip()
    name = trainer.job(village)["fine_tuned_model"]
    expect(early.get_by_role("link", name="Compare Step 20")).to_have_attribute("href", f"#compare?models=gpt2-nano%2C{name.replace(':', '%3A')}%3Ackpt-step-20")
    expect(early.get_by_role("link", name="Look inside Step 20")).to_have_attribute("href", f"#inside?model={name.replace(':', '%3A')}%3Ackpt-step-20")
    expect(page.get_by_role("link", name="Replay the run in Compare")).to_have_attribute("href", f"#compare?job={village}")
    said = early.locator(".text").inner_text()
    v.open("complete")
    v.open(f"train?job={village}")
    expect(models.nth(2).locator(".text")).to_have_text(said.strip())  # what was said stays
    page.get_by_role("button", name="Try all").click()
    for i in range(3):
        expect(models.nth(i).get_by_role("status").last).to_contain_text("tokens/s")
    assert not v.complaints


def test_a_sample_prompt_is_no_question(visit, trainer, village):
    """It has its template already: a model that can chat goes on with it; what a user writes is asked."""
    def with_template(route):
        answer = route.fetch().json()
        for model in answer["data"]:
            (model["meta"] or {})["chat_template"] = "chatml"
        route.fulfill(json=answer)
    v = visit(trainer.url)
    v.page.route("**/v1/models", with_template)
    v.page.reload()
    v.open(f"train?job={village}")
    page, box = v.page, v.page.get_by_label("Try it")
    way = lambda name: page.get_by_role("group", name="How to ask").get_by_label(name)  # noqa: E731
    expect(box).to_have_value("The mill")
    expect(way("Go on")).to_be_checked()
    with page.expect_request("**/v1/completions") as sent:
        page.locator(".job-model").first.get_by_role("button", name="Try").click()
    assert json.loads(sent.value.post_data)["prompt"] == "The mill"
    box.fill("The mill stood")  # the sample prompt, changed
    expect(way("Go on")).to_be_checked()
    page.get_by_role("group", name="How to ask").get_by_text("Ask", exact=True).click()
    expect(way("Ask")).to_be_checked()
    expect(box).to_have_value("The mill stood")
    assert not v.complaints


def test_newest_weights_are_tried_while_it_learns(visit, trainer):
    trainer.hold.at(0)
    job = trainer.start("adapter", max_steps=1_000_000, training_type={"type": "lora"}, n_checkpoints=1, n_evals=1)
    try:
        v = open_job(visit, trainer, job)
        live = v.page.locator(".job-model", has_text="Newest weights")
        expect(v.page.locator("#job [data-status]")).to_have_text("training")
        expect(live).to_have_count(0)
        trainer.hold.at(3)
        expect(live).to_be_visible()  # the list of models is asked for again now and then
        assert live.get_attribute("data-model").endswith(":live")
        v.page.get_by_label("Try it").fill("Anna")
        live.get_by_role("button", name="Try Newest weights, while it learns").click()
        expect(live.get_by_role("status").last).to_contain_text("answer")
        assert not v.complaints
    finally:
        trainer.cancel(job)
        trainer.hold.release()


def test_results_are_cards_worst_first(visit, trainer, rows):
    v = open_job(visit, trainer, rows)
    files = {f["filename"]: f["id"] for f in trainer.client.get("/v1/files?purpose=fine-tune-results&limit=1000").json()["data"] if f["id"] in trainer.job(rows)["result_files"]}
    results = trainer.client.get(f"/v1/files/{files['results.json']}/content").json()
    cards, means, before = results["cards"], results["means"], results["base_means"]
    shown = v.page.locator(".job-result")
    expect(shown).to_have_count(min(12, len(cards)))
    first = shown.first
    for text in (cards[0]["instruction"], cards[0]["reference"], "Before", "After", "ROUGE-L", "Token F1"):
        expect(first).to_contain_text(text)
    assert [c["rouge_l"] for c in cards] == sorted(c["rouge_l"] for c in cards)
    figures = v.page.locator("#results .facts")
    expect(figures).to_contain_text(re.compile(r"ROUGE-L[\d.]+% → [\d.]+%"))
    shares = [float(share) for share in re.search(r"ROUGE-L([\d.]+)% → ([\d.]+)%", figures.text_content()).groups()]
    assert shares == pytest.approx([100 * before["rouge_l"], 100 * means["rouge_l"]], abs=0.51)
    v.page.get_by_label("Order").select_option("best")
    expect(shown.first).to_contain_text(cards[-1]["instruction"])
    v.page.get_by_label("Search the rows").fill(cards[0]["instruction"])
    same = [c for c in cards if cards[0]["instruction"] in c["instruction"]]
    expect(shown).to_have_count(len(same))
    v.page.get_by_label("Search the rows").fill("nobody says this")
    expect(v.page.get_by_text("No row is like that.")).to_be_visible()
    v.page.get_by_label("Search the rows").fill("")
    v.page.locator("#results .segmented").get_by_text("Exact", exact=True).click()
    expect(shown).to_have_count(min(12, sum(c["exact"] for c in cards)))
    v.page.locator("#results .segmented").get_by_text("All", exact=True).click()
    shown.first.get_by_role("button", name="Try this row").click()
    expect(v.page.get_by_label("Try it")).to_have_value(re.compile(r"### Instruction:\nSay number"))
    assert v.page.get_by_label("Try it").input_value() in [c["prompt"] for c in cards], "what the model read, whatever the kind of rows"
    assert not v.complaints


def test_the_result_is_taken_along(visit, trainer, rows):
    v = open_job(visit, trainer, rows)
    done, name = v.page.locator("#finished"), trainer.job(rows)["fine_tuned_model"]
    for label, file, begins in (("results.csv", "results.csv", b"step,train_loss"), ("results.json", "results.json", b'{"model"'), ("report.md", "report.md", b""),
                                ("GGUF", "answers-q8_0.gguf", b"GGUF"), ("Safetensors", "answers-safetensors.tar", b"")):
        with v.page.expect_download() as download:
            done.get_by_role("button", name=label, exact=True).click()
        assert download.value.suggested_filename == file
        with open(download.value.path(), "rb") as saved:
            assert saved.read(len(begins)) == begins and saved.seek(0, 2) > 100
    expect(done.get_by_role("button", name="Adapter (PEFT)")).to_have_count(0)  # every weight was trained
    expect(done.get_by_role("link", name="Let it write")).to_have_attribute("href", f"#complete?model={name.replace(':', '%3A')}")
    expect(done.get_by_role("link", name="Train again like this")).to_have_attribute("href", f"#train?new=1&like={rows}")
    done.get_by_label("A shorter name").fill("gpt2-nano")
    done.get_by_role("button", name="Give").click()
    expect(v.page.locator("#notice")).to_contain_text("another model")
    done.get_by_label("A shorter name").fill("my-answers")
    done.get_by_role("button", name="Give").click()
    expect(done).to_contain_text("also called my-answers")
    expect(v.page.locator("#notice")).to_have_count(0)  # it is settled
    expect(v.page.locator("#model option", has_text="my-answers")).to_have_count(1)
    done.get_by_label("A shorter name").fill("my answers/ä")
    done.get_by_role("button", name="Give").click()
    expect(done.locator("#alias:invalid")).to_be_focused()
    done.get_by_role("button", name="Take the name my-answers away").click()
    expect(v.page.locator("#model option", has_text="my-answers")).to_have_count(0)
    expect(done).not_to_contain_text("also called")
    assert [c for c in v.complaints if "409" not in c and "400" not in c] == []


# ---------------------------------------------------------------- several runs


def test_runs_in_one_chart(visit, trainer, village, rows):
    v = visit(trainer.url)
    v.open("train")
    page = v.page
    page.get_by_label("Compare village").check()
    expect(page.locator("#compare-runs")).to_be_disabled()
    page.get_by_label("Compare answers").check()
    page.locator("#compare-runs").click()
    expect(page).to_have_url(re.compile("#train\\?compare="))
    for run in ("village", "answers"):
        expect(legend(v, run, "#runs-chart")).to_have_text(re.compile(r"^\d"))
    table = page.locator(".job-differences")
    expect(table.get_by_role("row", name=re.compile("^Context"))).to_contain_text("32 tokens")
    expect(table.get_by_role("row", name=re.compile("^Context"))).to_contain_text("256 tokens")
    expect(table.get_by_role("row", name=re.compile("^Training file"))).to_contain_text("rows.jsonl")
    expect(table.get_by_role("row", name=re.compile("^Batch size"))).to_have_count(0)  # it is the same
    page.get_by_text("Training", exact=True).click()
    page.locator("#main").get_by_text("Tokens", exact=True).click()
    expect(page).to_have_url(re.compile("metric=train_loss"))
    head, *lines = numbers(v, "#runs-chart")
    assert head[0] == "tokens" and set(head[1:]) == {"village", "answers"} and len(lines) > 10
    page.get_by_role("button", name="answers ×").click()
    expect(legend(v, "answers", "#runs-chart")).to_have_count(0)
    page.get_by_label("Add a run").select_option(rows)
    expect(legend(v, "answers", "#runs-chart")).to_have_text(re.compile(r"^\d"))
    page.reload()
    expect(legend(v, "answers", "#runs-chart")).to_have_text(re.compile(r"^\d"))
    assert not v.complaints and not [r for r in v.requests if "stream=true" in r.url]


def test_twenty_thousand_steps_stay_fast(visit, trainer, village):
    """A long run's events, as the server would list them; drawing, switching and hovering."""
    base = trainer.client.get(f"/v1/fine_tuning/jobs/{village}/events?limit=1").json()["data"][0]

    def events(route):
        after = re.search(r"after=e(\d+)", route.request.url)
        top = int(after[1]) - 1 if after else 20_000
        data = [{**base, "id": f"e{n}", "type": "metrics", "data": {"step": n, "total_steps": 20_000, "epoch": n / 100, "train_loss": 2 + 5 / n + (n % 7) / 10, "tokens": n * 64,
                                                                    "learning_rate": 1e-4, "grad_norm": 1.0, "tokens_per_second": 1000}} for n in range(top, max(0, top - 1000), -1)]
        route.fulfill(json={"object": "list", "data": data, "has_more": top > 1000})

    v = visit(trainer.url)
    v.page.route("**/events?limit=*", events)
    v.open(f"train?job={village}")
    wait_step(v, 20_000)
    plot = v.page.locator("#loss-chart .u-over")
    plot.hover(position={"x": 100, "y": 50})
    frames = v.page.evaluate("""async () => {
      const over = document.querySelector("#loss-chart .u-over"), box = over.getBoundingClientRect(), took = [];
      for (let i = 0; i < 40; i++) {
        const began = performance.now();
        over.dispatchEvent(new MouseEvent("mousemove", {clientX: box.left + 10 + i * 10, clientY: box.top + 40, bubbles: true}));
        await new Promise(requestAnimationFrame);
        took.push(performance.now() - began);
      }
      return took.sort((a, b) => a - b)[30];
    }""")
    began = time.monotonic()
    v.page.locator("#main").get_by_text("Tokens", exact=True).click()
    expect(v.page.locator("#loss-chart .chart-at")).to_have_text(re.compile("^tokens"))
    print(f"hover: {frames:.1f} ms a frame; switching: {time.monotonic() - began:.2f} s")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_clean_on_a_desk_and_on_a_phone(visit, trainer, village, rows, colours):
    v = visit(trainer.url, color_scheme=colours)
    for name, view, there in (("train-runs", "train", "#runs"), ("train-text", f"train?job={village}", "#finished"), ("train-rows", f"train?job={rows}", "#results"),
                              ("train-compare", f"train?compare={village},{rows}", "#runs-chart")):
        v.page.set_viewport_size({"width": 1440, "height": 900})
        v.open(view)
        expect(v.page.locator(there)).to_be_visible()
        if there != "#runs":
            expect(v.page.locator(".uplot").first).to_be_visible()
        assert v.serious() == [], name
        v.shot(f"{name}-{colours}-1440")
        v.page.set_viewport_size({"width": 390, "height": 844})
        expect(v.page.locator(there)).to_be_visible()
        v.page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        assert v.fits(), name
        v.shot(f"{name}-{colours}-390")
    assert v.serious() == [] and not v.complaints and not v.foreign()
