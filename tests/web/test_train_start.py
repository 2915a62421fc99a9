# SPDX-License-Identifier: MIT
"""Train, first half: a file comes in, its report, base and settings, the start of a run; and Start from nothing."""
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import expect

from serving import Server

SLEEP = [word for argument in ("sh", "-c", "exec sleep 1000") for word in ("--train-launcher", argument)]
ROWS = "".join(json.dumps({"prompt": f"Question {i}: ", "completion": f"answer {i % 7}."}) + "\n" for i in range(24))
BAD = ('{"prompt": "one", "completion": " answer one"}\n{"prompt": "two", "completon": " answer"}\n{"prompt": "three", "completion": ""}\n'
       '{"prompt": "four", "completion": " answer\n')
DROP = """({name, text, where}) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name));
  for (const type of ["dragenter", "dragover", "drop"])
    document.querySelector(where).dispatchEvent(new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


def api(url, path, body=None, method=None):
    request = urllib.request.Request(url + path, data=None if body is None else json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def files_of(url):
    return api(url, "/v1/files?purpose=fine-tune")["data"]


def drop(v, name, text, where="main"):
    v.page.evaluate(DROP, {"name": name, "text": text, "where": where})


def reported(v, name, text=ROWS):
    """Train, with a file dropped on it and read."""
    v.open("train")
    expect(v.page.get_by_role("button", name="Choose a file")).to_be_visible()
    drop(v, name, text)
    expect(v.page).to_have_url(re.compile(r"#train\?new=1&file=file-"))
    expect(v.page.locator(".train-filename")).to_have_text(name)
    expect(v.page.locator(".train-report .facts")).to_be_visible()


def setting(v, label):
    return v.page.locator(".train-new").get_by_label(label, exact=True)


def body_of(v):
    """What would be sent, read from View as."""
    v.page.get_by_role("button", name="View as…").click()
    words = v.page.locator("#view-as").text_content().strip()
    v.page.get_by_role("button", name="Close").click()
    return json.loads(words[words.index("-d '") + 4:-1].replace("'\\''", "'"))


def cancel(url, job):
    try:
        api(url, f"/v1/fine_tuning/jobs/{job}/cancel", {})
    except urllib.error.HTTPError as error:
        assert error.code == 409  # it has ended already


def wait_until(ask, seconds=240):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ask()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("waited in vain")


def test_a_dropped_file_is_read_and_its_mask_shown(visit):
    v = visit()
    reported(v, "questions.jsonl")
    facts = v.page.locator(".train-report .facts")
    expect(facts).to_contain_text("Rows24")
    expect(v.page.get_by_text("No problem found.")).to_be_visible()
    mask = v.page.locator(".train-mask-text")
    expect(mask).to_have_text(re.compile("^Question 0: answer 0."))
    learned = "".join(mask.locator("mark").all_inner_texts())
    assert learned.startswith("answer 0.") and "Question" not in learned, "the completion alone is learned"
    v.page.get_by_role("button", name="Line 2").click()
    expect(mask).to_have_text(re.compile("^Question 1: answer 1."))
    assert v.serious() == [] and v.fits() and v.complaints == [] and v.foreign() == []
    v.shot("train-new-1440")


def test_problems_are_told_by_line_with_what_to_do(visit):
    v = visit()
    reported(v, "bad.jsonl", BAD)
    problems = v.page.locator(".train-problems li")
    expect(problems).to_have_count(3)
    expect(problems.nth(0)).to_contain_text(re.compile(r'Line 2: .*unknown key "completon".*Rename the key'))
    expect(problems.nth(1)).to_contain_text(re.compile(r"Line 3: .*Fill it in"))
    expect(problems.nth(2)).to_contain_text(re.compile(r"Line 4: .*no valid JSON"))
    expect(v.page.get_by_text("cannot be trained on as it is")).to_be_visible()
    expect(v.page.locator("#train-start")).to_be_disabled()
    assert v.complaints == []


def test_an_array_on_one_line_is_told_by_rows(visit):
    v = visit()
    reported(v, "array.json", json.dumps([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]))
    expect(v.page.locator(".train-problems li")).to_contain_text("Row 2: the same as row 1. It counts twice.")
    expect(v.page.get_by_role("group", name="Which one").get_by_role("button")).to_have_text(["Row 1", "Row 2", "Row 3"])
    assert v.complaints == []


def test_the_tail_of_a_text_that_is_not_learned_is_told(visit):
    v = visit()
    reported(v, "tail.txt", "x" * 300)  # one token a byte, or fewer
    tokens = api(v.url, f"/v1/files/{v.page.url.split('file=')[1]}/report?context_length=128")["tokens"]
    for context in (200, 128, 64):
        tail, note = (tokens - 1) % context if tokens > context else 0, v.page.locator(".train-report .train-warning")
        setting(v, "Context").fill(str(context))
        expect(v.page.locator(".train-report")).to_contain_text(f"in windows of {context} tokens")
        if 20 * tail >= tokens:
            expect(note).to_contain_text(re.compile(rf"The last {tail} tokens fill no window, and are not learned\. (A context of \d+ leaves out \d+\.|Add text\.)"))
        else:
            expect(note).to_have_count(0)
            expect(v.page.get_by_text("No problem found.")).to_be_visible()
    assert v.complaints == []


def test_what_is_no_training_data_is_not_sent(visit):
    v = visit()
    v.open("train")
    expect(v.page.get_by_role("button", name="Choose a file")).to_be_visible()
    before = len(files_of(v.url))
    for name, text, why in (("photo.png", "x", "cannot be trained on here"), ("empty.txt", "", "is empty")):
        drop(v, name, text)
        expect(v.page.locator("#notice")).to_contain_text(why)
    assert len(files_of(v.url)) == before
    assert v.serious() == [] and v.fits()
    v.shot("train-1440")


def test_hostile_names_and_rows_are_text(visit):
    v = visit(viewport={"width": 390, "height": 844})
    name = "<img src=x onerror=alert(1)>" + "long" * 40 + "\u202eevil.jsonl"
    reported(v, name, json.dumps({"prompt": "<script>alert(1)</script>\u202e", "completion": "👩‍👩‍👧" + "x" * 150}) + "\n" + ROWS)
    expect(v.page.locator(".train-mask-text")).to_contain_text("<script>alert(1)</script>")
    expect(v.page.locator(".train-mask-text mark").first).to_contain_text("👩‍👩‍👧xxx")  # of tokens that are bytes
    v.page.get_by_text("All uploaded files").click()
    expect(v.page.locator(".train-files li").filter(has_text="<img src=x")).to_be_visible()
    assert v.page.locator("main img").count() == 0 and v.fits() and v.complaints == []
    v.shot("train-hostile-390")


def test_the_same_file_twice_is_one_file_and_can_be_deleted(visit):
    v = visit()
    text = ROWS + '{"prompt": "twice", "completion": "once"}\n'
    reported(v, "twice.jsonl", text)
    (first,) = [f["id"] for f in files_of(v.url) if f["filename"] == "twice.jsonl"]
    v.open("train")
    v.page.locator("input[type=file]").first.set_input_files({"name": "again.jsonl", "mimeType": "text/plain", "buffer": text.encode()})
    expect(v.page.get_by_text(re.compile("again.jsonl is here already as twice.jsonl"))).to_be_visible()
    expect(v.page).to_have_url(re.compile(first))
    v.open("train")
    v.page.get_by_text("Earlier uploads").click()
    row = v.page.locator(".train-files li").filter(has_text="twice.jsonl")
    expect(row).to_contain_text("25 rows")
    row.get_by_role("button", name="Use").click()
    expect(v.page).to_have_url(re.compile(first))
    v.page.get_by_text("All uploaded files").click()
    v.page.get_by_role("button", name="Delete twice.jsonl").first.click()
    dialog = v.page.get_by_role("dialog")
    assert any(f["id"] == first for f in files_of(v.url)), "asked first"
    dialog.get_by_role("button", name="Delete twice.jsonl").click()
    expect(v.page.get_by_role("button", name="Choose a file")).to_be_visible()
    wait_until(lambda: not any(f["id"] == first for f in files_of(v.url)))
    assert v.complaints == []


def test_pasted_text_is_named_by_what_it_is(visit):
    v = visit()
    for words, name in (("Once there was a mill by a river, and nobody knew its age.", "pasted.txt"), ('{"text": "a pasted row"}\n{"text": "another"}', "pasted.jsonl"),
                        ('[{"instruction": "Say it", "output": "said"}]', "pasted.json")):
        v.open("train")
        v.page.get_by_role("button", name="Paste text").click()
        v.page.get_by_label("A text, or rows as JSON").fill(words)
        v.page.get_by_role("button", name="Use this text").click()
        expect(v.page.locator(".train-filename")).to_have_text(name)
    assert v.complaints == []


def test_an_upload_shows_how_far_it_is_and_can_be_cancelled(visit):
    """Only an upload under way is lost by a reload, and only then does the page hold one back."""
    v = visit()
    v.open("train")
    expect(v.page.get_by_role("button", name="Choose a file")).to_be_visible()
    held = "() => !window.dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    assert not v.page.evaluate(held)
    line = v.context.new_cdp_session(v.page)
    line.send("Network.enable")
    line.send("Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 150_000})  # 24 s
    v.page.evaluate(DROP, {"name": "large.txt", "text": "a long text " * 300_000, "where": "main"})
    expect(v.page.locator("progress")).to_be_visible()
    expect(v.page.get_by_text(re.compile(r"large.txt, 3\.6 MB: [1-9]\d*%"))).to_be_visible()
    assert v.page.evaluate(held)
    v.open("train?new=1")  # the upload goes on
    v.page.get_by_role("button", name="Cancel the upload").click()
    expect(v.page.get_by_role("button", name="Choose a file")).to_be_visible()
    v.page.wait_for_function(f"() => !({held})()")
    assert not any(f["filename"] == "large.txt" for f in files_of(v.url))
    assert v.complaints == []


def test_settings_are_estimated_and_mistakes_stand_by_their_field(visit):
    v = visit()
    reported(v, "estimate.jsonl", ROWS.replace("Question", "Estimate"))
    card = v.page.locator(".train-estimate")
    expect(card.locator(".facts")).to_contain_text(re.compile(r"Steps9, .* each.*Memory.*[MG]B.*Held out2 examples", re.S))
    expect(setting(v, "Epochs")).to_have_attribute("placeholder", "auto: 3")
    expect(setting(v, "Learning rate")).to_have_attribute("placeholder", "auto: 0.0002")
    v.page.get_by_text("Every weight", exact=True).click()
    expect(setting(v, "Learning rate")).to_have_attribute("placeholder", "auto: 0.00005")
    setting(v, "Epochs").fill("5")
    expect(card.locator(".facts")).to_contain_text("Steps15,")
    setting(v, "Epochs").fill("51")
    field = v.page.locator(".train-field").filter(has_text="How often it goes through the data")
    expect(field).to_contain_text("From 1 to 50.")
    expect(v.page.locator("#train-start")).to_be_disabled()
    setting(v, "Epochs").fill("2")
    setting(v, "Held out").fill("0")
    v.page.get_by_text("More settings").click()
    setting(v, "Stop early").fill("2")  # which the server alone knows to need held-out data
    early = v.page.locator(".train-field").filter(has_text="evaluations without a lower")
    expect(early.locator(".bad")).to_contain_text("needs")
    expect(v.page.locator("#train-start")).to_be_disabled()
    setting(v, "Stop early").fill("")
    setting(v, "Held out").fill("0.25")
    expect(card.locator(".facts")).to_contain_text("Held out6 examples")
    expect(v.page.locator("#train-start")).to_be_enabled()
    assert v.complaints == ["Failed to load resource: the server responded with a status of 400 (Bad Request)"]


def test_an_estimate_that_nobody_waits_for_holds_nobody_up(visit, nano):
    """It is given up on the server too, here one whose estimates never end: the next one need not wait for it."""
    with Server("--model", str(nano), *SLEEP) as server:
        v = visit(server.url)
        reported(v, "long.txt", "Once upon a time there was a mill by a river. " * 30)
        trying = lambda: subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True).returncode == 0  # noqa: E731
        wait_until(trying)
        v.open("train")
        wait_until(lambda: not trying())
        assert v.complaints == []


def test_every_field_of_the_request_can_be_set(visit):
    """Each member of the API's request that is a setting has a control, and what it says is sent there."""
    v = visit()
    reported(v, "fields.jsonl", ROWS.replace("Question", "Field"))
    v.page.get_by_text("More settings").click()
    for name in re.findall(r"\w+_\w+", v.page.locator(".train-new").inner_text()):
        assert name in ("q_proj", "v_proj"), f"{name}: the API's name, where the page has one of its own"
    schema = api(v.url, "/openapi.json")["components"]["schemas"]["FineTuningJobRequest"]["properties"]["couplet"]["properties"]
    wanted = set(schema) - {"architecture", "tokenizer", "vocab_size", "stride", "from_checkpoint", "training_type", "validation_split"}
    for label, value in (("Learning rate", "0.001"), ("Context", "64"), ("Name", "mine"), ("Sample prompts", "Field 1: \\n"), ("Batch size", "4"), ("Steps", "7"), ("Evaluations", "2"),
                         ("Checkpoints", "1"), ("Stop early", "3"), ("Rate multiplier", "2"), ("Warm-up", "0.1"), ("Weight decay", "0.01"), ("Largest gradient", "2"), ("Dropout", "0.1"),
                         ("Rank", "4"), ("Alpha", "8"), ("Dropout in the adapter", "0.2"), ("Layers", "c_attn\nc_proj"), ("Seed", "42"), ("Epochs", "4")):
        setting(v, label).fill(value)
    for label, value in (("Course of the rate", "cosine"), ("Long rows", "drop")):
        setting(v, label).select_option(value)
    for label in ("Packing", "Learn the prompts too", "Shared"):
        setting(v, label).check()
    body = body_of(v)
    assert wanted <= set(body["couplet"]), wanted - set(body["couplet"])
    assert body["couplet"]["training_type"] == {"type": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.2, "lora_trainable_modules": ["c_attn", "c_proj"]}
    assert body["couplet"]["sample_prompts"] == ["Field 1: \n"] and body["couplet"]["validation_split"] == 0.1 and body["couplet"]["packing"] is True
    assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 4, "learning_rate_multiplier": 2}}}
    assert (body["seed"], body["suffix"]) == (42, "mine")
    v.page.get_by_role("button", name="Everything back to auto").click()
    assert set(body_of(v)["couplet"]) == {"training_type", "validation_split", "sample_prompts", "n_evals", "n_checkpoints"}
    v.page.get_by_label("Base").select_option("new")
    setting(v, "Size").select_option("own")
    for label, value in (("Width", "32"), ("Heads", "2"), ("Longest context", "64")):
        setting(v, label).fill(value)
    setting(v, "Tokenizer").select_option("nano" if v.page.locator("option[value=nano]").count() else "gpt2-nano")
    body = body_of(v)
    assert body["model"] == "new" and body["couplet"]["architecture"] == {"n_layer": 4, "n_head": 2, "n_embd": 32, "n_ctx": 64} and "training_type" not in body["couplet"]
    assert api(v.url, "/v1/fine_tuning/estimate", body)["steps"] > 0


