# SPDX-License-Identifier: MIT
"""`couplet inspect`: tensors as the file has them, tokenizers, attention as the server answers it."""
import json
import os
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("COUPLET", str(ROOT / "build" / "server" / "couplet"))
GOLDEN = ROOT / "tests" / "golden"


def inspect(*arguments, status=0):
    done = subprocess.run([BINARY, "inspect", *map(str, arguments)], capture_output=True, timeout=60, text=True)
    assert done.returncode == status and bool(done.stderr) == bool(status), done.stderr
    return done.stdout or done.stderr


@pytest.mark.parametrize("model", ["parity/gpt2", "parity/llama", "parity/llama_bf16", "gguf/gpt2_q8_0.gguf", "gguf/llama_q4_1.gguf"])
def test_weights(model):
    found = json.loads(inspect("weights", "--model", GOLDEN / model, "--stats", "--json"))
    assert found["parameters"] == sum(t["parameters"] for t in found["tensors"]) > 0
    assert all(t["parameters"] == np.prod(t["shape"]) and t["min"] <= t["mean"] <= t["max"] and t["std"] >= 0 for t in found["tensors"])
    lines = inspect("weights", "--model", GOLDEN / model).splitlines()
    assert len(lines) == len(found["tensors"]) + 2 and lines[-1] == f"{len(found['tensors'])} tensors, {found['parameters']} parameters, {found['format']}"


def test_stats_are_the_file_s():
    tensors = load_file(GOLDEN / "parity" / "gpt2" / "model.safetensors")
    for t in json.loads(inspect("weights", "--model", GOLDEN / "parity" / "gpt2", "--stats", "--json"))["tensors"]:
        w = tensors[t["name"]].astype(float)
        np.testing.assert_allclose([t["mean"], t["std"], t["min"], t["max"]], [w.mean(), w.std(), w.min(), w.max()], rtol=1e-6, atol=1e-8)
        assert t["shape"] == list(w.shape) and t["type"] == "f32"


def test_stats_of_what_is_no_number(tmp_path):
    """Valid JSON, which has no NaN and no infinity."""
    source, inf = GOLDEN / "parity" / "gpt2", float("inf")
    tensors = load_file(source / "model.safetensors")
    sick = [name for name in tensors if tensors[name].ndim == 2][:2]
    tensors[sick[0]][0, 0], tensors[sick[1]][0, 0] = float("nan"), inf
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    output = inspect("weights", "--model", tmp_path, "--stats", "--json")
    found = {t["name"]: t for t in json.loads(output, parse_constant=lambda name: pytest.fail(name))["tensors"]}
    assert [(found[name]["mean"], found[name]["std"]) for name in sick] == [(None, None)] * 2 and found[sick[1]]["max"] is None
    assert all(isinstance(t[k], float) for name, t in found.items() if name not in sick for k in ("mean", "std", "min", "max"))


def test_tokenizer():
    found = json.loads(inspect("tokenizer", "--model", GOLDEN / "tokenizer" / "gpt2", "--text", "It's a\n<|endoftext|>", "--json"))
    assert found["pre_tokenizer"] == "gpt2" and {"id": 0, "text": "<|endoftext|>"} in found["special"]
    assert "".join(t["text"] for t in found["tokens"]) == "It's a\n<|endoftext|>" and found["tokens"][-1]["id"] == 0
    text = inspect("tokenizer", "--model", GOLDEN / "tokenizer" / "llama3")
    assert "pre-tokenizer  llama3" in text and "byte-level BPE" in text


def test_attention(nano, server):
    answer = json.loads(inspect("attention", "--model", nano, "--prompt", "abc", "--json"))
    served = httpx.post(server.url + "/v1/inspect", json={"model": "nano", "prompt": "abc", "what": "weights"}).json()
    assert answer.pop("model") == str(nano) and served.pop("model") == "nano" and answer == served
    lines = inspect("attention", "--model", nano, "--prompt", "abc", "--layer", 1, "--head", 2).splitlines()
    weights = np.array(served["weights"]["data"]).reshape(served["weights"]["shape"])[1, 2]
    for n, (line, letter) in enumerate(zip(lines[2:], "abc")):
        words = line.split()
        assert words[:2] == [str(n), f'"{letter}"']
        np.testing.assert_allclose([float(w) for w in words[2:]], weights[n, :n + 1], atol=0.0051)


@pytest.mark.parametrize("arguments, says", [(["wat"], "weights, tokenizer or attention"), ([], "weights, tokenizer or attention"), (["attention"], "--prompt"),
                                             (["attention", "--prompt", "a", "--layer", "4"], "--layer must be below 4"), (["attention", "--prompt", "a", "--head", "9"], "--head")])
def test_refused(nano, arguments, says):
    assert says in inspect(*arguments, "--model", nano, status=2)


def test_what_is_no_model(tmp_path):
    assert "tokenizer" in inspect("attention", "--model", GOLDEN / "parity" / "gpt2", "--prompt", "a", status=1)
    inspect("weights", "--model", tmp_path, status=1)
    inspect("tokenizer", "--model", tmp_path, status=1)
