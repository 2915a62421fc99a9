# SPDX-License-Identifier: MIT
"""/v1/completions: prompts, echo, logprobs, n, best_of, stops, usage; each answer against what other answers of the server must imply."""
import json
import math
import shutil
import struct

import httpx
import pytest


@pytest.fixture(scope="module")
def ask(server):
    with httpx.Client(base_url=server.url, timeout=60) as http:
        def post(**fields):
            r = http.post("/v1/completions", json={"model": "nano", "temperature": 0, **fields})
            assert r.status_code == 200, r.text
            return r.json()
        post.http = http
        yield post


def refused(ask, **fields):
    r = ask.http.post("/v1/completions", json={"model": "nano", **fields})
    assert r.status_code == 400, r.text
    error = r.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"], error["param"]


def ids_of(ask, text):
    return ask.http.post("/tokenize", json={"prompt": text}).json()["tokens"]


def score(ask, ids):
    """Log-probability of each id after the ones before it, from answers of one token each: no echo involved."""
    found = []
    for i in range(1, len(ids)):
        # A bias on one id forces it; logprobs are of the raw logits, so the forced token's own number is untouched.
        c = ask(prompt=ids[:i], max_tokens=1, logprobs=1, logit_bias={str(ids[i]): 100}, return_token_ids=True)["choices"][0]
        assert c["token_ids"] == [ids[i]]
        found.append((c["logprobs"]["token_logprobs"][0], max(c["logprobs"]["top_logprobs"][0].values())))
    return found


def test_all_prompt_forms_agree(ask):
    a, b = "Hello, \u00e9t\u00e9", "12 seas"
    ia, ib = ids_of(ask, a), ids_of(ask, b)
    ta = ask(prompt=a, max_tokens=6)["choices"][0]["text"]
    tb = ask(prompt=b, max_tokens=6)["choices"][0]["text"]
    for prompt in ([a, b], [ia, ib], [a, ib]):
        choices = ask(prompt=prompt, max_tokens=6)["choices"]
        assert [c["index"] for c in choices] == [0, 1]
        assert [c["text"] for c in choices] == [ta, tb]
    assert ask(prompt=ia, max_tokens=6)["choices"][0]["text"] == ta
    assert ask(prompt=[a], max_tokens=6)["choices"][0]["text"] == ta


def test_default_prompt_is_end_of_text(ask):
    r = ask(max_tokens=3, return_token_ids=True)
    assert r["choices"][0]["prompt_token_ids"] == [256]
    assert ask(prompt="", max_tokens=3, return_token_ids=True)["choices"] == r["choices"]
    assert ask(prompt=None, max_tokens=3, return_token_ids=True)["choices"] == r["choices"]


def test_lm_eval_payload(ask):
    context, continuation = "The sea is", " blue and"
    rows = [ids_of(ask, context + continuation), ids_of(ask, "Z" + continuation)]
    r = ask.http.post("/v1/completions", json={"model": "nano", "prompt": rows, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}).json()
    for row, choice in zip(rows, sorted(r["choices"], key=lambda c: c["index"])):
        lp = choice["logprobs"]
        assert len(lp["tokens"]) == len(lp["token_logprobs"]) == len(lp["top_logprobs"]) == len(lp["text_offset"]) == len(row) + 1
        assert lp["token_logprobs"][0] is None and lp["top_logprobs"][0] is None
        direct = score(ask, row)
        for got, top, (want, best) in zip(lp["token_logprobs"][1:-1], lp["top_logprobs"][1:-1], direct):
            assert got == want and max(top.values()) == best
            assert (got == max(top.values())) == (want == best)
        assert [sum(len(t) for t in lp["tokens"][:i]) for i in range(len(lp["tokens"]))] == lp["text_offset"]


def test_lm_eval_payload_where_the_answer_is_the_end(ask):
    row = ids_of(ask, "abc")
    # Whatever ends the text, there are as many entries as prompt ids and one.
    c = ask(prompt=[row], max_tokens=1, logprobs=1, echo=True, logit_bias={"256": 100})["choices"][0]
    assert c["finish_reason"] == "stop" and c["logprobs"]["tokens"] == ["a", "b", "c", "<|endoftext|>"]
    assert c["text"] == "abc"


def test_echo_without_generation_only_scores(ask):
    row = ids_of(ask, "seven seas")
    c = ask(prompt=row, max_tokens=0, logprobs=2, echo=True)["choices"][0]
    assert c["text"] == "seven seas" and c["finish_reason"] == "length" and len(c["logprobs"]["tokens"]) == len(row)
    assert c["logprobs"]["token_logprobs"][1:] == [lp for lp, _ in score(ask, row)]
    assert ask(prompt=row, max_tokens=0)["choices"][0]["text"] == ""


