#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A Llama GGUF as transformers sees it, beside what couplet says of the same file over HTTP. By hand: needs torch, transformers, gguf, numpy.

    gguf_against_transformers.py FILE.gguf [--weights auto,f32] [--threads N] [--keep DIR]

Dequantises every tensor with PyPI `gguf`, un-permutes Q and K, and fills a float32 LlamaForCausalLM. Then, for a prose, a code and a Unicode text of
about 100 tokens each, compares the log-probability of every token and of the best at every place, and 20 greedy ids. --keep writes the model as
a Hugging Face directory, as other comparisons want it. Prints JSON.
"""
import argparse
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from client import post  # noqa: E402
from serving import Server  # noqa: E402

TEXTS = {
    "prose": "The lighthouse keeper wrote down the weather every evening, as his father had done before him. On the ninth of October the wind turned to the "
             "north-west, and by midnight the sea stood so high that the lamp could hardly be seen from the harbour. He counted four ships, then three. In "
             "the morning the village gathered on the quay, and nobody spoke until the fourth came round the point under a torn sail, late but whole.",
    "code": "def merge(left, right):\n    result = []\n    while left and right:\n        if left[0] <= right[0]:\n            result.append(left.pop(0))\n        "
            "else:\n            result.append(right.pop(0))\n    return result + left + right\n\n\nfor i in range(10):\n    print(i, merge([1, 3, i], [2, 4]))\n",
    "unicode": "\u00c9t\u00e9 \u00e0 la mer: 25 \u00b0C, \u20ac 12,50. \u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u4f60\u597d\uff0c\u4e16\u754c\u3002 \u03b1 + \u03b2 = \u03b3 \u2260 0; "
               "\U0001f600\U0001f680 na\u00efve fa\u00e7ade, Stra\u00dfe, \u0625\u0644\u0649 \u0627\u0644\u0644\u0642\u0627\u0621",
}


def rows_in_hf_order(weight, n_head):
    """llama.cpp stores the rows of a head as pairs (i, i + half) side by side; transformers keeps the halves apart."""
    n_out = weight.shape[0]
    return weight.reshape(n_head, n_out // n_head // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def load(path):
    reader = gguf.GGUFReader(path)
    value = lambda name: reader.fields["llama." + name].contents()
    heads, kv_heads, layers = value("attention.head_count"), value("attention.head_count_kv"), value("block_count")
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    state = {}
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        array = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if parts[-2] in ("attn_q", "attn_k"):
            array = rows_in_hf_order(array, heads if parts[-2] == "attn_q" else kv_heads)
        prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
        state[f"{prefix}{names[parts[-2]]}.weight"] = torch.from_numpy(np.ascontiguousarray(array))
    tied = "lm_head.weight" not in state
    config = LlamaConfig(
        vocab_size=state["model.embed_tokens.weight"].shape[0], hidden_size=value("embedding_length"), intermediate_size=value("feed_forward_length"),
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"), rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
        tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
    model = LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model


def greedy(model, ids, n):
    for _ in range(n):
        ids = ids + [int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-n:]


def compare(model, url, text):
    ids = post(url, "/tokenize", {"model": "m", "prompt": text, "add_special_tokens": False})["tokens"]
    with torch.no_grad():
        wanted = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        wanted_greedy = greedy(model, ids, 20)
    scored = post(url, "/v1/completions", {"model": "m", "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 1})["choices"][0]["logprobs"]
    own = [abs(got - wanted[i, ids[i + 1]].item()) for i, got in enumerate(scored["token_logprobs"][1:])]
    # Of the best tokens only the first has a place that equal texts of two tokens cannot shift.
    best = [abs(max(top.values()) - wanted[i].max().item()) for i, top in enumerate(scored["top_logprobs"][1:])]
    answer = post(url, "/v1/completions", {"model": "m", "prompt": ids, "max_tokens": 20, "temperature": 0, "ignore_eos": True, "return_token_ids": True})
    return {"tokens": len(ids), "token_logprob_max_diff": max(own), "best_logprob_max_diff": max(best), "greedy_20_identical": answer["choices"][0]["token_ids"] == wanted_greedy}


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("gguf")
    a.add_argument("--weights", default="auto")
    a.add_argument("--threads", default="0")
    a.add_argument("--keep", help="write the dequantised model there")
    o = a.parse_args()
    torch.set_num_threads(1)
    model, report = load(o.gguf), {}
    if o.keep:
        model.save_pretrained(o.keep)
    for weights in o.weights.split(","):
        with Server("--model", f"m={o.gguf}", "--weights", weights, "--threads", o.threads) as server:
            report[weights] = {name: compare(model, server.url, text) for name, text in TEXTS.items()}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
