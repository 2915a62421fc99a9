# SPDX-License-Identifier: MIT
"""POST /v1/inspect: equal to torch and transformers (tests/golden/inspect) and to what the same model answers; shapes, switches, refusals, its lane."""
import base64
import contextlib
import itertools
import json
import math
import select
import signal
import socket
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from adapters import make_adapter
from safetensors.numpy import load_file, save_file
from serving import Server, make_nano
from wire import connect, metrics, read_answer, wait_until

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "inspect" / "inspect.json").read_text())
PARITY = Path(__file__).resolve().parents[1] / "golden" / "parity"
EVERYTHING = ["tokens", "embeddings", "qkv", "scores", "weights", "context", "block", "lens", "neighbours"]


@pytest.fixture(scope="module")
def models(tmp_path_factory, nano):
    """nano (GPT-2), groups (Llama: four heads read two keys and values), tuned (an adapter of nano), bare (no tokenizer), and transformers' two."""
    folder = tmp_path_factory.mktemp("looks")
    make_nano(folder / "groups", "--arch", "llama", "--layers", "3", "--heads", "4", "--kv-heads", "2", "--width", "64", "--seed", "4")
    make_adapter(folder / "tuned", {f"transformer.h.{n}.attn.c_attn": (128, 384) for n in range(4)}, base=str(nano))
    (folder / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / "bare" / name).write_bytes((nano / name).read_bytes())
    return [part for path in (nano, folder / "groups", folder / "tuned", folder / "bare", PARITY / "gpt2", PARITY / "llama") for part in ("--model", str(path))]


def ended_well(server):
    assert server.stop() == 0, server.output()[-4000:]
    assert "Sanitizer" not in server.output() and "runtime error" not in server.output(), server.output()[-20000:]


@pytest.fixture(scope="module")
def http(models):
    with Server(*models) as running, httpx.Client(base_url=running.url, timeout=60) as client:
        yield client
        ended_well(running)


def look(http, **request):
    reply = http.post("/v1/inspect", json=request)
    assert reply.status_code == 200, reply.text
    return reply.json()


def array(a):
    if "encoding" in a:
        data = np.frombuffer(base64.b64decode(a["data"]), {"float32": "<f4", "uint8": "u1"}[a["encoding"]])
    else:
        data = np.array([-np.inf if v is None else v for v in a["data"]], np.float32)
    return data.reshape(a["shape"])


def wanted(values):
    return np.array([[-np.inf if v is None else v for v in row] for row in np.array(values, object).reshape(-1, np.shape(values)[-1])],
                    np.float32).reshape(np.shape(values))


def at(answer, path):
    for name in path.split("."):
        answer = answer[name]
    return answer


# ---- equal to torch and transformers ----

@pytest.mark.parametrize("example", GOLDEN["examples"], ids=lambda e: e["name"])
def test_worked_examples(http, example):
    answer = look(http, **example["request"])
    assert answer["object"] == "inspection" and answer["model"] is None and answer["architecture"] is None and "tokens" not in answer
    for name, values in example["expected"].items():
        np.testing.assert_allclose(array(at(answer, name)), wanted(values), rtol=0, atol=1e-6, err_msg=name)


def test_the_same_weights_are_dropped_as_in_torch(http):
    request = next(e["request"] for e in GOLDEN["examples"] if e["name"] == "dropout")
    request = {**request, "mask": "none"}
    dropped, kept = (array(look(http, **{**request, "dropout": d})["weights"]) for d in (request["dropout"], None))
    np.testing.assert_allclose(dropped, kept * wanted(GOLDEN["dropout_of_ones"]), atol=1e-7)