def test_logprobs_are_a_distribution(ask):
    c = ask(prompt="ab", max_tokens=8, logprobs=20)["choices"][0]
    for chosen, top in zip(c["logprobs"]["token_logprobs"], c["logprobs"]["top_logprobs"]):
        assert 20 <= len(top) <= 21 and chosen == max(top.values()) and sum(math.exp(v) for v in top.values()) <= 1 + 1e-5
    assert ask(prompt="ab", max_tokens=8)["choices"][0]["logprobs"] is None
    zero = ask(prompt="ab", max_tokens=8, logprobs=0)["choices"][0]["logprobs"]
    assert zero["token_logprobs"] == c["logprobs"]["token_logprobs"] and all(len(t) == 1 for t in zero["top_logprobs"])
    # The offsets go on from the prompt's length, as OpenAI's do.
    assert zero["text_offset"][0] == 2


def test_same_alone_and_in_company(ask):
    alone = [ask(prompt=p, max_tokens=20, temperature=1, seed=9, logprobs=3)["choices"][0] for p in ("a", "bc", "def")]
    together = ask(prompt=["a", "bc", "def"], max_tokens=20, temperature=1, seed=9, logprobs=3)["choices"]
    for x, y in zip(alone, together):
        assert {**x, "index": 0} == {**y, "index": 0}
    assert ask(prompt="a", max_tokens=20, temperature=1, seed=9, logprobs=3)["choices"][0] == alone[0]


