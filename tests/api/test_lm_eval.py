# SPDX-License-Identifier: MIT
"""lm-evaluation-harness as it is: `local-completions` with the remote tokenizer, on a local task. Its log-likelihoods must be those that come
from asking the server for one token at a time."""
import json
import os
import subprocess
import sys

import httpx
import pytest
from serving import ROOT

pytest.importorskip("lm_eval")


def direct(http, context, continuation):
    """Sum of the continuation's log-probabilities, each from an answer of one token; no echo, no batch."""
    def ids(text):
        return http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]

    whole, at = ids(context + continuation), len(ids(context))
    total, greedy = 0.0, True
    for i in range(at, len(whole)):
        fields = {"model": "nano", "prompt": whole[:i], "max_tokens": 1, "temperature": 0, "logprobs": 1, "ignore_eos": True}
        forced = http.post("/v1/completions", json={**fields, "logit_bias": {str(whole[i]): 100}}).json()["choices"][0]["logprobs"]
        total += forced["token_logprobs"][0]
        greedy &= forced["token_logprobs"][0] == max(forced["top_logprobs"][0].values())
    return total, greedy


def test_local_completions(server, tmp_path):
    arguments = f"base_url={server.url}/v1/completions,model=nano,tokenizer_backend=remote,max_length=256,tokenized_requests=True,num_concurrent=2"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OPENAI_API_KEY": ""}
    run = subprocess.run([sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", arguments, "--tasks", "couplet_local",
                          "--include_path", "tests/api/lm_tasks", "--batch_size", "4", "--log_samples", "--output_path", str(tmp_path / "out")],
                         cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr[-3000:]
    samples = [json.loads(line) for file in (tmp_path / "out").rglob("samples_*.jsonl") for line in file.read_text().splitlines()]
    assert len(samples) == 4
    compared = 0
    with httpx.Client(base_url=server.url) as http:
        for sample in samples:
            for arguments, response in zip(sample["arguments"].values(), sample["resps"]):
                context, continuation = arguments["arg_0"], arguments["arg_1"]
                (value, is_greedy), = response if isinstance(response[0], list) else [response]
                want, greedy = direct(http, context, continuation)
                assert abs(float(value) - want) < 1e-4 and (is_greedy in (True, "True")) == greedy
                compared += 1
    assert compared == 11
