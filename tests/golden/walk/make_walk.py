#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes walk.json beside this file: the tables that the guided walk's worked example must show, by step and by the table's name, as torch computes them.

    python make_walk.py          (needs torch; CPU, one thread)

Six words of three numbers each, and the weights that torch draws after the seeds of the attention notebook (Sangameeee/LLM-from-scratch,
attention_mechanism.ipynb), so that what it printed is in here, but for the places where it is wrong. Numbers are texts of 4 decimals, as shown.
"""
import json
import math
from pathlib import Path

import torch
from torch.nn import Dropout, Linear

HERE = Path(__file__).resolve().parent
X = torch.tensor([[0.43, 0.15, 0.89], [0.55, 0.87, 0.66], [0.57, 0.85, 0.64], [0.22, 0.58, 0.33], [0.77, 0.25, 0.10], [0.05, 0.80, 0.55]])
LATER = torch.triu(torch.ones(6, 6), diagonal=1).bool()
PICKED = 1  # journey


def shown(t):
    """A matrix as rows of texts. A number that lies between two of them would show either: none may."""
    if t.dim() == 1:
        t = t[:, None]
    finite = t[torch.isfinite(t)].double() * 1e4
    assert ((finite - finite.floor() - 0.5).abs() > 8e-4).all(), "a number too near to the middle"
    return [["-∞" if math.isinf(x) else f"{x:.4f}".replace("-0.0000", "0.0000") for x in row] for row in t.tolist()]


def linear(seed, n):
    """n matrices [3][2] as x @ W takes them, of Linear layers made after the seed."""
    torch.manual_seed(seed)
    return [Linear(3, 2, bias=False).weight.detach().T for _ in range(n)]


def attend(wq, wk, wv, causal=True):
    q, k, v = X @ wq, X @ wk, X @ wv
    scores = q @ k.T
    masked = scores.masked_fill(LATER, -torch.inf) if causal else scores
    weights = torch.softmax(masked / math.sqrt(k.shape[1]), dim=-1)
    return {"q": q, "k": k, "v": v, "scores": masked, "weights": weights, "context": weights @ v}


def dropped(t):
    torch.manual_seed(123)
    return Dropout(0.5)(t)


def plain():
    scores = X @ X.T
    weights = torch.softmax(scores, dim=-1)
    s = scores[PICKED]
    return {"inputs x": X, "scores = x xᵀ": scores, "weights = softmax(scores)": weights, "row sums": weights.sum(dim=1), "context vectors = weights · x": weights @ X,
            "the row of “journey” by hand": torch.stack([s, s / s.sum(), torch.exp(s), torch.softmax(s, dim=0)])}


def queries(w):
    a = attend(*w, causal=False)
    s = a["scores"][PICKED]
    scaled = s / math.sqrt(2)
    hand = torch.stack([s, scaled, torch.exp(scaled), torch.softmax(scaled, dim=0)])
    return {"W_q": w[0], "W_k": w[1], "W_v": w[2], "queries = x W_q": a["q"], "keys = x W_k": a["k"], "values = x W_v": a["v"], "scores = q kᵀ": a["scores"],
            "the row of “journey” by hand": hand, "weights = softmax(scores / √d)": a["weights"], "context vectors = weights · v": a["context"]}


def mask(w, class_w):
    free, causal, whole = attend(*w, causal=False), attend(*w), attend(*class_w)
    cut = free["weights"] * torch.tril(torch.ones(6, 6))
    sums = cut.sum(dim=1)
    return {"weights without a mask": free["weights"], "masked weights": cut, "their row sums": sums, "divided by the row sums": cut / sums[:, None],
            "scores": free["scores"], "scores, masked": causal["scores"], "weights": causal["weights"], "a table of ones after dropout": dropped(torch.ones(6, 6)),
            "causal weights after dropout": dropped(causal["weights"]), "CausalAttention: weights": whole["weights"], "CausalAttention: context vectors": whole["context"]}


def heads(w):
    two = [attend(*w[:3]), attend(*w[3:])]
    torch.manual_seed(123)
    split = [Linear(3, 2, bias=False).weight.detach().T for _ in range(3)]
    out = Linear(2, 2)
    parts = [attend(*(one[:, h:h + 1] for one in split)) for h in range(2)]
    joined = torch.cat([p["context"] for p in parts], dim=-1)
    found = {f"head {h}: {name}": two[h][name] for h in range(2) for name in ("weights", "context")}
    found["both side by side"] = torch.cat([h["context"] for h in two], dim=-1)
    found |= {f"divided, head {h}: weights": parts[h]["weights"] for h in range(2)}
    return found | {"context, side by side": joined, "output = context · W_o + b_o": out(joined).detach()}


def main():
    torch.set_num_threads(1)
    torch.manual_seed(123)
    rand = [torch.rand(3, 2) for _ in range(3)]
    second = linear(789, 3)
    slip = {"what the notebook printed (cell 45)": attend(*second, causal=False)["weights"] @ (X @ rand[2])}
    found = {"plain": plain(), "rand": queries(rand), "linear": queries(second) | slip, "mask": mask(second, linear(123, 3)), "heads": heads(linear(123, 6))}
    found = {step: {name: shown(t) for name, t in tables.items()} for step, tables in found.items()}
    (HERE / "walk.json").write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")).replace("]],", "]],\n") + "\n")


if __name__ == "__main__":
    main()
