#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Perplexity of a text over HTTP: echo and logprobs of windows of token ids, every token scored once.

    perplexity.py --model PATH [--tokenizer PATH] [--window N] [--tokens N] [--weights auto,f32,q8] [--threads N] FILE...      a server for each --weights
    perplexity.py --url URL --model NAME [--window N] [--tokens N] FILE...                                  asks one that runs

Windows do not overlap; the first token of each is context only. FILEs are joined as they are; --tokenizer is for a model that has none. Prints JSON:
tokens scored, mean negative log-likelihood, perplexity, and against the first of --weights the change in percent. "served" is the precision that the
server says it has: q8 leaves what is already smaller as it is, so on a 4-bit file it is no other run than auto. Its cost shows on an f32 model.
"""
import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from client import connect, post  # noqa: E402
from serving import COUPLET, Server  # noqa: E402


def tokens_of(url, model, text, step=200_000):
    """Ids of a text of any length, special tokens as ordinary text; cut at line ends to stay below the body limit."""
    ids = []
    while text:
        cut = len(text) if len(text) <= step else text.rfind("\n", 0, step) + 1 or step
        ids += post(url, "/tokenize", {"model": model, "prompt": text[:cut], "add_special_tokens": False, "parse_special": False})["tokens"]
        text = text[cut:]
    return ids


def score(url, model, ids, window):
    """(sum of log-probabilities, tokens scored)"""
    total, count = [], 0
    for at in range(0, len(ids) - 1, window):
        piece = ids[at : at + window]
        if len(piece) < 2:
            break
        logprobs = post(url, "/v1/completions", {"model": model, "prompt": piece, "max_tokens": 0, "echo": True, "logprobs": 0})
        values = logprobs["choices"][0]["logprobs"]["token_logprobs"][1:]
        total += values
        count += len(values)
    return math.fsum(total), count


def served(url, model):
    link = connect(url)
    link.request("GET", "/version")
    models = json.loads(link.getresponse().read())["models"]
    link.close()
    return next(m["weights"] for m in models if m["id"] == model)


def measure(url, model, text, o):
    if o.tokenizer:
        ids = [int(word) for word in subprocess.run([COUPLET, "tokenize", "--model", o.tokenizer, "-"], input=text.encode(), capture_output=True, check=True).stdout.split()]
    else:
        ids = tokens_of(url, model, text)
    ids = ids[: o.tokens or None]
    began = time.perf_counter()
    total, count = score(url, model, ids, o.window)
    return {"tokens": count, "mean_nll": -total / count, "perplexity": math.exp(-total / count), "seconds": round(time.perf_counter() - began, 1)}


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--model", required=True)
    a.add_argument("--url")
    a.add_argument("--tokenizer")
    a.add_argument("--window", type=int, default=512)
    a.add_argument("--tokens", type=int, default=0, help="at most this many; 0: all")
    a.add_argument("--weights", default="auto")
    a.add_argument("--threads", default="0")
    a.add_argument("files", nargs="+")
    o = a.parse_args()
    text = "".join(Path(f).read_text(encoding="utf-8") for f in o.files)
    report = {"window": o.window}
    if o.url:
        report["as served"] = measure(o.url, o.model, text, o)
    else:
        for weights in o.weights.split(","):
            with Server("--model", f"m={o.model}", "--weights", weights, "--threads", o.threads) as server:
                report[weights] = {"served": served(server.url, "m"), **measure(server.url, "m", text, o)}
            first = next(v for v in report.values() if isinstance(v, dict))
            report[weights]["change_percent"] = round(100 * (report[weights]["perplexity"] / first["perplexity"] - 1), 5)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
