#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes inspect.json beside this file: what POST /v1/inspect must answer, as torch and transformers compute it.

    python make_inspect.py          (needs torch, transformers; CPU, one thread)

examples: the worked examples of the attention chapter that couplet's walk follows (sixteen numbers a reader can follow by hand: six tokens of three
numbers), each a request's `matrices` and options beside the arrays expected. The seeds are the chapter's, so that its printed tensors are these.
models: ids, and attentions and hidden states of ../parity's models (eager attention, float32; final_norm is transformers' last hidden state).
Numbers have 9 significant digits.
"""
import json
import math
from pathlib import Path

import torch
from torch.nn import Dropout, Linear
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
X = torch.tensor([[0.43, 0.15, 0.89], [0.55, 0.87, 0.66], [0.57, 0.85, 0.64], [0.22, 0.58, 0.33], [0.77, 0.25, 0.10], [0.05, 0.80, 0.55]])
MASK = torch.triu(torch.ones(6, 6), diagonal=1).bool()


def plain(t):
    """Nested lists of numbers with 9 digits, which keep every float32; None for -infinity."""
    if isinstance(t, list):
        return [plain(one) for one in t]
    if isinstance(t, torch.Tensor):
        return plain(t.tolist())
    return float(f"{t:.9g}") if isinstance(t, float) and math.isfinite(t) else None if isinstance(t, float) else t


def attend(q, k, v, causal=True, scaled=True, drop=None):
    scores = q @ k.T
    if causal:
        scores = scores.masked_fill(MASK, -torch.inf)
    weights = torch.softmax(scores / math.sqrt(k.shape[1]) if scaled else scores, dim=-1)
    weights = drop(weights) if drop else weights
    return {"scores": scores, "weights": weights, "context": weights @ v}


def case(name, matrices, expected, **options):
    return {"name": name, "request": {"matrices": {"inputs": plain(X), **{k: plain(v) for k, v in matrices.items()}}, **options},
            "expected": {k: plain(v) for k, v in expected.items()}}


def weights_of(seed, n, rand=False):
    """n matrices [3][2] as x @ W takes them; of Linear layers without bias, or of torch.rand."""
    torch.manual_seed(seed)
    return [torch.rand(3, 2) if rand else Linear(3, 2, bias=False).weight.detach().T for _ in range(n)]


def projected(w, **options):
    q, k, v = (X @ one for one in w)
    return {"qkv.q": q, "qkv.k": k, "qkv.v": v, **attend(q, k, v, **options)}


def seeded_dropout():
    torch.manual_seed(123)
    return Dropout(0.5)


def examples():
    names = ("W_q", "W_k", "W_v")
    every = {"what": ["qkv", "scores", "weights", "context"]}
    yield case("simple self attention", {}, attend(X, X, X, causal=False, scaled=False), mask="none")
    w = weights_of(123, 3, rand=True)
    yield case("queries, keys and values", dict(zip(names, w)), projected(w, causal=False), mask="none", **every)
    w = weights_of(789, 3)
    yield case("linear layers", dict(zip(names, w)), projected(w, causal=False), mask="none", **every)
    yield case("causal mask", dict(zip(names, w)), projected(w), **every)
    dropped = projected(w, drop=seeded_dropout())
    yield case("dropout", dict(zip(names, w)), dropped, dropout={"p": 0.5, "seed": 123}, **every)
    w = weights_of(123, 3)
    causal = projected(w)
    yield case("causal attention", dict(zip(names, w)), {**causal, "output": causal["context"]}, **every)
    w = weights_of(123, 6)
    heads = [projected(w[:3]), projected(w[3:])]
    stacked = {k: torch.stack([h[k] for h in heads]) for k in heads[0]}
    yield case("two heads side by side", {n: torch.stack([w[i], w[i + 3]]) for i, n in enumerate(names)},
               {**stacked, "output": torch.cat([h["context"] for h in heads], dim=-1)}, **every)
    w = weights_of(123, 3)
    out = Linear(2, 2)
    heads = [projected([one[:, h:h + 1] for one in w]) for h in range(2)]
    stacked = {k: torch.stack([h[k] for h in heads]) for k in heads[0]}
    with torch.no_grad():
        output = out(torch.cat([h["context"] for h in heads], dim=-1))
    yield case("heads of one matrix", {**dict(zip(names, w)), "n_head": 2, "W_o": out.weight.detach().T, "b_o": out.bias.detach()},
               {**stacked, "output": output}, **every)


def model_case(name, n_tokens):
    model = AutoModelForCausalLM.from_pretrained(HERE.parent / "parity" / name, attn_implementation="eager", dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, model.config.vocab_size, (1, n_tokens), generator=generator)
    with torch.no_grad():
        out = model(ids, output_attentions=True, output_hidden_states=True)
    hidden = torch.stack(out.hidden_states)[:, 0]
    return {"model": name, "ids": ids[0].tolist(), "weights": plain(torch.stack(out.attentions)[:, 0]), "embedding": plain(hidden[0]),
            "block": plain(hidden[1:-1]), "final_norm": plain(hidden[-1])}


def main():
    torch.set_num_threads(1)
    found = {"examples": list(examples()), "dropout_of_ones": plain(seeded_dropout()(torch.ones(6, 6))),
             "models": [model_case("gpt2", 7), model_case("llama", 7)]}
    (HERE / "inspect.json").write_text(json.dumps(found, separators=(",", ":")).replace("},{\"name\"", "},\n{\"name\"") + "\n")


if __name__ == "__main__":
    main()
