# SPDX-License-Identifier: MIT
"""`couplet train` from outside: every flag does something, mistakes have one clear message and leave nothing, a killed run resumes to the same
bits, what is written loads again. On gpt2-nano with a byte vocabulary; every run takes a second or two."""
import fcntl
import json
import os
import random
import re
import signal
import struct
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("COUPLET", str(ROOT / "build" / "server" / "couplet"))
TEXT = (ROOT / "configs" / "examples" / "village.txt").read_text()[:6000]
ROWS = [{"instruction": f"Say the number {i} twice.", "input": "" if i % 2 else f"n = {i}", "output": f"{i} {i}"} for i in range(24)]


def couplet(*arguments, **options):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text(TEXT)
    (folder / "valid.txt").write_text("The river runs past the mill and under the bridge. " * 40)
    (folder / "rows.json").write_text(json.dumps(ROWS))
    (folder / "long.jsonl").write_text(json.dumps({"text": "short"}) + "\n" + json.dumps({"text": "long " * 40}) + "\n")
    return folder


def train(*arguments, ok=True):
    done = couplet("train", *arguments)
    assert not ok or done.returncode == 0, done.stderr
    return done


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def events(out, name):
    return [e for e in log_of(out) if e["event"] == name]


def losses(out):
    return [e["train_loss"] for e in events(out, "step")]


def weights(out):
    (one,) = out.glob("*.safetensors")
    return one.read_bytes()


def tensors(path):
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {k: data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]] for k, v in header.items()}


def text_run(files, nano, out, *more, base=None, ok=True, **options):
    base = base or ["--init", "gpt2-nano", "--tokenizer", nano]
    return train(*base, "--data", files / "text.txt", "--out", out, "--context", 32, "--batch-size", 4, "--steps", 6, "--lr", 1e-3, *more, ok=ok, **options)


@pytest.fixture(scope="module")
def plain(files, nano, tmp_path_factory):
    """A run without any further flag, to compare with."""
    out = tmp_path_factory.mktemp("plain") / "out"
    text_run(files, nano, out)
    return out


