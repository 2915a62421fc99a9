# SPDX-License-Identifier: MIT
"""One engine: what a job says of its held-out rows is what the server's own log-probabilities say of them, on the model that the job made; and a row of
messages is learned as /v1/chat/completions asks it. All of it over HTTP. On a real model by name: COUPLET_ONE_ENGINE_MODEL=FILE.gguf, with rows from
COUPLET_ONE_ENGINE_ROWS=FILE.json where the few here are not enough."""
import csv
import io
import json
import os
import re
import subprocess
import sys
import time

import httpx
import pytest
from chat_model import LLAMA3, LLAMA3_SPECIAL, make_chat_nano
from serving import ROOT, Server, make_nano

CLOSE = 1e-4
REAL = os.environ.get("COUPLET_ONE_ENGINE_MODEL")


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def talk(*said):
    return {"messages": [{"role": role, "content": text} for role, text in said]}


def chats(n):
    """Rows of all shapes: with and without a system message, of one turn and of two."""
    rows = []
    for i in range(n):
        turns = [("user", f"What is {i} + {i}?"), ("assistant", f"It is {2 * i}.")]
        if i % 2:
            turns = [("system", "Answer like a pirate. é"), *turns]
        if i % 3 == 0:
            turns += [("user", "And then?"), ("assistant", f"Then {2 * i + 1},\nmate.")]
        rows.append(talk(*turns))
    return rows


PLAIN = [{"prompt": f"Question {i}: ", "completion": f"answer {i % 7} é."} for i in range(40)]
HELD_OUT = 3  # what a file's report shows token by token
FULL, LORA = ({"type": "full"}, 3e-3), ({"type": "lora", "lora_r": 4}, 2e-2)