def test_the_form_survives_a_reload(visit):
    v = visit()
    reported(v, "reload.jsonl", ROWS.replace("Question", "Reload"))
    setting(v, "Epochs").fill("7")
    setting(v, "Name").fill("kept")
    v.page.reload()
    expect(v.page.locator(".train-filename")).to_have_text("reload.jsonl")
    expect(setting(v, "Epochs")).to_have_value("7")
    expect(setting(v, "Name")).to_have_value("kept")
    assert v.complaints == []


def test_the_same_request_as_curl_and_python(visit):
    """What the page shows is typed into a shell as it stands, and makes the job."""
    v = visit()
    reported(v, "it's.jsonl", ROWS.replace("Question", "It's a \\\"quoted\\\" question"))
    setting(v, "Epochs").fill("1")
    v.page.get_by_role("button", name="View as…").click()
    words = v.page.locator("#view-as")
    expect(words).to_contain_text('"n_epochs": 1')
    made = [json.loads(subprocess.run(["bash", "-c", words.text_content()], capture_output=True, check=True, timeout=30).stdout)["id"]]
    v.page.get_by_text("Python", exact=True).click()
    expect(words).to_contain_text("client.fine_tuning.jobs.create")
    pytest.importorskip("openai")
    made.append(subprocess.run([sys.executable, "-c", words.text_content()], capture_output=True, check=True, timeout=60, text=True).stdout.strip())
    jobs = [api(v.url, f"/v1/fine_tuning/jobs/{job}") for job in made]
    for job in made:
        cancel(v.url, job)
    assert jobs[0]["training_file"] == jobs[1]["training_file"] and jobs[0]["couplet"]["sample_prompts"] == jobs[1]["couplet"]["sample_prompts"]
    assert jobs[0]["couplet"]["sample_prompts"] == ['It\'s a "quoted" question 0: '] and [j["hyperparameters"]["n_epochs"] for j in jobs] == [1, 1]


