# SPDX-License-Identifier: MIT
"""The golden parity models over HTTP, by token ids: what echo and greedy decoding say must be what transformers computed.

COUPLET_PARITY_DIR names another set of the same layout: expected.json (MODEL -> inference -> [{input_ids, next_token_logprobs, greedy_20}]) beside a
folder for each model.
"""
import json
import os
from pathlib import Path

import pytest
from client import post
from serving import ROOT, Server

PARITY = Path(os.environ.get("COUPLET_PARITY_DIR", ROOT / "tests" / "golden" / "parity"))
EXPECTED = json.loads((PARITY / "expected.json").read_text())
CASES = [(name, i) for name, value in EXPECTED.items() if isinstance(value, dict) for i in range(len(value.get("inference", [])))]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def server():
    models = sorted({name for name, _ in CASES})
    with Server(*(word for name in models for word in ("--model", f"{name}={PARITY / name}"))) as running:
        yield running


def complete(server, **body):
    return post(server.url, "/v1/completions", {"temperature": 0, **body})["choices"][0]


@pytest.mark.parametrize("model,i", CASES)
def test_prompt_logprobs(server, model, i):
    case = EXPECTED[model]["inference"][i]
    scored = complete(server, model=model, prompt=case["input_ids"], max_tokens=0, echo=True, logprobs=1)["logprobs"]["token_logprobs"]
    assert scored[0] is None and len(scored) == len(case["input_ids"])
    worst = max(abs(got - want) for got, want in zip(scored[1:], case["next_token_logprobs"], strict=True))
    print(f"{model}[{i}]: largest difference {worst:.2e}")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("model,i", CASES)
def test_greedy_ids(server, model, i):
    case = EXPECTED[model]["inference"][i]
    answer = complete(server, model=model, prompt=case["input_ids"], max_tokens=20, ignore_eos=True, return_token_ids=True)
    assert answer["prompt_token_ids"] == case["input_ids"]
    assert answer["token_ids"] == case["greedy_20"]


@pytest.mark.parametrize("model,i", CASES)
def test_ids_are_scored_as_they_were_generated(server, model, i):
    """The logprobs of decoding (a row a step) and of scoring the same ids (many rows a step) are the same numbers."""
    case = EXPECTED[model]["inference"][i]
    ids = case["input_ids"] + case["greedy_20"]
    generated = complete(server, model=model, prompt=case["input_ids"], max_tokens=20, ignore_eos=True, logprobs=0)["logprobs"]
    scored = complete(server, model=model, prompt=ids, max_tokens=0, echo=True, logprobs=0)["logprobs"]
    assert scored["token_logprobs"][-20:] == generated["token_logprobs"]
