# SPDX-License-Identifier: MIT
"""What the page is for, in one go, on SmolLM2: a dropped file becomes a model; it is read about, watched, talked to, compared and looked into."""
import json
import re

from playwright.sync_api import expect

from serving import ROOT
from test_train_start import api, reported, setting, wait_until

ROWS = json.loads((ROOT / "configs" / "examples" / "instructions.json").read_text())[:15]


def test_from_a_dropped_file_to_the_result(visit, smol_url):
    v = visit(smol_url)
    reported(v, "instructions.json", json.dumps(ROWS))
    expect(v.page.locator(".train-report .facts")).to_contain_text(f"Rows{len(ROWS)}")
    v.page.get_by_label("Base").select_option("SmolLM2-135M-Instruct")
    v.page.get_by_text("More settings").click()
    for label, value in (("Steps", "4"), ("Evaluations", "2"), ("Checkpoints", "2"), ("Batch size", "3"), ("Held out", "0.2")):
        setting(v, label).fill(value)
    v.page.locator("#train-start").click()
    expect(v.page).to_have_url(re.compile(r"#train\?job=ftjob-"))
    job = v.page.url.split("job=")[1]

    # Watched to its end, without a reload.
    done = v.page.locator("#finished")
    wait_until(lambda: api(v.url, f"/v1/fine_tuning/jobs/{job}")["status"] in ("succeeded", "failed"), 600)
    expect(done).to_be_visible()
    made = api(v.url, f"/v1/fine_tuning/jobs/{job}")
    name = made["fine_tuned_model"]
    assert made["status"] == "succeeded" and name.startswith("ft:SmolLM2-135M-Instruct:local:")
    cards = v.page.locator(".job-result")
    expect(cards).to_have_count(3)
    for words in ("Before", "After", "ROUGE-L"):
        expect(cards.first).to_contain_text(words)
    v.shot("journey-job-1440")

    # Talked to, beside what it came from.
    v.open(f"compare?models=SmolLM2-135M-Instruct,{name}")
    v.page.get_by_label("Prompt", exact=True).fill("The capital of France is")
    v.page.locator("#settings").evaluate("e => { e.open = true }")
    v.page.get_by_label("Max tokens").fill("12")
    v.page.get_by_label("Temperature", exact=True).fill("0")
    v.page.get_by_role("button", name=re.compile("^Compare")).click()
    answers = v.page.get_by_role("group", name=re.compile("Arrow keys go from token to token"))
    for i in range(2):
        expect(answers.nth(i).locator(".tok").nth(3)).to_be_attached()
    v.shot("journey-compare-1440")

    # Looked into.
    v.open(f"inside?tab=attention&model={name}")
    expect(v.page.locator("#model")).to_have_value(name)
    expect(v.page.get_by_role("img", name=re.compile("^Attention of 30 layers with 9 heads"))).to_be_visible()
    assert v.complaints == [] and v.foreign() == []