def test_a_run_on_smollm2_from_a_dropped_file(visit, smol_url):
    v = visit(smol_url)
    reported(v, "tiny.jsonl", "".join(ROWS.splitlines(True)[:6]))
    v.page.get_by_label("Base").select_option("gpt2-nano")
    expect(v.page.get_by_text("Every weight", exact=True)).to_be_visible()
    v.page.get_by_label("Base").select_option("SmolLM2-135M-Instruct")
    expect(v.page.get_by_text("its weights cannot be moved")).to_be_visible()
    expect(v.page.get_by_text("Every weight", exact=True)).to_have_count(0)
    v.page.get_by_text("More settings").click()
    for label, value in (("Steps", "2"), ("Evaluations", "1"), ("Checkpoints", "1"), ("Batch size", "2")):
        setting(v, label).fill(value)
    setting(v, "Held out").fill("0.2")
    expect(v.page.locator(".train-estimate .facts")).to_contain_text("Steps2,")
    v.page.locator("#train-start").click()
    expect(v.page).to_have_url(re.compile(r"#train\?job=ftjob-"))
    job = v.page.url.split("job=")[1]
    started = wait_until(lambda: (now := api(v.url, f"/v1/fine_tuning/jobs/{job}"))["couplet"]["started_at"] and now)
    assert started["model"] == "SmolLM2-135M-Instruct" and started["couplet"]["total_steps"] == 2 and started["couplet"]["training_type"]["type"] == "lora"
    cancel(v.url, job)
    v.open(f"train?new=1&like={job}")
    expect(setting(v, "Batch size")).to_have_value("2")
    assert body_of(v)["model"] == "SmolLM2-135M-Instruct" and body_of(v)["couplet"]["max_steps"] == 2
    assert v.complaints == []


