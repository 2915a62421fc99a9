#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lm-evaluation-harness against couplet, as its users run it, and every log-likelihood it found against a direct computation.

    run.py [--lm-eval PROGRAM] [--model PATH] [--transformers HF_DIRECTORY] [--limit N]

Without --model: gpt2-nano with random weights. The direct computation knows neither echo nor batches: the continuation is forced one token at a time
by logit_bias, and each token's own log-probability (which no bias touches) is added up. --transformers adds a second one by PyTorch, of the same
model as a Hugging Face directory (gpt2-nano is one itself: give "same"). Ends with `lm-eval: N passed, N failed`, one for each log-likelihood.
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))
from client import post  # noqa: E402
from serving import Server, make_nano  # noqa: E402

TOLERANCE = 1e-4


def harness(program, url, folder, limit):
    """Runs the task; [(context, continuation, log-likelihood, is greedy)] of every request the harness made."""
    arguments = f"model=m,base_url={url}/v1/completions,tokenizer_backend=remote,num_concurrent=1,max_retries=1,tokenized_requests=True"
    command = [program, "--model", "local-completions", "--model_args", arguments, "--tasks", "couplet_choice", "--include_path", str(HERE),
               "--batch_size", "4", "--output_path", str(folder / "out"), "--log_samples", *(["--limit", str(limit)] if limit else [])]
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    subprocess.run(command, cwd=HERE, env=environment, check=True)
    found = []
    for path in sorted((folder / "out").rglob("samples_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            for name, response in zip(sorted(sample["arguments"]), sample["resps"], strict=True):
                asked, (likelihood, greedy) = sample["arguments"][name], response[0]
                found.append((asked["arg_0"], asked["arg_1"], float(likelihood), str(greedy) == "True"))
    return found


def ids_of(url, text):
    return post(url, "/tokenize", {"model": "m", "prompt": text, "add_special_tokens": False})["tokens"]


def split(url, context, continuation):
    """(ids of both, how many are the context's), cut as the harness cuts: blanks at the context's end belong to the continuation."""
    blanks = len(context) - len(context.rstrip())
    if blanks:
        context, continuation = context[:-blanks], context[-blanks:] + continuation
    return ids_of(url, context + continuation), len(ids_of(url, context))


def forced(url, ids, n_context):
    """Sum of the continuation's log-probabilities, and whether each token is the likeliest."""
    total, greedy = [], True
    for at in range(n_context, len(ids)):
        body = {"model": "m", "prompt": ids[:at], "max_tokens": 1, "temperature": 0, "logprobs": 1, "logit_bias": {str(ids[at]): 100}, "ignore_eos": True, "return_token_ids": True}
        choice = post(url, "/v1/completions", body)["choices"][0]
        if choice["token_ids"] != [ids[at]]:
            raise RuntimeError("the bias did not force the token")
        own = choice["logprobs"]["token_logprobs"][0]
        total.append(own)
        greedy = greedy and own == max(choice["logprobs"]["top_logprobs"][0].values())
    return math.fsum(total), greedy


def torch_scorer(folder):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def score(ids, n_context):
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        return math.fsum(logprobs[at - 1, ids[at]].item() for at in range(n_context, len(ids)))

    return score


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--lm-eval", default=shutil.which("lm_eval", path=os.path.dirname(sys.executable)) or "lm_eval")
    a.add_argument("--model")
    a.add_argument("--transformers")
    a.add_argument("--threads", default="0")
    a.add_argument("--limit", type=int, default=0)
    o = a.parse_args()
    passed = failed = 0
    worst = {"forced": 0.0, "transformers": 0.0}
    with tempfile.TemporaryDirectory(prefix="couplet-lm-eval-") as name:
        folder = Path(name)
        model = o.model or str(make_nano(folder / "nano", "--ctx", "512"))
        scorer = torch_scorer(model if o.transformers == "same" else o.transformers) if o.transformers else None
        with Server("--model", f"m={model}", "--threads", o.threads) as server:
            found = harness(o.lm_eval, server.url, folder, o.limit)
            items = [json.loads(line) for line in (HERE / "items.jsonl").read_text(encoding="utf-8").splitlines()][: o.limit or None]
            failed += len(found) != sum(len(item["choices"]) for item in items)  # a sample that got lost would otherwise pass unseen
            for context, continuation, likelihood, greedy in found:
                ids, n_context = split(server.url, context, continuation)
                direct, direct_greedy = forced(server.url, ids, n_context)
                off = {"forced": abs(direct - likelihood)}
                if scorer:
                    off["transformers"] = abs(scorer(ids, n_context) - likelihood)
                worst = {key: max(value, off.get(key, 0.0)) for key, value in worst.items()}
                # `not <=`: a NaN fails
                if any(not value <= TOLERANCE for value in off.values()) or greedy != direct_greedy:
                    failed += 1
                    print(f"{context!r} + {continuation!r}: {likelihood} {greedy}, directly {direct} {direct_greedy}, differences {off}")
                else:
                    passed += 1
    print(f"largest difference: forced {worst['forced']:.2e}" + (f", transformers {worst['transformers']:.2e}" if o.transformers else ""))
    print(f"lm-eval: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
