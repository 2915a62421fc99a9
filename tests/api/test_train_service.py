# SPDX-License-Identifier: MIT
"""What the job service asks of `couplet train`: snapshots, live adapters, estimates, the table of losses, reasons with a code, no server paths."""
import csv
import io
import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("COUPLET", str(ROOT / "build" / "server" / "couplet"))
TEXT = (ROOT / "configs" / "examples" / "village.txt").read_text()[:12000]


def couplet(*arguments):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def train(*arguments, ok=True):
    done = couplet("train", *arguments, "--json", "--threads", 1)
    assert not ok or done.returncode == 0, done.stderr
    return done, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    (folder / "text.txt").write_text(TEXT)
    assert couplet("tokenizer", "train", "--vocab-size", 300, "--out", folder / "tok", folder / "text.txt").returncode == 0
    train("--init", "gpt2-nano", "--tokenizer", folder / "tok", "--data", folder / "text.txt", "--context", 64, "--steps", 2, "--out", folder / "nano")
    return folder


def generate(model):
    done = couplet("generate", "--model", model, "--temperature", 0, "--max-tokens", 12, "The mill")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_snapshots_are_models(base, tmp_path):
    out = tmp_path / "out"
    _, lines = train("--model", base / "nano", "--data", base / "text.txt", "--context", 64, "--steps", 6, "--eval-every", 3, "--snapshots", "--out", out)
    assert [line["step"] for line in lines if line["event"] == "checkpoint"] == [3, 6]
    assert sorted(p.name for p in (out / "snapshots").iterdir()) == ["step-3", "step-6"]
    assert (out / "snapshots" / "step-6" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert (out / "snapshots" / "step-3" / "model.safetensors").read_bytes() != (out / "model.safetensors").read_bytes()
    assert generate(out / "snapshots" / "step-6") == generate(out)


def test_live_adapters(base, tmp_path):
    out = tmp_path / "out"
    _, lines = train("--model", base / "nano", "--data", base / "text.txt", "--context", 64, "--steps", 8, "--method", "lora", "--live-every", 0.01,
                     "--out", out)
    live = [line for line in lines if line["event"] == "live"]
    assert live and live[0] == {"event": "live", "step": 1, "path": "live/step-1"}
    assert len(list((out / "live").iterdir())) <= 2, "older ones go"
    newest = out / live[-1]["path"]
    assert (newest / "adapter_config.json").exists()
    if live[-1]["step"] == 8:
        assert (newest / "adapter_model.safetensors").read_bytes() == (out / "adapter_model.safetensors").read_bytes()
    assert "live" not in (out / "log.jsonl").read_text(), "a log does not depend on time"


def test_results_csv(base, tmp_path):
    out = tmp_path / "out"
    _, lines = train("--model", base / "nano", "--data", base / "text.txt", "--validation-split", 0.2, "--context", 64, "--steps", 5, "--eval-every", 2,
                     "--out", out)
    rows = list(csv.DictReader(io.StringIO((out / "results.csv").read_text())))
    steps = [line for line in lines if line["event"] == "step"]
    evals = {line["step"]: line for line in lines if line["event"] == "eval"}
    assert list(rows[0]) == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5]
    for row, step in zip(rows, steps):
        assert float(row["train_loss"]) == step["train_loss"] and float(row["train_accuracy"]) == step["train_accuracy"]
        measured = evals.get(step["step"])
        assert row["valid_loss"] == ("" if measured is None else "%.9g" % measured["valid_loss"])
        assert (row["valid_mean_token_accuracy"] == "") == (measured is None)


def test_estimate(base, tmp_path):
    options = ("--model", base / "nano", "--data", base / "text.txt", "--validation-split", 0.2, "--context", 64, "--epochs", 2)
    done, (said,) = train(*options, "--estimate")
    _, lines = train(*options, "--out", tmp_path / "out")
    start = next(line for line in lines if line["event"] == "start")
    last = [line for line in lines if line["event"] == "step"][-1]
    assert said["steps"] == start["total_steps"] and said["train_rows"] == start["rows"] and said["train_tokens"] == start["tokens_per_epoch"]
    assert said["train_tokens"] * 2 == last["tokens"] and said["supervised_tokens"] == said["train_tokens"], "a text is learned as a whole"
    assert said["seconds"] > 0 and said["peak_memory_bytes"] > 10 << 20 and said["checkpoint_bytes"] > 0
    assert said["evaluations"] == len([line for line in lines if line["event"] == "eval"])


def peak_memory(*arguments):
    """What the kernel counts until shortly before the end."""
    run = subprocess.Popen([BINARY, "train", *map(str, arguments), "--json", "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    said, peak = [], 0
    reader = threading.Thread(target=lambda: said.extend(run.stdout))
    reader.start()
    while run.poll() is None:
        try:
            lines = Path(f"/proc/{run.pid}/status").read_text().splitlines()
        except OSError:
            continue
        peak = max([peak, *(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))])
        reader.join(0.005)
    reader.join()
    assert run.returncode == 0
    return peak, json.loads(said[-1])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_estimate_of_memory(base, tmp_path, method):
    """Also where the program was started by a much larger one."""
    ballast = bytearray(os.urandom(1 << 20)) * 300
    options = ("--model", base / "nano", "--data", base / "text.txt", "--validation-split", 0.2, "--context", 128, "--steps", 12, "--method", method)
    _, said = peak_memory(*options, "--estimate")
    peak, _ = peak_memory(*options, "--out", tmp_path / "out")
    assert len(ballast) and said["peak_memory_bytes"] == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("code,status,change", [
    ("invalid_training_file", 1, {"--data": "bad.jsonl"}),
    ("invalid_validation_file", 1, {"--validation": "bad.jsonl"}),
    ("invalid_model", 1, {"--model": "no-such-model"}),
    ("invalid_option", None, {"--context": "100000"}),
])
def test_reasons_have_codes_and_no_paths(base, tmp_path, code, status, change):
    (base / "bad.jsonl").write_text('{"text":"fine"}\n{"text":\n')
    options = {"--model": base / "nano", "--data": base / "text.txt", "--out": tmp_path / "out", "--context": 64, "--steps": 1}
    options |= {k: base / v if k in ("--data", "--validation", "--model") else v for k, v in change.items()}
    done = couplet("train", *[str(x) for pair in options.items() for x in pair], "--json", "--threads", "1")
    assert done.returncode != 0 and (status is None or done.returncode == status), done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["event"] == "error" and line["code"] == code, line


def test_supervised_lines_hold_no_paths(base, tmp_path):
    """What a server's trainer says goes to clients: file names, never directories."""
    (base / "wrong.jsonl").write_text('{"text":"fine"}\n{"text":\n')
    done = couplet("train", "--model", base / "nano", "--data", base / "wrong.jsonl", "--out", tmp_path / "out", "--steps", 1, "--json", "--supervised")
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["message"].startswith("wrong.jsonl line 2") and str(base) not in done.stdout and str(base) not in done.stderr
    named = couplet("train", "--model", base / "nano", "--data", base / "wrong.jsonl", "--data-name", "mine.jsonl", "--estimate", "--supervised")
    assert "mine.jsonl line 2" in named.stderr and str(base) not in named.stderr, "the name that its owner knows"
    (base / "twice.jsonl").write_text('{"text":"one two three"}\n' * 2)
    said = couplet("train", "--model", base / "nano", "--data", base / "twice.jsonl", "--data-name", "mine.jsonl", "--estimate", "--supervised", "--json")
    assert any("mine.jsonl" in w for w in json.loads(said.stdout)["warnings"]) and "twice" not in said.stdout and str(base) not in said.stdout