def test_a_lost_answer_queues_nothing_twice(visit):
    """The server makes the job, the connection is cut before it can say so; trying again, even after a reload, opens that job."""
    v = visit()
    reported(v, "lost.jsonl", ROWS.replace("Question", "Lost"))
    setting(v, "Name").fill("lost-answer")
    expect(v.page.locator(".train-time")).to_be_visible()
    asked = []

    def lose(route):
        asked.append(route.request)
        if route.request.method == "POST" and len(asked) < 3:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    v.page.route("**/v1/fine_tuning/jobs", lose)
    start, again = v.page.locator("#train-start"), v.page.get_by_role("button", name="Try again")
    start.click()
    again.click()
    expect(again).to_be_visible()
    v.page.reload()
    start.click()
    expect(v.page).to_have_url(re.compile(r"#train\?job=ftjob-"))
    keys = [request.headers["idempotency-key"] for request in asked]
    assert len(keys) == 3 and len(set(keys)) == 1 and len({request.post_data for request in asked}) == 1
    made = [job["id"] for job in api(v.url, "/v1/fine_tuning/jobs?limit=100")["data"] if job["user_provided_suffix"] == "lost-answer"]
    assert made == [v.page.url.split("job=")[1]]
    v.page.go_back()  # that one is there; the next is another
    v.page.locator("#train-start").click()
    expect(v.page).to_have_url(re.compile(r"#train\?job=ftjob-(?!%s)" % made[0][6:]))
    assert asked[-1].headers["idempotency-key"] not in keys
    for job in (made[0], v.page.url.split("job=")[1]):
        cancel(v.url, job)


