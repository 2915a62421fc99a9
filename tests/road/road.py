#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The road: what couplet promises, as one journey of one user. Every issue lengthens it, none may break it.

What README.md prints under "From nothing to an assistant" is run here as printed, in a folder where `couplet` and `configs` are this tree's.
Standard library only, but for the last look, which playwright takes in chromium. Each step is a function; it may use what earlier steps left in `w`, and fails by raising. A step whose
ground a failed step took away fails too. Ends with `road: N passed, N failed`.
"""
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from held_trainer import Hold  # noqa: E402
from serving import COUPLET, ROOT, Server  # noqa: E402

PROMPT = "Every couplet has two lines: café, 東京, 🙂."
ANSWER_TOKENS = 24
EXAMPLES = ROOT / "configs" / "examples"
VOCABULARY = 1024
QUESTION = ("Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\n{instruction}\n\n### Response:\n")


def couplet(*arguments, stdin=b""):
    run = subprocess.run([COUPLET, *map(str, arguments)], input=stdin, capture_output=True, timeout=900)
    assert run.returncode == 0, f"couplet {arguments[0]} ended with {run.returncode}: {run.stderr.decode()}"
    return run.stdout


def printed_commands():
    """Those of the section, continuation lines joined."""
    (section,) = re.findall(r"^## From nothing to an assistant$(.*?)^### ", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


def printed(w, start):
    """The command that begins so; it counts as run."""
    (line,) = [c for c in printed_commands() if c.startswith(start)]
    w.ran.add(line)
    return line


def run_printed(w, start):
    line = printed(w, start)
    environment = dict(os.environ, PATH=f"{w.folder}/bin:{os.environ['PATH']}")
    run = subprocess.run(line, shell=True, cwd=w.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=900)
    assert run.returncode == 0, f"README: {line} ended with {run.returncode}: {run.stderr.decode()}"
    return run.stdout.decode()


def ask(w, path, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(w.server.url + path, data=data, headers={"Content-Type": "application/json", **(headers or {})})
    return urllib.request.urlopen(request, timeout=300)


def ask_json(w, path, body=None):
    with ask(w, path, body) as response:
        return json.load(response)


def complete(w, **fields):
    return ask_json(w, "/v1/completions", {"model": "nano", "prompt": PROMPT, "max_tokens": ANSWER_TOKENS, **fields})


def equal(got, wanted, what):
    assert got == wanted, f"{what}: {got!r}, expected {wanted!r}"


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def step_train_a_tokenizer(w):
    """train a BPE on the example text"""
    run_printed(w, "mkdir ")
    run_printed(w, "couplet tokenizer train")
    equal(len(json.loads((w.work / "tokenizer" / "vocab.json").read_text())), VOCABULARY, "size of the vocabulary")


def step_train_from_nothing(w):
    """train gpt2-nano from random weights: the loss falls, the curve is drawn"""
    w.model = w.work / "nano"
    run_printed(w, "couplet train --init gpt2-nano")
    log = read_log(w.model)
    losses = [e["valid_loss"] for e in log if e["event"] == "eval"]
    print(f"     validation loss {losses[0]:.3f} -> {losses[-1]:.3f} in {log[-1]['step']} updates")
    assert 6.5 < losses[0] < 7.5 and losses[-1] < 5 and log[-1]["event"] == "done", losses
    samples = [e["text"] for e in log if e["event"] == "sample"]
    assert len(samples) == len(losses) and samples[-1] != samples[0] and samples[-1].strip()
    assert "<svg" in (w.work / "loss.svg").read_text() and (w.model / "report.md").read_text().startswith("better")


def step_tokenize_by_hand(w):
    """tokenize and back on the command line"""
    w.ids = [int(i) for i in couplet("tokenize", "--model", w.model, stdin=PROMPT.encode()).split()]
    assert len(w.ids) < len(PROMPT.encode()) and max(w.ids) < VOCABULARY, "merges are used"
    text = couplet("tokenize", "--model", w.model, "--decode", stdin=" ".join(map(str, w.ids)).encode())
    equal(text.decode().rstrip("\n"), PROMPT, "decoded")


def step_serve(w):
    """serve it: ready, listed, healthy"""
    w.hold = Hold(w.folder)
    w.server = Server("--model", f"nano={w.model}", *w.hold.options)
    equal([m["id"] for m in ask_json(w, "/v1/models")["data"]], ["nano"], "models")
    for path in ("/health", "/livez", "/version"):
        assert ask(w, path).status == 200, path


def step_tokenize_over_http(w):
    """tokenize over HTTP: the same ids, the same text"""
    answer = ask_json(w, "/tokenize", {"model": "nano", "prompt": PROMPT})
    equal(answer["tokens"], w.ids, "tokens")
    equal(answer["count"], len(w.ids), "count")
    equal(ask_json(w, "/detokenize", {"model": "nano", "tokens": w.ids})["prompt"], PROMPT, "detokenized")


def step_complete(w):
    """complete greedily; usage adds up"""
    answer = complete(w, temperature=0)
    w.text, usage = answer["choices"][0]["text"], answer["usage"]
    equal(usage["prompt_tokens"], len(w.ids), "prompt_tokens")
    equal(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"], "total_tokens")
    assert 1 <= usage["completion_tokens"] <= ANSWER_TOKENS and w.text != ""
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")


def read_events(response):
    equal(response.headers.get_content_type(), "text/event-stream", "content type")
    blocks = response.read().decode().split("\n\n")
    equal(blocks.pop(), "", "what follows the last event")
    blocks = [b for b in blocks if not b.startswith(":")]
    assert all(b.startswith("data: ") and "\n" not in b for b in blocks), "an event is one data line"
    equal(blocks.pop(), "data: [DONE]", "last event")
    return [json.loads(b[len("data: "):]) for b in blocks]


def step_stream(w):
    """stream: well framed, the same text"""
    body = {"model": "nano", "prompt": PROMPT, "max_tokens": ANSWER_TOKENS, "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True}}
    events = read_events(ask(w, "/v1/completions", body))
    equal("".join(c["text"] for e in events for c in e["choices"]), w.text, "streamed text")
    equal(events[-1]["choices"], [], "choices of the usage chunk")
    equal(events[-1]["usage"]["prompt_tokens"], len(w.ids), "usage of the stream")
    finishes = [c["finish_reason"] for e in events for c in e["choices"]]
    assert finishes[-1] in ("stop", "length") and all(f is None for f in finishes[:-1])
    assert len(finishes) > 2, "one big chunk is no stream"


def step_same_seed(w):
    """same seed, same text; another seed, another text"""
    texts = [complete(w, temperature=1.2, seed=seed)["choices"] for seed in (7, 7, 8)]
    equal(texts[0], texts[1], "seed 7 again")
    assert texts[0][0]["text"] != texts[2][0]["text"], "seed 8 gave the text of seed 7"


def logprobs_of(answer):
    return answer["choices"][0]["logprobs"]["token_logprobs"]


def step_score(w):
    """score a prompt: finite, and consistent with generation"""
    scored = complete(w, echo=True, logprobs=3, max_tokens=0)
    equal(scored["choices"][0]["text"], PROMPT, "echo")
    lengths = {len(v) for v in scored["choices"][0]["logprobs"].values()}
    equal(lengths, {len(w.ids)}, "lengths of the four arrays")
    first, *rest = logprobs_of(scored)
    equal(first, None, "logprob of the first token")
    assert all(math.isfinite(x) and x <= 0 for x in rest), "a logprob is a finite number, at most 0"
    # Generation's own logprobs, and the same tokens scored as a prompt, are one computation.
    made = complete(w, temperature=0, logprobs=0, return_token_ids=True)
    ids, own = made["choices"][0]["token_ids"], logprobs_of(made)
    again = logprobs_of(complete(w, prompt=w.ids + ids, echo=True, logprobs=0, max_tokens=0))
    equal(again[:len(w.ids)], [first, *rest], "logprobs of the prompt inside a longer one")
    equal(again[len(w.ids):][:len(own)], own[:len(again) - len(w.ids)], "logprobs of the answer, scored as a prompt")
    print(f"     prompt: {-sum(rest) / len(rest):.4f} nats a token")


def step_generate_by_hand(w):
    """generate on the command line: the server's greedy text"""
    out = couplet("generate", "--model", w.model, "--max-tokens", ANSWER_TOKENS, "--temperature", 0, PROMPT).decode()
    equal(out.removesuffix("\n"), w.text, "couplet generate")
    assert len(run_printed(w, "couplet generate").split()) > 10


