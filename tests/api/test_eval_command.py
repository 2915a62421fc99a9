# SPDX-License-Identifier: MIT
"""`couplet eval` from outside: its losses against the server's own log-probabilities, its answers, page, judge and mistakes."""
import json
import math
import os
import shutil
import subprocess
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from serving import COUPLET

ENTRIES = [{"instruction": "Name a colour.", "input": "", "output": "Red."},
           {"instruction": "Double the number.", "input": "<21> & \"more\"", "output": "42"},
           {"instruction": "Say é.", "input": "", "output": "é"}]
HEAD = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n"


def evaluate(*arguments, status=0, env=None):
    run = subprocess.run([COUPLET, "eval", *map(str, arguments)], capture_output=True, text=True, timeout=120, env=env)
    assert run.returncode == status, run.stderr
    return run


def numbers(*arguments):
    return json.loads(evaluate("--json", *arguments).stdout)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ENTRIES, ensure_ascii=False))
    return path


def served_logprobs(server, ids):
    body = json.dumps({"model": "nano", "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}).encode()
    request = urllib.request.Request(server.url + "/v1/completions", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["choices"][0]["logprobs"]["token_logprobs"]


def ids_of(server, text):
    body = json.dumps({"model": "nano", "prompt": text, "add_special_tokens": False}).encode()
    request = urllib.request.Request(server.url + "/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]


def test_loss_is_the_servers_logprobs_of_the_answers(server, nano, rows):
    total, n, size = 0, 0, 0
    for entry in ENTRIES:
        prompt = HEAD + entry["instruction"] + (f"\n\n### Input:\n{entry['input']}" if entry["input"] else "") + "\n\n### Response:\n"
        head, ids = ids_of(server, prompt), ids_of(server, prompt + entry["output"]) + [256]  # 256: <|endoftext|>
        total -= sum(served_logprobs(server, ids)[len(head):])
        n += len(ids) - len(head)
        size += len(entry["output"].encode())
    got = numbers("--model", nano, "--data", rows)
    assert got["tokens"] == n and got["examples"] == 3
    assert got["loss"] == pytest.approx(total / n, abs=1e-5)
    assert got["perplexity"] == pytest.approx(math.exp(got["loss"]), rel=1e-6)
    assert got["bits_per_byte"] == pytest.approx(got["loss"] / math.log(2) * n / got["bytes"], rel=1e-9)
    assert size <= got["bytes"] <= size + 3 * len("<|endoftext|>")
    assert 0 <= got["token_accuracy"] <= 1


def test_loss_of_a_text_by_windows(server, nano, tmp_path):
    text = "One line of verse, another line of verse, and then the couplet ends." * 4
    path = tmp_path / "a.txt"
    path.write_text(text)
    ids = ids_of(server, text)
    windows = [ids[at:at + 65] for at in range(0, len(ids) - 64, 64)]
    expected = [-x for w in windows for x in served_logprobs(server, w)[1:]]
    got = numbers("--model", nano, "--data", path, "--context", 64, "--metrics", "loss")
    assert got["tokens"] == len(expected) and got["loss"] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert "perplexity" not in got


def test_answers_and_page(server, nano, rows, tmp_path):
    answers, page, cards = tmp_path / "answers.json", tmp_path / "results.html", tmp_path / "cards.json"
    got = numbers("--model", nano, "--base", nano, "--data", rows, "--answers", answers, "--html", page, "--cards", cards, "--model-name", "tuned <1>",
                  "--max-tokens", 12)
    written = json.loads(answers.read_text())
    assert [{k: w[k] for k in e} for w, e in zip(written, ENTRIES)] == ENTRIES
    for w, entry in zip(written, ENTRIES):
        prompt = HEAD + entry["instruction"] + (f"\n\n### Input:\n{entry['input']}" if entry["input"] else "") + "\n\n### Response:\n"
        body = json.dumps({"model": "nano", "prompt": prompt, "max_tokens": 12, "temperature": 0}).encode()
        request = urllib.request.Request(server.url + "/v1/completions", body, {"Content-Type": "application/json"})
        assert w["model_response"] == w["base_response"] == json.load(urllib.request.urlopen(request))["choices"][0]["text"].strip()
    assert {"exact_match", "token_f1", "rouge_l", "loss"} <= set(got) and got["answers"] == 3
    html = page.read_text()
    assert html.count("<article>") == 3 and "&lt;21&gt; &amp; &quot;more&quot;" in html and "<21>" not in html
    assert html.count("<dt>Base</dt>") == html.count("<dt>Tuned</dt>") == 3 and "://" not in html
    made = json.loads(cards.read_text())
    assert set(made) == {"model", "base", "cards", "means", "base_means"} and made["base_means"] == {k: v for k, v in made["means"].items() if k != "judge"}
    assert (made["model"], made["base"]) == ("tuned <1>", "nano")
    assert made["means"] == {"exact_match": pytest.approx(got["exact_match"]), "token_f1": pytest.approx(got["token_f1"]),
                             "rouge_l": pytest.approx(got["rouge_l"]), "judge": None}
    expected = [{"instruction": e["instruction"], "input": e["input"], "reference": e["output"], "base": w["base_response"], "answer": w["model_response"]}
                for e, w in zip(ENTRIES, written)]
    by_instruction = sorted(made["cards"], key=lambda c: [e["instruction"] for e in ENTRIES].index(c["instruction"]))
    assert [{k: c[k] for k in expected[0]} for c in by_instruction] == expected
    assert [c["rouge_l"] for c in made["cards"]] == sorted(c["rouge_l"] for c in made["cards"]) and all(c["judge"] is None for c in made["cards"])
    assert all(c["exact"] is (c["answer"] == c["reference"]) and 0 <= c["token_f1"] <= 1 for c in made["cards"])


@pytest.mark.parametrize("layout", ["one line", "lines"])
def test_only_what_a_run_held_out(nano, tmp_path, layout):
    """The same rows that `train --validation-split` keeps back, whether the file has a line a row or one for all."""
    entries = [{"instruction": f"Say {i}.", "input": "", "output": f"number {i}"} for i in range(20)]
    path = tmp_path / ("rows.json" if layout == "one line" else "rows.jsonl")
    path.write_text(json.dumps(entries) if layout == "one line" else "".join(json.dumps(e) + "\n" for e in entries))
    split = ("--validation-split", 0.25, "--seed", 7)
    run = subprocess.run([COUPLET, "train", "--model", nano, "--data", path, "--out", tmp_path / "out", "--steps", "1", "--lr", "0", *map(str, split)],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    trained = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    got = numbers("--model", nano, "--data", path, *split, "--answers", tmp_path / "a.json", "--limit", 3, "--max-tokens", 2)
    assert got["examples"] == 5 and got["answers"] == 3
    assert got["loss"] == pytest.approx(next(e["valid_loss"] for e in trained if e["event"] == "eval"), abs=1e-6)
    answers = json.loads((tmp_path / "a.json").read_text())
    drawn = [entries.index({k: a[k] for k in ("instruction", "input", "output")}) for a in answers]
    assert drawn == sorted(set(drawn)) and drawn != [0, 1, 2]
    assert "--seed" in evaluate("--model", nano, "--data", path, "--seed", 7, status=2).stderr


def test_base_with_another_vocabulary(nano, rows, tmp_path):
    other, answers, own = tmp_path / "other", tmp_path / "answers.json", tmp_path / "own.json"
    shutil.copytree(nano, other)
    vocabulary = json.loads((other / "vocab.json").read_text())
    vocabulary["e"], vocabulary["n"] = vocabulary["n"], vocabulary["e"]
    (other / "vocab.json").write_text(json.dumps(vocabulary))
    evaluate("--model", nano, "--base", other, "--data", rows, "--answers", answers, "--max-tokens", 12)
    evaluate("--model", other, "--data", rows, "--answers", own, "--max-tokens", 12)
    written, expected = json.loads(answers.read_text()), json.loads(own.read_text())
    assert [w["base_response"] for w in written] == [w["model_response"] for w in expected] != [w["model_response"] for w in written]


class Judge(BaseHTTPRequestHandler):
    asked = []

    def answer(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer({"data": [{"id": "judge-1"}]} if self.path == "/v1/models" else {}, 200 if self.path == "/v1/models" else 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Judge.asked.append((self.path, self.headers["Authorization"], body))
        replies = ["Score: 70/100", "I cannot say", "90"]
        self.answer({"choices": [{"message": {"role": "assistant", "content": replies[(len(Judge.asked) - 1) % 3]}}]})

    def log_message(self, *_):
        pass


def test_judge(nano, rows, tmp_path):
    Judge.asked.clear()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    url, answers = f"http://127.0.0.1:{httpd.server_port}", tmp_path / "a.json"
    arguments = ("--json", "--model", nano, "--data", rows, "--judge", url, "--answers", answers, "--max-tokens", 4)
    got = json.loads(evaluate(*arguments, env={"OPENAI_API_KEY": "sk-test", "PATH": "/bin"}).stdout)
    httpd.shutdown()
    httpd.server_close()
    assert (got["judge"], got["judged"], got["judge_model"]) == (80, 2, "judge-1")
    assert [w.get("judge_score") for w in json.loads(answers.read_text())] == [70, None, 90]
    path, key, body = Judge.asked[1]
    assert path == "/v1/chat/completions" and key == "Bearer sk-test" and body["temperature"] == 0
    assert "<21>" in body["messages"][0]["content"] and "correct output `42`" in body["messages"][0]["content"]
    refused = evaluate(*arguments, status=1).stderr
    assert "does not answer" in refused and "answers:" not in refused


@pytest.mark.parametrize("flags, word", [(["--metrics", "loss,bleu"], "bleu"), (["--context", 0], "--context"), (["--context", 100000], "--context"),
                                         (["--train-on-inputs", "maybe"], "--train-on-inputs"), (["--max-tokens", "x"], "--max-tokens")])
def test_bad_options(nano, rows, flags, word):
    run = evaluate("--model", nano, "--data", rows, *flags, status=2)
    assert word in run.stderr.split("\n")[0] and run.stdout == ""


@pytest.mark.parametrize("text, word", [("", "empty"), ('{"instruction": "a", "output": ""}', "line 1"), ("[1]", "row 1"), ('{"text": "a"}\nnope', "line 2")])
def test_bad_data(nano, tmp_path, text, word):
    path, answers = tmp_path / "bad.jsonl", tmp_path / "answers.json"
    path.write_text(text)
    run = evaluate("--model", nano, "--data", path, "--answers", answers, status=1)
    assert word in run.stderr and run.stderr.count("\n") == 1 and not answers.exists()


def test_lines_and_nulls(nano, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b", "messages": null}\n\n{"prompt": "", "completion": "b"}\n')
    evaluate("--model", nano, "--data", path, "--metrics", "rouge_l", "--limit", 1, "--max-tokens", 2)
    assert "line 3: a prompt of 0 tokens" in evaluate("--model", nano, "--data", path, "--metrics", "rouge_l", status=1).stderr


def test_a_pipe_is_not_replaced(nano, rows, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in evaluate("--model", nano, "--data", rows, "--answers", tmp_path / "pipe", "--max-tokens", 2, status=1).stderr
    assert (tmp_path / "pipe").is_fifo()


def test_rows_without_answers(nano, tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "no answer here"}\n')
    assert "no rows with a question" in evaluate("--model", nano, "--data", path, "--html", tmp_path / "x.html", status=1).stderr