def test_start_from_nothing(visit):
    """The real button, few steps: a tokenizer and a model that was not there before, opened in Inside."""
    v = visit()
    v.open("train")
    v.page.get_by_label("Steps").fill("0")
    expect(v.page.get_by_role("button", name="Start from nothing")).to_be_disabled()
    v.page.get_by_label("Steps").fill("12")
    v.page.get_by_role("button", name="Start from nothing").click()
    expect(v.page).to_have_url(re.compile(r"#train\?job=ftjob-"))
    job = v.page.url.split("job=")[1]
    expect(v.page.locator(".train-banner")).to_contain_text("From nothing")
    wait_until(lambda: api(v.url, f"/v1/fine_tuning/jobs/{job}")["status"] in ("succeeded", "failed"))
    expect(v.page.get_by_role("button", name="Look inside")).to_be_visible()
    v.page.route(f"**/v1/fine_tuning/jobs/{job}", lambda route: route.fulfill(json={**(now := route.fetch().json()), "created_at": now["created_at"] - 3600}))
    v.page.reload()
    expect(v.page.locator(".train-banner")).to_contain_text(re.compile(r"model in [\d.]+ (ms|s)\."))  # an hour in the queue does not count
    made = api(v.url, f"/v1/fine_tuning/jobs/{job}")
    assert (made["status"], made["model"], made["couplet"]["tokenizer"], made["couplet"]["total_steps"]) == ("succeeded", "new", "train", 12)
    samples = [e for e in api(v.url, f"/v1/fine_tuning/jobs/{job}/events?limit=100")["data"] if (e["data"] or {}).get("kind") == "sample"]
    assert len({e["data"]["step"] for e in samples}) >= 4, "several samples over the run"
    v.page.get_by_role("button", name="Look inside").click()
    expect(v.page).to_have_url(re.compile("#inside\\?"))
    assert v.page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('model')") == made["fine_tuned_model"]
    expect(v.page.locator("#model")).to_have_value(made["fine_tuned_model"])
    expect(v.page.locator("main.view-inside canvas").first).to_be_visible()  # its attention
    assert v.complaints == []