def test_n_and_best_of(ask):
    r = ask(prompt=["a", "b"], n=3, temperature=1, seed=3, max_tokens=5)
    assert [c["index"] for c in r["choices"]] == list(range(6)) and len({c["text"] for c in r["choices"][:3]}) > 1
    assert r["usage"]["prompt_tokens"] == 2 and r["usage"]["completion_tokens"] == 30
    many = ask(prompt="a", n=8, temperature=1.5, seed=3, max_tokens=5, logprobs=0)["choices"]
    best = ask(prompt="a", n=2, best_of=8, temperature=1.5, seed=3, max_tokens=5)
    mean = sorted(many, key=lambda c: -sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"]))
    assert [c["text"] for c in best["choices"]] == [c["text"] for c in mean[:2]]
    assert best["usage"]["completion_tokens"] == 40 and best["choices"][0]["logprobs"] is None
    assert refused(ask, prompt="a", n=3, best_of=2) == ("value_out_of_range", "best_of")
    assert refused(ask, prompt="a", n=1, best_of=2, stream=True) == ("unsupported_parameter", "best_of")
    assert refused(ask, prompt=["a"] * 20, n=20)[0] == "value_out_of_range"


def test_stops(ask):
    whole = ask(prompt="q", max_tokens=40, temperature=1, seed=11)["choices"][0]
    text = whole["text"]
    middle = text[10:12]
    at = text.index(middle)
    for stop in (middle, ["never there", middle], ["x" * 256, middle]):
        c = ask(prompt="q", max_tokens=40, temperature=1, seed=11, stop=stop)["choices"][0]
        assert (c["text"], c["finish_reason"], c["stop_reason"]) == (text[:at], "stop", middle)
    assert ask(prompt="q", max_tokens=40, temperature=1, seed=11, stop=[])["choices"][0]["text"] == text
    first = ask(prompt="q", max_tokens=1, return_token_ids=True)["choices"][0]["token_ids"][0]
    c = ask(prompt="q", max_tokens=9, stop_token_ids=[first], return_token_ids=True, logprobs=0)["choices"][0]
    assert (c["text"], c["finish_reason"], c["stop_reason"], c["token_ids"]) == ("", "stop", first, [first])
    assert ask(prompt="q", max_tokens=9, stop_token_ids=[first], min_tokens=9)["choices"][0]["finish_reason"] == "length"
    assert refused(ask, prompt="q", stop=["a"] * 17) == ("value_out_of_range", "stop")
    assert refused(ask, prompt="q", stop="a" * 257) == ("value_out_of_range", "stop")
    assert refused(ask, prompt="q", stop="") == ("value_out_of_range", "stop")


def test_stop_ids_may_not_be_all_there_is(ask):
    """Before min_tokens none of them may come: with the whole vocabulary banned nothing could."""
    every = list(range(256))
    assert refused(ask, prompt="a", max_tokens=3, min_tokens=2, stop_token_ids=every) == ("value_out_of_range", "stop_token_ids")
    assert ask(prompt="a", max_tokens=3, stop_token_ids=every)["usage"]["completion_tokens"] == 1
    assert ask(prompt="a", max_tokens=3, min_tokens=2, stop_token_ids=[7] * 256)["choices"]


def test_lengths(ask):
    assert refused(ask, prompt="a" * 257) == ("context_length_exceeded", "prompt")
    assert refused(ask, prompt="a" * 256) == ("context_length_exceeded", "prompt")  # max_tokens absent: no room for one
    assert refused(ask, prompt=["a", "a" * 257]) == ("context_length_exceeded", "prompt[1]")
    assert refused(ask, prompt="a" * 200, max_tokens=57) == ("context_length_exceeded", "max_tokens")
    assert ask(prompt="a" * 256, max_tokens=0, echo=True)["usage"]["completion_tokens"] == 0
    assert ask(prompt="a" * 250, ignore_eos=True)["usage"]["completion_tokens"] == 6
    assert ask(prompt="a" * 200, max_tokens=56, ignore_eos=True)["usage"]["completion_tokens"] == 56


def test_ids_are_checked_and_get_no_bos(ask):
    assert ask(prompt=[65], max_tokens=1)["usage"]["prompt_tokens"] == 1
    assert refused(ask, prompt=[257]) == ("invalid_token_id", "prompt")
    assert refused(ask, prompt=[[1], [-1]]) == ("invalid_token_id", "prompt[1]")
    assert refused(ask, prompt=[]) == ("value_out_of_range", "prompt")
    assert refused(ask, prompt=[[]]) == ("value_out_of_range", "prompt[0]")
    assert refused(ask, prompt=[1, "a"]) == ("invalid_type", "prompt")


def test_special_tokens_in_text(ask):
    parsed = ask(prompt="a<|endoftext|>", max_tokens=1, return_token_ids=True)["choices"][0]["prompt_token_ids"]
    assert parsed == ids_of(ask, "a<|endoftext|>") and len(parsed) == 2
    plain = ask(prompt="a<|endoftext|>", max_tokens=1, return_token_ids=True, parse_special=False)["choices"][0]["prompt_token_ids"]
    assert len(plain) == 14


def test_null_is_absent(ask):
    fields = ["max_tokens", "temperature", "top_p", "n", "best_of", "logprobs", "echo", "suffix", "stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias",
              "stream", "stream_options", "user", "top_k", "min_p", "typical_p", "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids", "return_token_ids"]
    c = ask(**{**dict.fromkeys(fields), "prompt": "a"})["choices"][0]
    assert c["finish_reason"] in ("length", "stop")
    # LangChain's
    ask(prompt=["a", "b"], n=1, logit_bias={}, seed=None, logprobs=None, frequency_penalty=0, presence_penalty=0, top_p=1, max_tokens=4)


def test_stream_equals_whole(ask):
    fields = {"model": "nano", "prompt": ["a\u00e9", "b"], "n": 2, "temperature": 1, "seed": 4, "max_tokens": 30, "echo": True, "logprobs": 2, "return_token_ids": True}
    whole = ask.http.post("/v1/completions", json=fields).json()["choices"]
    got = {c["index"]: {"text": "", "token_ids": [], "logprobs": {k: [] for k in c["logprobs"]}} for c in whole}
    lines = ask.http.post("/v1/completions", json={**fields, "stream": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    for line in lines[:-2]:
        for c in json.loads(line.removeprefix("data: "))["choices"]:
            g = got[c["index"]]
            g["text"] += c["text"]
            g["token_ids"] += c["token_ids"]
            g["finish_reason"] = c["finish_reason"]
            for k, v in c["logprobs"].items():
                g["logprobs"][k] += v
    for c in whole:
        for key in ("text", "token_ids", "finish_reason", "logprobs"):
            assert got[c["index"]][key] == c[key]


def test_alternatives_have_ids(ask):
    """One list a token beside top_logprobs, in its order, and each id is the one that has the logprob: the prompt's tokens too."""
    ids = ids_of(ask, "seven seas")
    c = ask(prompt=ids, max_tokens=3, logprobs=4, echo=True, temperature=1, seed=3, return_token_ids=True)["choices"][0]
    lp, sequence = c["logprobs"], c["prompt_token_ids"] + c["token_ids"]
    assert len(lp["top_token_ids"]) == len(lp["tokens"]) == len(sequence) and lp["top_token_ids"][0] is None
    for i, (top, alternatives) in enumerate(zip(lp["top_logprobs"], lp["top_token_ids"])):
        if i == 0:
            continue
        assert len(top) == len(alternatives) and list(top.values()) == sorted(top.values(), reverse=True)
        chosen = alternatives.index(sequence[i])
        assert list(top.values())[chosen] == lp["token_logprobs"][i]
    forced = ask(prompt=sequence[:5] + [lp["top_token_ids"][5][2]], max_tokens=0, logprobs=0, echo=True)["choices"][0]["logprobs"]
    assert forced["token_logprobs"][5] == list(lp["top_logprobs"][5].values())[2]
    assert "top_token_ids" not in ask(prompt="a", logprobs=1)["choices"][0]["logprobs"]


def ranks_of_all(post, context, size):
    """(log-probability, rank) of every token of the vocabulary after `context`: a prompt each, scored."""
    found = []
    for first in range(0, size, 128):
        prompts = [[*context, i] for i in range(first, min(first + 128, size))]
        r = post("/v1/completions", json={"model": "nano", "prompt": prompts, "max_tokens": 0, "logprobs": 0, "echo": True, "return_token_ids": True})
        assert r.status_code == 200, r.text
        found += [(c["logprobs"]["token_logprobs"][-1], c["logprobs"]["token_ranks"][-1]) for c in r.json()["choices"]]
    return found


def test_ranks_are_places_in_the_whole_vocabulary(ask):
    ids = ids_of(ask, "seven seas")
    size = 257
    found = ranks_of_all(ask.http.post, ids, size)
    order = sorted(range(size), key=lambda i: found[i][1])
    assert [found[i][1] for i in order] == list(range(1, size + 1))
    assert [found[i][0] for i in order] == sorted((lp for lp, _ in found), reverse=True)

    # Drawn tokens have the same ranks, of the model's own distribution: a bias forces a token and does not make it likelier.
    for wanted in (order[0], order[6], order[100], order[-1]):
        c = ask(prompt=ids, max_tokens=1, logprobs=3, logit_bias={str(wanted): 100}, temperature=1, return_token_ids=True)["choices"][0]
        assert c["token_ids"] == [wanted] and c["logprobs"]["token_ranks"] == [found[wanted][1]]
        assert c["logprobs"]["top_token_ids"][0][:3] == order[:3]

    # Prompt and answer in one reply; a token among the alternatives has its place there. (test_stream_equals_whole: streams have the same lists.)
    c = ask(prompt=ids, max_tokens=12, logprobs=5, echo=True, temperature=1.5, seed=8, return_token_ids=True)["choices"][0]
    lp, sequence = c["logprobs"], c["prompt_token_ids"] + c["token_ids"]
    assert len(lp["token_ranks"]) == len(sequence) and lp["token_ranks"][0] is None
    for chosen, rank, top in list(zip(sequence, lp["token_ranks"], lp["top_token_ids"]))[1:]:
        assert top.index(chosen) == min(rank - 1, 5)
    assert any(rank > 5 for rank in lp["token_ranks"][1:])
    for without in (ask(prompt="a", logprobs=1), ask(prompt="a", return_token_ids=True)):
        assert "token_ranks" not in (without["choices"][0]["logprobs"] or {})


def test_ranks_of_equal_tokens_are_in_order_of_ids(nano, tmp_path, start_server):
    """Tokens whose rows of the embedding are the same have the same logits."""
    folder = shutil.copytree(nano, tmp_path / "nano")
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    header = struct.unpack("<Q", data[:8])[0]
    table = json.loads(data[8:8 + header])["transformer.wte.weight"]
    begin, row = 8 + header + table["data_offsets"][0], table["shape"][1] * 4
    assert table["dtype"] == "F32"
    equal = (9, 40, 41, 170, 250)
    for i in equal:
        data[begin + i * row:begin + (i + 1) * row] = data[begin + 40 * row:begin + 41 * row]
    path.write_bytes(data)
    with httpx.Client(base_url=start_server(model=folder).url, timeout=60) as http:
        found = ranks_of_all(http.post, [1, 2, 3], 257)
    assert len({found[i][0] for i in equal}) == 1
    first = found[equal[0]][1]
    assert [found[i][1] for i in equal] == list(range(first, first + len(equal)))
    assert sorted(rank for _, rank in found) == list(range(1, 258))


def test_nothing_varies_but_id_time_and_cache(ask):
    answers = []
    for _ in range(3):
        r = ask(prompt="the same thing every time", max_tokens=10, logprobs=2, echo=True)
        r.pop("id"), r.pop("created"), r["usage"].pop("prompt_tokens_details")
        answers.append(json.dumps(r))
    assert len(set(answers)) == 1