class Service:
    """The calls of this test on a running server."""

    def __init__(self, server):
        self.server, self.jobs = server, []
        self.http = httpx.Client(base_url=server.url + "/v1", timeout=600)

    def ask(self, method, path, **options):
        answer = self.http.request(method, path, **options)
        assert answer.status_code == 200, answer.text
        return answer

    def upload(self, rows):
        return self.ask("POST", "/files", files={"file": ("rows.jsonl", lines(rows))}, data={"purpose": "fine-tune"}).json()["id"]

    def examples(self, file, model):
        """[(ids, supervised)] of a small file, as training sees it."""
        report = self.ask("GET", f"/files/{file}/report", params={"model": model}).json()
        assert report["usable"] and report["examples"] == len(report["preview"]), report
        return [([t["id"] for t in row["tokens"]], [t["supervised"] for t in row["tokens"]]) for row in report["preview"]]

    def train(self, model, files, how, steps, **couplet):
        kind, rate = how
        job = self.ask("POST", "/fine_tuning/jobs", json={
            "model": model, "training_file": files[0], "validation_file": files[1], "seed": 5, "hyperparameters": {"batch_size": 4},
            "couplet": {"training_type": kind, "learning_rate": rate, "max_steps": steps, "n_evals": 2, **couplet}}).json()["id"]
        end = time.monotonic() + 1800
        while time.monotonic() < end:
            now = self.ask("GET", f"/fine_tuning/jobs/{job}").json()
            if now["status"] in ("succeeded", "failed", "cancelled"):
                assert now["status"] == "succeeded", now["error"]
                self.jobs.append(now)
                return now
            time.sleep(0.1)
        raise AssertionError(f"the job takes too long: {now}")

    def told_loss(self, job):
        """(the first held-out loss, the last one), which results.csv has too."""
        events = self.ask("GET", f"/fine_tuning/jobs/{job['id']}/events", params={"limit": 1000}).json()["data"]
        told = [e["data"]["valid_loss"] for e in events[::-1] if e["type"] == "metrics" and (e["data"] or {}).get("valid_loss") is not None]
        table = list(csv.DictReader(io.StringIO(self.ask("GET", f"/files/{job['result_files'][0]}/content").text)))
        assert float(table[-1]["valid_loss"]) == pytest.approx(told[-1], abs=1e-6)
        return told[0], told[-1]

    def served_loss(self, model, examples):
        """The mean over the supervised tokens of what the server gives each of them."""
        total, n = 0, 0
        for ids, supervised in examples:
            reply = self.ask("POST", "/completions", json={"model": model, "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}).json()
            said = reply["choices"][0]["logprobs"]["token_logprobs"]
            assert len(said) == len(ids) == len(supervised) and not supervised[0]
            total -= sum(lp for lp, learned in zip(said, supervised) if learned)
            n += sum(supervised)
        return total / n


def check_losses(service, model, rows, how, steps=12, close=CLOSE, **couplet):
    files = service.upload(rows[HELD_OUT:]), service.upload(rows[:HELD_OUT])
    examples = service.examples(files[1], model)
    job = service.train(model, files, how, steps, **couplet)
    before, after = service.told_loss(job)
    served = {"before": service.served_loss(model, examples), "after": service.served_loss(job["fine_tuned_model"], examples)}
    print(f"{model} {how[0]['type']}: before {before:.6f} ({served['before'] - before:+.1e}), after {after:.6f} ({served['after'] - after:+.1e})")
    assert abs(before - after) > 100 * close, "the job moved nothing"
    assert served["before"] == pytest.approx(before, abs=close)
    assert served["after"] == pytest.approx(after, abs=close)
    return job


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    chat = make_chat_nano(folder / "chat")
    three = make_chat_nano(folder / "three", LLAMA3, LLAMA3_SPECIAL)
    llama = make_chat_nano(folder / "llama", options=("--arch", "llama", "--layers", "2"))
    for kind, name in (("q4_1", "llama"), ("q8_0", "gpt2")):
        source = make_nano(folder / f"{name}-source", "--arch", name, "--layers", "2")
        subprocess.run([sys.executable, str(ROOT / "tests/tools/make_gguf.py"), "--type", kind, "--byte-vocab", str(source), str(folder / f"{kind}.gguf")],
                       check=True)
    models = [word for path in (chat, three, llama, folder / "q4_1.gguf", folder / "q8_0.gguf") for word in ("--model", f"{path.stem}={path}")]
    with Server(*models, "--weights", "f32") as server:
        service = Service(server)
        service.folder = folder
        yield service
        assert server.stop() == 0, server.output()[-4000:]


@pytest.mark.parametrize("how", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("model", ["chat", "llama"])
def test_loss_of_messages(service, model, how):
    check_losses(service, model, chats(20), how)


@pytest.mark.parametrize("model", ["q4_1", "q8_0"])
def test_loss_of_an_adapter_on_a_quantised_base(service, model):
    check_losses(service, model, PLAIN, LORA)


def test_loss_of_an_adapter_that_was_trained_on(service):
    first = check_losses(service, "llama", PLAIN, LORA, steps=6)
    check_losses(service, first["fine_tuned_model"], PLAIN, ({"type": "lora"}, 1e-2), steps=6)


def test_nothing_says_where_the_server_keeps_it(service):
    """What the jobs above leave to their owners: files, events, the exported adapter, which names its base by id."""
    if not service.jobs:
        service.train("q4_1", (service.upload(PLAIN), service.upload(PLAIN[:3])), LORA, 4)
    for job in service.jobs[-6:]:
        adapter = job["couplet"]["training_type"]["type"] == "lora"
        export = service.ask("GET", f"/fine_tuning/jobs/{job['id']}/export", params={"format": "peft" if adapter else "safetensors"}).content
        told = [service.ask("GET", f"/files/{file}/content").content for file in job["result_files"]]
        told += [service.ask("GET", f"/fine_tuning/jobs/{job['id']}/events", params={"limit": 1000}).content, json.dumps(job).encode(), export]
        assert len(told) == len(job["result_files"]) + 3 > 5
        for text in told:
            assert service.server.data.name.encode() not in text and str(service.folder).encode() not in text
        assert not adapter or re.search(rb'"base_model_name_or_path": *"(llama|chat|q4_1|q8_0)"', export)


def check_messages(service, model, rows, limits=None):
    """Each answer of a row stands behind exactly the prompt that /v1/chat/completions makes of the messages before it, and begins as soon as that ends."""
    for row, (ids, supervised) in zip(rows, service.examples(service.upload(rows), model)):
        begins = [i for i in range(1, len(ids)) if supervised[i] and not supervised[i - 1]]
        answers = [i for i, message in enumerate(row["messages"]) if message["role"] == "assistant"]
        assert len(begins) == len(answers)
        for begin, answer in zip(begins, answers):
            reply = service.ask("POST", "/chat/completions", json={"model": model, "messages": row["messages"][:answer], "max_tokens": 1, "return_token_ids": True})
            assert reply.json()["choices"][0]["prompt_token_ids"] == ids[:begin]


@pytest.mark.parametrize("model", ["chat", "three", "llama"])
def test_ids_of_messages(service, model):
    rows = chats(9)
    for at in range(0, len(rows), HELD_OUT):
        check_messages(service, model, rows[at:at + HELD_OUT])


@pytest.mark.skipif(not REAL, reason="by name: ./check smollm2")
def test_real_model():
    """LoRA on a quantised model that people use, in a few steps; its own chat template, and instructions."""
    instructions = [{"instruction": f"Rewrite the sentence in capitals: {w}.", "input": "", "output": f"{w.upper()}."}
                    for w in ("the sea is calm", "a cat sleeps", "rain falls", "we walk home", "it is late", "the mill turns", "birds sing", "snow melts")]
    if "COUPLET_ONE_ENGINE_ROWS" in os.environ:
        with open(os.environ["COUPLET_ONE_ENGINE_ROWS"], encoding="utf-8") as f:
            instructions = json.load(f)[:24]
    with Server("--model", f"real={REAL}", "--weights", "f32") as server:
        service = Service(server)
        check_messages(service, "real", chats(HELD_OUT))
        for rows in (instructions, chats(8)):
            check_losses(service, "real", rows, ({"type": "lora"}, 1e-3), steps=3)
        assert server.stop() == 0, server.output()[-4000:]