def test_start_from_nothing_with_a_text_of_ones_own(visit):
    v = visit()
    v.open("train")
    v.page.get_by_label("Steps").fill("3")
    v.page.evaluate(DROP.replace(', "drop"]', "]"), {"name": "little.txt", "text": "", "where": ".train-nothing"})
    expect(v.page.locator(".train-nothing.over")).to_be_visible()
    expect(v.page.locator(".train-drop.over")).to_have_count(0)
    drop(v, "little.txt", "The owl sat in the oak. The owl saw a mouse. " * 30, ".train-nothing")
    expect(v.page.locator(".train-nothing")).to_contain_text("little.txt, 1.4 KB")
    expect(v.page.locator(".train-nothing")).to_contain_text("learns the text by heart")
    assert "new=1" not in v.page.url, "a text dropped on this card is no fine-tune"
    v.page.reload()
    expect(v.page.locator(".train-nothing")).to_contain_text("little.txt")
    v.page.get_by_role("button", name="Start from nothing").click()
    expect(v.page).to_have_url(re.compile(r"#train\?job=ftjob-"))
    made = api(v.url, f"/v1/fine_tuning/jobs/{v.page.url.split('job=')[1]}")
    assert made["couplet"]["sample_prompts"] == ["The owl"] and made["user_provided_suffix"] == "little"
    assert wait_until(lambda: (now := api(v.url, f"/v1/fine_tuning/jobs/{made['id']}"))["status"] in ("succeeded", "failed") and now)["error"] is None
    assert v.complaints == []