def without_times(line):
    return {k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second", "threads")}


# ---- what a run leaves ----

def test_log_and_files(plain):
    lines = log_of(plain)
    assert lines[0]["event"] == "start" and lines[-1]["event"] == "done" and lines[-1]["reason"] == "finished"
    start = lines[0]
    assert start["parameters"] == start["trainable"] == 859008 and start["method"] == "full" and start["updates_per_epoch"] > 6
    assert start["total_steps"] == 6 and start["memory_bytes"] > 4 * 4 * 859008
    steps = events(plain, "step")
    assert [e["step"] for e in steps] == [1, 2, 3, 4, 5, 6]
    for e in steps:
        assert {"epoch", "train_loss", "train_accuracy", "learning_rate", "grad_norm", "tokens", "tokens_per_second"} <= e.keys()
        assert e["learning_rate"] == 1e-3 and e["tokens"] == e["step"] * 4 * 32
    assert losses(plain)[0] > losses(plain)[-1] > 0
    assert {p.name for p in plain.iterdir()} >= {"model.safetensors", "config.json", "vocab.json", "merges.txt", "tokenizer.json", "checkpoints", "log.jsonl",
                                                 "report.md", "report.json"}
    assert (plain / "report.md").read_text().startswith("not measured")
    done = couplet("generate", "--model", plain, "--max-tokens", 8, "--temperature", 0, "The")
    assert done.returncode == 0, done.stderr


def test_repeats_to_the_same_bytes_with_any_thread_count(files, nano, plain, tmp_path):
    for threads in (1, 2):
        text_run(files, nano, tmp_path / str(threads), "--threads", threads)
        assert weights(tmp_path / str(threads)) == weights(plain)
        assert [without_times(e) for e in log_of(tmp_path / str(threads))] == [without_times(e) for e in log_of(plain)]


def test_json_is_the_log(files, nano, tmp_path):
    done = text_run(files, nano, tmp_path / "out", "--json")
    assert done.stdout == (tmp_path / "out" / "log.jsonl").read_text()
    done = text_run(files, nano, tmp_path / "two", "--json", "--log", tmp_path / "my.jsonl")
    assert done.stdout == (tmp_path / "my.jsonl").read_text() and not (tmp_path / "two" / "log.jsonl").exists()


CHANGES = [["--lr", 2e-3], ["--batch-size", 2], ["--accumulate", 2], ["--context", 16], ["--stride", 7], ["--optimizer", "sgd"], ["--schedule", "linear"],
           ["--schedule", "cosine"], ["--schedule", "linear", "--min-lr", 5e-4], ["--warmup", 3], ["--weight-decay", 0.5], ["--beta1", 0.5], ["--beta2", 0.5],
           ["--eps", 0.1], ["--clip", 0.01], ["--clip", 0], ["--dropout", 0.2], ["--seed", 3], ["--shuffle", "off"], ["--optimizer", "sgd", "--momentum", 0.9],
           ["--steps", 5]]


@pytest.mark.parametrize("flags", CHANGES, ids=lambda f: " ".join(map(str, f)))
def test_flag_changes_the_result(files, nano, plain, tmp_path, flags):
    text_run(files, nano, tmp_path / "out", *flags)
    assert weights(tmp_path / "out") != weights(plain)


def test_recompute_and_keep_change_no_number(files, nano, plain, tmp_path):
    text_run(files, nano, tmp_path / "out", "--recompute", "--checkpoint-every", 1, "--keep", 3)
    assert losses(tmp_path / "out") == losses(plain) and weights(tmp_path / "out") == weights(plain)
    assert sorted(p.name for p in (tmp_path / "out" / "checkpoints").glob("step-*")) == ["step-00000004", "step-00000005", "step-00000006"]


def test_schedules(files, nano, tmp_path):
    text_run(files, nano, tmp_path / "out", "--schedule", "cosine", "--warmup", 2, "--min-lr", 1e-4)
    rates = [e["learning_rate"] for e in events(tmp_path / "out", "step")]
    assert rates[:2] == [5e-4, 1e-3] and all(a > b for a, b in zip(rates[2:], rates[3:])) and rates[-1] >= 1e-4


def test_epochs(files, nano, tmp_path):
    train("--init", "gpt2-nano", "--tokenizer", nano, "--data", files / "rows.json", "--out", tmp_path / "out", "--epochs", 2, "--batch-size", 16, "--excess-length",
          "truncate")
    assert [e["epoch"] for e in events(tmp_path / "out", "step")] == [0.5, 1, 1.5, 2]


def test_evaluation_samples_plot_and_report(files, nano, tmp_path):
    out, plot = tmp_path / "out", tmp_path / "loss.svg"
    done = text_run(files, nano, out, "--validation", files / "valid.txt", "--eval-every", 2, "--sample-prompt", "The river", "--sample-prompt", "A", "--sample-tokens", 5,
                    "--plot", plot, "--lr", 3e-3)
    evals = events(out, "eval")
    assert [e["step"] for e in evals] == [0, 2, 4, 6]
    for e in evals:
        assert {"valid_loss", "perplexity", "token_accuracy", "bits_per_byte"} <= e.keys() and e["valid_loss"] > 0
    assert [(e["step"], e["prompt"]) for e in events(out, "sample")] == [(s, p) for s in (0, 2, 4, 6) for p in ("The river", "A")]
    root = ET.parse(plot).getroot()
    assert root.tag.endswith("svg") and len(root.findall(".//{*}polyline")) == 3
    report, card = (out / "report.md").read_text(), json.loads((out / "report.json").read_text())
    first = report.splitlines()[0]
    assert re.fullmatch(r"better: validation loss \d\.\d{4} -> \d\.\d{4} on \d+ held-out rows against the random weights it began with", first)
    assert done.stdout.strip() == first == card["headline"] and card["verdict"] == "better"
    assert abs(card["valid_loss_after"] - evals[-1]["valid_loss"]) < 1e-5 and abs(card["valid_loss_before"] - evals[0]["valid_loss"]) < 1e-5


def test_early_stopping_writes_the_best(files, nano, tmp_path):
    out = tmp_path / "out"
    text_run(files, nano, out, "--validation-split", 0.1, "--eval-every", 2, "--steps", 400, "--lr", 0.02, "--early-stopping", 2)
    evals = events(out, "eval")
    best = min(evals, key=lambda e: e["valid_loss"])
    assert events(out, "done")[0]["reason"] == "early_stopping" and evals[-1]["step"] == best["step"] + 4 < 400
    card = json.loads((out / "report.json").read_text())
    assert abs(card["valid_loss_after"] - best["valid_loss"]) < 1e-5 and card["weights"] == "best"


# ---- methods ----

def test_lora(files, nano, tmp_path):
    out = tmp_path / "out"
    flags = ["--model", nano, "--method", "lora", "--data", files / "text.txt", "--context", 32, "--steps", 3, "--lr", 0.01]
    train(*flags, "--out", out, "--lora-rank", 4, "--lora-alpha", 8)
    found = tensors(out / "adapter_model.safetensors")
    assert len(found) == 4 * 4 * 2 and all(k.startswith("base_model.model.transformer.h.") for k in found)
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (4, 8, True) and sorted(config["target_modules"]) == ["c_attn", "c_fc", "c_proj"]
    assert events(out, "start")[0]["trainable"] == sum(len(v) // 4 for v in found.values())
    assert couplet("generate", "--model", out, "--max-tokens", 4, "x").returncode == 0
    for more in (["--lora-alpha", 64], ["--lora-dropout", 0.5], ["--lora-targets", "c_attn,mlp.c_proj"], ["--lora-init", out / "adapter_model.safetensors"]):
        other = tmp_path / more[0][2:]
        train(*flags, "--out", other, "--lora-rank", 4, *more)
        assert tensors(other / "adapter_model.safetensors") != found
    assert {k.split(".")[-3] + "." + k.split(".")[-2] for k in tensors(tmp_path / "lora-targets" / "adapter_model.safetensors")} == {
        "c_attn.lora_A", "c_attn.lora_B", "c_proj.lora_A", "c_proj.lora_B"}
    again = tmp_path / "again"  # begun with a run's factors at rate 0: nothing moves
    train(*flags, "--out", again, "--lora-rank", 4, "--lora-init", out / "adapter_model.safetensors", "--lr", 0)
    assert tensors(again / "adapter_model.safetensors") == found


def test_freeze(files, nano, tmp_path):
    out, before = tmp_path / "out", tensors(nano / "model.safetensors")
    train("--model", nano, "--method", "freeze", "--freeze-layers", 2, "--data", files / "text.txt", "--context", 32, "--steps", 3, "--lr", 0.01, "--out", out)
    after = tensors(out / "model.safetensors")
    moved = {re.match(r"transformer\.(h\.\d|\w+)", k).group(1) for k in after if after[k] != before[k]}
    assert moved == {"h.2", "h.3", "ln_f"}


def test_rows_masks_and_packing(files, nano, tmp_path):
    flags = ["--model", nano, "--data", files / "rows.json", "--steps", 3, "--batch-size", 4]
    train(*flags, "--out", tmp_path / "a")
    train(*flags, "--out", tmp_path / "b", "--train-on-inputs", "on")
    a, b = events(tmp_path / "a", "step")[-1], events(tmp_path / "b", "step")[-1]
    assert a["tokens"] == b["tokens"] and a["supervised_tokens"] < b["supervised_tokens"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{i}+{i}=", "completion": f"{2 * i}"}) + "\n" for i in range(20)))
    for name, packing in (("c", "off"), ("d", "on")):
        train("--model", nano, "--data", rows, "--out", tmp_path / name, "--epochs", 1, "--batch-size", 2, "--packing", packing)
    assert len(losses(tmp_path / "c")) == 10 and len(losses(tmp_path / "d")) == 1


def test_however_a_batch_is_made_up(files, nano, tmp_path):
    """One update on the same rows, packed or not, in one batch or in eight: the same loss and gradient to 1e-6."""
    def update(name, *flags):
        train("--model", nano, "--steps", 1, "--out", tmp_path / name, *flags)
        (step,) = events(tmp_path / name, "step")
        return [step["train_loss"], step["grad_norm"]]

    rows, text = ["--data", files / "rows.json"], ["--data", files / "text.txt", "--context", 64]
    whole = update("whole", *rows, "--batch-size", 24)
    assert update("packed", *rows, "--batch-size", 24, "--packing", "on", "--context", 256) == pytest.approx(whole, rel=1e-6)
    assert update("1x8", *text, "--batch-size", 1, "--accumulate", 8) == pytest.approx(update("8x1", *text, "--batch-size", 8), rel=1e-6)


def test_excess_length(files, nano, tmp_path):
    flags = ["--model", nano, "--data", files / "long.jsonl", "--context", 32, "--epochs", 1]
    failed = train(*flags, "--out", tmp_path / "a", ok=False)
    assert failed.returncode == 1 and "long.jsonl line 2: " in failed.stderr and not (tmp_path / "a").exists()
    train(*flags, "--out", tmp_path / "b", "--excess-length", "truncate")
    train(*flags, "--out", tmp_path / "c", "--excess-length", "drop")
    assert events(tmp_path / "b", "start")[0]["rows"] == 2 and events(tmp_path / "c", "start")[0]["rows"] == 1


def test_config_json(files, nano, tmp_path):
    config = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 300, "tie_word_embeddings": False, "qkv_bias": False,
              "init": "torch", "decay": "all", "drop_rate": 0.1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    text_run(files, nano, tmp_path / "out", base=["--init", tmp_path / "config.json", "--tokenizer", nano])
    found = tensors(tmp_path / "out" / "model.safetensors")
    assert "lm_head.weight" in found and "transformer.h.0.attn.c_attn.bias" not in found and len(found["lm_head.weight"]) == 4 * 300 * 32
    assert couplet("generate", "--model", tmp_path / "out", "--max-tokens", 4, "x").returncode == 0


def test_check_gradients(files, nano, tmp_path):
    done = train("--model", nano, "--data", files / "text.txt", "--context", 16, "--batch-size", 2, "--check-gradients", "--json")
    answer = json.loads(done.stdout)
    assert answer["checked"] > 100 and answer["failed"] == 0 and answer["worst_error"] < 0.05


# ---- mistakes ----

BAD_OPTIONS = [
    (["--lora-rank", "0", "--method", "lora"], "--lora-rank"), (["--lr", "-1"], "--lr"), (["--lr", "fast"], "--lr"), (["--lora-rank", "4"], "--lora-rank"),
    (["--lora-targets", "c_attn"], "--lora-targets"), (["--lora-targets", "", "--method", "lora"], "--lora-targets"),
    (["--lora-targets", "c_attn,,c_fc", "--method", "lora"], "--lora-targets"), (["--lora-targets", "nothing", "--method", "lora"], "--lora-targets"),
    (["--validation", "v.txt", "--validation-split", "0.1"], "--validation-split"), (["--validation-split", "1.5"], "--validation-split"),
    (["--stride", "65", "--context", "64"], "--stride"), (["--stride", "300"], "--stride"), (["--context", "257"], "--context"), (["--context", "0"], "--context"),
    (["--batch-size", "0"], "--batch-size"), (["--accumulate", "0"], "--accumulate"), (["--epochs", "0"], "--epochs"), (["--steps", "0"], "--steps"),
    (["--epochs", "1", "--steps", "1"], "--epochs"), (["--optimizer", "adam"], "--optimizer"), (["--schedule", "step"], "--schedule"),
    (["--method", "all"], "--method"), (["--dropout", "1"], "--dropout"), (["--dropout", "-0.1"], "--dropout"), (["--beta1", "1"], "--beta1"),
    (["--eps", "0"], "--eps"), (["--momentum", "0.9"], "--momentum"), (["--beta2", "0.9", "--optimizer", "sgd"], "--beta2"), (["--clip", "-1"], "--clip"),
    (["--weight-decay", "-1"], "--weight-decay"), (["--min-lr", "1e-6"], "--min-lr"), (["--min-lr", "1", "--schedule", "cosine"], "--min-lr"),
    (["--warmup", "5", "--steps", "4"], "--warmup"), (["--early-stopping", "2"], "--early-stopping"), (["--freeze-layers", "1"], "--freeze-layers"),
    (["--freeze-layers", "5", "--method", "freeze"], "--freeze-layers"), (["--init", "gpt2-nano"], "--init"), (["--tokenizer", "x"], "--tokenizer"),
    (["--packing", "on"], "--packing"), (["--train-on-inputs", "on"], "--train-on-inputs"), (["--shuffle", "maybe"], "--shuffle"), (["--seed", "-1"], "--seed"),
    (["--keep", "0"], "--keep"), (["--threads", "0"], "--threads"), (["--sample-tokens", "3"], "--sample-tokens"), (["--no-such"], "--no-such"), (["--plot"], "--plot"),
]


@pytest.mark.parametrize("flags,name", BAD_OPTIONS, ids=[" ".join(f) for f, _ in BAD_OPTIONS])
def test_bad_option(files, nano, tmp_path, flags, name):
    done = train("--model", nano, "--data", files / "text.txt", "--out", tmp_path / "out", *flags, ok=False)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Try ")]
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("couplet train: ") and name in lines[0], done.stderr
    assert done.stdout == "" and not (tmp_path / "out").exists()


def test_missing_options(files, nano, tmp_path):
    for flags, name in ((["--data", files / "text.txt", "--out", tmp_path / "out"], "--model"), (["--model", nano, "--out", tmp_path / "out"], "--data"),
                        (["--model", nano, "--data", files / "text.txt"], "--out"),
                        (["--init", "gpt2-nano", "--method", "lora", "--data", files / "text.txt", "--out", tmp_path / "out"], "--method")):
        done = train(*flags, ok=False)
        assert done.returncode == 2 and name in done.stderr and not (tmp_path / "out").exists()


BAD_DATA = [
    ("a.jsonl", b'{"text":"fine"}\n{"text":\n', "a.jsonl line 2: "), ("b.jsonl", b'{"text":"fine"}\n\n{"prompt":"x"}\n', "b.jsonl line 3: "),
    ("c.json", b'[{"text":"fine"},\n {"instruction":"x","input":"","output":""}]', "c.json line 2: "), ("d.txt", b"abc \xff\xfe def", "d.txt"), ("e.txt", b"", "e.txt"),
    ("f.jsonl", b"", "f.jsonl"), ("g.json", b"[]", "g.json"),
    ("j.jsonl", b'{"tokens":[1,2,999999]}\n', "j.jsonl line 1: "), ("k.jsonl", b'{"messages":[{"role":"user","content":"x"}]}\n', "k.jsonl line 1: "),
]


@pytest.mark.parametrize("name,data,message", BAD_DATA, ids=[n for n, _, _ in BAD_DATA])
def test_bad_data(nano, tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    done = train("--model", nano, "--data", tmp_path / name, "--out", tmp_path / "out", ok=False)
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_every_problem_is_told_once(nano, tmp_path):
    good = '{"prompt": "a", "completion": "b"}\n'
    (tmp_path / "rows.jsonl").write_text(good * 2 + '{"prompt": "a", "completion": ""}\n[]\n')
    done = train("--model", nano, "--data", tmp_path / "rows.jsonl", "--out", tmp_path / "out", ok=False)
    assert done.returncode == 1 and sorted(int(line.split("line ")[1].split(":")[0]) for line in done.stderr.splitlines()) == [2, 3, 4], done.stderr


def test_other_failures(files, nano, plain, tmp_path):
    text = ["--data", files / "text.txt"]
    for flags in (["--model", tmp_path / "none", *text], ["--model", nano, "--data", tmp_path / "none.txt"], ["--model", nano, *text, "--validation", tmp_path / "none.txt"],
                  ["--init", "gpt2-nano", "--tokenizer", tmp_path, *text]):
        done = train(*flags, "--out", tmp_path / "out", ok=False)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists(), done.stderr
    for flags in (["--log", tmp_path / "none" / "log"], ["--plot", tmp_path / "none" / "plot.svg"], ["--lora-init", files / "text.txt", "--method", "lora"]):
        done = train("--model", nano, *text, "--out", tmp_path / "out", *flags, ok=False)
        assert done.returncode == 1 and not (tmp_path / "out").exists(), done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("couplet train: ")]) == 1
    before = weights(plain)
    done = text_run(files, nano, plain, ok=False)
    assert done.returncode == 1 and "already holds a model" in done.stderr and weights(plain) == before
    error = json.loads(text_run(files, nano, plain, "--json", ok=False).stdout)
    assert error["event"] == "error" and "already holds a model" in error["message"]


def test_broken_weights(files, nano, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in nano.iterdir():
        data = bytearray(path.read_bytes())
        if path.suffix == ".safetensors":
            data[-4:] = struct.pack("<f", float("nan"))
        (broken / path.name).write_bytes(data)
    done = train("--model", broken, "--data", files / "text.txt", "--out", tmp_path / "out", ok=False)
    assert done.returncode == 1 and "transformer." in done.stderr and not (tmp_path / "out").exists()


def test_runaway_learning_rate(files, nano, tmp_path):
    done = text_run(files, nano, tmp_path / "out", "--lr", 1000, "--optimizer", "sgd", "--clip", 0, "--steps", 200, ok=False)
    assert done.returncode == 1 and not (tmp_path / "out" / "model.safetensors").exists()
    assert events(tmp_path / "out", "error")[-1]["code"] == "non_finite_loss"


# ---- going on ----

RESUME = ["--steps", 40, "--validation-split", 0.1, "--eval-every", 8, "--checkpoint-every", 3, "--dropout", 0.1, "--schedule", "linear", "--sample-prompt", "The"]


@pytest.fixture(scope="module")
def whole(files, nano, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    text_run(files, nano, out, *RESUME)
    return out


class Started:
    """A run that is told of through a pipe, and waits where nobody reads on: at most a page of lines, some twenty steps, ahead of what was read."""

    def __init__(self, files, nano, out, *more):
        command = [BINARY, "train", "--init", "gpt2-nano", "--tokenizer", nano, "--data", files / "text.txt", "--out", out, "--context", 32, "--batch-size", 4,
                   "--lr", 1e-3, *RESUME, "--json", *more]
        self.process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, 4096)

    def read_to(self, step):
        """Reads up to that step's line: none before it is left, and the run cannot have come to its end."""
        for line in self.process.stdout:
            said = json.loads(line)
            if said["event"] == "step" and said["step"] >= step:
                return
        raise AssertionError(f"it ended before step {step}")

    def end(self):
        """Reads the rest; its exit status."""
        self.process.stdout.read()
        return self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("threads,seed", [(1, 1), (2, 2), (1, 3), (2, 4)])
def test_killed_run_resumes_to_the_same_bits(files, nano, whole, tmp_path, threads, seed):
    out, chance, step = tmp_path / "out", random.Random(seed), 0
    for _ in range(2):
        run, step = Started(files, nano, out, "--threads", threads, "--resume"), step + chance.randrange(1, 10)
        run.read_to(step)
        time.sleep(chance.random() * 0.02)
        run.kill()
    text_run(files, nano, out, *RESUME, "--resume", "--threads", threads)
    assert weights(out) == weights(whole)
    assert [without_times(e) for e in log_of(out)] == [without_times(e) for e in log_of(whole)]
    for name in ("optimizer.safetensors", "weights.safetensors"):
        assert (out / "checkpoints" / "step-00000040" / name).read_bytes() == (whole / "checkpoints" / "step-00000040" / name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_checkpoints(files, nano, whole, tmp_path, number):
    out = tmp_path / "out"
    run = Started(files, nano, out)
    run.read_to(5)
    run.process.send_signal(number)
    assert run.end() == 1
    assert events(out, "done")[-1]["reason"] == "stopped" and not (out / "model.safetensors").exists() and list((out / "checkpoints").glob("step-*"))
    refused = text_run(files, nano, out, *RESUME, ok=False)
    assert refused.returncode == 1 and "--resume" in refused.stderr
    text_run(files, nano, out, *RESUME, "--resume")
    assert weights(out) == weights(whole) and losses(out) == losses(whole)


def test_supervised_is_told_twice(files, nano, tmp_path):
    """By its server, and by whoever stops the server with all that it started."""
    out = tmp_path / "out"
    run = Started(files, nano, out, "--supervised", "--steps", 100000)
    run.read_to(5)
    reader = threading.Thread(target=run.end)
    run.process.send_signal(signal.SIGTERM)
    reader.start()
    while run.process.poll() is None:
        run.process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    reader.join()
    assert run.process.returncode == 1
    assert events(out, "done")[-1]["reason"] == "stopped" and list((out / "checkpoints").glob("step-*"))


def test_resume_of_another_run_is_refused(files, nano, tmp_path):
    out = tmp_path / "out"
    text_run(files, nano, out, "--checkpoint-every", 2)
    before = weights(out)
    done = text_run(files, nano, out, "--checkpoint-every", 2, "--resume", "--lr", 5e-4, ok=False)
    assert done.returncode == 1 and "other data, options" in done.stderr and weights(out) == before


def test_damaged_checkpoint_falls_back(files, nano, whole, tmp_path):
    out = tmp_path / "out"
    run = Started(files, nano, out)
    run.read_to(14)
    run.kill()
    newest = sorted((out / "checkpoints").glob("step-*"))[-1]
    data = bytearray((newest / "weights.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "weights.safetensors").write_bytes(data)
    done = text_run(files, nano, out, *RESUME, "--resume")
    assert newest.name in done.stderr and weights(out) == weights(whole)


def test_two_runs_in_one_directory(files, nano, tmp_path):
    out = tmp_path / "out"
    run = Started(files, nano, out, "--steps", 2000)
    run.read_to(2)
    second = text_run(files, nano, out, *RESUME, "--steps", 2000, "--resume", ok=False)
    assert second.returncode == 1 and run.process.poll() is None
    run.kill()
