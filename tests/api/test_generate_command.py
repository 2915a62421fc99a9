# SPDX-License-Identifier: MIT
"""`couplet generate` and `couplet bench` from outside: their streams, messages and exit codes, on gpt2-nano."""
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("COUPLET", str(ROOT / "build" / "server" / "couplet"))


def couplet(*arguments, data=b""):
    return subprocess.run([BINARY, *map(str, arguments)], input=data, capture_output=True, timeout=300)


def generate(model, *arguments, data=b""):
    return couplet("generate", "--model", model, *arguments, data=data)


def answer(model, *arguments, data=b""):
    done = generate(model, "--json", *arguments, data=data)
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


def test_greedy_does_not_depend_on_threads_or_form(nano):
    whole = answer(nano, "--temperature", 0, "--max-tokens", 24, "--ignore-eos", "Hello")
    assert whole["completion_tokens"] == len(whole["ids"]) == 24 and whole["finish_reason"] == "length"
    assert whole["prompt_tokens"] == len(whole["prompt_ids"]) == 5
    for threads in (1, 2):
        plain = generate(nano, "--temperature=0", "--max-tokens=24", "--ignore-eos", f"--threads={threads}", "-", data=b"Hello")
        assert plain.stdout == whole["text"].encode() + b"\n"
    ids = " ".join(map(str, whole["prompt_ids"]))
    assert answer(nano, "--temperature", 0, "--max-tokens", 24, "--ignore-eos", "--ids", ids)["ids"] == whole["ids"]


def test_seed(nano):
    first, same, other = (answer(nano, "--seed", seed, "--max-tokens", 30, "--ignore-eos", "x")["ids"] for seed in (7, 7, 8))
    assert first == same != other
    again = answer(nano, "--max-tokens", 30, "--ignore-eos", "x")  # a random seed is told, so that it can be had again
    assert answer(nano, "--max-tokens", 30, "--ignore-eos", "--seed", again["seed"], "x")["ids"] == again["ids"]


@pytest.mark.parametrize("flags", [["--top-k", 1], ["--top-p", 0], ["--min-p", 1], ["--top-k", 40, "--top-p", 0.001]])
def test_filters_that_leave_the_likeliest(nano, flags):
    greedy = answer(nano, "--temperature", 0, "--max-tokens", 16, "--ignore-eos", "abc")
    assert answer(nano, *flags, "--max-tokens", 16, "--ignore-eos", "abc")["ids"] == greedy["ids"]


def test_repetition_penalty(nano):
    ids = answer(nano, "--temperature", 0, "--repetition-penalty", 100, "--max-tokens", 40, "--ignore-eos", "a")["ids"]
    assert len(set(ids)) == 40


def test_stop_string(nano):
    whole = answer(nano, "--temperature", 0, "--max-tokens", 40, "--ignore-eos", "abc")
    stop = whole["text"][5:8]
    cut = answer(nano, "--temperature", 0, "--max-tokens", 40, "--ignore-eos", "--stop", "never\x01", "--stop", stop, "abc")
    assert cut["text"] == whole["text"][:whole["text"].index(stop)]
    assert (cut["finish_reason"], cut["stop"]) == ("stop", stop)


def test_document_begin_and_context(nano):
    empty = answer(nano, "--temperature", 0, "--max-tokens", 1, "")
    assert empty["prompt_tokens"] == 1
    assert answer(nano, "--max-tokens", 0, "abc")["ids"] == []
    assert answer(nano, "--ignore-eos", "a" * 250)["completion_tokens"] == 6  # context 256: what is left of it
    done = generate(nano, "--max-tokens", 7, "a" * 250)
    assert (done.returncode, done.stdout) == (2, b"") and b"--max-tokens 7" in done.stderr
    done = generate(nano, "a" * 256)
    assert (done.returncode, done.stdout) == (1, b"") and b"256 tokens" in done.stderr