def test_a_phone_in_the_dark(visit):
    v = visit(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    reported(v, "phone.jsonl", ROWS.replace("Question", "Phone " * 40))
    start, more = v.page.locator("#train-start"), v.page.get_by_text("More settings")
    assert start.bounding_box()["y"] < more.bounding_box()["y"], "what it takes, and the start, come before what few need"
    more.click()
    v.page.get_by_text("All uploaded files").click()
    expect(v.page.locator(".train-files li").first).to_be_visible()
    assert v.fits() and v.serious() == []
    v.shot("train-new-390-dark")
    v.open("train")
    v.page.get_by_role("button", name="Paste text").click()
    assert v.fits() and v.serious() == [] and v.complaints == []
    v.shot("train-390-dark")


def test_by_keyboard_alone(visit):
    """From the page's start to the file dialog, and on the form from the file to the button that starts it."""
    v = visit()
    v.open("train")
    given = {"name": "keys.jsonl", "mimeType": "text/plain", "buffer": ROWS.replace("Question", "Key").encode()}
    v.page.on("filechooser", lambda chooser: chooser.set_files(given))  # listened to before the key, which is faster than the listening
    button = v.page.get_by_role("button", name="Choose a file")
    button.focus()
    expect(button).to_be_focused()
    v.page.keyboard.press("Enter")
    expect(v.page.locator(".train-time")).to_be_visible()
    setting(v, "Epochs").focus()
    seen = set()
    for _ in range(40):
        v.page.keyboard.press("Tab")
        seen.add(v.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        if "train-start" in seen:
            break
    assert "train-start" in seen
    assert v.complaints == []


def test_a_server_or_key_that_does_not_train_says_why(visit, nano):
    with Server("--model", str(nano)) as server:
        key = server.add_key("reader", "--scope", "infer")
        v = visit(server.url)
        v.open("train")
        expect(v.page.locator("main")).to_contain_text("makes one with couplet keys add NAME --scope train")
        v.page.get_by_label("API key").fill(key)
        v.page.get_by_role("button", name="Use this key").click()
        v.open("train")
        expect(v.page.get_by_role("heading", name="This key may not train")).to_be_visible()
        expect(v.page.locator("main")).to_contain_text("couplet keys add NAME --scope train")
        v.page.get_by_role("button", name="Use another key").click()
        trainer = server.add_key("trainer", "--scope", "train")
        v.page.get_by_label("API key").fill(trainer)
        v.page.get_by_role("button", name="Use this key").click()
        expect(v.page.get_by_role("button", name="Choose a file")).to_be_visible()
        expect(v.page.locator("main")).to_contain_text("without this key, an admin's key shows")
        assert v.serious() == []


def test_a_server_without_fine_tuning_says_so(visit):
    """An older server, or a proxy that lets only answers through; the answer is ours here."""
    v = visit()
    v.page.route("**/v1/fine_tuning/jobs?*", lambda route: route.fulfill(status=404, content_type="application/json", body='{"error": {"message": "There is no such path."}}'))
    v.open("train")
    expect(v.page.get_by_role("heading", name="This server does not train")).to_be_visible()
    expect(v.page.locator("main")).to_contain_text("couplet serve --model PATH")
    v.page.unroute("**/v1/fine_tuning/jobs?*")
    v.page.get_by_role("button", name="Ask again").click()
    expect(v.page.get_by_role("button", name="Choose a file")).to_be_visible()


def test_a_name_that_turns_the_direction(visit):
    """What stands behind such a file's name is read from left to right, as always."""
    v = visit()
    v.open("train")
    expect(v.page.locator(".train-nothing")).to_be_visible()
    v.page.evaluate(DROP, {"name": "\u202egniht.txt", "text": "a short text, turned around " * 40, "where": ".train-nothing"})
    line = v.page.locator(".train-nothing p").filter(has_text="gniht")
    expect(line).to_contain_text("1.1 KB")
    expect(v.page.locator("button#train-nothing")).to_be_enabled()  # the upload is over, the card stands still
    comma, size = line.evaluate("""(line) => { // where ", " and the size stand
      const text = line.querySelector("strong").nextSibling, range = document.createRange();
      return [text, text.nextSibling].map((node) => { range.selectNodeContents(node); return range.getBoundingClientRect().left; });
    }""")
    assert comma < size