def metric(w, name):
    text = ask(w, "/metrics").read().decode()
    lines = [line.split() for line in text.splitlines() if line.startswith(name) and line[len(name)] in " {"]
    assert lines, f"no metric {name}"
    return sum(float(line[-1]) for line in lines)


def step_leave_early(w):
    """a client that leaves frees its place"""
    body = {"model": "nano", "prompt": "x", "max_tokens": 200, "ignore_eos": True, "stream": True}
    for _ in range(4):
        response = ask(w, "/v1/completions", body)
        response.readline()
        response.close()
    end = time.monotonic() + 60
    while metric(w, "couplet:num_requests_running") + metric(w, "couplet:num_requests_waiting"):
        assert time.monotonic() < end, "requests still run a minute after their clients left"
        time.sleep(0.02)


def evaluate(*arguments):
    return json.loads(couplet("eval", "--json", "--data", EXAMPLES / "instructions.json", *arguments))


def answer(w, model):
    entries = json.loads((EXAMPLES / "instructions.json").read_text())
    entry = next(e for e in entries if not e["input"])
    body = {"model": model, "prompt": QUESTION.format(**entry), "max_tokens": ANSWER_TOKENS, "temperature": 0}
    return ask_json(w, "/v1/completions", body)["choices"][0]["text"]


