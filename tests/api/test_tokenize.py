# SPDX-License-Identifier: MIT
"""/tokenize, /detokenize, /tokenizer_info, /v1/models: both peers' spellings, and agreement with /v1/completions."""
import httpx
import pytest
from chat_model import SPECIAL, make_chat_nano
from serving import ROOT, Server, make_nano


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def ids(http, **fields):
    r = http.post("/tokenize", json=fields)
    assert r.status_code == 200, r.text
    return r.json()["tokens"]


def test_both_spellings(http):
    assert ids(http, prompt="ab") == ids(http, content="ab") == ids(http, model="nano", prompt="ab", add_special_tokens=False) == [64, 65]
    r = http.post("/tokenize", json={"prompt": "ab\u00e9", "return_token_strs": True}).json()
    assert r["count"] == 4 and r["max_model_len"] == 256 and r["token_strs"][:2] == ["a", "b"]
    pieces = http.post("/tokenize", json={"content": "a\u00e9", "with_pieces": True}).json()["tokens"]
    assert pieces[0]["piece"] == "a" and [p["piece"] for p in pieces[1:]] == [[0xC3], [0xA9]]


def test_lm_eval_probe(http):
    info = http.get("/tokenizer_info").json()
    assert info["eos_token"] == "<|endoftext|>" and info["tokenizer_class"] and info["chat_template"] is None and info["pad_token"] is not False
    tokens = ids(http, prompt="test", add_special_tokens=False)
    assert isinstance(tokens, list) and all(isinstance(t, int) for t in tokens)
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "test", "content": "test"}
    assert ids(http, prompt=info["eos_token"], add_special_tokens=False) == [256]


@pytest.mark.parametrize("text", ["", "a", "Hello, world\n", "\u00e9\U0001f600\u0000x", "a<|endoftext|>b", "\u202e \t\r\n", "x" * 5000, " " * 3000])
def test_round_trip(http, text):
    tokens = ids(http, prompt=text)
    assert http.post("/detokenize", json={"tokens": tokens}).json()["prompt"] == text
    if 0 < len(tokens) < 250:
        c = http.post("/v1/completions", json={"model": "nano", "prompt": text, "max_tokens": 1, "return_token_ids": True}).json()["choices"][0]
        assert c["prompt_token_ids"] == tokens


def test_special_tokens(http):
    assert ids(http, prompt="<|endoftext|>") == [256]
    assert len(ids(http, prompt="<|endoftext|>", parse_special=False)) == 13


def piece_bytes(piece):
    return piece.encode() if isinstance(piece, str) else bytes(piece)


def test_offsets_and_merges(tmp_path_factory):
    """Words cover the text, each goes from bytes to its tokens by one merge a step, and offsets say where each token begins."""
    text = "the theme, 2024\u00e9 \U0001f600  x<|im_end|>the"
    with Server("--model", f"nano={make_chat_nano(tmp_path_factory.mktemp('merges') / 'nano')}") as running, httpx.Client(base_url=running.url) as http:
        for name in ("prompt", "content"):
            r = http.post("/tokenize", json={name: text, "return_offsets": True, "return_merges": True, "with_pieces": True}).json()
            raw = text.encode()
            ids_, pieces = [t["id"] for t in r["tokens"]], [piece_bytes(t["piece"]) for t in r["tokens"]]
            assert len(r["offsets"]) == r["count"] and all(raw[o:o + len(p)] == p for o, p in zip(r["offsets"], pieces))
            assert "".join(w["text"] for w in r["words"]) == text and [i for w in r["words"] for i in w["tokens"]] == ids_
            for word in r["words"]:
                own, steps = word["text"].encode(), word["steps"]
                assert raw[word["start"]:word["start"] + len(own)] == own
                assert all(b"".join(map(piece_bytes, step)) == own for step in steps)
                assert [len(s) for s in steps] == list(range(len(own), len(own) - len(steps), -1)) or word["text"] == "<|im_end|>"
                assert len(steps[-1]) == len(word["tokens"])
            assert [258] in [w["tokens"] for w in r["words"]] and [["<|im_end|>"]] in [w["steps"] for w in r["words"]]
        r = http.post("/tokenize", json={"prompt": "", "return_offsets": True, "return_merges": True}).json()
        assert r["offsets"] == r["words"] == r["tokens"] == []
        assert http.post("/tokenize", json={"prompt": "a" * 2000, "return_merges": True}).status_code == 200
        for body, param in (({"prompt": "a" * 2001, "return_merges": True}, "return_merges"), ({"messages": [{"role": "user", "content": "a"}], "return_offsets": True}, "return_offsets")):
            r = http.post("/tokenize", json=body)
            assert r.status_code == 400 and r.json()["error"]["param"] == param