@pytest.mark.parametrize("case", GOLDEN["models"], ids=lambda c: c["model"])
@pytest.mark.parametrize("encoding", ["numbers", "float32"])
def test_transformers_attentions_and_hidden_states(http, case, encoding):
    answer = look(http, model=case["model"], prompt=case["ids"], what=["weights", "block", "embeddings"], encoding=encoding)
    assert answer["tokens"]["texts"] == [f"<{i}>" for i in case["ids"]]
    for name, values in (("weights", case["weights"]), ("embeddings.sum", case["embedding"]), ("block.final_norm", case["final_norm"])):
        np.testing.assert_allclose(array(at(answer, name)), wanted(values), rtol=0, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(array(answer["block"])[:-1], wanted(case["block"]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", ["nano", "groups", "tuned"])
def test_the_lens_ends_with_the_next_token(http, model):
    """What the last row of the lens says is what /v1/completions says of the same prompt."""
    for prompt in ("a", "The sea", [5, 6, 7] * 20):
        lens = look(http, model=model, prompt=prompt, what="lens", top_k=5)["lens"]
        choice = http.post("/v1/completions", json={"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 5,
                                                    "return_token_ids": True, "ignore_eos": True}).json()["choices"][0]
        ids, probabilities = (np.array(lens[name]).reshape(lens["shape"])[-1, -1] for name in ("ids", "probabilities"))
        assert ids[0] == choice["token_ids"][0]
        best = sorted(choice["logprobs"]["top_logprobs"][0].values(), reverse=True)[:5]
        np.testing.assert_allclose(np.log(probabilities), best, atol=1e-5)
        assert (lens["shape"][1], lens["first_token"]) == (min(len(choice["logprobs"]["tokens"]) and 16, n_tokens(http, model, prompt)),
                                                           max(0, n_tokens(http, model, prompt) - 16))


def n_tokens(http, model, prompt):
    return len(prompt) if isinstance(prompt, list) else http.post("/tokenize", json={"model": model, "prompt": prompt}).json()["count"]


def test_an_adapter_looks_different_from_its_base(http):
    base, tuned = (array(look(http, model=m, prompt="abc", what="weights")["weights"]) for m in ("nano", "tuned"))
    assert np.abs(base - tuned).max() > 1e-4 and np.allclose(tuned.sum(-1), 1, atol=1e-5)


# ---- shapes ----

SIZES = {"nano": dict(L=4, H=4, G=4, S=32, C=128), "groups": dict(L=3, H=4, G=2, S=16, C=64)}


@pytest.mark.parametrize("model", list(SIZES))
@pytest.mark.parametrize("layer, head", list(itertools.product([None, 0, 2], [None, 0, 3])))
def test_shapes(http, model, layer, head):
    L, H, G, S, C = SIZES[model].values()
    T, K = 5, 3
    answer = look(http, model=model, prompt=[1, 2, 3, 2, 4], what=EVERYTHING, layer=layer, head=head, top_k=K, lens_tokens=2)
    layers = [] if layer is not None else [L]
    shape = {"qkv.q": layers + [H] * (head is None) + [T, S], "qkv.k": layers + [G] * (head is None) + [T, S], "qkv.v": layers + [G] * (head is None) + [T, S],
             "scores": layers + [H] * (head is None) + [T, T], "weights": layers + [H] * (head is None) + [T, T], "context": layers + [H] * (head is None) + [T, S],
             "block": layers + [T, C], "lens": [L + 1] * (layer is None) + [2, K], "neighbours": [T, K], "embeddings.token": [T, C], "embeddings.sum": [T, C]}
    for name, want in shape.items():
        assert at(answer, name)["shape"] == want, name
        if "data" in at(answer, name):
            assert len(at(answer, name)["data"]) == math.prod(want), name
    for name in ("lens", "neighbours"):
        assert {len(answer[name][k]) for k in ("ids", "texts")} == {math.prod(answer[name]["shape"])}
    assert (answer["embeddings"]["position"] is None) == (model == "groups")
    parts = {"input", "norm1", "attention", "norm2", "mlp"}
    assert parts & set(answer["block"]) == (set() if layer is None else parts) and ("final_norm" in answer["block"]) == (layer in (None, L - 1))
    assert (answer["layer"], answer["head"], answer["lens"]["first_token"]) == (layer, head, 3)
    whole = look(http, model=model, prompt=[1, 2, 3, 2, 4], what=EVERYTHING, top_k=K, lens_tokens=2)
    for name in ("scores", "weights", "context", "qkv.q", "qkv.k"):
        of = array(at(whole, name))[layer if layer is not None else slice(None)]
        groups = H // G if name == "qkv.k" else 1
        if head is not None:
            of = of[..., head // groups, :, :]
        assert np.array_equal(array(at(answer, name)), of), name
    if layer is not None:
        part = {name: array(answer["block"][name]) for name in parts}
        np.testing.assert_allclose(part["input"] + part["attention"] + part["mlp"], array(answer["block"]), atol=1e-5)
        before = array(whole["embeddings"]["sum"]) if layer == 0 else array(whole["block"])[layer - 1]
        assert np.array_equal(part["input"], before)


@pytest.mark.parametrize("model", list(SIZES))
@pytest.mark.parametrize("n", [1, 256])
def test_one_token_and_a_whole_context(http, model, n):
    answer = look(http, model=model, prompt=[k % 256 for k in range(n)], what=EVERYTHING, layer=1, lens_tokens=0, encoding="float32")
    weights = array(answer["weights"])
    assert weights.shape == (4, n, n) and np.allclose(weights.sum(-1), 1, atol=1e-5) and (np.triu(weights, 1) == 0).all()
    assert (answer["lens"]["shape"], answer["neighbours"]["shape"], len(answer["tokens"]["texts"])) == ([n, 5], [n, 5], n)
    assert np.isfinite(array(answer["block"])).all()


def test_a_model_whose_numbers_are_none(start_server, tmp_path):
    """A NaN on the way is null, byte 0; a lens, which would have nothing to read, is refused. The JSON stays valid."""
    folder = make_nano(tmp_path / "sick")
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.2.attn.c_attn.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with httpx.Client(base_url=start_server(model=folder).url, timeout=60) as http:
        request = {"model": "sick", "prompt": "abc", "what": ["weights", "block", "neighbours"]}
        text = http.post("/v1/inspect", json=request).text
        weights = json.loads(text, parse_constant=lambda name: pytest.fail(name))["weights"]
        assert None not in weights["data"][:2 * 4 * 9] and None in weights["data"][2 * 4 * 9:]
        packed = array(look(http, **request, encoding="uint8")["weights"])
        assert (packed.ravel()[[v is None for v in weights["data"]]] == 0).all()
        reply = http.post("/v1/inspect", json={**request, "what": "lens"})
        assert reply.status_code == 400 and "finite" in reply.json()["error"]["message"]


def test_what_is_what_was_asked_for(http):
    head = {"object", "model", "architecture", "layer", "head", "mask", "positions", "dropout", "ablate", "scale", "tokens"}
    assert set(look(http, model="nano", prompt="ab")) == head
    for name in EVERYTHING[1:]:
        assert set(look(http, model="nano", prompt="ab", what=name)) == head | {name} == set(look(http, model="nano", prompt="ab", what=["tokens", name, name]))
    answer = look(http, model="nano", prompt="a\u00e9", what=[])
    assert answer["tokens"] == {"ids": [64, 127, 102], "texts": ["a", "\ufffd", "\ufffd"]} and answer["scale"] == np.float32(1 / math.sqrt(32))
    assert answer["architecture"] == {"n_layer": 4, "n_head": 4, "n_kv_head": 4, "n_embd": 128, "head_size": 32, "n_ctx": 256, "n_vocab": 257,
                                      "positions": "learned", "rope_theta": None, "norm": "layernorm", "mlp": "gelu"}
    of = look(http, model="groups", prompt="a")["architecture"]
    assert (of["positions"], of["rope_theta"], of["norm"], of["mlp"], of["n_kv_head"]) == ("rotary", 10000, "rmsnorm", "swiglu", 2)
    assert http.post("/v1/inspect", json={"model": "nano", "prompt": "a", "wat": ["weights"]}).headers["x-couplet-ignored"] == "wat"


def test_encodings(http):
    answers = {e: look(http, model="nano", prompt="abcabc", what=["weights", "scores"], encoding=e) for e in ("numbers", "float32", "uint8")}
    numbers = array(answers["numbers"]["weights"])
    assert np.array_equal(numbers, array(answers["float32"]["weights"]))
    assert np.array_equal(array(answers["uint8"]["weights"]), np.floor(numbers * np.float32(255) + np.float32(0.5)).astype("u1"))
    assert answers["uint8"]["scores"] == answers["float32"]["scores"] and answers["uint8"]["scores"]["encoding"] == "float32"
    scores = array(answers["float32"]["scores"])
    assert np.array_equal(scores, array(answers["numbers"]["scores"])) and np.isinf(scores[..., 0, 1:]).all()
    assert None in answers["numbers"]["scores"]["data"] and all(len(str(v)) < 16 for v in answers["numbers"]["weights"]["data"])


def test_the_same_request_gives_the_same_numbers(http):
    request = dict(model="groups", prompt="again and again", what=EVERYTHING, dropout={"p": 0.3, "seed": 9})
    assert look(http, **request) == look(http, **request) != look(http, **{**request, "dropout": {"p": 0.3, "seed": 8}})


# ---- switches ----

@pytest.mark.parametrize("model", list(SIZES))
def test_without_positions_equal_words_are_equal(http, model):
    """"Man chased the dog", "Dog chased the man": the walk's demonstration."""
    contexts = {p: array(look(http, model=model, prompt=[10, 11, 12, 13, 14, 13, 11, 12, 10], what="context", mask="none", positions=p)["context"]) for p in ("on", "off")}
    off, on = contexts["off"], contexts["on"]
    np.testing.assert_allclose(off[..., 1, :], off[..., 6, :], atol=1e-6)
    assert np.abs(on[..., 1, :] - on[..., 6, :]).max() > 1e-4
    answer = look(http, model=model, prompt=[1, 2], what="embeddings", positions="off")
    assert answer["positions"] == "off" and answer["embeddings"]["position"] is None and answer["embeddings"]["sum"] == answer["embeddings"]["token"]


def test_mask_dropout_and_ablation(http):
    plain = look(http, model="nano", prompt="abcdef", what=["weights", "block", "context"])
    weights = array(plain["weights"])
    assert (np.triu(weights, 1) == 0).all() and np.allclose(weights.sum(-1), 1, atol=1e-5)
    assert (array(look(http, model="nano", prompt="abcdef", what="weights", mask="none")["weights"]) > 0).all()
    dropped = array(look(http, model="nano", prompt="abcdef", what="weights", layer=0, dropout={"p": 0.5, "seed": 1})["weights"])
    share = (dropped[weights[0] > 0] == 0).mean()
    assert 0.2 < share < 0.8 and np.allclose(dropped[dropped > 0], (weights[0] * 2)[dropped > 0], atol=1e-6)
    answer = look(http, model="nano", prompt="abcdef", what=["weights", "block", "context"], ablate=[[1, 2], [3, 0]])
    assert answer["ablate"] == [[1, 2], [3, 0]]
    other = array(answer["weights"])
    assert (other[1, 2] == 0).all() and (other[3, 0] == 0).all() and (array(answer["context"])[1, 2] == 0).all()
    assert np.array_equal(other[0], weights[0]) and np.array_equal(other[1, [0, 1, 3]], weights[1, [0, 1, 3]]) and not np.array_equal(other[2], weights[2])
    blocks = [array(a["block"]) for a in (plain, answer)]
    assert np.array_equal(blocks[0][0], blocks[1][0]) and np.abs(blocks[0][1] - blocks[1][1]).max() > 1e-4


def test_neighbours_are_cosines_of_the_served_table(http, nano):
    data = (nano / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8:8 + size])["transformer.wte.weight"]["data_offsets"]
    table = np.frombuffer(data[8 + size + start:8 + size + end], "<f4").reshape(257, 128).astype(float)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    found = look(http, model="nano", prompt=[65, 3], what="neighbours", top_k=4)["neighbours"]
    for row, token in enumerate((65, 3)):
        cosines = table @ table[token]
        best = [i for i in np.argsort(-cosines) if i != token][:4]
        assert found["ids"][4 * row:4 * row + 4] == best
        np.testing.assert_allclose(found["similarities"][4 * row:4 * row + 4], cosines[best], atol=1e-5)


def test_a_model_without_tokenizer(http):
    answer = look(http, model="bare", prompt=[5, 6], what=["lens", "weights"], top_k=1)
    assert answer["tokens"] == {"ids": [5, 6], "texts": ["<5>", "<6>"]}
    assert answer["lens"]["texts"] == [f"<{i}>" for i in answer["lens"]["ids"]]
    assert answer["weights"] == look(http, model="nano", prompt=[5, 6], what="weights")["weights"]
    error = http.post("/v1/inspect", json={"model": "bare", "prompt": "ab"}).json()["error"]
    assert (error["param"], error["code"]) == ("prompt", "unsupported_parameter")


# ---- refusals ----

W = [[1.0, 0.5], [0.5, 1.0]]
RANGE, TYPE, MISSING, NOT_HERE = "value_out_of_range", "invalid_type", "missing_required_parameter", "unsupported_parameter"
REFUSED = [
    ({"prompt": None}, "prompt", MISSING), ({"matrices": {"inputs": W}}, "prompt", NOT_HERE), ({"model": None}, "model", MISSING), ({"model": "none"}, "model", "model_not_found"),
    ({"prompt": 1}, "prompt", TYPE), ({"prompt": ["a"]}, "prompt", TYPE), ({"prompt": []}, "prompt", RANGE), ({"prompt": [257]}, "prompt", "invalid_token_id"),
    ({"prompt": [-1]}, "prompt", "invalid_token_id"), ({"prompt": "x" * 257}, "prompt", "context_length_exceeded"), ({"prompt": [1] * 257}, "prompt", "context_length_exceeded"),
    ({"what": ["weights", "wat"]}, "what", RANGE), ({"what": 1}, "what", TYPE), ({"what": [1]}, "what", TYPE), ({"what": ["lens"] * 17}, "what", RANGE),
    ({"layer": 4}, "layer", RANGE), ({"layer": -1}, "layer", RANGE), ({"layer": "0"}, "layer", TYPE), ({"head": 4, "what": "weights"}, "head", RANGE),
    ({"head": 1.5}, "head", TYPE), ({"head": 0, "what": ["lens", "block"]}, "head", NOT_HERE), ({"head": 0}, "head", NOT_HERE),
    ({"mask": "off"}, "mask", RANGE), ({"positions": True}, "positions", TYPE), ({"encoding": "base64"}, "encoding", RANGE),
    ({"dropout": 0.5}, "dropout", TYPE), ({"dropout": {"p": 1}}, "dropout.p", RANGE), ({"dropout": {"p": -0.1}}, "dropout.p", RANGE), ({"dropout": {"seed": 1}}, "dropout.p", MISSING),
    ({"dropout": {"p": 0.5, "seed": -1}}, "dropout.seed", RANGE), ({"dropout": {"p": "x"}}, "dropout.p", TYPE),
    ({"ablate": [[0, 0], [4, 0]]}, "ablate[1]", RANGE), ({"ablate": [[0, 4]]}, "ablate[0]", RANGE), ({"ablate": [[0]]}, "ablate[0]", TYPE), ({"ablate": [[0, 0, 0]]}, "ablate[0]", TYPE),
    ({"ablate": [0, 0]}, "ablate[0]", TYPE), ({"ablate": [[0, 0.5]]}, "ablate[0]", TYPE), ({"ablate": {}}, "ablate", TYPE), ({"ablate": [[-1, 0]]}, "ablate[0]", RANGE),
    ({"ablate": [[0, 0]] * 1025}, "ablate", RANGE), ({"top_k": 0}, "top_k", RANGE), ({"top_k": 21}, "top_k", RANGE), ({"lens_tokens": -1}, "lens_tokens", RANGE),
]
NUMBERS = "matrices."
MATRICES_REFUSED = [
    ({"inputs": None}, "inputs", MISSING), ({"inputs": []}, "inputs", RANGE), ({"inputs": 1}, "inputs", TYPE), ({"inputs": [1, 2]}, "inputs", TYPE), ({"inputs": [[]]}, "inputs", RANGE),
    ({"inputs": [[1, 2], [3]]}, "inputs[1]", RANGE), ({"inputs": [[1, 2], 3]}, "inputs[1]", TYPE), ({"inputs": [[1, 2], [3, "x"]]}, "inputs[1]", TYPE), ({"inputs": [[1, 2], [3, 1e39]]}, "inputs[1]", RANGE),
    ({"inputs": [[1, 2], [None, 1]]}, "inputs[1]", TYPE), ({"inputs": [[1]] * 513}, "inputs", RANGE), ({"inputs": [[1] * 1025]}, "inputs", RANGE), ({"inputs": [[[1]]]}, "inputs[0]", TYPE),
    ({"W_q": W}, "W_k", MISSING), ({"W_q": W, "W_k": W}, "W_v", MISSING), ({"W_k": W, "W_v": W}, "W_q", MISSING),
    ({"W_q": W, "W_k": W, "W_v": [[1, 2]]}, "W_v", RANGE), ({"W_q": W, "W_k": [[1], [2]], "W_v": W}, "W_k", RANGE), ({"W_q": W, "W_k": W, "W_v": [W]}, "W_v", RANGE),
    ({"W_q": [W, W, [[1, 2], [3]]], "W_k": [W] * 3, "W_v": [W] * 3}, "W_q[2][1]", RANGE), ({"W_q": [W, [[1], [2]]], "W_k": [W] * 2, "W_v": [W] * 2}, "W_q[1]", RANGE),
    ({"W_q": [W, [[1, 2], [3, None]]], "W_k": [W] * 2, "W_v": [W] * 2}, "W_q[1][1]", TYPE), ({"W_q": [W] * 65, "W_k": [W] * 65, "W_v": [W] * 65}, "W_q", RANGE),
    ({"W_q": [[[1] * 20] * 2] * 60, "W_k": [[[1] * 20] * 2] * 60, "W_v": [[[1] * 20] * 2] * 60}, "W_q", RANGE),
    ({"n_head": 2}, "n_head", NOT_HERE), ({"W_q": W, "W_k": W, "W_v": W, "n_head": 3}, "n_head", RANGE), ({"W_q": [W], "W_k": [W], "W_v": [W], "n_head": 2}, "n_head", RANGE),
    ({"n_head": 0}, "n_head", RANGE), ({"n_head": 65}, "n_head", RANGE), ({"W_o": [[1], [2], [3]]}, "W_o", RANGE), ({"W_o": [W]}, "W_o[0]", TYPE), ({"b_o": [1]}, "W_o", MISSING),
    ({"W_o": W, "b_o": [1]}, "b_o", RANGE), ({"W_o": W, "b_o": [1, None]}, "b_o", TYPE), ({"W_o": W, "b_o": 1}, "b_o", TYPE),
]


@pytest.mark.parametrize("change, param, code", REFUSED, ids=lambda v: json.dumps(v)[:50] if isinstance(v, dict) else str(v))
def test_refused(http, change, param, code):
    reply = http.post("/v1/inspect", json={"model": "nano", "prompt": "abc", **change})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (404 if code == "model_not_found" else 400, param, code), reply.text
    assert error["message"]


@pytest.mark.parametrize("change, param, code", MATRICES_REFUSED, ids=lambda v: json.dumps(v)[:50] if isinstance(v, dict) else str(v))
def test_matrices_refused(http, change, param, code):
    reply = http.post("/v1/inspect", json={"matrices": {"inputs": W, **change}})
    error = reply.json()["error"]
    if change == {"inputs": None}:
        assert (reply.status_code, error["param"], error["code"]) == (400, "matrices.inputs", MISSING)
        return
    assert (reply.status_code, error["param"], error["code"]) == (400, NUMBERS + param, code), reply.text


@pytest.mark.parametrize("beside, param", [({"what": ["lens"]}, "what"), ({"what": "tokens"}, "what"), ({"what": ["weights", "block"]}, "what"), ({"layer": 0}, "layer"),
                                           ({"head": 0, "what": "weights"}, "head"), ({"ablate": [[0, 0]]}, "ablate"), ({"positions": "off"}, "positions")])
def test_what_needs_a_model(http, beside, param):
    reply = http.post("/v1/inspect", json={"matrices": {"inputs": W}, **beside})
    assert (reply.status_code, reply.json()["error"]["param"], reply.json()["error"]["code"]) == (400, param, NOT_HERE), reply.text


def test_too_large(http, start_server, tmp_path):
    heads = [[[1]]] * 64
    reply = http.post("/v1/inspect", json={"matrices": {"inputs": [[1]] * 512, "W_q": heads, "W_k": heads, "W_v": heads}})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "inspection_too_large")
    wide = start_server("--max-inspect-tokens", "1100", model=make_nano(tmp_path / "wide", "--ctx", "1200"))
    with httpx.Client(base_url=wide.url, timeout=300) as wide:
        request = {"model": "wide", "prompt": [1] * 1100, "what": "weights"}
        reply = wide.post("/v1/inspect", json=request)
        assert (reply.status_code, reply.json()["error"]["code"], reply.json()["error"]["param"]) == (400, "inspection_too_large", "what")
        assert "layer" in reply.json()["error"]["message"]
        reply = look(wide, **request, layer=3, head=1, encoding="uint8")
        assert reply["weights"]["shape"] == [1100, 1100]
        assert wide.post("/v1/inspect", json={**request, "prompt": [1] * 1101}).json()["error"]["code"] == "context_length_exceeded"


def test_keys(start_server):
    server = start_server()
    key = server.add_key("eve", "--scope", "infer")
    request = {"model": "nano", "prompt": "abc"}
    assert httpx.post(server.url + "/v1/inspect", json=request).status_code == 401
    assert httpx.post(server.url + "/v1/inspect", json=request, headers={"Authorization": f"Bearer {key}"}).json()["tokens"]["texts"] == ["a", "b", "c"]


# ---- the lane ----

@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A server whose looks can take long: (server, the request that takes long)."""
    model = make_nano(tmp_path_factory.mktemp("slow") / "slow", "--ctx", "1000", "--layers", "32")
    with Server("--model", str(model), "--max-inspect-tokens", "1000", "--drain-seconds", "0") as running:
        yield running, {"model": "slow", "prompt": [n % 250 for n in range(1000)], "what": "lens", "mask": "none", "lens_tokens": 0}
        ended_well(running)


def begin(server, request):
    body = json.dumps(request).encode()
    s = connect(server, timeout=600)
    s.sendall(b"POST /v1/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return s


def small(server):
    return httpx.post(server.url + "/v1/inspect", json={"model": "slow", "prompt": "a", "what": "weights"}, timeout=600)


@contextlib.contextmanager
def crowd(server, request, n):
    """n looks asked for at once, and given up at the end: then there is room again."""
    clients = [begin(server, request) for _ in range(n)]
    try:
        yield clients
    finally:
        for s in clients:
            s.close()
    assert wait_until(lambda: small(server).status_code == 200, 60, what="an empty lane")


def worked_s(server):
    return metrics(server)["process_cpu_seconds_total"]


def test_a_client_that_leaves_frees_the_lane(slow):
    """By the time that the server works: how long it waits for a processor is the machine's matter."""
    server, long_request = slow
    before = worked_s(server)
    assert httpx.post(server.url + "/v1/inspect", json=long_request, timeout=600).status_code == 200
    whole, before = worked_s(server) - before, worked_s(server)
    with begin(server, long_request):
        wait_until(lambda: worked_s(server) - before > whole / 8, 600)
    left = worked_s(server)
    assert small(server).status_code == 200
    assert worked_s(server) - left < whole / 2


def test_nine_looks_and_no_more(slow):
    """One runs, eight wait; of twelve sent together three or more are told to come again, before the first look ends."""
    server, long_request = slow
    with crowd(server, long_request, 12) as waiting:
        first, _, _ = select.select(waiting, [], [], 60)
        refused = read_answer(first[0])[0]
        assert (refused.status, refused.headers["retry-after"], refused.error()["code"]) == (429, "1", "rate_limit_exceeded")


def test_answers_that_nobody_reads_are_bounded(slow):
    """Of nine answers of 43 MB whose readers only wait, seven are made: past 256 MiB no look begins until answers are read or given up. An eighth is,
    where the sockets have taken enough of the others meanwhile."""
    server, _ = slow
    large = {"model": "slow", "prompt": [1] * 1000, "what": ["weights", "scores"], "layer": 0, "encoding": "float32"}
    with crowd(server, large, 9) as readers:
        statuses = [s.recv(12, socket.MSG_WAITALL) for s in readers]
        assert statuses.count(b"HTTP/1.1 200") in (7, 8) and set(statuses) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}, statuses


def test_looks_leave_the_rest_alone(slow):
    """While one look runs, streams and /tokenize are answered."""
    server, long_request = slow
    s = begin(server, long_request)
    for turn in range(3):
        assert httpx.post(server.url + "/tokenize", json={"prompt": "ab"}, timeout=60).json()["count"] == 2
        assert httpx.post(server.url + "/v1/completions", json={"model": "slow", "prompt": "ab", "max_tokens": 4}, timeout=60).status_code == 200
        assert turn or not select.select([s], [], [], 0)[0]  # the look goes on
    s.close()
    assert small(server).status_code == 200


def status_or_cut(s):
    with s:
        try:
            return read_answer(s)[0].status
        except (AssertionError, ConnectionResetError):
            return "cut"


def test_the_drain_does_not_wait_for_a_look(slow):
    """Last of this server: past the drain's deadline looks are given up, their clients are told, and the process ends well."""
    server, long_request = slow
    looks = [begin(server, long_request) for _ in range(8)]  # as many as may wait, so that none is refused
    assert httpx.get(server.url + "/livez", timeout=60).status_code == 200  # so the looks' connections were taken before
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    statuses = [status_or_cut(s) for s in looks]
    assert set(statuses) - {200} and set(statuses) <= {200, 503, "cut"}
    assert "cut" not in statuses or time.monotonic() - began > 0.9  # a second later those are cut off who could not be told so soon
    assert server.process.wait(60) == 0
