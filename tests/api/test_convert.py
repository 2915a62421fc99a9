# SPDX-License-Identifier: MIT
"""`couplet convert` and --adapter from outside: what is written is the same model, what fails leaves everything as it was."""
import json
import os
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, quants
from safetensors.numpy import load_file, save_file
from adapters import make_adapter
from serving import make_nano

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("COUPLET", str(ROOT / "build" / "server" / "couplet"))
FORMATS = ROOT / "tests" / "golden" / "formats"


def couplet(*arguments):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def convert(source, target, *arguments):
    done = couplet("convert", "--from", source, "--to", target, "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def generate(model, *arguments):
    done = couplet("generate", "--model", model, "--json", "--temperature", 0, "--ignore-eos", "--max-tokens", 16, *arguments, "abc")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_nano(tmp_path_factory.mktemp("model") / "llama", "--arch", "llama", "--kv-heads", "2")


@pytest.fixture(params=["nano", "llama"])
def model(request):
    return request.getfixturevalue(request.param)


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_round_trip_keeps_every_bit(model, tmp_path):
    there = convert(model, tmp_path / "one.gguf")
    back = convert(tmp_path / "one.gguf", tmp_path / "back")
    assert there["max_logit_difference"] == back["max_logit_difference"] == 0
    assert (there["from_format"], there["to_format"], back["to_format"]) == ("safetensors", "gguf", "safetensors")
    assert there["from_bytes"] == there["to_bytes"] == 4 * there["parameters"] and there["probe_tokens"] == 32
    before, after = weights(model), weights(tmp_path / "back")
    assert before.keys() == after.keys() and all(np.array_equal(before[n], after[n]) for n in before)
    texts = [generate(m)["text"] for m in (model, tmp_path / "one.gguf", tmp_path / "back")]
    assert texts[0] == texts[1] == texts[2]
    assert there["note"] is None and {p.name for p in tmp_path.iterdir()} == {"one.gguf", "back"}


def test_tokenizer_travels(model, tmp_path):
    convert(model, tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "dir")
    text = tmp_path / "text"
    text.write_text("caf\u00e9  1234\n\t<|endoftext|> \U0001f600")
    ids = [couplet("tokenize", "--model", m, text).stdout for m in (model, tmp_path / "m.gguf", tmp_path / "dir")]
    assert ids[0] and ids[0] == ids[1] == ids[2]


def test_precisions(model, tmp_path):
    exact = convert(model, tmp_path / "f32.gguf")
    seen = {}
    for kind in ("f16", "bf16", "q8_0"):
        report = convert(model, tmp_path / f"{kind}.gguf", "--type", kind)
        seen[kind] = report["max_logit_difference"]
        assert report["type"] == kind and report["to_bytes"] < exact["to_bytes"] * 0.6
    assert 0 < seen["f16"] < seen["bf16"] < 1 and 0 < seen["q8_0"] < 1
    f32 = {t.name: t for t in GGUFReader(tmp_path / "f32.gguf").tensors}
    quantised = 0
    for t in GGUFReader(tmp_path / "q8_0.gguf").tensors:  # gguf's own quantiser gives the same bytes
        if t.tensor_type == GGMLQuantizationType.Q8_0:
            quantised += 1
            assert np.array_equal(quants.quantize(f32[t.name].data, GGMLQuantizationType.Q8_0).ravel(), t.data.ravel())
        else:
            assert t.tensor_type == GGMLQuantizationType.F32
    assert quantised > 4
    whole = convert(model, tmp_path / "bf16", "--type", "bf16")  # a Hugging Face directory has one precision, norms and all
    assert 0 < whole["max_logit_difference"] < 1 and whole["to_bytes"] == 2 * whole["parameters"]
    plain = couplet("convert", "--from", model, "--to", tmp_path / "again.gguf", "--type", "q8_0")
    assert f"largest logit difference over 32 tokens: {seen['q8_0']:.6g}" in plain.stdout and plain.stderr == ""


@pytest.mark.parametrize("source", ["tf", "pth/hf.pth", "pth/seed.pth", "hf.gguf"])
def test_other_formats(source, tmp_path):
    """The golden folder has one GPT-2 in each."""
    report = convert(FORMATS / source, tmp_path / "dir")
    assert report["max_logit_difference"] == 0
    convert(FORMATS / "hf", tmp_path / "hf")
    assert (tmp_path / "dir" / "model.safetensors").read_bytes() == (tmp_path / "hf" / "model.safetensors").read_bytes()


def test_adapter(nano, tmp_path):
    shapes = {name: w.shape for name, w in weights(nano).items()}
    targets = {f"transformer.h.{n}.{part}": shapes[f"transformer.h.{n}.{part}.weight"] for n in (0, 1) for part in ("attn.c_attn", "mlp.c_proj")}
    factors = make_adapter(tmp_path / "adapter", targets, base=str(nano))
    convert(nano, tmp_path / "merged", "--adapter", tmp_path / "adapter")
    before, after = weights(nano), weights(tmp_path / "merged")
    for name in before:
        module = name.removesuffix(".weight")
        want = before[name].astype(np.float64)
        if module in targets:
            a, b = (factors[f"base_model.model.{module}.lora_{x}.weight"].astype(np.float64) for x in "AB")
            want = want + 2 * (b @ a).T
            assert np.abs(want - before[name]).max() > 0.1
        assert np.abs(want - after[name]).max() < 2e-6
    answers = [generate(nano, "--adapter", tmp_path / "adapter"), generate(tmp_path / "adapter"), generate(tmp_path / "merged")]
    assert answers[0]["text"] == answers[1]["text"] == answers[2]["text"] != generate(nano)["text"]
    prints = {a["fingerprint"] for a in answers}  # equal weights are one identity, wherever they came from
    assert len(prints) == 1 and generate(nano)["fingerprint"] not in prints


def test_adapter_is_served(nano, tmp_path, start_server):
    shapes = {name: w.shape for name, w in weights(nano).items()}
    make_adapter(tmp_path / "tuned", {"transformer.h.0.attn.c_attn": shapes["transformer.h.0.attn.c_attn.weight"]}, base=str(nano))
    both = start_server("--model", f"tuned={tmp_path / 'tuned'}")
    one = start_server("--adapter", str(tmp_path / "tuned"))
    body = {"prompt": "abc", "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    ask = lambda server, model: httpx.post(server.url + "/v1/completions", json={**body, "model": model}, timeout=60).json()["choices"][0]["text"]
    plain, tuned = ask(both, "nano"), ask(both, "tuned")
    assert plain == generate(nano)["text"] and tuned == generate(tmp_path / "tuned")["text"] == ask(one, "nano") != plain


def test_adapter_mistakes(nano, llama, tmp_path):
    shape = weights(nano)["transformer.h.0.attn.c_attn.weight"].shape
    make_adapter(tmp_path / "hub", {"transformer.h.0.attn.c_attn": shape}, base="openai-community/gpt2")
    make_adapter(tmp_path / "dora", {"transformer.h.0.attn.c_attn": shape}, use_dora=True)
    make_adapter(tmp_path / "shape", {"transformer.h.0.attn.c_attn": shape[::-1]})
    for arguments, words in [(["--model", tmp_path / "hub"], "give --model BASE --adapter DIR"),
                             (["--model", nano, "--adapter", tmp_path / "dora"], "use_dora"),
                             (["--model", nano, "--adapter", tmp_path / "shape"], "c_attn"),
                             (["--model", llama, "--adapter", tmp_path / "hub"], "has no such linear layer"),
                             (["--model", nano, "--adapter", nano], "adapter_config.json")]:
        done = couplet("generate", *arguments, "abc")
        assert done.returncode == 1 and words in done.stderr and done.stdout == ""
    done = couplet("serve", "--model", nano, "--model", f"b={nano}", "--adapter", tmp_path / "hub")
    assert done.returncode == 2 and "exactly one --model" in done.stderr


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("target, arguments, words", [
    ("x.pth", [], ".pth files are not written"),
    ("x.safetensors", [], ".safetensors files are not written"),
    ("", [], "--to is empty"),
    ("dir", ["--type", "q8_0"], "ends in .gguf"),
    ("x.gguf", ["--type", "q4_0"], "--type"),
    ("x.gguf", ["--nonsense"], "--nonsense"),
])
def test_bad_options(nano, tmp_path, target, arguments, words):
    done = couplet("convert", "--from", nano, "--to", tmp_path / target if target else "", *arguments)
    assert done.returncode == 2 and words in done.stderr and done.stdout == "" and not list(tmp_path.iterdir())
    assert couplet("convert", "--from", nano).returncode == 2


def test_bad_files_leave_nothing(nano, tmp_path):
    (tmp_path / "torn.gguf").write_bytes(b"GGUF\3\0\0\0")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "precious").write_text("x")
    (tmp_path / "file").write_text("x")
    before = snapshot(tmp_path)
    for source, target, arguments in [(tmp_path / "torn.gguf", "x", []), (tmp_path / "nothing", "x", []),
                                      (FORMATS / "evil.pth", "x", []), (nano, "torn.gguf", []), (nano, "kept", []),
                                      (nano, "kept", ["--force"]), (nano, "file", ["--force"]), (nano, "file/x", []),
                                      (nano, "x", ["--adapter", tmp_path / "kept"])]:
        done = couplet("convert", "--from", source, "--to", tmp_path / target, *arguments)
        assert done.returncode == 1 and done.stderr.startswith("couplet convert: ") and done.stdout == "", (source, target)
    assert snapshot(tmp_path) == before


def test_weights_that_do_not_fit_the_type(nano, tmp_path):
    model = make_nano(tmp_path / "model")
    huge = {n: np.where(w == w.max(), np.float32(1e6), w) if n.endswith("0.mlp.c_fc.weight") else w for n, w in weights(nano).items()}
    save_file(huge, model / "model.safetensors")
    assert couplet("convert", "--from", model, "--to", tmp_path / "x", "--type", "bf16").returncode == 0
    done = couplet("convert", "--from", model, "--to", tmp_path / "y", "--type", "f16")
    assert done.returncode == 1 and "f16 cannot hold it" in done.stderr and {p.name for p in tmp_path.iterdir()} == {"model", "x"}


def test_force_replaces_the_whole_model(nano, llama, tmp_path):
    convert(nano, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text("of the old model")
    convert(llama, tmp_path / "m", "--force", "--type", "f16")
    assert not (tmp_path / "m" / "chat_template.jinja").exists()
    assert convert(tmp_path / "m", str(tmp_path / "m") + "/", "--force")["parameters"] == sum(w.size for w in weights(llama).values())  # onto itself
    convert(nano, tmp_path / "m.gguf")
    convert(llama, tmp_path / "m.gguf", "--force", "--type", "q8_0")
    assert {p.name for p in tmp_path.iterdir()} == {"m", "m.gguf"}
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o755 and (tmp_path / "m.gguf").stat().st_mode & 0o777 == 0o644


def test_missing_biases_are_told(tmp_path):
    """A GPT-2 as the seed trains it, without query, key and value biases: llama.cpp has them, so it gets zeros."""
    model = make_nano(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "qkv_bias": False}))
    save_file({n: w for n, w in weights(model).items() if not n.endswith("attn.c_attn.bias")}, model / "model.safetensors")
    report = convert(model, tmp_path / "m.gguf")
    assert "zeros were written" in report["note"] and report["max_logit_difference"] == 0
    biases = [t for t in GGUFReader(tmp_path / "m.gguf").tensors if t.name.endswith("attn_qkv.bias")]
    assert biases and not any(t.data.any() for t in biases)
    assert "zeros" in convert(model, tmp_path / "dir")["note"]
    assert json.loads((tmp_path / "dir" / "config.json").read_text())["qkv_bias"] is False