def test_merges_of_a_real_vocabulary(tmp_path):
    """Each step is one merge, down to the tokens. A word of over 256 bytes shows its first and last step alone: all would be megabytes."""
    folder = make_nano(tmp_path / "merging", "--vocab", "1000")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    (folder / "tokenizer.json").write_bytes((ROOT / "tests" / "golden" / "tokenizer" / "gpt2" / "tokenizer.json").read_bytes())
    with Server("--model", str(folder)) as running, httpx.Client(base_url=running.url) as http:
        [word] = http.post("/tokenize", json={"prompt": " the", "return_merges": True}).json()["words"]
        assert word["steps"] == [[" ", "t", "h", "e"], [" t", "h", "e"], [" t", "he"], [" the"]]
        for n in (128, 129, 1000):
            reply = http.post("/tokenize", json={"prompt": "on" * n, "return_merges": True})
            [word] = reply.json()["words"]
            last = len(word["tokens"])
            assert last < 2 * n - 1 and [len(s) for s in word["steps"]] == (list(range(2 * n, last - 1, -1)) if n == 128 else [2 * n, last])
            assert "".join(word["steps"][-1]) == "on" * n and len(reply.content) < 300_000


def test_refusals(http):
    for path, body, code in (("/tokenize", {}, "missing_required_parameter"), ("/tokenize", {"prompt": 1}, "invalid_type"), ("/tokenize", {"prompt": "a", "content": "a"}, "unsupported_parameter"),
                             ("/tokenize", {"prompt": "a", "model": "none"}, "model_not_found"), ("/tokenize", {"messages": [{"role": "user", "content": "a"}]}, "no_chat_template"),
                             ("/detokenize", {}, "missing_required_parameter"), ("/detokenize", {"tokens": "a"}, "invalid_type"), ("/detokenize", {"tokens": [257]}, "invalid_token_id"),
                             ("/detokenize", {"tokens": [-1]}, "invalid_token_id")):
        r = http.post(path, json=body)
        assert r.json()["error"]["code"] == code and r.status_code == (404 if code == "model_not_found" else 400), r.text


def test_unknown_fields_are_named(http):
    assert http.post("/tokenize", json={"prompt": "a", "zebra": 1}).headers["x-couplet-ignored"] == "zebra"
    assert "x-couplet-ignored" not in http.post("/detokenize", json={"tokens": [65]}).headers


def test_a_megabyte(http):
    text = ("word " * 250000)[:1000000]
    assert len(ids(http, prompt=text)) == 1000000


def test_models(http):
    r = http.get("/v1/models").json()
    assert r["object"] == "list" and [m["id"] for m in r["data"]] == ["nano"]
    m = http.get("/v1/models/nano").json()
    assert m == r["data"][0]
    assert (m["object"], m["owned_by"], m["root"], m["parent"], m["max_model_len"]) == ("model", "couplet", "nano", None, 256)
    assert m["meta"]["n_vocab"] == 257 and m["meta"]["n_ctx_train"] == 256 and m["meta"]["n_params"] > 0 and m["meta"]["size"] > 0
    r = http.get("/v1/models/none")
    assert r.status_code == 404 and r.json()["error"]["code"] == "model_not_found"


def test_ids_with_colons_and_several_models(tmp_path_factory, nano):
    chat = make_chat_nano(tmp_path_factory.mktemp("chat") / "nano")
    with Server("--model", f"ft:nano:local::1={nano}", "--model", f"b={chat}") as running, httpx.Client(base_url=running.url) as http:
        assert [m["id"] for m in http.get("/v1/models").json()["data"]] == ["ft:nano:local::1", "b"]
        for path in ("/v1/models/ft:nano:local::1", "/v1/models/ft%3Anano%3Alocal%3A%3A1"):
            assert http.get(path).json()["id"] == "ft:nano:local::1"
        assert http.post("/tokenize", json={"prompt": "a"}).json()["error"]["code"] == "missing_required_parameter"
        assert http.post("/tokenize", json={"prompt": "<|im_end|>", "model": "b"}).json()["tokens"] == [258]
        assert len(http.post("/tokenize", json={"prompt": "<|im_end|>", "model": "ft:nano:local::1"}).json()["tokens"]) == 10
        info = http.get("/tokenizer_info", params={"model": "b"}).json()
        assert (info["bos_token"], info["eos_token"]) == (SPECIAL[0], SPECIAL[2])
        assert http.get("/v1/models/b").json()["meta"]["chat_template"] == "chatml"


def test_a_model_without_tokenizer(tmp_path_factory, nano, start_server):
    bare = tmp_path_factory.mktemp("bare") / "ids"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((nano / name).read_bytes())
    running = start_server(model=bare)
    with httpx.Client(base_url=running.url) as http:
        r = http.post("/v1/completions", json={"model": "ids", "prompt": "a"})
        assert r.status_code == 400 and r.json()["error"]["param"] == "prompt"
        c = http.post("/v1/completions", json={"model": "ids", "prompt": [5, 6], "max_tokens": 2, "echo": True, "logprobs": 1, "return_token_ids": True}).json()["choices"][0]
        assert c["logprobs"]["tokens"][:2] == ["<5>", "<6>"] and len(c["token_ids"]) == 2 and c["prompt_token_ids"] == [5, 6]
        assert c["logprobs"]["tokens"][2:] == [f"<{i}>" for i in c["token_ids"]]
        assert c["text"] == "".join(c["logprobs"]["tokens"])
        for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
            assert http.post(path, json=body).status_code == 400
        assert http.get("/tokenizer_info").status_code == 400