@pytest.mark.parametrize("arguments, words", [
    (["x"], b"--model is required"),
    (["--model"], b"--model needs a value"),
    (["--model", "m", "--nonsense", "x"], b"unknown option '--nonsense'"),
    (["--model", "m", "--max-tokens", "-1", "x"], b"--max-tokens takes a whole number"),
    (["--model", "m", "--max-tokens", "99999999999999999999", "x"], b"--max-tokens takes a whole number"),
    (["--model", "m", "--temperature", "nan", "x"], b"--temperature takes a number"),
    (["--model", "m", "--temperature", "2.5", "x"], b"--temperature must be between 0 and 2"),
    (["--model", "m", "--weights", "q3", "x"], b"--weights must be one of auto|f32|q8"),
    (["--model", "m", "--json=yes", "x"], b"--json takes no value"),
    (["--model", "m", "--stop", "", "x"], b"--stop takes a text"),
    (["--model", "m", "one", "two"], b"unexpected argument 'two'"),
])
def test_usage(arguments, words):
    done = couplet("generate", *arguments)
    assert (done.returncode, done.stdout) == (2, b"") and words in done.stderr and done.stderr.startswith(b"couplet generate: ")


def test_missing_model_and_bad_ids(nano, tmp_path):
    done = generate(tmp_path / "absent", "x")
    assert (done.returncode, done.stdout) == (1, b"") and done.stderr.count(b"\n") == 1
    for ids in ("1 x", "1,-1", "257", "99999999999999999999", ""):
        assert generate(nano, "--ids", ids).returncode == 1
    done = generate(nano, "--chat", "hello")  # nano has no template
    assert done.returncode == 1 and b"chat template" in done.stderr


def test_closed_stdout(nano):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([BINARY, "generate", "--model", str(nano), "--ignore-eos", "x"], stdout=full, stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 1 and b"cannot write" in done.stderr


@pytest.mark.parametrize("command", ["generate", "bench"])
def test_help(command):
    done = couplet(command, "--help")
    assert done.returncode == 0 and done.stdout.startswith(b"usage: couplet " + command.encode()) and done.stderr == b""
    assert couplet(command, "--model", "m", "-h").stdout == done.stdout


def test_model_without_tokenizer(nano, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((nano / name).read_bytes())
    done = generate(bare, "hello")
    assert done.returncode == 2 and b"--ids" in done.stderr
    whole = answer(nano, "--temperature", 0, "--max-tokens", 8, "--ignore-eos", "--ids", "1 2 3")
    plain = generate(bare, "--temperature", 0, "--max-tokens", 8, "--ignore-eos", "--ids", "[1, 2, 3]")
    assert [int(word) for word in plain.stdout.split()] == whole["ids"]
    assert answer(bare, "--temperature", 0, "--max-tokens", 8, "--ids", "1 2 3")["text"] is None


def test_bench(nano):
    done = couplet("bench", "--model", nano, "--prompt-tokens", 40, "--new-tokens", 8, "--batch", "1,3", "--repeat", 2)
    assert (done.returncode, done.stderr) == (0, b"")
    report = json.loads(done.stdout)
    assert report["model"] == "nano" and report["isa"] in ("c", "avx2", "avx512") and report["threads"] >= 1
    assert report["prefill"]["prompt_tokens"] == 40 and report["prefill"]["tokens_per_second"] > 0
    assert [row["batch"] for row in report["decode"]] == [1, 3]
    assert all(row["tokens_per_second"] > 0 for row in report["decode"])
    assert all(speed > 0 for speed in report["sgemm"]["gflops"].values()) and report["sgemm"]["openblas_core"]
    off = couplet("bench", "--model", nano, "--prompt-tokens", 9, "--new-tokens", 2, "--batch", 1, "--sgemm", "off")
    assert "sgemm" not in json.loads(off.stdout)
    for batch in ("", "0", "1,", "x", "1,257", ",".join("1" * 17)):
        done = couplet("bench", "--model", nano, "--batch", batch)
        assert (done.returncode, done.stdout) == (2, b"") and b"--batch" in done.stderr