def step_ask_before(w):
    """ask it an instruction before fine-tuning"""
    w.before = answer(w, "nano")
    w.loss_before = evaluate("--model", w.model)["loss"]


def step_fine_tune(w):
    """LoRA on the example instructions: validation loss falls"""
    w.adapter = w.work / "tuned"
    run_printed(w, "couplet train --model work/nano")
    assert sorted(p.name for p in w.adapter.glob("*.safetensors")) == ["adapter_model.safetensors"]
    losses = [e["valid_loss"] for e in read_log(w.adapter) if e["event"] == "eval"]
    print(f"     validation loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < losses[0] - 0.5, losses


def step_ask_after(w):
    """the adapter is served: another answer; eval says better and shows both"""
    loss = float(re.search(r"^loss +(\S+)", run_printed(w, "couplet eval"), re.M)[1])
    assert loss < w.loss_before - 0.5, (loss, w.loss_before)
    equal((w.work / "results.html").read_text().count("<dt>Base</dt>"), 12, "cards that show the base's answer")
    equal(len(json.loads((w.work / "answers.json").read_text())), 12, "answers")
    w.tuned = Server(*shlex.split(printed(w, "couplet serve"))[2:], cwd=w.folder)
    try:
        w.after = ask_json_at(w.tuned, answer)
    finally:
        w.tuned.stop()
    assert w.after != w.before, "the same answer before and after"
    print(f"     before: {w.before!r}\n     after:  {w.after!r}")


def ask_json_at(server, question):
    return question(SimpleNamespace(server=server), "tuned")


def step_export(w):
    """export: adapter merged into GGUF, reloaded: the same answer"""
    out = run_printed(w, "couplet convert")
    assert re.search(r"^largest logit difference over \d+ tokens: 0$", out, re.M), out
    w.tuned = Server("--model", w.work / "tuned.gguf")
    try:
        equal(ask_json_at(w.tuned, answer), w.after, "the exported model's answer")
    finally:
        w.tuned.stop()


# ---- the same through the server alone: a file, a job, a model ----

def step_upload(w):
    """upload the instructions: stored byte for byte, reported with their mask"""
    data = (EXAMPLES / "instructions.json").read_bytes()
    edge = "a-boundary-of-the-road"
    body = (f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--{edge}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="instructions.json"\r\n\r\n').encode() + data + f"\r\n--{edge}--\r\n".encode()
    request = urllib.request.Request(w.server.url + "/v1/files", data=body, headers={"Content-Type": f"multipart/form-data; boundary={edge}"})
    w.file = json.load(urllib.request.urlopen(request, timeout=300))
    equal((w.file["bytes"], w.file["status"]), (len(data), "processed"), "size and status")
    equal(ask(w, f"/v1/files/{w.file['id']}/content").read(), data, "content")
    report = ask_json(w, f"/v1/files/{w.file['id']}/report?model=nano")
    equal((report["rows"], report["problems"]), (120, []), "rows and problems")
    preview = report["preview"][0]["tokens"]
    masked = [t["supervised"] for t in preview]
    assert not masked[0] and masked[-1] and masked == sorted(masked), "the prompt is given, the answer is learned"


def step_job(w):
    """a job: its events stream, its newest weights answer while it runs, others are served meanwhile"""
    body = {"model": "nano", "training_file": w.file["id"], "suffix": "road", "seed": 1, "hyperparameters": {"n_epochs": 12, "batch_size": 8},
            "couplet": {"learning_rate": 5e-3, "validation_split": 0.1, "n_evals": 3, "n_checkpoints": 3}}
    estimate = ask_json(w, "/v1/fine_tuning/estimate", body)
    w.hold.at(10)  # until its weights of then have answered
    job = ask_json(w, "/v1/fine_tuning/jobs", body)
    w.job, live = job["id"], None
    with ask(w, f"/v1/fine_tuning/jobs/{w.job}/events?stream=true") as stream:
        for line in stream:
            if not line.startswith(b"data: {"):
                continue
            models = [m["id"] for m in ask_json(w, "/v1/models")["data"]]
            if live is None and any(m.endswith(":live") for m in models):
                (live,) = [m for m in models if m.endswith(":live")]
                assert isinstance(answer(w, live), str), "the job's newest weights answer"
                equal(answer(w, "nano"), w.before, "the base's answer while a job runs")
            if live or (json.loads(line[6:])["data"] or {}).get("step") == 10:
                w.hold.release()
    job = ask_json(w, f"/v1/fine_tuning/jobs/{w.job}")
    equal((job["status"], job["error"]), ("succeeded", None), "status")
    assert live, "the running job's weights were served"
    w.made = job["fine_tuned_model"]
    assert re.fullmatch(r"ft:nano:local:road:\w{8}", w.made), w.made
    checkpoints = ask_json(w, f"/v1/fine_tuning/jobs/{w.job}/checkpoints")["data"]
    equal(len(checkpoints), 3, "checkpoints")
    losses = [c["metrics"]["valid_loss"] for c in sorted(checkpoints, key=lambda c: c["step_number"])]
    print(f"     validation loss at the checkpoints {', '.join('%.3f' % x for x in losses)}; {estimate['seconds']:.0f} s were estimated, "
          f"{job['finished_at'] - job['couplet']['started_at']} taken")
    assert losses[-1] < losses[0], losses
    assert answer(w, checkpoints[-1]["fine_tuned_model_checkpoint"]) is not None


def step_result(w):
    """the result is a model at once, beside its base; the losses are a table; a restart forgets nothing"""
    w.made_answer = answer(w, w.made)
    assert w.made_answer != w.before, "the same answer before and after"
    job = ask_json(w, f"/v1/fine_tuning/jobs/{w.job}")
    table = ask(w, f"/v1/files/{job['result_files'][0]}/content").read().decode().splitlines()
    equal(table[0], "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy", "columns")
    assert len(table) == job["couplet"]["total_steps"] + 1
    equal(w.server.stop(), 0, "exit status")
    w.server.start()
    equal(answer(w, w.made), w.made_answer, "the answer after a restart")
    equal(answer(w, "nano"), w.before, "the base's answer after a restart")


def step_export_over_http(w):
    """export the job as GGUF over HTTP, reloaded: the same answer"""
    path = w.work / "made.gguf"
    path.write_bytes(ask(w, f"/v1/fine_tuning/jobs/{w.job}/export?format=gguf").read())
    with Server("--model", f"tuned={path}") as made:
        equal(ask_json_at(made, answer), w.made_answer, "the exported model's answer")


def step_nothing_left(w):
    """README: every command of the section was run as printed, but for those that need SmolLM2"""
    left = [c for c in printed_commands() if c not in w.ran and "models/SmolLM2-135M-Instruct.Q4_1.gguf" not in c]
    equal(left, [], "not run")


def step_page(w):
    """the page is there"""
    response = ask(w, "/")
    equal(response.headers.get_content_type(), "text/html", "content type of /")
    page = response.read().decode()
    assert "couplet" in page and "app.js" in page
    assert ask(w, "/views/inside.js").status == 200
    equal(ask(w, "/app.js").headers.get_content_type(), "text/javascript", "content type of app.js")


def step_look_inside(w):
    """in the page, in chromium: the attention of the freshly trained model is on screen, with the numbers of /v1/inspect"""
    from playwright.sync_api import expect, sync_playwright
    expect.set_options(timeout=60_000)
    text, layer, head = "The baker opened the door of the mill.", 2, 1
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        complaints = []
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{w.server.url}/#inside?tab=attention&model={w.made}&layer={layer}&head={head}")
        page.get_by_label("Text", exact=True).first.fill(text)
        found = ask_json(w, "/v1/inspect", {"model": w.made, "prompt": text, "what": ["weights"], "layer": layer, "head": head})
        n = found["weights"]["shape"][0]
        grid = page.get_by_role("img", name=f"Attention of 4 layers with 4 heads each over {n} tokens")
        expect(grid).to_be_visible()
        expect(page.locator("#inside-cell")).to_contain_text(f"({n - 1})")  # the large map too is of this text
        large = page.get_by_role("group", name=f"Layer {layer}, head {head}.")
        for row, column in ((n - 1, 0), (n - 1, n // 2), (n // 2, 1)):
            large.locator("canvas").click(position=cell_of(large, n, row, column))
            weight = found["weights"]["data"][row * n + column]
            expect(page.locator("#inside-cell")).to_contain_text(re.compile(rf"\({row}\) looks at .*\({column}\): {number_pattern(weight)} "))
        colours = "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
        assert grid.evaluate(colours) > 20, "the picture of all heads is blank"
        assert large.locator("canvas").evaluate(colours) > 20, "the large picture is blank"
        (ROOT / "build-check").mkdir(exist_ok=True)
        page.screenshot(path=str(ROOT / "build-check" / "road.png"), full_page=True)
        browser.close()
    equal(complaints, [], "complaints in the console")


def cell_of(large, n, row, column):
    """Where a cell of the large map is: the names of the tokens stand left of it and above."""
    box = large.locator("canvas").bounding_box()
    cell = large.locator(".inside-band").first.bounding_box()["height"]
    gutter = box["width"] - n * cell
    return {"x": gutter + (column + 0.5) * cell, "y": gutter + (row + 0.5) * cell}


def number_pattern(x):
    """A weight as the page shows it, to four significant digits."""
    return re.escape(f"{float(f'{x:.4g}'):g}") if x >= 1e-4 or x == 0 else r"[\d.]+e-\d+"


def step_stop(w):
    """SIGTERM: it drains and ends with 0"""
    equal(w.server.stop(), 0, "exit status")


STEPS = (step_train_a_tokenizer, step_train_from_nothing, step_tokenize_by_hand, step_serve, step_tokenize_over_http, step_complete, step_stream, step_same_seed,
         step_score, step_generate_by_hand, step_leave_early, step_page, step_ask_before, step_fine_tune, step_ask_after, step_export, step_upload,
         step_job, step_result, step_export_over_http, step_nothing_left, step_look_inside, step_stop)


def main():
    failed = 0
    with tempfile.TemporaryDirectory(prefix="couplet-road-") as folder:
        w = SimpleNamespace(folder=folder, work=Path(folder) / "work", ran=set())
        (Path(folder) / "bin").mkdir()
        (Path(folder) / "bin" / "couplet").symlink_to(Path(COUPLET).resolve())
        (Path(folder) / "configs").symlink_to(ROOT / "configs")
        for number, step in enumerate(STEPS, 1):
            began = time.monotonic()
            try:
                step(w)
                mark = "ok"
            except Exception as error:  # every step is tried; the first failure does not hide the others
                failed += 1
                mark = f"FAILED: {error}"
                if not isinstance(error, (AssertionError, AttributeError)):
                    traceback.print_exc()
            print(f"{number:3}. {step.__doc__} ({time.monotonic() - began:.2f} s): {mark}", flush=True)
        if failed and hasattr(w, "server"):
            print(w.server.output()[-3000:])
        if hasattr(w, "server"):
            w.server.stop()
    print(f"road: {len(STEPS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
